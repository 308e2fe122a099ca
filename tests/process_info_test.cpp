// What INFO tells of the process.
#include "seshat/process_info.hpp"

#include <cstdint>
#include <string>

#include "catch.hpp"

namespace process_info = seshat::process_info;

TEST_CASE("sizes for people are those of Redis", "[info]") {
  CHECK(process_info::human_size(0) == "0B");
  CHECK(process_info::human_size(1023) == "1023B");
  CHECK(process_info::human_size(1024) == "1.00K");
  CHECK(process_info::human_size(1'543'096) == "1.47M");
  CHECK(process_info::human_size(25'276'514'304) == "23.54G");
  CHECK(process_info::human_size(std::uint64_t{3} << 50) == "3.00P");
  CHECK(process_info::human_size(std::uint64_t{1} << 63) == "8192.00P");
}

TEST_CASE("a rate is over the last second or two, and 0 before there is anything to tell",
          "[info]") {
  process_info::Rate rate;
  CHECK(rate.per_sec(5, 7) == 0);
  rate.sample(1000, 0);
  CHECK(rate.per_sec(1000, 50) == 0);
  CHECK(rate.per_sec(1500, 50) == 100);
  for (std::uint64_t ms = 1010; ms <= 11'000; ms += 10) rate.sample(ms, ms);  // 1000 a second
  CHECK(rate.per_sec(11'000, 11'000) == 1000);
  for (std::uint64_t ms = 11'010; ms <= 13'000; ms += 10) rate.sample(ms, 11'000);
  CHECK(rate.per_sec(13'000, 11'000) == 0);  // it has been calm for longer than it looks back
  CHECK(rate.per_sec(12'900, 12'000) > 0);
}

TEST_CASE("the memory in use is a part of what is resident, and the peak is never below it",
          "[info]") {
  const process_info::Memory now = process_info::memory();
  CHECK(now.used_bytes > 0);
  CHECK(now.used_bytes <= now.resident_bytes);
  std::string text;
  process_info::append_memory(text, std::uint64_t{1} << 50);
  CHECK_THAT(text, ContainsSubstring("used_memory_peak:1125899906842624\r\n") &&
                       ContainsSubstring("used_memory_peak_human:1.00P\r\n"));
  text.clear();
  process_info::append_memory(text, 0);
  CHECK_THAT(text, !ContainsSubstring("used_memory_peak:0\r\n"));
}

TEST_CASE("processor time has seconds and six digits behind the point", "[info]") {
  std::string text;
  process_info::append_cpu(text);
  CHECK_THAT(text, StartsWith("used_cpu_sys:"));
  for (std::size_t at = text.find('.'); at != std::string::npos; at = text.find('.', at + 1)) {
    CHECK(text.find("\r\n", at) == at + 7);
  }
}
