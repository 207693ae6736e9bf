// A stage of Gauss–Newton: one system after the other, in double precision. Rays, the network's derivatives (once, for
// a linear readout), the sparse columns of the source's pixels, penalties, and matrices of the size of weights and
// scalars are the CPU's, whatever the backend. A CUDA backend makes the dense columns of the Jacobian and the normal
// equations, and eliminates the pixels: most of a step (bench/README.md has times).
//
// This stage is not checkpointed. If it is interrupted, the resumed run repeats it from the start.
#include <algorithm>
#include <cmath>
#include <functional>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "host/cpu/thread_pool.hpp"
#include "host/fit/gauss_newton.hpp"
#include "host/fit/make_joint_algebra.hpp"
#include "host/fit/track.hpp"
#include "host/model/source_grids.hpp"

namespace einfield::stages {
namespace {

/// How many parameters of the source the data determine while the lens moves to its place, search by search. One number
/// does not serve: a lens that begins a tenth off needs a stiff source, and a detailed source that cannot bend pulls a
/// good lens off its place (docs/studies.md).
constexpr double kDetermined[] = {60, 15, 200};
constexpr int kStiffSteps = 40;  ///< of the stiff part of a search, at most
constexpr int kStiffnessTrials = 8;
constexpr double kStiffnessTolerance = 0.2;
constexpr int kPlacements = 2;      ///< of the grid, after the fit has converged
constexpr double kBright = 0.03;    ///< of the brightest pixel: what the grid has to cover
constexpr double kRoom = 0.15;      ///< on every side, of the bright part
constexpr double kSameGrid = 0.02;  ///< of the side of its pixels: a grid that would change by less stays

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
    source = smooth;
    std::fill(source.begin(), source.end() - (smooth.end() - last), std::uint8_t{0});
  }
  std::vector<std::uint8_t> smooth, source;  ///< as Schedule::trainable; the source: its pixels alone
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

bool same_grids(const std::vector<PixelGrid>& a, const std::vector<PixelGrid>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](const PixelGrid& one, const PixelGrid& other) {
    const double limit = kSameGrid * one.pixel_scale;
    return std::abs(one.pixel_scale - other.pixel_scale) <= limit &&
           std::hypot(one.center_x - other.center_x, one.center_y - other.center_y) <= one.nx * limit;
  });
}

/// Shrinks a grid to the bright part of another grid of the same component, with some room around it.
PixelGrid around_source(PixelGrid grid, const PixelGrid& old, const double* pixels) {
  const Grid places{old.nx, old.ny, old.pixel_scale, old.center_x, old.center_y, 1};
  const double limit = kBright * *std::max_element(pixels, pixels + places.n_pixels());
  Vec2<double> low{kInfinity, kInfinity}, high{-kInfinity, -kInfinity};
  for (int i = 0; i < places.n_pixels(); ++i) {
    if (!(pixels[i] > limit)) continue;
    const Vec2<double> at = places.pixel(i);
    low = {std::min(low.x, at.x), std::min(low.y, at.y)};
    high = {std::max(high.x, at.x), std::max(high.y, at.y)};
  }
  const double scale = std::max((high.x - low.x) / old.nx, (high.y - low.y) / old.ny) * (1 + 2 * kRoom) +
                       2 * old.pixel_scale / std::min(old.nx, old.ny);
  if (!(scale > 0 && scale < grid.pixel_scale)) return grid;
  grid.pixel_scale = scale;
  grid.center_x = (low.x + high.x) / 2;
  grid.center_y = (low.y + high.y) / 2;
  return grid;
}

