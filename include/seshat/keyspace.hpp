// seshat/keyspace.hpp - keys, values and times to live, as rows of an ordered map.
//
//   reading   OrderedMap, ReadTimes ──> read_value(): what a key has, unless its time has come
//   applying  Batch, MachineState  ──> Keyspace:     get, put, erase; counts and the expiry index
//
// Rows of a data group (column family data_kv). The slot comes first, so that slots can be moved,
// counted and scanned; the hash gives SCAN a cursor that stays valid.
//
//   00                                            MachineState
//   10  SS SS  HH HH HH HH HH HH  key             StoredValue; SS = slot, big-endian; HH = hash
//   20  TT TT TT TT TT TT TT TT  SS SS  HH.. key  nothing; TT = when it expires, in ms since 1970
//
//   foo, of slot 12182, is at:  10  2f 96  75 18 fe d9 d5 77  66 6f 6f
//
// Time: a state machine's time is the highest stamp of the entries it applied, the same on every
// replica at the same index, and only moves forward. A key whose time to live is over by it is
// absent; its rows go with a later entry.
//
// Threads: a Keyspace belongs to whoever applies; reading runs wherever the map allows.
// Needs:   codec.hpp, slots.hpp, fnv1a.hpp.
#ifndef SESHAT_KEYSPACE_HPP
#define SESHAT_KEYSPACE_HPP

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "seshat/codec.hpp"
#include "seshat/fnv1a.hpp"
#include "seshat/raft.hpp"
#include "seshat/records.hpp"
#include "seshat/result.hpp"
#include "seshat/slots.hpp"

namespace seshat {

// ---- The ordered map it lives in ----------------------------------------------------------------

enum class Lookup : std::uint8_t {
  kFound,
  kAbsent,
  kNotInMemory,  // only a read of the disk could tell; ask a map that may wait for it
  kFailed,       // the disk failed, or what it holds is damaged
  kDue,  // its time has come by the leader's clock, and not yet by the state's: see ReadTimes
};

class OrderedMap {
 public:
  virtual ~OrderedMap() = default;
  [[nodiscard]] virtual Lookup get(std::string_view key, std::string& value) const = 0;
  // The same for several keys, as they were at one moment: visit(kFound or kAbsent, value) for each, in
  // their order, until it says false. kFound: done. Anything else: nothing was visited, or too little.
  using VisitRow = std::function<bool(Lookup lookup, std::string_view value)>;
  [[nodiscard]] virtual Lookup get_all(std::span<const std::string> keys,
                                       const VisitRow& visit) const;
  // Calls visit(key, value) for rows from `from` on, before `to`, in order, until it says false.
  // kFound: done. kNotInMemory: this map can't; one that may wait for the disk can.
  using Visit = std::function<bool(std::string_view key, std::string_view value)>;
  [[nodiscard]] virtual Lookup scan(std::string_view /*from*/, std::string_view /*to*/,
                                    const Visit& /*visit*/) const {
    return Lookup::kNotInMemory;
  }
};

// Of a map that nobody changes meanwhile, each by itself is all at one moment.
inline Lookup OrderedMap::get_all(std::span<const std::string> keys, const VisitRow& visit) const {
  std::string value;
  for (const std::string& key : keys) {
    const Lookup lookup = get(key, value);
    if (lookup != Lookup::kFound && lookup != Lookup::kAbsent) return lookup;
    if (!visit(lookup, lookup == Lookup::kFound ? value : std::string_view())) break;
  }
  return Lookup::kFound;
}

// Of a store that has failed.
class FailedMap final : public OrderedMap {
 public:
  [[nodiscard]] Lookup get(std::string_view /*key*/, std::string& /*value*/) const override {
    return Lookup::kFailed;
  }
  [[nodiscard]] Lookup scan(std::string_view /*from*/, std::string_view /*to*/,
                            const Visit& /*visit*/) const override {
    return Lookup::kFailed;
  }
};

// Changes that become visible, and durable, together. Reads see the changes made so far.
class Batch : public OrderedMap {
 public:
  virtual void put(std::string_view key, std::string_view value) = 0;
  virtual void erase(std::string_view key) = 0;
  // Every row.
  virtual void erase_all() = 0;
};

// ---- Rows ---------------------------------------------------------------------------------------

inline constexpr std::string_view kDataStateKey{"\x00", 1};
inline constexpr char kValuePrefix = '\x10';
inline constexpr char kExpiryPrefix = '\x20';
inline constexpr std::size_t kValueKeyHeadBytes = 9;  // prefix, slot, hash
inline constexpr std::size_t kExpiryKeyHeadBytes = 17;

// FNV-1a, 64 bits, of which value keys keep 48. Fixed for ever: it stands in keys on disk.
[[nodiscard]] inline std::uint64_t key_hash(std::string_view key) { return fnv1a(key); }
// The map's key of a user's key, into `out` (replaced). `slot` is slot_of(key), for who knows it.
void value_key(std::string_view key, std::string& out);
void value_key(Slot slot, std::string_view key, std::string& out);
// Of the expiry index, for the value at `value_key`.
void expiry_key(std::uint64_t expires_at_ms, std::string_view value_key, std::string& out);
// The time in a row of that index, which has a whole head.
[[nodiscard]] std::uint64_t expiry_of(std::string_view expiry_key);
// Where the rows of the expiry index end whose time is `ms`, or before.
[[nodiscard]] std::string expiry_end(std::uint64_t ms);

// ---- Reading ------------------------------------------------------------------------------------

// By the first, which all replicas share, a key is gone; by the second, the leader's clock, it must
// not be returned any more: a time entry then moves the first (docs/architecture.md).
struct ReadTimes {
  std::uint64_t state_ms = 0;
  std::uint64_t now_ms = 0;
  // What is left of a time to live, as far as this node can know.
  [[nodiscard]] std::uint64_t latest_ms() const { return now_ms > state_ms ? now_ms : state_ms; }
};

// What reads need room for. Kept from one to the next, it spares them every allocation.
struct ReadScratch {
  std::string map_key;
  std::string record;
  // Keys that were looked for: were they there?
  std::uint64_t hits = 0;
  std::uint64_t misses = 0;
};

// The value of a user's key. `value.data` looks into scratch.record.
[[nodiscard]] Lookup read_value(const OrderedMap& map, Slot slot, std::string_view key,
                                ReadScratch& scratch, StoredValue& value);
// The same, whatever its time to live; `value.data` looks into `storage`.
[[nodiscard]] Lookup read_value(const OrderedMap& map, std::string_view key, std::string& storage,
                                StoredValue& value);
// kFound, or kFailed: what a map holds that is no value. `value.data` looks into `record`.
[[nodiscard]] Lookup decoded_value(std::string_view record, StoredValue& value);
// kFound, kAbsent or kDue: what a value that was found is at these times.
[[nodiscard]] Lookup at_times(const StoredValue& value, const ReadTimes& times);

// ---- Applying -----------------------------------------------------------------------------------

class Keyspace {
 public:
  static constexpr std::uint64_t kNever = ~std::uint64_t{0};
  // What it needs room for. Kept from one entry to the next, it spares them every allocation.
  struct Scratch {
    std::string key;
    std::string map_key;
    std::string record;
    std::string expiry_key;
    std::string encoded;

