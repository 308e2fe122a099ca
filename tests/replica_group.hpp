// One Raft group of replicas over a disk, a network and a state machine that the test plays, in
// virtual time.
#ifndef SESHAT_TESTS_REPLICA_GROUP_HPP
#define SESHAT_TESTS_REPLICA_GROUP_HPP

#include <algorithm>
#include <cstddef>
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
#include "seshat/replica.hpp"

namespace seshat::replica_tests {

constexpr std::uint64_t kTickMs = 25;
constexpr std::uint64_t kRequestTimeoutMs = 5'000;
constexpr std::uint64_t kElectionTimeoutMaxMs = 1'000;

struct VirtualClock final : Clock {
  [[nodiscard]] std::uint64_t now_ms() const override { return now; }
  std::uint64_t now = 1'000;
};

// Writes down what it hears; `then` runs inside, for those who ask again at once.
struct Recorder final : Waiter {
  void done(const Outcome& outcome) override { hear("done " + std::to_string(outcome.integer)); }
  void readable() override { hear("readable"); }
  void failed(Refusal refusal) override {
    last = refusal;
    hear("failed");
  }
  void hear(std::string what) {
    heard.push_back(std::move(what));
    if (then) std::exchange(then, nullptr)();
  }
  [[nodiscard]] std::string only() const {
    return heard.size() == 1 ? heard[0] : "heard " + std::to_string(heard.size()) + " times";
  }

  std::vector<std::string> heard;
  std::optional<Refusal> last;
  std::function<void()> then;
};

// One node: its disk, its end of the network, its state machine.
struct Node final : LogStore, Transport, Applier, SnapshotSender, LeadershipObserver {
  void append(GroupId, raft::Write write) override {
    writes.push_back(write.id);
    if (write.entries.empty()) return;
    disk.erase(disk.lower_bound(write.entries.front().index), disk.end());
    for (raft::Entry& entry : write.entries) disk[entry.index] = std::move(entry);
  }
  void fetch(GroupId, raft::Fetch fetch) override { fetches.push_back(fetch); }
  void send(GroupId, raft::Message message) override { outbox.push_back(std::move(message)); }
  void apply(GroupId, std::vector<raft::Entry> entries) override {
    for (raft::Entry& entry : entries) {
      if (entry.data) applied.push_back(*entry.data);
      if (entry.configuration) configurations.push_back(*entry.configuration);
      to_report.push_back(entry.index);
    }
  }
  void leadership_changed(GroupId) override { ++changes; }
  void send_snapshot(GroupId, NodeId peer) override { snapshots.push_back(peer); }

  // The outcome of entry n is the number n.
  void report_applied() {
    if (to_report.empty() || machine_stalls) return;
    std::vector<Outcome> outcomes;
    for (const Index index : to_report) {
      outcomes.push_back({Outcome::Kind::kInteger, static_cast<std::int64_t>(index.value)});
    }
    const Index last = to_report.back();
    to_report.clear();
    replica->on_applied(last, outcomes);
  }
  void report_synced() {
    if (writes.empty() || disk_stalls) return;
    const std::uint64_t last = writes.back();
    writes.clear();
    replica->on_synced(last);
  }
  void answer_fetches() {
    for (const raft::Fetch& fetch : std::exchange(fetches, {})) {
      std::vector<raft::Entry> entries;
      for (auto at = disk.find(fetch.from); at != disk.end() && at->first <= fetch.to; ++at) {
        entries.push_back(at->second);
      }
      const auto before = disk.find(fetch.from - 1);
      replica->on_fetched(fetch.peer, before == disk.end() ? Term{} : before->second.term, entries);
    }
  }
  // The log on disk begins behind `to` from now on.
  void cut_log(Index to) {
    disk.erase(disk.begin(), disk.upper_bound(to));
    replica->on_compacted(to + 1);
  }
  [[nodiscard]] bool has_work() const {
    return (!writes.empty() && !disk_stalls) || (!to_report.empty() && !machine_stalls) ||
           !fetches.empty() || replica->raft().has_ready();
  }

