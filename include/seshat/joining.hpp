// seshat/joining.hpp - a new node asks its way into a cluster.
//
//   cluster.join_addr ──> ask ──> kNotLeader ──> ask the leader ──> kAccepted: a learner, from now on
//                          ^  └── kNotReady, no answer ──┐              └─ its leader does the rest
//                          └── every 2 s, 5 times, all known addresses ─┘──> a clear error
//
// A duplicate id, another cluster, a refusal end it at once: asking again would not help.
//
// Threads: the loop. Needs: records.hpp, result.hpp. No I/O: the node makes the calls.
#ifndef SESHAT_JOINING_HPP
#define SESHAT_JOINING_HPP

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "seshat/records.hpp"
#include "seshat/result.hpp"

namespace seshat {

class Joining {
 public:
  // Asks the node at `addr`; `answer` comes on the loop, once.
  using Ask = std::function<void(const std::string& addr, CallRequest request,
                                 std::function<void(Result<CallReply>)> answer)>;

  Joining(std::string addr, Ask ask) : addrs_{std::move(addr)}, ask_(std::move(ask)) {}

  // Every tick; `hello` is what this node says of itself.
  void tick(std::uint64_t now_ms, const Hello& hello);

  // Set once it was let in: who the members are.
  [[nodiscard]] const std::optional<ClusterMembership>& membership() const { return membership_; }
  // Set once there is no hope: what is wrong and what to do.
  [[nodiscard]] const std::optional<std::string>& failure() const { return failure_; }

  static constexpr std::uint64_t kRetryMs = 2'000;
  static constexpr std::size_t kAttempts = 5;

 private:
  void ask(const std::string& addr);
  void heard(const std::string& addr, const Result<CallReply>& answer);
  void ask_next();
  void learn(const std::string& addr);

  std::vector<std::string> addrs_;  // all that are known
  Ask ask_;
  Hello hello_;
  std::uint64_t now_ms_ = 0;
  std::uint64_t next_attempt_ms_ = 0;
  std::size_t attempts_ = 0;
  std::size_t asked_ = 0;      // of addrs_, in this attempt
  std::size_t redirects_ = 0;  // in this attempt
  bool asking_ = false;
  std::string last_problem_;
  std::optional<ClusterMembership> membership_;
  std::optional<std::string> failure_;
};

// =================================================================================================
// Bodies
// =================================================================================================

inline void Joining::tick(std::uint64_t now_ms, const Hello& hello) {
  now_ms_ = now_ms;
  hello_ = hello;
  if (asking_ || membership_ || failure_ || now_ms < next_attempt_ms_) return;
  asked_ = redirects_ = 0;
  ++attempts_;
  ask_next();
}

inline void Joining::ask_next() {
  if (asked_ < addrs_.size()) return ask(addrs_[asked_++]);
  next_attempt_ms_ = now_ms_ + kRetryMs;
  if (attempts_ < kAttempts) return;
  std::string asked;
  for (const std::string& addr : addrs_) asked += (asked.empty() ? "" : ", ") + addr;
  failure_ = "the cluster did not let this node in, after " + std::to_string(kAttempts) +
             " attempts at " + asked + ": " + last_problem_ +
             ". Check cluster.join_addr, and that the cluster has a leader (seshat status)";
}

inline void Joining::ask(const std::string& addr) {
  asking_ = true;
  CallRequest request;
  request.from = hello_.node_id;
  request.cluster_id = hello_.cluster_id;
  request.join = JoinRequest{hello_};
  ask_(addr, std::move(request), [this, addr](const Result<CallReply>& answer) {
    asking_ = false;
    heard(addr, answer);
  });
}

inline void Joining::heard(const std::string& addr, const Result<CallReply>& answer) {
  if (!answer) {
    last_problem_ = answer.error().text;
    return ask_next();
  }
  switch (answer->status) {
    case CallStatus::kAccepted:
      if (answer->membership) membership_ = *answer->membership;
      if (!membership_) failure_ = addr + " let this node in, but did not say who the members are";
      return;
    case CallStatus::kNotLeader:
      last_problem_ = addr + " says: " + answer->reason;
      learn(answer->leader_addr);
      // Two nodes may each believe that the other one leads.
      if (!answer->leader_addr.empty() && ++redirects_ <= 3) return ask(answer->leader_addr);
      return ask_next();
    case CallStatus::kNotReady:
      last_problem_ = addr + " says: " + answer->reason;
      return ask_next();
    case CallStatus::kDuplicateId:
    case CallStatus::kWrongCluster:
    case CallStatus::kRefused:
      failure_ = "the cluster refuses this node: " + answer->reason;
      return;
  }
}

inline void Joining::learn(const std::string& addr) {
  if (addr.empty() || std::find(addrs_.begin(), addrs_.end(), addr) != addrs_.end()) return;
  addrs_.push_back(addr);
}

}  // namespace seshat

#endif  // SESHAT_JOINING_HPP
