// Writes the COOLEST template: one lensing entity per lens component, then the network, then the source.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string_view>
#include <utility>

#include "einfield/error.hpp"
#include "host/exchange/coolest.hpp"
#include "host/exchange/coolest_conventions.hpp"
#include "host/exchange/priors_json.hpp"
#include "host/fields/lens_fields.hpp"
#include "host/files/atomic_file.hpp"
#include "host/files/fits_io.hpp"
#include "host/files/text.hpp"
#include "host/files/version.hpp"
#include "host/results/result_files.hpp"

namespace einfield {
namespace {

namespace fs = std::filesystem;
using namespace coolest;
using nlohmann::ordered_json;

/// A coordinate as hours or degrees, minutes and seconds: "02h52m45.2100s".
std::string sexagesimal(double value, char unit, int decimals) {
  // The whole value is rounded first, so that the seconds never read 60.
  const double power = std::pow(10.0, decimals);
  auto ticks = static_cast<long long>(std::llround(std::abs(value) * 3600 * power));
  const auto per_minute = static_cast<long long>(60 * power);
  if (unit == 'h') ticks %= 24 * 60 * per_minute;
  return fmt::format("{:02}{}{:02}m{:0{}.{}f}s", ticks / (60 * per_minute), unit, ticks / per_minute % 60,
                     static_cast<double>(ticks % per_minute) / power, decimals + 3, decimals);
}
/// @param ra  right ascension [deg]
std::string hours(double ra) {
  return sexagesimal((ra - 360 * std::floor(ra / 360)) / 15, 'h', 4);
}
/// @param dec  declination [deg]
std::string degrees(double dec) {
  return (dec < 0 ? "-" : "+") + sexagesimal(dec, 'd', 3);
}

class Writer {
 public:
  Writer(std::string dir, const ExchangedLens& lens)
      : dir_(std::move(dir)),
        lens_(on_square_image(lens)),
        universe_(lens.cosmology.value_or(kPlaceholder)),
        shift_(constant_deflection(lens.model.lens)) {
    note_padding(notes_, lens.observation.grid, "coolest 0.1.11");
  }

  std::vector<std::string> write() {
    const Grid& grid = lens_.observation.grid;
    if (grid.center_x != 0 || grid.center_y != 0)
      note("the middle of the image is not at (0, 0), as field_of_view says; coolest 0.1.11 evaluates as if it were");
    ordered_json file = {
        {"standard", "COOLEST"},
        {"mode", "MAP"},
        {"coordinates_origin", origin()},
        {"cosmology", {{"H0", universe_.H0}, {"Om0", universe_.Om0}, {"astropy_name", "FlatLambdaCDM"}}},
        {"observation", observation()},
        {"instrument", instrument()},
        {"likelihoods", ordered_json::array({mask()})},
        {"lensing_entities", entities()}};
    const char* const unknown = lens_.cosmology ? (lens_.sky ? "" : "coordinates_origin is a placeholder")
                                : lens_.sky     ? "redshifts and cosmology are placeholders"
                                                : "redshifts, cosmology and coordinates_origin are placeholders";
    if (*unknown) note(unknown + std::string(": a fit does not know them"));
    file["meta"] = {{"coolest.__version__", "0.1.11"},
                    {"units", lens_.unit.empty() ? "unknown" : lens_.unit},
                    {kOwn,
                     {{"version", version()},
                      {"supersampling", grid.supersampling},
                      {"redshifts_known", lens_.cosmology.has_value()},
                      {"notes", notes_}}}};
    write_atomically((fs::path(dir_) / "coolest.json").string(),
                     file.dump(2, ' ', false, ordered_json::error_handler_t::replace) + "\n");
    return notes_;
  }

 private:
  void note(const std::string& text) { notes_.push_back(text); }

