// A file of its own: where a compiler sees both sides of it, it takes a delete that calls free() for a
// mistake. All other forms of new and delete that are used here come through these.
#include "budget/allocations.hpp"

#include <cstddef>
#include <cstdlib>
#include <new>

void* operator new(std::size_t size_bytes) {
  if (seshat::budget::allocations.counting) ++seshat::budget::allocations.count;
  void* memory = std::malloc(size_bytes == 0 ? 1 : size_bytes);
  if (memory == nullptr) std::abort();
  return memory;
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
