// The load generator of `make bench`: loads one server, and prints what was measured as JSON.
//
// scripts/bench starts the servers and calls this once for each measurement.
#include <exception>
#include <iostream>
#include <stdexcept>
#include <string>
#include <vector>

#include "etcd_load.hpp"
#include "measure.hpp"
#include "options.hpp"
#include "resp_load.hpp"

namespace seshat::bench {
namespace {

template <class Load>
void measure(const Options& options) {
  Load load(options);
  Recorder recorder(options);
  load.run(recorder);
  std::cout << recorder.json() << std::endl;
}

int run(const std::vector<std::string>& words) {
  if (!words.empty() && (words[0] == "--help" || words[0] == "-h")) {
    std::cout << kUsage;
    return 0;
  }
  try {
    const Options options = parse_options(words);
    options.peer == Peer::kEtcd ? measure<EtcdLoad>(options) : measure<RespLoad>(options);
    return 0;
  } catch (const std::invalid_argument& error) {
    std::cerr << "bench_load: " << error.what() << "\n" << kUsage;
    return 2;
  } catch (const std::exception& error) {
    std::cerr << "bench_load: " << error.what() << "\n";
    return 1;
  }
}

}  // namespace
}  // namespace seshat::bench

int main(int argc, char** argv) {
  return seshat::bench::run(std::vector<std::string>(argv + 1, argv + argc));
}
