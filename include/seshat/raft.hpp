// seshat/raft.hpp - Raft as a pure state machine.
//
//                      ┌───────────────┐   messages   send them, at once
//   tick(now)     ───> │               │ ──────────────────────────────>
//   step(now, m)  ───> │     Raft      │   write      put it on disk, then call synced(write.id)
//   propose(now)  ───> │  (no clock,   │ ──────────────────────────────>
//   read(now, id) ───> │  disk, lock)  │   committed  apply it, then call applied(index)
//   synced(id)    ───> │               │ ──────────────────────────────>
//   applied(i)    ───> └───────────────┘   reads      answer them
//
// The same state and the same inputs give the same outputs. Terms and names are those of the Raft
// paper (Ongaro and Ousterhout, "In Search of an Understandable Consensus Algorithm", cited as §n)
// and of Ongaro's thesis (cited as thesis n).
//
// Keeps:    at most one leader a term (§5.2); a leader never rewrites its log (§5.3); what is
//           committed stays (§5.4); nothing that leaves promises what is not on disk: messages
//           that do are held back inside until synced() says so, so the owner sends what it gets.
// Time:     every input carries now_ms of a clock that never goes back and goes on while the
//           machine sleeps. Timeouts count ticks (a late tick counts once); leases and the
//           withholding of votes use now_ms itself.
// Threads:  none inside; one owner makes every call.
// Alone:    copy this file; it needs only the standard library.
//
//   raft::Raft node(config, restored, now_ms);
//   for (;;) {
//     wait_for_input();                          // a timer, the network, the disk, a client
//     node.tick(now_ms);                         // or step / propose / read / synced / applied
//     while (node.has_ready()) {
//       raft::Ready ready = node.take_ready(now_ms);
//       for (auto& message : ready.messages) network.send(message);
//       if (ready.write) disk.append(*ready.write);    // later: node.synced(now_ms, id)
//       for (auto& entry : ready.committed) machine.apply(entry);
//       if (!ready.committed.empty()) node.applied(now_ms, ready.committed.back().index);
//     }
//   }
//
// Members (§6) change by change_members(), through joint consensus; a leader that is no voter any
// more steps down. The log may be cut (§7) up to compactable_index(); tell compacted(). A peer that
// then needs a snapshot shows up in Ready::snapshots. Its data travels beside this, in the owner's
// own way; what the core has to know of it is: sending_snapshot() and snapshot_ended() on the
// leader; begin_install() and installed() on the follower.
#ifndef SESHAT_RAFT_HPP
#define SESHAT_RAFT_HPP

#include <algorithm>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace seshat::raft {

// ---- The paper's numbers, as types that cannot be mixed up -------------------------------------

template <class Tag>
struct Number {
  std::uint64_t value = 0;

  friend constexpr auto operator<=>(Number, Number) = default;
  friend constexpr Number operator+(Number a, std::uint64_t n) { return {a.value + n}; }
  friend constexpr Number operator-(Number a, std::uint64_t n) { return {a.value - n}; }
  friend constexpr std::uint64_t operator-(Number a, Number b) { return a.value - b.value; }
  constexpr Number& operator++() {
    ++value;
    return *this;
  }
};

using Term = Number<struct TermTag>;    // 0: before the first election
using Index = Number<struct IndexTag>;  // 0: before the first entry
using NodeId = Number<struct NodeTag>;  // 0: nobody
// For owners of many groups; the core is one group and never asks which.
using GroupId = Number<struct GroupTag>;

// ---- What is stored and sent --------------------------------------------------------------------

// Bytes that Raft carries and never reads; shared, so that disk, peers and apply use the same ones.
using Payload = std::shared_ptr<const std::string>;

enum class EntryType : std::uint8_t { kNormal = 0, kConfigChange = 1, kNoOp = 2 };

// Who takes part in a group (§6; thesis 4). Voters decide; learners get the log and don't count.
// While `outgoing` is not empty the configuration is joint, the paper's C_old,new: whatever is
// decided needs a majority of `voters` (C_new) and one of `outgoing` (C_old).
struct Configuration {
  std::vector<NodeId> voters;
  std::vector<NodeId> outgoing;
  std::vector<NodeId> learners;

  [[nodiscard]] bool is_joint() const { return !outgoing.empty(); }
  [[nodiscard]] bool is_voter(NodeId id) const;
  [[nodiscard]] bool has(NodeId id) const;  // voter or learner

  friend bool operator==(const Configuration&, const Configuration&) = default;
};

struct Entry {
  Term term;
  Index index;
  EntryType type = EntryType::kNormal;
  Payload data;
  std::shared_ptr<const Configuration> configuration = nullptr;  // of a kConfigChange

  // Memory and wire cost, roughly: what the bounds below count.
  [[nodiscard]] std::size_t size_bytes() const { return 64 + (data ? data->size() : 0); }
};

// Where a snapshot of the state machine stands (Figure 13). Its data is the owner's business.
struct Snapshot {
  Index last_included_index;
  Term last_included_term;
  Configuration configuration;  // in force there ...
  Index configuration_index;    // ... since this entry; 0: never recorded, Config::voters holds

  friend bool operator==(const Snapshot&, const Snapshot&) = default;
};

// Figure 2, "persistent state": on disk before any message that depends on it leaves. The commit
// index is a hint that shortens a restart; losing it loses nothing.
struct HardState {
  Term term;
  NodeId vote;
  Index commit;

  friend bool operator==(const HardState&, const HardState&) = default;
};

// RequestVote (Figure 2), and the pre-vote of thesis 9.6: "would you vote for me in that term?"
struct RequestVote {
  Index last_log_index;
  Term last_log_term;
  bool pre_vote = false;
  bool transfer = false;  // after TimeoutNow: overrides the withholding of votes (thesis 4.2.3)
};

struct RequestVoteReply {
  bool granted = false;
  bool pre_vote = false;
};

// AppendEntries (Figure 2). One without entries is a heartbeat.
struct AppendEntries {
  Index prev_log_index;
  Term prev_log_term;
  Index commit_index;
  std::uint64_t round = 0;  // numbers the leader's heartbeats: leases and ReadIndex count on it
  // No member that the leader can reach needs this entry or what comes before it any more.
  Index compactable_index;
  std::vector<Entry> entries;
};

struct AppendEntriesReply {
  bool success = false;
  Index match_index;        // on success: our log agrees with the leader's up to here, ON DISK
  std::uint64_t round = 0;  // the highest round received in this term
  std::uint32_t withhold_ms = 0;  // for how long this node withholds votes after that receipt
  Index rejected_index;           // on refusal: the prev_log_index that did not match
  Index conflict_index;           // ... the first index of the term that stands there instead,
  Term conflict_term;             // ... and that term; 0: the log ends before conflict_index
};

// Leadership transfer (thesis 3.10): the receiver starts an election at once.
struct TimeoutNow {};

// InstallSnapshot (Figure 13), which announces the data that the owner sends beside it.
struct InstallSnapshot {
  Snapshot snapshot;
};

struct Message {
  NodeId from;
  NodeId to;
  Term term;
  std::variant<RequestVote, RequestVoteReply, AppendEntries, AppendEntriesReply, TimeoutNow,
               InstallSnapshot>
      body;
};

// ---- Configuration and restored state ------------------------------------------------------------

struct Config {
  NodeId id;
  // At the founding of the group: what the log or a snapshot says of its members counts for more.
  // Empty on a node that joins later.
  std::vector<NodeId> voters;
  std::uint64_t seed = 1;   // of the election timeouts; different on each node
  bool lease_reads = true;  // false: every read asks a majority (ReadIndex, thesis 6.4)

  std::uint64_t tick_interval_ms = 25;
  std::uint64_t heartbeat_interval_ms = 100;
  // Where nothing was written for a second, half as many heartbeats do, and an idle machine sleeps: if
  // two intervals leave the lease, and the followers' patience, room enough.
  bool rests = false;
  std::uint64_t election_timeout_min_ms = 500;
  std::uint64_t election_timeout_max_ms = 1000;  // or two ticks above the least, if that is more
  std::uint64_t vote_withhold_ms = 300;
  std::uint64_t lease_ms = 250;  // at most 0.85 of vote_withhold_ms: room for clocks that drift

  std::size_t max_append_size_bytes = 512 * 1024;      // entries in one AppendEntries
  std::size_t max_inflight_size_bytes = 4 << 20;       // not yet acknowledged, for each peer
  std::size_t max_apply_size_bytes = 4 << 20;          // in one batch of committed entries
  std::size_t applied_tail_size_bytes = 16 << 20;      // applied entries kept for slow followers
  std::size_t max_log_memory_size_bytes = 512u << 20;  // more refuses proposals
  // The log is not cut before what a member needs that was heard of within this time: whoever just
  // restarts shall not need a snapshot.
  std::uint64_t keep_log_for_ms = 10'000;
};

// What a node knew when it stopped, all of it synced (what was merely written may still be lost).
// Entries before base_index + 1 are on disk but not in memory.
struct Restored {
  HardState hard_state;
  Index first_index{1};  // of the log on disk: what comes before it has been cut off
  Index base_index;
  Term base_term;
  std::vector<Entry> entries;  // base_index + 1, base_index + 2, ...
  Index applied_index;         // of the state machine; between base_index and the last entry
  // As the state machine has applied it. Index 0: none was ever recorded, Config::voters holds.
  Configuration configuration;
  Index configuration_index;
};

// ---- Outputs ---------------------------------------------------------------------------------------

// To be on disk, all of it or nothing, before synced(id). `entries` replaces the log from
// entries.front().index on: whatever stood there or after it is to be gone.
struct Write {
  std::uint64_t id = 0;
  std::optional<HardState> hard_state;
  std::vector<Entry> entries;
};

struct ReadResult {
  std::uint64_t id = 0;
  bool ok = false;  // false: leadership was lost first; nothing was read
  Index index;      // serve the read as soon as the state machine has applied this
};

// A follower needs entries that are no longer in memory: read them, then call fetched().
struct Fetch {
  NodeId peer;
  Index from;
  std::size_t max_size_bytes = 0;
  Index to;  // at most up to here: all that has been applied, and so can't change any more
};

