// What every request does with its keys.
#include <string>

#include "micro/benchmark.hpp"
#include "micro/samples.hpp"
#include "seshat/glob.hpp"
#include "seshat/kv.hpp"
#include "seshat/slots.hpp"
#include "seshat/state_machine.hpp"

using namespace seshat;

TEST_CASE("keys", "[keys]") {
  const std::string key = micro::key(1);
  std::string map_key;

  BENCHMARK("the slot of a key") { return slot_of(key); };
  BENCHMARK("the hash of a key") { return key_hash(key); };
  BENCHMARK("the map's key of a key") {
    value_key(key, map_key);
    return map_key.size();
  };
  BENCHMARK("match a key with a pattern") { return glob_matches("key:*01", key); };
}

TEST_CASE("the table of commands", "[keys]") {
  BENCHMARK("find GET") { return kv::kCommandNames.find("GET"); };
  BENCHMARK("find SET") { return kv::kCommandNames.find("SET"); };
}
