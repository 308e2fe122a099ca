// Nodes come and go while leaders die, networks break and nodes restart.
//
//   a change of members ──kill -9 of the leader at a chosen moment──> it ends, or can be asked for again
//   random changes between three and five members, beside random faults, for CHAOS_SECONDS
#include <functional>
#include <memory>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "chaos.hpp"

namespace seshat::tests {
namespace {

std::set<int> as_set(const std::vector<int>& nodes) { return {nodes.begin(), nodes.end()}; }

// Asks and doesn't wait for the answer.
class Asked {
 public:
  Asked(const Cluster& cluster, int at, const Arguments& words) : client_(cluster.client(at)) {
    client_.send(words);
  }

 private:
  Client client_;
};

// ---- The leader dies in the middle --------------------------------------------------------------------

enum class Moment { kAsked, kRecorded, kInSystemGroup, kInDataGroup };
constexpr Moment kMoments[] = {Moment::kAsked, Moment::kRecorded, Moment::kInSystemGroup,
                               Moment::kInDataGroup};

class ChangeUnderFire {
 public:
  explicit ChangeUnderFire(const std::string& auto_promote)
      : chaos({.nodes = 3, .spares = 1, .settings = {{"cluster.auto_promote", auto_promote}}}) {}

  [[nodiscard]] int leader_of(int group) {
    int leader = 0;
    REQUIRE(eventually(15s, [&] {
      for (const int node : cluster().nodes()) {
        const auto raft = cluster().info(node, "raft");
        const std::string prefix = "raft_group_" + std::to_string(group);
        if (raft && raft->at(prefix + "_role") == "leader") leader = node;
      }
      return leader != 0;
    }));
    return leader;
  }

  // kill -9 of the leader that is at work at that moment, as soon as `node` is seen in `state`; it is
  // started again at once.
  void strike(Moment moment, int node, const std::string& state) {
    const int leader = leader_of(moment == Moment::kInDataGroup ? 1 : 0);
    const auto before = configuration(leader, moment == Moment::kInDataGroup ? 1 : 0);
    const bool seen = eventually(20s, [&] {
      if (moment == Moment::kAsked) return true;
      const auto members = cluster().members(leader);
      const auto member = members.find(node);
      if (moment == Moment::kRecorded) {
        // Between two looks it may have left altogether.
        return member != members.end() &&
               (member->second == state || (state == "leaving" && member->second == "removed"));
      }
      return configuration(leader, moment == Moment::kInDataGroup ? 1 : 0) != before;
    });
    CHECK(seen);
    chaos.fault("leader " + std::to_string(leader) + " killed");
    cluster().kill(leader);
    cluster().start(leader);
  }

  // Asked for again, whatever became of it; a node that was killed may still be starting.
  void ask_again(const std::string& what, int node, int at) {
    Finished again;
    const bool done = eventually(30s, [&] {
      again = cluster().admin(at, {what, std::to_string(node), "--timeout", "20"});
      return again.done() || again.output.find("is a voter already") != std::string::npos;
    });
    INFO(again);
    CHECK(done);
  }

  void check_members(const std::set<int>& members) {
    const bool has = cluster().has_members(members);
    if (!has) report(cluster().states());
    REQUIRE(has);
    REQUIRE(chaos.load->await_writes(50));
  }

  // A voter again becomes nothing, with an empty directory.
  void take_out(int node) {
    ask_again("leave", node, 1);
    cluster().forget(node);
    check_members({1, 2, 3});
    const auto status = cluster().process(node).wait(20s);
    REQUIRE(status.has_value());
    CHECK(*status == ExitStatus{0, 0});
    cluster().wipe(node);
  }

  [[nodiscard]] Cluster& cluster() { return chaos.cluster; }

  Chaos chaos;

