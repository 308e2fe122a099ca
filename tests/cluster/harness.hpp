// tests/cluster/harness.hpp - everything that an end-to-end test uses.
//
//   process.hpp   a program beside the test, eventually(), a directory
//   client.hpp    Client: one connection; ClusterClient: follows the leader
//   cluster.hpp   Cluster: nodes to start, kill -9, pause, wipe; INFO; who leads
//   load.hpp      Writers: load, and which writes were acknowledged
//
// A test waits for conditions with eventually(), never for time to pass. It prints what it measured
// with report(); harness.cpp prints how long it took and, if it failed, the logs of its nodes.
#ifndef SESHAT_TESTS_CLUSTER_HARNESS_HPP
#define SESHAT_TESTS_CLUSTER_HARNESS_HPP

#include <iostream>
#include <optional>
#include <sstream>
#include <string>

#include "catch.hpp"
#include "client.hpp"
#include "cluster.hpp"
#include "load.hpp"
#include "process.hpp"

namespace seshat::tests {

// One line of figures: report("took ", 12, " ms").
template <class... Parts>
void report(const Parts&... parts) {
  std::ostringstream line;
  (line << ... << parts);
  std::cout << "    " << line.str() << std::endl;
}

// For a test that needs what this machine does not have: `if (skips(why)) return;`. It is counted as
// skipped, not as passed.
[[nodiscard]] bool skips(const std::optional<std::string>& why);

// A fault injector of tests/cluster/<name>_shim.c, for LD_PRELOAD.
[[nodiscard]] inline std::string shim(const std::string& name) {
  return required_variable("SESHAT_SHIMS") + "/" + name + "_shim.so";
}

}  // namespace seshat::tests

#endif  // SESHAT_TESTS_CLUSTER_HARNESS_HPP
