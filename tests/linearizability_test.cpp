// The checker of histories, on histories whose verdict is known.
#include "linearizability.hpp"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "catch.hpp"

using seshat::test::History;
using seshat::test::HistoryOperation;
using seshat::test::kNever;
using seshat::test::LinearizabilityChecker;
using Kind = HistoryOperation::Kind;

namespace {

HistoryOperation write(std::uint64_t called, std::uint64_t returned, std::string value) {
  return {Kind::kWrite, "k", std::move(value), false, std::nullopt, called, returned};
}

HistoryOperation read(std::uint64_t called, std::uint64_t returned, std::string value) {
  return {Kind::kRead, "k", std::move(value), false, std::nullopt, called, returned};
}

HistoryOperation read_nothing(std::uint64_t called, std::uint64_t returned) {
  return {Kind::kRead, "k", "", true, std::nullopt, called, returned};
}

HistoryOperation del(std::uint64_t called, std::uint64_t returned, std::int64_t count) {
  return {Kind::kDelete, "k", "", false, count, called, returned};
}

HistoryOperation increment(std::uint64_t called, std::uint64_t returned, std::string value) {
  return {Kind::kIncrement, "k", std::move(value), false, std::nullopt, called, returned};
}

bool linearizable(const History& history) {
  const auto verdict = LinearizabilityChecker().check(history);
  REQUIRE_FALSE(verdict.gave_up);
  return verdict.linearizable;
}

}  // namespace

TEST_CASE("one operation after another is linearizable when each sees the one before") {
  CHECK(linearizable({}));
  CHECK(linearizable({read_nothing(0, 1), write(2, 3, "a"), read(4, 5, "a")}));
  CHECK(linearizable({write(0, 1, "a"), del(2, 3, 1), read_nothing(4, 5), del(6, 7, 0)}));
}

TEST_CASE("a stale read after a completed write is a violation") {
  CHECK_FALSE(linearizable({write(0, 1, "a"), write(2, 3, "b"), read(4, 5, "a")}));
  CHECK_FALSE(linearizable({write(0, 1, "a"), read_nothing(2, 3)}));
}

TEST_CASE("a read during a write may see either value, but two readers may not go back") {
  CHECK(linearizable({write(0, 1, "a"), write(2, 9, "b"), read(3, 4, "a"), read(5, 6, "b")}));
  CHECK_FALSE(linearizable({write(0, 1, "a"), write(2, 9, "b"), read(3, 4, "b"), read(5, 6, "a")}));
}

TEST_CASE("a value that nobody wrote is a violation") {
  CHECK_FALSE(linearizable({write(0, 1, "a"), read(2, 3, "b")}));
}

TEST_CASE("a write of unknown outcome may take effect late, or never, but only once") {
  CHECK(linearizable({write(0, 1, "a"), write(2, kNever, "b"), read(4, 5, "a"), read(6, 7, "b")}));
  CHECK(linearizable({write(0, 1, "a"), write(2, kNever, "b"), read(4, 5, "a")}));
  CHECK_FALSE(
      linearizable({write(0, 1, "a"), write(2, kNever, "b"), read(4, 5, "b"), read(6, 7, "a")}));
}

TEST_CASE("a write of unknown outcome does not take effect before it was called") {
  CHECK_FALSE(linearizable({read(0, 1, "b"), write(2, kNever, "b")}));
}

TEST_CASE("a counter that doubles, skips or loses an acknowledged increment is a violation") {
  CHECK(linearizable({increment(0, 5, "2"), increment(1, 4, "1"), read(6, 7, "2")}));
  CHECK_FALSE(linearizable({increment(0, 1, "1"), increment(2, 3, "3")}));
  CHECK_FALSE(linearizable({increment(0, 1, "1"), increment(2, 3, "1")}));
  CHECK(linearizable({increment(0, 1, "1"), increment(2, kNever, ""), increment(4, 5, "3")}));
}

TEST_CASE("a delete that counts what was not there is a violation") {
  CHECK_FALSE(linearizable({del(0, 1, 1)}));
  CHECK_FALSE(linearizable({write(0, 1, "a"), del(2, 3, 1), del(4, 5, 1)}));
}

TEST_CASE("keys are checked on their own, and the one that is wrong is named") {
  History history = {write(0, 1, "a"), read(2, 3, "a"), write(0, 1, "x"), read(2, 3, "y")};
  history[2].key = history[3].key = "other";
  const auto verdict = LinearizabilityChecker().check(history);
  CHECK_FALSE(verdict.linearizable);
  CHECK(verdict.key == "other");
  CHECK(verdict.story.find("read other y") != std::string::npos);
}

TEST_CASE("a key that is too much for the bound does not hide a violation of another") {
  History history = {write(0, 9, "a"), write(0, 9, "b"), read(10, 11, "a")};
  const LinearizabilityChecker hurried(1);
  const auto undecided = hurried.check(history);
  CHECK(undecided.gave_up);
  CHECK(undecided.linearizable);
  for (HistoryOperation operation : {write(0, 1, "a"), read(2, 3, "b")}) {
    operation.key = "other";
    history.push_back(operation);
  }
  const auto verdict = hurried.check(history);
  CHECK_FALSE(verdict.linearizable);
  CHECK_FALSE(verdict.gave_up);
  CHECK(verdict.key == "other");
}

