// seshat/config_rules.hpp - what must hold between the keys of a configuration, and what follows.
//
//   broken_rules(config, given)     every rule that the values break, as errors and warnings
//   fill_derived(config, host)      advertised addresses and members that nobody spelled out
//
// Keeps:    a configuration without errors here is safe to run: the lease ends before votes are
//           given again, no election starts between two heartbeats, every node is a member.
// Threads:  none inside; pure functions of their arguments.
// Alone:    needs config_keys.hpp and the standard library.
#ifndef SESHAT_CONFIG_RULES_HPP
#define SESHAT_CONFIG_RULES_HPP

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "seshat/config_keys.hpp"

namespace seshat::config {

struct BrokenRule {
  enum class Severity : std::uint8_t { kError, kWarning };
  Severity severity = Severity::kError;
  std::string key;      // whose value should change; may point into a list: "...members[2].addr"
  std::string partner;  // the other key of the rule, empty if none: a rule whose key or partner
                        // could not be read is not worth telling
  std::string value;    // of `key`, as shown; empty: don't show it
  std::string what;     // what is wrong and what would be right
};

// The paths of the keys that some source set; the others stand at their defaults.
using GivenKeys = std::set<std::string, std::less<>>;

// Why this can't be the secret of a cluster, if so. The value itself is not told.
[[nodiscard]] std::optional<std::string> why_not_secret(std::string_view secret);

// All that `config` breaks. Call it on values that passed `why_not`, before `fill_derived`.
[[nodiscard]] std::vector<BrokenRule> broken_rules(const Config& config, const GivenKeys& given);

// Fills what follows from other keys:
//   bootstrap              false for a node that joins
//   advertise_addr         what initial_members says for this node, else internal_addr
//   advertise_client_addr  client_addr; with client.tls_only, its host and the port for TLS
//   tls_advertise_port     tls_port
//   initial_members        this node alone, at advertise_addr (empty while peers are off); none for
//                          a node that joins: the cluster tells it
// A wildcard host becomes `host_name`, as nobody can dial 0.0.0.0.
void fill_derived(Config& config, std::string_view host_name);

// `left` must be at most `percent` of `right`, or less than that when `strictly`; both are
// integers.
struct Limit {
  std::string_view left;
  std::string_view right;
  std::int64_t percent = 100;
  bool strictly = false;
};

inline constexpr auto kLimits = std::to_array<Limit>({
    {"raft.heartbeat_interval_ms", "raft.election_timeout_min_ms", 50},
    {"raft.heartbeat_interval_ms", "raft.lease_ms", 100, true},
    {"raft.election_timeout_min_ms", "raft.election_timeout_max_ms"},
    {"raft.vote_withhold_ms", "raft.election_timeout_min_ms"},
    {"raft.lease_ms", "raft.vote_withhold_ms", 85},  // clocks may drift apart meanwhile
    {"raft.snapshot_interval_bytes", "raft.max_log_size_bytes"},
    {"limits.max_key_size_bytes", "limits.max_request_size_bytes"},
    {"limits.max_value_size_bytes", "limits.max_request_size_bytes"},
});

// ---------------------------------------------------------------------------------------------
// Bodies
// ---------------------------------------------------------------------------------------------

namespace detail {

using Severity = BrokenRule::Severity;

// Gathers broken rules; each check_ function adds those of one subject.
class RuleCheck {
 public:
  RuleCheck(const Config& config, const GivenKeys& given) : config_(config), given_(given) {}

  [[nodiscard]] std::vector<BrokenRule> run() {
    for (const Limit& limit : kLimits) check_limit(limit);
    check_joining();
    check_ports();
    check_door();
    check_client_tls();
    check_peer_tls();
    check_secret();
    check_member_count();
    check_replication_factor();
    check_members_differ();
    check_own_place_among_members();
    check_dial();
    return std::move(broken_);
  }

 private:
  void add(Severity severity, std::string key, std::string partner, std::string value,
           std::string what) {
    broken_.push_back(
        {severity, std::move(key), std::move(partner), std::move(value), std::move(what)});
  }

  [[nodiscard]] std::int64_t number(std::string_view path) const {
    return std::get<std::int64_t>(find_key(path)->get(config_));
  }

  // "cluster.initial_members[2].addr"
  [[nodiscard]] static std::string member_key(std::size_t position, std::string_view field) {
    return "cluster.initial_members[" + std::to_string(position) + "]." + std::string(field);
  }

  void check_limit(const Limit& limit);
  void check_joining();
  void check_ports();
  void check_door();
  void check_client_tls();
  void check_tls_port();
  void check_peer_tls();
  void check_secret();
  void check_member_count();
  void check_replication_factor();
  void check_members_differ();
  void check_own_place_among_members();
  void check_dial();

