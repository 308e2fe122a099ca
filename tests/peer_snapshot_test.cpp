// Snapshots from node to node: over real sockets, with readers and writers in memory.
#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "catch.hpp"
#include "peer_nodes.hpp"
#include "seshat/fnv1a.hpp"
#include "seshat/peer.hpp"
#include "seshat/snapshot.hpp"

namespace {

using namespace std::chrono_literals;
using namespace seshat::peer_tests;
using seshat::Error;
using seshat::GroupId;
using seshat::Index;
using seshat::NodeId;
using seshat::PeerOptions;
using seshat::Peers;
using seshat::Result;
using seshat::SnapshotAnswer;
using seshat::SnapshotChunk;
using seshat::SnapshotMetadata;
using seshat::SnapshotOffer;
using seshat::SnapshotReader;
using seshat::SnapshotReply;
using seshat::SnapshotRows;
using seshat::SnapshotTransferOptions;
using seshat::SnapshotWriter;
namespace raft = seshat::raft;
using Status = SnapshotReply::Status;

using Rows = std::map<std::string, std::string, std::less<>>;

// Of about `count * size_bytes` bytes.
Rows rows_of(std::size_t count, std::size_t size_bytes) {
  Rows rows;
  for (std::size_t i = 0; i < count; ++i) {
    std::string key = std::to_string(i);
    key = "key " + std::string(8 - key.size(), '0') + key;
    rows[key] = std::string(size_bytes, static_cast<char>('a' + i % 26));
  }
  return rows;
}

SnapshotOffer offer_of(std::uint64_t to, std::uint64_t group, std::uint64_t index) {
  SnapshotOffer offer;
  const raft::Snapshot snapshot{{index}, {3}, {}, {}};
  offer.message = {{group}, {{1}, {to}, {3}, raft::InstallSnapshot{snapshot}}};
  offer.cluster_id = hello_of(1).cluster_id;
  offer.metadata.group = {group};
  offer.metadata.snapshot = snapshot;
  return offer;
}

// A door that calls wait at until it is opened.
class Gate {
 public:
  void close() { set(false); }
  void open() { set(true); }
  void pass() {
    std::unique_lock lock(mutex_);
    ++waiting_;
    changed_.notify_all();
    changed_.wait(lock, [&] { return open_; });
    --waiting_;
  }
  bool wait_waiting(std::chrono::milliseconds bound = 10s) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, bound, [&] { return waiting_ > 0; });
  }

 private:
  void set(bool open) {
    const std::lock_guard lock(mutex_);
    open_ = open;
    changed_.notify_all();
  }
  std::mutex mutex_;
  std::condition_variable changed_;
  bool open_ = true;
  int waiting_ = 0;
};

class MemoryReader final : public SnapshotReader {
 public:
  explicit MemoryReader(Rows rows) : rows_(std::move(rows)) {}
  const SnapshotMetadata& metadata() const override { return metadata_; }
  Result<SnapshotRows> read(std::string_view after_key, std::size_t max_size_bytes) override {
    overlapped = inside_.exchange(true) || overlapped;
    gate.pass();
    SnapshotRows read;
    auto row = after_key.empty() ? rows_.begin() : rows_.upper_bound(after_key);
    for (; row != rows_.end() && read.rows.size() < max_size_bytes; ++row) {
      seshat::append_row(row->first, row->second, read.rows);
      read.last_key = row->first;
    }
    read.last = row == rows_.end();
    bytes += read.rows.size();
    ++calls;
    inside_ = false;
    if (fail) return Error{"the disk is broken"};
    return read;
  }

  Gate gate;
  std::atomic<bool> fail = false;
  std::atomic<bool> overlapped = false;
  std::atomic<std::size_t> calls = 0;
  std::atomic<std::size_t> bytes = 0;

 private:
  const Rows rows_;
  SnapshotMetadata metadata_;
  std::atomic<bool> inside_ = false;
};