namespace {

// A history of a real register: each operation takes effect at a drawn moment within its span.
History honest_history(std::mt19937_64& random, std::size_t operations) {
  History history;
  std::map<std::uint64_t, std::size_t> effects;  // moment -> operation
  for (std::size_t i = 0; i < operations; ++i) {
    const std::uint64_t called = 10 * i + random() % 10;
    const std::uint64_t moment = called + 1 + random() % 60;
    const std::uint64_t returned = moment + 1 + random() % 60;
    const bool is_read = random() % 2 == 0;
    history.push_back(is_read ? read(called, returned, "")
                              : write(called, returned, std::to_string(i)));
    effects[moment * 1000 + i] = i;
  }
  std::optional<std::string> value;
  for (const auto& [moment, i] : effects) {
    if (history[i].kind == Kind::kWrite) value = history[i].value;
    if (history[i].kind == Kind::kRead) history[i].absent = !value;
    if (history[i].kind == Kind::kRead) history[i].value = value.value_or("");
  }
  return history;
}

}  // namespace

TEST_CASE("random honest histories pass, and the same with one answer forged fail") {
  std::mt19937_64 random(7);
  for (int run = 0; run < 200; ++run) {
    History history = honest_history(random, 200);
    REQUIRE(linearizable(history));
    for (HistoryOperation& operation : history) {
      if (operation.kind != Kind::kRead || operation.absent) continue;
      operation.value = "never written";
      break;
    }
    REQUIRE_FALSE(linearizable(history));
  }
}

// ---- Against a search that leaves nothing out ----------------------------------------------------

namespace {

using State = std::optional<std::string>;

std::optional<std::int64_t> number_in(const State& state) {
  if (!state) return 0;
  if (state->empty() || state->find_first_not_of("0123456789") != std::string::npos) return {};
  return std::stoll(*state);
}

// The register, as plainly as can be: the state after `operation`, if `state` allows its answer.
std::optional<State> state_after(const State& state, const HistoryOperation& operation) {
  const bool unknown = operation.is_unknown();
  switch (operation.kind) {
    case Kind::kRead:
      if (unknown || (operation.absent ? !state : state == operation.value)) return state;
      return std::nullopt;
    case Kind::kWrite:
      return State{operation.value};
    case Kind::kDelete:
      if (!unknown && operation.count && *operation.count != (state ? 1 : 0)) return std::nullopt;
      return State{};
    case Kind::kIncrement: {
      if (!number_in(state)) return std::nullopt;
      const std::string next = std::to_string(*number_in(state) + 1);
      if (!unknown && operation.value != next) return std::nullopt;
      return State{next};
    }
    default:
      return std::nullopt;  // of linearizability_family_test.cpp
  }
}

// Every order that real time allows, with and without each operation of unknown outcome.
bool some_order_holds(const History& history, std::vector<bool>& done, const State& state) {
  std::uint64_t first_return = kNever;
  for (std::size_t i = 0; i < history.size(); ++i) {
    if (!done[i]) first_return = std::min(first_return, history[i].returned);
  }
  if (first_return == kNever) return true;
  for (std::size_t i = 0; i < history.size(); ++i) {
    if (done[i] || history[i].called > first_return) continue;
    const auto after = state_after(state, history[i]);
    if (!after) continue;
    done[i] = true;
    const bool holds = some_order_holds(history, done, *after);
    done[i] = false;
    if (holds) return true;
  }
  return false;
}

HistoryOperation draw_operation(std::mt19937_64& random, bool counts) {
  static constexpr std::array kValues = {"1", "2", "a", "b"};
  HistoryOperation operation;
  operation.key = "k";
  operation.kind = static_cast<Kind>(random() % (counts ? 4 : 3));
  operation.value = kValues[random() % 4];
  operation.called = random() % 12;
  operation.returned = random() % 3 == 0 ? kNever : operation.called + 1 + random() % 6;
  if (operation.kind == Kind::kRead) operation.absent = random() % 4 == 0;
  if (operation.kind == Kind::kDelete && random() % 4 != 0) operation.count = random() % 2;
  if (operation.kind == Kind::kIncrement) operation.value = std::to_string(1 + random() % 4);
  return operation;
}

// Gives most operations the answer that some order of them leads to.
void answer_honestly(std::mt19937_64& random, History& history) {
  std::map<std::uint64_t, std::size_t> order;
  for (std::size_t i = 0; i < history.size(); ++i) {
    const std::uint64_t moment = history[i].called + random() % 6;
    order[std::min(moment, history[i].returned) * 10 + i] = i;
  }
  State state;
  for (const auto& [moment, i] : order) {
    HistoryOperation& operation = history[i];
    if (operation.is_unknown() && random() % 2 == 0) continue;
    if (operation.kind == Kind::kRead) operation.absent = !state;
    if (operation.kind == Kind::kRead) operation.value = state.value_or("");
    if (operation.kind == Kind::kDelete && operation.count) operation.count = state ? 1 : 0;
    const bool counts = operation.kind == Kind::kIncrement && number_in(state);
    if (counts) operation.value = std::to_string(*number_in(state) + 1);
    state = state_after(state, operation).value_or(state);
  }
}

}  // namespace

