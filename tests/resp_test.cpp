#include "seshat/resp.hpp"

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <new>
#include <random>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "catch.hpp"

namespace {

// What the program took from the heap: how the tests below know that a length was not believed.
thread_local std::size_t heap_size_bytes = 0;
thread_local std::size_t heap_allocations = 0;

}  // namespace

// Not inlined: else g++ -O2 sees malloc on one side, free on the other, and warns of a mismatch.
[[gnu::noinline]] void* operator new(std::size_t size_bytes) {
  heap_size_bytes += size_bytes;
  ++heap_allocations;
  if (void* memory = std::malloc(size_bytes)) return memory;
  throw std::bad_alloc();
}
[[gnu::noinline]] void* operator new(std::size_t size_bytes, const std::nothrow_t&) noexcept {
  return std::malloc(size_bytes);
}
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

namespace {

using namespace seshat::resp;
using std::string_literals::operator""s;

using Request = std::vector<std::string>;
using Cuts = std::vector<std::size_t>;

// ---- A server that receives ---------------------------------------------------------------------

struct Seen {
  std::vector<Request> requests;
  std::string error;
  bool operator==(const Seen&) const = default;
};

// Takes all whole requests from the front of `buffer`.
void take_requests(RequestParser& parser, std::string_view& buffer, Seen& seen) {
  for (;;) {
    const Status status = parser.parse(buffer);
    if (status == Status::kComplete) {
      seen.requests.emplace_back(parser.args().begin(), parser.args().end());
    }
    buffer.remove_prefix(parser.consumed());
    if (status == Status::kError) seen.error = parser.error();
    if (status != Status::kComplete) return;
  }
}

// What a server sees of `wire` when it arrives cut at `cuts`. Before every call all its bytes move
// to another address, into a buffer that is not a byte larger: reading beyond it would be found.
Seen receive(std::string_view wire, Cuts cuts = {}, Limits limits = {}) {
  RequestParser parser(limits);
  Seen seen;
  std::vector<char> buffer;
  std::size_t from = 0;
  cuts.push_back(wire.size());
  for (const std::size_t cut : cuts) {
    std::vector<char> moved;
    moved.reserve(buffer.size() + cut - from);
    moved.insert(moved.end(), buffer.begin(), buffer.end());
    for (; from < cut; ++from) moved.push_back(wire[from]);
    std::string_view unconsumed(moved.data(), moved.size());
    take_requests(parser, unconsumed, seen);
    buffer.assign(unconsumed.begin(), unconsumed.end());
  }
  return seen;
}

Seen receive(std::string_view wire, Limits limits) { return receive(wire, {}, limits); }

std::string error_of(std::string_view wire, Limits limits = {}) {
  const Seen seen = receive(wire, limits);
  CHECK(seen.requests.empty());
  return seen.error;
}

Cuts every_byte(std::size_t size) {
  Cuts cuts;
  for (std::size_t i = 1; i < size; ++i) cuts.push_back(i);
  return cuts;
}

std::string command(const Request& request) {
  std::string wire;
  append_command(wire, std::vector<std::string_view>(request.begin(), request.end()));
  return wire;
}

// ---- Random input from raw mt19937_64 output ----------------------------------------------------

using Random = std::mt19937_64;

std::size_t below(Random& random, std::size_t bound) { return random() % bound; }

Cuts random_cuts(Random& random, std::size_t size) {
  Cuts cuts;
  const std::size_t step = 1 + below(random, size);
  for (std::size_t at = below(random, step); at < size; at += 1 + below(random, step)) {
    cuts.push_back(at);
  }
  return cuts;
}

// Binary, and full of what a parser might take for its own.
std::string random_bytes(Random& random) {
  constexpr std::string_view kTraps = "\r\n$*+-:\"'\\x 01";
  std::string bytes;
  for (std::size_t size = below(random, 12); size > 0; --size) {
    const bool trap = below(random, 2) == 0;
    bytes += trap ? kTraps[below(random, kTraps.size())] : static_cast<char>(random() & 0xFFU);
  }
  return bytes;
}

Request random_request(Random& random) {
  Request request(1 + below(random, 5));
  for (std::string& arg : request) arg = random_bytes(random);
  return request;
}

// The same request as someone might type it: each argument in double quotes, odd bytes as \xHH.
std::string inline_command(const Request& request) {
  constexpr std::string_view kHex = "0123456789abcdef";
  std::string line;
  for (const std::string& arg : request) {
    line += " \"";
    for (const char c : arg) {
      const auto code = static_cast<unsigned char>(c);
      if (code >= '0' && code <= '9') {
        line += c;
      } else {
        line += {'\\', 'x', kHex[code / 16], kHex[code % 16]};
      }
    }
    line += '"';
  }
  return line + "\r\n";
}

struct Pipeline {
  std::vector<Request> requests;
  std::string wire;
};

Pipeline random_pipeline(Random& random) {
  Pipeline pipeline;
  for (std::size_t count = 1 + below(random, 5); count > 0; --count) {
    if (below(random, 4) == 0) pipeline.wire += below(random, 2) == 0 ? "\r\n" : "*0\r\n";
    const Request& request = pipeline.requests.emplace_back(random_request(random));
    pipeline.wire += below(random, 3) == 0 ? inline_command(request) : command(request);
  }
  return pipeline;
}

// ---- Requests: what parses ----------------------------------------------------------------------

TEST_CASE("a request is an array of bulk strings (RESP specification, clients to server)") {
  CHECK(receive("*2\r\n$3\r\nGET\r\n$1\r\nk\r\n").requests == std::vector<Request>{{"GET", "k"}});
  CHECK(receive("*2\r\n$0\r\n\r\n$4\r\n\r\n\0\r\r\n"s).requests ==
        std::vector<Request>{{"", "\r\n\0\r"s}});
}

TEST_CASE("the example of the header answers PING") {
  std::string output;
  const auto serve = [&](std::string_view unconsumed) {
    seshat::resp::RequestParser parser;
    seshat::resp::Writer reply(output, seshat::resp::Protocol::kResp2);
    for (;;) {
      const auto status = parser.parse(unconsumed);
      unconsumed.remove_prefix(parser.consumed());
      if (status == seshat::resp::Status::kIncomplete) break;
      if (status == seshat::resp::Status::kError) return reply.error(parser.error());
      if (parser.args()[0] == "PING") {
        reply.simple_string("PONG");
      } else {
        reply.error("ERR unknown command");
      }
    }
  };
  serve("PING\r\n*1\r\n$4\r\nPING\r\nQUIT\r\n*x\r\n");
  CHECK(output ==
        "+PONG\r\n+PONG\r\n-ERR unknown command\r\n"
        "-ERR Protocol error: invalid multibulk length\r\n");
}

TEST_CASE("arguments are views into the read buffer") {
  const std::string buffer = command({"SET", "key", "value"}) + "GET key\r\n";
  std::string_view unconsumed = buffer;
  RequestParser parser;
  for (int request = 0; request < 2; ++request) {
    REQUIRE(parser.parse(unconsumed) == Status::kComplete);
    for (const std::string_view arg : parser.args()) {
      CHECK(arg.data() > buffer.data());
      CHECK(arg.data() + arg.size() < buffer.data() + buffer.size());
    }
    unconsumed.remove_prefix(parser.consumed());
  }
  CHECK(unconsumed.empty());
}

TEST_CASE("requests of a pipeline are found one after another, and the last may be cut off") {
  const std::string get = command({"GET", "k"});
  const std::string part = get.substr(0, 7);
  const std::string wire = get + "PING\r\n" + get + part;
  std::string_view unconsumed = wire;
  RequestParser parser;
  Seen seen;
  take_requests(parser, unconsumed, seen);
  CHECK(seen == Seen{{{"GET", "k"}, {"PING"}, {"GET", "k"}}, ""});
  CHECK(unconsumed == part);
}

TEST_CASE("empty requests are skipped in silence (processMultibulkBuffer of Redis)") {
  const std::string empties = "*0\r\n\r\n*-1\r\n\n   \r\n*-7\r\n";
  CHECK(receive(empties + "PING\r\n" + empties) == Seen{{{"PING"}}, ""});
}

TEST_CASE("empty requests do not stay in the buffer when nothing follows them") {
  RequestParser parser;
  CHECK(parser.parse("\r\n*0\r\n\r\n*2\r\n$3") == Status::kIncomplete);
  CHECK(parser.consumed() == std::string_view("\r\n*0\r\n\r\n").size());
  CHECK(parser.parse("*2\r\n$3\r\nGET\r\n$1\r\nk\r\n") == Status::kComplete);
  CHECK(parser.args()[1] == "k");
}

// ---- Requests: cut anywhere ---------------------------------------------------------------------

TEST_CASE("a length of any number of digits is read, cut anywhere in its header or its line end") {
  for (const std::size_t size :
       {0, 1, 9, 10, 11, 99, 100, 101, 999, 1'000, 9'999, 10'000, 65'536, 99'999, 100'000}) {
    const Request request = {"SET", std::string(size, 'v'), "x"};
    const std::string wire = command(request) + command({"GET"});
    const Seen whole{{request, {"GET"}}, ""};
    CHECK(receive(wire) == whole);
    for (std::size_t i = 1; i < 28; ++i) {
      CHECK(receive(wire, Cuts{i}) == whole);
      CHECK(receive(wire, Cuts{wire.size() - i}) == whole);
    }
  }
}

TEST_CASE("a request of any number of arguments is read, cut anywhere") {
  for (const std::size_t count : {1, 9, 10, 99, 100, 101}) {
    const Request request(count, "k");
    const std::string wire = command(request);
    CHECK(receive(wire, every_byte(wire.size())) == Seen{{request}, ""});
  }
}

TEST_CASE("any pipeline cut in two anywhere parses the same, with the buffer moved between") {
  Random random(1);
  for (int round = 0; round < 300; ++round) {
    const Pipeline pipeline = random_pipeline(random);
    for (std::size_t cut = 0; cut <= pipeline.wire.size(); ++cut) {
      REQUIRE(receive(pipeline.wire, Cuts{cut}) == Seen{pipeline.requests, ""});
    }
  }
}

TEST_CASE("any pipeline parses the same byte by byte and in random pieces") {
  Random random(2);
  for (int round = 0; round < 2000; ++round) {
    const Pipeline pipeline = random_pipeline(random);
    const Seen whole{pipeline.requests, ""};
    REQUIRE(receive(pipeline.wire) == whole);
    REQUIRE(receive(pipeline.wire, every_byte(pipeline.wire.size())) == whole);
    REQUIRE(receive(pipeline.wire, random_cuts(random, pipeline.wire.size())) == whole);
  }
}

TEST_CASE("damaged bytes get the same verdict however they are cut") {
  Random random(3);
  const Limits tight{.max_request_size_bytes = 24,
                     .max_arguments = 4,
                     .max_inline_size_bytes = 20,
                     .max_nesting = 2};
  std::size_t errors = 0;
  for (int round = 0; round < 5000; ++round) {
    std::string wire = random_pipeline(random).wire;
    wire[below(random, wire.size())] = "*$\r\n\"9-\x01"[below(random, 8)];
    const Seen whole = receive(wire, tight);
    errors += whole.error.empty() ? 0 : 1;
    REQUIRE(receive(wire, every_byte(wire.size()), tight) == whole);
    REQUIRE(receive(wire, random_cuts(random, wire.size()), tight) == whole);
  }
  CHECK(errors > 1000);
}

// No server changes bytes that it already passed. Here it does, and a parser that went back to them,
// and so took O(n^2) for n bytes one by one, would trip over them.
TEST_CASE("bytes that were looked at once are not looked at again") {
  RequestParser multibulk;
  CHECK(multibulk.parse("*2\r\n$3\r\nGET\r\n$1") == Status::kIncomplete);
  CHECK(multibulk.parse("????????GET??$1\r\nk\r\n") == Status::kComplete);
  CHECK(Request(multibulk.args().begin(), multibulk.args().end()) == Request{"GET", "k"});
  RequestParser typed;
  CHECK(typed.parse("PING") == Status::kIncomplete);
  CHECK(typed.parse("P\nNG a\n") == Status::kComplete);
  CHECK(typed.consumed() == 7);
  ReplyParser reply;
  CHECK(reply.parse("+OK") == Status::kIncomplete);
  CHECK(reply.parse("+\r?\r\n") == Status::kComplete);
}

// ---- Requests: inline commands ------------------------------------------------------------------

Request typed(const std::string& line) {
  const Seen seen = receive(line + "\r\n");
  CHECK(seen.error.empty());
  return seen.requests.empty() ? Request{} : seen.requests.front();
}

TEST_CASE("an inline command is split at blanks and ends at LF or CR LF") {
  CHECK(typed("SET k v") == Request{"SET", "k", "v"});
  CHECK(typed("  SET\t\tk \v\fv ") == Request{"SET", "k", "v"});
  CHECK(typed("a\fb") == Request{"a\fb"});
  CHECK(receive("PING\nECHO a\n").requests == std::vector<Request>{{"PING"}, {"ECHO", "a"}});
}

TEST_CASE("double quotes hold blanks and the escapes of sdssplitargs") {
  CHECK(typed(R"(SET "a b" "")") == Request{"SET", "a b", ""});
  CHECK(typed(R"("\n\r\t\b\a")") == Request{"\n\r\t\b\a"});
  CHECK(typed(R"("\x00\xfF\x41")") == Request{"\0\xff"
                                              "A"s});
  CHECK(typed(R"("\"\\\q\'")") == Request{"\"\\q'"});
  CHECK(typed(R"("\x4" "\xg1" "\x")") == Request{"x4", "xg1", "x"});
}

