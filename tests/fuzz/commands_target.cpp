// What a client sends, through a Connection, onto state machines; the target plays the server, Raft,
// the disk and the pool. The first byte chooses what else happens: see Options.
//
// Claims: one well-formed reply a request, in order, in the protocol the client chose; what GET, SET,
// DEL and EXISTS answer is what a map would, after every write that came before; nothing beyond the
// limits reaches the log; the bounds of a connection hold; the log, applied once more in one piece,
// gives the same keys and the same outcomes. Who asks for silence (CLIENT REPLY, SHUTDOWN) gets no more
// replies than requests, and what they say is not compared.
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "fuzz/direct_batch.hpp"
#include "fuzz/target.hpp"
#include "memory_database.hpp"
#include "seshat/connection.hpp"

namespace seshat::fuzz {

namespace {

using Request = std::vector<std::string>;

// '@' is none of these, 'A' the first, 'C' the first two, ...
struct Options {
  explicit Options(char c)
      : lease_comes_and_goes((c & 1) != 0),
        cold_memory((c & 2) != 0),
        refusals((c & 4) != 0),
        two_groups((c & 8) != 0),
        tight((c & 16) != 0) {}
  [[nodiscard]] bool harmless() const { return !refusals && !two_groups && !tight; }

  bool lease_comes_and_goes;
  bool cold_memory;  // what a read needs is on disk, which may fail
  bool refusals;     // before something is in the log, and after
  bool two_groups;   // and slots that none has
  bool tight;        // small limits, and now and then a full disk
};

// ---- The node -----------------------------------------------------------------------------------

struct Group {
  KeyValueMachine machine{&kv::apply_command};
  tests::MemoryMap map;
  std::vector<raft::Entry> log;  // entry i has index i + 1
  std::vector<Outcome> outcomes;
  std::deque<Waiter*> waiters;  // of the entries that are not applied yet

  [[nodiscard]] Index applied() const { return Index{outcomes.size()}; }
  [[nodiscard]] Outcome apply(std::size_t count) {
    const auto from = log.begin() + static_cast<std::ptrdiff_t>(outcomes.size());
    DirectBatch batch(map);
    const auto applied = machine.apply(batch, {from, from + static_cast<std::ptrdiff_t>(count)});
    check(static_cast<bool>(applied), "what was proposed can't be applied");
    outcomes.insert(outcomes.end(), applied->begin(), applied->end());
    return outcomes.back();
  }
};

// Memory that now and then does not hold what is asked for, and a disk that now and then fails.
class SlowMap final : public OrderedMap {
 public:
  SlowMap(const OrderedMap& map, Lookup instead, std::size_t one_in, Chance& chance)
      : map_(map), instead_(instead), one_in_(one_in), chance_(chance) {}
  [[nodiscard]] Lookup get(std::string_view key, std::string& value) const override {
    return chance_.one_in(one_in_) ? instead_ : map_.get(key, value);
  }

 private:
  const OrderedMap& map_;
  Lookup instead_;
  std::size_t one_in_;
  Chance& chance_;
};

class Node final : public Database {
 public:
  Node(Options options, Chance& chance) : options_(options), chance_(chance) {}