struct Ready {
  std::vector<Message> messages;
  std::optional<Write> write;
  std::vector<Entry> committed;
  std::vector<ReadResult> reads;
  std::vector<Fetch> fetches;
  // Peers that need what has been cut off the log: send them a snapshot of at least
  // Raft::last_applied() as of now, or a present one that the log still follows on, and say so.
  std::vector<NodeId> snapshots;
};

enum class Role : std::uint8_t { kFollower, kPreCandidate, kCandidate, kLeader };

[[nodiscard]] std::string_view role_name(Role role);  // for people

enum class ProposeStatus : std::uint8_t {
  kAccepted,      // in this leader's log; whether it commits is seen when it is applied
  kNotLeader,     // not appended
  kTransferring,  // not appended: leadership is on its way to another node
  kChanging,   // not appended: another change of members, or this term's no-op, must commit first
  kUnchanged,  // not appended: the members are these already
  kLogFull,    // not appended: max_log_memory_size_bytes wait for the disk or for followers
};

struct Proposed {
  ProposeStatus status = ProposeStatus::kNotLeader;
  Term term;
  Index index;
};

// How far a peer is, as its leader sees it (Figure 2: nextIndex, matchIndex).
struct PeerStatus {
  NodeId id;
  Index next_index;
  Index match_index;
  bool replicating = false;  // false: its log's end is still being looked for
  bool needs_snapshot = false;
  bool reachable = false;  // it answered within an election timeout
};

// Logs that can't be believed (a hole, a term that falls, applied beyond the log) give a text that
// says so; nullopt: they can.
[[nodiscard]] std::optional<std::string> check_restored(const Restored& restored);

// A broken invariant: says which, and ends the process. Nothing could be trusted after it.
[[noreturn]] void broken_invariant(const char* what);
void require(bool holds, const char* what);

// ---- The in-memory part of the log ------------------------------------------------------------------

//   on disk only        │ base_index │ entries in memory ...          │
//   1, 2, 3, ...        │ (its term  │ base_index + 1 ... last_index()│
//                       │ is known)  │                                │
class Log {
 public:
  Log(Index base_index, Term base_term, std::vector<Entry> entries);

  [[nodiscard]] Index base_index() const { return base_index_; }
  [[nodiscard]] Index last_index() const { return base_index_ + entries_.size(); }
  [[nodiscard]] Term last_term() const { return term_at(last_index()); }
  [[nodiscard]] std::size_t size_bytes() const { return size_bytes_; }

  // Whether the term of `index` is known here: base_index <= index <= last_index.
  [[nodiscard]] bool knows(Index index) const {
    return index >= base_index_ && index <= last_index();
  }
  [[nodiscard]] Term term_at(Index index) const;
  [[nodiscard]] const Entry& at(Index index) const;

  void append(Entry entry);
  // Drops `from` and all that follows.
  void truncate(Index from);
  // Forgets applied entries from the front until at most `keep_size_bytes` are left.
  void trim(Index applied, std::size_t keep_size_bytes);
  // Forgets everything: the log goes on behind this entry.
  void reset(Index base_index, Term base_term);
  // Copies entries from `from` to `to` (both included), at least one, then until `max_size_bytes`.
  [[nodiscard]] std::vector<Entry> slice(Index from, Index to, std::size_t max_size_bytes) const;

 private:
  Index base_index_;
  Term base_term_;
  std::deque<Entry> entries_;
  std::size_t size_bytes_ = 0;
};

// ---- Raft ---------------------------------------------------------------------------------------------

class Raft {
  static constexpr std::size_t kMaxHeldMessages = 256;
  static constexpr std::uint64_t kRestAfterMs = 1000;

 public:
  // A node as it was left on disk. Votes are withheld for vote_withhold_ms from now on: a node
  // forgets with a restart what it promised to a leader's lease.
  Raft(Config config, Restored restored, std::uint64_t now_ms);

  // ---- inputs
  // To be called every max_tick_ms(). A call that comes late by more than a tick_interval_ms counts as
  // late by that.
  void tick(std::uint64_t now_ms);
  void step(std::uint64_t now_ms, const Message& message);
  [[nodiscard]] Proposed propose(std::uint64_t now_ms, Payload data);
  // Asks for a linearizable read; the answer comes in Ready::reads under `id`. False: not leader.
  [[nodiscard]] bool read(std::uint64_t now_ms, std::uint64_t id);
  // The fast way: with a valid lease, the index that a read must see applied; else nullopt.
  [[nodiscard]] std::optional<Index> lease_read(std::uint64_t now_ms) const;
  // Every Write up to and including this one is on disk.
  void synced(std::uint64_t now_ms, std::uint64_t write_id);
  // The state machine has applied all up to `index`.
  void applied(std::uint64_t now_ms, Index index);
  // Answers a Fetch: the term of the entry before `entries`, and some entries from Fetch::from on;
  // none if they could not be read (the next heartbeat asks again).
  void fetched(std::uint64_t now_ms, NodeId peer, Term prev_log_term, std::vector<Entry> entries);
  // The stream to a peer broke. A follower whose leader it is may ask for pre-votes as soon as its
  // own withholding has run out, instead of waiting for the election timeout.
  void unreachable(std::uint64_t now_ms, NodeId peer);
  // Makes these the members of the group (§6), in one step where the voters stay the same, else by
  // way of a joint configuration; it is done when configuration() is not joint any more and
  // configuration_index() has committed. For the members there are, with index 0: records them.
  [[nodiscard]] Proposed change_members(std::uint64_t now_ms, std::vector<NodeId> voters,
                                        std::vector<NodeId> learners);
  // The log on disk begins at `first_index` now.
  void compacted(Index first_index) { first_index_ = std::max(first_index_, first_index); }
  // Leader: a snapshot that ends with `last_included_index` is on its way to `peer`.
  void sending_snapshot(NodeId peer, Index last_included_index);
  // Leader: `peer` has all up to `installed`; 0: it was not sent, or refused. If it still needs one,
  // it will be in Ready::snapshots again.
  void snapshot_ended(std::uint64_t now_ms, NodeId peer, Index installed);
  // Follower: all of a snapshot has come in. True: nothing is appended or applied from now on, until
  // the owner has put it in the place of log and state machine, on disk, and calls installed().
  // False: it is not needed any more. Everything ready must have been taken before.
  [[nodiscard]] bool begin_install(std::uint64_t now_ms, const Snapshot& snapshot);
  void installed(std::uint64_t now_ms);
  // Hands leadership to `to`, or to the most advanced peer; a no-op on a follower, and when `to` is
  // not another voter.
  void transfer_leadership(std::uint64_t now_ms, NodeId to = {});
  // `peer` learns what has committed by now, and not with the next heartbeat: somebody waits for it
  // there.
  void tell_commit(NodeId peer);
  // Leader: as long as this is so, what is proposed waits in the log, and then leaves together. Not
  // while leadership is handed over.
  void gather_proposals(bool gathers) { gathers_ = gathers; }
  // An empty node must not vote before a leader admitted it: it may have voted before it was wiped.
  void set_may_vote(bool may_vote) { may_vote_ = may_vote; }

  // ---- outputs
  [[nodiscard]] bool has_ready() const;
  [[nodiscard]] Ready take_ready(std::uint64_t now_ms);

  // ---- what is known here
  // The members, as the newest entry of the log says, committed or not: a change is in force as soon
  // as it is in the log (§6).
  [[nodiscard]] const Configuration& configuration() const {
    return configurations_.back().configuration;
  }
  [[nodiscard]] Index configuration_index() const { return configurations_.back().index; }
  // Whether the snapshot would bring this node forward.
  [[nodiscard]] bool needs(const Snapshot& snapshot) const;
  [[nodiscard]] bool is_installing() const { return installing_.has_value(); }
  // The log may be cut up to here: it has been applied, and no member that can be reached needs it.
  [[nodiscard]] Index compactable_index() const;
  [[nodiscard]] Role role() const { return role_; }
  [[nodiscard]] bool is_leader() const { return role_ == Role::kLeader; }
  [[nodiscard]] NodeId id() const { return config_.id; }
  [[nodiscard]] NodeId leader() const { return leader_; }  // 0: not known
  [[nodiscard]] Term current_term() const { return current_term_; }
  [[nodiscard]] NodeId voted_for() const { return voted_for_; }
  [[nodiscard]] Index commit_index() const { return commit_index_; }
  [[nodiscard]] Index last_applied() const { return last_applied_; }
  [[nodiscard]] Index durable_index() const { return durable_index_; }
  // Up to here the log has been handed out, to be written.
  [[nodiscard]] Index left_index() const { return write_from_ - 1; }
  // Of the log on disk; what comes before was cut off.
  [[nodiscard]] Index first_index() const { return first_index_; }
  [[nodiscard]] const Log& log() const { return log_; }
  [[nodiscard]] bool may_vote() const { return may_vote_; }
  // Whether commit_index() takes in all that had committed before this term, and all that its leader
  // has said has committed since. False until the leader has committed in its term.
  [[nodiscard]] bool is_current() const;
  // A follower: the last round of heartbeats that it heard of in this term.
  [[nodiscard]] std::uint64_t round_received() const { return round_received_; }
  [[nodiscard]] bool has_lease(std::uint64_t now_ms) const;
  [[nodiscard]] std::uint64_t lease_until_ms() const { return lease_until_ms_; }
  // How far apart two ticks may be, as it is now.
  [[nodiscard]] std::uint64_t max_tick_ms() const;
  [[nodiscard]] bool transferring() const { return transfer_.has_value(); }
  // This node led and stepped down because no majority answered; false again under a new leader.
  [[nodiscard]] bool lost_quorum() const { return lost_quorum_; }
  // When this node last ceased to know a leader; meaningful while leader() is 0.
  [[nodiscard]] std::uint64_t leaderless_since_ms() const { return leaderless_since_ms_; }
  [[nodiscard]] std::vector<PeerStatus> peers() const;
  [[nodiscard]] const Config& config() const { return config_; }

