// The adjoint kernel: partial sums of the gradient.
#pragma once

#include "kernels/network/tile/activation.cuh"
#include "kernels/network/tile/block_sums.cuh"
#include "kernels/network/tile/product.cuh"

namespace einfield::cuda::tiled {

/// The adjoint of network_kernel: partial sums of all parameter gradients, one set per block. A tile whose cotangents
/// are all zero is left out: it would add zeros. An encoding has no gradient, so that ā of layer 1 is the last one
/// needed.
template <class T, bool kEncoded>
__global__ void __launch_bounds__(kThreads, 1)
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
  const int thread = threadIdx.x, lens = blockIdx.y, last = net.layers - 1;
  const Share own_share{place.group, place.own, place.own, thread};
  const auto own = [&] { return T::kFragments ? own_share_of<T>(forget(thread)) : own_share; };
  const Real* packed = net.packed + static_cast<std::size_t>(lens) * net.pack_size;
  const K* const constants = reinterpret_cast<const K*>(packed);
  const std::size_t block = static_cast<std::size_t>(lens) * gridDim.x + blockIdx.x;
  Real* const sums = net.sums + block * net.sums_size;
  Real* const point_data = shared.point;
  const Real* const psi_cotangent = point_data + 4 * T::kPoints;
  Ring<T> ring(shared.slots, place.weights());
  shared.clear(net);
  bool touched = false;  // the sums hold something
  const auto add_partial = [&](int index, Real value) { sums[index] = touched ? sums[index] + value : value; };
  /// ā_L = w∘(s″(a)∘ḡ + ψ̄ s′(a))
  const auto top_a_bar = [](const Activation<Real>& s, Real w, Real g_bar, Real psi_bar_value) {
    return w * fma(s.second(), g_bar, s.first() * psi_bar_value);
  };
  /// ḡ of a layer between the first and the last.
  const auto g_bar_of = [&](int l) { return l == net.kept ? shared.kept : sums + net.layer[l].g_bar; };

#pragma unroll 1
  for (int tile = blockIdx.x; tile < net.tiles; tile += gridDim.x) {
    const int first_point = tile * T::kPoints, valid = min(T::kPoints, net.points - first_point);
    bool any = false;
    __syncthreads();                          // the tile before has left shared memory
    const auto tape = [&]() -> const Real* {  // anew wherever it is needed
      return net.tape + (static_cast<std::size_t>(lens) * net.tiles + forget(tile)) * net.tape_size;
    };
#pragma unroll 1
    for (int i = thread; i < 5 * T::kPoints; i += kThreads) {
      const int what = i / T::kPoints, px = i % T::kPoints;
      // Position, ᾱ, ψ̄: rows of `points` numbers, from one array after the other.
      const Real* const array = what < 2 ? positions : what < 4 ? alpha_bar : psi_bar;
      const int row = what < 2 ? lens * net.position_rows + what : what < 4 ? lens * 2 + what - 2 : lens;
      Real value = 0;
      if (px < valid && array != nullptr)
        value = (what < 4 ? net.scale : Real(1)) * array[static_cast<std::size_t>(row) * net.points + first_point + px];
      any |= what >= 2 && value != 0;
      point_data[i] = value;
    }
    if (!__syncthreads_or(any)) continue;
    ring.start(packed + net.stream, kEncoded ? net.layer[1].gradient_stage : net.stages);  // W₂ᵀ serves ā₁ alone

    /// Gradient of the first layer, W̄₁ = ℓ g₁ᾱᵀ + ā₁uᵀ and b̄₁ = Σ ā₁: the terms of one vector …
    Real channel_sums[4];  // x, y, b; with a single layer also w̄
    const auto add_first = [&](const Vector& g, const Vector& a_bar, const Cell& cell) {
      const Vector ux = Vector::load(point_data + cell.point), uy = Vector::load(point_data + T::kPoints + cell.point);
      const Vector cx = Vector::load(point_data + 2 * T::kPoints + cell.point),
                   cy = Vector::load(point_data + 3 * T::kPoints + cell.point);
#pragma unroll
      for (int i = 0; i < V; ++i) {
        const bool begin = cell.c == 0 && i == 0;
        channel_sums[0] = fma(g.v[i], cx.v[i], fma(a_bar.v[i], ux.v[i], begin ? Real(0) : channel_sums[0]));
        channel_sums[1] = fma(g.v[i], cy.v[i], fma(a_bar.v[i], uy.v[i], begin ? Real(0) : channel_sums[1]));
        channel_sums[2] = begin ? a_bar.v[i] : channel_sums[2] + a_bar.v[i];
      }
    };
    /// … which go through the own cells of `area` into the block's sums.
    const auto put_first = [&](Real* area, const Cell& cell) {
      if (cell.c + 1 == T::kOwn) put_channel_sums<T>(channel_sums, area + cell.offset - cell.c * T::kChunkStride);
    };
    const auto sum_first = [&](const Real* area, int pass) {
      const Layer& bottom = net.layer[0];
      __syncthreads();
      const int channels = T::kChannels * bottom.groups;
      for (int i = thread; i < channels; i += kThreads) {
        const int ch = pass * channels + i;
        if (ch >= bottom.width) continue;
        const Real* row = area + ch * T::kPitch;
        add_partial(net.first_partial + ch, channel_sum<T>(row, 0));
        add_partial(net.first_partial + bottom.width + ch, channel_sum<T>(row, 1));
        add_partial(bottom.bias_partial + ch, channel_sum<T>(row, 2));
        if (last == 0) add_partial(net.last_partial + ch, channel_sum<T>(row, 3));
      }
    };

    // Upwards: p̄_l in `current`, at the top ā_L; w̄ = Σ p̄_L + ψ̄ h_L.
    Real *current = shared.first, *spare = shared.second;
#pragma unroll 1
    for (int pass = 0; pass < net.layer[0].passes; ++pass) {
      if (kEncoded || last > 0) {
        for_cells<T>(net.layer[0], pass, own(), constants, [&](const Cell& cell, const K& k) {
          const Vector a = first_a<T>(point_data, cell.point, k);
          Vector p_bar = first_g_bar<T>(point_data, cell.point, k);
#pragma unroll
          for (int i = 0; i < V; ++i) p_bar.v[i] *= slope_of<kEncoded>(a.v[i]);
          p_bar.store_shared(current + cell.offset);
        });
      } else {
        for_cells<T>(net.layer[0], pass, own(), constants, [&](const Cell& cell, const K& k) {
          const Vector a = first_a<T>(point_data, cell.point, k), g_bar = first_g_bar<T>(point_data, cell.point, k),
                       c = Vector::load(psi_cotangent + cell.point);
          Vector g, a_bar;
          Real w_bar = cell.c == 0 ? Real(0) : channel_sums[3];
#pragma unroll
          for (int i = 0; i < V; ++i) {
            const Activation<Real> s = activate(a.v[i]);
            w_bar += fma(g_bar.v[i], s.first(), c.v[i] * s.value);
            a_bar.v[i] = top_a_bar(s, k.output, g_bar.v[i], c.v[i]);
            g.v[i] = k.output * s.first();
          }
          channel_sums[3] = w_bar;
          add_first(g, a_bar, cell);
          put_first(current, cell);
        });
        sum_first(current, pass);
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
                     for_sums<T>(acc, layer, pass, own(), constants, [&](Vector g, const Cell& cell, const K&) {
                       const Vector a = Vector::load(tape_a + cell.at);
                       g.store(g_bar + cell.at);
#pragma unroll
                       for (int i = 0; i < V; ++i) g.v[i] *= activate(a.v[i]).first();
                       g.store_shared(spare + cell.offset);
                     });
                   } else {
                     Real w_bar[T::kChannels] = {};
                     for_sums<T>(acc, layer, pass, own(), constants, [&](Vector g, const Cell& cell, const K& k) {
                       const Vector a = Vector::load(tape_a + cell.at), c = Vector::load(psi_cotangent + cell.point);
#pragma unroll
                       for (int i = 0; i < V; ++i) {
                         const Activation<Real> s = activate(a.v[i]);
                         w_bar[cell.j] += fma(g.v[i], s.first(), c.v[i] * s.value);
                         g.v[i] = top_a_bar(s, k.output, g.v[i], c.v[i]);
                       }
                       g.store_shared(spare + cell.offset);
                     });
                     put_own<T>(w_bar, ring.idle());
                     __syncthreads();
                     const int channels = T::kChannels * layer.groups;
                     for (int i = thread; i < channels; i += kThreads) {
                       const int ch = pass * channels + i;
                       if (ch < layer.width)
                         add_partial(net.last_partial + ch,
                                     own_channel_sum<T>(ring.idle(), i / layer.groups, i % layer.groups));
                     }
                   }
                 });
      Real* swap = current;
      current = spare;
      spare = swap;
    }
    if (thread == 0) add_partial(net.last_partial + net.layer[last].width, row_sum<T>(psi_cotangent));  // b̄ = Σ ψ̄

      // Downwards: ā_l in `current`; the gradient of matrix l (from layer l − 1 to l), then ā of the layer below.
