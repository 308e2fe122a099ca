// seshat/peer.hpp - the channel between nodes: long-lived streams that carry Raft's messages.
//
//   node A                                                                node B
//   send() ─> queue ─ flush() ─> [ A's stream to B ] ── frames ────────> on_frame()
//                                [                 ] <── a sign of life each second
//   on_frame() <──────────────── [ B's stream to A ] <─ flush() ─ queue <─ send()
//
//   Each node dials each other one, and speaks first: Hello. The listener's owner is asked
//   (on_hello), and its answer goes back. Only then do messages flow, of all groups on the one
//   stream, from the dialer to the listener; all that gathered during a write is the next frame.
//
//   Beside the streams, each on a connection of its own: calls (peer_call.hpp), and snapshots
//   (peer_snapshot_sender.hpp), so that no heartbeat waits behind them.
//
// Keeps:    messages of a peer arrive in order, or are lost: at a queue's bound, while its stream
//           is not up, when a stream breaks. Nothing is sent again, so nothing stale is sent. Raft
//           repeats what matters.
//           A peer that is gone is noticed within the liveness timeout, whatever TCP believes:
//           both ends say something every third of it, and cancel a stream that stays silent. The
//           cost: a frame that needs longer than that on its way breaks the stream, so with the
//           defaults a link has to carry about 350 KB/s.
// Dialing:  attempts are 100 ms to 1 s apart; a peer that dials us is dialed at once. One log line
//           when a peer is up, down, refuses us, or can't be reached for long; none for a retry.
// Hostile:  who can connect can send anything. A frame before the handshake, a second handshake, a
//           frame that can't be read end their stream with a status and a log line (one a second at
//           most); a frame over the limit ends it as well. At most 16 streams may wait for their
//           handshake: until then, each may make gRPC hold one frame of the largest size.
// Secured:  TLS in both directions and a secret, if PeerOptions::security says so
//           (peer_credentials.hpp): who has neither gets no stream, no call and no snapshot.
// Threads:  send, send_status, set_peers and flush belong to one owner thread, all else is any's;
//           only start and the destructor wait, and neither may be called from PeerEvents or a
//           `done`. Encoding and part of gRPC's work (framing, a sendmsg that doesn't wait) happen
//           on the thread that calls flush; behind a large frame, or one that the system did not take at
//           once, on the reactions'.
// Needs:    peer_stream.hpp, peer_listener.hpp, peer_call.hpp, peer_snapshot_*.hpp and with them
//           libgrpc++; replica.hpp (Transport).
//
//   auto peers = seshat::Peers::start({.self = {1}, .listen_addr = "0.0.0.0:7379",
//                                      .dial = {{{2}, "kv-2:7379"}}}, events, log);
//   if (!peers) return report(peers.error());
//   (*peers)->set_hello(hello);              // dialing begins
//   (*peers)->set_peers(addresses);          // whenever the members change
//   (*peers)->send(group, message);          // as often as there is something to say
//   (*peers)->flush();                       // at the end of a turn of the owner's loop
#ifndef SESHAT_PEER_HPP
#define SESHAT_PEER_HPP

#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "seshat/log.hpp"
#include "seshat/peer_call.hpp"
#include "seshat/peer_credentials.hpp"
#include "seshat/peer_link.hpp"
#include "seshat/peer_listener.hpp"
#include "seshat/peer_snapshot_sender.hpp"
#include "seshat/peer_stream.hpp"
#include "seshat/raft.hpp"
#include "seshat/records.hpp"
#include "seshat/replica.hpp"
#include "seshat/result.hpp"
#include "seshat/snapshot.hpp"
#include "seshat/thread_name.hpp"
#include "seshat/work_pool.hpp"

namespace seshat {

class Peers final : public Transport {
 public:
  // Listens. Nothing is dialed before set_hello(). `events` must outlive the result. Fails when the
  // address can't be listened on, and says why.
  static Result<std::unique_ptr<Peers>> start(PeerOptions options, PeerEvents& events,
                                              const Logger& log);
  // Ends all streams and waits for gRPC to be done with them: typically some 10 ms, about a second
  // when a peer doesn't react; and for reads and writes of snapshots, and events, that are under way. No
  // event comes afterwards.
  ~Peers() override;
  Peers(const Peers&) = delete;
  Peers& operator=(const Peers&) = delete;

