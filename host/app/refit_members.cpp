#include "host/app/refit_members.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <Eigen/SparseCholesky>
#include <utility>

#include "einfield/error.hpp"
#include "einfield/units.hpp"
#include "host/files/memory.hpp"
#include "host/fit/fit_memory.hpp"
#include "host/fit/member_draws.hpp"
#include "host/fit/source_prior.hpp"
#include "host/model/median.hpp"
#include "host/results/assess.hpp"

namespace einfield {
namespace {

/// A member before its fit.
struct Draw {
  Problem problem;
  std::vector<double> pixels;  ///< t, added to the free pixels; empty without
};

/// Draws t ~ N(0, R⁻¹) from the prior of the source pixels: R = PᵀLLᵀP, t = Pᵀ L⁻ᵀ z.
class PixelDraws {
 public:
  explicit PixelDraws(const Problem& problem) {
    const std::vector<FreePixels> grids = free_source_pixels(problem.model);
    if (grids.empty() || !problem.regularization.on_source_pixels() || problem.loss != LossKind::chi2) return;
    const SourcePrior prior(grids, fitted_pixels(problem), {});
    factor_.compute(prior.precision(problem.regularization));
    EINFIELD_REQUIRE(factor_.info() == Eigen::Success,
                     "uncertainty: the prior of the source pixels is not positive definite");
    size_ = static_cast<Eigen::Index>(prior.size());
  }
  bool any() const { return size_ > 0; }
  std::vector<double> operator()(const MemberDraws& draws) const {
    Eigen::VectorXd z(size_);
    for (Eigen::Index i = 0; i < size_; ++i) z[i] = draws(MemberDraws::source_pixels, static_cast<std::uint64_t>(i));
    const Eigen::VectorXd t = factor_.permutationPinv() * Eigen::VectorXd(factor_.matrixU().solve(z));
    return {t.data(), t.data() + t.size()};
  }

