// The checker of histories: transactions, watched keys, conditions and times to live, each rule with
// a history that keeps it and one that breaks it.
#include <algorithm>
#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "catch.hpp"
#include "linearizability.hpp"

using seshat::test::History;
using seshat::test::HistoryOperation;
using seshat::test::kNever;
using seshat::test::LeaderTime;
using seshat::test::LinearizabilityChecker;
using Kind = HistoryOperation::Kind;
using If = HistoryOperation::If;

namespace {

// ---- Operations, as a history tells them

HistoryOperation operation(Kind kind, std::string key, std::string value = "") {
  HistoryOperation made;
  made.kind = kind;
  made.key = std::move(key);
  made.value = std::move(value);
  return made;
}

HistoryOperation read(std::string key, std::string value) {
  return operation(Kind::kRead, std::move(key), std::move(value));
}

HistoryOperation nothing(std::string key) {
  HistoryOperation made = operation(Kind::kRead, std::move(key));
  made.absent = true;
  return made;
}

HistoryOperation write(std::string key, std::string value) {
  return operation(Kind::kWrite, std::move(key), std::move(value));
}

HistoryOperation write_for(std::string key, std::string value, std::uint64_t lives) {
  HistoryOperation made = write(std::move(key), std::move(value));
  made.lives = lives;
  return made;
}

HistoryOperation write_if(If condition, std::string key, std::string value, int done,
                          std::string expected = "") {
  HistoryOperation made = write(std::move(key), std::move(value));
  made.condition = condition;
  made.count = done;
  made.expected = std::move(expected);
  return made;
}

HistoryOperation counted(Kind kind, std::string key, int count, std::uint64_t lives = kNever) {
  HistoryOperation made = operation(kind, std::move(key));
  made.count = count;
  made.lives = lives;
  return made;
}

HistoryOperation increment(std::string key, std::string value) {
  return operation(Kind::kIncrement, std::move(key), std::move(value));
}

HistoryOperation transaction(std::vector<HistoryOperation> steps) {
  HistoryOperation made = operation(Kind::kTransaction, "");
  made.steps = std::move(steps);
  return made;
}

HistoryOperation watch(std::uint64_t number, const std::vector<std::string>& keys) {
  HistoryOperation made = operation(Kind::kWatch, "");
  made.watch = number;
  for (const std::string& key : keys) made.steps.push_back(operation(Kind::kRead, key));
  return made;
}

HistoryOperation under_watch(std::uint64_t number, std::vector<HistoryOperation> seen,
                             std::vector<HistoryOperation> steps) {
  HistoryOperation made = transaction(std::move(steps));
  made.watch = number;
  made.seen = std::move(seen);
  return made;
}

HistoryOperation at(std::uint64_t called, std::uint64_t returned, HistoryOperation made) {
  made.called = called;
  made.returned = returned;
  return made;
}

bool linearizable(const History& history, const LeaderTime& leader_time = {}) {
  const auto verdict = LinearizabilityChecker(1'000'000, leader_time).check(history);
  REQUIRE_FALSE(verdict.gave_up);
  return verdict.linearizable;
}

}  // namespace

// ---- Transactions -------------------------------------------------------------------------------

TEST_CASE("a transaction happens at one moment: who reads sees all of it or nothing") {
  const HistoryOperation both = transaction({write("a", "1"), write("b", "1")});
  CHECK(linearizable({at(0, 9, both), at(1, 2, nothing("a")), at(3, 4, read("b", "1")),
                      at(5, 6, read("a", "1"))}));
  CHECK_FALSE(linearizable({at(0, 9, both), at(1, 2, read("a", "1")), at(3, 4, nothing("b"))}));
}

TEST_CASE("a transaction reads its own writes, and what was there before them") {
  const History history = {
      at(0, 1, write("a", "1")),
      at(2, 3, transaction({read("a", "1"), write("a", "2"), read("a", "2"), read("b", "")}))};
  History right = history;
  right[1].steps[3].absent = true;
  CHECK(linearizable(right));
  right[1].steps[2] = read("a", "1");
  CHECK_FALSE(linearizable(right));
}

