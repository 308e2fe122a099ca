// The search for keys that belong together: transactions, watched keys, conditions, times to live.
//
//   operations of a few keys ──> FamilySearch: Wing and Gong's search over a small map of keys
//
// linearizability.hpp joins the keys of every transaction into a family and gives each family to
// this search; keys that are only read, written, deleted and counted up stay with its KeySearch.
//
// Time. A leader's clock at any moment lies within bounds that are known (LeaderTime). What a write
// called at c and returned at r lets live for t ends at
//
//     from = earliest(c) + t   ..   until = latest(r) + t
//
// Another operation may find it there if earliest(its call) < until, and may find it gone if
// latest(its return) >= from. Who finds it gone ends it for all that follow: it does not come back.
// (What is done before others that are left has returned, in effect, when the first of those does: for
// r that is taken, also where the outcome is unknown.)
//
// WATCH. When a transaction under WATCH was done, nothing may have changed its keys between the two.
// So the keys are locked from the one to the other: what would change them has to come before or
// after. What was seen under the WATCH still holds at the transaction. One that was not done says
// nothing: it may be refused although nothing changed.
//
// What keeps it short, and why nothing is missed:
//
//  1. A read that holds now is done now: see linearizability.hpp.
//  2. An operation of unknown outcome that alone writes a value which somebody saw was done, before the
//     first who saw it returned. One whose effect nobody could see is left out.
//  3. Any other of unknown outcome is tried only right before an operation that touches one of its keys
//     (else it could as well come later, up to the end, and be left out), or before others of its kind
//     that are; and only where the one after them would not do the same without.
//  4. A value that is needed and that nobody can bring back must not be left.
//  5. A WATCH is done as late as it may be: when nothing else that is left returned before it. Later is
//     never worse, for it locks its keys for a shorter time.
//  6. A search that takes long has mostly gone wrong early. It begins again with another order of its
//     moves, some steps later each time; what was found to lead nowhere is not tried again.
//  7. Every other attempt takes few of unknown outcome at a time, and none before what could stand without
//     it. That finds almost every order there is, in a fraction of the steps; only the thorough attempts
//     can say that there is none.
#ifndef SESHAT_TESTS_LINEARIZABILITY_FAMILY_HPP
#define SESHAT_TESTS_LINEARIZABILITY_FAMILY_HPP

#include <algorithm>
#include <array>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <optional>
#include <random>
#include <set>
#include <stdexcept>
#include <string>
#include <unordered_set>
#include <utility>
#include <vector>

#include "linearizability_history.hpp"

namespace seshat::test::linearizability_detail {

class FamilySearch {
 public:
  // All operations of a family, in the order of their calls. At most 32 keys.
  FamilySearch(const History& operations, const LeaderTime& leader_time);

  // Whether they are linearizable; nullopt: more than `max_steps` would be needed.
  [[nodiscard]] std::optional<bool> run(std::uint64_t max_steps);
  [[nodiscard]] std::uint64_t steps() const { return steps_; }
  // Of what was left when least was: the one that returned first. No order that was tried goes on.
  [[nodiscard]] std::size_t stuck_at() const { return stuck_at_; }

 private:
  using Kind = HistoryOperation::Kind;
  using If = HistoryOperation::If;
  using Time = LeaderTime::Time;
  using Mask = std::uint32_t;  // a bit a key
  using Id = std::size_t;      // of a text; 0: absent
  static constexpr Id kAbsent = 0;
  static constexpr Time kNoEnd = std::numeric_limits<Time>::max();
  static constexpr std::size_t kFewUnknown = 2;
  static constexpr std::size_t kNone = std::numeric_limits<std::size_t>::max();

  struct KeyState {
    Id value = kAbsent;
    Time from = kNoEnd;  // it ends then, or later
    Time until = kNoEnd;

    [[nodiscard]] bool ends() const { return value != kAbsent && from != kNoEnd; }
    friend bool operator==(const KeyState&, const KeyState&) = default;
  };
  using State = std::vector<KeyState>;  // by key

  struct Step {
    Kind kind = Kind::kRead;
    std::size_t key = 0;
    Id value = kAbsent;
    bool answered = false;
    std::optional<bool> done;
    If condition = If::kAlways;
    Id expected = kAbsent;
    std::uint64_t lives = kNever;

