// One fit between its configuration and its files: loaded, planned, fitted, assessed. `einfield fit` writes what comes
// out of it into a directory, `einfield batch` into the row of a table.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "einfield/backend.hpp"
#include "einfield/results.hpp"
#include "host/app/run.hpp"
#include "host/app/run_log.hpp"
#include "host/app/run_plan.hpp"
#include "host/results/assess.hpp"
#include "host/results/checkpoint.hpp"

namespace einfield {

template <class Real>
class FitRun {
 public:
  /// Reads and checks everything, plans the memory, and says so in the log. The configuration, the options and the log
  /// must outlive the run.
  /// @throws InvalidInput, BackendUnavailable, OutOfMemory
  FitRun(const Config& config, const RunOptions& options, Log& log);

  /// Gives the backend its memory. @throws OutOfMemory, CudaError
  void load();
  /// Fits, from the beginning or from a checkpoint.
  /// @param checkpoint  called with finite states every optimizer.checkpoint_every steps
  /// @return false when it was interrupted
  bool fit(const std::optional<Checkpoint<Real>>& resume,
           const std::function<void(const std::vector<Snapshot<Real>>&)>& checkpoint);
  /// Everything that is computed from the fit, once. @throws InterruptedMembers during randomized error bars
  Assessment assess();

  /// Whether anything is fitted.
  bool free() const { return ParameterLayout(loaded_.problem.model).size() > 0; }
  /// After fit(): what it would continue from.
  std::vector<Snapshot<Real>> snapshots() const;

  const LoadedProblem& loaded() const { return loaded_; }
  const Backend<Real>& backend() const { return *backend_; }
  const MemoryPlan& plan() const { return plan_; }
  /// After fit(): those of the members.
  const std::vector<FitResult<Real>>& results() const { return results_; }
  RunInfo info() const;

 private:
  const Config& config_;
  const RunOptions& options_;
  Log& log_;
  LoadedProblem loaded_;
  std::unique_ptr<Backend<Real>> backend_;
  FitSettings settings_;
  MemoryPlan plan_;
  std::vector<FitResult<Real>> results_;  ///< in units_of() the problem
};

}  // namespace einfield
