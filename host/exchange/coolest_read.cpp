// Reads a COOLEST template: the redshift of an entity decides whether it is a lens or a source, its type
// decides the profile.
#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "einfield/error.hpp"
#include "host/exchange/coolest.hpp"
#include "host/exchange/coolest_conventions.hpp"
#include "host/exchange/priors_json.hpp"
#include "host/files/fits_io.hpp"
#include "host/files/text.hpp"
#include "host/model/profile_names.hpp"

namespace einfield {
namespace {

using namespace coolest;

/// A parameter of a profile of the standard.
struct Estimate {
  double value;
  bool free;
};

class Reader {
 public:
  Reader(const std::string& file, std::vector<std::string>& warnings)
      : json_(read_json(file)), root_(json_, file), file_(file), warnings_(warnings) {}

  ExchangedLens read() {
    if (root_.has("standard") && root_.at("standard").text() != "COOLEST")
      root_.at("standard").fail("unknown standard, found " + root_.at("standard").text() + ", expected COOLEST");
    read_observation();
    read_entities();
    const Vec2<double> shift = constant_deflection(lens_.model.lens);
    for (LightComponent& c : lens_.model.source) move(c, shift);
    return std::move(lens_);
  }

 private:
  void warn(const std::string& message) { warnings_.push_back(file_ + ": " + message); }

  // ---- grids ----

  /// A regular grid of the standard with the values of its FITS file; without one the values are empty.
  /// @param pixel_scale  that it must have [arcsec]; 0 = any
  PixelMap read_grid(const JsonView& grid, double pixel_scale, bool needs_values = true) const {
    const auto range = [&](const char* name) {
      const JsonView ends = grid.at(name);
      if (ends.size(2) != 2) ends.fail("expected two numbers");
      return Vec2<double>{ends.at(0).number(), ends.at(1).number()};
    };
    const Vec2<double> x = range("field_of_view_x"), y = range("field_of_view_y");
    PixelMap map;
    const bool has_file = grid.has("fits_file") && grid.at("fits_file").has("path");
    if (!has_file && needs_values) grid.at("fits_file").at("path");
    if (has_file) {
      FitsImage image = read_fits(grid.at("fits_file").at("path").file_beside(), "");
      map.grid.nx = image.nx;
      map.grid.ny = image.ny;
      map.values = std::move(image.values);
    } else {
      map.grid.nx = grid.at("num_pix_x").integer(1, kMaxImageSide);
      map.grid.ny = grid.at("num_pix_y").integer(1, kMaxImageSide);
    }
    const double scale = std::abs(x.y - x.x) / map.grid.nx, scale_y = std::abs(y.y - y.x) / map.grid.ny;
    map.grid.pixel_scale = pixel_scale > 0 ? pixel_scale : scale;
    map.grid.center_x = 0.5 * (x.x + x.y);
    map.grid.center_y = 0.5 * (y.x + y.y);
    const auto differ = [](double a, double b) { return !(std::abs(a - b) <= kScaleTolerance * b); };
    if (differ(scale, map.grid.pixel_scale) || differ(scale_y, map.grid.pixel_scale) || !(scale > 0))
      grid.fail("field_of_view does not fit, found pixels of " + rounded(scale) + " x " + rounded(scale_y) +
                " arcsec for " + std::to_string(map.grid.nx) + " x " + std::to_string(map.grid.ny) +
                " pixels, expected " + (pixel_scale > 0 ? rounded(pixel_scale) + " arcsec" : "square pixels"));
    if (x.y < x.x || y.y < y.x)
      grid.fail("field_of_view decreases, expected x to increase to the right and y to increase upward");
    return map;
  }

  /// A map on the pixels of the image.
  std::vector<double> read_map(const JsonView& grid) const {
    const Grid& image = lens_.observation.grid;
    PixelMap map = read_grid(grid, image.pixel_scale);
    if (map.grid.nx != image.nx || map.grid.ny != image.ny)
      grid.fail("different shape, found " + std::to_string(map.grid.nx) + " x " + std::to_string(map.grid.ny) +
                " pixels, expected " + std::to_string(image.nx) + " x " + std::to_string(image.ny));
    return std::move(map.values);
  }