  /// Writes a map as coolest_<name>.fits and returns its description.
  ordered_json grid_json(const std::string& name, const PixelMap& map, const std::string& unit, int bitpix = -64) {
    const PixelMap square = squared(map, 0);
    const PixelGrid& g = square.grid;
    const std::string file = "coolest_" + name + ".fits";
    FitsOutput hdu;
    hdu.name = name;
    hdu.nx = g.nx;
    hdu.ny = g.ny;
    hdu.values = square.values;
    hdu.bitpix = bitpix;
    hdu.unit = unit;
    hdu.pixel_scale = g.pixel_scale;
    hdu.center_x = g.center_x;
    hdu.center_y = g.center_y;
    const PixelGrid image = image_grid();
    if (g.nx == image.nx && g.ny == image.ny && g.pixel_scale == image.pixel_scale && g.center_x == image.center_x &&
        g.center_y == image.center_y)
      hdu.sky = lens_.sky;
    write_fits((fs::path(dir_) / file).string(), {hdu});
    const double half_x = 0.5 * g.nx * g.pixel_scale, half_y = 0.5 * g.ny * g.pixel_scale;
    return {{"fits_file", {{"path", file}}},
            {"field_of_view_x", {g.center_x - half_x, g.center_x + half_x}},
            {"field_of_view_y", {g.center_y - half_y, g.center_y + half_y}},
            {"num_pix_x", g.nx},
            {"num_pix_y", g.ny}};
  }

  /// The position of (0, 0) on the sky, and a note if the y axis of the image does not point north.
  ordered_json origin() {
    const auto at = [](double ra, double dec) -> ordered_json { return {{"ra", hours(ra)}, {"dec", degrees(dec)}}; };
    if (!lens_.sky) return at(0, 0);
    const CelestialWcs& sky = *lens_.sky;
    const double turned = sky.position_angle(kPi / 2);
    if (!sky.right_handed() || std::abs(turned) > 0.01)
      note("angles are measured from the y axis of the image, which has position angle " + rounded(turned) +
           " degrees on the sky" + (sky.right_handed() ? "" : "; the image is mirrored"));
    const Grid& g = lens_.observation.grid;
    const std::array<double, 2> place = sky.longitude_latitude(
        {0.5 * (g.nx + 1) - g.center_x / g.pixel_scale, 0.5 * (g.ny + 1) - g.center_y / g.pixel_scale});
    if (std::isfinite(place[0])) return at(place[0], place[1]);
    note("coordinates_origin is a placeholder: the image has no gnomonic WCS");
    return at(0, 0);
  }

  PixelGrid image_grid() const {
    const Grid& g = lens_.observation.grid;
    return {g.nx, g.ny, g.pixel_scale, g.center_x, g.center_y};
  }

  ordered_json observation() {
    const Observation& o = lens_.observation;
    return {{"pixels", grid_json("data", {image_grid(), o.image}, lens_.unit)},
            {"exposure_time", nullptr},
            {"mag_zero_point", nullptr},
            {"mag_sky_brightness", nullptr},
            {"noise", {{"type", "NoiseMap"}, {"noise_map", grid_json("noise", {image_grid(), o.noise}, lens_.unit)}}}};
  }

  ordered_json instrument() {
    const Observation& o = lens_.observation;
    ordered_json psf = {{"type", nullptr}};
    if (!o.psf.empty())
      psf = {
          {"type", "PixelatedPSF"},
          {"description", "sum 1"},
          {"pixels",
           grid_json("psf", {{o.psf.nx, o.psf.ny, o.grid.pixel_scale / o.psf.supersampling, 0, 0}, o.psf.values}, "")}};
    return {{"name", ""},
            {"band", ""},
            {"pixel_size", o.grid.pixel_scale},
            {"readout_noise", 0.0},
            {"psf", std::move(psf)}};
  }

  ordered_json mask() {
    const Observation& o = lens_.observation;
    return {{"type", "ImagingDataLikelihood"},
            {"mask", grid_json("mask", {image_grid(), {o.mask.begin(), o.mask.end()}}, "", 8)}};
  }

  // A profile is built parameter by parameter. It gets its identifiers when it is added to an entity.