 private:
  struct Inflight {
    Index last_index;
    std::size_t size_bytes;
  };
  struct Peer {
    NodeId id;
    Index next_index;               // the next entry to send
    Index match_index;              // known to be on its disk
    Term prev_term;                 // of the entry at next_index - 1, if it was fetched; else 0
    bool replicating = false;       // pipelined; else probing: one AppendEntries at a time
    bool probe_pending = false;     // entries are out as a probe; the next go with an answer
    std::uint64_t probe_round = 0;  // the first round after the probing began
    Index fetch_from;               // a Fetch is out from here to fetch_to; 0: none
    Index fetch_to;
    std::deque<Inflight> inflight;
    std::size_t inflight_size_bytes = 0;
    std::uint64_t acked_round = 0;
    std::uint64_t withhold_ms = 0;  // as its last acknowledgement said
    Index commit_told;              // the newest that was sent to it
    bool vote_granted = false;
    std::uint64_t heard_ms = 0;  // in ticked_ms_
    bool needs_snapshot = false;
    Index snapshot_index;  // ... and where the one that it gets ends, at the least
  };
  struct ConfigurationAt {
    Index index;
    Configuration configuration;
  };
  struct Round {
    std::uint64_t number;
    std::uint64_t sent_ms;
  };
  struct PendingWrite {
    std::uint64_t id;
    Index last_index;  // the log is on disk up to here once this write is; lowered by truncation
    std::uint64_t since_ms;  // in ticked_ms_
  };
  struct Held {
    std::uint64_t write_id;
    Message message;
  };
  struct WaitingRead {
    std::uint64_t id;
    std::uint64_t round;  // 0: not yet given to a round
    Index index;
  };
  struct Transfer {
    NodeId to;
    std::uint64_t elapsed_ms = 0;
    bool timeout_now_sent = false;
  };

  // Message handlers, one each; step() is their table of contents.
  void handle(std::uint64_t now_ms, const Message& message, const RequestVote& request);
  void handle(std::uint64_t now_ms, const Message& message, const RequestVoteReply& reply);
  void handle(std::uint64_t now_ms, const Message& message, const AppendEntries& request);
  void handle(std::uint64_t now_ms, const Message& message, const AppendEntriesReply& reply);
  void handle(std::uint64_t now_ms, const Message& message, const TimeoutNow& request);
  void handle(std::uint64_t now_ms, const Message& message, const InstallSnapshot& request);
  [[nodiscard]] bool admit_term(std::uint64_t now_ms, const Message& message);
  void answer_stale(const Message& message);

  // Roles (§5.1, Figure 4)
  void become_follower(std::uint64_t now_ms, Term term, NodeId leader);
  void become_pre_candidate(std::uint64_t now_ms);
  void become_candidate(std::uint64_t now_ms, bool transfer);
  void become_leader(std::uint64_t now_ms);
  void forget_leadership();
  void set_leader(std::uint64_t now_ms, NodeId leader);
  void reset_election_timer(std::uint64_t now_ms);
  void tick_leader(std::uint64_t now_ms, std::uint64_t elapsed_ms);
  void tick_follower(std::uint64_t now_ms);
  [[nodiscard]] std::uint64_t timer_ms(std::uint64_t now_ms) const;
  [[nodiscard]] bool election_timed_out() const;

  // Elections (§5.2, §5.4.1)
  [[nodiscard]] bool log_is_up_to_date(const RequestVote& request) const;
  [[nodiscard]] bool withholds_votes(std::uint64_t now_ms) const;
  [[nodiscard]] bool may_campaign(std::uint64_t now_ms) const;
  [[nodiscard]] bool could_lead() const;
  [[nodiscard]] bool may_be_voter() const;
  void request_votes(bool pre_vote, bool transfer);
  void vote_for(NodeId node);
  void count_votes(std::uint64_t now_ms);

  // Members (§6)
  [[nodiscard]] bool is_voter() const { return configuration().is_voter(config_.id); }
  [[nodiscard]] bool is_only_voter() const;
  [[nodiscard]] std::uint64_t heartbeat_interval_ms() const;
  [[nodiscard]] bool is_idle() const;
  void adopt(Index index, Configuration configuration);
  void follow_configuration();
  void forget_configurations_from(Index from);
  [[nodiscard]] bool configuration_step_due() const;
  void advance_configuration(std::uint64_t now_ms);
  void append_configuration(Configuration configuration);
  void step_down_as_removed(std::uint64_t now_ms);
  [[nodiscard]] Peer* fittest_voter();

  // Followers (§5.3)
  void hear_leader(std::uint64_t now_ms, NodeId leader, std::uint64_t round);
  [[nodiscard]] static bool well_formed(const AppendEntries& request);
  void reject_append(NodeId leader, Index prev_log_index);
  void append_from_leader(const AppendEntries& request);
  void truncate_conflict(Index from);
  void acknowledge();

  // Leaders (§5.3, §5.4.2)
  void append_as_leader(EntryType type, Payload data);
  void request_snapshot(Peer& peer);
  void heartbeat(std::uint64_t now_ms);
  void send_heartbeat(Peer& peer);
  void replicate(Peer& peer);
  void send_entries(Peer& peer, Index prev, Term prev_term, std::vector<Entry> entries);
  void back_up(Peer& peer, const AppendEntriesReply& reply);
  void advance_match(Peer& peer, const AppendEntriesReply& reply);
  void advance_commit();
  template <class Reached>
  [[nodiscard]] std::uint64_t reached_by_majority(std::uint64_t own, Reached reached);
  template <class Reached>
  [[nodiscard]] std::uint64_t reached_by_majority_of(const std::vector<NodeId>& voters,
                                                     std::uint64_t own, Reached reached);
  void probe(Peer& peer, Index next_index);

  // Leases and reads (thesis 6.4)
  void count_round(std::uint64_t now_ms);
  void start_read_round(std::uint64_t now_ms);
  void confirm_reads(std::uint64_t now_ms, std::uint64_t round);
  void fail_reads();

  // Transfer (thesis 3.10)
  void advance_transfer(std::uint64_t elapsed_ms);

  void save_hard_state() { hard_state_write_ = next_write_id_; }
  [[nodiscard]] bool hard_state_pending() const { return hard_state_write_ == next_write_id_; }
  // The last entry that may go to the peers and to the disk by now.
  [[nodiscard]] Index leaving_index() const {
    const bool waits = gathers_ && role_ == Role::kLeader && !transfer_ && !hard_state_pending();
    return waits ? write_from_ - 1 : log_.last_index();
  }
  [[nodiscard]] bool disk_stalled() const;
  [[nodiscard]] bool log_memory_is_full() const {
    return log_.size_bytes() > config_.max_log_memory_size_bytes;
  }
  [[nodiscard]] Index apply_limit() const {
    return installing_ ? apply_handed_ : std::min(commit_index_, durable_index_);
  }
  [[nodiscard]] bool reachable(const Peer& peer) const {
    return ticked_ms_ - peer.heard_ms <= config_.election_timeout_max_ms;
  }
  [[nodiscard]] Peer* find_peer(NodeId id);
  template <class Body>
  void send(NodeId to, Term term, Body body);
  template <class Body>
  void send_when_saved(NodeId to, Body body);

  Config config_;
  std::mt19937_64 random_;

  // Persistent state (Figure 2): handed out in Ready::write before anything that depends on it.
  Term current_term_;
  NodeId voted_for_;
  Log log_;

  // Members: the one in force at the front of the log's memory or before, then every later one in
  // the log. Only the last counts; the others are for when it is truncated away.
  std::deque<ConfigurationAt> configurations_;
  Index first_index_;  // of the log on disk

  // Volatile state
  Role role_ = Role::kFollower;
  NodeId leader_;
  Index commit_index_;
  Index last_applied_;
  Index apply_handed_;    // handed out in Ready::committed, perhaps not applied yet
  Index durable_index_;   // our log is on disk up to here
  Index verified_index_;  // our log agrees with this term's leader's up to here
  bool may_vote_ = true;
  bool lost_quorum_ = false;
  std::optional<Snapshot> installing_;
  Index compactable_told_;  // by leaders
  Index committed_told_;    // by leaders; may lie beyond the log
  std::uint64_t leaderless_since_ms_ = 0;

  // Time
  std::uint64_t last_tick_ms_;
  std::uint64_t ticked_ms_ = 0;          // since the start, pauses left out
  std::uint64_t election_since_ms_ = 0;  // by timer_ms(); leader: when a majority last answered
  std::uint64_t election_timeout_ms_ = 0;
  std::uint64_t heartbeat_sent_ms_ = 0;  // by timer_ms()
  std::uint64_t withhold_until_ms_;
  bool leader_stream_broken_ = false;
  std::uint64_t next_tick_ms_ = config_.tick_interval_ms;  // as the last tick said
  std::uint64_t asked_ms_ = 0;  // by ticked_ms_: when something was appended, or a round asked for
  std::uint64_t early_vote_at_ms_ = 0;
  std::uint64_t round_received_ = 0;

  // Writes on their way to the disk
  std::uint64_t next_write_id_ = 1;
  std::uint64_t synced_write_id_ = 0;
  std::uint64_t hard_state_write_ = 0;  // the write that carries the present term and vote
  Index write_from_;                    // entries from here on are not handed out yet
  bool gathers_ = false;
  std::deque<PendingWrite> pending_writes_;
  std::vector<Held> held_;

  // Leader, candidate
  std::vector<Peer> peers_;
  Index term_start_index_;  // of this leader's no-op
  std::uint64_t round_ = 0;
  std::deque<Round> rounds_;
  std::uint64_t quorum_round_sent_ms_ = 0;
  std::uint64_t lease_until_ms_ = 0;
  bool lease_forfeited_ = false;  // TimeoutNow was sent in this term
  bool transfer_failed_ = false;  // a transfer of this term ran out of time
  std::deque<WaitingRead> waiting_reads_;
  std::optional<Transfer> transfer_;
  std::vector<std::uint64_t> majority_scratch_;

  // Outputs that wait for take_ready()
  std::vector<Message> outbox_;
  std::vector<ReadResult> read_results_;
  std::vector<Fetch> fetches_;
  std::vector<NodeId> snapshots_;
};

// =================================================================================================
// Bodies
// =================================================================================================

[[noreturn]] inline void broken_invariant(const char* what) {
  std::fprintf(stderr, "seshat: broken invariant: %s; stopping before it does harm\n", what);
  std::fflush(stderr);
  std::abort();
}

