// seshat/node_events.hpp - what the store and the peers tell a node, as events of its loop.
//
//   threads of the store and of gRPC ── on_synced, on_frame, ... ──> [ mailbox ] ──take──> the loop
//                                           on_told, on_reacted ──> help ──take──┘
//
// The threads from which nearly everything comes, that of storage and that of the peers, wake nobody
// with what they tell: once they have told all, and have time, they do the loop's turn themselves, if
// it can be had (server.hpp); and what the peers' thread then appended it writes as well, if that is a
// write that comes alone. A wake-up of another thread is what a small request mostly costs.
//
// Keeps:    the order of each thread that tells; beyond max_waiting_frames the frames of peers are
//           lost: Raft repeats what was in them, and of what was forwarded ForwardedLost tells.
// Threads:  take() belongs to the loop, or who has its turn; all else may be called on any.
// Needs:    mailbox.hpp, store_events.hpp, peer_link.hpp (PeerEvents), state_machine.hpp.
#ifndef SESHAT_NODE_EVENTS_HPP
#define SESHAT_NODE_EVENTS_HPP

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "seshat/mailbox.hpp"
#include "seshat/peer_link.hpp"
#include "seshat/raft.hpp"
#include "seshat/records.hpp"
#include "seshat/replica.hpp"
#include "seshat/result.hpp"
#include "seshat/snapshot.hpp"
#include "seshat/store_events.hpp"

namespace seshat {

// One struct for each; what they mean stands with StoreEvents and PeerEvents.
namespace node_event {

struct Synced {
  GroupId group;
  std::uint64_t write_id;
};
struct Applied {
  GroupId group;
  Index last;
  std::vector<Outcome> outcomes;
};
struct Fetched {
  GroupId group;
  NodeId peer;
  Term prev_log_term;
  std::vector<raft::Entry> entries;
};
struct LogCut {
  GroupId group;
  Index first_index;
};
struct Installed {
  GroupId group;
};
struct StorageFailed {
  std::string what;
};
// What the system group holds, read from the disk.
struct SystemRead {
  Result<std::optional<ClusterMembership>> membership;
  Result<std::optional<ShardMap>> shard_map;
};
struct HelloReceived {
  Hello hello;
  std::function<void(HelloReply)> answer;
};
struct FrameReceived {
  NodeId from;
  Frame frame;
};
struct PeerUp {
  NodeId peer;
  Hello hello;
};
struct PeerRefused {
  NodeId peer;
  std::string reason;
  bool removed;
};
struct PeerDown {
  NodeId peer;
  std::string reason;
};
// A frame was lost that held more than Raft repeats.
struct ForwardedLost {
  NodeId from;
};
struct CallReceived {
  CallRequest request;
  std::function<void(CallReply)> answer;
};
struct SnapshotOffered {
  SnapshotOffer offer;
  std::function<void(SnapshotAnswer)> answer;
};
struct SnapshotReceived {
  GroupId group;
  std::shared_ptr<SnapshotWriter> writer;
  std::function<void(SnapshotReply)> done;
};
struct SnapshotBroken {
  GroupId group;
  std::shared_ptr<SnapshotWriter> writer;
  std::string reason;
};
struct SnapshotFailed {
  GroupId group;
  std::shared_ptr<SnapshotWriter> writer;
  std::string reason;
};
using Work = std::function<void()>;

using Any = std::variant<Synced, Applied, Fetched, LogCut, Installed, StorageFailed, SystemRead,
                         HelloReceived, FrameReceived, PeerUp, PeerRefused, PeerDown, ForwardedLost,
                         CallReceived, SnapshotOffered, SnapshotReceived, SnapshotBroken,
                         SnapshotFailed, Work>;

}  // namespace node_event

class NodeEvents final : public StoreEvents, public PeerEvents {
 public:
  // What is called when take() has something to give.
  struct Callbacks {
    std::function<void()> wake;  // any thread; must not block
    // In its place, on a thread that holds no lock and has the time to do what follows.
    std::function<void()> help;
  };
  // `writes`: of which the peers' thread may do those that it brings.
  NodeEvents(Callbacks news, HeldWrites& writes, std::size_t max_waiting_frames)
      : news_(std::move(news)), writes_(writes), mailbox_(news_.wake, max_waiting_frames) {}

