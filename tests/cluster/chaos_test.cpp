#include "chaos.hpp"
namespace seshat::tests {
namespace {
TEST_CASE("chaos 1, leader failure: a new leader within 2 s", "[chaos]") {
  Chaos chaos;
  const int leader = chaos.cluster.leader();
  chaos.fault("the leader is killed");
  const auto killed = SteadyClock::now();
  chaos.cluster.kill(leader);
  CHECK(chaos.writes_resume_by(killed, 2s));
  CHECK(chaos.cluster.leader() != leader);
  chaos.cluster.start(leader);
  chaos.finish();
}
}  // namespace
}  // namespace seshat::tests
