#include "seshat/codec.hpp"

#include <cstddef>
#include <string>
#include <string_view>
#include <utility>

#include "micro/benchmark.hpp"
#include "micro/samples.hpp"
#include "seshat/peer_codec.hpp"

using namespace seshat;

namespace {

Frame append_entries(std::size_t count) {
  raft::AppendEntries body;
  body.prev_log_index = raft::Index{1'000'000};
  body.prev_log_term = raft::Term{1};
  body.commit_index = raft::Index{999'990};
  body.round = 1'000;
  body.compactable_index = raft::Index{900'000};
  body.entries = micro::entries(raft::Index{1'000'001}, count);
  Frame frame;
  frame.messages.push_back(
      {kFirstDataGroup, {NodeId{1}, NodeId{2}, raft::Term{1}, std::move(body)}});
  return frame;
}

Frame append_entries_reply() {
  raft::AppendEntriesReply body;
  body.success = true;
  body.match_index = raft::Index{1'000'001};
  body.round = 1'000;
  body.withhold_ms = 300;
  Frame frame;
  frame.messages.push_back({kFirstDataGroup, {NodeId{2}, NodeId{1}, raft::Term{1}, body}});
  return frame;
}

// Both ways, with what is encoded kept in one string.
void measure(const std::string& name, const Frame& frame) {
  std::string bytes;
  codec::encode(frame, bytes);
  const std::string whole = bytes;
  REQUIRE(codec::decode_frame(whole));

  BENCHMARK("encode " + name) {
    bytes.clear();
    codec::encode(frame, bytes);
    return bytes.size();
  };
  BENCHMARK("decode " + name) { return codec::decode_frame(whole); };
}

}  // namespace

TEST_CASE("records of the log", "[codec]") {
  const raft::Entry entry = micro::entries(raft::Index{1'000'000}, 1)[0];
  std::string bytes;
  codec::encode(entry, bytes);
  const std::string whole = bytes;
  REQUIRE(codec::decode_entry(whole));

  BENCHMARK("encode an entry") {
    bytes.clear();
    codec::encode(entry, bytes);
    return bytes.size();
  };
  BENCHMARK("decode an entry") { return codec::decode_entry(whole); };
}

TEST_CASE("operations", "[codec]") {
  const std::string key = micro::key(1);
  const std::string value = micro::value();
  Operation operation;
  operation.time_ms = micro::kTimeMs;
  operation.arguments = {key, value};
  const std::string whole = codec::encode(operation);
  REQUIRE(codec::decode_operation(whole));

  BENCHMARK("encode a SET") { return codec::encode(operation); };
  BENCHMARK("decode a SET") { return codec::decode_operation(whole); };
}

TEST_CASE("records of the state", "[codec]") {
  const std::string data = micro::value();
  StoredValue value;
  value.data = data;
  value.created_at_ms = micro::kTimeMs;
  value.mod_index = Index{1'000'000};
  std::string bytes;
  codec::encode(value, bytes);
  const std::string whole = bytes;
  REQUIRE(codec::decode_stored_value(whole));

  BENCHMARK("encode a stored value") {
    codec::encode(value, bytes);
    return bytes.size();
  };
  BENCHMARK("decode a stored value") { return codec::decode_stored_value(whole); };
}

TEST_CASE("frames between peers", "[codec]") {
  measure("AppendEntries of 1 entry", append_entries(1));
  measure("AppendEntries of 64 entries", append_entries(64));
  measure("a reply to AppendEntries", append_entries_reply());
}
