// From a directory of results to an exchanged lens, and from an exchanged lens to a configuration with its files.
#include "host/exchange/exchange.hpp"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <utility>

#include "einfield/error.hpp"
#include "host/fields/ensemble.hpp"
#include "host/files/atomic_file.hpp"
#include "host/files/fits_io.hpp"
#include "host/files/text.hpp"
#include "host/results/stored_result.hpp"

namespace einfield {
namespace {

namespace fs = std::filesystem;

constexpr const char* kConfiguration = "lens.toml";
constexpr const char* kMaps = "lens.fits";
constexpr const char* kSimulated = "simulated.fits";
constexpr const char* kNetwork = "network.safetensors";
constexpr const char* kLightNetwork = "light_network.safetensors";
/// Of pixels that are added to a map of noise, in units of its largest value: they weigh nothing.
constexpr double kPaddedNoise = 1e8;

// ---- a directory of results ------------------------------------------------------------------------------

/// What result.json and result.fits say of a fit.
class StoredFit {
 public:
  explicit StoredFit(const std::string& dir) : result_(dir), maps_(in(dir, "result.fits")) {}

  ExchangedLens lens() const {
    ExchangedLens lens;
    lens.model.lens = result_.lens();
    lens.model.source = lights("source", "SOURCE_");
    lens.model.lens_light = lights("lens_light", "LENS_LIGHT_");
    lens.networks = result_.networks();
    lens.offsets = result_.offsets();
    read_observation(lens);
    read_light_networks(lens);
    read_uncertainties(lens);
    return lens;
  }

 private:
  JsonView root() const { return result_.root(); }

  std::vector<LightComponent> lights(const std::string& block, const std::string& hdus) const {
    std::vector<LightComponent> lights = result_.lights(block);
    for (std::size_t i = 0; i < lights.size(); ++i) {
      if (lights[i].kind != LightKind::pixelated) continue;
      const std::string hdu = block == "source" && lights.size() == 1 ? "SOURCE" : hdus + std::to_string(i);
      FitsImage image = read_map(hdu);
      lights[i].grid = grid_of(image, hdu);
      lights[i].pixels = std::move(image.values);
    }
    return lights;
  }

  PixelGrid grid_of(const FitsImage& image, const std::string& hdu) const {
    EINFIELD_REQUIRE(image.linear, maps_ + "[" + hdu + "]: no WCS in arcsec, expected the one that a fit writes");
    return {image.nx, image.ny, image.linear->pixel_scale, image.linear->center_x, image.linear->center_y};
  }

  FitsImage read_map(const std::string& hdu) const { return read_fits(maps_, hdu); }

  void read_observation(ExchangedLens& lens) const {
    Observation& o = lens.observation;
    o.grid = result_.grid();
    lens.sky = result_.sky();
    FitsImage data = read_map("DATA");
    const auto same = [&](const FitsImage& image, const std::string& hdu) {
      EINFIELD_REQUIRE(image.nx == o.grid.nx && image.ny == o.grid.ny,
                       maps_ + "[" + hdu + "]: another shape than the grid of result.json");
    };
    same(data, "DATA");
    lens.unit = data.unit;
    o.image = std::move(data.values);
    FitsImage noise = read_map("NOISE"), mask = read_map("MASK"), psf = read_map("PSF");
    same(noise, "NOISE");
    same(mask, "MASK");
    o.noise = std::move(noise.values);
    for (const double v : mask.values) o.mask.push_back(v != 0);
    if (psf.nx > 1 || psf.ny > 1) o.psf = {psf.nx, psf.ny, std::move(psf.values)};
    const JsonView config = root().at("config").at("observation");
    if (config.has("psf_supersampling"))
      o.psf.supersampling = config.at("psf_supersampling").integer(1, kMaxSupersampling);
    lens.source_grid = grid_of(read_map("SOURCE"), "SOURCE");
  }