  static ordered_json profile(const std::string& type) {
    return {{"type", type}, {"id", ""}, {"parameters", ordered_json::object()}};
  }
  static ordered_json& put(ordered_json& profile, const char* name, double value, bool free) {
    return profile["parameters"][name] = {
               {"fixed", !free},
               {"point_estimate", {{"value", value}}},
               {"posterior_stats",
                {{"mean", nullptr}, {"median", nullptr}, {"percentile_16th", nullptr}, {"percentile_84th", nullptr}}},
               {"prior", {{"type", nullptr}}}};
  }
  /// The posterior in the Gaussian approximation. @param sigma  NaN or 0 = unknown
  static void put_spread(ordered_json& parameter, double sigma) {
    if (!(sigma > 0)) return;
    const double value = parameter["point_estimate"]["value"].get<double>();
    // ordered_json is spelled out, here and below: assigning from a braced list leaks memory with Clang 14.
    parameter["posterior_stats"] = ordered_json{
        {"mean", value}, {"median", value}, {"percentile_16th", value - sigma}, {"percentile_84th", value + sigma}};
  }
  /// 1 σ of a parameter of the component that is being written; 0 = unknown.
  double sigma_of(const char* own) const {
    const auto found = lens_.sigma.find(component_ + "." + own);
    return found == lens_.sigma.end() ? 0 : found->second;
  }
  /// A parameter of the standard that equals one of einfield's times `scale`.
  template <class Component>
  void put_scaled(ordered_json& profile, const Component& c, const ProfileInfo& info, const char* own, const char* name,
                  double scale) const {
    const auto i = static_cast<std::size_t>(info.index_of(own));
    ordered_json& parameter = put(profile, name, scale * c.values[i], c.free[i]);
    put_spread(parameter, scale * sigma_of(own));
    if (c.priors.empty() || !c.free[i]) return;
    const ParameterPrior& prior = c.priors[i];
    if (prior.gaussian())
      parameter["prior"] =
          ordered_json{{"type", "GaussianPrior"}, {"mean", scale * prior.mean}, {"width", scale * prior.sigma}};
    else if (prior.bounded())
      parameter["prior"] = ordered_json{
          {"type", "UniformPrior"}, {"min_value", scale * prior.lower}, {"max_value", scale * prior.upper}};
  }
  template <class Component>
  void put_same(ordered_json& profile, const Component& c, const ProfileInfo& info, const char* own,
                const char* name) const {
    put_scaled(profile, c, info, own, name, 1);
  }
  template <class Component>
  void put_center(ordered_json& profile, const Component& c, const ProfileInfo& info) const {
    put_same(profile, c, info, "center_x", "center_x");
    put_same(profile, c, info, "center_y", "center_y");
  }

  /// 1 σ of a function of two parameters with this gradient.
  double propagated(const char* first, const char* second, Vec2<double> gradient) const {
    const double a = gradient.x * sigma_of(first), b = gradient.y * sigma_of(second);
    const auto found = lens_.correlation.find(component_ + "." + first + " " + component_ + "." + second);
    const double correlation = found == lens_.correlation.end() ? 0 : found->second;
    return std::sqrt(std::max(0.0, a * a + b * b + 2 * correlation * a * b));
  }
  /// A size and an angle from two components, with their uncertainties: with c² = e1² + e2²
  ///     ∂c/∂e = e/c,   ∂φ/∂e = (−e2, e1)/(2c²)
  /// @param size   of the standard
  /// @param slope  derivative of `size` with respect to c
  template <class Component>
  void put_pair(ordered_json& profile, const Component& c, const ProfileInfo& info, const char* first,
                const char* second, const char* size_name, double size, double slope, const char* angle_name) const {
    const double x = value_of(info, c.values, first), y = value_of(info, c.values, second);
    const bool free = is_free(info, c.free, first) || is_free(info, c.free, second);
    const Polar e = polar(x, y);
    ordered_json& length = put(profile, size_name, size, free);
    if (e.size > 0) put_spread(length, propagated(first, second, {slope * x / e.size, slope * y / e.size}));
    ordered_json& angle = put(profile, angle_name, e.angle, free);
    const double turn = 0.5 * kDegrees / (e.size * e.size);
    if (e.size > 0) put_spread(angle, propagated(first, second, {-turn * y, turn * x}));
  }
  /// q and phi; q = 1 if the profile has no ellipticity. @return q
  template <class Component>
  double put_ellipse(ordered_json& profile, const Component& c, const ProfileInfo& info) const {
    if (info.index_of("e1") < 0) {
      put(profile, "q", 1, false);
      put(profile, "phi", 0, false);
      return 1;
    }
    const double e = std::hypot(value_of(info, c.values, "e1"), value_of(info, c.values, "e2"));
    const double q = axis_ratio(e);
    put_pair(profile, c, info, "e1", "e2", "q", q, -2 / ((1 + e) * (1 + e)), "phi");
    return q;
  }

