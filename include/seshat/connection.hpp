// seshat/connection.hpp - one client: requests in, replies out, in order.
//
//   bytes ──> RequestParser ──> kv::check ──> local: reply at once ──────────────────┐
//                                        ├──> read:  at once, or when it may ─────┐   │
//                                        ├──> write, EXEC: when applied ──────┐   │   │
//                                        └──> admin: when the cluster answers ┤   │   │
//                                                                             v   v   v
//                                          pending_ (a deque, in order) ──> output ──> socket
//
// Keeps:    replies in the order of requests, however many are under way; a read sees the writes
//           that came before it on its connection, and none that came after (a write waits until
//           the reads before it are served).
// Bounds:   what is under way, with room for the replies it may bring, and the output. A client
//           that reaches one is not read from until that changes.
// Threads:  the loop; what reads from the disk runs on the pool and touches its own Request only.
//           Never touches a socket: server.hpp moves the bytes.
// Needs:    kv (and the Database and Site of command.hpp), resp.
#ifndef SESHAT_CONNECTION_HPP
#define SESHAT_CONNECTION_HPP

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "seshat/admin_commands.hpp"
#include "seshat/client_commands.hpp"
#include "seshat/command.hpp"
#include "seshat/connection_commands.hpp"
#include "seshat/key_commands.hpp"
#include "seshat/kv.hpp"
#include "seshat/records.hpp"
#include "seshat/replica.hpp"
#include "seshat/resp.hpp"
#include "seshat/slots.hpp"
#include "seshat/state_machine.hpp"
#include "seshat/transaction.hpp"

namespace seshat {

// What a connection needs from the server that holds it. The server keeps a connection until it is
// idle(), also when its socket is gone: somebody still holds a Waiter of it.
class ConnectionHost {
 public:
  virtual ~ConnectionHost() = default;
  [[nodiscard]] virtual Database& database() = 0;
  [[nodiscard]] virtual Site& site() = 0;
  [[nodiscard]] virtual const kv::Limits& limits() const = 0;
  // Replies came, or more may be consumed: look at the connection at the end of this turn.
  virtual void wants_attention(std::uint64_t connection_id) = 0;
  virtual void count_command() = 0;
};

class Connection {
 public:
  Connection(ConnectionHost& host, const resp::Limits& limits, Session session)
      : host_(host),
        site_(host.site()),
        door_(site_.door()),
        parser_(limits),
        session_(std::move(session)) {}
  // The bounds, for each client; one request more than they say may be taken in.
  static constexpr std::size_t kMaxPending = 4096;
  static constexpr std::size_t kMaxPendingSizeBytes = 4 << 20;
  static constexpr std::size_t kMaxOutputSizeBytes = 1 << 20;

  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  // Executes every complete request at the front of `input`, as far as the bounds allow. Returns
  // how many bytes were used; the caller drops them and passes the rest again, with more or not.
  [[nodiscard]] std::size_t consume(std::string_view input);
  // All requests that are complete were taken; only more bytes can help. While this is false and
  // may_consume() is true, there is something to consume.
  [[nodiscard]] bool needs_input() const { return needs_input_; }
  // Replies to be sent: while they are not taken, few more are put there.
  [[nodiscard]] const std::string& output() const { return output_; }
  // What `into` held goes, its memory is used again.
  void take_output(std::string& into);
  [[nodiscard]] bool may_consume() const;
  // All that was asked is answered.
  [[nodiscard]] bool idle() const { return pending_.empty(); }
  // The client asked to close, or broke the protocol: nothing more is consumed, and when idle() and
  // all output is sent, the socket is to be closed.
  [[nodiscard]] bool closing() const { return closing_; }
  // The socket is gone: answers that still come are dropped.
  void disconnected();
  [[nodiscard]] const Session& session() const { return session_; }
  // The server's own word to a session: it is let in, or shall close.
  void let_in() { session_.authenticated = true; }
  void turn_away(std::string_view error) {
    reply_error(error);
    closing_ = true;
  }
  // A pause holds a request back, which is still in the input.
  [[nodiscard]] bool is_paused() const { return paused_; }
  // A pause has begun or ended: the request looks again.
  void pause_changed() { paused_ = false; }
  // Somebody else than the client is waited for.
  [[nodiscard]] bool owes_answer() const {
    return paused_ || (!pending_.empty() && !pending_.front().answered);
  }

