// A set of peers that changes while the channel runs: peers added, dropped and moved.
#include <algorithm>
#include <atomic>
#include <memory>
#include <string>
#include <thread>

#include "catch.hpp"
#include "peer_nodes.hpp"
#include "seshat/peer.hpp"

namespace {

using namespace std::chrono_literals;
using namespace seshat::peer_tests;
using seshat::GroupId;
using seshat::NodeId;
namespace raft = seshat::raft;

raft::Message vote_request(std::uint64_t from, std::uint64_t to) {
  return {{from}, {to}, {1}, raft::RequestVote{}};
}

// Nodes 1 and 2, started with nobody to dial.
struct Strangers {
  Strangers()
      : a(std::make_unique<Node>(1, options_of(1, free_port(), {}))),
        b(std::make_unique<Node>(2, options_of(2, free_port(), {}))) {}

  void meet() {
    a->peers->set_peers({{{2}, at(b->peers->port())}});
    b->peers->set_peers({{{1}, at(a->peers->port())}});
    REQUIRE(a->events.wait_up(2));
    REQUIRE(b->events.wait_up(1));
  }

  std::unique_ptr<Node> a;
  std::unique_ptr<Node> b;
};

bool is_down(const Heard& heard) { return !heard.downs.empty(); }

}  // namespace

TEST_CASE("a node that started alone dials the peers it is given, and tells them its status") {
  Strangers nodes;
  CHECK(nodes.a->peers->stats().empty());
  nodes.a->peers->send_status({.version = "0.2.0"});
  nodes.meet();
  CHECK(nodes.b->events.wait([](const Heard& heard) { return heard.statuses.count({1}) == 1; }));
  nodes.a->peers->send(GroupId{1}, vote_request(1, 2));
  nodes.a->peers->flush();
  CHECK(nodes.b->events.wait_messages(1));
}

TEST_CASE("a node is no peer of itself") {
  Strangers nodes;
  nodes.a->peers->set_peers({{{1}, at(nodes.a->peers->port())}, {{2}, at(nodes.b->peers->port())}});
  REQUIRE(nodes.a->events.wait_up(2));
  CHECK(nodes.a->peers->stats().size() == 1);
}

TEST_CASE("a peer that is dropped loses its streams in both directions and is not dialed again") {
  Strangers nodes;
  nodes.meet();
  nodes.a->events.refuse_with("you are no member");
  nodes.a->peers->set_peers({});
  nodes.a->peers->send(GroupId{1}, vote_request(1, 2));
  nodes.a->peers->flush();
  REQUIRE(nodes.a->events.wait([](const Heard& heard) { return heard.downs.size() == 2; }));
  REQUIRE(nodes.b->events.wait([](const Heard& heard) { return heard.downs.size() == 2; }));
  CHECK(nodes.a->peers->stats().empty());
  // It asks again by itself, as this node is still one of its peers; this node doesn't ask.
  REQUIRE(nodes.b->events.wait([](const Heard& heard) { return heard.refusals.size() >= 2; }));
  CHECK(nodes.b->events.heard().hellos.size() == 1);
  CHECK(nodes.b->events.heard().messages.empty());
}

TEST_CASE("a peer that is dropped and added again comes up after its end was told") {
  Strangers nodes;
  nodes.meet();
  nodes.a->peers->set_peers({});
  nodes.a->peers->set_peers({{{2}, at(nodes.b->peers->port())}});
  REQUIRE(nodes.a->events.wait([](const Heard& heard) { return heard.ups.size() == 2; }));
  CHECK_FALSE(nodes.a->events.heard().downs.empty());
}

