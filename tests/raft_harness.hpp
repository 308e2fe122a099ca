// Raft cores under test, in virtual time.
//
//   Solo      one core; the test plays its peers and its disk
//   Cluster   several cores, a network that can lose, delay, double and cut, disks that forget what
//             was not synced; after every input the invariants of the paper's Figure 3 are checked,
//             and for every message that the sender's disk holds what it promises
//
// A broken invariant throws std::logic_error that names it.
#ifndef SESHAT_TESTS_RAFT_HARNESS_HPP
#define SESHAT_TESTS_RAFT_HARNESS_HPP

#include <cstdint>
#include <deque>
#include <functional>
#include <initializer_list>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <set>
#include <stdexcept>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "seshat/raft.hpp"

namespace seshat::raft::test {

using Tweak = std::function<void(Config&)>;
inline constexpr std::uint64_t kTickMs = 25;
inline constexpr std::uint64_t kNever = std::numeric_limits<std::uint64_t>::max() / 2;

inline Payload payload(std::string text) {
  return std::make_shared<const std::string>(std::move(text));
}

inline Entry entry(std::uint64_t index, std::uint64_t term) {
  static std::map<std::pair<std::uint64_t, std::uint64_t>, Payload> known;  // one for each entry
  Payload& data = known[{index, term}];
  if (!data) data = payload(std::to_string(term) + "@" + std::to_string(index));
  return {Term{term}, Index{index}, EntryType::kNormal, data};
}

// A log as the paper draws it: the terms of entries 1, 2, 3, ...
using Terms = std::vector<std::uint64_t>;

inline std::vector<Entry> log_of(const Terms& terms) {
  std::vector<Entry> log;
  for (const std::uint64_t term : terms) log.push_back(entry(log.size() + 1, term));
  return log;
}

inline Terms terms_of(const std::vector<Entry>& log) {
  Terms terms;
  for (const Entry& e : log) terms.push_back(e.term.value);
  return terms;
}

inline Terms terms_of(const Log& log) {
  if (log.last_index() == log.base_index()) return {};
  return terms_of(log.slice(log.base_index() + 1, log.last_index(), SIZE_MAX));
}

// A node that was left in `term` with this log on disk.
inline Restored left_with(const Terms& terms, std::uint64_t term, std::uint64_t vote = 0) {
  Restored restored;
  restored.hard_state = {Term{term}, NodeId{vote}, Index{}};
  restored.entries = log_of(terms);
  return restored;
}

inline Config config_of(std::uint64_t id, std::size_t size, const Tweak& tweak = {}) {
  Config config;
  config.id = NodeId{id};
  config.seed = id;
  for (std::uint64_t voter = 1; voter <= size; ++voter) config.voters.push_back(NodeId{voter});
  if (tweak) tweak(config);
  return config;
}

inline AppendEntries append(std::uint64_t prev_index, std::uint64_t prev_term,
                            std::vector<Entry> entries = {}, std::uint64_t commit = 0,
                            std::uint64_t round = 1) {
  return {Index{prev_index}, Term{prev_term}, Index{commit}, round, {}, std::move(entries)};
}

inline RequestVote ask_vote(std::uint64_t last_index, std::uint64_t last_term) {
  return {Index{last_index}, Term{last_term}, false, false};
}

// ---- One core -------------------------------------------------------------------------------------

struct Solo {  // node 1
  explicit Solo(std::size_t size = 3, Restored restored = {}, const Tweak& tweak = {})
      : raft(config_of(1, size, tweak), std::move(restored), now) {}

  template <class Body>
  void from(std::uint64_t peer, std::uint64_t term, Body body) {
    raft.step(now, Message{NodeId{peer}, NodeId{1}, Term{term}, std::move(body)});
  }

  void tick_for(std::uint64_t ms) {
    for (const std::uint64_t end = now + ms; now < end;) raft.tick(now += kTickMs);
  }

