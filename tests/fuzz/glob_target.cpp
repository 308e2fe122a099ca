// A pattern, a line end, a text. Claims of glob.hpp that hold for any two: escaped, a text matches
// itself; a star takes whatever comes before; and a hostile pattern costs no more than its product
// (libFuzzer's timeout sees to that).
#include "seshat/glob.hpp"

#include <algorithm>
#include <string>
#include <string_view>

#include "fuzz/target.hpp"

namespace seshat::fuzz {

void glob(std::string_view input) {
  const std::size_t end = std::min(input.find('\n'), input.size());
  const Exact pattern(input.substr(0, end));
  const Exact text(input.substr(std::min(end + 1, input.size())));
  std::string literal;
  for (const char c : text.view()) (literal += '\\') += c;
  for (const Case letter_case : {Case::kSensitive, Case::kInsensitive}) {
    const bool matches = glob_matches(pattern.view(), text.view(), letter_case);
    check(glob_matches(literal, text.view(), letter_case), "escaped, a text must match itself");
    check(glob_matches("*", text.view(), letter_case), "a star must match anything");
    const std::string after_star = "*" + std::string(pattern.view());
    const std::string longer = "x" + std::string(text.view());
    check(!matches || (glob_matches(after_star, text.view(), letter_case) &&
                       glob_matches(after_star, longer, letter_case)),
          "a star in front must take what comes before");
  }
}

}  // namespace seshat::fuzz
