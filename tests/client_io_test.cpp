// Loops beside the heart, over real sockets on loopback: the test is the heart, and the peers. Every
// wait is for an event, with a bound.
#include "seshat/client_io.hpp"

#include <asio/buffer.hpp>
#include <asio/io_context.hpp>
#include <asio/ip/tcp.hpp>
#include <asio/read.hpp>
#include <asio/write.hpp>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "catch.hpp"

namespace {

using seshat::ClientSocket;
using seshat::IoLoop;
using seshat::Mailbox;
using seshat::SocketEvent;
using Tcp = asio::ip::tcp;
using What = seshat::SocketEvent::What;
using ClientPtr = std::shared_ptr<ClientSocket>;

// More than the kernel takes for a peer that does not read.
constexpr std::size_t kMuch = 64 << 20;

// The heart of some loops, which gives tasks and waits for events.
class Heart {
 public:
  explicit Heart(std::size_t loops = 1) {
    for (std::size_t i = 0; i < loops; ++i) {
      loops_.push_back(std::make_unique<IoLoop>("seshat-io-test", events_));
    }
  }
  ~Heart() {
    for (const auto& loop : loops_) loop->stop();
  }
  Heart(const Heart&) = delete;
  Heart& operator=(const Heart&) = delete;

  [[nodiscard]] IoLoop& loop(std::size_t which = 0) { return *loops_[which]; }

  // Connects `peer` to a client of that loop.
  [[nodiscard]] ClientPtr accept(Tcp::socket& peer, std::size_t which = 0) {
    peer.connect(acceptor_.local_endpoint());
    Tcp::socket accepted = acceptor_.accept(loop(which).context());
    accepted.non_blocking(true);
    loop(which).count_in();
    return std::make_shared<ClientSocket>(std::move(accepted));
  }
  void read(const ClientPtr& client, std::size_t which = 0) {
    seshat::make_room(*client);
    loop(which).read(client);
  }
  void write(const ClientPtr& client, std::string bytes, std::size_t which = 0) {
    client->sending = std::move(bytes);
    loop(which).write(client);
  }

  [[nodiscard]] SocketEvent next_event() {
    if (next_ == taken_.size()) {
      std::unique_lock lock(mutex_);
      REQUIRE(wake_.wait_for(lock, std::chrono::seconds(20), [this] { return woken_; }));
      woken_ = false;
      lock.unlock();
      events_.take(taken_);
      next_ = 0;
    }
    return std::move(taken_.at(next_++));
  }
  // Of those that are there, without waiting.
  [[nodiscard]] std::vector<SocketEvent> events() {
    std::vector<SocketEvent> events;
    events_.take(events);
    return events;
  }

  asio::io_context io;  // of the peers

 private:
  Tcp::acceptor acceptor_{io, Tcp::endpoint(asio::ip::address_v4::loopback(), 0)};
  std::mutex mutex_;
  std::condition_variable wake_;
  bool woken_ = false;
  std::vector<std::unique_ptr<IoLoop>> loops_;  // what events hold is of their contexts
  Mailbox<SocketEvent> events_{[this] {
                                 const std::lock_guard lock(mutex_);
                                 woken_ = true;
                                 wake_.notify_one();
                               },
                               0};
  std::vector<SocketEvent> taken_;
  std::size_t next_ = 0;
};

// Of the read that has ended with `event`, as if all were consumed.
std::string consumed(const SocketEvent& event) {
  ClientSocket& client = *event.client;
  client.input_end += event.size_bytes;
  std::string bytes(client.unconsumed());
  client.input_begin = client.input_end;
  return bytes;
}

std::string received(Tcp::socket& peer, std::size_t size_bytes) {
  std::string bytes(size_bytes, '\0');
  asio::read(peer, asio::buffer(bytes));
  return bytes;
}

}  // namespace

