// The data of the last release, run by this program. How they were made: tests/compat/README.md.
#include <filesystem>
#include <string>

#include "bulk.hpp"
#include "harness.hpp"

namespace seshat::tests {
namespace {

constexpr int kKeys = 200;

// Beside this file's folder; the path is relative: the tests run in the repository's root.
std::filesystem::path archive(const std::string& name) {
  return std::filesystem::path(__FILE__).parent_path().parent_path() / "compat" /
         (name + ".tar.xz");
}

// A node by itself, which may be joined; or one that joins it. Logs are cut after a little.
void configure(const Cluster& cluster, int node) {
  const auto quoted = [](const std::string& text) { return '"' + text + "\"\n"; };
  const auto peer_addr = [&](int of) {
    return "127.0.0.1:" + std::to_string(cluster.peer_port(of));
  };
  std::string text = "node.id = " + std::to_string(node) + "\n" +
                     "node.client_addr = " + quoted(cluster.client_addr(node)) +
                     "node.internal_addr = " + quoted(peer_addr(node)) +
                     "node.data_dir = " + quoted(cluster.data_dir(node).string()) +
                     "limits.min_free_disk_mb = 16\n" + "raft.snapshot_interval_entries = 50\n" +
                     "raft.snapshot_interval_bytes = 1000000\n" +
                     "raft.max_log_size_bytes = 1000000\n";
  if (node != 1) text += "cluster.join_addr = " + quoted(peer_addr(1));
  write_text(cluster.config_file(node), text);
}

void unpack(const std::string& name, const std::filesystem::path& to) {
  std::filesystem::create_directories(to);
  const Finished done =
      run({"tar", "xJf", archive(name).string(), "-C", to.string(), "--strip-components=1"}, 20s);
  INFO(done.output);
  REQUIRE(done.status == ExitStatus{0, 0});
}

void check_old_values(Client& client) {
  for (int i = 1; i <= kKeys; ++i) {
    const std::string key = "key:" + std::to_string(i);
    const std::string value = i % 10 == 0 ? "(nil)" : "value-" + std::to_string(i);
    CHECK(client.ask("GET", key) == value);
  }
  CHECK(client.ask("GET", "big") == std::string(60'000, 'x'));
  CHECK(client.ask("GET", "last") == "word");
}

std::uint64_t of_data(const Cluster& cluster, int node, const std::string& name) {
  return cluster.figure(node, "raft", "raft_group_1_" + name);
}

// Opened, read, written to, its log cut, joined by a second node, and started once more.
void check_goes_on(const std::string& name) {
  Cluster cluster({.nodes = 2, .started = false});
  for (const int node : cluster.nodes()) configure(cluster, node);
  unpack(name, cluster.data_dir(1));
  cluster.start(1);
  REQUIRE(cluster.leader() == 1);
  Client client = cluster.client(1);
  check_old_values(client);
  const Info keyspace = cluster.info(1, "keyspace").value();
  CHECK_THAT(keyspace.at("db0"),
             StartsWith("keys=" + std::to_string(kKeys - kKeys / 10 + 2) + ","));
  for (int i = 1; i <= kKeys; ++i) {
    REQUIRE(client.ask("SET", "new:" + std::to_string(i), std::to_string(i)) == "+OK");
  }
  CHECK(eventually(10s, [&] { return of_data(cluster, 1, "first_index") > kKeys; }));

  // What was cut off is now nowhere, not even in memory: who joins gets a snapshot.
  cluster.kill(1);
  cluster.start(1);
  REQUIRE(cluster.leader() == 1);
  cluster.start(2);
  REQUIRE(eventually(60s, [&] {
    const auto info = cluster.info(2, "raft");
    return info && info->at("raft_group_1_voters") == "1,2";
  }));
  CHECK(cluster.figure(2, "persistence", "store_snapshots_installed") >= 1);
  REQUIRE(make_leader(cluster, 2));
  Client joined = cluster.client(2);
  check_old_values(joined);
  CHECK(joined.ask("GET", "new:" + std::to_string(kKeys)) == std::to_string(kKeys));

  cluster.kill(cluster.nodes());
  cluster.start_all();
  const int leader = cluster.leader();
  Client after = cluster.client(leader);
  check_old_values(after);
  CHECK(after.ask("SET", "key:10", "not deleted any more") == "+OK");
  report(name, ": served, cut, joined by a second node, served again");
}

TEST_CASE("data of release 0.1.0, killed -9: this program serves it, cuts its log and lets it grow",
          "[compat]") {
  check_goes_on("0.1.0-killed");
}

TEST_CASE("data of release 0.1.0, stopped: this program serves it, cuts its log and lets it grow",
          "[compat]") {
  check_goes_on("0.1.0-stopped");
}

}  // namespace
}  // namespace seshat::tests
