// A Gaussian random field of the lensing potential: missing mass without a profile, as the sum of many
// line-of-sight halos and subhalos (Vernardos & Koopmans 2022; Galan et al. 2022).
#pragma once

#include <cstdint>
#include <vector>

#include "einfield/config.hpp"
#include "host/cpu/thread_pool.hpp"
#include "host/fields/lens_fields.hpp"

namespace einfield {

/// A finite sum of plane waves with the power spectrum P(k) ∝ k^(−slope), so ψ, α and κ are exact at any position:
///
///     ψ(θ) = Σ_k a_k cos(k·θ + φ_k),   α = −Σ_k k a_k sin(k·θ + φ_k),   κ = −½ Σ_k |k|² a_k cos(k·θ + φ_k)
///
/// with k = 2π n/side for all integer n, 1 ≤ |n| ≤ 32, half of them (the other half are the same waves); a_k is
/// Rayleigh distributed with ⟨a_k²⟩ = 2 variance k^(−slope)/Σ k^(−slope) and φ_k uniform: ψ at a point has a normal
/// distribution with the variance of the configuration.
class RandomField {
 public:
  /// @param side  longest wave, the larger side of the image [arcsec]
  RandomField(const RandomFieldConfig& config, double side);

  /// @param theta  2 × n, all x, then all y [arcsec]
  LensFields fields(const std::vector<double>& theta, ThreadPool& pool) const;

 private:
  struct Wave {
    double kx, ky, amplitude, phase;
  };
  std::vector<Wave> waves_;
};

}  // namespace einfield
