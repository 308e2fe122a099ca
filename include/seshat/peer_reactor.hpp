// seshat/peer_reactor.hpp - gRPC's calls as objects that react, all on one thread of the channel.
//
//   any thread     read, write, finish ──> gRPC ──> completion queue
//   the reactions' thread                                └──> on_read, on_written, on_done
//
// That thread waits in the queue for sockets as well: who is woken by a message reacts to it. gRPC
// has a callback API of this shape, on threads of its own, two at least, and each that takes
// something off a socket first wakes another to wait there in its place. With two cores that
// wake-up is a large part of what a message costs (docs/performance.md). If what follows on a
// reaction holds the thread up, another one stands in for it. And what ends at once, as a small
// write does, wakes nobody: who began it reacts.
//
// Keeps:    of each kind (read, write) one operation at a time; its bytes live until the reaction.
//           One reaction at a time, in the queue's order, but those of a stream that we begin: they
//           may come on the thread that writes, on_read beside on_written, and no `then` follows
//           them. on_done() is the last call, once no operation is out and, of calls to us, the
//           call has ended; the object may go in it.
// Threads:  a reactor reacts on the reactions' thread, or who stands in for it, or writes, and must
//           not wait there. read and write: any thread, as long as something holds; who writes
//           holds no lock.
// Needs:    libgrpc++.
#ifndef SESHAT_PEER_REACTOR_HPP
#define SESHAT_PEER_REACTOR_HPP

#include <grpc/grpc.h>
#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>
#include <grpcpp/completion_queue.h>
#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/status.h>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace seshat::peer_detail {

// ---- The queue and its thread -------------------------------------------------------------------

// What an operation is begun with: called as often as it ends, with whether it went well.
class Reaction {
 public:
  explicit Reaction(std::function<void(bool ok)> react) : react_(std::move(react)) {}
  // What gRPC is given. It hands an operation over in its own way, which a tool that doesn't see into
  // gRPC (ThreadSanitizer) misses: this says it again, at the cost of one atomic addition.
  [[nodiscard]] void* tag() {
    turns_.fetch_add(1, std::memory_order_release);
    return this;
  }
  void operator()(bool ok) const {
    static_cast<void>(turns_.load(std::memory_order_acquire));
    react_(ok);
  }

 private:
  const std::function<void(bool)> react_;
  std::atomic<std::uint64_t> turns_ = 0;
};

class Reactions {
 public:
  explicit Reactions(std::unique_ptr<grpc::ServerCompletionQueue> queue)
      : queue_(std::move(queue)) {}

  [[nodiscard]] grpc::ServerCompletionQueue* queue() { return queue_.get(); }
  // The thread's body: returns once it is closed and all have left. `then` is called after each
  // reaction, and may take its time, if somebody looks after it.
  void run(const std::function<void()>& then = [] {});
  // Whether one call of `then` takes longer than anybody should wait. Any thread.
  [[nodiscard]] bool is_held_up() const;
  // On another thread: reacts in the place of the one that is held up, until that is over, or for
  // `most`. `then` must not take its time.
  void stand_in(std::chrono::milliseconds most, const std::function<void()>& then);
  // begin() begins an operation of these reactions on this thread. If it ends at once, its reaction
  // follows here, or that of another operation of the same stream which ended meanwhile.
  void begin_here(const std::function<void()>& begin);
  // Whoever begins operations is in, until the last has ended. Nobody may enter after close() but who
  // is called by one that is in.
  void enter() { in_.fetch_add(1); }
  void leave();
  void close() { leave(); }

 private:
  using Clock = std::chrono::steady_clock;

  static constexpr std::chrono::milliseconds kPatience{50};

  struct Ended {
    const Reaction* reaction;
    bool ok;
  };
  [[nodiscard]] std::optional<Ended> ended_by(const std::function<void()>& begin);

  const std::unique_ptr<grpc::ServerCompletionQueue> queue_;
  std::atomic<int> in_ = 1;                 // those that are in, and one until close()
  std::mutex standing_in_;                  // held by who does
  std::atomic<Clock::rep> then_since_ = 0;  // 0: it is not under way
};

// ---- Reactors -----------------------------------------------------------------------------------

// In the reactions from when it begins until it is over.
class Reactor {
 public:
  Reactor(const Reactor&) = delete;
  Reactor& operator=(const Reactor&) = delete;

 protected:
  explicit Reactor(std::shared_ptr<Reactions> reactions) : reactions_(std::move(reactions)) {}
  virtual ~Reactor() = default;

  // over() waits for a release() of each hold(), of which there is one for each operation that is out.
  void hold() { open_.fetch_add(1); }
  void release();
  virtual void over() = 0;  // the last call: the object may go in it

  const std::shared_ptr<Reactions> reactions_;

 private:
  std::atomic<int> open_ = 0;
};

