// seshat/peer_stream.hpp - one gRPC stream of the peer channel, seen from either end.
//
//   Outgoing: ours to a peer         Incoming: a peer's to us         Listener: takes them in
//         ── Hello ──────────────────────> on_hello
//         <───────────── HelloReply ────── answer
//         ── Frame{messages} ────────────> on_frame       one frame a write: all that gathered
//         <──────────── Frame{} ──────────                a sign of life
//
// gRPC's generic callback API carries the bytes of codec.hpp: no generated code, no protobuf class.
// A call object (a "reactor") belongs to gRPC until its OnDone; Core keeps it alive until then, and
// Core outlives every one of them.
//
// Keeps:    one write at a time on a stream; its bytes live until OnWriteDone. No lock is held while
//           gRPC or PeerEvents are called, or while a frame is encoded.
// Dialing:  every attempt has a channel, a connection and a name lookup of its own. None of gRPC's
//           backoff (up to 120 s) outlives it, and a new stream never lands on a dead connection.
// Liveness: time is counted in ticks, and a late tick counts once: a process that was stopped for a
//           while doesn't take its own pause for the silence of others.
// Threads:  as peer.hpp says. Needs: codec.hpp, log.hpp, peer_link.hpp; libgrpc++.
//           The only header that includes gRPC.
#ifndef SESHAT_PEER_STREAM_HPP
#define SESHAT_PEER_STREAM_HPP

#include <grpc/grpc.h>
#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/channel_arguments.h>
#include <grpcpp/support/client_callback.h>
#include <grpcpp/support/server_callback.h>
#include <grpcpp/support/slice.h>
#include <grpcpp/support/status.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "seshat/codec.hpp"
#include "seshat/log.hpp"
#include "seshat/peer_link.hpp"
#include "seshat/raft.hpp"
#include "seshat/records.hpp"
#include "seshat/result.hpp"

namespace seshat {

namespace peer_detail {

inline constexpr const char* kMethod = "/seshat.Peer/Stream";
inline constexpr std::size_t kMaxHelloSizeBytes = 16 * 1024;
inline constexpr std::size_t kMaxStrangers = 64;  // incoming streams that are not accepted (yet)
inline constexpr int kConnectTimeoutMs = 1000;
inline constexpr int kKeepaliveTimeMs = 10'000;
inline constexpr int kKeepaliveTimeoutMs = 5000;
inline constexpr std::uint64_t kShutdownMs = 500;

// ---- Frames in gRPC's buffers --------------------------------------------------------------------

// Hands the string's own bytes to gRPC, which frees them after the last use.
inline grpc::ByteBuffer to_buffer(std::string bytes) {
  auto* owned = new std::string(std::move(bytes));
  const auto destroy = [](void* text) { delete static_cast<std::string*>(text); };
  const grpc::Slice slice(owned->data(), owned->size(), destroy, owned);
  return {&slice, 1};
}

inline std::string encoded(const Frame& frame, std::size_t size_hint = 0) {
  std::string bytes;
  bytes.reserve(size_hint);
  codec::encode(frame, bytes);
  return bytes;
}

inline Result<Frame> to_frame(const grpc::ByteBuffer& buffer) {
  grpc::Slice slice;
  if (!buffer.TrySingleSlice(&slice).ok() && !buffer.DumpToSingleSlice(&slice).ok()) {
    return Error{"a frame can't be read out of its buffer"};
  }
  return codec::decode_frame({reinterpret_cast<const char*>(slice.begin()), slice.size()});
}

// gRPC runs a reaction after the operation that it answers, often on another thread. It keeps that
// order in its own way, which tools that don't see into it (ThreadSanitizer) miss: say it again.
class Order {
 public:
  void before_operation() { turns_.fetch_add(1, std::memory_order_release); }
  void in_reaction() const { static_cast<void>(turns_.load(std::memory_order_acquire)); }

 private:
  std::atomic<std::uint64_t> turns_ = 0;
};

inline int max_frame_size_bytes(const PeerOptions& options) {
  return static_cast<int>(options.limits.max_message_size_bytes + options.limits.frame_size_bytes);
}

// ---- What the streams share ----------------------------------------------------------------------

class Incoming;
class Outgoing;

// One peer that we dial.
struct Peer {
  Peer(NodeId peer, std::string address, const PeerOptions& options)
      : id(peer),
        addr(std::move(address)),
        link(options.limits, options.self.value << 32 ^ peer.value) {}

