// tests/bench/options.hpp - what one run of the load generator does, and the keys and values it sends.
#ifndef SESHAT_TESTS_BENCH_OPTIONS_HPP
#define SESHAT_TESTS_BENCH_OPTIONS_HPP

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <random>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace seshat::bench {

enum class Peer : std::uint8_t { kResp, kEtcd };
// kSetWait: each SET is followed by WAIT 1 0, and both replies make one operation.
enum class Operation : std::uint8_t { kSet, kGet, kSetWait };

struct Options {
  Peer peer = Peer::kResp;
  Operation operation = Operation::kSet;
  std::string host = "127.0.0.1";
  std::string port = "6379";
  std::size_t clients = 50;
  std::size_t pipeline = 1;     // requests that a client sends at once; it waits for all replies
  std::size_t connections = 8;  // etcd only: HTTP/2 connections that the clients share, at most
  std::uint64_t keys = 10'000;
  std::size_t key_size_bytes = 32;
  std::size_t value_size_bytes = 256;
  std::uint64_t warm_up_ms = 1000;
  std::uint64_t duration_ms = 5000;
  std::uint64_t count = 0;        // not 0: so many requests, keys in turn, all of them measured
  std::uint64_t seed = 1;         // of keys and values
  std::vector<std::string> pids;  // the servers' processes, whose CPU time is read
};

inline constexpr std::string_view kUsage =
    R"(usage: bench_load [--peer resp|etcd] [--op set|get|set-wait] [--addr HOST:PORT] [--pids 1,2,3]
  --clients 50 --pipeline 1      clients, and requests that each sends at once
  --connections 8                etcd: HTTP/2 connections that the clients share, at most
  --keys 10000 --key-size 32 --value-size 256 --seed 1
  --warm-up-ms 1000 --duration-ms 5000
  --count 0                      not 0: so many requests instead, each key in turn
Prints one object of JSON. Exit codes: 0 done, 1 failed, 2 bad usage.
)";

// Throws std::invalid_argument.
[[nodiscard]] Options parse_options(const std::vector<std::string>& words);

// Draws keys and values from a seed. A value is a piece of one random text, so that no server gains
// by compressing what repeats within a value.
class Workload {
 public:
  explicit Workload(const Options& options);

  // Both stay valid until the next call.
  [[nodiscard]] std::string_view next_key();
  [[nodiscard]] std::string_view next_value();
  // Requests that may still be sent; with a duration instead of a count there is no end to them.
  [[nodiscard]] bool exhausted() const { return count_ != 0 && sent_ == count_; }

 private:
  static constexpr std::size_t kDifferentValues = 1u << 16;

  std::mt19937_64 random_;
  const std::uint64_t keys_;
  const std::uint64_t count_;
  const std::size_t value_size_bytes_;
  std::uint64_t sent_ = 0;
  std::string key_;
  std::string text_;
};

// =================================================================================================
// Bodies
// =================================================================================================

namespace detail {

inline std::uint64_t number_of(const std::string& flag, const std::string& text) {
  if (text.empty() || text.size() > 18 ||
      text.find_first_not_of("0123456789") != std::string::npos) {
    throw std::invalid_argument(flag + " takes a number, not '" + text + "'");
  }
  return std::stoull(text);
}

template <class T>
T one_of(const std::string& flag, const std::string& text, const std::map<std::string, T>& all) {
  if (const auto found = all.find(text); found != all.end()) return found->second;
  throw std::invalid_argument(flag + " does not know '" + text + "'");
}

inline void set_address(Options& options, const std::string& text) {
  const std::size_t colon = text.rfind(':');
  if (colon == std::string::npos) throw std::invalid_argument("--addr takes HOST:PORT");
  options.host = text.substr(0, colon);
  options.port = text.substr(colon + 1);
}

inline std::vector<std::string> split_at_commas(const std::string& text) {
  std::vector<std::string> parts;
  std::istringstream in(text);
  for (std::string part; std::getline(in, part, ',');) parts.push_back(part);
  return parts;
}

inline void check(const Options& options) {
  if (options.clients == 0 || options.pipeline == 0 || options.connections == 0 ||
      options.keys == 0) {
    throw std::invalid_argument("--clients, --pipeline, --connections and --keys are at least 1");
  }
  if (options.key_size_bytes < 20) throw std::invalid_argument("--key-size is at least 20");
  if (options.peer == Peer::kEtcd &&
      (options.pipeline != 1 || options.operation == Operation::kSetWait)) {
    throw std::invalid_argument("etcd has neither pipelines nor WAIT: use --clients");
  }
}

}  // namespace detail

inline Options parse_options(const std::vector<std::string>& words) {
  Options options;
  const auto number = [](auto& field) {
    return [&field](const std::string& flag, const std::string& text) {
      field = detail::number_of(flag, text);
    };
  };
  const std::map<std::string, std::function<void(const std::string&, const std::string&)>> flags = {
      {"--peer",
       [&](const auto& flag, const auto& text) {
         options.peer =
             detail::one_of<Peer>(flag, text, {{"resp", Peer::kResp}, {"etcd", Peer::kEtcd}});
       }},
      {"--op",
       [&](const auto& flag, const auto& text) {
         options.operation = detail::one_of<Operation>(flag, text,
                                                       {{"set", Operation::kSet},
                                                        {"get", Operation::kGet},
                                                        {"set-wait", Operation::kSetWait}});
       }},
      {"--addr", [&](const auto&, const auto& text) { detail::set_address(options, text); }},
      {"--pids",
       [&](const auto&, const auto& text) { options.pids = detail::split_at_commas(text); }},
      {"--clients", number(options.clients)},
      {"--pipeline", number(options.pipeline)},
      {"--connections", number(options.connections)},
      {"--keys", number(options.keys)},
      {"--key-size", number(options.key_size_bytes)},
      {"--value-size", number(options.value_size_bytes)},
      {"--warm-up-ms", number(options.warm_up_ms)},
      {"--duration-ms", number(options.duration_ms)},
      {"--count", number(options.count)},
      {"--seed", number(options.seed)},
  };
  for (std::size_t i = 0; i < words.size(); i += 2) {
    const auto found = flags.find(words[i]);
    if (found == flags.end()) throw std::invalid_argument("unknown option " + words[i]);
    if (i + 1 == words.size()) throw std::invalid_argument(words[i] + " needs a value");
    found->second(words[i], words[i + 1]);
  }
  detail::check(options);
  return options;
}

inline Workload::Workload(const Options& options)
    : random_(options.seed),
      keys_(options.keys),
      count_(options.count),
      value_size_bytes_(options.value_size_bytes),
      key_(options.key_size_bytes, '0') {
  key_.replace(0, 4, "key:");
  text_.reserve(kDifferentValues + value_size_bytes_);
  while (text_.size() < kDifferentValues + value_size_bytes_) {
    text_.push_back(static_cast<char>(' ' + random_() % 95));
  }
}

inline std::string_view Workload::next_key() {
  std::uint64_t number = count_ != 0 ? sent_ % keys_ : random_() % keys_;
  ++sent_;
  for (std::size_t at = key_.size(); at > 4; --at, number /= 10) {
    key_[at - 1] = static_cast<char>('0' + number % 10);
  }
  return key_;
}

inline std::string_view Workload::next_value() {
  return std::string_view(text_).substr(random_() % kDifferentValues, value_size_bytes_);
}

}  // namespace seshat::bench

#endif  // SESHAT_TESTS_BENCH_OPTIONS_HPP
