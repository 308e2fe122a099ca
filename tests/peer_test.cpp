// The peer channel over real sockets on this machine: nodes in one process, a proxy that can freeze
// a connection, and callers that break the rules. No test sleeps; each waits for what it expects.
#include "seshat/peer.hpp"

#include <absl/synchronization/mutex.h>
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <functional>
#include <future>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "catch.hpp"
#include "peer_nodes.hpp"
#include "seshat/peer_link.hpp"

// gRPC is not instrumented, so ThreadSanitizer misses its locks; what its header templates and the
// release of its buffers do is not ours to judge. Races of ours are reported: only the top frame of
// an access is looked at.
extern "C" const char* __tsan_default_suppressions();   // NOLINT(bugprone-reserved-identifier)
extern "C" const char* __tsan_default_suppressions() {  // NOLINT(bugprone-reserved-identifier)
  return "race_top:grpc::internal::\n"
         "race_top:grpc::CallbackGenericService::\n"
         "race_top:seshat::peer_detail::TurnedAway::\n"
         "race_top:seshat::peer_detail::to_buffer\n";
}

namespace {

using namespace std::chrono_literals;
using namespace seshat::peer_tests;
using seshat::Forwarded;
using seshat::ForwardedReply;
using seshat::ForwardedRequest;
using seshat::Frame;
using seshat::GroupId;
using seshat::Hello;
using seshat::HelloReply;
using seshat::Index;
using seshat::Logger;
using seshat::NodeId;
using seshat::NodeStatus;
using seshat::PeerLink;
using seshat::PeerMessage;
using seshat::PeerOptions;
using seshat::PeerQueueLimits;
using seshat::Peers;
using seshat::PeerStats;
using seshat::Term;
namespace raft = seshat::raft;

raft::Message heartbeat(std::uint64_t from, std::uint64_t to, std::uint64_t round) {
  raft::AppendEntries body;
  body.round = round;
  return {{from}, {to}, {1}, body};
}

raft::Message append(std::uint64_t from, std::uint64_t to, std::uint64_t index, std::string value) {
  raft::AppendEntries body;
  body.prev_log_index = {index - 1};
  body.round = index;
  body.entries.push_back({Term{1}, Index{index}, raft::EntryType::kNormal,
                          std::make_shared<const std::string>(std::move(value))});
  return {{from}, {to}, {1}, body};
}

std::uint64_t round_of(const PeerMessage& message) {
  return std::get<raft::AppendEntries>(message.message.body).round;
}

// A node that is dialed by nobody but the test.
std::unique_ptr<Node> lonely_node() {
  return std::make_unique<Node>(1, options_of(1, free_port(), {}));
}

}  // namespace

// ---- The account of one peer --------------------------------------------------------------------

TEST_CASE("a peer's queue takes nothing before it is up and keeps nothing afterwards") {
  PeerLink link({}, 1);
  CHECK(link.push({GroupId{0}, heartbeat(1, 2, 1)}) == PeerLink::Pushed::kLost);
  link.up(0);
  CHECK(link.push({GroupId{0}, heartbeat(1, 2, 2)}) == PeerLink::Pushed::kQueued);
  link.down(0);
  link.up(0);
  std::size_t size_bytes = 0;
  CHECK_FALSE(link.take(size_bytes).has_value());
  CHECK(link.stats().dropped_messages == 2);
}