  const NodeId id;
  const std::string addr;
  mutable std::mutex mutex;  // guards all below, and the state of `stream`
  PeerLink link;
  std::shared_ptr<Outgoing> stream;  // dialing or up

  [[nodiscard]] std::shared_ptr<Outgoing> current() const {
    const std::lock_guard lock(mutex);
    return stream;
  }
};

// Outlives Peers where somebody still holds an `answer`, or gRPC a call.
struct Core : std::enable_shared_from_this<Core> {
  Core(PeerOptions given, PeerEvents& told, const Logger& logger);

  const PeerOptions options;
  const std::uint64_t tick_ms;
  const std::uint64_t sign_of_life_ms;  // for how long a direction may be quiet
  std::map<NodeId, Peer> peers;         // the map itself doesn't change
  // Moves on by tick_ms with each turn of the timer, so it stands still while the process does.
  std::atomic<std::uint64_t> now_ms = 0;

  std::mutex mutex;  // guards all below; never held together with a peer's or a stream's
  std::condition_variable changed;
  bool dial_now = false;
  std::optional<Hello> hello;
  // Streams that gRPC is not done with; this keeps them alive.
  std::map<Outgoing*, std::shared_ptr<Outgoing>> outgoing;
  std::vector<std::shared_ptr<Outgoing>> finished;  // for the timer thread to let go of
  std::map<Incoming*, std::shared_ptr<Incoming>> incoming;
  std::map<NodeId, Incoming*> accepted;  // the newest of each peer
  std::optional<std::uint64_t> complained_at_ms;
  std::uint64_t complaints_withheld = 0;

  [[nodiscard]] Peer* peer(NodeId id);
  [[nodiscard]] std::optional<Hello> current_hello();
  void wake_dialer();
  // Logs what somebody outside did wrong, but one line a second at most.
  void complain(std::string_view what, NodeId peer, std::string_view from);
  // Only what `from` says itself, to this node, may stay.
  void drop_foreign(NodeId from, Frame& frame);

  // Of `outgoing` or `incoming`.
  template <class Stream>
  std::vector<std::shared_ptr<Stream>> streams(
      const std::map<Stream*, std::shared_ptr<Stream>>& kept);
  // Calls told(events, log), unless it is too late for that.
  template <class Told>
  void tell(Told told);
  [[nodiscard]] bool stopping() const { return stopping_; }
  // From here on tell() does nothing. Returns when no call of it is under way any more.
  void stop_telling();

  // The timer thread: ticks, dials, and destroys our streams. The last channel of a process to go
  // joins gRPC's callback threads (1.51), so none may be destroyed on one of them. Returns when
  // stopping and no stream is left.
  void run();
  bool ended = false;  // run() has nothing more to do

 private:
  void dial_due_peers();
  void tick();

  PeerEvents& events_;
  const Logger log_;
  std::atomic<bool> stopping_ = false;
  std::atomic<int> telling_ = 0;
};

template <class Stream>
std::vector<std::shared_ptr<Stream>> Core::streams(
    const std::map<Stream*, std::shared_ptr<Stream>>& kept) {
  std::vector<std::shared_ptr<Stream>> copies;
  const std::lock_guard lock(mutex);
  copies.reserve(kept.size());
  for (const auto& [key, stream] : kept) copies.push_back(stream);
  return copies;
}

template <class Told>
void Core::tell(Told told) {
  ++telling_;
  if (!stopping_) told(events_, log_);
  if (--telling_ > 0 || !stopping_) return;
  const std::lock_guard lock(mutex);
  changed.notify_all();
}

// ---- Our stream to a peer ------------------------------------------------------------------------

//   start ──> dialing ── accepted ──> up ──┐
//                └── refused, silent ──────┴──> lost: a read failed ──> OnDone: settled
//
// A read is always outstanding until one fails, so that is how every end is noticed; break_off()
// just cancels. A cancelled call may yet stay for long, when the connection takes nothing and gRPC
// holds a write that it has begun: so what doesn't end soon is settled without it, and left behind
// until TCP gives up.
class Outgoing final : public grpc::ClientBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer> {
 public:
  Outgoing(std::shared_ptr<Core> core, Peer& peer)
      : core_(std::move(core)), peer_(peer), began_at_ms_(core_->now_ms) {}

