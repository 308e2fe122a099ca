// libFuzzer's way into the targets: `fuzz --target=resp ...`; the other arguments are libFuzzer's.
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string_view>

#include "fuzz/target.hpp"

namespace {

const seshat::fuzz::Target* chosen = nullptr;

}  // namespace

extern "C" int LLVMFuzzerInitialize(int* argc, char*** argv);
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

// libFuzzer leaves arguments with two dashes to us.
int LLVMFuzzerInitialize(int* argc, char*** argv) {
  constexpr std::string_view kFlag = "--target=";
  for (int i = 1; i < *argc; ++i) {
    const std::string_view argument = (*argv)[i];
    if (!argument.starts_with(kFlag)) continue;
    for (const seshat::fuzz::Target& target : seshat::fuzz::kTargets) {
      if (argument.substr(kFlag.size()) == target.name) chosen = &target;
    }
  }
  if (chosen != nullptr) return 0;
  std::fputs("which target? --target=", stderr);
  for (const seshat::fuzz::Target& target : seshat::fuzz::kTargets) {
    std::fprintf(stderr, " %s", target.name.data());
  }
  std::fputs("\n", stderr);
  std::exit(2);
}

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  chosen->run({reinterpret_cast<const char*>(data), size});
  return 0;
}
