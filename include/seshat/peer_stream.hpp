// seshat/peer_stream.hpp - our gRPC stream to a peer, and what all streams of the channel share.
//
//   Outgoing (here)                  Incoming (peer_listener.hpp)
//         ── Hello ──────────────────────> on_hello
//         <───────────── HelloReply ────── answer
//         ── Frame{messages} ────────────> on_frame       one frame a write: all that gathered
//         <──────────── Frame{} ──────────                a sign of life
//
// gRPC's generic API carries the bytes of peer_codec.hpp: no generated code, no protobuf class. A call
// object (a "reactor", peer_reactor.hpp) belongs to gRPC until its on_done; Core keeps it alive until
// then, and Core outlives every one of them.
//
// Keeps:    one write at a time on a stream; its bytes live until on_written. No lock is held
//           while a call on a stream or of PeerEvents is made, or while a frame is encoded.
// Dialing:  every attempt has a channel, a connection and a name lookup of its own. None of gRPC's
//           backoff (up to 120 s) outlives it, and a new stream never lands on a dead connection.
// Liveness: by peer_clock.hpp: a process that was stopped for a while doesn't take its own pause for the
//           silence of others. Ticks are few while all streams stand and nothing else is under way: a
//           wake-up of a processor that sleeps is dear.
// Threads:  as peer.hpp says.
// Needs:    peer_clock.hpp, peer_codec.hpp, log.hpp, peer_link.hpp, peer_reactor.hpp; libgrpc++.
#ifndef SESHAT_PEER_STREAM_HPP
#define SESHAT_PEER_STREAM_HPP

#include <grpcpp/server.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/channel_arguments.h>
#include <grpcpp/support/slice.h>
#include <grpcpp/support/status.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "seshat/log.hpp"
#include "seshat/peer_clock.hpp"
#include "seshat/peer_codec.hpp"
#include "seshat/peer_credentials.hpp"
#include "seshat/peer_link.hpp"
#include "seshat/peer_reactor.hpp"
#include "seshat/peer_security.hpp"
#include "seshat/raft.hpp"
#include "seshat/records.hpp"
#include "seshat/result.hpp"
#include "seshat/snapshot.hpp"
#include "seshat/work_pool.hpp"

