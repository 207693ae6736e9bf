// The memory that a fit needs on the host beside that of its backend, shown and checked before the run.
#pragma once

#include "einfield/fitter.hpp"

namespace einfield {

/// Bytes of problems, snapshots, the searches of L-BFGS and the model behind Levenberg–Marquardt and the uncertainties.
/// In double: no product overflows.
/// @param problem  one of `systems` problems of one size
template <class Real>
double planned_host_bytes(const Problem& problem, int systems, const FitSettings& settings);

/// Largest number of pairs that a stage of L-BFGS keeps; 0 without such a stage.
int most_pairs(const FitSettings& settings);

}  // namespace einfield
