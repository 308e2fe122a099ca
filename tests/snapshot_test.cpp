// The rows of a snapshot: what is appended is taken off again, and no length is trusted.
#include "seshat/snapshot.hpp"

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "catch.hpp"

namespace {

using namespace seshat;
using namespace std::string_literals;

using Pairs = std::vector<std::pair<std::string, std::string>>;

// `rest`: what was not taken.
Pairs taken(std::string_view rows, std::string_view& rest) {
  Pairs pairs;
  std::string_view key;
  std::string_view value;
  while (take_row(rows, key, value)) pairs.emplace_back(key, value);
  rest = rows;
  return pairs;
}

// The same bytes in memory of their own, so that ASan sees the first one read beyond them.
Pairs taken_exactly(std::string_view rows, std::size_t& rest_size_bytes) {
  const auto copy = std::make_unique<char[]>(rows.size());
  rows.copy(copy.get(), rows.size());
  std::string_view rest;
  Pairs pairs = taken({copy.get(), rows.size()}, rest);
  rest_size_bytes = rest.size();
  return pairs;
}

}  // namespace

TEST_CASE("a row has the bytes of its description", "[snapshot]") {
  std::string rows;
  append_row("key", std::string(258, 'v'), rows);
  CHECK(rows.substr(0, 11) == "\x03\0\0\0\x02\x01\0\0key"s);
  CHECK(rows.size() == 8 + 3 + 258);
}

TEST_CASE("rows come back in order: empty, binary, and longer than 16 bits can say", "[snapshot]") {
  const Pairs pairs = {{"", ""},
                       {"\0\xff"s, ""},
                       {"", "\0"s},
                       {"k", std::string(70'000, '\x80')},
                       {std::string(65'536, 'k'), "v"}};
  std::string rows;
  for (const auto& [key, value] : pairs) append_row(key, value, rows);
  std::string_view rest;
  CHECK((taken(rows, rest) == pairs));
  CHECK(rest.empty());
}

TEST_CASE("a row that is cut anywhere is not taken, those before it are", "[snapshot]") {
  std::string rows;
  append_row("first", "1", rows);
  const std::size_t whole = rows.size();
  append_row("second", "22", rows);
  for (std::size_t size = whole + 1; size < rows.size(); ++size) {
    std::size_t rest = 0;
    CHECK((taken_exactly(std::string_view(rows).substr(0, size), rest) == Pairs{{"first", "1"}}));
    CHECK(rest == size - whole);
  }
}

TEST_CASE("lengths beyond the bytes, even those whose sum is large, take nothing", "[snapshot]") {
  std::size_t rest = 0;
  for (const std::string& lengths :
       {"\xff\xff\xff\xff\xff\xff\xff\xff"s, "\xff\xff\xff\xff\x01\0\0\0"s,
        "\x01\0\0\0\xff\xff\xff\xff"s, "\0\0\0\x80\0\0\0\x80"s}) {
    CHECK(taken_exactly(lengths + "some bytes", rest).empty());
    CHECK(rest == lengths.size() + 10);
  }
}
