// The checker of histories, on histories whose verdict is known.
#include "linearizability.hpp"

#include <random>

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