 private:
  [[nodiscard]] std::vector<std::set<int>> configuration(int at, int group) {
    std::vector<std::set<int>> sets;
    for (const std::string as : {"voters", "outgoing", "learners"}) {
      sets.push_back(cluster().configured(at, group, as));
    }
    return sets;
  }
};

TEST_CASE("chaos, the leader is killed in the middle of a join, which ends all the same",
          "[chaos][members]") {
  ChangeUnderFire change("true");
  for (const Moment moment : kMoments) {
    change.cluster().join(4, 1);
    change.strike(moment, 4, "joining");
    change.check_members({1, 2, 3, 4});
    change.take_out(4);
  }
  change.chaos.finish();
}

TEST_CASE("chaos, the leader is killed in the middle of a promotion, which can be asked for again",
          "[chaos][members]") {
  ChangeUnderFire change("false");
  for (const Moment moment : kMoments) {
    change.cluster().join(4, 1);
    REQUIRE(eventually(20s, [&] {
      return change.cluster().configured(4, 0, "learners") == std::set{4} &&
             change.cluster().configured(4, 1, "learners") == std::set{4};
    }));
    const Asked asked(change.cluster(), 2, {"SESHAT.PROMOTE", "4", "FORCE"});
    change.strike(moment, 4, "active");
    REQUIRE(change.cluster().caught_up());
    change.ask_again("promote", 4, 3);
    change.check_members({1, 2, 3, 4});
    change.take_out(4);
  }
  change.chaos.finish();
}

TEST_CASE("chaos, the leader is killed in the middle of a leave, which can be asked for again",
          "[chaos][members]") {
  ChangeUnderFire change("true");
  for (const Moment moment : kMoments) {
    change.cluster().join(4, 1);
    change.check_members({1, 2, 3, 4});
    const Asked asked(change.cluster(), 2, {"SESHAT.LEAVE", "4"});
    change.strike(moment, 4, "leaving");
    change.take_out(4);
  }
  change.chaos.finish();
}

TEST_CASE("chaos, a leader that leaves is killed in the middle; it leaves all the same",
          "[chaos][members]") {
  ChangeUnderFire change("true");
  change.cluster().join(4, 1);
  change.check_members({1, 2, 3, 4});
  const int leader = change.leader_of(0);
  const int other = change.cluster().others(leader).front();
  const Asked asked(change.cluster(), other, {"SESHAT.LEAVE", std::to_string(leader)});
  change.strike(Moment::kRecorded, leader, "leaving");
  change.ask_again("leave", leader, other);
  change.cluster().forget(leader);
  change.check_members(as_set(change.cluster().nodes()));
  CHECK(change.cluster().process(leader).wait(20s) == ExitStatus{0, 0});
  change.chaos.finish();
}

// ---- At random -----------------------------------------------------------------------------------------

// Changes of members, one after the other, and faults, one at a time.
class Comings {
 public:
  // The log is cut so often that whoever comes later needs a snapshot.
  explicit Comings(std::uint64_t seed)
      : random_(seed),
        chaos_({.nodes = 3, .spares = 2, .settings = {{"raft.snapshot_interval_entries", "100"}}}) {
  }

  void run(Milliseconds length);

 private:
  [[nodiscard]] std::uint64_t below(std::uint64_t bound) { return random_() % bound; }
  [[nodiscard]] Milliseconds between(Milliseconds low, Milliseconds high) {
    return low + Milliseconds(below(static_cast<std::uint64_t>((high - low).count()) + 1));
  }
  [[nodiscard]] int one_of(const std::vector<int>& nodes) { return nodes[below(nodes.size())]; }
  [[nodiscard]] Cluster& cluster() { return chaos_.cluster; }

  // ---- one change
  void begin_change();
  void begin_join(int node);
  void ask_to_leave();
  // Goes on with it where it got stuck; true: it is done.
  [[nodiscard]] bool change_is_done();
  [[nodiscard]] std::string state_of(int node);
  void finish_change();

  [[nodiscard]] std::uint64_t snapshots();

  // Who joins gives up when nobody lets it in for long, who left stops; anybody else that is not there
  // though nothing struck it has crashed.
  void check_not_crashed(int node);
  void check_has_left(int node);

