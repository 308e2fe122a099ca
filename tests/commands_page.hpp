// docs/commands.md, from the table of commands.
#ifndef SESHAT_TESTS_COMMANDS_PAGE_HPP
#define SESHAT_TESTS_COMMANDS_PAGE_HPP

#include <algorithm>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "seshat/command.hpp"
#include "seshat/kv.hpp"

namespace seshat::tests {

inline std::string usage_of(const Command& command) {
  std::string usage = to_upper(command.name);
  std::replace(usage.begin(), usage.end(), '|', ' ');
  for (const std::string_view argument : command_detail::split(command.arguments, ' ')) {
    const std::vector<std::string_view> parts = command_detail::split(argument, ':');
    const auto has = [&](std::string_view flag) {
      return std::find(parts.begin() + 2, parts.end(), flag) != parts.end();
    };
    std::string shown(parts[0]);
    if (has("multiple")) shown += " ...";
    usage += has("optional") ? " [" + shown + "]" : " " + shown;
  }
  return usage;
}

inline std::string_view kind_of(const Command& command) {
  if (command.write != nullptr) return "write";
  if (command.read != nullptr) return (command.flags & kScan) != 0 ? "scan" : "read";
  return command.admin != nullptr ? "cluster" : "local";
}

inline std::string commands_page() {
  std::map<std::string, std::vector<const Command*>> groups;
  std::size_t count = 0;
  const auto add = [&](const Command& command) {
    groups[std::string(command.group)].push_back(&command);
    ++count;
  };
  for (const Command& command : kv::commands()) {
    if (command.subcommands.empty() || command.arity == -1) add(command);
    for (const Command& subcommand : command.subcommands) add(subcommand);
  }
  std::string page =
      "# Commands\n\n"
      "Made from the table in `include/seshat/kv.hpp`, as are the replies of `COMMAND`; a test "
      "compares the\n"
      "two. There are " +
      std::to_string(count) +
      ", with subcommands. `since` is the version of Redis that brought a command, of\n"
      "`SESHAT.*` ours. Options, replies and errors are those of Redis 7.0, but for what\n"
      "`tests/redis/differences.txt` lists with its reason; `SET ... IFEQ | IFNE` and `DELEX` are "
      "those of\n"
      "Redis 8.4.\n\n"
      "A `write` is acknowledged when a majority has it on disk and it is applied; a `read` is "
      "linearizable;\n"
      "a `scan` reads all keys beside the serving of clients, and is not allowed inside `MULTI`; "
      "`local`\n"
      "answers from what the node knows; `cluster` answers when the cluster has done it.\n";
  for (const auto& [group, commands] : groups) {
    page += "\n## " + group + "\n\n| command | | kind | since | |\n|---|---|---|---|---|\n";
    for (const Command* command : commands) {
      page += "| `" + usage_of(*command) + "` | " + std::string(command->summary) + " | " +
              std::string(kind_of(*command)) + " | " + std::string(command->since) + " | " +
              std::string(command->complexity) + " |\n";
    }
  }
  return page;
}

}  // namespace seshat::tests

#endif  // SESHAT_TESTS_COMMANDS_PAGE_HPP
