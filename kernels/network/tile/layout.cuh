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
//   narrow tiles    for layers of up to 16, 32 or 64 channels: more points side by side, so that no thread is idle, two
//                   blocks per multiprocessor, and gradients that the block adds up before it writes them
//   matrix units    with NetworkMath::tf32x3 or tf32 a warp takes fragments (multiply_mma.cuh) of a product instead:
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
#include "kernels/check.cuh"
#include "kernels/systems.cuh"

namespace einfield::cuda::tiled {

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
          NetworkMath kMathOfProducts = NetworkMath::fp32, bool kForNarrowLayers = false>
struct Tile : Registers<RealType> {
  using Real = RealType;
  using Base = Registers<Real>;
  static constexpr NetworkMath kMath = kMathOfProducts;
  static constexpr bool kFragments = kMath != NetworkMath::fp32;
  static constexpr bool kNarrow = kForNarrowLayers;
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
  /// True: eight neighboring threads finish points of eight rows of a buffer. False: they finish neighboring points of
  /// one row, then of the next. With 5 tiles per row both are free of conflicts, and the second leaves no thread idle.
  static constexpr bool kRowsFirst = kFragments && kMaxGroups % 8 == 0;
  /// The number of the register tile of a group of channels and of one of points.
  __host__ __device__ static constexpr int item_of(int group, int pixel_group) {
    return kRowsFirst ? (group / 8 * kGroups + pixel_group) * 8 + group % 8 : group * kGroups + pixel_group;
  }
  static constexpr int kWeightPitch = kMaxGroups * Base::kChannels;
  /// Rows of weights per stage: a stage also holds what channel_sums() collects, kThreads · kChannels numbers.
  static constexpr int kStageRows = kNarrow               ? kThreads * Base::kChannels / kWeightPitch
                                    : kWeightPitch <= 256 ? 16
                                                          : 4096 / kWeightPitch;
  static constexpr int kStage = kStageRows * kWeightPitch;
  static constexpr int kRowUnit = kFragments ? Fragments::kDepth : kUnit;  // rows are padded to a multiple of it
  static_assert(kStageRows % kRowUnit == 0 && kStage >= kThreads * Base::kChannels);
  /// Sums of a product, a register tile's or where they are; sums of a gradient.
  using Sums = std::conditional_t<kFragments, const Real*, Real[Base::kChannels][kPixels]>;
  static constexpr int kGradIn = kFragments ? Fragments::kSums : kNarrow ? Base::kChannels : Base::kGradIn;
  static constexpr int kGradOut = kFragments ? 4 : Base::kGradOut;
  /// Blocks that share a multiprocessor, and so its registers. Only those of 9.0 to 10.3 have the shared memory for
  /// two.
#if defined(__CUDA_ARCH__) && (__CUDA_ARCH__ < 900 || __CUDA_ARCH__ >= 1100)
  static constexpr int kBlocks = 1;
#else
  static constexpr int kBlocks = kNarrow ? 2 : 1;
#endif
  /// Every register counts: what is cheap is computed again instead of being kept.
  static constexpr bool kForgets = kFragments || kNarrow;
  /// Narrow tiles: neighboring threads that add up the points of one channel; a gradient's register tiles, kMaxGroups
  /// along rows and along columns whatever the layers' widths, so that powers of two of threads share the points of
  /// each.
  static constexpr int kChannelLanes = kNarrow ? kThreads / kWeightPitch : 1;
  static constexpr int kGradItems = kMaxGroups * kMaxGroups;
  static_assert(!kNarrow || (kGradIn == kGradOut && kThreads % kGradItems == 0 && 32 % kChannelLanes == 0));
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

/// The same number, but opaque to the compiler: it loads or computes again what depends on it, instead of keeping that
/// in registers. For the kernels that need every register.
__device__ __forceinline__ int forget(int x) {
  asm volatile("" : "+r"(x));
  return x;
}

/// Everything the kernels need, by value.
template <class Real>
struct Network {
  int layers, points, tiles, rows;                // rows: of an activation buffer
  int kept;                                       // the layer with an array in shared memory, or −1
  int last_kernel, last_bias;                     // offsets in the parameters
  int first_partial, last_partial, partial_size;  // offsets in a block's sums; what follows is ḡ
  int numbers_partial;  // from here on reduce_kernel takes numbers one by one: 0 with narrow tiles, else first_partial
  int tape_size, sums_size;  // per tile, per block
  int stream, stages;        // the packed weights behind the constants: offset, stages of the ring
  int pack_size, constants_size, reduce_blocks;
  int padding_row;    // rows of a buffer from here on may be padding
  int position_rows;  // of the positions, a system: 2 (all x, then all y), or 0 = common ones
  Real scale;
  // The stage's own memory, by rows of blocks (blockIdx.y).
  Real* packed;
  Real* tape;
  Real* sums;
  Layer layer[kMaxHiddenLayers];
  const int* systems;  // Queue::systems

  /// The system of this block, or −1. Read again wherever it is needed: a register is worth more.
  __device__ int system() const {
    return system_of_row(systems, static_cast<unsigned>(forget(static_cast<int>(blockIdx.y))));
  }
  /// The first tile of this block; there is none in a row without a system. A return there would cost registers.
  __device__ int first_tile() const { return system() < 0 ? tiles : static_cast<int>(blockIdx.x); }
};

/// Exchanges the roles of the two activation buffers.
template <class Real>
__device__ __forceinline__ void swap_buffers(Real*& current, Real*& spare) {
  Real* const swap = current;
  current = spare;
  spare = swap;
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

__host__ __device__ constexpr int ceil_div(int a, int b) {
  return (a + b - 1) / b;
}

/// Rows of a matrix that one block of reduce_kernel adds up, if a row has `row_vectors` vectors.
__host__ __device__ constexpr int reduce_rows(int row_vectors) {
  return row_vectors < kLanes ? kLanes / row_vectors : 1;
}

/// Rows of a matrix in a product, padding included.
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

/// The number of the thread and its place; in narrow tiles computed again wherever they are needed.
template <class T>
__device__ __forceinline__ int thread_again() {
  return T::kNarrow ? forget(static_cast<int>(threadIdx.x)) : static_cast<int>(threadIdx.x);
}
template <class T>
__device__ __forceinline__ Place<T> place_again(const Place<T>& place) {
  if constexpr (T::kNarrow)
    return Place<T>(thread_again<T>());
  else
    return place;
}

/// The vectors that a thread takes of every channel of its group: kOwn chunks, kChunkStride points apart.
struct Share {
  int group;
  int column;  // of the first vector in a buffer
  int point;   // its first point
  int lane;    // the thread that finished it, which determines its address in an array of the tape
};

/// The vectors that a thread finishes itself.
template <class T>
__device__ __forceinline__ Share own_share_of(int thread) {
  const Place<T> place(thread);
  return {place.group, place.own, place.own, thread};
}

/// One of a thread's own vectors of points of one channel, and its address.
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

/// The block's shared memory: two activation buffers, the ring, what is known per point, and the kept array.
template <class T>
struct Shared {
  using Real = typename T::Real;
  Real *first, *second, *slots, *point, *kept;  // point: kPoints each of u_x, u_y, ℓᾱ_x, ℓᾱ_y, ψ̄ (or sums of ψ, α)
  __device__ Shared(void* memory, const Network<Real>& net) {
    const int rows = T::kNarrow ? T::kWeightPitch : net.rows;  // addresses that are constants need no register
    first = static_cast<Real*>(memory);
    second = first + rows * T::kPitch;
    slots = second + rows * T::kPitch;
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

}  // namespace einfield::cuda::tiled
