// tests/cluster/soak.hpp - paced load that knows what every reply must be, and what a node uses.
//
// Each connection has keys of its own and is their only writer, so it knows what a GET must answer:
// the value acknowledged last, or that of a write whose outcome nobody could tell. Such a write may
// take effect at any later time, so it stays possible for good.
#ifndef SESHAT_TESTS_CLUSTER_SOAK_HPP
#define SESHAT_TESTS_CLUSTER_SOAK_HPP

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
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

namespace seshat::tests {

// ---- Load -------------------------------------------------------------------------------------------

// How one connection behaves.
struct Habit {
  int batch;                     // so many requests are sent at once
  int batches_a_connection = 0;  // then it reconnects; 0: never
};

struct Tally {
  std::uint64_t operations = 0;
  std::uint64_t acknowledged = 0;              // writes
  std::uint64_t acknowledged_value_bytes = 0;  // of SET
  std::uint64_t unknown = 0;                   // writes whose outcome nobody can tell
  std::uint64_t refused = 0;                   // certainly not executed, or reads without an answer
  std::uint64_t connections = 0;
  std::vector<std::string> violations;  // wrong replies, and errors that have no reason to be
  std::vector<double> latencies_ms;     // of requests that were sent alone

  Tally& operator+=(const Tally& other);
  [[nodiscard]] std::uint64_t failures() const { return unknown + refused + violations.size(); }
};

// The longest time without an acknowledged write.
class GapMeter {
 public:
  GapMeter() : last_(SteadyClock::now()) {}
  void note();
  // The longest since the last call, the one that still lasts included.
  [[nodiscard]] Milliseconds take();

 private:
  std::mutex mutex_;
  SteadyClock::time_point last_;
  Milliseconds longest_{0};
};

class Talker {
 public:
  struct Place {
    int number;         // of this talker
    int key_count;      // its own keys
    double per_second;  // requests
  };
  Talker(Place place, Habit habit, std::vector<Port> ports, Port leader, GapMeter& gaps);

  // Paced, until stop.
  void run(const std::atomic<bool>& stop);
  // Reads all keys once.
  void read_all();
  // What happened since the last call.
  [[nodiscard]] Tally take();

 private:
  enum class Verb { kGet, kSet, kDel };
  using Serial = std::uint32_t;  // numbers the values of a talker; 0: no value
  struct Operation {
    Verb verb;
    std::size_t key;
    Serial serial = 0;  // what the key holds after it
  };
  struct KeyState {
    Serial acknowledged = 0;
    std::vector<Serial> unknown;
  };

  [[nodiscard]] Operation draw();
  [[nodiscard]] std::string key_name(std::size_t key) const;
  [[nodiscard]] std::string value_of(std::size_t key, Serial serial) const;
  [[nodiscard]] Arguments request(const Operation& operation) const;
  void perform(const std::vector<Operation>& operations);
  void settle(const Operation& operation, const std::string& reply, Tally& tally);
  void lose(const Operation& operation, Tally& tally);
  // Whether it was a refusal; then the next batch goes elsewhere.
  [[nodiscard]] bool refused(const std::string& reply);
  [[nodiscard]] bool possible(const Operation& operation, const std::string& reply) const;

  const Place place_;
  const Habit habit_;
  const std::vector<Port> ports_;
  GapMeter& gaps_;
  std::mt19937_64 random_;
  std::vector<KeyState> keys_;
  Serial last_serial_ = 0;
  Port port_;
  int batches_left_ = 0;
  std::unique_ptr<Client> client_;

  std::mutex mutex_;
  Tally tally_;  // under mutex_
};

// All talkers and their threads.
class SoakLoad {
 public:
  SoakLoad(Cluster& cluster, const std::vector<Habit>& habits, int key_count, double per_second);
  ~SoakLoad() { stop(); }
  SoakLoad(const SoakLoad&) = delete;
  SoakLoad& operator=(const SoakLoad&) = delete;

  void stop();
  void read_all();  // after stop()
  [[nodiscard]] Tally take();
  [[nodiscard]] Milliseconds take_gap() { return gaps_.take(); }

