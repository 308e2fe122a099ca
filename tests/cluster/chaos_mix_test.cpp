// Everything that can go wrong, at random, one thing or two at a time, for CHAOS_SECONDS; then a calm in
// which writes must go on and all nodes catch up; and so on. In the end every operation of every client
// is judged.
//
// CHAOS_SEED starts the draws. What follows depends on time as well: it is the simulator that replays.
#include <functional>
#include <random>

#include "chaos.hpp"
#include "clocks.hpp"
#include "disks.hpp"

namespace seshat::tests {
namespace {

class Mix {
 public:
  // Without `disks`, no fault needs one. With `forwards`, clients stay with any node, leader or not.
  Mix(std::uint64_t seed, bool disks, bool forwards);

  void run(Milliseconds length);

 private:
  struct Kind {
    const char* name;
    std::uint64_t weight;
    void (Mix::*begin)(int node);
    bool needs_disk = false;
    bool is_of_network = false;
  };
  static const std::vector<Kind>& kinds();

  struct Active {
    SteadyClock::time_point until;
    std::function<void()> end;
  };

  // ---- drawing
  [[nodiscard]] std::uint64_t below(std::uint64_t bound) { return random_() % bound; }
  [[nodiscard]] Milliseconds between(Milliseconds low, Milliseconds high) {
    return low + Milliseconds(below(static_cast<std::uint64_t>((high - low).count()) + 1));
  }
  [[nodiscard]] int other_than(int node) {
    const std::vector<int> others = chaos_.cluster.others(node);
    return others[below(others.size())];
  }
  [[nodiscard]] const Kind& draw_kind();
  // The leader half of the time; nullopt: something is the matter with it already.
  [[nodiscard]] std::optional<int> draw_node();

  // ---- a fault and its end
  void begin_one();
  void lasts(Milliseconds length, std::function<void()> end);
  // For a fault of `node`, which no other meets meanwhile and which runs again afterwards.
  enum class Ends : std::uint8_t { kNo, kByUs, kByItself };
  void node_lasts(int node, Milliseconds length, Ends ends, const std::function<void()>& end);
  // A node that is not there though nothing should have ended it has crashed.
  void check_runs(int node);
  // As it has to when its disk fails.
  void check_ended_by_disk(int node);
  void network_lasts(Milliseconds length);
  void end_those_until(SteadyClock::time_point time);
  void calm();

  // ---- kinds of network faults
  void isolate(int node);
  void deafen(int node);
  void mute(int node);
  void cut_pair(int node);
  void cut_one_way(int node);
  void delay(int node);
  void lose(int node);
  void flap(int node);
  void reset(int node);
  // ---- of processes
  void kill(int node);
  void kill_and_start(int node);
  void kill_all(int node);
  void restart(int node);
  void pause(int node);
  void jump_clock(int node);
  // ---- of disks
  void slow_fsync(int node);
  void fail_fsync(int node);
  void freeze(int node);
  void fill(int node);
  void cut_power(int node);
  void cut_all_power(int node);

  [[nodiscard]] std::filesystem::path switch_of(const char* what, int node) const {
    return switches_.path() / (what + std::to_string(node));
  }
  [[nodiscard]] LoopDisk& disk(int node) { return *disks_.at(node); }

