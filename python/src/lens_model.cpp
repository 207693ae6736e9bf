#include "python/src/lens_model.hpp"

#include <set>
#include <utility>

#include "einfield/error.hpp"
#include "einfield/lens.hpp"
#include "einfield/units.hpp"
#include "host/cpu/thread_pool.hpp"
#include "host/exchange/coolest.hpp"
#include "host/exchange/lens_toml.hpp"
#include "host/exchange/lenstronomy.hpp"
#include "host/files/fits_io.hpp"
#include "python/src/jacobian.hpp"

namespace einfield::python {
namespace {

LoadedProblem load(const Config& config, std::optional<Truth> truth) {
  LoadedProblem loaded = load_problem(config);
  if (!truth) return loaded;
  const auto n = static_cast<std::size_t>(loaded.problem.observation.grid.n_pixels());
  const auto check = [n](const char* name, const std::vector<double>& map, std::size_t planes) {
    EINFIELD_REQUIRE(map.empty() || map.size() == n * planes, std::string("truth: ") + name + " has " +
                                                                  std::to_string(map.size()) + " values, expected " +
                                                                  std::to_string(n * planes));
  };
  check("image", truth->image, 1);
  check("psi", truth->potential, 1);
  check("alpha", truth->deflection, 2);
  check("kappa", truth->convergence, 1);
  loaded.truth = std::move(truth);
  return loaded;
}

/// Calls f(reference, name) for every image of a configuration that is read before a fit. The name is its key, that of
/// [observation] without the block.
template <class F>
void for_each_image(Config& config, const F& f) {
  ObservationConfig& o = config.observation;
  f(o.image, "image");
  f(o.mask, "mask");
  f(o.noise.map, "noise");
  f(o.psf.kernel, "psf");
  const auto starts = [&f](std::vector<LightStart>& all, const std::string& block) {
    for (std::size_t i = 0; i < all.size(); ++i) f(all[i].image, block + "." + std::to_string(i) + ".image");
  };
  starts(config.source_start, "source");
  starts(config.lens_light_start, "lens_light");
}

}  // namespace

void use_arrays(Config& config, const Arrays& arrays) {
  std::set<std::string> used;
  const auto use = [&](FitsReference& reference, const std::string&) {
    const auto found = arrays.find(reference.path);
    if (reference.empty() || found == arrays.end()) return;
    reference.array = found->second;
    used.insert(found->first);
  };
  for_each_image(config, use);
  if (config.simulate)
    for (FitsReference* reference : {&config.simulate->psf.kernel, &config.simulate->noise_correlation})
      use(*reference, "");
  for (const auto& [name, array] : arrays)
    EINFIELD_REQUIRE(used.count(name) > 0, name + ": an array that no key asks for, expected a number or a text");
}

void take_images(Config& config) {
  for_each_image(config, [](FitsReference& reference, const std::string& name) {
    if (reference.empty() || reference.array) return;
    FitsImage image = read_fits(reference);
    reference = {name, "", {}, std::make_shared<const ImageArray>(ImageArray{image.nx, image.ny, image.values})};
  });
}

Config exchanged_config(const std::string& format, const std::string& file, const std::vector<std::string>& ignore,
                        const std::string& dir) {
  std::vector<std::string> warnings;
  const ExchangedLens lens =
      format == "coolest" ? read_coolest(file, warnings) : read_lenstronomy(file, warnings, ignore);
  Config config = read_config(write_configuration(dir, lens, "from " + format, true), {}, false);
  config.warnings.insert(config.warnings.begin(), warnings.begin(), warnings.end());
  take_images(config);
  return config;
}

LensModel::LensModel(Config config, std::optional<Truth> truth, int threads)
    : config_(std::move(config)),
      loaded_(load(config_, std::move(truth))),
      threads_(threads),
      posterior_(loaded_.problem, threads) {}

std::vector<LensModel::Block> LensModel::blocks() const {
  const ParameterLayout& layout = posterior_.layout();
  std::vector<Block> blocks;
  if (layout.n_network > 0) blocks.push_back({"network", 0, {layout.n_network}});
  std::size_t offset = layout.n_network + layout.n_free();
  const Model& model = loaded_.problem.model;
  const auto add_pixels = [&](const std::string& block, const std::vector<LightComponent>& lights) {
    for (std::size_t i = 0; i < lights.size(); ++i) {
      const LightComponent& light = lights[i];
      if (!light.pixels_free) continue;
      blocks.push_back({block + "." + std::to_string(i) + ".pixels",
                        offset,
                        {static_cast<std::size_t>(light.grid.ny), static_cast<std::size_t>(light.grid.nx)}});
      offset += light.pixels.size();
    }
  };
  add_pixels("source", model.source);
  add_pixels("lens_light", model.lens_light);
  const auto add_weights = [&](const std::string& block, const std::vector<LightComponent>& lights) {
    for (std::size_t i = 0; i < lights.size(); ++i)
      if (lights[i].weights_free)
        blocks.push_back({block + "." + std::to_string(i) + ".network", offset, {layout.n_light_weights}});
  };
  add_weights("source", model.source);
  add_weights("lens_light", model.lens_light);
  return blocks;
}

std::vector<double> LensModel::initial() const {
  // The start values themselves: a transform and its inverse would round them.
  std::vector<double> theta = loaded_.problem.initial_parameters;
  const ParameterLayout& layout = posterior_.layout();
  for (std::size_t i = 0; i < layout.n_free(); ++i)
    theta[layout.n_network + i] = layout.table[static_cast<std::size_t>(layout.free[i].slot)];
  return theta;
}

Model LensModel::model_at(const std::vector<double>& flat) const {
  return with_parameters(posterior_.problem().model, posterior_.layout(), flat);
}

StoredLens LensModel::lens_at(const std::vector<double>& flat) const {
  StoredLens lens;
  const Model model = model_at(flat);
  lens.smooth = model.lens;
  if (model.network)
    lens.networks.push_back(
        {*model.network, {flat.begin(), flat.begin() + static_cast<std::ptrdiff_t>(posterior_.layout().n_network)}});
  lens.double_precision = true;
  lens.grid = observation().grid;
  return lens;
}

LensModel::Shears LensModel::shears_at(const std::vector<double>& flat, const std::vector<double>& positions) const {
  const std::size_t n = positions.size() / 2;
  const StoredLens lens = lens_at(flat);
  Shears shears{std::vector<double>(2 * n, 0.0), std::vector<double>(2 * n, 0.0)};
  for (std::size_t i = 0; i < n; ++i)
    for (const LensComponent& c : lens.smooth) {
      const LensValues<double> values =
          lens_values(c.kind, c.values.data(), Vec2<double>{positions[i], positions[n + i]});
      shears.smooth[i] += values.gamma1;
      shears.smooth[n + i] += values.gamma2;
    }
  if (lens.networks.empty()) return shears;
  const double step = 1e-4 * field_unit(observation().grid);
  ThreadPool pool(threads_);
  const auto deflection = [&](double x, double y) {
    std::vector<double> moved = positions;
    for (std::size_t i = 0; i < n; ++i) {
      moved[i] += x;
      moved[n + i] += y;
    }
    return network_deflection(lens, moved, pool);
  };
  const std::vector<double> right = deflection(step, 0), left = deflection(-step, 0), up = deflection(0, step),
                            down = deflection(0, -step);
  for (std::size_t i = 0; i < n; ++i) {
    shears.network[i] = (right[i] - left[i] - up[n + i] + down[n + i]) / (4 * step);
    shears.network[n + i] = (right[n + i] - left[n + i] + up[i] - down[i]) / (4 * step);
  }
  return shears;
}

std::vector<double> LensModel::jacobian_at(const std::vector<double>& flat, Space space) const {
  ThreadPool pool(threads_);
  return residual_jacobian(posterior_.problem(), posterior_.layout(), flat, space, pool);
}

CriticalCurves LensModel::critical_curves_at(const std::vector<double>& flat) const {
  ThreadPool pool(threads_);
  return critical_curves_of(lens_at(flat), observation().mask, pool);
}

}  // namespace einfield::python
