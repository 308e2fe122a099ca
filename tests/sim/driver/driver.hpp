// What the program `sim` does: one seed, many seeds, or the shrinking of a failing one.
#ifndef SESHAT_TESTS_SIM_DRIVER_DRIVER_HPP
#define SESHAT_TESTS_SIM_DRIVER_DRIVER_HPP

#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <set>
#include <string>
#include <vector>

#include "sim/shrink.hpp"
#include "sim/simulation.hpp"

namespace seshat::sim {

inline constexpr const char* kHelp =
    R"(sim - runs simulated clusters; one seed decides everything

  sim --seed N [--trace] [--without LIST]   one run; LIST switches decisions off: 3,7,12-40
  sim --seed N --describe                   what the seed stands for
  sim --shrink N                            the fewest decisions with which seed N still fails
  sim --seeds N --from M [--seconds S]      runs seeds M, M+1, ..., at most N of them (0: no end),
                                            for at most S seconds; ends at the first violation
  sim ... --members                         ... of those seeds only in which members change

Exit: 0 no violation, 1 a violation, 2 a wrong argument.
)";

struct Arguments {
  std::uint64_t seed = 0;
  std::uint64_t count = 0;
  std::uint64_t from = 1;
  std::uint64_t seconds = 0;
  std::set<std::size_t> without;
  bool members = false;
  bool one = false;
  bool many = false;
  bool shrink = false;
  bool trace = false;
  bool describe = false;
  bool help = false;
  std::string wrong;
};

inline Arguments parse(const std::vector<std::string>& args) {
  Arguments parsed;
  for (std::size_t i = 0; i < args.size(); ++i) {
    const auto number = [&]() -> std::uint64_t {
      if (i + 1 >= args.size()) return parsed.wrong = args[i] + " needs a number", 0;
      return std::strtoull(args[++i].c_str(), nullptr, 10);
    };
    if (args[i] == "--seed") {
      parsed.one = true;
      parsed.seed = number();
    } else if (args[i] == "--shrink") {
      parsed.shrink = true;
      parsed.seed = number();
    } else if (args[i] == "--seeds") {
      parsed.many = true;
      parsed.count = number();
    } else if (args[i] == "--from") {
      parsed.from = number();
    } else if (args[i] == "--seconds") {
      parsed.seconds = number();
    } else if (args[i] == "--without" && i + 1 < args.size()) {
      parsed.without = parse_list(args[++i]);
    } else if (args[i] == "--members") {
      parsed.members = true;
    } else if (args[i] == "--trace") {
      parsed.trace = true;
    } else if (args[i] == "--describe") {
      parsed.describe = true;
    } else if (args[i] == "--help") {
      parsed.help = true;
    } else {
      parsed.wrong = "unknown argument " + args[i];
    }
  }
  return parsed;
}

// A broken invariant of the product aborts the process: say which run it was.
inline std::uint64_t running_seed = 0;
inline const char* running_replay = "";

extern "C" inline void on_abort(int) {
  std::fprintf(stdout, "VIOLATION seed %llu: broken invariant (above)\n",
               static_cast<unsigned long long>(running_seed));
  std::fprintf(stdout, "replay: scripts/sim --seed %llu%s --trace\n",
               static_cast<unsigned long long>(running_seed), running_replay);
  std::fflush(stdout);
  std::_Exit(1);
}

inline void print(const Counters& counters, std::uint64_t seeds, double wall_seconds) {
  const auto n = [](std::uint64_t number) { return static_cast<unsigned long long>(number); };
  const double hours = static_cast<double>(counters.simulated_us) / kSecond / 3600;
  std::printf(
      "%llu seeds, %.2f simulated hours in %.1f s (%.1f seeds/s, %.2f hours/s)\n"
      "%llu faults, %llu restarts, %llu elections, %llu messages (%llu lost), %llu entries "
      "committed\n"
      "%llu operations acknowledged, %llu of unknown outcome, %llu refused to the end, %llu "
      "histories undecided\n"
      "%llu seeds with %llu changes of members, %llu snapshots installed, %llu cuts of logs, %llu "
      "disks lost\n"
      "%llu transactions, %llu not done for a watched key, %llu removals of what expired\n",
      n(seeds), hours, wall_seconds, static_cast<double>(seeds) / wall_seconds,
      hours / wall_seconds, n(counters.faults), n(counters.restarts), n(counters.elections),
      n(counters.messages), n(counters.lost_messages), n(counters.entries), n(counters.operations),
      n(counters.unknown), n(counters.refused), n(counters.undecided), n(counters.changing),
      n(counters.changes), n(counters.snapshots), n(counters.cuts), n(counters.wipes),
      n(counters.transactions), n(counters.watches_refused), n(counters.removals));
}

