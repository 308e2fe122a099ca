// seshat/turns.hpp - work that several threads do in turn, never two at once.
//
//   who can wait     take() ── turn ── let_go() ──> true: somebody came meanwhile, and left
//   who can't        take_or_leave(turn) ──> does it now, or leaves it to who has one
//
// Who waits goes first: who can't wait may come so often that nobody else would ever have a turn.
//
// Keeps:    for each take_or_leave() a turn begins after that call did, if whoever is told that one was
//           left to him sees to it. Nobody waits but in take(), for a turn's length.
// Threads:  any. A turn must not call any of these.
// Alone:    copy this file; it needs only the standard library.
#ifndef SESHAT_TURNS_HPP
#define SESHAT_TURNS_HPP

#include <atomic>
#include <mutex>

namespace seshat {

// `Mutex`: a test may have its own.
template <class Mutex = std::mutex>
class Turns {
 public:
  // Waits for its end, if somebody has one. One thread only.
  void take() {
    waits_ = true;
    mutex_.lock();
    waits_ = false;
  }
  // After take(). True: a turn was left to the caller, which is not under way yet.
  [[nodiscard]] bool let_go() {
    mutex_.unlock();
    return left_.exchange(false);
  }

  // Calls turn() here, or leaves it to who has one. True: as with let_go().
  template <class Turn>
  [[nodiscard]] bool take_or_leave(const Turn& turn) {
    // Before the rest: who has a turn, or waits for one, looks here after letting go. So either that
    // sees this, or it has let go before the lock is tried.
    left_.exchange(true);
    if (waits_ || !mutex_.try_lock()) return false;
    left_.exchange(false);
    turn();
    return let_go();
  }

 private:
  Mutex mutex_;
  std::atomic<bool> waits_{false};
  std::atomic<bool> left_{false};  // read and written at once only: that is what orders it
};

}  // namespace seshat

#endif  // SESHAT_TURNS_HPP
