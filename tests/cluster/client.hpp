// tests/cluster/client.hpp - RESP clients for tests: one connection, and one that finds the leader.
//
// Blocking, with a bound on every wait. A reply is one line of text, so that a test reads as it would
// with redis-cli: "+OK", ":2", "-ERR ...", a bulk string as it is, "(nil)".
#ifndef SESHAT_TESTS_CLUSTER_CLIENT_HPP
#define SESHAT_TESTS_CLUSTER_CLIENT_HPP

#include <arpa/inet.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <random>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "process.hpp"
#include "seshat/resp.hpp"

namespace seshat::tests {

using Port = std::uint16_t;
using Arguments = std::vector<std::string>;

// The connection is of no more use: refused, closed, or nothing came in time.
struct ConnectionError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// Owns a file descriptor.
class Socket {
 public:
  explicit Socket(int fd = -1) : fd_(fd) {}
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

// A port of 127.0.0.1 that is kept for us until this object goes: bound, but not listened on, which
// on Linux lets a program that sets SO_REUSEADDR (as servers do) have it and nobody else. Outside the
// range for outgoing connections, so that none of those takes it while its node is down.
class ReservedPort {
 public:
  ReservedPort();
  [[nodiscard]] Port number() const { return number_; }

 private:
  Socket socket_;
  Port number_ = 0;
};

// An IPv4 address of this machine that is none of loopback.
[[nodiscard]] std::optional<sockaddr_in> own_address();

[[nodiscard]] std::string text_of(const resp::Value& reply);
[[nodiscard]] inline bool is_error(std::string_view reply) { return reply.starts_with('-'); }

// One connection to one node. Everything throws ConnectionError.
class Client {
 public:
  static constexpr Milliseconds kTimeout = 10s;

  explicit Client(Port port, Milliseconds timeout = kTimeout);
  // From this address: for the node, another machine.
  Client(Port port, sockaddr_in from);

  // A request and its reply.
  template <class... Args>
  [[nodiscard]] std::string ask(const Args&... args) {
    send(Arguments{std::string(args)...});
    return receive();
  }

  // Pipelines: any number of send(), then as many receive().
  void send(const Arguments& arguments) { send_raw(encoded(arguments)); }
  void send_raw(std::string_view bytes);
  [[nodiscard]] std::string receive() { return text_of(receive_value()); }
  [[nodiscard]] resp::Value receive_value();

  // What comes next, as it is. Where the connection ends: throws, or returns nothing.
  enum class AtEnd : std::uint8_t { kThrow, kStop };
  [[nodiscard]] std::string receive_bytes(AtEnd at_end = AtEnd::kThrow);

  // Sends requests and receives their replies at the same time, however many there are.
  [[nodiscard]] std::vector<std::string> pipeline(const std::vector<Arguments>& requests);

  // Whether the node closes the connection, without one more reply.
  [[nodiscard]] bool is_closed();

  void set_timeout(Milliseconds timeout) { timeout_ = timeout; }
  [[nodiscard]] int fd() const { return socket_.fd(); }
  [[nodiscard]] static std::string encoded(const Arguments& arguments);

 private:
  [[nodiscard]] std::optional<resp::Value> next_value();
  void read_more(SteadyClock::time_point deadline);
  short await(short events, SteadyClock::time_point deadline) const;

  Socket socket_;
  Milliseconds timeout_;
  resp::ReplyParser parser_;
  std::string input_;
  std::size_t input_begin_ = 0;
};

// Of one request sent to one node.
struct Attempt {
  enum class Outcome : std::uint8_t {
    kAnswered,
    kRefused,  // it promises that nothing was done: MOVED, CLUSTERDOWN, NOQUORUM, no connection
    kUnknown,  // sent, and nobody can say what became of it: the node says so, or said nothing
  };
  Outcome outcome = Outcome::kRefused;
  std::string reply = {};  // of kAnswered, or the words of a refusal
};

// Goes where MOVED says, and on to the next node when one is gone or silent, until its time is over.
class ClusterClient {
 public:
  // A node that is silent for so long is taken for gone.
  static constexpr Milliseconds kSilence = 3s;

  explicit ClusterClient(std::vector<Port> ports, Milliseconds timeout = 15s)
      : ports_(std::move(ports)), timeout_(timeout) {}

