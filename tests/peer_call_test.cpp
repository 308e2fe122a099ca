// Questions and answers between nodes, outside the streams.
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "catch.hpp"
#include "peer_nodes.hpp"
#include "seshat/peer.hpp"

namespace {

using namespace std::chrono_literals;
using namespace seshat::peer_tests;
using seshat::AdminAction;
using seshat::CallReply;
using seshat::CallRequest;
using seshat::CallStatus;
using seshat::NodeId;

using Answers = Results<CallReply>;

CallRequest join_request() {
  CallRequest request;
  request.from = {7};
  request.join = {hello_of(7)};
  return request;
}

CallReply welcome() {
  CallReply reply;
  reply.status = CallStatus::kAccepted;
  reply.membership.emplace();
  reply.membership->cluster_id = hello_of(1).cluster_id;
  for (std::uint64_t id = 1; id <= 50; ++id) {
    reply.membership->members[{id}].id = {id};
    reply.membership->members[{id}].addr = std::string(200, 'a');
  }
  return reply;
}

CallReply only(CallStatus status, std::string leader_addr = "") {
  CallReply reply;
  reply.status = status;
  reply.leader_addr = std::move(leader_addr);
  return reply;
}

std::unique_ptr<Node> node(std::uint64_t id) {
  return std::make_unique<Node>(id, options_of(id, free_port(), {}));
}

std::function<void(CallReply)> next_call(Node& asked, std::size_t number = 0) {
  REQUIRE(asked.events.wait([&](const Heard& heard) { return heard.held_calls.size() > number; }));
  return asked.events.heard().held_calls[number];
}

// Bytes of the test's choice as a call.
class RawCall final : public grpc::ClientUnaryReactor {
 public:
  RawCall(int port, std::string bytes)
      : request_(seshat::peer_detail::to_buffer(std::move(bytes))) {
    const auto channel = grpc::CreateChannel(at(port), grpc::InsecureChannelCredentials());
    grpc::GenericStub(channel).PrepareUnaryCall(&context_, "/seshat.Peer/Call", {}, &request_,
                                                &reply_, this);
    StartCall();
  }
  ~RawCall() override { static_cast<void>(wait()); }
  grpc::Status wait() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return status_.has_value(); });
    return *status_;
  }
  void cancel() { context_.TryCancel(); }
  void OnDone(const grpc::Status& status) override {
    const std::lock_guard lock(mutex_);
    status_ = status;
    changed_.notify_all();
  }

 private:
  grpc::ClientContext context_;
  grpc::ByteBuffer request_;
  grpc::ByteBuffer reply_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::optional<grpc::Status> status_;
};

std::string bytes_of(const CallRequest& request) {
  std::string bytes;
  seshat::codec::encode(request, bytes);
  return bytes;
}

}  // namespace

TEST_CASE("a call reaches a node that knows nobody, and its answer comes back whole") {
  Answers answers;
  const auto asked = node(1);
  const auto asking = node(7);
  asking->peers->call(at(asked->peers->port()), join_request(), 5000, answers.take());
  next_call (*asked)(welcome());
  REQUIRE(answers.wait(1));
  REQUIRE(answers.results()[0]);
  CHECK(*answers.results()[0] == welcome());
  CHECK(asked->events.heard().calls == std::vector<CallRequest>{join_request()});
}

TEST_CASE("answers may come late, from any thread and in another order") {
  Answers first;
  Answers second;
  const auto asked = node(1);
  const auto asking = node(7);
  asking->peers->call(at(asked->peers->port()), join_request(), 5000, first.take());
  const auto answer_first = next_call(*asked);
  asking->peers->call(at(asked->peers->port()), join_request(), 5000, second.take());
  next_call(*asked, 1)(only(CallStatus::kNotLeader, "kv-3:7379"));
  REQUIRE(second.wait(1));
  CHECK(second.results()[0]->leader_addr == "kv-3:7379");
  CHECK(first.results().empty());
  std::thread([&] { answer_first(only(CallStatus::kNotReady)); }).join();
  REQUIRE(first.wait(1));
  CHECK(first.results()[0]->status == CallStatus::kNotReady);
}

TEST_CASE("only the first answer counts") {
  Answers answers;
  const auto asked = node(1);
  const auto asking = node(7);
  asking->peers->call(at(asked->peers->port()), join_request(), 5000, answers.take());
  const auto answer = next_call(*asked);
  answer(only(CallStatus::kAccepted));
  answer(only(CallStatus::kRefused));
  REQUIRE(answers.wait(1));
  CHECK(answers.results()[0]->status == CallStatus::kAccepted);
}

TEST_CASE("a call that is not answered ends in time, and a later answer is harmless") {
  Answers answers;
  const auto asked = node(1);
  const auto asking = node(7);
  const auto start = Clock::now();
  asking->peers->call(at(asked->peers->port()), join_request(), 300, answers.take());
  const auto answer = next_call(*asked);
  REQUIRE(answers.wait(1));
  CHECK(since(start) >= 290ms);
  CHECK(since(start) < 3s);
  CHECK(answers.error() ==
        "asking the node at " + at(asked->peers->port()) + " failed: no answer within 300 ms");
  answer(welcome());
  CHECK(answers.results().size() == 1);
}

