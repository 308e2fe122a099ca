// seshat/log.hpp - leveled log lines with fields, as text or JSON.
//
//   seshat::Logger log(LogLevel::kInfo, LogFormat::kText);   // writes to stderr
//   seshat::Logger node_log = log.with({{"node", 1}});       // fields on every line
//   node_log.info("became leader", {{"group", 1}, {"term", 5}});
//
//   text: 2026-11-21T17:04:26.123Z INFO  became leader node=1 group=1 term=5
//   JSON: {"time":"2026-11-21T17:04:26.123Z","level":"info","message":"became leader",
//          "node":1,"group":1,"term":5}                       (one line, broken here only)
//
// Keeps:    one call, one line: no byte from outside (a key, a peer's text) can start a second
// line,
//           move a terminal's cursor or make a line of JSON invalid.
// Threads:  any; a Logger doesn't change after its construction. A line is formatted first and
//           handed over in one write, so lines of different threads don't mix.
// Costs:    below its level a call is one comparison. Above it: one string, one fwrite. stderr is
//           unbuffered and may block when nobody reads the pipe behind it; log rarely on the loop.
// Alone:    copy this file; it needs only the standard library.
#ifndef SESHAT_LOG_HPP
#define SESHAT_LOG_HPP

#include <chrono>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <initializer_list>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>

namespace seshat {

enum class LogLevel : std::uint8_t { kDebug, kInfo, kWarn, kError };
enum class LogFormat : std::uint8_t { kText, kJson };

// One `key=value` of a line. Both views need to live only until the call that logs them returns.
// Keys are the program's own words: snake_case, without spaces, none twice on a line.
struct LogField {
  std::string_view key;
  std::variant<std::int64_t, std::uint64_t, bool, std::string_view> value;

  template <std::signed_integral T>
  constexpr LogField(std::string_view k, T v) : key(k), value(std::int64_t{v}) {}
  template <std::unsigned_integral T>
  requires(!std::same_as<T, bool>) constexpr LogField(std::string_view k, T v)
      : key(k), value(std::uint64_t{v}) {}
  // A template, so that a `const char*` becomes text and not `true`.
  template <std::same_as<bool> T>
  constexpr LogField(std::string_view k, T v) : key(k), value(v) {}
  constexpr LogField(std::string_view k, std::string_view v) : key(k), value(v) {}
  // A number with a type of its own, such as raft::Term: whatever has an unsigned `value`.
  template <class T>
  requires requires(const T& v) {
    { v.value } -> std::same_as<const std::uint64_t&>;
  }
  constexpr LogField(std::string_view k, const T& v) : key(k), value(v.value) {}
};

using LogFields = std::initializer_list<LogField>;

// Where lines go. Takes one line with its '\n'; called from any thread that logs; must not throw.
using LogSink = std::function<void(std::string_view line)>;

// Writes the line to stderr. A line that can't be written is lost: there is nobody left to tell.
void write_to_stderr(std::string_view line);

// Pass it by reference. A copy is cheap enough for start-up and keeps level, format and fields.
class Logger {
 public:
  explicit Logger(LogLevel level = LogLevel::kInfo, LogFormat format = LogFormat::kText,
                  LogSink sink = write_to_stderr)
      : level_(level), format_(format), sink_(std::move(sink)) {}

  // A logger that also puts `fields` on every line, before the fields of the call.
  [[nodiscard]] Logger with(LogFields fields) const;

  // Would a line of this level be written? Ask before computing what only a log line needs.
  [[nodiscard]] bool enabled(LogLevel level) const { return level >= level_; }

  void log(LogLevel level, std::string_view message, LogFields fields = {}) const {
    if (enabled(level)) write(level, message, fields);
  }
  void debug(std::string_view message, LogFields fields = {}) const {
    if (enabled(LogLevel::kDebug)) write(LogLevel::kDebug, message, fields);
  }
  void info(std::string_view message, LogFields fields = {}) const {
    if (enabled(LogLevel::kInfo)) write(LogLevel::kInfo, message, fields);
  }
  void warn(std::string_view message, LogFields fields = {}) const {
    if (enabled(LogLevel::kWarn)) write(LogLevel::kWarn, message, fields);
  }
  void error(std::string_view message, LogFields fields = {}) const {
    if (enabled(LogLevel::kError)) write(LogLevel::kError, message, fields);
  }