  // Takes what the core has ready.
  void drain() {
    while (raft.has_ready()) {
      Ready ready = raft.take_ready(now);
      for (Message& message : ready.messages) outbox.push_back(std::move(message));
      if (ready.write) writes.push_back(std::move(*ready.write));
      for (Entry& e : ready.committed) committed.push_back(std::move(e));
      if (apply && !committed.empty() && committed.back().index > raft.last_applied()) {
        raft.applied(now, committed.back().index);
      }
      for (const ReadResult& read : ready.reads) reads.push_back(read);
      for (const Fetch& fetch : ready.fetches) fetches.push_back(fetch);
      snapshots.insert(snapshots.end(), ready.snapshots.begin(), ready.snapshots.end());
    }
  }

  // The disk has everything that was handed out.
  void sync() {
    drain();
    if (!writes.empty()) raft.synced(now, writes.back().id);
    drain();
  }

  // Takes the messages of one kind that were sent since it was asked last.
  template <class Body>
  std::vector<std::pair<Message, Body>> sent() {
    drain();
    std::vector<std::pair<Message, Body>> found;
    std::erase_if(outbox, [&](const Message& message) {
      const Body* body = std::get_if<Body>(&message.body);
      if (body != nullptr) found.emplace_back(message, *body);
      return body != nullptr;
    });
    return found;
  }

  // Wins an election with everyone's votes. The no-op is on its own disk only.
  void lead() {
    while (raft.role() != Role::kPreCandidate) tick_for(kTickMs);
    const std::uint64_t term = raft.current_term().value + 1;
    for (const PeerStatus& p : raft.peers()) from(p.id.value, term, RequestVoteReply{true, true});
    sync();
    for (const PeerStatus& p : raft.peers()) from(p.id.value, term, RequestVoteReply{true, false});
    sync();
    outbox.clear();
  }

  void ack(std::uint64_t peer, std::uint64_t match, std::uint64_t round = 0,
           std::uint32_t withhold_ms = 300) {
    AppendEntriesReply reply;
    reply.success = true;
    reply.match_index = Index{match};
    reply.round = round;
    reply.withhold_ms = withhold_ms;
    from(peer, raft.current_term().value, reply);
  }

  std::uint64_t now = 1'000;
  bool apply = true;
  Raft raft;
  std::vector<Message> outbox;
  std::vector<Write> writes;
  std::vector<Entry> committed;
  std::vector<ReadResult> reads;
  std::vector<Fetch> fetches;
  std::vector<NodeId> snapshots;
};

inline bool asks_for_votes(Solo& node) { return !node.sent<RequestVote>().empty(); }

// ---- A cluster -------------------------------------------------------------------------------------

struct UnsyncedWrite {
  Write write;
  std::uint64_t due_ms;
};

struct Node {
  Config config;
  std::unique_ptr<Raft> raft;  // null: it is down
  HardState hard_state;        // on disk, and so is the log
  // Entry i + 1 at i; what comes before log_first is not there any more, and only the checks see it.
  std::vector<Entry> log;
  std::uint64_t log_first = 1;
  std::deque<UnsyncedWrite> unsynced;
  std::uint64_t sync_ms = 0;  // how long an fsync takes; kNever: until sync()
  std::vector<Entry> applied;
  Index apply_to;  // handed out; `applied` gets there once apply is not stalled
  std::vector<Entry> to_apply;
  bool apply_stalled = false;
  bool paused = false;
  std::vector<ReadResult> reads;
  std::uint64_t last_tick_ms = 0;
  std::uint64_t clock_offset_ms = 1'000;
  std::int64_t clock_drift_permille = 0;
  Configuration configuration;  // as it was applied
  Index configuration_index;
  std::vector<Entry> install_from;
  std::optional<Snapshot> installing;  // begun, and done as soon as nothing is unsynced
  // As the checks saw it last.
  std::vector<Entry> seen_log;
  Term led_term;
};

class Cluster {
 public:
  explicit Cluster(std::size_t size, const Tweak& tweak = {}) : nodes_(size) {
    for (std::uint64_t id = 1; id <= size; ++id) {
      node(id).config = config_of(id, size, tweak);
      start(id);
    }
  }