  void start(const Hello& hello);
  void write_next();  // any thread: writes what gathered, unless a write is under way
  void tick();
  // Any thread. The first reason stays. With `hold_off` it is not dialed again for a second.
  void break_off(std::string reason, bool hold_off = false);

  void OnReadDone(bool ok) override;
  void OnWriteDone(bool ok) override;
  void OnDone(const grpc::Status& status) override;

 private:
  enum class State : std::uint8_t { kDialing, kUp, kRefused };

  void on_reply(const HelloReply& reply);
  void lose();
  void settle(const std::string& reason);
  [[nodiscard]] bool account();

  const std::shared_ptr<Core> core_;
  Peer& peer_;
  Order order_;
  grpc::ClientContext context_;
  grpc::ByteBuffer in_;   // the outstanding read's
  grpc::ByteBuffer out_;  // belongs to whoever set writing_

  // Guarded by the peer's mutex.
  State state_ = State::kDialing;
  bool writing_ = true;  // the hello
  bool lost_ = false;
  bool settled_ = false;
  bool hold_off_ = false;
  std::string reason_;  // once it is set, it stays
  std::optional<std::uint64_t> ended_at_ms_;
  std::uint64_t began_at_ms_;
  std::uint64_t heard_at_ms_ = 0;
  std::uint64_t wrote_at_ms_ = 0;
};

inline grpc::ChannelArguments channel_arguments(const PeerOptions& options) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);  // never an older dial's connection
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);          // http_proxy is not meant for us
  arguments.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);
  arguments.SetInt(GRPC_ARG_SERVICE_CONFIG_DISABLE_RESOLUTION, 1);
  // Also the time that connecting may take, which is 20 s by default.
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, kConnectTimeoutMs);
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, PeerLink::kMinDialDelayMs);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, PeerLink::kMaxDialDelayMs);
  // Gets rid of connections that take nothing any more; where TCP has a user timeout, through that.
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, kKeepaliveTimeMs);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, kKeepaliveTimeoutMs);
  arguments.SetMaxReceiveMessageSize(static_cast<int>(kMaxHelloSizeBytes));  // replies, signs
  arguments.SetMaxSendMessageSize(max_frame_size_bytes(options));
  return arguments;
}

inline void Outgoing::start(const Hello& hello) {
  const auto channel = grpc::CreateCustomChannel(peer_.addr, grpc::InsecureChannelCredentials(),
                                                 channel_arguments(core_->options));
  grpc::GenericStub(channel).PrepareBidiStreamingCall(&context_, kMethod, {}, this);
  Frame frame;
  frame.hello = hello;
  out_ = to_buffer(encoded(frame));
  AddHold();  // for writes that begin on other threads; lose() or OnWriteDone() removes it
  order_.before_operation();
  StartWrite(&out_);
  StartRead(&in_);
  StartCall();
}

inline void Outgoing::write_next() {
  std::optional<Frame> frame;
  std::size_t size_bytes = 0;
  {
    const std::lock_guard lock(peer_.mutex);
    if (state_ != State::kUp || lost_ || writing_) return;
    frame = peer_.link.take(size_bytes);
    if (!frame) return;
    writing_ = true;
    wrote_at_ms_ = core_->now_ms;
  }
  std::string bytes = encoded(*frame, size_bytes);
  {
    const std::lock_guard lock(peer_.mutex);
    peer_.link.count_sent(frame->messages.size(), bytes.size());
  }
  out_ = to_buffer(std::move(bytes));
  order_.before_operation();
  StartWrite(&out_);
}

inline void Outgoing::OnWriteDone(bool) {  // of a failed one the read hears as well
  order_.in_reaction();
  bool last = false;
  {
    const std::lock_guard lock(peer_.mutex);
    writing_ = false;
    last = lost_;
  }
  last ? RemoveHold() : write_next();
}