 private:
  // A request whose reply waits: for itself, or for those before it.
  struct Request final : Waiter {
    Request(Connection& owner, const Command* of)
        : connection(owner), command(of), protocol(owner.session_.protocol) {}
    [[nodiscard]] bool is_read() const { return command != nullptr && command->read != nullptr; }
    [[nodiscard]] resp::Writer writer() { return resp::Writer(reply, protocol); }
    void keep_first_argument(std::string_view argument) {
      first_argument_size = argument.size();
      argument.copy(first_argument.data(), first_argument.size());
    }
    void done(const Outcome& outcome) override { connection.on_done(*this, outcome); }
    void readable() override { connection.serve_read(*this); }
    void failed(Refusal refusal) override { connection.on_failed(*this, refusal); }

    Connection& connection;
    const Command* command;   // null: it was answered when it came
    resp::Protocol protocol;  // as of the request: a HELLO may follow before the reply is written
    GroupId group;
    Slot slot = 0;
    WriteMark mark;  // of a write
    bool answered = false;
    std::string reply;
    int waits_for_time = 0;                             // so far
    std::vector<std::string> args;                      // of a read that has to wait
    std::vector<TransactionQueue::Queued> transaction;  // of an EXEC: what was queued
    std::size_t size_bytes = 0;                         // counted in pending_size_bytes_
    bool muted = false;                                 // CLIENT REPLY: nobody wants to know
    // For when its command ends, if it did not at once: Door::count and the slow log
    bool is_measured = false;
    std::uint64_t began_us = 0;
    std::array<char, 64> first_argument{};  // its beginning, without memory of its own
    std::size_t first_argument_size = 0;    // of all of it
    std::size_t argument_count = 0;
  };

  // Other keys of a read may come due meanwhile, but not for ever.
  static constexpr int kMaxWaitsForTime = 16;
  static constexpr std::string_view kNotServed = "CLUSTERDOWN Hash slot not served";

  enum class Taken : std::uint8_t { kYes, kNotYet };

  // Where the keys of a request are.
  struct Place {
    GroupId group;
    Slot slot;  // of the first key
  };

  [[nodiscard]] Taken execute(Args args, std::uint64_t& now_us);
  [[nodiscard]] bool has_to_wait(const Command& command);
  void run_measured(const Command& command, Args args, std::uint64_t& now_us);
  template <class Logged>
  void count(const Command& command, std::uint64_t took_us, std::string_view reply, Logged logged);
  void run(const Command& command, Args args);
  void run_read(const Command& command, Args args);
  void run_write(const Command& command, Args args);
  void run_admin(const Command& command, Args args);
  void refuse(Args args);
  void queue(const Command& command, Args args);
  void run_exec(const Command& command);
  // One more key, which must be where the others are.
  void add_place(std::string_view key, std::optional<Place>& place, std::string_view& error) const;
  [[nodiscard]] std::optional<Place> place_of_transaction(const TransactionQueue& transaction);
  void reply_transaction(Request& request, const Outcome& outcome);
  void finish_watch(Request& request);
  void wait_for_time(Request& request);
  [[nodiscard]] ReadCall read_call(const Command& command, Place place, Args args,
                                   const OrderedMap& map, ReadScratch& scratch) const;
  [[nodiscard]] bool read_at_once(const Command& command, Place place, Args args);
  [[nodiscard]] Lookup read_cached(const Command& command, Place place, Args args,
                                   resp::Writer& reply);

  [[nodiscard]] bool all_know(const Operation& operation) const;
  void on_done(Request& request, const Outcome& outcome);
  void on_failed(Request& request, Refusal refusal);
  void serve_read(Request& request);
  void read_from_disk(Request& request);

  // Appends one reply, written by `write(std::string&)`, behind all that still wait.
  template <class Write>
  void reply_at_once(Write write);
  void reply_error(std::string_view text);
  Request& add_pending(const Command* command, std::size_t size_bytes);
  Request& add_pending(const Command& command, Place place, Args args, std::size_t reply_bytes);
  [[nodiscard]] static std::vector<std::string> logged_arguments(const Request& request);
  void answer(Request& request);
  void flush();
  [[nodiscard]] resp::Writer writer(std::string& out) const {
    return resp::Writer(out, session_.protocol);
  }
  [[nodiscard]] std::optional<Place> place_of_keys(const Command& command, Args args);
  [[nodiscard]] WriteMark last_write(GroupId group) const;
  void note_write(Request& request, WriteMark mark);
  void wait_to_read(Request& request);

