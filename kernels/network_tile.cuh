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

#include <cuda_pipeline.h>

#include <cstddef>

#include "einfield/network.hpp"

namespace einfield::cuda::tiled {

constexpr int kThreads = 256;
constexpr int kSplit = 2;                 // parts of the block that share the rows k of a product
constexpr int kItems = kThreads / kSplit;  // register tiles per product and pass
constexpr int kUnroll = 4;                // consecutive rows of one part
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
};

/// One hidden layer, and the matrix that leads to it from the layer below (none for layer 0).
struct Layer {
  int width;
  int groups;  // groups of kChannels channels per pass; channel = (pass · kChannels + j) · groups + group
  int passes;
  int kernel, bias;                // offsets in the parameters
  int tape_a, tape_p, scratch;     // offsets in a tile's tape (a of layers ≥ 1, p of layers below the last), a block's
                                   // scratch (ḡ, then ā, of layers ≥ 1)
  int value_pack, gradient_pack;   // offsets in the packed weights
  int partial;                     // offset of the matrix's gradient in a block's partial sums
  int bias_partial;
  int grad_in, grad_out;           // register tiles along the rows and columns of the matrix
  int grad_items, grad_passes, grad_ways;  // per pass; ways = parts of the block that share the points
  int pack_block, reduce_block;    // first block of pack_kernel and reduce_kernel that serves this matrix
};

/// Everything the kernels need, by value.
template <class Real>
struct Network {
  int layers, points, tiles, stage_rows, slot_size, rows;  // rows: of an activation buffer
  int last_kernel, last_bias;                              // offsets in the parameters
  int first_partial, last_partial, partial_size;           // offsets in a block's partial sums
  int tape_size, scratch_size;                             // per tile, per block
  int pack_size, pack_blocks, reduce_blocks;
  Real scale;
  Real* packed;
  Real* tape;
  Real* scratch;
  Real* partial;
  Layer layer[kMaxHiddenLayers];
};

// ---- small pieces ---------------------------------------------------------------------------------------------------

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
};
template <>
struct Pack<double> {
  double v[2];
  __device__ static Pack load(const double* p) {
    const double2 q = *reinterpret_cast<const double2*>(p);
    return {{q.x, q.y}};
  }
  __device__ void store(double* p) const { *reinterpret_cast<double2*>(p) = make_double2(v[0], v[1]); }
};

