// One fit from configuration to result directory: what `einfield fit` and `einfield reproduce` share.
#pragma once

#include <functional>
#include <iosfwd>
#include <optional>
#include <string>

#include "einfield/config.hpp"

namespace einfield {

/// What the command line decides about a run. Names follow the options.
struct RunOptions {
  std::string out;               ///< directory of results; must not hold results unless resume or overwrite
  std::string backend = "auto";  ///< auto, cuda, cpu
  int device = 0;
  int threads = 0;  ///< 0 = as many as the process may use
  bool double_precision = false;
  bool resume = false;
  bool overwrite = false;
  bool dry_run = false;
  int log_every = 10;
  std::ostream* log = nullptr;        ///< messages and progress; null = quiet
  std::ostream* warnings = nullptr;   ///< null = quiet
  bool terminal = false;              ///< a progress bar instead of lines
  bool figures = true;                ///< and the report
  std::string command;                ///< for the report: how the run was started, for a shell
  std::function<bool()> interrupted;  ///< asked once a step; true ends the run with a checkpoint
};

/// How a run ended; the metrics are in DIR/result.json.
struct RunOutcome {
  std::optional<StopReason> stop_reason;  ///< nothing: a dry run
  std::string message;
};

/// Reads the data, fits, writes the results.
/// @throws InvalidInput, IoError, BackendUnavailable, CudaError …; a non-finite loss is an outcome, not an exception
RunOutcome run_fit(const Config& config, const RunOptions& options);

}  // namespace einfield
