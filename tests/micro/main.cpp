// The parts of Seshat, each measured for itself: `make micro`. Catch2 says what a call of each takes, with
// the range in which its mean lies; --benchmark-samples and the like are its options.
#define CATCH_CONFIG_RUNNER
#include "micro/benchmark.hpp"

int main(int argc, char* argv[]) {
  Catch::Session session;
  session.configData().benchmarkResamples =
      5'000;  // by default 100,000: for two digits that is enough
  return session.run(argc, argv);
}
