// seshat/peer_listener.hpp - where peers' gRPC streams to us arrive: the handshake's other side;
// and where calls and snapshots do.
//
// Keeps:    at most kMaxStrangers streams wait for their handshake. Of two accepted streams of one
//           peer the newer stays: the older is most likely half dead.
// Threads:  as peer.hpp says; what else holds for streams stands in peer_stream.hpp.
// Needs:    peer_incoming.hpp, peer_call.hpp, peer_snapshot_receiver.hpp; libgrpc++.
#ifndef SESHAT_PEER_LISTENER_HPP
#define SESHAT_PEER_LISTENER_HPP

#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/server_builder.h>
#include <grpcpp/support/status.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>

#include "seshat/log.hpp"
#include "seshat/peer_call.hpp"
#include "seshat/peer_credentials.hpp"
#include "seshat/peer_incoming.hpp"
#include "seshat/peer_link.hpp"
#include "seshat/peer_process.hpp"
#include "seshat/peer_reactor.hpp"
#include "seshat/peer_snapshot_receiver.hpp"
#include "seshat/peer_stream.hpp"
#include "seshat/raft.hpp"
#include "seshat/records.hpp"
#include "seshat/result.hpp"

namespace seshat::peer_detail {

// ---- A peer's stream to us ----------------------------------------------------------------------

//   silent ── Hello ──> asking ── answer ──> accepted ───────┐
//                          └──────────> refused, reply sent ─┴──> ending ──> finish ──> on_done
class Incoming final : public IncomingStream, public std::enable_shared_from_this<Incoming> {
 public:
  Incoming(std::shared_ptr<Core> core, std::unique_ptr<Arrival> arrival)
      : IncomingStream(std::move(core), std::move(arrival)) {}

  void tick();
  // As Dialed::stands().
  [[nodiscard]] bool stands();

 private:
  enum class State : std::uint8_t { kSilent, kAsking, kAccepted, kRefused };

  void on_read(bool ok) override;
  void on_written(bool ok) override;
  void on_done() override;
  // These return what is wrong with what was read, if something is.
  [[nodiscard]] std::optional<std::string> receive();
  [[nodiscard]] std::optional<std::string> receive_hello(Frame frame);
  void count_received(std::size_t size_bytes);
  void answer(HelloReply reply);
  void enter();
  void send(const Frame& frame);

  // Where what it sends is counted, if we dial it; looked up when the peers have changed. Of
  // whoever reacts to a read.
  std::shared_ptr<Peer> counted_at_;
  std::uint64_t counted_version_ = 0;

