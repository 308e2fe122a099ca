// Records that are written and read by hand, against nanopb's word on the same records: the same
// bytes, and of any bytes the same meaning or the same refusal. Where the two are of different
// minds, same() and the last test cases say so, and why.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <memory>
#include <optional>
#include <ostream>
#include <random>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "catch.hpp"
#include "nanopb_codec.hpp"
#include "seshat/peer_codec.hpp"

namespace {

using namespace seshat;
using namespace seshat::tests;

std::string bytes_of(std::initializer_list<int> values) {
  std::string bytes;
  for (const int value : values) bytes += static_cast<char>(value);
  return bytes;
}

std::string hex(std::string_view bytes) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::string text;
  for (const char c : bytes) {
    const auto byte = static_cast<unsigned char>(c);
    text += {kDigits[byte >> 4], kDigits[byte & 15], ' '};
  }
  return text;
}

template <class Record>
std::string by_hand(const Record& record) {
  if constexpr (requires(std::string out) { codec::encode(record, out); }) {
    std::string out;
    codec::encode(record, out);
    return out;
  } else {
    return codec::encode(record);
  }
}

// ---- Random records -----------------------------------------------------------------------------

class Random {
 public:
  explicit Random(std::uint64_t seed) : raw_(seed) {}

  [[nodiscard]] std::uint64_t below(std::uint64_t end) { return raw_() % end; }
  [[nodiscard]] bool one_in(std::uint64_t n) { return below(n) == 0; }
  // Of any length as a varint; often 0.
  [[nodiscard]] std::uint64_t number() { return one_in(5) ? 0 : raw_() >> below(64); }
  [[nodiscard]] std::uint32_t number_32() { return static_cast<std::uint32_t>(number()); }
  // Mostly short; once in a while longer than nanopb's own sizes reach.
  [[nodiscard]] std::string text() {
    std::string text(one_in(500) ? 70'000 : below(one_in(5) ? 300 : 12), '\0');
    for (char& byte : text) byte = static_cast<char>(raw_());
    return text;
  }
  [[nodiscard]] std::vector<NodeId> ids() {
    std::vector<NodeId> ids(below(4));
    for (NodeId& id : ids) id = NodeId{number()};
    return ids;
  }
  [[nodiscard]] raft::Configuration configuration() { return {ids(), ids(), ids()}; }

  [[nodiscard]] raft::Entry entry() {
    raft::Entry entry{Term{number()}, Index{number()}, static_cast<raft::EntryType>(below(3)),
                      nullptr};
    if (entry.type != raft::EntryType::kConfigChange) {
      if (!one_in(4)) entry.data = std::make_shared<const std::string>(text());
      return entry;
    }
    raft::Configuration all = configuration();
    all.voters.push_back(NodeId{number()});
    entry.configuration = std::make_shared<const raft::Configuration>(std::move(all));
    return entry;
  }

  [[nodiscard]] MachineState machine_state() {
    MachineState state{Index{number()}, Term{number()}, number(), number()};
    if (one_in(2)) state.configuration_index = Index{number()};
    if (state.configuration_index != Index{}) state.configuration = configuration();
    return state;
  }

  [[nodiscard]] raft::Message message() {
    raft::Message message{NodeId{number()}, NodeId{number()}, Term{number()}, raft::TimeoutNow{}};
    switch (below(9)) {
      case 0:
        message.body = raft::RequestVote{Index{number()}, Term{number()}, one_in(2), one_in(2)};
        break;
      case 1:
        message.body = raft::RequestVoteReply{one_in(2), one_in(2)};
        break;
      case 2:
        message.body = raft::InstallSnapshot{
            {Index{number()}, Term{number()}, configuration(), Index{number()}}};
        break;
      case 3:
        break;
      case 4:
      case 5:
        message.body = append_reply();
        break;
      default:
        message.body = append();
    }
    return message;
  }

  [[nodiscard]] Frame frame() {
    Frame frame;
    if (one_in(8)) frame.hello = hello();
    if (one_in(8)) frame.hello_reply = HelloReply{one_in(2), "because", hello(), one_in(2)};
    if (one_in(8)) frame.status = NodeStatus{one_in(2), "0.2.0", {GroupStatus{}}};
    for (std::uint64_t i = below(4); i > 0; --i) {
      frame.messages.push_back({GroupId{number()}, message()});
    }
    for (std::uint64_t i = one_in(2) ? below(3) : 0; i > 0; --i) {
      frame.forwarded.push_back(
          {number() | 1, GroupId{number()}, text(), number(), Term{number()}});
    }
    for (std::uint64_t i = one_in(2) ? below(3) : 0; i > 0; --i) {
      const auto integer = static_cast<std::int64_t>(number()) * (one_in(2) ? 1 : -1);
      frame.forwarded_replies.push_back(
          {number() | 1, number_32(), Index{number()}, number(), number_32(), integer, text()});
    }
    return frame;
  }

 private:
  [[nodiscard]] raft::AppendEntries append() {
    raft::AppendEntries append{Index{number()}, Term{number()},  Index{number()},
                               number(),        Index{number()}, {}};
    for (std::uint64_t i = below(4); i > 0; --i) append.entries.push_back(entry());
    return append;
  }

  [[nodiscard]] raft::AppendEntriesReply append_reply() {
    raft::AppendEntriesReply reply;
    reply.success = one_in(2);
    (reply.success ? reply.match_index : reply.rejected_index) = Index{number()};
    reply.round = number();
    reply.withhold_ms = number_32();
    reply.conflict_index = Index{number()};
    reply.conflict_term = Term{number()};
    return reply;
  }

  [[nodiscard]] Hello hello() {
    Hello hello;
    hello.min_protocol_version = 1;
    hello.max_protocol_version = 2;
    hello.cluster_id = std::string(below(65), 'c');
    hello.members_hash = number();
    hello.node_id = NodeId{number()};
    hello.addr = "kv-3:7379";
    return hello;
  }

  std::mt19937_64 raw_;
};

// ---- Both readers -------------------------------------------------------------------------------

// What a reader makes of bytes: the record, as nanopb would write it anew, or a refusal.
struct Verdict {
  bool taken;
  std::string text;

