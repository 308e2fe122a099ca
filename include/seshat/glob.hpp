// seshat/glob.hpp - Redis' glob patterns: * ? [a-z] [^a-z] and \ before any of them.
//
//   glob_matches("max*", "maxclients")                         true
//   glob_matches("h[ae]llo", "HELLO", Case::kInsensitive)      true
//
// Cost: O(pattern * text) at worst, also for patterns made to be slow ("a*a*a*a*b"): after a
// mismatch only the last star is tried again, since an earlier one can't help.
// Threads: none inside. Alone: copy this file; it needs only the standard library.
#ifndef SESHAT_GLOB_HPP
#define SESHAT_GLOB_HPP

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace seshat {

enum class Case : std::uint8_t { kSensitive, kInsensitive };

// ASCII only, as Redis; std::tolower asks the locale.
[[nodiscard]] constexpr char to_lower(char c) {
  return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
}

[[nodiscard]] constexpr bool equals_ignoring_case(std::string_view a, std::string_view b) {
  if (a.size() != b.size()) return false;
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (to_lower(a[i]) != to_lower(b[i])) return false;
  }
  return true;
}

[[nodiscard]] constexpr bool glob_matches(std::string_view pattern, std::string_view text,
                                          Case letter_case = Case::kSensitive);

// =================================================================================================
// Bodies
// =================================================================================================

namespace glob_detail {

constexpr char fold(char c, Case letter_case) {
  return letter_case == Case::kInsensitive ? to_lower(c) : c;
}

// The set after '[' at `at`, which is moved behind its ']'. An open set ends with the pattern.
constexpr bool set_matches(std::string_view pattern, std::size_t& at, char c, Case letter_case) {
  const bool negated = at < pattern.size() && pattern[at] == '^';
  if (negated) ++at;
  bool found = false;
  while (at < pattern.size() && pattern[at] != ']') {
    const bool escaped = pattern[at] == '\\' && at + 1 < pattern.size();
    if (escaped) ++at;
    char low = fold(pattern[at++], letter_case);
    char high = low;
    if (!escaped && at + 1 < pattern.size() && pattern[at] == '-') {
      high = fold(pattern[at + 1], letter_case);
      at += 2;
    }
    if (low > high) {
      const char swapped = low;
      low = high;
      high = swapped;
    }
    found = found || (low <= c && c <= high);
  }
  if (at < pattern.size()) ++at;
  return found != negated;
}

// One element of the pattern other than a star, against one character.
constexpr bool element_matches(std::string_view pattern, std::size_t& at, char c,
                               Case letter_case) {
  const char folded = fold(c, letter_case);
  switch (pattern[at++]) {
    case '?':
      return true;
    case '[':
      return set_matches(pattern, at, folded, letter_case);
    case '\\':
      if (at < pattern.size()) return fold(pattern[at++], letter_case) == folded;
      return folded == '\\';
    default:
      return fold(pattern[at - 1], letter_case) == folded;
  }
}

}  // namespace glob_detail

constexpr bool glob_matches(std::string_view pattern, std::string_view text, Case letter_case) {
  constexpr std::size_t kNone = std::string_view::npos;
  std::size_t at = 0;
  std::size_t i = 0;
  std::size_t star = kNone;  // behind the last star seen,
  std::size_t star_i = 0;    // and how much of the text it has taken
  while (i < text.size()) {
    if (at < pattern.size() && pattern[at] == '*') {
      star = ++at;
      star_i = i;
      continue;
    }
    if (at < pattern.size() && glob_detail::element_matches(pattern, at, text[i], letter_case)) {
      ++i;
      continue;
    }
    if (star == kNone) return false;
    at = star;
    i = ++star_i;
  }
  while (at < pattern.size() && pattern[at] == '*') ++at;
  return at == pattern.size();
}

}  // namespace seshat

#endif  // SESHAT_GLOB_HPP
