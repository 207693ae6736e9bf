// A stage of Gauss–Newton: one system after the other, in double precision on the CPU, whatever the backend.
//
// This stage is not checkpointed. If it is interrupted, the resumed run repeats it from the start.
#include <algorithm>
#include <utility>

#include "host/cpu/thread_pool.hpp"
#include "host/fit/gauss_newton.hpp"
#include "host/fit/track.hpp"

namespace einfield::stages {
namespace {

StepState state_of(const GaussNewtonRecord& record, int n_data) {
  StepState state;
  state.loss = state.chi2_reduced = record.value.chi2 / n_data;
  state.regularization = (record.value.total(record.weights) - record.value.chi2) / n_data;
  state.gradient_norm = record.gradient_norm / n_data;
  return state;
}

template <class Real>
void descend(FitRun<Real>& run, int i, Track<Real>& track, ThreadPool& pool) {
  Snapshot<Real>& now = track.now;
  Problem problem = run.problems()[static_cast<std::size_t>(i)];
  problem.network_off_lens = true;
  // A stage that ran out of steps continues from its last position, weights and variances.
  if (now.evidence) {
    problem.regularization = now.evidence->weights;
    problem.source_variance = now.evidence->source_variance;
  }
  JointModel model(problem, run.stage().schedule.trainable, pool);
  const int steps = run.stage().steps - static_cast<int>(now.stage_step);
  const GaussNewtonSettings settings{.steps = steps,
                                     .source_contrast = run.settings().source_contrast,
                                     .choose_weights = run.settings().choose_weights};
  std::int64_t step = 0;
  const auto record = [&](const GaussNewtonRecord& point) {
    if (run.logs(now.step + step) || step == steps)
      run.record(i, state_of(point, model.n_data()), now.step + step, {point.x.begin(), point.x.end()});
    ++step;
  };
  const GaussNewtonResult result =
      gauss_newton(model, {now.parameters.begin(), now.parameters.end()}, problem.regularization, settings, pool,
                   record, [&run] { return run.ask_interrupted(); });
  if (result.interrupted) {
    track.forget_rows_from(now.step);
    track.end(StopReason::interrupted);
    return;
  }
  now.evaluations += result.evaluations;
  now.time_s = run.elapsed(track);
  if (!result.value.finite) {
    StepState bad;
    bad.bad_loss = true;
    track.fail(bad, now.step + 1);
    track.end(StopReason::non_finite);
    return;
  }
  now.parameters.assign(result.x.begin(), result.x.end());
  now.step += result.steps;
  now.stage_step += result.steps;
  now.stage_done = result.converged;
  now.evidence = result.evidence;
  if (!run.logs(now.step))
    run.record(i, state_of({result.x, result.value, result.weights, 0}, model.n_data()), now.step, now.parameters);
  track.end(result.converged ? StopReason::converged : StopReason::steps);
}

}  // namespace

template <class Real>
void run_gauss_newton(FitRun<Real>& run) {
  ThreadPool pool(run.settings().threads);
  run.each_active([&](int i, Track<Real>& track) {
    if (track.now.stage_done)
      track.end(StopReason::converged);
    else if (track.now.evidence && track.now.stage_step >= run.stage().steps)
      track.end(StopReason::steps);
    else if (!run.interrupted())
      descend(run, i, track, pool);
    else
      track.end(StopReason::interrupted);
    // What follows, the report of the fit among it, counts the penalties with the weights that were found.
    if (!track.now.evidence) return;
    Problem problem = run.problems()[static_cast<std::size_t>(i)];
    problem.regularization = track.now.evidence->weights;
    run.backend().replace(i, problem);
  });
}

template void run_gauss_newton(FitRun<float>&);
template void run_gauss_newton(FitRun<double>&);

}  // namespace einfield::stages
