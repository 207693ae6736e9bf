// What all lens profiles share: the plane as complex numbers, ψ α κ γ in one struct, the core of singular profiles.
//
// Position and ellipticity are complex numbers here, z = x + iy and ε = e1 + i e2 = c e^{2iφ}; a star is the complex
// conjugate. An ellipse then needs no angle: with the own-frame axes X, Y along φ,
//
//     d = z − ε z* = e^{iφ} ((1 − c) X + i (1 + c) Y),   q X² + Y²/q = |d|²/(1 − c²)                             (1)
//
// so that formulas in d, ε and their conjugates are smooth at e1 = e2 = 0, where φ is undefined.
// A bar is a cotangent: that of z is the vector (∂/∂x, ∂/∂y) of a real function, read as a complex number. Then
//
//     dw = a dz  gives  z̄ += a* w̄,   dw = a dz*  gives  z̄ += a w̄*                                               (2)
#pragma once

#include "einfield/core.hpp"

namespace EINFIELD_API einfield {

/// Core of the profiles that are singular at their center: their radii are √(R² + kLensCore²). Part of the model, as in
/// lenstronomy's SIE, whose deflection it changes by θ_E · 1e-10 arcsec/r; that of the others by less. [arcsec]
inline constexpr double kLensCore = 1e-10;

/// Everything a lens profile says about one position; also used for cotangents of the same.
template <class Real>
struct LensValues {
  Real psi{};          ///< potential            [arcsec²]
  Vec2<Real> alpha{};  ///< deflection ∇ψ        [arcsec]
  Real kappa{};        ///< convergence ½ ∇²ψ
  Real gamma1{};       ///< shear ½(ψ_xx − ψ_yy)
  Real gamma2{};       ///< shear ψ_xy
};

template <class Real>
EINFIELD_HD Vec2<Real> conj(Vec2<Real> a) {
  return {a.x, -a.y};
}

/// Complex product.
template <class Real>
EINFIELD_HD Vec2<Real> mul(Vec2<Real> a, Vec2<Real> b) {
  return {a.x * b.x - a.y * b.y, a.x * b.y + a.y * b.x};
}

/// Complex quotient; |b|² must neither overflow nor underflow.
template <class Real>
EINFIELD_HD Vec2<Real> div(Vec2<Real> a, Vec2<Real> b) {
  return (1 / dot(b, b)) * mul(a, conj(b));
}

}  // namespace einfield
