// tests/bench/etcd_load.hpp - clients of etcd: its Put and its linearizable Range, over gRPC.
//
// No generated code: the two requests are a handful of bytes (etcd's rpc.proto, package
// etcdserverpb), written here by hand. One thread and one completion queue; a client is a call under
// way, and clients share a few connections, as etcd's own benchmark does.
//
//   PutRequest    0a <size> key  12 <size> value       field 1 and 2, both length-delimited
//   RangeRequest  0a <size> key                        linearizable unless field 7 says otherwise
//
// Needs libgrpc++.
#ifndef SESHAT_TESTS_BENCH_ETCD_LOAD_HPP
#define SESHAT_TESTS_BENCH_ETCD_LOAD_HPP

#include <grpcpp/client_context.h>
#include <grpcpp/completion_queue.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/support/async_unary_call.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/channel_arguments.h>
#include <grpcpp/support/slice.h>
#include <grpcpp/support/status.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "measure.hpp"
#include "options.hpp"

namespace seshat::bench {

class EtcdLoad {
 public:
  explicit EtcdLoad(const Options& options);
  EtcdLoad(const EtcdLoad&) = delete;
  EtcdLoad& operator=(const EtcdLoad&) = delete;
  ~EtcdLoad();
  // Until all is measured. Throws std::runtime_error.
  void run(Recorder& recorder);

 private:
  // One client. The context lives as long as its call.
  struct Call {
    std::size_t stub = 0;
    std::optional<grpc::ClientContext> context;
    std::unique_ptr<grpc::GenericClientAsyncResponseReader> reader;
    grpc::ByteBuffer reply;
    grpc::Status status;
    Nanoseconds sent_at = 0;
    bool under_way = false;
  };

  void send(Call& call);
  void finish(Call& call, Recorder& recorder, Nanoseconds now);
  [[nodiscard]] std::string request();
  [[nodiscard]] bool is_right(const Call& call) const;

  const Options options_;
  const std::string method_;
  Workload workload_;
  std::vector<std::unique_ptr<grpc::GenericStub>> stubs_;
  std::vector<std::unique_ptr<Call>> calls_;
  grpc::CompletionQueue queue_;
};

// =================================================================================================
// Bodies
// =================================================================================================

namespace detail {

// Protocol Buffers' field of type bytes; its number is below 16.
inline void append_bytes_field(std::string& out, int number, std::string_view bytes) {
  constexpr int kLengthDelimited = 2;
  out.push_back(static_cast<char>(number << 3 | kLengthDelimited));
  std::size_t size = bytes.size();
  for (; size >= 0x80; size >>= 7) out.push_back(static_cast<char>((size & 0x7f) | 0x80));
  out.push_back(static_cast<char>(size));
  out += bytes;
}

inline std::unique_ptr<grpc::GenericStub> etcd_stub(const Options& options) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);  // a connection of its own
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  arguments.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);
  const auto channel = grpc::CreateCustomChannel(options.host + ":" + options.port,
                                                 grpc::InsecureChannelCredentials(), arguments);
  const auto deadline = std::chrono::system_clock::now() + std::chrono::seconds(5);
  if (!channel->WaitForConnected(deadline)) {
    throw std::runtime_error("can't connect to " + options.host + ":" + options.port);
  }
  return std::make_unique<grpc::GenericStub>(channel);
}

}  // namespace detail

inline EtcdLoad::EtcdLoad(const Options& options)
    : options_(options),
      method_(options.operation == Operation::kGet ? "/etcdserverpb.KV/Range"
                                                   : "/etcdserverpb.KV/Put"),
      workload_(options) {
  for (std::size_t i = 0; i < std::min(options.connections, options.clients); ++i) {
    stubs_.push_back(detail::etcd_stub(options));
  }
  for (std::size_t i = 0; i < options.clients; ++i) {
    calls_.push_back(std::make_unique<Call>());
    calls_.back()->stub = i % stubs_.size();
  }
}

// A queue may go only once it has given back every call.
inline EtcdLoad::~EtcdLoad() {
  for (const auto& call : calls_) {
    if (call->under_way) call->context->TryCancel();
  }
  queue_.Shutdown();
  void* tag = nullptr;
  bool ok = false;
  while (queue_.Next(&tag, &ok)) {
  }
}

inline void EtcdLoad::run(Recorder& recorder) {
  constexpr std::chrono::milliseconds kTurn{20};
  for (const auto& call : calls_) send(*call);
  while (!recorder.over(now_ns())) {
    void* tag = nullptr;
    bool ok = false;
    const auto next = queue_.AsyncNext(&tag, &ok, std::chrono::system_clock::now() + kTurn);
    if (next == grpc::CompletionQueue::GOT_EVENT) {
      finish(*static_cast<Call*>(tag), recorder, now_ns());
    }
  }
  for (const auto& call : calls_) {
    if (call->under_way) recorder.unanswered(call->sent_at);
  }
}

inline void EtcdLoad::send(Call& call) {
  if (workload_.exhausted()) return;
  const std::string bytes = request();
  const grpc::Slice slice(bytes.data(), bytes.size());
  const grpc::ByteBuffer message(&slice, 1);
  call.sent_at = now_ns();
  call.under_way = true;
  call.reader.reset();
  call.context.emplace();
  call.reply.Clear();
  call.reader = stubs_[call.stub]->PrepareUnaryCall(&*call.context, method_, message, &queue_);
  call.reader->StartCall();
  call.reader->Finish(&call.reply, &call.status, &call);
}

inline std::string EtcdLoad::request() {
  std::string bytes;
  detail::append_bytes_field(bytes, 1, workload_.next_key());
  if (options_.operation != Operation::kGet) {
    detail::append_bytes_field(bytes, 2, workload_.next_value());
  }
  return bytes;
}

inline void EtcdLoad::finish(Call& call, Recorder& recorder, Nanoseconds now) {
  call.under_way = false;
  const bool right = is_right(call);
  if (!right) {
    recorder.complain(call.status.ok() ? "no such value" : call.status.error_message());
  }
  recorder.answered(call.sent_at, now, right);
  send(call);
}

// A reply to Range without the key is only a header.
inline bool EtcdLoad::is_right(const Call& call) const {
  if (!call.status.ok()) return false;
  return options_.operation != Operation::kGet || call.reply.Length() > options_.value_size_bytes;
}

}  // namespace seshat::bench

#endif  // SESHAT_TESTS_BENCH_ETCD_LOAD_HPP
