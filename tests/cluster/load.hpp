// tests/cluster/load.hpp - clients that write while things break, and what was promised to them.
#ifndef SESHAT_TESTS_CLUSTER_LOAD_HPP
#define SESHAT_TESTS_CLUSTER_LOAD_HPP

#include <atomic>
#include <cstddef>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "client.hpp"
#include "cluster.hpp"

namespace seshat::tests {

// Connections that write keys of their own, one request at a time each, wherever the leader is.
class Writers {
 public:
  explicit Writers(const Cluster& cluster, int count = 8);
  Writers(const Writers&) = delete;
  Writers& operator=(const Writers&) = delete;
  ~Writers() { stop(); }

  // Ends the load; after it, the results below are final.
  void stop();

  [[nodiscard]] std::size_t acknowledged_count() const { return acknowledged_count_; }
  // Until so many more writes are acknowledged than now.
  [[nodiscard]] bool await_more(std::size_t more, Milliseconds bound = 10s) const;

  // Keys of acknowledged writes; the value of a key is value_of(key).
  [[nodiscard]] std::vector<std::string> acknowledged() const;
  // Writes of which nobody can say what became of them.
  [[nodiscard]] std::size_t unknown_count() const;
  // Replies that no healthy node should give.
  [[nodiscard]] std::vector<std::string> surprises() const;
  [[nodiscard]] static std::string value_of(const std::string& key) { return "value of " + key; }

 private:
  struct Writer {
    explicit Writer(std::vector<Port> ports) : client(std::move(ports)) {}
    ClusterClient client;
    std::vector<std::string> acknowledged;
    std::vector<std::string> surprises;
    std::size_t unknown_count = 0;
    std::thread thread;
  };
  void write(Writer& writer, int number);

  std::vector<std::unique_ptr<Writer>> writers_;
  std::atomic<std::size_t> acknowledged_count_{0};
  std::atomic<bool> stopping_{false};
};

// Those of `keys` that do not have the value that was acknowledged.
[[nodiscard]] std::vector<std::string> lost(Cluster& cluster, const std::vector<std::string>& keys);

// =================================================================================================
// Bodies
// =================================================================================================

inline Writers::Writers(const Cluster& cluster, int count) {
  for (int i = 0; i < count; ++i) writers_.push_back(std::make_unique<Writer>(cluster.ports()));
  for (int i = 0; i < count; ++i) {
    Writer& writer = *writers_[static_cast<std::size_t>(i)];
    writer.thread = std::thread([this, &writer, i] { write(writer, i); });
  }
}

inline void Writers::stop() {
  stopping_ = true;
  for (const auto& writer : writers_) writer->client.cancel();
  for (const auto& writer : writers_) {
    if (writer->thread.joinable()) writer->thread.join();
  }
}

inline void Writers::write(Writer& writer, int number) {
  const std::string prefix = "w" + std::to_string(number) + "-";
  try {
    for (int i = 0; !stopping_; ++i) {
      const std::string key = prefix + std::to_string(i);
      const auto reply = writer.client.try_once({"SET", key, value_of(key)});
      if (!reply) {
        ++writer.unknown_count;
      } else if (*reply == "+OK") {
        writer.acknowledged.push_back(key);
        ++acknowledged_count_;
      } else {
        writer.surprises.push_back(*reply);
      }
    }
  } catch (const std::exception& error) {
    if (!stopping_) writer.surprises.emplace_back(error.what());
  }
}

inline bool Writers::await_more(std::size_t more, Milliseconds bound) const {
  const std::size_t wanted = acknowledged_count_ + more;
  return eventually(bound, [&] { return acknowledged_count_ >= wanted; });
}

inline std::vector<std::string> Writers::acknowledged() const {
  std::vector<std::string> keys;
  for (const auto& writer : writers_) {
    keys.insert(keys.end(), writer->acknowledged.begin(), writer->acknowledged.end());
  }
  return keys;
}

inline std::size_t Writers::unknown_count() const {
  std::size_t count = 0;
  for (const auto& writer : writers_) count += writer->unknown_count;
  return count;
}

inline std::vector<std::string> Writers::surprises() const {
  std::vector<std::string> texts;
  for (const auto& writer : writers_) {
    texts.insert(texts.end(), writer->surprises.begin(), writer->surprises.end());
  }
  return texts;
}

inline std::vector<std::string> lost(Cluster& cluster, const std::vector<std::string>& keys) {
  std::vector<Arguments> requests;
  for (const std::string& key : keys) requests.push_back({"GET", key});
  ClusterClient finder = cluster.cluster_client();
  (void)finder.ask("GET", "is there a leader");
  const std::vector<std::string> replies = Client(finder.port()).pipeline(requests);
  std::vector<std::string> lost;
  for (std::size_t i = 0; i < keys.size(); ++i) {
    // An error is no loss: leadership may have moved meanwhile.
    const std::string value = is_error(replies[i]) ? finder.ask(requests[i]) : replies[i];
    if (value != Writers::value_of(keys[i])) lost.push_back(keys[i] + " is " + value);
  }
  return lost;
}

}  // namespace seshat::tests

#endif  // SESHAT_TESTS_CLUSTER_LOAD_HPP