  friend bool operator==(const Verdict&, const Verdict&) = default;
};

std::ostream& operator<<(std::ostream& out, const Verdict& verdict) {
  return out << (verdict.taken ? "taken: " + hex(verdict.text) : "refused: " + verdict.text);
}

// Of a configuration without an index nothing would be written.
std::string meaning(const MachineState& state) {
  MachineState indexed = state;
  indexed.configuration_index = Index{state.configuration_index == Index{} ? 1U : 2U};
  return reference::encoded(state) + reference::encoded(indexed);
}
template <class Record>
std::string meaning(const Record& record) {
  return reference::encoded(record);
}

template <class Record>
Verdict verdict(std::string_view bytes, Result<Record> (*decode)(std::string_view)) {
  const auto copy = std::make_unique<char[]>(bytes.size());  // so that ASan sees each end
  std::copy(bytes.begin(), bytes.end(), copy.get());
  const Result<Record> record = decode({copy.get(), bytes.size()});
  return record ? Verdict{true, meaning(*record)} : Verdict{false, record.error().text};
}

// A field as proto/seshat.proto has it, of a message of which `parts` are the fields.
struct Field {
  int number;
  enum Kind { kNumber, kNumber32, kSmall, kBytes, kMessage } kind;
  const std::vector<Field>* parts = nullptr;
};
using Fields = std::vector<Field>;

const Fields kConfiguration = {{1, Field::kNumber}, {2, Field::kNumber}, {3, Field::kNumber}};
const Fields kEntry = {{1, Field::kSmall},
                       {2, Field::kNumber},
                       {3, Field::kNumber},
                       {4, Field::kSmall},
                       {5, Field::kMessage, &kConfiguration}};
const Fields kHardState = {
    {1, Field::kSmall}, {2, Field::kNumber}, {3, Field::kNumber}, {4, Field::kNumber}};
const Fields kValue = {{1, Field::kSmall},  {2, Field::kSmall},  {3, Field::kBytes},
                       {4, Field::kNumber}, {5, Field::kNumber}, {6, Field::kNumber}};
const Fields kState = {{1, Field::kSmall},
                       {2, Field::kNumber},
                       {3, Field::kNumber},
                       {4, Field::kNumber},
                       {5, Field::kNumber},
                       {6, Field::kNumber},
                       {7, Field::kMessage, &kConfiguration}};
const Fields kOperation = {
    {1, Field::kSmall}, {2, Field::kSmall}, {3, Field::kNumber}, {4, Field::kBytes}};
const Fields kMessage = {{1, Field::kSmall},
                         {2, Field::kNumber},
                         {3, Field::kNumber},
                         {4, Field::kNumber},
                         {5, Field::kNumber},
                         {6, Field::kNumber},
                         {7, Field::kNumber},
                         {8, Field::kNumber},
                         {9, Field::kNumber},
                         {10, Field::kNumber32},
                         {11, Field::kNumber},
                         {12, Field::kSmall},
                         {13, Field::kSmall},
                         {14, Field::kSmall},
                         {15, Field::kMessage, &kEntry},
                         {16, Field::kNumber},
                         {17, Field::kMessage, &kConfiguration},
                         {18, Field::kNumber}};
const Fields kHello = {{1, Field::kNumber32}, {2, Field::kBytes},  {4, Field::kNumber},
                       {5, Field::kNumber},   {6, Field::kSmall},  {7, Field::kBytes},
                       {8, Field::kNumber32}, {12, Field::kNumber}};
const Fields kStatus = {{1, Field::kSmall}, {2, Field::kBytes}};
const Fields kForwarded = {{1, Field::kNumber},
                           {2, Field::kNumber},
                           {3, Field::kBytes},
                           {4, Field::kNumber},
                           {5, Field::kNumber}};
const Fields kForwardedReply = {{1, Field::kNumber}, {2, Field::kNumber32}, {3, Field::kNumber},
                                {4, Field::kNumber}, {5, Field::kNumber32}, {6, Field::kNumber},
                                {7, Field::kBytes}};
const Fields kFrame = {{1, Field::kMessage, &kHello},         {3, Field::kMessage, &kMessage},
                       {3, Field::kMessage, &kMessage},       {3, Field::kMessage, &kMessage},
                       {4, Field::kMessage, &kStatus},        {5, Field::kMessage, &kForwarded},
                       {6, Field::kMessage, &kForwardedReply}};

struct Kind {
  const char* name;
  const Fields* fields;
  std::function<std::string(Random&)> bytes;  // of a random record, as nanopb writes it
  std::function<Verdict(std::string_view)> by_hand;
  std::function<Verdict(std::string_view)> by_nanopb;
};

template <class Record, class Make>
Kind kind(const char* name, const Fields& fields, Make make,
          Result<Record> (*hand)(std::string_view), Result<Record> (*reference)(std::string_view)) {
  return {name, &fields, [make](Random& random) { return make(random); },
          [hand](std::string_view bytes) { return verdict(bytes, hand); },
          [reference](std::string_view bytes) { return verdict(bytes, reference); }};
}

// Views into texts that live as long as the call.
template <class Then>
auto with_value(Random& random, Then then) {
  const std::string data = random.text();
  StoredValue value{ValueType::kString, data, random.number(), {}, Index{random.number()}};
  if (random.one_in(3)) value.expires_at_ms = random.number();
  return then(value);
}

template <class Then>
auto with_operation(Random& random, Then then) {
  std::vector<std::string> arguments(random.below(5));
  Operation operation{static_cast<OperationType>(1 + random.below(255)), random.number(), {}};
  for (std::string& argument : arguments) {
    argument = random.text();
    operation.arguments.push_back(argument);
  }
  return then(operation);
}

raft::HardState hard_state(Random& random) {
  return {Term{random.number()}, NodeId{random.number()}, Index{random.number()}};
}

constexpr auto kByNanopb = [](const auto& record) { return reference::encoded(record); };

const std::vector<Kind> kKinds = {
    kind(
        "entry", kEntry, [](Random& random) { return reference::encoded(random.entry()); },
        codec::decode_entry, reference::decode_entry),
    kind(
        "hard state", kHardState,
        [](Random& random) { return reference::encoded(hard_state(random)); },
        codec::decode_hard_state, reference::decode_hard_state),
    kind(
        "value", kValue, [](Random& random) { return with_value(random, kByNanopb); },
        codec::decode_stored_value, reference::decode_stored_value),
    kind(
        "state", kState, [](Random& random) { return reference::encoded(random.machine_state()); },
        codec::decode_machine_state, reference::decode_machine_state),
    kind(
        "operation", kOperation, [](Random& random) { return with_operation(random, kByNanopb); },
        codec::decode_operation, reference::decode_operation),
    kind(
        "frame", kFrame, [](Random& random) { return reference::encoded(random.frame()); },
        codec::decode_frame, reference::decode_frame)};

void append_varint(std::string& out, std::uint64_t value) {
  for (; value >= 0x80; value >>= 7) out += static_cast<char>(value | 0x80);
  out += static_cast<char>(value);
}

void append_bytes(std::string& out, int field, std::string_view bytes) {
  append_varint(out, static_cast<std::uint64_t>(field) << 3 | 2);
  append_varint(out, bytes.size());
  out += bytes;
}

// The fields of a message, as they stand in its bytes.
std::vector<std::string> fields_of(std::string_view bytes) {
  std::vector<std::string> fields;
  pb_istream_t stream =
      pb_istream_from_buffer(reinterpret_cast<const pb_byte_t*>(bytes.data()), bytes.size());
  while (stream.bytes_left > 0) {
    const std::size_t begin = bytes.size() - stream.bytes_left;
    pb_wire_type_t type{};
    std::uint32_t tag = 0;
    bool eof = false;
    REQUIRE(pb_decode_tag(&stream, &type, &tag, &eof));
    REQUIRE(pb_skip_field(&stream, type));
    fields.emplace_back(bytes.substr(begin, bytes.size() - stream.bytes_left - begin));
  }
  return fields;
}

// The frame with a 1 for every bool above 32 bits.
std::string with_narrow_bools(std::string_view frame) {
  std::string out;
  for (const std::string& field : fields_of(frame)) {
    wire::Reader in(field);
    std::string_view message;
    if (!in.next() || in.field() != seshat_proto_Frame_messages_tag) {
      out += field;
      continue;
    }
    in.take(message);
    std::string narrow;
    for (const std::string& part : fields_of(message)) {
      const bool wide = part.size() > 5 && (part[0] == 0x60 || part[0] == 0x68 || part[0] == 0x70);
      narrow += wide ? part.substr(0, 1) + '\1' : part;
    }
    append_bytes(out, seshat_proto_Frame_messages_tag, narrow);
  }
  return out;
}

// A field's number and type in more than 32 bits; or so in a message of a frame, or in its entries.
bool has_large_tag(std::string_view bytes, int depth) {
  for (const std::string& field : fields_of(bytes)) {
    const auto more = [](char byte) { return static_cast<unsigned char>(byte) >= 0x80; };
    const bool long_tag = field.size() > 5 && std::all_of(field.begin(), field.begin() + 4, more);
    if (long_tag && static_cast<unsigned char>(field[4]) > 0x0f) return true;
    wire::Reader in(field);
    if (depth == 0 || !in.next()) continue;
    const bool has_messages =
        depth == 2 && (in.field() == seshat_proto_Frame_messages_tag ||
                       in.field() == seshat_proto_Frame_forwarded_tag ||
                       in.field() == seshat_proto_Frame_forwarded_replies_tag);
    if (!has_messages && !(depth == 1 && in.field() == seshat_proto_RaftMessage_entries_tag)) {
      continue;
    }
    std::string_view inner;
    in.take(inner);
    if (in.whole() && has_large_tag(inner, depth - 1)) return true;
  }
  return false;
}

// Three differences are left. Of a version above 32 bits nanopb names the lower half: wrong, but a
// refusal all the same. A bool is any number, says the protocol; nanopb wants 32 bits. And nanopb
// forgets what a tag has above 32 bits.
bool same(const Kind& kind, std::string_view bytes, const Verdict& hand, const Verdict& nanopb) {
  if (hand == nanopb) return true;
  const bool frame = kind.fields == &kFrame;
  if (hand.taken) return frame && hand == kind.by_nanopb(with_narrow_bools(bytes));
  if (nanopb.taken) return has_large_tag(bytes, frame ? 2 : 0);
  return nanopb.text.find("has version") != std::string::npos ||
         nanopb.text.find("has no version") != std::string::npos;
}

void check_same(const Kind& kind, std::string_view bytes) {
  const Verdict hand = kind.by_hand(bytes);
  const Verdict nanopb = kind.by_nanopb(bytes);
  if (same(kind, bytes, hand, nanopb)) return;  // thousands of times
  INFO(kind.name << ": " << hex(bytes.substr(0, 2000)));
  CHECK(hand == nanopb);
}

// ---- Random bytes that are nearly records -------------------------------------------------------

// Of any type, groups among them; of a field that may be known, too.
std::string stray_field(Random& random) {
  constexpr std::uint64_t kTypes[] = {0, 0, 1, 2, 2, 5, 3, 4};
  const std::uint64_t type = kTypes[random.below(random.one_in(10) ? 8 : 6)];
  const std::uint64_t field = random.one_in(10) ? 1 + random.below(18) : 19 + random.below(5000);
  if (type == 2) {
    std::string out;
    append_bytes(out, static_cast<int>(field), random.text());
    return out;
  }
  // A number in the place of a message: see the last test cases.
  const bool message = field == 15 || field == 3 || field == 17;
  std::string out;
  append_varint(out, (message ? field + 100 : field) << 3 | type);
  if (type == 0) append_varint(out, random.number());
  if (type == 1) out += std::string(8, static_cast<char>(random.below(256)));
  if (type == 5) out += std::string(4, static_cast<char>(random.below(256)));
  return out;
}

// Fields of a message in any order, some missing, some several times, some strange.
std::string soup(Random& random, const Fields& fields) {
  std::string out;
  if (!random.one_in(10)) out += bytes_of({0x08, static_cast<int>(1 + random.below(3))});
  for (std::uint64_t i = random.below(2 * fields.size()); i > 0; --i) {
    const Field& field = fields[random.below(fields.size())];
    if (random.one_in(20)) out += stray_field(random);
    if (field.kind == Field::kBytes) {
      append_bytes(out, field.number, random.text());
    } else if (field.kind == Field::kMessage) {
      append_bytes(out, field.number, soup(random, *field.parts));
    } else {
      append_varint(out, static_cast<std::uint64_t>(field.number) << 3);
      append_varint(out, field.kind == Field::kNumber     ? random.number()
                         : field.kind == Field::kNumber32 ? random.number() >> random.below(33)
                                                          : random.below(5));
    }
  }
  return out;
}

}  // namespace

