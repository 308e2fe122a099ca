// Nodes come and go while the cluster serves: real processes, the subcommands of the real program, kill -9.
#include <algorithm>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "chaos.hpp"
#include "history.hpp"
#include "json.hpp"

namespace seshat::tests {
namespace {

// What the state of a member is at first, before `state` is there.
bool becomes(const Cluster& cluster, int at, int node, const std::string& state,
             Milliseconds bound = 20s) {
  return eventually(bound, [&] {
    const auto members = cluster.members(at);
    const auto found = members.find(node);
    return found != members.end() && found->second == state;
  });
}

// Who was removed is told so, and stops in good order.
void check_ends_by_itself(Cluster& cluster, int node) {
  INFO("node " << node);
  const auto status = cluster.process(node).wait(15s);
  REQUIRE(status.has_value());
  CHECK(*status == ExitStatus{0, 0});
  CHECK(cluster.log_says(node, "this node was removed from its cluster, and stops"));
}

// ---- Growing and shrinking --------------------------------------------------------------------------

TEST_CASE(
    "one node grows to three and five and shrinks to three while it is written to, and nothing is "
    "lost",
    "[members]") {
  Cluster cluster({.nodes = 1, .spares = 4});
  RecordedLoad load(cluster);
  REQUIRE(load.await_writes(100, 20s));
  const auto begin = SteadyClock::now();
  for (const std::set<int>& members : {std::set{1, 2, 3}, std::set{1, 2, 3, 4, 5}}) {
    for (const int node : members) {
      if (!cluster.running(node)) cluster.join(node, 1);
    }
    REQUIRE(cluster.has_members(members));
    REQUIRE(load.await_writes(200));
  }
  report("1 -> 3 -> 5: the longest time without an acknowledged write was ",
         load.worst_unavailability(begin).count(), " ms");
  CHECK(cluster.leave(1, 2).done());  // the founder
  const int leader = cluster.leader();
  CHECK(cluster.leave(leader, cluster.others(leader).front()).done());
  const std::vector<int> left = cluster.nodes();
  REQUIRE(cluster.has_members({left.begin(), left.end()}));
  for (const int node : {1, leader}) check_ends_by_itself(cluster, node);
  REQUIRE(load.await_writes(200));
  const Milliseconds worst = load.worst_unavailability(begin);
  report("1 -> 3 -> 5 -> 3: the longest time without an acknowledged write was ", worst.count(),
         " ms");
  CHECK(worst < kFailover);
  const auto killed = SteadyClock::now();
  cluster.kill(cluster.leader());
  REQUIRE(load.await_writes(200));
  report("then kill -9 of the leader: ", load.worst_unavailability(killed).count(), " ms");
  check_history(load, cluster);
}

// ---- Replacing a node ---------------------------------------------------------------------------------

// `seshat join`, as an operator types it, at the node `at`.
void join_by_subcommand(Cluster& cluster, int node, int at) {
  cluster.count_in(node);
  cluster.start_as(node, {"join", cluster.peer_addr(at), "--id", std::to_string(node),
                          "--client-addr", cluster.client_addr(node), "--internal-addr",
                          cluster.peer_addr(node), "--data-dir", cluster.data_dir(node).string()});
}

// What `seshat WORDS --json` of the node `at` prints; it must succeed.
Json by_json(const Cluster& cluster, int at, std::vector<std::string> words) {
  words.emplace_back("--json");
  const Finished finished = cluster.admin(at, std::move(words), Cluster::Shown::kOutput);
  INFO(finished);
  REQUIRE(finished.done());
  return parse_json(finished.output);
}

// The object of that node in what `seshat members --json` prints.
Json member_by_json(const Cluster& cluster, int at, int node) {
  const Json members = by_json(cluster, at, {"members"})["members"];
  for (const Json& member : members.elements) {
    if (member["id"].text == std::to_string(node)) return member;
  }
  return {};
}

TEST_CASE(
    "a dead node is replaced by `seshat leave` and `seshat join`: a learner, then a voter again",
    "[members]") {
  Cluster cluster({.settings = {{"cluster.auto_promote", "false"}}});
  REQUIRE(cluster.settled());
  RecordedLoad load(cluster);
  REQUIRE(load.await_writes(200, 20s));
  const int dead = cluster.followers().front();
  const int other = cluster.others(dead).back();
  const std::string incarnation = member_by_json(cluster, other, dead)["incarnation"].text;
  cluster.kill(dead);
  cluster.wipe(dead);

  CHECK(by_json(cluster, other, {"leave", std::to_string(dead)})["ok"].text == "true");
  CHECK(becomes(cluster, other, dead, "removed"));  // a follower hears of it a moment later
  CHECK(member_by_json(cluster, other, dead)["state"].text == "removed");
  cluster.forget(dead);
  const std::vector<int> two = cluster.nodes();
  CHECK(cluster.has_members({two.begin(), two.end()}));

  join_by_subcommand(cluster, dead, other);
  REQUIRE(becomes(cluster, other, dead, "joining"));
  const Json learner = member_by_json(cluster, other, dead);
  CHECK(learner["incarnation"].text != incarnation);
  REQUIRE(
      eventually(10s, [&] { return cluster.configured(dead, 1, "learners") == std::set{dead}; }));
  REQUIRE(cluster.caught_up());
  // That it has caught up is heard once a second.
  const std::vector<std::string> promote = {"promote", std::to_string(dead)};
  REQUIRE(eventually(10s, [&] { return cluster.admin(other, promote).done(); }));
  REQUIRE(cluster.has_members({1, 2, 3}));
  CHECK(member_by_json(cluster, other, dead)["state"].text == "active");

  const Json status = by_json(cluster, dead, {"status"});
  CHECK(status["status"].elements.size() == 6);  // 3 nodes, 2 groups
  REQUIRE(load.await_writes(200));
  check_history(load, cluster);
}

// ---- Wiped nodes --------------------------------------------------------------------------------------

// The highest term that any running node has reached in any group.
std::uint64_t highest_term(Cluster& cluster, const std::vector<int>& nodes) {
  std::uint64_t highest = 0;
  for (const int node : nodes) {
    for (const std::string name : {"raft_group_0_term", "raft_group_1_term"}) {
      highest = std::max(highest, cluster.figure(node, "raft", name));
    }
  }
  return highest;
}

TEST_CASE(
    "a wiped node can't come back under its old id and vote twice; after leave and join it is a "
    "voter",
    "[members]") {
  Cluster cluster;
  REQUIRE(cluster.settled());
  RecordedLoad load(cluster);
  REQUIRE(load.await_writes(200, 20s));
  const int leader = cluster.leader();
  const int wiped = cluster.others(leader).front();
  const int third = cluster.others(leader).back();
  cluster.kill(wiped);
  cluster.wipe(wiped);
  REQUIRE(eventually(10s, [&] {  // it may have led the system group
    const std::uint64_t leads = cluster.figure(leader, "raft", "raft_group_0_leader");
    return leads != 0 && leads != static_cast<std::uint64_t>(wiped) &&
           cluster.figure(third, "raft", "raft_group_0_leader") == leads;
  }));
  const std::uint64_t term = highest_term(cluster, {leader, third});
  cluster.start(wiped);
  CHECK(cluster.log_says(wiped, "put its old data directory back"));
  CHECK(cluster.log_says(leader, "or remove it (seshat leave " + std::to_string(wiped) + ")"));
  CHECK(cluster.figure(wiped, "raft", "raft_may_vote") == 0);
  REQUIRE(load.await_writes(200));
  CHECK(cluster.leader() == leader);
  CHECK(highest_term(cluster, {leader, third}) == term);

  // With its vote there would be a majority.
  cluster.kill(leader);
  CHECK_FALSE(eventually(3s, [&] { return cluster.leader_now().has_value(); }));
  CHECK(cluster.figure(wiped, "raft", "raft_group_1_vote") == 0);
  cluster.start(leader);
  REQUIRE(load.await_writes(200));

  // Asked to join as it is, it is told what comes first.
  cluster.kill(wiped);
  cluster.wipe(wiped);
  cluster.join(wiped, third);
  CHECK(cluster.process(wiped).wait(15s) == ExitStatus{1, 0});
  CHECK(cluster.log_says(wiped, "remove that one first (seshat leave " + std::to_string(wiped)));

  CHECK(cluster.leave(wiped, third).done());
  cluster.join(wiped, third);
  REQUIRE(cluster.has_members({1, 2, 3}));
  CHECK(cluster.figure(wiped, "raft", "raft_may_vote") == 1);
  REQUIRE(cluster.caught_up());
  cluster.kill(cluster.others(wiped).front());
  REQUIRE(load.await_writes(200));
  check_history(load, cluster);
}

// ---- Refusals -------------------------------------------------------------------------------------------

void check_refused(const Finished& finished, const std::string& words) {
  CHECK(finished.status == ExitStatus{1, 0});
  CHECK_THAT(finished.output, ContainsSubstring(words));
}

TEST_CASE("the last voter can't leave, not even by force", "[members]") {
  Cluster cluster({.nodes = 1, .spares = 1, .settings = {{"cluster.auto_promote", "false"}}});
  REQUIRE(cluster.cluster_client().ask("SET", "k", "v") == "+OK");
  const std::string words = "node 1 is the last voter: without it there would be no cluster";
  REQUIRE(eventually(10s, [&] { return !cluster.members(1).empty(); }));
  for (const bool force : {false, true}) check_refused(cluster.leave(1, 1, force), words);
  cluster.join(2, 1);
  REQUIRE(becomes(cluster, 1, 2, "joining"));
  for (const bool force : {false, true}) check_refused(cluster.leave(1, 2, force), words);
  CHECK(cluster.client(1).ask("GET", "k") == "v");
  CHECK(cluster.leave(2, 1).done());  // a learner may
  check_ends_by_itself(cluster, 2);
}

TEST_CASE("all voters asked to leave at once: one stays, is told why, and serves on", "[members]") {
  Cluster cluster({.nodes = 3});
  REQUIRE(cluster.cluster_client().ask("SET", "k", "v") == "+OK");
  REQUIRE(cluster.settled());
  const int leader = static_cast<int>(cluster.figure(1, "raft", "raft_group_0_leader"));
  std::vector<Client> clients;
  for (int i = 0; i < 3; ++i) clients.push_back(cluster.client(leader));
  for (int i = 0; i < 3; ++i) {
    clients[static_cast<std::size_t>(i)].send({"SESHAT.LEAVE", std::to_string(i + 1), "FORCE"});
  }
  int stays = 0;
  for (int i = 0; i < 3; ++i) {
    Client& client = clients[static_cast<std::size_t>(i)];
    client.set_timeout(40s);
    const std::string reply = client.receive();
    INFO("node " << i + 1 << ": " << reply);
    if (reply.starts_with("-ERR node " + std::to_string(i + 1) + " is the last voter")) {
      CHECK(stays == 0);
      stays = i + 1;
    } else {
      // The leader that was asked may be the first to leave.
      CHECK((reply.starts_with("+") || reply.starts_with("-TRYAGAIN ")));
    }
  }
  REQUIRE(stays != 0);
  for (const int node : cluster.others(stays)) {
    CHECK(cluster.leave(node, stays, true).done());
    check_ends_by_itself(cluster, node);
  }
  REQUIRE(cluster.has_members({stays}));
  CHECK(cluster.client(stays).ask("GET", "k") == "v");
  CHECK(cluster.client(stays).ask("SET", "k", "w") == "+OK");
}

TEST_CASE("a leave that would cost the live majority asks for FORCE, and goes with it when it can",
          "[members]") {
  Cluster cluster;
  REQUIRE(cluster.settled());
  const int leader = cluster.leader();
  const int dead = cluster.others(leader).front();
  const int other = cluster.others(leader).back();
  cluster.kill(dead);
  REQUIRE(eventually(10s, [&] {
    return cluster.leave(other, leader)
               .output.find("of the 2 voters after it only 1 can be reached") != std::string::npos;
  }));
  check_refused(cluster.leave(other, leader), "bring nodes back first, or say FORCE");
  CHECK(cluster.members(leader).at(other) == "active");
  CHECK(cluster.cluster_client().ask("SET", "k", "v") == "+OK");
  // Forced, it waits for the node that is needed.
  Client client = cluster.client(leader);
  client.send({"SESHAT.LEAVE", std::to_string(other), "FORCE"});
  REQUIRE(becomes(cluster, leader, other, "leaving"));
  cluster.start(dead);
  client.set_timeout(60s);
  (void)client.receive();  // done, or that it is under way
  cluster.forget(other);
  REQUIRE(cluster.has_members({leader, dead}));
  check_ends_by_itself(cluster, other);
  CHECK(cluster.cluster_client().ask("GET", "k") == "v");
}

TEST_CASE(
    "who leaves, is promoted or leads must be who it has to be: the answers say what is wrong",
    "[members]") {
  Cluster cluster;
  REQUIRE(cluster.settled());
  for (const int at : {cluster.leader(), cluster.followers().front()}) {
    INFO("asked: node " << at);
    check_refused(cluster.admin(at, {"promote", "2"}), "node 2 is a voter already");
    check_refused(cluster.admin(at, {"promote", "9"}),
                  "node 9 is no learner: it has to join first");
    check_refused(cluster.admin(at, {"leave", "9"}), "node 9 is not a member");
    check_refused(cluster.admin(at, {"transfer-leader", "9"}), "node 9 is no voter: it can't lead");
  }
  CHECK(cluster.admin(1, {"leave"}).status == ExitStatus{2, 0});
  CHECK(cluster.admin(1, {"leave", "two"}).status == ExitStatus{2, 0});
  cluster.kill(3);
  CHECK(cluster.admin(3, {"members", "--timeout", "1"}).status == ExitStatus{3, 0});
}

TEST_CASE("a hand-over to a node that does not answer is given up, and the leader leads on",
          "[members]") {
  Cluster cluster;
  REQUIRE(cluster.settled());
  REQUIRE(cluster.admin(2, {"transfer-leader", "1"}).done());
  cluster.pause(2);
  const auto start = SteadyClock::now();
  const std::string reply = cluster.client(1).ask("SESHAT.TRANSFER-LEADER", "2");
  CHECK_THAT(reply, StartsWith("-ERR it did not take over in time"));
  report("given up after ", since(start).count(), " ms");
  CHECK(cluster.client(1).ask("SET", "k", "v") == "+OK");
  cluster.resume(2);
  CHECK(eventually(20s, [&] { return cluster.admin(1, {"transfer-leader", "2"}).done(); }));
  CHECK(cluster.leader() == 2);
}

TEST_CASE(
    "who asks to be let in is told why not: the id is taken, or the data is of another cluster",
    "[members]") {
  Cluster cluster({.nodes = 1, .spares = 2});
  Cluster stranger({.nodes = 1, .spares = 1});
  REQUIRE(cluster.cluster_client().ask("SET", "k", "v") == "+OK");
  cluster.join(2, 1);
  REQUIRE(cluster.has_members({1, 2}));
  // An empty node that says it is node 2.
  cluster.set_settings(3, {{"node.id", "2"}});
  cluster.join(3, 1);
  CHECK(cluster.process(3).wait(15s) == ExitStatus{1, 0});
  CHECK(cluster.log_says(3, "the cluster has a node 2 already, at " + cluster.peer_addr(2)));
  CHECK(cluster.log_says(3, "take another node.id, or remove that one first (seshat leave 2)"));
  cluster.forget(3);
  // A node that was another cluster's.
  stranger.join(2, 1);
  REQUIRE(stranger.has_members({1, 2}));
  stranger.kill(2);
  cluster.wipe(3);
  std::filesystem::copy(stranger.data_dir(2), cluster.data_dir(3),
                        std::filesystem::copy_options::recursive);
  cluster.join(3, 1);
  CHECK(cluster.process(3).wait(15s) == ExitStatus{1, 0});
  CHECK(cluster.log_says(3, "is of another cluster than the data of this node"));
  CHECK(cluster.has_members({1, 2}));
}

TEST_CASE("a node asks a cluster without a leader five times, and then gives up and says why",
          "[members]") {
  Cluster cluster({.nodes = 3, .spares = 1});
  REQUIRE(cluster.settled());
  const int alone = cluster.followers().front();
  cluster.kill(cluster.others(alone));
  REQUIRE(
      eventually(5s, [&] { return cluster.figure(alone, "raft", "raft_group_0_leader") == 0; }));
  const auto start = SteadyClock::now();
  cluster.join(4, alone);
  CHECK(cluster.process(4).wait(30s) == ExitStatus{1, 0});
  report("gave up after ", since(start).count(), " ms");
  CHECK(since(start) >= 8s);
  CHECK(cluster.log_says(4, "the cluster did not let this node in, after 5 attempts"));
  CHECK(cluster.log_says(4, "the cluster has no leader at present"));
  CHECK(cluster.log_says(4, "that the cluster has a leader (seshat status)"));
}

TEST_CASE("a node may ask any member: a follower names the leader", "[members]") {
  Cluster cluster({.nodes = 3, .spares = 1});
  REQUIRE(cluster.settled());
  const int system_leader = static_cast<int>(cluster.figure(1, "raft", "raft_group_0_leader"));
  const auto start = SteadyClock::now();
  cluster.join(4, cluster.others(system_leader).front());
  REQUIRE(cluster.log_says(4, "was let into the cluster"));
  report("let in after ", since(start).count(), " ms");
  REQUIRE(cluster.has_members({1, 2, 3, 4}));
}

// ---- With redis-cli ---------------------------------------------------------------------------------------

std::optional<std::string> no_redis_cli() {
  const Finished version = run({"/bin/sh", "-c", "redis-cli --version"}, 10s);
  return version.done() ? std::nullopt : std::optional("redis-cli is not here: " + version.output);
}

std::string redis_cli(const Cluster& cluster, int at, std::vector<std::string> words) {
  words.insert(words.begin(), {"redis-cli", "-p", std::to_string(cluster.port(at))});
  return run(words, 60s).output;
}

TEST_CASE("redis-cli does it too, at any node: followers pass it on to the leader", "[members]") {
  if (skips(no_redis_cli())) return;
  Cluster cluster({.nodes = 3, .spares = 1, .settings = {{"cluster.auto_promote", "false"}}});
  REQUIRE(cluster.settled());
  cluster.join(4, 1);
  for (const int at : {1, 2, 3}) {
    INFO("asked: node " << at);
    REQUIRE(eventually(20s, [&] { return cluster.configured(4, 1, "learners") == std::set{4}; }));
    CHECK_THAT(redis_cli(cluster, at, {"SESHAT.MEMBERS"}), ContainsSubstring("joining"));
    CHECK_THAT(redis_cli(cluster, at, {"SESHAT.PROMOTE", "9"}),
               StartsWith("ERR node 9 is no learner: it has to join first"));
    REQUIRE(eventually(20s, [&] {
      return redis_cli(cluster, at, {"SESHAT.PROMOTE", "4"}) == "OK\n";
    }));
    REQUIRE(cluster.has_members({1, 2, 3, 4}));
    REQUIRE(eventually(5s, [&] {  // what the others say of themselves is heard once a second
      const std::string status = redis_cli(cluster, at, {"SESHAT.STATUS"});
      return status.find("leader") != std::string::npos && status.find("down") == std::string::npos;
    }));
    CHECK(redis_cli(cluster, at, {"SESHAT.TRANSFER-LEADER", "4"}) == "OK\n");
    for (const std::string group : {"0", "1"}) {
      CHECK(cluster.figure(4, "raft", "raft_group_" + group + "_leader") == 4);
    }
    // The leader itself; asked there, too.
    CHECK(redis_cli(cluster, at == 3 ? 4 : at, {"SESHAT.LEAVE", "4"}) == "OK\n");
    cluster.forget(4);
    check_ends_by_itself(cluster, 4);
    REQUIRE(cluster.has_members({1, 2, 3}));
    if (at == 3) break;
    cluster.wipe(4);
    cluster.join(4, at);
  }
}

// ---- Afterwards -------------------------------------------------------------------------------------------

TEST_CASE("all nodes, started again after changes, are who is recorded, whatever their files say",
          "[members]") {
  Cluster cluster({.nodes = 3, .spares = 2});
  REQUIRE(cluster.cluster_client().ask("SET", "kept", "yes") == "+OK");
  REQUIRE(cluster.settled());
  for (const int node : {4, 5}) cluster.join(node, 1);
  REQUIRE(cluster.has_members({1, 2, 3, 4, 5}));
  // Whom the others name as the first member, and whom the new ones asked.
  for (const int node : {1, 2}) CHECK(cluster.leave(node, 3).done());
  REQUIRE(cluster.has_members({3, 4, 5}));
  cluster.kill(cluster.nodes());
  const auto member = [](int id, const std::string& addr) {
    return "{id = " + std::to_string(id) + ", addr = \"" + addr + "\"}";
  };
  cluster.set_settings(3, {{"cluster.initial_members", "[" + member(3, cluster.peer_addr(3)) +
                                                           ", " + member(7, "127.0.0.1:1") + ", " +
                                                           member(8, "127.0.0.1:2") + "]"}});
  for (const int node : cluster.nodes()) cluster.start(node);
  CHECK(cluster.cluster_client().ask("GET", "kept") == "yes");
  REQUIRE(cluster.has_members({3, 4, 5}));
  cluster.kill(cluster.leader());
  CHECK(cluster.cluster_client().ask("SET", "goes", "on") == "+OK");
}

std::string cluster_command(const Cluster& cluster, int at, const std::string& what) {
  return cluster.client(at).ask("CLUSTER", what);
}

// Whether what `at` says of the cluster's nodes names the ports of these and of no others.
bool names(const Cluster& cluster, int at, const std::string& what, const std::set<int>& ids) {
  const std::string text = cluster_command(cluster, at, what);
  return std::ranges::all_of(cluster.nodes_and_spares(), [&](int node) {
    const bool named = text.find(std::to_string(cluster.port(node))) != std::string::npos;
    return named == ids.contains(node);
  });
}

TEST_CASE("nobody is let in before every founder was heard from; who never comes is removed first",
          "[members]") {
  Cluster cluster({.nodes = 3, .spares = 1, .started = false});
  cluster.start(1);
  cluster.start(2);
  REQUIRE(cluster.leader() != 0);
  cluster.join(4, 1);
  CHECK(cluster.process(4).wait(30s) == ExitStatus{1, 0});
  CHECK(cluster.log_says(4, "node 3 was never heard from"));
  REQUIRE(cluster.leave(3, 1).done());
  cluster.join(4, 1);
  CHECK(cluster.settled());
}

TEST_CASE(
    "CLUSTER SHARDS, SLOTS and NODES follow the members; a learner sends clients to the leader",
    "[members]") {
  Cluster cluster({.nodes = 1, .spares = 2, .settings = {{"cluster.auto_promote", "false"}}});
  REQUIRE(cluster.cluster_client().ask("SET", "k", "v") == "+OK");
  for (const std::string what : {"NODES", "SLOTS", "SHARDS"}) {
    CHECK(names(cluster, 1, what, {1}));
  }
  cluster.join(2, 1);
  const std::string moved = "-MOVED 7629 " + cluster.client_addr(1);
  REQUIRE(eventually(20s, [&] { return cluster.configured(2, 1, "learners") == std::set{2}; }));
  REQUIRE(eventually(5s, [&] { return cluster.client(2).ask("GET", "k") == moved; }));
  CHECK(cluster.client(2).ask("SET", "k", "w") == moved);
  for (const int at : {1, 2}) {  // it holds no vote and is no replica yet
    INFO("asked: node " << at);
    CHECK(eventually(5s, [&] { return names(cluster, at, "NODES", {1, 2}); }));
    CHECK(names(cluster, at, "SHARDS", {1}));
    CHECK(names(cluster, at, "SLOTS", {1}));
  }
  REQUIRE(eventually(20s, [&] { return cluster.admin(2, {"promote", "2"}).done(); }));
  for (const std::string what : {"NODES", "SLOTS", "SHARDS"}) {
    for (const int at : {1, 2}) {
      INFO(what << " of node " << at);
      CHECK(eventually(5s, [&] { return names(cluster, at, what, {1, 2}); }));
    }
  }
  CHECK(cluster.leave(1, 2).done());
  for (const std::string what : {"NODES", "SLOTS", "SHARDS"}) {
    INFO(what);
    CHECK(eventually(5s, [&] { return names(cluster, 2, what, {2}); }));
  }
  CHECK(cluster.client(2).ask("GET", "k") == "v");
}

// ---- From elsewhere -------------------------------------------------------------------------------------

// A network namespace with a cable to it: inside it one is on another machine.
class OtherMachine {
 public:
  OtherMachine() {
    const std::string number = std::to_string(::getpid() % 250 + 1);
    name_ = "seshat-test-" + std::to_string(::getpid());
    here_ = "10.213." + number + ".1";
    const std::string there = "10.213." + number + ".2";
    const std::string cable = "st" + std::to_string(::getpid());
    why_not_ = ip({"netns", "add", name_});
    if (why_not_) return;
    made_ = true;
    const std::vector<std::vector<std::string>> commands = {
        {"link", "add", cable, "type", "veth", "peer", "name", "there", "netns", name_},
        {"addr", "add", here_ + "/24", "dev", cable},
        {"link", "set", cable, "up"},
        {"-n", name_, "addr", "add", there + "/24", "dev", "there"},
        {"-n", name_, "link", "set", "there", "up"},
    };
    for (const auto& command : commands) {
      if (!why_not_) why_not_ = ip(command);
    }
  }
  OtherMachine(const OtherMachine&) = delete;
  OtherMachine& operator=(const OtherMachine&) = delete;
  ~OtherMachine() {
    if (made_) (void)ip({"netns", "delete", name_});
  }