 private:
  void write(LogLevel level, std::string_view message, LogFields fields) const;

  LogLevel level_;
  LogFormat format_;
  LogSink sink_;
  std::string fixed_fields_;  // as they stand in a line of `format_`, each with its separator
};

// "debug", "info", "warn", "error".
[[nodiscard]] std::string_view log_level_name(LogLevel level);

// Appends `text` in double quotes with JSON's escapes. What isn't valid UTF-8 becomes U+FFFD, one
// for each byte; control characters (also U+0080 to U+009F) become \u00XX.
void append_quoted(std::string& out, std::string_view text);

// Appends `time` in UTC as 2026-11-21T17:04:26.123Z, cut (not rounded) to milliseconds.
void append_timestamp(std::string& out, std::chrono::system_clock::time_point time);

// ---------------------------------------------------------------------------------------------
// Bodies
// ---------------------------------------------------------------------------------------------

namespace log_detail {

// The length of the valid UTF-8 sequence at the front of `text`, 0 if there is none. Refuses
// overlong forms, surrogates and what lies above U+10FFFF (RFC 3629, section 4).
[[nodiscard]] inline std::size_t utf8_length(std::string_view text) {
  const auto byte = [text](std::size_t i) {
    return i < text.size() ? static_cast<unsigned char>(text[i]) : 0U;
  };
  const auto within = [](unsigned value, unsigned low, unsigned high) {
    return value >= low && value <= high;
  };
  const unsigned first = byte(0);
  if (first < 0x80) return text.empty() ? 0 : 1;
  if (within(first, 0xC2, 0xDF)) return within(byte(1), 0x80, 0xBF) ? 2 : 0;
  if (!within(byte(2), 0x80, 0xBF)) return 0;
  if (within(first, 0xE0, 0xEF)) {
    const bool second = within(byte(1), first == 0xE0 ? 0xA0 : 0x80, first == 0xED ? 0x9F : 0xBF);
    return second ? 3 : 0;
  }
  const bool second = within(byte(1), first == 0xF0 ? 0x90 : 0x80, first == 0xF4 ? 0x8F : 0xBF);
  return within(first, 0xF0, 0xF4) && second && within(byte(3), 0x80, 0xBF) ? 4 : 0;
}

// The code point if `sequence` (valid UTF-8) is a control character, else -1.
[[nodiscard]] inline int control_code(std::string_view sequence) {
  const unsigned last = static_cast<unsigned char>(sequence.back());
  if (sequence.size() == 1 && (last < 0x20 || last == 0x7F)) return static_cast<int>(last);
  if (sequence.size() == 2 && sequence.front() == '\xC2' && last < 0xA0) {
    return static_cast<int>(last);
  }
  return -1;
}

inline constexpr std::string_view kHexDigits = "0123456789abcdef";

inline void append_control(std::string& out, int code) {
  switch (code) {
    case '\n':
      out += "\\n";
      return;
    case '\r':
      out += "\\r";
      return;
    case '\t':
      out += "\\t";
      return;
    default:
      break;
  }
  out += "\\u00";
  out += kHexDigits[static_cast<std::size_t>(code) >> 4];
  out += kHexDigits[static_cast<std::size_t>(code) & 0xF];
}

enum class Quotes : std::uint8_t { kEscaped, kKept };

inline void append_escaped(std::string& out, std::string_view text, Quotes quotes) {
  while (!text.empty()) {
    const std::size_t length = utf8_length(text);
    const std::string_view sequence = text.substr(0, length == 0 ? 1 : length);
    text.remove_prefix(sequence.size());
    if (length == 0) {
      out += "\xEF\xBF\xBD";  // U+FFFD, the replacement character
    } else if (const int control = control_code(sequence); control >= 0) {
      append_control(out, control);
    } else {
      const bool special = sequence == "\"" || sequence == "\\";
      if (special && quotes == Quotes::kEscaped) out += '\\';
      out += sequence;
    }
  }
}

// May `text` stand in a line of text without quotes, and still be told from what surrounds it?
[[nodiscard]] inline bool is_plain(std::string_view text) {
  for (const char c : text) {
    if (c <= ' ' || c > '~' || c == '"' || c == '=' || c == '\\') return false;
  }
  return !text.empty();
}

inline void append_value(std::string& out, const LogField& field, LogFormat format) {
  const auto append = [&out, format](const auto& value) {
    using Type = std::remove_cvref_t<decltype(value)>;
    if constexpr (std::same_as<Type, bool>) {
      out += value ? "true" : "false";
    } else if constexpr (std::same_as<Type, std::string_view>) {
      if (format == LogFormat::kText && is_plain(value)) {
        out += value;
      } else {
        append_quoted(out, value);
      }
    } else {
      out += std::to_string(value);
    }
  };
  std::visit(append, field.value);
}

inline void append_fields(std::string& out, LogFields fields, LogFormat format) {
  for (const LogField& field : fields) {
    if (format == LogFormat::kJson) {
      out += ',';
      append_quoted(out, field.key);
      out += ':';
    } else {
      out += ' ';
      append_escaped(out, field.key, Quotes::kKept);
      out += '=';
    }
    append_value(out, field, format);
  }
}

inline void append_head_as_text(std::string& out, std::chrono::system_clock::time_point time,
                                LogLevel level, std::string_view message) {
  append_timestamp(out, time);
  switch (level) {
    case LogLevel::kDebug:
      out += " DEBUG ";
      break;
    case LogLevel::kInfo:
      out += " INFO  ";
      break;
    case LogLevel::kWarn:
      out += " WARN  ";
      break;
    case LogLevel::kError:
      out += " ERROR ";
      break;
  }
  append_escaped(out, message, Quotes::kKept);
}

inline void append_head_as_json(std::string& out, std::chrono::system_clock::time_point time,
                                LogLevel level, std::string_view message) {
  out += "{\"time\":\"";
  append_timestamp(out, time);
  out += "\",\"level\":\"";
  out += log_level_name(level);
  out += "\",\"message\":";
  append_quoted(out, message);
}

}  // namespace log_detail

inline void write_to_stderr(std::string_view line) {
  static_cast<void>(std::fwrite(line.data(), 1, line.size(), stderr));
}

inline Logger Logger::with(LogFields fields) const {
  Logger logger = *this;
  log_detail::append_fields(logger.fixed_fields_, fields, format_);
  return logger;
}

inline void Logger::write(LogLevel level, std::string_view message, LogFields fields) const {
  const auto now = std::chrono::system_clock::now();
  const bool json = format_ == LogFormat::kJson;
  std::string line;
  line.reserve(128);
  if (json) {
    log_detail::append_head_as_json(line, now, level, message);
  } else {
    log_detail::append_head_as_text(line, now, level, message);
  }
  line += fixed_fields_;
  log_detail::append_fields(line, fields, format_);
  line += json ? "}\n" : "\n";
  sink_(line);
}

inline std::string_view log_level_name(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return "debug";
    case LogLevel::kInfo:
      return "info";
    case LogLevel::kWarn:
      return "warn";
    case LogLevel::kError:
      break;
  }
  return "error";
}

