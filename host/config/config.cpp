// The keys of einfield's configuration: one table per block, from which reading, checking, `info --keys` and the
// configuration written back follow (host/config/keys.cpp); the recipes; and what holds between keys.
#include "einfield/load.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

#include "einfield/error.hpp"
#include "einfield/psf.hpp"
#include "host/config/keys.hpp"
#include "host/config/load_problem.hpp"
#include "host/files/fits_io.hpp"
#include "host/files/safetensors.hpp"
#include "host/files/text.hpp"
#include "host/fit/strengths.hpp"

namespace einfield {
namespace {

constexpr int kMaxSteps = 1'000'000'000;
constexpr int kMaxScheduled = 10'000'000;  ///< learning rates are kept, one a step
constexpr int kMaxMemory = 1000;
constexpr int kMaxStarts = 10'000;
constexpr int kMaxSourceSide = 4096;
constexpr std::size_t kMaxStages = 100;

// ---- recipes ---------------------------------------------------------------------------------------------

/// Defaults of [network], [optimizer] and [regularization].
struct Recipe {
  std::string name;
  NetworkConfig network;
  OptimizerConfig optimizer;
  RegularizationConfig regularization;
};

const std::vector<Recipe>& recipes() {
  static const std::vector<Recipe> all = [] {
    // Biggio et al. (2021), section 3: three hidden layers of 200, swish, Adam at 1e-3, mean squared error, nothing
    // else.
    Recipe paper;
    paper.name = "biggio2021";
    paper.network.hidden = {200, 200, 200};
    paper.network.input_scale = 1;
    paper.network.last_layer_zero = false;
    paper.optimizer.loss = LossKind::mse;
    paper.optimizer.learning_rate = 1e-3;
    paper.optimizer.steps = 200;
    paper.optimizer.stop = StopRule::none;
    paper.optimizer.best_of_last = 0;
    // What served best in examples/README.md: full-memory L-BFGS on a few small networks that see Fourier features,
    // with priors that only forbid what no mass does.
    Recipe best;
    best.name = "default";
    best.network.fourier = true;
    best.network.hidden = {16, 16, 16};
    best.network.fourier_features = 12;
    best.network.fourier_scale = 4;
    best.network.last_layer_zero = true;
    best.network.ensemble = 3;
    best.optimizer.name = OptimizerKind::lbfgs;
    best.optimizer.memory = 300;
    best.optimizer.loss = LossKind::chi2;
    best.optimizer.steps = 1000;
    best.optimizer.stop = StopRule::plateau;
    best.regularization.smoothness = 2;
    best.regularization.curvature = 0.7;
    best.regularization.negative_convergence = 20;
    best.regularization.negative_total_convergence = 2000;
    return std::vector<Recipe>{best, paper};
  }();
  return all;
}

const Recipe& recipe(const std::string& name) {
  return *std::find_if(recipes().begin(), recipes().end(), [&](const Recipe& r) { return r.name == name; });
}

// ---- tables of keys --------------------------------------------------------------------------------------

/// A choice among enumerators, in the order of the names.
template <class Enum>
Choice choice(Enum& value, std::vector<std::pair<std::string, Enum>> options) {
  Choice result;
  for (const auto& option : options) result.names.push_back(option.first);
  result.get = [&value, options] {
    const auto found = std::find_if(options.begin(), options.end(), [&](const auto& o) { return o.second == value; });
    return static_cast<std::size_t>(found - options.begin());
  };
  result.set = [&value, options](std::size_t i) { value = options[i].second; };
  return result;
}

/// A choice among all enumerators of a table of names.
template <class Enum, std::size_t kCount>
Choice choice_of(Enum& value, const Named<Enum> (&table)[kCount]) {
  std::vector<std::pair<std::string, Enum>> options;
  for (const Named<Enum>& entry : table) options.emplace_back(entry.name, entry.value);
  return choice(value, std::move(options));
}

/// The only value that exists.
Choice only(const std::string& name) {
  return {{name}, [] { return std::size_t(0); }, {}};
}

Keys top_keys(Config& c) {
  Choice recipe_names;
  for (const Recipe& r : recipes()) recipe_names.names.push_back(r.name);
  recipe_names.get = [&c] { return static_cast<std::size_t>(&recipe(c.recipe) - recipes().data()); };
  recipe_names.set = [&c](std::size_t i) { c.recipe = recipes()[i].name; };
  const std::string at_most = ", at most " + std::to_string(kMaxComponents);
  return {{"title", &c.title, "one line, for the log and the report"},
          {"recipe", recipe_names, "defaults of [network], [optimizer] and [regularization]"},
          {"observation", SubTable{}, "the data"},
          {"lens", SubTable{true}, "smooth mass, a component each" + at_most},
          {"source", SubTable{true}, "lensed light, a component each" + at_most},
          {"lens_light", SubTable{true}, "light that is not lensed, a component each" + at_most},
          {"network", SubTable{}, "neural correction of the potential; without it there is none"},
          {"optimizer", SubTable{}, "how the model is fitted"},
          {"regularization", SubTable{}, "terms added to the loss"},
          {"truth", SubTable{}, "what simulated data were made from"},
          {"simulate", SubTable{}, "for `einfield simulate`"},
          {"perturbation", SubTable{true},
           "mass that is simulated and not in the fitted model, a component each" + at_most}};
}

Keys psf_keys(PsfConfig& psf) {
  Choice types{{"gaussian", "moffat"},
               [&psf] { return std::size_t(psf.type == "moffat"); },
               [&psf](std::size_t i) { psf.type = i == 1 ? "moffat" : "gaussian"; }};
  return {{"type", types, "profile of a PSF without a kernel"},
          {"fwhm", &psf.fwhm, "full width at half maximum", above(0), "arcsec", true},
          {"beta", &psf.beta, "exponent of the wings", above(1), "", true,
           Condition{[&psf] { return psf.type == "moffat"; }, "with type = \"moffat\""}},
          {"size", &psf.size, "side of the kernel, odd; 0 = the smallest that holds 99.9 % of the light",
           between(0, kMaxPsfSide), "pixels"}};
}

/// background_rms and exposure_time, which replace a given noise.
void add_background(Keys& keys, NoiseConfig& noise, const std::string& where) {
  const Condition alone{[&noise] { return noise.map.empty() && !noise.value; }, "without " + where + ".noise"};
  keys.push_back({"background_rms", &noise.background_rms,
                  "noise of the sky, with exposure_time: sigma^2 = background_rms^2 + max(image, 0)/exposure_time",
                  above(0), "image unit", false, alone});
  keys.push_back({"exposure_time", &noise.exposure_time, "so that image · exposure_time counts photons", above(0), "s",
                  false, alone});
}

/// The shape decides which of the others have a meaning.
Key shape_key(RegionConfig& r) {
  return {"shape", choice<bool>(r.annulus, {{"circle", false}, {"annulus", true}}), "", {}, "", true};
}

Keys region_keys(RegionConfig& r) {
  const Condition circle{[&r] { return !r.annulus; }, "with shape = \"circle\""};
  const Condition annulus{[&r] { return r.annulus; }, "with shape = \"annulus\""};
  return {shape_key(r),
          {"center_x", &r.center_x, "", {}, "arcsec"},
          {"center_y", &r.center_y, "", {}, "arcsec"},
          {"radius", &r.radius, "pixels whose centre is no farther away", above(0), "arcsec", true, circle},
          {"inner", &r.inner, "pixels whose centre is no nearer", at_least(0), "arcsec", true, annulus},
          {"outer", &r.outer, "... and no farther away", above(0), "arcsec", true, annulus},
          {"keep", &r.keep,
           "true: pixels outside of every region that is kept are masked; false: those inside this one are"}};
}

Keys observation_keys(ObservationConfig& o, bool need_image) {
  Keys keys{
      {"image", &o.image, "the image", {}, "", need_image},
      {"noise", MapOrNumber{&o.noise.map, &o.noise.value}, "1 sigma, a map or one number", above(0), "image unit"},
      {"noise_kind",
       choice<NoiseKind>(
           o.noise.kind,
           {{"sigma", NoiseKind::sigma}, {"variance", NoiseKind::variance}, {"weight", NoiseKind::weight}}),
       "what a map of the noise holds: sigma, sigma^2 or 1/sigma^2; pixels of weight 0 are masked",
       {},
       "",
       false,
       Condition{[&o] { return !o.noise.map.empty(); }, "with a map as observation.noise"}}};
  add_background(keys, o.noise, "observation");
  keys.insert(
      keys.end(),
      {{"psf", MapOrTable{&o.psf.kernel}, "kernel of odd size, its centre in the middle; or a profile"},
       {"mask", &o.mask, "which pixels are used"},
       {"mask_used", &o.mask_used,
        "value of the mask where a pixel is used; 1: it is 0 elsewhere; 0: anything else elsewhere, as in a map of "
        "flags",
        between(0, 1), "", false, Condition{[&o] { return !o.mask.empty(); }, "with observation.mask"}},
       {"region", SubTable{true}, "circles and annuli that are kept or masked"},
       {"max_noise", &o.max_noise, "pixels of larger noise are masked", above(0), "image unit"},
       {"pixel_scale", &o.pixel_scale, "from a celestial WCS when absent", above(0), "arcsec"},
       {"center_x", &o.center_x, "coordinate of the middle of the image", {}, "arcsec"},
       {"center_y", &o.center_y, "coordinate of the middle of the image", {}, "arcsec"},
       {"supersampling", &o.supersampling, "rays per pixel and side", between(1, kMaxSupersampling)},
       {"psf_supersampling", &o.psf_supersampling,
        "samples of the PSF per pixel and side, a divisor of supersampling: the image is convolved on them and "
        "then averaged over pixels; more than 1 on the CPU only",
        between(1, kMaxSupersampling)}});
  return keys;
}

Bounds bounds_of(const ParameterInfo& p) {
  switch (p.range) {
    case Range::positive:
      return above(p.lower);
    case Range::interval:
    case Range::ellipticity:
      return {p.lower, p.upper, true, true};
    case Range::integer:
      return between(p.lower, p.upper);
    case Range::unbounded:
      break;
  }
  return {};
}

/// The parameters of a profile, `fit` for the names of the free ones last.
/// @param more  names that `fit` takes beside those of the parameters
void add_parameters(Keys& keys, const ProfileInfo& info, std::vector<double>& values, std::vector<std::uint8_t>& free,
                    const NameSet& more = {}) {
  NameSet names;
  std::vector<std::size_t> indices;
  for (std::size_t i = 0; i < info.parameters.size(); ++i) {
    const ParameterInfo& p = info.parameters[i];
    const Target target = p.range == Range::integer ? Target(WholeNumber{&values[i]}) : Target(&values[i]);
    const std::string help = p.range == Range::ellipticity ? "e1^2 + e2^2 < 1" : "";
    keys.push_back({p.name, target, help, bounds_of(p), p.unit, std::isnan(p.default_value)});
    if (p.range == Range::integer) continue;
    names.names.emplace_back(p.name);
    indices.push_back(i);
  }
  const std::size_t own = indices.size();
  names.names.insert(names.names.end(), more.names.begin(), more.names.end());
  names.get = [&free, indices, more, own](std::size_t i) {
    return i < own ? static_cast<bool>(free[indices[i]]) : more.get(i - own);
  };
  names.add = [&free, indices, more, own](std::size_t i) {
    if (i < own)
      free[indices[i]] = true;
    else
      more.add(i - own);
  };
  keys.push_back({"bounds", SubTable{}, "intervals that free parameters keep to: { NAME = [lower, upper], ... }"});
  keys.push_back({"prior", SubTable{}, "Gaussians of free parameters: { NAME = { mean = ..., sigma = ... }, ... }"});
  keys.push_back({"fit", names, "names of the free parameters"});
}

/// The keys of the table `bounds` of a component.
Keys interval_keys(const ProfileInfo& info, std::vector<ParameterPrior>& priors) {
  Keys keys;
  for (std::size_t i = 0; i < priors.size(); ++i) {
    const ParameterInfo& p = info.parameters[i];
    if (p.range == Range::integer) continue;
    keys.push_back({p.name, Interval{&priors[i].lower, &priors[i].upper}, "", between(p.lower, p.upper), p.unit});
  }
  return keys;
}

/// Those of the table `prior`.
Keys normal_keys(const ProfileInfo& info, std::vector<ParameterPrior>& priors) {
  Keys keys;
  for (std::size_t i = 0; i < priors.size(); ++i)
    if (info.parameters[i].range != Range::integer)
      keys.push_back(
          {info.parameters[i].name, Normal{&priors[i].mean, &priors[i].sigma}, "", {}, info.parameters[i].unit});
  return keys;
}

/// Both tables as TOML, behind their component.
std::string priors_text(const std::string& block, const ProfileInfo& info, std::vector<ParameterPrior>& priors) {
  const std::string intervals = write_keys(interval_keys(info, priors)),
                    normals = write_keys(normal_keys(info, priors));
  return (intervals.empty() ? "" : "[" + block + ".bounds]\n" + intervals) +
         (normals.empty() ? "" : "[" + block + ".prior]\n" + normals);
}

/// Gives a component its profile, with defaults: required parameters are NaN until they are read.
template <class Component>
void start(Component& c, const ProfileInfo& info) {
  c.values.clear();
  for (const ParameterInfo& p : info.parameters) c.values.push_back(p.default_value);
  c.free.assign(info.parameters.size(), false);
}

/// The choice of a profile, before its parameters can be read.
/// @param info  lens_info or light_info
template <class Component, class Kind>
Key profile_choice(Component& c, int n_kinds, const ProfileInfo& (*info)(Kind)) {
  Choice profiles;
  for (int i = 0; i < n_kinds; ++i) profiles.names.emplace_back(info(static_cast<Kind>(i)).name);
  profiles.get = [&c] { return static_cast<std::size_t>(c.kind); };
  profiles.set = [&c, info](std::size_t i) {
    c.kind = static_cast<Kind>(i);
    start(c, info(c.kind));
  };
  return {"profile", profiles, "", {}, "", true};
}

/// The profile of a component whose keys are listed behind it.
Key profile_key(const ProfileInfo& info) {
  return {"profile", only(info.name), "parameters and conventions as in lenstronomy", {}, "", true};
}

Keys lens_keys(LensComponent& c) {
  Keys keys{profile_key(lens_info(c.kind))};
  add_parameters(keys, lens_info(c.kind), c.values, c.free);
  return keys;
}

/// The same without what concerns a fit: what is simulated is not fitted.
Keys perturbation_keys(LensComponent& c) {
  Keys keys = lens_keys(c);
  std::erase_if(keys, [](const Key& key) { return key.name == "fit" || key.name == "bounds" || key.name == "prior"; });
  return keys;
}

constexpr const char* kRandomField = "GAUSSIAN_RANDOM_FIELD";

Keys random_field_keys(RandomFieldConfig& f) {
  return {{"profile", only(kRandomField), "a field of waves, none longer than the image", {}, "", true},
          {"variance", &f.variance, "of the potential at a point", above(0), "arcsec^4", true},
          {"slope", &f.slope, "of the potential's power spectrum, P(k) ~ k^-slope", at_least(0), "", true},
          {"seed", &f.seed, "of the waves", at_least(0)}};
}

/// Of a NETWORK component. A source is smaller than its image, and so is what it sees.
NetworkConfig light_network_defaults() {
  NetworkConfig network;
  network.hidden = {64, 64};
  network.input_scale = 3;
  network.fourier_scale = 0.5;
  return network;
}

/// What a network sees, its layers, and what it starts from; `seed` last.
/// @param initial  how messages name that key
Keys shape_keys(NetworkConfig& n, const std::string& initial) {
  const Condition drawn{[&n] { return n.initial.empty(); }, "without " + initial};
  const Condition fourier{[&n] { return n.fourier; }, "with encoding = \"fourier\""};
  return {{"initial", FilePath{&n.initial}, "start from the weights of a network.safetensors; \"\" = random ones"},
          {"encoding", choice<bool>(n.fourier, {{"none", false}, {"fourier", true}}),
           "what the network sees: \"none\": the position; \"fourier\": sines and cosines of it with random, fixed "
           "frequencies; that of " +
               initial + " when that is given"},
          {"fourier_features", &n.fourier_features,
           "pairs of a sine and a cosine; those of " + initial + " when that is given", between(1, 0.5 * kMaxWidth), "",
           false, fourier},
          {"fourier_scale", &n.fourier_scale,
           "frequencies along x and y are normal with a standard deviation of 1 rad per fourier_scale of position · "
           "input_scale",
           above(0), "arcsec", false,
           Condition{[&n] { return n.fourier && n.initial.empty(); }, fourier.text + " and " + drawn.text}},
          {"hidden", &n.hidden,
           "widths of the hidden layers, 1 to " + std::to_string(kMaxHiddenLayers) +
               " of them, one fewer with an encoding; those of " + initial + " when that is given",
           between(1, kMaxWidth)},
          {"activation", only("swish"), "of the hidden layers"},
          {"input_scale", &n.input_scale,
           "the network sees position · input_scale; that of " + initial + " when that is given", above(0), "1/arcsec"},
          {"seed", &n.seed, "of the random weights", at_least(0), "", false, drawn}};
}

/// A NETWORK component: the parameters of the profile, then its network.
Keys network_light_keys(LightComponent& c, NetworkConfig& network) {
  Keys keys{profile_key(light_info(c.kind))};
  const NameSet weights{
      {"network"}, [&c](std::size_t) { return c.weights_free; }, [&c](std::size_t) { c.weights_free = true; }};
  add_parameters(keys, light_info(c.kind), c.values, c.free, weights);
  keys.back().help = "names of the free parameters; \"network\" = the weights";
  keys.front().help = "amp softplus(MLP((position - center) input_scale)); at most one such component";
  const Keys shape = shape_keys(network, "initial");
  keys.insert(keys.end() - 1, shape.begin(), shape.end());
  return keys;
}

Keys light_keys(LightComponent& c, LightStart& start_value) {
  if (c.kind == LightKind::network) return network_light_keys(c, start_value.network);
  Keys keys{profile_key(light_info(c.kind))};
  if (c.kind == LightKind::pixelated) {
    PixelGrid& g = c.grid;
    const NameSet pixels{
        {"pixels"}, [&c](std::size_t) { return c.pixels_free; }, [&c](std::size_t) { c.pixels_free = true; }};
    keys.insert(keys.end(),
                {{"nx", &g.nx, "columns", between(1, kMaxSourceSide), "pixels", true},
                 {"ny", &g.ny, "rows", between(1, kMaxSourceSide), "pixels", true},
                 {"pixel_scale", &g.pixel_scale, "bilinear between pixel centres", above(0), "arcsec", true},
                 {"center_x", &g.center_x, "coordinate of the middle of the grid", {}, "arcsec"},
                 {"center_y", &g.center_y, "coordinate of the middle of the grid", {}, "arcsec"},
                 {"image", &start_value.image, "start values, an image of nx x ny"},
                 {"value",
                  &start_value.value,
                  "start value of every pixel",
                  {},
                  "image unit",
                  false,
                  Condition{[&start_value] { return start_value.image.empty(); }, "without image"}},
                 {"fit", pixels, R"(["pixels"] = the pixels are free)"}});
    return keys;
  }
  add_parameters(keys, light_info(c.kind), c.values, c.free);
  if (c.kind == LightKind::sersic_ellipse)
    keys.insert(keys.end() - 1, {"radius", choice_of(c.radius, kRadiusKinds), "what R_sersic measures"});
  return keys;
}

Keys network_keys(NetworkConfig& n) {
  const Condition drawn{[&n] { return n.initial.empty(); }, "without network.initial"};
  Keys keys = shape_keys(n, "network.initial");
  keys.insert(keys.end() - 1, {"last_layer",
                               choice<bool>(n.last_layer_zero, {{"random", false}, {"zero", true}}),
                               "\"zero\": the correction starts at nothing",
                               {},
                               "",
                               false,
                               drawn});
  keys.push_back(
      {"math", choice_of(n.math, kNetworkMaths),
       "arithmetic between hidden layers in single precision on a CUDA device (an error elsewhere): \"fp32\"; "
       "from compute capability 8.0 on \"tf32x3\": matrix units, as accurate; \"tf32\": faster, errors of "
       "1e-3"});
  keys.push_back({"ensemble", &n.ensemble, "networks of the seeds seed, seed + 1, ... that are fitted side by side",
                  between(1, kMaxEnsemble), "", false, drawn});
  return keys;
}

/// What a stage has of its own.
Keys stage_keys(StageConfig& s) {
  // In [optimizer] these may be meant for a stage of another optimiser.
  return {{"name", choice_of(s.name, kOptimizerKinds),
           "the optimiser; a step of L-BFGS is a line search; Levenberg-Marquardt moves parameters of profiles alone, "
           "solves for their amplitudes, runs on the CPU in double precision and ends by itself"},
          {"learning_rate", &s.learning_rate, "of Adam", above(0)},
          {"steps", &s.steps, "at most; 0 = the model is only evaluated", between(0, kMaxSteps)},
          {"warmup", &s.warmup, "of Adam: the learning rate rises linearly over so many steps",
           between(0, kMaxScheduled), "steps"},
          {"schedule", choice<bool>(s.cosine, {{"constant", false}, {"cosine", true}}),
           "of Adam: the learning rate after the warm-up; \"cosine\": half a period, to 0 at the last step"},
          {"clip_norm", &s.clip_norm, "of Adam: a longer gradient is shortened to it; 0 = never", at_least(0)},
          {"memory", &s.memory, "of L-BFGS: pairs of steps and gradients that it keeps", between(1, kMaxMemory)},
          {"free", NameList{&s.free},
           "what moves of all that is free: network, lens, source.0, source.0.amp ...; [] = everything"},
          {"stop", choice_of(s.stop, kStopRules),
           "stop before the last step; \"chi2\": reduced chi^2 has come down to stop_chi2; \"heldout\": that of pixels "
           "left "
           "out of the fit no longer falls; \"plateau\": the loss no longer falls"}};
}

bool stops_by(const OptimizerConfig& o, std::initializer_list<StopRule> rules) {
  const auto named = [&](const StageConfig& s) { return std::find(rules.begin(), rules.end(), s.stop) != rules.end(); };
  return named(o) || std::any_of(o.stages.begin(), o.stages.end(), named);
}

Keys optimizer_keys(OptimizerConfig& o) {
  Keys keys = stage_keys(o);
  const Condition chi2{[&o] { return stops_by(o, {StopRule::chi2}); }, "with stop = \"chi2\""};
  const Condition heldout{[&o] { return stops_by(o, {StopRule::held_out}); }, "with stop = \"heldout\""};
  const Condition patient{[&o] {
                            return stops_by(o, {StopRule::held_out, StopRule::plateau});
                          },
                          "with stop = \"heldout\" or \"plateau\""};
  const Condition unjudged{[&o] { return keeps_last(o.stop); }, "with stop = \"none\" or \"chi2\""};
  keys.insert(keys.begin() + 1, {{"loss", choice_of(o.loss, kLossKinds),
                                  "mean over used pixels of (model - data)^2, or of ((model - data)/noise)^2"}});
  keys.insert(keys.end(),
              {{"stop_chi2", &o.stop_chi2, "reduced chi^2 to stop at", above(0), "", false, chi2},
               {"patience", &o.patience, "so many steps without a fall stop the fit", between(1, kMaxSteps), "steps",
                false, patient},
               {"tolerance", &o.tolerance, "relative fall that counts", Bounds{0, 1, false, true}, "", false, patient},
               {"held_out", &o.held_out, "share of the used pixels that is left out", Bounds{0, 1, true, true}, "",
                false, heldout},
               {"held_out_seed", &o.held_out_seed, "of their choice", at_least(0), "", false, heldout},
               {"best_of_last", &o.best_of_last, "take the state of lowest loss among so many last steps; 0 = the last",
                between(0, kMaxSteps), "steps", false, unjudged},
               {"starts", &o.starts,
                "of a first stage of levenberg_marquardt: one from the values given, the others drawn from prior and "
                "bounds, bad ones given up early",
                between(1, kMaxStarts)},
               {"starts_seed", &o.starts_seed, "of their random numbers", at_least(0), "", false,
                Condition{[&o] { return o.starts > 1; }, "with starts > 1"}},
               {"checkpoint_every", &o.checkpoint_every, "0 = only at the end", between(0, kMaxSteps), "steps"},
               {"stage", SubTable{true},
                "stages that follow each other, at most " + std::to_string(kMaxStages) +
                    "; what they do not say is as in [optimizer]"}});
  return keys;
}

Keys regularization_keys(RegularizationConfig& r) {
  return {
      {"smoothness", &r.smoothness, "weight of mean kappa_NN^2", at_least(0)},
      {"curvature", &r.curvature, "weight of mean psi_xx^2 + psi_yy^2 + 2 psi_xy^2 of the network, each less its mean",
       at_least(0)},
      {"negative_convergence", &r.negative_convergence, "weight of mean max(0, -kappa_NN)^2", at_least(0)},
      {"negative_total_convergence", &r.negative_total_convergence, "weight of mean max(0, -kappa_macro - kappa_NN)^2",
       at_least(0)},
      {"weight_decay", &r.weight_decay, "weight of half the sum of squared kernel weights of [network]", at_least(0)},
      {"source_gradient", &r.source_gradient,
       "weight of the mean squared difference of neighbouring pixels of a free PIXELATED source, 0 outside its grid",
       at_least(0), "1/image unit^2"},
      {"source_curvature", &r.source_curvature, "the same of the second differences", at_least(0), "1/image unit^2"},
      {"automatic",
       &r.automatic,
       "whether all these weights are multiplied by what serves pixels best that are held out, of " + tried_factors(),
       {},
       "",
       false,
       Condition{[&r] { return r.any(); }, "with a weight > 0"}}};
}

Keys truth_keys(FitsReference& truth) {
  return {{"file",
           FilePath{&truth.path},
           "FITS with PSI_TRUE, ALPHA_TRUE, KAPPA_TRUE (the missing mass alone), IMAGE_TRUE",
           {},
           "",
           true}};
}

Keys simulate_keys(SimulateConfig& s) {
  Keys keys{{"nx", &s.nx, "columns of the image", between(1, kMaxImageSide), "pixels"},
            {"ny", &s.ny, "rows of the image", between(1, kMaxImageSide), "pixels"},
            {"noise", &s.noise.value, "1 sigma, the same in every pixel; 0 = none", at_least(0), "image unit"}};
  add_background(keys, s.noise, "simulate");
  keys.push_back({"psf", MapOrTable{&s.psf.kernel}, "as observation.psf, which is taken when this is absent"});
  keys.push_back({"seed", &s.seed, "of the noise", at_least(0)});
  return keys;
}

// ---- reading ---------------------------------------------------------------------------------------------

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
  document.read(bounds, interval_keys(info, c.priors));
  document.read(prior, normal_keys(info, c.priors));
  double reach = 0;
  for (std::size_t i = 0; i < c.values.size(); ++i) {
    const ParameterInfo& p = info.parameters[i];
    const ParameterPrior& known = c.priors[i];
    const std::string name = std::string(".") + p.name;
    if ((known.bounded() || known.gaussian()) && !c.free[i])
      document.fail((known.bounded() ? bounds : prior) + name,
                    std::string("has no effect, found ") + p.name + " fixed, expected its name in fit");
    const bool outside = known.bounded() && !(c.values[i] > known.lower && c.values[i] < known.upper);
    // An amplitude is drawn or solved for; what it starts from does not matter, but must be in its range.
    if (outside)
      document.fail(document.has(path + name) ? path + name : bounds + name,
                    "outside of its bounds, found " + to_text(c.values[i]) + ", expected > " + to_text(known.lower) +
                        " and < " + to_text(known.upper));
    if (p.range != Range::ellipticity) continue;
    const double e = known.bounded() ? std::max(std::abs(known.lower), std::abs(known.upper))
                     : c.free[i]     ? 0
                                     : std::abs(c.values[i]);
    reach += e * e;
    if (reach >= 1)
      document.fail(bounds, "an ellipticity out of range, found |e| = " + rounded(std::sqrt(reach)) +
                                " in a corner of the bounds, expected e1^2 + e2^2 < 1 everywhere in them");
  }
}

/// Tables of an array of tables.
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
    document.read_one(path, profile_choice(c, kLensKinds, lens_info));
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
    Key profile = profile_choice(c, kLensKinds, lens_info);
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

/// The shape of the network in the table at `path`, whose keys have been read: theirs, or that of the file that it
/// starts from, which they then take over.
NetworkShape read_shape(const Document& document, const std::string& path, NetworkConfig& network) {
  if (!network.initial.empty()) {
    const NetworkShape stored = read_network(network.initial).shape;
    const bool fourier = stored.fourier_features > 0;
    const auto differs = [&](const std::string& key, const std::string& what, const std::string& found,
                             const std::string& expected) {
      if (document.has(path + "." + key) && found != expected)
        document.fail(path + "." + key,
                      "another " + what + ", found " + found + ", expected " + expected + " as in " + network.initial);
    };
    const auto encoding = [](bool of_fourier) { return of_fourier ? "\"fourier\"" : "\"none\""; };
    const auto widths = [](const std::vector<int>& hidden) {
      std::string list;
      for (const int width : hidden) list += (list.empty() ? "" : ", ") + std::to_string(width);
      return "[" + list + "]";
    };
    const auto scale = [](double value) { return to_text(value) + " 1/arcsec"; };
    differs("encoding", "encoding", encoding(network.fourier), encoding(fourier));
    differs("fourier_features", "number", std::to_string(network.fourier_features),
            std::to_string(stored.fourier_features));
    differs("hidden", "shape", widths(network.hidden), widths(stored.hidden));
    if (document.has(path + ".input_scale") && network.input_scale != stored.input_scale)
      document.fail(path + ".input_scale", "another scale, found " + scale(network.input_scale) + ", expected " +
                                               to_text(stored.input_scale) + " as in " + network.initial);
    network.hidden = stored.hidden;
    network.input_scale = stored.input_scale;
    network.fourier = fourier;
    if (fourier) network.fourier_features = stored.fourier_features;
  }
  const std::size_t layers = network.hidden.size(), most = kMaxHiddenLayers - (network.fourier ? 1 : 0);
  if (layers < 1 || layers > most)
    document.fail(path + ".hidden", "wrong number of layers, found " + std::to_string(layers) + ", expected 1 to " +
                                        std::to_string(most) + (network.fourier ? " behind the encoding" : ""));
  return {network.hidden, network.input_scale, network.fourier ? network.fourier_features : 0};
}

std::vector<LightComponent> read_lights(const Document& document, const std::string& block,
                                        std::vector<LightStart>& starts) {
  std::vector<LightComponent> components(count_of(document, block));
  starts.resize(components.size());
  for (std::size_t i = 0; i < components.size(); ++i) {
    LightComponent& c = components[i];
    const std::string path = block + "." + std::to_string(i);
    starts[i].network = light_network_defaults();
    document.read_one(path, profile_choice(c, kLightKinds, light_info));
    document.read(path, light_keys(c, starts[i]));
    check_ellipticity(document, path, light_info(c.kind), c.values);
    read_priors(document, path, light_info(c.kind), c);
    if (c.kind == LightKind::network) c.network = read_shape(document, path, starts[i].network);
  }
  return components;
}

/// The table of a PSF, when there is one; its type in any case.
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
    document.fail(block + ".exposure_time", "missing, expected a number > 0 s beside background_rms");
  if (noise.exposure_time && !noise.background_rms)
    document.fail(block + ".background_rms", "missing, expected a number > 0 image unit beside exposure_time");
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
      document.fail(path + ".outer", "not beyond the inner radius, found " + to_text(region.outer) +
                                         " arcsec, expected a number > inner = " + to_text(region.inner) + " arcsec");
  }
  check_noise(document, "observation", o.noise, !for_simulation, "\"FILE[HDU]\" or a number > 0 image unit");
  if (o.noise.value && *o.noise.value > o.max_noise)
    document.fail("observation.noise", "every pixel would be masked, found " + to_text(*o.noise.value) +
                                           ", expected at most max_noise = " + to_text(o.max_noise));
  if (for_simulation && !o.pixel_scale)
    document.fail("observation.pixel_scale", "missing, expected a number > 0 arcsec for a simulation");
}

