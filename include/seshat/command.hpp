// seshat/command.hpp - what a command is: one entry of a table, and what its function may see.
//
//   { "get", arity 2, read only, keys 1..1, "Gets the value of a key", ... , &get }
//
// Everything that clients ask about commands (COMMAND, COMMAND DOCS, arity errors, which arguments
// are keys) is read off the entry, and so is how it runs:
//
//   local   answers at once, from the session and the site; never touches Raft
//   read    looks at the ordered map, when the node may (linearizable), on the loop or on the pool
//   scan    a read of all keys: always on the pool
//   write   changes keys when its log entry is applied, which answers it
//   admin   turns arguments into an AdminRequest; answered when the cluster has done it, or says no
//
// Threads: the loop; but read functions run wherever the map they get allows, and write functions
//          where entries are applied.
// Needs:   resp.hpp, replica.hpp (Waiter), keyspace.hpp, transaction.hpp, slots.hpp, glob.hpp, door.hpp.
#ifndef SESHAT_COMMAND_HPP
#define SESHAT_COMMAND_HPP

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "seshat/door.hpp"
#include "seshat/glob.hpp"
#include "seshat/keyspace.hpp"
#include "seshat/records.hpp"
#include "seshat/replica.hpp"
#include "seshat/resp.hpp"
#include "seshat/slots.hpp"
#include "seshat/state_machine.hpp"
#include "seshat/transaction.hpp"

namespace seshat {

// ---- Where a command runs -----------------------------------------------------------------------

// What a connection remembers about its client.
struct Session {
  std::uint64_t id = 0;
  std::string address;        // host:port of the client
  std::string local_address;  // host:port it connected to
  std::string name;           // CLIENT SETNAME
  std::string lib_name;       // CLIENT SETINFO
  std::string lib_version;
  resp::Protocol protocol = resp::Protocol::kResp2;
  bool read_only = false;             // READONLY
  TransactionQueue transaction;       // MULTI and WATCH
  bool close_after_reply = false;     // QUIT
  std::uint64_t connected_at_ms = 0;  // of the loop's clock
  std::uint64_t last_active_ms = 0;
  std::string_view last_command = "NULL";  // a name from the table
  bool authenticated = true;   // may run all commands: no password was asked for, or it was right
  bool gave_password = false;  // ... it was right
  bool no_evict = false;       // CLIENT NO-EVICT, which is only remembered: nobody is evicted
  bool replies_off = false;    // CLIENT REPLY OFF
  bool skips_reply = false;    // ... SKIP: of this request
  bool skips_next_reply = false;
  bool by_tls = false;  // is told of nodes' ports for TLS

  [[nodiscard]] bool is_muted() const { return replies_off || skips_reply; }
};

struct ClusterNode {
  NodeId id;
  std::string host;  // of its client address; empty: not known
  std::uint16_t port = 0;
  std::uint16_t peer_port = 0;
  bool connected = false;
  std::uint16_t tls_port = 0;  // 0: none that is known

  // Where a client goes that came as this session did, as in Redis. Where a node has no port of that
  // kind, its other one is better than nothing.
  [[nodiscard]] std::uint16_t port_for(const Session& session) const {
    return session.by_tls && tls_port != 0 ? tls_port : port;
  }
};

struct ClusterShard {
  std::vector<SlotRange> slots;
  // The present one; while there is none, the last that was known, as Redis goes on to list a
  // master that failed: clients that found the shard missing would forget the cluster. 0: never
  // known.
  NodeId leader;
  bool is_led = false;
  std::vector<NodeId> replicas;
};

// The cluster as this node sees it.
struct Topology {
  NodeId self;
  Term epoch;
  bool ok = false;  // every shard has a leader
  std::vector<ClusterNode> nodes;
  std::vector<ClusterShard> shards;

