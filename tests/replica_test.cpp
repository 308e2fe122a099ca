// Replicas over a disk, a network and a state machine that the test plays, in virtual time: what
// those hear who propose and read, and that they hear it once.
#include "seshat/replica.hpp"

#include <algorithm>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "catch.hpp"
#include "replica_group.hpp"

namespace {

using namespace seshat;
using namespace seshat::replica_tests;

// With ReadIndex instead of leases.
void no_lease(raft::Config& config) { config.lease_reads = false; }

}  // namespace

// ---- One node -----------------------------------------------------------------------------------

TEST_CASE("one node alone leads at once and answers with the outcome of the entry", "[replica]") {
  Group group(1);
  const std::uint64_t leader = group.elect();
  Recorder waiter;
  const Index index = group.replica(leader).propose("x", waiter);
  CHECK(index != Index{});
  CHECK(waiter.heard.empty());
  group.settle();
  CHECK(waiter.only() == "done " + std::to_string(index.value));
  CHECK(group.at(leader).applied == std::vector<std::string>{"x"});
}

TEST_CASE("nothing is answered before it is on disk and applied", "[replica]") {
  Group group(1);
  group.elect();
  Node& node = group.at(1);
  Recorder waiter;
  node.disk_stalls = true;
  node.machine_stalls = true;
  node.replica->propose("x", waiter);
  group.settle();
  CHECK(node.applied.empty());
  node.disk_stalls = false;
  group.settle();
  CHECK(node.applied.size() == 1);
  CHECK(waiter.heard.empty());
  node.machine_stalls = false;
  group.settle();
  CHECK(waiter.heard.size() == 1);
}

TEST_CASE("many proposals are answered in order, each with its own outcome", "[replica]") {
  Group group(1);
  group.elect();
  std::vector<Recorder> waiters(50);
  std::vector<std::string> expected;
  for (Recorder& waiter : waiters) {
    const Index index = group.replica(1).propose("x", waiter);
    expected.push_back("done " + std::to_string(index.value));
  }
  group.settle();
  std::vector<std::string> heard;
  for (const Recorder& waiter : waiters) heard.push_back(waiter.only());
  CHECK(heard == expected);
  CHECK(group.replica(1).waiting() == 0);
}

// ---- Three nodes: proposals ---------------------------------------------------------------------

TEST_CASE("a proposal is applied on every node, and answered by the leader once", "[replica]") {
  Group group(3);
  const std::uint64_t leader = group.elect();
  Recorder waiter;
  group.replica(leader).propose("x", waiter);
  group.run_for(300);
  CHECK_THAT(waiter.only(), StartsWith("done"));
  for (std::uint64_t id = 1; id <= 3; ++id) {
    CHECK(group.at(id).applied == std::vector<std::string>{"x"});
  }
}

TEST_CASE("a follower refuses: not the leader, nothing appended", "[replica]") {
  Group group(3);
  const std::uint64_t follower = group.elect() % 3 + 1;
  Recorder write;
  Recorder read;
  CHECK(group.replica(follower).propose("x", write) == Index{});
  group.replica(follower).read({}, read);
  CHECK(write.only() == "failed");
  CHECK(write.last == Refusal::kNotLeader);
  CHECK(read.last == Refusal::kNotLeader);
  CHECK_FALSE(group.replica(follower).readable({}));
  group.run_for(300);
  CHECK(group.at(follower).applied.empty());
}

TEST_CASE("a leader cut off tells those in flight that the outcome is unknown, at once (class 28)",
          "[replica]") {
  Group group(3);
  const std::uint64_t leader = group.elect();
  group.cut_off = {NodeId{leader}};
  Recorder waiter;
  group.replica(leader).propose("x", waiter);
  group.run_for(kElectionTimeoutMaxMs + kTickMs);
  CHECK(waiter.only() == "failed");
  CHECK(waiter.last == Refusal::kUnknown);
}