/// Places the grids that follow the rays for the lens at x.
/// @param around_sources  no wider than the sources at x
void place_grids(Problem& problem, std::vector<double>& x, bool around_sources = false) {
  if (!has_following_grid(problem.model)) return;
  const ParameterLayout layout(problem.model);
  Model now = with_parameters(problem.model, layout, x);
  if (!place_source_grids(now, problem.observation)) return;
  std::vector<PixelGrid> grids = source_grids(now);
  const double* pixels = x.data() + layout.n_network + layout.n_free();
  for (std::size_t c = 0; c < grids.size(); ++c) {
    const LightComponent& light = problem.model.source[c];
    if (!light.pixels_free) continue;
    if (around_sources && light.follows_rays) grids[c] = around_source(grids[c], light.grid, pixels);
    pixels += light.pixels.size();
  }
  set_grids(problem, x, grids);
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

  /// Steps of all parts.
  int steps() const { return step_; }
  int evaluations() const { return evaluations_; }

  /// All parts, until the stage has made its steps.
  void run() {
    const Regularization given = problem_.regularization;
    std::optional<Evidence> smooth;
    std::vector<double> start = result_.x;
    if (now().stage_step == 0 && movers_.scalars && (movers_.network || movers_.pixels)) {
      start = find_smooth_model();
      if (result_.interrupted || !result_.value.finite || !movers_.network || step_ >= steps_) return;
      smooth = result_.evidence;
    }
    problem_.regularization = given;
    result_ = minimize(run_.stage().schedule.trainable, start, settings());
    if (!result_.evidence || !run_.settings().choose_weights || !movers_.network) return;
    if (smooth)
      result_.evidence->without_network = smooth->log_evidence;
    else if (movers_.scalars || movers_.pixels)
      weigh_without_network(start);
  }

 private:
  /// A fit of the smooth model, its grids, and where it began: the lens as the stiff source left it.
  struct Smooth {
    GaussNewtonResult fit;
    std::vector<PixelGrid> grids;
    std::vector<double> start;
    bool better_than(const Smooth& other) const {
      if (fit.evidence && other.fit.evidence) return fit.evidence->log_evidence > other.fit.evidence->log_evidence;
      if (fit.evidence || other.fit.evidence) return fit.evidence.has_value();
      return fit.value.total(fit.weights) < other.fit.value.total(other.fit.weights);
    }
  };

  const Snapshot<Real>& now() const { return run_.track(system_).now; }

  GaussNewtonSettings settings() const {
    return {.steps = run_.stage().steps,
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
  /// what the lens should, and so would a source that may bend as it likes. Of several searches, the one of highest
  /// evidence stays; the first that leaves only noise is the last one. A network begins where the stiff source left the
  /// lens: at the end of the fit, source and lens already stand for what the smooth model lacks.
  /// @return where the network begins
  std::vector<double> find_smooth_model() {
    const std::vector<double> x = result_.x;
    const std::vector<PixelGrid> grids = source_grids(problem_.model);
    const Regularization given = problem_.regularization;
    std::optional<Smooth> best;
    for (const double wanted : kDetermined) {
      result_.x = x;
      set_grids(problem_, result_.x, grids);
      problem_.regularization = given;
      Smooth found = search_from(source_weights_at(x, wanted));
      if (result_.interrupted) return x;
      if (!best || found.better_than(*best)) best = std::move(found);
      const bool alike = !run_.settings().choose_weights || !movers_.pixels;  // all searches would be the same
      if (alike || step_ >= steps_ || leaves_only_noise(best->fit)) break;
    }
    result_ = std::move(best->fit);
    set_source_grids(problem_.model, best->grids);
    if (!movers_.network) follow_source();
    return best->start;
  }

  /// Whether chi2 is at most 3 sigma above that of the noise.
  bool leaves_only_noise(const GaussNewtonResult& fit) const {
    return fit.evidence && fit.value.chi2 <= n_data_ + 3 * std::sqrt(2.0 * n_data_);
  }

  /// Weights of the source's penalties with which the data determine about `wanted` parameters of the source, with the
  /// lens held at x: a source that is stiff to the same degree whatever its detail and the noise.
  Regularization source_weights_at(const std::vector<double>& x, double wanted) {
    Regularization weights = problem_.regularization;
    if (!run_.settings().choose_weights || !movers_.pixels) return weights;
    const Regularization given = problem_.regularization;
    for (int k = 0; k < kStiffnessTrials; ++k) {
      problem_.regularization = weights;
      const GaussNewtonResult source = descend(movers_.source, x, {.steps = 1}, nullptr);
      evaluations_ += source.evaluations;
      if (!source.evidence) break;
      const double ratio = std::clamp(source.evidence->determined_source / wanted, 1e-2, 1e2);
      if (std::abs(ratio - 1) < kStiffnessTolerance) break;
      for (const Regularization::Member weight : SourcePrior::kTerms) weights.*weight *= ratio * std::sqrt(ratio);
    }
    problem_.regularization = given;
    return weights;
  }

  /// The stiff part of a search, then the fit with priors by evidence on grids for the lens that it found.
  Smooth search_from(const Regularization& stiff) {
    problem_.regularization = stiff;
    result_ = minimize(movers_.smooth, result_.x, {.steps = kStiffSteps});
    if (result_.interrupted || !result_.value.finite) return {result_, source_grids(problem_.model), result_.x};
    place();
    const std::vector<double> start = result_.x;
    result_ = minimize(movers_.smooth, start, settings());
    return {result_, source_grids(problem_.model), start};
  }

  /// Grids for the lens that was found, and no wider than the source on them: smaller pixels resolve it better. They
  /// stay where the evidence rises.
  void follow_source() {
    for (int k = 0; k < kPlacements && result_.converged && result_.evidence && system_ == 0 && step_ < steps_; ++k) {
      const Smooth before{result_, source_grids(problem_.model), {}};
      place_grids(problem_, result_.x, true);
      const bool moved = !same_grids(before.grids, source_grids(problem_.model));
      if (moved) {
        problem_.regularization = before.fit.weights;
        result_ = minimize(movers_.smooth, result_.x, settings());
        if (result_.interrupted || Smooth{result_, {}, {}}.better_than(before)) continue;
      }
      result_ = before.fit;
      set_source_grids(problem_.model, before.grids);
      return;
    }
  }

  /// The same fit without the network, from the same start.
  void weigh_without_network(const std::vector<double>& start) {
    const GaussNewtonResult without = descend(movers_.smooth, start, settings(), nullptr);
    evaluations_ += without.evaluations;
    result_.interrupted = without.interrupted;
    if (without.evidence) result_.evidence->without_network = without.evidence->log_evidence;
  }

  /// Makes the steps that are left, at most.
  GaussNewtonResult minimize(const std::vector<std::uint8_t>& moves, const std::vector<double>& x,
                             GaussNewtonSettings settings) {
    settings.steps = std::min(settings.steps, steps_ - step_);
    bool begins = true;
    const auto record = [&](const GaussNewtonRecord& point) {
      const bool known = begins && step_ > 0;  // where a part begins, the one before it ended
      if (!begins) ++step_;
      begins = false;
      const std::int64_t step = now().step + step_;
      if (!known && (run_.logs(step) || step_ == steps_))
        run_.record(system_, state_of(point, n_data_), step, {point.x.begin(), point.x.end()});
    };
    GaussNewtonResult result = descend(moves, x, settings, record);
    evaluations_ += result.evaluations;
    return result;
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
  int step_ = 0, evaluations_ = 0;
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
  now.evaluations += descents.evaluations();
  now.time_s = run.elapsed(track);
  if (!result.value.finite) {
    StepState bad;
    bad.bad_loss = true;
    track.fail(bad, now.step + 1);
    track.end(StopReason::non_finite);
    return;
  }
  now.parameters.assign(result.x.begin(), result.x.end());
  now.step += descents.steps();
  now.stage_step += descents.steps();
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
