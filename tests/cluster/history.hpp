// tests/cluster/history.hpp - clients whose every operation is written down, to be judged afterwards.
//
//   RecordedLoad load(cluster);      reads, writes and deletes on few keys, from many connections
//   ... faults ...
//   load.stop();
//   load.judge(cluster);             reads every key once more; linearizable?
//
// Six connections go where the leader is. Two more stay with each node, whatever it answers: they would
// be the first to see that a leader of the past still answers from memory. One of the two only reads: a
// write that nobody commits would keep it waiting.
//
// Keys come and go: each set of kKeys serves for kOperationsOfASet operations, because the checker's
// work grows faster than the history of a key. A write's value is unlike any other.
#ifndef SESHAT_TESTS_CLUSTER_HISTORY_HPP
#define SESHAT_TESTS_CLUSTER_HISTORY_HPP

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "client.hpp"
#include "cluster.hpp"
#include "linearizability.hpp"

namespace seshat::tests {

// What a load came to.
struct LoadFigures {
  std::size_t operations = 0;
  std::size_t acknowledged = 0;
  std::size_t unknown = 0;
  std::size_t refused = 0;  // of these nothing was done
  std::size_t violations = 0;
  std::size_t undecided = 0;                // keys whose history was too long for the checker
  std::vector<std::string> surprises = {};  // replies that no node should give
  std::string story = {};                   // of the first violation
};

class RecordedLoad {
 public:
  enum class Clients : std::uint8_t {
    kMany,  // that follow the leader, stay where they are, or only read
    kOne,   // which follows the leader, so that its writes come one by one
  };
  explicit RecordedLoad(const Cluster& cluster, Clients clients = Clients::kMany);
  RecordedLoad(const RecordedLoad&) = delete;
  RecordedLoad& operator=(const RecordedLoad&) = delete;
  ~RecordedLoad() { stop(); }

  void stop();

  // While it runs.
  void only_read(bool only) { only_reads_ = only; }
  [[nodiscard]] std::size_t acknowledged_writes() const { return acknowledged_writes_; }
  // Until so many more writes are acknowledged than now.
  [[nodiscard]] bool await_writes(std::size_t more, Milliseconds bound = 10s) const;
  // The longest time without an acknowledged write since `begin` and until now.
  [[nodiscard]] Milliseconds worst_unavailability(SteadyClock::time_point begin) const;

  // After stop(): what every key that was used has now.
  [[nodiscard]] std::map<std::string, std::string> values(const Cluster& cluster) const;
  // After stop(): reads every key that was used once more, and checks the whole history.
  [[nodiscard]] LoadFigures judge(const Cluster& cluster);

 private:
  using Operation = test::HistoryOperation;
  static constexpr int kFollowersOfTheLeader = 6;
  static constexpr std::chrono::microseconds kThink{4000};  // between two requests, on average
  static constexpr std::uint64_t kKeys = 4;
  static constexpr std::uint64_t kOperationsOfASet = 800;
  // A node that is silent for so long is given up; what was asked of it may still happen.
  static constexpr Milliseconds kPatience = 1500ms;

  // One connection. Its own thread writes; the rest is read when that has ended.
  struct Recorder {
    enum class Habit : std::uint8_t { kFollowsTheLeader, kStays, kStaysAndReads };
    Recorder(std::vector<Port> ports, Habit its_habit, std::uint64_t seed)
        : client(std::move(ports)), habit(its_habit), random(seed) {}
    ClusterClient client;
    Habit habit;
    std::mt19937_64 random;
    test::History history = {};
    std::size_t refused = 0;
    std::vector<std::string> surprises = {};
    std::thread thread = {};
  };

  [[nodiscard]] static std::uint64_t now_ns() {
    return static_cast<std::uint64_t>(
        std::chrono::nanoseconds(SteadyClock::now().time_since_epoch()).count());
  }
  void run(Recorder& recorder);
  [[nodiscard]] Operation draw(Recorder& recorder);
  [[nodiscard]] static Arguments request_of(const Operation& operation);
  // False: no reply to such a request.
  [[nodiscard]] static bool note_reply(Operation& operation, const std::string& reply);
  void perform(Recorder& recorder, Operation operation);
  [[nodiscard]] std::set<std::string> keys() const;
  [[nodiscard]] test::History final_reads(const Cluster& cluster) const;
  void note_write();