namespace seshat {

namespace peer_detail {

inline constexpr const char* kMethod = "/seshat.Peer/Stream";
inline constexpr const char* kCallMethod = "/seshat.Peer/Call";
inline constexpr const char* kSnapshotMethod = "/seshat.Peer/Snapshot";
inline constexpr std::size_t kMaxHelloSizeBytes = 16 * 1024;
inline constexpr std::size_t kMaxStrangers = 16;  // incoming streams that are not accepted (yet)
inline constexpr std::size_t kMaxCalls = 16;      // to us, under way
inline constexpr std::size_t kMaxCallRequestSizeBytes = 16 * 1024;
inline constexpr std::size_t kMaxCallSizeBytes = 1 << 20;  // an answer may hold the membership
inline constexpr std::uint64_t kLongestCallMs = 60'000;
inline constexpr std::size_t kMaxIncomingSnapshots = 8;
inline constexpr std::size_t kSlowThreads = 2;
inline constexpr int kConnectTimeoutMs = 1000;
inline constexpr int kServerHandshakeTimeoutMs = 10'000;  // of gRPC, and TLS; 2 minutes by default
inline constexpr int kKeepaliveTimeMs = 10'000;
inline constexpr int kKeepaliveTimeoutMs = 5000;
inline constexpr std::uint64_t kShutdownMs = 500;
inline constexpr std::uint64_t kCalmTicks = 5;  // for one, while all streams stand

// ---- Frames in gRPC's buffers -------------------------------------------------------------------

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

// What `decode` makes of the bytes, in which it must leave no view.
template <class Decode>
auto decoded(const grpc::ByteBuffer& buffer, Decode decode) -> decltype(decode("")) {
  grpc::Slice slice;
  if (!buffer.TrySingleSlice(&slice).ok() && !buffer.DumpToSingleSlice(&slice).ok()) {
    return Error{"a message can't be read out of its buffer"};
  }
  return decode({reinterpret_cast<const char*>(slice.begin()), slice.size()});
}

inline Result<Frame> to_frame(const grpc::ByteBuffer& buffer) {
  return decoded(buffer, codec::decode_frame);
}

inline std::size_t max_frame_size_bytes(const PeerQueueLimits& limits) {
  const std::size_t size_bytes = limits.max_message_size_bytes + limits.frame_size_bytes;
  return std::min<std::size_t>(size_bytes, std::numeric_limits<int>::max());
}

// Of a snapshot's chunk: as many rows as fit, or one as large as a log entry may be.
inline std::size_t max_chunk_size_bytes(const PeerQueueLimits& limits) {
  const std::size_t size_bytes = limits.max_message_size_bytes + kSnapshotChunkSizeBytes;
  return std::min<std::size_t>(size_bytes, std::numeric_limits<int>::max());
}

// ---- What the streams share ---------------------------------------------------------------------

class Incoming;
class IncomingCall;
class IncomingSnapshotStream;
class Outgoing;
class OutgoingSnapshot;

// What we have begun and gRPC may still hold: a stream or a call to another node.
class Dialed {
 public:
  virtual ~Dialed() = default;
  virtual void tick() = 0;
  // Any thread. The first reason stays.
  virtual void break_off(std::string reason) = 0;
  // Nothing of it is timed but signs of life.
  [[nodiscard]] virtual bool stands() const { return false; }
  // Its end is not told yet, so that `peer` can't be dialed anew.
  [[nodiscard]] virtual bool occupies(NodeId /*peer*/) const { return false; }
};

// One peer that we dial, under one address: under another it is another Peer.
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
  bool dropped = false;              // not one of the peers any more: never dialed again

  [[nodiscard]] std::shared_ptr<Outgoing> current() const {
    const std::lock_guard lock(mutex);
    return stream;
  }
};

// Which stream a SnapshotWriter is with, and whether it may still be with one.
struct WriterUse {
  std::weak_ptr<IncomingSnapshotStream> holder;
  bool spent = false;
};

using PeerMap = std::map<NodeId, std::shared_ptr<Peer>>;

// Outlives Peers where somebody still holds an `answer`, or gRPC a call.
struct Core : std::enable_shared_from_this<Core> {
  Core(PeerOptions given, PeerEvents& told, const Logger& logger);

  const PeerOptions options;
  const std::uint64_t tick_ms;
  // For how long a direction may be quiet: a third of the liveness timeout, if the tick comes in time.
  const std::uint64_t sign_of_life_ms;
  // Grows with each change of `peers`, so that a stream knows when to look again.
  std::atomic<std::uint64_t> peers_version = 1;
  // Since the listener started; outlives the channel if gRPC holds on to a call.
  std::shared_ptr<Reactions> reactions;
  // Reached by every call to us until its end, and has to go before the queue.
  std::unique_ptr<grpc::Server> server;

  std::mutex mutex;  // guards all below; never held together with a peer's or a stream's
  std::condition_variable changed;
  bool timer_wanted = false;  // to dial, or to tick more often
  bool accepting = false;     // gRPC has an Arrival, for the next call to us
  bool ended = false;         // the reactions' thread is done
  std::optional<Hello> hello;
  std::shared_ptr<const PeerMap> peers;  // never changed, but replaced
  // What gRPC is not done with; this keeps it alive.
  std::map<Dialed*, std::shared_ptr<Dialed>> outgoing;
  std::map<Incoming*, std::shared_ptr<Incoming>> incoming;
  std::map<IncomingCall*, std::shared_ptr<IncomingCall>> calls;
  std::map<OutgoingSnapshot*, std::shared_ptr<OutgoingSnapshot>> sending;
  std::map<IncomingSnapshotStream*, std::shared_ptr<IncomingSnapshotStream>> receiving;
  std::map<std::weak_ptr<SnapshotWriter>, WriterUse, std::owner_less<>> writers;
  std::shared_ptr<WorkPool> slow;        // null: no more
  std::map<NodeId, Incoming*> accepted;  // the newest of each peer
  std::optional<std::uint64_t> complained_at_ms;
  std::uint64_t complaints_withheld = 0;
  std::map<std::string, std::uint64_t> complained_rarely_at_ms;