inline void require(bool holds, const char* what) {
  if (!holds) broken_invariant(what);
}

inline std::string_view role_name(Role role) {
  switch (role) {
    case Role::kFollower:
      return "follower";
    case Role::kPreCandidate:
      return "pre-candidate";
    case Role::kCandidate:
      return "candidate";
    case Role::kLeader:
      return "leader";
  }
  return "unknown";
}

inline bool Configuration::is_voter(NodeId id) const {
  return std::find(voters.begin(), voters.end(), id) != voters.end() ||
         std::find(outgoing.begin(), outgoing.end(), id) != outgoing.end();
}

inline bool Configuration::has(NodeId id) const {
  return is_voter(id) || std::find(learners.begin(), learners.end(), id) != learners.end();
}

inline std::optional<std::string> check_restored(const Restored& restored) {
  Term term = restored.base_term;
  Index index = restored.base_index;
  for (const Entry& entry : restored.entries) {
    const std::string at = std::to_string(entry.index.value);
    if (entry.index != ++index) return "the log has a hole before entry " + at;
    if (entry.term < term) return "the term falls at log entry " + at;
    term = entry.term;
  }
  if (restored.applied_index > index) {
    return "the state machine has applied entry " + std::to_string(restored.applied_index.value) +
           ", but the log ends at " + std::to_string(index.value);
  }
  if (restored.applied_index < restored.base_index) {
    return "the log begins after the entry applied last, " +
           std::to_string(restored.applied_index.value);
  }
  if (term > restored.hard_state.term) return "the log has a term above the saved one";
  return std::nullopt;
}

// ---- Log ------------------------------------------------------------------------------------------

inline Log::Log(Index base_index, Term base_term, std::vector<Entry> entries)
    : base_index_(base_index), base_term_(base_term) {
  for (Entry& entry : entries) append(std::move(entry));
}

inline Term Log::term_at(Index index) const {
  require(knows(index), "the term of an entry that is not in memory was asked for");
  return index == base_index_ ? base_term_ : at(index).term;
}

inline const Entry& Log::at(Index index) const { return entries_[index - base_index_ - 1]; }

inline void Log::append(Entry entry) {
  require(entry.index == last_index() + 1, "a log entry was appended out of order");
  size_bytes_ += entry.size_bytes();
  entries_.push_back(std::move(entry));
}

inline void Log::truncate(Index from) {
  require(from > base_index_, "the log was truncated below its memory");
  while (last_index() >= from) {
    size_bytes_ -= entries_.back().size_bytes();
    entries_.pop_back();
  }
}

inline void Log::trim(Index applied, std::size_t keep_size_bytes) {
  while (size_bytes_ > keep_size_bytes && base_index_ < applied) {
    base_term_ = entries_.front().term;
    size_bytes_ -= entries_.front().size_bytes();
    entries_.pop_front();
    ++base_index_;
  }
}

inline void Log::reset(Index base_index, Term base_term) {
  base_index_ = base_index;
  base_term_ = base_term;
  entries_.clear();
  size_bytes_ = 0;
}

inline std::vector<Entry> Log::slice(Index from, Index to, std::size_t max_size_bytes) const {
  const auto first = entries_.begin() + static_cast<std::ptrdiff_t>(from - base_index_ - 1);
  const auto end = entries_.begin() + static_cast<std::ptrdiff_t>(to - base_index_);
  auto last = first;
  std::size_t size_bytes = 0;
  while (last != end) {
    size_bytes += last->size_bytes();
    if (size_bytes > max_size_bytes && last != first) break;
    ++last;
  }
  return {first, last};
}

// ---- Construction and outputs ------------------------------------------------------------------------

inline Raft::Raft(Config config, Restored restored, std::uint64_t now_ms)
    : config_(std::move(config)),
      random_(config_.seed),
      current_term_(restored.hard_state.term),
      voted_for_(restored.hard_state.vote),
      log_(restored.base_index, restored.base_term, std::move(restored.entries)),
      first_index_(restored.first_index),
      commit_index_(restored.applied_index),
      last_applied_(restored.applied_index),
      apply_handed_(restored.applied_index),
      durable_index_(log_.last_index()),
      leaderless_since_ms_(now_ms),
      last_tick_ms_(now_ms),
      withhold_until_ms_(now_ms + config_.vote_withhold_ms),
      write_from_(log_.last_index() + 1) {
  require(log_.knows(restored.applied_index), "applied beyond the end of the log, or before it");
  commit_index_ = std::max(commit_index_, std::min(restored.hard_state.commit, log_.last_index()));
  verified_index_ = commit_index_;
  std::sort(config_.voters.begin(), config_.voters.end());
  if (restored.configuration_index == Index{}) restored.configuration.voters = config_.voters;
  configurations_.push_back({restored.configuration_index, std::move(restored.configuration)});
  for (Index i = log_.base_index() + 1; i <= log_.last_index(); ++i) {
    const Entry& entry = log_.at(i);
    if (entry.configuration && i > configuration_index()) {
      configurations_.push_back({i, *entry.configuration});
    }
  }
  follow_configuration();
  reset_election_timer(now_ms);
}

inline bool Raft::has_ready() const {
  return !outbox_.empty() || hard_state_pending() || write_from_ <= leaving_index() ||
         (apply_handed_ == last_applied_ && apply_handed_ < apply_limit()) ||
         !read_results_.empty() || !fetches_.empty() || !snapshots_.empty() ||
         configuration_step_due();
}

inline Ready Raft::take_ready(std::uint64_t now_ms) {
  if (configuration_step_due()) advance_configuration(now_ms);
  // What was proposed since the last call goes to the peers together, and does not wait for our own
  // disk (thesis 10.2.1).
  if (role_ == Role::kLeader && write_from_ <= leaving_index()) {
    for (Peer& peer : peers_) replicate(peer);
  }
  Ready ready;
  ready.messages = std::exchange(outbox_, {});
  ready.reads = std::exchange(read_results_, {});
  ready.fetches = std::exchange(fetches_, {});
  ready.snapshots = std::exchange(snapshots_, {});
  if (hard_state_pending() || write_from_ <= leaving_index()) {
    Write& write = ready.write.emplace();
    write.id = next_write_id_++;
    write.hard_state = HardState{current_term_, voted_for_, commit_index_};
    if (write_from_ <= log_.last_index()) {
      write.entries = log_.slice(write_from_, log_.last_index(), SIZE_MAX);
    }
    write_from_ = log_.last_index() + 1;
    pending_writes_.push_back({write.id, log_.last_index(), ticked_ms_});
  }
  // One batch at a time: what commits meanwhile gathers for the next.
  if (apply_handed_ == last_applied_ && apply_handed_ < apply_limit()) {
    ready.committed = log_.slice(apply_handed_ + 1, apply_limit(), config_.max_apply_size_bytes);
    apply_handed_ = ready.committed.back().index;
  }
  return ready;
}

// An entry of this term that has committed has all before it that ever did.
inline bool Raft::is_current() const {
  return leader_ != NodeId{} && !installing_ && commit_index_ >= committed_told_ &&
         log_.term_at(commit_index_) == current_term_;
}

inline std::vector<PeerStatus> Raft::peers() const {
  std::vector<PeerStatus> peers;
  for (const Peer& peer : peers_) {
    peers.push_back({peer.id, peer.next_index, peer.match_index, peer.replicating,
                     peer.needs_snapshot, reachable(peer)});
  }
  return peers;
}

inline Raft::Peer* Raft::find_peer(NodeId id) {
  for (Peer& peer : peers_) {
    if (peer.id == id) return &peer;
  }
  return nullptr;
}

template <class Body>
void Raft::send(NodeId to, Term term, Body body) {
  outbox_.push_back(Message{config_.id, to, term, std::move(body)});
}

// For what promises the present term or vote: it leaves once they are on disk.
template <class Body>
void Raft::send_when_saved(NodeId to, Body body) {
  if (synced_write_id_ >= hard_state_write_) return send(to, current_term_, std::move(body));
  // While the disk stands still, repeated answers gather here; Raft may lose a message.
  if (held_.size() >= kMaxHeldMessages) held_.erase(held_.begin());
  held_.push_back({hard_state_write_, Message{config_.id, to, current_term_, std::move(body)}});
}

// ---- Time ---------------------------------------------------------------------------------------------

inline void Raft::tick(std::uint64_t now_ms) {
  const std::uint64_t elapsed_ms = timer_ms(now_ms) - ticked_ms_;
  ticked_ms_ += elapsed_ms;
  last_tick_ms_ = now_ms;
  if (role_ == Role::kLeader) {
    tick_leader(now_ms, elapsed_ms);
  } else {
    tick_follower(now_ms);
  }
  next_tick_ms_ = max_tick_ms();
}

// What timers go by. After a pause, the leader's messages may wait unread: a late tick counts as one
// that is a little late, as ticks are on a busy machine.
inline std::uint64_t Raft::timer_ms(std::uint64_t now_ms) const {
  const std::uint64_t since_tick_ms = now_ms > last_tick_ms_ ? now_ms - last_tick_ms_ : 0;
  return ticked_ms_ + std::min(since_tick_ms, next_tick_ms_ + config_.tick_interval_ms);
}

// Seldom while nothing is written and leadership is settled. However late such a tick comes, it does
// not end an election timeout: a heartbeat interval is left for what waits unread.
inline std::uint64_t Raft::max_tick_ms() const {
  const bool calm = leader_ != NodeId{} && !leader_stream_broken_ && !transfer_ && is_idle();
  if (!calm) return config_.tick_interval_ms;
  const std::uint64_t counted_ms =
      ticked_ms_ - std::min(election_since_ms_, ticked_ms_) + config_.heartbeat_interval_ms;
  if (counted_ms >= config_.election_timeout_min_ms) return config_.tick_interval_ms;
  const std::uint64_t room_ms = config_.election_timeout_min_ms - counted_ms;
  // A follower's is longer than two of the leader's pauses: each heartbeat may bring a tick, so that
  // its own timer seldom has to.
  std::uint64_t next_ms = 9 * config_.heartbeat_interval_ms / 2;
  if (role_ == Role::kLeader) {
    const std::uint64_t due_ms = heartbeat_sent_ms_ + heartbeat_interval_ms();
    next_ms = due_ms > ticked_ms_ ? due_ms - ticked_ms_ : 1;
  }
  return std::max(std::min(next_ms, room_ms), std::min(next_ms, config_.tick_interval_ms));
}

