// Chooses the strength of the regularization by the χ² of pixels that are held out of the fit.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "einfield/fitter.hpp"
#include "einfield/load.hpp"

namespace einfield {

/// The factors that all weights of [regularization] are multiplied by, one fit for each; `info --keys` names them.
inline constexpr double kStrengthFactors[] = {0.01, 0.1, 1.0, 10.0};
inline constexpr int kStrengths = static_cast<int>(std::size(kStrengthFactors));

struct TriedStrength {
  double factor = 1;
  double held_out_chi2 = kInfinity;  ///< reduced χ² of the held-out pixels; infinite when the fit failed
};

/// One copy of the problem per factor; the fraction optimizer.held_out of its pixels is not fitted.
std::vector<Problem> strength_problems(const Config& config, const Problem& problem);

/// Fits strength_problems() side by side with `settings` and measures the χ² of the held-out pixels.
/// @param backend  its problems are replaced by these
/// @return         in the order of kStrengthFactors; empty when the fit was interrupted
template <class Real>
std::vector<TriedStrength> try_strengths(Backend<Real>& backend, const Config& config, const Problem& problem,
                                         FitSettings settings, const std::function<bool()>& interrupted);

/// The factor with the lowest χ²; of two equal ones the larger. 1 when the list is empty or all fits failed.
double best_strength(const std::vector<TriedStrength>& tried);

/// All weights times a factor.
Regularization scaled(Regularization weights, double factor);

}  // namespace einfield