// Of a stream, from either end.
class StreamReactor : public Reactor {
 protected:
  using Reactor::Reactor;

  virtual void on_read(bool /*ok*/) {}
  virtual void on_written(bool /*ok*/) {}

  Reaction read_done_{[this](bool ok) { ended(&StreamReactor::on_read, ok); }};
  Reaction write_done_{[this](bool ok) { ended(&StreamReactor::on_written, ok); }};

 private:
  void ended(void (StreamReactor::*react)(bool), bool ok) {
    (this->*react)(ok);
    release();
  }
};

// A stream that we begin.
class DialedStream : public StreamReactor {
 protected:
  using StreamReactor::StreamReactor;

  virtual void on_done(const grpc::Status& status) = 0;

  // Once, first: writes `out`, and reads.
  void begin(const std::shared_ptr<grpc::Channel>& channel, const std::string& method,
             const grpc::ByteBuffer& out, grpc::ByteBuffer& in);
  void read(grpc::ByteBuffer& in);
  void write(const grpc::ByteBuffer& out);

  grpc::ClientContext context_;

 private:
  static constexpr std::size_t kMaxWriteHereBytes = 64 << 10;

  void over() override { on_done(status_); }

  std::unique_ptr<grpc::GenericClientAsyncReaderWriter> call_;
  grpc::Status status_;
  Reaction finish_done_{[this](bool) { release(); }};
};

// A question with one answer that we begin.
class DialedQuestion : public Reactor {
 protected:
  using Reactor::Reactor;

  virtual void on_done(const grpc::Status& status) = 0;

  void ask(const std::shared_ptr<grpc::Channel>& channel, const std::string& method,
           const grpc::ByteBuffer& question);

  grpc::ClientContext context_;
  grpc::ByteBuffer answer_;  // valid in on_done, if the status is OK

 private:
  void over() override { on_done(status_); }

  std::unique_ptr<grpc::ClientAsyncResponseReader<grpc::ByteBuffer>> call_;
  grpc::Status status_;
  Reaction finish_done_{[this](bool) { release(); }};
};

class AcceptedStream;

// A call to us that has come, or for which gRPC waits.
struct Arrival {
  explicit Arrival(std::function<void(bool ok)> on_come) : come(std::move(on_come)) {
    context.AsyncNotifyWhenDone(ended.tag());
  }

  grpc::GenericServerContext context;
  grpc::GenericServerAsyncReaderWriter stream{&context};
  AcceptedStream* reactor = nullptr;  // set before the call can end
  Reaction come;
  Reaction ended{[this](bool) { on_ended(); }};

 private:
  void on_ended();
};

// It is in the reactions since gRPC waited for its Arrival.
class AcceptedStream : public StreamReactor {
 protected:
  AcceptedStream(std::shared_ptr<Reactions> reactions, std::unique_ptr<Arrival> arrival);

  // The other end is gone, or has given up.
  virtual void on_cancelled() {}
  virtual void on_done() = 0;

  void read(grpc::ByteBuffer& in);
  void write(const grpc::ByteBuffer& out);
  // Once, while no write is out; neither read nor write may follow. on_done() does.
  void finish(const grpc::Status& status);
  void write_and_finish(const grpc::ByteBuffer& out);

  [[nodiscard]] grpc::GenericServerContext& context() { return arrival_->context; }

 private:
  friend Arrival;
  void call_ended();
  void over() override { on_done(); }

  const std::unique_ptr<Arrival> arrival_;
  Reaction finish_done_{[this](bool) { release(); }};
};

// =================================================================================================
// Bodies
// =================================================================================================

inline void Reactions::run(const std::function<void()>& then) {
  void* tag = nullptr;
  bool ok = false;
  while (queue_->Next(&tag, &ok)) {
    (*static_cast<Reaction*>(tag))(ok);
    then_since_ = Clock::now().time_since_epoch().count();
    then();
    then_since_ = 0;
    const std::lock_guard until_nobody_stands_in(standing_in_);
  }
}

inline bool Reactions::is_held_up() const {
  const Clock::rep since = then_since_;
  return since != 0 && Clock::now().time_since_epoch() - Clock::duration(since) > kPatience;
}

// In slices, for which the thread whose place this is may have to wait.
inline void Reactions::stand_in(std::chrono::milliseconds most, const std::function<void()>& then) {
  constexpr std::int64_t kSliceMs = 10;
  const Clock::time_point until = Clock::now() + most;
  const std::lock_guard lock(standing_in_);
  while (then_since_ != 0 && Clock::now() < until) {
    const gpr_timespec slice =
        gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC), gpr_time_from_millis(kSliceMs, GPR_TIMESPAN));
    void* tag = nullptr;
    bool ok = false;
    const auto next = queue_->AsyncNext(&tag, &ok, slice);
    if (next == grpc::CompletionQueue::SHUTDOWN) return;
    if (next != grpc::CompletionQueue::GOT_EVENT) continue;
    (*static_cast<Reaction*>(tag))(ok);
    then();
  }
}