inline std::uint64_t Raft::heartbeat_interval_ms() const {
  const std::uint64_t longer_ms = 2 * config_.heartbeat_interval_ms;
  const bool may_rest = is_idle() && longer_ms + longer_ms / 5 < config_.lease_ms;
  return may_rest ? longer_ms : config_.heartbeat_interval_ms;
}

inline bool Raft::is_idle() const {
  return config_.rests && last_applied_ == log_.last_index() &&
         5 * config_.heartbeat_interval_ms <= config_.election_timeout_min_ms &&
         ticked_ms_ - asked_ms_ > kRestAfterMs;
}

inline void Raft::tick_follower(std::uint64_t now_ms) {
  if (is_only_voter()) {  // it need not wait for anyone
    if (role_ == Role::kFollower && may_campaign(now_ms)) become_candidate(now_ms, false);
    return;
  }
  const bool early = leader_stream_broken_ && !withholds_votes(now_ms) &&
                     now_ms >= early_vote_at_ms_ && role_ == Role::kFollower;
  if (early || election_timed_out()) become_pre_candidate(now_ms);
}

inline void Raft::tick_leader(std::uint64_t now_ms, std::uint64_t elapsed_ms) {
  if (is_only_voter()) election_since_ms_ = ticked_ms_;
  // Check quorum (thesis 6.2): a leader cut off makes way, and its clients learn it in time.
  if (election_timed_out()) {
    become_follower(now_ms, current_term_, {});
    lost_quorum_ = true;
    return;
  }
  advance_transfer(elapsed_ms);
  // A leader whose disk makes no progress hands over. Its followers acknowledge without it, so
  // nothing else would ever depose it.
  if (disk_stalled() && fittest_voter() != nullptr) {
    if (transfer_failed_) return become_follower(now_ms, current_term_, {});
    transfer_leadership(now_ms);
  }
  if (ticked_ms_ >= heartbeat_sent_ms_ + heartbeat_interval_ms()) heartbeat(now_ms);
}

inline bool Raft::election_timed_out() const {
  return ticked_ms_ >= election_since_ms_ + election_timeout_ms_;
}

// Counted in ticks: after a pause of the whole process, the disk's answer may wait unread too.
inline bool Raft::disk_stalled() const {
  return !pending_writes_.empty() &&
         ticked_ms_ - pending_writes_.front().since_ms > config_.election_timeout_max_ms;
}

// At least two ticks apart: candidates whose ticks fall together would split the vote for ever.
inline void Raft::reset_election_timer(std::uint64_t now_ms) {
  election_since_ms_ = timer_ms(now_ms);
  const std::uint64_t spread_ms =
      std::max(config_.election_timeout_max_ms - config_.election_timeout_min_ms,
               2 * config_.tick_interval_ms);
  election_timeout_ms_ = config_.election_timeout_min_ms + random_() % (spread_ms + 1);
}

// ---- Messages -------------------------------------------------------------------------------------------

// Requests count whoever sends them, for this node may not have heard yet who is a member (§6;
// thesis 4.1); answers only from those it asked.
inline void Raft::step(std::uint64_t now_ms, const Message& message) {
  if (message.to != config_.id || message.from == config_.id || message.from == NodeId{}) return;
  const bool is_answer = std::holds_alternative<RequestVoteReply>(message.body) ||
                         std::holds_alternative<AppendEntriesReply>(message.body);
  Peer* peer = find_peer(message.from);
  if (is_answer && peer == nullptr) return;
  if (peer != nullptr) peer->heard_ms = ticked_ms_;
  if (!admit_term(now_ms, message)) return;
  std::visit([&](const auto& body) { handle(now_ms, message, body); }, message.body);
}

// §5.1: a higher term makes a follower, a lower one is refused. False: the message ends here.
inline bool Raft::admit_term(std::uint64_t now_ms, const Message& message) {
  const auto* vote = std::get_if<RequestVote>(&message.body);
  const auto* vote_reply = std::get_if<RequestVoteReply>(&message.body);
  if (message.term < current_term_) {
    answer_stale(message);
    return false;
  }
  if (vote != nullptr && vote->pre_vote) return true;  // asks about a term, doesn't start it
  if (vote != nullptr && !vote->transfer && withholds_votes(now_ms)) return false;
  if (message.term == current_term_) return true;
  if (vote_reply != nullptr && vote_reply->pre_vote && vote_reply->granted) return true;
  if (std::holds_alternative<TimeoutNow>(message.body)) return false;  // of another term
  const bool from_leader = std::holds_alternative<AppendEntries>(message.body) ||
                           std::holds_alternative<InstallSnapshot>(message.body);
  become_follower(now_ms, message.term, from_leader ? message.from : NodeId{});
  return true;
}

// Tells a sender of an older term about ours: a leader steps down, a candidate catches up. Nothing
// but the term counts: by now the sender may lead this very term.
inline void Raft::answer_stale(const Message& message) {
  if (const auto* vote = std::get_if<RequestVote>(&message.body)) {
    send_when_saved(message.from, RequestVoteReply{false, vote->pre_vote});
  } else if (std::holds_alternative<AppendEntries>(message.body) ||
             std::holds_alternative<InstallSnapshot>(message.body)) {
    send_when_saved(message.from, AppendEntriesReply{});
  }
}

// ---- Roles ------------------------------------------------------------------------------------------------

inline void Raft::become_follower(std::uint64_t now_ms, Term term, NodeId leader) {
  if (term > current_term_) {
    current_term_ = term;
    voted_for_ = leader;
    save_hard_state();
  }
  forget_leadership();
  role_ = Role::kFollower;
  verified_index_ = commit_index_;
  round_received_ = 0;
  leader_stream_broken_ = false;
  set_leader(now_ms, leader);
  reset_election_timer(now_ms);
}

inline void Raft::become_pre_candidate(std::uint64_t now_ms) {
  reset_election_timer(now_ms);
  set_leader(now_ms, {});
  leader_stream_broken_ = false;
  role_ = Role::kFollower;
  if (!may_campaign(now_ms)) return;
  role_ = Role::kPreCandidate;
  request_votes(true, false);
  count_votes(now_ms);
}

inline void Raft::become_candidate(std::uint64_t now_ms, bool transfer) {
  reset_election_timer(now_ms);
  set_leader(now_ms, {});
  role_ = Role::kCandidate;
  ++current_term_;
  voted_for_ = config_.id;
  save_hard_state();
  round_received_ = 0;  // of a leader of the term before: this term's counts anew
  verified_index_ = commit_index_;
  request_votes(false, transfer);
}

inline void Raft::become_leader(std::uint64_t now_ms) {
  role_ = Role::kLeader;
  set_leader(now_ms, config_.id);
  lost_quorum_ = false;
  reset_election_timer(now_ms);
  heartbeat_sent_ms_ = timer_ms(now_ms);
  round_ = 0;
  rounds_.clear();
  lease_until_ms_ = 0;
  quorum_round_sent_ms_ = 0;
  lease_forfeited_ = false;
  transfer_failed_ = false;
  transfer_.reset();
  const Index next_index = log_.last_index() + 1;
  for (Peer& peer : peers_) {
    const NodeId id = peer.id;
    peer = Peer{};
    peer.id = id;
    peer.next_index = next_index;
    peer.heard_ms = ticked_ms_;
  }
  // §5.4.2, §8: entries of older terms commit only behind one of this term, and until it has
  // committed this leader does not know what is committed.
  term_start_index_ = next_index;
  append_as_leader(EntryType::kNoOp, nullptr);
  heartbeat(now_ms);
}

inline void Raft::forget_leadership() {
  if (role_ != Role::kLeader) return;
  fail_reads();
  transfer_.reset();
  fetches_.clear();
  snapshots_.clear();
  lease_until_ms_ = 0;
}

inline void Raft::set_leader(std::uint64_t now_ms, NodeId leader) {
  if (leader == leader_) return;
  if (leader == NodeId{}) leaderless_since_ms_ = now_ms;
  leader_ = leader;
}

// ---- Elections ----------------------------------------------------------------------------------------------

// §5.4.1: the later last term is more up to date; with equal terms, the longer log.
inline bool Raft::log_is_up_to_date(const RequestVote& request) const {
  if (request.last_log_term != log_.last_term()) return request.last_log_term > log_.last_term();
  return request.last_log_index >= log_.last_index();
}

// While a leader may hold a lease that counts on this node, no one else gets its vote.
inline bool Raft::withholds_votes(std::uint64_t now_ms) const {
  // Nobody else's lease counts on the only voter, once it is known to be that: the leader that
  // removed the others may still lead until its last change has committed.
  if (is_only_voter() && configuration_index() <= commit_index_) return false;
  if (role_ == Role::kLeader) {
    return quorum_round_sent_ms_ != 0 && now_ms < quorum_round_sent_ms_ + config_.vote_withhold_ms;
  }
  return now_ms < withhold_until_ms_;
}

inline bool Raft::may_campaign(std::uint64_t now_ms) const {
  return could_lead() && !withholds_votes(now_ms);
}

// A node whose disk stands still could never save its own vote: it stays out of the way.
inline bool Raft::could_lead() const {
  return may_vote_ && may_be_voter() && !disk_stalled() && !installing_;
}

// A node that was removed by an entry which may not have committed still stands for election: it
// may be the only one whose log is long enough to win, and to commit that entry (thesis 4.2.2).
inline bool Raft::may_be_voter() const {
  for (std::size_t i = configurations_.size(); i-- > 0;) {
    if (configurations_[i].configuration.is_voter(config_.id)) return true;
    if (configurations_[i].index <= commit_index_) break;
  }
  return false;
}

inline void Raft::request_votes(bool pre_vote, bool transfer) {
  for (Peer& peer : peers_) {
    peer.vote_granted = false;
    if (!configuration().is_voter(peer.id)) continue;
    const RequestVote request{log_.last_index(), log_.last_term(), pre_vote, transfer};
    if (pre_vote) {
      send(peer.id, current_term_ + 1, request);
    } else {
      send_when_saved(peer.id, request);
    }
  }
}

