// SESHAT.MEMBERS and SESHAT.STATUS: what programs read, in both protocols. The commands that change
// something are in connection_test.cpp.
#include "seshat/admin_commands.hpp"

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "catch.hpp"
#include "memory_database.hpp"
#include "seshat/kv.hpp"
#include "seshat/resp.hpp"

namespace {

using namespace seshat;
using seshat::tests::FixedSite;

MemberStatus member(std::uint64_t id, bool connected, MemberState state = MemberState::kActive) {
  MemberStatus status;
  status.info.id = NodeId{id};
  status.info.incarnation = 0xab00 + id;
  status.info.addr = "10.0.0." + std::to_string(id) + ":7379";
  status.info.client_addr = "10.0.0." + std::to_string(id) + ":6379";
  status.info.state = state;
  status.info.joined_at_ms = 1000 * id;
  status.info.max_record_version = 2;
  status.info.max_operation_version = 1;
  status.connected = connected;
  return status;
}

GroupStatus group(std::uint64_t id, raft::Role role, std::uint64_t term, std::uint64_t commit,
                  std::uint64_t applied) {
  GroupStatus status;
  status.group = GroupId{id};
  status.role = role;
  status.term = Term{term};
  status.leader = NodeId{2};
  status.commit_index = Index{commit};
  status.applied_index = Index{applied};
  status.first_index = Index{11};
  status.last_index = Index{commit};
  status.log_size_bytes = 4096;
  return status;
}

// Nodes 1 (asked), 2 (leads group 1), 3 (down), 4 (learns), 5 (never heard of).
ClusterStatus five_nodes() {
  using raft::Role;
  ClusterStatus cluster;
  cluster.members = {member(1, true), member(2, true), member(3, false),
                     member(4, true, MemberState::kJoining), member(5, false)};
  cluster.members[0].is_self = true;
  cluster.members[0].status = NodeStatus{false, "0.2.0", {group(1, Role::kFollower, 3, 99, 98)}};
  cluster.members[1].status = NodeStatus{false, "0.2.0", {group(1, Role::kLeader, 3, 100, 100)}};
  cluster.members[1].heard_ms_ago = 40;
  cluster.members[2].status = NodeStatus{false, "0.1.0", {group(1, Role::kLeader, 2, 140, 60)}};
  cluster.members[3].status = NodeStatus{false, "0.2.0", {group(1, Role::kFollower, 3, 20, 20)}};
  return cluster;
}

resp::Value ask(const ClusterStatus& cluster, std::string_view name, resp::Protocol protocol) {
  FixedSite site;
  site.status = cluster;
  Session session;
  session.protocol = protocol;
  std::string out;
  const std::vector<std::string_view> args = {name};
  const Command* command = find_command(kv::commands(), name);
  REQUIRE(command != nullptr);
  command->local(Call{*command, args, session, site, out});
  resp::ReplyParser parser;
  REQUIRE(parser.parse(out) == resp::Status::kComplete);
  REQUIRE(parser.consumed() == out.size());
  return parser.take();
}

const resp::Value& at(const resp::Value& map, std::string_view key) {
  for (std::size_t i = 0; i + 1 < map.elements.size(); i += 2) {
    if (map.elements[i].text == key) return map.elements[i + 1];
  }
  FAIL("no " << key);
  return map;
}

const resp::Value& row_of(const resp::Value& rows, std::int64_t node) {
  for (const resp::Value& row : rows.elements) {
    if (at(row, "node").integer == node) return row;
  }
  FAIL("no row of node " << node);
  return rows;
}

resp::Value status_of(std::int64_t node, const ClusterStatus& cluster = five_nodes()) {
  return row_of(ask(cluster, "SESHAT.STATUS", resp::Protocol::kResp3), node);
}

}  // namespace

TEST_CASE("SESHAT.MEMBERS gives a map for each member", "[admin]") {
  const auto members = ask(five_nodes(), "SESHAT.MEMBERS", resp::Protocol::kResp3);
  REQUIRE(members.elements.size() == 5);
  const resp::Value& fourth = members.elements[3];
  CHECK(fourth.kind == resp::Kind::kMap);
  CHECK(at(fourth, "id").integer == 4);
  CHECK(at(fourth, "addr").text == "10.0.0.4:7379");
  CHECK(at(fourth, "client-addr").text == "10.0.0.4:6379");
  CHECK(at(fourth, "state").text == "joining");
  CHECK(at(fourth, "incarnation").text == "000000000000ab04");
  CHECK(at(fourth, "joined-at-ms").integer == 4000);
  CHECK(at(fourth, "max-record-version").integer == 2);
  CHECK(at(fourth, "max-operation-version").integer == 1);
  CHECK(at(fourth, "connected").integer == 1);
  CHECK(at(fourth, "self").integer == 0);
  CHECK(at(members.elements[2], "connected").integer == 0);
}

