// seshat/peer_snapshot_receiver.hpp - takes in snapshots that other nodes send.
//
//   silent ── offer ──> asking ── kGoOn ──> waiting ──> taking ── last chunk ──> finishing ──┐
//     │                   │                 (for the writer)  │                               │
//     └───────────────────┴── refused, installed already ─────┴── broken <── the end ── complete
//
// Keeps:    a chunk is asked of gRPC when the one before it is written: what comes faster than the
//           disk takes it waits at the sender. The writer is called by one thread at a time, never
//           by one of gRPC's, and by one stream at a time: a new stream with the same writer ends
//           the older one and waits until its last call has returned.
// Hostile:  kMaxIncomingSnapshots at most. A chunk before the offer, out of its order, with another
//           checksum than it says, or with rows that are not whole or not in order ends the stream.
//           Until they are ended in time, each may make gRPC hold one message of the largest size.
// Threads:  as peer.hpp says. Needs: peer_stream.hpp, snapshot.hpp; libgrpc++.
#ifndef SESHAT_PEER_SNAPSHOT_RECEIVER_HPP
#define SESHAT_PEER_SNAPSHOT_RECEIVER_HPP

#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/status.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

#include "seshat/fnv1a.hpp"
#include "seshat/peer_codec.hpp"
#include "seshat/peer_incoming.hpp"
#include "seshat/peer_link.hpp"
#include "seshat/peer_reactor.hpp"
#include "seshat/peer_stream.hpp"
#include "seshat/records.hpp"
#include "seshat/result.hpp"
#include "seshat/snapshot.hpp"

