// How strong the regularisation should be, by pixels that do not take part in a fit.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "einfield/fitter.hpp"
#include "einfield/load.hpp"

namespace einfield {

/// Factors that are tried on all weights of [regularization]; `info --keys` names them.
inline constexpr double kStrengthFactors[] = {0.01, 0.1, 1.0, 10.0};
inline constexpr int kStrengths = static_cast<int>(std::size(kStrengthFactors));

struct TriedStrength {
  double factor = 1;
  double held_out_chi2 = kInfinity;  ///< reduced, of the held-out pixels; infinite where the fit went wrong
};

/// The problem, one for each factor; a share optimizer.held_out of its pixels is not fitted.
std::vector<Problem> strength_problems(const Config& config, const Problem& problem);

/// Fits strength_problems() side by side as `settings` say and judges what comes out.
/// @param backend  of its own: it holds these problems afterwards
/// @return         in the order of kStrengthFactors; empty when the fit was interrupted
template <class Real>
std::vector<TriedStrength> try_strengths(Backend<Real>& backend, const Config& config, const Problem& problem,
                                         FitSettings settings, const std::function<bool()>& interrupted);

/// The factor of the lowest χ², the stronger of two alike; 1 without any or when all went wrong.
double best_strength(const std::vector<TriedStrength>& tried);

/// All weights times a factor.
Regularization scaled(Regularization weights, double factor);

}  // namespace einfield
