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
// Keeps:    what one node asks arrives in order, or not at all, and is never sent a second time; a
//           leader takes only what was meant for its present term. What was sent and got no answer,
//           for its leader is gone or silent, may have happened: kUnknown, kTimeout. What was refused
//           by the leader or never sent has not. A read sees the writes that its connection asked
//           for before it, answered or not.
// Bounds:   kMaxWaiting requests and kMaxWaitingSizeBytes of operations, as many requests of each
//           other node; more is refused as kBusy.
// Threads:  the loop. Needs: replica, records; the owner sends (Site).
#ifndef SESHAT_FORWARDING_HPP
#define SESHAT_FORWARDING_HPP

#include <algorithm>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <set>
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
    // As a client's of this node, if it is what a client could ask for: 0 if it was refused, which
    // `waiter` has heard.
    virtual Index propose_forwarded(GroupId group, const std::string& operation,
                                    Waiter& waiter) = 0;
    // False: this node is stopping.
    [[nodiscard]] virtual bool serves_forwarded() const = 0;
    // By the clock that this node's entries are stamped with, if it leads the group.
    [[nodiscard]] virtual std::uint64_t leader_time_ms(GroupId group) const = 0;

   protected:
    ~Site() = default;
  };

  // For these groups. `timeout_ms` bounds how long an answer is waited for. `first_id` is not one that
  // an earlier process of this node may have used lately.
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
  // The latest time by the present leader's clock that a read was told of; 0: none.
  [[nodiscard]] std::uint64_t heard_time_ms(GroupId group) const;
  // Some write that was asked for here, up to this id, has not been answered.
  [[nodiscard]] bool is_under_way(std::uint64_t up_to_id) const {
    return !writes_.empty() && *writes_.begin() <= up_to_id;
  }
  // What the state must have applied so that no write is missing that was answered here.
  [[nodiscard]] Index answered_index(GroupId group) const;
  // Of those that were asked for here.
  [[nodiscard]] std::size_t waiting() const { return sent_.size() + gathered_.size(); }

  // ---- the world
  void receive(NodeId from, const ForwardedRequest& request);
  void receive(NodeId from, ForwardedReply reply);
  // A stream to the peer or from it broke: what was sent to it, or its answer, may be lost.
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
    Term term;
    std::uint64_t deadline_ms = 0;
    std::size_t size_bytes = 0;
    bool leader_is_gone = false;     // the deadline is that of its farewell
    Waiter* writer = nullptr;        // of a write
    std::vector<Waiter*> readers{};  // of a read
  };
  using SentMap = std::map<std::uint64_t, SentRequest>;
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
  struct AskedKey {
    NodeId from;
    GroupId group;
    std::uint64_t id;
    friend auto operator<=>(const AskedKey&, const AskedKey&) = default;
  };
  using AskedMap = std::map<AskedKey, std::unique_ptr<Asked>>;

  [[nodiscard]] const raft::Raft& raft(GroupId group) const { return replicas_.at(group)->raft(); }
  SentRequest& note_sent(std::uint64_t id, GroupId group, NodeId to);
  void send_reads(GroupId group, Gathered gathered);
  void finish(SentRequest& request, ForwardedReply& reply);
  static void fail(SentRequest& request, Refusal of_write, Refusal of_reads);
  [[nodiscard]] Refusal nobody_asked(GroupId group) const;
  template <class Which>
  void fail_where(Which which, Refusal of_write);
  [[nodiscard]] SentMap::node_type take(SentMap::iterator at);

  [[nodiscard]] Index index_of(const AskedKey& up_to) const;
  void refuse(NodeId to, std::uint64_t id, Refusal refusal);
  void answer(Asked& asked, const Outcome& outcome);
  void answer(Asked& asked, Refusal refusal);
  void answer_read(Asked& asked);
  void send_answer(Asked& asked, ForwardedReply reply);

  const std::map<GroupId, Replica*> replicas_;
  const Clock& clock_;
  const std::uint64_t timeout_ms_;
  std::uint64_t last_id_;
  Site& site_;

  SentMap sent_;                    // by id, and so in the order they were sent
  std::set<std::uint64_t> writes_;  // those of them that are writes
  std::size_t sent_size_bytes_ = 0;
  std::map<std::pair<GroupId, bool>, Gathered> gathered_;  // ... after a write that is under way
  std::map<GroupId, std::uint64_t> heard_time_ms_;
  std::map<GroupId, Index> answered_index_;

  AskedMap asked_writes_;
  AskedMap asked_reads_;
  std::map<NodeId, std::size_t> asked_count_;
};

// =================================================================================================
// Bodies
// =================================================================================================

