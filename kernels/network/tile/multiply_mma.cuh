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

#include <type_traits>

#include "einfield/network.hpp"
#include "kernels/network/tile/ring.cuh"

namespace einfield::cuda::tensor {

// Lane 4g + q holds, of A (16 × 8): rows g and g + 8, columns q and q + 4; of B (8 × 8): rows q and q + 4, column g; of
// the sums (16 × 8): rows g and g + 8, columns 2q and 2q + 1. Which number stands for which row, column or term of a
// sum is the caller's choice, as long as both operands agree.

/// x = big + small: big is x rounded to 11 significant bits (nearest, ties away from zero), the rest is exact and has
/// at most 12 bits and a sign; its last bit the units ignore.
///
/// In integers: sign and magnitude stand side by side, so half a unit of the last kept place, 2¹², added to the bits
/// grows the magnitude, and a carry into the exponent is the rounding up to the next power of two. Clearing what lies
/// below completes the rounding: for every finite x the bits of cvt.rna.tf32, which are three instructions more on
/// sm_80 to sm_120, and whose low 13 bits PTX leaves undefined. Infinity stays, and a NaN may turn into a finite big,
/// but small = x − big is then a NaN and reaches the sum.
__device__ __forceinline__ void split(float x, unsigned& big, unsigned& small) {
  big = (__float_as_uint(x) + 0x1000u) & 0xffffe000u;
  small = __float_as_uint(x - __uint_as_float(big));
}

/// What a lane holds of an operand, split; kMath = tf32 has no small parts.
template <NetworkMath kMath, int kCount>
struct Operand {
  static constexpr bool kExact = kMath == NetworkMath::tf32x3;
  unsigned big[kCount], small[kExact ? kCount : 1];

