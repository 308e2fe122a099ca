// What is printed around each end-to-end test: its name and time, and the logs of its nodes if it
// failed.
#define CATCH_CONFIG_EXTERNAL_INTERFACES
#include "harness.hpp"

namespace {

using seshat::tests::Cluster;
using seshat::tests::log_keeper;
using seshat::tests::Milliseconds;
using seshat::tests::since;
using seshat::tests::SteadyClock;

#if __has_include(<catch2/catch.hpp>)
using ListenerBase = Catch::TestEventListenerBase;
#else
using ListenerBase = Catch::EventListenerBase;
#endif

class Narrator final : public ListenerBase {
 public:
  using ListenerBase::ListenerBase;

  void testCaseStarting(const Catch::TestCaseInfo& test) override {
    std::cout << test.name << std::endl;
    log_keeper().kept.clear();
    started_ = SteadyClock::now();
  }
  void testCaseEnded(const Catch::TestCaseStats& stats) override {
    const bool failed = stats.totals.assertions.failed > 0;
    if (failed) {
      for (const Cluster* cluster : log_keeper().live) std::cout << cluster->all_logs();
      std::cout << log_keeper().kept;
    }
    std::cout << "    " << (failed ? "FAILED" : "ok") << " after " << since(started_).count()
              << " ms" << std::endl;
  }

 private:
  SteadyClock::time_point started_;
};

}  // namespace

CATCH_REGISTER_LISTENER(Narrator)