  void read_light_networks(ExchangedLens& lens) const {
    const auto is_network = [](const LightComponent& c) { return c.kind == LightKind::network; };
    for (std::vector<LightComponent>* lights : {&lens.model.source, &lens.model.lens_light}) {
      const auto found = std::find_if(lights->begin(), lights->end(), is_network);
      if (found == lights->end()) continue;
      const std::string block = lights == &lens.model.source ? "source" : "lens_light";
      for (StoredNetwork& stored : result_.light_networks(block)) {
        LightComponent member = *found;
        member.network = stored.shape;
        member.weights = std::move(stored.parameters);
        lens.network_lights.push_back(std::move(member));
      }
      found->network = lens.network_lights.front().network;
    }
  }

  void read_uncertainties(ExchangedLens& lens) const {
    if (!root().has("uncertainties")) return;
    const JsonView sigma = root().at("uncertainties").at("sigma"),
                   correlations = root().at("uncertainties").at("correlations");
    std::vector<std::string> names;
    for (std::size_t i = 0; i < correlations.at("names").size(kMaxFree); ++i)
      names.push_back(correlations.at("names").at(i).text());
    const JsonView matrix = correlations.at("matrix");
    if (matrix.size(kMaxFree) != names.size()) matrix.fail("expected a row per name");
    for (std::size_t i = 0; i < names.size(); ++i) {
      if (sigma.has(names[i])) lens.sigma[names[i]] = sigma.at(names[i]).number(at_least(0));
      if (matrix.at(i).size(kMaxFree) != names.size()) matrix.at(i).fail("expected a number per name");
      for (std::size_t j = 0; j < names.size(); ++j)
        if (!matrix.at(i).at(j).is_null()) lens.correlation[names[i] + " " + names[j]] = matrix.at(i).at(j).number();
    }
  }

  static constexpr std::size_t kMaxFree = 10'000;  ///< parameters with an uncertainty

  StoredResult result_;
  std::string maps_;
};

// ---- a configuration -------------------------------------------------------------------------------------

/// A number as TOML, without loss; a float keeps its point.
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
    text += line(p.name, whole ? std::to_string(static_cast<long long>(c.values[i])) : toml_number(c.values[i]));
    if (c.free[i]) free.emplace_back(p.name);
  }
  return text;
}

/// The tables `bounds` and `prior` of a component, of its free parameters.
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

}  // namespace

// ---- the lens --------------------------------------------------------------------------------------------

ExchangedLens read_exchanged(const std::string& dir) {
  return StoredFit(dir).lens();
}

LensFields exchanged_network(const ExchangedLens& lens, const std::vector<double>& theta) {
  if (lens.networks.empty()) return zero_fields(theta.size() / 2);
  ThreadPool pool(lens.threads);
  std::vector<LensFields> members;
  for (std::size_t k = 0; k < lens.networks.size(); ++k) {
    members.push_back(network_fields<double>(lens.networks[k].shape, lens.networks[k].parameters, theta, pool));
    if (!lens.offsets.empty())
      for (double& v : members.back().potential) v -= lens.offsets[k];
  }
  return mean_of(members);
}

PixelMap light_pixels(const ExchangedLens& lens, const LightComponent& component, bool lensed) {
  if (component.kind == LightKind::pixelated) return {component.grid, component.pixels};
  const Grid& image = lens.observation.grid;
  const PixelGrid grid =
      lensed ? lens.source_grid : PixelGrid{image.nx, image.ny, image.pixel_scale, image.center_x, image.center_y};
  const std::vector<double> positions =
      pixel_centres({grid.nx, grid.ny, grid.pixel_scale, grid.center_x, grid.center_y, 1});
  ThreadPool pool(lens.threads);
  std::vector<std::vector<double>> members;
  if (component.kind == LightKind::network)
    for (const LightComponent& member : lens.network_lights)
      members.push_back(brightness<double>({member}, positions, pool));
  else
    members.push_back(brightness<double>({component}, positions, pool));
  return {grid, mean_of(members)};
}