TEST_CASE("what is written by hand are the bytes that nanopb writes", "[codec][wire]") {
  Random random(1);
  const auto same = [](const auto& record) {
    return by_hand(record) == reference::encoded(record);
  };
  for (int round = 0; round < 5000; ++round) {
    REQUIRE(same(random.entry()));
    REQUIRE(same(hard_state(random)));
    REQUIRE(with_value(random, same));
    REQUIRE(same(random.machine_state()));
    REQUIRE(with_operation(random, same));
    REQUIRE(same(random.frame()));
  }
}

TEST_CASE("what nanopb wrote means the same to both readers", "[codec][wire]") {
  Random random(2);
  for (const Kind& kind : kKinds) {
    for (int round = 0; round < 5000; ++round) {
      const std::string bytes = kind.bytes(random);
      if (std::string_view(kind.name) == "frame" || kind.by_hand(bytes).taken) {
        check_same(kind, bytes);
      } else {
        FAIL_CHECK(kind.name << " is refused: " << hex(bytes));
      }
    }
  }
}

TEST_CASE("records cut short at every byte mean the same to both readers", "[codec][wire]") {
  Random random(3);
  for (const Kind& kind : kKinds) {
    for (int round = 0; round < 300; ++round) {
      const std::string bytes = kind.bytes(random).substr(0, 500);
      for (std::size_t size = 0; size < bytes.size(); ++size) {
        check_same(kind, std::string_view(bytes).substr(0, size));
      }
    }
  }
}

