// What a node that does not lead is asked, by way of the leader: three replicas in virtual time, and a
// channel between their Forwardings that the test plays.
#include "seshat/forwarding.hpp"

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "catch.hpp"
#include "replica_group.hpp"

namespace {

using namespace seshat;
using namespace seshat::replica_tests;

constexpr std::uint64_t kTimeoutMs = 2'000;

struct Packet {
  NodeId from;
  NodeId to;
  Forwarded body;
};

class Channel {
 public:
  explicit Channel(std::uint64_t size, const Tweak& tweak = {}) : group(size, tweak) {
    for (std::uint64_t id = 1; id <= size; ++id) ends_.push_back(std::make_unique<End>(*this, id));
  }

  [[nodiscard]] Forwarding& forwarding(std::uint64_t id) { return *ends_[id - 1]->forwarding; }

  // What was sent arrives; then everything that follows from it, until nothing does.
  void settle() {
    for (bool busy = true; busy;) {
      for (auto& end : ends_) end->forwarding->end_turn();
      group.settle();
      notice_leaders();
      busy = !wire.empty() && !holds_wire;
      while (!wire.empty() && !holds_wire) deliver_next();
    }
  }
  void deliver_next() {
    Packet packet = std::move(wire.front());
    wire.pop_front();
    std::visit([&](auto& body) { forwarding(packet.to.value).receive(packet.from, body); },
               packet.body);
  }
  void run_for(std::uint64_t ms) {
    for (const std::uint64_t end = group.clock.now + ms; group.clock.now < end;) {
      group.tick();
      for (auto& each : ends_) each->forwarding->tick();
      settle();
    }
  }
  // As the node does when its replica says so.
  void notice_leaders() {
    for (auto& end : ends_) {
      const raft::Raft& raft = group.raft(end->self.value);
      const std::pair now(raft.leader(), raft.current_term());
      if (std::exchange(end->seen, now) == now) continue;
      end->forwarding->leadership_changed(kFirstDataGroup);
    }
  }
  [[nodiscard]] std::size_t requests() const { return requests_; }

  Group group;
  std::deque<Packet> wire;
  std::set<NodeId> unreachable;
  bool holds_wire = false;
  bool answers_fit = true;
  bool serves = true;
  std::uint64_t leader_time_ms = 77;

 private:
  struct End final : Forwarding::Site {
    End(Channel& owner, std::uint64_t id)
        : channel(owner),
          self{id},
          forwarding(std::make_unique<Forwarding>(
              std::map<GroupId, Replica*>{{kFirstDataGroup, &owner.group.replica(id)}},
              owner.group.clock, kTimeoutMs, 1'000 * id, *this)) {}
    Forwarding::Sent send_forwarded(NodeId to, Forwarded forwarded) override {
      if (channel.unreachable.contains(to)) return Forwarding::Sent::kNo;
      const auto* reply = std::get_if<ForwardedReply>(&forwarded);
      if (reply != nullptr && reply->refusal == 0 && !channel.answers_fit) {
        return Forwarding::Sent::kTooLarge;
      }
      channel.requests_ += reply == nullptr ? 1 : 0;
      channel.wire.push_back({self, to, std::move(forwarded)});
      return Forwarding::Sent::kYes;
    }
    Index propose_forwarded(GroupId, const std::string& operation, Waiter& waiter) override {
      return channel.group.replica(self.value).propose(operation, waiter);
    }
    [[nodiscard]] bool serves_forwarded() const override { return channel.serves; }
    [[nodiscard]] std::uint64_t leader_time_ms(GroupId) const override {
      return channel.leader_time_ms;
    }
    Channel& channel;
    NodeId self;
    std::unique_ptr<Forwarding> forwarding;
    std::pair<NodeId, Term> seen;
  };

  std::vector<std::unique_ptr<End>> ends_;
  std::size_t requests_ = 0;
};

// A group with a leader, and one that follows it.
struct Three : Channel {
  explicit Three(const Tweak& tweak = {}) : Channel(3, tweak) {
    while (leader == 0) {
      run_for(kTickMs);
      for (std::uint64_t id = 1; id <= 3; ++id) {
        const raft::Raft& raft = group.raft(id);
        const bool settled = raft.last_applied() == raft.log().last_index();
        if (raft.is_leader() && settled) leader = id;
      }
    }
    follower = leader % 3 + 1;
    settle();
  }
  [[nodiscard]] Forwarding& here() { return forwarding(follower); }
  [[nodiscard]] std::uint64_t third() const { return 6 - leader - follower; }
  void stall_disks(bool stall) {
    for (std::uint64_t id = 1; id <= 3; ++id) group.at(id).disk_stalls = stall;
  }