TEST_CASE("what was in flight when leadership was lost is never answered again", "[replica]") {
  Group group(3);
  const std::uint64_t leader = group.elect();
  group.cut_off = {NodeId{leader}};
  Recorder lost;
  group.replica(leader).propose("lost", lost);
  const std::uint64_t next = group.elect();
  REQUIRE(next != leader);
  Recorder kept;
  group.replica(next).propose("kept", kept);
  group.settle();
  group.cut_off.clear();
  group.run_for(2'000);
  CHECK(lost.only() == "failed");
  CHECK_THAT(kept.only(), StartsWith("done"));
  for (std::uint64_t id = 1; id <= 3; ++id) {
    CHECK(group.at(id).applied == std::vector<std::string>{"kept"});
  }
}

TEST_CASE("not committed in time is a timeout, and a later commit is not told", "[replica]") {
  Group group(1);
  group.elect();
  Node& node = group.at(1);
  node.disk_stalls = true;
  Recorder waiter;
  node.replica->propose("x", waiter);
  group.run_for(kRequestTimeoutMs - kTickMs);
  CHECK(waiter.heard.empty());
  group.run_for(2 * kTickMs);
  CHECK(waiter.only() == "failed");
  CHECK(waiter.last == Refusal::kTimeout);
  node.disk_stalls = false;
  group.settle();
  CHECK(node.applied == std::vector<std::string>{"x"});
  CHECK(waiter.heard.size() == 1);
  CHECK(group.replica(1).waiting() == 0);
}

TEST_CASE("a full log refuses and says so", "[replica]") {
  Group group(1, [](raft::Config& config) { config.max_log_memory_size_bytes = 500; });
  group.elect();
  group.at(1).disk_stalls = true;
  Recorder taken;
  Recorder refused;
  group.replica(1).propose(std::string(1'000, 'x'), taken);
  CHECK(group.replica(1).propose("y", refused) == Index{});
  CHECK(refused.last == Refusal::kLogFull);
  CHECK(taken.heard.empty());
}

// ---- No quorum ----------------------------------------------------------------------------------

TEST_CASE("a node that led and lost its majority says no quorum at once", "[replica]") {
  Group group(3);
  const std::uint64_t leader = group.elect();
  group.cut_off = {NodeId{leader}};
  while (group.replica(leader).raft().is_leader()) group.run_for(kTickMs);
  CHECK(group.replica(leader).lacks_quorum());
  Recorder waiter;
  group.replica(leader).propose("x", waiter);
  CHECK(waiter.last == Refusal::kNoQuorum);
}

TEST_CASE("a follower without a leader waits one election timeout before it says no quorum",
          "[replica]") {
  Group group(3);
  const std::uint64_t follower = group.elect() % 3 + 1;
  group.cut_off = {NodeId{follower}};
  while (group.replica(follower).raft().leader() != NodeId{}) group.run_for(kTickMs);
  CHECK_FALSE(group.replica(follower).lacks_quorum());
  Recorder early;
  group.replica(follower).propose("x", early);
  CHECK(early.last == Refusal::kNotLeader);
  group.run_for(kElectionTimeoutMaxMs + kTickMs);
  CHECK(group.replica(follower).lacks_quorum());
  Recorder late;
  group.replica(follower).read({}, late);
  CHECK(late.last == Refusal::kNoQuorum);
  group.cut_off.clear();
  group.run_for(2'000);
  CHECK_FALSE(group.replica(follower).lacks_quorum());
}

TEST_CASE("a proposal waits for more until it is let go, and reads do not wait", "[replica]") {
  Group group(3);
  const std::uint64_t leader = group.elect();
  Replica& replica = group.replica(leader);
  const auto last = replica.raft().log().last_index();
  Recorder first;
  Recorder second;
  replica.propose("x", first);
  replica.pump(true);
  replica.propose("y", second);
  replica.pump(true);
  CHECK(group.at(leader).outbox.empty());
  CHECK(replica.raft().left_index() == last);
  Recorder read;
  replica.read({}, read);
  replica.pump(true);
  CHECK(read.only() == "readable");
  CHECK(first.heard.empty());
  replica.pump();
  CHECK(replica.raft().left_index() == last + 2);
  group.settle();
  CHECK(first.only() == "done 2");
  CHECK(second.only() == "done 3");
}

// ---- Reads --------------------------------------------------------------------------------------

TEST_CASE("with a lease a read needs no message", "[replica]") {
  Group group(3);
  const std::uint64_t leader = group.elect();
  CHECK(group.replica(leader).readable({}));
  Recorder waiter;
  group.replica(leader).read({}, waiter);
  group.replica(leader).pump();
  CHECK(waiter.only() == "readable");
  CHECK(group.at(leader).outbox.empty());
}

TEST_CASE("without a lease a read asks a majority (thesis 6.4)", "[replica]") {
  Group group(3, no_lease);
  group.run_for(3'000);
  std::uint64_t leader = 1;
  while (!group.replica(leader).raft().is_leader()) ++leader;
  CHECK_FALSE(group.replica(leader).readable({}));
  Recorder alone;
  group.cut_off = {NodeId{leader}};
  group.replica(leader).read({}, alone);
  group.settle();
  CHECK(alone.heard.empty());
  group.cut_off.clear();
  group.run_for(200);
  CHECK(alone.only() == "readable");
}

TEST_CASE("a read waits until what was committed before it is applied (class 3)", "[replica]") {
  Group group(3);
  const std::uint64_t leader = group.elect();
  group.at(leader).machine_stalls = true;
  Recorder write;
  group.replica(leader).propose("x", write);
  group.settle();  // committed, not applied
  CHECK_FALSE(group.replica(leader).readable({}));
  Recorder read;
  group.replica(leader).read({}, read);
  group.settle();
  CHECK(read.heard.empty());
  group.at(leader).machine_stalls = false;
  group.settle();
  CHECK(read.only() == "readable");
}

TEST_CASE("a read waits for its caller's own writes, committed or not", "[replica]") {
  Group group(1);
  group.elect();
  group.at(1).disk_stalls = true;
  Recorder write;
  const Index index = group.replica(1).propose("x", write);
  Recorder own;
  Recorder other;
  group.replica(1).read(index, own);
  group.replica(1).read({}, other);
  group.settle();
  CHECK_FALSE(group.replica(1).readable(index));
  CHECK(group.replica(1).readable({}));
  CHECK(own.heard.empty());
  CHECK(other.only() == "readable");
  group.at(1).disk_stalls = false;
  group.settle();
  CHECK(own.only() == "readable");
}

TEST_CASE("an own write that another leader overwrote keeps no read waiting", "[replica]") {
  Group group(3);
  const std::uint64_t first = group.elect();
  group.cut_off = {NodeId{first}};
  std::vector<Recorder> lost(20);
  Index last;
  for (Recorder& waiter : lost) last = group.replica(first).propose("lost", waiter);
  group.elect();
  group.cut_off.clear();
  group.run_for(1'000);
  for (int i = 0; i < 10 && !group.replica(first).raft().is_leader(); ++i) {
    for (std::uint64_t id = 1; id <= 3; ++id) group.replica(id).transfer_leadership(NodeId{first});
    group.run_for(1'000);
  }
  REQUIRE(group.elect() == first);
  REQUIRE(group.replica(first).raft().log().last_index() < last);
  CHECK(group.replica(first).readable(last));
  Recorder read;
  group.replica(first).read(last, read);
  group.settle();
  CHECK(read.only() == "readable");
}

TEST_CASE("a leader cut off serves no read, and those that wait hear so (classes 4 and 5)",
          "[replica]") {
  Group group(3);
  const std::uint64_t leader = group.elect();
  group.cut_off = {NodeId{leader}};
  group.run_for(300);  // the lease is over, leadership not yet
  CHECK_FALSE(group.replica(leader).readable({}));
  Recorder read;
  group.replica(leader).read({}, read);
  group.run_for(kElectionTimeoutMaxMs + kTickMs);
  CHECK(read.only() == "failed");
  CHECK(read.last == Refusal::kNoQuorum);
}

TEST_CASE("a process that slept has no lease when it wakes (class 5)", "[replica]") {
  Group group(3);
  const std::uint64_t leader = group.elect();
  REQUIRE(group.replica(leader).readable({}));
  group.clock.now += 30'000;
  CHECK_FALSE(group.replica(leader).readable({}));
}

TEST_CASE("a read that waits too long is told timeout, once", "[replica]") {
  Group group(1);
  group.elect();
  group.at(1).machine_stalls = true;
  Recorder write;
  Recorder read;
  const Index index = group.replica(1).propose("x", write);
  group.replica(1).read(index, read);
  group.run_for(kRequestTimeoutMs + kTickMs);
  CHECK(read.only() == "failed");
  CHECK(read.last == Refusal::kTimeout);
  group.at(1).machine_stalls = false;
  group.run_for(100);
  CHECK(read.heard.size() == 1);
}

// ---- Asking again from inside -------------------------------------------------------------------

TEST_CASE("who hears may propose and read again from inside", "[replica]") {
  Group group(1);
  group.elect();
  Replica& replica = group.replica(1);
  Recorder first;
  Recorder second;
  Recorder third;
  first.then = [&] { replica.read(replica.propose("b", second), third); };
  replica.propose("a", first);
  group.run_for(100);
  CHECK_THAT(first.only(), StartsWith("done"));
  CHECK_THAT(second.only(), StartsWith("done"));
  CHECK(third.only() == "readable");
}

TEST_CASE("who times out may propose again from inside", "[replica]") {
  Group group(1);
  group.elect();
  group.at(1).disk_stalls = true;
  std::vector<Recorder> waiters(300);
  std::vector<Recorder> again(300);
  for (std::size_t i = 0; i < waiters.size(); ++i) {
    waiters[i].then = [&, i] { group.replica(1).propose("again", again[i]); };
    group.replica(1).propose("x", waiters[i]);
  }
  group.run_for(kRequestTimeoutMs + kTickMs);
  for (const Recorder& waiter : waiters) CHECK(waiter.last == Refusal::kTimeout);
  group.at(1).disk_stalls = false;
  group.run_for(100);
  for (const Recorder& waiter : again) CHECK_THAT(waiter.only(), StartsWith("done"));
}

TEST_CASE("who loses with the leader may ask again from inside, and is refused once", "[replica]") {
  Group group(3);
  const std::uint64_t leader = group.elect();
  group.cut_off = {NodeId{leader}};
  std::vector<Recorder> waiters(50);
  std::vector<Recorder> again(50);
  for (std::size_t i = 0; i < waiters.size(); ++i) {
    waiters[i].then = [&, i] {
      i % 2 == 0 ? (void)group.replica(leader).propose("again", again[i])
                 : group.replica(leader).read({}, again[i]);
    };
    group.replica(leader).propose("x", waiters[i]);
  }
  group.run_for(kElectionTimeoutMaxMs + kTickMs);
  for (const Recorder& waiter : waiters) CHECK(waiter.last == Refusal::kUnknown);
  for (const Recorder& waiter : again) CHECK(waiter.only() == "failed");
  for (const Recorder& waiter : again) CHECK(waiter.last == Refusal::kNoQuorum);
}

// ---- Storage that failed, leadership that moved -------------------------------------------------

TEST_CASE("when storage fails, everybody hears, and whoever comes later is refused (class 22)",
          "[replica]") {
  Group group(1);
  group.elect();
  group.at(1).disk_stalls = true;
  Recorder write;
  Recorder read;
  const Index index = group.replica(1).propose("x", write);
  group.replica(1).read(index, read);
  group.replica(1).abandon();
  CHECK(write.last == Refusal::kUnknown);
  CHECK(read.last == Refusal::kStorage);
  Recorder late_write;
  Recorder late_read;
  CHECK(group.replica(1).propose("y", late_write) == Index{});
  group.replica(1).read({}, late_read);
  CHECK(late_write.last == Refusal::kStorage);
  CHECK(late_read.last == Refusal::kStorage);
  CHECK_FALSE(group.replica(1).readable({}));
  for (const Recorder* waiter : {&write, &read, &late_write, &late_read}) {
    CHECK(waiter->heard.size() == 1);
  }
}

TEST_CASE("leadership is told after each change, and only then", "[replica]") {
  Group group(3);
  const std::uint64_t leader = group.elect();
  const int changes = group.at(leader).changes;
  CHECK(changes > 0);
  group.run_for(2'000);
  CHECK(group.at(leader).changes == changes);
  group.cut_off = {NodeId{leader}};
  group.run_for(2'000);
  CHECK(group.at(leader).changes > changes);
}

TEST_CASE("leadership is handed over without an election timeout, and proposals wait for it",
          "[replica]") {
  Group group(3);
  const std::uint64_t leader = group.elect();
  const std::uint64_t heir = leader % 3 + 1;
  group.replica(leader).transfer_leadership(NodeId{heir});
  Recorder waiter;
  CHECK(group.replica(leader).propose("x", waiter) == Index{});
  CHECK(waiter.last == Refusal::kNotLeader);
  CHECK_FALSE(group.replica(leader).readable({}));
  group.settle();
  CHECK(group.replica(heir).raft().is_leader());
}

TEST_CASE("whatever happens, everybody hears exactly once, and no answered write is lost",
          "[replica]") {
  for (std::uint64_t seed = 1; seed <= 30; ++seed) {
    std::mt19937_64 random(seed);
    Group group(3, [&](raft::Config& config) {
      config.seed += 100 * seed;
      config.lease_reads = seed % 2 == 0;
    });
    std::deque<Recorder> writes;
    std::deque<Recorder> reads;
    for (int step = 0; step < 600; ++step) {
      const std::uint64_t id = 1 + random() % 3;
      if (random() % 60 == 0) group.cut_off = {NodeId{id}};
      if (random() % 40 == 0) group.cut_off.clear();
      group.at(id).disk_stalls = random() % 50 == 0;
      group.at(id).machine_stalls = random() % 20 == 0;
      for (std::uint64_t asked = 1; asked <= 3; ++asked) {
        const std::string text = std::to_string(writes.size());
        const Index index = group.replica(asked).propose(text, writes.emplace_back());
        group.replica(asked).read(index, reads.emplace_back());
      }
      group.run_for(kTickMs);
    }
    group.cut_off.clear();
    for (std::uint64_t id = 1; id <= 3; ++id) {
      group.at(id).disk_stalls = group.at(id).machine_stalls = false;
    }
    group.run_for(kRequestTimeoutMs + 3'000);
    for (const Recorder& read : reads) REQUIRE(read.heard.size() == 1);
    const std::vector<std::string>& applied = group.at(1).applied;
    const std::set<std::string> distinct(applied.begin(), applied.end());
    CHECK(distinct.size() == applied.size());  // nothing twice
    CHECK(applied == group.at(2).applied);
    CHECK(applied == group.at(3).applied);
    for (std::size_t i = 0; i < writes.size(); ++i) {
      REQUIRE(writes[i].heard.size() == 1);
      const bool happened = distinct.contains(std::to_string(i));
      if (writes[i].only() != "failed") CHECK(happened);
      if (writes[i].last == Refusal::kNotLeader || writes[i].last == Refusal::kNoQuorum) {
        CHECK_FALSE(happened);
      }
    }
  }
}

// ---- Members ------------------------------------------------------------------------------------

TEST_CASE("members are changed by the leader, one change at a time (§6)", "[replica][members]") {
  Group group(3, {}, 4);
  const std::uint64_t leader = group.elect();
  const std::vector<NodeId> founders{{1}, {2}, {3}};
  const std::uint64_t follower = leader % 3 + 1;
  CHECK(group.replica(follower).change_members(founders, {{4}}) == raft::ProposeStatus::kNotLeader);
  CHECK(group.replica(leader).change_members(founders, {{4}}) == raft::ProposeStatus::kAccepted);
  CHECK(group.replica(leader).change_members(founders, {}) == raft::ProposeStatus::kChanging);
  group.run_for(300);
  CHECK(group.replica(leader).change_members(founders, {{4}}) == raft::ProposeStatus::kUnchanged);
  group.replica(leader).abandon();
  CHECK(group.replica(leader).change_members(founders, {}) == raft::ProposeStatus::kNotLeader);
}

TEST_CASE("a node that joins gets all that was ever applied, and may lead in the end",
          "[replica][members]") {
  Group group(1, {}, 2);
  group.elect();
  std::vector<Recorder> waiters(20);
  for (Recorder& waiter : waiters) group.replica(1).propose("x", waiter);
  group.run_for(100);
  (void)group.replica(1).change_members({{1}}, {{2}});
  group.run_for(500);
  CHECK(group.at(2).applied == std::vector<std::string>(20, "x"));
  (void)group.replica(1).change_members({{1}, {2}}, {});
  group.run_for(500);
  group.replica(1).transfer_leadership();
  CHECK(group.elect() == 2);
}

TEST_CASE("a leader that removes itself answers what it took, and makes way",
          "[replica][members]") {
  Group group(3);
  const std::uint64_t leader = group.elect();
  std::vector<NodeId> others;
  for (std::uint64_t id = 1; id <= 3; ++id) {
    if (id != leader) others.push_back(NodeId{id});
  }
  const int changes = group.at(leader).changes;
  Recorder before;
  Recorder between;
  group.replica(leader).propose("before", before);
  CHECK(group.replica(leader).change_members(others, {}) == raft::ProposeStatus::kAccepted);
  group.replica(leader).propose("between", between);
  group.settle();
  CHECK_FALSE(group.raft(leader).is_leader());
  CHECK(group.at(leader).changes > changes);
  CHECK_THAT(before.only(), StartsWith("done"));
  CHECK_THAT(between.only(), StartsWith("done"));
  CHECK(group.elect() != leader);
  Recorder after;
  CHECK(group.replica(leader).propose("after", after) == Index{});
  CHECK(after.only() == "failed");
}

// ---- Compaction and snapshots -------------------------------------------------------------------

namespace {

// One follower was away while `entries` were applied and cut off the log.
struct Left {
  explicit Left(std::uint64_t entries = 20)
      : group(3, [](raft::Config& config) { config.applied_tail_size_bytes = 0; }),
        leader(group.elect()),
        behind(leader % 3 + 1) {
    group.cut_off = {NodeId{behind}};
    write(entries);
    snapshot.last_included_index = group.raft(leader).last_applied();
    snapshot.last_included_term = group.raft(leader).current_term();
    snapshot.configuration = group.raft(leader).configuration();
    // The last entry stays, for its term (raft::Raft::compactable_index).
    group.at(leader).cut_log(snapshot.last_included_index - 1);
    write(1);  // so that the log goes on behind it
    group.cut_off.clear();
    group.run_for(500);
  }
  void write(std::uint64_t entries) {
    std::vector<Recorder> waiters(entries);
    for (Recorder& waiter : waiters) group.replica(leader).propose("x", waiter);
    group.run_for(500);
    for (const Recorder& waiter : waiters) CHECK_THAT(waiter.only(), StartsWith("done"));
  }
  // The owner puts the snapshot in the place of log and state.
  void install() {
    group.at(behind).disk.clear();
    group.replica(behind).on_installed();
    group.replica(leader).on_snapshot_ended(NodeId{behind}, snapshot.last_included_index);
  }

  Group group;
  std::uint64_t leader;
  std::uint64_t behind;
  raft::Snapshot snapshot;
};

}  // namespace

TEST_CASE("who needs what was cut off is to be sent a snapshot, and that is said once (§7)",
          "[replica][snapshot]") {
  Left left;
  CHECK(left.group.at(left.leader).snapshots == std::vector<NodeId>{NodeId{left.behind}});
  left.group.run_for(2'000);
  CHECK(left.group.at(left.leader).snapshots.size() == 1);
  CHECK(left.group.at(left.behind).applied.empty());
}

TEST_CASE("a snapshot that was not sent is asked for again", "[replica][snapshot]") {
  Left left;
  left.group.replica(left.leader).on_sending_snapshot(NodeId{left.behind}, Index{5});
  left.group.replica(left.leader).on_snapshot_ended(NodeId{left.behind}, {});
  left.group.run_for(500);
  CHECK(left.group.at(left.leader).snapshots.size() == 2);
}

TEST_CASE("a snapshot takes the place of the log, and the log goes on behind it (Figure 13)",
          "[replica][snapshot]") {
  Left left;
  Replica& replica = left.group.replica(left.behind);
  REQUIRE(replica.begin_install(left.snapshot));
  left.write(3);
  CHECK(left.group.at(left.behind).applied.empty());
  CHECK(replica.raft().last_applied() < left.snapshot.last_included_index);
  left.install();
  CHECK(replica.raft().last_applied() == left.snapshot.last_included_index);
  left.group.run_for(500);
  CHECK(left.group.at(left.behind).applied == std::vector<std::string>(4, "x"));  // what follows it
  CHECK(replica.raft().last_applied() == left.group.raft(left.leader).last_applied());
  CHECK(left.group.at(left.leader).snapshots.size() == 1);
}

TEST_CASE("what is ready goes to the disk before a snapshot takes the place of the log",
          "[replica][snapshot]") {
  Left left;
  Node& node = left.group.at(left.behind);
  // A leader of a higher term: the term has to be saved.
  raft::AppendEntries heartbeat;
  const Term term = left.group.raft(left.leader).current_term() + 1;
  const NodeId other{left.behind % 3 + 1};
  node.replica->receive({other, NodeId{left.behind}, term, heartbeat});
  REQUIRE(node.writes.empty());
  REQUIRE(node.replica->begin_install(left.snapshot));
  CHECK(node.writes.size() == 1);
}

TEST_CASE("a snapshot that brings nothing is not taken in", "[replica][snapshot]") {
  Left left;
  CHECK_FALSE(left.group.replica(left.leader).begin_install(left.snapshot));
  const std::uint64_t abreast = 6 - left.leader - left.behind;
  CHECK_FALSE(left.group.replica(abreast).begin_install(left.snapshot));
  Replica& replica = left.group.replica(left.behind);
  REQUIRE(replica.begin_install(left.snapshot));
  CHECK_FALSE(replica.begin_install(left.snapshot));  // it is at it
  left.install();
  CHECK_FALSE(replica.begin_install(left.snapshot));  // it has it
  left.group.run_for(500);
  replica.abandon();
  raft::Snapshot newer = left.snapshot;
  newer.last_included_index = newer.last_included_index + 1'000;
  CHECK_FALSE(replica.begin_install(newer));
}

TEST_CASE("a node that installs a snapshot does not stand for election, and then does again",
          "[replica][snapshot]") {
  Left left;
  REQUIRE(left.group.replica(left.behind).begin_install(left.snapshot));
  const std::uint64_t abreast = 6 - left.leader - left.behind;
  left.group.cut_off = {NodeId{left.leader}, NodeId{abreast}};
  left.group.run_for(5'000);
  CHECK(left.group.raft(left.behind).role() == raft::Role::kFollower);
  left.install();
  left.group.run_for(5'000);
  CHECK(left.group.raft(left.behind).role() == raft::Role::kPreCandidate);
}

TEST_CASE("entries that left the memory are read back from disk for a slow follower",
          "[replica][snapshot]") {
  Group group(3, [](raft::Config& config) { config.applied_tail_size_bytes = 0; });
  const std::uint64_t leader = group.elect();
  const std::uint64_t behind = leader % 3 + 1;
  group.cut_off = {NodeId{behind}};
  std::vector<Recorder> waiters(20);
  for (Recorder& waiter : waiters) group.replica(leader).propose("x", waiter);
  group.run_for(500);
  REQUIRE(group.raft(leader).log().base_index() == group.raft(leader).last_applied());
  group.cut_off.clear();
  group.run_for(500);
  CHECK(group.at(leader).snapshots.empty());
  CHECK(group.at(behind).applied == std::vector<std::string>(20, "x"));
}