TEST_CASE("records with any one bit flipped mean the same to both readers", "[codec][wire]") {
  Random random(4);
  for (const Kind& kind : kKinds) {
    for (int round = 0; round < 80; ++round) {
      std::string bytes = kind.bytes(random);
      for (std::size_t bit = 0; bit < 8 * std::min<std::size_t>(bytes.size(), 400); ++bit) {
        bytes[bit / 8] ^= static_cast<char>(1U << bit % 8);
        check_same(kind, bytes);
        bytes[bit / 8] ^= static_cast<char>(1U << bit % 8);
      }
    }
  }
}

TEST_CASE("fields in any order, repeated or unknown mean the same to both readers",
          "[codec][wire]") {
  Random random(5);
  for (const Kind& kind : kKinds) {
    for (int round = 0; round < 1000; ++round) {
      std::vector<std::string> fields = fields_of(kind.bytes(random) + kind.bytes(random));
      for (int strays = 0; strays < 3; ++strays) fields.push_back(stray_field(random));
      std::string bytes;
      while (!fields.empty()) {
        const auto next = fields.begin() + static_cast<int>(random.below(fields.size()));
        bytes += *next;
        if (!random.one_in(4)) fields.erase(next);
      }
      check_same(kind, bytes);
    }
  }
}

TEST_CASE("fields at random mean the same to both readers, inner ones too", "[codec][wire]") {
  Random random(6);
  for (const Kind& kind : kKinds) {
    int taken = 0;
    for (int round = 0; round < 20'000; ++round) {
      const std::string bytes = soup(random, *kind.fields);
      check_same(kind, bytes);
      taken += kind.by_hand(bytes).taken ? 1 : 0;
    }
    INFO(kind.name);
    CHECK(taken > 300);
  }
}