  [[nodiscard]] std::optional<GroupId> group_of(Slot slot) const override {
    if (!options_.two_groups) return kFirstDataGroup;
    if (slot % 7 == 0) return std::nullopt;
    return slot >= kSlotCount / 2 ? GroupId{2} : kFirstDataGroup;
  }
  WriteMark propose(GroupId id, Operation operation, Waiter& waiter) override {
    if (options_.refusals && chance_.one_in(4)) {
      waiter.failed(Refusal::kNotLeader);
      return {};
    }
    operation.time_ms = time_ms_ += chance_.below(3);
    Group& group = groups_[id];
    const Index index{group.log.size() + 1};
    group.log.push_back({Term{1}, index, raft::EntryType::kNormal,
                         std::make_shared<const std::string>(codec::encode(operation))});
    group.waiters.push_back(&waiter);
    return {index};
  }
  [[nodiscard]] bool readable(GroupId id, WriteMark after, bool) const override {
    if (options_.lease_comes_and_goes && chance_.one_in(2)) return false;
    return applied(id) >= after.index;
  }
  void read(GroupId id, WriteMark after, bool, Waiter& waiter) override {
    if (options_.refusals && chance_.one_in(4)) return waiter.failed(Refusal::kNoQuorum);
    reads_.push_back({id, after.index, &waiter});
  }
  [[nodiscard]] const OrderedMap& cached(GroupId id) const override {
    if (!options_.cold_memory) return groups_[id].map;
    cold_.emplace(groups_[id].map, Lookup::kNotInMemory, 2, chance_);
    return *cold_;
  }
  void read_from_disk(GroupId id, std::function<void(const OrderedMap&)> work) override {
    disk_reads_.emplace_back(id, std::move(work));
  }
  void post(std::function<void()> work) override { posted_.push_back(std::move(work)); }
  [[nodiscard]] std::string refusal_text(Slot slot, Refusal, bool) const override {
    return "REFUSED " + std::to_string(slot);
  }
  [[nodiscard]] bool disk_is_full() const override { return options_.tight && chance_.one_in(8); }
  void administer(AdminRequest, std::function<void(CallReply)> done) override {
    posted_.emplace_back(
        [done = std::move(done)] { done(tests::call_reply(CallStatus::kAccepted)); });
  }

  // One thing that was under way comes to its end. False: nothing is.
  bool step() {
    std::vector<bool (Node::*)()> steps = {&Node::apply_next, &Node::read_next,
                                           &Node::finish_disk_read, &Node::run_posted};
    const std::size_t first = chance_.below(steps.size());
    for (std::size_t i = 0; i < steps.size(); ++i) {
      if ((this->*steps[(first + i) % steps.size()])()) return true;
    }
    return false;
  }
  [[nodiscard]] const std::map<GroupId, Group>& groups() const { return groups_; }

 private:
  struct Read {
    GroupId group;
    Index after;
    Waiter* waiter;
  };

  [[nodiscard]] Index applied(GroupId id) const { return groups_[id].applied(); }

  bool apply_next() {
    std::vector<Group*> busy;
    for (auto& [id, group] : groups_) {
      if (!group.waiters.empty()) busy.push_back(&group);
    }
    if (busy.empty()) return false;
    Group& group = *busy[chance_.below(busy.size())];
    Waiter& waiter = *group.waiters.front();
    group.waiters.pop_front();
    // A new leader had another entry at this place.
    const bool lost = options_.refusals && chance_.one_in(4);
    raft::Entry& entry = group.log[group.outcomes.size()];
    if (lost) entry = {Term{1}, entry.index, raft::EntryType::kNoOp, nullptr};
    const Outcome outcome = group.apply(1);
    lost ? waiter.failed(Refusal::kUnknown) : waiter.done(outcome);
    return true;
  }
  bool read_next() {
    const auto may_look = [this](const Read& read) { return applied(read.group) >= read.after; };
    const auto found = std::find_if(reads_.begin(), reads_.end(), may_look);
    if (found == reads_.end()) return false;
    Waiter& waiter = *found->waiter;
    reads_.erase(found);
    waiter.readable();
    return true;
  }
  bool finish_disk_read() {
    if (disk_reads_.empty()) return false;
    const auto [id, work] = std::move(disk_reads_.front());
    disk_reads_.pop_front();
    work(SlowMap(groups_[id].map, Lookup::kFailed, 8, chance_));
    return true;
  }
  bool run_posted() {
    if (posted_.empty()) return false;
    const auto work = std::move(posted_.front());
    posted_.pop_front();
    work();
    return true;
  }

