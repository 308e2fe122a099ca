// One run: a cluster, its clients and its faults, from the first start to the last check.
//
//   faults, clients, changes of members ──> calm: all is mended
//                      ──> a write must commit, in time, and the members come to be those wanted
//                      ──> perhaps: a minority stays broken, writes must go on
//                      ──> all is mended: every member comes to the same state ──> linearizable?
//
//   const sim::Result result = sim::run(seed, {});
#ifndef SESHAT_TESTS_SIM_SIMULATION_HPP
#define SESHAT_TESTS_SIM_SIMULATION_HPP

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "linearizability.hpp"
#include "sim/administrator.hpp"
#include "sim/checks.hpp"
#include "sim/clients.hpp"
#include "sim/disk.hpp"
#include "sim/network.hpp"
#include "sim/process.hpp"
#include "sim/scenario.hpp"
#include "sim/transactors.hpp"
#include "sim/world.hpp"

namespace seshat::sim {

struct Options {
  std::set<std::size_t> without;  // decisions that are switched off
  Trace::Mode trace = Trace::Mode::kOff;
};

struct Result {
  std::optional<std::string> violation;  // what kind
  std::string detail;
  Counters counters;
  std::uint64_t trace_hash = 0;
  std::uint64_t trace_lines = 0;
};

class Simulation final : private ProcessHost, private AdministeredCluster {
 public:
  Simulation(const Scenario& scenario, const Options& options)
      : scenario_(scenario),
        without_(options.without),
        trace_(options.trace),
        world_(scenario.seed, trace_),
        checks_(world_, scenario.founders),
        network_(world_, scenario_, [this](const Packet& packet) { deliver(packet); }),
        clients_(world_, scenario_, without_,
                 [this](NodeId node, Request request) { serve(node, std::move(request)); }),
        transactors_(
            world_, scenario_, without_,
            [this](NodeId node, SessionRequest request) { serve(node, std::move(request)); }),
        administrator_(world_, scenario_, checks_, *this),
        random_(world_.random(0xfa1)) {
    for (std::size_t i = 1; i <= scenario.nodes; ++i) {
      auto& node =
          nodes_.emplace_back(std::make_unique<Node>(world_, NodeId{i}, scenario.clocks[i - 1]));
      checks_.know_disk(NodeId{i}, node->machine.disk);
    }
  }
  ~Simulation() {
    for (auto& node : nodes_) {
      if (node->process) node->process->end();
    }
  }
  Simulation(const Simulation&) = delete;
  Simulation& operator=(const Simulation&) = delete;

  [[nodiscard]] Result run();

 private:
  struct Node {
    Node(const World& world, NodeId id, NodeClock clock) : machine(world, id, clock) {}
    Machine machine;
    std::unique_ptr<Process> process;               // null: it is down
    std::vector<std::unique_ptr<Process>> remains;  // events may still point to them
    int held_down = 0;                              // by faults
    int pauses = 0;
  };
  using Links = std::vector<std::pair<NodeId, NodeId>>;
  using Undo = std::function<void()>;

  void play();
  void read_all();
  void read_until_answered(const std::shared_ptr<test::HistoryOperation>& read);
  void check_end();

  // Nodes
  [[nodiscard]] Node& at(NodeId id) { return *nodes_.at(id.value - 1); }
  void deliver(const Packet& packet);
  void serve(NodeId id, Request request);
  void serve(NodeId id, SessionRequest request);
  void connections_broke(NodeId id);
  void note_clocks();
  void start(NodeId id);
  void try_start(NodeId id);
  void end_process(NodeId id);
  void power_cut(NodeId id, std::uint64_t raw);
  void storage_failed(NodeId node) override;
  void turn_ended() override;
  void asked_for_votes(NodeId node) override;
  [[nodiscard]] Process* leading(GroupId group) override;
  [[nodiscard]] Machine& machine(NodeId id) override { return at(id).machine; }
  [[nodiscard]] Process* process(NodeId id) override { return at(id).process.get(); }
  void wipe(NodeId id) override;
  [[nodiscard]] const raft::Raft* leader_of(GroupId group) const;
  [[nodiscard]] NodeId leader() const;
  [[nodiscard]] NodeId pick(Aim aim, std::uint64_t raw) const;
  [[nodiscard]] std::vector<NodeId> others(NodeId id) const;

