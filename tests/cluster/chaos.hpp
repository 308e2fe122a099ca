// tests/cluster/chaos.hpp - a cluster, its network and a recorded load, to let things go wrong in.
//
//   Chaos chaos;                                  three nodes, clients on all of them
//   const int leader = chaos.cluster.leader();
//   chaos.fault("leader isolated");
//   chaos.network.isolate(leader);
//   ... what must hold meanwhile ...
//   chaos.finish();                               heals, waits for writes, judges, prints
//
// Every test ends in one line: operations, acknowledged, unknown, refused, faults, the worst
// unavailability, violations.
#ifndef SESHAT_TESTS_CLUSTER_CHAOS_HPP
#define SESHAT_TESTS_CLUSTER_CHAOS_HPP

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "harness.hpp"
#include "history.hpp"
#include "network.hpp"

namespace seshat::tests {

struct ChaosOptions {
  ClusterOptions cluster = {};
  RecordedLoad::Options load = {};
};

class Chaos {
 public:
  explicit Chaos(ChaosOptions options = {});

  // Counts it; CHAOS_TELLS=1 in the environment prints each.
  void fault(const std::string& what);
  // Starts the clients; the cluster has to run. The constructor has done it if it started the nodes.
  void start_load();
  // All nodes run and catch up, and what the leader holds is what clients were told. Everything has to
  // be whole again but for the network and paused nodes, which are healed and go on here.
  LoadFigures finish();

  // The longest time without an acknowledged write since `begin`.
  [[nodiscard]] Milliseconds unavailable_since(SteadyClock::time_point begin) const {
    return load->worst_unavailability(begin);
  }
  // Whether writes are acknowledged again within `bound` of `begin`.
  [[nodiscard]] bool writes_resume_by(SteadyClock::time_point begin, Milliseconds bound) const;

 private:
  ChaosOptions options_;
  SteadyClock::time_point started_ = SteadyClock::now();
  SteadyClock::time_point load_began_ = started_;

 public:
  Cluster cluster;
  PeerNetwork network;
  std::unique_ptr<RecordedLoad> load;
  int faults = 0;
};

// =================================================================================================
// Bodies
// =================================================================================================

namespace chaos_detail {

inline ClusterOptions not_started(ClusterOptions options) {
  options.started = false;
  return options;
}

inline std::map<int, Port> peer_ports(const Cluster& cluster) {
  std::map<int, Port> ports;
  for (const int node : cluster.nodes()) ports[node] = cluster.peer_port(node);
  return ports;
}

}  // namespace chaos_detail

inline Chaos::Chaos(ChaosOptions options)
    : options_(std::move(options)),
      cluster(chaos_detail::not_started(options_.cluster)),
      network(chaos_detail::peer_ports(cluster)) {
  for (const int node : cluster.nodes()) {
    std::string dial;
    for (const int other : cluster.others(node)) {
      dial += std::to_string(other) +
              " = \"127.0.0.1:" + std::to_string(network.entrance(node, other)) + "\", ";
    }
    cluster.set_settings(node, {{"cluster.dial", "{" + dial.substr(0, dial.size() - 2) + "}"}});
  }
  if (!options_.cluster.started) return;
  cluster.start_all();
  REQUIRE(cluster.settled());
  start_load();
}

inline void Chaos::start_load() {
  load = std::make_unique<RecordedLoad>(cluster, options_.load);
  REQUIRE(load->await_writes(100, 20s));
  load_began_ = SteadyClock::now();
}

inline void Chaos::fault(const std::string& what) {
  ++faults;
  const char* tells = std::getenv("CHAOS_TELLS");
  if (tells != nullptr && *tells == '1') report(since(started_).count(), " ms: ", what);
}

inline bool Chaos::writes_resume_by(SteadyClock::time_point begin, Milliseconds bound) const {
  const std::size_t before = load->acknowledged_writes();
  const Milliseconds left = bound - since(begin);
  return eventually(left, [&] { return load->acknowledged_writes() > before; });
}

inline LoadFigures Chaos::finish() {
  network.heal();
  for (const int node : cluster.nodes()) {
    INFO("node " << node);
    CHECK(cluster.running(node));
    if (cluster.running(node)) cluster.resume(node);
  }
  CHECK(load->await_writes(100, 15s));
  load->stop();
  CHECK(cluster.caught_up());
  LoadFigures figures = load->judge(cluster);
  figures.worst_unavailability = load->worst_unavailability(load_began_);
  report(figures.operations, " operations, ", figures.acknowledged, " acknowledged, ",
         figures.unknown, " unknown, ", figures.refused, " refused, ", faults, " faults, ",
         figures.worst_unavailability.count(), " ms worst unavailability, ", figures.violations,
         " violations");
  CHECK(figures.violations == 0);
  CHECK(figures.undecided == 0);
  CHECK(figures.surprises == std::vector<std::string>());
  if (!figures.story.empty()) report("the first violation:\n", figures.story);
  return figures;
}

}  // namespace seshat::tests

#endif  // SESHAT_TESTS_CLUSTER_CHAOS_HPP
