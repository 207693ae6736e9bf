#include "host/fit/gauss_newton.hpp"

#include <algorithm>
#include <cmath>

#include "einfield/error.hpp"

namespace einfield {
namespace {

constexpr double kLengths[] = {1, 2, 0.5, 0.25, 0.1};
constexpr int kTries = 12;  ///< dampings of one step
constexpr double kFirstDamping = 1e-3;
constexpr double kDampingFactor = 10;
constexpr int kAdaptations = 3;  ///< of the prior of the source
constexpr int kSettled = 4;      ///< steps between two of them, at most
/// 1/σ² of what holds a scalar at its place: nothing beside what data or priors say of it, and enough for one of which
/// they say nothing, such as a parameter at a bound.
constexpr double kHold = 1e-6;

std::vector<double> moved(const JointModel& model, std::vector<double> x, const JointPosterior::Step& step,
                          double length) {
  for (std::size_t k = 0; k < model.pixels().size(); ++k)
    x[model.pixels()[k]] += length * step.source[static_cast<Eigen::Index>(k)];
  for (std::size_t k = 0; k < model.rest().size(); ++k)
    x[model.rest()[k]] += length * step.rest[static_cast<Eigen::Index>(k)];
  return x;
}

/// One descent, step by step.
class Descent {
 public:
  Descent(JointModel& model, std::vector<double> x, const Regularization& weights, const GaussNewtonSettings& settings,
          ThreadPool& pool, JointAlgebra& algebra)
      : model_(model), settings_(settings), pool_(pool), algebra_(algebra), source_only_(!model.pixels().empty()) {
    now_.x = std::move(x);
    now_.weights = weights;
    now_.value = model.value(now_.x);
  }

  const GaussNewtonRecord& now() const { return now_; }
  int evaluations() const { return evaluations_; }
  bool converged() const { return converged_; }

  /// One step. @return false when F does not fall any more
  bool step() {
    const Linearization l = linearize();
    const std::unique_ptr<NormalEquations> normal = algebra_.normal(l);
    JointPosterior posterior(model_, l, *normal, now_.weights, pool_);
    if (!posterior.good() && !source_only_) return false;
    now_.gradient_norm = posterior.gradient_norm();
    const double before = now_.value.total(now_.weights);
    for (int attempt = 0; attempt < kTries; ++attempt) {
      const JointPosterior::Step step = source_only_ ? posterior.source_step() : posterior.step(damping_);
      if (std::isfinite(step.slope) && search(step)) {
        source_only_ ? settle_source(posterior) : settle_all(posterior, before);
        return true;
      }
      if (source_only_ || -step.slope < settings_.tolerance * before) break;  // F has almost nothing left to fall
      damping_ = std::max(kFirstDamping, damping_ * kDampingFactor);
    }
    if (!source_only_ && adapt()) return true;
    converged_ = !source_only_;
    source_only_ = false;
    return !converged_;
  }

  std::optional<Evidence> evidence() {
    const Linearization l = linearize();
    const std::unique_ptr<NormalEquations> normal = algebra_.normal(l);
    JointPosterior posterior(model_, l, *normal, now_.weights, pool_);
    if (!posterior.good() || !posterior.proper()) return std::nullopt;
    posterior.better_weights(l.value);
    return posterior.evidence(l.value);
  }

 private:
  Linearization linearize() {
    Linearization l = model_.linearize(now_.x, algebra_.columns());
    l.priors.diagonal().tail(l.priors.rows() - static_cast<Eigen::Index>(model_.n_weights())).array() += kHold;
    return l;
  }

  /// Moves to the lowest of a few points along a step, which cost little beside the step. @return whether F fell
  bool search(const JointPosterior::Step& step) {
    const std::vector<double> start = now_.x;
    double lowest = now_.value.total(now_.weights);
    bool fell = false;
    for (const double length : kLengths) {
      std::vector<double> x = moved(model_, start, step, length);
      const JointValue value = model_.value(x);
      ++evaluations_;
      if (!value.finite || !(value.total(now_.weights) < lowest)) continue;
      lowest = value.total(now_.weights);
      now_.x = std::move(x);
      now_.value = value;
      fell = true;
    }
    return fell;
  }

  void settle_source(JointPosterior& posterior) {
    source_only_ = false;
    if (settings_.choose_weights) now_.weights = posterior.better_source_weights(now_.value);
  }

  void settle_all(JointPosterior& posterior, double before) {
    damping_ = damping_ > kFirstDamping ? damping_ / kDampingFactor : 0;
    const bool small = before - now_.value.total(now_.weights) < settings_.tolerance * before;
    converged_ = small && was_small_;
    was_small_ = small;
    if (settings_.choose_weights) now_.weights = posterior.better_weights(now_.value);
    if (++steps_since_adaptation_ >= kSettled || small) adapt();
  }

  /// @return whether the prior of the source has changed
  bool adapt() {
    if (settings_.source_contrast <= 1 || model_.pixels().empty() || adaptations_ == kAdaptations) return false;
    model_.value(now_.x);
    model_.adapt_source_prior(settings_.source_contrast);
    now_.value = model_.value(now_.x);
    ++adaptations_;
    steps_since_adaptation_ = 0;
    was_small_ = converged_ = false;
    return true;
  }

  JointModel& model_;
  const GaussNewtonSettings& settings_;
  ThreadPool& pool_;
  JointAlgebra& algebra_;
  GaussNewtonRecord now_;
  bool source_only_;
  double damping_ = 0;
  int evaluations_ = 1;
  int adaptations_ = 0, steps_since_adaptation_ = 0;
  bool was_small_ = false, converged_ = false;
};

}  // namespace

std::size_t gauss_newton_bytes(const Problem& problem, int threads) {
  const ParameterLayout layout(problem.model);
  const std::size_t pixels = layout.free_pixels.size(), rest = layout.n_network + layout.n_free();
  // AᵀA, its factor, a copy on the way; AᵀB and X, with a copy; S, BᵀB, their factors and inverses.
  return JointModel::planned_bytes(problem, threads) + 8 * (3 * pixels * pixels + 3 * pixels * rest + 10 * rest * rest);
}

GaussNewtonResult gauss_newton(JointModel& model, std::vector<double> x, Regularization weights,
                               const GaussNewtonSettings& settings, ThreadPool& pool,
                               const std::function<void(const GaussNewtonRecord&)>& record,
                               const std::function<bool()>& interrupted, JointAlgebra* algebra) {
  CpuJointAlgebra on_cpu(model.pixels().size(), pool);
  model.hold_lens_directions(x);
  Descent descent(model, std::move(x), weights, settings, pool, algebra ? *algebra : on_cpu);
  if (record) record(descent.now());
  GaussNewtonResult result;
  while (result.steps < settings.steps && !descent.converged()) {
    result.interrupted = interrupted && interrupted();
    if (result.interrupted || !descent.step()) break;
    ++result.steps;
    if (record) record(descent.now());
  }
  result.x = descent.now().x;
  result.value = descent.now().value;
  result.weights = descent.now().weights;
  result.evaluations = descent.evaluations();
  result.converged = descent.converged();
  if (result.value.finite && !result.interrupted) result.evidence = descent.evidence();
  return result;
}

}  // namespace einfield
