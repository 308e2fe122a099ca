// Clients with connections of their own: transactions, watched keys, conditions, keys that expire.
//
//   a script: one command │ MULTI .. EXEC │ WATCH, GETs; then MULTI .. EXEC with what was seen
//     ──> bytes to a node's Connection (sessions.hpp) ──> replies ──> one HistoryOperation
//
// Keys and commands: linearizability_commands.hpp.
//
// Keeps: as clients.hpp; what was refused before EXEC is tried again as a whole, on a new connection.
#ifndef SESHAT_TESTS_SIM_TRANSACTORS_HPP
#define SESHAT_TESTS_SIM_TRANSACTORS_HPP

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "linearizability.hpp"
#include "linearizability_commands.hpp"
#include "seshat/resp.hpp"
#include "sim/scenario.hpp"
#include "sim/sessions.hpp"
#include "sim/world.hpp"

namespace seshat::sim {

[[nodiscard]] inline std::string family_name(std::uint64_t number) {
  return "f" + std::to_string(number);
}

class Transactors {
 public:
  using Send = std::function<void(NodeId, SessionRequest)>;

  Transactors(World& world, const Scenario& scenario, const std::set<std::size_t>& without,
              Send send)
      : world_(world), scenario_(scenario), send_(std::move(send)), cut_(scenario.nodes + 1, 0) {
    std::size_t decision = scenario.first_script();
    for (const auto& scripts : scenario.transactors) {
      Client& client = clients_.emplace_back(Client{world.random(0x7a5a + clients_.size())});
      for (const ClientScript& script : scripts) {
        if (!without.contains(decision++)) client.scripts.push_back(script);
      }
      client.leader = NodeId{1 + client.random.below(scenario.nodes)};
    }
  }

  void start() {
    for (std::size_t i = 0; i < clients_.size(); ++i) next(i);
  }
  void stop() { stopping_ = true; }
  [[nodiscard]] bool idle() const { return under_way_ == 0; }
  void cut(NodeId node, int change) { cut_.at(node.value) += change; }
  void connections_broke(NodeId node) {
    for (const CallPtr& call : std::vector(calls_.begin(), calls_.end())) {
      if (call->node == node) hear_nothing(call);
    }
  }
  [[nodiscard]] const test::History& history() const { return history_; }

 private:
  struct Client {
    Random random;
    std::vector<ClientScript> scripts = {};
    std::size_t next = 0;
    NodeId leader = {};
    std::map<std::string, std::string> seen = {};  // of each key, the value it saw last
  };
  // One script, however often it is tried.
  struct Call {
    std::uint64_t number;
    std::size_t client;
    ClientScript script;
    NodeId node;
    std::uint64_t connection = 0;
    std::uint64_t attempt = 0;  // of a request: what answers another comes too late
    std::uint64_t give_up_us = 0;
    std::uint64_t called_us = 0;
    bool changes = false;  // what is under way may change something
    test::HistoryOperation operation = {};
    test::History reads = {};  // under WATCH
    std::vector<std::string> watched = {};
  };
  using CallPtr = std::shared_ptr<Call>;
  struct ByNumber {
    bool operator()(const CallPtr& a, const CallPtr& b) const { return a->number < b->number; }
  };