TEST_CASE("a peer's queue is bounded in messages and in bytes, and counts what is lost") {
  PeerLink link({.max_messages = 3, .max_size_bytes = 10'000, .max_message_size_bytes = 5'000}, 1);
  link.up(0);
  CHECK(link.push({GroupId{0}, append(1, 2, 1, std::string(4'000, 'x'))}) ==
        PeerLink::Pushed::kQueued);
  CHECK(link.push({GroupId{0}, append(1, 2, 2, std::string(6'000, 'x'))}) ==
        PeerLink::Pushed::kTooLarge);
  CHECK(link.push({GroupId{0}, append(1, 2, 3, std::string(4'000, 'x'))}) ==
        PeerLink::Pushed::kQueued);
  CHECK(link.push({GroupId{0}, append(1, 2, 4, std::string(4'000, 'x'))}) ==
        PeerLink::Pushed::kLost);
  CHECK(link.push({GroupId{0}, heartbeat(1, 2, 5)}) == PeerLink::Pushed::kQueued);
  CHECK(link.push({GroupId{0}, heartbeat(1, 2, 6)}) == PeerLink::Pushed::kLost);
  CHECK(link.stats().queued_messages == 3);
  CHECK(link.stats().dropped_messages == 3);
}

TEST_CASE("what is forwarded has a queue and bounds of its own, and up to a quarter of a frame") {
  PeerLink link({.max_messages = 1,
                 .max_message_size_bytes = 10'000,
                 .frame_size_bytes = 8'000,
                 .max_forwarded = 6,
                 .max_forwarded_size_bytes = 12'000},
                1);
  const auto request = [](std::size_t size) {
    return Forwarded(ForwardedRequest{1, GroupId{1}, std::string(size, 'x'), 0, {}});
  };
  CHECK(link.push(request(1)) == PeerLink::Pushed::kLost);  // not up
  link.up(0);
  CHECK(link.push({GroupId{0}, heartbeat(1, 2, 1)}) == PeerLink::Pushed::kQueued);
  CHECK(link.push(request(10'000)) == PeerLink::Pushed::kTooLarge);
  CHECK(link.push(request(1'000)) == PeerLink::Pushed::kQueued);
  CHECK(link.push(ForwardedReply{2, 0, {}, 0, 0, 0, "reply"}) == PeerLink::Pushed::kQueued);
  CHECK(link.push(request(9'000)) == PeerLink::Pushed::kQueued);
  CHECK(link.push(request(2'000)) == PeerLink::Pushed::kLost);  // too much
  for (int i = 0; i < 3; ++i) CHECK(link.push(request(1)) == PeerLink::Pushed::kQueued);
  CHECK(link.push(request(1)) == PeerLink::Pushed::kLost);  // too many
  std::vector<std::vector<std::size_t>> counts;
  std::size_t size_bytes = 0;
  while (const auto frame = link.take(size_bytes)) {
    CHECK(size_bytes >= seshat::peer_detail::encoded(*frame).size());
    counts.push_back(
        {frame->messages.size(), frame->forwarded.size(), frame->forwarded_replies.size()});
  }
  CHECK(counts == std::vector<std::vector<std::size_t>>{{1, 1, 1}, {0, 1, 0}, {0, 3, 0}});
  CHECK(link.push(request(1)) == PeerLink::Pushed::kQueued);
  link.down(0);
  link.up(0);
  CHECK_FALSE(link.take(size_bytes));  // gone with the stream
}

TEST_CASE("a frame ends at its size, and a larger message travels alone") {
  PeerLink link({.frame_size_bytes = 3'000}, 1);
  link.up(0);
  for (const std::size_t size : {1'000U, 1'000U, 9'000U, 1'000U}) {
    link.push({GroupId{0}, append(1, 2, 1, std::string(size, 'x'))});
  }
  std::vector<std::size_t> counts;
  std::size_t size_bytes = 0;
  while (const auto frame = link.take(size_bytes)) {
    CHECK(size_bytes >= seshat::peer_detail::encoded(*frame).size());
    counts.push_back(frame->messages.size());
  }
  CHECK(counts == std::vector<std::size_t>{2, 1, 1});
  CHECK(link.stats().queued_size_bytes == 0);
}

TEST_CASE("attempts to dial are 100 ms to 1 s apart, and at once after one that took long") {
  PeerLink link({}, 7);
  CHECK(link.dial_due(0));
  std::uint64_t now_ms = 0;
  std::uint64_t last_delay_ms = 0;
  for (int attempt = 0; attempt < 10; ++attempt) {
    link.dialed(now_ms);
    std::ignore = link.failed(now_ms, 3000);
    const std::uint64_t start_ms = now_ms;
    while (!link.dial_due(now_ms)) ++now_ms;
    last_delay_ms = now_ms - start_ms;
    CHECK(last_delay_ms >= 80);
    CHECK(last_delay_ms <= 1000);
  }
  CHECK(last_delay_ms >= 800);
  link.dialed(now_ms);
  std::ignore = link.failed(now_ms + 1000, 3000);
  CHECK(link.dial_due(now_ms + 1000));
}

TEST_CASE("a peer that comes and goes is dialed less and less often") {
  PeerLink link({}, 1);
  std::uint64_t now_ms = 0;
  for (int i = 0; i < 8; ++i) {
    link.up(now_ms);
    link.down(now_ms + 10);
  }
  CHECK_FALSE(link.dial_due(now_ms + 800));
  link.up(now_ms);
  now_ms += 2000;
  link.down(now_ms);
  CHECK(link.dial_due(now_ms + 100));
}

TEST_CASE("an outage is logged once, when it has lasted; a refusal when its reason is new") {
  PeerLink link({}, 1);
  CHECK_FALSE(link.failed(100, 3000));
  CHECK(link.failed(3000, 3000));
  CHECK_FALSE(link.failed(4000, 3000));
  link.up(5000);
  link.down(10'000);
  CHECK_FALSE(link.failed(10'100, 3000));
  CHECK(link.failed(13'000, 3000));
  CHECK(link.refused(13'000, "wiped"));
  CHECK_FALSE(link.refused(14'000, "wiped"));
  CHECK_FALSE(link.dial_due(14'999));
  CHECK(link.dial_due(15'000));
  CHECK(link.refused(15'000, "another cluster"));
}

// ---- The handshake ------------------------------------------------------------------------------

TEST_CASE("two nodes introduce themselves and are up") {
  Pair pair;
  CHECK(pair.a->events.heard().ups.front() == hello_of(2));
  CHECK(pair.b->events.heard().hellos.front() == hello_of(1));
  CHECK(pair.a->stats(2).up);
  CHECK(pair.a->lines.count("peer is up") == 1);
}

TEST_CASE("a refusal reaches the dialer with its reason, once in the log, and may be taken back") {
  const int port = free_port();
  Node b(2, options_of(2, port, {}));
  b.events.refuse_with("node 1 was wiped: start it with --join");
  Node a(1, options_of(1, free_port(), {{{2}, at(port)}}));
  REQUIRE(a.events.wait([](const Heard& heard) { return heard.refusals.size() >= 2; }));
  CHECK(a.events.heard().refusals.front() == "node 1 was wiped: start it with --join");
  CHECK(a.lines.count("peer refuses us") == 1);
  CHECK(a.events.heard().ups.empty());
  CHECK_FALSE(a.stats(2).up);
  b.events.refuse_with("");
  CHECK(a.events.wait_up(2));
}

TEST_CASE("nothing is dialed before the node has something to say about itself") {
  Sink sink;
  Recorder events(1);
  const Lines lines;
  auto peers =
      Peers::start(options_of(1, free_port(), {{{2}, at(sink.port())}}), events, lines.log);
  REQUIRE(peers);
  pollfd arrival{sink.fd(), POLLIN, 0};
  CHECK(::poll(&arrival, 1, 300) == 0);
  (*peers)->set_hello(hello_of(1));
  CHECK(::poll(&arrival, 1, 5000) == 1);
}

TEST_CASE("another node at a peer's address counts as a refusal") {
  const int port = free_port();
  const Node b(3, options_of(3, port, {}));
  Node a(1, options_of(1, free_port(), {{{2}, at(port)}}));
  REQUIRE(a.events.wait([](const Heard& heard) { return !heard.refusals.empty(); }));
  CHECK(a.events.heard().refusals.front() == "node 3 answers at this address");
}

TEST_CASE("nothing is sent before the handshake is accepted, nor kept until then") {
  const int port = free_port();
  Node b(2, options_of(2, port, {}));
  b.events.hold_answers();
  Node a(1, options_of(1, free_port(), {{{2}, at(port)}}));
  REQUIRE(b.events.wait([](const Heard& heard) { return heard.held.size() == 1; }));
  for (std::uint64_t i = 1; i <= 10; ++i) a.peers->send({0}, heartbeat(1, 2, i));
  a.peers->flush();
  b.events.heard().held.front()({true, "", hello_of(2)});
  REQUIRE(a.events.wait_up(2));
  a.peers->send({0}, heartbeat(1, 2, 11));
  a.peers->flush();
  REQUIRE(b.events.wait_messages(1));
  CHECK(round_of(b.events.heard().messages.front()) == 11);
  CHECK(a.stats(2).dropped_messages == 10);
}

TEST_CASE("a handshake that is not answered in time is tried again") {
  const int port = free_port();
  Node b(2, options_of(2, port, {}));
  b.events.hold_answers();
  Node a(1, options_of(1, free_port(), {{{2}, at(port)}}));
  CHECK(b.events.wait([](const Heard& heard) { return heard.held.size() >= 2; }));
  CHECK(a.events.heard().ups.empty());
}

TEST_CASE("an answer that comes after the end of the channel is harmless") {
  const int port = free_port();
  auto b = std::make_unique<Node>(2, options_of(2, port, {}));
  b->events.hold_answers();
  const Node a(1, options_of(1, free_port(), {{{2}, at(port)}}));
  REQUIRE(b->events.wait([](const Heard& heard) { return !heard.held.empty(); }));
  b->peers.reset();
  b->events.heard().held.front()({true, "", hello_of(2)});
}

// ---- Messages -----------------------------------------------------------------------------------

TEST_CASE("20 MB of large entries of two groups arrive complete and in order") {
  Pair pair;
  constexpr std::uint64_t kCount = 320;
  for (std::uint64_t i = 1; i <= kCount; ++i) {
    pair.a->peers->send({i % 2}, append(1, 2, i, std::string(65'536, static_cast<char>(i % 251))));
    if (i % 10 == 0) pair.a->peers->flush();
  }
  REQUIRE(pair.b->events.wait_messages(kCount, 30s));
  const Heard heard = pair.b->events.heard();
  for (std::uint64_t i = 1; i <= kCount; ++i) {
    const PeerMessage& message = heard.messages[i - 1];
    REQUIRE(message.group == GroupId{i % 2});
    REQUIRE(round_of(message) == i);
    const auto& entries = std::get<raft::AppendEntries>(message.message.body).entries;
    REQUIRE(*entries.at(0).data == std::string(65'536, static_cast<char>(i % 251)));
  }
  CHECK(pair.a->stats(2).sent_messages == kCount);
  CHECK(pair.a->stats(2).dropped_messages == 0);
}

TEST_CASE("small messages that are flushed one by one, and fail to leave, do no harm") {
  Pair pair;
  constexpr std::uint64_t kMessages = 3'000;
  for (std::uint64_t round = 1; round <= kMessages; ++round) {
    pair.a->peers->send(GroupId{0}, heartbeat(1, 2, round));
    pair.a->peers->flush();
  }
  REQUIRE(pair.b->events.wait_messages(kMessages));
  const std::vector<PeerMessage> messages = pair.b->events.heard().messages;
  for (std::uint64_t round = 1; round <= kMessages; ++round) {
    REQUIRE(round_of(messages[round - 1]) == round);
  }
  CHECK(pair.a->stats(2).dropped_messages == 0);

  std::thread end([&] { pair.b.reset(); });
  bool down = false;
  for (const auto until = Clock::now() + 10s; !down && Clock::now() < until;) {
    pair.a->peers->send(GroupId{0}, heartbeat(1, 2, 1));
    pair.a->peers->flush();
    down = pair.a->events.wait([](const Heard& heard) { return !heard.downs.empty(); }, 0ms);
  }
  end.join();
  CHECK(down);
}

TEST_CASE("one entry of 8 MB arrives") {
  Pair pair;
  pair.a->peers->send({1}, append(1, 2, 1, std::string(8u << 20, 'v')));
  pair.a->peers->flush();
  REQUIRE(pair.b->events.wait_messages(1));
}

TEST_CASE("what gathers between two flushes, or during a write, is one frame") {
  Pair pair;
  for (std::uint64_t i = 1; i <= 1000; ++i) pair.a->peers->send({0}, heartbeat(1, 2, i));
  pair.a->peers->flush();
  REQUIRE(pair.b->events.wait_messages(1000));
  CHECK(pair.b->events.heard().frames < 5);
}

TEST_CASE("messages at the queue's bound are lost and counted") {
  Pair pair({.max_messages = 10});
  for (std::uint64_t i = 1; i <= 25; ++i) pair.a->peers->send({0}, heartbeat(1, 2, i));
  CHECK(pair.a->stats(2).queued_messages == 10);
  CHECK(pair.a->stats(2).dropped_messages == 15);
  pair.a->peers->flush();
  CHECK(pair.b->events.wait_messages(10));
}

TEST_CASE("a message larger than may be sent is dropped with a log line, and the stream goes on") {
  Pair pair({.max_message_size_bytes = 1u << 20});
  pair.a->peers->send({0}, append(1, 2, 1, std::string(2u << 20, 'v')));
  pair.a->peers->send({0}, heartbeat(1, 2, 2));
  pair.a->peers->flush();
  REQUIRE(pair.b->events.wait_messages(1));
  CHECK(round_of(pair.b->events.heard().messages.front()) == 2);
  CHECK(pair.a->lines.count("larger than may be sent") == 1);
}

TEST_CASE("messages in another node's name, or for another node, are dropped") {
  Pair pair;
  pair.a->peers->send({0}, heartbeat(3, 2, 1));
  pair.a->peers->send({0}, heartbeat(1, 2, 2));
  pair.a->peers->flush();
  REQUIRE(pair.b->events.wait_messages(1));
  CHECK(round_of(pair.b->events.heard().messages.front()) == 2);
  CHECK(pair.b->lines.count("not this peer's to us") == 1);
}

TEST_CASE("a status reaches the peers that are up, and those that come up later") {
  const auto low = [](const Heard& heard) {
    const auto status = heard.statuses.find({1});
    return status != heard.statuses.end() && status->second.disk_low;
  };
  Pair pair;
  pair.a->peers->send_status({true});
  pair.a->peers->flush();
  REQUIRE(pair.b->events.wait(low));
  const int port = pair.b->peers->port();
  pair.b.reset();
  Node again(2, options_of(2, port, {}));
  CHECK(again.events.wait(low));
}

// ---- Ends ---------------------------------------------------------------------------------------

TEST_CASE("an idle stream stays up") {
  Pair pair;
  CHECK_FALSE(pair.a->events.wait([](const Heard& heard) { return !heard.downs.empty(); }, 2s));
  CHECK_FALSE(pair.b->events.wait([](const Heard& heard) { return !heard.downs.empty(); }, 0s));
}

TEST_CASE(
    "frames are taken, and streams stay up, while what follows on one of them waits for the disk") {
  Pair pair;
  std::promise<void> disk;
  const std::shared_future<void> done = disk.get_future().share();
  const auto waiting = std::make_shared<std::atomic<int>>(0);
  pair.a->events.when_reacted([waiting, done](bool has_time) {
    if (!has_time) return;
    ++*waiting;
    done.wait();
  });
  const auto send = [&](std::uint64_t round) {
    pair.b->peers->send(GroupId{0}, heartbeat(2, 1, round));
    pair.b->peers->flush();
  };
  send(1);
  REQUIRE(pair.a->events.wait_messages(1));
  for (std::uint64_t round = 2; round <= 20; ++round) {
    send(round);
    CHECK(pair.a->events.wait_messages(round));
  }
  CHECK_FALSE(pair.a->events.wait([](const Heard& heard) { return !heard.downs.empty(); }, 1500ms));
  CHECK(pair.b->events.heard().downs.empty());
  CHECK(*waiting == 1);
  disk.set_value();
  send(21);
  REQUIRE(pair.a->events.wait_messages(21));
  for (std::uint64_t round = 1; round <= 21; ++round) {
    CHECK(round_of(pair.a->events.heard().messages[round - 1]) == round);
  }
}

TEST_CASE("a restarted peer is up again within 2 s") {
  const int port_a = free_port();
  const int port_b = free_port();
  Node a(1, options_of(1, port_a, {{{2}, at(port_b)}}));
  const auto start_b = [&] {
    return std::make_unique<Node>(2, options_of(2, port_b, {{{1}, at(port_a)}}));
  };
  auto b = start_b();
  REQUIRE(a.events.wait_up(2));
  b.reset();
  REQUIRE(a.events.wait([](const Heard& heard) { return heard.up.empty(); }));
  CHECK_FALSE(a.events.wait([](const Heard& heard) { return !heard.up.empty(); }, 1500ms));
  const auto start = Clock::now();
  b = start_b();
  REQUIRE(a.events.wait_up(2));
  REQUIRE(b->events.wait_up(1));
  CHECK(since(start) < 2s);
}

TEST_CASE(
    "a peer that vanishes without a word is down within the liveness timeout, and comes back") {
  const int port_a = free_port();
  const int port_b = free_port();
  Proxy to_b(port_b);
  Node a(1, options_of(1, port_a, {{{2}, at(to_b.port())}}));
  Node b(2, options_of(2, port_b, {}));
  REQUIRE(a.events.wait_up(2));
  const auto start = Clock::now();
  to_b.freeze(true);
  REQUIRE(a.events.wait([](const Heard& heard) { return !heard.downs.empty(); }));
  REQUIRE(b.events.wait([](const Heard& heard) { return !heard.downs.empty(); }));
  CHECK(since(start) < 1200ms);  // the timeout is 600 ms
  CHECK_THAT(a.events.heard().downs.front(), ContainsSubstring("liveness timeout"));
  to_b.freeze(false);
  const auto healed = Clock::now();
  REQUIRE(a.events.wait_up(2));
  CHECK(since(healed) < 2s);
}

TEST_CASE("a peer that takes nothing any more is down in time, though gRPC holds on to the write") {
  const int port = free_port();
  Proxy proxy(port);
  Node a(1, options_of(1, free_port(), {{{2}, at(proxy.port())}}));
  const Node b(2, options_of(2, port, {}));
  REQUIRE(a.events.wait_up(2));
  const auto start = Clock::now();
  proxy.freeze(true);
  for (std::uint64_t i = 1; i <= 500; ++i) {
    a.peers->send({0}, append(1, 2, i, std::string(65'536, 'v')));
    a.peers->flush();
  }
  REQUIRE(a.events.wait([](const Heard& heard) { return !heard.downs.empty(); }));
  CHECK(since(start) < 1200ms);  // the timeout is 600 ms
  proxy.freeze(false);
  const auto healed = Clock::now();
  REQUIRE(a.events.wait_up(2));
  CHECK(since(healed) < 2s);
}

TEST_CASE("send never waits, not even for a peer that takes nothing any more") {
  const int port = free_port();
  Proxy proxy(port);
  PeerOptions options = options_of(1, free_port(), {{{2}, at(proxy.port())}});
  options.liveness_timeout_ms = 30'000;
  Node a(1, options);
  Node b(2, options_of(2, port, {}));
  REQUIRE(a.events.wait_up(2));
  proxy.freeze(true);
  const auto start = Clock::now();
  const auto value = std::make_shared<const std::string>(65'536, 'v');
  raft::AppendEntries body;
  body.entries.push_back({Term{1}, Index{1}, raft::EntryType::kNormal, value});
  for (std::uint64_t i = 1; i <= 5000; ++i) {
    a.peers->send({0}, {{1}, {2}, {1}, body});
    a.peers->flush();
  }
  CHECK(since(start) < 2s);
  CHECK(a.stats(2).dropped_messages > 3000);
  CHECK(a.stats(2).queued_size_bytes <= 64u << 20);
  const auto stop = Clock::now();
  a.peers.reset();
  CHECK(since(stop) < 2s);
}

TEST_CASE("a listener that accepts and says nothing is never up, and doesn't hold up the end") {
  const Sink sink;
  auto a = std::make_unique<Node>(1, options_of(1, free_port(), {{{2}, at(sink.port())}}));
  REQUIRE_FALSE(a->events.wait([](const Heard& heard) { return !heard.ups.empty(); }, 2500ms));
  CHECK(a->lines.count("can't reach peer") == 1);
  const auto start = Clock::now();
  a->peers.reset();
  CHECK(since(start) < 2s);
}

TEST_CASE("a peer that isn't there is dialed on, with one log line") {
  Node a(1, options_of(1, free_port(), {{{2}, at(free_port())}}));
  REQUIRE_FALSE(a.events.wait([](const Heard& heard) { return !heard.ups.empty(); }, 2500ms));
  CHECK(a.lines.count("can't reach peer") == 1);
  CHECK_THAT(a.lines.text(), ContainsSubstring("Connection refused"));
}

TEST_CASE("the end comes within 2 s with streams up, and no event follows it") {
  Pair pair;
  const auto start = Clock::now();
  pair.a->peers.reset();
  CHECK(since(start) < 2s);
  CHECK(pair.a->events.heard().downs.empty());
  CHECK(pair.b->events.wait([](const Heard& heard) { return heard.downs.size() == 2; }));
}

TEST_CASE("disconnect ends both streams with its reason; the peer is dialed again") {
  Pair pair;
  pair.a->peers->disconnect({2}, "its incarnation is not the one we know");
  REQUIRE(pair.a->events.wait([](const Heard& heard) { return heard.downs.size() == 2; }));
  CHECK(pair.a->events.heard().downs.front() == "its incarnation is not the one we know");
  CHECK(pair.a->events.wait([](const Heard& heard) { return heard.ups.size() == 2; }));
}

TEST_CASE("a port that is taken is a clear error") {
  const Sink sink;
  Recorder events(1);
  const Lines lines;
  const auto peers = Peers::start(options_of(1, sink.port(), {}), events, lines.log);
  REQUIRE_FALSE(peers);
  CHECK(peers.error().text ==
        "can't listen on " + at(sink.port()) + " for peers: Address already in use");
}

TEST_CASE("two nodes can't share a port") {
  const int port = free_port();
  const Node first(1, options_of(1, port, {}));
  Recorder events(2);
  const Lines lines;
  CHECK_FALSE(Peers::start(options_of(2, port, {}), events, lines.log));
}

TEST_CASE("an address that isn't this machine's, or isn't one, is a clear error") {
  Recorder events(1);
  const Lines lines;
  PeerOptions options = options_of(1, 0, {});
  options.listen_addr = "192.0.2.1:7379";
  CHECK_THAT(Peers::start(options, events, lines.log).error().text,
             EndsWith("Cannot assign requested address"));
  options.listen_addr = "nonsense";
  CHECK_FALSE(Peers::start(options, events, lines.log));
}

// ---- Hostile callers ----------------------------------------------------------------------------

TEST_CASE("a newer stream of a peer takes the place of the older one, which is no loss") {
  const auto node = lonely_node();
  auto older = std::make_unique<RawStream>(node->peers->port());
  older->greet(2);
  REQUIRE(older->wait_received(1));
  RawStream newer(node->peers->port());
  newer.greet(2);
  REQUIRE(newer.wait_received(1));
  REQUIRE(older->wait_ended());
  CHECK(RawStream::status_of(std::move(older)) == "a newer stream took its place");
  Frame frame;
  frame.messages.push_back({GroupId{0}, heartbeat(2, 1, 1)});
  newer.send(frame);
  CHECK(node->events.wait_messages(1));
  CHECK(node->events.heard().downs.empty());
}

TEST_CASE("a stream that breaks the rules is ended with a status and a log line") {
  const auto node = lonely_node();
  auto stream = std::make_unique<RawStream>(node->peers->port());
  Frame frame;
  std::string expected;
  SECTION("a frame before Hello") {
    frame.messages.push_back({GroupId{0}, heartbeat(2, 1, 1)});
    stream->send(frame);
    expected = "a frame before Hello";
  }
  SECTION("a large frame before Hello") {
    stream->send(std::string(100'000, '\0'));
    expected = "a frame before Hello";
  }
  SECTION("bytes that are no frame") {
    stream->send(std::string("\xff\xff\xff\xff"));
    expected = "Frame is damaged";
  }
  SECTION("a second handshake") {
    stream->greet(2);
    REQUIRE(stream->wait_received(1));
    stream->greet(2);
    expected = "a second handshake";
  }
  SECTION("bytes that are no frame, after the handshake") {
    stream->greet(2);
    REQUIRE(stream->wait_received(1));
    stream->send(std::string("\x1a\x7f nonsense"));
    expected = "Frame is damaged";
  }
  SECTION("a frame before the handshake was answered") {
    node->events.hold_answers();
    stream->greet(2);
    REQUIRE(node->events.wait([](const Heard& heard) { return !heard.held.empty(); }));
    frame.messages.push_back({GroupId{0}, heartbeat(2, 1, 1)});
    stream->send(frame);
    expected = "a frame before it was accepted";
  }
  REQUIRE(stream->wait_ended());
  CHECK_THAT(RawStream::status_of(std::move(stream)), StartsWith(expected));
  CHECK(node->lines.count("ended a stream from a peer: " + expected) == 1);
  CHECK(node->events.heard().messages.empty());
}

TEST_CASE("a frame over the limit ends its stream and leaves the node as it is") {
  const auto node = lonely_node();
  RawStream stream(node->peers->port());
  stream.greet(2);
  REQUIRE(stream.wait_received(1));
  stream.send(std::string(40u << 20, '\0'));
  CHECK(stream.wait_ended());
  RawStream another(node->peers->port());
  another.greet(2);
  CHECK(another.wait_received(1));
}

TEST_CASE("another method is not implemented") {
  const auto node = lonely_node();
  auto stream = std::make_unique<RawStream>(node->peers->port(), "/seshat.Peer/Other");
  CHECK(stream->wait_ended());
  CHECK(node->events.heard().hellos.empty());
}

TEST_CASE("streams that never introduce themselves are bounded, and ended in time") {
  const auto node = lonely_node();
  std::vector<std::unique_ptr<RawStream>> streams;
  for (std::size_t i = 0; i < 20; ++i) {
    streams.push_back(std::make_unique<RawStream>(node->peers->port()));
  }
  std::map<std::string, int> ends;
  for (auto& stream : streams) {
    REQUIRE(stream->wait_ended());
    ++ends[RawStream::status_of(std::move(stream))];
  }
  CHECK(ends["too many streams wait for a handshake"] == 4);
  RawStream another(node->peers->port());
  another.greet(2);
  CHECK(another.wait_received(1));
}

TEST_CASE("bytes that are not even HTTP/2 do no harm") {
  const auto node = lonely_node();
  for (const std::string& bytes :
       {std::string("PING\r\n"), std::string(100'000, '\xff'),
        std::string("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n") + std::string(5000, '\x01')}) {
    const Socket socket = connect_to(node->peers->port());
    std::ignore = ::send(socket.fd(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
  }
  RawStream stream(node->peers->port());
  stream.greet(2);
  CHECK(stream.wait_received(1));
}

// Abseil would end the process at the second pair, if it looked.
TEST_CASE("gRPC's locks are not entered into a graph of all locks") {
  const auto node = lonely_node();
  absl::Mutex one;
  absl::Mutex two;
  one.Lock();
  two.Lock();
  two.Unlock();
  one.Unlock();
  two.Lock();
  one.Lock();
  CHECK_FALSE(two.TryLock());  // nor is anything else left out
  one.Unlock();
  two.Unlock();
}

// ---- Speed: run by name, with "[measure]" -------------------------------------------------------

TEST_CASE("small messages a second over one stream", "[.][measure]") {
  Pair pair;
  for (const std::uint64_t batch : {1U, 8U, 64U}) {
    constexpr std::uint64_t kCount = 200'000;
    const std::size_t before = pair.b->events.heard().messages.size();
    const auto frames = pair.a->stats(2).sent_frames;
    const auto start = Clock::now();
    std::uint64_t sent = 0;
    while (sent < kCount) {
      if (pair.a->stats(2).queued_messages > 2000) {
        std::this_thread::yield();
        continue;
      }
      for (std::uint64_t i = 0; i < batch; ++i, ++sent) {
        pair.a->peers->send({0}, append(1, 2, sent + 1, std::string(100, 'v')));
      }
      pair.a->peers->flush();
    }
    REQUIRE(pair.b->events.wait_messages(before + sent, 60s));
    const auto took_ms = std::max<std::int64_t>(since(start).count(), 1);
    std::printf(
        "flush after %3llu: %8lld messages/s, %6.1f messages a frame\n",
        static_cast<unsigned long long>(batch),
        static_cast<long long>(sent) * 1000 / static_cast<long long>(took_ms),
        static_cast<double>(sent) / static_cast<double>(pair.a->stats(2).sent_frames - frames));
  }
}

TEST_CASE("round trips of one message, and megabytes a second", "[.][measure]") {
  Pair pair;
  constexpr std::size_t kTrips = 5000;
  auto start = Clock::now();
  for (std::size_t i = 1; i <= kTrips; ++i) {
    pair.a->peers->send({0}, heartbeat(1, 2, i));
    pair.a->peers->flush();
    REQUIRE(pair.b->events.wait_messages(i));
    pair.b->peers->send({0}, heartbeat(2, 1, i));
    pair.b->peers->flush();
    REQUIRE(pair.a->events.wait_messages(i));
  }
  std::printf("round trip: %.0f us\n",
              static_cast<double>(since(start).count()) * 1000 / static_cast<double>(kTrips));
  start = Clock::now();
  const auto value = std::make_shared<const std::string>(65'536, 'v');
  std::size_t sent = 0;
  while (sent < 4000) {
    if (pair.a->stats(2).queued_messages > 200) {
      std::this_thread::yield();
      continue;
    }
    raft::AppendEntries body;
    body.entries.push_back({Term{1}, Index{1}, raft::EntryType::kNormal, value});
    pair.a->peers->send({0}, {{1}, {2}, {1}, body});
    pair.a->peers->flush();
    ++sent;
  }
  REQUIRE(pair.b->events.wait_messages(kTrips + sent, 60s));
  std::printf("64 KB values: %lld MB/s\n", static_cast<long long>(sent) * 1000 / 16 /
                                               static_cast<long long>(since(start).count()));
}
