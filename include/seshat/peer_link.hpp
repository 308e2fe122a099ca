// seshat/peer_link.hpp - what the peer channel is told, what it tells, what it keeps of each peer.
//
// PeerOptions and PeerEvents are the channel's two sides to its owner. PeerLink is what it keeps
// about one peer that it dials: a queue, a schedule, counts.
//
//   waiting ── dial_due() ──> dialing ── up() ──> up ── down() ──┐
//      ^                         └────── failed(), refused() ────┤
//      └─────────────────────────────────────────────────────────┘
//
// Keeps:    the queue is empty unless the peer is up: nothing is sent that waited for a connection.
//           It is bounded; what comes at the bound is lost and counted. Raft repeats.
// Time:     milliseconds, given from outside; nothing here reads a clock.
// Threads:  none inside; peer_stream.hpp calls a PeerLink under a lock. Needs: records.hpp.
#ifndef SESHAT_PEER_LINK_HPP
#define SESHAT_PEER_LINK_HPP

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "seshat/peer_security.hpp"
#include "seshat/raft.hpp"
#include "seshat/records.hpp"
#include "seshat/result.hpp"
#include "seshat/snapshot.hpp"

namespace seshat {

// Of the queue to one peer. Sizes are estimates, a little above what is sent.
struct PeerQueueLimits {
  std::size_t max_messages = 4096;
  std::size_t max_size_bytes = 64u << 20;
  // The same on all nodes, and above the largest log entry: what is larger is neither sent nor
  // taken in.
  std::size_t max_message_size_bytes = 32u << 20;
  // A frame ends before it would pass this, so that heartbeats don't wait behind much; only a
  // single message may be larger.
  std::size_t frame_size_bytes = 1u << 20;
  // Of what is forwarded, which has a queue of its own and up to a quarter of each frame.
  std::size_t max_forwarded = 65536;
  std::size_t max_forwarded_size_bytes = 64u << 20;
};

// Counts since the start.
struct PeerStats {
  bool up = false;                     // our stream to it
  std::size_t queued_messages = 0;     // now
  std::size_t queued_size_bytes = 0;   // now
  std::uint64_t sent_messages = 0;     // handed to gRPC
  std::uint64_t dropped_messages = 0;  // not up, queue full, too large, or queued when it broke
  std::uint64_t sent_frames = 0;
  std::uint64_t sent_bytes = 0;
  std::uint64_t received_frames = 0;
  std::uint64_t received_bytes = 0;
};

struct PeerOptions {
  NodeId self;
  std::string listen_addr;                   // host:port
  std::map<NodeId, std::string> dial;        // each peer, and what to dial for it (set_peers)
  std::uint64_t rpc_timeout_ms = 5000;       // a handshake is answered within this, or ended
  std::uint64_t liveness_timeout_ms = 3000;  // a stream that is silent for this long is broken
  PeerQueueLimits limits;                    // of the queue to each peer
  PeerSecurity security = {};
};

// What is answered to an offer. kGoOn needs a writer, and what follows its last_key() is sent then;
// kInstalled needs the index up to which all is here; kRefused a reason.
struct SnapshotAnswer {
  SnapshotReply reply;
  std::shared_ptr<SnapshotWriter> writer = {};
};

struct SnapshotTransferOptions {
  std::uint64_t max_bytes_per_second = 0;      // 0: no limit
  std::uint64_t progress_timeout_ms = 60'000;  // given up when nothing moved for so long
};

struct SnapshotProgress {
  std::uint64_t sent_bytes = 0;  // in all attempts together
  std::uint64_t sent_chunks = 0;
  std::uint64_t connections = 0;  // attempts
  bool unreadable = false;        // the reader failed: no attempt will do better
};

// One snapshot on its way to one node (Peers::send_snapshot). Any thread.
class SnapshotTransfer {
 public:
  virtual ~SnapshotTransfer() = default;
  // It ends with an error, unless it has ended. One call of the reader may still be under way.
  virtual void cancel() = 0;
  [[nodiscard]] virtual SnapshotProgress progress() const = 0;
};

// Called on threads of the channel, and of who calls flush(), from before start() returns until the
// destructor has: one call at a time for a stream, but calls for different streams at once.
// Implementations post to their own thread and return.
class PeerEvents {
 public:
  // An incoming stream introduced itself. Call `answer` once, on any thread, now or later (within
  // rpc_timeout_ms). After a refusal the stream ends. Who `hello` claims to be is not proved; that
  // it is not this node itself is the implementation's to check. If `self` of the reply has no node
  // id, what set_hello() said is put there.
  virtual void on_hello(Hello hello, std::function<void(HelloReply)> answer) = 0;
  // Messages and status of a peer whose handshake was accepted. Never empty. There is no pushing
  // back: bound what waits, and drop messages at the bound.
  virtual void on_frame(NodeId from, Frame frame) = 0;
  // Follows soon on on_frame, on the same thread, which holds no lock then. It may call the channel, and
  // if it `has_time` may wait for the disk: when that takes long, frames are taken by another thread.
  virtual void on_reacted(bool /*has_time*/) {}
  // Our stream to `peer` was accepted. `self` is what the peer said about itself.
  virtual void on_peer_up(NodeId peer, Hello self) = 0;
  // Our stream to `peer` was refused; we try again each second, and say so each time.
  // `removed`: because this node was removed from the cluster.
  virtual void on_peer_refused(NodeId peer, std::string reason, bool removed) = 0;
  // A stream to `peer`, or one from it, that was up has ended (a stream that a newer one of the
  // same peer replaced doesn't count).
  virtual void on_peer_down(NodeId peer, std::string reason) = 0;