  [[nodiscard]] const ClusterNode* find(NodeId id) const;
};

// 40 hex digits, stable, as Redis Cluster names its nodes: "seshat-node-" in hex, then the id.
[[nodiscard]] std::string cluster_node_name(NodeId id);

struct MemberStatus {
  NodeInfo info;
  bool connected = false;  // to this node; true of itself
  bool is_self = false;
  std::optional<NodeStatus> status = {};  // as heard last; nullopt: never
  std::uint64_t heard_ms_ago = 0;
};

// The members as the system group has them, and how each was doing when it was heard last.
struct ClusterStatus {
  std::string cluster_id;  // empty: not known yet
  std::uint64_t membership_version = 0;
  NodeId system_leader;  // 0: none known
  std::vector<MemberStatus> members;
};

// What local commands ask of the node and the server around them.
class Site {
 public:
  virtual ~Site() = default;
  [[nodiscard]] virtual Topology topology() const = 0;
  [[nodiscard]] virtual ClusterStatus cluster_status() const = 0;
  // Appends "key:value\r\n" lines of a section of INFO; its name is one of kInfoSections.
  virtual void append_info(std::string_view section, std::string& out) const = 0;
  // Redis' names for what is configured here, with their values: CONFIG GET.
  [[nodiscard]] virtual std::vector<std::pair<std::string, std::string>> settings() const = 0;
  virtual void for_each_session(const std::function<void(const Session&)>& visit) const = 0;
  [[nodiscard]] virtual std::uint64_t now_ms() const = 0;
  [[nodiscard]] virtual std::uint64_t now_us() const = 0;   // to measure with: it never goes back
  [[nodiscard]] virtual std::uint64_t wall_us() const = 0;  // since 1970
  // How many voters beside this node are known to have on disk all that has committed; nullopt:
  // this node does not lead, and does not know.
  [[nodiscard]] virtual std::optional<std::size_t> replicas_with_all() const = 0;

  // ---- What may be changed
  [[nodiscard]] virtual Door& door() = 0;
  // CONFIG SET: all of these names and values, or an error text and none.
  [[nodiscard]] virtual std::optional<std::string> change_settings(
      std::span<const std::string_view> names_and_values) = 0;
  // Closes the connections of all that `matches`, `self` after its reply; how many.
  virtual std::size_t kill_sessions(const std::function<bool(const Session&)>& matches,
                                    Session& self) = 0;
  // Who is held back by a pause looks again whether it still is; also when the pause is over.
  virtual void pause_changed() = 0;
  virtual void reset_statistics() = 0;
  // Ends this node in good order. What is under way is finished.
  virtual void shut_down() = 0;
  [[nodiscard]] virtual bool is_shutting_down() const = 0;
};

// A write that is under way, for the reads of its connection that come after it: its place in the log,
// or, where another node proposes it, what Forwarding calls it. Neither: it was refused.
struct WriteMark {
  Index index;
  std::uint64_t forwarded_id = 0;

