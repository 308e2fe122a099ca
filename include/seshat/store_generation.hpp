// seshat/store_generation.hpp - which column family holds a group's state: the generation in force.
//
//   default      generation:1 = data_kv.2                  the pointer; absent: the first generation
//   data_kv      the first generation, dropped by now
//   data_kv.2    in force
//   data_kv.3    being filled from a snapshot; or an orphan of a crash, dropped at the next start
//
// A snapshot comes in as a new generation beside the old one, and one write moves the pointer: a
// crash leaves the one or the other, each whole.
//
// Threads: a StoreGeneration may be read by any thread, a GenerationMap too, also while another
//          switches it. Whoever has a generation keeps its bytes, dropped or not.
// Needs:   store_map.hpp, store_options.hpp; RocksDB.
#ifndef SESHAT_STORE_GENERATION_HPP
#define SESHAT_STORE_GENERATION_HPP

#include <rocksdb/db.h>

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "seshat/records.hpp"
#include "seshat/state_machine.hpp"
#include "seshat/store_buffer.hpp"
#include "seshat/store_map.hpp"
#include "seshat/store_options.hpp"

namespace seshat {

class StoreGeneration {
 public:
  StoreGeneration(rocksdb::DB& db, rocksdb::ColumnFamilyHandle& family,
                  std::size_t row_cache_size_bytes, StoreMap::OnDamage on_damage = nullptr)
      : db_(db),
        family_(family),
        cache_(row_cache_size_bytes),
        cached_(buffer_, cache_, StoreMap(db, family, ReadFrom::kMemory)),
        on_disk_(buffer_, cache_, StoreMap(db, family, ReadFrom::kDisk, std::move(on_damage))) {}
  StoreGeneration(const StoreGeneration&) = delete;
  StoreGeneration& operator=(const StoreGeneration&) = delete;
  ~StoreGeneration() { db_.DestroyColumnFamilyHandle(&family_).PermitUncheckedError(); }

  [[nodiscard]] rocksdb::ColumnFamilyHandle& family() const { return family_; }
  // What was applied and is not in the family yet.
  [[nodiscard]] StoreBuffer& buffer() const { return buffer_; }
  // Rows of the family, in memory.
  [[nodiscard]] RowCache& cache() const { return cache_; }
  // Both with the buffer and the cache before them.
  [[nodiscard]] const BufferedMap& cached() const { return cached_; }
  [[nodiscard]] const BufferedMap& on_disk() const { return on_disk_; }

 private:
  rocksdb::DB& db_;
  rocksdb::ColumnFamilyHandle& family_;
  mutable StoreBuffer buffer_;
  mutable RowCache cache_;
  BufferedMap cached_;
  BufferedMap on_disk_;
};

// The generation in force, as a map that never waits for the disk. Each get() sees one generation;
// two of them may see two.
class GenerationMap final : public OrderedMap {
 public:
  [[nodiscard]] Lookup get(std::string_view key, std::string& value) const override {
    return now()->cached().get(key, value);
  }
  [[nodiscard]] Lookup get_all(std::span<const std::string> keys,
                               const VisitRow& visit) const override {
    return now()->cached().get_all(keys, visit);
  }
  [[nodiscard]] std::shared_ptr<const StoreGeneration> now() const {
    const std::lock_guard lock(mutex_);
    return generation_;
  }
  // Gives the one that was in force before.
  std::shared_ptr<const StoreGeneration> switch_to(std::shared_ptr<const StoreGeneration> next) {
    const std::lock_guard lock(mutex_);
    return std::exchange(generation_, std::move(next));
  }

 private:
  mutable std::mutex mutex_;
  std::shared_ptr<const StoreGeneration> generation_;
};

namespace store_detail {

[[nodiscard]] inline Family data_family(GroupId group) {
  return group == kSystemGroup ? kSystemData : kDataKv;
}
[[nodiscard]] inline std::string_view state_key(GroupId group) {
  return group == kSystemGroup ? kSystemStateKey : kDataStateKey;
}
[[nodiscard]] inline std::string generation_key(Family family) {
  return std::string("generation:") + (family == kSystemData ? "0" : "1");
}

// 0: the first; nullopt: a family of something else.
[[nodiscard]] std::optional<std::uint64_t> generation_of(std::string_view name, Family family);
[[nodiscard]] std::string generation_name(Family family, std::uint64_t generation);

// What a database that has the families `existing` is to be opened with: these, and those that are
// not made yet. Any generation of a state will do.
[[nodiscard]] std::vector<rocksdb::ColumnFamilyDescriptor> families(
    const StoreOptions& options, const std::vector<std::string>& existing);

}  // namespace store_detail

// =================================================================================================
// Bodies
// =================================================================================================

namespace store_detail {

inline std::optional<std::uint64_t> generation_of(std::string_view name, Family family) {
  const std::string_view first = kFamilyNames[family];
  if (name == first) return 0;
  if (!name.starts_with(first) || name.size() < first.size() + 2) return std::nullopt;
  if (name[first.size()] != '.') return std::nullopt;
  const std::string_view digits = name.substr(first.size() + 1);
  std::uint64_t generation = 0;
  const auto [end, error] =
      std::from_chars(digits.data(), digits.data() + digits.size(), generation);
  if (error != std::errc() || end != digits.data() + digits.size()) return std::nullopt;
  return generation;
}

inline std::string generation_name(Family family, std::uint64_t generation) {
  const std::string first = kFamilyNames[family];
  return generation == 0 ? first : first + "." + std::to_string(generation);
}

inline std::vector<rocksdb::ColumnFamilyDescriptor> families(
    const StoreOptions& options, const std::vector<std::string>& existing) {
  std::vector<rocksdb::ColumnFamilyDescriptor> descriptors = families(options);
  for (const Family family : {kSystemData, kDataKv}) {
    const rocksdb::ColumnFamilyOptions its_options = descriptors[family].options;
    bool any = false;
    for (const std::string& name : existing) {
      const auto generation = generation_of(name, family);
      if (!generation) continue;
      any = true;
      if (*generation != 0) descriptors.emplace_back(name, its_options);
    }
    const std::string first = kFamilyNames[family];
    if (any && std::find(existing.begin(), existing.end(), first) == existing.end()) {
      descriptors[family].name.clear();  // it was dropped long ago: not to be made again
    }
  }
  std::erase_if(descriptors, [](const auto& descriptor) { return descriptor.name.empty(); });
  return descriptors;
}

}  // namespace store_detail

}  // namespace seshat

#endif  // SESHAT_STORE_GENERATION_HPP
