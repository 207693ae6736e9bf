// The fit: stages of optimisers, stopping, history, snapshots to resume from. It knows a Backend and nothing of files
// or terminals.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "einfield/backend.hpp"

namespace EINFIELD_API einfield {

/// When to stop before all steps are done, and which state is then the result.
enum class StopRule {
  none,  ///< never; the last state (or best_of_last)
  chi2,  ///< reduced χ² has come down to `stop_chi2` (the discrepancy principle); the state that reached it, else the
         ///< last
  held_out,  ///< the χ² of the held-out pixels no longer falls; the state of its lowest value
  plateau,   ///< loss and regularisation no longer fall; the state of their lowest sum
};

/// Whether a rule has no state of its own that it takes for the best.
inline bool keeps_last(StopRule rule) {
  return rule == StopRule::none || rule == StopRule::chi2;
}

enum class OptimizerKind {
  adam,                 ///< a step is an update, on the device without a round trip to the host
  lbfgs,                ///< a step is a line search, which takes one evaluation or a few
  levenberg_marquardt,  ///< a step is a lower point; moves the scalars of profiles only, on the CPU in double, and ends
                        ///< when nothing more is gained: stop rules do not concern it
};

/// One part of a fit: an optimiser that moves some of the parameters for a while. Its memory starts empty.
struct StageSettings {
  OptimizerKind optimizer = OptimizerKind::adam;
  int steps = 200;
  Schedule schedule;               ///< learning rates and clipping are Adam's
  int memory = 20;                 ///< pairs that L-BFGS keeps
  StopRule stop = StopRule::none;  ///< ends this stage
};

/// What came of one of the starts of a fit.
struct StartRecord {
  double value = 0;         ///< loss and priors where it ended
  double chi2_reduced = 0;  ///< the same of χ²
  std::int64_t steps = 0;
  int redrawn = 0;           ///< so many draws before it had no finite value
  bool alive = false;        ///< false: this one has none either
  bool finished = false;     ///< false: given up early
  bool best = false;         ///< the fit went on from here
  std::vector<double> free;  ///< physical values of the free scalars, in layout order
};

/// A start has reached the best one when its value lies no more than this above it, relative to it.
inline constexpr double kSameValley = 1e-3;
/// Starts that have reached the best one, itself included.
inline int reached_best(const std::vector<StartRecord>& starts) {
  double best = kInfinity;
  for (const StartRecord& start : starts)
    if (start.alive && start.value < best) best = start.value;
  int n = 0;
  for (const StartRecord& start : starts) n += start.alive && start.value <= best * (1 + kSameValley);
  return n;
}

struct FitSettings {
  int steps = 200;  ///< of the one stage of Adam, with the problem's learning rates, when `stages` is empty
  StopRule stop = StopRule::none;  ///< of that stage
  std::vector<StageSettings> stages;
  int log_every = 10;
  double stop_chi2 = 1.0;
  int patience = 30;        ///< held_out, plateau: so many steps without a fall by more than `tolerance` end the stage
  double tolerance = 1e-3;  ///< relative
  int best_of_last =
      0;  ///< after all steps, where keeps_last(): the state of lowest loss among the last so many; 0 = the last
  int checkpoint_every = 0;  ///< steps between snapshots handed out; 0 = none
  int starts = 1;  ///< of a first stage of Levenberg–Marquardt: one from the initial values, the others drawn
  std::uint64_t starts_seed = 1;
  bool ensemble = false;  ///< the lenses are one problem with other weights: the starts of the first serve them all
  const std::vector<Problem>* problems = nullptr;  ///< those of the backend; for stages of Levenberg–Marquardt
  int threads = 0;  ///< of these stages and of the searches of L-BFGS; 0 = as many as the process may use
};

/// One logged evaluation. `step` steps had been made when it was taken.
struct HistoryRow {
  std::int64_t step = 0;
  double time_s = 0;  ///< wall time spent in the fit so far, earlier parts of a resumed run included
  double loss = 0;
  double chi2_reduced = 0;
  double held_out_chi2 = 0;  ///< 0 without held-out pixels
  double regularization = 0;
  double learning_rate = 0;  ///< of the update that follows; 0 with other optimisers than Adam
  double gradient_norm = 0;
  std::vector<double> free;  ///< physical values of the free scalars, in layout order
};

/// All that a lens needs to go on with the same bits.
template <class Real>
struct Snapshot {
  std::int64_t step = 0;  ///< in all stages
  int stage = 0;
  std::int64_t stage_step = 0;  ///< in this stage
  bool stage_done = false;      ///< Levenberg–Marquardt: this stage has converged
  std::int64_t evaluations = 0;
  double time_s = 0;
  std::vector<Real> parameters, first_moment, second_moment;
  std::vector<Real> memory;     ///< L-BFGS: [pairs][2][size()], oldest first: move, change of the gradient
  std::int64_t best_step = -1;  ///< of the best state of this stage so far, by its rule, or −1
  double best_value = 0;        ///< what the rule compares
  std::vector<Real> best_parameters;
  std::int64_t fall_step = 0;  ///< stage_step of the last fall by more than the tolerance
  double fall_value = 0;       ///< the value it fell to
  std::vector<StartRecord> starts;
  std::vector<HistoryRow> history;
};

template <class Real>
struct FitResult {
  std::string stop_reason;  ///< of the last stage: "steps", "chi2", "heldout", "plateau", "converged" (L-BFGS finds no
                            ///< lower point); or "interrupted", "non-finite"
  std::string message;      ///< for "non-finite": which quantity in which step
  std::int64_t steps = 0;   ///< steps done
  std::int64_t state_step = 0;   ///< steps behind the returned state
  std::int64_t evaluations = 0;  ///< of loss and gradient
  double time_s = 0;
  StepState final_state;  ///< evaluated at `parameters`
  std::vector<Real> parameters;
  Snapshot<Real> snapshot;
};

/// What the caller may watch and steer. All are optional.
template <class Real>
struct FitCallbacks {
  /// Every log_every steps, step 0 and the last one of every lens.
  std::function<void(int lens, const HistoryRow&)> progress;
  /// Every checkpoint_every steps, of states known to be finite, one per lens.
  std::function<void(const std::vector<Snapshot<Real>>&)> checkpoint;
  /// Asked once a step; true ends the fit after it.
  std::function<bool()> interrupted;
};

/// Fits all lenses of a backend side by side, each for itself, from `resume` (one per lens) or from the problems'
/// initial parameters. @throws InvalidInput for settings out of range
template <class Real>
EINFIELD_API std::vector<FitResult<Real>> fit(Backend<Real>& backend, const FitSettings& settings,
                                              const FitCallbacks<Real>& callbacks,
                                              const std::vector<Snapshot<Real>>& resume = {});

/// Learning rates of a stage of Adam: `rate` reached linearly over the first `warmup` updates, and with `cosine`
/// brought down over the rest as half a period of a cosine, to 0 behind the last update (Loshchilov & Hutter 2017, eq.
/// 5).
std::vector<double> learning_rates(double rate, int steps, int warmup, bool cosine);

/// Parameters that a list of names frees: "network", "lens", "source.0", "source.0.amp", "source.1.pixels",
/// "source.2.network"; an empty list is all of them. @throws InvalidInput naming what matches nothing that is free
std::vector<std::uint8_t> trainable(const Model& model, const std::vector<std::string>& names);

}  // namespace einfield
