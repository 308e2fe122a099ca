// seshat/neighbours.hpp - what a node knows of the other nodes it dials: who is there, how it does.
//
// Threads: none inside; the loop. Time is given in milliseconds of the loop's clock.
// Needs:   records.hpp.
#ifndef SESHAT_NEIGHBOURS_HPP
#define SESHAT_NEIGHBOURS_HPP

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>

#include "seshat/records.hpp"

namespace seshat {

class Neighbours {
 public:
  struct Heard {
    NodeStatus status;
    std::uint64_t at_ms = 0;
  };

  // Who is dialed from now on, and where. What is known of those that stay is kept. True: it is not
  // the same as before.
  bool set(std::map<NodeId, std::string> dialed);
  [[nodiscard]] const std::map<NodeId, std::string>& dialed() const { return dialed_; }

  void up(NodeId node);
  void down(NodeId node);
  void heard(NodeId node, NodeStatus status, std::uint64_t now_ms);
  // Its refusal of this node, or this node's of it, for `reason`. True: it is news, and worth a line
  // in the log; whoever is refused comes back every second.
  bool refused(NodeId node, const std::string& reason);

  [[nodiscard]] bool is_connected(NodeId node) const;
  [[nodiscard]] std::size_t connected() const;
  // As it said last; null: never.
  [[nodiscard]] const Heard* last_heard(NodeId node) const;
  // The same, unless it is gone or that is older than a few reports.
  [[nodiscard]] std::optional<NodeStatus> fresh_status(NodeId node, std::uint64_t now_ms) const;

 private:
  // They report every second; a few may be late.
  static constexpr std::uint64_t kFreshMs = 5'000;

  struct State {
    bool connected = false;
    std::optional<Heard> heard;
    std::string refused;  // why, as it was told last
  };

  [[nodiscard]] const State* find(NodeId node) const;

  std::map<NodeId, std::string> dialed_;
  std::map<NodeId, State> states_;  // of those
  std::string stranger_refused_;    // as State::refused, of all others
};

// =================================================================================================
// Bodies
// =================================================================================================

inline bool Neighbours::set(std::map<NodeId, std::string> dialed) {
  if (dialed == dialed_) return false;
  dialed_ = std::move(dialed);
  std::erase_if(states_, [&](const auto& state) { return !dialed_.contains(state.first); });
  for (const auto& [node, addr] : dialed_) states_.try_emplace(node);
  return true;
}

inline const Neighbours::State* Neighbours::find(NodeId node) const {
  const auto found = states_.find(node);
  return found == states_.end() ? nullptr : &found->second;
}

inline void Neighbours::up(NodeId node) {
  const auto found = states_.find(node);
  if (found == states_.end()) return;
  found->second.connected = true;
  found->second.refused.clear();
}

inline void Neighbours::down(NodeId node) {
  const auto found = states_.find(node);
  if (found != states_.end()) found->second.connected = false;
}

inline void Neighbours::heard(NodeId node, NodeStatus status, std::uint64_t now_ms) {
  const auto found = states_.find(node);
  if (found != states_.end()) found->second.heard = Heard{std::move(status), now_ms};
}

inline bool Neighbours::refused(NodeId node, const std::string& reason) {
  const auto found = states_.find(node);
  std::string& told = found == states_.end() ? stranger_refused_ : found->second.refused;
  return std::exchange(told, reason) != reason;
}

inline bool Neighbours::is_connected(NodeId node) const {
  const State* state = find(node);
  return state != nullptr && state->connected;
}

inline std::size_t Neighbours::connected() const {
  const auto connected = std::count_if(states_.begin(), states_.end(),
                                       [](const auto& state) { return state.second.connected; });
  return static_cast<std::size_t>(connected);
}

inline const Neighbours::Heard* Neighbours::last_heard(NodeId node) const {
  const State* state = find(node);
  return state != nullptr && state->heard ? &*state->heard : nullptr;
}

inline std::optional<NodeStatus> Neighbours::fresh_status(NodeId node, std::uint64_t now_ms) const {
  const State* state = find(node);
  if (state == nullptr || !state->connected || !state->heard) return std::nullopt;
  if (now_ms - state->heard->at_ms > kFreshMs) return std::nullopt;
  return state->heard->status;
}

}  // namespace seshat

#endif  // SESHAT_NEIGHBOURS_HPP
