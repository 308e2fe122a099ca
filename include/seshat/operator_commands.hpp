// seshat/operator_commands.hpp - CONFIG SET, SLOWLOG, LATENCY, WAIT, TIME, SHUTDOWN: what whoever
// runs a node asks of it.
//
// Replies and error texts are those of Redis 7.0. Where the node can't do what Redis does, it says so
// (CONFIG REWRITE, SHUTDOWN ABORT) instead of answering OK.
//
// Threads: the loop. Needs: command.hpp.
#ifndef SESHAT_OPERATOR_COMMANDS_HPP
#define SESHAT_OPERATOR_COMMANDS_HPP

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "seshat/command.hpp"

namespace seshat::operator_commands {

void config_set(const Call& call);
void config_reset_stat(const Call& call);
void config_rewrite(const Call& call);

void slow_log_get(const Call& call);
void slow_log_len(const Call& call);
void slow_log_reset(const Call& call);

void latency_doctor(const Call& call);
void latency_history(const Call& call);
void latency_latest(const Call& call);
void latency_reset(const Call& call);

void time(const Call& call);
void wait(const Call& call);
void shutdown(const Call& call);

// =================================================================================================
// Bodies
// =================================================================================================

namespace detail {

inline void number(resp::Writer& reply, std::uint64_t value) {
  reply.integer(static_cast<std::int64_t>(value));
}

}  // namespace detail

// ---- CONFIG -------------------------------------------------------------------------------------

inline void config_set(const Call& call) {
  const Args pairs = call.args.subspan(2);
  if (pairs.size() % 2 != 0) return call.reply().error("ERR syntax error");
  const std::optional<std::string> problem = call.site.change_settings(pairs);
  if (problem) return call.reply().error(*problem);
  call.reply().simple_string("OK");
}

inline void config_reset_stat(const Call& call) {
  call.site.reset_statistics();
  call.reply().simple_string("OK");
}

inline void config_rewrite(const Call& call) {
  call.reply().error(
      "ERR Rewriting config file: not supported; what CONFIG SET changed lasts until this node "
      "ends. "
      "Write it into its configuration file");
}

// ---- SLOWLOG ------------------------------------------------------------------------------------

// SLOWLOG GET [count]: the newest ones, 10 where nobody says how many; -1: all.
inline void slow_log_get(const Call& call) {
  std::int64_t count = 10;
  if (call.args.size() > 3) {
    return call.reply().error("ERR unknown subcommand or wrong number of arguments for '" +
                              std::string(call.args[1].substr(0, 128)) + "'. Try SLOWLOG HELP.");
  }
  if (call.args.size() == 3) {
    const auto given = resp::parse_integer(call.args[2]);
    if (!given || *given < -1) {
      return call.reply().error("ERR count should be greater than or equal to -1");
    }
    count = *given;
  }
  const auto& entries = call.site.door().slow_log.entries();
  const std::size_t shown =
      count < 0 ? entries.size() : std::min(entries.size(), static_cast<std::size_t>(count));
  resp::Writer reply = call.reply();
  reply.array(shown);
  for (std::size_t i = 0; i < shown; ++i) {
    const SlowLog::Entry& entry = entries[i];
    reply.array(6);
    reply.integer(entry.id);
    detail::number(reply, entry.at_secs);
    detail::number(reply, entry.took_us);
    reply.array(entry.arguments.size());
    for (const std::string& argument : entry.arguments) reply.bulk(argument);
    reply.bulk(entry.address);
    reply.bulk(entry.name);
  }
}

inline void slow_log_len(const Call& call) {
  resp::Writer reply = call.reply();
  detail::number(reply, call.site.door().slow_log.entries().size());
}

inline void slow_log_reset(const Call& call) {
  call.site.door().slow_log.clear();
  call.reply().simple_string("OK");
}

// ---- LATENCY ------------------------------------------------------------------------------------

// Of each event: its name, when it was seen last, how long that took and how long the longest, in ms.
inline void latency_latest(const Call& call) {
  const auto& events = call.site.door().latency.events();
  resp::Writer reply = call.reply();
  reply.array(events.size());
  for (const auto& [name, event] : events) {
    reply.array(4);
    reply.bulk(name);
    detail::number(reply, event.samples.back().at_secs);
    detail::number(reply, event.samples.back().took_ms);
    detail::number(reply, event.max_ms);
  }
}

inline void latency_history(const Call& call) {
  const auto& events = call.site.door().latency.events();
  const auto found = events.find(call.args[2]);
  resp::Writer reply = call.reply();
  reply.array(found == events.end() ? 0 : found->second.samples.size());
  if (found == events.end()) return;
  for (const LatencyMonitor::Sample& sample : found->second.samples) {
    reply.array(2);
    detail::number(reply, sample.at_secs);
    detail::number(reply, sample.took_ms);
  }
}

// LATENCY RESET [event ...]: how many were forgotten.
inline void latency_reset(const Call& call) {
  LatencyMonitor& latency = call.site.door().latency;
  std::vector<std::string> names(call.args.begin() + 2, call.args.end());
  if (names.empty()) {
    for (const auto& [name, event] : latency.events()) names.push_back(name);
  }
  resp::Writer reply = call.reply();
  detail::number(reply, static_cast<std::uint64_t>(std::count_if(
                            names.begin(), names.end(),
                            [&](const std::string& name) { return latency.forget(name); })));
}

inline void latency_doctor(const Call& call) {
  const LatencyMonitor& latency = call.site.door().latency;
  std::string text;
  if (latency.threshold_ms == 0) {
    text =
        "Latency monitoring is disabled on this node. \"CONFIG SET latency-monitor-threshold "
        "<milliseconds>\" enables it.\n";
  } else if (latency.events().empty()) {
    text = "Nothing took " + std::to_string(latency.threshold_ms) + " ms or longer.\n";
  }
  for (const auto& [name, event] : latency.events()) {
    std::uint64_t sum_ms = 0;
    for (const LatencyMonitor::Sample& sample : event.samples) sum_ms += sample.took_ms;
    text += name + ": " + std::to_string(event.samples.size()) + " seconds with a spike, mean " +
            std::to_string(sum_ms / event.samples.size()) + " ms, longest ever " +
            std::to_string(event.max_ms) + " ms.\n";
  }
  call.reply().verbatim("txt", text);
}

// ---- TIME, WAIT, SHUTDOWN -----------------------------------------------------------------------

inline void time(const Call& call) {
  const std::uint64_t now_us = call.site.wall_us();
  resp::Writer reply = call.reply();
  reply.array(2);
  reply.bulk(std::to_string(now_us / 1'000'000));
  reply.bulk(std::to_string(now_us % 1'000'000));
}

// WAIT numreplicas timeout. It runs when all that this connection asked before is answered, and what
// is answered is on disk on a majority: nothing has to be waited for. The answer is how many other
// voters are known to have all that has committed, so a majority without this node at the least, and
// never one that lacks a write of this connection.
inline void wait(const Call& call) {
  const std::optional<std::size_t> replicas = call.site.replicas_with_all();
  if (!replicas) {
    return call.reply().error(
        "ERR WAIT cannot be used with replica instances. Please also note that since Redis 4.0 if "
        "a replica is configured to be writable (which is not the default) writes to replicas are "
        "just local and are not propagated.");
  }
  if (!resp::parse_integer(call.args[1])) {
    return call.reply().error("ERR value is not an integer or out of range");
  }
  const auto timeout_ms = resp::parse_integer(call.args[2]);
  if (!timeout_ms) return call.reply().error("ERR timeout is not an integer or out of range");
  if (*timeout_ms < 0) return call.reply().error("ERR timeout is negative");
  resp::Writer reply = call.reply();
  detail::number(reply, *replicas);
}

// SHUTDOWN [NOSAVE | SAVE] [NOW] [FORCE], or SHUTDOWN ABORT. All that was acknowledged is on disk
// already, and what is under way is finished, so the options change nothing. Who asked gets no reply,
// as in Redis: the connection ends with the node.
inline void shutdown(const Call& call) {
  bool save = false;
  bool no_save = false;
  bool abort = false;
  for (const std::string_view option : call.args.subspan(1)) {
    const auto is = [&](std::string_view name) { return equals_ignoring_case(option, name); };
    save = save || is("save");
    no_save = no_save || is("nosave");
    abort = abort || is("abort");
    const bool known = is("save") || is("nosave") || is("now") || is("force") || is("abort");
    if (!known) return call.reply().error("ERR syntax error");
  }
  if ((save && no_save) || (abort && call.args.size() > 2)) {
    return call.reply().error("ERR syntax error");
  }
  if (!abort) return call.site.shut_down();
  call.reply().error(call.site.is_shutting_down()
                         ? "ERR Shutdown can't be aborted any more: this node hands over."
                         : "ERR No shutdown in progress.");
}

}  // namespace seshat::operator_commands

#endif  // SESHAT_OPERATOR_COMMANDS_HPP