class MemoryWriter final : public SnapshotWriter {
 public:
  const SnapshotMetadata& metadata() const override { return metadata_; }
  const std::string& last_key() const override { return last_key_; }
  Result<void> write(std::string_view bytes) override {
    overlapped = inside_.exchange(true) || overlapped;
    if (calls++ >= gated_after) gate.pass();
    std::string_view key;
    std::string_view value;
    while (seshat::take_row(bytes, key, value)) {
      twice = !rows_.emplace(key, value).second || twice;
      last_key_ = key;
    }
    inside_ = false;
    if (fail) return Error{"no space left on device"};
    return {};
  }
  Result<void> finish() override {
    overlapped = inside_ || overlapped;
    finished = true;
    return {};
  }
  const Rows& rows() const {
    REQUIRE(finished);
    return rows_;
  }

  Gate gate;
  std::atomic<std::size_t> gated_after = 0;
  std::atomic<std::size_t> calls = 0;
  std::atomic<bool> fail = false;
  std::atomic<bool> overlapped = false;
  std::atomic<bool> twice = false;
  std::atomic<bool> finished = false;

 private:
  Rows rows_;
  std::string last_key_;
  SnapshotMetadata metadata_;
  std::atomic<bool> inside_ = false;
};

// Takes in every snapshot, one writer a group, until it is told otherwise.
class Receiver final : public Recorder {
 public:
  struct Told {
    std::vector<SnapshotOffer> offers;
    std::vector<std::string> broken;
    std::vector<std::string> failed;
    std::size_t received = 0;
    std::vector<std::function<void(SnapshotReply)>> held;  // the owner is still installing
  };

  using Recorder::Recorder;

  std::shared_ptr<MemoryWriter> writer(std::uint64_t group) {
    const std::lock_guard lock(lock_);
    auto& writer = writers_[group];
    if (!writer) writer = std::make_shared<MemoryWriter>();
    return writer;
  }
  void answer_with(SnapshotReply reply) {
    const std::lock_guard lock(lock_);
    reply_ = std::move(reply);
  }
  void hold_install() {
    const std::lock_guard lock(lock_);
    hold_ = true;
  }
  template <class Condition>
  bool wait_told(Condition holds, std::chrono::milliseconds bound = 10s) {
    std::unique_lock lock(lock_);
    return changed_.wait_for(lock, bound, [&] { return holds(told_); });
  }
  Told told() {
    const std::lock_guard lock(lock_);
    return told_;
  }

  void on_snapshot_offer(SnapshotOffer offer, std::function<void(SnapshotAnswer)> answer) override {
    const std::uint64_t group = offer.metadata.group.value;
    std::optional<SnapshotReply> reply;
    {
      const std::lock_guard lock(lock_);
      told_.offers.push_back(std::move(offer));
      reply = reply_;
      changed_.notify_all();
    }
    if (reply) return answer({*reply, nullptr});
    answer({{Status::kGoOn, "", "", {}, 0}, writer(group)});
  }
  void on_snapshot_received(GroupId, std::shared_ptr<SnapshotWriter>,
                            std::function<void(SnapshotReply)> done) override {
    {
      const std::lock_guard lock(lock_);
      ++told_.received;
      if (hold_) told_.held.push_back(done);
      changed_.notify_all();
      if (hold_) return;
    }
    done({Status::kInstalled, "", "", Index{77}, 0});
  }
  void on_snapshot_broken(GroupId, std::shared_ptr<SnapshotWriter>, std::string reason) override {
    const std::lock_guard lock(lock_);
    told_.broken.push_back(std::move(reason));
    changed_.notify_all();
  }
  void on_snapshot_failed(GroupId, std::shared_ptr<SnapshotWriter>, std::string reason) override {
    const std::lock_guard lock(lock_);
    told_.failed.push_back(std::move(reason));
    changed_.notify_all();
  }

 private:
  std::mutex lock_;
  std::condition_variable changed_;
  std::map<std::uint64_t, std::shared_ptr<MemoryWriter>> writers_;
  std::optional<SnapshotReply> reply_;
  bool hold_ = false;
  Told told_;
};

// Node 2, which receives.
struct ReceivingNode {
  explicit ReceivingNode(const PeerOptions& options) : events(2) { start(options); }
  void start(const PeerOptions& options) {
    auto started = Peers::start(options, events, lines.log);
    if (!started) FAIL(started.error().text);
    peers = std::move(*started);
    peers->set_hello(hello_of(2));
  }
  [[nodiscard]] std::string addr() const { return at(peers->port()); }

