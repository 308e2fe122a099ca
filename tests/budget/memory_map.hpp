// tests/budget/memory_map.hpp - the least that a state machine can live in: a hash table. What the
// budget counts is the code around the map, and RocksDB is measured elsewhere (tests/micro, make bench).
#ifndef SESHAT_TESTS_BUDGET_MEMORY_MAP_HPP
#define SESHAT_TESTS_BUDGET_MEMORY_MAP_HPP

#include <functional>
#include <string>
#include <string_view>
#include <unordered_map>

#include "seshat/state_machine.hpp"

namespace seshat::budget {

// A batch that changes its map at once: no entry fails here.
class MemoryMap final : public Batch {
 public:
  [[nodiscard]] Lookup get(std::string_view key, std::string& value) const override {
    const auto found = bytes_.find(key);
    if (found == bytes_.end()) return Lookup::kAbsent;
    value = found->second;
    return Lookup::kFound;
  }
  void put(std::string_view key, std::string_view value) override {
    const auto found = bytes_.find(key);
    if (found != bytes_.end()) {
      found->second = value;
    } else {
      bytes_.emplace(key, value);
    }
  }
  void erase(std::string_view key) override {
    const auto found = bytes_.find(key);
    if (found != bytes_.end()) bytes_.erase(found);
  }
  void erase_all() override { bytes_.clear(); }

 private:
  struct Hash {
    using is_transparent = void;
    std::size_t operator()(std::string_view key) const {
      return std::hash<std::string_view>()(key);
    }
  };

  std::unordered_map<std::string, std::string, Hash, std::equal_to<>> bytes_;
};

}  // namespace seshat::budget

#endif  // SESHAT_TESTS_BUDGET_MEMORY_MAP_HPP
