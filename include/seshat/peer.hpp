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
// Keeps:    messages of a peer arrive in order, or are lost: at a queue's bound, while its stream is
//           not up, when a stream breaks. Nothing is sent again, so nothing stale is sent. Raft
//           repeats what matters.
//           A peer that is gone is noticed within the liveness timeout, whatever TCP believes:
//           both ends say something every third of it, and cancel a stream that stays silent. The
//           cost: a frame that needs longer than that on its way breaks the stream, so with the
//           defaults a link has to carry about 350 KB/s.
// Dialing:  attempts are 100 ms to 1 s apart; a peer that dials us is dialed at once. One log line
//           when a peer is up, down, refuses us, or can't be reached for long; none for a retry.
// Hostile:  who can connect can send anything: a frame before the handshake, a second handshake, a
//           frame that can't be read or is too large end their stream with a status and a log line
//           (one a second at most). At most 64 streams may wait for their handshake.
// Threads:  PeerEvents are called on gRPC's threads, one at a time for a stream. send, send_status
//           and flush belong to one owner thread; all else may be called on any. Nothing blocks but
//           start and the destructor. gRPC does part of its work on the thread that calls flush:
//           framing, and a sendmsg that doesn't wait.
// Needs:    peer_stream.hpp and with it libgrpc++; replica.hpp (Transport).
//
//   auto peers = seshat::Peers::start({.self = {1}, .listen_addr = "0.0.0.0:7379",
//                                      .dial = {{{2}, "kv-2:7379"}}}, events, log);
//   if (!peers) return report(peers.error());
//   (*peers)->set_hello(hello);              // dialing begins
//   (*peers)->send(group, message);          // as often as there is something to say
//   (*peers)->flush();                       // at the end of a turn of the owner's loop
#ifndef SESHAT_PEER_HPP
#define SESHAT_PEER_HPP

#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "seshat/log.hpp"
#include "seshat/peer_link.hpp"
#include "seshat/peer_stream.hpp"
#include "seshat/raft.hpp"
#include "seshat/records.hpp"
#include "seshat/replica.hpp"
#include "seshat/result.hpp"

namespace seshat {

class Peers final : public Transport {
 public:
  // Listens. Nothing is dialed before set_hello(). `events` must outlive the result. Fails when the
  // address can't be listened on, and says why.
  static Result<std::unique_ptr<Peers>> start(PeerOptions options, PeerEvents& events,
                                              const Logger& log);
  // Ends all streams and waits for gRPC to be done with them: typically some 10 ms, about a second
  // when a peer doesn't react. No event comes afterwards.
  ~Peers() override;
  Peers(const Peers&) = delete;
  Peers& operator=(const Peers&) = delete;

  // What new streams say about this node; those that are up go on.
  void set_hello(Hello hello);

  // Owner's thread. Queues for `message.to`; flush() sends. Lost, and counted, at the queue's bound
  // and while the stream is not up.
  void send(GroupId group, raft::Message message) override;
  // Owner's thread. To all peers that are up, with the next flush(); and from now on with every
  // sign of life and to every peer that comes up.
  void send_status(NodeStatus status);
  // Owner's thread. Starts a write to each peer that something is queued for and no write is under
  // way to. What gathers during a write follows by itself.
  void flush();

  // Ends the streams to and from `peer`; on_peer_down follows for each that was up. It is dialed
  // again after a second, and may dial again.
  void disconnect(NodeId peer, std::string reason);

  [[nodiscard]] std::map<NodeId, PeerStats> stats() const;
  // Where it listens: the port that the system chose, if listen_addr said 0.
  [[nodiscard]] int port() const { return listener_->port(); }

 private:
  explicit Peers(std::shared_ptr<peer_detail::Core> core);
  void end_timer();

