// A Database and a Site in memory, for tests of commands and connections: keys in a std::map, an
// answer to every proposal when the test says so, a disk that is slow when the test says so.
#ifndef SESHAT_TESTS_MEMORY_DATABASE_HPP
#define SESHAT_TESTS_MEMORY_DATABASE_HPP

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "seshat/codec.hpp"
#include "seshat/command.hpp"

namespace seshat::tests {

class MemoryMap final : public OrderedMap {
 public:
  [[nodiscard]] Lookup get(std::string_view key, std::string& value) const override {
    if (answer != Lookup::kFound) return answer;
    const auto found = bytes.find(key);
    if (found == bytes.end()) return Lookup::kAbsent;
    value = found->second;
    return Lookup::kFound;
  }
  // As if a SET had been applied.
  void set(std::string_view key, std::string_view value) {
    StoredValue stored;
    stored.data = value;
    std::string map_key;
    std::string record;
    value_key(key, map_key);
    codec::encode(stored, record);
    bytes[map_key] = record;
  }

  std::map<std::string, std::string, std::less<>> bytes;
  Lookup answer = Lookup::kFound;  // anything else is what every get() answers
};

inline CallReply call_reply(CallStatus status, std::string reason = {}) {
  CallReply reply;
  reply.status = status;
  reply.reason = std::move(reason);
  return reply;
}

// Proposals and reads wait in the order they came until the test lets them go.
class MemoryDatabase final : public Database {
 public:
  struct Proposed {
    GroupId group;
    OperationType type;
    std::vector<std::string> arguments;
    Waiter* waiter;
    Index index;
  };
  struct Read {
    GroupId group;
    Index after;
    Waiter* waiter;
  };

  struct Administered {
    AdminRequest request;
    std::function<void(CallReply)> done;
  };

  [[nodiscard]] std::optional<GroupId> group_of(Slot slot) const override {
    if (unserved.contains(slot)) return std::nullopt;
    return two_groups && slot >= kSlotCount / 2 ? GroupId{2} : kFirstDataGroup;
  }
  WriteMark propose(GroupId group, Operation operation, Waiter& waiter) override {
    if (refusal) {
      waiter.failed(*refusal);
      return {};
    }
    proposed.push_back({group,
                        operation.type,
                        {operation.arguments.begin(), operation.arguments.end()},
                        &waiter,
                        ++last_index});
    return {last_index};
  }
  [[nodiscard]] bool readable(GroupId group, WriteMark after, bool read_only) const override {
    return (has_lease || (read_only && serves_read_only)) && applied[group] >= after.index;
  }
  void read(GroupId group, WriteMark after, bool /*read_only*/, Waiter& waiter) override {
    if (refusal) return waiter.failed(*refusal);
    reads.push_back({group, after.index, &waiter});
  }
  [[nodiscard]] const OrderedMap& cached(GroupId) const override { return memory; }
  void read_from_disk(GroupId, std::function<void(const OrderedMap&)> work) override {
    disk_reads.push_back(std::move(work));
  }
  void post(std::function<void()> work) override { posted.push_back(std::move(work)); }
  [[nodiscard]] std::string refusal_text(Slot slot, Refusal refused,
                                         bool /*by_tls*/) const override {
    return "REFUSED " + std::to_string(slot) + " " + std::to_string(static_cast<int>(refused));
  }
  [[nodiscard]] bool disk_is_full() const override { return disk_full; }
  void administer(AdminRequest request, std::function<void(CallReply)> done) override {
    if (admin_reply) return done(*admin_reply);
    administered.push_back({request, std::move(done)});
  }

  // The oldest proposal is committed and applied.
  void apply_next(Outcome outcome = {}) {
    const Proposed next = take(proposed);
    applied[next.group] = next.index;
    if (next.type == OperationType::kSet) memory.set(next.arguments[0], next.arguments[1]);
    next.waiter->done(outcome);
  }
  void fail_next(Refusal refused) { take(proposed).waiter->failed(refused); }
  // The oldest read may look now.
  void read_next() { take(reads).waiter->readable(); }
  // The cluster answers the oldest administration.
  void finish_admin(const CallReply& reply) { take(administered).done(reply); }
  void fail_next_read(Refusal refused) { take(reads).waiter->failed(refused); }
  // The pool and the loop do what waits for them.
  void finish_disk_reads() {
    while (!disk_reads.empty()) take(disk_reads)(disk);
    while (!posted.empty()) take(posted)();
  }

