// seshat/replica.hpp - one Raft group on one node: the core, and those who wait for it.
//
//   propose, read ──> Replica ──> Waiter::done / readable / failed
//                        │
//                   raft::Raft
//                        │ pump()
//   LogStore   Transport   Applier   SnapshotSender   Clock     <- interfaces, declared here
//
// Inputs only change state; pump() then hands everything that gathered to the disk, the network and
// the state machine, so that one turn of the owner's loop makes one write and one message a peer.
//
// Keeps:    every Waiter hears exactly once. `failed` with a Refusal that says "not appended" is
//           only used where that is true; once a proposal is in the log, only done, kTimeout or
//           kUnknown can follow (docs/architecture.md, "What an answer promises").
// Threads:  none inside; one owner makes every call, and interfaces answer through that owner.
// Needs:    raft.hpp, records.hpp (GroupId). The daemon (node.hpp) and the simulator both drive it.
#ifndef SESHAT_REPLICA_HPP
#define SESHAT_REPLICA_HPP

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "seshat/raft.hpp"
#include "seshat/records.hpp"

namespace seshat {

// ---- What a replica needs -----------------------------------------------------------------------

// Milliseconds of a clock that never goes back and goes on while the machine sleeps.
class Clock {
 public:
  virtual ~Clock() = default;
  [[nodiscard]] virtual std::uint64_t now_ms() const = 0;
};

class LogStore {
 public:
  virtual ~LogStore() = default;
  // Puts `write` on disk; Replica::on_synced(write.id) follows. Writes of a group keep their order.
  virtual void append(GroupId group, raft::Write write) = 0;
  // Reads entries that left the memory; Replica::on_fetched follows.
  virtual void fetch(GroupId group, raft::Fetch fetch) = 0;
};

class Transport {
 public:
  virtual ~Transport() = default;
  // Sends soon, or loses it: Raft repeats. Never blocks.
  virtual void send(GroupId group, raft::Message message) = 0;
};

class SnapshotSender {
 public:
  virtual ~SnapshotSender() = default;
  // Begins to send `peer` a snapshot of the group, at once or when there is one;
  // Replica::on_sending_snapshot and on_snapshot_ended follow.
  virtual void send_snapshot(GroupId group, NodeId peer) = 0;
};

// What the state machine answers to one entry. The numbers go from node to node, and are for ever.
struct Outcome {
  enum class Kind : std::uint8_t {
    kOk = 0,
    kInteger = 1,
    kReply = 2,  // `reply`: in RESP3; of a transaction, those of its commands one after the other
    kNone = 3,   // of a transaction: a watched key has changed, so that nothing was done
  };
  Kind kind = Kind::kOk;
  std::int64_t integer = 0;
  std::string reply = {};

  friend bool operator==(const Outcome&, const Outcome&) = default;
};

class Applier {
 public:
  virtual ~Applier() = default;
  // Applies entries in order; Replica::on_applied follows with an Outcome for each of them.
  virtual void apply(GroupId group, std::vector<raft::Entry> entries) = 0;
  // The same at once, if it need not wait for anything: the outcomes; nullopt: nothing was done.
  [[nodiscard]] virtual std::optional<std::vector<Outcome>> apply_now(
      GroupId /*group*/, const std::vector<raft::Entry>& /*entries*/) {
    return std::nullopt;
  }
};

// ---- Those who wait -----------------------------------------------------------------------------

// Why a request was not served. The numbers go from node to node (forwarding.hpp), and are for ever.
enum class Refusal : std::uint8_t {
  kNotLeader = 1,  // nothing was appended: another node leads, or an election is under way
  kNoQuorum = 2,   // nothing was appended: a majority of the group is out of reach
  kLogFull = 3,    // nothing was appended: the log in memory waits for the disk, at its bound
  kStorage = 4,    // nothing was appended: the disk has failed, this node is about to end
  kTimeout = 5,    // in a log, or on the way to it, and not committed in time: it may happen yet
  kUnknown = 6,    // the same, but leadership, the disk or the way to the leader was lost
  kBusy = 7,       // nothing was appended: too much waits for the leader's answer
  kReplyTooLarge = 8,    // it was done, but the answer is too large to come from the leader
  kRequestTooLarge = 9,  // nothing was appended: too large to go to the leader
};

// Hears exactly one of these, once, perhaps before propose() or read() returns. Must live until
// then; may propose and read again from inside.
class Waiter {
 public:
  virtual void done(const Outcome& outcome) = 0;  // a proposal was committed and applied
  virtual void readable() = 0;                    // a read may look at the state machine now
  virtual void failed(Refusal refusal) = 0;

