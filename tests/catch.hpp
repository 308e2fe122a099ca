// Catch2 v2 (Debian 12) and v3 under one name. Write matchers as v3 names them.
#ifndef SESHAT_TESTS_CATCH_HPP
#define SESHAT_TESTS_CATCH_HPP

#if __has_include(<catch2/catch.hpp>)
#include <catch2/catch.hpp>
namespace Catch::Matchers {
inline auto ContainsSubstring(const std::string& text) { return Contains(text); }
}  // namespace Catch::Matchers
#else
#include <catch2/catch_all.hpp>
#endif

using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::EndsWith;
using Catch::Matchers::StartsWith;

#endif  // SESHAT_TESTS_CATCH_HPP