TEST_CASE("what a client sends comes to the heart, and what the heart writes goes to the client",
          "[client_io]") {
  Heart heart;
  Tcp::socket peer(heart.io);
  const ClientPtr client = heart.accept(peer);
  heart.read(client);
  heart.loop().hand_over();
  asio::write(peer, asio::buffer(std::string_view("ping")));
  const SocketEvent read = heart.next_event();
  CHECK(read.what == What::kRead);
  CHECK(consumed(read) == "ping");
  heart.write(client, "pong");
  heart.loop().hand_over();
  const SocketEvent written = heart.next_event();
  CHECK(written.what == What::kWritten);
  CHECK_FALSE(written.error);
  CHECK(received(peer, 4) == "pong");
}

TEST_CASE("nothing is done before it is handed over, and then in the order in which it was given",
          "[client_io]") {
  Heart heart;
  Tcp::socket peer(heart.io);
  const ClientPtr client = heart.accept(peer);
  asio::write(peer, asio::buffer(std::string_view("request")));
  heart.write(client, "reply");
  heart.read(client);
  CHECK(peer.available() == 0);
  heart.loop().hand_over();
  CHECK(heart.next_event().what == What::kWritten);
  CHECK(consumed(heart.next_event()) == "request");
  CHECK(received(peer, 5) == "reply");
}

TEST_CASE(
    "the write to a client that does not read ends when it reads; others are served meanwhile",
    "[client_io]") {
  Heart heart;
  Tcp::socket silent(heart.io);
  Tcp::socket other(heart.io);
  const ClientPtr slow = heart.accept(silent);
  const ClientPtr quick = heart.accept(other);
  heart.write(slow, std::string(kMuch, 'x'));
  for (int i = 0; i < 100; ++i) {
    heart.write(quick, "reply");
    heart.loop().hand_over();
    CHECK(heart.next_event().client == quick);
  }
  CHECK(received(silent, kMuch) == std::string(kMuch, 'x'));
  const SocketEvent written = heart.next_event();
  CHECK(written.client == slow);
  CHECK(written.what == What::kWritten);
  CHECK_FALSE(written.error);
}

TEST_CASE(
    "a client that is closed with a read and a write under way: each ends, and only the heart "
    "holds it",
    "[client_io]") {
  Heart heart;
  Tcp::socket peer(heart.io);
  ClientPtr client = heart.accept(peer);
  heart.read(client);
  heart.write(client, std::string(kMuch, 'x'));
  heart.loop().close(client);
  heart.loop().hand_over();
  std::map<What, bool> failed;
  for (int i = 0; i < 3; ++i) {
    const SocketEvent event = heart.next_event();
    failed[event.what] = static_cast<bool>(event.error);
  }
  CHECK(failed ==
        std::map<What, bool>{{What::kRead, true}, {What::kWritten, true}, {What::kClosed, false}});
  CHECK(client.use_count() == 1);
  CHECK(heart.loop().clients() == 0);
}

TEST_CASE("a client that has sent its last is read to its end, and still gets its replies",
          "[client_io]") {
  Heart heart;
  Tcp::socket peer(heart.io);
  const ClientPtr client = heart.accept(peer);
  asio::write(peer, asio::buffer(std::string_view("last")));
  peer.shutdown(Tcp::socket::shutdown_send);
  heart.read(client);
  heart.loop().hand_over();
  CHECK(consumed(heart.next_event()) == "last");
  heart.write(client, "reply");
  heart.read(client);
  heart.loop().hand_over();
  CHECK_FALSE(heart.next_event().error);
  CHECK(heart.next_event().error == asio::error::eof);
  CHECK(received(peer, 5) == "reply");
}

TEST_CASE("a write to a client that is gone ends with an error", "[client_io]") {
  Heart heart;
  Tcp::socket peer(heart.io);
  const ClientPtr client = heart.accept(peer);
  peer.set_option(Tcp::socket::linger(true, 0));
  peer.close();
  heart.write(client, std::string(kMuch, 'x'));
  heart.loop().hand_over();
  CHECK(heart.next_event().error);
}

