// seshat/snapshot_exchange.hpp - when logs are cut, and how members get what was cut off.
//
//   leader    send_snapshot ──> one that the log still follows on? ──> open ──> stream ──> ended
//                                └── else build, once for all who wait ──┘
//   follower  offered ──> (rows come in) ──> received ──> Raft, then the disk ──> installed
//
// A log is cut every snapshot_interval_entries, or when it is snapshot_interval_bytes long, up to
// what is applied here and needed by no member that can be reached (raft.hpp knows); beyond
// max_log_size_bytes also what somebody needs, who gets a snapshot instead. While that travels the
// log may grow by as much as the snapshot is large, until its peer has caught up behind it: else it
// would need the next one when it has this one.
//
// Keeps:    one snapshot a group comes in at a time. What came in of one stays when its connection
//           breaks, and the same offer goes on behind it.
//           A snapshot goes when nobody is sent it any more, or was for a minute; the last one that
//           an administrator asked for stays until there is a newer one, or the node stops.
// Limits:   a follower that a log outruns by more than its snapshot's size gets another one.
// Threads:  the loop; what store and peers answer comes back through `post`.
// Needs:    replica.hpp, membership.hpp, store.hpp, peer.hpp.
#ifndef SESHAT_SNAPSHOT_EXCHANGE_HPP
#define SESHAT_SNAPSHOT_EXCHANGE_HPP

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <iterator>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "seshat/log.hpp"
#include "seshat/membership.hpp"
#include "seshat/peer.hpp"
#include "seshat/raft.hpp"
#include "seshat/records.hpp"
#include "seshat/replica.hpp"
#include "seshat/result.hpp"
#include "seshat/snapshot.hpp"
#include "seshat/store.hpp"

namespace seshat {

class SnapshotExchange final : public SnapshotSender {
 public:
  struct Options {
    std::uint64_t snapshot_interval_entries = 10'000;
    std::uint64_t snapshot_interval_bytes = 100'000'000;
    std::uint64_t max_log_size_bytes = 500'000'000;
    std::uint64_t max_bytes_per_second = 0;  // of one snapshot; 0: no limit
  };
  struct Environment {
    Store& store;
    Peers* peers;  // null: nobody to send to
    const Membership& membership;
    const Clock& clock;
    // Runs it on the loop; any thread.
    std::function<void(std::function<void()>)> post;
    // Where this node dials a member.
    std::function<std::string(NodeId)> dial_addr;
  };

  SnapshotExchange(Options options, Environment environment, const Logger& logger)
      : options_(options), environment_(std::move(environment)), logger_(logger) {}

  // Before anything else.
  void set_replicas(std::map<GroupId, Replica*> replicas) { replicas_ = std::move(replicas); }

  // Every tick.
  void tick();
  // Whether there is so much to cut that a tick is soon worth while.
  [[nodiscard]] bool has_long_log() const;
  // Takes a snapshot of every group, to keep; `done` hears what was taken.
  void take_all(const std::function<void(CallReply)>& done);

  // ---- the leader
  void send_snapshot(GroupId group, NodeId peer) override;
  void handle_log_cut(GroupId group, Index first_index);

  // ---- the follower: see PeerEvents and StoreEvents
  void offered(const SnapshotOffer& offer, std::function<void(SnapshotAnswer)> answer);
  void received(GroupId group, const std::shared_ptr<SnapshotWriter>& writer,
                std::function<void(SnapshotReply)> done);
  void broken(GroupId group, const std::shared_ptr<SnapshotWriter>& writer,
              const std::string& reason);
  void failed(GroupId group, const std::shared_ptr<SnapshotWriter>& writer,
              const std::string& reason);
  void installed(GroupId group);
  // Whether what this node has of the group is about to be replaced.
  [[nodiscard]] bool is_restoring(GroupId group) const { return incoming_.contains(group); }

 private:
  // So many intervals of entries may wait for what was applied to become durable by itself: the more
  // gather, the fewer rows they make.
  static constexpr std::uint64_t kPatience = 4;
  static constexpr std::uint64_t kRetryMs = 1'000;
  static constexpr std::uint64_t kAbandonedMs = 60'000;  // a snapshot that nobody goes on with

