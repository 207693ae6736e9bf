// What every backend requires of the problems that it loads.
#include <cmath>
#include <string>

#include "einfield/backend.hpp"
#include "einfield/error.hpp"

namespace einfield {
namespace {

template <class Components>
bool same_kinds(const Components& a, const Components& b) {
  if (a.size() != b.size()) return false;
  for (std::size_t i = 0; i < a.size(); ++i)
    if (a[i].kind != b[i].kind || a[i].free != b[i].free) return false;
  return true;
}

/// Same pixel grids and networks; the kinds are the same.
bool same_shapes(const std::vector<LightComponent>& a, const std::vector<LightComponent>& b) {
  for (std::size_t i = 0; i < a.size(); ++i)
    if (a[i].grid.nx != b[i].grid.nx || a[i].grid.ny != b[i].grid.ny || a[i].pixels_free != b[i].pixels_free ||
        a[i].network != b[i].network || a[i].weights_free != b[i].weights_free)
      return false;
  return true;
}

/// Checks one problem by itself.
void validate_problem(const Problem& p) {
  p.observation.validate();
  EINFIELD_REQUIRE(p.observation.noise_correlation.empty() || p.loss == LossKind::chi2,
                   std::string("a noise_correlation with the loss ") + name_of(p.loss) + ", expected chi2");
  const ParameterLayout layout(p.model);
  EINFIELD_REQUIRE(
      p.initial_parameters.size() == layout.size(),
      std::to_string(p.initial_parameters.size()) + " initial parameters, expected " + std::to_string(layout.size()));
  for (const double v : p.initial_parameters) EINFIELD_REQUIRE(std::isfinite(v), "an initial parameter is not finite");
  const Regularization& r = p.regularization;
  for (const Regularization::Weight& weight : Regularization::kWeights)
    EINFIELD_REQUIRE(std::isfinite(r.*weight.member) && r.*weight.member >= 0,
                     "a regularization weight of " + std::to_string(r.*weight.member) + ", expected >= 0");

  const std::size_t n_pixels = p.observation.mask.size();
  EINFIELD_REQUIRE(p.held_out.empty() || p.held_out.size() == n_pixels,
                   "a map of held-out pixels of " + std::to_string(p.held_out.size()) + " pixels, expected " +
                       std::to_string(n_pixels));
  if (!p.held_out.empty()) {
    int fitted = 0, judged = 0;
    for (std::size_t i = 0; i < n_pixels; ++i)
      if (p.observation.mask[i]) ++(p.held_out[i] ? judged : fitted);
    EINFIELD_REQUIRE(fitted > 0 && judged > 0, std::to_string(judged) + " of " + std::to_string(fitted + judged) +
                                                   " used pixels held out, expected some and not all");
  }
}

/// Checks that a problem has the shape of the first one.
void require_same_shape(const Problem& first, const Problem& p) {
  const Grid &a = first.observation.grid, &b = p.observation.grid;
  EINFIELD_REQUIRE(a.nx == b.nx && a.ny == b.ny && a.supersampling == b.supersampling,
                   "systems of different image sizes, expected one shape");
  EINFIELD_REQUIRE(first.observation.psf.nx == p.observation.psf.nx &&
                       first.observation.psf.ny == p.observation.psf.ny &&
                       first.observation.psf.supersampling == p.observation.psf.supersampling,
                   "systems with PSFs of different sizes, expected one shape");
  EINFIELD_REQUIRE(first.observation.noise_correlation.nx == p.observation.noise_correlation.nx &&
                       first.observation.noise_correlation.ny == p.observation.noise_correlation.ny,
                   "systems with noise_correlations of different sizes, expected one shape");
  EINFIELD_REQUIRE(first.model.network == p.model.network, "systems with different networks, expected one shape");
  EINFIELD_REQUIRE(same_kinds(first.model.lens, p.model.lens) && same_kinds(first.model.source, p.model.source) &&
                       same_kinds(first.model.lens_light, p.model.lens_light) &&
                       same_shapes(first.model.source, p.model.source) &&
                       same_shapes(first.model.lens_light, p.model.lens_light),
                   "systems with different components or free parameters, expected one shape");
  EINFIELD_REQUIRE(ParameterLayout(first.model).priors.size() == ParameterLayout(p.model).priors.size(),
                   "systems with different numbers of priors, expected one");
  EINFIELD_REQUIRE(first.loss == p.loss, "systems with different losses, expected one");
  EINFIELD_REQUIRE(first.network_math == p.network_math, "systems with different network_math, expected one");
  EINFIELD_REQUIRE(first.held_out.empty() == p.held_out.empty(),
                   "systems with and without held-out pixels, expected one kind");
}

}  // namespace

void validate_problems(const std::vector<Problem>& problems) {
  EINFIELD_REQUIRE(!problems.empty(), "no problem to load, expected at least one");
  for (const Problem& problem : problems) {
    validate_problem(problem);
    require_same_shape(problems.front(), problem);
  }
}

void validate_schedule(const Schedule& schedule, std::size_t n_parameters) {
  EINFIELD_REQUIRE(!schedule.learning_rates.empty(), "no learning rate, expected at least one");
  for (const double v : schedule.learning_rates)
    EINFIELD_REQUIRE(std::isfinite(v) && v >= 0, "learning_rate = " + std::to_string(v) + ", expected >= 0");
  EINFIELD_REQUIRE(std::isfinite(schedule.clip_norm) && schedule.clip_norm >= 0,
                   "clip_norm = " + std::to_string(schedule.clip_norm) + ", expected >= 0");
  EINFIELD_REQUIRE(schedule.trainable.empty() || schedule.trainable.size() == n_parameters,
                   "a list of trainable parameters of " + std::to_string(schedule.trainable.size()) + ", expected " +
                       std::to_string(n_parameters));
}

template <class Real>
void validate_stage(const StageRun& run, const std::vector<StageStart<Real>>& starts, int systems,
                    std::size_t n_parameters) {
  validate_schedule(run.schedule, n_parameters);
  EINFIELD_REQUIRE(runs_on_backend(run.optimizer),
                   std::string("a stage of ") + name_of(run.optimizer) + " on a backend, expected adam or lbfgs");
  EINFIELD_REQUIRE(run.memory >= 1, "memory = " + std::to_string(run.memory) + ", expected >= 1");
  EINFIELD_REQUIRE(run.log_every >= 1, "log_every = " + std::to_string(run.log_every) + ", expected >= 1");
  EINFIELD_REQUIRE(run.stop.steps >= 0, "steps = " + std::to_string(run.stop.steps) + ", expected >= 0");
  EINFIELD_REQUIRE(starts.size() == static_cast<std::size_t>(systems),
                   "a stage that begins for " + std::to_string(starts.size()) + " systems with " +
                       std::to_string(systems) + " loaded, expected the same");
  for (const StageStart<Real>& start : starts) validate_start(run, start, n_parameters);
}

template <class Real>
void validate_start(const StageRun& run, const StageStart<Real>& start, std::size_t n_parameters) {
  EINFIELD_REQUIRE(start.step >= 0, "a stage that begins at step " + std::to_string(start.step) + ", expected >= 0");
  const std::size_t pair = 2 * n_parameters;
  const int most = pairs_kept(run.memory, run.stop.steps);
  const bool whole = pair > 0 ? start.pairs.size() % pair == 0 : start.pairs.empty();
  EINFIELD_REQUIRE(whole && start.pairs.size() <= pair * static_cast<std::size_t>(most),
                   "L-BFGS pairs of " + std::to_string(start.pairs.size()) + " numbers, expected at most " +
                       std::to_string(most) + " pairs of " + std::to_string(pair) + " (2 x parameters)");
}

template void validate_start(const StageRun&, const StageStart<float>&, std::size_t);
template void validate_start(const StageRun&, const StageStart<double>&, std::size_t);
template void validate_stage(const StageRun&, const std::vector<StageStart<float>>&, int, std::size_t);
template void validate_stage(const StageRun&, const std::vector<StageStart<double>>&, int, std::size_t);

}  // namespace einfield
