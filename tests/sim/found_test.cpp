// What the simulator found, each boiled down to the inputs that matter. The seeds that found them
// mean other runs by now or some day; what they showed stays.
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "catch.hpp"
#include "seshat/replica.hpp"
#include "sim/simulation.hpp"

namespace seshat {
namespace {

struct Heard final : Waiter {
  void done(const Outcome&) override { text += "done "; }
  void readable() override { text += "readable "; }
  void failed(Refusal refusal) override {
    text += refusal == Refusal::kUnknown ? "unknown " : "refused ";
  }
  std::string text;
};

// Node 1 of 3, whose disk answers at once.
struct Lone final : Clock, LogStore, Transport, Applier, SnapshotSender, LeadershipObserver {
  [[nodiscard]] std::uint64_t now_ms() const override { return time_ms; }
  void append(GroupId, raft::Write write) override { last_write = write.id; }
  void fetch(GroupId, raft::Fetch) override {}
  void send(GroupId, raft::Message) override {}
  void apply(GroupId, std::vector<raft::Entry> entries) override {
    for (raft::Entry& entry : entries) to_apply.push_back(std::move(entry));
  }
  void send_snapshot(GroupId, NodeId) override {}
  void leadership_changed(GroupId) override {}

  [[nodiscard]] static raft::Config config() {
    raft::Config config;
    config.id = NodeId{1};
    config.voters = {NodeId{1}, NodeId{2}, NodeId{3}};
    return config;
  }

  template <class Body>
  void receive(std::uint64_t from, std::uint64_t term, Body body) {
    replica.receive(raft::Message{NodeId{from}, NodeId{1}, Term{term}, std::move(body)});
  }
  void turn() {
    replica.pump();
    replica.on_synced(last_write);
    replica.pump();
  }
  void campaign() {
    while (replica.raft().role() != raft::Role::kPreCandidate) {
      time_ms += 25;
      replica.tick();
      turn();
    }
    receive(2, replica.raft().current_term().value + 1, raft::RequestVoteReply{true, true});
    turn();
  }

  std::uint64_t time_ms = 1000;
  std::uint64_t last_write = 0;
  std::vector<raft::Entry> to_apply;
  Replica replica{
      kFirstDataGroup, config(), {}, 30'000, {*this, *this, *this, *this, *this, *this}};
};

}  // namespace

// Found with changes of members: a founder that a snapshot without a recorded change made forget the
// others (3), a node with a new disk that read in the old log that it was the only voter (399), a
// candidate that a committed change had removed without its knowledge, rightly (469), a lease that
// an only voter of the past did not know of (110119), a candidate that followed in its own term and
// answered with the rounds of the leader before, so that a read found a majority that was none
// (162968159153). "no lease before the no-op ...", "founders stay the members ..." and "a candidate that
// gave up ..." are what was mended.
TEST_CASE("seeds that once found something break no promise", "[sim][found]") {
  for (const std::uint64_t seed : {3ULL, 8ULL, 15ULL, 59ULL, 83ULL, 399ULL, 469ULL, 1171ULL,
                                   1234ULL, 110119ULL, 162968159153ULL}) {
    const sim::Result result = sim::run(seed, {});
    INFO("replay: scripts/sim --seed " << seed << " --trace");
    INFO(result.detail);
    CHECK(!result.violation);
  }
}

// A process that was paused finds in its mailbox: the vote that makes it leader, a write, and the
// messages of the next leader. The write's place in the log was then taken by another's entry, and
// its client heard "done" for something that never happened.
TEST_CASE("leadership that comes, takes a write and goes within one turn leaves it unknown",
          "[sim][found]") {
  Lone node;
  node.campaign();
  Heard heard;
  node.receive(2, 1, raft::RequestVoteReply{true, false});
  REQUIRE(node.replica.raft().is_leader());
  const Index index = node.replica.propose("write", heard);
  REQUIRE(index == Index{2});
  std::vector<raft::Entry> entries;
  for (std::uint64_t i = 1; i <= 2; ++i) {
    entries.push_back({Term{2}, Index{i}, raft::EntryType::kNoOp, nullptr});
  }
  node.receive(3, 2, raft::AppendEntries{Index{0}, Term{0}, Index{2}, 1, {}, entries});
  node.turn();
  CHECK(heard.text == "unknown ");
  REQUIRE(node.to_apply.size() == 2);
  node.replica.on_applied(Index{2}, std::vector<Outcome>(2));
  CHECK(heard.text == "unknown ");
}

}  // namespace seshat
