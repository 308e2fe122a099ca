// tests/budget/heart.hpp - three nodes without disk, network and clock: what a request costs there is
// the code of this repository and nothing else.
//
//   bytes ──> Connection ──> Member 1: Replica ──frames──> Members 2 and 3
//   reply <──                  │  ^                             │
//                              v  └────────────frames───────────┘
//                    entries as bytes of the log; KeyValueMachine over a hash table
//
// A member does what node.hpp does with the real headers: requests are taken in, end_turn() hands out
// what gathered, messages travel as the bytes of a frame, entries are encoded as store_log.hpp does. A
// disk answers at once. Time passes only when pass_time() says so.
//
// Deterministic: the same calls run the same instructions.
#ifndef SESHAT_TESTS_BUDGET_HEART_HPP
#define SESHAT_TESTS_BUDGET_HEART_HPP

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "budget/memory_map.hpp"
#include "memory_database.hpp"
#include "seshat/codec.hpp"
#include "seshat/connection.hpp"
#include "seshat/peer_codec.hpp"
#include "seshat/replica.hpp"
#include "seshat/state_machine.hpp"

namespace seshat::budget {

inline constexpr std::uint64_t kTickMs = 25;
inline constexpr std::uint64_t kMembers = 3;
inline constexpr NodeId kLeader{1};
inline constexpr NodeId kFollower{2};  // the one of the two that is counted

// What must not happen here would make every figure worthless.
inline void expect(bool holds, const char* what) { raft::require(holds, what); }

struct VirtualClock final : Clock {
  [[nodiscard]] std::uint64_t now_ms() const override { return now; }
  std::uint64_t now = 1'000;
};

// Bytes on their way from one member to another.
struct Packet {
  NodeId to;
  std::string bytes;
};
using Wire = std::vector<Packet>;

// ---- One node -----------------------------------------------------------------------------------

class Member final : public Database,
                     private LogStore,
                     private Transport,
                     private Applier,
                     private SnapshotSender,
                     private LeadershipObserver {
 public:
  Member(NodeId id, const VirtualClock& clock, Wire& wire);

  [[nodiscard]] const Replica& replica() const { return replica_; }
  void tick() { replica_.tick(); }
  void receive(std::string_view bytes);
  // Until there is nothing left that this node can do by itself.
  void end_turn();

  // Database, as node.hpp has it while one shard has all slots.
  [[nodiscard]] std::optional<GroupId> group_of(Slot) const override { return kFirstDataGroup; }
  WriteMark propose(GroupId group, Operation operation, Waiter& waiter) override;
  [[nodiscard]] bool readable(GroupId, WriteMark after, bool) const override {
    return replica_.readable(after.index);
  }
  void read(GroupId, WriteMark after, bool, Waiter& waiter) override {
    replica_.read(after.index, waiter);
  }
  [[nodiscard]] const OrderedMap& cached(GroupId) const override { return map_; }
  void read_from_disk(GroupId, std::function<void(const OrderedMap&)>) override { std::abort(); }
  void post(std::function<void()>) override { std::abort(); }
  [[nodiscard]] std::string refusal_text(Slot, Refusal, bool) const override { return "REFUSED"; }
  [[nodiscard]] bool disk_is_full() const override { return false; }
  void administer(AdminRequest, std::function<void(CallReply)>) override { std::abort(); }

 private:
  struct Outgoing {
    Frame frame;
    std::size_t size_bytes = 0;  // about
  };
  struct Applied {
    Index last;
    std::vector<Outcome> outcomes;
  };

  [[nodiscard]] static raft::Config config(NodeId id);

  // What Replica hands out.
  void append(GroupId group, raft::Write write) override;
  void fetch(GroupId, raft::Fetch) override { std::abort(); }
  void send(GroupId group, raft::Message message) override;
  void apply(GroupId group, std::vector<raft::Entry> entries) override;
  void send_snapshot(GroupId, NodeId) override { std::abort(); }
  void leadership_changed(GroupId) override {}

  void flush();
  [[nodiscard]] bool report();

  const VirtualClock& clock_;
  Wire& wire_;
  std::map<NodeId, Outgoing> outgoing_;
  std::optional<std::uint64_t> written_;  // to be reported as synced
  std::optional<Applied> applied_;        // to be reported
  std::string log_batch_;
  MemoryMap map_;
  KeyValueMachine machine_;
  Replica replica_;
};

inline Member::Member(NodeId id, const VirtualClock& clock, Wire& wire)
    : clock_(clock),
      wire_(wire),
      replica_(kFirstDataGroup, config(id), raft::Restored{}, /*request_timeout_ms=*/5'000,
               Replica::Environment{clock, *this, *this, *this, *this, *this}) {}

// Little of the log stays in memory, so that a short warm-up brings it to rest.
inline raft::Config Member::config(NodeId id) {
  raft::Config config;
  config.id = id;
  config.seed = id.value;
  for (std::uint64_t voter = 1; voter <= kMembers; ++voter) config.voters.push_back(NodeId{voter});
  config.applied_tail_size_bytes = 64 << 10;
  return config;
}

inline void Member::receive(std::string_view bytes) {
  const Result<Frame> frame = codec::decode_frame(bytes);
  expect(bool(frame), "a frame of our own can't be read");
  for (const PeerMessage& message : frame->messages) replica_.receive(message.message);
}

inline void Member::end_turn() {
  do {
    replica_.pump();
    flush();
  } while (report());
}

inline WriteMark Member::propose(GroupId, Operation operation, Waiter& waiter) {
  operation.time_ms = 1'700'000'000'000 + clock_.now;
  return {replica_.propose(codec::encode(operation), waiter)};
}

// As store_log.hpp: one batch a write.
inline void Member::append(GroupId, raft::Write write) {
  log_batch_.clear();
  for (const raft::Entry& entry : write.entries) codec::encode(entry, log_batch_);
  if (write.hard_state) log_batch_ += codec::encode(*write.hard_state);
  written_ = write.id;
}

// As peer_link.hpp: what gathers in a turn leaves in one frame.
inline void Member::send(GroupId group, raft::Message message) {
  Outgoing& outgoing = outgoing_[message.to];
  outgoing.size_bytes += 128;
  if (const auto* request = std::get_if<raft::AppendEntries>(&message.body)) {
    for (const raft::Entry& entry : request->entries) outgoing.size_bytes += entry.size_bytes();
  }
  outgoing.frame.messages.push_back({group, std::move(message)});
}

inline void Member::apply(GroupId, std::vector<raft::Entry> entries) {
  Result<std::vector<Outcome>> outcomes = machine_.apply(map_, entries);
  expect(bool(outcomes), "an entry of our own can't be applied");
  expect(!applied_, "entries were handed out before the last ones were applied");
  applied_ = Applied{entries.back().index, std::move(*outcomes)};
}

inline void Member::flush() {
  for (auto& [peer, outgoing] : outgoing_) {
    if (outgoing.frame.messages.empty()) continue;
    std::string bytes;
    bytes.reserve(outgoing.size_bytes);
    codec::encode(outgoing.frame, bytes);
    wire_.push_back({peer, std::move(bytes)});
    outgoing.frame.messages.clear();
    outgoing.size_bytes = 0;
  }
}

// False: the disk and the state machine had nothing to say.
inline bool Member::report() {
  const auto written = std::exchange(written_, std::nullopt);
  if (written) replica_.on_synced(*written);
  const auto applied = std::exchange(applied_, std::nullopt);
  if (applied) replica_.on_applied(applied->last, applied->outcomes);
  return written || applied;
}

// ---- Three of them, and a client ----------------------------------------------------------------

class Heart final : private ConnectionHost {
 public:
  // How one piece of a member's work is run: to be counted, or not.
  using Run = std::function<void(NodeId member, const std::function<void()>& work)>;