  // Asks the node it stays with, once; with but one port it stays there whatever MOVED says.
  [[nodiscard]] Attempt attempt(const Arguments& arguments, Milliseconds timeout);
  // Repeats only what was certainly not executed. nullopt: sent, and nobody can say what became of
  // it: the connection broke, or the node itself answered "outcome unknown" or "timeout".
  [[nodiscard]] std::optional<std::string> try_once(const Arguments& arguments);
  // Repeats whatever happens: for requests that may be executed twice.
  [[nodiscard]] std::string ask(const Arguments& arguments);
  template <class... Args>
  [[nodiscard]] std::string ask(const Args&... args) {
    return ask(Arguments{std::string(args)...});
  }
  // The node that answered last.
  [[nodiscard]] Port port() const { return ports_[at_]; }
  // From another thread: what waits for a node to serve it gives up, with ConnectionError.
  void cancel() { cancelled_ = true; }

 private:
  void go_to(std::string_view address);
  void go_on();

  std::vector<Port> ports_;
  Milliseconds timeout_;
  std::size_t at_ = 0;
  std::unique_ptr<Client> client_;
  std::atomic<bool> cancelled_{false};
};

// =================================================================================================
// Bodies
// =================================================================================================

namespace client_detail {

inline sockaddr_in loopback(Port port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(port);
  return address;
}

inline Socket make_socket() {
  Socket socket(::socket(AF_INET, SOCK_STREAM, 0));
  if (socket.fd() < 0) throw ConnectionError("no socket to be had");
  (void)::fcntl(socket.fd(), F_SETFD, FD_CLOEXEC);
  return socket;
}

inline bool bind_to(const Socket& socket, Port port) {
  const sockaddr_in address = loopback(port);
  return ::bind(socket.fd(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
}

}  // namespace client_detail

inline ReservedPort::ReservedPort() {
  constexpr int kFirst = 10000;
  constexpr int kCount = 20000;
  std::random_device random;
  for (int attempt = 0; attempt < 1000; ++attempt) {
    number_ = static_cast<Port>(kFirst + random() % kCount);
    socket_ = client_detail::make_socket();
    // Without SO_REUSEADDR first: that tells whether it is really free.
    if (!client_detail::bind_to(client_detail::make_socket(), number_)) continue;
    const int on = 1;
    (void)::setsockopt(socket_.fd(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (client_detail::bind_to(socket_, number_)) return;
  }
  throw std::runtime_error("no free port between 10000 and 30000");
}

inline std::optional<sockaddr_in> own_address() {
  ifaddrs* all = nullptr;
  if (::getifaddrs(&all) != 0) return std::nullopt;
  std::optional<sockaddr_in> found;
  for (const ifaddrs* each = all; each != nullptr && !found; each = each->ifa_next) {
    if (each->ifa_addr == nullptr || each->ifa_addr->sa_family != AF_INET) continue;
    sockaddr_in address{};
    std::memcpy(&address, each->ifa_addr, sizeof address);
    const bool is_loopback = (ntohl(address.sin_addr.s_addr) >> 24) == 127;
    if (!is_loopback) found = address;
  }
  ::freeifaddrs(all);
  return found;
}

inline std::string text_of(const resp::Value& reply) {
  switch (reply.kind) {
    case resp::Kind::kSimpleString:
      return "+" + reply.text;
    case resp::Kind::kError:
      return "-" + reply.text;
    case resp::Kind::kInteger:
      return ":" + std::to_string(reply.integer);
    case resp::Kind::kNull:
    case resp::Kind::kNullArray:
      return "(nil)";
    default:
      break;
  }
  std::string text = reply.text;
  for (const resp::Value& element : reply.elements) {
    text += (text.empty() ? "" : " ") + text_of(element);
  }
  return text;
}

// ---- Client -----------------------------------------------------------------------------------------

inline Client::Client(Port port, Milliseconds timeout)
    : socket_(client_detail::make_socket()), timeout_(timeout) {
  const std::string who = "127.0.0.1:" + std::to_string(port);
  const sockaddr_in address = client_detail::loopback(port);
  (void)::fcntl(socket_.fd(), F_SETFL, O_NONBLOCK);
  if (::connect(socket_.fd(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    if (errno != EINPROGRESS) throw ConnectionError("can't connect to " + who);
    (void)await(POLLOUT, SteadyClock::now() + timeout_);
    int error = 0;
    socklen_t size = sizeof error;
    (void)::getsockopt(socket_.fd(), SOL_SOCKET, SO_ERROR, &error, &size);
    if (error != 0) throw ConnectionError("can't connect to " + who);
  }
  const int on = 1;
  (void)::setsockopt(socket_.fd(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

inline Client::Client(Port port, sockaddr_in from)
    : socket_(client_detail::make_socket()), timeout_(kTimeout) {
  from.sin_port = 0;
  const sockaddr_in to = client_detail::loopback(port);
  if (::bind(socket_.fd(), reinterpret_cast<const sockaddr*>(&from), sizeof from) != 0 ||
      ::connect(socket_.fd(), reinterpret_cast<const sockaddr*>(&to), sizeof to) != 0) {
    throw ConnectionError("can't connect from an own address");
  }
  (void)::fcntl(socket_.fd(), F_SETFL, O_NONBLOCK);
}

inline std::string Client::encoded(const Arguments& arguments) {
  const std::vector<std::string_view> views(arguments.begin(), arguments.end());
  std::string bytes;
  resp::append_command(bytes, views);
  return bytes;
}

inline short Client::await(short events, SteadyClock::time_point deadline) const {
  for (;;) {
    const auto left = std::chrono::ceil<Milliseconds>(deadline - SteadyClock::now());
    pollfd descriptor{socket_.fd(), events, 0};
    const int ready = ::poll(&descriptor, 1, static_cast<int>(std::max(left, 0ms).count()));
    if (ready > 0) return descriptor.revents;
    if (ready < 0 && errno == EINTR) continue;
    throw ConnectionError("nothing came within " + std::to_string(timeout_.count()) + " ms");
  }
}

inline void Client::send_raw(std::string_view bytes) {
  const auto deadline = SteadyClock::now() + timeout_;
  while (!bytes.empty()) {
    const ssize_t sent = ::send(socket_.fd(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent > 0) {
      bytes.remove_prefix(static_cast<std::size_t>(sent));
    } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
      (void)await(POLLOUT, deadline);
    } else if (errno != EINTR) {
      throw ConnectionError("the connection broke while sending");
    }
  }
}

inline void Client::read_more(SteadyClock::time_point deadline) {
  (void)await(POLLIN, deadline);
  input_.erase(0, input_begin_);
  input_begin_ = 0;
  const std::size_t had = input_.size();
  input_.resize(had + 65'536);
  const ssize_t got = ::recv(socket_.fd(), input_.data() + had, input_.size() - had, 0);
  const int error = errno;
  input_.resize(had + static_cast<std::size_t>(std::max<ssize_t>(got, 0)));
  if (got > 0 || (got < 0 && (error == EAGAIN || error == EINTR))) return;
  throw ConnectionError("the node closed the connection");
}

// What of the input is a whole reply; nullopt: more has to be read.
inline std::optional<resp::Value> Client::next_value() {
  const resp::Status status = parser_.parse(std::string_view(input_).substr(input_begin_));
  input_begin_ += parser_.consumed();
  if (status == resp::Status::kComplete) return parser_.take();
  if (status == resp::Status::kIncomplete) return std::nullopt;
  throw ConnectionError("not RESP: " + std::string(parser_.error()));
}

inline resp::Value Client::receive_value() {
  const auto deadline = SteadyClock::now() + timeout_;
  for (;;) {
    if (std::optional<resp::Value> value = next_value()) return std::move(*value);
    read_more(deadline);
  }
}

inline std::string Client::receive_bytes(AtEnd at_end) {
  const auto deadline = SteadyClock::now() + timeout_;
  try {
    while (input_begin_ == input_.size()) read_more(deadline);
  } catch (const ConnectionError& error) {
    const bool ended = std::string_view(error.what()) == "the node closed the connection";
    if (!ended || at_end == AtEnd::kThrow) throw;
  }
  std::string bytes = input_.substr(input_begin_);
  input_begin_ = input_.size();
  return bytes;
}

inline std::vector<std::string> Client::pipeline(const std::vector<Arguments>& requests) {
  std::string bytes;
  for (const Arguments& request : requests) bytes += encoded(request);
  std::string_view unsent = bytes;
  std::vector<std::string> replies;
  while (replies.size() < requests.size()) {
    const auto deadline = SteadyClock::now() + timeout_;
    const short can = await(unsent.empty() ? POLLIN : POLLIN | POLLOUT, deadline);
    if ((can & POLLOUT) != 0 && !unsent.empty()) {
      const ssize_t sent = ::send(socket_.fd(), unsent.data(), unsent.size(), MSG_NOSIGNAL);
      if (sent > 0) unsent.remove_prefix(static_cast<std::size_t>(sent));
    }
    if ((can & (POLLIN | POLLHUP | POLLERR)) != 0) read_more(deadline);
    while (std::optional<resp::Value> value = next_value()) replies.push_back(text_of(*value));
  }
  return replies;
}

inline bool Client::is_closed() {
  try {
    (void)receive_value();
    return false;
  } catch (const ConnectionError& error) {
    return std::string_view(error.what()) == "the node closed the connection";
  }
}

// ---- ClusterClient ------------------------------------------------------------------------------------

inline void ClusterClient::go_on() {
  client_.reset();
  at_ = (at_ + 1) % ports_.size();
  std::this_thread::sleep_for(kPollInterval);
}

inline void ClusterClient::go_to(std::string_view address) {
  const Port port =
      static_cast<Port>(std::stoi(std::string(address.substr(address.rfind(':') + 1))));
  const auto found = std::find(ports_.begin(), ports_.end(), port);
  if (found == ports_.end())
    throw std::runtime_error("MOVED to a stranger: " + std::string(address));
  client_.reset();
  at_ = static_cast<std::size_t>(found - ports_.begin());
}

// Errors that promise that nothing was appended to a log.
inline bool is_refusal(std::string_view reply) {
  return reply.starts_with("-MOVED ") || reply.starts_with("-CLUSTERDOWN") ||
         reply.starts_with("-NOQUORUM") || reply.starts_with("-LOADING ") ||
         reply.starts_with("-ERR disk full") || reply == "-ERR storage failure";
}

inline Attempt ClusterClient::attempt(const Arguments& arguments, Milliseconds timeout) {
  using Outcome = Attempt::Outcome;
  Outcome without_answer = Outcome::kRefused;
  try {
    if (!client_) client_ = std::make_unique<Client>(ports_[at_], timeout);
    client_->set_timeout(timeout);
    without_answer = Outcome::kUnknown;
    client_->send(arguments);
    std::string reply = client_->receive();
    if (reply.starts_with("-ERR outcome unknown") || reply == "-ERR timeout") {
      return {Outcome::kUnknown, std::move(reply)};
    }
    if (!is_refusal(reply)) return {Outcome::kAnswered, std::move(reply)};
    if (!reply.starts_with("-MOVED ")) {
      go_on();
    } else if (ports_.size() > 1) {
      go_to(reply);
    }
    return {Outcome::kRefused, std::move(reply)};
  } catch (const ConnectionError&) {
    go_on();
    return {without_answer};
  }
}

inline std::optional<std::string> ClusterClient::try_once(const Arguments& arguments) {
  const auto deadline = SteadyClock::now() + timeout_;
  for (;;) {
    const auto left = std::chrono::ceil<Milliseconds>(deadline - SteadyClock::now());
    if (left <= 0ms || cancelled_) {
      throw ConnectionError("no node took " + arguments.at(0) + " in time");
    }
    Attempt made = attempt(arguments, std::min(left, kSilence));
    if (made.outcome == Attempt::Outcome::kAnswered) return std::move(made.reply);
    if (made.outcome == Attempt::Outcome::kUnknown) return std::nullopt;
  }
}

inline std::string ClusterClient::ask(const Arguments& arguments) {
  const auto deadline = SteadyClock::now() + timeout_;
  while (SteadyClock::now() < deadline) {
    if (std::optional<std::string> reply = try_once(arguments)) return *reply;
  }
  throw ConnectionError("no node answered " + arguments.at(0) + " in time");
}

}  // namespace seshat::tests

#endif  // SESHAT_TESTS_CLUSTER_CLIENT_HPP