  // What new streams say about this node; those that are up go on.
  void set_hello(Hello hello);

  // Owner's thread. From now on these are dialed, this node itself left out. New ones are dialed at
  // once. Of those that are missing the streams end, theirs to us too; nothing more is sent to
  // them, and on_peer_down follows for each that was up. Whose address is another one is dialed
  // there once the old stream's end was told; its counts begin anew. Who dials us is on_hello's to
  // judge as before, whether it is one of these or not.
  void set_peers(const std::map<NodeId, std::string>& dial);

  // Owner's thread. Queues for `message.to`; flush() sends. Lost, and counted, at the queue's bound
  // and while the stream is not up.
  void send(GroupId group, raft::Message message) override;
  // Owner's thread. Queues for `to`; flush() sends. kLost: the stream is not up, or its queue is full;
  // kTooLarge: it may not be sent. Then it is not sent. What was queued may yet get lost with its
  // stream; on_peer_down says so of ours.
  PeerLink::Pushed forward(NodeId to, Forwarded forwarded);
  // Owner's thread. To all peers that are up, with the next flush(); and from now on with every
  // sign of life and to every peer that comes up.
  void send_status(NodeStatus status);
  // Owner's thread. Starts a write to each peer that something is queued for and no write is under
  // way to. What gathers during a write follows by itself.
  void flush();

  // Any thread, now and then. If on_reacted() takes long, another thread takes in frames meanwhile; that
  // looks by itself as well, but seldom.
  void look_after_reactions();

  // Ends the streams to and from `peer`; on_peer_down follows for each that was up. It may dial
  // again, and is dialed again after a second, or when it is accepted.
  void disconnect(NodeId peer, std::string reason);

  // Asks the node at `addr`, whoever it is, over a connection of its own. `done` hears the answer,
  // or where it failed and why: once, on some thread (also this one), within timeout_ms and a bit,
  // or when the channel ends. It must not wait. A failure doesn't mean that nothing was done there.
  void call(const std::string& addr, const CallRequest& request, std::uint64_t timeout_ms,
            std::function<void(Result<CallReply>)> done);

  // Sends the snapshot that `reader` reads to the node at `addr`, over a connection of its own, and
  // again over another when that breaks, until the node has installed it (its index), refuses it,
  // nothing moves any more, or cancel(). `done` as in call(). The reader is called on slow threads
  // of the channel and let go of soon after the end. Several at once are fine, each with a reader.
  std::shared_ptr<SnapshotTransfer> send_snapshot(const std::string& addr,
                                                  const SnapshotOffer& offer,
                                                  std::shared_ptr<SnapshotReader> reader,
                                                  SnapshotTransferOptions options,
                                                  std::function<void(Result<Index>)> done);

  [[nodiscard]] std::map<NodeId, PeerStats> stats() const;
  // Where it listens: the port that the system chose, if listen_addr said 0.
  [[nodiscard]] int port() const { return listener_->port(); }

 private:
  explicit Peers(std::shared_ptr<peer_detail::Core> core);
  void drop(peer_detail::Peer& peer, const std::string& reason);
  void end_incoming(NodeId id, const std::string& reason);
  void end_reactions();
  void end_slow_work();

  const std::shared_ptr<peer_detail::Core> core_;
  const std::unique_ptr<peer_detail::Listener> listener_;
  std::thread timer_;
  std::thread reactions_;