  using Route = std::pair<GroupId, NodeId>;
  struct Outgoing {
    std::uint64_t number = 0;  // tells one attempt from the next
    Index index;
    std::shared_ptr<SnapshotTransfer> transfer;
    std::optional<std::uint64_t> retry_at_ms;  // it failed
  };
  // Whom the log is held for: it was sent a snapshot, and has not caught up behind it yet.
  struct Served {
    std::uint64_t size_bytes = 0;  // of the snapshot
    std::uint64_t reachable_at_ms = 0;
  };
  struct Incoming {
    SnapshotMetadata metadata;
    std::shared_ptr<SnapshotWriter> writer;
    std::uint64_t idle_since_ms = 0;  // 0: rows come in, or it is being installed
    std::function<void(SnapshotReply)> done;
  };

  [[nodiscard]] Replica* find(GroupId group) const;
  [[nodiscard]] std::optional<raft::PeerStatus> status_of(Route route) const;
  void retry_due();
  void drop_abandoned();

  void consider_cut(GroupId group, Replica& replica);
  [[nodiscard]] bool is_worth_a_cut(GroupId group, Index cut, Index to, bool too_long) const;
  [[nodiscard]] std::uint64_t interval_bytes() const;
  [[nodiscard]] std::uint64_t max_log_size_bytes(GroupId group) const;
  void release_served();
  [[nodiscard]] bool is_held_for(Route route, Served& served) const;
  void stop_needless();

  using Built = std::function<void(const Result<SnapshotMetadata>&)>;
  void build(GroupId group, const Built& also);
  void built(GroupId group, const Result<SnapshotMetadata>& snapshot);
  void begin(GroupId group, NodeId peer, const SnapshotMetadata& snapshot);
  void opened(Route route, std::uint64_t number, const SnapshotMetadata& snapshot,
              Result<std::shared_ptr<SnapshotReader>> reader);
  void ended(Route route, std::uint64_t number, const Result<Index>& outcome);
  void send_again_later(Route route, const std::string& why);
  void wait_to_retry(Route route);
  void give_up_damaged(GroupId group, Index index);
  [[nodiscard]] bool is_kept(GroupId group, Index index) const;
  void let_go_of_snapshot(GroupId group);
  void let_go_of_unused();

  [[nodiscard]] std::optional<std::string> why_not_take(const SnapshotOffer& offer) const;
  void receive(const SnapshotOffer& offer, std::function<void(SnapshotAnswer)> answer);
  void drop_incoming(GroupId group);
  [[nodiscard]] static SnapshotReply refusal(std::string reason);
  [[nodiscard]] static SnapshotReply has_all(const raft::Raft& raft);

  Options options_;
  Environment environment_;
  Logger logger_;
  std::map<GroupId, Replica*> replicas_;
  std::map<GroupId, Index> cut_asked_;  // up to where

  std::uint64_t next_number_ = 1;
  std::map<Route, Outgoing> outgoing_;
  std::map<Route, Served> served_;
  std::map<GroupId, std::set<NodeId>> waiting_;  // for a snapshot that is being built
  std::multiset<GroupId> building_;
  std::map<GroupId, Index> to_keep_;             // the snapshot that an administrator asked for
  std::map<GroupId, std::uint64_t> used_at_ms_;  // the snapshot that is there