  // ---- the data ----

  void read_observation() {
    const JsonView observation = root_.at("observation"), instrument = root_.at("instrument");
    Observation& o = lens_.observation;
    const double pixel_scale = instrument.at("pixel_size").number(above(0), "arcsec");
    PixelMap data = read_grid(observation.at("pixels"), pixel_scale, false);
    o.grid = {data.grid.nx, data.grid.ny, pixel_scale, data.grid.center_x, data.grid.center_y, 1};
    o.image = std::move(data.values);
    if (root_.has("meta")) {
      const JsonView meta = root_.at("meta");
      if (meta.has("units") && meta.at("units").is_text() && meta.at("units").text() != "unknown")
        lens_.unit = meta.at("units").text().substr(0, 60);
      if (meta.has(kOwn) && meta.at(kOwn).has("supersampling"))
        o.grid.supersampling = meta.at(kOwn).at("supersampling").integer(1, kMaxSupersampling);
    }
    if (o.image.empty()) warn("observation.pixels: no FITS file; use the configuration with einfield simulate");
    if (observation.has("noise")) read_noise(observation);
    if (!o.image.empty() && o.noise.empty()) observation.fail("noise: missing, expected a NoiseMap");
    if (root_.has("likelihoods")) read_mask(root_.at("likelihoods"));
    if (instrument.has("psf")) read_psf(instrument.at("psf"));
  }

  void read_noise(const JsonView& observation) {
    const JsonView noise = observation.at("noise");
    Observation& o = lens_.observation;
    if (!noise.has("type")) return;
    const std::string type = noise.at("type").text();
    if (type == "UniformGaussianNoise") {
      lens_.noise = noise.at("std_dev").number(o.image.empty() ? at_least(0) : above(0));
      o.noise.assign(o.image.size(), lens_.noise);
    } else if (type == "NoiseMap") {
      if (!o.image.empty()) o.noise = read_map(noise.at("noise_map"));
    } else if (type == "DrizzledNoise") {
      // Gaussian background and photons counted over the effective exposure time of each pixel.
      const double background = noise.at("background_rms").number(at_least(0));
      if (o.image.empty()) return;
      o.noise = read_map(noise.at("wht_map"));
      for (std::size_t i = 0; i < o.noise.size(); ++i) o.noise[i] = photon_noise(o.image[i], background, o.noise[i]);
    } else {
      noise.at("type").fail("not supported, found " + type +
                            ", expected NoiseMap, UniformGaussianNoise or DrizzledNoise");
    }
  }

  void read_mask(const JsonView& likelihoods) {
    for (std::size_t i = 0; i < likelihoods.size(kMaxComponents); ++i) {
      const JsonView likelihood = likelihoods.at(i);
      if (likelihood.at("type").text() != "ImagingDataLikelihood" || !likelihood.has("mask")) continue;
      if (lens_.observation.image.empty()) continue;
      lens_.observation.mask.clear();
      for (const double v : read_map(likelihood.at("mask"))) {
        if (v != 0 && v != 1) likelihood.at("mask").fail("a mask value other than 0 and 1, found " + rounded(v));
        lens_.observation.mask.push_back(v == 1);
      }
    }
  }

