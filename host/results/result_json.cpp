// Builds the text of result.json and history.csv; write_results.cpp writes the files.
#include "host/results/result_json.hpp"

#include <algorithm>
#include <cmath>
#include <optional>
#include <sstream>

#include "host/files/text.hpp"
#include "host/files/toml.hpp"
#include "host/files/version.hpp"
#include "host/results/resolution.hpp"
#include "host/results/verdict.hpp"

namespace einfield {
namespace {

using nlohmann::ordered_json;

/// Calls visit(name, profile, values) for every component: "lens.0", …
template <class Visit>
void for_each_component(const Model& model, Visit&& visit) {
  for (std::size_t i = 0; i < model.lens.size(); ++i)
    visit("lens." + std::to_string(i), lens_info(model.lens[i].kind), model.lens[i].values);
  for (std::size_t i = 0; i < model.source.size(); ++i)
    visit("source." + std::to_string(i), light_info(model.source[i].kind), model.source[i].values);
  for (std::size_t i = 0; i < model.lens_light.size(); ++i)
    visit("lens_light." + std::to_string(i), light_info(model.lens_light[i].kind), model.lens_light[i].values);
}

/// The configuration as the same tree in JSON.
ordered_json config_json(const std::string& toml_text) {
  std::ostringstream json;
  json << toml::json_formatter(toml::parse(toml_text));
  return ordered_json::parse(json.str());
}

ordered_json optional_json(const std::optional<double>& value) {
  return value ? ordered_json(*value) : ordered_json();
}

ordered_json coverage_json(const Assessment& fit) {
  ordered_json json = ordered_json::object();
  for (const auto& [name, coverage] : fit.coverages)
    json[name] = {{"1_sigma", number_or_null(coverage.one)}, {"2_sigma", number_or_null(coverage.two)}};
  return json;
}

/// The result of each member of an ensemble, how far they scatter and, with a truth, how far the scatter can be
/// trusted.
ordered_json ensemble_json(const Assessment& fit) {
  ordered_json json;
  for (std::size_t k = 0; k < fit.outcomes.size(); ++k) {
    const MemberOutcome& outcome = fit.outcomes[k];
    ordered_json member = {{"seed", fit.config.network->seed + k},
                           {"stop_reason", name_of(outcome.stop_reason)},
                           {"steps", outcome.steps},
                           {"state_step", outcome.state_step},
                           {"loss", outcome.final_state.loss},
                           {"chi2_reduced", outcome.final_state.chi2_reduced}};
    if (!outcome.message.empty()) member["message"] = outcome.message;
    if (!outcome.left_out.empty()) member["left_out"] = outcome.left_out;
    json["members"].push_back(member);
  }
  if (fit.members() < 2) return json;
  json["parameters_std"] = ordered_json::object();
  for (std::size_t i = 0; i < fit.layout.n_free(); ++i) json["parameters_std"][fit.layout.names[i]] = fit.deviation[i];
  if (fit.config.uncertainty.method == UncertaintyKind::spread && !fit.coverages.empty())
    json["coverage"] = coverage_json(fit);
  return json;
}

/// What the error bars of the maps are, what they say and, with a truth, how often it lies within them.
ordered_json uncertainty_json(const Assessment& fit) {
  const ErrorBars& bars = *fit.error_bars;
  ordered_json json = {{"method", name_of(bars.method)}, {"text", in_words(bars)}};
  if (bars.method == UncertaintyKind::randomized) {
    json["members"] = bars.members;
    json["converged"] = bars.converged;
    json["redrawn"] = bars.redrawn;
    json["not_redrawn"] = bars.not_redrawn;
  }
  if (!bars.notes.empty()) json["notes"] = bars.notes;
  if (bars.fields && fit.significance) {
    const Resolution r = resolution(fit.loaded.problem.observation, *fit.model.network, fit.weights.front());
    json["resolution"] = {{"fwhm", r.fwhm}, {"text", in_words(r)}};
  }
  if (const std::optional<Significance>& s = fit.significance) {
    const auto peak = [](const std::optional<Significance::Peak>& p) {
      if (!p) return ordered_json();
      return ordered_json{{"x", p->x}, {"y", p->y}, {"kappa", p->kappa}, {"sigma", p->sigma}, {"snr", p->ratio()}};
    };
    json["significant"] = {{"text", in_words(*s, !fit.kappa_psf.empty())},
                           {"pixels", s->pixels},
                           {"above_3_sigma", s->above_3},
                           {"above_5_sigma", s->above_5},
                           {"below_3_sigma", s->below_3},
                           {"below_5_sigma", s->below_5},
                           {"highest", peak(s->highest)},
                           {"lowest", peak(s->lowest)}};
  }
  if (!fit.coverages.empty()) json["coverage"] = coverage_json(fit);
  return json;
}

ordered_json flags_json(const std::vector<RaisedFlag>& flags) {
  ordered_json json = ordered_json::array();
  for (const RaisedFlag& raised : flags) json.push_back({{"name", flag_info(raised.flag).name}, {"text", raised.text}});
  return json;
}

/// What the errors of the profile parameters are.
std::string method_of_parameters(const Assessment& fit) {
  const bool network = fit.layout.n_network > 0, pixels = !fit.layout.free_pixels.empty();
  const std::string others = std::string(network ? "network weights" : "") + (network && pixels ? " and " : "") +
                             (pixels ? "source pixels" : "");
  const auto with = [&others](const std::string& method, const std::string& before, const std::string& after) {
    return method + (others.empty() ? "" : "; " + before + others + after);
  };
  if (!fit.error_bars || !fit.error_bars->scalars)
    return with("Gauss-Newton curvature, noise as given", "", " held fixed");
  if (fit.error_bars->method == UncertaintyKind::randomized)
    return with("scatter of fits with noise and priors drawn again", "marginalized over ", "");
  return with("Gauss-Newton curvature of the whole problem, noise as given", "marginalized over ", "");
}

ordered_json uncertainties_json(const Uncertainties& errors, const Assessment& fit) {
  const std::vector<std::string>& names = fit.layout.names;
  ordered_json json = {{"method", method_of_parameters(fit)},
                       {"sigma", ordered_json::object()},
                       {"correlations", {{"names", names}, {"matrix", ordered_json::array()}}}};
  for (std::size_t i = 0; i < names.size(); ++i) {
    json["sigma"][names[i]] = number_or_null(errors.sigma[i]);
    ordered_json row = ordered_json::array();
    for (std::size_t j = 0; j < names.size(); ++j) row.push_back(number_or_null(errors.correlations(i, j)));
    json["correlations"]["matrix"].push_back(row);
  }
  json["not_determined"] = ordered_json::array();
  for (const Degeneracy& degeneracy : errors.degeneracies) {
    ordered_json changes = ordered_json::object();
    for (const Degeneracy::Change& change : degeneracy.changes) changes[names[change.parameter]] = change.amount;
    json["not_determined"].push_back({{"text", in_words(degeneracy, names, fit.model)}, {"changes", changes}});
  }
  return json;
}

ordered_json starts_json(const OptimizerConfig& optimizer, const std::vector<StartRecord>& starts,
                         const std::vector<std::string>& names) {
  int redrawn = 0;
  ordered_json runs = ordered_json::array();
  for (const StartRecord& start : starts) {
    redrawn += start.redrawn;
    ordered_json run = {{"chi2_reduced", number_or_null(start.chi2_reduced)},
                        {"value", number_or_null(start.value)},
                        {"steps", start.steps},
                        {"given_up_early", start.alive && !start.finished},
                        {"dead", !start.alive},
                        {"best", start.best},
                        {"parameters", ordered_json::object()}};
    for (std::size_t i = 0; i < names.size(); ++i) run["parameters"][names[i]] = number_or_null(start.free[i]);
    runs.push_back(run);
  }
  return {{"count", starts.size()},   {"seed", optimizer.starts_seed},        {"redrawn", redrawn},
          {"tolerance", kSameValley}, {"reached_best", reached_best(starts)}, {"runs", runs}};
}

ordered_json evidence_json(const Evidence& evidence) {
  ordered_json weights = ordered_json::object();
  for (const Regularization::Weight& weight : Regularization::kWeights)
    weights[weight.name] = evidence.weights.*weight.member;
  return {{"log_evidence", number_or_null(evidence.log_evidence)},
          {"misfit", number_or_null(evidence.misfit)},
          {"log_prior", number_or_null(evidence.log_prior)},
          {"log_posterior", number_or_null(evidence.log_posterior)},
          {"constant", number_or_null(evidence.constant)},
          {"log_evidence_without_network", optional_json(evidence.without_network)},
          {"determined_source", number_or_null(evidence.determined_source)},
          {"determined_network", number_or_null(evidence.determined_network)},
          {"regularization", weights}};
}

ordered_json grid_json(const Grid& grid) {
  return {{"nx", grid.nx},
          {"ny", grid.ny},
          {"pixel_scale", grid.pixel_scale},
          {"center_x", grid.center_x},
          {"center_y", grid.center_y},
          {"supersampling", grid.supersampling}};
}

ordered_json network_json(const NetworkShape& shape, std::size_t members) {
  ordered_json json = {{"hidden", shape.hidden},
                       {"activation", "swish"},
                       {"input_scale", shape.input_scale},
                       {"encoding", shape.fourier_features > 0 ? "fourier" : "none"},
                       {"members", members}};
  if (shape.fourier_features > 0) json["fourier_features"] = shape.fourier_features;
  return json;
}

}  // namespace

ordered_json number_or_null(double value) {
  return std::isfinite(value) ? ordered_json(value) : ordered_json(nullptr);
}

ordered_json wcs_json(const CelestialWcs& wcs) {
  return {{"type", wcs.type},
          {"cd", wcs.cd},
          {"reference_pixel", wcs.reference_pixel},
          {"reference_value", wcs.reference_value},
          {"frame", wcs.frame.empty() ? ordered_json() : ordered_json(wcs.frame)},
          {"equinox", optional_json(wcs.equinox)},
          {"pole_lon", optional_json(wcs.pole_lon)},
          {"pole_lat", optional_json(wcs.pole_lat)},
          {"position_angle_y", wcs.position_angle(kPi / 2)},
          {"mirrored", !wcs.right_handed()}};
}

std::string history_csv(const std::vector<HistoryRow>& history, const std::vector<std::string>& names) {
  // The last fixed column appears only with pixels that are held out.
  const bool held_out =
      std::any_of(history.begin(), history.end(), [](const HistoryRow& row) { return row.held_out_chi2 > 0; });
  std::string text = "step,time_s,loss,chi2_reduced,regularization,learning_rate,gradient_norm";
  if (held_out) text += ",held_out_chi2";
  const auto add = [&text](const std::string& field) {
    text += ',';
    text += field;
  };
  for (const std::string& name : names) add(name);
  text += '\n';
  for (const HistoryRow& row : history) {
    text += to_text(row.step);
    for (const double v :
         {row.time_s, row.loss, row.chi2_reduced, row.regularization, row.learning_rate, row.gradient_norm})
      add(to_text(v));
    if (held_out) add(to_text(row.held_out_chi2));
    for (const double v : row.free) add(to_text(v));
    text += '\n';
  }
  return text;
}

std::vector<std::pair<std::string, double>> metrics_of(const Assessment& fit) {
  std::vector<std::pair<std::string, double>> metrics = {{"loss", fit.data.loss},
                                                         {"chi2_reduced", fit.data.chi2_reduced}};
  if (const std::optional<TruthErrors>& errors = fit.errors)
    metrics.insert(metrics.end(), {{"image_rms_over_sigma", errors->image_rms_over_sigma},
                                   {"psi_relative_rms_all", errors->all.psi_relative_rms},
                                   {"psi_relative_rms_arc", errors->arc.psi_relative_rms},
                                   {"alpha_relative_rms_all", errors->all.alpha_relative_rms},
                                   {"alpha_relative_rms_arc", errors->arc.alpha_relative_rms},
                                   {"kappa_rms_all", errors->all.kappa_rms},
                                   {"kappa_rms_arc", errors->arc.kappa_rms}});
  return metrics;
}

std::string result_json(const Assessment& fit, const RunInfo& info) {
  const MemberOutcome& outcome = fit.outcome();
  const LoadedProblem& loaded = fit.loaded;
  const std::string toml_text = to_toml(fit.config);
  ordered_json json = {{"version", version()},
                       {"status", name_of(fit.status())},
                       {"flags", flags_json(fit.flags)},
                       {"backend", info.backend},
                       {"device", info.device},
                       {"precision", info.precision},
                       {"seed", nullptr},
                       {"stop_reason", name_of(outcome.stop_reason)},
                       {"steps", outcome.steps},
                       {"state_step", outcome.state_step},
                       {"evaluations", outcome.evaluations},
                       {"time_total_s", outcome.time_s},
                       {"time_per_step_ms", nullptr},
                       {"metrics", ordered_json::object()},
                       {"einstein_radius_effective", number_or_null(fit.derived.einstein_radius)},
                       {"einstein_mass", number_or_null(fit.derived.einstein_mass)},
                       {"magnification", number_or_null(fit.derived.magnification)},
                       {"source_flux", number_or_null(fit.derived.source_flux)},
                       {"lens_flux", number_or_null(fit.derived.lens_flux)},
                       {"zero_point", loaded.zero_point ? ordered_json(*loaded.zero_point) : ordered_json()},
                       {"source_magnitude", number_or_null(fit.derived.source_magnitude)},
                       {"lens_magnitude", number_or_null(fit.derived.lens_magnitude)},
                       {"profiles", ordered_json::object()},
                       {"parameters", ordered_json::object()},
                       {"free", fit.layout.names},
                       {"grid", grid_json(loaded.problem.observation.grid)},
                       {"wcs", loaded.wcs ? wcs_json(*loaded.wcs) : ordered_json()},
                       {"network", nullptr},
                       {"light_network", nullptr},
                       {"config", config_json(toml_text)},
                       {"config_toml", toml_text}};
  for (const auto& [name, value] : metrics_of(fit)) json["metrics"][name] = value;
  if (outcome.stages.size() > 1)
    for (const StageEnd& stage : outcome.stages)
      json["stages"].push_back({{"stop_reason", name_of(stage.reason)}, {"steps", stage.steps}});
  if (!info.command.empty()) json["command"] = info.command;
  if (!fit.warnings.empty()) json["warnings"] = fit.warnings;
  if (fit.config.network) json["seed"] = fit.config.network->seed;
  if (fit.model.network) json["network"] = network_json(*fit.model.network, fit.members());
  if (fit.members() > 1) json["network"]["potential_offsets"] = fit.network.offsets;
  if (const LightComponent* const light = network_light(fit.model))
    json["light_network"] = network_json(light->network, fit.members());
  if (!outcome.message.empty()) json["message"] = outcome.message;
  if (outcome.steps > 0) json["time_per_step_ms"] = 1e3 * outcome.time_s / static_cast<double>(outcome.steps);
  for_each_component(fit.model,
                     [&json](const std::string& name, const ProfileInfo& profile, const std::vector<double>& numbers) {
                       json["profiles"][name] = profile.name;
                       for (std::size_t i = 0; i < numbers.size(); ++i)
                         json["parameters"][name + "." + profile.parameters[i].name] = numbers[i];
                     });
  if (fit.outcomes.size() > 1) json["ensemble"] = ensemble_json(fit);
  if (fit.error_bars && (fit.error_bars->fields || fit.error_bars->scalars))
    json["uncertainty"] = uncertainty_json(fit);
  if (fit.uncertainties) json["uncertainties"] = uncertainties_json(*fit.uncertainties, fit);
  if (outcome.evidence) json["evidence"] = evidence_json(*outcome.evidence);
  if (!fit.starts.empty()) json["starts"] = starts_json(fit.config.optimizer, fit.starts, fit.layout.names);
  return json.dump(2, ' ', false, ordered_json::error_handler_t::replace) + "\n";
}

}  // namespace einfield
