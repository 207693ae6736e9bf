// What the fuzz targets share: a folder in memory for their input, and how a broken promise ends a run.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "tests/temporary_directory.hpp"

namespace einfield {

/// A folder that lives as long as the process; in memory where the system has such a place, because a fuzzer writes its
/// input thousands of times a second.
inline const TemporaryDirectory& workspace() {
  static const bool set = setenv("TMPDIR", std::filesystem::exists("/dev/shm") ? "/dev/shm" : "/tmp", 1) == 0;
  static const TemporaryDirectory folder;
  static_cast<void>(set);
  return folder;
}

inline std::string as_text(const std::uint8_t* data, std::size_t size) {
  return {reinterpret_cast<const char*>(data), size};
}

/// Ends the process, as libFuzzer wants it, when `holds` is false.
inline void promise(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "broken promise: %s\n", what);
  std::abort();
}

}  // namespace einfield
