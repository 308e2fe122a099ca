// seshat/seshat.hpp - all of Seshat, by floor: the table of contents.
//
// Each header includes only headers of lower floors; scripts/check-floors sees to it. Read from the
// top: the heart (floors 0 to 2) does no I/O, reads no clock and starts no thread; around it stand
// adapters that each wrap one library, and on top the node and its door. docs/architecture.md tells
// the story.
#ifndef SESHAT_SESHAT_HPP
#define SESHAT_SESHAT_HPP

// Usable from anywhere: the standard library only.
#include "seshat/cpu_shortage.hpp"    // whether a thread waits for a core
#include "seshat/decimal.hpp"         // numbers with a fraction, exactly
#include "seshat/file_limit.hpp"      // as many open files as clients need
#include "seshat/fnv1a.hpp"           // the FNV-1a hash
#include "seshat/gathering.hpp"       // few large rounds where cores are short
#include "seshat/glob.hpp"            // Redis' glob patterns
#include "seshat/log.hpp"             // log lines with fields, text or JSON
#include "seshat/machine_memory.hpp"  // how much there is
#include "seshat/mailbox.hpp"         // many threads post, one owner takes
#include "seshat/result.hpp"          // a value, or the reason why there is none
#include "seshat/row_cache.hpp"       // rows of a disk that were used of late
#include "seshat/row_table.hpp"       // rows in memory, found by one hash
#include "seshat/thread_name.hpp"     // what a debugger calls a thread
#include "seshat/turns.hpp"           // work of several threads, never two at once
#include "seshat/version.hpp"
#include "seshat/wire.hpp"       // protobuf's wire format by hand
#include "seshat/work_pool.hpp"  // a few threads for slow work

// Floor 0: stands alone. Copy any of them into another project.
#include "seshat/raft.hpp"   // Raft as a pure state machine
#include "seshat/resp.hpp"   // the Redis protocol
#include "seshat/slots.hpp"  // hash slots

// Floor 1: one Raft group, and its bytes.
#include "seshat/codec.hpp"         // records and operations <-> bytes
#include "seshat/forwarding.hpp"    // what clients ask of a node that does not lead
#include "seshat/peer_codec.hpp"    // ... and what nodes tell each other
#include "seshat/records.hpp"       // what is stored and what nodes tell each other
#include "seshat/replica.hpp"       // one group on one node; the interfaces it needs
#include "seshat/snapshot.hpp"      // a group's state as rows
#include "seshat/wire_records.hpp"  // the bytes of the records of every command

// Floor 2: what a key-value store is.
#include "seshat/admin_commands.hpp"       // SESHAT.MEMBERS, SESHAT.LEAVE, ...
#include "seshat/client_commands.hpp"      // CLIENT LIST, CLIENT KILL, CLIENT PAUSE, ...
#include "seshat/cluster_changes.hpp"      // how nodes come and go
#include "seshat/command.hpp"              // what a command is
#include "seshat/connection_commands.hpp"  // PING, HELLO, CLIENT, ...
#include "seshat/door.hpp"                 // passwords, protected mode, pauses, statistics
#include "seshat/joining.hpp"              // a new node asks its way in
#include "seshat/key_commands.hpp"         // DEL, EXPIRE, SCAN, ...
#include "seshat/keyspace.hpp"             // keys and values as rows
#include "seshat/kv.hpp"                   // the table of commands; GET, SET, ...
#include "seshat/membership.hpp"           // who is in the cluster, who may vote
#include "seshat/operator_commands.hpp"    // CONFIG SET, SLOWLOG, LATENCY, WAIT, SHUTDOWN, ...
#include "seshat/server_commands.hpp"      // INFO, CLUSTER, COMMAND, ...
#include "seshat/slow_log.hpp"             // what took long
#include "seshat/state_machine.hpp"        // what committed entries do
#include "seshat/string_commands.hpp"      // GET, SET, INCR, ...
#include "seshat/transaction.hpp"          // MULTI, EXEC, WATCH

