// tests/cluster/json.hpp - reads the JSON that `seshat ... --json` prints. Strict: what is no JSON throws.
//
//   const Json json = parse_json(R"({"members": [{"id": 1}]})");
//   json["members"][0]["id"].text == "1"
#ifndef SESHAT_TESTS_CLUSTER_JSON_HPP
#define SESHAT_TESTS_CLUSTER_JSON_HPP

#include <cctype>
#include <cstddef>
#include <map>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace seshat::tests {

struct Json {
  std::string text;  // of a string, without its quotes; of a number, true, false and null, as it is
  std::vector<Json> elements = {};
  std::map<std::string, Json> fields = {};

  [[nodiscard]] const Json& operator[](std::size_t i) const { return elements.at(i); }
  [[nodiscard]] const Json& operator[](const std::string& name) const { return fields.at(name); }
};

[[nodiscard]] Json parse_json(std::string_view text);

// =================================================================================================
// Bodies
// =================================================================================================

namespace json_detail {

class Reader {
 public:
  explicit Reader(std::string_view text) : text_(text) {}

  [[nodiscard]] Json document() {
    Json json = value();
    skip_space();
    if (!text_.empty()) fail();
    return json;
  }

 private:
  [[noreturn]] void fail() const {
    throw std::runtime_error("no JSON at '" + std::string(text_.substr(0, 40)) + "'");
  }
  void skip_space() {
    while (!text_.empty() && std::isspace(static_cast<unsigned char>(text_.front())) != 0) {
      text_.remove_prefix(1);
    }
  }
  [[nodiscard]] bool takes(char c) {
    skip_space();
    if (!text_.starts_with(c)) return false;
    text_.remove_prefix(1);
    return true;
  }
  void expect(char c) {
    if (!takes(c)) fail();
  }

  [[nodiscard]] Json value() {
    Json json;
    if (takes('{')) {
      for (bool more = !takes('}'); more; more = follows('}')) {
        std::string name = string();
        expect(':');
        json.fields[std::move(name)] = value();
      }
    } else if (takes('[')) {
      for (bool more = !takes(']'); more; more = follows(']')) json.elements.push_back(value());
    } else {
      json.text = text_.starts_with('"') ? string() : word();
    }
    return json;
  }
  [[nodiscard]] bool follows(char end) {
    if (takes(end)) return false;
    expect(',');
    return true;
  }
  [[nodiscard]] std::string string() {
    expect('"');
    std::string result;
    while (!text_.empty() && text_.front() != '"') {
      if (static_cast<unsigned char>(text_.front()) < 0x20) fail();
      if (text_.front() == '\\') text_.remove_prefix(1);  // no test needs what \n and \u stand for
      if (text_.empty()) fail();
      result += text_.front();
      text_.remove_prefix(1);
    }
    expect('"');
    return result;
  }
  [[nodiscard]] std::string word() {
    const std::size_t end = text_.find_first_of(",]} \r\n");
    std::string result(text_.substr(0, end));
    text_.remove_prefix(result.size());
    const bool number =
        !result.empty() && result.find_first_not_of("-0123456789.eE+") == std::string::npos;
    if (!number && result != "true" && result != "false" && result != "null") fail();
    return result;
  }

  std::string_view text_;
};

}  // namespace json_detail

inline Json parse_json(std::string_view text) { return json_detail::Reader(text).document(); }

}  // namespace seshat::tests

#endif  // SESHAT_TESTS_CLUSTER_JSON_HPP
