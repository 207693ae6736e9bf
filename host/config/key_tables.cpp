#include "host/config/key_tables.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

#include "einfield/psf.hpp"
#include "host/config/recipes.hpp"
#include "host/files/text.hpp"

namespace einfield {
namespace {

constexpr int kMaxMemory = 1000;
constexpr int kMaxStarts = 10'000;
constexpr int kMaxSourceSide = 4096;

/// Which parameters of a component are free, one flag per parameter.
using FreeFlags = decltype(LensComponent::free);

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

/// A key that has one value only.
Choice only(const std::string& name) {
  return {{name}, [] { return std::size_t(0); }, {}};
}

void append(Keys& keys, const Keys& more) {
  keys.insert(keys.end(), more.begin(), more.end());
}

/// background_rms and exposure_time, the alternative to `noise`. @param block  "observation"
Keys background_keys(NoiseConfig& noise, const std::string& block) {
  const Condition alone{[&noise] { return noise.map.empty() && !noise.value; }, "without " + block + ".noise"};
  return {{"background_rms", &noise.background_rms,
           "noise of the background, with exposure_time: sigma^2 = background_rms^2 + max(image, 0)/exposure_time",
           above(0), "image unit", false, alone},
          {"exposure_time", &noise.exposure_time, "image * exposure_time must be a number of photons", above(0), "s",
           false, alone}};
}

}  // namespace

// ---- the data --------------------------------------------------------------------------------------------

Keys top_keys(Config& c) {
  Choice recipe_names;
  for (const Recipe& r : recipes()) recipe_names.names.push_back(r.name);
  recipe_names.get = [&c] { return static_cast<std::size_t>(&recipe(c.recipe) - recipes().data()); };
  recipe_names.set = [&c](std::size_t i) { c.recipe = recipes()[i].name; };
  const std::string one_each = ", one component per table, at most " + std::to_string(kMaxComponents);
  return {{"title", &c.title, "one line, shown in the log and the report"},
          {"recipe", recipe_names, "set of defaults for [network], [optimizer] and [regularization]"},
          {"observation", SubTable{}, "the data"},
          {"lens", SubTable{true}, "smooth mass" + one_each},
          {"source", SubTable{true}, "lensed light" + one_each},
          {"lens_light", SubTable{true}, "light that is not lensed" + one_each},
          {"network", SubTable{}, "neural correction of the potential; without this table there is no network"},
          {"optimizer", SubTable{}, "how the model is fitted"},
          {"regularization", SubTable{}, "penalties added to the loss"},
          {"uncertainty", SubTable{}, "error bars of maps and profile parameters"},
          {"cosmology", SubTable{}, "redshifts, for masses in solar masses"},
          {"truth", SubTable{}, "the truth of simulated data, for comparison with the fit"},
          {"simulate", SubTable{}, "settings of `einfield simulate`"},
          {"perturbation", SubTable{true}, "mass in the simulated image but not in the fitted model" + one_each}};
}

Keys psf_keys(PsfConfig& psf) {
  Choice types{{"gaussian", "moffat"},
               [&psf] { return std::size_t(psf.type == "moffat"); },
               [&psf](std::size_t i) { psf.type = i == 1 ? "moffat" : "gaussian"; }};
  return {{"type", types, "analytic profile of the PSF"},
          {"fwhm", &psf.fwhm, "full width at half maximum", above(0), "arcsec", true},
          {"beta", &psf.beta, "exponent of the Moffat profile", above(1), "", true,
           Condition{[&psf] { return psf.type == "moffat"; }, "with type = \"moffat\""}},
          {"size", &psf.size, "side of the kernel, odd; 0 = the smallest kernel that holds 99.9 % of the light",
           between(0, kMaxPsfSide), "pixels"}};
}

Key shape_key(RegionConfig& r) {
  return {"shape", choice<bool>(r.annulus, {{"circle", false}, {"annulus", true}}), "", {}, "", true};
}

Keys region_keys(RegionConfig& r) {
  const Condition circle{[&r] { return !r.annulus; }, "with shape = \"circle\""};
  const Condition annulus{[&r] { return r.annulus; }, "with shape = \"annulus\""};
  return {
      shape_key(r),
      {"center_x", &r.center_x, "x coordinate of the center", {}, "arcsec"},
      {"center_y", &r.center_y, "y coordinate of the center", {}, "arcsec"},
      {"radius", &r.radius, "a pixel is inside if its center is within this radius", above(0), "arcsec", true, circle},
      {"inner", &r.inner, "inner radius; a pixel is inside if its center lies between the two radii", at_least(0),
       "arcsec", true, annulus},
      {"outer", &r.outer, "outer radius", above(0), "arcsec", true, annulus},
      {"keep", &r.keep,
       "true: only pixels inside regions with keep = true are used; false: pixels inside this region are masked"}};
}

Keys observation_keys(ObservationConfig& o, bool need_image) {
  Keys keys{
      {"image",
       &o.image,
       "the image to fit; a part of it: \"FILE[HDU][x0:x1,y0:y1]\", columns and rows from 1; maps of the whole image "
       "are cut alike, and coordinates are those of the part; a plane of a cube: \"FILE[HDU][*,*,k]\" or "
       "\"FILE[HDU][x0:x1,y0:y1,k]\", k from 1",
       {},
       "",
       need_image},
      {"noise", MapOrNumber{&o.noise.map, &o.noise.value}, "1 sigma: a map or one number", above(0), "image unit"},
      {"noise_kind",
       choice<NoiseKind>(
           o.noise.kind,
           {{"sigma", NoiseKind::sigma}, {"variance", NoiseKind::variance}, {"weight", NoiseKind::weight}}),
       "content of the noise map: sigma, sigma^2 (variance) or 1/sigma^2 (weight); pixels of weight 0 are masked",
       {},
       "",
       false,
       Condition{[&o] { return !o.noise.map.empty(); }, "with a map as observation.noise"}}};
  append(keys, background_keys(o.noise, "observation"));
  append(
      keys,
      {{"psf", MapOrTable{&o.psf.kernel}, "kernel of odd size, centered on its middle pixel, or a table of a profile"},
       {"mask", &o.mask, "map of the pixels to use"},
       {"mask_used", &o.mask_used,
        "value of the mask in used pixels; 1: all other pixels are 0; 0: all other pixels are nonzero, as in a map "
        "of flags",
        between(0, 1), "", false, Condition{[&o] { return !o.mask.empty(); }, "with observation.mask"}},
       {"region", SubTable{true}, "circles and annuli to keep or to mask"},
       {"noise_floor", &o.noise_floor, "least 1 sigma of a pixel: smaller noise is replaced by it", at_least(0),
        "image unit"},
       {"noise_correlation", &o.noise_correlation,
        "kernel of the correlation of two pixels' noise by their offset, of odd size, 1 in the middle; "
        "levenberg_marquardt and uncertainties whiten the Jacobian with it, on the CPU"},
       {"measure_noise_correlation", &o.measure_noise_correlation,
        "measure that kernel in the blank sky of the image, for offsets of up to 3 pixels, and scale the noise to the "
        "scatter of the sky"},
       {"model_error", &o.model_error,
        "error of the model as a fraction of the brightness: sigma^2 = noise^2 + (model_error * max(image, 0))^2",
        Bounds{0, 1, false, true}},
       {"max_noise", &o.max_noise, "pixels whose noise is more than this times the median noise are masked", above(0)},
       {"pixel_scale", &o.pixel_scale, "side of a pixel; needed if the image has no celestial WCS", above(0), "arcsec"},
       {"zero_point",
        &o.zero_point,
        "AB magnitude of a flux of 1 image unit; without it that of the header of the image, from BUNIT = Jy, mJy, "
        "uJy, nJy or nanomaggy, MJy/sr with PIXAR_SR, or a count rate with PHOTFLAM and PHOTPLAM",
        {},
        "mag"},
       {"center_x", &o.center_x, "x coordinate of the middle of the image", {}, "arcsec"},
       {"center_y", &o.center_y, "y coordinate of the middle of the image", {}, "arcsec"},
       {"supersampling", &o.supersampling, "rays per pixel along each axis", between(1, kMaxSupersampling)},
       {"psf_supersampling", &o.psf_supersampling,
        "PSF samples per pixel along each axis, a divisor of supersampling: the image is convolved at this "
        "resolution, then averaged over pixels",
        between(1, kMaxSupersampling)}});
  return keys;
}

Keys cosmology_keys(Cosmology& c) {
  return {{"z_lens", &c.z_lens, "redshift of the lens", above(0), "", true},
          {"z_source", &c.z_source, "redshift of the source", above(0), "", true},
          {"H0", &c.H0, "Hubble constant", above(0), "km/s/Mpc"},
          {"Om0", &c.Om0, "density of matter today over the critical density; the universe is flat",
           Bounds{0, 1, true, false}}};
}

Keys truth_keys(FitsReference& truth) {
  return {{"file",
           FilePath{&truth.path},
           "FITS file with PSI_TRUE, ALPHA_TRUE, KAPPA_TRUE (of the missing mass only) and IMAGE_TRUE",
           {},
           "",
           true}};
}

Keys simulate_keys(SimulateConfig& s) {
  Keys keys{{"nx", &s.nx, "columns of the image", between(1, kMaxImageSide), "pixels"},
            {"ny", &s.ny, "rows of the image", between(1, kMaxImageSide), "pixels"},
            {"noise", &s.noise.value, "1 sigma, the same in every pixel; 0 = no noise", at_least(0), "image unit"}};
  append(keys, background_keys(s.noise, "simulate"));
  append(keys, {{"noise_correlation", &s.noise_correlation,
                 "kernel of the correlation of two pixels' noise by their offset, of odd size, 1 in the middle"},
                {"psf", MapOrTable{&s.psf.kernel}, "like observation.psf, which is used if this is absent"},
                {"seed", &s.seed, "seed of the noise", at_least(0)}});
  return keys;
}

// ---- the components ----------------------------------------------------------------------------------------

namespace {

/// A component with the defaults of its profile: required parameters are NaN until they are read.
template <class Component>
void set_defaults(Component& c, const ProfileInfo& info) {
  c.values.clear();
  for (const ParameterInfo& p : info.parameters) c.values.push_back(p.default_value);
  c.free.assign(info.parameters.size(), false);
  c.follows.clear();
}

/// @param info  lens_info or light_info
template <class Component, class Kind>
Key profile_choice(Component& c, int n_kinds, const ProfileInfo& (*info)(Kind)) {
  Choice profiles;
  for (int i = 0; i < n_kinds; ++i) profiles.names.emplace_back(info(static_cast<Kind>(i)).name);
  profiles.get = [&c] { return static_cast<std::size_t>(c.kind); };
  profiles.set = [&c, info](std::size_t i) {
    c.kind = static_cast<Kind>(i);
    set_defaults(c);
  };
  return {"profile", profiles, "", {}, "", true};
}

/// `profile` in the table of a component whose profile is known.
Key profile_key(const ProfileInfo& info, const std::string& help = "parameters and conventions as in lenstronomy") {
  return {"profile", only(info.name), help, {}, "", true};
}

/// @param follows  one per value; null: none follows a parameter
Keys parameter_keys(const ProfileInfo& info, std::vector<double>& values, std::vector<Relation>* follows = nullptr) {
  Keys keys;
  if (follows) follows->resize(values.size());
  for (std::size_t i = 0; i < info.parameters.size(); ++i) {
    const ParameterInfo& p = info.parameters[i];
    Target target = &values[i];
    if (follows) target = NumberOrRelation{&values[i], &(*follows)[i]};
    if (p.range == Range::integer) target = WholeNumber{&values[i]};
    const std::string help = p.range == Range::ellipticity ? "e1^2 + e2^2 < 1" : "";
    keys.push_back({p.name, target, help, parameter_bounds(p), p.unit, std::isnan(p.default_value)});
  }
  return keys;
}

/// The tables `bounds` and `prior` of a component, which are read on their own.
Keys prior_tables() {
  return {{"bounds", SubTable{}, "limits of free parameters: { NAME = [lower, upper], ... }"},
          {"prior", SubTable{},
           "Gaussian priors of free parameters: { NAME = { mean = ..., sigma = ... }, ... }; the mean is a number or "
           "follows another parameter: \"lens_light.0.center_x\""}};
}

/// The names of the parameters of a profile that may be free.
NameSet free_parameters(const ProfileInfo& info, FreeFlags& free) {
  NameSet names;
  std::vector<std::size_t> indices;
  for (std::size_t i = 0; i < info.parameters.size(); ++i) {
    if (always_fixed(info.parameters[i].range)) continue;
    names.names.emplace_back(info.parameters[i].name);
    indices.push_back(i);
  }
  names.get = [&free, indices](std::size_t i) { return static_cast<bool>(free[indices[i]]); };
  names.add = [&free, indices](std::size_t i) { free[indices[i]] = true; };
  return names;
}

/// One more name behind those of a set.
NameSet with_name(const NameSet& set, const std::string& name, bool& chosen) {
  const std::size_t n = set.names.size();
  NameSet all = set;
  all.names.push_back(name);
  all.get = [set, n, &chosen](std::size_t i) { return i < n ? set.get(i) : chosen; };
  all.add = [set, n, &chosen](std::size_t i) {
    if (i < n)
      set.add(i);
    else
      chosen = true;
  };
  return all;
}

Key fit_key(const NameSet& names, const std::string& help = "names of the free parameters") {
  return {"fit", names, help};
}

/// What a network starts from, its input and its layers.
/// @param initial  name of that key in messages: "network.initial"
Keys shape_keys(NetworkConfig& n, const std::string& initial) {
  const Condition fourier{[&n] { return n.fourier; }, "with encoding = \"fourier\""};
  const Condition drawn_fourier{[&n] { return n.fourier && n.initial.empty(); },
                                fourier.text + " and without " + initial};
  const std::string from_file = "; taken from " + initial + " if that is given";
  return {
      {"initial", FilePath{&n.initial}, "start from the weights in this network.safetensors; \"\" = random weights"},
      {"encoding", choice<bool>(n.fourier, {{"none", false}, {"fourier", true}}),
       "input of the network: \"none\": the position; \"fourier\": sines and cosines of the position with fixed "
       "random frequencies" +
           from_file},
      {"fourier_features", &n.fourier_features, "number of pairs of a sine and a cosine" + from_file,
       between(1, 0.5 * kMaxWidth), "", false, fourier},
      {"frequencies",
       choice_of(n.frequencies, kFrequencies),
       "\"normal\": random, along x and y with standard deviation 1/fourier_scale, in rad per unit of position * "
       "input_scale; \"even\": evenly over a disk of radius 2/fourier_scale",
       {},
       "",
       false,
       drawn_fourier},
      {"fourier_scale", &n.fourier_scale,
       "distance over which a typical feature changes by one radian; without this key " +
           rounded(n.default_fourier_scale) + ", with even frequencies divided by the root of fourier_features",
       above(0), "arcsec", false, drawn_fourier},
      {"hidden", &n.hidden,
       "widths of the hidden layers, 1 to " + std::to_string(kMaxHiddenLayers) +
           " layers; with encoding = \"fourier\" 0 to " + std::to_string(kMaxHiddenLayers - 1) +
           ", where [] = a linear function of the features" + from_file,
       between(1, kMaxWidth)},
      {"activation", only("swish"), "activation function of the hidden layers"},
      {"input_scale", &n.input_scale,
       "the network sees position * input_scale; without this key " + rounded(8 * n.default_input_scale) +
           " / larger side of the image, with fourier_scale " + rounded(n.default_input_scale) + from_file,
       above(0), "1/arcsec"}};
}

Condition random_weights(NetworkConfig& n, const std::string& initial) {
  return {[&n] { return n.initial.empty(); }, "without " + initial};
}

Key seed_key(NetworkConfig& n, const std::string& initial) {
  return {"seed", &n.seed, "seed of the random weights", at_least(0), "", false, random_weights(n, initial)};
}

Keys network_light_keys(LightComponent& c, NetworkConfig& network) {
  const ProfileInfo& info = light_info(c.kind);
  Keys keys{profile_key(
      info, "brightness amp softplus(MLP((position - center) input_scale)); at most one such component in a model")};
  append(keys, parameter_keys(info, c.values, &c.follows));
  append(keys, prior_tables());
  append(keys, shape_keys(network, "initial"));
  keys.push_back(seed_key(network, "initial"));
  keys.push_back(fit_key(with_name(free_parameters(info, c.free), "network", c.weights_free),
                         "names of the free parameters; \"network\" = the weights"));
  return keys;
}

Keys pixel_light_keys(LightComponent& c, LightStart& start) {
  PixelGrid& g = c.grid;
  const Condition no_image{[&start] { return start.image.empty(); }, "without image"};
  const Condition placed{[&g] { return g.pixel_scale > 0; }, "with pixel_scale > 0"};
  return {
      profile_key(light_info(c.kind)),
      {"nx", &g.nx, "columns of the grid", between(1, kMaxSourceSide), "pixels", true},
      {"ny", &g.ny, "rows of the grid", between(1, kMaxSourceSide), "pixels", true},
      {"pixel_scale", &g.pixel_scale,
       "side of a pixel; the brightness is bilinear between pixel centers; 0, for free pixels of a source: the grid "
       "covers where the rays of the used pixels come from when the fit starts",
       at_least(0), "arcsec"},
      {"center_x", &g.center_x, "x coordinate of the middle of the grid", {}, "arcsec", false, placed},
      {"center_y", &g.center_y, "y coordinate of the middle of the grid", {}, "arcsec", false, placed},
      {"image", &start.image, "start values: an image of nx x ny pixels"},
      {"value", &start.value, "start value of every pixel", {}, "image unit", false, no_image},
      fit_key(with_name({}, "pixels", c.pixels_free), R"(["pixels"] = the pixels are free)")};
}

}  // namespace

void set_defaults(LensComponent& c) {
  set_defaults(c, lens_info(c.kind));
}
void set_defaults(LightComponent& c) {
  set_defaults(c, light_info(c.kind));
  c.grid.pixel_scale = 0;
}

Key profile_choice(LensComponent& c) {
  return profile_choice(c, kLensKinds, lens_info);
}
Key profile_choice(LightComponent& c) {
  return profile_choice(c, kLightKinds, light_info);
}

Keys perturbation_keys(LensComponent& c) {
  Keys keys{profile_key(lens_info(c.kind))};
  append(keys, parameter_keys(lens_info(c.kind), c.values));
  return keys;
}

Keys lens_keys(LensComponent& c) {
  Keys keys{profile_key(lens_info(c.kind))};
  append(keys, parameter_keys(lens_info(c.kind), c.values, &c.follows));
  append(keys, prior_tables());
  keys.push_back(fit_key(free_parameters(lens_info(c.kind), c.free)));
  return keys;
}

Keys random_field_keys(RandomFieldConfig& f) {
  return {{"profile", only(kRandomField), "sum of random waves, none longer than the image", {}, "", true},
          {"variance", &f.variance, "variance of the potential at a point", above(0), "arcsec^4", true},
          {"slope", &f.slope, "slope of the power spectrum of the potential, P(k) ~ k^-slope", at_least(0), "", true},
          {"seed", &f.seed, "seed of the waves", at_least(0)}};
}

Keys light_keys(LightComponent& c, LightStart& start) {
  if (c.kind == LightKind::network) return network_light_keys(c, start.network);
  if (c.kind == LightKind::pixelated) return pixel_light_keys(c, start);
  const ProfileInfo& info = light_info(c.kind);
  Keys keys{profile_key(info)};
  append(keys, parameter_keys(info, c.values, &c.follows));
  append(keys, prior_tables());
  if (c.kind == LightKind::sersic_ellipse)
    keys.push_back({"radius", choice_of(c.radius, kRadiusKinds),
                    "whether R_sersic is the product average of the semi-axes or the semi-major axis"});
  keys.push_back(fit_key(free_parameters(info, c.free)));
  return keys;
}

Keys expansion_keys(LightComponent& c, Expansion& e) {
  const ProfileInfo& info = light_info(LightKind::gaussian_ellipse);
  Keys keys{{"profile",
             only(kExpansion),
             "multi-Gaussian expansion (Cappellari 2002): this and the next components of the block are "
             "GAUSSIAN_ELLIPSEs of one center and ellipticity with free amplitudes; the last table of its block",
             {},
             "",
             true}};
  for (const Key& key : parameter_keys(info, c.values, &c.follows)) {
    if (key.name == "sigma") continue;
    keys.push_back(key);
    if (key.name == "amp") keys.back().help = "sum of the amplitudes at the start";
  }
  keys.push_back({"components", &e.components, "number of Gaussians", between(2, 40)});
  keys.push_back({"sigma_min", &e.sigma_min, "sigma of the smallest", above(0), "arcsec", true});
  keys.push_back({"sigma_max", &e.sigma_max, "sigma of the largest", above(0), "arcsec", true});
  append(keys, prior_tables());
  NameSet names = free_parameters(info, c.free);
  keys.push_back(fit_key(names, "names of the free parameters; \"amp\": all amplitudes; sigma is fixed"));
  return keys;
}

NetworkConfig light_network_defaults() {
  NetworkConfig network;
  network.hidden = {64, 64};
  network.default_input_scale = 3;
  network.default_fourier_scale = 0.5;
  return network;
}

Keys bounds_keys(const ProfileInfo& info, std::vector<ParameterPrior>& priors) {
  Keys keys;
  for (std::size_t i = 0; i < priors.size(); ++i) {
    const ParameterInfo& p = info.parameters[i];
    if (always_fixed(p.range)) continue;
    keys.push_back({p.name, Interval{&priors[i].lower, &priors[i].upper}, "", between(p.lower, p.upper), p.unit});
  }
  return keys;
}

Keys prior_keys(const ProfileInfo& info, std::vector<ParameterPrior>& priors) {
  Keys keys;
  for (std::size_t i = 0; i < priors.size(); ++i) {
    const ParameterInfo& p = info.parameters[i];
    if (always_fixed(p.range)) continue;
    keys.push_back({p.name, Normal{&priors[i].mean, &priors[i].sigma, &priors[i].mean_of}, "", {}, p.unit});
  }
  return keys;
}

// ---- the fit -------------------------------------------------------------------------------------------------

Keys network_keys(NetworkConfig& n) {
  const Condition drawn = random_weights(n, "network.initial");
  Keys keys = shape_keys(n, "network.initial");
  append(
      keys,
      {{"last_layer",
        choice<bool>(n.last_layer_zero, {{"random", false}, {"zero", true}}),
        "initial weights of the last layer; \"zero\": the correction starts at 0",
        {},
        "",
        false,
        drawn},
       seed_key(n, "network.initial"),
       {"math", choice_of(n.math, kNetworkMaths),
        "arithmetic between hidden layers: \"fp32\"; \"tf32x3\": matrix units, as accurate as fp32; \"tf32\": matrix "
        "units, faster, errors of 1e-3; the last two need single precision and a CUDA device of compute capability "
        "8.0 or later"},
       {"ensemble", &n.ensemble, "number of networks that are fitted side by side, with the seeds seed, seed + 1, ...",
        between(1, kMaxEnsemble), "", false, drawn}});
  return keys;
}

namespace {

Key optimizer_name_key(StageConfig& s) {
  return {"name", choice_of(s.name, kOptimizerKinds),
          "the optimizer; one step of L-BFGS is one line search; Levenberg-Marquardt fits only parameters of profiles, "
          "solves for their amplitudes, computes in double precision and ends when it has converged; Gauss-Newton "
          "solves for the pixels of the source, the weights of [network] and the parameters of profiles together, in "
          "double precision (rays on the CPU, linear algebra on the backend), and ends when it has converged"};
}

/// The keys that [optimizer] and each stage share. In [optimizer] they may be meant for a stage of another optimizer,
/// so none of them depends on `name`.
Keys optimizer_option_keys(StageConfig& s) {
  return {{"learning_rate", &s.learning_rate, "Adam only: learning rate", above(0)},
          {"steps", &s.steps, "maximum number of steps; 0 = the model is only evaluated", between(0, kMaxSteps)},
          {"warmup", &s.warmup, "Adam only: number of first steps over which the learning rate rises linearly",
           between(0, kMaxScheduled), "steps"},
          {"schedule", choice<bool>(s.cosine, {{"constant", false}, {"cosine", true}}),
           "Adam only: learning rate after the warm-up; \"cosine\": falls like half a period of a cosine, to 0 at the "
           "last step"},
          {"clip_norm", &s.clip_norm, "Adam only: a longer gradient is shortened to this norm; 0 = never", at_least(0)},
          {"memory", &s.memory, "L-BFGS only: number of past steps that it keeps", between(1, kMaxMemory)},
          {"free", NameList{&s.free},
           "which of the free parameters may change: network, lens, source.0, source.0.amp ...; [] = all of them"},
          {"stop", choice_of(s.stop, kStopRules),
           "rule to stop before the last step; \"chi2\": the reduced chi^2 has fallen to stop_chi2; \"heldout\": the "
           "chi^2 of held-out pixels no longer falls; \"plateau\": the loss no longer falls"}};
}

}  // namespace

Keys shared_stage_keys(StageConfig& s) {
  Keys keys{optimizer_name_key(s)};
  append(keys, optimizer_option_keys(s));
  return keys;
}

Keys stage_keys(StageConfig& s) {
  Keys keys = shared_stage_keys(s);
  const Condition lm{[&s] { return s.name == OptimizerKind::levenberg_marquardt; },
                     "with name = \"levenberg_marquardt\""};
  append(keys, {{"starts", &s.own_starts,
                 "levenberg_marquardt only: number of starts of this stage, as optimizer.starts for the first one; 0 = "
                 "optimizer.starts in the first stage, one in the others",
                 between(0, kMaxStarts), "", false, lm},
                {"valleys", &s.valleys,
                 "levenberg_marquardt only: the stage begins from the lowest ends of the starts of an earlier stage, "
                 "one of each valley, and ends at the lowest point that it finds; 0 = only the lowest end",
                 between(0, kMaxStarts), "", false, lm},
                {"leave_out", Interval{&s.leave_out_inner, &s.leave_out_outer},
                 "levenberg_marquardt only: pixels between these multiples of the start value of theta_E from the "
                 "largest lens are not fitted in this stage: the arcs, while the lens light is fitted alone",
                 at_least(0), "", false, lm}});
  return keys;
}

bool stops_by(const OptimizerConfig& o, std::initializer_list<StopRule> rules) {
  const auto named = [&](const StageConfig& s) { return std::find(rules.begin(), rules.end(), s.stop) != rules.end(); };
  return named(o) || std::any_of(o.stages.begin(), o.stages.end(), named);
}

Keys optimizer_keys(OptimizerConfig& o) {
  const Condition chi2{[&o] { return stops_by(o, {StopRule::chi2}); }, "with stop = \"chi2\""};
  const Condition heldout{[&o] { return stops_by(o, {StopRule::held_out}); }, "with stop = \"heldout\""};
  const Condition patient{[&o] {
                            return stops_by(o, {StopRule::held_out, StopRule::plateau});
                          },
                          "with stop = \"heldout\" or \"plateau\""};
  const Condition unjudged{[&o] { return keeps_last(o.stop); }, "with stop = \"none\" or \"chi2\""};
  Keys keys{optimizer_name_key(o),
            {"loss", choice_of(o.loss, kLossKinds),
             "mean over used pixels of (model - data)^2 (mse) or ((model - data)/noise)^2 (chi2)"}};
  append(keys, optimizer_option_keys(o));
  append(
      keys,
      {{"prior_weight", &o.prior_weight,
        "factor on the terms of Gaussian priors in the loss; above 1 where the model misses the data by more than the "
        "noise, so that chi2 counts every pixel too much",
        above(0)},
       {"stop_chi2", &o.stop_chi2, "reduced chi^2 at which the fit stops", above(0), "", false, chi2},
       {"patience", &o.patience, "the fit stops after this number of steps without a decrease", between(1, kMaxSteps),
        "steps", false, patient},
       {"tolerance", &o.tolerance, "smallest relative decrease that counts", Bounds{0, 1, false, true}, "", false,
        patient},
       {"held_out", &o.held_out, "fraction of the used pixels that is left out of the fit", Bounds{0, 1, true, true},
        "", false, heldout},
       {"held_out_seed", &o.held_out_seed, "seed of the choice of these pixels", at_least(0), "", false, heldout},
       {"best_of_last", &o.best_of_last,
        "0: the result is the last state; N > 0: the state of lowest loss among the last N steps",
        between(0, kMaxSteps), "steps", false, unjudged},
       {"starts", &o.starts,
        "number of starts of a first stage of levenberg_marquardt: one from the given values, the others drawn from "
        "priors and bounds; poor starts are dropped early",
        between(1, kMaxStarts)},
       {"starts_seed", &o.starts_seed, "seed of the drawn starts", at_least(0), "", false,
        Condition{[&o] {
                    return o.starts > 1 || std::any_of(o.stages.begin(), o.stages.end(),
                                                       [](const StageConfig& s) { return s.own_starts > 1; });
                  },
                  "with starts > 1"}},
       {"checkpoint_every", &o.checkpoint_every,
        "steps between checkpoints; 0 = only one at the end; on CUDA they are written, and Ctrl-C is noticed, when the "
        "host looks at the device, every 16 evaluations",
        between(0, kMaxSteps), "steps"},
       {"stage", SubTable{true},
        "stages that follow each other, at most " + std::to_string(kMaxStages) +
            "; keys that a stage does not give are those of [optimizer], whose stop applies to the last stage only"}});
  return keys;
}

Keys network_penalty_keys(RegularizationConfig& r) {
  return {{"smoothness", &r.smoothness, "weight of the mean of kappa_NN^2", at_least(0)},
          {"curvature", &r.curvature,
           "weight of the mean of psi_xx^2 + psi_yy^2 + 2 psi_xy^2 of the network, with the mean of each "
           "derivative subtracted",
           at_least(0)},
          {"negative_convergence", &r.negative_convergence, "weight of the mean of max(0, -kappa_NN)^2", at_least(0)},
          {"negative_total_convergence", &r.negative_total_convergence,
           "weight of the mean of max(0, -kappa_macro - kappa_NN)^2", at_least(0)},
          {"weight_decay", &r.weight_decay, "weight of half the sum of the squared kernel weights of [network]",
           at_least(0)}};
}

Keys source_penalty_keys(RegularizationConfig& r) {
  return {{"source_gradient", &r.source_gradient,
           "weight of the mean squared difference of neighboring pixels of a free PIXELATED source; pixels outside its "
           "grid count as 0; with optimizer.loss = \"chi2\" differences are divided by the noise of the image, (mean "
           "1/sigma^2)^(-1/2) over its used pixels",
           at_least(0)},
          {"source_curvature", &r.source_curvature,
           "weight of the mean squared second difference of these pixels, divided like the first ones", at_least(0)}};
}

Keys regularization_keys(RegularizationConfig& r) {
  Keys keys = network_penalty_keys(r);
  append(keys, source_penalty_keys(r));
  keys.push_back(
      {"automatic",
       &r.automatic,
       "gauss_newton, as the last stage, starts from the weights given and chooses those of highest evidence "
       "for smoothness, curvature, weight_decay, source_gradient and source_curvature; one that is 0 stays 0",
       {},
       "",
       false,
       Condition{[&r] { return r.any(); }, "with a weight > 0"}});
  keys.push_back({"source_contrast", &r.source_contrast,
                  "gauss_newton: how much larger the prior lets free source pixels vary where the source is brightest "
                  "than where it is dark; it follows the brightness of the fit; 1 = the same everywhere",
                  at_least(1), "", false,
                  Condition{[&r] { return r.on_source_pixels(); }, "with source_gradient or source_curvature > 0"}});
  return keys;
}

Keys uncertainty_keys(UncertaintyConfig& u) {
  const Condition randomized{[&u] { return u.method == UncertaintyKind::randomized; }, "with method = \"randomized\""};
  return {
      {"method", choice_of(u.method, kUncertaintyKinds),
       "error bars of maps and profile parameters; \"laplace\": the curvature of the whole problem at the end of the "
       "fit, parameters marginalized over network and source pixels; \"randomized\": the scatter of fits of the same "
       "problem with noise and priors drawn again; \"spread\": maps: the scatter of network.ensemble, which is no "
       "error bar, parameters: network and source pixels held fixed; without this key laplace where it is possible, "
       "else spread"},
      {"members", &u.members, "number of these fits", between(2, kMaxEnsemble), "", false, randomized},
      {"seed", &u.seed, "seed of what is drawn", at_least(0), "", false, randomized}};
}

}  // namespace einfield