  /// The profile of the standard for a lens component, or nothing if there is none.
  std::optional<ordered_json> lens_profile(const LensComponent& c) const {
    const ProfileInfo& info = lens_info(c.kind);
    switch (c.kind) {
      case LensKind::sie:
      case LensKind::sis:
      case LensKind::epl: {
        // coolest 0.1.11 cannot evaluate an SIE, but it can evaluate the power law of slope 2, which is the same.
        ordered_json json = profile("PEMD");
        if (c.kind == LensKind::epl)
          put_same(json, c, info, "gamma", "gamma");
        else
          put(json, "gamma", 2, false);
        put_same(json, c, info, "theta_E", "theta_E");
        put_ellipse(json, c, info);
        put_center(json, c, info);
        return json;
      }
      case LensKind::nie: {
        ordered_json json = profile("NIE");
        put_same(json, c, info, "theta_E", "theta_E");
        put_same(json, c, info, "s_scale", "r_core");
        put_ellipse(json, c, info);
        put_center(json, c, info);
        return json;
      }
      case LensKind::shear: {
        const double strength = std::hypot(c.values[0], c.values[1]);
        if (strength > kMaxShear) return std::nullopt;
        ordered_json json = profile("ExternalShear");
        put_pair(json, c, info, "gamma1", "gamma2", "gamma_ext", strength, 1, "phi_ext");
        return json;
      }
      case LensKind::convergence: {
        ordered_json json = profile("ConvergenceSheet");
        put_same(json, c, info, "kappa", "kappa_s");
        return json;
      }
      default:
        return std::nullopt;  // no counterpart
    }
  }

  /// What the parameters of the standard cannot express about a component.
  template <class Component>
  static ordered_json own_json(const Component& c, const ProfileInfo& info) {
    ordered_json own = {{"profile", info.name}, {"parameters", ordered_json::object()}, {"fit", ordered_json::array()}};
    for (std::size_t i = 0; i < c.values.size(); ++i) {
      own["parameters"][info.parameters[i].name] = c.values[i];
      if (c.free[i]) own["fit"].push_back(info.parameters[i].name);
    }
    put_priors(own, c, info);
    return own;
  }
  /// A potential sampled on the pixels of the image.
  ordered_json potential_profile(const std::string& name, std::vector<double> potential) {
    ordered_json json = profile(kPotential);
    json["parameters"]["pixels"] = grid_json(name, {image_grid(), std::move(potential)}, "arcsec2");
    return json;
  }

  /// A light component in the standard's own profiles, or nothing if it has none.
  /// @param c     already shifted
  /// @param area  of a pixel [arcsec²]
  std::optional<ordered_json> standard_light(const LightComponent& c, double area) const {
    const ProfileInfo& info = light_info(c.kind);
    if (c.kind == LightKind::sersic_ellipse && value_of(info, c.values, "n_sersic") >= kMinSersic) {
      ordered_json json = profile("Sersic");
      put_scaled(json, c, info, "amp", "I_eff", 1 / area);
      const double q = put_ellipse(json, c, info);
      const bool major = c.radius == RadiusKind::major_axis;
      put_scaled(json, c, info, "R_sersic", "theta_eff", major ? std::sqrt(q) : 1);
      put_same(json, c, info, "n_sersic", "n");
      put_center(json, c, info);
      json[kOwn] = ordered_json::object();
      put_priors(json[kOwn], c, info);
      if (major) json[kOwn]["radius"] = name_of(c.radius);
      return json;
    }
    if (c.kind == LightKind::gaussian || c.kind == LightKind::gaussian_ellipse) {
      const double sigma = value_of(info, c.values, "sigma"), b = sersic_b(kMinSersic);
      ordered_json json = profile("Sersic");
      put_scaled(json, c, info, "amp", "I_eff", std::exp(-b) / (2 * kPi * sigma * sigma) / area);
      put_scaled(json, c, info, "sigma", "theta_eff", std::sqrt(2 * b));
      put(json, "n", kMinSersic, false);
      put_ellipse(json, c, info);
      put_center(json, c, info);
      json[kOwn] = {{"profile", info.name}};
      put_priors(json[kOwn], c, info);
      return json;
    }
    if (is_uniform(c) && value_of(info, c.values, "amp") >= 0) {
      ordered_json json = profile("Uniform");
      put_scaled(json, c, info, "amp", "A", 1 / area);
      json[kOwn] = ordered_json::object();
      put_priors(json[kOwn], c, info);
      return json;
    }
    return std::nullopt;
  }

