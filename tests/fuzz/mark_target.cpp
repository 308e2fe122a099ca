// A durable mark's file that has rotted. First byte 'f': the rest is the file as it is; 's': the rest
// is its two slots, 20 bytes each, and gets the checksums that fit.
//
// Claims: it opens or says why not; what opens is the highest slot that
// counts, goes on, and opens again.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "fuzz/target.hpp"
#include "memory_disk.hpp"
#include "seshat/durable_mark.hpp"

namespace seshat::fuzz {

namespace {

constexpr const char* kPath = "/mark";
constexpr std::size_t kSlotDistanceBytes = 4096;
constexpr std::size_t kSummedBytes = 20;

void append_checksum(std::string& slot) {
  std::uint64_t hash = 0xcbf29ce484222325;
  for (const char c : slot) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  for (int shift = 0; shift < 64; shift += 8) slot += static_cast<char>(hash >> shift & 0xff);
}

std::string file_of_slots(std::string_view bytes) {
  std::string file;
  for (int slot = 0; slot < 2; ++slot) {
    std::string content(bytes.substr(0, kSummedBytes));
    bytes.remove_prefix(content.size());
    append_checksum(content);
    file.resize(slot * kSlotDistanceBytes);
    file += content;
  }
  return file;
}

// The highest mark of the slots that count, read here once more: durable_mark.hpp says how.
std::optional<std::uint64_t> highest_mark(const std::string& file) {
  std::optional<std::uint64_t> highest;
  for (const std::size_t offset : {std::size_t{0}, kSlotDistanceBytes}) {
    if (file.size() < offset + kSummedBytes + 8) continue;
    std::string slot = file.substr(offset, kSummedBytes);
    append_checksum(slot);
    if (!slot.starts_with("SESHMARK") || slot != file.substr(offset, slot.size())) continue;
    std::uint64_t sequence = 0;
    for (std::size_t i = 19; i >= 12; --i) {
      sequence = sequence << 8 | static_cast<unsigned char>(slot[i]);
    }
    highest = std::max(highest.value_or(0), sequence);
  }
  return highest;
}

}  // namespace

void mark(std::string_view input) {
  if (input.empty() || (input[0] != 'f' && input[0] != 's')) return;
  const std::string_view rest = input.substr(1);
  const std::string file = input[0] == 'f' ? std::string(rest) : file_of_slots(rest);
  tests::MemoryDisk disk;
  disk.set_content(kPath, file);
  const auto env = disk.env();
  Result<DurableMark> mark = DurableMark::open(*env, kPath);
  if (!mark) return check(!mark.error().text.empty(), "refused without a word");
  const std::uint64_t sequence = mark->sequence();
  check(highest_mark(file) == sequence, "it is not the highest mark that was written");
  const std::uint64_t next = sequence == UINT64_MAX ? sequence : sequence + 1;
  check(static_cast<bool>(mark->advance(next)) && static_cast<bool>(mark->sync()),
        "a mark that opened does not go on");
  const Result<DurableMark> again = DurableMark::open(*env, kPath);
  check(again && again->sequence() == next, "a mark that was synced is not there");
}

}  // namespace seshat::fuzz