  [[nodiscard]] Node& node(std::uint64_t id) { return nodes_.at(id - 1); }
  [[nodiscard]] Raft& operator[](std::uint64_t id) { return *node(id).raft; }
  [[nodiscard]] std::size_t size() const { return nodes_.size(); }
  [[nodiscard]] std::uint64_t clock(const Node& n) const {
    const auto drift = static_cast<std::int64_t>(now) * n.clock_drift_permille / 1000;
    return n.clock_offset_ms + static_cast<std::uint64_t>(static_cast<std::int64_t>(now) + drift);
  }

  // ---- nodes and disks
  void start(std::uint64_t id, std::uint64_t base = 0) {
    Node& n = node(id);
    Restored restored;
    restored.hard_state = n.hard_state;
    restored.base_index = Index{base};
    if (base > 0) restored.base_term = n.log[base - 1].term;
    restored.entries.assign(n.log.begin() + static_cast<std::ptrdiff_t>(base), n.log.end());
    restored.applied_index = n.applied.empty() ? Index{} : n.applied.back().index;
    restored.first_index = Index{n.log_first};
    restored.configuration = n.configuration;
    restored.configuration_index = n.configuration_index;
    if (const auto error = check_restored(restored)) fail(*error);
    n.apply_to = restored.applied_index;
    n.raft = std::make_unique<Raft>(n.config, std::move(restored), clock(n));
    n.seen_log = n.log;
    n.last_tick_ms = now;
  }

  // Starts anew with this log on disk: how the figures of the paper begin.
  void start_with(std::uint64_t id, const Terms& terms, std::uint64_t term) {
    node(id).hard_state = {Term{term}, {}, {}};
    node(id).log = log_of(terms);
    start(id);
    for (const Entry& e : node(id).log) check_log_matching(e, node(id).log);
  }

  // A power failure: of the writes not yet synced only the first `kept` are on disk.
  void crash(std::uint64_t id, std::size_t kept = 0) {
    Node& n = node(id);
    for (std::size_t i = 0; i < kept && i < n.unsynced.size(); ++i) save(n, n.unsynced[i].write);
    n.unsynced.clear();
    n.to_apply.clear();
    n.led_term = {};
    n.installing.reset();
    n.raft.reset();
  }

  // All that a node has written is synced now.
  void sync(std::uint64_t id) {
    for (UnsyncedWrite& unsynced : node(id).unsynced) unsynced.due_ms = now;
    settle();
  }

  // ---- time and network
  // Gives each message the delays of its copies; none: it is lost. Unset: it arrives at once.
  std::function<std::vector<std::uint64_t>(const Message&)> network;

  void cut(std::uint64_t from, std::uint64_t to) { cut_.insert({from, to}); }
  void isolate(std::uint64_t id) {
    for (std::uint64_t other = 1; other <= size(); ++other) cut(id, other), cut(other, id);
  }
  void heal() { cut_.clear(); }

  // Delivers all that is due, and what follows from it, until nothing moves.
  void settle() {
    for (bool moved = true; moved;) {
      moved = false;
      for (Node& n : nodes_) moved = pump(n) || moved;
      while (!in_flight_.empty() && in_flight_.begin()->first.first <= now) {
        const Message message = std::move(in_flight_.extract(in_flight_.begin()).mapped());
        moved = deliver(message) || moved;
      }
    }
  }

  void advance(std::uint64_t ms) {
    for (const std::uint64_t end = now + ms; now < end;) {
      now = std::min(end, now + 5);
      for (Node& n : nodes_) {
        if (n.raft && !n.paused && now - n.last_tick_ms >= kTickMs) tick(n);
      }
      settle();
    }
  }

