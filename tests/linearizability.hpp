// A checker for histories: could these operations have happened one at a time, each at some moment
// between its call and its return?
//
//   history ──> families: keys that transactions join ──> one key that is read, written, deleted,
//                                 │                        counted up: KeySearch, below
//                                 └──> any other: FamilySearch, linearizability_family.hpp
//
// Both are Wing and Gong's search with Lowe's memoisation.
//
// Wing and Gong, "Testing and Verifying Concurrent Objects" (1993): try every operation that was
// called before the first return of those left, apply it to the model, go on; go back where the
// model answers differently. Lowe, "Testing for Linearizability" (2017): a set of operations done
// and a state of the model, once seen, need not be tried again. Keys that no transaction joins are
// independent, so that each is checked alone (locality, Herlihy and Wing 1990).
//
// An operation whose outcome is unknown (a timeout, a lost connection) may happen at any moment after
// its call, or never: it returns at kNever, and the search may leave it out.
//
// One key is a register that can be absent, whose text can be counted up while it is a number. There
// the search can leave out almost everything, and still finds the same:
//
//  1. An unknown operation is placed only right before a known one that could not stand without it.
//     Proof: nobody answers for it, so take it out wherever the next one stands without it. What is
//     left before a known operation is at most one write or delete and some increments after it. The
//     known operation leaves the same state with or without them, and fewer used are never worse.
//  2. What can be answered now and changes nothing (a read, a delete that found nothing) is done now:
//     it fits later only where the state is the same again, and nobody else notices when it moves up.
//  3. A state that is left must not be needed again, if nothing that is left to do brings it back.
//  4. A write that can be done now with all reads of its value is done now, and nothing else is tried,
//     when no increment is left and no delete that found something: wherever else these would stand,
//     what follows them is a write or a delete (a read brings an unknown one), and does not miss them.
//  5. When nothing but increments changes the state, lower numbers come first.
//  6. A value that one write alone brings about stands together with all its reads. Of two such groups
//     one comes first as a whole (Gibbons and Korach, "Testing Shared Memories", 1997): most
//     violations are seen before the search.
#ifndef SESHAT_TESTS_LINEARIZABILITY_HPP
#define SESHAT_TESTS_LINEARIZABILITY_HPP

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <unordered_set>
#include <utility>
#include <vector>

#include "linearizability_family.hpp"
#include "linearizability_history.hpp"

namespace seshat::test {

struct Verdict {
  bool linearizable = true;
  bool gave_up = false;  // the bound on steps was reached: neither yes nor no
  std::string key;       // of a violation; several, where they belong together
  std::string story;     // their operations, in the order of the calls
  std::uint64_t steps = 0;
};

namespace linearizability_detail {

// The states that a history of one key speaks of, as numbers. All others are as good as one another.
class States {
 public:
  using Id = std::size_t;
  static constexpr Id kAbsent = 0;

  [[nodiscard]] Id id(const std::string& text) {
    const auto [found, is_new] = ids_.try_emplace(text, numbers_.size());
    if (is_new) numbers_.push_back(number_in(text));
    return found->second;
  }
  [[nodiscard]] std::size_t size() const { return numbers_.size(); }
  // What an increment counts up from; none if the text is no number.
  [[nodiscard]] std::optional<std::int64_t> number(Id id) const { return numbers_[id]; }

  [[nodiscard]] static std::optional<std::int64_t> number_in(const std::string& text) {
    std::int64_t number = 0;
    std::from_chars(text.data(), text.data() + text.size(), number);
    return std::to_string(number) == text ? std::optional(number) : std::nullopt;
  }

 private:
  std::map<std::string, Id> ids_;
  std::vector<std::optional<std::int64_t>> numbers_ = {0};  // an absent key counts from 0
};

// An operation whose outcome is known: what must be there, and what is there afterwards.
struct KnownOperation {
  enum class Needs : std::uint8_t { kNothing, kState, kPresent, kNumber };
  Needs needs = Needs::kNothing;
  States::Id state = 0;     // that it needs
  std::int64_t number = 0;  // that it needs
  States::Id after = 0;
  std::uint64_t called = 0;
  std::uint64_t returned = 0;

  [[nodiscard]] bool changes_nothing() const { return needs == Needs::kState && state == after; }
};

// Operations of unknown outcome that do the same: what was called first is used first.
struct Pool {
  std::vector<std::uint64_t> called = {};
  std::size_t used = 0;
  std::size_t first_bit = 0;  // of its operations in a Configuration

