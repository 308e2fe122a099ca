// seshat/machine_memory.hpp - how much memory this process may use.
//
// Threads: any.
// Needs:   nothing but the standard library; POSIX, and where it is Linux, its control groups.
#ifndef SESHAT_MACHINE_MEMORY_HPP
#define SESHAT_MACHINE_MEMORY_HPP

#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <fstream>
#include <limits>

namespace seshat {

// The machine's memory, or what the control group of a container leaves of it.
[[nodiscard]] inline std::uint64_t machine_memory_bytes() {
  const long pages = sysconf(_SC_PHYS_PAGES);
  const long page_bytes = sysconf(_SC_PAGESIZE);
  std::uint64_t memory_bytes = std::numeric_limits<std::uint64_t>::max();
  if (pages > 0 && page_bytes > 0) {
    memory_bytes = static_cast<std::uint64_t>(pages) * static_cast<std::uint64_t>(page_bytes);
  }
  for (const char* path :
       {"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"}) {
    std::ifstream file(path);
    std::uint64_t limit_bytes = 0;  // where there is none, the file says "max", or is not there
    if (file >> limit_bytes) memory_bytes = std::min(memory_bytes, limit_bytes);
  }
  return memory_bytes;
}

}  // namespace seshat

#endif  // SESHAT_MACHINE_MEMORY_HPP