bool anything_free(const Model& model) {
  const auto some = [](const auto& components) {
    return std::any_of(components.begin(), components.end(),
                       [](const auto& c) { return std::find(c.free.begin(), c.free.end(), true) != c.free.end(); });
  };
  const auto pixels_or_weights = [](const LightComponent& c) { return c.pixels_free || c.weights_free; };
  return model.network || some(model.lens) || some(model.source) || some(model.lens_light) ||
         std::any_of(model.source.begin(), model.source.end(), pixels_or_weights) ||
         std::any_of(model.lens_light.begin(), model.lens_light.end(), pixels_or_weights);
}

/// Weights of terms on something that the model does not have.
void check_regularization(const Document& document, const Model& model, RegularizationConfig r) {
  const bool free_pixels =
      std::any_of(model.source.begin(), model.source.end(), [](const LightComponent& c) { return c.pixels_free; });
  for (const Key& key : regularization_keys(r)) {
    if (!std::holds_alternative<double*>(key.target)) continue;
    const double weight = *std::get<double*>(key.target);
    const bool on_pixels = key.name.rfind("source_", 0) == 0;
    if (weight == 0 || (on_pixels ? free_pixels : model.network.has_value())) continue;
    document.fail(
        "regularization." + key.name,
        "has no effect, found " + to_text(weight) +
            (on_pixels ? " without a free PIXELATED source, expected 0 or a [[source]] with fit = [\"pixels\"]"
                       : " without [network], expected 0 or a [network]"));
  }
}

