// tests/cluster/bulk.hpp - load for tests of much data: many writes, whose values can be told in the
// end; what a client feels meanwhile; and what the nodes hold.
//
//   BulkLoad load(cluster, {.keys = 100'000});     every key once, then keys at random, until stop()
//   Probe probe(cluster);                          single requests, each one timed
//   NodeWatch watch(cluster);                      memory and log of every node, again and again
//   load.await_total(2'000'000, 10min); load.stop();
//   CHECK(load.wrong(cluster).empty());
//
// Sizes are small by default, so that `make check` ends today. FULL_SIZE=1 in the environment makes
// them what is promised: sized(small, full).
#ifndef SESHAT_TESTS_CLUSTER_BULK_HPP
#define SESHAT_TESTS_CLUSTER_BULK_HPP

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "client.hpp"
#include "cluster.hpp"
#include "process.hpp"
#include "soak.hpp"

namespace seshat::tests {

[[nodiscard]] inline bool is_full_size() { return variable_or("FULL_SIZE", 0) != 0; }
template <class Value>
[[nodiscard]] Value sized(Value small, Value full) {
  return is_full_size() ? full : small;
}

struct BulkOptions {
  std::size_t keys = 100'000;
  std::size_t value_bytes = 100;
  int connections = 4;
  std::size_t batch = 64;  // requests of a connection that are under way at once
  std::string prefix = "bulk:";
};

// Writers with keys of their own, which they know the values of: the one acknowledged last, or of a
// write of which nobody can say what became of it.
class BulkLoad {
 public:
  BulkLoad(const Cluster& cluster, BulkOptions options);
  BulkLoad(const BulkLoad&) = delete;
  BulkLoad& operator=(const BulkLoad&) = delete;
  ~BulkLoad() { stop(); }

  void stop();
  // From now on no more than so many writes a second, all together; 0: as fast as it goes.
  void pace(std::uint64_t per_second) { per_second_ = per_second; }
  [[nodiscard]] std::uint64_t acknowledged() const { return acknowledged_; }
  [[nodiscard]] std::uint64_t unknown() const { return unknown_; }
  [[nodiscard]] bool await_total(std::uint64_t writes, Milliseconds bound) const {
    return eventually(bound, [&] { return acknowledged_ >= writes; });
  }
  [[nodiscard]] bool await_more(std::uint64_t writes, Milliseconds bound) const {
    return await_total(acknowledged_ + writes, bound);
  }
  // Bytes of the keys and values that there are.
  [[nodiscard]] std::uint64_t live_bytes() const {
    return options_.keys * (options_.value_bytes + key_name(options_.keys).size());
  }

  // After stop(): replies that no node should have given, and keys whose value the leader has not right.
  [[nodiscard]] std::vector<std::string> surprises() const;
  [[nodiscard]] std::vector<std::string> wrong(const Cluster& cluster) const;

 private:
  using Serial = std::uint32_t;  // 0: no value
  struct KeyState {
    Serial acknowledged = 0;
    std::vector<Serial> unknown = {};
  };
  struct Writer {
    explicit Writer(int its_number) : number(its_number), random(its_number) {}
    int number;
    std::mt19937_64 random;
    std::size_t drawn = 0;
    Serial last_serial = 0;
    std::size_t at = 0;  // the node
    std::unique_ptr<Client> client = {};
    std::map<std::size_t, KeyState> keys = {};
    std::vector<std::string> surprises = {};
    std::thread thread = {};
  };
  struct Write {
    std::size_t key;
    Serial serial;
  };

  void run(Writer& writer);
  [[nodiscard]] Write draw(Writer& writer) const;
  // Whether all were acknowledged.
  bool perform(Writer& writer, const std::vector<Write>& writes);
  void settle(Writer& writer, Write write, const std::string& reply);
  void go_where(Writer& writer, const std::string& reply);
  [[nodiscard]] std::string key_name(std::size_t key) const {
    return options_.prefix + std::to_string(key);
  }
  [[nodiscard]] std::string value_of(std::size_t key, Serial serial) const;
  [[nodiscard]] bool possible(const KeyState& state, std::size_t key,
                              const std::string& value) const;

  const std::vector<Port> ports_;
  const BulkOptions options_;
  std::vector<std::unique_ptr<Writer>> writers_;
  std::atomic<std::uint64_t> per_second_{0};
  std::atomic<std::uint64_t> acknowledged_{0};
  std::atomic<std::uint64_t> unknown_{0};
  std::atomic<std::uint64_t> refused_{0};
  std::atomic<bool> stopping_{false};
};

// Clients that send one request at a time, SET and GET in turn, and note how long each took.
class Probe {
 public:
  explicit Probe(const Cluster& cluster, int count = 4);
  Probe(const Probe&) = delete;
  Probe& operator=(const Probe&) = delete;
  ~Probe();