 private:
  GapMeter gaps_;
  std::atomic<bool> stop_{false};
  std::vector<std::unique_ptr<Talker>> talkers_;
  std::vector<std::thread> threads_;
};

// ---- What a node uses ---------------------------------------------------------------------------------

struct NodeSample {
  double anonymous_mb = 0;  // resident memory without files: what the node itself holds
  double file_mb = 0;
  double threads = 0;
  double sockets = 0;
  double open_tables = 0;    // files of RocksDB that hold data
  double other_handles = 0;  // write-ahead logs, manifest, event and timer handles, ...
  double tables = 0;         // on disk
  double disk_mb = 0;
  double raft_log_mb = 0;  // entries in memory
  double term = 0;         // of the data group plus that of the system group; -1: no answer
};

struct NodeColumn {
  const char* name;
  double NodeSample::*member;
};
inline constexpr std::array<NodeColumn, 10> kNodeColumns{{
    {"anonymous_mb", &NodeSample::anonymous_mb},
    {"file_mb", &NodeSample::file_mb},
    {"threads", &NodeSample::threads},
    {"sockets", &NodeSample::sockets},
    {"open_tables", &NodeSample::open_tables},
    {"other_handles", &NodeSample::other_handles},
    {"tables", &NodeSample::tables},
    {"disk_mb", &NodeSample::disk_mb},
    {"raft_log_mb", &NodeSample::raft_log_mb},
    {"term", &NodeSample::term},
}};

// Needs Linux' /proc.
[[nodiscard]] NodeSample sample_node(Cluster& cluster, int node);

// Nearest rank; 0 of nothing.
[[nodiscard]] double quantile(std::vector<double> values, double q);
[[nodiscard]] inline double median(std::vector<double> values) {
  return quantile(std::move(values), 0.5);
}

// =================================================================================================
// Bodies
// =================================================================================================

inline double quantile(std::vector<double> values, double q) {
  if (values.empty()) return 0;
  const auto rank = static_cast<std::ptrdiff_t>(q * static_cast<double>(values.size() - 1) + 0.5);
  std::nth_element(values.begin(), values.begin() + rank, values.end());
  return values[static_cast<std::size_t>(rank)];
}

inline Tally& Tally::operator+=(const Tally& other) {
  constexpr std::size_t kKeptTexts = 1000;
  operations += other.operations;
  acknowledged += other.acknowledged;
  acknowledged_value_bytes += other.acknowledged_value_bytes;
  unknown += other.unknown;
  refused += other.refused;
  connections += other.connections;
  latencies_ms.insert(latencies_ms.end(), other.latencies_ms.begin(), other.latencies_ms.end());
  for (const std::string& text : other.violations) {
    if (violations.size() < kKeptTexts) violations.push_back(text);
  }
  return *this;
}

inline void GapMeter::note() {
  const std::lock_guard lock(mutex_);
  longest_ = std::max(longest_, since(last_));
  last_ = SteadyClock::now();
}

inline Milliseconds GapMeter::take() {
  const std::lock_guard lock(mutex_);
  return std::max(std::exchange(longest_, 0ms), since(last_));
}

// ---- Talker -------------------------------------------------------------------------------------------

inline Talker::Talker(Place place, Habit habit, std::vector<Port> ports, Port leader,
                      GapMeter& gaps)
    : place_(place),
      habit_(habit),
      ports_(std::move(ports)),
      gaps_(gaps),
      random_(static_cast<std::uint64_t>(place.number)),
      keys_(static_cast<std::size_t>(place.key_count)),
      port_(leader) {}

inline void Talker::run(const std::atomic<bool>& stop) {
  using Seconds = std::chrono::duration<double>;
  // What was missed in a stall is not made up for but for this much: no stampede when it ends.
  constexpr Milliseconds kCatchUp = 100ms;
  const auto interval =
      std::chrono::duration_cast<SteadyClock::duration>(Seconds(habit_.batch / place_.per_second));
  // Not all at once: the first batch comes at a random part of the first interval.
  auto due = SteadyClock::now() + interval / 100 * static_cast<int>(random_() % 100);
  while (!stop) {
    const auto now = SteadyClock::now();
    if (now < due) {
      std::this_thread::sleep_for(std::min<SteadyClock::duration>(due - now, 50ms));
      continue;
    }
    due = std::max(due + interval, now - kCatchUp);
    std::vector<Operation> operations;
    for (int i = 0; i < habit_.batch; ++i) operations.push_back(draw());
    perform(operations);
  }
}

inline void Talker::read_all() {
  constexpr std::size_t kBatch = 500;
  std::vector<Operation> operations;
  for (std::size_t key = 0; key < keys_.size(); ++key) {
    operations.push_back({Verb::kGet, key});
    if (operations.size() < kBatch && key + 1 < keys_.size()) continue;
    perform(operations);
    operations.clear();
  }
}

inline Tally Talker::take() {
  const std::lock_guard lock(mutex_);
  return std::exchange(tally_, {});
}

inline Talker::Operation Talker::draw() {
  const std::size_t key = random_() % keys_.size();
  const std::uint64_t percent = random_() % 100;
  if (percent < 33) return {Verb::kSet, key, ++last_serial_};
  if (percent < 35) return {Verb::kDel, key};
  return {Verb::kGet, key};
}

inline std::string Talker::key_name(std::size_t key) const {
  return "talker " + std::to_string(place_.number) + " key " + std::to_string(key);
}

// 100 to 1000 bytes of no pattern, so that compression does not hide what is written. The first one
// keeps it apart from every other reply.
inline std::string Talker::value_of(std::size_t key, Serial serial) const {
  std::string value = "value " + std::to_string(serial) + " of " + key_name(key) + ": ";
  // splitmix64, which is seeded for nothing.
  std::uint64_t state = serial * 1'000'003ULL + key * 131ULL + 7ULL;
  const auto next = [&state] {
    std::uint64_t z = (state += 0x9e3779b97f4a7c15ULL);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    return z ^ (z >> 31);
  };
  const std::size_t size = 100 + next() % 901;
  while (value.size() < size) {
    const std::uint64_t word = next();
    for (int shift = 0; shift < 64; shift += 8) value += static_cast<char>(word >> shift);
  }
  value.resize(size);
  return value;
}

inline Arguments Talker::request(const Operation& operation) const {
  const std::string key = key_name(operation.key);
  switch (operation.verb) {
    case Verb::kSet:
      return {"SET", key, value_of(operation.key, operation.serial)};
    case Verb::kDel:
      return {"DEL", key};
    case Verb::kGet:
      break;
  }
  return {"GET", key};
}

inline void Talker::perform(const std::vector<Operation>& operations) {
  Tally tally;
  tally.operations = operations.size();
  bool was_sent = false;
  try {
    if (!client_) {
      client_ = std::make_unique<Client>(port_);
      batches_left_ = habit_.batches_a_connection;
      ++tally.connections;
    }
    std::vector<Arguments> requests;
    for (const Operation& operation : operations) requests.push_back(request(operation));
    was_sent = true;
    const auto start = SteadyClock::now();
    const std::vector<std::string> replies = client_->pipeline(requests);
    const std::chrono::duration<double, std::milli> taken = SteadyClock::now() - start;
    if (operations.size() == 1) tally.latencies_ms.push_back(taken.count());
    for (std::size_t i = 0; i < operations.size(); ++i) settle(operations[i], replies[i], tally);
    if (batches_left_ > 0 && --batches_left_ == 0) client_.reset();
  } catch (const ConnectionError&) {
    for (const Operation& operation : operations) {
      if (was_sent) lose(operation, tally);
      if (!was_sent) ++tally.refused;
    }
    client_.reset();
    port_ = ports_[random_() % ports_.size()];
  }
  const std::lock_guard lock(mutex_);
  tally_ += tally;
}

inline void Talker::settle(const Operation& operation, const std::string& reply, Tally& tally) {
  if (refused(reply)) {
    ++tally.refused;
  } else if (reply.starts_with("-ERR outcome unknown") || reply == "-ERR timeout") {
    lose(operation, tally);
  } else if (!possible(operation, reply)) {
    tally.violations.push_back(request(operation).at(0) + " " + key_name(operation.key) + ": " +
                               reply.substr(0, 60));
    // Whatever it was, it may have been executed.
    keys_[operation.key].unknown.push_back(operation.serial);
  } else if (operation.verb != Verb::kGet) {
    keys_[operation.key].acknowledged = operation.serial;
    ++tally.acknowledged;
    if (operation.verb == Verb::kSet) {
      tally.acknowledged_value_bytes += value_of(operation.key, operation.serial).size();
    }
    gaps_.note();
  }
}

inline void Talker::lose(const Operation& operation, Tally& tally) {
  if (operation.verb == Verb::kGet) {
    ++tally.refused;
    return;
  }
  ++tally.unknown;
  keys_[operation.key].unknown.push_back(operation.serial);
}

inline bool Talker::refused(const std::string& reply) {
  if (reply.starts_with("-MOVED ")) {
    client_.reset();
    port_ = static_cast<Port>(std::stoi(reply.substr(reply.rfind(':') + 1)));
    return true;
  }
  if (!reply.starts_with("-CLUSTERDOWN") && !reply.starts_with("-NOQUORUM")) return false;
  client_.reset();
  port_ = ports_[random_() % ports_.size()];
  return true;
}

inline bool Talker::possible(const Operation& operation, const std::string& reply) const {
  if (operation.verb == Verb::kSet) return reply == "+OK";
  const KeyState& state = keys_[operation.key];
  std::vector<Serial> serials = state.unknown;
  serials.push_back(state.acknowledged);
  return std::any_of(serials.begin(), serials.end(), [&](Serial serial) {
    if (operation.verb == Verb::kDel) return reply == (serial == 0 ? ":0" : ":1");
    return reply == (serial == 0 ? "(nil)" : value_of(operation.key, serial));
  });
}

// ---- SoakLoad -------------------------------------------------------------------------------------------

inline SoakLoad::SoakLoad(Cluster& cluster, const std::vector<Habit>& habits, int key_count,
                          double per_second) {
  const Port leader = cluster.port(cluster.leader());
  const int count = static_cast<int>(habits.size());
  for (int i = 0; i < count; ++i) {
    const Talker::Place place{i, key_count / count, per_second / count};
    talkers_.push_back(std::make_unique<Talker>(place, habits[static_cast<std::size_t>(i)],
                                                cluster.ports(), leader, gaps_));
  }
  for (const auto& talker : talkers_) {
    threads_.emplace_back([this, &talker = *talker] { talker.run(stop_); });
  }
}

inline void SoakLoad::stop() {
  stop_ = true;
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
}

inline void SoakLoad::read_all() {
  for (const auto& talker : talkers_) talker->read_all();
}

inline Tally SoakLoad::take() {
  Tally tally;
  for (const auto& talker : talkers_) tally += talker->take();
  return tally;
}

// ---- Samples --------------------------------------------------------------------------------------------

namespace soak_detail {

// "RssAnon:     1234 kB" -> 1234
inline double status_field(const std::string& status, const std::string& name) {
  const std::size_t at = status.find("\n" + name + ":");
  if (at == std::string::npos) throw std::runtime_error("/proc tells no " + name);
  return std::stod(status.substr(at + name.size() + 2));
}

inline void count_handles(const std::filesystem::path& process, NodeSample& sample) {
  for (const auto& entry : std::filesystem::directory_iterator(process / "fd")) {
    std::error_code closed_meanwhile;
    const std::string target = std::filesystem::read_symlink(entry, closed_meanwhile).string();
    if (closed_meanwhile) continue;
    if (target.starts_with("socket:")) {
      ++sample.sockets;
    } else if (target.find(".sst") != std::string::npos) {  // " (deleted)" may follow
      ++sample.open_tables;
    } else {
      ++sample.other_handles;
    }
  }
}

inline void measure_disk(const std::filesystem::path& directory, NodeSample& sample) {
  std::error_code gone_meanwhile;
  std::filesystem::recursive_directory_iterator at(directory, gone_meanwhile);
  while (!gone_meanwhile && at != std::filesystem::end(at)) {
    std::error_code error;
    const auto size = at->is_regular_file(error) ? at->file_size(error) : 0;
    if (!error) sample.disk_mb += static_cast<double>(size) / 1e6;
    if (at->path().extension() == ".sst") ++sample.tables;
    at.increment(gone_meanwhile);
  }
}

}  // namespace soak_detail

inline NodeSample sample_node(Cluster& cluster, int node) {
  NodeSample sample;
  const std::filesystem::path process = "/proc/" + std::to_string(cluster.process(node).pid());
  const std::string status = read_text(process / "status");
  sample.anonymous_mb = soak_detail::status_field(status, "RssAnon") * 1024 / 1e6;
  sample.file_mb = soak_detail::status_field(status, "RssFile") * 1024 / 1e6;
  sample.threads = soak_detail::status_field(status, "Threads");
  soak_detail::count_handles(process, sample);
  soak_detail::measure_disk(cluster.data_dir(node), sample);
  const std::optional<Info> raft = cluster.info(node, "raft");
  sample.term = -1;
  if (!raft) return sample;
  sample.raft_log_mb = static_cast<double>(number(*raft, "raft_group_1_log_memory_bytes")) / 1e6;
  sample.term =
      static_cast<double>(number(*raft, "raft_group_0_term") + number(*raft, "raft_group_1_term"));
  return sample;
}

}  // namespace seshat::tests

#endif  // SESHAT_TESTS_CLUSTER_SOAK_HPP
