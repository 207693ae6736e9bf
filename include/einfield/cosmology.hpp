// Distances in a flat universe with matter and a cosmological constant, for masses in solar masses.
// Hogg (1999), astro-ph/9905116; Schneider, Ehlers & Falco (1992), section 2.2.
#pragma once

#include <cmath>

#include "einfield/core.hpp"

namespace EINFIELD_API einfield {

/// The redshifts of one lens and its source, and the universe between them.
struct Cosmology {
  double z_lens = 0, z_source = 0;
  double H0 = 70;    ///< [km/s/Mpc]
  double Om0 = 0.3;  ///< density of matter today, of the critical density; the rest is a cosmological constant

  /// Angular diameter distance from redshift z1 to z2 [Mpc]:
  ///
  ///     D(z1, z2) = (c/H0) ∫_z1^z2 dz/E(z) / (1 + z2),   E² = Om0 (1 + z)³ + 1 − Om0                              (1)
  ///
  /// With a = 1/(1 + z), dz/E = −da/√(Om0 a + (1 − Om0) a⁴), and with a = s² the integrand 2 ds/√(Om0 + (1 − Om0) s⁶)
  /// is smooth for all z. Simpson's rule on 200 intervals is good to 1e-10.
  double distance(double z1, double z2) const {
    constexpr int kIntervals = 200;
    constexpr double kSpeedOfLight = 299792.458;  // km/s
    const double begin = 1 / std::sqrt(1 + z2), end = 1 / std::sqrt(1 + z1), step = (end - begin) / kIntervals;
    double sum = 0;
    for (int i = 0; i <= kIntervals; ++i) {
      const double s = begin + i * step, s3 = s * s * s;
      const double weight = i == 0 || i == kIntervals ? 1 : i % 2 ? 4 : 2;
      sum += weight * 2 / std::sqrt(Om0 + (1 - Om0) * s3 * s3);
    }
    return kSpeedOfLight / H0 * sum * step / 3 / (1 + z2);
  }

  /// Mass of a convergence of 1 over one square arcsecond of the lens plane [solar masses]:
  ///
  ///     M = c²/(4πG) D_s/(D_l D_ls) · (D_l · 1″)² = c²/(4πG) (D_l D_s/D_ls) · (1″)²                                (2)
  double mass_per_square_arcsec() const {
    // c²/(4πG) in solar masses per Mpc, with GM☉ = 1.3271244e20 m³/s² and 1 Mpc = 3.0856775814913673e22 m.
    constexpr double kMassPerLength = 2.99792458e8 * 2.99792458e8 * 3.0856775814913673e22 / (4 * kPi * 1.3271244e20);
    constexpr double kArcsec = kPi / (180 * 3600);
    return kMassPerLength * distance(0, z_lens) * distance(0, z_source) / distance(z_lens, z_source) * kArcsec *
           kArcsec;
  }
};

}  // namespace einfield