TEST_CASE("random small histories get the verdict of a search that leaves nothing out") {
  std::mt19937_64 random(11);
  std::array<int, 2> verdicts = {0, 0};
  for (int run = 0; run < 30'000; ++run) {
    History history;
    const std::size_t size = 1 + random() % 6;
    const bool counts = random() % 2 == 0;
    while (history.size() < size) history.push_back(draw_operation(random, counts));
    if (random() % 3 != 0) answer_honestly(random, history);
    std::vector<bool> done(size, false);
    const bool expected = some_order_holds(history, done, {});
    const auto verdict = LinearizabilityChecker().check(history);
    INFO("run " << run << "\n" << verdict.story);
    REQUIRE_FALSE(verdict.gave_up);
    REQUIRE(verdict.linearizable == expected);
    ++verdicts[expected ? 1 : 0];
  }
  CHECK(verdicts[0] > 5'000);
  CHECK(verdicts[1] > 5'000);
}

// ---- Long histories ------------------------------------------------------------------------------

namespace {

struct Load {
  std::size_t operations = 400;
  std::size_t clients = 16;
  std::uint64_t unknown_percent = 15;  // of writes and deletes; half of them take effect, some late
  std::uint64_t delete_percent = 0;    // of what is not read
  bool counts = false;                 // increments instead of writes
};

// What clients of a real register would see who each send one operation after another.
History draw_load(std::mt19937_64& random, const Load& load) {
  History history;
  std::vector<std::uint64_t> free_at(load.clients, 0);
  std::map<std::pair<std::uint64_t, std::size_t>, std::size_t> effects;
  for (std::size_t i = 0; i < load.operations; ++i) {
    const auto client = std::min_element(free_at.begin(), free_at.end());
    HistoryOperation operation;
    operation.key = "k";
    if (random() % 2 == 0) operation.kind = load.counts ? Kind::kIncrement : Kind::kWrite;
    const bool changes = operation.kind != Kind::kRead;
    if (changes && random() % 100 < load.delete_percent) operation.kind = Kind::kDelete;
    operation.value = "v" + std::to_string(i);
    operation.called = *client + random() % 50;
    const bool unknown = changes && random() % 100 < load.unknown_percent;
    const std::uint64_t moment = operation.called + random() % (unknown ? 1'000 : 100);
    if (!unknown || random() % 2 == 0) effects[{moment, i}] = i;
    *client = unknown ? operation.called + 300 : moment + 1 + random() % 100;
    if (!unknown) operation.returned = *client;
    history.push_back(operation);
  }
  State state;
  for (const auto& [moment, i] : effects) {
    HistoryOperation& operation = history[i];
    if (operation.kind == Kind::kRead) operation.absent = !state;
    if (operation.kind == Kind::kRead) operation.value = state.value_or("");
    if (operation.kind == Kind::kDelete) operation.count = state ? 1 : 0;
    const bool counts = operation.kind == Kind::kIncrement;
    if (counts) operation.value = std::to_string(number_in(state).value_or(0) + 1);
    state = *state_after(state, operation);
  }
  return history;
}

// Something late in the history sees what was there long before.
void forge_read(History& history) {
  const auto reads_value = [](const HistoryOperation& operation) {
    return operation.kind == Kind::kRead && !operation.absent;
  };
  const auto early = std::find_if(history.begin(), history.end(), reads_value);
  const auto late = std::find_if(history.rbegin(), history.rend(), reads_value);
  late->value = early->value;
}

void expect_decided(const Load& load) {
  std::mt19937_64 random(3);
  std::uint64_t most_steps = 0;
  for (int run = 0; run < 100; ++run) {
    History history = draw_load(random, load);
    const auto honest = LinearizabilityChecker(100'000).check(history);
    CHECK_FALSE(honest.gave_up);
    CHECK(honest.linearizable);
    forge_read(history);
    const auto forged = LinearizabilityChecker(100'000).check(history);
    CHECK_FALSE(forged.gave_up);
    CHECK_FALSE(forged.linearizable);
    most_steps = std::max({most_steps, honest.steps, forged.steps});
  }
  INFO("most steps: " << most_steps);
  CHECK(most_steps < 20'000);
}

}  // namespace

TEST_CASE("400 operations of 16 clients, dozens of unknown outcome, are decided soon") {
  expect_decided({});
}

TEST_CASE("... with deletes that count what they removed") {
  Load load;
  load.delete_percent = 20;
  expect_decided(load);
}

TEST_CASE("... when a counter is counted up") {
  Load load;
  load.counts = true;
  expect_decided(load);
}

TEST_CASE("... when two in three operations are of unknown outcome") {
  Load load;
  load.unknown_percent = 66;
  load.delete_percent = 10;
  expect_decided(load);
}
