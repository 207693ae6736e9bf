// Penalties on the network's convergence, from differences of its deflection on the grid of rays; value and adjoint.
// The future work named by Biggio et al. (2021, section 6): regularisation against unphysical potentials.
#pragma once

#include "einfield/backend.hpp"
#include "einfield/core.hpp"
#include "einfield/grid.hpp"

namespace einfield {

/// The regular grid that the rays of a Grid form: (rows, columns) of sub-pixels.
struct RayGrid {
  int columns, rows, supersampling, nx;
  EINFIELD_HD explicit RayGrid(const Grid& grid)
      : columns(grid.nx * grid.supersampling),
        rows(grid.ny * grid.supersampling),
        supersampling(grid.supersampling),
        nx(grid.nx) {}
  /// Index of the ray in `column`, `row`.
  EINFIELD_HD int ray(int column, int row) const {
    const int s = supersampling;
    return ((row / s) * nx + column / s) * s * s + (row % s) * s + column % s;
  }
  /// Nodes that have four neighbours; the penalties are means over them.
  EINFIELD_HD int interior() const { return columns > 2 && rows > 2 ? (columns - 2) * (rows - 2) : 0; }
};

/// Convergence by central differences at an interior node (0 < column < columns − 1, 0 < row < rows − 1):
///
///     κ = ½ (∂α_x/∂x + ∂α_y/∂y) ≈ (α_x(right) − α_x(left) + α_y(up) − α_y(down)) / (4 spacing)                  (1)
///
/// @param alpha    deflection of every ray, all x then all y [arcsec]
/// @param spacing  distance of neighbouring rays             [arcsec]
template <class Real>
EINFIELD_HD Real difference_convergence(const RayGrid& g, const Real* alpha, int n_rays, Real spacing, int column, int row) {
  const Real* alpha_y = alpha + n_rays;
  return (alpha[g.ray(column + 1, row)] - alpha[g.ray(column - 1, row)] + alpha_y[g.ray(column, row + 1)] -
          alpha_y[g.ray(column, row - 1)]) /
         (4 * spacing);
}

/// Sum of the convergence penalties at one node; the caller divides by RayGrid::interior().
///
///     w_s κ² + w_n max(0, −κ)² + w_t max(0, −κ_macro − κ)²                                                     (2)
template <class Real>
EINFIELD_HD Real convergence_penalty(const Regularization& weights, Real kappa, Real kappa_macro) {
  const Real negative = kappa < 0 ? -kappa : Real(0);
  const Real total = kappa + kappa_macro;
  const Real negative_total = total < 0 ? -total : Real(0);
  return Real(weights.smoothness) * kappa * kappa + Real(weights.negative_convergence) * negative * negative +
         Real(weights.negative_total_convergence) * negative_total * negative_total;
}

/// ∂(2)/∂κ; κ_macro is held fixed (its parameters have no cotangent from this term).
/// At κ = 0 the one-sided derivatives agree: the penalty is once differentiable.
template <class Real>
EINFIELD_HD Real convergence_penalty_adjoint(const Regularization& weights, Real kappa, Real kappa_macro) {
  const Real negative = kappa < 0 ? -kappa : Real(0);
  const Real total = kappa + kappa_macro;
  const Real negative_total = total < 0 ? -total : Real(0);
  return 2 * (Real(weights.smoothness) * kappa - Real(weights.negative_convergence) * negative -
              Real(weights.negative_total_convergence) * negative_total);
}

/// Adjoint of (1), gathered at a ray: what the nodes' cotangents κ̄ give to α_x and α_y there. Transposing (1), the ray at
/// (c, r) is the right neighbour of node c − 1 and the left of node c + 1, the upper of r − 1 and the lower of r + 1:
///
///     ᾱ_x(c, r) = (κ̄(c − 1, r) − κ̄(c + 1, r)) / (4 spacing),   ᾱ_y(c, r) = (κ̄(c, r − 1) − κ̄(c, r + 1)) / (4 spacing)
///
/// @param kappa_bar  cotangent at nodes, (rows, columns), 0 at the border
template <class Real>
EINFIELD_HD Vec2<Real> difference_convergence_adjoint(const RayGrid& g, const Real* kappa_bar, Real spacing, int column,
                                                      int row) {
  const auto at = [&](int c, int r) {
    return c < 0 || r < 0 || c >= g.columns || r >= g.rows ? Real(0) : kappa_bar[r * g.columns + c];
  };
  return {(at(column - 1, row) - at(column + 1, row)) / (4 * spacing),
          (at(column, row - 1) - at(column, row + 1)) / (4 * spacing)};
}

}  // namespace einfield
