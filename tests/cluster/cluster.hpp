// tests/cluster/cluster.hpp - a Seshat cluster of real processes on this machine.
//
//   Cluster cluster;                       three empty nodes, started; ids 1 to 3
//   const int leader = cluster.leader();   waits for one
//   cluster.kill(leader);                  kill -9; start(node), pause(node), wipe(node), ...
//
//   Cluster grows({.nodes = 1, .spares = 2});   node 1 founds; 2 and 3 have ports, and may join
//   grows.join(2, 1);                           an empty node 2, started with --join at node 1
//   grows.leave(1);                             `seshat leave 1`, until it is out
//
// When a test fails, the logs of the nodes that it ran are printed (harness.hpp).
#ifndef SESHAT_TESTS_CLUSTER_CLUSTER_HPP
#define SESHAT_TESTS_CLUSTER_CLUSTER_HPP

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "client.hpp"
#include "process.hpp"

namespace seshat::tests {

// Of a node's INFO: name -> value.
using Info = std::map<std::string, std::string>;
[[nodiscard]] Info parse_info(std::string_view text);
[[nodiscard]] std::uint64_t number(const Info& info, const std::string& name);

class Cluster;

// For when a test fails: the logs of the nodes that it ran.
struct LogKeeper {
  std::string kept;               // of clusters that are gone
  std::set<const Cluster*> live;  // of these the logs are still to be read
};
[[nodiscard]] LogKeeper& log_keeper();

struct ClusterOptions {
  int nodes = 3;   // they found the cluster
  int spares = 0;  // of the ids behind those: may join later
  bool started = true;
  std::map<std::string, std::string> settings = {};  // "raft.lease_ms" -> as TOML has it
  Process::Variables variables = {};                 // in the environment of every node
};

class Cluster {
 public:
  explicit Cluster(ClusterOptions options = {});
  ~Cluster();
  Cluster(const Cluster&) = delete;
  Cluster& operator=(const Cluster&) = delete;

  // ---- nodes
  void start(int node);
  void start_all();
  void kill(int node) { process(node).kill_now(); }
  void kill(const std::vector<int>& nodes);  // all get the signal before one is waited for
  void pause(int node);
  void resume(int node);
  // Loses its data directory. The node must not run.
  void wipe(int node) { std::filesystem::remove_all(data_dir(node)); }
  // For this node alone, from its next start on.
  void set_variables(int node, Process::Variables variables) {
    own_variables_[node] = std::move(variables);
  }
  void set_settings(int node, std::map<std::string, std::string> settings) {
    own_settings_[node] = std::move(settings);
    write_text(config_file(node), config_text(node));
  }

  // ---- members
  // In place of start(): the program itself, with these arguments.
  void start_as(int node, std::vector<std::string> arguments);
  // Starts `node`, which must not run, to join the cluster of `member`: with what its data directory
  // holds, so usually after wipe().
  void join(int node, int member);
  // `seshat leave`, by the node `at`. Then it is none of nodes() any more, and may end by itself.
  [[nodiscard]] Finished leave(int node, int at, bool force = false);
  // nodes() without it, and with it.
  void forget(int node) { nodes_.erase(node); }
  void count_in(int node) { nodes_.insert(node); }
  // The program itself, with these arguments; --addr is that of the node `at`.
  enum class Shown : std::uint8_t { kBoth, kOutput };  // with stderr, or stdout alone
  [[nodiscard]] Finished admin(int at, std::vector<std::string> arguments,
                               Shown shown = Shown::kBoth) const;
  // As `at` says by SESHAT.MEMBERS: id -> state; empty: it does not answer.
  [[nodiscard]] std::map<int, std::string> members(int at) const;
  // By the configuration of a group that `at` has in force: its voters, outgoing or learners.
  [[nodiscard]] std::set<int> configured(int at, int group, const std::string& as) const;
  // Until all of `ids` that run say the same: these are the voters of every group, and no change is
  // under way.
  [[nodiscard]] bool has_members(const std::set<int>& ids, Milliseconds bound = 30s);