    static constexpr std::size_t kKeptSizeBytes = 65'536;
    void release_excess() {
      for (std::string* text : {&key, &map_key, &record, &expiry_key, &encoded}) {
        if (text->capacity() > kKeptSizeBytes) std::string().swap(*text);
      }
    }
  };

  // What one entry changes, of `index`. The state's time is set.
  Keyspace(Batch& batch, MachineState& state, Index index, Scratch& scratch)
      : batch_(batch),
        state_(state),
        index_(index),
        key_(scratch.key),
        map_key_(scratch.map_key),
        record_(scratch.record),
        expiry_key_(scratch.expiry_key),
        encoded_(scratch.encoded) {}
  Keyspace(const Keyspace&) = delete;
  Keyspace& operator=(const Keyspace&) = delete;

  [[nodiscard]] Index index() const { return index_; }
  [[nodiscard]] std::uint64_t now_ms() const { return state_.time_ms; }
  [[nodiscard]] std::uint64_t key_count() const { return state_.key_count; }
  [[nodiscard]] const Batch& batch() const { return batch_; }
  // Null: absent, or its time is over. Until the next call of get(), put(), erase() or erase_all().
  [[nodiscard]] const StoredValue* get(std::string_view key);
  // The value and its time to live, in place of what was there. `data` must not look into what get()
  // gave. A time that has come: the key is removed.
  void put(std::string_view key, std::string_view data, std::optional<std::uint64_t> expires_at_ms);
  // Whether it was there. One whose time is over goes, too.
  bool erase(std::string_view key);
  void erase_all();
  // Removes a key whose time is over; nothing else.
  bool remove_if_over(std::string_view key);
  // A watched key is as it was: see WatchToken.
  [[nodiscard]] bool is_unchanged(std::string_view key, const struct WatchToken& token);
  // When the first of the keys that were put here expires.
  [[nodiscard]] std::uint64_t soonest_given_ms() const { return soonest_given_ms_; }
  // A read failed, here or elsewhere in this entry, so that all of this is void.
  void fail() { failed_ = true; }
  [[nodiscard]] bool failed() const { return failed_; }