  // Guarded by mutex_.
  State state_ = State::kSilent;
  NodeId peer_;
};

inline bool Incoming::stands() {
  const std::lock_guard lock(mutex_);
  return state_ == State::kAccepted && !ending_;
}

inline void Incoming::tick() {
  const std::uint64_t liveness_ms = core_->options.liveness_timeout_ms;
  const char* broken = nullptr;
  {
    const std::lock_guard lock(mutex_);
    const std::uint64_t now_ms = core_->now_ms();
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
  broken != nullptr ? cancel(broken) : send({});
}

// With a claim, and writing_ set: on_written gives both back.
inline void Incoming::send(const Frame& frame) {
  out_ = to_buffer(encoded(frame));
  write(out_);
}

inline void Incoming::on_written(bool) {  // of a failed one the read hears as well
  {
    const std::lock_guard lock(mutex_);
    writing_ = false;
    if (state_ == State::kRefused) ending_ = true;
  }
  give_back();
}

inline void Incoming::on_read(bool ok) {
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
    heard_at_ms_ = core_->now_ms();
    state = state_;
  }
  const std::size_t size_bytes = in_.Length();
  if (state == State::kAsking || state == State::kRefused) return "a frame before it was accepted";
  if (state == State::kSilent && size_bytes > kMaxHelloSizeBytes) return "a frame before Hello";
  Result<Frame> frame = to_frame(in_);
  if (!frame) return frame.error().text;
  if (state == State::kSilent) return receive_hello(std::move(*frame));
  if (frame->hello || frame->hello_reply) return "a second handshake";
  count_received(size_bytes);
  core_->drop_foreign(peer_, *frame);
  const bool forwards = !frame->forwarded.empty() || !frame->forwarded_replies.empty();
  if (frame->messages.empty() && !forwards && !frame->status) {
    return std::nullopt;  // just a sign of life
  }
  core_->tell(
      [&](PeerEvents& events, const Logger&) { events.on_frame(peer_, std::move(*frame)); });
  return std::nullopt;
}

inline void Incoming::count_received(std::size_t size_bytes) {
  if (const std::uint64_t version = core_->peers_version; version != counted_version_) {
    counted_at_ = core_->peer(peer_);
    counted_version_ = version;
  }
  if (!counted_at_) return;
  const std::lock_guard lock(counted_at_->mutex);
  counted_at_->link.count_received(size_bytes);
}

inline std::optional<std::string> Incoming::receive_hello(Frame frame) {
  const bool only_hello = frame.hello && !frame.hello_reply && frame.messages.empty() &&
                          frame.forwarded.empty() && frame.forwarded_replies.empty();
  if (!only_hello) return "a frame before Hello";
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
    heard_at_ms_ = wrote_at_ms_ = core_->now_ms();
    writing_ = true;
    ++claims_;
  }
  if (reply.accepted) enter();
  if (reply.self.node_id == NodeId{}) reply.self = core_->current_hello().value_or(Hello{});
  Frame frame;
  frame.hello_reply = std::move(reply);
  send(frame);
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
  const std::shared_ptr<Peer> peer = core_->peer(peer_);
  if (!peer) return;
  {
    const std::lock_guard lock(peer->mutex);
    peer->link.dial_at_once();
  }
  core_->wake_timer();
}

inline void Incoming::on_done() {
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

// ---- Where peers' streams arrive ----------------------------------------------------------------

// A stream that ends before it began.
class TurnedAway final : public AcceptedStream {
 public:
  TurnedAway(std::shared_ptr<Reactions> reactions, std::unique_ptr<Arrival> arrival,
             const grpc::Status& why)
      : AcceptedStream(std::move(reactions), std::move(arrival)) {
    finish(why);
  }

 private:
  void on_done() override { delete this; }
};

class Listener final {
 public:
  explicit Listener(std::shared_ptr<Core> core) : core_(std::move(core)) {}

  // Sets Core's reactions. False: can't listen there.
  [[nodiscard]] bool start();
  // Ends all streams and connections; returns when nothing comes here any more. What is left to react
  // to touches nothing but Core.
  void stop();
  [[nodiscard]] int port() const { return port_; }

 private:
  struct Room {
    std::size_t most;
    const char* full;  // what is said then
  };

  void accept();
  void take_next(bool ok);
  void end_accepting();
  template <class Stream>
  void take(std::unique_ptr<Arrival> arrival, std::map<Stream*, std::shared_ptr<Stream>>& kept,
            Room room);
  void turn_away(std::unique_ptr<Arrival> arrival, const grpc::Status& why);
  [[nodiscard]] std::size_t accepted() const;

  const std::shared_ptr<Core> core_;
  grpc::AsyncGenericService service_;
  std::unique_ptr<Arrival> next_;  // of the reactions, once there are any
  int port_ = 0;
};

inline bool Listener::start() {
  keep_grpc();
  const PeerOptions& options = core_->options;
  keep_grpc_words(options.security);
  grpc::ServerBuilder builder;
  builder.AddListeningPort(options.listen_addr, server_credentials(options.security), &port_);
  builder.RegisterAsyncGenericService(&service_);
  core_->reactions = std::make_shared<Reactions>(builder.AddCompletionQueue());
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);  // or two nodes could share the port
  // Rids us of connections whose other end is gone; streams have their own, quicker check.
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, kKeepaliveTimeMs);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, kKeepaliveTimeoutMs);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS,
                             kKeepaliveTimeMs / 2);
  builder.AddChannelArgument(GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS, kServerHandshakeTimeoutMs);
  for (const auto& [name, value] : kFlowArguments) builder.AddChannelArgument(name, value);
  builder.SetMaxReceiveMessageSize(static_cast<int>(
      std::max(max_frame_size_bytes(options.limits), max_chunk_size_bytes(options.limits))));
  core_->server = builder.BuildAndStart();
  if (core_->server == nullptr || port_ == 0) {
    core_->reactions->close();
    core_->reactions->run();
    return false;
  }
  core_->accepting = true;
  core_->reactions->enter();
  accept();
  return true;
}

