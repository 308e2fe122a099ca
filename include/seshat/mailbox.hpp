// seshat/mailbox.hpp - many threads post, one owner takes everything that gathered.
//
//   gRPC, storage, sync, pool ──push──> [ . . . . ] ──take──> the loop
//                                 └── wake(), only when the box was empty
//
// Keeps:    the order of each poster; at most one wake-up on its way. What may be lost (messages of
//           peers: Raft repeats them) is refused when `max_droppable` such items wait; what may not
//           (answers of the disk) is bounded by those who asked for it.
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
    bool was_empty = false;
    {
      const std::lock_guard lock(mutex_);
      was_empty = add(std::move(item));
    }
    if (was_empty) wake_();
  }

  // What gathered at the poster: one lock, at most one wake-up. `items` is empty then.
  void push_all(std::vector<Item>& items) {
    if (items.empty()) return;
    bool was_empty = false;
    {
      const std::lock_guard lock(mutex_);
      was_empty = items_.empty();
      if (was_empty) {
        std::swap(items_, items);  // and the two keep their memory between them
      } else {
        std::move(items.begin(), items.end(), std::back_inserter(items_));
      }
    }
    items.clear();
    if (was_empty) wake_();
  }

  // False: the box has enough of these; the item is lost.
  [[nodiscard]] bool push_droppable(Item item) {
    bool was_empty = false;
    {
      const std::lock_guard lock(mutex_);
      if (droppable_ >= max_droppable_) return false;
      ++droppable_;
      was_empty = add(std::move(item));
    }
    if (was_empty) wake_();
    return true;
  }

  // Moves what gathered into `items` (whose memory is reused) and empties the box.
  void take(std::vector<Item>& items) {
    items.clear();
    const std::lock_guard lock(mutex_);
    std::swap(items, items_);
    droppable_ = 0;
  }

 private:
  // Under the lock. Whether the box was empty, and so the owner must be woken.
  [[nodiscard]] bool add(Item item) {
    items_.push_back(std::move(item));
    return items_.size() == 1;
  }

  std::function<void()> wake_;
  std::size_t max_droppable_;
  std::mutex mutex_;
  std::vector<Item> items_;
  std::size_t droppable_ = 0;
};

}  // namespace seshat

#endif  // SESHAT_MAILBOX_HPP
