#include "seshat/resp.hpp"

#include <cstddef>
#include <string>
#include <string_view>

#include "micro/benchmark.hpp"
#include "micro/samples.hpp"

using namespace seshat;

namespace {

constexpr std::size_t kPipeline = 16;

std::string set_requests(std::size_t count) {
  std::string bytes;
  for (std::size_t i = 0; i < count; ++i) {
    resp::append_command(bytes, {"SET", micro::key(i), micro::value()});
  }
  return bytes;
}

std::string get_requests(std::size_t count) {
  std::string bytes;
  for (std::size_t i = 0; i < count; ++i) resp::append_command(bytes, {"GET", micro::key(i)});
  return bytes;
}

// How many requests there were.
std::size_t parse_all(resp::RequestParser& parser, std::string_view bytes) {
  std::size_t count = 0;
  while (parser.parse(bytes) == resp::Status::kComplete) {
    bytes.remove_prefix(parser.consumed());
    ++count;
  }
  return count;
}

}  // namespace

TEST_CASE("RESP requests", "[resp]") {
  resp::RequestParser parser;
  const std::string set = set_requests(1);
  const std::string sets = set_requests(kPipeline);
  const std::string get = get_requests(1);
  const std::string gets = get_requests(kPipeline);
  REQUIRE(parse_all(parser, sets) == kPipeline);

  BENCHMARK("parse a SET") { return parse_all(parser, set); };
  BENCHMARK("parse 16 SETs") { return parse_all(parser, sets); };
  BENCHMARK("parse a GET") { return parse_all(parser, get); };
  BENCHMARK("parse 16 GETs") { return parse_all(parser, gets); };
}

TEST_CASE("RESP replies", "[resp]") {
  std::string out;
  resp::Writer writer(out, resp::Protocol::kResp2);
  const std::string value = micro::value();

  BENCHMARK("write +OK") {
    out.clear();
    writer.simple_string("OK");
    return out.size();
  };
  BENCHMARK("write a value of 256 bytes") {
    out.clear();
    writer.bulk(value);
    return out.size();
  };
  BENCHMARK("write an integer") {
    out.clear();
    writer.integer(1'234'567);
    return out.size();
  };
}
