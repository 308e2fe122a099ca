// seshat/cli_table.hpp - how `seshat members` and `seshat status` print: tables and JSON.
//
//   NODE  ADDRESS         ROLE      COMMIT  STATE       columns as wide as their widest cell, two
//      1  127.0.0.1:6379  leader       100  active      blanks between them; no cell has a blank of
//      2  127.0.0.1:6380  follower      99  active      its own, so that `awk` can read them too
//
//   Value (RESP) ──> {"node": 1, "log_bytes": 4096}     names with '-' have '_' in JSON
//
// Threads: none inside. Needs: resp.hpp, log.hpp (append_quoted).
#ifndef SESHAT_CLI_TABLE_HPP
#define SESHAT_CLI_TABLE_HPP

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "seshat/log.hpp"
#include "seshat/resp.hpp"

namespace seshat::cli {

enum class Align : std::uint8_t { kLeft, kRight };

class Table {
 public:
  struct Column {
    std::string_view title;
    Align align = Align::kLeft;
  };

  explicit Table(std::vector<Column> columns) : columns_(std::move(columns)) {}
  // One cell a column. An empty one becomes "-"; blanks and what a terminal might obey become '?'.
  void add(std::vector<std::string> cells);
  // The titles and all rows, each with a line's end.
  [[nodiscard]] std::string text() const;

 private:
  std::vector<Column> columns_;
  std::vector<std::vector<std::string>> rows_;
};

// "512B", "4.1kB", "100.0MB": powers of 1000, as the settings in bytes are.
[[nodiscard]] std::string size_text(std::uint64_t size_bytes);

// "2026-11-21T23:53:01Z"; empty for 0.
[[nodiscard]] std::string time_text(std::uint64_t ms_since_1970);

// A reply: maps become objects, null null, errors and all other text strings. Bytes that are no
// UTF-8 become U+FFFD: the document stays valid.
void append_json(std::string& out, const resp::Value& value);

// =================================================================================================
// Bodies
// =================================================================================================

inline void Table::add(std::vector<std::string> cells) {
  cells.resize(columns_.size());
  for (std::string& cell : cells) {
    if (cell.empty()) cell = "-";
    for (char& c : cell) c = c > ' ' && c <= '~' ? c : '?';
  }
  rows_.push_back(std::move(cells));
}

inline std::string Table::text() const {
  std::vector<std::size_t> widths;
  for (std::size_t i = 0; i < columns_.size(); ++i) {
    widths.push_back(columns_[i].title.size());
    for (const auto& row : rows_) widths[i] = std::max(widths[i], row[i].size());
  }
  std::string out;
  const auto append_row = [&](auto cell_of) {
    std::string line;
    for (std::size_t i = 0; i < columns_.size(); ++i) {
      const std::string_view cell = cell_of(i);
      const std::string gap(widths[i] - cell.size(), ' ');
      if (i != 0) line += "  ";
      line +=
          columns_[i].align == Align::kRight ? gap + std::string(cell) : std::string(cell) + gap;
    }
    line.erase(line.find_last_not_of(' ') + 1);
    out += line + "\n";
  };
  append_row([&](std::size_t i) { return columns_[i].title; });
  for (const auto& row : rows_) append_row([&](std::size_t i) { return std::string_view(row[i]); });
  return out;
}

inline std::string size_text(std::uint64_t size_bytes) {
  constexpr std::array<std::string_view, 5> kUnits = {"kB", "MB", "GB", "TB", "PB"};
  if (size_bytes < 1000) return std::to_string(size_bytes) + "B";
  std::uint64_t tenths = size_bytes / 100;
  std::size_t unit = 0;
  while (tenths >= 10'000 && unit + 1 < kUnits.size()) {
    tenths /= 1000;
    ++unit;
  }
  return std::to_string(tenths / 10) + "." + std::to_string(tenths % 10) +
         std::string(kUnits[unit]);
}

inline std::string time_text(std::uint64_t ms_since_1970) {
  namespace chrono = std::chrono;
  constexpr std::uint64_t kYear9999 = 253'402'300'799'000;
  if (ms_since_1970 == 0 || ms_since_1970 > kYear9999) return {};
  const chrono::sys_seconds time{chrono::seconds(ms_since_1970 / 1000)};
  const chrono::sys_days day = chrono::floor<chrono::days>(time);
  const chrono::year_month_day date{day};
  const chrono::hh_mm_ss<chrono::seconds> clock{time - day};
  std::array<char, 64> text{};
  std::snprintf(text.data(), text.size(), "%04d-%02u-%02uT%02d:%02d:%02dZ",
                static_cast<int>(date.year()), static_cast<unsigned>(date.month()),
                static_cast<unsigned>(date.day()), static_cast<int>(clock.hours().count()),
                static_cast<int>(clock.minutes().count()),
                static_cast<int>(clock.seconds().count()));
  return text.data();
}

// ---- JSON ---------------------------------------------------------------------------------------

namespace detail {

inline void append_json_object(std::string& out, const std::vector<resp::Value>& elements) {
  out += '{';
  for (std::size_t i = 0; i + 1 < elements.size(); i += 2) {
    if (i != 0) out += ", ";
    std::string name = elements[i].text;
    std::replace(name.begin(), name.end(), '-', '_');
    append_quoted(out, name);
    out += ": ";
    append_json(out, elements[i + 1]);
  }
  out += '}';
}

inline void append_json_array(std::string& out, const std::vector<resp::Value>& elements) {
  out += '[';
  for (std::size_t i = 0; i < elements.size(); ++i) {
    if (i != 0) out += ", ";
    append_json(out, elements[i]);
  }
  out += ']';
}

}  // namespace detail

inline void append_json(std::string& out, const resp::Value& value) {
  switch (value.kind) {
    case resp::Kind::kInteger:
      out += std::to_string(value.integer);
      return;
    case resp::Kind::kBoolean:
      out += value.integer != 0 ? "true" : "false";
      return;
    case resp::Kind::kNull:
    case resp::Kind::kNullArray:
      out += "null";
      return;
    case resp::Kind::kMap:
      return detail::append_json_object(out, value.elements);
    case resp::Kind::kArray:
    case resp::Kind::kSet:
    case resp::Kind::kPush:
      return detail::append_json_array(out, value.elements);
    default:
      return append_quoted(out, value.text);
  }
}

}  // namespace seshat::cli

#endif  // SESHAT_CLI_TABLE_HPP
