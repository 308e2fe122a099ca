#include "seshat/durable_mark.hpp"

#include <string>

#include "catch.hpp"
#include "memory_disk.hpp"

using namespace seshat;
using namespace seshat::tests;

namespace {

constexpr const char* kPath = "/mark";

std::uint64_t mark_on(MemoryDisk& disk) {
  const auto env = disk.env();
  const auto mark = DurableMark::open(*env, kPath);
  INFO((mark ? "" : mark.error().text));
  REQUIRE(mark);
  return mark->sequence();
}

}  // namespace

TEST_CASE("a new mark promises nothing", "[durable_mark]") {
  MemoryDisk disk;
  CHECK(mark_on(disk) == 0);
  CHECK(disk.files() == std::vector<std::string>{kPath});
}

TEST_CASE("the bytes of a mark are those of the worked example", "[durable_mark]") {
  MemoryDisk disk;
  const auto env = disk.env();
  auto mark = DurableMark::open(*env, kPath);
  REQUIRE((mark && mark->advance(300)));
  const std::string content = disk.content(kPath);
  const std::string slot = content.substr(4096);
  const std::string expected(
      "\x53\x45\x53\x48\x4d\x41\x52\x4b\x01\x00\x00\x00\x2c\x01\x00\x00\x00\x00\x00\x00"
      "\x3d\x12\x93\x3d\x8e\x4f\xe4\xc5",
      28);
  CHECK((slot == expected || content.substr(0, 28) == expected));
}

TEST_CASE("a mark never goes back", "[durable_mark]") {
  MemoryDisk disk;
  const auto env = disk.env();
  auto mark = DurableMark::open(*env, kPath);
  REQUIRE((mark->advance(10) && mark->advance(7)));
  CHECK(mark->sequence() == 10);
  REQUIRE(mark->sync());
  CHECK(mark_on(disk) == 10);
}

TEST_CASE(
    "after a power cut at any operation the mark is one that was written, and not older than "
    "the one synced last",
    "[durable_mark]") {
  for (std::uint64_t cut_at = 1; cut_at < 45; ++cut_at) {
    for (std::uint64_t seed = 0; seed < 16; ++seed) {
      MemoryDisk disk;
      disk.cut_power_at(cut_at, seed);
      const auto env = disk.env();
      std::uint64_t synced = 0;
      std::uint64_t written = 0;
      {
        auto mark = DurableMark::open(*env, kPath);
        REQUIRE(mark);
        while (!disk.is_off()) {
          ++written;
          REQUIRE(mark->advance(written));
          if (written % 3 == 0) REQUIRE(mark->sync());
          if (written % 3 == 0 && !disk.is_off()) synced = written;
        }
      }
      MemoryDisk after = disk.after_cut();
      const std::uint64_t found = mark_on(after);
      INFO("cut at " << cut_at << ", seed " << seed);
      CHECK(found >= synced);
      CHECK(found <= written);
    }
  }
}

TEST_CASE("a mark without a readable slot is refused, one slot is enough", "[durable_mark]") {
  MemoryDisk disk;
  const auto env = disk.env();
  {
    auto mark = DurableMark::open(*env, kPath);
    REQUIRE((mark->advance(5) && mark->sync() && mark->advance(6)));
  }
  std::string content = disk.content(kPath);
  const std::size_t newer = content.compare(12, 1, "\x06") == 0 ? 0 : 4096;
  content[newer + 14] ^= 1;
  disk.set_content(kPath, content);
  CHECK(mark_on(disk) == 5);
  content[(4096 - newer) + 14] ^= 1;
  disk.set_content(kPath, content);
  const auto mark = DurableMark::open(*env, kPath);
  REQUIRE_FALSE(mark);
  CHECK_THAT(mark.error().text, ContainsSubstring("/mark is damaged"));
}

TEST_CASE("a failed write or sync of the mark is an error that names it", "[durable_mark]") {
  MemoryDisk disk;
  const auto env = disk.env();
  auto mark = DurableMark::open(*env, kPath);
  REQUIRE(mark->advance(1));
  disk.set_hook(
      [](DiskOperation, const std::string&) { return rocksdb::IOStatus::IOError("bad"); });
  const auto advanced = mark->advance(2);
  const auto synced = mark->sync();
  REQUIRE_FALSE(advanced);
  REQUIRE_FALSE(synced);
  CHECK_THAT(advanced.error().text, ContainsSubstring("could not write /mark"));
  CHECK_THAT(synced.error().text, ContainsSubstring("could not sync /mark"));
}