 private:
  Eigen::SimplicialLLT<SourcePrior::Sparse> factor_;
  Eigen::Index size_ = 0;
};

/// Adds a fixed component with pixels t beside every free one of the source.
void add_fixed_pixels(Model& model, const std::vector<double>& t) {
  std::vector<LightComponent> more;
  std::size_t first = 0;
  for (const LightComponent& light : model.source) {
    if (!light.pixels_free) continue;
    LightComponent fixed = light;
    fixed.pixels_free = false;
    const auto begin = t.begin() + static_cast<std::ptrdiff_t>(first);
    fixed.pixels.assign(begin, begin + static_cast<std::ptrdiff_t>(light.pixels.size()));
    first += light.pixels.size();
    more.push_back(std::move(fixed));
  }
  model.source.insert(model.source.end(), more.begin(), more.end());
}

/// All members, in the units of the data.
std::vector<Draw> draw_members(const Config& config, const Problem& problem, const std::vector<double>& fitted) {
  const UncertaintyConfig& u = config.uncertainty;
  Config many = config;
  if (many.network) many.network->ensemble = u.members;
  const bool other_weights = config.network && config.network->initial.empty();
  std::vector<Problem> starts = other_weights ? ensemble_problems(many, problem)
                                              : std::vector<Problem>(static_cast<std::size_t>(u.members), problem);
  const ParameterLayout layout(problem.model);
  const PixelDraws pixels(problem);
  std::vector<Draw> members;
  for (int m = 0; m < u.members; ++m) {
    Draw& member = members.emplace_back(Draw{std::move(starts[static_cast<std::size_t>(m)]), {}});
    const MemberDraws draws(u.seed, m);
    redraw(member.problem, draws);
    const auto scalars = fitted.begin() + static_cast<std::ptrdiff_t>(layout.n_network);
    std::copy(scalars, scalars + static_cast<std::ptrdiff_t>(layout.n_free()),
              member.problem.initial_parameters.begin() + static_cast<std::ptrdiff_t>(layout.n_network));
    if (!pixels.any()) continue;
    member.pixels = pixels(draws);
    add_fixed_pixels(member.problem.model, member.pixels);
  }
  return members;
}

/// Whether a backend and this machine can hold these problems at once.
template <class Real>
bool fits_memory(const Backend<Real>& backend, const std::vector<Problem>& problems, const FitSettings& settings) {
  const int systems = static_cast<int>(problems.size());
  const bool on_host = backend.name() == "cpu";
  const std::size_t of_backend =
      planned_bytes<Real>(backend.name(), problems, {settings.threads, {}}, most_pairs(settings));
  try {
    require_memory(planned_host_bytes(backend, problems.front(), systems, settings) +
                       (on_host ? static_cast<double>(of_backend) : 0),
                   "the members");
    if (!on_host)
      require_device_memory(backend, of_backend + planned_device_bytes(backend, problems.front(), systems, settings));
  } catch (const Error&) {
    return false;
  }
  return true;
}

/// What is drawn again and what is not, in words.
void name_draws(ErrorBars& bars, const Problem& problem, bool other_weights) {
  const ParameterLayout layout(problem.model);
  const bool likelihood = problem.loss == LossKind::chi2;
  bars.redrawn = {"the noise"};
  if (other_weights) bars.redrawn.emplace_back("the initial weights of the network");
  if (!layout.priors.empty()) bars.redrawn.emplace_back("the Gaussian priors of profile parameters");
  for (const Regularization::Weight& weight : Regularization::kWeights) {
    const bool one_sided = weight.member == &Regularization::negative_convergence ||
                           weight.member == &Regularization::negative_total_convergence,
               on_source = weight.member == &Regularization::source_gradient ||
                           weight.member == &Regularization::source_curvature;
    if (!(problem.regularization.*weight.member > 0) || one_sided) continue;
    if (on_source && layout.free_pixels.empty()) continue;
    (on_source && likelihood ? bars.redrawn : bars.not_redrawn).emplace_back(weight.name);
  }
  for (std::string& name : one_sided_priors(problem)) bars.not_redrawn.push_back(std::move(name));
}

}  // namespace

template <class Real>
ErrorBarsOf refit_error_bars(const Config& config, const LoadedProblem& loaded, Backend<Real>& backend,
                             FitSettings settings, ThreadPool& pool, std::function<void(const std::string&)> say,
                             std::function<bool()> interrupted) {
  settings.starts = 1;
  settings.checkpoint_every = 0;
  settings.ensemble = false;
  return [=, &config, &loaded, &backend, &pool](const std::vector<FittedMember>& fitted, const EnsembleFields& reported,
                                                const std::vector<double>& weights_of_constant) {
    const Problem& problem = loaded.problem;
    const Units units = units_of(problem);
    const ParameterLayout layout(problem.model);
    std::vector<Draw> draws = draw_members(config, problem, fitted.front().parameters);
    std::vector<FitResult<Real>> results;
    std::size_t group = draws.size();
    for (std::size_t first = 0; first < draws.size(); first += group) {
      std::vector<Problem> problems;
      for (std::size_t i = first; i < draws.size(); ++i) problems.push_back(in_units(draws[i].problem, units));
      for (problems.resize(std::min(group, problems.size()));
           problems.size() > 1 && !fits_memory(backend, problems, settings); problems.resize(group))
        group = (problems.size() + 1) / 2;
      backend.load(problems);
      FitCallbacks<Real> callbacks;
      callbacks.interrupted = interrupted;
      for (FitResult<Real>& result : in_data_units(fit(backend, problems, settings, callbacks), problem, units)) {
        if (result.stop_reason == StopReason::interrupted) throw InterruptedMembers();
        results.push_back(std::move(result));
      }
      say(fmt::format("uncertainty: {} of {} fits with noise and priors drawn again", results.size(), draws.size()));
    }
    // As for an ensemble: what ended elsewhere is not scatter around this fit.
    const auto value = [](const FitResult<Real>& r) { return r.final_state.loss + r.final_state.regularization; };
    std::vector<double> values;
    for (const FitResult<Real>& r : results)
      if (std::isfinite(value(r))) values.push_back(value(r));
    EINFIELD_REQUIRE(values.size() > 1, "uncertainty: " + std::to_string(values.size()) +
                                            " members ended at a finite loss, expected at least 2");
    // Another minimum, by the rule for ensembles, beyond 5 σ of what another draw of the noise does to χ².
    const double limit = upper_median(values) * (1 + kFarAbove + 5 * std::sqrt(2.0 / fitted_pixels(problem)));
    std::vector<std::vector<double>> members;
    for (std::size_t m = 0; m < results.size(); ++m) {
      if (!(value(results[m]) <= limit)) continue;
      std::vector<double>& flat = members.emplace_back(results[m].parameters.begin(), results[m].parameters.end());
      for (std::size_t k = 0; k < draws[m].pixels.size(); ++k)
        flat[layout.n_network + layout.n_free() + k] += draws[m].pixels[k];
    }
    EINFIELD_REQUIRE(members.size() > 1,
                     "uncertainty: the members ended in different minima, expected at least 2 in the lowest");
    const std::size_t left_out = results.size() - members.size();
    ErrorBars bars = member_error_bars(problem, std::move(members), fitted, reported, weights_of_constant, pool);
    name_draws(bars, problem, config.network && config.network->initial.empty());
    if (left_out > 0)
      bars.notes.push_back(
          fmt::format("{} of {} members are left out: they became non-finite or ended far above the others.", left_out,
                      results.size()));
    return bars;
  };
}

template ErrorBarsOf refit_error_bars(const Config&, const LoadedProblem&, Backend<float>&, FitSettings, ThreadPool&,
                                      std::function<void(const std::string&)>, std::function<bool()>);
template ErrorBarsOf refit_error_bars(const Config&, const LoadedProblem&, Backend<double>&, FitSettings, ThreadPool&,
                                      std::function<void(const std::string&)>, std::function<bool()>);

}  // namespace einfield
