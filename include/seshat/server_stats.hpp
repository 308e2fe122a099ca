// seshat/server_stats.hpp - what a server counts, for INFO's section "stats".
//
// Threads: none inside; a turn of the server's. Needs: door.hpp, process_info.hpp.
#ifndef SESHAT_SERVER_STATS_HPP
#define SESHAT_SERVER_STATS_HPP

#include <algorithm>
#include <cstdint>
#include <string>
#include <utility>

#include "seshat/door.hpp"
#include "seshat/node_info.hpp"
#include "seshat/process_info.hpp"

namespace seshat {

struct ServerStats {
  // Since the start, or CONFIG RESETSTAT
  std::uint64_t commands_processed = 0;
  std::uint64_t connections_received = 0;
  std::uint64_t connections_rejected = 0;
  std::uint64_t tls_handshakes_failed = 0;
  std::uint64_t bytes_read = 0;
  std::uint64_t bytes_written = 0;
  std::uint64_t longest_turn_us = 0;
  process_info::Rate command_rate;

  // Since the start
  std::uint64_t used_memory_peak_bytes = 0;
  std::uint64_t memory_sampled_ms = 0;

  // CONFIG RESETSTAT
  void reset();
  // What can't be counted as it happens. With each tick; asks the system once a second.
  void sample(std::uint64_t now_ms);
  // The lines of section "stats", some of which are others' to count.
  void append_info(const Door& door, std::uint64_t keys_expired, std::uint64_t now_ms,
                   std::string& out) const;
};

// =================================================================================================
// Bodies
// =================================================================================================

inline void ServerStats::reset() {
  ServerStats kept;
  kept.used_memory_peak_bytes = used_memory_peak_bytes;
  kept.memory_sampled_ms = memory_sampled_ms;
  *this = std::move(kept);
}

inline void ServerStats::sample(std::uint64_t now_ms) {
  command_rate.sample(now_ms, commands_processed);
  if (now_ms - memory_sampled_ms < 1000) return;
  memory_sampled_ms = now_ms;
  used_memory_peak_bytes = std::max(used_memory_peak_bytes, process_info::memory().used_bytes);
}

inline void ServerStats::append_info(const Door& door, std::uint64_t keys_expired,
                                     std::uint64_t now_ms, std::string& out) const {
  using node_info::line;
  line(out, "total_connections_received", connections_received);
  line(out, "rejected_connections", connections_rejected);
  line(out, "tls_handshakes_failed", tls_handshakes_failed);
  line(out, "total_commands_processed", commands_processed);
  line(out, "total_net_input_bytes", bytes_read);
  line(out, "total_net_output_bytes", bytes_written);
  line(out, "total_error_replies", door.errors());
  line(out, "keyspace_hits", door.hits());
  line(out, "keyspace_misses", door.misses());
  line(out, "expired_keys", keys_expired);
  line(out, "evicted_keys", std::uint64_t{0});
  line(out, "instantaneous_ops_per_sec", command_rate.per_sec(now_ms, commands_processed));
  line(out, "longest_loop_turn_us", longest_turn_us);
}

}  // namespace seshat

#endif  // SESHAT_SERVER_STATS_HPP
