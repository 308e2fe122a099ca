// Log lines: their form as text and JSON, levels, fixed fields, hostile bytes, threads.
#include "seshat/log.hpp"

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "catch.hpp"

using seshat::LogFields;
using seshat::LogFormat;
using seshat::Logger;
using seshat::LogLevel;

namespace {

constexpr std::size_t kTimestampSize = std::string_view("2026-11-21T17:04:26.123Z").size();

// Keeps the lines that a logger writes.
class Lines {
 public:
  [[nodiscard]] Logger logger(LogLevel level, LogFormat format) {
    return Logger(level, format, [this](std::string_view line) {
      const std::lock_guard lock(mutex_);
      lines_.emplace_back(line);
    });
  }
  [[nodiscard]] const std::vector<std::string>& all() const { return lines_; }

 private:
  std::mutex mutex_;
  std::vector<std::string> lines_;
};

// One line of text without its time and its line feed.
std::string as_text(std::string_view message, LogFields fields = {}) {
  Lines lines;
  lines.logger(LogLevel::kDebug, LogFormat::kText).info(message, fields);
  const std::string& line = lines.all().at(0);
  REQUIRE(line.ends_with('\n'));
  return line.substr(kTimestampSize, line.size() - kTimestampSize - 1);
}

// One line of JSON from its level on.
std::string as_json(std::string_view message, LogFields fields = {}) {
  Lines lines;
  lines.logger(LogLevel::kDebug, LogFormat::kJson).info(message, fields);
  const std::string& line = lines.all().at(0);
  REQUIRE(line.ends_with("}\n"));
  const std::size_t start = std::string_view("{\"time\":\"\",").size() + kTimestampSize;
  return line.substr(start, line.size() - start - 1);
}

std::string timestamp(std::chrono::milliseconds since_1970) {
  std::string text;
  using Clock = std::chrono::system_clock;
  const auto duration = std::chrono::duration_cast<Clock::duration>(since_1970);
  seshat::append_timestamp(text, Clock::time_point(duration));
  return text;
}

std::string quoted(std::string_view text) {
  std::string out;
  seshat::append_quoted(out, text);
  return out;
}

struct Term {
  std::uint64_t value = 0;
};

}  // namespace

TEST_CASE("a line of text is time, level, message and key=value") {
  CHECK(as_text("became leader", {{"group", 1}, {"term", 5U}}) ==
        " INFO  became leader group=1 term=5");
  CHECK(as_text("started") == " INFO  started");
}

TEST_CASE("a line of JSON is one object") {
  CHECK(as_json("became leader", {{"group", 1}, {"term", 5U}}) ==
        R"("level":"info","message":"became leader","group":1,"term":5})");
  CHECK(as_json("started") == R"("level":"info","message":"started"})");
}

TEST_CASE("each line begins with its time") {
  Lines lines;
  lines.logger(LogLevel::kInfo, LogFormat::kText).info("now");
  lines.logger(LogLevel::kInfo, LogFormat::kJson).info("now");
  CHECK(lines.all().at(0).substr(kTimestampSize - 1, 2) == "Z ");
  CHECK_THAT(lines.all().at(1), StartsWith("{\"time\":\"20"));
  CHECK(lines.all().at(1).substr(9 + kTimestampSize - 1, 2) == "Z\"");
}

