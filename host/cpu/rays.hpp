// Rays through a scene, block by block and component by component: vectorized loops around the per-ray formulas of
// include/einfield/. Vector instructions are chosen at run time, as in network_tiles.hpp.
#pragma once

#include "einfield/render.hpp"

namespace einfield {

/// Rays as parallel arrays.
template <class Real>
struct Rays {
  int count;
  const Real *theta_x, *theta_y;            ///< image-plane position                      [arcsec]
  const Real *deflection_x, *deflection_y;  ///< of the network, 0 without one [arcsec]
  // NetworkSample of the NETWORK component; null without one.
  const Real *network_value = nullptr, *network_gradient_x = nullptr, *network_gradient_y = nullptr;
};

/// The loops for one instruction set.
template <class Real>
struct RayKernels {
  /// network_position of every ray; needs no samples.
  void (*network_positions)(const Scene<Real>&, const Rays<Real>&, int component, Real* x, Real* y);
  /// render_ray of every ray.
  void (*render)(const Scene<Real>&, const Rays<Real>&, Real* brightness);
  /// render_ray_adjoint of every ray: overwrites α̅ and v̅ (exactly 0 where the cotangent is 0), adds to the sums.
  /// @param table_sum  cotangents laid out like Scene::table, or null when no parameter of a profile is free
  /// @param pixel_sum  cotangents of Scene::pixels, or null when none is free
  /// @param value_bar  v̅ of the network of the NETWORK component, or null without one
  void (*adjoint)(const Scene<Real>&, const Rays<Real>&, const Real* brightness_bar, Real* alpha_bar_x,
                  Real* alpha_bar_y, double* table_sum, double* pixel_sum, Real* value_bar);
  /// Brightness of every light component by itself: row k of (n_source + n_lens_light) rows, `stride` numbers apart.
  void (*components)(const Scene<Real>&, const Rays<Real>&, Real* brightness, std::size_t stride);
  /// ∂I/∂(table slot) of every ray: the adjoint of render_ray for a cotangent of 1 that is not summed over rays, for I
  /// is one number a ray.
  /// @param row      of every slot of the table, −1 = not wanted
  /// @param columns  rows of `stride` numbers
  void (*derivatives)(const Scene<Real>&, const Rays<Real>&, const int* row, Real* columns, std::size_t stride);
};

/// The loops for the best instruction set of this processor.
template <class Real>
const RayKernels<Real>& ray_kernels();

}  // namespace einfield
