// Penalties on the network's potential, from differences of its deflection on the grid of rays (Biggio et al. 2021,
// section 6, suggest regularization against unphysical potentials), and on differences of source pixels (the gradient
// and curvature forms of Suyu et al. 2006, appendix A); value and adjoint.
#pragma once

#include "einfield/core.hpp"
#include "einfield/grid.hpp"

namespace EINFIELD_API einfield {

/// Weights of the terms added to the loss; 0 = off. The second derivatives of the network's potential are differences
/// of α on the grid of rays, so no term needs another pass through the network. The terms of source pixels are means
/// over the pixels of one free PIXELATED component of the source; the terms of several components are added. Their
/// weights are in 1/image unit² with LossKind::chi2, and without unit with mse; in_image_unit() gives those of a
/// configuration, which have none.
struct Regularization {
  double smoothness = 0;                  ///< mean κ_NN²
  double curvature = 0;                   ///< mean |∇∇ψ_NN − ⟨∇∇ψ_NN⟩|²
  double negative_convergence = 0;        ///< mean max(0, −κ_NN)²
  double negative_total_convergence = 0;  ///< mean max(0, −κ_macro − κ_NN)²
  double weight_decay = 0;                ///< ½ Σ w² over the network's kernels
  double source_gradient = 0;             ///< mean squared difference of neighboring source pixels
  double source_curvature = 0;            ///< mean squared second difference of source pixels

  bool on_potential() const {
    return smoothness > 0 || curvature > 0 || negative_convergence > 0 || negative_total_convergence > 0;
  }
  using Member = double Regularization::*;  // an alias: nvcc otherwise emits extra parentheses that GCC rejects
  /// One weight: its key in [regularization] and its member.
  struct Weight {
    const char* name;
    Member member;
  };
  /// All weights, for code that treats them alike.
  static constexpr Weight kWeights[] = {{"smoothness", &Regularization::smoothness},
                                        {"curvature", &Regularization::curvature},
                                        {"negative_convergence", &Regularization::negative_convergence},
                                        {"negative_total_convergence", &Regularization::negative_total_convergence},
                                        {"weight_decay", &Regularization::weight_decay},
                                        {"source_gradient", &Regularization::source_gradient},
                                        {"source_curvature", &Regularization::source_curvature}};
  bool on_source_pixels() const { return source_gradient > 0 || source_curvature > 0; }
  bool any() const { return on_potential() || weight_decay > 0 || on_source_pixels(); }
};

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
    if (s == 1) return row * nx + column;  // divisions would cost more than the penalties
    return ((row / s) * nx + column / s) * s * s + (row % s) * s + column % s;
  }
  /// Nodes that have four neighbors; the penalties are means over them.
  EINFIELD_HD int interior() const { return columns > 2 && rows > 2 ? (columns - 2) * (rows - 2) : 0; }
};

/// Second derivatives of the network's potential at a node, or their cotangents [1].
template <class Real>
struct Hessian {
  Real xx, yy, xy;
  EINFIELD_HD Real kappa() const { return (xx + yy) / 2; }
};

/// ψ_xx, ψ_yy and ψ_xy by central differences at an interior node (0 < column < columns − 1, 0 < row < rows − 1); the
/// two that α has for ψ_xy are averaged:
///
///     ψ_xx ≈ (α_x(right) − α_x(left)) / (2 spacing),   ψ_yy ≈ (α_y(up) − α_y(down)) / (2 spacing)
///     ψ_xy ≈ (α_x(up) − α_x(down) + α_y(right) − α_y(left)) / (4 spacing)                                       (1)
///
/// @param alpha    deflection of every ray, all x then all y [arcsec]
/// @param spacing  distance of neighboring rays             [arcsec]
template <class Real>
EINFIELD_HD Hessian<Real> difference_hessian(const RayGrid& g, const Real* alpha, int n_rays, Real spacing, int column,
                                             int row) {
  const Real* alpha_y = alpha + n_rays;
  const int left = g.ray(column - 1, row), right = g.ray(column + 1, row);
  const int down = g.ray(column, row - 1), up = g.ray(column, row + 1);
  return {(alpha[right] - alpha[left]) / (2 * spacing), (alpha_y[up] - alpha_y[down]) / (2 * spacing),
          (alpha[up] - alpha[down] + alpha_y[right] - alpha_y[left]) / (4 * spacing)};
}

