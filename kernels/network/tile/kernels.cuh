// Fused tile kernels of the network: a block keeps the activations of T points in shared memory through all layers.
// The chain of derivatives is that of network.hpp (Biggio et al. 2021, the network; its adjoint derived there).
//
// A product of a layer is an outer-product accumulation: out[ch][px] = Σ_k W[k][ch] · in[k][px].
//
//   shared memory   two buffers [channel][T + pad] that swap roles product by product, a ring of two stages of weights,
//                   and, where the device grants the room, the array of one layer that is needed twice ("kept")
//   registers       a thread owns kChannels × kPixels sums; half of the block takes every other group of rows k
//                   ("split"), then the halves exchange: each finishes one half of the points of every register tile
//   weights         packed once per step as one stream in the order of use, which both kernels read from end to end:
//                   W₂ … W_L, then W_Lᵀ … W₂ᵀ (pack_kernel)
//   tape            a_l and p_l in register order: 16 bytes per lane, lanes adjacent, nothing but whole sectors
//   weight gradient out[i][o] = Σ_px p̄[i][px] g[o][px] + h[i][px] ā[o][px]: a thread owns kGradIn × kGradOut sums over
//                   both terms; each block writes its sums once, reduce_kernel adds the blocks in order
//   matrix units    with NetworkMath::tf32x3 or tf32 a warp takes fragments (tensor_core.cuh) of a product instead:
//                   points × channels × rows k, or rows i × columns o × points. It leaves the sums of a product in the
//                   buffer of the output, where the owner of each vector finds them: all else is the same
//
// An encoding (network.hpp) is layer 0 with another activation and no gradient. Both kernels come with it and without,
// as kernels of their own: they have no register to spare.
//
// Why these register tiles: a warp loads (kChannels + kPixels) numbers per kChannels · kPixels multiply-adds, and
// shared memory delivers 32 numbers a clock where the fp32 units take 128: 8 × 8 needs every clock of both, 8 × 16 3/4
// of them, 8 × 20 (gradient) 7/10. 8 × 8 is for devices or images where large tiles would leave multiprocessors idle.
#pragma once

#include <cstddef>
#include <type_traits>

#include "einfield/network.hpp"
#include "kernels/network/tile/tensor_core.cuh"