// gRPC keeps what ends on this thread meanwhile for this thread, the first of it, instead of waking
// who waits in the queue.
inline std::optional<Reactions::Ended> Reactions::ended_by(const std::function<void()>& begin) {
  grpc_completion_queue_thread_local_cache_init(queue_->cq());
  begin();
  void* tag = nullptr;
  int success = 0;
  if (grpc_completion_queue_thread_local_cache_flush(queue_->cq(), &tag, &success) == 0) {
    return std::nullopt;
  }
  bool ok = success == 1;
  if (!static_cast<grpc::internal::CompletionQueueTag*>(tag)->FinalizeResult(&tag, &ok)) {
    return std::nullopt;
  }
  return Ended{static_cast<const Reaction*>(tag), ok};
}

// A reaction begins the next write, which may end at once as well: that one's follows it, and is
// not within it, however many there are.
inline void Reactions::begin_here(const std::function<void()>& begin) {
  static thread_local std::vector<Ended>* following = nullptr;
  const std::optional<Ended> first = ended_by(begin);
  if (!first) return;
  if (following != nullptr) return following->push_back(*first);
  std::vector<Ended> more;
  following = &more;
  (*first->reaction)(first->ok);
  while (!more.empty()) {
    for (const Ended& next : std::exchange(more, {})) (*next.reaction)(next.ok);
  }
  following = nullptr;
}

inline void Reactions::leave() {
  if (in_.fetch_sub(1) == 1) queue_->Shutdown();
}

inline void Reactor::release() {
  if (open_.fetch_sub(1) != 1) return;
  const std::shared_ptr<Reactions> reactions = reactions_;
  over();  // this object may be gone now
  reactions->leave();
}

// ---- Ours ---------------------------------------------------------------------------------------

inline void DialedStream::begin(const std::shared_ptr<grpc::Channel>& channel,
                                const std::string& method, const grpc::ByteBuffer& out,
                                grpc::ByteBuffer& in) {
  reactions_->enter();
  hold();  // until it is finished
  context_.set_initial_metadata_corked(true);
  call_ = grpc::GenericStub(channel).PrepareCall(&context_, method, reactions_->queue());
  call_->StartCall(nullptr);  // goes out with the first write
  write(out);
  read(in);
  // Asked for from the start, so that what the other end says is not lost to a cancellation of ours.
  call_->Finish(&status_, finish_done_.tag());
}

inline void DialedStream::read(grpc::ByteBuffer& in) {
  hold();
  call_->Read(&in, read_done_.tag());
}

inline void DialedStream::write(const grpc::ByteBuffer& out) {
  hold();
  const auto begin = [&] { call_->Write(out, write_done_.tag()); };
  // What follows on a large write is left to the reactions' thread: who writes has other things to do.
  out.Length() <= kMaxWriteHereBytes ? reactions_->begin_here(begin) : begin();
}

inline void DialedQuestion::ask(const std::shared_ptr<grpc::Channel>& channel,
                                const std::string& method, const grpc::ByteBuffer& question) {
  reactions_->enter();
  hold();  // until it is finished
  call_ =
      grpc::GenericStub(channel).PrepareUnaryCall(&context_, method, question, reactions_->queue());
  call_->StartCall();
  call_->Finish(&answer_, &status_, finish_done_.tag());
}

// ---- To us --------------------------------------------------------------------------------------

inline AcceptedStream::AcceptedStream(std::shared_ptr<Reactions> reactions,
                                      std::unique_ptr<Arrival> arrival)
    : StreamReactor(std::move(reactions)), arrival_(std::move(arrival)) {
  arrival_->reactor = this;
  hold();  // until the call has ended
  hold();  // until it is finished
}

inline void Arrival::on_ended() { reactor->call_ended(); }

inline void AcceptedStream::call_ended() {
  if (arrival_->context.IsCancelled()) on_cancelled();
  release();
}

inline void AcceptedStream::read(grpc::ByteBuffer& in) {
  hold();
  arrival_->stream.Read(&in, read_done_.tag());
}

inline void AcceptedStream::write(const grpc::ByteBuffer& out) {
  hold();
  arrival_->stream.Write(out, write_done_.tag());
}

inline void AcceptedStream::finish(const grpc::Status& status) {
  arrival_->stream.Finish(status, finish_done_.tag());
}

inline void AcceptedStream::write_and_finish(const grpc::ByteBuffer& out) {
  arrival_->stream.WriteAndFinish(out, {}, grpc::Status::OK, finish_done_.tag());
}

}  // namespace seshat::peer_detail

#endif  // SESHAT_PEER_REACTOR_HPP
