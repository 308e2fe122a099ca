// tests/budget/allocations.hpp - how often a program asks for memory. allocations.cpp replaces new and
// delete of every program that it is linked to.
#ifndef SESHAT_TESTS_BUDGET_ALLOCATIONS_HPP
#define SESHAT_TESTS_BUDGET_ALLOCATIONS_HPP

#include <cstdint>

namespace seshat::budget {

struct Allocations {
  bool counting = false;
  std::uint64_t count = 0;
};

inline Allocations allocations;

}  // namespace seshat::budget

#endif  // SESHAT_TESTS_BUDGET_ALLOCATIONS_HPP
