// Amplitudes, in which the brightness is linear: their ranges and priors in the least-squares problem that solves for
// them (variable projection: Golub & Pereyra 1973). On host and device.
#pragma once

#include "einfield/core.hpp"
#include "einfield/least_squares.hpp"
#include "einfield/model.hpp"

namespace EINFIELD_API einfield {

/// An amplitude with bounds stays this fraction of their range away from both ends, where its unconstrained value
/// diverges.
inline constexpr double kAmplitudeMargin = 1e-6;
/// Smallest amplitude of a component, as a fraction of the data: 0 has no logarithm.
inline constexpr double kNoAmplitude = 1e-12;

/// The range of an amplitude and its Gaussian prior.
struct Amplitude {
  TransformKind kind;
  double lower, upper;  ///< of the transform
  double prior_weight;  ///< of the prior in the loss, 1/fitted_pixels; 0 = no prior
  double mean, sigma;   ///< of the prior
};

/// ½ cᵀNc − bᵀc of the data, with N = XᵀX and b = Xᵀt, gets the priors' terms and the bounds:
///
///     N_ii += w/σ_i²,   b_i += w mean_i/σ_i²                                                                    (1)
///
/// A positive amplitude stays above the fraction kNoAmplitude of what |t| would explain.
/// @param norm    |t|, t the weighted data that the amplitudes explain
/// @param normal  N (n, n), added to
/// @param right   b, added to
/// @param lower, upper  written
/// @return false, and nothing else is of use, when a number of the data is not finite
EINFIELD_HD inline bool bound_amplitudes(const Amplitude* amplitudes, int n, double norm, double* normal, double* right,
                                         double* lower, double* upper) {
  bool finite = isfinite(norm);
  for (int i = 0; i < n; ++i) finite = finite && isfinite(normal[i * n + i]) && isfinite(right[i]);
  if (!finite) return false;
  for (int i = 0; i < n; ++i) {
    const Amplitude& a = amplitudes[i];
    double& diagonal = normal[i * n + i];
    lower[i] = -kInfinity;
    upper[i] = kInfinity;
    if (a.kind == TransformKind::exponential) {
      const double scale = norm < kNoAmplitude ? kNoAmplitude : norm;
      lower[i] = a.lower + (diagonal > 0 ? kNoAmplitude * scale / sqrt(diagonal) : 1);
    }
    if (a.kind == TransformKind::logistic) {
      lower[i] = a.lower + kAmplitudeMargin * (a.upper - a.lower);
      upper[i] = a.upper - kAmplitudeMargin * (a.upper - a.lower);
    }
    if (a.prior_weight == 0) continue;
    diagonal += a.prior_weight / (a.sigma * a.sigma);
    right[i] += a.prior_weight * a.mean / (a.sigma * a.sigma);
  }
  return true;
}

}  // namespace einfield
