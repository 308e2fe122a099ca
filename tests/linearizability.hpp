// A checker for histories: could these operations have happened one at a time, each at some moment
// between its call and its return?
//
//   history of one key ──> split_by_key ──> Wing and Gong's search, with Lowe's memoisation
//
// Wing and Gong, "Testing and Verifying Concurrent Objects" (1993): try every operation that was
// called before the first return of those left, apply it to the model, go on; go back where the
// model answers differently. Lowe, "Testing for Linearizability" (2017): a set of operations done
// and a state of the model, once found hopeless together, need not be tried again. Keys are
// independent, so that each is checked alone (locality, Herlihy and Wing 1990).
//
// An operation whose outcome is unknown (a timeout, a lost connection) may happen at any moment after
// its call, or never: it returns at kNever, and the search may leave it out.
#ifndef SESHAT_TESTS_LINEARIZABILITY_HPP
#define SESHAT_TESTS_LINEARIZABILITY_HPP

#include <algorithm>
#include <cstdint>
#include <limits>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace seshat::test {

inline constexpr std::uint64_t kNever = std::numeric_limits<std::uint64_t>::max();

struct HistoryOperation {
  enum class Kind : std::uint8_t { kRead, kWrite, kDelete, kIncrement };
  Kind kind = Kind::kRead;
  std::string key;
  std::string value;                  // written, or (a read, an increment) answered
  bool absent = false;                // a read that found nothing
  std::optional<std::int64_t> count;  // a delete: how many keys it removed, if that is known
  std::uint64_t called = 0;
  std::uint64_t returned = kNever;  // kNever: the outcome is unknown

  [[nodiscard]] bool is_unknown() const { return returned == kNever; }
};

using History = std::vector<HistoryOperation>;

// One key: a register that can be absent, whose text can be counted up.
class RegisterModel {
 public:
  using State = std::optional<std::string>;

  // The state after `operation`, if `state` allows what it answered.
  [[nodiscard]] static std::optional<State> apply(const State& state,
                                                  const HistoryOperation& operation) {
    switch (operation.kind) {
      case HistoryOperation::Kind::kRead:
        return read(state, operation);
      case HistoryOperation::Kind::kWrite:
        return State{operation.value};
      case HistoryOperation::Kind::kDelete:
        if (operation.count && *operation.count != (state ? 1 : 0)) return std::nullopt;
        return State{};
      case HistoryOperation::Kind::kIncrement:
        return increment(state, operation);
    }
    return std::nullopt;
  }

 private:
  [[nodiscard]] static std::optional<State> read(const State& state,
                                                 const HistoryOperation& operation) {
    if (operation.is_unknown()) return state;
    if (operation.absent) return state ? std::nullopt : std::optional<State>{state};
    return state && *state == operation.value ? std::optional<State>{state} : std::nullopt;
  }

  [[nodiscard]] static std::optional<State> increment(const State& state,
                                                      const HistoryOperation& operation) {
    const std::string next = std::to_string((state ? std::stoll(*state) : 0) + 1);
    if (!operation.is_unknown() && operation.value != next) return std::nullopt;
    return State{next};
  }
};

struct Verdict {
  bool linearizable = true;
  bool gave_up = false;  // the bound on steps was reached: neither yes nor no
  std::string key;       // of a violation
  std::string story;     // the operations of that key, in the order of their calls
  std::uint64_t steps = 0;
};

class LinearizabilityChecker {
 public:
  explicit LinearizabilityChecker(std::uint64_t max_steps_per_key = 20'000'000)
      : max_steps_(max_steps_per_key) {}