  // Faults: each begins, and gives what ends it.
  void schedule_faults();
  void schedule_changes();
  void begin(std::size_t number, const Fault& fault);
  void end(std::size_t number);
  [[nodiscard]] Undo inflict(const Fault& fault);
  [[nodiscard]] Undo cut(const Fault& fault, const Links& links);
  [[nodiscard]] Undo cut_for(const Fault& fault, NodeId victim);
  [[nodiscard]] Undo change_links(const Fault& fault, NodeId victim);
  [[nodiscard]] Undo take_down(const Fault& fault, NodeId victim);
  [[nodiscard]] Undo stop_orderly(NodeId victim);
  [[nodiscard]] Undo pause(NodeId victim);
  [[nodiscard]] Undo daze();
  [[nodiscard]] Undo break_disk(const Fault& fault, NodeId victim);
  void flap(const std::shared_ptr<bool>& over, const Fault& fault, NodeId victim, bool cut_now);
  void break_streams(const Links& links);
  void end_stopped(NodeId id, std::uint64_t life, std::uint64_t until_us);
  void calm();

  // Liveness
  void expect_write(const char* when);
  void probe(const std::shared_ptr<bool>& acked, std::uint64_t turn);
  void expect_members();
  void expect_convergence();
  [[nodiscard]] bool converged() const;
  [[nodiscard]] bool converged(GroupId group) const;
  [[nodiscard]] bool minority_may_break() const;
  [[nodiscard]] std::string states() const;
  [[nodiscard]] std::uint64_t patience_us() const {
    return 5 * kSecond + 12 * scenario_.raft.election_timeout_max_ms * kMillisecond;
  }