/// One NETWORK component has place in a model.
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

/// Pixels of all PIXELATED components, before memory is taken for them.
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

/// [optimizer] and its stages. The stages are read first: which keys have a meaning depends on them.
void read_optimizer(const Document& document, OptimizerConfig& o) {
  for (const Key& key : stage_keys(o))
    if (document.has("optimizer." + key.name)) document.read_one("optimizer", key);
  const std::size_t n = count_of(document, "optimizer.stage", kMaxStages);
  for (std::size_t i = 0; i < n; ++i) {
    StageConfig& stage = o.stages.emplace_back(static_cast<const StageConfig&>(o));
    if (i + 1 < n) stage.stop = StopRule::none;
    document.read("optimizer.stage." + std::to_string(i), stage_keys(stage));
  }
  document.read("optimizer", optimizer_keys(o));
  if (o.starts > 1 && o.all_stages().front().name != OptimizerKind::levenberg_marquardt)
    document.fail("optimizer.starts", "has no effect, found " + std::to_string(o.starts) + " with another first " +
                                          (n == 0 ? "optimiser" : "stage") +
                                          ", expected name = \"levenberg_marquardt\" there");
  const auto check = [&](const std::string& path, const StageConfig& s) {
    const bool rule = document.has(path + ".stop") && (s.stop == StopRule::chi2 || s.stop == StopRule::held_out);
    if (s.name == OptimizerKind::levenberg_marquardt && rule)
      document.fail(path + ".stop",
                    "has no effect, found a rule for levenberg_marquardt, which ends by itself, expected "
                    "\"none\"");
    if (s.name != OptimizerKind::adam) return;
    if (s.cosine && s.steps > kMaxScheduled)
      document.fail(path + ".steps", "too many for a schedule, found " + std::to_string(s.steps) +
                                         ", expected at most " + std::to_string(kMaxScheduled));
    if (s.cosine && s.warmup >= s.steps && s.warmup > 0)
      document.fail(path + ".warmup", "not shorter than the stage, found " + std::to_string(s.warmup) +
                                          " steps, expected fewer than steps = " + std::to_string(s.steps));
  };
  std::int64_t steps = 0;
  for (const StageConfig& stage : o.stages) steps += stage.steps;
  if (steps > kMaxSteps)
    document.fail("optimizer.stage", "too many steps, found " + std::to_string(steps) +
                                         " in all stages, expected at most " + std::to_string(kMaxSteps));
  if (n == 0) check("optimizer", o);
  for (std::size_t i = 0; i < n; ++i) check("optimizer.stage." + std::to_string(i), o.stages[i]);
}

