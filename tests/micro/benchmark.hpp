// Catch2 with its benchmarks. Version 2 has them only where this is defined, in every file of a program.
#ifndef SESHAT_TESTS_MICRO_BENCHMARK_HPP
#define SESHAT_TESTS_MICRO_BENCHMARK_HPP

#ifndef CATCH_CONFIG_ENABLE_BENCHMARKING
#define CATCH_CONFIG_ENABLE_BENCHMARKING
#endif

#include "catch.hpp"

#endif  // SESHAT_TESTS_MICRO_BENCHMARK_HPP
