// seshat/snapshot_exchange.hpp - when logs are cut, and how members get what was cut off.
//
//   leader    send_snapshot ──> one that the log still follows on? ──> open ──> stream ──> ended
//                                └── else build, once for all who wait ──┘
//   follower  offered ──> (rows come in) ──> received ──> Raft, then the disk ──> installed
//
// A log is cut every snapshot_interval_entries, or when it is snapshot_interval_bytes long, up to
// what is applied here and needed by no member that can be reached (raft.hpp knows); beyond
// max_log_size_bytes also what somebody needs, who gets a snapshot instead.
//
// Keeps:    one snapshot a group comes in at a time. What came in of one stays when its connection
//           breaks, and the same offer goes on behind it.
// Threads:  the loop; what store and peers answer comes back through `post`.
// Needs:    replica.hpp, membership.hpp, store.hpp, peer.hpp.
#ifndef SESHAT_SNAPSHOT_EXCHANGE_HPP
#define SESHAT_SNAPSHOT_EXCHANGE_HPP

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
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
  static constexpr std::uint64_t kRetryMs = 1'000;
  static constexpr std::uint64_t kAbandonedMs = 60'000;  // an incoming one that nobody goes on with
  // Fewer entries are not worth a cut.
  static constexpr std::uint64_t kMinCutEntries = 1'000;

  using Route = std::pair<GroupId, NodeId>;
  struct Outgoing {
    std::uint64_t number = 0;  // tells one attempt from the next
    Index index;
    std::shared_ptr<SnapshotTransfer> transfer;
    std::optional<std::uint64_t> retry_at_ms;  // it failed
  };
  struct Incoming {
    SnapshotMetadata metadata;
    std::shared_ptr<SnapshotWriter> writer;
    std::uint64_t idle_since_ms = 0;  // 0: rows come in, or it is being installed
    std::function<void(SnapshotReply)> done;
  };

  [[nodiscard]] Replica* find(GroupId group) const;
  void consider_cut(GroupId group, Replica& replica);
  void stop_needless();

  void build(GroupId group);
  void built(GroupId group, const Result<SnapshotMetadata>& snapshot);
  void begin(GroupId group, NodeId peer, const SnapshotMetadata& snapshot);
  void opened(Route route, std::uint64_t number, const SnapshotMetadata& snapshot,
              Result<std::shared_ptr<SnapshotReader>> reader);
  void ended(Route route, std::uint64_t number, const Result<Index>& outcome);
  void send_again_later(Route route, const std::string& why);
  void let_go_of_snapshot(GroupId group);

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
  std::map<GroupId, std::set<NodeId>> waiting_;  // for a snapshot that is being built
  std::set<GroupId> building_;
  std::set<GroupId> to_keep_;  // whose snapshot was asked for by an administrator

  std::map<GroupId, Incoming> incoming_;
};

// =================================================================================================
// Bodies
// =================================================================================================

inline Replica* SnapshotExchange::find(GroupId group) const {
  const auto found = replicas_.find(group);
  return found == replicas_.end() ? nullptr : found->second;
}

inline void SnapshotExchange::tick() {
  for (const auto& [group, replica] : replicas_) consider_cut(group, *replica);
  stop_needless();
  const std::uint64_t now_ms = environment_.clock.now_ms();
  std::vector<Route> due;
  for (const auto& [route, sending] : outgoing_) {
    if (sending.retry_at_ms && *sending.retry_at_ms <= now_ms) due.push_back(route);
  }
  for (const Route& route : due) {
    outgoing_.erase(route);
    find(route.first)->on_snapshot_ended(route.second, {});  // it asks again, if it still has to
  }
  std::vector<GroupId> abandoned;
  for (const auto& [group, coming] : incoming_) {
    const bool idle = coming.idle_since_ms != 0 && now_ms > coming.idle_since_ms + kAbandonedMs;
    if (idle || (coming.idle_since_ms != 0 && !find(group)->raft().needs(coming.metadata.snapshot)))
      abandoned.push_back(group);
  }
  for (const GroupId group : abandoned) drop_incoming(group);
}

// ---- Compaction ---------------------------------------------------------------------------------