namespace forwarding_detail {

// What is not known comes from a newer node: who waits can only be told that nobody knows.
inline Refusal refusal_of(std::uint32_t number) {
  const bool known = number != 0 && number <= static_cast<std::uint32_t>(Refusal::kRequestTooLarge);
  return known ? static_cast<Refusal>(number) : Refusal::kUnknown;
}

}  // namespace forwarding_detail

// ---- Where it was asked -------------------------------------------------------------------------

inline Refusal Forwarding::nobody_asked(GroupId group) const {
  return replicas_.at(group)->lacks_quorum() ? Refusal::kNoQuorum : Refusal::kNotLeader;
}

inline std::uint64_t Forwarding::propose(GroupId group, std::string operation, Waiter& waiter) {
  const NodeId to = raft(group).leader();
  const std::size_t size_bytes = operation.size();
  const auto refuse = [&](Refusal refusal) {
    waiter.failed(refusal);
    return std::uint64_t{0};
  };
  if (to == NodeId{}) return refuse(nobody_asked(group));
  if (sent_.size() >= kMaxWaiting || sent_size_bytes_ + size_bytes > kMaxWaitingSizeBytes) {
    return refuse(Refusal::kBusy);
  }
  const std::uint64_t id = ++last_id_;
  ForwardedRequest request{id, group, std::move(operation), 0, raft(group).current_term()};
  switch (site_.send_forwarded(to, std::move(request))) {
    case Sent::kNo:
      return refuse(Refusal::kNotLeader);
    case Sent::kTooLarge:
      return refuse(Refusal::kRequestTooLarge);
    case Sent::kYes:
      break;
  }
  sent_size_bytes_ += size_bytes;
  writes_.insert(id);
  SentRequest& sent = note_sent(id, group, to);
  sent.size_bytes = size_bytes;
  sent.writer = &waiter;
  return id;
}

inline Forwarding::SentRequest& Forwarding::note_sent(std::uint64_t id, GroupId group, NodeId to) {
  SentRequest& sent = sent_[id];
  sent.to = to;
  sent.group = group;
  sent.term = raft(group).current_term();
  sent.deadline_ms = clock_.now_ms() + timeout_ms_;
  return sent;
}

inline void Forwarding::read(GroupId group, std::uint64_t after_id, Waiter& waiter) {
  const bool waits = is_under_way(after_id);
  Gathered& gathered = gathered_[{group, waits}];
  if (waits) gathered.after_id = std::max(gathered.after_id, after_id);
  gathered.readers.push_back(&waiter);
}

inline std::uint64_t Forwarding::heard_time_ms(GroupId group) const {
  const auto heard = heard_time_ms_.find(group);
  return heard == heard_time_ms_.end() ? 0 : heard->second;
}

inline Index Forwarding::answered_index(GroupId group) const {
  const auto answered = answered_index_.find(group);
  return answered == answered_index_.end() ? Index{} : answered->second;
}

inline void Forwarding::end_turn() {
  for (auto& [of, gathered] : std::exchange(gathered_, {})) {
    send_reads(of.first, std::move(gathered));
  }
}

inline void Forwarding::send_reads(GroupId group, Gathered gathered) {
  const auto refuse = [&](Refusal refusal) {
    for (Waiter* reader : gathered.readers) reader->failed(refusal);
  };
  if (raft(group)
          .is_leader()) {  // meanwhile; what it forwarded before has no outcome that is known
    for (Waiter* reader : gathered.readers) replicas_.at(group)->read({}, *reader);
    return;
  }
  const NodeId to = raft(group).leader();
  if (to == NodeId{}) return refuse(nobody_asked(group));
  if (sent_.size() >= kMaxWaiting) return refuse(Refusal::kBusy);
  const std::uint64_t id = ++last_id_;
  const ForwardedRequest request{id, group, {}, gathered.after_id, raft(group).current_term()};
  if (site_.send_forwarded(to, request) != Sent::kYes) return refuse(Refusal::kNotLeader);
  note_sent(id, group, to).readers = std::move(gathered.readers);
}

inline Forwarding::SentMap::node_type Forwarding::take(SentMap::iterator at) {
  sent_size_bytes_ -= at->second.size_bytes;
  writes_.erase(at->first);
  return sent_.extract(at);
}

inline void Forwarding::receive(NodeId from, ForwardedReply reply) {
  const auto found = sent_.find(reply.id);
  if (found == sent_.end() || found->second.to != from) return;  // given up meanwhile
  auto request = take(found);
  finish(request.mapped(), reply);
}