#pragma unroll 1
    for (int l = last; l >= 1; --l) {
      const bool first = l == 1;
#pragma unroll 1
      for (int grad_pass = 0; grad_pass < net.layer[l].grad_passes; ++grad_pass) {
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
        Real* const read = mine();
        const auto to_read = in_use();
#pragma unroll
        for (int s = 0; s < T::kGradIn * T::kGradOut; s += V) {
          Vector v{};
          if (touched && to_read.has(s / T::kGradOut)) v = Vector::load(read + s * kThreads);
#pragma unroll
          for (int i = 0; i < V; ++i) acc[(s + i) / T::kGradOut][(s + i) % T::kGradOut] = v.v[i];
        }
        {                   // h_{l−1} and ā_l
          __syncthreads();  // `spare` is free
          const Layer& below = net.layer[forget(l) - 1];
          const Real* const tape_a = tape() + below.tape_a;
#pragma unroll 1
          for (int pass = 0; pass < below.passes; ++pass) {
            if (kEncoded && first)
              for_cells<T, 2>(below, pass, own(), constants, [&](const Cell& cell, const K& k) {
                Vector v = first_a<T>(point_data, cell.point, k);
#pragma unroll
                for (int i = 0; i < V; ++i) v.v[i] = value_of<kEncoded>(v.v[i]);
                v.store_shared(spare + cell.offset);
              });
            else
              for_cells<T, 2>(below, pass, own(), constants, [&](const Cell& cell, const K& k) {
                Vector v = first ? first_a<T>(point_data, cell.point, k) : Vector::load(tape_a + cell.at);
#pragma unroll
                for (int i = 0; i < V; ++i) v.v[i] = activate(v.v[i]).value;
                v.store_shared(spare + cell.offset);
              });
          }
          __syncthreads();
          add_gradient<T>(acc, spare, current, T::kPoints / V, net.layer[forget(l)], grad_pass);
        }
        // p̄_{l−1} and g_l, each ∘ s′(a): for one half of the points after the other, p̄ in the first half of the columns
        // of `spare` and g in the second. One half of the block makes each.
#pragma unroll 1
        for (int half = 0; half < kSplit; ++half) {
          __syncthreads();  // `spare` is free
          const bool in = place.split == 0, computed = in && first, constant = !in && l == last;
          const Layer& layer = net.layer[forget(l) - (in ? 1 : 0)];
          const Real* const tape_a = tape() + layer.tape_a;
          const Real* const factors = in ? g_bar_of(forget(l) - 1) : tape() + layer.tape_p;
          const Share share{place.group, place.pixels + (in ? 0 : T::kHalf), place.pixels + half * T::kHalf,
                            place.item + half * kItems};
#pragma unroll 1
          for (int pass = 0; pass < layer.passes; ++pass) {
            if (kEncoded && computed)
              for_cells<T, 2>(layer, pass, share, constants, [&](const Cell& cell, const K& k) {
                const Vector a = first_a<T>(point_data, cell.point, k);
                Vector v = first_g_bar<T>(point_data, cell.point, k);
#pragma unroll
                for (int i = 0; i < V; ++i) v.v[i] *= slope_of<kEncoded>(a.v[i]);
                v.store_shared(spare + cell.offset);
              });
            else
              for_cells<T, 2>(layer, pass, share, constants, [&](const Cell& cell, const K& k) {
                Vector a, v;
                if (computed) {
                  a = first_a<T>(point_data, cell.point, k);
                  v = first_g_bar<T>(point_data, cell.point, k);
                } else {
                  a = Vector::load(tape_a + cell.at);
                  if (constant) {
#pragma unroll
                    for (int i = 0; i < V; ++i) v.v[i] = k.output;
                  } else {
                    v = Vector::load(factors + cell.at);
                  }
                }
#pragma unroll
                for (int i = 0; i < V; ++i) v.v[i] *= activate(a.v[i]).first();
                v.store_shared(spare + cell.offset);
              });
          }
          __syncthreads();
          add_gradient<T>(acc, spare, spare + T::kHalf, T::kHalf / V, net.layer[forget(l)], grad_pass);
        }
        Real* const write = mine();
        const auto to_write = in_use();
#pragma unroll
        for (int s = 0; s < T::kGradIn * T::kGradOut; s += V) {
          Vector v;
#pragma unroll
          for (int i = 0; i < V; ++i) v.v[i] = acc[(s + i) / T::kGradOut][(s + i) % T::kGradOut];
          if (to_write.has(s / T::kGradOut)) v.store(write + s * kThreads);
        }
      }
      const Layer& layer = net.layer[forget(l)];
      for (int ch = thread; ch < layer.width; ch += kThreads)
        add_partial(layer.bias_partial + ch, row_sum<T>(current + ch * T::kPitch));
      if (kEncoded && first) break;

      // ā = s″(a)∘p∘ḡ + s′(a)∘(Wᵀā of this layer)
      const Layer& below = net.layer[forget(l) - 1];
      const Real *const early_a = tape() + below.tape_a, *const early_p = tape() + below.tape_p;
      const auto again = [&](const Real* early, int Layer::*offset) {
        return T::kFragments ? tape() + net.layer[forget(l) - 1].*offset : early;
      };
      product<T>(current, spare, below, padded_rows<T>(layer.width), ring, place, [&](const Sums& acc, int pass) {
        const auto a_bar_of = [](const Activation<Real>& s, Real p, Real g_bar, Real h_bar) {
          return fma(s.second() * p, g_bar, s.first() * h_bar);
        };
        const Real *const tape_a = again(early_a, &Layer::tape_a), *const tape_p = again(early_p, &Layer::tape_p);
        if (first) {
          forget_sums<T>(channel_sums);
          for_sums<T>(acc, below, pass, own(), constants, [&](Vector v, const Cell& cell, const K& k) {
            const Vector a = first_a<T>(point_data, cell.point, k), g_bar = first_g_bar<T>(point_data, cell.point, k);
            Vector p = Vector::load(tape_p + cell.at);
#pragma unroll
            for (int i = 0; i < V; ++i) {
              const Activation<Real> s = activate(a.v[i]);
              v.v[i] = a_bar_of(s, p.v[i], g_bar.v[i], v.v[i]);
              p.v[i] *= s.first();
            }
            add_first(p, v, cell);
            put_first(spare, cell);
          });
          sum_first(spare, pass);
        } else {
          const Real* const layer_g_bar = g_bar_of(forget(l) - 1);
          for_sums<T>(acc, below, pass, own(), constants, [&](Vector v, const Cell& cell, const K&) {
            const Vector a = Vector::load(tape_a + cell.at), p = Vector::load(tape_p + cell.at),
                         g_bar = Vector::load(layer_g_bar + cell.at);
#pragma unroll
            for (int i = 0; i < V; ++i) v.v[i] = a_bar_of(activate(a.v[i]), p.v[i], g_bar.v[i], v.v[i]);
            v.store_shared(spare + cell.offset);
          });
        }
      });
      Real* swap = current;
      current = spare;
      spare = swap;
    }
    touched = true;
  }
  if (!touched)
    for (int i = thread; i < net.partial_size; i += kThreads) sums[i] = 0;
}

}  // namespace einfield::cuda::tiled