  // Only this node's time passes, until it leads or a few timeouts are over.
  bool elect(std::uint64_t id) {
    Node& n = node(id);
    for (int i = 0; i < 200 && !n.raft->is_leader(); ++i) {
      now += kTickMs;
      tick(n);
      settle();
    }
    return n.raft->is_leader();
  }

  // The leader of the highest term; 0: none.
  [[nodiscard]] std::uint64_t leader() const {
    const Node* best = nullptr;
    for (const Node& n : nodes_) {
      if (!n.raft || !n.raft->is_leader()) continue;
      if (best == nullptr || n.raft->current_term() > best->raft->current_term()) best = &n;
    }
    return best == nullptr ? 0 : best->config.id.value;
  }

  // What every node is and knows, a line each.
  [[nodiscard]] std::string state() const {
    std::string text;
    const auto add = [&](const char* name, std::uint64_t number) {
      text += std::string(" ") + name + " " + std::to_string(number);
    };
    const auto add_members = [&](const char* name, const std::vector<NodeId>& members) {
      text += std::string(" ") + name;
      for (const NodeId member : members) text += " " + std::to_string(member.value);
    };
    for (const Node& n : nodes_) {
      text += "node " + std::to_string(n.config.id.value);
      if (!n.raft) {
        text += " is down\n";
        continue;
      }
      add("role", static_cast<std::uint64_t>(n.raft->role()));
      add("term", n.raft->current_term().value);
      add("leader", n.raft->leader().value);
      add("applied", n.raft->last_applied().value);
      add("commit", n.raft->commit_index().value);
      add("log from", n.log_first);
      add("to", n.raft->log().last_index().value);
      add("of term", n.raft->log().last_term().value);
      add("members since", n.raft->configuration_index().value);
      add_members("voters", n.raft->configuration().voters);
      add_members("outgoing", n.raft->configuration().outgoing);
      add_members("learners", n.raft->configuration().learners);
      text += n.raft->is_installing() ? " installing\n" : "\n";
    }
    return text;
  }

  // ---- clients
  Proposed propose(std::uint64_t id) {
    Node& n = node(id);
    const Proposed proposed =
        n.raft->propose(clock(n), payload("p" + std::to_string(++proposals_)));
    check(n);
    settle();
    return proposed;
  }

  ProposeStatus change(std::uint64_t id, std::vector<std::uint64_t> voters,
                       std::vector<std::uint64_t> learners = {}) {
    const auto ids = [](const std::vector<std::uint64_t>& numbers) {
      std::vector<NodeId> nodes;
      for (const std::uint64_t number : numbers) nodes.push_back(NodeId{number});
      return nodes;
    };
    Node& n = node(id);
    const Proposed proposed = n.raft->change_members(clock(n), ids(voters), ids(learners));
    check(n);
    settle();
    return proposed.status;
  }

  // Cuts the log on this node's disk as far as the core allows, or regardless of what others need;
  // no further than `at_most`.
  void compact(std::uint64_t id, std::uint64_t at_most = kNever, bool regardless = false) {
    Node& n = node(id);
    if (n.installing) return;
    const Index to = regardless ? n.raft->last_applied() : n.raft->compactable_index();
    n.log_first = std::max(n.log_first, std::min(to.value, at_most) + 1);
    n.raft->compacted(Index{n.log_first});
  }

  // What a crash takes of the state machine, but nothing that the log was cut behind.
  void forget_applied(std::uint64_t id, std::size_t count) {
    Node& n = node(id);
    const std::size_t kept = n.applied.size() - std::min(count, n.applied.size());
    n.applied.resize(std::max<std::size_t>(kept, n.log_first - 1));
    n.configuration = {};
    n.configuration_index = {};
    for (const Entry& e : n.applied) {
      if (e.configuration) n.configuration = *e.configuration, n.configuration_index = e.index;
    }
  }

  // Whether snapshots reach their peers; how often one was asked for.
  bool snapshots_arrive = true;
  std::uint64_t snapshots = 0;

