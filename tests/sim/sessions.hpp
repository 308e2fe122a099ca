// Clients' connections to one process: the daemon's own Connection (requests as bytes, MULTI, EXEC, WATCH,
// the command table) over the simulated replica.
//
//   SessionRequest: bytes ──> Connection ──> SessionHost: propose, read, times   (process.hpp)
//                  replies <──────┘
//
// A session belongs to one life of a process: what comes for one that it does not know finds the
// connection broken, and does nothing.
#ifndef SESHAT_TESTS_SIM_SESSIONS_HPP
#define SESHAT_TESTS_SIM_SESSIONS_HPP

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "seshat/connection.hpp"
#include "seshat/resp.hpp"
#include "sim/disk.hpp"
#include "sim/world.hpp"

namespace seshat::sim {

struct SessionReply {
  bool broken = false;  // nothing of it was done: there was no such connection
  std::vector<resp::Value> replies = {};
};

struct SessionRequest {
  std::uint64_t client = 0;
  std::uint64_t connection = 0;  // of this client; a new one takes the place of the one before
  bool opens = false;
  std::string bytes;
  std::size_t replies = 0;                          // that it brings
  std::function<void(const SessionReply&)> answer;  // called once at most
};

// A process, as its clients' connections need it.
class SessionHost {
 public:
  virtual Index propose_for_client(Operation operation, Waiter& waiter) = 0;
  [[nodiscard]] virtual bool readable_for_client(Index after) const = 0;
  virtual void read_for_client(Index after, Waiter& waiter) = 0;
  [[nodiscard]] virtual const OrderedMap& rows() const = 0;
  [[nodiscard]] virtual ReadTimes read_times() const = 0;
  // On the pool; `work` posts what it found.
  virtual void on_pool(std::function<void(const OrderedMap&)> work) = 0;
  virtual void post_work(std::function<void()> work) = 0;
  [[nodiscard]] virtual NodeId known_leader() const = 0;

 protected:
  ~SessionHost() = default;
};

// What local commands may ask; no simulated client asks for more than the clock.
class SessionSite final : public Site {
 public:
  explicit SessionSite(const World& world) : world_(world) {}
  [[nodiscard]] Topology topology() const override { return {}; }
  [[nodiscard]] ClusterStatus cluster_status() const override { return {}; }
  void append_info(std::string_view, std::string&) const override {}
  [[nodiscard]] std::vector<std::pair<std::string, std::string>> settings() const override {
    return {};
  }
  void for_each_session(const std::function<void(const Session&)>&) const override {}
  [[nodiscard]] std::uint64_t now_ms() const override { return world_.now_us() / kMillisecond; }
  [[nodiscard]] std::uint64_t now_us() const override { return world_.now_us(); }
  [[nodiscard]] std::uint64_t wall_us() const override { return world_.now_us(); }
  [[nodiscard]] std::optional<std::size_t> replicas_with_all() const override { return {}; }
  [[nodiscard]] Door& door() override { return door_; }
  [[nodiscard]] std::optional<std::string> change_settings(
      std::span<const std::string_view>) override {
    return "ERR not here";
  }
  std::size_t kill_sessions(const std::function<bool(const Session&)>&, Session&) override {
    return 0;
  }
  void pause_changed() override {}
  void reset_statistics() override {}
  void shut_down() override {}
  [[nodiscard]] bool is_shutting_down() const override { return false; }

 private:
  const World& world_;
  Door door_;
};

class Sessions final : private ConnectionHost, private Database {
 public:
  Sessions(const World& world, SessionHost& host) : host_(host), site_(world) {}
  Sessions(const Sessions&) = delete;
  Sessions& operator=(const Sessions&) = delete;

  void serve(SessionRequest request);
  // At the end of a turn: whoever got replies, or may go on, is looked at.
  void turn();

 private:
  struct Client {
    std::uint64_t number = 0;  // of the connection
    std::unique_ptr<Connection> connection = nullptr;
    std::string input = {};
    std::string output = {};
    resp::ReplyParser parser = resp::ReplyParser(resp::Limits::none());
    SessionReply reply = {};
    std::size_t wanted = 0;
    std::function<void(const SessionReply&)> answer = {};
  };
  void look_at(Client& client);

