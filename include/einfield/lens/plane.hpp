// What all lens profiles share: the plane as complex numbers, ψ α κ γ in one struct, the core of singular profiles.
//
// Position and ellipticity are complex numbers here, z = x + iy and ε = e1 + i e2 = c e^{2iφ}. An ellipse then needs no
// angle: with the own-frame axes X, Y along φ,
//
//     d = z − ε z̄ = e^{iφ} ((1 − c) X + i (1 + c) Y),   q X² + Y²/q = |d|²/(1 − c²)                               (1)
//
// so that formulas in d, ε and their conjugates are smooth at e1 = e2 = 0, where φ is undefined.
// A real function's cotangent with respect to z is stored as the vector (∂/∂x, ∂/∂y), read as a complex number: a product
// w = a b gives ā += w̄_cot · conj(b), and a conjugate is conjugated.
#pragma once

#include "einfield/core.hpp"

namespace einfield {

/// Core of the profiles that are singular at their centre: radii there are √(R² + kLensCore²). Part of the model, that of
/// lenstronomy's SIE; it changes a deflection by at most θ_E · 1e-10 arcsec / r. [arcsec]
inline constexpr double kLensCore = 1e-10;

/// Everything a lens profile says about one position; also used for cotangents of the same.
template <class Real>
struct LensValues {
  Real psi{};           ///< potential            [arcsec²]
  Vec2<Real> alpha{};   ///< deflection ∇ψ        [arcsec]
  Real kappa{};         ///< convergence ½ ∇²ψ
  Real gamma1{};        ///< shear ½(ψ_xx − ψ_yy)
  Real gamma2{};        ///< shear ψ_xy
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