  bool read(std::uint64_t id) {
    Node& n = node(id);
    read_must_see_[++reads_asked_] = committed_.size();
    const bool asked = n.raft->read(clock(n), reads_asked_);
    settle();
    return asked;
  }

  [[nodiscard]] std::size_t committed() const { return committed_.size(); }
  [[nodiscard]] std::size_t elections() const { return leader_of_.size(); }

  std::uint64_t now = 0;
  std::string* trace = nullptr;

 private:
  struct Committed {
    Entry entry;
    Term in_term;  // of the leader that committed it
  };

  [[noreturn]] static void fail(const std::string& what) { throw std::logic_error(what); }
  static void must(bool holds, const char* what) {
    if (!holds) fail(what);
  }
  static bool same(const Entry& a, const Entry& b) {
    return a.term == b.term && a.index == b.index && a.data == b.data;
  }

  static void save(Node& n, const Write& write) {
    if (write.hard_state) n.hard_state = *write.hard_state;
    if (write.entries.empty()) return;
    must(write.entries.front().index.value <= n.log.size() + 1, "a write left a hole in the log");
    must(write.entries.front().index.value >= n.log_first, "a write went below the cut of the log");
    n.log.resize(write.entries.front().index.value - 1);
    n.log.insert(n.log.end(), write.entries.begin(), write.entries.end());
  }

  void tick(Node& n) {
    n.last_tick_ms = now;
    n.raft->tick(clock(n));
    check(n);
  }

  bool deliver(const Message& message) {
    Node& n = node(message.to.value);
    if (!n.raft || cut_.contains({message.from.value, message.to.value})) return false;
    if (n.paused) return post(message, 100), false;
    n.raft->step(clock(n), message);
    check(n);
    return true;
  }

  void post(const Message& message, std::uint64_t delay_ms) {
    in_flight_.emplace(std::pair(now + delay_ms, ++sent_), message);
  }

  bool pump(Node& n) {
    if (!n.raft || n.paused) return false;
    bool moved = false;
    while (n.raft->has_ready()) {
      moved = true;
      hand_out(n, n.raft->take_ready(clock(n)));
    }
    while (!n.unsynced.empty() && n.unsynced.front().due_ms <= now) {
      moved = true;
      const std::uint64_t id = n.unsynced.front().write.id;
      save(n, n.unsynced.front().write);
      n.unsynced.pop_front();
      n.raft->synced(clock(n), id);
      check(n);
    }
    if (!n.to_apply.empty() && !n.apply_stalled) {
      moved = true;
      for (Entry& e : n.to_apply) {
        if (e.configuration) n.configuration = *e.configuration, n.configuration_index = e.index;
        check_applied(n, e);
      }
      n.to_apply.clear();
      n.raft->applied(clock(n), n.apply_to);
      check(n);
    }
    if (n.installing && n.unsynced.empty() && n.to_apply.empty()) {
      moved = true;
      install(n);
    }
    return moved;
  }

  void hand_out(Node& n, Ready ready) {
    for (const Message& message : ready.messages) {
      check_promise(n, message);
      if (trace != nullptr) *trace += describe(message);
      if (!network) post(message, 0);
      if (!network) continue;
      for (const std::uint64_t delay_ms : network(message)) post(message, delay_ms);
    }
    if (ready.write) n.unsynced.push_back({std::move(*ready.write), now + n.sync_ms});
    if (!ready.committed.empty()) {
      n.apply_to = ready.committed.back().index;
      n.to_apply = std::move(ready.committed);
    }
    for (const ReadResult& read : ready.reads) {
      n.reads.push_back(read);
      must(!read.ok || read.index.value >= read_must_see_[read.id], "a read is stale (§8)");
    }
    for (const NodeId peer : ready.snapshots) send_snapshot(n, peer);
    for (const Fetch& fetch : ready.fetches) {
      const std::size_t from = fetch.from.value;
      if (n.log_first > 1 && from <= n.log_first) fail("entries were asked for that were cut off");
      const std::size_t to = std::min({n.log.size(), from + 2, std::size_t{fetch.to.value}});
      const Term prev_term = from == 1 ? Term{} : n.log[from - 2].term;
      n.raft->fetched(clock(n), fetch.peer, prev_term,
                      {n.log.begin() + static_cast<std::ptrdiff_t>(from) - 1,
                       n.log.begin() + static_cast<std::ptrdiff_t>(to)});
    }
    check(n);
  }

