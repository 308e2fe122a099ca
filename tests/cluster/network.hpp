// tests/cluster/network.hpp - the network between the nodes of a test, to break at will.
//
//   node 1 ──dials──> an entrance of 127.0.0.1 ══ held, delayed, stalled ══> the port of node 2
//
// Every node dials every other through an entrance of its own (`cluster.dial`). What travels from one
// node to another is one link, whoever dialed: a cut link keeps what is sent over it, as a network that
// loses every packet does to TCP, and lets it go, late and in order, when it heals. A lost packet is one
// that TCP sends again: it, and all behind it, comes kRetransmission later. kernel-level tools that do
// the same (tc netem) are not in every kernel, and need root.
//
// Threads: one inside moves the bytes; the public functions may be called from any, and what they ask
// for is in force when they return.
#ifndef SESHAT_TESTS_CLUSTER_NETWORK_HPP
#define SESHAT_TESTS_CLUSTER_NETWORK_HPP

#include <array>
#include <asio.hpp>
#include <cstddef>
#include <deque>
#include <functional>
#include <future>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "client.hpp"
#include "process.hpp"

namespace seshat::tests {

// What one direction between two nodes is like.
struct Link {
  bool cut = false;
  Milliseconds delay{0};
  int loss_permille = 0;  // of what is read at once from a socket
};

class PeerNetwork {
 public:
  // `ports`: where each node listens for its peers.
  explicit PeerNetwork(std::map<int, Port> ports);
  PeerNetwork(const PeerNetwork&) = delete;
  PeerNetwork& operator=(const PeerNetwork&) = delete;
  ~PeerNetwork();

  // What node `from` has to dial for node `to`.
  [[nodiscard]] Port entrance(int from, int to) const { return entrances_.at({from, to})->port; }

  void set_link(int from, int to, Link link);
  void set_all(Link link);
  void heal() { set_all({}); }
  void cut(int from, int to) { set_link(from, to, {.cut = true}); }
  void cut_pair(int one, int other);
  // One node from all others: what it hears, what it says, or both.
  void deafen(int node);
  void mute(int node);
  void isolate(int node);
  // Those named from all others, but not from each other.
  void split_off(const std::set<int>& camp);
  // Connections between two nodes end with a reset, whatever they carry; they may be made again.
  void reset(int one, int other);

 private:
  using Tcp = asio::ip::tcp;
  using Name = std::pair<int, int>;  // from, to

  class Tunnel;
  struct Entrance {
    explicit Entrance(asio::io_context& loop)
        : acceptor(loop, {asio::ip::address_v4::loopback(), 0}) {
      port = acceptor.local_endpoint().port();
    }
    Tcp::acceptor acceptor;
    Port port;
  };

  void accept(Name name);
  // Runs `change` on the thread inside, and waits for it.
  void apply(const std::function<void()>& change);
  void wake_all();

  std::map<int, Port> ports_;
  asio::io_context loop_;
  std::map<Name, std::unique_ptr<Entrance>> entrances_;
  // Only the thread inside touches these.
  std::map<Name, Link> links_;
  std::set<std::shared_ptr<Tunnel>> tunnels_;
  std::mt19937_64 random_{1};
  std::thread thread_;
};

// =================================================================================================
// Bodies
// =================================================================================================

// One connection: what the dialer says, and what it is told.
class PeerNetwork::Tunnel : public std::enable_shared_from_this<Tunnel> {
 public:
  Tunnel(PeerNetwork& network, Name name, Tcp::socket dialer)
      : network_(network),
        name_(name),
        dialer_(std::move(dialer)),
        listener_(network.loop_),
        ways_{Way(network.loop_, dialer_, listener_, name),
              Way(network.loop_, listener_, dialer_, Name(name.second, name.first))} {}

  [[nodiscard]] bool is_between(int one, int other) const {
    return name_ == Name(one, other) || name_ == Name(other, one);
  }

  // A link may have changed.
  void wake() {
    if (!connecting_) return connect();
    for (Way& way : ways_) deliver(way);
  }

  void end(bool with_reset) {
    for (Tcp::socket* socket : {&dialer_, &listener_}) {
      asio::error_code ignored;
      // Closing with nothing left to linger for is a reset.
      if (with_reset) socket->set_option(asio::socket_base::linger(true, 0), ignored);
      socket->close(ignored);
    }
    for (Way& way : ways_) way.timer.cancel();
    network_.tunnels_.erase(shared_from_this());
  }

 private:
  static constexpr std::size_t kMaxHeldBytes = 4 << 20;  // then the sender has to wait
  static constexpr Milliseconds kRetransmission = 200ms;

  struct Piece {
    SteadyClock::time_point due;
    std::string bytes;  // none: the connection was closed here
  };
  struct Way {
    Way(asio::io_context& loop, Tcp::socket& in_socket, Tcp::socket& out_socket, Name link_name)
        : in(in_socket), out(out_socket), link(link_name), timer(loop) {}
    Tcp::socket& in;
    Tcp::socket& out;
    Name link;
    asio::steady_timer timer;
    std::deque<Piece> held = {};
    std::size_t held_bytes = 0;
    bool reading = false;
    bool writing = false;
    bool ended = false;
    std::array<char, 65'536> buffer;
  };

