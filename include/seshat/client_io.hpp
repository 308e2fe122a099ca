// seshat/client_io.hpp - the socket work of clients, on a loop of its own beside the heart.
//
//   the heart ── read, write, close ──> [ tasks of a turn ] ──> IoLoop: recv, send, epoll
//             <── [ events of a turn ] <────────────────────────┘
//
// A ClientSocket is one socket with its buffers. A loop that has it reads and writes it by read_some,
// send_now and send_rest. Either the heart is that loop, and nothing else here is used; or an IoLoop
// is, and then the heart gives it tasks and hears of their end. What one turn of a loop gathered goes
// over in one batch, with at most one wake-up under way.
//
// A client that speaks TLS has a tls::Session beside its socket. What is read goes through it before
// anybody sees it, and what is sent before it leaves: here, on the loop that has the socket. Its first
// read has the handshake in it, which ends when there is something to be read.
//
// Keeps:    every task brings exactly one event, so that the heart is the last to hold a socket; the
//           tasks of a socket are done in the order in which they were given.
// Bounds:   a client has at most one read, one write and one close under way; so has every queue here.
// Threads:  an IoLoop has one, which alone touches its sockets; its calls are the heart's. A read that
//           is under way owns the input of its client, a write that is under way what it sends: the
//           heart touches neither until it has heard of the end. The heart's own sockets are touched in
//           its turns only (enter()).
// Needs:    mailbox, thread_name, tls; asio (standalone).
#ifndef SESHAT_CLIENT_IO_HPP
#define SESHAT_CLIENT_IO_HPP

#include <algorithm>
#include <asio/buffer.hpp>
#include <asio/error.hpp>
#include <asio/error_code.hpp>
#include <asio/executor_work_guard.hpp>
#include <asio/io_context.hpp>
#include <asio/ip/tcp.hpp>
#include <asio/post.hpp>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "seshat/mailbox.hpp"
#include "seshat/thread_name.hpp"
#include "seshat/tls.hpp"

namespace seshat {

struct ClientSocket {
  explicit ClientSocket(asio::ip::tcp::socket accepted) : socket(std::move(accepted)) {}
  ClientSocket(const ClientSocket&) = delete;
  ClientSocket& operator=(const ClientSocket&) = delete;
  virtual ~ClientSocket() = default;

  // Something has happened to it, and its loop is about to see to that.
  virtual void enter() {}

  // Read, and not consumed.
  [[nodiscard]] std::string_view unconsumed() const {
    return {input.data() + input_begin, input_end - input_begin};
  }

  asio::ip::tcp::socket socket;
  std::string input;
  std::size_t input_begin = 0;
  std::size_t input_end = 0;
  std::string sending;
  std::size_t sent = 0;  // of it
  // In all; any loop may look whether the client takes what is sent.
  std::atomic<std::uint64_t> total_sent_bytes{0};
  std::unique_ptr<tls::Session> tls;  // null: bytes go as they are
};

// ---- On the loop that has the socket ---------------------------------------------------------------

// Makes room for a read; what is left of the input is the beginning of a request. Whoever owns the
// input calls it.
void make_room(ClientSocket& client);

// Waits for bytes, and then calls done(client, error, size); they stand behind input_end. `error` of a
// client with TLS is invalid_argument when it breaks that; tls->problem() says how.
template <class Client, class Done>
void read_some(const std::shared_ptr<Client>& client, Done done);

// Sends what goes at once of `sending`, which is sealed first where there is TLS. Whether that was all;
// `error` is set when the client is gone.
[[nodiscard]] bool send_now(ClientSocket& client, asio::error_code& error);

// Sends the rest as the client takes it, and then calls done(client, error).
template <class Client, class Done>
void send_rest(const std::shared_ptr<Client>& client, Done done);

void close_socket(ClientSocket& client);

// ---- A loop beside the heart -------------------------------------------------------------------------

// A task that has ended.
struct SocketEvent {
  enum class What : std::uint8_t { kRead, kWritten, kClosed };
  What what = What::kRead;
  std::shared_ptr<ClientSocket> client;
  asio::error_code error = {};
  std::size_t size_bytes = 0;  // of what was read
};

class IoLoop {
 public:
  using ClientPtr = std::shared_ptr<ClientSocket>;

  // Starts its thread. `name`: of that, at most 15 characters. Events go to `events`, which the loops
  // of one heart share.
  IoLoop(std::string name, Mailbox<SocketEvent>& events);
  ~IoLoop() { stop(); }
  IoLoop(const IoLoop&) = delete;
  IoLoop& operator=(const IoLoop&) = delete;

