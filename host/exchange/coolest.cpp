// The template out: a lensing entity per lens component, then the network, then the source. The template in: entities
// by their redshifts, profiles by their types.
#include "host/exchange/coolest.hpp"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string_view>
#include <utility>

#include "einfield/error.hpp"
#include "host/fields/lens_fields.hpp"
#include "host/files/atomic_file.hpp"
#include "host/files/fits_io.hpp"
#include "host/files/text.hpp"
#include "host/model/profile_names.hpp"
#include "host/results/result_files.hpp"

namespace einfield {
namespace {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

constexpr double kPi = 3.14159265358979323846;
constexpr double kDegrees = 180 / kPi;
/// What stands in for the redshifts, which a fit does not know.
constexpr double kLensRedshift = 0.5, kSourceRedshift = 2.0;
/// Smallest Sérsic index and largest shear of the standard.
constexpr double kMinSersic = 0.5, kMaxShear = 1;
constexpr const char* kPotential = "PixelatedRegularGridPotential";
constexpr const char* kOwn = "einfield";  ///< members that other readers pass over

/// b of the Sérsic profile (einfield/source.hpp).
double sersic_b(double n) {
  return 1.9992 * n - 0.3271;
}

/// Axis ratio and position angle, or strength and orientation of a shear, of a pair of components.
struct Polar {
  double size, angle;  ///< |e|; [degrees], (−90, 90]
};

Polar polar(double first, double second) {
  const double phi = 0.5 * std::atan2(second, first) * kDegrees;  // [−90, 90]
  return {std::hypot(first, second), phi <= 0 ? phi + 90 : phi - 90};
}

/// The inverse of polar().
Vec2<double> components(double size, double angle) {
  const double twice = 2 * angle / kDegrees;  // 2(angle + 90°) = twice + 180°
  return {-size * std::cos(twice), -size * std::sin(twice)};
}

double axis_ratio(double ellipticity) {
  return (1 - ellipticity) / (1 + ellipticity);
}

/// A named value of a component.
double value_of(const ProfileInfo& info, const std::vector<double>& values, const char* name) {
  return values.at(static_cast<std::size_t>(info.index_of(name)));
}
bool is_free(const ProfileInfo& info, const std::vector<std::uint8_t>& free, const char* name) {
  return free.at(static_cast<std::size_t>(info.index_of(name)));
}

/// By how much the source moves when shear and convergence are taken about (0, 0): Σ Γ θ_0.
Vec2<double> constant_deflection(const std::vector<LensComponent>& lens) {
  Vec2<double> sum{};
  for (const LensComponent& c : lens) {
    const std::vector<double>& p = c.values;
    if (c.kind == LensKind::shear) sum += {p[0] * p[2] + p[1] * p[3], p[1] * p[2] - p[0] * p[3]};
    if (c.kind == LensKind::convergence) sum += {p[0] * p[1], p[0] * p[2]};
  }
  return sum;
}

bool is_uniform(const LightComponent& c) {
  return c.kind == LightKind::uniform;
}

void move(ParameterPrior& prior, double by) {
  prior.lower += by;  // infinite ones stay so
  prior.upper += by;
  if (prior.gaussian()) prior.mean += by;
}

void move(LightComponent& c, Vec2<double> by) {
  const ProfileInfo& info = light_info(c.kind);
  const int x = info.index_of("center_x");
  if (x >= 0) {
    const auto i = static_cast<std::size_t>(x);
    c.values[i] += by.x;
    c.values[i + 1] += by.y;
    if (!c.priors.empty()) {
      move(c.priors[i], by.x);
      move(c.priors[i + 1], by.y);
    }
  }
  c.grid.center_x += by.x;
  c.grid.center_y += by.y;
}

// ---- out -------------------------------------------------------------------------------------------------

/// "02h52m45.21s" of a right ascension, "+00d39m58.4s" of a declination [deg].
std::string sexagesimal(double value, const char* unit, const char* format, int decimals) {
  // Rounded first: no 60 seconds.
  const double power = std::pow(10.0, decimals);
  auto ticks = static_cast<long long>(std::llround(std::abs(value) * 3600 * power));
  if (*unit == 'h') ticks %= 24 * 60 * static_cast<long long>(60 * power);
  const auto per_minute = static_cast<long long>(60 * power);
  char text[64];
  std::snprintf(text, sizeof text, format, ticks / (60 * per_minute), unit, ticks / per_minute % 60, decimals + 3,
                decimals, static_cast<double>(ticks % per_minute) / power);
  return text;
}
std::string hours(double ra) {
  return sexagesimal((ra - 360 * std::floor(ra / 360)) / 15, "h", "%02lld%s%02lldm%0*.*fs", 4);
}
std::string degrees(double dec) {
  return (dec < 0 ? "-" : "+") + sexagesimal(dec, "d", "%02lld%s%02lldm%0*.*fs", 3);
}

class Writer {
 public:
  Writer(std::string dir, const ExchangedLens& lens)
      : dir_(std::move(dir)), lens_(on_square_image(lens)), shift_(constant_deflection(lens.model.lens)) {
    const Grid& grid = lens.observation.grid;
    if (grid.nx != grid.ny)
      note("the image of " + std::to_string(grid.nx) + " x " + std::to_string(grid.ny) +
           " pixels is padded to a square, masked there: coolest 0.1.11 reads no other");
  }

