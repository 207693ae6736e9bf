// Adam (Kingma & Ba 2015): the update of one parameter, called by both backends.
#pragma once

#include <cstdint>

#include "einfield/core.hpp"

namespace EINFIELD_API einfield {

inline constexpr double kAdamBeta1 = 0.9;
inline constexpr double kAdamBeta2 = 0.999;
inline constexpr double kAdamEpsilon = 1e-8;  ///< outside the root, as in optax

/// What all parameters share in one update.
template <class Real>
struct AdamStep {
  Real learning_rate;
  Real correction1;  ///< 1/(1 − β₁ᵗ)
  Real correction2;  ///< 1/(1 − β₂ᵗ)
};

/// @param update  number t of this update, from 1
template <class Real>
EINFIELD_HD AdamStep<Real> make_adam_step(double learning_rate, std::int64_t update) {
  // In double: 1 − β₂ᵗ has few digits in float at the first updates. expm1 keeps them all.
  const auto t = static_cast<double>(update);
  return {static_cast<Real>(learning_rate), static_cast<Real>(-1 / expm1(t * log(kAdamBeta1))),
          static_cast<Real>(-1 / expm1(t * log(kAdamBeta2)))};
}

/// What a gradient is multiplied by before the update, so that it is no longer than `clip_norm` (0 = as it is).
EINFIELD_HD inline double clip_factor(double clip_norm, double gradient_norm) {
  return clip_norm > 0 && gradient_norm > clip_norm ? clip_norm / gradient_norm : 1;
}

/// Kingma & Ba (2015), algorithm 1:
///
///     m ← β₁ m + (1 − β₁) g,   v ← β₂ v + (1 − β₂) g²,
///     p ← p − rate · m/(1 − β₁ᵗ) / (√(v/(1 − β₂ᵗ)) + ε)
template <class Real>
EINFIELD_HD void adam_update(const AdamStep<Real>& step, Real gradient, Real& parameter, Real& first_moment,
                             Real& second_moment) {
  first_moment = Real(kAdamBeta1) * first_moment + Real(1 - kAdamBeta1) * gradient;
  second_moment = Real(kAdamBeta2) * second_moment + Real(1 - kAdamBeta2) * gradient * gradient;
  parameter -= step.learning_rate * (first_moment * step.correction1) /
               (sqrt(second_moment * step.correction2) + Real(kAdamEpsilon));
}

}  // namespace einfield
