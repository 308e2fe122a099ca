// Snapshots on their way between processes: what node.hpp does around the calls of the peer channel.
//
//   leader    send_snapshot ──> built, or the last one again ──> Offer ──> Rows, Rows, ... ──> ended
//                                                                 │  ^      │            ^
//   follower                                                 go on here   go on there   has it
//
// Keeps: a receiver takes rows in the order of their keys, from whoever sends the same snapshot; a
// sender that hears nothing offers again, as after a broken connection, and gives up in the end. A
// sender that leads no more goes on: late snapshots of former leaders must do no harm.
#ifndef SESHAT_TESTS_SIM_TRANSFERS_HPP
#define SESHAT_TESTS_SIM_TRANSFERS_HPP

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <variant>

#include "seshat/replica.hpp"
#include "sim/checks.hpp"
#include "sim/disk.hpp"
#include "sim/network.hpp"
#include "sim/scenario.hpp"
#include "sim/world.hpp"

namespace seshat::sim {

// The process, as its transfers see it.
class TransferHost {
 public:
  virtual Replica& replica_of(GroupId group) = 0;
  virtual void send_piece(NodeId to, SnapshotPiece piece) = 0;
  virtual void later(std::uint64_t delay_us, std::function<void()> work) = 0;  // on its loop

 protected:
  ~TransferHost() = default;
};

class Transfers {
 public:
  // `kept`: the newest snapshot of each group on this machine.
  Transfers(const Scenario& scenario, NodeId self, Random random, Storage& storage, Checks& checks,
            std::map<GroupId, SnapshotPtr>& kept, TransferHost& host)
      : scenario_(scenario),
        self_(self),
        random_(random),
        storage_(storage),
        checks_(checks),
        kept_(kept),
        host_(host) {}

  void send(GroupId group, NodeId peer);
  void on_built(GroupId group, NodeId peer, SnapshotPtr image);
  void on_installed(GroupId group);
  void receive(NodeId from, const SnapshotPiece& piece);
  void tick();
  // What may be cut off the log is not what must follow on a snapshot under way.
  void check_cut(GroupId group) const;

 private:
  static constexpr std::uint64_t kSilenceTicks = 12;
  static constexpr int kMaxOffers = 8;

  struct Sending {
    std::uint64_t number = 0;
    Term term;          // in which it was begun
    SnapshotPtr image;  // null: it is being built
    std::uint64_t heard_at_tick = 0;
    int offers = 0;
  };
  struct Receiving {
    raft::Snapshot snapshot;
    NodeId from;
    std::uint64_t transfer = 0;
    std::uint64_t hash = 0;
    Records rows;
    bool complete = false;
    SnapshotPtr installing;
    [[nodiscard]] std::string last_key() const {
      return rows.empty() ? std::string() : rows.rbegin()->first;
    }
  };

  void start(GroupId group, NodeId peer, SnapshotPtr image);
  void offer(GroupId group, NodeId peer);
  void end(GroupId group, NodeId peer, Index installed);
  void drop_needless();
  void handle(NodeId from, const SnapshotPiece& piece, const SnapshotPiece::Offer& offer);
  void handle(NodeId from, const SnapshotPiece& piece, const SnapshotPiece::Rows& rows);
  void handle(NodeId from, const SnapshotPiece& piece, const SnapshotPiece::Answer& answer);
  void install(GroupId group);
  void answer(GroupId group, NodeId to, std::uint64_t transfer, SnapshotPiece::Answer answer) {
    host_.send_piece(to, {group, transfer, std::move(answer)});
  }
  void answer_has(GroupId group, NodeId to, std::uint64_t transfer) {
    answer(group, to, transfer, {false, {}, host_.replica_of(group).raft().commit_index()});
  }