inline void Raft::handle(std::uint64_t now_ms, const Message& message, const RequestVote& request) {
  RequestVoteReply reply{false, request.pre_vote};
  if (request.pre_vote) {
    reply.granted = message.term > current_term_ && may_vote_ && !withholds_votes(now_ms) &&
                    log_is_up_to_date(request);
    return send(message.from, reply.granted ? message.term : current_term_, reply);
  }
  reply.granted = may_vote_ && (voted_for_ == NodeId{} || voted_for_ == message.from) &&
                  log_is_up_to_date(request);
  if (reply.granted) {
    role_ = Role::kFollower;  // a pre-candidate makes way
    election_since_ms_ = timer_ms(now_ms);
    vote_for(message.from);
  }
  send_when_saved(message.from, reply);
}

inline void Raft::vote_for(NodeId node) {
  if (voted_for_ == node) return;
  voted_for_ = node;
  save_hard_state();
}

inline void Raft::handle(std::uint64_t now_ms, const Message& message,
                         const RequestVoteReply& reply) {
  const Role asking = reply.pre_vote ? Role::kPreCandidate : Role::kCandidate;
  const Term asked = reply.pre_vote ? current_term_ + 1 : current_term_;
  if (role_ != asking || !reply.granted || message.term != asked) return;
  find_peer(message.from)->vote_granted = true;
  count_votes(now_ms);
}

inline void Raft::count_votes(std::uint64_t now_ms) {
  // Our own vote counts once it is on disk, as everyone else's.
  const bool own = role_ == Role::kPreCandidate || synced_write_id_ >= hard_state_write_;
  const std::uint64_t won = reached_by_majority(
      own ? 1 : 0, [](const Peer& peer) -> std::uint64_t { return peer.vote_granted ? 1 : 0; });
  if (won == 0) return;
  if (role_ == Role::kPreCandidate) {
    become_candidate(now_ms, false);
  } else if (role_ == Role::kCandidate) {
    become_leader(now_ms);
  }
}

inline void Raft::handle(std::uint64_t now_ms, const Message& message, const TimeoutNow&) {
  if (role_ != Role::kFollower || leader_ != message.from || !could_lead()) return;
  become_candidate(now_ms, true);
}

// ---- Followers ------------------------------------------------------------------------------------------------

inline void Raft::handle(std::uint64_t now_ms, const Message& message,
                         const AppendEntries& request) {
  require(role_ != Role::kLeader, "two leaders in one term (§5.2)");
  if (!well_formed(request)) return;
  hear_leader(now_ms, message.from, request.round);
  compactable_told_ = std::max(compactable_told_, request.compactable_index);
  committed_told_ = std::max(committed_told_, request.commit_index);
  if (installing_) return acknowledge();  // the log is about to be replaced

  // What is committed here is in every later leader's log: no need to compare, nor memory to.
  const Index prev = request.prev_log_index;
  if (prev > commit_index_ &&
      (prev > log_.last_index() || log_.term_at(prev) != request.prev_log_term)) {
    return reject_append(message.from, prev);
  }
  append_from_leader(request);
  // A heartbeat is answered at once, with what is on disk; entries when they have been synced.
  if (request.entries.empty() || durable_index_ >= verified_index_) acknowledge();
}

inline void Raft::hear_leader(std::uint64_t now_ms, NodeId leader, std::uint64_t round) {
  if (role_ != Role::kFollower) become_follower(now_ms, current_term_, leader);
  set_leader(now_ms, leader);
  // Whoever leads this term has won it. Giving it our vote late means that even a node that was
  // wiped since it voted can't help a second leader of the same term into office.
  if (voted_for_ == NodeId{}) vote_for(leader);
  lost_quorum_ = false;
  leader_stream_broken_ = false;
  election_since_ms_ = timer_ms(now_ms);
  withhold_until_ms_ = now_ms + config_.vote_withhold_ms;
  round_received_ = std::max(round_received_, round);
}

// Entries in order, and terms that only rise.
inline bool Raft::well_formed(const AppendEntries& request) {
  Index index = request.prev_log_index;
  Term term = request.prev_log_term;
  for (const Entry& entry : request.entries) {
    if (entry.index != ++index || entry.term < term) return false;
    term = entry.term;
  }
  return true;
}

// The hint skips a whole term (§5.3, last paragraphs).
inline void Raft::reject_append(NodeId leader, Index prev_log_index) {
  AppendEntriesReply reply;
  reply.round = round_received_;
  reply.withhold_ms = static_cast<std::uint32_t>(config_.vote_withhold_ms);
  reply.rejected_index = prev_log_index;
  reply.conflict_index = log_.last_index() + 1;
  if (prev_log_index <= log_.last_index()) {
    reply.conflict_term = log_.term_at(prev_log_index);
    reply.conflict_index = prev_log_index;
    while (reply.conflict_index > commit_index_ + 1 &&
           log_.term_at(reply.conflict_index - 1) == reply.conflict_term) {
      reply.conflict_index = reply.conflict_index - 1;
    }
  }
  send_when_saved(leader, reply);
}

inline void Raft::append_from_leader(const AppendEntries& request) {
  Index verified = request.prev_log_index;
  for (const Entry& entry : request.entries) {
    const bool known = entry.index <= commit_index_ || (entry.index <= log_.last_index() &&
                                                        log_.term_at(entry.index) == entry.term);
    if (!known) {
      // Apply is behind: the leader sends again what finds no room now. With nothing left to apply
      // there is always room, or these entries could never commit.
      if (log_memory_is_full() && last_applied_ < commit_index_) break;
      if (entry.index <= log_.last_index()) truncate_conflict(entry.index);
      log_.append(entry);
      asked_ms_ = ticked_ms_;
      if (entry.configuration) adopt(entry.index, *entry.configuration);
    }
    verified = entry.index;
  }
  verified_index_ = std::max(verified_index_, verified);
  commit_index_ = std::max(commit_index_, std::min(request.commit_index, verified_index_));
}

// §5.3: an entry that conflicts goes, with all that follow it, and is no longer durable either,
// also if the write that holds it is still on its way to the disk.
inline void Raft::truncate_conflict(Index from) {
  require(from > commit_index_, "a committed entry was about to be overwritten (§5.4)");
  log_.truncate(from);
  write_from_ = std::min(write_from_, from);
  durable_index_ = std::min(durable_index_, from - 1);
  for (PendingWrite& write : pending_writes_) {
    write.last_index = std::min(write.last_index, from - 1);
  }
  forget_configurations_from(from);
}

inline void Raft::acknowledge() {
  AppendEntriesReply reply;
  reply.success = true;
  reply.match_index = std::min(durable_index_, verified_index_);
  reply.round = round_received_;
  reply.withhold_ms = static_cast<std::uint32_t>(config_.vote_withhold_ms);
  send_when_saved(leader_, reply);
}

// ---- Leaders ----------------------------------------------------------------------------------------------------

inline Proposed Raft::propose(std::uint64_t, Payload data) {
  if (role_ != Role::kLeader) return {ProposeStatus::kNotLeader, {}, {}};
  if (transfer_) return {ProposeStatus::kTransferring, {}, {}};
  if (log_memory_is_full()) return {ProposeStatus::kLogFull, {}, {}};
  append_as_leader(EntryType::kNormal, std::move(data));
  return {ProposeStatus::kAccepted, current_term_, log_.last_index()};
}

inline Proposed Raft::change_members(std::uint64_t, std::vector<NodeId> voters,
                                     std::vector<NodeId> learners) {
  std::sort(voters.begin(), voters.end());
  std::sort(learners.begin(), learners.end());
  const Configuration& now = configuration();
  if (role_ != Role::kLeader) return {ProposeStatus::kNotLeader, {}, {}};
  if (transfer_) return {ProposeStatus::kTransferring, {}, {}};
  if (log_memory_is_full()) return {ProposeStatus::kLogFull, {}, {}};
  // Without an entry of this term committed, a change of an earlier leader that this one has not
  // heard of could still be decided by other majorities.
  if (commit_index_ < std::max(term_start_index_, configuration_index()) || now.is_joint()) {
    return {ProposeStatus::kChanging, {}, {}};
  }
  Configuration next{std::move(voters), {}, std::move(learners)};
  const bool recorded = configuration_index() != Index{};
  if (next.voters.empty() || (recorded && next == now)) {
    return {ProposeStatus::kUnchanged, {}, {}};
  }
  if (next.voters != now.voters) next.outgoing = now.voters;
  append_configuration(std::move(next));
  return {ProposeStatus::kAccepted, current_term_, log_.last_index()};
}

inline void Raft::append_configuration(Configuration configuration) {
  asked_ms_ = ticked_ms_;
  const auto shared = std::make_shared<const Configuration>(std::move(configuration));
  log_.append(
      Entry{current_term_, log_.last_index() + 1, EntryType::kConfigChange, nullptr, shared});
  adopt(log_.last_index(), *shared);
}

inline void Raft::append_as_leader(EntryType type, Payload data) {
  asked_ms_ = ticked_ms_;
  log_.append(Entry{current_term_, log_.last_index() + 1, type, std::move(data), nullptr});
}

inline void Raft::heartbeat(std::uint64_t now_ms) {
  heartbeat_sent_ms_ = timer_ms(now_ms);
  rounds_.push_back({++round_, now_ms});
  auto read = waiting_reads_.rbegin();
  while (read != waiting_reads_.rend() && read->round == 0) (read++)->round = round_;
  for (Peer& peer : peers_) {
    send_heartbeat(peer);
    // A peer that is being probed, perhaps a dead one, gets entries only when it answers.
    if (peer.replicating) replicate(peer);
  }
  count_round(now_ms);
}

// Asks about the entry before next_index: if one of ours was lost on the way, the answer says so.
inline void Raft::send_heartbeat(Peer& peer) {
  AppendEntries request;
  request.commit_index = peer.commit_told = commit_index_;
  request.round = round_;
  request.compactable_index = compactable_index();
  const Index prev = peer.next_index - 1;
  if (log_.knows(prev)) {
    request.prev_log_index = prev;
    request.prev_log_term = log_.term_at(prev);
  } else if (peer.prev_term != Term{}) {
    request.prev_log_index = prev;
    request.prev_log_term = peer.prev_term;
  }  // else index 0, which matches every log: only the round counts
  send(peer.id, current_term_, std::move(request));
}