  struct Felt {
    std::size_t requests = 0;
    double p50_ms = 0;
    double p99_ms = 0;
    double worst_ms = 0;
  };
  // By requests that were answered since `begin`.
  [[nodiscard]] Felt felt(SteadyClock::time_point begin) const;
  // Of these the client could not say what became: nothing that a healthy cluster answers.
  [[nodiscard]] std::vector<std::string> failures() const;

 private:
  static constexpr Milliseconds kThink{2};
  struct Answered {
    SteadyClock::time_point at;
    double ms;
  };
  void run(ClusterClient& client, int number);

  std::vector<std::unique_ptr<ClusterClient>> clients_;
  std::vector<std::thread> threads_;
  std::atomic<bool> stopping_{false};
  mutable std::mutex mutex_;
  std::vector<Answered> answered_;     // under mutex_
  std::vector<std::string> failures_;  // under mutex_
};

// Looks at every node that runs, each `interval`.
class NodeWatch {
 public:
  struct Look {
    double anonymous_mb = 0;
    double disk_mb = 0;
    std::uint64_t log_entries = 0;
    std::uint64_t log_disk_bytes = 0;
    std::uint64_t log_memory_bytes = 0;
  };
  explicit NodeWatch(Cluster& cluster) : cluster_(cluster) {}

  // From the thread that starts and kills the nodes.
  void look();
  // Looks until `done`; false: not within `bound`.
  bool look_until(const std::function<bool()>& done, Milliseconds bound, Milliseconds interval);

  [[nodiscard]] Look most(int node) const;
  // "12 14 13 ...": at most 30 of them.
  [[nodiscard]] std::string curve(int node, double Look::*member) const;

