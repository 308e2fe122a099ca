// What the tests of the codecs share: messages with the decoders they belong to, and the harm that is
// done to their bytes: none of it may do any.
#ifndef SESHAT_TESTS_CODEC_SAMPLES_HPP
#define SESHAT_TESTS_CODEC_SAMPLES_HPP

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "catch.hpp"

namespace seshat::tests {

// A record or message as bytes, with its decoder: true if the bytes were taken.
struct Sample {
  const char* name;
  std::string bytes;
  std::function<bool(std::string_view)> decodes;
};

template <class Decode>
[[nodiscard]] Sample sample(const char* name, std::string bytes, Decode decode) {
  return {name, std::move(bytes), [decode](std::string_view b) { return bool(decode(b)); }};
}

// The same bytes in memory of their own, so that ASan sees the first one read beyond them.
inline bool decodes_exactly(const Sample& sample, std::string_view bytes) {
  const auto copy = std::make_unique<char[]>(bytes.size());
  std::copy(bytes.begin(), bytes.end(), copy.get());
  return sample.decodes({copy.get(), bytes.size()});
}

inline void check_cut_short(const std::vector<Sample>& samples) {
  for (const Sample& s : samples) {
    INFO(s.name);
    REQUIRE(decodes_exactly(s, s.bytes));
    for (std::size_t size = 0; size < s.bytes.size(); ++size) {
      (void)decodes_exactly(s, std::string_view(s.bytes).substr(0, size));
    }
    // The last field is a number or bytes: without its last byte it is not whole.
    CHECK_FALSE(decodes_exactly(s, std::string_view(s.bytes).substr(0, s.bytes.size() - 1)));
  }
}

inline void check_flipped(const std::vector<Sample>& samples, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  for (const Sample& s : samples) {
    for (int round = 0; round < 3000; ++round) {
      std::string bytes = s.bytes;
      for (std::uint64_t flips = 1 + random() % 4; flips > 0; --flips) {
        bytes[random() % bytes.size()] ^= static_cast<char>(1U << random() % 8);
      }
      (void)decodes_exactly(s, bytes);
    }
  }
}

inline void check_meaningless(const std::vector<Sample>& samples, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  for (const Sample& s : samples) {
    for (int round = 0; round < 3000; ++round) {
      std::string bytes(random() % 40, '\0');
      for (char& byte : bytes) byte = static_cast<char>(random());
      (void)decodes_exactly(s, bytes);
    }
  }
}

}  // namespace seshat::tests

#endif  // SESHAT_TESTS_CODEC_SAMPLES_HPP