  Lines lines;
  Receiver events;
  std::unique_ptr<Peers> peers;
};

// Node 1 sends to node 2.
struct Transfers {
  Transfers() : to(options_of(2, free_port(), {})), from(1, options_of(1, free_port(), {})) {}

  std::shared_ptr<seshat::SnapshotTransfer> send(std::shared_ptr<MemoryReader> reader,
                                                 std::uint64_t group = 1,
                                                 SnapshotTransferOptions options = {},
                                                 std::string addr = "") {
    if (addr.empty()) addr = to.addr();
    return from.peers->send_snapshot(addr, offer_of(2, group, 42), std::move(reader), options,
                                     ends.take());
  }
  [[nodiscard]] Receiver::Told told() { return to.events.told(); }

  Results<Index> ends{20s};  // how transfers ended
  ReceivingNode to;
  Node from;
};

// ---- A sender that breaks the rules -------------------------------------------------------------

std::string bytes_of(const SnapshotOffer& offer) {
  std::string bytes;
  seshat::codec::encode(offer, bytes);
  return bytes;
}

std::string chunk_bytes(std::uint64_t number, std::string rows, bool last = false) {
  std::string bytes;
  const std::uint64_t checksum = seshat::fnv1a(rows);
  seshat::codec::encode(SnapshotChunk{number, std::move(rows), checksum, last}, bytes);
  return bytes;
}

std::string row(std::string_view key) {
  std::string rows;
  seshat::append_row(key, "value", rows);
  return rows;
}

std::unique_ptr<RawStream> raw_stream(const ReceivingNode& to) {
  return std::make_unique<RawStream>(to.peers->port(), "/seshat.Peer/Snapshot");
}

SnapshotReply last_reply(RawStream& stream) {
  REQUIRE(stream.wait_ended());
  const auto received = stream.received();
  REQUIRE_FALSE(received.empty());
  Result<SnapshotReply> reply = seshat::codec::decode_snapshot_reply(received.back());
  REQUIRE(reply);
  return *reply;
}

}  // namespace

// ---- Transfers ----------------------------------------------------------------------------------

TEST_CASE("a snapshot of 12 MB arrives whole, is installed, and the sender hears the index") {
  Transfers nodes;
  const Rows rows = rows_of(3000, 4000);
  const auto reader = std::make_shared<MemoryReader>(rows);
  const auto transfer = nodes.send(reader);
  REQUIRE(nodes.ends.wait());
  REQUIRE(nodes.ends.error() == "none");
  CHECK(*nodes.ends.results()[0] == Index{77});
  const auto writer = nodes.to.events.writer(1);
  CHECK(writer->finished);
  CHECK((writer->rows() == rows));
  CHECK_FALSE(writer->overlapped);
  CHECK_FALSE(reader->overlapped);
  CHECK(transfer->progress().connections == 1);
  CHECK(transfer->progress().sent_bytes > 12'000'000);
  const SnapshotOffer offer = nodes.told().offers.at(0);
  CHECK(offer.metadata == offer_of(2, 1, 42).metadata);
  CHECK(offer.message.message.from == NodeId{1});
  CHECK(offer.cluster_id == hello_of(1).cluster_id);
  CHECK(nodes.told().broken.empty());
}

TEST_CASE("a snapshot with no rows arrives, and one row of 8 MB does") {
  Transfers nodes;
  nodes.send(std::make_shared<MemoryReader>(Rows{}));
  REQUIRE(nodes.ends.wait());
  CHECK(nodes.ends.error() == "none");
  CHECK(nodes.to.events.writer(1)->finished);
  CHECK(nodes.to.events.writer(1)->rows().empty());
  const Rows large = rows_of(1, 8 << 20);
  nodes.send(std::make_shared<MemoryReader>(large), 2);
  REQUIRE(nodes.ends.wait(2));
  CHECK(nodes.ends.error(1) == "none");
  CHECK((nodes.to.events.writer(2)->rows() == large));
}

