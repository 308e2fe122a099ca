// seshat/peer_call.hpp - one question to another node and its answer, outside the streams.
//
//   Peers::call ──> OutgoingCall ── CallRequest ──> IncomingCall ──> PeerEvents::on_call
//   done <───────────────────────── CallReply ───── answer <──────── now, later, or never
//
//   A gRPC method of its own, "/seshat.Peer/Call", on a connection of its own. No handshake: who
//   asks stands in the request, and the owner judges it. Either side may be any node: one that
//   joins asks before anybody has it among its peers.
//
// Keeps:    `done` is called exactly once, in time, also when gRPC holds on to the call for longer,
//           and when the channel ends.
// Hostile:  a request is small, at most kMaxCalls are under way here, and none longer than
//           kLongestCallMs, whatever its caller allows.
// Threads:  as peer.hpp says. Needs: peer_stream.hpp; libgrpc++.
#ifndef SESHAT_PEER_CALL_HPP
#define SESHAT_PEER_CALL_HPP

#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/status.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

#include "seshat/peer_codec.hpp"
#include "seshat/peer_credentials.hpp"
#include "seshat/peer_link.hpp"
#include "seshat/peer_reactor.hpp"
#include "seshat/peer_security.hpp"
#include "seshat/peer_stream.hpp"
#include "seshat/records.hpp"
#include "seshat/result.hpp"

namespace seshat::peer_detail {

// ---- Our call to another node -------------------------------------------------------------------

using CallDone = std::function<void(Result<CallReply>)>;

class OutgoingCall final : public DialedQuestion, public Dialed {
 public:
  OutgoingCall(std::shared_ptr<Core> core, std::string addr, std::uint64_t timeout_ms,
               CallDone done)
      : DialedQuestion(core->reactions),
        core_(std::move(core)),
        addr_(std::move(addr)),
        timeout_ms_(timeout_ms),
        began_at_ms_(core_->now_ms()),
        done_(std::move(done)) {}

  void start(const CallRequest& request);
  void tick() override;
  void break_off(std::string reason) override;  // done hears of it at once
 private:
  void on_done(const grpc::Status& status) override;
  void settle(Result<CallReply> result);
  [[nodiscard]] Result<CallReply> result_of(const grpc::Status& status) const;
  [[nodiscard]] Error failure(const std::string& reason) const;

  const std::shared_ptr<Core> core_;
  const std::string addr_;
  const std::uint64_t timeout_ms_;
  const std::uint64_t began_at_ms_;
  grpc::ByteBuffer request_;

  std::mutex mutex_;
  CallDone done_;  // until it was called
};

inline void OutgoingCall::start(const CallRequest& request) {
  std::string bytes;
  codec::encode(request, bytes);
  request_ = to_buffer(std::move(bytes));
  const PeerSecurity& security = core_->options.security;
  const auto channel =
      open_channel(addr_, security, channel_arguments(kMaxCallSizeBytes, kMaxCallSizeBytes));
  say_secret(context_, security);
  context_.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(timeout_ms_));
  ask(channel, kCallMethod, request_);
}

// gRPC's own deadline comes first; but it may sit on a call whose connection takes nothing.
inline void OutgoingCall::tick() {
  if (core_->now_ms() - began_at_ms_ > timeout_ms_ + 2 * core_->tick_ms) {
    break_off("no answer within " + std::to_string(timeout_ms_) + " ms");
  }
}

inline void OutgoingCall::break_off(std::string reason) {
  context_.TryCancel();
  settle(failure(reason));
}

inline void OutgoingCall::on_done(const grpc::Status& status) {
  settle(result_of(status));
  core_->let_go_of(*this);
}

inline void OutgoingCall::settle(Result<CallReply> result) {
  core_->even_at_the_end([&] {
    CallDone done;
    {
      const std::lock_guard lock(mutex_);
      done = std::exchange(done_, nullptr);
    }
    if (done) done(std::move(result));
  });
}