  [[nodiscard]] std::shared_ptr<const PeerMap> current_peers();
  [[nodiscard]] std::shared_ptr<Peer> peer(NodeId id);  // null: it is none of them
  [[nodiscard]] std::optional<Hello> current_hello();
  // Any thread, under any lock: later than whatever was stamped under the same lock.
  [[nodiscard]] std::uint64_t now_ms() { return clock_.now_ms(); }
  void wake_timer();
  void want_timer();  // with the mutex
  // False: too late for something new.
  [[nodiscard]] bool keep(const std::shared_ptr<Dialed>& begun);
  void let_go_of(Dialed& ended);  // gRPC is done with it, and it is destroyed
  // For work that waits for the disk. False: too late.
  [[nodiscard]] bool post_slow(WorkPool::Work work);
  // Lets go of something whose destructor may wait for the disk.
  void let_go_slowly(std::shared_ptr<void> object);
  // How long the sender of a snapshot may be silent: a chunk with a value of the largest size may
  // be on its way for that long, at 4 MB/s.
  [[nodiscard]] std::uint64_t chunk_patience_ms() const;
  // Logs what somebody outside did wrong, but one line a second at most.
  void complain(std::string_view what, NodeId peer, std::string_view from);
  // The same for what somebody goes on to do, every second, until a person changes it: again after a
  // minute, and at once if it comes from another host, or is something else.
  void complain_rarely(std::string_view what, const std::string& from);
  // Only what `from` says itself, to this node, may stay.
  void drop_foreign(NodeId from, Frame& frame);

  // Of `outgoing` or `incoming`.
  template <class Stream>
  std::vector<std::shared_ptr<Stream>> streams(
      const std::map<Stream*, std::shared_ptr<Stream>>& kept);
  // Calls told(events, log), unless it is too late for that.
  template <class Told>
  void tell(Told told);
  // Calls work(), which tells somebody how something ended.
  template <class Work>
  void even_at_the_end(Work work);
  [[nodiscard]] bool stopping() const { return stopping_; }
  // From here on tell() does nothing. Returns when no call of it is under way any more.
  void stop_telling();
  // After stop_telling(), and once there is nothing left that could end.
  void wait_told();

 private:
  void told_one();

