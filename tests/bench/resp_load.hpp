// tests/bench/resp_load.hpp - clients of a server that speaks the Redis protocol.
//
// One thread and one epoll for all connections. Each sends a batch of `pipeline` operations in one
// write, waits for all replies, and sends the next, as redis-benchmark does. Needs Linux.
#ifndef SESHAT_TESTS_BENCH_RESP_LOAD_HPP
#define SESHAT_TESTS_BENCH_RESP_LOAD_HPP

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "measure.hpp"
#include "options.hpp"
#include "seshat/resp.hpp"

namespace seshat::bench {

// Closes what it holds.
class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Descriptor& operator=(Descriptor&&) = delete;
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  [[nodiscard]] int get() const { return fd_; }

 private:
  int fd_;
};

class RespLoad {
 public:
  // Connects all clients. Throws std::runtime_error, here and below.
  explicit RespLoad(const Options& options);
  // Until all is measured.
  void run(Recorder& recorder);

 private:
  struct Connection {
    explicit Connection(Descriptor connected) : socket(std::move(connected)) {}
    Descriptor socket;
    std::string out;
    std::size_t sent_bytes = 0;
    bool waits_for_room = false;
    std::string in;
    resp::ReplyParser parser;
    Nanoseconds sent_at = 0;
    std::size_t waiting = 0;     // operations of the batch that are not answered
    bool half_answered = false;  // SET was, its WAIT was not
    bool right = true;           // so far, the operation that is answered next
  };

  void send_batch(Connection& connection);
  void append_operation(std::string& out);
  void flush(Connection& connection);
  void watch(Connection& connection, int operation, std::uint32_t events);
  // False: there is nothing more to read for now.
  [[nodiscard]] bool receive(Connection& connection);
  void take_replies(Connection& connection, Recorder& recorder, Nanoseconds now);
  [[nodiscard]] bool is_right(const resp::Value& reply, bool is_wait) const;

  const Options options_;
  Workload workload_;
  Descriptor epoll_;
  std::vector<std::unique_ptr<Connection>> connections_;
  std::array<char, 1u << 16> buffer_{};
};

// =================================================================================================
// Bodies
// =================================================================================================

namespace detail {

[[noreturn]] inline void fail(const std::string& what) {
  throw std::system_error(errno, std::generic_category(), what);
}

// As many files as clients need, where the shell's limit is lower and the hard one allows it.
inline void raise_file_limit(std::size_t clients) {
  constexpr rlim_t kOtherFiles = 64;
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  const rlim_t wanted = std::min<rlim_t>(clients + kOtherFiles, limit.rlim_max);
  if (limit.rlim_cur >= wanted) return;
  limit.rlim_cur = wanted;
  (void)setrlimit(RLIMIT_NOFILE, &limit);  // if it fails, connecting says so
}

// A connected socket that does not block.
inline Descriptor connected(const Options& options) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (getaddrinfo(options.host.c_str(), options.port.c_str(), &hints, &found) != 0) {
    throw std::runtime_error("no such address: " + options.host + ":" + options.port);
  }
  const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> owner(found, freeaddrinfo);
  Descriptor socket(::socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (::connect(socket.get(), found->ai_addr, found->ai_addrlen) != 0) {
    fail("can't connect to " + options.host + ":" + options.port);
  }
  const int on = 1;
  setsockopt(socket.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  return socket;
}

}  // namespace detail

inline RespLoad::RespLoad(const Options& options)
    : options_(options), workload_(options), epoll_(epoll_create1(EPOLL_CLOEXEC)) {
  if (epoll_.get() < 0) detail::fail("epoll_create1");
  detail::raise_file_limit(options.clients);
  for (std::size_t i = 0; i < options.clients; ++i) {
    connections_.push_back(std::make_unique<Connection>(detail::connected(options)));
    watch(*connections_.back(), EPOLL_CTL_ADD, EPOLLIN);
  }
}

inline void RespLoad::run(Recorder& recorder) {
  constexpr int kTurnMs = 20;
  for (const auto& connection : connections_) send_batch(*connection);
  std::array<epoll_event, 256> events{};
  while (!recorder.over(now_ns())) {
    const int count =
        epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()), kTurnMs);
    if (count < 0 && errno != EINTR) detail::fail("epoll_wait");
    for (int i = 0; i < count; ++i) {
      const epoll_event& event = events[static_cast<std::size_t>(i)];
      Connection& connection = *static_cast<Connection*>(event.data.ptr);
      if ((event.events & EPOLLOUT) != 0) flush(connection);
      if ((event.events & ~EPOLLOUT) == 0 || !receive(connection)) continue;
      take_replies(connection, recorder, now_ns());
      if (connection.waiting == 0) send_batch(connection);
    }
  }
  for (const auto& connection : connections_) {
    if (connection->waiting != 0) recorder.unanswered(connection->sent_at);
  }
}