  // The first packets of a connection go both ways.
  void connect() {
    read(ways_[0]);  // to notice a dialer that gives up
    if (network_.links_[ways_[0].link].cut || network_.links_[ways_[1].link].cut) return;
    connecting_ = true;
    const Tcp::endpoint target(asio::ip::address_v4::loopback(), network_.ports_.at(name_.second));
    listener_.async_connect(target, [self = shared_from_this()](const asio::error_code& error) {
      if (error) return self->end(true);
      asio::error_code ignored;
      self->listener_.set_option(Tcp::no_delay(true), ignored);
      self->dialer_.set_option(Tcp::no_delay(true), ignored);
      self->connected_ = true;
      self->read(self->ways_[1]);
      self->deliver(self->ways_[0]);
    });
  }

  void read(Way& way) {
    if (way.reading || way.ended || way.held_bytes > kMaxHeldBytes) return;
    way.reading = true;
    way.in.async_read_some(
        asio::buffer(way.buffer),
        [self = shared_from_this(), &way](const asio::error_code& error, std::size_t size) {
          way.reading = false;
          way.ended = static_cast<bool>(error);
          self->hold(way, std::string(way.buffer.data(), error ? 0 : size));
          self->deliver(way);
          self->read(way);
        });
  }

  void hold(Way& way, std::string bytes) {
    const Link& link = network_.links_[way.link];
    const bool lost = static_cast<int>(network_.random_() % 1000) < link.loss_permille;
    auto due = SteadyClock::now() + link.delay + (lost ? kRetransmission : 0ms);
    if (!way.held.empty()) due = std::max(due, way.held.back().due);
    way.held_bytes += bytes.size();
    way.held.push_back({due, std::move(bytes)});
  }

  void deliver(Way& way) {
    if (!connected_) return way.ended ? end(true) : void();
    if (way.writing || way.held.empty() || network_.links_[way.link].cut) return;
    const Piece& next = way.held.front();
    if (next.due > SteadyClock::now()) {
      way.timer.expires_at(next.due);
      way.timer.async_wait([self = shared_from_this(), &way](const asio::error_code& error) {
        if (!error) self->deliver(way);
      });
      return;
    }
    if (next.bytes.empty()) return end(false);
    way.writing = true;
    asio::async_write(
        way.out, asio::buffer(next.bytes),
        [self = shared_from_this(), &way](const asio::error_code& error, std::size_t) {
          way.writing = false;
          if (error) return self->end(true);
          way.held_bytes -= way.held.front().bytes.size();
          way.held.pop_front();
          self->read(way);
          self->deliver(way);
        });
  }

  PeerNetwork& network_;
  Name name_;
  Tcp::socket dialer_;
  Tcp::socket listener_;
  std::array<Way, 2> ways_;
  bool connecting_ = false;
  bool connected_ = false;
};

inline PeerNetwork::PeerNetwork(std::map<int, Port> ports) : ports_(std::move(ports)) {
  for (const auto& [from, ignored] : ports_) {
    for (const auto& [to, same] : ports_) {
      if (from == to) continue;
      links_[{from, to}] = {};
      entrances_[{from, to}] = std::make_unique<Entrance>(loop_);
      accept({from, to});
    }
  }
  thread_ = std::thread([this] { loop_.run(); });
}

inline PeerNetwork::~PeerNetwork() {
  loop_.stop();
  thread_.join();
}

inline void PeerNetwork::accept(Name name) {
  entrances_.at(name)->acceptor.async_accept(
      [this, name](const asio::error_code& error, Tcp::socket dialer) {
        if (error) {
          std::this_thread::sleep_for(1ms);  // out of handles: not again at once
        } else {
          const auto tunnel = std::make_shared<Tunnel>(*this, name, std::move(dialer));
          tunnels_.insert(tunnel);
          tunnel->wake();
        }
        accept(name);
      });
}

inline void PeerNetwork::apply(const std::function<void()>& change) {
  std::promise<void> done;
  asio::post(loop_, [&] {
    change();
    done.set_value();
  });
  done.get_future().wait();
}

inline void PeerNetwork::wake_all() {
  const auto tunnels = tunnels_;  // one that ends leaves the set
  for (const auto& tunnel : tunnels) tunnel->wake();
}

inline void PeerNetwork::set_link(int from, int to, Link link) {
  apply([&] {
    links_.at({from, to}) = link;
    wake_all();
  });
}

inline void PeerNetwork::set_all(Link link) {
  apply([&] {
    for (auto& [name, each] : links_) each = link;
    wake_all();
  });
}

inline void PeerNetwork::cut_pair(int one, int other) {
  cut(one, other);
  cut(other, one);
}

inline void PeerNetwork::deafen(int node) {
  for (const auto& [other, port] : ports_) {
    if (other != node) cut(other, node);
  }
}

inline void PeerNetwork::mute(int node) {
  for (const auto& [other, port] : ports_) {
    if (other != node) cut(node, other);
  }
}

inline void PeerNetwork::isolate(int node) {
  deafen(node);
  mute(node);
}

inline void PeerNetwork::split_off(const std::set<int>& camp) {
  for (const auto& [name, entrance] : entrances_) {
    if (camp.contains(name.first) != camp.contains(name.second)) cut(name.first, name.second);
  }
}

inline void PeerNetwork::reset(int one, int other) {
  apply([&] {
    const auto tunnels = tunnels_;
    for (const auto& tunnel : tunnels) {
      if (tunnel->is_between(one, other)) tunnel->end(true);
    }
  });
}

}  // namespace seshat::tests

#endif  // SESHAT_TESTS_CLUSTER_NETWORK_HPP
