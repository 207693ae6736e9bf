// Reads a directory of results into an exchanged lens, and samples its components.
#include "host/exchange/exchange.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

#include "einfield/error.hpp"
#include "host/fields/ensemble.hpp"
#include "host/files/fits_io.hpp"
#include "host/files/text.hpp"
#include "host/results/result_files.hpp"
#include "host/results/stored_result.hpp"

namespace einfield {
namespace {

/// Noise of added pixels relative to the largest value of the map: they have no weight.
constexpr double kPaddedNoise = 1e8;

// ---- a directory of results ------------------------------------------------------------------------------

/// A fit as stored in result.json and result.fits.
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
    read_cosmology(lens);
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
    EINFIELD_REQUIRE(image.linear, maps_ + "[" + hdu + "]: no WCS in arcsec, expected the WCS that a fit writes");
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
                       maps_ + "[" + hdu + "]: its shape differs from the grid of result.json");
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

  void read_cosmology(ExchangedLens& lens) const {
    if (!root().at("config").has("cosmology")) return;
    const JsonView given = root().at("config").at("cosmology");
    lens.cosmology = {given.at("z_lens").number(above(0)), given.at("z_source").number(above(0)),
                      given.at("H0").number(above(0)), given.at("Om0").number(Bounds{0, 1, true, false})};
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

}  // namespace

// ---- the lens --------------------------------------------------------------------------------------------

ExchangedLens read_exchanged(const std::string& dir) {
  return StoredFit(dir).lens();
}

void write_networks(const std::string& dir, const ExchangedLens& lens) {
  for (std::size_t k = 0; k < lens.networks.size(); ++k)
    write_network(in(dir, network_file(k)), lens.networks[k].shape, lens.networks[k].parameters, true);
  const bool lensed =
      network_light_index(lens.model) < static_cast<int>(lens.model.lens.size() + lens.model.source.size());
  for (std::size_t k = 0; k < lens.network_lights.size(); ++k)
    write_network(in(dir, network_file(k, lensed ? kSourceNetwork : kLensLightNetwork)), lens.network_lights[k].network,
                  lens.network_lights[k].weights, true);
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
      pixel_centers({grid.nx, grid.ny, grid.pixel_scale, grid.center_x, grid.center_y, 1});
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

double& parameter(LightComponent& c, const char* name) {
  return c.values.at(static_cast<std::size_t>(light_info(c.kind).index_of(name)));
}

double root_of_axis_ratio(const LightComponent& c) {
  const ProfileInfo& info = light_info(c.kind);
  const double e = std::hypot(c.values.at(static_cast<std::size_t>(info.index_of("e1"))),
                              c.values.at(static_cast<std::size_t>(info.index_of("e2"))));
  return std::sqrt((1 - e) / (1 + e));
}

void note_padding(std::vector<std::string>& notes, const Grid& image, const std::string& package) {
  if (image.nx != image.ny)
    notes.push_back("the image of " + std::to_string(image.nx) + " x " + std::to_string(image.ny) +
                    " pixels is padded to a square and masked there: " + package + " needs square images");
}

void note_members(std::vector<std::string>& notes, const std::string& name, std::size_t members) {
  if (members > 1)
    notes.push_back(name + ": the mean of " + std::to_string(members) +
                    " networks is stored; reading the file back gives only the first network");
}

}  // namespace einfield
