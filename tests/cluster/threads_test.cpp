// One loop or several: a client can't tell.
#include <sys/socket.h>
#ifdef __linux__
#include <sched.h>
#endif

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "harness.hpp"
#include "load.hpp"

namespace seshat::tests {
namespace {

ClusterOptions one_node(int threads) {
  return {.nodes = 1, .settings = {{"node.threads", std::to_string(threads)}}};
}

// Of the running process, as `top -H` shows them.
std::multiset<std::string> thread_names(const Process& process) {
  std::multiset<std::string> names;
  const std::filesystem::path tasks = "/proc/" + std::to_string(process.pid()) + "/task";
  for (const auto& task : std::filesystem::directory_iterator(tasks)) {
    std::string name = read_text(task.path() / "comm");
    if (name.ends_with('\n')) name.pop_back();
    names.insert(std::move(name));
  }
  return names;
}

TEST_CASE("node.threads = 3 starts two loops beside the heart, and 1 starts none") {
  if (skips(std::filesystem::exists("/proc/self/task") ? std::nullopt
                                                       : std::optional("needs Linux"))) {
    return;
  }
  const int threads = GENERATE(1, 3);
  Cluster cluster(one_node(threads));
  REQUIRE(cluster.cluster_client().ask("PING") == "+PONG");
  CHECK(cluster.figure(1, "server", "io_threads_active") == (threads > 1 ? 1U : 0U));
  const std::multiset<std::string> names = thread_names(cluster.process(1));
  for (int loop = 1; loop <= 3; ++loop) {
    CHECK(names.count("seshat-io-" + std::to_string(loop)) == (loop < threads ? 1U : 0U));
  }
}

// How often a thread of that name went to sleep so far; 0: there is none.
std::uint64_t sleeps_of(const Process& process, std::string_view name) {
  const std::filesystem::path tasks = "/proc/" + std::to_string(process.pid()) + "/task";
  for (const auto& task : std::filesystem::directory_iterator(tasks)) {
    if (read_text(task.path() / "comm") != std::string(name) + '\n') continue;
    static constexpr std::string_view kKey = "\nvoluntary_ctxt_switches:";
    const std::string status = read_text(task.path() / "status");
    const std::size_t at = status.find(kKey);
    REQUIRE(at != std::string::npos);
    return std::stoull(status.substr(at + kKey.size()));
  }
  return 0;
}

TEST_CASE("while all peers stand and nothing is under way, their timer wakes twice a second") {
  if (skips(std::filesystem::exists("/proc/self/task") ? std::nullopt
                                                       : std::optional("needs Linux"))) {
    return;
  }
  Cluster cluster;
  for (int node = 1; node <= 3; ++node) {
    const Process& process = cluster.process(node);
    REQUIRE(eventually(20s, [&] { return sleeps_of(process, "peer-timer") != 0; }));
    // Not a calm yet, perhaps. In one, six sleeps take three seconds; else, ten a second.
    CHECK(eventually(20s, [&] {
      const auto start = SteadyClock::now();
      const std::uint64_t before = sleeps_of(process, "peer-timer");
      const auto six_more = [&] { return sleeps_of(process, "peer-timer") >= before + 6; };
      return eventually(10s, six_more) && since(start) > 2s;
    }));
  }
}

// Requests whose replies tell which they answer; of each connection on keys of its own.
std::vector<Arguments> numbered_requests(int connection, int count) {
  const std::string key = "order-" + std::to_string(connection);
  std::vector<Arguments> requests;
  for (int i = 0; i < count; ++i) {
    const std::string text = std::to_string(i);
    requests.push_back({"SET", key, text});
    requests.push_back({"GET", key});
    requests.push_back({"ECHO", text});
  }
  return requests;
}

bool answers_in_order(const std::vector<std::string>& replies) {
  for (std::size_t i = 0; i < replies.size(); ++i) {
    if (replies[i] != (i % 3 == 0 ? "+OK" : std::to_string(i / 3))) return false;
  }
  return true;
}

TEST_CASE(
    "on 16 connections at once replies come in the order of requests, whatever node.threads is") {
  constexpr int kConnections = 16;
  constexpr int kCount = 1000;
  Cluster cluster(one_node(GENERATE(1, 2, 3)));
  REQUIRE(cluster.cluster_client().ask("SET", "k", "v") == "+OK");
  std::vector<std::vector<std::string>> replies(kConnections);
  std::vector<std::thread> threads;
  for (int i = 0; i < kConnections; ++i) {
    threads.emplace_back([&cluster, &got = replies[static_cast<std::size_t>(i)], i] {
      try {
        got = cluster.client(1).pipeline(numbered_requests(i, kCount));
      } catch (const ConnectionError& error) {
        got = {error.what()};
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const auto& got : replies) {
    CHECK(got.size() == 3 * kCount);
    CHECK(answers_in_order(got));
  }
}

TEST_CASE(
    "clients that hang up with requests under way leave nothing behind, whatever node.threads is") {
  Cluster cluster(one_node(GENERATE(1, 2, 3)));
  REQUIRE(cluster.cluster_client().ask("SET", "large", std::string(65'536, 'v')) == "+OK");
  std::string bytes;
  for (int i = 0; i < 100; ++i) {
    bytes += Client::encoded({"SET", "k", std::to_string(i)}) + Client::encoded({"GET", "large"});
  }
  for (int i = 0; i < 200; ++i) {
    Client client = cluster.client(1);
    client.send_raw(bytes);
    if (i % 2 == 0) CHECK(client.receive() == "+OK");
  }
  const auto own_alone = [&] { return cluster.figure(1, "clients", "connected_clients") == 1; };
  CHECK(eventually(10s, own_alone));
  CHECK(cluster.client(1).ask("GET", "k") != "(nil)");
}

TEST_CASE(
    "a client that has sent its last gets its replies before the end, whatever node.threads is") {
  Cluster cluster(one_node(GENERATE(1, 2, 3)));
  REQUIRE(cluster.cluster_client().ask("SET", "k", "v") == "+OK");
  Client client = cluster.client(1);
  std::string bytes;
  for (int i = 0; i < 1000; ++i) bytes += Client::encoded({"ECHO", std::to_string(i)});
  client.send_raw(bytes);
  REQUIRE(::shutdown(client.fd(), SHUT_WR) == 0);
  for (int i = 0; i < 1000; ++i) REQUIRE(client.receive() == std::to_string(i));
  CHECK(client.is_closed());
}

TEST_CASE(
    "QUIT is answered behind all that came before it, then the end, whatever node.threads is") {
  Cluster cluster(one_node(GENERATE(1, 2, 3)));
  REQUIRE(cluster.cluster_client().ask("SET", "k", "v") == "+OK");
  Client client = cluster.client(1);
  client.send_raw("SET k w\r\nGET k\r\nQUIT\r\nPING\r\n");
  CHECK(client.receive() == "+OK");
  CHECK(client.receive() == "w");
  CHECK(client.receive() == "+OK");
  CHECK(client.is_closed());
}

TEST_CASE(
    "writes under way on 30 connections at SIGTERM are all answered, whatever node.threads is") {
  constexpr std::uint64_t kConnections = 30;
  const TempDir dir;
  const std::filesystem::path slow = dir.path() / "disk-is-slow";
  ClusterOptions options = one_node(GENERATE(1, 2, 3));
  options.variables = {{"LD_PRELOAD", shim("slow_fsync")},
                       {"SESHAT_FSYNC_DELAY_MS", "500"},
                       {"SESHAT_FSYNC_DELAY_WHILE", slow.string()}};
  Cluster cluster(options);
  REQUIRE(cluster.cluster_client().ask("SET", "k", "v") == "+OK");
  std::vector<Client> clients;
  for (std::uint64_t i = 0; i < kConnections; ++i) {
    clients.push_back(cluster.client(1));
    REQUIRE(clients.back().ask("PING") == "+PONG");
  }
  write_text(slow, "");
  for (Client& client : clients) client.send({"SET", "under", "way"});
  REQUIRE(eventually(2s, [&] {
    return cluster.figure(1, "raft", "raft_group_1_waiting_requests") == kConnections;
  }));
  cluster.process(1).terminate();
  for (Client& client : clients) CHECK(client.receive() == "+OK");
  std::filesystem::remove(slow);  // or the end of the process takes many syncs
  for (Client& client : clients) CHECK(client.is_closed());
  CHECK(cluster.process(1).wait(5s) == ExitStatus{0, 0});
}

#ifdef __linux__
// What this thread starts while this lives has one core for all of it.
class OnOneCore {
 public:
  OnOneCore() {
    REQUIRE(sched_getaffinity(0, sizeof before_, &before_) == 0);
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(sched_getcpu(), &one);
    REQUIRE(sched_setaffinity(0, sizeof one, &one) == 0);
  }
  ~OnOneCore() { (void)sched_setaffinity(0, sizeof before_, &before_); }
  OnOneCore(const OnOneCore&) = delete;
  OnOneCore& operator=(const OnOneCore&) = delete;

 private:
  cpu_set_t before_{};
};

TEST_CASE("where nodes share a core, a leader gathers what clients write, as long as they do") {
  if (skips(std::filesystem::exists("/proc/self/schedstat")
                ? std::nullopt
                : std::optional("this kernel does not count how long threads wait"))) {
    return;
  }
  std::optional<Cluster> cluster;
  {
    const OnOneCore here;
    cluster.emplace();
  }
  const int leader = cluster->leader();
  const auto raft = [&](const char* name) { return cluster->figure(leader, "raft", name); };
  Writers writers(*cluster, 24);
  CHECK(eventually(30s, [&] { return raft("raft_gathered_rounds") >= 20; }));
  REQUIRE(writers.await_more(1000, 30s));
  CHECK(cluster->leader() == leader);
  writers.stop();
  CHECK(writers.surprises().empty());
  CHECK(lost(*cluster, writers.acknowledged()).empty());

  // One client is soon not made to wait for those that went.
  ClusterClient client = cluster->cluster_client();
  const auto write = [&](int times) {
    for (int i = 0; i < times; ++i) REQUIRE(client.ask("SET", "k", std::to_string(i)) == "+OK");
    return raft("raft_gathered_rounds");
  };
  const std::uint64_t rounds = write(50);
  CHECK(write(50) == rounds);
  // Nothing looks up any more: 100 sleeps of the loop take seconds, not the fifth of one.
  for (int node = 1; node <= 3; ++node) {
    const Process& process = cluster->process(node);
    CHECK(eventually(20s, [&] {
      const auto start = SteadyClock::now();
      const std::uint64_t before = sleeps_of(process, "seshat");
      const auto more = [&] { return sleeps_of(process, "seshat") >= before + 100; };
      return !eventually(2s, more) || since(start) > 1s;
    }));
  }
}
#endif

}  // namespace
}  // namespace seshat::tests
