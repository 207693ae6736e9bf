// The fit: stages of optimizers, stop rules, history, and snapshots to resume from. It works on a Backend and does not
// deal with files or terminals.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "einfield/backend.hpp"

namespace EINFIELD_API einfield {

/// One part of a fit: an optimizer that moves some or all of the parameters. It starts without memory of earlier
/// stages.
struct StageSettings {
  OptimizerKind optimizer = OptimizerKind::adam;
  int steps = 200;
  Schedule schedule;               ///< learning rates and clipping apply to Adam, `trainable` to every optimizer
  int memory = 20;                 ///< pairs of moves and gradient changes that L-BFGS keeps
  StopRule stop = StopRule::none;  ///< when this stage ends early
  /// Levenberg–Marquardt only. Number of starts; 0 = FitSettings::starts in the first stage, one in the others.
  int starts = 0;
  /// Levenberg–Marquardt only. The stage begins from this number of ends of the starts of an earlier stage: the lowest
  /// one of each valley, the lowest valleys first. 0 and 1 = the lowest one only.
  int valleys = 0;
  /// Levenberg–Marquardt only. Pixels whose distance from the largest lens lies between these multiples of its start
  /// value of theta_E are not fitted in this stage. Both 0 = all pixels are fitted.
  double leave_out_inner = 0, leave_out_outer = 0;
  bool leaves_out() const { return leave_out_outer > leave_out_inner; }
};

/// How far the starts of a stage are.
struct StartsProgress {
  int stage = 0;             ///< from 0
  int ended = 0, count = 0;  ///< starts that have converged, were given up or have made all steps, and all
  double chi2_reduced = 0;   ///< lowest so far
};

/// How a stage ended.
struct StageEnd {
  StopReason reason = StopReason::steps;
  std::int64_t steps = 0;
};

/// Outcome of one of several starts of a fit.
struct StartRecord {
  double value = 0;          ///< loss and penalty of the priors where the start ended
  double chi2_reduced = 0;   ///< reduced χ² where the start ended
  std::int64_t steps = 0;    ///< steps of this start
  int redrawn = 0;           ///< number of rejected draws (non-finite value) before this one
  bool alive = false;        ///< whether its value is finite
  bool finished = false;     ///< false: given up early, because others were better
  bool best = false;         ///< whether the fit continued from this start
  std::vector<double> free;  ///< physical values of the free scalars where it ended, in layout order
};

/// A start has reached the best one when its value exceeds the best value by no more than this fraction.
inline constexpr double kSameValley = 1e-3;
/// Number of starts that have reached the best one, itself included.
inline int reached_best(const std::vector<StartRecord>& starts) {
  double best = kInfinity;
  for (const StartRecord& start : starts)
    if (start.alive && start.value < best) best = start.value;
  int n = 0;
  for (const StartRecord& start : starts) n += start.alive && start.value <= best * (1 + kSameValley);
  return n;
}

/// How well a model explains the data: ln p(data | model, weights of the penalties), in the Gaussian approximation at
/// the fitted parameters (Laplace; Suyu et al. 2006, section 3), with the quadratic penalties as priors. Differences
/// between models of the same data count; penalties on negative convergences take no part. With a source_variance the
/// prior of the source has seen the data, which raises the evidence: compare fits of one source_contrast only.
struct Evidence {
  double log_evidence = 0;              ///< the sum of the four numbers that follow
  double misfit = 0;                    ///< −½ (χ² + quadratic penalties + priors)
  double log_prior = 0;                 ///< ½ ln det of the priors' precision
  double log_posterior = 0;             ///< −½ ln det of the posterior's precision
  double constant = 0;                  ///< normalization of the noise and of the priors of profile parameters
  double determined_source = 0;         ///< number of source parameters that the data determine against their prior
  double determined_network = 0;        ///< likewise of the network
  Regularization weights;               ///< of the penalties: as given, or those of highest evidence; as in Problem
  std::vector<double> source_variance;  ///< as in Problem
  /// log_evidence of the same fit without the network; nothing where there is none, or where weights are given. By how
  /// much the network raises it says whether the data ask for one.
  std::optional<double> without_network;
  std::optional<double> network_gain() const {
    return without_network ? std::optional(log_evidence - *without_network) : std::nullopt;
  }
};

/// Settings of fit().
struct FitSettings {
  std::vector<StageSettings> stages = {StageSettings{}};  ///< one after the other; at least one
  int log_every = 10;                                     ///< steps between rows of the history
  double stop_chi2 = 1.0;                                 ///< reduced χ² at which StopRule::chi2 ends a stage
  /// StopRule::held_out and plateau: the stage ends after this number of steps in which the value that the rule watches
  /// has not fallen by more than the fraction `tolerance`.
  int patience = 30;
  double tolerance = 1e-3;
  /// When all steps of the last stage are done and keeps_last() holds for its rule: the result is the state of lowest
  /// loss among this number of last steps. 0 = the last state.
  int best_of_last = 0;
  int checkpoint_every = 0;  ///< steps between calls of FitCallbacks::checkpoint; 0 = none
  int starts = 1;  ///< of a first stage of Levenberg–Marquardt: one start from the initial values, the others drawn
  std::uint64_t starts_seed = 1;  ///< of the random numbers of the drawn starts
  bool ensemble = false;  ///< the systems are one problem with different initial weights: they share the starts of the
                          ///< first
  int threads = 0;        ///< of Levenberg–Marquardt and Gauss–Newton; 0 = all that the process may use
  double source_contrast = 1;   ///< Gauss–Newton: by how much the prior's σ of bright and dark source pixels differs
  bool choose_weights = false;  ///< Gauss–Newton replaces the weights > 0 of the quadratic penalties by those of
                                ///< highest evidence
};

/// One logged evaluation. Its numbers are those of StepState.
struct HistoryRow {
  std::int64_t step = 0;  ///< steps done before this evaluation, in all stages
  double time_s = 0;      ///< wall time of the fit so far, including earlier parts of a resumed run
  double loss = 0;
  double chi2_reduced = 0;
  double held_out_chi2 = 0;  ///< 0 without held-out pixels
  double regularization = 0;
  double learning_rate = 0;  ///< of the update that follows; 0 for optimizers other than Adam
  double gradient_norm = 0;
  std::vector<double> free;  ///< physical values of the free scalars, in layout order
};

/// Everything that the fit of one system needs to continue with the same bits.
template <class Real>
struct Snapshot {
  std::int64_t step = 0;        ///< steps done, in all stages
  int stage = 0;                ///< index of the current stage
  std::int64_t stage_step = 0;  ///< steps done in this stage
  bool stage_done = false;      ///< Levenberg–Marquardt: this stage has converged
  std::int64_t evaluations = 0;
  double time_s = 0;
  std::vector<Real> parameters, first_moment, second_moment;
  std::vector<Real> memory;     ///< L-BFGS: Backend::pairs()
  std::int64_t best_step = -1;  ///< step of the best state of this stage so far, by its stop rule, or −1
  double best_value = 0;        ///< value of that state: what the stop rule compares
  std::vector<Real> best_parameters;
  std::int64_t fall_step = 0;  ///< stage_step of the last fall by more than the tolerance
  double fall_value = 0;       ///< the value after that fall
  std::vector<StartRecord> starts;
  std::vector<HistoryRow> history;
  std::optional<Evidence> evidence;  ///< Gauss–Newton: at the end of the stage
  std::vector<PixelGrid> grids;  ///< of the source's components, after a stage of Gauss–Newton in which some follow
                                 ///< the rays; empty = those of the problem
};

template <class Real>
struct FitResult {
  StopReason stop_reason = StopReason::steps;  ///< of the last stage
  std::string message;                         ///< for StopReason::non_finite: which quantity in which step
  std::int64_t steps = 0;                      ///< steps done
  std::int64_t state_step = 0;                 ///< step of the returned state
  std::int64_t evaluations = 0;                ///< number of evaluations of loss and gradient
  double time_s = 0;
  std::vector<StageEnd> stages;  ///< of the stages of this call of fit(), without those before a resume
  StepState final_state;         ///< evaluated at `parameters`
  std::vector<Real> parameters;
  Snapshot<Real> snapshot;
};

/// Functions that the fit calls. All are optional.
template <class Real>
struct FitCallbacks {
  /// Called for every log_every-th step, for step 0 and for the last step of every system, when the fit looks at the
  /// backend.
  std::function<void(int system, const HistoryRow&)> progress;
  /// Called when one more of several starts has ended.
  std::function<void(int system, const StartsProgress&)> starts;
  /// Called every checkpoint_every steps, at the next Backend::look(), with finite states, one per system.
  std::function<void(const std::vector<Snapshot<Real>>&)> checkpoint;
  /// Called after Backend::evaluations_per_look() evaluations; when it returns true, the fit ends there.
  std::function<bool()> interrupted;
};

/// Fits all systems of a backend side by side and independently of each other, from `resume` (one per system) or from
/// the parameters that the backend holds. Stages of Levenberg–Marquardt read `problems` and compute in double
/// precision: on the device of the backend, or on the CPU for the CPU backend.
/// @param problems  those that the backend has loaded
/// @throws InvalidInput for settings out of range, and for problems whose number or shape is not that of the backend
template <class Real>
EINFIELD_API std::vector<FitResult<Real>> fit(Backend<Real>& backend, const std::vector<Problem>& problems,
                                              const FitSettings& settings, const FitCallbacks<Real>& callbacks,
                                              const std::vector<Snapshot<Real>>& resume = {});

/// Learning rates of a stage of Adam. They rise linearly to `rate` over the first `warmup` updates; with `cosine` they
/// then fall as half a period of a cosine, to 0 after the last update (Loshchilov & Hutter 2017, eq. 5).
std::vector<double> learning_rates(double rate, int steps, int warmup, bool cosine);

/// Schedule::trainable from a list of names: "network", "lens", "source.0", "source.0.amp", "source.1.pixels",
/// "source.2.network". An empty list means all free parameters.
/// @throws InvalidInput for a name that matches no free parameter
std::vector<std::uint8_t> trainable(const Model& model, const std::vector<std::string>& names);

}  // namespace einfield