  [[nodiscard]] Process& process(int node) { return *processes_.at(node); }
  [[nodiscard]] bool running(int node);
  [[nodiscard]] bool was_started(int node) const { return processes_.contains(node); }
  // Those that are members, as far as the test knows: the founders, with who joined and left.
  [[nodiscard]] std::vector<int> nodes() const { return {nodes_.begin(), nodes_.end()}; }
  // All that could be.
  [[nodiscard]] std::vector<int> nodes_and_spares() const;
  [[nodiscard]] std::vector<int> others(int node) const;  // all but this one
  [[nodiscard]] int node_at(Port port) const;

  // ---- what is where
  [[nodiscard]] Port port(int node) const { return client_ports_.at(node).number(); }
  [[nodiscard]] std::vector<Port> ports() const;  // of nodes_and_spares()
  [[nodiscard]] Port peer_port(int node) const { return peer_ports_.at(node).number(); }
  [[nodiscard]] std::string client_addr(int node) const {
    return "127.0.0.1:" + std::to_string(port(node));
  }
  [[nodiscard]] std::string peer_addr(int node) const {
    return "127.0.0.1:" + std::to_string(peer_port(node));
  }
  [[nodiscard]] std::filesystem::path data_dir(int node) const { return file(node, "data"); }
  [[nodiscard]] std::filesystem::path config_file(int node) const { return file(node, "toml"); }
  [[nodiscard]] std::string log(int node) const { return read_text(file(node, "log")); }
  [[nodiscard]] std::string all_logs() const;  // the end of each, under a headline
  [[nodiscard]] const std::filesystem::path& dir() const { return dir_.path(); }

  // ---- talking to it
  [[nodiscard]] Client client(int node) const { return Client(port(node)); }
  [[nodiscard]] ClusterClient cluster_client(Milliseconds timeout = 15s) const {
    return ClusterClient(ports(), timeout);
  }
  // nullopt: it does not answer.
  [[nodiscard]] std::optional<Info> info(int node, const std::string& section) const;
  // Throws where info() answers nothing.
  [[nodiscard]] std::uint64_t figure(int node, const std::string& section,
                                     const std::string& name) const;

  // ---- waiting
  // The node that leads the data group, by its own word and in the highest term; it waits for one.
  [[nodiscard]] int leader(Milliseconds bound = 10s);
  [[nodiscard]] std::optional<int> leader_now();
  // One after `old`, that is neither paused nor `old` itself.
  [[nodiscard]] int leader_after(int old, Milliseconds bound = 10s);
  [[nodiscard]] std::vector<int> followers() { return others(leader()); }
  // Until every running node has applied everything that the leader has in its log.
  [[nodiscard]] bool caught_up(Milliseconds bound = 20s);
  // Until, beside that, every running node knows who is in the cluster: what keeps a wiped node out.
  [[nodiscard]] bool settled(Milliseconds bound = 20s);
  // For when one of these waits in vain: what INFO raft of each node says.
  [[nodiscard]] std::string states() const;
  [[nodiscard]] bool log_says(int node, const std::string& text, Milliseconds bound = 5s) const;

 private:
  [[nodiscard]] std::filesystem::path file(int node, const std::string& extension) const {
    return dir_.path() / ("node-" + std::to_string(node) + "." + extension);
  }
  [[nodiscard]] std::string config_text(int node) const;

  TempDir dir_;
  ClusterOptions options_;
  std::map<int, ReservedPort> client_ports_;
  std::map<int, ReservedPort> peer_ports_;
  std::map<int, Process::Variables> own_variables_;
  std::map<int, std::map<std::string, std::string>> own_settings_;
  std::map<int, std::unique_ptr<Process>> processes_;
  std::set<int> paused_;
  std::set<int> nodes_;
  std::map<int, int> joined_at_;  // node -> whom it asks to be let in; the rest are founders
};

// =================================================================================================
// Bodies
// =================================================================================================

inline Info parse_info(std::string_view text) {
  Info info;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find("\r\n"), text.size());
    const std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 2, text.size()));
    const std::size_t colon = line.find(':');
    if (colon == std::string_view::npos) continue;
    info[std::string(line.substr(0, colon))] = line.substr(colon + 1);
  }
  return info;
}