namespace einfield::cuda::tiled {

constexpr int kThreads = 256;
constexpr int kSplit = 2;                  // parts of the block that share the rows k of a product
constexpr int kItems = kThreads / kSplit;  // register tiles per product and pass
constexpr int kUnroll = 2;  // consecutive rows of one part; with 4, ptxas loads so far ahead that it spills
constexpr int kUnit = kSplit * kUnroll;  // rows are padded to a multiple of this with zero weights
constexpr int kSlots = 2;                // stages of the ring
constexpr int kWarps = kThreads / 32;
constexpr int kLanes = 64, kStrands = 4;  // of reduce_kernel: vectors side by side, partial sums of each

/// Register tiles. kVector numbers make the 16 bytes of one access.
template <class Real>
struct Registers;
template <>
struct Registers<float> {
  static constexpr int kVector = 4, kPixels = 16, kChannels = 8, kGradIn = 20, kGradOut = 8;
};
template <>
struct Registers<double> {
  static constexpr int kVector = 2, kPixels = 8, kChannels = 8, kGradIn = 8, kGradOut = 8;
};

/// Fragments of the matrix units: 16 points (or rows i) × 8 channels (or columns o) × 8 terms of a sum. Warp w takes
/// those of channels w, w + kWarps …, kColumns of them, beside all points, or beside kRows of the rows i.
struct Fragments {
  static constexpr int kHeight = 16, kWidth = 8, kDepth = 8;
  static constexpr int kColumns = 4, kRows = 7;
  static constexpr int kSums = kColumns * kRows;  // fragments of a gradient per warp and pass, kRows after kRows
};

/// A tile of kPoints points: kGroups register tiles side by side. Everything that addresses shared memory in an inner
/// loop is a constant of this type. The pitch is an odd number of vectors: eight consecutive rows start in eight
/// different groups of banks.
template <class RealType, int kGroupsOfPixels, int kPixelsOfThread = Registers<RealType>::kPixels,
          NetworkMath kMathOfProducts = NetworkMath::fp32>
struct Tile : Registers<RealType> {
  using Real = RealType;
  using Base = Registers<Real>;
  static constexpr NetworkMath kMath = kMathOfProducts;
  static constexpr bool kFragments = kMath != NetworkMath::fp32;
  static constexpr int kPixels = kPixelsOfThread;
  static constexpr int kGroups = kGroupsOfPixels;
  static constexpr int kPoints = kGroups * kPixels;
  static constexpr int kPitch = kPoints + Base::kVector;
  static constexpr int kChunks = kPixels / Base::kVector;       // vectors of points per register tile
  static constexpr int kOwn = kChunks / kSplit;                 // of these, finished by one thread
  static constexpr int kChunkStride = kGroups * Base::kVector;  // points between the chunks of a register tile
  static constexpr int kHalf = kOwn * kChunkStride;             // points that one half of the block finishes
  /// Groups of channels per pass.
  static constexpr int kMaxGroups =
      kFragments && kItems / kGroups > Fragments::kColumns* kWarps ? Fragments::kColumns* kWarps : kItems / kGroups;
  /// Whether eight neighbouring threads finish points of eight rows of a buffer, or as many as there are side by side
  /// of a row, then of the next. With 5 tiles a row both are free of conflicts, and the second leaves no thread idle.
  static constexpr bool kRowsFirst = kFragments && kMaxGroups % 8 == 0;
  /// The number of the register tile of a group of channels and of one of points.
  __host__ __device__ static constexpr int item_of(int group, int pixel_group) {
    return kRowsFirst ? (group / 8 * kGroups + pixel_group) * 8 + group % 8 : group * kGroups + pixel_group;
  }
  static constexpr int kWeightPitch = kMaxGroups * Base::kChannels;
  /// Rows of weights per stage: a stage also holds what channel_sums() collects, kThreads · kChannels numbers.
  static constexpr int kStageRows = kWeightPitch <= 256 ? 16 : 4096 / kWeightPitch;
  static constexpr int kStage = kStageRows * kWeightPitch;
  static constexpr int kRowUnit = kFragments ? Fragments::kDepth : kUnit;  // rows are padded to a multiple of it
  static_assert(kStageRows % kRowUnit == 0 && kStage >= kThreads * Base::kChannels);
  /// Sums of a product, a register tile's or where they are; sums of a gradient.
  using Sums = std::conditional_t<kFragments, const Real*, Real[Base::kChannels][kPixels]>;
  static constexpr int kGradIn = kFragments ? Fragments::kSums : Base::kGradIn;
  static constexpr int kGradOut = kFragments ? 4 : Base::kGradOut;
  static_assert(!kFragments || (kPoints % Fragments::kHeight == 0 && kStageRows == 2 * Fragments::kDepth &&
                                Base::kChannels == Fragments::kWidth && Base::kVector == 4));
  /// Numbers of one array of the tape (or of the kept array) per pass: all own vectors of all threads.
  static constexpr int kPassSize = Base::kChannels * kOwn * Base::kVector * kThreads;
};

/// One hidden layer, and the matrix that leads to it from the layer below (none for layer 0).
struct Layer {
  int width;
  int groups;  // groups of kChannels channels per pass; channel = (pass · kChannels + j) · groups + group
  int passes;
  int kernel, bias;                 // offsets in the parameters
  int tape_a, tape_p;               // offsets in a tile's tape: a of layers ≥ 1, p of fitted layers below the last
  int g_bar;                        // offset in a block's sums: ḡ of the tile at hand, of layers that are not kept
  int constants;                    // offset of the layer's Constants, with which the packed weights begin
  int value_stage, gradient_stage;  // first stages of the matrix and of its transpose in the stream
  int partial;                      // offset of the matrix's gradient in a block's sums
  int bias_partial;
  // Register tiles along the rows and columns of the matrix, of these per pass; ways = parts of the block that share
  // the points. With fragments: eights of rows and of columns, fragments of rows per pass.
  int grad_in, grad_out;
  int grad_items, grad_passes, grad_ways;
  int reduce_block;  // first block of reduce_kernel that serves this matrix
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
  int layers, points, tiles, rows;                // rows: of an activation buffer
  int kept;                                       // the layer with an array in shared memory, or −1
  int last_kernel, last_bias;                     // offsets in the parameters
  int first_partial, last_partial, partial_size;  // offsets in a block's sums; what follows is ḡ
  int tape_size, sums_size;                       // per tile, per block
  int stream, stages;                             // the packed weights behind the constants: offset, stages of the ring
  int pack_size, constants_size, reduce_blocks;
  int padding_row;    // rows of a buffer from here on may be padding
  int position_rows;  // of the positions, a lens: 2 (all x, then all y), or 0 = common ones
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

__device__ inline unsigned shared_address(const void* p) {
  return static_cast<unsigned>(__cvta_generic_to_shared(p));
}

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
/// Keeps functions of several numbers in double precision one after the other: side by side they take more registers
/// than there are.
__device__ inline double one_by_one(double a) {
  asm volatile("" : "+d"(a));
  return a;
}
__device__ inline float one_by_one(float a) {
  return a;
}
__device__ inline Activation<double> activate(double a) {
  a = one_by_one(a);
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

/// s(a) and s′(a) of a layer: the sine of an encoding, or swish.
template <bool kEncoded, class Real>
__device__ __forceinline__ Real value_of(Real a) {
  if constexpr (kEncoded)
    return sine(one_by_one(a));
  else
    return activate(a).value;
}
template <bool kEncoded, class Real>
__device__ __forceinline__ Real slope_of(Real a) {
  if constexpr (kEncoded)
    return cosine(one_by_one(a));
  else
    return activate(a).first();
}

/// Rows of a matrix that one block of reduce_kernel adds up, each of so many vectors.
__host__ __device__ constexpr int reduce_rows(int row_vectors) {
  return row_vectors < kLanes ? kLanes / row_vectors : 1;
}

/// Rows of a matrix that a product takes.
template <class T>
__host__ __device__ constexpr int padded_rows(int width) {
  return (width + T::kRowUnit - 1) / T::kRowUnit * T::kRowUnit;
}

/// Where a thread stands: which register tile of a product, which part of the rows, which points are its own to finish.
template <class T>
struct Place {
  int split, item, group, pixels;  // pixels: first of the register tile's points, in the first chunk
  int own, other;                  // first point of the own chunks and of the partner's
  __device__ explicit Place(int thread) {
    item = thread % kItems;
    split = thread / kItems;
    group = T::kRowsFirst ? item / (8 * T::kGroups) * 8 + item % 8 : item / T::kGroups;
    pixels = T::kVector * ((T::kRowsFirst ? item / 8 : item) % T::kGroups);
    own = pixels + split * T::kHalf;
    other = pixels + (1 - split) * T::kHalf;
  }
  /// Where its first row of weights begins in a stage; with fragments, its numbers of the warp's first one.
  __device__ int weights() const {
    return T::kFragments ? 2 * static_cast<int>(threadIdx.x) : split * kUnroll * T::kWeightPitch + T::kChannels * group;
  }
};

/// The vectors that a thread takes of every channel of its group: kOwn chunks, kChunkStride points apart.
struct Share {
  int group;
  int column;  // of the first vector in a buffer
  int point;   // its first point
  int lane;    // the thread that finished it, which tells where it lies in an array of the tape
};

/// What a thread finishes.
template <class T>
__device__ __forceinline__ Share own_share_of(int thread) {
  const Place<T> place(thread);
  return {place.group, place.own, place.own, thread};
}

/// A vector of points of one channel: which of the thread's own, and where it lies.
struct Cell {
  int j, c;           // acc[j][c · kVector …]
  int offset, point;  // in a buffer; first point
  std::ptrdiff_t at;  // in an array of the tape, of ḡ, or in the kept one
};

/// Calls f(cell, constants of its channel) for each vector of a share in one pass over a layer. Channels of padding are
/// computed like the others (buffers and tape have room, weights and constants are zero): a branch each would cost
/// more. f may index registers by cell.j only where all channels are unrolled.
template <class T, int kUnrollChannels = T::kChannels, class F>
__device__ __forceinline__ void for_cells(const Layer& layer, int pass, const Share& share,
                                          const Constants<typename T::Real>* all_constants, F f) {
  const int groups = layer.groups;
  if (share.group >= groups) return;
  constexpr int kStep = kThreads * T::kVector;  // one vector of every thread
  const int channel = pass * T::kChannels * groups + share.group;
  const Constants<typename T::Real>* constants = all_constants + layer.constants + channel;
  const std::ptrdiff_t at = pass * T::kPassSize + share.lane * T::kVector;
  int offset = channel * T::kPitch + share.column;
#pragma unroll kUnrollChannels
  for (int j = 0; j < T::kChannels; ++j, offset += groups * T::kPitch, constants += groups) {
    const Constants<typename T::Real> k = *constants;
#pragma unroll
    for (int c = 0; c < T::kOwn; ++c)
      f(Cell{j, c, offset + c * T::kChunkStride, share.point + c * T::kChunkStride, at + (j * T::kOwn + c) * kStep}, k);
  }
}

/// The stream of weights on its way from L2, stage by stage: one is copied while the one before is in use.
template <class T>
class Ring {
 public:
  using Real = typename T::Real;
  /// @param offset  where this thread begins to read in a stage
  __device__ Ring(Real* slots, int offset)
      : slots_(slots),
        read_(reinterpret_cast<const char*>(slots + offset)),
        target_(shared_address(slots) + threadIdx.x * 16u) {}
  /// Begins with the first stage of a stream. Every thread has left the ring.
  __device__ void start(const Real* stream, int stages) {
    source_ = __cvta_generic_to_global(stream) + threadIdx.x * 16u;
    stages_ = stages;
    if (stages > 0) fetch();
  }
  /// The stage that has been fetched, from the thread's offset on; the fetch of the following one begins. Every thread
  /// has left the stage before, and sees all earlier writes to shared memory.
  __device__ const Real* next() {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_group 0;" ::: "memory");
#endif
    __syncthreads();
    // With fragments there is no register to keep what follows from the thread.
    const Real* stage = T::kFragments ? slots_ + (slot_ / sizeof(Real) + 2 * forget(threadIdx.x))
                                      : reinterpret_cast<const Real*>(read_ + slot_);
    slot_ ^= kBytes;
    source_ += kBytes;
    if (--stages_ > 0) fetch();
    return stage;
  }
  /// The stage that next() returned last: the caller's own as soon as all threads have left it, until the next next().
  __device__ Real* idle() const {
    return slots_ + (slot_ == 0 ? T::kStage : 0);
  }

 private:
  static constexpr unsigned kBytes = T::kStage * sizeof(Real), kStep = kThreads * 16;
  __device__ void fetch() const {
    copy_from<0>((T::kFragments ? shared_address(slots_) + forget(threadIdx.x) * 16u : target_) + slot_, source_);
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
  }
  /// The vectors of a stage that this thread copies, kThreads vectors apart.
  template <unsigned kOffset>
  __device__ static void copy_from(unsigned target, std::size_t source) {
    if constexpr (kOffset + kStep <= kBytes) {
      copy_async<kOffset>(target, source);
      copy_from<kOffset + kStep>(target, source);
    } else if constexpr (kOffset < kBytes) {
      if (threadIdx.x * 16u < kBytes - kOffset) copy_async<kOffset>(target, source);
    }
  }
  /// 16 bytes to shared memory: without a stop in a register where the device can (compute capability 8.0).
  template <unsigned kOffset>
  __device__ static void copy_async(unsigned target, std::size_t source) {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
    asm volatile("cp.async.cg.shared.global [%0 + %2], [%1 + %2], 16;" ::"r"(target), "l"(source), "n"(kOffset)
                 : "memory");
#else
    float4 q;
    asm volatile("ld.global.v4.f32 {%0, %1, %2, %3}, [%4 + %5];"
                 : "=f"(q.x), "=f"(q.y), "=f"(q.z), "=f"(q.w)
                 : "l"(source), "n"(kOffset)
                 : "memory");
    asm volatile("st.shared.v4.f32 [%0 + %5], {%1, %2, %3, %4};" ::"r"(target), "f"(q.x), "f"(q.y), "f"(q.z), "f"(q.w),
                 "n"(kOffset)
                 : "memory");
#endif
  }

  Real* slots_;
  const char* read_;
  unsigned target_, slot_ = 0;  // slot_: byte offset of the stage that next() will return
  std::size_t source_ = 0;      // address in global memory
  int stages_ = 0;
};

// ---- products by multiply-adds --------------------------------------------------------------------------------------

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
/// consecutive, rows o_b grad_out apart (consecutive lanes take consecutive rows: no bank conflict).
template <class T, class Real = typename T::Real>
__device__ __forceinline__ void multiply_gradient(Real (&acc)[T::kGradIn][T::kGradOut], const Real* in, const Real* out,
                                                  int vectors, const Layer& layer, int pass) {
  constexpr int V = T::kVector;
  const int thread = threadIdx.x, way = thread / layer.grad_items;
  const int item = pass * kThreads + thread % layer.grad_items;
  const int column = item % layer.grad_out, row = item / layer.grad_out;
  if (row >= layer.grad_in || way >= layer.grad_ways) return;
  const int share = (vectors + layer.grad_ways - 1) / layer.grad_ways, first = way * share;
  const Real* x = in + row * T::kGradIn * T::kPitch + first * V;
  const Real* y[T::kGradOut];
#pragma unroll
  for (int b = 0; b < T::kGradOut; ++b) y[b] = out + (column + b * layer.grad_out) * T::kPitch + first * V;
#pragma unroll 1
  for (int left = min(share, vectors - first); left > 0; --left, x += V) {
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

// ---- products on the matrix units -----------------------------------------------------------------------------------

/// Two adjacent numbers, 8 bytes in one access.
__device__ __forceinline__ float2 load_pair(const float* p) {
  return *reinterpret_cast<const float2*>(p);
}
__device__ __forceinline__ void store_pair(float* p, float x, float y) {
  asm volatile("st.shared.v2.f32 [%0], {%1, %2};" ::"r"(shared_address(p)), "f"(x), "f"(y) : "memory");
}

/// f(first, count) for all of a warp's fragments along the channels, `columns` being those of the block from the warp's
/// first one on: constants, so that they share the fragments of the other operand. Of few channels one after the other.
template <class F>
__device__ __forceinline__ void for_columns(int columns, F f) {
  using One = std::integral_constant<int, 1>;
  using Three = std::integral_constant<int, 3>;
  static_assert(Fragments::kColumns == 4);
  if (columns > 2 * kWarps) {
    f(0, Three{});
    if (columns > 3 * kWarps) f(3, One{});
  } else {
    f(0, One{});
    if (columns > kWarps) f(1, One{});
  }
}

/// 8 rows of a product, for all points and the warp's channels. The numbers of a lane are neighbours, and a half of a
/// warp meets every bank once: A is 16 points × 8 rows, points 2g and 2g + 1 the fragment's rows g and g + 8, terms q
/// and q + 4 of the sum rows k = 2q and 2q + 1 (at a pitch of 4 mod 8 numbers, rows 2q begin in banks 8q mod 32); B the
/// packed weights, in lanes' order.
template <class T>
__device__ __forceinline__ void multiply_rows(float (&acc)[Fragments::kColumns][T::kGroups][4], const float* x,
                                              const float* w, int columns) {
  for_columns(columns, [&](int first, auto count) {
    constexpr int kCount = decltype(count)::value;
    tensor::Operand<T::kMath, 2> b[kCount];
#pragma unroll
    for (int c = 0; c < kCount; ++c) {
      const float2 pair = load_pair(w + (first + c) * 2 * kThreads);
      b[c].set(0, pair.x);
      b[c].set(1, pair.y);
    }
#pragma unroll
    for (int m = 0; m < T::kGroups; ++m) {
      tensor::Operand<T::kMath, 4> a;
      const float2 even = load_pair(x + m * Fragments::kHeight),
                   odd = load_pair(x + T::kPitch + m * Fragments::kHeight);
      a.set(0, even.x);
      a.set(1, even.y);
      a.set(2, odd.x);
      a.set(3, odd.y);
      tensor::multiply_add<T::kMath, kCount>([&](int c) -> float(&)[4] { return acc[first + c][m]; }, a, b);
    }
  });
}

/// As multiply(), and with the same promises, but that the complete sums are in `out`.
template <class T>
__device__ __forceinline__ void multiply_fragments(const float* in, float* out, const Layer& layer, int pass, int rows,
                                                   Ring<T>& ring) {
  const int thread = forget(threadIdx.x), warp = thread / 32, g = thread % 32 / 4, q = thread % 4;
  const int columns = layer.groups - warp;
  float acc[Fragments::kColumns][T::kGroups][4] = {};
  const float* x = in + 2 * q * T::kPitch + 2 * g;
#pragma unroll 1
  for (; rows > 0; rows -= T::kStageRows) {
    const float* w = ring.next();
    if (columns <= 0) continue;
    const float* const end = w + min(rows, T::kStageRows) * T::kWeightPitch;
#pragma unroll 1
    for (; w != end; w += Fragments::kDepth * T::kWeightPitch, x += Fragments::kDepth * T::kPitch)
      multiply_rows<T>(acc, x, w, columns);
  }
  const int first = pass * T::kChannels * layer.groups;
  float* row = out + (first + Fragments::kWidth * warp + 2 * q) * T::kPitch + 2 * g;
#pragma unroll
  for (int c = 0; c < Fragments::kColumns; ++c, row += kWarps * Fragments::kWidth * T::kPitch) {
    if (c * kWarps >= columns) break;
#pragma unroll
    for (int m = 0; m < T::kGroups; ++m)
#pragma unroll
      for (int i = 0; i < 2; ++i)
        store_pair(row + i * T::kPitch + m * Fragments::kHeight, acc[c][m][i], acc[c][m][i + 2]);
  }
  __syncthreads();
}

/// Row or column of a gradient for index i of a fragment: four of them 2 rows of a buffer apart begin in four different
/// groups of 8 banks.
__host__ __device__ constexpr int spread(int i) {
  return 2 * (i % 4) + i / 4;
}

/// 8 points of a gradient, for `rows` eights of rows i and the warp's columns o. x, y: the lane's first numbers of `in`
/// and `out`.
template <class T>
__device__ __forceinline__ void multiply_points(float (&acc)[T::kGradIn][T::kGradOut], const float* x, const float* y,
                                                int rows, int columns) {
  constexpr int kEight = Fragments::kWidth * T::kPitch;
  for_columns(columns, [&](int first, auto count) {
    constexpr int kCount = decltype(count)::value;
    tensor::Operand<T::kMath, 2> b[kCount];
#pragma unroll
    for (int c = 0; c < kCount; ++c) {
      const float2 pair = load_pair(y + (first + c) * kWarps * kEight);
      b[c].set(0, pair.x);
      b[c].set(1, pair.y);
    }
#pragma unroll
    for (int m = 0; m < Fragments::kRows; ++m) {
      if (2 * m >= rows) break;
      tensor::Operand<T::kMath, 4> a;
#pragma unroll
      for (int half = 0; half < 2; ++half) {  // rows that are not there count as zero
        float2 pair{};
        if (2 * m + half < rows) pair = load_pair(x + (2 * m + half) * kEight);
        a.set(half, pair.x);
        a.set(half + 2, pair.y);
      }
      tensor::multiply_add<T::kMath, kCount>(
          [&](int c) -> float(&)[4] { return acc[(first + c) * Fragments::kRows + m]; }, a, b);
    }
  });
}

/// Where a warp's fragments of a gradient lie in the matrix.
struct GradientPart {
  int first_row, rows;  // eights of rows: first, and how many from there on to the end of the matrix or of the pass
  int first_column, columns;  // eights of columns: first, and how many from there on to the end of the matrix
  __host__ __device__ GradientPart(const Layer& layer, int pass, int warp) {
    const int row_passes = (layer.grad_in + 2 * layer.grad_items - 1) / (2 * layer.grad_items);
    first_row = 2 * layer.grad_items * (pass % row_passes);
    rows = layer.grad_in - first_row < 2 * layer.grad_items ? layer.grad_in - first_row : 2 * layer.grad_items;
    first_column = Fragments::kColumns * kWarps * (pass / row_passes) + warp;
    columns = layer.grad_out - first_column;
  }
  /// Whether the sums of a slot (column by column, kRows each) stand for anything.
  __host__ __device__ bool has(int slot) const {
    return 2 * (slot % Fragments::kRows) < rows && slot / Fragments::kRows * kWarps < columns;
  }
};

/// Without fragments every sum is kept.
struct WholeGradient {
  __device__ constexpr bool has(int) const { return true; }
};

/// As multiply_gradient().
template <class T>
__device__ __forceinline__ void multiply_gradient_fragments(float (&acc)[T::kGradIn][T::kGradOut], const float* in,
                                                            const float* out, int vectors, const Layer& layer,
                                                            int pass) {
  const int thread = forget(threadIdx.x), lane = thread % 32, row = spread(lane / 4);
  const GradientPart part(layer, pass, thread / 32);
  if (part.columns <= 0) return;
  const float* x = in + (part.first_row * Fragments::kWidth + row) * T::kPitch + lane % 4 * 2;
  const float* y = out + (part.first_column * Fragments::kWidth + row) * T::kPitch + lane % 4 * 2;
  int points = vectors * T::kVector;
#pragma unroll 1
  for (; points > 0; points -= Fragments::kDepth, x += Fragments::kDepth, y += Fragments::kDepth)
    multiply_points<T>(acc, x, y, forget(part.rows), forget(part.columns));
}

// ---- either way -----------------------------------------------------------------------------------------------------

/// Calls f(vector, cell, constants) for each own vector of complete sums.
template <class T, class Real = typename T::Real, class F>
__device__ __forceinline__ void for_sums(const typename T::Sums& acc, const Layer& layer, int pass, const Share& own,
                                         const Constants<Real>* constants, F f) {
  if constexpr (T::kFragments) {
    const int next = layer.groups * T::kPitch;
    const Real* const first = acc + (pass * T::kChannels * layer.groups + own.group) * T::kPitch + own.column;
    Pack<Real> ahead[T::kOwn];  // of the channel to come
    if (own.group < layer.groups)
#pragma unroll
      for (int c = 0; c < T::kOwn; ++c) ahead[c] = Pack<Real>::load(first + c * T::kChunkStride);
    for_cells<T>(layer, pass, own, constants, [&](const Cell& cell, const Constants<Real>& k) {
      const Pack<Real> v = ahead[cell.c];
      if (cell.j + 1 < T::kChannels) ahead[cell.c] = Pack<Real>::load(acc + cell.offset + next);
      f(v, cell, k);
    });
  } else {
    for_cells<T>(layer, pass, own, constants, [&](const Cell& cell, const Constants<Real>& k) {
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
      multiply<T>(acc, in, out, layer, pass, rows, ring, place);
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

/// The block's shared memory: two activation buffers, the ring, what is known per point, and the kept array.
template <class T>
struct Shared {
  using Real = typename T::Real;
  Real *first, *second, *slots, *point, *kept;  // point: kPoints each of u_x, u_y, ℓᾱ_x, ℓᾱ_y, ψ̄ (or sums of ψ, α)
  __device__ Shared(void* memory, const Network<Real>& net) {
    first = static_cast<Real*>(memory);
    second = first + net.rows * T::kPitch;
    slots = second + net.rows * T::kPitch;
    point = slots + kSlots * T::kStage;
    kept = point + 5 * T::kPoints;
  }
  /// Rows and columns of padding meet zero weights or zero cotangents: they must hold finite numbers.
  __device__ void clear(const Network<Real>& net) const {
    const Pack<Real> zero{};
    for (int i = net.padding_row * T::kPitch + static_cast<int>(threadIdx.x) * T::kVector; i < net.rows * T::kPitch;
         i += kThreads * T::kVector) {
      zero.store_shared(first + i);
      zero.store_shared(second + i);
    }
  }
  static std::size_t bytes(int rows, int kept_passes) {
    return static_cast<std::size_t>(2 * rows * T::kPitch + kSlots * T::kStage + 5 * T::kPoints +
                                    kept_passes * T::kPassSize) *
           sizeof(Real);
  }
};

/// a of the first layer: two multiply-adds are cheaper than a tape.
template <class T, class Real = typename T::Real>
__device__ __forceinline__ Pack<Real> first_a(const Real* point_data, int point, const Constants<Real>& k) {
  const Pack<Real> x = Pack<Real>::load(point_data + point), y = Pack<Real>::load(point_data + T::kPoints + point);
  Pack<Real> a;
#pragma unroll
  for (int i = 0; i < T::kVector; ++i) a.v[i] = fma(k.w_x, x.v[i], fma(k.w_y, y.v[i], k.bias));
  return a;
}

/// ḡ of the first layer, ℓ W₁ᾱ (ℓᾱ is what point_data holds).
template <class T, class Real = typename T::Real>
__device__ __forceinline__ Pack<Real> first_g_bar(const Real* point_data, int point, const Constants<Real>& k) {
  const Pack<Real> x = Pack<Real>::load(point_data + 2 * T::kPoints + point),
                   y = Pack<Real>::load(point_data + 3 * T::kPoints + point);
  Pack<Real> g;
#pragma unroll
  for (int i = 0; i < T::kVector; ++i) g.v[i] = fma(k.w_x, x.v[i], k.w_y * y.v[i]);
  return g;
}

// Sums over the threads of a block that share something. What a thread has goes where the others leave it alone, in
// vectors of adjacent lanes; after a barrier one thread adds the terms in order.

/// Sums of which threads without channels would keep old ones, in registers that fragments need.
template <class T, int kCount, class Real = typename T::Real>
__device__ __forceinline__ void forget_sums(Real (&sums)[kCount]) {
  if constexpr (T::kFragments)
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

// ---- kernels --------------------------------------------------------------------------------------------------------

/// Packs the Constants of every channel, and W and Wᵀ of every matrix as the ring reads them: a block makes one stage,
/// [row k][group][channel] or in fragments, zero where row or channel are padding, by way of shared memory, so that
/// reads and writes are whole lines. x: stages, then blocks of channels; y: lens.
template <class T>
__global__ void __launch_bounds__(kThreads) pack_kernel(const __grid_constant__ Network<typename T::Real> net,
                                                        const typename T::Real* all_parameters, std::size_t stride) {
  using Real = typename T::Real;
  __shared__ Real tile[T::kStage + T::kStageRows];  // [row][channel of the pass], one number of padding per row
  const int thread = threadIdx.x, last = net.layers - 1;
  const Real* parameters = all_parameters + blockIdx.y * stride;
  Real* packed = net.packed + static_cast<std::size_t>(blockIdx.y) * net.pack_size;
  int stage = blockIdx.x;
  if (stage >= net.stages) {
    const int index = (stage - net.stages) * kThreads + thread;
    if (index >= net.constants_size) return;
    int l = 0;
    while (l < last && index >= net.layer[l + 1].constants) ++l;
    const int channel = index - net.layer[l].constants, width = net.layer[l].width;
    Constants<Real> k{};
    if (channel < width) {
      if (l == 0) {
        k.w_x = parameters[net.layer[0].kernel + channel];
        k.w_y = parameters[net.layer[0].kernel + width + channel];
      }
      k.bias = parameters[net.layer[l].bias + channel];
      if (l == last) k.output = parameters[net.last_kernel + channel];
    }
    reinterpret_cast<Constants<Real>*>(packed)[index] = k;
    return;
  }
  packed += net.stream + static_cast<std::size_t>(stage) * T::kStage;
  const bool value = stage < net.layer[last].gradient_stage;
  int l = value ? 1 : last;
  if (value)
    while (l < last && stage >= net.layer[l + 1].value_stage) ++l;
  else
    while (l > 1 && stage >= net.layer[l - 1].gradient_stage) --l;
  const Layer &matrix = net.layer[l], &to = net.layer[value ? l : l - 1], &from = net.layer[value ? l - 1 : l];
  stage -= value ? matrix.value_stage : matrix.gradient_stage;
  const int stages_per_pass = (from.width + T::kStageRows - 1) / T::kStageRows;
  const int channels = to.groups * T::kChannels, pitch = channels + 1;
  const int first_channel = stage / stages_per_pass * channels, first_row = stage % stages_per_pass * T::kStageRows;
  for (int i = thread; i < T::kStageRows * channels; i += kThreads) {
    // Consecutive threads along a row of the stored matrix: its columns are channels of `to` or, transposed, rows k.
    const int row = value ? i / channels : i % T::kStageRows, channel = value ? i % channels : i / T::kStageRows;
    const int k = first_row + row, ch = first_channel + channel;
    Real w = 0;
    if (k < from.width && ch < to.width)
      w = parameters[matrix.kernel + (value ? k : ch) * matrix.width + (value ? ch : k)];
    tile[row * pitch + channel] = w;
  }
  __syncthreads();
  for (int i = thread; i < T::kStage; i += kThreads) {
    int row, group, channel;
    if constexpr (T::kFragments) {  // [eight of rows][eight of channels][lane][its two numbers of B]
      const int lane = i / 2 % 32;
      group = i / 64 % T::kMaxGroups;
      row = i / (64 * T::kMaxGroups) * Fragments::kDepth + lane % 4 * 2 + i % 2;
      channel = group * Fragments::kWidth + lane / 4;
    } else {
      row = i / T::kWeightPitch;
      group = i % T::kWeightPitch / T::kChannels;
      channel = i % T::kChannels * to.groups + group;
    }
    packed[i] = group < to.groups ? tile[row * pitch + channel] : Real(0);
  }
}

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

/// Adds the blocks' partial sums to the gradient. Lanes take vectors of sums, strands every kStrands-th term of each;
/// the strands are added in order. x < reduce_blocks: rows of a matrix, so that consecutive threads write consecutive
/// numbers, or kLanes vectors of fragments; else kLanes numbers of the vectors (W₁, biases, w).
template <class Real, bool kFragments>
__global__ void __launch_bounds__(kLanes* kStrands)
    reduce_kernel(const __grid_constant__ Network<Real> net, Real* all_gradients, std::size_t stride, int blocks) {
  using R = Registers<Real>;
  constexpr int V = R::kVector, kSums = R::kGradIn * R::kGradOut, kParts = R::kGradOut / V;  // vectors of a tile's row
  __shared__ Real strands[kStrands][V][kLanes];
  const int lane = threadIdx.x, strand = threadIdx.y, lens = blockIdx.y;
  Real* gradient = all_gradients + lens * stride;
  const Real* partial = net.sums + static_cast<std::size_t>(lens) * blocks * net.sums_size;
  const auto sum_of = [&](int i, int of_lane) {
    Real sum = strands[0][i][of_lane];
#pragma unroll
    for (int s = 1; s < kStrands; ++s) sum += strands[s][i][of_lane];
    return sum;
  };

  if (static_cast<int>(blockIdx.x) < net.reduce_blocks) {
    int l = 1;
    while (l + 1 < net.layers && static_cast<int>(blockIdx.x) >= net.layer[l + 1].reduce_block) ++l;
    const Layer& layer = net.layer[l];
    const int height = net.layer[l - 1].width;
    if constexpr (kFragments) {
      const int vector = (static_cast<int>(blockIdx.x) - layer.reduce_block) * kLanes + lane;
      const int slot = vector / kThreads % Fragments::kSums, of = vector % 32;
      const GradientPart part(layer, vector / (Fragments::kSums * kThreads), vector % kThreads / 32);
      if (!__syncthreads_or(part.has(slot))) return;
      Pack<Real> sum{};
      if (part.has(slot))
#pragma unroll 4
        for (int block = strand; block < blocks; block += kStrands) {
          const Pack<Real> v =
              Pack<Real>::load(partial + static_cast<std::size_t>(block) * net.sums_size + layer.partial + vector * V);
#pragma unroll
          for (int i = 0; i < V; ++i) sum.v[i] += v.v[i];
        }
#pragma unroll
      for (int i = 0; i < V; ++i) strands[strand][i][lane] = sum.v[i];
      __syncthreads();
      const int row = (part.first_row + slot % Fragments::kRows * 2 + strand / 2) * Fragments::kWidth + spread(of / 4);
      const int column =
          (part.first_column + slot / Fragments::kRows * kWarps) * Fragments::kWidth + spread(of % 4 * 2 + strand % 2);
      static_assert(kStrands == 4, "a strand writes one of a lane's four sums");
      if (part.has(slot) && row < height && column < layer.width)
        gradient[layer.kernel + row * layer.width + column] += sum_of(strand, lane);
      return;
    }
    const int row_vectors = kParts * layer.grad_out;
    const int rows = reduce_rows(row_vectors), first = (static_cast<int>(blockIdx.x) - layer.reduce_block) * rows;
    for (int chunk = 0; chunk < rows * row_vectors; chunk += kLanes) {  // several where a row is wide: then rows = 1
      const int vector = chunk + lane, in = first + vector / row_vectors, in_row = vector % row_vectors;
      const bool on = vector < rows * row_vectors && in < height;
      Pack<Real> sum{};
      if (on) {
        const int tile = in / R::kGradIn * layer.grad_out + in_row % layer.grad_out;
        const int slot = in % R::kGradIn * kParts + in_row / layer.grad_out;
        const int pass = tile / kThreads, item = tile % kThreads;
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
      __syncthreads();  // the chunk before has been written
#pragma unroll
      for (int i = 0; i < V; ++i) strands[strand][i][lane] = sum.v[i];
      __syncthreads();
      const int thread = strand * kLanes + lane;
      if (row_vectors <= kLanes) {  // whole rows
        const int count = min(rows, height - first) * layer.width;
        for (int i = thread; i < count; i += kLanes * kStrands) {
          const int row = i / layer.width, out = i % layer.width;
          const int b = out / layer.grad_out,
                    of_lane = row * row_vectors + b / V * layer.grad_out + out % layer.grad_out;
          gradient[layer.kernel + first * layer.width + i] += sum_of(b % V, of_lane);
        }
      } else {
        for (int i = thread; i < V * kLanes; i += kLanes * kStrands) {
          const int of_row = chunk + i % kLanes, b = of_row / layer.grad_out * V + i / kLanes;
          const int out = of_row % layer.grad_out + b * layer.grad_out;
          if (of_row < row_vectors && out < layer.width)
            gradient[layer.kernel + first * layer.width + out] += sum_of(i / kLanes, i % kLanes);
        }
      }
    }
    return;
  }

  const int index = net.first_partial + (static_cast<int>(blockIdx.x) - net.reduce_blocks) * kLanes + lane;
  const bool on = index <= net.last_partial + net.layer[net.layers - 1].width;
  Real sum = 0;
  if (on)
    for (int block = strand; block < blocks; block += kStrands)
      sum += partial[static_cast<std::size_t>(block) * net.sums_size + index];
  strands[strand][0][lane] = sum;
  __syncthreads();
  if (strand != 0 || !on) return;
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
  gradient[target] += sum_of(0, lane);
}

}  // namespace einfield::cuda::tiled
