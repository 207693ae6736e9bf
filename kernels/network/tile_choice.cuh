// A tile size that was compiled, with its launchers: plan.cu chooses among them.
#pragma once

#include <vector>

#include "einfield/network.hpp"
#include "kernels/check.cuh"
#include "kernels/network/tile/adjoint.cuh"
#include "kernels/network/tile/forward.cuh"
#include "kernels/network/tile/pack.cuh"

namespace einfield::cuda::tiled {

/// A tile size that was compiled, with its launchers.
template <class Real>
struct TileChoice {
  int points, pixels, max_groups, own, stage_rows, row_unit;
  int grad_in, grad_out;  // register tile of a gradient
  int resident;           // blocks that share a multiprocessor where the shared memory allows it
  bool fragments;         // its products are those of the matrix units
  bool narrow;            // for layers of up to 8 · max_groups channels only
  std::size_t (*shared_bytes)(int rows, int kept_passes);
  void (*allow_shared)(std::size_t limit);  // all that a block may have
  void (*pack)(dim3 grid, cudaStream_t stream, const Network<Real>& net, const Real* parameters, std::size_t stride);
  void (*forward)(dim3 grid, std::size_t shared, cudaStream_t stream, const Network<Real>& net, const Real* parameters,
                  std::size_t stride, const Real* positions, Real* psi, Real* alpha);
  void (*adjoint)(dim3 grid, std::size_t shared, cudaStream_t stream, const Network<Real>& net, const Real* positions,
                  const Real* alpha_bar, const Real* psi_bar);
};

/// What differs in the arithmetic alone is packed alike.
template <class T>
using PackedAs =
    std::conditional_t<T::kFragments, Tile<typename T::Real, T::kGroups, T::kPixels, NetworkMath::tf32x3>, T>;

template <class T, bool kEncoded>
TileChoice<typename T::Real> tile_choice() {
  using Real = typename T::Real;
  return {T::kPoints,
          T::kPixels,
          T::kMaxGroups,
          T::kOwn,
          T::kStageRows,
          T::kRowUnit,
          T::kGradIn,
          T::kGradOut,
          T::kBlocks,
          T::kFragments,
          T::kNarrow,
          &Shared<T>::bytes,
          [](std::size_t limit) {
            // All that the device grants, not this plan's bytes: the limit belongs to the kernel, which networks of
            // other shapes share, so a smaller one would take a larger one's memory away.
            for (const void* kernel : {reinterpret_cast<const void*>(&network_kernel<T, kEncoded>),
                                       reinterpret_cast<const void*>(&network_adjoint_kernel<T, kEncoded>)}) {
              cudaFuncAttributes attributes{};
              EINFIELD_CUDA(cudaFuncGetAttributes(&attributes, kernel));
              EINFIELD_CUDA(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                                 static_cast<int>(limit - attributes.sharedSizeBytes)));
              EINFIELD_CUDA(cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout,
                                                 cudaSharedmemCarveoutMaxShared));
            }
          },
          [](dim3 grid, cudaStream_t stream, const Network<Real>& net, const Real* parameters, std::size_t stride) {
            pack_kernel<PackedAs<T>><<<grid, kThreads, 0, stream>>>(net, parameters, stride);
            EINFIELD_LAUNCH_CHECK();
          },
          [](dim3 grid, std::size_t shared, cudaStream_t stream, const Network<Real>& net, const Real* parameters,
             std::size_t stride, const Real* positions, Real* psi, Real* alpha) {
            network_kernel<T, kEncoded>
                <<<grid, kThreads, shared, stream>>>(net, parameters, stride, positions, psi, alpha);
            EINFIELD_LAUNCH_CHECK();
          },
          [](dim3 grid, std::size_t shared, cudaStream_t stream, const Network<Real>& net, const Real* positions,
             const Real* alpha_bar, const Real* psi_bar) {
            network_adjoint_kernel<T, kEncoded><<<grid, kThreads, shared, stream>>>(net, positions, alpha_bar, psi_bar);
            EINFIELD_LAUNCH_CHECK();
          }};
}

template <class... T>
struct TileList {
  template <class Real>
  static std::vector<TileChoice<Real>> choices(bool encoded) {
    if (encoded) return {tile_choice<T, true>()...};
    return {tile_choice<T, false>()...};
  }
};

/// Tiles whose products are multiply-adds (tiles_fma.cu).
template <class Real>
std::vector<TileChoice<Real>> fma_tile_choices(bool encoded);
/// Tiles for layers of few channels (tiles_narrow.cu).
std::vector<TileChoice<float>> narrow_tile_choices(bool encoded);
/// Tiles whose products run on the matrix units; `math` is tf32x3 or tf32 (tiles_mma.cu).
std::vector<TileChoice<float>> mma_tile_choices(NetworkMath math, bool encoded);

}  // namespace einfield::cuda::tiled
