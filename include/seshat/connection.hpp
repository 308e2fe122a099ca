// seshat/connection.hpp - one client: requests in, replies out, in order.
//
//   bytes ──> RequestParser ──> kv::check ──> local: reply at once ──────────────────┐
//                                        ├──> read:  at once, or when it may ─────┐   │
//                                        └──> write: when it is applied ──────┐   │   │
//                                                                             v   v   v
//                                          pending_ (a deque, in order) ──> output ──> socket
//
// Keeps:    replies in the order of requests, however many are under way; a read sees the writes
//           that came before it on its connection, and none that came after (a write waits until
//           the reads before it are served). Bounds: a client with too much under way, or that does
//           not read its replies, is not read from until that changes.
// Threads:  the loop. Never touches a socket: server.hpp moves the bytes.
// Needs:    kv, node.
#ifndef SESHAT_CONNECTION_HPP
#define SESHAT_CONNECTION_HPP

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "seshat/command.hpp"
#include "seshat/kv.hpp"
#include "seshat/node.hpp"
#include "seshat/resp.hpp"
#include "seshat/slots.hpp"

namespace seshat {

// What a connection needs from the server that holds it. The server keeps a connection until it is
// idle(), also when its socket is gone: somebody still holds a Waiter of it.
class ConnectionHost {
 public:
  virtual ~ConnectionHost() = default;
  [[nodiscard]] virtual Node& node() = 0;
  [[nodiscard]] virtual const Site& site() const = 0;
  [[nodiscard]] virtual const kv::Limits& limits() const = 0;
  // Replies came, or more may be consumed: look at the connection at the end of this turn.
  virtual void wants_attention(std::uint64_t connection_id) = 0;
  virtual void count_command() = 0;
};

class Connection {
 public:
  Connection(ConnectionHost& host, const resp::Limits& limits, Session session)
      : host_(host), parser_(limits), session_(std::move(session)) {}
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  // Executes every complete request at the front of `input`, as far as the bounds allow. Returns
  // how many bytes were used; the caller drops them and passes the rest again, with more or not.
  [[nodiscard]] std::size_t consume(std::string_view input);
  // Replies to be sent; the server takes from the front.
  [[nodiscard]] std::string& output() { return output_; }
  [[nodiscard]] bool may_consume() const;
  // All that was asked is answered.
  [[nodiscard]] bool idle() const { return pending_.empty(); }
  // The client asked to close, or broke the protocol: nothing more is consumed, and when idle() and
  // all output is sent, the socket is to be closed.
  [[nodiscard]] bool closing() const { return closing_; }
  // The socket is gone: answers that still come are dropped.
  void disconnected() { closing_ = socket_gone_ = true; }
  [[nodiscard]] const Session& session() const { return session_; }

 private:
  // The bounds, for each client; one request more than they say may be taken in.
  static constexpr std::size_t kMaxPending = 4096;
  static constexpr std::size_t kMaxPendingSizeBytes = 8 << 20;
  static constexpr std::size_t kMaxOutputSizeBytes = 1 << 20;

  // A request whose reply waits: for itself, or for those before it.
  struct Request final : Waiter {
    Request(Connection& owner, const Command* of) : connection(owner), command(of) {}
    void done(const Outcome& outcome) override { connection.on_done(*this, outcome); }
    void readable() override { connection.serve_read(*this); }
    void failed(Refusal refusal) override { connection.on_failed(*this, refusal); }

    Connection& connection;
    const Command* command;  // null: one that could not be executed
    GroupId group;
    Slot slot = 0;
    bool answered = false;
    std::string reply;
    std::vector<std::string> args;  // of a read that has to wait
    std::size_t size_bytes = 0;     // counted in pending_size_bytes_
  };

  enum class Taken : std::uint8_t { kYes, kNotYet };

  [[nodiscard]] Taken execute(Args args);
  void run(const Command& command, Args args);
  void run_read(const Command& command, Args args);
  void run_write(const Command& command, Args args);
  [[nodiscard]] bool read_at_once(const Command& command, GroupId group, Args args);

  void on_done(Request& request, const Outcome& outcome);
  void on_failed(Request& request, Refusal refusal);
  void serve_read(Request& request);
  void read_from_disk(Request& request);
  void finish_read(Request& request);