  // For accepting: a socket that was made in it belongs here, from the first task on.
  [[nodiscard]] asio::io_context& context() { return io_; }
  // A client was accepted for this loop; counted until close().
  void count_in() { ++clients_; }
  [[nodiscard]] std::size_t clients() const { return clients_; }

  // Each takes effect with hand_over(). After make_room; ends when bytes came.
  void read(ClientPtr client) { give(Task::What::kRead, std::move(client)); }
  // Sends all of `sending`.
  void write(ClientPtr client) { give(Task::What::kWrite, std::move(client)); }
  // The last task of a client; what else is under way for it ends with an error.
  void close(ClientPtr client) {
    --clients_;
    give(Task::What::kClose, std::move(client));
  }
  // The end of a turn of the heart: what was given goes over.
  void hand_over() { tasks_.push_all(given_); }

  // Does what it was given, as far as nobody has to be waited for, and ends the thread; the events of
  // all that are in the mailbox then. From there on the caller may touch the sockets.
  void stop();

 private:
  struct Task {
    enum class What : std::uint8_t { kRead, kWrite, kClose };
    What what = What::kRead;
    ClientPtr client;
  };

  void give(Task::What what, ClientPtr client) { given_.push_back({what, std::move(client)}); }
  void run(const std::string& name);
  void perform_tasks();
  void perform(Task& task);
  void write_all(const ClientPtr& client);
  void tell(SocketEvent::What what, const ClientPtr& client, const asio::error_code& error,
            std::size_t size_bytes = 0) {
    told_.push_back({what, client, error, size_bytes});
  }

  asio::io_context io_{1};

  // The heart's
  std::vector<Task> given_;
  std::size_t clients_ = 0;

  // Both
  Mailbox<Task> tasks_;
  Mailbox<SocketEvent>& events_;

  // The thread's
  std::vector<Task> taken_;
  std::vector<SocketEvent> told_;
  bool stopping_ = false;

