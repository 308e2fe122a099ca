// The network between the nodes: frames that are late, lost, doubled, out of order, or cut off.
//
// Each direction of each pair has its own weather and its own chance, so that what happens on one
// link shifts nothing on another.
#ifndef SESHAT_TESTS_SIM_NETWORK_HPP
#define SESHAT_TESTS_SIM_NETWORK_HPP

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "seshat/peer_codec.hpp"
#include "seshat/records.hpp"
#include "sim/scenario.hpp"
#include "sim/world.hpp"

namespace seshat::sim {

// A message of a call that brings a snapshot. Rows go one after another: each piece says after which
// key it comes, so that whatever is lost, doubled or overtaken, the next offer finds the place to go
// on at.
struct SnapshotPiece {
  struct Offer {
    raft::Message message;  // an InstallSnapshot
    std::uint64_t hash = 0;
  };
  struct Rows {
    std::string after_key;
    std::vector<std::pair<std::string, std::string>> rows;
    bool last = false;
  };
  struct Answer {
    bool go_on = false;  // with what follows after_key; else the receiver has all up to `index`
    std::string after_key;
    Index index;
  };
  GroupId group;
  std::uint64_t transfer = 0;  // of the sender's process
  std::variant<Offer, Rows, Answer> body;
};

// One write on a stream, and of which process' life it is: a restarted node is another one.
struct Packet {
  NodeId from;
  NodeId to;
  std::uint64_t life = 0;
  Frame frame;
  std::shared_ptr<const SnapshotPiece> piece = nullptr;  // instead
};

class Network {
 public:
  using Deliver = std::function<void(const Packet&)>;

  Network(World& world, const Scenario& scenario, Deliver deliver)
      : world_(world), scenario_(scenario), deliver_(std::move(deliver)) {
    for (std::size_t i = 0; i < scenario.nodes * scenario.nodes; ++i) {
      links_.push_back({world.random(0x11e7 + i), 0, 0, 0, 0});
    }
  }

  void cut(NodeId from, NodeId to) { ++link(from, to).cuts; }
  void mend(NodeId from, NodeId to) { --link(from, to).cuts; }
  [[nodiscard]] bool is_cut(NodeId from, NodeId to) { return link(from, to).cuts > 0; }
  void lossy(NodeId from, NodeId to, int change) { link(from, to).lossy += change; }
  void slow(NodeId from, NodeId to, int change) { link(from, to).slow += change; }

  void send(Packet packet) {
    ++world_.counters().messages;
    Link& on = link(packet.from, packet.to);
    if (scenario_.encode && !packet.piece) recode(packet);
    const auto shared = std::make_shared<const Packet>(std::move(packet));
    const NetworkWeather& weather = scenario_.network;
    const bool lost =
        on.random.chance(weather.loss_permille) || (on.lossy > 0 && on.random.chance(600));
    const bool doubled = on.random.chance(weather.duplicate_permille);
    if (!lost) post(on, shared);
    if (lost) ++world_.counters().lost_messages;
    if (doubled) post(on, shared);
  }

 private:
  struct Link {
    Random random;
    int cuts;
    int lossy;
    int slow;
    std::uint64_t last_arrival_us;
  };

  [[nodiscard]] Link& link(NodeId from, NodeId to) {
    return links_.at((from.value - 1) * scenario_.nodes + to.value - 1);
  }

  // Cut while it travels: lost too.
  void post(Link& on, const std::shared_ptr<const Packet>& packet) {
    const NetworkWeather& weather = scenario_.network;
    std::uint64_t delay_us = on.random.between(weather.min_delay_us, weather.max_delay_us);
    if (on.random.chance(weather.straggler_permille)) {
      delay_us += on.random.scattered(kMillisecond, 500 * kMillisecond);
    }
    if (on.slow > 0) delay_us += on.random.between(50, 250) * kMillisecond;
    std::uint64_t arrival_us = world_.now_us() + delay_us;
    if (weather.in_order) arrival_us = std::max(arrival_us, on.last_arrival_us + 1);
    on.last_arrival_us = std::max(on.last_arrival_us, arrival_us);
    world_.at(arrival_us, [this, packet] {
      if (is_cut(packet->from, packet->to)) {
        ++world_.counters().lost_messages;
      } else {
        deliver_(*packet);
      }
    });
  }

  static void recode(Packet& packet) {
    std::string bytes;
    codec::encode(packet.frame, bytes);
    auto decoded = codec::decode_frame(bytes);
    must(bool(decoded), "codec", "a frame can't be read back");
    packet.frame = std::move(*decoded);
  }

  World& world_;
  const Scenario& scenario_;
  Deliver deliver_;
  std::vector<Link> links_;
};

}  // namespace seshat::sim

#endif  // SESHAT_TESTS_SIM_NETWORK_HPP
