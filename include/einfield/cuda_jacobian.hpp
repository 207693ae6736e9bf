// For CUDA programs: products with the Jacobian of the model image, on the caller's stream and device memory, several
// systems at once. Conventions and layouts are those of cuda.hpp.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <memory>
#include <vector>

#include "einfield/cuda.hpp"

namespace einfield::cuda {

/// J v and Jᵀ w for J = ∂m/∂u: m the model image of a system after the PSF, u its free scalars (unconstrained) and free
/// source pixels, at fixed α_nn and at fixed weights of the network of a NETWORK component.
///
///     J v = P ∗ Σ_k (∂I/∂u_k) v_k,      ⟨J v, w⟩ = ⟨v, Jᵀ w⟩                                                       (1)
template <class Real>
class EINFIELD_API JacobianStage {
 public:
  /// @param models  one per system, as for RenderStage
  /// @param psfs    one per system, as for ConvolutionStage; one sample a pixel
  /// @param stream  used for the copies of the constructor, which waits for it
  /// @throws InvalidInput as those stages, and for another number of PSFs or one on sub-pixels; CudaError, CufftError
  JacobianStage(const Grid& grid, const std::vector<Model>& models, const std::vector<Psf>& psfs,
                std::size_t parameter_stride, cudaStream_t stream, Workspace workspace = {});
  ~JacobianStage();
  JacobianStage(JacobianStage&&) noexcept;
  JacobianStage& operator=(JacobianStage&&) noexcept;

  /// Device memory of the stage. @throws as the constructor
  static std::size_t workspace_bytes(const Grid& grid, const std::vector<Model>& models, const std::vector<Psf>& psfs);
  /// Points at which the network of a NETWORK component is evaluated, as RenderStage's.
  RenderStage<Real>& rays();
  /// Writes J v.
  /// @param alpha_nn   deflection of the network, [systems][2][n] [arcsec], or empty for none
  /// @param direction  v, laid out like `parameters`; only free scalars and source pixels are read
  /// @param tangent    [systems][ny][nx], written
  /// @param light      needed with a NETWORK component, and only then
  /// @throws InvalidInput for arrays of other sizes, or a network of a NETWORK component without one
  void forward(cudaStream_t stream, View<const Real> parameters, View<const Real> alpha_nn, View<const Real> direction,
               View<Real> tangent, const NetworkLight<Real>& light = {});
  /// Adds Jᵀ w to `gradient`, at the free scalars and source pixels.
  /// @param model_bar  w, [systems][ny][nx]
  /// @param gradient   laid out like `parameters`
  /// @param light      as in forward(), with a place for value_bar, which is written
  /// @throws InvalidInput as forward()
  void adjoint(cudaStream_t stream, View<const Real> parameters, View<const Real> alpha_nn, View<const Real> model_bar,
               View<Real> gradient, const NetworkLight<Real>& light = {});

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

extern template class JacobianStage<float>;
extern template class JacobianStage<double>;

}  // namespace einfield::cuda