TEST_CASE("a node that isn't there is an error that names the address, and comes soon") {
  Answers answers;
  const auto asking = node(7);
  const std::string nowhere = at(free_port());
  asking->peers->call(nowhere, join_request(), 20'000, answers.take());
  asking->peers->call("no such host:1", join_request(), 20'000, answers.take());
  REQUIRE(answers.wait(2));
  CHECK(answers.error(0).find("asking the node at ") == 0);
  CHECK(answers.error(1).find("asking the node at ") == 0);
  CHECK((answers.error(0) + answers.error(1)).find(nowhere) != std::string::npos);
}

TEST_CASE("a call to a node that takes nothing any more ends in time") {
  Answers answers;
  const Sink sink;
  const auto asking = node(7);
  const auto start = Clock::now();
  asking->peers->call(at(sink.port()), join_request(), 400, answers.take());
  REQUIRE(answers.wait(1));
  CHECK(since(start) < 3s);
}

TEST_CASE("a node too old for calls is an error that says so") {
  struct OldService final : grpc::CallbackGenericService {};  // nothing is implemented
  OldService service;
  int port = 0;
  grpc::ServerBuilder builder;
  builder.AddListeningPort(at(0), grpc::InsecureServerCredentials(), &port);
  builder.RegisterCallbackGenericService(&service);
  const std::unique_ptr<grpc::Server> old = builder.BuildAndStart();
  Answers answers;
  const auto asking = node(7);
  asking->peers->call(at(port), join_request(), 5000, answers.take());
  REQUIRE(answers.wait(1));
  CHECK(answers.error().find("its version of seshat is too old: update it") != std::string::npos);
}

TEST_CASE("the end of the channel ends its calls, each with one error, before it returns") {
  Answers answers;
  const auto asked = node(1);
  auto asking = node(7);
  const Sink sink;
  for (int i = 0; i < 5; ++i) {
    asking->peers->call(at(asked->peers->port()), join_request(), 20'000, answers.take());
    asking->peers->call(at(sink.port()), join_request(), 20'000, answers.take());
  }
  static_cast<void>(next_call(*asked, 4));
  const auto start = Clock::now();
  asking->peers.reset();
  CHECK(answers.results().size() == 10);
  CHECK(since(start) < 3s);
  for (const auto& result : answers.results()) CHECK_FALSE(result);
}

TEST_CASE("a node that ends while it is asked gives an error; a late answer is harmless") {
  Answers answers;
  auto asked = node(1);
  const auto asking = node(7);
  asking->peers->call(at(asked->peers->port()), join_request(), 20'000, answers.take());
  const auto answer = next_call(*asked);
  asked->peers.reset();
  REQUIRE(answers.wait(1));
  CHECK(answers.error().find("the node is stopping") != std::string::npos);
  answer(welcome());
}

TEST_CASE("calls that wait for an answer are bounded, and make room when their caller is gone") {
  Answers answers;
  Answers one_more;
  const auto asked = node(1);
  auto crowd = node(7);
  for (std::size_t i = 0; i < seshat::peer_detail::kMaxCalls; ++i) {
    crowd->peers->call(at(asked->peers->port()), join_request(), 20'000, answers.take());
  }
  static_cast<void>(next_call(*asked, seshat::peer_detail::kMaxCalls - 1));
  const auto asking = node(8);
  asking->peers->call(at(asked->peers->port()), join_request(), 20'000, one_more.take());
  REQUIRE(one_more.wait(1));
  CHECK(one_more.error().find("too many calls are under way there") != std::string::npos);
  crowd->peers.reset();
  const std::size_t before = asked->events.heard().calls.size();
  bool taken = false;
  for (std::size_t tries = 2; tries < 2000 && !taken; ++tries) {
    asking->peers->call(at(asked->peers->port()), join_request(), 200, one_more.take());
    taken =
        asked->events.wait([&](const Heard& heard) { return heard.calls.size() > before; }, 20ms);
  }
  CHECK(taken);
}

TEST_CASE("requests that can't be read, or are too large, are refused and not heard of") {
  const auto asked = node(1);
  CallRequest request = join_request();
  CHECK(RawCall(asked->peers->port(), "\xff\xff").wait().error_code() ==
        grpc::StatusCode::INVALID_ARGUMENT);
  request.cluster_id.clear();
  // An unknown field that is as long as it likes: readable, but no call of ours.
  std::string padding("\x82\x7d", 2);  // field 2000, bytes
  padding += std::string("\xa0\x9c\x01", 3) + std::string(20'000, 'x');
  const grpc::Status large = RawCall(asked->peers->port(), bytes_of(request) + padding).wait();
  CHECK(large.error_code() == grpc::StatusCode::INVALID_ARGUMENT);
  CHECK(large.error_message() == "its request is too large");
  CHECK(asked->events.heard().calls.empty());
  CHECK(asked->lines.count("ended a call") == 1);
}

TEST_CASE("a caller that goes away leaves nothing behind") {
  const auto asked = node(1);
  {
    RawCall call(asked->peers->port(), bytes_of(join_request()));
    static_cast<void>(next_call(*asked));
    call.cancel();
  }
  next_call (*asked)(welcome());
}