TEST_CASE("a refusal and an error of the reader reach the sender in words") {
  Transfers nodes;
  SECTION("refused") {
    nodes.to.events.answer_with({Status::kRefused, "your term is old", "", {}, 0});
    nodes.send(std::make_shared<MemoryReader>(rows_of(1, 10)));
    REQUIRE(nodes.ends.wait());
    CHECK(nodes.ends.error() ==
          "sending a snapshot to the node at " + nodes.to.addr() + " failed: your term is old");
  }
  SECTION("go on, but no writer") {
    nodes.to.events.answer_with({Status::kGoOn, "", "", {}, 0});
    nodes.send(std::make_shared<MemoryReader>(rows_of(1, 10)));
    REQUIRE(nodes.ends.wait());
    CHECK(nodes.ends.error().find("no place") != std::string::npos);
  }
  SECTION("unreadable") {
    const auto reader = std::make_shared<MemoryReader>(rows_of(1, 10));
    reader->fail = true;
    nodes.send(reader);
    REQUIRE(nodes.ends.wait());
    CHECK(nodes.ends.error().find("the disk is broken") != std::string::npos);
    CHECK(nodes.to.events.wait_told([](const auto& told) { return told.broken.size() == 1; }));
  }
}

TEST_CASE("a receiver that has it all says so, and nothing is read") {
  Transfers nodes;
  nodes.to.events.answer_with({Status::kInstalled, "", "", Index{99}, 0});
  const auto reader = std::make_shared<MemoryReader>(rows_of(1, 10));
  nodes.send(reader);
  REQUIRE(nodes.ends.wait());
  REQUIRE(nodes.ends.error() == "none");
  CHECK(*nodes.ends.results()[0] == Index{99});
  CHECK(reader->calls == 0);
}

TEST_CASE("a writer that fails ends the transfer with its reason, and the owner is told") {
  Transfers nodes;
  nodes.to.events.writer(1)->fail = true;
  nodes.send(std::make_shared<MemoryReader>(rows_of(3000, 1000)));
  REQUIRE(nodes.ends.wait());
  CHECK(nodes.ends.error().find("no space left on device") != std::string::npos);
  CHECK(nodes.told().failed == std::vector<std::string>{"no space left on device"});
  CHECK(nodes.told().broken.empty());
  CHECK(nodes.to.events.writer(1)->calls == 1);
}

TEST_CASE("installing may take longer than the liveness timeout") {
  Transfers nodes;
  nodes.to.events.hold_install();
  const auto transfer = nodes.send(std::make_shared<MemoryReader>(rows_of(10, 1000)), 1,
                                   {.progress_timeout_ms = 1000});
  REQUIRE(nodes.to.events.wait_told([](const auto& told) { return told.held.size() == 1; }));
  CHECK_FALSE(nodes.ends.wait(1, 2500ms));
  CHECK(transfer->progress().connections == 1);
  nodes.told().held[0]({Status::kInstalled, "", "", Index{5}, 0});
  REQUIRE(nodes.ends.wait());
  CHECK(nodes.ends.error() == "none");
}

TEST_CASE("what the receiver says after all rows may be a refusal") {
  Transfers nodes;
  nodes.to.events.hold_install();
  nodes.send(std::make_shared<MemoryReader>(rows_of(10, 1000)));
  REQUIRE(nodes.to.events.wait_told([](const auto& told) { return told.held.size() == 1; }));
  nodes.told().held[0]({Status::kRefused, "a newer leader is there", "", {}, 0});
  REQUIRE(nodes.ends.wait());
  CHECK(nodes.ends.error().find("a newer leader is there") != std::string::npos);
}

// ---- Broken connections -------------------------------------------------------------------------

TEST_CASE("a connection that is cut is followed by another, which goes on behind the last key") {
  Transfers nodes;
  const Rows rows = rows_of(3000, 4000);
  Proxy proxy(nodes.to.peers->port());
  const auto reader = std::make_shared<MemoryReader>(rows);
  const auto writer = nodes.to.events.writer(1);
  writer->gated_after = 3;
  writer->gate.close();
  const auto transfer = nodes.send(reader, 1, {}, at(proxy.port()));
  REQUIRE(writer->gate.wait_waiting());
  proxy.cut();
  REQUIRE(nodes.to.events.wait_told([](const auto& told) { return told.offers.size() >= 2; }));
  writer->gate.open();
  REQUIRE(nodes.ends.wait());
  REQUIRE(nodes.ends.error() == "none");
  CHECK((writer->rows() == rows));
  CHECK_FALSE(writer->twice);
  CHECK_FALSE(writer->overlapped);
  CHECK_FALSE(reader->overlapped);
  CHECK(transfer->progress().connections >= 2);
  CHECK(reader->bytes < 18'000'000);  // the whole is 12 MB, and a window of it was lost
}

