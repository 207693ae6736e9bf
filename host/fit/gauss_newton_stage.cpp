// A stage of Gauss–Newton: one system after the other, in double precision. Rays, the network's derivatives (once, for
// a linear readout), the sparse columns of the source's pixels, penalties, and matrices of the size of weights and
// scalars are the CPU's, whatever the backend. A CUDA backend makes the dense columns of the Jacobian and the normal
// equations, and eliminates the pixels: most of a step (bench/README.md has times).
//
// This stage is not checkpointed. If it is interrupted, the resumed run repeats it from the start.
#include <algorithm>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "host/cpu/thread_pool.hpp"
#include "host/fit/gauss_newton.hpp"
#include "host/fit/make_joint_algebra.hpp"
#include "host/fit/track.hpp"
#include "host/model/source_grids.hpp"

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

/// What moves in a stage: all parameters, without the weights of the network, and which kinds there are.
struct Movers {
  Movers(const ParameterLayout& layout, std::vector<std::uint8_t> moves) : smooth(std::move(moves)) {
    if (smooth.empty()) smooth.assign(layout.size(), 1);
    const auto first = smooth.begin() + static_cast<std::ptrdiff_t>(layout.n_network),
               last = first + static_cast<std::ptrdiff_t>(layout.n_free());
    network = std::count(smooth.begin(), first, 1) > 0;
    scalars = std::count(first, last, 1) > 0;
    pixels = std::count(last, smooth.end(), 1) > 0;
    std::fill(smooth.begin(), first, std::uint8_t{0});
  }
  std::vector<std::uint8_t> smooth;  ///< as Schedule::trainable
  bool network, scalars, pixels;
};

/// Gives the source these grids. Pixels of a grid that has moved begin at 0 again: the first step solves for them.
void set_grids(Problem& problem, std::vector<double>& x, const std::vector<PixelGrid>& grids) {
  const ParameterLayout layout(problem.model);
  std::size_t pixel = layout.n_network + layout.n_free();
  for (std::size_t c = 0; c < grids.size(); ++c) {
    LightComponent& light = problem.model.source[c];
    const PixelGrid from = std::exchange(light.grid, grids[c]);
    if (!light.pixels_free) continue;
    const auto first = x.begin() + static_cast<std::ptrdiff_t>(pixel);
    if (from.pixel_scale != light.grid.pixel_scale || from.center_x != light.grid.center_x ||
        from.center_y != light.grid.center_y)
      std::fill(first, first + static_cast<std::ptrdiff_t>(light.pixels.size()), 0.0);
    pixel += light.pixels.size();
  }
}

/// Places the grids that follow the rays for the lens at x.
void place_grids(Problem& problem, std::vector<double>& x) {
  if (!has_following_grid(problem.model)) return;
  Model now = with_parameters(problem.model, ParameterLayout(problem.model), x);
  if (place_source_grids(now, problem.observation)) set_grids(problem, x, source_grids(now));
}

/// The parts of a stage for one system.
template <class Real>
class Descents {
 public:
  Descents(FitRun<Real>& run, int i, ThreadPool& pool)
      : run_(run),
        system_(i),
        pool_(pool),
        problem_(run.problems()[static_cast<std::size_t>(i)]),
        n_data_(fitted_pixels(problem_)),
        steps_(run.stage().steps - static_cast<int>(now().stage_step)),
        movers_(run.backend().layout(), run.stage().schedule.trainable) {
    problem_.network_off_lens = true;
    result_.x = {now().parameters.begin(), now().parameters.end()};
    set_source_grids(problem_.model, now().grids);
    // A stage that ran out of steps continues from its last position, weights, variances and grids.
    if (now().evidence) {
      problem_.regularization = now().evidence->weights;
      problem_.source_variance = now().evidence->source_variance;
    } else {
      place();
    }
  }

  const GaussNewtonResult& result() const { return result_; }
  const Problem& problem() const { return problem_; }
  int n_data() const { return n_data_; }