inline void Outgoing::tick() {
  const std::uint64_t now_ms = core_->now_ms;
  const std::uint64_t liveness_ms = core_->options.liveness_timeout_ms;
  const char* broken = nullptr;
  bool overdue = false;
  {
    const std::lock_guard lock(peer_.mutex);
    if (ended_at_ms_) {
      overdue = now_ms - *ended_at_ms_ >= 2 * core_->tick_ms;
    } else if (state_ != State::kUp) {
      const bool late = now_ms - began_at_ms_ > core_->options.rpc_timeout_ms;
      if (late) broken = "no answer to the handshake";
    } else if (now_ms - heard_at_ms_ > liveness_ms) {
      broken = "nothing was heard from it within the liveness timeout";
    } else if (writing_ && now_ms - wrote_at_ms_ > liveness_ms) {
      broken = "a write was stuck for the liveness timeout";
    } else if (now_ms - wrote_at_ms_ >= core_->sign_of_life_ms) {
      peer_.link.sign_of_life();
    }
  }
  if (overdue) return settle("it broke");
  broken != nullptr ? break_off(broken) : write_next();
}

inline void Outgoing::break_off(std::string reason, bool hold_off) {
  {
    const std::lock_guard lock(peer_.mutex);
    if (reason_.empty()) reason_ = std::move(reason);
    if (!ended_at_ms_) ended_at_ms_ = core_->now_ms;
    hold_off_ = hold_off_ || hold_off;
  }
  context_.TryCancel();
}

inline void Outgoing::OnReadDone(bool ok) {
  order_.in_reaction();
  if (!ok) return lose();
  State state{};
  {
    const std::lock_guard lock(peer_.mutex);
    heard_at_ms_ = core_->now_ms;
    state = state_;
  }
  const Result<Frame> frame = to_frame(in_);
  if (!frame) {
    break_off(frame.error().text);
  } else if ((state == State::kDialing) != frame->hello_reply.has_value()) {
    break_off(frame->hello_reply ? "it answered the handshake twice"
                                 : "its first message is not an answer to the handshake");
  } else if (frame->hello_reply) {
    on_reply(*frame->hello_reply);
  }
  order_.before_operation();
  StartRead(&in_);  // fails at once when the stream was broken off
}

inline void Outgoing::on_reply(const HelloReply& reply) {
  std::string refusal = reply.reason.empty() ? "it gave no reason" : reply.reason;
  if (reply.accepted && reply.self.node_id == peer_.id) refusal.clear();
  if (reply.accepted && !refusal.empty()) {
    refusal = "node " + std::to_string(reply.self.node_id.value) + " answers at this address";
  }
  {
    const std::lock_guard lock(peer_.mutex);
    if (!reason_.empty()) return;  // broken off meanwhile
    reason_ = refusal;
    if (!refusal.empty()) ended_at_ms_ = core_->now_ms;
    state_ = refusal.empty() ? State::kUp : State::kRefused;
    wrote_at_ms_ = core_->now_ms;
    if (state_ == State::kUp) peer_.link.up();
  }
  if (!refusal.empty()) return context_.TryCancel();
  core_->tell([&](PeerEvents& events, const Logger& log) {
    log.info("peer is up", {{"peer", peer_.id}, {"addr", peer_.addr}});
    events.on_peer_up(peer_.id, reply.self);
  });
  write_next();
}

inline void Outgoing::lose() {
  bool idle = false;
  {
    const std::lock_guard lock(peer_.mutex);
    lost_ = true;
    if (!ended_at_ms_) ended_at_ms_ = core_->now_ms;
    if (state_ == State::kUp && !settled_) peer_.link.down(core_->now_ms);
    idle = !writing_;
  }
  context_.TryCancel();  // so that a write that is still out comes back
  if (idle) RemoveHold();
}

inline void Outgoing::OnDone(const grpc::Status& status) {
  order_.in_reaction();
  settle(status.error_message().empty() ? "it ended the stream" : status.error_message());
  const std::shared_ptr<Core> core = core_;
  const std::lock_guard lock(core->mutex);
  core->finished.push_back(std::move(core->outgoing.at(this)));
  core->outgoing.erase(this);
  core->changed.notify_all();
}

