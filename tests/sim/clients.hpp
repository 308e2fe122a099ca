// Clients: each sends its operations one after another (or a few at a time), follows the leader as
// it is told, tries again what was refused, and writes down what it saw.
//
// Keeps: only what was certainly not done is tried again. What was not answered is of unknown
// outcome; what was refused to the end must never be seen.
#ifndef SESHAT_TESTS_SIM_CLIENTS_HPP
#define SESHAT_TESTS_SIM_CLIENTS_HPP

#include <cstdint>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "linearizability.hpp"
#include "sim/process.hpp"
#include "sim/scenario.hpp"
#include "sim/world.hpp"

namespace seshat::sim {

class Clients {
 public:
  // Brings a request to a node's process; nobody may be there.
  using Send = std::function<void(NodeId, Request)>;

  Clients(World& world, const Scenario& scenario, const std::set<std::size_t>& without, Send send)
      : world_(world), scenario_(scenario), send_(std::move(send)), cut_(scenario.nodes + 1, 0) {
    std::size_t decision = scenario.faults.size();
    for (const auto& operations : scenario.clients) {
      Client& client = clients_.emplace_back(Client{world.random(0xc11e47 + clients_.size())});
      for (const ClientOperation& operation : operations) {
        if (!without.contains(decision++)) client.operations.push_back(operation);
      }
      client.leader = NodeId{1 + client.random.below(scenario.nodes)};
    }
  }

  void start() {
    for (std::size_t i = 0; i < clients_.size(); ++i) {
      const std::uint64_t lanes = clients_[i].random.chance(300) ? 3 : 1;
      for (std::uint64_t lane = 0; lane < lanes; ++lane) next(i);
    }
  }
  // No new operations; those under way come to their end.
  void stop() { stopping_ = true; }
  [[nodiscard]] bool idle() const { return under_way_ == 0; }

  void cut(NodeId node, int change) { cut_.at(node.value) += change; }
  // Connections to a process that died break; what was under way there is of unknown outcome.
  void connections_broke(NodeId node) {
    for (const auto& call : std::vector(calls_.begin(), calls_.end())) {
      if (call->node == node) hear(call, Reply{});
    }
  }

  [[nodiscard]] const test::History& history() const { return history_; }

 private:
  struct Client {
    Random random;
    std::vector<ClientOperation> operations = {};
    std::size_t next = 0;
    NodeId leader = {};
  };
  // One operation, however often it is tried.
  struct Call {
    std::uint64_t number;
    std::size_t client;
    ClientOperation operation;
    std::string value;
    NodeId node;
    std::uint64_t attempt = 0;
    std::uint64_t called_us = 0;
    std::uint64_t give_up_us = 0;
  };
  using CallPtr = std::shared_ptr<Call>;
  struct ByNumber {
    bool operator()(const CallPtr& a, const CallPtr& b) const { return a->number < b->number; }
  };

  [[nodiscard]] std::string name(const Call& call) const {
    return "c" + std::to_string(call.client + 1);
  }
  void next(std::size_t client);
  void attempt(const CallPtr& call);
  void hear(const CallPtr& call, const Reply& reply);
  void record(const Call& call, const Reply& reply);
  void try_again(const CallPtr& call, NodeId leader);
  void finish(const CallPtr& call);
  [[nodiscard]] std::uint64_t delay_us(Client& client) { return client.random.between(100, 3000); }
  // Mostly whom it takes for the leader; now and then another one, as a client with several
  // connections: so a new leader gets writes while others still ask the old one.
  [[nodiscard]] NodeId first_node(const Client& client, const ClientOperation& operation) const {
    if (operation.raw % 5 != 0) return client.leader;
    return NodeId{1 + (operation.raw >> 8) % scenario_.nodes};
  }
  [[nodiscard]] static std::string tell(const Call& call) {
    static constexpr const char* kNames[] = {"GET k", "SET k", "DEL k"};
    return kNames[static_cast<int>(call.operation.action)] + std::to_string(call.operation.key) +
           (call.operation.action == ClientAction::kSet ? " " + call.value : "");
  }

