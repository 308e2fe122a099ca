// The daemon as a program: its flags, its exit codes, and what it says when it will not start.
#include "harness.hpp"

namespace seshat::tests {
namespace {

Finished seshat(const Arguments& flags) {
  Arguments command = {required_variable("SESHAT_BIN")};
  command.insert(command.end(), flags.begin(), flags.end());
  return run(command, 10s);
}

TEST_CASE("--help, --version and --check-config print and exit with 0") {
  const Finished help = seshat({"--help"});
  CHECK(help.status == ExitStatus{0, 0});
  CHECK_THAT(help.output,
             ContainsSubstring("usage:") && ContainsSubstring("election_timeout_min_ms"));
  CHECK_THAT(help.output, ContainsSubstring(required_variable("SESHAT_BIN") + " SUBCOMMAND") &&
                              ContainsSubstring("seshat SUBCOMMAND --help") &&
                              ContainsSubstring("transfer-leader ID"));
  const Finished version = seshat({"--version"});
  CHECK(version.status == ExitStatus{0, 0});
  CHECK_THAT(version.output, StartsWith("seshat "));
  const Cluster cluster({.started = false});
  const Finished check = seshat({"--config", cluster.config_file(1).string(), "--check-config"});
  CHECK(check.status == ExitStatus{0, 0});
  CHECK_THAT(check.output, ContainsSubstring("valid"));
}

TEST_CASE(
    "a wrong configuration is refused with code 2, file, line and key, before anything is made") {
  const TempDir dir;
  const std::string file = (dir.path() / "wrong.toml").string();
  const std::string data = (dir.path() / "data").string();
  write_text(file, "node.data_dir = \"" + data + "\"\nraft.lease_ms = 290\nraft.leese_ms = 1\n");
  const Finished finished = seshat({"--config", file});
  CHECK(finished.status == ExitStatus{2, 0});
  CHECK_THAT(finished.output, ContainsSubstring(file + ":2: raft.lease_ms = 290"));
  CHECK_THAT(finished.output, ContainsSubstring(file + ":3: raft.leese_ms"));
  CHECK_FALSE(std::filesystem::exists(data));
  CHECK(seshat({"--config", file, "--check-config"}).status == ExitStatus{2, 0});
  CHECK(seshat({"--no-such-flag"}).status == ExitStatus{2, 0});
  CHECK(seshat({"--config", data}).status == ExitStatus{2, 0});
}

TEST_CASE("a second daemon on the same data directory is refused with code 1") {
  const Cluster cluster({.nodes = 1});
  REQUIRE(cluster.cluster_client().ask("PING") == "+PONG");
  const ReservedPort port;
  const Finished second = seshat({"--data-dir", cluster.data_dir(1).string(), "--client-addr",
                                  "127.0.0.1:" + std::to_string(port.number())});
  CHECK(second.status == ExitStatus{1, 0});
  CHECK_THAT(second.output,
             ContainsSubstring("another seshat uses " + cluster.data_dir(1).string()));
  CHECK(cluster.client(1).ask("PING") == "+PONG");
}

TEST_CASE("a client port or peer port that is taken is refused with code 1 and the address") {
  Cluster cluster;
  (void)cluster.leader();
  const TempDir dir;
  const std::string data = (dir.path() / "data").string();
  const Finished client = seshat({"--data-dir", data, "--client-addr", cluster.client_addr(1)});
  CHECK(client.status == ExitStatus{1, 0});
  CHECK_THAT(client.output, ContainsSubstring("can't listen for clients") &&
                                ContainsSubstring(cluster.client_addr(1)));
  // The configuration of node 1, but for the client port and the directory.
  const ReservedPort port;
  const Finished peer = seshat({"--config", cluster.config_file(1).string(), "--data-dir", data,
                                "--client-addr", "127.0.0.1:" + std::to_string(port.number())});
  CHECK(peer.status == ExitStatus{1, 0});
  CHECK_THAT(peer.output, ContainsSubstring("could not start"));
  CHECK(cluster.client(1).ask("PING") == "+PONG");
}

TEST_CASE("the data of another node is refused with code 1") {
  Cluster cluster;
  (void)cluster.leader();
  cluster.kill(cluster.nodes());
  std::filesystem::remove_all(cluster.data_dir(1));
  std::filesystem::rename(cluster.data_dir(2), cluster.data_dir(1));
  cluster.start(1);
  CHECK(cluster.process(1).wait(10s) == ExitStatus{1, 0});
  CHECK(cluster.log_says(1, cluster.data_dir(1).string() + " belongs to node 2"));
}

TEST_CASE("a quiet start prints one line that says where clients connect") {
  Cluster cluster({.nodes = 1});
  REQUIRE(cluster.log_says(1, "ready for clients"));
  const std::string log = cluster.log(1);
  CHECK(std::count(log.begin(), log.end(), '\n') == 1);
  CHECK_THAT(log, ContainsSubstring(cluster.client_addr(1)));
}

}  // namespace
}  // namespace seshat::tests
