// seshat/peer_snapshot_sender.hpp - sends a snapshot to another node, beside the streams.
//
//   OutgoingSnapshot: one transfer            SnapshotStream: one attempt of it
//         tick() ── dials, again and again ──>   ── SnapshotOffer ──────────>
//                                                <─ kGoOn after_key ─────────
//         read_more() ── rows, slow thread ──>   ── SnapshotChunk 1, 2, 3 ..>   at most kWindow
//                                                <─ kGoOn received_chunk ────   not acknowledged
//         done <──────────────────────────────   <─ kInstalled, kRefused ────
//
// Keeps:    a connection of its own, so that no heartbeat waits behind a chunk. When it breaks, the
//           next attempt begins 100 ms to 1 s later and goes on behind what the receiver has.
//           The reader is called by one thread at a time, and never by one of gRPC's.
// Memory:   of a transfer, kWindow + 1 chunks at most: what is read and not acknowledged.
// Liveness: the receiver speaks every third of the liveness timeout once it has answered the offer;
//           a sender with nothing to send (slow disk, rate limit) sends a chunk with no rows.
// Threads:  as peer.hpp says. Needs: peer_stream.hpp, snapshot.hpp; libgrpc++.
#ifndef SESHAT_PEER_SNAPSHOT_SENDER_HPP
#define SESHAT_PEER_SNAPSHOT_SENDER_HPP

#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/status.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>

#include "seshat/fnv1a.hpp"
#include "seshat/peer_codec.hpp"
#include "seshat/peer_credentials.hpp"
#include "seshat/peer_link.hpp"
#include "seshat/peer_security.hpp"
#include "seshat/peer_stream.hpp"
#include "seshat/records.hpp"
#include "seshat/result.hpp"
#include "seshat/snapshot.hpp"

namespace seshat::peer_detail {

inline constexpr std::size_t kWindow = 4;
inline constexpr std::size_t kMaxSnapshotReplySizeBytes = 256 * 1024;  // it holds a key

using SnapshotDone = std::function<void(Result<Index>)>;

class SnapshotStream;

class OutgoingSnapshot final : public SnapshotTransfer,
                               public std::enable_shared_from_this<OutgoingSnapshot> {
 public:
  OutgoingSnapshot(std::shared_ptr<Core> core, std::string addr, const SnapshotOffer& offer,
                   std::shared_ptr<SnapshotReader> reader, SnapshotTransferOptions options,
                   SnapshotDone done);

  void cancel() override { give_up("it was cancelled"); }
  [[nodiscard]] SnapshotProgress progress() const override;

  void tick();  // dials when it is time, and gives up when nothing moves
  void give_up(const std::string& reason);

  // ---- of an attempt's threads
  void note_answer(const std::string& after_key);
  void note_progress();
  void count_sent(std::size_t size_bytes);
  void settle(Result<Index> result);
  void lose(const SnapshotStream& stream, const std::string& reason, bool hopeless);
  // Reads the next rows on a slow thread, if there is room for them and the rate allows it.
  void read_more();

 private:
  void read(const std::shared_ptr<SnapshotStream>& stream, const std::string& after_key);
  void end_reading();
  void note_unreadable();
  void earn();
  void spend(std::size_t size_bytes);
  [[nodiscard]] Error failure(const std::string& reason) const;

  const std::shared_ptr<Core> core_;
  const std::string addr_;
  const std::string offer_;  // its bytes
  const SnapshotTransferOptions options_;
  const std::size_t chunk_size_bytes_;

  mutable std::mutex mutex_;  // guards all below; a stream's may be taken with it
  SnapshotDone done_;         // until it was called
  std::shared_ptr<SnapshotReader> reader_;
  bool settled_ = false;
  bool reading_ = false;
  std::shared_ptr<SnapshotStream> stream_;  // the attempt under way
  std::uint64_t dial_at_ms_ = 0;
  std::uint64_t failures_ = 0;  // since something moved
  std::uint64_t moved_at_ms_;
  std::string furthest_key_;  // that the receiver went on behind
  std::string last_loss_ = "nothing was heard from it";
  std::int64_t budget_bytes_;  // may be sent now
  std::uint64_t earned_at_ms_;
  SnapshotProgress progress_;
};

// One attempt. Its end is noticed and handled as that of Outgoing (peer_stream.hpp).
class SnapshotStream final : public DialedStream, public Dialed {
 public:
  SnapshotStream(std::shared_ptr<Core> core, std::shared_ptr<OutgoingSnapshot> transfer)
      : DialedStream(core->reactions),
        core_(std::move(core)),
        transfer_(std::move(transfer)),
        began_at_ms_(core_->now_ms()) {}

