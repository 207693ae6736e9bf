// Products of single-precision numbers on the matrix units: fragments of mma.sync m16n8k8 with operands of TF32.
// TF32 keeps 11 significant bits. Two of them hold a number to 2⁻²⁴, and three products the product of two numbers:
//
//     x = big(x) + small(x),   x y = small(x) big(y) + big(x) small(y) + big(x) big(y) + O(2⁻²² x y)              (1)
//
// Ootomo & Yokota (2022, "Recovering single precision accuracy from Tensor Cores while surpassing the FP32 theoretical
// peak performance"): the units cut off what does not fit an accumulator instead of rounding it, a bias that grows with
// the number of steps. So the terms of (1) go, small ones first, into a sum of their own over 8 terms, which the
// fp32 units add to the total.
#pragma once

#include "einfield/network.hpp"

namespace einfield::cuda::tensor {

// Lane 4g + q holds, of A (16 × 8): rows g and g + 8, columns q and q + 4; of B (8 × 8): rows q and q + 4, column g; of
// the sums (16 × 8): rows g and g + 8, columns 2q and 2q + 1. Which number stands for which row, column or term of a
// sum is the caller's choice, as long as both operands agree.

/// What a lane holds of an operand, split; kMath = tf32 has no small parts.
template <NetworkMath kMath, int kCount>
struct Operand {
  static constexpr bool kExact = kMath == NetworkMath::tf32x3;
  unsigned big[kCount], small[kExact ? kCount : 1];

  /// big is rounded, so that small has at most 12 bits and a sign; its last bit the units ignore.
  __device__ __forceinline__ void set(int i, float x) {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
    if constexpr (kExact)
      asm("cvt.rna.tf32.f32 %0, %2; sub.f32 %1, %2, %0;" : "=&r"(big[i]), "=r"(small[i]) : "f"(x));
    else
      asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(big[i]) : "f"(x));
#else
    big[i] = small[kExact ? i : 0] = 0;  // never runs: refused before
#endif
  }
};

/// sums = A B + start.
__device__ __forceinline__ void mma(float (&sums)[4], const unsigned (&a)[4], const unsigned (&b)[2],
                                    const float (&start)[4]) {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
  asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%10, %11, %12, %13};"
      : "=f"(sums[0]), "=f"(sums[1]), "=f"(sums[2]), "=f"(sums[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "f"(start[0]), "f"(start[1]), "f"(start[2]),
        "f"(start[3]));
#else
  for (int i = 0; i < 4; ++i) sums[i] = start[i];
#endif
}

/// sums(c) += A B_c for kCount fragments side by side. Products of one kind for all fragments before the next kind: the
/// units work on several at a time.
template <NetworkMath kMath, int kCount, class Sums>
__device__ __forceinline__ void multiply_add(Sums sums, const Operand<kMath, 4>& a,
                                             const Operand<kMath, 2> (&b)[kCount]) {
  if constexpr (kMath == NetworkMath::tf32x3) {
    float part[kCount][4];
    const float zero[4] = {};
#pragma unroll
    for (int c = 0; c < kCount; ++c) mma(part[c], a.small, b[c].big, zero);
#pragma unroll
    for (int c = 0; c < kCount; ++c) mma(part[c], a.big, b[c].small, part[c]);
#pragma unroll
    for (int c = 0; c < kCount; ++c) mma(part[c], a.big, b[c].big, part[c]);
#pragma unroll
    for (int c = 0; c < kCount; ++c)
#pragma unroll
      for (int i = 0; i < 4; ++i) sums(c)[i] += part[c][i];
  } else {
#pragma unroll
    for (int c = 0; c < kCount; ++c) mma(sums(c), a.big, b[c].big, sums(c));
  }
}

}  // namespace einfield::cuda::tensor