  Options options_;
  Chance& chance_;
  std::uint64_t time_ms_ = 1'000;
  mutable std::map<GroupId, Group> groups_;  // made when first asked for
  mutable std::optional<SlowMap> cold_;
  std::vector<Read> reads_;
  std::deque<std::pair<GroupId, std::function<void(const OrderedMap&)>>> disk_reads_;
  std::deque<std::function<void()>> posted_;
};

// Where every pause is over at once, and nobody is killed.
class Site final : public tests::FixedSite {
 public:
  std::size_t kill_sessions(const std::function<bool(const Session&)>&, Session&) override {
    return 0;
  }
  void pause_changed() override { the_door.unpause(); }
};

class Host final : public ConnectionHost {
 public:
  Host(Options options, Chance& chance) : node(options, chance) {
    if (options.tight) limits_ = {.max_key_size_bytes = 4, .max_value_size_bytes = 8};
  }
  [[nodiscard]] Database& database() override { return node; }
  [[nodiscard]] seshat::Site& site() override { return fixed_site; }
  [[nodiscard]] const kv::Limits& limits() const override { return limits_; }
  void wants_attention(std::uint64_t) override {}
  void count_command() override {}

  Node node;
  Site fixed_site;

 private:
  kv::Limits limits_;
};

// ---- The server ---------------------------------------------------------------------------------

class Server {
 public:
  Server(Options options, Chance& chance)
      : chance_(chance), host_(options, chance), connection_(host_, resp::Limits{}, session()) {
    host_.fixed_site.sessions.push_back(&connection_.session());
  }
  // All replies to what the client sent.
  [[nodiscard]] std::string serve(const std::vector<std::string_view>& pieces) {
    for (const std::string_view piece : pieces) {
      input_ += piece;
      turn();
      for (std::size_t i = chance_.below(4); i > 0; --i) host_.node.step();
      if (chance_.one_in(2)) send();
    }
    bool moved = true;
    while (moved) {
      const std::size_t before = input_.size();
      turn();
      moved = host_.node.step() || input_.size() != before || !connection_.output().empty();
      send();
    }
    check(connection_.idle(), "a request waits for ever");
    check(connection_.closing() || connection_.needs_input(), "bytes wait for ever");
    return sent_;
  }
  [[nodiscard]] const Host& host() const { return host_; }

 private:
  // It may administer, too.
  [[nodiscard]] static Session session() {
    Session session;
    session.address = "127.0.0.1:50000";
    session.local_address = "127.0.0.1:6379";
    return session;
  }
  // The read buffer is another one each time: nothing may be kept that looks into it.
  void turn() {
    const Exact buffer(input_);
    const std::size_t used = connection_.consume(buffer.view());
    check(used <= input_.size(), "more was consumed than there is");
    input_.erase(0, used);
    constexpr std::size_t kLongestReply = 1 << 18;
    check(connection_.output().size() < Connection::kMaxOutputSizeBytes + kLongestReply,
          "the output outgrew its bound");
  }
  void send() {
    connection_.take_output(taken_);
    sent_ += taken_;
  }

  Chance& chance_;
  Host host_;
  Connection connection_;
  std::string input_;
  std::string taken_;
  std::string sent_;
};

// ---- What should have been answered -------------------------------------------------------------

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) c = to_lower(c);
  return out;
}

// What the bytes ask for, up to the one that ends the connection.
struct Asked {
  explicit Asked(std::string_view bytes) {
    resp::RequestParser parser;
    resp::Status status = resp::Status::kComplete;
    while (status == resp::Status::kComplete) {
      status = parser.parse(bytes);
      bytes.remove_prefix(parser.consumed());
      if (status != resp::Status::kComplete) break;
      Request request(parser.args().begin(), parser.args().end());
      request[0] = lower(request[0]);
      if (request[0] == "post" || request[0] == "host:") return;  // hung up, without a word
      requests.push_back(request);
      if (request[0] == "quit") return;
      const bool is_reply = request.size() > 1 && lower(request[1]) == "reply";
      may_be_silent =
          may_be_silent || request[0] == "shutdown" || (request[0] == "client" && is_reply);
    }
    broke_protocol = status == resp::Status::kError;
  }
  [[nodiscard]] std::size_t replies() const { return requests.size() + (broke_protocol ? 1 : 0); }