  [[nodiscard]] bool was_refused() const { return index == Index{} && forwarded_id == 0; }
  friend bool operator==(const WriteMark&, const WriteMark&) = default;
};

// Where the keys are, as a connection needs it: reads, proposals, and their words of refusal.
// node.hpp implements it over Raft and RocksDB, tests in memory.
class Database {
 public:
  virtual ~Database() = default;
  // The group that has `slot`; nullopt: none has it.
  [[nodiscard]] virtual std::optional<GroupId> group_of(Slot slot) const = 0;
  // Stamps and proposes, or has the leader do it; see Replica::propose.
  virtual WriteMark propose(GroupId group, Operation operation, Waiter& waiter) = 0;
  // See Replica::readable and Replica::read. `read_only`: the client said READONLY, and may be served
  // by a node that does not lead.
  [[nodiscard]] virtual bool readable(GroupId group, WriteMark after, bool read_only) const = 0;
  virtual void read(GroupId group, WriteMark after, bool read_only, Waiter& waiter) = 0;
  // For the loop: kNotInMemory instead of a wait for the disk; and for the pool: with the wait.
  [[nodiscard]] virtual const OrderedMap& cached(GroupId group) const = 0;
  virtual void read_from_disk(GroupId group, std::function<void(const OrderedMap&)> work) = 0;
  // The same for OrderedMap::scan(), which then sees all that was applied by now.
  virtual void scan_disk(GroupId group, std::function<void(const OrderedMap&)> work) {
    read_from_disk(group, std::move(work));
  }
  // Of what a read of this group may see, and must not return any more. `read_only` as in read().
  [[nodiscard]] virtual ReadTimes times(GroupId /*group*/, bool /*read_only*/) const { return {}; }
  // Every node of the cluster can apply operations of this version.
  [[nodiscard]] virtual bool all_know_operations(std::uint32_t /*version*/) const { return true; }
  // Runs `work` on the loop. Any thread.
  virtual void post(std::function<void()> work) = 0;
  // The error text for a request about `slot` that was refused; `by_tls`: of a client that is to be
  // sent to a port for TLS.
  [[nodiscard]] virtual std::string refusal_text(Slot slot, Refusal refusal, bool by_tls) const = 0;
  // So little room is left on the disks of a majority that data may not grow.
  [[nodiscard]] virtual bool disk_is_full() const = 0;
  // Has the cluster do it, whichever node leads. `done` is called exactly once, on the loop,
  // perhaps before this returns.
  virtual void administer(AdminRequest request, std::function<void(CallReply)> done) = 0;
};

inline constexpr std::array<std::string_view, 12> kInfoSections = {
    "server",      "clients", "memory",       "persistence", "stats",   "raft",
    "replication", "cpu",     "commandstats", "errorstats",  "cluster", "keyspace"};

// ---- The table ----------------------------------------------------------------------------------

struct Command;
using Args = std::span<const std::string_view>;  // the command's name first

// One request of a local command.
struct Call {
  const Command& command;
  Args args;
  Session& session;
  Site& site;
  std::string& out;  // the reply is appended; HELLO changes the protocol it is written in

  [[nodiscard]] resp::Writer reply() const { return resp::Writer(out, session.protocol); }
};

inline constexpr int kNoKey = 1 << 30;  // for ReadCall::first_key

// Database::times() of a group: for who reads on the loop.
struct GroupTimes {
  const Database& database;
  GroupId group;
  bool read_only;
};

// One request of a read command.
struct ReadCall {
  const OrderedMap& map;
  Args args;
  Slot slot;  // of the first key
  ReadScratch& scratch;
  std::variant<ReadTimes, GroupTimes> clock;    // asked only for keys that expire
  int first_key = 1;                            // the argument whose slot is known
  std::optional<std::uint64_t> key_count = {};  // for who knows it better than the map

  [[nodiscard]] ReadTimes times() const;

  // kFound, kAbsent, or why it can't be said. `value.data` looks into the scratch.
  [[nodiscard]] Lookup get(std::string_view key, StoredValue& value) const;
  // The same for these arguments, as they were at one moment: visit(value), null where a key is absent,
  // until it says false.
  template <class Visit>
  [[nodiscard]] Lookup get_all(Args keys, Visit visit) const;
  // What a read function returns that has replied to these two.
  [[nodiscard]] static Lookup answered(Lookup lookup) {
    return lookup == Lookup::kAbsent ? Lookup::kFound : lookup;
  }
};

// One request of a write command: before it is proposed, then when it is applied.
struct WriteCall {
  Keyspace* keys;         // null: only arguments are looked at; what is wrong with them is replied
  std::string_view name;  // of the command
  Args args;
  std::uint64_t max_value_size_bytes;
  resp::Writer& reply;

