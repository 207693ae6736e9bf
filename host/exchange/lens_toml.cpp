#include "host/exchange/lens_toml.hpp"

#include <algorithm>
#include <filesystem>
#include <utility>

#include "einfield/config.hpp"
#include "einfield/error.hpp"
#include "host/files/atomic_file.hpp"
#include "host/files/fits_io.hpp"
#include "host/files/text.hpp"
#include "host/model/parameter_slots.hpp"

namespace einfield {
namespace {

namespace fs = std::filesystem;

constexpr const char* kConfiguration = "lens.toml";
constexpr const char* kMaps = "lens.fits";
constexpr const char* kSimulated = "simulated.fits";
constexpr const char* kNetwork = "network.safetensors";
constexpr const char* kLightNetwork = "light_network.safetensors";

/// A number as TOML without loss; a float keeps its decimal point.
std::string toml_number(double value) {
  std::string text = to_text(value);
  if (text.find_first_of(".e") == std::string::npos) text += ".0";
  return text;
}

std::string toml_text(std::string text) {
  for (char& c : text)
    if (c < ' ' || c > '~') c = '?';
  return nlohmann::json(text).dump();
}

std::string line(const std::string& key, const std::string& value) {
  return key + " = " + value + "\n";
}

std::string fit_line(const std::vector<std::string>& free) {
  std::string list;
  for (const std::string& name : free) list += (list.empty() ? "\"" : ", \"") + name + "\"";
  return line("fit", "[" + list + "]");
}

template <class Component>
std::string parameter_lines(const Component& c, const ProfileInfo& info, std::vector<std::string>& free) {
  std::string text = line("profile", toml_text(info.name));
  for (std::size_t i = 0; i < info.parameters.size(); ++i) {
    const ParameterInfo& p = info.parameters[i];
    const bool whole = p.range == Range::integer;
    if (!c.follows.empty() && c.follows[i].given())
      text += line(p.name, toml_text(to_text(c.follows[i])));
    else
      text += line(p.name, whole ? std::to_string(static_cast<long long>(c.values[i])) : toml_number(c.values[i]));
    if (c.free[i]) free.emplace_back(p.name);
  }
  return text;
}

/// The tables `bounds` and `prior` of a component, for its free parameters.
template <class Component>
std::string prior_lines(const std::string& block, const Component& c, const ProfileInfo& info) {
  std::string bounds, normals;
  for (std::size_t i = 0; i < c.priors.size(); ++i) {
    const ParameterPrior& prior = c.priors[i];
    if (!c.free[i]) continue;
    if (prior.bounded())
      bounds += line(info.parameters[i].name, "[" + toml_number(prior.lower) + ", " + toml_number(prior.upper) + "]");
    if (prior.gaussian())
      normals += line(info.parameters[i].name,
                      "{ mean = " + toml_number(prior.mean) + ", sigma = " + toml_number(prior.sigma) + " }");
  }
  return (bounds.empty() ? "" : "[" + block + ".bounds]\n" + bounds) +
         (normals.empty() ? "" : "[" + block + ".prior]\n" + normals);
}

std::string lens_text(const LensComponent& c) {
  std::vector<std::string> free;
  const std::string text = "\n[[lens]]\n" + parameter_lines(c, lens_info(c.kind), free);
  return text + fit_line(free) + prior_lines("lens", c, lens_info(c.kind));
}

std::string light_text(const std::string& block, const LightComponent& c, const std::string& hdu) {
  std::vector<std::string> free;
  std::string text = "\n[[" + block + "]]\n" + parameter_lines(c, light_info(c.kind), free);
  if (c.kind == LightKind::sersic_ellipse && c.radius == RadiusKind::major_axis) text += "radius = \"major_axis\"\n";
  if (c.kind == LightKind::pixelated) {
    text += line("nx", std::to_string(c.grid.nx)) + line("ny", std::to_string(c.grid.ny)) +
            line("pixel_scale", toml_number(c.grid.pixel_scale)) + line("center_x", toml_number(c.grid.center_x)) +
            line("center_y", toml_number(c.grid.center_y)) +
            line("image", toml_text(std::string(kMaps) + "[" + hdu + "]"));
    if (c.pixels_free) free.emplace_back("pixels");
  }
  if (c.kind == LightKind::network) {
    text += line("initial", toml_text(kLightNetwork));
    if (c.weights_free) free.emplace_back("network");
  }
  return text + fit_line(free) + prior_lines(block, c, light_info(c.kind));
}

FitsOutput map_hdu(const std::string& name, const PixelGrid& grid, std::vector<double> values,
                   const std::string& unit) {
  return {name, grid.nx, grid.ny, 1, std::move(values), -64, unit, grid.pixel_scale, grid.center_x, grid.center_y, {}};
}

/// The table [observation]. @param maps  get the maps that it names
std::string observation_text(const ExchangedLens& lens, std::vector<FitsOutput>& maps) {
  const Observation& o = lens.observation;
  const PixelGrid grid{o.grid.nx, o.grid.ny, o.grid.pixel_scale, o.grid.center_x, o.grid.center_y};
  std::string text = "\n[observation]\n";
  const auto add_map = [&](const std::string& key, const std::string& hdu, const PixelGrid& on,
                           const std::vector<double>& values, const std::string& unit = "") {
    maps.push_back(map_hdu(hdu, on, values, unit));
    if (key != "psf") maps.back().sky = lens.sky;
    text += line(key, toml_text(std::string(kMaps) + "[" + hdu + "]"));
  };
  if (!o.image.empty()) {
    add_map("image", "IMAGE", grid, o.image, lens.unit);
    add_map("noise", "NOISE", grid, o.noise, lens.unit);
  } else {
    text += line("image", toml_text(std::string(kSimulated) + "[IMAGE]")) +
            line("noise", toml_text(std::string(kSimulated) + "[NOISE]"));
  }
  if (!o.mask.empty()) {
    add_map("mask", "MASK", grid, std::vector<double>(o.mask.begin(), o.mask.end()));
    maps.back().bitpix = 8;
  }
  if (lens.psf_fwhm > 0) text += "psf = { fwhm = " + toml_number(lens.psf_fwhm) + " }\n";
  if (!o.psf.empty())
    add_map("psf", "PSF", {o.psf.nx, o.psf.ny, grid.pixel_scale / o.psf.supersampling, 0, 0}, o.psf.values);
  if (o.psf.supersampling > 1) text += line("psf_supersampling", std::to_string(o.psf.supersampling));
  double largest = 0;
  for (std::size_t i = 0; i < o.noise.size(); ++i)
    if (o.mask.empty() || o.mask[i]) largest = std::max(largest, o.noise[i]);
  if (o.noise.empty()) largest = 0;
  const double typical = o.noise.empty() ? 1 : typical_noise(o.noise, o.mask, ObservationConfig().max_noise);
  // No used pixel of the other package is to be masked: rounding must not decide.
  if (largest > ObservationConfig().max_noise * typical) text += line("max_noise", toml_number(2 * largest / typical));
  return text + line("pixel_scale", toml_number(grid.pixel_scale)) + line("center_x", toml_number(grid.center_x)) +
         line("center_y", toml_number(grid.center_y)) + line("supersampling", std::to_string(o.grid.supersampling));
}

}  // namespace

void prepare_directory(const std::string& dir, const std::vector<std::string>& files, bool overwrite) {
  EINFIELD_REQUIRE(!fs::exists(dir) || fs::is_directory(dir),
                   "--out: " + dir + " is a file, expected the name of a directory");
  for (const std::string& file : files)
    EINFIELD_REQUIRE(overwrite || !fs::exists(in(dir, file)),
                     "--out: " + in(dir, file) + " exists, expected a new directory or --overwrite");
  create_directory(dir);
}

std::string write_configuration(const std::string& dir, const ExchangedLens& lens, const std::string& title,
                                bool overwrite) {
  std::vector<FitsOutput> maps;
  std::string text = line("title", toml_text(title)) + observation_text(lens, maps);
  for (const LensComponent& c : lens.model.lens) text += lens_text(c);
  const auto add_lights = [&](const std::string& block, const std::vector<LightComponent>& lights,
                              const std::string& hdus) {
    for (std::size_t i = 0; i < lights.size(); ++i) {
      const std::string hdu = hdus + std::to_string(i);
      text += light_text(block, lights[i], hdu);
      if (lights[i].kind == LightKind::pixelated)
        maps.push_back(map_hdu(hdu, lights[i].grid, lights[i].pixels, lens.unit));
    }
  };
  add_lights("source", lens.model.source, "SOURCE_");
  add_lights("lens_light", lens.model.lens_light, "LENS_LIGHT_");
  if (!lens.networks.empty()) text += "\n[network]\n" + line("initial", toml_text(kNetwork));
  if (const std::optional<Cosmology>& c = lens.cosmology)
    text += "\n[cosmology]\n" + line("z_lens", toml_number(c->z_lens)) + line("z_source", toml_number(c->z_source)) +
            line("H0", toml_number(c->H0)) + line("Om0", toml_number(c->Om0));
  if (lens.observation.image.empty())
    text += "\n[simulate]\n" + line("nx", std::to_string(lens.observation.grid.nx)) +
            line("ny", std::to_string(lens.observation.grid.ny)) + line("noise", toml_number(lens.noise));

  prepare_directory(dir, {kConfiguration, kMaps, kNetwork, kLightNetwork}, overwrite);
  if (!maps.empty()) write_fits(in(dir, kMaps), maps);
  if (!lens.networks.empty())
    write_network(in(dir, kNetwork), lens.networks.front().shape, lens.networks.front().parameters, true);
  if (!lens.network_lights.empty())
    write_network(in(dir, kLightNetwork), lens.network_lights.front().network, lens.network_lights.front().weights,
                  true);
  write_atomically(in(dir, kConfiguration), text);
  return in(dir, kConfiguration);
}

}  // namespace einfield