  [[nodiscard]] std::string name(const Call& call) const {
    return "t" + std::to_string(call.client + 1);
  }
  void next(std::size_t client);
  void begin(const CallPtr& call);
  void begin_command(const CallPtr& call);
  void begin_transaction(const CallPtr& call);
  void begin_watch(const CallPtr& call);
  void go_on_after_watch(const CallPtr& call, const SessionReply& reply);
  using FamilyCommand = test::FamilyCommand;
  [[nodiscard]] FamilyCommand draw_command(Random& random, const Call& call,
                                           std::size_t place) const;
  using Heard = std::function<void(const SessionReply&)>;
  void send(const CallPtr& call, std::string bytes, std::size_t replies, bool opens, Heard heard);
  void send_transaction(const CallPtr& call, const std::vector<FamilyCommand>& commands,
                        bool opens);
  // True: it is over for this attempt: refused, or nobody knows.
  [[nodiscard]] bool is_over(const CallPtr& call, const SessionReply& reply);
  void hear_exec(const CallPtr& call, const SessionReply& reply);
  void hear_nothing(const CallPtr& call);
  void try_again(const CallPtr& call, NodeId leader);
  void record(const CallPtr& call, test::HistoryOperation operation, bool known);
  void finish(const CallPtr& call);
  [[nodiscard]] std::uint64_t delay_us(Client& client) { return client.random.between(100, 3000); }
  void trace(const Call& call, const std::string& what) {
    if (world_.tracing()) world_.trace(name(call), what);
  }

