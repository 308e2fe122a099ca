// seshat/config_keys.hpp - what can be configured: every key, its default, its range.
//
//   Config           the values, grouped as the sections of seshat.toml; its initializers are the
//                    defaults and the only place that states them
//   config::kKeys    one row a key: path, type, range, unit, flag, comment. The TOML file, the
//                    environment, the flags, --help and the range checks are all read off it
//   split_address    "host:port" -> {host, port}
//
// Keeps:    a key that is not in the table does not exist; a default out of its own range fails
//           a test. To add a key: a field, a row, a line in seshat.toml.example.
// Threads:  none inside. A Config is a value; after start-up nobody changes it.
// Alone:    needs log.hpp for its two enums, machine_memory.hpp for a default. Rules over several keys:
//           config_rules.hpp. Where the values come from: config.hpp.
#ifndef SESHAT_CONFIG_KEYS_HPP
#define SESHAT_CONFIG_KEYS_HPP

#include <algorithm>
#include <array>
#include <charconv>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "seshat/log.hpp"
#include "seshat/machine_memory.hpp"

namespace seshat {

// Loops, when nobody says how many: one a core, up to 4; what one loop executes is seldom more than
// what three can read and write. Two cores have enough to do without: storage and peers have threads
// of their own, and what is handed over then only costs (docs/architecture.md has the figures).
[[nodiscard]] inline std::uint64_t default_threads() {
  const unsigned cores = std::thread::hardware_concurrency();
  return cores <= 2 ? 1 : std::min(cores, 4U);
}

// Memory for rows, when nobody says how much: an eighth of what there is. What is asked for most is
// answered from there; the rest of the memory is the system's, as a cache of files, and other nodes'.
[[nodiscard]] inline std::uint64_t default_row_cache_mb() {
  return std::clamp<std::uint64_t>(machine_memory_bytes() >> 20 >> 3, 16, 65'536);
}

struct Config {
  enum class ReadMode : std::uint8_t { kLease, kReadIndex };
  enum class Moved : std::uint8_t { kRedis, kLeaderId };
  enum class OnFollower : std::uint8_t { kRedirect, kForward };
  enum class FollowerReads : std::uint8_t { kLinearizable, kStale, kOff };
  enum class TlsAuthClients : std::uint8_t { kNo, kOptional, kYes };

  struct Member {
    std::uint64_t id = 0;
    std::string addr;  // host:port that peers dial
    friend bool operator==(const Member&, const Member&) = default;
  };

  struct Node {
    std::uint64_t id = 1;
    std::string client_addr = "127.0.0.1:6379";
    std::string internal_addr;  // empty: no peer port is opened
    std::string data_dir = "./seshat-data";
    std::string advertise_addr;         // empty only while internal_addr is
    std::string advertise_client_addr;  // never empty once loaded
    std::uint64_t threads = default_threads();
    friend bool operator==(const Node&, const Node&) = default;
  } node;

  struct Cluster {
    bool bootstrap = true;                 // false for a node that joins
    std::vector<Member> initial_members;   // empty: this node is the only member, or joins
    std::uint64_t replication_factor = 3;  // the aim; with fewer members, one copy on each
    std::string join_addr;                 // empty: this node does not join
    bool auto_promote = true;
    std::map<std::uint64_t, std::string> dial;  // wins over a member's replicated address
    std::string secret;       // what nodes know of each other; empty: see secret_file
    std::string secret_file;  // its first line is the secret; empty: none
    friend bool operator==(const Cluster&, const Cluster&) = default;
  } cluster;

  // Between nodes; all three files, or none.
  struct PeerTls {
    std::string cert_file;
    std::string key_file;
    std::string ca_file;
    std::string server_name;  // in every node's certificate; empty: the host that is dialed
    friend bool operator==(const PeerTls&, const PeerTls&) = default;
  } peer_tls;

  struct Raft {
    std::uint64_t heartbeat_interval_ms = 100;
    std::uint64_t election_timeout_min_ms = 500;
    std::uint64_t election_timeout_max_ms = 1000;
    std::uint64_t vote_withhold_ms = 300;
    std::uint64_t lease_ms = 250;
    ReadMode read_mode = ReadMode::kLease;
    std::uint64_t snapshot_interval_entries = 10000;
    std::uint64_t snapshot_interval_bytes = 100000000;
    std::uint64_t max_log_size_bytes = 500000000;
    std::uint64_t snapshot_max_mb_per_sec = 0;  // 0: no limit
    friend bool operator==(const Raft&, const Raft&) = default;
  } raft;

  struct Client {
    Moved moved = Moved::kRedis;
    OnFollower on_follower = OnFollower::kRedirect;
    FollowerReads follower_reads = FollowerReads::kLinearizable;
    std::string requirepass;  // empty: no password is asked for
    bool protected_mode = true;
    std::uint64_t timeout = 0;                    // in seconds; 0: never
    std::int64_t slowlog_slower_than_us = 10000;  // negative: nothing is logged
    std::uint64_t slowlog_max_entries = 128;
    std::uint64_t latency_monitor_threshold_ms = 0;  // 0: nothing is sampled
    std::uint64_t tls_port = 0;                      // at client_addr's host; 0: no TLS
    bool tls_only = false;                           // client_addr itself is not listened on
    std::string tls_cert_file;
    std::string tls_key_file;
    std::string tls_ca_file;
    TlsAuthClients tls_auth_clients = TlsAuthClients::kYes;
    std::uint64_t tls_advertise_port = 0;  // once loaded: what MOVED names to clients with TLS
    friend bool operator==(const Client&, const Client&) = default;
  } client;

  struct Log {
    LogLevel level = LogLevel::kInfo;
    LogFormat format = LogFormat::kText;
    friend bool operator==(const Log&, const Log&) = default;
  } log;

  struct Limits {
    std::uint64_t max_key_size_bytes = 256;
    std::uint64_t max_value_size_bytes = 65536;
    std::uint64_t max_request_size_bytes = 8388608;
    std::uint64_t max_concurrent_client_connections = 10000;
    std::uint64_t min_free_disk_mb = 512;
    std::uint64_t max_memory_per_raft_log_mb = 512;
    std::uint64_t request_timeout_secs = 30;
    std::uint64_t raft_rpc_timeout_secs = 5;
    friend bool operator==(const Limits&, const Limits&) = default;
  } limits;

  struct Storage {
    std::uint64_t row_cache_mb = default_row_cache_mb();
    std::uint64_t block_cache_mb = 256;
    friend bool operator==(const Storage&, const Storage&) = default;
  } storage;

  // Whether the peer port is opened: a node alone may still be joined by others.
  [[nodiscard]] bool listens_for_peers() const { return !node.internal_addr.empty(); }
  // Whether nodes speak TLS with each other.
  [[nodiscard]] bool has_peer_tls() const { return !peer_tls.cert_file.empty(); }
  [[nodiscard]] bool has_secret() const {
    return !cluster.secret.empty() || !cluster.secret_file.empty();
  }
  // Whether it asks to be let in, while its data directory belongs to no cluster yet.
  [[nodiscard]] bool joins() const { return !cluster.join_addr.empty(); }

  friend bool operator==(const Config&, const Config&) = default;
};

// ---- Addresses -------------------------------------------------------------------------------

struct HostPort {
  std::string host;  // a name or an IP address; IPv6 without its brackets
  std::uint16_t port = 0;
  friend bool operator==(const HostPort&, const HostPort&) = default;
};

// Splits "host:port"; an IPv6 host stands in brackets: "[::1]:6379" gives {"::1", 6379}.
// Nothing when the host is empty or no name or address, or the port isn't within 1 to 65535.
// Looks at the text only; nothing is resolved.
[[nodiscard]] std::optional<HostPort> split_address(std::string_view address);

// The inverse of split_address.
[[nodiscard]] std::string join_address(std::string_view host, std::uint16_t port);

// 0.0.0.0, :: and their longer spellings: fit to listen on, useless to dial.
[[nodiscard]] bool is_wildcard_host(std::string_view host);

// localhost, 127.0.0.0/8, ::1.
[[nodiscard]] bool is_loopback_host(std::string_view host);

namespace config {

// ---- The key table ---------------------------------------------------------------------------

using Members = std::vector<Config::Member>;
using Dial = std::map<std::uint64_t, std::string>;

// What a key can hold. A choice is its name as text; integers are signed so that -1 is out of
// range and not a huge number.
using Value = std::variant<std::int64_t, bool, std::string, Members, Dial>;

enum class KeyType : std::uint8_t {
  kInteger,
  kBoolean,
  kText,
  kChoice,
  kListenAddress,  // host:port
  kDialAddress,    // host:port, and the host not a wildcard
  kMembers,
  kDial,
};

// One name that a choice accepts.
struct Choice {
  std::string_view name;
};

// One row. `get` and `set` reach the field in a Config; `set` needs a value of the key's type that
// passed `why_not`.
struct Key {
  std::string_view path;  // "section.name"
  KeyType type = KeyType::kText;
  std::int64_t min = 0;  // kInteger only, both inclusive
  std::int64_t max = 0;
  std::string_view unit;
  std::span<const Choice> choices;
  bool may_be_empty = false;  // an empty text means "not set"
  bool is_secret = false;     // its value is never shown
  std::string_view comment;
  std::string_view flag;  // a short flag beside --section.name; empty: none
  Value (*get)(const Config&) = nullptr;
  void (*set)(Config&, const Value&) = nullptr;

  [[nodiscard]] constexpr std::string_view section() const {
    return path.substr(0, path.find('.'));
  }
  [[nodiscard]] constexpr std::string_view name() const { return path.substr(path.find('.') + 1); }
};

// The keys in the order of seshat.toml.example.
[[nodiscard]] std::span<const Key> keys();

// The sections in the same order, each once.
[[nodiscard]] std::vector<std::string_view> sections();

// The row of "section.name"; null if there is none.
[[nodiscard]] const Key* find_key(std::string_view path);

// SESHAT_<SECTION>_<KEY>, for example SESHAT_RAFT_LEASE_MS.
[[nodiscard]] std::string environment_name(const Key& key);

// What the key takes, to follow "must be": "an integer from 1 to 600000 (ms)".
[[nodiscard]] std::string expectation(const Key& key);

// Why `value` can't be this key's value, as "must be ..."; nothing if it can. Checks type, range,
// choice and address; ids and addresses inside lists have checks of their own.
[[nodiscard]] std::optional<std::string> why_not(const Key& key, const Value& value);

// A value as a message shows it: 290, true, "text", 1=host:port,2=host:port.
[[nodiscard]] std::string show(const Value& value);

// ---------------------------------------------------------------------------------------------
// The table
// ---------------------------------------------------------------------------------------------

// Names of the enumerators, in their order.
inline constexpr std::array kReadModes = {Choice{"lease"}, Choice{"read-index"}};
inline constexpr std::array kMovedReplies = {Choice{"redis"}, Choice{"leader-id"}};
inline constexpr std::array kOnFollower = {Choice{"redirect"}, Choice{"forward"}};
inline constexpr std::array kFollowerReads = {Choice{"linearizable"}, Choice{"stale"},
                                              Choice{"off"}};
inline constexpr std::array kTlsAuthClients = {Choice{"no"}, Choice{"optional"}, Choice{"yes"}};
inline constexpr std::array kLogLevels = {Choice{"debug"}, Choice{"info"}, Choice{"warn"},
                                          Choice{"error"}};
inline constexpr std::array kLogFormats = {Choice{"text"}, Choice{"json"}};

constexpr std::span<const Choice> choices_of(Config::ReadMode) { return kReadModes; }
constexpr std::span<const Choice> choices_of(Config::Moved) { return kMovedReplies; }
constexpr std::span<const Choice> choices_of(Config::OnFollower) { return kOnFollower; }
constexpr std::span<const Choice> choices_of(Config::FollowerReads) { return kFollowerReads; }
constexpr std::span<const Choice> choices_of(Config::TlsAuthClients) { return kTlsAuthClients; }
constexpr std::span<const Choice> choices_of(LogLevel) { return kLogLevels; }
constexpr std::span<const Choice> choices_of(LogFormat) { return kLogFormats; }

// One field of Config, reached as `config.*kSection.*kField` and seen as a Value.
template <auto kSection, auto kField>
struct FieldAccess {
  using Type = std::remove_cvref_t<decltype(std::declval<Config&>().*kSection.*kField)>;

  static Value get(const Config& config) {
    const Type& field = config.*kSection.*kField;
    if constexpr (std::is_enum_v<Type>) {
      return std::string(choices_of(field)[static_cast<std::size_t>(field)].name);
    } else if constexpr (std::same_as<Type, std::uint64_t>) {
      return static_cast<std::int64_t>(field);
    } else {
      return field;
    }
  }

  static void set(Config& config, const Value& value) {
    Type& field = config.*kSection.*kField;
    if constexpr (std::is_enum_v<Type>) {
      const auto choices = choices_of(field);
      const auto found = std::ranges::find(choices, std::get<std::string>(value), &Choice::name);
      field = static_cast<Type>(found - choices.begin());
    } else if constexpr (std::same_as<Type, std::uint64_t>) {
      field = static_cast<std::uint64_t>(std::get<std::int64_t>(value));
    } else {
      field = std::get<Type>(value);
    }
  }
};

template <auto kSection, auto kField>
constexpr Key row(KeyType type, std::string_view path, std::string_view comment,
                  std::string_view flag = {}) {
  using Access = FieldAccess<kSection, kField>;
  Key key;
  key.path = path;
  key.type = type;
  key.comment = comment;
  key.flag = flag;
  key.get = Access::get;
  key.set = Access::set;
  if constexpr (std::is_enum_v<typename Access::Type>) {
    key.choices = choices_of(typename Access::Type{});
  }
  return key;
}

template <auto kSection, auto kField>
constexpr Key integer(std::string_view path, std::int64_t min, std::int64_t max,
                      std::string_view unit, std::string_view comment, std::string_view flag = {}) {
  Key key = row<kSection, kField>(KeyType::kInteger, path, comment, flag);
  key.min = min;
  key.max = max;
  key.unit = unit;
  return key;
}

template <auto kSection, auto kField>
constexpr Key optional_row(KeyType type, std::string_view path, std::string_view comment,
                           std::string_view flag = {}) {
  Key key = row<kSection, kField>(type, path, comment, flag);
  key.may_be_empty = true;
  return key;
}

template <auto kSection, auto kField>
constexpr Key secret_row(std::string_view path, std::string_view comment) {
  Key key = optional_row<kSection, kField>(KeyType::kText, path, comment);
  key.is_secret = true;
  return key;
}

inline constexpr std::int64_t kMaxNodeId = std::numeric_limits<std::int64_t>::max();
inline constexpr std::int64_t kMaxThreads = 64;
inline constexpr std::int64_t kMaxMs = 600'000;
inline constexpr std::int64_t kMebi = 1'048'576;

inline constexpr auto kKeys = std::to_array<Key>({
    integer<&Config::node, &Config::Node::id>("node.id", 1, kMaxNodeId, "",
                                              "this node's number, unique in the cluster", "--id"),
    row<&Config::node, &Config::Node::client_addr>(KeyType::kListenAddress, "node.client_addr",
                                                   "where Redis clients connect", "--client-addr"),
    optional_row<&Config::node, &Config::Node::internal_addr>(
        KeyType::kListenAddress, "node.internal_addr", "where peers connect, if at all",
        "--internal-addr"),
    row<&Config::node, &Config::Node::data_dir>(KeyType::kText, "node.data_dir",
                                                "everything this node keeps; one node a directory",
                                                "--data-dir"),
    optional_row<&Config::node, &Config::Node::advertise_addr>(
        KeyType::kDialAddress, "node.advertise_addr", "what peers dial instead of internal_addr",
        "--advertise-addr"),
    optional_row<&Config::node, &Config::Node::advertise_client_addr>(
        KeyType::kDialAddress, "node.advertise_client_addr",
        "what MOVED names instead of client_addr", "--advertise-client-addr"),
    integer<&Config::node, &Config::Node::threads>(
        "node.threads", 1, kMaxThreads, "threads",
        "loops that read and write for clients; one executes", "--threads"),
    row<&Config::cluster, &Config::Cluster::bootstrap>(KeyType::kBoolean, "cluster.bootstrap",
                                                       "start a cluster of initial_members; false "
                                                       "for a node that joins one"),
    row<&Config::cluster, &Config::Cluster::initial_members>(
        KeyType::kMembers, "cluster.initial_members", "all members at the first start"),
    integer<&Config::cluster, &Config::Cluster::replication_factor>(
        "cluster.replication_factor", 1, 9, "", "copies of the data, an odd number"),
    optional_row<&Config::cluster, &Config::Cluster::join_addr>(
        KeyType::kDialAddress, "cluster.join_addr", "a member of the cluster to join", "--join"),
    row<&Config::cluster, &Config::Cluster::auto_promote>(
        KeyType::kBoolean, "cluster.auto_promote",
        "a node that joined and has caught up becomes a voter by itself"),
    row<&Config::cluster, &Config::Cluster::dial>(
        KeyType::kDial, "cluster.dial", "what this node dials for a member instead of its address"),
    secret_row<&Config::cluster, &Config::Cluster::secret>(
        "cluster.secret", "what a node has to know to talk to another one, if anything"),
    optional_row<&Config::cluster, &Config::Cluster::secret_file>(
        KeyType::kText, "cluster.secret_file", "a file with the secret instead"),
    optional_row<&Config::peer_tls, &Config::PeerTls::cert_file>(
        KeyType::kText, "peer_tls.cert_file", "this node's certificate for other nodes, PEM"),
    optional_row<&Config::peer_tls, &Config::PeerTls::key_file>(KeyType::kText, "peer_tls.key_file",
                                                                "its private key, PEM"),
    optional_row<&Config::peer_tls, &Config::PeerTls::ca_file>(
        KeyType::kText, "peer_tls.ca_file",
        "who has to have signed other nodes' certificates, PEM"),
    optional_row<&Config::peer_tls, &Config::PeerTls::server_name>(
        KeyType::kText, "peer_tls.server_name",
        "what nodes' certificates name, if not the host that is dialed"),
    integer<&Config::raft, &Config::Raft::heartbeat_interval_ms>(
        "raft.heartbeat_interval_ms", 1, kMaxMs, "ms", "how often a leader is heard of"),
    integer<&Config::raft, &Config::Raft::election_timeout_min_ms>(
        "raft.election_timeout_min_ms", 1, kMaxMs, "ms", "silence before an election, at least"),
    integer<&Config::raft, &Config::Raft::election_timeout_max_ms>(
        "raft.election_timeout_max_ms", 1, kMaxMs, "ms", "silence before an election, at most"),
    integer<&Config::raft, &Config::Raft::vote_withhold_ms>(
        "raft.vote_withhold_ms", 1, kMaxMs, "ms", "no vote for another while a leader was heard"),
    integer<&Config::raft, &Config::Raft::lease_ms>(
        "raft.lease_ms", 1, kMaxMs, "ms", "a leader serves reads alone so long after a round"),
    row<&Config::raft, &Config::Raft::read_mode>(KeyType::kChoice, "raft.read_mode",
                                                 "how a leader makes reads linearizable"),
    integer<&Config::raft, &Config::Raft::snapshot_interval_entries>(
        "raft.snapshot_interval_entries", 1, 1'000'000'000, "entries",
        "log entries between compactions"),
    integer<&Config::raft, &Config::Raft::snapshot_interval_bytes>(
        "raft.snapshot_interval_bytes", 1'000'000, 1'000'000'000'000, "bytes",
        "log size between compactions"),
    integer<&Config::raft, &Config::Raft::max_log_size_bytes>("raft.max_log_size_bytes", 1'000'000,
                                                              1'000'000'000'000, "bytes",
                                                              "log kept for slow members, at most"),
    integer<&Config::raft, &Config::Raft::snapshot_max_mb_per_sec>(
        "raft.snapshot_max_mb_per_sec", 0, kMebi, "MB/s",
        "how fast a snapshot is sent to one member; 0: no limit"),
    row<&Config::client, &Config::Client::moved>(
        KeyType::kChoice, "client.moved", "what MOVED names: the address or the id of the leader"),
    row<&Config::client, &Config::Client::on_follower>(
        KeyType::kChoice, "client.on_follower",
        "what a follower does with a command for the leader"),
    row<&Config::client, &Config::Client::follower_reads>(
        KeyType::kChoice, "client.follower_reads", "reads on a follower for READONLY connections"),
    optional_row<&Config::client, &Config::Client::requirepass>(
        KeyType::kText, "client.requirepass", "the password of user default, if there is one"),
    row<&Config::client, &Config::Client::protected_mode>(
        KeyType::kBoolean, "client.protected_mode",
        "without a password, serve clients of this machine only"),
    integer<&Config::client, &Config::Client::timeout>("client.timeout", 0, 2'147'483'647, "s",
                                                       "idle clients are disconnected; 0: never"),
    integer<&Config::client, &Config::Client::slowlog_slower_than_us>(
        "client.slowlog_slower_than_us", -1, 1'000'000'000'000, "us",
        "what takes so long stands in SLOWLOG; -1: nothing"),
    integer<&Config::client, &Config::Client::slowlog_max_entries>(
        "client.slowlog_max_entries", 0, kMebi, "entries", "what SLOWLOG keeps"),
    integer<&Config::client, &Config::Client::latency_monitor_threshold_ms>(
        "client.latency_monitor_threshold_ms", 0, kMaxMs, "ms",
        "what takes so long is a sample of LATENCY; 0: nothing"),
    integer<&Config::client, &Config::Client::tls_port>(
        "client.tls_port", 0, 65535, "", "a port for TLS at the host of client_addr; 0: none"),
    row<&Config::client, &Config::Client::tls_only>(
        KeyType::kBoolean, "client.tls_only", "serve clients by TLS alone: client_addr stays shut"),
    optional_row<&Config::client, &Config::Client::tls_cert_file>(
        KeyType::kText, "client.tls_cert_file", "this node's certificate for clients, PEM"),
    optional_row<&Config::client, &Config::Client::tls_key_file>(
        KeyType::kText, "client.tls_key_file", "its private key, PEM"),
    optional_row<&Config::client, &Config::Client::tls_ca_file>(
        KeyType::kText, "client.tls_ca_file", "who has to have signed clients' certificates, PEM"),
    row<&Config::client, &Config::Client::tls_auth_clients>(
        KeyType::kChoice, "client.tls_auth_clients", "whether clients need a certificate"),
    integer<&Config::client, &Config::Client::tls_advertise_port>(
        "client.tls_advertise_port", 0, 65535, "", "what MOVED names instead of tls_port; 0: that"),
    row<&Config::log, &Config::Log::level>(
        KeyType::kChoice, "log.level", "the least important lines that are written", "--log-level"),
    row<&Config::log, &Config::Log::format>(KeyType::kChoice, "log.format", "how a line looks"),
    integer<&Config::limits, &Config::Limits::max_key_size_bytes>(
        "limits.max_key_size_bytes", 1, 65535, "bytes", "the longest key"),
    integer<&Config::limits, &Config::Limits::max_value_size_bytes>(
        "limits.max_value_size_bytes", 1, 512 * kMebi, "bytes", "the longest value"),
    integer<&Config::limits, &Config::Limits::max_request_size_bytes>(
        "limits.max_request_size_bytes", 1024, 1024 * kMebi, "bytes",
        "the longest request, and the largest MULTI"),
    integer<&Config::limits, &Config::Limits::max_concurrent_client_connections>(
        "limits.max_concurrent_client_connections", 1, 1'000'000, "connections",
        "clients at a time"),
    integer<&Config::limits, &Config::Limits::min_free_disk_mb>(
        "limits.min_free_disk_mb", 0, kMebi, "MB", "less free disk: no writes that grow"),
    integer<&Config::limits, &Config::Limits::max_memory_per_raft_log_mb>(
        "limits.max_memory_per_raft_log_mb", 1, kMebi, "MB", "log entries of one group in memory"),
    integer<&Config::limits, &Config::Limits::request_timeout_secs>(
        "limits.request_timeout_secs", 1, 3600, "s", "a request that takes longer gets an error"),
    integer<&Config::limits, &Config::Limits::raft_rpc_timeout_secs>(
        "limits.raft_rpc_timeout_secs", 1, 3600, "s", "a call to a peer that takes longer fails"),
    integer<&Config::storage, &Config::Storage::row_cache_mb>(
        "storage.row_cache_mb", 0, kMebi, "MB", "memory for rows read or written lately"),
    integer<&Config::storage, &Config::Storage::block_cache_mb>(
        "storage.block_cache_mb", 1, kMebi, "MB", "memory for blocks read from disk"),
});

// ---------------------------------------------------------------------------------------------
// Bodies: the table
// ---------------------------------------------------------------------------------------------

inline std::span<const Key> keys() { return kKeys; }

inline std::vector<std::string_view> sections() {
  std::vector<std::string_view> names;
  for (const Key& key : kKeys) {
    if (names.empty() || names.back() != key.section()) names.push_back(key.section());
  }
  return names;
}

inline const Key* find_key(std::string_view path) {
  const auto found = std::ranges::find(kKeys, path, &Key::path);
  return found == kKeys.end() ? nullptr : &*found;
}

inline std::string environment_name(const Key& key) {
  std::string name = "SESHAT_";
  for (const char c : key.path) {
    const bool lower = c >= 'a' && c <= 'z';
    name += c == '.' ? '_' : lower ? static_cast<char>(c - 'a' + 'A') : c;
  }
  return name;
}

// "lease" or "read-index".
[[nodiscard]] inline std::string list_of_choices(const Key& key) {
  std::string list;
  for (const Choice& choice : key.choices) {
    if (!list.empty()) list += " or ";
    append_quoted(list, choice.name);
  }
  return list;
}

inline std::string expectation(const Key& key) {
  switch (key.type) {
    case KeyType::kInteger: {
      std::string range = "an integer from " + std::to_string(key.min) + " to ";
      range += std::to_string(key.max);
      return key.unit.empty() ? range : range + " (" + std::string(key.unit) + ")";
    }
    case KeyType::kBoolean:
      return "true or false";
    case KeyType::kText:
      return "a text that is not empty";
    case KeyType::kChoice:
      return list_of_choices(key);
    case KeyType::kListenAddress:
      return "host:port, such as 127.0.0.1:6379 or [::1]:6379";
    case KeyType::kDialAddress:
      return "host:port that others can dial, not 0.0.0.0 or [::]";
    case KeyType::kMembers:
      return "a list such as [{id = 1, addr = \"host:port\"}]";
    case KeyType::kDial:
      return "a table such as {2 = \"host:port\"}";
  }
  return {};
}

namespace detail {

[[nodiscard]] inline bool is_fit_address(KeyType type, std::string_view text) {
  const std::optional<HostPort> address = split_address(text);
  return address && (type != KeyType::kDialAddress || !is_wildcard_host(address->host));
}

// Does the text fit the key? Integers, lists and the like have no text: they don't come here.
[[nodiscard]] inline std::optional<std::string> why_not_text(const Key& key,
                                                             std::string_view text) {
  if (text.empty() && key.may_be_empty) return std::nullopt;
  bool fits = !text.empty();
  if (key.type == KeyType::kListenAddress || key.type == KeyType::kDialAddress) {
    fits = is_fit_address(key.type, text);
  } else if (key.type == KeyType::kChoice) {
    fits = std::ranges::find(key.choices, text, &Choice::name) != key.choices.end();
  }
  return fits ? std::nullopt : std::optional("must be " + expectation(key));
}

}  // namespace detail

inline std::optional<std::string> why_not(const Key& key, const Value& value) {
  const Value fitting = key.get(Config{});
  if (value.index() != fitting.index()) return "must be " + expectation(key);
  if (const auto* number = std::get_if<std::int64_t>(&value)) {
    if (*number < key.min || *number > key.max) return "must be " + expectation(key);
  }
  if (const auto* text = std::get_if<std::string>(&value)) return detail::why_not_text(key, *text);
  return std::nullopt;
}

namespace detail {

[[nodiscard]] inline std::string show_entries(const auto& entries, const auto& id,
                                              const auto& address) {
  std::string text;
  for (const auto& entry : entries) {
    if (!text.empty()) text += ',';
    text += std::to_string(id(entry)) + "=" + address(entry);
  }
  return text;
}

}  // namespace detail

inline std::string show(const Value& value) {
  if (const auto* number = std::get_if<std::int64_t>(&value)) return std::to_string(*number);
  if (const auto* truth = std::get_if<bool>(&value)) return *truth ? "true" : "false";
  if (const auto* text = std::get_if<std::string>(&value)) {
    std::string quoted;
    append_quoted(quoted, *text);
    return quoted;
  }
  if (const auto* members = std::get_if<Members>(&value)) {
    return detail::show_entries(
        *members, [](const auto& m) { return m.id; }, [](const auto& m) { return m.addr; });
  }
  return detail::show_entries(
      std::get<Dial>(value), [](const auto& d) { return d.first; },
      [](const auto& d) { return d.second; });
}

// ---------------------------------------------------------------------------------------------
// Bodies: names that were probably meant
// ---------------------------------------------------------------------------------------------

namespace detail {

// Levenshtein's distance: the fewest insertions, deletions and replacements from `a` to `b`.
[[nodiscard]] inline std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = std::exchange(row[0], i);
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t replaced = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({replaced, row[j] + 1, row[j - 1] + 1});
    }
  }
  return row[b.size()];
}

// Names up to this size are compared with what exists.
inline constexpr std::size_t kLongestGuess = 64;

// The candidate that `name` begins, or the nearest if near enough to be what was meant. None for a
// long name: what comes from outside must not cost quadratic time.
[[nodiscard]] inline std::optional<std::string> nearest(std::string_view name,
                                                        std::span<const std::string> candidates) {
  if (name.size() > kLongestGuess) return std::nullopt;
  std::optional<std::string> best;
  std::size_t best_distance = std::max<std::size_t>(2, name.size() / 3) + 1;
  for (const std::string& candidate : candidates) {
    const bool cut_short = name.size() > 2 && candidate.starts_with(name);  // lease, lease_ms
    const std::size_t distance = cut_short ? 0 : edit_distance(name, candidate);
    if (distance >= best_distance) continue;
    best = candidate;
    best_distance = distance;
  }
  return best;
}

[[nodiscard]] inline std::string joined(std::span<const std::string> names) {
  std::string list;
  for (const std::string& name : names) list += (list.empty() ? "" : ", ") + name;
  return list;
}

// "did you mean X?", or all there is.
[[nodiscard]] inline std::string suggestion(std::string_view name,
                                            std::span<const std::string> candidates) {
  if (const auto best = nearest(name, candidates)) return "did you mean " + *best + "?";
  return "there is " + joined(candidates);
}

// What to say of "section.name" that no row has: the same name in another section, a near one in
// this section, or all that this section has.
[[nodiscard]] inline std::string key_suggestion(std::string_view section, std::string_view name) {
  std::vector<std::string> in_section;
  for (const Key& key : keys()) {
    if (key.name() == name) return "did you mean " + std::string(key.path) + "?";
    if (key.section() == section) in_section.emplace_back(key.name());
  }
  return suggestion(name, in_section);
}

}  // namespace detail
}  // namespace config

