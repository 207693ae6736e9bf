// Sums over the threads of a block that share a row, a channel or a point.
#pragma once

#include "kernels/network/tile/layout.cuh"

namespace einfield::cuda::tiled {

/// A buffer row's sum over the points of the tile.
template <class T, class Real = typename T::Real>
__device__ __forceinline__ Real row_sum(const Real* row) {
  Real sum = 0;
#pragma unroll 4
  for (int px = 0; px < T::kPoints; px += T::kVector) {
    const Pack<Real> v = Pack<Real>::load(row + px);
#pragma unroll
    for (int i = 0; i < T::kVector; ++i) sum += v.v[i];
  }
  return sum;
}

// Each thread writes its terms to cells that no other thread uses, in vectors of adjacent lanes. After a barrier, one
// thread adds the terms in order.

/// Sets sums to zero, so that threads without channels do not keep old ones in registers, which fragments need.
template <class T, int kCount, class Real = typename T::Real>
__device__ __forceinline__ void forget_sums(Real (&sums)[kCount]) {
  if constexpr (T::kFragments)
#pragma unroll
    for (Real& sum : sums) sum = 0;
}

/// Up to four sums of a channel over the own points, into the own cells of its row.
template <class T, class Real = typename T::Real>
__device__ __forceinline__ void put_channel_sums(const Real (&sums)[4], Real* own_cells) {
#pragma unroll
  for (int q = 0; q < 4 / T::kVector; ++q) {
    Pack<Real> v;
#pragma unroll
    for (int i = 0; i < T::kVector; ++i) v.v[i] = sums[q * T::kVector + i];
    v.store_shared(own_cells + q * T::kChunkStride);
  }
}
/// Sum number s of put_channel_sums() over all points.
template <class T, class Real = typename T::Real>
__device__ __forceinline__ Real channel_sum(const Real* row, int s) {
  Real sum = 0;
#pragma unroll
  for (int split = 0; split < kSplit; ++split)
#pragma unroll
    for (int px = 0; px < T::kGroups; ++px)
      sum += row[split * T::kHalf + (s / T::kVector) * T::kChunkStride + px * T::kVector + s % T::kVector];
  return sum;
}

/// kCount numbers of a thread into an area of kThreads · kCount.
template <class T, int kCount, class Real = typename T::Real>
__device__ __forceinline__ void put_own(const Real (&numbers)[kCount], Real* area) {
#pragma unroll
  for (int q = 0; q < kCount / T::kVector; ++q) {
    Pack<Real> v;
#pragma unroll
    for (int i = 0; i < T::kVector; ++i) v.v[i] = numbers[q * T::kVector + i];
    v.store_shared(area + (q * kThreads + static_cast<int>(threadIdx.x)) * T::kVector);
  }
}
/// What the threads put for channel j of a group, one number per channel, added over all points.
template <class T, class Real = typename T::Real>
__device__ __forceinline__ Real own_channel_sum(const Real* area, int j, int group) {
  Real sum = 0;
#pragma unroll
  for (int split = 0; split < kSplit; ++split)
#pragma unroll
    for (int px = 0; px < T::kGroups; ++px)
      sum += area[((j / T::kVector) * kThreads + split * kItems + T::item_of(group, px)) * T::kVector + j % T::kVector];
  return sum;
}
/// What the threads put for a point, one number per own point, added over the groups of channels.
template <class T, class Real = typename T::Real>
__device__ __forceinline__ Real own_point_sum(const Real* area, int px, int groups) {
  const int split = px / T::kHalf, c = px % T::kHalf / T::kChunkStride;
  const int pixel_group = px % T::kChunkStride / T::kVector;
  const Real* term = area + (c * kThreads + split * kItems) * T::kVector + px % T::kVector;
  Real sum = 0;
  for (int group = 0; group < groups; ++group) sum += term[T::item_of(group, pixel_group) * T::kVector];
  return sum;
}

}  // namespace einfield::cuda::tiled