  std::vector<std::unique_ptr<Recorder>> recorders_;
  std::atomic<std::uint64_t> drawn_{0};
  std::atomic<std::size_t> acknowledged_writes_{0};
  std::atomic<bool> stopping_{false};
  std::atomic<bool> only_reads_{false};
  mutable std::mutex mutex_;
  std::vector<SteadyClock::time_point> writes_at_;  // under mutex_
};

// =================================================================================================
// Bodies
// =================================================================================================

inline RecordedLoad::RecordedLoad(const Cluster& cluster, Clients clients) {
  using Habit = Recorder::Habit;
  const auto add = [this](std::vector<Port> ports, Habit habit) {
    recorders_.push_back(std::make_unique<Recorder>(std::move(ports), habit, recorders_.size()));
  };
  const bool many = clients == Clients::kMany;
  const int followers = many ? kFollowersOfTheLeader : 1;
  for (int i = 0; i < followers; ++i) add(cluster.ports(), Habit::kFollowsTheLeader);
  for (const Port port : cluster.ports()) {
    if (many) add({port}, Habit::kStays);
    if (many) add({port}, Habit::kStaysAndReads);
  }
  for (const auto& recorder : recorders_) {
    recorder->thread = std::thread([this, &recorder = *recorder] { run(recorder); });
  }
}

inline void RecordedLoad::stop() {
  stopping_ = true;
  for (const auto& recorder : recorders_) {
    if (recorder->thread.joinable()) recorder->thread.join();
  }
}

inline void RecordedLoad::note_write() {
  ++acknowledged_writes_;
  const std::lock_guard lock(mutex_);
  writes_at_.push_back(SteadyClock::now());
}

inline bool RecordedLoad::await_writes(std::size_t more, Milliseconds bound) const {
  const std::size_t wanted = acknowledged_writes_ + more;
  return eventually(bound, [&] { return acknowledged_writes_ >= wanted; });
}

inline Milliseconds RecordedLoad::worst_unavailability(SteadyClock::time_point begin) const {
  const std::lock_guard lock(mutex_);
  SteadyClock::time_point last = begin;
  SteadyClock::duration worst{0};
  for (const SteadyClock::time_point write : writes_at_) {
    if (write < begin) continue;
    worst = std::max(worst, write - last);
    last = std::max(last, write);
  }
  if (!stopping_) worst = std::max(worst, SteadyClock::now() - last);
  return std::chrono::duration_cast<Milliseconds>(worst);
}

// ---- One connection -----------------------------------------------------------------------------------

inline RecordedLoad::Operation RecordedLoad::draw(Recorder& recorder) {
  const std::uint64_t number = drawn_++;
  const std::uint64_t dice = recorder.random() % 100;
  Operation operation;
  operation.key = "c" + std::to_string(number / kOperationsOfASet) + "-" +
                  std::to_string(recorder.random() % kKeys);
  if (only_reads_ || recorder.habit == Recorder::Habit::kStaysAndReads) return operation;
  if (dice < 45) {
    operation.kind = Operation::Kind::kWrite;
    operation.value = "v" + std::to_string(number);
  } else if (dice < 55) {
    operation.kind = Operation::Kind::kDelete;
  }
  return operation;
}

inline Arguments RecordedLoad::request_of(const Operation& operation) {
  switch (operation.kind) {
    case Operation::Kind::kWrite:
      return {"SET", operation.key, operation.value};
    case Operation::Kind::kDelete:
      return {"DEL", operation.key};
    default:
      return {"GET", operation.key};
  }
}

inline bool RecordedLoad::note_reply(Operation& operation, const std::string& reply) {
  switch (operation.kind) {
    case Operation::Kind::kWrite:
      return reply == "+OK";
    case Operation::Kind::kDelete:
      if (reply != ":0" && reply != ":1") return false;
      operation.count = reply == ":1" ? 1 : 0;
      return true;
    default:
      operation.absent = reply == "(nil)";
      operation.value = operation.absent ? "" : reply;
      return !is_error(reply);
  }
}

inline void RecordedLoad::perform(Recorder& recorder, Operation operation) {
  const bool changes = operation.kind != Operation::Kind::kRead;
  operation.called = now_ns();
  const Attempt attempt = recorder.client.attempt(request_of(operation), kPatience);
  if (attempt.outcome == Attempt::Outcome::kRefused) {
    ++recorder.refused;
    // A node that refuses at once should not be asked without a pause.
    const bool goes_on = recorder.habit == Recorder::Habit::kFollowsTheLeader;
    if (!attempt.reply.starts_with("-MOVED ") || !goes_on) std::this_thread::sleep_for(20ms);
    return;
  }
  if (attempt.outcome == Attempt::Outcome::kAnswered) {
    operation.returned = now_ns();
    if (!note_reply(operation, attempt.reply)) {
      recorder.surprises.push_back(request_of(operation).at(0) + ": " + attempt.reply);
      return;
    }
    if (changes) note_write();
  }
  recorder.history.push_back(std::move(operation));
}

inline void RecordedLoad::run(Recorder& recorder) {
  while (!stopping_) {
    try {
      perform(recorder, draw(recorder));
    } catch (const std::exception& error) {
      recorder.surprises.emplace_back(error.what());
    }
    std::this_thread::sleep_for(kThink * (recorder.random() % 201) / 100);
  }
}

// ---- The judgement ------------------------------------------------------------------------------------

inline std::set<std::string> RecordedLoad::keys() const {
  std::set<std::string> keys;
  for (const auto& recorder : recorders_) {
    for (const Operation& operation : recorder->history) keys.insert(operation.key);
  }
  return keys;
}

inline std::map<std::string, std::string> RecordedLoad::values(const Cluster& cluster) const {
  std::vector<Arguments> requests;
  for (const std::string& key : keys()) requests.push_back({"GET", key});
  ClusterClient finder = cluster.cluster_client();
  (void)finder.ask("GET", "is there a leader");
  std::vector<std::string> replies;
  try {
    replies = Client(finder.port()).pipeline(requests);
  } catch (const ConnectionError&) {
    replies.assign(requests.size(), "-ERR the connection broke");
  }
  std::map<std::string, std::string> values;
  for (std::size_t i = 0; i < requests.size(); ++i) {
    // An error is no loss: leadership may have moved meanwhile.
    values[requests[i].at(1)] = is_error(replies[i]) ? finder.ask(requests[i]) : replies[i];
  }
  return values;
}

// What was acknowledged must be there in the end: that is one more read of each key.
inline test::History RecordedLoad::final_reads(const Cluster& cluster) const {
  Operation read;
  read.called = now_ns();
  const std::map<std::string, std::string> found = values(cluster);
  read.returned = now_ns();
  test::History reads;
  for (const auto& [key, value] : found) {
    read.key = key;
    (void)note_reply(read, value);
    reads.push_back(read);
  }
  return reads;
}

inline LoadFigures RecordedLoad::judge(const Cluster& cluster) {
  LoadFigures figures;
  std::map<std::string, test::History> histories;
  for (const auto& recorder : recorders_) {
    figures.refused += recorder->refused;
    figures.surprises.insert(figures.surprises.end(), recorder->surprises.begin(),
                             recorder->surprises.end());
    for (const Operation& operation : recorder->history) {
      ++(operation.is_unknown() ? figures.unknown : figures.acknowledged);
      histories[operation.key].push_back(operation);
    }
  }
  figures.operations = figures.acknowledged + figures.unknown + figures.refused;
  for (Operation& read : final_reads(cluster)) histories[read.key].push_back(std::move(read));
  for (const auto& [key, history] : histories) {
    const test::Verdict verdict = test::LinearizabilityChecker().check(history);
    figures.undecided += verdict.gave_up ? 1 : 0;
    if (verdict.linearizable) continue;
    if (figures.violations++ == 0) figures.story = verdict.story;
  }
  return figures;
}

}  // namespace seshat::tests

#endif  // SESHAT_TESTS_CLUSTER_HISTORY_HPP