  World& world_;
  const Scenario& scenario_;
  Send send_;
  std::vector<int> cut_;
  std::vector<Client> clients_;
  std::set<CallPtr, ByNumber> calls_;
  std::uint64_t next_call_ = 1;
  std::uint64_t under_way_ = 0;
  bool stopping_ = false;
  test::History history_;
};

inline void Clients::next(std::size_t number) {
  Client& client = clients_[number];
  if (stopping_ || client.next >= client.operations.size()) return;
  const ClientOperation operation = client.operations[client.next++];
  world_.after(operation.think_us, [this, number, operation] {
    if (stopping_) return;
    const auto call = std::make_shared<Call>();
    call->number = next_call_++;
    call->client = number;
    call->operation = operation;
    call->value = "v" + std::to_string(call->number);
    call->give_up_us = world_.now_us() + scenario_.client_timeout_us;
    call->node = first_node(clients_[number], operation);
    ++under_way_;
    calls_.insert(call);
    attempt(call);
  });
}

inline void Clients::attempt(const CallPtr& call) {
  Client& client = clients_[call->client];
  const std::uint64_t number = ++call->attempt;
  // A write that was refused has not happened: it may happen from now on.
  call->called_us = world_.now_us();
  Request request;
  request.action = call->operation.action;
  request.key = "k" + std::to_string(call->operation.key);
  request.value = call->value;
  request.connection = call->client + 1;
  request.answer = [this, call, number](const Reply& reply) {
    if (cut_[call->node.value] > 0) return;  // the reply is lost
    world_.after(delay_us(clients_[call->client]), [this, call, number, reply] {
      if (call->attempt == number) hear(call, reply);
    });
  };
  if (world_.tracing()) {
    world_.trace(name(*call), tell(*call) + " > n" + std::to_string(call->node.value));
  }
  if (cut_[call->node.value] == 0) {
    world_.after(delay_us(client),
                 [this, node = call->node, request = std::move(request)] { send_(node, request); });
  }
  world_.at(call->give_up_us, [this, call, number] {
    if (call->attempt == number) hear(call, Reply{});
  });
}

inline void Clients::hear(const CallPtr& call, const Reply& reply) {
  if (!calls_.contains(call)) return;  // answered before
  ++call->attempt;                     // what still comes is too late
  if (reply.kind == Reply::Kind::kRefused) return try_again(call, reply.leader);
  record(*call, reply);
  if (reply.kind == Reply::Kind::kUnknown) {
    Client& client = clients_[call->client];
    client.leader = NodeId{1 + client.random.below(scenario_.nodes)};
  }
  finish(call);
}

inline void Clients::try_again(const CallPtr& call, NodeId leader) {
  Client& client = clients_[call->client];
  const std::uint64_t pause_us = client.random.between(10, 120) * kMillisecond;
  if (world_.now_us() + pause_us >= call->give_up_us) {
    if (world_.tracing()) world_.trace(name(*call), tell(*call) + " -> given up, never done");
    ++world_.counters().refused;
    return finish(call);
  }
  const bool told = leader != NodeId{} && leader != call->node;
  if (world_.tracing()) {
    const std::string hint = told ? ", n" + std::to_string(leader.value) + " leads" : "";
    world_.trace(name(*call), tell(*call) + " -> refused" + hint);
  }
  call->node = told ? leader : NodeId{1 + client.random.below(scenario_.nodes)};
  client.leader = call->node;
  const std::uint64_t number = call->attempt;
  world_.after(told ? 0 : pause_us, [this, call, number] {
    if (call->attempt == number) attempt(call);
  });
}

inline void Clients::record(const Call& call, const Reply& reply) {
  const bool unknown = reply.kind == Reply::Kind::kUnknown;
  ++(unknown ? world_.counters().unknown : world_.counters().operations);
  if (world_.tracing()) {
    std::string told = unknown ? "unknown" : reply.value ? *reply.value : "done";
    if (!unknown && call.operation.action == ClientAction::kGet && !reply.value) told = "nothing";
    world_.trace(name(call), tell(call) + " -> " + told);
  }
  test::HistoryOperation operation;
  operation.key = "k" + std::to_string(call.operation.key);
  operation.called = call.called_us;
  if (!unknown) operation.returned = world_.now_us();
  switch (call.operation.action) {
    case ClientAction::kGet:
      if (unknown) return;
      operation.absent = !reply.value;
      operation.value = reply.value.value_or("");
      break;
    case ClientAction::kSet:
      operation.kind = test::HistoryOperation::Kind::kWrite;
      operation.value = call.value;
      break;
    case ClientAction::kDelete:
      operation.kind = test::HistoryOperation::Kind::kDelete;
      if (!unknown) operation.count = reply.count;
      break;
  }
  history_.push_back(std::move(operation));
}

inline void Clients::finish(const CallPtr& call) {
  calls_.erase(call);
  --under_way_;
  next(call->client);
}

}  // namespace seshat::sim

#endif  // SESHAT_TESTS_SIM_CLIENTS_HPP