  void start(const std::string& addr, std::string offer);
  void tick() override;
  void break_off(std::string reason) override;

  // Behind which key rows are wanted next; nullopt: none, or not now.
  [[nodiscard]] std::optional<std::string> wanted_after() const;
  void push(SnapshotRows rows, std::uint64_t checksum);

 private:
  void on_read(bool ok) override;
  void on_written(bool ok) override;
  void on_done(const grpc::Status& status) override;
  void write_next();
  void take(const SnapshotReply& reply);
  [[nodiscard]] bool go_on(const SnapshotReply& reply);
  void lose();
  void settle(const std::string& reason, bool hopeless);
  [[nodiscard]] std::size_t under_way() const { return queue_.size() + sent_ - received_; }

  const std::shared_ptr<Core> core_;
  const std::shared_ptr<OutgoingSnapshot> transfer_;
  grpc::ByteBuffer in_;   // the outstanding read's
  grpc::ByteBuffer out_;  // belongs to whoever set writing_

  mutable std::mutex mutex_;  // guards all below
  bool answered_ = false;
  bool writing_ = true;  // the offer
  bool lost_ = false;
  bool settled_ = false;
  std::string reason_;
  std::optional<std::uint64_t> ended_at_ms_;
  std::uint64_t began_at_ms_;
  std::uint64_t heard_at_ms_ = 0;
  std::uint64_t wrote_at_ms_ = 0;
  std::string position_;             // the key that what is queued last ends with
  bool all_queued_ = false;          // the last rows are in the queue, or sent
  std::deque<SnapshotChunk> queue_;  // numbered when they are written
  std::uint64_t sent_ = 0;           // chunks
  std::uint64_t received_ = 0;       // ... that were acknowledged
};

// ---- A transfer ---------------------------------------------------------------------------------

// With a limit, small enough that it flows.
inline std::size_t chunk_size_bytes(const SnapshotTransferOptions& options) {
  const std::uint64_t rate = options.max_bytes_per_second;
  if (rate == 0) return kSnapshotChunkSizeBytes;
  return std::clamp<std::uint64_t>(rate / 4, 16 * 1024, kSnapshotChunkSizeBytes);
}

inline std::string encoded(const SnapshotOffer& offer) {
  std::string bytes;
  codec::encode(offer, bytes);
  return bytes;
}

inline OutgoingSnapshot::OutgoingSnapshot(std::shared_ptr<Core> core, std::string addr,
                                          const SnapshotOffer& offer,
                                          std::shared_ptr<SnapshotReader> reader,
                                          SnapshotTransferOptions options, SnapshotDone done)
    : core_(std::move(core)),
      addr_(std::move(addr)),
      offer_(encoded(offer)),
      options_(options),
      chunk_size_bytes_(chunk_size_bytes(options)),
      done_(std::move(done)),
      reader_(std::move(reader)),
      moved_at_ms_(core_->now_ms()),
      budget_bytes_(static_cast<std::int64_t>(chunk_size_bytes_)),
      earned_at_ms_(core_->now_ms()) {}

inline SnapshotProgress OutgoingSnapshot::progress() const {
  const std::lock_guard lock(mutex_);
  return progress_;
}

inline void OutgoingSnapshot::tick() {
  std::shared_ptr<SnapshotStream> begun;
  std::optional<std::string> stuck;
  {
    const std::lock_guard lock(mutex_);
    const std::uint64_t now_ms = core_->now_ms();
    if (settled_) return;
    earn();
    if (now_ms - moved_at_ms_ > options_.progress_timeout_ms) stuck = last_loss_;
    if (!stuck && !stream_ && now_ms >= dial_at_ms_) {
      begun = stream_ = std::make_shared<SnapshotStream>(core_, shared_from_this());
      ++progress_.connections;
    }
  }
  if (stuck) {
    const std::string limit = std::to_string(options_.progress_timeout_ms) + " ms";
    return give_up("nothing moved within " + limit + ": " + *stuck);
  }
  if (begun && core_->keep(begun)) begun->start(addr_, offer_);
  read_more();
}

// What a tick or two allow may be sent at once, so that the rate is met though time comes in ticks.
inline void OutgoingSnapshot::earn() {
  const std::uint64_t rate = options_.max_bytes_per_second;
  const std::uint64_t now_ms = core_->now_ms();
  const std::uint64_t most = std::max<std::uint64_t>(rate * 2 * core_->tick_ms / 1000, 1);
  budget_bytes_ += static_cast<std::int64_t>(rate * (now_ms - earned_at_ms_) / 1000);
  budget_bytes_ = std::min(budget_bytes_, static_cast<std::int64_t>(most));
  earned_at_ms_ = now_ms;
}

inline void OutgoingSnapshot::read_more() {
  std::shared_ptr<SnapshotStream> stream;
  std::optional<std::string> after_key;
  {
    const std::lock_guard lock(mutex_);
    if (settled_ || reading_ || !stream_) return;
    if (options_.max_bytes_per_second != 0 && budget_bytes_ <= 0) return;
    after_key = stream_->wanted_after();
    if (!after_key) return;
    reading_ = true;
    stream = stream_;
  }
  const bool posted = core_->post_slow(
      [self = shared_from_this(), stream, key = *after_key] { self->read(stream, key); });
  if (!posted) end_reading();
}

inline void OutgoingSnapshot::read(const std::shared_ptr<SnapshotStream>& stream,
                                   const std::string& after_key) {
  std::shared_ptr<SnapshotReader> reader;
  {
    const std::lock_guard lock(mutex_);
    reader = reader_;
  }
  Result<SnapshotRows> rows = reader->read(after_key, chunk_size_bytes_);
  reader = nullptr;
  if (rows) {
    const std::uint64_t checksum = fnv1a(rows->rows);
    spend(rows->rows.size());
    stream->push(std::move(*rows), checksum);  // forgotten if that attempt has ended meanwhile
  }
  end_reading();  // now that the stream knows where to go on
  if (rows) return read_more();
  note_unreadable();
  give_up("its rows can't be read: " + rows.error().text);
}

inline void OutgoingSnapshot::note_unreadable() {
  const std::lock_guard lock(mutex_);
  progress_.unreadable = true;
}

inline void OutgoingSnapshot::spend(std::size_t size_bytes) {
  const std::lock_guard lock(mutex_);
  budget_bytes_ -= static_cast<std::int64_t>(size_bytes);
}

// The reader goes on this thread if it is wanted no more: a slow one, or the last.
inline void OutgoingSnapshot::end_reading() {
  std::shared_ptr<SnapshotReader> reader;
  const std::lock_guard lock(mutex_);
  reading_ = false;
  if (settled_) reader = std::move(reader_);
}

inline void OutgoingSnapshot::note_answer(const std::string& after_key) {
  const std::lock_guard lock(mutex_);
  if (after_key <= furthest_key_) return;
  furthest_key_ = after_key;
  moved_at_ms_ = core_->now_ms();
  failures_ = 0;
}

inline void OutgoingSnapshot::note_progress() {
  const std::lock_guard lock(mutex_);
  moved_at_ms_ = core_->now_ms();
  failures_ = 0;
}

inline void OutgoingSnapshot::count_sent(std::size_t size_bytes) {
  const std::lock_guard lock(mutex_);
  progress_.sent_bytes += size_bytes;
  ++progress_.sent_chunks;
}

inline void OutgoingSnapshot::lose(const SnapshotStream& stream, const std::string& reason,
                                   bool hopeless) {
  {
    const std::lock_guard lock(mutex_);
    if (stream_.get() != &stream) return;
    const std::uint64_t doubled_ms = PeerLink::kMinDialDelayMs
                                     << std::min<std::uint64_t>(failures_, 10);
    dial_at_ms_ = core_->now_ms() + std::min(PeerLink::kMaxDialDelayMs, doubled_ms);
    ++failures_;
    last_loss_ = reason;
    stream_ = nullptr;
  }
  if (hopeless) give_up(reason);
}

inline void OutgoingSnapshot::give_up(const std::string& reason) { settle(failure(reason)); }

inline Error OutgoingSnapshot::failure(const std::string& reason) const {
  return {"sending a snapshot to the node at " + addr_ + " failed: " + reason};
}

inline void OutgoingSnapshot::settle(Result<Index> result) {
  std::shared_ptr<SnapshotStream> stream;
  std::shared_ptr<SnapshotReader> reader;
  core_->even_at_the_end([&] {
    SnapshotDone done;
    {
      const std::lock_guard lock(mutex_);
      if (std::exchange(settled_, true)) return;
      done = std::exchange(done_, nullptr);
      stream = std::move(stream_);
      if (!reading_) reader = std::move(reader_);
    }
    if (done) done(std::move(result));
  });
  if (stream) stream->break_off("its transfer has ended");
  if (reader) core_->let_go_slowly(std::move(reader));
  const std::lock_guard lock(core_->mutex);
  core_->sending.erase(this);
}

// ---- An attempt ---------------------------------------------------------------------------------

inline void SnapshotStream::start(const std::string& addr, std::string offer) {
  const PeerSecurity& security = core_->options.security;
  say_secret(context_, security);
  const auto channel = open_channel(
      addr, security,
      channel_arguments(kMaxSnapshotReplySizeBytes, max_chunk_size_bytes(core_->options.limits)));
  out_ = to_buffer(std::move(offer));
  hold();  // for writes that begin on other threads; lose() or on_written() removes it
  begin(channel, kSnapshotMethod, out_, in_);
}

inline void SnapshotStream::tick() {
  const char* broken = nullptr;
  bool overdue = false;
  {
    const std::lock_guard lock(mutex_);
    const std::uint64_t now_ms = core_->now_ms();
    if (ended_at_ms_) {
      overdue = now_ms - *ended_at_ms_ >= 2 * core_->tick_ms;
    } else if (!answered_) {
      const bool late = now_ms - began_at_ms_ > core_->options.rpc_timeout_ms;
      if (late) broken = "no answer to the offer";
    } else if (now_ms - heard_at_ms_ > core_->options.liveness_timeout_ms) {
      broken = "nothing was heard from it within the liveness timeout";
    } else if (!writing_ && !all_queued_ && under_way() == 0 &&
               now_ms - wrote_at_ms_ >= core_->sign_of_life_ms) {
      queue_.push_back({0, "", kFnv1aStart, false});
    }
  }
  if (overdue) return settle("it broke", false);
  broken != nullptr ? break_off(broken) : write_next();
}

inline void SnapshotStream::break_off(std::string reason) {
  {
    const std::lock_guard lock(mutex_);
    if (reason_.empty()) reason_ = std::move(reason);
    if (!ended_at_ms_) ended_at_ms_ = core_->now_ms();
  }
  context_.TryCancel();
}

inline std::optional<std::string> SnapshotStream::wanted_after() const {
  const std::lock_guard lock(mutex_);
  const bool wanted = answered_ && !ended_at_ms_ && !all_queued_ && under_way() < kWindow;
  return wanted ? std::optional(position_) : std::nullopt;
}

inline void SnapshotStream::push(SnapshotRows rows, std::uint64_t checksum) {
  {
    const std::lock_guard lock(mutex_);
    if (ended_at_ms_) return;
    if (!rows.last_key.empty()) position_ = std::move(rows.last_key);
    all_queued_ = rows.last;
    queue_.push_back({0, std::move(rows.rows), checksum, rows.last});
  }
  write_next();
}

inline void SnapshotStream::write_next() {
  SnapshotChunk chunk;
  {
    const std::lock_guard lock(mutex_);
    if (ended_at_ms_ || writing_ || queue_.empty()) return;
    chunk = std::move(queue_.front());
    queue_.pop_front();
    chunk.number = ++sent_;
    writing_ = true;
    wrote_at_ms_ = core_->now_ms();
  }
  std::string bytes;
  bytes.reserve(chunk.rows.size() + 64);
  codec::encode(chunk, bytes);
  transfer_->count_sent(bytes.size());
  out_ = to_buffer(std::move(bytes));
  write(out_);
}

inline void SnapshotStream::on_written(bool) {  // of a failed one the read hears as well
  bool last = false;
  {
    const std::lock_guard lock(mutex_);
    writing_ = false;
    last = lost_;
  }
  last ? release() : write_next();
}

inline void SnapshotStream::on_read(bool ok) {
  if (!ok) return lose();
  Result<SnapshotReply> reply = decoded(in_, codec::decode_snapshot_reply);
  reply ? take(*reply) : break_off(reply.error().text);
  read(in_);  // fails at once when the stream was broken off
}

inline void SnapshotStream::take(const SnapshotReply& reply) {
  if (reply.status == SnapshotReply::Status::kInstalled) return transfer_->settle(reply.index);
  if (reply.status == SnapshotReply::Status::kRefused) {
    return transfer_->give_up(reply.reason.empty() ? "it gave no reason" : reply.reason);
  }
  if (!go_on(reply)) return break_off("it acknowledged a chunk that was not sent");
  write_next();
  transfer_->read_more();
}

// False: it can't be.
inline bool SnapshotStream::go_on(const SnapshotReply& reply) {
  bool first = false;
  bool moved = false;
  {
    const std::lock_guard lock(mutex_);
    heard_at_ms_ = core_->now_ms();
    if (reply.received_chunk > sent_) return false;
    first = !std::exchange(answered_, true);
    if (first) position_ = reply.after_key;
    // Once all is there, installing it may take long: that it still speaks is enough.
    moved = reply.received_chunk > received_ || (all_queued_ && under_way() == 0);
    received_ = std::max(received_, reply.received_chunk);
  }
  if (first) transfer_->note_answer(reply.after_key);
  if (moved) transfer_->note_progress();
  return true;
}

inline void SnapshotStream::lose() {
  bool idle = false;
  {
    const std::lock_guard lock(mutex_);
    lost_ = true;
    if (!ended_at_ms_) ended_at_ms_ = core_->now_ms();
    idle = !writing_;
  }
  context_.TryCancel();  // so that a write that is still out comes back
  if (idle) release();
}

inline void SnapshotStream::on_done(const grpc::Status& status) {
  const bool too_old = status.error_code() == grpc::StatusCode::UNIMPLEMENTED;
  if (too_old) {
    settle("it takes no snapshots, its version of seshat is too old: update it", true);
  } else {
    const std::string& reason = status.error_message();
    settle(reason.empty() ? "it ended the stream" : reason, false);
  }
  core_->let_go_of(*this);
}

// The first call tells how it ended, and makes room for the next attempt.
inline void SnapshotStream::settle(const std::string& reason, bool hopeless) {
  std::string first;
  {
    const std::lock_guard lock(mutex_);
    if (std::exchange(settled_, true)) return;
    first = reason_.empty() ? reason : reason_;
    queue_.clear();
  }
  transfer_->lose(*this, first, hopeless);
}

}  // namespace seshat::peer_detail

#endif  // SESHAT_PEER_SNAPSHOT_SENDER_HPP
