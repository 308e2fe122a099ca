// What is printed around each end-to-end test: its name and time, and the logs of its nodes if it
// failed.
#define CATCH_CONFIG_EXTERNAL_INTERFACES
#include "harness.hpp"

namespace {

bool test_is_skipped = false;

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
    test_is_skipped = false;
    started_ = SteadyClock::now();
  }
  void testCaseEnded(const Catch::TestCaseStats& stats) override {
    const bool failed = stats.totals.assertions.failed > 0;
    if (failed) {
      for (const Cluster* cluster : log_keeper().live) std::cout << cluster->all_logs();
      std::cout << log_keeper().kept;
    }
    const bool skipped = !failed && test_is_skipped;
    skipped_count_ += skipped ? 1 : 0;
    std::cout << "    "
              << (failed    ? "FAILED"
                  : skipped ? "SKIPPED"
                            : "ok")
              << " after " << since(started_).count() << " ms" << std::endl;
  }
  // Catch2 v2 knows no skipped tests, and counts them as passed. `make check` adds up such lines.
  void testRunEnded(const Catch::TestRunStats&) override {
    if (skipped_count_ == 0) return;
    std::cout << "test cases: " << skipped_count_ << " | " << skipped_count_ << " skipped | -"
              << skipped_count_ << " passed, for they are counted as such below" << std::endl;
  }

 private:
  SteadyClock::time_point started_;
  int skipped_count_ = 0;
};

}  // namespace

bool seshat::tests::skips(const std::optional<std::string>& why) {
  if (!why) return false;
  report("skipped: ", *why);
  test_is_skipped = true;
  return true;
}

CATCH_REGISTER_LISTENER(Narrator)
