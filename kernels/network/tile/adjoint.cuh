// The adjoint kernel: partial sums of the gradient.
#pragma once

#include "kernels/network/tile/activation.cuh"
#include "kernels/network/tile/block_sums.cuh"
#include "kernels/network/tile/product.cuh"

namespace einfield::cuda::tiled {

/// ā_L = w∘(s″(a)∘ḡ + ψ̄ s′(a))
template <class Real>
__device__ __forceinline__ Real top_a_bar(const Activation<Real>& s, Real w, Real g_bar, Real psi_bar) {
  return w * fma(s.second(), g_bar, s.first() * psi_bar);
}
/// ā = s″(a)∘p∘ḡ + s′(a)∘h̄ of a layer below the last
template <class Real>
__device__ __forceinline__ Real hidden_a_bar(const Activation<Real>& s, Real p, Real g_bar, Real h_bar) {
  return fma(s.second() * p, g_bar, s.first() * h_bar);
}

/// A block's sums of the gradient. The first tile sets them, the others add to them.
template <class Real>
struct PartialSums {
  Real* sums;
  bool touched;  // the sums hold something
  __device__ __forceinline__ void add(int index, Real value) const {
    sums[index] = touched ? sums[index] + value : value;
  }
};

/// Loads the points and the cotangents of a tile. @return whether a cotangent that this thread has loaded is not zero
template <class T, class Real = typename T::Real>
__device__ __forceinline__ bool load_cotangents(const Network<Real>& net, int first_point, int valid,
                                                const Real* positions, const Real* alpha_bar, const Real* psi_bar,
                                                Real* point_data) {
  const int system = net.system();
  bool any = false;
#pragma unroll 1
  for (int i = thread_again<T>(); i < 5 * T::kPoints; i += kThreads) {
    const int what = i / T::kPoints, px = i % T::kPoints;
    // Position, ᾱ, ψ̄: rows of `points` numbers, from one array after the other.
    const Real* const array = what < 2 ? positions : what < 4 ? alpha_bar : psi_bar;
    const int row = what < 2 ? system * net.position_rows + what : what < 4 ? system * 2 + what - 2 : system;
    Real value = 0;
    if (px < valid && array != nullptr)
      value = (what < 4 ? net.scale : Real(1)) * array[static_cast<std::size_t>(row) * net.points + first_point + px];
    any |= what >= 2 && value != 0;
    point_data[i] = value;
  }
  return any;
}

/// Gradient of the first layer, W̄₁ = ℓ g₁ᾱᵀ + ā₁uᵀ and b̄₁ = Σ ā₁: adds the terms of one vector. channel_sums: x, y, b;
/// with a single layer also w̄.
template <class T, class Real = typename T::Real>
__device__ __forceinline__ void add_first(Real (&channel_sums)[4], const Real* point_data, const Pack<Real>& g,
                                          const Pack<Real>& a_bar, const Cell& cell) {
  using Vector = Pack<Real>;
  const Vector ux = Vector::load(point_data + cell.point), uy = Vector::load(point_data + T::kPoints + cell.point);
  const Vector cx = Vector::load(point_data + 2 * T::kPoints + cell.point),
               cy = Vector::load(point_data + 3 * T::kPoints + cell.point);
#pragma unroll
  for (int i = 0; i < T::kVector; ++i) {
    const bool begin = cell.c == 0 && i == 0;
    channel_sums[0] = fma(g.v[i], cx.v[i], fma(a_bar.v[i], ux.v[i], begin ? Real(0) : channel_sums[0]));
    channel_sums[1] = fma(g.v[i], cy.v[i], fma(a_bar.v[i], uy.v[i], begin ? Real(0) : channel_sums[1]));
    channel_sums[2] = begin ? a_bar.v[i] : channel_sums[2] + a_bar.v[i];
  }
}
/// Puts the thread's sums of a channel into the own cells of `area`.
template <class T, class Real = typename T::Real>
__device__ __forceinline__ void put_first(const Real (&channel_sums)[4], Real* area, const Cell& cell) {
  if (cell.c + 1 == T::kOwn) put_channel_sums<T>(channel_sums, area + cell.offset - cell.c * T::kChunkStride);
}
/// Adds what put_first() left in `area` to the block's sums; of an encoding, w̄ only.
template <class T, bool kEncoded, class Real = typename T::Real>
__device__ __forceinline__ void sum_first(const Network<Real>& net, const Real* area, int pass, int last,
                                          const PartialSums<Real>& partial) {
  const Layer& bottom = net.layer[0];
  __syncthreads();
  const int channels = T::kChannels * bottom.groups;
  if constexpr (T::kNarrow) {
#pragma unroll 1
    for (int s = kEncoded ? 3 : 0; s < (last == 0 ? 4 : 3); ++s)
      sum_shared<T, kSplit * T::kGroups>(
          min(channels, bottom.width),
          [&](int ch, int i) {
            return area[ch * T::kPitch + i / T::kGroups * T::kHalf + i % T::kGroups * T::kVector + s];
          },
          [&](int ch, Real sum) {
            const int target = s < 2    ? net.first_partial + s * bottom.width
                               : s == 2 ? bottom.bias_partial
                                        : net.last_partial;
            partial.add(target + ch, sum);
          });
  } else {
    for (int i = threadIdx.x; i < channels; i += kThreads) {
      const int ch = pass * channels + i;
      if (ch >= bottom.width) continue;
      const Real* row = area + ch * T::kPitch;
      if constexpr (!kEncoded) {
        partial.add(net.first_partial + ch, channel_sum<T>(row, 0));
        partial.add(net.first_partial + bottom.width + ch, channel_sum<T>(row, 1));
        partial.add(bottom.bias_partial + ch, channel_sum<T>(row, 2));
      }
      if (last == 0) partial.add(net.last_partial + ch, channel_sum<T>(row, 3));
    }
  }
}

/// Adds the sums of `count` rows of a buffer, over the points, to the block's sums from `index` on.
template <class T, class Real = typename T::Real>
__device__ __forceinline__ void add_row_sums(const Real* rows, int count, int index, const PartialSums<Real>& partial) {
  if constexpr (T::kNarrow)
    sum_shared<T, T::kPoints / T::kVector>(
        count, [&](int row, int i) { return vector_sum<T>(rows + row * T::kPitch + i * T::kVector); },
        [&](int row, Real sum) { partial.add(index + row, sum); });
  else
    for (int row = threadIdx.x; row < count; row += kThreads)
      partial.add(index + row, row_sum<T>(rows + row * T::kPitch));
}

/// Adds w̄ of a pass over the last layer to the block's sums: what put_own() left in `area`.
template <class T, class Real = typename T::Real>
__device__ __forceinline__ void sum_w_bar(const Network<Real>& net, const Layer& layer, int pass, const Real* area,
                                          const PartialSums<Real>& partial) {
  __syncthreads();
  const int channels = T::kChannels * layer.groups;
  if constexpr (T::kNarrow) {
    sum_shared<T, kSplit * T::kGroups>(
        layer.width,
        [&](int ch, int i) {
          return own_channel_term<T>(area, ch / layer.groups, ch % layer.groups, i / T::kGroups, i % T::kGroups);
        },
        [&](int ch, Real sum) { partial.add(net.last_partial + ch, sum); });
  } else {
    for (int i = threadIdx.x; i < channels; i += kThreads) {
      const int ch = pass * channels + i;
      if (ch < layer.width)
        partial.add(net.last_partial + ch, own_channel_sum<T>(area, i / layer.groups, i % layer.groups));
    }
  }
}

/// ḡ and p̄ = s′(a)∘ḡ of a layer below the last from the sums of its product, ḡ.
template <class T, class Real = typename T::Real>
__device__ __forceinline__ void finish_p_bar(const typename T::Sums& acc, const Layer& layer, int pass,
                                             const Share& own, const Constants<Real>* constants, const Real* tape_a,
                                             Real* g_bar, Real* out) {
  using Vector = Pack<Real>;
  for_sums<T>(acc, layer, pass, own, constants, [&](Vector g, const Cell& cell, const Constants<Real>&) {
    const Vector a = Vector::load(tape_a + cell.at);
    g.store(g_bar + cell.at);
#pragma unroll
    for (int i = 0; i < T::kVector; ++i) g.v[i] *= activate(a.v[i]).first();
    g.store_shared(out + cell.offset);
  });
}

/// h of the layer below into `out`, for its product with ā.
template <class T, bool kEncoded, class Real = typename T::Real>
__device__ __forceinline__ void put_value(const Layer& below, bool first, const Share& own,
                                          const Constants<Real>* constants, const Real* point_data, const Real* tape_a,
                                          int pass, Real* out) {
  using Vector = Pack<Real>;
  if (kEncoded && first)
    for_cells<T, 2>(below, pass, own, constants, [&](const Cell& cell, const Constants<Real>& k) {
      Vector v = first_a<T>(point_data, cell.point, k);
#pragma unroll
      for (int i = 0; i < T::kVector; ++i) v.v[i] = value_of<kEncoded>(v.v[i]);
      v.store_shared(out + cell.offset);
    });
  else
    for_cells<T, 2>(below, pass, own, constants, [&](const Cell& cell, const Constants<Real>& k) {
      Vector v = first ? first_a<T>(point_data, cell.point, k) : Vector::load(tape_a + cell.at);
#pragma unroll
      for (int i = 0; i < T::kVector; ++i) v.v[i] = activate(v.v[i]).value;
      v.store_shared(out + cell.offset);
    });
}

/// s′(a) times a factor, into `out`: times ḡ of the first layer (`computed`), the channel's weight in ψ (`constant`),
/// or `factors`.
template <class T, bool kEncoded, class Real = typename T::Real>
__device__ __forceinline__ void put_slopes(const Layer& layer, bool computed, bool constant, const Share& share,
                                           const Constants<Real>* constants, const Real* point_data, const Real* tape_a,
                                           const Real* factors, int pass, Real* out) {
  using Vector = Pack<Real>;
  if (kEncoded && computed)
    for_cells<T, 2>(layer, pass, share, constants, [&](const Cell& cell, const Constants<Real>& k) {
      const Vector a = first_a<T>(point_data, cell.point, k);
      Vector v = first_g_bar<T>(point_data, cell.point, k);
#pragma unroll
      for (int i = 0; i < T::kVector; ++i) v.v[i] *= slope_of<kEncoded>(a.v[i]);
      v.store_shared(out + cell.offset);
    });
  else
    for_cells<T, 2>(layer, pass, share, constants, [&](const Cell& cell, const Constants<Real>& k) {
      Vector a, v;
      if (computed) {
        a = first_a<T>(point_data, cell.point, k);
        v = first_g_bar<T>(point_data, cell.point, k);
      } else {
        a = Vector::load(tape_a + cell.at);
        if (constant) {
#pragma unroll
          for (int i = 0; i < T::kVector; ++i) v.v[i] = k.output;
        } else {
          v = Vector::load(factors + cell.at);
        }
      }
#pragma unroll
      for (int i = 0; i < T::kVector; ++i) v.v[i] *= activate(a.v[i]).first();
      v.store_shared(out + cell.offset);
    });
}

/// ā of the first layer from the sums of its product, for the layer's gradient.
template <class T, class Real = typename T::Real>
__device__ __forceinline__ void finish_first_a_bar(const typename T::Sums& acc, const Layer& layer, int pass,
                                                   const Share& own, const Constants<Real>* constants,
                                                   const Real* point_data, const Real* tape_p, Real (&channel_sums)[4],
                                                   Real* out) {
  using Vector = Pack<Real>;
  forget_sums<T>(channel_sums);
  for_sums<T>(acc, layer, pass, own, constants, [&](Vector v, const Cell& cell, const Constants<Real>& k) {
    const Vector a = first_a<T>(point_data, cell.point, k), g_bar = first_g_bar<T>(point_data, cell.point, k);
    Vector p = Vector::load(tape_p + cell.at);
#pragma unroll
    for (int i = 0; i < T::kVector; ++i) {
      const Activation<Real> s = activate(a.v[i]);
      v.v[i] = hidden_a_bar(s, p.v[i], g_bar.v[i], v.v[i]);
      p.v[i] *= s.first();
    }
    add_first<T>(channel_sums, point_data, p, v, cell);
    put_first<T>(channel_sums, out, cell);
  });
}

/// ā of a layer between the first and the last from the sums of its product.
template <class T, class Real = typename T::Real>
__device__ __forceinline__ void finish_a_bar(const typename T::Sums& acc, const Layer& layer, int pass,
                                             const Share& own, const Constants<Real>* constants, const Real* tape_a,
                                             const Real* tape_p, const Real* layer_g_bar, Real* out) {
  using Vector = Pack<Real>;
  for_sums<T>(acc, layer, pass, own, constants, [&](Vector v, const Cell& cell, const Constants<Real>&) {
    const Vector a = Vector::load(tape_a + cell.at), p = Vector::load(tape_p + cell.at),
                 g_bar = Vector::load(layer_g_bar + cell.at);
#pragma unroll
    for (int i = 0; i < T::kVector; ++i) v.v[i] = hidden_a_bar(activate(a.v[i]), p.v[i], g_bar.v[i], v.v[i]);
    v.store_shared(out + cell.offset);
  });
}

/// With features as the only layer: the terms of w̄ at the thread's own points, into the own cells of `out`.
template <class T, class Real = typename T::Real>
__device__ __forceinline__ void put_readout(const Layer& layer, int pass, const Share& own,
                                            const Constants<Real>* constants, const Real* point_data,
                                            const Real* psi_cotangent, Real* out) {
  using Vector = Pack<Real>;
  Real channel_sums[4] = {};
  for_cells<T>(layer, pass, own, constants, [&](const Cell& cell, const Constants<Real>& k) {
    const Vector a = first_a<T>(point_data, cell.point, k), g_bar = first_g_bar<T>(point_data, cell.point, k),
                 c = Vector::load(psi_cotangent + cell.point);
    Real w_bar = cell.c == 0 ? Real(0) : channel_sums[3];
#pragma unroll
    for (int i = 0; i < T::kVector; ++i)
      w_bar += fma(g_bar.v[i], slope_of<true>(a.v[i]), c.v[i] * value_of<true>(a.v[i]));
    channel_sums[3] = w_bar;
    put_first<T>(channel_sums, out, cell);
  });
}

/// With a single layer: the terms of the whole gradient at the thread's own points, into the own cells of `out`.
template <class T, bool kEncoded, class Real = typename T::Real>
__device__ __forceinline__ void put_single_layer(const Layer& layer, int pass, const Share& own,
                                                 const Constants<Real>* constants, const Real* point_data,
                                                 const Real* psi_cotangent, Real (&channel_sums)[4], Real* out) {
  if constexpr (kEncoded) return put_readout<T>(layer, pass, own, constants, point_data, psi_cotangent, out);
  using Vector = Pack<Real>;
  for_cells<T>(layer, pass, own, constants, [&](const Cell& cell, const Constants<Real>& k) {
    const Vector a = first_a<T>(point_data, cell.point, k), g_bar = first_g_bar<T>(point_data, cell.point, k),
                 c = Vector::load(psi_cotangent + cell.point);
    Vector g, a_bar;
    Real w_bar = cell.c == 0 ? Real(0) : channel_sums[3];
#pragma unroll
    for (int i = 0; i < T::kVector; ++i) {
      const Activation<Real> s = activate(a.v[i]);
      w_bar += fma(g_bar.v[i], s.first(), c.v[i] * s.value);
      a_bar.v[i] = top_a_bar(s, k.output, g_bar.v[i], c.v[i]);
      g.v[i] = k.output * s.first();
    }
    channel_sums[3] = w_bar;
    add_first<T>(channel_sums, point_data, g, a_bar, cell);
    put_first<T>(channel_sums, out, cell);
  });
}

/// ā of the last layer and the thread's terms of w̄ = Σ p̄ + ψ̄ h from the sums of its product.
template <class T, class Real = typename T::Real>
__device__ __forceinline__ void finish_last_a_bar(const typename T::Sums& acc, const Layer& layer, int pass,
                                                  const Share& own, const Constants<Real>* constants,
                                                  const Real* tape_a, const Real* psi_cotangent,
                                                  Real (&w_bar)[T::kChannels], Real* out) {
  using Vector = Pack<Real>;
  for_sums<T, T::kChannels>(
      acc, layer, pass, own, constants, [&](Vector g, const Cell& cell, const Constants<Real>& k) {
        const Vector a = Vector::load(tape_a + cell.at), c = Vector::load(psi_cotangent + cell.point);
#pragma unroll
        for (int i = 0; i < T::kVector; ++i) {
          const Activation<Real> s = activate(a.v[i]);
          w_bar[cell.j] += fma(g.v[i], s.first(), c.v[i] * s.value);
          g.v[i] = top_a_bar(s, k.output, g.v[i], c.v[i]);
        }
        g.store_shared(out + cell.offset);
      });
}

/// The sums of a matrix's gradient that a thread owns in one pass, from the block's sums and back. `part` says which
/// are in use.
template <class T, class Part, class Real = typename T::Real>
__device__ __forceinline__ void read_gradient(Real (&acc)[T::kGradIn][T::kGradOut], const Real* from, const Part& part,
                                              bool touched) {
  constexpr int V = T::kVector;
#pragma unroll
  for (int s = 0; s < T::kGradIn * T::kGradOut; s += V) {
    Pack<Real> v{};
    if (touched && part.has(s / T::kGradOut)) v = Pack<Real>::load(from + s * kThreads);
#pragma unroll
    for (int i = 0; i < V; ++i) acc[(s + i) / T::kGradOut][(s + i) % T::kGradOut] = v.v[i];
  }
}
template <class T, class Part, class Real = typename T::Real>
__device__ __forceinline__ void write_gradient(const Real (&acc)[T::kGradIn][T::kGradOut], Real* to, const Part& part) {
  constexpr int V = T::kVector;
#pragma unroll
  for (int s = 0; s < T::kGradIn * T::kGradOut; s += V) {
    Pack<Real> v;
#pragma unroll
    for (int i = 0; i < V; ++i) v.v[i] = acc[(s + i) / T::kGradOut][(s + i) % T::kGradOut];
    if (part.has(s / T::kGradOut)) v.store(to + s * kThreads);
  }
}

/// The block's sums; in narrow tiles their address is computed again wherever it is needed.
template <class T, class Real = typename T::Real>
__device__ __forceinline__ Real* block_sums(const Network<Real>& net, Real* sums) {
  if constexpr (T::kNarrow)
    return net.sums + (static_cast<std::size_t>(forget(blockIdx.y)) * gridDim.x + blockIdx.x) * net.sums_size;
  else
    return sums;
}

/// Adds a tile's part of the gradient of matrix l (from layer l − 1 to l), in one pass over its rows and columns. ā_l
/// is in `current`. own, tape and g_bar_of are the kernel's functions of these names.
template <class T, bool kEncoded, class Real = typename T::Real, class Own, class Tape, class GBar>
__device__ __forceinline__ void add_matrix_gradient(const Network<Real>& net, int l, int grad_pass, bool first,
                                                    int last, bool touched, const Place<T>& place, int thread,
                                                    const Constants<Real>* constants, const Real* point_data,
                                                    const Real* current, Real* spare, Real* sums, const Own& own,
                                                    const Tape& tape, const GBar& g_bar_of) {
  constexpr int V = T::kVector;
  Real acc[T::kGradIn][T::kGradOut];
  const auto mine = [&] {
    return sums + net.layer[forget(l)].partial + (grad_pass * (T::kGradIn * T::kGradOut) * kThreads + thread * V);
  };
  const auto in_use = [&] {
    if constexpr (T::kFragments)
      return GradientPart(net.layer[forget(l)], grad_pass, thread / 32);
    else
      return WholeGradient{};
  };
  if constexpr (T::kNarrow) {
#pragma unroll
    for (int s = 0; s < T::kGradIn * T::kGradOut; ++s) acc[s / T::kGradOut][s % T::kGradOut] = 0;
  } else {
    Real* const read = mine();
    const auto to_read = in_use();
    read_gradient<T>(acc, read, to_read, touched);
  }
  {                   // h_{l−1} and ā_l
    __syncthreads();  // `spare` is free
    const Layer& below = net.layer[forget(l) - 1];
    const Real* const tape_a = tape() + below.tape_a;
#pragma unroll 1
    for (int pass = 0; pass < below.passes; ++pass) {
      put_value<T, kEncoded>(below, first, own(), constants, point_data, tape_a, pass, spare);
    }
    __syncthreads();
    add_gradient<T>(acc, spare, current, T::kPoints / V, net.layer[forget(l)], grad_pass);
  }
  // p̄_{l−1} and g_l, each ∘ s′(a): for one half of the points after the other, p̄ in the first half of the columns
  // of `spare` and g in the second. One half of the block makes each.
#pragma unroll 1
  for (int half = 0; half < kSplit; ++half) {
    __syncthreads();  // `spare` is free
    const Place<T> here = place_again(place);
    const bool in = here.split == 0, computed = in && first, constant = !in && l == last;
    const Layer& layer = net.layer[forget(l) - (in ? 1 : 0)];
    const Real* const tape_a = tape() + layer.tape_a;
    const Real* const factors = in ? g_bar_of(forget(l) - 1) : tape() + layer.tape_p;
    const Share share{here.group, here.pixels + (in ? 0 : T::kHalf), here.pixels + half * T::kHalf,
                      here.item + half * kItems};
#pragma unroll 1
    for (int pass = 0; pass < layer.passes; ++pass) {
      put_slopes<T, kEncoded>(layer, computed, constant, share, constants, point_data, tape_a, factors, pass, spare);
    }
    __syncthreads();
    add_gradient<T>(acc, spare, spare + T::kHalf, T::kHalf / V, net.layer[forget(l)], grad_pass);
  }
  if constexpr (T::kNarrow) {
    const Layer& layer = net.layer[l];
    const int height = net.layer[l - 1].width;
    sum_matrix<T>(acc, spare, [&](int row, int column, Real sum) {
      if (row < height && column < layer.width)
        PartialSums<Real>{block_sums<T>(net, sums), touched}.add(layer.partial + row * layer.width + column, sum);
    });
  } else {
    Real* const write = mine();
    const auto to_write = in_use();
    write_gradient<T>(acc, write, to_write);
  }
}

/// The adjoint of network_kernel: partial sums of all parameter gradients, one set per block. A tile whose cotangents
/// are all zero is left out: it would add zeros. An encoding has no gradient, so that ā of layer 1 is the last one
/// needed.
template <class T, bool kEncoded>
__global__ void __launch_bounds__(kThreads, T::kBlocks)
    network_adjoint_kernel(const __grid_constant__ Network<typename T::Real> net, const typename T::Real* positions,
                           const typename T::Real* alpha_bar, const typename T::Real* psi_bar) {
  using Real = typename T::Real;
  using Vector = Pack<Real>;
  using K = Constants<Real>;
  using Sums = typename T::Sums;
  constexpr int V = T::kVector;
  extern __shared__ __align__(16) unsigned char memory[];
  const Shared<T> shared(memory, net);
  const Place<T> place(threadIdx.x);
  const int thread = threadIdx.x, row = blockIdx.y, last = net.layers - 1;
  const Share own_share{place.group, place.own, place.own, thread};
  const auto own = [&] { return T::kForgets ? own_share_of<T>(forget(thread)) : own_share; };
  const Real* packed = net.packed + static_cast<std::size_t>(row) * net.pack_size;
  const K* const constants = reinterpret_cast<const K*>(packed);
  const std::size_t block = static_cast<std::size_t>(row) * gridDim.x + blockIdx.x;
  Real* const sums = net.sums + block * net.sums_size;
  Real* const point_data = shared.point;
  const Real* const psi_cotangent = point_data + 4 * T::kPoints;
  Ring<T> ring(shared.slots, place.weights());
  shared.clear(net);
  bool touched = false;  // the sums hold something
  /// ḡ of a layer between the first and the last.
  const auto g_bar_of = [&](int l) {
    return l == net.kept ? shared.kept : block_sums<T>(net, sums) + net.layer[l].g_bar;
  };

#pragma unroll 1
  for (int tile = net.first_tile(); tile < net.tiles; tile += gridDim.x) {
    const int first_point = tile * T::kPoints, valid = min(T::kPoints, net.points - first_point);
    __syncthreads();                          // the tile before has left shared memory
    const auto tape = [&]() -> const Real* {  // anew wherever it is needed
      return net.tape + (static_cast<std::size_t>(T::kNarrow ? forget(blockIdx.y) : row) * net.tiles + forget(tile)) *
                            net.tape_size;
    };
    const bool any = load_cotangents<T>(net, first_point, valid, positions, alpha_bar, psi_bar, point_data);
    if (!__syncthreads_or(any)) continue;
    ring.start(packed + net.stream, kEncoded ? net.layer[1].gradient_stage : net.stages);  // W₂ᵀ serves ā₁ alone
    Real channel_sums[4];                                                                  // of the first layer
    const auto partial = [&] { return PartialSums<Real>{block_sums<T>(net, sums), touched}; };

    // Upwards: p̄_l in `current`, at the top ā_L; w̄ = Σ p̄_L + ψ̄ h_L.
    Real *current = shared.first, *spare = shared.second;
#pragma unroll 1
    for (int pass = 0; pass < net.layer[0].passes; ++pass) {
      if (last > 0) {
        for_cells<T>(net.layer[0], pass, own(), constants, [&](const Cell& cell, const K& k) {
          const Vector a = first_a<T>(point_data, cell.point, k);
          Vector p_bar = first_g_bar<T>(point_data, cell.point, k);
#pragma unroll
          for (int i = 0; i < V; ++i) p_bar.v[i] *= slope_of<kEncoded>(a.v[i]);
          p_bar.store_shared(current + cell.offset);
        });
      } else {
        put_single_layer<T, kEncoded>(net.layer[0], pass, own(), constants, point_data, psi_cotangent, channel_sums,
                                      current);
        sum_first<T, kEncoded>(net, current, pass, last, partial());
      }
    }
#pragma unroll 1
    for (int l = 1; l <= last; ++l) {
      const Layer layer = net.layer[l];
      const Real* const tape_a = tape() + layer.tape_a;
      product<T>(current, spare, layer, padded_rows<T>(net.layer[l - 1].width), ring, place,
                 [&](const Sums& acc, int pass) {
                   if (l < last) {
                     Real* const g_bar = g_bar_of(l);
                     finish_p_bar<T>(acc, layer, pass, own(), constants, tape_a, g_bar, spare);
                   } else {
                     Real w_bar[T::kChannels] = {};
                     finish_last_a_bar<T>(acc, layer, pass, own(), constants, tape_a, psi_cotangent, w_bar, spare);
                     put_own<T>(w_bar, ring.idle());
                     sum_w_bar<T>(net, layer, pass, ring.idle(), partial());
                   }
                 });
      Real* swap = current;
      current = spare;
      spare = swap;
    }
    add_row_sums<T>(psi_cotangent, 1, net.last_partial + net.layer[last].width, partial());  // b̄ = Σ ψ̄

    // Downwards: ā_l in `current`; the gradient of matrix l (from layer l − 1 to l), then ā of the layer below.
#pragma unroll 1
    for (int l = last; l >= 1; --l) {
      const bool first = l == 1;
#pragma unroll 1
      for (int grad_pass = 0; grad_pass < net.layer[l].grad_passes; ++grad_pass) {
        add_matrix_gradient<T, kEncoded>(net, l, grad_pass, first, last, touched, place, thread, constants, point_data,
                                         current, spare, sums, own, tape, g_bar_of);
      }
      const Layer& layer = net.layer[forget(l)];
      add_row_sums<T>(current, layer.width, layer.bias_partial, partial());
      if (kEncoded && first) break;

      // ā = s″(a)∘p∘ḡ + s′(a)∘(Wᵀā of this layer)
      const Layer& below = net.layer[forget(l) - 1];
      const Real *const early_a = tape() + below.tape_a, *const early_p = tape() + below.tape_p;
      const auto again = [&](const Real* early, int Layer::*offset) {
        return T::kForgets ? tape() + net.layer[forget(l) - 1].*offset : early;
      };
      product<T>(current, spare, below, padded_rows<T>(layer.width), ring, place, [&](const Sums& acc, int pass) {
        const Real *const tape_a = again(early_a, &Layer::tape_a), *const tape_p = again(early_p, &Layer::tape_p);
        if (first) {
          finish_first_a_bar<T>(acc, below, pass, own(), constants, point_data, tape_p, channel_sums, spare);
          sum_first<T, kEncoded>(net, spare, pass, last, partial());
        } else {
          const Real* const layer_g_bar = g_bar_of(forget(l) - 1);
          finish_a_bar<T>(acc, below, pass, own(), constants, tape_a, tape_p, layer_g_bar, spare);
        }
      });
      Real* swap = current;
      current = spare;
      spare = swap;
    }
    touched = true;
  }
  if (!touched)
    for (int i = thread; i < net.partial_size; i += kThreads) block_sums<T>(net, sums)[i] = 0;
}

}  // namespace einfield::cuda::tiled