 private:
  // What is there, whatever its time to live; again only if it may have changed.
  void load(std::string_view key);
  [[nodiscard]] bool is_over() const {
    return found_ && value_.expires_at_ms && *value_.expires_at_ms <= state_.time_ms;
  }
  void drop_expiry();

  Batch& batch_;
  MachineState& state_;
  const Index index_;
  bool failed_ = false;
  std::uint64_t soonest_given_ms_ = kNever;
  // Of the key that was asked for last.
  bool loaded_ = false;
  std::string& key_;
  std::string& map_key_;
  std::string& record_;
  std::string& expiry_key_;
  std::string& encoded_;
  bool found_ = false;
  StoredValue value_;
};

// What WATCH remembers of a key, and what must not have changed when EXEC is applied.
struct WatchToken {
  Index mod_index;     // of its record; 0: it had none
  bool there = false;  // it had a value whose time was not over
  Index last_removal;  // of the group: tells of a key that is absent whether it always was

  friend bool operator==(const WatchToken&, const WatchToken&) = default;
};
// kFound: `token` is set.
[[nodiscard]] Lookup read_watch_token(const OrderedMap& map, std::string_view key,
                                      const ReadTimes& times, WatchToken& token);

// =================================================================================================
// Bodies
// =================================================================================================

inline void value_key(std::string_view key, std::string& out) { value_key(slot_of(key), key, out); }

inline void value_key(Slot slot, std::string_view key, std::string& out) {
  const std::uint64_t hash = key_hash(key);
  out.resize(kValueKeyHeadBytes + key.size());
  char* at = out.data();
  *at++ = kValuePrefix;
  *at++ = static_cast<char>(slot >> 8);
  *at++ = static_cast<char>(slot & 0xff);
  for (int shift = 40; shift >= 0; shift -= 8) *at++ = static_cast<char>(hash >> shift);
  std::copy(key.begin(), key.end(), at);
}

namespace keyspace_detail {

inline void append_big_endian(std::string& out, std::uint64_t number) {
  for (int shift = 56; shift >= 0; shift -= 8) out += static_cast<char>(number >> shift);
}

}  // namespace keyspace_detail

inline void expiry_key(std::uint64_t expires_at_ms, std::string_view value_key, std::string& out) {
  out.assign(1, kExpiryPrefix);
  keyspace_detail::append_big_endian(out, expires_at_ms);
  out.append(value_key.substr(1));
}

inline std::uint64_t expiry_of(std::string_view expiry_key) {
  std::uint64_t ms = 0;
  for (std::size_t at = 1; at < kExpiryKeyHeadBytes - (kValueKeyHeadBytes - 1); ++at) {
    ms = (ms << 8) | static_cast<unsigned char>(expiry_key[at]);
  }
  return ms;
}

inline std::string expiry_end(std::uint64_t ms) {
  if (ms == ~std::uint64_t{0}) return std::string(1, kExpiryPrefix + 1);
  std::string end(1, kExpiryPrefix);
  keyspace_detail::append_big_endian(end, ms + 1);
  return end;
}

inline Lookup decoded_value(std::string_view record, StoredValue& value) {
  const auto decoded = codec::decode_stored_value(record);
  if (!decoded) return Lookup::kFailed;
  value = *decoded;
  return Lookup::kFound;
}

namespace keyspace_detail {

inline Lookup read_at(const OrderedMap& map, std::string_view map_key, std::string& storage,
                      StoredValue& value) {
  const Lookup lookup = map.get(map_key, storage);
  return lookup == Lookup::kFound ? decoded_value(storage, value) : lookup;
}

}  // namespace keyspace_detail

inline Lookup read_value(const OrderedMap& map, std::string_view key, std::string& storage,
                         StoredValue& value) {
  std::string map_key;
  value_key(key, map_key);
  return keyspace_detail::read_at(map, map_key, storage, value);
}

inline Lookup read_value(const OrderedMap& map, Slot slot, std::string_view key,
                         ReadScratch& scratch, StoredValue& value) {
  value_key(slot, key, scratch.map_key);
  return keyspace_detail::read_at(map, scratch.map_key, scratch.record, value);
}

inline Lookup at_times(const StoredValue& value, const ReadTimes& times) {
  if (!value.expires_at_ms) return Lookup::kFound;
  if (*value.expires_at_ms <= times.state_ms) return Lookup::kAbsent;
  return *value.expires_at_ms <= times.now_ms ? Lookup::kDue : Lookup::kFound;
}

inline Lookup read_watch_token(const OrderedMap& map, std::string_view key, const ReadTimes& times,
                               WatchToken& token) {
  std::string storage;
  StoredValue value;
  token = {};
  Lookup lookup = read_value(map, key, storage, value);
  if (lookup != Lookup::kFound && lookup != Lookup::kAbsent) return lookup;
  if (lookup == Lookup::kFound) {
    token.mod_index = value.mod_index;
    lookup = at_times(value, times);
    if (lookup == Lookup::kDue) return lookup;
    token.there = lookup == Lookup::kFound;
  }
  if (token.there) return Lookup::kFound;
  lookup = map.get(kDataStateKey, storage);
  if (lookup == Lookup::kAbsent) return Lookup::kFound;
  if (lookup != Lookup::kFound) return lookup;
  const Result<MachineState> state = codec::decode_machine_state(storage);
  if (!state) return Lookup::kFailed;
  token.last_removal = state->last_removal;
  return Lookup::kFound;
}

// ---- Keyspace -----------------------------------------------------------------------------------

inline void Keyspace::load(std::string_view key) {
  if (loaded_ && key_ == key) return;
  key_.assign(key);
  value_key(key, map_key_);
  const Lookup lookup = keyspace_detail::read_at(batch_, map_key_, record_, value_);
  found_ = lookup == Lookup::kFound;
  if (!found_ && lookup != Lookup::kAbsent) failed_ = true;
  loaded_ = true;
}

inline const StoredValue* Keyspace::get(std::string_view key) {
  load(key);
  return found_ && !is_over() ? &value_ : nullptr;
}

inline void Keyspace::drop_expiry() {
  if (!found_ || !value_.expires_at_ms) return;
  expiry_key(*value_.expires_at_ms, map_key_, expiry_key_);
  batch_.erase(expiry_key_);
  --state_.expiring_count;
}

inline void Keyspace::put(std::string_view key, std::string_view data,
                          std::optional<std::uint64_t> expires_at_ms) {
  if (expires_at_ms && *expires_at_ms <= state_.time_ms) {
    (void)erase(key);
    state_.last_removal = index_;  // it came and went: who watched that it is absent is told
    return;
  }
  load(key);
  StoredValue next;
  next.data = data;
  next.created_at_ms = state_.time_ms;
  next.expires_at_ms = expires_at_ms;
  next.mod_index = index_;
  codec::encode(next, encoded_);
  if (!found_ || value_.expires_at_ms != expires_at_ms) {
    drop_expiry();
    if (!found_) ++state_.key_count;
    if (expires_at_ms) {
      expiry_key(*expires_at_ms, map_key_, expiry_key_);
      batch_.put(expiry_key_, {});
      soonest_given_ms_ = std::min(soonest_given_ms_, *expires_at_ms);
      ++state_.expiring_count;
    }
  }
  batch_.put(map_key_, encoded_);
  loaded_ = false;
}

inline bool Keyspace::erase(std::string_view key) {
  load(key);
  if (!found_) return false;
  const bool was_there = !is_over();
  drop_expiry();
  batch_.erase(map_key_);
  --state_.key_count;
  state_.last_removal = index_;
  loaded_ = false;
  return was_there;
}

inline bool Keyspace::remove_if_over(std::string_view key) {
  load(key);
  if (!is_over()) return false;
  (void)erase(key);
  return true;
}

inline void Keyspace::erase_all() {
  batch_.erase_all();
  state_.key_count = 0;
  state_.expiring_count = 0;
  state_.last_removal = index_;
  loaded_ = false;
}

inline bool Keyspace::is_unchanged(std::string_view key, const WatchToken& token) {
  const bool there = get(key) != nullptr;
  const Index mod_index = found_ ? value_.mod_index : Index{};
  if (there != token.there || mod_index != token.mod_index) return false;
  return there || state_.last_removal == token.last_removal;
}

}  // namespace seshat

#endif  // SESHAT_KEYSPACE_HPP
