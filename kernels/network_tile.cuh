// Fused tile kernels of the network: a block keeps the activations of T points in shared memory through all layers.
// The chain of derivatives is that of network.hpp (Biggio et al. 2021, the network; its adjoint derived there).
//
// A product of a layer is an outer-product accumulation: out[ch][px] = Σ_k W[k][ch] · in[k][px].
//
//   shared memory   two buffers [channel][T + pad] that swap roles product by product, and a ring of two weight stages
//   registers       a thread owns kChannels × kPixels sums; half of the block takes every other group of rows k
//                   ("split"), then the halves exchange: each finishes one half of the points of every register tile
//   weights         packed once per step in the order in which the ring reads them (pack_kernel), both W and Wᵀ
//   tape            a_l and p_l in register order: 16 bytes per lane, lanes adjacent, nothing but whole sectors
//   weight gradient out[i][o] = Σ_px p̄[i][px] g[o][px] + h[i][px] ā[o][px]: a thread owns kGradIn × kGradOut sums over
//                   both terms; each block writes its sums once, reduce_kernel adds the blocks in order
//
// Why these register tiles: a warp loads (kChannels + kPixels) numbers per kChannels · kPixels multiply-adds, and shared
// memory delivers 32 numbers a clock where the fp32 units take 128: 8 × 8 would need every clock of both, 8 × 16 needs
// 3/4 of them, 8 × 20 (gradient) 7/10.
#pragma once

#include <cstddef>

#include "einfield/network.hpp"

namespace einfield::cuda::tiled {

constexpr int kThreads = 256;
constexpr int kSplit = 2;                 // parts of the block that share the rows k of a product
constexpr int kItems = kThreads / kSplit;  // register tiles per product and pass
constexpr int kUnroll = 2;                // consecutive rows of one part; with 4, ptxas loads so far ahead that it spills
constexpr int kUnit = kSplit * kUnroll;   // rows are padded to a multiple of this with zero weights
constexpr int kSlots = 2;                 // stages of the ring
constexpr int kStrands = 8;               // of reduce_kernel: partial sums of one element

/// Register tiles. kVector numbers make the 16 bytes of one access.
template <class Real>
struct Registers;
template <>
struct Registers<float> {
  static constexpr int kVector = 4, kPixels = 16, kChannels = 8, kGradIn = 20, kGradOut = 8;
};
template <>
struct Registers<double> {
  static constexpr int kVector = 2, kPixels = 4, kChannels = 8, kGradIn = 8, kGradOut = 4;
};

/// A tile of kPoints points: kGroups register tiles side by side. Everything that addresses shared memory in an inner
/// loop is a constant of this type. The pitch is an odd number of vectors: eight consecutive rows start in eight
/// different groups of banks.
template <class RealType, int kGroupsOfPixels>
struct Tile : Registers<RealType> {
  using Real = RealType;
  using Base = Registers<Real>;
  static constexpr int kGroups = kGroupsOfPixels;
  static constexpr int kPoints = kGroups * Base::kPixels;
  static constexpr int kPitch = kPoints + Base::kVector;
  static constexpr int kChunks = Base::kPixels / Base::kVector;  // vectors of points per register tile
  static constexpr int kOwn = kChunks / kSplit;                  // of these, finished by one thread
  static constexpr int kChunkStride = kGroups * Base::kVector;   // points between the chunks of a register tile
  static constexpr int kMaxGroups = kItems / kGroups;            // groups of channels per pass
  static constexpr int kWeightPitch = kMaxGroups * Base::kChannels;
};

/// One hidden layer, and the matrix that leads to it from the layer below (none for layer 0).
struct Layer {
  int width;
  int groups;  // groups of kChannels channels per pass; channel = (pass · kChannels + j) · groups + group
  int passes;
  int kernel, bias;                // offsets in the parameters
  int tape_a, tape_p;              // offsets in a tile's tape: a of layers ≥ 1, p of layers below the last
  int g_bar;                       // offset in a block's sums: ḡ, then ā, of the tile at hand, of layers ≥ 1
  int constants;                   // offset of the layer's Constants, with which the packed weights begin
  int value_pack, gradient_pack;   // offsets in the packed weights
  int partial;                     // offset of the matrix's gradient in a block's sums
  int bias_partial;
  int grad_in, grad_out;           // register tiles along the rows and columns of the matrix
  int grad_items, grad_passes, grad_ways;  // per pass; ways = parts of the block that share the points
  int pack_block, reduce_block;    // first block of pack_kernel and reduce_kernel that serves this matrix
};

/// What a channel needs besides its products: W₁ and the bias, and the channel's weight in ψ if its layer is the last.
/// Zero for channels of padding.
template <class Real>
struct alignas(16) Constants {
  Real w_x, w_y, bias, output;
};

/// Everything the kernels need, by value.
template <class Real>
struct Network {
  int layers, points, tiles, stage_rows, rows;  // rows: of an activation buffer
  int last_kernel, last_bias;                              // offsets in the parameters
  int first_partial, last_partial, partial_size;           // offsets in a block's sums; what follows is ḡ
  int tape_size, sums_size;                                // per tile, per block
  int pack_size, pack_blocks, constants_size, reduce_blocks;
  Real scale;
  Real* packed;
  Real* tape;
  Real* sums;
  Layer layer[kMaxHiddenLayers];
};

// ---- small pieces ---------------------------------------------------------------------------------------------------

/// The same number, of which the compiler knows nothing: what was loaded or computed from it before is not kept in
/// registers until here but made again. For the kernels that need every register.
__device__ __forceinline__ int forget(int x) {
  asm volatile("" : "+r"(x));
  return x;
}

__device__ inline unsigned shared_address(const void* p) { return static_cast<unsigned>(__cvta_generic_to_shared(p)); }

template <class Real>
struct Pack;  // one 16-byte access
template <>
struct Pack<float> {
  float v[4];
  __device__ static Pack load(const float* p) {
    const float4 q = *reinterpret_cast<const float4*>(p);
    return {{q.x, q.y, q.z, q.w}};
  }
  __device__ void store(float* p) const { *reinterpret_cast<float4*>(p) = make_float4(v[0], v[1], v[2], v[3]); }
  /// To shared memory. In PTX, since the compiler splits the plain store into four, which then conflict.
  __device__ void store_shared(float* p) const {
    asm volatile("st.shared.v4.f32 [%0], {%1, %2, %3, %4};" ::"r"(shared_address(p)), "f"(v[0]), "f"(v[1]), "f"(v[2]),
                 "f"(v[3])
                 : "memory");
  }
};
template <>
struct Pack<double> {
  double v[2];
  __device__ static Pack load(const double* p) {
    const double2 q = *reinterpret_cast<const double2*>(p);
    return {{q.x, q.y}};
  }
  __device__ void store(double* p) const { *reinterpret_cast<double2*>(p) = make_double2(v[0], v[1]); }
  __device__ void store_shared(double* p) const {
    asm volatile("st.shared.v2.f64 [%0], {%1, %2};" ::"r"(shared_address(p)), "d"(v[0]), "d"(v[1]) : "memory");
  }
};

/// Swish and its derivatives from σ(a) and τ = σ(−a) (network.hpp):
///     s = aσ,   s′ = σ + sτ,   s″ = τ(2σ + s(τ − σ))
template <class Real>
struct Activation {
  Real sigma, tau, value;
  __device__ Real first() const { return fma(value, tau, sigma); }
  __device__ Real second() const { return tau * fma(value, tau - sigma, 2 * sigma); }
};
__device__ inline Activation<double> activate(double a) {
  const double e = exp(a < 0 ? a : -a), inverse = 1 / (1 + e);
  const double sigma = a < 0 ? e * inverse : inverse, tau = a < 0 ? inverse : e * inverse;
  return {sigma, tau, a * sigma};
}
/// With E = e^(−a): σ = 1/(1 + E), τ = Eσ; both keep their relative accuracy. Two special-function instructions, each
/// good to 2 units in the last place; their argument a log₂e is rounded before, which costs σ and τ an absolute error
/// below 3e-8. The clamp keeps E finite, so that τ → 1 and not 0 · ∞; NaN comes back through the factor a.
__device__ inline Activation<float> activate(float a) {
  float e, sigma;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(e) : "f"(fminf(a * -1.4426950408889634f, 126.0f)));
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(sigma) : "f"(1.0f + e));
  return {sigma, e * sigma, a * sigma};
}