// The first call tells how it ended, and makes room for the next attempt.
inline void Outgoing::settle(const std::string& reason) {
  State state{};
  bool log_it = false;
  {
    const std::lock_guard lock(peer_.mutex);
    if (std::exchange(settled_, true)) return;
    if (reason_.empty()) reason_ = reason;
    state = state_;
    log_it = account();
  }
  core_->tell([&](PeerEvents& events, const Logger& log) {
    const char* what = state == State::kUp        ? "peer is down"
                       : state == State::kRefused ? "peer refuses us, asking again each second"
                                                  : "can't reach peer, trying on";
    if (log_it) log.warn(what, {{"peer", peer_.id}, {"addr", peer_.addr}, {"reason", reason_}});
    if (state == State::kUp) events.on_peer_down(peer_.id, reason_);
    if (state == State::kRefused) events.on_peer_refused(peer_.id, reason_);
  });
  const std::lock_guard lock(peer_.mutex);
  peer_.stream = nullptr;  // Core keeps this object
}

// True: log it. Under the peer's lock.
inline bool Outgoing::account() {
  const std::uint64_t now_ms = core_->now_ms;
  bool log_it = true;
  if (state_ == State::kUp && !lost_) peer_.link.down(now_ms);
  if (state_ == State::kRefused) log_it = peer_.link.refused(now_ms, reason_);
  if (state_ == State::kDialing) {
    log_it = peer_.link.failed(now_ms, core_->options.liveness_timeout_ms);
  }
  if (hold_off_) peer_.link.hold_off(now_ms);
  return log_it;
}

// ---- A peer's stream to us -----------------------------------------------------------------------

//   silent ── Hello ──> asking ── answer ──> accepted ───────┐
//                          └──────────> refused, reply sent ─┴──> ending ──> Finish ──> OnDone
//
// gRPC wants exactly one Finish, not during a write, and no call on the stream after it. So whoever
// is about to call gRPC takes a claim; Finish is called by who gives back the last one once the
// stream is ending.
class Incoming final : public grpc::ServerGenericBidiReactor,
                       public std::enable_shared_from_this<Incoming> {
 public:
  Incoming(std::shared_ptr<Core> core, grpc::GenericCallbackServerContext* context)
      : core_(std::move(core)),
        context_(context),
        from_(context->peer()),
        began_at_ms_(core_->now_ms) {}

  void start();  // reads
  void tick();
  // Any thread. The first reason stays.
  void end(std::string reason, grpc::StatusCode code);

  void OnReadDone(bool ok) override;
  void OnWriteDone(bool ok) override;
  void OnDone() override;

 private:
  enum class State : std::uint8_t { kSilent, kAsking, kAccepted, kRefused };

  [[nodiscard]] bool claim();
  void give_back();
  void cancel(std::string reason);
  // These return what is wrong with what was read, if something is.
  [[nodiscard]] std::optional<std::string> receive();
  [[nodiscard]] std::optional<std::string> receive_hello(Frame frame);
  void answer(HelloReply reply);
  void enter();
  void write(const Frame& frame);

  const std::shared_ptr<Core> core_;
  grpc::GenericCallbackServerContext* const context_;  // valid with a claim
  const std::string from_;
  Order order_;
  grpc::ByteBuffer in_;   // the outstanding read's
  grpc::ByteBuffer out_;  // belongs to whoever set writing_

  std::mutex mutex_;  // guards all below
  State state_ = State::kSilent;
  NodeId peer_;
  int claims_ = 0;
  bool writing_ = false;
  bool ending_ = false;
  bool finished_ = false;
  std::string reason_;
  grpc::StatusCode code_ = grpc::StatusCode::OK;
  std::uint64_t began_at_ms_;
  std::uint64_t heard_at_ms_ = 0;
  std::uint64_t wrote_at_ms_ = 0;
};

inline void Incoming::start() {
  order_.before_operation();
  StartRead(&in_);
}

inline bool Incoming::claim() {
  const std::lock_guard lock(mutex_);
  if (finished_) return false;
  ++claims_;
  return true;
}

inline void Incoming::give_back() {
  grpc::Status status;
  {
    const std::lock_guard lock(mutex_);
    if (--claims_ > 0 || !ending_ || finished_) return;
    finished_ = true;
    if (code_ != grpc::StatusCode::OK) status = {code_, reason_};
  }
  order_.before_operation();
  Finish(std::move(status));
}