  // Some node, perhaps none that is known, asks something. Call `answer` once, on any thread, now
  // or later; the caller waits as long as it likes, but not longer than a minute. Who `request`
  // claims to come from is not proved.
  virtual void on_call(CallRequest request, std::function<void(CallReply)> answer) = 0;

  // Some node offers a snapshot. Who it is, and whether it may, is not proved: the offer names its
  // cluster, its sender (message.from) and its term; that it is meant for this node was checked.
  // Call `answer` once, on any thread, now or later (within rpc_timeout_ms). A connection that
  // broke comes back as a new offer: answer it with the same writer to go on where it was. That may
  // be at any time, for the channel sees to it that one stream at a time has a writer. Of a writer
  // that was taken one of the next three calls follows, unless a newer stream gets it, this stream
  // is gone before the answer, or the channel ends.
  virtual void on_snapshot_offer(SnapshotOffer offer,
                                 std::function<void(SnapshotAnswer)> answer) = 0;
  // All rows are there and finish() has succeeded; the channel doesn't touch the writer any more.
  // The sender waits until `done` says kInstalled or kRefused, as long as it takes.
  virtual void on_snapshot_received(GroupId group, std::shared_ptr<SnapshotWriter> writer,
                                    std::function<void(SnapshotReply)> done) = 0;
  // Its stream has ended before all was there; no call of the writer is under way. The sender
  // usually comes back.
  virtual void on_snapshot_broken(GroupId group, std::shared_ptr<SnapshotWriter> writer,
                                  std::string reason) = 0;
  // The writer has failed (and the sender was told): it is good for nothing but its destructor.
  virtual void on_snapshot_failed(GroupId group, std::shared_ptr<SnapshotWriter> writer,
                                  std::string reason) = 0;

 protected:
  ~PeerEvents() = default;
};

class PeerLink {
 public:
  static constexpr std::uint64_t kMinDialDelayMs = 100;
  static constexpr std::uint64_t kMaxDialDelayMs = 1000;

  // `seed` spreads the attempts, so that nodes don't dial in step.
  PeerLink(PeerQueueLimits limits, std::uint64_t seed) : limits_(limits), random_(seed) {}

  // ---- the queue
  enum class Pushed : std::uint8_t { kQueued, kLost, kTooLarge };
  Pushed push(PeerMessage message);
  // What doesn't find its place here is not lost in silence: the caller tells who waits.
  Pushed push(Forwarded forwarded);
  // The next frame: messages in order, and the status when it is due. nullopt: nothing to say.
  // `size_bytes` becomes an estimate of its size.
  [[nodiscard]] std::optional<Frame> take(std::size_t& size_bytes);
  // Says something with the next frame: a new status, or the last one as a sign of life.
  void set_status(const NodeStatus& status);
  void sign_of_life() { speak_ = true; }

  // ---- the schedule
  [[nodiscard]] bool dial_due(std::uint64_t now_ms) const { return now_ms >= dial_at_ms_; }
  void dial_at_once() { dial_at_ms_ = 0; }
  void dialed(std::uint64_t now_ms) { dialed_at_ms_ = now_ms; }
  void up(std::uint64_t now_ms);
  // It was up. Loses what is queued.
  void down(std::uint64_t now_ms);
  // Never again at once: it was asked and said no, or it was sent away.
  void hold_off(std::uint64_t now_ms) { dial_at_ms_ = now_ms + kMaxDialDelayMs; }
  // The last attempt didn't get through. True: this should be logged, once in an outage, and only
  // after `patience_ms` of it, for nodes that start together miss each other at first.
  [[nodiscard]] bool failed(std::uint64_t now_ms, std::uint64_t patience_ms);
  // True: this should be logged, it is not what was said last time.
  [[nodiscard]] bool refused(std::uint64_t now_ms, const std::string& reason);

