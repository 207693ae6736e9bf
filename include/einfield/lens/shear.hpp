// External shear and convergence: potentials quadratic in position.
#pragma once

#include "einfield/lens/plane.hpp"

namespace EINFIELD_API einfield {

/// External shear, or its cotangent.
template <class Real>
struct Shear {
  Vec2<Real> gamma{};  ///< γ1, γ2
};

/// ψ, α, κ, γ of an external shear.
///
///     ψ = (γ1/2)(x² − y²) + γ2 x y,   α = γ z*,   κ = 0                                                         (1)
///
/// Smooth everywhere; at the center ψ = α = 0 and ∂/∂γ = 0.
/// @param z  θ − (ra_0, dec_0) [arcsec]
template <class Real>
EINFIELD_HD LensValues<Real> lens_values(const Shear<Real>& lens, Vec2<Real> z) {
  const Vec2<Real> alpha = mul(lens.gamma, conj(z));
  return {dot(z, alpha) / 2, alpha, 0, lens.gamma.x, lens.gamma.y};
}

/// Deflection alone: (1).
template <class Real>
EINFIELD_HD Vec2<Real> lens_deflection(const Shear<Real>& lens, Vec2<Real> z) {
  return mul(lens.gamma, conj(z));
}

/// Adjoint of the deflection: γ̄ += ᾱ z,   z̄ += γ ᾱ*                                                             (2)
template <class Real>
EINFIELD_HD void lens_adjoint(const Shear<Real>& lens, Vec2<Real> z, Vec2<Real> alpha_bar, Vec2<Real>& z_bar,
                              Shear<Real>* lens_bar) {
  z_bar += mul(lens.gamma, conj(alpha_bar));
  if (lens_bar) lens_bar->gamma += mul(alpha_bar, z);
}

/// Adjoint of lens_values: (2), and ψ = z·α/2.
template <class Real>
EINFIELD_HD void lens_adjoint(const Shear<Real>& lens, Vec2<Real> z, const LensValues<Real>& bar, Vec2<Real>& z_bar,
                              Shear<Real>* lens_bar) {
  lens_adjoint(lens, z, bar.alpha + (bar.psi / 2) * z, z_bar, lens_bar);
  z_bar += (bar.psi / 2) * lens_deflection(lens, z);
  if (lens_bar) lens_bar->gamma += Vec2<Real>{bar.gamma1, bar.gamma2};
}

/// External convergence (mass sheet), or its cotangent.
template <class Real>
struct Convergence {
  Real kappa{};
};

/// ψ, α, κ, γ of a mass sheet: ψ = κ |z|²/2, α = κ z, γ = 0; at the center ψ = α = 0.                               (3)
/// @param z  θ − (ra_0, dec_0) [arcsec]
template <class Real>
EINFIELD_HD LensValues<Real> lens_values(const Convergence<Real>& lens, Vec2<Real> z) {
  return {lens.kappa * dot(z, z) / 2, lens.kappa * z, lens.kappa, 0, 0};
}

/// Deflection alone: (3).
template <class Real>
EINFIELD_HD Vec2<Real> lens_deflection(const Convergence<Real>& lens, Vec2<Real> z) {
  return lens.kappa * z;
}

/// Adjoint of the deflection: κ̄ += z·ᾱ,   z̄ += κ ᾱ                                                              (4)
template <class Real>
EINFIELD_HD void lens_adjoint(const Convergence<Real>& lens, Vec2<Real> z, Vec2<Real> alpha_bar, Vec2<Real>& z_bar,
                              Convergence<Real>* lens_bar) {
  z_bar += lens.kappa * alpha_bar;
  if (lens_bar) lens_bar->kappa += dot(z, alpha_bar);
}

/// Adjoint of lens_values: (4), and ψ = z·α/2.
template <class Real>
EINFIELD_HD void lens_adjoint(const Convergence<Real>& lens, Vec2<Real> z, const LensValues<Real>& bar,
                              Vec2<Real>& z_bar, Convergence<Real>* lens_bar) {
  lens_adjoint(lens, z, bar.alpha + (bar.psi / 2) * z, z_bar, lens_bar);
  z_bar += (bar.psi / 2) * lens_deflection(lens, z);
  if (lens_bar) lens_bar->kappa += bar.kappa;
}

}  // namespace einfield
