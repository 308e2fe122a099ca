// seshat/result.hpp - a value, or the reason why there is none.
//
//   Result<Config> config = load(path);
//   if (!config) return report(config.error());     // what happened, where, what to do
//   use(*config);
//
// For what the world does to us (disk, network, peers). Broken invariants end the process instead.
// Threads: none inside. Alone: copy this file; it needs only the standard library.
#ifndef SESHAT_RESULT_HPP
#define SESHAT_RESULT_HPP

#include <string>
#include <utility>
#include <variant>

namespace seshat {

// A sentence for people: what happened, where (file, key, node), and what to do about it.
struct Error {
  std::string text;
};

template <class T>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::move(value)) {}
  Result(Error error) : state_(std::move(error)) {}

  [[nodiscard]] explicit operator bool() const { return std::holds_alternative<T>(state_); }
  [[nodiscard]] T& operator*() & { return std::get<T>(state_); }
  [[nodiscard]] const T& operator*() const& { return std::get<T>(state_); }
  [[nodiscard]] T&& operator*() && { return std::get<T>(std::move(state_)); }
  [[nodiscard]] T* operator->() { return &std::get<T>(state_); }
  [[nodiscard]] const T* operator->() const { return &std::get<T>(state_); }
  [[nodiscard]] const Error& error() const { return std::get<Error>(state_); }

 private:
  std::variant<T, Error> state_;
};

// Success, or the reason why not.
template <>
class [[nodiscard]] Result<void> {
 public:
  Result() = default;
  Result(Error error) : error_(std::move(error)), ok_(false) {}

  [[nodiscard]] explicit operator bool() const { return ok_; }
  [[nodiscard]] const Error& error() const { return error_; }

 private:
  Error error_;
  bool ok_ = true;
};

}  // namespace seshat

#endif  // SESHAT_RESULT_HPP