// Floor 3: adapters, one library each.
#include "seshat/config.hpp"                  // settings from file, environment and flags (toml++)
#include "seshat/config_keys.hpp"             // ... the table of all keys
#include "seshat/config_rules.hpp"            // ... what must hold between them
#include "seshat/credentials.hpp"             // certificates, keys and secrets, checked
#include "seshat/data_dir.hpp"                // a data directory: whose it is, who has it open
#include "seshat/durable_mark.hpp"            // what the disk has promised to keep
#include "seshat/live_settings.hpp"           // settings that may change while a node runs
#include "seshat/peer.hpp"                    // the channel between nodes (gRPC)
#include "seshat/peer_call.hpp"               // ... a question and an answer, outside the streams
#include "seshat/peer_clock.hpp"              // ... time that no pause counts in
#include "seshat/peer_credentials.hpp"        // ... TLS and the secret between nodes
#include "seshat/peer_incoming.hpp"           // ... how streams to us end
#include "seshat/peer_link.hpp"               // ... its queues and dialing, without gRPC
#include "seshat/peer_listener.hpp"           // ... streams that come in
#include "seshat/peer_process.hpp"            // ... gRPC, as the process has it
#include "seshat/peer_reactor.hpp"            // ... gRPC's calls, on one thread
#include "seshat/peer_security.hpp"           // ... what TLS and the secret are made of
#include "seshat/peer_snapshot_receiver.hpp"  // ... snapshots that come in
#include "seshat/peer_snapshot_sender.hpp"    // ... and those that go out
#include "seshat/peer_stream.hpp"             // ... the stream that goes out
#include "seshat/store.hpp"                   // log, votes and values on disk (RocksDB)
#include "seshat/store_buffer.hpp"            // what was applied and is not in RocksDB yet
#include "seshat/store_database.hpp"
#include "seshat/store_events.hpp"
#include "seshat/store_generation.hpp"
#include "seshat/store_group.hpp"
#include "seshat/store_incoming.hpp"
#include "seshat/store_log.hpp"
#include "seshat/store_log_cut.hpp"
#include "seshat/store_log_size.hpp"
#include "seshat/store_map.hpp"
#include "seshat/store_options.hpp"
#include "seshat/store_queue.hpp"  // ... what waits for the disk, and whose turn it is
#include "seshat/store_snapshot.hpp"
#include "seshat/store_writer.hpp"
#include "seshat/tls.hpp"        // TLS between bytes and bytes (OpenSSL)
#include "seshat/wal_check.hpp"  // damage in RocksDB's write-ahead log
#include "seshat/wal_room.hpp"   // ... room ahead in it, for quick syncs

// Floor 4: one node.
#include "seshat/boot_clock.hpp"  // what leases count on
#include "seshat/expiry.hpp"
#include "seshat/leader_clock.hpp"  // what entries are stamped with
#include "seshat/neighbours.hpp"    // ... what it knows of the others
#include "seshat/node.hpp"
#include "seshat/node_events.hpp"        // ... what it is told
#include "seshat/node_info.hpp"          // ... what it says of itself
#include "seshat/snapshot_exchange.hpp"  // when logs are cut, who gets a snapshot

// Floor 5: its door, and what comes to it.
#include "seshat/cli.hpp"           // seshat members, seshat leave, ... (asio)
#include "seshat/cli_client.hpp"    // ... a connection to any node
#include "seshat/cli_table.hpp"     // ... tables for people, JSON for programs
#include "seshat/client_io.hpp"     // sockets on loops beside the heart (asio)
#include "seshat/connection.hpp"    // one client: requests in, replies out
#include "seshat/entrance.hpp"      // a port where clients come in (asio)
#include "seshat/process_info.hpp"  // what INFO tells of the process
#include "seshat/server.hpp"        // sockets and the loop (asio)
#include "seshat/server_stats.hpp"  // what a server counts

#endif  // SESHAT_SESHAT_HPP