TEST_CASE("two transactions do not interleave") {
  // Each reads the key that the other writes: one of them has to see the other.
  const auto reads_and_writes = [](const HistoryOperation& seen, const std::string& writes) {
    return transaction({seen, write(writes, "1")});
  };
  CHECK(linearizable({at(0, 9, reads_and_writes(nothing("b"), "a")),
                      at(0, 9, reads_and_writes(read("a", "1"), "b"))}));
  CHECK_FALSE(linearizable({at(0, 9, reads_and_writes(nothing("b"), "a")),
                            at(0, 9, reads_and_writes(nothing("a"), "b"))}));
}

TEST_CASE("a transaction of unknown outcome is done as a whole, late, or never") {
  const HistoryOperation both = at(0, kNever, transaction({write("a", "1"), write("b", "1")}));
  CHECK(linearizable(
      {both, at(1, 2, nothing("a")), at(3, 4, read("b", "1")), at(5, 6, read("a", "1"))}));
  CHECK(linearizable({both, at(1, 2, nothing("a")), at(3, 4, nothing("b"))}));
  CHECK_FALSE(linearizable({both, at(1, 2, read("a", "1")), at(3, 4, nothing("b"))}));
  // What overwrites one of its keys may come between it and who sees the other.
  CHECK(linearizable(
      {both, at(1, 2, write("b", "2")), at(3, 4, read("a", "1")), at(5, 6, read("b", "2"))}));
  CHECK_FALSE(linearizable(
      {both, at(1, 2, read("b", "1")), at(3, 4, write("a", "2")), at(5, 6, read("a", "1"))}));
}

TEST_CASE("increments of unknown outcome in transactions are counted as often as is needed") {
  const auto unknown = at(0, kNever, transaction({increment("n", ""), write("a", "x")}));
  const auto plain = at(0, kNever, increment("n", ""));
  CHECK(linearizable({unknown, plain, at(1, 2, transaction({read("n", "2"), nothing("b")}))}));
  CHECK_FALSE(
      linearizable({unknown, plain, at(1, 2, transaction({read("n", "3"), nothing("b")}))}));
  CHECK_FALSE(
      linearizable({unknown, plain, at(1, 2, transaction({read("n", "2"), nothing("a")}))}));
}

// ---- Conditions ---------------------------------------------------------------------------------

TEST_CASE("a write with a condition is done when it holds, and only then") {
  for (const int done : {0, 1}) {
    CHECK(linearizable({at(0, 1, write("a", "1")),
                        at(2, 3, write_if(If::kPresent, "a", "2", done))}) == (done == 1));
    CHECK(linearizable({at(0, 1, write("a", "1")),
                        at(2, 3, write_if(If::kAbsent, "a", "2", done))}) == (done == 0));
    CHECK(linearizable({at(0, 1, write("a", "1")),
                        at(2, 3, write_if(If::kEqual, "a", "2", done, "1"))}) == (done == 1));
    CHECK(linearizable({at(0, 1, write("a", "1")),
                        at(2, 3, write_if(If::kEqual, "a", "2", done, "0"))}) == (done == 0));
  }
}

TEST_CASE("what had its condition refused left nothing behind") {
  const HistoryOperation refused = at(2, 3, write_if(If::kAbsent, "a", "2", 0));
  CHECK(linearizable({at(0, 1, write("a", "1")), refused, at(4, 5, read("a", "1"))}));
  CHECK_FALSE(linearizable({at(0, 1, write("a", "1")), refused, at(4, 5, read("a", "2"))}));
}

TEST_CASE("a write that nobody saw may be what another's condition met") {
  const HistoryOperation unseen = at(0, kNever, write("a", "1"));
  CHECK(linearizable({unseen, at(1, 2, write_if(If::kAbsent, "a", "2", 0))}));
  CHECK_FALSE(linearizable({at(1, 2, write_if(If::kAbsent, "a", "2", 0))}));
  HistoryOperation met = at(1, kNever, write_if(If::kPresent, "a", "2", 1));
  met.count.reset();
  CHECK(linearizable({unseen, met, at(3, 4, read("a", "2"))}));
  CHECK_FALSE(linearizable({met, at(3, 4, read("a", "2"))}));
}

// ---- WATCH --------------------------------------------------------------------------------------

TEST_CASE("a transaction under WATCH is not done when a key changed in between") {
  const History history = {at(0, 1, write("a", "1")), at(2, 3, watch(7, {"a"})),
                           at(4, 5, write("a", "2")),
                           at(6, 7, under_watch(7, {}, {write("b", "1")}))};
  CHECK_FALSE(linearizable(history));
  History earlier = history;  // ... but it may have been before
  earlier[2].called = 1;
  CHECK(linearizable(earlier));
  History refused = history;  // a transaction that was not done says nothing
  refused.pop_back();
  CHECK(linearizable(refused));
  History late = history;
  late[2].returned = 8;
  CHECK(linearizable(late));
}