/// Names of what the stages free, once the model is known.
void check_stages(const Document& document, const Config& config) {
  const std::vector<StageConfig> all = config.optimizer.all_stages();
  if (config.optimizer.free.empty() && std::all_of(all.begin(), all.end(), [](const auto& s) {
        return s.free.empty() && s.name != OptimizerKind::levenberg_marquardt;
      }))
    return;
  Model model = config.model;
  for (std::vector<LightComponent>* lights : {&model.source, &model.lens_light})
    for (LightComponent& c : *lights) {  // what has not been loaded yet counts
      c.pixels.resize(c.kind == LightKind::pixelated ? static_cast<std::size_t>(c.grid.nx * c.grid.ny) : 0);
      c.weights.resize(c.kind == LightKind::network ? c.network.size() : 0);
    }
  const auto check = [&](const std::string& path, const StageConfig& s) {
    std::vector<std::uint8_t> moves;
    try {
      moves = trainable(model, s.free);
    } catch (const InvalidInput& error) {
      document.fail(path + ".free", error.what());
    }
    if (s.name != OptimizerKind::levenberg_marquardt) return;
    const ParameterLayout layout(model);
    bool scalars = moves.empty() && layout.n_free() > 0, others = false;
    for (std::size_t i = 0; i < moves.size(); ++i)
      (i >= layout.n_network && i < layout.n_network + layout.n_free() ? scalars : others) |= moves[i] != 0;
    if (others)
      document.fail(path + ".free",
                    "weights or pixels, which levenberg_marquardt does not move, expected names of "
                    "parameters of profiles");
    if (!scalars)
      document.fail(path + ".name",
                    "nothing to move, found \"levenberg_marquardt\" without a free parameter of a "
                    "profile, expected one in a fit = [...]");
  };
  check("optimizer", config.optimizer);
  for (std::size_t i = 0; i < config.optimizer.stages.size(); ++i)
    check("optimizer.stage." + std::to_string(i), config.optimizer.stages[i]);
}

