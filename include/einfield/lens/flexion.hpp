// Gradient of external shear and convergence: a potential cubic in position.
#pragma once

#include "einfield/lens/plane.hpp"

namespace EINFIELD_API einfield {

/// Third derivatives of the potential, or their cotangents [1/arcsec].
template <class Real>
struct Flexion {
  Real g1{};  ///< ψ_xxx
  Real g2{};  ///< ψ_xxy
  Real g3{};  ///< ψ_xyy
  Real g4{};  ///< ψ_yyy
};

/// Second derivatives of the potential of a flexion: linear in position.
///
///     ψ_xx = g1 x + g2 y,   ψ_xy = g2 x + g3 y,   ψ_yy = g3 x + g4 y                                            (1)
template <class Real>
struct FlexionHessian {
  Real xx, xy, yy;
};
template <class Real>
EINFIELD_HD FlexionHessian<Real> flexion_hessian(const Flexion<Real>& lens, Vec2<Real> z) {
  return {lens.g1 * z.x + lens.g2 * z.y, lens.g2 * z.x + lens.g3 * z.y, lens.g3 * z.x + lens.g4 * z.y};
}

/// Deflection of a flexion: half its Hessian (1) times the position, because ψ is homogeneous of degree 3.
template <class Real>
EINFIELD_HD Vec2<Real> lens_deflection(const Flexion<Real>& lens, Vec2<Real> z) {
  const FlexionHessian<Real> h = flexion_hessian(lens, z);
  return {(h.xx * z.x + h.xy * z.y) / 2, (h.xy * z.x + h.yy * z.y) / 2};
}

/// ψ, α, κ, γ of a flexion.
///
///     ψ = z·α/3 = (g1 x³ + 3 g2 x² y + 3 g3 x y² + g4 y³)/6
///     κ = (ψ_xx + ψ_yy)/2,   γ1 = (ψ_xx − ψ_yy)/2,   γ2 = ψ_xy                                                  (2)
///
/// κ = 0 everywhere where g3 = −g1 and g4 = −g2: a gradient of the shear alone. All vanish at the center.
/// @param z  θ − (ra_0, dec_0) [arcsec]
template <class Real>
EINFIELD_HD LensValues<Real> lens_values(const Flexion<Real>& lens, Vec2<Real> z) {
  const FlexionHessian<Real> h = flexion_hessian(lens, z);
  const Vec2<Real> alpha = lens_deflection(lens, z);
  return {dot(z, alpha) / 3, alpha, (h.xx + h.yy) / 2, (h.xx - h.yy) / 2, h.xy};
}

/// Adjoint of lens_values: adds to `z_bar` and, unless null, to `lens_bar`. With ᾱ' = ᾱ + ψ̄ z/3, the cotangents of
/// (1) in reverse:
///     z̄ += H ᾱ' + ψ̄ α/3 + ∂(κ, γ)/∂z,   H̄ = ½ ᾱ' zᵀ + cotangents of κ and γ                                    (3)
template <class Real>
EINFIELD_HD void lens_adjoint(const Flexion<Real>& lens, Vec2<Real> z, const LensValues<Real>& bar, Vec2<Real>& z_bar,
                              Flexion<Real>* lens_bar) {
  const FlexionHessian<Real> h = flexion_hessian(lens, z);
  const Vec2<Real> a = bar.alpha + (bar.psi / 3) * z;
  const Real xx = (bar.kappa + bar.gamma1) / 2, yy = (bar.kappa - bar.gamma1) / 2, xy = bar.gamma2;
  z_bar += (bar.psi / 3) * lens_deflection(lens, z) + Vec2<Real>{h.xx * a.x + h.xy * a.y, h.xy * a.x + h.yy * a.y} +
           Vec2<Real>{xx * lens.g1 + xy * lens.g2 + yy * lens.g3, xx * lens.g2 + xy * lens.g3 + yy * lens.g4};
  if (!lens_bar) return;
  const FlexionHessian<Real> h_bar{xx + a.x * z.x / 2, xy + (a.x * z.y + a.y * z.x) / 2, yy + a.y * z.y / 2};
  lens_bar->g1 += h_bar.xx * z.x;
  lens_bar->g2 += h_bar.xx * z.y + h_bar.xy * z.x;
  lens_bar->g3 += h_bar.xy * z.y + h_bar.yy * z.x;
  lens_bar->g4 += h_bar.yy * z.y;
}

/// Adjoint of the deflection: that of lens_values with no other cotangent.
template <class Real>
EINFIELD_HD void lens_adjoint(const Flexion<Real>& lens, Vec2<Real> z, Vec2<Real> alpha_bar, Vec2<Real>& z_bar,
                              Flexion<Real>* lens_bar) {
  lens_adjoint(lens, z, LensValues<Real>{0, alpha_bar, 0, 0, 0}, z_bar, lens_bar);
}

}  // namespace einfield
