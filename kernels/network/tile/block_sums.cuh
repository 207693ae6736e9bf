// Sums over the threads of a block that share a row, a channel or a point.
#pragma once

#include "kernels/network/tile/layout.cuh"

namespace einfield::cuda::tiled {

/// The sum of one vector of a buffer row.
template <class T, class Real = typename T::Real>
__device__ __forceinline__ Real vector_sum(const Real* cells) {
  const Pack<Real> v = Pack<Real>::load(cells);
  Real sum = v.v[0];
#pragma unroll
  for (int i = 1; i < T::kVector; ++i) sum += v.v[i];
  return sum;
}
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
  if constexpr (T::kForgets)
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
/// What a thread put for channel j of a group, one number per channel: of the thread that finishes half `split` of
/// pixel group `px`.
template <class T, class Real = typename T::Real>
__device__ __forceinline__ Real own_channel_term(const Real* area, int j, int group, int split, int px) {
  return area[((j / T::kVector) * kThreads + split * kItems + T::item_of(group, px)) * T::kVector + j % T::kVector];
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

// Narrow tiles have so many points per channel that one thread would take long: kChannelLanes neighboring threads share
// a channel, then add their sums in a fixed order.

/// Calls put(channel, sum) for each of the first `channels` channels, from one thread each: the sum of term(channel, i)
/// over i < kTerms. All threads call it.
template <class T, int kTerms, class Term, class Put, class Real = typename T::Real>
__device__ __forceinline__ void sum_shared(int channels, Term term, Put put) {
  constexpr int kLanesOfOne = T::kChannelLanes;
  const int thread = forget(threadIdx.x), channel = thread / kLanesOfOne, part = thread % kLanesOfOne;
  Real sum = 0;
  if (channel < channels)
#pragma unroll 4
    for (int i = part; i < kTerms; i += kLanesOfOne) sum += term(channel, i);
#pragma unroll
  for (int offset = kLanesOfOne / 2; offset > 0; offset /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, offset);
  if (part == 0 && channel < channels) put(channel, sum);
}

/// Adds the sums of the lanes whose numbers differ in bit kMask: of kCount sums, a lane gives away one half and keeps
/// the other. @return the index of the first sum that it keeps in the end, kCount · (items of a warp) / 32 of them
template <int kMask, int kItems, int kCount, class Real>
__device__ __forceinline__ int halve_sums(Real* sums, int thread) {
  if constexpr (kMask < kItems) {
    return 0;
  } else {
    constexpr int kHalf = kCount / 2;
    const bool upper = thread & kMask;
#pragma unroll
    for (int i = 0; i < kHalf; ++i) {
      const Real given = upper ? sums[i] : sums[i + kHalf], kept = upper ? sums[i + kHalf] : sums[i];
      sums[i] = kept + __shfl_xor_sync(0xffffffffu, given, kMask);
    }
    return (upper ? kHalf : 0) + halve_sums<kMask / 2, kItems, kHalf>(sums, thread);
  }
}

/// Narrow tiles: adds up what the threads have of a matrix's gradient, first within warps, then by way of `area`, and
/// calls put(row, column, sum) for every element, padding included. `area` is free; it may be used again after the next
/// barrier.
template <class T, class Put, class Real = typename T::Real>
__device__ __forceinline__ void sum_matrix(Real (&acc)[T::kGradIn][T::kGradOut], Real* area, Put put) {
  constexpr int V = T::kVector, kItems = T::kGradItems, kSums = T::kGradIn * T::kGradOut, kSide = T::kMaxGroups;
  constexpr int kKept = kItems < 32 ? kSums * kItems / 32 : kSums;  // of a lane, after the sums within warps
  constexpr int kGroup = kItems < 32 ? 32 : kItems;                 // threads that share an area
  constexpr int kAreas = kThreads / kGroup;
  constexpr int kRoom = kSide * T::kChannels * T::kPitch;                 // of a buffer, in numbers
  constexpr int kChunks = (kAreas * kItems * kSums + kRoom - 1) / kRoom;  // a part of the sums at a time
  constexpr int kChunk = kSums / kChunks;
  static_assert(kChunks == 1 || kKept == kSums);
  Real sums[kSums];
#pragma unroll
  for (int s = 0; s < kSums; ++s) sums[s] = acc[s / T::kGradOut][s % T::kGradOut];
  const int thread = forget(threadIdx.x), item = thread % kItems;
  const int first = halve_sums<16, kItems, kSums>(sums, thread);
#pragma unroll
  for (int chunk = 0; chunk < kChunks; ++chunk) {
    __syncthreads();
    Real* const mine = area + thread / kGroup * kItems * kChunk;
#pragma unroll
    for (int s = 0; s < kKept / kChunks; s += V) {
      Pack<Real> v;
#pragma unroll
      for (int i = 0; i < V; ++i) v.v[i] = sums[chunk * kChunk + s + i];
      v.store_shared(mine + ((first + s) / V * kItems + item) * V);
    }
    __syncthreads();
    for (int n = thread; n < kItems * kChunk; n += kThreads) {
      Real sum = area[n];
#pragma unroll
      for (int of = 1; of < kAreas; ++of) sum += area[of * kItems * kChunk + n];
      const int s = chunk * kChunk + n / V / kItems * V + n % V, of_item = n / V % kItems;
      put(of_item / kSide + s / T::kGradOut * kSide, of_item % kSide + s % T::kGradOut * kSide, sum);
    }
  }
}

}  // namespace einfield::cuda::tiled
