// How nodes come and go: whole nodes but for disk and network, in virtual time. Each has a replica
// of the system group and one of the data group, a Membership, and ClusterChanges; what the system
// group records are names of records that the town keeps.
#include "seshat/cluster_changes.hpp"

#include <algorithm>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "catch.hpp"
#include "replica_group.hpp"

namespace {

using namespace seshat;
using namespace seshat::replica_tests;

class Town;

struct Citizen final : ClusterChanges::Site {
  Citizen(Town& its_town, Membership its_membership)
      : town(its_town), membership(std::move(its_membership)) {}

  [[nodiscard]] bool is_connected(NodeId node) const override;
  [[nodiscard]] std::optional<NodeStatus> fresh_status(NodeId node) const override;
  void call(NodeId node, CallRequest request, std::function<void(CallReply)> answer) override;

  Town& town;
  Membership membership;
  std::unique_ptr<ClusterChanges> changes;
  Recorder proposal;
  bool proposing = false;
  bool has_voted = false;
  std::size_t read = 0;               // of the records that were applied
  std::uint32_t record_version = 2;   // that its program knows
  bool reads_nothing = false;         // of what was recorded
  bool says_nothing = false;          // of how far it is
  std::optional<GroupId> restoring;   // says so, of this group
  std::optional<Index> says_applied;  // whatever is true
};

class Town {
 public:
  explicit Town(std::uint64_t founders, std::uint64_t size = 0,
                ClusterChanges::Options options = {true, kAnswerTimeoutMs}, const Tweak& tweak = {})
      : founders_(founders),
        system(founders, tweak, size, kSystemGroup),
        data(founders, tweak, size, kFirstDataGroup) {
    for (std::uint64_t id = 1; id <= system.size(); ++id) {
      Citizen& citizen =
          *citizens_.emplace_back(std::make_unique<Citizen>(*this, membership_of(id, 100 + id)));
      citizen.changes = std::make_unique<ClusterChanges>(
          options, citizen.membership,
          std::map<GroupId, Replica*>{{kSystemGroup, &system.replica(id)},
                                      {kFirstDataGroup, &data.replica(id)}},
          system.clock, citizen);
    }
  }

  // Founded, and recorded with all there is to record.
  static std::unique_ptr<Town> founded(std::uint64_t founders, std::uint64_t size = 0,
                                       ClusterChanges::Options options = {true, kAnswerTimeoutMs},
                                       const Tweak& tweak = {}) {
    auto town = std::make_unique<Town>(founders, size, options, tweak);
    town->run_until([&] { return town->is_settled(); });
    return town;
  }

  Citizen& at(std::uint64_t id) { return *citizens_[id - 1]; }
  ClusterChanges& changes(std::uint64_t id) { return *at(id).changes; }
  // 0: there is none.
  std::uint64_t leader() { return system.leader(); }
  Citizen& leading() { return at(leader()); }
  // One that does not lead the system group.
  std::uint64_t follower() { return leader() == 1 ? 2 : 1; }
  [[nodiscard]] bool reaches(NodeId from, NodeId to) const {
    return !system.cut_off.contains(from) && !system.cut_off.contains(to);
  }
  void cut_off(std::set<NodeId> nodes) { system.cut_off = data.cut_off = std::move(nodes); }
  void lead(Group& group, std::uint64_t id) {
    run_until([&] {
      const std::uint64_t now = group.leader();
      if (now != 0 && now != id) group.replica(now).transfer_leadership(NodeId{id});
      return now == id;
    });
  }
  // All groups are led by one node.
  void lead_all(std::uint64_t id) {
    lead(system, id);
    lead(data, id);
  }