  [[nodiscard]] std::size_t unused() const { return called.size() - used; }
  // How many more may happen before the first return of what is left.
  [[nodiscard]] std::size_t usable(std::uint64_t first_return) const {
    const auto end = std::upper_bound(called.begin(), called.end(), first_return);
    return static_cast<std::size_t>(end - called.begin()) - used;
  }
};

class KeySearch {
 public:
  explicit KeySearch(const History& operations);  // all of one key, in the order of their calls

  // Whether they are linearizable; nullopt: more than `max_steps` would be needed.
  [[nodiscard]] std::optional<bool> run(std::uint64_t max_steps);
  [[nodiscard]] std::uint64_t steps() const { return steps_; }

 private:
  using Id = States::Id;
  using Needs = KnownOperation::Needs;
  // What was done, as bits, and where that left the register.
  using Configuration = std::pair<std::vector<bool>, Id>;
  struct Hash {
    std::size_t operator()(const Configuration& configuration) const {
      return std::hash<std::vector<bool>>()(configuration.first) * 31 + configuration.second;
    }
  };
  // A known operation, after an unknown write or delete and unknown increments, if need be.
  struct Move {
    std::size_t operation;
    std::optional<Id> reset = {};
    std::size_t increments = 0;
  };
  // What can be tried at one depth of the search. By a stack of our own: histories are longer than
  // call stacks are deep.
  struct Choice {
    std::vector<Move> moves;
    Id before;          // the state
    std::size_t since;  // the depth at which that state was brought about
    bool nothing_counts;
    std::size_t next = 0;
  };

  // Operations that stand together: some return and some call of theirs.
  struct Zone {
    std::uint64_t first_return = kNever;
    std::uint64_t last_call = 0;

    void add(std::uint64_t called, std::uint64_t returned) {
      first_return = std::min(first_return, returned);
      last_call = std::max(last_call, called);
    }
    [[nodiscard]] bool must_follow(const Zone& other) const {
      return other.first_return < last_call;
    }
  };

  void add_known(const HistoryOperation& operation);
  void add_unknown(const HistoryOperation& operation);
  [[nodiscard]] bool zones_fit() const;
  void account(const KnownOperation& operation, int change);
  void carry_out(const Move& move);
  void take_back(const Move& move, Id before);
  void use(Pool& pool, std::size_t count, int change);

  [[nodiscard]] std::vector<Move> moves() const;
  void add_moves_of(std::size_t number, std::uint64_t first_return, std::vector<Move>& to) const;
  void add_moves_to(std::int64_t target, std::size_t number, std::uint64_t first_return,
                    std::vector<Move>& to) const;
  [[nodiscard]] bool holds_now(const KnownOperation& operation) const;
  [[nodiscard]] bool counts_up() const { return numbers_needed_ > 0 || increments_.unused() > 0; }
  [[nodiscard]] bool nothing_counts() const { return presence_needed_ == 0 && !counts_up(); }
  [[nodiscard]] std::int64_t place_in_count(const KnownOperation& operation) const;
  [[nodiscard]] bool is_lost(Id state) const;
  [[nodiscard]] bool any_is_lost(const Move& move, Id before) const;
  [[nodiscard]] Configuration configuration() const;

  States states_;
  std::vector<KnownOperation> known_;  // in the order of their calls
  std::vector<Pool> pools_;            // by the state that they bring about
  std::vector<Id> pooled_;             // the states with a pool
  Pool increments_;
  bool possible_ = true;  // each answer alone could be given by some state