  [[nodiscard]] bool checking() const { return keys == nullptr; }
};

// EX 10, PXAT 1700000000000: when something expires, as it was asked for.
struct ExpireTime {
  enum class Kind : std::uint8_t { kSeconds, kMilliseconds, kAtSeconds, kAtMilliseconds };
  Kind kind;
  std::string_view text;
};
[[nodiscard]] std::optional<ExpireTime::Kind> expire_kind_of(std::string_view option);
// Milliseconds since 1970, perhaps in the past or negative. nullopt: the error was written.
[[nodiscard]] std::optional<std::int64_t> any_expire_time(const WriteCall& call,
                                                          const ExpireTime& time);
// The same where Redis wants more than 0.
[[nodiscard]] std::optional<std::uint64_t> expire_time(const WriteCall& call,
                                                       const ExpireTime& time);

using LocalFunction = void (*)(const Call& call);
// Appends the reply and returns kFound, or returns anything but kFound and kAbsent and appends
// nothing.
using ReadFunction = Lookup (*)(const ReadCall& call, resp::Writer& reply);
// Appends the reply. When `call.checking()`: an error, or nothing.
using WriteFunction = void (*)(WriteCall& call);
// Fills the request. An error text: nothing is asked of the cluster.
using AdminFunction = std::optional<std::string> (*)(Args args, AdminRequest& request);

// Redis' command flags, by the names that COMMAND shows; the last two are ACL categories that do
// not follow from anything else.
enum CommandFlag : std::uint32_t {
  kWrite = 1U << 0,
  kReadOnly = 1U << 1,
  kDenyOom = 1U << 2,  // grows the data: refused on a full disk
  kAdmin = 1U << 3,
  kNoScript = 1U << 4,
  kLoading = 1U << 5,
  kStale = 1U << 6,
  kFast = 1U << 7,
  kNoAuth = 1U << 8,
  kAllowBusy = 1U << 9,
  kSkipSlowlog = 1U << 10,
  kAboutConnection = 1U << 11,
  kDangerous = 1U << 12,
  // Ours: COMMAND does not show them.
  kLarge = 1U << 18,            // may read or write whole values that it does not bring
  kScan = 1U << 19,             // reads all keys
  kNoMulti = 1U << 20,          // not inside a transaction
  kWaitsForReplies = 1U << 21,  // runs when all that its client asked before is answered
};

// Which arguments are keys: first, first + step, ... up to last (negative: from the end; 0: none),
// and what the command does with them, in the words of Redis' key specifications.
struct KeyPositions {
  int first = 0;
  int last = 0;
  int step = 0;
  std::string_view access = {};
};

constexpr std::string_view name_after_bar(std::string_view name) {
  return name.substr(name.find('|') + 1);  // all of it where there is none: npos + 1 is 0
}

struct Command {
  std::string_view name;  // lower case; of a subcommand "client|list"
  int arity = 0;          // with the name; negative: at least so many
  std::uint32_t flags = 0;
  KeyPositions keys = {};
  std::string_view group = {};  // as COMMAND DOCS names it
  std::string_view since = {};  // the Redis version it appeared in; of SESHAT.* ours
  std::string_view complexity = {};
  std::string_view summary = {};
  std::string_view arguments = {};  // "name:type" or "name:type:multiple", "...:optional"
  LocalFunction local = nullptr;
  ReadFunction read = nullptr;
  WriteFunction write = nullptr;
  AdminFunction admin = nullptr;
  std::span<const Command> subcommands = {};
  std::string_view short_name = name_after_bar(name);  // "list" of "client|list"

  [[nodiscard]] bool is_write() const { return write != nullptr; }
};

using CommandTable = std::span<const Command>;

// Names in any case; nullptr: unknown. Goes through the table; CommandNames does not.
[[nodiscard]] const Command* find_command(CommandTable table, std::string_view name);
// `command`, or the subcommand of it that a request names; nullptr: there is no such one.
[[nodiscard]] const Command* named_by(const Command* command, Args args);

// The same for a large table that every request asks: a hash table, made when compiled.
template <std::size_t kPlaces>  // a power of two, more than there are commands
class CommandNames {
 public:
  constexpr explicit CommandNames(CommandTable table);
  [[nodiscard]] constexpr const Command* find(std::string_view name) const;

 private:
  // Of a name that is not empty: the same in any case.
  [[nodiscard]] static constexpr std::size_t place_of(std::string_view name);