inline void append_quoted(std::string& out, std::string_view text) {
  out += '"';
  log_detail::append_escaped(out, text, log_detail::Quotes::kEscaped);
  out += '"';
}

inline void append_timestamp(std::string& out, std::chrono::system_clock::time_point time) {
  using std::chrono::milliseconds;
  const auto digits = [&out](std::int64_t value, std::size_t width) {
    const std::string text = std::to_string(value);
    out.append(width > text.size() ? width - text.size() : 0, '0').append(text);
  };
  const auto in_ms = std::chrono::floor<milliseconds>(time);
  const auto day = std::chrono::floor<std::chrono::days>(in_ms);
  const std::chrono::year_month_day date(day);
  const std::chrono::hh_mm_ss<milliseconds> clock(in_ms - day);

  digits(static_cast<int>(date.year()), 4);
  out += '-';
  digits(static_cast<unsigned>(date.month()), 2);
  out += '-';
  digits(static_cast<unsigned>(date.day()), 2);
  out += 'T';
  digits(clock.hours().count(), 2);
  out += ':';
  digits(clock.minutes().count(), 2);
  out += ':';
  digits(clock.seconds().count(), 2);
  out += '.';
  digits(clock.subseconds().count(), 3);
  out += 'Z';
}

}  // namespace seshat

#endif  // SESHAT_LOG_HPP
