// Tolerances of the tests of per-ray physics, each with the reason of its value. Nobody widens one to make a test pass.
#pragma once

#include <limits>

namespace einfield::tolerance {

template <class Real>
inline constexpr double kEpsilon = static_cast<double>(std::numeric_limits<Real>::epsilon());

/// Central differences in double, of the largest component, both in units of their step: with h = ε^{1/3} = 6e-6 they
/// err by h² f‴/6 + ε f/h, 1e-11 to 1e-8 for functions whose derivatives grow by a factor of ten or so with each order
/// (scales are chosen so). The project's bound for a gradient; a wrong or missing term is wrong by 1e-3 and more.
inline constexpr double kDifference = 1e-7;

/// Central differences across a kink, where the second derivatives on its sides differ: h f″ remains.
inline constexpr double kKinkDifference = 1e-4;

/// Two ways through the same formula in double, of the largest component: a few dozen roundings.
inline constexpr double kSameFormula = 64 * kEpsilon<double>;

/// An independent formula in double: about a hundred roundings, and it cancels where ours does not (atan and atanh near
/// q = 1 or q = 0), by which the tests divide.
inline constexpr double kIndependentFormula = 1e-13;

/// Single against double precision on the same (rounded) input, of the largest component: the project's bound. About a
/// hundred roundings of 6e-8 each; the closed slope of the arctangent loses a factor 8 above |ε| = 1/16.
inline constexpr double kSingle = 1e-5;

/// Our values against lenstronomy's and JAX's in double, of the largest value of the array: both are good to a few
/// roundings. The project's bound.
inline constexpr double kReference = 1e-12;

/// Our closed forms against a one-sided difference of step 1e-10, with which lenstronomy makes some of its κ and γ: the
/// rounding of θ and α, several 1e-16, over the step.
inline constexpr double kNumericalHessian = 2e-4;

/// The shear of an SIE with its core of 1e-10 arcsec against the formula without: 2 s/r with r ≥ 0.03 arcsec on the
/// grids used, and 1/(1 − |e|) more.
inline constexpr double kWithoutCore = 2e-8;

/// A rotation by cos and sin, twice, on top of two evaluations.
inline constexpr double kCovariance = 1e-12;

/// Expected order of a Taylor remainder is 2; h³ terms and rounding leave this much at the steps used.
inline constexpr double kTaylorOrder = 0.1;

}  // namespace einfield::tolerance
