// A batch that changes its map at once: for machines whose every error ends the run anyway.
#ifndef SESHAT_TESTS_FUZZ_DIRECT_BATCH_HPP
#define SESHAT_TESTS_FUZZ_DIRECT_BATCH_HPP

#include <string>
#include <string_view>

#include "memory_database.hpp"
#include "seshat/state_machine.hpp"

namespace seshat::fuzz {

class DirectBatch final : public Batch {
 public:
  explicit DirectBatch(tests::MemoryMap& map) : map_(map) {}
  [[nodiscard]] Lookup get(std::string_view key, std::string& value) const override {
    return map_.get(key, value);
  }
  void put(std::string_view key, std::string_view value) override {
    map_.bytes[std::string(key)] = value;
  }
  void erase_all() override { map_.bytes.clear(); }
  void erase(std::string_view key) override { map_.bytes.erase(std::string(key)); }

 private:
  tests::MemoryMap& map_;
};

}  // namespace seshat::fuzz

#endif  // SESHAT_TESTS_FUZZ_DIRECT_BATCH_HPP
