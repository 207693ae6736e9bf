// One fit, from configuration to directory of results: shared by `einfield fit` and `einfield reproduce`.
#pragma once

#include <functional>
#include <iosfwd>
#include <optional>
#include <string>

#include "einfield/config.hpp"
#include "einfield/flags.hpp"

namespace einfield {

/// The options of the command line. Names follow the options.
struct RunOptions {
  std::string out;               ///< directory of results; must not hold results unless resume or overwrite
  std::string backend = "auto";  ///< auto, cuda, cpu
  std::optional<int> device;     ///< CUDA device index; without one, the first usable device
  int threads = 0;               ///< 0 = as many as the process may use
  bool double_precision = false;
  bool resume = false;
  bool overwrite = false;
  bool dry_run = false;
  int log_every = 10;
  std::ostream* log = nullptr;        ///< messages and progress; null = quiet
  std::ostream* warnings = nullptr;   ///< null = quiet
  bool terminal = false;              ///< a progress bar instead of lines
  bool figures = true;                ///< draw the figures and write the report
  std::string command;                ///< shell command that started the run, for the report
  std::function<bool()> interrupted;  ///< called once per step; true ends the run with a checkpoint
};

/// How a run ended; the metrics are in DIR/result.json.
struct RunOutcome {
  std::optional<StopReason> stop_reason;  ///< nothing: a dry run
  std::string message;                    ///< why the status is `failed`
  FitStatus status = FitStatus::ok;
};

/// Refuses a directory of results that would be overwritten, and a file of this name.
/// @throws InvalidInput "--out: …"
void refuse_results(const RunOptions& options);

/// Reads the data, fits, writes the results.
/// @throws InvalidInput, IoError, BackendUnavailable, CudaError …; a non-finite loss is an outcome, not an exception
RunOutcome run_fit(const Config& config, const RunOptions& options);

}  // namespace einfield