inline void Forwarding::finish(SentRequest& request, ForwardedReply& reply) {
  if (reply.refusal != 0) {
    const Refusal refusal = forwarding_detail::refusal_of(reply.refusal);
    return fail(request, refusal, nobody_asked(request.group));
  }
  if (request.writer != nullptr) {
    if (reply.outcome > static_cast<std::uint32_t>(Outcome::Kind::kNone)) {
      return request.writer->failed(Refusal::kUnknown);
    }
    Index& answered = answered_index_[request.group];
    answered = std::max(answered, reply.index);
    const auto kind = static_cast<Outcome::Kind>(reply.outcome);
    return request.writer->done({kind, reply.integer, std::move(reply.reply)});
  }
  if (request.term == raft(request.group).current_term()) {
    std::uint64_t& heard_ms = heard_time_ms_[request.group];
    heard_ms = std::max(heard_ms, reply.time_ms);
  }
  for (Waiter* reader : request.readers) replicas_.at(request.group)->read_at(reply.index, *reader);
}

inline void Forwarding::fail(SentRequest& request, Refusal of_write, Refusal of_reads) {
  if (request.writer != nullptr) return request.writer->failed(of_write);
  for (Waiter* reader : request.readers) reader->failed(of_reads);
}

// A read that got no answer has changed nothing, whatever became of it. Who hears may ask again: what
// comes meanwhile is behind the last one that is looked at.
template <class Which>
void Forwarding::fail_where(Which which, Refusal of_write) {
  const std::uint64_t last = last_id_;
  for (auto at = sent_.begin(); at != sent_.end() && at->first <= last;) {
    const std::uint64_t id = at->first;
    if (which(at->second)) {
      auto request = take(at);
      const bool too_late = of_write == Refusal::kTimeout;
      fail(request.mapped(), of_write,
           too_late ? Refusal::kTimeout : nobody_asked(request.mapped().group));
    }
    at = sent_.upper_bound(id);
  }
}

inline void Forwarding::peer_down(NodeId peer) {
  fail_where([&](const SentRequest& request) { return request.to == peer; }, Refusal::kUnknown);
}

// Another leader has another clock. While none is known, the old one may come back.
inline void Forwarding::leadership_changed(GroupId group) {
  if (!replicas_.contains(group)) return;
  heard_time_ms_.erase(group);
  const NodeId leader = raft(group).leader();
  if (leader == NodeId{}) return;
  const std::uint64_t farewell_ms = clock_.now_ms() + kFarewellMs;
  for (auto& [id, request] : sent_) {
    const bool is_awaited = request.to == leader && request.term == raft(group).current_term();
    if (request.group != group || is_awaited || request.leader_is_gone) continue;
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

// Of the newest write of that node and group, up to this id, that is under way; 0: there is none.
inline Index Forwarding::index_of(const AskedKey& up_to) const {
  auto behind = asked_writes_.upper_bound(up_to);
  if (behind == asked_writes_.begin()) return {};
  const auto& [key, asked] = *--behind;
  return key.from == up_to.from && key.group == up_to.group ? asked->index : Index{};
}

inline void Forwarding::receive(NodeId from, const ForwardedRequest& request) {
  const AskedKey key{from, request.group, request.id};
  const bool is_read = request.operation.empty();
  AskedMap& all = is_read ? asked_reads_ : asked_writes_;
  const bool served = replicas_.contains(request.group) &&
                      request.term == raft(request.group).current_term() &&
                      site_.serves_forwarded() && !all.contains(key);
  if (!served) return refuse(from, request.id, Refusal::kNotLeader);
  std::size_t& count = asked_count_[from];
  if (count >= kMaxWaiting) return refuse(from, request.id, Refusal::kBusy);
  ++count;
  Asked& asked =
      *(all[key] = std::make_unique<Asked>(*this, from, request.id, request.group, is_read));
  if (!is_read) {
    const Index index = site_.propose_forwarded(request.group, request.operation, asked);
    const auto waits = asked_writes_.find(key);  // unless it has heard
    if (waits != asked_writes_.end()) waits->second->index = index;
    return;
  }
  Replica& replica = *replicas_.at(request.group);
  const Index after =
      request.after_id == 0 ? Index{} : index_of({from, request.group, request.after_id});
  if (replica.readable(after)) return answer_read(asked);
  replica.read(after, asked);
}

inline void Forwarding::refuse(NodeId to, std::uint64_t id, Refusal refusal) {
  ForwardedReply reply;
  reply.id = id;
  reply.refusal = static_cast<std::uint32_t>(refusal);
  (void)site_.send_forwarded(to, std::move(reply));
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
  reply.refusal = static_cast<std::uint32_t>(refusal);
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
  const AskedKey key{asked.from, asked.group, asked.id};
  (asked.is_read ? asked_reads_ : asked_writes_).erase(key);  // and with it `asked`
  --asked_count_[key.from];
  reply.id = key.id;
  if (site_.send_forwarded(key.from, std::move(reply)) != Sent::kTooLarge) return;
  refuse(key.from, key.id, Refusal::kReplyTooLarge);
}

}  // namespace seshat

#endif  // SESHAT_FORWARDING_HPP