  void take(std::vector<node_event::Any>& events) { mailbox_.take(events); }
  void push(node_event::Any event) { mailbox_.push(std::move(event)); }

  // The store
  void on_told(bool has_time) override {
    if (mailbox_.claim()) has_time ? news_.help() : news_.wake();
  }
  void on_synced(GroupId group, std::uint64_t write_id) override {
    mailbox_.leave(node_event::Synced{group, write_id});
  }
  void on_applied(GroupId group, Index last, std::vector<Outcome> outcomes) override {
    mailbox_.leave(node_event::Applied{group, last, std::move(outcomes)});
  }
  void on_fetched(GroupId group, NodeId peer, Term prev_log_term,
                  std::vector<raft::Entry> entries) override {
    push(node_event::Fetched{group, peer, prev_log_term, std::move(entries)});
  }
  void on_log_cut(GroupId group, Index first_index) override {
    push(node_event::LogCut{group, first_index});
  }
  void on_installed(GroupId group, const MachineState&) override {
    push(node_event::Installed{group});
  }
  void on_storage_failed(std::string what) override {
    push(node_event::StorageFailed{std::move(what)});
  }

  // The peers
  void on_reacted(bool has_time) override {
    if (!mailbox_.claim()) return;
    if (!has_time) return news_.wake();
    const bool holds = writes_.hold_writes();
    news_.help();
    if (holds) writes_.write_held();
  }
  void on_hello(Hello hello, std::function<void(HelloReply)> answer) override {
    push(node_event::HelloReceived{std::move(hello), std::move(answer)});
  }
  void on_frame(NodeId from, Frame frame) override {
    const bool forwards = !frame.forwarded.empty() || !frame.forwarded_replies.empty();
    const bool taken = mailbox_.leave_droppable(node_event::FrameReceived{from, std::move(frame)});
    if (!taken && forwards) push(node_event::ForwardedLost{from});
  }
  void on_peer_up(NodeId peer, Hello hello) override {
    push(node_event::PeerUp{peer, std::move(hello)});
  }
  void on_peer_refused(NodeId peer, std::string reason, bool removed) override {
    push(node_event::PeerRefused{peer, std::move(reason), removed});
  }
  void on_peer_down(NodeId peer, std::string reason) override {
    push(node_event::PeerDown{peer, std::move(reason)});
  }
  void on_call(CallRequest request, std::function<void(CallReply)> answer) override {
    push(node_event::CallReceived{std::move(request), std::move(answer)});
  }
  void on_snapshot_offer(SnapshotOffer offer, std::function<void(SnapshotAnswer)> answer) override {
    push(node_event::SnapshotOffered{std::move(offer), std::move(answer)});
  }
  void on_snapshot_received(GroupId group, std::shared_ptr<SnapshotWriter> writer,
                            std::function<void(SnapshotReply)> done) override {
    push(node_event::SnapshotReceived{group, std::move(writer), std::move(done)});
  }
  void on_snapshot_broken(GroupId group, std::shared_ptr<SnapshotWriter> writer,
                          std::string reason) override {
    push(node_event::SnapshotBroken{group, std::move(writer), std::move(reason)});
  }
  void on_snapshot_failed(GroupId group, std::shared_ptr<SnapshotWriter> writer,
                          std::string reason) override {
    push(node_event::SnapshotFailed{group, std::move(writer), std::move(reason)});
  }

 private:
  const Callbacks news_;
  HeldWrites& writes_;
  Mailbox<node_event::Any> mailbox_;
};

}  // namespace seshat

#endif  // SESHAT_NODE_EVENTS_HPP