  __device__ __forceinline__ void set(int i, float x) {
    if constexpr (kExact) {
      split(x, big[i], small[i]);
    } else {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
      asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(big[i]) : "f"(x));
#else
      big[i] = small[0] = 0;  // never runs: refused before
#endif
    }
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

namespace einfield::cuda::tiled {

/// Two adjacent numbers, 8 bytes in one access.
__device__ __forceinline__ float2 load_pair(const float* p) {
  return *reinterpret_cast<const float2*>(p);
}
__device__ __forceinline__ void store_pair(float* p, float x, float y) {
  asm volatile("st.shared.v2.f32 [%0], {%1, %2};" ::"r"(shared_address(p)), "f"(x), "f"(y) : "memory");
}

/// f(first, count) for all of a warp's fragments along the channels, `columns` being those of the block from the warp's
/// first one on: constants, so that they share the fragments of the other operand. Of few channels one after the other.
template <class F>
__device__ __forceinline__ void for_columns(int columns, F f) {
  using One = std::integral_constant<int, 1>;
  using Three = std::integral_constant<int, 3>;
  static_assert(Fragments::kColumns == 4);
  if (columns > 2 * kWarps) {
    f(0, Three{});
    if (columns > 3 * kWarps) f(3, One{});
  } else {
    f(0, One{});
    if (columns > kWarps) f(1, One{});
  }
}

/// 8 rows of a product, for all points and the warp's channels. The numbers of a lane are neighbors, and a half of a
/// warp meets every bank once: A is 16 points × 8 rows, points 2g and 2g + 1 the fragment's rows g and g + 8, terms q
/// and q + 4 of the sum rows k = 2q and 2q + 1 (at a pitch of 4 mod 8 numbers, rows 2q begin in banks 8q mod 32); B the
/// packed weights, in lanes' order.
template <class T>
__device__ __forceinline__ void multiply_rows(float (&acc)[Fragments::kColumns][T::kGroups][4], const float* x,
                                              const float* w, int columns) {
  for_columns(columns, [&](int first, auto count) {
    constexpr int kCount = decltype(count)::value;
    tensor::Operand<T::kMath, 2> b[kCount];
#pragma unroll
    for (int c = 0; c < kCount; ++c) {
      const float2 pair = load_pair(w + (first + c) * 2 * kThreads);
      b[c].set(0, pair.x);
      b[c].set(1, pair.y);
    }
#pragma unroll
    for (int m = 0; m < T::kGroups; ++m) {
      tensor::Operand<T::kMath, 4> a;
      const float2 even = load_pair(x + m * Fragments::kHeight),
                   odd = load_pair(x + T::kPitch + m * Fragments::kHeight);
      a.set(0, even.x);
      a.set(1, even.y);
      a.set(2, odd.x);
      a.set(3, odd.y);
      tensor::multiply_add<T::kMath, kCount>([&](int c) -> float(&)[4] { return acc[first + c][m]; }, a, b);
    }
  });
}

/// As multiply(), and with the same promises, but that the complete sums are in `out`.
template <class T>
__device__ __forceinline__ void multiply_fragments(const float* in, float* out, const Layer& layer, int pass, int rows,
                                                   Ring<T>& ring) {
  const int thread = forget(threadIdx.x), warp = thread / 32, g = thread % 32 / 4, q = thread % 4;
  const int columns = layer.groups - warp;
  float acc[Fragments::kColumns][T::kGroups][4] = {};
  const float* x = in + 2 * q * T::kPitch + 2 * g;
#pragma unroll 1
  for (; rows > 0; rows -= T::kStageRows) {
    const float* w = ring.next();
    if (columns <= 0) continue;
    const float* const end = w + min(rows, T::kStageRows) * T::kWeightPitch;
#pragma unroll 1
    for (; w != end; w += Fragments::kDepth * T::kWeightPitch, x += Fragments::kDepth * T::kPitch)
      multiply_rows<T>(acc, x, w, columns);
  }
  const int first = pass * T::kChannels * layer.groups;
  float* row = out + (first + Fragments::kWidth * warp + 2 * q) * T::kPitch + 2 * g;
#pragma unroll
  for (int c = 0; c < Fragments::kColumns; ++c, row += kWarps * Fragments::kWidth * T::kPitch) {
    if (c * kWarps >= columns) break;
#pragma unroll
    for (int m = 0; m < T::kGroups; ++m)
#pragma unroll
      for (int i = 0; i < 2; ++i)
        store_pair(row + i * T::kPitch + m * Fragments::kHeight, acc[c][m][i], acc[c][m][i + 2]);
  }
  __syncthreads();
}

/// Row or column of a gradient for index i of a fragment: four of them 2 rows of a buffer apart begin in four different
/// groups of 8 banks.
__host__ __device__ constexpr int spread(int i) {
  return 2 * (i % 4) + i / 4;
}

/// 8 points of a gradient, for `rows` eights of rows i and the warp's columns o. x, y: the lane's first numbers of `in`
/// and `out`.
template <class T>
__device__ __forceinline__ void multiply_points(float (&acc)[T::kGradIn][T::kGradOut], const float* x, const float* y,
                                                int rows, int columns) {
  constexpr int kEight = Fragments::kWidth * T::kPitch;
  for_columns(columns, [&](int first, auto count) {
    constexpr int kCount = decltype(count)::value;
    tensor::Operand<T::kMath, 2> b[kCount];
#pragma unroll
    for (int c = 0; c < kCount; ++c) {
      const float2 pair = load_pair(y + (first + c) * kWarps * kEight);
      b[c].set(0, pair.x);
      b[c].set(1, pair.y);
    }
#pragma unroll
    for (int m = 0; m < Fragments::kRows; ++m) {
      if (2 * m >= rows) break;
      tensor::Operand<T::kMath, 4> a;
#pragma unroll
      for (int half = 0; half < 2; ++half) {  // rows that are not there count as zero
        float2 pair{};
        if (2 * m + half < rows) pair = load_pair(x + (2 * m + half) * kEight);
        a.set(half, pair.x);
        a.set(half + 2, pair.y);
      }
      tensor::multiply_add<T::kMath, kCount>(
          [&](int c) -> float(&)[4] { return acc[(first + c) * Fragments::kRows + m]; }, a, b);
    }
  });
}

/// Where a warp's fragments of a gradient lie in the matrix.
struct GradientPart {
  int first_row, rows;  // eights of rows: first, and how many from there on to the end of the matrix or of the pass
  int first_column, columns;  // eights of columns: first, and how many from there on to the end of the matrix
  __host__ __device__ GradientPart(const Layer& layer, int pass, int warp) {
    const int row_passes = (layer.grad_in + 2 * layer.grad_items - 1) / (2 * layer.grad_items);
    first_row = 2 * layer.grad_items * (pass % row_passes);
    rows = layer.grad_in - first_row < 2 * layer.grad_items ? layer.grad_in - first_row : 2 * layer.grad_items;
    first_column = Fragments::kColumns * kWarps * (pass / row_passes) + warp;
    columns = layer.grad_out - first_column;
  }
  /// Whether the sums of a slot (column by column, kRows each) stand for anything.
  __host__ __device__ bool has(int slot) const {
    return 2 * (slot % Fragments::kRows) < rows && slot / Fragments::kRows * kWarps < columns;
  }
};

/// Without fragments every sum is kept.
struct WholeGradient {
  __device__ constexpr bool has(int) const { return true; }
};

/// As multiply_gradient().
template <class T>
__device__ __forceinline__ void multiply_gradient_fragments(float (&acc)[T::kGradIn][T::kGradOut], const float* in,
                                                            const float* out, int vectors, const Layer& layer,
                                                            int pass) {
  const int thread = forget(threadIdx.x), lane = thread % 32, row = spread(lane / 4);
  const GradientPart part(layer, pass, thread / 32);
  if (part.columns <= 0) return;
  const float* x = in + (part.first_row * Fragments::kWidth + row) * T::kPitch + lane % 4 * 2;
  const float* y = out + (part.first_column * Fragments::kWidth + row) * T::kPitch + lane % 4 * 2;
  int points = vectors * T::kVector;
#pragma unroll 1
  for (; points > 0; points -= Fragments::kDepth, x += Fragments::kDepth, y += Fragments::kDepth)
    multiply_points<T>(acc, x, y, forget(part.rows), forget(part.columns));
}

}  // namespace einfield::cuda::tiled
