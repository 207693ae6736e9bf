// Writes a finished fit into its directory, for all commands that fit.
#pragma once

#include "einfield/results.hpp"
#include "host/app/run.hpp"
#include "host/app/run_log.hpp"
#include "host/results/assess.hpp"

namespace einfield {

/// Result files, coolest.json and, with options.figures, figures and report into options.out, which must exist; then
/// what the fit found, into the log.
/// @return the verdict, and why the fit has failed @throws IoError
RunOutcome write_fit(Log& log, const Assessment& fitted, const RunInfo& info, const RunOptions& options);

}  // namespace einfield