TEST_CASE("single quotes know no escape but the quote itself") {
  CHECK(typed(R"('a b' '' 'it\'s')") == Request{"a b", "", "it's"});
  CHECK(typed(R"('\n\x41' '"')") == Request{R"(\n\x41)", "\""});
}

TEST_CASE("a quote may open inside an argument, and ends it where it closes") {
  CHECK(typed(R"(GET k"e y")") == Request{"GET", "ke y"});
  CHECK(typed(R"(GET k'e y' z)") == Request{"GET", "ke y", "z"});
}

TEST_CASE("unbalanced quotes are a protocol error (sdssplitargs of Redis)") {
  for (const char* line : {"GET \"k\r\n", "GET 'k\r\n", "GET \"a\"b\r\n", "GET 'a'b\r\n",
                           "GET \"k\\\r\n", "GET \"k\\\"\r\n", "\"\r\n", "GET \"a\"'b'\r\n"}) {
    CHECK(error_of(line) == "ERR Protocol error: unbalanced quotes in request");
  }
}

// ---- Requests: errors and limits ----------------------------------------------------------------

TEST_CASE("a malformed request gets the text that Redis 7.0 has for it") {
  const std::string count = "ERR Protocol error: invalid multibulk length";
  for (const char* wire : {"*\r\n", "*x\r\n", "*1x\r\n", "* 1\r\n", "*+1\r\n", "*01\r\n", "*-0\r\n",
                           "*-\r\n", "*99999999999999999999\r\n", "*1\rX"}) {
    CHECK(error_of(wire) == count);
  }
  const std::string bulk = "ERR Protocol error: invalid bulk length";
  for (const char* wire : {"$\r\n", "$x\r\n", "$-1\r\n", "$ 1\r\n", "$+1\r\n", "$01\r\n", "$1 \r\n",
                           "$99999999999999999999\r\n", "$1\rX"}) {
    CHECK(error_of("*1\r\n"s + wire) == bulk);
  }
}

TEST_CASE("a malformed header gets the same verdict when it comes byte by byte") {
  for (const char* header :
       {"\r\n", "x\r\n", "1x\r\n", "12x\r\n", "123x\r\n", " 1\r\n", "+5\r\n", "01\r\n", "00\r\n",
        "-0\r\n", "-\r\n", "--1\r\n", "-1x\r\n", "1\rX", "12\rX", "1\r\rX",
        "9223372036854775808\r\n", "18446744073709551617\r\n", "100000000000000000001\r\n"}) {
    INFO(header);
    for (const std::string& wire : {"*"s + header, "*1\r\n$"s + header}) {
      CHECK_FALSE(error_of(wire).empty());
      CHECK(receive(wire, every_byte(wire.size())) == receive(wire));
    }
  }
}

TEST_CASE("an integer has one form, and 64 bits") {
  for (const std::int64_t number : {std::int64_t{0}, std::int64_t{9}, std::int64_t{10},
                                    std::int64_t{-1}, std::int64_t{-10}, INT64_MAX, INT64_MIN}) {
    CHECK(parse_integer(std::to_string(number)) == number);
  }
  for (const char* text :
       {"", "-", "+5", "00", "01", "-0", "-01", "--1", " 1", "1 ", "1a", "1/", "1:"}) {
    CHECK_FALSE(parse_integer(text));
  }
  for (const char* text : {"9223372036854775808", "-9223372036854775809", "9999999999999999999",
                           "10000000000000000000", "18446744073709551617"}) {
    CHECK_FALSE(parse_integer(text));
  }
  CHECK_FALSE(parse_integer(std::string_view("1\0", 2)));
}

TEST_CASE("an argument that is no bulk string is named by its first byte") {
  CHECK(error_of("*1\r\nx") == "ERR Protocol error: expected '$', got 'x'");
  CHECK(error_of("*2\r\n$1\r\na\r\n:") == "ERR Protocol error: expected '$', got ':'");
  CHECK(error_of("*1\r\n\r\n") == "ERR Protocol error: expected '$', got '\\x0d'");
  CHECK(error_of("*1\r\n\xff") == "ERR Protocol error: expected '$', got '\\xff'");
}

TEST_CASE("a bulk string that is not as long as it says is found at its end") {
  const std::string error = "ERR Protocol error: expected CRLF after bulk string";
  CHECK(error_of("*1\r\n$3\r\nGETX") == error);
  CHECK(error_of("*1\r\n$3\r\nGET\rX") == error);
  CHECK(error_of("*1\r\n$3\r\nGET\n") == error);
}

TEST_CASE("a line without an end is refused once it is over its limit") {
  const std::string zeros(65'536, '0');
  CHECK(error_of(zeros).empty());
  CHECK(error_of("*" + zeros.substr(1)).empty());
  CHECK(error_of(zeros + "0") == "ERR Protocol error: too big inline request");
  CHECK(error_of("*" + zeros) == "ERR Protocol error: too big mbulk count string");
  CHECK(error_of("*1\r\n$" + zeros) == "ERR Protocol error: too big bulk count string");
}

TEST_CASE("a line over its limit is refused also when its end is already here") {
  const Limits limits{.max_inline_size_bytes = 8};
  CHECK(receive("12345678\n", limits).requests == std::vector<Request>{{"12345678"}});
  CHECK(error_of("123456789\n", limits) == "ERR Protocol error: too big inline request");
  CHECK(error_of("*00000001\r\n", limits) == "ERR Protocol error: too big mbulk count string");
  const Limits tight{.max_inline_size_bytes = 2};
  CHECK(receive("*1\r\n$1\r\na\r\n", tight).requests == std::vector<Request>{{"a"}});
  CHECK(error_of("*10\r\n", tight) == "ERR Protocol error: too big mbulk count string");
  CHECK(error_of("*1\r\n$10\r\n", tight) == "ERR Protocol error: too big bulk count string");
}

TEST_CASE("a request is too large as soon as its declared lengths add up to more") {
  const Limits limits{.max_request_size_bytes = 10};
  const std::string three = "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n";
  CHECK(receive(three + "$6\r\n123456\r\n", limits) == Seen{{{"SET", "k", "123456"}}, ""});
  CHECK(error_of(three + "$7\r\n", limits) == "ERR request too large");
  CHECK(error_of(three + "$9223372036854775807\r\n", limits) == "ERR request too large");
  CHECK(error_of("ECHO 1234567\r\n", limits) == "ERR request too large");
  CHECK(error_of("*1\r\n$8388609\r\n") == "ERR request too large");
}

TEST_CASE("the size of a request starts anew with each") {
  const Limits limits{.max_request_size_bytes = 10};
  const std::string wire = command({"GET", "1234567"}) + "GET 1234567\r\n";
  CHECK(receive(wire + wire + wire, limits).requests.size() == 6);
}

TEST_CASE("a request with too many arguments is refused by its count") {
  const std::string error = "ERR Protocol error: invalid multibulk length";
  CHECK(error_of("*1048576\r\n").empty());
  CHECK(error_of("*1048577\r\n") == error);
  const Limits limits{.max_arguments = 2};
  CHECK(receive("a b\r\n", limits).requests == std::vector<Request>{{"a", "b"}});
  CHECK(error_of("a b c\r\n", limits) == error);
  CHECK(error_of("*3\r\n", limits) == error);
}

TEST_CASE("a parser that found an error stays with it") {
  RequestParser parser;
  CHECK(parser.parse("*x\r\n") == Status::kError);
  CHECK(parser.parse("*1\r\n$4\r\nPING\r\n") == Status::kError);
  CHECK(parser.error() == "ERR Protocol error: invalid multibulk length");
  CHECK(parser.consumed() == 0);
}

// ---- Memory -------------------------------------------------------------------------------------

template <typename Action>
std::size_t heap_size_of(Action action) {
  const std::size_t before = heap_size_bytes;
  action();
  return heap_size_bytes - before;
}

TEST_CASE("a declared length takes no memory until its bytes arrive") {
  RequestParser many;
  RequestParser large;
  CHECK(heap_size_of([&] { (void)many.parse("*1048576\r\n$1\r\na\r\n"); }) < 64);
  CHECK(heap_size_of([&] { (void)large.parse("*1\r\n$8388608\r\nabc"); }) < 64);
  ReplyParser reply_many;
  ReplyParser reply_large;
  CHECK(heap_size_of([&] { (void)reply_many.parse("*1048576\r\n:1\r\n"); }) < 1024);
  CHECK(heap_size_of([&] { (void)reply_large.parse("$8388608\r\nabc"); }) < 1024);
}

TEST_CASE("in steady state a request allocates nothing") {
  const std::string wire = command({"SET", "key:000000000001", std::string(100, 'v')}) +
                           "SET \"key one\" 'a value that no small string would hold'\r\n";
  RequestParser parser;
  const auto pass = [&] {
    std::string_view unconsumed = wire;
    while (parser.parse(unconsumed) == Status::kComplete) {
      unconsumed.remove_prefix(parser.consumed());
    }
  };
  pass();
  const std::size_t before = heap_allocations;
  for (int i = 0; i < 100; ++i) pass();
  CHECK(heap_allocations == before);
}

TEST_CASE("the room of one huge request is given back before the next") {
  const std::string wire = command(Request(100'000, "k"));
  RequestParser parser;
  REQUIRE(parser.parse(wire) == Status::kComplete);
  CHECK(parser.args().size() == 100'000);
  CHECK(parser.parse("") == Status::kIncomplete);
  CHECK(heap_size_of([&] { (void)parser.parse(wire.substr(0, wire.size() - 1)); }) > 1'000'000);
}

// ---- Writer -------------------------------------------------------------------------------------

template <typename Action>
std::string written(Protocol protocol, Action action) {
  std::string out;
  Writer writer(out, protocol);
  action(writer);
  return out;
}

template <typename Action>
std::pair<std::string, std::string> in_both(Action action) {
  return {written(Protocol::kResp2, action), written(Protocol::kResp3, action)};
}

using Both = std::pair<std::string, std::string>;

TEST_CASE("what both protocols have is written the same (RESP specification)") {
  const auto both = in_both([](Writer& w) {
    w.simple_string("OK");
    w.error("ERR no");
    w.integer(std::numeric_limits<std::int64_t>::min());
    w.bulk("a\r\nb");
    w.array(2);
  });
  CHECK(both.first == "+OK\r\n-ERR no\r\n:-9223372036854775808\r\n$4\r\na\r\nb\r\n*2\r\n");
  CHECK(both.second == both.first);
}

TEST_CASE("what RESP2 lacks is written as Redis writes it to a RESP2 client") {
  CHECK(in_both([](Writer& w) { w.null(); }) == Both{"$-1\r\n", "_\r\n"});
  CHECK(in_both([](Writer& w) { w.null_array(); }) == Both{"*-1\r\n", "_\r\n"});
  CHECK(in_both([](Writer& w) { w.map(2); }) == Both{"*4\r\n", "%2\r\n"});
  CHECK(in_both([](Writer& w) { w.set(2); }) == Both{"*2\r\n", "~2\r\n"});
  CHECK(in_both([](Writer& w) { w.push(2); }) == Both{"*2\r\n", ">2\r\n"});
  CHECK(in_both([](Writer& w) { w.boolean(true); }) == Both{":1\r\n", "#t\r\n"});
  CHECK(in_both([](Writer& w) { w.boolean(false); }) == Both{":0\r\n", "#f\r\n"});
  CHECK(in_both([](Writer& w) { w.big_number("-12"); }) == Both{"$3\r\n-12\r\n", "(-12\r\n"});
  CHECK(in_both([](Writer& w) { w.verbatim("mkd", "a"); }) ==
        Both{"$1\r\na\r\n", "=5\r\nmkd:a\r\n"});
  CHECK(in_both([](Writer& w) { w.bulk_error("ERR x"); }) == Both{"-ERR x\r\n", "!5\r\nERR x\r\n"});
}

TEST_CASE("an attribute is written in RESP3 and left out in RESP2") {
  const auto action = [](Writer& w) {
    if (w.attribute(1)) {
      w.bulk("ttl");
      w.integer(7);
    }
    w.bulk("v");
  };
  CHECK(in_both(action) == Both{"$1\r\nv\r\n", "|1\r\n$3\r\nttl\r\n:7\r\n$1\r\nv\r\n"});
}

TEST_CASE("a double is the shortest text that reads back the same") {
  const double infinity = std::numeric_limits<double>::infinity();
  CHECK(in_both([](Writer& w) { w.double_number(0.1); }) == Both{"$3\r\n0.1\r\n", ",0.1\r\n"});
  CHECK(in_both([](Writer& w) { w.double_number(3); }) == Both{"$1\r\n3\r\n", ",3\r\n"});
  CHECK(in_both([&](Writer& w) { w.double_number(infinity); }).second == ",inf\r\n");
  CHECK(in_both([&](Writer& w) { w.double_number(-infinity); }).second == ",-inf\r\n");
  CHECK(in_both([](Writer& w) { w.double_number(-std::nan("")); }).second == ",nan\r\n");
}

TEST_CASE("no text of an error or simple string can forge a second reply") {
  CHECK(written(Protocol::kResp2, [](Writer& w) { w.error("ERR a\r\n+OK\r\n"); }) ==
        "-ERR a  +OK  \r\n");
  CHECK(written(Protocol::kResp3, [](Writer& w) { w.simple_string("a\nb\r"); }) == "+a b \r\n");
  CHECK(written(Protocol::kResp3, [](Writer& w) { w.big_number("1\r\n2"); }) == "(1  2\r\n");
}

TEST_CASE("a line leaves what stands before it as it is") {
  const auto two = [](Writer& writer) {
    writer.bulk("a\r\nb");
    writer.error("c\r\nd");
  };
  CHECK(written(Protocol::kResp2, two) == "$4\r\na\r\nb\r\n-c  d\r\n");
}

TEST_CASE("a bulk string takes its room at once, and many do not copy the output for each") {
  std::string out;
  Writer writer(out, Protocol::kResp2);
  const std::string value(65'536, 'v');
  const std::size_t before = heap_allocations;
  writer.bulk(value);
  CHECK(heap_allocations - before == 1);
  for (int i = 0; i < 100; ++i) writer.bulk(value);
  CHECK(heap_allocations - before < 10);
}

TEST_CASE("a verbatim string keeps its length when its format is not three bytes") {
  CHECK(written(Protocol::kResp3, [](Writer& w) { w.verbatim("markdown", "a"); }) ==
        "=5\r\ntxt:a\r\n");
}

TEST_CASE("append_command() and RequestParser are inverse") {
  std::string wire;
  append_command(wire, {"SET", "k", "a\r\nb"});
  CHECK(wire == "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$4\r\na\r\nb\r\n");
  CHECK(receive(wire).requests == std::vector<Request>{{"SET", "k", "a\r\nb"}});
}

// ---- Replies ------------------------------------------------------------------------------------

struct Replies {
  std::vector<Value> values;
  std::string error;
  bool operator==(const Replies&) const = default;
};

// What a client sees of `wire`, as receive() shows what a server sees.
Replies read_replies(std::string_view wire, Cuts cuts = {}, Limits limits = {}) {
  ReplyParser parser(limits);
  Replies seen;
  std::vector<char> buffer;
  std::size_t from = 0;
  cuts.push_back(wire.size());
  for (const std::size_t cut : cuts) {
    buffer.insert(buffer.end(), wire.begin() + static_cast<std::ptrdiff_t>(from),
                  wire.begin() + static_cast<std::ptrdiff_t>(cut));
    from = cut;
    for (;;) {
      const std::vector<char> moved = buffer;
      const Status status = parser.parse({moved.data(), moved.size()});
      buffer.assign(moved.begin() + static_cast<std::ptrdiff_t>(parser.consumed()), moved.end());
      if (status == Status::kError) seen.error = parser.error();
      if (status != Status::kComplete) break;
      seen.values.push_back(parser.take());
    }
  }
  return seen;
}

std::string reply_error(std::string_view wire, Limits limits = {}) {
  return read_replies(wire, {}, limits).error;
}

Value text_value(Kind kind, std::string text) { return {.kind = kind, .text = std::move(text)}; }
Value bulk(std::string text) { return text_value(Kind::kBulkString, std::move(text)); }
Value integer(std::int64_t number) { return {.kind = Kind::kInteger, .integer = number}; }

TEST_CASE("each RESP2 type is read (RESP specification)") {
  const Replies seen =
      read_replies("+OK\r\n-ERR no\r\n:-7\r\n:+7\r\n$1\r\na\r\n$-1\r\n*-1\r\n*0\r\n");
  const Replies expected{{text_value(Kind::kSimpleString, "OK"),
                          text_value(Kind::kError, "ERR no"),
                          integer(-7),
                          integer(7),
                          bulk("a"),
                          Value{},
                          {.kind = Kind::kNullArray},
                          {.kind = Kind::kArray}},
                         ""};
  CHECK(seen == expected);
}

TEST_CASE("each scalar RESP3 type is read (RESP specification)") {
  const Replies seen = read_replies(
      "_\r\n#t\r\n#f\r\n,1.5\r\n,+1e3\r\n,-inf\r\n(-123\r\n!5\r\nERR x\r\n=5\r\nmkd:a\r\n");
  const Replies expected{
      {Value{},
       {.kind = Kind::kBoolean, .integer = 1},
       {.kind = Kind::kBoolean, .integer = 0},
       {.kind = Kind::kDouble, .number = 1.5},
       {.kind = Kind::kDouble, .number = 1000},
       {.kind = Kind::kDouble, .number = -std::numeric_limits<double>::infinity()},
       text_value(Kind::kBigNumber, "-123"),
       text_value(Kind::kBulkError, "ERR x"),
       {.kind = Kind::kVerbatim, .format = {'m', 'k', 'd'}, .text = "a"}},
      ""};
  CHECK(seen == expected);
  CHECK(std::isnan(read_replies(",nan\r\n").values.at(0).number));
}

TEST_CASE("aggregates nest, and a map holds its keys before their values") {
  const Replies seen = read_replies("%2\r\n+a\r\n*2\r\n:1\r\n~1\r\n:2\r\n+b\r\n>0\r\n");
  const Value a = text_value(Kind::kSimpleString, "a");
  const Value b = text_value(Kind::kSimpleString, "b");
  const Value set{.kind = Kind::kSet, .elements = {integer(2)}};
  const Value array{.kind = Kind::kArray, .elements = {integer(1), set}};
  const Value map{.kind = Kind::kMap, .elements = {a, array, b, {.kind = Kind::kPush}}};
  CHECK(seen == Replies{{map}, ""});
}

TEST_CASE("attributes belong to the value after them (RESP3 specification, attribute type)") {
  const Replies seen = read_replies("|1\r\n+k\r\n:1\r\n*2\r\n|1\r\n+l\r\n:2\r\n:3\r\n:4\r\n:5\r\n");
  Value three = integer(3);
  three.attributes = {text_value(Kind::kSimpleString, "l"), integer(2)};
  Value array{.kind = Kind::kArray, .elements = {three, integer(4)}};
  array.attributes = {text_value(Kind::kSimpleString, "k"), integer(1)};
  CHECK(seen == Replies{{array, integer(5)}, ""});
}

// ---- Replies: inverse of Writer, and cut anywhere -----------------------------------------------

std::string random_line(Random& random) {
  std::string line = random_bytes(random);
  std::erase_if(line, [](char c) { return c == '\r' || c == '\n'; });
  return line;
}

double random_double(Random& random) {
  const double number = std::bit_cast<double>(random());
  return std::isnan(number) ? 0.5 : number;
}

constexpr Kind kResp2Kinds[] = {Kind::kNull,  Kind::kNullArray, Kind::kSimpleString,
                                Kind::kError, Kind::kInteger,   Kind::kBulkString,
                                Kind::kArray};
constexpr Kind kResp3Kinds[] = {
    Kind::kNull,  Kind::kSimpleString, Kind::kError,  Kind::kInteger,   Kind::kBulkString,
    Kind::kArray, Kind::kBoolean,      Kind::kDouble, Kind::kBigNumber, Kind::kBulkError,
    Kind::kMap,   Kind::kVerbatim,     Kind::kSet,    Kind::kPush};

Value random_scalar(Random& random, Kind kind) {
  Value value{.kind = kind};
  if (kind == Kind::kSimpleString || kind == Kind::kError) value.text = random_line(random);
  if (kind == Kind::kInteger) value.integer = static_cast<std::int64_t>(random());
  if (kind == Kind::kBoolean) value.integer = static_cast<std::int64_t>(random() & 1U);
  if (kind == Kind::kDouble) value.number = random_double(random);
  if (kind == Kind::kBigNumber) value.text = "-" + std::to_string(random()) + "00000";
  if (kind == Kind::kBulkString || kind == Kind::kBulkError || kind == Kind::kVerbatim) {
    value.text = random_bytes(random);
  }
  if (kind == Kind::kVerbatim) value.format = {'m', 'k', 'd'};
  return value;
}

Value random_value(Random& random, std::span<const Kind> kinds, int depth) {
  Value value = random_scalar(random, kinds[below(random, kinds.size())]);
  const auto fill = [&](std::vector<Value>& values, std::size_t count) {
    while (depth > 0 && count-- > 0) values.push_back(random_value(random, kinds, depth - 1));
  };
  const bool listed = value.kind == Kind::kArray || value.kind == Kind::kSet;
  if (listed || value.kind == Kind::kPush) fill(value.elements, below(random, 4));
  if (value.kind == Kind::kMap) fill(value.elements, 2 * below(random, 3));
  const bool resp3 = kinds.size() == std::size(kResp3Kinds);
  if (resp3 && below(random, 5) == 0) fill(value.attributes, 2);
  return value;
}

void check_inverse(std::uint64_t seed, Protocol protocol, std::span<const Kind> kinds) {
  Random random(seed);
  for (int round = 0; round < 2000; ++round) {
    Replies replies;
    std::string wire;
    Writer writer(wire, protocol);
    for (std::size_t count = 1 + below(random, 3); count > 0; --count) {
      replies.values.push_back(random_value(random, kinds, 3));
      write(writer, replies.values.back());
    }
    REQUIRE(read_replies(wire) == replies);
    REQUIRE(read_replies(wire, every_byte(wire.size())) == replies);
    REQUIRE(read_replies(wire, random_cuts(random, wire.size())) == replies);
  }
}

TEST_CASE("writer and parser are inverse for any RESP2 values, cut anywhere") {
  check_inverse(4, Protocol::kResp2, kResp2Kinds);
}

TEST_CASE("writer and parser are inverse for any RESP3 values, cut anywhere") {
  check_inverse(5, Protocol::kResp3, kResp3Kinds);
}

TEST_CASE("a value of RESP3 written for RESP2 is still one reply") {
  Random random(6);
  for (int round = 0; round < 2000; ++round) {
    std::string wire;
    Writer writer(wire, Protocol::kResp2);
    write(writer, random_value(random, kResp3Kinds, 3));
    const Replies seen = read_replies(wire);
    REQUIRE(seen.error.empty());
    REQUIRE(seen.values.size() == 1);
  }
}

TEST_CASE("a damaged reply gets the same verdict however it is cut") {
  Random random(7);
  std::size_t errors = 0;
  for (int round = 0; round < 3000; ++round) {
    std::string wire;
    Writer writer(wire, Protocol::kResp3);
    write(writer, random_value(random, kResp3Kinds, 3));
    wire[below(random, wire.size())] = "*$\r\n?9-\x01"[below(random, 8)];
    const Replies whole = read_replies(wire);
    errors += whole.error.empty() ? 0 : 1;
    REQUIRE(read_replies(wire, every_byte(wire.size())).error == whole.error);
  }
  CHECK(errors > 500);
}

// ---- Replies: errors and limits -----------------------------------------------------------------

TEST_CASE("a malformed reply is an error that says what is wrong") {
  CHECK(reply_error("x") == "Protocol error: unknown reply type 'x'");
  CHECK(reply_error(":1x\r\n") == "Protocol error: invalid integer");
  CHECK(reply_error(":+-1\r\n") == "Protocol error: invalid integer");
  CHECK(reply_error(",1,5\r\n") == "Protocol error: invalid double");
  CHECK(reply_error("#x\r\n") == "Protocol error: invalid boolean");
  CHECK(reply_error("_x\r\n") == "Protocol error: invalid null");
  CHECK(reply_error("(1x\r\n") == "Protocol error: invalid big number");
  CHECK(reply_error("$-2\r\n") == "Protocol error: invalid bulk length");
  CHECK(reply_error("=3\r\n") == "Protocol error: invalid bulk length");
  CHECK(reply_error("=5\r\ntxt-a\r\n") == "Protocol error: invalid verbatim string");
  CHECK(reply_error("*-2\r\n") == "Protocol error: invalid aggregate length");
  CHECK(reply_error("%-1\r\n") == "Protocol error: invalid aggregate length");
  CHECK(reply_error("$1\r\nab") == "Protocol error: expected CRLF after bulk string");
  CHECK(reply_error("+a\rb") == "Protocol error: expected LF after CR");
  CHECK(reply_error("+" + std::string(65'536, 'a')) == "Protocol error: too big line");
}

TEST_CASE("streamed types are refused by name (RESP3 specification, streamed strings)") {
  for (const char* wire : {"$?\r\n", "*?\r\n", "%?\r\n", "~?\r\n", ";4\r\n", ".\r\n"}) {
    CHECK(reply_error(wire) == "Protocol error: streamed types are not supported");
  }
}

TEST_CASE("a reply nests no deeper than its limit") {
  const auto nested = [](std::size_t depth, const std::string& header) {
    std::string wire;
    for (std::size_t i = 0; i < depth; ++i) wire += header;
    return wire + ":1\r\n";
  };
  CHECK(read_replies(nested(32, "*1\r\n")).values.size() == 1);
  CHECK(reply_error(nested(33, "*1\r\n")) == "Protocol error: aggregates nested too deeply");
  CHECK(reply_error(nested(100'000, "*1\r\n")) == "Protocol error: aggregates nested too deeply");
  CHECK(reply_error(nested(33, "|1\r\n")) == "Protocol error: aggregates nested too deeply");
}

TEST_CASE("the elements of a reply are counted over all its levels, attributes among them") {
  const Limits limits{.max_arguments = 4};
  const std::string error = "Protocol error: too many elements";
  CHECK(reply_error("*4\r\n:1\r\n:2\r\n:3\r\n:4\r\n%2\r\n", limits).empty());
  CHECK(reply_error("*5\r\n", limits) == error);
  CHECK(reply_error("%3\r\n", limits) == error);
  CHECK(reply_error("*2\r\n*3\r\n", limits) == error);
  CHECK(reply_error("|1\r\n:1\r\n:1\r\n|1\r\n:1\r\n:1\r\n|1\r\n", limits) == error);
  CHECK(reply_error("%9223372036854775807\r\n") == error);
}

TEST_CASE("a reply is too large as soon as its declared lengths add up to more") {
  const Limits limits{.max_request_size_bytes = 10};
  const std::string error = "Protocol error: reply too large";
  CHECK(reply_error("*2\r\n$5\r\n12345\r\n$5\r\n12345\r\n$10\r\n", limits).empty());
  CHECK(reply_error("*2\r\n$5\r\n12345\r\n$6\r\n", limits) == error);
  CHECK(reply_error("*2\r\n+12345\r\n+123456\r\n", limits) == error);
  CHECK(reply_error("$9223372036854775807\r\n", limits) == error);
}

TEST_CASE("a reply parser that found an error stays with it") {
  ReplyParser parser;
  CHECK(parser.parse("x") == Status::kError);
  CHECK(parser.parse("+OK\r\n") == Status::kError);
  CHECK(parser.consumed() == 0);
}

}  // namespace
