// seshat/thread_name.hpp - names for threads, as `top -H` and debuggers show them.
//
// Threads: name_this_thread names the caller. Alone: copy this file; it needs pthreads at most.
#ifndef SESHAT_THREAD_NAME_HPP
#define SESHAT_THREAD_NAME_HPP

#if defined(__linux__) || defined(__APPLE__)
#include <pthread.h>
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

}  // namespace seshat

#endif  // SESHAT_THREAD_NAME_HPP