  void read_psf(const JsonView& psf) {
    if (!psf.has("type")) return;
    const std::string type = psf.at("type").text();
    const double pixel_scale = lens_.observation.grid.pixel_scale;
    if (type == "GaussianPSF") {
      lens_.psf_fwhm = psf.at("fwhm").number(above(0), "pixels") * pixel_scale;
    } else if (type == "PixelatedPSF") {
      PixelMap kernel = read_grid(psf.at("pixels"), 0);
      Grid& grid = lens_.observation.grid;
      const double ratio = pixel_scale / kernel.grid.pixel_scale, samples = std::round(ratio);
      if (!(samples >= 1) || samples > kMaxSupersampling || std::abs(ratio / samples - 1) > kScaleTolerance)
        psf.at("pixels").fail("field_of_view does not fit, found pixels of " + rounded(kernel.grid.pixel_scale) +
                              " arcsec, expected the pixel scale of the image, " + rounded(pixel_scale) +
                              " arcsec, divided by a whole number");
      if (kernel.grid.nx % 2 == 0 || kernel.grid.ny % 2 == 0)
        psf.at("pixels").fail("a PSF of even size, found " + std::to_string(kernel.grid.nx) + " x " +
                              std::to_string(kernel.grid.ny) + " pixels, expected odd numbers");
      const int supersampling = static_cast<int>(samples);
      if (grid.supersampling % supersampling != 0) grid.supersampling = supersampling;
      lens_.observation.psf = {kernel.grid.nx, kernel.grid.ny, std::move(kernel.values), supersampling};
    } else {
      psf.at("type").fail("not supported, found " + type + ", expected PixelatedPSF or GaussianPSF");
    }
  }

  // ---- the model ----

  /// Galaxies at the smallest redshift are lenses, those at the largest redshift are the source. Mass fields are lenses
  /// at any redshift.
  void read_entities() {
    const JsonView entities = root_.at("lensing_entities");
    const std::size_t n = entities.size(kMaxComponents);
    double nearest = kInfinity, farthest = -kInfinity;
    for (std::size_t i = 0; i < n; ++i) {
      const JsonView entity = entities.at(i);
      const std::string type = entity.at("type").text();
      if (type != "Galaxy" && type != "MassField")
        entity.at("type").fail("no such entity, expected Galaxy or MassField");
      if (type == "MassField" && !entity.has("redshift")) continue;
      const double z = entity.at("redshift").number(at_least(0));
      nearest = std::min(nearest, z);
      if (type == "Galaxy") farthest = std::max(farthest, z);
    }
    for (std::size_t i = 0; i < n; ++i) {
      const JsonView entity = entities.at(i);
      const bool galaxy = entity.at("type").text() == "Galaxy";
      const double z = galaxy ? entity.at("redshift").number() : nearest;
      if (z > nearest && z < farthest)
        entity.at("redshift")
            .fail("a third plane, found " + rounded(z) + " between " + rounded(nearest) + " and " + rounded(farthest) +
                  ", expected only the redshifts of lens and source");
      const bool behind = galaxy && z > nearest;
      if (entity.has("mass_model")) {
        const JsonView mass = entity.at("mass_model");
        const std::size_t count = mass.size(kMaxComponents);
        if (behind && count > 0) mass.fail("mass of the source, expected none: einfield has a single lens plane");
        for (std::size_t k = 0; k < count; ++k) read_mass(mass.at(k));
      }
      if (!galaxy || !entity.has("light_model")) continue;
      const JsonView light = entity.at("light_model");
      for (std::size_t k = 0; k < light.size(kMaxComponents); ++k) {
        (behind ? lens_.model.source : lens_.model.lens_light).push_back(read_light(light.at(k)));
        if (behind) continue;
        const bool indexed = light.at(k).has(kOwn) && light.at(k).at(kOwn).has("index");
        lens_light_index_.push_back(
            indexed ? std::optional(light.at(k).at(kOwn).at("index").integer(0, static_cast<int>(kMaxComponents)))
                    : std::nullopt);
      }
    }
    read_cosmology(nearest, farthest);
    if (lens_.model.source.empty() && lens_.model.lens_light.empty())
      entities.fail("no light, expected at least one light_model");
    sort_lens_light();
  }

