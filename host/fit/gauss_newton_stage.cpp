// A stage of Gauss–Newton: one system after the other, in double precision on the CPU, whatever the backend.
//
// This stage is not checkpointed. If it is interrupted, the resumed run repeats it from the start.
#include <algorithm>
#include <utility>
#include <vector>

#include "host/cpu/thread_pool.hpp"
#include "host/fit/gauss_newton.hpp"
#include "host/fit/track.hpp"

namespace einfield::stages {
namespace {

/// By how much the source is stiffer while the lens moves to its place. With 100 to 3000 the lenses of a test came to
/// the same place, with 1 and 10 some did not.
constexpr double kStiff = 500;

StepState state_of(const GaussNewtonRecord& record, int n_data) {
  StepState state;
  state.loss = state.chi2_reduced = record.value.chi2 / n_data;
  state.regularization = (record.value.total(record.weights) - record.value.chi2) / n_data;
  state.gradient_norm = record.gradient_norm / n_data;
  return state;
}

/// What moves in a stage, without the weights of the network; empty when nothing would be left but pixels, or when
/// there are no such weights.
std::vector<std::uint8_t> without_network(const ParameterLayout& layout, std::vector<std::uint8_t> moves) {
  if (moves.empty()) moves.assign(layout.size(), 1);
  const auto weights = moves.begin() + static_cast<std::ptrdiff_t>(layout.n_network);
  const auto scalars = weights + static_cast<std::ptrdiff_t>(layout.n_free());
  if (std::count(moves.begin(), weights, 1) == 0 || std::count(weights, scalars, 1) == 0) return {};
  std::fill(moves.begin(), weights, std::uint8_t{0});
  return moves;
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
  const int steps = run.stage().steps - static_cast<int>(now.stage_step), n_data = fitted_pixels(problem);
  GaussNewtonSettings settings{.steps = steps};
  std::int64_t step = 0;
  const auto record = [&](const GaussNewtonRecord& point) {
    if (run.logs(now.step + step) || step == steps)
      run.record(i, state_of(point, n_data), now.step + step, {point.x.begin(), point.x.end()});
    ++step;
  };
  const auto minimize = [&](const std::vector<std::uint8_t>& moves, const std::vector<double>& x) {
    JointModel model(problem, moves, pool);
    return gauss_newton(model, x, problem.regularization, settings, pool, record,
                        [&run] { return run.ask_interrupted(); });
  };
  // First the smooth model and the source alone: where the lens is not yet in its place, a network would move there
  // what the lens should, and so would a source that may bend as it likes. Weights that are still to be chosen are
  // stiff here.
  GaussNewtonResult result;
  result.x = {now.parameters.begin(), now.parameters.end()};
  const std::vector<std::uint8_t> smooth = now.stage_step == 0
                                               ? without_network(run.backend().layout(), run.stage().schedule.trainable)
                                               : std::vector<std::uint8_t>();
  if (!smooth.empty()) {
    const Regularization given = problem.regularization;
    if (run.settings().choose_weights)
      for (const Regularization::Member weight : SourcePrior::kTerms) problem.regularization.*weight *= kStiff;
    result = minimize(smooth, result.x);
    problem.regularization = given;
    result.evidence.reset();
    result.converged = false;
    --step;  // what follows begins where this part ended
  }
  if (!result.interrupted && (smooth.empty() || (result.value.finite && result.steps < steps))) {
    const int steps_before = result.steps, evaluations_before = result.evaluations;
    settings = {.steps = steps - steps_before,
                .source_contrast = run.settings().source_contrast,
                .choose_weights = run.settings().choose_weights};
    result = minimize(run.stage().schedule.trainable, result.x);
    result.steps += steps_before;
    result.evaluations += evaluations_before;
  }
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
    run.record(i, state_of({result.x, result.value, result.weights, 0}, n_data), now.step, now.parameters);
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
