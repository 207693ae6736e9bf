// Circular profiles with closed forms: singular isothermal sphere and point mass, each with the core of lens/plane.hpp.
#pragma once

#include "einfield/lens/plane.hpp"

namespace EINFIELD_API einfield {

/// Singular isothermal sphere, or its cotangent.
template <class Real>
struct Sis {
  Real theta_E{};  ///< Einstein radius, > 0 [arcsec]
};

/// Deflection of the isothermal sphere; its equation stands at lens_values.
template <class Real>
EINFIELD_HD Vec2<Real> lens_deflection(const Sis<Real>& lens, Vec2<Real> z) {
  const Real core = Real(kLensCore);
  return (lens.theta_E / sqrt(dot(z, z) + core * core)) * z;
}

/// ψ, α, κ, γ of the isothermal sphere.
///
///     ψ = θ_E R,   R² = |z|² + s²,   α = θ_E z/R,   κ = θ_E (1 + s²/R²)/(2R),   γ = −θ_E (z/R)²/(2R)           (1)
///
/// with s = kLensCore. The SIE at e = 0 has κ = θ_E/(2R) instead: the two differ by s/r.
///
/// | at the center | ψ     | α | ∂α/∂z | κ     | γ | ∂α/∂θ_E, ∂γ/∂z, ∂κ/∂z |
/// | value         | θ_E s | 0 | θ_E/s | θ_E/s | 0 | 0                     |
///
/// @param z  θ − center [arcsec]
template <class Real>
EINFIELD_HD LensValues<Real> lens_values(const Sis<Real>& lens, Vec2<Real> z) {
  const Real core = Real(kLensCore);
  const Real inverse = 1 / sqrt(dot(z, z) + core * core);
  const Vec2<Real> u = inverse * z;
  const Real tau = core * inverse;
  const Real half = lens.theta_E * inverse / 2;
  const Vec2<Real> square = mul(u, u);
  return {lens.theta_E / inverse, lens_deflection(lens, z), half * (1 + tau * tau), -half * square.x, -half * square.y};
}

/// Adjoint of the deflection. With u = z/R and w = u·ᾱ:  θ̄_E += w,   z̄ += (θ_E/R)(ᾱ − w u)                       (2)
template <class Real>
EINFIELD_HD void lens_adjoint(const Sis<Real>& lens, Vec2<Real> z, Vec2<Real> alpha_bar, Vec2<Real>& z_bar,
                              Sis<Real>* lens_bar) {
  const Real core = Real(kLensCore);
  const Real inverse = 1 / sqrt(dot(z, z) + core * core);
  const Vec2<Real> u = inverse * z;
  const Real w = dot(u, alpha_bar);
  z_bar += (lens.theta_E * inverse) * (alpha_bar - w * u);
  if (lens_bar) lens_bar->theta_E += w;
}

/// Adjoint of lens_values: (2), ∂ψ/∂z = α, and with τ = s/R, h = θ_E/(2R), u = z/R
///     z̄ −= κ̄ (h/R)(1 + 3τ²) u,   z̄ += (h/R)(3 Re(γ̄* u²) u − 2 γ̄ u*)                                        (3)
template <class Real>
EINFIELD_HD void lens_adjoint(const Sis<Real>& lens, Vec2<Real> z, const LensValues<Real>& bar, Vec2<Real>& z_bar,
                              Sis<Real>* lens_bar) {
  const Real core = Real(kLensCore);
  const Real inverse = 1 / sqrt(dot(z, z) + core * core);
  const Vec2<Real> u = inverse * z;
  const Real tau = core * inverse;
  const Vec2<Real> gamma_bar{bar.gamma1, bar.gamma2};
  const Real along = dot(gamma_bar, mul(u, u));
  const Real slope = lens.theta_E * inverse / 2 * inverse;
  lens_adjoint(lens, z, bar.alpha, z_bar, lens_bar);
  z_bar += (bar.psi * lens.theta_E - slope * (bar.kappa * (1 + 3 * tau * tau) - 3 * along)) * u -
           (2 * slope) * mul(gamma_bar, conj(u));
  if (lens_bar) lens_bar->theta_E += bar.psi / inverse + inverse / 2 * (bar.kappa * (1 + tau * tau) - along);
}

/// Point mass, or its cotangent.
template <class Real>
struct PointMass {
  Real theta_E{};  ///< Einstein radius, > 0 [arcsec]
};

/// Deflection of the point mass; its equation stands at lens_values.
template <class Real>
EINFIELD_HD Vec2<Real> lens_deflection(const PointMass<Real>& lens, Vec2<Real> z) {
  const Real core = Real(kLensCore);
  return (lens.theta_E * lens.theta_E / (dot(z, z) + core * core)) * z;
}

/// ψ, α, κ, γ of a point mass, softened (Plummer) with s = kLensCore.
///
///     ψ = (θ_E²/2) ln R²,   R² = |z|² + s²,   α = θ_E² z/R²,   κ = θ_E² s²/R⁴,   γ = −θ_E² z²/R⁴               (4)
///
/// | at the center | ψ          | α | ∂α/∂z, κ | γ | ∂α/∂θ_E, ∂γ/∂z, ∂κ/∂z |
/// | value         | θ_E² ln s  | 0 | θ_E²/s²  | 0 | 0                     |
///
/// @param z  θ − center [arcsec]
template <class Real>
EINFIELD_HD LensValues<Real> lens_values(const PointMass<Real>& lens, Vec2<Real> z) {
  const Real core = Real(kLensCore);
  const Real radius = sqrt(dot(z, z) + core * core);
  const Real ratio = lens.theta_E / radius;
  const Vec2<Real> u = (1 / radius) * z;
  const Real tau = core / radius;
  const Vec2<Real> square = mul(u, u);
  const Real ratio2 = ratio * ratio;
  return {lens.theta_E * lens.theta_E * log(radius), lens_deflection(lens, z), ratio2 * tau * tau, -ratio2 * square.x,
          -ratio2 * square.y};
}

/// Adjoint of the deflection. With u = z/R and w = u·ᾱ:  θ̄_E += 2 (θ_E/R) w,   z̄ += (θ_E/R)²(ᾱ − 2 w u)          (5)
template <class Real>
EINFIELD_HD void lens_adjoint(const PointMass<Real>& lens, Vec2<Real> z, Vec2<Real> alpha_bar, Vec2<Real>& z_bar,
                              PointMass<Real>* lens_bar) {
  const Real core = Real(kLensCore);
  const Real inverse = 1 / sqrt(dot(z, z) + core * core);
  const Real ratio = lens.theta_E * inverse;
  const Vec2<Real> u = inverse * z;
  const Real w = dot(u, alpha_bar);
  z_bar += (ratio * ratio) * (alpha_bar - 2 * w * u);
  if (lens_bar) lens_bar->theta_E += 2 * ratio * w;
}

/// Adjoint of lens_values: (5), ∂ψ/∂z = α, and with τ = s/R, u = z/R, h = (θ_E/R)²
///     z̄ −= 4 κ̄ (h/R) τ² u,   z̄ += (h/R)(4 Re(γ̄* u²) u − 2 γ̄ u*)                                            (6)
template <class Real>
EINFIELD_HD void lens_adjoint(const PointMass<Real>& lens, Vec2<Real> z, const LensValues<Real>& bar, Vec2<Real>& z_bar,
                              PointMass<Real>* lens_bar) {
  const Real core = Real(kLensCore);
  const Real radius = sqrt(dot(z, z) + core * core);
  const Real inverse = 1 / radius;
  const Real ratio = lens.theta_E * inverse;
  const Vec2<Real> u = inverse * z;
  const Real tau = core * inverse;
  const Vec2<Real> gamma_bar{bar.gamma1, bar.gamma2};
  const Real along = dot(gamma_bar, mul(u, u));
  const Real slope = ratio * ratio * inverse;
  lens_adjoint(lens, z, bar.alpha, z_bar, lens_bar);
  z_bar += (bar.psi * lens.theta_E * ratio - slope * (4 * bar.kappa * tau * tau - 4 * along)) * u -
           (2 * slope) * mul(gamma_bar, conj(u));
  if (lens_bar)
    lens_bar->theta_E +=
        2 * bar.psi * lens.theta_E * log(radius) + 2 * ratio * inverse * (bar.kappa * tau * tau - along);
}

}  // namespace einfield
