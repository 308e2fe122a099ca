// row_cache.hpp: what it finds, what it forgets, and that a read that a write overtook keeps nothing.
#include "seshat/row_cache.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <string>
#include <thread>

#include "catch.hpp"
#include "seshat/row_table.hpp"

namespace seshat {
namespace {

constexpr std::size_t kRoom = 8 << 20;

std::string read(RowCache& cache, const std::string& key) {
  std::string value;
  return cache.get(key, value) ? value : "(unknown)";
}

void write(RowCache& cache, const std::string& key, const std::string& value) {
  RowTable rows;
  rows.at(key).set(value);
  cache.wrote(rows);
}

void erase(RowCache& cache, const std::string& key) {
  RowTable rows;
  rows.at(key).erase();
  cache.wrote(rows);
}

TEST_CASE("what was read or written is found", "[row_cache]") {
  RowCache cache(kRoom);
  CHECK(read(cache, "read") == "(unknown)");
  cache.keep("read", "1", cache.version());
  write(cache, "written", "2");
  write(cache, "empty", "");
  CHECK(read(cache, "read") == "1");
  CHECK(read(cache, "written") == "2");
  CHECK(read(cache, "empty").empty());
  write(cache, "read", "3");
  CHECK(read(cache, "read") == "3");
}

TEST_CASE("of what was erased nothing is known, until it is there again", "[row_cache]") {
  RowCache cache(kRoom);
  erase(cache, "k");
  CHECK(read(cache, "k") == "(unknown)");
  write(cache, "k", "1");
  erase(cache, "k");
  CHECK(read(cache, "k") == "(unknown)");
  cache.keep("k", "2", cache.version());
  CHECK(read(cache, "k") == "2");
}

TEST_CASE("a read that began before a write keeps nothing", "[row_cache]") {
  RowCache cache(kRoom);
  const std::uint64_t version = cache.version();
  write(cache, "k", "new");
  cache.keep("k", "old", version);
  CHECK(read(cache, "k") == "new");
  erase(cache, "k");
  cache.keep("k", "new", version + 1);
  CHECK(read(cache, "k") == "(unknown)");
}

TEST_CASE("a row too large to keep is not mistaken for the one before", "[row_cache]") {
  RowCache cache(kRoom);
  write(cache, "k", "small");
  write(cache, "k", std::string(kRoom / 256, 'x'));
  CHECK(read(cache, "k") == "(unknown)");
  cache.keep("k", std::string(kRoom / 256, 'x'), cache.version());
  CHECK(read(cache, "k") == "(unknown)");
}

TEST_CASE("memory is bounded, and what is asked for stays", "[row_cache]") {
  RowCache cache(kRoom);
  write(cache, "asked for", "1");
  const std::string value(300, 'v');
  std::size_t most_bytes = 0;
  for (int i = 0; i < 200'000; ++i) {
    cache.keep("key " + std::to_string(i), value, cache.version());
    if (i % 100 == 0) CHECK(read(cache, "asked for") == "1");
    most_bytes = std::max(most_bytes, cache.size_bytes());
  }
  CHECK(most_bytes <= kRoom + kRoom / 8);
  CHECK(most_bytes > kRoom / 2);
  CHECK(read(cache, "key 0") == "(unknown)");
  CHECK(read(cache, "key 199999") == value);
}

TEST_CASE("what was erased does not come back when tables go", "[row_cache]") {
  RowCache cache(kRoom);
  write(cache, "k", "1");
  int i = 0;
  const auto fill = [&](int count) {
    for (const int end = i + count; i < end; ++i) {
      cache.keep("key " + std::to_string(i), std::string(300, 'v'), cache.version());
    }
  };
  fill(12'000);  // its table is the old one by now, or nearly
  CHECK(read(cache, "k") == "1");
  erase(cache, "k");
  for (int round = 0; round < 10; ++round) {
    CHECK(read(cache, "k") == "(unknown)");
    fill(3'000);
  }
}

TEST_CASE("without room nothing is kept", "[row_cache]") {
  RowCache cache(0);
  write(cache, "k", "1");
  cache.keep("k", "1", cache.version());
  CHECK(read(cache, "k") == "(unknown)");
  CHECK(cache.size_bytes() == 0);
}

// The map below is an array of numbers. Numbers of a key only grow, so that a stale read shows.
TEST_CASE("readers beside a writer never see what is over", "[row_cache][threads]") {
  constexpr std::size_t kKeys = 16;
  RowCache cache(kRoom);
  std::mutex below_mutex;
  std::array<std::uint64_t, kKeys> below{};
  std::array<std::atomic<std::uint64_t>, kKeys> done{};  // what every later read must see
  std::atomic<bool> stopping{false};
  std::atomic<std::uint64_t> stale{0}, hits{0};
  const auto reader = [&](std::size_t at) {
    std::string value;
    for (; !stopping; at = (at + 7) % kKeys) {
      const std::string key = std::to_string(at);
      const std::uint64_t expected = done[at];
      if (cache.get(key, value)) {
        ++hits;
      } else {
        const std::uint64_t version = cache.version();
        {
          const std::lock_guard lock(below_mutex);
          value = std::to_string(below[at]);
        }
        std::this_thread::yield();
        cache.keep(key, value, version);
      }
      if (std::stoull(value) < expected) ++stale;
    }
  };
  std::thread one(reader, 0), two(reader, 3);
  for (std::uint64_t number = 1; number <= 30'000 || (hits == 0 && number < 30'000'000); ++number) {
    RowTable rows;
    const std::size_t at = number % kKeys;
    {
      const std::lock_guard lock(below_mutex);
      below[at] = number;
    }
    if (number % 3 == 0) {
      rows.at(std::to_string(at)).erase();  // as if forgotten: the next read asks below
    } else {
      rows.at(std::to_string(at)).set(std::to_string(number));
    }
    cache.wrote(rows);
    done[at] = number;
  }
  stopping = true;
  one.join();
  two.join();
  CHECK(stale == 0);
  CHECK(hits > 0);
}

}  // namespace
}  // namespace seshat
