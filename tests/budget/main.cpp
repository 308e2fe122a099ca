// What requests cost in the heart, without disk, network and clock; scripts/budget runs it under
// callgrind, which counts instructions inside seshat_budget_measured(); allocations are counted here.
//
//   budget --load set --batch 1 --count 1000 --member leader     prints one object of JSON
#include <pb.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <iostream>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "budget/allocations.hpp"
#include "budget/heart.hpp"
#include "seshat/resp.hpp"

// Callgrind collects between the entry and the end of this function, which it knows by its name.
extern "C" __attribute__((noinline)) void seshat_budget_measured(
    const std::function<void()>& work) {
  seshat::budget::allocations.counting = true;
  work();
  seshat::budget::allocations.counting = false;
}

namespace seshat::budget {
namespace {

struct Options {
  std::string load = "set";
  std::string member = "leader";
  std::size_t batch = 1;
  std::uint64_t count = 1'000;
};

constexpr std::string_view kUsage =
    "usage: budget [--load set|get] [--batch 1] [--count 1000] [--member leader|follower]\n";

[[noreturn]] void bad_usage() {
  std::cerr << kUsage;
  std::exit(2);
}

Options parse_options(const std::vector<std::string>& words) {
  Options options;
  if (words.size() % 2 != 0) bad_usage();
  for (std::size_t i = 0; i < words.size(); i += 2) {
    const std::string& name = words[i];
    const std::string& value = words[i + 1];
    const std::uint64_t number = std::strtoull(value.c_str(), nullptr, 10);
    if (name == "--load" && (value == "set" || value == "get")) {
      options.load = value;
    } else if (name == "--member" && (value == "leader" || value == "follower")) {
      options.member = value;
    } else if (name == "--batch" && number > 0) {
      options.batch = number;
    } else if (name == "--count" && number > 0) {
      options.count = number;
    } else {
      bad_usage();
    }
  }
  return options;
}

// Keys of 32 bytes and values of 256, as `make bench` has them; each key has one value for ever.
class Workload {
 public:
  static constexpr std::size_t kKeys = 1'000;  // a multiple of 50

  Workload() {
    for (char& byte : text_) byte = static_cast<char>('0' + random_() % 64);
  }
  [[nodiscard]] std::size_t next() { return random_() % kKeys; }
  [[nodiscard]] static std::string key(std::size_t number) {
    const std::string digits = std::to_string(number);
    return "key:" + std::string(28 - digits.size(), '0') + digits;
  }
  [[nodiscard]] std::string_view value(std::size_t number) const {
    return std::string_view(text_).substr(number * 7, 256);
  }

 private:
  std::mt19937_64 random_{1};
  std::string text_ = std::string(kKeys * 7 + 256, ' ');
};

// Some requests that a client sends at once, and what it must hear.
struct Exchange {
  std::string requests;
  std::string replies;

  void add_set(const Workload& workload, std::size_t number) {
    resp::append_command(requests, {"SET", Workload::key(number), workload.value(number)});
    replies += "+OK\r\n";
  }
  void add_get(const Workload& workload, std::size_t number) {
    resp::append_command(requests, {"GET", Workload::key(number)});
    resp::Writer(replies, resp::Protocol::kResp2).bulk(workload.value(number));
  }
};

// Runs batches; time passes in between, and is not counted.
class Driver {
 public:
  // Sets every key once, in pipelines, for that is quick.
  explicit Driver(const Options& options) : options_(options), heart_(runner()) {
    for (std::size_t number = 0; number < Workload::kKeys;) {
      Exchange exchange;
      for (int i = 0; i < 50; ++i) exchange.add_set(workload_, number++);
      serve(exchange);
    }
  }

  void run(std::uint64_t requests) {
    for (std::uint64_t done = 0; done < requests; done += options_.batch) {
      Exchange exchange;
      for (std::size_t i = 0; i < options_.batch; ++i) {
        const std::size_t number = workload_.next();
        options_.load == "set" ? exchange.add_set(workload_, number)
                               : exchange.add_get(workload_, number);
      }
      serve(exchange);
    }
  }
  void begin_to_count() { begun_ = true; }

 private:
  static constexpr std::uint64_t kServedInATick = 50;

  [[nodiscard]] Heart::Run runner() {
    const NodeId counted = options_.member == "leader" ? kLeader : kFollower;
    return [this, counted](NodeId member, const std::function<void()>& work) {
      const bool is_counted = begun_ && !between_ && member == counted;
      is_counted ? seshat_budget_measured(work) : work();
    };
  }

  void serve(const Exchange& exchange) {
    if (heart_.serve(exchange.requests) != exchange.replies) {
      std::cerr << "budget: a wrong reply\n";
      std::exit(1);
    }
    if (++served_ % kServedInATick != 0) return;
    between_ = true;
    heart_.pass_time();
    between_ = false;
  }

  Options options_;
  bool begun_ = false;
  bool between_ = false;  // batches
  std::uint64_t served_ = 0;
  Workload workload_;
  Heart heart_;
};

// Figures of one compiler say nothing of another's.
std::string compiler() {
#if defined(__clang__)
  return "clang++ " + std::to_string(__clang_major__);
#else
  return "g++ " + std::to_string(__GNUC__);
#endif
}

std::string machine() {
#if defined(__x86_64__)
  return "x86_64";
#elif defined(__aarch64__)
  return "aarch64";
#else
  return "another machine";
#endif
}

std::string standard_library() {
#if defined(_GLIBCXX_RELEASE)
  return "libstdc++ " + std::to_string(_GLIBCXX_RELEASE);
#elif defined(_LIBCPP_VERSION)
  return "libc++ " + std::to_string(_LIBCPP_VERSION);
#else
  return "another standard library";
#endif
}

std::string c_library() {
#if defined(__GLIBC__)
  return "glibc " + std::to_string(__GLIBC__) + "." + std::to_string(__GLIBC_MINOR__);
#else
  return "another C library";
#endif
}

// Sanitizers and builds without optimisation count what nobody runs.
bool is_release() {
#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
  return false;
#endif
#endif
#if defined(__OPTIMIZE__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
  return true;
#else
  return false;
#endif
}

constexpr std::uint64_t kWarmUp = 300;  // requests: what grows has grown then

int run(const Options& options) {
  Driver driver(options);
  driver.run(kWarmUp);
  driver.begin_to_count();
  driver.run(options.count);
  const std::uint64_t requests =
      (options.count + options.batch - 1) / options.batch * options.batch;
  std::cout << "{\"requests\": " << requests << ", \"allocations\": " << allocations.count
            << ", \"compiler\": \"" << compiler() << "\", \"machine\": \"" << machine()
            << "\", \"libraries\": \"" << standard_library() << ", " << c_library() << ", "
            << NANOPB_VERSION << "\", \"release\": " << (is_release() ? "true" : "false") << "}\n";
  return 0;
}

}  // namespace
}  // namespace seshat::budget

int main(int argc, char** argv) {
  return seshat::budget::run(seshat::budget::parse_options({argv + 1, argv + argc}));
}