  CommandTable table_;
  // A command stands at its name's place or soon behind it, by its number from 1; 0: nobody.
  std::array<std::uint16_t, kPlaces> places_{};
};

[[nodiscard]] bool arity_fits(const Command& command, std::size_t arguments);
// Whether argument `index` of `count` (the name is argument 0) is a key.
[[nodiscard]] bool is_key(const Command& command, std::size_t index, std::size_t count);
// Calls visit(key) for each key argument of a request whose arity fits.
template <class Visit>
void for_each_key(const Command& command, Args args, Visit visit);

[[nodiscard]] std::string to_upper(std::string_view text);  // ASCII only
// Redis' own texts.
[[nodiscard]] std::string unknown_command_text(Args args);
[[nodiscard]] std::string unknown_subcommand_text(Args args);
[[nodiscard]] std::string wrong_arity_text(std::string_view command_name);

// What COMMAND and COMMAND DOCS tell of one command.
void describe_command(const Command& command, resp::Writer& reply);
void document_command(const Command& command, resp::Writer& reply);
// HELP of a container command, which every one has.
void help(const Command& container, resp::Writer& reply);

// =================================================================================================
// Bodies
// =================================================================================================

inline const ClusterNode* Topology::find(NodeId id) const {
  for (const ClusterNode& node : nodes) {
    if (node.id == id) return &node;
  }
  return nullptr;
}

inline std::string cluster_node_name(NodeId id) {
  std::string name = "7365736861742d6e6f64652d";
  constexpr std::string_view kHex = "0123456789abcdef";
  for (int shift = 60; shift >= 0; shift -= 4) name += kHex[(id.value >> shift) & 0xf];
  return name;
}

inline const Command* find_command(CommandTable table, std::string_view name) {
  for (const Command& command : table) {
    if (equals_ignoring_case(command.short_name, name)) return &command;
  }
  return nullptr;
}

inline const Command* named_by(const Command* command, Args args) {
  if (command == nullptr || command->subcommands.empty() || args.size() < 2) return command;
  return find_command(command->subcommands, args[1]);
}

template <std::size_t kPlaces>
constexpr CommandNames<kPlaces>::CommandNames(CommandTable table) : table_(table) {
  for (std::size_t i = 0; i < table.size(); ++i) {
    std::size_t place = place_of(table[i].short_name);
    while (places_[place] != 0) place = (place + 1) % kPlaces;
    places_[place] = static_cast<std::uint16_t>(i + 1);
  }
}

template <std::size_t kPlaces>
constexpr const Command* CommandNames<kPlaces>::find(std::string_view name) const {
  if (name.empty()) return nullptr;
  std::size_t place = place_of(name);
  for (; places_[place] != 0; place = (place + 1) % kPlaces) {
    const Command& command = table_[places_[place] - 1U];
    if (equals_ignoring_case(command.short_name, name)) return &command;
  }
  return nullptr;
}

template <std::size_t kPlaces>
constexpr std::size_t CommandNames<kPlaces>::place_of(std::string_view name) {
  const auto folded = [](char c) -> std::size_t { return static_cast<unsigned char>(to_lower(c)); };
  return (name.size() + 5 * folded(name.front()) + 11 * folded(name.back())) % kPlaces;
}

inline bool arity_fits(const Command& command, std::size_t arguments) {
  const auto count = static_cast<std::int64_t>(arguments);
  return command.arity >= 0 ? count == command.arity : count >= -command.arity;
}

inline bool is_key(const Command& command, std::size_t index, std::size_t count) {
  const KeyPositions& keys = command.keys;
  const auto at = static_cast<std::int64_t>(index);
  const auto size = static_cast<std::int64_t>(count);
  const std::int64_t last = keys.last < 0 ? size + keys.last : keys.last;
  if (keys.first == 0 || at < keys.first || at > last || at >= size) return false;
  return (at - keys.first) % keys.step == 0;
}

template <class Visit>
void for_each_key(const Command& command, Args args, Visit visit) {
  const KeyPositions& keys = command.keys;
  if (keys.first == 0) return;
  const auto size = static_cast<std::int64_t>(args.size());
  const std::int64_t last = keys.last < 0 ? size + keys.last : keys.last;
  for (std::int64_t i = keys.first; i <= last && i < size; i += keys.step) {
    visit(args[static_cast<std::size_t>(i)]);
  }
}

inline std::string to_upper(std::string_view text) {
  std::string upper(text);
  for (char& c : upper) c = c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c;
  return upper;
}

namespace command_detail {

// As Redis shows it: at most so many bytes, and none behind a 0.
inline std::string shown(std::string_view text, std::size_t most) {
  text = text.substr(0, most);
  return std::string(text.substr(0, text.find('\0')));
}

}  // namespace command_detail

// Redis 7.0, processCommand(): the first arguments, cut at 128 bytes in all.
inline std::string unknown_command_text(Args args) {
  std::string beginning;
  for (std::size_t i = 1; i < args.size() && beginning.size() < 128; ++i) {
    beginning += "'" + command_detail::shown(args[i], 128 - beginning.size()) + "' ";
  }
  return "ERR unknown command '" + command_detail::shown(args[0], 128) +
         "', with args beginning with: " + beginning;
}

inline std::string unknown_subcommand_text(Args args) {
  return "ERR unknown subcommand '" + std::string(args[1].substr(0, 128)) + "'. Try " +
         to_upper(args[0]) + " HELP.";
}

inline std::string wrong_arity_text(std::string_view command_name) {
  return "ERR wrong number of arguments for '" + std::string(command_name) + "' command";
}

inline Lookup ReadCall::get(std::string_view key, StoredValue& value) const {
  const auto first = static_cast<std::size_t>(first_key);
  const bool knows_slot =
      first < args.size() && key.data() == args[first].data() && key.size() == args[first].size();
  const Lookup lookup = read_value(map, knows_slot ? slot : slot_of(key), key, scratch, value);
  const bool may_be_over = lookup == Lookup::kFound && value.expires_at_ms;
  const Lookup found = may_be_over ? at_times(value, times()) : lookup;
  scratch.hits += found == Lookup::kFound ? 1 : 0;
  scratch.misses += found == Lookup::kAbsent ? 1 : 0;
  return found;
}

template <class Visit>
Lookup ReadCall::get_all(Args keys, Visit visit) const {
  StoredValue value;
  if (keys.size() == 1) {
    const Lookup lookup = get(keys[0], value);
    if (lookup == Lookup::kFound || lookup == Lookup::kAbsent) {
      (void)visit(lookup == Lookup::kFound ? &value : nullptr);
    }
    return answered(lookup);
  }
  std::vector<std::string> rows(keys.size());
  for (std::size_t i = 0; i < keys.size(); ++i) value_key(keys[i], rows[i]);
  std::optional<ReadTimes> now;
  Lookup problem = Lookup::kFound;
  const Lookup lookup = map.get_all(rows, [&](Lookup found, std::string_view record) {
    if (found == Lookup::kFound) {
      found = decoded_value(record, value);
      if (found == Lookup::kFound && value.expires_at_ms) {
        if (!now) now = times();
        found = at_times(value, *now);
      }
    }
    scratch.hits += found == Lookup::kFound ? 1 : 0;
    scratch.misses += found == Lookup::kAbsent ? 1 : 0;
    if (found == Lookup::kFound || found == Lookup::kAbsent) {
      return visit(found == Lookup::kFound ? &value : nullptr);
    }
    problem = found;
    return false;
  });
  return lookup == Lookup::kFound ? problem : lookup;
}

inline ReadTimes ReadCall::times() const {
  if (const auto* of = std::get_if<GroupTimes>(&clock))
    return of->database.times(of->group, of->read_only);
  return std::get<ReadTimes>(clock);
}

inline std::optional<ExpireTime::Kind> expire_kind_of(std::string_view option) {
  if (equals_ignoring_case(option, "ex")) return ExpireTime::Kind::kSeconds;
  if (equals_ignoring_case(option, "px")) return ExpireTime::Kind::kMilliseconds;
  if (equals_ignoring_case(option, "exat")) return ExpireTime::Kind::kAtSeconds;
  if (equals_ignoring_case(option, "pxat")) return ExpireTime::Kind::kAtMilliseconds;
  return std::nullopt;
}

namespace command_detail {

inline void refuse_expire_time(const WriteCall& call) {
  call.reply.error("ERR invalid expire time in '" + std::string(call.name) + "' command");
}

}  // namespace command_detail

inline std::optional<std::int64_t> any_expire_time(const WriteCall& call, const ExpireTime& time) {
  const auto given = resp::parse_integer(time.text);
  if (!given) {
    call.reply.error("ERR value is not an integer or out of range");
    return std::nullopt;
  }
  using Kind = ExpireTime::Kind;
  const bool in_seconds = time.kind == Kind::kSeconds || time.kind == Kind::kAtSeconds;
  const bool from_now = time.kind == Kind::kSeconds || time.kind == Kind::kMilliseconds;
  const std::int64_t base_ms =
      from_now && !call.checking() ? static_cast<std::int64_t>(call.keys->now_ms()) : 0;
  std::int64_t at_ms = 0;
  if (__builtin_mul_overflow(*given, in_seconds ? 1000 : 1, &at_ms) ||
      __builtin_add_overflow(at_ms, base_ms, &at_ms)) {
    command_detail::refuse_expire_time(call);
    return std::nullopt;
  }
  return at_ms;
}

inline std::optional<std::uint64_t> expire_time(const WriteCall& call, const ExpireTime& time) {
  const auto given = resp::parse_integer(time.text);
  if (given && *given <= 0) {
    command_detail::refuse_expire_time(call);
    return std::nullopt;
  }
  const auto at_ms = any_expire_time(call, time);
  if (!at_ms) return std::nullopt;
  return static_cast<std::uint64_t>(*at_ms);
}

namespace command_detail {

inline constexpr std::array<std::pair<CommandFlag, std::string_view>, 12> kFlagNames = {{
    {kWrite, "write"},
    {kReadOnly, "readonly"},
    {kDenyOom, "denyoom"},
    {kAdmin, "admin"},
    {kNoScript, "noscript"},
    {kLoading, "loading"},
    {kStale, "stale"},
    {kFast, "fast"},
    {kNoAuth, "no_auth"},
    {kNoMulti, "no_multi"},
    {kAllowBusy, "allow_busy"},
    {kSkipSlowlog, "skip_slowlog"},
}};

inline std::vector<std::string_view> flag_names(const Command& command) {
  std::vector<std::string_view> names;
  for (const auto& [flag, name] : kFlagNames) {
    if ((command.flags & flag) != 0) names.push_back(name);
  }
  return names;
}

// ACL categories, in Redis' order.
inline std::vector<std::string_view> categories(const Command& command) {
  const auto has = [&](CommandFlag flag) { return (command.flags & flag) != 0; };
  std::vector<std::string_view> names;
  const auto add_if = [&](bool holds, std::string_view name) {
    if (holds) names.push_back(name);
  };
  add_if(command.group == "generic" && !has(kAboutConnection), "@keyspace");
  add_if(has(kReadOnly), "@read");
  add_if(has(kWrite), "@write");
  add_if(command.group == "string", "@string");
  add_if(has(kAdmin), "@admin");
  names.push_back(has(kFast) ? "@fast" : "@slow");
  add_if(has(kAdmin) || has(kDangerous), "@dangerous");
  add_if(has(kAboutConnection), "@connection");
  add_if(command.group == "transactions", "@transaction");
  return names;
}

template <class Names>
void simple_strings(const Names& names, resp::Writer& reply) {
  reply.set(names.size());
  for (const auto& name : names) reply.simple_string(name);
}

inline std::vector<std::string_view> split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find(separator), text.size());
    parts.push_back(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return parts;
}

// A key specification as Redis 7 gives it: where the search begins, and a range from there.
inline void describe_keys(const Command& command, resp::Writer& reply) {
  const KeyPositions& keys = command.keys;
  if (keys.first == 0) return reply.set(0);
  reply.set(1);
  reply.map(3);
  reply.bulk("flags");
  simple_strings(split(keys.access, ' '), reply);
  reply.bulk("begin_search");
  reply.map(2);
  reply.bulk("type");
  reply.bulk("index");
  reply.bulk("spec");
  reply.map(1);
  reply.bulk("index");
  reply.integer(keys.first);
  reply.bulk("find_keys");
  reply.map(2);
  reply.bulk("type");
  reply.bulk("range");
  reply.bulk("spec");
  reply.map(3);
  reply.bulk("lastkey");
  reply.integer(keys.last < 0 ? keys.last : keys.last - keys.first);
  reply.bulk("keystep");
  reply.integer(keys.step);
  reply.bulk("limit");
  reply.integer(0);
}

// "key:key:multiple" -> name, type, flags.
inline void document_argument(std::string_view argument, resp::Writer& reply) {
  const std::vector<std::string_view> parts = split(argument, ':');
  const bool is_key = parts[1] == "key";
  const bool has_flags = parts.size() > 2;
  reply.map(2U + (is_key ? 1U : 0U) + (has_flags ? 1U : 0U));
  reply.bulk("name");
  reply.bulk(parts[0]);
  reply.bulk("type");
  reply.bulk(parts[1]);
  if (is_key) {
    reply.bulk("key_spec_index");
    reply.integer(0);
  }
  if (!has_flags) return;
  reply.bulk("flags");
  simple_strings(std::span(parts).subspan(2), reply);
}

inline void document_text(std::string_view name, std::string_view text, resp::Writer& reply) {
  reply.bulk(name);
  reply.bulk(text);
}

}  // namespace command_detail

