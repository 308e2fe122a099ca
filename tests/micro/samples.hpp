// What is parsed, encoded and stored here: keys of 32 bytes and values of 256, as `make bench` has them.
#ifndef SESHAT_TESTS_MICRO_SAMPLES_HPP
#define SESHAT_TESTS_MICRO_SAMPLES_HPP

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "seshat/codec.hpp"
#include "seshat/raft.hpp"
#include "seshat/records.hpp"

namespace seshat::micro {

inline constexpr std::uint64_t kTimeMs = 1'700'000'000'000;

inline std::string key(std::uint64_t number) {
  const std::string digits = std::to_string(number);
  return "key:" + std::string(28 - digits.size(), '0') + digits;
}

inline std::string value() { return std::string(256, 'v'); }

// A SET as it stands in the log. One of a thousand keys.
inline std::string set_operation(std::uint64_t number) {
  const std::string name = key(number % 1'000);
  const std::string data = value();
  Operation operation;
  operation.time_ms = kTimeMs;
  operation.arguments = {name, data};
  return codec::encode(operation);
}

inline std::vector<raft::Entry> entries(raft::Index first, std::size_t count) {
  std::vector<raft::Entry> made;
  for (std::size_t i = 0; i < count; ++i) {
    const raft::Index index = first + i;
    auto data = std::make_shared<const std::string>(set_operation(index.value));
    made.push_back({raft::Term{1}, index, raft::EntryType::kNormal, std::move(data)});
  }
  return made;
}

}  // namespace seshat::micro

#endif  // SESHAT_TESTS_MICRO_SAMPLES_HPP
