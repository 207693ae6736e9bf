// The network stage on the device: ψ and α = ∇ψ at every point, and the adjoint (network.hpp has the contract).
// Many lenses share one grid of points, or have positions of their own; their parameters, fields and gradients lie one
// after the other.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <memory>

#include "einfield/network.hpp"

namespace einfield::cuda {

/// What the plan needs to know of a device.
struct DeviceLimits {
  int multiprocessors = 0;
  std::size_t shared_bytes_per_block = 0;  ///< the opt-in maximum
  int compute_capability = 0;              ///< 10 · major + minor

  /// Of the current device. @throws CudaError
  static DeviceLimits current();
};

/// Matrix units for TF32 from here on.
inline constexpr int kTensorCapability = 80;

enum class NetworkPath {
  kAutomatic,  ///< tiles where one fits the shared memory, else cuBLAS
  kTiles,      ///< fused tile kernels, or InvalidInput
  kCublas,     ///< whole-batch products by cuBLAS
};

/// How a network of this shape will run; made before anything is allocated.
struct NetworkPlan {
  NetworkPath path = NetworkPath::kAutomatic;  ///< kTiles or kCublas, never kAutomatic
  int tile = 0;                                ///< points per tile (0 for cuBLAS, like the next five)
  int tiles = 0;                               ///< tiles per lens
  int blocks = 0;                              ///< blocks per lens; each takes every blocks-th tile
  int threads = 0;
  bool keeps_layer = false;  ///< shared memory holds an array that is needed twice
  std::size_t shared_bytes = 0;
  std::size_t workspace_bytes = 0;  ///< device memory that CudaNetwork will hold
};

/// ψ_nn and α_nn of `n_lenses` networks of one shape at `n_points` points each, and the adjoint.
/// Same input, same bits: every sum has a fixed order. An instance serves one stream at a time. All work is
/// asynchronous and may be captured in a graph; nothing is allocated after the constructor.
template <class Real>
class CudaNetwork {
 public:
  /// @throws InvalidInput for a bad shape or count, when kTiles is asked for and no tile fits, and for a `math` other
  ///         than fp32 in double precision or on a device older than kTensorCapability
  static NetworkPlan make_plan(const NetworkShape& shape, int n_points, int n_lenses, const DeviceLimits& limits,
                               NetworkPath path = NetworkPath::kAutomatic, NetworkMath math = NetworkMath::fp32);

  /// @throws as make_plan, CudaError, CublasError
  CudaNetwork(const NetworkShape& shape, int n_points, int n_lenses, const DeviceLimits& limits,
              NetworkPath path = NetworkPath::kAutomatic, NetworkMath math = NetworkMath::fp32);
  ~CudaNetwork();
  CudaNetwork(CudaNetwork&&) noexcept;
  CudaNetwork& operator=(CudaNetwork&&) noexcept;

  const NetworkPlan& plan() const;

  /// Value and gradient; keeps the tape for adjoint().
  /// @param parameters  lens k's flat vector begins at k · parameter_stride (≥ shape.size())
  /// @param positions   θ [arcsec]: all x, then all y; shared by the lenses, or n_lenses of them
  /// @param psi         n_lenses × n_points [arcsec²], overwritten
  /// @param alpha       n_lenses × 2 × n_points [arcsec], x then y, overwritten
  /// @throws InvalidInput when lenses would overlap; CudaError, CublasError
  void forward(cudaStream_t stream, const Real* parameters, std::size_t parameter_stride, const Real* positions,
               Real* psi, Real* alpha, bool own_positions = false);

  /// Adds the gradient of every weight and bias. Takes the tape and the weights of the last forward(), so the
  /// parameters and positions must still be those.
  /// @param alpha_bar  n_lenses × 2 × n_points, or null for zero
  /// @param gradient   lens k's flat vector begins at k · parameter_stride; added to
  /// @param psi_bar    n_lenses × n_points, or null for zero
  /// @throws as forward()
  void adjoint(cudaStream_t stream, const Real* parameters, std::size_t parameter_stride, const Real* positions,
               const Real* alpha_bar, Real* gradient, const Real* psi_bar = nullptr, bool own_positions = false);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

extern template class CudaNetwork<float>;
extern template class CudaNetwork<double>;

}  // namespace einfield::cuda
