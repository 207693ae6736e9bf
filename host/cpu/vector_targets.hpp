// What sources that Google Highway compiles once per instruction set have in common. Before <hwy/foreach_target.h>.
#pragma once

// Arrays of vectors need vectors of known size.
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_AVX3_DL | HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128 | HWY_RVV)

// Loops over accumulators must vanish, or GCC keeps the accumulators in memory (a third of the speed).
#if defined(__clang__)
#define EINFIELD_UNROLL _Pragma("clang loop unroll(full)")
#else
#define EINFIELD_UNROLL _Pragma("GCC unroll 16")
#endif
