// What the tests of the peer channel share: sockets of this machine, a proxy that can freeze or cut
// connections, and nodes in one process that keep all that they are told. Nothing here sleeps.
#ifndef SESHAT_TESTS_PEER_NODES_HPP
#define SESHAT_TESTS_PEER_NODES_HPP

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "catch.hpp"
#include "seshat/log.hpp"
#include "seshat/peer.hpp"

namespace seshat::peer_tests {

using namespace std::chrono_literals;

using Clock = std::chrono::steady_clock;

inline std::chrono::milliseconds since(Clock::time_point start) {
  return std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - start);
}

// ---- Sockets ------------------------------------------------------------------------------------

inline sockaddr_in loopback(int port) {
  sockaddr_in addr{};
  addr.sin_family = AF_INET;
  addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  addr.sin_port = htons(static_cast<std::uint16_t>(port));
  return addr;
}

inline std::string at(int port) { return "127.0.0.1:" + std::to_string(port); }

// Owns a file descriptor.
class Socket {
 public:
  explicit Socket(int fd) : fd_(fd) {}
  Socket(Socket&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Socket& operator=(Socket&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~Socket() {
    if (fd_ >= 0) ::close(fd_);
  }
  [[nodiscard]] int fd() const { return fd_; }

 private:
  int fd_;
};

// Listens on a port that the system chose, and never accepts: connections come up by themselves.
class Sink {
 public:
  Sink() : socket_(::socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in addr = loopback(0);
    socklen_t size = sizeof addr;
    REQUIRE(::bind(socket_.fd(), reinterpret_cast<sockaddr*>(&addr), size) == 0);
    REQUIRE(::listen(socket_.fd(), 16) == 0);
    REQUIRE(::getsockname(socket_.fd(), reinterpret_cast<sockaddr*>(&addr), &size) == 0);
    port_ = ntohs(addr.sin_port);
  }
  [[nodiscard]] int port() const { return port_; }
  [[nodiscard]] int fd() const { return socket_.fd(); }

 private:
  Socket socket_;
  int port_ = 0;
};

inline int free_port() { return Sink().port(); }

inline Socket connect_to(int port) {
  Socket socket(::socket(AF_INET, SOCK_STREAM, 0));
  sockaddr_in addr = loopback(port);
  if (::connect(socket.fd(), reinterpret_cast<sockaddr*>(&addr), sizeof addr) != 0)
    return Socket(-1);
  return socket;
}

// Forwards connections to `port` until it is frozen; then it takes and gives nothing, and every
// connection looks alive to TCP.
class Proxy {
 public:
  explicit Proxy(int port) : target_(port), thread_([this] { run(); }) {}
  ~Proxy() {
    stop_ = true;
    thread_.join();
  }
  [[nodiscard]] int port() const { return sink_.port(); }
  void freeze(bool frozen) { frozen_ = frozen; }
  // Ends all connections; new ones are taken in.
  void cut() { cut_ = true; }

 private:
  void run() {
    while (!stop_) {
      if (cut_.exchange(false)) {
        routes_.clear();
        sockets_.clear();
      }
      if (frozen_) {
        ::poll(nullptr, 0, 5);
        continue;
      }
      std::vector<pollfd> fds{{sink_.fd(), POLLIN, 0}};
      for (const auto& [from, to] : routes_) fds.push_back({from, POLLIN, 0});
      ::poll(fds.data(), static_cast<nfds_t>(fds.size()), 5);
      if (frozen_) continue;
      for (std::size_t i = 1; i < fds.size(); ++i) {
        if (fds[i].revents != 0) forward(fds[i].fd);
      }
      if (fds[0].revents != 0) take_in();
    }
  }
  void take_in() {
    Socket client(::accept(sink_.fd(), nullptr, nullptr));
    Socket server = connect_to(target_);
    if (server.fd() < 0) return;
    routes_[client.fd()] = server.fd();
    routes_[server.fd()] = client.fd();
    sockets_.push_back(std::move(client));
    sockets_.push_back(std::move(server));
  }
  void forward(int from) {
    std::array<char, 65536> bytes{};
    const ssize_t count = ::recv(from, bytes.data(), bytes.size(), 0);
    const int to = routes_[from];
    if (count <= 0) {
      ::shutdown(to, SHUT_RDWR);
      routes_.erase(from);
      return;
    }
    for (ssize_t sent = 0; sent < count;) {
      const ssize_t part =
          ::send(to, bytes.data() + sent, static_cast<std::size_t>(count - sent), MSG_NOSIGNAL);
      if (part <= 0) return;
      sent += part;
    }
  }

  Sink sink_;
  const int target_;
  std::atomic<bool> stop_ = false;
  std::atomic<bool> frozen_ = false;
  std::atomic<bool> cut_ = false;
  std::map<int, int> routes_;
  std::vector<Socket> sockets_;
  std::thread thread_;
};

// ---- Nodes --------------------------------------------------------------------------------------

inline Hello hello_of(std::uint64_t id) {
  Hello hello;
  hello.cluster_id = "0123456789abcdef0123456789abcdef";
  hello.node_id = {id};
  hello.incarnation = id * 11;
  hello.client_addr = "127.0.0.1:" + std::to_string(6378 + id);
  return hello;
}

// What a node was told.
struct Heard {
  std::vector<Hello> hellos;
  std::vector<std::function<void(HelloReply)>> held;  // answers not given yet
  std::vector<PeerMessage> messages;
  std::size_t frames = 0;
  std::map<NodeId, NodeStatus> statuses;
  std::vector<Hello> ups;
  std::set<NodeId> up;
  std::vector<std::string> refusals;
  std::vector<std::string> downs;
  std::vector<CallRequest> calls;
  std::vector<std::function<void(CallReply)>> held_calls;  // not answered yet
};

// Says yes to everybody, or what it is told, and keeps all that it hears.
class Recorder : public seshat::PeerEvents {
 public:
  explicit Recorder(std::uint64_t id) : id_(id) {}
  virtual ~Recorder() = default;

  void refuse_with(std::string reason) {
    const std::lock_guard lock(mutex_);
    refusal_ = std::move(reason);
  }
  void hold_answers() {
    const std::lock_guard lock(mutex_);
    hold_ = true;
  }

  // Called after what was told, on the thread that told it.
  void when_reacted(std::function<void(bool has_time)> then) {
    const std::lock_guard lock(mutex_);
    reacted_ = std::move(then);
  }

  void on_hello(Hello hello, std::function<void(HelloReply)> answer) override {
    std::string refusal;
    {
      const std::lock_guard lock(mutex_);
      heard_.hellos.push_back(hello);
      refusal = refusal_;
      changed_.notify_all();
      if (hold_) return heard_.held.push_back(std::move(answer));
    }
    answer({refusal.empty(), refusal, hello_of(id_)});
  }
  void on_frame(NodeId from, Frame frame) override {
    const std::lock_guard lock(mutex_);
    ++heard_.frames;
    for (PeerMessage& message : frame.messages) heard_.messages.push_back(std::move(message));
    if (frame.status) heard_.statuses[from] = *frame.status;
    changed_.notify_all();
  }
  void on_reacted(bool has_time) override {
    std::function<void(bool)> reacted;
    {
      const std::lock_guard lock(mutex_);
      reacted = reacted_;
    }
    if (reacted) reacted(has_time);
  }
  void on_peer_up(NodeId peer, Hello self) override {
    const std::lock_guard lock(mutex_);
    heard_.ups.push_back(std::move(self));
    heard_.up.insert(peer);
    changed_.notify_all();
  }
  void on_peer_refused(NodeId, std::string reason, bool) override {
    const std::lock_guard lock(mutex_);
    heard_.refusals.push_back(std::move(reason));
    changed_.notify_all();
  }
  void on_peer_down(NodeId peer, std::string reason) override {
    const std::lock_guard lock(mutex_);
    heard_.downs.push_back(std::move(reason));
    heard_.up.erase(peer);
    changed_.notify_all();
  }

  void on_call(CallRequest request, std::function<void(CallReply)> answer) override {
    const std::lock_guard lock(mutex_);
    heard_.calls.push_back(std::move(request));
    heard_.held_calls.push_back(std::move(answer));
    changed_.notify_all();
  }
  // Snapshots: for those who take them in.
  void on_snapshot_offer(SnapshotOffer, std::function<void(SnapshotAnswer)> answer) override {
    SnapshotReply refusal;
    refusal.reason = "this node takes no snapshots";
    answer({std::move(refusal), {}});
  }
  void on_snapshot_received(GroupId, std::shared_ptr<SnapshotWriter>,
                            std::function<void(SnapshotReply)>) override {}
  void on_snapshot_broken(GroupId, std::shared_ptr<SnapshotWriter>, std::string) override {}
  void on_snapshot_failed(GroupId, std::shared_ptr<SnapshotWriter>, std::string) override {}

  // Waits until `holds`.
  template <class Condition>
  bool wait(Condition holds, std::chrono::milliseconds bound = 10s) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, bound, [&] { return holds(heard_); });
  }
  bool wait_up(std::uint64_t peer, std::chrono::milliseconds bound = 10s) {
    return wait([&](const Heard& heard) { return heard.up.count({peer}) == 1; }, bound);
  }
  bool wait_messages(std::size_t count, std::chrono::milliseconds bound = 10s) {
    return wait([&](const Heard& heard) { return heard.messages.size() >= count; }, bound);
  }
  Heard heard() {
    const std::lock_guard lock(mutex_);
    return heard_;
  }

