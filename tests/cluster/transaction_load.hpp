// tests/cluster/transaction_load.hpp - clients with transactions, watched keys and keys that expire, whose
// every operation is written down and judged.
//
//   TransactionLoad load(cluster, &clocks);     one command │ MULTI .. EXEC │ WATCH, GETs, MULTI .. EXEC
//   ... faults ...
//   load.stop();
//   load.judge(cluster);
//
// A transaction is one operation of the history. Nothing is tried again: what was refused did not
// happen, and what nobody answered may have.
//
// Families of keys come and go, as in history.hpp. Leaders' clocks: what Clocks set, or those of one
// machine; kClockMargin is for how that machine's own time of day is steered.
#ifndef SESHAT_TESTS_CLUSTER_TRANSACTION_LOAD_HPP
#define SESHAT_TESTS_CLUSTER_TRANSACTION_LOAD_HPP

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "client.hpp"
#include "clocks.hpp"
#include "cluster.hpp"
#include "history.hpp"
#include "linearizability.hpp"
#include "linearizability_commands.hpp"
#include "sim/world.hpp"

namespace seshat::tests {

class TransactionLoad {
 public:
  // `clocks`: null: nobody sets them.
  explicit TransactionLoad(const Cluster& cluster, const Clocks* clocks = nullptr);
  TransactionLoad(const TransactionLoad&) = delete;
  TransactionLoad& operator=(const TransactionLoad&) = delete;
  ~TransactionLoad() { stop(); }

  void stop();
  [[nodiscard]] std::size_t transactions() const { return transactions_; }
  [[nodiscard]] std::size_t watches_refused() const { return watches_refused_; }
  // After stop(): reads every key once more, and checks the whole history.
  [[nodiscard]] LoadFigures judge(const Cluster& cluster);

 private:
  using Operation = test::HistoryOperation;
  using Histories = std::map<std::string, test::History>;  // by family
  static constexpr int kClients = 4;
  static constexpr std::chrono::microseconds kThink{8000};  // on average
  static constexpr std::uint64_t kScriptsOfAFamily = 200;
  static constexpr Milliseconds kPatience = 1500ms;
  static constexpr std::uint64_t kUnit = 1'000'000;  // a millisecond, in ns
  static constexpr std::uint64_t kMaxSteps = 5'000'000;

  struct Recorder {
    Recorder(std::vector<Port> its_ports, std::uint64_t seed)
        : ports(std::move(its_ports)), random(seed) {}
    std::vector<Port> ports;
    std::size_t at = 0;
    std::unique_ptr<Client> client = nullptr;
    sim::Random random;
    std::map<std::string, std::string> seen = {};
    Histories histories = {};
    std::size_t refused = 0;
    std::vector<std::string> surprises = {};
    std::thread thread = {};
  };
  // One script of a client: a family, and what to write.
  struct Script {
    std::string family;
    std::string text;
    std::uint64_t number;
  };
  using Requests = std::vector<std::vector<std::string>>;
  using Replies = std::vector<resp::Value>;

  [[nodiscard]] static std::uint64_t now_ns() { return Clocks::now_ns(); }
  void run(Recorder& recorder);
  void perform(Recorder& recorder, const Script& script);
  void watch_and_go_on(Recorder& recorder, const Script& script);
  void transact(Recorder& recorder, const Script& script,
                const std::vector<test::FamilyCommand>& commands, Operation operation);
  // The replies to all, where none of them is an error. Else it is noted what became of `operation`:
  // nothing, if it was refused, or it is null.
  [[nodiscard]] std::optional<Replies> ask(Recorder& recorder, const Script& script,
                                           const Requests& requests, const Operation* operation);
  void note_unknown(Recorder& recorder, const Script& script, const Operation* operation,
                    std::uint64_t called);
  static void go_on(Recorder& recorder, const std::string& error);