// https://redis.io/commands/command/ : ten elements a command.
inline void describe_command(const Command& command, resp::Writer& reply) {
  reply.array(10);
  reply.bulk(command.name);
  reply.integer(command.arity);
  command_detail::simple_strings(command_detail::flag_names(command), reply);
  reply.integer(command.keys.first);
  reply.integer(command.keys.last);
  reply.integer(command.keys.step);
  command_detail::simple_strings(command_detail::categories(command), reply);
  reply.set(0);  // tips
  command_detail::describe_keys(command, reply);
  if (command.subcommands.empty()) return reply.set(0);
  reply.array(command.subcommands.size());
  for (const Command& subcommand : command.subcommands) describe_command(subcommand, reply);
}

// One key and its value of the map that COMMAND DOCS answers.
inline void document_command(const Command& command, resp::Writer& reply) {
  const std::vector<std::string_view> arguments = command_detail::split(command.arguments, ' ');
  reply.bulk(command.name);
  reply.map(4 + (arguments.empty() ? 0U : 1U) + (command.subcommands.empty() ? 0U : 1U));
  command_detail::document_text("summary", command.summary, reply);
  command_detail::document_text("since", command.since, reply);
  command_detail::document_text("group", command.group, reply);
  command_detail::document_text("complexity", command.complexity, reply);
  if (!arguments.empty()) {
    reply.bulk("arguments");
    reply.array(arguments.size());
    for (const std::string_view argument : arguments) {
      command_detail::document_argument(argument, reply);
    }
  }
  if (!command.subcommands.empty()) {
    reply.bulk("subcommands");
    reply.map(command.subcommands.size());
    for (const Command& subcommand : command.subcommands) document_command(subcommand, reply);
  }
}

inline void help(const Command& container, resp::Writer& reply) {
  reply.array(3 + 2 * container.subcommands.size());
  reply.simple_string(to_upper(container.name) +
                      " <subcommand> [<arg> [value] [opt] ...]. Subcommands are:");
  for (const Command& subcommand : container.subcommands) {
    std::string line = to_upper(subcommand.short_name);
    for (const std::string_view argument : command_detail::split(subcommand.arguments, ' ')) {
      line += " <" + std::string(command_detail::split(argument, ':')[0]) + ">";
    }
    reply.simple_string(line);
    reply.simple_string("    " + std::string(subcommand.summary) + ".");
  }
  reply.simple_string("HELP");
  reply.simple_string("    Prints this help.");
}

}  // namespace seshat

#endif  // SESHAT_COMMAND_HPP