  const Config& config_;
  const GivenKeys& given_;
  std::vector<BrokenRule> broken_;
};

inline void RuleCheck::check_limit(const Limit& limit) {
  const std::int64_t left = number(limit.left);
  // No key named in kLimits is large enough for this product to overflow.
  const std::int64_t bound = number(limit.right) * limit.percent / 100;
  if (left < bound || (left == bound && !limit.strictly)) return;
  std::string what = limit.strictly ? "must be less than " : "must be at most ";
  if (limit.percent != 100) what += "0." + std::to_string(limit.percent) + " of ";
  what += std::string(find_key(limit.right)->name()) + " (" + std::to_string(bound) + " here)";
  add(Severity::kError, std::string(limit.left), std::string(limit.right), std::to_string(left),
      std::move(what));
}

// A node founds a cluster or joins one. What it joins tells it who the members are.
inline void RuleCheck::check_joining() {
  const Config::Cluster& cluster = config_.cluster;
  const std::string join_key = "cluster.join_addr";
  if (!config_.joins()) {
    if (cluster.bootstrap) return;
    return add(Severity::kError, "cluster.bootstrap", join_key, "false",
               "must be true for a node that starts a cluster; one that joins a cluster needs "
               "cluster.join_addr, the address of a member");
  }
  if (cluster.bootstrap && given_.contains("cluster.bootstrap")) {
    add(Severity::kError, "cluster.bootstrap", join_key, "true",
        "must be false, or not set, for a node that joins a cluster (join_addr is set)");
  }
  if (!cluster.initial_members.empty()) {
    add(Severity::kError, "cluster.initial_members", join_key, "",
        "must be empty, or not set, for a node that joins a cluster: the members tell it who they "
        "are (join_addr is set)");
  }
  if (!given_.contains("node.id")) {
    add(Severity::kWarning, "node.id", join_key, std::to_string(config_.node.id),
        "the default, which some member most likely has: a node that joins needs a number of its "
        "own");
  }
  if (!config_.listens_for_peers()) {
    add(Severity::kError, "node.internal_addr", join_key, show(config_.node.internal_addr),
        "must be set for a node that joins a cluster: the members connect to it there");
  }
  if (cluster.join_addr == config_.node.internal_addr ||
      cluster.join_addr == config_.node.advertise_addr) {
    add(Severity::kError, join_key, "node.internal_addr", show(cluster.join_addr),
        "must be the address of another node");
  }
}

inline void RuleCheck::check_ports() {
  const auto clients = split_address(config_.node.client_addr);
  const auto peers = split_address(config_.node.internal_addr);
  const std::string shown = show(config_.node.internal_addr);
  if (!peers) {
    if (!config_.node.advertise_addr.empty()) {
      add(Severity::kError, "node.advertise_addr", "node.internal_addr",
          show(config_.node.advertise_addr),
          "peers can't reach a node that doesn't listen for them; set node.internal_addr");
    }
    return;
  }
  const bool overlap = clients && clients->port == peers->port &&
                       (clients->host == peers->host || is_wildcard_host(clients->host) ||
                        is_wildcard_host(peers->host));
  if (overlap) {
    add(Severity::kError, "node.internal_addr", "node.client_addr", shown,
        "must have another port than node.client_addr (" + config_.node.client_addr + ")");
  }
  if (!is_loopback_host(peers->host) && !config_.has_peer_tls() && !config_.has_secret()) {
    add(Severity::kWarning, "node.internal_addr", "", shown,
        "whoever reaches this port can take part in the cluster: there is neither TLS between "
        "nodes "
        "(peer_tls) nor a secret (cluster.secret); let only the cluster's own network reach it");
  }
}

// Where other machines can connect, and no password is asked for.
inline void RuleCheck::check_door() {
  const auto clients = split_address(config_.node.client_addr);
  if (!clients || is_loopback_host(clients->host) || !config_.client.requirepass.empty()) return;
  const bool is_protected = config_.client.protected_mode;
  const bool wants_certificate =
      config_.client.tls_only && config_.client.tls_auth_clients == Config::TlsAuthClients::kYes;
  if (wants_certificate && !is_protected) return;
  add(Severity::kWarning, "node.client_addr", "client.requirepass", show(config_.node.client_addr),
      is_protected
          ? "without a password only clients of this machine are served: set client.requirepass, "
            "or client.protected_mode = false in a network that you trust"
          : "whoever reaches this address may read and write everything: there is no password "
            "(client.requirepass)");
}

// A port, and what it takes.
inline void RuleCheck::check_client_tls() {
  const Config::Client& client = config_.client;
  const std::string port_key = "client.tls_port";
  if (client.tls_port == 0) {
    if (client.tls_only) {
      add(Severity::kError, "client.tls_only", port_key, "true",
          "must be false while there is no port for TLS: set client.tls_port");
    }
    for (const char* key : {"client.tls_cert_file", "client.tls_key_file"}) {
      if (!given_.contains(key)) continue;
      add(Severity::kWarning, key, port_key, show(find_key(key)->get(config_)),
          "is of no use while there is no port for TLS: set client.tls_port");
    }
    return;
  }
  check_tls_port();
  const std::string why = ", for a port for TLS is set (client.tls_port)";
  if (client.tls_cert_file.empty()) {
    add(Severity::kError, "client.tls_cert_file", port_key, "\"\"",
        "must name the certificate of this node" + why);
  }
  if (client.tls_key_file.empty()) {
    add(Severity::kError, "client.tls_key_file", port_key, "\"\"",
        "must name the private key of this node's certificate" + why);
  }
  if (client.tls_auth_clients != Config::TlsAuthClients::kNo && client.tls_ca_file.empty()) {
    add(Severity::kError, "client.tls_ca_file", port_key, "\"\"",
        "must name the authority that has signed clients' certificates; or let clients in without "
        "one: client.tls_auth_clients = \"no\"");
  }
}

inline void RuleCheck::check_tls_port() {
  const std::uint64_t port = config_.client.tls_port;
  const auto clients = split_address(config_.node.client_addr);
  const auto peers = split_address(config_.node.internal_addr);
  const auto add_taken = [&](const std::string& by, const std::string& addr) {
    add(Severity::kError, "client.tls_port", by, std::to_string(port),
        "must be another port than that of " + by + " (" + addr + ")");
  };
  if (clients && clients->port == port && !config_.client.tls_only) {
    add_taken("node.client_addr", config_.node.client_addr);
  }
  if (clients && peers && peers->port == port &&
      (clients->host == peers->host || is_wildcard_host(clients->host) ||
       is_wildcard_host(peers->host))) {
    add_taken("node.internal_addr", config_.node.internal_addr);
  }
}

inline void RuleCheck::check_peer_tls() {
  constexpr std::array kFiles = {"peer_tls.cert_file", "peer_tls.key_file", "peer_tls.ca_file"};
  const auto is_set = [&](const std::string& key) {
    return !std::get<std::string>(find_key(key)->get(config_)).empty();
  };
  std::string given = is_set("peer_tls.server_name") ? "peer_tls.server_name" : "";
  for (const char* key : kFiles) {
    if (is_set(key)) given = key;
  }
  if (given.empty()) return;
  for (const char* key : kFiles) {
    if (is_set(key)) continue;
    add(Severity::kError, key, given, "\"\"",
        "must be set, as TLS between nodes needs all three: cert_file, key_file and ca_file");
  }
}

inline void RuleCheck::check_secret() {
  const std::string& secret = config_.cluster.secret;
  if (secret.empty()) return;
  if (!config_.cluster.secret_file.empty()) {
    add(Severity::kError, "cluster.secret", "cluster.secret_file", "",
        "must not be set beside cluster.secret_file: one of the two says what the secret is");
  }
  if (const auto why = why_not_secret(secret)) {
    add(Severity::kError, "cluster.secret", "", "", *why);
  }
}

inline void RuleCheck::check_member_count() {
  const std::string key = "cluster.initial_members";
  const std::size_t count = config_.cluster.initial_members.size();
  const std::string members = std::to_string(count) + (count == 1 ? " member" : " members");
  if (config_.joins()) return;  // the whole list is wrong then
  if (count == 1) {
    add(Severity::kWarning, key, "", "",
        members + " is for development only: nothing survives its loss; use 3 or 5");
  } else if (count == 2) {
    add(Severity::kError, key, "", "",
        members + " can't lose one and go on; must be 3 or more, or 1 for development");
  } else if (count > 0 && count % 2 == 0) {
    add(Severity::kWarning, key, "", "",
        members + " tolerate no more failures than " + std::to_string(count - 1) +
            "; an odd number is better");
  }
  if (count > 1 && !config_.joins() && !config_.listens_for_peers()) {
    add(Severity::kError, "node.internal_addr", key, "\"\"",
        "must be set to the host:port where the other members reach this node");
  }
}

inline void RuleCheck::check_replication_factor() {
  const std::string key = "cluster.replication_factor";
  const std::uint64_t factor = config_.cluster.replication_factor;
  const std::size_t count = config_.cluster.initial_members.size();
  if (factor % 2 == 0) {
    add(Severity::kError, key, "", std::to_string(factor),
        "must be odd: " + std::to_string(factor - 1) + " or " + std::to_string(factor + 1));
  } else if (count > 1 && factor > count && given_.contains(key)) {
    add(Severity::kWarning, key, "cluster.initial_members", std::to_string(factor),
        "more than the number of initial_members (" + std::to_string(count) +
            " here): each holds a copy, and there are no more until the cluster has grown");
  }
}

inline void RuleCheck::check_members_differ() {
  const std::vector<Config::Member>& members = config_.cluster.initial_members;
  for (std::size_t i = 1; i < members.size(); ++i) {
    const auto earlier = std::span(members).first(i);
    if (std::ranges::count(earlier, members[i].id, &Config::Member::id) != 0) {
      add(Severity::kError, member_key(i, "id"), "", std::to_string(members[i].id),
          "must be a number that no other member has");
    }
    if (std::ranges::count(earlier, members[i].addr, &Config::Member::addr) != 0) {
      add(Severity::kError, member_key(i, "addr"), "", show(members[i].addr),
          "must be an address that no other member has");
    }
  }
}

inline void RuleCheck::check_own_place_among_members() {
  const std::vector<Config::Member>& members = config_.cluster.initial_members;
  if (members.empty() || config_.joins()) return;
  if (std::ranges::count(members, config_.node.id, &Config::Member::id) != 0) return;
  std::string ids;
  for (const Config::Member& member : members) {
    if (!ids.empty()) ids += ", ";
    ids += std::to_string(member.id);
  }
  add(Severity::kError, "node.id", "cluster.initial_members", std::to_string(config_.node.id),
      "must be the id of one of initial_members (" + ids + ")");
}

inline void RuleCheck::check_dial() {
  const std::vector<Config::Member>& members = config_.cluster.initial_members;
  for (const auto& [id, address] : config_.cluster.dial) {
    const std::string key = "cluster.dial[" + std::to_string(id) + "]";
    if (id == config_.node.id) {
      add(Severity::kError, key, "node.id", show(address),
          "must name another member: a node doesn't dial itself");
    } else if (!config_.joins() && std::ranges::count(members, id, &Config::Member::id) == 0) {
      add(Severity::kWarning, key, "cluster.initial_members", show(address),
          "initial_members names no member with this id: it is for one that joins later");
    }
  }
}

}  // namespace detail

inline std::optional<std::string> why_not_secret(std::string_view secret) {
  constexpr std::size_t kMinSizeBytes = 16;
  constexpr std::size_t kMaxSizeBytes = 512;
  if (secret.find(' ') != std::string_view::npos) {
    return "must have no blanks; `openssl rand -hex 32` makes a good one";
  }
  if (secret.size() >= kMinSizeBytes && secret.size() <= kMaxSizeBytes) return std::nullopt;
  return "must have " + std::to_string(kMinSizeBytes) + " to " + std::to_string(kMaxSizeBytes) +
         " characters (" + std::to_string(secret.size()) +
         " here); `openssl rand -hex 32` makes a good one";
}

inline std::vector<BrokenRule> broken_rules(const Config& config, const GivenKeys& given) {
  return detail::RuleCheck(config, given).run();
}

namespace detail {

// `address` with its host replaced if nobody could dial it.
[[nodiscard]] inline std::string diallable(const std::string& address, std::string_view host_name) {
  const std::optional<HostPort> parts = split_address(address);
  if (!parts || !is_wildcard_host(parts->host)) return address;
  return join_address(host_name, parts->port);
}

}  // namespace detail

inline void fill_derived(Config& config, std::string_view host_name) {
  Config::Node& node = config.node;
  std::vector<Config::Member>& members = config.cluster.initial_members;
  const auto self = std::ranges::find(members, node.id, &Config::Member::id);
  if (node.advertise_addr.empty()) {
    node.advertise_addr = self != members.end() && !node.internal_addr.empty()
                              ? self->addr
                              : detail::diallable(node.internal_addr, host_name);
  }
  if (config.client.tls_port == 0) {
    config.client.tls_advertise_port = 0;
  } else if (config.client.tls_advertise_port == 0) {
    config.client.tls_advertise_port = config.client.tls_port;
  }
  if (node.advertise_client_addr.empty()) {
    node.advertise_client_addr = detail::diallable(node.client_addr, host_name);
    if (const auto parts = split_address(node.advertise_client_addr);
        parts && config.client.tls_only) {
      node.advertise_client_addr =
          join_address(parts->host, static_cast<std::uint16_t>(config.client.tls_advertise_port));
    }
  }
  if (config.joins()) {
    config.cluster.bootstrap = false;
  } else if (members.empty()) {
    members.push_back({node.id, node.advertise_addr});
  }
}

}  // namespace seshat::config

#endif  // SESHAT_CONFIG_RULES_HPP