/// σ(a) and τ = σ(−a), from which swish and its derivatives follow (network.hpp):
///     s = aσ,   s′ = σ + sτ,   s″ = τ(2σ + s(τ − σ))
template <class Real>
struct Sigmoid {
  Real sigma, tau;
  __device__ Real value(Real a) const { return a * sigma; }
  __device__ Real first(Real a) const { return sigma + a * sigma * tau; }
  __device__ Real second(Real a) const { return tau * (2 * sigma + a * sigma * (tau - sigma)); }
};
__device__ inline Sigmoid<double> sigmoid(double a) {
  const double e = exp(a < 0 ? a : -a), inverse = 1 / (1 + e);
  return a < 0 ? Sigmoid<double>{e * inverse, inverse} : Sigmoid<double>{inverse, e * inverse};
}
/// With E = e^(−a): σ = 1/(1 + E), τ = Eσ; both keep their relative accuracy. Two special-function instructions, each
/// good to 2 units in the last place; the exponent, |a| log₂e, is rounded before, which costs σ and τ an absolute error
/// below 3e-8. The clamp keeps E finite, so that τ → 1 and not 0 · ∞; NaN comes back through the factor a.
__device__ inline Sigmoid<float> sigmoid(float a) {
  const float e = exp2f(fminf(a * -1.4426950408889634f, 126.0f));
  const float sigma = __fdividef(1.0f, 1.0f + e);
  return {sigma, e * sigma};
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

/// Calls f(j, c, channel, offset in a buffer, first point, offset in a tape array) for each vector that this thread
/// finishes in one pass over a layer.
template <class T, class F>
__device__ __forceinline__ void for_own(const Layer& layer, int pass, const Place<T>& place, F f) {
  const int groups = layer.groups;
  if (place.group >= groups) return;
  int channel = pass * T::kChannels * groups + place.group;
  const int tape = pass * T::kChannels * T::kOwn * kThreads * T::kVector + static_cast<int>(threadIdx.x) * T::kVector;
#pragma unroll
  for (int j = 0; j < T::kChannels; ++j, channel += groups) {
    if (channel < layer.width) {
#pragma unroll
      for (int c = 0; c < T::kOwn; ++c) {
        const int point = place.own + c * T::kChunkStride;
        f(j, c, channel, channel * T::kPitch + point, point, tape + (j * T::kOwn + c) * kThreads * T::kVector);
      }
    }
  }
}

/// The weights on their way from L2: whole stages of consecutive rows, copied while the stage before is in use.
template <class Real>
class Ring {
 public:
  __device__ Ring(Real* slots, int slot_size) : slots_(slots), slot_size_(slot_size) {}
  /// Starts the copy of a stage into the slot that is not in use. Between wait() and the next wait() only.
  __device__ void fetch(const Real* weights, int count) {
    constexpr int kVector = Registers<Real>::kVector;
    Real* slot = slots_ + next_ * slot_size_;
    for (int i = static_cast<int>(threadIdx.x) * kVector; i < count; i += kThreads * kVector)
      __pipeline_memcpy_async(slot + i, weights + i, 16);
    __pipeline_commit();
  }
  /// The stage fetched last; every thread has left the one before, and sees all earlier writes to shared memory.
  __device__ const Real* wait() {
    __pipeline_wait_prior(0);
    __syncthreads();
    const Real* slot = slots_ + next_ * slot_size_;
    next_ ^= 1;
    return slot;
  }

 private:
  Real* slots_;
  int slot_size_, next_ = 0;
};

/// One pass of a product: packed weights of `rows` rows of `groups` · kChannels numbers.
template <class Real>
struct Weights {
  const Real* data;
  int rows, groups;
};

/// The first stage of a pass; `weights.data` may be null (nothing follows).
template <class Real>
__device__ __forceinline__ void fetch_first(Ring<Real>& ring, const Weights<Real>& weights, int stage_rows) {
  if (weights.data != nullptr)
    ring.fetch(weights.data, min(stage_rows, weights.rows) * weights.groups * Registers<Real>::kChannels);
}

/// acc[j][i] = Σ_k W[k][channel j] · in[k][point i] for this thread's register tile. The first stage has been fetched; the
/// first stage of `next` is fetched behind the last of this pass. The points come as own chunks, then the partner's.
/// On return every thread may write anything but `in`, the halves have exchanged their sums through `out` (rows of this
/// pass), and the first kOwn chunks of acc are complete.
template <class T, class Real = typename T::Real>
__device__ __forceinline__ void multiply(Real (&acc)[T::kChannels][T::kPixels], const Real* in, Real* out,
                                         const Layer& layer, int pass, const Weights<Real>& weights,
                                         const Weights<Real>& next, Ring<Real>& ring, int stage_rows,
                                         const Place<T>& place) {
  constexpr int V = T::kVector;
  const int groups = weights.groups, width = groups * T::kChannels;
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
      ring.fetch(weights.data + (row + count) * width, min(stage_rows, left) * width);
    else
      fetch_first(ring, next, stage_rows);
    if (!active) continue;
    const Real* w = stage + place.split * kUnroll * width + V * place.group;
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
        for (int q = 0; q < T::kChannels / V; ++q) y[q] = Pack<Real>::load(w + k * width + q * V * groups);
#pragma unroll
        for (int j = 0; j < T::kChannels; ++j)
#pragma unroll
          for (int i = 0; i < T::kPixels; ++i) acc[j][i] = fma(y[j / V].v[j % V], x[i / V].v[i % V], acc[j][i]);
      }
      x_own += kUnit * T::kPitch;
      x_other += kUnit * T::kPitch;
      w += kUnit * width;
    }
  }

  // Exchange: the partner's chunks go to their place in `out`, mine come from there.
  const int first = pass * T::kChannels * groups + place.group;
  if (active) {
#pragma unroll
    for (int j = 0; j < T::kChannels; ++j) {
      const int channel = first + j * groups;
      if (channel < layer.width) {
#pragma unroll
        for (int c = 0; c < T::kOwn; ++c) {
          Pack<Real> v;
#pragma unroll
          for (int i = 0; i < V; ++i) v.v[i] = acc[j][(T::kOwn + c) * V + i];
          v.store(out + channel * T::kPitch + place.other + c * T::kChunkStride);
        }
      }
    }
  }
  __syncthreads();
  for_own<T>(layer, pass, place, [&](int j, int c, int, int offset, int, int) {
    const Pack<Real> v = Pack<Real>::load(out + offset);
#pragma unroll
    for (int i = 0; i < V; ++i) acc[j][c * V + i] += v.v[i];
  });
}

/// A product over all passes of `layer` (its output): epilogue(acc vector, channel, offset, point, tape) finishes each
/// vector and stores it. `next` is the product that follows.
template <class T, class Real = typename T::Real, class Epilogue>
__device__ __forceinline__ void product(const Real* in, Real* out, const Layer& layer, Weights<Real> weights,
                                        const Weights<Real>& next, Ring<Real>& ring, int stage_rows,
                                        const Place<T>& place, Epilogue epilogue) {
#pragma unroll 1
  for (int pass = 0; pass < layer.passes; ++pass) {
    Weights<Real> following = weights;
    following.data += weights.rows * weights.groups * T::kChannels;
    if (pass + 1 == layer.passes) following = next;
    Real acc[T::kChannels][T::kPixels];
    multiply<T>(acc, in, out, layer, pass, weights, following, ring, stage_rows, place);
    for_own<T>(layer, pass, place, [&](int j, int c, int channel, int offset, int point, int tape) {
      Pack<Real> v;
#pragma unroll
      for (int i = 0; i < T::kVector; ++i) v.v[i] = acc[j][c * T::kVector + i];
      epilogue(v, channel, offset, point, tape);
    });
    weights = following;
  }
}

