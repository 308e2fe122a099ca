// Linearizable reads: whoever answers a GET knows everything that was acknowledged before it was sent.
#include <atomic>
#include <thread>

#include "harness.hpp"

namespace seshat::tests {
namespace {

// Counts up a key, by whatever leader there is; `acknowledged` is the last count that was.
class Counter {
 public:
  explicit Counter(const Cluster& cluster)
      : client_(cluster.ports()), thread_([this] { count(); }) {}
  ~Counter() { stop(); }
  Counter(const Counter&) = delete;
  Counter& operator=(const Counter&) = delete;

  void stop() {
    stopping_ = true;
    client_.cancel();
    if (thread_.joinable()) thread_.join();
  }
  [[nodiscard]] int acknowledged() const { return acknowledged_; }

 private:
  void count() {
    try {
      for (int next = 1; !stopping_; ++next) {
        if (client_.try_once({"SET", "counter", std::to_string(next)}) == "+OK") {
          acknowledged_ = next;
        }
      }
    } catch (const ConnectionError&) {
      // Told to stop, or no leader for long: the reader will see that nothing moves.
    }
  }

  ClusterClient client_;
  std::atomic<int> acknowledged_{0};
  std::atomic<bool> stopping_{false};
  std::thread thread_;
};

// Reads the counter at one node after the other, and counts answers older than what was acknowledged
// before the question, or than an earlier answer.
class Reader {
 public:
  Reader(const Cluster& cluster, const Counter& counter)
      : cluster_(cluster), counter_(counter), thread_([this] { read(); }) {}
  ~Reader() { stop(); }
  Reader(const Reader&) = delete;
  Reader& operator=(const Reader&) = delete;

  void stop() {
    stopping_ = true;
    if (thread_.joinable()) thread_.join();
  }
  [[nodiscard]] int answers() const { return answers_; }
  [[nodiscard]] int stale() const { return stale_; }

 private:
  void read() {
    while (!stopping_) {
      for (const Port port : cluster_.ports()) read_at(port);
    }
  }
  // A node that can't answer says so, or its connection breaks: both are fine.
  void read_at(Port port) {
    try {
      Client client(port, 3s);
      for (int i = 0; i < 20; ++i) {
        const int before = std::max(counter_.acknowledged(), seen_);
        const std::string reply = client.ask("GET", "counter");
        if (is_error(reply)) return;
        seen_ = reply == "(nil)" ? 0 : std::stoi(reply);
        stale_ += seen_ < before ? 1 : 0;
        ++answers_;
      }
    } catch (const ConnectionError&) {
    }
  }