TEST_CASE("time is UTC with milliseconds, cut and not rounded") {
  using std::chrono::milliseconds;
  CHECK(timestamp(milliseconds(0)) == "1970-01-01T00:00:00.000Z");
  CHECK(timestamp(milliseconds(1'795'280'666'123)) == "2026-11-21T17:04:26.123Z");
  CHECK(timestamp(milliseconds(951'782'399'999)) == "2000-02-28T23:59:59.999Z");
  CHECK(timestamp(milliseconds(951'782'400'007)) == "2000-02-29T00:00:00.007Z");
  CHECK(timestamp(milliseconds(-1)) == "1969-12-31T23:59:59.999Z");
  std::string text;
  seshat::append_timestamp(text,
                           std::chrono::system_clock::time_point(std::chrono::milliseconds(2)) -
                               std::chrono::microseconds(1));
  CHECK(text == "1970-01-01T00:00:00.001Z");
}

TEST_CASE("a logger writes its level and what is above") {
  for (const auto least : {LogLevel::kDebug, LogLevel::kInfo, LogLevel::kWarn, LogLevel::kError}) {
    Lines lines;
    const Logger log = lines.logger(least, LogFormat::kJson);
    log.debug("");
    log.info("");
    log.warn("");
    log.error("");
    CHECK(lines.all().size() == 4 - static_cast<std::size_t>(least));
    CHECK_THAT(lines.all().front(), ContainsSubstring(std::string(seshat::log_level_name(least))));
    CHECK_THAT(lines.all().back(), ContainsSubstring("\"error\""));
    CHECK(log.enabled(least));
    CHECK(log.enabled(LogLevel::kDebug) == (least == LogLevel::kDebug));
  }
}

TEST_CASE("levels are five columns wide, so that messages stand in one column") {
  Lines lines;
  const Logger log = lines.logger(LogLevel::kDebug, LogFormat::kText);
  log.debug("m");
  log.info("m");
  log.warn("m");
  log.error("m");
  const std::vector<std::string> expected = {" DEBUG m\n", " INFO  m\n", " WARN  m\n",
                                             " ERROR m\n"};
  for (std::size_t i = 0; i < expected.size(); ++i) {
    CHECK(lines.all().at(i).substr(kTimestampSize) == expected[i]);
  }
}

TEST_CASE("fields hold every integer, truth and text") {
  const std::string text = "t";
  const LogFields fields = {{"a", std::numeric_limits<std::int64_t>::min()},
                            {"b", std::numeric_limits<std::uint64_t>::max()},
                            {"c", true},
                            {"d", std::uint8_t{7}},
                            {"e", "t"},
                            {"f", text},
                            {"g", Term{9}}};
  CHECK(as_text("m", fields) ==
        " INFO  m a=-9223372036854775808 b=18446744073709551615 c=true d=7 e=t f=t g=9");
  CHECK(as_json("m", fields) ==
        R"("level":"info","message":"m","a":-9223372036854775808,"b":18446744073709551615,)"
        R"("c":true,"d":7,"e":"t","f":"t","g":9})");
}

TEST_CASE("fixed fields come first, on every line, and leave the first logger alone") {
  for (const auto format : {LogFormat::kText, LogFormat::kJson}) {
    Lines lines;
    const Logger log = lines.logger(LogLevel::kInfo, format);
    const Logger group_log = log.with({{"node", 1}}).with({{"group", 0}});
    group_log.info("m", {{"term", 5}});
    log.info("m");
    const bool json = format == LogFormat::kJson;
    CHECK_THAT(lines.all().at(0), EndsWith(json ? "\"m\",\"node\":1,\"group\":0,\"term\":5}\n"
                                                : "m node=1 group=0 term=5\n"));
    CHECK_THAT(lines.all().at(1), EndsWith(json ? "\"m\"}\n" : "m\n"));
  }
}

TEST_CASE("text that could be misread stands in quotes") {
  CHECK(as_text("m", {{"k", "127.0.0.1:6379"}}) == " INFO  m k=127.0.0.1:6379");
  CHECK(as_text("m", {{"k", "two words"}}) == " INFO  m k=\"two words\"");
  CHECK(as_text("m", {{"k", ""}}) == " INFO  m k=\"\"");
  CHECK(as_text("m", {{"k", "a=b"}}) == " INFO  m k=\"a=b\"");
  CHECK(as_text("m", {{"k", "say \"hi\""}}) == R"( INFO  m k="say \"hi\"")");
  CHECK(as_text("m", {{"k", "back\\slash"}}) == R"( INFO  m k="back\\slash")");
  CHECK(as_text("m", {{"k", "\xC3\xA9"}}) == " INFO  m k=\"\xC3\xA9\"");
}

TEST_CASE("nothing in a message or field starts a second line or reaches the terminal") {
  const std::string_view hostile("a\r\nb\x1B[2J\x00\x7F\xC2\x9B", 12);
  const std::string escaped = R"(a\r\nb\u001b[2J\u0000\u007f\u009b)";
  CHECK(as_text(hostile) == " INFO  " + escaped);
  CHECK(as_text("m", {{"k", hostile}}) == " INFO  m k=\"" + escaped + "\"");
  CHECK(as_json(hostile) == R"("level":"info","message":")" + escaped + "\"}");
}

TEST_CASE("JSON's escapes (RFC 8259, section 7)") {
  CHECK(quoted("\"\\/\t\b\f") == R"("\"\\/\t\u0008\u000c")");
  CHECK(quoted("\xE2\x82\xAC \xF0\x9F\x98\x80") == "\"\xE2\x82\xAC \xF0\x9F\x98\x80\"");
}

TEST_CASE("what is no UTF-8 becomes U+FFFD for each byte (RFC 3629)") {
  const std::string bad = "\xEF\xBF\xBD";
  CHECK(quoted("\xFF") == "\"" + bad + "\"");
  CHECK(quoted("\x80z") == "\"" + bad + "z\"");
  CHECK(quoted("\xC0\xAF") == "\"" + bad + bad + "\"");                      // overlong '/'
  CHECK(quoted("\xE0\x9F\xBF") == "\"" + bad + bad + bad + "\"");            // overlong
  CHECK(quoted("\xED\xA0\x80") == "\"" + bad + bad + bad + "\"");            // a surrogate
  CHECK(quoted("\xF0\x8F\xBF\xBF") == "\"" + bad + bad + bad + bad + "\"");  // overlong
  CHECK(quoted("\xF4\x90\x80\x80") == "\"" + bad + bad + bad + bad + "\"");  // above U+10FFFF
  CHECK(quoted("\xF5\x80\x80\x80") == "\"" + bad + bad + bad + bad + "\"");
  CHECK(quoted("\xE2\x82") == "\"" + bad + bad + "\"");  // cut off
  CHECK(quoted("\xE2\x82z") == "\"" + bad + bad + "z\"");
}

TEST_CASE("the edges of UTF-8 pass as they are (RFC 3629, section 4)") {
  for (const std::string text :
       {"\xC2\xA0", "\xDF\xBF", "\xE0\xA0\x80", "\xED\x9F\xBF", "\xEE\x80\x80", "\xEF\xBF\xBF",
        "\xF0\x90\x80\x80", "\xF4\x8F\xBF\xBF", "~"}) {
    CHECK(quoted(text) == "\"" + text + "\"");
  }
}

TEST_CASE("threads share a logger, and each line stays whole") {
  constexpr int kThreads = 4;
  constexpr int kLinesEach = 250;
  Lines lines;
  const Logger log = lines.logger(LogLevel::kInfo, LogFormat::kText);
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&log, t] {
      const Logger mine = log.with({{"thread", t}});
      for (int i = 0; i < kLinesEach; ++i) mine.info("line", {{"i", i}});
    });
  }
  for (std::thread& thread : threads) thread.join();
  REQUIRE(lines.all().size() == kThreads * kLinesEach);
  for (const std::string& line : lines.all()) {
    CHECK(line.find('\n') == line.size() - 1);
    CHECK(line.substr(kTimestampSize, 19) == " INFO  line thread=");
  }
}