/// acc[a][b] += Σ_px in[i_a][px] · out[o_b][px] over this thread's share of the points: rows i_a consecutive, rows o_b
/// grad_out apart (consecutive lanes take consecutive rows: no bank conflict).
template <class T, class Real = typename T::Real>
__device__ __forceinline__ void multiply_gradient(Real (&acc)[T::kGradIn][T::kGradOut], const Real* in, const Real* out,
                                                  const Layer& layer, int item, int way) {
  constexpr int V = T::kVector;
  const int column = item % layer.grad_out, row = item / layer.grad_out;
  if (row >= layer.grad_in || way >= layer.grad_ways) return;
  const Real* x = in + row * T::kGradIn * T::kPitch + way * V;
  const Real* y = out + column * T::kPitch + way * V;
  const int stride = layer.grad_out * T::kPitch, step = layer.grad_ways * V;
#pragma unroll 1
  for (int point = way * V; point < T::kPoints; point += step, x += step, y += step) {
    Pack<Real> q[T::kGradOut];
#pragma unroll
    for (int b = 0; b < T::kGradOut; ++b) q[b] = Pack<Real>::load(y + b * stride);
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
  Real *first, *second, *slots, *point;  // point: kPoints each of u_x, u_y, ᾱ_x, ᾱ_y, ψ̄; then 2 · kThreads of scratch
  __device__ Shared(void* memory, const Network<Real>& net) {
    first = static_cast<Real*>(memory);
    second = first + net.rows * T::kPitch;
    slots = second + net.rows * T::kPitch;
    point = slots + kSlots * net.slot_size;
  }
  /// Rows and columns of padding meet zero weights or zero cotangents: they must hold finite numbers.
  __device__ void clear(const Network<Real>& net) const {
    const Pack<Real> zero{};
    for (int i = static_cast<int>(threadIdx.x) * T::kVector; i < 2 * net.rows * T::kPitch; i += kThreads * T::kVector)
      zero.store(first + i);
  }
  static std::size_t bytes(int rows, int slot_size) {
    return (2 * static_cast<std::size_t>(rows) * T::kPitch + kSlots * static_cast<std::size_t>(slot_size) +
            5 * T::kPoints + 2 * kThreads) * sizeof(Real);
  }
};

/// a_l of this thread's vector: from the tape, or for the first layer, where two multiply-adds are cheaper, anew.
template <class T, class Real = typename T::Real>
__device__ __forceinline__ Pack<Real> pre_activation(const Network<Real>& net, int l, const Real* parameters,
                                                     const Real* point_data, const Real* tape, int channel, int point,
                                                     int offset) {
  const Layer& layer = net.layer[l];
  if (l > 0) return Pack<Real>::load(tape + layer.tape_a + offset);
  const Real wx = parameters[layer.kernel + channel], wy = parameters[layer.kernel + layer.width + channel],
             b = parameters[layer.bias + channel];
  const Pack<Real> x = Pack<Real>::load(point_data + point), y = Pack<Real>::load(point_data + T::kPoints + point);
  Pack<Real> a;
#pragma unroll
  for (int i = 0; i < T::kVector; ++i) a.v[i] = fma(wx, x.v[i], fma(wy, y.v[i], b));
  return a;
}

/// ḡ of the first layer: ℓ W₁ᾱ.
template <class T, class Real = typename T::Real>
__device__ __forceinline__ Pack<Real> first_g_bar(const Network<Real>& net, const Real* parameters,
                                                  const Real* point_data, int channel, int point) {
  const Layer& layer = net.layer[0];
  const Real wx = net.scale * parameters[layer.kernel + channel],
             wy = net.scale * parameters[layer.kernel + layer.width + channel];
  const Pack<Real> x = Pack<Real>::load(point_data + 2 * T::kPoints + point),
                   y = Pack<Real>::load(point_data + 3 * T::kPoints + point);
  Pack<Real> g;
#pragma unroll
  for (int i = 0; i < T::kVector; ++i) g.v[i] = fma(wx, x.v[i], wy * y.v[i]);
  return g;
}

/// p_l of this thread's vector: from the tape, or w for the last layer.
template <class T, class Real = typename T::Real>
__device__ __forceinline__ Pack<Real> p_of(const Network<Real>& net, int l, const Real* parameters, const Real* tape,
                                           int channel, int offset) {
  if (l + 1 < net.layers) return Pack<Real>::load(tape + net.layer[l].tape_p + offset);
  const Real w = parameters[net.last_kernel + channel];
  Pack<Real> p;
#pragma unroll
  for (int i = 0; i < T::kVector; ++i) p.v[i] = w;
  return p;
}

template <class Real>
__device__ __forceinline__ int padded_rows(int width) {
  return (width + kUnit - 1) / kUnit * kUnit;
}

/// W of matrix l (from layer l − 1 to l), which makes layer l; no matrix l: null.
template <class Real>
__device__ __forceinline__ Weights<Real> value_weights(const Network<Real>& net, const Real* packed, int l) {
  if (l < 1 || l >= net.layers) return {nullptr, 0, 0};
  return {packed + net.layer[l].value_pack, padded_rows<Real>(net.layer[l - 1].width), net.layer[l].groups};
}
/// Wᵀ of matrix l, which makes layer l − 1.
template <class Real>
__device__ __forceinline__ Weights<Real> gradient_weights(const Network<Real>& net, const Real* packed, int l) {
  if (l < 1 || l >= net.layers) return {nullptr, 0, 0};
  return {packed + net.layer[l].gradient_pack, padded_rows<Real>(net.layer[l].width), net.layer[l - 1].groups};
}

// ---- kernels --------------------------------------------------------------------------------------------------------

/// Packs W and Wᵀ of every matrix in the order of the ring: [pass][row k][channel vector][group][kVector], zero where
/// row or channel are padding. One thread per number; y is the lens.
template <class Real>
__global__ void pack_kernel(const __grid_constant__ Network<Real> net, const Real* parameters, std::size_t stride) {
  constexpr int V = Registers<Real>::kVector, kChannels = Registers<Real>::kChannels;
  int l = 1;
  while (l + 1 < net.layers && static_cast<int>(blockIdx.x) >= net.layer[l + 1].pack_block) ++l;
  const Layer& layer = net.layer[l];
  const Layer& below = net.layer[l - 1];
  const int index = (static_cast<int>(blockIdx.x) - layer.pack_block) * static_cast<int>(blockDim.x) +
                    static_cast<int>(threadIdx.x);
  const int value_size = layer.passes * padded_rows<Real>(below.width) * layer.groups * kChannels;
  const int gradient_size = below.passes * padded_rows<Real>(layer.width) * below.groups * kChannels;
  if (index >= value_size + gradient_size) return;
  const bool value = index < value_size;
  const Layer& to = value ? layer : below;
  const Layer& from = value ? below : layer;
  const int position = value ? index : index - value_size;
  const int pitch = to.groups * kChannels, rows = padded_rows<Real>(from.width);
  const int row = position / pitch % rows, pass = position / pitch / rows, in_row = position % pitch;
  const int j = in_row / (V * to.groups) * V + in_row % V, group = in_row / V % to.groups;
  const int channel = (pass * kChannels + j) * to.groups + group;
  Real w = 0;
  if (row < from.width && channel < to.width) {
    const Real* kernel = parameters + blockIdx.y * stride + layer.kernel;
    w = value ? kernel[row * layer.width + channel] : kernel[channel * layer.width + row];
  }
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
  extern __shared__ __align__(16) unsigned char memory[];
  const Shared<T> shared(memory, net);
  const Place<T> place(threadIdx.x);
  const int thread = threadIdx.x, lens = blockIdx.y, last = net.layers - 1, top = net.layer[last].width;
  const Real* parameters = all_parameters + lens * stride;
  const Real* packed = net.packed + static_cast<std::size_t>(lens) * net.pack_size;
  Real* point_data = shared.point;
  Ring<Real> ring(shared.slots, net.slot_size);
  shared.clear(net);
  fetch_first(ring, value_weights(net, packed, 1), net.stage_rows);

#pragma unroll 1
  for (int tile = blockIdx.x; tile < net.tiles; tile += gridDim.x) {
    const int first_point = tile * T::kPoints, valid = min(T::kPoints, net.points - first_point);
    Real* tape = net.tape + (static_cast<std::size_t>(lens) * net.tiles + tile) * net.tape_size;
    const bool more = tile + static_cast<int>(gridDim.x) < net.tiles;
    __syncthreads();  // the tile before has left shared memory
    for (int i = thread; i < 2 * T::kPoints; i += kThreads) {
      const int px = i % T::kPoints;
      point_data[i] = px < valid ? net.scale * positions[(i / T::kPoints) * net.points + first_point + px] : Real(0);
    }
    __syncthreads();

    // Values, upwards: h_l in `current`.
    Real *current = shared.first, *spare = shared.second;
#pragma unroll 1
    for (int pass = 0; pass < net.layer[0].passes; ++pass)
      for_own<T>(net.layer[0], pass, place, [&](int, int, int channel, int offset, int point, int at) {
        Pack<Real> h = pre_activation<T>(net, 0, parameters, point_data, tape, channel, point, at);
#pragma unroll
        for (int i = 0; i < T::kVector; ++i) h.v[i] = sigmoid(h.v[i]).value(h.v[i]);
        h.store(current + offset);
      });
#pragma unroll 1
    for (int l = 1; l <= last; ++l) {
      const Layer& layer = net.layer[l];
      const Weights<Real> next = l < last ? value_weights(net, packed, l + 1) : gradient_weights(net, packed, last);
      product<T>(current, spare, layer, value_weights(net, packed, l), next, ring, net.stage_rows, place,
                 [&](Pack<Real> a, int channel, int offset, int, int at) {
                   const Real bias = parameters[layer.bias + channel];
                   Pack<Real> h;
#pragma unroll
                   for (int i = 0; i < T::kVector; ++i) {
                     a.v[i] += bias;
                     h.v[i] = sigmoid(a.v[i]).value(a.v[i]);
                   }
                   a.store(tape + layer.tape_a + at);
                   h.store(spare + offset);
                 });
      Real* swap = current;
      current = spare;
      spare = swap;
    }

    // ψ = w · h_L + b. A point's channels are shared out to kThreads / kPoints threads.
    constexpr int kShares = kThreads / T::kPoints;
    const int px = thread % T::kPoints, share = thread / T::kPoints;
    Real* sums = point_data + 5 * T::kPoints;
    __syncthreads();
    if (share < kShares) {
      Real sum = 0;
      for (int ch = share; ch < top; ch += kShares)
        sum = fma(parameters[net.last_kernel + ch], current[ch * T::kPitch + px], sum);
      sums[thread] = sum;
    }
    __syncthreads();
    if (thread < valid) {
      Real sum = parameters[net.last_bias];
      for (int s = 0; s < kShares; ++s) sum += sums[s * T::kPoints + thread];
      psi[static_cast<std::size_t>(lens) * net.points + first_point + thread] = sum;
    }

    // Gradient, downwards: g_l in `current`.
#pragma unroll 1
    for (int pass = 0; pass < net.layer[last].passes; ++pass)
      for_own<T>(net.layer[last], pass, place, [&](int, int, int channel, int offset, int point, int at) {
        Pack<Real> a = pre_activation<T>(net, last, parameters, point_data, tape, channel, point, at);
        const Real w = parameters[net.last_kernel + channel];
#pragma unroll
        for (int i = 0; i < T::kVector; ++i) a.v[i] = w * sigmoid(a.v[i]).first(a.v[i]);
        a.store(current + offset);
      });
#pragma unroll 1
    for (int l = last - 1; l >= 0; --l) {
      const Layer& layer = net.layer[l];
      Weights<Real> next{nullptr, 0, 0};
      if (l > 0)
        next = gradient_weights(net, packed, l);
      else if (more)
        next = value_weights(net, packed, 1);
      product<T>(current, spare, layer, gradient_weights(net, packed, l + 1), next, ring, net.stage_rows, place,
                 [&](const Pack<Real>& p, int channel, int offset, int point, int at) {
                   p.store(tape + layer.tape_p + at);
                   Pack<Real> a = pre_activation<T>(net, l, parameters, point_data, tape, channel, point, at);
#pragma unroll
                   for (int i = 0; i < T::kVector; ++i) a.v[i] = p.v[i] * sigmoid(a.v[i]).first(a.v[i]);
                   a.store(spare + offset);
                 });
      Real* swap = current;
      current = spare;
      spare = swap;
    }

    // α = ℓ W₁ᵀg₁.
    __syncthreads();
    const Real* kernel = parameters + net.layer[0].kernel;
    const int width = net.layer[0].width;
    if (share < kShares) {
      Real x = 0, y = 0;
      for (int ch = share; ch < width; ch += kShares) {
        const Real g = current[ch * T::kPitch + px];
        x = fma(kernel[ch], g, x);
        y = fma(kernel[width + ch], g, y);
      }
      sums[thread] = x;
      sums[kThreads + thread] = y;
    }
    __syncthreads();
    for (int i = thread; i < 2 * T::kPoints; i += kThreads) {
      const int axis = i / T::kPoints, at = i % T::kPoints;
      if (at >= valid) continue;
      Real sum = 0;
      for (int s = 0; s < kShares; ++s) sum += sums[axis * kThreads + s * T::kPoints + at];
      alpha[(static_cast<std::size_t>(lens) * 2 + axis) * net.points + first_point + at] = net.scale * sum;
    }
  }
}

/// The adjoint of network_kernel: partial sums of all parameter gradients, one set per block. A tile whose cotangents
/// are all zero is left out: it would add zeros.
template <class T>
__global__ void __launch_bounds__(kThreads, 1)
    network_adjoint_kernel(const __grid_constant__ Network<typename T::Real> net,
                           const typename T::Real* all_parameters, std::size_t stride,
                           const typename T::Real* positions, const typename T::Real* alpha_bar,
                           const typename T::Real* psi_bar) {
  using Real = typename T::Real;
  constexpr int V = T::kVector;
  extern __shared__ __align__(16) unsigned char memory[];
  const Shared<T> shared(memory, net);
  const Place<T> place(threadIdx.x);
  const int thread = threadIdx.x, lens = blockIdx.y, last = net.layers - 1, top = net.layer[last].width;
  const Real* parameters = all_parameters + lens * stride;
  const Real* packed = net.packed + static_cast<std::size_t>(lens) * net.pack_size;
  const std::size_t block = static_cast<std::size_t>(lens) * gridDim.x + blockIdx.x;
  Real* scratch = net.scratch + block * net.scratch_size;
  Real* partial = net.partial + block * net.partial_size;
  Real* point_data = shared.point;
  Ring<Real> ring(shared.slots, net.slot_size);
  shared.clear(net);
  bool touched = false;  // the block's partial sums hold something
  const auto add_partial = [&](int index, Real value) {
    partial[index] = touched ? partial[index] + value : value;
  };

#pragma unroll 1
  for (int tile = blockIdx.x; tile < net.tiles; tile += gridDim.x) {
    const int first_point = tile * T::kPoints, valid = min(T::kPoints, net.points - first_point);
    const Real* tape = net.tape + (static_cast<std::size_t>(lens) * net.tiles + tile) * net.tape_size;
    bool any = false;
    __syncthreads();  // the tile before has left shared memory
    for (int i = thread; i < 5 * T::kPoints; i += kThreads) {
      const int what = i / T::kPoints, px = i % T::kPoints;
      Real value = 0;
      if (px < valid) {
        if (what < 2)
          value = net.scale * positions[what * net.points + first_point + px];
        else if (what < 4)
          value = alpha_bar[(static_cast<std::size_t>(lens) * 2 + what - 2) * net.points + first_point + px];
        else if (psi_bar != nullptr)
          value = psi_bar[static_cast<std::size_t>(lens) * net.points + first_point + px];
        any |= what >= 2 && value != 0;
      }
      point_data[i] = value;
    }
    if (!__syncthreads_or(any)) continue;
    fetch_first(ring, value_weights(net, packed, 1), net.stage_rows);

    // Upwards: p̄_l in `current`, ḡ_l in scratch; at the top ā_L instead, since p_L = w is known.
    Real *current = shared.first, *spare = shared.second;
    const auto top_a_bar = [&](Real a, const Sigmoid<Real>& s, Real w, Real g_bar, Real psi_cotangent) {
      return w * (s.second(a) * g_bar + s.first(a) * psi_cotangent);
    };
#pragma unroll 1
    for (int pass = 0; pass < net.layer[0].passes; ++pass)
      for_own<T>(net.layer[0], pass, place, [&](int, int, int channel, int offset, int point, int at) {
        const Pack<Real> a = pre_activation<T>(net, 0, parameters, point_data, tape, channel, point, at);
        Pack<Real> p = first_g_bar<T>(net, parameters, point_data, channel, point);
#pragma unroll
        for (int i = 0; i < V; ++i) p.v[i] *= sigmoid(a.v[i]).first(a.v[i]);
        p.store(current + offset);
      });
#pragma unroll 1
    for (int l = 1; l <= last; ++l) {
      const Layer& layer = net.layer[l];
      const Weights<Real> next = l < last ? value_weights(net, packed, l + 1) : gradient_weights(net, packed, last);
      product<T>(current, spare, layer, value_weights(net, packed, l), next, ring, net.stage_rows, place,
                 [&](Pack<Real> g, int channel, int offset, int point, int at) {
                   const Pack<Real> a = Pack<Real>::load(tape + layer.tape_a + at);
                   Pack<Real> p;
                   if (l < last) {
#pragma unroll
                     for (int i = 0; i < V; ++i) p.v[i] = g.v[i] * sigmoid(a.v[i]).first(a.v[i]);
                   } else {
                     const Real w = parameters[net.last_kernel + channel];
                     const Pack<Real> c = Pack<Real>::load(point_data + 4 * T::kPoints + point);
#pragma unroll
                     for (int i = 0; i < V; ++i) {
                       const Sigmoid<Real> s = sigmoid(a.v[i]);
                       p.v[i] = g.v[i] * s.first(a.v[i]) + c.v[i] * s.value(a.v[i]);  // its row sum is w̄
                       g.v[i] = top_a_bar(a.v[i], s, w, g.v[i], c.v[i]);
                     }
                   }
                   g.store(scratch + layer.scratch + at);
                   p.store(spare + offset);
                 });
      Real* swap = current;
      current = spare;
      spare = swap;
    }
    if (last == 0 && psi_bar != nullptr) {
      for (int pass = 0; pass < net.layer[0].passes; ++pass)
        for_own<T>(net.layer[0], pass, place, [&](int, int, int channel, int offset, int point, int at) {
          const Pack<Real> a = pre_activation<T>(net, 0, parameters, point_data, tape, channel, point, at);
          const Pack<Real> c = Pack<Real>::load(point_data + 4 * T::kPoints + point);
          Pack<Real> p = Pack<Real>::load(current + offset);
#pragma unroll
          for (int i = 0; i < V; ++i) p.v[i] += c.v[i] * sigmoid(a.v[i]).value(a.v[i]);
          p.store(current + offset);
        });
    }
    // w̄ = Σ p̄_L + ψ̄ h_L,  b̄ = Σ ψ̄.
    __syncthreads();
    for (int ch = thread; ch < top; ch += kThreads)
      add_partial(net.last_partial + ch, row_sum<T>(current + ch * T::kPitch));
    if (thread == 0) add_partial(net.last_partial + top, row_sum<T>(point_data + 4 * T::kPoints));

    // Downwards: matrix l from layer l − 1 to l, its gradient and then h̄ and ā of the layer below.
    Real *in = shared.first, *out = shared.second;
#pragma unroll 1
    for (int l = last; l >= 1; --l) {
      const Layer& layer = net.layer[l];
      const Layer& below = net.layer[l - 1];
      const int item = thread % layer.grad_items, way = thread / layer.grad_items;
#pragma unroll 1
      for (int grad_pass = 0; grad_pass < layer.grad_passes; ++grad_pass) {
        Real acc[T::kGradIn][T::kGradOut];
        Real* sums = partial + layer.partial + (grad_pass * (T::kGradIn * T::kGradOut) * kThreads + thread * V);
#pragma unroll
        for (int s = 0; s < T::kGradIn * T::kGradOut; s += V) {
          Pack<Real> v{};
          if (touched) v = Pack<Real>::load(sums + s * kThreads);
#pragma unroll
          for (int i = 0; i < V; ++i) acc[(s + i) / T::kGradOut][(s + i) % T::kGradOut] = v.v[i];
        }
#pragma unroll 1
        for (int term = 0; term < 2; ++term) {
          __syncthreads();  // both buffers are free
          // in: p̄ and then h of the layer below
#pragma unroll 1
          for (int pass = 0; pass < below.passes; ++pass)
            for_own<T>(below, pass, place, [&](int, int, int channel, int offset, int point, int at) {
              const Pack<Real> a = pre_activation<T>(net, l - 1, parameters, point_data, tape, channel, point, at);
              Pack<Real> v;
              if (term == 0) {
                v = l > 1 ? Pack<Real>::load(scratch + below.scratch + at)
                          : first_g_bar<T>(net, parameters, point_data, channel, point);
#pragma unroll
                for (int i = 0; i < V; ++i) v.v[i] *= sigmoid(a.v[i]).first(a.v[i]);
              } else {
#pragma unroll
                for (int i = 0; i < V; ++i) v.v[i] = sigmoid(a.v[i]).value(a.v[i]);
              }
              v.store(in + offset);
            });
          // out: g and then ā of this layer
#pragma unroll 1
          for (int pass = 0; pass < layer.passes; ++pass)
            for_own<T>(layer, pass, place, [&](int, int, int channel, int offset, int, int at) {
              Pack<Real> v;
              if (term == 0) {
                const Pack<Real> a = Pack<Real>::load(tape + layer.tape_a + at);
                v = p_of<T>(net, l, parameters, tape, channel, at);
#pragma unroll
                for (int i = 0; i < V; ++i) v.v[i] *= sigmoid(a.v[i]).first(a.v[i]);
              } else {
                v = Pack<Real>::load(scratch + layer.scratch + at);
              }
              v.store(out + offset);
            });
          __syncthreads();
          multiply_gradient<T>(acc, in, out, layer, grad_pass * kThreads + item, way);
        }
#pragma unroll
        for (int s = 0; s < T::kGradIn * T::kGradOut; s += V) {
          Pack<Real> v;
#pragma unroll
          for (int i = 0; i < V; ++i) v.v[i] = acc[(s + i) / T::kGradOut][(s + i) % T::kGradOut];
          v.store(sums + s * kThreads);
        }
      }
      for (int ch = thread; ch < layer.width; ch += kThreads)
        add_partial(layer.bias_partial + ch, row_sum<T>(out + ch * T::kPitch));

      // ā = s″(a)∘p∘ḡ + s′(a)∘(Wᵀā of this layer)
      __syncthreads();  // `in` is free
      product<T>(out, in, below, gradient_weights(net, packed, l), gradient_weights(net, packed, l - 1), ring,
                 net.stage_rows, place, [&](const Pack<Real>& h_bar, int channel, int offset, int point, int at) {
                   const Pack<Real> a = pre_activation<T>(net, l - 1, parameters, point_data, tape, channel, point, at);
                   const Pack<Real> p = Pack<Real>::load(tape + below.tape_p + at);
                   const Pack<Real> g_bar = l > 1 ? Pack<Real>::load(scratch + below.scratch + at)
                                                  : first_g_bar<T>(net, parameters, point_data, channel, point);
                   Pack<Real> a_bar;
#pragma unroll
                   for (int i = 0; i < V; ++i) {
                     const Sigmoid<Real> s = sigmoid(a.v[i]);
                     a_bar.v[i] = s.second(a.v[i]) * p.v[i] * g_bar.v[i] + s.first(a.v[i]) * h_bar.v[i];
                   }
                   if (l > 1)
                     a_bar.store(scratch + below.scratch + at);
                   else
                     a_bar.store(in + offset);
                 });
    }

    // First layer: W̄₁ = ℓ g₁ᾱᵀ + ā₁uᵀ, b̄₁ = Σ ā₁; ā₁ in `in`, g₁ to `out`.
    __syncthreads();
#pragma unroll 1
    for (int pass = 0; pass < net.layer[0].passes; ++pass)
      for_own<T>(net.layer[0], pass, place, [&](int, int, int channel, int offset, int point, int at) {
        const Pack<Real> a = pre_activation<T>(net, 0, parameters, point_data, tape, channel, point, at);
        Pack<Real> g = p_of<T>(net, 0, parameters, tape, channel, at);
        if (last == 0) {
          const Real w = parameters[net.last_kernel + channel];
          const Pack<Real> g_bar = first_g_bar<T>(net, parameters, point_data, channel, point);
          const Pack<Real> c = Pack<Real>::load(point_data + 4 * T::kPoints + point);
          Pack<Real> a_bar;
#pragma unroll
          for (int i = 0; i < V; ++i) a_bar.v[i] = top_a_bar(a.v[i], sigmoid(a.v[i]), w, g_bar.v[i], c.v[i]);
          a_bar.store(in + offset);
        }
#pragma unroll
        for (int i = 0; i < V; ++i) g.v[i] *= sigmoid(a.v[i]).first(a.v[i]);
        g.store(out + offset);
      });
    __syncthreads();
    const int width = net.layer[0].width;
    for (int ch = thread; ch < width; ch += kThreads) {
      Real x = 0, y = 0, b = 0;
#pragma unroll 1
      for (int px = 0; px < T::kPoints; px += V) {
        const Pack<Real> a_bar = Pack<Real>::load(in + ch * T::kPitch + px), g = Pack<Real>::load(out + ch * T::kPitch + px);
        const Pack<Real> ux = Pack<Real>::load(point_data + px), uy = Pack<Real>::load(point_data + T::kPoints + px);
        const Pack<Real> cx = Pack<Real>::load(point_data + 2 * T::kPoints + px),
                         cy = Pack<Real>::load(point_data + 3 * T::kPoints + px);
#pragma unroll
        for (int i = 0; i < V; ++i) {
          const Real scaled = net.scale * g.v[i];
          x = fma(scaled, cx.v[i], fma(a_bar.v[i], ux.v[i], x));
          y = fma(scaled, cy.v[i], fma(a_bar.v[i], uy.v[i], y));
          b += a_bar.v[i];
        }
      }
      add_partial(net.first_partial + ch, x);
      add_partial(net.first_partial + width + ch, y);
      add_partial(net.layer[0].bias_partial + ch, b);
    }
    touched = true;
  }
  if (!touched)
    for (int i = thread; i < net.partial_size; i += kThreads) partial[i] = 0;
}

/// Adds the blocks' partial sums to the gradient. A block of 32 × kStrands threads: each strand sums every kStrands-th
/// term, the strands are added in order. x < reduce_blocks: 32 vectors of a matrix, else 32 numbers of the vectors.
template <class Real>
__global__ void __launch_bounds__(32 * kStrands)
    reduce_kernel(const __grid_constant__ Network<Real> net, Real* all_gradients, std::size_t stride, int blocks) {
  using R = Registers<Real>;
  constexpr int V = R::kVector, kSums = R::kGradIn * R::kGradOut;
  __shared__ Pack<Real> strands[kStrands][32];
  const int lane = threadIdx.x, strand = threadIdx.y, x = blockIdx.x, lens = blockIdx.y;
  Real* gradient = all_gradients + lens * stride;
  const Real* partial = net.partial + static_cast<std::size_t>(lens) * blocks * net.partial_size;

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
            Pack<Real>::load(source + static_cast<std::size_t>(block) * net.partial_size + way * layer.grad_items * V);
#pragma unroll
        for (int i = 0; i < V; ++i) sum.v[i] += v.v[i];
      }
    }
    strands[strand][lane] = sum;
    __syncthreads();
    if (strand != 0 || !on) return;
    for (int s = 1; s < kStrands; ++s)
#pragma unroll
      for (int i = 0; i < V; ++i) sum.v[i] += strands[s][lane].v[i];
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
  const bool on = index < net.partial_size;
  Real sum = 0;
  if (on)
    for (int block = strand; block < blocks; block += kStrands)
      sum += partial[static_cast<std::size_t>(block) * net.partial_size + index];
  strands[strand][lane].v[0] = sum;
  __syncthreads();
  if (strand != 0 || !on) return;
  for (int s = 1; s < kStrands; ++s) sum += strands[s][lane].v[0];
  int target = 0;
  if (index >= net.last_partial) {
    target = net.last_kernel + index - net.last_partial;  // the last bias follows its kernel in both
    if (index > net.last_partial + net.layer[net.layers - 1].width) return;
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
