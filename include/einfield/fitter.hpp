// The fit: steps, stopping, history, snapshots to resume from. It knows a Backend and nothing of files or terminals.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "einfield/backend.hpp"

namespace einfield {

/// When to stop before all steps are done.
enum class StopRule {
  none,
  chi2,  ///< reduced χ² has reached `stop_chi2` (the discrepancy principle)
};

struct FitSettings {
  int steps = 200;
  int log_every = 10;
  StopRule stop = StopRule::none;
  double stop_chi2 = 1.0;
  int best_of_last = 0;      ///< return the state of lowest loss among the last so many; 0 = the last state
  int checkpoint_every = 0;  ///< steps between snapshots handed out; 0 = none
};

/// One logged evaluation. `step` updates had been made when it was taken.
struct HistoryRow {
  std::int64_t step = 0;
  double time_s = 0;  ///< wall time spent in the fit so far, earlier parts of a resumed run included
  double loss = 0;
  double chi2_reduced = 0;
  double regularization = 0;
  double learning_rate = 0;  ///< of the step that follows
  double gradient_norm = 0;
  std::vector<double> free;  ///< physical values of the free scalars, in layout order
};

/// All that a run needs to continue with the same bits.
template <class Real>
struct Snapshot {
  std::int64_t step = 0;
  double time_s = 0;
  std::vector<Real> parameters, first_moment, second_moment;
  std::int64_t best_step = -1;  ///< of the best state so far (best_of_last), or −1
  double best_loss = 0;
  std::vector<Real> best_parameters;
  std::vector<HistoryRow> history;
};

template <class Real>
struct FitResult {
  std::string stop_reason;  ///< "steps", "chi2", "interrupted", "non-finite"
  std::string message;      ///< for "non-finite": which quantity in which step
  std::int64_t steps = 0;   ///< updates done
  std::int64_t state_step = 0;  ///< updates behind the returned state (differs with best_of_last)
  double time_s = 0;
  StepState final_state;  ///< evaluated at `snapshot.parameters`, or at the best ones with best_of_last
  std::vector<Real> parameters;
  Snapshot<Real> snapshot;
};

/// What the caller may watch and steer. All are optional.
template <class Real>
struct FitCallbacks {
  std::function<void(const HistoryRow&)> progress;           ///< every log_every steps, row 0 and the last
  std::function<void(const Snapshot<Real>&)> checkpoint;     ///< every checkpoint_every steps, of states known to be finite
  std::function<bool()> interrupted;                         ///< asked once a step; true ends the fit after it
};

/// Runs one lens from `resume` (or from the problem's initial parameters). The backend must hold exactly one lens.
template <class Real>
FitResult<Real> fit(Backend<Real>& backend, const FitSettings& settings, const FitCallbacks<Real>& callbacks,
                    const Snapshot<Real>* resume = nullptr);

}  // namespace einfield
