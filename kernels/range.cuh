// Named ranges on the time line of a profiler (NVTX). They cost nothing without a profiler, and are compiled out
// without NVTX's headers, which come with the CUDA toolkit.
#pragma once

#if __has_include(<nvtx3/nvToolsExt.h>)
#define EINFIELD_NVTX 1
#include <nvtx3/nvToolsExt.h>
#else
#define EINFIELD_NVTX 0
#endif

namespace einfield::cuda {

/// A range from construction to destruction, on this thread; ranges nest. In a graph that is launched as a whole, only
/// the range around its launch is seen.
class Range {
 public:
#if EINFIELD_NVTX
  explicit Range(const char* name) noexcept {
    nvtxRangePushA(name);
  }
  ~Range() {
    nvtxRangePop();
  }
#else
  explicit Range(const char*) noexcept {}
  ~Range() {}  // not trivial, so that an object is never an unused variable
#endif
  Range(const Range&) = delete;
  Range& operator=(const Range&) = delete;
};

}  // namespace einfield::cuda
