// seshat/forwarding.hpp - what clients ask of a node that does not lead, by way of the leader.
//
//   asked here                             the peer channel                   the leader
//   propose(operation) ── ForwardedRequest{id, operation} ──> stamps and proposes, waits until applied
//   waiter.done(outcome) <── ForwardedReply{id, outcome} ────┘
//
//   read(): all of a turn of the loop in one request
//        ──────────────── ForwardedRequest{id, after_id} ──> waits until it may read (ReadIndex)
//   applied up to there? waiter.readable() <── ForwardedReply{id, index, its clock} ──┘
//
// Keeps:    what one node asks arrives in order, or not at all, and is never sent a second time. What
//           was sent and got no answer, for its leader is gone or silent, may have happened: kUnknown,
//           kTimeout. What was refused by the leader or never sent has not. A read sees the writes that
//           its connection asked for before it, answered or not.
// Bounds:   kMaxWaiting requests and kMaxWaitingSizeBytes of operations; more is refused as kBusy.
// Threads:  the loop. Needs: replica, records; the owner sends (Site).
#ifndef SESHAT_FORWARDING_HPP
#define SESHAT_FORWARDING_HPP

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "seshat/records.hpp"
#include "seshat/replica.hpp"

namespace seshat {

class Forwarding {
 public:
  static constexpr std::size_t kMaxWaiting = 65536;
  static constexpr std::size_t kMaxWaitingSizeBytes = 64U << 20;
  // A leader that lost its leadership says so to who waits for it. When another one is known, nobody
  // waits longer than this for its word.
  static constexpr std::uint64_t kFarewellMs = 500;

  enum class Sent : std::uint8_t { kYes, kNo, kTooLarge };

  // The node around it.
  class Site {
   public:
    virtual Sent send_forwarded(NodeId to, Forwarded forwarded) = 0;
    // As a client's of this node: 0 if it was refused, which `waiter` has heard.
    virtual Index propose_forwarded(GroupId group, const std::string& operation,
                                    Waiter& waiter) = 0;
    // By the clock that this node's entries are stamped with; it leads the group.
    [[nodiscard]] virtual std::uint64_t leader_time_ms(GroupId group) const = 0;

   protected:
    ~Site() = default;
  };

  // `timeout_ms` bounds how long an answer is waited for. `first_id` is not one that an earlier process
  // of this node may have used lately.
  Forwarding(std::map<GroupId, Replica*> replicas, const Clock& clock, std::uint64_t timeout_ms,
             std::uint64_t first_id, Site& site)
      : replicas_(std::move(replicas)),
        clock_(clock),
        timeout_ms_(timeout_ms),
        last_id_(first_id),
        site_(site) {}
  Forwarding(const Forwarding&) = delete;
  Forwarding& operator=(const Forwarding&) = delete;

  // ---- where it was asked
  // Its id, for reads that come after it; 0 if it was refused, which `waiter` has then heard.
  std::uint64_t propose(GroupId group, std::string operation, Waiter& waiter);
  // waiter.readable() follows when this node's own state may be looked at.
  void read(GroupId group, std::uint64_t after_id, Waiter& waiter);
  // The latest time by a leader's clock that a read was told of.
  [[nodiscard]] std::uint64_t heard_time_ms(GroupId group) const;
  // Of those that were asked for here.
  [[nodiscard]] std::size_t waiting() const { return sent_.size() + gathered_.size(); }

  // ---- the world
  void receive(NodeId from, const ForwardedRequest& request);
  void receive(NodeId from, ForwardedReply reply);
  void peer_down(NodeId peer);
  void leadership_changed(GroupId group);
  void tick();
  // Sends the reads that gathered in this turn.
  void end_turn();
  // This node can promise nothing more.
  void abandon();