  MemoryMap memory;
  MemoryMap disk;
  bool has_lease = true;
  bool serves_read_only = false;  // without one, to clients that said READONLY
  bool disk_full = false;
  bool two_groups = false;
  std::optional<Refusal> refusal;
  std::set<Slot> unserved;
  std::deque<Proposed> proposed;
  std::deque<Read> reads;
  std::deque<std::function<void(const OrderedMap&)>> disk_reads;
  std::deque<std::function<void()>> posted;
  std::deque<Administered> administered;
  std::optional<CallReply> admin_reply;  // set: the answer comes at once
  Index last_index;
  mutable std::map<GroupId, Index> applied;

 private:
  template <class T>
  static T take(std::deque<T>& queue) {
    T first = std::move(queue.front());
    queue.pop_front();
    return first;
  }
};

// Three nodes, of which 1 is this one and 2 leads; 3 is down.
class FixedSite : public Site {
 public:
  FixedSite() {
    shown.self = NodeId{1};
    shown.epoch = Term{7};
    shown.ok = true;
    for (std::uint16_t id = 1; id <= 3; ++id) {
      const auto port = static_cast<std::uint16_t>(6378 + id);
      const auto peer_port = static_cast<std::uint16_t>(7378 + id);
      shown.nodes.push_back({NodeId{id}, "10.0.0." + std::to_string(id), port, peer_port, id == 2});
    }
    shown.shards = {{{{0, 16383}}, NodeId{2}, true, {NodeId{1}, NodeId{2}, NodeId{3}}}};
  }
  [[nodiscard]] Topology topology() const override { return shown; }
  [[nodiscard]] ClusterStatus cluster_status() const override { return status; }
  void append_info(std::string_view section, std::string& out) const override {
    out += "about:" + std::string(section) + "\r\n";
  }
  [[nodiscard]] std::vector<std::pair<std::string, std::string>> settings() const override {
    return {{"appendonly", "yes"}, {"maxclients", "10000"}, {"save", ""}};
  }
  void for_each_session(const std::function<void(const Session&)>& visit) const override {
    for (const Session* session : sessions) visit(*session);
  }
  [[nodiscard]] std::uint64_t now_ms() const override { return clock_ms; }
  [[nodiscard]] std::uint64_t now_us() const override { return clock_us += tick_us; }
  [[nodiscard]] std::uint64_t wall_us() const override { return 1'700'000'000'123'456; }
  [[nodiscard]] std::optional<std::size_t> replicas_with_all() const override { return replicas; }
  [[nodiscard]] Door& door() override { return the_door; }
  [[nodiscard]] std::optional<std::string> change_settings(
      std::span<const std::string_view> names_and_values) override {
    changed.assign(names_and_values.begin(), names_and_values.end());
    return change_error;
  }
  // None of these is closed, but for `self`.
  std::size_t kill_sessions(const std::function<bool(const Session&)>& matches,
                            Session& self) override {
    killed.clear();
    for (const Session* session : sessions) {
      if (!matches(*session)) continue;
      killed.push_back(session->id);
      if (session == &self) self.close_after_reply = true;
    }
    return killed.size();
  }
  void pause_changed() override { ++pause_changes; }
  void reset_statistics() override { the_door.reset_statistics(); }
  void shut_down() override { shutting_down = true; }
  [[nodiscard]] bool is_shutting_down() const override { return shutting_down; }

  Topology shown;
  ClusterStatus status;
  std::vector<const Session*> sessions;
  std::uint64_t clock_ms = 100'000;
  mutable std::uint64_t clock_us = 0;
  std::uint64_t tick_us = 0;  // passes each time somebody looks
  std::optional<std::size_t> replicas;
  Door the_door;
  std::vector<std::string> changed;  // CONFIG SET
  std::optional<std::string> change_error;
  std::vector<std::uint64_t> killed;  // CLIENT KILL
  std::size_t pause_changes = 0;
  bool shutting_down = false;
};

}  // namespace seshat::tests

#endif  // SESHAT_TESTS_MEMORY_DATABASE_HPP
