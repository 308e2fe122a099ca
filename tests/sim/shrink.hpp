// Makes a failing run small: switches decisions off, piece by piece, as long as it still fails in
// the same way (Zeller and Hildebrandt, "Simplifying and Isolating Failure-Inducing Input", 2002).
//
// Each try runs in a process of its own: a broken invariant of the product ends it.
#ifndef SESHAT_TESTS_SIM_SHRINK_HPP
#define SESHAT_TESTS_SIM_SHRINK_HPP

#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <set>
#include <string>
#include <vector>

#include "sim/simulation.hpp"

namespace seshat::sim {

// "3,7,12-40"
inline std::set<std::size_t> parse_list(const std::string& text) {
  std::set<std::size_t> numbers;
  std::size_t at = 0;
  const auto number = [&] {
    std::size_t value = 0;
    while (at < text.size() && text[at] >= '0' && text[at] <= '9') {
      value = value * 10 + static_cast<std::size_t>(text[at++] - '0');
    }
    return value;
  };
  while (at < text.size()) {
    const std::size_t first = number();
    std::size_t last = first;
    if (at < text.size() && text[at] == '-') ++at, last = number();
    for (std::size_t n = first; n <= last; ++n) numbers.insert(n);
    ++at;
  }
  return numbers;
}

inline std::string format_list(const std::set<std::size_t>& numbers) {
  std::string text;
  for (auto at = numbers.begin(); at != numbers.end();) {
    const std::size_t first = *at;
    std::size_t last = first;
    while (++at != numbers.end() && *at == last + 1) last = *at;
    if (!text.empty()) text += ",";
    text += std::to_string(first);
    if (last > first) text += "-" + std::to_string(last);
  }
  return text;
}

// How a run ends, in a process of its own: empty if well.
inline std::string outcome_of(std::uint64_t seed, const std::set<std::size_t>& without) {
  int ends[2];
  if (pipe(ends) != 0) return "no pipe";
  std::fflush(nullptr);
  const pid_t child = fork();
  if (child == 0) {
    close(ends[0]);
    std::signal(SIGABRT, SIG_DFL);
    std::freopen("/dev/null", "w", stderr);
    Options options;
    options.without = without;
    const Result result = run(seed, options);
    const std::string kind = result.violation.value_or("");
    _exit(write(ends[1], kind.data(), kind.size()) < 0 ? 1 : 0);
  }
  close(ends[1]);
  std::string kind;
  char buffer[256];
  for (ssize_t n = 0; (n = read(ends[0], buffer, sizeof(buffer))) > 0;) {
    kind.append(buffer, static_cast<std::size_t>(n));
  }
  close(ends[0]);
  int status = 0;
  waitpid(child, &status, 0);
  return WIFSIGNALED(status) ? "broken invariant" : kind;
}

struct Shrunk {
  std::string outcome;  // empty: the seed does not fail
  std::set<std::size_t> without;
};

// Tells how a run ends without some decisions; empty if well.
using Attempt = std::function<std::string(const std::set<std::size_t>& without)>;
using Progress = std::function<void(const std::string&)>;

inline Shrunk shrink(std::size_t decisions, const Attempt& outcome, const Progress& progress = {}) {
  Shrunk shrunk;
  shrunk.outcome = outcome({});
  if (shrunk.outcome.empty()) return shrunk;
  std::vector<std::size_t> left;
  for (std::size_t i = 0; i < decisions; ++i) left.push_back(i);
  std::size_t piece = std::max<std::size_t>(1, left.size() / 2);
  while (!left.empty()) {
    bool smaller = false;
    for (std::size_t from = 0; from < left.size();) {
      const auto begin = left.begin() + static_cast<std::ptrdiff_t>(from);
      const auto end =
          left.begin() + static_cast<std::ptrdiff_t>(std::min(from + piece, left.size()));
      std::set<std::size_t> without = shrunk.without;
      without.insert(begin, end);
      if (outcome(without) == shrunk.outcome) {
        shrunk.without = std::move(without);
        left.erase(begin, end);
        smaller = true;
      } else {
        from += piece;
      }
    }
    if (progress) {
      progress(shrunk.outcome + ": " + std::to_string(left.size()) + " of " +
               std::to_string(decisions) + " decisions left");
    }
    if (piece == 1 && !smaller) break;
    piece = std::max<std::size_t>(1, piece / 2);
  }
  return shrunk;
}

inline Shrunk shrink_seed(std::uint64_t seed, const Progress& progress) {
  return shrink(
      draw_scenario(seed).decisions(),
      [seed](const std::set<std::size_t>& without) { return outcome_of(seed, without); }, progress);
}

}  // namespace seshat::sim

#endif  // SESHAT_TESTS_SIM_SHRINK_HPP
