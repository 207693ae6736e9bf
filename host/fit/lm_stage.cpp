// A stage of Levenberg–Marquardt, in double precision: on the CPU one system after the other, on a CUDA device all
// systems and all their starts side by side.
//
// This stage is not checkpointed. If it is interrupted, the resumed run repeats it from the start.
#include <algorithm>
#include <deque>
#include <utility>

#include "einfield/error.hpp"
#include "host/cpu/thread_pool.hpp"
#include "host/fit/make_scalar_batch.hpp"
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

/// What is settled before a system descends: false when the stage has already ended for it.
template <class Real>
bool begins_descent(FitRun<Real>& run, int i, Track<Real>& track) {
  Snapshot<Real>& now = track.now;
  if (now.stage_done) {
    track.end(StopReason::converged);
    return false;
  }
  if (run.stage().steps == 0) {  // the model is only evaluated
    run.backend().evaluate(true);
    run.record(i, run.backend().state(i), now.step, now.parameters);
    track.end(StopReason::steps);
    return false;
  }
  return true;
}

/// The problem without the pixels that the stage leaves out: those in an annulus around the largest lens.
/// @throws InvalidInput when no pixel is left
Problem without_annulus(const Problem& problem, const StageSettings& stage) {
  Problem rest = problem;
  double theta_E = 0;
  Vec2<double> center{};
  for (const LensComponent& c : problem.model.lens) {
    const ProfileInfo& info = lens_info(c.kind);
    const int radius = info.index_of("theta_E"), x = info.index_of("center_x"), y = info.index_of("center_y");
    if (radius < 0 || !(c.values[static_cast<std::size_t>(radius)] > theta_E)) continue;
    theta_E = c.values[static_cast<std::size_t>(radius)];
    if (x >= 0 && y >= 0) center = {c.values[static_cast<std::size_t>(x)], c.values[static_cast<std::size_t>(y)]};
  }
  Observation& o = rest.observation;
  for (int i = 0; i < o.grid.n_pixels(); ++i) {
    const Vec2<double> theta = o.grid.pixel(i);
    const double r = hypot(theta.x - center.x, theta.y - center.y) / theta_E;
    if (r >= stage.leave_out_inner && r <= stage.leave_out_outer) o.mask[static_cast<std::size_t>(i)] = 0;
  }
  EINFIELD_REQUIRE(o.n_used() > 0, "a stage that leaves out every used pixel, expected some that it fits");
  return rest;
}

/// Takes over the outcome of the starts of a system.
/// @param valleys  of an earlier stage, from which the starts have continued; may be empty
template <class Real>
void take_result(FitRun<Real>& run, int i, Track<Real>& track, StartsResult result, int starts,
                 const std::vector<std::size_t>& valleys) {
  Snapshot<Real>& now = track.now;
  if (result.interrupted) {
    run.interrupt();
    track.end(StopReason::interrupted);
    return;
  }
  if (!valleys.empty())
    now.starts = continued_starts(now.starts, valleys, result.starts);
  else if (starts > 1)
    now.starts = result.starts;
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

/// Descends with several systems side by side.
template <class Real>
void descend(FitRun<Real>& run, const std::vector<int>& systems, ThreadPool& pool) {
  const FitSettings& settings = run.settings();
  const ParameterLayout& layout = run.backend().layout();
  const StageSettings& stage = run.stage();
  std::deque<Problem> reduced;  // a ScalarModel keeps a reference to its problem
  std::vector<ScalarModel> models;
  std::vector<StartsPlan> plans;
  std::vector<std::vector<std::size_t>> valleys;
  int points = 0;
  for (const int i : systems) {
    const Problem& whole = run.problems()[static_cast<std::size_t>(i)];
    const Problem& problem = stage.leaves_out() ? reduced.emplace_back(without_annulus(whole, stage)) : whole;
    Snapshot<Real>& now = run.track(i).now;
    // A stage that ran out of steps continues from its last position.
    const bool begins = now.stage_step == 0;
    const int steps = stage.steps - static_cast<int>(now.stage_step);
    // The members of an ensemble differ only in their network weights: the others continue from the best start of the
    // first one.
    const bool follows = settings.ensemble && begins && run.is_first_stage() && i > 0 && !run.track(0).failed;
    if (follows) {
      const auto scalars = static_cast<std::ptrdiff_t>(layout.n_network);
      std::copy_n(run.track(0).now.parameters.begin() + scalars, layout.n_free(), now.parameters.begin() + scalars);
    }
    const int asked = stage.starts > 0 ? stage.starts : run.is_first_stage() ? settings.starts : 1;
    StartsPlan plan{&problem.model, begins && !follows ? asked : 1, settings.starts_seed, steps};
    valleys.emplace_back();
    if (begins && stage.valleys > 1) {
      valleys.back() = lowest_valleys(now.starts, static_cast<std::size_t>(stage.valleys));
      for (const std::size_t k : valleys.back()) plan.given.push_back(layout.unconstrained(now.starts[k].free));
      plan.count = std::max(1, static_cast<int>(plan.given.size()));
    }
    const std::vector<double> parameters(now.parameters.begin(), now.parameters.end());
    // A device computes the deflection of the network itself.
    models.emplace_back(problem, parameters, problem.loss, stage.schedule.trainable,
                        has_device_batch(run.backend(), problem.observation) ? nullptr : &pool);
    points += plan.count;
    plans.push_back(std::move(plan));
  }
  const std::unique_ptr<ScalarBatch> batch = make_scalar_batch(run.backend(), std::move(models), points, pool);
  const auto report = [&](std::size_t k, StartsProgress now) {
    now.stage = run.stage_index();
    if (run.callbacks().starts && now.count > 1) run.callbacks().starts(systems[k], now);
  };
  std::vector<StartsResult> results = run_starts(*batch, plans, pool, run.callbacks().interrupted, report);
  for (std::size_t k = 0; k < systems.size(); ++k)
    take_result(run, systems[k], run.track(systems[k]), std::move(results[k]), plans[k].count, valleys[k]);
}

/// The systems that descend side by side, group after group.
template <class Real>
std::vector<std::vector<int>> groups_of(const FitRun<Real>& run, const std::vector<int>& systems) {
  std::vector<std::vector<int>> groups;
  const bool together = has_device_batch(run.backend(), run.problems().front().observation);
  for (const int i : systems) {
    // The first member of an ensemble may show the others where to begin.
    const bool leads = groups.size() == 1 && groups[0] == std::vector<int>{0} && run.settings().ensemble;
    if (groups.empty() || !together || leads)
      groups.push_back({i});
    else
      groups.back().push_back(i);
  }
  return groups;
}

}  // namespace

template <class Real>
void run_levenberg_marquardt(FitRun<Real>& run) {
  ThreadPool pool(run.settings().threads);
  std::vector<int> systems;
  run.each_active([&](int i, Track<Real>& track) {
    if (begins_descent(run, i, track)) systems.push_back(i);
  });
  for (const std::vector<int>& group : groups_of(run, systems)) {
    if (!run.interrupted()) {
      descend(run, group, pool);
      continue;
    }
    for (const int i : group) run.track(i).end(StopReason::interrupted);
  }
}

template void run_levenberg_marquardt(FitRun<float>&);
template void run_levenberg_marquardt(FitRun<double>&);

}  // namespace einfield::stages
