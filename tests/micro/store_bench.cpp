// Through the real store, on the file system of the temporary directory (TMPDIR): a log batch takes an
// fsync, a batch that is applied takes none. With the way to the store's threads and back.
#include "seshat/store.hpp"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "micro/benchmark.hpp"
#include "micro/samples.hpp"
#include "store_harness.hpp"

using namespace seshat;
using namespace seshat::tests;

namespace {

class Disk {
 public:
  Disk() {
    auto opened = Store::open(options_for(dir_ / "data"));
    REQUIRE(opened);
    store_ = std::move(*opened);
    REQUIRE(store_->restore(kSystem, system_));
    REQUIRE(store_->restore(kData, data_));
    store_->start(listener_);
  }
  Disk(const Disk&) = delete;
  Disk& operator=(const Disk&) = delete;
  ~Disk() { store_.reset(); }  // before whom it calls back

  // The next entries of the log; each is to be appended before those that are made after it.
  [[nodiscard]] std::vector<raft::Entry> make(std::size_t count) {
    std::vector<raft::Entry> made = micro::entries(next_, count);
    next_ = next_ + count;
    return made;
  }
  bool append(std::vector<raft::Entry> entries) {
    raft::Write write;
    write.id = next_write_id_++;
    write.entries = std::move(entries);
    const std::uint64_t id = write.id;
    store_->append(kData, std::move(write));
    return listener_.wait_synced(kData, id);
  }
  bool apply(std::vector<raft::Entry> entries) {
    const Index last = entries.back().index;
    store_->apply(kData, std::move(entries));
    return listener_.wait_applied(kData, last);
  }

 private:
  TemporaryDir dir_;
  Listener listener_;
  SystemMachine system_;
  KeyValueMachine data_;
  std::unique_ptr<Store> store_;
  Index next_{1};
  std::uint64_t next_write_id_ = 1;
};

using Batches = std::vector<std::vector<raft::Entry>>;

Batches batches(Disk& disk, int count, std::size_t size) {
  Batches made;
  for (int i = 0; i < count; ++i) made.push_back(disk.make(size));
  return made;
}

std::string of_entries(const std::string& what, std::size_t size) {
  return what + " " + std::to_string(size) + (size == 1 ? " entry" : " entries");
}

}  // namespace

TEST_CASE("batches of the log", "[store]") {
  Disk disk;
  for (const std::size_t size : {1, 16, 256}) {
    BENCHMARK_ADVANCED(of_entries("append and sync", size))(Catch::Benchmark::Chronometer meter) {
      Batches made = batches(disk, meter.runs(), size);
      meter.measure([&](int run) { return disk.append(std::move(made[run])); });
    };
  }
}

TEST_CASE("batches of the state machine", "[store]") {
  Disk disk;
  for (const std::size_t size : {1, 16, 256}) {
    BENCHMARK_ADVANCED(of_entries("apply", size))(Catch::Benchmark::Chronometer meter) {
      Batches made = batches(disk, meter.runs(), size);
      for (const auto& entries : made) REQUIRE(disk.append(entries));
      meter.measure([&](int run) { return disk.apply(std::move(made[run])); });
    };
  }
}
