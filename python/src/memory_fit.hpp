// A fit that stays in memory: from a loaded problem to an assessed result, without a file.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "einfield/config.hpp"
#include "einfield/fitter.hpp"
#include "einfield/load.hpp"
#include "einfield/results.hpp"
#include "host/results/assess.hpp"

namespace einfield::python {

struct FitOptions {
  std::string backend = "auto";  ///< auto, cuda, cpu
  std::optional<int> device;     ///< CUDA device index
  int threads = 0;               ///< 0 = as many as the process may use
  bool double_precision = false;
  int log_every = 10;                               ///< steps between rows of the history
  std::string checkpoint;                           ///< directory of the checkpoint; "" = none
  std::function<bool()> interrupted;                ///< true ends the fit with the state that it has
  std::function<void(const HistoryRow&)> progress;  ///< of the first member
  std::function<void(const std::string&)> note;     ///< what follows the last stage, for people
};

/// A finished fit.
class MemoryFit {
 public:
  /// Continues from FitOptions::checkpoint where there is one, which must be of the same configuration and data.
  /// @throws InvalidInput, IoError, BackendUnavailable, CudaError; a loss that becomes NaN is a result
  MemoryFit(const Config& config, LoadedProblem loaded, const FitOptions& options);

  const Assessment& assessment() const { return *fit_; }
  int threads() const { return threads_; }
  /// result.json of this fit.
  const std::string& json() const { return json_; }

  /// Writes what `einfield fit` leaves in a directory. The configuration in it names the data in its result.fits in
  /// the place of arrays.
  /// @param figures  draw the figures and write report.html
  /// @return         warnings @throws InvalidInput for a directory that holds results unless `overwrite`; IoError
  std::vector<std::string> save(const std::string& dir, bool figures, bool overwrite) const;

 private:
  template <class Real>
  void run(const Config& config, LoadedProblem loaded, const FitOptions& options);

  std::unique_ptr<Assessment> fit_;
  RunInfo info_;
  std::string json_;
  int threads_;
};

}  // namespace einfield::python
