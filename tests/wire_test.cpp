// Protobuf's wire format by hand: numbers and bytes as the protocol writes them, and bytes that
// nobody wrote. The records that are made of it: wire_codec_test.cpp.
#include "seshat/wire.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "catch.hpp"

namespace {

using namespace seshat;

constexpr std::uint64_t kMax = std::numeric_limits<std::uint64_t>::max();

std::string bytes_of(std::initializer_list<int> values) {
  std::string bytes;
  for (const int value : values) bytes += static_cast<char>(value);
  return bytes;
}

// Whether all fields can be read, none of them taken.
bool is_whole(std::string_view bytes) {
  const auto copy = std::make_unique<char[]>(bytes.size());  // so that ASan sees each end
  std::copy(bytes.begin(), bytes.end(), copy.get());
  wire::Reader in(std::string_view(copy.get(), bytes.size()));
  while (in.next()) {
  }
  return in.whole();
}

// What the last field is, taken as T; nothing if it was refused.
template <class T>
std::optional<T> last(std::string_view bytes) {
  wire::Reader in(bytes);
  T value{};
  while (in.next()) in.take(value);
  return in.whole() ? std::optional<T>(value) : std::nullopt;
}

}  // namespace

TEST_CASE("numbers and bytes have the bytes of the worked example (wire.hpp)", "[wire]") {
  std::string text;
  wire::Writer out(text, 10);
  out.number(1, 1);
  out.number(3, 300);
  out.bytes(5, "OK");
  out.flush();
  CHECK(text == bytes_of({0x08, 1, 0x18, 0xac, 2, 0x2a, 2, 'O', 'K'}));
}

TEST_CASE("0, no bytes and what is absent are left out, unless asked for", "[wire]") {
  std::string text;
  wire::Writer out(text, 0);
  out.number(1, 0);
  out.number(2, std::nullopt);
  out.bytes(3, "");
  out.flush();
  CHECK(text.empty());
  out.number(4, std::optional<std::uint64_t>(0));
  out.element(16, "");
  out.flush();
  CHECK(text == bytes_of({0x20, 0, 0x82, 1, 0}));
}

TEST_CASE("a varint has a byte for each 7 bits", "[wire]") {
  for (int bits = 0; bits < 64; ++bits) {
    const std::uint64_t highest = (std::uint64_t{1} << bits) - 1 + (std::uint64_t{1} << bits);
    std::string text;
    wire::Writer(text, 0).number(1, highest);
    CHECK(text.size() == 1 + static_cast<std::size_t>(bits) / 7 + 1);
    CHECK(wire::varint_size_bytes(highest) == text.size() - 1);
    CHECK(last<std::uint64_t>(text) == highest);
  }
  CHECK(wire::varint_size_bytes(0) == 1);
}

TEST_CASE("a Size counts what a Writer writes", "[wire]") {
  const auto put = [](auto& out, std::uint64_t n) {
    out.number(1, n);
    out.number(2'000'000, std::optional<std::uint64_t>(n));
    out.bytes(15, std::string(n % 1000, 'x'));
    out.element(16, std::string(n % 300, 'x'));
    out.head(17, n);
  };
  for (int shift = 0; shift < 64; ++shift) {
    for (const std::uint64_t n : {kMax >> shift, std::uint64_t{1} << shift}) {
      wire::Size size;
      put(size, n);
      std::string text = "before";
      {
        wire::Writer out(text, size.size_bytes());
        put(out, n);
      }
      CHECK(text.size() == 6 + size.size_bytes());
    }
  }
}

TEST_CASE("numbers that no bytes come between are written in their order, however many", "[wire]") {
  std::string text;
  {
    wire::Writer out(text, 0);
    for (std::uint32_t field = 1; field <= 100; ++field) out.number(field, kMax - field);
  }
  wire::Reader in(text);
  for (std::uint32_t field = 1; field <= 100; ++field) {
    REQUIRE(in.next());
    std::uint64_t number = 0;
    in.take(number);
    CHECK(in.field() == field);
    CHECK(number == kMax - field);
  }
  CHECK_FALSE(in.next());
  CHECK(in.whole());
}

TEST_CASE("a writer asks for memory once, and for twice as much where records add up", "[wire]") {
  std::string text;
  wire::Writer out(text, 1002);
  const char* where = text.data();
  out.bytes(1, std::string(999, 'x'));
  CHECK(text.data() == where);
  const std::size_t before = text.capacity();
  const wire::Writer more(text, before - text.size() + 1);
  CHECK(text.capacity() >= 2 * before);
}

