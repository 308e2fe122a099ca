// seshat/mailbox.hpp - many threads post, one owner takes everything that gathered.
//
//   gRPC, storage, sync, pool ──push──> [ . . . . ] ──take──> the loop
//                                 └── wake(), if nobody was woken since the last take
//
// Keeps:    the order of each poster; at most one wake-up on its way. What may be lost (messages of
//           peers: Raft repeats them) is refused when `max_droppable` such items wait; what may not
//           (answers of the disk) is bounded by those who asked for it. What a poster leaves without
//           a wake-up is there for whoever takes next; who claim()s it sees to that.
// Threads:  push from any; take from the owner.
// Alone:    copy this file; it needs only the standard library.
#ifndef SESHAT_MAILBOX_HPP
#define SESHAT_MAILBOX_HPP

#include <algorithm>
#include <cstddef>
#include <functional>
#include <iterator>
#include <mutex>
#include <utility>
#include <vector>

namespace seshat {

template <class Item>
class Mailbox {
 public:
  // `wake` is called from the posting thread, outside the lock; it must not block.
  Mailbox(std::function<void()> wake, std::size_t max_droppable)
      : wake_(std::move(wake)), max_droppable_(max_droppable) {}

  void push(Item item) {
    bool wakes = false;
    {
      const std::lock_guard lock(mutex_);
      items_.push_back(std::move(item));
      wakes = claim_locked();
    }
    if (wakes) wake_();
  }

  // What gathered at the poster: one lock, at most one wake-up. `items` is empty then.
  void push_all(std::vector<Item>& items) {
    if (items.empty()) return;
    bool wakes = false;
    {
      const std::lock_guard lock(mutex_);
      if (items_.empty()) {
        std::swap(items_, items);  // and the two keep their memory between them
      } else {
        std::move(items.begin(), items.end(), std::back_inserter(items_));
      }
      wakes = claim_locked();
    }
    items.clear();
    if (wakes) wake_();
  }

  // Without a wake-up: claim() follows.
  void leave(Item item) {
    const std::lock_guard lock(mutex_);
    items_.push_back(std::move(item));
  }
  // False: the box has enough of these; the item is lost.
  [[nodiscard]] bool leave_droppable(Item item) {
    const std::lock_guard lock(mutex_);
    if (droppable_ >= max_droppable_) return false;
    ++droppable_;
    items_.push_back(std::move(item));
    return true;
  }
  // True, once between two takes: something is there, and it is the caller's to see that the owner
  // takes it.
  [[nodiscard]] bool claim() {
    const std::lock_guard lock(mutex_);
    return claim_locked();
  }

  // Moves what gathered into `items` (whose memory is reused) and empties the box.
  void take(std::vector<Item>& items) {
    items.clear();
    const std::lock_guard lock(mutex_);
    std::swap(items, items_);
    droppable_ = 0;
    claimed_ = false;
  }

 private:
  [[nodiscard]] bool claim_locked() { return !items_.empty() && !std::exchange(claimed_, true); }

  std::function<void()> wake_;
  std::size_t max_droppable_;
  std::mutex mutex_;
  std::vector<Item> items_;
  std::size_t droppable_ = 0;
  bool claimed_ = false;  // the owner was woken, or somebody sees to it, since the last take
};

}  // namespace seshat

#endif  // SESHAT_MAILBOX_HPP