  std::vector<bool> done_;  // known ones, then those of the pools
  std::size_t first_left_ = 0;
  std::size_t left_ = 0;
  Id state_ = States::kAbsent;
  // Of what is left to do:
  std::vector<int> needed_;   // by state: how many need it
  std::vector<int> brought_;  // by state: how many would bring it about
  int resets_ = 0;            // writes and deletes, of unknown outcome too
  int presence_needed_ = 0;
  int numbers_needed_ = 0;
  std::uint64_t steps_ = 0;
};

inline KeySearch::KeySearch(const History& operations) {
  for (const HistoryOperation& operation : operations) {
    if (!operation.is_unknown()) add_known(operation);
  }
  for (const HistoryOperation& operation : operations) {
    if (operation.is_unknown()) add_unknown(operation);
  }
  pools_.resize(states_.size());
  needed_.resize(states_.size());
  brought_.resize(states_.size());
  std::size_t bits = known_.size();
  for (Id id = 0; id < pools_.size(); ++id) {
    if (pools_[id].called.empty()) continue;
    pooled_.push_back(id);
    pools_[id].first_bit = std::exchange(bits, bits + pools_[id].called.size());
    brought_[id] += static_cast<int>(pools_[id].called.size());
    resets_ += static_cast<int>(pools_[id].called.size());
  }
  increments_.first_bit = std::exchange(bits, bits + increments_.called.size());
  done_.resize(bits);
  for (const KnownOperation& operation : known_) account(operation, 1);
  for (Id id = 0; id < states_.size(); ++id) possible_ = possible_ && !is_lost(id);
  possible_ = possible_ && (counts_up() || zones_fit());
}

inline void KeySearch::add_known(const HistoryOperation& operation) {
  KnownOperation known;
  known.called = operation.called;
  known.returned = operation.returned;
  switch (operation.kind) {
    case HistoryOperation::Kind::kRead:
      known.needs = Needs::kState;
      known.state = operation.absent ? States::kAbsent : states_.id(operation.value);
      known.after = known.state;
      break;
    case HistoryOperation::Kind::kWrite:
      known.after = states_.id(operation.value);
      break;
    case HistoryOperation::Kind::kDelete:
      if (operation.count) known.needs = *operation.count == 0 ? Needs::kState : Needs::kPresent;
      possible_ = possible_ && operation.count.value_or(0) >= 0 && operation.count.value_or(0) <= 1;
      break;
    case HistoryOperation::Kind::kIncrement: {
      const auto number = States::number_in(operation.value);
      possible_ = possible_ && number.has_value();
      known.needs = Needs::kNumber;
      known.number = number.value_or(0) - 1;
      known.after = states_.id(operation.value);
      break;
    }
    default:
      break;  // FamilySearch's
  }
  known_.push_back(known);
}

inline void KeySearch::add_unknown(const HistoryOperation& operation) {
  Pool* pool = &increments_;
  if (operation.kind != HistoryOperation::Kind::kIncrement) {
    const bool writes = operation.kind == HistoryOperation::Kind::kWrite;
    const Id brings = writes ? states_.id(operation.value) : States::kAbsent;
    pools_.resize(std::max(pools_.size(), states_.size()));
    pool = &pools_[brings];
  }
  pool->called.push_back(operation.called);
}

// 6.
inline bool KeySearch::zones_fit() const {
  std::vector<Zone> zones;
  std::vector<Zone> of_value(states_.size());
  const auto stands_together = [&](Id id) { return id != States::kAbsent && brought_[id] == 1; };
  for (const KnownOperation& operation : known_) {
    const bool together = stands_together(operation.after);
    (together ? of_value[operation.after] : zones.emplace_back())
        .add(operation.called, operation.returned);
  }
  for (Id id = 0; id < of_value.size(); ++id) {
    if (needed_[id] > 0 && stands_together(id) && !pools_[id].called.empty()) {
      of_value[id].add(pools_[id].called.front(), kNever);
    }
    if (of_value[id].first_return != kNever) zones.push_back(of_value[id]);
  }
  for (std::size_t a = 0; a < zones.size(); ++a) {
    for (std::size_t b = a + 1; b < zones.size(); ++b) {
      if (zones[a].must_follow(zones[b]) && zones[b].must_follow(zones[a])) return false;
    }
  }
  return true;
}

// ---- Doing and undoing

inline void KeySearch::account(const KnownOperation& operation, int change) {
  left_ += static_cast<std::size_t>(change);
  if (operation.needs == Needs::kState) needed_[operation.state] += change;
  if (operation.needs == Needs::kPresent) presence_needed_ += change;
  if (operation.needs == Needs::kNumber) numbers_needed_ += change;
  if (operation.needs == Needs::kNothing || operation.needs == Needs::kPresent) {
    brought_[operation.after] += change;
    resets_ += change;
  }
}

inline void KeySearch::use(Pool& pool, std::size_t count, int change) {
  for (; count > 0; --count) {
    if (change < 0) --pool.used;
    done_[pool.first_bit + pool.used] = change > 0;
    if (change > 0) ++pool.used;
  }
}

inline void KeySearch::carry_out(const Move& move) {
  if (move.reset) {
    use(pools_[*move.reset], 1, 1);
    --brought_[*move.reset];
    --resets_;
  }
  use(increments_, move.increments, 1);
  done_[move.operation] = true;
  account(known_[move.operation], -1);
  while (first_left_ < known_.size() && done_[first_left_]) ++first_left_;
  state_ = known_[move.operation].after;
}

inline void KeySearch::take_back(const Move& move, Id before) {
  state_ = before;
  first_left_ = std::min(first_left_, move.operation);
  account(known_[move.operation], 1);
  done_[move.operation] = false;
  use(increments_, move.increments, -1);
  if (!move.reset) return;
  use(pools_[*move.reset], 1, -1);
  ++brought_[*move.reset];
  ++resets_;
}

// ---- What can be next

inline bool KeySearch::holds_now(const KnownOperation& operation) const {
  switch (operation.needs) {
    case Needs::kNothing:
      return true;
    case Needs::kState:
      return operation.state == state_;
    case Needs::kPresent:
      return state_ != States::kAbsent;
    case Needs::kNumber:
      return states_.number(state_) == operation.number;
  }
  return false;
}

inline std::vector<KeySearch::Move> KeySearch::moves() const {
  std::vector<std::size_t> next;
  std::uint64_t first_return = kNever;
  for (std::size_t i = first_left_; i < known_.size() && known_[i].called <= first_return; ++i) {
    if (done_[i]) continue;
    if (known_[i].changes_nothing() && holds_now(known_[i])) return {Move{i}};  // 2.
    next.push_back(i);
    first_return = std::min(first_return, known_[i].returned);
  }
  std::stable_sort(next.begin(), next.end(), [&](std::size_t a, std::size_t b) {
    return known_[a].returned < known_[b].returned;
  });
  if (resets_ == 0 && !next.empty()) {  // 5.
    next = {*std::min_element(next.begin(), next.end(), [&](std::size_t a, std::size_t b) {
      return place_in_count(known_[a]) < place_in_count(known_[b]);
    })};
  }
  std::vector<Move> found;
  for (const std::size_t i : next) {
    if (holds_now(known_[i])) {
      found.push_back({i});
    } else {
      add_moves_of(i, first_return, found);
    }
  }
  return found;
}

// Reads of a number come before what counts up from it; what is no number can't come any more.
inline std::int64_t KeySearch::place_in_count(const KnownOperation& operation) const {
  if (operation.needs == Needs::kNumber) return 2 * operation.number + 1;
  const auto number = states_.number(operation.state);
  return number ? 2 * *number : std::numeric_limits<std::int64_t>::min();
}

// 1. What of unknown outcome could bring about what the operation needs.
inline void KeySearch::add_moves_of(std::size_t number, std::uint64_t first_return,
                                    std::vector<Move>& to) const {
  const KnownOperation& operation = known_[number];
  if (operation.needs == Needs::kNumber) {
    return add_moves_to(operation.number, number, first_return, to);
  }
  if (operation.needs == Needs::kState) {
    if (pools_[operation.state].usable(first_return) > 0) to.push_back({number, operation.state});
    const auto target = states_.number(operation.state);
    if (target && operation.state != States::kAbsent) {
      add_moves_to(*target, number, first_return, to);
    }
    return;
  }
  // Any write will do; best one that nobody has read.
  for (const Id id : pooled_) {
    if (id == States::kAbsent || pools_[id].usable(first_return) == 0) continue;
    if (needed_[id] == 0 && !counts_up()) return to.push_back({number, id});
  }
  for (const Id id : pooled_) {
    if (id != States::kAbsent && pools_[id].usable(first_return) > 0) to.push_back({number, id});
  }
  if (increments_.usable(first_return) > 0) to.push_back({number, {}, 1});
}

inline void KeySearch::add_moves_to(std::int64_t target, std::size_t number,
                                    std::uint64_t first_return, std::vector<Move>& to) const {
  const auto most = static_cast<std::int64_t>(increments_.usable(first_return));
  const bool takes_any_form = known_[number].needs == Needs::kNumber;
  const auto add = [&](std::optional<Id> reset, Id from) {
    const auto start = states_.number(from);
    if (!start || *start > target || target - *start > most) return;
    if (*start == target && !(reset && takes_any_form)) return;
    to.push_back({number, reset, static_cast<std::size_t>(target - *start)});
  };
  add({}, state_);
  for (const Id id : pooled_) {
    if (pools_[id].usable(first_return) > 0) add(id, id);
  }
}

// ---- What can't be done any more

// 3.
inline bool KeySearch::is_lost(Id state) const {
  return needed_[state] > 0 && brought_[state] == 0 && state != state_ && !counts_up();
}

inline bool KeySearch::any_is_lost(const Move& move, Id before) const {
  return is_lost(before) || (move.reset && is_lost(*move.reset));
}

// A value that nobody needs any more is like any other such.
inline KeySearch::Configuration KeySearch::configuration() const {
  const bool any = state_ != States::kAbsent && needed_[state_] == 0 && !counts_up();
  return {done_, any ? states_.size() : state_};
}

// ---- The search

inline std::optional<bool> KeySearch::run(std::uint64_t max_steps) {
  if (!possible_) return false;
  std::unordered_set<Configuration, Hash> seen;
  std::vector<Choice> path = {{moves(), state_, 0, nothing_counts()}};
  while (left_ > 0) {
    Choice& choice = path.back();
    if (choice.next == choice.moves.size()) {
      path.pop_back();
      if (path.empty()) return false;
      const Choice& last = path.back();
      take_back(last.moves[last.next - 1], last.before);
      continue;
    }
    if (++steps_ > max_steps) return std::nullopt;
    const Move move = choice.moves[choice.next++];
    const std::size_t since =
        known_[move.operation].changes_nothing() && holds_now(known_[move.operation])
            ? choice.since
            : path.size() - 1;
    const Id before = choice.before;
    carry_out(move);
    if (any_is_lost(move, before) || !seen.insert(configuration()).second) {
      take_back(move, before);
      continue;
    }
    if (needed_[state_] == 0 && path[since].nothing_counts) {  // 4.
      path[since].moves.resize(path[since].next);
    }
    path.push_back({moves(), state_, since, nothing_counts()});
  }
  return true;
}

}  // namespace linearizability_detail

namespace linearizability_detail {

// Which keys belong together: those of a transaction, and of the WATCH before it.
class Families {
 public:
  explicit Families(const History& history) {
    for (const HistoryOperation& operation : history) {
      const std::vector<std::string> keys = keys_of(operation);
      for (const std::string& key : keys) join(keys.front(), key);
      const std::string watch = std::string(1, '\0') + std::to_string(operation.watch);
      if (operation.watch != 0 && !keys.empty()) join(keys.front(), watch);
    }
  }
  // The family of an operation that has a key at all, by the name of one of its keys.
  [[nodiscard]] std::string of(const HistoryOperation& operation) const {
    const std::vector<std::string> keys = keys_of(operation);
    return keys.empty() ? "" : root(keys.front());
  }
  [[nodiscard]] static std::vector<std::string> keys_of(const HistoryOperation& operation) {
    using Kind = HistoryOperation::Kind;
    if (operation.kind != Kind::kTransaction && operation.kind != Kind::kWatch) {
      return {operation.key};
    }
    std::vector<std::string> keys;
    for (const HistoryOperation& step : operation.steps) keys.push_back(step.key);
    for (const HistoryOperation& read : operation.seen) keys.push_back(read.key);
    return keys;
  }

