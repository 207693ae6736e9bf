// Navarro, Frenk & White halo that is truncated smoothly: Baltz, Marshall & Oguri (2009, JCAP 01, 015), their n = 1.
#pragma once

#include "einfield/lens/nfw.hpp"

namespace EINFIELD_API einfield {

/// Parameters of a truncated NFW halo, or their cotangents.
template <class Real>
struct Tnfw {
  Real Rs{};        ///< scale radius, > 0 [arcsec]
  Real alpha_Rs{};  ///< deflection at Rs of the halo without truncation, > 0 [arcsec]
  Real r_trunc{};   ///< truncation radius, > 0 [arcsec]
};

/// The functions of NfwRadial for the truncated halo, and their derivatives by ln τ at fixed x.
template <class Real>
struct TnfwRadial {
  NfwRadial<Real> f;
  Real potential_tau, mean_tau, convergence_tau;
};

/// With y = x², s² = τ² + y, k = τ² + 1, n = τ² − 1, c = τ²/k², A, D, h and m = g/y of the NFW halo (nfw.hpp), and
///
///     a = arsinh(τ/x),   μ = ln((τ + s)/(2τ)),   b = m − μ/y − a/(τ (s + τ))                                    (1)
///
/// the density NFW · τ²/(τ² + r²/Rs²) has
///
///     m_T = c (n b + P),   P = 2A − π/(s + τ)
///     D_T = c (k D + Q − n a/(τ s)),   Q = 2A − π/s
///     h_T = c (n W + V),   W = h + μ (2a − μ − 2) − 2 a y/(τ (s + τ)),   V = 4y (A − m) + 2π (τμ − y/(s + τ))    (2)
///
/// These are Baltz et al.'s formulas, ordered so that what cancels for x → 0 and for τ → ∞ has been cancelled: their
/// logarithms are L = −a, ln(x/2) = μ + ln τ − a. For τ → ∞ (2) is the NFW halo. For x ≫ 1, A and s cancel in P, Q, V;
/// with ρ² = y − 1 and q = arcsin(1/x), A = (π/2 − q)/ρ and
///
///     y P = 2A − 2ρq + π (2ρτ − 1)/(ρ + τ + s),   Q = π k/(ρ s (s + ρ)) − 2q/ρ
///     V = 4 ln(2/x) + 2πτμ − 4ρq + 2π (2ρτ − 1)/(ρ + τ + s)                                                     (3)
template <class Real>
EINFIELD_HD TnfwRadial<Real> tnfw_radial(Real x, Real tau) {
  const NfwRadial<Real> nfw = nfw_radial(x);
  const Real pi = Real(kPi);
  const Real y = x * x, t = (x - 1) * (x + 1), tau2 = tau * tau;
  const Real k = tau2 + 1, n = (tau - 1) * (tau + 1), scale = (tau / k) * (tau / k), log_scale = -2 * n / k;
  const Real s = sqrt(tau2 + y), is = 1 / s, sum = s + tau;
  const Real a = log1p((tau + tau2 / (x + s)) / x);
  const Real mu = log1p(y / (2 * tau * sum)), a_over = a / (tau * sum);
  const Real b = nfw.mean - mu / y - a_over;
  const Real w = nfw.potential + mu * (2 * a - mu - 2) - 2 * y * a_over;
  Real p, q, v, q_slope;  // P, Q, V, dQ/dy
  if (t < Real(0.25)) {
    const Real f = 1 - t * nfw.convergence;
    p = 2 * f - pi / sum;
    q = 2 * f - pi * is;
    v = 4 * y * (f - nfw.mean) + 2 * pi * (tau * mu - y / sum);
    q_slope = (nfw.convergence - f) / y + pi / 2 * is * is * is;
  } else {
    const Real rho = sqrt(t), ir = 1 / rho, angle = atan(ir);
    const Real f = (pi / 2 - angle) * ir;
    const Real together = pi * (2 * rho * tau - 1) / (rho + sum) - 2 * rho * angle;
    const Real difference = k / (s + rho) * ir * is;  // 1/ρ − 1/s
    p = (2 * f + together) / y;
    q = pi * difference - 2 * angle * ir;
    v = 4 * log(2 / x) + 2 * (pi * tau * mu + together);
    q_slope = 1 / y / t + angle * ir / t - pi / 2 * difference * (ir * ir + ir * is + is * is);
  }
  const Real a_s = a / tau * is;
  TnfwRadial<Real> r;
  r.f.mean = scale * (n * b + p);
  r.f.convergence = scale * (k * nfw.convergence + q - n * a_s);
  r.f.potential = scale * (n * w + v);
  r.f.slope = scale * (k * nfw.slope + q_slope + n / 2 * is * is * (1 / y + a_s));
  const Real both = 2 * (3 * tau2 - 1) / k;  // n d ln c/d ln τ + dn/d ln τ
  r.mean_tau = scale * (both * b + log_scale * p + n * a_s + pi * tau / sum * is);
  r.convergence_tau = scale * (2 * nfw.convergence + log_scale * (q - n * a_s) + pi * tau2 * is * is * is - k * a_s -
                               n * is * is * (1 - a * tau * is));
  r.potential_tau = scale * (both * w + log_scale * v + 2 * n * (y * a_over + mu) + 2 * pi * tau * mu);
  return r;
}

/// What every formula of the truncated halo is made of.
template <class Real>
struct TnfwFrame {
  Real radius, unit;      ///< R; 1/((1 − ln 2) Rs): mean and convergence per alpha_Rs
  TnfwRadial<Real> f;     ///< at R/Rs, r_trunc/Rs
  Real mean, difference;  ///< μ(R), κ(R) − μ(R)
};

template <class Real>
EINFIELD_HD TnfwFrame<Real> tnfw_frame(const Tnfw<Real>& lens, Vec2<Real> z) {
  TnfwFrame<Real> f;
  f.radius = sqrt(dot(z, z) + Real(kLensCore) * Real(kLensCore));
  f.unit = 1 / (Real(0.30685281944005469058) * lens.Rs);
  f.f = tnfw_radial(f.radius / lens.Rs, lens.r_trunc / lens.Rs);
  f.mean = lens.alpha_Rs * f.unit * f.f.f.mean;
  f.difference = lens.alpha_Rs * f.unit * (f.f.f.convergence / 2 - f.f.f.mean);
  return f;
}

/// ψ, α, κ, γ of a truncated NFW halo: (4) to (6) of nfw.hpp for a circle, with h_T, m_T, D_T of tnfw_radial.
///
///     ψ = (N Rs/2) h_T,   N = alpha_Rs/(1 − ln 2),   R² = |z|² + s²,   x = R/Rs,   τ = r_trunc/Rs
///     α = μ z,   μ = (N/Rs) m_T,   κ = μ + Δ |z|²/R²,   γ = Δ z²/R²,   Δ = N D_T/(2 Rs) − μ                       (4)
///
/// At the center: as the NFW halo, with ψ = α = γ = 0 up to the core s = kLensCore.
/// @param z  θ − center [arcsec]
template <class Real>
EINFIELD_HD LensValues<Real> lens_values(const Tnfw<Real>& lens, Vec2<Real> z) {
  const TnfwFrame<Real> f = tnfw_frame(lens, z);
  const Vec2<Real> nu = (1 / f.radius) * z;
  const Vec2<Real> gamma = f.difference * mul(nu, nu);
  return {lens.alpha_Rs * f.unit * lens.Rs * lens.Rs / 2 * f.f.f.potential, f.mean * z,
          f.mean + f.difference * dot(nu, nu), gamma.x, gamma.y};
}

/// Deflection alone: (4).
template <class Real>
EINFIELD_HD Vec2<Real> lens_deflection(const Tnfw<Real>& lens, Vec2<Real> z) {
  return tnfw_frame(lens, z).mean * z;
}

/// Adjoint of lens_values: adds to `z_bar` and, unless null, to `lens_bar`. (7) of nfw.hpp for a circle, with
/// derivatives by ln r_trunc (index τ) that are taken from those by ln Rs:
///     dψ = μ R² d ln R + (ψ − μ R² − ψ_τ) d ln Rs + ψ_τ d ln r_trunc
///     dμ = 2Δ d ln R − (μ + 2Δ + μ_τ) d ln Rs + μ_τ d ln r_trunc
///     dΔ = (S − 2Δ) d ln R − (S − Δ + Δ_τ) d ln Rs + Δ_τ d ln r_trunc                                           (5)
template <class Real>
EINFIELD_HD void lens_adjoint(const Tnfw<Real>& lens, Vec2<Real> z, const LensValues<Real>& bar, Vec2<Real>& z_bar,
                              Tnfw<Real>* lens_bar) {
  const TnfwFrame<Real> f = tnfw_frame(lens, z);
  const Real inverse = 1 / f.radius;
  const Vec2<Real> nu = inverse * z;
  const Vec2<Real> gamma_bar{bar.gamma1, bar.gamma2};
  const Real x = f.radius / lens.Rs;
  const Real norm = lens.alpha_Rs * f.unit;
  const Real slope = norm * f.f.f.slope * x * x;
  const Real psi_unit = f.unit * lens.Rs * lens.Rs / 2;
  const Real psi_slope = f.mean * f.radius * f.radius;

  const Real mean_bar = dot(bar.alpha, z) + bar.kappa;
  const Real difference_bar = bar.kappa * dot(nu, nu) + dot(gamma_bar, mul(nu, nu));
  const Vec2<Real> nu_bar = 2 * f.difference * (mul(gamma_bar, conj(nu)) + bar.kappa * nu);
  const Real log_r_bar =
      bar.psi * psi_slope + 2 * f.difference * mean_bar + (slope - 2 * f.difference) * difference_bar - dot(nu_bar, nu);
  z_bar += (log_r_bar * inverse) * nu + f.mean * bar.alpha + inverse * nu_bar;
  if (!lens_bar) return;
  const Real tau_bar = bar.psi * lens.alpha_Rs * psi_unit * f.f.potential_tau + mean_bar * norm * f.f.mean_tau +
                       difference_bar * norm * (f.f.convergence_tau / 2 - f.f.mean_tau);
  lens_bar->Rs += (bar.psi * (lens.alpha_Rs * psi_unit * f.f.f.potential - psi_slope) -
                   mean_bar * (f.mean + 2 * f.difference) - difference_bar * (slope - f.difference) - tau_bar) /
                  lens.Rs;
  lens_bar->alpha_Rs += bar.psi * psi_unit * f.f.f.potential +
                        f.unit * (mean_bar * f.f.f.mean + difference_bar * (f.f.f.convergence / 2 - f.f.f.mean));
  lens_bar->r_trunc += tau_bar / lens.r_trunc;
}

/// Adjoint of the deflection: that of lens_values with no other cotangent.
template <class Real>
EINFIELD_HD void lens_adjoint(const Tnfw<Real>& lens, Vec2<Real> z, Vec2<Real> alpha_bar, Vec2<Real>& z_bar,
                              Tnfw<Real>* lens_bar) {
  lens_adjoint(lens, z, LensValues<Real>{0, alpha_bar, 0, 0, 0}, z_bar, lens_bar);
}

}  // namespace einfield
