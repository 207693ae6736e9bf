// The fingerprint from the data, the model and the settings of a fit.
#include "host/results/fingerprint.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>

#include "einfield/error.hpp"
#include "einfield/load.hpp"
#include "einfield/units.hpp"
#include "host/files/text.hpp"
#include "host/model/parameter_slots.hpp"

namespace einfield {
namespace {

template <class T>
std::string described(const std::vector<T>& values) {
  Checksum checksum;
  checksum.add(values.data(), values.size() * sizeof(T));
  return fmt::format("{} values of checksum {:016x}", values.size(), checksum.value());
}

void add_profile(Fingerprint& print, const std::string& name, const ProfileInfo& info,
                 const std::vector<double>& values, const std::vector<std::uint8_t>& free,
                 const std::vector<ParameterPrior>& priors, const std::vector<Relation>& follows) {
  print.emplace_back(name + ".profile", info.name);
  std::string names;
  for (std::size_t i = 0; i < values.size(); ++i) {
    const bool related = !follows.empty() && follows[i].given();
    print.emplace_back(name + "." + info.parameters[i].name, related ? to_text(follows[i]) : to_text(values[i]));
    if (free[i]) names += (names.empty() ? "" : ", ") + std::string(info.parameters[i].name);
  }
  print.emplace_back(name + ".fit", "[" + names + "]");
  for (std::size_t i = 0; i < priors.size(); ++i) {
    const ParameterPrior& prior = priors[i];
    if (prior.bounded())
      print.emplace_back(name + ".bounds." + info.parameters[i].name,
                         "[" + to_text(prior.lower) + ", " + to_text(prior.upper) + "]");
    if (prior.gaussian())
      print.emplace_back(name + ".prior." + info.parameters[i].name,
                         "mean " + (prior.mean_of.given() ? to_text(prior.mean_of) : to_text(prior.mean)) + ", sigma " +
                             to_text(prior.sigma));
  }
}

void add_shape(Fingerprint& print, const std::string& name, const NetworkShape& shape) {
  std::string hidden;
  for (const int width : shape.hidden) hidden += (hidden.empty() ? "" : ", ") + std::to_string(width);
  const bool fourier = shape.fourier_features > 0;
  print.emplace_back(name + ".encoding", fourier ? "fourier" : "none");
  if (fourier) print.emplace_back(name + ".fourier_features", to_text(shape.fourier_features));
  print.emplace_back(name + ".hidden", "[" + hidden + "]");
  print.emplace_back(name + ".input_scale", to_text(shape.input_scale));
}

void add_spectrum(Fingerprint& print, const std::string& name, const FourierSpectrum& spectrum) {
  print.emplace_back(name + ".frequencies", name_of(spectrum.frequencies));
  print.emplace_back(name + ".fourier_scale", to_text(spectrum.scale));
}

void add_lights(Fingerprint& print, const std::string& block, const std::vector<LightComponent>& lights,
                const std::vector<LightStart>& starts) {
  print.emplace_back(block, std::to_string(lights.size()) + " components");
  for (std::size_t i = 0; i < lights.size(); ++i) {
    const LightComponent& c = lights[i];
    const std::string name = block + "." + std::to_string(i);
    add_profile(print, name, light_info(c.kind), c.values, c.free, c.priors, c.follows);
    if (c.kind == LightKind::sersic_ellipse) print.emplace_back(name + ".radius", name_of(c.radius));
    if (c.kind == LightKind::network) {
      add_shape(print, name, c.network);
      const NetworkConfig& start = starts.at(i).network;
      if (start.initial.empty()) {
        if (start.fourier) add_spectrum(print, name, start.spectrum());
        print.emplace_back(name + ".seed", to_text(start.seed));
      }
      print.emplace_back(name + ".initial", described(c.weights) + (c.weights_free ? ", free" : ", fixed"));
    }
    if (c.kind != LightKind::pixelated) continue;
    print.emplace_back(name + ".grid", std::to_string(c.grid.nx) + " x " + std::to_string(c.grid.ny) + " of " +
                                           to_text(c.grid.pixel_scale) + " arcsec around " + to_text(c.grid.center_x) +
                                           ", " + to_text(c.grid.center_y));
    print.emplace_back(name + ".pixels", described(c.pixels) + (c.pixels_free ? ", free" : ", fixed"));
  }
}

/// The number of updates of a stage that is over.
constexpr std::int64_t kEveryUpdate = std::numeric_limits<std::int64_t>::max();

/// One stage. Of its learning rates, only those that have been used count: all of them when the stage is over.
/// @param updates  done in this stage; kEveryUpdate when it is over
void add_stage(Fingerprint& print, const std::string& name, const StageConfig& s, std::int64_t updates) {
  std::string free;
  for (const std::string& n : s.free) free += (free.empty() ? "" : ", ") + n;
  print.emplace_back(name + ".name", name_of(s.name));
  print.emplace_back(name + ".free", "[" + free + "]");
  // "none" and "chi2" need nothing from earlier steps, so a resumed run may change one for the other.
  print.emplace_back(name + ".stop", keeps_last(s.stop) ? "none or chi2" : name_of(s.stop));
  if (s.own_starts > 0) print.emplace_back(name + ".starts", to_text(s.own_starts));
  if (s.valleys > 1) print.emplace_back(name + ".valleys", to_text(s.valleys));
  if (std::isfinite(s.leave_out_outer))
    print.emplace_back(name + ".leave_out", to_text(s.leave_out_inner) + " to " + to_text(s.leave_out_outer));
  if (s.name == OptimizerKind::lbfgs) {
    print.emplace_back(name + ".memory", to_text(s.memory));
    return;
  }
  if (s.name != OptimizerKind::adam) return;
  if (s.clip_norm > 0) print.emplace_back(name + ".clip_norm", to_text(s.clip_norm));
  if (updates == 0) return;
  std::vector<double> rates = learning_rates(s.learning_rate, s.steps, s.warmup, s.cosine);
  // Later updates use the last rate.
  rates.resize(std::min(rates.size(), static_cast<std::size_t>(updates)));
  const bool constant = std::adjacent_find(rates.begin(), rates.end(), std::not_equal_to<>()) == rates.end();
  print.emplace_back(name + ".learning_rate", constant ? to_text(rates[0]) : described(rates));
}

void add_observation(Fingerprint& print, const Observation& o) {
  print.emplace_back("observation.image",
                     std::to_string(o.grid.nx) + " x " + std::to_string(o.grid.ny) + ": " + described(o.image));
  print.emplace_back("observation.mask", described(o.mask));
  print.emplace_back("observation.noise", described(o.noise));
  if (const NoiseCorrelation& k = o.noise_correlation; !k.empty())
    print.emplace_back("observation.noise_correlation",
                       std::to_string(k.nx) + " x " + std::to_string(k.ny) + ": " + described(k.values));
  print.emplace_back("observation.psf",
                     std::to_string(o.psf.nx) + " x " + std::to_string(o.psf.ny) + ": " + described(o.psf.values));
  if (o.psf.supersampling > 1) print.emplace_back("observation.psf_supersampling", to_text(o.psf.supersampling));
  print.emplace_back("observation.pixel_scale", to_text(o.grid.pixel_scale));
  print.emplace_back("observation.center_x", to_text(o.grid.center_x));
  print.emplace_back("observation.center_y", to_text(o.grid.center_y));
  print.emplace_back("observation.supersampling", to_text(o.grid.supersampling));
}

void add_model(Fingerprint& print, const Config& config, const Model& model) {
  print.emplace_back("lens", std::to_string(model.lens.size()) + " components");
  for (std::size_t i = 0; i < model.lens.size(); ++i)
    add_profile(print, "lens." + std::to_string(i), lens_info(model.lens[i].kind), model.lens[i].values,
                model.lens[i].free, model.lens[i].priors, model.lens[i].follows);
  add_lights(print, "source", model.source, config.source_start);
  add_lights(print, "lens_light", model.lens_light, config.lens_light_start);
}

void add_network(Fingerprint& print, const Config& config, const Problem& problem) {
  const Model& model = problem.model;
  print.emplace_back("network", model.network ? "given" : "absent");
  if (model.network) {
    add_shape(print, "network", *model.network);
    print.emplace_back("network.math", name_of(problem.network_math));
    if (config.network && config.network->initial.empty()) {
      print.emplace_back("network.ensemble", to_text(config.network->ensemble));
      if (config.network->fourier) add_spectrum(print, "network", config.network->spectrum());
      print.emplace_back("network.seed", to_text(config.network->seed));
      print.emplace_back("network.last_layer", config.network->last_layer_zero ? "zero" : "random");
    }
    print.emplace_back("network.initial",
                       described(std::vector<double>(
                           problem.initial_parameters.begin(),
                           problem.initial_parameters.begin() + static_cast<std::ptrdiff_t>(model.network->size()))));
  }
}

/// @param stage, stage_step  where the fit is: the learning rates of later updates do not count
void add_optimizer(Fingerprint& print, const Config& config, const Problem& problem, int stage,
                   std::int64_t stage_step) {
  if (config.optimizer.prior_weight != 1)
    print.emplace_back("optimizer.prior_weight", to_text(config.optimizer.prior_weight));
  print.emplace_back("optimizer.best_of_last", to_text(config.optimizer.best_of_last));
  if (!problem.held_out.empty()) print.emplace_back("optimizer.held_out", described(problem.held_out));
  const OptimizerConfig& optimizer = config.optimizer;
  print.emplace_back("optimizer.starts", to_text(optimizer.starts));
  if (optimizer.starts > 1) print.emplace_back("optimizer.starts_seed", to_text(optimizer.starts_seed));
  print.emplace_back("optimizer.stage", to_text(static_cast<int>(optimizer.stages.size())) + " stages");
  if (optimizer.stages.empty()) add_stage(print, "optimizer", optimizer, stage_step);
  for (std::size_t i = 0; i < optimizer.stages.size(); ++i) {
    const int ahead = static_cast<int>(i) - stage;
    const std::string name = "optimizer.stage." + std::to_string(i);
    add_stage(print, name, optimizer.stages[i], ahead < 0 ? kEveryUpdate : ahead > 0 ? 0 : stage_step);
    if (ahead < 0) print.emplace_back(name + ".steps", to_text(optimizer.stages[i].steps));
  }
}

}  // namespace

Fingerprint fingerprint(const Config& config, const Problem& problem, int stage, std::int64_t stage_step) {
  Fingerprint print;
  add_observation(print, problem.observation);
  print.emplace_back("optimizer.loss", name_of(problem.loss));  // random weights follow from it
  add_model(print, config, problem.model);
  add_network(print, config, problem);
  add_optimizer(print, config, problem, stage, stage_step);
  for (const Regularization::Weight& weight : Regularization::kWeights)
    print.emplace_back(std::string("regularization.") + weight.name, to_text(problem.regularization.*weight.member));
  const Units units = units_of(problem);  // of every number in a snapshot
  print.emplace_back("units.angle", to_text(units.angle));
  print.emplace_back("units.brightness", to_text(units.brightness));
  print.emplace_back("regularization.automatic", config.regularization.automatic ? "true" : "false");
  print.emplace_back("regularization.source_contrast", to_text(config.regularization.source_contrast));
  return print;
}

void require_same(const Fingerprint& stored, const Fingerprint& now, const std::string& dir, const Config& config) {
  const auto value = [](const Fingerprint& print, const std::string& key) {
    const auto found =
        std::find_if(print.begin(), print.end(), [&key](const auto& entry) { return entry.first == key; });
    return found == print.end() ? std::string("nothing") : found->second;
  };
  for (const Fingerprint* print : {&now, &stored})
    for (const auto& entry : *print) {
      const std::string& key = entry.first;
      const std::string before = value(stored, key), here = value(now, key);
      EINFIELD_REQUIRE(before == here, config.at(key) + ": " + here + " contradicts the checkpoint in " + dir +
                                           ", expected " + before + " or, for a new run, --overwrite");
    }
}

}  // namespace einfield