/// Gaussian priors stand beside -2 ln of the likelihood.
void check_priors(const Document& document, const Config& config) {
  if (config.optimizer.loss == LossKind::chi2) return;
  const auto check = [&](const std::string& block, const auto& components) {
    for (std::size_t i = 0; i < components.size(); ++i)
      for (const ParameterPrior& prior : components[i].priors)
        if (prior.gaussian())
          document.fail(block + "." + std::to_string(i) + ".prior",
                        "cannot be weighed against the data, found optimizer.loss = \"mse\", expected \"chi2\"");
  };
  check("lens", config.model.lens);
  check("source", config.model.source);
  check("lens_light", config.model.lens_light);
}

/// What holds between the blocks.
void check_model(const Document& document, const Config& config, bool for_simulation) {
  const Model& model = config.model;
  if (model.source.empty() && model.lens_light.empty())
    document.fail("source", "missing, expected at least one [[source]] or [[lens_light]]");
  if (model.network && model.source.empty())
    document.fail("network", "has no effect, found no [[source]], expected one whose light is deflected");
  check_network_lights(document, model);
  check_pixels(document, model);
  check_regularization(document, model, config.regularization);
  if (!for_simulation && !anything_free(model))
    document.fail("network", "nothing to fit, found no [network] and no name in any fit = [...], expected one of them");
}

}  // namespace