 private:
  struct SentRequest {
    NodeId to;
    GroupId group;
    std::uint64_t deadline_ms = 0;
    std::size_t size_bytes = 0;
    bool leader_is_gone = false;     // the deadline is that of its farewell
    Waiter* writer = nullptr;        // of a write
    std::vector<Waiter*> readers{};  // of a read
  };
  // Reads of one group: those that come after a write which is under way wait for it, the others not.
  struct Gathered {
    std::uint64_t after_id = 0;
    std::vector<Waiter*> readers;
  };
  // What another node asks of this one. It goes when it has heard.
  struct Asked final : Waiter {
    Asked(Forwarding& owner, NodeId from, std::uint64_t id, GroupId group, bool is_read)
        : owner(owner), from(from), id(id), group(group), is_read(is_read) {}
    void done(const Outcome& outcome) override { owner.answer(*this, outcome); }
    void readable() override { owner.answer_read(*this); }
    void failed(Refusal refusal) override { owner.answer(*this, refusal); }
    Forwarding& owner;
    NodeId from;
    std::uint64_t id;
    GroupId group;
    bool is_read;
    Index index;  // of a write
  };
  using AskedKey = std::pair<NodeId, std::uint64_t>;
  using AskedMap = std::map<AskedKey, std::unique_ptr<Asked>>;

  [[nodiscard]] NodeId leader(GroupId group) const;
  void send_reads(GroupId group, Gathered gathered);
  void finish(SentRequest& request, ForwardedReply& reply);
  void fail(SentRequest& request, Refusal of_write);
  [[nodiscard]] Refusal refusal_of_reads(GroupId group) const;
  template <class Which>
  void fail_where(Which which, Refusal of_write);
  [[nodiscard]] std::map<std::uint64_t, SentRequest>::node_type take(
      std::map<std::uint64_t, SentRequest>::iterator at);

  [[nodiscard]] Index index_of(NodeId from, std::uint64_t up_to_id) const;
  void answer(Asked& asked, const Outcome& outcome);
  void answer(Asked& asked, Refusal refusal);
  void answer_read(Asked& asked);
  void send_answer(Asked& asked, ForwardedReply reply);

  const std::map<GroupId, Replica*> replicas_;
  const Clock& clock_;
  const std::uint64_t timeout_ms_;
  std::uint64_t last_id_;
  Site& site_;

  std::map<std::uint64_t, SentRequest> sent_;  // by id, and so in the order they were sent
  std::size_t sent_size_bytes_ = 0;
  std::map<std::pair<GroupId, bool>, Gathered> gathered_;  // ... after a write that is under way
  std::map<GroupId, std::uint64_t> heard_time_ms_;

