// One life of a node's process: what node.hpp does, over the simulated disk, network and clock.
//
//   Machine   clock and disk; survives its processes
//   Process   the real Replicas, state machines and Membership of one life, driven by a loop
//             that takes what gathered in its mailbox, then lets it all out (end of turn)
//
// node.hpp itself needs RocksDB and gRPC; what it adds to the replicas (turns, system records,
// handshakes, who may vote, failure) is done here in the same way.
#ifndef SESHAT_TESTS_SIM_PROCESS_HPP
#define SESHAT_TESTS_SIM_PROCESS_HPP

#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "seshat/codec.hpp"
#include "seshat/expiry.hpp"
#include "seshat/kv.hpp"
#include "seshat/leader_clock.hpp"
#include "seshat/membership.hpp"
#include "seshat/replica.hpp"
#include "seshat/state_machine.hpp"
#include "sim/checks.hpp"
#include "sim/disk.hpp"
#include "sim/network.hpp"
#include "sim/scenario.hpp"
#include "sim/sessions.hpp"
#include "sim/trace.hpp"
#include "sim/transfers.hpp"
#include "sim/world.hpp"

namespace seshat::sim {

inline constexpr GroupId kGroups[] = {kSystemGroup, kFirstDataGroup};

// ---- What outlives a process ----------------------------------------------------------------------------

// A clock with a rate of its own, that goes on whatever happens to the process.
class MachineClock final : public Clock {
 public:
  MachineClock(const World& world, NodeClock clock) : world_(world), clock_(clock) {}
  [[nodiscard]] std::uint64_t now_us() const {
    const auto now = static_cast<std::int64_t>(world_.now_us());
    return clock_.boot_ms * kMillisecond +
           static_cast<std::uint64_t>(now + now / 1000 * clock_.drift_ppm / 1000);
  }
  [[nodiscard]] std::uint64_t now_ms() const override { return now_us() / kMillisecond; }
  // How long `local_us` of this clock take.
  [[nodiscard]] std::uint64_t real_us(std::uint64_t local_us) const {
    return local_us * 1'000'000 / static_cast<std::uint64_t>(1'000'000 + clock_.drift_ppm);
  }
  // The time of day, since 1970.
  [[nodiscard]] std::uint64_t wall_ms() const {
    constexpr std::int64_t kEpochMs = 1'700'000'000'000;
    return static_cast<std::uint64_t>(kEpochMs +
                                      static_cast<std::int64_t>(world_.now_us() / kMillisecond) +
                                      clock_.wall_offset_ms);
  }
  void jump_wall(std::int64_t ms) { clock_.wall_offset_ms += ms; }
  [[nodiscard]] const NodeClock& parts() const { return clock_; }

 private:
  const World& world_;
  NodeClock clock_;
};

struct Machine {
  Machine(const World& world, NodeId of, NodeClock machine_clock)
      : id(of), clock(world, machine_clock) {
    Mutation empty;  // families of all groups
    for (const GroupId group : kGroups) empty.log.push_back({group, {}});
    disk.write(std::move(empty));
    disk.sync(1);
  }
  NodeId id;
  MachineClock clock;
  Disk disk;
  std::map<GroupId, SnapshotPtr> snapshots;  // taken here, each complete and durable
  std::uint64_t lives = 0;
  std::uint64_t wipes = 0;

  [[nodiscard]] std::uint64_t incarnation(std::uint64_t seed) const {
    return mix(seed ^ id.value ^ wipes << 32) | 1;
  }
};

// ---- What clients get -------------------------------------------------------------------------------------

struct Reply {
  enum class Kind : std::uint8_t {
    kDone,     // the operation took effect; `value`, `found`, `count` say what it found
    kRefused,  // certainly without effect: try elsewhere, perhaps at `leader`
    kUnknown,  // it may or may not take effect
  };
  Kind kind = Kind::kUnknown;
  std::optional<std::string> value;
  std::int64_t count = 0;
  NodeId leader;
};

struct Request {
  ClientAction action = ClientAction::kGet;
  std::string key;
  std::string value;
  std::uint64_t connection = 0;
  std::function<void(const Reply&)> answer;  // called once at most
};

// What a process tells those who watch it.
class ProcessHost {
 public:
  virtual void storage_failed(NodeId node) = 0;  // it must end
  virtual void turn_ended() = 0;
  virtual void asked_for_votes(NodeId node) = 0;  // of clients' data; pre-votes are none

