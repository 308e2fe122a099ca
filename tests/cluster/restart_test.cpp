// How nodes come back: how long a start takes with much data, and that clients which follow redirects
// do not notice when one node after the other is restarted.
//
// FULL_SIZE=1 makes the data as large as 1 GB:
//   FULL_SIZE=1 make cluster-test TEST='[restart]'
#include <map>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "bulk.hpp"
#include "harness.hpp"

namespace seshat::tests {
namespace {

// From the start of a process to its first answer.
double seconds_to_answer(Cluster& cluster) {
  const auto begin = SteadyClock::now();
  cluster.start(1);
  REQUIRE(cluster.cluster_client(120s).ask("GET", "first") == "write");
  return std::chrono::duration<double>(SteadyClock::now() - begin).count();
}

TEST_CASE("a start takes as long with much data as with little, after SIGTERM and after kill -9",
          "[restart]") {
  constexpr std::size_t kValueBytes = 1'000;
  constexpr double kMaxSeconds = 30;  // for 10 GB
  // DATA_MB=10000: as much as is promised, if there are 30 GB of disk and half an hour.
  const std::vector<std::size_t> sizes_mb =
      is_full_size() ? std::vector<std::size_t>{100, 300, variable_or("DATA_MB", 1'000)}
                     : std::vector<std::size_t>{10, 40};
  std::vector<double> times;  // of the slower way to end
  for (const std::size_t size_mb : sizes_mb) {
    Cluster cluster({.nodes = 1});
    REQUIRE(cluster.cluster_client().ask("SET", "first", "write") == "+OK");
    BulkLoad load(cluster, {.keys = size_mb * 1'000, .value_bytes = kValueBytes});
    // A fifth is written twice.
    REQUIRE(load.await_total(size_mb * 1'200, 40min));
    load.stop();
    cluster.process(1).terminate();
    REQUIRE(cluster.process(1).wait(60s) == ExitStatus{0, 0});
    const double after_stop = seconds_to_answer(cluster);
    // What a kill leaves to be replayed is at most what the write buffers hold.
    BulkLoad more(cluster, {.keys = 60'000, .value_bytes = kValueBytes, .prefix = "more:"});
    REQUIRE(more.await_total(sized(20'000, 60'000), 60s));
    more.stop();
    cluster.kill(1);
    const double after_kill = seconds_to_answer(cluster);
    times.push_back(std::max(after_stop, after_kill));
    report(size_mb, " MB: serves ", static_cast<int>(after_stop * 1000), " ms after its start, ",
           static_cast<int>(after_kill * 1000), " ms after kill -9; data directory ",
           static_cast<int>(sample_node(cluster, 1).disk_mb), " MB");
    CHECK(load.wrong(cluster) == std::vector<std::string>());
    CHECK(more.wrong(cluster) == std::vector<std::string>());
  }
  const double per_gb = (times.back() - times.front()) * 1'000 /
                        static_cast<double>(sizes_mb.back() - sizes_mb.front());
  const double for_10_gb = times.back() + std::max(per_gb, 0.0) * 10;
  report("a GB more costs ", static_cast<int>(std::max(per_gb, 0.0) * 1000),
         " ms: ", static_cast<int>(for_10_gb * 1000), " ms for 10 GB");
  CHECK(times.back() < 5);
  if (is_full_size()) CHECK(for_10_gb < kMaxSeconds);
}

// ---- A rolling restart ------------------------------------------------------------------------------

// Clients that follow redirects and ask again where nothing was done, and count what they met.
class Followers {
 public:
  explicit Followers(const Cluster& cluster, int count) {
    for (int i = 0; i < count; ++i) {
      clients_.push_back(std::make_unique<Follower>(cluster.ports()));
    }
    for (std::size_t i = 0; i < clients_.size(); ++i) {
      clients_[i]->thread = std::thread([this, i] { run(*clients_[i], i); });
    }
  }
  Followers(const Followers&) = delete;
  Followers& operator=(const Followers&) = delete;
  ~Followers() { stop(); }

  void stop() {
    stopping_ = true;
    for (const auto& client : clients_) {
      if (client->thread.joinable()) client->thread.join();
    }
  }
  [[nodiscard]] bool await_more(std::uint64_t operations, Milliseconds bound) const {
    const std::uint64_t wanted = done_ + operations;
    return eventually(bound, [&] { return done_ >= wanted; });
  }

  // After stop(). "MOVED", "CLUSTERDOWN", "no connection", ... and how often each was met.
  [[nodiscard]] std::map<std::string, std::uint64_t> redirects() const {
    std::map<std::string, std::uint64_t> sum;
    for (const auto& client : clients_) {
      for (const auto& [what, count] : client->redirects) sum[what] += count;
    }
    return sum;
  }
  [[nodiscard]] std::vector<std::string> failures() const {
    std::vector<std::string> all;
    for (const auto& client : clients_) {
      all.insert(all.end(), client->failures.begin(), client->failures.end());
    }
    return all;
  }
  [[nodiscard]] std::uint64_t done() const { return done_; }
  [[nodiscard]] Milliseconds longest() const {
    Milliseconds longest{0};
    for (const auto& client : clients_) longest = std::max(longest, client->longest);
    return longest;
  }

 private:
  static constexpr Milliseconds kPatience = 5s;

  struct Follower {
    explicit Follower(std::vector<Port> ports) : client(std::move(ports)) {}
    ClusterClient client;
    std::map<std::string, std::uint64_t> redirects = {};
    std::vector<std::string> failures = {};
    Milliseconds longest{0};
    std::string value = "(nil)";  // of its key
    std::thread thread = {};
  };

  void run(Follower& follower, std::size_t number) {
    const std::string key = "follower:" + std::to_string(number);
    for (std::uint64_t i = 0; !stopping_; ++i) {
      const bool writes = i % 2 == 0;
      const std::string value = std::to_string(i);
      const auto begin = SteadyClock::now();
      const std::string reply =
          perform(follower, writes ? Arguments{"SET", key, value} : Arguments{"GET", key});
      follower.longest = std::max(follower.longest, since(begin));
      if (writes && reply == "+OK") follower.value = value;
      const std::string& wanted = writes ? "+OK" : follower.value;
      if (reply != wanted) {
        follower.failures.push_back((writes ? "SET: " : "GET: ") + reply + " for " + wanted);
      }
      ++done_;
    }
  }

  // The reply, or what became of it.
  std::string perform(Follower& follower, const Arguments& request) {
    const auto deadline = SteadyClock::now() + 10s;
    while (SteadyClock::now() < deadline) {
      const Attempt made = follower.client.attempt(request, kPatience);
      if (made.outcome == Attempt::Outcome::kAnswered) return made.reply;
      if (made.outcome == Attempt::Outcome::kUnknown) {
        return made.reply.empty() ? "the connection broke" : made.reply;
      }
      const std::string word = made.reply.empty() ? "no connection" : made.reply;
      ++follower.redirects[word.substr(0, word.find(' ', word.starts_with('-') ? 0 : 99))];
    }
    return "nobody answered";
  }

  std::vector<std::unique_ptr<Follower>> clients_;
  std::atomic<std::uint64_t> done_{0};
  std::atomic<bool> stopping_{false};
};

TEST_CASE("rolling restart under load: clients that follow redirects see no failed operation",
          "[restart]") {
  const int rounds = sized(1, 5);
  Cluster cluster;
  REQUIRE(cluster.settled());
  Followers clients(cluster, 16);
  REQUIRE(clients.await_more(2'000, 30s));
  for (int round = 0; round < rounds; ++round) {
    for (const int node : cluster.nodes()) {
      cluster.process(node).terminate();
      REQUIRE(cluster.process(node).wait(10s) == ExitStatus{0, 0});
      cluster.start(node);
      REQUIRE(cluster.settled());
      REQUIRE(clients.await_more(1'000, 30s));
    }
    // The leader each time, too: that is the one that has to hand over.
    const int leader = cluster.leader();
    cluster.process(leader).terminate();
    REQUIRE(cluster.process(leader).wait(10s) == ExitStatus{0, 0});
    cluster.start(leader);
    REQUIRE(cluster.settled());
    REQUIRE(clients.await_more(1'000, 30s));
  }
  clients.stop();
  const std::map<std::string, std::uint64_t> redirects = clients.redirects();
  std::ostringstream met;
  for (const auto& [what, count] : redirects) met << ", " << count << " " << what;
  report(clients.done(), " operations, ", 4 * rounds, " restarts", met.str(), ", ",
         clients.failures().size(), " failed, the longest took ", clients.longest().count(), " ms");
  CHECK(clients.failures() == std::vector<std::string>());
  // What a restart may show: who else leads, that nobody does yet, a node that is not there.
  const std::set<std::string> expected = {"-MOVED", "-CLUSTERDOWN", "no connection"};
  for (const auto& [what, count] : redirects) {
    INFO(count << " times " << what);
    CHECK(expected.contains(what));
  }
  CHECK(redirects.contains("-MOVED"));  // the test has seen what it is about
}

}  // namespace
}  // namespace seshat::tests