inline void Raft::tell_commit(NodeId peer_id) {
  Peer* peer = find_peer(peer_id);
  if (role_ == Role::kLeader && peer != nullptr && peer->commit_told < commit_index_) {
    send_heartbeat(*peer);
  }
}

// Sends what `peer` lacks: pipelined while it agrees, one message at a time while probing.
inline void Raft::replicate(Peer& peer) {
  const Index last = leaving_index();
  while (peer.next_index <= last && peer.fetch_from == Index{} && !peer.probe_pending &&
         !peer.needs_snapshot && peer.inflight_size_bytes < config_.max_inflight_size_bytes) {
    const Index prev = peer.next_index - 1;
    if (!log_.knows(prev)) {
      // The entry before the first must be there as well, for its term.
      if (first_index_ > Index{1} && prev < first_index_) return request_snapshot(peer);
      peer.fetch_from = peer.next_index;
      peer.fetch_to = log_.base_index();
      fetches_.push_back({peer.id, peer.fetch_from, config_.max_append_size_bytes, peer.fetch_to});
      return;
    }
    send_entries(peer, prev, log_.term_at(prev),
                 log_.slice(peer.next_index, last, config_.max_append_size_bytes));
  }
}

inline void Raft::request_snapshot(Peer& peer) {
  probe(peer, peer.match_index + 1);
  peer.needs_snapshot = true;
  peer.snapshot_index = last_applied_;
  snapshots_.push_back(peer.id);
}

inline void Raft::sending_snapshot(NodeId peer_id, Index last_included_index) {
  Peer* peer = find_peer(peer_id);
  if (peer != nullptr && peer->needs_snapshot) peer->snapshot_index = last_included_index;
}

inline void Raft::snapshot_ended(std::uint64_t, NodeId peer_id, Index installed) {
  Peer* peer = find_peer(peer_id);
  if (role_ != Role::kLeader || peer == nullptr || !peer->needs_snapshot) return;
  peer->needs_snapshot = false;
  peer->snapshot_index = {};
  probe(*peer, std::max(peer->match_index, installed) + 1);
}

// On the leader. The last entry that a member has is kept too, for its term goes with the next one.
// One that gets a snapshot goes on behind that.
inline Index Raft::compactable_index() const {
  if (role_ != Role::kLeader) return std::min(compactable_told_, last_applied_);
  Index index = last_applied_;
  for (const Peer& peer : peers_) {
    if (ticked_ms_ - peer.heard_ms > config_.keep_log_for_ms) continue;
    const Index last = peer.needs_snapshot ? peer.snapshot_index : peer.match_index;
    index = std::min(index, last - (last == Index{} ? 0 : 1));
  }
  return index;
}

inline void Raft::send_entries(Peer& peer, Index prev, Term prev_term, std::vector<Entry> entries) {
  AppendEntries request{prev,   prev_term,           commit_index_,
                        round_, compactable_index(), std::move(entries)};
  peer.commit_told = commit_index_;
  if (peer.replicating) {
    std::size_t size_bytes = 0;
    for (const Entry& entry : request.entries) size_bytes += entry.size_bytes();
    peer.inflight.push_back({request.entries.back().index, size_bytes});
    peer.inflight_size_bytes += size_bytes;
    peer.next_index = request.entries.back().index + 1;
    peer.prev_term = request.entries.back().term;
  } else {
    peer.probe_pending = true;
  }
  send(peer.id, current_term_, std::move(request));
}

inline void Raft::fetched(std::uint64_t, NodeId peer_id, Term prev_log_term,
                          std::vector<Entry> entries) {
  Peer* peer = find_peer(peer_id);
  if (peer == nullptr || peer->fetch_from == Index{}) return;
  if (!entries.empty() && entries.front().index != peer->fetch_from) return;  // of an older Fetch
  const Index from = std::exchange(peer->fetch_from, Index{});
  if (role_ != Role::kLeader || entries.empty() || peer->needs_snapshot) return;
  // The peer may have moved on meanwhile: only what it still needs next is of use.
  if (from == peer->next_index) {
    std::erase_if(entries, [&](const Entry& entry) { return entry.index > peer->fetch_to; });
    send_entries(*peer, from - 1, prev_log_term, std::move(entries));
  }
  replicate(*peer);
}

inline void Raft::handle(std::uint64_t now_ms, const Message& message,
                         const AppendEntriesReply& reply) {
  if (role_ != Role::kLeader) return;
  Peer& peer = *find_peer(message.from);
  // Else an old answer, delayed, or to what was never asked: that says nothing of any round.
  if (reply.round >= peer.acked_round && reply.round <= round_) {
    peer.acked_round = reply.round;
    peer.withhold_ms = reply.withhold_ms;
  }
  count_round(now_ms);
  if (reply.success) {
    advance_match(peer, reply);
  } else {
    back_up(peer, reply);
  }
  replicate(peer);
  advance_transfer(0);
}

inline void Raft::advance_match(Peer& peer, const AppendEntriesReply& reply) {
  const Index match_index = reply.match_index;
  require(match_index <= log_.last_index(), "a follower has more than its leader sent");
  // An old answer, from before the probe, must not open the pipeline: what is sent then would be
  // refused like the last time, and so on, a storm that feeds itself.
  const bool answers_probe = match_index > peer.match_index || reply.round >= peer.probe_round;
  if (!peer.replicating && answers_probe && !peer.needs_snapshot) {
    peer.replicating = true;
    peer.probe_pending = false;
    peer.next_index = std::max(peer.match_index, match_index) + 1;
    peer.prev_term = {};
  }
  while (!peer.inflight.empty() && peer.inflight.front().last_index <= match_index) {
    peer.inflight_size_bytes -= peer.inflight.front().size_bytes;
    peer.inflight.pop_front();
  }
  if (match_index <= peer.match_index) return;
  peer.match_index = match_index;
  if (peer.next_index <= match_index) {
    peer.next_index = match_index + 1;
    peer.prev_term = {};
  }
  advance_commit();
}

inline void Raft::back_up(Peer& peer, const AppendEntriesReply& reply) {
  const bool stale = peer.needs_snapshot || reply.rejected_index <= peer.match_index ||
                     reply.rejected_index >= peer.next_index ||
                     (!peer.replicating && reply.rejected_index + 1 != peer.next_index);
  if (stale) return;
  Index next_index = reply.conflict_index;
  if (reply.conflict_term != Term{}) {
    // Where our log has that term too, it may agree up to our last entry of it.
    Index index = std::min(reply.rejected_index, log_.last_index());
    while (index > log_.base_index() && log_.term_at(index) > reply.conflict_term) {
      index = index - 1;
    }
    const bool same_term = log_.knows(index) && log_.term_at(index) == reply.conflict_term;
    if (index >= next_index && same_term) next_index = index + 1;
  }
  probe(peer, std::clamp(next_index, peer.match_index + 1, reply.rejected_index));
}

inline void Raft::probe(Peer& peer, Index next_index) {
  peer.replicating = false;
  peer.probe_pending = false;
  peer.probe_round = round_ + 1;
  peer.fetch_from = {};
  peer.inflight.clear();
  peer.inflight_size_bytes = 0;
  peer.next_index = next_index;
  peer.prev_term = {};
}

// The highest number that a majority has reached, this node counted with `own`; while the
// configuration is joint, a majority of the old voters and one of the new (§6).
template <class Reached>
std::uint64_t Raft::reached_by_majority(std::uint64_t own, Reached reached) {
  const Configuration& now = configuration();
  const std::uint64_t number = reached_by_majority_of(now.voters, own, reached);
  if (!now.is_joint()) return number;
  return std::min(number, reached_by_majority_of(now.outgoing, own, reached));
}

template <class Reached>
std::uint64_t Raft::reached_by_majority_of(const std::vector<NodeId>& voters, std::uint64_t own,
                                           Reached reached) {
  if (voters.empty()) return 0;
  majority_scratch_.clear();
  for (const NodeId voter : voters) {
    majority_scratch_.push_back(voter == config_.id ? own : reached(*find_peer(voter)));
  }
  std::sort(majority_scratch_.begin(), majority_scratch_.end(), std::greater<>());
  return majority_scratch_[voters.size() / 2];
}

// §5.3, §5.4.2: an entry of this term on a majority of disks is committed, and all before it.
inline void Raft::advance_commit() {
  const Index majority{reached_by_majority(
      durable_index_.value, [](const Peer& peer) { return peer.match_index.value; })};
  if (majority <= commit_index_ || majority < term_start_index_) return;
  commit_index_ = majority;
}

inline void Raft::unreachable(std::uint64_t now_ms, NodeId peer_id) {
  if (role_ == Role::kLeader) {
    Peer* peer = find_peer(peer_id);
    if (peer != nullptr && !peer->needs_snapshot) probe(*peer, peer->match_index + 1);
  } else if (role_ == Role::kFollower && leader_ == peer_id && leader_ != NodeId{}) {
    leader_stream_broken_ = true;
    // Followers notice at the same moment: a little spread keeps them from splitting the vote.
    early_vote_at_ms_ = withhold_until_ms_ + random_() % (config_.election_timeout_min_ms / 4 + 1);
    set_leader(now_ms, {});
  }
}

// ---- Members ----------------------------------------------------------------------------------------------------

inline bool Raft::is_only_voter() const {
  const Configuration& now = configuration();
  return !now.is_joint() && now.voters.size() == 1 && now.voters.front() == config_.id;
}

inline void Raft::adopt(Index index, Configuration configuration) {
  // What has committed stays: only the newest of it may be needed again.
  while (configurations_.size() > 1 && configurations_[1].index <= commit_index_) {
    configurations_.pop_front();
  }
  configurations_.push_back({index, std::move(configuration)});
  follow_configuration();
}

inline void Raft::forget_configurations_from(Index from) {
  if (configuration_index() < from) return;
  while (configuration_index() >= from) configurations_.pop_back();
  follow_configuration();
}

