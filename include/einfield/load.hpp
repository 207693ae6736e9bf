// From a configuration to the problem to fit: data, masks, PSF, start values, and the settings of the fit.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "einfield/config.hpp"
#include "einfield/fitter.hpp"
#include "einfield/flags.hpp"
#include "einfield/problem.hpp"
#include "einfield/truth.hpp"

namespace EINFIELD_API einfield {

/// The problem of a configuration with its data, ready for a backend.
struct LoadedProblem {
  Problem problem;
  std::optional<Truth> truth;        ///< of simulated data
  double pixel_scale = 0;            ///< [arcsec]
  std::string unit;                  ///< BUNIT of the image; "" = unknown
  std::optional<CelestialWcs> wcs;   ///< of the image
  std::optional<double> zero_point;  ///< AB magnitude of a flux of 1 image unit; nothing = unknown
  std::vector<std::string> warnings;
  std::vector<std::string> notes;  ///< what was done with the data as the configuration says
  std::vector<RaisedFlag> flags;   ///< of the data
};

/// Reads and checks the data that a configuration names (image, noise, mask, PSF, start values, truth) and builds the
/// problem. Unusable pixels are masked with a warning.
/// @throws InvalidInput "FILE[HDU]: what was found, what is expected"
LoadedProblem load_problem(const Config& config);

/// The members of the ensemble: copies of the problem that start from different random weights. One copy if there is no
/// ensemble.
std::vector<Problem> ensemble_problems(const Config& config, const Problem& problem);

/// A random fraction optimizer.held_out of the used pixels, chosen independently for each pixel.
/// @return (ny, nx), 1 = held out
/// @throws InvalidInput if no pixel would be held out, or none fitted
std::vector<std::uint8_t> held_out_pixels(const Config& config, const Observation& observation);

/// The settings of fit() that a configuration asks for. @param log_every  steps between rows of the history
FitSettings fit_settings(const Config& config, const Model& model, int log_every);
/// Whether [optimizer] or one of its stages stops by held-out pixels.
bool holds_out(const OptimizerConfig& optimizer);

}  // namespace einfield