/// Sum of the penalties on the potential at one node; the caller divides by RayGrid::interior().
///
///     w_s κ² + w_c |∇∇ψ − ⟨∇∇ψ⟩|² + w_n max(0, −κ)² + w_t max(0, −κ_macro − κ)²                                 (2)
///
/// with κ = ½ (ψ_xx + ψ_yy), |H|² = H_xx² + H_yy² + 2 H_xy² and ⟨·⟩ the mean over the nodes. |∇∇ψ|² is 2 (κ² + γ₁² +
/// γ₂²): unlike κ² it also costs what masses outside of the image would do, which no κ inside shows. What is uniform, a
/// shear or a sheet, costs nothing.
template <class Real>
EINFIELD_HD Real potential_penalty(const Regularization& weights, const Hessian<Real>& h, const Hessian<Real>& mean,
                                   Real kappa_macro) {
  const Real kappa = h.kappa(), total = kappa + kappa_macro;
  const Real negative = kappa < 0 ? -kappa : Real(0), negative_total = total < 0 ? -total : Real(0);
  const Real xx = h.xx - mean.xx, yy = h.yy - mean.yy, xy = h.xy - mean.xy;
  return Real(weights.smoothness) * kappa * kappa + Real(weights.curvature) * (xx * xx + yy * yy + 2 * xy * xy) +
         Real(weights.negative_convergence) * negative * negative +
         Real(weights.negative_total_convergence) * negative_total * negative_total;
}

/// Derivatives of the sum of (2) over all nodes with respect to ψ_xx, ψ_yy and ψ_xy of one; κ_macro is held fixed (its
/// parameters have no cotangent from this term). With κ̄ the derivative of the terms of κ, ψ_xx and ψ_yy have κ̄/2 each
/// of it; through the mean nothing comes back, since Σ (H − ⟨H⟩) = 0.
/// At κ = 0 the one-sided derivatives agree: the penalty is once differentiable.
template <class Real>
EINFIELD_HD Hessian<Real> potential_penalty_adjoint(const Regularization& weights, const Hessian<Real>& h,
                                                    const Hessian<Real>& mean, Real kappa_macro) {
  const Real kappa = h.kappa(), total = kappa + kappa_macro;
  const Real negative = kappa < 0 ? -kappa : Real(0), negative_total = total < 0 ? -total : Real(0);
  const Real half_kappa_bar = Real(weights.smoothness) * kappa - Real(weights.negative_convergence) * negative -
                              Real(weights.negative_total_convergence) * negative_total;
  const Real c = 2 * Real(weights.curvature);
  return {c * (h.xx - mean.xx) + half_kappa_bar, c * (h.yy - mean.yy) + half_kappa_bar, 2 * c * (h.xy - mean.xy)};
}

/// Adjoint of (1), gathered at a ray: what the nodes' cotangents give to α_x and α_y there. Transposing (1), the ray at
/// (c, r) is the right neighbor of node c − 1 and the left of node c + 1, the upper of r − 1 and the lower of r + 1:
///
///     ᾱ_x(c, r) = (x̄x(c − 1, r) − x̄x(c + 1, r)) / (2 spacing) + (x̄y(c, r − 1) − x̄y(c, r + 1)) / (4 spacing)
///     ᾱ_y(c, r) = (ȳy(c, r − 1) − ȳy(c, r + 1)) / (2 spacing) + (x̄y(c − 1, r) − x̄y(c + 1, r)) / (4 spacing)
///
/// @param bar  cotangents at nodes: all of ψ_xx, all of ψ_yy, all of ψ_xy, each (rows, columns), 0 at the border
template <class Real>
EINFIELD_HD Vec2<Real> difference_hessian_adjoint(const RayGrid& g, const Real* bar, Real spacing, int column,
                                                  int row) {
  const int n = g.rows * g.columns;
  const auto at = [&](int part, int c, int r) {
    return c < 0 || r < 0 || c >= g.columns || r >= g.rows ? Real(0) : bar[part * n + r * g.columns + c];
  };
  const auto along_x = [&](int part) { return at(part, column - 1, row) - at(part, column + 1, row); };
  const auto along_y = [&](int part) { return at(part, column, row - 1) - at(part, column, row + 1); };
  return {(along_x(0) + along_y(2) / 2) / (2 * spacing), (along_y(1) + along_x(2) / 2) / (2 * spacing)};
}

/// A pixel of a PIXELATED component; 0 outside its grid.
template <class Real>
EINFIELD_HD Real pixel_or_zero(const Real* pixels, int nx, int ny, int ix, int iy) {
  return ix < 0 || iy < 0 || ix >= nx || iy >= ny ? Real(0) : pixels[iy * nx + ix];
}

/// Penalty of the differences around one pixel [image unit²]; the caller divides the sum over the pixels by their
/// number. With s(ix, iy) the pixels and 0 outside:
///
///     w_g [(s(ix + 1, iy) − s(ix, iy))² + (s(ix, iy + 1) − s(ix, iy))²]
///     + w_c [(s(ix − 1, iy) − 2 s(ix, iy) + s(ix + 1, iy))² + (s(ix, iy − 1) − 2 s(ix, iy) + s(ix, iy + 1))²]     (3)
///
/// and for the first column and row the gradient's difference from the 0 before them. Without terms at the border a
/// constant (w_g) or a plane (w_c) would have no penalty. Suyu et al. (2006) put them at the upper borders only; here
/// they are at all four, so that a mirrored source has the same penalty.
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
