// A cluster comes up by itself, from empty directories and after a stop of all nodes.
#include "harness.hpp"

namespace seshat::tests {
namespace {

// Until a write that somebody sends right away is acknowledged.
Milliseconds time_to_first_write(const Cluster& cluster, SteadyClock::time_point start) {
  REQUIRE(cluster.cluster_client().ask("SET", "first", "write") == "+OK");
  return since(start);
}

TEST_CASE("three and five empty nodes serve a write within 5 s of their start") {
  for (const int nodes : {3, 5}) {
    const auto start = SteadyClock::now();
    const Cluster cluster({.nodes = nodes});
    const Milliseconds taken = time_to_first_write(cluster, start);
    report(nodes, " nodes: the first write after ", taken.count(), " ms");
    CHECK(taken < 5s);
  }
}

TEST_CASE("a node alone, without configuration of a cluster, serves within a second") {
  const auto start = SteadyClock::now();
  const Cluster cluster({.nodes = 1});
  const Milliseconds taken = time_to_first_write(cluster, start);
  report("one node: the first write after ", taken.count(), " ms");
  CHECK(taken < 1s);
  CHECK(cluster.client(1).ask("GET", "first") == "write");
}

TEST_CASE("all nodes stopped in good order and started again serve what they had") {
  Cluster cluster;
  (void)time_to_first_write(cluster, SteadyClock::now());
  for (const int node : cluster.nodes()) cluster.process(node).terminate();
  for (const int node : cluster.nodes()) {
    CHECK(cluster.process(node).wait(6s) == ExitStatus{0, 0});
  }
  const auto start = SteadyClock::now();
  cluster.start_all();
  CHECK(cluster.cluster_client().ask("GET", "first") == "write");
  report("serves again after ", since(start).count(), " ms");
}

}  // namespace
}  // namespace seshat::tests