 protected:
  ~Waiter() = default;
};

// Who leads, for logs and redirections; called from pump() after a change.
class LeadershipObserver {
 public:
  virtual ~LeadershipObserver() = default;
  virtual void leadership_changed(GroupId group) = 0;
};

// ---- Replica ------------------------------------------------------------------------------------

class Replica {
 public:
  struct Environment {
    const Clock& clock;
    LogStore& log_store;
    Transport& transport;
    Applier& applier;
    SnapshotSender& snapshots;
    LeadershipObserver& observer;
  };

  Replica(GroupId group, raft::Config config, raft::Restored restored,
          std::uint64_t request_timeout_ms, Environment environment);

  // ---- clients
  // Appends `data` to the log. The index it got, for reads that must come after it; 0 if it was
  // refused, which `waiter` has then heard.
  Index propose(std::string data, Waiter& waiter);
  // Whether a linearizable read that came in by now may look at the state machine at once. It also
  // sees everything up to `after`, the caller's own earlier writes.
  [[nodiscard]] bool readable(Index after) const;
  // The same, as soon as that is so.
  void read(Index after, Waiter& waiter);
  // As soon as everything up to `index` is applied here, whoever leads: for who was told so by the
  // leader.
  void read_at(Index index, Waiter& waiter);

  // ---- the world
  void tick();
  void receive(const raft::Message& message);
  void unreachable(NodeId peer);
  void transfer_leadership(NodeId to = {});
  // See raft::Raft::tell_commit.
  void tell_commit(NodeId peer) { raft_.tell_commit(peer); }
  void set_may_vote(bool may_vote) { raft_.set_may_vote(may_vote); }
  void on_synced(std::uint64_t write_id);
  void on_applied(Index last, const std::vector<Outcome>& outcomes);
  void on_fetched(NodeId peer, Term prev_log_term, std::vector<raft::Entry> entries);

  // ---- members
  // See raft::Raft::change_members.
  raft::ProposeStatus change_members(std::vector<NodeId> voters, std::vector<NodeId> learners);

  // ---- compaction and snapshots; see raft::Raft
  void on_compacted(Index first_index) { raft_.compacted(first_index); }
  void on_sending_snapshot(NodeId peer, Index index) { raft_.sending_snapshot(peer, index); }
  void on_snapshot_ended(NodeId peer, Index installed);
  // True: the owner puts the snapshot in the place of this group's log and state, and then calls
  // on_installed().
  [[nodiscard]] bool begin_install(const raft::Snapshot& snapshot);
  void on_installed();

  // Hands out everything that the inputs since the last call have caused; but for proposals, where
  // more of them are to be waited for.
  void pump(bool gathers = false);
  // The disk failed, and with it what this node could promise: everybody who waits hears so, and
  // whoever comes later is refused. pump() must not be called again.
  void abandon();

  // ---- what is known here
  [[nodiscard]] GroupId group() const { return group_; }
  [[nodiscard]] const raft::Raft& raft() const { return raft_; }
  [[nodiscard]] bool has_lease() const { return raft_.has_lease(environment_.clock.now_ms()); }
  // Whether no majority can be reached, as far as this node can tell: it led and lost it, or it has
  // seen no leader for longer than a maximum election timeout.
  [[nodiscard]] bool lacks_quorum() const;
  [[nodiscard]] std::size_t waiting() const { return proposals_.size() + reads_.size(); }

 private:
  struct Proposal {
    Index index;
    Term term;
    std::uint64_t deadline_ms;
    Waiter* waiter;  // null once it has heard
  };
  struct Read {
    std::uint64_t deadline_ms;
    Index after;
    Waiter* waiter;
    std::optional<Index> applying = {};  // confirmed: what it waits for
  };

  [[nodiscard]] Refusal refusal() const;
  [[nodiscard]] Index in_log(Index after) const;
  void await_applied(std::uint64_t read_id, Index index);
  void apply(std::vector<raft::Entry> entries);
  void confirm(const raft::ReadResult& result);
  void serve_applied_reads();
  void expire();
  void fail_all_waiting();
  void notice_leadership();
  [[nodiscard]] bool lost_leadership() const;

  GroupId group_;
  std::uint64_t request_timeout_ms_;
  Environment environment_;
  raft::Raft raft_;

  std::deque<Proposal> proposals_;                      // by index, and so by deadline
  std::map<std::uint64_t, Read> reads_;                 // by id: asked, not yet confirmed
  std::set<std::pair<Index, std::uint64_t>> applying_;  // confirmed reads, by what they wait for
  std::uint64_t next_read_id_ = 1;
  bool abandoned_ = false;

