#include "host/results/error_bars.hpp"

#include <fmt/format.h>

#include <cmath>

#include "einfield/flags.hpp"
#include "einfield/limits.hpp"
#include "einfield/units.hpp"
#include "host/fields/psf_smoothing.hpp"
#include "host/files/memory.hpp"
#include "host/fit/randomized.hpp"

namespace einfield {
namespace {

constexpr double kBeyond3 = 2.6998e-3;  ///< of a normal distribution, on both sides

/// σ ← √(σ² + scatter²)
void add_scatter(std::vector<double>& sigma, const std::vector<double>& scatter) {
  for (std::size_t i = 0; i < sigma.size(); ++i) sigma[i] = std::hypot(sigma[i], scatter[i]);
}

/// Says where nothing determines a map.
void note_undetermined(ErrorBars& bars, const Observation& observation) {
  const LensFields& sigma = bars.fields->sigma;
  const auto say = [&](const char* name, const std::vector<double>& map) {
    int n = 0;
    for (std::size_t i = 0; i < observation.mask.size(); ++i) n += observation.mask[i] != 0 && !std::isfinite(map[i]);
    if (n > 0)
      bars.notes.push_back(
          fmt::format("{} is not determined in {} of {} used pixels: neither data nor penalties say "
                      "anything there.",
                      name, n, observation.n_used()));
  };
  say("psi", sigma.potential);
  say("alpha", sigma.deflection);
  say("kappa", sigma.convergence);
}

}  // namespace

Problem with_priors_of(const Problem& problem, const FittedMember& member) {
  Problem result = problem;
  if (!member.evidence) return result;
  result.regularization = member.evidence->weights;
  result.source_variance = member.evidence->source_variance;
  result.network_off_lens = true;
  return result;
}

ErrorBarsOf laplace_error_bars(const Problem& problem, ThreadPool& pool) {
  return [&problem, &pool](const std::vector<FittedMember>& members, const EnsembleFields& reported,
                           const std::vector<double>& weights_of_constant) {
    ErrorBars bars;
    bars.method = UncertaintyKind::laplace;
    const ParameterLayout layout(problem.model);
    if (layout.n_network == 0 && layout.free_pixels.empty()) return bars;  // nothing to marginalize
    const Problem fitted = with_priors_of(problem, members.front());
    const Laplace laplace(fitted, members.front().parameters, pool);
    if (layout.n_free() > 0) bars.scalars = laplace.scalars();
    if (layout.n_network == 0) return bars;
    FieldErrors& errors = bars.fields.emplace(laplace.fields(weights_of_constant));
    note_undetermined(bars, problem.observation);
    if (members.size() == 1) return bars;
    add_scatter(errors.sigma.potential, reported.deviation.potential);
    add_scatter(errors.sigma.deflection, reported.deviation.deflection);
    add_scatter(errors.sigma.convergence, reported.deviation.convergence);
    if (errors.kappa_psf.empty()) return bars;
    const std::vector<double> theta = pixel_centers(problem.observation.grid);
    PsfSmoothing smooth(problem.observation);
    std::vector<std::vector<double>> smoothed;
    for (const FittedMember& member : members)
      smoothed.push_back(
          smooth(network_fields<double>(*problem.model.network,
                                        {member.parameters.begin(),
                                         member.parameters.begin() + static_cast<std::ptrdiff_t>(layout.n_network)},
                                        theta, pool)
                     .convergence));
    add_scatter(errors.kappa_psf, deviation_of(smoothed));
    return bars;
  };
}

namespace {

/// Rms distances of the members' values from the reported ones.
std::vector<double> distances(const std::vector<std::vector<double>>& members, const std::vector<double>& reported) {
  std::vector<double> result(reported.size(), 0.0);
  for (const std::vector<double>& member : members)
    for (std::size_t i = 0; i < result.size(); ++i)
      result[i] += (member[i] - reported[i]) * (member[i] - reported[i]) / static_cast<double>(members.size());
  for (double& v : result) v = std::sqrt(v);
  return result;
}

/// Profile parameters: σ from the members, what is determined from the linearization where there is one.
MarginalErrors scalars_of_members(const Problem& problem, const ParameterLayout& layout,
                                  const std::vector<std::vector<double>>& members,
                                  const std::vector<FittedMember>& fitted, ThreadPool& pool) {
  const std::size_t n = layout.n_free();
  const auto values = [&](const std::vector<double>& flat) { return layout.physical(flat.data() + layout.n_network); };
  std::vector<std::vector<double>> centers, drawn;
  for (const FittedMember& member : fitted) centers.push_back(values(member.parameters));
  for (const std::vector<double>& member : members) drawn.push_back(values(member));
  const std::vector<double> center = mean_of(centers);
  MarginalErrors errors{distances(drawn, center), SymmetricMatrix(n), {}};
  std::vector<bool> known(n, true);
  if (Laplace::uncovered(problem).empty() && layout.n_network <= kMaxLaplaceWeights) {
    const Problem at = with_priors_of(problem, fitted.front());
    const Laplace laplace(at, fitted.front().parameters, pool);
    errors.degeneracies = laplace.scalars().degeneracies;
    for (std::size_t i = 0; i < n; ++i) known[i] = std::isfinite(laplace.scalars().sigma[i]);
  }
  for (std::size_t i = 0; i < n; ++i)
    for (std::size_t j = 0; j < n; ++j) {
      double sum = 0;
      for (const std::vector<double>& member : drawn)
        sum += (member[i] - center[i]) * (member[j] - center[j]) / static_cast<double>(drawn.size());
      errors.correlations(i, j) =
          known[i] && known[j] ? (i == j ? 1 : sum / (errors.sigma[i] * errors.sigma[j])) : std::nan("");
    }
  for (std::size_t i = 0; i < n; ++i)
    if (!known[i]) errors.sigma[i] = std::nan("");
  return errors;
}

}  // namespace

ErrorBars member_error_bars(const Problem& problem, std::vector<std::vector<double>> members,
                            const std::vector<FittedMember>& fitted, const EnsembleFields& reported,
                            const std::vector<double>& weights_of_constant, ThreadPool& pool) {
  ErrorBars bars;
  bars.method = UncertaintyKind::randomized;
  bars.members = bars.converged = static_cast<int>(members.size());
  bars.parameters = std::move(members);
  const ParameterLayout layout(problem.model);
  if (layout.n_free() > 0) bars.scalars = scalars_of_members(problem, layout, bars.parameters, fitted, pool);
  if (layout.n_network == 0) return bars;
  const std::vector<double> theta = pixel_centers(problem.observation.grid);
  const auto without_constant = [&](std::vector<double> psi) {
    const double offset = weighted_mean(psi, weights_of_constant);
    for (double& v : psi) v -= offset;
    return psi;
  };
  PsfSmoothing smooth(problem.observation);
  std::vector<std::vector<double>> psi, alpha, kappa, blurred;
  for (const std::vector<double>& flat : bars.parameters) {
    LensFields fields = network_fields<double>(
        *problem.model.network, {flat.begin(), flat.begin() + static_cast<std::ptrdiff_t>(layout.n_network)}, theta,
        pool);
    psi.push_back(without_constant(std::move(fields.potential)));
    alpha.push_back(std::move(fields.deflection));
    blurred.push_back(smooth(fields.convergence));
    kappa.push_back(std::move(fields.convergence));
  }
  FieldErrors& errors = bars.fields.emplace();
  errors.sigma = {distances(psi, without_constant(reported.mean.potential)), distances(alpha, reported.mean.deflection),
                  distances(kappa, reported.mean.convergence)};
  if (!problem.observation.psf.empty()) errors.kappa_psf = distances(blurred, smooth(reported.mean.convergence));
  return bars;
}

ErrorBarsOf randomized_error_bars(const Problem& problem, const UncertaintyConfig& settings, ThreadPool& pool,
                                  const std::function<bool(int)>& done) {
  return [&problem, settings, &pool, done](const std::vector<FittedMember>& members, const EnsembleFields& reported,
                                           const std::vector<double>& weights_of_constant) {
    const Problem fitted = with_priors_of(problem, members.front());
    const Units units = units_of(fitted);
    const ParameterLayout layout(problem.model);
    const Problem own = in_units(fitted, units);
    const RandomizedFit fit =
        randomized_fit(own, parameters_in_units(problem.model, layout, members.front().parameters, units),
                       {.members = settings.members, .seed = settings.seed}, pool, done);
    if (fit.interrupted) throw InterruptedMembers();
    std::vector<std::vector<double>> parameters;
    int ended = 0;
    double evaluations = 0;
    for (const RandomizedMember& member : fit.members) {
      parameters.push_back(parameters_in_data_units(problem.model, layout, member.x, units));
      ended += member.converged;
      evaluations += static_cast<double>(member.evaluations) / settings.members;
    }
    ErrorBars bars = member_error_bars(problem, std::move(parameters), members, reported, weights_of_constant, pool);
    bars.converged = ended;
    bars.redrawn = {"the noise"};
    if (!layout.priors.empty()) bars.redrawn.emplace_back("the Gaussian priors of profile parameters");
    if (!layout.free_pixels.empty()) bars.redrawn.emplace_back("the prior of the source pixels");
    if (layout.n_network > 0) bars.redrawn.emplace_back("the priors of the network");
    bars.not_redrawn = one_sided_priors(problem);
    bars.notes.push_back(fmt::format("{} of {} members converged, with {:.1f} evaluations each on average.", ended,
                                     settings.members, evaluations));
    bars.notes.push_back(fmt::format(
        "The fit itself, continued in the same way, falls by {:.2g} in chi2 plus penalties; 1 would be 1 σ.",
        fit.center.fall));
    return bars;
  };
}

std::pair<UncertaintyKind, std::string> possible_method(const Config& config, const Problem& problem, int threads) {
  const UncertaintyKind method = config.uncertainty.method;
  if (method != UncertaintyKind::laplace || config.places.count("uncertainty.method") > 0) return {method, ""};
  const std::size_t bytes = Laplace::planned_bytes(problem, threads);
  if (bytes < memory_limit() / 2) return {method, ""};
  return {UncertaintyKind::spread, "uncertainty.method: \"laplace\" would need " + readable_bytes(bytes) +
                                       ", so there are no error bars of the maps; give the key to use it anyway"};
}

std::vector<std::string> one_sided_priors(const Problem& problem) {
  std::vector<std::string> names;
  if (problem.regularization.negative_convergence > 0) names.emplace_back("negative_convergence");
  if (problem.regularization.negative_total_convergence > 0) names.emplace_back("negative_total_convergence");
  const auto bounded = [](const auto& components) {
    for (const auto& component : components)
      for (const ParameterPrior& prior : component.priors)
        if (prior.bounded()) return true;
    return false;
  };
  if (bounded(problem.model.lens) || bounded(problem.model.source) || bounded(problem.model.lens_light))
    names.emplace_back("bounds of profile parameters");
  return names;
}

std::string in_words(const ErrorBars& bars) {
  switch (bars.method) {
    case UncertaintyKind::none:
      return "There are no error bars.";
    case UncertaintyKind::spread:
      return "Maps: the scatter of the networks of the ensemble, which share the noise. It is not an error bar: the "
             "truth "
             "is often outside it.";
    case UncertaintyKind::laplace:
      return "1 σ from the curvature of chi2 and of all penalties at the end of the fit, over network weights, source "
             "pixels and profile parameters together (Laplace). It holds as far as the model is linear within the "
             "errors, "
             "and for structure that the priors allow. Where the data say nothing, it is that of the priors.";
    case UncertaintyKind::randomized:
      break;
  }
  std::string redrawn;
  for (const std::string& what : bars.redrawn) redrawn += (redrawn.empty() ? "" : ", ") + what;
  std::string kept;
  for (const std::string& what : bars.not_redrawn) kept += (kept.empty() ? "" : ", ") + what;
  return fmt::format("1 σ: rms distance from this fit of {} fits of the same problem, each with its own draw of: {}. ",
                     bars.members, redrawn) +
         (kept.empty() ? "" : "Not drawn again, so that their part of the error is missing: " + kept + ".");
}

namespace {

/// What keeps κ over its error from being a significance.
std::string caution(const Problem& problem) {
  if (problem.regularization.negative_convergence > 0)
    return " A penalty on negative convergence pulls noise up to positive values, so a map of pure noise lies above "
           "zero: compare peaks with their surroundings.";
  return "";
}

}  // namespace

Significance significance(const Problem& problem, double chi2_reduced, const std::vector<double>& kappa,
                          const std::vector<double>& sigma) {
  Significance found;
  found.chi2_reduced = chi2_reduced;
  const Observation& observation = problem.observation;
  found.caution = caution(problem);
  const Grid& grid = observation.grid;
  for (std::size_t i = 0; i < kappa.size(); ++i) {
    if (!observation.mask[i] || !(sigma[i] > 0) || !std::isfinite(sigma[i])) continue;
    ++found.pixels;
    const Vec2<double> at = grid.pixel(static_cast<int>(i));
    const Significance::Peak here{at.x, at.y, kappa[i], sigma[i]};
    if (!found.highest || here.ratio() > found.highest->ratio()) found.highest = here;
    if (!found.lowest || here.ratio() < found.lowest->ratio()) found.lowest = here;
    found.above_3 += here.ratio() > 3;
    found.above_5 += here.ratio() > 5;
    found.below_3 += here.ratio() < -3;
    found.below_5 += here.ratio() < -5;
  }
  found.expected_3 = kBeyond3 * static_cast<double>(found.pixels);
  return found;
}

std::string in_words(const Significance& s, bool smoothed) {
  const std::string what = smoothed ? "convergence at the resolution of the PSF" : "convergence";
  if (s.pixels == 0) return "No used pixel has an error of the " + what + ".";
  if (s.chi2_reduced > flag_info(Flag::chi2_high).threshold)
    return fmt::format(
        "The model does not fit the data (reduced chi2 {:.3g}), so no value of the {} is significant, whatever its "
        "error "
        "bar says.",
        s.chi2_reduced, what);
  if (s.evidence_gain && *s.evidence_gain <= kStrongEvidence)
    return fmt::format(
        "The same model without the network explains the data {} (ln evidence of the network {:+.1f}, expected above "
        "{:g}), so no value of the {} is significant, whatever its error bar says.",
        *s.evidence_gain <= 0 ? "better" : "as well", *s.evidence_gain, kStrongEvidence, what);
  const auto peak = [](const Significance::Peak& p) {
    return fmt::format("{:.3g} ± {:.2g} ({:.1f} σ) at x = {:.2f}, y = {:.2f} arcsec", p.kappa, p.sigma, p.ratio(), p.x,
                       p.y);
  };
  std::string text;
  if (s.above_3 == 0 && s.below_3 == 0)
    text = fmt::format("The {} of the network is nowhere beyond 3 σ. ", what);
  else
    text = fmt::format(
        "The {} of the network is above 3 σ in {} used pixels and above 5 σ in {}; it is below −3 σ in {} and below −5 "
        "σ in {} ({:.0f} of {} pixels are beyond ±3 σ by chance, and neighbors are correlated). ",
        what, s.above_3, s.above_5, s.below_3, s.below_5, s.expected_3, s.pixels);
  return text + "Its most significant values are " + peak(*s.highest) + " and " + peak(*s.lowest) + "." + s.caution;
}

}  // namespace einfield