  // ---- one fault
  void begin_fault();
  void kill(const std::vector<int>& nodes);
  void end_fault();
  void calm();

  std::mt19937_64 random_;
  Chaos chaos_;
  std::optional<int> joining_;
  std::optional<int> leaving_;
  std::unique_ptr<Asked> asked_;
  SteadyClock::time_point asked_at_;
  std::function<void()> fault_end_;
  SteadyClock::time_point fault_until_;
  std::set<int> killed_;
  int changes_ = 0;
};

void Comings::begin_change() {
  const std::vector<int> nodes = cluster().nodes();
  std::vector<int> outside;
  for (const int node : cluster().nodes_and_spares()) {
    if (std::find(nodes.begin(), nodes.end(), node) == nodes.end()) outside.push_back(node);
  }
  const bool joins = nodes.size() == 3 || (nodes.size() < 5 && below(2) == 0);
  if (joins) return begin_join(one_of(outside));
  leaving_ = one_of(nodes);
  chaos_.fault("node " + std::to_string(*leaving_) + " leaves");
  ask_to_leave();
}

// Who left may not have heard of it yet; what it had is gone.
void Comings::begin_join(int node) {
  joining_ = node;
  chaos_.fault("node " + std::to_string(node) + " joins");
  if (!cluster().running(node)) check_has_left(node);
  cluster().kill(std::vector<int>{node});
  cluster().wipe(node);
  cluster().join(node, one_of(cluster().nodes()));
}

void Comings::ask_to_leave() {
  asked_at_ = SteadyClock::now();
  try {
    asked_ = std::make_unique<Asked>(cluster(), one_of(cluster().nodes()),
                                     Arguments{"SESHAT.LEAVE", std::to_string(*leaving_)});
  } catch (const ConnectionError&) {  // that node is down: another one, next time
    asked_.reset();
  }
}

// By the word of who has a leader; empty: nobody can say.
std::string Comings::state_of(int node) {
  for (const int at : cluster().nodes()) {
    if (at == node || !cluster().running(at)) continue;
    const auto raft = cluster().info(at, "raft");
    if (!raft || raft->at("raft_group_0_role") != "leader") continue;
    const auto members = cluster().members(at);
    const auto found = members.find(node);
    if (found != members.end()) return found->second;
  }
  return {};
}

bool Comings::change_is_done() {
  if (joining_) {
    // Nobody let it in for so long that it gave up: it is started again, as an operator would.
    const bool waits = fault_end_ == nullptr && !cluster().running(*joining_);
    if (waits) {
      check_not_crashed(*joining_);
      cluster().join(*joining_, one_of(cluster().others(*joining_)));
    }
    if (state_of(*joining_) != "active") return false;
    joining_.reset();
  } else if (leaving_) {
    if (state_of(*leaving_) != "removed") {
      if (since(asked_at_) > 3s) ask_to_leave();
      return false;
    }
    cluster().forget(*leaving_);
    leaving_.reset();
  }
  ++changes_;
  return true;
}

void Comings::finish_change() {
  if (!joining_ && !leaving_) return;
  const bool done = eventually(60s, [this] { return change_is_done(); });
  if (!done) report(cluster().states());
  REQUIRE(done);
}

// Since they were started.
std::uint64_t Comings::snapshots() {
  std::uint64_t count = 0;
  for (const int node : cluster().nodes()) {
    count += cluster().figure(node, "persistence", "store_snapshots_installed");
  }
  return count;
}

void Comings::check_not_crashed(int node) {
  if (cluster().running(node)) return;
  if (node == leaving_) return check_has_left(node);
  INFO("node " << node << (node == joining_ ? " joins" : " is a member"));
  CHECK(node == joining_);
  CHECK(cluster().process(node).wait(0ms).value_or(ExitStatus{}) == ExitStatus{1, 0});
}

// It has ended, in good order or while a fault had it killed; or it never ran.
void Comings::check_has_left(int node) {
  INFO("node " << node << " has left");
  if (!cluster().was_started(node) || killed_.contains(node)) return;
  CHECK(cluster().process(node).wait(0ms).value_or(ExitStatus{}) == ExitStatus{0, 0});
}

void Comings::begin_fault() {
  const int node = one_of(cluster().nodes());
  check_not_crashed(node);
  const std::string who = "node " + std::to_string(node);
  fault_until_ = SteadyClock::now() + between(100ms, 3s);
  switch (below(5)) {
    case 0:
      chaos_.fault(who + " isolated");
      chaos_.network.isolate(node);
      fault_end_ = [this] { chaos_.network.heal(); };
      return;
    case 1:
      chaos_.fault(who + " and another can't hear each other");
      chaos_.network.cut_pair(node, one_of(cluster().others(node)));
      fault_end_ = [this] { chaos_.network.heal(); };
      return;
    case 2:
      chaos_.fault(who + " stands still");
      cluster().pause(node);
      fault_end_ = [this, node] { cluster().resume(node); };
      return;
    case 3: {
      const std::vector<int> all = cluster().nodes();
      for (const int each : all) check_not_crashed(each);
      chaos_.fault("all killed");
      kill(all);
      fault_until_ = SteadyClock::now() + between(0ms, 300ms);
      return;
    }
    default:
      chaos_.fault(who + " killed");
      kill({node});
  }
}

// Until the fault ends.
void Comings::kill(const std::vector<int>& nodes) {
  cluster().kill(nodes);
  killed_ = as_set(nodes);
  fault_end_ = [this] {
    // One that has left meanwhile may have been called back with an empty directory.
    for (const int node : killed_) {
      if (!cluster().running(node)) cluster().start(node);
    }
    killed_.clear();
  };
}

void Comings::end_fault() {
  if (fault_end_) fault_end_();
  fault_end_ = nullptr;
}

void Comings::calm() {
  end_fault();
  finish_change();
  const std::set<int> members = as_set(cluster().nodes());
  const bool agree = cluster().has_members(members);
  const bool writes = chaos_.load->await_writes(30, 10s);
  if (!agree || !writes) report(cluster().states());
  REQUIRE(agree);
  REQUIRE(writes);
  for (const int node : cluster().nodes()) REQUIRE(cluster().running(node));
  // Who left, in whatever way it was struck meanwhile, has ended by itself.
  for (const int node : cluster().nodes_and_spares()) {
    if (members.contains(node)) continue;
    INFO("node " << node << " has left");
    CHECK(eventually(20s, [&] { return !cluster().running(node); }));
    check_has_left(node);
  }
}

void Comings::run(Milliseconds length) {
  constexpr int kChangesBetweenCalms = 4;
  const auto end = SteadyClock::now() + length;
  int calm_at = kChangesBetweenCalms;
  while (SteadyClock::now() < end) {
    if (fault_end_ && SteadyClock::now() >= fault_until_) end_fault();
    if (!fault_end_ && below(10) == 0) begin_fault();
    if (!joining_ && !leaving_) {
      begin_change();
    } else {
      (void)change_is_done();
    }
    std::this_thread::sleep_for(between(5ms, 50ms));
    if (changes_ < calm_at) continue;
    calm();
    calm_at = changes_ + kChangesBetweenCalms;
  }
  calm();
  report(changes_, " changes of members, ", snapshots(), " snapshots taken in by those ",
         cluster().nodes().size(), " that are members in the end");
  chaos_.finish();
}

TEST_CASE("chaos, members come and go at random between three and five, beside faults of all kinds",
          "[chaos][mix][members]") {
  const Milliseconds length(1000 * variable_or("CHAOS_SECONDS", 15));
  const std::uint64_t seed = variable_or("CHAOS_SEED", std::random_device{}());
  report("CHAOS_SECONDS=", length.count() / 1000, " CHAOS_SEED=", seed);
  Comings comings(seed);
  comings.run(length);
}

}  // namespace
}  // namespace seshat::tests
