// The experiments of Biggio et al. (2021) from scratch: simulates, fits, draws figures 2 to 11 of the paper, and
// compares the numbers with those of the paper's own method in JAX.
#pragma once

#include <string>
#include <vector>

#include "einfield/config.hpp"
#include "host/app/run.hpp"

namespace einfield {

struct ReproduceOptions {
  std::string out;                ///< directory; experiments that it already contains are an error unless run.overwrite
  std::vector<std::string> only;  ///< of sie_noisy, shear_noisy, sie_noiseless, sie_overfit; empty = all
  RunOptions run;                 ///< `out` and `resume` are not used
  std::vector<Override> settings;  ///< overrides for every configuration
};

/// Runs the experiments into OUT/<experiment>/ (other network seeds and earlier states: OUT/<experiment>_…/), then
/// writes OUT/figure_02.png … figure_11.png, OUT/table.csv and OUT/README.md for all experiments that are complete in
/// OUT.
/// @return the outcome of the last run; after a run that was interrupted or became non-finite, no other starts
/// @throws InvalidInput, IoError, BackendUnavailable, CudaError …
RunOutcome reproduce(const ReproduceOptions& options);

}  // namespace einfield
