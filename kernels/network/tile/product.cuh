// The product of a layer, followed by the work on its sums, and a term of a gradient; by multiply-adds or on the matrix
// units.
#pragma once

#include "kernels/network/tile/multiply_fma.cuh"
#include "kernels/network/tile/multiply_mma.cuh"

namespace einfield::cuda::tiled {

/// Calls f(vector, cell, constants) for each own vector of complete sums. Sums of the matrix units lie in shared
/// memory, so their channels need not all be unrolled, which would make a third more code, unless f indexes registers
/// by cell.j.
template <class T, int kUnrollChannels = T::kFragments ? 2 : T::kChannels, class Real = typename T::Real, class F>
__device__ __forceinline__ void for_sums(const typename T::Sums& acc, const Layer& layer, int pass, const Share& own,
                                         const Constants<Real>* constants, F f) {
  if constexpr (T::kFragments) {
    const int next = layer.groups * T::kPitch;
    const Real* const first = acc + (pass * T::kChannels * layer.groups + own.group) * T::kPitch + own.column;
    Pack<Real> ahead[T::kOwn];  // of the channel to come
    if (own.group < layer.groups)
#pragma unroll
      for (int c = 0; c < T::kOwn; ++c) ahead[c] = Pack<Real>::load(first + c * T::kChunkStride);
    for_cells<T, kUnrollChannels>(layer, pass, own, constants, [&](const Cell& cell, const Constants<Real>& k) {
      const Pack<Real> v = ahead[cell.c];
      if (cell.j + 1 < T::kChannels) ahead[cell.c] = Pack<Real>::load(acc + cell.offset + next);
      f(v, cell, k);
    });
  } else {
    for_cells<T, kUnrollChannels>(layer, pass, own, constants, [&](const Cell& cell, const Constants<Real>& k) {
      Pack<Real> v;
#pragma unroll
      for (int i = 0; i < T::kVector; ++i) v.v[i] = acc[cell.j][cell.c * T::kVector + i];
      f(v, cell, k);
    });
  }
}

/// A product over all passes of `layer` (its output), from `rows` rows of `in`: finish(acc, pass) takes the sums of
/// each pass and writes the own cells of `out`; every thread calls it.
template <class T, class Real = typename T::Real, class Finish>
__device__ __forceinline__ void product(const Real* in, Real* out, const Layer& layer, int rows, Ring<T>& ring,
                                        const Place<T>& place, Finish finish) {
#pragma unroll 1
  for (int pass = 0; pass < layer.passes; ++pass) {
    if constexpr (T::kFragments) {
      multiply_fragments<T>(in, out, layer, pass, rows, ring);
      finish(out, pass);
    } else {
      typename T::Sums acc;
      multiply<T>(acc, in, out, layer, pass, rows, ring, place_again(place));
      finish(acc, pass);
    }
  }
}

/// Adds a term of a matrix's gradient, over this thread's share of `vectors` vectors of points.
template <class T, class Real = typename T::Real>
__device__ __forceinline__ void add_gradient(Real (&acc)[T::kGradIn][T::kGradOut], const Real* in, const Real* out,
                                             int vectors, const Layer& layer, int pass) {
  if constexpr (T::kFragments)
    multiply_gradient_fragments<T>(acc, in, out, vectors, layer, pass);
  else
    multiply_gradient<T>(acc, in, out, vectors, layer, pass);
}

}  // namespace einfield::cuda::tiled
