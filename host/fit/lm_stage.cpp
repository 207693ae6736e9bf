// A stage of Levenberg–Marquardt: on the CPU in double precision, one system after the other.
//
// This stage is not checkpointed. If it is interrupted, the resumed run repeats it from the start.
#include <algorithm>

#include "host/cpu/thread_pool.hpp"
#include "host/fit/starts.hpp"
#include "host/fit/track.hpp"

namespace einfield::stages {
namespace {

/// Writes the path of the best start into the history and moves the system to its end.
template <class Real>
void follow_path(FitRun<Real>& run, int i, const LevenbergMarquardt& best, double began) {
  Snapshot<Real>& now = run.track(i).now;
  const std::vector<LevenbergMarquardt::Record>& path = best.records();
  const auto scalars = static_cast<std::ptrdiff_t>(run.backend().layout().n_network);
  std::vector<Real> moved = now.parameters;
  for (std::size_t k = 0; k < path.size(); ++k) {
    std::copy(path[k].u.begin(), path[k].u.end(), moved.begin() + scalars);
    const auto step = static_cast<std::int64_t>(k);
    if (k + 1 < path.size() && !run.logs(step)) continue;
    StepState state;
    state.loss = path[k].loss;
    state.chi2_reduced = path[k].chi2_reduced;
    state.regularization = path[k].penalty;
    state.gradient_norm = path[k].gradient_norm;
    // Which start is the best one is known when all have ended: the time of all starts is spread over its steps.
    const double share = path.size() > 1 ? static_cast<double>(k) / static_cast<double>(path.size() - 1) : 1;
    run.record(i, state, now.step + step, moved, began + share * (now.time_s - began));
  }
  now.parameters = moved;
  now.step += best.steps();
  now.stage_step += best.steps();
  now.stage_done = best.converged();
}

template <class Real>
void descend(FitRun<Real>& run, int i, Track<Real>& track, ThreadPool& pool) {
  const Problem& problem = run.problems()[static_cast<std::size_t>(i)];
  const FitSettings& settings = run.settings();
  const ParameterLayout& layout = run.backend().layout();
  Snapshot<Real>& now = track.now;
  if (now.stage_done) {
    track.end(StopReason::converged);
    return;
  }
  if (run.stage().steps == 0) {  // the model is only evaluated
    run.backend().evaluate(true);
    run.record(i, run.backend().state(i), now.step, now.parameters);
    track.end(StopReason::steps);
    return;
  }
  // A stage that ran out of steps continues from its last position.
  const bool begins = now.stage_step == 0;
  const int steps = run.stage().steps - static_cast<int>(now.stage_step);
  // The members of an ensemble differ only in their network weights: the others continue from the best start of the
  // first one.
  const bool follows = settings.ensemble && begins && run.is_first_stage() && i > 0 && !run.track(0).failed;
  if (follows) {
    const auto scalars = static_cast<std::ptrdiff_t>(layout.n_network);
    std::copy_n(run.track(0).now.parameters.begin() + scalars, layout.n_free(), now.parameters.begin() + scalars);
  }
  const int starts = begins && run.is_first_stage() && !follows ? settings.starts : 1;
  const std::vector<double> parameters(now.parameters.begin(), now.parameters.end());
  const ScalarModel model(problem, parameters, problem.loss, run.stage().schedule.trainable, pool);
  StartsResult result =
      run_starts(problem.model, model, starts, settings.starts_seed, steps, pool, run.callbacks().interrupted);
  if (result.interrupted) {
    run.interrupt();
    track.end(StopReason::interrupted);
    return;
  }
  if (starts > 1) now.starts = result.starts;
  now.evaluations += result.evaluations;
  const double began = now.time_s;
  now.time_s = run.elapsed(track);
  if (!result.best) {
    StepState bad;
    bad.bad_loss = true;
    track.fail(bad, now.step + 1);
    track.end(StopReason::non_finite);
    return;
  }
  follow_path(run, i, *result.best, began);
  track.end(result.best->converged() ? StopReason::converged : StopReason::steps);
}

}  // namespace

template <class Real>
void run_levenberg_marquardt(FitRun<Real>& run) {
  ThreadPool pool(run.settings().threads);
  run.each_active([&](int i, Track<Real>& track) {
    if (run.interrupted())
      track.end(StopReason::interrupted);
    else
      descend(run, i, track, pool);
  });
}

template void run_levenberg_marquardt(FitRun<float>&);
template void run_levenberg_marquardt(FitRun<double>&);

}  // namespace einfield::stages