  /// Redshifts and cosmology, unless they are placeholders or another cosmology than a flat one.
  void read_cosmology(double z_lens, double z_source) {
    if (root_.has("meta") && root_.at("meta").has(kOwn)) {  // without the member they are those of an earlier version
      const JsonView own = root_.at("meta").at(kOwn);
      if (!own.has("redshifts_known") || !own.at("redshifts_known").boolean()) return;
    }
    if (!root_.has("cosmology") || !(z_lens > 0 && z_lens < z_source)) return;
    const JsonView given = root_.at("cosmology");
    if (!given.has("astropy_name") || given.at("astropy_name").text() != "FlatLambdaCDM") return;
    lens_.cosmology = {z_lens, z_source, given.at("H0").number(above(0)),
                       given.at("Om0").number(Bounds{0, 1, true, false})};
  }

  /// Restores the order of the lens light in the fit that wrote the file, where several entities share it.
  void sort_lens_light() {
    std::vector<LightComponent>& lights = lens_.model.lens_light;
    std::vector<LightComponent> sorted(lights.size());
    std::vector<std::uint8_t> taken(lights.size(), 0);
    for (std::size_t i = 0; i < lights.size(); ++i) {
      const std::optional<int> index = lens_light_index_[i];
      if (!index || static_cast<std::size_t>(*index) >= lights.size() || taken[static_cast<std::size_t>(*index)])
        return;
      taken[static_cast<std::size_t>(*index)] = 1;
      sorted[static_cast<std::size_t>(*index)] = lights[i];
    }
    lights = std::move(sorted);
  }

  static Estimate estimate(const JsonView& profile, const char* name, const Bounds& bounds = {}) {
    const JsonView parameter = profile.at("parameters").at(name);
    return {parameter.at("point_estimate").at("value").number(bounds),
            !parameter.has("fixed") || !parameter.at("fixed").boolean()};
  }

  /// Sets a parameter that is the same in the standard, and its prior.
  template <class Component>
  void take(const JsonView& profile, const char* name, Component& c, const ProfileInfo& info, const char* own) {
    const Estimate e = estimate(profile, name);
    set(profile.at("parameters").at(name), c, info, own, e.value, e.free);
    take_prior(profile, name, c, info, own, 1);
  }
  /// The prior of a parameter of einfield that equals the standard's times `scale`.
  template <class Component>
  void take_prior(const JsonView& profile, const char* name, Component& c, const ProfileInfo& info, const char* own,
                  double scale) {
    const JsonView parameter = profile.at("parameters").at(name);
    if (!parameter.has("prior") || !parameter.at("prior").has("type")) return;
    const JsonView prior = parameter.at("prior");
    const std::string type = prior.at("type").text();
    c.priors.resize(c.values.size());
    ParameterPrior& known = c.priors[static_cast<std::size_t>(info.index_of(own))];
    if (type == "GaussianPrior") {
      known.mean = scale * prior.at("mean").number();
      known.sigma = scale * prior.at("width").number(above(0));
    } else if (type == "UniformPrior") {
      known.lower = scale * prior.at("min_value").number();
      known.upper = scale * prior.at("max_value").number();
    } else {
      leave_out(prior, type);
    }
  }
  /// Warns about a prior on a size or an angle: einfield has priors on the components instead.
  void leave_out_prior(const JsonView& profile, const char* name) {
    const JsonView parameter = profile.at("parameters").at(name);
    if (parameter.has("prior") && parameter.at("prior").has("type"))
      leave_out(parameter.at("prior"), parameter.at("prior").at("type").text());
  }
  void leave_out(const JsonView& prior, const std::string& type) {
    warnings_.push_back(prior.place() + ": " + type.substr(0, 60) + " is not supported, left out");
  }
  template <class Component>
  static void set(const JsonView& where, Component& c, const ProfileInfo& info, const char* own, double value,
                  bool free) {
    set_parameter(where, info, c.values, own, value);
    c.free[static_cast<std::size_t>(info.index_of(own))] = free;
  }
  template <class Component>
  void take_center(const JsonView& profile, Component& c, const ProfileInfo& info) {
    take(profile, "center_x", c, info, "center_x");
    take(profile, "center_y", c, info, "center_y");
  }
  /// @return q
  template <class Component>
  double take_ellipse(const JsonView& profile, Component& c, const ProfileInfo& info) {
    const Estimate q = estimate(profile, "q", {0, 1, true, false}), phi = estimate(profile, "phi", between(-180, 180));
    const Vec2<double> e = components(axis_ratio(q.value), phi.value);
    const JsonView where = profile.at("parameters").at("q");
    set(where, c, info, "e1", e.x, q.free || phi.free);
    set(where, c, info, "e2", e.y, q.free || phi.free);
    leave_out_prior(profile, "q");
    leave_out_prior(profile, "phi");
    return q.value;
  }

