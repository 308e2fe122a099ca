// Chaos scenario 10: logs are cut all the time, under load, while nodes are killed and cut off for so
// long that only a snapshot brings them back.
#include <map>
#include <string>

#include "bulk.hpp"
#include "chaos.hpp"

namespace seshat::tests {
namespace {

// A few hundred entries are a long log here; the smallest sizes that a configuration may have.
std::map<std::string, std::string> tiny_logs() {
  return {{"raft.snapshot_interval_entries", "50"},
          {"raft.snapshot_interval_bytes", "1000000"},
          {"raft.max_log_size_bytes", "1000000"},
          {"storage.block_cache_mb", "32"}};
}

// More than a leader keeps of its log, in memory or on disk.
constexpr std::uint64_t kTooMany = 25'000;

TEST_CASE("chaos 10, compaction under load: killed and cut off, nothing is lost, logs stay short",
          "[chaos]") {
  Chaos chaos({.settings = tiny_logs()});
  chaos.start_transactions();
  Cluster& cluster = chaos.cluster;
  NodeWatch watch(cluster);
  // Beside the clients that are judged: much, so that logs are long at once.
  BulkLoad bulk(cluster, {.keys = 5'000, .value_bytes = 1'000, .connections = 1, .batch = 32});
  const auto miss_much = [&] {
    const std::uint64_t wanted = bulk.acknowledged() + kTooMany;
    return watch.look_until([&] { return bulk.acknowledged() >= wanted; }, 120s, 250ms);
  };
  const std::uint64_t rounds = variable_or("CHAOS_ROUNDS", 2);
  std::uint64_t restored = 0;  // by processes that are gone
  for (std::uint64_t round = 0; round < rounds; ++round) {
    chaos.fault("a follower killed, for longer than the log reaches back");
    const int gone = cluster.followers()[round % 2];
    restored += cluster.figure(gone, "persistence", "store_snapshots_installed");
    cluster.kill(gone);
    REQUIRE(miss_much());
    bulk.pace(2'000);
    cluster.start(gone);
    REQUIRE(cluster.caught_up(60s));

    chaos.fault("a follower cut off, for longer than the log reaches back");
    const int cut_off = cluster.followers()[(round + 1) % 2];
    chaos.network.isolate(cut_off);
    bulk.pace(0);
    REQUIRE(miss_much());
    bulk.pace(2'000);
    chaos.network.heal();
    REQUIRE(cluster.caught_up(60s));

    chaos.fault("the leader killed, and started at once");
    const int leader = cluster.leader();
    restored += cluster.figure(leader, "persistence", "store_snapshots_installed");
    cluster.kill(leader);
    cluster.start(leader);
    REQUIRE(chaos.load->await_writes(100, 20s));
    REQUIRE(cluster.caught_up(60s));

    chaos.fault("all killed");
    restored += sum_of(cluster, "persistence", "store_snapshots_installed");
    cluster.kill(cluster.nodes());
    cluster.start_all();
    REQUIRE(chaos.load->await_writes(100, 20s));
    REQUIRE(cluster.caught_up(60s));
    bulk.pace(0);
  }
  bulk.stop();
  restored += sum_of(cluster, "persistence", "store_snapshots_installed");
  report(bulk.acknowledged(), " large writes, ", restored, " snapshots restored");
  CHECK(restored >= 2 * rounds);
  CHECK(bulk.surprises() == std::vector<std::string>());
  chaos.finish();
  CHECK(bulk.wrong(cluster) == std::vector<std::string>());
  for (const int node : cluster.nodes()) {
    INFO("node " << node);
    const NodeWatch::Look most = watch.most(node);
    report("node ", node, ": at most ", most.log_entries, " entries of log, ",
           most.log_disk_bytes / 1000,
           " KB; RSS, MB: ", watch.curve(node, &NodeWatch::Look::anonymous_mb));
    // Three times the bound: it is looked at when a cut is due, and cut a little later.
    CHECK(most.log_disk_bytes < 2 * 1'000'000 + 1'000'000);
    CHECK(most.anonymous_mb < 96 + 32 + 100);
    CHECK(eventually(10s, [&] {
      return cluster.figure(node, "raft", "raft_group_1_last_index") <
             cluster.figure(node, "raft", "raft_group_1_first_index") + 1'000;
    }));
  }
}

}  // namespace
}  // namespace seshat::tests