  Scenario scenario_;
  std::set<std::size_t> without_;
  Trace trace_;
  World world_;
  Checks checks_;
  Network network_;
  Clients clients_;
  Transactors transactors_;
  Administrator administrator_;
  Random random_;
  std::vector<std::unique_ptr<Node>> nodes_;
  std::map<std::size_t, Undo> active_;
  std::vector<std::shared_ptr<Undo>> dazes_;  // that have met nobody yet
  bool is_calm_ = false;
  std::uint64_t probes_ = 0;
  test::History final_reads_;
  test::LeaderTime leader_time_;
};

inline Result run(std::uint64_t seed, const Options& options) {
  Simulation simulation(draw_scenario(seed), options);
  return simulation.run();
}

// ---- The course of a run ------------------------------------------------------------------------------

inline Result Simulation::run() {
  Result result;
  try {
    play();
  } catch (const Violation& violation) {
    result.violation = violation.kind;
    result.detail = violation.what();
    if (world_.tracing()) world_.trace("!", violation.what());
  }
  result.counters = world_.counters();
  result.counters.changing = scenario_.members_change() ? 1 : 0;
  result.counters.simulated_us = world_.now_us();
  result.trace_hash = trace_.hash();
  result.trace_lines = trace_.lines();
  return result;
}

inline void Simulation::play() {
  for (const auto& node : nodes_) {
    world_.after(random_.below(50 * kMillisecond), [this, id = node->machine.id] { start(id); });
  }
  schedule_faults();
  schedule_changes();
  clients_.start();
  transactors_.start();
  note_clocks();
  const auto never = [] { return false; };
  world_.run_until(scenario_.faults_end_us, never);
  calm();
  clients_.stop();
  transactors_.stop();
  expect_write("after all was mended");
  world_.run_until(world_.now_us() + scenario_.client_timeout_us + kSecond,
                   [this] { return clients_.idle() && transactors_.idle(); });
  if (scenario_.members_change()) expect_members();
  if (scenario_.lasting && minority_may_break()) {
    const std::size_t number = scenario_.decisions();
    is_calm_ = false;
    begin(number, *scenario_.lasting);
    expect_write("while a minority is broken");
    world_.run_until(world_.now_us() + 3 * kSecond, never);
    expect_write("while a minority stays broken");
    calm();
  }
  expect_convergence();
  if (scenario_.ends_without_power) {
    Fault fault;
    fault.kind = FaultKind::kPowerCutAll;
    fault.lasts_us = kSecond;
    is_calm_ = false;
    begin(scenario_.decisions() + 1, fault);
    calm();
    expect_convergence();
  }
  read_all();
  check_end();
}

// What was acknowledged is there.
inline void Simulation::read_all() {
  std::vector<std::string> keys;
  for (std::uint64_t key = 0; key < scenario_.keys; ++key)
    keys.push_back("k" + std::to_string(key));
  for (std::uint64_t family = 0; family < scenario_.families; ++family) {
    for (const char name : test::kFamilyKeys) {
      keys.push_back(test::family_key(family_name(family), name));
    }
  }
  for (const std::string& key : keys) {
    const auto read = std::make_shared<test::HistoryOperation>();
    read->key = key;
    read->called = world_.now_us();
    read_until_answered(read);
    world_.run_until(world_.now_us() + patience_us(), [read] { return !read->is_unknown(); });
    must(!read->is_unknown(), "no progress", "a read is not answered");
    final_reads_.push_back(*read);
  }
}

// The weather stays: a few late packets can cost a leader its majority even now.
inline void Simulation::read_until_answered(const std::shared_ptr<test::HistoryOperation>& read) {
  constexpr std::uint64_t kPauseUs = 40 * kMillisecond;
  const auto again = [this, read] {
    world_.after(kPauseUs, [this, read] { read_until_answered(read); });
  };
  const NodeId leading = leader();
  if (leading == NodeId{}) return again();
  SessionRequest request;
  request.client = 1'000'000;
  request.connection = ++probes_;
  request.opens = true;
  request.bytes = test::bytes_of({"GET", read->key});
  request.replies = 1;
  request.answer = [this, read, again](const SessionReply& reply) {
    if (reply.broken || reply.replies[0].kind == resp::Kind::kError) return again();
    must(test::note_answer(reply.replies[0], *read), "reply", "to the last GET");
    read->returned = world_.now_us();
  };
  serve(leading, std::move(request));
}

inline void Simulation::check_end() {
  const test::LinearizabilityChecker checker(20'000'000, leader_time_);
  test::History history = clients_.history();
  const test::History& transactions = transactors_.history();
  history.insert(history.end(), transactions.begin(), transactions.end());
  history.insert(history.end(), final_reads_.begin(), final_reads_.end());
  const test::Verdict verdict = checker.check(history);
  if (verdict.gave_up) ++world_.counters().undecided;
  must(verdict.linearizable, "not linearizable", "key " + verdict.key + "\n" + verdict.story);
}

// ---- Nodes ------------------------------------------------------------------------------------------------

inline void Simulation::deliver(const Packet& packet) {
  Node& node = at(packet.to);
  if (node.process) node.process->receive(packet);
}

inline void Simulation::serve(NodeId id, Request request) {
  Node& node = at(id);
  if (node.process) return node.process->serve(std::move(request));
  // Nobody listens: the connection is refused, and nothing was done.
  Reply refused;
  refused.kind = Reply::Kind::kRefused;
  request.answer(refused);
}

inline void Simulation::serve(NodeId id, SessionRequest request) {
  Node& node = at(id);
  if (node.process) return node.process->serve(std::move(request));
  SessionReply broken;
  broken.broken = true;
  request.answer(broken);
}

inline void Simulation::connections_broke(NodeId id) {
  clients_.connections_broke(id);
  transactors_.connections_broke(id);
}

// What leaders' clocks may show from now on; a stamp is in whole milliseconds.
inline void Simulation::note_clocks() {
  std::int64_t behind_ms = nodes_.front()->machine.clock.parts().wall_offset_ms;
  std::int64_t ahead_ms = behind_ms;
  std::int64_t slow_ppm = 0;
  std::int64_t fast_ppm = 0;
  for (const auto& node : nodes_) {
    const NodeClock& clock = node->machine.clock.parts();
    behind_ms = std::min(behind_ms, clock.wall_offset_ms);
    ahead_ms = std::max(ahead_ms, clock.wall_offset_ms);
    slow_ppm = std::max(slow_ppm, -clock.drift_ppm);
    fast_ppm = std::max(fast_ppm, clock.drift_ppm);
  }
  constexpr auto kUnit = static_cast<std::int64_t>(kMillisecond);
  leader_time_.allow(world_.now_us(), (behind_ms - 2) * kUnit, (ahead_ms + 2) * kUnit);
  leader_time_.allow_drift(slow_ppm, fast_ppm);
}

inline void Simulation::start(NodeId id) {
  Node& node = at(id);
  ProcessHost& host = *this;
  node.process =
      std::make_unique<Process>(world_, scenario_, node.machine, network_, checks_, host);
  node.process->start();
  if (node.machine.lives > 1) ++world_.counters().restarts;
}

// As soon as nothing holds it down, its disk answers and takes what it writes.
inline void Simulation::try_start(NodeId id) {
  world_.after(random_.scattered(500, 30 * kMillisecond), [this, id] {
    Node& node = at(id);
    if (node.held_down > 0 || node.process) return;
    if (node.machine.disk.full > 0) {
      return world_.after(500 * kMillisecond, [this, id] { try_start(id); });
    }
    node.machine.disk.when_moving([this, id] {
      Node& moving = at(id);
      if (moving.held_down == 0 && !moving.process) start(id);
    });
  });
}

inline void Simulation::end_process(NodeId id) {
  Node& node = at(id);
  if (!node.process) return;
  if (world_.tracing()) world_.trace("n" + std::to_string(id.value), "ends");
  node.process->end();
  node.remains.push_back(std::move(node.process));
  node.pauses = 0;
  node.machine.disk.forget_applied();
  checks_.ended(id);
  if (node.machine.disk.pages_lost) power_cut(id, random_.next());
}

inline void Simulation::power_cut(NodeId id, std::uint64_t raw) {
  Disk& disk = at(id).machine.disk;
  const std::size_t unsynced = disk.unsynced();
  const std::size_t kept = raw % 3 == 0 ? 0 : raw % 3 == 1 ? unsynced : (raw >> 8) % (unsynced + 1);
  if (world_.tracing()) {
    world_.trace("n" + std::to_string(id.value), "disk keeps " + std::to_string(kept) + " of " +
                                                     std::to_string(unsynced) + " unsynced writes");
  }
  disk.cut_power(kept);
}

// It ends by itself, and somebody starts it again.
inline void Simulation::storage_failed(NodeId id) {
  const std::uint64_t life = at(id).machine.lives;
  world_.after(random_.scattered(kMillisecond, 50 * kMillisecond), [this, id, life] {
    if (!at(id).process || at(id).machine.lives != life) return;
    end_process(id);
    connections_broke(id);
    world_.after(random_.scattered(10 * kMillisecond, 2 * kSecond), [this, id] { try_start(id); });
  });
}

inline void Simulation::turn_ended() {
  for (const GroupId group : kGroups) {
    std::vector<Checks::Lease> held;
    for (const auto& node : nodes_) {
      if (!node->process) continue;
      if (const auto lease = node->process->lease(group)) held.push_back(*lease);
    }
    checks_.leases(group, held);
  }
}

inline const raft::Raft* Simulation::leader_of(GroupId group) const {
  const raft::Raft* best = nullptr;
  for (const auto& node : nodes_) {
    if (!node->process) continue;
    const raft::Raft& raft = node->process->replica(group).raft();
    if (!raft.is_leader()) continue;
    if (best == nullptr || raft.current_term() > best->current_term()) best = &raft;
  }
  return best;
}

inline NodeId Simulation::leader() const {
  const raft::Raft* leading = leader_of(kFirstDataGroup);
  return leading == nullptr ? NodeId{} : leading->id();
}

inline Process* Simulation::leading(GroupId group) {
  const raft::Raft* leading = leader_of(group);
  return leading == nullptr ? nullptr : process(leading->id());
}

// The machine is set up anew, with nothing on its disk.
inline void Simulation::wipe(NodeId id) {
  if (world_.tracing()) world_.trace("n" + std::to_string(id.value), "loses its disk");
  Machine& wiped = at(id).machine;
  end_process(id);
  checks_.wiped(id);
  wiped.disk.wipe();
  wiped.snapshots.clear();
  ++wiped.wipes;
  ++world_.counters().wipes;
  connections_broke(id);
  Links links;
  for (const NodeId peer : others(id)) links.emplace_back(id, peer);
  break_streams(links);
  try_start(id);
}

inline NodeId Simulation::pick(Aim aim, std::uint64_t raw) const {
  const NodeId any{1 + raw % scenario_.nodes};
  const NodeId leading = leader();
  if (aim == Aim::kAnyone || leading == NodeId{}) return any;
  if (aim == Aim::kLeader) return leading;
  return any == leading ? NodeId{1 + any.value % scenario_.nodes} : any;
}

inline std::vector<NodeId> Simulation::others(NodeId id) const {
  std::vector<NodeId> others;
  for (const auto& node : nodes_) {
    if (node->machine.id != id) others.push_back(node->machine.id);
  }
  return others;
}

// ---- Faults -----------------------------------------------------------------------------------------------

inline void Simulation::schedule_faults() {
  for (std::size_t i = 0; i < scenario_.faults.size(); ++i) {
    if (without_.contains(i)) continue;
    world_.at(scenario_.faults[i].at_us, [this, i] { begin(i, scenario_.faults[i]); });
  }
}

inline void Simulation::schedule_changes() {
  if (!scenario_.members_change()) return;
  administrator_.start();
  for (std::size_t i = 0; i < scenario_.changes.size(); ++i) {
    if (without_.contains(scenario_.first_change() + i)) continue;
    world_.at(scenario_.changes[i].at_us, [this, i] {
      if (!is_calm_) administrator_.begin(scenario_.changes[i]);
    });
  }
}

inline void Simulation::begin(std::size_t number, const Fault& fault) {
  if (is_calm_) return;
  ++world_.counters().faults;
  if (world_.tracing()) {
    world_.trace("fault", "#" + std::to_string(number) + " begins: " + describe(fault));
  }
  Undo undo = inflict(fault);
  if (!undo) return;
  active_[number] = std::move(undo);
  world_.after(fault.lasts_us, [this, number] { end(number); });
}

inline void Simulation::end(std::size_t number) {
  const auto found = active_.find(number);
  if (found == active_.end()) return;
  if (world_.tracing()) world_.trace("fault", "#" + std::to_string(number) + " ends");
  const Undo undo = std::move(found->second);
  active_.erase(found);
  undo();
}

inline void Simulation::calm() {
  is_calm_ = true;
  if (world_.tracing()) world_.trace("fault", "all is mended");
  while (!active_.empty()) end(active_.begin()->first);
  for (const auto& node : nodes_) {
    node->machine.disk.sync_fails = false;
    node->machine.disk.write_fails = false;
  }
}

inline Simulation::Undo Simulation::inflict(const Fault& fault) {
  const NodeId victim = pick(fault.aim, fault.raw);
  switch (fault.kind) {
    case FaultKind::kIsolate:
    case FaultKind::kDeaf:
    case FaultKind::kMute:
    case FaultKind::kCutPair:
    case FaultKind::kOneWay:
    case FaultKind::kSplit:
      return cut_for(fault, victim);
    case FaultKind::kFlap:
    case FaultKind::kLossy:
    case FaultKind::kSlowNetwork:
    case FaultKind::kBreakStream:
    case FaultKind::kClientsCut:
      return change_links(fault, victim);
    case FaultKind::kKill:
    case FaultKind::kPowerCut:
    case FaultKind::kPowerCutAll:
      return take_down(fault, victim);
    case FaultKind::kRestart:
      return stop_orderly(victim);
    case FaultKind::kPause:
      return pause(victim);
    case FaultKind::kDazed:
      return daze();
    case FaultKind::kSlowDisk:
    case FaultKind::kFrozenDisk:
    case FaultKind::kSyncFails:
    case FaultKind::kWriteFails:
    case FaultKind::kFullDisk:
      return break_disk(fault, victim);
    case FaultKind::kTransfer:
      if (at(victim).process) at(victim).process->transfer_leadership();
      return {};
    case FaultKind::kWallClock:
      at(victim).machine.clock.jump_wall(static_cast<std::int64_t>(fault.raw >> 8) %
                                             (2 * scenario_.max_wall_jump_ms) -
                                         scenario_.max_wall_jump_ms);
      note_clocks();
      return {};
  }
  return {};
}

// ---- ... of the network

inline Simulation::Undo Simulation::cut_for(const Fault& fault, NodeId victim) {
  Links links;
  const std::vector<NodeId> rest = others(victim);
  const NodeId other = rest[(fault.raw >> 16) % rest.size()];
  const bool out = fault.kind == FaultKind::kIsolate || fault.kind == FaultKind::kMute;
  const bool in = fault.kind == FaultKind::kIsolate || fault.kind == FaultKind::kDeaf;
  for (const NodeId peer : rest) {
    if (out) links.emplace_back(victim, peer);
    if (in) links.emplace_back(peer, victim);
  }
  if (fault.kind == FaultKind::kOneWay || fault.kind == FaultKind::kCutPair) {
    const bool reversed = fault.kind == FaultKind::kOneWay && (fault.raw >> 8) % 2 == 0;
    links.emplace_back(reversed ? other : victim, reversed ? victim : other);
  }
  if (fault.kind == FaultKind::kCutPair) links.emplace_back(other, victim);
  if (fault.kind == FaultKind::kSplit) {
    for (const auto& a : nodes_) {
      for (const NodeId b : others(a->machine.id)) {
        const bool apart =
            ((fault.raw >> (8 + a->machine.id.value)) ^ (fault.raw >> (8 + b.value))) & 1;
        if (apart) links.emplace_back(a->machine.id, b);
      }
    }
  }
  return cut(fault, links);
}

inline Simulation::Undo Simulation::cut(const Fault& fault, const Links& links) {
  for (const auto& [from, to] : links) network_.cut(from, to);
  if (fault.resets) break_streams(links);
  return [this, links] {
    for (const auto& [from, to] : links) network_.mend(from, to);
  };
}

inline void Simulation::break_streams(const Links& links) {
  for (const auto& [from, to] : links) {
    world_.after(random_.scattered(100, 20 * kMillisecond), [this, from = from, to = to] {
      if (at(from).process) at(from).process->break_stream(to);
      if (at(to).process) at(to).process->break_stream(from);
    });
  }
}

inline Simulation::Undo Simulation::change_links(const Fault& fault, NodeId victim) {
  if (fault.kind == FaultKind::kClientsCut) {
    const auto cut = [this, victim](int change) {
      clients_.cut(victim, change);
      transactors_.cut(victim, change);
    };
    cut(1);
    return [cut] { cut(-1); };
  }
  if (fault.kind == FaultKind::kFlap) {
    const auto over = std::make_shared<bool>(false);
    flap(over, fault, victim, false);
    return [over] { *over = true; };
  }
  Links links;
  for (const NodeId peer : others(victim)) {
    links.emplace_back(victim, peer);
    links.emplace_back(peer, victim);
  }
  if (fault.kind == FaultKind::kBreakStream) {
    links.resize(1 + (fault.raw >> 8) % links.size());
    break_streams(links);
    return {};
  }
  const auto change = [this, links, lossy = fault.kind == FaultKind::kLossy](int by) {
    for (const auto& [from, to] : links) {
      lossy ? network_.lossy(from, to, by) : network_.slow(from, to, by);
    }
  };
  change(1);
  return [change] { change(-1); };
}

// On and off, each for a while.
inline void Simulation::flap(const std::shared_ptr<bool>& over, const Fault& fault, NodeId victim,
                             bool cut_now) {
  for (const NodeId peer : others(victim)) {
    if (cut_now) {
      network_.mend(victim, peer);
      network_.mend(peer, victim);
    } else if (!*over) {
      network_.cut(victim, peer);
      network_.cut(peer, victim);
    }
  }
  if (*over) return;
  world_.after(random_.scattered(20 * kMillisecond, kSecond),
               [this, over, fault, victim, cut_now] { flap(over, fault, victim, !cut_now); });
}

// ---- ... of processes and machines

inline Simulation::Undo Simulation::take_down(const Fault& fault, NodeId victim) {
  std::vector<NodeId> victims = {victim};
  if (fault.kind == FaultKind::kPowerCutAll) {
    const std::vector<NodeId> rest = others(victim);
    victims.insert(victims.end(), rest.begin(), rest.end());
  }
  for (const NodeId id : victims) {
    ++at(id).held_down;
    const bool ran = at(id).process != nullptr;
    end_process(id);
    if (fault.kind != FaultKind::kKill) power_cut(id, fault.raw >> id.value);
    // The kernel of a killed process says so to everyone; a machine without power says nothing.
    if (!ran || fault.kind != FaultKind::kKill) continue;
    connections_broke(id);
    Links links;
    for (const NodeId peer : others(id)) links.emplace_back(id, peer);
    break_streams(links);
  }
  return [this, victims] {
    for (const NodeId id : victims) {
      if (--at(id).held_down == 0) try_start(id);
    }
  };
}

// As on SIGTERM: it hands over, finishes, writes everything out.
inline Simulation::Undo Simulation::stop_orderly(NodeId victim) {
  Node& node = at(victim);
  if (!node.process) return {};
  ++node.held_down;
  node.process->begin_stop();
  end_stopped(victim, node.machine.lives, world_.now_us() + 3 * kSecond);
  return [this, victim] {
    if (--at(victim).held_down == 0) try_start(victim);
  };
}

inline void Simulation::end_stopped(NodeId id, std::uint64_t life, std::uint64_t until_us) {
  Node& node = at(id);
  if (!node.process || node.machine.lives != life) return;
  if (!node.process->may_stop() && world_.now_us() < until_us) {
    return world_.after(20 * kMillisecond,
                        [this, id, life, until_us] { end_stopped(id, life, until_us); });
  }
  end_process(id);
  connections_broke(id);
  Links links;
  for (const NodeId peer : others(id)) links.emplace_back(id, peer);
  break_streams(links);
  if (node.held_down == 0) try_start(id);
}

inline Simulation::Undo Simulation::pause(NodeId victim) {
  Node& node = at(victim);
  if (!node.process) return {};
  ++node.pauses;
  node.process->pause();
  return [this, victim, life = node.machine.lives] {
    Node& paused = at(victim);
    if (!paused.process || paused.machine.lives != life) return;
    if (--paused.pauses == 0) paused.process->resume();
  };
}

inline Simulation::Undo Simulation::daze() {
  const auto dazed = std::make_shared<Undo>();
  dazes_.push_back(dazed);
  return [this, dazed] {
    std::erase(dazes_, dazed);
    if (*dazed) (*dazed)();
  };
}

inline void Simulation::asked_for_votes(NodeId node) {
  if (dazes_.empty()) return;
  *dazes_.back() = pause(node);
  dazes_.pop_back();
}

// ---- ... of disks

inline Simulation::Undo Simulation::break_disk(const Fault& fault, NodeId victim) {
  Disk& disk = at(victim).machine.disk;
  switch (fault.kind) {
    case FaultKind::kSlowDisk:
      ++disk.slow;
      return [&disk] { --disk.slow; };
    case FaultKind::kFrozenDisk:
      disk.freeze();
      return [&disk] { disk.thaw(); };
    case FaultKind::kFullDisk:
      ++disk.full;
      return [&disk] { --disk.full; };
    case FaultKind::kSyncFails:
      disk.sync_fails = true;
      return {};
    default:
      disk.write_fails = true;
      return {};
  }
}

// ---- Liveness -----------------------------------------------------------------------------------------------

inline void Simulation::expect_write(const char* when) {
  const auto acked = std::make_shared<bool>(false);
  probe(acked, ++probes_ * 1000);
  world_.run_until(world_.now_us() + patience_us(), [acked] { return *acked; });
  must(*acked, "no progress",
       std::string("no write committed within ") + std::to_string(patience_us() / kMillisecond) +
           " ms " + when);
}

// Asks node after node.
inline void Simulation::probe(const std::shared_ptr<bool>& acked, std::uint64_t turn) {
  if (*acked) return;
  const NodeId node{1 + turn % scenario_.nodes};
  Request request;
  request.action = ClientAction::kSet;
  request.key = "probe";
  request.value = "p" + std::to_string(turn);
  request.connection = turn;
  request.answer = [acked](const Reply& reply) {
    *acked = *acked || reply.kind == Reply::Kind::kDone;
  };
  serve(node, std::move(request));
  world_.after(40 * kMillisecond, [this, acked, turn] { probe(acked, turn + 1); });
}

// Faults are over, so that what is wanted has to come about, and each member to catch up.
inline void Simulation::expect_members() {
  world_.run_until(world_.now_us() + 4 * patience_us(), [this] { return administrator_.done(); });
  must(administrator_.done(), "no progress", [this] {
    return "the members are not those wanted" + states() + "\n  " + administrator_.tell();
  });
  expect_convergence();
}

// Of fewer than three voters none can be spared.
inline bool Simulation::minority_may_break() const {
  for (const GroupId group : kGroups) {
    const raft::Configuration& members = checks_.members(group);
    if (members.is_joint() || members.voters.size() < 3) return false;
  }
  return true;
}

inline bool Simulation::converged() const {
  return converged(kSystemGroup) && converged(kFirstDataGroup);
}

inline bool Simulation::converged(GroupId group) const {
  const raft::Raft* leading = leader_of(group);
  if (leading == nullptr || leading->configuration().is_joint()) return false;
  for (const auto& node : nodes_) {
    if (!leading->configuration().has(node->machine.id)) continue;
    if (!node->process) return false;
    const raft::Raft& raft = node->process->replica(group).raft();
    if (raft.last_applied() != leading->last_applied() || raft.leader() != leading->id() ||
        raft.is_installing() || raft.last_applied() != raft.log().last_index()) {
      return false;
    }
  }
  return true;
}

inline void Simulation::expect_convergence() {
  world_.run_until(world_.now_us() + patience_us() + 5 * kSecond, [this] { return converged(); });
  must(converged(), "no progress",
       [this] { return "the nodes do not come to the same state" + states(); });
}

inline std::string Simulation::states() const {
  std::string states;
  for (const auto& node : nodes_) {
    states += "\n  n" + std::to_string(node->machine.id.value) + " ";
    if (!node->process) states += "down";
    for (const GroupId group : kGroups) {
      if (node->process)
        states += "\n      " + describe_state(node->process->replica(group).raft());
    }
  }
  return states;
}

}  // namespace seshat::sim

#endif  // SESHAT_TESTS_SIM_SIMULATION_HPP
