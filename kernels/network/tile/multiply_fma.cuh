// Products of a layer, and gradients of a matrix, by multiply-adds in register tiles.
#pragma once

#include "kernels/network/tile/ring.cuh"

namespace einfield::cuda::tiled {

/// acc[j][i] = Σ_k W[k][channel j] · in[k][point i] for this thread's register tile, over `rows` rows of stages. The
/// points come as own chunks, then the partner's. On return the halves have exchanged their sums through `out` (rows of
/// this pass), and the first kOwn chunks of acc are complete. Every thread may then write its own cells of `out` and
/// the idle stage, and `in` where this was the last pass.
template <class T, class Real = typename T::Real>
__device__ __forceinline__ void multiply(Real (&acc)[T::kChannels][T::kPixels], const Real* in, Real* out,
                                         const Layer& layer, int pass, int rows, Ring<T>& ring, const Place<T>& place) {
  constexpr int V = T::kVector, kWeightPitch = T::kWeightPitch;
  const int groups = layer.groups;
  const bool active = place.group < groups;
#pragma unroll
  for (int j = 0; j < T::kChannels; ++j)
#pragma unroll
    for (int i = 0; i < T::kPixels; ++i) acc[j][i] = 0;

  const Real* x_own = in + place.split * kUnroll * T::kPitch + place.own;
  const Real* x_other = in + place.split * kUnroll * T::kPitch + place.other;
#pragma unroll 1
  for (; rows > 0; rows -= T::kStageRows) {
    const Real* w = ring.next();
    if (!active) continue;
    const Real* const end = w + min(rows, T::kStageRows) * kWeightPitch;
#pragma unroll 1
    do {
#pragma unroll(T::kNarrow ? 1 : kUnroll)  // two rows at a time would take registers that narrow tiles lack
      for (int k = 0; k < kUnroll; ++k) {
        Pack<Real> x[T::kChunks], y[T::kChannels / V];
#pragma unroll
        for (int c = 0; c < T::kOwn; ++c) {
          x[c] = Pack<Real>::load(x_own + k * T::kPitch + c * T::kChunkStride);
          x[T::kOwn + c] = Pack<Real>::load(x_other + k * T::kPitch + c * T::kChunkStride);
        }
#pragma unroll
        for (int q = 0; q < T::kChannels / V; ++q) y[q] = Pack<Real>::load(w + k * kWeightPitch + q * V);
#pragma unroll
        for (int j = 0; j < T::kChannels; ++j)
#pragma unroll
          for (int i = 0; i < T::kPixels; ++i) acc[j][i] = fma(y[j / V].v[j % V], x[i / V].v[i % V], acc[j][i]);
      }
      x_own += kUnit * T::kPitch;
      x_other += kUnit * T::kPitch;
      w += kUnit * kWeightPitch;
    } while (w != end);
  }

  // Exchange: the partner's chunks go to their place in `out`, mine come from there.
  if (active) {
    Real* row = out + (pass * T::kChannels * groups + place.group) * T::kPitch + place.other;
#pragma unroll
    for (int j = 0; j < T::kChannels; ++j, row += groups * T::kPitch) {
#pragma unroll
      for (int c = 0; c < T::kOwn; ++c) {
        Pack<Real> v;
#pragma unroll
        for (int i = 0; i < V; ++i) v.v[i] = acc[j][(T::kOwn + c) * V + i];
        v.store_shared(row + c * T::kChunkStride);
      }
    }
  }
  __syncthreads();
  const Real* mine = out + (pass * T::kChannels * groups + place.group) * T::kPitch + place.own;
  if (active) {
#pragma unroll
    for (int j = 0; j < T::kChannels; ++j, mine += groups * T::kPitch) {
#pragma unroll
      for (int c = 0; c < T::kOwn; ++c) {
        const Pack<Real> v = Pack<Real>::load(mine + c * T::kChunkStride);
#pragma unroll
        for (int i = 0; i < V; ++i) acc[j][c * V + i] += v.v[i];
      }
    }
  }
}

/// acc[a][b] += Σ_px in[i_a][px] · out[o_b][px] over this thread's share of `vectors` vectors of points: rows i_a
/// consecutive, rows o_b grad_out apart (consecutive lanes take consecutive rows: no bank conflict). In narrow tiles
/// both are kMaxGroups apart.
template <class T, class Real = typename T::Real>
__device__ __forceinline__ void multiply_gradient(Real (&acc)[T::kGradIn][T::kGradOut], const Real* in, const Real* out,
                                                  int vectors, const Layer& layer, int pass) {
  constexpr int V = T::kVector;
  const int items = T::kNarrow ? T::kGradItems : layer.grad_items;
  const int ways = T::kNarrow ? kThreads / T::kGradItems : layer.grad_ways;
  const int columns = T::kNarrow ? T::kMaxGroups : layer.grad_out;
  const int thread = thread_again<T>(), way = thread / items, item = pass * kThreads + thread % items;
  const int column = item % columns, row = item / columns;
  if (!T::kNarrow && (row >= layer.grad_in || way >= ways)) return;
  const int share = (vectors + ways - 1) / ways, first = way * share;
  constexpr int kRowStep = T::kNarrow ? T::kMaxGroups : 1;  // of a thread's rows
  const Real* x = in + row * (T::kNarrow ? 1 : T::kGradIn) * T::kPitch + first * V;
  // Rows a constant number apart need one address.
  constexpr int kAddresses = T::kNarrow ? 1 : T::kGradOut;
  const Real* y[kAddresses];
#pragma unroll
  for (int b = 0; b < kAddresses; ++b) y[b] = out + (column + b * columns) * T::kPitch + first * V;
#pragma unroll 1
  for (int left = min(share, vectors - first); left > 0; --left, x += V) {
    Pack<Real> q[T::kGradOut];
#pragma unroll
    for (int b = 0; b < T::kGradOut; ++b)
      q[b] = Pack<Real>::load(T::kNarrow ? y[0] + b * T::kMaxGroups * T::kPitch : y[b % kAddresses]);
#pragma unroll
    for (int b = 0; b < kAddresses; ++b) y[b] += V;
#pragma unroll
    for (int a = 0; a < T::kGradIn; ++a) {
      const Pack<Real> p = Pack<Real>::load(x + a * kRowStep * T::kPitch);
#pragma unroll
      for (int i = 0; i < V; ++i)
#pragma unroll
        for (int b = 0; b < T::kGradOut; ++b) acc[a][b] = fma(p.v[i], q[b].v[i], acc[a][b]);
    }
  }
}

}  // namespace einfield::cuda::tiled
