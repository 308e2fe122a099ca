// seshat/peer_incoming.hpp - what all streams to us have in common: how they end.
//
// gRPC wants exactly one Finish, not during a write, and no call on the stream after it. So whoever
// is about to call gRPC takes a claim; Finish is called by who gives back the last one once the
// stream is ending.
//
// Threads: as peer.hpp says. Needs: peer_stream.hpp; libgrpc++.
#ifndef SESHAT_PEER_INCOMING_HPP
#define SESHAT_PEER_INCOMING_HPP

#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/status.h>

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

#include "seshat/peer_reactor.hpp"
#include "seshat/peer_stream.hpp"

namespace seshat::peer_detail {

class IncomingStream : public AcceptedStream {
 public:
  void start();  // reads
  // Any thread. The first reason stays.
  void end(std::string reason, grpc::StatusCode code);

 protected:
  IncomingStream(std::shared_ptr<Core> core, std::unique_ptr<Arrival> arrival)
      : AcceptedStream(core->reactions, std::move(arrival)),
        core_(std::move(core)),
        from_(context().peer()),
        began_at_ms_(core_->now_ms()) {}

  // It is ending, and Finish may follow when this returns.
  virtual void on_ending() {}

  [[nodiscard]] bool claim();
  void give_back();
  // Ends a stream that may not take a status any more.
  void cancel(std::string reason);

  const std::shared_ptr<Core> core_;
  const std::string from_;
  grpc::ByteBuffer in_;   // the outstanding read's
  grpc::ByteBuffer out_;  // belongs to whoever set writing_

  std::mutex mutex_;  // guards all below, and what deriving classes say
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

// =================================================================================================
// Bodies
// =================================================================================================

inline void IncomingStream::start() { read(in_); }

inline bool IncomingStream::claim() {
  const std::lock_guard lock(mutex_);
  if (finished_) return false;
  ++claims_;
  return true;
}

inline void IncomingStream::give_back() {
  grpc::Status status;
  {
    const std::lock_guard lock(mutex_);
    if (--claims_ > 0 || !ending_ || finished_) return;
    finished_ = true;
    if (code_ != grpc::StatusCode::OK) status = {code_, reason_};
  }
  finish(status);
}

inline void IncomingStream::end(std::string reason, grpc::StatusCode code) {
  if (!claim()) return;
  {
    const std::lock_guard lock(mutex_);
    if (!std::exchange(ending_, true)) {
      reason_ = std::move(reason);
      code_ = code;
    }
  }
  on_ending();
  give_back();
}

inline void IncomingStream::cancel(std::string reason) {
  if (!claim()) return;
  context().TryCancel();
  end(std::move(reason), grpc::StatusCode::CANCELLED);
  give_back();
}

}  // namespace seshat::peer_detail

#endif  // SESHAT_PEER_INCOMING_HPP