TEST_CASE("a receiver that restarts gets the rest with the same writer") {
  Transfers nodes;
  const Rows rows = rows_of(3000, 4000);
  const PeerOptions options = options_of(2, nodes.to.peers->port(), {});
  const auto writer = nodes.to.events.writer(1);
  writer->gated_after = 5;
  writer->gate.close();
  const auto transfer = nodes.send(std::make_shared<MemoryReader>(rows));
  REQUIRE(writer->gate.wait_waiting());
  std::thread opener([&] { writer->gate.open(); });
  nodes.to.peers.reset();
  opener.join();
  const std::size_t calls = writer->calls;
  CHECK_FALSE(nodes.ends.wait(1, 300ms));
  CHECK(writer->calls == calls);  // nobody calls it after the end
  nodes.to.start(options);
  REQUIRE(nodes.ends.wait());
  REQUIRE(nodes.ends.error() == "none");
  CHECK((writer->rows() == rows));
  CHECK_FALSE(writer->twice);
  CHECK(transfer->progress().connections >= 2);
}

TEST_CASE("a connection that falls silent is noticed and followed by another") {
  Transfers nodes;
  const Rows rows = rows_of(3000, 4000);
  Proxy proxy(nodes.to.peers->port());
  const auto reader = std::make_shared<MemoryReader>(rows);
  const auto writer = nodes.to.events.writer(1);
  const auto transfer =
      nodes.send(reader, 1, {.max_bytes_per_second = 4'000'000}, at(proxy.port()));
  REQUIRE(nodes.to.events.wait_told([](const auto& told) { return told.offers.size() == 1; }));
  proxy.freeze(true);
  CHECK_FALSE(nodes.ends.wait(1, 1500ms));
  CHECK(transfer->progress().connections >= 2);
  proxy.freeze(false);
  REQUIRE(nodes.ends.wait());
  REQUIRE(nodes.ends.error() == "none");
  CHECK((writer->rows() == rows));
  CHECK_FALSE(writer->twice);
  CHECK_FALSE(writer->overlapped);
}

TEST_CASE("a node that isn't there, or never answers, is given up when nothing moved for long") {
  Transfers nodes;
  const Sink sink;
  const auto start = Clock::now();
  nodes.send(std::make_shared<MemoryReader>(rows_of(1, 10)), 1, {.progress_timeout_ms = 700},
             at(free_port()));
  nodes.send(std::make_shared<MemoryReader>(rows_of(1, 10)), 1, {.progress_timeout_ms = 700},
             at(sink.port()));
  REQUIRE(nodes.ends.wait(2));
  CHECK(since(start) >= 690ms);
  CHECK(since(start) < 5s);
  CHECK(nodes.ends.error().find("nothing moved within 700 ms") != std::string::npos);
}

TEST_CASE("a node too old for snapshots is an error that says so") {
  struct OldService final : grpc::CallbackGenericService {};  // nothing is implemented
  OldService service;
  int port = 0;
  grpc::ServerBuilder builder;
  builder.AddListeningPort(at(0), grpc::InsecureServerCredentials(), &port);
  builder.RegisterCallbackGenericService(&service);
  const std::unique_ptr<grpc::Server> old = builder.BuildAndStart();
  Transfers nodes;
  nodes.send(std::make_shared<MemoryReader>(rows_of(1, 10)), 1, {}, at(port));
  REQUIRE(nodes.ends.wait());
  CHECK(nodes.ends.error().find("its version of seshat is too old: update it") !=
        std::string::npos);
}

// ---- Pace ---------------------------------------------------------------------------------------