    friend bool operator==(const Step&, const Step&) = default;
  };
  struct Operation {
    std::vector<Step> steps;  // what was seen under WATCH first
    std::uint64_t called = 0;
    std::uint64_t returned = 0;
    Time earliest = 0;
    Mask touches = 0;
    Mask locks = 0;  // a WATCH
    std::size_t unlocks = kNone;
    bool is_watch = false;
    bool may_be_left_out = false;
    bool changes = false;
  };
  struct Outcome {
    State after;
    Mask changed = 0;
  };
  struct Move {
    std::size_t operation;
    Outcome outcome;
  };
  // What can be tried at one depth of the search.
  struct Choice {
    State state;
    // After operations of unknown outcome: what each of them changed that no later one has touched,
    // sorted, and how it was before them.
    std::vector<Mask> untouched = {};
    State without = {};
    Time latest = 0;  // by when the next is done
    std::vector<Move> moves = {};
    std::size_t next = 0;
  };
  struct Configuration {
    std::vector<bool> done;
    State state;
    std::vector<Mask> untouched;
    friend bool operator==(const Configuration&, const Configuration&) = default;
  };
  struct Hash {
    std::size_t operator()(const Configuration& configuration) const {
      std::size_t hash = std::hash<std::vector<bool>>()(configuration.done);
      const auto add = [&hash](std::uint64_t part) { hash = hash * 0x9e3779b97f4a7c15 + part; };
      for (const KeyState& key : configuration.state) {
        add(key.value);
        add(static_cast<std::uint64_t>(key.from));
        add(static_cast<std::uint64_t>(key.until));
      }
      for (const Mask keys : configuration.untouched) add(keys);
      return hash ^ (hash >> 29);
    }
  };

  // ---- reading the history
  [[nodiscard]] std::size_t key(const std::string& name) {
    return keys_.try_emplace(name, keys_.size()).first->second;
  }
  [[nodiscard]] Id id(const std::string& text);
  [[nodiscard]] Step step_of(const HistoryOperation& operation, bool answered);
  [[nodiscard]] Operation compile(const HistoryOperation& operation);
  void note_who_sees();
  [[nodiscard]] bool says_nothing(const Operation& operation) const;
  void decide_unknown();
  void match_watches(const History& operations, const std::vector<std::size_t>& places);
  [[nodiscard]] std::vector<std::pair<std::size_t, Id>> values_needed(const Operation& of) const;
  [[nodiscard]] std::vector<std::pair<std::size_t, Id>> values_brought(const Operation& of) const;
  void account(const Operation& operation, int change);

  // ---- what an operation does
  void apply(const Operation& operation, const State& state, Time latest,
             std::vector<Outcome>& to) const;
  void apply_from(const Operation& operation, std::size_t at, Outcome so_far, Mask living,
                  Time latest, std::vector<Outcome>& to) const;
  [[nodiscard]] static bool looks(const Step& step);
  [[nodiscard]] bool carry_out(const Step& step, const Operation& of, bool certain, Time latest,
                               Outcome& outcome) const;
  [[nodiscard]] static bool holds(const Step& step, const KeyState& key);

  // ---- the search
  void find_moves(Choice& choice) const;
  void add_known(std::size_t number, Choice& choice) const;
  void add_unknown(std::size_t number, Choice& choice) const;
  [[nodiscard]] bool is_locked(std::size_t number, Mask changed) const;
  [[nodiscard]] bool leaves_what_is_needed(const State& before, const State& after) const;
  void mark(std::size_t number, bool done);
  [[nodiscard]] Choice choice_after(const Choice& before, const Move& move) const;
  using Seen = std::unordered_set<Configuration, Hash>;
  void shuffle(std::vector<Move>& moves);
  void take_back(std::vector<Choice>& path);
  void note_progress();
  void begin(std::vector<Choice>& path, bool thorough);

  const LeaderTime& leader_time_;
  std::map<std::string, std::size_t> keys_;
  std::map<std::string, Id> ids_;
  // By id. Numbers that nobody spoke of come about while the search counts up.
  mutable std::vector<std::optional<std::int64_t>> numbers_ = {0};
  mutable std::map<std::int64_t, Id> number_ids_;  // of texts that are numbers
  std::vector<Operation> operations_;              // by call
  std::map<std::pair<std::size_t, Id>, std::vector<std::size_t>> writers_;
  std::map<std::pair<std::size_t, Id>, std::uint64_t> seen_by_;  // the first return of who saw it
  std::set<std::pair<std::size_t, Id>> wanted_;                  // by those of unknown outcome, too
  Mask presence_seen_ = 0;
  Mask counted_ = 0;
  bool possible_ = true;

