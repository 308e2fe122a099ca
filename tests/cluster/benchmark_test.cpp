// redis-benchmark, unchanged, against the leader of three nodes.
#include <map>

#include "harness.hpp"

namespace seshat::tests {
namespace {

struct Figures {
  double per_second = 0;
  double p50_ms = 0;
  double p99_ms = 0;
};

// A line of --csv: "test","rps","avg","min","p50","p95","p99","max", all in quotes.
std::map<std::string, Figures> parse_csv(const std::string& output) {
  std::map<std::string, Figures> figures;
  std::istringstream lines(output);
  for (std::string line; std::getline(lines, line);) {
    std::erase(line, '"');
    std::istringstream fields(line);
    std::vector<std::string> field;
    for (std::string text; std::getline(fields, text, ',');) field.push_back(text);
    if (field.size() != 8 || field[0] == "test") continue;
    figures[field[0]] = {std::stod(field[1]), std::stod(field[4]), std::stod(field[6])};
  }
  return figures;
}

// It ends with 1 and a line "Error from server" at the first reply that is an error.
std::map<std::string, Figures> benchmark(Port port, const Arguments& extra) {
  Arguments command = {
      "redis-benchmark", "-p",   std::to_string(port), "-t", "set,get", "-c", "50", "-n",
      "200000",          "--csv"};
  command.insert(command.end(), extra.begin(), extra.end());
  const Finished finished = run(command, 120s);
  INFO(finished.output);
  REQUIRE(finished.status == ExitStatus{0, 0});
  CHECK_THAT(finished.output, !ContainsSubstring("Error") && !ContainsSubstring("WARNING"));
  std::map<std::string, Figures> figures = parse_csv(finished.output);
  REQUIRE(figures.contains("SET"));
  REQUIRE(figures.contains("GET"));
  for (const auto& [test, figure] : figures) {
    report(test, ": ", static_cast<int>(figure.per_second), " a second, p50 ", figure.p50_ms,
           " ms, p99 ", figure.p99_ms, " ms");
  }
  return figures;
}

bool fast_enough(const std::map<std::string, Figures>& figures) {
  const Figures& set = figures.at("SET");
  return set.per_second > 5000 && set.p99_ms < 10 && figures.at("GET").p99_ms < 5;
}

// Clients and three nodes share this machine with whatever else runs on it, which delays single
// requests by whole time slices: the best of three runs counts.
TEST_CASE(
    "redis-benchmark -c 50: over 5,000 SET a second, p99 of SET under 10 ms, of GET under 5") {
  Cluster cluster;
  const int leader = cluster.leader();
  REQUIRE(cluster.caught_up());
  const std::uint64_t term = cluster.figure(leader, "raft", "raft_group_1_term");
  bool fast = false;
  for (int run = 0; run < 3 && !fast; ++run)
    fast = fast_enough(benchmark(cluster.port(leader), {}));
  CHECK(fast);
  // The load disturbs nobody: the same leader in the same term.
  CHECK(cluster.figure(leader, "raft", "raft_group_1_term") == term);
  CHECK(cluster.caught_up());
}

TEST_CASE("redis-benchmark -c 50 -P 16 runs without an error and without an election") {
  Cluster cluster;
  const int leader = cluster.leader();
  REQUIRE(cluster.caught_up());
  const std::uint64_t term = cluster.figure(leader, "raft", "raft_group_1_term");
  (void)benchmark(cluster.port(leader), {"-P", "16"});
  CHECK(cluster.figure(leader, "raft", "raft_group_1_term") == term);
  CHECK(cluster.caught_up());
}

}  // namespace
}  // namespace seshat::tests
