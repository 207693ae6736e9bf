// The forward kernel: ψ and α = ∇ψ.
#pragma once

#include "kernels/network/tile/activation.cuh"
#include "kernels/network/tile/block_sums.cuh"
#include "kernels/network/tile/product.cuh"

namespace einfield::cuda::tiled {

/// ψ and α of all points; writes the tape. x: blocks that share the tiles of a lens, y: lens. kEncoded: layer 0 is that
/// of Fourier features.
template <class T, bool kEncoded>
__global__ void __launch_bounds__(kThreads, 1)
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
  const int thread = threadIdx.x, lens = blockIdx.y, last = net.layers - 1;
  const Share own_share{place.group, place.own, place.own, thread};
  const auto own = [&] { return T::kFragments ? own_share_of<T>(forget(thread)) : own_share; };
  const Real* packed = net.packed + static_cast<std::size_t>(lens) * net.pack_size;
  const K* const constants = reinterpret_cast<const K*>(packed);
  Real* const point_data = shared.point;
  Real* const psi_sums = point_data + 2 * T::kPoints;
  Real* const alpha_sums = point_data + 3 * T::kPoints;  // all x, then all y
  Ring<T> ring(shared.slots, place.weights());
  shared.clear(net);

#pragma unroll 1
  for (int tile = blockIdx.x; tile < net.tiles; tile += gridDim.x) {
    const int first_point = tile * T::kPoints, valid = min(T::kPoints, net.points - first_point);
    Real* const tape = net.tape + (static_cast<std::size_t>(lens) * net.tiles + tile) * net.tape_size;
    __syncthreads();  // the tile before has left shared memory
    ring.start(packed + net.stream, net.stages);
#pragma unroll 1
    for (int i = thread; i < 5 * T::kPoints; i += kThreads) {
      const int what = i / T::kPoints, px = i % T::kPoints, row = lens * net.position_rows + what;
      point_data[i] = what < 2 && px < valid
                          ? net.scale * positions[static_cast<std::size_t>(row) * net.points + first_point + px]
                          : Real(0);
    }
    __syncthreads();

    /// ψ of a pass over the last layer: h and w of each vector in turn, then the sum over the pass.
    Real psi_own[kOwnPoints] = {};
    const auto add_psi = [&](const Vector& h, const Cell& cell, Real w) {
#pragma unroll
      for (int i = 0; i < V; ++i)
        psi_own[cell.c * V + i] = fma(w, h.v[i], cell.j == 0 ? Real(0) : psi_own[cell.c * V + i]);
    };
    const auto sum_psi = [&](Real* area, int groups) {
      put_own<T>(psi_own, area);
      __syncthreads();
      for (int px = thread; px < T::kPoints; px += kThreads) psi_sums[px] += own_point_sum<T>(area, px, groups);
    };
    /// α of a pass over the first layer, from g₁, by way of the own cells of two rows of `area`.
    Real alpha_own[2][kOwnPoints] = {};
    const auto add_alpha = [&](const Vector& g, const Cell& cell, const K& k) {
#pragma unroll
      for (int i = 0; i < V; ++i)
#pragma unroll
        for (int axis = 0; axis < 2; ++axis) {
          Real& sum = alpha_own[axis][cell.c * V + i];
          sum = fma(axis == 0 ? k.w_x : k.w_y, g.v[i], cell.j == 0 ? Real(0) : sum);
        }
    };
    const auto sum_alpha = [&](Real* area, int groups, int pass) {
      area += pass * T::kChannels * groups * T::kPitch;
      if (place.group < groups) {
#pragma unroll
        for (int axis = 0; axis < 2; ++axis)
#pragma unroll
          for (int c = 0; c < T::kOwn; ++c) {
            Vector v;
#pragma unroll
            for (int i = 0; i < V; ++i) v.v[i] = alpha_own[axis][c * V + i];
            v.store_shared(area + (axis * groups + place.group) * T::kPitch + place.own + c * T::kChunkStride);
          }
      }
      __syncthreads();
      for (int i = thread; i < 2 * T::kPoints; i += kThreads) {
        const Real* term = area + i / T::kPoints * groups * T::kPitch + i % T::kPoints;
        Real sum = alpha_sums[i];
        for (int group = 0; group < groups; ++group) sum += term[group * T::kPitch];
        alpha_sums[i] = sum;
      }
    };

    // Values, upwards: h_l in `current`, above the last layer g_L.
    Real *current = shared.first, *spare = shared.second;
    const Layer bottom = net.layer[0];
#pragma unroll 1
    for (int pass = 0; pass < bottom.passes; ++pass) {
      if (kEncoded || last > 0) {
        for_cells<T>(bottom, pass, own(), constants, [&](const Cell& cell, const K& k) {
          Vector h = first_a<T>(point_data, cell.point, k);
#pragma unroll
          for (int i = 0; i < V; ++i) h.v[i] = value_of<kEncoded>(h.v[i]);
          h.store_shared(current + cell.offset);
        });
      } else {
        for_cells<T>(bottom, pass, own(), constants, [&](const Cell& cell, const K& k) {
          Vector h = first_a<T>(point_data, cell.point, k), g;
#pragma unroll
          for (int i = 0; i < V; ++i) {
            const Activation<Real> s = activate(h.v[i]);
            h.v[i] = s.value;
            g.v[i] = k.output * s.first();
          }
          add_psi(h, cell, k.output);
          add_alpha(g, cell, k);
        });
        sum_psi(ring.idle(), bottom.groups);
        sum_alpha(spare, bottom.groups, pass);
      }
    }
#pragma unroll 1
    for (int l = 1; l <= last; ++l) {
      const Layer layer = net.layer[l];
      Real* const tape_a = tape + layer.tape_a;
      product<T>(current, spare, layer, padded_rows<T>(net.layer[l - 1].width), ring, place,
                 [&](const Sums& acc, int pass) {
                   const auto hidden = [&](auto keep) {
                     for_sums<T>(acc, layer, pass, own(), constants, [&](Vector a, const Cell& cell, const K& k) {
                       Vector h, first;
#pragma unroll
                       for (int i = 0; i < V; ++i) {
                         a.v[i] += k.bias;
                         const Activation<Real> s = activate(a.v[i]);
                         h.v[i] = s.value;
                         first.v[i] = s.first();
                       }
                       a.store(tape_a + cell.at);
                       h.store_shared(spare + cell.offset);
                       if constexpr (decltype(keep)::value) first.store_shared(shared.kept + cell.at);
                     });
                   };
                   if (l == net.kept) {
                     hidden(std::true_type{});
                   } else if (l < last) {
                     hidden(std::false_type{});
                   } else {
                     forget_sums<T>(psi_own);
                     for_sums<T>(acc, layer, pass, own(), constants, [&](Vector a, const Cell& cell, const K& k) {
                       Vector h, g;
#pragma unroll
                       for (int i = 0; i < V; ++i) {
                         a.v[i] += k.bias;
                         const Activation<Real> s = activate(a.v[i]);
                         h.v[i] = s.value;
                         g.v[i] = k.output * s.first();
                       }
                       a.store(tape_a + cell.at);
                       add_psi(h, cell, k.output);
                       g.store_shared(spare + cell.offset);
                     });
                     sum_psi(ring.idle(), layer.groups);
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
                add_alpha(g, cell, k);
              });
              sum_alpha(spare, layer.groups, pass);
            } else {
              const auto hidden = [&](auto kept) {
                for_sums<T>(acc, layer, pass, own(), constants, [&](const Vector& p, const Cell& cell, const K&) {
                  p.store(tape_p + cell.at);
                  Vector g;
                  if constexpr (decltype(kept)::value) {
                    g = Vector::load(shared.kept + cell.at);
                  } else {
                    g = Vector::load(tape_a + cell.at);
#pragma unroll
                    for (int i = 0; i < V; ++i) g.v[i] = activate(g.v[i]).first();
                  }
#pragma unroll
                  for (int i = 0; i < V; ++i) g.v[i] *= p.v[i];
                  g.store_shared(spare + cell.offset);
                });
              };
              if (l == net.kept)
                hidden(std::true_type{});
              else
                hidden(std::false_type{});
            }
          });
      Real* swap = current;
      current = spare;
      spare = swap;
    }

    // The threads that added the sums of a point read them again.
    for (int px = thread; px < valid; px += kThreads)
      psi[static_cast<std::size_t>(lens) * net.points + first_point + px] =
          psi_sums[px] + all_parameters[lens * stride + net.last_bias];
    for (int i = thread; i < 2 * T::kPoints; i += kThreads) {
      const int axis = i / T::kPoints, px = i % T::kPoints;
      if (px < valid)
        alpha[(static_cast<std::size_t>(lens) * 2 + axis) * net.points + first_point + px] = net.scale * alpha_sums[i];
    }
  }
}

}  // namespace einfield::cuda::tiled
