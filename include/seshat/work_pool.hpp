// seshat/work_pool.hpp - a few threads for work that may wait for the disk.
//
// Threads:  post() and post_first() may be called by any thread and never wait for the work; start()
//           and stop() by one owner. Work runs on the pool's threads, in the order of its posting,
//           but two pieces may run side by side.
// Bounds:   none here: whoever posts bounds how much is under way (one fetch a peer, one read a
//           request of a client, and clients are bounded).
// Alone:    copy this file and thread_name.hpp.
#ifndef SESHAT_WORK_POOL_HPP
#define SESHAT_WORK_POOL_HPP

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "seshat/thread_name.hpp"

namespace seshat {

class WorkPool {
 public:
  using Work = std::function<void()>;

  WorkPool() = default;
  WorkPool(const WorkPool&) = delete;
  WorkPool& operator=(const WorkPool&) = delete;
  ~WorkPool() { stop(); }

  // What was posted before waits until now. `name`: of each thread, at most 15 characters.
  void start(std::size_t threads, const char* name);
  // Does what is still queued, then ends the threads.
  void stop();

  void post(Work work);
  // Before all that waits: for short work that others depend on.
  void post_first(Work work);

 private:
  void run(const char* name);

  std::mutex mutex_;  // guards the two below it
  std::deque<Work> queue_;
  bool stopping_ = false;
  std::condition_variable wake_;
  std::vector<std::thread> threads_;  // the owner's
};

// =================================================================================================
// Bodies
// =================================================================================================

inline void WorkPool::start(std::size_t threads, const char* name) {
  for (std::size_t i = 0; i < threads; ++i) {
    threads_.emplace_back([this, name] { run(name); });
  }
}

inline void WorkPool::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
}

inline void WorkPool::post(Work work) {
  {
    const std::lock_guard lock(mutex_);
    queue_.push_back(std::move(work));
  }
  wake_.notify_one();
}

inline void WorkPool::post_first(Work work) {
  {
    const std::lock_guard lock(mutex_);
    queue_.push_front(std::move(work));
  }
  wake_.notify_one();
}

inline void WorkPool::run(const char* name) {
  name_this_thread(name);
  for (;;) {
    std::unique_lock lock(mutex_);
    wake_.wait(lock, [this] { return stopping_ || !queue_.empty(); });
    if (queue_.empty()) return;
    const Work work = std::move(queue_.front());
    queue_.pop_front();
    lock.unlock();
    work();
  }
}

}  // namespace seshat

#endif  // SESHAT_WORK_POOL_HPP
