// When logs are cut, and who is sent which snapshot: one node over a disk in memory, in virtual time.
// Its follower is played by the test; snapshots go to it over real sockets.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "catch.hpp"
#include "memory_disk.hpp"
#include "peer_nodes.hpp"
#include "seshat/snapshot_exchange.hpp"
#include "store_harness.hpp"

using namespace seshat;
using namespace seshat::tests;

namespace {

constexpr NodeId kSelf{1};
constexpr NodeId kFollower{2};
constexpr std::uint64_t kTickMs = 25;
constexpr std::size_t kKilobyte = 1'000;
constexpr std::size_t kMegabyte = 1'000'000;

struct VirtualClock final : Clock {
  [[nodiscard]] std::uint64_t now_ms() const override { return now; }
  std::uint64_t now = 1'000;
};

struct Deaf final : Waiter {
  void done(const Outcome&) override {}
  void readable() override {}
  void failed(Refusal) override {}
};

// Takes rows and forgets them.
class CountingWriter final : public SnapshotWriter {
 public:
  explicit CountingWriter(SnapshotMetadata metadata) : metadata_(std::move(metadata)) {}
  [[nodiscard]] const SnapshotMetadata& metadata() const override { return metadata_; }
  [[nodiscard]] Result<void> write(std::string_view rows) override {
    std::string_view value;
    std::string_view key;
    while (take_row(rows, key, value)) last_key_ = key;
    return {};
  }
  [[nodiscard]] const std::string& last_key() const override { return last_key_; }
  [[nodiscard]] Result<void> finish() override { return {}; }

 private:
  SnapshotMetadata metadata_;
  std::string last_key_;
};

// Node 2, as far as it is offered snapshots: refuses each, or takes them in, or says nothing yet.
class Offered final : public peer_tests::Recorder {
 public:
  enum class Does : std::uint8_t { kHold, kRefuse, kTake };

  Offered() : Recorder(kFollower.value) {}

  void does(Does what) {
    const std::lock_guard lock(mutex_);
    does_ = what;
  }
  // Of those that were offered.
  [[nodiscard]] std::vector<Index> indexes() {
    const std::lock_guard lock(mutex_);
    return indexes_;
  }
  // How many came in, all rows of them.
  [[nodiscard]] std::size_t received() const { return received_; }
  // What is held now is in force.
  void answer_installed() {
    const std::lock_guard lock(mutex_);
    for (auto& [index, answer] : std::exchange(held_, {})) {
      answer({{SnapshotReply::Status::kInstalled, "", "", index, 0}, {}});
    }
  }

  void on_snapshot_offer(SnapshotOffer offer, std::function<void(SnapshotAnswer)> answer) override {
    const std::lock_guard lock(mutex_);
    const Index index = offer.metadata.snapshot.last_included_index;
    indexes_.push_back(index);
    if (does_ == Does::kHold) return held_.emplace_back(index, std::move(answer)), void();
    if (does_ == Does::kRefuse) {
      return answer({{SnapshotReply::Status::kRefused, "not today", "", {}, 0}, {}});
    }
    answer({{SnapshotReply::Status::kGoOn, "", "", {}, 0},
            std::make_shared<CountingWriter>(offer.metadata)});
  }
  void on_snapshot_received(GroupId, std::shared_ptr<SnapshotWriter> writer,
                            std::function<void(SnapshotReply)> done) override {
    const Index index = writer->metadata().snapshot.last_included_index;
    ++received_;
    done({SnapshotReply::Status::kInstalled, "", "", index, 0});
  }