TEST_CASE("of bytes of no meaning nanopb takes all that is taken by hand", "[codec][wire]") {
  Random random(7);
  for (const Kind& kind : kKinds) {
    for (int round = 0; round < 20'000; ++round) {
      const std::string bytes = random.text().substr(0, 40);
      if (kind.by_hand(bytes).taken) check_same(kind, bytes);
    }
  }
}

// ---- What nanopb takes, and nobody writes -------------------------------------------------------

namespace {

const std::string kWhole = bytes_of({0x08, 1});  // of a record: its version

void check_stricter(const std::string& bytes) {
  INFO(hex(bytes));
  CHECK(reference::decode_hard_state(kWhole + bytes));
  CHECK(codec::decode_hard_state(kWhole + bytes).error().text ==
        "RaftHardState is damaged: it is not a whole record");
}

}  // namespace

// Protobuf's own library ends a varint after 10 bytes.
TEST_CASE("an unknown number of more than 10 bytes is refused, though nanopb skips it",
          "[codec][wire]") {
  check_stricter(bytes_of({0x78}) + std::string(20, '\x80') + bytes_of({0}));
  check_stricter(bytes_of({0x78}) + std::string(9, '\xff') + bytes_of({2}));
}

// nanopb takes a tag for a number that may be negative, and forgets its upper half.
TEST_CASE("a tag above 32 bits is refused, though nanopb forgets what is above", "[codec][wire]") {
  check_stricter(bytes_of({0xf8, 0xff, 0xff, 0xff, 0x7f, 1}));
}

// Its bytes are decoded as if they were the message, by accident: no length said that they are.
TEST_CASE("a number in the place of a message is refused, though nanopb takes it for one",
          "[codec][wire]") {
  const std::string message = bytes_of({0x08, 5, 0x10, 1, 0x18, 1, 0x20, 2});  // TimeoutNow
  const std::string fixed = bytes_of({0x19}) + message;
  CHECK(reference::decode_frame(fixed)->messages.size() == 1);
  CHECK_FALSE(codec::decode_frame(fixed));
  const std::string entry = bytes_of({0x08, 1, 0x10, 1, 0x18, 1, 0x20, 2});
  const std::string append = bytes_of({0x1a, 11, 0x08, 3, 0x79}) + entry;
  CHECK(reference::decode_frame(append));
  CHECK_FALSE(codec::decode_frame(append));
}
