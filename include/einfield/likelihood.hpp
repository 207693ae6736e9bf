// The data term: weighted squared residuals, for the mean squared error of Biggio et al. (2021) or for χ², and their
// adjoint.
#pragma once

#include <vector>

#include "einfield/core.hpp"
#include "einfield/observation.hpp"

namespace EINFIELD_API einfield {

enum class LossKind {
  mse,   ///< mean over fitted pixels of (model − data)² [image unit²]; that of Biggio et al. (2021)
  chi2,  ///< mean over fitted pixels of ((model − data)/noise)²
};

inline constexpr Named<LossKind> kLossKinds[] = {{"mse", LossKind::mse}, {"chi2", LossKind::chi2}};
constexpr const char* name_of(LossKind loss) {
  return name_in(kLossKinds, loss);
}

/// Contribution of one pixel to the loss: w (m − d)².
/// @param weight  of pixel_weights(); 0 where masked
template <class Real>
EINFIELD_HD Real residual_loss(Real model, Real data, Real weight) {
  const Real residual = model - data;
  return weight * residual * residual;
}

/// Adjoint of residual_loss with respect to the model, for a cotangent of 1: m̄ = 2 w (m − d).
template <class Real>
EINFIELD_HD Real residual_loss_adjoint(Real model, Real data, Real weight) {
  return 2 * weight * (model - data);
}

/// The part of the variance of correlated noise that counts as independent, f in the correlation R = (1 − f) K + f 1
/// of the fitted pixels, K of NoiseCorrelation. A kernel is known to a percent, and resampling leaves hardly any noise
/// in the finest structures, where the model would otherwise have to be right to a small fraction of the noise. With R,
/// loss and reduced χ² are
///
///     rᵀ R⁻¹ r,   r_i = √w_i (m_i − d_i),   m̄_i = 2 √w_i (R⁻¹ r)_i
///
/// with w of pixel_weights(). R holds only the pixels that enter the sum, so masks of any shape are exact.
inline constexpr double kIndependentNoise = 0.01;

/// Weights of the data term, (ny, nx) each; exactly 0 for a pixel that does not enter the sum.
template <class Real>
struct PixelWeights {
  std::vector<Real> loss;      ///< mask/n (mse) or mask/(n noise²) (chi2): Σ w (m − d)² is the loss
  std::vector<Real> chi2;      ///< mask/(n noise²): Σ w (m − d)² is the reduced χ²
  std::vector<Real> held_out;  ///< 1/(n noise²) of the held-out pixels, n their number; empty when there are none
};

/// @param held_out  (ny, nx), 1 = excluded from loss and χ²; empty = none. n counts the pixels of each sum
template <class Real>
PixelWeights<Real> pixel_weights(const Observation& observation, LossKind loss,
                                 const std::vector<std::uint8_t>& held_out = {}) {
  const std::size_t n = observation.mask.size();
  const auto is_held_out = [&](std::size_t i) { return !held_out.empty() && held_out[i] != 0; };
  double fitted = 0, judged = 0;
  for (std::size_t i = 0; i < n; ++i)
    if (observation.mask[i]) (is_held_out(i) ? judged : fitted) += 1;
  PixelWeights<Real> weights{std::vector<Real>(n, Real(0)), std::vector<Real>(n, Real(0)),
                             std::vector<Real>(held_out.empty() ? 0 : n, Real(0))};
  for (std::size_t i = 0; i < n; ++i) {
    if (!observation.mask[i]) continue;
    const double variance = observation.noise[i] * observation.noise[i];
    if (is_held_out(i)) {
      weights.held_out[i] = static_cast<Real>(1 / (judged * variance));
    } else {
      weights.chi2[i] = static_cast<Real>(1 / (fitted * variance));
      weights.loss[i] = loss == LossKind::chi2 ? weights.chi2[i] : static_cast<Real>(1 / fitted);
    }
  }
  return weights;
}

}  // namespace einfield