inline void Incoming::end(std::string reason, grpc::StatusCode code) {
  if (!claim()) return;
  {
    const std::lock_guard lock(mutex_);
    if (!std::exchange(ending_, true)) {
      reason_ = std::move(reason);
      code_ = code;
    }
  }
  give_back();
}

// For a stream that may not take a status any more.
inline void Incoming::cancel(std::string reason) {
  if (!claim()) return;
  context_->TryCancel();
  end(std::move(reason), grpc::StatusCode::CANCELLED);
  give_back();
}

inline void Incoming::tick() {
  const std::uint64_t now_ms = core_->now_ms;
  const std::uint64_t liveness_ms = core_->options.liveness_timeout_ms;
  const char* broken = nullptr;
  {
    const std::lock_guard lock(mutex_);
    const bool accepted = state_ == State::kAccepted;
    if (!accepted && now_ms - began_at_ms_ > core_->options.rpc_timeout_ms) {
      broken = "its handshake took too long";
    } else if (accepted && now_ms - heard_at_ms_ > liveness_ms) {
      broken = "nothing was heard from it within the liveness timeout";
    } else if (writing_ && now_ms - wrote_at_ms_ > liveness_ms) {
      broken = "a write was stuck for the liveness timeout";
    } else if (!accepted || ending_ || writing_ || now_ms - wrote_at_ms_ < core_->sign_of_life_ms) {
      return;
    } else {
      wrote_at_ms_ = now_ms;
      writing_ = true;
      ++claims_;
    }
  }
  broken != nullptr ? cancel(broken) : write({});
}

// With a claim, and writing_ set: OnWriteDone gives both back.
inline void Incoming::write(const Frame& frame) {
  out_ = to_buffer(encoded(frame));
  order_.before_operation();
  StartWrite(&out_);
}

inline void Incoming::OnWriteDone(bool) {  // of a failed one the read hears as well
  order_.in_reaction();
  {
    const std::lock_guard lock(mutex_);
    writing_ = false;
    if (state_ == State::kRefused) ending_ = true;
  }
  give_back();
}

inline void Incoming::OnReadDone(bool ok) {
  order_.in_reaction();
  if (!ok) return end("the stream ended", grpc::StatusCode::CANCELLED);
  if (const std::optional<std::string> fault = receive()) {
    core_->complain("ended a stream from a peer: " + *fault, peer_, from_);
    return end(*fault, grpc::StatusCode::INVALID_ARGUMENT);
  }
  if (!claim()) return;
  start();
  give_back();
}

inline std::optional<std::string> Incoming::receive() {
  State state{};
  {
    const std::lock_guard lock(mutex_);
    heard_at_ms_ = core_->now_ms;
    state = state_;
  }
  const std::size_t size_bytes = in_.Length();
  if (state == State::kAsking || state == State::kRefused) return "a frame before it was accepted";
  if (state == State::kSilent && size_bytes > kMaxHelloSizeBytes) return "a frame before Hello";
  Result<Frame> frame = to_frame(in_);
  if (!frame) return frame.error().text;
  if (state == State::kSilent) return receive_hello(std::move(*frame));
  if (frame->hello || frame->hello_reply) return "a second handshake";
  if (Peer* peer = core_->peer(peer_)) {
    const std::lock_guard lock(peer->mutex);
    peer->link.count_received(size_bytes);
  }
  core_->drop_foreign(peer_, *frame);
  if (frame->messages.empty() && !frame->status) return std::nullopt;  // just a sign of life
  core_->tell(
      [&](PeerEvents& events, const Logger&) { events.on_frame(peer_, std::move(*frame)); });
  return std::nullopt;
}

inline std::optional<std::string> Incoming::receive_hello(Frame frame) {
  if (!frame.hello || frame.hello_reply || !frame.messages.empty()) return "a frame before Hello";
  {
    const std::lock_guard lock(mutex_);
    state_ = State::kAsking;
    peer_ = frame.hello->node_id;
  }
  core_->tell([&](PeerEvents& events, const Logger&) {
    events.on_hello(std::move(*frame.hello), [weak = weak_from_this()](HelloReply reply) {
      if (const auto self = weak.lock()) self->answer(std::move(reply));
    });
  });
  return std::nullopt;
}

