// Rays through a scene, block by block and component by component: vectorized loops around the per-ray formulas of
// include/einfield/. Vector instructions are chosen at run time, as in network_tiles.hpp.
#pragma once

#include <vector>

#include "einfield/model.hpp"
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

/// The column of a Jacobian that the derivative with respect to a slot of the table is part of.
struct SlotColumn {
  int row = -1;       ///< −1 = not wanted
  double factor = 1;  ///< of the derivative
  bool adds = false;  ///< whether derivatives() has set the row when it comes to this slot
};

/// The columns of free scalars, row k for the k-th of `free`: their own slots and those that follow them.
/// @param n_lens  number of lens components
std::vector<SlotColumn> slot_columns(const ParameterLayout& layout, int n_lens, const std::vector<int>& free);

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
  /// @param columns  of every slot of the table: where its derivative goes
  /// @param values   rows of `stride` numbers, set
  void (*derivatives)(const Scene<Real>&, const Rays<Real>&, const std::vector<SlotColumn>& columns, Real* values,
                      std::size_t stride);
};

/// The loops for the best instruction set of this processor.
template <class Real>
const RayKernels<Real>& ray_kernels();

}  // namespace einfield
