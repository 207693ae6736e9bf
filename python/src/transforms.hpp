// The free scalars of a model in physical ("constrained") and in unconstrained numbers: support, and how densities and
// gradients change between the two. The transforms are those of einfield/model.hpp; u is unconstrained, p physical.
#pragma once

#include <cmath>
#include <cstddef>

#include "einfield/model.hpp"

namespace einfield::python {

/// Whether p_i lies inside the range of its parameter, ends excluded.
/// @param p  all free scalars
inline bool in_support(const ParameterLayout& layout, std::size_t i, const double* p) {
  const FreeParameter<double>& f = layout.free[i];
  switch (f.kind) {
    case TransformKind::exponential:
      return p[i] > f.lower && p[i] < kInfinity;
    case TransformKind::logistic:
      return p[i] > f.lower && p[i] < f.upper;
    case TransformKind::disk: {
      const double e = p[i] / f.upper, other = f.partner < 0 ? 0 : p[f.partner] / f.upper;
      return e * e + other * other < 1;
    }
    case TransformKind::identity:
      break;
  }
  return std::isfinite(p[i]);
}

/// ln |∂p/∂u| of all free scalars:
///
///     exponential  u      logistic  ln(upper − lower) + ln σ(u) + ln σ(−u)
///     disk         alone: ln B − 3/2 ln(1 + u²);   a pair: 2 ln B − 2 ln(1 + u_i² + u_j²)                        (1)
///
/// For a pair ∂e/∂u has the factor (1 + |u|²)^(−3/2) along u and (1 + |u|²)^(−1/2) across it; each of the two
/// parameters gets half of the sum.
/// @param gradient  null, or one number per scalar to which the derivative with respect to u is added
inline double log_volume(const ParameterLayout& layout, const double* u, double* gradient) {
  double sum = 0;
  for (std::size_t i = 0; i < layout.free.size(); ++i) {
    const FreeParameter<double>& f = layout.free[i];
    double derivative = 0;
    switch (f.kind) {
      case TransformKind::exponential:
        sum += u[i];
        derivative = 1;
        break;
      case TransformKind::logistic:  // −ln(1 + e^(−u)) − ln(1 + e^u) = −|u| − 2 ln(1 + e^(−|u|))
        sum += std::log(f.upper - f.lower) - std::abs(u[i]) - 2 * std::log1p(std::exp(-std::abs(u[i])));
        derivative = -std::tanh(u[i] / 2);
        break;
      case TransformKind::disk: {
        const double other = f.partner < 0 ? 0 : u[f.partner];
        const double r2 = u[i] * u[i] + other * other;
        sum += std::log(f.upper) - (f.partner < 0 ? 1.5 : 1.0) * std::log1p(r2);
        derivative = -(f.partner < 0 ? 3.0 : 4.0) * u[i] / (1 + r2);
        break;
      }
      case TransformKind::identity:
        break;
    }
    if (gradient) gradient[i] += derivative;
  }
  return sum;
}

/// ∂f/∂p from ∂f/∂u, by the inverse of the transforms:
///
///     exponential  ∂u/∂p = 1/(p − lower)      logistic  ∂u/∂p = 1/(p − lower) + 1/(upper − p)
///     disk         with e = p/B, s = √(1 − |e|²):  ∂u_i/∂e_j = δ_ij/s + e_i e_j/s³                               (2)
///
/// @param p, of_u  physical values, and ∂f/∂u, of all free scalars
/// @return         ∂f/∂p_j
inline double constrained_gradient(const ParameterLayout& layout, std::size_t j, const double* p, const double* of_u) {
  const FreeParameter<double>& f = layout.free[j];
  switch (f.kind) {
    case TransformKind::exponential:
      return of_u[j] / (p[j] - f.lower);
    case TransformKind::logistic:
      return of_u[j] / (p[j] - f.lower) + of_u[j] / (f.upper - p[j]);
    case TransformKind::disk: {
      const double e = p[j] / f.upper, other = f.partner < 0 ? 0 : p[f.partner] / f.upper;
      const double of_partner = f.partner < 0 ? 0 : of_u[f.partner];
      const double s = std::sqrt(1 - e * e - other * other);
      return (of_u[j] / s + e * (of_u[j] * e + of_partner * other) / (s * s * s)) / f.upper;
    }
    case TransformKind::identity:
      break;
  }
  return of_u[j];
}

}  // namespace einfield::python