  /// The profile that einfield noted beside the standard's; "" if it did not write the file.
  static std::string own_profile(const JsonView& profile) {
    return profile.has(kOwn) && profile.at(kOwn).has("profile") ? profile.at(kOwn).at("profile").text() : "";
  }
  template <class Component>
  static void take_own(const JsonView& profile, Component& c, const ProfileInfo& info) {
    const JsonView own = profile.at(kOwn), values = own.at("parameters");
    for (std::size_t i = 0; i < info.parameters.size(); ++i) {
      const char* name = info.parameters[i].name;
      set_parameter(values.at(name), info, c.values, name, values.at(name).number());
    }
    for (const std::string& name : own_fit(own))
      if (info.index_of(name) >= 0) c.free[static_cast<std::size_t>(info.index_of(name))] = true;
  }
  static std::vector<std::string> own_fit(const JsonView& own) {
    std::vector<std::string> names;
    if (!own.has("fit")) return names;
    const JsonView fit = own.at("fit");
    for (std::size_t i = 0; i < fit.size(kMaxComponents); ++i) names.push_back(fit.at(i).text());
    return names;
  }
  static bool own_fits(const JsonView& own, const char* name) {
    const std::vector<std::string> names = own_fit(own);
    return std::find(names.begin(), names.end(), name) != names.end();
  }

  void add_mass(const JsonView& profile, LensComponent c) {
    check_complete(profile, lens_info(c.kind), c.values);
    if (profile.has(kOwn)) take_priors(profile.at(kOwn), c, lens_info(c.kind));
    check_priors(profile, c, lens_info(c.kind), warnings_);
    lens_.model.lens.push_back(std::move(c));
  }

  /// The kind of lens that an elliptical profile of the standard describes, or nothing.
  static std::optional<LensKind> elliptical_kind(const JsonView& profile, const std::string& type,
                                                 const std::string& own) {
    const auto isothermal = [&] { return estimate(profile, "gamma").value == 2; };
    if (type == "SIE" || (type == "PEMD" && own == "SIE" && isothermal())) return LensKind::sie;
    if (type == "PEMD" && own == "SIS" && isothermal() && estimate(profile, "q").value == 1) return LensKind::sis;
    const bool cored = type == "NIE" || type == "SPEMD";
    const double core = cored ? estimate(profile, "r_core", at_least(0)).value : 0;
    if (type == "PEMD" || (type == "SPEMD" && core == 0)) return LensKind::epl;
    if (type == "NIE" || (type == "SPEMD" && isothermal())) return core > 0 ? LensKind::nie : LensKind::sie;
    return std::nullopt;
  }
  LensComponent elliptical_lens(const JsonView& profile, LensKind kind) {
    LensComponent c = new_lens(kind);
    const ProfileInfo& info = lens_info(kind);
    take(profile, "theta_E", c, info, "theta_E");
    if (kind == LensKind::epl) take(profile, "gamma", c, info, "gamma");
    if (kind == LensKind::nie) take(profile, "r_core", c, info, "s_scale");
    if (kind != LensKind::sis) take_ellipse(profile, c, info);
    take_center(profile, c, info);
    return c;
  }

