// The forward kernel: ψ and α = ∇ψ.
#pragma once

#include "kernels/network/tile/activation.cuh"
#include "kernels/network/tile/block_sums.cuh"
#include "kernels/network/tile/product.cuh"

namespace einfield::cuda::tiled {

/// Loads the scaled points of a tile, and zeros where its sums of ψ and α will be.
template <class T, class Real = typename T::Real>
__device__ __forceinline__ void load_points(const Network<Real>& net, int first_point, int valid, const Real* positions,
                                            Real* point_data) {
  const int thread = thread_again<T>(), system = net.system();
#pragma unroll 1
  for (int i = thread; i < 5 * T::kPoints; i += kThreads) {
    const int what = i / T::kPoints, px = i % T::kPoints, row = system * net.position_rows + what;
    point_data[i] = what < 2 && px < valid
                        ? net.scale * positions[static_cast<std::size_t>(row) * net.points + first_point + px]
                        : Real(0);
  }
}

/// ψ of a pass over the last layer at the thread's own points: one vector of h, with the weight w of its channel.
template <class T, class Real = typename T::Real>
__device__ __forceinline__ void add_psi(Real (&psi_own)[T::kOwn * T::kVector], const Pack<Real>& h, const Cell& cell,
                                        Real w) {
  constexpr int V = T::kVector;
#pragma unroll
  for (int i = 0; i < V; ++i) psi_own[cell.c * V + i] = fma(w, h.v[i], cell.j == 0 ? Real(0) : psi_own[cell.c * V + i]);
}
/// Adds what the threads have of a pass to the block's sums of ψ, by way of `area`.
template <class T, class Real = typename T::Real>
__device__ __forceinline__ void sum_psi(const Real (&psi_own)[T::kOwn * T::kVector], Real* area, int groups,
                                        Real* psi_sums) {
  put_own<T>(psi_own, area);
  __syncthreads();
  for (int px = thread_again<T>(); px < T::kPoints; px += kThreads) psi_sums[px] += own_point_sum<T>(area, px, groups);
}

/// α of a pass over the first layer at the thread's own points: one vector of g₁.
template <class T, class Real = typename T::Real>
__device__ __forceinline__ void add_alpha(Real (&alpha_own)[2][T::kOwn * T::kVector], const Pack<Real>& g,
                                          const Cell& cell, const Constants<Real>& k) {
  constexpr int V = T::kVector;
#pragma unroll
  for (int i = 0; i < V; ++i)
#pragma unroll
    for (int axis = 0; axis < 2; ++axis) {
      Real& sum = alpha_own[axis][cell.c * V + i];
      sum = fma(axis == 0 ? k.w_x : k.w_y, g.v[i], cell.j == 0 ? Real(0) : sum);
    }
}
/// Adds what the threads have of a pass to the block's sums of α, by way of the own cells of two rows of `area`.
template <class T, class Real = typename T::Real>
__device__ __forceinline__ void sum_alpha(const Real (&alpha_own)[2][T::kOwn * T::kVector], Real* area, int groups,
                                          int pass, const Place<T>& place, Real* alpha_sums) {
  constexpr int V = T::kVector;
  area += pass * T::kChannels * groups * T::kPitch;
  const Place<T> here = place_again(place);
  if (here.group < groups) {
#pragma unroll
    for (int axis = 0; axis < 2; ++axis)
#pragma unroll
      for (int c = 0; c < T::kOwn; ++c) {
        Pack<Real> v;
#pragma unroll
        for (int i = 0; i < V; ++i) v.v[i] = alpha_own[axis][c * V + i];
        v.store_shared(area + (axis * groups + here.group) * T::kPitch + here.own + c * T::kChunkStride);
      }
  }
  __syncthreads();
  for (int i = thread_again<T>(); i < 2 * T::kPoints; i += kThreads) {
    const Real* term = area + i / T::kPoints * groups * T::kPitch + i % T::kPoints;
    Real sum = alpha_sums[i];
    for (int group = 0; group < groups; ++group) sum += term[group * T::kPitch];
    alpha_sums[i] = sum;
  }
}

/// h and g = w∘s′(a) of a single layer from its a, which h holds before.
template <bool kEncoded, class Real>
__device__ __forceinline__ void finish_single_layer(Pack<Real>& h, Pack<Real>& g, Real w) {
#pragma unroll
  for (int i = 0; i < static_cast<int>(sizeof(h.v) / sizeof(Real)); ++i) {
    if constexpr (kEncoded) {
      g.v[i] = w * slope_of<true>(h.v[i]);
      h.v[i] = value_of<true>(h.v[i]);
    } else {
      const Activation<Real> s = activate(h.v[i]);
      h.v[i] = s.value;
      g.v[i] = w * s.first();
    }
  }
}

/// h of a layer below the last from the sums of its product; with kKeep also s′(a), for the way down.
template <class T, bool kKeep, class Real = typename T::Real>
__device__ __forceinline__ void finish_value(const typename T::Sums& acc, const Layer& layer, int pass,
                                             const Share& own, const Constants<Real>* constants, Real* tape_a,
                                             Real* out, Real* kept) {
  using Vector = Pack<Real>;
  for_sums<T>(acc, layer, pass, own, constants, [&](Vector a, const Cell& cell, const Constants<Real>& k) {
    Vector h, first;
#pragma unroll
    for (int i = 0; i < T::kVector; ++i) {
      a.v[i] += k.bias;
      const Activation<Real> s = activate(a.v[i]);
      h.v[i] = s.value;
      first.v[i] = s.first();
    }
    a.store(tape_a + cell.at);
    h.store_shared(out + cell.offset);
    if constexpr (kKeep) first.store_shared(kept + cell.at);
  });
}

/// ψ at the thread's own points and g = w∘s′(a) of the last layer from the sums of its product.
template <class T, class Real = typename T::Real>
__device__ __forceinline__ void finish_last_value(const typename T::Sums& acc, const Layer& layer, int pass,
                                                  const Share& own, const Constants<Real>* constants, Real* tape_a,
                                                  Real* out, Real (&psi_own)[T::kOwn * T::kVector]) {
  using Vector = Pack<Real>;
  forget_sums<T>(psi_own);
  for_sums<T>(acc, layer, pass, own, constants, [&](Vector a, const Cell& cell, const Constants<Real>& k) {
    Vector h, g;
#pragma unroll
    for (int i = 0; i < T::kVector; ++i) {
      a.v[i] += k.bias;
      const Activation<Real> s = activate(a.v[i]);
      h.v[i] = s.value;
      g.v[i] = k.output * s.first();
    }
    a.store(tape_a + cell.at);
    add_psi<T>(psi_own, h, cell, k.output);
    g.store_shared(out + cell.offset);
  });
}

/// g = s′(a)∘p of a layer above the first from the sums of its product, p; with kKept, s′(a) is what finish_value()
/// kept.
template <class T, bool kKept, class Real = typename T::Real>
__device__ __forceinline__ void finish_gradient(const typename T::Sums& acc, const Layer& layer, int pass,
                                                const Share& own, const Constants<Real>* constants, const Real* tape_a,
                                                Real* tape_p, Real* out, const Real* kept) {
  using Vector = Pack<Real>;
  for_sums<T>(acc, layer, pass, own, constants, [&](const Vector& p, const Cell& cell, const Constants<Real>&) {
    p.store(tape_p + cell.at);
    Vector g;
    if constexpr (kKept) {
      g = Vector::load(kept + cell.at);
    } else {
      g = Vector::load(tape_a + cell.at);
#pragma unroll
      for (int i = 0; i < T::kVector; ++i) g.v[i] = activate(g.v[i]).first();
    }
#pragma unroll
    for (int i = 0; i < T::kVector; ++i) g.v[i] *= p.v[i];
    g.store_shared(out + cell.offset);
  });
}

/// Writes ψ and α of a tile. The threads that added the sums of a point read them again.
template <class T, class Real = typename T::Real>
__device__ __forceinline__ void write_fields(const Network<Real>& net, int first_point, int valid, const Real* psi_sums,
                                             const Real* alpha_sums, const Real* all_parameters, std::size_t stride,
                                             Real* psi, Real* alpha) {
  const int thread = thread_again<T>(), system = net.system();
  for (int px = thread; px < valid; px += kThreads)
    psi[static_cast<std::size_t>(system) * net.points + first_point + px] =
        psi_sums[px] + all_parameters[system * stride + net.last_bias];
  for (int i = thread; i < 2 * T::kPoints; i += kThreads) {
    const int axis = i / T::kPoints, px = i % T::kPoints;
    if (px < valid)
      alpha[(static_cast<std::size_t>(system) * 2 + axis) * net.points + first_point + px] = net.scale * alpha_sums[i];
  }
}

/// ψ and α of all points; writes the tape. x: blocks that share the tiles of a system, y: system. kEncoded: layer 0 is
/// that of Fourier features.
template <class T, bool kEncoded>
__global__ void __launch_bounds__(kThreads, T::kBlocks)
    network_kernel(const __grid_constant__ Network<typename T::Real> net, const typename T::Real* all_parameters,
                   std::size_t stride, const typename T::Real* positions, typename T::Real* psi,
                   typename T::Real* alpha) {
  using Real = typename T::Real;
  using Vector = Pack<Real>;
  using K = Constants<Real>;
  using Sums = typename T::Sums;
  constexpr int V = T::kVector, kOwnPoints = T::kOwn * V;
  extern __shared__ __align__(16) unsigned char memory[];
  const Shared<T> shared(memory, net);
  const Place<T> place(threadIdx.x);
  const int thread = threadIdx.x, row = blockIdx.y, last = net.layers - 1;
  const Share own_share{place.group, place.own, place.own, thread};
  const auto own = [&] { return T::kForgets ? own_share_of<T>(forget(thread)) : own_share; };
  const Real* packed = net.packed + static_cast<std::size_t>(row) * net.pack_size;
  const K* const constants = reinterpret_cast<const K*>(packed);
  Real* const point_data = shared.point;
  Real* const psi_sums = point_data + 2 * T::kPoints;
  Real* const alpha_sums = point_data + 3 * T::kPoints;  // all x, then all y
  Ring<T> ring(shared.slots, place.weights());
  shared.clear(net);

#pragma unroll 1
  for (int tile = net.first_tile(); tile < net.tiles; tile += gridDim.x) {
    const int first_point = tile * T::kPoints, valid = min(T::kPoints, net.points - first_point);
    Real* const tape =
        net.tape + (static_cast<std::size_t>(T::kNarrow ? forget(blockIdx.y) : row) * net.tiles + tile) * net.tape_size;
    __syncthreads();  // the tile before has left shared memory
    ring.start(packed + net.stream, net.stages);
    load_points<T>(net, first_point, valid, positions, point_data);
    __syncthreads();

    Real psi_own[kOwnPoints] = {}, alpha_own[2][kOwnPoints] = {};
    // Values, upwards: h_l in `current`, above the last layer g_L.
    Real *current = shared.first, *spare = shared.second;
    const Layer bottom = net.layer[0];
#pragma unroll 1
    for (int pass = 0; pass < bottom.passes; ++pass) {
      if (last > 0) {
        for_cells<T>(bottom, pass, own(), constants, [&](const Cell& cell, const K& k) {
          Vector h = first_a<T>(point_data, cell.point, k);
#pragma unroll
          for (int i = 0; i < V; ++i) h.v[i] = value_of<kEncoded>(h.v[i]);
          h.store_shared(current + cell.offset);
        });
      } else {
        for_cells<T>(bottom, pass, own(), constants, [&](const Cell& cell, const K& k) {
          Vector h = first_a<T>(point_data, cell.point, k), g;
          finish_single_layer<kEncoded>(h, g, k.output);
          add_psi<T>(psi_own, h, cell, k.output);
          add_alpha<T>(alpha_own, g, cell, k);
        });
        sum_psi<T>(psi_own, ring.idle(), bottom.groups, psi_sums);
        sum_alpha<T>(alpha_own, spare, bottom.groups, pass, place, alpha_sums);
      }
    }
#pragma unroll 1
    for (int l = 1; l <= last; ++l) {
      const Layer layer = net.layer[l];
      Real* const tape_a = tape + layer.tape_a;
      product<T>(current, spare, layer, padded_rows<T>(net.layer[l - 1].width), ring, place,
                 [&](const Sums& acc, int pass) {
                   if (l == net.kept)
                     finish_value<T, true>(acc, layer, pass, own(), constants, tape_a, spare, shared.kept);
                   else if (l < last)
                     finish_value<T, false>(acc, layer, pass, own(), constants, tape_a, spare, shared.kept);
                   else {
                     finish_last_value<T>(acc, layer, pass, own(), constants, tape_a, spare, psi_own);
                     sum_psi<T>(psi_own, ring.idle(), layer.groups, psi_sums);
                   }
                 });
      Real* swap = current;
      current = spare;
      spare = swap;
    }

    // Gradient, downwards: g_l in `current`.
#pragma unroll 1
    for (int l = last - 1; l >= 0; --l) {
      const Layer layer = net.layer[l];
      Real* const tape_p = tape + layer.tape_p;
      const Real* const tape_a = tape + layer.tape_a;
      product<T>(
          current, spare, layer, padded_rows<T>(net.layer[l + 1].width), ring, place, [&](const Sums& acc, int pass) {
            if (l == 0) {
              forget_sums<T>(alpha_own[0]);
              forget_sums<T>(alpha_own[1]);
              for_sums<T>(acc, layer, pass, own(), constants, [&](const Vector& p, const Cell& cell, const K& k) {
                if constexpr (!kEncoded) p.store(tape_p + cell.at);
                Vector g = first_a<T>(point_data, cell.point, k);
#pragma unroll
                for (int i = 0; i < V; ++i) g.v[i] = p.v[i] * slope_of<kEncoded>(g.v[i]);
                add_alpha<T>(alpha_own, g, cell, k);
              });
              sum_alpha<T>(alpha_own, spare, layer.groups, pass, place, alpha_sums);
            } else {
              if (l == net.kept)
                finish_gradient<T, true>(acc, layer, pass, own(), constants, tape_a, tape_p, spare, shared.kept);
              else
                finish_gradient<T, false>(acc, layer, pass, own(), constants, tape_a, tape_p, spare, shared.kept);
            }
          });
      Real* swap = current;
      current = spare;
      spare = swap;
    }

    write_fields<T>(net, first_point, valid, psi_sums, alpha_sums, all_parameters, stride, psi, alpha);
  }
}

}  // namespace einfield::cuda::tiled
