// seshat/thread_name.hpp - names for threads, as `top -H` and debuggers show them; and who comes last.
//
// Threads: each function is about the caller. Alone: copy this file; it needs pthreads at most.
#ifndef SESHAT_THREAD_NAME_HPP
#define SESHAT_THREAD_NAME_HPP

#if defined(__linux__) || defined(__APPLE__)
#include <pthread.h>
#endif
#if defined(__linux__)
#include <sys/resource.h>
#endif

namespace seshat {

// At most 15 characters, or Linux refuses it. Elsewhere than on Linux and macOS it does nothing.
inline void name_this_thread([[maybe_unused]] const char* name) {
#if defined(__linux__)
  pthread_setname_np(pthread_self(), name);
#elif defined(__APPLE__)
  pthread_setname_np(name);
#endif
}

// Work that nobody waits for gets a tenth of what others get while there are too few cores, and all of
// what they leave. Where it can't be said (Linux has a niceness for each thread) it does nothing.
inline void let_others_go_first() {
#if defined(__linux__)
  constexpr int kNiceness = 10;
  static_cast<void>(::setpriority(PRIO_PROCESS, 0, kNiceness));
#endif
}

}  // namespace seshat

#endif  // SESHAT_THREAD_NAME_HPP