  std::map<GroupId, Incoming> incoming_;
};

// =================================================================================================
// Bodies
// =================================================================================================

inline Replica* SnapshotExchange::find(GroupId group) const {
  const auto found = replicas_.find(group);
  return found == replicas_.end() ? nullptr : found->second;
}

inline std::optional<raft::PeerStatus> SnapshotExchange::status_of(Route route) const {
  for (const raft::PeerStatus& peer : find(route.first)->raft().peers()) {
    if (peer.id == route.second) return peer;
  }
  return std::nullopt;
}

inline void SnapshotExchange::tick() {
  release_served();
  for (const auto& [group, replica] : replicas_) consider_cut(group, *replica);
  stop_needless();
  retry_due();
  let_go_of_unused();
  drop_abandoned();
}

inline bool SnapshotExchange::has_long_log() const {
  return std::any_of(replicas_.begin(), replicas_.end(), [this](const auto& entry) {
    const raft::Raft& raft = entry.second->raft();
    return !raft.is_installing() &&
           raft.compactable_index() >= raft.first_index() + options_.snapshot_interval_entries;
  });
}

inline void SnapshotExchange::retry_due() {
  const std::uint64_t now_ms = environment_.clock.now_ms();
  std::vector<Route> due;
  for (const auto& [route, sending] : outgoing_) {
    if (sending.retry_at_ms && *sending.retry_at_ms <= now_ms) due.push_back(route);
  }
  for (const Route& route : due) {
    outgoing_.erase(route);
    find(route.first)->on_snapshot_ended(route.second, {});  // it asks again, if it still has to
  }
}

// A stream that has the writer goes on with it, though the end of an older one was heard after the
// newer one's offer.
inline void SnapshotExchange::drop_abandoned() {
  const std::uint64_t now_ms = environment_.clock.now_ms();
  std::vector<GroupId> abandoned;
  for (const auto& [group, coming] : incoming_) {
    if (coming.idle_since_ms == 0 || coming.writer.use_count() > 1) continue;
    const bool needed = find(group)->raft().needs(coming.metadata.snapshot);
    if (!needed || now_ms > coming.idle_since_ms + kAbandonedMs) abandoned.push_back(group);
  }
  for (const GroupId group : abandoned) drop_incoming(group);
}

// ---- Compaction ---------------------------------------------------------------------------------

inline void SnapshotExchange::consider_cut(GroupId group, Replica& replica) {
  if (replica.raft().is_installing()) return;
  const LogStats log = environment_.store.log_stats(group);
  const Index cut = std::max(cut_asked_[group], log.first_index - 1);
  Index to = replica.raft().compactable_index();
  const std::uint64_t most_bytes = max_log_size_bytes(group);
  const bool too_long = log.size_bytes > most_bytes;
  if (too_long) to = std::max(to, environment_.store.cut_point(group, most_bytes));
  const bool many = to > cut && to - cut > kPatience * options_.snapshot_interval_entries;
  if (to > log.applied_durable && (many || log.size_bytes > interval_bytes())) {
    environment_.store.write_soon(group);
  }
  to = std::min(to, log.applied_durable);
  if (to <= cut || !is_worth_a_cut(group, cut, to, too_long)) return;
  cut_asked_[group] = to;
  environment_.store.cut_log(group, to);
}

// Either of many entries, or of a log that is long the tenth of what makes it so.
inline bool SnapshotExchange::is_worth_a_cut(GroupId group, Index cut, Index to,
                                             bool too_long) const {
  if (to - cut >= options_.snapshot_interval_entries) return true;
  const Store& store = environment_.store;
  if (!too_long && store.log_stats(group).size_bytes <= options_.snapshot_interval_bytes) {
    return false;
  }
  return store.log_size_until(group, to) - store.log_size_until(group, cut) >=
         interval_bytes() / 10;
}

// A log that is longer is to be cut.
inline std::uint64_t SnapshotExchange::interval_bytes() const {
  return std::min(options_.snapshot_interval_bytes, options_.max_log_size_bytes);
}

inline std::uint64_t SnapshotExchange::max_log_size_bytes(GroupId group) const {
  std::uint64_t held_bytes = 0;
  for (const auto& [route, served] : served_) {
    if (route.first == group) held_bytes = std::max(held_bytes, served.size_bytes);
  }
  return options_.max_log_size_bytes + (environment_.store.disk_low() ? 0 : held_bytes);
}

inline void SnapshotExchange::release_served() {
  for (auto at = served_.begin(); at != served_.end();) {
    at = is_held_for(at->first, at->second) ? std::next(at) : served_.erase(at);
  }
}

// Until the log could be cut to its bound again and would still have what the peer needs next.
inline bool SnapshotExchange::is_held_for(Route route, Served& served) const {
  const raft::Raft& raft = find(route.first)->raft();
  const auto peer = status_of(route);
  if (!raft.is_leader() || !peer) return false;
  const std::uint64_t now_ms = environment_.clock.now_ms();
  if (peer->reachable) served.reachable_at_ms = now_ms;
  if (now_ms - served.reachable_at_ms > raft.config().keep_log_for_ms) return false;
  if (peer->needs_snapshot || outgoing_.contains(route)) return true;
  const Store& store = environment_.store;
  return peer->match_index < std::max(store.cut_point(route.first, options_.max_log_size_bytes),
                                      store.log_stats(route.first).first_index);
}

inline void SnapshotExchange::handle_log_cut(GroupId group, Index first_index) {
  Replica* replica = find(group);
  if (replica != nullptr) replica->on_compacted(first_index);
  logger_.debug("cut the log", {{"group", group}, {"first_index", first_index}});
}

// ---- Sending ------------------------------------------------------------------------------------

// The log must hold the snapshot's last entry, or this node could not go on behind it. None is built
// for who can't be reached: it would hold disk for as long as that is away.
inline void SnapshotExchange::send_snapshot(GroupId group, NodeId peer) {
  if (environment_.peers == nullptr) return;
  const Route route{group, peer};
  if (const auto sending = outgoing_.find(route); sending != outgoing_.end()) {
    if (!sending->second.retry_at_ms) {
      find(group)->on_sending_snapshot(peer, sending->second.index);  // it may have forgotten
    }
    return;
  }
  const auto status = status_of(route);
  if (!status || !status->reachable) return wait_to_retry(route);
  const auto newest = environment_.store.newest_snapshot(group);
  const Index first = environment_.store.log_stats(group).first_index;
  if (newest && newest->snapshot.last_included_index >= first &&
      newest->snapshot.last_included_index >= cut_asked_[group]) {
    return begin(group, peer, *newest);
  }
  waiting_[group].insert(peer);
  if (!building_.contains(group)) build(group, nullptr);
}

// `also` hears of it before those do who wait for a snapshot of the group.
inline void SnapshotExchange::build(GroupId group, const Built& also) {
  building_.insert(group);
  const ClusterMembership membership =
      environment_.membership.record().value_or(ClusterMembership{});
  environment_.store.build_snapshot(
      group, membership, [this, group, also](Result<SnapshotMetadata> snapshot) {
        environment_.post([this, group, also, snapshot = std::move(snapshot)] {
          if (also) also(snapshot);
          built(group, snapshot);
        });
      });
}

inline void SnapshotExchange::built(GroupId group, const Result<SnapshotMetadata>& snapshot) {
  building_.erase(building_.find(group));
  const std::set<NodeId> peers = std::exchange(waiting_[group], {});
  if (snapshot) {
    used_at_ms_[group] = environment_.clock.now_ms();
    logger_.info("took a snapshot", {{"group", group},
                                     {"index", snapshot->snapshot.last_included_index},
                                     {"rows", snapshot->row_count},
                                     {"bytes", snapshot->size_bytes}});
  }
  for (const NodeId peer : peers) {
    if (snapshot) {
      begin(group, peer, *snapshot);
    } else {
      send_again_later({group, peer}, snapshot.error().text);
    }
  }
}

inline void SnapshotExchange::begin(GroupId group, NodeId peer, const SnapshotMetadata& snapshot) {
  const Route route{group, peer};
  Outgoing& sending = outgoing_[route];
  sending = {};
  sending.number = next_number_++;
  sending.index = snapshot.snapshot.last_included_index;
  served_[route] = {snapshot.size_bytes, environment_.clock.now_ms()};
  find(group)->on_sending_snapshot(peer, sending.index);
  environment_.store.open_snapshot(
      group, sending.index,
      [this, route, number = sending.number,
       snapshot](Result<std::shared_ptr<SnapshotReader>> reader) {
        environment_.post([this, route, number, snapshot, reader = std::move(reader)] {
          opened(route, number, snapshot, reader);
        });
      });
}

inline void SnapshotExchange::opened(Route route, std::uint64_t number,
                                     const SnapshotMetadata& snapshot,
                                     Result<std::shared_ptr<SnapshotReader>> reader) {
  const auto found = outgoing_.find(route);
  if (found == outgoing_.end() || found->second.number != number) return;
  const auto [group, peer] = route;
  if (!reader) {
    give_up_damaged(group, found->second.index);
    return send_again_later(route, reader.error().text);
  }
  const std::string addr = environment_.dial_addr(peer);
  if (addr.empty()) return send_again_later(route, "it has no address");
  const raft::Raft& raft = find(group)->raft();
  SnapshotOffer offer;
  offer.message = {group, raft::Message{raft.id(), peer, raft.current_term(),
                                        raft::InstallSnapshot{snapshot.snapshot}}};
  offer.cluster_id = environment_.membership.cluster_id();
  offer.metadata = snapshot;
  SnapshotTransferOptions options;
  options.max_bytes_per_second = options_.max_bytes_per_second;
  logger_.info("sends a snapshot",
               {{"group", group}, {"peer", peer}, {"index", found->second.index}});
  found->second.transfer = environment_.peers->send_snapshot(
      addr, offer, std::move(*reader), options,
      [this, route, number](const Result<Index>& outcome) {
        environment_.post([this, route, number, outcome] { ended(route, number, outcome); });
      });
}

inline void SnapshotExchange::ended(Route route, std::uint64_t number,
                                    const Result<Index>& outcome) {
  const auto found = outgoing_.find(route);
  if (found == outgoing_.end() || found->second.number != number) return;
  const auto [group, peer] = route;
  const SnapshotProgress progress =
      found->second.transfer ? found->second.transfer->progress() : SnapshotProgress{};
  if (!outcome) {
    if (progress.unreadable) give_up_damaged(group, found->second.index);
    return send_again_later(route, outcome.error().text);
  }
  logger_.info(
      "a snapshot is in force at a peer",
      {{"group", group}, {"peer", peer}, {"index", *outcome}, {"sent_bytes", progress.sent_bytes}});
  outgoing_.erase(found);
  find(group)->on_snapshot_ended(peer, *outcome);
  let_go_of_snapshot(group);
}

inline void SnapshotExchange::send_again_later(Route route, const std::string& why) {
  logger_.warn("could not send a snapshot, trying again",
               {{"group", route.first}, {"peer", route.second}, {"reason", why}});
  wait_to_retry(route);
}

inline void SnapshotExchange::wait_to_retry(Route route) {
  Outgoing& sending = outgoing_[route];
  sending.transfer = nullptr;
  sending.number = next_number_++;
  sending.retry_at_ms = environment_.clock.now_ms() + kRetryMs;
}

// Of a group that is led elsewhere now, or to a node that is no member any more.
inline void SnapshotExchange::stop_needless() {
  std::vector<Route> needless;
  for (const auto& [route, sending] : outgoing_) {
    const raft::Raft& raft = find(route.first)->raft();
    if (raft.is_leader() && raft.configuration().has(route.second)) continue;
    if (sending.transfer) sending.transfer->cancel();
    needless.push_back(route);
  }
  for (const Route& route : needless) {
    outgoing_.erase(route);
    let_go_of_snapshot(route.first);
  }
}

// The disk has another one to build it from.
inline void SnapshotExchange::give_up_damaged(GroupId group, Index index) {
  logger_.warn("a snapshot can't be read, and is removed", {{"group", group}, {"index", index}});
  if (is_kept(group, index)) to_keep_.erase(group);
  environment_.store.remove_snapshot(group, index);
}

inline bool SnapshotExchange::is_kept(GroupId group, Index index) const {
  const auto kept = to_keep_.find(group);
  return kept != to_keep_.end() && kept->second == index;
}

// Its files are those of the database as it was: the longer it stays, the more disk it holds.
inline void SnapshotExchange::let_go_of_snapshot(GroupId group) {
  const bool used = std::any_of(outgoing_.begin(), outgoing_.end(),
                                [&](const auto& sending) { return sending.first.first == group; });
  if (used || building_.contains(group)) return;
  const auto newest = environment_.store.newest_snapshot(group);
  if (!newest || is_kept(group, newest->snapshot.last_included_index)) return;
  environment_.store.remove_snapshot(group, newest->snapshot.last_included_index);
}

// Also one that was there at the start.
inline void SnapshotExchange::let_go_of_unused() {
  const std::uint64_t now_ms = environment_.clock.now_ms();
  for (const auto& [group, replica] : replicas_) {
    const bool used =
        building_.contains(group) ||
        std::any_of(outgoing_.begin(), outgoing_.end(), [id = group](const auto& sending) {
          return sending.first.first == id && !sending.second.retry_at_ms;
        });
    const std::uint64_t used_at_ms = used_at_ms_.try_emplace(group, now_ms).first->second;
    if (used) used_at_ms_[group] = now_ms;
    if (used || now_ms < used_at_ms + kAbandonedMs) continue;
    used_at_ms_[group] = now_ms;
    const auto newest = environment_.store.newest_snapshot(group);
    if (!newest || is_kept(group, newest->snapshot.last_included_index)) continue;
    environment_.store.remove_snapshot(group, newest->snapshot.last_included_index);
  }
}

inline void SnapshotExchange::take_all(const std::function<void(CallReply)>& done) {
  struct Taken {
    std::size_t left;
    std::string text;
    bool failed = false;
  };
  const auto taken = std::make_shared<Taken>(Taken{replicas_.size(), {}});
  for (const auto& [group, replica] : replicas_) {
    build(group, [this, taken, done, group = group](const Result<SnapshotMetadata>& snapshot) {
      if (snapshot) to_keep_[group] = snapshot->snapshot.last_included_index;
      std::string& text = taken->text;
      if (!text.empty()) text += "; ";
      text += "group " + std::to_string(group.value) + ": ";
      taken->failed = taken->failed || !snapshot;
      text += snapshot ? "entry " + std::to_string(snapshot->snapshot.last_included_index.value) +
                             ", " + std::to_string(snapshot->row_count) + " rows, " +
                             std::to_string(snapshot->size_bytes) + " bytes"
                       : snapshot.error().text;
      if (--taken->left > 0) return;
      CallReply reply;
      reply.status = taken->failed ? CallStatus::kRefused : CallStatus::kAccepted;
      reply.reason = text;
      done(std::move(reply));
    });
  }
}

// ---- Receiving ----------------------------------------------------------------------------------

inline SnapshotReply SnapshotExchange::refusal(std::string reason) {
  SnapshotReply reply;
  reply.status = SnapshotReply::Status::kRefused;
  reply.reason = std::move(reason);
  return reply;
}

inline SnapshotReply SnapshotExchange::has_all(const raft::Raft& raft) {
  SnapshotReply reply;
  reply.status = SnapshotReply::Status::kInstalled;
  reply.index = raft.commit_index();
  return reply;
}

inline std::optional<std::string> SnapshotExchange::why_not_take(const SnapshotOffer& offer) const {
  const raft::Message& message = offer.message.message;
  const std::string ours = environment_.membership.cluster_id();
  if (!ours.empty() && offer.cluster_id != ours) return "it is of another cluster";
  if (!environment_.membership.members().contains(message.from)) {
    return "node " + std::to_string(message.from.value) + " is no member here";
  }
  const Replica* replica = find(offer.message.group);
  if (replica == nullptr || offer.metadata.group != offer.message.group) {
    return "there is no such group";
  }
  const raft::Raft& raft = replica->raft();
  if (message.term < raft.current_term()) return "its leader's term is over";
  const auto* install = std::get_if<raft::InstallSnapshot>(&message.body);
  if (install == nullptr || install->snapshot != offer.metadata.snapshot) {
    return "the offer contradicts itself";
  }
  if (raft.is_installing()) return "another snapshot is being installed";
  return std::nullopt;
}

inline void SnapshotExchange::offered(const SnapshotOffer& offer,
                                      std::function<void(SnapshotAnswer)> answer) {
  if (const auto why = why_not_take(offer)) return answer({refusal(*why), {}});
  const GroupId group = offer.message.group;
  Replica& replica = *find(group);
  replica.receive(offer.message.message);
  if (replica.raft().is_leader()) return answer({refusal("this node leads"), {}});
  if (!replica.raft().needs(offer.metadata.snapshot)) return answer({has_all(replica.raft()), {}});
  const auto known = incoming_.find(group);
  if (known == incoming_.end() || known->second.metadata != offer.metadata) {
    return receive(offer, std::move(answer));
  }
  if (!known->second.writer) return answer({refusal("it is about to come in already"), {}});
  known->second.idle_since_ms = 0;
  SnapshotReply go_on;
  go_on.status = SnapshotReply::Status::kGoOn;
  answer({std::move(go_on), known->second.writer});
}

inline void SnapshotExchange::receive(const SnapshotOffer& offer,
                                      std::function<void(SnapshotAnswer)> answer) {
  const GroupId group = offer.message.group;
  drop_incoming(group);
  incoming_[group].metadata = offer.metadata;
  logger_.info("receives a snapshot", {{"group", group},
                                       {"from", offer.message.message.from},
                                       {"index", offer.metadata.snapshot.last_included_index},
                                       {"bytes", offer.metadata.size_bytes}});
  const auto ready = [this, group, metadata = offer.metadata, answer = std::move(answer)](
                         const Result<std::shared_ptr<SnapshotWriter>>& writer) {
    const auto coming = incoming_.find(group);
    const bool wanted = coming != incoming_.end() && coming->second.metadata == metadata;
    if (!wanted) return answer({refusal("another one took its place"), {}});
    if (!writer) {
      incoming_.erase(coming);
      return answer({refusal(writer.error().text), {}});
    }
    coming->second.writer = *writer;
    SnapshotReply go_on;
    go_on.status = SnapshotReply::Status::kGoOn;
    answer({std::move(go_on), *writer});
  };
  environment_.store.receive_snapshot(
      offer.metadata, [this, ready](Result<std::shared_ptr<SnapshotWriter>> writer) {
        environment_.post([ready, writer = std::move(writer)] { ready(writer); });
      });
}

inline void SnapshotExchange::received(GroupId group, const std::shared_ptr<SnapshotWriter>& writer,
                                       std::function<void(SnapshotReply)> done) {
  const auto coming = incoming_.find(group);
  if (coming == incoming_.end() || coming->second.writer != writer) {
    return done(refusal("another one took its place"));
  }
  Replica& replica = *find(group);
  if (!replica.begin_install(coming->second.metadata.snapshot)) {
    done(has_all(replica.raft()));
    return drop_incoming(group);
  }
  coming->second.done = std::move(done);
  environment_.store.install_snapshot(group, writer);
}

inline void SnapshotExchange::installed(GroupId group) {
  Replica& replica = *find(group);
  replica.on_installed();
  cut_asked_.erase(group);
  const auto coming = incoming_.find(group);
  if (coming == incoming_.end()) return;
  logger_.info("restored a snapshot",
               {{"group", group}, {"index", coming->second.metadata.snapshot.last_included_index}});
  if (coming->second.done) coming->second.done(has_all(replica.raft()));
  drop_incoming(group);
}

inline void SnapshotExchange::broken(GroupId group, const std::shared_ptr<SnapshotWriter>& writer,
                                     const std::string& reason) {
  const auto coming = incoming_.find(group);
  if (coming == incoming_.end() || coming->second.writer != writer) return;
  logger_.info("a snapshot's connection broke", {{"group", group}, {"reason", reason}});
  coming->second.idle_since_ms = environment_.clock.now_ms();
}

inline void SnapshotExchange::failed(GroupId group, const std::shared_ptr<SnapshotWriter>& writer,
                                     const std::string& reason) {
  const auto coming = incoming_.find(group);
  if (coming == incoming_.end() || coming->second.writer != writer) return;
  logger_.warn("a snapshot could not be taken in", {{"group", group}, {"reason", reason}});
  drop_incoming(group);
}

// Its files go where one may wait for the disk.
inline void SnapshotExchange::drop_incoming(GroupId group) {
  const auto coming = incoming_.find(group);
  if (coming == incoming_.end()) return;
  std::shared_ptr<SnapshotWriter> writer = std::move(coming->second.writer);
  incoming_.erase(coming);
  if (!writer) return;
  environment_.store.read_from_disk(
      group, [writer = std::move(writer)](const OrderedMap&) mutable { writer.reset(); });
}

}  // namespace seshat

#endif  // SESHAT_SNAPSHOT_EXCHANGE_HPP