inline void Listener::stop() {
  if (!core_->server) return;
  core_->server->Shutdown(std::chrono::system_clock::now() +
                          std::chrono::milliseconds(kShutdownMs));
  std::unique_lock lock(core_->mutex);
  core_->changed.wait(lock, [&] { return !core_->accepting; });
}

// With an entry to the reactions, which the call that comes takes over.
inline void Listener::accept() {
  next_ = std::make_unique<Arrival>([this](bool ok) { take_next(ok); });
  grpc::ServerCompletionQueue* queue = core_->reactions->queue();
  service_.RequestCall(&next_->context, &next_->stream, queue, queue, next_->come.tag());
}

inline void Listener::take_next(bool ok) {
  std::unique_ptr<Arrival> arrival = std::move(next_);
  if (!ok) return end_accepting();
  core_->reactions->enter();
  accept();
  const grpc::GenericServerContext& context = arrival->context;
  if (const auto why = why_not_let_in(context.client_metadata(), core_->options.security)) {
    core_->complain_rarely("turned a node away: " + *why, context.peer());
    turn_away(std::move(arrival), {grpc::StatusCode::UNAUTHENTICATED, *why});
  } else if (context.method() == kMethod) {
    take(std::move(arrival), core_->incoming,
         {accepted() + kMaxStrangers, "too many streams wait for a handshake"});
  } else if (context.method() == kCallMethod) {
    take(std::move(arrival), core_->calls, {kMaxCalls, "too many calls are under way there"});
  } else if (context.method() == kSnapshotMethod) {
    take(std::move(arrival), core_->receiving,
         {kMaxIncomingSnapshots, "too many snapshots are being received there"});
  } else {
    turn_away(std::move(arrival), {grpc::StatusCode::UNIMPLEMENTED, ""});
  }
}

inline void Listener::end_accepting() {
  core_->reactions->leave();
  const std::lock_guard lock(core_->mutex);
  core_->accepting = false;
  core_->changed.notify_all();
}

inline void Listener::turn_away(std::unique_ptr<Arrival> arrival, const grpc::Status& why) {
  new TurnedAway(core_->reactions, std::move(arrival), why);  // deletes itself
}

inline std::size_t Listener::accepted() const {
  const std::lock_guard lock(core_->mutex);
  return core_->accepted.size();
}

template <class Stream>
void Listener::take(std::unique_ptr<Arrival> arrival,
                    std::map<Stream*, std::shared_ptr<Stream>>& kept, Room room) {
  std::shared_ptr<Stream> stream;
  const char* refusal = nullptr;
  {
    const std::lock_guard lock(core_->mutex);
    if (core_->stopping()) {
      refusal = "the node is stopping";
    } else if (kept.size() >= room.most) {
      refusal = room.full;
    } else {
      stream = std::make_shared<Stream>(core_, std::move(arrival));
      kept.emplace(stream.get(), stream);
      core_->want_timer();
    }
  }
  if (!stream) return turn_away(std::move(arrival), {grpc::StatusCode::UNAVAILABLE, refusal});
  stream->start();
}

}  // namespace seshat::peer_detail

#endif  // SESHAT_PEER_LISTENER_HPP