  // What a client asks of a node, and the peers of one another.
  struct Answered {
    std::vector<CallReply> replies;
    [[nodiscard]] CallReply only() const {
      REQUIRE(replies.size() == 1);
      return replies[0];
    }
  };
  Answered& ask(std::uint64_t of, AdminAction action, std::uint64_t node, bool force = false) {
    return heard([&](ClusterChanges::Answer answer) {
      changes(of).administer({action, NodeId{node}, force}, std::move(answer));
    });
  }
  Answered& ask_to_join(std::uint64_t of, std::uint64_t node, std::uint64_t incarnation = 0) {
    CallRequest request;
    request.from = NodeId{node};
    request.join = JoinRequest{hello_of(node)};
    if (incarnation != 0) request.join->hello.incarnation = incarnation;
    return heard([&](ClusterChanges::Answer answer) { handle(of, request, std::move(answer)); });
  }
  void handle(std::uint64_t of, const CallRequest& request, ClusterChanges::Answer answer) {
    changes(of).handle(request, std::move(answer));
  }
  Answered& heard(const std::function<void(ClusterChanges::Answer)>& asks) {
    Answered& answered = *answers_.emplace_back(std::make_unique<Answered>());
    asks([&answered](const CallReply& reply) { answered.replies.push_back(reply); });
    return answered;
  }
  // Asked of the leader, and waited for.
  CallReply done(AdminAction action, std::uint64_t node, bool force = false) {
    const Answered& answered = ask(leader(), action, node, force);
    run_until([&] { return !answered.replies.empty(); });
    return answered.only();
  }
  // A node is let in, and knows its peers.
  CallReply join(std::uint64_t node) {
    const Answered& answered = ask_to_join(leader(), node);
    run_until([&] { return !answered.replies.empty(); });
    const CallReply reply = answered.only();
    if (reply.membership) at(node).membership.set_joined(*reply.membership);
    return reply;
  }
  // A founder that knows no configurations in the log, and does not lead.
  void be_of_version_before(std::uint64_t node) {
    at(node).record_version = 1;
    cut_off({NodeId{node}});
    run_until([&] { return leader() != 0 && data.leader() != 0; });
    cut_off({});
    run_for(1'000);
  }
  // With an empty data directory, under the same id.
  void wipe(std::uint64_t node) {
    at(node).membership = membership_of(node, at(node).membership.self().incarnation + 1'000);
  }

  void tick() {
    for (std::uint64_t id = 1; id <= system.size(); ++id) handshake(id);
    system.tick();
    data.tick();
    for (std::uint64_t id = 1; id <= system.size(); ++id) {
      read_records(id);
      changes(id).tick();
      watch(id);
      propose_record(id);
    }
    for (auto& call : std::exchange(calls_, {})) call();
    for (Group* group : {&system, &data}) group->settle();
  }
  void run_for(std::uint64_t ms) {
    for (std::uint64_t passed = 0; passed < ms; passed += kTickMs) tick();
  }
  void run_until(const std::function<bool()>& condition) {
    for (int ticks = 0; ticks < 2'400; ++ticks) {
      if (condition()) return;
      tick();
    }
    FAIL("it did not come to that within a minute");
  }
  // Everybody who takes part knows the record, and every group follows it.
  [[nodiscard]] bool is_settled() {
    if (leader() == 0 || data.leader() == 0 || !leading().membership.record()) return false;
    const Membership::Roles roles = leading().membership.roles();
    const raft::Configuration wanted{roles.voters, {}, roles.learners};
    const auto follows = [&](Group& group) {
      const raft::Raft& raft = group.raft(group.leader());
      return raft.configuration() == wanted && raft.configuration_index() != Index{} &&
             raft.configuration_index() <= raft.commit_index();
    };
    return follows(system) && follows(data) && !leading().proposing;
  }
  [[nodiscard]] std::optional<MemberState> state(std::uint64_t node) {
    return leading().membership.state(NodeId{node});
  }
  [[nodiscard]] std::vector<NodeId> voters() { return leading().membership.roles().voters; }

  void add_call(std::function<void()> call) { calls_.push_back(std::move(call)); }
  [[nodiscard]] Hello hello_of(std::uint64_t node) {
    Hello hello = at(node).membership.hello(system.raft(node).log().last_index() == Index{},
                                            system.raft(node).voted_for() != NodeId{});
    hello.max_record_version = at(node).record_version;
    return hello;
  }

  static constexpr std::uint64_t kAnswerTimeoutMs = 30'000;

 private:
  Membership membership_of(std::uint64_t id, std::uint64_t incarnation) {
    Membership::Self self;
    self.id = NodeId{id};
    self.incarnation = incarnation;
    self.addr = "node-" + std::to_string(id) + ":7379";
    self.client_addr = "node-" + std::to_string(id) + ":6379";
    self.new_at_start = true;
    std::map<NodeId, std::string> addresses;
    for (std::uint64_t founder = 1; founder <= founders_ && id <= founders_; ++founder) {
      addresses[NodeId{founder}] = "node-" + std::to_string(founder) + ":7379";
    }
    return {std::move(self), std::move(addresses)};
  }
  void handshake(std::uint64_t id) {
    Membership& membership = at(id).membership;
    for (const auto& [peer, addr] : membership.members()) {
      if (peer.value == id || !reaches(NodeId{id}, peer)) continue;
      if (const Hello hello = hello_of(peer.value); !membership.judge(hello)) {
        membership.note_peer(hello);
      }
    }
    for (Group* group : {&system, &data}) {
      at(id).has_voted = at(id).has_voted || group->raft(id).voted_for() != NodeId{};
      group->replica(id).set_may_vote(
          membership.may_vote(group == &system ? kSystemGroup : kFirstDataGroup, at(id).has_voted));
    }
  }
  void read_records(std::uint64_t id) {
    if (at(id).reads_nothing) return;
    const std::vector<std::string>& applied = system.at(id).applied;
    while (at(id).read < applied.size()) {
      at(id).membership.set_record(records_[std::stoul(applied[at(id).read++])]);
    }
  }
  // As Node::propose_system_records.
  void propose_record(std::uint64_t id) {
    Citizen& citizen = at(id);
    const raft::Raft& raft = system.raft(id);
    if (!citizen.proposal.heard.empty()) citizen.proposing = false;
    if (!raft.is_leader() || citizen.proposing || citizen.reads_nothing ||
        raft.last_applied() != raft.log().last_index()) {
      return;
    }
    auto next = citizen.membership.proposal("c1", system.clock.now);
    if (!next) next = citizen.changes->next_record(system.clock.now);
    if (!next) return;
    records_.push_back(*next);
    citizen.proposal = {};
    citizen.proposing = true;
    system.replica(id).propose(std::to_string(records_.size() - 1), citizen.proposal);
  }
  // What must be true after every step.
  void watch(std::uint64_t id) {
    const raft::Raft& of_data = data.raft(id);
    const raft::Raft& of_system = system.raft(id);
    // A leader of the data group gives it members that the system group has committed.
    if (of_data.is_leader() && of_data.configuration_index() > data_configuration_) {
      data_configuration_ = of_data.configuration_index();
      const bool founders = data_founders_.empty();
      if (founders) data_founders_ = of_data.configuration().voters;
      const bool follows = of_data.configuration().voters == of_system.configuration().voters &&
                           of_data.configuration().learners == of_system.configuration().learners &&
                           of_system.configuration_index() <= of_system.commit_index() &&
                           !of_system.configuration().is_joint();
      const bool own_step = !of_data.configuration().is_joint();  // C_new after C_old,new
      CHECK((founders || follows || own_step));
    }
    if (of_system.is_leader() && at(id).membership.record()) {
      CHECK_FALSE(at(id).membership.roles().voters.empty());
    }
  }

  std::uint64_t founders_;

 public:
  Group system;
  Group data;

 private:
  std::vector<std::unique_ptr<Citizen>> citizens_;
  std::vector<ClusterMembership> records_;
  std::vector<std::unique_ptr<Answered>> answers_;
  std::vector<std::function<void()>> calls_;
  Index data_configuration_;
  std::vector<NodeId> data_founders_;
};

bool Citizen::is_connected(NodeId node) const {
  return node.value <= town.system.size() && town.reaches(membership.self().id, node) &&
         membership.members().contains(node);
}

std::optional<NodeStatus> Citizen::fresh_status(NodeId node) const {
  const Citizen& other = town.at(node.value);
  if (!is_connected(node) || other.says_nothing) return std::nullopt;
  NodeStatus status;
  for (Group* group : {&town.system, &town.data}) {
    GroupStatus& of = status.groups.emplace_back();
    of.group = group == &town.system ? kSystemGroup : kFirstDataGroup;
    of.applied_index = other.says_applied.value_or(group->raft(node.value).last_applied());
    of.restoring = other.restoring == of.group;
  }
  return status;
}

void Citizen::call(NodeId node, CallRequest request, std::function<void(CallReply)> answer) {
  town.add_call([this, node, request = std::move(request), answer = std::move(answer)] {
    if (is_connected(node)) return town.handle(node.value, request, answer);
    CallReply reply;
    reply.status = CallStatus::kNotReady;
    reply.reason = "no answer";
    answer(reply);
  });
}

std::vector<NodeId> ids(std::initializer_list<std::uint64_t> numbers) {
  std::vector<NodeId> ids;
  for (const std::uint64_t number : numbers) ids.push_back(NodeId{number});
  return ids;
}

}  // namespace

// ---- The founding members -----------------------------------------------------------------------

TEST_CASE("the founding members are recorded in the log of every group, once", "[changes]") {
  const auto town = Town::founded(3);
  town->run_for(2'000);
  town->cut_off({NodeId{town->leader()}});
  town->run_for(3'000);
  town->cut_off({});
  town->run_for(3'000);
  const raft::Configuration founders{ids({1, 2, 3}), {}, {}};
  for (Group* group : {&town->system, &town->data}) {
    for (std::uint64_t id = 1; id <= 3; ++id) {
      CHECK(group->at(id).configurations == std::vector<raft::Configuration>{founders});
    }
  }
}

TEST_CASE("no change before every node knows how, and then it goes on by itself", "[changes]") {
  Town town(3, 4);
  town.be_of_version_before(3);
  town.run_for(5'000);
  CHECK(town.leading().membership.peer(NodeId{3}));
  CHECK(town.system.raft(town.leader()).configuration_index() == Index{});
  const CallReply refused = town.join(4);
  CHECK(refused.status == CallStatus::kNotReady);
  CHECK(refused.reason ==
        "node 3 runs a version of seshat that knows no changes of members: update it first");
  town.at(3).record_version = 2;
  town.run_until([&] { return town.is_settled(); });
  CHECK(town.join(4).status == CallStatus::kAccepted);
}

// ---- Join ---------------------------------------------------------------------------------------

TEST_CASE("a node that joins learns first, and votes when it has caught up", "[changes]") {
  const auto town = Town::founded(3, 4);
  town->at(4).says_nothing = true;
  const CallReply welcome = town->join(4);
  REQUIRE(welcome.status == CallStatus::kAccepted);
  REQUIRE(welcome.membership);
  CHECK(welcome.membership->members.at(NodeId{4}).state == MemberState::kJoining);
  town->run_for(10'000);
  CHECK(town->state(4) == MemberState::kJoining);
  CHECK(town->data.raft(town->data.leader()).configuration().learners == ids({4}));
  town->at(4).says_nothing = false;
  town->run_until([&] { return town->state(4) == MemberState::kActive && town->is_settled(); });
  CHECK(town->voters() == ids({1, 2, 3, 4}));
  CHECK(town->data.raft(town->data.leader()).configuration().voters == ids({1, 2, 3, 4}));
}

TEST_CASE("a learner that lags, or restores a snapshot, has not caught up", "[changes]") {
  const auto town = Town::founded(3, 4);
  town->at(4).says_applied = Index{1};
  town->run_for(3'000);  // what had committed two seconds ago is what counts
  REQUIRE(town->join(4).status == CallStatus::kAccepted);
  town->run_for(10'000);
  CHECK(town->state(4) == MemberState::kJoining);
  town->at(4).says_applied.reset();
  town->at(4).restoring = kFirstDataGroup;
  town->run_for(10'000);
  CHECK(town->state(4) == MemberState::kJoining);
  town->at(4).restoring.reset();
  town->run_until([&] { return town->state(4) == MemberState::kActive; });
}

TEST_CASE("a cluster grows from one to three and shrinks again, and serves", "[changes]") {
  const auto town = Town::founded(1, 3);
  for (const std::uint64_t node : {2, 3}) {
    REQUIRE(town->join(node).status == CallStatus::kAccepted);
    town->run_until(
        [&] { return town->state(node) == MemberState::kActive && town->is_settled(); });
  }
  CHECK(town->voters() == ids({1, 2, 3}));
  Recorder write;
  town->data.replica(town->data.leader()).propose("x", write);
  town->run_for(500);
  for (std::uint64_t id = 1; id <= 3; ++id) {
    CHECK(town->data.at(id).applied == std::vector<std::string>{"x"});
  }
  for (const std::uint64_t node : {1, 2}) {  // the first leader among them
    CHECK(town->done(AdminAction::kLeave, node).status == CallStatus::kAccepted);
    town->run_until([&] { return town->leader() != 0 && town->is_settled(); });
  }
  CHECK(town->voters() == ids({3}));
  CHECK(town->leader() == 3);
}

TEST_CASE("who asks the wrong node to be let in is told whom to ask", "[changes]") {
  const auto town = Town::founded(3, 4);
  const Town::Answered& answered = town->ask_to_join(town->follower(), 4);
  const CallReply reply = answered.only();
  CHECK(reply.status == CallStatus::kNotLeader);
  const std::string leader = std::to_string(town->leader());
  CHECK(reply.reason == "node " + leader + " leads");
  CHECK(reply.leader_addr == "node-" + leader + ":7379");
  CHECK(reply.client_addr == "node-" + leader + ":6379");
}

TEST_CASE("without a leader nobody is let in, and that is not for ever", "[changes]") {
  Town town(3, 4);
  const CallReply reply = town.ask_to_join(1, 4).only();
  CHECK(reply.status == CallStatus::kNotReady);
  CHECK(reply.reason == "the cluster has no leader at present");
}

TEST_CASE("who asks again is welcome again, at once", "[changes]") {
  const auto town = Town::founded(3, 4);
  REQUIRE(town->join(4).status == CallStatus::kAccepted);
  const CallReply again = town->ask_to_join(town->leader(), 4).only();
  CHECK(again.status == CallStatus::kAccepted);
  CHECK(again.membership);
}

TEST_CASE("of two that ask under one id at the same time, one is let in", "[changes]") {
  const auto town = Town::founded(3, 4);
  const Town::Answered& one = town->ask_to_join(town->leader(), 4);
  const Town::Answered& other = town->ask_to_join(town->leader(), 4, 777);
  town->run_until([&] { return !one.replies.empty() && !other.replies.empty(); });
  const bool first = one.only().status == CallStatus::kAccepted;
  const Town::Answered& refused = first ? other : one;
  CHECK((first ? one : other).only().status == CallStatus::kAccepted);
  CHECK(refused.only().status == CallStatus::kDuplicateId);
  CHECK_FALSE(refused.only().membership);
}

TEST_CASE("a wiped node is let in again after it was removed, and learns first (class 11)",
          "[changes]") {
  const auto town = Town::founded(3);
  const std::uint64_t node = town->follower();
  town->cut_off({NodeId{node}});
  town->wipe(node);
  const CallReply early = town->ask_to_join(town->leader(), node).only();
  CHECK(early.status == CallStatus::kDuplicateId);
  CHECK_THAT(early.reason, ContainsSubstring("remove that one first (seshat leave "));
  REQUIRE(town->done(AdminAction::kLeave, node).status == CallStatus::kAccepted);
  const CallReply welcome = town->join(node);
  REQUIRE(welcome.status == CallStatus::kAccepted);
  CHECK(welcome.membership->members.at(NodeId{node}).state == MemberState::kJoining);
}

// ---- Leave --------------------------------------------------------------------------------------

TEST_CASE("who leaves goes out of every group, and is removed then", "[changes]") {
  const auto town = Town::founded(3);
  const std::uint64_t node = town->follower();
  CHECK(town->done(AdminAction::kLeave, node).status == CallStatus::kAccepted);
  CHECK(town->state(node) == MemberState::kRemoved);
  for (Group* group : {&town->system, &town->data}) {
    CHECK_FALSE(group->raft(group->leader()).configuration().has(NodeId{node}));
  }
  const CallReply again = town->done(AdminAction::kLeave, node);
  CHECK(again.status == CallStatus::kAccepted);
  CHECK(again.reason == "it was removed already");
}

TEST_CASE("a leader that leaves hands over what it leads first, and goes", "[changes]") {
  for (const bool leads_data : {true, false}) {
    const auto town = Town::founded(3);
    const std::uint64_t node = town->leader();
    if (leads_data) town->lead_all(node);
    const Town::Answered& answered = town->ask(town->leader(), AdminAction::kLeave, node);
    town->run_until([&] {
      return town->leader() != 0 && town->leader() != node &&
             town->state(node) == MemberState::kRemoved;
    });
    CHECK(town->data.leader() != node);
    CHECK(town->is_settled());
    // It does not hear from its group how that ends. Its peers turn it away, and say why.
    CHECK(answered.replies.empty());
    town->changes(node).removed();
    CHECK(answered.only().status == CallStatus::kAccepted);
    CHECK(answered.only().reason.empty());
  }
}

TEST_CASE("a leader of the data group alone hands it over when it leaves", "[changes]") {
  const auto town = Town::founded(3);
  town->lead_all(1);
  town->data.replica(1).transfer_leadership(NodeId{2});
  town->run_until([&] { return town->data.leader() == 2 && town->leader() == 1; });
  CHECK(town->done(AdminAction::kLeave, 2).status == CallStatus::kAccepted);
  CHECK(town->state(2) == MemberState::kRemoved);
  CHECK(town->data.leader() != 2);
}

TEST_CASE("a dead node is removed while the others serve", "[changes]") {
  const auto town = Town::founded(3);
  const std::uint64_t node = town->follower();
  town->cut_off({NodeId{node}});
  CHECK(town->done(AdminAction::kLeave, node).status == CallStatus::kAccepted);
  CHECK(town->state(node) == MemberState::kRemoved);
}

TEST_CASE("a dead node of the version before is removed as well", "[changes]") {
  Town town(3);
  town.be_of_version_before(3);
  town.cut_off({NodeId{3}});
  town.run_for(1'000);
  CHECK(town.done(AdminAction::kLeave, 3).status == CallStatus::kAccepted);
  CHECK(town.state(3) == MemberState::kRemoved);
}

TEST_CASE("what would end the cluster is refused, in words that say what to do", "[changes]") {
  const auto alone = Town::founded(1);
  for (const bool force : {false, true}) {
    const CallReply last = alone->ask(1, AdminAction::kLeave, 1, force).only();
    CHECK(last.status == CallStatus::kRefused);
    CHECK(last.reason == "node 1 is the last voter: without it there would be no cluster");
  }
  const CallReply stranger = alone->ask(1, AdminAction::kLeave, 9).only();
  CHECK(stranger.status == CallStatus::kRefused);
  CHECK(stranger.reason == "node 9 is not a member");
}

TEST_CASE("a change that would leave no live majority asks for FORCE", "[changes]") {
  const auto town = Town::founded(5);
  town->lead_all(1);
  town->cut_off({NodeId{4}, NodeId{5}});
  REQUIRE(town->done(AdminAction::kLeave, 4).status == CallStatus::kAccepted);
  town->run_until([&] { return town->is_settled(); });
  const CallReply enough = town->done(AdminAction::kLeave, 3, true);
  REQUIRE(enough.status == CallStatus::kAccepted);  // 1, 2 and the dead 5 are left
  const CallReply refused = town->ask(town->leader(), AdminAction::kLeave, 2).only();
  CHECK(refused.status == CallStatus::kRefused);
  CHECK(refused.reason ==
        "of the 2 voters after it only 1 can be reached, too few to go on (2 are needed): bring "
        "nodes back first, or say FORCE");
}

TEST_CASE("leaves that come together leave a voter", "[changes]") {
  const auto town = Town::founded(3);
  const std::uint64_t leader = town->leader();
  std::vector<const Town::Answered*> answers;
  for (std::uint64_t id = 1; id <= 3; ++id) {
    answers.push_back(&town->ask(leader, AdminAction::kLeave, id));
  }
  REQUIRE(answers[2]->replies.size() == 1);
  CHECK_THAT(answers[2]->only().reason, ContainsSubstring("is the last voter"));
  town->run_until([&] { return town->leader() != 0 && town->voters() == ids({3}); });
  town->run_until([&] { return town->is_settled(); });
  CHECK(town->leader() == 3);
}

TEST_CASE("a leader that does not know yet what was recorded does not remove the last voter",
          "[changes]") {
  const auto town = Town::founded(2);
  town->lead_all(1);
  town->ask(1, AdminAction::kLeave, 2);
  town->tick();  // recorded
  town->at(1).reads_nothing = true;
  const Term term = town->system.raft(1).current_term();
  town->system.replica(1).transfer_leadership(NodeId{2});
  // 2 leaves, and hands over at once.
  town->run_until(
      [&] { return town->leader() == 1 && town->system.raft(1).current_term() > term + 1; });
  town->ask(1, AdminAction::kLeave, 1);
  town->at(1).reads_nothing = false;
  town->run_until([&] { return town->state(2) == MemberState::kRemoved; });
  CHECK(town->voters() == ids({1}));
}

TEST_CASE("two leaders that leave at once do not hand over to each other", "[changes]") {
  for (const auto& pair : {std::pair{2, 1}, std::pair{3, 1}, std::pair{3, 2}}) {
    const std::uint64_t first = pair.first;
    const std::uint64_t second = pair.second;
    const auto town = Town::founded(5);
    town->lead_all(first);
    town->ask(first, AdminAction::kLeave, second);
    town->ask(first, AdminAction::kLeave, first);
    town->run_until([&] {
      return town->leader() != 0 && town->state(first) == MemberState::kRemoved &&
             town->state(second) == MemberState::kRemoved;
    });
    CHECK(town->voters().size() == 3);
  }
}

// What is cut off the log on disk is not in memory either: who lacks it needs a snapshot.
void keeps_no_tail(raft::Config& config) { config.applied_tail_size_bytes = 0; }

TEST_CASE("who leads one group and lags in the other leaves the members as they are", "[changes]") {
  const auto town = Town::founded(4, 4, {true, Town::kAnswerTimeoutMs}, keeps_no_tail);
  town->lead_all(1);
  town->system.cut_off = {NodeId{2}};
  REQUIRE(town->done(AdminAction::kLeave, 4).status == CallStatus::kAccepted);
  town->run_until([&] { return town->state(4) == MemberState::kRemoved; });
  // It hears the leader again, but what it lacks was cut off, and no snapshot comes.
  for (const std::uint64_t id : {1, 3}) {
    town->system.at(id).cut_log(town->system.raft(id).last_applied());
  }
  town->system.cut_off = {};
  town->lead(town->data, 2);
  town->run_for(1'000);
  REQUIRE(town->system.raft(2).leader() == NodeId{1});
  CHECK(town->data.raft(2).is_leader());
  CHECK(town->data.raft(2).configuration().voters == ids({1, 2, 3}));
}

TEST_CASE("a node is not removed as long as its leader lags in a group", "[changes]") {
  const auto town = Town::founded(4, 5, {true, Town::kAnswerTimeoutMs}, keeps_no_tail);
  town->lead(town->system, 1);
  town->lead(town->data, 2);
  town->data.cut_off = {NodeId{1}};
  REQUIRE(town->join(5).status == CallStatus::kAccepted);
  town->run_for(500);
  REQUIRE(town->data.raft(2).configuration().has(NodeId{5}));
  REQUIRE_FALSE(town->data.raft(1).configuration().has(NodeId{5}));
  for (const std::uint64_t id : {2, 3, 4}) {
    town->data.at(id).cut_log(town->data.raft(id).last_applied());
  }
  town->data.cut_off = {NodeId{5}};  // and nobody takes it out there
  town->ask(1, AdminAction::kLeave, 5);
  for (std::uint64_t id = 2; id <= 4; ++id) town->data.at(id).disk_stalls = true;
  town->run_for(3'000);
  REQUIRE(town->leader() == 1);
  CHECK(town->state(5) == MemberState::kLeaving);
  for (std::uint64_t id = 2; id <= 4; ++id) town->data.at(id).disk_stalls = false;
}

// ---- Promote ------------------------------------------------------------------------------------

TEST_CASE("without auto_promote a learner waits to be promoted", "[changes]") {
  const auto town = Town::founded(3, 4, {false, Town::kAnswerTimeoutMs});
  REQUIRE(town->join(4).status == CallStatus::kAccepted);
  town->run_for(10'000);
  CHECK(town->state(4) == MemberState::kJoining);
  CHECK(town->done(AdminAction::kPromote, 4).status == CallStatus::kAccepted);
  CHECK(town->is_settled());
  CHECK(town->voters() == ids({1, 2, 3, 4}));
}

TEST_CASE("who may not be promoted, and why", "[changes]") {
  const auto town = Town::founded(3, 4, {false, Town::kAnswerTimeoutMs});
  const auto why = [&](std::uint64_t node) {
    const CallReply reply = town->ask(town->leader(), AdminAction::kPromote, node).only();
    CHECK(reply.status == CallStatus::kRefused);
    return reply.reason;
  };
  CHECK(why(town->follower()) ==
        "node " + std::to_string(town->follower()) + " is a voter already");
  CHECK(why(4) == "node 4 is no learner: it has to join first");
  town->at(4).says_nothing = true;
  REQUIRE(town->join(4).status == CallStatus::kAccepted);
  town->run_for(1'000);
  CHECK(why(4) == "node 4 has not caught up yet: wait (seshat status shows its lag), or say FORCE");
  // FORCE does not wait for that, but for this: by what it has read so far it might take itself for
  // a voter of the past.
  const Town::Answered& forced = town->ask(town->leader(), AdminAction::kPromote, 4, true);
  town->run_for(3'000);
  CHECK(town->state(4) == MemberState::kJoining);
  town->at(4).says_nothing = false;
  town->run_for(3'000);
  CHECK(forced.only().status == CallStatus::kAccepted);
  CHECK(town->voters() == ids({1, 2, 3, 4}));
}

// ---- Transfer -----------------------------------------------------------------------------------

TEST_CASE("leadership of all groups goes where it is asked to, whoever leads them and is asked",
          "[changes]") {
  const auto town = Town::founded(3);
  for (std::uint64_t asked = 1; asked <= 3; ++asked) {
    for (std::uint64_t to = 1; to <= 3; ++to) {
      const std::uint64_t next = asked % 3 + 1;
      town->lead(town->system, next);
      town->lead(town->data, next % 3 + 1);
      const Town::Answered& answered = town->ask(asked, AdminAction::kTransferLeader, to);
      town->run_until([&] { return !answered.replies.empty(); });
      CHECK(answered.only().status == CallStatus::kAccepted);
      CHECK(answered.only().reason.empty());
      CHECK(town->system.raft(to).is_leader());
      CHECK(town->data.raft(to).is_leader());
      town->run_for(500);
    }
  }
}

TEST_CASE("a group without a leader is handed over once it has one", "[changes]") {
  std::set<std::uint64_t> elections;  // more than one: another one led first, and handed over
  for (const std::uint64_t to : {1, 3, 4, 5}) {
    const auto town = Town::founded(5);
    town->lead(town->system, 1);
    town->lead(town->data, 2);
    town->data.cut_off = {NodeId{2}, NodeId{4}, NodeId{5}};
    town->run_until([&] { return town->data.raft(1).leader() == NodeId{}; });
    const Town::Answered& answered = town->ask(1, AdminAction::kTransferLeader, to);
    const std::uint64_t term = town->data.raft(1).current_term().value;
    town->data.cut_off = {NodeId{2}};
    town->run_until([&] { return !answered.replies.empty(); });
    CHECK(answered.only().status == CallStatus::kAccepted);
    CHECK(answered.only().reason.empty());
    CHECK(town->system.raft(to).is_leader());
    CHECK(town->data.raft(to).is_leader());
    elections.insert(town->data.raft(to).current_term().value - term);
  }
  CHECK(*elections.rbegin() > 1);
}

TEST_CASE("a transfer that a group has no leader for is refused in time", "[changes]") {
  const auto town = Town::founded(3, 0, {true, 3'000});
  town->lead_all(1);
  town->data.cut_off = {NodeId{2}, NodeId{3}};
  town->run_until([&] { return town->data.raft(1).leader() == NodeId{}; });
  const Town::Answered& answered = town->ask(1, AdminAction::kTransferLeader, 2);
  town->run_for(2'900);
  CHECK(answered.replies.empty());
  town->run_for(200);
  CHECK(answered.only().status == CallStatus::kRefused);
  CHECK_THAT(answered.only().reason, Catch::Matchers::StartsWith("it did not take over in time"));
}

TEST_CASE("leadership goes to nobody who can't lead", "[changes]") {
  const auto town = Town::founded(3, 4, {false, Town::kAnswerTimeoutMs});
  town->lead_all(1);
  REQUIRE(town->join(4).status == CallStatus::kAccepted);
  town->run_for(500);
  const CallReply learner = town->ask(1, AdminAction::kTransferLeader, 4).only();
  CHECK(learner.status == CallStatus::kRefused);
  CHECK(learner.reason == "node 4 is no voter: it can't lead");
  town->cut_off({NodeId{3}});
  const CallReply gone = town->ask(1, AdminAction::kTransferLeader, 3).only();
  CHECK(gone.status == CallStatus::kRefused);
  CHECK(gone.reason == "node 3 can't be reached from node 1");
  town->run_for(500);
  CHECK(town->leader() == 1);
}

// ---- Whoever is asked ---------------------------------------------------------------------------

TEST_CASE("any node takes a change to the leader", "[changes]") {
  const auto town = Town::founded(3);
  town->lead_all(1);
  const Town::Answered& answered = town->ask(2, AdminAction::kLeave, 3);
  CHECK(answered.replies.empty());
  town->run_until([&] { return !answered.replies.empty(); });
  CHECK(answered.only().status == CallStatus::kAccepted);
  CHECK(town->state(3) == MemberState::kRemoved);
}

TEST_CASE("a peer's question is answered by who was asked, and by nobody else", "[changes]") {
  const auto town = Town::founded(3);
  CallRequest request;
  request.cluster_id = "c1";
  request.admin = AdminRequest{AdminAction::kLeave, NodeId{3}, false};
  request.from = NodeId{9};
  const auto answer = [&](std::uint64_t of) {
    return town->heard([&](ClusterChanges::Answer heard) { town->handle(of, request, heard); })
        .only();
  };
  CHECK(answer(town->leader()).reason == "the request did not come from a member");
  request.from = NodeId{town->follower()};
  CHECK(answer(town->follower()).status == CallStatus::kNotLeader);
  request.cluster_id = "c2";
  CHECK(answer(town->leader()).status == CallStatus::kWrongCluster);
  request.cluster_id = "c1";
  request.admin->action = AdminAction::kSnapshot;
  CHECK(answer(town->leader()).reason == "this can't be asked of another node");
  request.admin.reset();
  CHECK(answer(town->leader()).reason == "nothing was asked");
  town->run_for(500);
  CHECK(town->voters().size() == 3);
}

TEST_CASE("without a leader a change is refused for now", "[changes]") {
  Town town(3);
  const CallReply reply = town.ask(1, AdminAction::kLeave, 2).only();
  CHECK(reply.status == CallStatus::kNotReady);
  CHECK(reply.reason == "the cluster has no leader at present");
}

// ---- Leaders come and go ------------------------------------------------------------------------

TEST_CASE("leadership lost before a change was recorded: nothing is done, and that is said",
          "[changes]") {
  const auto town = Town::founded(3);
  const std::uint64_t leader = town->leader();
  const std::uint64_t leaves = leader % 3 + 1;
  town->cut_off({NodeId{leader}});
  const Town::Answered& answered = town->ask(leader, AdminAction::kLeave, leaves, true);
  town->run_until([&] { return !answered.replies.empty(); });
  CHECK(answered.only().status == CallStatus::kNotReady);
  CHECK(answered.only().reason == "leadership changed meanwhile: ask again");
  town->run_until([&] { return town->leader() != 0; });
  town->cut_off({});
  town->lead_all(leader);  // it leads again, and was not asked again
  town->run_for(3'000);
  CHECK(town->state(leaves) == MemberState::kActive);
}

TEST_CASE("a change that was recorded is finished by whoever leads next", "[changes]") {
  // The leader is lost this many ticks after it was asked: before, during and after each step.
  for (int ticks = 1; ticks <= 12; ++ticks) {
    const auto town = Town::founded(5, 6);
    const std::uint64_t leader = town->leader();
    const std::uint64_t leaves = leader % 5 + 1;
    town->ask(leader, AdminAction::kLeave, leaves);
    for (int i = 0; i < ticks; ++i) town->tick();
    const bool recorded = town->at(leader).membership.state(NodeId{leaves}) != MemberState::kActive;
    town->cut_off({NodeId{leader}});
    town->run_until([&] { return town->leader() != 0 && town->data.leader() != 0; });
    town->cut_off({});
    if (!recorded) continue;
    town->run_until(
        [&] { return town->leader() != 0 && town->state(leaves) == MemberState::kRemoved; });
    CHECK(town->voters().size() == 4);
  }
}

TEST_CASE("a learner is promoted by whoever leads next", "[changes]") {
  const auto town = Town::founded(3, 4);
  town->at(4).says_nothing = true;
  REQUIRE(town->join(4).status == CallStatus::kAccepted);
  const std::uint64_t leader = town->leader();
  town->cut_off({NodeId{leader}});
  town->run_until([&] { return town->leader() != 0; });
  town->at(4).says_nothing = false;
  town->run_until([&] { return town->leader() != 0 && town->state(4) == MemberState::kActive; });
}

// ---- Time ---------------------------------------------------------------------------------------

TEST_CASE("who was told to ask again is asked again: nothing happens of itself later",
          "[changes]") {
  const auto town = Town::founded(3, 4, {false, 200});
  REQUIRE(town->join(4).status == CallStatus::kAccepted);
  town->run_for(500);
  town->at(4).says_nothing = true;
  const Town::Answered& answered = town->ask(town->leader(), AdminAction::kPromote, 4, true);
  const Town::Answered& other = town->ask(town->leader(), AdminAction::kLeave, 4, true);
  CHECK(other.only().status == CallStatus::kNotReady);
  CHECK(other.only().reason ==
        "it was asked to become a voter, and that is not recorded yet: ask again");
  town->run_for(300);
  CHECK(answered.only().status == CallStatus::kNotReady);
  town->at(4).says_nothing = false;
  town->run_for(3'000);
  CHECK(town->state(4) == MemberState::kJoining);
}

TEST_CASE("who waits for a change hears in time, whatever becomes of it", "[changes]") {
  SECTION("no majority has it on disk") {
    const auto town = Town::founded(3, 0, {true, 200});
    for (std::uint64_t id = 1; id <= 3; ++id) town->system.at(id).disk_stalls = true;
    const Town::Answered& answered = town->ask(town->leader(), AdminAction::kLeave, 3);
    town->run_for(300);
    CHECK(answered.only().status == CallStatus::kNotReady);
    CHECK(answered.only().reason == "no majority has taken it in yet: ask again");
  }
  SECTION("it is recorded, and a group takes long") {
    const auto town = Town::founded(3, 0, {true, 500});
    const std::uint64_t leaves = town->follower();
    for (std::uint64_t id = 1; id <= 3; ++id) town->data.at(id).disk_stalls = true;
    const Town::Answered& answered = town->ask(town->leader(), AdminAction::kLeave, leaves);
    town->run_for(600);
    CHECK(answered.only().status == CallStatus::kAccepted);
    CHECK(answered.only().reason == "it is under way, but takes long");
  }
}