TEST_CASE("a watched key that was absent, came and went has changed") {
  const auto history = [](const HistoryOperation& last) {
    return History{at(0, 1, watch(7, {"a"})), at(2, 3, write("a", "1")),
                   at(4, 5, counted(Kind::kDelete, "a", 1)), last};
  };
  CHECK_FALSE(linearizable(history(at(6, 7, under_watch(7, {nothing("a")}, {write("b", "1")})))));
  CHECK(linearizable(history(at(6, 7, transaction({nothing("a"), write("b", "1")})))));
}

TEST_CASE("what did not change a watched key does not matter") {
  const auto between = [](const HistoryOperation& other) {
    return linearizable({at(0, 1, watch(7, {"a"})), at(2, 3, other),
                         at(4, 5, under_watch(7, {nothing("a")}, {write("a", "1")}))});
  };
  CHECK(between(counted(Kind::kDelete, "a", 0)));
  CHECK(between(write_if(If::kPresent, "a", "2", 0)));
  CHECK(between(counted(Kind::kExpire, "a", 0, 100)));
  CHECK(between(write("b", "2")));
  CHECK_FALSE(between(increment("a", "1")));
}

TEST_CASE("a time to live that is given or taken away changes a watched key") {
  for (const auto kind : {Kind::kExpire, Kind::kPersist}) {
    const History history = {at(0, 1, write_for("a", "1", 1000)), at(2, 3, watch(7, {"a"})),
                             at(4, 5, counted(kind, "a", 1, kind == Kind::kExpire ? 1000 : kNever)),
                             at(6, 7, under_watch(7, {read("a", "1")}, {write("b", "1")}))};
    CHECK_FALSE(linearizable(history));
  }
}

TEST_CASE("what was seen under a WATCH holds when its transaction is done, known or not") {
  for (const std::uint64_t returned : {std::uint64_t{7}, kNever}) {
    const auto history = [&](const std::string& seen) {
      return History{at(0, 1, write("n", "x1")), at(2, 3, write("n", "x2")),
                     at(6, returned, under_watch(7, {read("n", seen)}, {write("n", "x3")})),
                     at(8, 9, read("n", "x3"))};
    };
    CHECK(linearizable(history("x2")));
    CHECK_FALSE(linearizable(history("x1")));
  }
}

TEST_CASE("two transactions under WATCH that saw the same are not both done") {
  const auto adds = [](std::uint64_t number, const std::string& value) {
    return under_watch(number, {nothing("n")}, {write("n", value)});
  };
  const History both = {at(0, 1, watch(1, {"n"})), at(0, 1, watch(2, {"n"})),
                        at(2, 9, adds(1, "x")), at(2, 9, adds(2, "y"))};
  CHECK_FALSE(linearizable(both));
  History one = both;
  one.pop_back();
  CHECK(linearizable(one));
}

// ---- Times to live ------------------------------------------------------------------------------

TEST_CASE("a key is there until its time to live is over, and gone after") {
  // Written at some moment from 10 to 20 for 100: it ends from 110 to 120.
  const HistoryOperation written = at(10, 20, write_for("a", "1", 100));
  CHECK(linearizable({written, at(105, 109, read("a", "1"))}));
  CHECK(linearizable({written, at(110, 115, read("a", "1"))}));
  CHECK(linearizable({written, at(105, 110, nothing("a"))}));
  CHECK_FALSE(linearizable({written, at(105, 109, nothing("a"))}));
  CHECK_FALSE(linearizable({written, at(120, 125, read("a", "1"))}));
}

TEST_CASE("no time passes within a transaction") {
  const HistoryOperation written = at(10, 20, write_for("a", "1", 100));
  const auto reads = [](const HistoryOperation& first, const HistoryOperation& second) {
    return at(105, 130, transaction({first, second}));
  };
  CHECK(linearizable({written, reads(read("a", "1"), read("a", "1"))}));
  CHECK(linearizable({written, reads(nothing("a"), nothing("a"))}));
  CHECK_FALSE(linearizable({written, reads(read("a", "1"), nothing("a"))}));
  CHECK_FALSE(
      linearizable({written, at(105, 130, under_watch(0, {read("a", "1")}, {nothing("a")}))}));
  CHECK_FALSE(linearizable({at(0, 90, transaction({write_for("a", "1", 5), nothing("a")}))}));
}