Config read_config(const std::string& file, const std::vector<Override>& overrides, bool for_simulation) {
  const Document document(file, overrides);
  Config config;
  config.file = file;
  config.places = document.places();
  document.read("", top_keys(config));
  const Recipe& defaults = recipe(config.recipe);
  config.optimizer = defaults.optimizer;
  if (document.has("network")) config.regularization = defaults.regularization;  // terms on the network

  read_observation(document, config, for_simulation);
  config.model.lens = read_lenses(document);
  config.model.source = read_lights(document, "source", config.source_start);
  config.model.lens_light = read_lights(document, "lens_light", config.lens_light_start);
  if (document.has("network")) {
    config.network = defaults.network;
    document.read("network", network_keys(*config.network));
    if (!config.network->initial.empty()) config.network->ensemble = 1;  // one start is one member
    // A simulation has no use for the network: the file that it starts from need not exist yet.
    NetworkConfig network = *config.network;
    if (for_simulation) network.initial.clear();
    config.model.network = read_shape(document, "network", network);
    network.initial = config.network->initial;
    config.network = network;
  }
  read_optimizer(document, config.optimizer);
  document.read("regularization", regularization_keys(config.regularization));
  if (document.has("truth")) {
    document.read("truth", truth_keys(config.truth));
    if (config.truth.path.empty() || config.truth.path.back() == ']')
      document.fail("truth.file",
                    "not a file alone, found \"" + config.truth.path + R"(", expected "FILE" without [HDU])");
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
  check_model(document, config, for_simulation);
  check_priors(document, config);
  if (!for_simulation) check_stages(document, config);
  return config;
}

// ---- writing ---------------------------------------------------------------------------------------------

namespace {

std::string psf_text(const std::string& title, PsfConfig& psf) {
  const bool table = psf.type == "gaussian" || psf.type == "moffat";
  return table ? "\n[" + title + "]\n" + write_keys(psf_keys(psf)) : "";
}

}  // namespace

std::string to_toml(const Config& config) {
  Config c = config;  // the tables bind to what they could also set
  std::string text = write_keys(top_keys(c));
  text += "\n[observation]\n" + write_keys(observation_keys(c.observation, true)) +
          psf_text("observation.psf", c.observation.psf);
  for (RegionConfig& region : c.observation.regions)
    text += "\n[[observation.region]]\n" + write_keys(region_keys(region));
  for (LensComponent& lens : c.model.lens)
    text += "\n[[lens]]\n" + write_keys(lens_keys(lens)) + priors_text("lens", lens_info(lens.kind), lens.priors);
  const auto write_lights = [&text](const std::string& block, std::vector<LightComponent>& lights,
                                    std::vector<LightStart>& starts) {
    for (std::size_t i = 0; i < lights.size(); ++i)
      text += "\n[[" + block + "]]\n" + write_keys(light_keys(lights[i], starts.at(i))) +
              priors_text(block, light_info(lights[i].kind), lights[i].priors);
  };
  write_lights("source", c.model.source, c.source_start);
  write_lights("lens_light", c.model.lens_light, c.lens_light_start);
  if (c.network) text += "\n[network]\n" + write_keys(network_keys(*c.network));
  text += "\n[optimizer]\n" + write_keys(optimizer_keys(c.optimizer));
  for (StageConfig& stage : c.optimizer.stages) text += "\n[[optimizer.stage]]\n" + write_keys(stage_keys(stage));
  text += "\n[regularization]\n" + write_keys(regularization_keys(c.regularization));
  if (!c.truth.empty()) text += "\n[truth]\n" + write_keys(truth_keys(c.truth));
  if (c.simulate)
    text += "\n[simulate]\n" + write_keys(simulate_keys(*c.simulate)) + psf_text("simulate.psf", c.simulate->psf);
  for (LensComponent& lens : c.perturbation) text += "\n[[perturbation]]\n" + write_keys(perturbation_keys(lens));
  for (RandomFieldConfig& field : c.random_fields)
    text += "\n[[perturbation]]\n" + write_keys(random_field_keys(field));
  return text;
}

bool holds_out(const OptimizerConfig& optimizer) {
  return stops_by(optimizer, {StopRule::held_out});
}

FitSettings fit_settings(const Config& config, const Model& model, int log_every) {
  const OptimizerConfig& o = config.optimizer;
  FitSettings settings;
  settings.stages.clear();
  for (const StageConfig& stage : o.all_stages())
    settings.stages.push_back({stage.name,
                               stage.steps,
                               {learning_rates(stage.learning_rate, stage.steps, stage.warmup, stage.cosine),
                                stage.clip_norm, trainable(model, stage.free)},
                               stage.memory,
                               stage.stop});
  settings.log_every = log_every;
  settings.stop_chi2 = o.stop_chi2;
  settings.patience = o.patience;
  settings.tolerance = o.tolerance;
  settings.best_of_last = keeps_last(o.stop) ? o.best_of_last : 0;
  settings.checkpoint_every = o.checkpoint_every;
  settings.starts = o.starts;
  settings.starts_seed = o.starts_seed;
  return settings;
}

std::string list_keys() {
  Config c;
  NetworkConfig network = recipe(c.recipe).network;
  OptimizerConfig optimizer = recipe(c.recipe).optimizer;
  RegularizationConfig regularization = recipe(c.recipe).regularization;
  SimulateConfig simulate;
  PsfConfig psf;
  psf.type = "gaussian";
  psf.fwhm = psf.beta = std::nan("");
  const auto title = [](const char* blocks, const ProfileInfo& info) {
    return std::string(blocks) + " profile = \"" + info.name + "\"";
  };
  std::string text =
      "Keys of the configuration: key, type, unit, range, default, meaning. N counts the components of a block "
      "from 0;\n`--set KEY=VALUE` names keys in the same way. Paths are relative to the configuration file.\n\n";
  text += list_table("title, recipe, blocks", "", top_keys(c));
  text += "\n" + list_table("[observation]", "observation.", observation_keys(c.observation, true));
  RegionConfig region;
  region.radius = region.inner = region.outer = std::nan("");
  text += "\n" + list_table("[[observation.region]]", "observation.region.N.", region_keys(region));
  text += "\n" + list_table("psf = { ... } in [observation] and [simulate]", "observation.psf.", psf_keys(psf));
  for (int i = 0; i < kLensKinds; ++i) {
    LensComponent lens{static_cast<LensKind>(i), {}, {}};
    start(lens, lens_info(lens.kind));
    text += "\n" + list_table(title("[[lens]], [[perturbation]] (without fit)", lens_info(lens.kind)), "lens.N.",
                              lens_keys(lens));
  }
  for (int i = 0; i < kLightKinds; ++i) {
    LightComponent light;
    light.kind = static_cast<LightKind>(i);
    start(light, light_info(light.kind));
    LightStart start_value;
    start_value.network = light_network_defaults();
    text += "\n" + list_table(title("[[source]], [[lens_light]]", light_info(light.kind)), "source.N.",
                              light_keys(light, start_value));
  }
  text += "\n" + list_table("[network]", "network.", network_keys(network));
  text += "\n" + list_table("[optimizer]", "optimizer.", optimizer_keys(optimizer));
  text +=
      "\n" + list_table("[[optimizer.stage]], defaults as in [optimizer]", "optimizer.stage.N.", stage_keys(optimizer));
  text += "\n" + list_table("[regularization]", "regularization.", regularization_keys(regularization));
  text += "\n" + list_table("[truth]", "truth.", truth_keys(c.truth));
  text += "\n" + list_table("[simulate]", "simulate.", simulate_keys(simulate));
  RandomFieldConfig field{std::nan(""), std::nan(""), 1};
  text += "\n" + list_table(std::string("[[perturbation]] profile = \"") + kRandomField + "\"", "perturbation.N.",
                            random_field_keys(field));
  return text;
}

}  // namespace einfield