inline void SnapshotExchange::consider_cut(GroupId group, Replica& replica) {
  if (replica.raft().is_installing()) return;
  const LogStats log = environment_.store.log_stats(group);
  const Index cut = std::max(cut_asked_[group], log.first_index - 1);
  Index to = replica.raft().compactable_index();
  const bool too_long = log.size_bytes > options_.max_log_size_bytes;
  if (too_long) {
    to = std::max(to, environment_.store.cut_point(group, options_.max_log_size_bytes));
  }
  to = std::min(to, log.applied_durable);
  if (to <= cut) return;
  const std::uint64_t entries = to - cut;
  const std::uint64_t enough = std::min(options_.snapshot_interval_entries, kMinCutEntries);
  const bool long_enough = log.size_bytes > options_.snapshot_interval_bytes && entries >= enough;
  if (entries < options_.snapshot_interval_entries && !long_enough) return;
  cut_asked_[group] = to;
  environment_.store.cut_log(group, to);
}

inline void SnapshotExchange::handle_log_cut(GroupId group, Index first_index) {
  Replica* replica = find(group);
  if (replica != nullptr) replica->on_compacted(first_index);
  logger_.debug("cut the log", {{"group", group}, {"first_index", first_index}});
}

// ---- Sending ------------------------------------------------------------------------------------

// The log must hold the snapshot's last entry, or this node could not go on behind it.
inline void SnapshotExchange::send_snapshot(GroupId group, NodeId peer) {
  if (environment_.peers == nullptr || outgoing_.contains({group, peer})) return;
  const auto newest = environment_.store.newest_snapshot(group);
  const Index first = environment_.store.log_stats(group).first_index;
  if (newest && newest->snapshot.last_included_index >= first &&
      newest->snapshot.last_included_index >= cut_asked_[group]) {
    return begin(group, peer, *newest);
  }
  waiting_[group].insert(peer);
  build(group);
}

inline void SnapshotExchange::build(GroupId group) {
  if (!building_.insert(group).second) return;
  const ClusterMembership membership =
      environment_.membership.record().value_or(ClusterMembership{});
  environment_.store.build_snapshot(
      group, membership, [this, group](Result<SnapshotMetadata> snapshot) {
        environment_.post(
            [this, group, snapshot = std::move(snapshot)] { built(group, snapshot); });
      });
}

inline void SnapshotExchange::built(GroupId group, const Result<SnapshotMetadata>& snapshot) {
  building_.erase(group);
  const std::set<NodeId> peers = std::exchange(waiting_[group], {});
  if (snapshot) {
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
  if (!reader) return send_again_later(route, reader.error().text);
  const auto [group, peer] = route;
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
  if (!outcome) {
    send_again_later(route, outcome.error().text);
    return;
  }
  const std::uint64_t sent =
      found->second.transfer ? found->second.transfer->progress().sent_bytes : 0;
  logger_.info("a snapshot is in force at a peer",
               {{"group", group}, {"peer", peer}, {"index", *outcome}, {"sent_bytes", sent}});
  outgoing_.erase(found);
  find(group)->on_snapshot_ended(peer, *outcome);
  let_go_of_snapshot(group);
}

inline void SnapshotExchange::send_again_later(Route route, const std::string& why) {
  logger_.warn("could not send a snapshot, trying again",
               {{"group", route.first}, {"peer", route.second}, {"reason", why}});
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

// Its files are those of the database as it was: the longer it stays, the more disk it holds.
inline void SnapshotExchange::let_go_of_snapshot(GroupId group) {
  const bool used = std::any_of(outgoing_.begin(), outgoing_.end(),
                                [&](const auto& sending) { return sending.first.first == group; });
  if (used || building_.contains(group) || to_keep_.contains(group)) return;
  const auto newest = environment_.store.newest_snapshot(group);
  if (newest) environment_.store.remove_snapshot(group, newest->snapshot.last_included_index);
}

inline void SnapshotExchange::take_all(const std::function<void(CallReply)>& done) {
  struct Taken {
    std::size_t left;
    std::string text;
    bool failed = false;
  };
  const auto taken = std::make_shared<Taken>(Taken{replicas_.size(), {}});
  for (const auto& [group, replica] : replicas_) {
    to_keep_.insert(group);
    const auto one_done = [taken, done, group = group](const Result<SnapshotMetadata>& snapshot) {
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
    };
    environment_.store.build_snapshot(
        group, environment_.membership.record().value_or(ClusterMembership{}),
        [this, one_done](Result<SnapshotMetadata> snapshot) {
          environment_.post([one_done, snapshot = std::move(snapshot)] { one_done(snapshot); });
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