  std::vector<Request> requests;
  bool broke_protocol = false;
  bool may_be_silent = false;
};

std::vector<resp::Value> parsed_replies(std::string_view bytes) {
  std::vector<resp::Value> values;
  resp::ReplyParser parser;
  resp::Status status = resp::Status::kComplete;
  while (status == resp::Status::kComplete) {
    status = parser.parse(bytes);
    check(status != resp::Status::kError, "a reply that is none");
    bytes.remove_prefix(parser.consumed());
    if (status == resp::Status::kComplete) values.push_back(parser.take());
  }
  check(bytes.empty(), "half a reply");
  return values;
}

bool is_of_resp2(const resp::Value& value) {
  constexpr std::array kOfResp2 = {
      resp::Kind::kSimpleString, resp::Kind::kError, resp::Kind::kInteger,  resp::Kind::kBulkString,
      resp::Kind::kArray,        resp::Kind::kNull,  resp::Kind::kNullArray};
  return std::find(kOfResp2.begin(), kOfResp2.end(), value.kind) != kOfResp2.end() &&
         std::all_of(value.elements.begin(), value.elements.end(), is_of_resp2);
}

// A map that does what the requests say, one after the other.
class Model {
 public:
  explicit Model(Options options) : options_(options) {}

  void step(const Request& request, const resp::Value& reply) {
    const std::string& name = request[0];
    if (name == "hello") may_be_resp3_ = true;
    check(may_be_resp3_ || is_of_resp2(reply), "a type of RESP3 for a RESP2 client");
    if (reply.kind == resp::Kind::kError) {
      check(!must_succeed(request), "a plain request was refused");
      if (name == "exec") queued_.reset();
      return;
    }
    if (name == "exec" && queued_) {
      const std::vector<Request> queued = *std::exchange(queued_, std::nullopt);
      if (reply.kind != resp::Kind::kArray) return;  // a watched key has changed
      check(reply.elements.size() == queued.size(), "not one reply a queued command");
      for (std::size_t i = 0; i < queued.size(); ++i) answer(queued[i], reply.elements[i]);
    } else if (queued_ && !runs_at_once(name)) {
      check(reply.text == "QUEUED", "a command ran before its EXEC");
      queued_->push_back(request);
    } else {
      answer(request, reply);
      if (name == "multi") queued_.emplace();
      if (name == "discard" || name == "reset") queued_.reset();
    }
  }
  // Only known while nothing was done that the model does not know.
  [[nodiscard]] std::optional<std::size_t> size() const {
    return knows_all_ ? std::optional(values_.size()) : std::nullopt;
  }

 private:
  static bool runs_at_once(const std::string& name) {
    return name == "quit" || name == "multi" || name == "exec" || name == "discard" ||
           name == "reset" || name == "watch";
  }
  [[nodiscard]] bool must_succeed(const Request& request) const {
    if (!options_.harmless() || queued_) return false;
    const kv::Limits limits;
    const auto fits = [&](const std::string& key) {
      return key.size() <= limits.max_key_size_bytes;
    };
    const std::string& name = request[0];
    const auto are_keys = [&] { return std::all_of(request.begin() + 1, request.end(), fits); };
    const bool reads = !options_.cold_memory;  // and so no disk, which may fail
    if (name == "set") {
      return request.size() == 3 && fits(request[1]) &&
             request[2].size() <= limits.max_value_size_bytes;
    }
    if (name == "get") return reads && request.size() == 2 && are_keys();
    if (name == "exists") return reads && request.size() > 1 && are_keys();
    if (name == "del") return request.size() > 1 && are_keys();
    if (name == "ping") return request.size() <= 2;
    return name == "echo" && request.size() == 2;
  }
  void answer(const Request& request, const resp::Value& reply) {
    const std::string& name = request[0];
    const std::vector<std::string_view> args(request.begin(), request.end());
    const Command* command = kv::find(args);
    const bool is_plain = name == "del" || (name == "set" && request.size() == 3);
    if (command != nullptr && command->is_write() && !is_plain) knows_all_ = false;
    if (!knows_all_) return;
    if (name == "set") {
      check(reply.kind == resp::Kind::kSimpleString && reply.text == "OK", "SET without OK");
      values_[request.at(1)] = request.at(2);
    } else if (name == "get") {
      const auto found = values_.find(request.at(1));
      const bool right = found == values_.end()
                             ? reply.kind == resp::Kind::kNull
                             : reply.kind == resp::Kind::kBulkString && reply.text == found->second;
      check(right, "GET answers what was not SET");
    } else if (name == "del" || name == "exists") {
      std::int64_t count = 0;
      for (std::size_t i = 1; i < request.size(); ++i) {
        count += static_cast<std::int64_t>(values_.count(request[i]));
        if (name == "del") values_.erase(request[i]);
      }
      check(reply.kind == resp::Kind::kInteger && reply.integer == count, "a count is wrong");
    } else if (name == "ping" || name == "echo") {
      check(reply.text == (request.size() > 1 ? request[1] : "PONG"), "no echo");
    }
  }