  const std::shared_ptr<peer_detail::Core> core_;
  const std::unique_ptr<peer_detail::Listener> listener_;
  std::thread timer_;
};

// =================================================================================================
// Bodies
// =================================================================================================

namespace peer_detail {

// Why the system won't bind host:port, if so. Asked before gRPC tries, which would give its reason
// to stderr only.
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
  std::optional<std::string> why;
  const int fd = ::socket(found->ai_family, found->ai_socktype, found->ai_protocol);
  const int yes = 1;
  if (fd >= 0) ::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  if (fd < 0 || ::bind(fd, found->ai_addr, found->ai_addrlen) != 0) why = std::strerror(errno);
  if (fd >= 0) ::close(fd);
  ::freeaddrinfo(found);
  return why;
}

}  // namespace peer_detail

inline Peers::Peers(std::shared_ptr<peer_detail::Core> core)
    : core_(std::move(core)), listener_(std::make_unique<peer_detail::Listener>(core_)) {}

inline Result<std::unique_ptr<Peers>> Peers::start(PeerOptions options, PeerEvents& events,
                                                   const Logger& log) {
  const std::string failure = "can't listen on " + options.listen_addr + " for peers: ";
  if (const auto why = peer_detail::why_not_bound(options.listen_addr))
    return Error{failure + *why};
  std::unique_ptr<Peers> peers(
      new Peers(std::make_shared<peer_detail::Core>(std::move(options), events, log)));
  if (!peers->listener_->start()) return Error{failure + "gRPC gives no reason"};
  peers->timer_ = std::thread([core = peers->core_] { core->run(); });
  return peers;
}

inline Peers::~Peers() {
  core_->stop_telling();
  for (const auto& stream : core_->streams(core_->outgoing)) stream->break_off("stopped");
  if (timer_.joinable()) end_timer();
  for (const auto& stream : core_->streams(core_->incoming)) {
    stream->end("the node is stopping", grpc::StatusCode::UNAVAILABLE);
  }
  listener_->stop();
}

// A call that gRPC can't get rid of, because its connection takes nothing, is left to the timer's
// thread, which then ends by itself and touches nothing but Core.
inline void Peers::end_timer() {
  std::unique_lock lock(core_->mutex);
  const std::chrono::milliseconds patience(peer_detail::kShutdownMs);
  const bool ended = core_->changed.wait_for(lock, patience, [&] { return core_->ended; });
  lock.unlock();
  ended ? timer_.join() : timer_.detach();
}

inline void Peers::set_hello(Hello hello) {
  {
    const std::lock_guard lock(core_->mutex);
    core_->hello = std::move(hello);
  }
  core_->wake_dialer();
}

inline void Peers::send(GroupId group, raft::Message message) {
  peer_detail::Peer* peer = core_->peer(message.to);
  if (peer == nullptr) return;
  PeerLink::Pushed pushed{};
  {
    const std::lock_guard lock(peer->mutex);
    pushed = peer->link.push({group, std::move(message)});
  }
  if (pushed == PeerLink::Pushed::kTooLarge) {
    core_->complain("a message is larger than may be sent, and is dropped", peer->id, "");
  }
}

inline void Peers::send_status(NodeStatus status) {
  for (auto& [id, peer] : core_->peers) {
    const std::lock_guard lock(peer.mutex);
    peer.link.set_status(status);
  }
}

inline void Peers::flush() {
  for (auto& [id, peer] : core_->peers) {
    if (const auto stream = peer.current()) stream->write_next();
  }
}

inline void Peers::disconnect(NodeId id, std::string reason) {
  std::shared_ptr<peer_detail::Incoming> from;
  {
    const std::lock_guard lock(core_->mutex);
    const auto place = core_->accepted.find(id);
    if (place != core_->accepted.end()) from = core_->incoming.at(place->second);
  }
  if (from) from->end(reason, grpc::StatusCode::ABORTED);
  peer_detail::Peer* peer = core_->peer(id);
  if (peer == nullptr) return;
  if (const auto to = peer->current()) to->break_off(std::move(reason), true);
}

inline std::map<NodeId, PeerStats> Peers::stats() const {
  std::map<NodeId, PeerStats> all;
  for (const auto& [id, peer] : core_->peers) {
    const std::lock_guard lock(peer.mutex);
    all.emplace(id, peer.link.stats());
  }
  return all;
}

}  // namespace seshat

#endif  // SESHAT_PEER_HPP
