// tests/cluster/clocks.hpp - the time of day of each node, to set at will (clock_skew_shim.c).
#ifndef SESHAT_TESTS_CLUSTER_CLOCKS_HPP
#define SESHAT_TESTS_CLUSTER_CLOCKS_HPP

#include <fcntl.h>
#include <unistd.h>

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <stdexcept>

#include "harness.hpp"

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
    const std::int64_t seconds = skew.count();
    const Socket clock(::open(file(node).c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    if (::pwrite(clock.fd(), &seconds, sizeof seconds, 0) != sizeof seconds) {
      throw std::runtime_error("can't set " + file(node).string());
    }
  }

 private:
  [[nodiscard]] std::filesystem::path file(int node) const {
    return dir_.path() / ("clock-" + std::to_string(node));
  }
  TempDir dir_;
};

}  // namespace seshat::tests

#endif  // SESHAT_TESTS_CLUSTER_CLOCKS_HPP