  std::mt19937_64 random_;
  TempDir switches_;
  std::map<int, std::unique_ptr<LoopDisk>> disks_;  // outlive the nodes
  Chaos chaos_;
  Clocks clocks_{chaos_.cluster};
  std::vector<Active> active_;
  std::set<int> struck_;
  bool network_is_struck_ = false;
  // In half of the runs clocks stay close, so that it shows when a key expires at the wrong time.
  const std::chrono::seconds max_jump_;
};

// ---- What there is ----------------------------------------------------------------------------------------

const std::vector<Mix::Kind>& Mix::kinds() {
  static const std::vector<Kind> kinds = {
      {"isolated", 3, &Mix::isolate, false, true},
      {"deaf", 2, &Mix::deafen, false, true},
      {"mute", 2, &Mix::mute, false, true},
      {"cut off from one other", 2, &Mix::cut_pair, false, true},
      {"cut off from one other, one way", 2, &Mix::cut_one_way, false, true},
      {"slow network", 1, &Mix::delay, false, true},
      {"network that loses", 1, &Mix::lose, false, true},
      {"link that flaps", 1, &Mix::flap, false, true},
      {"connections reset", 2, &Mix::reset, false, true},
      {"killed", 3, &Mix::kill},
      {"killed and started", 2, &Mix::kill_and_start},
      {"all killed", 1, &Mix::kill_all},
      {"orderly restart", 2, &Mix::restart},
      {"paused", 3, &Mix::pause},
      {"clock jumps", 1, &Mix::jump_clock},
      {"fsync slow", 2, &Mix::slow_fsync},
      {"fsync fails", 1, &Mix::fail_fsync},
      {"disk frozen", 2, &Mix::freeze, true},
      {"disk full", 1, &Mix::fill, true},
      {"power cut", 2, &Mix::cut_power, true},
      {"power cut of all", 1, &Mix::cut_all_power, true},
  };
  return kinds;
}

ClusterOptions options_of(bool forwards) {
  ClusterOptions options{.started = false};
  if (forwards) options.settings["client.on_follower"] = "\"forward\"";
  return options;
}

Mix::Mix(std::uint64_t seed, bool disks, bool forwards)
    : random_(seed), chaos_(options_of(forwards)), max_jump_(seed % 2 == 0 ? 3600 : 1) {
  Cluster& cluster = chaos_.cluster;
  for (const int node : cluster.nodes()) {
    if (disks)
      disks_.emplace(node, std::make_unique<LoopDisk>()).first->second->give_to(cluster, node);
    Process::Variables variables = clocks_.variables(node);
    variables["LD_PRELOAD"] += ":" + shim("slow_fsync") + ":" + shim("failing_fsync");
    variables["SESHAT_FSYNC_DELAY_MS"] = "200";
    variables["SESHAT_FSYNC_DELAY_WHILE"] = switch_of("slow-", node).string();
    variables["SESHAT_FSYNC_FAILS_IF"] = switch_of("fails-", node).string();
    cluster.set_variables(node, variables);
  }
  chaos_.start();
  chaos_.start_transactions(&clocks_);
}

const Mix::Kind& Mix::draw_kind() {
  const auto can_be = [this](const Kind& kind) {
    return (!kind.needs_disk || !disks_.empty()) && (!kind.is_of_network || !network_is_struck_);
  };
  std::uint64_t sum = 0;
  for (const Kind& kind : kinds()) sum += can_be(kind) ? kind.weight : 0;
  std::uint64_t left = below(sum);
  for (const Kind& kind : kinds()) {
    if (!can_be(kind)) continue;
    if (left < kind.weight) return kind;
    left -= kind.weight;
  }
  throw std::logic_error("weights don't add up");
}

std::optional<int> Mix::draw_node() {
  const bool aims_at_leader = below(2) == 0;
  int node = 1 + static_cast<int>(below(3));
  if (aims_at_leader) node = chaos_.cluster.leader_now().value_or(node);
  return struck_.contains(node) ? std::nullopt : std::optional(node);
}

// ---- Beginning and ending ---------------------------------------------------------------------------------

void Mix::begin_one() {
  const Kind& kind = draw_kind();
  const std::optional<int> node = draw_node();
  if (!node) return;
  check_runs(*node);
  chaos_.fault("node " + std::to_string(*node) + ": " + kind.name);
  (this->*kind.begin)(*node);
}

void Mix::lasts(Milliseconds length, std::function<void()> end) {
  active_.push_back({SteadyClock::now() + length, std::move(end)});
}

void Mix::check_runs(int node) {
  INFO("node " << node);
  CHECK(chaos_.cluster.running(node));
}

void Mix::check_ended_by_disk(int node) {
  const std::optional<ExitStatus> status = chaos_.cluster.process(node).wait(0ms);
  if (!status || was_aborted_by_rocksdb(chaos_.cluster, node, *status)) return;
  INFO("node " << node);
  CHECK(*status == ExitStatus{1, 0});
}

void Mix::node_lasts(int node, Milliseconds length, Ends ends, const std::function<void()>& end) {
  struck_.insert(node);
  lasts(length, [this, node, ends, end] {
    if (ends == Ends::kNo) check_runs(node);
    if (ends == Ends::kByItself) check_ended_by_disk(node);
    end();
    if (!chaos_.cluster.running(node)) chaos_.cluster.start(node);
    struck_.erase(node);
  });
}

void Mix::network_lasts(Milliseconds length) {
  network_is_struck_ = true;
  lasts(length, [this] {
    chaos_.network.heal();
    network_is_struck_ = false;
  });
}

void Mix::end_those_until(SteadyClock::time_point time) {
  for (std::size_t i = 0; i < active_.size();) {
    if (active_[i].until > time) {
      ++i;
      continue;
    }
    const auto end = std::move(active_[i].end);
    active_.erase(active_.begin() + static_cast<std::ptrdiff_t>(i));
    end();
  }
}

void Mix::calm() {
  end_those_until(SteadyClock::time_point::max());
  for (const int node : chaos_.cluster.nodes()) REQUIRE(chaos_.cluster.running(node));
  const bool writes = chaos_.load->await_writes(30, 10s);
  const bool settled = chaos_.cluster.settled();
  if (!writes || !settled) report(chaos_.cluster.states());
  REQUIRE(writes);
  REQUIRE(settled);
}

void Mix::run(Milliseconds length) {
  constexpr int kFaultsBetweenCalms = 12;
  const auto end = SteadyClock::now() + length;
  int faults_at_calm = 0;
  while (SteadyClock::now() < end) {
    end_those_until(SteadyClock::now());
    if (active_.size() < 2) begin_one();
    std::this_thread::sleep_for(between(50ms, 500ms));
    if (chaos_.faults - faults_at_calm < kFaultsBetweenCalms) continue;
    calm();
    faults_at_calm = chaos_.faults;
  }
  calm();
  chaos_.finish();
}

// ---- The network --------------------------------------------------------------------------------------------

void Mix::isolate(int node) {
  chaos_.network.isolate(node);
  network_lasts(between(200ms, 4s));
}

void Mix::deafen(int node) {
  chaos_.network.deafen(node);
  network_lasts(between(200ms, 4s));
}

void Mix::mute(int node) {
  chaos_.network.mute(node);
  network_lasts(between(200ms, 4s));
}

void Mix::cut_pair(int node) {
  chaos_.network.cut_pair(node, other_than(node));
  network_lasts(between(200ms, 4s));
}

void Mix::cut_one_way(int node) {
  chaos_.network.cut(node, other_than(node));
  network_lasts(between(200ms, 4s));
}

void Mix::delay(int /*node*/) {
  chaos_.network.set_all({.delay = between(10ms, 100ms)});
  network_lasts(between(500ms, 3s));
}

void Mix::lose(int /*node*/) {
  chaos_.network.set_all({.loss_permille = 20 + static_cast<int>(below(200))});
  network_lasts(between(500ms, 3s));
}

void Mix::flap(int node) {
  for (int i = 0; i < 4; ++i) {
    chaos_.network.isolate(node);
    std::this_thread::sleep_for(between(20ms, 300ms));
    chaos_.network.heal();
    std::this_thread::sleep_for(between(20ms, 300ms));
  }
}

void Mix::reset(int node) {
  for (const int other : chaos_.cluster.others(node)) chaos_.network.reset(node, other);
}

// ---- Processes ----------------------------------------------------------------------------------------------

void Mix::kill(int node) {
  chaos_.cluster.kill(node);
  node_lasts(node, between(0ms, 4s), Ends::kByUs, [] {});
}

void Mix::kill_and_start(int node) {
  chaos_.cluster.kill(node);
  chaos_.cluster.start(node);
}

void Mix::kill_all(int /*node*/) {
  std::vector<int> victims;
  for (const int node : chaos_.cluster.nodes()) {
    if (struck_.contains(node)) continue;
    check_runs(node);
    victims.push_back(node);
  }
  chaos_.cluster.kill(victims);
  for (const int node : victims) node_lasts(node, between(0ms, 1s), Ends::kByUs, [] {});
}

void Mix::restart(int node) {
  chaos_.cluster.process(node).terminate();
  const std::optional<ExitStatus> status = chaos_.cluster.process(node).wait(30s);
  if (!status) report(chaos_.cluster.process(node).whereabouts());
  REQUIRE(status);
  // While it starts there is nothing to end in order.
  if (*status != ExitStatus{-1, SIGTERM}) CHECK(*status == ExitStatus{0, 0});
  chaos_.cluster.start(node);
}

void Mix::pause(int node) {
  chaos_.cluster.pause(node);
  node_lasts(node, between(100ms, 4s), Ends::kNo, [this, node] { chaos_.cluster.resume(node); });
}

void Mix::jump_clock(int node) {
  const int most = static_cast<int>(max_jump_.count());
  clocks_.set(node, std::chrono::seconds(
                        static_cast<int>(below(2 * static_cast<std::uint64_t>(most) + 1)) - most));
}

// ---- Disks --------------------------------------------------------------------------------------------------

void Mix::slow_fsync(int node) {
  write_text(switch_of("slow-", node), "");
  node_lasts(node, between(500ms, 4s), Ends::kNo,
             [this, node] { std::filesystem::remove(switch_of("slow-", node)); });
}

// Its next fsync ends the node.
void Mix::fail_fsync(int node) {
  write_text(switch_of("fails-", node), "");
  node_lasts(node, between(500ms, 3s), Ends::kByItself, [this, node] {
    chaos_.cluster.kill(node);
    std::filesystem::remove(switch_of("fails-", node));
  });
}

void Mix::freeze(int node) {
  const std::shared_ptr<LoopDisk::Frozen> frozen(new LoopDisk::Frozen(disk(node).freeze()));
  node_lasts(node, between(500ms, 5s), Ends::kNo, [frozen] { frozen->thaw(); });
}

void Mix::fill(int node) {
  disk(node).fill(below(64));
  node_lasts(node, between(500ms, 4s), Ends::kByItself, [this, node] { disk(node).free_space(); });
}

void Mix::cut_power(int node) {
  disk(node).cut_power();
  node_lasts(node, between(0ms, 3s), Ends::kByItself, [this, node] {
    chaos_.cluster.kill(node);
    disk(node).restore_power();
  });
}

void Mix::cut_all_power(int /*node*/) {
  for (const int node : chaos_.cluster.nodes()) {
    if (!struck_.contains(node)) cut_power(node);
  }
}

void run_mix(bool forwards) {
  const Milliseconds length(1000 * variable_or("CHAOS_SECONDS", 20));
  const std::uint64_t seed = variable_or("CHAOS_SEED", std::random_device{}());
  report("CHAOS_SECONDS=", length.count() / 1000, " CHAOS_SEED=", seed,
         no_disks_because() ? "; without faults of real disks: " + *no_disks_because() : "");
  Mix mix(seed, !no_disks_because(), forwards);
  mix.run(length);
}

TEST_CASE("chaos, a mix of all at random", "[chaos][mix]") { run_mix(false); }

TEST_CASE("chaos, the mix where clients stay with any node, which asks the leader for them",
          "[chaos][mix]") {
  run_mix(true);
}

}  // namespace
}  // namespace seshat::tests