inline void Incoming::answer(HelloReply reply) {
  {
    const std::lock_guard lock(mutex_);
    if (state_ != State::kAsking || ending_) return;
    state_ = reply.accepted ? State::kAccepted : State::kRefused;
    heard_at_ms_ = wrote_at_ms_ = core_->now_ms;
    writing_ = true;
    ++claims_;
  }
  if (reply.accepted) enter();
  if (reply.self.node_id == NodeId{}) reply.self = core_->current_hello().value_or(Hello{});
  Frame frame;
  frame.hello_reply = std::move(reply);
  write(frame);
}

// Takes the place of an older stream of the same peer, and has the peer dialed: it is there.
inline void Incoming::enter() {
  std::shared_ptr<Incoming> older;
  {
    const std::lock_guard lock(core_->mutex);
    Incoming*& place = core_->accepted[peer_];
    if (place != nullptr) older = place->shared_from_this();
    place = this;
  }
  if (older) older->end("a newer stream took its place", grpc::StatusCode::ABORTED);
  Peer* peer = core_->peer(peer_);
  if (peer == nullptr) return;
  {
    const std::lock_guard lock(peer->mutex);
    peer->link.dial_at_once();
  }
  core_->wake_dialer();
}

inline void Incoming::OnDone() {
  order_.in_reaction();
  const std::shared_ptr<Core> core = core_;
  std::shared_ptr<Incoming> self;
  bool was_up = false;
  {
    const std::lock_guard lock(core->mutex);
    const auto place = core->accepted.find(peer_);
    was_up = place != core->accepted.end() && place->second == this;
    if (was_up) core->accepted.erase(place);
  }
  if (was_up) {
    core->tell([&](PeerEvents& events, const Logger& log) {
      log.debug("a stream from a peer ended", {{"peer", peer_}, {"reason", reason_}});
      events.on_peer_down(peer_, reason_);
    });
  }
  const std::lock_guard lock(core->mutex);
  self = std::move(core->incoming.at(this));
  core->incoming.erase(this);
}

// ---- Core ----------------------------------------------------------------------------------------

inline Core::Core(PeerOptions given, PeerEvents& told, const Logger& logger)
    : options(std::move(given)),
      tick_ms(std::clamp<std::uint64_t>(options.liveness_timeout_ms / 30, 5, 100)),
      sign_of_life_ms(options.liveness_timeout_ms / 3),
      events_(told),
      log_(logger) {
  for (const auto& [id, addr] : options.dial) peers.try_emplace(id, id, addr, options);
}

inline Peer* Core::peer(NodeId id) {
  const auto found = peers.find(id);
  return found == peers.end() ? nullptr : &found->second;
}

inline std::optional<Hello> Core::current_hello() {
  const std::lock_guard lock(mutex);
  return hello;
}

inline void Core::wake_dialer() {
  const std::lock_guard lock(mutex);
  dial_now = true;
  changed.notify_all();
}

inline void Core::stop_telling() {
  std::unique_lock lock(mutex);
  stopping_ = true;
  changed.notify_all();
  changed.wait(lock, [&] { return telling_ == 0; });
}

inline void Core::complain(std::string_view what, NodeId peer, std::string_view from) {
  std::uint64_t withheld = 0;
  {
    const std::lock_guard lock(mutex);
    if (complained_at_ms && now_ms < *complained_at_ms + 1000) {
      ++complaints_withheld;
      return;
    }
    complained_at_ms = now_ms;
    withheld = std::exchange(complaints_withheld, 0);
  }
  tell([&](PeerEvents&, const Logger& log) {
    log.warn(what, {{"peer", peer}, {"from", from}, {"withheld", withheld}});
  });
}

inline void Core::drop_foreign(NodeId from, Frame& frame) {
  const std::size_t dropped = std::erase_if(frame.messages, [&](const PeerMessage& message) {
    return message.message.from != from || message.message.to != options.self;
  });
  if (dropped != 0) complain("dropped messages that are not this peer's to us", from, "");
}