 private:
  const std::uint64_t id_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool hold_ = false;
  std::string refusal_;
  std::function<void(bool)> reacted_;
  Heard heard_;
};

// What was logged, by the daemon's own logger.
class Lines {
 public:
  Lines()
      : log(seshat::LogLevel::kInfo, seshat::LogFormat::kText, [this](std::string_view line) {
          const std::lock_guard lock(mutex_);
          text_ += line;
        }) {}
  std::size_t count(std::string_view what) {
    const std::lock_guard lock(mutex_);
    std::size_t found = 0;
    for (auto at = text_.find(what); at != std::string::npos; at = text_.find(what, at + 1))
      ++found;
    return found;
  }
  std::string text() {
    const std::lock_guard lock(mutex_);
    return text_;
  }

 private:
  std::mutex mutex_;
  std::string text_;

 public:
  const Logger log;
};

inline PeerOptions options_of(std::uint64_t self, int port, std::map<NodeId, std::string> dial) {
  PeerOptions options;
  options.self = {self};
  options.listen_addr = at(port);
  options.dial = std::move(dial);
  options.liveness_timeout_ms = 600;
  options.rpc_timeout_ms = 1000;
  return options;
}

struct Node {
  Node(std::uint64_t id, PeerOptions options) : events(id) {
    auto started = Peers::start(std::move(options), events, lines.log);
    if (!started) FAIL(started.error().text);
    peers = std::move(*started);
    peers->set_hello(hello_of(id));
  }
  Lines lines;
  Recorder events;
  std::unique_ptr<Peers> peers;

