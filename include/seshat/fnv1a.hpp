// seshat/fnv1a.hpp - the FNV-1a hash, 64 bits (Fowler, Noll, Vo): for keys on disk and checksums.
//
// It finds torn and flipped bytes; it is no protection against somebody who forges them.
//
// Threads: none inside. Needs: the standard library only.
#ifndef SESHAT_FNV1A_HPP
#define SESHAT_FNV1A_HPP

#include <cstdint>
#include <string_view>

namespace seshat {

inline constexpr std::uint64_t kFnv1aStart = 0xcbf29ce484222325;

// Of `bytes`, or, given the hash of what came before them, of both.
[[nodiscard]] constexpr std::uint64_t fnv1a(std::string_view bytes,
                                            std::uint64_t hash = kFnv1aStart) {
  for (const char c : bytes) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  return hash;
}

}  // namespace seshat

#endif  // SESHAT_FNV1A_HPP