TEST_CASE("to a RESP2 client maps are flat and truth is a number", "[admin]") {
  const auto members = ask(five_nodes(), "SESHAT.MEMBERS", resp::Protocol::kResp2);
  CHECK(members.elements[0].kind == resp::Kind::kArray);
  CHECK(members.elements[0].elements.size() == 20);
  CHECK(at(members.elements[0], "self").kind == resp::Kind::kInteger);
  const auto rows = ask(five_nodes(), "SESHAT.STATUS", resp::Protocol::kResp2);
  CHECK(rows.elements[0].kind == resp::Kind::kArray);
  CHECK(rows.elements[0].elements.size() == 30);
}

TEST_CASE("SESHAT.STATUS tells how a group does on a node", "[admin]") {
  const resp::Value row = status_of(2);
  CHECK(at(row, "address").text == "10.0.0.2:6379");
  CHECK(at(row, "group").integer == 1);
  CHECK(at(row, "role").text == "leader");
  CHECK(at(row, "term").integer == 3);
  CHECK(at(row, "leader").integer == 2);
  CHECK(at(row, "commit").integer == 100);
  CHECK(at(row, "applied").integer == 100);
  CHECK(at(row, "lag").integer == 0);
  CHECK(at(row, "log-entries").integer == 90);
  CHECK(at(row, "log-bytes").integer == 4096);
  CHECK(at(row, "snapshot").integer == 0);
  CHECK(at(row, "state").text == "active");
  CHECK(at(row, "version").text == "0.2.0");
  CHECK(at(row, "heard-ms-ago").integer == 40);
}

TEST_CASE("lag is behind the commit of the present leader, not of one that is gone", "[admin]") {
  CHECK(at(status_of(1), "lag").integer == 2);
  CHECK(at(status_of(4), "lag").integer == 80);
  ClusterStatus cluster = five_nodes();
  cluster.members[1].connected = false;  // no leader is heard: the highest commit that was
  CHECK(at(status_of(1, cluster), "lag").integer == 42);
}

TEST_CASE("the role of a node that is gone is unknown, how far it was stays", "[admin]") {
  const resp::Value row = status_of(3);
  CHECK(at(row, "role").text == "unknown");
  CHECK(at(row, "state").text == "down");
  CHECK(at(row, "applied").integer == 60);
  CHECK(at(row, "lag").integer == 40);
}

TEST_CASE("a learner is told from a follower, and who restores says so", "[admin]") {
  CHECK(at(status_of(4), "role").text == "learner");
  CHECK(at(status_of(4), "state").text == "joining");
  ClusterStatus cluster = five_nodes();
  cluster.members[3].status->groups[0].restoring = true;
  CHECK(at(status_of(4, cluster), "state").text == "restoring");
}

TEST_CASE("of a node that was never heard of there are nulls", "[admin]") {
  const resp::Value row = status_of(5);
  CHECK(at(row, "role").text == "unknown");
  CHECK(at(row, "state").text == "down");
  for (const std::string_view name : {"term", "leader", "commit", "applied", "lag", "log-entries",
                                      "log-bytes", "snapshot", "heard-ms-ago"}) {
    CHECK(at(row, name).kind == resp::Kind::kNull);
  }
}

TEST_CASE("an empty log has no entries, and every member has a row for every group", "[admin]") {
  ClusterStatus cluster = five_nodes();
  GroupStatus& empty = cluster.members[0].status->groups[0];
  empty.first_index = Index{101};
  empty.last_index = Index{100};
  cluster.members[0].status->groups.push_back(group(0, raft::Role::kLeader, 3, 12, 12));
  const auto rows = ask(cluster, "SESHAT.STATUS", resp::Protocol::kResp3);
  REQUIRE(rows.elements.size() == 10);
  CHECK(at(rows.elements[0], "group").integer == 0);
  CHECK(at(rows.elements[1], "log-entries").integer == 0);
}