  const Cluster& cluster_;
  const Counter& counter_;
  int seen_ = 0;
  std::atomic<bool> stopping_{false};
  std::atomic<int> answers_{0};
  std::atomic<int> stale_{0};
  std::thread thread_;
};

void read_across_leader_changes(const std::string& read_mode) {
  Cluster cluster({.settings = {{"raft.read_mode", '"' + read_mode + '"'}}});
  (void)cluster.leader();
  Counter counter(cluster);
  Reader reader(cluster, counter);
  for (int round = 0; round < 4; ++round) {
    const int leader = cluster.leader();
    const int had = counter.acknowledged();
    const int answered = reader.answers();
    REQUIRE(eventually(10s, [&] {
      return counter.acknowledged() > had + 100 && reader.answers() > answered + 100;
    }));
    if (round % 2 == 0) {
      cluster.pause(leader);
      CHECK(cluster.leader_after(leader) != leader);
      const int before = counter.acknowledged();
      CHECK(eventually(10s, [&] { return counter.acknowledged() > before; }));
      cluster.resume(leader);
    } else {
      cluster.kill(leader);
      (void)cluster.leader_after(leader);
      cluster.start(leader);
    }
  }
  counter.stop();
  reader.stop();
  report(read_mode, ": ", counter.acknowledged(), " writes, ", reader.answers(), " answers, ",
         reader.stale(), " of them stale, over 4 changes of the leader");
  CHECK(reader.stale() == 0);
}

TEST_CASE("no reader sees less than what was acknowledged before, while leaders stall and die") {
  read_across_leader_changes("lease");
}

TEST_CASE("the same with read-index instead of leases") {
  read_across_leader_changes("read-index");
}

TEST_CASE("a leader that was stopped for longer than its lease does not answer from before") {
  Cluster cluster;
  int refused = 0;
  int answered = 0;
  for (int round = 0; round < 3; ++round) {
    const int old = cluster.leader();
    REQUIRE(cluster.client(old).ask("SET", "k", "old") == "+OK");
    std::vector<Client> readers;
    for (int i = 0; i < 50; ++i) readers.push_back(cluster.client(old));
    for (Client& reader : readers) REQUIRE(reader.ask("GET", "k") == "old");
    cluster.pause(old);
    // Half of the questions wait for it in its sockets from before the change on.
    for (std::size_t i = 0; i < 25; ++i) readers[i].send({"GET", "k"});
    const int next = cluster.leader_after(old);
    REQUIRE(cluster.client(next).ask("SET", "k", "new") == "+OK");
    for (std::size_t i = 25; i < 50; ++i) readers[i].send({"GET", "k"});
    cluster.resume(old);
    for (Client& reader : readers) {
      const std::string reply = reader.receive();
      REQUIRE(reply != "old");
      ++(is_error(reply) ? refused : answered);
    }
  }
  report("of 150 questions to a leader that slept, ", refused, " were refused, ", answered,
         " answered with what is true now");
}

// Two keys that are always written together: whoever reads both sees the same in both.
TEST_CASE("several keys are read as they were at one moment, on every node and from disk") {
  Cluster cluster({.settings = {{"storage.row_cache_mb", "0"}, {"storage.block_cache_mb", "1"}}});
  const int leader = cluster.leader();
  constexpr int kPairs = 8'000;
  constexpr int kAtOnce = 64;
  const std::string large(2'000, 'x');
  const auto names = [&](int pair) {
    return std::pair("a" + std::to_string(pair), "b" + std::to_string(pair));
  };
  Client writer = cluster.client(leader);
  std::vector<Arguments> all_pairs;
  for (int pair = 0; pair < kPairs; ++pair) {
    all_pairs.push_back({"MSET", names(pair).first, large, names(pair).second, large});
  }
  REQUIRE(writer.pipeline(all_pairs) == std::vector<std::string>(kPairs, "+OK"));
  std::atomic<bool> stopping{false};
  std::atomic<int> torn{0};
  std::atomic<int> reads{0};
  std::atomic<int> writes{0};
  std::vector<std::thread> threads;
  for (int number = 0; number < 2; ++number) {
    threads.emplace_back([&, number] {
      Client client = cluster.client(leader);
      for (int i = number; !stopping; i += 2) {
        std::vector<Arguments> requests;
        for (int j = 0; j < 16; ++j) {
          const auto [a, b] = names((i * 1237 + j * 125) % kPairs);
          const std::string value = large + std::to_string(i);
          requests.push_back({"MSET", a, value, b, value});
        }
        writes += static_cast<int>(client.pipeline(requests).size());
      }
    });
  }
  for (const int node : cluster.nodes()) {
    threads.emplace_back([&, node] {
      Client client = cluster.client(node);
      (void)client.ask("READONLY");
      for (int first = 0; !stopping; first = (first + 997) % kPairs) {
        Arguments all = {"MGET"};
        for (int i = 0; i < kAtOnce; ++i) all.push_back(names((first + i * 125) % kPairs).first);
        for (int i = 0; i < kAtOnce; ++i) all.push_back(names((first + i * 125) % kPairs).second);
        client.send(all);
        const std::vector<resp::Value> values = client.receive_value().elements;
        if (values.size() != 2 * kAtOnce) continue;  // an election, or so
        ++reads;
        for (std::size_t i = 0; i < kAtOnce; ++i) {
          if (values[i].text != values[i + kAtOnce].text) ++torn;
        }
      }
    });
  }
  CHECK(eventually(60s, [&] { return reads > 3'000 && writes > 10'000; }));
  stopping = true;
  for (std::thread& thread : threads) thread.join();
  report(reads.load(), " reads of 64 pairs beside ", writes.load(), " writes of one, ", torn.load(),
         " torn");
  CHECK(torn == 0);
}

}  // namespace
}  // namespace seshat::tests