TEST_CASE("leaders' clocks that are ahead end a time to live sooner, those behind later") {
  LeaderTime skewed;
  skewed.allow(0, 0, 0);
  skewed.allow(50, -30, 30);
  const HistoryOperation written = at(10, 20, write_for("a", "1", 100));
  CHECK(linearizable({written, at(70, 80, nothing("a"))}, skewed));
  CHECK_FALSE(linearizable({written, at(70, 79, nothing("a"))}, skewed));
  CHECK(linearizable({written, at(149, 160, read("a", "1"))}, skewed));
  CHECK_FALSE(linearizable({written, at(150, 160, read("a", "1"))}, skewed));
  // What was before the clocks were set is judged by what they were.
  CHECK_FALSE(linearizable(
      {at(10, 20, write_for("a", "1", 10)), at(15, 49, read("a", "1")), at(40, 49, read("a", "1"))},
      skewed));
}

TEST_CASE("clocks that drift widen the bounds as time goes by") {
  LeaderTime drifting;
  drifting.allow_drift(100'000, 100'000);  // a tenth
  constexpr std::uint64_t kMillion = 1'000'000;
  const HistoryOperation written = at(0, 0, write_for("a", "1", 10 * kMillion));
  CHECK(linearizable({written, at(9 * kMillion, 10 * kMillion, nothing("a"))}, drifting));
  CHECK_FALSE(linearizable({written, at(8 * kMillion, 8 * kMillion, nothing("a"))}, drifting));
}

TEST_CASE("what was seen gone does not come back without a write") {
  LeaderTime wide;
  wide.allow(0, -1000, 1000);
  const HistoryOperation written = at(10, 20, write_for("a", "1", 100));
  CHECK(linearizable({written, at(50, 51, read("a", "1")), at(52, 53, nothing("a"))}, wide));
  CHECK_FALSE(linearizable({written, at(50, 51, nothing("a")), at(52, 53, read("a", "1"))}, wide));
  CHECK_FALSE(
      linearizable({written, at(50, 51, increment("a", "1")), at(52, 53, read("a", "2"))}, wide));
  CHECK(linearizable(
      {written, at(50, 51, nothing("a")), at(52, 53, write("a", "2")), at(54, 55, read("a", "2"))},
      wide));
}

TEST_CASE("a key that counts keeps its time to live; a plain write ends it") {
  const HistoryOperation written = at(0, 0, write_for("n", "1", 100));
  CHECK(linearizable({written, at(50, 50, increment("n", "2")), at(150, 150, nothing("n"))}));
  CHECK_FALSE(
      linearizable({written, at(50, 50, increment("n", "2")), at(150, 150, read("n", "2"))}));
  CHECK(linearizable({written, at(150, 150, increment("n", "1")), at(350, 350, read("n", "1"))}));
  CHECK(linearizable({written, at(50, 50, write("n", "2")), at(150, 150, read("n", "2"))}));
  CHECK_FALSE(linearizable({written, at(50, 50, write("n", "2")), at(150, 150, nothing("n"))}));
}

TEST_CASE("EXPIRE gives a time to live, PERSIST takes it away, and both say whether") {
  const HistoryOperation written = at(0, 0, write("a", "1"));
  const HistoryOperation expire = at(10, 10, counted(Kind::kExpire, "a", 1, 50));
  CHECK(linearizable({written, expire, at(60, 60, nothing("a"))}));
  CHECK_FALSE(linearizable({written, expire, at(60, 60, read("a", "1"))}));
  CHECK_FALSE(linearizable({written, expire, at(59, 59, nothing("a"))}));
  CHECK(linearizable(
      {written, expire, at(20, 20, counted(Kind::kPersist, "a", 1)), at(60, 60, read("a", "1"))}));
  CHECK_FALSE(linearizable(
      {written, expire, at(20, 20, counted(Kind::kPersist, "a", 1)), at(60, 60, nothing("a"))}));
  CHECK_FALSE(linearizable({written, at(20, 20, counted(Kind::kPersist, "a", 1))}));
  CHECK_FALSE(linearizable({at(0, 1, counted(Kind::kExpire, "a", 1, 50))}));
  CHECK(linearizable({at(0, 1, counted(Kind::kExpire, "a", 0, 50)), at(2, 3, nothing("a"))}));
}