  std::uint64_t leader = 0;
  std::uint64_t follower = 0;
};

}  // namespace

TEST_CASE("a write goes to the leader, is applied everywhere and answered once", "[forwarding]") {
  Three three;
  Recorder waiter;
  CHECK(three.here().propose(kFirstDataGroup, "x", waiter) != 0);
  CHECK(three.here().waiting() == 1);
  three.settle();
  CHECK_THAT(waiter.only(), StartsWith("done "));
  CHECK(three.here().waiting() == 0);
  three.run_for(300);
  for (std::uint64_t id = 1; id <= 3; ++id) {
    CHECK(three.group.at(id).applied == std::vector<std::string>{"x"});
  }
}

TEST_CASE("writes arrive in the order they were asked for", "[forwarding]") {
  Three three;
  std::vector<Recorder> waiters(50);
  std::vector<std::string> expected;
  for (std::size_t i = 0; i < waiters.size(); ++i) {
    expected.push_back(std::to_string(i));
    three.here().propose(kFirstDataGroup, expected.back(), waiters[i]);
  }
  three.settle();
  CHECK(three.group.at(three.leader).applied == expected);
  for (const Recorder& waiter : waiters) CHECK_THAT(waiter.only(), StartsWith("done "));
}

TEST_CASE("a read is served here once all is applied here that the leader named", "[forwarding]") {
  Three three;
  Recorder write;
  Recorder read;
  three.group.at(three.follower).machine_stalls = true;
  three.here().propose(kFirstDataGroup, "x", write);
  three.settle();
  REQUIRE_THAT(write.only(), StartsWith("done "));
  three.here().read(kFirstDataGroup, 0, read);
  three.run_for(300);
  CHECK(read.heard.empty());  // the leader has answered; this node's own state is behind
  CHECK(three.here().heard_time_ms(kFirstDataGroup) == 77);
  three.group.at(three.follower).machine_stalls = false;
  three.settle();
  CHECK(read.only() == "readable");
  CHECK(three.group.at(three.follower).applied == std::vector<std::string>{"x"});
}

TEST_CASE("a read sees the write before it on its connection, answered or not", "[forwarding]") {
  Three three;
  Recorder write;
  Recorder own;
  Recorder other;
  three.stall_disks(true);
  const std::uint64_t id = three.here().propose(kFirstDataGroup, "x", write);
  three.here().read(kFirstDataGroup, id, own);
  three.here().read(kFirstDataGroup, 0, other);
  three.settle();
  CHECK(write.heard.empty());
  CHECK(own.heard.empty());
  CHECK(other.only() == "readable");  // it does not wait for another connection's write
  three.stall_disks(false);
  three.run_for(300);
  CHECK_THAT(write.only(), StartsWith("done "));
  CHECK(own.only() == "readable");
  CHECK(three.group.at(three.follower).applied == std::vector<std::string>{"x"});
}

TEST_CASE("the reads of a turn share one question", "[forwarding]") {
  Three three;
  std::vector<Recorder> readers(20);
  const std::size_t before = three.requests();
  for (Recorder& reader : readers) three.here().read(kFirstDataGroup, 0, reader);
  three.settle();
  CHECK(three.requests() == before + 1);
  for (const Recorder& reader : readers) CHECK(reader.only() == "readable");
}

TEST_CASE("without leases a forwarded read waits for a round of the leader's", "[forwarding]") {
  Three three([](raft::Config& config) { config.lease_reads = false; });
  three.group.cut_off = {NodeId{three.follower}, NodeId{three.third()}};
  Recorder read;
  three.here().read(kFirstDataGroup, 0, read);
  three.run_for(4 * kTickMs);
  CHECK(read.heard.empty());
  three.group.cut_off.clear();
  three.run_for(300);
  CHECK(read.only() == "readable");
}

TEST_CASE("a leader that was cut off answers no forwarded read once its lease is over",
          "[forwarding]") {
  Three three;
  three.group.cut_off = {NodeId{three.leader}};
  while (three.group.replica(three.leader).has_lease()) three.run_for(kTickMs);
  REQUIRE(three.group.raft(three.leader).is_leader());  // it does not know yet
  Recorder read;
  three.here().read(kFirstDataGroup, 0, read);
  three.settle();
  CHECK(read.heard.empty());
  three.run_for(2 * kElectionTimeoutMaxMs);
  CHECK(read.only() == "failed");
}

TEST_CASE("what the leader refuses was not appended, and is refused here", "[forwarding]") {
  Three three;
  const Index last = three.group.raft(three.leader).log().last_index();
  Recorder write;
  Recorder read;
  three.serves = false;  // it is stopping
  REQUIRE(three.here().propose(kFirstDataGroup, "x", write) != 0);
  three.here().read(kFirstDataGroup, 0, read);
  three.settle();
  CHECK(write.only() == "failed");
  CHECK(write.last == Refusal::kNotLeader);
  CHECK(read.last == Refusal::kNotLeader);
  CHECK(three.group.raft(three.leader).log().last_index() == last);
}

TEST_CASE("a request that was meant for another term of the same leader is refused",
          "[forwarding]") {
  Three three;
  three.holds_wire = true;
  Recorder write;
  REQUIRE(three.here().propose(kFirstDataGroup, "x", write) != 0);
  Forwarded late = three.wire.front().body;
  std::get<ForwardedRequest>(late).term = three.group.raft(three.leader).current_term() - 1;
  three.wire.front().body = late;
  three.holds_wire = false;
  three.settle();
  CHECK(write.last == Refusal::kNotLeader);
  CHECK(three.group.at(three.leader).applied.empty());
}

TEST_CASE("a read sees an earlier write of its connection though the later one was refused",
          "[forwarding]") {
  Three three;
  three.stall_disks(true);
  Recorder first;
  Recorder second;
  Recorder read;
  three.here().propose(kFirstDataGroup, "x", first);
  three.settle();
  three.serves = false;
  const std::uint64_t id = three.here().propose(kFirstDataGroup, "y", second);
  three.settle();
  three.serves = true;
  REQUIRE(second.last == Refusal::kNotLeader);
  REQUIRE(first.heard.empty());
  three.here().read(kFirstDataGroup, id, read);
  three.settle();
  CHECK(read.heard.empty());
  three.stall_disks(false);
  three.run_for(300);
  CHECK_THAT(first.only(), StartsWith("done "));
  CHECK(read.only() == "readable");
  CHECK(three.group.at(three.follower).applied == std::vector<std::string>{"x"});
}

TEST_CASE("a leader that steps down says of what it appended that nobody knows", "[forwarding]") {
  Three three;
  three.stall_disks(true);
  Recorder write;
  three.here().propose(kFirstDataGroup, "x", write);
  three.settle();
  three.group.cut_off = {NodeId{three.leader}};  // of Raft's messages; its answer comes through
  three.run_for(2 * kElectionTimeoutMaxMs);
  CHECK(write.only() == "failed");
  CHECK(write.last == Refusal::kUnknown);
}

TEST_CASE("the time that a leader told is forgotten with it", "[forwarding]") {
  Three three;
  Recorder read;
  three.here().read(kFirstDataGroup, 0, read);
  three.settle();
  CHECK(three.here().heard_time_ms(kFirstDataGroup) == 77);
  three.group.cut_off = {NodeId{three.leader}};
  three.run_for(3 * kElectionTimeoutMaxMs);
  CHECK(three.here().heard_time_ms(kFirstDataGroup) == 0);
}

TEST_CASE("no leader, no stream to it, too much that waits: refused at once, and not sent",
          "[forwarding]") {
  Three three;
  Recorder nowhere;
  three.unreachable = {NodeId{three.leader}};
  CHECK(three.here().propose(kFirstDataGroup, "x", nowhere) == 0);
  CHECK(nowhere.last == Refusal::kNotLeader);
  Recorder read;
  three.here().read(kFirstDataGroup, 0, read);
  three.settle();
  CHECK(read.last == Refusal::kNotLeader);
  three.unreachable.clear();

  Recorder large;
  three.holds_wire = true;
  REQUIRE(three.here().propose(kFirstDataGroup, std::string(Forwarding::kMaxWaitingSizeBytes, 'x'),
                               large) != 0);
  Recorder more;
  CHECK(three.here().propose(kFirstDataGroup, "y", more) == 0);
  CHECK(more.last == Refusal::kBusy);
  three.holds_wire = false;
  three.settle();
  CHECK_THAT(large.only(), StartsWith("done "));
  Recorder after;
  CHECK(three.here().propose(kFirstDataGroup, "y", after) != 0);
  three.settle();

  Recorder leaderless;
  three.group.cut_off = {NodeId{three.follower}};
  three.run_for(3 * kElectionTimeoutMaxMs);
  CHECK(three.here().propose(kFirstDataGroup, "z", leaderless) == 0);
  CHECK(leaderless.last == Refusal::kNoQuorum);
}

TEST_CASE("the stream to the leader breaks: of a write nobody knows, a read has changed nothing",
          "[forwarding]") {
  Three three;
  three.holds_wire = true;
  Recorder write;
  Recorder read;
  three.here().propose(kFirstDataGroup, "x", write);
  three.here().read(kFirstDataGroup, 0, read);
  three.settle();
  three.here().peer_down(NodeId{three.third()});
  CHECK(write.heard.empty());  // that was another one
  three.here().peer_down(NodeId{three.leader});
  CHECK(write.only() == "failed");
  CHECK(write.last == Refusal::kUnknown);
  CHECK(read.last == Refusal::kNotLeader);
  three.holds_wire = false;
  three.settle();  // it arrived after all, and its answer interests nobody
  CHECK(three.group.at(three.leader).applied == std::vector<std::string>{"x"});
  CHECK(write.heard.size() == 1);
  CHECK(read.heard.size() == 1);
}

TEST_CASE("who waits for a leader that says nothing hears in time", "[forwarding]") {
  Three three;
  three.holds_wire = true;
  Recorder write;
  Recorder read;
  three.here().propose(kFirstDataGroup, "x", write);
  three.here().read(kFirstDataGroup, 0, read);
  three.run_for(kTimeoutMs - kTickMs);
  CHECK(write.heard.empty());
  three.run_for(2 * kTickMs);
  CHECK(write.last == Refusal::kTimeout);
  CHECK(read.last == Refusal::kTimeout);
  CHECK(three.here().waiting() == 0);
}

TEST_CASE("once another leads, nobody waits long for the one before", "[forwarding]") {
  Three three;
  three.holds_wire = true;
  Recorder write;
  three.here().propose(kFirstDataGroup, "x", write);
  three.group.cut_off = {NodeId{three.leader}};
  three.group.elect();
  three.notice_leaders();
  const std::uint64_t known_at_ms = three.group.clock.now;
  while (write.heard.empty()) three.run_for(kTickMs);
  CHECK(three.group.clock.now - known_at_ms <= Forwarding::kFarewellMs + kTickMs);
  CHECK(write.last == Refusal::kUnknown);
}

TEST_CASE("an answer too large for the channel is said to be", "[forwarding]") {
  Three three;
  three.answers_fit = false;
  Recorder waiter;
  three.here().propose(kFirstDataGroup, "x", waiter);
  three.settle();
  CHECK(waiter.last == Refusal::kReplyTooLarge);
  CHECK(three.group.at(three.leader).applied == std::vector<std::string>{"x"});
}

TEST_CASE("an answer is taken from the node that was asked, and makes sense, or it is none",
          "[forwarding]") {
  Three three;
  three.holds_wire = true;
  Recorder waiter;
  ForwardedReply reply;
  reply.id = three.here().propose(kFirstDataGroup, "x", waiter);
  three.here().receive(NodeId{three.follower}, reply);
  CHECK(waiter.heard.empty());
  reply.outcome = 99;  // of a newer version
  three.here().receive(NodeId{three.leader}, reply);
  CHECK(waiter.last == Refusal::kUnknown);
  Recorder second;
  reply = {};
  reply.id = three.here().propose(kFirstDataGroup, "x", second);
  reply.refusal = 99;
  three.here().receive(NodeId{three.leader}, reply);
  CHECK(second.last == Refusal::kUnknown);
  three.here().receive(NodeId{three.leader},
                       ForwardedRequest{1, GroupId{99}, "x", 0, {}});  // no such
}

TEST_CASE("who hears of a failure may ask again at once", "[forwarding]") {
  Three three;
  three.holds_wire = true;
  Recorder write;
  Recorder again;
  write.then = [&] { three.here().propose(kFirstDataGroup, "again", again); };
  three.here().propose(kFirstDataGroup, "x", write);
  three.wire.clear();  // lost
  three.here().peer_down(NodeId{three.leader});
  CHECK(write.last == Refusal::kUnknown);
  CHECK(again.heard.empty());
  three.holds_wire = false;
  three.settle();
  CHECK_THAT(again.only(), StartsWith("done "));
}

TEST_CASE("a node that can promise nothing more says so to all who wait", "[forwarding]") {
  Three three;
  three.holds_wire = true;
  Recorder write;
  Recorder read;
  three.here().propose(kFirstDataGroup, "x", write);
  three.here().read(kFirstDataGroup, 0, read);
  three.here().abandon();
  CHECK(write.last == Refusal::kUnknown);
  CHECK(read.last == Refusal::kStorage);
  CHECK(three.here().waiting() == 0);
}