inline void RespLoad::send_batch(Connection& connection) {
  connection.out.clear();
  connection.sent_bytes = 0;
  for (std::size_t i = 0; i < options_.pipeline && !workload_.exhausted(); ++i) {
    append_operation(connection.out);
    ++connection.waiting;
  }
  connection.sent_at = now_ns();
  flush(connection);
}

inline void RespLoad::append_operation(std::string& out) {
  const std::string_view key = workload_.next_key();
  if (options_.operation == Operation::kGet) return resp::append_command(out, {"GET", key});
  resp::append_command(out, {"SET", key, workload_.next_value()});
  if (options_.operation == Operation::kSetWait) resp::append_command(out, {"WAIT", "1", "0"});
}

inline void RespLoad::flush(Connection& connection) {
  const std::string_view rest = std::string_view(connection.out).substr(connection.sent_bytes);
  if (rest.empty()) return;
  const ssize_t sent =
      ::send(connection.socket.get(), rest.data(), rest.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
  if (sent < 0 && errno != EAGAIN && errno != EINTR) detail::fail("send");
  connection.sent_bytes += static_cast<std::size_t>(std::max<ssize_t>(sent, 0));
  const bool waits = connection.sent_bytes < connection.out.size();
  if (waits == connection.waits_for_room) return;
  connection.waits_for_room = waits;
  watch(connection, EPOLL_CTL_MOD, waits ? EPOLLIN | EPOLLOUT : EPOLLIN);
}

inline void RespLoad::watch(Connection& connection, int operation, std::uint32_t events) {
  epoll_event event{};
  event.events = events;
  event.data.ptr = &connection;
  if (epoll_ctl(epoll_.get(), operation, connection.socket.get(), &event) != 0) {
    detail::fail("epoll_ctl");
  }
}

inline bool RespLoad::receive(Connection& connection) {
  const ssize_t size =
      ::recv(connection.socket.get(), buffer_.data(), buffer_.size(), MSG_DONTWAIT);
  if (size == 0) throw std::runtime_error("the server closed a connection");
  if (size < 0 && errno != EAGAIN && errno != EINTR) detail::fail("recv");
  if (size > 0) connection.in.append(buffer_.data(), static_cast<std::size_t>(size));
  return size > 0;
}

inline void RespLoad::take_replies(Connection& connection, Recorder& recorder, Nanoseconds now) {
  std::size_t at = 0;
  while (connection.waiting != 0) {
    const resp::Status status = connection.parser.parse(std::string_view(connection.in).substr(at));
    at += connection.parser.consumed();
    if (status == resp::Status::kIncomplete) break;
    if (status == resp::Status::kError) throw std::runtime_error("not the Redis protocol");
    const resp::Value& reply = connection.parser.value();
    const bool right = is_right(reply, connection.half_answered);
    if (!right) recorder.complain(reply.text.empty() ? "not the right reply" : reply.text);
    connection.right = connection.right && right;
    connection.half_answered =
        options_.operation == Operation::kSetWait && !connection.half_answered;
    if (connection.half_answered) continue;
    recorder.answered(connection.sent_at, now, std::exchange(connection.right, true));
    --connection.waiting;
  }
  connection.in.erase(0, at);
}

inline bool RespLoad::is_right(const resp::Value& reply, bool is_wait) const {
  if (is_wait) return reply.kind == resp::Kind::kInteger && reply.integer >= 1;
  if (options_.operation != Operation::kGet) {
    return reply.kind == resp::Kind::kSimpleString && reply.text == "OK";
  }
  return reply.kind == resp::Kind::kBulkString && reply.text.size() == options_.value_size_bytes;
}

}  // namespace seshat::bench

#endif  // SESHAT_TESTS_BENCH_RESP_LOAD_HPP