  std::unique_ptr<Replica> replica;
  std::vector<std::uint64_t> writes;
  std::map<Index, raft::Entry> disk;
  std::vector<raft::Fetch> fetches;
  std::vector<raft::Message> outbox;
  std::vector<NodeId> snapshots;  // who was asked to be sent one
  std::vector<Index> to_report;
  std::vector<std::string> applied;
  std::vector<raft::Configuration> configurations;  // that were applied
  int changes = 0;
  bool disk_stalls = false;
  bool machine_stalls = false;
};

using Tweak = std::function<void(raft::Config&)>;

// Nodes 1 to `founders` are the group; those behind, up to `size`, know nobody yet.
class Group {
 public:
  explicit Group(std::uint64_t founders, const Tweak& tweak = {}, std::uint64_t size = 0,
                 GroupId id = kFirstDataGroup) {
    size = std::max(size, founders);
    for (std::uint64_t node = 1; node <= size; ++node) nodes_.push_back(std::make_unique<Node>());
    for (std::uint64_t node = 1; node <= size; ++node) {
      raft::Config config;
      config.id = NodeId{node};
      config.seed = node + 10 * id.value;
      for (std::uint64_t voter = 1; voter <= founders && node <= founders; ++voter) {
        config.voters.push_back(NodeId{voter});
      }
      if (tweak) tweak(config);
      Node& at = this->at(node);
      at.replica = std::make_unique<Replica>(id, config, raft::Restored{}, kRequestTimeoutMs,
                                             Replica::Environment{clock, at, at, at, at, at});
    }
  }

  [[nodiscard]] Node& at(std::uint64_t id) { return *nodes_[id - 1]; }
  [[nodiscard]] Replica& replica(std::uint64_t id) { return *at(id).replica; }
  [[nodiscard]] const raft::Raft& raft(std::uint64_t id) { return replica(id).raft(); }
  [[nodiscard]] std::uint64_t size() const { return nodes_.size(); }

  // Everything that waits is written, sent and applied, until nothing does.
  void settle() {
    for (bool busy = true; busy;) {
      busy = false;
      for (auto& node : nodes_) {
        node->report_synced();
        node->report_applied();
        node->answer_fetches();
        node->replica->pump();
      }
      for (auto& node : nodes_) {
        for (raft::Message& message : std::exchange(node->outbox, {})) {
          if (cut_off.contains(message.from) || cut_off.contains(message.to)) continue;
          replica(message.to.value).receive(message);
          busy = true;
        }
      }
      for (auto& node : nodes_) busy = busy || node->has_work();
    }
  }
  void tick() {
    clock.now += kTickMs;
    for (auto& node : nodes_) node->replica->tick();
    settle();
  }
  void run_for(std::uint64_t ms) {
    for (const std::uint64_t end = clock.now + ms; clock.now < end;) tick();
  }
  // The leader that has committed in its term; 0: there is none.
  [[nodiscard]] std::uint64_t leader() {
    for (std::uint64_t id = 1; id <= nodes_.size(); ++id) {
      if (!cut_off.contains(NodeId{id}) && replica(id).has_lease() &&
          replica(id).raft().lease_read(clock.now)) {
        return id;
      }
    }
    return 0;
  }
  std::uint64_t elect() {
    for (int round = 0; round < 400; ++round) {
      run_for(kTickMs);
      if (const std::uint64_t id = leader(); id != 0) return id;
    }
    FAIL("no leader");
    return 0;
  }

  VirtualClock clock;
  std::set<NodeId> cut_off;

 private:
  std::vector<std::unique_ptr<Node>> nodes_;
};

}  // namespace seshat::replica_tests

#endif  // SESHAT_TESTS_REPLICA_GROUP_HPP
