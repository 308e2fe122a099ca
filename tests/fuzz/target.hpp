// What hostile bytes are thrown at: a function for each parser of bytes from outside.
//
//   make fuzz        libFuzzer invents the bytes (driver/main.cpp, scripts/fuzz)
//   make test        every file of seeds/<target> and found/<target> (fuzz_test.cpp)
//
// found/ holds, small, what once broke something; what is in it can't come back unseen.
#ifndef SESHAT_TESTS_FUZZ_TARGET_HPP
#define SESHAT_TESTS_FUZZ_TARGET_HPP

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <random>
#include <stdexcept>
#include <string_view>
#include <vector>

namespace seshat::fuzz {

// Each takes any bytes. A claim that does not hold is a Broken; nothing else may be thrown either.
void commands(std::string_view input);
void glob(std::string_view input);
void mark(std::string_view input);
void records(std::string_view input);
void resp(std::string_view input);
void toml(std::string_view input);

struct Target {
  std::string_view name;
  void (*run)(std::string_view input);
};

inline constexpr std::array kTargets = {
    Target{"commands", &commands}, Target{"glob", &glob}, Target{"mark", &mark},
    Target{"records", &records},   Target{"resp", &resp}, Target{"toml", &toml},
};

struct Broken : std::logic_error {
  using std::logic_error::logic_error;
};

// Under libFuzzer nobody catches it, so that the stack of the crash begins here.
inline void check(bool holds, const char* what) {
  if (!holds) throw Broken(what);
}

// Chance that follows from the input alone: the same input gives the same run.
class Chance {
 public:
  explicit Chance(std::string_view input) {
    std::uint64_t seed = 0xcbf29ce484222325;
    for (const char c : input) seed = (seed ^ static_cast<unsigned char>(c)) * 0x100000001b3;
    engine_.seed(seed);
  }
  // 0 .. bound - 1
  [[nodiscard]] std::size_t below(std::size_t bound) { return engine_() % bound; }
  [[nodiscard]] bool one_in(std::size_t times) { return below(times) == 0; }

 private:
  std::mt19937_64 engine_;
};

// As a network cuts them: pieces of 1 to `longest` bytes.
inline std::vector<std::string_view> cut(std::string_view bytes, std::size_t longest,
                                         Chance& chance) {
  std::vector<std::string_view> pieces;
  while (!bytes.empty()) {
    const std::size_t size = std::min(bytes.size(), 1 + chance.below(longest));
    pieces.push_back(bytes.substr(0, size));
    bytes.remove_prefix(size);
  }
  return pieces;
}

// The bytes on the heap without one byte of room behind them: AddressSanitizer sees whoever reads
// past their end, or still looks at them when they are gone.
class Exact {
 public:
  explicit Exact(std::string_view bytes) : bytes_(bytes.begin(), bytes.end()) {}
  [[nodiscard]] std::string_view view() const { return {bytes_.data(), bytes_.size()}; }

 private:
  std::vector<char> bytes_;
};

}  // namespace seshat::fuzz

#endif  // SESHAT_TESTS_FUZZ_TARGET_HPP