inline std::uint64_t number(const Info& info, const std::string& name) {
  const auto found = info.find(name);
  if (found == info.end()) throw std::runtime_error("INFO has no " + name);
  return std::stoull(found->second);
}

inline Cluster::Cluster(ClusterOptions options) : options_(std::move(options)) {
  for (const int node : nodes_and_spares()) {
    client_ports_[node];
    peer_ports_[node];
  }
  for (int node = 1; node <= options_.nodes; ++node) nodes_.insert(node);
  for (const int node : nodes()) write_text(config_file(node), config_text(node));
  log_keeper().live.insert(this);
  if (options_.started) start_all();
}

inline Cluster::~Cluster() {
  kill(nodes_and_spares());
  log_keeper().live.erase(this);
  log_keeper().kept += all_logs();
}

inline LogKeeper& log_keeper() {
  static LogKeeper keeper;
  return keeper;
}

inline std::string Cluster::all_logs() const {
  constexpr std::size_t kEnd = 16'384;
  std::string logs;
  for (const int node : nodes_and_spares()) {
    const std::string text = log(node);
    if (text.empty()) continue;
    const std::size_t from = text.size() > kEnd ? text.find('\n', text.size() - kEnd) + 1 : 0;
    logs += "---- log of node " + std::to_string(node) + " (" + client_addr(node) + ")" +
            (from != 0 ? ", its end" : "") + "\n" + text.substr(from);
  }
  return logs;
}

// ---- Nodes --------------------------------------------------------------------------------------------

inline std::string Cluster::config_text(int node) const {
  const auto quoted = [](const std::string& text) { return '"' + text + '"'; };
  std::map<std::string, std::string> settings = {
      {"node.id", std::to_string(node)},
      {"node.client_addr", quoted(client_addr(node))},
      {"node.data_dir", quoted(data_dir(node).string())},
      {"limits.min_free_disk_mb", "16"},
  };
  if (peer_ports_.size() > 1) settings["node.internal_addr"] = quoted(peer_addr(node));
  std::string members;
  for (int member = 1; member <= options_.nodes; ++member) {
    members += "{id = " + std::to_string(member) + ", addr = " + quoted(peer_addr(member)) + "}, ";
  }
  if (const auto joined = joined_at_.find(node); joined != joined_at_.end()) {
    settings["cluster.join_addr"] = quoted(peer_addr(joined->second));
  } else if (options_.nodes > 1) {
    settings["cluster.initial_members"] = "[" + members + "]";
  }
  for (const auto& [name, value] : options_.settings) settings[name] = value;
  if (const auto own = own_settings_.find(node); own != own_settings_.end()) {
    for (const auto& [name, value] : own->second) settings[name] = value;
  }
  // TOML takes dotted names at the top: no sections needed.
  std::string text;
  for (const auto& [name, value] : settings) text += name + " = " + value + "\n";
  return text;
}

inline void Cluster::start(int node) { start_as(node, {"--config", config_file(node).string()}); }

inline void Cluster::start_as(int node, std::vector<std::string> arguments) {
  Process::Variables variables = options_.variables;
  for (const auto& [name, value] : own_variables_[node]) variables[name] = value;
  arguments.insert(arguments.begin(), required_variable("SESHAT_BIN"));
  paused_.erase(node);
  processes_[node] = std::make_unique<Process>(arguments, file(node, "log"), variables);
}

inline void Cluster::start_all() {
  for (const int node : nodes()) start(node);
}

