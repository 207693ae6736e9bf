// Columns of the Jacobian of a model image on a CUDA device: derivatives along rays through the PSF, in double
// precision. Behind a header that needs no CUDA.
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "einfield/observation.hpp"

namespace einfield::cuda {

/// What columns have in common.
struct JointColumnsShape {
  Grid grid;
  Psf psf;
  std::vector<int> pixel;             ///< that is fitted: ix + nx · iy
  std::vector<double> inverse_sigma;  ///< of each
  std::size_t weights = 0;            ///< of the network that move
  std::size_t scalars = 0;            ///< that move

  std::size_t rays() const { return static_cast<std::size_t>(grid.n_rays()); }
  std::size_t columns() const { return weights + scalars; }
};

/// With S the brightness of the source at β = θ − α and α_w = ∂α/∂w,
///
///     B = σ⁻¹ P (−∇S·α_w  ∂I/∂u),                                                                               (1)
///
/// P being the mean over the rays of a sub-pixel, the PSF, and the mean over the sub-pixels of a pixel.
class JointColumns {
 public:
  /// @throws CudaError when the device lacks memory
  JointColumns(int device, JointColumnsShape shape);
  ~JointColumns();
  JointColumns(JointColumns&&) noexcept;
  JointColumns& operator=(JointColumns&&) noexcept;

  /// Device memory of a JointColumns. Of `pixel` its size counts.
  static std::size_t planned_bytes(const JointColumnsShape& shape);

  /// @param alpha  α_w: column after column, one per weight: all x of the rays, then all y
  void set_weights(const double* alpha);
  /// (1)
  /// @param slope    −∇S: all x of the rays, then all y
  /// @param scalars  ∂I/∂u: (scalars, rays), row after row
  /// @param b        (fitted pixels, columns), row after row; written
  void fill(const double* slope, const double* scalars, double* b);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace einfield::cuda
