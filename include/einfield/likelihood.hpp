// The data term: weighted squared residuals of the paper's mean squared error or of χ², and their adjoint.
#pragma once

#include <vector>

#include "einfield/core.hpp"
#include "einfield/observation.hpp"

namespace einfield {

enum class LossKind {
  mse,   ///< mean over used pixels of (model − data)²: the paper's
  chi2,  ///< mean over used pixels of ((model − data)/noise)²
};

/// A pixel's share of the loss: w (m − d)².
/// @param weight  of pixel_weights(); 0 where masked
template <class Real>
EINFIELD_HD Real residual_loss(Real model, Real data, Real weight) {
  const Real residual = model - data;
  return weight * residual * residual;
}

/// Adjoint of residual_loss with respect to the model for a cotangent of 1: m̄ = 2 w (m − d).
template <class Real>
EINFIELD_HD Real residual_loss_adjoint(Real model, Real data, Real weight) {
  return 2 * weight * (model - data);
}

/// Weights that make Σ w (m − d)² the loss: mask/n_used (mse) or mask/(n_used noise²) (chi2).
/// @return (ny, nx); a masked pixel has exactly 0
template <class Real>
std::vector<Real> pixel_weights(const Observation& observation, LossKind loss) {
  const double n_used = observation.n_used();
  std::vector<Real> weights(observation.mask.size(), Real(0));
  for (std::size_t i = 0; i < weights.size(); ++i) {
    if (!observation.mask[i]) continue;
    const double sigma = observation.noise[i];
    weights[i] = static_cast<Real>(loss == LossKind::chi2 ? 1 / (n_used * sigma * sigma) : 1 / n_used);
  }
  return weights;
}

}  // namespace einfield
