// tests/cluster/chaos.hpp - a cluster, its network and a recorded load, to let things go wrong in.
//
//   Chaos chaos;                                  three nodes, clients on all of them
//   const int leader = chaos.cluster.leader();
//   chaos.fault("leader isolated");
//   chaos.network.isolate(leader);
//   ... what must hold meanwhile ...
//   chaos.finish();                               heals, waits for writes, judges, prints
//
//   Unnoticed unnoticed(chaos);  ...  unnoticed.check("what was done");   for what nobody may feel
//
// Every test ends in one line: operations, acknowledged, unknown, refused, faults, the worst
// unavailability, violations.
#ifndef SESHAT_TESTS_CLUSTER_CHAOS_HPP
#define SESHAT_TESTS_CLUSTER_CHAOS_HPP

#include <csignal>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "harness.hpp"
#include "history.hpp"
#include "network.hpp"
#include "transaction_load.hpp"

namespace seshat::tests {

// raft.election_timeout_max_ms
inline constexpr Milliseconds kMaxElectionTimeout = 1000ms;
// What a busy machine may add to a bound on time.
inline constexpr Milliseconds kMargin = 500ms;
// From the end of a leader to the next acknowledged write.
inline constexpr Milliseconds kFailover = 2s;

class Chaos {
 public:
  // Without `started`, start() is called when disks, clocks or the like are in place.
  explicit Chaos(ClusterOptions options = {});

  // All nodes, and the clients once the cluster stands.
  void start(RecordedLoad::Clients clients = RecordedLoad::Clients::kMany);
  // From now on there are transactions and keys that expire besides; `clocks` as of TransactionLoad.
  void start_transactions(const Clocks* clocks = nullptr) {
    transactions = std::make_unique<TransactionLoad>(cluster, clocks);
  }
  // Counts it; CHAOS_TELLS=1 in the environment prints each.
  void fault(const std::string& what);
  // All nodes run and catch up, and what the leader holds is what clients were told. Everything has to
  // be whole again but for the network and paused nodes, which are healed and go on here.
  void finish();

 private:
  SteadyClock::time_point started_ = SteadyClock::now();
  SteadyClock::time_point load_began_ = started_;

 public:
  Cluster cluster;
  PeerNetwork network;
  std::unique_ptr<RecordedLoad> load;
  std::unique_ptr<TransactionLoad> transactions;  // null: there are none
  int faults = 0;
};

// That a TransactionLoad has done before it is judged; its faults are over then.
inline constexpr std::size_t kTransactionsAtLeast = 20;

// What the load saw and what the leader holds go together; prints the figures, with `more` among them.
void check_history(RecordedLoad& load, const Cluster& cluster, const std::string& more = "");
void check_history(TransactionLoad& load, const Cluster& cluster);

// Writes are acknowledged, and were so all the time since `begin` but for `bound`.
void check_served(Chaos& chaos, SteadyClock::time_point begin, Milliseconds bound,
                  const std::string& what);

// Nobody is elected, and writes go on, from when this is made until check().
class Unnoticed {
 public:
  explicit Unnoticed(Chaos& chaos)
      : chaos_(chaos), leader_(chaos.cluster.leader()), term_(term()) {}
  void check(const std::string& what);

 private:
  // What an election takes; that there was none is asked besides.
  static constexpr Milliseconds kBound = kMaxElectionTimeout + kMargin;

  [[nodiscard]] std::uint64_t term() const {
    return chaos_.cluster.figure(leader_, "raft", "raft_group_1_term");
  }
  Chaos& chaos_;
  SteadyClock::time_point begin_ = SteadyClock::now();
  int leader_;
  std::uint64_t term_;
};

// RocksDB 7.8.3, where it is built with assertions as Debian's is, takes the words from a node when a
// write to its log fails just before the first sync of that file, and aborts: nothing is promised after
// that, either. So it does when a file on a disk that has just gone is to be opened for writing.
[[nodiscard]] bool was_aborted_by_rocksdb(const Cluster& cluster, int node,
                                          const ExitStatus& status);

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
  for (const int node : cluster.nodes_and_spares()) ports[node] = cluster.peer_port(node);
  return ports;
}

}  // namespace chaos_detail