namespace seshat::peer_detail {

inline constexpr std::size_t kMaxOfferSizeBytes = 1 << 20;  // it holds the membership

class IncomingSnapshotStream final : public IncomingStream,
                                     public std::enable_shared_from_this<IncomingSnapshotStream> {
 public:
  IncomingSnapshotStream(std::shared_ptr<Core> core, std::unique_ptr<Arrival> arrival)
      : IncomingStream(std::move(core), std::move(arrival)) {}

  void tick();
  // Ends in favour of a newer stream with the same writer: nobody is told.
  void hand_over();

 private:
  void on_read(bool ok) override;
  void on_written(bool ok) override;
  void on_cancelled() override { end("the sender is gone", grpc::StatusCode::CANCELLED); }
  void on_done() override;
  enum class State : std::uint8_t { kSilent, kAsking, kWaiting, kTaking, kFinishing, kComplete };

  void on_ending() override { let_go(); }
  void break_rule(const std::string& fault);

  [[nodiscard]] std::optional<std::string> receive_offer();
  void answer(SnapshotAnswer answer);
  void begin();
  [[nodiscard]] std::optional<std::string> receive_chunk();

  // Of `writer`, among all streams; kBusy: another one has it, and was told to let go.
  enum class Taken : std::uint8_t { kTaken, kBusy, kSpent };
  [[nodiscard]] Taken take(const std::shared_ptr<SnapshotWriter>& writer);
  [[nodiscard]] bool release(const std::shared_ptr<SnapshotWriter>& writer);
  void spend(const std::shared_ptr<SnapshotWriter>& writer);  // it is complete, or has failed

  // On a slow thread, with a claim and working_ set.
  void take_in(const SnapshotChunk& chunk);
  [[nodiscard]] bool write_rows(const SnapshotChunk& chunk);
  void go_on(std::uint64_t number);
  void finish();
  void fail(const std::string& reason);
  void stop_working();

  void let_go();
  void reply(SnapshotReply reply);  // the last one, if it isn't kGoOn
  void refuse(std::string reason);
  void write_next();

  // Guarded by mutex_.
  State state_ = State::kSilent;
  GroupId group_;
  std::shared_ptr<SnapshotWriter> writer_;  // until the owner was told what became of it
  bool working_ = false;                    // a slow thread has the writer
  bool handed_over_ = false;
  std::uint64_t received_ = 0;  // chunks
  std::optional<SnapshotReply> reply_;
  bool last_reply_ = false;  // reply_, or what is being written, is the last
};

// What is wrong with it, if something is. `last_key`: of the rows before it.
[[nodiscard]] inline std::optional<std::string> fault_of(const SnapshotChunk& chunk,
                                                         std::string_view last_key) {
  if (fnv1a(chunk.rows) != chunk.checksum) return "a chunk's checksum is another than it says";
  std::string_view rows = chunk.rows;
  std::string_view key;
  std::string_view value;
  while (take_row(rows, key, value)) {
    if (key <= last_key) return "rows are not in the order of their keys";
    last_key = key;
  }
  if (!rows.empty()) return "a row is not whole";
  return std::nullopt;
}

// ---- The stream ---------------------------------------------------------------------------------

inline void IncomingSnapshotStream::hand_over() {
  {
    const std::lock_guard lock(mutex_);
    handed_over_ = true;
  }
  end("a newer stream took its place", grpc::StatusCode::ABORTED);
}

inline void IncomingSnapshotStream::tick() {
  const PeerOptions& options = core_->options;
  const char* broken = nullptr;
  bool waiting = false;
  {
    const std::lock_guard lock(mutex_);
    const std::uint64_t now_ms = core_->now_ms();
    if (ending_) return;
    const bool taking = state_ >= State::kTaking;
    const bool reading = state_ == State::kTaking && !working_;
    waiting = state_ == State::kWaiting;
    if (!taking && !last_reply_ && now_ms - began_at_ms_ > options.rpc_timeout_ms) {
      broken = "its offer took too long";
    } else if (reading && now_ms - heard_at_ms_ > core_->chunk_patience_ms()) {
      broken = "nothing was heard from it in time";
    } else if (writing_ && now_ms - wrote_at_ms_ > options.liveness_timeout_ms) {
      broken = "a write was stuck for the liveness timeout";
    } else if (taking && !writing_ && !reply_ && !last_reply_ &&
               now_ms - wrote_at_ms_ >= core_->sign_of_life_ms) {
      reply_ = SnapshotReply{SnapshotReply::Status::kGoOn, "", "", {}, received_};
    }
  }
  if (broken != nullptr) return cancel(broken);
  waiting ? begin() : write_next();
}

inline void IncomingSnapshotStream::on_read(bool ok) {
  if (!ok) return end("the stream ended", grpc::StatusCode::CANCELLED);
  bool offered = false;
  {
    const std::lock_guard lock(mutex_);
    heard_at_ms_ = core_->now_ms();
    offered = state_ != State::kSilent;
  }
  const auto fault = offered ? receive_chunk() : receive_offer();
  if (fault) break_rule(*fault);
}

inline void IncomingSnapshotStream::break_rule(const std::string& fault) {
  core_->complain("ended a snapshot's stream: " + fault, {}, from_);
  refuse(fault);
}

inline void IncomingSnapshotStream::on_done() {
  const std::shared_ptr<Core> core = core_;
  std::shared_ptr<IncomingSnapshotStream> self;
  const std::lock_guard lock(core->mutex);
  self = std::move(core->receiving.at(this));
  core->receiving.erase(this);
}

// ---- Replies ------------------------------------------------------------------------------------

inline void IncomingSnapshotStream::refuse(std::string reason) {
  SnapshotReply refusal;
  refusal.reason = std::move(reason);
  reply(std::move(refusal));
}

inline void IncomingSnapshotStream::reply(SnapshotReply reply) {
  {
    const std::lock_guard lock(mutex_);
    if (last_reply_) return;
    last_reply_ = reply.status != SnapshotReply::Status::kGoOn;
    if (last_reply_) reason_ = reply.reason;
    reply_ = std::move(reply);
  }
  write_next();
}

inline void IncomingSnapshotStream::write_next() {
  std::string bytes;
  {
    const std::lock_guard lock(mutex_);
    if (ending_ || writing_ || !reply_) return;
    codec::encode(*reply_, bytes);
    reply_.reset();
    writing_ = true;
    wrote_at_ms_ = core_->now_ms();
    ++claims_;
  }
  out_ = to_buffer(std::move(bytes));
  write(out_);
}

inline void IncomingSnapshotStream::on_written(bool) {  // of a failed one on_cancelled hears
  {
    const std::lock_guard lock(mutex_);
    writing_ = false;
    if (last_reply_ && !reply_) ending_ = true;
  }
  write_next();
  let_go();
  give_back();
}

// ---- The offer ----------------------------------------------------------------------------------

inline std::optional<std::string> IncomingSnapshotStream::receive_offer() {
  if (in_.Length() > kMaxOfferSizeBytes) return "no offer, or one that is too large";
  Result<SnapshotFrame> frame = decoded(in_, codec::decode_snapshot_frame);
  in_.Clear();
  if (!frame) return frame.error().text;
  auto* offer = std::get_if<SnapshotOffer>(&*frame);
  if (offer == nullptr) return "a chunk before the offer";
  const PeerMessage& message = offer->message;
  if (message.message.to != core_->options.self) return "an offer to another node";
  if (message.group != offer->metadata.group) return "an offer for two groups";
  {
    const std::lock_guard lock(mutex_);
    state_ = State::kAsking;
    group_ = message.group;
  }
  core_->tell([&](PeerEvents& events, const Logger&) {
    events.on_snapshot_offer(std::move(*offer), [weak = weak_from_this()](SnapshotAnswer answer) {
      if (const auto self = weak.lock()) self->answer(std::move(answer));
    });
  });
  return std::nullopt;
}

inline void IncomingSnapshotStream::answer(SnapshotAnswer answer) {
  const bool go_on = answer.reply.status == SnapshotReply::Status::kGoOn;
  {
    const std::lock_guard lock(mutex_);
    if (state_ != State::kAsking) return;
    state_ = go_on && answer.writer ? State::kWaiting : State::kComplete;
    if (go_on) writer_ = answer.writer;
  }
  if (!go_on) return reply(std::move(answer.reply));
  if (!answer.writer) return refuse("it has no place for the snapshot");
  answer.writer = nullptr;
  let_go();  // if it has ended meanwhile
  begin();
}

// Goes on where the writer is, as soon as no other stream has it.
inline void IncomingSnapshotStream::begin() {
  std::shared_ptr<SnapshotWriter> writer;
  {
    const std::lock_guard lock(mutex_);
    if (state_ != State::kWaiting || ending_) return;
    writer = writer_;
  }
  const Taken taken = take(writer);
  if (taken == Taken::kBusy) return;  // tick() asks again
  if (taken == Taken::kSpent) {
    return end("all of it arrived meanwhile: ask again", grpc::StatusCode::UNAVAILABLE);
  }
  bool late = false;
  {
    const std::lock_guard lock(mutex_);
    if (state_ != State::kWaiting) return;
    late = ending_;
    if (!late) {
      state_ = State::kTaking;
      working_ = true;
      ++claims_;
    }
  }
  if (late) return static_cast<void>(release(writer));
  SnapshotReply first;
  first.status = SnapshotReply::Status::kGoOn;
  first.after_key = writer->last_key();
  writer = nullptr;
  stop_working();
  reply(std::move(first));
  start();
  give_back();
}

// ---- One stream for a writer --------------------------------------------------------------------

inline IncomingSnapshotStream::Taken IncomingSnapshotStream::take(
    const std::shared_ptr<SnapshotWriter>& writer) {
  std::shared_ptr<IncomingSnapshotStream> holder;
  {
    const std::lock_guard lock(core_->mutex);
    std::erase_if(core_->writers, [](const auto& each) { return each.first.expired(); });
    WriterUse& use = core_->writers[writer];
    if (use.spent) return Taken::kSpent;
    holder = use.holder.lock();
    if (!holder) use.holder = weak_from_this();
  }
  if (!holder || holder.get() == this) return Taken::kTaken;
  holder->hand_over();
  return Taken::kBusy;
}

// False: it is spent.
inline bool IncomingSnapshotStream::release(const std::shared_ptr<SnapshotWriter>& writer) {
  const std::lock_guard lock(core_->mutex);
  const auto use = core_->writers.find(writer);
  if (use == core_->writers.end()) return true;
  if (use->second.holder.lock().get() == this) use->second.holder.reset();
  return !use->second.spent;
}

inline void IncomingSnapshotStream::spend(const std::shared_ptr<SnapshotWriter>& writer) {
  const std::lock_guard lock(core_->mutex);
  core_->writers[writer].spent = true;
}

// ---- Chunks -------------------------------------------------------------------------------------

inline std::optional<std::string> IncomingSnapshotStream::receive_chunk() {
  Result<SnapshotFrame> frame = decoded(in_, codec::decode_snapshot_frame);
  in_.Clear();
  if (!frame) return frame.error().text;
  auto* chunk = std::get_if<SnapshotChunk>(&*frame);
  if (chunk == nullptr) return "a second offer";
  {
    const std::lock_guard lock(mutex_);
    if (chunk->number != received_ + 1) return "a chunk out of order";
    if (ending_ || last_reply_) return std::nullopt;
    working_ = true;
    ++claims_;
  }
  const bool posted = core_->post_slow(
      [self = shared_from_this(), chunk = std::move(*chunk)] { self->take_in(chunk); });
  if (posted) return std::nullopt;
  stop_working();
  give_back();
  return std::nullopt;
}

inline void IncomingSnapshotStream::take_in(const SnapshotChunk& chunk) {
  const bool written = write_rows(chunk);
  if (written && chunk.last) finish();
  stop_working();
  if (written && !chunk.last) go_on(chunk.number);
  give_back();
}

inline bool IncomingSnapshotStream::write_rows(const SnapshotChunk& chunk) {
  SnapshotWriter& writer = *writer_;  // nobody takes it while working_ is set
  if (const auto fault = fault_of(chunk, writer.last_key())) {
    break_rule(*fault);
    return false;
  }
  if (chunk.rows.empty()) return true;
  const Result<void> done = writer.write(chunk.rows);
  if (!done) fail(done.error().text);
  return static_cast<bool>(done);
}

inline void IncomingSnapshotStream::go_on(std::uint64_t number) {
  {
    const std::lock_guard lock(mutex_);
    if (ending_) return;
    received_ = number;
  }
  reply({SnapshotReply::Status::kGoOn, "", "", {}, number});
  start();
}

// All is there. From here on the stream may end as it likes: the owner gets the snapshot.
inline void IncomingSnapshotStream::finish() {
  std::shared_ptr<SnapshotWriter> writer;
  {
    const std::lock_guard lock(mutex_);
    if (ending_) return;
    state_ = State::kFinishing;
    ++received_;
    writer = writer_;
  }
  if (Result<void> done = writer->finish(); !done) return fail(done.error().text);
  spend(writer);
  {
    const std::lock_guard lock(mutex_);
    state_ = State::kComplete;
    writer_ = nullptr;
  }
  core_->tell([&](PeerEvents& events, const Logger&) {
    events.on_snapshot_received(group_, std::move(writer),
                                [weak = weak_from_this()](SnapshotReply last) {
                                  if (const auto self = weak.lock()) self->reply(std::move(last));
                                });
  });
}

inline void IncomingSnapshotStream::fail(const std::string& reason) {
  std::shared_ptr<SnapshotWriter> writer;
  {
    const std::lock_guard lock(mutex_);
    writer = std::move(writer_);
  }
  spend(writer);
  core_->tell([&](PeerEvents& events, const Logger&) {
    events.on_snapshot_failed(group_, std::move(writer), reason);
  });
  refuse("it can't keep the snapshot: " + reason);
}

inline void IncomingSnapshotStream::stop_working() {
  {
    const std::lock_guard lock(mutex_);
    working_ = false;
    heard_at_ms_ = core_->now_ms();  // it wasn't listened to
  }
  let_go();
}

// Of the writer, once the stream is ending and nobody works with it.
inline void IncomingSnapshotStream::let_go() {
  std::shared_ptr<SnapshotWriter> writer;
  bool told = false;
  std::string reason;
  {
    const std::lock_guard lock(mutex_);
    if (!ending_ || working_ || !writer_) return;
    writer = std::move(writer_);
    told = !handed_over_;
    reason = reason_;
  }
  if (!release(writer) || !told) return core_->let_go_slowly(std::move(writer));
  core_->tell([&](PeerEvents& events, const Logger&) {
    events.on_snapshot_broken(group_, std::move(writer), reason);
  });
}

}  // namespace seshat::peer_detail

#endif  // SESHAT_PEER_SNAPSHOT_RECEIVER_HPP
