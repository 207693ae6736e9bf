// Multipole of an isothermal lens: Xu et al. (2015, MNRAS 447, 3189), appendix B; its m = 1 is lenstronomy's.
#pragma once

#include "einfield/lens/plane.hpp"

namespace EINFIELD_API einfield {

/// Parameters of a multipole, or their cotangents (m is a whole number and has none; only m = 1 depends on r_E).
template <class Real>
struct Multipole {
  int m{};       ///< order, ≥ 1
  Real a_m{};    ///< amplitude [arcsec]
  Real phi_m{};  ///< angle of a maximum of κ for a_m > 0 [rad]
  Real r_E{};    ///< where the potential of m = 1 is zero, > 0 [arcsec]
};

/// What the formulas of m = 1 are made of.
template <class Real>
struct DipoleFrame {
  Real radius, log_r;   ///< R; ln(R/r_E)
  Vec2<Real> v, omega;  ///< z/R; ω = e^{−i phi_m}
  Real p;               ///< Re(ω v)
};

template <class Real>
EINFIELD_HD DipoleFrame<Real> dipole_frame(const Multipole<Real>& lens, Vec2<Real> z) {
  DipoleFrame<Real> f;
  f.radius = sqrt(dot(z, z) + Real(kLensCore) * Real(kLensCore));
  f.log_r = log(f.radius) - log(lens.r_E);
  f.v = (1 / f.radius) * z;
  f.omega = {cos(lens.phi_m), -sin(lens.phi_m)};
  f.p = dot(conj(f.omega), f.v);
  return f;
}

/// Deflection for m = 1.
///
///     ψ = A R ln(R/r_E) Re(ω v),   A = a_m/2                                                                    (6)
///     α = A (ω* ln(R/r_E) + Re(ω v) v)                                                                          (7)
///
/// with which κ is (3) for m = 1. r_E adds a constant to α, that is, it moves the source: images do not determine it.
///
/// At the center ψ = κ = 0, α = A ω* ln(s/r_E), γ = 0.
template <class Real>
EINFIELD_HD Vec2<Real> dipole_deflection(const Multipole<Real>& lens, Vec2<Real> z) {
  const DipoleFrame<Real> f = dipole_frame(lens, z);
  return (lens.a_m / 2) * (f.log_r * conj(f.omega) + f.p * f.v);
}

/// γ R/A of m = 1, with S = 1 − |v|²/2:
///     n = (1 + S) ω* v/2 − v² (ω v/4 + Re(ω v)/2);   s → 0: −i Im(ω v) v²                                       (8)
template <class Real>
EINFIELD_HD Vec2<Real> dipole_shear(const DipoleFrame<Real>& f) {
  const Real half = 1 - dot(f.v, f.v) / 2;
  const Vec2<Real> u = mul(f.omega, f.v);
  return ((1 + half) / 2) * mul(conj(f.omega), f.v) - mul(mul(f.v, f.v), Real(0.25) * Vec2<Real>{3 * u.x, u.y});
}

/// ψ, α, κ, γ for m = 1: (6), (7), (3), (8).
template <class Real>
EINFIELD_HD LensValues<Real> dipole_values(const Multipole<Real>& lens, Vec2<Real> z) {
  const DipoleFrame<Real> f = dipole_frame(lens, z);
  const Real amplitude = lens.a_m / 2, inverse = 1 / f.radius;
  const Vec2<Real> gamma = (amplitude * inverse) * dipole_shear(f);
  return {amplitude * f.radius * f.log_r * f.p, dipole_deflection(lens, z),
          lens.a_m * (1 - dot(f.v, f.v) / 2) * f.p * inverse, gamma.x, gamma.y};
}

/// Adjoint of dipole_values: (6) to (8) and (3) in reverse, then dv and d ln R as in (5) and dω = −i ω dphi_m.
template <class Real>
EINFIELD_HD void dipole_adjoint(const Multipole<Real>& lens, Vec2<Real> z, const LensValues<Real>& bar,
                                Vec2<Real>& z_bar, Multipole<Real>* lens_bar) {
  const DipoleFrame<Real> f = dipole_frame(lens, z);
  const Real amplitude = lens.a_m / 2, inverse = 1 / f.radius;
  const Real half = 1 - dot(f.v, f.v) / 2;
  const Vec2<Real> gamma_bar{bar.gamma1, bar.gamma2};
  const Vec2<Real> n = dipole_shear(f), u = mul(f.omega, f.v), square = mul(f.v, f.v);
  const Vec2<Real> cross = mul(conj(f.omega), f.v);                                    // ω* v
  const Vec2<Real> bracket = Real(0.25) * Vec2<Real>{3 * u.x, u.y};                    // ω v/4 + Re(ω v)/2
  const Real constant_bar = dot(bar.alpha, conj(f.omega)) + bar.psi * f.radius * f.p;  // of A ln(R/r_E)

  const Vec2<Real> n_bar = (amplitude * inverse) * gamma_bar;
  const Vec2<Real> bracket_bar = Real(-1) * mul(n_bar, conj(square));
  const Vec2<Real> u_bar{
      amplitude * (bar.psi * f.radius * f.log_r + dot(bar.alpha, f.v) + 2 * bar.kappa * half * inverse) +
          Real(0.75) * bracket_bar.x,
      bracket_bar.y / 4};
  const Vec2<Real> cross_bar = ((1 + half) / 2) * n_bar;
  const Real half_bar = 2 * amplitude * bar.kappa * f.p * inverse + dot(n_bar, cross) / 2;
  const Vec2<Real> v_bar = (amplitude * f.p) * bar.alpha + mul(u_bar, conj(f.omega)) + mul(cross_bar, f.omega) -
                           Real(2) * mul(n_bar, conj(mul(f.v, bracket))) - half_bar * f.v;
  const Real kappa_unit = 2 * half * f.p * inverse;
  const Real log_r_bar = amplitude * (bar.psi * f.radius * f.log_r * f.p + constant_bar - bar.kappa * kappa_unit) -
                         dot(n_bar, n) - dot(v_bar, f.v);
  z_bar += inverse * (v_bar + log_r_bar * f.v);
  if (!lens_bar) return;
  const Vec2<Real> omega_bar =
      mul(u_bar, conj(f.v)) + (amplitude * f.log_r) * conj(bar.alpha) + mul(f.v, conj(cross_bar));
  lens_bar->a_m += (bar.psi * f.radius * f.log_r * f.p + dot(bar.alpha, f.log_r * conj(f.omega) + f.p * f.v) +
                    bar.kappa * kappa_unit + inverse * dot(gamma_bar, n)) /
                   2;
  lens_bar->phi_m += omega_bar.x * f.omega.y - omega_bar.y * f.omega.x;
  lens_bar->r_E -= amplitude * constant_bar / lens.r_E;
}

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

/// Deflection of a multipole; m = 1 is (7), and all that follows is for m ≥ 2.
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
  if (lens.m == 1) return dipole_deflection(lens, z);
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
  if (lens.m == 1) return dipole_values(lens, z);
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
  if (lens.m == 1) return dipole_adjoint(lens, z, bar, z_bar, lens_bar);
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
