// seshat/expiry.hpp - when keys whose time is over are looked for, so that their rows go.
//
//   the leader, when the next key's time is over:  the index up to now ──> keys ──> a kRemoveExpired entry
//                                          and:  the time of the first row beyond now, when to look again
//
// That next time is known from the last look, and for keys that were given a time since, from the state
// machine. At most every kPauseMs: a look writes what was applied to disk before.
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

struct ExpiredKeys {
  std::vector<std::string> keys;  // at most kMaxKeys
  std::uint64_t next_ms = 0;  // when the first of the others expires; 0: it has, or nobody knows
};

[[nodiscard]] ExpiredKeys expired_keys(const OrderedMap& map, const ExpiryScan& scan);

class Expiry final : public Waiter {
 public:
  // nullopt: not now. `given_ms` is the soonest time that a key was given since the last scan began;
  // `time_ms` is the leader's clock. After a scan, the caller begins to count given times anew.
  [[nodiscard]] std::optional<ExpiryScan> begin(std::uint64_t now_ms, std::uint64_t time_ms,
                                                std::uint64_t given_ms);
  void found(const ExpiryScan& scan, const ExpiredKeys& found, std::uint64_t now_ms);
  void end() { under_way_ = false; }
  void not_leading() { from_ms_ = found_until_ms_ = known_next_ms_ = 0; }

  // Keys that this node had removed.
  [[nodiscard]] std::uint64_t removed() const { return removed_; }

  // The removal was applied, or was not.
  void done(const Outcome& outcome) override {
    removed_ += static_cast<std::uint64_t>(outcome.integer);
    from_ms_ = found_until_ms_;
    end();
  }
  void readable() override {}
  void failed(Refusal) override {
    known_next_ms_ = 0;
    end();
  }

 private:
  static constexpr std::uint64_t kPauseMs = 200;
  // Rows of removed keys are stepped over until a compaction, so that each scan begins a little before
  // where the last one ended.
  static constexpr std::uint64_t kOverlapMs = 10'000;

  bool under_way_ = false;
  std::uint64_t next_ms_ = 0;
  std::uint64_t from_ms_ = 0;
  std::uint64_t found_until_ms_ = 0;
  std::uint64_t known_next_ms_ = 0;
  std::uint64_t removed_ = 0;
};

// =================================================================================================
// Bodies
// =================================================================================================

inline ExpiredKeys expired_keys(const OrderedMap& map, const ExpiryScan& scan) {
  std::string from;
  expiry_key(scan.from_ms, std::string_view("\0", 1), from);
  ExpiredKeys found;
  found.next_ms = Keyspace::kNever;
  const Lookup lookup =
      map.scan(from, expiry_end(Keyspace::kNever), [&](std::string_view row, std::string_view) {
        if (row.size() < kExpiryKeyHeadBytes) return true;
        const std::uint64_t expires_at_ms = expiry_of(row);
        if (expires_at_ms > scan.until_ms || found.keys.size() == ExpiryScan::kMaxKeys) {
          found.next_ms = expires_at_ms;
          return false;
        }
        found.keys.emplace_back(row.substr(kExpiryKeyHeadBytes));
        return true;
      });
  if (lookup != Lookup::kFound) found.next_ms = 0;
  return found;
}

inline std::optional<ExpiryScan> Expiry::begin(std::uint64_t now_ms, std::uint64_t time_ms,
                                               std::uint64_t given_ms) {
  if (under_way_ || now_ms < next_ms_ || std::min(known_next_ms_, given_ms) > time_ms) {
    return std::nullopt;
  }
  under_way_ = true;
  return ExpiryScan{from_ms_, time_ms};
}

inline void Expiry::found(const ExpiryScan& scan, const ExpiredKeys& found, std::uint64_t now_ms) {
  const bool all = found.next_ms > scan.until_ms;
  known_next_ms_ = found.next_ms;
  next_ms_ = all || found.keys.empty() ? now_ms + kPauseMs : now_ms;
  // Only when they are gone; at once, if there are none.
  found_until_ms_ = all ? scan.until_ms - std::min(scan.until_ms, kOverlapMs) : from_ms_;
  if (found.keys.empty()) from_ms_ = found_until_ms_;
}

}  // namespace seshat

#endif  // SESHAT_EXPIRY_HPP
