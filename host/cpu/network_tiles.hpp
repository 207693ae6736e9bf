// The arithmetic of one tile of points: products and activations whose operands stay in the second-level cache.
// Vector instructions are chosen at run time; the formulas are those of include/einfield/network.hpp.
#pragma once

#include <cstddef>

#include "einfield/network.hpp"

namespace einfield {

/// Rows of every matrix start on a cache line and are padded with lanes that never reach a result.
inline constexpr std::size_t kCacheLine = 64;

/// Points are grouped by the rows of the micro-kernel, so that only the last group of a tile is incomplete.
inline constexpr int kRowGroup = 8;

/// Values per row in memory that lives long: the width rounded up to whole cache lines.
template <class Real>
constexpr int padded_width(int width) {
  constexpr int kLanes = static_cast<int>(kCacheLine / sizeof(Real));
  return (width + kLanes - 1) / kLanes * kLanes;
}

/// Values per row of the tile's matrices: an odd number of cache lines, or else the rows of a panel fall into few sets
/// of the first-level cache (width 256: an eighth of them).
template <class Real>
constexpr int row_stride(int width) {
  constexpr int kLanes = static_cast<int>(kCacheLine / sizeof(Real));
  const int padded = padded_width<Real>(width);
  return padded / kLanes % 2 == 0 ? padded + kLanes : padded;
}

/// The network as tiles read it. Hidden layers count from 0; product l leads from hidden layer l to l + 1.
template <class Real>
struct TileNetwork {
  int hidden;    ///< number of hidden layers
  bool encoded;  ///< layer 0 is that of Fourier features: a sine, and no gradient of its weights
  int width[kMaxHiddenLayers];
  Real scale;                          ///< ℓ
  const Real* first[2];                ///< kernel of the first layer: the row of x, the row of y
  const Real* bias[kMaxHiddenLayers];  ///< of the hidden layers
  const Real* last;                    ///< w
  Real last_bias;
  const Real* up[kMaxHiddenLayers];    ///< packed kernel of product l: h_l → a_{l+1}
  const Real* down[kMaxHiddenLayers];  ///< its transpose, packed: g_{l+1} → p_l
};

/// What a tile keeps between value and adjoint: row i belongs to point i, padded_width() values apart.
template <class Real>
struct TileTape {
  Real* a[kMaxHiddenLayers];  ///< pre-activations of hidden layers 1 …
  Real* p[kMaxHiddenLayers];  ///< p_l of hidden layers … L − 2, before s′
  Real* encoding;             ///< s of the Fourier features; null without them
  Real* encoding_first;       ///< their s′
  bool encoding_is_known;     ///< both are those of the points already
};

/// Sums of the weight gradient; rows are row_stride() of their width apart. Without those of fixed weights (null).
template <class Real>
struct TileGradient {
  Real* first[2];
  Real* bias[kMaxHiddenLayers];
  Real* kernel[kMaxHiddenLayers];  ///< of product l: width[l] rows
  Real* last;
  Real* last_bias;
};

/// Points of a tile and their cotangents; u = ℓθ is formed inside.
template <class Real>
struct TilePoints {
  int count;
  const Real* x;
  const Real* y;
  const Real* psi_bar;  ///< these three: adjoint only
  const Real* alpha_x_bar;
  const Real* alpha_y_bar;
  const std::ptrdiff_t* tape_row;  ///< row of the tape of every point
};

/// The kernels for one instruction set. `scratch` holds scratch_size() values and is aligned to kCacheLine.
template <class Real>
struct TileKernels {
  /// ψ, α and the tape of the first `count` rows.
  void (*forward)(const TileNetwork<Real>&, const TilePoints<Real>&, const TileTape<Real>&, Real* scratch, Real* psi,
                  Real* alpha_x, Real* alpha_y);
  /// Adds to the gradient.
  void (*adjoint)(const TileNetwork<Real>&, const TilePoints<Real>&, const TileTape<Real>&, Real* scratch,
                  const TileGradient<Real>&);
  void (*kappa)(const TileNetwork<Real>&, const TilePoints<Real>&, Real* scratch, Real* kappa);
  /// Packs B (depth × columns, or its transpose from columns × depth) into panels as wide as the micro-kernel;
  /// `packed` holds depth · padded_width(columns) values.
  void (*pack)(const Real* matrix, bool transposed, int depth, int columns, Real* packed);
  /// sum += part, element by element; n is a multiple of a cache line.
  void (*add)(const Real* part, std::size_t n, Real* sum);
  /// s, s′, s″ of n values, a multiple of a cache line: what the tiles compute, for the tests.
  void (*swish)(const Real* a, std::size_t n, Real* value, Real* first, Real* second);
  void (*sine)(const Real* a, std::size_t n, Real* value, Real* first, Real* second);  ///< s, s′, s″ of the sine
  const char* instructions;
};

/// The kernels of the best instruction set of this processor.
template <class Real>
const TileKernels<Real>& tile_kernels();

/// Values of scratch memory for a tile of `rows` points.
template <class Real>
std::size_t tile_scratch_size(const NetworkShape& shape, int rows) {
  std::size_t forward = 0, adjoint = 0, widest = 0;
  for (int l = 0; l + 1 < shape.layers(); ++l) {
    const auto stride = static_cast<std::size_t>(row_stride<Real>(shape.outputs(l)));
    const bool inner = l + 2 < shape.layers();
    forward += inner ? stride : 0;        // s′
    adjoint += (inner ? 5 : 2) * stride;  // s′, p̄ and h; g and ā
    widest = stride > widest ? stride : widest;
  }
  const std::size_t value = forward + widest, kappa = 8 * widest;  // four lanes before and after a product
  std::size_t most = adjoint > value ? adjoint : value;
  most = kappa > most ? kappa : most;
  return most * static_cast<std::size_t>(rows);
}

}  // namespace einfield