inline Result<CallReply> OutgoingCall::result_of(const grpc::Status& status) const {
  if (status.error_code() == grpc::StatusCode::UNIMPLEMENTED) {
    return failure("it doesn't know this call, its version of seshat is too old: update it");
  }
  if (status.error_code() == grpc::StatusCode::DEADLINE_EXCEEDED) {
    return failure("no answer within " + std::to_string(timeout_ms_) + " ms");
  }
  if (!status.ok()) return failure(explained(status.error_message(), core_->options.security));
  Result<CallReply> reply = decoded(answer_, codec::decode_call_reply);
  if (!reply) return failure(reply.error().text);
  return reply;
}

inline Error OutgoingCall::failure(const std::string& reason) const {
  return {"asking the node at " + addr_ + " failed: " + reason};
}

// ---- A call to us -------------------------------------------------------------------------------

// Reads one message, writes one. After the read begins there is one more operation, the end of the
// call with the answer or without: whoever sets finished_ does it.
class IncomingCall final : public AcceptedStream,
                           public std::enable_shared_from_this<IncomingCall> {
 public:
  IncomingCall(std::shared_ptr<Core> core, std::unique_ptr<Arrival> arrival)
      : AcceptedStream(core->reactions, std::move(arrival)),
        core_(std::move(core)),
        from_(context().peer()),
        began_at_ms_(core_->now_ms()) {}

  void start();  // reads
  void tick();
  void end(const std::string& reason, grpc::StatusCode code);  // any thread

 private:
  void on_read(bool ok) override;
  void on_cancelled() override { end("the caller is gone", grpc::StatusCode::CANCELLED); }
  void on_done() override;
  [[nodiscard]] Result<CallRequest> request() const;
  void answer(const CallReply& reply);
  [[nodiscard]] bool finish_once();

  const std::shared_ptr<Core> core_;
  const std::string from_;
  const std::uint64_t began_at_ms_;
  grpc::ByteBuffer in_;
  grpc::ByteBuffer out_;  // belongs to whoever set finished_

  std::mutex mutex_;  // guards both below
  bool asked_ = false;
  bool finished_ = false;
};

inline void IncomingCall::start() { read(in_); }

inline void IncomingCall::tick() {
  bool asked = false;
  {
    const std::lock_guard lock(mutex_);
    asked = asked_;
  }
  const std::uint64_t longest_ms = asked ? kLongestCallMs : core_->options.rpc_timeout_ms;
  if (core_->now_ms() - began_at_ms_ > longest_ms) {
    end(asked ? "this node has no answer yet" : "the question took too long",
        grpc::StatusCode::DEADLINE_EXCEEDED);
  }
}

inline bool IncomingCall::finish_once() {
  const std::lock_guard lock(mutex_);
  return !std::exchange(finished_, true);
}

inline void IncomingCall::end(const std::string& reason, grpc::StatusCode code) {
  if (!finish_once()) return;
  finish({code, reason});
}

inline Result<CallRequest> IncomingCall::request() const {
  if (in_.Length() > kMaxCallRequestSizeBytes) return Error{"its request is too large"};
  return decoded(in_, codec::decode_call_request);
}

inline void IncomingCall::on_read(bool ok) {
  if (!ok) return end("no request came", grpc::StatusCode::INVALID_ARGUMENT);
  Result<CallRequest> asked = request();
  in_.Clear();
  if (!asked) {
    core_->complain("ended a call: " + asked.error().text, {}, from_);
    return end(asked.error().text, grpc::StatusCode::INVALID_ARGUMENT);
  }
  {
    const std::lock_guard lock(mutex_);
    asked_ = true;
  }
  core_->tell([&](PeerEvents& events, const Logger&) {
    events.on_call(std::move(*asked), [weak = weak_from_this()](const CallReply& reply) {
      if (const auto self = weak.lock()) self->answer(reply);
    });
  });
}

inline void IncomingCall::answer(const CallReply& reply) {
  std::string bytes;
  codec::encode(reply, bytes);
  if (!finish_once()) return;
  out_ = to_buffer(std::move(bytes));
  write_and_finish(out_);
}

inline void IncomingCall::on_done() {
  const std::shared_ptr<Core> core = core_;
  std::shared_ptr<IncomingCall> self;
  const std::lock_guard lock(core->mutex);
  self = std::move(core->calls.at(this));
  core->calls.erase(this);
}

}  // namespace seshat::peer_detail

#endif  // SESHAT_PEER_CALL_HPP