inline Chaos::Chaos(ClusterOptions options)
    : cluster(chaos_detail::not_started(options)), network(chaos_detail::peer_ports(cluster)) {
  for (const int node : cluster.nodes_and_spares()) {
    std::string dial;
    for (const int other : cluster.nodes_and_spares()) {
      if (other == node) continue;
      dial += std::to_string(other) +
              " = \"127.0.0.1:" + std::to_string(network.entrance(node, other)) + "\", ";
    }
    cluster.set_settings(node, {{"cluster.dial", "{" + dial.substr(0, dial.size() - 2) + "}"}});
  }
  if (options.started) start();
}

inline void Chaos::start(RecordedLoad::Clients clients) {
  cluster.start_all();
  REQUIRE(cluster.settled());
  load = std::make_unique<RecordedLoad>(cluster, clients);
  REQUIRE(load->await_writes(100, 20s));
  load_began_ = SteadyClock::now();
}

inline void Chaos::fault(const std::string& what) {
  ++faults;
  const char* tells = std::getenv("CHAOS_TELLS");
  if (tells != nullptr && *tells == '1') report(since(started_).count(), " ms: ", what);
}

inline void Chaos::finish() {
  network.heal();
  for (const int node : cluster.nodes()) {
    INFO("node " << node);
    CHECK(cluster.running(node));
    if (cluster.running(node)) cluster.resume(node);
  }
  CHECK(load->await_writes(100, 15s));
  if (transactions) {
    CHECK(eventually(15s, [&] { return transactions->transactions() > kTransactionsAtLeast; }));
    transactions->stop();
  }
  load->stop();
  CHECK(cluster.caught_up());
  const Milliseconds worst = load->worst_unavailability(load_began_);
  check_history(*load, cluster,
                std::to_string(faults) + " faults, " + std::to_string(worst.count()) +
                    " ms worst unavailability, ");
  if (transactions) check_history(*transactions, cluster);
}

namespace chaos_detail {

inline void check_figures(const LoadFigures& figures, const std::string& more) {
  report(figures.operations, " operations, ", figures.acknowledged, " acknowledged, ",
         figures.unknown, " unknown, ", figures.refused, " refused, ", more, figures.violations,
         " violations");
  CHECK(figures.violations == 0);
  CHECK(figures.undecided == 0);
  CHECK(figures.surprises == std::vector<std::string>());
  if (!figures.story.empty()) report("the first violation:\n", figures.story);
}

}  // namespace chaos_detail

inline void check_history(RecordedLoad& load, const Cluster& cluster, const std::string& more) {
  load.stop();
  chaos_detail::check_figures(load.judge(cluster), more);
}

inline void check_history(TransactionLoad& load, const Cluster& cluster) {
  load.stop();
  chaos_detail::check_figures(load.judge(cluster), std::to_string(load.transactions()) +
                                                       " transactions, " +
                                                       std::to_string(load.watches_refused()) +
                                                       " not done for a watched key, ");
  CHECK(load.transactions() > kTransactionsAtLeast);
}

inline void check_served(Chaos& chaos, SteadyClock::time_point begin, Milliseconds bound,
                         const std::string& what) {
  CHECK(chaos.load->await_writes(100));
  const Milliseconds worst = chaos.load->worst_unavailability(begin);
  report(what, ": ", worst.count(), " ms without an acknowledged write");
  CHECK(worst < bound);
}

inline void Unnoticed::check(const std::string& what) {
  check_served(chaos_, begin_, kBound, what);
  CHECK(chaos_.cluster.leader() == leader_);
  CHECK(term() == term_);
}

inline bool was_aborted_by_rocksdb(const Cluster& cluster, int node, const ExitStatus& status) {
  if (status != ExitStatus{-1, SIGABRT}) return false;
  const std::string log = cluster.log(node);
  return log.find("Assertion `sync_without_flush_called_' failed") != std::string::npos ||
         log.find("IsSyncFileRangeSupported(int): Assertion") != std::string::npos;
}

}  // namespace seshat::tests

#endif  // SESHAT_TESTS_CLUSTER_CHAOS_HPP
