// Whether a thread waits for a core, by what the kernel counts.
#include "seshat/cpu_shortage.hpp"

#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include "catch.hpp"

using seshat::CpuShortage;

namespace {

using namespace std::chrono_literals;

// What the kernel would say, in milliseconds.
class Counts {
 public:
  Counts() {
    std::string name = (std::filesystem::temp_directory_path() / "seshat-test-XXXXXX").string();
    const int file = mkstemp(name.data());
    REQUIRE(file >= 0);
    close(file);
    path_ = name;
    write();
  }
  ~Counts() { std::filesystem::remove(path_); }
  Counts(const Counts&) = delete;
  Counts& operator=(const Counts&) = delete;

  void ran(int ms) { ran_ms_ += ms, write(); }
  void waited(int ms) { waited_ms_ += ms, write(); }
  [[nodiscard]] const char* path() const { return path_.c_str(); }

 private:
  void write() { std::ofstream(path_) << ran_ms_ << "000000 " << waited_ms_ << "000000 7\n"; }

  std::string path_;
  int ran_ms_ = 1000;
  int waited_ms_ = 1000;
};

}  // namespace

TEST_CASE("cores are short where a thread waits a third of the time in which it could run",
          "[cpu-shortage]") {
  Counts counts;
  CpuShortage shortage(counts.path());
  CpuShortage::Clock::time_point now{};
  CHECK_FALSE(shortage.is_short(now));  // what was before does not count
  const auto after = [&](int ran_ms, int waited_ms) {
    counts.ran(ran_ms);
    counts.waited(waited_ms);
    now += 100ms;
    return shortage.is_short(now);
  };
  CHECK_FALSE(after(30, 14));
  CHECK(after(30, 16));
  CHECK(after(30, 11));  // from then on until it is a quarter
  CHECK_FALSE(after(30, 9));
  CHECK_FALSE(after(30, 11));
  CHECK(after(30, 70));
  CHECK_FALSE(after(0, 0));
}

TEST_CASE("a thread that hardly wants to run says nothing of the machine", "[cpu-shortage]") {
  Counts counts;
  CpuShortage shortage(counts.path());
  CpuShortage::Clock::time_point now{};
  CHECK_FALSE(shortage.is_short(now));
  counts.waited(1);
  CHECK_FALSE(shortage.is_short(now += 100ms));
  counts.waited(2);
  CHECK(shortage.is_short(now += 100ms));
}

TEST_CASE("it looks ten times a second at most", "[cpu-shortage]") {
  Counts counts;
  CpuShortage shortage(counts.path());
  CpuShortage::Clock::time_point now{};
  CHECK_FALSE(shortage.is_short(now));
  counts.waited(50);
  CHECK_FALSE(shortage.is_short(now += 99ms));
  CHECK(shortage.is_short(now += 1ms));
}

TEST_CASE("where the kernel does not count, nothing is short", "[cpu-shortage]") {
  CpuShortage::Clock::time_point now{};
  CpuShortage none("/no/such/file");
  CHECK_FALSE(none.is_short(now));
  CHECK_FALSE(none.is_short(now += 1s));
  CpuShortage empty("/dev/null");
  CHECK_FALSE(empty.is_short(now += 1s));
}