  ConnectionHost& host_;
  Site& site_;
  Door& door_;
  resp::RequestParser parser_;
  Session session_;
  std::deque<Request> pending_;
  std::size_t pending_size_bytes_ = 0;
  std::size_t waiting_reads_ = 0;
  std::size_t waiting_watches_ = 0;  // of them
  bool write_waits_ = false;         // for those reads; it is still in the input
  bool next_waits_ = false;          // ... for all replies before it
  bool paused_ = false;
  std::map<GroupId, WriteMark> last_writes_;  // reads of this connection must see them
  std::string output_;
  std::string errors_;        // of the request under way
  ReadScratch read_scratch_;  // of the loop's reads
  bool needs_input_ = true;
  bool closing_ = false;
  bool socket_gone_ = false;
};

// =================================================================================================
// Bodies
// =================================================================================================

namespace connection_detail {

inline constexpr std::string_view kDiskFull =
    "ERR disk full: less than limits.min_free_disk_mb is left on a majority of the nodes";
inline constexpr std::string_view kNotKnownToAll =
    "ERR not every node of the cluster knows this command yet: upgrade those that run an older "
    "seshat";

// What does not wait for EXEC.
inline bool runs_in_transaction(const Command& command) {
  namespace commands = connection_commands;
  return command.local == &commands::multi || command.local == &commands::exec ||
         command.local == &commands::discard || command.local == &commands::reset ||
         command.local == &commands::quit || command.read == &key_commands::watch;
}

// What a command may have every node read or write, beyond what it brings itself.
inline std::uint64_t may_take(const Command& command, Args args, const kv::Limits& limits) {
  const bool returns_old = command.write == &string_commands::set && args.size() > 3;
  if ((command.flags & kLarge) == 0 && !returns_old) return 0;
  std::uint64_t keys = 0;
  for_each_key(command, args, [&](std::string_view) { ++keys; });
  return keys * limits.max_value_size_bytes;
}

// How the replies that EXEC gives together are written, or whether.
inline bool changes_replies(const Command& command) {
  return command.local == &connection_commands::hello || command.local == &client_commands::reply;
}

// What a request may take while it waits.
inline std::size_t size_of(Args args) {
  std::size_t size_bytes = 0;
  for (const std::string_view arg : args) size_bytes += arg.size() + sizeof(std::string);
  return size_bytes;
}

// What a large value took is not kept by every connection that once read one.
inline constexpr std::size_t kKeptScratchSizeBytes = 4096;

inline void release_excess(ReadScratch& scratch) {
  if (scratch.record.capacity() > kKeptScratchSizeBytes) std::string().swap(scratch.record);
}

// How a browser that was tricked into talking to us begins. As Redis, we hang up: its next lines
// may hold commands.
inline bool is_http(std::string_view name) {
  return equals_ignoring_case(name, "post") || equals_ignoring_case(name, "host:");
}

}  // namespace connection_detail

inline bool Connection::may_consume() const {
  return !closing_ && !write_waits_ && !next_waits_ && !paused_ && pending_.size() < kMaxPending &&
         pending_size_bytes_ < kMaxPendingSizeBytes && output_.size() < kMaxOutputSizeBytes;
}

inline std::size_t Connection::consume(std::string_view input) {
  std::size_t used = 0;
  needs_input_ = false;
  std::uint64_t now_us = site_.now_us();
  while (may_consume()) {
    parser_.set_trusted(session_.authenticated);
    const resp::Status status = parser_.parse(input.substr(used));
    if (status == resp::Status::kError) {
      reply_error(parser_.error());
      closing_ = true;
    }
    // What has to wait, as a write does for reads before it, stays in the input and is parsed once
    // more.
    if (status == resp::Status::kComplete && execute(parser_.args(), now_us) == Taken::kNotYet) {
      break;
    }
    used += parser_.consumed();
    needs_input_ = status == resp::Status::kIncomplete;
    if (status != resp::Status::kComplete) break;
  }
  return used;
}

// Whether it may not run yet; then something will wake it.
inline bool Connection::has_to_wait(const Command& command) {
  const bool waits_for_replies = (command.flags & kWaitsForReplies) != 0;
  const bool may_write = command.is_write() || command.local == &connection_commands::exec;
  // What ends a transaction, or what is watched, comes after a WATCH that is still being read.
  const bool forgets = command.local == &connection_commands::discard ||
                       command.local == &connection_commands::unwatch ||
                       command.local == &connection_commands::reset;
  // What is read after a WATCH must not be older than what it remembers.
  const bool follows_watch = command.read != nullptr && waiting_watches_ > 0;
  write_waits_ = (may_write || forgets || follows_watch) && waiting_reads_ > 0;
  next_waits_ = waits_for_replies && !pending_.empty();
  paused_ = door_.holds(may_write);
  return write_waits_ || next_waits_ || paused_;
}

inline Connection::Taken Connection::execute(Args args, std::uint64_t& now_us) {
  if (connection_detail::is_http(args[0])) {
    closing_ = true;
    return Taken::kYes;
  }
  errors_.clear();
  resp::Writer errors = writer(errors_);
  const Command* command = kv::check(args, host_.limits(), session_, errors);
  if (command != nullptr && has_to_wait(*command)) return Taken::kNotYet;
  session_.skips_reply = std::exchange(session_.skips_next_reply, false);
  session_.last_active_ms = site_.now_ms();
  host_.count_command();
  // Behind others, a reply that nobody wants is dropped where it waits (Request::muted).
  const std::size_t written = pending_.empty() ? output_.size() : std::string::npos;
  if (command != nullptr) {
    session_.last_command = command->name;
    const bool queues =
        session_.transaction.active() && !connection_detail::runs_in_transaction(*command);
    if (queues) {
      queue(*command, args);
    } else {
      run_measured(*command, args, now_us);
    }
  } else {
    if (errors_.starts_with('-')) {
      door_.count_error(std::string_view(errors_).substr(1));
    }
    refuse(args);
  }
  if (session_.is_muted() && written != std::string::npos) output_.resize(written);
  return Taken::kYes;
}

// What is answered when run() returns is counted here, the rest when its answer comes.
inline void Connection::run_measured(const Command& command, Args args, std::uint64_t& now_us) {
  const std::uint64_t began_us = now_us;
  const std::size_t waiting = pending_.size();
  const std::size_t written = output_.size();
  run(command, args);
  if (pending_.size() > waiting && !pending_.back().answered) {
    Request& request = pending_.back();
    request.is_measured = true;
    request.began_us = began_us;
    if (args.size() > 1) request.keep_first_argument(args[1]);
    request.argument_count = args.size();
    return;
  }
  now_us = site_.now_us();
  const std::string_view reply = pending_.empty() ? std::string_view(output_).substr(written)
                                                  : std::string_view(pending_.back().reply);
  count(command, now_us - began_us, reply, [&] { return seshat::logged_arguments(args); });
}

// `logged()`: what the slow log shows of the request.
template <class Logged>
void Connection::count(const Command& command, std::uint64_t took_us, std::string_view reply,
                       Logged logged) {
  const bool failed = reply.starts_with('-');
  door_.count(command.name, took_us, failed);
  if (failed) door_.count_error(reply.substr(1));
  if (door_.slow_log.wants(took_us) && (command.flags & kSkipSlowlog) == 0) {
    door_.slow_log.add(
        {0, site_.wall_us() / 1'000'000, took_us, logged(), session_.address, session_.name});
  }
  if (door_.latency.wants(took_us)) {
    door_.latency.add((command.flags & kFast) != 0 ? "fast-command" : "command",
                      site_.wall_us() / 1'000'000, took_us);
  }
}

inline void Connection::run(const Command& command, Args args) {
  if (command.read != nullptr) return run_read(command, args);
  if (command.write != nullptr) return run_write(command, args);
  if (command.admin != nullptr) return run_admin(command, args);
  const TransactionQueue& transaction = session_.transaction;
  const bool has_work = !transaction.commands().empty() || !transaction.watched().empty();
  if (command.local == &connection_commands::exec && transaction.active() &&
      !transaction.broken() && has_work) {
    return run_exec(command);
  }
  reply_at_once([&](std::string& out) {
    command.local(Call{command, args, session_, site_, out});
  });
  closing_ = closing_ || session_.close_after_reply;
}

// ---- Reads --------------------------------------------------------------------------------------

// All keys of a request are in one group, or it is refused before anything is done. What is about all
// keys belongs to the only group there is.
inline std::optional<Connection::Place> Connection::place_of_keys(const Command& command,
                                                                  Args args) {
  std::optional<Place> place;
  std::string_view error;
  if (command.keys.first == 0) {
    const std::optional<GroupId> group = host_.database().group_of(0);
    if (group) return Place{*group, 0};
    error = kNotServed;
  }
  for_each_key(command, args, [&](std::string_view key) { add_place(key, place, error); });
  if (error.empty()) return place;
  reply_error(error);
  return std::nullopt;
}

inline void Connection::add_place(std::string_view key, std::optional<Place>& place,
                                  std::string_view& error) const {
  const Slot slot = slot_of(key);
  const std::optional<GroupId> group = host_.database().group_of(slot);
  if (!group) error = kNotServed;
  if (place && group != place->group) {
    error = "CROSSSLOT Keys in request don't hash to the same slot";
  }
  if (group && !place) place = Place{*group, slot};
}

inline WriteMark Connection::last_write(GroupId group) const {
  const auto found = last_writes_.find(group);
  return found == last_writes_.end() ? WriteMark{} : found->second;
}

inline void Connection::note_write(Request& request, WriteMark mark) {
  if (mark.was_refused()) return;  // and answered
  request.mark = mark;
  last_writes_[request.group] = mark;
}

inline void Connection::run_read(const Command& command, Args args) {
  const std::optional<Place> place = place_of_keys(command, args);
  if (!place) return;
  const bool readable =
      host_.database().readable(place->group, last_write(place->group), session_.read_only);
  const bool is_watch = command.read == &key_commands::watch;
  if (is_watch && session_.transaction.active()) {
    return reply_error("ERR WATCH inside MULTI is not allowed");
  }
  if (is_watch && !session_.transaction.may_watch(args.size() - 1)) {
    session_.transaction.fail_watch();
    return reply_error("ERR too many watched keys: at most " +
                       std::to_string(TransactionQueue::kMaxWatched) + " on a connection");
  }
  if (readable && !is_watch && (command.flags & kScan) == 0 && pending_.empty() &&
      read_at_once(command, *place, args))
    return;
  // The reply comes when nobody asks for room any more: the room for it is taken now.
  Request& request = add_pending(command, *place, args, host_.limits().max_value_size_bytes);
  request.args.assign(args.begin(), args.end());
  ++waiting_reads_;
  if (is_watch) ++waiting_watches_;
  if (readable) return serve_read(request);
  wait_to_read(request);
}

inline void Connection::wait_to_read(Request& request) {
  host_.database().read(request.group, last_write(request.group), session_.read_only, request);
}

// The usual case: everything is in memory, and the reply goes straight to the output.
inline bool Connection::read_at_once(const Command& command, Place place, Args args) {
  resp::Writer reply = writer(output_);
  return read_cached(command, place, args, reply) == Lookup::kFound;
}

// kFound: it has replied.
inline Lookup Connection::read_cached(const Command& command, Place place, Args args,
                                      resp::Writer& reply) {
  const OrderedMap& map = host_.database().cached(place.group);
  read_scratch_.hits = read_scratch_.misses = 0;
  const Lookup lookup = command.read(read_call(command, place, args, map, read_scratch_), reply);
  if (lookup == Lookup::kFound) door_.count_lookups(read_scratch_.hits, read_scratch_.misses);
  connection_detail::release_excess(read_scratch_);
  return lookup;
}

inline ReadCall Connection::read_call(const Command& command, Place place, Args args,
                                      const OrderedMap& map, ReadScratch& scratch) const {
  const int first_key = command.keys.first > 0 ? command.keys.first : kNoKey;
  const GroupTimes times{host_.database(), place.group, session_.read_only};
  return {map, args, place.slot, scratch, times, first_key};
}

inline void Connection::serve_read(Request& request) {
  if ((request.command->flags & kScan) != 0) return read_from_disk(request);
  const std::vector<std::string_view> args(request.args.begin(), request.args.end());
  resp::Writer reply = request.writer();
  const Place place{request.group, request.slot};
  switch (read_cached(*request.command, place, args, reply)) {
    case Lookup::kNotInMemory:
      return read_from_disk(request);
    case Lookup::kDue:
      return wait_for_time(request);
    case Lookup::kFailed:
      reply.error("ERR storage failure");
      break;
    default:
      break;
  }
  answer(request);
}

// The pool may wait for the disk; the loop goes on meanwhile. The request stays where it is until
// its answer is back on the loop.
inline void Connection::read_from_disk(Request& request) {
  Database& database = host_.database();
  const ReadTimes times = database.times(request.group, session_.read_only);
  auto work = [this, &database, &request, times](const OrderedMap& map) {
    const std::vector<std::string_view> args(request.args.begin(), request.args.end());
    resp::Writer reply = request.writer();
    ReadScratch scratch;
    const int first_key = request.command->keys.first > 0 ? request.command->keys.first : kNoKey;
    const Lookup lookup =
        request.command->read({map, args, request.slot, scratch, times, first_key}, reply);
    if (lookup == Lookup::kDue) return database.post([this, &request] { wait_for_time(request); });
    if (lookup != Lookup::kFound) reply.error("ERR storage failure");
    database.post([this, &request, hits = scratch.hits, misses = scratch.misses] {
      door_.count_lookups(hits, misses);
      answer(request);
    });
  };
  if ((request.command->flags & kScan) != 0) {
    database.scan_disk(request.group, std::move(work));
  } else {
    database.read_from_disk(request.group, std::move(work));
  }
}

// What was found must not be returned any more, and is not gone yet for all replicas: an entry moves
// the state's time on, and the read looks again.
inline void Connection::wait_for_time(Request& request) {
  if (++request.waits_for_time > kMaxWaitsForTime) return on_failed(request, Refusal::kNotLeader);
  Operation operation;
  operation.type = OperationType::kTime;
  (void)host_.database().propose(request.group, std::move(operation), request);
}

// ---- Writes -------------------------------------------------------------------------------------

inline void Connection::run_write(const Command& command, Args args) {
  const std::optional<Place> place = place_of_keys(command, args);
  if (!place) return;
  if ((command.flags & kDenyOom) != 0 && host_.database().disk_is_full()) {
    return reply_error(connection_detail::kDiskFull);
  }
  if (const std::string problem = kv::check_write(command, args, host_.limits());
      !problem.empty()) {
    return reply_at_once([&](std::string& out) { out += problem; });
  }
  Operation operation = kv::operation_of(command, args, host_.limits());
  if (!all_know(operation)) return reply_error(connection_detail::kNotKnownToAll);
  Request& request = add_pending(command, *place, args, 0);
  note_write(request, host_.database().propose(place->group, std::move(operation), request));
}

inline bool Connection::all_know(const Operation& operation) const {
  const std::uint32_t version = operation_version_of(operation.type);
  return version == 1 || host_.database().all_know_operations(version);
}

inline void Connection::on_done(Request& request, const Outcome& outcome) {
  if (request.is_read()) return wait_to_read(request);  // it waited for the time
  const bool is_exec = request.command->local == &connection_commands::exec;
  if (request.mark.forwarded_id != 0) {
    const auto touches_keys = [](const auto& queued) { return queued.command->local == nullptr; };
    const auto count = std::ranges::count_if(request.transaction, touches_keys);
    const auto replies = is_exec ? static_cast<std::size_t>(count) : 1;
    if (!kv::is_outcome(outcome, is_exec, replies)) return on_failed(request, Refusal::kUnknown);
  }
  if (is_exec && outcome.kind == Outcome::Kind::kReply) {
    reply_transaction(request, outcome);
  } else {
    resp::Writer reply = request.writer();
    kv::reply_outcome(outcome, reply);
  }
  answer(request);
}

inline void Connection::on_failed(Request& request, Refusal refusal) {
  // Its place in the log may never be filled: no read must wait for that. A later write's may.
  const bool was_here = request.mark.forwarded_id == 0;
  if (refusal == Refusal::kUnknown && was_here && last_write(request.group) == request.mark) {
    last_writes_.erase(request.group);
  }
  // What a read waited for has changed no key.
  if (request.is_read() && refusal == Refusal::kUnknown) refusal = Refusal::kNotLeader;
  request.writer().error(host_.database().refusal_text(request.slot, refusal, session_.by_tls));
  answer(request);
}

// `errors_` is the answer to a request that can't run. In a transaction, EXEC will refuse it all then.
inline void Connection::refuse(Args args) {
  TransactionQueue& transaction = session_.transaction;
  if (errors_.starts_with('-')) transaction.break_off();  // and no HELP
  if (!equals_ignoring_case(args[0], "exec")) {
    return reply_at_once([&](std::string& out) { out += errors_; });
  }
  transaction.end();
  std::string_view error = errors_;
  error.remove_prefix(error.starts_with("-ERR ") ? 5 : 1);
  error.remove_suffix(2);
  reply_error("EXECABORT Transaction discarded because of: " + std::string(error));
}

// ---- Transactions -------------------------------------------------------------------------------

inline void Connection::queue(const Command& command, Args args) {
  TransactionQueue& transaction = session_.transaction;
  const auto refuse = [&](std::string_view text) {
    transaction.break_off();
    reply_error(text);
  };
  if (command.admin != nullptr || (command.flags & kNoMulti) != 0 ||
      connection_detail::changes_replies(command)) {
    return refuse("ERR Command not allowed inside a transaction");
  }
  if ((command.flags & kDenyOom) != 0 && host_.database().disk_is_full()) {
    return refuse(connection_detail::kDiskFull);
  }
  if (transaction.size_bytes() + connection_detail::size_of(args) >
      host_.limits().max_request_size_bytes) {
    return refuse("ERR request too large");
  }
  if (!transaction.may_queue(connection_detail::may_take(command, args, host_.limits()))) {
    return refuse(
        "ERR transaction too large: what its commands may read and write, at their largest, "
        "is more than " +
        std::to_string(TransactionQueue::kMaxWorkBytes >> 20) + " MB");
  }
  transaction.queue(command, args);
  reply_at_once([&](std::string& out) { writer(out).simple_string("QUEUED"); });
}

// The watched keys and the keys of all commands are in one group.
inline std::optional<Connection::Place> Connection::place_of_transaction(
    const TransactionQueue& transaction) {
  std::optional<Place> place;
  std::string_view error;
  const auto add = [&](std::string_view key) { add_place(key, place, error); };
  for (const WatchedKey& watched : transaction.watched()) add(watched.key);
  for (const TransactionQueue::Queued& queued : transaction.commands()) {
    const std::vector<std::string_view> args(queued.words.begin(), queued.words.end());
    for_each_key(*queued.command, args, add);
  }
  if (!place && error.empty()) {
    if (const auto group = host_.database().group_of(0)) place = Place{*group, 0};
  }
  if (error.empty() && place) return place;
  reply_error(error.empty() ? kNotServed : error);
  return std::nullopt;
}

// One entry: the watched keys, and the commands that touch keys. The others answer when it is done.
inline void Connection::run_exec(const Command& command) {
  TransactionQueue transaction = std::move(session_.transaction);
  session_.transaction.end();
  const std::optional<Place> place = place_of_transaction(transaction);
  if (!place) return;
  std::vector<const TransactionQueue::Words*> touching;
  for (const TransactionQueue::Queued& queued : transaction.commands()) {
    if (queued.command->local == nullptr) touching.push_back(&queued.words);
  }
  if (touching.empty() && transaction.watched().empty()) {
    Request& request = add_pending(&command, transaction.size_bytes());
    request.transaction = transaction.take_commands();
    reply_transaction(request, {});
    return answer(request);
  }
  std::vector<std::string> numbers;
  Operation operation;
  operation.type = OperationType::kTransaction;
  operation.max_value_size_bytes = host_.limits().max_value_size_bytes;
  operation.arguments = write_transaction(transaction.watched(), touching, numbers);
  if (!all_know(operation)) return reply_error(connection_detail::kNotKnownToAll);
  Request& request = add_pending(&command, transaction.size_bytes());
  request.group = place->group;
  request.slot = place->slot;
  request.transaction = transaction.take_commands();
  note_write(request, host_.database().propose(place->group, std::move(operation), request));
}

inline void Connection::reply_transaction(Request& request, const Outcome& outcome) {
  std::string_view replies = outcome.reply;
  resp::Writer reply = request.writer();
  reply.array(request.transaction.size());
  for (const auto& [command, words] : request.transaction) {
    if (command->local != nullptr) {
      const std::vector<std::string_view> args(words.begin(), words.end());
      command->local(Call{*command, args, session_, host_.site(), request.reply});
      continue;
    }
    resp::ReplyParser parser(resp::Limits::none());
    const resp::Status status = parser.parse(replies);
    raft::require(status == resp::Status::kComplete, "a transaction has too few replies");
    kv::reply_resp3(replies.substr(0, parser.consumed()), reply);
    replies.remove_prefix(parser.consumed());
  }
  closing_ = closing_ || session_.close_after_reply;
}

// A WATCH was answered with tokens: they are kept, and the client hears OK.
inline void Connection::finish_watch(Request& request) {
  if (!request.reply.starts_with('*')) return session_.transaction.fail_watch();
  resp::ReplyParser parser(resp::Limits::none());
  const resp::Status status = parser.parse(request.reply);
  raft::require(status == resp::Status::kComplete, "WATCH did not answer with tokens");
  const std::vector<resp::Value>& numbers = parser.value().elements;
  for (std::size_t i = 1; i < request.args.size(); ++i) {
    const auto number = [&](std::size_t at) {
      return static_cast<std::uint64_t>(numbers.at(3 * (i - 1) + at).integer);
    };
    session_.transaction.watch(
        {request.args[i], {Index{number(0)}, number(1) != 0, Index{number(2)}}});
  }
  request.reply.clear();
  request.writer().simple_string("OK");
}

// ---- Administration -----------------------------------------------------------------------------

// The answer may come before administer() returns, or when the socket is long gone: the request
// stays until then, and the connection with it (idle()).
inline void Connection::run_admin(const Command& command, Args args) {
  if (const auto denied = admin_commands::denial(command, session_)) return reply_error(*denied);
  AdminRequest asked;
  if (const auto problem = command.admin(args, asked)) return reply_error(*problem);
  Request& request = add_pending(&command, connection_detail::size_of(args));
  host_.database().administer(asked, [this, &request](const CallReply& reply) {
    resp::Writer writer = request.writer();
    admin_commands::reply_call(reply, writer);
    answer(request);
  });
}

// ---- Order --------------------------------------------------------------------------------------

template <class Write>
void Connection::reply_at_once(Write write) {
  if (pending_.empty()) return write(output_);
  Request& request = add_pending(nullptr, 0);
  write(request.reply);
  request.muted = session_.is_muted();
  answer(request);
}

inline void Connection::reply_error(std::string_view text) {
  reply_at_once([&](std::string& out) { writer(out).error(text); });
}

inline Connection::Request& Connection::add_pending(const Command* command,
                                                    std::size_t size_bytes) {
  Request& request = pending_.emplace_back(*this, command);
  request.size_bytes = size_bytes;
  request.muted = session_.is_muted();
  pending_size_bytes_ += size_bytes;
  return request;
}

inline Connection::Request& Connection::add_pending(const Command& command, Place place, Args args,
                                                    std::size_t reply_bytes) {
  Request& request = add_pending(&command, connection_detail::size_of(args) + reply_bytes);
  request.group = place.group;
  request.slot = place.slot;
  return request;
}

// Of what had to wait, the slow log shows the name and the first argument.
inline std::vector<std::string> Connection::logged_arguments(const Request& request) {
  std::vector<std::string> logged = {std::string(request.command->name)};
  if (request.argument_count > 1) {
    logged.push_back(shortened_argument(
        std::string_view(request.first_argument.data(), request.first_argument.size()),
        request.first_argument_size));
  }
  if (request.argument_count > 2) {
    logged.push_back("... (" + std::to_string(request.argument_count - 2) + " more arguments)");
  }
  return logged;
}

// `request` may be gone then.
inline void Connection::answer(Request& request) {
  request.answered = true;
  if (request.is_read() && request.command->read == &key_commands::watch) {
    --waiting_watches_;
    finish_watch(request);
  }
  if (request.is_measured) {
    count(*request.command, site_.now_us() - request.began_us, request.reply,
          [&] { return logged_arguments(request); });
  }
  if (request.muted) request.reply.clear();
  if (request.is_read() && --waiting_reads_ == 0) write_waits_ = false;
  pending_size_bytes_ -= request.size_bytes;
  request.size_bytes = request.reply.size();
  pending_size_bytes_ += request.size_bytes;
  request.args.clear();
  flush();
  host_.wants_attention(session_.id);
}

inline void Connection::take_output(std::string& into) {
  into.clear();
  std::swap(into, output_);
  flush();
}

inline void Connection::disconnected() {
  closing_ = socket_gone_ = true;
  flush();
}

// Every reply that is next in order goes to the output, as far as there is room.
inline void Connection::flush() {
  while (!pending_.empty() && pending_.front().answered &&
         (socket_gone_ || output_.size() < kMaxOutputSizeBytes)) {
    if (!socket_gone_) output_ += pending_.front().reply;
    pending_size_bytes_ -= pending_.front().size_bytes;
    pending_.pop_front();
  }
  if (pending_.empty()) next_waits_ = false;
}

}  // namespace seshat

#endif  // SESHAT_CONNECTION_HPP