inline void Cluster::kill(const std::vector<int>& nodes) {
  std::vector<Process*> victims;
  for (const int node : nodes) {
    if (running(node)) victims.push_back(&process(node));
  }
  for (Process* victim : victims) (void)::kill(victim->pid(), SIGKILL);
  for (Process* victim : victims) victim->kill_now();
}

inline void Cluster::pause(int node) {
  paused_.insert(node);
  process(node).stop();
}

inline void Cluster::resume(int node) {
  paused_.erase(node);
  process(node).go_on();
}

inline bool Cluster::running(int node) {
  const auto found = processes_.find(node);
  return found != processes_.end() && found->second->running();
}

inline std::vector<int> Cluster::nodes_and_spares() const {
  std::vector<int> nodes;
  for (int node = 1; node <= options_.nodes + options_.spares; ++node) nodes.push_back(node);
  return nodes;
}

inline std::vector<int> Cluster::others(int node) const {
  std::vector<int> others = nodes();
  std::erase(others, node);
  return others;
}

inline int Cluster::node_at(Port port) const {
  for (const int node : nodes_and_spares()) {
    if (this->port(node) == port) return node;
  }
  throw std::runtime_error("no node has port " + std::to_string(port));
}

inline std::vector<Port> Cluster::ports() const {
  std::vector<Port> ports;
  for (const int node : nodes_and_spares()) ports.push_back(port(node));
  return ports;
}

// ---- Members -------------------------------------------------------------------------------------------

inline void Cluster::join(int node, int member) {
  joined_at_[node] = member;
  write_text(config_file(node), config_text(node));
  nodes_.insert(node);
  start(node);
}

inline Finished Cluster::leave(int node, int at, bool force) {
  std::vector<std::string> arguments = {"leave", std::to_string(node)};
  if (force) arguments.emplace_back("--force");
  Finished finished = admin(at, std::move(arguments));
  if (finished.status == ExitStatus{0, 0}) forget(node);
  return finished;
}

inline Finished Cluster::admin(int at, std::vector<std::string> arguments, Shown shown) const {
  std::vector<std::string> command;
  if (shown == Shown::kOutput) command = {"/bin/sh", "-c", "exec \"$0\" \"$@\" 2>/dev/null"};
  command.push_back(required_variable("SESHAT_BIN"));
  for (std::string& argument : arguments) command.push_back(std::move(argument));
  command.emplace_back("--addr");
  command.push_back(client_addr(at));
  return run(command, 90s);
}

inline std::map<int, std::string> Cluster::members(int at) const {
  std::map<int, std::string> members;
  try {
    Client client(port(at), 2s);
    client.send({"SESHAT.MEMBERS"});
    for (const resp::Value& member : client.receive_value().elements) {
      int id = 0;
      std::string state;
      for (std::size_t i = 0; i + 1 < member.elements.size(); i += 2) {
        if (member.elements[i].text == "id") id = static_cast<int>(member.elements[i + 1].integer);
        if (member.elements[i].text == "state") state = member.elements[i + 1].text;
      }
      members[id] = state;
    }
  } catch (const ConnectionError&) {
    members.clear();
  }
  return members;
}

inline std::set<int> Cluster::configured(int at, int group, const std::string& as) const {
  const Info raft = info(at, "raft").value_or(Info{});
  const auto found = raft.find("raft_group_" + std::to_string(group) + "_" + as);
  std::set<int> nodes;
  if (found == raft.end()) return nodes;
  std::istringstream list(found->second);
  for (std::string node; std::getline(list, node, ',');) nodes.insert(std::stoi(node));
  return nodes;
}

inline bool Cluster::has_members(const std::set<int>& ids, Milliseconds bound) {
  const auto agrees = [&](int node) {
    std::set<int> active;
    for (const auto& [id, state] : members(node)) {
      if (state != "active" && state != "removed") return false;
      if (state == "active") active.insert(id);
    }
    bool same = active == ids;
    for (const int group : {0, 1}) {
      same = same && configured(node, group, "voters") == ids &&
             configured(node, group, "outgoing").empty() &&
             configured(node, group, "learners").empty();
    }
    return same;
  };
  return eventually(bound, [&] {
    return std::all_of(ids.begin(), ids.end(),
                       [&](int node) { return !running(node) || agrees(node); });
  });
}

