// seshat/server_commands.hpp - INFO, COMMAND, CONFIG and CLUSTER: what clients ask about the node
// and the cluster around it.
//
// All answer at once, from the Site, and never touch Raft. Replies have the shapes of Redis 7.0.
//
// Threads: the loop. Needs: command.hpp.
#ifndef SESHAT_SERVER_COMMANDS_HPP
#define SESHAT_SERVER_COMMANDS_HPP

#include <algorithm>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "seshat/command.hpp"
#include "seshat/slots.hpp"

namespace seshat::server_commands {

void info(const Call& call);
void config_get(const Call& call);

void cluster_info(const Call& call);
void cluster_key_slot(const Call& call);
void cluster_links(const Call& call);
void cluster_my_id(const Call& call);
void cluster_nodes(const Call& call);
void cluster_shards(const Call& call);
void cluster_slots(const Call& call);

// COMMAND and its subcommands tell of the table that they stand in themselves.
void command_all(CommandTable table, resp::Writer& reply);
void command_docs(CommandTable table, Args names, resp::Writer& reply);
void command_info(CommandTable table, Args names, resp::Writer& reply);
void command_list(CommandTable table, Args filters, resp::Writer& reply);
void command_get_keys(CommandTable table, Args args, resp::Writer& reply);
void command_get_keys_and_flags(CommandTable table, Args args, resp::Writer& reply);

// =================================================================================================
// Bodies
// =================================================================================================

// ---- INFO, CONFIG -------------------------------------------------------------------------------

namespace detail {

// No section and "default" mean all but the long ones, "all" and "everything" those too.
inline bool section_is_wanted(Args wanted, std::string_view section) {
  const bool by_default = section != "commandstats";
  if (wanted.empty()) return by_default;
  return std::any_of(wanted.begin(), wanted.end(), [&](std::string_view name) {
    return equals_ignoring_case(name, section) || equals_ignoring_case(name, "all") ||
           equals_ignoring_case(name, "everything") ||
           (by_default && equals_ignoring_case(name, "default"));
  });
}

}  // namespace detail

// INFO [section ...]
inline void info(const Call& call) {
  const Args wanted = call.args.subspan(1);
  std::string text;
  for (const std::string_view section : kInfoSections) {
    if (!detail::section_is_wanted(wanted, section)) continue;
    if (!text.empty()) text += "\r\n";
    std::string title = section == "cpu" ? "CPU" : std::string(section);
    title[0] = to_upper(title.substr(0, 1))[0];
    text += "# " + title + "\r\n";
    call.site.append_info(section, text);
  }
  call.reply().verbatim("txt", text);
}

inline void config_get(const Call& call) {
  std::vector<std::pair<std::string, std::string>> found;
  for (auto& setting : call.site.settings()) {
    for (const std::string_view pattern : call.args.subspan(2)) {
      if (!glob_matches(pattern, setting.first, Case::kInsensitive)) continue;
      found.push_back(std::move(setting));
      break;
    }
  }
  resp::Writer reply = call.reply();
  reply.map(found.size());
  for (const auto& [name, value] : found) {
    reply.bulk(name);
    reply.bulk(value);
  }
}

// ---- CLUSTER ------------------------------------------------------------------------------------

inline void cluster_info(const Call& call) {
  const Topology topology = call.site.topology();
  const std::string epoch = std::to_string(topology.epoch.value);
  std::size_t slots = 0;
  for (const ClusterShard& shard : topology.shards) {
    for (const SlotRange& range : shard.slots) slots += range.last - range.first + 1U;
  }
  const std::string assigned = std::to_string(slots);
  const std::string size = std::to_string(topology.shards.size());
  call.reply().verbatim(
      "txt",
      "cluster_state:" + std::string(topology.ok ? "ok" : "fail") + "\r\ncluster_slots_assigned:" +
          assigned + "\r\ncluster_slots_ok:" + (topology.ok ? assigned : "0") +
          "\r\ncluster_slots_pfail:0\r\n" + "cluster_slots_fail:" + (topology.ok ? "0" : assigned) +
          "\r\ncluster_known_nodes:" + std::to_string(topology.nodes.size()) + "\r\ncluster_size:" +
          size + "\r\ncluster_current_epoch:" + epoch + "\r\ncluster_my_epoch:" + epoch +
          "\r\ncluster_stats_messages_sent:0\r\n" + "cluster_stats_messages_received:0\r\n" +
          "total_cluster_links_buffer_limit_exceeded:0\r\n");
}

inline void cluster_key_slot(const Call& call) { call.reply().integer(slot_of(call.args[2])); }

// Of what Redis tells of a link, direction and node are known here.
inline void cluster_links(const Call& call) {
  const Topology topology = call.site.topology();
  std::vector<NodeId> connected;
  for (const ClusterNode& node : topology.nodes) {
    if (node.connected && node.id != topology.self) connected.push_back(node.id);
  }
  resp::Writer reply = call.reply();
  reply.array(connected.size());
  for (const NodeId node : connected) {
    reply.map(2);
    reply.bulk("direction");
    reply.bulk("to");
    reply.bulk("node");
    reply.bulk(cluster_node_name(node));
  }
}

inline void cluster_my_id(const Call& call) {
  call.reply().bulk(cluster_node_name(call.site.topology().self));
}

namespace detail {

inline const ClusterShard* shard_of(const Topology& topology, NodeId node) {
  for (const ClusterShard& shard : topology.shards) {
    if (std::find(shard.replicas.begin(), shard.replicas.end(), node) != shard.replicas.end()) {
      return &shard;
    }
  }
  return nullptr;
}

inline std::string slots_text(const ClusterShard& shard) {
  std::string text;
  for (const SlotRange& range : shard.slots) {
    text += " " + std::to_string(range.first);
    if (range.last != range.first) text += "-" + std::to_string(range.last);
  }
  return text;
}

// A line of CLUSTER NODES: id, ip:port@bus port, flags, its master, ping, pong, epoch, link, slots.
inline std::string node_line(const Topology& topology, const ClusterNode& node,
                             const Session& session) {
  const ClusterShard* shard = shard_of(topology, node.id);
  const bool leads = shard != nullptr && shard->leader == node.id;
  const bool self = node.id == topology.self;
  const bool up = self || node.connected;
  std::string line = cluster_node_name(node.id) + " " + node.host + ":" +
                     std::to_string(node.port_for(session)) + "@" + std::to_string(node.peer_port) +
                     " ";
  line += self ? "myself," : "";
  line += leads ? "master" : "slave";
  line += up ? " " : ",fail? ";
  line += leads || shard == nullptr || shard->leader == NodeId{} ? "-"
                                                                 : cluster_node_name(shard->leader);
  line += " 0 0 " + std::to_string(topology.epoch.value);
  line += up ? " connected" : " disconnected";
  return line + (leads ? slots_text(*shard) : "") + "\n";
}

inline void slots_node(const ClusterNode& node, const Session& session, resp::Writer& reply) {
  reply.array(4);
  reply.bulk(node.host);
  reply.integer(node.port_for(session));
  reply.bulk(cluster_node_name(node.id));
  reply.map(0);  // no other addresses
}

// The leader first, then the nodes that are up; nodes whose client address is not known are left
// out, for no client could use them.
inline std::vector<const ClusterNode*> reachable(const Topology& topology,
                                                 const ClusterShard& shard) {
  std::vector<const ClusterNode*> nodes;
  const auto add = [&](NodeId id) {
    const ClusterNode* node = topology.find(id);
    if (node != nullptr && !node->host.empty()) nodes.push_back(node);
  };
  add(shard.leader);
  for (const NodeId id : shard.replicas) {
    const ClusterNode* node = topology.find(id);
    const bool up = node != nullptr && (node->connected || id == topology.self);
    if (id != shard.leader && up) add(id);
  }
  return nodes;
}

inline void shards_node(const ClusterNode& node, bool leads, bool up, resp::Writer& reply) {
  reply.map(node.tls_port != 0 ? 8 : 7);
  reply.bulk("id");
  reply.bulk(cluster_node_name(node.id));
  reply.bulk("port");
  reply.integer(node.port);
  if (node.tls_port != 0) {
    reply.bulk("tls-port");
    reply.integer(node.tls_port);
  }
  reply.bulk("ip");
  reply.bulk(node.host);
  reply.bulk("endpoint");
  reply.bulk(node.host);
  reply.bulk("role");
  reply.bulk(leads ? "master" : "replica");
  reply.bulk("replication-offset");
  reply.integer(0);
  reply.bulk("health");
  reply.bulk(up ? "online" : "fail");
}

}  // namespace detail

inline void cluster_nodes(const Call& call) {
  const Topology topology = call.site.topology();
  std::string text;
  for (const ClusterNode& node : topology.nodes) {
    if (!node.host.empty()) text += detail::node_line(topology, node, call.session);
  }
  call.reply().verbatim("txt", text);
}

// A shard whose leader was never known is left out: clients ask again, instead of trusting a guess.
inline void cluster_slots(const Call& call) {
  const Topology topology = call.site.topology();
  std::vector<std::pair<SlotRange, const ClusterShard*>> ranges;
  for (const ClusterShard& shard : topology.shards) {
    const ClusterNode* leader = topology.find(shard.leader);
    if (leader == nullptr || leader->host.empty()) continue;
    for (const SlotRange& range : shard.slots) ranges.emplace_back(range, &shard);
  }
  resp::Writer reply = call.reply();
  reply.array(ranges.size());
  for (const auto& [range, shard] : ranges) {
    const auto nodes = detail::reachable(topology, *shard);
    reply.array(2 + nodes.size());
    reply.integer(range.first);
    reply.integer(range.last);
    for (const ClusterNode* node : nodes) detail::slots_node(*node, call.session, reply);
  }
}

inline void cluster_shards(const Call& call) {
  const Topology topology = call.site.topology();
  resp::Writer reply = call.reply();
  reply.array(topology.shards.size());
  for (const ClusterShard& shard : topology.shards) {
    reply.map(2);
    reply.bulk("slots");
    reply.array(2 * shard.slots.size());
    for (const SlotRange& range : shard.slots) {
      reply.integer(range.first);
      reply.integer(range.last);
    }
    const auto nodes = detail::reachable(topology, shard);
    reply.bulk("nodes");
    reply.array(nodes.size());
    for (const ClusterNode* node : nodes) {
      const bool up = node->connected || node->id == topology.self;
      detail::shards_node(*node, node->id == shard.leader, up, reply);
    }
  }
}

// ---- COMMAND ------------------------------------------------------------------------------------

inline void command_all(CommandTable table, resp::Writer& reply) {
  reply.array(table.size());
  for (const Command& command : table) describe_command(command, reply);
}

namespace detail {

// "get", "client" or "client|list".
inline const Command* find_full_name(CommandTable table, std::string_view name) {
  const std::size_t bar = name.find('|');
  const Command* command = find_command(table, name.substr(0, bar));
  if (command == nullptr || bar == std::string_view::npos) return command;
  return find_command(command->subcommands, name.substr(bar + 1));
}

}  // namespace detail

inline void command_docs(CommandTable table, Args names, resp::Writer& reply) {
  std::vector<const Command*> found;
  for (const Command& command : table) {
    if (names.empty()) found.push_back(&command);
  }
  for (const std::string_view name : names) {
    const Command* command = detail::find_full_name(table, name);
    if (command != nullptr) found.push_back(command);
  }
  reply.map(found.size());
  for (const Command* command : found) document_command(*command, reply);
}

inline void command_info(CommandTable table, Args names, resp::Writer& reply) {
  if (names.empty()) return command_all(table, reply);
  reply.array(names.size());
  for (const std::string_view name : names) {
    const Command* command = detail::find_full_name(table, name);
    if (command == nullptr) {
      reply.null();
    } else {
      describe_command(*command, reply);
    }
  }
}

namespace detail {

// FILTERBY MODULE name: no command is a module's. ACLCAT category, without the @. PATTERN glob.
inline bool passes(const Command& command, std::string_view kind, std::string_view value) {
  if (equals_ignoring_case(kind, "module")) return false;
  if (equals_ignoring_case(kind, "pattern")) {
    return glob_matches(value, command.name, Case::kInsensitive);
  }
  const auto categories = command_detail::categories(command);
  return std::any_of(categories.begin(), categories.end(), [&](std::string_view category) {
    return equals_ignoring_case(category.substr(1), value);
  });
}

}  // namespace detail

// COMMAND LIST [FILTERBY MODULE name | ACLCAT category | PATTERN glob]; subcommands only with a filter.
inline void command_list(CommandTable table, Args filters, resp::Writer& reply) {
  std::vector<std::string_view> names;
  if (filters.empty()) {
    for (const Command& command : table) names.push_back(command.name);
  } else {
    const bool known =
        filters.size() == 3 && equals_ignoring_case(filters[0], "filterby") &&
        (equals_ignoring_case(filters[1], "module") || equals_ignoring_case(filters[1], "aclcat") ||
         equals_ignoring_case(filters[1], "pattern"));
    if (!known) return reply.error("ERR syntax error");
    const auto add_if_passes = [&](const Command& command) {
      if (detail::passes(command, filters[1], filters[2])) names.push_back(command.name);
    };
    for (const Command& command : table) {
      add_if_passes(command);
      for (const Command& subcommand : command.subcommands) add_if_passes(subcommand);
    }
  }
  reply.array(names.size());
  for (const std::string_view name : names) reply.bulk(name);
}

namespace detail {

// The keys of a request, or none and an error that was written.
inline std::vector<std::string_view> keys_of(CommandTable table, Args args, resp::Writer& reply) {
  std::vector<std::string_view> keys;
  const Command* command = named_by(find_command(table, args[0]), args);
  if (command == nullptr) {
    reply.error("ERR Invalid command specified");
  } else if (!arity_fits(*command, args.size())) {
    reply.error("ERR Invalid number of arguments specified for command");
  } else {
    for_each_key(*command, args, [&](std::string_view key) { keys.push_back(key); });
    if (keys.empty()) reply.error("ERR The command has no key arguments");
  }
  return keys;
}

}  // namespace detail

inline void command_get_keys(CommandTable table, Args args, resp::Writer& reply) {
  const std::vector<std::string_view> keys = detail::keys_of(table, args, reply);
  if (keys.empty()) return;
  reply.array(keys.size());
  for (const std::string_view key : keys) reply.bulk(key);
}

inline void command_get_keys_and_flags(CommandTable table, Args args, resp::Writer& reply) {
  const std::vector<std::string_view> keys = detail::keys_of(table, args, reply);
  if (keys.empty()) return;
  const std::string_view access = named_by(find_command(table, args[0]), args)->keys.access;
  reply.array(keys.size());
  for (const std::string_view key : keys) {
    reply.array(2);
    reply.bulk(key);
    command_detail::simple_strings(command_detail::split(access, ' '), reply);
  }
}

}  // namespace seshat::server_commands

#endif  // SESHAT_SERVER_COMMANDS_HPP
