// What one seed means: the cluster, its weather, and every fault and client operation, all drawn
// before the run begins.
//
// Faults, operations, changes of members and scripts are numbered in one row, in this order: these are the
// decisions that can be switched off one by one (--without), by hand or by the shrinker.
#ifndef SESHAT_TESTS_SIM_SCENARIO_HPP
#define SESHAT_TESTS_SIM_SCENARIO_HPP

#include <algorithm>
#include <array>
#include <cstdint>
#include <iterator>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "seshat/raft.hpp"
#include "sim/world.hpp"

namespace seshat::sim {

// ---- Faults ---------------------------------------------------------------------------------------

enum class FaultKind : std::uint8_t {
  kIsolate,      // one node, both ways; clients still reach it
  kDeaf,         // one node hears nobody
  kMute,         // nobody hears one node
  kCutPair,      // two nodes, both ways: a partial partition
  kOneWay,       // from one node to another
  kSplit,        // two camps
  kFlap,         // the links of one node, on and off
  kLossy,        // most messages are lost
  kSlowNetwork,  // messages take a tenth of a second and more
  kBreakStream,  // streams of one node break and are dialed again
  kKill,         // the process dies; what it wrote stays
  kPowerCut,     // the machine dies; what was not synced is lost from a drawn point on
  kPowerCutAll,  // all machines at once
  kRestart,      // an orderly stop and start
  kPause,        // the process stands still, its clock does not
  kSlowDisk,     // each write and sync takes up to seconds
  kFrozenDisk,   // nothing is written or synced
  kSyncFails,    // the next fsync fails
  kWriteFails,   // the next write fails
  kFullDisk,     // every write fails for a while
  kTransfer,     // a leader hands over
  kWallClock,    // the time of day jumps
  kClientsCut,   // clients lose sight of a node; replies are lost
  kDazed,        // the next node that asks for votes stands still; see draw_dazes
};
inline constexpr std::size_t kFaultKinds = 24;
inline constexpr std::size_t kDrawnFaultKinds = kFaultKinds - 1;  // by draw_kinds

inline constexpr std::array<std::string_view, kFaultKinds> kFaultNames = {
    "isolate",          "deaf",         "mute",        "cut pair",
    "one way",          "split",        "flap",        "lossy",
    "slow net",         "break stream", "kill",        "power cut",
    "power cut of all", "restart",      "pause",       "slow disk",
    "frozen disk",      "fsync fails",  "write fails", "full disk",
    "transfer",         "wall clock",   "clients cut", "dazed candidate"};

// Whom it meets is found when it comes.
enum class Aim : std::uint8_t { kAnyone, kLeader, kFollower };

struct Fault {
  FaultKind kind = FaultKind::kIsolate;
  Aim aim = Aim::kAnyone;
  std::uint64_t at_us = 0;
  std::uint64_t lasts_us = 0;
  std::uint64_t raw = 0;  // picks nodes, camps, points
  bool resets = false;    // the streams it cuts break at once, as with a firewall that says so
};

inline std::string describe(const Fault& fault) {
  static constexpr const char* kAims[] = {"anyone", "leader", "follower"};
  return std::string(kFaultNames[static_cast<std::size_t>(fault.kind)]) + ", " +
         kAims[static_cast<std::size_t>(fault.aim)] + ", " +
         std::to_string(fault.lasts_us / kMillisecond) + " ms" + (fault.resets ? ", resets" : "");
}

// ---- Clients --------------------------------------------------------------------------------------

enum class ClientAction : std::uint8_t { kGet, kSet, kDelete };

struct ClientOperation {
  ClientAction action = ClientAction::kGet;
  std::uint64_t key = 0;
  std::uint64_t think_us = 0;  // before it
  std::uint64_t raw = 0;       // whether it goes elsewhere than to the leader, and where
};

// What a client with a connection of its own asks for; see transactors.hpp.
enum class ScriptKind : std::uint8_t { kCommand, kTransaction, kWatch };

struct ClientScript {
  ScriptKind kind = ScriptKind::kCommand;
  std::uint64_t family = 0;    // of keys
  std::uint64_t think_us = 0;  // before it
  std::uint64_t raw = 0;       // commands, keys, times to live
};

// ---- Members and logs -----------------------------------------------------------------------------

// What an administrator wants; from whom to whom is found when it comes.
enum class ChangeKind : std::uint8_t {
  kAdd,     // one node more votes
  kLearn,   // ... or only learns
  kRemove,  // one goes, whoever it is
  kRemoveLeader,
  kSwap,    // some go and others come, at once
  kShrink,  // one stays
  kAny,     // everybody's role is drawn
  kWipe,    // one loses its disk; it may join again later
};
inline constexpr std::size_t kChangeKinds = 8;
inline constexpr std::array<std::string_view, kChangeKinds> kChangeNames = {
    "add", "add a learner", "remove", "remove the leader", "swap", "shrink to one", "any", "wipe"};

struct MemberChange {
  ChangeKind kind = ChangeKind::kAdd;
  std::uint64_t at_us = 0;
  std::uint64_t raw = 0;
  bool by_learners = true;  // who comes to vote learns first, and catches up
};

// When logs are cut; min_entries 0: never.
struct Compaction {
  std::uint64_t interval_ticks = 0;
  std::uint64_t min_entries = 0;          // that a cut takes
  std::uint64_t keep_entries = 0;         // behind it
  std::uint64_t regardless_permille = 0;  // of what other members need, as at the largest size
  std::uint64_t rows = 1;                 // in a piece of a snapshot
};

// ---- A scenario -----------------------------------------------------------------------------------

struct NetworkWeather {
  std::uint64_t min_delay_us = 100;
  std::uint64_t max_delay_us = 1000;
  std::uint64_t loss_permille = 0;
  std::uint64_t duplicate_permille = 0;
  std::uint64_t straggler_permille = 0;  // come up to half a second late
  bool in_order = true;                  // as one stream delivers them
};

struct DiskWeather {
  std::uint64_t write_us = 50;
  std::uint64_t min_sync_us = 200;
  std::uint64_t max_sync_us = 3000;
};

struct NodeClock {
  std::int64_t drift_ppm = 0;
  std::uint64_t boot_ms = 0;        // what it shows when the run begins
  std::int64_t wall_offset_ms = 0;  // of the time of day
};

struct Scenario {
  std::uint64_t seed = 0;
  std::size_t nodes = 3;
  raft::Config raft;  // but for id, voters, seed
  std::uint64_t request_timeout_ms = 3000;
  std::uint64_t client_timeout_us = 4 * kSecond;
  std::size_t restored_tail_size_bytes = 4 << 20;
  bool encode = false;  // messages and stored records go through codec.hpp
  NetworkWeather network;
  DiskWeather disk;
  std::vector<NodeClock> clocks;
  std::vector<Fault> faults;
  std::uint64_t faults_end_us = 0;
  std::vector<std::vector<ClientOperation>> clients;
  std::uint64_t keys = 3;
  std::uint64_t keys_with_delete = 1;  // the first ones
  bool hunts_leases = false;           // see draw_hunt
  bool ends_without_power = false;     // all machines lose power at last; nobody writes after
  std::optional<Fault> lasting;        // of a minority, after the others: writes must go on
  std::size_t founders = 3;            // nodes 1, 2, ...; the others wait to be let in
  bool records_founders = false;       // as the first change
  std::vector<MemberChange> changes;
  Compaction compaction;
  std::uint64_t families = 0;  // of keys, for the next
  std::vector<std::vector<ClientScript>> transactors;
  std::int64_t max_wall_jump_ms = 30'000;
  std::uint64_t gathering_permille = 0;  // of turns: what was proposed waits for the next one