TEST_CASE("a peer with another address is dialed there, after the end of the old stream was told") {
  Strangers nodes;
  nodes.meet();
  Node moved(2, options_of(2, free_port(), {}));
  nodes.a->peers->set_peers({{{2}, at(moved.peers->port())}});
  REQUIRE(moved.events.wait([](const Heard& heard) { return heard.hellos.size() == 1; }));
  REQUIRE(nodes.a->events.wait([](const Heard& heard) { return heard.ups.size() == 2; }));
  CHECK(nodes.a->events.heard().up.count({2}) == 1);
  CHECK(nodes.a->events.wait([](const Heard& heard) {
    return std::count(heard.downs.begin(), heard.downs.end(), "it has another address now") == 1;
  }));
  nodes.a->peers->send(GroupId{1}, vote_request(1, 2));
  nodes.a->peers->flush();
  CHECK(moved.events.wait_messages(1));
  CHECK(nodes.b->events.heard().messages.empty());
}

TEST_CASE("a peer that takes nothing any more can be moved all the same") {
  Node there(2, options_of(2, free_port(), {}));
  Proxy proxy(there.peers->port());
  Node a(1, options_of(1, free_port(), {{{2}, at(proxy.port())}}));
  REQUIRE(a.events.wait_up(2));
  proxy.freeze(true);
  for (int i = 0; i < 300; ++i) {
    raft::AppendEntries body;
    body.entries.push_back({{1},
                            {1},
                            raft::EntryType::kNormal,
                            std::make_shared<const std::string>(std::string(100'000, 'x'))});
    a.peers->send(GroupId{1}, {{1}, {2}, {1}, body});
  }
  a.peers->flush();
  a.peers->set_peers({{{2}, at(there.peers->port())}});
  CHECK(a.events.wait([](const Heard& heard) { return heard.ups.size() == 2; }));
  CHECK(a.events.heard().up.count({2}) == 1);
}

TEST_CASE("messages of an accepted node arrive, whether it is among the peers or not") {
  Strangers nodes;
  nodes.a->peers->set_peers({{{2}, at(nodes.b->peers->port())}});
  REQUIRE(nodes.a->events.wait_up(2));
  nodes.a->peers->send(GroupId{1}, vote_request(1, 2));
  nodes.a->peers->flush();
  REQUIRE(nodes.b->events.wait_messages(1));
  CHECK(nodes.b->peers->stats().empty());
  nodes.b->peers->set_peers({{{1}, at(nodes.a->peers->port())}});
  REQUIRE(nodes.b->events.wait_up(1));
  nodes.a->peers->send(GroupId{1}, vote_request(1, 2));
  nodes.a->peers->flush();
  REQUIRE(nodes.b->events.wait_messages(2));
  CHECK(nodes.b->peers->stats().at({1}).received_frames >= 1);
}

TEST_CASE("peers may come and go under traffic, while others look on, and at the end of all") {
  Strangers nodes;
  nodes.meet();
  std::atomic<bool> stop = false;
  std::thread onlooker([&] {
    while (!stop) {
      static_cast<void>(nodes.a->peers->stats());
      nodes.a->peers->disconnect({3}, "nobody");
    }
  });
  const std::string there = at(nodes.b->peers->port());
  const std::string nowhere = at(free_port());
  for (int turn = 0; turn < 200; ++turn) {
    nodes.a->peers->set_peers({{{2}, turn % 4 == 1 ? nowhere : there}, {{3}, nowhere}});
    for (int i = 0; i < 20; ++i) nodes.a->peers->send(GroupId{1}, vote_request(1, 2));
    nodes.a->peers->flush();
    if (turn % 2 == 0) nodes.a->peers->set_peers({});
    if (turn % 20 != 0) continue;
    const std::size_t ups = nodes.a->events.heard().ups.size();
    nodes.a->peers->set_peers({{{2}, there}});
    CHECK(nodes.a->events.wait([&](const Heard& heard) { return heard.ups.size() > ups; }));
  }
  stop = true;
  onlooker.join();
  nodes.a->peers->set_peers({});
  nodes.a.reset();
  CHECK(nodes.b->events.wait(is_down));
}