/// Where a thread stands: which register tile of a product, which part of the rows, which points are its own to finish.
template <class T>
struct Place {
  int split, group, own, other;  // own, other: first point of the own chunks and of the partner's
  __device__ explicit Place(int thread) {
    const int item = thread % kItems, pixel_group = item % T::kGroups;
    split = thread / kItems;
    group = item / T::kGroups;
    const int half = T::kOwn * T::kChunkStride;
    own = T::kVector * pixel_group + split * half;
    other = T::kVector * pixel_group + (1 - split) * half;
  }
};

/// A vector of points of one channel that a thread finishes: which of its own, and where it lies.
struct Cell {
  int j, c;           // acc[j][c · kVector …]
  int offset, point;  // in a buffer; first point
  std::ptrdiff_t at;  // in an array of the tape or of ḡ
};

/// Calls f(cell, constants of its channel) for each vector that this thread finishes in one pass over a layer. Channels of
/// padding are computed like the others (buffers and tape have room, weights and constants are zero): a branch each
/// would cost more. f may index registers by cell.j only where all channels are unrolled.
template <class T, int kUnrollChannels = T::kChannels, class F>
__device__ __forceinline__ void for_own(const Layer& layer, int pass, const Place<T>& place,
                                        const Constants<typename T::Real>* all_constants, F f) {
  const int groups = layer.groups;
  if (place.group >= groups) return;
  constexpr int kStep = kThreads * T::kVector;  // one vector of every thread
  const int channel = pass * T::kChannels * groups + place.group;
  const Constants<typename T::Real>* constants = all_constants + layer.constants + channel;
  const std::ptrdiff_t at = pass * T::kChannels * T::kOwn * kStep + static_cast<int>(threadIdx.x) * T::kVector;
  int offset = channel * T::kPitch + place.own;
#pragma unroll kUnrollChannels
  for (int j = 0; j < T::kChannels; ++j, offset += groups * T::kPitch, constants += groups) {
    const Constants<typename T::Real> k = *constants;
#pragma unroll
    for (int c = 0; c < T::kOwn; ++c)
      f(Cell{j, c, offset + c * T::kChunkStride, place.own + c * T::kChunkStride, at + (j * T::kOwn + c) * kStep}, k);
  }
}

/// The weights on their way from L2: whole stages of consecutive rows, copied while the stage before is in use.
template <class T>
class Ring {
 public:
  using Real = typename T::Real;
  __device__ Ring(Real* slots, int stage_rows) : slots_(slots), stage_rows_(stage_rows) {}
  /// Starts the copy of up to stage_rows of `rows` rows into the slot that is not in use, after the wait() that freed it.
  __device__ void fetch(const Real* weights, int rows) {
    const int first = static_cast<int>(threadIdx.x) * T::kVector;
    const Real* source = weights + first;
    Real* target = slots_ + next_ * stage_rows_ * T::kWeightPitch + first;
#pragma unroll 4
    for (int left = min(rows, stage_rows_) * T::kWeightPitch - first; left > 0; left -= kThreads * T::kVector) {
      copy_async(target, source);
      source += kThreads * T::kVector;
      target += kThreads * T::kVector;
    }
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
  }
  /// The stage fetched last; every thread has left the one before, and sees all earlier writes to shared memory.
  __device__ const Real* wait() {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_group 0;" ::: "memory");
#endif
    __syncthreads();
    const Real* slot = slots_ + next_ * stage_rows_ * T::kWeightPitch;
    next_ ^= 1;
    return slot;
  }

 private:
  /// 16 bytes to shared memory: without a stop in a register where the device can (compute capability 8.0).
  __device__ static void copy_async(Real* target, const Real* source) {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(target)),
                 "l"(__cvta_generic_to_global(source))
                 : "memory");