  PeerStats stats(std::uint64_t peer) const { return peers->stats().at({peer}); }
};

// Nodes 1 and 2 that dial each other and are up.
struct Pair {
  explicit Pair(PeerQueueLimits limits = {}) {
    const int port_a = free_port();
    const int port_b = free_port();
    PeerOptions options_a = options_of(1, port_a, {{{2}, at(port_b)}});
    options_a.limits = limits;
    a = std::make_unique<Node>(1, options_a);
    b = std::make_unique<Node>(2, options_of(2, port_b, {{{1}, at(port_a)}}));
    REQUIRE(a->events.wait_up(2));
    REQUIRE(b->events.wait_up(1));
  }
  std::unique_ptr<Node> a;
  std::unique_ptr<Node> b;
};

// What became of calls or transfers. Shared with the callbacks, which may come late.
template <class T>
class Results {
 public:
  // wait() takes that long at most, unless it is told another bound.
  explicit Results(std::chrono::milliseconds bound = 10s) : bound_(bound) {}

  std::function<void(Result<T>)> take() {
    return [this](Result<T> result) {
      const std::lock_guard lock(mutex_);
      results_.push_back(std::move(result));
      changed_.notify_all();
    };
  }
  bool wait(std::size_t count = 1) { return wait(count, bound_); }
  bool wait(std::size_t count, std::chrono::milliseconds bound) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, bound, [&] { return results_.size() >= count; });
  }
  std::vector<Result<T>> results() {
    const std::lock_guard lock(mutex_);
    return results_;
  }
  std::string error(std::size_t number = 0) {
    const Result<T> result = results().at(number);
    return result ? "none" : result.error().text;
  }

 private:
  const std::chrono::milliseconds bound_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Result<T>> results_;
};

