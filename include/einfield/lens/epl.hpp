// Elliptical power law (EPL): Tessore & Metcalf (2015, A&A 580, A79).
#pragma once

#include "einfield/lens/plane.hpp"

namespace EINFIELD_API einfield {

/// Parameters of an elliptical power law, or their cotangents.
template <class Real>
struct Epl {
  Real theta_E{};  ///< Einstein radius on the product average of the axes, > 0 [arcsec]
  Real gamma{};    ///< slope of the three-dimensional density, in (1, 3); 2 is isothermal
  Vec2<Real> e{};  ///< ellipticity e1, e2; |e| < 1
};

/// Most terms of the series. Enough for c = 0.99 (q = 0.005) in double; beyond, α loses digits but stays finite.
inline constexpr int kEplMaxTerms = 4096;

/// F = ₂F₁(1, 1 − g; 1 + g; x) and its derivatives, for |x| ≤ c < 1.
template <class Real>
struct EplSeries {
  Vec2<Real> value;
  Vec2<Real> by_x;
  Vec2<Real> by_g;
};

/// Tessore & Metcalf (2015), eq. 29, and its derivatives term by term:
///
///     F = Σ a_n xⁿ,   a_0 = 1,   a_n = r_n a_{n−1},   r_n = (n − g)/(n + g),   dr_n/dg = −2n/(n + g)²             (1)
///
/// As |a_n| ≤ 1, the sum ends when c^{n−1} has fallen below the precision of Real, so that derivatives have their
/// digits too: the same number of terms for every ray.
template <class Real>
EINFIELD_HD EplSeries<Real> epl_series(Vec2<Real> x, Real g, Real c, bool derivatives) {
  constexpr Real kEpsilon = sizeof(Real) == 4 ? Real(6e-8) : Real(1.1e-16);
  EplSeries<Real> sum{{1, 0}, {}, {}};
  Vec2<Real> term{1, 0}, term_g{};  // a_n xⁿ and its derivative by g
  Real bound = 1;                   // c^{n−1}
  for (int n = 1; n <= kEplMaxTerms && bound > kEpsilon; ++n, bound *= c) {
    const Real inverse = 1 / (Real(n) + g);
    const Real ratio = (Real(n) - g) * inverse;
    if (derivatives) {
      sum.by_x += (Real(n) * ratio) * term;
      term_g = mul(x, ratio * term_g - (2 * Real(n) * inverse * inverse) * term);
      sum.by_g += term_g;
    }
    term = ratio * mul(x, term);
    sum.value += term;
  }
  return sum;
}

/// What every formula of the EPL is made of.
template <class Real>
struct EplFrame {
  Real k2, g;       ///< 1 − c²; g = 1 − t/2 = (3 − gamma)/2
  Vec2<Real> d, u;  ///< z − ε z*;  d²/m2
  Real m2;          ///< k² R²
  Real log_ratio;   ///< ln(θ_E/R)
  Real power;       ///< (θ_E/R)^t
  EplSeries<Real> f;
};

template <class Real>
EINFIELD_HD EplFrame<Real> epl_frame(const Epl<Real>& lens, Vec2<Real> z, bool derivatives) {
  EplFrame<Real> f;
  const Real c2 = dot(lens.e, lens.e);
  f.k2 = 1 - c2;
  f.g = (3 - lens.gamma) / 2;
  f.d = z - mul(lens.e, conj(z));
  f.m2 = dot(f.d, f.d) + f.k2 * Real(kLensCore) * Real(kLensCore);
  f.u = (1 / f.m2) * mul(f.d, f.d);
  f.log_ratio = log(lens.theta_E) - log(f.m2 / f.k2) / 2;
  f.power = exp((lens.gamma - 1) * f.log_ratio);
  f.f = epl_series(Real(-1) * mul(conj(lens.e), f.u), f.g, sqrt(c2), derivatives);
  return f;
}

/// Deflection of the elliptical power law.
///
///     κ = (1 − t/2) (θ_E/R)^t,   R² = q X² + Y²/q + s² = |d|²/k² + s²,   t = gamma − 1,   k² = 1 − c²             (2)
///     α = (θ_E/R)^t d F(x),   x = −ε* u,   u = d²/(k² R²),   d = z − ε z*                                       (3)
///
/// From Tessore & Metcalf's α = (2b/(1 + q)) (b/|Z|)^{t−1} e^{i(φ + arg Z)} ₂F₁(1, t/2; 2 − t/2; −c e^{2i arg Z}) with
/// Z = qX + iY = e^{−iφ} d/(1 + c), b = θ_E √q and 2/(1 + q) = 1 + c; t/2 = 1 − g. What changed: the core s = kLensCore
/// in R and u. With it (3) is not exactly the gradient of ψ within a few s of the center; at r it is to about (s/r)².
///
/// | at the center | ψ, α | κ           | γ    | ∂α/∂z                       | ∂α/∂p, ∂κ/∂z, ∂γ/∂z |
/// | value         | 0    | g (θ_E/s)^t | −ε κ | dα = (θ_E/s)^t (dz − ε dz*) | 0                   |
///
/// @param z  θ − center [arcsec]
template <class Real>
EINFIELD_HD Vec2<Real> lens_deflection(const Epl<Real>& lens, Vec2<Real> z) {
  const EplFrame<Real> f = epl_frame(lens, z, false);
  return f.power * mul(f.d, f.f.value);
}

/// ψ, α, κ, γ of the elliptical power law; α is (3), κ is (2).
///
///     ψ = z·α/(2 − t),   γ = (θ_E/R)^t ((1 − t) k² u F − (1 − t/2)(u + ε))/(1 + ε* u)                            (4)
///
/// Both because α ∝ r^{1−t}: z·α = (2 − t) ψ and z κ + z* γ = (1 − t) α, where z/z* = (u + ε)/(1 + ε* u) and
/// d/z* = k² u/(1 + ε* u).
template <class Real>
EINFIELD_HD LensValues<Real> lens_values(const Epl<Real>& lens, Vec2<Real> z) {
  const EplFrame<Real> f = epl_frame(lens, z, false);
  const Vec2<Real> alpha = f.power * mul(f.d, f.f.value);
  const Vec2<Real> numerator = ((2 * f.g - 1) * f.k2) * mul(f.u, f.f.value) - f.g * (f.u + lens.e);
  const Vec2<Real> gamma = f.power * div(numerator, Vec2<Real>{1, 0} + mul(conj(lens.e), f.u));
  return {dot(z, alpha) / (2 * f.g), alpha, f.g * f.power, gamma.x, gamma.y};
}

/// Adjoint of lens_values: adds to `z_bar` and, unless null, to `lens_bar`.
///
/// (2), (3), (4) in reverse, line by line, with C = (θ_E/R)^t and M = k² R² = |d|² + k² s² through their logarithms:
///     dC/C = dt ln(θ_E/R) + t dθ_E/θ_E − (t/2) d ln M + t dk/k,   d ln M = (2 Re(d* dd) + 2 k s² dk)/M
///     du = 2 d dd/M − u d ln M,   dx = −u dε* − ε* du,   dd = dz − ε dz* − z* dε,   k dk = −Re(ε* dε)           (5)
template <class Real>
EINFIELD_HD void lens_adjoint(const Epl<Real>& lens, Vec2<Real> z, const LensValues<Real>& bar, Vec2<Real>& z_bar,
                              Epl<Real>* lens_bar) {
  const EplFrame<Real> f = epl_frame(lens, z, true);
  const Real t = lens.gamma - 1, shear_factor = 2 * f.g - 1;
  const Vec2<Real> d_f = mul(f.d, f.f.value), u_f = mul(f.u, f.f.value);
  const Vec2<Real> denominator = Vec2<Real>{1, 0} + mul(conj(lens.e), f.u);
  const Vec2<Real> shear = div((shear_factor * f.k2) * u_f - f.g * (f.u + lens.e), denominator);  // γ/C
  const Vec2<Real> gamma_bar{bar.gamma1, bar.gamma2};
  const Vec2<Real> alpha = f.power * d_f;

  // ψ, κ, γ → C, α, u, F, ε, g, k.
  const Vec2<Real> alpha_bar = bar.alpha + (bar.psi / (2 * f.g)) * z;
  const Vec2<Real> quotient_bar = div(f.power * gamma_bar, conj(denominator));  // cotangent of the numerator in (4)
  const Real power_bar = dot(alpha_bar, d_f) + bar.kappa * f.g + dot(gamma_bar, shear);
  const Vec2<Real> denominator_bar = Real(-1) * mul(quotient_bar, conj(shear));
  Real g_bar = bar.kappa * f.power - bar.psi * dot(z, alpha) / (2 * f.g * f.g) + 2 * f.k2 * dot(quotient_bar, u_f) -
               dot(quotient_bar, f.u + lens.e);
  Real log_k_bar = 2 * shear_factor * f.k2 * dot(quotient_bar, u_f) + t * power_bar * f.power;
  Vec2<Real> u_bar =
      (shear_factor * f.k2) * mul(quotient_bar, conj(f.f.value)) - f.g * quotient_bar + mul(denominator_bar, lens.e);
  Vec2<Real> e_bar = mul(conj(denominator_bar), f.u) - f.g * quotient_bar;

  // F → x, g;  x → u, ε.
  const Vec2<Real> f_bar = f.power * mul(alpha_bar, conj(f.d)) + (shear_factor * f.k2) * mul(quotient_bar, conj(f.u));
  const Vec2<Real> x_bar = mul(f_bar, conj(f.f.by_x));
  g_bar += dot(f_bar, f.f.by_g);
  u_bar -= mul(x_bar, lens.e);
  e_bar -= mul(conj(x_bar), f.u);

  // u, C → d, ln M, k.
  const Real log_m2_bar = -dot(u_bar, f.u) - t / 2 * power_bar * f.power;
  const Vec2<Real> d_over_m2 = (1 / f.m2) * f.d;
  const Vec2<Real> d_bar =
      f.power * mul(alpha_bar, conj(f.f.value)) + Real(2) * mul(u_bar, conj(d_over_m2)) + 2 * log_m2_bar * d_over_m2;
  log_k_bar += 2 * log_m2_bar * f.k2 * Real(kLensCore) * Real(kLensCore) / f.m2;

  z_bar += d_bar - mul(lens.e, conj(d_bar)) + (bar.psi / (2 * f.g)) * alpha;
  if (!lens_bar) return;
  lens_bar->theta_E += t * power_bar * f.power / lens.theta_E;
  lens_bar->gamma += power_bar * f.power * f.log_ratio - g_bar / 2;
  lens_bar->e += e_bar - mul(d_bar, z) - (log_k_bar / f.k2) * lens.e;
}

/// Adjoint of the deflection: that of lens_values with no other cotangent.
template <class Real>
EINFIELD_HD void lens_adjoint(const Epl<Real>& lens, Vec2<Real> z, Vec2<Real> alpha_bar, Vec2<Real>& z_bar,
                              Epl<Real>* lens_bar) {
  lens_adjoint(lens, z, LensValues<Real>{0, alpha_bar, 0, 0, 0}, z_bar, lens_bar);
}

}  // namespace einfield