  std::vector<std::unique_ptr<Recorder>> recorders_;
  const Clocks* clocks_;
  std::atomic<std::uint64_t> drawn_{0};
  std::atomic<std::size_t> transactions_{0};
  std::atomic<std::size_t> watches_refused_{0};
  std::atomic<bool> stopping_{false};
};

// =================================================================================================
// Bodies
// =================================================================================================

inline TransactionLoad::TransactionLoad(const Cluster& cluster, const Clocks* clocks)
    : clocks_(clocks) {
  for (std::uint64_t i = 0; i < kClients; ++i) {
    recorders_.push_back(std::make_unique<Recorder>(cluster.ports(), i));
  }
  for (const auto& recorder : recorders_) {
    recorder->thread = std::thread([this, &recorder = *recorder] { run(recorder); });
  }
}

inline void TransactionLoad::stop() {
  stopping_ = true;
  for (const auto& recorder : recorders_) {
    if (recorder->thread.joinable()) recorder->thread.join();
  }
}

inline void TransactionLoad::run(Recorder& recorder) {
  while (!stopping_) {
    const std::uint64_t number = ++drawn_;
    const std::string text = "w" + std::to_string(number);
    perform(recorder, {"t" + std::to_string(number / kScriptsOfAFamily), text, number});
    std::this_thread::sleep_for(kThink * recorder.random.below(201) / 100);
  }
}

inline void TransactionLoad::perform(Recorder& recorder, const Script& script) {
  const auto draw = [&](const std::string& suffix) {
    return test::draw_command(recorder.random, script.family, script.text + suffix, recorder.seen,
                              kUnit);
  };
  const std::uint64_t kind = recorder.random.below(3);
  if (kind == 0) return watch_and_go_on(recorder, script);
  if (kind == 1) {
    Operation operation;
    return transact(recorder, script, {draw(".0"), draw(".1"), draw(".2")}, operation);
  }
  test::FamilyCommand command = draw("");
  const bool changes = command.operation.kind != Operation::Kind::kRead;
  command.operation.called = now_ns();
  const auto replies =
      ask(recorder, script, {command.words}, changes ? &command.operation : nullptr);
  if (!replies) return;
  command.operation.returned = now_ns();
  if (!test::note_answer(replies->at(0), command.operation)) {
    recorder.surprises.push_back(command.words[0] + ": " + text_of(replies->at(0)));
    return;
  }
  recorder.histories[script.family].push_back(command.operation);
}

// What it saw, it overwrites, if nobody else did.
inline void TransactionLoad::watch_and_go_on(Recorder& recorder, const Script& script) {
  std::vector<std::string> keys = {
      test::family_key(script.family, recorder.random.chance(500) ? 'a' : 'b')};
  if (recorder.random.chance(300)) keys.push_back(test::family_key(script.family, 'n'));
  Operation watch;
  watch.kind = Operation::Kind::kWatch;
  watch.watch = script.number;
  Requests requests = {{"WATCH"}};
  for (const std::string& key : keys) {
    requests[0].push_back(key);
    requests.push_back({"GET", key});
  }
  watch.called = now_ns();
  const auto replies = ask(recorder, script, requests, nullptr);
  if (!replies) return;
  watch.returned = now_ns();
  Operation transaction;
  transaction.watch = script.number;
  for (std::size_t i = 0; i < keys.size(); ++i) {
    Operation read;
    read.key = keys[i];
    watch.steps.push_back(read);
    if (!test::note_answer(replies->at(i + 1), read)) {
      recorder.surprises.push_back("GET: " + text_of(replies->at(i + 1)));
      return;
    }
    if (!read.absent) recorder.seen[read.key] = read.value;
    transaction.seen.push_back(read);
    read.called = watch.called;
    read.returned = watch.returned;
    recorder.histories[script.family].push_back(read);
  }
  recorder.histories[script.family].push_back(watch);
  const std::uint64_t lives_ms =
      recorder.random.chance(300) ? recorder.random.scattered(30, 4000) : 0;
  transact(
      recorder, script,
      {test::draw_command(recorder.random, script.family, script.text + ".0", recorder.seen, kUnit),
       test::set_command(keys[0], script.text + ".1", lives_ms, kUnit)},
      transaction);
}

inline void TransactionLoad::transact(Recorder& recorder, const Script& script,
                                      const std::vector<test::FamilyCommand>& commands,
                                      Operation operation) {
  operation.kind = Operation::Kind::kTransaction;
  Requests requests = {{"MULTI"}};
  for (const test::FamilyCommand& command : commands) {
    operation.steps.push_back(command.operation);
    requests.push_back(command.words);
  }
  requests.push_back({"EXEC"});
  operation.called = now_ns();
  const auto replies = ask(recorder, script, requests, &operation);
  if (!replies) return;
  operation.returned = now_ns();
  const resp::Value& exec = replies->back();
  if (test::is_null(exec) && operation.watch != 0) {
    ++watches_refused_;
    return;
  }
  bool fits = exec.elements.size() == commands.size();
  for (std::size_t i = 0; fits && i < commands.size(); ++i) {
    fits = test::note_answer(exec.elements[i], operation.steps[i]);
  }
  if (!fits) {
    recorder.surprises.push_back("EXEC: " + text_of(exec));
    return;
  }
  ++transactions_;
  recorder.histories[script.family].push_back(operation);
}

inline std::optional<TransactionLoad::Replies> TransactionLoad::ask(Recorder& recorder,
                                                                    const Script& script,
                                                                    const Requests& requests,
                                                                    const Operation* operation) {
  const std::uint64_t called = now_ns();
  bool sent = false;
  try {
    if (!recorder.client) {
      recorder.client = std::make_unique<Client>(recorder.ports[recorder.at], kPatience);
    }
    std::string bytes;
    for (const auto& request : requests) bytes += test::bytes_of(request);
    sent = true;
    recorder.client->send_raw(bytes);
    Replies replies;
    while (replies.size() < requests.size()) replies.push_back(recorder.client->receive_value());
    for (const resp::Value& reply : replies) {
      if (reply.kind != resp::Kind::kError) continue;
      // Of a transaction the last word counts.
      const std::string error = text_of(operation != nullptr ? replies.back() : reply);
      if (error.starts_with("-ERR outcome unknown") || error == "-ERR timeout") {
        note_unknown(recorder, script, operation, called);
      } else if (is_refusal(error) || error.starts_with("-EXECABORT ") ||
                 error.starts_with("-ERR not every node of the cluster knows")) {
        ++recorder.refused;
      } else {
        recorder.surprises.push_back(requests.back()[0] + ": " + error);
      }
      go_on(recorder, error);
      return std::nullopt;
    }
    return replies;
  } catch (const std::exception&) {
    if (sent) note_unknown(recorder, script, operation, called);
    go_on(recorder, "");
    return std::nullopt;
  }
}

inline void TransactionLoad::note_unknown(Recorder& recorder, const Script& script,
                                          const Operation* operation, std::uint64_t called) {
  if (operation == nullptr) return;
  Operation unknown = *operation;
  unknown.called = called;
  unknown.returned = test::kNever;
  recorder.histories[script.family].push_back(std::move(unknown));
}

// A new connection, so that nothing is watched any more.
inline void TransactionLoad::go_on(Recorder& recorder, const std::string& error) {
  recorder.client.reset();
  std::size_t next = (recorder.at + 1) % recorder.ports.size();
  if (error.starts_with("-MOVED ")) {
    const auto port = static_cast<Port>(std::stoi(error.substr(error.rfind(':') + 1)));
    for (std::size_t i = 0; i < recorder.ports.size(); ++i) {
      if (recorder.ports[i] == port) next = i;
    }
  } else {
    std::this_thread::sleep_for(20ms);  // a node that refuses at once is not asked without a pause
  }
  recorder.at = next;
}

inline LoadFigures TransactionLoad::judge(const Cluster& cluster) {
  LoadFigures figures;
  Histories histories;
  for (const auto& recorder : recorders_) {
    figures.refused += recorder->refused;
    figures.surprises.insert(figures.surprises.end(), recorder->surprises.begin(),
                             recorder->surprises.end());
    for (const auto& [family, operations] : recorder->histories) {
      for (const Operation& operation : operations) {
        ++(operation.is_unknown() ? figures.unknown : figures.acknowledged);
        histories[family].push_back(operation);
      }
    }
  }
  figures.operations = figures.acknowledged + figures.unknown + figures.refused;
  const test::LinearizabilityChecker checker(
      kMaxSteps, clocks_ != nullptr ? clocks_->leader_time() : Clocks::of_one_machine());
  ClusterClient finder = cluster.cluster_client();
  for (auto& [family, history] : histories) {
    for (const char name : test::kFamilyKeys) {
      Operation read;
      read.key = test::family_key(family, name);
      read.called = now_ns();
      const std::string value = finder.ask("GET", read.key);
      read.returned = now_ns();
      read.absent = value == "(nil)";
      if (!read.absent) read.value = value;
      if (!is_error(value)) history.push_back(read);
    }
    const test::Verdict verdict = checker.check(history);
    figures.undecided += verdict.gave_up ? 1 : 0;
    if (verdict.linearizable) continue;
    if (figures.violations++ == 0) figures.story = verdict.story;
  }
  return figures;
}

}  // namespace seshat::tests

#endif  // SESHAT_TESTS_CLUSTER_TRANSACTION_LOAD_HPP
