#include "seshat/raft.hpp"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "micro/benchmark.hpp"
#include "micro/samples.hpp"

using namespace seshat;

namespace {

// Three cores whose disks, network and state machines take no time; the first leads.
class Cores {
 public:
  Cores() {
    for (std::uint64_t id = 1; id <= 3; ++id) {
      raft::Config config;
      config.id = raft::NodeId{id};
      config.seed = id;
      config.voters = {raft::NodeId{1}, raft::NodeId{2}, raft::NodeId{3}};
      config.applied_tail_size_bytes = 64 << 10;
      cores_.push_back(std::make_unique<raft::Raft>(config, raft::Restored{}, now_ms_));
    }
    for (int ticks = 0; ticks < 400 && !leader().lease_read(now_ms_); ++ticks) {
      now_ms_ += leader().config().tick_interval_ms;
      leader().tick(now_ms_);
      settle();
    }
    REQUIRE(leader().lease_read(now_ms_));
  }

  // Until all that was proposed is committed and applied everywhere but for the commit index, which
  // followers hear of with what comes next. The leader's.
  raft::Index replicate(const std::vector<raft::Payload>& payloads) {
    for (const raft::Payload& payload : payloads) (void)leader().propose(now_ms_, payload);
    settle();
    return leader().commit_index();
  }
  [[nodiscard]] raft::Raft& leader() { return *cores_.front(); }
  [[nodiscard]] std::uint64_t now_ms() const { return now_ms_; }

 private:
  void settle() {
    do {
      for (const auto& core : cores_) hand_out(*core);
      for (const raft::Message& message : std::exchange(on_their_way_, {})) {
        cores_[message.to.value - 1]->step(now_ms_, message);
      }
    } while (has_ready());
  }
  void hand_out(raft::Raft& core) {
    while (core.has_ready()) {
      raft::Ready ready = core.take_ready(now_ms_);
      for (raft::Message& message : ready.messages) on_their_way_.push_back(std::move(message));
      if (ready.write) core.synced(now_ms_, ready.write->id);
      if (!ready.committed.empty()) core.applied(now_ms_, ready.committed.back().index);
    }
  }
  [[nodiscard]] bool has_ready() const {
    for (const auto& core : cores_) {
      if (core->has_ready()) return true;
    }
    return false;
  }

  std::uint64_t now_ms_ = 1'000;
  std::vector<std::unique_ptr<raft::Raft>> cores_;
  std::vector<raft::Message> on_their_way_;
};

std::vector<raft::Payload> payloads(std::size_t count) {
  std::vector<raft::Payload> made;
  for (std::size_t i = 0; i < count; ++i) {
    made.push_back(std::make_shared<const std::string>(micro::set_operation(i)));
  }
  return made;
}

}  // namespace

TEST_CASE("entries through three cores", "[raft]") {
  Cores cores;
  const auto one = payloads(1);
  const auto many = payloads(64);
  const raft::Index before = cores.leader().commit_index();
  REQUIRE(cores.replicate(many) == before + 64);

  BENCHMARK("propose, append, acknowledge and commit 1 entry") { return cores.replicate(one); };
  BENCHMARK("propose, append, acknowledge and commit 64 entries") { return cores.replicate(many); };
}

TEST_CASE("reads by lease", "[raft]") {
  Cores cores;
  BENCHMARK("ask for the index of a read") { return cores.leader().lease_read(cores.now_ms()); };
}
