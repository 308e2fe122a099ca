// The simulator's own tests, and the seeds that every `make check` runs.
#include <csignal>
#include <cstdio>
#include <set>
#include <string>

#include "catch.hpp"
#include "sim/shrink.hpp"
#include "sim/simulation.hpp"

namespace seshat::sim {
namespace {

// A broken invariant of the product ends the process: the seed must be told before that.
std::uint64_t running_seed = 0;
void (*next_handler)(int) = SIG_DFL;

void tell_seed(int signal) {
  std::fprintf(stderr, "replay: scripts/sim --seed %llu --trace\n",
               static_cast<unsigned long long>(running_seed));
  std::signal(signal, next_handler);
  std::raise(signal);
}

void run_seeds(std::uint64_t from, std::uint64_t to) {
  next_handler = std::signal(SIGABRT, tell_seed);
  Counters sum;
  for (running_seed = from; running_seed <= to; ++running_seed) {
    const Result result = run(running_seed, {});
    sum.add(result.counters);
    INFO("replay: scripts/sim --seed " << running_seed << " --trace");
    INFO(result.detail);
    CHECK(!result.violation);
  }
  std::signal(SIGABRT, next_handler);
  // Neither seeds that do nothing nor a checker that gives up would show anything.
  CHECK(sum.undecided == 0);
  CHECK(sum.elections > 2 * (to - from));
  CHECK(sum.operations > 100 * (to - from));
  CHECK(sum.faults > 5 * (to - from));
  // In three seeds of eight members change, in three of eight logs are cut.
  CHECK(sum.changes > 5 * (to - from));
  CHECK(sum.snapshots > (to - from) / 2);
  CHECK(sum.cuts > 5 * (to - from));
  CHECK(sum.wipes > (to - from) / 5);
  // In nearly half, there are transactions and keys that expire.
  CHECK(sum.transactions > 10 * (to - from));
  CHECK(sum.watches_refused > (to - from));
  CHECK(sum.removals > (to - from));
}

Mutation put(const std::string& key, const std::string& value) {
  Mutation mutation;
  mutation.applied.emplace(kFirstDataGroup, Changes{{key, value}});
  return mutation;
}

}  // namespace

TEST_CASE("seeds 1 to 400 break no promise", "[sim]") { run_seeds(1, 400); }

TEST_CASE("the same seed gives the same run, byte for byte", "[sim]") {
  Options traced;
  traced.trace = Trace::Mode::kHash;
  std::set<std::uint64_t> hashes;
  for (const std::uint64_t seed : {7, 8, 9, 10, 11}) {
    const Result first = run(seed, traced);
    const Result second = run(seed, traced);
    CHECK(first.trace_lines > 1000);
    CHECK(first.trace_hash == second.trace_hash);
    CHECK(run(seed, {}).counters.events == first.counters.events);  // tracing changes nothing
    hashes.insert(first.trace_hash);
  }
  CHECK(hashes.size() == 5);
}

TEST_CASE("a decision that is switched off is not carried out", "[sim]") {
  const Scenario scenario = draw_scenario(3);
  Options calm;
  for (std::size_t i = 0; i < scenario.decisions(); ++i) calm.without.insert(i);
  const Result result = run(3, calm);
  CHECK(!result.violation);
  CHECK(result.counters.operations == 0);
  CHECK(result.counters.faults == (scenario.lasting ? 1 : 0));
}

TEST_CASE("shrinking finds the decisions that matter", "[sim]") {
  const auto fails = [](const std::set<std::size_t>& without) {
    return without.contains(3) || without.contains(17) ? std::string() : std::string("broken");
  };
  const Shrunk shrunk = shrink(100, fails);
  CHECK(shrunk.outcome == "broken");
  CHECK(shrunk.without.size() == 98);
  CHECK_FALSE(shrunk.without.contains(3));
  CHECK_FALSE(shrunk.without.contains(17));
}

TEST_CASE("lists of decisions are read as they are written", "[sim]") {
  CHECK(parse_list("3,7,12-15") == std::set<std::size_t>{3, 7, 12, 13, 14, 15});
  CHECK(format_list({3, 7, 12, 13, 14, 15}) == "3,7,12-15");
  CHECK(parse_list(format_list({0, 1, 5})) == std::set<std::size_t>{0, 1, 5});
}

TEST_CASE("a power cut keeps what was synced and a prefix of the rest", "[sim]") {
  for (const std::size_t kept : {0, 1, 2}) {
    Disk disk;
    disk.write(put("a", "1"));
    disk.sync(disk.last_write());
    disk.write(put("a", "2"));
    disk.write(put("a", "3"));
    disk.cut_power(kept);
    CHECK(disk.written().groups.at(kFirstDataGroup).records.at("a") == std::to_string(1 + kept));
    CHECK(hash_of(disk.durable().groups.at(kFirstDataGroup).records) ==
          hash_of(disk.written().groups.at(kFirstDataGroup).records));
  }
}

TEST_CASE("a sync covers what was written before it began", "[sim]") {
  Disk disk;
  disk.write(put("a", "1"));
  const std::uint64_t up_to = disk.last_write();
  disk.write(put("b", "1"));
  disk.sync(up_to);
  CHECK(disk.durable().groups.at(kFirstDataGroup).records.contains("a"));
  CHECK_FALSE(disk.durable().groups.at(kFirstDataGroup).records.contains("b"));
}

TEST_CASE("a paused process does nothing until it goes on, and then in order", "[sim]") {
  Life life;
  std::string done;
  life.pause();
  life.run([&] { done += "a"; });
  life.run([&] { done += "b"; });
  CHECK(done.empty());
  life.resume();
  CHECK(done == "ab");
  life.end();
  life.run([&] { done += "c"; });
  CHECK(done == "ab");
}

TEST_CASE("the extremes of drifting clocks stay within the lease's margin", "[sim]") {
  const double ahead = 1 + kMaxDriftPpm / 1e6;
  const double behind = 1 - kMaxDriftPpm / 1e6;
  CHECK(0.85 / behind < 1 / ahead);
  Trace off(Trace::Mode::kOff);
  World world(1, off);
  const MachineClock fast(world, {kMaxDriftPpm, 1000, 0});
  CHECK(fast.now_ms() == 1000);
  world.run_until(100 * kSecond, [] { return false; });
  CHECK(fast.now_ms() == 1000 + 108'000);
}

}  // namespace seshat::sim