  PeerClock clock_;
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
  told_one();
}

template <class Work>
void Core::even_at_the_end(Work work) {
  ++telling_;
  work();
  told_one();
}

inline void Core::told_one() {
  if (--telling_ > 0 || !stopping_) return;
  const std::lock_guard lock(mutex);
  changed.notify_all();
}

inline Core::Core(PeerOptions given, PeerEvents& told, const Logger& logger)
    : options(std::move(given)),
      tick_ms(std::clamp<std::uint64_t>(options.liveness_timeout_ms / 30, 5, 100)),
      sign_of_life_ms(options.liveness_timeout_ms / 3 - tick_ms),
      peers(std::make_shared<const PeerMap>()),
      slow(std::make_shared<WorkPool>()),
      clock_(kCalmTicks * tick_ms),
      events_(told),
      log_(logger) {}

inline std::shared_ptr<const PeerMap> Core::current_peers() {
  const std::lock_guard lock(mutex);
  return peers;
}

inline std::shared_ptr<Peer> Core::peer(NodeId id) {
  const std::shared_ptr<const PeerMap> all = current_peers();
  const auto found = all->find(id);
  return found == all->end() ? nullptr : found->second;
}

inline std::optional<Hello> Core::current_hello() {
  const std::lock_guard lock(mutex);
  return hello;
}

inline void Core::wake_timer() {
  const std::lock_guard lock(mutex);
  want_timer();
}

inline void Core::want_timer() {
  timer_wanted = true;
  changed.notify_all();
}

inline bool Core::keep(const std::shared_ptr<Dialed>& begun) {
  const std::lock_guard lock(mutex);
  if (stopping()) return false;
  outgoing.emplace(begun.get(), begun);
  want_timer();
  return true;
}

inline void Core::let_go_of(Dialed& ended) {
  const std::shared_ptr<Core> self = shared_from_this();  // `ended` may be what keeps this
  std::shared_ptr<Dialed> last;
  const std::lock_guard lock(mutex);
  const auto place = outgoing.find(&ended);
  last = std::move(place->second);
  outgoing.erase(place);
  want_timer();
}

inline bool Core::post_slow(WorkPool::Work work) {
  const std::lock_guard lock(mutex);
  if (!slow) return false;
  slow->post(std::move(work));
  return true;
}

inline void Core::let_go_slowly(std::shared_ptr<void> object) {
  static_cast<void>(post_slow([kept = std::move(object)] {}));
}

inline std::uint64_t Core::chunk_patience_ms() const {
  return options.liveness_timeout_ms + options.limits.max_message_size_bytes / 4096;
}

inline void Core::stop_telling() {
  {
    const std::lock_guard lock(mutex);
    stopping_ = true;
    changed.notify_all();
  }
  wait_told();
}

inline void Core::wait_told() {
  std::unique_lock lock(mutex);
  changed.wait(lock, [&] { return telling_ == 0; });
}

inline void Core::complain(std::string_view what, NodeId peer, std::string_view from) {
  std::uint64_t withheld = 0;
  {
    const std::lock_guard lock(mutex);
    const std::uint64_t told_ms = now_ms();
    if (complained_at_ms && told_ms < *complained_at_ms + 1000) {
      ++complaints_withheld;
      return;
    }
    complained_at_ms = told_ms;
    withheld = std::exchange(complaints_withheld, 0);
  }
  tell([&](PeerEvents&, const Logger& log) {
    log.warn(what, {{"peer", peer}, {"from", from}, {"withheld", withheld}});
  });
}

inline void Core::complain_rarely(std::string_view what, const std::string& from) {
  constexpr std::uint64_t kAgainMs = 60'000;
  constexpr std::size_t kMaxKept = 64;
  const std::string host = from.substr(0, from.rfind(':'));  // each call has another port
  {
    const std::lock_guard lock(mutex);
    auto& told = complained_rarely_at_ms;
    const std::uint64_t told_ms = now_ms();
    std::erase_if(told, [&](const auto& each) { return told_ms >= each.second + kAgainMs; });
    if (told.size() >= kMaxKept) return;
    if (!told.emplace(host + " " + std::string(what), told_ms).second) return;
  }
  tell([&](PeerEvents&, const Logger& log) {
    from.empty() ? log.warn(what) : log.warn(what, {{"from", from}});
  });
}

inline void Core::drop_foreign(NodeId from, Frame& frame) {
  const std::size_t dropped = std::erase_if(frame.messages, [&](const PeerMessage& message) {
    return message.message.from != from || message.message.to != options.self;
  });
  if (dropped != 0) complain("dropped messages that are not this peer's to us", from, "");
}

// ---- Our stream to a peer -----------------------------------------------------------------------

//   start ──> dialing ── accepted ──> up ──┐
//                └── refused, silent ──────┴──> lost: a read failed ──> on_done: settled
//
// A read is always outstanding until one fails, so that is how every end is noticed; break_off()
// just cancels. A cancelled call may yet stay for long, when the connection takes nothing and gRPC
// holds a write that it has begun: so what doesn't end soon is settled without it, and left behind
// until TCP gives up.
class Outgoing final : public DialedStream, public Dialed {
 public:
  Outgoing(std::shared_ptr<Core> core, std::shared_ptr<Peer> peer)
      : DialedStream(core->reactions),
        core_(std::move(core)),
        kept_peer_(std::move(peer)),
        peer_(*kept_peer_),
        began_at_ms_(core_->now_ms()) {}