  [[nodiscard]] Verdict check(const History& history) const {
    std::map<std::string, History> by_key;
    for (const HistoryOperation& operation : history) {
      // A read that nobody saw the answer of says nothing.
      const bool says_nothing =
          operation.kind == HistoryOperation::Kind::kRead && operation.is_unknown();
      if (!says_nothing) by_key[operation.key].push_back(operation);
    }
    Verdict verdict;
    for (auto& [key, operations] : by_key) {
      const Verdict of_key = check_key(std::move(operations));
      verdict.steps += of_key.steps;
      if (of_key.linearizable && !of_key.gave_up) continue;
      verdict.linearizable = of_key.linearizable;
      verdict.gave_up = of_key.gave_up;
      verdict.key = key;
      verdict.story = of_key.story;
      return verdict;
    }
    return verdict;
  }

 private:
  using State = RegisterModel::State;
  // Operations done, as bits, and where that left the register.
  using Configuration = std::pair<std::vector<bool>, State>;

  struct Choice {
    std::size_t operation;
    State before;
  };

  // Depth first, by a stack of our own: histories are longer than call stacks are deep.
  [[nodiscard]] Verdict check_key(History operations) const {
    std::stable_sort(operations.begin(), operations.end(),
                     [](const auto& a, const auto& b) { return a.called < b.called; });
    Verdict verdict;
    std::set<Configuration> hopeless;
    std::vector<bool> done(operations.size(), false);
    std::vector<Choice> path;
    State state;
    std::size_t next = 0;  // where to go on looking at this depth
    while (!all_required_done(operations, done)) {
      if (++verdict.steps > max_steps_) {
        verdict.gave_up = true;
        verdict.story = tell(operations);
        return verdict;
      }
      const auto found = find_candidate(operations, done, state, next, hopeless);
      if (found) {
        path.push_back({found->first, state});
        done[found->first] = true;
        state = found->second;
        next = 0;
        continue;
      }
      hopeless.emplace(done, state);
      if (path.empty()) {
        verdict.linearizable = false;
        verdict.story = tell(operations);
        return verdict;
      }
      done[path.back().operation] = false;
      state = path.back().before;
      next = path.back().operation + 1;
      path.pop_back();
    }
    return verdict;
  }

  [[nodiscard]] static bool all_required_done(const History& operations,
                                              const std::vector<bool>& done) {
    for (std::size_t i = 0; i < operations.size(); ++i) {
      if (!done[i] && !operations[i].is_unknown()) return false;
    }
    return true;
  }

  // An operation from `from` on that may be next: called before the first return of those left, and
  // answered as the model answers.
  [[nodiscard]] static std::optional<std::pair<std::size_t, State>> find_candidate(
      const History& operations, std::vector<bool>& done, const State& state, std::size_t from,
      const std::set<Configuration>& hopeless) {
    std::uint64_t first_return = kNever;
    for (std::size_t i = 0; i < operations.size(); ++i) {
      if (!done[i]) first_return = std::min(first_return, operations[i].returned);
    }
    for (std::size_t i = from; i < operations.size(); ++i) {
      if (operations[i].called > first_return) break;
      if (done[i]) continue;
      const auto after = RegisterModel::apply(state, operations[i]);
      if (!after) continue;
      done[i] = true;
      const bool tried = hopeless.contains({done, *after});
      done[i] = false;
      if (!tried) return std::pair(i, *after);
    }
    return std::nullopt;
  }

  [[nodiscard]] static std::string tell(const History& operations) {
    std::string story;
    for (const HistoryOperation& operation : operations) {
      static constexpr const char* kNames[] = {"read", "write", "delete", "increment"};
      story += "  " + std::to_string(operation.called) + " .. ";
      story += operation.is_unknown() ? "unknown" : std::to_string(operation.returned);
      story += std::string("  ") + kNames[static_cast<int>(operation.kind)] + " " + operation.key;
      story += operation.absent ? " -> nothing" : " " + operation.value;
      if (operation.count) story += " -> " + std::to_string(*operation.count);
      story += "\n";
    }
    return story;
  }

  std::uint64_t max_steps_;
};

}  // namespace seshat::test

#endif  // SESHAT_TESTS_LINEARIZABILITY_HPP