// ---------------------------------------------------------------------------------------------
// Bodies: addresses
// ---------------------------------------------------------------------------------------------

namespace config::detail {

[[nodiscard]] inline bool consists_of(std::string_view text, std::string_view characters) {
  return !text.empty() && text.find_first_not_of(characters) == std::string_view::npos;
}

// Four numbers from 0 to 255.
[[nodiscard]] inline bool is_ipv4(std::string_view text) {
  int parts = 0;
  while (true) {
    const std::size_t dot = std::min(text.find('.'), text.size());
    unsigned value = 256;
    const auto [end, error] = std::from_chars(text.data(), text.data() + dot, value);
    if (error != std::errc{} || end != text.data() + dot || value > 255 || dot > 3) return false;
    ++parts;
    if (dot == text.size()) return parts == 4;
    text.remove_prefix(dot + 1);
  }
}

// A host name (letters, digits, '-', '_', '.') or an IPv4 address.
[[nodiscard]] inline bool is_name_or_ipv4(std::string_view host) {
  if (host.size() > 253) return false;
  if (consists_of(host, "0123456789.")) return is_ipv4(host);
  return consists_of(host, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.");
}

// By its characters only: the resolver has the last word. "%eth0" may follow (RFC 4007).
[[nodiscard]] inline bool looks_like_ipv6(std::string_view host) {
  const std::size_t percent = std::min(host.find('%'), host.size());
  const std::string_view address = host.substr(0, percent);
  const std::string_view zone = host.substr(percent);
  if (!zone.empty() && !is_name_or_ipv4(zone.substr(1))) return false;
  return address.size() <= 45 && std::ranges::count(address, ':') >= 2 &&
         consists_of(address, "0123456789abcdefABCDEF:.");
}

}  // namespace config::detail

inline std::optional<HostPort> split_address(std::string_view address) {
  const std::size_t colon = address.rfind(':');
  if (colon == std::string_view::npos) return std::nullopt;
  std::string_view host = address.substr(0, colon);
  const std::string_view digits = address.substr(colon + 1);
  if (host.starts_with('[') && host.ends_with(']')) {
    host = host.substr(1, host.size() - 2);
    if (!config::detail::looks_like_ipv6(host)) return std::nullopt;
  } else if (!config::detail::is_name_or_ipv4(host)) {
    return std::nullopt;
  }
  std::uint16_t port = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), port);
  if (error != std::errc{} || end != digits.data() + digits.size() || port == 0) {
    return std::nullopt;
  }
  return HostPort{std::string(host), port};
}

inline std::string join_address(std::string_view host, std::uint16_t port) {
  const bool ipv6 = host.find(':') != std::string_view::npos;
  return (ipv6 ? "[" + std::string(host) + "]" : std::string(host)) + ":" + std::to_string(port);
}

inline bool is_wildcard_host(std::string_view host) {
  return host == "0.0.0.0" ||
         (host.find(':') != std::string_view::npos && config::detail::consists_of(host, "0:."));
}

inline bool is_loopback_host(std::string_view host) {
  if (host == "localhost") return true;
  if (host.starts_with("127.")) return config::detail::is_ipv4(host);
  // ::1 however many zeros are written out: only zeros and colons, and a 1 at the end.
  return host.find(':') != std::string_view::npos && host.ends_with('1') &&
         config::detail::consists_of(host.substr(0, host.size() - 1), "0:");
}

}  // namespace seshat

#endif  // SESHAT_CONFIG_KEYS_HPP