  /// An ExternalShear or a ConvergenceSheet.
  LensComponent uniform_field(const JsonView& profile, bool shear, const std::string& own) {
    LensComponent c = new_lens(shear ? LensKind::shear : LensKind::convergence);
    const ProfileInfo& info = lens_info(c.kind);
    if (shear) {
      const Estimate strength = estimate(profile, "gamma_ext", at_least(0)),
                     angle = estimate(profile, "phi_ext", between(-180, 180));
      const Vec2<double> gamma = components(strength.value, angle.value);
      set(profile, c, info, "gamma1", gamma.x, strength.free || angle.free);
      set(profile, c, info, "gamma2", gamma.y, strength.free || angle.free);
      leave_out_prior(profile, "gamma_ext");
      leave_out_prior(profile, "phi_ext");
    } else {
      take(profile, "kappa_s", c, info, "kappa");
    }
    if (own == info.name && profile.at(kOwn).has("parameters")) {
      const JsonView origin = profile.at(kOwn).at("parameters");
      for (const char* name : {"ra_0", "dec_0"})
        set(profile, c, info, name, origin.at(name).number(), own_fits(profile.at(kOwn), name));
    }
    return c;
  }

  void read_mass(const JsonView& profile) {
    const JsonView type_view = profile.at("type");
    const std::string type = type_view.text(), own = own_profile(profile);
    if (const std::optional<LensKind> kind = elliptical_kind(profile, type, own))
      return add_mass(profile, elliptical_lens(profile, *kind));
    if (type == "ExternalShear" || type == "ConvergenceSheet")
      return add_mass(profile, uniform_field(profile, type == "ExternalShear", own));
    if (type == kPotential && profile.has(kOwn) && profile.at(kOwn).has("network")) {
      if (!lens_.networks.empty()) profile.fail("a second network, expected at most one");
      lens_.networks.push_back(read_network(profile.at(kOwn).at("network").file_beside()));
      return;
    }
    if (type == kPotential && !own.empty()) {
      const std::optional<LensKind> kind = lens_kind(own);
      if (!kind) profile.at(kOwn).at("profile").fail("no such profile, found " + own);
      LensComponent c = new_lens(*kind);
      take_own(profile, c, lens_info(*kind));
      return add_mass(profile, c);
    }
    type_view.fail("not supported, found " + type +
                   ", expected one of SIE, PEMD, NIE, SPEMD without core or with gamma = 2, ExternalShear, "
                   "ConvergenceSheet");
  }

  /// A Sersic profile: a Gaussian, circular or elliptical, if einfield wrote it as one.
  LightComponent sersic_light(const JsonView& profile, const std::string& own, double area) {
    const Estimate intensity = estimate(profile, "I_eff", above(0)), radius = estimate(profile, "theta_eff", above(0));
    const double n = estimate(profile, "n").value;
    const JsonView parameters = profile.at("parameters");
    const bool elliptical = own == light_info(LightKind::gaussian_ellipse).name;
    const bool circular = own == light_info(LightKind::gaussian).name && estimate(profile, "q").value == 1;
    if ((circular || elliptical) && n == kMinSersic) {
      LightComponent c = new_light(elliptical ? LightKind::gaussian_ellipse : LightKind::gaussian);
      const ProfileInfo& info = light_info(c.kind);
      const double b = sersic_b(n), sigma = radius.value / std::sqrt(2 * b);
      const double amplitude = area * std::exp(b) * (2 * kPi * sigma * sigma);  // of intensity 1
      set(parameters.at("theta_eff"), c, info, "sigma", sigma, radius.free);
      set(parameters.at("I_eff"), c, info, "amp", intensity.value * area * std::exp(b) * (2 * kPi * sigma * sigma),
          intensity.free);
      take_prior(profile, "theta_eff", c, info, "sigma", 1 / std::sqrt(2 * b));
      take_prior(profile, "I_eff", c, info, "amp", amplitude);
      if (elliptical) take_ellipse(profile, c, info);
      take_center(profile, c, info);
      return c;
    }
    LightComponent c = new_light(LightKind::sersic_ellipse);
    const ProfileInfo& info = light_info(c.kind);
    const double q = take_ellipse(profile, c, info);
    const bool major = profile.has(kOwn) && profile.at(kOwn).has("radius") &&
                       profile.at(kOwn).at("radius").text() == name_of(RadiusKind::major_axis);
    if (major) c.radius = RadiusKind::major_axis;
    set(parameters.at("theta_eff"), c, info, "R_sersic", radius.value / (major ? std::sqrt(q) : 1), radius.free);
    set(parameters.at("I_eff"), c, info, "amp", intensity.value * area, intensity.free);
    take_prior(profile, "theta_eff", c, info, "R_sersic", major ? 1 / std::sqrt(q) : 1);
    take_prior(profile, "I_eff", c, info, "amp", area);
    take(profile, "n", c, info, "n_sersic");
    take_center(profile, c, info);
    return c;
  }