  // ---- counts
  [[nodiscard]] const PeerStats& stats() const { return stats_; }
  void count_sent(std::size_t messages, std::size_t size_bytes);
  void count_received(std::size_t size_bytes);

 private:
  struct Queued {
    PeerMessage message;
    std::size_t size_bytes = 0;
  };

  static constexpr std::size_t kFrameHeadBytes = 64;  // about

  void take_messages(Frame& frame, std::size_t& size_bytes);
  void take_forwarded(Frame& frame, std::size_t& size_bytes);

  [[nodiscard]] std::uint64_t next_delay_ms();

  PeerQueueLimits limits_;
  std::deque<Queued> queue_;
  std::deque<Forwarded> forwarded_;
  std::size_t forwarded_size_bytes_ = 0;
  bool forwarded_goes_alone_ = false;  // in the next frame that has no room for both
  std::optional<NodeStatus> status_;
  bool speak_ = false;
  PeerStats stats_;

  std::uint64_t dial_at_ms_ = 0;
  std::uint64_t dialed_at_ms_ = 0;
  std::uint64_t up_at_ms_ = 0;
  std::uint64_t down_at_ms_ = 0;
  std::uint32_t failures_ = 0;       // since it was last up for a while
  bool unreachable_logged_ = false;  // since it was last up
  std::string refusal_logged_;       // since it was last up
  std::mt19937_64 random_;
};

// Roughly what `message` takes in memory and on the wire.
[[nodiscard]] std::size_t message_size_bytes(const raft::Message& message);
[[nodiscard]] std::size_t forwarded_size_bytes(const Forwarded& forwarded);

// =================================================================================================
// Bodies
// =================================================================================================

inline std::size_t message_size_bytes(const raft::Message& message) {
  std::size_t size_bytes = 64;
  if (const auto* append = std::get_if<raft::AppendEntries>(&message.body)) {
    for (const raft::Entry& entry : append->entries) size_bytes += entry.size_bytes();
  }
  return size_bytes;
}

inline std::size_t forwarded_size_bytes(const Forwarded& forwarded) {
  const auto* request = std::get_if<ForwardedRequest>(&forwarded);
  return 64 +
         (request ? request->operation.size() : std::get<ForwardedReply>(forwarded).reply.size());
}

// ---- The queue ----------------------------------------------------------------------------------

inline PeerLink::Pushed PeerLink::push(PeerMessage message) {
  const std::size_t size_bytes = message_size_bytes(message.message);
  const bool too_large = size_bytes > limits_.max_message_size_bytes;
  const bool full = queue_.size() >= limits_.max_messages ||
                    stats_.queued_size_bytes + size_bytes > limits_.max_size_bytes;
  if (!stats_.up || too_large || full) {
    ++stats_.dropped_messages;
    return too_large ? Pushed::kTooLarge : Pushed::kLost;
  }
  queue_.push_back({std::move(message), size_bytes});
  stats_.queued_messages = queue_.size();
  stats_.queued_size_bytes += size_bytes;
  return Pushed::kQueued;
}

inline PeerLink::Pushed PeerLink::push(Forwarded forwarded) {
  const std::size_t size_bytes = forwarded_size_bytes(forwarded);
  if (size_bytes > limits_.max_message_size_bytes) return Pushed::kTooLarge;
  const bool full = forwarded_.size() >= limits_.max_forwarded ||
                    forwarded_size_bytes_ + size_bytes > limits_.max_forwarded_size_bytes;
  if (!stats_.up || full) return Pushed::kLost;
  forwarded_.push_back(std::move(forwarded));
  forwarded_size_bytes_ += size_bytes;
  return Pushed::kQueued;
}

inline void PeerLink::take_forwarded(Frame& frame, std::size_t& size_bytes) {
  while (!forwarded_.empty()) {
    const std::size_t next_size_bytes = forwarded_size_bytes(forwarded_.front());
    const bool fits = size_bytes + next_size_bytes <= limits_.frame_size_bytes / 4;
    if (!fits && frame.forwarded.size() + frame.forwarded_replies.size() != 0) return;
    size_bytes += next_size_bytes;
    forwarded_size_bytes_ -= next_size_bytes;
    if (auto* request = std::get_if<ForwardedRequest>(&forwarded_.front())) {
      frame.forwarded.push_back(std::move(*request));
    } else {
      frame.forwarded_replies.push_back(std::get<ForwardedReply>(std::move(forwarded_.front())));
    }
    forwarded_.pop_front();
  }
}

inline std::optional<Frame> PeerLink::take(std::size_t& size_bytes) {
  size_bytes = kFrameHeadBytes;
  if (!stats_.up || (queue_.empty() && forwarded_.empty() && !speak_)) return std::nullopt;
  const std::size_t share_bytes = limits_.frame_size_bytes / 4;
  const bool both = !queue_.empty() && !forwarded_.empty();
  // A large one of either kind travels without the other, in turns: none waits for more than a frame.
  const bool no_room = both && (queue_.front().size_bytes > 3 * share_bytes - kFrameHeadBytes ||
                                forwarded_size_bytes(forwarded_.front()) > share_bytes);
  const bool only_forwarded =
      no_room && std::exchange(forwarded_goes_alone_, !forwarded_goes_alone_);
  Frame frame;
  if (!no_room || only_forwarded) take_forwarded(frame, size_bytes);
  if (!only_forwarded) take_messages(frame, size_bytes);
  if (std::exchange(speak_, false)) frame.status = status_;
  return frame;
}

inline void PeerLink::take_messages(Frame& frame, std::size_t& size_bytes) {
  frame.messages.reserve(std::min<std::size_t>(queue_.size(), 64));
  while (!queue_.empty()) {
    Queued& next = queue_.front();
    const bool fits = size_bytes + next.size_bytes <= limits_.frame_size_bytes;
    if (!fits && !frame.messages.empty()) break;
    size_bytes += next.size_bytes;
    stats_.queued_size_bytes -= next.size_bytes;
    frame.messages.push_back(std::move(next.message));
    queue_.pop_front();
  }
  stats_.queued_messages = queue_.size();
}

inline void PeerLink::set_status(const NodeStatus& status) {
  status_ = status;
  speak_ = true;
}

// ---- The schedule -------------------------------------------------------------------------------

inline void PeerLink::up(std::uint64_t now_ms) {
  stats_.up = true;
  up_at_ms_ = now_ms;
  unreachable_logged_ = false;
  refusal_logged_.clear();
  speak_ = status_.has_value();
}

inline void PeerLink::down(std::uint64_t now_ms) {
  stats_.up = false;
  stats_.dropped_messages += queue_.size();
  stats_.queued_messages = stats_.queued_size_bytes = 0;
  queue_.clear();
  forwarded_.clear();
  forwarded_size_bytes_ = 0;
  down_at_ms_ = now_ms;
  // One that comes and goes is as good as one that doesn't come.
  failures_ = now_ms - up_at_ms_ < kMaxDialDelayMs ? failures_ + 1 : 0;
  dial_at_ms_ = now_ms + next_delay_ms();
}

// Doubles from the least to the largest, minus up to a fifth.
inline std::uint64_t PeerLink::next_delay_ms() {
  const std::uint64_t doubled_ms = kMinDialDelayMs << std::min<std::uint32_t>(failures_, 10);
  const std::uint64_t delay_ms = std::min(kMaxDialDelayMs, doubled_ms);
  return delay_ms - delay_ms * (random_() % 200) / 1000;
}

// The delay runs from when the attempt began: one that took long to fail is followed at once.
inline bool PeerLink::failed(std::uint64_t now_ms, std::uint64_t patience_ms) {
  dial_at_ms_ = dialed_at_ms_ + next_delay_ms();
  ++failures_;
  if (now_ms < down_at_ms_ + patience_ms) return false;
  return !std::exchange(unreachable_logged_, true);
}

inline bool PeerLink::refused(std::uint64_t now_ms, const std::string& reason) {
  hold_off(now_ms);
  return std::exchange(refusal_logged_, reason) != reason;
}

// ---- Counts -------------------------------------------------------------------------------------

inline void PeerLink::count_sent(std::size_t messages, std::size_t size_bytes) {
  stats_.sent_messages += messages;
  stats_.sent_bytes += size_bytes;
  ++stats_.sent_frames;
}

inline void PeerLink::count_received(std::size_t size_bytes) {
  ++stats_.received_frames;
  stats_.received_bytes += size_bytes;
}

}  // namespace seshat

#endif  // SESHAT_PEER_LINK_HPP