  World& world_;
  const Scenario& scenario_;
  Send send_;
  std::vector<int> cut_;
  std::vector<Client> clients_;
  std::set<CallPtr, ByNumber> calls_;
  std::uint64_t next_call_ = 1;
  std::uint64_t next_connection_ = 1;
  std::uint64_t under_way_ = 0;
  bool stopping_ = false;
  test::History history_;
};

// ---- Scripts ----------------------------------------------------------------------------------------------

inline void Transactors::next(std::size_t number) {
  Client& client = clients_[number];
  if (stopping_ || client.next >= client.scripts.size()) return;
  const ClientScript script = client.scripts[client.next++];
  world_.after(script.think_us, [this, number, script] {
    if (stopping_) return;
    const auto call = std::make_shared<Call>();
    call->number = next_call_++;
    call->client = number;
    call->script = script;
    call->give_up_us = world_.now_us() + scenario_.client_timeout_us;
    // Now and then not whom it takes for the leader.
    call->node = script.raw % 5 != 0 ? clients_[number].leader
                                     : NodeId{1 + (script.raw >> 8) % scenario_.nodes};
    ++under_way_;
    calls_.insert(call);
    begin(call);
  });
}

inline void Transactors::begin(const CallPtr& call) {
  call->connection = next_connection_++;
  call->operation = {};
  call->changes = false;
  call->reads.clear();
  switch (call->script.kind) {
    case ScriptKind::kCommand:
      return begin_command(call);
    case ScriptKind::kTransaction:
      return begin_transaction(call);
    case ScriptKind::kWatch:
      return begin_watch(call);
  }
}

// The same at each attempt, but for what was seen meanwhile.
inline test::FamilyCommand Transactors::draw_command(Random& random, const Call& call,
                                                     std::size_t place) const {
  const std::string text = "t" + std::to_string(call.number) + "." + std::to_string(place);
  return test::draw_command(random, family_name(call.script.family), text,
                            clients_[call.client].seen, kMillisecond);
}

inline void Transactors::begin_command(const CallPtr& call) {
  Random random(call->script.raw);
  const FamilyCommand command = draw_command(random, *call, 0);
  call->operation = command.operation;
  call->changes = command.operation.kind != test::HistoryOperation::Kind::kRead;
  send(call, test::bytes_of(command.words), 1, true, [this, call](const SessionReply& reply) {
    if (is_over(call, reply)) return;
    must(test::note_answer(reply.replies[0], call->operation), "reply",
         "to a command: " + reply.replies[0].text);
    record(call, call->operation, true);
    finish(call);
  });
}

inline void Transactors::begin_transaction(const CallPtr& call) {
  Random random(call->script.raw);
  std::vector<FamilyCommand> commands;
  const std::uint64_t count = random.between(2, 4);
  while (commands.size() < count) {
    commands.push_back(draw_command(random, *call, commands.size()));
  }
  send_transaction(call, commands, true);
}

inline void Transactors::begin_watch(const CallPtr& call) {
  Random random(call->script.raw);
  const std::string family = family_name(call->script.family);
  call->watched = {test::family_key(family, random.chance(500) ? 'a' : 'b')};
  if (random.chance(300)) call->watched.push_back(test::family_key(family, 'n'));
  std::vector<std::string> words = {"WATCH"};
  words.insert(words.end(), call->watched.begin(), call->watched.end());
  std::string bytes = test::bytes_of(words);
  for (const std::string& key : call->watched) bytes += test::bytes_of({"GET", key});
  send(call, bytes, 1 + call->watched.size(), true,
       [this, call](const SessionReply& reply) { go_on_after_watch(call, reply); });
}

inline void Transactors::go_on_after_watch(const CallPtr& call, const SessionReply& reply) {
  if (is_over(call, reply)) return;
  using Kind = test::HistoryOperation::Kind;
  test::HistoryOperation watch;
  watch.kind = Kind::kWatch;
  watch.watch = call->connection;
  for (std::size_t i = 0; i < call->watched.size(); ++i) {
    test::HistoryOperation read;
    read.key = call->watched[i];
    watch.steps.push_back(read);
    must(test::note_answer(reply.replies[i + 1], read), "reply", "to GET");
    if (!read.absent) clients_[call->client].seen[read.key] = read.value;
    call->reads.push_back(read);
    record(call, read, true);
  }
  record(call, std::move(watch), true);
  // What was seen, and some time for others to change it.
  Random random = Random(call->script.raw).fork(1);
  std::vector<FamilyCommand> commands;
  const std::string text = "t" + std::to_string(call->number) + ".w";
  const std::string& key = call->watched[0];
  const std::uint64_t lives_ms = random.chance(300) ? random.scattered(30, 4000) : 0;
  commands.push_back(draw_command(random, *call, 1));
  commands.push_back(test::set_command(key, text, lives_ms, kMillisecond));
  const std::uint64_t attempt = call->attempt;
  world_.after(random.scattered(10, 60 * kMillisecond), [this, call, attempt, commands] {
    if (call->attempt == attempt && calls_.contains(call)) send_transaction(call, commands, false);
  });
}

inline void Transactors::send_transaction(const CallPtr& call,
                                          const std::vector<FamilyCommand>& commands, bool opens) {
  using Kind = test::HistoryOperation::Kind;
  call->operation = {};
  call->operation.kind = Kind::kTransaction;
  call->operation.seen = call->reads;
  if (!opens) call->operation.watch = call->connection;
  call->changes = true;
  std::string bytes = test::bytes_of({"MULTI"});
  for (const FamilyCommand& command : commands) {
    call->operation.steps.push_back(command.operation);
    bytes += test::bytes_of(command.words);
  }
  bytes += test::bytes_of({"EXEC"});
  send(call, bytes, commands.size() + 2, opens,
       [this, call](const SessionReply& reply) { hear_exec(call, reply); });
}

inline void Transactors::hear_exec(const CallPtr& call, const SessionReply& reply) {
  if (is_over(call, reply)) return;
  const resp::Value& exec = reply.replies.back();
  if (test::is_null(exec)) {
    must(call->operation.watch != 0, "reply", "a transaction without WATCH was not done");
    ++world_.counters().watches_refused;
    trace(*call, "EXEC -> a watched key has changed");
    return finish(call);
  }
  must(exec.elements.size() == call->operation.steps.size(), "reply", "to EXEC: " + exec.text);
  for (std::size_t i = 0; i < exec.elements.size(); ++i) {
    must(test::note_answer(exec.elements[i], call->operation.steps[i]), "reply",
         "in EXEC: " + exec.elements[i].text);
  }
  ++world_.counters().transactions;
  record(call, call->operation, true);
  finish(call);
}

// ---- There and back ---------------------------------------------------------------------------------------

inline void Transactors::send(const CallPtr& call, std::string bytes, std::size_t replies,
                              bool opens, Heard heard) {
  const std::uint64_t number = ++call->attempt;
  call->called_us = world_.now_us();
  SessionRequest request;
  request.client = call->client + 1;
  request.connection = call->connection;
  request.opens = opens;
  request.bytes = std::move(bytes);
  request.replies = replies;
  request.answer = [this, call, number, heard = std::move(heard)](const SessionReply& reply) {
    if (cut_[call->node.value] > 0) return;  // the reply is lost
    world_.after(delay_us(clients_[call->client]), [this, call, number, heard, reply] {
      if (call->attempt != number || !calls_.contains(call)) return;
      ++call->attempt;
      heard(reply);
    });
  };
  if (world_.tracing()) {
    call->operation.called = call->called_us;
    trace(*call, test::linearizability_detail::describe(call->operation) + " > n" +
                     std::to_string(call->node.value));
  }
  if (cut_[call->node.value] == 0) {
    world_.after(delay_us(clients_[call->client]),
                 [this, node = call->node, request = std::move(request)] { send_(node, request); });
  }
  world_.at(call->give_up_us, [this, call, number] {
    if (call->attempt == number) hear_nothing(call);
  });
}

// As tests/cluster/client.hpp tells refusals from the rest, by their words.
inline bool Transactors::is_over(const CallPtr& call, const SessionReply& reply) {
  if (reply.broken) {
    try_again(call, {});
    return true;
  }
  for (const resp::Value& value : reply.replies) {
    if (value.kind != resp::Kind::kError) continue;
    const bool unknown = value.text == "ERR timeout" || value.text == "ERR outcome unknown";
    NodeId leader;
    if (value.text.starts_with("MOVED ")) leader = NodeId{std::stoull(value.text.substr(6))};
    const bool refused = leader != NodeId{} || value.text == "CLUSTERDOWN" ||
                         value.text == "NOQUORUM" || value.text == "ERR storage failure";
    must(unknown || refused, "reply", value.text);
    if (unknown && call->changes) {
      hear_nothing(call);
    } else {
      try_again(call, leader);
    }
    return true;
  }
  return false;
}

// Nobody can say what became of it.
inline void Transactors::hear_nothing(const CallPtr& call) {
  if (!calls_.contains(call)) return;
  ++call->attempt;
  if (call->changes) record(call, call->operation, false);
  Client& client = clients_[call->client];
  client.leader = NodeId{1 + client.random.below(scenario_.nodes)};
  finish(call);
}

inline void Transactors::try_again(const CallPtr& call, NodeId leader) {
  Client& client = clients_[call->client];
  const std::uint64_t pause_us = client.random.between(10, 120) * kMillisecond;
  if (world_.now_us() + pause_us >= call->give_up_us) {
    trace(*call, "given up, never done");
    ++world_.counters().refused;
    return finish(call);
  }
  const bool told = leader != NodeId{} && leader != call->node;
  trace(*call, "refused" + (told ? ", n" + std::to_string(leader.value) + " leads" : ""));
  call->node = told ? leader : NodeId{1 + client.random.below(scenario_.nodes)};
  client.leader = call->node;
  const std::uint64_t number = call->attempt;
  world_.after(told ? 0 : pause_us, [this, call, number] {
    if (call->attempt == number && calls_.contains(call)) begin(call);
  });
}

inline void Transactors::record(const CallPtr& call, test::HistoryOperation operation, bool known) {
  ++(known ? world_.counters().operations : world_.counters().unknown);
  operation.called = call->called_us;
  operation.returned = known ? world_.now_us() : test::kNever;
  trace(*call, test::linearizability_detail::describe(operation) + (known ? "" : " -> unknown"));
  history_.push_back(std::move(operation));
}

inline void Transactors::finish(const CallPtr& call) {
  calls_.erase(call);
  --under_way_;
  next(call->client);
}

}  // namespace seshat::sim

#endif  // SESHAT_TESTS_SIM_TRANSACTORS_HPP
