// A new node asks its way into a cluster that the test plays: whom it asks, how often, and when it
// gives up.
#include "seshat/joining.hpp"

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "catch.hpp"

namespace {

using namespace seshat;

// Answers at once what is set for an address, or "no answer".
class Town {
 public:
  Town() {
    hello_.node_id = NodeId{4};
    hello_.incarnation = 104;
    hello_.addr = "node-4:7379";
  }

  Joining::Ask ask() {
    return [this](const std::string& addr, CallRequest request,
                  std::function<void(Result<CallReply>)> answer) {
      asked.push_back(addr);
      requests.push_back(std::move(request));
      if (!answers_) return waiting.push_back(std::move(answer));
      const auto found = says.find(addr);
      if (found == says.end()) return answer(Error{addr + " can't be reached"});
      answer(found->second);
    };
  }
  void tick(Joining& joining) { joining.tick(now_ms, hello_); }
  void run_for(Joining& joining, std::uint64_t ms) {
    for (const std::uint64_t end = now_ms + ms; now_ms < end; now_ms += 25) tick(joining);
  }
  void answer_later() { answers_ = false; }

  std::map<std::string, CallReply> says;
  std::vector<std::string> asked;
  std::vector<CallRequest> requests;
  std::deque<std::function<void(Result<CallReply>)>> waiting;
  std::uint64_t now_ms = 1'000;

 private:
  Hello hello_;
  bool answers_ = true;
};

CallReply says(CallStatus status, std::string reason = {}, std::string leader = {}) {
  CallReply reply;
  reply.status = status;
  reply.reason = std::move(reason);
  reply.leader_addr = std::move(leader);
  return reply;
}

CallReply welcome() {
  CallReply reply = says(CallStatus::kAccepted);
  reply.membership.emplace();
  reply.membership->cluster_id = "c1";
  return reply;
}

}  // namespace

TEST_CASE("a node says who it is, and is let in by the leader", "[joining]") {
  Town town;
  town.says["a"] = welcome();
  Joining joining("a", town.ask());
  CHECK_FALSE(joining.membership());
  town.tick(joining);
  REQUIRE(joining.membership());
  CHECK(joining.membership()->cluster_id == "c1");
  CHECK_FALSE(joining.failure());
  REQUIRE(town.requests.size() == 1);
  CHECK(town.requests[0].from == NodeId{4});
  REQUIRE(town.requests[0].join);
  CHECK(town.requests[0].join->hello.addr == "node-4:7379");
  town.run_for(joining, 20'000);
  CHECK(town.asked.size() == 1);  // that was it
}

TEST_CASE("who does not lead says who does, and that one is asked at once", "[joining]") {
  Town town;
  town.says["a"] = says(CallStatus::kNotLeader, "node 2 leads", "b");
  town.says["b"] = welcome();
  Joining joining("a", town.ask());
  town.tick(joining);
  CHECK(joining.membership());
  CHECK(town.asked == std::vector<std::string>{"a", "b"});
}

TEST_CASE("five attempts, two seconds apart, then a clear error", "[joining]") {
  Town town;
  Joining joining("a", town.ask());
  std::vector<std::uint64_t> asked_at;
  for (; !joining.failure() && town.now_ms < 60'000; town.now_ms += 25) {
    const std::size_t before = town.asked.size();
    town.tick(joining);
    if (town.asked.size() > before) asked_at.push_back(town.now_ms);
  }
  CHECK(asked_at == std::vector<std::uint64_t>{1'000, 3'000, 5'000, 7'000, 9'000});
  REQUIRE(joining.failure());
  CHECK(*joining.failure() ==
        "the cluster did not let this node in, after 5 attempts at a: a can't be reached. Check "
        "cluster.join_addr, and that the cluster has a leader (seshat status)");
  town.run_for(joining, 10'000);
  CHECK(town.asked.size() == 5);
}

TEST_CASE("each attempt asks all addresses that were ever heard", "[joining]") {
  Town town;
  town.says["a"] = says(CallStatus::kNotLeader, "node 2 leads", "b");  // which is down
  Joining joining("a", town.ask());
  town.tick(joining);
  CHECK(town.asked == std::vector<std::string>{"a", "b", "b"});  // the leader, then what is known
  town.says.erase("a");
  town.asked.clear();
  town.run_for(joining, 2'100);
  CHECK(town.asked == std::vector<std::string>{"a", "b"});
  town.says["b"] = welcome();
  town.run_for(joining, 2'100);
  CHECK(joining.membership());
}

TEST_CASE("two nodes that each name the other don't keep it busy", "[joining]") {
  Town town;
  town.says["a"] = says(CallStatus::kNotLeader, "node 2 leads", "b");
  town.says["b"] = says(CallStatus::kNotLeader, "node 1 leads", "a");
  Joining joining("a", town.ask());
  town.tick(joining);
  CHECK(town.asked.size() <= 6);
  CHECK_FALSE(joining.failure());
  town.asked.clear();
  town.tick(joining);
  CHECK(town.asked.empty());  // two seconds have to pass
  town.run_for(joining, 10'000);
  REQUIRE(joining.failure());
  CHECK_THAT(*joining.failure(), ContainsSubstring("after 5 attempts at a, b: "));
  CHECK_THAT(*joining.failure(), ContainsSubstring("leads"));
}

TEST_CASE("a cluster that is not ready is asked again", "[joining]") {
  Town town;
  town.says["a"] = says(CallStatus::kNotReady, "the cluster is still being founded");
  Joining joining("a", town.ask());
  town.run_for(joining, 4'000);
  CHECK(town.asked.size() == 2);
  town.says["a"] = welcome();
  town.run_for(joining, 2'000);
  CHECK(joining.membership());
  CHECK_FALSE(joining.failure());
}

TEST_CASE("no leader at present is no reason to give up", "[joining]") {
  Town town;
  town.says["a"] = says(CallStatus::kNotLeader, "the cluster has no leader at present");
  Joining joining("a", town.ask());
  town.tick(joining);
  CHECK(town.asked == std::vector<std::string>{"a"});
  CHECK_FALSE(joining.failure());
}

TEST_CASE("what asking again would not mend ends it at once", "[joining]") {
  for (const CallStatus status :
       {CallStatus::kDuplicateId, CallStatus::kWrongCluster, CallStatus::kRefused}) {
    Town town;
    town.says["a"] = says(status, "take another node.id");
    Joining joining("a", town.ask());
    town.tick(joining);
    REQUIRE(joining.failure());
    CHECK(*joining.failure() == "the cluster refuses this node: take another node.id");
    town.run_for(joining, 20'000);
    CHECK(town.asked.size() == 1);
  }
}

TEST_CASE("a welcome without the members is of no use", "[joining]") {
  Town town;
  town.says["a"] = says(CallStatus::kAccepted);
  Joining joining("a", town.ask());
  town.tick(joining);
  CHECK_FALSE(joining.membership());
  REQUIRE(joining.failure());
  CHECK_THAT(*joining.failure(), ContainsSubstring("did not say who the members are"));
}

TEST_CASE("one question at a time, however long its answer takes", "[joining]") {
  Town town;
  town.answer_later();
  Joining joining("a", town.ask());
  town.run_for(joining, 60'000);
  REQUIRE(town.waiting.size() == 1);
  CHECK_FALSE(joining.failure());
  town.waiting.front()(welcome());
  CHECK(joining.membership());
}
