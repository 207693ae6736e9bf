// `einfield detect`: the fit, the search for a perturber around it, and their files.
#pragma once

#include "einfield/config.hpp"
#include "host/app/run.hpp"
#include "host/detect/detection.hpp"

namespace einfield {

/// Fits the lens of a configuration into OUT/fit, unless an earlier run has, and searches for a perturber. Writes
/// detect.json, detect.fits and figures/detect.png into OUT; mocks.json keeps the mocks for --resume.
/// @throws InvalidInput for a fit without free source pixels or without Gauss–Newton; otherwise as run_fit()
RunOutcome run_detect(const Config& config, const RunOptions& options, const DetectionSettings& settings);

}  // namespace einfield