  // As pump() last saw it
  Term seen_term_;
  NodeId seen_leader_;
  bool seen_leading_ = false;
};

// =================================================================================================
// Bodies
// =================================================================================================

inline Replica::Replica(GroupId group, raft::Config config, raft::Restored restored,
                        std::uint64_t request_timeout_ms, Environment environment)
    : group_(group),
      request_timeout_ms_(request_timeout_ms),
      environment_(environment),
      raft_(std::move(config), std::move(restored), environment_.clock.now_ms()),
      seen_term_(raft_.current_term()) {}

inline bool Replica::lacks_quorum() const {
  if (raft_.leader() != NodeId{}) return false;
  if (raft_.lost_quorum()) return true;
  const std::uint64_t leaderless_ms = environment_.clock.now_ms() - raft_.leaderless_since_ms();
  return leaderless_ms > raft_.config().election_timeout_max_ms;
}

inline Refusal Replica::refusal() const {
  if (abandoned_) return Refusal::kStorage;
  return lacks_quorum() ? Refusal::kNoQuorum : Refusal::kNotLeader;
}

// A write that timed out and was then overwritten by another leader's is nobody's any more: a read
// would wait for its index for ever.
inline Index Replica::in_log(Index after) const {
  return std::min(after, raft_.log().last_index());
}

inline Index Replica::propose(std::string data, Waiter& waiter) {
  if (abandoned_) {
    waiter.failed(Refusal::kStorage);
    return {};
  }
  const std::uint64_t now_ms = environment_.clock.now_ms();
  const raft::Proposed proposed =
      raft_.propose(now_ms, std::make_shared<const std::string>(std::move(data)));
  if (proposed.status == raft::ProposeStatus::kAccepted) {
    proposals_.push_back({proposed.index, proposed.term, now_ms + request_timeout_ms_, &waiter});
    return proposed.index;
  }
  const bool full = proposed.status == raft::ProposeStatus::kLogFull;
  waiter.failed(full ? Refusal::kLogFull : refusal());
  return {};
}

// The lease is judged by a clock read after the request came in: a pause in between can only make
// it end.
inline bool Replica::readable(Index after) const {
  if (abandoned_) return false;
  const auto index = raft_.lease_read(environment_.clock.now_ms());
  return index && raft_.last_applied() >= std::max(*index, in_log(after));
}

inline void Replica::read(Index after, Waiter& waiter) {
  const std::uint64_t now_ms = environment_.clock.now_ms();
  const std::uint64_t id = next_read_id_++;
  if (abandoned_ || !raft_.read(now_ms, id)) return waiter.failed(refusal());
  reads_.emplace(id, Read{now_ms + request_timeout_ms_, in_log(after), &waiter});
}

inline void Replica::read_at(Index index, Waiter& waiter) {
  if (abandoned_) return waiter.failed(refusal());
  if (raft_.last_applied() >= index) return waiter.readable();
  const std::uint64_t id = next_read_id_++;
  const std::uint64_t deadline_ms = environment_.clock.now_ms() + request_timeout_ms_;
  reads_.emplace(id, Read{deadline_ms, {}, &waiter});
  await_applied(id, index);
}

inline void Replica::await_applied(std::uint64_t read_id, Index index) {
  reads_.at(read_id).applying = index;
  applying_.emplace(index, read_id);
}

inline void Replica::tick() {
  raft_.tick(environment_.clock.now_ms());
  expire();
}

inline void Replica::receive(const raft::Message& message) {
  raft_.step(environment_.clock.now_ms(), message);
}

inline void Replica::unreachable(NodeId peer) {
  raft_.unreachable(environment_.clock.now_ms(), peer);
}

inline void Replica::transfer_leadership(NodeId to) {
  raft_.transfer_leadership(environment_.clock.now_ms(), to);
}

inline void Replica::on_synced(std::uint64_t write_id) {
  raft_.synced(environment_.clock.now_ms(), write_id);
}

inline void Replica::on_fetched(NodeId peer, Term prev_log_term, std::vector<raft::Entry> entries) {
  raft_.fetched(environment_.clock.now_ms(), peer, prev_log_term, std::move(entries));
}

inline raft::ProposeStatus Replica::change_members(std::vector<NodeId> voters,
                                                   std::vector<NodeId> learners) {
  if (abandoned_) return raft::ProposeStatus::kNotLeader;
  return raft_.change_members(environment_.clock.now_ms(), std::move(voters), std::move(learners))
      .status;
}

inline void Replica::on_snapshot_ended(NodeId peer, Index installed) {
  raft_.snapshot_ended(environment_.clock.now_ms(), peer, installed);
}

// What is ready goes first, so that the disk does it before it replaces the log.
inline bool Replica::begin_install(const raft::Snapshot& snapshot) {
  if (abandoned_) return false;
  pump();
  return raft_.begin_install(environment_.clock.now_ms(), snapshot);
}

inline void Replica::on_installed() { raft_.installed(environment_.clock.now_ms()); }

inline void Replica::on_applied(Index last, const std::vector<Outcome>& outcomes) {
  raft_.applied(environment_.clock.now_ms(), last);
  const Index first = last + 1 - outcomes.size();
  while (!proposals_.empty() && proposals_.front().index <= last) {
    const Proposal proposal = proposals_.front();
    proposals_.pop_front();
    // Proposals of an earlier term are gone by now: leadership was lost, and they were told.
    raft::require(proposal.index >= first, "an entry that somebody waits for was never applied");
    if (proposal.waiter != nullptr) proposal.waiter->done(outcomes[proposal.index - first]);
  }
  serve_applied_reads();
}

inline void Replica::pump(bool gathers) {
  raft_.gather_proposals(gathers);
  while (raft_.has_ready()) {
    raft::Ready ready = raft_.take_ready(environment_.clock.now_ms());
    for (raft::Message& message : ready.messages) {
      environment_.transport.send(group_, std::move(message));
    }
    if (ready.write) environment_.log_store.append(group_, std::move(*ready.write));
    if (!ready.committed.empty()) apply(std::move(ready.committed));
    for (const raft::Fetch& fetch : ready.fetches) environment_.log_store.fetch(group_, fetch);
    for (const NodeId peer : ready.snapshots) environment_.snapshots.send_snapshot(group_, peer);
    for (const raft::ReadResult& result : ready.reads) confirm(result);
  }
  // What comes from here on leaves with the next call, and not piece by piece with what a peer is sent
  // because it answered.
  raft_.gather_proposals(true);
  notice_leadership();
  serve_applied_reads();
}

inline void Replica::apply(std::vector<raft::Entry> entries) {
  if (const auto outcomes = environment_.applier.apply_now(group_, entries)) {
    return on_applied(entries.back().index, *outcomes);
  }
  environment_.applier.apply(group_, std::move(entries));
}

inline void Replica::confirm(const raft::ReadResult& result) {
  const auto found = reads_.find(result.id);
  if (found == reads_.end()) return;  // timed out meanwhile
  if (result.ok) {
    return await_applied(result.id, std::max(result.index, found->second.after));
  }
  Waiter* waiter = found->second.waiter;
  reads_.erase(found);
  waiter->failed(refusal());
}

inline void Replica::serve_applied_reads() {
  while (!applying_.empty() && applying_.begin()->first <= raft_.last_applied()) {
    const auto read = reads_.find(applying_.begin()->second);
    applying_.erase(applying_.begin());
    Waiter* waiter = read->second.waiter;
    reads_.erase(read);
    waiter->readable();
  }
}

// Every request has the same time, so both queues are in the order of their deadlines.
inline void Replica::expire() {
  const std::uint64_t now_ms = environment_.clock.now_ms();
  // By number, not by iterator: who hears may propose again.
  for (std::size_t i = 0; i < proposals_.size() && proposals_[i].deadline_ms <= now_ms; ++i) {
    // It stays in the queue, for it may still be applied; nobody waits for it any more.
    Waiter* waiter = std::exchange(proposals_[i].waiter, nullptr);
    if (waiter != nullptr) waiter->failed(Refusal::kTimeout);
  }
  while (!reads_.empty() && reads_.begin()->second.deadline_ms <= now_ms) {
    const auto [id, read] = *reads_.begin();
    reads_.erase(reads_.begin());
    if (read.applying) applying_.erase({*read.applying, id});
    read.waiter->failed(Refusal::kTimeout);
  }
}

inline void Replica::abandon() {
  abandoned_ = true;
  fail_all_waiting();
}

// The moment that leadership is lost is the moment that clients hear of it.
inline void Replica::fail_all_waiting() {
  for (const Proposal& proposal : std::exchange(proposals_, {})) {
    if (proposal.waiter != nullptr) proposal.waiter->failed(Refusal::kUnknown);
  }
  applying_.clear();
  for (const auto& [id, read] : std::exchange(reads_, {})) read.waiter->failed(refusal());
}

inline void Replica::notice_leadership() {
  const bool lost = lost_leadership();
  const bool leading = raft_.is_leader();
  const bool changed = leading != seen_leading_ || raft_.leader() != seen_leader_ ||
                       raft_.current_term() != seen_term_;
  seen_leading_ = leading;
  seen_leader_ = raft_.leader();
  seen_term_ = raft_.current_term();
  if (lost) fail_all_waiting();
  if (changed) environment_.observer.leadership_changed(group_);
}

// Also when it came, took a proposal and went since the last look: the entry at that index may be
// another leader's by the time it is applied.
inline bool Replica::lost_leadership() const {
  const bool leading = raft_.is_leader();
  if (seen_leading_ && (!leading || raft_.current_term() != seen_term_)) return true;
  if (proposals_.empty()) return false;
  return !leading || proposals_.front().term != raft_.current_term();
}

}  // namespace seshat

#endif  // SESHAT_REPLICA_HPP
