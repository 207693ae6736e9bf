// Multipole m ≥ 2 of an isothermal lens: Xu et al. (2015, MNRAS 447, 3189), appendix B.
#pragma once

#include "einfield/lens/plane.hpp"

namespace EINFIELD_API einfield {

/// Parameters of a multipole, or their cotangents (m is a whole number and has none).
template <class Real>
struct Multipole {
  int m{};       ///< order, ≥ 2
  Real a_m{};    ///< amplitude [arcsec]
  Real phi_m{};  ///< angle of a maximum of κ for a_m > 0 [rad]
};

/// ω v^{m−3} … ω v^m, the powers that the formulas need.
template <class Real>
struct MultipoleFrame {
  Real radius;               ///< R
  Vec2<Real> v;              ///< z/R
  Vec2<Real> w3, w, w1, w2;  ///< ω v^{m−3} (0 for m = 2), ω v^{m−2}, ω v^{m−1}, ω v^m
  Real amplitude;            ///< A = a_m/(1 − m²)
};

template <class Real>
EINFIELD_HD MultipoleFrame<Real> multipole_frame(const Multipole<Real>& lens, Vec2<Real> z) {
  MultipoleFrame<Real> f;
  const Real m = Real(lens.m);
  f.radius = sqrt(dot(z, z) + Real(kLensCore) * Real(kLensCore));
  f.v = (1 / f.radius) * z;
  const Vec2<Real> omega{cos(m * lens.phi_m), -sin(m * lens.phi_m)};
  f.w3 = {};
  f.w = omega;
  for (int j = 2; j < lens.m; ++j) {
    f.w3 = f.w;
    f.w = mul(f.w, f.v);
  }
  f.w1 = mul(f.w, f.v);
  f.w2 = mul(f.w1, f.v);
  f.amplitude = lens.a_m / (1 - m * m);
  return f;
}

/// Deflection of a multipole.
///
///     ψ = A R Re(ω v^m),   A = a_m/(1 − m²),   v = z/R,   R² = |z|² + s²,   ω = e^{−i m phi_m}                   (1)
///     α = A ((1 − m) Re(ω v^m) v + m (ω v^{m−1})*)                                                             (2)
///
/// (2) is 2 ∂ψ/∂z* with ∂R/∂z* = v/2. For s → 0, ψ = r a_m cos(m(φ − phi_m))/(1 − m²). The core s = kLensCore is part
/// of the model.
///
/// | at the center | ψ, α, κ | γ          | ∂α/∂z      | ∂α/∂p, ∂κ/∂z | ∂γ/∂z                          |
/// | m = 2         | 0       | 2 (A/s) ω* | dα = γ dz* | 0            | 0                              |
/// | m > 2         | 0       | 0          | 0          | 0            | 0; m = 3: dγ = 6 (A/s²) ω* dz* |
///
/// @param z  θ − center [arcsec]
template <class Real>
EINFIELD_HD Vec2<Real> lens_deflection(const Multipole<Real>& lens, Vec2<Real> z) {
  const MultipoleFrame<Real> f = multipole_frame(lens, z);
  const Real m = Real(lens.m);
  return f.amplitude * ((1 - m) * f.w2.x * f.v + m * conj(f.w1));
}

/// ψ, α, κ, γ of a multipole; ψ, α are (1), (2).
///
///     κ = a_m S Re(ω v^m)/R,   S = 1 − |v|²/2                                                                  (3)
///     γ = (A (m − 1)/R) n,   n = m S² (ω v^{m−2})* + (v²/4)(m ω v^m + 2 Re(ω v^m))                              (4)
///
/// are ∂α/∂z and ∂α/∂z* with ∂v/∂z = S/R, ∂v/∂z* = −v²/(2R). For s → 0: κ = a_m cos(m(φ − phi_m))/(2r), γ = −κ z²/r².
template <class Real>
EINFIELD_HD LensValues<Real> lens_values(const Multipole<Real>& lens, Vec2<Real> z) {
  const MultipoleFrame<Real> f = multipole_frame(lens, z);
  const Real m = Real(lens.m);
  const Real half = 1 - dot(f.v, f.v) / 2;
  const Vec2<Real> alpha = f.amplitude * ((1 - m) * f.w2.x * f.v + m * conj(f.w1));
  const Vec2<Real> n =
      (m * half * half) * conj(f.w) + mul(Real(0.25) * mul(f.v, f.v), Vec2<Real>{(m + 2) * f.w2.x, m * f.w2.y});
  const Vec2<Real> gamma = (f.amplitude * (m - 1) / f.radius) * n;
  return {f.amplitude * f.radius * f.w2.x, alpha, lens.a_m * half * f.w2.x / f.radius, gamma.x, gamma.y};
}

/// Adjoint of lens_values: adds to `z_bar` and, unless null, to `lens_bar`.
///
/// (1) to (4) in reverse, line by line, then
///     w2 = w1 v,   w1 = w v,   dw = (m − 2) ω v^{m−3} dv − i m w dphi_m
///     dv = dz/R − v d ln R,   d ln R = v·dz/R                                                                  (5)
template <class Real>
EINFIELD_HD void lens_adjoint(const Multipole<Real>& lens, Vec2<Real> z, const LensValues<Real>& bar, Vec2<Real>& z_bar,
                              Multipole<Real>* lens_bar) {
  const MultipoleFrame<Real> f = multipole_frame(lens, z);
  const Real m = Real(lens.m);
  const Real inverse = 1 / f.radius;
  const Real half = 1 - dot(f.v, f.v) / 2;
  const Vec2<Real> gamma_bar{bar.gamma1, bar.gamma2};
  const Vec2<Real> bracket{(m + 2) * f.w2.x, m * f.w2.y};
  const Vec2<Real> n = (m * half * half) * conj(f.w) + mul(Real(0.25) * mul(f.v, f.v), bracket);
  const Real kappa_unit = (1 - m * m) * inverse;  // κ = A kappa_unit S Re w2
  const Real gamma_unit = (m - 1) * inverse;      // γ = A gamma_unit n

  const Vec2<Real> n_bar = (f.amplitude * gamma_unit) * gamma_bar;
  const Vec2<Real> bracket_bar = mul(n_bar, conj(Real(0.25) * mul(f.v, f.v)));
  const Vec2<Real> w2_bar{
      f.amplitude * (bar.psi * f.radius + (1 - m) * dot(bar.alpha, f.v) + bar.kappa * kappa_unit * half) +
          (m + 2) * bracket_bar.x,
      m * bracket_bar.y};
  const Vec2<Real> w1_bar = (f.amplitude * m) * conj(bar.alpha) + mul(w2_bar, conj(f.v));
  const Vec2<Real> w_bar = (m * half * half) * conj(n_bar) + mul(w1_bar, conj(f.v));
  const Real half_bar = f.amplitude * bar.kappa * kappa_unit * f.w2.x + 2 * m * half * dot(n_bar, conj(f.w));
  const Vec2<Real> v_bar = (f.amplitude * (1 - m) * f.w2.x) * bar.alpha +
                           mul(n_bar, conj(Real(0.5) * mul(f.v, bracket))) + mul(w2_bar, conj(f.w1)) +
                           mul(w1_bar, conj(f.w)) + (m - 2) * mul(w_bar, conj(f.w3)) - half_bar * f.v;
  const Real amplitude_bar = bar.psi * f.radius * f.w2.x + dot(bar.alpha, (1 - m) * f.w2.x * f.v + m * conj(f.w1)) +
                             bar.kappa * kappa_unit * half * f.w2.x + gamma_unit * dot(gamma_bar, n);
  const Real log_r_bar = f.amplitude * (bar.psi * f.radius * f.w2.x - bar.kappa * kappa_unit * half * f.w2.x) -
                         dot(n_bar, n) - dot(v_bar, f.v);
  z_bar += inverse * (v_bar + log_r_bar * f.v);
  if (!lens_bar) return;
  lens_bar->a_m += amplitude_bar / (1 - m * m);
  lens_bar->phi_m += m * (w_bar.x * f.w.y - w_bar.y * f.w.x);
}

/// Adjoint of the deflection: that of lens_values with no other cotangent.
template <class Real>
EINFIELD_HD void lens_adjoint(const Multipole<Real>& lens, Vec2<Real> z, Vec2<Real> alpha_bar, Vec2<Real>& z_bar,
                              Multipole<Real>* lens_bar) {
  lens_adjoint(lens, z, LensValues<Real>{0, alpha_bar, 0, 0, 0}, z_bar, lens_bar);
}

}  // namespace einfield
