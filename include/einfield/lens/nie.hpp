// Isothermal ellipsoid with a core (NIE) and, with the core of lenstronomy, the SIE: Kassiola & Kovner (1993),
// Keeton (2001).
#pragma once

#include "einfield/lens/plane.hpp"

namespace EINFIELD_API einfield {

/// Parameters of an isothermal ellipsoid, or their cotangents.
template <class Real>
struct Nie {
  Real theta_E{};  ///< Einstein radius on the product average of the axes, > 0 [arcsec]
  Vec2<Real> e{};  ///< ellipticity e1, e2; |e| < 1
  Real core{};     ///< core radius s on the same average, > 0 [arcsec]; lenstronomy's s_scale, kLensCore for the SIE
};

/// atan(√ε σ)/√ε and its derivative by ε at fixed σ, for |σ| ≤ 1 and |ε| < 1. Both are even in √ε: analytic.
template <class Real>
struct ScaledArctan {
  Vec2<Real> value;
  Vec2<Real> slope;
};

/// With t = εσ², |t| ≤ |ε|:
///
///     value = atan(√ε σ)/√ε = σ Σ (−t)^n/(2n + 1)                                                              (1)
///     slope = (σ/(1 + t) − value)/(2ε) = −σ³ Σ (n + 1)(−t)^n/(2n + 3)                                          (2)
///
/// The closed form of (2) loses the digits of ε, so below |ε| = 1/16 the series take over; their first term left out is
/// below the precision of Real. Real and imaginary part of atan(x + iy) are ½ atan(2x/(1 − x² − y²)) and
/// ¼ ln(1 + 4y/(x² + (1 − y)²)); |x + iy| < 1 here.
/// @param with_slope  false: slope is left 0
template <class Real>
EINFIELD_HD ScaledArctan<Real> scaled_arctan(Vec2<Real> e, Vec2<Real> sigma, bool with_slope) {
  const Real c2 = dot(e, e);
  const Vec2<Real> square = mul(sigma, sigma);
  const Vec2<Real> t = mul(e, square);
  if (c2 < Real(1) / 256) {
    constexpr int kTerms = sizeof(Real) == 4 ? 6 : 14;
    Vec2<Real> sum{Real(1) / (2 * kTerms + 1), 0}, slope{-Real(kTerms) / (2 * kTerms + 1), 0};
    for (int n = kTerms - 1; n >= 0; --n) {
      sum = Vec2<Real>{Real(1) / Real(2 * n + 1), 0} - mul(t, sum);
      if (with_slope && n > 0) slope = Vec2<Real>{-Real(n) / Real(2 * n + 1), 0} - mul(t, slope);
    }
    if (!with_slope) slope = {};
    return {mul(sigma, sum), mul(mul(sigma, square), slope)};
  }
  const Real c = sqrt(c2);
  const Real half = sqrt((c + abs(e.x)) / 2);
  // Either root will do.
  const Vec2<Real> root = e.x >= 0 ? Vec2<Real>{half, e.y / (2 * half)} : Vec2<Real>{e.y / (2 * half), half};
  const Vec2<Real> xi = mul(root, sigma);
  const Real y = abs(xi.y);
  const Real real = atan(2 * xi.x / (1 - dot(xi, xi))) / 2;
  const Real imaginary = log1p(4 * y / (xi.x * xi.x + (1 - y) * (1 - y))) / 4;
  const Vec2<Real> value = (1 / c) * mul(Vec2<Real>{real, xi.y < 0 ? -imaginary : imaginary}, conj(root));
  if (!with_slope) return {value, {}};
  const Vec2<Real> one_t{1 + t.x, t.y};
  return {value, (1 / (2 * c2)) * mul(div(sigma, one_t) - value, conj(e))};
}

/// What every formula of the NIE is made of.
template <class Real>
struct NieFrame {
  Real k2, k;        ///< k = √(1 − c²)
  Vec2<Real> d;      ///< z − ε z*
  Real m;            ///< k R
  Real p;            ///< k (R + s)
  Vec2<Real> sigma;  ///< d*/p
};

/// The shear in units of the convergence, γ = −κ Q, with its parts in units of R, so that no square of the core enters
/// a denominator: ζ = z/R, τ = s/R, T = 2τ²/k², Q = (ζ² + 2Tε)/D, D = E/R² = |ζ|² + T(1 + c²) + 2τ.
template <class Real>
struct NieShear {
  Real inverse_radius;  ///< 1/R
  Vec2<Real> zeta;
  Real tau, core2;  ///< τ, T
  Real inverse_d;
  Vec2<Real> q;
};

template <class Real>
EINFIELD_HD NieFrame<Real> nie_frame(const Nie<Real>& lens, Vec2<Real> z) {
  NieFrame<Real> f;
  f.k2 = 1 - dot(lens.e, lens.e);
  f.k = sqrt(f.k2);
  f.d = z - mul(lens.e, conj(z));
  const Real core = f.k * lens.core;
  f.m = sqrt(dot(f.d, f.d) + core * core);
  f.p = f.m + core;
  f.sigma = (1 / f.p) * conj(f.d);
  return f;
}

template <class Real>
EINFIELD_HD NieShear<Real> nie_shear(const Nie<Real>& lens, const NieFrame<Real>& f, Vec2<Real> z) {
  NieShear<Real> g;
  g.inverse_radius = f.k / f.m;
  g.zeta = g.inverse_radius * z;
  g.tau = lens.core * g.inverse_radius;
  g.core2 = 2 * g.tau * g.tau / f.k2;
  g.inverse_d = 1 / (dot(g.zeta, g.zeta) + g.core2 * (2 - f.k2) + 2 * g.tau);
  g.q = g.inverse_d * (mul(g.zeta, g.zeta) + 2 * g.core2 * lens.e);
  return g;
}

/// Deflection of the isothermal ellipsoid, without an angle in it.
///
///     κ = θ_E/(2R),   R² = q X² + Y²/q + s² = |d|²/k² + s²,   k² = 1 − c²                                      (3)
///     α* = θ_E k atan(√ε σ)/√ε,   σ = d*/(k (R + s)),   d = z − ε z*                                           (4)
///
/// From Keeton's α_X = (b/f) atan(f X/(ρ + s′)), α_Y = (b/f) atanh(f Y/(ρ + q² s′)) with b = θ_E √q, s′ = s/√q,
/// ρ = √q R, f² = 1 − q² = 4c/(1 + c)²: b/f = θ_E k/(2√c), and by the addition theorem of the arctangent
///
///     α_X − iα_Y = (b/f) 2 atan(√c ((1 − c) X − i (1 + c) Y)/(k (R + s))),   which is (4) in the own frame.
///
/// | at the center | ψ                | α | κ         | γ    | ∂α/∂z               | ∂α/∂p, ∂κ/∂z, ∂γ/∂z |
/// | value         | −θ_E s ln(2 s/k) | 0 | θ_E/(2 s) | −ε κ | dα = κ dz + γ dz*   | 0                   |
///
/// @param z  θ − center [arcsec]
template <class Real>
EINFIELD_HD Vec2<Real> lens_deflection(const Nie<Real>& lens, Vec2<Real> z) {
  const NieFrame<Real> f = nie_frame(lens, z);
  return lens.theta_E * f.k * conj(scaled_arctan(lens.e, f.sigma, false).value);
}

/// ψ, α, κ, γ of the isothermal ellipsoid; α is (4), κ is (3).
///
///     γ = γ1 + iγ2 = −κ Q,   Q = (z² + 4 s² ε/k²)/E,   E = |z|² + 2 s² (1 + c²)/k² + 2 R s                      (5)
///     ψ = z·α − (θ_E s/2) ln E                                                                                 (6)
///
/// (5) from Keeton's ψ_XX = b (Y² + q² s′² + ρ s′)/(ρE), ψ_YY = b (X² + s′² + ρ s′)/(ρE), ψ_XY = −b X Y/(ρE), whose
/// half-sum is b/(2ρ) = κ.
template <class Real>
EINFIELD_HD LensValues<Real> lens_values(const Nie<Real>& lens, Vec2<Real> z) {
  const NieFrame<Real> f = nie_frame(lens, z);
  const Vec2<Real> alpha = lens.theta_E * f.k * conj(scaled_arctan(lens.e, f.sigma, false).value);
  const NieShear<Real> g = nie_shear(lens, f, z);
  const Real kappa = lens.theta_E * g.inverse_radius / 2;
  const Real psi = dot(z, alpha) + lens.theta_E * lens.core * (log(g.inverse_d) / 2 + log(g.inverse_radius));
  return {psi, alpha, kappa, -kappa * g.q.x, -kappa * g.q.y};
}

/// Reverse of (4) for a cotangent of α, with cotangents of m = kR and k from elsewhere: adds.
///
/// With V the value of scaled_arctan, dV = dσ/(1 + t) + slope dε, dσ = (dd* − σ dp)/p and w = θ_E k ᾱ/((1 + t) p),
///     p̄ = −Re(w σ),   k̄ += θ_E Re(ᾱ V) + s p̄,   ε̄ += (θ_E k ᾱ slope)*
/// and m² = |d|² + k² s²,  p = m + k s,  d = z − ε z*,  k dk = −Re(ε* dε) give, with Y = w + (m̄/m) d,
///     z̄ += Y − ε Y*,   ε̄ −= Y z + (k̄/k) ε                                                                     (7)
template <class Real>
EINFIELD_HD void nie_reverse(const Nie<Real>& lens, const NieFrame<Real>& f, Vec2<Real> z, Vec2<Real> alpha_bar,
                             Real m_bar, Real k_bar, Vec2<Real>& z_bar, Nie<Real>& lens_bar) {
  const ScaledArctan<Real> arctan = scaled_arctan(lens.e, f.sigma, true);
  const Vec2<Real> t = mul(lens.e, mul(f.sigma, f.sigma));
  const Vec2<Real> value = mul(alpha_bar, arctan.value);
  const Vec2<Real> g = lens.theta_E * f.k * alpha_bar;
  const Vec2<Real> w = (1 / f.p) * div(g, Vec2<Real>{1 + t.x, t.y});
  const Real p_bar = -(w.x * f.sigma.x - w.y * f.sigma.y);
  const Real m_ratio = (m_bar + p_bar) / f.m;
  const Vec2<Real> y = w + m_ratio * f.d;
  k_bar += lens.theta_E * value.x + lens.core * p_bar + m_ratio * f.k * lens.core * lens.core;
  z_bar += y - mul(lens.e, conj(y));
  lens_bar.theta_E += f.k * value.x;
  lens_bar.e += conj(mul(g, arctan.slope)) - mul(y, z) - (k_bar / f.k) * lens.e;
  lens_bar.core += f.k * p_bar + m_ratio * f.k2 * lens.core;
}

/// Adjoint of lens_deflection: adds to `z_bar` and, unless null, to `lens_bar`.
///
/// For the position alone no arctangent is needed: dα = κ dz + γ dz* gives z̄ += κ ᾱ + γ ᾱ*                          (8)
template <class Real>
EINFIELD_HD void lens_adjoint(const Nie<Real>& lens, Vec2<Real> z, Vec2<Real> alpha_bar, Vec2<Real>& z_bar,
                              Nie<Real>* lens_bar) {
  const NieFrame<Real> f = nie_frame(lens, z);
  if (lens_bar) {
    nie_reverse(lens, f, z, alpha_bar, Real(0), Real(0), z_bar, *lens_bar);
    return;
  }
  const NieShear<Real> g = nie_shear(lens, f, z);
  z_bar += (lens.theta_E * g.inverse_radius / 2) * (alpha_bar - mul(g.q, conj(alpha_bar)));
}

/// Adjoint of lens_values: adds to `z_bar` and, unless null, to `lens_bar`.
///
/// (3), (5), (6) in reverse by the parts of NieShear, with 1/R = k/m: ln E = ln D − 2 ln(k/m), κ = θ_E k/(2m).
template <class Real>
EINFIELD_HD void lens_adjoint(const Nie<Real>& lens, Vec2<Real> z, const LensValues<Real>& bar, Vec2<Real>& z_bar,
                              Nie<Real>* lens_bar) {
  const NieFrame<Real> f = nie_frame(lens, z);
  const NieShear<Real> g = nie_shear(lens, f, z);
  const Real kappa = lens.theta_E * g.inverse_radius / 2;
  const Vec2<Real> gamma_bar{bar.gamma1, bar.gamma2};

  // γ, ψ → the numerator and D of Q;  D → ζ, T, τ;  all of these and κ → 1/R, k.
  const Real kappa_bar = bar.kappa - dot(gamma_bar, g.q);
  const Vec2<Real> numerator_bar = (-kappa * g.inverse_d) * gamma_bar;
  const Real log_e_bar = -bar.psi * lens.theta_E * lens.core / 2;
  const Real d_bar = g.inverse_d * (kappa * dot(gamma_bar, g.q) + log_e_bar);
  const Vec2<Real> zeta_bar = Real(2) * mul(numerator_bar, conj(g.zeta)) + 2 * d_bar * g.zeta;
  const Real core2_bar = 2 * dot(numerator_bar, lens.e) + d_bar * (2 - f.k2);
  const Real tau_bar = 2 * d_bar + core2_bar * 4 * g.tau / f.k2;
  const Real inverse_bar =
      dot(zeta_bar, z) + tau_bar * lens.core + kappa_bar * lens.theta_E / 2 - 2 * log_e_bar / g.inverse_radius;
  const Real m_bar = -inverse_bar * g.inverse_radius / f.m;
  const Real k_bar = inverse_bar / f.m - core2_bar * 2 * g.core2 / f.k;

  const Vec2<Real> alpha = lens.theta_E * f.k * conj(scaled_arctan(lens.e, f.sigma, false).value);
  z_bar += bar.psi * alpha + g.inverse_radius * zeta_bar;
  Nie<Real> total{};
  nie_reverse(lens, f, z, bar.alpha + bar.psi * z, m_bar, k_bar, z_bar, total);
  if (!lens_bar) return;
  const Real half_log_e = -log(g.inverse_d) / 2 - log(g.inverse_radius);
  lens_bar->theta_E += total.theta_E + kappa_bar * g.inverse_radius / 2 - bar.psi * lens.core * half_log_e;
  lens_bar->e += total.e + 2 * g.core2 * numerator_bar + 2 * d_bar * g.core2 * lens.e;
  lens_bar->core += total.core + tau_bar * g.inverse_radius - bar.psi * lens.theta_E * half_log_e;
}

}  // namespace einfield