  // Appends one reply, written by `write(std::string&)`, behind all that still wait.
  template <class Write>
  void reply_at_once(Write write);
  void reply_error(std::string_view text);
  Request& add_pending(const Command* command, std::size_t size_bytes);
  void answer(Request& request);
  [[nodiscard]] resp::Writer writer(std::string& out) const {
    return resp::Writer(out, session_.protocol);
  }
  [[nodiscard]] std::optional<GroupId> group_of_keys(const Command& command, Args args);

  ConnectionHost& host_;
  resp::RequestParser parser_;
  Session session_;
  std::deque<Request> pending_;
  std::size_t pending_size_bytes_ = 0;
  std::size_t waiting_reads_ = 0;
  std::string output_;
  std::string scratch_;
  bool closing_ = false;
  bool socket_gone_ = false;
};

// =================================================================================================
// Bodies
// =================================================================================================

namespace connection_detail {

inline std::size_t size_of(Args args) {
  std::size_t size_bytes = 0;
  for (const std::string_view arg : args) size_bytes += arg.size() + sizeof(arg);
  return size_bytes;
}

inline Slot slot_of_first_key(const Command& command, Args args) {
  std::optional<Slot> slot;
  for_each_key(command, args, [&](std::string_view key) {
    if (!slot) slot = slot_of(key);
  });
  return slot.value_or(Slot{0});
}

}  // namespace connection_detail

inline bool Connection::may_consume() const {
  return !closing_ && pending_.size() < kMaxPending &&
         pending_size_bytes_ < kMaxPendingSizeBytes && output_.size() < kMaxOutputSizeBytes;
}

inline std::size_t Connection::consume(std::string_view input) {
  std::size_t used = 0;
  while (may_consume()) {
    const resp::Status status = parser_.parse(input.substr(used));
    if (status == resp::Status::kError) {
      reply_error(parser_.error());
      closing_ = true;
    }
    // A request that has to wait for those before it stays in the input and is parsed once more.
    if (status == resp::Status::kComplete && execute(parser_.args()) == Taken::kNotYet) break;
    used += parser_.consumed();
    if (status != resp::Status::kComplete) break;
  }
  return used;
}

inline Connection::Taken Connection::execute(Args args) {
  scratch_.clear();
  resp::Writer errors = writer(scratch_);
  const Command* command = kv::check(args, host_.limits(), session_, errors);
  if (command != nullptr && command->is_write() && waiting_reads_ > 0) return Taken::kNotYet;
  session_.last_active_ms = host_.site().now_ms();
  host_.count_command();
  if (command != nullptr) {
    session_.last_command = command->name;
    run(*command, args);
    return Taken::kYes;
  }
  reply_at_once([&](std::string& out) { out += scratch_; });
  // A browser that was tricked into talking to us begins so; as Redis, we do not go on.
  closing_ = closing_ || equals_ignoring_case(args[0], "post") ||
             equals_ignoring_case(args[0], "host:");
  return Taken::kYes;
}

inline void Connection::run(const Command& command, Args args) {
  if (command.read != nullptr) return run_read(command, args);
  if (command.write != nullptr) return run_write(command, args);
  reply_at_once([&](std::string& out) {
    command.local(Call{command, args, session_, host_.site(), out});
  });
  closing_ = closing_ || session_.close_after_reply;
}

// ---- Reads -------------------------------------------------------------------------------------

// All keys of a request are in one group, or it is refused before anything is done.
inline std::optional<GroupId> Connection::group_of_keys(const Command& command, Args args) {
  std::optional<GroupId> group;
  std::string_view error;
  for_each_key(command, args, [&](std::string_view key) {
    const std::optional<GroupId> of_key = host_.node().group_of(slot_of(key));
    if (!of_key) error = "CLUSTERDOWN Hash slot not served";
    if (group && of_key != group) error = "CROSSSLOT Keys in request don't hash to the same slot";
    group = of_key;
  });
  if (error.empty()) return group;
  reply_error(error);
  return std::nullopt;
}

inline void Connection::run_read(const Command& command, Args args) {
  const std::optional<GroupId> group = group_of_keys(command, args);
  if (!group) return;
  const bool readable = host_.node().readable(*group, session_.last_write);
  if (readable && pending_.empty() && read_at_once(command, *group, args)) return;
  Request& request = add_pending(&command, connection_detail::size_of(args));
  request.group = *group;
  request.slot = connection_detail::slot_of_first_key(command, args);
  request.args.assign(args.begin(), args.end());
  ++waiting_reads_;
  if (readable) return serve_read(request);
  host_.node().read(*group, session_.last_write, request);
}

// The usual case: everything is in memory, and the reply goes straight to the output.
inline bool Connection::read_at_once(const Command& command, GroupId group, Args args) {
  resp::Writer reply = writer(output_);
  return command.read(host_.node().cached(group), args, reply) == Lookup::kFound;
}

inline void Connection::serve_read(Request& request) {
  const std::vector<std::string_view> args(request.args.begin(), request.args.end());
  resp::Writer reply = writer(request.reply);
  switch (request.command->read(host_.node().cached(request.group), args, reply)) {
    case Lookup::kNotInMemory:
      return read_from_disk(request);
    case Lookup::kFailed:
      reply.error("ERR storage failure");
      break;
    default:
      break;
  }
  finish_read(request);
}

// The pool may wait for the disk; the loop goes on meanwhile. The request stays where it is until
// its answer is back on the loop.
inline void Connection::read_from_disk(Request& request) {
  Node& node = host_.node();
  const resp::Protocol protocol = session_.protocol;
  node.read_from_disk(request.group, [this, &node, &request, protocol](const OrderedMap& map) {
    const std::vector<std::string_view> args(request.args.begin(), request.args.end());
    resp::Writer reply(request.reply, protocol);
    if (request.command->read(map, args, reply) != Lookup::kFound) {
      reply.error("ERR storage failure");
    }
    node.post([this, &request] { finish_read(request); });
  });
}

inline void Connection::finish_read(Request& request) {
  --waiting_reads_;
  answer(request);
}

// ---- Writes ------------------------------------------------------------------------------------

inline void Connection::run_write(const Command& command, Args args) {
  const std::optional<GroupId> group = group_of_keys(command, args);
  if (!group) return;
  if ((command.flags & kDenyOom) != 0 && host_.node().disk_is_full()) {
    return reply_error(
        "ERR disk full: less than limits.min_free_disk_mb is left on a majority of the nodes");
  }
  Operation operation;
  if (const auto problem = command.write(args, operation)) return reply_error(*problem);
  Request& request = add_pending(&command, connection_detail::size_of(args));
  request.group = *group;
  request.slot = connection_detail::slot_of_first_key(command, args);
  const Index index = host_.node().propose(*group, std::move(operation), request);
  session_.last_write = std::max(session_.last_write, index);
}

inline void Connection::on_done(Request& request, const Outcome& outcome) {
  resp::Writer reply = writer(request.reply);
  kv::reply_outcome(outcome, reply);
  answer(request);
}

inline void Connection::on_failed(Request& request, Refusal refusal) {
  writer(request.reply).error(host_.node().refusal_text(request.slot, refusal));
  if (refusal == Refusal::kUnknown) session_.last_write = {};
  if (request.command->read != nullptr) --waiting_reads_;
  answer(request);
}

// ---- Order -------------------------------------------------------------------------------------

template <class Write>
void Connection::reply_at_once(Write write) {
  if (pending_.empty()) return write(output_);
  Request& request = add_pending(nullptr, 0);
  write(request.reply);
  answer(request);
}

inline void Connection::reply_error(std::string_view text) {
  reply_at_once([&](std::string& out) { writer(out).error(text); });
}

inline Connection::Request& Connection::add_pending(const Command* command,
                                                    std::size_t size_bytes) {
  Request& request = pending_.emplace_back(*this, command);
  request.size_bytes = size_bytes;
  pending_size_bytes_ += size_bytes;
  return request;
}

// Moves every reply that is next in order to the output.
inline void Connection::answer(Request& request) {
  request.answered = true;
  request.size_bytes += request.reply.size();
  pending_size_bytes_ += request.reply.size();
  while (!pending_.empty() && pending_.front().answered) {
    if (!socket_gone_) output_ += pending_.front().reply;
    pending_size_bytes_ -= pending_.front().size_bytes;
    pending_.pop_front();
  }
  host_.wants_attention(session_.id);
}

}  // namespace seshat

#endif  // SESHAT_CONNECTION_HPP