  const Scenario& scenario_;
  NodeId self_;
  Random random_;
  Storage& storage_;
  Checks& checks_;
  std::map<GroupId, SnapshotPtr>& kept_;
  TransferHost& host_;
  std::map<std::pair<GroupId, NodeId>, Sending> sending_;
  std::map<GroupId, Receiving> receiving_;
  std::uint64_t ticks_ = 0;
  std::uint64_t next_number_ = 1;
};

// ---- The leader

// The last one will do if the log still follows on it.
inline void Transfers::send(GroupId group, NodeId peer) {
  Sending& sending = sending_[{group, peer}];
  sending = {next_number_++, host_.replica_of(group).raft().current_term(), nullptr, ticks_, 0};
  const auto kept = kept_.find(group);
  const bool follows = kept != kept_.end() &&
                       kept->second->snapshot.last_included_index >= storage_.first_index(group);
  if (!follows || random_.chance(300)) return storage_.build_snapshot(group, peer);
  host_.later(0, [this, group, peer, number = sending.number, image = kept->second] {
    const auto found = sending_.find({group, peer});
    if (found != sending_.end() && found->second.number == number) start(group, peer, image);
  });
}

// A snapshot stands under its own name only when it is complete and on disk.
inline void Transfers::on_built(GroupId group, NodeId peer, SnapshotPtr image) {
  checks_.snapshot_taken(self_, group, *image);
  SnapshotPtr& kept = kept_[group];
  if (!kept || kept->snapshot.last_included_index < image->snapshot.last_included_index) {
    kept = image;
  }
  const auto found = sending_.find({group, peer});
  if (found != sending_.end() && !found->second.image) start(group, peer, std::move(image));
}

inline void Transfers::start(GroupId group, NodeId peer, SnapshotPtr image) {
  const raft::Raft& raft = host_.replica_of(group).raft();
  Sending& sending = sending_.at({group, peer});
  if (!raft.is_leader() || raft.current_term() != sending.term) return end(group, peer, {});
  sending.image = std::move(image);
  host_.replica_of(group).on_sending_snapshot(peer, sending.image->snapshot.last_included_index);
  offer(group, peer);
}

inline void Transfers::offer(GroupId group, NodeId peer) {
  Sending& sending = sending_.at({group, peer});
  sending.heard_at_tick = ticks_;
  if (++sending.offers > kMaxOffers) return end(group, peer, {});
  SnapshotPiece::Offer offer;
  offer.message = {self_, peer, sending.term, raft::InstallSnapshot{sending.image->snapshot}};
  offer.hash = hash_of(sending.image->records);
  host_.send_piece(peer, {group, sending.number, std::move(offer)});
}

inline void Transfers::end(GroupId group, NodeId peer, Index installed) {
  sending_.erase({group, peer});
  host_.replica_of(group).on_snapshot_ended(peer, installed);
}

inline void Transfers::tick() {
  ++ticks_;
  drop_needless();
  std::vector<std::pair<GroupId, NodeId>> silent;
  for (const auto& [to, sending] : sending_) {
    if (sending.image && ticks_ - sending.heard_at_tick > kSilenceTicks) silent.push_back(to);
  }
  for (const auto& [group, peer] : silent) offer(group, peer);
}

// One to a node that is no member any more holds no log: should it come back, it gets another.
inline void Transfers::drop_needless() {
  std::erase_if(sending_, [this](const auto& sending) {
    const auto& [group, peer] = sending.first;
    return !host_.replica_of(group).raft().configuration().has(peer);
  });
}

inline void Transfers::check_cut(GroupId group) const {
  const raft::Raft& raft = host_.replica_of(group).raft();
  for (const raft::PeerStatus& peer : raft.peers()) {
    const auto found = sending_.find({group, peer.id});
    if (!raft.is_leader() || !peer.needs_snapshot || !peer.reachable || found == sending_.end() ||
        !found->second.image || found->second.term != raft.current_term()) {
      continue;
    }
    must(raft.compactable_index() <= found->second.image->snapshot.last_included_index,
         "log cut too far", [&] {
           return "n" + std::to_string(self_.value) +
                  " would cut off what follows on the snapshot " + "for n" +
                  std::to_string(peer.id.value);
         });
  }
}

inline void Transfers::receive(NodeId from, const SnapshotPiece& piece) {
  std::visit([&](const auto& body) { handle(from, piece, body); }, piece.body);
}

inline void Transfers::handle(NodeId from, const SnapshotPiece& piece,
                              const SnapshotPiece::Answer& answer) {
  const auto found = sending_.find({piece.group, from});
  if (found == sending_.end() || found->second.number != piece.transfer) return;
  Sending& sending = found->second;
  if (!answer.go_on) return end(piece.group, from, answer.index);
  sending.heard_at_tick = ticks_;
  SnapshotPiece::Rows rows;
  rows.after_key = answer.after_key;
  const Records& all = sending.image->records;
  auto row = all.upper_bound(answer.after_key);
  while (row != all.end() && rows.rows.size() < scenario_.compaction.rows)
    rows.rows.push_back(*row++);
  rows.last = row == all.end();
  host_.send_piece(from, {piece.group, piece.transfer, std::move(rows)});
}

// ---- The follower

inline void Transfers::handle(NodeId from, const SnapshotPiece& piece,
                              const SnapshotPiece::Offer& offer) {
  Replica& replica = host_.replica_of(piece.group);
  replica.receive(offer.message);
  if (replica.raft().is_installing()) return;  // it is offered again
  const raft::Snapshot& snapshot = std::get<raft::InstallSnapshot>(offer.message.body).snapshot;
  if (!replica.raft().needs(snapshot)) return answer_has(piece.group, from, piece.transfer);
  Receiving& receiving = receiving_[piece.group];
  if (receiving.snapshot != snapshot) receiving = {};
  receiving.snapshot = snapshot;
  receiving.from = from;
  receiving.transfer = piece.transfer;
  receiving.hash = offer.hash;
  if (receiving.complete) return;
  answer(piece.group, from, piece.transfer, {true, receiving.last_key(), {}});
}

inline void Transfers::handle(NodeId from, const SnapshotPiece& piece,
                              const SnapshotPiece::Rows& rows) {
  const auto found = receiving_.find(piece.group);
  if (found == receiving_.end()) return;
  Receiving& receiving = found->second;
  const bool next = receiving.from == from && receiving.transfer == piece.transfer &&
                    !receiving.complete && rows.after_key == receiving.last_key();
  if (!next) return;
  receiving.rows.insert(rows.rows.begin(), rows.rows.end());
  if (!rows.last)
    return answer(piece.group, from, piece.transfer, {true, receiving.last_key(), {}});
  receiving.complete = true;
  // Checked and made durable, in a temporary place.
  const raft::Snapshot snapshot = receiving.snapshot;
  host_.later(random_.scattered(100, 100 * kMillisecond), [this, group = piece.group, snapshot] {
    const auto place = receiving_.find(group);
    const bool same = place != receiving_.end() && place->second.snapshot == snapshot;
    if (same && place->second.complete && !place->second.installing) install(group);
  });
}

inline void Transfers::install(GroupId group) {
  Receiving& receiving = receiving_.at(group);
  must(hash_of(receiving.rows) == receiving.hash, "snapshot", "other rows came in than were sent");
  if (!host_.replica_of(group).begin_install(receiving.snapshot)) {
    answer_has(group, receiving.from, receiving.transfer);
    receiving_.erase(group);
    return;
  }
  receiving.installing =
      std::make_shared<SnapshotImage>(SnapshotImage{receiving.snapshot, receiving.rows});
  storage_.install(group, receiving.installing);
}

inline void Transfers::on_installed(GroupId group) {
  const Receiving receiving = std::move(receiving_.at(group));
  receiving_.erase(group);
  host_.replica_of(group).on_installed();
  checks_.installed(self_, group, *receiving.installing);
  answer_has(group, receiving.from, receiving.transfer);
}

}  // namespace seshat::sim

#endif  // SESHAT_TESTS_SIM_TRANSFERS_HPP