PixelMap squared(const PixelMap& map, double fill) {
  const PixelGrid& from = map.grid;
  const int side = std::max(from.nx, from.ny);
  const int left = (side - from.nx) / 2, below = (side - from.ny) / 2;
  const int odd_x = side - from.nx - 2 * left, odd_y = side - from.ny - 2 * below;
  PixelMap square{{side, side, from.pixel_scale, from.center_x + 0.5 * odd_x * from.pixel_scale,
                   from.center_y + 0.5 * odd_y * from.pixel_scale},
                  std::vector<double>(static_cast<std::size_t>(side) * static_cast<std::size_t>(side), fill)};
  for (int y = 0; y < from.ny; ++y)
    std::copy_n(map.values.begin() + static_cast<std::ptrdiff_t>(y) * from.nx, from.nx,
                square.values.begin() + static_cast<std::ptrdiff_t>(y + below) * side + left);
  return square;
}

ExchangedLens on_square_image(const ExchangedLens& lens) {
  ExchangedLens square = lens;
  Observation& o = square.observation;
  if (o.grid.nx == o.grid.ny) return square;
  const PixelGrid grid{o.grid.nx, o.grid.ny, o.grid.pixel_scale, o.grid.center_x, o.grid.center_y};
  double largest = 0;
  for (const double v : o.noise)
    if (std::isfinite(v)) largest = std::max(largest, v);
  const PixelMap mask = squared({grid, {o.mask.begin(), o.mask.end()}}, 0);
  o.mask.assign(mask.values.begin(), mask.values.end());
  o.image = squared({grid, std::move(o.image)}, 0).values;
  o.noise = squared({grid, std::move(o.noise)}, kPaddedNoise * largest).values;
  const Grid own = o.grid;
  o.grid.nx = o.grid.ny = mask.grid.nx;
  o.grid.center_x = mask.grid.center_x;
  o.grid.center_y = mask.grid.center_y;
  if (square.sky) square.sky = square.sky->on(own, o.grid);
  return square;
}

void prepare_directory(const std::string& dir, const std::vector<std::string>& files, bool overwrite) {
  for (const std::string& file : files)
    EINFIELD_REQUIRE(overwrite || !fs::exists(in(dir, file)),
                     "--out: " + in(dir, file) + " exists, expected a new directory or --overwrite");
  std::error_code error;
  fs::create_directories(dir, error);
  if (error) throw IoError(dir + ": cannot make the directory (" + error.message() + ")");
}

std::string write_configuration(const std::string& dir, const ExchangedLens& lens, const std::string& title,
                                bool overwrite) {
  const Observation& o = lens.observation;
  const PixelGrid grid{o.grid.nx, o.grid.ny, o.grid.pixel_scale, o.grid.center_x, o.grid.center_y};
  const bool has_image = !o.image.empty();
  std::vector<FitsOutput> maps;
  std::string text = line("title", toml_text(title)) + "\n[observation]\n";
  const auto add_map = [&](const std::string& key, const std::string& hdu, const PixelGrid& on,
                           const std::vector<double>& values, const std::string& unit = "") {
    maps.push_back(map_hdu(hdu, on, values, unit));
    if (key != "psf") maps.back().sky = lens.sky;
    text += line(key, toml_text(std::string(kMaps) + "[" + hdu + "]"));
  };
  if (has_image) {
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
  if (largest > ObservationConfig().max_noise) text += line("max_noise", toml_number(largest));
  text += line("pixel_scale", toml_number(grid.pixel_scale)) + line("center_x", toml_number(grid.center_x)) +
          line("center_y", toml_number(grid.center_y)) + line("supersampling", std::to_string(o.grid.supersampling));

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
  if (!has_image)
    text += "\n[simulate]\nnx = " + std::to_string(grid.nx) + "\nny = " + std::to_string(grid.ny) +
            "\nnoise = " + toml_number(lens.noise) + "\n";

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