#else
    Pack<Real>::load(source).store_shared(target);
#endif
  }

  Real* slots_;
  int stage_rows_, next_ = 0;
};

/// One pass of a product: packed weights of `rows` rows of kWeightPitch numbers; data null when there is none.
template <class Real>
struct Weights {
  const Real* data;
  int rows;
};

/// acc[j][i] = Σ_k W[k][channel j] · in[k][point i] for this thread's register tile. The first stage has been fetched; the
/// first stage of `next` is fetched behind the last of this pass. The points come as own chunks, then the partner's.
/// On return every thread may write anything but `in`, the halves have exchanged their sums through `out` (rows of this
/// pass), and the first kOwn chunks of acc are complete.
template <class T, class Real = typename T::Real>
__device__ __forceinline__ void multiply(Real (&acc)[T::kChannels][T::kPixels], const Real* in, Real* out,
                                         const Layer& layer, int pass, const Weights<Real>& weights,
                                         const Weights<Real>& next, Ring<T>& ring, int stage_rows,
                                         const Place<T>& place) {
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
  for (int row = 0; row < weights.rows; row += stage_rows) {
    const Real* stage = ring.wait();
    const int count = min(stage_rows, weights.rows - row), left = weights.rows - row - count;
    if (left > 0)
      ring.fetch(weights.data + (row + count) * kWeightPitch, left);
    else if (next.data != nullptr)
      ring.fetch(next.data, next.rows);
    if (!active) continue;
    const Real* w = stage + place.split * kUnroll * kWeightPitch + T::kChannels * place.group;
#pragma unroll 1
    for (int unit = 0; unit < count; unit += kUnit) {
#pragma unroll
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
    }
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

/// A product over all passes of `layer` (its output): epilogue(vector, cell, constants) finishes each vector and stores
/// it. `next` is the product that follows.
template <class T, class Real = typename T::Real, class Epilogue>
__device__ __forceinline__ void product(const Real* in, Real* out, const Layer& layer, Weights<Real> weights,
                                        const Weights<Real>& next, Ring<T>& ring, int stage_rows,
                                        const Place<T>& place, const Constants<Real>* constants, Epilogue epilogue) {
#pragma unroll 1
  for (int pass = 0; pass < layer.passes; ++pass) {
    Weights<Real> following = weights;
    following.data += weights.rows * T::kWeightPitch;
    if (pass + 1 == layer.passes) following = next;
    Real acc[T::kChannels][T::kPixels];
    multiply<T>(acc, in, out, layer, pass, weights, following, ring, stage_rows, place);
    for_own<T>(layer, pass, place, constants, [&](const Cell& cell, const Constants<Real>& k) {
      Pack<Real> v;
#pragma unroll
      for (int i = 0; i < T::kVector; ++i) v.v[i] = acc[cell.j][cell.c * T::kVector + i];
      epilogue(v, cell, k);
    });
    weights = following;
  }
}

/// acc[a][b] += Σ_px in[i_a][px] · out[o_b][px] over this thread's share of the points: rows i_a consecutive, rows o_b
/// grad_out apart (consecutive lanes take consecutive rows: no bank conflict).
template <class T, class Real = typename T::Real>
__device__ __forceinline__ void multiply_gradient(Real (&acc)[T::kGradIn][T::kGradOut], const Real* in, const Real* out,
                                                  const Layer& layer, int pass) {
  constexpr int V = T::kVector;
  const int thread = threadIdx.x, way = thread / layer.grad_items;
  const int item = pass * kThreads + thread % layer.grad_items;
  const int column = item % layer.grad_out, row = item / layer.grad_out;
  if (row >= layer.grad_in || way >= layer.grad_ways) return;
  constexpr int kVectors = T::kPoints / V;
  const int share = (kVectors + layer.grad_ways - 1) / layer.grad_ways, first = way * share;
  const Real* x = in + row * T::kGradIn * T::kPitch + first * V;
  const Real* y[T::kGradOut];
#pragma unroll
  for (int b = 0; b < T::kGradOut; ++b) y[b] = out + (column + b * layer.grad_out) * T::kPitch + first * V;
#pragma unroll 1
  for (int left = min(share, kVectors - first); left > 0; --left, x += V) {
    Pack<Real> q[T::kGradOut];
#pragma unroll
    for (int b = 0; b < T::kGradOut; ++b) {
      q[b] = Pack<Real>::load(y[b]);
      y[b] += V;
    }
#pragma unroll
    for (int a = 0; a < T::kGradIn; ++a) {
      const Pack<Real> p = Pack<Real>::load(x + a * T::kPitch);
#pragma unroll
      for (int i = 0; i < V; ++i)
#pragma unroll
        for (int b = 0; b < T::kGradOut; ++b) acc[a][b] = fma(p.v[i], q[b].v[i], acc[a][b]);
    }
  }
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

/// The block's shared memory: two activation buffers, the ring, and what is known per point.
template <class T>
struct Shared {
  using Real = typename T::Real;
  Real *first, *second, *slots, *point;  // point: kPoints each of u_x, u_y, ℓᾱ_x, ℓᾱ_y, ψ̄
  __device__ Shared(void* memory, const Network<Real>& net) {
    first = static_cast<Real*>(memory);
    second = first + net.rows * T::kPitch;
    slots = second + net.rows * T::kPitch;
    point = slots + kSlots * net.stage_rows * T::kWeightPitch;
  }
  /// Rows and columns of padding meet zero weights or zero cotangents: they must hold finite numbers.
  __device__ void clear(const Network<Real>& net) const {
    const Pack<Real> zero{};
    for (int i = static_cast<int>(threadIdx.x) * T::kVector; i < 2 * net.rows * T::kPitch; i += kThreads * T::kVector)
      zero.store_shared(first + i);
  }
  static std::size_t bytes(int rows, int stage_rows) {
    return static_cast<std::size_t>(2 * rows * T::kPitch + kSlots * stage_rows * T::kWeightPitch + 5 * T::kPoints) *
           sizeof(Real);
  }
};

/// a_l of a cell: from the tape, or for the first layer, where two multiply-adds are cheaper, anew.
template <class T, class Real = typename T::Real>
__device__ __forceinline__ Pack<Real> pre_activation(bool first_layer, const Real* tape_a, const Real* point_data,
                                                     const Cell& cell, const Constants<Real>& k) {
  if (!first_layer) return Pack<Real>::load(tape_a + cell.at);
  const Pack<Real> x = Pack<Real>::load(point_data + cell.point),
                   y = Pack<Real>::load(point_data + T::kPoints + cell.point);
  Pack<Real> a;
#pragma unroll
  for (int i = 0; i < T::kVector; ++i) a.v[i] = fma(k.w_x, x.v[i], fma(k.w_y, y.v[i], k.bias));
  return a;
}

/// ḡ_l of a cell: from the block's sums, or ℓ W₁ᾱ for the first layer (ℓᾱ is what point_data holds).
template <class T, class Real = typename T::Real>
__device__ __forceinline__ Pack<Real> g_bar_of(bool first_layer, const Real* layer_g, const Real* point_data,
                                               const Cell& cell, const Constants<Real>& k) {
  if (!first_layer) return Pack<Real>::load(layer_g + cell.at);
  const Pack<Real> x = Pack<Real>::load(point_data + 2 * T::kPoints + cell.point),
                   y = Pack<Real>::load(point_data + 3 * T::kPoints + cell.point);
  Pack<Real> g;
#pragma unroll
  for (int i = 0; i < T::kVector; ++i) g.v[i] = fma(k.w_x, x.v[i], k.w_y * y.v[i]);
  return g;
}

/// p_l of a cell: from the tape, or w for the last layer.
template <class T, class Real = typename T::Real>
__device__ __forceinline__ Pack<Real> p_of(bool last_layer, const Real* tape_p, const Cell& cell,
                                           const Constants<Real>& k) {
  if (!last_layer) return Pack<Real>::load(tape_p + cell.at);
  Pack<Real> p;
#pragma unroll
  for (int i = 0; i < T::kVector; ++i) p.v[i] = k.output;
  return p;
}

__device__ __forceinline__ int padded_rows(int width) {
  return (width + kUnit - 1) / kUnit * kUnit;
}

/// W of matrix l (from layer l − 1 to l), which makes layer l; no matrix l: null.
template <class Real>
__device__ __forceinline__ Weights<Real> value_weights(const Network<Real>& net, const Real* packed, int l) {
  if (l < 1 || l >= net.layers) return {nullptr, 0};
  return {packed + net.layer[l].value_pack, padded_rows(net.layer[l - 1].width)};
}
/// Wᵀ of matrix l, which makes layer l − 1.
template <class Real>
__device__ __forceinline__ Weights<Real> gradient_weights(const Network<Real>& net, const Real* packed, int l) {
  if (l < 1 || l >= net.layers) return {nullptr, 0};
  return {packed + net.layer[l].gradient_pack, padded_rows(net.layer[l].width)};
}

// ---- kernels --------------------------------------------------------------------------------------------------------

/// Packs W and Wᵀ of every matrix in the order of the ring: [pass][row k][group][channel], zero where row or channel are
/// padding; and the Constants of every channel. One thread per number or per channel; y is the lens.
template <class T>
__global__ void pack_kernel(const __grid_constant__ Network<typename T::Real> net,
                            const typename T::Real* all_parameters, std::size_t stride) {
  using Real = typename T::Real;
  const Real* parameters = all_parameters + blockIdx.y * stride;
  const int x = blockIdx.x;
  if (x >= net.pack_blocks) {
    const int index = (x - net.pack_blocks) * static_cast<int>(blockDim.x) + static_cast<int>(threadIdx.x);
    if (index >= net.constants_size) return;
    int l = 0;
    while (l + 1 < net.layers && index >= net.layer[l + 1].constants) ++l;
    const int channel = index - net.layer[l].constants, width = net.layer[l].width;
    Constants<Real> k{};
    if (channel < width) {
      if (l == 0) {
        k.w_x = parameters[net.layer[0].kernel + channel];
        k.w_y = parameters[net.layer[0].kernel + width + channel];
      }
      k.bias = parameters[net.layer[l].bias + channel];
      if (l + 1 == net.layers) k.output = parameters[net.last_kernel + channel];
    }
    reinterpret_cast<Constants<Real>*>(net.packed + static_cast<std::size_t>(blockIdx.y) * net.pack_size)[index] = k;
    return;
  }
  int l = 1;
  while (l + 1 < net.layers && x >= net.layer[l + 1].pack_block) ++l;
  const Layer& layer = net.layer[l];
  const Layer& below = net.layer[l - 1];
  const int index = (x - layer.pack_block) * static_cast<int>(blockDim.x) + static_cast<int>(threadIdx.x);
  const int value_size = layer.passes * padded_rows(below.width) * T::kWeightPitch;
  const int gradient_size = below.passes * padded_rows(layer.width) * T::kWeightPitch;
  if (index >= value_size + gradient_size) return;
  const bool value = index < value_size;
  const Layer& to = value ? layer : below;
  const Layer& from = value ? below : layer;
  const int position = value ? index : index - value_size;
  const int rows = padded_rows(from.width), in_row = position % T::kWeightPitch;
  const int row = position / T::kWeightPitch % rows, pass = position / T::kWeightPitch / rows;
  const int j = in_row % T::kChannels, group = in_row / T::kChannels;
  const int channel = (pass * T::kChannels + j) * to.groups + group;
  Real w = 0;
  if (row < from.width && group < to.groups && channel < to.width)
    w = parameters[layer.kernel + (value ? row * layer.width + channel : channel * layer.width + row)];
  net.packed[static_cast<std::size_t>(blockIdx.y) * net.pack_size + (value ? layer.value_pack : layer.gradient_pack) +
             position] = w;
}

/// ψ and α of all points; writes the tape. x: blocks that share the tiles of a lens, y: lens.
template <class T>
__global__ void __launch_bounds__(kThreads, 1)
    network_kernel(const __grid_constant__ Network<typename T::Real> net, const typename T::Real* all_parameters,
                   std::size_t stride, const typename T::Real* positions, typename T::Real* psi,
                   typename T::Real* alpha) {
  using Real = typename T::Real;
  using Vector = Pack<Real>;
  using K = Constants<Real>;
  constexpr int V = T::kVector;
  extern __shared__ __align__(16) unsigned char memory[];
  const Shared<T> shared(memory, net);
  const Place<T> place(threadIdx.x);
  const int thread = threadIdx.x, lens = blockIdx.y, last = net.layers - 1, stage_rows = net.stage_rows;
  const Real* packed = net.packed + static_cast<std::size_t>(lens) * net.pack_size;
  const K* const constants = reinterpret_cast<const K*>(packed);
  Real* const point_data = shared.point;
  Ring<T> ring(shared.slots, stage_rows);
  shared.clear(net);
  if (last > 0) ring.fetch(packed + net.layer[1].value_pack, padded_rows(net.layer[0].width));

#pragma unroll 1
  for (int tile = blockIdx.x; tile < net.tiles; tile += gridDim.x) {
    const int first_point = tile * T::kPoints, valid = min(T::kPoints, net.points - first_point);
    Real* const tape = net.tape + (static_cast<std::size_t>(lens) * net.tiles + tile) * net.tape_size;
    const bool more = tile + static_cast<int>(gridDim.x) < net.tiles;
    __syncthreads();  // the tile before has left shared memory
    for (int i = thread; i < 2 * T::kPoints; i += kThreads) {
      const int px = i % T::kPoints;
      point_data[i] = px < valid ? net.scale * positions[(i / T::kPoints) * net.points + first_point + px] : Real(0);
    }
    __syncthreads();

    // Values, upwards: h_l in `current`.
    Real *current = shared.first, *spare = shared.second;
    const Layer bottom = net.layer[0];
#pragma unroll 1
    for (int pass = 0; pass < bottom.passes; ++pass)
      for_own<T>(bottom, pass, place, constants, [&](const Cell& cell, const K& k) {
        Vector h = pre_activation<T>(true, tape, point_data, cell, k);
#pragma unroll
        for (int i = 0; i < V; ++i) h.v[i] = activate(h.v[i]).value;
        h.store_shared(current + cell.offset);
      });
#pragma unroll 1
    for (int l = 1; l <= last; ++l) {
      const Layer layer = net.layer[l];
      Real* const tape_a = tape + layer.tape_a;
      product<T>(current, spare, layer, value_weights(net, packed, l),
                 l < last ? value_weights(net, packed, l + 1) : gradient_weights(net, packed, last), ring, stage_rows,
                 place, constants, [&](Vector a, const Cell& cell, const K& k) {
                   Vector h;
#pragma unroll
                   for (int i = 0; i < V; ++i) {
                     a.v[i] += k.bias;
                     h.v[i] = activate(a.v[i]).value;
                   }
                   a.store(tape_a + cell.at);
                   h.store_shared(spare + cell.offset);
                 });
      Real* swap = current;
      current = spare;
      spare = swap;
    }

    // ψ = w · h_L + b. The channels of a vector of points are shared out to kShares threads, their sums meet in `spare`.
    constexpr int kVectors = T::kPoints / V, kShares = kThreads / kVectors;
    const int share = thread / kVectors, vector = thread % kVectors * V;
    const Layer top = net.layer[last];
    __syncthreads();
    if (share < kShares) {
      Vector sum{};
      const K* k = constants + top.constants + share;
      const Real* h = current + share * T::kPitch + vector;
      for (int ch = share; ch < top.width; ch += kShares, k += kShares, h += kShares * T::kPitch) {
        const Vector v = Vector::load(h);
        const Real w = k->output;
#pragma unroll
        for (int i = 0; i < V; ++i) sum.v[i] = fma(w, v.v[i], sum.v[i]);
      }
      sum.store_shared(spare + share * T::kPoints + vector);
    }
    __syncthreads();
    if (thread < valid) {
      Real sum = all_parameters[lens * stride + net.last_bias];
      for (int s = 0; s < kShares; ++s) sum += spare[s * T::kPoints + thread];
      psi[static_cast<std::size_t>(lens) * net.points + first_point + thread] = sum;
    }

    // Gradient, downwards: g_l in `current`.
#pragma unroll 1
    for (int pass = 0; pass < top.passes; ++pass)
      for_own<T>(top, pass, place, constants, [&](const Cell& cell, const K& k) {
        Vector g = pre_activation<T>(last == 0, tape + top.tape_a, point_data, cell, k);
#pragma unroll
        for (int i = 0; i < V; ++i) g.v[i] = k.output * activate(g.v[i]).first();
        g.store_shared(current + cell.offset);
      });
#pragma unroll 1
    for (int l = last - 1; l >= 0; --l) {
      const Layer layer = net.layer[l];
      Real* const tape_p = tape + layer.tape_p;
      const Real* const tape_a = tape + layer.tape_a;
      Weights<Real> next = gradient_weights(net, packed, l);
      if (l == 0 && more) next = value_weights(net, packed, 1);
      product<T>(current, spare, layer, gradient_weights(net, packed, l + 1), next, ring, stage_rows, place, constants,
                 [&](const Vector& p, const Cell& cell, const K& k) {
                   Vector g = pre_activation<T>(l == 0, tape_a, point_data, cell, k);
                   p.store(tape_p + cell.at);
#pragma unroll
                   for (int i = 0; i < V; ++i) g.v[i] = p.v[i] * activate(g.v[i]).first();
                   g.store_shared(spare + cell.offset);
                 });
      Real* swap = current;
      current = spare;
      spare = swap;
    }

    // α = ℓ W₁ᵀg₁.
    __syncthreads();
    if (share < kShares) {
      Vector x{}, y{};
      const K* k = constants + bottom.constants + share;
      const Real* g = current + share * T::kPitch + vector;
      for (int ch = share; ch < bottom.width; ch += kShares, k += kShares, g += kShares * T::kPitch) {
        const Vector v = Vector::load(g);
        const Real w_x = k->w_x, w_y = k->w_y;
#pragma unroll
        for (int i = 0; i < V; ++i) {
          x.v[i] = fma(w_x, v.v[i], x.v[i]);
          y.v[i] = fma(w_y, v.v[i], y.v[i]);
        }
      }
      x.store_shared(spare + share * T::kPoints + vector);
      y.store_shared(spare + (kShares + share) * T::kPoints + vector);
    }
    __syncthreads();
    for (int i = thread; i < 2 * T::kPoints; i += kThreads) {
      const int axis = i / T::kPoints, at = i % T::kPoints;
      if (at >= valid) continue;
      Real sum = 0;
      for (int s = 0; s < kShares; ++s) sum += spare[(axis * kShares + s) * T::kPoints + at];
      alpha[(static_cast<std::size_t>(lens) * 2 + axis) * net.points + first_point + at] = net.scale * sum;
    }
  }
}

/// The adjoint of network_kernel: partial sums of all parameter gradients, one set per block. A tile whose cotangents
/// are all zero is left out: it would add zeros.
template <class T>
__global__ void __launch_bounds__(kThreads, 1)
    network_adjoint_kernel(const __grid_constant__ Network<typename T::Real> net,
                           const typename T::Real* positions, const typename T::Real* alpha_bar,
                           const typename T::Real* psi_bar) {
  using Real = typename T::Real;
  using Vector = Pack<Real>;
  using K = Constants<Real>;
  constexpr int V = T::kVector;
  extern __shared__ __align__(16) unsigned char memory[];
  const Shared<T> shared(memory, net);
  const Place<T> place(threadIdx.x);
  const int thread = threadIdx.x, lens = blockIdx.y, last = net.layers - 1, stage_rows = net.stage_rows;
  const Real* packed = net.packed + static_cast<std::size_t>(lens) * net.pack_size;
  const K* const constants = reinterpret_cast<const K*>(packed);
  const std::size_t block = static_cast<std::size_t>(lens) * gridDim.x + blockIdx.x;
  Real* const sums = net.sums + block * net.sums_size;
  Real* const point_data = shared.point;
  const Real* const psi_cotangent = point_data + 4 * T::kPoints;
  Ring<T> ring(shared.slots, stage_rows);
  shared.clear(net);
  bool touched = false;  // the sums hold something
  const auto add_partial = [&](int index, Real value) {
    sums[index] = touched ? sums[index] + value : value;
  };
  /// ā_L = w∘(s″(a)∘ḡ + ψ̄ s′(a))
  const auto top_a_bar = [](const Activation<Real>& s, Real w, Real g_bar, Real psi_bar_value) {
    return w * fma(s.second(), g_bar, s.first() * psi_bar_value);
  };

#pragma unroll 1
  for (int tile = blockIdx.x; tile < net.tiles; tile += gridDim.x) {
    const int first_point = tile * T::kPoints, valid = min(T::kPoints, net.points - first_point);
    bool any = false;
    __syncthreads();  // the tile before has left shared memory
    constexpr const Real* no_tape = nullptr;
    const auto tape = [&]() -> const Real* {  // anew wherever it is needed
      return net.tape + (static_cast<std::size_t>(lens) * net.tiles + forget(tile)) * net.tape_size;
    };
#pragma unroll 1
    for (int i = thread; i < 5 * T::kPoints; i += kThreads) {
      const int what = i / T::kPoints, px = i % T::kPoints;
      Real value = 0;
      if (px < valid) {
        if (what < 2)
          value = net.scale * positions[what * net.points + first_point + px];
        else if (what < 4)
          value = net.scale * alpha_bar[(static_cast<std::size_t>(lens) * 2 + what - 2) * net.points + first_point + px];
        else if (psi_bar != nullptr)
          value = psi_bar[static_cast<std::size_t>(lens) * net.points + first_point + px];
        any |= what >= 2 && value != 0;
      }
      point_data[i] = value;
    }
    if (!__syncthreads_or(any)) continue;
    if (last > 0) ring.fetch(packed + net.layer[1].value_pack, padded_rows(net.layer[0].width));

    // Upwards: p̄_l in `current` (at the top p̄_L + ψ̄ h_L, whose sum is w̄), ḡ_l in the block's sums (at the top ā_L).
    Real *current = shared.first, *spare = shared.second;
    const Layer bottom = net.layer[0];
#pragma unroll 1
    for (int pass = 0; pass < bottom.passes; ++pass)
      for_own<T>(bottom, pass, place, constants, [&](const Cell& cell, const K& k) {
        const Vector a = pre_activation<T>(true, no_tape, point_data, cell, k);
        Vector p = g_bar_of<T>(true, sums, point_data, cell, k);
#pragma unroll
        for (int i = 0; i < V; ++i) p.v[i] *= activate(a.v[i]).first();
        if (last == 0) {
          const Vector c = Vector::load(psi_cotangent + cell.point);
#pragma unroll
          for (int i = 0; i < V; ++i) p.v[i] += c.v[i] * activate(a.v[i]).value;
        }
        p.store_shared(current + cell.offset);
      });
#pragma unroll 1
    for (int l = 1; l <= last; ++l) {
      const Layer layer = net.layer[l];
      const Real* const tape_a = tape() + layer.tape_a;
      Real* const g_bar_layer = sums + layer.g_bar;
      product<T>(current, spare, layer, value_weights(net, packed, l),
                 l < last ? value_weights(net, packed, l + 1) : gradient_weights(net, packed, last), ring, stage_rows,
                 place, constants, [&](Vector g, const Cell& cell, const K& k) {
                   const Vector a = Vector::load(tape_a + cell.at);
                   Vector p;
                   if (l < last) {
#pragma unroll
                     for (int i = 0; i < V; ++i) p.v[i] = g.v[i] * activate(a.v[i]).first();
                   } else {
                     const Vector c = Vector::load(psi_cotangent + cell.point);
#pragma unroll
                     for (int i = 0; i < V; ++i) {
                       const Activation<Real> s = activate(a.v[i]);
                       p.v[i] = fma(g.v[i], s.first(), c.v[i] * s.value);
                       g.v[i] = top_a_bar(s, k.output, g.v[i], c.v[i]);
                     }
                   }
                   g.store(g_bar_layer + cell.at);
                   p.store_shared(spare + cell.offset);
                 });
      Real* swap = current;
      current = spare;
      spare = swap;
    }
    // w̄ = Σ p̄_L + ψ̄ h_L,  b̄ = Σ ψ̄.
    __syncthreads();
    const int top_width = net.layer[last].width;
    for (int ch = thread; ch < top_width; ch += kThreads)
      add_partial(net.last_partial + ch, row_sum<T>(current + ch * T::kPitch));
    if (thread == 0) add_partial(net.last_partial + top_width, row_sum<T>(psi_cotangent));

    // Downwards: the gradient of matrix l (from layer l − 1 to l), then h̄ and ā of the layer below.
    Real *const in = shared.first, *const out = shared.second;
#pragma unroll 1
    for (int l = last; l >= 1; --l) {
      const bool first = l == 1;
#pragma unroll 1
      for (int grad_pass = 0; grad_pass < net.layer[l].grad_passes; ++grad_pass) {
        Real acc[T::kGradIn][T::kGradOut];
        const auto mine = [&] {
          return sums + net.layer[forget(l)].partial + (grad_pass * (T::kGradIn * T::kGradOut) * kThreads + thread * V);
        };
        Real* const read = mine();
#pragma unroll
        for (int s = 0; s < T::kGradIn * T::kGradOut; s += V) {
          Vector v{};
          if (touched) v = Vector::load(read + s * kThreads);
#pragma unroll
          for (int i = 0; i < V; ++i) acc[(s + i) / T::kGradOut][(s + i) % T::kGradOut] = v.v[i];
        }
#pragma unroll 1
        for (int term = 0; term < 2; ++term) {
          __syncthreads();  // both buffers are free
          // in: p̄ and then h of the layer below; out: g and then ā of this layer
          const Layer& below = net.layer[forget(l) - 1];
          const Real *const below_a = tape() + below.tape_a, *const below_g = sums + below.g_bar;
#pragma unroll 1
          for (int pass = 0; pass < below.passes; ++pass)
            for_own<T, 2>(below, pass, place, constants, [&](const Cell& cell, const K& k) {
              const Vector a = pre_activation<T>(first, below_a, point_data, cell, k);
              Vector v;
              if (term == 0) {
                v = g_bar_of<T>(first, below_g, point_data, cell, k);
#pragma unroll
                for (int i = 0; i < V; ++i) v.v[i] *= activate(a.v[i]).first();
              } else {
#pragma unroll
                for (int i = 0; i < V; ++i) v.v[i] = activate(a.v[i]).value;
              }
              v.store_shared(in + cell.offset);
            });
          const Layer& layer = net.layer[forget(l)];
          const Real *const tape_a = tape() + layer.tape_a, *const tape_p = tape() + layer.tape_p,
                           *const layer_g = sums + layer.g_bar;
#pragma unroll 1
          for (int pass = 0; pass < layer.passes; ++pass)
            for_own<T, 2>(layer, pass, place, constants, [&](const Cell& cell, const K& k) {
              Vector v;
              if (term == 0) {
                const Vector a = Vector::load(tape_a + cell.at);
                v = p_of<T>(l == last, tape_p, cell, k);
#pragma unroll
                for (int i = 0; i < V; ++i) v.v[i] *= activate(a.v[i]).first();
              } else {
                v = Vector::load(layer_g + cell.at);
              }
              v.store_shared(out + cell.offset);
            });
          __syncthreads();
          multiply_gradient<T>(acc, in, out, net.layer[forget(l)], grad_pass);
        }
        Real* const write = mine();
#pragma unroll
        for (int s = 0; s < T::kGradIn * T::kGradOut; s += V) {
          Vector v;
#pragma unroll
          for (int i = 0; i < V; ++i) v.v[i] = acc[(s + i) / T::kGradOut][(s + i) % T::kGradOut];
          v.store(write + s * kThreads);
        }
      }
      const Layer& layer = net.layer[forget(l)];
      for (int ch = thread; ch < layer.width; ch += kThreads)
        add_partial(layer.bias_partial + ch, row_sum<T>(out + ch * T::kPitch));

      // ā = s″(a)∘p∘ḡ + s′(a)∘(Wᵀā of this layer)
      __syncthreads();  // `in` is free
      const Layer& below = net.layer[forget(l) - 1];
      const Real *const below_a = tape() + below.tape_a, *const below_p = tape() + below.tape_p;
      Real* const below_g = sums + below.g_bar;
      product<T>(out, in, below, gradient_weights(net, packed, l), gradient_weights(net, packed, l - 1), ring,
                 stage_rows, place, constants, [&](const Vector& h_bar, const Cell& cell, const K& k) {
                   const Vector a = pre_activation<T>(first, below_a, point_data, cell, k);
                   const Vector g_bar = g_bar_of<T>(first, below_g, point_data, cell, k);
                   const Vector p = Vector::load(below_p + cell.at);
                   Vector a_bar;
#pragma unroll
                   for (int i = 0; i < V; ++i) {
                     const Activation<Real> s = activate(a.v[i]);
                     a_bar.v[i] = fma(s.second() * p.v[i], g_bar.v[i], s.first() * h_bar.v[i]);
                   }
                   if (first)
                     a_bar.store_shared(in + cell.offset);
                   else
                     a_bar.store(below_g + cell.at);
                 });
    }

    // First layer: W̄₁ = ℓ g₁ᾱᵀ + ā₁uᵀ, b̄₁ = Σ ā₁; ā₁ in `in`, g₁ to `out`.
    const Real* const bottom_p = tape() + bottom.tape_p;
    __syncthreads();
#pragma unroll 1
    for (int pass = 0; pass < bottom.passes; ++pass)
      for_own<T>(bottom, pass, place, constants, [&](const Cell& cell, const K& k) {
        const Vector a = pre_activation<T>(true, no_tape, point_data, cell, k);
        Vector g = p_of<T>(last == 0, bottom_p, cell, k);
        if (last == 0) {
          const Vector g_bar = g_bar_of<T>(true, sums, point_data, cell, k);
          const Vector c = Vector::load(psi_cotangent + cell.point);
          Vector a_bar;
#pragma unroll
          for (int i = 0; i < V; ++i) a_bar.v[i] = top_a_bar(activate(a.v[i]), k.output, g_bar.v[i], c.v[i]);
          a_bar.store_shared(in + cell.offset);
        }
#pragma unroll
        for (int i = 0; i < V; ++i) g.v[i] *= activate(a.v[i]).first();
        g.store_shared(out + cell.offset);
      });
    __syncthreads();
    for (int ch = thread; ch < bottom.width; ch += kThreads) {
      Real x = 0, y = 0, b = 0;
#pragma unroll 2
      for (int px = 0; px < T::kPoints; px += V) {
        const Vector a_bar = Vector::load(in + ch * T::kPitch + px), g = Vector::load(out + ch * T::kPitch + px);
        const Vector ux = Vector::load(point_data + px), uy = Vector::load(point_data + T::kPoints + px);
        const Vector cx = Vector::load(point_data + 2 * T::kPoints + px), cy = Vector::load(point_data + 3 * T::kPoints + px);
#pragma unroll
        for (int i = 0; i < V; ++i) {
          x = fma(g.v[i], cx.v[i], fma(a_bar.v[i], ux.v[i], x));
          y = fma(g.v[i], cy.v[i], fma(a_bar.v[i], uy.v[i], y));
          b += a_bar.v[i];
        }
      }
      add_partial(net.first_partial + ch, x);
      add_partial(net.first_partial + bottom.width + ch, y);
      add_partial(bottom.bias_partial + ch, b);
    }
    touched = true;
  }
  if (!touched)
    for (int i = thread; i < net.partial_size; i += kThreads) sums[i] = 0;
}

/// Adds the blocks' partial sums to the gradient. A block of 32 × kStrands threads: each strand sums every kStrands-th
/// term, the strands are added in order. x < reduce_blocks: 32 vectors of a matrix, else 32 numbers of the vectors.
template <class Real>
__global__ void __launch_bounds__(32 * kStrands)
    reduce_kernel(const __grid_constant__ Network<Real> net, Real* all_gradients, std::size_t stride, int blocks) {
  using R = Registers<Real>;
  constexpr int V = R::kVector, kSums = R::kGradIn * R::kGradOut;
  __shared__ Real strands[kStrands][V][32];
  const int lane = threadIdx.x, strand = threadIdx.y, x = blockIdx.x, lens = blockIdx.y;
  Real* gradient = all_gradients + lens * stride;
  const Real* partial = net.sums + static_cast<std::size_t>(lens) * blocks * net.sums_size;

  if (x < net.reduce_blocks) {
    int l = 1;
    while (l + 1 < net.layers && x >= net.layer[l + 1].reduce_block) ++l;
    const Layer& layer = net.layer[l];
    const int index = (x - layer.reduce_block) * 32 + lane;
    const int item = index % layer.grad_items, slot = index / layer.grad_items % (kSums / V),
              pass = index / layer.grad_items / (kSums / V);
    const bool on = pass < layer.grad_passes;
    Pack<Real> sum{};
    if (on) {
      const Real* source = partial + layer.partial + ((pass * (kSums / V) + slot) * kThreads + item) * V;
      const int terms = blocks * layer.grad_ways;
#pragma unroll 4
      for (int term = strand; term < terms; term += kStrands) {
        const int block = term / layer.grad_ways, way = term % layer.grad_ways;
        const Pack<Real> v =
            Pack<Real>::load(source + static_cast<std::size_t>(block) * net.sums_size + way * layer.grad_items * V);
#pragma unroll
        for (int i = 0; i < V; ++i) sum.v[i] += v.v[i];
      }
    }
#pragma unroll
    for (int i = 0; i < V; ++i) strands[strand][i][lane] = sum.v[i];
    __syncthreads();
    if (strand != 0 || !on) return;
    for (int s = 1; s < kStrands; ++s)
#pragma unroll
      for (int i = 0; i < V; ++i) sum.v[i] += strands[s][i][lane];
    const int tile = pass * kThreads + item, column = tile % layer.grad_out, row = tile / layer.grad_out;
#pragma unroll
    for (int i = 0; i < V; ++i) {
      const int s = slot * V + i;
      const int in = row * R::kGradIn + s / R::kGradOut, out = column + layer.grad_out * (s % R::kGradOut);
      if (in < net.layer[l - 1].width && out < layer.width) gradient[layer.kernel + in * layer.width + out] += sum.v[i];
    }
    return;
  }

  const int index = net.first_partial + (x - net.reduce_blocks) * 32 + lane;
  const bool on = index <= net.last_partial + net.layer[net.layers - 1].width;
  Real sum = 0;
  if (on)
    for (int block = strand; block < blocks; block += kStrands)
      sum += partial[static_cast<std::size_t>(block) * net.sums_size + index];
  strands[strand][0][lane] = sum;
  __syncthreads();
  if (strand != 0 || !on) return;
  for (int s = 1; s < kStrands; ++s) sum += strands[s][0][lane];
  int target = 0;
  if (index >= net.last_partial) {
    target = net.last_kernel + index - net.last_partial;  // the last bias follows its kernel in both
  } else if (index < net.layer[0].bias_partial) {
    target = net.layer[0].kernel + index - net.first_partial;
  } else {
    int l = 0;
    while (l + 1 < net.layers && index >= net.layer[l + 1].bias_partial) ++l;
    target = net.layer[l].bias + index - net.layer[l].bias_partial;
  }
  gradient[target] += sum;
}

}  // namespace einfield::cuda::tiled