 private:
  [[nodiscard]] std::string root(std::string key) const {
    for (auto at = parents_.find(key); at != parents_.end(); at = parents_.find(key)) {
      key = at->second;
    }
    return key;
  }
  void join(const std::string& a, const std::string& b) {
    const std::string first = std::min(root(a), root(b));
    const std::string second = std::max(root(a), root(b));
    if (first != second) parents_[second] = first;
  }
  std::map<std::string, std::string> parents_;
};

// What KeySearch does not know of.
inline bool needs_family_search(const HistoryOperation& operation) {
  using Kind = HistoryOperation::Kind;
  const bool plain = operation.kind == Kind::kRead || operation.kind == Kind::kWrite ||
                     operation.kind == Kind::kDelete || operation.kind == Kind::kIncrement;
  return !plain || operation.lives != kNever ||
         operation.condition != HistoryOperation::If::kAlways;
}

// An operation as the story tells it.
inline std::string describe(const HistoryOperation& operation) {
  using Kind = HistoryOperation::Kind;
  static constexpr const char* kNames[] = {"read",   "write",   "delete", "increment",
                                           "expire", "persist", "watch",  "transaction"};
  std::string text = kNames[static_cast<int>(operation.kind)];
  if (operation.kind == Kind::kTransaction || operation.kind == Kind::kWatch) {
    if (operation.watch != 0) text += " under watch " + std::to_string(operation.watch);
    for (const HistoryOperation& read : operation.seen) text += " (seen: " + describe(read) + ")";
    for (const HistoryOperation& step : operation.steps) {
      text += operation.kind == Kind::kWatch ? " " + step.key : " [" + describe(step) + "]";
    }
    return text;
  }
  static constexpr const char* kConditions[] = {"", " if absent", " if present", " if equal to "};
  text += " " + operation.key + (operation.absent ? " -> nothing" : " " + operation.value);
  text += kConditions[static_cast<int>(operation.condition)] + operation.expected;
  if (operation.lives != kNever) text += " for " + std::to_string(operation.lives);
  if (operation.count) text += " -> " + std::to_string(*operation.count);
  return text;
}

}  // namespace linearizability_detail

class LinearizabilityChecker {
 public:
  // Of a history with times to live, `leader_time` says what leaders' clocks may have shown.
  explicit LinearizabilityChecker(std::uint64_t max_steps_per_family = 20'000'000,
                                  LeaderTime leader_time = {})
      : max_steps_(max_steps_per_family), leader_time_(std::move(leader_time)) {}