  /// A light component as a map of pixels.
  /// @param c   already shifted by `by`
  ordered_json pixel_light(const std::string& name, const LightComponent& original, const LightComponent& c,
                           Vec2<double> by, bool lensed) {
    const ProfileInfo& info = light_info(c.kind);
    PixelMap map = light_pixels(lens_, original, lensed);
    map.grid.center_x += by.x;
    map.grid.center_y += by.y;
    ordered_json json = profile("PixelatedRegularGrid");
    json["parameters"]["pixels"] = grid_json(file_name(name), map, lens_.unit);
    json[kOwn] = own_json(c, info);
    if (c.kind == LightKind::pixelated) {
      json[kOwn]["fit"] = c.pixels_free ? ordered_json::array({"pixels"}) : ordered_json::array();
      return json;
    }
    if (c.kind == LightKind::sersic_ellipse && c.radius == RadiusKind::major_axis)
      json[kOwn]["radius"] = name_of(c.radius);
    if (c.kind == LightKind::network) {
      json[kOwn]["network"] = network_file(0, lensed ? "source_network" : "lens_light_network");
      if (c.weights_free) json[kOwn]["fit"].push_back("network");
      note_members(notes_, name, lens_.network_lights.size());
    }
    const std::string why = c.kind == LightKind::sersic_ellipse ? " with n_sersic < 0.5"
                            : is_uniform(c)                     ? " with amp < 0"
                                                                : "";
    note(name + ": " + info.name + why + " has no counterpart in COOLEST; stored as pixels in " +
         json["parameters"]["pixels"]["fits_file"]["path"].get<std::string>());
    return json;
  }

  /// @param name  as in the fit: "source.0"
  ordered_json light_profile(const std::string& name, const LightComponent& original, bool lensed) {
    LightComponent c = original;
    const Vec2<double> by = lensed ? Vec2<double>{-shift_.x, -shift_.y} : Vec2<double>{};
    move(c, by);
    component_ = name;
    const double area = lens_.observation.grid.pixel_scale * lens_.observation.grid.pixel_scale;
    if (std::optional<ordered_json> standard = standard_light(c, area)) return std::move(*standard);
    return pixel_light(name, original, c, by, lensed);
  }

  static std::string file_name(std::string name) {
    std::replace(name.begin(), name.end(), '.', '_');
    return name;
  }

  /// Adds a profile to an entity and gives it the identifiers of the standard.
  static void add(ordered_json& entity, std::size_t index, const char* model, ordered_json profile) {
    const bool galaxy = entity["type"] == "Galaxy";
    const std::string id = std::to_string(index) + (galaxy ? "-galaxy-" : "-massfield-") +
                           (model == std::string("mass_model") ? "mass-" : "light-") +
                           std::to_string(entity[model].size()) + "-" + profile["type"].get<std::string>();
    profile["id"] = id;
    for (auto& [name, parameter] : profile["parameters"].items()) parameter["id"] = id + "-" + name;
    entity[model].push_back(std::move(profile));
  }

  static ordered_json entity(const std::string& name, bool galaxy, double redshift) {
    ordered_json json = {{"name", name},
                         {"type", galaxy ? "Galaxy" : "MassField"},
                         {"redshift", redshift},
                         {"mass_model", ordered_json::array()}};
    if (galaxy) json["light_model"] = ordered_json::array();
    return json;
  }

  /// The entity of a lens component. @param index  among all entities
  ordered_json lens_entity(std::size_t index, const LensComponent& c) {
    const std::string name = "lens." + std::to_string(index);
    component_ = name;
    std::optional<ordered_json> standard = lens_profile(c);
    const bool about_origin = c.kind == LensKind::shear || c.kind == LensKind::convergence;
    const bool field = !standard || about_origin;
    ordered_json json = entity(name, !field, universe_.z_lens);
    if (!standard) {
      ThreadPool pool(lens_.threads);
      standard =
          potential_profile(file_name(name), smooth_fields({c}, pixel_centers(pixels_of_image()), pool).potential);
      note(name + ": " + lens_info(c.kind).name +
           " has no counterpart in COOLEST; stored as its potential in coolest_" + file_name(name) + ".fits");
    }
    (*standard)[kOwn] = own_json(c, lens_info(c.kind));
    if (c.kind == LensKind::nie) note(name + ": theta_E of the NIE is that of the same profile without core");
    if (about_origin && (value_of_or(c, "ra_0") != 0 || value_of_or(c, "dec_0") != 0))
      note(name + ": stored relative to (0, 0); the source is shifted so that the image stays the same");
    add(json, index, "mass_model", std::move(*standard));
    return json;
  }

