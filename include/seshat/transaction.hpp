// seshat/transaction.hpp - MULTI, EXEC and WATCH: what is queued, and the one log entry it becomes.
//
//   WATCH a     a's token is read: linearizable, and remembered
//   MULTI       what follows is queued
//   EXEC        one entry: the tokens, and the commands; checked and applied at one point of the log
//
// An entry's arguments: how many keys are watched; each key with its token (three numbers, in
// decimal); then each command: how many arguments it has, and these.
//
// Threads: a TransactionQueue belongs to its connection; reading an entry runs where it is applied.
// Needs:   keyspace.hpp (WatchToken).
#ifndef SESHAT_TRANSACTION_HPP
#define SESHAT_TRANSACTION_HPP

#include <charconv>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "seshat/keyspace.hpp"

namespace seshat {

struct Command;  // command.hpp

struct WatchedKey {
  std::string key;
  WatchToken token;
};

// ---- On a connection ----------------------------------------------------------------------------

class TransactionQueue {
 public:
  using Words = std::vector<std::string>;  // a command's name and arguments
  struct Queued {
    const Command* command;
    Words words;
  };
  static constexpr std::size_t kMaxWatched = 4096;
  // Of what all its commands may read and write on every node, at once.
  static constexpr std::uint64_t kMaxWorkBytes = 512ULL << 20;

  [[nodiscard]] bool active() const { return active_; }
  // Something could not be queued: EXEC will refuse it all.
  [[nodiscard]] bool broken() const { return broken_; }
  [[nodiscard]] std::size_t size_bytes() const { return size_bytes_; }
  [[nodiscard]] const std::vector<Queued>& commands() const { return commands_; }
  [[nodiscard]] std::vector<Queued> take_commands() { return std::exchange(commands_, {}); }
  [[nodiscard]] const std::vector<WatchedKey>& watched() const { return watched_; }

  // After a WATCH that failed, EXEC must not go on as if nothing had been asked for.
  void begin() {
    active_ = true;
    broken_ = watch_failed_;
  }
  void break_off() { broken_ = active_; }
  // False: it is too much. True: it counts.
  [[nodiscard]] bool may_queue(std::uint64_t work_bytes);
  void queue(const Command& command, std::span<const std::string_view> args);
  [[nodiscard]] bool may_watch(std::size_t keys) const {
    return watched_.size() + keys <= kMaxWatched;
  }
  void fail_watch() {
    watch_failed_ = true;
    break_off();
  }
  // The first token of a key counts.
  void watch(WatchedKey watched);
  void unwatch() {
    watched_.clear();
    watch_failed_ = false;
  }
  // After EXEC or DISCARD: as new. Keys are not watched any more.
  void end() { *this = TransactionQueue(); }

 private:
  bool active_ = false;
  bool broken_ = false;
  bool watch_failed_ = false;
  std::size_t size_bytes_ = 0;  // of the commands
  std::uint64_t work_bytes_ = 0;
  std::vector<Queued> commands_;
  std::vector<WatchedKey> watched_;
};

// ---- In the log ---------------------------------------------------------------------------------

// Views into an entry's arguments.
struct TransactionRecord {
  std::vector<std::pair<std::string_view, WatchToken>> watched;
  std::vector<std::span<const std::string_view>> commands;
};

// The arguments of an entry; `numbers` keeps those that are made here, and must not change after.
[[nodiscard]] std::vector<std::string_view> write_transaction(
    const std::vector<WatchedKey>& watched,
    const std::vector<const TransactionQueue::Words*>& commands, std::vector<std::string>& numbers);
// nullopt: they are not what write_transaction() made.
[[nodiscard]] std::optional<TransactionRecord> read_transaction(
    std::span<const std::string_view> arguments);

// =================================================================================================
// Bodies
// =================================================================================================

inline bool TransactionQueue::may_queue(std::uint64_t work_bytes) {
  if (work_bytes > kMaxWorkBytes - work_bytes_) return false;
  work_bytes_ += work_bytes;
  return true;
}

inline void TransactionQueue::queue(const Command& command,
                                    std::span<const std::string_view> args) {
  commands_.push_back({&command, {args.begin(), args.end()}});
  for (const std::string_view arg : args) size_bytes_ += arg.size() + sizeof(std::string);
}

inline void TransactionQueue::watch(WatchedKey watched) {
  for (const WatchedKey& known : watched_) {
    if (known.key == watched.key) return;
  }
  watched_.push_back(std::move(watched));
}

namespace transaction_detail {

inline constexpr std::size_t kNumbersOfToken = 3;

// Takes arguments one after the other.
class Reader {
 public:
  explicit Reader(std::span<const std::string_view> arguments) : left_(arguments) {}
  [[nodiscard]] bool failed() const { return failed_; }
  [[nodiscard]] bool at_end() const { return left_.empty(); }

  [[nodiscard]] std::span<const std::string_view> take(std::uint64_t count) {
    if (failed_ || count > left_.size()) {
      failed_ = true;
      return {};
    }
    const auto taken = left_.first(static_cast<std::size_t>(count));
    left_ = left_.subspan(taken.size());
    return taken;
  }
  [[nodiscard]] std::uint64_t number() {
    const auto text = take(1);
    if (failed_) return 0;
    std::uint64_t number = 0;
    const char* end = text[0].data() + text[0].size();
    const auto [stopped, error] = std::from_chars(text[0].data(), end, number);
    failed_ = error != std::errc() || stopped != end;
    return number;
  }

 private:
  std::span<const std::string_view> left_;
  bool failed_ = false;
};

}  // namespace transaction_detail

inline std::vector<std::string_view> write_transaction(
    const std::vector<WatchedKey>& watched,
    const std::vector<const TransactionQueue::Words*>& commands,
    std::vector<std::string>& numbers) {
  using transaction_detail::kNumbersOfToken;
  numbers.clear();
  numbers.reserve(1 + kNumbersOfToken * watched.size() + commands.size());
  std::vector<std::string_view> arguments;
  const auto add = [&](std::uint64_t number) {
    arguments.push_back(numbers.emplace_back(std::to_string(number)));
  };
  add(watched.size());
  for (const WatchedKey& key : watched) {
    arguments.push_back(key.key);
    add(key.token.mod_index.value);
    add(key.token.there ? 1 : 0);
    add(key.token.last_removal.value);
  }
  for (const TransactionQueue::Words* command : commands) {
    add(command->size());
    arguments.insert(arguments.end(), command->begin(), command->end());
  }
  return arguments;
}

inline std::optional<TransactionRecord> read_transaction(
    std::span<const std::string_view> arguments) {
  transaction_detail::Reader in(arguments);
  TransactionRecord record;
  const std::uint64_t watched = in.number();
  for (std::uint64_t i = 0; i < watched && !in.failed(); ++i) {
    const auto key = in.take(1);
    WatchToken token;
    token.mod_index.value = in.number();
    token.there = in.number() != 0;
    token.last_removal.value = in.number();
    if (!in.failed()) record.watched.emplace_back(key[0], token);
  }
  while (!in.failed() && !in.at_end()) record.commands.push_back(in.take(in.number()));
  if (in.failed()) return std::nullopt;
  return record;
}

}  // namespace seshat

#endif  // SESHAT_TRANSACTION_HPP