  Options options_;
  std::map<std::string, std::string> values_;
  std::optional<std::vector<Request>> queued_;
  bool knows_all_ = true;
  bool may_be_resp3_ = false;
};

// ---- What must hold of the log ------------------------------------------------------------------

void check_limits(const raft::Entry& entry, const kv::Limits& limits) {
  if (entry.type != raft::EntryType::kNormal) return;
  const Result<Operation> operation = codec::decode_operation(*entry.data);
  check(static_cast<bool>(operation), "the log holds what can't be read");
  const bool is_set = operation->type == OperationType::kSet;
  if (!is_set && operation->type != OperationType::kDelete) return;
  for (std::size_t i = 0; i < operation->arguments.size(); ++i) {
    const bool is_value = is_set && i == 1;
    check(operation->arguments[i].size() <=
              (is_value ? limits.max_value_size_bytes : limits.max_key_size_bytes),
          "beyond the limits, and in the log");
  }
}

// Another replica gets the same log, all at once. How many keys there are.
std::size_t check_group(const Group& group, const kv::Limits& limits) {
  for (const raft::Entry& entry : group.log) check_limits(entry, limits);
  Group other;
  other.log = group.log;
  if (!other.log.empty()) (void)other.apply(other.log.size());
  check(other.map.bytes == group.map.bytes && other.outcomes == group.outcomes,
        "two replicas differ");
  const auto rows = [&](char prefix) {
    return static_cast<std::size_t>(
        std::count_if(group.map.bytes.begin(), group.map.bytes.end(),
                      [&](const auto& row) { return row.first[0] == prefix; }));
  };
  KeyValueMachine fresh;
  const Result<MachineState> state = fresh.restore(group.map);
  check(state && state->key_count == rows(kValuePrefix), "the count of keys is wrong");
  check(state->expiring_count == rows(kExpiryPrefix), "the index of what expires is wrong");
  return rows(kValuePrefix);
}

}  // namespace

void commands(std::string_view input) {
  if (input.empty()) return;
  const Options options(input[0]);
  const std::string_view bytes = input.substr(1);
  Chance chance(input);
  Server server(options, chance);
  const std::size_t longest = chance.one_in(2) ? 64 : bytes.size() + 1;
  const std::vector<resp::Value> replies =
      parsed_replies(server.serve(cut(bytes, longest, chance)));
  const Asked asked(bytes);
  if (asked.may_be_silent) {
    check(replies.size() <= asked.replies(), "more replies than requests");
    return;
  }
  check(replies.size() == asked.replies(), "not one reply a request");
  Model model(options);
  for (std::size_t i = 0; i < asked.requests.size(); ++i) model.step(asked.requests[i], replies[i]);
  std::size_t keys = 0;
  for (const auto& [id, group] : server.host().node.groups()) {
    keys += check_group(group, server.host().limits());
  }
  check(!model.size() || keys == *model.size(), "there are other keys than were SET");
}

}  // namespace seshat::fuzz
