// seshat/file_limit.hpp - as many open files as the clients need, if the system allows it.
//
// Threads: none inside; the limit is the process'. Needs: the standard library, and POSIX where it is.
#ifndef SESHAT_FILE_LIMIT_HPP
#define SESHAT_FILE_LIMIT_HPP

#include <algorithm>
#include <cstddef>

#if __has_include(<sys/resource.h>)
#include <sys/resource.h>
#endif

namespace seshat {

// File descriptors beside clients: RocksDB's files, peers, the log.
inline constexpr std::size_t kOtherFiles = 1024;

// For so many clients: how many there may be. Raises the hard limit, too, where it may.
[[nodiscard]] inline std::size_t raise_file_limit(std::size_t clients) {
#if __has_include(<sys/resource.h>)
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return clients;
  const rlim_t wanted = clients + kOtherFiles;
  if (limit.rlim_cur >= wanted) return clients;
  rlimit raised = limit;
  raised.rlim_max = std::max(limit.rlim_max, wanted);
  raised.rlim_cur = wanted;
  if (setrlimit(RLIMIT_NOFILE, &raised) == 0) return clients;
  raised = limit;
  raised.rlim_cur = std::min(limit.rlim_max, wanted);
  (void)setrlimit(RLIMIT_NOFILE, &raised);
  if (raised.rlim_cur >= wanted) return clients;
  const rlim_t others = std::min<rlim_t>(kOtherFiles, raised.rlim_cur / 2);
  return raised.rlim_cur - others;
#else
  return clients;
#endif
}

}  // namespace seshat

#endif  // SESHAT_FILE_LIMIT_HPP
