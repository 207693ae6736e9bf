// A stage of a fit as a backend runs it: an optimizer moves every system, and a decision follows each evaluation. The
// decisions are functions that both backends call, on a device without a word from the host.
#pragma once

#include <cstdint>
#include <vector>

#include "einfield/adam.hpp"
#include "einfield/lbfgs.hpp"
#include "einfield/stop.hpp"

namespace EINFIELD_API einfield {

enum class OptimizerKind {
  adam,                 ///< a step is one update; it needs one evaluation
  lbfgs,                ///< a step is one line search, which needs one or a few evaluations
  levenberg_marquardt,  ///< a step moves to a lower point. Moves only the scalars of profiles, in double precision, and
                        ///< ends when the value no longer falls; ignores stop rules
  gauss_newton,         ///< a step solves for source pixels, network weights and scalars together, in double precision
                        ///< on the CPU. Ends when the value no longer falls; ignores stop rules
};

inline constexpr Named<OptimizerKind> kOptimizerKinds[] = {{"adam", OptimizerKind::adam},
                                                           {"lbfgs", OptimizerKind::lbfgs},
                                                           {"levenberg_marquardt", OptimizerKind::levenberg_marquardt},
                                                           {"gauss_newton", OptimizerKind::gauss_newton}};
constexpr const char* name_of(OptimizerKind optimizer) {
  return name_in(kOptimizerKinds, optimizer);
}

/// Whether stages of an optimizer run on a Backend. The others are least squares with a Jacobian: they end by
/// themselves and know no stop rule.
constexpr bool runs_on_backend(OptimizerKind optimizer) {
  return optimizer == OptimizerKind::adam || optimizer == OptimizerKind::lbfgs;
}

/// Which parameters the following updates move, and how far.
struct Schedule {
  std::vector<double> learning_rates = {1e-3};  ///< of Adam, one per update; later updates use the last one
  double clip_norm = 0;                         ///< a gradient with a larger norm is scaled down to it; 0 = never
  std::vector<std::uint8_t> trainable = {};     ///< per parameter, 1 = moves; the gradient of the others is set to
                                                ///< zero. Empty = all move
};

/// @throws InvalidInput for no rate, a rate or clip_norm out of range, or a list of the wrong size
void validate_schedule(const Schedule& schedule, std::size_t n_parameters);

/// What a backend needs to run a stage by itself.
struct StageRun {
  OptimizerKind optimizer = OptimizerKind::adam;  ///< adam or lbfgs
  Schedule schedule;
  int memory = 20;  ///< pairs that L-BFGS keeps, of a move and the change of the gradient along it
  StopSettings stop;
  int log_every = 10;  ///< steps between records
};

/// Pairs (StageRun::memory) that a stage of L-BFGS has room for: each step makes one.
inline int pairs_kept(int memory, std::int64_t steps) {
  return memory < steps ? memory : steps < 1 ? 1 : static_cast<int>(steps);
}

/// Where a stage begins for one system.
template <class Real>
struct StageStart {
  bool runs = true;         ///< false: the stage leaves the system alone
  std::int64_t step = 0;    ///< steps of the stage that an earlier run has done
  StopWatch watch;          ///< of that run; its best parameters are Field::best
  std::vector<Real> pairs;  ///< of L-BFGS in that run, as Backend::pairs() gives them
};

/// How far one system is.
struct StageProgress {
  std::int64_t step = 0;         ///< steps of the stage that are done: updates of Adam, moves of L-BFGS
  std::int64_t evaluations = 0;  ///< in this run
  std::int64_t records = 0;      ///< in this run
  StepState state;               ///< Adam: the last evaluation. L-BFGS: that of the position, or one that is not finite
  StopWatch watch;
  bool done = false;  ///< with this stage
  StopReason reason = StopReason::steps;
  bool keeps = false;  ///< the state just judged is the best one so far
  bool logs = false;   ///< the state just judged has a record; that of the last step has none
};

/// A state of a stage for the history.
struct StageRecord {
  std::int64_t step = 0;  ///< of the stage
  StepState state;
  std::vector<double> free;  ///< unconstrained values of the free scalars, in layout order
};

EINFIELD_HD inline void end_stage(StageProgress& progress, StopReason reason) {
  progress.done = true;
  progress.reason = reason;
}

/// Adam, after an evaluation: judges the state, and decides on the update that follows.
/// @param rates  learning rates, `count` of them
/// @return whether the parameters move
EINFIELD_HD inline bool follow_adam(StageProgress& progress, StepState& state, const StopSettings& stop, int log_every,
                                    const double* rates, std::int64_t count) {
  ++progress.evaluations;
  progress.keeps = progress.logs = false;
  refuse_non_finite(state);
  progress.state = state;
  if (state.bad_step != 0) {
    end_stage(progress, StopReason::non_finite);
    return false;
  }
  const Verdict verdict = judge(stop, state.updates, state, progress.watch);
  progress.keeps = verdict.best;
  if (verdict.ends) {
    end_stage(progress, verdict.reason);
    return false;
  }
  progress.logs = state.updates % log_every == 0;
  decide_update(state, rates, count);
  progress.state = state;
  progress.step = state.updates;
  return true;
}

/// What an evaluation has done to a line search.
struct LineOutcome {
  LineAction action = LineAction::search;
  bool start = false;  ///< the evaluation was that of the start
  bool moved = false;  ///< the accepted point differs from the position before
  bool flat = false;   ///< its gradient is zero
};

/// L-BFGS, after decide() and the move: counts and judges the step. `start` of a stage counts as step 0.
EINFIELD_HD inline void follow_line(StageProgress& progress, const StepState& state, const StopSettings& stop,
                                    int log_every, const LineOutcome& outcome) {
  ++progress.evaluations;
  progress.keeps = progress.logs = false;
  if (outcome.start && !is_finite(state)) {
    progress.state = state;
    progress.state.learning_rate = 0;
    progress.state.bad_loss = !has_finite_loss(state);
    end_stage(progress, StopReason::non_finite);
    return;
  }
  if (outcome.action == LineAction::search || outcome.action == LineAction::restart) return;
  if (!outcome.start && !(outcome.action == LineAction::accept && outcome.moved)) {
    end_stage(progress, StopReason::converged);  // the line search ended where it began
    return;
  }
  if (!outcome.start) ++progress.step;
  progress.state = state;
  progress.state.learning_rate = 0;
  const Verdict verdict = judge(stop, progress.step, state, progress.watch);
  progress.keeps = verdict.best;
  if (verdict.ends) end_stage(progress, verdict.reason);
  if (outcome.flat && !(verdict.ends && verdict.reason != StopReason::steps))
    end_stage(progress, StopReason::converged);
  progress.logs = !progress.done && progress.step % log_every == 0;
}

}  // namespace einfield