TEST_CASE("a write of unknown outcome lives from when it was done, whenever that was") {
  const HistoryOperation written = at(10, kNever, write_for("a", "1", 100));
  CHECK(linearizable({written, at(500, 510, read("a", "1"))}));
  CHECK(linearizable({written, at(500, 510, nothing("a"))}));
  CHECK_FALSE(linearizable({written, at(20, 30, read("a", "1")), at(130, 140, read("a", "1"))}));
  CHECK_FALSE(linearizable({written, at(20, 30, read("a", "1")), at(100, 109, nothing("a"))}));
}

// ---- Against a search that leaves nothing out -----------------------------------------------------

namespace {

// The keys, as plainly as can be: versions tell what has changed, and watches remember them.
struct Plain {
  struct Cell {
    std::optional<std::string> value;
    std::optional<std::pair<std::int64_t, std::int64_t>> ends;
    int version = 0;
  };
  std::map<std::string, Cell> cells;
  std::map<std::uint64_t, std::map<std::string, int>> watches;
};

std::optional<std::int64_t> number_in(const std::optional<std::string>& text) {
  if (!text) return 0;
  if (text->empty() || text->find_first_not_of("0123456789") != std::string::npos) return {};
  return std::stoll(*text);
}

bool meets(const HistoryOperation& step, const std::optional<std::string>& value) {
  if (step.condition == If::kAbsent) return !value;
  if (step.condition == If::kPresent) return value.has_value();
  return step.condition == If::kAlways || value == step.expected;
}

// One step at one cell. False: that is not what was answered.
bool do_step(const HistoryOperation& step, bool answered, std::int64_t earliest,
             std::int64_t latest, Plain::Cell& cell) {
  const auto agrees = [&](bool done) { return !answered || !step.count || *step.count == done; };
  const auto changed = [&] { ++cell.version; };
  const auto ends = [&]() -> std::optional<std::pair<std::int64_t, std::int64_t>> {
    if (step.lives == kNever) return {};
    const auto lives = static_cast<std::int64_t>(step.lives);
    return std::pair(earliest + lives, latest > 1'000'000 ? latest : latest + lives);
  };
  switch (step.kind) {
    case Kind::kRead:
      return !answered || (step.absent ? !cell.value : cell.value == step.value);
    case Kind::kWrite:
      if (!agrees(meets(step, cell.value))) return false;
      if (!meets(step, cell.value)) return true;
      cell.value = step.value;
      cell.ends = ends();
      changed();
      return true;
    case Kind::kDelete:
      if (!agrees(cell.value.has_value())) return false;
      if (cell.value) changed();
      cell.value.reset();
      cell.ends.reset();
      return true;
    case Kind::kIncrement: {
      const auto number = number_in(cell.value);
      if (!number) return !answered;
      if (answered && step.value != std::to_string(*number + 1)) return false;
      if (!cell.value) cell.ends.reset();
      cell.value = std::to_string(*number + 1);
      changed();
      return true;
    }
    case Kind::kExpire:
      if (!agrees(cell.value.has_value())) return false;
      if (cell.value) cell.ends = ends(), changed();
      return true;
    case Kind::kPersist:
      if (!agrees(cell.ends.has_value())) return false;
      if (cell.ends) changed();
      cell.ends.reset();
      return true;
    default:
      return true;
  }
}

// All that may follow; a cell that ends is there, or over, or both are tried, once in an operation.
void do_steps(const std::vector<std::pair<HistoryOperation, bool>>& steps, std::size_t from,
              std::int64_t earliest, std::int64_t latest, Plain state, std::set<std::string> tried,
              std::vector<Plain>& to) {
  if (from == steps.size()) return to.push_back(std::move(state));
  const auto& [step, answered] = steps[from];
  const Plain::Cell before = state.cells[step.key];
  const bool is_first = tried.insert(step.key).second;
  for (const bool over : {false, true}) {
    if (over && (!is_first || !before.ends || latest < before.ends->first)) continue;
    if (!over && is_first && before.ends && earliest >= before.ends->second) continue;
    Plain next = state;
    Plain::Cell& cell = next.cells[step.key];
    if (over) cell.value.reset(), cell.ends.reset();
    if (do_step(step, answered, earliest, latest, cell)) {
      do_steps(steps, from + 1, earliest, latest, std::move(next), tried, to);
    }
  }
}

std::vector<Plain> states_after(const Plain& state, const HistoryOperation& done,
                                std::int64_t earliest, std::int64_t latest) {
  if (done.kind == Kind::kWatch) {
    Plain next = state;
    for (const HistoryOperation& step : done.steps) {
      next.watches[done.watch][step.key] = next.cells[step.key].version;
    }
    return {next};
  }
  if (done.watch != 0 && !done.is_unknown()) {
    const auto watched = state.watches.find(done.watch);
    if (watched == state.watches.end()) return {};
    for (const auto& [key, version] : watched->second) {
      const auto cell = state.cells.find(key);
      if ((cell == state.cells.end() ? 0 : cell->second.version) != version) return {};
    }
  }
  std::vector<std::pair<HistoryOperation, bool>> steps;
  for (const HistoryOperation& seen : done.seen) steps.emplace_back(seen, true);
  for (const HistoryOperation& step : done.steps) steps.emplace_back(step, !done.is_unknown());
  if (done.kind != Kind::kTransaction) steps.emplace_back(done, !done.is_unknown());
  std::vector<Plain> states;
  do_steps(steps, 0, earliest, latest, state, {}, states);
  return states;
}

// Every order that real time allows, with and without each operation of unknown outcome.
bool some_order_holds(const History& history, std::vector<bool>& done, const Plain& state,
                      const LeaderTime& leader_time) {
  std::uint64_t first_return = kNever;
  for (std::size_t i = 0; i < history.size(); ++i) {
    if (!done[i]) first_return = std::min(first_return, history[i].returned);
  }
  if (first_return == kNever) return true;
  for (std::size_t i = 0; i < history.size(); ++i) {
    if (done[i] || history[i].called > first_return) continue;
    done[i] = true;
    for (const Plain& after :
         states_after(state, history[i], leader_time.earliest(history[i].called),
                      leader_time.latest(first_return))) {
      if (some_order_holds(history, done, after, leader_time)) return true;
    }
    done[i] = false;
  }
  return false;
}

// ---- Small histories

constexpr std::array kKeys = {"a", "b"};

HistoryOperation draw_step(std::mt19937_64& random) {
  static constexpr std::array kValues = {"1", "2", "x", "y", "z"};
  static constexpr std::array kKinds = {
      Kind::kRead,  Kind::kRead,   Kind::kRead,      Kind::kWrite,  Kind::kWrite,
      Kind::kWrite, Kind::kDelete, Kind::kIncrement, Kind::kExpire, Kind::kPersist};
  HistoryOperation step =
      operation(kKinds[random() % kKinds.size()], kKeys[random() % 2], kValues[random() % 5]);
  const bool asks = step.kind != Kind::kRead && step.kind != Kind::kIncrement && random() % 2 == 0;
  if (step.kind == Kind::kRead) step.absent = random() % 3 == 0;
  if (step.kind == Kind::kIncrement) step.value = std::to_string(1 + random() % 3);
  if (step.kind == Kind::kWrite && asks) {
    step.condition = static_cast<If>(1 + random() % 3);
    step.expected = kValues[random() % 5];
  }
  if (asks) step.count = random() % 2;
  if (step.kind == Kind::kExpire || (step.kind == Kind::kWrite && random() % 3 == 0)) {
    step.lives = 1 + random() % 8;
  }
  return step;
}

HistoryOperation draw_operation(std::mt19937_64& random) {
  HistoryOperation drawn = draw_step(random);
  if (random() % 3 == 0) drawn = transaction({draw_step(random), draw_step(random)});
  drawn.called = random() % 12;
  drawn.returned = random() % 4 == 0 ? kNever : drawn.called + 1 + random() % 6;
  return drawn;
}

// A WATCH and its transaction, a little later.
void add_watch(std::mt19937_64& random, std::uint64_t number, History& history) {
  HistoryOperation first = watch(number, {kKeys[random() % 2]});
  first.called = random() % 8;
  first.returned = first.called + 1 + random() % 3;
  HistoryOperation second = transaction({draw_step(random)});
  if (random() % 2 == 0) {
    HistoryOperation seen = draw_step(random);
    while (seen.kind != Kind::kRead) seen = draw_step(random);
    second.seen = {seen};
  }
  second.watch = number;
  second.called = first.returned + 1 + random() % 3;
  second.returned = random() % 4 == 0 ? kNever : second.called + 1 + random() % 4;
  history.push_back(first);
  history.push_back(second);
}

// Carries a step out at an exact moment and gives it the answer that this leads to.
void answer(HistoryOperation& step, std::int64_t now, Plain& state) {
  Plain::Cell& cell = state.cells[step.key];
  if (cell.ends && now >= cell.ends->second) cell.value.reset(), cell.ends.reset();
  const bool there = cell.value.has_value();
  if (step.kind == Kind::kRead) step.absent = !there;
  if (step.kind == Kind::kRead) step.value = cell.value.value_or("");
  if (step.kind == Kind::kIncrement && number_in(cell.value)) {
    step.value = std::to_string(*number_in(cell.value) + 1);
  }
  if (step.count && step.kind == Kind::kWrite) step.count = meets(step, cell.value) ? 1 : 0;
  if (step.count && step.kind == Kind::kPersist) step.count = cell.ends ? 1 : 0;
  const bool by_presence = step.kind == Kind::kDelete || step.kind == Kind::kExpire;
  if (step.count && by_presence) step.count = there ? 1 : 0;
  (void)do_step(step, false, now, now, cell);
}

void answer_all(HistoryOperation& done, std::int64_t now, Plain& state) {
  for (HistoryOperation& seen : done.seen) answer(seen, now, state);
  for (HistoryOperation& step : done.steps) answer(step, now, state);
  if (done.kind != Kind::kTransaction) answer(done, now, state);
}

// Gives most answers that some order of them leads to.
void answer_honestly(std::mt19937_64& random, History& history) {
  std::map<std::uint64_t, std::size_t> order;
  for (std::size_t i = 0; i < history.size(); ++i) {
    const std::uint64_t moment = history[i].called + random() % 5;
    order[std::min(moment, history[i].returned) * 10 + i] = i;
  }
  Plain state;
  for (const auto& [moment, i] : order) {
    HistoryOperation& done = history[i];
    if (done.is_unknown() && random() % 2 == 0) continue;
    if (done.kind == Kind::kWatch) continue;
    answer_all(done, static_cast<std::int64_t>(moment / 10), state);
  }
}

}  // namespace