  ordered_json network_entity(std::size_t index) {
    ordered_json json = entity("network", false, universe_.z_lens);
    ordered_json profile =
        potential_profile("network", exchanged_network(lens_, pixel_centers(pixels_of_image())).potential);
    profile[kOwn] = {{"network", network_file(0)}};
    note_members(notes_, "network", lens_.networks.size());
    add(json, index, "mass_model", std::move(profile));
    return json;
  }

  ordered_json entities() {
    const Model& model = lens_.model;
    ordered_json all = ordered_json::array();
    std::optional<std::size_t> galaxy;  // the first lens galaxy gets the lens light
    for (const LensComponent& c : model.lens) {
      all.push_back(lens_entity(all.size(), c));
      if (!galaxy && all.back()["type"] == "Galaxy") galaxy = all.size() - 1;
    }
    if (!lens_.networks.empty()) all.push_back(network_entity(all.size()));
    if (!galaxy) {  // readers tell lens from source by the redshifts of galaxies
      galaxy = all.size();
      all.push_back(entity("lens", true, universe_.z_lens));
    }
    std::optional<std::size_t> background;
    for (std::size_t i = 0; i < model.lens_light.size(); ++i) {
      // coolest 0.1.11 cannot evaluate Uniform, so it gets an entity of its own; the galaxy can still be evaluated.
      const bool apart = is_uniform(model.lens_light[i]);
      if (apart && !background) {
        background = all.size();
        all.push_back(entity("background", true, universe_.z_lens));
      }
      const std::size_t at = apart ? *background : *galaxy;
      ordered_json json = light_profile("lens_light." + std::to_string(i), model.lens_light[i], false);
      json[kOwn]["index"] = i;
      add(all[at], at, "light_model", std::move(json));
    }
    ordered_json source = entity("source", true, universe_.z_source);
    for (std::size_t i = 0; i < model.source.size(); ++i)
      add(source, all.size(), "light_model", light_profile("source." + std::to_string(i), model.source[i], true));
    if (!model.source.empty()) all.push_back(std::move(source));
    return all;
  }

  static double value_of_or(const LensComponent& c, const char* name) {
    const int index = lens_info(c.kind).index_of(name);
    return index < 0 ? 0 : c.values[static_cast<std::size_t>(index)];
  }

  Grid pixels_of_image() const {
    Grid grid = lens_.observation.grid;
    grid.supersampling = 1;
    return grid;
  }

  std::string dir_;
  ExchangedLens lens_;     ///< on a square image
  Cosmology universe_;     ///< of the lens, or placeholders
  Vec2<double> shift_;     ///< of the source, constant_deflection() [arcsec]
  std::string component_;  ///< the component that is being written: "lens.0"
  std::vector<std::string> notes_;
};

}  // namespace

std::vector<std::string> write_coolest(const std::string& dir, const ExchangedLens& lens) {
  return Writer(dir, lens).write();
}

bool is_coolest_map(const std::string& name) {
  // Without <regex>: GCC 12 with the address sanitizer warns about uninitialized states in it (bug 105562).
  constexpr std::string_view kBefore = "coolest_", kAfter = ".fits";
  std::string_view map = name;
  if (!map.starts_with(kBefore) || !map.ends_with(kAfter)) return false;
  map = map.substr(kBefore.size(), map.size() - kBefore.size() - kAfter.size());
  if (map == "data" || map == "noise" || map == "mask" || map == "psf" || map == "network") return true;
  const std::size_t number = map.find_last_not_of("0123456789") + 1;  // 0 if all are digits
  const std::string_view block = map.substr(0, number);
  return number < map.size() && (block == "lens_" || block == "source_" || block == "lens_light_");
}

}  // namespace einfield
