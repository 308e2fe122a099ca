// Commands on a family of keys, as clients of the simulator and of real clusters send them, and what a
// history says of each.
//
// A family has two texts, a and b, and a number, n; they share a hash tag. What is written is unlike
// anything else, but for numbers.
#ifndef SESHAT_TESTS_LINEARIZABILITY_COMMANDS_HPP
#define SESHAT_TESTS_LINEARIZABILITY_COMMANDS_HPP

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "linearizability_history.hpp"
#include "seshat/resp.hpp"

namespace seshat::test {

struct FamilyCommand {
  std::vector<std::string> words;
  HistoryOperation operation;
};

inline constexpr std::string_view kFamilyKeys = "abn";

[[nodiscard]] inline std::string family_key(const std::string& family, char name) {
  return "{" + family + "}" + name;
}

[[nodiscard]] inline std::string bytes_of(const std::vector<std::string>& words) {
  const std::vector<std::string_view> views(words.begin(), words.end());
  std::string bytes;
  resp::append_command(bytes, views);
  return bytes;
}

[[nodiscard]] inline bool is_null(const resp::Value& reply) {
  return reply.kind == resp::Kind::kNull || reply.kind == resp::Kind::kNullArray;
}

// Writes the answer to a command into the history. False: no such answer belongs to it.
[[nodiscard]] inline bool note_answer(const resp::Value& reply, HistoryOperation& operation) {
  using Kind = HistoryOperation::Kind;
  const bool is_integer = reply.kind == resp::Kind::kInteger;
  switch (operation.kind) {
    case Kind::kRead:
      operation.absent = is_null(reply);
      operation.value = reply.text;
      return is_null(reply) || reply.kind == resp::Kind::kBulkString;
    case Kind::kWrite:
      if (operation.condition == HistoryOperation::If::kAlways) return reply.text == "OK";
      operation.count = is_null(reply) ? 0 : 1;
      return is_null(reply) || reply.text == "OK";
    case Kind::kIncrement:
      operation.value = std::to_string(reply.integer);
      return is_integer;
    default:
      operation.count = reply.integer;
      return is_integer;
  }
}

// SET, perhaps with a time to live; `unit` is a millisecond in the history's own time.
[[nodiscard]] inline FamilyCommand set_command(const std::string& key, const std::string& text,
                                               std::uint64_t lives_ms, std::uint64_t unit) {
  FamilyCommand command{{"SET", key, text}, {}};
  command.operation.kind = HistoryOperation::Kind::kWrite;
  command.operation.key = key;
  command.operation.value = text;
  if (lives_ms == 0) return command;
  command.operation.lives = lives_ms * unit;
  command.words.insert(command.words.end(), {"PX", std::to_string(lives_ms)});
  return command;
}

// One of all kinds. `text` is what it writes, `seen` what its client saw last of each key.
template <class Random>
[[nodiscard]] FamilyCommand draw_command(Random& random, const std::string& family,
                                         const std::string& text,
                                         const std::map<std::string, std::string>& seen,
                                         std::uint64_t unit) {
  using Kind = HistoryOperation::Kind;
  using If = HistoryOperation::If;
  const std::uint64_t dice = random.below(100);
  const bool counts = random.chance(250);
  const std::string key = family_key(family, counts ? 'n' : random.chance(500) ? 'a' : 'b');
  const std::uint64_t lives_ms = random.scattered(30, 4000);
  const auto known = seen.find(key);
  const auto of_kind = [&](Kind kind, std::vector<std::string> words) {
    FamilyCommand command{std::move(words), {}};
    command.operation.kind = kind;
    command.operation.key = key;
    return command;
  };
  const auto set_if = [&](If condition, const std::vector<std::string>& options) {
    FamilyCommand command = set_command(key, text, 0, unit);
    command.operation.condition = condition;
    command.words.insert(command.words.end(), options.begin(), options.end());
    return command;
  };
  if (dice < 25) return of_kind(Kind::kRead, {"GET", key});
  if (dice < 33) return of_kind(Kind::kDelete, {"DEL", key});
  if (dice < 43) {
    FamilyCommand command = of_kind(Kind::kExpire, {"PEXPIRE", key, std::to_string(lives_ms)});
    command.operation.lives = lives_ms * unit;
    return command;
  }
  if (dice < 50) return of_kind(Kind::kPersist, {"PERSIST", key});
  if (counts) return of_kind(Kind::kIncrement, {"INCR", key});
  if (dice < 68) return set_command(key, text, lives_ms, unit);
  if (dice < 82) return set_command(key, text, 0, unit);
  if (dice < 88) return set_if(If::kAbsent, {"NX"});
  if (dice < 94 || known == seen.end()) return set_if(If::kPresent, {"XX"});
  FamilyCommand command = set_if(If::kEqual, {"IFEQ", known->second});
  command.operation.expected = known->second;
  return command;
}

}  // namespace seshat::test

#endif  // SESHAT_TESTS_LINEARIZABILITY_COMMANDS_HPP