 private:
  Cluster& cluster_;
  std::map<int, std::vector<Look>> looks_;
};

// ---- What is asked of nodes -------------------------------------------------------------------------

// Sum over the nodes that answer.
[[nodiscard]] std::uint64_t sum_of(Cluster& cluster, const std::string& section,
                                   const std::string& name);
// Leadership goes to `node`, which must have caught up; false: it would not.
[[nodiscard]] bool make_leader(Cluster& cluster, int node, Milliseconds bound = 15s);

// =================================================================================================
// Bodies
// =================================================================================================

inline BulkLoad::BulkLoad(const Cluster& cluster, BulkOptions options)
    : ports_(cluster.ports()), options_(std::move(options)) {
  for (int i = 0; i < options_.connections; ++i) writers_.push_back(std::make_unique<Writer>(i));
  for (const auto& writer : writers_) {
    writer->thread = std::thread([this, &writer = *writer] { run(writer); });
  }
}

inline void BulkLoad::stop() {
  stopping_ = true;
  for (const auto& writer : writers_) {
    if (writer->thread.joinable()) writer->thread.join();
  }
}

inline void BulkLoad::run(Writer& writer) {
  while (!stopping_) {
    std::vector<Write> writes;
    const std::size_t drawn = writer.drawn;
    for (std::size_t i = 0; i < options_.batch; ++i) writes.push_back(draw(writer));
    const auto begin = SteadyClock::now();
    // Keys that were not written come again.
    if (!perform(writer, writes)) writer.drawn = drawn;
    const std::uint64_t pace = per_second_;
    if (pace == 0) continue;
    const auto batches = options_.batch * static_cast<std::size_t>(options_.connections);
    std::this_thread::sleep_until(begin + 1000ms * batches / pace);
  }
}

// Keys number, number + connections, ...: each once, in order, then at random.
inline BulkLoad::Write BulkLoad::draw(Writer& writer) const {
  const auto step = static_cast<std::size_t>(options_.connections);
  const auto first = static_cast<std::size_t>(writer.number);
  const std::size_t own = (options_.keys - first + step - 1) / step;
  const std::size_t which = writer.drawn < own ? writer.drawn : writer.random() % own;
  ++writer.drawn;
  return {first + which * step, ++writer.last_serial};
}

// Bytes of no pattern, so that compression hides nothing of what is written.
inline std::string BulkLoad::value_of(std::size_t key, Serial serial) const {
  std::string value = std::to_string(serial) + ":";
  std::uint64_t state = key * 0x9e3779b97f4a7c15ULL + serial;
  while (value.size() < options_.value_bytes) {
    state = state * 6'364'136'223'846'793'005ULL + 1'442'695'040'888'963'407ULL;
    const std::uint64_t word = state ^ (state >> 29);
    for (int shift = 8; shift < 64; shift += 8) value += static_cast<char>(word >> shift);
  }
  value.resize(options_.value_bytes);
  return value;
}

inline bool BulkLoad::perform(Writer& writer, const std::vector<Write>& writes) {
  bool was_sent = false;
  std::size_t settled = 0;
  try {
    if (!writer.client) writer.client = std::make_unique<Client>(ports_[writer.at], 5s);
    std::vector<Arguments> requests;
    for (const Write& write : writes) {
      requests.push_back({"SET", key_name(write.key), value_of(write.key, write.serial)});
    }
    was_sent = true;
    const std::vector<std::string> replies = writer.client->pipeline(requests);
    std::string refusal;
    for (; settled < writes.size(); ++settled) {
      const std::string& reply = replies[settled];
      if (is_refusal(reply) || reply.starts_with("-LOADING")) refusal = reply;
      settle(writer, writes[settled], reply);
    }
    if (!refusal.empty()) go_where(writer, refusal);
    return refusal.empty();
  } catch (const ConnectionError&) {
    for (; settled < writes.size(); ++settled) {
      if (!was_sent) {
        ++refused_;
        continue;
      }
      ++unknown_;
      writer.keys[writes[settled].key].unknown.push_back(writes[settled].serial);
    }
    go_where(writer, "");
    return false;
  }
}

inline void BulkLoad::settle(Writer& writer, Write write, const std::string& reply) {
  if (reply == "+OK") {
    writer.keys[write.key].acknowledged = write.serial;
    ++acknowledged_;
  } else if (is_refusal(reply) || reply.starts_with("-LOADING")) {
    ++refused_;
  } else {
    ++unknown_;
    writer.keys[write.key].unknown.push_back(write.serial);
    if (!reply.starts_with("-ERR outcome unknown") && reply != "-ERR timeout") {
      writer.surprises.push_back(reply);
    }
  }
}

inline void BulkLoad::go_where(Writer& writer, const std::string& reply) {
  writer.client.reset();
  if (reply.starts_with("-MOVED ")) {
    const auto port = static_cast<Port>(std::stoi(reply.substr(reply.rfind(':') + 1)));
    const auto found = std::find(ports_.begin(), ports_.end(), port);
    if (found != ports_.end()) writer.at = static_cast<std::size_t>(found - ports_.begin());
    return;
  }
  writer.at = (writer.at + 1) % ports_.size();
  std::this_thread::sleep_for(20ms);
}

inline std::vector<std::string> BulkLoad::surprises() const {
  std::vector<std::string> texts;
  for (const auto& writer : writers_) {
    texts.insert(texts.end(), writer->surprises.begin(), writer->surprises.end());
  }
  return texts;
}

inline bool BulkLoad::possible(const KeyState& state, std::size_t key,
                               const std::string& value) const {
  const auto is = [&](Serial serial) {
    return value == (serial == 0 ? "(nil)" : value_of(key, serial));
  };
  return is(state.acknowledged) || std::any_of(state.unknown.begin(), state.unknown.end(), is);
}

inline std::vector<std::string> BulkLoad::wrong(const Cluster& cluster) const {
  constexpr std::size_t kChunk = 5'000;
  std::vector<std::string> wrong;
  ClusterClient finder = cluster.cluster_client();
  std::vector<Arguments> requests;
  std::vector<std::pair<std::size_t, const KeyState*>> asked;
  const auto ask_all = [&] {
    (void)finder.ask("GET", "is there a leader");
    std::vector<std::string> replies;
    try {
      replies = Client(finder.port()).pipeline(requests);
    } catch (const ConnectionError&) {
      replies.assign(requests.size(), "-ERR the connection broke");
    }
    for (std::size_t i = 0; i < requests.size(); ++i) {
      const std::string value = is_error(replies[i]) ? finder.ask(requests[i]) : replies[i];
      if (possible(*asked[i].second, asked[i].first, value)) continue;
      wrong.push_back(key_name(asked[i].first) + " is " + value.substr(0, value.find(':')) +
                      ", acknowledged was " + std::to_string(asked[i].second->acknowledged));
    }
    requests.clear();
    asked.clear();
  };
  for (const auto& writer : writers_) {
    for (const auto& [key, state] : writer->keys) {
      requests.push_back({"GET", key_name(key)});
      asked.emplace_back(key, &state);
      if (requests.size() == kChunk) ask_all();
    }
  }
  if (!requests.empty()) ask_all();
  return wrong;
}

// ---- Probe ------------------------------------------------------------------------------------------

inline Probe::Probe(const Cluster& cluster, int count) {
  for (int i = 0; i < count; ++i) {
    clients_.push_back(std::make_unique<ClusterClient>(cluster.ports(), 20s));
  }
  for (int i = 0; i < count; ++i) {
    threads_.emplace_back(
        [this, &client = *clients_[static_cast<std::size_t>(i)], i] { run(client, i); });
  }
}

inline Probe::~Probe() {
  stopping_ = true;
  for (const auto& client : clients_) client->cancel();
  for (std::thread& thread : threads_) thread.join();
}

inline void Probe::run(ClusterClient& client, int number) {
  for (int i = 0; !stopping_; ++i) {
    const std::string key = "probe:" + std::to_string(number);
    const Arguments request =
        i % 2 == 0 ? Arguments{"SET", key, std::to_string(i)} : Arguments{"GET", key};
    const auto begin = SteadyClock::now();
    std::string problem;
    try {
      const std::optional<std::string> reply = client.try_once(request);
      if (!reply) problem = request[0] + ": nobody can say";
      if (reply && is_error(*reply)) problem = request[0] + ": " + *reply;
    } catch (const ConnectionError& error) {
      problem = request[0] + ": " + error.what();
    }
    const std::chrono::duration<double, std::milli> taken = SteadyClock::now() - begin;
    {
      const std::lock_guard lock(mutex_);
      if (!problem.empty() && !stopping_) failures_.push_back(problem);
      answered_.push_back({SteadyClock::now(), taken.count()});
    }
    std::this_thread::sleep_for(kThink);
  }
}

inline Probe::Felt Probe::felt(SteadyClock::time_point begin) const {
  std::vector<double> times;
  {
    const std::lock_guard lock(mutex_);
    for (const Answered& each : answered_) {
      if (each.at >= begin) times.push_back(each.ms);
    }
  }
  return {times.size(), quantile(times, 0.5), quantile(times, 0.99), quantile(times, 1)};
}

inline std::vector<std::string> Probe::failures() const {
  const std::lock_guard lock(mutex_);
  return failures_;
}

// ---- NodeWatch --------------------------------------------------------------------------------------

inline void NodeWatch::look() {
  for (const int node : cluster_.nodes()) {
    const std::optional<Info> raft =
        cluster_.running(node) ? cluster_.info(node, "raft") : std::nullopt;
    if (!raft) continue;
    const NodeSample sample = sample_node(cluster_, node);
    Look look;
    look.anonymous_mb = sample.anonymous_mb;
    look.disk_mb = sample.disk_mb;
    look.log_entries =
        number(*raft, "raft_group_1_last_index") + 1 - number(*raft, "raft_group_1_first_index");
    look.log_disk_bytes = number(*raft, "raft_group_1_log_disk_bytes");
    look.log_memory_bytes = number(*raft, "raft_group_1_log_memory_bytes");
    looks_[node].push_back(look);
  }
}

inline bool NodeWatch::look_until(const std::function<bool()>& done, Milliseconds bound,
                                  Milliseconds interval) {
  const auto end = SteadyClock::now() + bound;
  while (SteadyClock::now() < end) {
    look();
    if (eventually(interval, done)) {
      look();
      return true;
    }
  }
  return false;
}

inline NodeWatch::Look NodeWatch::most(int node) const {
  Look most;
  const auto found = looks_.find(node);
  if (found == looks_.end()) return most;
  for (const Look& look : found->second) {
    most.anonymous_mb = std::max(most.anonymous_mb, look.anonymous_mb);
    most.disk_mb = std::max(most.disk_mb, look.disk_mb);
    most.log_entries = std::max(most.log_entries, look.log_entries);
    most.log_disk_bytes = std::max(most.log_disk_bytes, look.log_disk_bytes);
    most.log_memory_bytes = std::max(most.log_memory_bytes, look.log_memory_bytes);
  }
  return most;
}

inline std::string NodeWatch::curve(int node, double Look::*member) const {
  constexpr std::size_t kPoints = 30;
  const auto found = looks_.find(node);
  if (found == looks_.end()) return "";
  const std::vector<Look>& looks = found->second;
  const std::size_t step = (looks.size() + kPoints - 1) / kPoints;
  std::string text;
  for (std::size_t i = 0; i < looks.size(); i += step) {
    text += (i == 0 ? "" : " ") + std::to_string(static_cast<int>(looks[i].*member + 0.5));
  }
  return text;
}

// ---- What is asked of nodes -------------------------------------------------------------------------

inline std::uint64_t sum_of(Cluster& cluster, const std::string& section, const std::string& name) {
  std::uint64_t sum = 0;
  for (const int node : cluster.nodes()) {
    if (!cluster.running(node)) continue;
    if (const auto info = cluster.info(node, section)) sum += number(*info, name);
  }
  return sum;
}

inline bool make_leader(Cluster& cluster, int node, Milliseconds bound) {
  return eventually(bound, [&] {
    const std::optional<int> leader = cluster.leader_now();
    if (leader == node) return true;
    if (leader) {
      try {
        (void)cluster.client(*leader).ask("SESHAT.TRANSFER-LEADER", std::to_string(node));
      } catch (const ConnectionError&) {
        // It may have ended meanwhile: asked again.
      }
    }
    return false;
  });
}

}  // namespace seshat::tests

#endif  // SESHAT_TESTS_CLUSTER_BULK_HPP