TEST_CASE("fields are read in any order, and those that nobody takes are skipped", "[wire]") {
  const std::string bytes =
      bytes_of({0x2a, 1, 'a',  0x49, 1, 2,   3,    4, 5,    6, 7,   8,   0x55, 1, 2,
                3,    4, 0xa2, 0x06, 1, 'x', 0x08, 5, 0x2a, 2, 'b', 'c', 0x78, 1});
  wire::Reader in(bytes);
  std::vector<std::uint32_t> fields;
  std::string_view data;
  std::uint64_t number = 0;
  while (in.next()) {
    fields.push_back(in.field());
    if (in.field() == 5) in.take(data);
    if (in.field() == 1) in.take(number);
  }
  CHECK(in.whole());
  CHECK(fields == std::vector<std::uint32_t>{5, 9, 10, 100, 1, 5, 15});
  CHECK(data == "bc");  // the last one wins
  CHECK(data.data() > bytes.data());
  CHECK(number == 5);
}

TEST_CASE("a field cut short anywhere is not whole", "[wire]") {
  for (const std::string& field :
       {bytes_of({0x08, 0xac, 2}), bytes_of({0x82, 1, 2, 'O', 'K'}),
        bytes_of({0x09, 1, 2, 3, 4, 5, 6, 7, 8}), bytes_of({0x0d, 1, 2, 3, 4})}) {
    CHECK(is_whole(field));
    for (std::size_t size = 1; size < field.size(); ++size) {
      CHECK_FALSE(is_whole(std::string_view(field).substr(0, size)));
    }
  }
}

TEST_CASE("no length is trusted", "[wire]") {
  CHECK_FALSE(is_whole(bytes_of({0x0a, 1})));
  CHECK_FALSE(is_whole(bytes_of({0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f, 'x'})));
  CHECK_FALSE(
      is_whole(bytes_of({0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01, 'x'})));
}

TEST_CASE("a varint of more than 64 bits or 10 bytes is refused, a padded one is taken", "[wire]") {
  const std::string nine(9, '\xff');
  CHECK(last<std::uint64_t>("\x08" + nine + "\x01") == kMax);
  CHECK_FALSE(last<std::uint64_t>("\x08" + nine + "\x02"));
  CHECK_FALSE(last<std::uint64_t>("\x08" + nine + "\x81" + std::string(1, '\0')));
  CHECK(last<std::uint64_t>("\x08\x81" + std::string(8, '\x80') + std::string(1, '\0')) == 1U);
}

TEST_CASE("field 0, groups, unknown types and tags above 32 bits are refused", "[wire]") {
  CHECK_FALSE(is_whole(bytes_of({0x00, 1})));
  for (const int type : {3, 4, 6, 7}) CHECK_FALSE(is_whole(bytes_of({0x08 | type, 0, 0, 0, 0})));
  CHECK(is_whole(bytes_of({0xf8, 0xff, 0xff, 0xff, 0x0f, 1})));
  CHECK_FALSE(is_whole(bytes_of({0xf8, 0xff, 0xff, 0xff, 0x1f, 1})));
}

TEST_CASE("a field is taken only as what it is, and only if it fits", "[wire]") {
  const std::string number = bytes_of({0x08, 7});
  const std::string text = bytes_of({0x0a, 1, 7});
  const std::string fixed = bytes_of({0x0d, 7, 0, 0, 0});
  CHECK(last<std::uint64_t>(number) == 7U);
  CHECK(last<std::uint32_t>(number) == 7U);
  CHECK(last<bool>(number) == true);
  CHECK(last<std::string_view>(text) == "\7");
  CHECK_FALSE(last<std::string_view>(number));
  for (const std::string& other : {text, fixed}) {
    CHECK_FALSE(last<std::uint64_t>(other));
    CHECK_FALSE(last<std::uint32_t>(other));
    CHECK_FALSE(last<bool>(other));
  }
  CHECK_FALSE(last<std::string_view>(fixed));
  const std::string large = bytes_of({0x08, 0x80, 0x80, 0x80, 0x80, 0x10});
  CHECK_FALSE(last<std::uint32_t>(large));
  CHECK(last<bool>(large) == true);
}

TEST_CASE("what was refused stays refused", "[wire]") {
  const std::string bytes = bytes_of({0x08, 1, 0x08, 2});
  wire::Reader in(bytes);
  REQUIRE(in.next());
  in.refuse();
  CHECK_FALSE(in.next());
  CHECK_FALSE(in.whole());
}
