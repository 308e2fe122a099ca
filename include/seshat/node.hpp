// seshat/node.hpp - one node: its replicas, its store, its peers, and its place in the cluster.
//
//   server ──propose, read──> Node ──> Replica (system) ──> Store ──┐
//                              │  └──> Replica (data)   ──> Peers ──┤
//                              └──────── Mailbox <──────────────────┘   other threads post
//
// The owner's loop calls tick() every tick_interval_ms(), drain() when woken, and end_turn() once at
// the end of each turn: then everything that gathered leaves in one write and one message a peer.
//
// Keeps:    which node serves a slot, and what a client is told that asks another one; the records
//           of the system group, as long as this node leads it; who may vote (membership.hpp).
// Threads:  the loop, but for what is marked: one thread at a time has its turn. Store and peers answer
//           through the mailbox.
// Needs:    replica, forwarding, state_machine, membership, joining, cluster_changes,
//           snapshot_exchange, command (Topology), store, peer, config.
#ifndef SESHAT_NODE_HPP
#define SESHAT_NODE_HPP

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "seshat/boot_clock.hpp"
#include "seshat/cluster_changes.hpp"
#include "seshat/codec.hpp"
#include "seshat/command.hpp"
#include "seshat/config.hpp"
#include "seshat/expiry.hpp"
#include "seshat/forwarding.hpp"
#include "seshat/gathering.hpp"
#include "seshat/joining.hpp"
#include "seshat/kv.hpp"
#include "seshat/leader_clock.hpp"
#include "seshat/log.hpp"
#include "seshat/membership.hpp"
#include "seshat/neighbours.hpp"
#include "seshat/node_events.hpp"
#include "seshat/node_info.hpp"
#include "seshat/peer.hpp"
#include "seshat/replica.hpp"
#include "seshat/result.hpp"
#include "seshat/snapshot_exchange.hpp"
#include "seshat/state_machine.hpp"
#include "seshat/store.hpp"
#include "seshat/version.hpp"

