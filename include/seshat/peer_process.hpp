// seshat/peer_process.hpp - what gRPC keeps and does for the whole process.
//
// gRPC shuts itself down when its last object goes, in a thread that may take 10 s, for which the next
// start would wait: so it is kept.
//
// Its locks are Abseil's. Where Abseil was built without NDEBUG, as Debian's is, each lock is entered into
// a graph of all locks, under one spin lock of the process, to find deadlocks of gRPC's, at which it ends
// the process. That is for who develops gRPC, and is switched off.
//
// Threads: any. Needs: libgrpc; Abseil, which gRPC's own headers need.
#ifndef SESHAT_PEER_PROCESS_HPP
#define SESHAT_PEER_PROCESS_HPP

#include <absl/synchronization/mutex.h>
#include <grpc/grpc.h>

namespace seshat::peer_detail {

// Before the first of gRPC's objects. Again: nothing.
inline void keep_grpc() {
  [[maybe_unused]] static const bool kept = [] {
    absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
    grpc_init();
    return true;
  }();
}

}  // namespace seshat::peer_detail

#endif  // SESHAT_PEER_PROCESS_HPP