  void start(const Hello& hello);
  void write_next();  // any thread: writes what gathered, unless a write is under way
  void tick() override;
  void break_off(std::string reason) override;
  // As break_off(), and it is not dialed again for a second.
  void send_away(std::string reason);
  [[nodiscard]] bool stands() const override;
  [[nodiscard]] bool occupies(NodeId peer) const override;

 private:
  void on_read(bool ok) override;
  void on_written(bool ok) override;
  void on_done(const grpc::Status& status) override;

  // Refused by the node; turned away before it was asked, for the secret.
  enum class State : std::uint8_t { kDialing, kUp, kRefused, kTurnedAway };

  void on_reply(const HelloReply& reply);
  void lose();
  void settle(const std::string& reason);
  [[nodiscard]] bool account();

  const std::shared_ptr<Core> core_;
  const std::shared_ptr<Peer> kept_peer_;
  Peer& peer_;
  grpc::ByteBuffer in_;   // the outstanding read's
  grpc::ByteBuffer out_;  // belongs to whoever set writing_

  // Guarded by the peer's mutex.
  State state_ = State::kDialing;
  bool writing_ = true;  // the hello
  bool lost_ = false;
  bool settled_ = false;
  bool hold_off_ = false;
  std::string reason_;  // once it is set, it stays
  bool removed_ = false;
  std::optional<std::uint64_t> ended_at_ms_;
  std::uint64_t began_at_ms_;
  std::uint64_t heard_at_ms_ = 0;
  std::uint64_t wrote_at_ms_ = 0;
};

// By default each end pings the other all the time, to learn how much may be under way: one more message
// for each. Our streams are few and bounded, and may have so much.
inline constexpr std::array<std::pair<const char*, int>, 3> kFlowArguments{{
    {GRPC_ARG_HTTP2_BDP_PROBE, 0},
    {GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, 4 << 20},
    {GRPC_ARG_HTTP2_MAX_FRAME_SIZE, 1 << 20},
}};

inline grpc::ChannelArguments channel_arguments(std::size_t max_receive_size_bytes,
                                                std::size_t max_send_size_bytes) {
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
  for (const auto& [name, value] : kFlowArguments) arguments.SetInt(name, value);
  arguments.SetMaxReceiveMessageSize(static_cast<int>(max_receive_size_bytes));
  arguments.SetMaxSendMessageSize(static_cast<int>(max_send_size_bytes));
  return arguments;
}

inline void Outgoing::start(const Hello& hello) {
  const std::size_t max_frame = max_frame_size_bytes(core_->options.limits);
  const PeerSecurity& security = core_->options.security;
  const auto channel =
      open_channel(peer_.addr, security, channel_arguments(kMaxHelloSizeBytes, max_frame));
  say_secret(context_, security);
  Frame frame;
  frame.hello = hello;
  out_ = to_buffer(encoded(frame));
  hold();  // for writes that begin on other threads; lose() or on_written() removes it
  begin(channel, kMethod, out_, in_);
}

inline void Outgoing::write_next() {
  std::optional<Frame> frame;
  std::size_t size_bytes = 0;
  {
    const std::lock_guard lock(peer_.mutex);
    if (state_ != State::kUp || ended_at_ms_ || writing_) return;
    frame = peer_.link.take(size_bytes);
    if (!frame) return;
    writing_ = true;
    wrote_at_ms_ = core_->now_ms();
  }
  std::string bytes = encoded(*frame, size_bytes);
  {
    const std::lock_guard lock(peer_.mutex);
    peer_.link.count_sent(frame->messages.size(), bytes.size());
  }
  out_ = to_buffer(std::move(bytes));
  write(out_);
}

inline void Outgoing::on_written(bool) {  // of a failed one the read hears as well
  bool last = false;
  {
    const std::lock_guard lock(peer_.mutex);
    writing_ = false;
    last = lost_;
  }
  last ? release() : write_next();
}

inline void Outgoing::tick() {
  const std::uint64_t liveness_ms = core_->options.liveness_timeout_ms;
  const char* broken = nullptr;
  bool overdue = false;
  {
    const std::lock_guard lock(peer_.mutex);
    const std::uint64_t now_ms = core_->now_ms();
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

inline void Outgoing::break_off(std::string reason) {
  {
    const std::lock_guard lock(peer_.mutex);
    if (reason_.empty()) reason_ = std::move(reason);
    if (!ended_at_ms_) ended_at_ms_ = core_->now_ms();
  }
  core_->wake_timer();  // which settles it, if gRPC doesn't
  context_.TryCancel();
}

inline void Outgoing::send_away(std::string reason) {
  {
    const std::lock_guard lock(peer_.mutex);
    hold_off_ = true;
  }
  break_off(std::move(reason));
}

inline bool Outgoing::stands() const {
  const std::lock_guard lock(peer_.mutex);
  return state_ == State::kUp && !ended_at_ms_;
}

inline bool Outgoing::occupies(NodeId peer) const {
  return peer_.id == peer && peer_.current().get() == this;
}

inline void Outgoing::on_read(bool ok) {
  if (!ok) return lose();
  State state{};
  {
    const std::lock_guard lock(peer_.mutex);
    heard_at_ms_ = core_->now_ms();
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
  read(in_);  // fails at once when the stream was broken off
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
    removed_ = reply.removed;
    if (!refusal.empty()) ended_at_ms_ = core_->now_ms();
    state_ = refusal.empty() ? State::kUp : State::kRefused;
    wrote_at_ms_ = core_->now_ms();
    if (state_ == State::kUp) peer_.link.up(core_->now_ms());
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
    if (!ended_at_ms_) ended_at_ms_ = core_->now_ms();
    if (state_ == State::kUp && !settled_) peer_.link.down(core_->now_ms());
    idle = !writing_;
  }
  core_->wake_timer();
  context_.TryCancel();  // so that a write that is still out comes back
  if (idle) release();
}

inline void Outgoing::on_done(const grpc::Status& status) {
  bool dialing = false;
  {
    const std::lock_guard lock(peer_.mutex);
    dialing = state_ == State::kDialing && !settled_;
    const bool turned_away = status.error_code() == grpc::StatusCode::UNAUTHENTICATED;
    if (dialing && turned_away) state_ = State::kTurnedAway;
  }
  const std::string& reason = status.error_message();
  if (reason.empty()) {
    settle("it ended the stream");
  } else {
    settle(dialing ? explained(reason, core_->options.security) : reason);
  }
  core_->let_go_of(*this);
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
                       : state == State::kDialing ? "can't reach peer, trying on"
                                                  : "peer refuses us, asking again each second";
    if (log_it) log.warn(what, {{"peer", peer_.id}, {"addr", peer_.addr}, {"reason", reason_}});
    if (state == State::kUp) events.on_peer_down(peer_.id, reason_);
    if (state == State::kRefused) events.on_peer_refused(peer_.id, reason_, removed_);
  });
  const std::lock_guard lock(peer_.mutex);
  peer_.stream = nullptr;  // Core keeps this object
}

// True: log it. Under the peer's lock.
inline bool Outgoing::account() {
  const std::uint64_t now_ms = core_->now_ms();
  bool log_it = true;
  if (state_ == State::kUp && !lost_) peer_.link.down(now_ms);
  if (state_ == State::kRefused || state_ == State::kTurnedAway) {
    log_it = peer_.link.refused(now_ms, reason_);
  }
  if (state_ == State::kDialing) {
    log_it = peer_.link.failed(now_ms, core_->options.liveness_timeout_ms);
  }
  if (hold_off_) peer_.link.hold_off(now_ms);
  return log_it && (state_ == State::kUp || !peer_.dropped);
}

}  // namespace peer_detail

}  // namespace seshat

#endif  // SESHAT_PEER_STREAM_HPP