  [[nodiscard]] Verdict check(const History& history) const {
    const linearizability_detail::Families families(history);
    std::map<std::string, History> by_family;
    for (const HistoryOperation& operation : history) {
      // A read that nobody saw the answer of says nothing.
      const bool says_nothing =
          operation.kind == HistoryOperation::Kind::kRead && operation.is_unknown();
      if (!says_nothing) by_family[families.of(operation)].push_back(operation);
    }
    Verdict verdict;
    for (auto& [key, operations] : by_family) {
      const Verdict of_family = check_family(std::move(operations));
      const std::uint64_t steps = verdict.steps + of_family.steps;
      if (!of_family.linearizable || (of_family.gave_up && !verdict.gave_up)) verdict = of_family;
      verdict.steps = steps;
      if (!verdict.linearizable) break;  // worse than one that is undecided
    }
    return verdict;
  }

 private:
  [[nodiscard]] Verdict check_family(History operations) const {
    std::stable_sort(operations.begin(), operations.end(),
                     [](const auto& a, const auto& b) { return a.called < b.called; });
    std::set<std::string> keys;
    for (const HistoryOperation& operation : operations) {
      for (std::string& key : linearizability_detail::Families::keys_of(operation)) {
        keys.insert(std::move(key));
      }
    }
    const bool is_family =
        keys.size() > 1 || std::any_of(operations.begin(), operations.end(),
                                       linearizability_detail::needs_family_search);
    Verdict verdict =
        is_family
            ? judge(linearizability_detail::FamilySearch(operations, leader_time_), operations)
            : judge(linearizability_detail::KeySearch(operations), operations);
    for (const std::string& key : keys) verdict.key += (verdict.key.empty() ? "" : " ") + key;
    return verdict;
  }

