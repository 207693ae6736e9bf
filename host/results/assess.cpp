// Means over the members that count, maps of the mean model, and numbers that compare it with the data and the truth.
#include "host/results/assess.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "einfield/error.hpp"
#include "einfield/units.hpp"
#include "host/cpu/noise_whitening.hpp"
#include "host/fields/light_flux.hpp"
#include "host/fields/psf_smoothing.hpp"
#include "host/fields/source_plane.hpp"
#include "host/files/text.hpp"
#include "host/results/stored_result.hpp"
#include "host/results/verdict.hpp"

namespace einfield {
namespace {

DataFit data_fit(const Observation& observation, LossKind kind, const std::vector<double>& image) {
  double squares = 0, chi2 = 0;
  std::vector<double> in_sigma;
  for (std::size_t i = 0; i < image.size(); ++i) {
    if (!observation.mask[i]) continue;
    const double residual = image[i] - observation.image[i];
    squares += residual * residual;
    in_sigma.push_back(residual / observation.noise[i]);
  }
  whitening_of(observation).whiten(in_sigma.data());
  for (const double z : in_sigma) chi2 += z * z;
  const double n = observation.n_used();
  return {(kind == LossKind::chi2 ? chi2 : squares) / n, chi2 / n};
}

/// The model in which every number is the mean over the members. Weights are those of the first member: their mean is
/// not a meaningful network.
Model mean_model(const std::vector<Model>& members) {
  Model mean = members.front();
  const auto average = [&](auto Model::*block) {
    for (std::size_t i = 0; i < (mean.*block).size(); ++i) {
      std::vector<std::vector<double>> values;
      for (const Model& member : members) values.push_back((member.*block)[i].values);
      (mean.*block)[i].values = mean_of(values);
    }
  };
  const auto average_pixels = [&](std::vector<LightComponent> Model::*block) {
    for (std::size_t i = 0; i < (mean.*block).size(); ++i) {
      std::vector<std::vector<double>> pixels;
      for (const Model& member : members) pixels.push_back((member.*block)[i].pixels);
      (mean.*block)[i].pixels = mean_of(pixels);
    }
  };
  average(&Model::lens);
  for (const auto block : {&Model::source, &Model::lens_light}) {
    average(block);
    average_pixels(block);
  }
  return mean;
}

/// The images of the first member, and the mean over the members of what is not lensed.
void render_lights(Assessment& fit, ThreadPool& pool) {
  const Observation& observation = fit.loaded.problem.observation;
  fit.first_images = model_images(fit.models.front(), fit.weights.front(), observation, 1, pool);
  std::vector<std::vector<double>> lens_light = {fit.first_images.lens_light};
  for (std::size_t k = 1; k < fit.members(); ++k) {
    Model light = fit.models[k];
    light.source.clear();
    lens_light.push_back(model_images(light, {}, observation, 1, pool).lens_light);
  }
  fit.lens_light = mean_of(lens_light);
}

/// @param fit  with its model, weights and images
Derived derived(const Assessment& fit, ThreadPool& pool) {
  const Observation& observation = fit.loaded.problem.observation;
  const double scale = observation.grid.pixel_scale;
  Derived result;
  StoredLens lens = stored_lens(fit);
  result.curves = critical_curves_of(lens, observation.mask, pool);
  const double radius = result.einstein_radius = result.smooth_radius = effective_radius(result.curves);
  if (!lens.networks.empty()) {
    lens.networks.clear();
    result.smooth_radius = effective_radius(critical_curves_of(lens, observation.mask, pool));
  }
  // The mean convergence inside is 1: exactly for circular and for isothermal lenses.
  const std::optional<Cosmology>& cosmology = fit.config.cosmology;
  result.einstein_mass = cosmology ? kPi * radius * radius * cosmology->mass_per_square_arcsec() : std::nan("");
  for (const LightComponent& light : fit.model.source) result.source_flux += total_flux(light, scale);
  for (const LightComponent& light : fit.model.lens_light) result.lens_flux += total_flux(light, scale);
  double lensed = 0;
  for (std::size_t i = 0; i < fit.image.size(); ++i) lensed += fit.image[i] - fit.lens_light[i];
  result.magnification = lensed / result.source_flux;
  const auto magnitude = [zero_point = fit.loaded.zero_point](double flux) {
    return zero_point && flux > 0 && std::isfinite(flux) ? *zero_point - 2.5 * std::log10(flux) : std::nan("");
  };
  result.source_magnitude = magnitude(result.source_flux);
  result.lens_magnitude = magnitude(result.lens_flux);
  return result;
}

/// A map minus its weighted mean.
std::vector<double> centered(std::vector<double> map, const std::vector<double>& weights) {
  const double offset = weighted_mean(map, weights);
  for (double& v : map) v -= offset;
  return map;
}

/// How often the truth lies within the error bars, over all used pixels and over the arcs.
std::vector<std::pair<std::string, Coverage>> coverages(const Assessment& fit, const FieldErrors& errors) {
  std::vector<std::pair<std::string, Coverage>> result;
  const Truth& truth = *fit.loaded.truth;
  const Observation& observation = fit.loaded.problem.observation;
  const LensFields& mean = fit.network.mean;
  const auto add = [&](const std::string& where, const std::vector<std::size_t>& pixels) {
    const auto put = [&](const char* name, const std::vector<double>& found, const std::vector<double>& sigma,
                         const std::vector<double>& expected) {
      std::vector<std::size_t> determined;
      for (const std::size_t i : pixels)
        if (std::isfinite(sigma[i])) determined.push_back(i);
      result.emplace_back(std::string(name) + "_" + where, coverage(found, sigma, expected, determined));
    };
    if (!truth.potential.empty())
      put("psi", centered(mean.potential, fit.constant_weights), errors.sigma.potential,
          centered(truth.potential, fit.constant_weights));
    if (!truth.deflection.empty()) {
      const auto n = static_cast<std::ptrdiff_t>(truth.deflection.size() / 2);
      const auto y = [n](const std::vector<double>& map) { return std::vector<double>(map.begin() + n, map.end()); };
      put("alpha_x", mean.deflection, errors.sigma.deflection, truth.deflection);
      put("alpha_y", y(mean.deflection), y(errors.sigma.deflection), y(truth.deflection));
    }
    if (truth.convergence.empty()) return;
    put("kappa", mean.convergence, errors.sigma.convergence, truth.convergence);
    if (!errors.kappa_psf.empty())
      put("kappa_psf", fit.kappa_psf, errors.kappa_psf, PsfSmoothing(observation)(truth.convergence));
  };
  add("all", region(observation, nullptr));
  if (!truth.image.empty()) add("arc", region(observation, &truth.image));
  return result;
}

/// Error bars of the maps and, where they are marginalized, of the profile parameters.
void add_error_bars(Assessment& fit, const std::vector<FittedMember>& members, const ErrorBarsOf& error_bars,
                    ThreadPool& pool) {
  const Problem& problem = fit.loaded.problem;
  const UncertaintyKind method = fit.config.uncertainty.method;
  if (method == UncertaintyKind::none) {
    fit.network.deviation = {};
    return;
  }
  if (method == UncertaintyKind::spread) {
    if (fit.members() < 2) return;
    fit.error_bars.emplace().method = method;
    fit.error_bars->fields = FieldErrors{fit.network.deviation, {}};
  } else if (error_bars) {
    fit.error_bars = error_bars(members, fit.network, fit.constant_weights);
  } else {
    EINFIELD_REQUIRE(
        method == UncertaintyKind::laplace,
        "results of a fit: uncertainty.method = \"randomized\" without its members, expected another method");
    fit.error_bars = laplace_error_bars(problem, pool)(members, fit.network, fit.constant_weights);
  }
  const std::optional<FieldErrors>& fields = fit.error_bars->fields;
  if (fields) {
    fit.network.deviation = fields->sigma;
    const bool smoothed = !fields->kappa_psf.empty();
    if (smoothed) fit.kappa_psf = PsfSmoothing(problem.observation)(fit.network.mean.convergence);
    if (method != UncertaintyKind::spread)
      fit.significance = smoothed ? significance(problem, fit.data.chi2_reduced, fit.kappa_psf, fields->kappa_psf)
                                  : significance(problem, fit.data.chi2_reduced, fit.network.mean.convergence,
                                                 fields->sigma.convergence);
    const std::optional<Evidence>& evidence = fit.outcome().evidence;
    if (fit.significance && evidence) fit.significance->evidence_gain = evidence->network_gain();
    if (fit.loaded.truth) fit.coverages = coverages(fit, *fields);
  }
  if (!fit.uncertainties || !fit.error_bars->scalars) return;
  // Flags of convergence need step and fall at a fixed network; everything else is marginalized.
  const MarginalErrors& marginal = *fit.error_bars->scalars;
  fit.uncertainties->sigma = marginal.sigma;
  fit.uncertainties->correlations = marginal.correlations;
  fit.uncertainties->degeneracies = marginal.degeneracies;
}

template <class Real>
bool went_wrong(const FitResult<Real>& result) {
  return result.stop_reason == StopReason::non_finite;
}

/// What each member brings to the means.
struct Members {
  std::vector<FittedMember> fitted;
  std::vector<std::vector<double>> images;
  std::vector<LensFields> networks;
};

/// Fills everything about single members: outcomes, models, weights, history, starts, warnings.
template <class Real>
Members collect_members(Assessment& fit, const std::vector<FitResult<Real>>& results,
                        const std::vector<std::vector<Real>>& model_images,
                        const std::vector<NetworkFields<Real>>& networks, const std::vector<double>& theta,
                        ThreadPool& pool) {
  const Problem& problem = fit.loaded.problem;
  const Model& model = problem.model;
  const std::vector<std::string> excluded = left_out(fit.config, results);
  fit.warnings = fit.config.warnings;
  fit.warnings.insert(fit.warnings.end(), fit.loaded.warnings.begin(), fit.loaded.warnings.end());
  Members members;
  for (std::size_t k = 0; k < results.size(); ++k) {
    const FitResult<Real>& r = results[k];
    std::optional<Evidence> evidence = r.snapshot.evidence;
    if (evidence) evidence->weights = relative_to_noise(evidence->weights, problem.observation, problem.loss);
    fit.outcomes.push_back({r.stop_reason, r.message, r.steps, r.state_step, r.evaluations, r.time_s, r.final_state,
                            std::move(evidence), excluded[k], r.stages});
    if (!excluded[k].empty()) {
      if (r.message.empty()) fit.warnings.push_back(excluded[k]);
      continue;
    }
    members.images.emplace_back(model_images[k].begin(), model_images[k].end());
    const std::vector<double>& parameters =
        members.fitted.emplace_back(FittedMember{{r.parameters.begin(), r.parameters.end()}, r.snapshot.evidence})
            .parameters;
    const std::vector<double>& weights = fit.weights.emplace_back(
        parameters.begin(), parameters.begin() + static_cast<std::ptrdiff_t>(fit.layout.n_network));
    fit.models.push_back(with_parameters(model, fit.layout, parameters));
    if (!networks.empty())
      members.networks.push_back(in_double(networks[k]));
    else
      members.networks.push_back(model.network ? network_fields<Real>(*model.network, weights, theta, pool)
                                               : zero_fields(theta.size() / 2));
  }
  // A failed first member stands for the fit, so that the failure is reported; otherwise the first one that counts.
  if (!went_wrong(results.front()))
    fit.reported = static_cast<std::size_t>(std::find(excluded.begin(), excluded.end(), "") - excluded.begin());
  fit.history = results[fit.reported].snapshot.history;
  fit.starts = results[fit.reported].snapshot.starts;
  if (const int reached = reached_best(fit.starts); fit.starts.size() > 1 && reached < 2)
    fit.warnings.push_back(
        fmt::format("optimizer.starts: only {} of {} starts reached the best chi2, expected several: it may not be "
                    "the lowest; raise optimizer.starts",
                    reached, fit.starts.size()));
  return members;
}

std::string region_summary(const RegionErrors& errors) {
  return "psi " + percent(errors.psi_relative_rms) + ", alpha " + percent(errors.alpha_relative_rms) +
         fmt::format(", kappa {:.2g} (rms)", errors.kappa_rms);
}

}  // namespace

template <class Real>
std::vector<std::string> left_out(const Config& config, const std::vector<FitResult<Real>>& results) {
  const auto value = [](const FitResult<Real>& r) { return r.final_state.loss + r.final_state.regularization; };
  double lowest = kInfinity;
  for (const FitResult<Real>& r : results)
    if (!went_wrong(r)) lowest = std::min(lowest, value(r));
  const auto is_far = [&](const FitResult<Real>& r) { return value(r) > (1 + kFarAbove) * lowest; };
  const auto together = std::count_if(results.begin(), results.end(),
                                      [&](const FitResult<Real>& r) { return !went_wrong(r) && !is_far(r); });
  const bool most = 2 * together > static_cast<std::ptrdiff_t>(results.size());
  std::vector<std::string> why(results.size());
  for (std::size_t k = 0; k < results.size() && together > 0; ++k) {
    const FitResult<Real>& r = results[k];
    if (went_wrong(r))
      why[k] = r.message;
    else if (most && is_far(r))
      why[k] = fmt::format(
          "the network of seed {} ended far above the others: loss plus regularization {:.5g}, the lowest is {:.5g}; "
          "it "
          "is excluded from the averages",
          config.network->seed + k, value(r), lowest);
  }
  return why;
}

template <class Real>
Assessment assess(const Config& config, const LoadedProblem& loaded, const std::vector<FitResult<Real>>& results,
                  const std::vector<std::vector<Real>>& model_images, ThreadPool& pool,
                  const UncertaintiesOf& uncertainties, const std::vector<NetworkFields<Real>>& networks,
                  const ErrorBarsOf& error_bars) {
  const Problem& problem = loaded.problem;
  const Observation& observation = problem.observation;
  EINFIELD_REQUIRE(!results.empty() && model_images.size() == results.size(),
                   "results of a fit: " + std::to_string(results.size()) + " results and " +
                       std::to_string(model_images.size()) + " model images, expected one image per result");
  EINFIELD_REQUIRE(results.size() == 1 || config.network,
                   "results of a fit: " + std::to_string(results.size()) +
                       " members of an ensemble, but the configuration has no network");
  Assessment fit;
  fit.config = config;
  fit.loaded = loaded;
  fit.layout = ParameterLayout(problem.model);
  const auto [method, problem_with_method] = possible_method(config, problem, pool.threads());
  fit.config.uncertainty.method = method;
  fit.double_precision = sizeof(Real) == 8;
  const std::vector<double> theta = pixel_centers(observation.grid);
  const Members members = collect_members(fit, results, model_images, networks, theta, pool);
  if (!problem_with_method.empty()) fit.warnings.push_back(problem_with_method);

  fit.model = mean_model(fit.models);
  fit.image = mean_of(members.images);
  render_lights(fit, pool);
  const StepState& state = fit.outcome().final_state;
  fit.data = results.size() == 1 && problem.held_out.empty() ? DataFit{state.loss, state.chi2_reduced}
                                                             : data_fit(observation, problem.loss, fit.image);
  fit.smooth = smooth_fields(fit.model.lens, theta, pool);
  const std::vector<double> beta = source_positions(theta, fit.smooth, mean_of(members.networks));
  fit.sensitivity = sensitivity<Real>(fit.models, observation, beta, pool);
  fit.constant_weights = weights_of_constant(fit.sensitivity, observation);
  fit.network = ensemble_fields(members.networks, fit.constant_weights);

  fit.source_grid = source_grid<Real>(fit.models, observation, beta, pool);
  if (fit.model.source.size() != 1 || fit.model.source[0].kind != LightKind::pixelated) {
    const PixelGrid& g = fit.source_grid;
    fit.source = source_brightness<Real>(fit.models,
                                         pixel_centers({g.nx, g.ny, g.pixel_scale, g.center_x, g.center_y, 1}), pool);
  }

  fit.derived = derived(fit, pool);
  if (loaded.truth) fit.errors = truth_errors(observation, *loaded.truth, fit.image, fit.network.mean);
  if (fit.members() > 1) {
    std::vector<std::vector<double>> tables;
    for (const Model& model : fit.models) tables.push_back(ParameterLayout(model).table);
    const std::vector<double> scatter = deviation_of(tables);
    for (const FreeParameter<double>& free : fit.layout.free)
      fit.deviation.push_back(scatter[static_cast<std::size_t>(free.slot)]);
  }
  const bool all_wrong =
      std::all_of(results.begin(), results.end(), [](const FitResult<Real>& r) { return went_wrong(r); });
  fit.first_parameters = members.fitted.front().parameters;
  if (fit.layout.n_free() > 0 && !all_wrong) fit.uncertainties = uncertainties(problem, fit.first_parameters);
  if (!all_wrong) add_error_bars(fit, members.fitted, error_bars, pool);
  fit.flags = raise_flags(fit, pool, uncertainties);
  if (method == UncertaintyKind::none) fit.uncertainties.reset();
  return fit;
}

std::string summary(const Assessment& fit) {
  const MemberOutcome& outcome = fit.outcome();
  std::string text = fit.members() > 1 ? fmt::format("mean of {} networks: ", fit.members()) : "";
  text += std::isfinite(fit.data.chi2_reduced) ? fmt::format("reduced chi2 {:.5g}", fit.data.chi2_reduced)
                                               : "reduced chi2 is not a finite number";
  text += fmt::format(" after {} steps in {:.3g} s", outcome.steps, outcome.time_s);
  if (outcome.steps > 0)
    text += fmt::format(" ({:.3g} ms a step)", 1e3 * outcome.time_s / static_cast<double>(outcome.steps));
  if (outcome.state_step != outcome.steps) text += fmt::format(", best state at step {}", outcome.state_step);
  if (const std::optional<TruthErrors>& errors = fit.errors)
    text += fmt::format("; against the truth: image {:.2g} sigma; on the arcs ", errors->image_rms_over_sigma) +
            region_summary(errors->arc) + "; on all used pixels " + region_summary(errors->all);
  return text;
}

template std::vector<std::string> left_out(const Config&, const std::vector<FitResult<float>>&);
template std::vector<std::string> left_out(const Config&, const std::vector<FitResult<double>>&);
template Assessment assess(const Config&, const LoadedProblem&, const std::vector<FitResult<float>>&,
                           const std::vector<std::vector<float>>&, ThreadPool&, const UncertaintiesOf&,
                           const std::vector<NetworkFields<float>>&, const ErrorBarsOf&);
template Assessment assess(const Config&, const LoadedProblem&, const std::vector<FitResult<double>>&,
                           const std::vector<std::vector<double>>&, ThreadPool&, const UncertaintiesOf&,
                           const std::vector<NetworkFields<double>>&, const ErrorBarsOf&);

}  // namespace einfield