TEST_CASE(
    "random small histories of families get the verdict of a search that leaves nothing out") {
  std::mt19937_64 random(5);
  LeaderTime leader_time;
  leader_time.allow(0, -1, 1);
  std::array<int, 2> verdicts = {0, 0};
  for (int run = 0; run < 60'000; ++run) {
    History history;
    const std::size_t size = 1 + random() % 4;
    while (history.size() < size) history.push_back(draw_operation(random));
    if (random() % 2 == 0) add_watch(random, 1, history);
    // Otherwise one of the keys alone may be left to the search for single keys.
    history.push_back(at(0, kNever, transaction({draw_step(random), draw_step(random)})));
    if (random() % 3 != 0) answer_honestly(random, history);
    std::stable_sort(history.begin(), history.end(),
                     [](const auto& a, const auto& b) { return a.called < b.called; });
    std::vector<bool> done(history.size(), false);
    const bool expected = some_order_holds(history, done, {}, leader_time);
    const auto verdict = LinearizabilityChecker(1'000'000, leader_time).check(history);
    INFO("run " << run << "\n" << verdict.story);
    REQUIRE_FALSE(verdict.gave_up);
    REQUIRE(verdict.linearizable == expected);
    ++verdicts[expected ? 1 : 0];
  }
  INFO(verdicts[0] << " refused, " << verdicts[1] << " accepted");
  CHECK(verdicts[0] > 5'000);
  CHECK(verdicts[1] > 5'000);
}

// ---- Long histories -------------------------------------------------------------------------------

namespace {

struct Load {
  std::size_t operations = 200;
  std::size_t clients = 6;
  std::uint64_t unknown_percent =
      10;  // of what changes something; half of them are done, some late
};

// One operation of a client on a family of two texts and a number, all values unlike any other.
HistoryOperation draw_of_load(std::mt19937_64& random, std::size_t number) {
  const std::string text = "v" + std::to_string(number);
  const std::string key = kKeys[random() % 2];
  switch (random() % 10) {
    case 0:
      return write(key, text);
    case 1:
      return write_for(key, text, 100 + random() % 2000);
    case 2:
      return write_if(static_cast<If>(1 + random() % 2), key, text, 0);
    case 3:
      return transaction({write("a", text), write("b", text), increment("n", "")});
    case 4:
      return transaction({read("a", ""), read("b", ""), write_for(key, text, 500)});
    case 5:
      return increment("n", "");
    case 6:
      return counted(random() % 2 == 0 ? Kind::kExpire : Kind::kPersist, key, 0,
                     100 + random() % 2000);
    case 7:
      return counted(Kind::kDelete, random() % 2 == 0 ? key : "n", 0);
    default:
      return random() % 2 == 0 ? read(key, "") : transaction({read("a", ""), read("b", "")});
  }
}

// What clients of real keys would see who each send one operation after another. A transaction under
// WATCH is done where nothing changed the key since.
History draw_load(std::mt19937_64& random, const Load& load) {
  History history;
  std::vector<std::uint64_t> free_at(load.clients, 0);
  std::map<std::pair<std::uint64_t, std::size_t>, std::size_t> effects;
  const auto add = [&](std::uint64_t& client, HistoryOperation drawn) {
    drawn.called = client + random() % 200;
    const bool reads = drawn.kind == Kind::kRead || drawn.kind == Kind::kWatch;
    const bool unknown = !reads && random() % 100 < load.unknown_percent;
    const std::uint64_t moment = drawn.called + random() % (unknown ? 1'000 : 100);
    if (!unknown || random() % 2 == 0) effects[{moment, history.size()}] = history.size();
    client = unknown ? drawn.called + 300 : moment + 1 + random() % 100;
    if (!unknown) drawn.returned = client;
    history.push_back(std::move(drawn));
  };
  while (history.size() < load.operations) {
    std::uint64_t& client = *std::min_element(free_at.begin(), free_at.end());
    const std::size_t number = history.size();
    if (random() % 5 != 0) {
      add(client, draw_of_load(random, number));
      continue;
    }
    const std::string key = kKeys[random() % 2];
    add(client, watch(number, {key}));
    add(client, under_watch(number, {read(key, "")}, {write(key, "w" + std::to_string(number))}));
  }
  Plain state;
  std::vector<bool> refused(history.size(), false);
  for (const auto& [moment, i] : effects) {
    HistoryOperation& done = history[i];
    const auto now = static_cast<std::int64_t>(moment.first);
    if (done.kind == Kind::kWatch) {
      state = states_after(state, done, now, now).front();
      continue;
    }
    const auto watched = state.watches.find(done.watch);
    if (done.watch != 0 && watched != state.watches.end()) {
      for (const auto& [key, version] : watched->second) {
        refused[i] = refused[i] || state.cells[key].version != version;
      }
    }
    if (!refused[i]) answer_all(done, now, state);
  }
  for (std::size_t i = history.size(); i > 0; --i) {
    if (refused[i - 1]) history.erase(history.begin() + static_cast<std::ptrdiff_t>(i - 1));
  }
  return history;
}

// Something late in the history sees what was there long before.
bool forge_read(History& history) {
  const auto reads_value = [](const HistoryOperation& operation) {
    return operation.kind == Kind::kRead && !operation.absent;
  };
  const auto early = std::find_if(history.begin(), history.end(), reads_value);
  const auto late = std::find_if(history.rbegin(), history.rend(), reads_value);
  if (early == history.end() || late->value == early->value) return false;
  late->key = early->key;
  late->value = early->value;
  return true;
}

void expect_decided(const Load& load) {
  std::mt19937_64 random(3);
  std::uint64_t most_steps = 0;
  int forged_ones = 0;
  for (int run = 0; run < 60; ++run) {
    History history = draw_load(random, load);
    const auto honest = LinearizabilityChecker(1'000'000).check(history);
    INFO("run " << run);
    CHECK_FALSE(honest.gave_up);
    CHECK(honest.linearizable);
    most_steps = std::max(most_steps, honest.steps);
    if (!forge_read(history)) continue;
    ++forged_ones;
    const auto forged = LinearizabilityChecker(1'000'000).check(history);
    CHECK_FALSE(forged.gave_up);
    CHECK_FALSE(forged.linearizable);
    most_steps = std::max(most_steps, forged.steps);
  }
  INFO("most steps: " << most_steps);
  CHECK(forged_ones > 40);
  CHECK(most_steps < 400'000);
}

}  // namespace

TEST_CASE("200 operations of a family by 6 clients, some of unknown outcome, are decided soon") {
  expect_decided({});
}

TEST_CASE("... of a family when all outcomes are known") {
  Load load;
  load.unknown_percent = 0;
  expect_decided(load);
}