// ---- Callers that break the rules ---------------------------------------------------------------

// A stream to the peer port whose bytes the test chooses.
class RawStream final : public grpc::ClientBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer> {
 public:
  explicit RawStream(int port, const std::string& method = "/seshat.Peer/Stream") {
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    arguments.SetMaxSendMessageSize(-1);
    const auto channel =
        grpc::CreateCustomChannel(at(port), grpc::InsecureChannelCredentials(), arguments);
    grpc::GenericStub(channel).PrepareBidiStreamingCall(&context_, method, {}, this);
    AddHold();
    StartRead(&in_);
    StartCall();
  }
  ~RawStream() override {
    context_.TryCancel();
    RemoveHold();
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return done_; });
  }
  // Waits until the bytes have left, or can't.
  void send(std::string bytes) {
    std::unique_lock lock(mutex_);
    out_ = peer_detail::to_buffer(std::move(bytes));
    writing_ = true;
    lock.unlock();
    StartWrite(&out_);
    lock.lock();
    changed_.wait_for(lock, 10s, [&] { return !writing_; });
  }
  void send(const Frame& frame) { send(peer_detail::encoded(frame)); }
  void greet(std::uint64_t id) {
    Frame frame;
    frame.hello = hello_of(id);
    send(frame);
  }
  bool wait_received(std::size_t count) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, 10s, [&] { return received_.size() >= count; });
  }
  std::vector<std::string> received() {
    const std::lock_guard lock(mutex_);
    return received_;
  }
  bool wait_ended() {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, 10s, [&] { return ended_; });
  }
  // After wait_ended(): the status it ended with, once nothing holds the call any more.
  static std::string status_of(std::unique_ptr<RawStream> stream) {
    auto status = std::make_shared<std::string>();
    {
      const std::lock_guard lock(stream->mutex_);
      stream->status_ = status;
    }
    stream.reset();
    return *status;
  }

  void OnReadDone(bool ok) override {
    {
      const std::lock_guard lock(mutex_);
      if (ok) received_.push_back(bytes_of(in_));
      if (!ok) ended_ = true;
      changed_.notify_all();
    }
    if (ok) StartRead(&in_);
  }
  void OnWriteDone(bool) override {
    const std::lock_guard lock(mutex_);
    writing_ = false;
    changed_.notify_all();
  }
  void OnDone(const grpc::Status& status) override {
    const std::lock_guard lock(mutex_);
    if (status_) *status_ = status.error_message();
    done_ = true;
    changed_.notify_all();
  }

 private:
  static std::string bytes_of(const grpc::ByteBuffer& buffer) {
    grpc::Slice slice;
    if (!buffer.TrySingleSlice(&slice).ok() && !buffer.DumpToSingleSlice(&slice).ok()) return {};
    return {reinterpret_cast<const char*>(slice.begin()), slice.size()};
  }

  grpc::ClientContext context_;
  grpc::ByteBuffer in_;
  grpc::ByteBuffer out_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::shared_ptr<std::string> status_;
  std::vector<std::string> received_;
  bool writing_ = false;
  bool ended_ = false;
  bool done_ = false;
};

}  // namespace seshat::peer_tests

#endif  // SESHAT_TESTS_PEER_NODES_HPP