  template <class Search>
  [[nodiscard]] Verdict judge(Search search, const History& operations) const {
    const std::optional<bool> linearizable = search.run(max_steps_);
    Verdict verdict;
    verdict.gave_up = !linearizable;
    verdict.linearizable = linearizable.value_or(true);
    verdict.steps = search.steps();
    if (!linearizable.value_or(false)) verdict.story = tell(operations, stuck_at(search));
    return verdict;
  }

  static std::size_t stuck_at(const linearizability_detail::FamilySearch& search) {
    return search.stuck_at();
  }
  static std::size_t stuck_at(const linearizability_detail::KeySearch&) {
    return std::numeric_limits<std::size_t>::max();
  }

  [[nodiscard]] static std::string tell(const History& operations, std::size_t stuck_at) {
    std::string story;
    for (const HistoryOperation& operation : operations) {
      story += "  " + std::to_string(operation.called) + " .. ";
      story += operation.is_unknown() ? "unknown" : std::to_string(operation.returned);
      story += "  " + linearizability_detail::describe(operation);
      const bool is_last = &operation == operations.data() + stuck_at;
      story += is_last ? "   <- no order leads beyond this\n" : "\n";
    }
    return story;
  }

  std::uint64_t max_steps_;
  LeaderTime leader_time_;
};

}  // namespace seshat::test

#endif  // SESHAT_TESTS_LINEARIZABILITY_HPP
