// seshat/store_log_size.hpp - how large a log is, and where to cut it, without asking the disk.
//
//   base │ step │ step │ step │ ... │      a step: the bytes up to some entry, counted from the
//        └ start_bytes_          end ┘      beginning; inside a step entries count as equally large
//
// Threads: none inside; the owner guards it. Costs: 16 bytes for each 256 KB of log.
// Needs:   raft.hpp.
#ifndef SESHAT_STORE_LOG_SIZE_HPP
#define SESHAT_STORE_LOG_SIZE_HPP

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <deque>

#include "seshat/raft.hpp"

namespace seshat {

class LogSize {
 public:
  LogSize() = default;
  // Of an empty log; its first entry will follow `base`.
  explicit LogSize(raft::Index base) : base_(base) {}

  [[nodiscard]] std::uint64_t size_bytes() const { return end_bytes() - start_bytes_; }
  // The entry behind which `keep_size_bytes` or a little more remain; the base if less is there.
  [[nodiscard]] raft::Index cut_point(std::uint64_t keep_size_bytes) const;
  // Of what stands up to and including `last`.
  [[nodiscard]] std::uint64_t size_until(raft::Index last) const {
    return last <= base_ ? 0 : bytes_at(last) - start_bytes_;
  }

  // Entries up to and including `last` follow what is there.
  void add(raft::Index last, std::uint64_t size_bytes);
  // Whatever follows `last` goes.
  void truncate(raft::Index last);
  // Whatever comes before `base`, and it, goes.
  void cut(raft::Index base);

 private:
  static constexpr std::uint64_t kStepSizeBytes = 256 << 10;

  struct Step {
    raft::Index last;
    std::uint64_t end_bytes;
  };

  [[nodiscard]] std::uint64_t end_bytes() const {
    return steps_.empty() ? start_bytes_ : steps_.back().end_bytes;
  }
  // What stands before step number `i`.
  [[nodiscard]] Step before(std::size_t i) const {
    return i == 0 ? Step{base_, start_bytes_} : steps_[i - 1];
  }
  [[nodiscard]] std::uint64_t bytes_at(raft::Index index) const;

  raft::Index base_;
  std::uint64_t start_bytes_ = 0;
  std::deque<Step> steps_;
};

// =================================================================================================
// Bodies
// =================================================================================================

inline raft::Index LogSize::cut_point(std::uint64_t keep_size_bytes) const {
  if (size_bytes() <= keep_size_bytes) return base_;
  const std::uint64_t until_bytes = end_bytes() - keep_size_bytes;
  const auto beyond = std::partition_point(steps_.begin(), steps_.end(), [=](const Step& step) {
    return step.end_bytes <= until_bytes;
  });
  return before(static_cast<std::size_t>(beyond - steps_.begin())).last;
}

inline void LogSize::add(raft::Index last, std::uint64_t size_bytes) {
  const std::size_t count = steps_.size();
  const bool full =
      count == 0 || steps_.back().end_bytes - before(count - 1).end_bytes >= kStepSizeBytes;
  const std::uint64_t end = end_bytes() + size_bytes;
  if (full) {
    steps_.push_back({last, end});
  } else {
    steps_.back() = {last, end};
  }
}

inline std::uint64_t LogSize::bytes_at(raft::Index index) const {
  const auto found = std::partition_point(steps_.begin(), steps_.end(),
                                          [=](const Step& step) { return step.last < index; });
  if (found == steps_.end()) return end_bytes();
  const Step from = before(static_cast<std::size_t>(found - steps_.begin()));
  if (index <= from.last) return from.end_bytes;
  const double part =
      static_cast<double>(index - from.last) / static_cast<double>(found->last - from.last);
  return from.end_bytes +
         static_cast<std::uint64_t>(part * static_cast<double>(found->end_bytes - from.end_bytes));
}

inline void LogSize::truncate(raft::Index last) {
  const std::uint64_t end = bytes_at(last);
  while (!steps_.empty() && before(steps_.size() - 1).last >= last) steps_.pop_back();
  if (!steps_.empty() && steps_.back().last > last) steps_.back() = {last, end};
}

inline void LogSize::cut(raft::Index base) {
  start_bytes_ = bytes_at(base);
  while (!steps_.empty() && steps_.front().last <= base) steps_.pop_front();
  base_ = base;
}

}  // namespace seshat

#endif  // SESHAT_STORE_LOG_SIZE_HPP
