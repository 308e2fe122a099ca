// seshat/expiry.hpp - when keys whose time is over are looked for, so that their rows go.
//
//   every kPauseMs, on the leader:  the expiry index up to now ──> keys ──> a kRemoveExpired entry
//
// Nobody sees such a key meanwhile: reads compare times by themselves (keyspace.hpp). The entry names
// the keys; each replica removes those whose time is over by the state's time, which it moves on.
//
// Threads: the loop; expired_keys() on the pool. Needs: keyspace.hpp, replica.hpp (Waiter).
#ifndef SESHAT_EXPIRY_HPP
#define SESHAT_EXPIRY_HPP

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "seshat/keyspace.hpp"
#include "seshat/replica.hpp"

namespace seshat {

// Rows of the index from one time on, up to another.
struct ExpiryScan {
  static constexpr std::size_t kMaxKeys = 512;
  std::uint64_t from_ms = 0;
  std::uint64_t until_ms = 0;
};

// At most kMaxKeys. What can't be read is none: the next read of such a row tells.
[[nodiscard]] std::vector<std::string> expired_keys(const OrderedMap& map, const ExpiryScan& scan);

class Expiry final : public Waiter {
 public:
  // nullopt: not now.
  [[nodiscard]] std::optional<ExpiryScan> begin(std::uint64_t now_ms, std::uint64_t time_ms);
  void found(const ExpiryScan& scan, std::size_t keys, std::uint64_t now_ms);
  void end() { under_way_ = false; }
  void not_leading() { from_ms_ = found_until_ms_ = 0; }

  // The removal was applied, or was not.
  void done(const Outcome&) override {
    from_ms_ = found_until_ms_;
    end();
  }
  void readable() override {}
  void failed(Refusal) override { end(); }

 private:
  static constexpr std::uint64_t kPauseMs = 200;
  // Rows of removed keys are stepped over until a compaction, so that each scan begins a little before
  // where the last one ended.
  static constexpr std::uint64_t kOverlapMs = 10'000;

  bool under_way_ = false;
  std::uint64_t next_ms_ = 0;
  std::uint64_t from_ms_ = 0;
  std::uint64_t found_until_ms_ = 0;
};

// =================================================================================================
// Bodies
// =================================================================================================

inline std::vector<std::string> expired_keys(const OrderedMap& map, const ExpiryScan& scan) {
  std::string from;
  expiry_key(scan.from_ms, std::string_view("\0", 1), from);
  std::vector<std::string> keys;
  (void)map.scan(from, expiry_end(scan.until_ms), [&](std::string_view row, std::string_view) {
    if (row.size() >= kExpiryKeyHeadBytes) keys.emplace_back(row.substr(kExpiryKeyHeadBytes));
    return keys.size() < ExpiryScan::kMaxKeys;
  });
  return keys;
}

inline std::optional<ExpiryScan> Expiry::begin(std::uint64_t now_ms, std::uint64_t time_ms) {
  if (under_way_ || now_ms < next_ms_) return std::nullopt;
  under_way_ = true;
  return ExpiryScan{from_ms_, time_ms};
}

inline void Expiry::found(const ExpiryScan& scan, std::size_t keys, std::uint64_t now_ms) {
  const bool all = keys < ExpiryScan::kMaxKeys;
  next_ms_ = all ? now_ms + kPauseMs : now_ms;
  // Only when they are gone; at once, if there are none.
  found_until_ms_ = all ? scan.until_ms - std::min(scan.until_ms, kOverlapMs) : from_ms_;
  if (keys == 0) from_ms_ = found_until_ms_;
}

}  // namespace seshat

#endif  // SESHAT_EXPIRY_HPP