  std::vector<std::string> write() {
    const Grid& grid = lens_.observation.grid;
    if (grid.center_x != 0 || grid.center_y != 0)
      note("the middle of the image is not (0, 0), as field_of_view says; coolest 0.1.11 evaluates as if it were");
    ordered_json file = {{"standard", "COOLEST"},
                         {"mode", "MAP"},
                         {"coordinates_origin", origin()},
                         {"cosmology", {{"H0", 70.0}, {"Om0", 0.3}, {"astropy_name", "FlatLambdaCDM"}}},
                         {"observation", observation()},
                         {"instrument", instrument()},
                         {"likelihoods", ordered_json::array({mask()})},
                         {"lensing_entities", entities()}};
    note(std::string("redshifts") + (lens_.sky ? " and cosmology" : ", cosmology and coordinates_origin") +
         " are placeholders: a fit knows none");
    file["meta"] = {
        {"coolest.__version__", "0.1.11"},
        {"units", lens_.unit.empty() ? "unknown" : lens_.unit},
        {kOwn,
         {{"version", std::to_string(EINFIELD_VERSION_MAJOR) + "." + std::to_string(EINFIELD_VERSION_MINOR) + "." +
                          std::to_string(EINFIELD_VERSION_PATCH)},
          {"supersampling", grid.supersampling},
          {"notes", notes_}}}};
    write_atomically((fs::path(dir_) / "coolest.json").string(),
                     file.dump(2, ' ', false, ordered_json::error_handler_t::replace) + "\n");
    return notes_;
  }

 private:
  void note(const std::string& text) { notes_.push_back(text); }

  /// Writes a map and describes it. @param name  of the file: "coolest_<name>.fits"
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

