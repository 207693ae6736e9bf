// From a configuration to the problem that is fitted: data, masks, PSF, start values, settings of the fit.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "einfield/config.hpp"
#include "einfield/fitter.hpp"
#include "einfield/problem.hpp"
#include "einfield/truth.hpp"

namespace EINFIELD_API einfield {

/// Configuration plus its data, ready for a backend.
struct LoadedProblem {
  Problem problem;
  std::optional<Truth> truth;
  double pixel_scale = 0;
  std::string unit;                 ///< BUNIT of the image, or ""
  std::optional<CelestialWcs> wcs;  ///< of the image
  std::vector<std::string> warnings;
};

/// Reads the data that a configuration names, checks it (product rules: masks, noise, PSF), and puts the problem
/// together.
/// @throws InvalidInput "FILE[HDU]: what was found, what is expected"
LoadedProblem load_problem(const Config& config);

/// The members of the ensemble: copies of the problem with other weights to start from; one without an ensemble.
std::vector<Problem> ensemble_problems(const Config& config, const Problem& problem);

/// A share optimizer.held_out of the used pixels (ny, nx), each by a random number of its own.
/// @throws InvalidInput where it leaves nothing to fit or nothing to judge
std::vector<std::uint8_t> held_out_pixels(const Config& config, const Observation& observation);

/// What the library's fit() needs to know of a configuration. @param log_every  steps between rows of the history
FitSettings fit_settings(const Config& config, const Model& model, int log_every);
/// Whether a stage stops by pixels that are held out.
bool holds_out(const OptimizerConfig& optimizer);

}  // namespace einfield
