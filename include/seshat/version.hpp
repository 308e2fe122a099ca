// seshat/version.hpp - which Seshat this is.
//
//   seshat::kVersion                       "0.2.0", for people
//   #if SESHAT_VERSION_MAJOR >= 1          for the preprocessor
//
// Keeps:    one place that names the version; semantic versioning (semver.org).
// Threads:  constants only.
// Alone:    copy this file; it needs only the standard library.
#ifndef SESHAT_VERSION_HPP
#define SESHAT_VERSION_HPP

#include <string_view>

#define SESHAT_VERSION_MAJOR 0
#define SESHAT_VERSION_MINOR 2
#define SESHAT_VERSION_PATCH 0

// Two steps, so that the numbers are expanded before they become text. Both end with this file.
#define SESHAT_VERSION_TEXT(major, minor, patch) #major "." #minor "." #patch
#define SESHAT_VERSION_EXPAND(major, minor, patch) SESHAT_VERSION_TEXT(major, minor, patch)

namespace seshat {

// major.minor.patch; zero-terminated, so `kVersion.data()` may go to C.
inline constexpr std::string_view kVersion =
    SESHAT_VERSION_EXPAND(SESHAT_VERSION_MAJOR, SESHAT_VERSION_MINOR, SESHAT_VERSION_PATCH);

}  // namespace seshat

#undef SESHAT_VERSION_EXPAND
#undef SESHAT_VERSION_TEXT

#endif  // SESHAT_VERSION_HPP
