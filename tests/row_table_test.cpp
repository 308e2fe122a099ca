// Rows found by one hash.
#include "seshat/row_table.hpp"

#include <map>
#include <optional>
#include <random>
#include <string>
#include <utility>

#include "catch.hpp"

namespace seshat {
namespace {

using Model = std::map<std::string, std::optional<std::string>>;

// A row for each key of the model, and no others.
bool same(const RowTable& table, const Model& model) {
  if (table.size() != model.size()) return false;
  std::size_t seen = 0;
  for (const RowTable::Row& row : table) {
    const auto found = model.find(std::string(row.key()));
    if (found == model.end() || row.erased() == found->second.has_value()) return false;
    if (row.value() != found->second.value_or("")) return false;
    if (table.find(row.key()) != &row) return false;
    ++seen;
  }
  return seen == model.size();
}

TEST_CASE("a table finds what was put there last, and nothing else", "[row_table]") {
  RowTable table;
  CHECK(table.find("a") == nullptr);
  bool made = false;
  table.at("a", &made).set("1");
  CHECK(made);
  table.at("a", &made).set("22");
  CHECK_FALSE(made);
  CHECK(table.find("a")->value() == "22");
  CHECK(table.find("a")->size_bytes() == 3);
  CHECK(table.find("b") == nullptr);
  table.at("a").erase();
  CHECK(table.find("a")->erased());
  CHECK(table.size() == 1);
}

TEST_CASE("empty keys and values, and bytes of any kind, are rows like others", "[row_table]") {
  RowTable table;
  table.at("").set("");
  table.at(std::string_view("\0", 1)).set(std::string_view("a\0b", 3));
  CHECK(table.size() == 2);
  CHECK(table.find("")->value().empty());
  CHECK_FALSE(table.find("")->erased());
  CHECK(table.find(std::string_view("\0", 1))->value() == std::string_view("a\0b", 3));
}

TEST_CASE("a table agrees with a map after any changes, also when it is used again",
          "[row_table]") {
  std::mt19937_64 random(7);
  RowTable table;
  for (int round = 0; round < 20; ++round) {
    Model model;
    for (int step = 0; step < 2000; ++step) {
      const std::uint64_t keys = round % 2 == 0 ? 1500 : 300;  // more than is kept, and less
      const std::string key = "key" + std::to_string(random() % (1 + random() % keys));
      if (random() % 4 == 0) {
        table.at(key).erase();
        model[key] = std::nullopt;
      } else {
        const std::string value(random() % 40, static_cast<char>('a' + random() % 26));
        table.at(key).set(value);
        model[key] = value;
      }
    }
    REQUIRE(same(table, model));
    table.clear();
    REQUIRE(table.empty());
    REQUIRE(table.find("key1") == nullptr);
  }
}

TEST_CASE("a row that replaces another takes its place, and leaves its memory", "[row_table]") {
  RowTable table;
  table.at("a").set("old");
  RowTable changes;
  changes.at("a").set("new");
  changes.at("b").erase();
  std::size_t made_rows = 0;
  for (RowTable::Row& row : changes) {
    bool made = false;
    table.replace(row, &made);
    made_rows += made ? 1 : 0;
  }
  CHECK(made_rows == 1);
  CHECK(changes.begin()->value() == "old");
  CHECK(same(table, {{"a", "new"}, {"b", std::nullopt}}));
}

TEST_CASE("a table of many rows that is cleared keeps none of their memory", "[row_table]") {
  RowTable table;
  for (int i = 0; i < 10'000; ++i) table.at(std::to_string(i)).set("value");
  table.clear();
  CHECK(table.begin() == nullptr);
  table.at("a").set("again");
  CHECK(same(table, {{"a", "again"}}));
}

TEST_CASE("tables swap all that they hold", "[row_table]") {
  RowTable left;
  RowTable right;
  for (int i = 0; i < 100; ++i) left.at(std::to_string(i)).set("v");
  right.at("x").set("y");
  swap(left, right);
  CHECK(same(left, {{"x", "y"}}));
  CHECK(right.size() == 100);
  CHECK(right.find("99") != nullptr);
}

}  // namespace
}  // namespace seshat