inline int report(std::uint64_t seed, const Result& result, const std::string& without) {
  if (!result.violation) return 0;
  std::printf("VIOLATION seed %llu: %s\n", static_cast<unsigned long long>(seed),
              result.detail.c_str());
  std::printf("replay: scripts/sim --seed %llu%s --trace\n", static_cast<unsigned long long>(seed),
              without.c_str());
  return 1;
}

inline std::string without_argument(const std::set<std::size_t>& without) {
  return without.empty() ? "" : " --without " + format_list(without);
}

inline int run_one(const Arguments& args) {
  static const std::string replay = without_argument(args.without);
  running_seed = args.seed;
  running_replay = replay.c_str();
  Options options;
  options.without = args.without;
  options.trace = args.trace ? Trace::Mode::kPrint : Trace::Mode::kHash;
  const Result result = run(args.seed, options);
  const int code = report(args.seed, result, replay);
  std::printf("trace: %llu lines, hash %016llx\n",
              static_cast<unsigned long long>(result.trace_lines),
              static_cast<unsigned long long>(result.trace_hash));
  return code;
}

inline int run_many(const Arguments& args) {
  using SteadyClock = std::chrono::steady_clock;
  const auto began = SteadyClock::now();
  const auto elapsed = [&] {
    return std::chrono::duration<double>(SteadyClock::now() - began).count();
  };
  Counters sum;
  std::uint64_t next = args.from;
  std::uint64_t seeds = 0;
  int code = 0;
  while (code == 0 && (args.count == 0 || seeds < args.count) &&
         (args.seconds == 0 || elapsed() < static_cast<double>(args.seconds))) {
    const std::uint64_t seed = next++;
    if (args.members && !draw_scenario(seed).members_change()) continue;
    ++seeds;
    running_seed = seed;
    const Result result = run(seed, {});
    sum.add(result.counters);
    if (result.counters.undecided > 0) {
      std::printf("undecided: seed %llu\n", static_cast<unsigned long long>(seed));
    }
    code = report(seed, result, "");
  }
  print(sum, seeds, elapsed());
  std::printf("violations: %d\n", code);
  return code;
}

inline int describe_one(std::uint64_t seed) {
  const Scenario scenario = draw_scenario(seed);
  std::printf("%s", describe(scenario).c_str());
  return 0;
}

inline int shrink_one(std::uint64_t seed) {
  const Shrunk shrunk = shrink_seed(seed, [](const std::string& progress) {
    std::printf("%s\n", progress.c_str());
    std::fflush(stdout);
  });
  if (shrunk.outcome.empty()) {
    std::printf("seed %llu does not fail\n", static_cast<unsigned long long>(seed));
    return 0;
  }
  std::printf("%s\nreplay: scripts/sim --seed %llu%s --trace\n", shrunk.outcome.c_str(),
              static_cast<unsigned long long>(seed), without_argument(shrunk.without).c_str());
  return 1;
}

inline int drive(const std::vector<std::string>& arguments) {
  const Arguments args = parse(arguments);
  if (args.help) return std::fputs(kHelp, stdout), 0;
  if (!args.wrong.empty() || args.one + args.many + args.shrink != 1) {
    std::fprintf(stderr, "sim: %s\n%s", args.wrong.c_str(), kHelp);
    return 2;
  }
  std::signal(SIGABRT, on_abort);
  if (args.describe) return describe_one(args.seed);
  if (args.shrink) return shrink_one(args.seed);
  return args.one ? run_one(args) : run_many(args);
}

}  // namespace seshat::sim

#endif  // SESHAT_TESTS_SIM_DRIVER_DRIVER_HPP