  // The state as this node has applied it travels in no time, or not at all.
  void send_snapshot(Node& n, NodeId to) {
    ++snapshots;
    const Index index = n.applied.back().index;
    const Snapshot snapshot{index, n.applied.back().term, n.configuration, n.configuration_index};
    n.raft->sending_snapshot(to, index);
    Node& peer = node(to.value);
    const bool reached = snapshots_arrive && peer.raft && !peer.paused &&
                         !cut_.contains({n.config.id.value, to.value});
    if (!reached) return n.raft->snapshot_ended(clock(n), to, {});
    peer.raft->step(clock(peer),
                    Message{n.config.id, to, n.raft->current_term(), InstallSnapshot{snapshot}});
    while (peer.raft->has_ready()) hand_out(peer, peer.raft->take_ready(clock(peer)));
    if (peer.raft->begin_install(clock(peer), snapshot)) {
      peer.installing = snapshot;
      peer.install_from = n.applied;
      pump(peer);
    }
    n.raft->snapshot_ended(clock(n), to, peer.raft->commit_index());
  }

  void install(Node& n) {
    n.applied = std::exchange(n.install_from, {});
    n.apply_to = n.applied.back().index;
    n.configuration = n.installing->configuration;
    n.configuration_index = n.installing->configuration_index;
    n.log = n.applied;
    n.log_first = n.log.size() + 1;
    n.seen_log = n.log;
    n.installing.reset();
    n.raft->installed(clock(n));
    check(n);
  }

  // What leaves promises nothing that is not on the sender's disk (Figure 2, "before responding").
  static void check_promise(const Node& n, const Message& message) {
    const auto* request = std::get_if<RequestVote>(&message.body);
    const auto* vote = std::get_if<RequestVoteReply>(&message.body);
    const auto* ack = std::get_if<AppendEntriesReply>(&message.body);
    const bool same_term = n.hard_state.term == message.term;
    if (request != nullptr && !request->pre_vote) {
      must(same_term && n.hard_state.vote == n.config.id, "RequestVote left before the own vote");
    }
    if (vote != nullptr && vote->granted && !vote->pre_vote) {
      must(same_term && n.hard_state.vote == message.to, "a vote left before it was on disk");
    }
    if (ack != nullptr) must(same_term, "an answer left before its term was on disk");
    if (ack != nullptr && ack->success) {
      must(ack->match_index.value <= n.log.size(), "an ack left before the entries were on disk");
    }
  }

  // ---- Figure 3
  void check(Node& n) {
    const Raft& raft = *n.raft;
    if (raft.is_leader() && leader_of_.emplace(raft.current_term(), n.config.id).second) {
      check_leader_completeness(n);
    }
    must(!raft.is_leader() || leader_of_[raft.current_term()] == n.config.id, "Election Safety");
    check_seen_log(n);
    must(raft.last_applied() <= std::min(raft.commit_index(), raft.durable_index()),
         "applied beyond what is committed and durable");
    while (committed_.size() < raft.commit_index().value) commit_next(n);
    check_leases();
  }

  void check_seen_log(Node& n) {
    const Log& log = n.raft->log();
    const bool leads_on = n.raft->is_leader() && n.led_term == n.raft->current_term();
    std::size_t i = log.base_index().value;
    while (i < n.seen_log.size() && i < log.last_index().value &&
           same(n.seen_log[i], log.at(Index{i + 1}))) {
      ++i;
    }
    must(!leads_on || i >= n.seen_log.size(), "Leader Append-Only");
    n.seen_log.resize(i);
    for (; i < log.last_index().value; ++i) {
      n.seen_log.push_back(log.at(Index{i + 1}));
      check_log_matching(n.seen_log.back(), n.seen_log);
    }
    n.led_term = n.raft->is_leader() ? n.raft->current_term() : Term{};
  }

