// Adam (Kingma & Ba 2015): whether an update is made, and the update of one parameter. Both backends call these
// functions.
#pragma once

#include <cstdint>

#include "einfield/core.hpp"

namespace EINFIELD_API einfield {

inline constexpr double kAdamBeta1 = 0.9;
inline constexpr double kAdamBeta2 = 0.999;
inline constexpr double kAdamEpsilon = 1e-8;  ///< added outside the square root, as in optax

/// Scalars of the last evaluation of one system, at the parameters *before* the update of the step. The unit of `loss`
/// and `regularization` is that of LossKind: image unit² for mse, 1 for chi2.
struct StepState {
  double loss = 0;            ///< data term of the fitted pixels, without regularization
  double chi2_reduced = 0;    ///< mean over the fitted pixels of ((model − data)/noise)²
  double held_out_chi2 = 0;   ///< the same mean over the held-out pixels; 0 when there are none
  double regularization = 0;  ///< sum of the weighted penalties, Gaussian priors included
  double gradient_norm = 0;   ///< Euclidean norm of the gradient; 0 when no gradient was computed
  double learning_rate = 0;   ///< of the update that follows the evaluation
  std::int64_t updates = 0;   ///< Adam updates done so far
  std::int64_t bad_step = 0;  ///< the first update (from 1) that was refused for a non-finite number, or 0. From then
                              ///< on no step moves the parameters: they stay the last good state
  bool bad_loss = false;      ///< with bad_step: whether the loss was not finite; otherwise the gradient was not
};

EINFIELD_HD inline bool has_finite_loss(const StepState& state) {
  return isfinite(state.loss) && isfinite(state.regularization);
}
EINFIELD_HD inline bool is_finite(const StepState& state) {
  return has_finite_loss(state) && isfinite(state.gradient_norm);
}

/// Marks the next update as refused when the evaluation is not finite; an earlier mark stays.
EINFIELD_HD inline void refuse_non_finite(StepState& state) {
  if (state.bad_step != 0 || is_finite(state)) return;
  state.bad_step = state.updates + 1;
  state.bad_loss = !has_finite_loss(state);
}

/// Learning rate of the update that follows `updates` updates: one rate per update, then the last one.
/// @param count  number of rates, at least 1
EINFIELD_HD inline double rate_after(const double* rates, std::int64_t count, std::int64_t updates) {
  return rates[updates < count ? updates : count - 1];
}

/// Decides on the update that follows an evaluation. When it is made, sets its learning rate and counts it.
/// @return whether the parameters move
EINFIELD_HD inline bool decide_update(StepState& state, const double* rates, std::int64_t count) {
  refuse_non_finite(state);
  if (state.bad_step != 0) return false;
  state.learning_rate = rate_after(rates, count, state.updates);
  ++state.updates;
  return true;
}

/// The factors that all parameters share in one update.
template <class Real>
struct AdamStep {
  Real learning_rate;
  Real correction1;  ///< 1/(1 − β₁ᵗ)
  Real correction2;  ///< 1/(1 − β₂ᵗ)
};

/// @param update  number t of this update, from 1
template <class Real>
EINFIELD_HD AdamStep<Real> make_adam_step(double learning_rate, std::int64_t update) {
  // In double and with expm1: in the first updates 1 − β₂ᵗ would lose most of its digits in single precision.
  const auto t = static_cast<double>(update);
  return {static_cast<Real>(learning_rate), static_cast<Real>(-1 / expm1(t * log(kAdamBeta1))),
          static_cast<Real>(-1 / expm1(t * log(kAdamBeta2)))};
}

/// Factor of the gradient before the update that limits its norm to `clip_norm`; 0 = no limit.
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