TEST_CASE("a slow writer is waited for, and no more than a window is read ahead of it") {
  Transfers nodes;
  const Rows rows = rows_of(12'000, 4000);
  const auto reader = std::make_shared<MemoryReader>(rows);
  const auto writer = nodes.to.events.writer(1);
  writer->gate.close();
  const auto transfer = nodes.send(reader);
  REQUIRE(writer->gate.wait_waiting());
  // Longer than the liveness timeout: the receiver says that it is there.
  CHECK_FALSE(nodes.ends.wait(1, 1500ms));
  CHECK(reader->calls == seshat::peer_detail::kWindow);
  CHECK(transfer->progress().connections == 1);
  writer->gate.open();
  REQUIRE(nodes.ends.wait());
  CHECK(nodes.ends.error() == "none");
  CHECK((writer->rows() == rows));
}

TEST_CASE("a slow reader keeps its connection") {
  Transfers nodes;
  // So that the receiver's patience is the liveness timeout, and little more.
  nodes.to.peers.reset();
  PeerOptions options = options_of(2, free_port(), {});
  options.limits.max_message_size_bytes = 1 << 20;
  nodes.to.start(options);
  const auto reader = std::make_shared<MemoryReader>(rows_of(3000, 1000));
  reader->gate.close();
  const auto transfer = nodes.send(reader);
  REQUIRE(reader->gate.wait_waiting());
  CHECK_FALSE(nodes.ends.wait(1, 2500ms));
  CHECK(transfer->progress().connections == 1);
  reader->gate.open();
  REQUIRE(nodes.ends.wait());
  CHECK(nodes.ends.error() == "none");
  CHECK(nodes.to.events.writer(1)->rows().size() == 3000);
}

TEST_CASE("a rate limit holds, about") {
  Transfers nodes;
  const auto start = Clock::now();
  nodes.send(std::make_shared<MemoryReader>(rows_of(1000, 2000)), 1,
             {.max_bytes_per_second = 1'000'000});
  REQUIRE(nodes.ends.wait());
  CHECK(nodes.ends.error() == "none");
  CHECK(since(start) > 1500ms);
  CHECK(since(start) < 6s);
}

TEST_CASE("two transfers at once, beside a stream of messages that keeps flowing") {
  Transfers nodes;
  nodes.from.peers->set_peers({{{2}, nodes.to.addr()}});
  REQUIRE(nodes.from.events.wait_up(2));
  const Rows first = rows_of(3000, 4000);
  const Rows second = rows_of(2000, 5000);
  nodes.to.events.writer(2)->gate.close();  // one stands still while the other goes on
  nodes.send(std::make_shared<MemoryReader>(first), 1);
  nodes.send(std::make_shared<MemoryReader>(second), 2);
  for (std::size_t sent = 1; sent <= 50; ++sent) {
    nodes.from.peers->send(GroupId{1}, {{1}, {2}, {1}, raft::RequestVote{}});
    nodes.from.peers->flush();
    REQUIRE(nodes.to.events.wait_messages(sent, 2s));
  }
  REQUIRE(nodes.ends.wait(1));
  CHECK((nodes.to.events.writer(1)->rows() == first));
  nodes.to.events.writer(2)->gate.open();
  REQUIRE(nodes.ends.wait(2));
  CHECK((nodes.to.events.writer(2)->rows() == second));
  CHECK(nodes.from.events.heard().downs.empty());
}

// ---- Ends ---------------------------------------------------------------------------------------

TEST_CASE("a transfer that is cancelled ends once, and the receiver keeps what it has") {
  Transfers nodes;
  const auto writer = nodes.to.events.writer(1);
  writer->gated_after = 2;
  writer->gate.close();
  const auto transfer = nodes.send(std::make_shared<MemoryReader>(rows_of(12'000, 1000)));
  REQUIRE(writer->gate.wait_waiting());
  transfer->cancel();
  transfer->cancel();
  CHECK(nodes.ends.results().size() == 1);
  CHECK(nodes.ends.error().find("it was cancelled") != std::string::npos);
  CHECK_FALSE(nodes.to.events.wait_told([](const auto& told) { return !told.broken.empty(); },
                                        300ms));  // the writer is still being called
  writer->gate.open();
  REQUIRE(nodes.to.events.wait_told([](const auto& told) { return told.broken.size() == 1; }));
  CHECK(writer->calls == 3);
  CHECK_FALSE(writer->finished);
}

TEST_CASE("the end of the sending channel ends its transfers before it returns") {
  Transfers nodes;
  const auto reader = std::make_shared<MemoryReader>(rows_of(12'000, 4000));
  const auto writer = nodes.to.events.writer(1);
  writer->gate.close();
  const auto transfer = nodes.send(reader);
  nodes.send(std::make_shared<MemoryReader>(rows_of(1, 1)), 2, {}, at(free_port()));
  REQUIRE(writer->gate.wait_waiting());
  nodes.from.peers.reset();
  CHECK(nodes.ends.results().size() == 2);
  CHECK(nodes.ends.error().find("this node is stopping") != std::string::npos);
  CHECK(reader.use_count() == 1);
  transfer->cancel();
  CHECK(nodes.ends.results().size() == 2);
  writer->gate.open();
}

TEST_CASE("a reader is let go of when its transfer has ended") {
  Transfers nodes;
  const auto reader = std::make_shared<MemoryReader>(rows_of(10, 10));
  const auto transfer = nodes.send(reader);
  REQUIRE(nodes.ends.wait());
  const auto start = Clock::now();
  while (reader.use_count() > 1 && since(start) < 5s) std::this_thread::yield();
  CHECK(reader.use_count() == 1);
}

// ---- Senders that break the rules ---------------------------------------------------------------

TEST_CASE("chunks that break the rules are refused with a reason, and nothing of them is written") {
  Transfers nodes;
  const auto stream = raw_stream(nodes.to);
  const auto writer = nodes.to.events.writer(1);
  std::string reason;
  bool offered = true;
  SECTION("before the offer") {
    stream->send(chunk_bytes(1, row("a")));
    reason = "a chunk before the offer";
    offered = false;
  }
  SECTION("with another checksum") {
    std::string bytes;
    seshat::codec::encode(SnapshotChunk{1, row("a"), 4711, false}, bytes);
    stream->send(bytes_of(offer_of(2, 1, 42)));
    stream->send(bytes);
    reason = "a chunk's checksum is another than it says";
  }
  SECTION("out of order") {
    stream->send(bytes_of(offer_of(2, 1, 42)));
    stream->send(chunk_bytes(2, row("a")));
    reason = "a chunk out of order";
  }
  SECTION("with half a row") {
    stream->send(bytes_of(offer_of(2, 1, 42)));
    stream->send(chunk_bytes(1, row("a") + row("b").substr(0, 9)));
    reason = "a row is not whole";
  }
  SECTION("with rows in disorder") {
    stream->send(bytes_of(offer_of(2, 1, 42)));
    stream->send(chunk_bytes(1, row("b") + row("a")));
    reason = "rows are not in the order of their keys";
  }
  SECTION("with no end of bytes that mean nothing") {
    stream->send(bytes_of(offer_of(2, 1, 42)));
    stream->send(std::string(100'000, '\xff'));
    reason = "SnapshotFrame";
  }
  SECTION("a second offer") {
    stream->send(bytes_of(offer_of(2, 1, 42)));
    stream->send(bytes_of(offer_of(2, 1, 42)));
    reason = "a second offer";
  }
  const SnapshotReply reply = last_reply(*stream);
  CHECK(reply.status == Status::kRefused);
  CHECK(reply.reason.find(reason) != std::string::npos);
  CHECK(writer->calls == 0);
  CHECK(nodes.to.lines.count("ended a snapshot's stream") == 1);
  const std::size_t broken = offered ? 1 : 0;
  CHECK(nodes.to.events.wait_told([&](const auto& told) { return told.broken.size() == broken; }));
  CHECK(nodes.told().failed.empty());
}

TEST_CASE("rows that go back behind what is there are refused") {
  Transfers nodes;
  const auto stream = raw_stream(nodes.to);
  stream->send(bytes_of(offer_of(2, 1, 42)));
  stream->send(chunk_bytes(1, row("b")));
  stream->send(chunk_bytes(2, row("b")));
  CHECK(last_reply(*stream).reason.find("order of their keys") != std::string::npos);
  CHECK(nodes.to.events.writer(1)->calls == 1);
}

TEST_CASE("offers that are not for this node, or too large, don't reach the owner") {
  Transfers nodes;
  const auto stream = raw_stream(nodes.to);
  SnapshotOffer offer = offer_of(2, 1, 42);
  SECTION("another node's") { offer.message.message.to = {3}; }
  SECTION("two groups'") { offer.metadata.group = {2}; }
  SECTION("large") {
    for (std::uint64_t id = 1; id < 3000; ++id) {
      offer.metadata.membership.members[{id}].id = {id};
      offer.metadata.membership.members[{id}].addr = std::string(290, 'a');
      offer.metadata.membership.members[{id}].client_addr = std::string(290, 'a');
    }
  }
  stream->send(bytes_of(offer));
  CHECK(last_reply(*stream).status == Status::kRefused);
  CHECK(nodes.told().offers.empty());
}

TEST_CASE("senders that say nothing are ended in time, and are bounded until then") {
  Transfers nodes;
  nodes.to.peers.reset();
  PeerOptions options = options_of(2, free_port(), {});
  options.limits.max_message_size_bytes = 1 << 20;
  nodes.to.start(options);
  std::vector<std::unique_ptr<RawStream>> silent;
  for (std::size_t i = 0; i < seshat::peer_detail::kMaxIncomingSnapshots; ++i) {
    silent.push_back(raw_stream(nodes.to));
    silent.back()->send(bytes_of(offer_of(2, i + 1, 42)));
    REQUIRE(silent.back()->wait_received(1));
  }
  auto one_more = raw_stream(nodes.to);
  REQUIRE(one_more->wait_ended());
  CHECK(RawStream::status_of(std::move(one_more)) == "too many snapshots are being received there");
  const auto start = Clock::now();
  for (const auto& stream : silent) CHECK(stream->wait_ended());
  CHECK(since(start) < 4s);
  CHECK(nodes.to.events.wait_told([](const auto& told) { return told.broken.size() == 8; }));
}

TEST_CASE("a newer stream with the same writer takes the older one's place, after its last call") {
  Transfers nodes;
  const auto writer = nodes.to.events.writer(1);
  const auto older = raw_stream(nodes.to);
  older->send(bytes_of(offer_of(2, 1, 42)));
  writer->gate.close();
  older->send(chunk_bytes(1, row("a")));
  REQUIRE(writer->gate.wait_waiting());
  const auto newer = raw_stream(nodes.to);
  newer->send(bytes_of(offer_of(2, 1, 42)));
  REQUIRE(nodes.to.events.wait_told([](const auto& told) { return told.offers.size() == 2; }));
  CHECK(newer->received().empty());
  writer->gate.open();
  REQUIRE(newer->wait_received(1));
  const Result<SnapshotReply> reply =
      seshat::codec::decode_snapshot_reply(newer->received().front());
  REQUIRE(reply);
  CHECK(reply->after_key == "a");
  REQUIRE(older->wait_ended());
  newer->send(chunk_bytes(1, row("b"), true));
  CHECK(last_reply(*newer).status == Status::kInstalled);
  CHECK(writer->rows().size() == 2);
  CHECK_FALSE(writer->overlapped);
  CHECK(nodes.told().broken.empty());
}

TEST_CASE("a writer that is complete is not given to another stream") {
  Transfers nodes;
  nodes.to.events.hold_install();
  nodes.send(std::make_shared<MemoryReader>(rows_of(10, 10)));
  REQUIRE(nodes.to.events.wait_told([](const auto& told) { return told.held.size() == 1; }));
  auto again = raw_stream(nodes.to);
  again->send(bytes_of(offer_of(2, 1, 42)));
  REQUIRE(again->wait_ended());
  CHECK(RawStream::status_of(std::move(again)) == "all of it arrived meanwhile: ask again");
  nodes.told().held[0]({Status::kInstalled, "", "", Index{5}, 0});
  REQUIRE(nodes.ends.wait());
  CHECK(nodes.ends.error() == "none");
  CHECK(nodes.told().broken.empty());
}
