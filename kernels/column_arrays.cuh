// The arrays behind a Jacobian of many points: what is common, what belongs to a system, and what belongs to a point.
// A group of points is evaluated at once; its points are numbered from 0 in every kernel.
#pragma once

#include "einfield/amplitudes.hpp"
#include "einfield/render.hpp"
#include "kernels/check.cuh"

namespace einfield::cuda {

/// One system in device memory. Members as in ColumnsSystem.
struct SystemView {
  const Component* components;
  const double* pixels;  ///< of PIXELATED components
  const int *rendered, *used;
  const double *theta, *deflection;  ///< [2][n_rays]
  const double *weight, *data, *chi2_ratio;
  const double* psf;  ///< (psf_ny, psf_nx) weights of combined_psf()
  const Amplitude* amplitudes;
  const double* light_weights;
  int nx, ny, n_rays, n_used;
};

struct PointView {
  int system;
  int solve;
  double curvature_up_to;
};

/// A result is [finite, curved, loss, reduced χ² | amplitudes | pinned | products].
enum ResultPlace { kFinite, kCurved, kLoss, kChi2, kAmplitudes };

struct ColumnArrays {
  const SystemView* systems;
  const PointView* points;   ///< of the group
  double* tables;            ///< [points][n_slots] physical values; amplitudes are replaced by the best ones
  double* results;           ///< [points][result_size]
  double* images;            ///< [points][images of the kernel][image_size] before the PSF
  double* columns;           ///< [points][n_columns][column_stride] weighted; column 0 is the target, then the residual
  double* partial_products;  ///< [points][tile pairs][segments][kTile²]
  double* partial_sums;      ///< [points][segments][2]
  double* numbers;           ///< [points][numbers_for_amplitudes()]
  int* indices;              ///< [points][n_linear]
  std::uint8_t* flags;       ///< [points][2 n_linear]
  unsigned* tickets;         ///< [points]
  double* light_weights;     ///< [points][n_light_weights] of the NETWORK light's network
  double *light_position, *light_value, *light_gradient;  ///< [points] × [2][max_rays], [max_rays], [2][max_rays]
  // Common to all systems.
  const int* image_of;                 ///< per light component: its image among those of render_values_kernel
  const int *linear_slot, *column_of;  ///< per amplitude; per slot: its image among those of render_tangents_kernel, −1
  const double* column_factor;         ///< per slot: of its derivative in that image
  int n_lens, n_source, n_lens_light, n_linear, n_other, light_component;
  bool lenses_move;
  int rays_per_side, psf_supersampling, psf_nx, psf_ny;
  int row_stride, image_size;  ///< of an image [sub-pixels]
  int max_rays, column_stride, segments;
  std::size_t n_light_weights, result_size;

  EINFIELD_HD int n_components() const { return n_lens + n_source + n_lens_light; }
  EINFIELD_HD int n_slots() const { return n_components() * kMaxProfileParameters; }
  EINFIELD_HD int n_columns() const { return 1 + n_linear + n_other; }
  /// One per amplitude that moves, then that of all other light.
  EINFIELD_HD int value_images() const { return n_linear + 1; }
  EINFIELD_HD double* column(int point, int k) const {
    return columns + (static_cast<std::size_t>(point) * n_columns() + k) * column_stride;
  }
  EINFIELD_HD double* result(int point) const { return results + point * result_size; }
  EINFIELD_HD double* table(int point) const { return tables + static_cast<std::size_t>(point) * n_slots(); }
  EINFIELD_HD const SystemView& system(int point) const { return systems[points[point].system]; }
  EINFIELD_HD std::size_t scene_bytes() const {
    return static_cast<std::size_t>(n_components()) * sizeof(Component) + n_slots() * (sizeof(double) + sizeof(int));
  }
  /// N, b, both bounds, and what BoundedProblem needs.
  EINFIELD_HD static int numbers_for_amplitudes(int n) { return n * n + 3 * n + BoundedProblem::numbers_for(n); }
};

}  // namespace einfield::cuda