inline void Core::run() {
  using SteadyClock = std::chrono::steady_clock;
  const std::chrono::milliseconds interval(tick_ms);
  auto next = SteadyClock::now() + interval;
  std::unique_lock lock(mutex);
  while (!stopping_ || !outgoing.empty() || !finished.empty()) {
    changed.wait_until(lock, next, [&] { return stopping_ || dial_now || !finished.empty(); });
    if (stopping_ && finished.empty()) changed.wait_until(lock, next);
    dial_now = false;
    std::vector<std::shared_ptr<Outgoing>> gone = std::exchange(finished, {});
    lock.unlock();
    gone.clear();
    if (const auto now = SteadyClock::now(); now >= next) {
      next = now + interval;  // a late tick counts once
      if (!stopping_) tick();
    }
    if (!stopping_) dial_due_peers();
    lock.lock();
  }
  ended = true;
  changed.notify_all();
}

inline void Core::dial_due_peers() {
  const std::optional<Hello> said = current_hello();
  if (!said) return;
  for (auto& [id, peer] : peers) {
    std::shared_ptr<Outgoing> stream;
    {
      const std::lock_guard lock(peer.mutex);
      if (peer.stream || !peer.link.dial_due(now_ms)) continue;
      stream = peer.stream = std::make_shared<Outgoing>(shared_from_this(), peer);
      peer.link.dialed(now_ms);
    }
    {
      const std::lock_guard lock(mutex);
      if (stopping_) return;
      outgoing.emplace(stream.get(), stream);
    }
    stream->start(*said);
  }
}

inline void Core::tick() {
  now_ms += tick_ms;
  for (const auto& stream : streams(incoming)) stream->tick();
  for (auto& [id, peer] : peers) {
    if (const auto stream = peer.current()) stream->tick();
  }
}

// ---- Where peers' streams arrive -----------------------------------------------------------------

// A stream that ends before it began.
class TurnedAway final : public grpc::ServerGenericBidiReactor {
 public:
  explicit TurnedAway(const char* why) { Finish({grpc::StatusCode::UNAVAILABLE, why}); }
  void OnDone() override { delete this; }
};

class Listener final : public grpc::CallbackGenericService {
 public:
  explicit Listener(std::shared_ptr<Core> core) : core_(std::move(core)) {}

  // False: can't listen there.
  [[nodiscard]] bool start();
  // Ends all streams and connections; returns when gRPC is done with the streams.
  void stop();
  [[nodiscard]] int port() const { return port_; }

  grpc::ServerGenericBidiReactor* CreateReactor(
      grpc::GenericCallbackServerContext* context) override;

 private:
  const std::shared_ptr<Core> core_;
  std::unique_ptr<grpc::Server> server_;
  int port_ = 0;
};

// gRPC shuts itself down when its last object goes, in a thread that may take 10 s, for which the
// next start would wait.
inline void keep_grpc() { [[maybe_unused]] static const bool kept = (grpc_init(), true); }

inline bool Listener::start() {
  keep_grpc();
  const PeerOptions& options = core_->options;
  grpc::ServerBuilder builder;
  builder.AddListeningPort(options.listen_addr, grpc::InsecureServerCredentials(), &port_);
  builder.RegisterCallbackGenericService(this);
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);  // or two nodes could share the port
  // Rids us of connections whose other end is gone; streams have their own, quicker check.
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, kKeepaliveTimeMs);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, kKeepaliveTimeoutMs);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS,
                             kKeepaliveTimeMs / 2);
  builder.SetMaxReceiveMessageSize(max_frame_size_bytes(options));
  server_ = builder.BuildAndStart();
  return server_ != nullptr && port_ != 0;
}

inline void Listener::stop() {
  if (!server_) return;
  server_->Shutdown(std::chrono::system_clock::now() + std::chrono::milliseconds(kShutdownMs));
}

inline grpc::ServerGenericBidiReactor* Listener::CreateReactor(
    grpc::GenericCallbackServerContext* context) {
  if (context->method() != kMethod) return CallbackGenericService::CreateReactor(context);
  const std::lock_guard lock(core_->mutex);
  if (core_->stopping()) return new TurnedAway("the node is stopping");
  if (core_->incoming.size() >= core_->accepted.size() + kMaxStrangers) {
    return new TurnedAway("too many streams wait for a handshake");
  }
  const auto stream = std::make_shared<Incoming>(core_, context);
  core_->incoming.emplace(stream.get(), stream);
  stream->start();  // begins when gRPC has taken what is returned
  return stream.get();
}

}  // namespace peer_detail

}  // namespace seshat

#endif  // SESHAT_PEER_STREAM_HPP