  /// All parts, until the stage has made its steps.
  void run() {
    const Regularization given = problem_.regularization;
    if (now().stage_step == 0 && movers_.scalars && (movers_.network || movers_.pixels)) {
      settle_smooth_model();
      if (result_.interrupted || !result_.value.finite || result_.steps >= steps_) return;
      place();
    }
    problem_.regularization = given;
    const std::vector<double> start = result_.x;
    const int steps_before = result_.steps, evaluations_before = result_.evaluations;
    result_ = minimize(run_.stage().schedule.trainable, start, settings(steps_ - steps_before));
    result_.steps += steps_before;
    result_.evaluations += evaluations_before;
    if (result_.evidence && run_.settings().choose_weights && movers_.network && (movers_.scalars || movers_.pixels))
      weigh_without_network(start);
  }

 private:
  const Snapshot<Real>& now() const { return run_.track(system_).now; }

  GaussNewtonSettings settings(int steps) const {
    return {.steps = steps,
            .source_contrast = run_.settings().source_contrast,
            .choose_weights = run_.settings().choose_weights};
  }

  /// Members of an ensemble share the grids of the first: their pixels are averaged.
  void place() {
    if (system_ == 0)
      place_grids(problem_, result_.x);
    else
      set_grids(problem_, result_.x, run_.track(0).now.grids);
  }

  /// First the smooth model and the source alone: where the lens is not yet in its place, a network would move there
  /// what the lens should, and so would a source that may bend as it likes. Weights that are still to be chosen are
  /// stiff here.
  void settle_smooth_model() {
    if (run_.settings().choose_weights)
      for (const Regularization::Member weight : SourcePrior::kTerms) problem_.regularization.*weight *= kStiff;
    result_ = minimize(movers_.smooth, result_.x, {.steps = steps_});
    result_.evidence.reset();
    result_.converged = false;
    --step_;  // what follows begins where this part ended
  }

  /// The same fit without the network, from the same start.
  void weigh_without_network(const std::vector<double>& start) {
    const GaussNewtonResult without = descend(movers_.smooth, start, settings(run_.stage().steps), nullptr);
    result_.evaluations += without.evaluations;
    result_.interrupted = without.interrupted;
    if (without.evidence) result_.evidence->without_network = without.evidence->log_evidence;
  }

  GaussNewtonResult minimize(const std::vector<std::uint8_t>& moves, const std::vector<double>& x,
                             const GaussNewtonSettings& settings) {
    const auto record = [&](const GaussNewtonRecord& point) {
      const std::int64_t step = now().step + step_;
      if (run_.logs(step) || step_ == steps_)
        run_.record(system_, state_of(point, n_data_), step, {point.x.begin(), point.x.end()});
      ++step_;
    };
    return descend(moves, x, settings, record);
  }

  GaussNewtonResult descend(const std::vector<std::uint8_t>& moves, const std::vector<double>& x,
                            const GaussNewtonSettings& settings,
                            const std::function<void(const GaussNewtonRecord&)>& record) {
    JointModel model(problem_, moves, pool_);
    const std::unique_ptr<JointAlgebra> algebra = make_joint_algebra(run_.backend(), model, pool_);
    return gauss_newton(
        model, x, problem_.regularization, settings, pool_, record, [this] { return run_.ask_interrupted(); },
        algebra.get());
  }

  FitRun<Real>& run_;
  int system_;
  ThreadPool& pool_;
  Problem problem_;
  int n_data_, steps_;
  Movers movers_;
  GaussNewtonResult result_;
  std::int64_t step_ = 0;
};

template <class Real>
void descend(FitRun<Real>& run, int i, Track<Real>& track, ThreadPool& pool) {
  Snapshot<Real>& now = track.now;
  Descents<Real> descents(run, i, pool);
  descents.run();
  const GaussNewtonResult& result = descents.result();
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
  if (has_following_grid(descents.problem().model)) now.grids = source_grids(descents.problem().model);
  if (!run.logs(now.step))
    run.record(i, state_of({result.x, result.value, result.weights, 0}, descents.n_data()), now.step, now.parameters);
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
    if (!track.now.evidence && track.now.grids.empty()) return;
    Problem problem = run.problems()[static_cast<std::size_t>(i)];
    if (track.now.evidence) problem.regularization = track.now.evidence->weights;
    set_source_grids(problem.model, track.now.grids);
    run.backend().replace(i, problem);
  });
}

template void run_gauss_newton(FitRun<float>&);
template void run_gauss_newton(FitRun<double>&);

}  // namespace einfield::stages
