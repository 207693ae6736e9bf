// One way to explain an image: a lens without a network, with everything free refitted by Gauss–Newton on one footing:
// the same source grid and the same prior of the source.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "einfield/fitter.hpp"
#include "einfield/problem.hpp"
#include "host/cpu/thread_pool.hpp"

namespace einfield {

/// A fitted lens, in the units of its problem.
struct Explanation {
  std::string name;         ///< "smooth lens", "SIS" …
  Problem problem;          ///< with the weights and the variance of the source's prior that the fit ended with
  std::vector<double> x;    ///< flat
  Model model;              ///< the same as values
  double chi2 = 0;          ///< Σ of squared residuals
  double log_evidence = 0;  ///< NaN where a parameter has neither data nor a prior
  int steps = 0;
  bool converged = false;

  /// @param sigma  1 σ of the free profile parameters in layout order, source and others marginalized; empty if unknown
  std::vector<double> sigma;
};

/// What a fit of an explanation may do besides moving parameters.
struct ExplanationSettings {
  int steps = 40;
  double tolerance = 1e-4;      ///< of GaussNewtonSettings: differences of ln evidence are good to one
  double source_contrast = 1;   ///< 1: the variance of the source's prior stays as in the problem
  bool choose_weights = false;  ///< by evidence; false: the weights stay as in the problem
  bool errors = false;          ///< sigma
};

/// Thrown when the caller ends a fit.
struct InterruptedDetection {};

/// Fits a problem from its initial parameters. @param interrupted  asked before every step
Explanation explain(const std::string& name, Problem problem, const ExplanationSettings& settings, ThreadPool& pool,
                    const std::function<bool()>& interrupted);

/// The problem of an explanation with more lens components, which starts where the explanation ended.
Problem with_lenses(const Explanation& from, const std::vector<LensComponent>& added);

/// What an explanation predicts for every pixel, also for those that it was not fitted to.
std::vector<double> image_of(const Explanation& explanation);

/// Data that an explanation without further structure would give: its image with noise drawn as the problem says.
/// @param added   lens components that the data have and the explanation lacks
/// @param stream  another number, another draw
Problem mock_of(const Explanation& from, const std::vector<LensComponent>& added, std::uint64_t seed,
                std::uint64_t stream);

}  // namespace einfield
