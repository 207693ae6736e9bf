// Penalties on the network's convergence, from differences of its deflection on the grid of rays (the future work named
// by Biggio et al. 2021, section 6: regularisation against unphysical potentials), and on differences of source pixels
// (the gradient and curvature forms of Suyu et al. 2006, appendix A); value and adjoint.
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
EINFIELD_HD Real difference_convergence(const RayGrid& g, const Real* alpha, int n_rays, Real spacing, int column,
                                        int row) {
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

/// Adjoint of (1), gathered at a ray: what the nodes' cotangents κ̄ give to α_x and α_y there. Transposing (1), the ray
/// at (c, r) is the right neighbour of node c − 1 and the left of node c + 1, the upper of r − 1 and the lower of r +
/// 1:
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

/// A pixel of a PIXELATED component, 0 outside of its grid: there it has no light.
template <class Real>
EINFIELD_HD Real pixel_or_zero(const Real* pixels, int nx, int ny, int ix, int iy) {
  return ix < 0 || iy < 0 || ix >= nx || iy >= ny ? Real(0) : pixels[iy * nx + ix];
}

/// What the differences around one pixel cost [image unit²]; the caller divides the sum over the pixels by their
/// number. With s(ix, iy) the pixels and 0 outside:
///
///     w_g [(s(ix + 1, iy) − s(ix, iy))² + (s(ix, iy + 1) − s(ix, iy))²]
///     + w_c [(s(ix − 1, iy) − 2 s(ix, iy) + s(ix + 1, iy))² + (s(ix, iy − 1) − 2 s(ix, iy) + s(ix, iy + 1))²]     (3)
///
/// and for the first column and row the gradient's difference from the 0 before them. Suyu et al. (2006) put such
/// terms, without which a constant (w_g) or a plane (w_c) would cost nothing, at the upper borders only; here they are
/// at all four, so that a mirrored source costs the same.
template <class Real>
EINFIELD_HD Real source_pixel_penalty(const Regularization& weights, const Real* pixels, int nx, int ny, int ix,
                                      int iy) {
  const auto at = [&](int x, int y) { return pixel_or_zero(pixels, nx, ny, x, y); };
  const Real s = at(ix, iy), left = at(ix - 1, iy), right = at(ix + 1, iy), down = at(ix, iy - 1), up = at(ix, iy + 1);
  const Real border = Real((ix == 0) + (iy == 0));
  const Real gradient = (right - s) * (right - s) + (up - s) * (up - s) + border * s * s;
  const Real x = left - 2 * s + right, y = down - 2 * s + up;
  return Real(weights.source_gradient) * gradient + Real(weights.source_curvature) * (x * x + y * y);
}

/// Derivative of the sum of (3) over all pixels with respect to one pixel, gathered. With D_x(ix, iy) the second
/// difference along x, 0 outside the grid, and D_y that along y:
///
///     −2 w_g (D_x + D_y)(ix, iy) + 2 w_c [D_x(ix − 1, iy) − 2 D_x(ix, iy) + D_x(ix + 1, iy)
///                                         + D_y(ix, iy − 1) − 2 D_y(ix, iy) + D_y(ix, iy + 1)]                  (4)
template <class Real>
EINFIELD_HD Real source_pixel_penalty_adjoint(const Regularization& weights, const Real* pixels, int nx, int ny, int ix,
                                              int iy) {
  const auto second = [&](int x, int y, int step_x, int step_y) {
    if (x < 0 || y < 0 || x >= nx || y >= ny) return Real(0);
    return pixel_or_zero(pixels, nx, ny, x - step_x, y - step_y) - 2 * pixels[y * nx + x] +
           pixel_or_zero(pixels, nx, ny, x + step_x, y + step_y);
  };
  const Real x = second(ix, iy, 1, 0), y = second(ix, iy, 0, 1);
  const Real along_x = second(ix - 1, iy, 1, 0) - 2 * x + second(ix + 1, iy, 1, 0);
  const Real along_y = second(ix, iy - 1, 0, 1) - 2 * y + second(ix, iy + 1, 0, 1);
  return 2 * (Real(weights.source_curvature) * (along_x + along_y) - Real(weights.source_gradient) * (x + y));
}

}  // namespace einfield