  [[nodiscard]] const std::optional<std::string>& why_not() const { return why_not_; }
  // `seshat WORDS`, run there; of a node that listens here at `port`.
  [[nodiscard]] Finished admin(Port port, const std::vector<std::string>& words) const {
    std::vector<std::string> command = {"ip", "netns", "exec", name_,
                                        required_variable("SESHAT_BIN")};
    command.insert(command.end(), words.begin(), words.end());
    command.emplace_back("--addr");
    command.push_back(here_ + ":" + std::to_string(port));
    return run(command, 60s);
  }

 private:
  static std::optional<std::string> ip(std::vector<std::string> words) {
    words.insert(words.begin(), "ip");
    const Finished finished = run(words, 10s);
    if (finished.done()) return std::nullopt;
    return "no network namespace (it needs root, and ip): " + finished.output;
  }

  std::string name_;
  std::string here_;
  bool made_ = false;
  std::optional<std::string> why_not_;
};

TEST_CASE(
    "without a password, SESHAT.* changes are for this machine alone; asking is for everybody",
    "[members]") {
  const OtherMachine elsewhere;
  if (skips(elsewhere.why_not())) return;
  Cluster cluster({.started = false});
  for (const int node : cluster.nodes()) {
    cluster.set_settings(
        node, {{"client.protected_mode", "false"},  // which would let nobody in
               {"node.client_addr", "\"0.0.0.0:" + std::to_string(cluster.port(node)) + "\""},
               {"node.advertise_client_addr", "\"" + cluster.client_addr(node) + "\""}});
  }
  cluster.start_all();
  REQUIRE(cluster.settled());
  CHECK(elsewhere.admin(cluster.port(1), {"members"}).done());
  CHECK(elsewhere.admin(cluster.port(1), {"status"}).done());
  const std::vector<std::vector<std::string>> changes = {{"leave", "3"},
                                                         {"leave", "3", "--force"},
                                                         {"promote", "3"},
                                                         {"transfer-leader", "2"},
                                                         {"snapshot"}};
  for (const std::vector<std::string>& change : changes) {
    check_refused(elsewhere.admin(cluster.port(1), change),
                  "is allowed from this machine only while no password is set");
  }
  CHECK(cluster.has_members({1, 2, 3}));
  CHECK(cluster.admin(1, {"leave", "3"}).done());
}

// ---- Removed while it was away ----------------------------------------------------------------------------

// The nodes go on as they were: nobody is elected, in any group.
void check_undisturbed(Chaos& chaos, Unnoticed& unnoticed, std::uint64_t term, int removed) {
  check_ends_by_itself(chaos.cluster, removed);
  unnoticed.check("node " + std::to_string(removed) + " came back");
  CHECK(highest_term(chaos.cluster, chaos.cluster.nodes()) == term);
}

TEST_CASE(
    "a node that was removed while it was cut off comes back, disturbs nobody, hears of it and "
    "stops "
    "(class 10)",
    "[members][chaos]") {
  Chaos chaos({.nodes = 5});
  const int cut_off = chaos.cluster.followers().front();
  const std::vector<int> rest = chaos.cluster.others(cut_off);
  chaos.fault("a follower cut off and removed");
  chaos.network.isolate(cut_off);
  CHECK(chaos.cluster.leave(cut_off, rest.front()).done());
  REQUIRE(chaos.cluster.has_members({rest.begin(), rest.end()}));
  // It has long tried to be elected by then.
  REQUIRE(eventually(10s, [&] {
    return chaos.cluster.info(cut_off, "raft")->at("raft_group_1_role") == "pre-candidate";
  }));
  Unnoticed unnoticed(chaos);
  const std::uint64_t term = highest_term(chaos.cluster, rest);
  chaos.network.heal();
  check_undisturbed(chaos, unnoticed, term, cut_off);
  chaos.finish();
}

TEST_CASE(
    "a node that was removed while it stood still goes on, disturbs nobody, hears of it and stops "
    "(class 10)",
    "[members][chaos]") {
  Chaos chaos({.nodes = 5});
  const int still = chaos.cluster.followers().front();
  const std::vector<int> rest = chaos.cluster.others(still);
  chaos.fault("a follower paused and removed");
  chaos.cluster.pause(still);
  CHECK(chaos.cluster.leave(still, rest.front()).done());
  REQUIRE(chaos.cluster.has_members({rest.begin(), rest.end()}));
  Unnoticed unnoticed(chaos);
  const std::uint64_t term = highest_term(chaos.cluster, rest);
  chaos.cluster.resume(still);
  check_undisturbed(chaos, unnoticed, term, still);
  chaos.finish();
}

TEST_CASE(
    "a node that was removed while it was down starts, disturbs nobody, hears of it and stops",
    "[members][chaos]") {
  Chaos chaos({.nodes = 3});
  const int down = chaos.cluster.followers().front();
  const std::vector<int> rest = chaos.cluster.others(down);
  chaos.fault("a follower killed and removed");
  chaos.cluster.kill(down);
  CHECK(chaos.cluster.leave(down, rest.front()).done());
  REQUIRE(chaos.cluster.has_members({rest.begin(), rest.end()}));
  Unnoticed unnoticed(chaos);
  const std::uint64_t term = highest_term(chaos.cluster, rest);
  chaos.cluster.start(down);
  check_undisturbed(chaos, unnoticed, term, down);
  chaos.finish();
}

}  // namespace
}  // namespace seshat::tests
