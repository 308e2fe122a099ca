// The bytes of a client, read as requests, and those of a server, read as replies.
//
// Claims: the same comes out however the bytes were cut; no more is consumed than there is; an error
// stays; memory follows the bytes received, whatever lengths they declare; what was parsed and is
// written again reads back the same.
#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "fuzz/target.hpp"
#include "seshat/resp.hpp"

// clang's AddressSanitizer counts what is allocated; g++ does not ship the header.
#if defined(__has_feature) && __has_include(<sanitizer/allocator_interface.h>)
#if __has_feature(address_sanitizer)
#include <sanitizer/allocator_interface.h>
#define SESHAT_FUZZ_COUNTS_MEMORY
#endif
#endif

namespace seshat::fuzz {

namespace {

using resp::Limits;
using resp::Protocol;
using resp::Status;

// Bounds that short inputs reach as well.
constexpr Limits kTight{.max_request_size_bytes = 64,
                        .max_arguments = 6,
                        .max_inline_size_bytes = 24,
                        .max_nesting = 3};

// What is allocated now; AddressSanitizer counts it, and without it nobody does.
std::size_t allocated_bytes() {
#ifdef SESHAT_FUZZ_COUNTS_MEMORY
  return __sanitizer_get_current_allocated_bytes();
#else
  return 0;
#endif
}

// The most that is held for a byte received: the elements of an aggregate, four bytes each on the
// wire, are Values of 120 bytes in a vector that doubles; and what we heard of them is kept, too.
constexpr std::size_t kMemoryForByte = 256;
constexpr std::size_t kMemoryBeside = 16'384;

// What came out of a parser, in a form that can be compared.
struct Heard {
  std::vector<std::vector<std::string>> requests;
  std::vector<std::string> replies;  // as RESP3 bytes: a NaN equals nothing
  std::string error;

  bool operator==(const Heard&) const = default;
};

std::string written(const resp::Value& value, Protocol protocol) {
  std::string out;
  resp::Writer writer(out, protocol);
  resp::write(writer, value);
  return out;
}

void hear(const resp::RequestParser& parser, Heard& heard) {
  check(!parser.args().empty(), "a request without an argument came out");
  heard.requests.emplace_back(parser.args().begin(), parser.args().end());
}

void hear(const resp::ReplyParser& parser, Heard& heard) {
  heard.replies.push_back(written(parser.value(), Protocol::kResp3));
}

// A reader that gets the pieces one after the other, and drops what is consumed after every call.
template <class Parser>
Heard receive(const std::vector<std::string_view>& pieces, const Limits& limits) {
  const std::size_t before = allocated_bytes();
  std::size_t received = 0;
  Heard heard;
  Parser parser(limits);
  std::string held;
  for (const std::string_view piece : pieces) {
    held += piece;
    received += piece.size();
    const Exact buffer(held);
    std::string_view unconsumed = buffer.view();
    Status status = Status::kComplete;
    while (status == Status::kComplete) {
      status = parser.parse(unconsumed);
      check(parser.consumed() <= unconsumed.size(), "more was consumed than there is");
      if (status == Status::kComplete) {
        check(parser.consumed() > 0, "something came out of nothing");
        hear(parser, heard);
      }
      unconsumed.remove_prefix(parser.consumed());
    }
    held.assign(unconsumed);
    check(allocated_bytes() < before + kMemoryForByte * received + kMemoryBeside,
          "memory does not follow the bytes received");
    if (status == Status::kError) {
      heard.error = parser.error();
      check(!heard.error.empty(), "an error without a word");
      check(parser.parse("*1\r\n$4\r\nPING\r\n") == Status::kError, "an error was forgotten");
      break;
    }
  }
  return heard;
}

template <class Parser>
Heard receive_whole(std::string_view bytes, const Limits& limits = {}) {
  return receive<Parser>({bytes}, limits);
}

// However it is cut: whole, byte by byte, and at random.
template <class Parser>
Heard receive_in_all_ways(std::string_view input, const Limits& limits, Chance& chance) {
  Heard whole = receive_whole<Parser>(input, limits);
  check(receive<Parser>(cut(input, 16, chance), limits) == whole, "cut in pieces it is another");
  const bool affordable = input.size() <= 256;  // the cost grows with the square
  check(!affordable || receive<Parser>(cut(input, 1, chance), limits) == whole,
        "byte by byte it is another");
  return whole;
}

void write_requests_again(const Heard& heard) {
  std::string out;
  for (const std::vector<std::string>& request : heard.requests) {
    resp::append_command(out, std::vector<std::string_view>(request.begin(), request.end()));
  }
  const Heard again = receive_whole<resp::RequestParser>(out);
  check(again.error.empty() && again.requests == heard.requests,
        "requests, written again, are others");
}

// Once written, a line holds no line end any more: from then on nothing may change.
void write_replies_again(const Heard& heard) {
  for (const std::string& reply : heard.replies) {
    const Heard again = receive_whole<resp::ReplyParser>(reply);
    check(again.error.empty() && again.replies == std::vector{reply},
          "a reply, written again, is another");
  }
}

// A RESP2 client gets one reply as well, of RESP2's types only.
void write_replies_for_resp2(std::string_view input) {
  resp::ReplyParser parser;
  while (parser.parse(input) == Status::kComplete) {
    input.remove_prefix(parser.consumed());
    const std::string out = written(parser.value(), Protocol::kResp2);
    check(std::string_view("+-:$*").find(out[0]) != std::string_view::npos, "no type of RESP2");
    resp::ReplyParser reader;
    check(reader.parse(out) == Status::kComplete && reader.consumed() == out.size(),
          "what is written for RESP2 is not one reply");
  }
}

}  // namespace

void resp(std::string_view input) {
  Chance chance(input);
  write_requests_again(receive_in_all_ways<resp::RequestParser>(input, Limits{}, chance));
  write_replies_again(receive_in_all_ways<resp::ReplyParser>(input, Limits{}, chance));
  write_replies_for_resp2(input);
  write_requests_again(receive_in_all_ways<resp::RequestParser>(input, kTight, chance));
  write_replies_again(receive_in_all_ways<resp::ReplyParser>(input, kTight, chance));
}

}  // namespace seshat::fuzz