  [[nodiscard]] bool members_change() const { return !changes.empty(); }
  [[nodiscard]] std::size_t first_change() const {
    std::size_t count = faults.size();
    for (const auto& client : clients) count += client.size();
    return count;
  }
  [[nodiscard]] std::size_t first_script() const { return first_change() + changes.size(); }
  [[nodiscard]] std::size_t decisions() const {
    std::size_t count = first_script();
    for (const auto& scripts : transactors) count += scripts.size();
    return count;
  }
};

// Clocks may drift apart by as much as the 0.85 between lease and withholding allows:
// (1 + d) / (1 - d) <= 1 / 0.85.
inline constexpr std::int64_t kMaxDriftPpm = 80'000;

namespace scenario_detail {

inline void draw_raft(Random random, Scenario& scenario) {
  raft::Config& raft = scenario.raft;
  switch (random.below(4)) {
    case 0:
      break;  // the defaults
    case 1:   // as short as withholding allows
      raft.election_timeout_min_ms = 300;
      raft.election_timeout_max_ms = random.between(350, 600);
      raft.lease_ms = 255;
      break;
    case 2:
      raft.heartbeat_interval_ms = 50;
      raft.vote_withhold_ms = 200;
      raft.lease_ms = 170;
      raft.election_timeout_min_ms = random.between(200, 300);
      raft.election_timeout_max_ms = random.between(350, 500);
      break;
    default:
      raft.heartbeat_interval_ms = random.between(50, 150);
      raft.vote_withhold_ms = random.between(300, 500);
      raft.lease_ms = raft.vote_withhold_ms * 85 / 100;
      raft.election_timeout_min_ms = random.between(500, 700);
      raft.election_timeout_max_ms = random.between(700, 1500);
      break;
  }
  raft.lease_reads = !random.chance(150);
  raft.rests = random.chance(500);
  if (random.chance(350)) {  // small bounds: many messages, fetches, back pressure
    raft.max_append_size_bytes = random.scattered(64, 2000);
    raft.max_inflight_size_bytes = random.scattered(200, 8000);
    raft.max_apply_size_bytes = random.scattered(64, 4000);
    raft.applied_tail_size_bytes = random.scattered(1, 4000);
    scenario.restored_tail_size_bytes = random.scattered(1, 4000);
    if (random.chance(300)) raft.max_log_memory_size_bytes = random.scattered(4000, 32000);
  }
}

inline void draw_weather(Random random, Scenario& scenario) {
  NetworkWeather& network = scenario.network;
  network.min_delay_us = 100;
  network.max_delay_us = random.scattered(200, 20 * kMillisecond);
  if (random.chance(500)) network.loss_permille = random.scattered(1, 100);
  if (random.chance(500)) network.duplicate_permille = random.scattered(1, 200);
  if (random.chance(300)) network.straggler_permille = random.scattered(1, 50);
  network.in_order = random.chance(500);
  scenario.disk.write_us = random.scattered(10, 500);
  scenario.disk.max_sync_us = random.scattered(300, 30 * kMillisecond);
  scenario.encode = random.chance(150);
}

inline void draw_clocks(Random random, Scenario& scenario) {
  const bool drifting = random.chance(600);
  for (std::size_t i = 0; i < scenario.nodes; ++i) {
    NodeClock clock;
    if (drifting) {
      const auto extremes = static_cast<std::int64_t>(random.below(4));
      clock.drift_ppm = extremes == 0   ? kMaxDriftPpm
                        : extremes == 1 ? -kMaxDriftPpm
                                        : static_cast<std::int64_t>(random.below(
                                              2 * static_cast<std::uint64_t>(kMaxDriftPpm))) -
                                              kMaxDriftPpm;
    }
    clock.boot_ms = random.between(1, 1'000'000);
    clock.wall_offset_ms = static_cast<std::int64_t>(random.below(60'000)) - 30'000;
    scenario.clocks.push_back(clock);
  }
}

inline bool is_brief(FaultKind kind) {
  return kind == FaultKind::kKill || kind == FaultKind::kPowerCut ||
         kind == FaultKind::kPowerCutAll || kind == FaultKind::kRestart;
}

inline Fault draw_fault(Random& random, const std::vector<FaultKind>& kinds, std::uint64_t at_us) {
  Fault fault;
  fault.kind = kinds[random.below(kinds.size())];
  const std::uint64_t aim = random.below(10);
  fault.aim = aim < 5 ? Aim::kLeader : aim < 7 ? Aim::kFollower : Aim::kAnyone;
  fault.at_us = at_us;
  fault.lasts_us = random.scattered(is_brief(fault.kind) ? 5 * kMillisecond : 20 * kMillisecond,
                                    is_brief(fault.kind) ? 2 * kSecond : 4 * kSecond);
  fault.raw = random.next();
  fault.resets = random.chance(600);
  return fault;
}

// Each seed knows some kinds of faults only: they reach deeper than a bit of everything.
inline std::vector<FaultKind> draw_kinds(Random& random) {
  std::vector<FaultKind> kinds;
  const std::uint64_t taken_permille = random.chance(300) ? 700 : 250;
  while (kinds.empty()) {
    for (std::size_t kind = 0; kind < kDrawnFaultKinds; ++kind) {
      if (random.chance(taken_permille)) kinds.push_back(static_cast<FaultKind>(kind));
    }
  }
  return kinds;
}

// Now and then one comes on the heels of another: so do their effects meet.
inline void draw_faults(Random random, Scenario& scenario) {
  const std::vector<FaultKind> kinds = draw_kinds(random);
  scenario.faults_end_us = random.between(6, 20) * kSecond;
  const std::uint64_t mean_gap_us = random.scattered(150 * kMillisecond, 2 * kSecond);
  std::uint64_t at_us = 1500 * kMillisecond;
  while (scenario.faults.size() < 60) {
    at_us += random.chance(250) ? random.between(1, 150) * kMillisecond
                                : random.between(mean_gap_us / 4, mean_gap_us * 2);
    if (at_us >= scenario.faults_end_us) break;
    scenario.faults.push_back(draw_fault(random, kinds, at_us));
  }
}

// Who asked for votes takes in at once what came meanwhile: the votes, a client's write, and the leader
// of a later term. So leadership comes, does something, and goes within one turn.
inline void draw_dazes(Random random, Scenario& scenario) {
  std::uint64_t at_us = random.between(1500, 2500) * kMillisecond;
  while (at_us < scenario.faults_end_us) {
    Fault daze;
    daze.kind = FaultKind::kDazed;
    daze.at_us = at_us;
    daze.lasts_us =
        random.between(500, 3000) * scenario.raft.election_timeout_max_ms * kMillisecond / 1000;
    Fault transfer;
    transfer.kind = FaultKind::kTransfer;
    transfer.aim = Aim::kLeader;
    transfer.at_us = at_us + kMillisecond;
    scenario.faults.push_back(daze);
    scenario.faults.push_back(transfer);
    at_us += daze.lasts_us + random.between(500, 2000) * kMillisecond;
  }
}

// A minority, or what one node does to the rest, for good.
inline void draw_lasting(Random random, Scenario& scenario) {
  static constexpr FaultKind kLasting[] = {
      FaultKind::kIsolate,  FaultKind::kDeaf,      FaultKind::kMute, FaultKind::kCutPair,
      FaultKind::kOneWay,   FaultKind::kFlap,      FaultKind::kKill, FaultKind::kPause,
      FaultKind::kSlowDisk, FaultKind::kFrozenDisk};
  Fault fault;
  fault.kind = kLasting[random.below(std::size(kLasting))];
  fault.aim = random.chance(700) ? Aim::kLeader : Aim::kAnyone;
  fault.lasts_us = 3600 * kSecond;
  fault.raw = random.next();
  fault.resets = random.chance(500);
  scenario.lasting = fault;
}

// A lease is in danger only in the few milliseconds between its end and the end of withholding: the
// leader's clock is slow, all others are fast, the rest is quick, and those who lose the leader
// hear of it at once.
inline void draw_hunt(Random random, Scenario& scenario) {
  scenario.hunts_leases = true;
  scenario.raft.lease_reads = true;
  scenario.raft.heartbeat_interval_ms = random.between(30, 120);
  scenario.raft.vote_withhold_ms = 300;
  scenario.raft.lease_ms = 255;
  scenario.raft.election_timeout_min_ms = 300;
  scenario.raft.election_timeout_max_ms = random.between(310, 500);
  scenario.network.max_delay_us = random.scattered(150, 2 * kMillisecond);
  scenario.network.straggler_permille = 0;
  scenario.disk.max_sync_us = random.scattered(250, 2 * kMillisecond);
  const std::uint64_t slow = random.below(scenario.nodes);
  for (std::size_t i = 0; i < scenario.nodes; ++i) {
    scenario.clocks[i].drift_ppm = i == slow ? -kMaxDriftPpm : kMaxDriftPpm;
  }
  static constexpr FaultKind kPool[] = {
      FaultKind::kIsolate, FaultKind::kIsolate,     FaultKind::kMute,        FaultKind::kDeaf,
      FaultKind::kCutPair, FaultKind::kSlowNetwork, FaultKind::kTransfer,    FaultKind::kKill,
      FaultKind::kPause,   FaultKind::kRestart,     FaultKind::kBreakStream, FaultKind::kPowerCut};
  std::vector<FaultKind> kinds;
  while (kinds.size() < 4) kinds.push_back(kPool[random.below(std::size(kPool))]);
  const std::uint64_t plot = random.below(4);
  // Answers that come late, and then a leader that is lost.
  if (plot == 0) kinds = {FaultKind::kSlowNetwork, FaultKind::kIsolate};
  // A follower that hears the leader no more asks another one that has just been restarted.
  if (plot == 1) kinds = {FaultKind::kCutPair, FaultKind::kKill, FaultKind::kPowerCut};
  scenario.faults.clear();
  std::uint64_t at_us = 1500 * kMillisecond;
  while (at_us < scenario.faults_end_us && scenario.faults.size() < 60) {
    Fault fault = draw_fault(random, kinds, at_us);
    fault.resets = random.chance(800);
    if (plot <= 1) fault.aim = is_brief(fault.kind) ? Aim::kFollower : Aim::kLeader;
    fault.lasts_us = is_brief(fault.kind)
                         ? random.between(1, 60) * kMillisecond
                         : random.scattered(100, plot == 1 ? 3000 : 1200) * kMillisecond;
    scenario.faults.push_back(fault);
    at_us += random.chance(400) ? random.between(1, 250) * kMillisecond
                                : random.between(300, 1200) * kMillisecond;
  }
}

inline void draw_clients(Random random, Scenario& scenario) {
  scenario.keys = random.between(2, 8);
  scenario.keys_with_delete = random.below(scenario.keys + 1);
  const std::uint64_t clients = random.between(2, 6);
  const std::uint64_t think_us = random.scattered(5 * kMillisecond, 200 * kMillisecond);
  const std::uint64_t gets_permille = random.between(200, 800);
  for (std::uint64_t c = 0; c < clients; ++c) {
    std::vector<ClientOperation> operations;
    std::uint64_t thought_us = 0;
    while (operations.size() < 160 && thought_us < scenario.faults_end_us) {
      ClientOperation operation;
      operation.key = random.below(scenario.keys);
      operation.action = random.chance(gets_permille) ? ClientAction::kGet : ClientAction::kSet;
      const bool may_delete = operation.key < scenario.keys_with_delete;
      if (may_delete && operation.action == ClientAction::kSet && random.chance(300)) {
        operation.action = ClientAction::kDelete;
      }
      operation.think_us = random.between(think_us / 8, think_us * 2);
      operation.raw = random.next();
      thought_us += operation.think_us;
      operations.push_back(operation);
    }
    scenario.clients.push_back(std::move(operations));
  }
}

// In half of them the clocks are close to each other, so that it shows when a key expires too early or
// too late; in the others all that shows is that what is gone stays gone.
inline void draw_transactors(Random random, Scenario& scenario) {
  scenario.families = random.between(1, 2);
  const std::uint64_t clients = random.between(2, 4);
  const std::uint64_t think_us = random.scattered(20 * kMillisecond, 200 * kMillisecond);
  for (std::uint64_t c = 0; c < clients; ++c) {
    std::vector<ClientScript> scripts;
    std::uint64_t thought_us = 0;
    while (scripts.size() < 100 && thought_us < scenario.faults_end_us) {
      ClientScript script;
      script.kind = static_cast<ScriptKind>(random.below(3));
      script.family = random.below(scenario.families);
      script.think_us = random.between(think_us / 8, think_us * 2);
      script.raw = random.next();
      thought_us += script.think_us;
      scripts.push_back(script);
    }
    scenario.transactors.push_back(std::move(scripts));
  }
  if (random.chance(500)) return;
  scenario.max_wall_jump_ms = 60;
  for (NodeClock& clock : scenario.clocks) {
    clock.wall_offset_ms /= 500;
    if (random.chance(700)) clock.drift_ppm /= 20;
  }
}

inline void draw_compaction(Random random, Scenario& scenario) {
  Compaction& compaction = scenario.compaction;
  compaction.interval_ticks = random.scattered(1, 40);
  compaction.min_entries = random.scattered(1, 30);
  compaction.keep_entries = random.chance(500) ? 0 : random.scattered(1, 30);
  compaction.regardless_permille = random.chance(300) ? 1000 : random.below(500);
  compaction.rows = random.scattered(1, 8);
  if (random.chance(500)) {  // little in memory, so that it is the disk that knows no more
    scenario.raft.applied_tail_size_bytes = random.scattered(1, 2000);
    scenario.restored_tail_size_bytes = random.scattered(1, 2000);
  }
}

inline void draw_changes(Random random, Scenario& scenario) {
  scenario.records_founders = random.chance(500);
  const std::uint64_t mean_gap_us = random.scattered(100 * kMillisecond, 3 * kSecond);
  const bool by_learners = random.chance(600);
  std::uint64_t at_us = 500 * kMillisecond;
  while (scenario.changes.size() < 40) {
    at_us += random.between(mean_gap_us / 4, mean_gap_us * 2);
    if (!scenario.changes.empty() && at_us >= scenario.faults_end_us) break;
    MemberChange change;
    change.kind = static_cast<ChangeKind>(random.below(kChangeKinds));
    change.at_us = std::min(at_us, scenario.faults_end_us - 1);
    change.raw = random.next();
    change.by_learners = by_learners;
    scenario.changes.push_back(change);
  }
}

}  // namespace scenario_detail

// Half of the seeds have members that change, logs that are cut, or both; nearly half, transactions and
// keys that expire; one in ten or so, dazed candidates; three in ten, leaders that gather. What they add
// is drawn from streams of their own: in the others nothing else is drawn.
inline Scenario draw_scenario(std::uint64_t seed) {
  Scenario scenario;
  scenario.seed = seed;
  Random random = Random(seed).fork(0x5ce);
  const std::uint64_t size = random.below(10);
  scenario.nodes = size < 6 ? 3 : size < 9 ? 5 : 7;
  Random added = Random(seed).fork(0x3e3b);
  const std::uint64_t what = added.below(8);
  const bool members_change = what >= 4 && what <= 6;
  if (members_change) scenario.nodes = added.between(3, 7);
  scenario.founders = scenario.nodes;
  if (members_change) {
    scenario.founders = added.between(1, std::min<std::size_t>(5, scenario.nodes));
  }
  scenario_detail::draw_raft(random.fork(1), scenario);
  scenario_detail::draw_weather(random.fork(2), scenario);
  scenario_detail::draw_clocks(random.fork(3), scenario);
  scenario_detail::draw_faults(random.fork(4), scenario);
  if (random.chance(300)) scenario_detail::draw_lasting(random.fork(6), scenario);
  scenario.ends_without_power = random.chance(400);
  if (random.chance(250)) scenario_detail::draw_hunt(random.fork(7), scenario);
  scenario_detail::draw_clients(random.fork(5), scenario);
  if (random.chance(200)) scenario.request_timeout_ms = random.between(200, 1000);
  if (random.chance(400)) scenario.client_timeout_us = random.between(100, 1500) * kMillisecond;
  if (members_change) scenario_detail::draw_changes(added.fork(1), scenario);
  if (what >= 5) scenario_detail::draw_compaction(added.fork(2), scenario);
  Random transacting = Random(seed).fork(0x7a5a);
  const bool hunts = scenario.hunts_leases;  // its clocks are as they have to be
  if (!hunts && transacting.chance(500)) scenario_detail::draw_transactors(transacting, scenario);
  Random dazing = Random(seed).fork(0xda2e);
  if (!hunts && dazing.chance(125)) scenario_detail::draw_dazes(dazing, scenario);
  Random gathering = Random(seed).fork(0x9a74);
  if (gathering.chance(300)) scenario.gathering_permille = gathering.between(100, 950);
  return scenario;
}

inline std::string describe(const Scenario& scenario) {
  const auto n = [](std::uint64_t number) { return std::to_string(number); };
  const raft::Config& raft = scenario.raft;
  std::string text = "seed " + n(scenario.seed) + ": " + n(scenario.nodes) + " nodes, heartbeat " +
                     n(raft.heartbeat_interval_ms) + ", election " +
                     n(raft.election_timeout_min_ms) + " .. " + n(raft.election_timeout_max_ms) +
                     ", withholding " + n(raft.vote_withhold_ms) + ", lease " +
                     (raft.lease_reads ? n(raft.lease_ms) : "off") + " ms\n";
  const NetworkWeather& network = scenario.network;
  text += "network: up to " + n(network.max_delay_us) + " us, lost " + n(network.loss_permille) +
          ", doubled " + n(network.duplicate_permille) + ", late " + n(network.straggler_permille) +
          " of 1000" + (network.in_order ? ", in order\n" : ", in any order\n");
  text += "disk: a sync takes up to " + n(scenario.disk.max_sync_us) + " us; clocks:";
  for (const NodeClock& clock : scenario.clocks) text += " " + std::to_string(clock.drift_ppm);
  text += " ppm\n";
  for (std::size_t i = 0; i < scenario.faults.size(); ++i) {
    text += "#" + n(i) + " at " + n(scenario.faults[i].at_us / kMillisecond) +
            " ms: " + describe(scenario.faults[i]) + "\n";
  }
  if (scenario.gathering_permille > 0) {
    text += "leaders gather in " + n(scenario.gathering_permille) + " of 1000 turns\n";
  }
  if (scenario.compaction.min_entries > 0) {
    const Compaction& cut = scenario.compaction;
    text += "logs are cut by " + n(cut.min_entries) + " entries, " + n(cut.keep_entries) +
            " are kept, every " + n(cut.interval_ticks) + " ticks, " + n(cut.regardless_permille) +
            " of 1000 regardless; pieces of snapshots: " + n(cut.rows) + " rows\n";
  }
  if (scenario.members_change()) {
    text += "founders: " + n(scenario.founders) + (scenario.records_founders ? ", recorded" : "") +
            (scenario.changes.front().by_learners ? "; voters learn first\n" : "\n");
  }
  for (std::size_t i = 0; i < scenario.changes.size(); ++i) {
    text += "#" + n(scenario.first_change() + i) + " at " +
            n(scenario.changes[i].at_us / kMillisecond) + " ms: members, " +
            std::string(kChangeNames[static_cast<std::size_t>(scenario.changes[i].kind)]) + "\n";
  }
  if (scenario.lasting) text += "lasting: " + describe(*scenario.lasting) + "\n";
  std::size_t first = scenario.faults.size();
  for (const auto& client : scenario.clients) {
    text += "#" + n(first) + " .. #" + n(first + client.size()) + ": a client\n";
    first += client.size();
  }
  first = scenario.first_script();
  for (const auto& scripts : scenario.transactors) {
    text += "#" + n(first) + " .. #" + n(first + scripts.size()) + ": a client with transactions\n";
    first += scripts.size();
  }
  return text;
}

}  // namespace seshat::sim

#endif  // SESHAT_TESTS_SIM_SCENARIO_HPP