// One Peer for each other member; those that stay keep what is known of them.
inline void Raft::follow_configuration() {
  const Configuration& now = configuration();
  std::erase_if(peers_, [&](const Peer& peer) { return !now.has(peer.id); });
  for (const std::vector<NodeId>* members : {&now.voters, &now.outgoing, &now.learners}) {
    for (const NodeId member : *members) {
      if (member == config_.id || find_peer(member) != nullptr) continue;
      Peer& peer = peers_.emplace_back();
      peer.id = member;
      peer.next_index = log_.last_index() + 1;
      peer.heard_ms = ticked_ms_;
    }
  }
  if (transfer_ && find_peer(transfer_->to) == nullptr) transfer_.reset();
}

inline bool Raft::configuration_step_due() const {
  if (role_ != Role::kLeader ||
      commit_index_ < std::max(configuration_index(), term_start_index_)) {
    return false;
  }
  return configuration().is_joint() || !is_voter();
}

// §6: once C_old,new has committed, the leader brings C_new; once that has, a leader that is not
// part of it makes way.
inline void Raft::advance_configuration(std::uint64_t now_ms) {
  if (!configuration().is_joint()) return step_down_as_removed(now_ms);
  Configuration next = configuration();
  next.outgoing.clear();
  append_configuration(std::move(next));
}

// Nobody has to wait for an election timeout: this node will not answer for its lease any more.
inline void Raft::step_down_as_removed(std::uint64_t now_ms) {
  const Peer* successor = fittest_voter();
  if (successor != nullptr) send(successor->id, current_term_, TimeoutNow{});
  become_follower(now_ms, current_term_, {});
}

// The other voter that has most of the log, and of those the one heard of last; null: there is none.
inline Raft::Peer* Raft::fittest_voter() {
  Peer* best = nullptr;
  const auto fitness = [](const Peer& peer) {
    return std::pair(peer.match_index, peer.acked_round);
  };
  for (Peer& peer : peers_) {
    const std::vector<NodeId>& voters = configuration().voters;
    if (std::find(voters.begin(), voters.end(), peer.id) == voters.end()) continue;
    if (best == nullptr || fitness(*best) < fitness(peer)) best = &peer;
  }
  return best;
}

// ---- Snapshots (§7) -----------------------------------------------------------------------------------------------

inline void Raft::handle(std::uint64_t now_ms, const Message& message,
                         const InstallSnapshot& request) {
  require(role_ != Role::kLeader, "two leaders in one term (§5.2)");
  hear_leader(now_ms, message.from, round_received_);
  // Where our log agrees with it, all that it says is that this much has committed (§5.3).
  const Snapshot& snapshot = request.snapshot;
  const Index index = snapshot.last_included_index;
  if (installing_ || index <= commit_index_ || !log_.knows(index)) return;
  if (log_.term_at(index) != snapshot.last_included_term) return;
  verified_index_ = std::max(verified_index_, index);
  commit_index_ = index;
}

inline bool Raft::needs(const Snapshot& snapshot) const {
  const Index index = snapshot.last_included_index;
  if (role_ == Role::kLeader || installing_ || index <= commit_index_) return false;
  return !log_.knows(index) || log_.term_at(index) != snapshot.last_included_term;
}

inline bool Raft::begin_install(std::uint64_t now_ms, const Snapshot& snapshot) {
  if (!needs(snapshot)) return false;
  require(write_from_ > log_.last_index(), "a snapshot came before the log was handed out");
  if (role_ != Role::kFollower) become_follower(now_ms, current_term_, {});
  installing_ = snapshot;
  return true;
}

// Figure 13, 7 and 8: the whole log goes. What follows in it is not committed, for it would have
// agreed with the snapshot otherwise.
inline void Raft::installed(std::uint64_t) {
  require(installing_.has_value(), "a snapshot was installed that was not begun");
  require(apply_handed_ == last_applied_, "a snapshot overtook what was being applied");
  Snapshot snapshot = *std::exchange(installing_, std::nullopt);
  const Index index = snapshot.last_included_index;
  log_.reset(index, snapshot.last_included_term);
  commit_index_ = last_applied_ = apply_handed_ = durable_index_ = verified_index_ = index;
  first_index_ = write_from_ = index + 1;
  for (PendingWrite& write : pending_writes_) write.last_index = std::min(write.last_index, index);
  // Where no change was ever recorded, the founders are still the members.
  if (snapshot.configuration == Configuration{}) snapshot.configuration.voters = config_.voters;
  configurations_.assign(1, {snapshot.configuration_index, std::move(snapshot.configuration)});
  follow_configuration();
  if (leader_ != NodeId{}) acknowledge();
}

// ---- Disk ---------------------------------------------------------------------------------------------------------

inline void Raft::synced(std::uint64_t now_ms, std::uint64_t write_id) {
  require(write_id < next_write_id_, "a write was synced that was never handed out");
  synced_write_id_ = std::max(synced_write_id_, write_id);
  bool log_moved = false;
  while (!pending_writes_.empty() && pending_writes_.front().id <= write_id) {
    log_moved = log_moved || pending_writes_.front().last_index > durable_index_;
    durable_index_ = std::max(durable_index_, pending_writes_.front().last_index);
    pending_writes_.pop_front();
  }
  std::erase_if(held_, [&](Held& held) {
    if (held.write_id > write_id) return false;
    // A vote of a term that has passed meanwhile is of no use to anyone.
    if (held.message.term == current_term_) outbox_.push_back(std::move(held.message));
    return true;
  });
  if (role_ == Role::kCandidate) count_votes(now_ms);
  if (!log_moved) return;
  if (role_ == Role::kLeader) {
    advance_commit();
  } else if (leader_ != NodeId{} && leader_ != config_.id) {
    acknowledge();
  }
}

inline void Raft::applied(std::uint64_t, Index index) {
  require(index <= apply_handed_ && index >= last_applied_, "applied what was not handed out");
  last_applied_ = index;
  log_.trim(last_applied_, config_.applied_tail_size_bytes);
}

// ---- Leases and reads -------------------------------------------------------------------------------------------

// Before this term's no-op has committed there is nothing to read under a lease, and none to hold:
// until then a follower may go by members of which only an entry that it lacks made others voters.
inline bool Raft::has_lease(std::uint64_t now_ms) const {
  if (role_ != Role::kLeader || !config_.lease_reads || lease_forfeited_) return false;
  if (commit_index_ < term_start_index_) return false;
  return is_only_voter() || now_ms < lease_until_ms_;
}

inline std::optional<Index> Raft::lease_read(std::uint64_t now_ms) const {
  if (!has_lease(now_ms)) return std::nullopt;
  return commit_index_;
}

inline bool Raft::read(std::uint64_t now_ms, std::uint64_t id) {
  if (role_ != Role::kLeader) return false;
  // Before this term's no-op has committed, the commit index may be behind (§8): the read waits
  // for the no-op, which comes after everything that was committed before.
  const Index index = std::max(commit_index_, term_start_index_);
  if (has_lease(now_ms)) {
    read_results_.push_back({id, true, index});
    return true;
  }
  asked_ms_ = ticked_ms_;
  waiting_reads_.push_back({id, 0, index});
  start_read_round(now_ms);
  return true;
}

// One round serves all reads that came before it was sent; later ones wait for the next.
inline void Raft::start_read_round(std::uint64_t now_ms) {
  if (!waiting_reads_.empty() && waiting_reads_.front().round == 0) heartbeat(now_ms);
}

// The newest round that a majority has answered: the lease runs from when it was SENT.
inline void Raft::count_round(std::uint64_t now_ms) {
  const std::uint64_t round =
      reached_by_majority(round_, [](const Peer& peer) { return peer.acked_round; });
  std::uint64_t withhold_ms = config_.vote_withhold_ms;
  for (const Peer& peer : peers_) {
    if (peer.acked_round != 0 && configuration().is_voter(peer.id))
      withhold_ms = std::min(withhold_ms, peer.withhold_ms);
  }
  if (rounds_.empty() || round < rounds_.front().number) return;
  while (rounds_.front().number < round) rounds_.pop_front();
  quorum_round_sent_ms_ = rounds_.front().sent_ms;
  rounds_.pop_front();
  lease_until_ms_ = quorum_round_sent_ms_ + std::min(config_.lease_ms, withhold_ms * 85 / 100);
  election_since_ms_ = timer_ms(now_ms);
  confirm_reads(now_ms, round);
}

inline void Raft::confirm_reads(std::uint64_t now_ms, std::uint64_t round) {
  while (!waiting_reads_.empty()) {
    const WaitingRead& read = waiting_reads_.front();
    if (read.round == 0 || read.round > round) break;
    read_results_.push_back({read.id, true, read.index});
    waiting_reads_.pop_front();
  }
  start_read_round(now_ms);
}

inline void Raft::fail_reads() {
  for (const WaitingRead& read : waiting_reads_) read_results_.push_back({read.id, false, {}});
  waiting_reads_.clear();
}

// ---- Transfer -------------------------------------------------------------------------------------------------------

inline void Raft::transfer_leadership(std::uint64_t, NodeId to) {
  if (role_ != Role::kLeader || transfer_) return;
  const Peer* target = to == NodeId{} ? fittest_voter() : find_peer(to);
  if (target == nullptr || !configuration().is_voter(target->id)) return;
  transfer_ = Transfer{target->id, 0, false};
  advance_transfer(0);
}

// TimeoutNow leaves when the target has everything. From then on another node may lead before our
// lease has run out, so there is no lease for the rest of this term, whatever becomes of it.
inline void Raft::advance_transfer(std::uint64_t elapsed_ms) {
  if (!transfer_) return;
  transfer_->elapsed_ms += elapsed_ms;
  if (transfer_->elapsed_ms >= config_.election_timeout_max_ms) {
    transfer_failed_ = true;
    return transfer_.reset();
  }
  const Peer* peer = find_peer(transfer_->to);
  if (transfer_->timeout_now_sent || peer->match_index < log_.last_index()) return;
  transfer_->timeout_now_sent = true;
  lease_forfeited_ = true;
  lease_until_ms_ = 0;
  send(peer->id, current_term_, TimeoutNow{});
}

}  // namespace seshat::raft

#endif  // SESHAT_RAFT_HPP
