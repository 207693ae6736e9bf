#include "host/results/error_bars.hpp"

#include <fmt/format.h>

#include <cmath>

#include "host/fields/psf_smoothing.hpp"

namespace einfield {
namespace {

constexpr double kBeyond3 = 2.6998e-3;  ///< of a normal distribution, on both sides

/// σ ← √(σ² + scatter²)
void add_scatter(std::vector<double>& sigma, const std::vector<double>& scatter) {
  for (std::size_t i = 0; i < sigma.size(); ++i) sigma[i] = std::hypot(sigma[i], scatter[i]);
}

}  // namespace

ErrorBarsOf laplace_error_bars(const Problem& problem, ThreadPool& pool) {
  return [&problem, &pool](const std::vector<FittedMember>& members, const EnsembleFields& reported,
                           const std::vector<double>& weights_of_constant) {
    ErrorBars bars;
    bars.method = UncertaintyKind::laplace;
    const ParameterLayout layout(problem.model);
    if (layout.n_network == 0 && layout.free_pixels.empty()) return bars;  // nothing to marginalize
    Problem fitted = problem;
    fitted.regularization = members.front().weights;
    const Laplace laplace(fitted, members.front().parameters, pool);
    if (layout.n_free() > 0) bars.scalars = laplace.scalars();
    if (layout.n_network == 0) return bars;
    FieldErrors& errors = bars.fields.emplace(laplace.fields(weights_of_constant));
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

Significance significance(const Observation& observation, const std::vector<double>& kappa,
                          const std::vector<double>& sigma) {
  Significance found;
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
  return text + "Its most significant values are " + peak(*s.highest) + " and " + peak(*s.lowest) + ".";
}

}  // namespace einfield