namespace seshat {

inline constexpr std::uint64_t kTickIntervalMs = 25;  // while leadership is not settled
inline constexpr std::uint64_t kMaxTickIntervalMs = 500;

class Node final : public Database,
                   private LeadershipObserver,
                   private ClusterChanges::Site,
                   private Forwarding::Site {
 public:
  // Opens the data directory and the peer port. One of `news` is called when drain() has something to
  // do. An error: nothing was started.
  [[nodiscard]] static Result<std::unique_ptr<Node>> start(const Config& config,
                                                           const PeerSecurity& security,
                                                           const Logger& logger,
                                                           NodeEvents::Callbacks news);
  ~Node() override;
  Node(const Node&) = delete;
  Node& operator=(const Node&) = delete;

  // ---- the loop
  void tick();
  // How soon tick() wants to be called again: seldom, as long as all is calm.
  [[nodiscard]] std::uint64_t tick_interval_ms() const;
  void drain();
  void end_turn();
  // Whether threads wait for cores here: what clients propose may then wait for more (gathering.hpp).
  void set_short_of_cpu(bool is_short) { gathering_.allow(is_short); }
  // When end_turn() wants to be called at the latest, for what waits.
  [[nodiscard]] std::optional<Gathering::Clock::time_point> gathers_until() const {
    return gathering_.until();
  }

  // ---- clients
  [[nodiscard]] std::optional<GroupId> group_of(Slot slot) const override;
  WriteMark propose(GroupId group, Operation operation, Waiter& waiter) override;
  [[nodiscard]] bool readable(GroupId group, WriteMark after, bool read_only) const override;
  void read(GroupId group, WriteMark after, bool read_only, Waiter& waiter) override;
  [[nodiscard]] const OrderedMap& cached(GroupId group) const override {
    return store_->cached(group);
  }
  void read_from_disk(GroupId group, std::function<void(const OrderedMap&)> work) override;
  void scan_disk(GroupId group, std::function<void(const OrderedMap&)> work) override;
  [[nodiscard]] ReadTimes times(GroupId group, bool read_only) const override;
  [[nodiscard]] bool all_know_operations(std::uint32_t version) const override {
    return membership_.all_know_operation_version(version);
  }
  void post(std::function<void()> work) override { mailbox_.push(std::move(work)); }
  [[nodiscard]] std::string refusal_text(Slot slot, Refusal refusal, bool by_tls) const override;
  // Less than min_free_disk_mb left on so many nodes that the rest is no majority.
  [[nodiscard]] bool disk_is_full() const override;
  void administer(AdminRequest request, std::function<void(CallReply)> done) override;

  // ---- stopping
  // Takes no more proposals, and hands leadership over when those under way are done.
  void begin_shutdown() { stopping_ = true; }
  [[nodiscard]] bool may_stop() const;
  // Set once storage has failed: this node can keep no promise any more and must end.
  [[nodiscard]] const std::optional<std::string>& failure() const { return failure_; }
  // Set once this node was removed from its cluster: it has nothing to do here any more.
  [[nodiscard]] bool was_removed() const { return removed_; }

  // ---- what is known here
  [[nodiscard]] NodeId id() const { return membership_.self().id; }
  [[nodiscard]] const Clock& clock() const { return clock_; }
  [[nodiscard]] Topology topology() const;
  [[nodiscard]] ClusterStatus cluster_status() const;
  [[nodiscard]] NodeStatus own_status() const;
  // See Site::replicas_with_all.
  [[nodiscard]] std::optional<std::size_t> replicas_with_all() const;
  void append_info(std::string_view section, std::string& out) const;
  [[nodiscard]] bool has_leader() const;
  // That had expired, and that this node had removed while it led.
  [[nodiscard]] std::uint64_t keys_expired() const { return expiry_.removed(); }

 private:
  // A proposal of the node itself to the system group: one at a time, tried again while needed.
  class SystemProposal final : public Waiter {
   public:
    [[nodiscard]] bool under_way() const { return under_way_; }
    void begin() { under_way_ = true; }
    void done(const Outcome&) override { under_way_ = false; }
    void readable() override {}
    void failed(Refusal) override { under_way_ = false; }

   private:
    bool under_way_ = false;
  };

  // What comes before the reason when this node has to stop.
  static constexpr std::string_view kCantGoOn = "this node stops: it can't keep its promises";
  static constexpr std::string_view kCouldNotJoin = "this node stops: it can't join the cluster";

  // What may change of what a handshake says of this node: looked at in every turn of the loop.
  struct Past {
    bool log_is_empty = true;
    bool voted_for_another = false;
    friend bool operator==(const Past&, const Past&) = default;
  };
  struct Told {
    Past past;
    std::uint64_t membership_version = 0;
    bool knows_cluster = false;
    friend bool operator==(const Told&, const Told&) = default;
  };

  // One Raft group and its state machine.
  struct Group {
    std::unique_ptr<StateMachine> machine;
    std::unique_ptr<Replica> replica;
    NodeId known_leader;  // as it was logged last
    NodeId last_leader;   // the last that was known; 0 only before the first
  };

  // With no peer to send to.
  class NoTransport final : public Transport {
   public:
    void send(GroupId, raft::Message) override {}
  };

  Node(const Config& config, const Logger& logger, NodeEvents::Callbacks news,
       std::unique_ptr<Store> store, Membership membership);
  [[nodiscard]] Result<void> restore_machines(std::map<GroupId, raft::Restored>& restored);
  [[nodiscard]] Result<void> start_peers(const PeerSecurity& security);
  // An entry is at most a request, with two bytes or more for each argument, and what is watched.
  [[nodiscard]] std::size_t max_operation_size_bytes() const {
    return 2 * config_.limits.max_request_size_bytes + (1U << 20);
  }
  [[nodiscard]] std::map<NodeId, std::string> dialed() const;
  [[nodiscard]] std::string dial_addr(NodeId member) const;
  void make_joining();
  void check_cluster();
  void make_replicas(std::map<GroupId, raft::Restored> restored);
  [[nodiscard]] raft::Config raft_config() const;

  // The loop: a handler each; drain() is their table of contents.
  void handle(node_event::Synced& event);
  void handle(node_event::Applied& event);
  void handle(node_event::Fetched& event);
  void handle(node_event::LogCut& event);
  void handle(node_event::Installed& event);
  void handle(node_event::StorageFailed& event);
  void handle(node_event::SystemRead& event);
  void handle(node_event::HelloReceived& event);
  void handle(node_event::FrameReceived& event);
  void handle(node_event::PeerUp& event);
  void handle(node_event::PeerRefused& event);
  void handle(node_event::PeerDown& event);
  void handle(node_event::ForwardedLost& event);
  void handle(node_event::CallReceived& event);
  void handle(node_event::SnapshotOffered& event);
  void handle(node_event::SnapshotReceived& event);
  void handle(node_event::SnapshotBroken& event);
  void handle(node_event::SnapshotFailed& event);
  void handle(node_event::Work& work) { work(); }

  void leadership_changed(GroupId group) override;

  // ClusterChanges::Site
  [[nodiscard]] bool is_connected(NodeId node) const override {
    return neighbours_.is_connected(node);
  }
  [[nodiscard]] std::optional<NodeStatus> fresh_status(NodeId node) const override {
    return neighbours_.fresh_status(node, clock_.now_ms());
  }
  void call(NodeId node, CallRequest request, std::function<void(CallReply)> answer) override;

  // Forwarding::Site
  Forwarding::Sent send_forwarded(NodeId to, Forwarded forwarded) override;
  Index propose_forwarded(GroupId group, const std::string& operation, Waiter& waiter) override;
  [[nodiscard]] std::uint64_t leader_time_ms(GroupId group) const override {
    return times(group, false).latest_ms();
  }

  [[nodiscard]] bool serves_forwarded() const override { return !stopping_ && !failure_; }

  [[nodiscard]] bool forwards() const {
    return config_.client.on_follower == Config::OnFollower::kForward;
  }
  [[nodiscard]] bool reads_stale() const {
    return config_.client.follower_reads == Config::FollowerReads::kStale;
  }
  // This node does not lead the group, and reads what it has of it for who wants no more.
  [[nodiscard]] bool serves_stale(GroupId group, WriteMark after) const;
  // This node does not lead the group, and may ask who does.
  [[nodiscard]] bool may_forward(GroupId group) const;
  Index propose_here(GroupId group, Operation operation, Waiter& waiter);
  [[nodiscard]] bool waits_for_more(const raft::Raft& raft);
  void read_system_records();
  [[nodiscard]] bool knows_system_records() const;
  void refresh_peers();
  void follow_joining();
  void log_refusal(NodeId peer, const std::string& problem);
  [[nodiscard]] bool has_disk_room(NodeId node) const;
  void fail(std::string what, std::string_view headline = kCantGoOn);
  void refresh_self();
  void propose_system_records();
  void remove_expired();
  void propose_removal(const ExpiryScan& scan, const ExpiredKeys& found);
  void propose_record(OperationType type, const std::string& record);
  void hand_over();
  [[nodiscard]] Past past() const;
  [[nodiscard]] Hello own_hello() const;
  [[nodiscard]] std::uint64_t stamp_ms();
  [[nodiscard]] bool leader_may_be_named(NodeId leader) const;
  [[nodiscard]] std::string moved_text(Slot slot, NodeId leader, bool by_tls) const;
  [[nodiscard]] ShardMap wanted_shard_map() const;
  [[nodiscard]] Replica& replica(GroupId group) { return *groups_.at(group).replica; }
  [[nodiscard]] const Replica& replica(GroupId group) const { return *groups_.at(group).replica; }
  [[nodiscard]] bool has_other_voters(const Replica& replica) const;
  void append_replicas(const raft::Raft& raft, std::string& out) const;

  const Config& config_;
  Logger logger_;
  BootClock clock_;
  NodeEvents mailbox_;
  std::vector<node_event::Any> events_;  // drain()'s, kept for its memory

  std::unique_ptr<Store> store_;
  std::map<GroupId, Group> groups_;
  NoTransport no_transport_;
  std::unique_ptr<Peers> peers_;  // null: peers are off, a cluster of one
  std::unique_ptr<SnapshotExchange> exchange_;
  std::unique_ptr<ClusterChanges> changes_;
  std::unique_ptr<Forwarding> forwarding_;
  std::unique_ptr<Joining> joining_;                          // while this node asks to be let in
  std::map<NodeId, node_event::HelloReceived> early_hellos_;  // that came meanwhile

  Membership membership_;
  std::optional<ShardMap> shard_map_;  // as recorded
  std::string fresh_cluster_id_;
  SystemProposal system_proposal_;
  bool reading_system_ = false;     // what the system group holds is on its way here
  bool read_system_again_ = false;  // ... and has changed meanwhile
  Neighbours neighbours_;
  std::optional<Told> told_;  // what new streams say of this node follows from this
  bool has_voted_ = false;
  bool may_vote_ = false;

  // One for all groups: so the same node tends to lead them, and its heartbeats go together.
  const std::uint64_t election_seed_;
  std::uint64_t next_status_ms_ = 0;
  std::uint64_t last_stamp_ms_ = 0;
  KeyValueMachine* key_values_ = nullptr;  // of the data group
  mutable LeaderClock leader_clock_;
  Expiry expiry_;
  Gathering gathering_;  // of the data group, while this node leads it
  bool stopping_ = false;
  bool removed_ = false;
  std::optional<std::string> failure_;
};

// =================================================================================================
// Bodies
// =================================================================================================

// ---- Start ------------------------------------------------------------------------------------------

namespace node_detail {

// Peers' frames that may wait for the loop; beyond it they are lost (node_events.hpp).
inline constexpr std::size_t kMaxWaitingFrames = 4096;
inline constexpr std::uint64_t kStatusIntervalMs = 1000;

inline std::uint64_t random_seed() {
  std::random_device device;
  return std::uint64_t{device()} << 32 ^ device();
}

inline std::string random_hex_32() {
  std::random_device device;
  std::string hex;
  for (int i = 0; i < 32; ++i) hex += "0123456789abcdef"[device() & 0xf];
  return hex;
}

// A change of members is answered within its own time; this is for the way there and back.
inline constexpr std::uint64_t kCallTimeoutMs = 45'000;

// Of the founders: nobody, on a node that joins.
inline std::map<NodeId, std::string> member_addresses(const Config& config) {
  std::map<NodeId, std::string> addresses;
  if (config.joins()) return addresses;
  for (const auto& member : config.cluster.initial_members) {
    addresses[NodeId{member.id}] = member.addr;
  }
  if (addresses.empty()) addresses[NodeId{config.node.id}] = config.node.advertise_addr;
  return addresses;
}

inline StoreOptions store_options(const Config& config) {
  StoreOptions options;
  options.data_dir = config.node.data_dir;
  options.node_id = NodeId{config.node.id};
  options.groups = {kSystemGroup, kFirstDataGroup};
  options.row_cache_size_bytes = config.storage.row_cache_mb << 20;
  options.block_cache_size_bytes = config.storage.block_cache_mb << 20;
  options.min_free_disk_mb = config.limits.min_free_disk_mb;
  options.ends_on_damage = config.joins() || config.cluster.initial_members.size() > 1;
  return options;
}

}  // namespace node_detail

inline Result<std::unique_ptr<Node>> Node::start(const Config& config, const PeerSecurity& security,
                                                 const Logger& logger, NodeEvents::Callbacks news) {
  Result<std::unique_ptr<Store>> store = Store::open(node_detail::store_options(config));
  if (!store) return store.error();
  Membership::Self self;
  self.id = NodeId{config.node.id};
  self.incarnation = (*store)->identity().incarnation;
  self.cluster_id = (*store)->identity().cluster_id;
  self.client_addr = config.node.advertise_client_addr;
  self.client_tls_port = static_cast<std::uint16_t>(config.client.tls_advertise_port);
  self.addr = config.node.advertise_addr;
  self.new_at_start = (*store)->is_new();
  Membership membership(std::move(self), node_detail::member_addresses(config));
  std::unique_ptr<Node> node(
      new Node(config, logger, std::move(news), std::move(*store), std::move(membership)));
  std::map<GroupId, raft::Restored> restored;
  if (Result<void> done = node->restore_machines(restored); !done) return done.error();
  if (Result<void> done = node->start_peers(security); !done) return done.error();
  node->make_replicas(std::move(restored));
  node->make_joining();
  node->store_->start(node->mailbox_);
  return node;
}

inline Node::Node(const Config& config, const Logger& logger, NodeEvents::Callbacks news,
                  std::unique_ptr<Store> store, Membership membership)
    : config_(config),
      logger_(logger.with({{"node", config.node.id}})),
      mailbox_(std::move(news), *store, node_detail::kMaxWaitingFrames),
      store_(std::move(store)),
      membership_(std::move(membership)),
      fresh_cluster_id_(node_detail::random_hex_32()),
      election_seed_(node_detail::random_seed()) {}

// The peers first, so that nothing comes in; then the store, which finishes what it was given.
inline Node::~Node() {
  peers_.reset();
  if (store_) store_->stop();  // whom it calls back is still there
  exchange_.reset();
  events_.clear();
  mailbox_.take(events_);
  events_.clear();  // with what they hold of the store
  store_.reset();
}

inline Result<void> Node::restore_machines(std::map<GroupId, raft::Restored>& restored) {
  auto system_machine = std::make_unique<SystemMachine>();
  const SystemMachine& system = *system_machine;
  groups_[kSystemGroup].machine = std::move(system_machine);
  auto key_values = std::make_unique<KeyValueMachine>(&kv::apply_command);
  key_values_ = key_values.get();
  groups_[kFirstDataGroup].machine = std::move(key_values);
  for (auto& [id, group] : groups_) {
    Result<raft::Restored> state = store_->restore(id, *group.machine);
    if (!state) return state.error();
    restored[id] = std::move(*state);
  }
  if (system.restored_membership()) membership_.set_record(*system.restored_membership());
  shard_map_ = system.restored_shard_map();
  return {};
}

inline Result<void> Node::start_peers(const PeerSecurity& security) {
  if (!config_.listens_for_peers()) return {};
  PeerOptions options;
  options.self = id();
  options.listen_addr = config_.node.internal_addr;
  options.security = security;
  options.rpc_timeout_ms = config_.limits.raft_rpc_timeout_secs * 1000;
  options.limits.max_message_size_bytes = std::max<std::size_t>(
      options.limits.max_message_size_bytes, max_operation_size_bytes() + (1U << 16));
  options.dial = dialed();
  neighbours_.set(options.dial);
  Result<std::unique_ptr<Peers>> peers = Peers::start(std::move(options), mailbox_, logger_);
  if (!peers) return peers.error();
  peers_ = std::move(*peers);
  return {};
}

inline std::string Node::dial_addr(NodeId member) const {
  const auto instead = config_.cluster.dial.find(member.value);
  return instead == config_.cluster.dial.end() ? membership_.addr(member) : instead->second;
}

inline std::map<NodeId, std::string> Node::dialed() const {
  std::map<NodeId, std::string> dialed;
  for (const auto& [member, addr] : membership_.members()) {
    if (member != id() && !addr.empty()) dialed[member] = dial_addr(member);
  }
  return dialed;
}

inline void Node::make_joining() {
  if (!config_.joins() || !peers_) return;
  if (membership_.record()) return check_cluster();
  joining_ = std::make_unique<Joining>(
      config_.cluster.join_addr, [this](const std::string& addr, const CallRequest& request,
                                        std::function<void(Result<CallReply>)> answer) {
        peers_->call(addr, request, node_detail::kCallTimeoutMs,
                     [this, answer = std::move(answer)](Result<CallReply> reply) {
                       post([answer, reply = std::move(reply)] { answer(reply); });
                     });
      });
  logger_.info("asks to be let into the cluster", {{"at", config_.cluster.join_addr}});
}

// A member asks for nothing, but data of one cluster at the door of another one is a mistake. If nobody
// answers there, nobody is asked again: who was asked at first may be long gone.
inline void Node::check_cluster() {
  CallRequest request;
  request.from = id();
  request.cluster_id = membership_.cluster_id();
  peers_->call(config_.cluster.join_addr, request, node_detail::kCallTimeoutMs,
               [this](Result<CallReply> reply) {
                 if (!reply || reply->status != CallStatus::kWrongCluster) return;
                 post([this] {
                   fail("the node at " + config_.cluster.join_addr +
                            " is of another cluster than the data of this node (" +
                            membership_.cluster_id() + "): start this node with an empty " +
                            "node.data_dir, or correct cluster.join_addr",
                        kCouldNotJoin);
                 });
               });
}

inline void Node::make_replicas(std::map<GroupId, raft::Restored> restored) {
  const std::uint64_t timeout_ms = config_.limits.request_timeout_secs * 1000;
  Transport& transport = peers_ ? static_cast<Transport&>(*peers_) : no_transport_;
  exchange_ = std::make_unique<SnapshotExchange>(
      SnapshotExchange::Options{
          config_.raft.snapshot_interval_entries, config_.raft.snapshot_interval_bytes,
          config_.raft.max_log_size_bytes, config_.raft.snapshot_max_mb_per_sec << 20},
      SnapshotExchange::Environment{*store_, peers_.get(), membership_, clock_,
                                    [this](std::function<void()> work) { post(std::move(work)); },
                                    [this](NodeId member) { return dial_addr(member); }},
      logger_);
  std::map<GroupId, Replica*> replicas;
  for (auto& [id, group] : groups_) {
    const Replica::Environment environment{clock_, *store_, transport, *store_, *exchange_, *this};
    group.replica = std::make_unique<Replica>(id, raft_config(), std::move(restored[id]),
                                              timeout_ms, environment);
    replicas[id] = group.replica.get();
  }
  exchange_->set_replicas(replicas);
  Forwarding::Site& forwarding_site = *this;
  std::map<GroupId, Replica*> of_clients = replicas;
  of_clients.erase(kSystemGroup);
  forwarding_ = std::make_unique<Forwarding>(std::move(of_clients), clock_,
                                             config_.limits.raft_rpc_timeout_secs * 1000,
                                             node_detail::random_seed() >> 1, forwarding_site);
  ClusterChanges::Site& site = *this;
  changes_ = std::make_unique<ClusterChanges>(
      ClusterChanges::Options{.auto_promote = config_.cluster.auto_promote}, membership_,
      std::move(replicas), clock_, site);
  refresh_self();  // before the first message: may_vote_ holds from the start
}

inline raft::Config Node::raft_config() const {
  raft::Config config;
  config.id = id();
  for (const auto& [member, addr] : membership_.initial_members()) {
    config.voters.push_back(member);
  }
  config.seed = election_seed_;
  config.lease_reads = config_.raft.read_mode == Config::ReadMode::kLease;
  config.tick_interval_ms = kTickIntervalMs;
  config.heartbeat_interval_ms = config_.raft.heartbeat_interval_ms;
  config.rests = true;
  config.election_timeout_min_ms = config_.raft.election_timeout_min_ms;
  config.election_timeout_max_ms = config_.raft.election_timeout_max_ms;
  config.vote_withhold_ms = config_.raft.vote_withhold_ms;
  config.lease_ms = config_.raft.lease_ms;
  config.max_log_memory_size_bytes = config_.limits.max_memory_per_raft_log_mb << 20;
  return config;
}

// ---- The loop ---------------------------------------------------------------------------------------

inline void Node::tick() {
  if (failure_) return;
  for (auto& [id, group] : groups_) group.replica->tick();
  follow_joining();
  if (knows_system_records()) changes_->tick();
  exchange_->tick();
  forwarding_->tick();
  if (replica(kSystemGroup).raft().is_leader()) propose_system_records();
  remove_expired();
  if (stopping_) hand_over();
  if (peers_) peers_->look_after_reactions();
  const std::uint64_t now_ms = clock_.now_ms();
  if (peers_ && now_ms >= next_status_ms_) {
    next_status_ms_ = now_ms + node_detail::kStatusIntervalMs;
    peers_->send_status(own_status());
  }
}

// Of the keys whose time is over, some hundred at a time.
inline void Node::remove_expired() {
  const GroupId group = kFirstDataGroup;
  const raft::Raft& raft = replica(group).raft();
  if (!raft.is_leader() || stopping_) return expiry_.not_leading();
  if (key_values_->expiring_count() == 0) return;
  const std::uint64_t time_ms = leader_time_ms(group);
  const std::optional<ExpiryScan> scan =
      expiry_.begin(clock_.now_ms(), time_ms, key_values_->soonest_given_ms());
  if (!scan) return;
  key_values_->forget_given_times();  // those up to here are on disk when that is read
  store_->scan_disk(group, [this, scan = *scan](const OrderedMap& map) {
    ExpiredKeys found = seshat::expired_keys(map, scan);
    mailbox_.push([this, scan, found = std::move(found)] { propose_removal(scan, found); });
  });
}

inline void Node::propose_removal(const ExpiryScan& scan, const ExpiredKeys& found) {
  expiry_.found(scan, found, clock_.now_ms());
  if (found.keys.empty() || !replica(kFirstDataGroup).raft().is_leader()) return expiry_.end();
  Operation operation;
  operation.type = OperationType::kRemoveExpired;
  operation.arguments.assign(found.keys.begin(), found.keys.end());
  (void)propose_here(kFirstDataGroup, std::move(operation), expiry_);
}

inline std::uint64_t Node::tick_interval_ms() const {
  if (joining_ || stopping_ || exchange_->has_long_log()) return kTickIntervalMs;
  std::uint64_t interval_ms = kMaxTickIntervalMs;
  for (const auto& [id, group] : groups_) {
    interval_ms = std::min(interval_ms, group.replica->raft().max_tick_ms());
  }
  return interval_ms;
}

inline void Node::drain() {
  mailbox_.take(events_);
  for (node_event::Any& event : events_) {
    std::visit([&](auto& body) { handle(body); }, event);
  }
}

inline void Node::end_turn() {
  if (failure_) return;
  for (auto& [id, group] : groups_) {
    group.replica->pump(id == kFirstDataGroup && waits_for_more(group.replica->raft()));
  }
  forwarding_->end_turn();
  refresh_self();
  if (peers_) peers_->flush();
}

inline bool Node::waits_for_more(const raft::Raft& raft) {
  if (!raft.is_leader() || stopping_) {
    gathering_.forget();
    return false;
  }
  const Gathering::Log log{raft.commit_index().value, raft.left_index().value,
                           raft.log().last_index().value};
  return gathering_.waits(log, Gathering::Clock::now());
}

inline void Node::handle(node_event::Synced& event) {
  replica(event.group).on_synced(event.write_id);
}

inline void Node::handle(node_event::Applied& event) {
  replica(event.group).on_applied(event.last, event.outcomes);
  if (event.group == kSystemGroup) read_system_records();
}

inline void Node::handle(node_event::Installed& event) {
  exchange_->installed(event.group);
  if (event.group == kSystemGroup) read_system_records();
}

// One read at a time, for two could come back in the other order.
inline void Node::read_system_records() {
  if (reading_system_) {
    read_system_again_ = true;
    return;
  }
  reading_system_ = true;
  read_from_disk(kSystemGroup, [this](const OrderedMap& map) {
    mailbox_.push(node_event::SystemRead{read_membership(map), read_shard_map(map)});
  });
}

inline void Node::handle(node_event::Fetched& event) {
  replica(event.group).on_fetched(event.peer, event.prev_log_term, std::move(event.entries));
}

inline void Node::handle(node_event::StorageFailed& event) {
  fail("storage failure: " + event.what);
}

// Whether this node knows what it has applied to the system group: what is derived from an older
// record could undo a newer one.
inline bool Node::knows_system_records() const { return !reading_system_; }

// What the system group holds has changed.
inline void Node::handle(node_event::SystemRead& event) {
  reading_system_ = false;
  if (std::exchange(read_system_again_, false)) read_system_records();
  if (!event.membership) return fail(event.membership.error().text);
  if (!event.shard_map) return fail(event.shard_map.error().text);
  if (*event.shard_map) shard_map_ = **event.shard_map;
  if (!*event.membership) return;
  const ClusterMembership& record = **event.membership;
  if (!membership_.cluster_id().empty() && membership_.cluster_id() != record.cluster_id) {
    return fail("the system group is of cluster " + record.cluster_id + ", the data directory of " +
                membership_.cluster_id() + ": check cluster.initial_members and node.data_dir");
  }
  if (store_->identity().cluster_id.empty()) store_->set_cluster_id(record.cluster_id);
  membership_.set_record(record);
  refresh_self();  // what is said to those who are dialed now
  store_->set_ends_on_damage(membership_.roles().voters.size() > 1);
  refresh_peers();
  // A peer that was accepted before the record was known may turn out to be another one.
  for (const auto& [peer, addr] : neighbours_.dialed()) {
    const auto seen = membership_.peer(peer);
    if (!seen) continue;
    if (const auto problem = membership_.judge(*seen)) {
      membership_.forget_peer(peer);
      peers_->disconnect(peer, *problem);
    }
  }
}

inline void Node::handle(node_event::HelloReceived& event) {
  if (joining_) {  // whoever calls is known in a moment
    const NodeId from = event.hello.node_id;
    early_hellos_.insert_or_assign(from, std::move(event));
    return;
  }
  HelloReply reply;
  const auto problem = membership_.judge(event.hello);
  reply.accepted = !problem.has_value();
  reply.reason = problem.value_or("");
  reply.self = own_hello();
  reply.removed = membership_.was_removed(event.hello);
  if (problem) log_refusal(event.hello.node_id, *problem);
  if (!problem) membership_.note_peer(event.hello);
  refresh_peers();  // whoever brings a newer record may be a member that is not known here yet
  event.answer(std::move(reply));
}

inline void Node::log_refusal(NodeId peer, const std::string& problem) {
  if (!neighbours_.refused(peer, problem)) return;
  logger_.warn("refused a peer", {{"peer", peer}, {"reason", problem}});
}

inline void Node::handle(node_event::FrameReceived& event) {
  for (const PeerMessage& message : event.frame.messages) {
    const auto group = groups_.find(message.group);
    if (group != groups_.end()) group->second.replica->receive(message.message);
  }
  for (const ForwardedRequest& request : event.frame.forwarded) {
    forwarding_->receive(event.from, request);
  }
  for (ForwardedReply& reply : event.frame.forwarded_replies) {
    forwarding_->receive(event.from, std::move(reply));
  }
  if (!event.frame.status) return;
  neighbours_.heard(event.from, *std::move(event.frame.status), clock_.now_ms());
}

inline void Node::handle(node_event::PeerUp& event) {
  if (const auto problem = membership_.judge(event.hello)) {
    // We know it better than it knows itself: nothing is to be sent there.
    log_refusal(event.peer, *problem);
    peers_->disconnect(event.peer, *problem);
    return;
  }
  membership_.note_peer(event.hello);
  membership_.note_acceptance(event.peer);
  neighbours_.up(event.peer);
  logger_.debug("peer is up", {{"peer", event.peer}});
}

inline void Node::handle(node_event::PeerRefused& event) {
  neighbours_.down(event.peer);
  membership_.note_refusal(event.peer);
  if (event.removed && !removed_) {
    removed_ = true;
    logger_.info(
        "this node was removed from its cluster, and stops; its data directory is of no "
        "more use to the cluster",
        {{"told_by", event.peer}, {"data_dir", config_.node.data_dir}});
    changes_->removed();
  }
  if (event.removed || !neighbours_.refused(event.peer, event.reason)) return;
  logger_.error("a peer refuses this node", {{"peer", event.peer}, {"reason", event.reason}});
}

inline void Node::handle(node_event::PeerDown& event) {
  neighbours_.down(event.peer);
  logger_.debug("peer is down", {{"peer", event.peer}, {"reason", event.reason}});
  for (auto& [id, group] : groups_) group.replica->unreachable(event.peer);
  forwarding_->peer_down(event.peer);
}

// Who waits for an answer that was lost here, or for one to what was lost here, hears when the streams
// end.
inline void Node::handle(node_event::ForwardedLost& event) {
  logger_.warn("a peer forwards more than this node can take in: it is disconnected",
               {{"peer", event.from}});
  peers_->disconnect(event.from, "it forwarded more than could be taken in");
}

inline void Node::handle(node_event::LogCut& event) {
  exchange_->handle_log_cut(event.group, event.first_index);
}

inline void Node::handle(node_event::CallReceived& event) {
  changes_->handle(event.request, std::move(event.answer));
}

inline void Node::handle(node_event::SnapshotOffered& event) {
  if (!failure_) exchange_->offered(event.offer, std::move(event.answer));
}

inline void Node::handle(node_event::SnapshotReceived& event) {
  if (!failure_) exchange_->received(event.group, event.writer, std::move(event.done));
}

inline void Node::handle(node_event::SnapshotBroken& event) {
  exchange_->broken(event.group, event.writer, event.reason);
}

inline void Node::handle(node_event::SnapshotFailed& event) {
  exchange_->failed(event.group, event.writer, event.reason);
}

inline void Node::fail(std::string what, std::string_view headline) {
  if (failure_) return;
  logger_.error(headline, {{"reason", what}});
  failure_ = std::move(what);
  for (auto& [id, group] : groups_) group.replica->abandon();
  if (forwarding_) forwarding_->abandon();
}

// ---- The cluster ----------------------------------------------------------------------------------------

inline void Node::leadership_changed(GroupId group) {
  const raft::Raft& raft = replica(group).raft();
  forwarding_->leadership_changed(group);
  const NodeId known = std::exchange(groups_.at(group).known_leader, raft.leader());
  if (raft.leader() != NodeId{}) groups_.at(group).last_leader = raft.leader();
  if (raft.leader() == known && !raft.is_leader()) return;
  const LogLevel level = membership_.members().size() == 1 ? LogLevel::kDebug : LogLevel::kInfo;
  std::string_view what = "follows";
  if (raft.is_leader()) {
    what = "leads";
  } else if (raft.leader() == NodeId{}) {
    what = raft.lost_quorum() ? "stepped down: no majority answers" : "lost its leader";
  }
  logger_.log(level, what,
              {{"group", group}, {"term", raft.current_term()}, {"leader", raft.leader()}});
}

inline Node::Past Node::past() const {
  Past past;
  for (const auto& [group_id, group] : groups_) {
    const raft::Raft& raft = group.replica->raft();
    past.log_is_empty = past.log_is_empty && raft.log().last_index() == Index{};
    past.voted_for_another =
        past.voted_for_another || (raft.voted_for() != NodeId{} && raft.voted_for() != id());
  }
  return past;
}

inline Hello Node::own_hello() const {
  const Past now = past();
  return membership_.hello(now.log_is_empty, now.voted_for_another);
}

// What new streams say of this node, and whether its vote counts, as of now.
inline void Node::refresh_self() {
  for (auto& [group_id, group] : groups_) {
    has_voted_ = has_voted_ || (may_vote_ && group.replica->raft().voted_for() != NodeId{});
  }
  may_vote_ = membership_.may_vote(kSystemGroup, has_voted_);
  for (auto& [group_id, group] : groups_) {
    group.replica->set_may_vote(membership_.may_vote(group_id, has_voted_));
  }
  if (!peers_) return;
  const Told now{past(), membership_.record() ? membership_.record()->membership_version : 0,
                 !membership_.cluster_id().empty()};
  if (now == told_) return;
  told_ = now;
  peers_->set_hello(own_hello());
}

// Who is dialed, and so heard of.
inline void Node::refresh_peers() {
  if (!peers_) return;
  if (neighbours_.set(dialed())) peers_->set_peers(neighbours_.dialed());
}

inline void Node::follow_joining() {
  if (!joining_) return;
  joining_->tick(clock_.now_ms(), own_hello());
  if (joining_->failure()) return fail(*joining_->failure(), kCouldNotJoin);
  if (!joining_->membership()) return;
  membership_.set_joined(*joining_->membership());
  store_->set_cluster_id(membership_.cluster_id());
  logger_.info("was let into the cluster, as a learner until it has caught up",
               {{"cluster", membership_.cluster_id()}});
  joining_.reset();
  refresh_self();  // what is said to those who are dialed now
  refresh_peers();
  for (auto& [node, event] : std::exchange(early_hellos_, {})) handle(event);
}

inline void Node::call(NodeId node, CallRequest request, std::function<void(CallReply)> answer) {
  const auto heard = [this, answer = std::move(answer)](Result<CallReply> reply) {
    CallReply heard;
    heard.status = CallStatus::kNotReady;
    if (!reply) heard.reason = reply.error().text;
    post([answer, reply = reply ? *std::move(reply) : std::move(heard)] { answer(reply); });
  };
  if (!peers_) return heard(Error{"this node does not talk to peers"});
  peers_->call(dial_addr(node), request, node_detail::kCallTimeoutMs, heard);
}

// All slots are in the one data group, and every member has a copy of it.
inline ShardMap Node::wanted_shard_map() const {
  ShardInfo shard;
  shard.id = kFirstDataGroup;
  shard.slots = {{0, static_cast<Slot>(kSlotCount - 1)}};
  for (const auto& [member, addr] : membership_.members()) {
    const auto state = membership_.state(member);
    if (!state || *state == MemberState::kActive) shard.replicas.push_back(member);
  }
  ShardMap map;
  map.shards = {std::move(shard)};
  map.replication_factor = static_cast<std::uint32_t>(config_.cluster.replication_factor);
  return map;
}

// The system leader keeps the records as they should be: the first one draws the cluster id.
inline void Node::propose_system_records() {
  const raft::Raft& raft = replica(kSystemGroup).raft();
  const bool settled = raft.last_applied() == raft.log().last_index() && knows_system_records();
  if (system_proposal_.under_way() || stopping_ || !settled) return;
  if (const auto next = membership_.proposal(fresh_cluster_id_, stamp_ms())) {
    return propose_record(OperationType::kSetMembership, codec::encode(*next));
  }
  if (const auto next = changes_->next_record(stamp_ms())) {
    return propose_record(OperationType::kSetMembership, codec::encode(*next));
  }
  ShardMap wanted = wanted_shard_map();
  if (shard_map_) wanted.replication_factor = shard_map_->replication_factor;
  if (shard_map_ != wanted) propose_record(OperationType::kSetShardMap, codec::encode(wanted));
}

inline void Node::propose_record(OperationType type, const std::string& record) {
  Operation operation;
  operation.type = type;
  operation.arguments = {record};
  system_proposal_.begin();
  (void)propose_here(kSystemGroup, std::move(operation), system_proposal_);
}

// ---- Clients --------------------------------------------------------------------------------------------

inline std::optional<GroupId> Node::group_of(Slot slot) const {
  if (!shard_map_) return kFirstDataGroup;  // nothing else is recorded in the beginning
  for (const ShardInfo& shard : shard_map_->shards) {
    for (const SlotRange& range : shard.slots) {
      if (range.first <= slot && slot <= range.last) return shard.id;
    }
  }
  return std::nullopt;
}

// Wall time, which never goes back while this process lives.
inline std::uint64_t Node::stamp_ms() {
  last_stamp_ms_ = std::max(last_stamp_ms_, LeaderClock::wall_ms());
  return last_stamp_ms_;
}

// A read that waits for the time may wait for it on any node (Connection::wait_for_time).
inline WriteMark Node::propose(GroupId group, Operation operation, Waiter& waiter) {
  if (!stopping_ && (forwards() || operation.type == OperationType::kTime) && may_forward(group)) {
    return {{}, forwarding_->propose(group, codec::encode(operation), waiter)};
  }
  return {propose_here(group, std::move(operation), waiter)};
}

inline bool Node::may_forward(GroupId group) const {
  const raft::Raft& raft = replica(group).raft();
  return group != kSystemGroup && !raft.is_leader() && raft.leader() != NodeId{} && !failure_;
}

inline Index Node::propose_here(GroupId group, Operation operation, Waiter& waiter) {
  if (stopping_) {
    waiter.failed(Refusal::kNotLeader);
    return {};
  }
  if (group == kSystemGroup) {
    operation.time_ms = stamp_ms();
  } else {
    const Term term = replica(group).raft().current_term();
    operation.time_ms = leader_clock_.stamp_ms(term, clock_.now_ms(), key_values_->time_ms());
  }
  return replica(group).propose(codec::encode(operation), waiter);
}

inline Index Node::propose_forwarded(GroupId group, const std::string& bytes, Waiter& waiter) {
  Result<Operation> operation = codec::decode_operation(bytes);
  // As much as a client may bring, and as peers can be sent.
  const kv::Limits limits{config_.limits.max_key_size_bytes, config_.limits.max_value_size_bytes,
                          config_.limits.max_request_size_bytes};
  const bool served = operation && bytes.size() <= max_operation_size_bytes() &&
                      all_know_operations(operation_version_of(operation->type)) &&
                      kv::is_proposable(*operation, limits);
  if (!served) {
    waiter.failed(Refusal::kNotLeader);
    return {};
  }
  return propose_here(group, *std::move(operation), waiter);
}

inline Forwarding::Sent Node::send_forwarded(NodeId to, Forwarded forwarded) {
  const std::optional<Hello> peer = membership_.peer(to);
  const bool knows = peer && peer->max_protocol_version >= kForwardingProtocolVersion;
  if (!peers_ || !knows) return Forwarding::Sent::kNo;
  switch (peers_->forward(to, std::move(forwarded))) {
    case PeerLink::Pushed::kQueued:
      return Forwarding::Sent::kYes;
    case PeerLink::Pushed::kTooLarge:
      return Forwarding::Sent::kTooLarge;
    case PeerLink::Pushed::kLost:
      break;
  }
  return Forwarding::Sent::kNo;
}

inline bool Node::readable(GroupId group, WriteMark after, bool read_only) const {
  return replica(group).readable(after.index) || (read_only && serves_stale(group, after));
}

// What the connection itself wrote is there, or the leader is asked after all.
inline bool Node::serves_stale(GroupId group, WriteMark after) const {
  if (!reads_stale()) return false;
  const raft::Raft& raft = replica(group).raft();
  const bool has_state = !failure_ && !joining_ && !exchange_->is_restoring(group);
  const bool forwarded = after.forwarded_id != 0;
  const Index written =
      std::max(after.index, forwarded ? forwarding_->answered_index(group) : Index{});
  return has_state && !raft.is_leader() && raft.last_applied() >= written &&
         !(forwarded && forwarding_->is_under_way(after.forwarded_id));
}

inline void Node::read(GroupId group, WriteMark after, bool read_only, Waiter& waiter) {
  const bool here = read_only && config_.client.follower_reads != Config::FollowerReads::kOff;
  if (!stopping_ && (here || forwards()) && may_forward(group)) {
    return forwarding_->read(group, after.forwarded_id, waiter);
  }
  replica(group).read(after.index, waiter);
}

inline void Node::read_from_disk(GroupId group, std::function<void(const OrderedMap&)> work) {
  store_->read_from_disk(group, std::move(work));
}

inline void Node::scan_disk(GroupId group, std::function<void(const OrderedMap&)> work) {
  store_->scan_disk(group, std::move(work));
}

inline ReadTimes Node::times(GroupId group, bool read_only) const {
  if (group == kSystemGroup) return {};
  const std::uint64_t state_ms = key_values_->time_ms();
  const raft::Raft& raft = replica(group).raft();
  if (!raft.is_leader()) {
    const bool stale = read_only && reads_stale();
    return {state_ms, stale ? state_ms : forwarding_->heard_time_ms(group)};
  }
  return {state_ms, leader_clock_.stamp_ms(raft.current_term(), clock_.now_ms(), state_ms)};
}

inline bool Node::disk_is_full() const {
  const std::vector<NodeId>& voters = replica(kFirstDataGroup).raft().configuration().voters;
  const auto roomy = std::count_if(voters.begin(), voters.end(),
                                   [&](NodeId voter) { return has_disk_room(voter); });
  return static_cast<std::size_t>(roomy) < voters.size() / 2 + 1;
}

// As far as it has said so.
inline bool Node::has_disk_room(NodeId node) const {
  if (node == id()) return !store_->disk_low();
  const Neighbours::Heard* heard = neighbours_.last_heard(node);
  return heard == nullptr || !heard->status.disk_low;
}

// Never this node itself, never empty, never a guess: clients follow it without asking twice.
inline bool Node::leader_may_be_named(NodeId leader) const {
  return leader != NodeId{} && leader != id() && !membership_.client_addr(leader).empty();
}

inline std::string Node::moved_text(Slot slot, NodeId leader, bool by_tls) const {
  if (config_.client.moved == Config::Moved::kRedis) {
    const std::string addr = membership_.client_addr(leader);
    const std::uint16_t tls_port = by_tls ? membership_.client_tls_port(leader) : 0;
    const std::string host = addr.substr(0, addr.rfind(':'));
    return "MOVED " + std::to_string(slot) + " " +
           (tls_port != 0 ? host + ":" + std::to_string(tls_port) : addr);
  }
  return "MOVED " + std::to_string(leader.value);
}

inline std::string Node::refusal_text(Slot slot, Refusal refusal, bool by_tls) const {
  switch (refusal) {
    case Refusal::kTimeout:
      return "ERR timeout";
    case Refusal::kUnknown:
      return std::string("ERR outcome unknown: ") +
             (failure_ ? "storage failed" : "leadership was lost") +
             " while this write was in flight; it may or may not have happened";
    case Refusal::kLogFull:
    case Refusal::kStorage:
      return "ERR storage failure";
    case Refusal::kBusy:
      return "ERR busy: too much waits for the leader already; nothing was done";
    case Refusal::kReplyTooLarge:
      return "ERR reply too large to come from the leader; the command was carried out";
    case Refusal::kRequestTooLarge:
      return "ERR request too large to go to the leader; nothing was done";
    case Refusal::kNoQuorum:
      return "NOQUORUM a majority of the nodes is out of reach; nothing was done";
    case Refusal::kNotLeader:
      break;
  }
  const std::optional<GroupId> group = group_of(slot);
  const NodeId leader = group ? replica(*group).raft().leader() : NodeId{};
  if (leader_may_be_named(leader)) return moved_text(slot, leader, by_tls);
  if (group && exchange_->is_restoring(*group)) {
    return "LOADING this node is restoring a snapshot, and knows no leader to ask";
  }
  return "CLUSTERDOWN no leader, election in progress";
}

// ---- Stopping ---------------------------------------------------------------------------------------------

// Writes under way are finished first, so that their clients hear how they ended.
inline void Node::hand_over() {
  for (auto& [group_id, group] : groups_) {
    if (group.replica->raft().is_leader() && group.replica->waiting() == 0) {
      group.replica->transfer_leadership();
    }
  }
}

inline bool Node::may_stop() const {
  if (forwarding_->waiting() != 0) return false;
  return std::all_of(groups_.begin(), groups_.end(), [&](const auto& entry) {
    const Replica& replica = *entry.second.replica;
    const bool hands_over = replica.raft().is_leader() && has_other_voters(replica);
    return replica.waiting() == 0 && !hands_over;
  });
}

inline bool Node::has_other_voters(const Replica& replica) const {
  const std::vector<NodeId>& voters = replica.raft().configuration().voters;
  return voters.size() > 1 || (voters.size() == 1 && voters.front() != id());
}

// ---- What is known here -----------------------------------------------------------------------------------

inline bool Node::has_leader() const {
  return std::all_of(groups_.begin(), groups_.end(), [](const auto& entry) {
    return entry.second.replica->raft().leader() != NodeId{};
  });
}

inline Topology Node::topology() const {
  Topology topology;
  topology.self = id();
  topology.ok = true;
  for (const auto& [member, addr] : membership_.members()) {
    ClusterNode node;
    node.id = member;
    if (const auto client = split_address(membership_.client_addr(member))) {
      node.host = client->host;
      node.port = client->port;
      node.tls_port = membership_.client_tls_port(member);
    }
    if (const auto peer = split_address(addr)) node.peer_port = peer->port;
    node.connected = is_connected(member);
    topology.nodes.push_back(std::move(node));
  }
  for (const ShardInfo& shard : shard_map_.value_or(wanted_shard_map()).shards) {
    const raft::Raft& raft = replica(shard.id).raft();
    const bool is_led = raft.leader() != NodeId{};
    topology.shards.push_back(
        {shard.slots, groups_.at(shard.id).last_leader, is_led, shard.replicas});
    topology.epoch = std::max(topology.epoch, raft.current_term());
    topology.ok = topology.ok && is_led;
  }
  return topology;
}

inline void Node::administer(AdminRequest request, std::function<void(CallReply)> done) {
  if (request.action == AdminAction::kSnapshot) return exchange_->take_all(done);
  changes_->administer(request, std::move(done));
}

// A leader's commit index is on a majority of the voters; those that have it all are counted, under
// the configuration that is in force and, while that changes, under the one before it as well.
inline std::optional<std::size_t> Node::replicas_with_all() const {
  const raft::Raft& raft = replica(kFirstDataGroup).raft();
  if (!raft.is_leader()) return std::nullopt;
  const std::vector<raft::PeerStatus> peers = raft.peers();
  const auto having_all = [&](const std::vector<NodeId>& voters) {
    return static_cast<std::size_t>(
        std::count_if(peers.begin(), peers.end(), [&](const raft::PeerStatus& peer) {
          const bool votes = std::find(voters.begin(), voters.end(), peer.id) != voters.end();
          return votes && peer.id != id() && peer.match_index >= raft.commit_index();
        }));
  };
  const raft::Configuration& configuration = raft.configuration();
  const std::size_t now = having_all(configuration.voters);
  return configuration.outgoing.empty() ? now : std::min(now, having_all(configuration.outgoing));
}

inline NodeStatus Node::own_status() const {
  NodeStatus status;
  status.disk_low = store_->disk_low();
  status.version = kVersion;
  for (const auto& [group, state] : groups_) {
    const auto snapshot = store_->newest_snapshot(group);
    status.groups.push_back(
        node_info::status_of(group, state.replica->raft(), store_->log_stats(group),
                             snapshot ? snapshot->snapshot.last_included_index : Index{},
                             exchange_->is_restoring(group)));
  }
  return status;
}

inline ClusterStatus Node::cluster_status() const {
  ClusterStatus status;
  if (!membership_.record()) return status;
  status.cluster_id = membership_.record()->cluster_id;
  status.membership_version = membership_.record()->membership_version;
  status.system_leader = replica(kSystemGroup).raft().leader();
  for (const auto& [member, info] : membership_.record()->members) {
    MemberStatus& of = status.members.emplace_back();
    of.info = info;
    of.is_self = member == id();
    of.connected = of.is_self || is_connected(member);
    if (of.is_self) of.status = own_status();
    const Neighbours::Heard* heard = neighbours_.last_heard(member);
    if (heard == nullptr) continue;
    of.status = heard->status;
    of.heard_ms_ago = clock_.now_ms() - heard->at_ms;
  }
  return status;
}

// slave0:ip=...,port=...,state=online,offset=...: those that are connected. An offset is a log index.
inline void Node::append_replicas(const raft::Raft& raft, std::string& out) const {
  std::size_t number = 0;
  for (const raft::PeerStatus& peer : raft.peers()) {
    const auto address = split_address(membership_.client_addr(peer.id));
    if (!address || !is_connected(peer.id)) continue;
    node_info::line(out, "slave" + std::to_string(number++),
                    "ip=" + address->host + ",port=" + std::to_string(address->port) +
                        ",state=" + (peer.needs_snapshot ? "wait_bgsave" : "online") +
                        ",offset=" + std::to_string(peer.match_index.value));
  }
}

inline void Node::append_info(std::string_view section, std::string& out) const {
  using node_info::line;
  if (section == "raft") {
    line(out, "raft_node_id", id().value);
    line(out, "raft_cluster_id", membership_.cluster_id());
    line(out, "raft_may_vote", may_vote_ ? 1 : 0);
    line(out, "raft_wiped", membership_.was_wiped() ? 1 : 0);
    line(out, "raft_forwarded_waiting", forwarding_->waiting());
    line(out, "raft_short_of_cpu", gathering_.allowed() ? 1 : 0);
    line(out, "raft_gathered_rounds", gathering_.rounds());
    for (const auto& [group, state] : groups_) {
      node_info::append_group(out, *state.replica, store_->log_stats(group), clock_.now_ms());
    }
  } else if (section == "replication") {
    const raft::Raft& raft = replica(kFirstDataGroup).raft();
    line(out, "role", raft.is_leader() ? "master" : "slave");
    line(out, "connected_slaves", raft.is_leader() ? neighbours_.connected() : 0);
    line(out, "master_repl_offset", raft.commit_index().value);
    if (raft.is_leader()) return append_replicas(raft, out);
    const auto leader = split_address(membership_.client_addr(raft.leader()));
    line(out, "master_host", leader ? leader->host : "");
    line(out, "master_port", leader ? leader->port : 0);
    line(out, "master_link_status", leader ? "up" : "down");
  } else if (section == "persistence") {
    const bool restoring = std::any_of(groups_.begin(), groups_.end(), [&](const auto& group) {
      return exchange_->is_restoring(group.first);
    });
    line(out, "loading", restoring ? 1 : 0);
    node_info::append_store(out, store_->stats(), store_->disk_low());
  } else if (section == "keyspace") {
    std::string bytes;
    if (cached(kFirstDataGroup).get(kDataStateKey, bytes) != Lookup::kFound) return;
    const auto state = codec::decode_machine_state(bytes);
    if (!state || state->key_count == 0) return;
    line(out, "db0",
         "keys=" + std::to_string(state->key_count) +
             ",expires=" + std::to_string(state->expiring_count) + ",avg_ttl=0");
  }
}

}  // namespace seshat

#endif  // SESHAT_NODE_HPP
