// Random inputs and random faults for a Cluster of raft_harness.hpp; a seed replays a run exactly.
#ifndef SESHAT_TESTS_RAFT_RANDOM_HPP
#define SESHAT_TESTS_RAFT_RANDOM_HPP

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "catch.hpp"
#include "raft_harness.hpp"

namespace seshat::raft::test {

struct RunOptions {
  std::size_t size = 3;
  bool traced = false;
  bool members_change = false;  // and logs are cut, so that snapshots are needed
};

struct RunResult {
  std::string trace;
  std::size_t committed = 0;
  std::size_t elections = 0;
  std::size_t reads = 0;
  std::size_t changes = 0;
  std::size_t snapshots = 0;
};

// Small bounds, so that short runs meet them.
inline void make_small(Config& config, std::mt19937_64& random) {
  config.seed = random();
  config.lease_reads = random() % 4 != 0;
  config.max_append_size_bytes = std::size_t{64} << random() % 4;
  config.max_inflight_size_bytes = std::size_t{128} << random() % 4;
  config.max_apply_size_bytes = 200;
  config.applied_tail_size_bytes = random() % 2 == 0 ? 300 : 100'000;
  config.keep_log_for_ms = 1'000;
  config.max_log_memory_size_bytes = random() % 4 == 0 ? 1'000 : 100'000;
}

// With part of what it has applied in memory as well.
inline void start_anywhere(Cluster& cluster, std::uint64_t id, std::mt19937_64& random) {
  const std::uint64_t applied = cluster.node(id).applied.size();
  const std::uint64_t first = cluster.node(id).log_first;
  const std::uint64_t lowest = first == 1 ? 0 : std::min(first, applied);
  cluster.start(id, lowest + random() % (applied - lowest + 1));
}

inline void random_fault(Cluster& cluster, std::mt19937_64& random) {
  const std::uint64_t other = 1 + random() % cluster.size();
  const bool at_leader = cluster.leader() != 0 && random() % 3 == 0;
  const std::uint64_t id = at_leader ? cluster.leader() : 1 + random() % cluster.size();
  Node& node = cluster.node(id);
  if (!node.raft) return start_anywhere(cluster, id, random);
  switch (random() % 14) {
    case 0: {
      cluster.crash(id, random() % (node.unsynced.size() + 1));
      cluster.forget_applied(id, random() % 3);  // what it applied may not have been synced
      if (random() % 2 == 0) cluster.start(id);
      return;
    }
    case 1:
      return cluster.isolate(id);
    case 2:
      return cluster.cut(id, other);
    case 3:
      return cluster.cut(id, other), cluster.cut(other, id);
    case 4:
    case 5:
      return cluster.heal();
    case 6: {
      node.raft->transfer_leadership(cluster.clock(node));
      cluster.settle();
      if (random() % 2 == 0) cluster.advance(random() % 100), cluster.isolate(id);
      return;
    }
    case 7:
      return node.raft->unreachable(cluster.clock(node), NodeId{other});
    case 8:
      node.apply_stalled = !node.apply_stalled;
      return;
    case 9:
      node.paused = !node.paused;
      return;
    case 10:
      node.sync_ms = random() % 4 == 0 ? 3'000 : random() % 200;
      return;
    default:
      node.sync_ms = random() % 10;
      return;
  }
}

inline void random_input(Cluster& cluster, std::mt19937_64& random) {
  const std::uint64_t leader = cluster.leader();
  const std::uint64_t any = 1 + random() % cluster.size();
  const std::uint64_t id = leader != 0 && random() % 4 != 0 ? leader : any;
  if (!cluster.node(id).raft || cluster.node(id).paused) return;
  if (random() % 4 == 0) {
    static_cast<void>(cluster.read(id));
  } else {
    static_cast<void>(cluster.propose(id));
  }
}

inline void end_all_faults(Cluster& cluster) {
  cluster.network = nullptr;
  cluster.heal();
  for (std::uint64_t id = 1; id <= cluster.size(); ++id) {
    Node& node = cluster.node(id);
    node.paused = node.apply_stalled = false;
    node.sync_ms = 0;
    if (!node.raft) cluster.start(id, node.log_first == 1 ? 0 : node.applied.size());
    cluster.sync(id);
  }
}

// Voters and learners, drawn from all nodes.
inline void random_change(Cluster& cluster, std::mt19937_64& random, RunResult& result) {
  std::vector<std::uint64_t> voters;
  std::vector<std::uint64_t> learners;
  for (std::uint64_t id = 1; id <= cluster.size(); ++id) {
    const std::uint64_t drawn = random() % 4;
    if (drawn < 2) voters.push_back(id);
    if (drawn == 2) learners.push_back(id);
  }
  const std::uint64_t leader = cluster.leader();
  if (leader == 0 || cluster.node(leader).paused) return;
  result.changes += cluster.change(leader, voters, learners) == ProposeStatus::kAccepted ? 1 : 0;
}

// Within what the core allows, or regardless of it, as at the largest size of the log.
inline void random_cut(Cluster& cluster, std::mt19937_64& random) {
  const std::uint64_t id = 1 + random() % cluster.size();
  if (!cluster.node(id).raft) return;
  cluster.compact(id, random() % 40, random() % 3 == 0);
}

inline RunResult random_run(std::uint64_t seed, const RunOptions& options) {
  std::mt19937_64 random(seed);
  RunResult result;
  const std::size_t size = options.size;
  const std::size_t founders = options.members_change ? 1 + random() % size : size;
  Cluster cluster(size, [&](Config& config) {
    make_small(config, random);
    config.voters.resize(config.id.value <= founders ? founders : 0);
  });
  if (options.traced) cluster.trace = &result.trace;
  for (std::uint64_t id = 1; id <= size; ++id) {
    cluster.node(id).clock_offset_ms = 1 + random() % 1'000'000;
    cluster.node(id).clock_drift_permille = static_cast<std::int64_t>(random() % 101) - 50;
    cluster.start(id);
  }
  const std::uint64_t lost_percent = random() % 3 * 5;
  const std::uint64_t max_delay_ms = 1 + random() % 80;
  cluster.network = [&, lost_percent, max_delay_ms](const Message&) {
    std::vector<std::uint64_t> delays_ms;
    if (random() % 100 >= lost_percent) delays_ms.push_back(random() % max_delay_ms);
    if (random() % 20 == 0) delays_ms.push_back(random() % 2'000);  // doubled, and late
    return delays_ms;
  };
  for (int step = 0; step < 400; ++step) {
    cluster.advance(random() % 50);
    random_input(cluster, random);
    if (random() % 6 == 0) random_fault(cluster, random);
    if (!options.members_change) continue;
    if (random() % 12 == 0) random_change(cluster, random, result);
    if (random() % 8 == 0) random_cut(cluster, random);
    cluster.snapshots_arrive = random() % 4 != 0;
  }
  cluster.snapshots_arrive = true;
  end_all_faults(cluster);
  cluster.advance(4'000);
  INFO(cluster.state());
  REQUIRE(cluster.leader() != 0);
  const Proposed last = cluster.propose(cluster.leader());
  cluster.advance(1'000);
  const Configuration& members = cluster[cluster.leader()].configuration();
  REQUIRE_FALSE(members.is_joint());
  for (std::uint64_t id = 1; id <= size; ++id) {
    if (members.has(NodeId{id})) REQUIRE(cluster[id].last_applied() >= last.index);
    result.reads += cluster.node(id).reads.size();
  }
  result.committed = cluster.committed();
  result.elections = cluster.elections();
  result.snapshots = cluster.snapshots;
  return result;
}

}  // namespace seshat::raft::test

#endif  // SESHAT_TESTS_RAFT_RANDOM_HPP