 private:
  std::atomic<std::size_t> received_ = 0;
  std::mutex mutex_;
  Does does_ = Does::kHold;
  std::vector<Index> indexes_;
  std::vector<std::pair<Index, std::function<void(SnapshotAnswer)>>> held_;
};

SnapshotExchange::Options never_by_size() {
  return {1'000'000'000, 1'000'000'000'000, 1'000'000'000'000, 0};
}
SnapshotExchange::Options max_log_size(std::uint64_t bytes) {
  SnapshotExchange::Options options = never_by_size();
  options.max_log_size_bytes = bytes;
  return options;
}
// Nothing stays in the log that is applied.
SnapshotExchange::Options every_entry() {
  SnapshotExchange::Options options = never_by_size();
  options.snapshot_interval_entries = 1;
  return options;
}

// Node 1 with its loop, of which the data group is played.
class Site final : public StoreEvents, public Transport, public LeadershipObserver {
 public:
  Site(MemoryDisk& disk, SnapshotExchange::Options options, std::vector<NodeId> voters = {kSelf})
      : env_(disk.env()) {
    StoreOptions store_options = options_for("/data", env_.get());
    store_options.write_behind_ms = 0;  // the store's clock is not the one that goes fast here
    auto opened = Store::open(store_options);
    REQUIRE(opened);
    store_ = std::move(*opened);
    REQUIRE(store_->restore(kSystem, system_machine_));
    auto restored = store_->restore(kData, data_machine_);
    REQUIRE(restored);
    start_peers();
    exchange_ = std::make_unique<SnapshotExchange>(
        options,
        SnapshotExchange::Environment{*store_, sender_.get(), membership_, clock_,
                                      [this](std::function<void()> work) { post(std::move(work)); },
                                      [this](NodeId) { return peer_tests::at(receiver_->port()); }},
        lines_.log);
    raft::Config config;
    config.id = kSelf;
    config.voters = std::move(voters);
    config.applied_tail_size_bytes = 1;  // what was cut off the disk is in no memory either
    replica_ = std::make_unique<Replica>(
        kData, config, std::move(*restored), 5'000,
        Replica::Environment{clock_, *store_, *this, *store_, *exchange_, *this});
    exchange_->set_replicas({{kData, replica_.get()}});
    store_->start(*this);
  }
  Site(const Site&) = delete;
  Site& operator=(const Site&) = delete;
  ~Site() override {
    sender_.reset();
    receiver_.reset();
    store_->stop();
    const std::lock_guard lock(mutex_);
    work_.clear();  // readers and writers are in it
  }

  [[nodiscard]] Store& store() { return *store_; }
  [[nodiscard]] SnapshotExchange& exchange() { return *exchange_; }
  [[nodiscard]] const raft::Raft& raft() const { return replica_->raft(); }
  [[nodiscard]] Index first_index() { return store_->log_stats(kData).first_index; }
  [[nodiscard]] Index last_index() const { return raft().log().last_index(); }
  // Where the snapshot that is kept ends.
  [[nodiscard]] std::optional<Index> kept() {
    const auto newest = store_->newest_snapshot(kData);
    if (!newest) return std::nullopt;
    return newest->snapshot.last_included_index;
  }

  // Virtual time goes on when nothing else happens.
  template <class Condition>
  [[nodiscard]] bool pass_until(Condition condition) {
    const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (std::chrono::steady_clock::now() < until) {
      const bool worked = turn(std::chrono::milliseconds(2));
      if (condition()) return true;
      if (!worked) tick();
    }
    return false;
  }
  void pass(std::uint64_t ms) {
    const std::uint64_t until = clock_.now + ms;
    while (clock_.now < until) {
      while (turn(std::chrono::milliseconds(1))) continue;
      tick(100);
    }
  }
  void lead() {
    REQUIRE(pass_until([&] { return raft().is_leader() && raft().last_applied() > Index{}; }));
  }
  // What a node that joins needs is not in the log any more.
  void outgrow(Index index) {
    REQUIRE(pass_until([&] { return first_index() > index; }));
  }
  // Node 2 takes part from now on.
  void add_follower() {
    REQUIRE(replica_->change_members({kSelf}, {kFollower}) == raft::ProposeStatus::kAccepted);
    REQUIRE(pass_until([&] { return raft().configuration().has(kFollower); }));
  }
  // So many values under keys of their own, applied and durable.
  void write(std::size_t count, std::size_t value_size_bytes) {
    for (std::size_t i = 0; i < count; ++i) {
      const std::string key = "k" + std::to_string(next_key_++);
      replica_->propose(set_operation(key, std::string(value_size_bytes, 'v')), deaf_);
      replica_->pump();
    }
    const Index last = last_index();
    REQUIRE(pass_until([&] { return raft().last_applied() >= last; }));
    replica_->propose(set_operation("k", "v"), deaf_);  // its sync makes that durable
    REQUIRE(pass_until([&] { return store_->log_stats(kData).applied_durable >= last; }));
  }
  [[nodiscard]] CallReply take_all() {
    std::optional<CallReply> taken;
    exchange_->take_all([&](const CallReply& reply) { taken = reply; });
    REQUIRE(pass_until([&] { return taken.has_value(); }));
    return *taken;
  }
  // Leadership goes and comes back between two ticks of the exchange.
  void lead_again() {
    const Term before = raft().current_term();
    replica_->receive({kFollower, kSelf, before + 1, raft::AppendEntries{}});
    const auto leads = [&] { return raft().is_leader() && raft().current_term() > before + 1; };
    for (int i = 0; i < 2'000 && !leads(); ++i) {
      clock_.now += kTickMs;
      replica_->tick();
      while (turn(std::chrono::milliseconds(2)) && !leads()) continue;
    }
    REQUIRE(leads());
  }
  void tick(std::uint64_t ms = kTickMs) {
    clock_.now += ms;
    replica_->tick();
    exchange_->tick();
  }

  Offered offered;
  bool follower_is_up = true;
  bool follower_lags = false;  // it hears of entries, and takes none
  Index follower_match;

  // ---- StoreEvents, on the store's threads
  void on_synced(GroupId group, std::uint64_t write_id) override {
    if (group == kData) post([this, write_id] { replica_->on_synced(write_id); });
  }
  void on_applied(GroupId, Index last, std::vector<Outcome> outcomes) override {
    post([this, last, outcomes = std::move(outcomes)] { replica_->on_applied(last, outcomes); });
  }
  void on_fetched(GroupId, NodeId peer, Term term, std::vector<raft::Entry> entries) override {
    post([this, peer, term, entries] { replica_->on_fetched(peer, term, entries); });
  }
  void on_log_cut(GroupId group, Index first_index) override {
    post([this, group, first_index] { exchange_->handle_log_cut(group, first_index); });
  }
  void on_installed(GroupId group, const MachineState&) override {
    post([this, group] { exchange_->installed(group); });
  }
  void on_storage_failed(std::string) override {}

  // ---- Transport: the follower's answers
  void send(GroupId, raft::Message message) override {
    const auto* append = std::get_if<raft::AppendEntries>(&message.body);
    if (append == nullptr || !follower_is_up) return;
    raft::AppendEntriesReply reply;
    reply.round = append->round;
    reply.success = append->prev_log_index <= follower_match;
    if (reply.success && !append->entries.empty() && follower_lags) return;
    if (reply.success) {
      follower_match = std::max(follower_match, append->prev_log_index + append->entries.size());
      reply.match_index = follower_match;
    } else {
      reply.rejected_index = append->prev_log_index;
      reply.conflict_index = follower_match + 1;
    }
    post([this, reply, term = message.term] {
      replica_->receive({kFollower, kSelf, term, reply});
    });
  }
  void leadership_changed(GroupId) override {}

 private:
  void start_peers() {
    const auto start = [this](std::uint64_t id, PeerEvents& events) {
      auto started = Peers::start(peer_tests::options_of(id, 0, {}), events, lines_.log);
      REQUIRE(started);
      return std::move(*started);
    };
    receiver_ = start(kFollower.value, offered);
    sender_ = start(kSelf.value, own_events_);
  }
  void post(std::function<void()> work) {
    {
      const std::lock_guard lock(mutex_);
      work_.push_back(std::move(work));
    }
    wake_.notify_one();
  }
  // What has come in; false: nothing did, for so long.
  bool turn(std::chrono::milliseconds patience) {
    replica_->pump();
    std::deque<std::function<void()>> work;
    {
      std::unique_lock lock(mutex_);
      wake_.wait_for(lock, patience, [this] { return !work_.empty(); });
      work.swap(work_);
    }
    for (const auto& each : work) {
      each();
      replica_->pump();
    }
    return !work.empty();
  }

  std::unique_ptr<rocksdb::Env> env_;
  VirtualClock clock_;
  Deaf deaf_;
  peer_tests::Lines lines_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::function<void()>> work_;
  Membership membership_{{kSelf, 11, "", "", "", false}, {{kSelf, "a:1"}, {kFollower, "b:2"}}};
  SystemMachine system_machine_;
  KeyValueMachine data_machine_;
  std::unique_ptr<Store> store_;
  peer_tests::Recorder own_events_{kSelf.value};
  std::unique_ptr<SnapshotExchange> exchange_;
  std::unique_ptr<Replica> replica_;
  std::unique_ptr<Peers> receiver_;
  std::unique_ptr<Peers> sender_;
  std::size_t next_key_ = 0;
};

// Directories that were made to build a snapshot in.
class Builds {
 public:
  explicit Builds(MemoryDisk& disk) {
    disk.set_hook([this](DiskOperation, const std::string& path) { return note(path); });
  }
  [[nodiscard]] std::size_t count() {
    const std::lock_guard lock(mutex_);
    return begun_.size();
  }
  void fail(bool fails) {
    const std::lock_guard lock(mutex_);
    fails_ = fails;
  }
  Gate gate;

 private:
  rocksdb::IOStatus note(const std::string& path) {
    const std::size_t at = path.find("/snapshots/building-");
    if (at == std::string::npos) return rocksdb::IOStatus::OK();
    {
      const std::lock_guard lock(mutex_);
      if (fails_) return rocksdb::IOStatus::IOError("no luck");
      begun_.insert(path.substr(0, path.find('/', at + 12)));
    }
    gate.pass();
    return rocksdb::IOStatus::OK();
  }

  std::mutex mutex_;
  bool fails_ = false;
  std::set<std::string> begun_;
};

// Of the snapshot that is kept, every file named so becomes what `change` makes of it.
void change_kept(MemoryDisk& disk, const std::string& extension,
                 const std::function<std::string(std::string)>& change) {
  for (const std::string& file : disk.files()) {
    if (file.find("/snapshots/1-") == std::string::npos || !file.ends_with(extension)) continue;
    disk.set_content(file, change(disk.content(file)));
  }
}

}  // namespace

// ---- Cutting ----------------------------------------------------------------------------------------

TEST_CASE("large values: the log is cut by its bytes, however few entries they are",
          "[snapshot][exchange]") {
  MemoryDisk disk;
  SnapshotExchange::Options options;
  options.snapshot_interval_bytes = 4 * kMegabyte;
  options.max_log_size_bytes = 6 * kMegabyte;
  Site site(disk, options);
  site.lead();
  SECTION("at the interval, where nobody needs it") {
    site.write(8, kMegabyte);
    CHECK(site.pass_until([&] { return site.first_index() > Index{3}; }));
  }
  SECTION("at the largest size, though a member that answers needs it") {
    site.follower_lags = true;
    site.add_follower();
    site.write(12, kMegabyte);
    CHECK(site.pass_until([&] { return site.first_index() > Index{3}; }));
  }
}

// ---- The log behind a snapshot that is on its way ---------------------------------------------------

TEST_CASE("a log that outgrows its bound keeps what follows a snapshot that is on its way",
          "[snapshot][exchange]") {
  MemoryDisk disk;
  Site site(disk, max_log_size(1 * kMegabyte));
  site.lead();
  site.write(60, 50 * kKilobyte);  // 3 MB of state
  site.outgrow(Index{30});
  site.add_follower();
  REQUIRE(site.pass_until([&] { return site.offered.indexes().size() == 1; }));
  const Index sent = site.offered.indexes().front();
  site.write(40, 50 * kKilobyte);
  site.pass(1'000);
  CHECK(site.first_index() <= sent);

  SECTION("until the follower has caught up behind it") {
    site.follower_lags = true;
    site.follower_match = sent;
    site.offered.answer_installed();
    site.write(5, 50 * kKilobyte);
    site.pass(15'000);
    CHECK(site.first_index() <= sent);
    site.follower_lags = false;
    CHECK(site.pass_until([&] { return site.follower_match == site.last_index(); }));
    CHECK(site.pass_until([&] { return site.first_index() > sent; }));
    CHECK(site.offered.indexes().size() == 1);
  }
  SECTION("until it has not been heard of for as long as logs are kept for anybody") {
    site.follower_is_up = false;
    site.pass(5'000);
    CHECK(site.first_index() <= sent);
    site.pass(10'000);
    CHECK(site.pass_until([&] { return site.first_index() > sent; }));
  }
  SECTION("unless the disk is about to be full") {
    disk.set_free_space(1);
    CHECK(site.pass_until([&] { return site.first_index() > sent; }));
  }
  SECTION("and not a byte more than the snapshot is large") {
    site.write(60, 50 * kKilobyte);
    CHECK(site.pass_until([&] { return site.first_index() > sent; }));
    CHECK(site.store().log_stats(kData).size_bytes > 3 * kMegabyte);
  }
}

TEST_CASE("a snapshot is asked for again while it is on its way: the log stays that it needs",
          "[snapshot][exchange]") {
  MemoryDisk disk;
  Site site(disk, every_entry());
  site.lead();
  site.write(20, 100);
  site.outgrow(Index{10});
  site.add_follower();
  REQUIRE(site.pass_until([&] { return site.offered.indexes().size() == 1; }));
  const Index sent = site.offered.indexes().front();
  site.write(20, 100);
  CHECK(site.raft().compactable_index() < sent);
  site.lead_again();
  REQUIRE(site.pass_until([&] {
    const auto peers = site.raft().peers();
    return !peers.empty() && peers.front().needs_snapshot;
  }));
  CHECK(site.raft().compactable_index() < sent);
  CHECK(site.offered.indexes().size() == 1);
}

// ---- Snapshots that are kept, and go ----------------------------------------------------------------

TEST_CASE("a snapshot that an administrator asked for stays; those for members go after use",
          "[snapshot][exchange]") {
  MemoryDisk disk;
  Builds builds(disk);
  Site site(disk, every_entry());
  site.lead();
  site.offered.does(Offered::Does::kTake);
  site.write(20, 100);
  site.outgrow(Index{10});
  SECTION("one that failed counts for nothing") {
    builds.fail(true);
    CHECK(site.take_all().status == CallStatus::kRefused);
    builds.fail(false);
    site.add_follower();
    REQUIRE(site.pass_until([&] { return !site.offered.indexes().empty(); }));
    CHECK(site.pass_until([&] { return !site.kept(); }));
  }
  SECTION("another one than it asked for goes") {
    CHECK(site.take_all().status == CallStatus::kAccepted);
    const Index asked = *site.kept();
    site.write(20, 100);
    site.outgrow(asked);
    site.add_follower();
    REQUIRE(site.pass_until([&] { return !site.offered.indexes().empty(); }));
    CHECK(site.offered.indexes().front() > asked);
    CHECK(site.pass_until([&] { return !site.kept(); }));
  }
  SECTION("the one that it asked for stays, however long nobody uses it") {
    CHECK(site.take_all().status == CallStatus::kAccepted);
    const auto asked = site.kept();
    site.pass(150'000);
    CHECK(site.kept() == asked);
  }
}

TEST_CASE("a member that waits gets the snapshot that is built for an administrator",
          "[snapshot][exchange]") {
  MemoryDisk disk;
  Builds builds(disk);
  Site site(disk, every_entry());
  site.lead();
  site.write(20, 100);
  site.outgrow(Index{10});
  builds.gate.shut();
  bool taken = false;
  site.exchange().take_all([&](const CallReply&) { taken = true; });
  REQUIRE(site.pass_until([&] { return builds.count() == 1; }));
  site.add_follower();
  site.pass(2'000);
  builds.gate.open();
  REQUIRE(site.pass_until([&] { return taken && !site.offered.indexes().empty(); }));
  site.pass(1'000);
  CHECK(builds.count() == 1);
}

TEST_CASE("a snapshot that nobody uses goes after a while", "[snapshot][exchange]") {
  MemoryDisk disk;
  SECTION("the member that it was built for refused it, and is gone") {
    Site site(disk, every_entry());
    site.offered.does(Offered::Does::kRefuse);
    site.lead();
    site.write(20, 100);
    site.outgrow(Index{10});
    site.add_follower();
    REQUIRE(site.pass_until([&] { return site.offered.indexes().size() > 1; }));
    CHECK(site.kept());
    site.follower_is_up = false;
    site.pass(30'000);
    CHECK(site.kept());
    const std::size_t offers = site.offered.indexes().size();
    site.pass(40'000);
    CHECK_FALSE(site.kept());
    site.pass(30'000);
    CHECK_FALSE(site.kept());  // nor is one built for who can't be reached
    CHECK(site.offered.indexes().size() == offers);
    site.follower_is_up = true;
    CHECK(site.pass_until([&] { return site.offered.indexes().size() > offers; }));
  }
  SECTION("it was there at the start") {
    {
      Site site(disk, every_entry());
      site.lead();
      site.write(20, 100);
      CHECK(site.take_all().status == CallStatus::kAccepted);
    }
    Site site(disk, every_entry());
    CHECK(site.kept());
    site.pass(50'000);
    CHECK(site.kept());
    site.pass(20'000);
    CHECK_FALSE(site.kept());
  }
}

TEST_CASE("a snapshot whose files are damaged is given up, and a new one is sent",
          "[snapshot][exchange]") {
  MemoryDisk disk;
  Site site(disk, every_entry());
  site.offered.does(Offered::Does::kRefuse);
  site.lead();
  site.write(200, kKilobyte);
  site.outgrow(Index{100});
  site.add_follower();
  REQUIRE(site.pass_until([&] { return !site.offered.indexes().empty(); }));
  SECTION("it can't be opened") {
    change_kept(disk, "/CURRENT", [](const std::string&) { return std::string("nothing\n"); });
  }
  SECTION("its rows can't be read") {
    change_kept(disk, ".sst", [](std::string table) {
      for (std::size_t at = 0; at < table.size() / 2; ++at) table[at] ^= 0x55;
      return table;
    });
  }
  site.offered.does(Offered::Does::kTake);
  CHECK(site.pass_until([&] { return site.offered.received() > 0; }));
}

// ---- A snapshot that comes in -----------------------------------------------------------------------

TEST_CASE(
    "a snapshot that a stream goes on with is not idle, whatever was heard of an older stream",
    "[snapshot][exchange]") {
  MemoryDisk disk;
  Site site(disk, never_by_size(), {kSelf, kFollower});  // which does not vote
  SnapshotOffer offer;
  offer.metadata.group = kData;
  offer.metadata.snapshot = {Index{50}, Term{3}, {{kSelf, kFollower}, {}, {}}, Index{1}};
  offer.message = {kData,
                   {kFollower, kSelf, Term{3}, raft::InstallSnapshot{offer.metadata.snapshot}}};
  std::shared_ptr<SnapshotWriter> writer;
  site.exchange().offered(offer, [&](const SnapshotAnswer& answer) { writer = answer.writer; });
  REQUIRE(site.pass_until([&] { return writer != nullptr; }));
  const std::weak_ptr<SnapshotWriter> same = writer;
  site.exchange().broken(kData, same.lock(), "the older stream's end, heard late");
  site.pass(70'000);
  CHECK(site.exchange().is_restoring(kData));
  site.exchange().broken(kData, same.lock(), "the newer one's end");
  writer = nullptr;
  site.pass(50'000);
  CHECK(site.exchange().is_restoring(kData));
  site.pass(20'000);
  CHECK_FALSE(site.exchange().is_restoring(kData));
}
