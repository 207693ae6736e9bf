// Brightness profiles of the source and of the lens's own light: Sérsic, Gaussians, pixels, a network, a constant;
// values beside their adjoints. Conventions are lenstronomy's; Sérsic (1968), b_n after Capaccioli (1989).
#pragma once

#include "einfield/core.hpp"
#include "einfield/profile.hpp"

namespace EINFIELD_API einfield {

enum class LightKind : int { sersic_ellipse, gaussian, pixelated, network, uniform, gaussian_ellipse };
inline constexpr int kLightKinds = 6;

/// What R_sersic measures on an elliptical isophote.
enum class RadiusKind : int {
  product_average,  ///< √(q X² + Y²/q): lenstronomy's default, the area of the isophote is π R²
  major_axis,       ///< √(X² + Y²/q²): the paper and herculens
};

inline constexpr Named<RadiusKind> kRadiusKinds[] = {{"product_average", RadiusKind::product_average},
                                                     {"major_axis", RadiusKind::major_axis}};
constexpr const char* name_of(RadiusKind radius) {
  return name_in(kRadiusKinds, radius);
}

/// The regular grid of a PIXELATED component; pixel (0, 0) is the lower left.
struct PixelGrid {
  int nx = 0;
  int ny = 0;
  double pixel_scale = 1.0;  ///< arcsec
  double center_x = 0.0;     ///< arcsec; coordinate of the middle of the grid
  double center_y = 0.0;     ///< arcsec
};

/// Smallest radius of a Sérsic profile [arcsec]. The brightness gradient diverges at the center for n > 1, so the
/// profile is flat inside this radius. Part of the model, as in lenstronomy.
inline constexpr double kSersicCore = 1e-4;

/// b_n = kSersicSlope n + kSersicOffset: with it half of the light lies within R_sersic (Capaccioli 1989).
inline constexpr double kSersicSlope = 1.9992;
inline constexpr double kSersicOffset = -0.3271;

/// Name, parameters, units, ranges and defaults of a profile.
inline const ProfileInfo& light_info(LightKind kind) {
  // b_n = 1.9992 n − 0.3271 is positive above n = 0.164 and good to a percent from 0.36 on; beyond 10 the profile is
  // all core.
  static const ProfileInfo table[kLightKinds] = {
      {"SERSIC_ELLIPSE",
       {{"amp", "image unit", Range::positive, 0, kInfinity, kRequired},
        {"R_sersic", "arcsec", Range::positive, 0, kInfinity, kRequired},
        {"n_sersic", "", Range::interval, 0.25, 10, kRequired},
        {"e1", "", Range::ellipticity, -1, 1, 0},
        {"e2", "", Range::ellipticity, -1, 1, 0},
        {"center_x", "arcsec", Range::unbounded, -kInfinity, kInfinity, 0},
        {"center_y", "arcsec", Range::unbounded, -kInfinity, kInfinity, 0}}},
      {"GAUSSIAN",
       {{"amp", "image unit arcsec^2", Range::positive, 0, kInfinity, kRequired},
        {"sigma", "arcsec", Range::positive, 0, kInfinity, kRequired},
        {"center_x", "arcsec", Range::unbounded, -kInfinity, kInfinity, 0},
        {"center_y", "arcsec", Range::unbounded, -kInfinity, kInfinity, 0}}},
      {"PIXELATED", {}},
      {"NETWORK",
       {{"amp", "image unit", Range::positive, 0, kInfinity, kRequired},
        {"center_x", "arcsec", Range::unbounded, -kInfinity, kInfinity, 0},
        {"center_y", "arcsec", Range::unbounded, -kInfinity, kInfinity, 0}}},
      {"UNIFORM", {{"amp", "image unit", Range::unbounded, -kInfinity, kInfinity, kRequired}}},
      {"GAUSSIAN_ELLIPSE",
       {{"amp", "image unit arcsec^2", Range::positive, 0, kInfinity, kRequired},
        {"sigma", "arcsec", Range::positive, 0, kInfinity, kRequired},
        {"e1", "", Range::ellipticity, -1, 1, 0},
        {"e2", "", Range::ellipticity, -1, 1, 0},
        {"center_x", "arcsec", Range::unbounded, -kInfinity, kInfinity, 0},
        {"center_y", "arcsec", Range::unbounded, -kInfinity, kInfinity, 0}}}};
  return table[static_cast<int>(kind)];
}

/// U and V of (2) below, and S = U² + V², at a position relative to the center of an elliptical profile.
template <class Real>
struct EllipseRadius {
  Real u, v, s;
  EINFIELD_HD EllipseRadius(Real e1, Real e2, Real x, Real y)
      : u((1 - e1) * x - e2 * y), v((1 + e1) * y - e2 * x), s(u * u + v * v) {}
};

/// Adjoint of S by (5) below: returns the cotangent of the position and sets those of e1 and e2.
template <class Real>
EINFIELD_HD Vec2<Real> ellipse_radius_adjoint(Real e1, Real e2, Real x, Real y, Real s_bar, Real& e1_bar,
                                              Real& e2_bar) {
  const EllipseRadius<Real> r(e1, e2, x, y);
  e1_bar = s_bar * 2 * (y * r.v - x * r.u);
  e2_bar = -s_bar * 2 * (y * r.u + x * r.v);
  return {s_bar * 2 * ((1 - e1) * r.u - e2 * r.v), s_bar * 2 * ((1 + e1) * r.v - e2 * r.u)};
}

/// Elliptical Sérsic profile.
///
///     I = amp exp(−b ((R/R_s)^{1/n} − 1)),   b = 1.9992 n − 0.3271                                              (1)
///     R² = g S,   S = U² + V²,   U = (1 − e1) x − e2 y,   V = (1 + e1) y − e2 x                                  (2)
///     g = 1/(1 − c²) (product average) or 1/(1 − c)² (major axis),   c² = e1² + e2²                              (3)
///
/// (2) is q X² + Y²/q = g S with g = 1/(1 − c²): with q = (1 − c)/(1 + c), q + 1/q = 2(1 + c²)/(1 − c²) and
/// q − 1/q = −4c/(1 − c²), so that (q + 1/q)(x² + y²)/2 + (q − 1/q)(cos 2φ (x² − y²) + 2 sin 2φ xy)/2 has no angle left
/// in it, only e1 = c cos 2φ and e2 = c sin 2φ: smooth at e1 = e2 = 0. The major axis divides by q once more.
///
/// | at the center (R ≤ kSersicCore) | I | ∂I/∂x, ∂I/∂e, ∂I/∂center | ∂I/∂amp, ∂I/∂R_s, ∂I/∂n |
/// | value                           | that of R = kSersicCore | 0 | those of R = kSersicCore |
///
/// On the major axis ∂R/∂e at c = 0 depends on the direction of e, because R² ∝ (1 + c)². There the derivative of this
/// factor is taken as its mean over directions, which is 0.
///
/// @param p  amp [image unit per pixel], R_sersic [arcsec] > 0, n_sersic, e1, e2, center_x, center_y [arcsec]
/// @return   brightness [image unit per pixel]; no pixel-area factor
template <class Real>
EINFIELD_HD Real sersic_brightness(const Real* p, RadiusKind radius, Vec2<Real> position) {
  const EllipseRadius<Real> ellipse(p[3], p[4], position.x - p[5], position.y - p[6]);
  const Real c2 = p[3] * p[3] + p[4] * p[4];
  const Real c = sqrt(c2);
  const Real g = radius == RadiusKind::major_axis ? 1 / ((1 - c) * (1 - c)) : 1 / (1 - c2);
  const Real r = sqrt(g * ellipse.s);
  const Real floored = r < Real(kSersicCore) ? Real(kSersicCore) : r;  // NaN stays NaN
  const Real b = Real(kSersicSlope) * p[2] + Real(kSersicOffset);
  return p[0] * exp(-b * (exp(log(floored / p[1]) / p[2]) - 1));
}

/// Adjoint of sersic_brightness: adds to `position_bar` and, unless null, to `p_bar` (same order as p).
///
/// With z = (R/R_s)^{1/n}, from (1):
///     ∂I/∂amp = I/amp,   ∂I/∂R = −I b z/(n R),   ∂I/∂R_s = I b z/(n R_s),
///     ∂I/∂n = −I (1.9992 (z − 1) − b z ln(R/R_s)/n²)                                                            (4)
/// and from (2), (3), with dR = (g dS + S dg)/(2R):
///     ∂S/∂x = 2(1 − e1)U − 2e2 V,   ∂S/∂y = 2(1 + e1)V − 2e2 U,   ∂S/∂e1 = 2(yV − xU),   ∂S/∂e2 = −2(yU + xV),
///     ∂g/∂e_i = 2g² e_i (product average),   2 g^{3/2} e_i/c (major axis)                                       (5)
/// Where I underflows to 0, so do all its derivatives.
template <class Real>
EINFIELD_HD void sersic_brightness_adjoint(const Real* p, RadiusKind radius, Vec2<Real> position, Real brightness_bar,
                                           Vec2<Real>& position_bar, Real* p_bar) {
  const Real x = position.x - p[5], y = position.y - p[6];
  const Real c2 = p[3] * p[3] + p[4] * p[4];
  const Real c = sqrt(c2);
  const bool major = radius == RadiusKind::major_axis;
  const Real g = major ? 1 / ((1 - c) * (1 - c)) : 1 / (1 - c2);
  const Real s = EllipseRadius<Real>(p[3], p[4], x, y).s;
  const Real r = sqrt(g * s);
  const bool in_core = r <= Real(kSersicCore);
  const Real floored = in_core ? Real(kSersicCore) : r;
  const Real b = Real(kSersicSlope) * p[2] + Real(kSersicOffset);
  const Real log_ratio = log(floored / p[1]);
  const Real z = exp(log_ratio / p[2]);
  const Real shape = exp(-b * (z - 1));
  if (shape == 0) return;
  const Real weighted = brightness_bar * p[0] * shape;
  const Real steepness = weighted * b * z / p[2];
  if (p_bar) {
    p_bar[0] += brightness_bar * shape;
    p_bar[1] += steepness / p[1];
    p_bar[2] -= weighted * (Real(kSersicSlope) * (z - 1)) - steepness * log_ratio / p[2];
  }
  if (in_core) return;
  const Real half = -steepness / (2 * r * r);  // R̄/(2R)
  Real e1_bar = 0, e2_bar = 0;
  const Vec2<Real> bar = ellipse_radius_adjoint(p[3], p[4], x, y, half * g, e1_bar, e2_bar);
  position_bar += bar;
  if (!p_bar) return;
  const Real g_bar = half * s;
  const Real dg = major ? (c > 0 ? 2 * g / ((1 - c) * c) : Real(0)) : 2 * g * g;
  p_bar[3] += e1_bar + g_bar * dg * p[3];
  p_bar[4] += e2_bar + g_bar * dg * p[4];
  p_bar[5] -= bar.x;
  p_bar[6] -= bar.y;
}

/// Circular Gaussian of given flux.
///
///     I = amp/(2πσ²) exp(−r²/(2σ²))                                                                             (6)
///
/// At the center: the maximum, first derivatives in position 0.
/// @param p  amp = total flux [image unit per pixel · arcsec²], sigma [arcsec] > 0, center_x, center_y [arcsec]
template <class Real>
EINFIELD_HD Real gaussian_brightness(const Real* p, Vec2<Real> position) {
  const Real x = (position.x - p[2]) / p[1], y = (position.y - p[3]) / p[1];
  return p[0] / (Real(2 * kPi) * p[1] * p[1]) * exp(-(x * x + y * y) / 2);
}

/// Adjoint of gaussian_brightness: adds to `position_bar` and, unless null, to `p_bar`.
///
///     ∂I/∂x = −I x/σ²,   ∂I/∂amp = I/amp,   ∂I/∂σ = I (r²/σ² − 2)/σ                                              (7)
template <class Real>
EINFIELD_HD void gaussian_brightness_adjoint(const Real* p, Vec2<Real> position, Real brightness_bar,
                                             Vec2<Real>& position_bar, Real* p_bar) {
  const Real x = (position.x - p[2]) / p[1], y = (position.y - p[3]) / p[1];
  const Real r2 = x * x + y * y;
  const Real shape = exp(-r2 / 2) / (Real(2 * kPi) * p[1] * p[1]);
  if (shape == 0) return;
  const Real weighted = brightness_bar * p[0] * shape;
  const Real x_bar = -weighted * x / p[1], y_bar = -weighted * y / p[1];
  position_bar.x += x_bar;
  position_bar.y += y_bar;
  if (!p_bar) return;
  p_bar[0] += brightness_bar * shape;
  p_bar[1] += weighted * (r2 - 2) / p[1];
  p_bar[2] -= x_bar;
  p_bar[3] -= y_bar;
}

/// Elliptical Gaussian of given flux: a component of a multi-Gaussian expansion (Emsellem, Monnet & Bacon 1994).
///
///     I = amp/(2πσ²) exp(−R²/(2σ²)),   R² = S/(1 − c²) of (2), (3): the product average                         (7b)
///
/// At the center: the maximum, first derivatives in position 0.
/// @param p  amp = total flux [image unit per pixel · arcsec²], sigma [arcsec] > 0, e1, e2, center_x, center_y [arcsec]
template <class Real>
EINFIELD_HD Real gaussian_ellipse_brightness(const Real* p, Vec2<Real> position) {
  const EllipseRadius<Real> ellipse(p[2], p[3], (position.x - p[4]) / p[1], (position.y - p[5]) / p[1]);
  return p[0] / (Real(2 * kPi) * p[1] * p[1]) * exp(-ellipse.s / (2 * (1 - p[2] * p[2] - p[3] * p[3])));
}

/// Adjoint of gaussian_ellipse_brightness: adds to `position_bar` and, unless null, to `p_bar`.
///
/// In units of σ, with g = 1/(1 − c²) and R² = g S:
///     ∂I/∂S = −I g/2,   ∂I/∂g = −I S/2,   ∂g/∂e_i = 2g² e_i,   ∂I/∂amp = I/amp,   ∂I/∂σ = I (R² − 2)/σ           (7c)
template <class Real>
EINFIELD_HD void gaussian_ellipse_brightness_adjoint(const Real* p, Vec2<Real> position, Real brightness_bar,
                                                     Vec2<Real>& position_bar, Real* p_bar) {
  const Real x = (position.x - p[4]) / p[1], y = (position.y - p[5]) / p[1];
  const Real g = 1 / (1 - p[2] * p[2] - p[3] * p[3]);
  const Real s = EllipseRadius<Real>(p[2], p[3], x, y).s;
  const Real shape = exp(-g * s / 2) / (Real(2 * kPi) * p[1] * p[1]);
  if (shape == 0) return;
  const Real weighted = brightness_bar * p[0] * shape;
  Real e1_bar = 0, e2_bar = 0;
  const Vec2<Real> bar = ellipse_radius_adjoint(p[2], p[3], x, y, -weighted * g / 2, e1_bar, e2_bar);
  position_bar.x += bar.x / p[1];
  position_bar.y += bar.y / p[1];
  if (!p_bar) return;
  const Real g_bar = -weighted * s / 2;
  p_bar[0] += brightness_bar * shape;
  p_bar[1] += weighted * (g * s - 2) / p[1];
  p_bar[2] += e1_bar + g_bar * 2 * g * g * p[2];
  p_bar[3] += e2_bar + g_bar * 2 * g * g * p[3];
  p_bar[4] -= bar.x / p[1];
  p_bar[5] -= bar.y / p[1];
}

/// The same brightness everywhere: a background that was not subtracted, or not subtracted correctly.
///
///     I = amp                                                                                                  (7a)
/// @param p  amp [image unit per pixel], of any sign
template <class Real>
EINFIELD_HD Real uniform_brightness(const Real* p) {
  return p[0];
}

/// Adjoint of uniform_brightness: adds to `p_bar`, unless null. The position has no cotangent.
template <class Real>
EINFIELD_HD void uniform_brightness_adjoint(Real brightness_bar, Real* p_bar) {
  if (p_bar) p_bar[0] += brightness_bar;
}

/// The four pixels around a position and their weights: lower left, lower right, upper left, upper right.
template <class Real>
struct BilinearTaps {
  int index[4];  ///< iy · nx + ix, or −1 outside the grid, where the brightness is 0
  Real weight[4];
  Real fx, fy;  ///< position within the cell, [0, 1)
};

/// Pixels and weights of a position. Beyond the outer pixel centers the brightness falls to zero over one pixel;
/// further out all taps are −1. A position on a cell border belongs to the cell to its right and above.
template <class Real>
EINFIELD_HD BilinearTaps<Real> bilinear_taps(const PixelGrid& grid, Vec2<Real> position) {
  BilinearTaps<Real> taps{{-1, -1, -1, -1}, {0, 0, 0, 0}, 0, 0};
  const Real inverse = Real(1 / grid.pixel_scale);
  const Real x = (position.x - Real(grid.center_x)) * inverse + Real(0.5) * Real(grid.nx - 1);
  const Real y = (position.y - Real(grid.center_y)) * inverse + Real(0.5) * Real(grid.ny - 1);
  // Written so that NaN and infinities fail.
  if (!(x >= -1 && x < Real(grid.nx) && y >= -1 && y < Real(grid.ny))) return taps;
  const int ix = static_cast<int>(floor(x)), iy = static_cast<int>(floor(y));
  taps.fx = x - Real(ix);
  taps.fy = y - Real(iy);
  for (int k = 0; k < 4; ++k) {
    const int column = ix + (k & 1), row = iy + (k >> 1);
    if (column < 0 || row < 0 || column >= grid.nx || row >= grid.ny) continue;
    taps.index[k] = row * grid.nx + column;
    taps.weight[k] = ((k & 1) ? taps.fx : 1 - taps.fx) * ((k >> 1) ? taps.fy : 1 - taps.fy);
  }
  return taps;
}

/// Brightness of a pixel grid, bilinear between pixel centers.
///
///     I = Σ_k weight_k pixel_k                                                                                  (8)
///
/// @param pixels  (ny, nx) of `grid` [image unit per pixel]
template <class Real>
EINFIELD_HD Real pixelated_brightness(const PixelGrid& grid, const Real* pixels, Vec2<Real> position) {
  const BilinearTaps<Real> taps = bilinear_taps(grid, position);
  Real sum = 0;
  for (int k = 0; k < 4; ++k)
    if (taps.index[k] >= 0) sum += taps.weight[k] * pixels[taps.index[k]];
  return sum;
}

/// Adjoint of pixelated_brightness with respect to position: adds. The cotangent of pixel k is brightness_bar ·
/// weight_k of bilinear_taps, which the caller sums in a fixed order.
///
///     ∂I/∂x = ((1 − f_y)(p₁ − p₀) + f_y (p₃ − p₂))/scale,   ∂I/∂y with x ↔ y                                     (9)
/// On a cell border this is the derivative to the right and above.
template <class Real>
EINFIELD_HD void pixelated_brightness_adjoint(const PixelGrid& grid, const Real* pixels, Vec2<Real> position,
                                              Real brightness_bar, Vec2<Real>& position_bar) {
  const BilinearTaps<Real> taps = bilinear_taps(grid, position);
  Real value[4];
  for (int k = 0; k < 4; ++k) value[k] = taps.index[k] >= 0 ? pixels[taps.index[k]] : Real(0);
  const Real scaled = brightness_bar * Real(1 / grid.pixel_scale);
  position_bar.x += scaled * ((1 - taps.fy) * (value[1] - value[0]) + taps.fy * (value[3] - value[2]));
  position_bar.y += scaled * ((1 - taps.fx) * (value[2] - value[0]) + taps.fx * (value[3] - value[1]));
}

/// Value and gradient of the network of a NETWORK component at one position, evaluated beforehand by the network stage.
template <class Real>
struct NetworkSample {
  Real value{};           ///< v = MLP(ℓ (position − center)), ℓ = input_scale
  Vec2<Real> gradient{};  ///< ∇v [1/arcsec]
};

/// Brightness from a network, positive everywhere.
///
///     I = amp softplus(v),   softplus(v) = ln(1 + e^v) = max(v, 0) + ln(1 + e^(−|v|))                            (10)
///
/// Nothing diverges: I → amp v for v → ∞ and falls like amp e^v, until it underflows to 0, for v → −∞.
/// @param p      amp [image unit per pixel] > 0, center_x, center_y [arcsec]; the center is part of v
/// @param value  v of NetworkSample
template <class Real>
EINFIELD_HD Real network_brightness(const Real* p, Real value) {
  return p[0] * ((value > 0 ? value : Real(0)) + log1p(exp(-(value < 0 ? -value : value))));
}

/// Adjoint of network_brightness: adds to `value_bar`, `position_bar` and, unless null, to `p_bar`. The weights'
/// gradient follows from `value_bar` by the adjoint of the network.
///
///     ∂I/∂v = amp σ(v),   ∂I/∂x = amp σ(v) ∂v/∂x = −∂I/∂center_x,   ∂I/∂amp = I/amp                              (11)
template <class Real>
EINFIELD_HD void network_brightness_adjoint(const Real* p, const NetworkSample<Real>& sample, Real brightness_bar,
                                            Real& value_bar, Vec2<Real>& position_bar, Real* p_bar) {
  const Real v = sample.value;
  const Real e = exp(-(v < 0 ? -v : v));  // ≤ 1: never overflows
  const Real bar = brightness_bar * p[0] * (v < 0 ? e : Real(1)) / (1 + e);
  const Vec2<Real> at_bar = bar * sample.gradient;
  value_bar += bar;
  position_bar += at_bar;
  if (!p_bar) return;
  p_bar[0] += brightness_bar * ((v > 0 ? v : Real(0)) + log1p(e));
  p_bar[1] -= at_bar.x;
  p_bar[2] -= at_bar.y;
}

}  // namespace einfield
