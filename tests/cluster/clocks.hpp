// tests/cluster/clocks.hpp - the time of day of each node, to set at will (clock_skew_shim.c).
#ifndef SESHAT_TESTS_CLUSTER_CLOCKS_HPP
#define SESHAT_TESTS_CLUSTER_CLOCKS_HPP

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <stdexcept>

#include "harness.hpp"
#include "linearizability_history.hpp"

namespace seshat::tests {

class Clocks {
 public:
  explicit Clocks(const Cluster& cluster) {
    for (const int node : cluster.nodes()) set(node, 0s);
  }
  // What a node needs in its environment to see its own.
  [[nodiscard]] Process::Variables variables(int node) const {
    return {{"LD_PRELOAD", shim("clock_skew")}, {"SESHAT_CLOCK_FILE", file(node).string()}};
  }
  // At once, also for a node that runs.
  void set(int node, std::chrono::seconds skew) const {
    const std::int64_t ns = std::chrono::nanoseconds(skew).count();
    leader_time_.allow(now_ns(), std::min<std::int64_t>(ns, 0) - kMarginNs,
                       std::max<std::int64_t>(ns, 0) + kMarginNs);
    const std::int64_t seconds = skew.count();
    const Socket clock(::open(file(node).c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    if (::pwrite(clock.fd(), &seconds, sizeof seconds, 0) != sizeof seconds) {
      throw std::runtime_error("can't set " + file(node).string());
    }
  }

  // What leaders may have shown, for histories in ns of the steady clock.
  [[nodiscard]] const test::LeaderTime& leader_time() const { return leader_time_; }
  // ... where nobody sets clocks.
  [[nodiscard]] static test::LeaderTime of_one_machine() {
    test::LeaderTime leader_time;
    leader_time.allow(0, -kMarginNs, kMarginNs);
    return leader_time;
  }
  [[nodiscard]] static std::uint64_t now_ns() {
    return static_cast<std::uint64_t>(
        std::chrono::nanoseconds(SteadyClock::now().time_since_epoch()).count());
  }

 private:
  // The machine's own time of day is steered, and stamps are in whole milliseconds.
  static constexpr std::int64_t kMarginNs = 100'000'000;

  [[nodiscard]] std::filesystem::path file(int node) const {
    return dir_.path() / ("clock-" + std::to_string(node));
  }
  TempDir dir_;
  mutable test::LeaderTime leader_time_ = of_one_machine();
};

}  // namespace seshat::tests

#endif  // SESHAT_TESTS_CLUSTER_CLOCKS_HPP