  AskedMap asked_writes_;
  AskedMap asked_reads_;
};

// =================================================================================================
// Bodies
// =================================================================================================

namespace forwarding_detail {

// As they are numbered on the wire; 0 is none. For ever.
inline std::uint32_t number_of(Refusal refusal) { return static_cast<std::uint32_t>(refusal) + 1; }

// What is not known comes from a newer node: who waits can only be told that nobody knows.
inline Refusal refusal_of(std::uint32_t number) {
  return number == 0 || number > number_of(Refusal::kTooLarge) ? Refusal::kUnknown
                                                               : static_cast<Refusal>(number - 1);
}

}  // namespace forwarding_detail

// ---- Where it was asked -------------------------------------------------------------------------

inline NodeId Forwarding::leader(GroupId group) const {
  return replicas_.at(group)->raft().leader();
}

inline Refusal Forwarding::refusal_of_reads(GroupId group) const {
  return replicas_.at(group)->lacks_quorum() ? Refusal::kNoQuorum : Refusal::kNotLeader;
}

inline std::uint64_t Forwarding::propose(GroupId group, std::string operation, Waiter& waiter) {
  const NodeId to = leader(group);
  const std::size_t size_bytes = operation.size();
  const auto refuse = [&](Refusal refusal) {
    waiter.failed(refusal);
    return std::uint64_t{0};
  };
  if (to == NodeId{}) return refuse(refusal_of_reads(group));
  if (sent_.size() >= kMaxWaiting || sent_size_bytes_ + size_bytes > kMaxWaitingSizeBytes) {
    return refuse(Refusal::kBusy);
  }
  const std::uint64_t id = ++last_id_;
  switch (site_.send_forwarded(to, ForwardedRequest{id, group, std::move(operation), 0})) {
    case Sent::kNo:
      return refuse(Refusal::kNotLeader);
    case Sent::kTooLarge:
      return refuse(Refusal::kBusy);
    case Sent::kYes:
      break;
  }
  sent_size_bytes_ += size_bytes;
  SentRequest& sent = sent_[id];
  sent.to = to;
  sent.group = group;
  sent.deadline_ms = clock_.now_ms() + timeout_ms_;
  sent.size_bytes = size_bytes;
  sent.writer = &waiter;
  return id;
}

inline void Forwarding::read(GroupId group, std::uint64_t after_id, Waiter& waiter) {
  const bool waits = sent_.contains(after_id);
  Gathered& gathered = gathered_[{group, waits}];
  if (waits) gathered.after_id = std::max(gathered.after_id, after_id);
  gathered.readers.push_back(&waiter);
}

inline std::uint64_t Forwarding::heard_time_ms(GroupId group) const {
  const auto heard = heard_time_ms_.find(group);
  return heard == heard_time_ms_.end() ? 0 : heard->second;
}

inline void Forwarding::end_turn() {
  for (auto& [of, gathered] : std::exchange(gathered_, {})) {
    send_reads(of.first, std::move(gathered));
  }
}

inline void Forwarding::send_reads(GroupId group, Gathered gathered) {
  const NodeId to = leader(group);
  Replica& replica = *replicas_.at(group);
  if (replica.raft().is_leader()) {
    for (Waiter* reader : gathered.readers) replica.read({}, *reader);
    return;
  }
  const std::uint64_t id = ++last_id_;
  const bool sent =
      to != NodeId{} &&
      site_.send_forwarded(to, ForwardedRequest{id, group, {}, gathered.after_id}) == Sent::kYes;
  if (!sent) {
    for (Waiter* reader : gathered.readers) reader->failed(refusal_of_reads(group));
    return;
  }
  SentRequest& request = sent_[id];
  request.to = to;
  request.group = group;
  request.deadline_ms = clock_.now_ms() + timeout_ms_;
  request.readers = std::move(gathered.readers);
}

inline std::map<std::uint64_t, Forwarding::SentRequest>::node_type Forwarding::take(
    std::map<std::uint64_t, SentRequest>::iterator at) {
  sent_size_bytes_ -= at->second.size_bytes;
  return sent_.extract(at);
}

inline void Forwarding::receive(NodeId from, ForwardedReply reply) {
  const auto found = sent_.find(reply.id);
  if (found == sent_.end() || found->second.to != from) return;  // given up meanwhile
  auto request = take(found);
  finish(request.mapped(), reply);
}

inline void Forwarding::finish(SentRequest& request, ForwardedReply& reply) {
  if (reply.refusal != 0) return fail(request, forwarding_detail::refusal_of(reply.refusal));
  if (request.writer != nullptr) {
    if (reply.outcome > static_cast<std::uint32_t>(Outcome::Kind::kNone)) {
      return fail(request, Refusal::kUnknown);
    }
    const auto kind = static_cast<Outcome::Kind>(reply.outcome);
    return request.writer->done({kind, reply.integer, std::move(reply.reply)});
  }
  std::uint64_t& heard_ms = heard_time_ms_[request.group];
  heard_ms = std::max(heard_ms, reply.time_ms);
  for (Waiter* reader : request.readers) replicas_.at(request.group)->read_at(reply.index, *reader);
}

// A read that got no answer has changed nothing, whatever became of it.
inline void Forwarding::fail(SentRequest& request, Refusal of_write) {
  if (request.writer != nullptr) return request.writer->failed(of_write);
  const bool too_late = of_write == Refusal::kTimeout;
  const Refusal refusal = too_late ? Refusal::kTimeout : refusal_of_reads(request.group);
  for (Waiter* reader : request.readers) reader->failed(refusal);
}

// Who hears may ask again: those that come meanwhile are behind the last one that is looked at.
template <class Which>
void Forwarding::fail_where(Which which, Refusal of_write) {
  const std::uint64_t last = last_id_;
  for (auto at = sent_.begin(); at != sent_.end() && at->first <= last;) {
    const std::uint64_t id = at->first;
    if (which(at->second)) {
      auto request = take(at);
      fail(request.mapped(), of_write);
    }
    at = sent_.upper_bound(id);
  }
}

inline void Forwarding::peer_down(NodeId peer) {
  fail_where([&](const SentRequest& request) { return request.to == peer; }, Refusal::kUnknown);
}

inline void Forwarding::leadership_changed(GroupId group) {
  const NodeId now = leader(group);
  const std::uint64_t farewell_ms = clock_.now_ms() + kFarewellMs;
  for (auto& [id, request] : sent_) {
    if (request.group != group || request.to == now || request.leader_is_gone) continue;
    request.leader_is_gone = true;
    request.deadline_ms = std::min(request.deadline_ms, farewell_ms);
  }
}

inline void Forwarding::tick() {
  const std::uint64_t now_ms = clock_.now_ms();
  const auto over = [&](bool leader_is_gone) {
    return [now_ms, leader_is_gone](const SentRequest& request) {
      return request.leader_is_gone == leader_is_gone && request.deadline_ms <= now_ms;
    };
  };
  fail_where(over(true), Refusal::kUnknown);
  fail_where(over(false), Refusal::kTimeout);
}

inline void Forwarding::abandon() {
  fail_where([](const SentRequest&) { return true; }, Refusal::kUnknown);
  for (auto& [of, gathered] : std::exchange(gathered_, {})) {
    for (Waiter* reader : gathered.readers) reader->failed(Refusal::kStorage);
  }
}

// ---- The leader ---------------------------------------------------------------------------------

// Of the newest write of that node, up to this id, that is still under way; 0: there is none.
inline Index Forwarding::index_of(NodeId from, std::uint64_t up_to_id) const {
  auto behind = asked_writes_.upper_bound({from, up_to_id});
  if (behind == asked_writes_.begin()) return {};
  --behind;
  return behind->first.first == from ? behind->second->index : Index{};
}

inline void Forwarding::receive(NodeId from, const ForwardedRequest& request) {
  const bool is_read = request.operation.empty();
  AskedMap& all = is_read ? asked_reads_ : asked_writes_;
  const AskedKey key{from, request.id};
  if (!replicas_.contains(request.group) || all.contains(key)) return;
  Asked& asked =
      *(all[key] = std::make_unique<Asked>(*this, from, request.id, request.group, is_read));
  if (!is_read) {
    const Index index = site_.propose_forwarded(request.group, request.operation, asked);
    const auto waits = asked_writes_.find(key);  // unless it has heard
    if (waits != asked_writes_.end()) waits->second->index = index;
    return;
  }
  Replica& replica = *replicas_.at(request.group);
  const Index after = request.after_id == 0 ? Index{} : index_of(from, request.after_id);
  if (replica.readable(after)) return answer_read(asked);
  replica.read(after, asked);
}

inline void Forwarding::answer(Asked& asked, const Outcome& outcome) {
  ForwardedReply reply;
  reply.index = asked.index;
  reply.outcome = static_cast<std::uint32_t>(outcome.kind);
  reply.integer = outcome.integer;
  reply.reply = outcome.reply;
  send_answer(asked, std::move(reply));
}

inline void Forwarding::answer(Asked& asked, Refusal refusal) {
  ForwardedReply reply;
  reply.refusal = forwarding_detail::number_of(refusal);
  send_answer(asked, std::move(reply));
}

// Who asks waits until it has applied as much, and needs to know that it has committed.
inline void Forwarding::answer_read(Asked& asked) {
  Replica& replica = *replicas_.at(asked.group);
  ForwardedReply reply;
  reply.index = replica.raft().last_applied();
  replica.tell_commit(asked.from);
  reply.time_ms = site_.leader_time_ms(asked.group);
  send_answer(asked, std::move(reply));
}

// An answer that can't be sent is not missed for ever: who waits gives up in time.
inline void Forwarding::send_answer(Asked& asked, ForwardedReply reply) {
  const NodeId to = asked.from;
  reply.id = asked.id;
  AskedMap& all = asked.is_read ? asked_reads_ : asked_writes_;
  all.erase({to, asked.id});
  const std::uint64_t id = reply.id;
  if (site_.send_forwarded(to, std::move(reply)) != Sent::kTooLarge) return;
  ForwardedReply instead;
  instead.id = id;
  instead.refusal = forwarding_detail::number_of(Refusal::kTooLarge);
  (void)site_.send_forwarded(to, std::move(instead));
}

}  // namespace seshat

#endif  // SESHAT_FORWARDING_HPP
