// Navarro, Frenk & White (1996) halo, circular or with an elliptical potential (Golse & Kneib 2002): Bartelmann (1996).
#pragma once

#include "einfield/lens/plane.hpp"

namespace EINFIELD_API einfield {

/// Parameters of an NFW halo, or their cotangents; e = 0 is the circular NFW.
template <class Real>
struct Nfw {
  Real Rs{};        ///< scale radius, > 0 [arcsec]
  Real alpha_Rs{};  ///< deflection at Rs, > 0 [arcsec]
  Vec2<Real> e{};   ///< ellipticity of the potential; |e| < 1
};

/// The functions of x = R/Rs that an NFW halo is made of.
template <class Real>
struct NfwRadial {
  Real potential;    ///< h(x) = ln²(x/2) − arcosh²(1/x)
  Real mean;         ///< g(x)/x²,  g = ln(x/2) + arcosh(1/x)/√(1 − x²): half the mean convergence within x
  Real convergence;  ///< D = (1 − A)/(x² − 1),  A = arcosh(1/x)/√(1 − x²)
  Real slope;        ///< dD/d(x²)
};

/// With t = x² − 1, A(t) = atan(√t)/√t is analytic at t = 0, and so is D = (1 − A)/t:
///
///     D = Σ (−t)ⁿ/(2n + 3),   A = 1 − t D                                                    |t| < 1/4             (1)
///     dD/dt = −((1/x² − A)/(2t) + D)/t                                                       elsewhere            (2)
///
/// Towards the center g and h cancel. With L = ln(2/x), σ = √(1 − x²), λ = ln((1 + σ)/2) = log1p(−x²/(2(1 + σ))),
/// arcosh(1/x) = L + λ and 1/σ − 1 = x²/(σ(1 + σ)):
///
///     g/x² = (L/(1 + σ) + λ/x²)/σ,   h = −λ (2L + λ)                                          t ≤ −1/4             (3)
template <class Real>
EINFIELD_HD NfwRadial<Real> nfw_radial(Real x) {
  NfwRadial<Real> f;
  const Real x2 = x * x;
  const Real t = (x - 1) * (x + 1);
  if (t < Real(0.25) && t > Real(-0.25)) {
    constexpr int kTerms = sizeof(Real) == 4 ? 12 : 27;
    f.convergence = 0;
    f.slope = 0;
    for (int n = kTerms; n >= 0; --n) {
      f.slope = f.slope * -t + f.convergence;  // derivative of Horner's sum by −t
      f.convergence = f.convergence * -t + Real(1) / Real(2 * n + 3);
    }
    f.slope = -f.slope;
    const Real a = 1 - t * f.convergence;
    const Real l = log(x / 2);
    f.potential = l * l + t * a * a;
    f.mean = (l + a) / x2;
    return f;
  }
  Real a;
  if (t < 0) {
    const Real sigma = sqrt(-t);
    const Real l = log(2 / x), lambda = log1p(-x2 / (2 * (1 + sigma)));
    a = (l + lambda) / sigma;
    f.potential = -lambda * (2 * l + lambda);
    f.mean = (l / (1 + sigma) + lambda / x2) / sigma;
  } else {
    const Real root = sqrt(t), angle = atan(root);
    const Real l = log(x / 2);
    a = angle / root;
    f.potential = l * l + angle * angle;
    f.mean = (l + a) / x2;
  }
  f.convergence = (1 - a) / t;
  f.slope = -((1 / x2 - a) / (2 * t) + f.convergence) / t;
  return f;
}

/// What every formula of the NFW halo is made of.
template <class Real>
struct NfwFrame {
  Vec2<Real> eta;         ///< 2ε/(1 + c²)
  Vec2<Real> v;           ///< z − η z*
  Real radius;            ///< R
  Real unit;              ///< 1/((1 − ln 2) Rs): mean and convergence per alpha_Rs
  NfwRadial<Real> f;      ///< at R/Rs
  Real mean, difference;  ///< μ(R) and κ_0(R) − μ(R): mean and own convergence of the circular halo at R
};

template <class Real>
EINFIELD_HD NfwFrame<Real> nfw_frame(const Nfw<Real>& lens, Vec2<Real> z) {
  NfwFrame<Real> f;
  const Real n2 = 1 / (1 + dot(lens.e, lens.e));
  const Vec2<Real> d = z - mul(lens.e, conj(z));
  f.eta = 2 * n2 * lens.e;
  f.v = z - mul(f.eta, conj(z));
  f.radius = sqrt(n2 * dot(d, d) + Real(kLensCore) * Real(kLensCore));
  f.unit = 1 / (Real(0.30685281944005469058) * lens.Rs);
  f.f = nfw_radial(f.radius / lens.Rs);
  f.mean = lens.alpha_Rs * f.unit * f.f.mean;
  f.difference = lens.alpha_Rs * f.unit * (f.f.convergence / 2 - f.f.mean);
  return f;
}

/// ψ, α, κ, γ of an NFW halo with an elliptical potential.
///
///     ψ = (N Rs/2) h(R/Rs),   N = alpha_Rs/(1 − ln 2),   R² = |d|²/(1 + c²) + s² = |z|² − Re(η* z²) + s²        (4)
///     α = μ v,   μ = N g(x)/(Rs x²),   v = z − η z*,   η = 2ε/(1 + c²)                                          (5)
///     κ = μ + (κ_0 − μ)|v|²/R²,   γ = −η μ + (κ_0 − μ) v²/R²,   κ_0 = N D(x)/(2 Rs)                             (6)
///
/// R is lenstronomy's √((1 − e)X² + (1 + e)Y²), e = |η| = (1 − q²)/(1 + q²). (5), (6) are derivatives of (4) with
/// dψ/d(R²) = μ/2, dμ/d(R²) = (κ_0 − μ)/R², ∂R²/∂z* = v. The core s = kLensCore is part of the model, and (5), (6) hold
/// with it: α is a gradient everywhere.
///
/// | at the center | ψ            | α | κ                              | γ    | ∂α/∂z             |
/// | value         | ~ −N s² ln s | 0 | μ(s) ≈ (N/2Rs)(ln(2 Rs/s) − ½) | −η κ | dα = κ dz + γ dz* |
///
/// and ∂α/∂p = ∂κ/∂z = ∂γ/∂z = 0 there.
///
/// @param z  θ − center [arcsec]
template <class Real>
EINFIELD_HD LensValues<Real> lens_values(const Nfw<Real>& lens, Vec2<Real> z) {
  const NfwFrame<Real> f = nfw_frame(lens, z);
  const Vec2<Real> nu = (1 / f.radius) * f.v;
  const Vec2<Real> gamma = f.difference * mul(nu, nu) - f.mean * f.eta;
  return {lens.alpha_Rs * f.unit * lens.Rs * lens.Rs / 2 * f.f.potential, f.mean * f.v,
          f.mean + f.difference * dot(nu, nu), gamma.x, gamma.y};
}

/// Deflection alone: (5).
template <class Real>
EINFIELD_HD Vec2<Real> lens_deflection(const Nfw<Real>& lens, Vec2<Real> z) {
  const NfwFrame<Real> f = nfw_frame(lens, z);
  return f.mean * f.v;
}

/// Adjoint of lens_values: adds to `z_bar` and, unless null, to `lens_bar`.
///
/// With Δ = κ_0 − μ and S = dκ_0/d ln R = N x² (dD/dx²)/Rs, (4) to (6) depend on R and Rs through
///     dψ = μ R² d ln R + (ψ − μ R²) d ln Rs
///     dμ = 2Δ d ln R − (μ + 2Δ) d ln Rs,   dΔ = (S − 2Δ) d ln R − (S − Δ) d ln Rs
///     d ln R = (v·dz − Re(z*² dη)/2)/R²,   dv = dz − η dz* − z* dη
///     dη = 2 dε/(1 + c²) − 4 ε Re(ε* dε)/(1 + c²)²                                                             (7)
template <class Real>
EINFIELD_HD void lens_adjoint(const Nfw<Real>& lens, Vec2<Real> z, const LensValues<Real>& bar, Vec2<Real>& z_bar,
                              Nfw<Real>* lens_bar) {
  const NfwFrame<Real> f = nfw_frame(lens, z);
  const Real inverse = 1 / f.radius;
  const Vec2<Real> nu = inverse * f.v, zeta = inverse * z;
  const Vec2<Real> gamma_bar{bar.gamma1, bar.gamma2};
  const Real x = f.radius / lens.Rs;
  const Real slope = lens.alpha_Rs * f.unit * f.f.slope * x * x;
  const Real psi_unit = f.unit * lens.Rs * lens.Rs / 2 * f.f.potential;
  const Real psi_slope = f.mean * f.radius * f.radius;

  const Real mean_bar = dot(bar.alpha, f.v) + bar.kappa - dot(gamma_bar, f.eta);
  const Real difference_bar = bar.kappa * dot(nu, nu) + dot(gamma_bar, mul(nu, nu));
  const Vec2<Real> nu_bar = 2 * f.difference * (mul(gamma_bar, conj(nu)) + bar.kappa * nu);
  const Vec2<Real> v_bar = f.mean * bar.alpha + inverse * nu_bar;
  const Real log_r_bar =
      bar.psi * psi_slope + 2 * f.difference * mean_bar + (slope - 2 * f.difference) * difference_bar - dot(nu_bar, nu);
  z_bar += (log_r_bar * inverse) * nu + v_bar - mul(f.eta, conj(v_bar));
  if (!lens_bar) return;
  const Vec2<Real> eta_bar = Real(-1) * (f.mean * gamma_bar + mul(v_bar, z) + (log_r_bar / 2) * mul(zeta, zeta));
  const Real n2 = 1 / (1 + dot(lens.e, lens.e));
  lens_bar->Rs += (bar.psi * (lens.alpha_Rs * psi_unit - psi_slope) - mean_bar * (f.mean + 2 * f.difference) -
                   difference_bar * (slope - f.difference)) /
                  lens.Rs;
  lens_bar->alpha_Rs +=
      bar.psi * psi_unit + f.unit * (mean_bar * f.f.mean + difference_bar * (f.f.convergence / 2 - f.f.mean));
  lens_bar->e += 2 * n2 * (eta_bar - (2 * n2 * dot(eta_bar, lens.e)) * lens.e);
}

/// Adjoint of the deflection: that of lens_values with no other cotangent.
template <class Real>
EINFIELD_HD void lens_adjoint(const Nfw<Real>& lens, Vec2<Real> z, Vec2<Real> alpha_bar, Vec2<Real>& z_bar,
                              Nfw<Real>* lens_bar) {
  lens_adjoint(lens, z, LensValues<Real>{0, alpha_bar, 0, 0, 0}, z_bar, lens_bar);
}

}  // namespace einfield