 protected:
  ~ProcessHost() = default;
};

// ---- A process ----------------------------------------------------------------------------------------------

class Process final : private StorageEvents,
                      private Transport,
                      private SnapshotSender,
                      private TransferHost,
                      private LeadershipObserver,
                      private SessionHost {
 public:
  Process(World& world, const Scenario& scenario, Machine& machine, Network& network,
          Checks& checks, ProcessHost& host);

  void start();

  // ---- from outside
  void receive(const Packet& packet);
  void serve(Request request);
  void serve(SessionRequest request);
  void break_stream(NodeId peer);  // the stream to it, or from it, has ended
  void transfer_leadership();
  // Of those that a leader may be asked for; it is refused in silence.
  void change_members(GroupId group, std::vector<NodeId> voters, std::vector<NodeId> learners,
                      std::function<bool()> wanted);
  // As system leader: that a node that was removed comes back with another disk.
  void admit(NodeId node, std::uint64_t incarnation, MemberState state);
  [[nodiscard]] bool admits(NodeId node, std::uint64_t incarnation,
                            std::optional<MemberState> state = std::nullopt) const;
  [[nodiscard]] bool is_active() const {
    return admits(machine_.id, machine_.incarnation(scenario_.seed), MemberState::kActive);
  }
  void begin_stop() {
    post([this] { stopping_ = true; });
  }
  [[nodiscard]] bool may_stop() const;
  void pause() { life_->pause(); }
  void resume() { life_->resume(); }
  [[nodiscard]] bool paused() const { return life_->paused(); }
  // Nothing of it happens any more.
  void end() { life_->end(); }

  // ---- for the checks
  [[nodiscard]] NodeId id() const { return machine_.id; }
  [[nodiscard]] const Replica& replica(GroupId group) const { return *groups_.at(group).replica; }
  [[nodiscard]] std::optional<Checks::Lease> lease(GroupId group) const;
  [[nodiscard]] bool failed() const { return failed_; }
  [[nodiscard]] std::uint64_t state_hash(GroupId group) const {
    return hash_of(machine_.disk.written().groups.at(group).records);
  }

 private:
  static constexpr std::size_t kMaxMailbox = 4096;
  static constexpr std::uint64_t kDialMinMs = 100;
  static constexpr std::uint64_t kDialMaxMs = 1000;
  static constexpr std::uint64_t kStatusIntervalMs = 1000;
  static constexpr std::uint64_t kLivenessMs = 3000;

  struct Group {
    std::unique_ptr<StateMachine> machine;
    std::unique_ptr<Replica> replica;
    // Check quorum (thesis 6.2): when this life began to lead, and when each peer last answered.
    Term leads_in;
    std::uint64_t leads_since_tick = 0;
    std::map<NodeId, std::uint64_t> answered_at_tick;
    Index members_since;
    // When each round left, and of the latest that a peer answered, when it left.
    std::map<std::uint64_t, std::uint64_t> round_sent_us;
    std::map<NodeId, std::uint64_t> answered_sent_us;
  };
  struct Peer {
    bool up = false;                  // our stream to it was accepted
    std::uint64_t accepted_life = 0;  // whose frames we take in
    std::uint64_t heard_at_ms = 0;
    std::uint64_t dial_at_ms = 0;
    std::uint64_t dial_delay_ms = kDialMinMs;
    std::vector<PeerMessage> outbox;
  };
  // What the checks want to know of a request when its answer comes.
  struct Asked {
    std::uint64_t came_us = 0;
    bool leased = false;  // when it came
    Index committed;      // anywhere, when it came
    Index members_since;  // when it came
    Index index;          // of a write
    std::string proposed;
  };
  // A client's request that waits. As connection.hpp's.
  struct Pending final : Waiter, Asked {
    Pending(Process& of, Request what) : process(of), request(std::move(what)) {}
    void done(const Outcome& outcome) override { process.answer(*this, outcome); }
    void readable() override {
      process.check_read_round(*this);
      process.answer_read(*this);
    }
    void failed(Refusal refusal) override { process.refuse(*this, refusal); }
    Process& process;
    Request request;
    bool answered = false;
  };
  // A Waiter of a client's connection, with the checks before it.
  struct Watched final : Waiter, Asked {
    Watched(Process& of, Waiter& whose) : process(of), waiter(whose) {}
    void done(const Outcome& outcome) override {
      process.checks_.answered(process.machine_.id, kFirstDataGroup, index, proposed);
      heard = true;
      waiter.done(outcome);
    }
    void readable() override {
      process.check_read_round(*this);
      process.check_fresh(*this);
      heard = true;
      waiter.readable();
    }
    void failed(Refusal refusal) override {
      heard = true;
      waiter.failed(refusal);
    }
    Process& process;
    Waiter& waiter;
    bool heard = false;
  };
  // The rows as the loop sees them: now and then one is not in memory.
  class CachedRows final : public OrderedMap {
   public:
    CachedRows(const Storage& storage, Random random) : storage_(storage), random_(random) {}
    [[nodiscard]] Lookup get(std::string_view key, std::string& value) const override {
      if (random_.chance(150)) return Lookup::kNotInMemory;
      return storage_.map(kFirstDataGroup).get(key, value);
    }

   private:
    const Storage& storage_;
    mutable Random random_;
  };
  class SystemProposal final : public Waiter {
   public:
    void done(const Outcome&) override { under_way = false; }
    void readable() override {}
    void failed(Refusal) override { under_way = false; }
    bool under_way = false;
  };

  [[nodiscard]] raft::Config raft_config(GroupId group) const;
  [[nodiscard]] std::string name() const { return "n" + std::to_string(machine_.id.value); }
  void trace(const std::string& what) {
    if (world_.tracing()) world_.trace(name(), what);
  }

  // The loop
  void after(std::uint64_t delay_us, std::function<void()> work) {
    world_.after(delay_us, [life = life_, work = std::move(work)] { life->run(work); });
  }
  void post(std::function<void()> work);
  void wake();
  void drain();
  void end_turn();
  [[nodiscard]] std::uint64_t tick_interval_ms() const;
  void schedule_tick(std::uint64_t since_tick_ms);
  [[nodiscard]] bool is_calm() const { return tick_interval_ms_ > scenario_.raft.tick_interval_ms; }
  void tick();
  void check();
  void check_quorum(GroupId id, Group& group);
  template <class Answered>
  [[nodiscard]] bool majority_answered(const raft::Raft& raft, Answered answered) const;

  // StorageEvents: on its threads
  void on_synced(GroupId group, std::uint64_t write_id) override;
  void on_applied(GroupId group, Index last, std::vector<Outcome> outcomes) override;
  void on_fetched(GroupId group, NodeId peer, Term prev_log_term,
                  std::vector<raft::Entry> entries) override;
  void on_storage_failed(const std::string& what) override;
  void on_log_cut(GroupId group, Index first_index) override;
  void on_snapshot_built(GroupId group, NodeId peer, SnapshotPtr image) override;
  void on_installed(GroupId group) override;
  void on_state_written(GroupId group, Index applied, std::uint64_t hash) override {
    checks_.state_written(machine_.id, group, applied, hash);
  }

  // Peers
  void send(GroupId group, raft::Message message) override;
  void flush();
  void dial(std::uint64_t now_ms);
  void handle_frame(const Packet& packet);
  void note_answer(Group& group, NodeId peer, const raft::Message& message);
  void handle_hello(const Packet& packet);
  void handle_hello_reply(const Packet& packet);
  void down(NodeId peer);
  [[nodiscard]] Hello own_hello() const;
  void send_frame(NodeId to, Frame frame);

  // The cluster
  void send_snapshot(GroupId group, NodeId peer) override { transfers_.send(group, peer); }
  Replica& replica_of(GroupId group) override { return *groups_.at(group).replica; }
  void send_piece(NodeId to, SnapshotPiece piece) override;
  void later(std::uint64_t delay_us, std::function<void()> work) override {
    after(delay_us, [this, work = std::move(work)] { post(work); });
  }
  void cut_logs();
  void leadership_changed(GroupId group) override;
  void read_system_records();
  void propose_system_records();
  void refresh_self();

  // Clients
  void execute(Request request);
  void answer(Pending& pending, const Outcome& outcome);
  void answer_read(Pending& pending);
  void check_read_round(const Asked& asked) const;
  void check_fresh(const Asked& asked) const;
  void note_state(Asked& asked) const;
  void refuse(Pending& pending, Refusal refusal);
  void finish(Pending& pending, const Reply& reply);
  [[nodiscard]] std::string stamped(GroupId group, Operation operation);
  [[nodiscard]] std::uint64_t leader_time_ms() const;
  void remove_expired();
  void propose_removal(const ExpiryScan& scan, const ExpiredKeys& found);

  // SessionHost
  Index propose_for_client(Operation operation, Waiter& waiter) override;
  [[nodiscard]] bool readable_for_client(Index after) const override;
  void read_for_client(Index after, Waiter& waiter) override;
  [[nodiscard]] const OrderedMap& rows() const override { return rows_; }
  [[nodiscard]] ReadTimes read_times() const override;
  void on_pool(std::function<void(const OrderedMap&)> work) override {
    storage_.read_disk(kFirstDataGroup, std::move(work));
  }
  void post_work(std::function<void()> work) override { post(std::move(work)); }
  [[nodiscard]] NodeId known_leader() const override {
    const NodeId leader = replica(kFirstDataGroup).raft().leader();
    return leader == machine_.id ? NodeId{} : leader;
  }

  [[nodiscard]] Index propose(GroupId group, const std::string& bytes, Waiter& waiter);

  World& world_;
  const Scenario& scenario_;
  Machine& machine_;
  Network& network_;
  Checks& checks_;
  ProcessHost& host_;
  std::uint64_t number_;  // of this life
  LifePtr life_ = std::make_shared<Life>();
  Random random_;
  Random gathering_;
  Storage storage_;
  Transfers transfers_;
  Membership membership_;
  std::map<GroupId, Group> groups_;
  std::map<NodeId, Peer> peers_;
  std::vector<std::function<void()>> mailbox_;
  bool awake_ = false;
  bool tick_waits_ = false;
  std::uint64_t timer_ = 0;  // the number of the one that counts
  std::uint64_t tick_interval_ms_ = 0;
  std::uint64_t ticked_at_ms_ = 0;
  std::uint64_t ticks_ = 0;
  std::list<Pending> pending_;
  std::map<std::uint64_t, Index> last_writes_;  // of each connection
  SystemProposal system_proposal_;
  bool shard_map_recorded_ = false;
  bool has_voted_ = false;
  bool may_vote_ = false;
  bool stopping_ = false;
  bool failed_ = false;
  std::uint64_t next_status_ms_ = 0;
  std::uint64_t last_stamp_ms_ = 0;  // of the system group
  KeyValueMachine* key_values_ = nullptr;
  mutable LeaderClock leader_clock_;
  Expiry expiry_;
  CachedRows rows_;
  Sessions sessions_;
  std::list<Watched> watched_;
};

// ---- Start

namespace process_detail {

inline Membership make_membership(const Machine& machine, std::size_t nodes, std::uint64_t seed) {
  Membership::Self self;
  self.id = machine.id;
  self.incarnation = machine.incarnation(seed);
  self.client_addr = "client" + std::to_string(machine.id.value) + ":6379";
  self.new_at_start = true;
  for (const auto& [id, group] : machine.disk.written().groups) {
    const bool nothing = group.last_index() == Index{} && group.hard_state == raft::HardState{};
    self.new_at_start = self.new_at_start && nothing;
  }
  std::map<NodeId, std::string> addresses;
  for (std::size_t node = 1; node <= nodes; ++node) {
    addresses[NodeId{node}] = "node" + std::to_string(node) + ":7379";
  }
  return Membership(std::move(self), std::move(addresses));
}

}  // namespace process_detail

// What a start finds is made durable before anything is promised on it, as RocksDB's recovery does.
inline Process::Process(World& world, const Scenario& scenario, Machine& machine, Network& network,
                        Checks& checks, ProcessHost& host)
    : world_(world),
      scenario_(scenario),
      machine_(machine),
      network_(network),
      checks_(checks),
      host_(host),
      number_(++machine.lives),
      random_(world.random(0x9a0c355 + machine.id.value * 1000 + number_)),
      gathering_(random_.fork(4)),
      storage_(world, scenario, machine.disk, life_, random_.fork(1), *this),
      transfers_(scenario, machine.id, random_.fork(2), storage_, checks, machine.snapshots, *this),
      membership_(process_detail::make_membership(machine, scenario.nodes, scenario.seed)),
      leader_clock_([&machine] { return machine.clock.wall_ms(); }),
      rows_(storage_, random_.fork(3)),
      sessions_(world, *this) {
  machine_.disk.sync(machine_.disk.last_write());
  for (std::size_t node = 1; node <= scenario.nodes; ++node) {
    if (NodeId{node} != machine.id) peers_[NodeId{node}] = {};
  }
  auto system_machine = std::make_unique<SystemMachine>();
  const SystemMachine& system = *system_machine;
  groups_[kSystemGroup].machine = std::move(system_machine);
  auto key_values = std::make_unique<KeyValueMachine>(&kv::apply_command);
  key_values_ = key_values.get();
  groups_[kFirstDataGroup].machine = std::move(key_values);
  const Replica::Environment environment{machine_.clock, storage_, *this, storage_, *this, *this};
  for (auto& [id, group] : groups_) {
    raft::Restored restored = storage_.restore(id, *group.machine);
    checks_.state_written(machine_.id, id, restored.applied_index, state_hash(id));
    group.replica = std::make_unique<Replica>(id, raft_config(id), std::move(restored),
                                              scenario.request_timeout_ms, environment);
  }
  if (system.restored_membership()) membership_.set_record(*system.restored_membership());
  shard_map_recorded_ = system.restored_shard_map().has_value();
}

inline void Process::start() {
  for (auto& [id, group] : groups_) {
    checks_.started(machine_.id, id, group.replica->raft());
    if (!world_.tracing()) continue;
    const raft::Raft& raft = group.replica->raft();
    trace("starts, group " + std::to_string(id.value) + ": " + describe_state(raft));
  }
  refresh_self();
  schedule_tick(0);
  wake();
}

inline raft::Config Process::raft_config(GroupId group) const {
  raft::Config config = scenario_.raft;
  config.id = machine_.id;
  // Who is no founder, or has lost its disk, joins: others tell it who the members are.
  const bool founds = machine_.id.value <= scenario_.founders && machine_.wipes == 0;
  for (std::size_t node = 1; founds && node <= scenario_.founders; ++node) {
    config.voters.push_back(NodeId{node});
  }
  config.seed = mix(scenario_.seed ^ mix(machine_.id.value * 8 + group.value) ^ number_);
  return config;
}

// ---- The loop

inline void Process::post(std::function<void()> work) {
  mailbox_.push_back(std::move(work));
  wake();
}

inline void Process::wake() {
  if (awake_) return;
  awake_ = true;
  after(random_.between(2, 100), [this] { drain(); });
}

// The process may be paused between what it takes in and what it lets out.
inline void Process::drain() {
  for (auto& work : std::exchange(mailbox_, {})) work();
  check();
  after(random_.between(1, 20), [this] { end_turn(); });
}

inline void Process::end_turn() {
  awake_ = false;
  if (failed_) return;
  // As in server.hpp: in a calm, what comes in ticks as well, and ticks are sooner again after it.
  if (is_calm() && 2 * (machine_.clock.now_ms() - ticked_at_ms_) >= tick_interval_ms_) {
    tick();
    schedule_tick(0);
  }
  sessions_.turn();
  for (auto& [id, group] : groups_) {
    group.replica->pump(gathering_.chance(scenario_.gathering_permille));
    checks_.pumped(machine_.id, group.replica->raft());
  }
  sessions_.turn();
  refresh_self();
  flush();
  check();
  if (is_calm() && tick_interval_ms() < tick_interval_ms_) {
    schedule_tick(machine_.clock.now_ms() - ticked_at_ms_);
  }
  if (!mailbox_.empty()) wake();
}

inline std::uint64_t Process::tick_interval_ms() const {
  std::uint64_t interval_ms = scenario_.raft.election_timeout_max_ms;
  for (const auto& [id, group] : groups_) {
    interval_ms = std::min(interval_ms, group.replica->raft().max_tick_ms());
  }
  return interval_ms;
}

inline void Process::schedule_tick(std::uint64_t since_tick_ms) {
  tick_interval_ms_ = tick_interval_ms();
  const std::uint64_t left_ms =
      tick_interval_ms_ > since_tick_ms ? tick_interval_ms_ - since_tick_ms : 0;
  after(machine_.clock.real_us(left_ms * kMillisecond), [this, timer = ++timer_] {
    if (timer != timer_) return;  // set anew
    if (!std::exchange(tick_waits_, true)) post([this] { tick(); });
    schedule_tick(0);
  });
}

inline void Process::tick() {
  tick_waits_ = false;
  ticked_at_ms_ = machine_.clock.now_ms();
  ++ticks_;
  for (auto& [id, group] : groups_) group.replica->tick();
  transfers_.tick();
  if (scenario_.compaction.min_entries > 0) cut_logs();
  if (replica(kSystemGroup).raft().is_leader()) propose_system_records();
  remove_expired();
  if (stopping_) {
    for (auto& [id, group] : groups_) {
      const bool quiet = group.replica->waiting() == 0;
      if (quiet && group.replica->raft().is_leader()) group.replica->transfer_leadership();
    }
  }
  dial(machine_.clock.now_ms());
}

inline void Process::check() {
  for (auto& [id, group] : groups_) {
    checks_.look(machine_.id, id, group.replica->raft());
    check_quorum(id, group);
  }
  host_.turn_ended();
}

// A leader that no majority answers steps down within a maximum election timeout of the last answer
// that completed a round, and the others of that round may have come as long before. Counted in its
// ticks: what waits unread during a pause is no silence.
inline void Process::check_quorum(GroupId id, Group& group) {
  const raft::Raft& raft = group.replica->raft();
  const Term leads_in = raft.is_leader() ? raft.current_term() : Term{};
  if (raft.configuration_index() != group.members_since) {
    group.members_since = raft.configuration_index();
    group.leads_since_tick = ticks_;
  }
  if (leads_in != group.leads_in) {
    group.leads_in = leads_in;
    group.leads_since_tick = ticks_;
    // A read that was confirmed before leadership was lost, in the same turn, is served after.
    if (leads_in != Term{}) {
      group.answered_at_tick.clear();
      group.round_sent_us.clear();
      group.answered_sent_us.clear();
    }
  }
  if (!raft.is_leader()) return;
  const std::uint64_t patience_ticks =
      2 * scenario_.raft.election_timeout_max_ms / scenario_.raft.tick_interval_ms + 8;
  const bool answered = majority_answered(raft, [&](NodeId peer) {
    const auto at = group.answered_at_tick.find(peer);
    return at != group.answered_at_tick.end() && at->second + patience_ticks >= ticks_;
  });
  must(group.leads_since_tick + patience_ticks >= ticks_ || answered, "check quorum", [&] {
    return name() + " leads group " + std::to_string(id.value) + " though no majority answers it";
  });
}

// This node counts where it votes.
template <class Answered>
bool Process::majority_answered(const raft::Raft& raft, Answered answered) const {
  const raft::Configuration& members = raft.configuration();
  for (const std::vector<NodeId>* voters : {&members.voters, &members.outgoing}) {
    std::size_t count = 0;
    for (const NodeId voter : *voters) count += voter == machine_.id || answered(voter) ? 1 : 0;
    if (!voters->empty() && count <= voters->size() / 2) return false;
  }
  return true;
}

inline bool Process::may_stop() const {
  for (const auto& [id, group] : groups_) {
    if (group.replica->waiting() > 0 || group.replica->raft().is_leader()) return false;
  }
  return storage_.idle();
}

inline void Process::transfer_leadership() {
  post([this] {
    for (auto& [id, group] : groups_) group.replica->transfer_leadership();
  });
}

inline std::optional<Checks::Lease> Process::lease(GroupId group) const {
  const std::uint64_t now_ms = machine_.clock.now_ms();
  const raft::Raft& raft = replica(group).raft();
  if (failed_ || !raft.has_lease(now_ms)) return std::nullopt;
  return Checks::Lease{machine_.id, raft.lease_read(now_ms)};
}

// ---- What the disk answers

inline void Process::on_synced(GroupId group, std::uint64_t write_id) {
  post([this, group, write_id] {
    trace("synced, group " + std::to_string(group.value) + ": write " + std::to_string(write_id));
    groups_.at(group).replica->on_synced(write_id);
  });
}

inline void Process::on_applied(GroupId group, Index last, std::vector<Outcome> outcomes) {
  post([this, group, last, outcomes = std::move(outcomes)] {
    trace("applied, group " + std::to_string(group.value) + ": up to " +
          std::to_string(last.value));
    groups_.at(group).replica->on_applied(last, outcomes);
    if (group == kSystemGroup) read_system_records();
  });
}

inline void Process::on_fetched(GroupId group, NodeId peer, Term prev_log_term,
                                std::vector<raft::Entry> entries) {
  post([this, group, peer, prev_log_term, entries = std::move(entries)] {
    groups_.at(group).replica->on_fetched(peer, prev_log_term, entries);
  });
}

inline void Process::on_storage_failed(const std::string& what) {
  post([this, what] {
    trace("storage failed: " + what);
    failed_ = true;
    for (auto& [id, group] : groups_) group.replica->abandon();
    host_.storage_failed(machine_.id);
  });
}

inline void Process::on_log_cut(GroupId group, Index first_index) {
  post([this, group, first_index] {
    trace("log cut, group " + std::to_string(group.value) + ": it begins at " +
          std::to_string(first_index.value));
    groups_.at(group).replica->on_compacted(first_index);
  });
}

inline void Process::on_snapshot_built(GroupId group, NodeId peer, SnapshotPtr image) {
  post([this, group, peer, image] { transfers_.on_built(group, peer, image); });
}

inline void Process::on_installed(GroupId group) {
  post([this, group] {
    transfers_.on_installed(group);
    trace("installed, group " + std::to_string(group.value) + ": " +
          describe_state(replica(group).raft()));
    if (group == kSystemGroup) read_system_records();
  });
}

// Behind what has been applied, and what others need; or, now and then, regardless of that.
inline void Process::cut_logs() {
  const Compaction& compaction = scenario_.compaction;
  if (ticks_ % compaction.interval_ticks != 0) return;
  for (auto& [id, group] : groups_) {
    const raft::Raft& raft = group.replica->raft();
    const bool regardless = random_.chance(compaction.regardless_permille);
    if (raft.is_installing()) continue;
    checks_.may_be_cut(machine_.id, raft);
    transfers_.check_cut(id);
    const Index to = regardless ? raft.last_applied() : raft.compactable_index();
    const Index first = storage_.first_index(id);
    if (to.value < first.value + compaction.keep_entries + compaction.min_entries) continue;
    storage_.cut_log(id, to - compaction.keep_entries);
  }
}

// ---- Peers

inline void Process::send_piece(NodeId to, SnapshotPiece piece) {
  if (world_.tracing()) trace("-> snapshot for n" + std::to_string(to.value) + describe(piece));
  network_.send(
      {machine_.id, to, number_, {}, std::make_shared<const SnapshotPiece>(std::move(piece))});
}

inline void Process::send(GroupId group, raft::Message message) {
  Peer& peer = peers_.at(message.to);
  if (!peer.up) return;
  peer.outbox.push_back({group, std::move(message)});
}

inline void Process::flush() {
  bool asked_for_votes = false;
  for (auto& [id, peer] : peers_) {
    if (peer.outbox.empty()) continue;
    Frame frame;
    frame.messages = std::exchange(peer.outbox, {});
    for (const PeerMessage& message : frame.messages) {
      if (world_.tracing()) trace("-> " + describe(message));
      checks_.promised(message.group, message.message);
      const auto* request = std::get_if<raft::RequestVote>(&message.message.body);
      asked_for_votes = asked_for_votes || (request != nullptr && !request->pre_vote &&
                                            message.group == kFirstDataGroup);
      const auto* append = std::get_if<raft::AppendEntries>(&message.message.body);
      if (append != nullptr) {
        groups_.at(message.group).round_sent_us.try_emplace(append->round, world_.now_us());
      }
    }
    // Sent one by one, so that each may be lost, doubled or overtaken.
    for (PeerMessage& message : frame.messages) {
      Frame one;
      one.messages.push_back(std::move(message));
      send_frame(id, std::move(one));
    }
  }
  if (asked_for_votes) host_.asked_for_votes(machine_.id);
}

inline void Process::send_frame(NodeId to, Frame frame) {
  Packet packet{machine_.id, to, number_, std::move(frame)};
  network_.send(std::move(packet));
}

inline void Process::dial(std::uint64_t now_ms) {
  const bool status_due = now_ms >= next_status_ms_;
  if (status_due) next_status_ms_ = now_ms + kStatusIntervalMs;
  for (auto& [id, peer] : peers_) {
    if (peer.up && now_ms > peer.heard_at_ms + kLivenessMs) down(id);
    Frame frame;
    if (!peer.up && now_ms >= peer.dial_at_ms) {
      peer.dial_at_ms = now_ms + random_.between(peer.dial_delay_ms / 2, peer.dial_delay_ms);
      peer.dial_delay_ms = std::min(kDialMaxMs, peer.dial_delay_ms * 2);
      frame.hello = own_hello();
    } else if (peer.up && status_due) {
      frame.status = NodeStatus{};
    } else {
      continue;
    }
    send_frame(id, std::move(frame));
  }
}

inline void Process::receive(const Packet& packet) {
  if (mailbox_.size() >= kMaxMailbox) return;  // Raft repeats
  post([this, packet] { handle_frame(packet); });
}

inline void Process::handle_frame(const Packet& packet) {
  Peer& peer = peers_.at(packet.from);
  if (packet.frame.hello) return handle_hello(packet);
  if (packet.frame.hello_reply) return handle_hello_reply(packet);
  if (peer.accepted_life != packet.life) return;  // no handshake, or of a life that is over
  peer.heard_at_ms = machine_.clock.now_ms();
  if (packet.piece) return transfers_.receive(packet.from, *packet.piece);
  for (const PeerMessage& message : packet.frame.messages) {
    if (world_.tracing()) trace("<- " + describe(message));
    Group& group = groups_.at(message.group);
    if (std::holds_alternative<raft::AppendEntriesReply>(message.message.body)) {
      note_answer(group, packet.from, message.message);
    }
    group.replica->receive(message.message);
  }
}

inline void Process::note_answer(Group& group, NodeId peer, const raft::Message& message) {
  group.answered_at_tick[peer] = ticks_;
  if (message.term != group.leads_in) return;
  const auto& reply = std::get<raft::AppendEntriesReply>(message.body);
  const auto sent = group.round_sent_us.find(reply.round);
  if (sent == group.round_sent_us.end()) return;
  std::uint64_t& latest_us = group.answered_sent_us[peer];
  latest_us = std::max(latest_us, sent->second);
}

// A read that no lease covered is served after a majority answered what was sent since it came
// (thesis 6.4).
inline void Process::check_read_round(const Asked& asked) const {
  const Group& data = groups_.at(kFirstDataGroup);
  const raft::Raft& raft = data.replica->raft();
  if (asked.leased || raft.configuration_index() != asked.members_since) return;
  const bool answered = majority_answered(raft, [&](NodeId peer) {
    const auto sent = data.answered_sent_us.find(peer);
    return sent != data.answered_sent_us.end() && sent->second >= asked.came_us;
  });
  must(answered, "read without a majority", [&] {
    return name() + " serves a read that came at " + std::to_string(asked.came_us) +
           " us, and no majority answered since";
  });
}

// A node whose disk was lost and that was let in again is known by its former one to whoever was away
// meanwhile: the newer record counts, or it could never lead those.
inline void Process::handle_hello(const Packet& packet) {
  Peer& peer = peers_.at(packet.from);
  if (packet.life < peer.accepted_life) return;  // a straggler
  Frame frame;
  HelloReply& reply = frame.hello_reply.emplace();
  const auto problem = membership_.judge(*packet.frame.hello);
  reply.accepted = !problem;
  reply.reason = problem.value_or("");
  reply.self = own_hello();
  must(!problem || scenario_.members_change(), "handshake",
       name() + " refuses n" + std::to_string(packet.from.value) + ": " + reply.reason);
  if (problem) return send_frame(packet.from, std::move(frame));
  // A new life: the stream to the old one is gone.
  if (peer.up && peer.accepted_life != 0 && packet.life > peer.accepted_life) down(packet.from);
  peer.accepted_life = packet.life;
  peer.heard_at_ms = machine_.clock.now_ms();
  membership_.note_peer(*packet.frame.hello);
  if (!peer.up) peer.dial_at_ms = 0, peer.dial_delay_ms = kDialMinMs;
  send_frame(packet.from, std::move(frame));
}

inline void Process::handle_hello_reply(const Packet& packet) {
  Peer& peer = peers_.at(packet.from);
  if (packet.life < peer.accepted_life) return;
  if (!packet.frame.hello_reply->accepted) return membership_.note_refusal(packet.from);
  if (membership_.judge(packet.frame.hello_reply->self)) return;
  membership_.note_peer(packet.frame.hello_reply->self);
  peer.accepted_life = packet.life;
  peer.heard_at_ms = machine_.clock.now_ms();
  peer.dial_delay_ms = kDialMinMs;
  peer.up = true;
}

inline void Process::break_stream(NodeId id) {
  post([this, id] { down(id); });
}

inline void Process::down(NodeId id) {
  Peer& peer = peers_.at(id);
  if (!peer.up) return;
  trace("stream to n" + std::to_string(id.value) + " broke");
  peer.up = false;
  peer.outbox.clear();
  peer.dial_at_ms = machine_.clock.now_ms() + random_.between(kDialMinMs / 2, kDialMinMs);
  for (auto& [group_id, group] : groups_) group.replica->unreachable(id);
}

inline Hello Process::own_hello() const {
  bool log_is_empty = true;
  bool voted_for_another = false;
  for (const auto& [id, group] : groups_) {
    const raft::Raft& raft = group.replica->raft();
    log_is_empty = log_is_empty && raft.log().last_index() == Index{};
    voted_for_another =
        voted_for_another || (raft.voted_for() != NodeId{} && raft.voted_for() != machine_.id);
  }
  return membership_.hello(log_is_empty, voted_for_another);
}

// ---- The cluster

inline void Process::leadership_changed(GroupId group) {
  if (!world_.tracing()) return;
  trace("group " + std::to_string(group.value) + ": " + describe_state(replica(group).raft()));
}

inline void Process::read_system_records() {
  const RecordMap map = storage_.map(kSystemGroup);
  const auto membership = read_membership(map);
  const auto shard_map = read_shard_map(map);
  must(membership && shard_map, "records", "the system group's records can't be read");
  shard_map_recorded_ = shard_map_recorded_ || shard_map->has_value();
  if (*membership) membership_.set_record(**membership);
}

inline void Process::propose_system_records() {
  const raft::Raft& raft = replica(kSystemGroup).raft();
  const bool settled = raft.last_applied() == raft.log().last_index();
  if (system_proposal_.under_way || stopping_ || !settled) return;
  Operation operation;
  std::string record;
  if (const auto next = membership_.proposal(std::string(32, 'c'), machine_.clock.wall_ms())) {
    operation.type = OperationType::kSetMembership;
    record = codec::encode(*next);
  } else if (!shard_map_recorded_) {
    operation.type = OperationType::kSetShardMap;
    record = codec::encode(ShardMap{});
  } else {
    return;
  }
  operation.arguments = {record};
  system_proposal_.under_way = true;
  (void)propose(kSystemGroup, stamped(kSystemGroup, std::move(operation)), system_proposal_);
}

inline void Process::refresh_self() {
  for (auto& [id, group] : groups_) {
    has_voted_ = has_voted_ || (may_vote_ && group.replica->raft().voted_for() != NodeId{});
  }
  // Who lost its disk joins: it is no founder that might have no record yet.
  const bool joins = machine_.wipes > 0 && !membership_.record();
  may_vote_ = !joins && membership_.may_vote(kSystemGroup, has_voted_);
  for (auto& [id, group] : groups_) {
    group.replica->set_may_vote(!joins && membership_.may_vote(id, has_voted_));
  }
}

// Looked at before and after, so that what has committed is judged by the members of that moment.
inline void Process::change_members(GroupId group, std::vector<NodeId> voters,
                                    std::vector<NodeId> learners, std::function<bool()> wanted) {
  post([this, group, voters, learners, wanted] {
    if (!wanted()) return;
    check();
    (void)groups_.at(group).replica->change_members(voters, learners);
    check();
  });
}

inline bool Process::admits(NodeId node, std::uint64_t incarnation,
                            std::optional<MemberState> state) const {
  const auto& record = membership_.record();
  if (!record) return false;
  const auto member = record->members.find(node);
  return member != record->members.end() && member->second.incarnation == incarnation &&
         (!state || member->second.state == *state);
}

inline void Process::admit(NodeId node, std::uint64_t incarnation, MemberState state) {
  post([this, node, incarnation, state] {
    const raft::Raft& raft = replica(kSystemGroup).raft();
    const bool settled = raft.last_applied() == raft.log().last_index();
    if (!raft.is_leader() || system_proposal_.under_way || stopping_ || !settled) return;
    if (!membership_.record() || admits(node, incarnation, state)) return;
    ClusterMembership next = *membership_.record();
    next.members[node].id = node;
    next.members[node].incarnation = incarnation;
    next.members[node].state = state;
    ++next.membership_version;
    const std::string record = codec::encode(next);
    Operation operation;
    operation.type = OperationType::kSetMembership;
    operation.arguments = {record};
    membership_.forget_peer(node);
    system_proposal_.under_way = true;
    (void)propose(kSystemGroup, stamped(kSystemGroup, std::move(operation)), system_proposal_);
  });
}

// ---- Clients

inline std::string Process::stamped(GroupId group, Operation operation) {
  if (group == kSystemGroup) {
    last_stamp_ms_ = std::max(last_stamp_ms_, machine_.clock.wall_ms());
    operation.time_ms = last_stamp_ms_;
  } else {
    operation.time_ms = leader_time_ms();
  }
  return codec::encode(operation);
}

// As Node::propose() and Node::times() ask for it.
inline std::uint64_t Process::leader_time_ms() const {
  const raft::Raft& raft = replica(kFirstDataGroup).raft();
  const std::uint64_t now_ms = machine_.clock.now_ms();
  const std::uint64_t applied_ms = key_values_->time_ms();
  const std::uint64_t stamp_ms = leader_clock_.stamp_ms(raft.current_term(), now_ms, applied_ms);
  checks_.stamped({machine_.id, number_, raft.current_term(), now_ms, machine_.clock.wall_ms(),
                   applied_ms, stamp_ms});
  return stamp_ms;
}

inline ReadTimes Process::read_times() const {
  const std::uint64_t state_ms = key_values_->time_ms();
  if (!replica(kFirstDataGroup).raft().is_leader()) return {state_ms, state_ms};
  return {state_ms, leader_time_ms()};
}

// As Node::remove_expired().
inline void Process::remove_expired() {
  if (!replica(kFirstDataGroup).raft().is_leader() || stopping_) return expiry_.not_leading();
  if (key_values_->expiring_count() == 0) return;
  const std::optional<ExpiryScan> scan = expiry_.begin(
      machine_.clock.now_ms(), read_times().latest_ms(), key_values_->soonest_given_ms());
  if (!scan) return;
  key_values_->forget_given_times();
  storage_.scan_disk(kFirstDataGroup, [this, scan = *scan](const OrderedMap& map) {
    post([this, scan, found = expired_keys(map, scan)] { propose_removal(scan, found); });
  });
}

inline void Process::propose_removal(const ExpiryScan& scan, const ExpiredKeys& found) {
  expiry_.found(scan, found, machine_.clock.now_ms());
  if (found.keys.empty() || !replica(kFirstDataGroup).raft().is_leader()) return expiry_.end();
  Operation operation;
  operation.type = OperationType::kRemoveExpired;
  operation.arguments.assign(found.keys.begin(), found.keys.end());
  ++world_.counters().removals;
  (void)propose(kFirstDataGroup, stamped(kFirstDataGroup, std::move(operation)), expiry_);
}

inline Index Process::propose(GroupId group, const std::string& bytes, Waiter& waiter) {
  if (!stopping_) return groups_.at(group).replica->propose(bytes, waiter);
  waiter.failed(Refusal::kNotLeader);
  return {};
}

inline void Process::serve(Request request) {
  post([this, request = std::move(request)]() mutable { execute(std::move(request)); });
}

inline void Process::serve(SessionRequest request) {
  post([this, request = std::move(request)]() mutable { sessions_.serve(std::move(request)); });
}

inline void Process::note_state(Asked& asked) const {
  asked.came_us = world_.now_us();
  asked.leased = lease(kFirstDataGroup).has_value();
  asked.committed = checks_.committed(kFirstDataGroup);
  asked.members_since = replica(kFirstDataGroup).raft().configuration_index();
}

inline Index Process::propose_for_client(Operation operation, Waiter& waiter) {
  std::erase_if(watched_, [](const Watched& watched) { return watched.heard; });
  Watched& watched = watched_.emplace_back(*this, waiter);
  note_state(watched);
  watched.proposed = stamped(kFirstDataGroup, std::move(operation));
  const Index index = propose(kFirstDataGroup, watched.proposed, watched);
  watched.index = index;
  return index;
}

inline bool Process::readable_for_client(Index after) const {
  if (!replica(kFirstDataGroup).readable(after)) return false;
  Asked asked;
  note_state(asked);
  check_fresh(asked);
  return true;
}

inline void Process::read_for_client(Index after, Waiter& waiter) {
  Watched& watched = watched_.emplace_back(*this, waiter);
  note_state(watched);
  groups_.at(kFirstDataGroup).replica->read(after, watched);
}

inline void Process::execute(Request request) {
  std::erase_if(pending_, [](const Pending& pending) { return pending.answered; });
  Pending& pending = pending_.emplace_back(*this, std::move(request));
  note_state(pending);
  const Request& asked = pending.request;
  Index& last_write = last_writes_[asked.connection];
  Replica& data = *groups_.at(kFirstDataGroup).replica;
  if (asked.action == ClientAction::kGet) {
    if (data.readable(last_write)) return answer_read(pending);
    return data.read(last_write, pending);
  }
  Operation operation;
  const bool sets = asked.action == ClientAction::kSet;
  operation.type = sets ? OperationType::kSet : OperationType::kDelete;
  operation.arguments = {asked.key};
  if (sets) operation.arguments.push_back(asked.value);
  pending.proposed = stamped(kFirstDataGroup, std::move(operation));
  pending.index = propose(kFirstDataGroup, pending.proposed, pending);
  last_write = std::max(last_write, pending.index);
}

inline void Process::answer(Pending& pending, const Outcome& outcome) {
  checks_.answered(machine_.id, kFirstDataGroup, pending.index, pending.proposed);
  Reply reply;
  reply.kind = Reply::Kind::kDone;
  reply.count = outcome.integer;
  finish(pending, reply);
}

inline void Process::check_fresh(const Asked& asked) const {
  must(replica(kFirstDataGroup).raft().last_applied() >= asked.committed, "stale read", [&] {
    return name() + " reads at " +
           std::to_string(replica(kFirstDataGroup).raft().last_applied().value) +
           ", committed when the read came was " + std::to_string(asked.committed.value);
  });
}

inline void Process::answer_read(Pending& pending) {
  check_fresh(pending);
  Reply reply;
  reply.kind = Reply::Kind::kDone;
  std::string storage;
  StoredValue value;
  switch (read_value(storage_.map(kFirstDataGroup), pending.request.key, storage, value)) {
    case Lookup::kFound:
      reply.value = std::string(value.data);
      break;
    case Lookup::kAbsent:
      break;
    default:
      throw Violation("records", "a value can't be read");
  }
  finish(pending, reply);
}

inline void Process::refuse(Pending& pending, Refusal refusal) {
  Reply reply;
  const bool appended = refusal == Refusal::kTimeout || refusal == Refusal::kUnknown;
  reply.kind = appended ? Reply::Kind::kUnknown : Reply::Kind::kRefused;
  reply.leader = replica(kFirstDataGroup).raft().leader();
  if (refusal == Refusal::kUnknown) last_writes_[pending.request.connection] = {};
  finish(pending, reply);
}

inline void Process::finish(Pending& pending, const Reply& reply) {
  must(!pending.answered, "answered twice", name());
  pending.answered = true;
  pending.request.answer(reply);
}

}  // namespace seshat::sim

#endif  // SESHAT_TESTS_SIM_PROCESS_HPP
