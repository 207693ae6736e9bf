// What is fitted to what: one lens system with its data, its loss, its penalties and the parameters it starts from.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "einfield/likelihood.hpp"
#include "einfield/model.hpp"
#include "einfield/observation.hpp"
#include "einfield/regularization.hpp"

namespace EINFIELD_API einfield {

/// Everything a backend needs to know about one lens.
struct Problem {
  Model model;
  Observation observation;
  LossKind loss = LossKind::mse;
  NetworkMath network_math = NetworkMath::fp32;  ///< of Model::network; another one needs CUDA and single precision
  Regularization regularization;
  std::vector<double> initial_parameters;  ///< flat, ParameterLayout of `model`
  std::vector<double>
      learning_rates;  ///< one per update; a later update uses the last (Backend::begin() replaces them)
  std::vector<std::uint8_t> held_out;  ///< (ny, nx), 1 = not fitted: its χ² judges the fit. Empty = none
};

/// Number of pixels that enter the loss. The Gaussian priors of the model's parameters enter it as
///
///     Σ ((p − mean)/sigma)² / fitted_pixels                                                                     (1)
///
/// so that with LossKind::chi2 the sum of both is −2 ln(posterior) / fitted_pixels, up to a constant.
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