  // The owner's.
  std::shared_ptr<const peer_detail::PeerMap> peers_;  // what Core has
  std::optional<NodeStatus> status_;                   // the last one
};

// =================================================================================================
// Bodies
// =================================================================================================

namespace peer_detail {

// ---- The address --------------------------------------------------------------------------------

// nullopt: bound, and let go of again.
[[nodiscard]] inline std::optional<std::string> why_not_bound(const addrinfo& address) {
  const int fd = ::socket(address.ai_family, address.ai_socktype, address.ai_protocol);
  if (fd < 0) return std::strerror(errno);
  const int yes = 1;
  ::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  std::optional<std::string> why;
  if (::bind(fd, address.ai_addr, address.ai_addrlen) != 0) why = std::strerror(errno);
  ::close(fd);
  return why;
}

// Why the system won't bind any address of host:port, if so. Asked before gRPC tries, which would
// give its reason to stderr only.
[[nodiscard]] inline std::optional<std::string> why_not_bound(const std::string& addr) {
  const std::size_t colon = addr.rfind(':');
  if (colon == std::string::npos) return "it is not host:port";
  std::string host = addr.substr(0, colon);
  if (host.size() > 2 && host.front() == '[') host = host.substr(1, host.size() - 2);
  addrinfo wanted{};
  wanted.ai_socktype = SOCK_STREAM;
  wanted.ai_flags = AI_PASSIVE;
  addrinfo* found = nullptr;
  const int fault = ::getaddrinfo(host.c_str(), addr.substr(colon + 1).c_str(), &wanted, &found);
  if (fault != 0) return ::gai_strerror(fault);
  std::optional<std::string> why = "it has no address";
  for (const addrinfo* each = found; each != nullptr && why; each = each->ai_next) {
    why = why_not_bound(*each);
  }
  ::freeaddrinfo(found);
  return why;
}

// ---- The timer's thread: ticks and dials, and stands in for that of the reactions ---------------

inline void dial(Core& core, const std::shared_ptr<Peer>& peer, const Hello& hello) {
  std::shared_ptr<Outgoing> stream;
  {
    const std::lock_guard lock(peer->mutex);
    if (peer->dropped) return;
    stream = peer->stream = std::make_shared<Outgoing>(core.shared_from_this(), peer);
    peer->link.dialed(core.now_ms());
  }
  if (core.keep(stream)) return stream->start(hello);
  const std::lock_guard lock(peer->mutex);
  peer->stream = nullptr;
}

[[nodiscard]] inline bool dial_due(Core& core, const Peer& peer) {
  const std::lock_guard lock(peer.mutex);
  return !peer.stream && peer.link.dial_due(core.now_ms());
}

// Of two streams to one node, under an old address and a new one, the owner hears the end of the
// old one before it hears that the new one is up.
inline void dial_due_peers(Core& core) {
  const std::optional<Hello> hello = core.current_hello();
  if (!hello) return;
  const std::shared_ptr<const PeerMap> peers = core.current_peers();
  for (const auto& [id, peer] : *peers) {
    if (!dial_due(core, *peer)) continue;
    bool occupied = false;
    for (const auto& stream : core.streams(core.outgoing)) occupied |= stream->occupies(id);
    if (!occupied) dial(core, peer, *hello);
  }
}

inline void tick(Core& core) {
  for (const GrpcWord& word : take_grpc_words()) core.complain_rarely(word.text, word.from);
  for (const auto& stream : core.streams(core.incoming)) stream->tick();
  for (const auto& call : core.streams(core.calls)) call->tick();
  for (const auto& stream : core.streams(core.outgoing)) stream->tick();
  for (const auto& transfer : core.streams(core.sending)) transfer->tick();
  for (const auto& stream : core.streams(core.receiving)) stream->tick();
}

// Whether all streams stand, and nothing else is under way.
[[nodiscard]] inline bool is_calm(Core& core) {
  {
    const std::lock_guard lock(core.mutex);
    const bool all_dialed = core.outgoing.size() == core.peers->size();
    if (!all_dialed || !core.calls.empty()) return false;
    if (!core.sending.empty() || !core.receiving.empty()) return false;
  }
  const auto stands = [](const auto& stream) { return stream->stands(); };
  return std::ranges::all_of(core.streams(core.outgoing), stands) &&
         std::ranges::all_of(core.streams(core.incoming), stands);
}

inline void tell_reacted(Core& core, bool has_time) {
  core.tell([has_time](PeerEvents& events, const Logger&) { events.on_reacted(has_time); });
}

// Returns when the channel is stopping.
inline void run_timer(Core& core) {
  name_this_thread("peer-timer");
  using SteadyClock = std::chrono::steady_clock;
  const std::chrono::milliseconds tick_length(core.tick_ms);
  auto ticked = SteadyClock::now();
  bool calm = false;
  bool held_up = false;
  std::unique_lock lock(core.mutex);
  while (!core.stopping()) {
    const auto due =
        ticked + std::chrono::milliseconds(calm ? kCalmTicks * core.tick_ms : core.tick_ms);
    core.changed.wait_until(lock, due,
                            [&] { return held_up || core.timer_wanted || core.stopping(); });
    core.timer_wanted = false;
    lock.unlock();
    held_up = core.reactions->is_held_up();
    if (held_up) core.reactions->stand_in(tick_length, [&core] { tell_reacted(core, false); });
    (void)core.now_ms();  // a clock that nobody asks for longer than a step loses what is beyond it
    if (const auto now = SteadyClock::now(); now >= due) {
      ticked = now;
      if (!core.stopping()) tick(core);
    }
    if (!core.stopping()) dial_due_peers(core);
    calm = !held_up && is_calm(core);
    lock.lock();
  }
}

// ---- The reactions' thread ----------------------------------------------------------------------

inline void run_reactions(Core& core) {
  name_this_thread("seshat-peers");
  core.reactions->run([&core] { tell_reacted(core, true); });
  const std::lock_guard lock(core.mutex);
  core.ended = true;
  core.changed.notify_all();
}

}  // namespace peer_detail

// ---- Peers --------------------------------------------------------------------------------------

inline Peers::Peers(std::shared_ptr<peer_detail::Core> core)
    : core_(std::move(core)),
      listener_(std::make_unique<peer_detail::Listener>(core_)),
      peers_(core_->current_peers()) {
  set_peers(core_->options.dial);
}

inline Result<std::unique_ptr<Peers>> Peers::start(PeerOptions options, PeerEvents& events,
                                                   const Logger& log) {
  const std::string failure = "can't listen on " + options.listen_addr + " for peers: ";
  if (const auto why = peer_detail::why_not_bound(options.listen_addr)) {
    return Error{failure + *why};
  }
  std::unique_ptr<Peers> peers(
      new Peers(std::make_shared<peer_detail::Core>(std::move(options), events, log)));
  if (!peers->listener_->start()) return Error{failure + "gRPC gives no reason"};
  peers->reactions_ = std::thread([core = peers->core_] { peer_detail::run_reactions(*core); });
  peers->core_->slow->start(peer_detail::kSlowThreads, "peer-slow");
  peers->timer_ = std::thread([core = peers->core_] { peer_detail::run_timer(*core); });
  return peers;
}

inline Peers::~Peers() {
  core_->stop_telling();
  for (const auto& transfer : core_->streams(core_->sending)) {
    transfer->give_up("this node is stopping");
  }
  if (timer_.joinable()) timer_.join();
  for (const auto& begun : core_->streams(core_->outgoing)) begun->break_off("stopped");
  for (const auto& stream : core_->streams(core_->incoming)) {
    stream->end("the node is stopping", grpc::StatusCode::UNAVAILABLE);
  }
  for (const auto& call : core_->streams(core_->calls)) {
    call->end("the node is stopping", grpc::StatusCode::UNAVAILABLE);
  }
  for (const auto& stream : core_->streams(core_->receiving)) {
    stream->end("the node is stopping", grpc::StatusCode::UNAVAILABLE);
  }
  end_slow_work();
  listener_->stop();
  core_->wait_told();
  if (reactions_.joinable()) end_reactions();
}

// After this no reader or writer is called or held any more.
inline void Peers::end_slow_work() {
  std::shared_ptr<WorkPool> slow;
  {
    const std::lock_guard lock(core_->mutex);
    slow = std::move(core_->slow);
  }
  if (slow) slow->stop();
}

// A call that gRPC can't get rid of, because its connection takes nothing, is left to the reactions'
// thread, which then ends by itself and touches nothing but Core.
inline void Peers::end_reactions() {
  core_->reactions->close();
  std::unique_lock lock(core_->mutex);
  const std::chrono::milliseconds patience(peer_detail::kShutdownMs);
  const bool ended = core_->changed.wait_for(lock, patience, [&] { return core_->ended; });
  lock.unlock();
  ended ? reactions_.join() : reactions_.detach();
}

inline void Peers::set_hello(Hello hello) {
  {
    const std::lock_guard lock(core_->mutex);
    core_->hello = std::move(hello);
  }
  core_->wake_timer();
}

inline void Peers::set_peers(const std::map<NodeId, std::string>& dial) {
  auto next = std::make_shared<peer_detail::PeerMap>();
  for (const auto& [id, addr] : dial) {
    if (id == core_->options.self) continue;
    const auto known = peers_->find(id);
    std::shared_ptr<peer_detail::Peer>& peer = (*next)[id];
    if (known != peers_->end() && known->second->addr == addr) {
      peer = known->second;
    } else {
      peer = std::make_shared<peer_detail::Peer>(id, addr, core_->options);
      if (status_) peer->link.set_status(*status_);
    }
  }
  const std::shared_ptr<const peer_detail::PeerMap> before = std::exchange(peers_, next);
  {
    const std::lock_guard lock(core_->mutex);
    core_->peers = peers_;
  }
  ++core_->peers_version;
  for (const auto& [id, peer] : *before) {
    const auto kept = next->find(id);
    if (kept == next->end()) {
      drop(*peer, "it is none of the peers any more");
      end_incoming(id, "this node has you among its peers no more");
    } else if (kept->second != peer) {
      drop(*peer, "it has another address now");
    }
  }
  core_->wake_timer();
}

inline void Peers::drop(peer_detail::Peer& peer, const std::string& reason) {
  {
    const std::lock_guard lock(peer.mutex);
    peer.dropped = true;
  }
  if (const auto stream = peer.current()) stream->break_off(reason);
}

inline void Peers::send(GroupId group, raft::Message message) {
  const auto found = peers_->find(message.to);
  if (found == peers_->end()) return;
  peer_detail::Peer& peer = *found->second;
  PeerLink::Pushed pushed{};
  {
    const std::lock_guard lock(peer.mutex);
    pushed = peer.link.push({group, std::move(message)});
  }
  if (pushed == PeerLink::Pushed::kTooLarge) {
    core_->complain("a message is larger than may be sent, and is dropped", peer.id, "");
  }
}

inline PeerLink::Pushed Peers::forward(NodeId to, Forwarded forwarded) {
  const auto found = peers_->find(to);
  if (found == peers_->end()) return PeerLink::Pushed::kLost;
  const std::lock_guard lock(found->second->mutex);
  return found->second->link.push(std::move(forwarded));
}

inline void Peers::send_status(NodeStatus status) {
  for (const auto& [id, peer] : *peers_) {
    const std::lock_guard lock(peer->mutex);
    peer->link.set_status(status);
  }
  status_ = std::move(status);
}

inline void Peers::flush() {
  for (const auto& [id, peer] : *peers_) {
    if (const auto stream = peer->current()) stream->write_next();
  }
}

inline void Peers::look_after_reactions() {
  if (core_->reactions->is_held_up()) core_->wake_timer();
}

inline void Peers::end_incoming(NodeId id, const std::string& reason) {
  std::shared_ptr<peer_detail::Incoming> from;
  {
    const std::lock_guard lock(core_->mutex);
    const auto place = core_->accepted.find(id);
    if (place != core_->accepted.end()) from = core_->incoming.at(place->second);
  }
  if (from) from->end(reason, grpc::StatusCode::ABORTED);
}

inline void Peers::disconnect(NodeId id, std::string reason) {
  end_incoming(id, reason);
  const std::shared_ptr<peer_detail::Peer> peer = core_->peer(id);
  if (!peer) return;
  if (const auto to = peer->current()) to->send_away(std::move(reason));
}

inline void Peers::call(const std::string& addr, const CallRequest& request,
                        std::uint64_t timeout_ms, std::function<void(Result<CallReply>)> done) {
  const auto call =
      std::make_shared<peer_detail::OutgoingCall>(core_, addr, timeout_ms, std::move(done));
  if (!core_->keep(call)) return call->break_off("this node is stopping");
  call->start(request);
}

inline std::shared_ptr<SnapshotTransfer> Peers::send_snapshot(
    const std::string& addr, const SnapshotOffer& offer, std::shared_ptr<SnapshotReader> reader,
    SnapshotTransferOptions options, std::function<void(Result<Index>)> done) {
  auto transfer = std::make_shared<peer_detail::OutgoingSnapshot>(
      core_, addr, offer, std::move(reader), options, std::move(done));
  bool late = false;
  {
    const std::lock_guard lock(core_->mutex);
    late = core_->stopping();
    if (!late) core_->sending.emplace(transfer.get(), transfer);
    core_->want_timer();
  }
  late ? transfer->give_up("this node is stopping") : transfer->tick();
  return transfer;
}

inline std::map<NodeId, PeerStats> Peers::stats() const {
  std::map<NodeId, PeerStats> all;
  const std::shared_ptr<const peer_detail::PeerMap> peers = core_->current_peers();
  for (const auto& [id, peer] : *peers) {
    const std::lock_guard lock(peer->mutex);
    all.emplace(id, peer->link.stats());
  }
  return all;
}

}  // namespace seshat

#endif  // SESHAT_PEER_HPP