  std::vector<bool> done_;
  std::vector<int> locked_;  // by key: WATCHes that are open
  std::size_t first_left_ = 0;
  std::size_t left_ = 0;  // of those that can't be left out
  std::map<std::pair<std::size_t, Id>, int> needed_;
  std::map<std::pair<std::size_t, Id>, int> brought_;
  std::uint64_t steps_ = 0;
  std::uint64_t attempt_ = 0;
  std::size_t least_left_ = kNone;
  std::size_t stuck_at_ = 0;
  bool thorough_ = false;  // 7.
  std::array<Seen, 2> seen_;
  std::mt19937_64 random_{1};
};

// ---- Reading the history --------------------------------------------------------------------------------

inline FamilySearch::Id FamilySearch::id(const std::string& text) {
  const auto [found, is_new] = ids_.try_emplace(text, numbers_.size());
  if (is_new) {
    std::int64_t number = 0;
    std::from_chars(text.data(), text.data() + text.size(), number);
    const bool is_number = std::to_string(number) == text;
    numbers_.push_back(is_number ? std::optional(number) : std::nullopt);
    if (is_number) number_ids_[number] = found->second;
  }
  return found->second;
}

inline FamilySearch::Step FamilySearch::step_of(const HistoryOperation& operation, bool answered) {
  Step step;
  step.kind = operation.kind;
  step.key = key(operation.key);
  step.answered = answered;
  step.lives = operation.lives;
  const bool has_text = operation.kind == Kind::kWrite ||
                        (answered && !operation.absent &&
                         (operation.kind == Kind::kRead || operation.kind == Kind::kIncrement));
  if (has_text) step.value = id(operation.value);
  if (answered && operation.count) step.done = *operation.count == 1;
  const bool counts_wrong = operation.count && (*operation.count < 0 || *operation.count > 1);
  possible_ = possible_ && !(answered && counts_wrong);
  step.condition = operation.condition;
  if (step.condition == If::kEqual) step.expected = id(operation.expected);
  return step;
}

inline FamilySearch::Operation FamilySearch::compile(const HistoryOperation& operation) {
  Operation compiled;
  compiled.called = operation.called;
  compiled.returned = operation.returned;
  compiled.is_watch = operation.kind == Kind::kWatch;
  const bool answered = !operation.is_unknown() && !compiled.is_watch;
  for (const HistoryOperation& read : operation.seen) {
    compiled.steps.push_back(step_of(read, true));
  }
  const bool has_steps = compiled.is_watch || operation.kind == Kind::kTransaction;
  for (const HistoryOperation& step : operation.steps) {
    compiled.steps.push_back(step_of(step, answered));
  }
  if (!has_steps) compiled.steps.push_back(step_of(operation, answered));
  for (const Step& step : compiled.steps) {
    compiled.touches |= Mask{1} << step.key;
    compiled.changes = compiled.changes || step.kind != Kind::kRead;
  }
  return compiled;
}

inline FamilySearch::FamilySearch(const History& operations, const LeaderTime& leader_time)
    : leader_time_(leader_time) {
  std::vector<std::size_t> places;  // of each in operations_
  for (const HistoryOperation& operation : operations) {
    places.push_back(operations_.size());
    operations_.push_back(compile(operation));
  }
  for (Operation& operation : operations_) {
    for (const Step& step : operation.steps) {
      if (step.kind == Kind::kIncrement) counted_ |= Mask{1} << step.key;
    }
  }
  if (keys_.size() > std::numeric_limits<Mask>::digits) {
    throw std::logic_error("a family of more than 32 keys");
  }
  match_watches(operations, places);
  note_who_sees();
  decide_unknown();
  for (Operation& operation : operations_) {
    operation.earliest = leader_time_.earliest(operation.called);
    account(operation, 1);
  }
  done_.resize(operations_.size());
  locked_.resize(keys_.size());
  // What somebody saw, somebody wrote.
  for (const auto& [value, count] : needed_) {
    const bool may_be_counted =
        (counted_ >> value.first & 1) != 0 && numbers_[value.second].has_value();
    possible_ = possible_ && (count == 0 || brought_[value] > 0 || may_be_counted);
  }
}

// A WATCH locks its keys until its transaction, if that was done for certain; else it says nothing.
inline void FamilySearch::match_watches(const History& operations,
                                        const std::vector<std::size_t>& places) {
  std::map<std::uint64_t, std::size_t> watches;
  for (std::size_t i = 0; i < operations.size(); ++i) {
    if (operations_[places[i]].is_watch) watches[operations[i].watch] = places[i];
  }
  for (std::size_t i = 0; i < operations.size(); ++i) {
    Operation& transaction = operations_[places[i]];
    if (operations[i].watch == 0 || transaction.is_watch || operations[i].is_unknown()) continue;
    const auto watch = watches.find(operations[i].watch);
    if (watch == watches.end()) continue;
    transaction.unlocks = watch->second;
    operations_[watch->second].locks = operations_[watch->second].touches;
  }
  for (Operation& operation : operations_) {
    if (operation.is_watch) operation.steps.clear();
  }
}

// What somebody else has to have written: all that is read, but for what it wrote before itself.
inline std::vector<std::pair<std::size_t, FamilySearch::Id>> FamilySearch::values_needed(
    const Operation& of) const {
  std::vector<std::pair<std::size_t, Id>> values;
  std::vector<std::pair<std::size_t, Id>> own;
  const auto need = [&](const std::pair<std::size_t, Id>& value) {
    const bool is_own = std::find(own.begin(), own.end(), value) != own.end();
    if (!is_own && value.second != kAbsent) values.push_back(value);
  };
  for (const Step& step : of.steps) {
    if (step.kind == Kind::kRead && step.answered) need({step.key, step.value});
    const bool was_equal = step.condition == If::kEqual && step.done.value_or(false);
    if (was_equal) need({step.key, step.expected});
    if (step.kind == Kind::kWrite) own.emplace_back(step.key, step.value);
  }
  return values;
}

inline std::vector<std::pair<std::size_t, FamilySearch::Id>> FamilySearch::values_brought(
    const Operation& of) const {
  std::vector<std::pair<std::size_t, Id>> values;
  for (const Step& step : of.steps) {
    if (step.kind == Kind::kWrite) values.emplace_back(step.key, step.value);
  }
  return values;
}

inline void FamilySearch::note_who_sees() {
  for (std::size_t i = 0; i < operations_.size(); ++i) {
    const Operation& operation = operations_[i];
    for (const auto& value : values_brought(operation)) writers_[value].push_back(i);
    for (const Step& step : operation.steps) {
      const bool asks = step.done || step.condition != If::kAlways;
      if (asks) presence_seen_ |= Mask{1} << step.key;
    }
    for (const auto& value : values_needed(operation)) wanted_.insert(value);
    if (operation.returned == kNever) continue;
    for (const auto& value : values_needed(operation)) {
      const auto first = seen_by_.try_emplace(value, operation.returned).first;
      first->second = std::min(first->second, operation.returned);
    }
  }
}

// 2. Nobody could tell whether it was done.
inline bool FamilySearch::says_nothing(const Operation& operation) const {
  if (operation.is_watch) return operation.locks == 0;
  if (operation.returned != kNever) return false;
  if (!operation.changes) return true;
  return std::all_of(operation.steps.begin(), operation.steps.end(), [&](const Step& step) {
    // One that ended may be why others found nothing.
    const bool unseen = !wanted_.contains({step.key, step.value}) && step.lives == kNever &&
                        (presence_seen_ >> step.key & 1) == 0 && (counted_ >> step.key & 1) == 0;
    return step.kind == Kind::kRead || (step.kind == Kind::kWrite && unseen);
  });
}

inline void FamilySearch::decide_unknown() {
  for (std::size_t i = 0; i < operations_.size(); ++i) {
    Operation& operation = operations_[i];
    if (operation.returned != kNever) continue;
    for (Step& step : operation.steps) {
      const std::pair value(step.key, step.value);
      const auto seen = seen_by_.find(value);
      const bool alone = step.kind == Kind::kWrite && writers_[value].size() == 1 &&
                         !((counted_ >> step.key & 1) != 0 && numbers_[step.value]);
      if (!alone || seen == seen_by_.end()) continue;
      operation.returned = std::min(operation.returned, seen->second);
      if (step.condition != If::kAlways) step.done = step.answered = true;
    }
    operation.may_be_left_out = operation.returned == kNever;
  }
  // Watches are named by their places, so that what says nothing stays where it is, and is done.
  for (Operation& operation : operations_) {
    if (!says_nothing(operation)) continue;
    operation.steps.clear();
    operation.touches = 0;
    operation.changes = operation.may_be_left_out = false;
    operation.is_watch = false;
    operation.returned = operation.called;
  }
}

inline void FamilySearch::account(const Operation& operation, int change) {
  if (!operation.may_be_left_out) {
    left_ += static_cast<std::size_t>(change);
    for (const auto& value : values_needed(operation)) needed_[value] += change;
  }
  for (const auto& value : values_brought(operation)) brought_[value] += change;
}

// ---- What an operation does -------------------------------------------------------------------------------

inline void FamilySearch::apply(const Operation& operation, const State& state, Time latest,
                                std::vector<Outcome>& to) const {
  apply_from(operation, 0, {state, 0}, 0, latest, to);
}

// Whether what it does or answers depends on what is there.
inline bool FamilySearch::looks(const Step& step) {
  if (step.kind == Kind::kRead) return step.answered;
  if (step.kind == Kind::kWrite) return step.condition != If::kAlways;
  return step.kind != Kind::kDelete || step.done.has_value();
}

// A key that ends may be there still, or be over: each as far as clocks allow. All of an operation
// happens at one time: what lives (`living`) for one step, or is given a time by one, does so for the next.
inline void FamilySearch::apply_from(const Operation& operation, std::size_t at, Outcome so_far,
                                     Mask living, Time latest, std::vector<Outcome>& to) const {
  for (; at < operation.steps.size(); ++at) {
    const Step& step = operation.steps[at];
    const Mask bit = Mask{1} << step.key;
    const KeyState& key = so_far.after[step.key];
    if (key.ends() && looks(step) && (living & bit) == 0 && latest >= key.from) {
      Outcome over = so_far;
      over.after[step.key] = {};
      if (carry_out(step, operation, true, latest, over)) {
        apply_from(operation, at + 1, std::move(over), living | bit, latest, to);
      }
      if (operation.earliest >= key.until) return;
    }
    living |= looks(step) || step.kind == Kind::kWrite ? bit : 0;
    if (!carry_out(step, operation, (living & bit) != 0, latest, so_far)) return;
  }
  to.push_back(std::move(so_far));
}

inline bool FamilySearch::holds(const Step& step, const KeyState& key) {
  switch (step.condition) {
    case If::kAlways:
      return true;
    case If::kAbsent:
      return key.value == kAbsent;
    case If::kPresent:
      return key.value != kAbsent;
    case If::kEqual:
      return key.value == step.expected;
  }
  return false;
}

// False: that is not what it answered. `certain`: whether the key was over has been decided.
inline bool FamilySearch::carry_out(const Step& step, const Operation& of, bool certain,
                                    Time latest, Outcome& outcome) const {
  KeyState& key = outcome.after[step.key];
  const Mask bit = Mask{1} << step.key;
  const bool there = key.value != kAbsent;
  const auto answers = [&](bool done) { return !step.done || *step.done == done; };
  const auto give_time = [&](KeyState& to) {
    if (step.lives == kNever) return;
    to.from = of.earliest + static_cast<Time>(step.lives);
    to.until = latest == kNoEnd ? kNoEnd - 1 : latest + static_cast<Time>(step.lives);
  };
  switch (step.kind) {
    case Kind::kRead:
      return !step.answered || key.value == step.value;
    case Kind::kWrite:
      if (!answers(holds(step, key))) return false;
      if (!holds(step, key)) return true;
      key = {step.value};
      give_time(key);
      outcome.changed |= bit;
      return true;
    case Kind::kDelete:
      if (!answers(there)) return false;
      if (there && (certain || latest < key.from)) outcome.changed |= bit;
      key = {};
      return true;
    case Kind::kIncrement: {
      const std::optional<std::int64_t> number = numbers_[key.value];
      if (!number) return !step.answered;  // an error, which does nothing
      if (step.answered && numbers_[step.value] != *number + 1) return false;
      const auto [found, is_new] = number_ids_.try_emplace(*number + 1, numbers_.size());
      if (is_new) numbers_.emplace_back(*number + 1);
      key.value = found->second;
      outcome.changed |= bit;
      return true;
    }
    case Kind::kExpire:
      if (!answers(there)) return false;
      if (there) give_time(key);
      if (there) outcome.changed |= bit;
      return true;
    case Kind::kPersist:
      if (!answers(key.ends())) return false;
      if (key.ends()) outcome.changed |= bit;
      key = {key.value};
      return true;
    default:
      return true;
  }
}

// ---- The search -------------------------------------------------------------------------------------------

inline bool FamilySearch::is_locked(std::size_t number, Mask changed) const {
  const Operation& operation = operations_[number];
  const Mask own = operation.unlocks == kNone ? 0 : operations_[operation.unlocks].locks;
  for (std::size_t key = 0; key < locked_.size(); ++key) {
    if ((changed >> key & 1) != 0 && locked_[key] > static_cast<int>(own >> key & 1)) return true;
  }
  return false;
}

inline void FamilySearch::add_known(std::size_t number, Choice& choice) const {
  const Operation& operation = operations_[number];
  for (const Mask keys : choice.untouched) {
    if ((operation.touches & keys) == 0) return;  // 3.
  }
  if (operation.unlocks != kNone && !done_[operation.unlocks]) return;
  std::vector<Outcome> outcomes;
  apply(operation, choice.state, choice.latest, outcomes);
  std::vector<Outcome> without;
  if (!choice.untouched.empty()) apply(operation, choice.without, choice.latest, without);
  if (!thorough_ && !without.empty()) return;
  for (Outcome& outcome : outcomes) {
    const bool needless = std::any_of(without.begin(), without.end(), [&](const Outcome& other) {
      return other.after == outcome.after;  // 3.
    });
    if (!needless && !is_locked(number, outcome.changed)) {
      choice.moves.push_back({number, std::move(outcome)});
    }
  }
}

inline void FamilySearch::add_unknown(std::size_t number, Choice& choice) const {
  const Operation& operation = operations_[number];
  // Of those that do the same, what was called first comes first.
  for (std::size_t i = 0; i < number; ++i) {
    const bool same = operations_[i].may_be_left_out && operations_[i].steps == operation.steps;
    const bool ends = std::any_of(operation.steps.begin(), operation.steps.end(),
                                  [](const Step& step) { return step.lives != kNever; });
    if (!done_[i] && same && !ends) return;
  }
  std::vector<Outcome> outcomes;
  apply(operation, choice.state, choice.latest, outcomes);
  for (Outcome& outcome : outcomes) {
    if (outcome.changed == 0 && outcome.after == choice.state) continue;
    if (is_locked(number, outcome.changed)) continue;
    choice.moves.push_back({number, std::move(outcome)});
  }
}

inline void FamilySearch::find_moves(Choice& choice) const {
  std::vector<std::size_t> known;
  std::vector<std::size_t> unknown;
  std::uint64_t first_return = kNever;
  for (std::size_t i = first_left_; i < operations_.size(); ++i) {
    const Operation& operation = operations_[i];
    if (operation.called > first_return) break;
    if (done_[i]) continue;
    (operation.may_be_left_out ? unknown : known).push_back(i);
    if (!operation.may_be_left_out) first_return = std::min(first_return, operation.returned);
  }
  choice.latest = leader_time_.latest(first_return);
  for (const std::size_t i : known) {  // 1.
    const Operation& operation = operations_[i];
    if (operation.changes || operation.is_watch || operation.unlocks != kNone) continue;
    std::vector<Outcome> outcomes;
    apply(operation, choice.state, choice.latest, outcomes);
    for (Outcome& outcome : outcomes) {
      if (outcome.after != choice.state) continue;
      choice.moves = {{i, std::move(outcome)}};
      return;
    }
  }
  std::stable_sort(known.begin(), known.end(), [&](std::size_t a, std::size_t b) {
    return operations_[a].returned < operations_[b].returned;
  });
  for (const std::size_t i : known) {
    if (operations_[i].is_watch && operations_[i].returned != first_return) continue;  // 5.
    add_known(i, choice);
  }
  if (!thorough_ && choice.untouched.size() >= kFewUnknown) return;
  for (const std::size_t i : unknown) add_unknown(i, choice);
}

// 4.
inline bool FamilySearch::leaves_what_is_needed(const State& before, const State& after) const {
  for (std::size_t key = 0; key < before.size(); ++key) {
    const Id value = before[key].value;
    if (value == kAbsent || value == after[key].value) continue;
    if ((counted_ >> key & 1) != 0 && numbers_[value]) continue;
    const auto needed = needed_.find({key, value});
    if (needed == needed_.end() || needed->second == 0) continue;
    const auto brought = brought_.find({key, value});
    if (brought == brought_.end() || brought->second == 0) return true;
  }
  return false;
}

inline void FamilySearch::mark(std::size_t number, bool done) {
  const Operation& operation = operations_[number];
  done_[number] = done;
  account(operation, done ? -1 : 1);
  const auto lock = [&](Mask keys, int change) {
    for (std::size_t key = 0; key < locked_.size(); ++key) {
      if ((keys >> key & 1) != 0) locked_[key] += change;
    }
  };
  if (operation.is_watch) lock(operation.locks, done ? 1 : -1);
  if (operation.unlocks != kNone) lock(operations_[operation.unlocks].locks, done ? -1 : 1);
  if (!done) first_left_ = std::min(first_left_, number);
  while (done && first_left_ < done_.size() && done_[first_left_]) ++first_left_;
}

inline FamilySearch::Choice FamilySearch::choice_after(const Choice& before,
                                                       const Move& move) const {
  Choice after{move.outcome.after};
  const Operation& operation = operations_[move.operation];
  if (!operation.may_be_left_out) return after;
  for (const Mask keys : before.untouched) {
    if ((keys & operation.touches) == 0) after.untouched.push_back(keys);
  }
  after.untouched.push_back(operation.touches);
  std::sort(after.untouched.begin(), after.untouched.end());
  after.without = before.untouched.empty() ? before.state : before.without;
  return after;
}

// 6. From the second attempt on, one move in eight comes before its turn.
inline void FamilySearch::shuffle(std::vector<Move>& moves) {
  if (attempt_ == 0 || moves.size() < 2 || random_() % 8 != 0) return;
  const auto first = static_cast<std::ptrdiff_t>(random_() % moves.size());
  std::rotate(moves.begin(), moves.begin() + first, moves.begin() + first + 1);
}

// What is under way is taken back; what came to its end without success stays known.
inline void FamilySearch::take_back(std::vector<Choice>& path) {
  while (path.size() > 1) {
    seen_[thorough_ ? 1 : 0].erase({done_, path.back().state, path.back().untouched});
    path.pop_back();
    mark(path.back().moves[path.back().next - 1].operation, false);
  }
}

inline void FamilySearch::begin(std::vector<Choice>& path, bool thorough) {
  take_back(path);
  thorough_ = thorough;
  path.assign(1, {State(keys_.size())});
  find_moves(path.front());
  shuffle(path.front().moves);
}

inline void FamilySearch::note_progress() {
  if (left_ >= least_left_) return;
  least_left_ = left_;
  std::uint64_t first_return = kNever;
  for (std::size_t i = first_left_; i < operations_.size(); ++i) {
    const Operation& operation = operations_[i];
    if (done_[i] || operation.may_be_left_out || operation.returned >= first_return) continue;
    first_return = operation.returned;
    stuck_at_ = i;
  }
}

inline std::optional<bool> FamilySearch::run(std::uint64_t max_steps) {
  if (!possible_) return false;
  std::vector<Choice> path;
  begin(path, false);
  bool simple_ones_are_through = false;
  std::uint64_t patience = 4 * operations_.size() + 200;
  std::uint64_t attempt_ends = patience;
  while (left_ > 0) {
    Choice& choice = path.back();
    if (choice.next == choice.moves.size()) {
      if (path.size() == 1 && thorough_) return false;
      if (path.size() == 1) {
        simple_ones_are_through = true;
        begin(path, true);
        continue;
      }
      path.pop_back();
      const Choice& last = path.back();
      mark(last.moves[last.next - 1].operation, false);
      continue;
    }
    if (++steps_ > max_steps) return std::nullopt;
    if (steps_ > attempt_ends) {
      ++attempt_;
      patience += patience / 4;
      attempt_ends = steps_ + patience;
      begin(path, simple_ones_are_through || !thorough_);
      continue;
    }
    const Move& move = choice.moves[choice.next++];
    mark(move.operation, true);
    Choice next = choice_after(choice, move);
    if (leaves_what_is_needed(choice.state, next.state) ||
        !seen_[thorough_ ? 1 : 0].insert({done_, next.state, next.untouched}).second) {
      mark(move.operation, false);
      continue;
    }
    note_progress();
    find_moves(next);
    shuffle(next.moves);
    path.push_back(std::move(next));
  }
  return true;
}

}  // namespace seshat::test::linearizability_detail

#endif  // SESHAT_TESTS_LINEARIZABILITY_FAMILY_HPP