  // Member 1 leads when this returns.
  explicit Heart(Run run);

  // All that follows from `requests`, on all members; the leader's replies.
  [[nodiscard]] std::string serve(std::string_view requests);
  // One tick, with the heartbeat that is due and its answers: the lease goes on.
  void pass_time();

 private:
  void deliver();
  [[nodiscard]] Member& member(NodeId id) { return *members_[id.value - 1]; }

  // ConnectionHost
  [[nodiscard]] Database& database() override { return member(kLeader); }
  [[nodiscard]] Site& site() override { return site_; }
  [[nodiscard]] const kv::Limits& limits() const override { return limits_; }
  void wants_attention(std::uint64_t) override {}
  void count_command() override { ++commands_; }

  Run run_;
  VirtualClock clock_;
  Wire wire_;
  std::vector<std::unique_ptr<Member>> members_;
  kv::Limits limits_;
  tests::FixedSite site_;
  std::uint64_t commands_ = 0;
  Connection connection_{*this, {}, {}};
  std::string output_;
};

// Only member 1 has a clock that runs before it leads: nobody else stands for election.
inline Heart::Heart(Run run) : run_(std::move(run)) {
  for (std::uint64_t id = 1; id <= kMembers; ++id) {
    members_.push_back(std::make_unique<Member>(NodeId{id}, clock_, wire_));
  }
  const Member& leader = member(kLeader);
  for (int ticks = 0; ticks < 400 && !leader.readable(kFirstDataGroup, {}, false); ++ticks) {
    clock_.now += kTickMs;
    member(kLeader).tick();
    member(kLeader).end_turn();
    deliver();
  }
  expect(leader.readable(kFirstDataGroup, {}, false), "member 1 does not lead");
}

inline std::string Heart::serve(std::string_view requests) {
  run_(kLeader, [&] {
    const std::size_t used = connection_.consume(requests);
    expect(used == requests.size(), "a request was left over");
    member(kLeader).end_turn();
  });
  deliver();
  run_(kLeader, [&] { connection_.take_output(output_); });
  return output_;
}

inline void Heart::pass_time() {
  clock_.now += kTickMs;
  for (const auto& member : members_) {
    member->tick();
    member->end_turn();
  }
  deliver();
}

// Everything that is on its way to a member comes in one turn of its loop.
inline void Heart::deliver() {
  while (!wire_.empty()) {
    const Wire packets = std::exchange(wire_, {});
    for (std::uint64_t id = 1; id <= kMembers; ++id) {
      run_(NodeId{id}, [&] {
        for (const Packet& packet : packets) {
          if (packet.to == NodeId{id}) member(NodeId{id}).receive(packet.bytes);
        }
        member(NodeId{id}).end_turn();
      });
    }
  }
}

}  // namespace seshat::budget

#endif  // SESHAT_TESTS_BUDGET_HEART_HPP
