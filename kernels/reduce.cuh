// Sums in a fixed order: within a warp, a block and, by the block that finishes last, a grid. No floating-point
// atomics, so the same input gives the same bits. The last-block scheme is that of the CUDA guide
// (threadFenceReduction).
#pragma once

#include "kernels/check.cuh"

namespace einfield::cuda {

/// Sum over the lanes of a full warp, the same in every lane.
template <class T>
__device__ T warp_sum(T value) {
  for (int step = 16; step > 0; step /= 2) value += __shfl_xor_sync(0xffffffffu, value, step);
  return value;
}

/// Sums over a block of kThreads threads, the same in every thread. Every thread must call; `values` are overwritten.
template <int kCount, class T>
__device__ void block_sum(T (&values)[kCount]) {
  __shared__ T parts[kThreads / 32][kCount];
#pragma unroll
  for (int k = 0; k < kCount; ++k) values[k] = warp_sum(values[k]);
  __syncthreads();  // the parts of an earlier call have been read
  if (threadIdx.x % 32 == 0) {
#pragma unroll
    for (int k = 0; k < kCount; ++k) parts[threadIdx.x / 32][k] = values[k];
  }
  __syncthreads();
#pragma unroll
  for (int k = 0; k < kCount; ++k) {
    values[k] = parts[0][k];
    for (int warp = 1; warp < kThreads / 32; ++warp) values[k] += parts[warp][k];
  }
}

/// True in every thread of the block that gets here last of `blocks`; what the others wrote before is visible to it
/// through __ldcg. Every thread must call. `ticket` is 0 before the launch and 0 again after it.
__device__ inline bool is_last_block(unsigned* ticket, unsigned blocks) {
  __shared__ bool last;
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) {
    last = atomicInc(ticket, blocks - 1) == blocks - 1;
    __threadfence();
  }
  __syncthreads();
  return last;
}

/// Blocks of kThreads for n elements; capped, so that the partial sums stay few: a block takes every blocks-th
/// chunk.
inline unsigned sum_blocks(int n) {
  constexpr int kMaxBlocks = 512;
  const int blocks = (n + kThreads - 1) / kThreads;
  return static_cast<unsigned>(blocks < kMaxBlocks ? (blocks > 0 ? blocks : 1) : kMaxBlocks);
}

}  // namespace einfield::cuda