  std::thread thread_;
};

// =================================================================================================
// Bodies
// =================================================================================================

namespace client_io_detail {

inline constexpr std::size_t kFirstReadSizeBytes = 16 * 1024;
// A larger buffer is given back when it is empty.
inline constexpr std::size_t kKeptBufferSizeBytes = 64 * 1024;
// A loop that always finds something ready still tells of what it did.
inline constexpr int kMaxHandlersPerTurn = 256;

}  // namespace client_io_detail

// ---- On the loop that has the socket ---------------------------------------------------------------

inline void make_room(ClientSocket& client) {
  if (client.input_begin == client.input_end) {
    client.input_begin = client.input_end = 0;
    if (client.input.size() > client_io_detail::kKeptBufferSizeBytes) {
      std::string().swap(client.input);  // an assignment would keep the memory
    }
  }
  if (client.input.empty()) client.input.resize(client_io_detail::kFirstReadSizeBytes);
  if (client.input_end < client.input.size()) return;
  // Full: move what is left to the front, and if that is most of it, make room for as much again.
  client.input.erase(0, client.input_begin);
  client.input_end -= client.input_begin;
  client.input_begin = 0;
  client.input.resize(std::max(client.input.capacity(), 2 * client.input_end));
}

namespace client_io_detail {

// Whether it is; what a large reply took is given back then.
inline bool all_is_sent(ClientSocket& client) {
  if (client.sent < client.sending.size()) return false;
  if (client.sending.capacity() > kKeptBufferSizeBytes) {
    std::string().swap(client.sending);
    client.sent = 0;
  }
  return true;
}

// Sends what the handshake has to say. Nothing else is sent then: nobody has asked anything yet.
template <class Client, class Done>
void answer_handshake(const std::shared_ptr<Client>& client, Done done) {
  if (client->tls->output().empty()) return read_some(client, done);
  std::swap(client->sending, client->tls->output());
  client->sent = 0;
  send_rest(client, [done](const std::shared_ptr<Client>& of, const asio::error_code& error) {
    of->sending.clear();
    error ? done(of, error, 0) : read_some(of, done);
  });
}

// That nothing follows, or what was wrong; as far as it can be said at once.
inline void send_last_words(ClientSocket& client) {
  const bool is_sending = client.sent < client.sending.size();
  if (is_sending) return;
  client.tls->close();
  if (client.tls->output().empty()) return;
  asio::error_code ignored;
  client.socket.write_some(asio::buffer(client.tls->output()), ignored);
}

// `size` sealed bytes came; they stand behind input_end, and what they say takes their place.
template <class Client, class Done>
void was_read_sealed(const std::shared_ptr<Client>& client, std::size_t size, Done done) {
  using Status = tls::Session::Status;
  const bool was_established = client->tls->is_established();
  std::size_t end = client->input_end;
  const std::string_view sealed(client->input.data() + end, size);
  const Status status = client->tls->open(sealed, client->input, end);
  const std::size_t opened = end - client->input_end;
  if (opened > 0) return done(client, asio::error_code(), opened);
  if (status == Status::kOpen && was_established) return read_some(client, done);
  // Also where this was its end: in TLS 1.2 the last word of it is ours.
  if (status == Status::kOpen) return answer_handshake(client, done);
  const asio::error_code broken = asio::error::invalid_argument;
  const asio::error_code ended = asio::error::eof;
  done(client, status == Status::kClosed ? ended : broken, 0);
}

}  // namespace client_io_detail

template <class Client, class Done>
void read_some(const std::shared_ptr<Client>& client, Done done) {
  if (client->tls && client->tls->has_ended()) {  // with the bytes that were handed on before
    return asio::post(client->socket.get_executor(),
                      [client, done] { done(client, asio::error::eof, 0); });
  }
  client->socket.async_read_some(
      asio::buffer(client->input.data() + client->input_end,
                   client->input.size() - client->input_end),
      [client, done = std::move(done)](const asio::error_code& error, std::size_t size) {
        client->enter();
        if (client->tls && !error) return client_io_detail::was_read_sealed(client, size, done);
        done(client, error, size);
      });
}

inline bool send_now(ClientSocket& client, asio::error_code& error) {
  if (client.tls && !client.tls->seal(client.sending)) {
    error = asio::error::invalid_argument;
    client.sent = client.sending.size();  // none of it is on its way
    return false;
  }
  client.sent = client.socket.write_some(asio::buffer(client.sending), error);
  client.total_sent_bytes.fetch_add(client.sent, std::memory_order_relaxed);
  if (error == asio::error::would_block) error.clear();
  return client_io_detail::all_is_sent(client);
}

template <class Client, class Done>
void send_rest(const std::shared_ptr<Client>& client, Done done) {
  client->socket.async_write_some(
      asio::buffer(client->sending.data() + client->sent, client->sending.size() - client->sent),
      [client, done = std::move(done)](const asio::error_code& error, std::size_t size) {
        client->enter();
        client->sent += size;
        client->total_sent_bytes.fetch_add(size, std::memory_order_relaxed);
        if (client_io_detail::all_is_sent(*client) || error) return done(client, error);
        send_rest(client, done);
      });
}

inline void close_socket(ClientSocket& client) {
  asio::error_code ignored;
  if (client.tls) client_io_detail::send_last_words(client);
  client.socket.shutdown(asio::ip::tcp::socket::shutdown_both, ignored);
  client.socket.close(ignored);
}

// ---- A loop beside the heart -------------------------------------------------------------------------

inline IoLoop::IoLoop(std::string name, Mailbox<SocketEvent>& events)
    : tasks_([this] { asio::post(io_, [this] { perform_tasks(); }); }, 0), events_(events) {
  thread_ = std::thread([this, name = std::move(name)] { run(name); });
}

inline void IoLoop::stop() {
  if (!thread_.joinable()) return;
  hand_over();
  asio::post(io_, [this] { stopping_ = true; });  // behind the wake-up for what was handed over
  thread_.join();
}

// Everything that is ready, up to a bound; then the heart hears of it.
inline void IoLoop::run(const std::string& name) {
  name_this_thread(name.c_str());
  const auto stay = asio::make_work_guard(io_);
  while (!stopping_) {
    io_.run_one();
    for (int i = 1; i < client_io_detail::kMaxHandlersPerTurn && io_.poll_one() != 0; ++i) {
    }
    events_.push_all(told_);
  }
}

inline void IoLoop::perform_tasks() {
  tasks_.take(taken_);
  for (Task& task : taken_) perform(task);
  taken_.clear();
}

inline void IoLoop::perform(Task& task) {
  switch (task.what) {
    case Task::What::kRead:
      return read_some(task.client, [this](const ClientPtr& client, const asio::error_code& error,
                                           std::size_t size_bytes) {
        tell(SocketEvent::What::kRead, client, error, size_bytes);
      });
    case Task::What::kWrite:
      return write_all(task.client);
    case Task::What::kClose:
      close_socket(*task.client);
      return tell(SocketEvent::What::kClosed, task.client, {});
  }
}

inline void IoLoop::write_all(const ClientPtr& client) {
  asio::error_code error;
  if (send_now(*client, error) || error) {
    return tell(SocketEvent::What::kWritten, client, error);
  }
  send_rest(client, [this](const ClientPtr& written, const asio::error_code& failure) {
    tell(SocketEvent::What::kWritten, written, failure);
  });
}

}  // namespace seshat

#endif  // SESHAT_CLIENT_IO_HPP