  // By induction: the same index and term mean the same entry, and the same term before it.
  void check_log_matching(const Entry& e, const std::vector<Entry>& log) {
    const Term prev = e.index == Index{1} ? Term{} : log[e.index.value - 2].term;
    const auto known = entries_.try_emplace({e.index, e.term}, e.data, prev).first;
    must(known->second == std::pair(e.data, prev), "Log Matching");
  }

  void check_leader_completeness(const Node& n) const {
    for (const Committed& c : committed_) {
      if (c.in_term >= n.raft->current_term() || c.entry.index <= n.raft->log().base_index()) {
        continue;
      }
      must(c.entry.index <= n.raft->log().last_index() &&
               n.raft->log().term_at(c.entry.index) == c.entry.term,
           "Leader Completeness");
    }
  }

  void commit_next(const Node& n) {
    const Entry& e = n.seen_log.at(committed_.size());
    const Configuration& members = n.raft->configuration();
    for (const std::vector<NodeId>* voters : {&members.voters, &members.outgoing}) {
      std::size_t holders = 0;
      for (const NodeId id : *voters) {
        const Node& other = node(id.value);
        holders += other.log.size() >= e.index.value && same(other.log[e.index.value - 1], e);
      }
      must(voters->empty() || holders > voters->size() / 2,
           "committed before a majority had it on disk");
    }
    committed_.push_back({e, n.raft->current_term()});
  }

  void check_applied(Node& n, const Entry& e) {
    must(e.index.value == n.applied.size() + 1, "applied out of order");
    must(same(e, committed_.at(n.applied.size()).entry), "State Machine Safety");
    n.applied.push_back(e);
  }

  void check_leases() const {
    std::size_t holders = 0;
    for (const Node& n : nodes_) {
      if (!n.raft) continue;
      holders += n.raft->has_lease(clock(n));
      const auto index = n.raft->lease_read(clock(n));
      must(!index || index->value >= committed_.size(), "a lease read is stale");
    }
    must(holders <= 1, "two leases at once");
  }

  static std::string describe(const Message& m) {
    std::string text = std::to_string(m.from.value) + ">" + std::to_string(m.to.value) + " t" +
                       std::to_string(m.term.value) + " " + std::to_string(m.body.index());
    if (const auto* append = std::get_if<AppendEntries>(&m.body)) {
      for (const std::uint64_t n : {append->prev_log_index.value, append->prev_log_term.value,
                                    append->commit_index.value, append->round}) {
        text += " " + std::to_string(n);
      }
      for (const Entry& e : append->entries) text += " " + (e.data ? *e.data : "no-op");
    }
    if (const auto* ack = std::get_if<AppendEntriesReply>(&m.body)) {
      for (const std::uint64_t n : {ack->match_index.value, ack->round, ack->rejected_index.value,
                                    ack->conflict_index.value, ack->conflict_term.value}) {
        text += " " + std::to_string(n);
      }
    }
    return text + "\n";
  }

  std::vector<Node> nodes_;
  std::map<std::pair<std::uint64_t, std::uint64_t>, Message> in_flight_;  // by due time
  std::set<std::pair<std::uint64_t, std::uint64_t>> cut_;
  std::uint64_t sent_ = 0;
  std::uint64_t proposals_ = 0;
  std::uint64_t reads_asked_ = 0;
  std::map<std::uint64_t, std::size_t> read_must_see_;
  std::map<Term, NodeId> leader_of_;
  std::map<std::pair<Index, Term>, std::pair<Payload, Term>> entries_;
  std::vector<Committed> committed_;
};

}  // namespace seshat::raft::test

#endif  // SESHAT_TESTS_RAFT_HARNESS_HPP