  LightComponent uniform_light(const JsonView& profile, double area) {
    LightComponent c = new_light(LightKind::uniform);
    const Estimate amplitude = estimate(profile, "A");
    set(profile.at("parameters").at("A"), c, light_info(c.kind), "amp", amplitude.value * area, amplitude.free);
    take_prior(profile, "A", c, light_info(c.kind), "amp", area);
    return c;
  }

  /// A map of pixels, or the profile that einfield stored as one.
  LightComponent pixel_light(const JsonView& profile, const std::string& own) {
    const std::optional<LightKind> kind = light_kind(own);
    if (!own.empty() && !kind) profile.at(kOwn).at("profile").fail("no such profile, found " + own);
    if (kind && *kind != LightKind::pixelated) {
      LightComponent c = new_light(*kind);
      take_own(profile, c, light_info(*kind));
      if (profile.at(kOwn).has("radius")) c.radius = RadiusKind::major_axis;
      if (*kind == LightKind::network) read_network_light(profile.at(kOwn), c);
      return c;
    }
    LightComponent c = new_light(LightKind::pixelated);
    PixelMap map = read_grid(profile.at("parameters").at("pixels"), 0);
    c.grid = map.grid;
    c.pixels = std::move(map.values);
    c.pixels_free = !kind || own_fits(profile.at(kOwn), "pixels");
    return c;
  }

  LightComponent read_light(const JsonView& profile) {
    const std::string type = profile.at("type").text(), own = own_profile(profile);
    const double area = lens_.observation.grid.pixel_scale * lens_.observation.grid.pixel_scale;
    const bool known = type == "Sersic" || type == "Uniform" || type == "PixelatedRegularGrid";
    if (!known)
      profile.at("type").fail("not supported, found " + type + ", expected Sersic, Uniform or PixelatedRegularGrid");
    LightComponent c = type == "Sersic"    ? sersic_light(profile, own, area)
                       : type == "Uniform" ? uniform_light(profile, area)
                                           : pixel_light(profile, own);
    check_complete(profile, light_info(c.kind), c.values);
    if (profile.has(kOwn)) take_priors(profile.at(kOwn), c, light_info(c.kind));
    check_priors(profile, c, light_info(c.kind), warnings_);
    return c;
  }

  void read_network_light(const JsonView& own, LightComponent& c) {
    if (!lens_.network_lights.empty()) own.fail("a second NETWORK component, expected at most one");
    StoredNetwork stored = read_network(own.at("network").file_beside());
    c.network = stored.shape;
    c.weights_free = own_fits(own, "network");
    lens_.network_lights.push_back(c);
    lens_.network_lights.back().weights = std::move(stored.parameters);
  }

  static constexpr double kScaleTolerance = 1e-3;  ///< relative, between field_of_view and pixel_size

  nlohmann::json json_;
  JsonView root_;
  std::string file_;
  std::vector<std::string>& warnings_;
  ExchangedLens lens_;
  std::vector<std::optional<int>> lens_light_index_;  ///< index in the fit that wrote the file, if einfield did
};

}  // namespace

ExchangedLens read_coolest(const std::string& file, std::vector<std::string>& warnings) {
  return Reader(file, warnings).read();
}

}  // namespace einfield
