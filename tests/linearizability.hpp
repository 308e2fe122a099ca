// A checker for histories: could these operations have happened one at a time, each at some moment
// between its call and its return?
//
//   history of one key ──> split_by_key ──> KeySearch: Wing and Gong's search, Lowe's memoisation
//
// Wing and Gong, "Testing and Verifying Concurrent Objects" (1993): try every operation that was
// called before the first return of those left, apply it to the model, go on; go back where the
// model answers differently. Lowe, "Testing for Linearizability" (2017): a set of operations done
// and a state of the model, once seen, need not be tried again. Keys are independent, so that each is
// checked alone (locality, Herlihy and Wing 1990).
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
#include <string>
#include <unordered_set>
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

struct Verdict {
  bool linearizable = true;
  bool gave_up = false;  // the bound on steps was reached: neither yes nor no
  std::string key;       // of a violation
  std::string story;     // the operations of that key, in the order of their calls
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
      const std::uint64_t steps = verdict.steps + of_key.steps;
      if (!of_key.linearizable || (of_key.gave_up && !verdict.gave_up)) {
        verdict = of_key;
        verdict.key = key;
      }
      verdict.steps = steps;
      if (!verdict.linearizable) break;  // worse than one that is undecided
    }
    return verdict;
  }

 private:
  [[nodiscard]] Verdict check_key(History operations) const {
    std::stable_sort(operations.begin(), operations.end(),
                     [](const auto& a, const auto& b) { return a.called < b.called; });
    linearizability_detail::KeySearch search(operations);
    const std::optional<bool> linearizable = search.run(max_steps_);
    Verdict verdict;
    verdict.gave_up = !linearizable;
    verdict.linearizable = linearizable.value_or(true);
    verdict.steps = search.steps();
    if (!linearizable.value_or(false)) verdict.story = tell(operations);
    return verdict;
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
