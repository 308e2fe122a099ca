// Chaos about disks: full, failing, frozen, slow, without power, wiped, rotten. Clients go on
// meanwhile, and what they saw has to be linearizable in the end.
//
// Full, frozen and powerless disks are real file systems (disks.hpp), which needs root; shims stand
// in for failing and slow ones.
#include <atomic>
#include <fstream>
#include <random>
#include <thread>

#include "chaos.hpp"
#include "disks.hpp"

namespace seshat::tests {
namespace {

namespace fs = std::filesystem;

// Free space is measured once a second, and told to the others once a second.
constexpr Milliseconds kNoticesSpace = 5s;

using Settings = std::map<std::string, std::string>;

// Three nodes, each with a disk of its own.
template <class Kind>
struct OnDisks {
  explicit OnDisks(const Settings& settings = {})
      : chaos({.started = false, .settings = settings}) {
    for (const int node : chaos.cluster.nodes()) disks[node].give_to(chaos.cluster, node);
  }
  std::map<int, Kind> disks;  // outlive the nodes
  Chaos chaos;
};

std::string ask_leader(Chaos& chaos, const Arguments& arguments) {
  Client client = chaos.cluster.client(chaos.cluster.leader());
  client.send(arguments);
  return client.receive();
}

// ---- The disks themselves -------------------------------------------------------------------------------

void write_file(const fs::path& path, const std::string& text, bool synced) {
  const Socket file(::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0644));
  REQUIRE(::write(file.fd(), text.data(), text.size()) == static_cast<ssize_t>(text.size()));
  if (synced) REQUIRE(::fsync(file.fd()) == 0);
}

TEST_CASE("disks for chaos: a power cut takes what was not synced, and nothing else", "[chaos]") {
  if (skips(no_disks_because())) return;
  LoopDisk disk;
  // The journal takes names along with any file that is synced: these come first.
  write_file(disk.data() / "synced", "yes", true);
  write_file(disk.data() / "half-synced", "first,", true);
  write_file(disk.data() / "not-synced", "no", false);
  {
    std::ofstream more(disk.data() / "half-synced", std::ios::app);
    more << " second";
  }
  disk.cut_power();
  CHECK_THROWS(write_text(disk.data() / "after", "the cut"));
  disk.restore_power();
  CHECK(read_text(disk.data() / "synced") == "yes");
  CHECK_FALSE(fs::exists(disk.data() / "not-synced"));
  CHECK(read_text(disk.data() / "half-synced") == "first,");
  CHECK_FALSE(fs::exists(disk.data() / "after"));
}

TEST_CASE("disks for chaos: a frozen disk holds its writer until it is thawed, a full one refuses",
          "[chaos]") {
  if (skips(no_disks_because())) return;
  LoopDisk disk;
  std::atomic<bool> written{false};
  std::thread writer;
  {
    LoopDisk::Frozen frozen = disk.freeze();
    writer = std::thread([&] {
      std::ofstream(disk.data() / "late") << "text";
      written = true;
    });
    CHECK_FALSE(eventually(300ms, [&] { return written.load(); }));
  }
  CHECK(eventually(5s, [&] { return written.load(); }));
  writer.join();
  disk.fill(64);
  CHECK(disk.free_kb() <= 64);
  CHECK_THROWS(write_text(disk.data() / "large", std::string(1 << 20, 'x')));
  disk.free_space();
  CHECK_NOTHROW(write_text(disk.data() / "large", std::string(1 << 20, 'x')));
}

// ---- 1. Full ----------------------------------------------------------------------------------------------

// Less than the 128 MB that the test below asks for, and enough for RocksDB, which reserves 70 MB for
// each new WAL.
constexpr std::uint64_t kLittleKb = 90 << 10;

bool notices_low_space(Chaos& chaos, int node) {
  return eventually(kNoticesSpace, [&] {
    const auto info = chaos.cluster.info(node, "persistence");
    return info && number(*info, "store_disk_low") == 1;
  });
}

void check_refuses_growth(Chaos& chaos) {
  const auto start = SteadyClock::now();
  Client client = chaos.cluster.client(chaos.cluster.leader());
  for (int i = 0; i < 50; ++i) {
    REQUIRE_THAT(client.ask("SET", "grows", "x"), StartsWith("-ERR disk full: "));
    REQUIRE(client.ask("DEL", "grows") == ":0");
    REQUIRE(client.ask("GET", "grows") == "(nil)");
  }
  report("50 SETs refused, 50 DELs and 50 GETs served, within ", since(start).count(), " ms");
  CHECK(since(start) < 5s);
}

bool becomes_full(Chaos& chaos, bool full) {
  return eventually(kNoticesSpace, [&] {
    const std::string reply = ask_leader(chaos, {"SET", "full?", "x"});
    return full ? reply.starts_with("-ERR disk full: ") : reply == "+OK";
  });
}

TEST_CASE(
    "chaos, little space left on a majority: SET is refused at once, the rest and elections go on",
    "[chaos]") {
  if (skips(no_disks_because())) return;
  OnDisks<LoopDisk> on(Settings{{"limits.min_free_disk_mb", "128"}});
  Chaos& chaos = on.chaos;
  chaos.start();
  const int leader = chaos.cluster.leader();
  const int follower = chaos.cluster.others(leader).front();
  const auto began = SteadyClock::now();
  chaos.fault("little space for the leader");
  on.disks.at(leader).fill(kLittleKb);
  REQUIRE(notices_low_space(chaos, leader));
  CHECK(ask_leader(chaos, {"SET", "one of three", "is low"}) == "+OK");
  chaos.fault("... and for a follower");
  on.disks.at(follower).fill(kLittleKb);
  REQUIRE(becomes_full(chaos, true));
  check_refuses_growth(chaos);
  chaos.fault("the leader is killed");
  chaos.cluster.kill(leader);
  (void)chaos.cluster.leader_after(leader);
  chaos.cluster.start(leader);
  REQUIRE(becomes_full(chaos, true));
  check_served(chaos, began, 2 * kFailover, "with two of three disks low, and another leader");
  for (const int node : {leader, follower}) on.disks.at(node).free_space();
  CHECK(becomes_full(chaos, false));
  chaos.finish();
}

// The node ends and says why.
void check_ended(Cluster& cluster, int node) {
  const std::optional<ExitStatus> status = cluster.process(node).wait(5s);
  REQUIRE(status);
  if (was_aborted_by_rocksdb(cluster, node, *status)) return;
  CHECK(*status == ExitStatus{1, 0});
  CHECK_THAT(cluster.log(node),
             ContainsSubstring("this node stops") && ContainsSubstring("No space left on device"));
}

void fill_up(OnDisks<SmallTmpfs>& on, const std::vector<int>& nodes) {
  for (const int node : nodes) on.disks.at(node).fill(0);
  for (const int node : nodes) check_ended(on.chaos.cluster, node);
}

void free_up(OnDisks<SmallTmpfs>& on, const std::vector<int>& nodes) {
  for (const int node : nodes) {
    on.disks.at(node).free_space();
    on.chaos.cluster.start(node);
  }
  CHECK(on.chaos.cluster.caught_up());
  for (const int node : nodes) CHECK(on.chaos.cluster.running(node));
}

TEST_CASE(
    "chaos, no space left at all: a node ends and says why, and goes on when there is space again",
    "[chaos]") {
  if (skips(no_disks_because())) return;
  OnDisks<SmallTmpfs> on(Settings{{"limits.min_free_disk_mb", "0"}});
  Chaos& chaos = on.chaos;
  chaos.start();
  const int follower = chaos.cluster.followers().front();
  auto began = SteadyClock::now();
  chaos.fault("no space for a follower");
  Unnoticed unnoticed(chaos);
  fill_up(on, {follower});
  unnoticed.check("a follower's disk is full");
  free_up(on, {follower});
  const int leader = chaos.cluster.leader();
  began = SteadyClock::now();
  chaos.fault("no space for the leader");
  fill_up(on, {leader});
  check_served(chaos, began, kFailover, "the leader's disk is full");
  free_up(on, {leader});
  chaos.fault("no space for two, the leader one of them");
  const int last = chaos.cluster.leader();
  fill_up(on, {last, chaos.cluster.others(last).front()});
  free_up(on, {last, chaos.cluster.others(last).front()});
  chaos.finish();
}

// RocksDB reserves room for its log: more than this disk has.
TEST_CASE("a node on a disk with little space starts, writes, and starts again after kill -9",
          "[chaos]") {
  if (skips(no_disks_because())) return;
  LoopDisk disk(64);
  Cluster cluster({.nodes = 1, .started = false, .settings = {{"limits.min_free_disk_mb", "16"}}});
  disk.give_to(cluster, 1);
  for (int round = 0; round < 3; ++round) {
    cluster.start(1);
    CHECK(cluster.cluster_client().ask("SET", "k" + std::to_string(round), "v") == "+OK");
    CHECK(disk.free_kb() > 32'000);
    cluster.kill(1);
  }
  cluster.start(1);
  for (int round = 0; round < 3; ++round) {
    CHECK(cluster.cluster_client().ask("GET", "k" + std::to_string(round)) == "v");
  }
}

// ---- 2. Failing ---------------------------------------------------------------------------------------------

TEST_CASE("chaos, an fsync of the leader fails: it ends, another leads within 2 s", "[chaos]") {
  const TempDir dir;
  Chaos chaos({.started = false});
  const auto failure_of = [&](int node) {
    return dir.path() / ("fails-on-" + std::to_string(node));
  };
  for (const int node : chaos.cluster.nodes()) {
    chaos.cluster.set_variables(node, {{"LD_PRELOAD", shim("failing_fsync")},
                                       {"SESHAT_FSYNC_FAILS_IF", failure_of(node).string()}});
  }
  chaos.start();
  chaos.start_transactions();
  for (int round = 0; round < 2; ++round) {
    const int leader = chaos.cluster.leader();
    const auto began = SteadyClock::now();
    chaos.fault("the leader's disk fails");
    write_text(failure_of(leader), "");
    CHECK(chaos.cluster.process(leader).wait(5s) == ExitStatus{1, 0});
    CHECK_THAT(chaos.cluster.log(leader), ContainsSubstring("Input/output error"));
    (void)chaos.cluster.leader_after(leader);
    check_served(chaos, began, kFailover, "the leader's disk failed");
    fs::remove(failure_of(leader));
    chaos.cluster.start(leader);
    CHECK(chaos.cluster.caught_up());
  }
  chaos.finish();
}

// ---- 3. Frozen ----------------------------------------------------------------------------------------------

// A leader notices after a maximum election timeout, and has as long to hand over.
constexpr Milliseconds kStallBound = 2 * kMaxElectionTimeout + kFailover;

// Nobody who asks the node whose disk stands still waits for longer than the bound.
void check_answers_in_time(Chaos& chaos, int node) {
  const auto start = SteadyClock::now();
  Client writer = chaos.cluster.client(node);
  Client reader = chaos.cluster.client(node);
  writer.send({"SET", "asked of", "the frozen one"});
  reader.send({"GET", "asked of"});
  CHECK(chaos.cluster.client(node).ask("PING") == "+PONG");
  const std::string written = writer.receive();
  const std::string read = reader.receive();
  report("the frozen node answered '", written.substr(0, 25), "...' and '", read.substr(0, 10),
         "...' within ", since(start).count(), " ms");
  CHECK_THAT(written, StartsWith("-"));
  CHECK(since(start) < kStallBound);
}

TEST_CASE("chaos, a frozen disk: the leader hands over within 4 s, a follower's is not noticed",
          "[chaos]") {
  if (skips(no_disks_because())) return;
  OnDisks<LoopDisk> on;
  Chaos& chaos = on.chaos;
  chaos.start();
  chaos.start_transactions();
  const int leader = chaos.cluster.leader();
  {
    const auto began = SteadyClock::now();
    chaos.fault("the leader's disk freezes");
    const LoopDisk::Frozen frozen = on.disks.at(leader).freeze();
    check_answers_in_time(chaos, leader);
    (void)chaos.cluster.leader_after(leader);
    check_served(chaos, began, kStallBound, "the leader's disk was frozen");
  }
  CHECK(chaos.cluster.caught_up());
  const int follower = chaos.cluster.followers().front();
  {
    const auto began = SteadyClock::now();
    chaos.fault("a follower's disk freezes");
    Unnoticed unnoticed(chaos);
    const LoopDisk::Frozen frozen = on.disks.at(follower).freeze();
    const std::uint64_t durable =
        chaos.cluster.figure(follower, "raft", "raft_group_1_durable_index");
    REQUIRE(eventually(6s, [&] { return since(began) > 2 * kMaxElectionTimeout; }));
    CHECK(chaos.cluster.figure(follower, "raft", "raft_group_1_durable_index") <= durable);
    unnoticed.check("a follower's disk was frozen");
  }
  chaos.finish();
}

// ---- 4. Without power -----------------------------------------------------------------------------------------

void cut_power(OnDisks<LoopDisk>& on, const std::vector<int>& nodes) {
  for (const int node : nodes) on.disks.at(node).cut_power();
  on.chaos.cluster.kill(nodes);
  for (const int node : nodes) on.disks.at(node).restore_power();
}

void start_again(OnDisks<LoopDisk>& on, const std::vector<int>& nodes) {
  for (const int node : nodes) on.chaos.cluster.start(node);
  CHECK(on.chaos.cluster.caught_up());
  for (const int node : nodes) REQUIRE(on.chaos.cluster.running(node));
}

TEST_CASE(
    "chaos, power failure of the leader, of a follower and of all: nothing that was synced is lost",
    "[chaos]") {
  if (skips(no_disks_because())) return;
  OnDisks<LoopDisk> on;
  Chaos& chaos = on.chaos;
  chaos.start();
  chaos.start_transactions();
  const int leader = chaos.cluster.leader();
  auto began = SteadyClock::now();
  chaos.fault("the leader loses power");
  cut_power(on, {leader});
  check_served(chaos, began, kFailover, "the leader lost power");
  start_again(on, {leader});
  const int follower = chaos.cluster.followers().front();
  began = SteadyClock::now();
  chaos.fault("a follower loses power");
  Unnoticed unnoticed(chaos);
  cut_power(on, {follower});
  unnoticed.check("a follower lost power");
  start_again(on, {follower});
  for (int round = 0; round < 2; ++round) {
    REQUIRE(chaos.load->await_writes(200));
    began = SteadyClock::now();
    chaos.fault("all lose power");
    cut_power(on, chaos.cluster.nodes());
    start_again(on, chaos.cluster.nodes());
    check_served(chaos, began, 8s, "all lost power and were started again");
  }
  chaos.finish();
}

// Writes that come one by one are written by the thread that takes in what the leader sends.
TEST_CASE("chaos, a single client, and a follower whose disk freezes or loses power: not noticed",
          "[chaos]") {
  if (skips(no_disks_because())) return;
  OnDisks<LoopDisk> on;
  Chaos& chaos = on.chaos;
  chaos.start(RecordedLoad::Clients::kOne);
  const auto holds = [&](int node) {
    const auto held = [&] {
      return chaos.cluster.figure(node, "persistence", "store_held_writes");
    };
    const std::uint64_t before = held();
    return eventually(10s, [&] { return held() > before + 20; });
  };
  const int follower = chaos.cluster.followers().front();
  for (int round = 0; round < 3; ++round) {
    REQUIRE(holds(follower));
    const auto began = SteadyClock::now();
    chaos.fault("a follower's disk freezes");
    Unnoticed unnoticed(chaos);
    const LoopDisk::Frozen frozen = on.disks.at(follower).freeze();
    REQUIRE(eventually(6s, [&] { return since(began) > 2 * kMaxElectionTimeout; }));
    // It hears the leader, or it would not know of any by now.
    CHECK_THAT(chaos.cluster.client(follower).ask("GET", "k"), StartsWith("-MOVED "));
    unnoticed.check("a follower's disk was frozen");
  }
  REQUIRE(holds(follower));
  chaos.fault("a follower loses power");
  Unnoticed unnoticed(chaos);
  cut_power(on, {follower});
  unnoticed.check("a follower lost power");
  start_again(on, {follower});
  for (const int node : chaos.cluster.followers()) REQUIRE(holds(node));
  const auto began = SteadyClock::now();
  chaos.fault("all lose power");
  cut_power(on, chaos.cluster.nodes());
  start_again(on, chaos.cluster.nodes());
  check_served(chaos, began, 8s, "all lost power and were started again");
  chaos.finish();
}

// ---- 5. Slow --------------------------------------------------------------------------------------------------

TEST_CASE("chaos, fsync takes 200 ms on one node: no pause, and a follower's is not noticed",
          "[chaos]") {
  const TempDir dir;
  Chaos chaos({.started = false});
  const auto slow = [&](int node) { return dir.path() / ("slow-" + std::to_string(node)); };
  for (const int node : chaos.cluster.nodes()) {
    chaos.cluster.set_variables(node, {{"LD_PRELOAD", shim("slow_fsync")},
                                       {"SESHAT_FSYNC_DELAY_MS", "200"},
                                       {"SESHAT_FSYNC_DELAY_WHILE", slow(node).string()}});
  }
  chaos.start();
  chaos.start_transactions();
  // What is acknowledged in 2 s.
  const auto slowed = [&](int node, const std::string& whose) {
    Unnoticed unnoticed(chaos);
    const std::size_t before = chaos.load->acknowledged_writes();
    const auto began = SteadyClock::now();
    chaos.fault("slow fsync: " + whose);
    write_text(slow(node), "");
    REQUIRE(eventually(6s, [&] { return since(began) > 2s; }));
    const std::size_t writes = chaos.load->acknowledged_writes() - before;
    report(writes, " writes in ", since(began).count(), " ms");
    fs::remove(slow(node));
    unnoticed.check("slow: " + whose);
    REQUIRE(chaos.cluster.caught_up());
    return writes;
  };
  // A leader answers when the write is on its own disk, too: 2 to 5 rounds a second, of the
  // 9 clients that write.
  const std::size_t of_leader = slowed(chaos.cluster.leader(), "the leader's");
  CHECK(of_leader >= 4);
  CHECK(of_leader < 2 * 5 * 9 + 9);
  CHECK(slowed(chaos.cluster.followers().front(), "a follower's") > 200);
  chaos.finish();
}

// ---- 6. Wiped -------------------------------------------------------------------------------------------------

TEST_CASE("chaos, a wiped node under load is refused and elects nobody; its old data bring it back",
          "[chaos]") {
  const TempDir kept;
  Chaos chaos;
  const int leader = chaos.cluster.leader();
  const int wiped = chaos.cluster.others(leader).front();
  Unnoticed unnoticed(chaos);
  chaos.fault("a follower loses its data");
  chaos.cluster.kill(wiped);
  fs::copy(chaos.cluster.data_dir(wiped), kept.path() / "data", fs::copy_options::recursive);
  chaos.cluster.wipe(wiped);
  chaos.cluster.start(wiped);
  CHECK(chaos.cluster.log_says(wiped, "put its old data directory back"));
  unnoticed.check("a node was wiped");
  chaos.fault("the leader is killed: two are left, one of them wiped");
  chaos.cluster.kill(leader);
  CHECK_FALSE(eventually(3s, [&] { return chaos.cluster.leader_now().has_value(); }));
  chaos.cluster.start(leader);
  REQUIRE(chaos.load->await_writes(100));
  chaos.cluster.kill(wiped);
  chaos.cluster.wipe(wiped);
  fs::copy(kept.path() / "data", chaos.cluster.data_dir(wiped), fs::copy_options::recursive);
  chaos.cluster.start(wiped);
  CHECK(chaos.cluster.caught_up());
  chaos.finish();
}

// ---- 7. Rotten ------------------------------------------------------------------------------------------------

std::vector<fs::path> files(Chaos& chaos, int node, const std::string& extension) {
  std::vector<fs::path> found;
  for (const auto& entry : fs::directory_iterator(chaos.cluster.data_dir(node) / "rocksdb")) {
    if (entry.path().extension() == extension) found.push_back(entry.path());
  }
  std::sort(found.begin(), found.end());  // the newest last: names are numbers of one length
  return found;
}

// Turns every bit of 16 bytes over; once more, and all is well again.
void flip(const fs::path& file, std::size_t at) {
  std::string text = read_text(file);
  REQUIRE(text.size() > at + 16);
  for (std::size_t i = at; i < at + 16; ++i) text[i] = static_cast<char>(~text[i]);
  write_text(file, text);
}

// It must not start, and say why in such words.
void check_refuses_to_start(Chaos& chaos, int node, const std::string& words) {
  const std::size_t said = chaos.cluster.log(node).size();
  chaos.cluster.start(node);
  CHECK(chaos.cluster.process(node).wait(10s) == ExitStatus{1, 0});
  const std::string log = chaos.cluster.log(node).substr(said);
  CHECK_THAT(log, ContainsSubstring("could not start") && ContainsSubstring(words));
}

TEST_CASE("chaos, bit rot in a WAL or a table: the node does not start, and says why", "[chaos]") {
  Chaos chaos;
  REQUIRE(chaos.load->await_writes(300));
  const int node = chaos.cluster.followers().front();
  chaos.fault("rot in the middle of a follower's WAL");
  Unnoticed unnoticed(chaos);
  chaos.cluster.kill(node);
  const fs::path wal = files(chaos, node, ".log").back();
  flip(wal, fs::file_size(wal) / 2);
  check_refuses_to_start(chaos, node, "synced data is missing or damaged");
  unnoticed.check("a follower's WAL is rotten");
  flip(wal, fs::file_size(wal) / 2);
  chaos.cluster.start(node);
  CHECK(chaos.cluster.caught_up());
  // Stopped in good order, a node has all its data in tables.
  chaos.fault("rot in a follower's tables");
  chaos.cluster.process(node).terminate();
  CHECK(chaos.cluster.process(node).wait(10s) == ExitStatus{0, 0});
  const std::vector<fs::path> tables = files(chaos, node, ".sst");
  REQUIRE_FALSE(tables.empty());
  for (const fs::path& table : tables) flip(table, fs::file_size(table) / 4);
  check_refuses_to_start(chaos, node, "orruption");
  for (const fs::path& table : tables) flip(table, fs::file_size(table) / 4);
  chaos.cluster.start(node);
  CHECK(chaos.cluster.caught_up());
  chaos.finish();
}

// Nothing that compression could shorten: it stands in a table as it is.
std::string noise(std::size_t size_bytes, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  std::string bytes;
  while (bytes.size() < size_bytes) bytes.push_back(static_cast<char>(random() >> 56));
  return bytes;
}

// Wherever `text` stands in a table of a stopped node.
void flip_in_tables(Chaos& chaos, int node, const std::string& text) {
  std::size_t found = 0;
  for (const fs::path& table : files(chaos, node, ".sst")) {
    const std::size_t at = read_text(table).find(text);
    if (at == std::string::npos) continue;
    flip(table, at);
    ++found;
  }
  REQUIRE(found > 0);
}

// It alone has all entries, beside the leader, which then dies.
void make_leader(Chaos& chaos, int node) {
  const int leader = chaos.cluster.leader();
  for (const int other : chaos.cluster.others(leader)) {
    if (other != node) chaos.network.isolate(other);
  }
  REQUIRE(chaos.load->await_writes(50));
  chaos.cluster.kill(leader);
  chaos.network.heal();
  REQUIRE(chaos.cluster.leader_after(leader) == node);
  chaos.cluster.start(leader);
}

TEST_CASE("chaos, bit rot in a table that a leader reads: it ends, and another serves", "[chaos]") {
  Chaos chaos;
  const std::string cold = noise(60'000, 1);
  const std::string part = cold.substr(30'000, 16);  // what flip() takes
  std::string flipped = part;
  for (char& c : flipped) c = static_cast<char>(~c);
  ClusterClient client = chaos.cluster.cluster_client();
  REQUIRE(client.ask("SET", "cold", cold) == "+OK");
  // More than a node reads back when it starts (4 MB): it must not find the damage then.
  for (std::uint64_t i = 2; i < 90; ++i) {
    REQUIRE(client.ask("SET", "later" + std::to_string(i), noise(60'000, i)) == "+OK");
  }
  REQUIRE(chaos.cluster.caught_up());
  const int rotten = chaos.cluster.followers().front();
  chaos.fault("rot in a follower's tables");
  chaos.cluster.process(rotten).terminate();
  REQUIRE(chaos.cluster.process(rotten).wait(10s) == ExitStatus{0, 0});
  flip_in_tables(chaos, rotten, part);
  chaos.cluster.start(rotten);
  REQUIRE(chaos.cluster.caught_up());
  chaos.fault("... which has to lead");
  make_leader(chaos, rotten);
  const auto began = SteadyClock::now();
  // An error, or the end of the connection if the node ends first.
  const Attempt made = ClusterClient({chaos.cluster.port(rotten)}).attempt({"GET", "cold"}, 5s);
  report("the leader with the damage answered '", made.reply.substr(0, 60), "'");
  CHECK(made.outcome != Attempt::Outcome::kAnswered);
  CHECK(chaos.cluster.process(rotten).wait(5s) == ExitStatus{1, 0});
  CHECK_THAT(chaos.cluster.log(rotten), ContainsSubstring("orruption"));
  CHECK(chaos.cluster.cluster_client().ask("GET", "cold") == cold);
  check_served(chaos, began, kFailover, "the leader met damage");
  chaos.cluster.kill(rotten);
  flip_in_tables(chaos, rotten, flipped);
  chaos.cluster.start(rotten);
  CHECK(chaos.cluster.caught_up());
  chaos.finish();
}

}  // namespace
}  // namespace seshat::tests