TEST_CASE("a loop that is stopped has sent what it was given, and has told of it", "[client_io]") {
  Heart heart;
  std::vector<Tcp::socket> peers;
  std::vector<ClientPtr> clients;
  for (int i = 0; i < 50; ++i) {
    peers.emplace_back(heart.io);
    clients.push_back(heart.accept(peers.back()));
    heart.write(clients.back(), "reply");
  }
  heart.loop().stop();
  CHECK(heart.events().size() == 50);
  for (Tcp::socket& peer : peers) CHECK(received(peer, 5) == "reply");
}

TEST_CASE("over three loops, every client gets its own bytes back in their order", "[client_io]") {
  constexpr std::size_t kLoops = 3;
  constexpr std::size_t kClients = 12;
  constexpr std::size_t kSizeBytes = 300'000;
  Heart heart(kLoops);
  std::vector<Tcp::socket> peers;
  std::map<ClientPtr, std::size_t> loop_of;
  for (std::size_t i = 0; i < kClients; ++i) {
    peers.emplace_back(heart.io);
    const ClientPtr client = heart.accept(peers.back(), i % kLoops);
    loop_of[client] = i % kLoops;
    heart.read(client, i % kLoops);
  }
  for (std::size_t i = 0; i < kLoops; ++i) heart.loop(i).hand_over();
  std::vector<std::string> wanted(kClients);
  std::vector<std::string> got(kClients);
  std::vector<std::thread> threads;
  for (std::size_t i = 0; i < kClients; ++i) {
    for (std::size_t n = 0; wanted[i].size() < kSizeBytes; ++n) {
      wanted[i] += std::to_string(i) + ":" + std::to_string(n) + " ";
    }
    threads.emplace_back([&peer = peers[i], &bytes = wanted[i]] {
      for (std::size_t at = 0; at < bytes.size(); at += 1000) {
        asio::write(peer, asio::buffer(std::string_view(bytes).substr(at, 1000)));
      }
      peer.shutdown(Tcp::socket::shutdown_send);
    });
    threads.emplace_back([&peer = peers[i], &bytes = got[i], size = wanted[i].size()] {
      bytes = received(peer, size);
    });
  }
  for (std::size_t open = kClients; open > 0;) {  // echoes, one chunk of each client at a time
    const SocketEvent event = heart.next_event();
    const std::size_t loop = loop_of.at(event.client);
    if (event.what == What::kWritten) {
      heart.read(event.client, loop);
    } else if (event.error) {
      --open;
    } else {
      heart.write(event.client, consumed(event), loop);
    }
    heart.loop(loop).hand_over();
  }
  for (std::thread& thread : threads) thread.join();
  for (std::size_t i = 0; i < kClients; ++i) CHECK(got[i] == wanted[i]);
}

TEST_CASE("what a large request took is given back once it is consumed", "[client_io]") {
  Heart heart;
  Tcp::socket peer(heart.io);
  const ClientPtr accepted = heart.accept(peer);
  ClientSocket& client = *accepted;
  std::size_t taken = 0;
  while (taken < kMuch) {  // all of it of one request, of which nothing can be consumed yet
    seshat::make_room(client);
    taken += client.input.size() - client.input_end;
    client.input_end = client.input.size();
  }
  CHECK(client.input.capacity() >= kMuch);
  client.input_begin = client.input_end;
  seshat::make_room(client);
  CHECK(client.input.capacity() < kMuch / 100);
  CHECK(client.input_end < client.input.size());
}

TEST_CASE("what a large reply took is given back once it is sent", "[client_io]") {
  Heart heart;
  Tcp::socket peer(heart.io);
  const ClientPtr client = heart.accept(peer);
  heart.write(client, std::string(kMuch, 'x'));
  heart.loop().hand_over();
  CHECK(received(peer, kMuch) == std::string(kMuch, 'x'));
  CHECK(heart.next_event().what == What::kWritten);
  CHECK(client->sending.capacity() < kMuch / 100);
}