// ---- Talking to it, waiting for it ------------------------------------------------------------------------

inline std::optional<Info> Cluster::info(int node, const std::string& section) const {
  try {
    Client client(port(node), 2s);
    return parse_info(client.ask("INFO", section));
  } catch (const ConnectionError&) {
    return std::nullopt;
  }
}

inline std::uint64_t Cluster::figure(int node, const std::string& section,
                                     const std::string& name) const {
  const std::optional<Info> found = info(node, section);
  if (!found) throw std::runtime_error("node " + std::to_string(node) + " does not answer INFO");
  return number(*found, name);
}

inline std::optional<int> Cluster::leader_now() {
  std::optional<int> leader;
  std::uint64_t term = 0;
  for (const int node : nodes()) {
    if (!running(node) || paused_.contains(node)) continue;
    const std::optional<Info> raft = info(node, "raft");
    if (!raft || raft->at("raft_group_1_role") != "leader") continue;
    if (number(*raft, "raft_group_1_term") <= term) continue;
    leader = node;
    term = number(*raft, "raft_group_1_term");
  }
  return leader;
}

inline int Cluster::leader(Milliseconds bound) { return leader_after(0, bound); }

inline int Cluster::leader_after(int old, Milliseconds bound) {
  std::optional<int> leader;
  const bool found = eventually(bound, [&] {
    leader = leader_now();
    return leader && *leader != old;
  });
  if (found) return *leader;
  throw std::runtime_error("no node leads after " + std::to_string(bound.count()) + " ms");
}

// What the leader has now, not what it gets meanwhile: under load there is always a little more.
inline bool Cluster::caught_up(Milliseconds bound) {
  std::string of;  // node and term
  std::uint64_t wanted = 0;
  return eventually(bound, [&] {
    const std::optional<int> leader = leader_now();
    const std::optional<Info> lead = leader ? info(*leader, "raft") : std::nullopt;
    if (!lead) return false;
    // Another leader may have less, of what was not committed.
    const std::string now = std::to_string(*leader) + " " + lead->at("raft_group_1_term");
    if (now != of) wanted = number(*lead, "raft_group_1_last_index");
    of = now;
    for (const int node : nodes()) {
      if (!running(node) || paused_.contains(node)) continue;
      const std::optional<Info> raft = info(node, "raft");
      if (!raft || number(*raft, "raft_group_1_applied_index") < wanted) return false;
    }
    return true;
  });
}

// The system group holds a no-op, the membership and, once nothing is missing in that, the shard map.
inline bool Cluster::settled(Milliseconds bound) {
  return caught_up(bound) && eventually(bound, [this] {
           std::set<std::string> seen;
           for (const int node : nodes()) {
             if (!running(node) || paused_.contains(node)) continue;
             const std::optional<Info> raft = info(node, "raft");
             if (!raft || number(*raft, "raft_group_0_applied_index") < 3) return false;
             seen.insert(raft->at("raft_group_0_applied_index"));
             seen.insert(raft->at("raft_group_0_last_index"));
           }
           return seen.size() == 1;
         });
}

inline std::string Cluster::states() const {
  std::string text;
  for (const int node : nodes()) {
    text += "node " + std::to_string(node) + ":";
    for (const auto& [name, value] : info(node, "raft").value_or(Info{{"silent", ""}})) {
      text += " " + name + "=" + value;
    }
    text += "\n";
  }
  return text;
}

inline bool Cluster::log_says(int node, const std::string& text, Milliseconds bound) const {
  return eventually(bound, [&] { return log(node).find(text) != std::string::npos; });
}

}  // namespace seshat::tests

#endif  // SESHAT_TESTS_CLUSTER_CLUSTER_HPP
