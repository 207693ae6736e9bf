// `einfield detect`: the fit, the search for a perturber around it, and their files.
#pragma once

#include "einfield/config.hpp"
#include "host/app/run.hpp"
#include "host/detect/detection.hpp"

namespace einfield {

/// The directory of a finished fit, and the configuration that it was made with.
struct FinishedFit {
  std::string dir;
  Config config;
  bool double_precision = false;
};
/// @throws InvalidInput when the directory holds no finished fit or no checkpoint
FinishedFit finished_fit(const std::string& dir);

/// Fits the lens of a configuration into OUT/fit, unless an earlier run has, and searches for a perturber. Writes
/// detect.json, detect.fits and figures/detect.png into OUT, and a section into the page of the fit; mocks.json keeps
/// the mocks for --resume.
/// @throws InvalidInput for a fit without free source pixels or without Gauss–Newton; otherwise as run_fit()
RunOutcome run_detect(const Config& config, const RunOptions& options, const DetectionSettings& settings);

/// The same around a fit that is there already; its files stay, except for the page.
RunOutcome run_detect(const FinishedFit& fit, RunOptions options, const DetectionSettings& settings);

}  // namespace einfield
