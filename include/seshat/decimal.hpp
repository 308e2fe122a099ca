// seshat/decimal.hpp - numbers with a fraction as Redis' INCRBYFLOAT counts them: 0.1 + 0.2 is 0.3.
//
// Redis adds long doubles, which are not the same on every machine, and prints 17 places. Here
// numbers are counted in units of 10^-17, exactly and alike everywhere; those too large for that are
// doubles.
//
// Threads: none inside. Alone: copy this file; it needs only the standard library.
#ifndef SESHAT_DECIMAL_HPP
#define SESHAT_DECIMAL_HPP

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>

namespace seshat {

class Decimal {
 public:
  // "3.25", "-1e3", ".5", "0x1p3", "inf"; nullopt: it is no number, or NaN.
  [[nodiscard]] static std::optional<Decimal> parse(std::string_view text);
  // nullopt: the sum is no finite number.
  friend std::optional<Decimal> sum(const Decimal& left, const Decimal& right);
  // Without an exponent and without zeros at the end of the fraction.
  [[nodiscard]] std::string text() const;

 private:
  __extension__ using Units = __int128;

  static constexpr int kPlaces = 17;
  static constexpr double kExactBelow = 1e20;  // units fit, and so does the sum of two

  [[nodiscard]] static std::optional<Units> exact(std::string_view digits, int exponent);

  bool is_exact_ = true;
  Units units_ = 0;
  double number_ = 0;
};

// =================================================================================================
// Bodies
// =================================================================================================

// `digits` with or without a point, times 10^exponent; places beyond the 17th are rounded away.
inline std::optional<Decimal::Units> Decimal::exact(std::string_view digits, int exponent) {
  Units units = 0;
  const std::size_t point = std::min(digits.find('.'), digits.size());
  int place =
      kPlaces + exponent + static_cast<int>(point);  // behind the first digit: of what is left
  for (const char c : digits) {
    if (c == '.') continue;
    --place;
    const int digit = c - '0';
    if (place >= 0) {
      if (units > Units{1} << 120) return std::nullopt;
      units = units * 10 + digit;
    } else if (place == -1 && digit >= 5) {
      ++units;
    }
  }
  for (; place > 0; --place) {
    if (units > Units{1} << 120) return std::nullopt;
    units *= 10;
  }
  return units;
}

inline std::optional<Decimal> Decimal::parse(std::string_view text) {
  std::string_view rest = text;
  const bool negative = rest.starts_with('-');
  if (negative || rest.starts_with('+')) rest.remove_prefix(1);
  if (rest.empty() || rest.front() == '-' || rest.front() == '+') return std::nullopt;
  const bool is_hex = rest.starts_with("0x") || rest.starts_with("0X");
  if (is_hex) rest.remove_prefix(2);
  if (rest.empty() || rest.front() == '-') return std::nullopt;
  Decimal decimal;
  const auto [end, error] =
      std::from_chars(rest.data(), rest.data() + rest.size(), decimal.number_,
                      is_hex ? std::chars_format::hex : std::chars_format::general);
  if (error == std::errc::invalid_argument || end != rest.data() + rest.size()) return std::nullopt;
  if (error == std::errc::result_out_of_range) {
    const std::size_t power = rest.find_first_of("eEpP");
    if (power == rest.npos || !rest.substr(power + 1).starts_with('-')) return std::nullopt;
    decimal.number_ = 0;  // too small for a double
  }
  if (std::isnan(decimal.number_)) return std::nullopt;
  decimal.is_exact_ = !is_hex && decimal.number_ < kExactBelow;
  if (decimal.is_exact_) {
    const std::size_t e = std::min(rest.find_first_of("eE"), rest.size());
    int exponent = 0;
    if (e < rest.size()) {
      std::string_view power = rest.substr(e + 1);
      if (power.starts_with('+')) power.remove_prefix(1);
      std::from_chars(power.data(), power.data() + power.size(), exponent);
    }
    const std::optional<Units> units =
        std::abs(exponent) > 400 ? std::optional<Units>(0) : exact(rest.substr(0, e), exponent);
    decimal.is_exact_ = units.has_value();
    decimal.units_ = units.value_or(0);
  }
  if (negative) {
    decimal.units_ = -decimal.units_;
    decimal.number_ = -decimal.number_;
  }
  return decimal;
}

inline std::optional<Decimal> sum(const Decimal& left, const Decimal& right) {
  Decimal total;
  total.number_ = left.number_ + right.number_;
  if (!std::isfinite(total.number_)) return std::nullopt;
  total.is_exact_ =
      left.is_exact_ && right.is_exact_ && std::abs(total.number_) < Decimal::kExactBelow;
  if (total.is_exact_) total.units_ = left.units_ + right.units_;
  return total;
}

inline std::string Decimal::text() const {
  if (!is_exact_) {
    std::array<char, 512> buffer{};
    const auto [end, error] = std::to_chars(buffer.data(), buffer.data() + buffer.size(), number_,
                                            std::chars_format::fixed);
    return {buffer.data(), end};
  }
  Units left = units_ < 0 ? -units_ : units_;
  std::string digits;  // from the last
  for (int place = 0; place <= kPlaces || left > 0; ++place, left /= 10) {
    if (place == kPlaces) digits += '.';
    digits += static_cast<char>('0' + static_cast<int>(left % 10));
  }
  const std::size_t last = digits.find_first_not_of('0');
  digits.erase(0, digits[last] == '.' ? last + 1 : last);
  if (units_ < 0) digits += '-';
  std::reverse(digits.begin(), digits.end());
  return digits;
}

}  // namespace seshat

#endif  // SESHAT_DECIMAL_HPP
