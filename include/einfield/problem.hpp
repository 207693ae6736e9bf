// What is fitted: one lens system with its model, data, loss, penalties and starting parameters.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "einfield/likelihood.hpp"
#include "einfield/model.hpp"
#include "einfield/observation.hpp"
#include "einfield/regularization.hpp"

namespace EINFIELD_API einfield {

/// Everything a backend needs to know about one system.
struct Problem {
  Model model;
  Observation observation;
  LossKind loss = LossKind::mse;
  NetworkMath network_math = NetworkMath::fp32;  ///< of Model::network; another one needs CUDA and single precision
  Regularization regularization;
  /// Two parts of the priors that Gauss–Newton, the evidence and error bars have and other optimizers ignore: the
  /// variance of the prior of each free pixel of the source, relative to others (empty = 1); and whether the network
  /// leaves to the smooth lens what the moving parameters of the lens can do.
  std::vector<double> source_variance;
  bool network_off_lens = false;
  std::vector<double> initial_parameters;  ///< flat, ParameterLayout of `model`
  std::vector<std::uint8_t> held_out;      ///< (ny, nx), 1 = not fitted; the χ² of these pixels measures how well the
                                           ///< fit predicts them. Empty = none
};

/// Number of pixels that enter the loss. The Gaussian priors of the model's parameters are added to it as
///
///     Σ ((p − mean)/sigma)² / fitted_pixels                                                                     (1)
///
/// With LossKind::chi2 the sum of both is therefore −2 ln(posterior) / fitted_pixels, up to a constant.
inline int fitted_pixels(const Problem& problem) {
  int n = 0;
  for (std::size_t i = 0; i < problem.observation.mask.size(); ++i)
    n += problem.observation.mask[i] != 0 && (problem.held_out.empty() || problem.held_out[i] == 0);
  return n;
}

/// Checks problems for one backend: each by itself, and that all have one shape (grid, kinds of components, free
/// parameters, network, loss). @throws InvalidInput
void validate_problems(const std::vector<Problem>& problems);

}  // namespace einfield