  // ConnectionHost
  [[nodiscard]] Database& database() override { return *this; }
  [[nodiscard]] Site& site() override { return site_; }
  [[nodiscard]] const kv::Limits& limits() const override { return limits_; }
  void wants_attention(std::uint64_t) override { attention_ = true; }
  void count_command() override {}

  // Database
  [[nodiscard]] std::optional<GroupId> group_of(Slot) const override { return kFirstDataGroup; }
  WriteMark propose(GroupId, Operation operation, Waiter& waiter) override {
    return {host_.propose_for_client(std::move(operation), waiter)};
  }
  [[nodiscard]] bool readable(GroupId, WriteMark after, bool /*read_only*/) const override {
    return host_.readable_for_client(after.index);
  }
  void read(GroupId, WriteMark after, bool /*read_only*/, Waiter& waiter) override {
    host_.read_for_client(after.index, waiter);
  }
  [[nodiscard]] const OrderedMap& cached(GroupId) const override { return host_.rows(); }
  void read_from_disk(GroupId, std::function<void(const OrderedMap&)> work) override {
    host_.on_pool(std::move(work));
  }
  [[nodiscard]] ReadTimes times(GroupId, bool /*read_only*/) const override {
    return host_.read_times();
  }
  void post(std::function<void()> work) override { host_.post_work(std::move(work)); }
  [[nodiscard]] std::string refusal_text(Slot, Refusal refusal, bool /*by_tls*/) const override;
  [[nodiscard]] bool disk_is_full() const override { return false; }
  void administer(AdminRequest, std::function<void(CallReply)> done) override { done({}); }

  SessionHost& host_;
  SessionSite site_;
  kv::Limits limits_;
  std::map<std::uint64_t, Client> clients_;
  std::vector<std::unique_ptr<Connection>> left_;
  bool attention_ = false;
};

// The words that node.hpp finds.
inline std::string Sessions::refusal_text(Slot, Refusal refusal, bool /*by_tls*/) const {
  switch (refusal) {
    case Refusal::kTimeout:
      return "ERR timeout";
    case Refusal::kUnknown:
      return "ERR outcome unknown";
    case Refusal::kNoQuorum:
      return "NOQUORUM";
    case Refusal::kNotLeader:
      if (host_.known_leader() == NodeId{}) return "CLUSTERDOWN";
      return "MOVED " + std::to_string(host_.known_leader().value);
    default:
      return "ERR storage failure";
  }
}

// A connection that is left stays until nobody holds a Waiter of it.
inline void Sessions::serve(SessionRequest request) {
  std::erase_if(left_, [](const auto& connection) { return connection->idle(); });
  Client& client = clients_[request.client];
  if (request.opens) {
    if (client.connection) {
      client.connection->disconnected();
      left_.push_back(std::move(client.connection));
    }
    Session session;
    session.id = request.connection;
    client = {};
    client.number = request.connection;
    ConnectionHost& host = *this;
    client.connection = std::make_unique<Connection>(host, resp::Limits{}, std::move(session));
  }
  if (client.number != request.connection || !client.connection) {
    SessionReply broken;
    broken.broken = true;
    return request.answer(broken);
  }
  client.input += request.bytes;
  client.wanted = request.replies;
  client.reply = {};
  client.answer = std::move(request.answer);
  attention_ = true;
}

inline void Sessions::turn() {
  while (std::exchange(attention_, false)) {
    for (auto& [id, client] : clients_) {
      if (client.connection) look_at(client);
    }
  }
}

inline void Sessions::look_at(Client& client) {
  client.input.erase(0, client.connection->consume(client.input));
  std::string more;
  client.connection->take_output(more);
  client.output += more;
  std::string_view left = client.output;
  while (!left.empty()) {
    const resp::Status status = client.parser.parse(left);
    left.remove_prefix(client.parser.consumed());
    must(status != resp::Status::kError, "records", "a reply is not RESP");
    if (status != resp::Status::kComplete) break;
    client.reply.replies.push_back(client.parser.take());
  }
  client.output = std::string(left);
  if (!client.answer || client.reply.replies.size() < client.wanted) return;
  const auto answer = std::exchange(client.answer, nullptr);
  answer(client.reply);
}

}  // namespace seshat::sim

#endif  // SESHAT_TESTS_SIM_SESSIONS_HPP