  /// The place of (0, 0) on the sky, and a note on where the image's y axis points.
  ordered_json origin() {
    const auto at = [](double ra, double dec) -> ordered_json { return {{"ra", hours(ra)}, {"dec", degrees(dec)}}; };
    if (!lens_.sky) return at(0, 0);
    const CelestialWcs& sky = *lens_.sky;
    const double turned = sky.position_angle(M_PI / 2);
    if (!sky.right_handed() || std::abs(turned) > 0.01)
      note("angles are from the image's y axis, which points to position angle " + rounded(turned) +
           " degrees on the sky" + (sky.right_handed() ? "" : "; the image is mirrored"));
    const Grid& g = lens_.observation.grid;
    const std::array<double, 2> place = sky.longitude_latitude(
        {0.5 * (g.nx + 1) - g.center_x / g.pixel_scale, 0.5 * (g.ny + 1) - g.center_y / g.pixel_scale});
    if (std::isfinite(place[0])) return at(place[0], place[1]);
    note("coordinates_origin is a placeholder: no gnomonic WCS");
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

  // A profile is built up parameter by parameter; its identifiers follow from where it is put.

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
  /// The posterior in the Gaussian approximation. @param sigma  NaN or 0 when it is not known
  static void put_spread(ordered_json& parameter, double sigma) {
    if (!(sigma > 0)) return;
    const double value = parameter["point_estimate"]["value"].get<double>();
    // By name, here and below: what a list in braces takes the place of, Clang 14 never frees.
    parameter["posterior_stats"] = ordered_json{
        {"mean", value}, {"median", value}, {"percentile_16th", value - sigma}, {"percentile_84th", value + sigma}};
  }
  /// 1 σ of a parameter of the component that is being written; 0 when it is not known.
  double sigma_of(const char* own) const {
    const auto found = lens_.sigma.find(component_ + "." + own);
    return found == lens_.sigma.end() ? 0 : found->second;
  }
  /// A parameter of the standard that is one of einfield's times a number.
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

  /// 1 σ of a function of two parameters with these derivatives.
  double propagated(const char* first, const char* second, Vec2<double> gradient) const {
    const double a = gradient.x * sigma_of(first), b = gradient.y * sigma_of(second);
    const auto found = lens_.correlation.find(component_ + "." + first + " " + component_ + "." + second);
    const double correlation = found == lens_.correlation.end() ? 0 : found->second;
    return std::sqrt(std::max(0.0, a * a + b * b + 2 * correlation * a * b));
  }
  /// A size and an angle from two components, with what is known of these: with c² = e1² + e2²
  ///     ∂c/∂e = e/c,   ∂φ/∂e = (−e2, e1)/(2c²)
  /// @param size, slope  the standard's size, and its derivative with respect to c
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
  /// q and phi; those of a circle when the profile has no ellipticity. @return q
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

  /// A profile of the standard for a lens component, or nothing.
  std::optional<ordered_json> lens_profile(const LensComponent& c) const {
    const ProfileInfo& info = lens_info(c.kind);
    switch (c.kind) {
      case LensKind::sie:
      case LensKind::sis:
      case LensKind::epl: {
        // coolest 0.1.11 evaluates no SIE, but the power law of slope 2, which is the same.
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

  /// What the standard's parameters do not say about a component.
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
  /// A potential on the pixels of the image.
  ordered_json potential_profile(const std::string& name, std::vector<double> potential) {
    ordered_json json = profile(kPotential);
    json["parameters"]["pixels"] = grid_json(name, {image_grid(), std::move(potential)}, "arcsec2");
    return json;
  }

  /// A profile of the standard for a light component.
  /// @param name  as in the fit: "source.0"
  ordered_json light_profile(const std::string& name, const LightComponent& original, bool lensed) {
    LightComponent c = original;
    const Vec2<double> by = lensed ? Vec2<double>{-shift_.x, -shift_.y} : Vec2<double>{};
    move(c, by);
    const ProfileInfo& info = light_info(c.kind);
    component_ = name;
    const double area = lens_.observation.grid.pixel_scale * lens_.observation.grid.pixel_scale;
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
    if (c.kind == LightKind::gaussian) {
      const double sigma = value_of(info, c.values, "sigma"), b = sersic_b(kMinSersic);
      ordered_json json = profile("Sersic");
      put_scaled(json, c, info, "amp", "I_eff", std::exp(-b) / (2 * kPi * sigma * sigma) / area);
      put_scaled(json, c, info, "sigma", "theta_eff", std::sqrt(2 * b));
      put(json, "n", kMinSersic, false);
      put_ellipse(json, c, info);
      put_center(json, c, info);
      json[kOwn] = {{"profile", "GAUSSIAN"}};
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
      note_members(name, lens_.network_lights.size());
    }
    note(name + ": " + info.name + (c.kind == LightKind::sersic_ellipse ? " with n_sersic < 0.5" : "") +
         " has no counterpart, stored as the pixels of " +
         json["parameters"]["pixels"]["fits_file"]["path"].get<std::string>());
    return json;
  }

  void note_members(const std::string& name, std::size_t members) {
    if (members > 1)
      note(name + ": the mean of " + std::to_string(members) + " networks is stored; read back, it is the first alone");
  }

  static std::string file_name(std::string name) {
    std::replace(name.begin(), name.end(), '.', '_');
    return name;
  }

  /// Puts a profile into an entity and gives it the identifiers of the standard.
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

  ordered_json entities() {
    const Model& model = lens_.model;
    ordered_json all = ordered_json::array();
    std::optional<std::size_t> galaxy;  // the first one, for the lens light
    for (std::size_t i = 0; i < model.lens.size(); ++i) {
      const LensComponent& c = model.lens[i];
      const std::string name = "lens." + std::to_string(i);
      component_ = name;
      std::optional<ordered_json> standard = lens_profile(c);
      const bool field = !standard || c.kind == LensKind::shear || c.kind == LensKind::convergence;
      ordered_json json = entity(name, !field, kLensRedshift);
      if (!standard) {
        ThreadPool pool(lens_.threads);
        standard =
            potential_profile(file_name(name), smooth_fields({c}, pixel_centres(pixels_of_image()), pool).potential);
        note(name + ": " + lens_info(c.kind).name + " has no counterpart, stored as the potential in coolest_" +
             file_name(name) + ".fits");
      }
      (*standard)[kOwn] = own_json(c, lens_info(c.kind));
      if (c.kind == LensKind::nie) note(name + ": theta_E of the NIE is that of its limit without core");
      if (field && (value_of_or(c, "ra_0") != 0 || value_of_or(c, "dec_0") != 0))
        note(name + ": stored about (0, 0); for the same image the source is moved");
      add(json, i, "mass_model", std::move(*standard));
      if (!field && !galaxy) galaxy = i;
      all.push_back(std::move(json));
    }
    if (!lens_.networks.empty()) {
      ordered_json json = entity("network", false, kLensRedshift);
      ordered_json profile =
          potential_profile("network", exchanged_network(lens_, pixel_centres(pixels_of_image())).potential);
      profile[kOwn] = {{"network", network_file(0)}};
      note_members("network", lens_.networks.size());
      add(json, all.size(), "mass_model", std::move(profile));
      all.push_back(std::move(json));
    }
    if (!galaxy) {  // readers tell lens from source by the redshifts of galaxies
      galaxy = all.size();
      all.push_back(entity("lens", true, kLensRedshift));
    }
    std::optional<std::size_t> background;
    for (std::size_t i = 0; i < model.lens_light.size(); ++i) {
      // coolest 0.1.11 evaluates no Uniform: apart from the galaxy, which it does.
      const bool apart = is_uniform(model.lens_light[i]);
      if (apart && !background) {
        background = all.size();
        all.push_back(entity("background", true, kLensRedshift));
      }
      const std::size_t at = apart ? *background : *galaxy;
      ordered_json json = light_profile("lens_light." + std::to_string(i), model.lens_light[i], false);
      json[kOwn]["index"] = i;
      add(all[at], at, "light_model", std::move(json));
    }
    ordered_json source = entity("source", true, kSourceRedshift);
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
  ExchangedLens lens_;  ///< on a square image
  Vec2<double> shift_;
  std::string component_;  ///< "lens.0": which is being written
  std::vector<std::string> notes_;
};

}  // namespace

std::vector<std::string> write_coolest(const std::string& dir, const ExchangedLens& lens) {
  return Writer(dir, lens).write();
}

bool is_coolest_map(const std::string& name) {
  // Not by <regex>: GCC 12 takes its states for uninitialised when it adds the address sanitizer (bug 105562).
  constexpr std::string_view kBefore = "coolest_", kAfter = ".fits";
  std::string_view map = name;
  if (!map.starts_with(kBefore) || !map.ends_with(kAfter)) return false;
  map = map.substr(kBefore.size(), map.size() - kBefore.size() - kAfter.size());
  if (map == "data" || map == "noise" || map == "mask" || map == "psf" || map == "network") return true;
  const std::size_t number = map.find_last_not_of("0123456789") + 1;  // 0 when there is nothing else
  const std::string_view block = map.substr(0, number);
  return number < map.size() && (block == "lens_" || block == "source_" || block == "lens_light_");
}

// ---- in --------------------------------------------------------------------------------------------------

namespace {

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
      root_.at("standard").fail("another standard, found " + root_.at("standard").text() + ", expected COOLEST");
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
      grid.fail("field_of_view, pixels of " + rounded(scale) + " x " + rounded(scale_y) + " arcsec on " +
                std::to_string(map.grid.nx) + " x " + std::to_string(map.grid.ny) + ", expected " +
                (pixel_scale > 0 ? rounded(pixel_scale) + " arcsec" : "square ones"));
    if (x.y < x.x || y.y < y.x) grid.fail("field_of_view that falls, expected x to the right and y upwards");
    return map;
  }

  /// A map on the pixels of the image.
  std::vector<double> read_map(const JsonView& grid) const {
    const Grid& image = lens_.observation.grid;
    PixelMap map = read_grid(grid, image.pixel_scale);
    if (map.grid.nx != image.nx || map.grid.ny != image.ny)
      grid.fail("another shape, found " + std::to_string(map.grid.nx) + " x " + std::to_string(map.grid.ny) +
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
    if (o.image.empty()) warn("observation.pixels: no FITS file; the configuration is for einfield simulate");
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
      noise.at("type").fail("no counterpart, found " + type +
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
        if (v != 0 && v != 1) likelihood.at("mask").fail("other values than 0 and 1, found " + rounded(v));
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
        psf.at("pixels").fail("field_of_view, pixels of " + rounded(kernel.grid.pixel_scale) +
                              " arcsec, expected those of the image, " + rounded(pixel_scale) +
                              " arcsec, or a whole number of them in one");
      if (kernel.grid.nx % 2 == 0 || kernel.grid.ny % 2 == 0)
        psf.at("pixels").fail("a PSF of even size, found " + std::to_string(kernel.grid.nx) + " x " +
                              std::to_string(kernel.grid.ny) + " pixels, expected odd numbers");
      const int supersampling = static_cast<int>(samples);
      if (grid.supersampling % supersampling != 0) grid.supersampling = supersampling;
      lens_.observation.psf = {kernel.grid.nx, kernel.grid.ny, std::move(kernel.values), supersampling};
    } else {
      psf.at("type").fail("no counterpart, found " + type + ", expected PixelatedPSF or GaussianPSF");
    }
  }

  // ---- the model ----

  /// Galaxies of the smallest redshift deflect, those of the largest one are the source; fields of mass deflect, at
  /// whatever redshift.
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
                  ", expected lens and source alone");
      const bool behind = galaxy && z > nearest;
      if (entity.has("mass_model")) {
        const JsonView mass = entity.at("mass_model");
        const std::size_t count = mass.size(kMaxComponents);
        if (behind && count > 0) mass.fail("mass of the source, expected none: einfield has one lens plane");
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
    if (lens_.model.source.empty() && lens_.model.lens_light.empty()) entities.fail("no light, expected some");
    sort_lens_light();
  }

  /// Light of one lens in several entities goes back into the order of the fit that wrote it.
  void sort_lens_light() {
    std::vector<LightComponent>& lights = lens_.model.lens_light;
    std::vector<LightComponent> sorted(lights.size());
    std::vector<std::uint8_t> taken(lights.size(), false);
    for (std::size_t i = 0; i < lights.size(); ++i) {
      const std::optional<int> index = lens_light_index_[i];
      if (!index || static_cast<std::size_t>(*index) >= lights.size() || taken[static_cast<std::size_t>(*index)])
        return;
      taken[static_cast<std::size_t>(*index)] = true;
      sorted[static_cast<std::size_t>(*index)] = lights[i];
    }
    lights = std::move(sorted);
  }

  static Estimate estimate(const JsonView& profile, const char* name, const Bounds& bounds = {}) {
    const JsonView parameter = profile.at("parameters").at(name);
    return {parameter.at("point_estimate").at("value").number(bounds),
            !parameter.has("fixed") || !parameter.at("fixed").boolean()};
  }

  /// Takes a parameter over as it stands.
  template <class Component>
  void take(const JsonView& profile, const char* name, Component& c, const ProfileInfo& info, const char* own) {
    const Estimate e = estimate(profile, name);
    set(profile.at("parameters").at(name), c, info, own, e.value, e.free);
    take_prior(profile, name, c, info, own, 1);
  }
  /// The prior of a parameter that is one of einfield's divided by a number.
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
  /// Priors of sizes and angles are none of components.
  void leave_out_prior(const JsonView& profile, const char* name) {
    const JsonView parameter = profile.at("parameters").at(name);
    if (parameter.has("prior") && parameter.at("prior").has("type"))
      leave_out(parameter.at("prior"), parameter.at("prior").at("type").text());
  }
  void leave_out(const JsonView& prior, const std::string& type) {
    warnings_.push_back(prior.place() + ": " + type.substr(0, 60) + " has no counterpart, left out");
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

  /// What einfield has written about the profile itself.
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

  void read_mass(const JsonView& profile) {
    const JsonView type_view = profile.at("type");
    const std::string type = type_view.text(), own = own_profile(profile);
    const auto add = [&](LensComponent c) {
      check_complete(profile, lens_info(c.kind), c.values);
      if (profile.has(kOwn)) take_priors(profile.at(kOwn), c, lens_info(c.kind));
      check_priors(profile, c, lens_info(c.kind), warnings_);
      lens_.model.lens.push_back(std::move(c));
    };
    const auto isothermal = [&] { return estimate(profile, "gamma").value == 2; };
    if (type == "SIE" || (type == "PEMD" && own == "SIE" && isothermal())) {
      LensComponent c = new_lens(LensKind::sie);
      take(profile, "theta_E", c, lens_info(c.kind), "theta_E");
      take_ellipse(profile, c, lens_info(c.kind));
      take_center(profile, c, lens_info(c.kind));
      return add(c);
    }
    if (type == "PEMD" && own == "SIS" && isothermal() && estimate(profile, "q").value == 1) {
      LensComponent c = new_lens(LensKind::sis);
      take(profile, "theta_E", c, lens_info(c.kind), "theta_E");
      take_center(profile, c, lens_info(c.kind));
      return add(c);
    }
    const bool cored = type == "NIE" || type == "SPEMD";
    const double core = cored ? estimate(profile, "r_core", at_least(0)).value : 0;
    if (type == "PEMD" || (type == "SPEMD" && core == 0)) {
      LensComponent c = new_lens(LensKind::epl);
      take(profile, "theta_E", c, lens_info(c.kind), "theta_E");
      take(profile, "gamma", c, lens_info(c.kind), "gamma");
      take_ellipse(profile, c, lens_info(c.kind));
      take_center(profile, c, lens_info(c.kind));
      return add(c);
    }
    if (type == "NIE" || (type == "SPEMD" && isothermal())) {
      LensComponent c = new_lens(core > 0 ? LensKind::nie : LensKind::sie);
      take(profile, "theta_E", c, lens_info(c.kind), "theta_E");
      if (core > 0) take(profile, "r_core", c, lens_info(c.kind), "s_scale");
      take_ellipse(profile, c, lens_info(c.kind));
      take_center(profile, c, lens_info(c.kind));
      return add(c);
    }
    if (type == "ExternalShear" || type == "ConvergenceSheet") {
      const bool shear = type == "ExternalShear";
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
      return add(c);
    }
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
      return add(c);
    }
    type_view.fail("no counterpart, found " + type +
                   ", expected one of SIE, PEMD, NIE, SPEMD without core or with gamma 2, ExternalShear, "
                   "ConvergenceSheet");
  }

  LightComponent read_light(const JsonView& profile) {
    const std::string type = profile.at("type").text(), own = own_profile(profile);
    const double area = lens_.observation.grid.pixel_scale * lens_.observation.grid.pixel_scale;
    LightComponent c;
    if (type == "Sersic") {
      const Estimate intensity = estimate(profile, "I_eff", above(0)),
                     radius = estimate(profile, "theta_eff", above(0));
      const double n = estimate(profile, "n").value;
      const JsonView parameters = profile.at("parameters");
      if (own == "GAUSSIAN" && n == kMinSersic && estimate(profile, "q").value == 1) {
        c = new_light(LightKind::gaussian);
        const double b = sersic_b(n), sigma = radius.value / std::sqrt(2 * b);
        set(parameters.at("theta_eff"), c, light_info(c.kind), "sigma", sigma, radius.free);
        set(parameters.at("I_eff"), c, light_info(c.kind), "amp",
            intensity.value * area * std::exp(b) * (2 * kPi * sigma * sigma), intensity.free);
        take_prior(profile, "theta_eff", c, light_info(c.kind), "sigma", 1 / std::sqrt(2 * b));
        take_prior(profile, "I_eff", c, light_info(c.kind), "amp", area * std::exp(b) * (2 * kPi * sigma * sigma));
      } else {
        c = new_light(LightKind::sersic_ellipse);
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
      }
      take_center(profile, c, light_info(c.kind));
    } else if (type == "Uniform") {
      c = new_light(LightKind::uniform);
      const Estimate amplitude = estimate(profile, "A");
      set(profile.at("parameters").at("A"), c, light_info(c.kind), "amp", amplitude.value * area, amplitude.free);
      take_prior(profile, "A", c, light_info(c.kind), "amp", area);
    } else if (type == "PixelatedRegularGrid") {
      const std::optional<LightKind> kind = light_kind(own);
      if (!own.empty() && !kind) profile.at(kOwn).at("profile").fail("no such profile, found " + own);
      if (kind && *kind != LightKind::pixelated) {
        c = new_light(*kind);
        take_own(profile, c, light_info(*kind));
        if (profile.at(kOwn).has("radius")) c.radius = RadiusKind::major_axis;
        if (*kind == LightKind::network) read_network_light(profile.at(kOwn), c);
      } else {
        c = new_light(LightKind::pixelated);
        PixelMap map = read_grid(profile.at("parameters").at("pixels"), 0);
        c.grid = map.grid;
        c.pixels = std::move(map.values);
        c.pixels_free = !kind || own_fits(profile.at(kOwn), "pixels");
      }
    } else {
      profile.at("type").fail("no counterpart, found " + type + ", expected Sersic or PixelatedRegularGrid");
    }
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

  static constexpr double kScaleTolerance = 1e-3;  ///< between field_of_view and pixel_size

  nlohmann::json json_;
  JsonView root_;
  std::string file_;
  std::vector<std::string>& warnings_;
  ExchangedLens lens_;
  std::vector<std::optional<int>> lens_light_index_;  ///< of a fit that wrote the file
};

}  // namespace

ExchangedLens read_coolest(const std::string& file, std::vector<std::string>& warnings) {
  return Reader(file, warnings).read();
}

}  // namespace einfield
