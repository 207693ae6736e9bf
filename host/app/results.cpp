// The library's way to a directory of results and back: the same pieces that the commands use.
#include "einfield/results.hpp"

#include <algorithm>
#include <cmath>

#include "einfield/error.hpp"
#include "einfield/units.hpp"
#include "host/exchange/fitted_lens.hpp"
#include "host/files/atomic_file.hpp"
#include "host/files/fits_io.hpp"
#include "host/files/text.hpp"
#include "host/model/source_grids.hpp"
#include "host/report/figures.hpp"
#include "host/results/stored_result.hpp"
#include "host/results/write_results.hpp"

namespace einfield {
namespace {

NetworkConfig network_config(const NetworkShape& shape) {
  NetworkConfig config;
  config.hidden = shape.hidden;
  config.input_scale = shape.input_scale;
  config.fourier = shape.fourier_features > 0;
  if (config.fourier) config.fourier_features = shape.fourier_features;
  return config;
}

std::vector<LightStart> starts_of(const std::vector<LightComponent>& lights) {
  std::vector<LightStart> starts;
  for (const LightComponent& light : lights) {
    starts.emplace_back();
    if (light.kind == LightKind::network) starts.back().network = network_config(light.network);
  }
  return starts;
}

/// A number of result.json that may be absent or null.
double number_or_nan(const JsonView& object, const std::string& name) {
  return object.has(name) ? object.at(name).number() : std::numeric_limits<double>::quiet_NaN();
}

std::string text_or_empty(const JsonView& object, const std::string& name) {
  return object.has(name) ? object.at(name).text() : "";
}

std::int64_t count(const JsonView& number) {
  constexpr double kMost = 9e15;  // the whole numbers that a double holds
  return static_cast<std::int64_t>(number.number(between(0, kMost)));
}

template <class Component>
void add_parameters(Results& results, const JsonView& root, const std::string& block,
                    const std::vector<Component>& components, const ProfileInfo& (*info)(decltype(Component::kind))) {
  for (std::size_t i = 0; i < components.size(); ++i) {
    const ProfileInfo& profile = info(components[i].kind);
    for (std::size_t k = 0; k < profile.parameters.size(); ++k) {
      ResultParameter& p = results.parameters.emplace_back();
      p.name = block + "." + std::to_string(i) + "." + profile.parameters[k].name;
      p.unit = profile.parameters[k].unit;
      p.value = components[i].values[k];
      p.free = components[i].free[k];
      if (root.has("uncertainties")) p.sigma = number_or_nan(root.at("uncertainties").at("sigma"), p.name);
      if (root.has("ensemble") && root.at("ensemble").has("parameters_std"))
        p.deviation = number_or_nan(root.at("ensemble").at("parameters_std"), p.name);
    }
  }
}

ResultFields fields_of(LensFields fields) {
  return {std::move(fields.potential), std::move(fields.deflection), std::move(fields.convergence)};
}

std::string maps_file(const std::string& dir) {
  return in(dir, "result.fits");
}

void require_size(const char* what, std::size_t found, std::size_t expected) {
  EINFIELD_REQUIRE(found == expected, std::string("write_results: ") + what + " of " + std::to_string(found) +
                                          " values, expected " + std::to_string(expected));
}

/// Refuses arguments that do not belong together, before anything is computed or written.
template <class Real>
void require_consistent(const Config& config, const LoadedProblem& loaded, const std::vector<FitResult<Real>>& results,
                        const std::vector<std::vector<Real>>& model_images, const RunInfo& info) {
  const Problem& problem = loaded.problem;
  problem.observation.validate();
  const ParameterLayout layout(problem.model);
  const std::size_t n = problem.observation.image.size();
  EINFIELD_REQUIRE(!results.empty(), "write_results: no result, expected one per member");
  EINFIELD_REQUIRE(results.size() == model_images.size(), "write_results: " + std::to_string(model_images.size()) +
                                                              " model images for " + std::to_string(results.size()) +
                                                              " results, expected one for each");
  for (const FitResult<Real>& result : results) require_size("parameters", result.parameters.size(), layout.size());
  for (const std::vector<Real>& image : model_images) require_size("a model image", image.size(), n);
  const std::string precision = sizeof(Real) == sizeof(float) ? "single" : "double";
  EINFIELD_REQUIRE(info.precision == precision,
                   "write_results: precision \"" + info.precision + "\", expected \"" + precision + "\"");
  EINFIELD_REQUIRE(config.network.has_value() == problem.model.network.has_value() &&
                       config.model.lens.size() == problem.model.lens.size() &&
                       config.model.source.size() == problem.model.source.size() &&
                       config.model.lens_light.size() == problem.model.lens_light.size(),
                   "write_results: a configuration of another model, expected that of the problem (config_of)");
  if (!loaded.truth) return;
  const auto require_map = [](const char* what, const std::vector<double>& map, std::size_t size) {
    if (!map.empty()) require_size(what, map.size(), size);
  };
  require_map("truth.image", loaded.truth->image, n);
  require_map("truth.potential", loaded.truth->potential, n);
  require_map("truth.deflection", loaded.truth->deflection, 2 * n);
  require_map("truth.convergence", loaded.truth->convergence, n);
}

}  // namespace

Config config_of(const Problem& problem) {
  Config config;
  config.model = problem.model;
  config.source_start = starts_of(problem.model.source);
  config.lens_light_start = starts_of(problem.model.lens_light);
  if (problem.model.network) {
    config.network = network_config(*problem.model.network);
    config.network->math = problem.network_math;
  }
  const Grid& grid = problem.observation.grid;
  config.observation.pixel_scale = grid.pixel_scale;
  config.observation.center_x = grid.center_x;
  config.observation.center_y = grid.center_y;
  config.observation.supersampling = grid.supersampling;
  config.observation.psf_supersampling = problem.observation.psf.supersampling;
  config.optimizer.loss = problem.loss;
  static_cast<Regularization&>(config.regularization) =
      relative_to_noise(problem.regularization, problem.observation, problem.loss);
  return config;
}

template <class Real>
std::string write_results(const std::string& dir, const Config& config, const LoadedProblem& loaded,
                          const std::vector<FitResult<Real>>& results,
                          const std::vector<std::vector<Real>>& model_images, const RunInfo& info, int threads) {
  require_consistent(config, loaded, results, model_images, info);
  LoadedProblem placed = loaded;
  set_source_grids(placed.problem.model, results.front().snapshot.grids);
  ThreadPool pool(threads);
  ErrorBarsOf error_bars;
  if (config.uncertainty.method == UncertaintyKind::randomized) {
    EINFIELD_REQUIRE(
        config.optimizer.all_stages().back().name == OptimizerKind::gauss_newton,
        "write_results: uncertainty.method = \"randomized\" after another optimizer than gauss_newton, expected "
        "another method: its members are fits of their own, which einfield fit makes");
    error_bars = randomized_error_bars(placed.problem, config.uncertainty, pool);
  }
  const Assessment fit = assess(
      config, placed, results, model_images, pool,
      [&pool](const Problem& problem, const std::vector<double>& at) {
        return scalar_uncertainties(problem, at, pool);
      },
      {}, error_bars);
  create_directory(dir);
  write_results(dir, fit, info, {coolest_writer(fit, threads)});
  return summary(fit);
}

namespace {

/// Status and flags; results of earlier versions have none.
void read_verdict(const JsonView& root, Results& r) {
  if (!root.has("status")) return;
  const std::string name = root.at("status").text();
  for (const Named<FitStatus>& status : kFitStatuses)
    if (name == status.name) r.status = status.value;
  if (name != name_of(r.status))
    root.at("status").fail("not a status, found " + name + ", expected ok, suspect or failed");
  const JsonView flags = root.at("flags");
  for (std::size_t i = 0; i < flags.size(kMaxComponents); ++i) {
    const std::string& flag = r.flag_names.emplace_back(flags.at(i).at("name").text());
    for (const FlagInfo& info : kFlags)
      if (flag == info.name) r.flags.push_back({info.flag, flags.at(i).at("text").text()});
  }
}

}  // namespace

const ResultParameter& Results::parameter(const std::string& name) const {
  const auto found =
      std::find_if(parameters.begin(), parameters.end(), [&](const ResultParameter& p) { return p.name == name; });
  if (found != parameters.end()) return *found;
  std::vector<std::string> names;
  for (const ResultParameter& p : parameters) names.push_back(p.name);
  throw InvalidInput(dir + ": no parameter " + name + ", expected " + suggestion(name, names));
}

Results read_results(const std::string& dir) {
  const StoredResult stored(dir);
  const JsonView root = stored.root();
  ExchangedLens lens = read_exchanged(dir);
  Results r;
  r.dir = dir;
  r.version = root.at("version").text();
  r.title = text_or_empty(root.at("config"), "title");
  r.run = {root.at("backend").text(), root.at("device").text(), stored.double_precision() ? "double" : "single",
           text_or_empty(root, "command")};
  read_verdict(root, r);
  r.stop_reason = root.at("stop_reason").text();
  r.message = text_or_empty(root, "message");
  r.steps = count(root.at("steps"));
  r.state_step = count(root.at("state_step"));
  r.time_s = root.at("time_total_s").number(at_least(0));
  if (root.has("warnings"))
    for (std::size_t i = 0; i < root.at("warnings").size(kMaxComponents); ++i)
      r.warnings.push_back(root.at("warnings").at(i).text());
  for (const std::string& name : root.at("metrics").keys())
    if (root.at("metrics").has(name)) r.metrics[name] = root.at("metrics").at(name).number();
  r.grid = stored.grid();
  r.sky = stored.sky();

  r.model = std::move(lens.model);
  for (std::vector<LightComponent>* lights : {&r.model.source, &r.model.lens_light})
    for (LightComponent& light : *lights)
      if (light.kind == LightKind::network) light.weights = lens.network_lights.front().weights;
  if (!lens.networks.empty()) r.model.network = lens.networks.front().shape;
  for (StoredNetwork& network : lens.networks) r.networks.push_back({network.shape, std::move(network.parameters)});
  r.potential_offsets = std::move(lens.offsets);
  if (root.has("uncertainties")) root.at("uncertainties").at("sigma").keys();  // an object, or it would say nothing
  add_parameters(r, root, "lens", r.model.lens, lens_info);
  add_parameters(r, root, "source", r.model.source, light_info);
  add_parameters(r, root, "lens_light", r.model.lens_light, light_info);
  StoredHistory history = read_history(dir);
  for (std::size_t k = 0; k < history.names.size(); ++k) r.history[history.names[k]] = std::move(history.columns[k]);
  r.config = root.at("config_toml").text();
  return r;
}

bool has_result_map(const std::string& dir, const std::string& name) {
  return has_hdu(maps_file(dir), name);
}

ResultMap read_result_map(const std::string& dir, const std::string& name) {
  ResultMap map;
  map.planes = name.rfind("ALPHA_", 0) == 0 ? 2 : 1;
  FitsImage image = read_fits(maps_file(dir), name, map.planes);
  EINFIELD_REQUIRE(image.linear,
                   maps_file(dir) + "[" + name + "]: no linear WCS in arcsec, expected the results of a fit");
  map.nx = image.nx;
  map.ny = image.ny;
  map.values = std::move(image.values);
  map.unit = image.unit;
  map.pixel_scale = image.linear->pixel_scale;
  map.center_x = image.linear->center_x;
  map.center_y = image.linear->center_y;
  return map;
}

ResultLensFields evaluate(const Results& results, const std::vector<double>& theta, int threads) {
  EINFIELD_REQUIRE(theta.size() % 2 == 0,
                   "evaluate: " + std::to_string(theta.size()) + " coordinates, expected all x, then as many y");
  StoredLens lens;
  lens.smooth = results.model.lens;
  for (const ResultNetwork& network : results.networks) lens.networks.push_back({network.shape, network.weights});
  lens.offsets = results.potential_offsets;
  lens.double_precision = results.run.precision == "double";
  StoredFields fields = evaluate(lens, theta, threads);
  return {fields_of(std::move(fields.network)), fields_of(std::move(fields.smooth))};
}

template std::string write_results(const std::string&, const Config&, const LoadedProblem&,
                                   const std::vector<FitResult<float>>&, const std::vector<std::vector<float>>&,
                                   const RunInfo&, int);
template std::string write_results(const std::string&, const Config&, const LoadedProblem&,
                                   const std::vector<FitResult<double>>&, const std::vector<std::vector<double>>&,
                                   const RunInfo&, int);

}  // namespace einfield
