// Redis' glob patterns: the cases that its own documentation and util.c name, and patterns made to
// be slow.
#include "seshat/glob.hpp"

#include <string>
#include <string_view>

#include "catch.hpp"

namespace {

using seshat::Case;
using seshat::glob_matches;

bool matches_any_case(std::string_view pattern, std::string_view text) {
  return glob_matches(pattern, text, Case::kInsensitive);
}

}  // namespace

// Usable at compile time.
static_assert(glob_matches("max*", "maxclients"));

TEST_CASE("the examples of KEYS hold (redis.io/commands/keys)", "[glob]") {
  CHECK(glob_matches("h?llo", "hallo"));
  CHECK_FALSE(glob_matches("h?llo", "hllo"));
  CHECK(glob_matches("h*llo", "hllo"));
  CHECK(glob_matches("h*llo", "heeeello"));
  CHECK(glob_matches("h[ae]llo", "hello"));
  CHECK_FALSE(glob_matches("h[ae]llo", "hillo"));
  CHECK(glob_matches("h[^e]llo", "hallo"));
  CHECK_FALSE(glob_matches("h[^e]llo", "hello"));
  CHECK(glob_matches("h[a-b]llo", "hbllo"));
  CHECK_FALSE(glob_matches("h[a-b]llo", "hcllo"));
}

TEST_CASE("a pattern without wildcards matches itself alone", "[glob]") {
  CHECK(glob_matches("", ""));
  CHECK(glob_matches("foo", "foo"));
  CHECK_FALSE(glob_matches("foo", "fo"));
  CHECK_FALSE(glob_matches("foo", "fooo"));
  CHECK_FALSE(glob_matches("", "x"));
  CHECK_FALSE(glob_matches("x", ""));
}

TEST_CASE("a star takes anything, nothing and zero bytes included", "[glob]") {
  CHECK(glob_matches("*", ""));
  CHECK(glob_matches("**", "anything"));
  CHECK(glob_matches("*c*", "abcd"));
  CHECK(glob_matches("a*b*c", "a1b2b3c"));
  CHECK_FALSE(glob_matches("a*b*c", "a1b2b3"));
  CHECK(glob_matches("*b", std::string_view("a\0b", 3)));
}

TEST_CASE("a backslash takes the next character as it is, the last one itself", "[glob]") {
  CHECK(glob_matches("\\*", "*"));
  CHECK_FALSE(glob_matches("\\*", "a"));
  CHECK(glob_matches("\\[a]", "[a]"));
  CHECK(glob_matches("a\\", "a\\"));
  CHECK_FALSE(glob_matches("a\\", "a"));
}

TEST_CASE("sets as stringmatchlen reads them (Redis 7.0, util.c)", "[glob]") {
  CHECK(glob_matches("[z-a]", "m"));    // a range the wrong way round is turned
  CHECK(glob_matches("[a-]x]", "^"));   // a range from 'a' down to ']'
  CHECK(glob_matches("[a-]x]", "x"));   // ... in a set that goes on
  CHECK(glob_matches("[\\]]", "]"));    // an escaped end
  CHECK(glob_matches("[\\a-c]", "-"));  // an escaped letter begins no range
  CHECK_FALSE(glob_matches("[\\a-c]", "b"));
  CHECK(glob_matches("[abc", "b"));  // an open set ends with the pattern
  CHECK(glob_matches("[abc", "c"));
  CHECK_FALSE(glob_matches("[]", "a"));  // nothing is in it
  CHECK(glob_matches("[^]", "a"));       // everything is not in it
  CHECK_FALSE(glob_matches("[", "a"));
}

TEST_CASE("case is ignored when asked for, in sets and ranges too", "[glob]") {
  CHECK_FALSE(glob_matches("SAVE", "save"));
  CHECK(matches_any_case("SAVE", "save"));
  CHECK(matches_any_case("s[A-C]ve", "sBve"));
  CHECK(matches_any_case("s[A-C]ve", "sbve"));
  CHECK(matches_any_case("\\S*", "save"));
}

TEST_CASE("a pattern made to be slow is not (CVE-2022-36021)", "[glob]") {
  std::string pattern;
  for (int i = 0; i < 1000; ++i) pattern += "a*";
  const std::string text(20'000, 'a');
  CHECK_FALSE(glob_matches(pattern + "b", text));  // exponential, if every star were tried again
  CHECK(glob_matches(pattern, text));
}

TEST_CASE("ASCII letters fold, no others", "[glob]") {
  CHECK(seshat::equals_ignoring_case("GeT", "gEt"));
  CHECK_FALSE(seshat::equals_ignoring_case("get", "gets"));
  CHECK_FALSE(seshat::equals_ignoring_case("@[", "`{"));
  CHECK_FALSE(seshat::equals_ignoring_case("\xc4", "\xe4"));
}
