// What a map of one family answers when it may not wait for the disk.
#include "seshat/store_map.hpp"

#include <rocksdb/db.h>
#include <unistd.h>

#include <filesystem>
#include <memory>
#include <string>

#include "catch.hpp"

namespace seshat {
namespace {

struct OpenDatabase {
  explicit OpenDatabase(const std::string& path) {
    rocksdb::Options options;
    options.create_if_missing = true;
    options.disable_auto_compactions = true;
    // A quarter of what is left when RocksDB has taken its own are opened at the start: two tables.
    options.max_open_files = 20;
    rocksdb::DB* opened = nullptr;
    REQUIRE(rocksdb::DB::Open(options, path, &opened).ok());
    db.reset(opened);
  }
  [[nodiscard]] StoreMap map(ReadFrom from) const {
    return {*db, *db->DefaultColumnFamily(), from};
  }
  std::unique_ptr<rocksdb::DB> db;
};

TEST_CASE(
    "a key in a table that is not open is not in memory: nobody finds an empty value, or an old "
    "one",
    "[store]") {
  constexpr int kTables = 12;
  const auto key = [](int i) { return "key " + std::to_string(i); };
  const std::string path =
      (std::filesystem::temp_directory_path() / ("seshat-store-map-" + std::to_string(::getpid())))
          .string();
  std::filesystem::remove_all(path);
  {
    const OpenDatabase first(path);
    for (int i = 0; i < kTables; ++i) {
      REQUIRE(first.db->Put({}, key(i), "value").ok());
      REQUIRE(first.db->Flush({}).ok());
    }
  }
  {
    const OpenDatabase again(path);
    int not_in_memory = 0;
    for (int i = 0; i < kTables; ++i) {
      std::string value = "of the key before";  // as in memory that is used again
      const Lookup lookup = again.map(ReadFrom::kMemory).get(key(i), value);
      if (lookup == Lookup::kNotInMemory) ++not_in_memory;
      if (lookup == Lookup::kFound) CHECK(value == "value");
      CHECK((lookup == Lookup::kFound || lookup == Lookup::kNotInMemory));
    }
    CHECK(not_in_memory > 0);
    for (int i = 0; i < kTables; ++i) {
      std::string value;
      CHECK(again.map(ReadFrom::kDisk).get(key(i), value) == Lookup::kFound);
      CHECK(value == "value");
    }
  }
  std::filesystem::remove_all(path);
}

}  // namespace
}  // namespace seshat
