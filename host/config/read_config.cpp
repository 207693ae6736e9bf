// Reads a configuration: the tables of keys block by block, then the rules that hold between keys.
#include <algorithm>
#include <cmath>
#include <utility>

#include "einfield/error.hpp"
#include "einfield/load.hpp"
#include "host/config/key_tables.hpp"
#include "host/config/recipes.hpp"
#include "host/files/safetensors.hpp"
#include "host/files/text.hpp"
#include "host/model/parameter_slots.hpp"

namespace einfield {
namespace {

bool has_free_pixels(const std::vector<LightComponent>& lights) {
  return std::any_of(lights.begin(), lights.end(), [](const LightComponent& c) { return c.pixels_free; });
}

void check_ellipticity(const Document& document, const std::string& path, const ProfileInfo& info,
                       const std::vector<double>& values) {
  const int i = info.index_of("e1"), j = info.index_of("e2");
  if (i < 0 || j < 0) return;
  const double e1 = values[static_cast<std::size_t>(i)], e2 = values[static_cast<std::size_t>(j)];
  if (e1 * e1 + e2 * e2 < 1) return;
  document.fail(path + (document.has(path + ".e1") ? ".e1" : ".e2"),
                "out of range, found e1 = " + to_text(e1) + " and e2 = " + to_text(e2) + ", expected e1^2 + e2^2 < 1");
}

/// The tables `bounds` and `prior` of a component whose other keys have been read.
template <class Component>
void read_priors(const Document& document, const std::string& path, const ProfileInfo& info, Component& c) {
  const std::string bounds = path + ".bounds", prior = path + ".prior";
  if (info.parameters.empty() || (!document.has(bounds) && !document.has(prior))) return;
  c.priors.resize(c.values.size());
  document.read(bounds, bounds_keys(info, c.priors));
  document.read(prior, prior_keys(info, c.priors));
  double reach = 0;
  for (std::size_t i = 0; i < c.values.size(); ++i) {
    const ParameterInfo& p = info.parameters[i];
    const ParameterPrior& known = c.priors[i];
    const std::string name = std::string(".") + p.name;
    if ((known.bounded() || known.gaussian()) && !c.free[i])
      document.fail((known.bounded() ? bounds : prior) + name,
                    std::string("has no effect, found ") + p.name + " fixed, expected its name in fit");
    const bool outside = known.bounded() && !(c.values[i] > known.lower && c.values[i] < known.upper);
    // This includes amplitudes, although some stages solve for them and ignore the start value.
    if (outside)
      document.fail(document.has(path + name) ? path + name : bounds + name,
                    "outside its bounds, found " + to_text(c.values[i]) + ", expected > " + to_text(known.lower) +
                        " and < " + to_text(known.upper));
    if (p.range != Range::ellipticity) continue;
    const double e = known.bounded() ? std::max(std::abs(known.lower), std::abs(known.upper))
                     : c.free[i]     ? 0
                                     : std::abs(c.values[i]);
    reach += e * e;
    if (reach >= 1)
      document.fail(bounds, "ellipticity out of range, found |e| = " + rounded(std::sqrt(reach)) +
                                " in a corner of the bounds, expected e1^2 + e2^2 < 1 everywhere inside");
  }
}

/// Number of tables in an array of tables. @param most  more than this is an error
std::size_t count_of(const Document& document, const std::string& path, std::size_t most = kMaxComponents) {
  const std::size_t n = document.size(path);
  if (n > most)
    document.fail(path, "too many, found " + std::to_string(n) + ", expected at most " + std::to_string(most));
  return n;
}

std::vector<LensComponent> read_lenses(const Document& document) {
  std::vector<LensComponent> components(count_of(document, "lens"));
  for (std::size_t i = 0; i < components.size(); ++i) {
    LensComponent& c = components[i];
    const std::string path = "lens." + std::to_string(i);
    document.read_one(path, profile_choice(c));
    document.read(path, lens_keys(c));
    check_ellipticity(document, path, lens_info(c.kind), c.values);
    read_priors(document, path, lens_info(c.kind), c);
  }
  return components;
}

void read_perturbations(const Document& document, Config& config) {
  const std::size_t n = count_of(document, "perturbation");
  for (std::size_t i = 0; i < n; ++i) {
    const std::string path = "perturbation." + std::to_string(i);
    LensComponent c;
    bool random = false;
    Key profile = profile_choice(c);
    auto& choice = std::get<Choice>(profile.target);
    choice.names.emplace_back(kRandomField);
    choice.set = [&, set = choice.set](std::size_t index) {
      random = index == kLensKinds;
      if (!random) set(index);
    };
    document.read_one(path, profile);
    if (random) {
      document.read(path, random_field_keys(config.random_fields.emplace_back()));
    } else {
      document.read(path, perturbation_keys(config.perturbation.emplace_back(c)));
      check_ellipticity(document, path, lens_info(c.kind), config.perturbation.back().values);
    }
  }
}

/// Takes the shape of a network from the file that it starts from. Keys of the table at `path` may repeat that shape
/// but not contradict it.
void take_stored_shape(const Document& document, const std::string& path, NetworkConfig& network) {
  const NetworkShape stored = read_network(network.initial).shape;
  const bool fourier = stored.fourier_features > 0;
  const auto require = [&](const std::string& key, const std::string& found, const std::string& expected) {
    if (document.has(path + "." + key) && found != expected)
      document.fail(path + "." + key, "differs from the stored network, found " + found + ", expected " + expected +
                                          " as in " + network.initial);
  };
  const auto encoding = [](bool of_fourier) { return of_fourier ? "\"fourier\"" : "\"none\""; };
  const auto widths = [](const std::vector<int>& hidden) {
    std::vector<std::string> texts;
    for (const int width : hidden) texts.push_back(std::to_string(width));
    return "[" + joined(texts) + "]";
  };
  require("encoding", encoding(network.fourier), encoding(fourier));
  require("fourier_features", std::to_string(network.fourier_features), std::to_string(stored.fourier_features));
  require("hidden", widths(network.hidden), widths(stored.hidden));
  require("input_scale", to_text(network.input_scale.value_or(0)) + " 1/arcsec",
          to_text(stored.input_scale) + " 1/arcsec");
  network.hidden = stored.hidden;
  network.input_scale = stored.input_scale;
  network.fourier = fourier;
  if (fourier) network.fourier_features = stored.fourier_features;
}

/// The shape of the network in the table at `path`, whose keys have been read; an input_scale that follows the size of
/// the image is that of an image of unit size until the image is known.
NetworkShape read_shape(const Document& document, const std::string& path, NetworkConfig& network) {
  if (!network.initial.empty()) take_stored_shape(document, path, network);
  const std::size_t layers = network.hidden.size(), most = kMaxHiddenLayers - (network.fourier ? 1 : 0);
  if (layers > most || (layers == 0 && !network.fourier))
    document.fail(path + ".hidden",
                  "wrong number of layers, found " + std::to_string(layers) + ", expected " +
                      (network.fourier ? "0 to " + std::to_string(most) + " after the encoding"
                                       : "1 to " + std::to_string(most) + ", or 0 with encoding = \"fourier\""));
  return {network.hidden, network.input_scale_in(1), network.fourier ? network.fourier_features : 0};
}

/// The components of a MULTI_GAUSSIAN_ELLIPSE, the last table of its block: those behind the first follow its center
/// and its ellipticity.
std::vector<LightComponent> read_expansion(const Document& document, const std::string& block, std::size_t index) {
  const std::string path = block + "." + std::to_string(index);
  if (index + 1 < document.size(block))
    document.fail(path + ".profile", std::string("stands for several components, found ") + kExpansion +
                                         " before another table of its block, expected it as the last one");
  LightComponent first;
  first.kind = LightKind::gaussian_ellipse;
  set_defaults(first);
  Expansion expansion;
  document.read(path, expansion_keys(first, expansion));
  if (first.free[1])
    document.fail(path + ".fit", "the sizes of an expansion are fixed, found \"sigma\", expected other names");
  if (!(expansion.sigma_max > expansion.sigma_min))
    document.fail(path + ".sigma_max", "too small, found " + to_text(expansion.sigma_max) + " arcsec, expected > " +
                                           to_text(expansion.sigma_min) + " arcsec, sigma_min");
  const ProfileInfo& info = light_info(first.kind);
  first.values[1] = expansion.sigma_min;
  check_ellipticity(document, path, info, first.values);
  read_priors(document, path, info, first);
  if (!first.priors.empty() && (first.priors[0].bounded() || first.priors[0].gaussian()))
    document.fail(path, "bounds or a prior of amp, found in a " + std::string(kExpansion) +
                            ", expected none: each of its Gaussians has its own amplitude");
  if (!first.follows.empty() && first.follows[0].given())
    document.fail(path + ".amp", "follows a parameter, found \"" + to_text(first.follows[0]) +
                                     "\", expected a number: each of its Gaussians has its own amplitude");
  const int n = expansion.components;
  first.values[0] /= n;
  std::vector<LightComponent> components(static_cast<std::size_t>(n), first);
  const double ratio = expansion.sigma_max / expansion.sigma_min;
  for (int k = 1; k < n; ++k) {
    LightComponent& c = components[static_cast<std::size_t>(k)];
    c.values[1] = expansion.sigma_min * std::pow(ratio, k / (n - 1.0));
    c.priors.clear();
    for (const std::size_t i : {2u, 3u, 4u, 5u}) {
      c.free[i] = false;
      c.follows[i] = {path + "." + info.parameters[i].name};
    }
  }
  return components;
}

std::vector<LightComponent> read_lights(const Document& document, const std::string& block,
                                        std::vector<LightStart>& starts) {
  std::vector<LightComponent> components(count_of(document, block));
  starts.resize(components.size());
  for (std::size_t i = 0; i < components.size(); ++i) {
    LightComponent& c = components[i];
    const std::string path = block + "." + std::to_string(i);
    starts[i].network = light_network_defaults();
    Key profile = profile_choice(c);
    auto& choice = std::get<Choice>(profile.target);
    choice.names.emplace_back(kExpansion);
    bool expands = false;
    choice.set = [&, set = choice.set](std::size_t kind) {
      expands = kind == kLightKinds;
      if (!expands) set(kind);
    };
    document.read_one(path, profile);
    if (expands) {
      const std::vector<LightComponent> gaussians = read_expansion(document, block, i);
      components.pop_back();
      components.insert(components.end(), gaussians.begin(), gaussians.end());
      starts.resize(components.size(), starts.back());
      break;
    }
    document.read(path, light_keys(c, starts[i]));
    if (c.kind == LightKind::pixelated && c.grid.pixel_scale == 0 &&
        (block != "source" || !c.pixels_free || !starts[i].image.empty()))
      document.fail(path + ".pixel_scale",
                    "missing, expected a number > 0 arcsec: only the grid of free pixels of a "
                    "[[source]] without image can follow the rays");
    check_ellipticity(document, path, light_info(c.kind), c.values);
    read_priors(document, path, light_info(c.kind), c);
    if (c.kind == LightKind::network) c.network = read_shape(document, path, starts[i].network);
  }
  return components;
}

/// The table of a PSF if there is one, and its type.
void read_psf(const Document& document, const std::string& path, PsfConfig& psf) {
  if (!psf.kernel.empty()) {
    psf.type = "file";
  } else if (document.has(path)) {
    psf.type = "gaussian";
    document.read(path, psf_keys(psf));
    if (psf.size > 0 && psf.size % 2 == 0)
      document.fail(path + ".size", "even, found " + std::to_string(psf.size) + " pixels, expected an odd number");
  }
}

void check_noise(const Document& document, const std::string& block, const NoiseConfig& noise, bool needed,
                 const std::string& choices) {
  if (noise.background_rms && !noise.exposure_time)
    document.fail(block + ".exposure_time", "missing, expected a number > 0 s together with background_rms");
  if (noise.exposure_time && !noise.background_rms)
    document.fail(block + ".background_rms", "missing, expected a number > 0 image unit together with exposure_time");
  if (needed && noise.map.empty() && !noise.value && !noise.background_rms)
    document.fail(block + ".noise", "missing, expected " + choices + ", or background_rms with exposure_time");
}

void read_observation(const Document& document, Config& config, bool for_simulation) {
  ObservationConfig& o = config.observation;
  document.read("observation", observation_keys(o, !for_simulation));
  read_psf(document, "observation.psf", o.psf);
  if (o.supersampling % o.psf_supersampling != 0)
    document.fail("observation.psf_supersampling",
                  "not a divisor, found " + std::to_string(o.psf_supersampling) +
                      ", expected a divisor of supersampling = " + std::to_string(o.supersampling));
  for (std::size_t i = 0; i < count_of(document, "observation.region"); ++i) {
    RegionConfig& region = o.regions.emplace_back();
    const std::string path = "observation.region." + std::to_string(i);
    document.read_one(path, shape_key(region));
    document.read(path, region_keys(region));
    if (region.annulus && !(region.inner < region.outer))
      document.fail(path + ".outer", "not larger than the inner radius, found " + to_text(region.outer) +
                                         " arcsec, expected a number > inner = " + to_text(region.inner) + " arcsec");
  }
  check_noise(document, "observation", o.noise, !for_simulation, "\"FILE[HDU]\" or a number > 0 image unit");
  if (o.measure_noise_correlation && !o.noise_correlation.empty())
    document.fail("observation.measure_noise_correlation",
                  "found true beside observation.noise_correlation, expected one of the two");
  if (for_simulation && !o.pixel_scale)
    document.fail("observation.pixel_scale", "missing, expected a number > 0 arcsec for a simulation");
}

/// Refuses weights of penalties on something that the model does not have.
void check_regularization(const Document& document, const Model& model, RegularizationConfig r) {
  const auto check = [&](const Keys& penalties, bool has_effect, const std::string& problem) {
    if (has_effect) return;
    for (const Key& key : penalties)
      if (const double weight = *std::get<double*>(key.target); weight != 0)
        document.fail("regularization." + key.name, "has no effect, found " + to_text(weight) + problem);
  };
  check(network_penalty_keys(r), model.network.has_value(), " without [network], expected 0 or a [network]");
  check(source_penalty_keys(r), has_free_pixels(model.source),
        " without a free PIXELATED source, expected 0 or a [[source]] with fit = [\"pixels\"]");
}

/// A model has at most one NETWORK component.
void check_network_lights(const Document& document, const Model& model) {
  bool found = false;
  const auto check = [&](const std::string& block, const std::vector<LightComponent>& lights) {
    for (std::size_t i = 0; i < lights.size(); ++i) {
      if (lights[i].kind != LightKind::network) continue;
      if (found)
        document.fail(block + "." + std::to_string(i) + ".profile",
                      "found a second NETWORK component, expected at most one in all [[source]] and [[lens_light]]");
      found = true;
    }
  };
  check("source", model.source);
  check("lens_light", model.lens_light);
}

/// Limits the pixels of all PIXELATED components, before memory is allocated for them.
void check_pixels(const Document& document, const Model& model) {
  std::size_t pixels = 0;
  const auto add = [&](const std::string& block, const std::vector<LightComponent>& lights) {
    for (std::size_t i = 0; i < lights.size(); ++i) {
      if (lights[i].kind != LightKind::pixelated) continue;
      pixels += static_cast<std::size_t>(lights[i].grid.nx) * static_cast<std::size_t>(lights[i].grid.ny);
      if (pixels > kMaxSourcePixels)
        document.fail(block + "." + std::to_string(i) + ".nx",
                      "too many pixels, found " + std::to_string(pixels) + " in all PIXELATED components up to this " +
                          "one, expected at most " + std::to_string(kMaxSourcePixels));
    }
  };
  add("source", model.source);
  add("lens_light", model.lens_light);
}

/// Rules between the keys of one stage. @param path  "optimizer.stage.0", or "optimizer" without stages
void check_stage(const Document& document, const std::string& path, const StageConfig& s) {
  const bool rule = document.has(path + ".stop") && (s.stop == StopRule::chi2 || s.stop == StopRule::held_out);
  if (!runs_on_backend(s.name) && rule)
    document.fail(path + ".stop", std::string("has no effect, found a rule for ") + name_of(s.name) +
                                      ", which ends when it has converged, expected \"none\"");
  if (s.name != OptimizerKind::adam) return;
  if (s.cosine && s.steps > kMaxScheduled)
    document.fail(path + ".steps", "too many for schedule = \"cosine\", found " + std::to_string(s.steps) +
                                       ", expected at most " + std::to_string(kMaxScheduled));
  if (s.cosine && s.warmup >= s.steps && s.warmup > 0)
    document.fail(path + ".warmup", "not shorter than the stage, found " + std::to_string(s.warmup) +
                                        " steps, expected fewer than steps = " + std::to_string(s.steps));
}

/// [optimizer] and its stages. The keys that stages take from [optimizer] are read first, then the stages, then the
/// rest of [optimizer]: which of its keys apply depends on the stages.
void read_optimizer(const Document& document, OptimizerConfig& o) {
  const OptimizerConfig defaults = o;
  for (const Key& key : shared_stage_keys(o))
    if (document.has("optimizer." + key.name)) document.read_one("optimizer", key);
  const std::size_t n = count_of(document, "optimizer.stage", kMaxStages);
  // Stages that are given replace those of the recipe; so does an optimizer without stages.
  if (n > 0 || document.has("optimizer.name")) o.stages.clear();
  for (std::size_t i = 0; i < n; ++i) {
    StageConfig& stage = o.stages.emplace_back(static_cast<const StageConfig&>(o));
    if (i + 1 < n) stage.stop = StopRule::none;
    document.read("optimizer.stage." + std::to_string(i), stage_keys(stage));
  }
  document.read("optimizer", optimizer_keys(o));
  if (n == 0 && !o.stages.empty()) {  // the stages of a recipe: what is given goes to those that it is for
    for (StageConfig& stage : o.stages) {
      if (document.has("optimizer.steps")) stage.steps = o.steps;
      if (document.has("optimizer.starts") && stage.own_starts > 1) stage.own_starts = std::max(o.starts, 2);
    }
    o.starts = defaults.starts;
  }
  if (o.starts > 1 && o.all_stages().front().name != OptimizerKind::levenberg_marquardt)
    document.fail("optimizer.starts", "has no effect, found " + std::to_string(o.starts) + " with another optimizer" +
                                          (n == 0 ? "" : " in the first stage") +
                                          ", expected name = \"levenberg_marquardt\"" + (n == 0 ? "" : " there"));
  std::int64_t steps = 0;
  for (const StageConfig& stage : o.stages) steps += stage.steps;
  if (steps > kMaxSteps)
    document.fail("optimizer.stage", "too many steps, found " + std::to_string(steps) +
                                         " in all stages, expected at most " + std::to_string(kMaxSteps));
  for (std::size_t i = 0; i < o.stages.size(); ++i) {
    const StageConfig& stage = o.stages[i];
    if (stage.own_starts > 1 && stage.valleys > 1)
      document.fail("optimizer.stage." + std::to_string(i) + ".valleys",
                    "contradicts starts, found " + std::to_string(stage.valleys) + " and " +
                        std::to_string(stage.own_starts) + " in one stage, expected one of them");
    const auto has_starts = [&o](std::size_t k) {
      return o.stages[k].own_starts > 1 || (k == 0 && o.stages[k].own_starts == 0 && o.starts > 1);
    };
    bool before = false;
    for (std::size_t k = 0; k < i; ++k) before |= has_starts(k);
    if (stage.valleys > 1 && !before)
      document.fail("optimizer.stage." + std::to_string(i) + ".valleys",
                    "has no effect, found " + std::to_string(stage.valleys) +
                        " without an earlier stage with several starts, expected 0 or such a stage");
  }
  if (n == 0 && o.stages.empty()) check_stage(document, "optimizer", o);
  for (std::size_t i = 0; i < n; ++i) check_stage(document, "optimizer.stage." + std::to_string(i), o.stages[i]);
}

/// Checks `free` of the stages against the model, and that Levenberg-Marquardt has something to fit.
void check_stages(const Document& document, const Config& config) {
  const std::vector<StageConfig> all = config.optimizer.all_stages();
  if (config.optimizer.free.empty() && std::all_of(all.begin(), all.end(), [](const auto& s) {
        return s.free.empty() && s.name != OptimizerKind::levenberg_marquardt;
      }))
    return;
  Model model = config.model;
  for (std::vector<LightComponent>* lights : {&model.source, &model.lens_light})
    for (LightComponent& c : *lights) {  // pixels, their scale and weights are not loaded yet, but have names
      if (c.grid.pixel_scale == 0) c.grid.pixel_scale = 1;
      c.pixels.resize(c.kind == LightKind::pixelated ? static_cast<std::size_t>(c.grid.nx * c.grid.ny) : 0);
      c.weights.resize(c.kind == LightKind::network ? c.network.size() : 0);
    }
  const auto check = [&](const std::string& path, const StageConfig& s) {
    const ParameterLayout layout(model);
    const bool lm = s.name == OptimizerKind::levenberg_marquardt;
    for (const std::string& name : s.free) {
      std::vector<std::uint8_t> moves;
      try {
        moves = trainable(model, {name});
      } catch (const InvalidInput& error) {
        document.fail(path + ".free", error.what());
      }
      const auto first = moves.begin() + static_cast<std::ptrdiff_t>(layout.n_network);
      if (lm && std::count(first, first + static_cast<std::ptrdiff_t>(layout.n_free()), 1) == 0)
        document.fail(path + ".free", "\"" + name +
                                          "\" names weights or pixels only, which levenberg_marquardt does not fit, "
                                          "expected names of profile parameters");
    }
    if (lm && s.free.empty() && layout.n_free() == 0 && layout.size() > 0)
      document.fail(path + ".name",
                    "nothing to fit, found \"levenberg_marquardt\" without a free profile parameter, expected one in a "
                    "fit = [...]");
  };
  check("optimizer", config.optimizer);
  for (std::size_t i = 0; i < config.optimizer.stages.size(); ++i)
    check("optimizer.stage." + std::to_string(i), config.optimizer.stages[i]);
}

/// Gaussian priors are added to -2 ln(likelihood), and correlated noise is part of it: both need the loss chi2.
void check_likelihood(const Document& document, const Config& config) {
  if (config.optimizer.loss == LossKind::chi2) return;
  const auto refuse = [&](const char* key, bool given) {
    if (given)
      document.fail(key, "correlated noise needs a likelihood, found optimizer.loss = \"mse\", expected \"chi2\"");
  };
  refuse("observation.noise_correlation", !config.observation.noise_correlation.empty());
  refuse("observation.measure_noise_correlation", config.observation.measure_noise_correlation);
  const auto check = [&](const std::string& block, const auto& components) {
    for (std::size_t i = 0; i < components.size(); ++i)
      for (const ParameterPrior& prior : components[i].priors)
        if (prior.gaussian())
          document.fail(block + "." + std::to_string(i) + ".prior",
                        "a Gaussian prior needs a likelihood, found optimizer.loss = \"mse\", expected \"chi2\"");
  };
  check("lens", config.model.lens);
  check("source", config.model.source);
  check("lens_light", config.model.lens_light);
}

/// The recipe "galaxy" fits pixels of the source, and a network only with them: on a source that is too simple, it
/// would fit what the source lacks. Other pixels and weights would stay as they are.
void check_galaxy(const Document& document, const Config& config) {
  if (config.recipe != "galaxy" || document.size("optimizer.stage") > 0 || document.has("optimizer.name")) return;
  if (config.model.network && !has_free_pixels(config.model.source))
    document.fail("network",
                  "would fit what a simple source lacks, found no free pixels in a [[source]], expected a PIXELATED "
                  "component with fit = [\"pixels\"], or [[optimizer.stage]]");
  const auto refuse = [&](const std::string& block, const std::vector<LightComponent>& lights) {
    for (std::size_t i = 0; i < lights.size(); ++i)
      if (lights[i].weights_free || (lights[i].pixels_free && block == "lens_light"))
        document.fail(block + "." + std::to_string(i) + ".fit",
                      std::string("is not fitted by recipe = \"galaxy\", found free ") +
                          (lights[i].pixels_free ? "pixels" : "weights") +
                          ", expected profiles with parameters, or [[optimizer.stage]]");
  };
  refuse("source", config.model.source);
  refuse("lens_light", config.model.lens_light);
}

/// What gauss_newton fits, and that it comes last when it chooses weights: stages after it would not know them.
void check_gauss_newton(const Document& document, const Config& config) {
  const OptimizerKind last = config.optimizer.all_stages().back().name;
  const auto needs_it = [&](const char* key, bool given) {
    if (given && last != OptimizerKind::gauss_newton)
      document.fail(
          key, std::string("has no effect, found ") + name_of(last) + " as the last stage, expected \"gauss_newton\"");
  };
  needs_it("regularization.automatic", config.regularization.automatic);
  needs_it("regularization.source_contrast", config.regularization.source_contrast > 1);
  if (!config.optimizer.uses(OptimizerKind::gauss_newton)) return;
  if (config.optimizer.loss != LossKind::chi2)
    document.fail("optimizer.loss", "found \"mse\" with gauss_newton, expected \"chi2\"");
  const auto refuse_network = [&](const std::string& block, const std::vector<LightComponent>& lights) {
    for (std::size_t i = 0; i < lights.size(); ++i) {
      if (lights[i].kind == LightKind::network)
        document.fail(block + "." + std::to_string(i) + ".profile",
                      "found NETWORK with gauss_newton, expected PIXELATED or a profile with parameters");
      if (block == "lens_light" && lights[i].pixels_free)
        document.fail(block + "." + std::to_string(i) + ".fit",
                      "found free pixels of a lens_light with gauss_newton, expected free pixels in a [[source]] only");
    }
  };
  refuse_network("source", config.model.source);
  refuse_network("lens_light", config.model.lens_light);
  const RegularizationConfig& r = config.regularization;
  if (has_free_pixels(config.model.source) && !r.on_source_pixels())
    document.fail("regularization.source_curvature",
                  "0 with free pixels and gauss_newton, expected > 0 here or in source_gradient");
  if (config.model.network && r.weight_decay <= 0)
    document.fail("regularization.weight_decay",
                  "0 with a [network] and gauss_newton, expected > 0: without it some "
                  "weights have no prior");
}

/// Why "laplace" cannot give error bars for a model; "" when it can.
std::string no_laplace(const Config& config) {
  const Model& model = config.model;
  if (config.optimizer.loss != LossKind::chi2) return "optimizer.loss = \"mse\", expected \"chi2\"";
  if (network_light(model)) return "a light with profile NETWORK, expected another profile";
  if (has_free_pixels(model.lens_light))
    return "free pixels of a lens_light, expected free pixels in a [[source]] only";
  if (has_free_pixels(model.source) && !config.regularization.on_source_pixels())
    return "free source pixels without a penalty, expected source_gradient or source_curvature > 0";
  if (model.network && model.network->size() > kMaxLaplaceWeights)
    return "a network of " + std::to_string(model.network->size()) + " weights, expected at most " +
           std::to_string(kMaxLaplaceWeights);
  return "";
}

/// [uncertainty]. Without its method: laplace where it is possible, else spread.
void read_uncertainty(const Document& document, Config& config) {
  const std::string problem = no_laplace(config);
  // The recipe of a paper stays as it is.
  if (problem.empty() && config.recipe != "biggio2021") config.uncertainty.method = UncertaintyKind::laplace;
  document.read("uncertainty", uncertainty_keys(config.uncertainty));
  if (config.uncertainty.method == UncertaintyKind::laplace && !problem.empty())
    document.fail("uncertainty.method", "\"laplace\" is not possible, found " + problem);
}

/// Rules between the blocks.
void check_model(const Document& document, const Config& config) {
  const Model& model = config.model;
  if (model.source.empty() && model.lens_light.empty())
    document.fail("source", "missing, expected at least one [[source]] or [[lens_light]]");
  if (model.network && model.source.empty())
    document.fail("network", "has no effect, found no [[source]], expected at least one");
  check_network_lights(document, model);
  check_pixels(document, model);
  check_regularization(document, model, config.regularization);
}

/// A key that is given, differs from its default, and belongs to an optimizer that no stage uses: a warning. The
/// configuration that a fit writes gives every key.
void warn_without_effect(const Document& document, Config& config) {
  const OptimizerConfig& o = config.optimizer;
  const OptimizerConfig& d = recipe(config.recipe).optimizer;
  const auto check = [&](const std::string& path, const StageConfig& s, const std::vector<StageConfig>& users) {
    const auto uses = [&users](OptimizerKind kind) {
      return std::any_of(users.begin(), users.end(), [kind](const StageConfig& u) { return u.name == kind; });
    };
    const bool adam = uses(OptimizerKind::adam), lbfgs = uses(OptimizerKind::lbfgs);
    const std::string with =
        std::string(name_of(users.front().name)) + (users.size() > 1 ? " and the other stages" : "");
    const auto warn = [&](const char* key, bool changed, bool used, const std::string& owner) {
      if (document.has(path + "." + key) && changed && !used)
        config.warnings.push_back(config.at(path + "." + key) + ": has no effect with " + with + ", it is for " +
                                  owner);
    };
    warn("learning_rate", s.learning_rate != d.learning_rate, adam, "adam");
    warn("warmup", s.warmup != d.warmup, adam, "adam");
    warn("schedule", s.cosine != d.cosine, adam, "adam");
    warn("clip_norm", s.clip_norm != d.clip_norm, adam, "adam");
    warn("memory", s.memory != d.memory, lbfgs, "lbfgs");
    if (path != "optimizer") return;
    const std::string rules = "the stopping rules of adam and lbfgs";
    warn("patience", o.patience != d.patience, adam || lbfgs, rules);
    warn("tolerance", o.tolerance != d.tolerance, adam || lbfgs, rules);
    warn("stop_chi2", o.stop_chi2 != d.stop_chi2, adam || lbfgs, rules);
    warn("best_of_last", o.best_of_last != d.best_of_last, adam, "adam");
  };
  check("optimizer", o, o.all_stages());
  for (std::size_t i = 0; i < o.stages.size(); ++i)
    check("optimizer.stage." + std::to_string(i), o.stages[i], {o.stages[i]});
}

/// The defaults: those of the recipe, or the default recipe's for a source of free pixels where gauss_newton can fit
/// the model and neither another optimizer nor another kind of network is asked for. With a known source, a few small
/// networks find a compact perturber better (docs/studies.md).
const Recipe& recipe_of(const Document& document, const Config& config) {
  const Recipe& named = recipe(config.recipe);
  if (&named != &recipes().front()) return named;
  for (const char* key : {"optimizer.stage", "optimizer.learning_rate", "optimizer.memory", "optimizer.starts",
                          "network.hidden", "network.initial", "network.encoding", "network.math"})
    if (document.has(key)) return named;
  // Who asks for what it does anyway gets it.
  const OptimizerConfig& own = recipe("evidence").optimizer;
  OptimizerConfig asked = own;
  for (const Key& key : optimizer_keys(asked))
    if ((key.name == "name" || key.name == "loss" || key.name == "stop") && document.has("optimizer." + key.name))
      document.read_one("optimizer", key);
  if (asked.name != own.name || asked.loss != own.loss || asked.stop != own.stop) return named;
  const bool covered = !network_light(config.model) && !has_free_pixels(config.model.lens_light);
  return covered && has_free_pixels(config.model.source) ? recipe("evidence") : named;
}

void read_cosmology(const Document& document, Config& config) {
  if (!document.has("cosmology")) return;
  Cosmology& c = config.cosmology.emplace();
  document.read("cosmology", cosmology_keys(c));
  if (c.z_source <= c.z_lens)
    document.fail("cosmology.z_source", "not behind the lens, found " + rounded(c.z_source) +
                                            ", expected more than z_lens = " + rounded(c.z_lens));
}

void clear_penalties(const Keys& penalties) {
  for (const Key& key : penalties) *std::get<double*>(key.target) = 0;
}

/// The configuration that a document holds. @param file  its name in messages
Config config_in(const Document& document, const std::string& file, bool for_simulation) {
  Config config;
  config.file = file;
  config.places = document.places();
  document.read("", top_keys(config));
  read_observation(document, config, for_simulation);
  config.model.lens = read_lenses(document);
  config.model.source = read_lights(document, "source", config.source_start);
  config.model.lens_light = read_lights(document, "lens_light", config.lens_light_start);
  if (const auto problem = try_follow(config.model)) document.fail(problem->where, problem->message);
  const Recipe& defaults = recipe_of(document, config);
  config.optimizer = defaults.optimizer;
  if (defaults.pixel_stage && has_free_pixels(config.model.source))
    config.optimizer.stages.push_back(*defaults.pixel_stage);
  config.regularization = defaults.regularization;
  if (!document.has("network")) clear_penalties(network_penalty_keys(config.regularization));
  if (!has_free_pixels(config.model.source)) {
    clear_penalties(source_penalty_keys(config.regularization));
    config.regularization.source_contrast = 1;
  }
  if (document.has("network")) {
    config.network = defaults.network;
    document.read("network", network_keys(*config.network));
    if (!config.network->initial.empty()) config.network->ensemble = 1;  // one set of weights to start from: one member
    // A simulation does not use the network: its file may not exist yet.
    NetworkConfig network = *config.network;
    if (for_simulation) network.initial.clear();
    config.model.network = read_shape(document, "network", network);
    network.initial = config.network->initial;
    config.network = network;
  }
  read_optimizer(document, config.optimizer);
  if (!config.optimizer.uses(OptimizerKind::gauss_newton)) {
    config.regularization.automatic = false;
    config.regularization.source_contrast = 1;
  }
  document.read("regularization", regularization_keys(config.regularization));
  read_cosmology(document, config);
  if (document.has("truth")) {
    document.read("truth", truth_keys(config.truth));
    if (config.truth.path.empty() || config.truth.path.back() == ']')
      document.fail("truth.file",
                    "not a file name, found \"" + config.truth.path + R"(", expected "FILE" without [HDU])");
  }
  if (document.has("simulate")) {
    SimulateConfig& s = config.simulate.emplace();
    document.read("simulate", simulate_keys(s));
    read_psf(document, "simulate.psf", s.psf);
    check_noise(document, "simulate", s.noise, true, "a number >= 0 image unit");
    const double rays = double(s.nx) * s.ny * config.observation.supersampling * config.observation.supersampling;
    if (rays >= kMaxRays)
      document.fail("simulate.nx", "too many rays, found " + std::to_string(s.nx) + " x " + std::to_string(s.ny) +
                                       " pixels with supersampling " +
                                       std::to_string(config.observation.supersampling) +
                                       ", expected fewer than 2^30 rays");
  } else if (for_simulation) {
    document.fail("simulate", "missing, expected a table [simulate]");
  }
  read_perturbations(document, config);
  read_uncertainty(document, config);
  check_model(document, config);
  check_likelihood(document, config);
  if (!for_simulation) check_galaxy(document, config);
  if (!for_simulation) check_stages(document, config);
  if (!for_simulation) check_gauss_newton(document, config);
  warn_without_effect(document, config);
  return config;
}

}  // namespace

Config read_config(const std::string& file, const std::vector<Override>& overrides, bool for_simulation) {
  return config_in(Document(file, overrides), file, for_simulation);
}

Config read_config_text(const std::string& toml, const std::string& name, bool for_simulation,
                        const std::vector<Override>& overrides) {
  return config_in(Document(TomlText{toml, name}, overrides), name, for_simulation);
}

}  // namespace einfield
