// Maps, numbers and weights of a finished fit, and how they take their place in the directory of results.
#include "host/results/write_results.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <iterator>
#include <nlohmann/json.hpp>
#include <numeric>
#include <sstream>
#include <utility>

#include "einfield/error.hpp"
#include "einfield/render.hpp"
#include "host/cpu/convolve.hpp"
#include "host/exchange/coolest.hpp"
#include "host/fields/ensemble.hpp"
#include "host/fields/lens_fields.hpp"
#include "host/fields/metrics.hpp"
#include "host/files/atomic_file.hpp"
#include "host/files/safetensors.hpp"
#include "host/files/text.hpp"
#include "host/files/toml.hpp"
#include "host/fit/uncertainties.hpp"
#include "host/results/fits_maps.hpp"
#include "host/results/stored_result.hpp"

namespace einfield {
namespace {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

constexpr const char* kStaging = ".results";
/// What write_results makes, the mark of completeness last.
constexpr const char* kFiles[] = {"result.fits",
                                  "history.csv",
                                  "network.safetensors",
                                  "source_network.safetensors",
                                  "lens_light_network.safetensors",
                                  "coolest.json",
                                  "result.json"};
/// What network_file() is called with: of the potential, of a NETWORK component.
constexpr const char* kNetworks[] = {"network", "source_network", "lens_light_network"};
/// What others make of the results afterwards: out of date with new ones.
constexpr const char* kDerived[] = {"report.html", "lenstronomy.json", "lenstronomy.fits", "evaluate.fits"};

/// Pixels a side of the rendered source plane.
constexpr int kSourceSide = 200;
/// Share of the lensed light that the source plane's grid is drawn around.
constexpr double kSourceLight = 0.95;

/// Brightness of the source at positions of its plane, the mean over the members of an ensemble.
template <class Real>
std::vector<double> source_brightness(const std::vector<Model>& members, const std::vector<double>& positions,
                                      ThreadPool& pool) {
  std::vector<std::vector<double>> values;
  for (const Model& member : members) values.push_back(brightness<Real>(member.source, positions, pool));
  return mean_of(values);
}

/// β = θ − α_macro − α_nn, 2 × n like θ.
std::vector<double> source_positions(const std::vector<double>& theta, const LensFields& smooth,
                                     const LensFields& network) {
  std::vector<double> beta(theta.size());
  for (std::size_t i = 0; i < beta.size(); ++i) beta[i] = theta[i] - smooth.deflection[i] - network.deflection[i];
  return beta;
}

/// A square around the source-plane positions of those used pixels that hold kSourceLight of the lensed light, a tenth
/// wider on each side.
/// @param positions  β of the pixel centres
template <class Real>
PixelGrid source_grid(const std::vector<Model>& members, const Observation& observation,
                      const std::vector<double>& positions, ThreadPool& pool) {
  const std::size_t n = positions.size() / 2;
  const std::vector<double> values = source_brightness<Real>(members, positions, pool);
  std::vector<Vec2<double>> beta;
  std::vector<double> light;
  for (std::size_t i = 0; i < n; ++i) {
    const Vec2<double> position{positions[i], positions[n + i]};
    if (!observation.mask[i] || !std::isfinite(position.x + position.y + values[i])) continue;
    beta.push_back(position);
    light.push_back(std::abs(values[i]));
  }
  std::vector<std::size_t> order(beta.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&light](std::size_t a, std::size_t b) { return light[a] > light[b]; });
  const double wanted = kSourceLight * std::accumulate(light.begin(), light.end(), 0.0);

  const double scale = observation.grid.pixel_scale;
  double low_x = kInfinity, high_x = -kInfinity, low_y = kInfinity, high_y = -kInfinity, sum = 0;
  for (const std::size_t i : order) {
    low_x = std::min(low_x, beta[i].x);
    high_x = std::max(high_x, beta[i].x);
    low_y = std::min(low_y, beta[i].y);
    high_y = std::max(high_y, beta[i].y);
    sum += light[i];
    if (sum >= wanted) break;
  }
  if (order.empty()) return {kSourceSide, kSourceSide, scale, 0, 0};
  // A source smaller than a pixel still gets a pixel's width around it.
  const double side = 1.2 * std::max({high_x - low_x, high_y - low_y, scale});
  return {kSourceSide, kSourceSide, side / kSourceSide, (low_x + high_x) / 2, (low_y + high_y) / 2};
}

/// Where the data constrain the network: by how many σ a pixel changes per arcsec of a deflection that is common to it
/// and the reach of the PSF, ∂m/∂α = −P ∗ ∇S(β):
///
///     s = |P ∗ ∇S(β)| / σ
///
/// The convergence follows from differences of α: between pixels of small s it is what the priors make of it.
/// ∇S is that at the pixel centre; a PSF on sub-pixels finds it in all sub-pixels of the pixel.
/// @param positions  β of the pixel centres
/// @return           (ny, nx) [1/arcsec]; 0 at pixels that are not used
template <class Real>
std::vector<double> sensitivity(const std::vector<Model>& members, const Observation& observation,
                                const std::vector<double>& positions, ThreadPool& pool) {
  const Grid& grid = observation.grid;
  const int f = observation.psf.supersampling, width = grid.nx * f, height = grid.ny * f;
  const std::size_t n = positions.size() / 2;
  std::vector<std::vector<double>> gradients;
  for (const Model& member : members) gradients.push_back(brightness_gradient<Real>(member.source, positions, pool));
  const std::vector<double> gradient = mean_of(gradients);
  Convolution<double> psf(width, height, observation.psf);
  const auto fine_size = static_cast<std::size_t>(width) * static_cast<std::size_t>(height);
  std::vector<double> fine(fine_size), convolved(fine_size), blurred(2 * n), result(n, 0.0);
  for (const std::size_t first : {std::size_t{0}, n}) {
    for (int y = 0, i = 0; y < height; ++y)
      for (int x = 0; x < width; ++x, ++i)
        fine[static_cast<std::size_t>(i)] = gradient[first + static_cast<std::size_t>(y / f * grid.nx + x / f)];
    psf.apply(fine.data(), convolved.data());
    mean_of_subpixels(convolved.data(), grid.nx, grid.ny, f, blurred.data() + first);
  }
  for (std::size_t i = 0; i < n; ++i)
    if (observation.mask[i]) result[i] = std::hypot(blurred[i], blurred[n + i]) / observation.noise[i];
  return result;
}

/// What each pixel counts for the constant that is taken off the potentials of an ensemble: where the data say much,
/// the members agree but for that constant, and their scatter elsewhere is not laid upon the arcs. With a source
/// without any gradient all used pixels count.
std::vector<double> weights_of_constant(const std::vector<double>& sensitivity, const Observation& observation) {
  std::vector<double> weights;
  for (const double s : sensitivity) weights.push_back(s * s);
  const double sum = std::accumulate(weights.begin(), weights.end(), 0.0);
  if (sum > 0 && std::isfinite(sum)) return weights;
  return {observation.mask.begin(), observation.mask.end()};
}

void add_observation(FitsMaps& maps, const Observation& observation, const std::string& unit,
                     const std::vector<double>& model) {
  const Psf& psf = observation.psf;
  maps.add("DATA", unit, observation.image);
  maps.add("NOISE", unit, observation.noise);
  maps.add_bytes("MASK", std::vector<double>(observation.mask.begin(), observation.mask.end()));
  const double scale = observation.grid.pixel_scale;
  if (psf.empty())
    maps.add_on({1, 1, scale, 0, 0}, "PSF", "", {1});
  else
    maps.add_on({psf.nx, psf.ny, scale / psf.supersampling, 0, 0}, "PSF", "", psf.values);
  maps.add("MODEL", unit, model);
  std::vector<double> residual(model.size(), std::nan(""));
  for (std::size_t i = 0; i < residual.size(); ++i)
    if (observation.mask[i]) residual[i] = (observation.image[i] - model[i]) / observation.noise[i];
  maps.add("RESIDUAL", "", std::move(residual));
}

/// @param model  the mean of `members`
template <class Real>
void add_source(FitsMaps& maps, const Model& model, const std::vector<Model>& members, const std::string& unit,
                const PixelGrid& rendered, ThreadPool& pool) {
  const bool own_grid = model.source.size() == 1 && model.source[0].kind == LightKind::pixelated;
  if (own_grid) {
    maps.add_on(model.source[0].grid, "SOURCE", unit, model.source[0].pixels);
  } else {
    const Grid grid{rendered.nx, rendered.ny, rendered.pixel_scale, rendered.center_x, rendered.center_y, 1};
    maps.add_on(rendered, "SOURCE", unit, source_brightness<Real>(members, pixel_centres(grid), pool));
  }
  const auto add_pixels = [&](const std::string& block, const std::vector<LightComponent>& lights) {
    for (std::size_t i = 0; i < lights.size(); ++i)
      if (lights[i].kind == LightKind::pixelated)
        maps.add_on(lights[i].grid, block + std::to_string(i), unit, lights[i].pixels);
  };
  if (!own_grid) add_pixels("SOURCE_", model.source);
  add_pixels("LENS_LIGHT_", model.lens_light);
}

/// Calls visit(name, profile, values) for every component: "lens.0", …
template <class Visit>
void for_each_component(const Model& model, Visit&& visit) {
  for (std::size_t i = 0; i < model.lens.size(); ++i)
    visit("lens." + std::to_string(i), lens_info(model.lens[i].kind), model.lens[i].values);
  for (std::size_t i = 0; i < model.source.size(); ++i)
    visit("source." + std::to_string(i), light_info(model.source[i].kind), model.source[i].values);
  for (std::size_t i = 0; i < model.lens_light.size(); ++i)
    visit("lens_light." + std::to_string(i), light_info(model.lens_light[i].kind), model.lens_light[i].values);
}

/// How well the model image describes all used pixels, those that were held out included.
struct DataFit {
  double loss, chi2_reduced;
};

DataFit data_fit(const Observation& observation, LossKind kind, const std::vector<double>& image) {
  double squares = 0, chi2 = 0;
  for (std::size_t i = 0; i < image.size(); ++i) {
    if (!observation.mask[i]) continue;
    const double residual = image[i] - observation.image[i];
    squares += residual * residual;
    chi2 += residual * residual / (observation.noise[i] * observation.noise[i]);
  }
  const double n = observation.n_used();
  return {(kind == LossKind::chi2 ? chi2 : squares) / n, chi2 / n};
}

ordered_json metrics_json(const DataFit& data, const std::optional<TruthErrors>& errors) {
  ordered_json metrics = {{"loss", data.loss}, {"chi2_reduced", data.chi2_reduced}};
  if (!errors) return metrics;
  metrics["image_rms_over_sigma"] = errors->image_rms_over_sigma;
  metrics["psi_relative_rms_all"] = errors->all.psi_relative_rms;
  metrics["psi_relative_rms_arc"] = errors->arc.psi_relative_rms;
  metrics["alpha_relative_rms_all"] = errors->all.alpha_relative_rms;
  metrics["alpha_relative_rms_arc"] = errors->arc.alpha_relative_rms;
  metrics["kappa_rms_all"] = errors->all.kappa_rms;
  metrics["kappa_rms_arc"] = errors->arc.kappa_rms;
  return metrics;
}

/// The configuration as the same tree in JSON.
ordered_json config_json(const std::string& toml_text) {
  std::ostringstream json;
  json << toml::json_formatter(toml::parse(toml_text));
  return ordered_json::parse(json.str());
}

std::string history_csv(const std::vector<HistoryRow>& history, const std::vector<std::string>& names) {
  // The last fixed column appears only with pixels that are held out.
  const bool held_out =
      std::any_of(history.begin(), history.end(), [](const HistoryRow& row) { return row.held_out_chi2 > 0; });
  std::string text = "step,time_s,loss,chi2_reduced,regularization,learning_rate,gradient_norm";
  if (held_out) text += ",held_out_chi2";
  const auto add = [&text](const std::string& field) {
    text += ',';
    text += field;
  };
  for (const std::string& name : names) add(name);
  text += '\n';
  for (const HistoryRow& row : history) {
    text += to_text(row.step);
    for (const double v :
         {row.time_s, row.loss, row.chi2_reduced, row.regularization, row.learning_rate, row.gradient_norm})
      add(to_text(v));
    if (held_out) add(to_text(row.held_out_chi2));
    for (const double v : row.free) add(to_text(v));
    text += '\n';
  }
  return text;
}

template <class... Arguments>
std::string format(const char* pattern, Arguments... arguments) {
  char buffer[256];
  std::snprintf(buffer, sizeof buffer, pattern, arguments...);
  return buffer;
}

std::string region_summary(const RegionErrors& errors) {
  return "psi " + percent(errors.psi_relative_rms) + ", alpha " + percent(errors.alpha_relative_rms) +
         format(", kappa %.2g (rms)", errors.kappa_rms);
}

/// @param members  of the ensemble, 1 without one; `result` is the first
template <class Real>
std::string summary(const FitResult<Real>& result, const DataFit& data, std::size_t members,
                    const std::optional<TruthErrors>& errors) {
  std::string text = members > 1 ? format("mean of %zu networks: ", members) : "";
  text += format("reduced chi2 %.5g after %lld steps in %.3g s", data.chi2_reduced,
                 static_cast<long long>(result.steps), result.time_s);
  if (result.steps > 0) text += format(" (%.3g ms a step)", 1e3 * result.time_s / static_cast<double>(result.steps));
  if (result.state_step != result.steps)
    text += format(", the best state: that of step %lld", static_cast<long long>(result.state_step));
  if (errors)
    text += format("; against the truth: image %.2g sigma; on the arcs ", errors->image_rms_over_sigma) +
            region_summary(errors->arc) + "; on all used pixels " + region_summary(errors->all);
  return text;
}

/// The model whose every number is the mean of the members'; weights have no mean, and stay the first one's.
Model mean_model(const std::vector<Model>& members) {
  Model mean = members.front();
  const auto average = [&](auto Model::*block) {
    for (std::size_t i = 0; i < (mean.*block).size(); ++i) {
      std::vector<std::vector<double>> values;
      for (const Model& member : members) values.push_back((member.*block)[i].values);
      (mean.*block)[i].values = mean_of(values);
    }
  };
  const auto average_pixels = [&](std::vector<LightComponent> Model::*block) {
    for (std::size_t i = 0; i < (mean.*block).size(); ++i) {
      std::vector<std::vector<double>> pixels;
      for (const Model& member : members) pixels.push_back((member.*block)[i].pixels);
      (mean.*block)[i].pixels = mean_of(pixels);
    }
  };
  average(&Model::lens);
  for (const auto block : {&Model::source, &Model::lens_light}) {
    average(block);
    average_pixels(block);
  }
  return mean;
}

/// What the members of an ensemble have found each, how far they scatter and, with truth, how far that can be trusted.
template <class Real>
ordered_json ensemble_json(const Config& config, const LoadedProblem& loaded,
                           const std::vector<FitResult<Real>>& results, const std::vector<std::string>& excluded,
                           const std::vector<std::vector<double>>& values, const ParameterLayout& layout,
                           const EnsembleFields& ensemble) {
  ordered_json json;
  for (std::size_t k = 0; k < results.size(); ++k) {
    const FitResult<Real>& r = results[k];
    ordered_json member = {{"seed", config.network->seed + k},
                           {"stop_reason", r.stop_reason},
                           {"steps", r.steps},
                           {"state_step", r.state_step},
                           {"loss", r.final_state.loss},
                           {"chi2_reduced", r.final_state.chi2_reduced}};
    if (!r.message.empty()) member["message"] = r.message;
    if (!excluded[k].empty()) member["left_out"] = excluded[k];
    json["members"].push_back(member);
  }
  if (values.size() < 2) return json;
  const std::vector<double> scatter = deviation_of(values);
  json["parameters_std"] = ordered_json::object();
  for (std::size_t i = 0; i < layout.n_free(); ++i)
    json["parameters_std"][layout.names[i]] = scatter[static_cast<std::size_t>(layout.free[i].slot)];
  if (!loaded.truth) return json;
  const Truth& truth = *loaded.truth;
  const Observation& observation = loaded.problem.observation;
  const std::vector<std::size_t> used = region(observation, nullptr);
  const auto add = [&](const std::string& where, const std::vector<std::size_t>& pixels) {
    const auto put = [&](const char* name, const std::vector<double>& mean, const std::vector<double>& deviation,
                         const std::vector<double>& expected) {
      const Coverage c = coverage(mean, deviation, expected, pixels);
      json["coverage"][std::string(name) + "_" + where] = {{"1_sigma", c.one}, {"2_sigma", c.two}};
    };
    if (!truth.potential.empty()) {
      std::vector<double> psi = truth.potential;
      const double offset = weighted_mean(psi, ensemble.weights);
      for (double& v : psi) v -= offset;
      put("psi", ensemble.mean.potential, ensemble.deviation.potential, psi);
    }
    if (!truth.deflection.empty())
      put("alpha_x", ensemble.mean.deflection, ensemble.deviation.deflection, truth.deflection);
    if (!truth.convergence.empty())
      put("kappa", ensemble.mean.convergence, ensemble.deviation.convergence, truth.convergence);
  };
  add("all", used);
  if (!truth.image.empty()) add("arc", region(observation, &truth.image));
  return json;
}

/// NaN has no place in JSON.
ordered_json number_or_null(double value) {
  return std::isfinite(value) ? ordered_json(value) : ordered_json(nullptr);
}

/// @param names  of the free scalars
ordered_json uncertainties_json(const Uncertainties& errors, const std::vector<std::string>& names) {
  ordered_json json = {
      {"method", "Gauss-Newton curvature, noise as given; network weights and source pixels held fixed"},
      {"sigma", ordered_json::object()},
      {"correlations", {{"names", names}, {"matrix", ordered_json::array()}}}};
  for (std::size_t i = 0; i < names.size(); ++i) {
    json["sigma"][names[i]] = number_or_null(errors.sigma[i]);
    ordered_json row = ordered_json::array();
    for (std::size_t j = 0; j < names.size(); ++j) row.push_back(number_or_null(errors.correlations(i, j)));
    json["correlations"]["matrix"].push_back(row);
  }
  return json;
}

void add_uncertainties(ExchangedLens& lens, const Uncertainties& errors, const std::vector<std::string>& names) {
  for (std::size_t i = 0; i < names.size(); ++i) {
    if (!std::isfinite(errors.sigma[i])) continue;
    lens.sigma[names[i]] = errors.sigma[i];
    for (std::size_t j = 0; j < names.size(); ++j)
      if (std::isfinite(errors.correlations(i, j)))
        lens.correlation[names[i] + " " + names[j]] = errors.correlations(i, j);
  }
}

ordered_json starts_json(const OptimizerConfig& optimizer, const std::vector<StartRecord>& starts,
                         const std::vector<std::string>& names) {
  int redrawn = 0;
  ordered_json runs = ordered_json::array();
  for (const StartRecord& start : starts) {
    redrawn += start.redrawn;
    ordered_json run = {{"chi2_reduced", number_or_null(start.chi2_reduced)},
                        {"value", number_or_null(start.value)},
                        {"steps", start.steps},
                        {"given_up_early", start.alive && !start.finished},
                        {"dead", !start.alive},
                        {"best", start.best},
                        {"parameters", ordered_json::object()}};
    for (std::size_t i = 0; i < names.size(); ++i) run["parameters"][names[i]] = number_or_null(start.free[i]);
    runs.push_back(run);
  }
  return {{"count", starts.size()},   {"seed", optimizer.starts_seed},        {"redrawn", redrawn},
          {"tolerance", kSameValley}, {"reached_best", reached_best(starts)}, {"runs", runs}};
}

/// What the other packages' formats are made of.
/// @param members  models of an ensemble, one without one; `model` is their mean
ExchangedLens exchanged(const Model& model, const std::vector<Model>& members,
                        const std::vector<std::vector<double>>& weights, const std::vector<double>& offsets,
                        const LoadedProblem& loaded, const PixelGrid& source_grid, int threads) {
  ExchangedLens lens;
  lens.threads = threads;
  lens.model = model;
  lens.observation = loaded.problem.observation;
  lens.unit = loaded.unit;
  lens.sky = loaded.wcs;
  lens.source_grid = source_grid;
  for (std::size_t k = 0; k < members.size(); ++k) {
    if (model.network) lens.networks.push_back({*model.network, weights[k]});
    if (const LightComponent* const light = network_light(members[k])) lens.network_lights.push_back(*light);
  }
  if (members.size() > 1) lens.offsets = offsets;
  return lens;
}

/// A hidden folder for results in the making; gone with the object.
class Staging {
 public:
  explicit Staging(const std::string& dir) : path_(in(dir, kStaging)) {
    std::error_code error;
    fs::remove_all(path_, error);  // of a run that was killed
    if (!fs::create_directory(path_, error) || error)
      throw IoError(path_ + ": cannot make the directory (" + error.message() + ")");
  }
  ~Staging() {
    std::error_code error;
    fs::remove_all(path_, error);
  }
  Staging(const Staging&) = delete;
  Staging& operator=(const Staging&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

void sync_directory(const std::string& dir) {
  const int descriptor = open(dir.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) return;  // the file system's business: the names are right, only their durability is unknown
  fsync(descriptor);
  close(descriptor);
}

void remove_file(const fs::path& file) {
  std::error_code error;
  fs::remove(file, error);
  if (error) throw IoError(file.string() + ": cannot remove the earlier file (" + error.message() + ")");
}

/// What there may be any number of: "network.3.safetensors", the maps of coolest.json.
bool is_one_of_many(const fs::path& file) {
  const std::string name = file.filename().string();
  if (is_coolest_map(name)) return true;
  return file.extension() == ".safetensors" &&
         std::any_of(std::begin(kNetworks), std::end(kNetworks), [&name](const std::string& network) {
           return name.rfind(network + ".", 0) == 0 && name != network_file(0, network);
         });
}

/// New results for old. Without result.json a directory has no results, so what is killed in between is not taken for
/// any.
void put_in_place(const std::string& staging, const std::string& dir) {
  remove_file(in(dir, "result.json"));
  sync_directory(dir);
  for (const char* name : kDerived) remove_file(in(dir, name));
  std::error_code error;
  std::vector<fs::path> figures;
  for (const auto& entry : fs::directory_iterator(in(dir, "figures"), error))
    if (entry.path().extension() == ".png") figures.push_back(entry.path());
  for (const fs::path& figure : figures) remove_file(figure);
  std::vector<fs::path> earlier, files;
  for (const auto& entry : fs::directory_iterator(dir, error))
    if (is_one_of_many(entry.path()) && !fs::exists(fs::path(staging) / entry.path().filename()))
      earlier.push_back(entry.path());
  for (const fs::path& file : earlier) remove_file(file);
  for (const auto& entry : fs::directory_iterator(staging, error))
    if (is_one_of_many(entry.path())) files.push_back(entry.path());
  for (const fs::path& file : files) {
    fs::rename(file, fs::path(dir) / file.filename(), error);
    if (error) throw IoError(file.filename().string() + ": cannot be put in place (" + error.message() + ")");
  }
  for (const char* name : kFiles) {
    if (!fs::exists(in(staging, name))) {
      remove_file(in(dir, name));
      continue;
    }
    fs::rename(in(staging, name), in(dir, name), error);
    if (error) throw IoError(in(dir, name) + ": cannot be put in place (" + error.message() + ")");
  }
  sync_directory(dir);
}

}  // namespace

std::string network_file(std::size_t member, const std::string& network) {
  return network + "." + (member == 0 ? "" : std::to_string(member) + ".") + "safetensors";
}

bool holds_results(const std::string& dir) {
  std::error_code error;
  for (const char* name : kFiles)
    if (fs::exists(in(dir, name), error)) return true;
  return fs::exists(in(dir, "checkpoint.safetensors"), error);
}

template <class Real>
std::vector<std::string> left_out(const Config& config, const std::vector<FitResult<Real>>& results) {
  const auto value = [](const FitResult<Real>& r) { return r.final_state.loss + r.final_state.regularization; };
  double lowest = kInfinity;
  for (const FitResult<Real>& r : results)
    if (r.stop_reason != "non-finite") lowest = std::min(lowest, value(r));
  const auto is_far = [&](const FitResult<Real>& r) { return value(r) > (1 + kFarAbove) * lowest; };
  const auto together = std::count_if(results.begin(), results.end(), [&](const FitResult<Real>& r) {
    return r.stop_reason != "non-finite" && !is_far(r);
  });
  const bool most = 2 * together > static_cast<std::ptrdiff_t>(results.size());
  std::vector<std::string> why(results.size());
  for (std::size_t k = 0; k < results.size() && together > 0; ++k) {
    const FitResult<Real>& r = results[k];
    if (r.stop_reason == "non-finite") {
      why[k] = r.message;
    } else if (most && is_far(r)) {
      why[k] = "the network of seed " + std::to_string(config.network->seed + k) + " ended far above the others";
      why[k] += format(": loss and regularisation %.5g, where the best have %.5g; it is left out", value(r), lowest);
    }
  }
  return why;
}

template <class Real>
std::string write_results(const std::string& dir, const Config& config, const LoadedProblem& loaded,
                          const std::vector<FitResult<Real>>& results,
                          const std::vector<std::vector<Real>>& model_images, const RunInfo& info, int threads) {
  constexpr bool kDouble = sizeof(Real) == 8;
  const Problem& problem = loaded.problem;
  const Observation& observation = problem.observation;
  const Grid& grid = observation.grid;
  const ParameterLayout layout(problem.model);
  ThreadPool pool(threads);
  const std::vector<double> theta = pixel_centres(grid);

  const std::vector<std::string> excluded = left_out(config, results);
  const bool all_wrong =
      std::all_of(results.begin(), results.end(), [](const auto& r) { return r.stop_reason == "non-finite"; });
  std::vector<std::vector<double>> parameters, weights, images, values;
  std::vector<Model> models;
  std::vector<LensFields> networks;
  for (std::size_t k = 0; k < results.size(); ++k) {
    if (!excluded[k].empty()) continue;
    parameters.emplace_back(results[k].parameters.begin(), results[k].parameters.end());
    images.emplace_back(model_images[k].begin(), model_images[k].end());
    weights.emplace_back(parameters.back().begin(),
                         parameters.back().begin() + static_cast<std::ptrdiff_t>(layout.n_network));
    models.push_back(with_parameters(problem.model, layout, parameters.back()));
    values.push_back(ParameterLayout(models.back()).table);
    networks.push_back(problem.model.network ? network_fields<Real>(*problem.model.network, weights.back(), theta, pool)
                                             : zero_fields(theta.size() / 2));
  }
  const std::size_t members = parameters.size();
  // What has gone wrong is told before all else; then the first one that counts.
  const std::size_t told =
      results.front().stop_reason == "non-finite"
          ? 0
          : static_cast<std::size_t>(std::find(excluded.begin(), excluded.end(), "") - excluded.begin());
  const FitResult<Real>& result = results[told];
  const std::vector<double> image = mean_of(images);
  const StepState& state = result.final_state;
  const DataFit data = results.size() == 1 && problem.held_out.empty() ? DataFit{state.loss, state.chi2_reduced}
                                                                       : data_fit(observation, problem.loss, image);
  const Model model = mean_model(models);
  const LensFields smooth = smooth_fields(model.lens, theta, pool);
  const std::vector<double> beta = source_positions(theta, smooth, mean_of(networks));
  const std::vector<double> constrained = sensitivity<Real>(models, observation, beta, pool);
  const EnsembleFields ensemble = ensemble_fields(networks, weights_of_constant(constrained, observation));
  const LensFields& network = ensemble.mean;

  FitsMaps maps(grid, kDouble, loaded.wcs);
  add_observation(maps, observation, loaded.unit, image);
  const PixelGrid source = source_grid<Real>(models, observation, beta, pool);
  add_source<Real>(maps, model, models, loaded.unit, source, pool);
  maps.add_fields("NN", network);
  if (members > 1) maps.add_fields("NN_STD", ensemble.deviation);
  maps.add("SENSITIVITY", "arcsec-1", constrained);
  maps.add_fields("MACRO", smooth);
  std::optional<TruthErrors> errors;
  if (loaded.truth) {
    const Truth& truth = *loaded.truth;
    errors = truth_errors(observation, truth, image, network);
    maps.add_fields("TRUE", {truth.potential, truth.deflection, truth.convergence});
    if (!truth.image.empty()) maps.add("IMAGE_TRUE", loaded.unit, truth.image);
  }

  const std::string toml_text = to_toml(config);
  ordered_json json = {
      {"version", std::to_string(EINFIELD_VERSION_MAJOR) + "." + std::to_string(EINFIELD_VERSION_MINOR) + "." +
                      std::to_string(EINFIELD_VERSION_PATCH)},
      {"backend", info.backend},
      {"device", info.device},
      {"precision", info.precision},
      {"seed", nullptr},
      {"stop_reason", result.stop_reason},
      {"steps", result.steps},
      {"state_step", result.state_step},
      {"evaluations", result.evaluations},
      {"time_total_s", result.time_s},
      {"time_per_step_ms", nullptr},
      {"metrics", metrics_json(data, errors)},
      {"profiles", ordered_json::object()},
      {"parameters", ordered_json::object()},
      {"free", layout.names},
      {"grid",
       {{"nx", grid.nx},
        {"ny", grid.ny},
        {"pixel_scale", grid.pixel_scale},
        {"center_x", grid.center_x},
        {"center_y", grid.center_y},
        {"supersampling", grid.supersampling}}},
      {"wcs", loaded.wcs ? wcs_json(*loaded.wcs) : ordered_json()},
      {"network", nullptr},
      {"light_network", nullptr},
      {"config", config_json(toml_text)},
      {"config_toml", toml_text}};
  if (!info.command.empty()) json["command"] = info.command;
  std::vector<std::string> warnings = config.warnings;
  warnings.insert(warnings.end(), loaded.warnings.begin(), loaded.warnings.end());
  for (std::size_t k = 0; k < results.size(); ++k)
    if (!excluded[k].empty() && results[k].message.empty()) warnings.push_back(excluded[k]);
  if (!warnings.empty()) json["warnings"] = warnings;
  if (config.network) json["seed"] = config.network->seed;
  const auto network_json = [&](const NetworkShape& shape) {
    ordered_json text = {{"hidden", shape.hidden},
                         {"activation", "swish"},
                         {"input_scale", shape.input_scale},
                         {"encoding", shape.fourier_features > 0 ? "fourier" : "none"},
                         {"members", members}};
    if (shape.fourier_features > 0) text["fourier_features"] = shape.fourier_features;
    return text;
  };
  const LightComponent* const light = network_light(model);
  if (model.network) json["network"] = network_json(*model.network);
  if (members > 1) json["network"]["potential_offsets"] = ensemble.offsets;
  if (light) json["light_network"] = network_json(light->network);
  if (!result.message.empty()) json["message"] = result.message;
  if (result.steps > 0) json["time_per_step_ms"] = 1e3 * result.time_s / static_cast<double>(result.steps);
  for_each_component(model,
                     [&json](const std::string& name, const ProfileInfo& profile, const std::vector<double>& numbers) {
                       json["profiles"][name] = profile.name;
                       for (std::size_t i = 0; i < numbers.size(); ++i)
                         json["parameters"][name + "." + profile.parameters[i].name] = numbers[i];
                     });
  if (results.size() > 1) json["ensemble"] = ensemble_json(config, loaded, results, excluded, values, layout, ensemble);

  ExchangedLens exchange = exchanged(model, models, weights, ensemble.offsets, loaded, source, threads);
  if (layout.n_free() > 0 && !all_wrong) {
    const Uncertainties uncertainties = scalar_uncertainties(problem, parameters.front(), pool);
    json["uncertainties"] = uncertainties_json(uncertainties, layout.names);
    add_uncertainties(exchange, uncertainties, layout.names);
  }
  if (!info.strengths.empty()) {
    ordered_json tried = ordered_json::array();
    for (const TriedStrength& one : info.strengths)
      tried.push_back({{"factor", one.factor},
                       {"held_out_chi2", one.held_out_chi2 < kInfinity ? ordered_json(one.held_out_chi2) : nullptr}});
    json["regularization_strength"] = {{"factor", best_strength(info.strengths)}, {"tried", tried}};
  }
  if (!result.snapshot.starts.empty())
    json["starts"] = starts_json(config.optimizer, result.snapshot.starts, layout.names);

  const Staging staging(dir);
  write_fits(in(staging.path(), "result.fits"), maps.hdus());
  write_atomically(in(staging.path(), "history.csv"), history_csv(result.snapshot.history, layout.names));
  const bool lensed = network_light_index(model) < static_cast<int>(model.lens.size() + model.source.size());
  for (std::size_t k = 0; k < members; ++k) {
    const auto write = [&](const std::string& name, const NetworkShape& shape, const std::vector<double>& numbers) {
      write_network((fs::path(staging.path()) / network_file(k, name)).string(), shape, numbers, kDouble);
    };
    if (model.network) write(kNetworks[0], *model.network, weights[k]);
    if (const LightComponent* const own = network_light(models[k]))
      write(kNetworks[lensed ? 1 : 2], own->network, own->weights);
  }
  write_coolest(staging.path(), exchange);
  write_atomically(in(staging.path(), "result.json"),
                   json.dump(2, ' ', false, ordered_json::error_handler_t::replace) + "\n");
  put_in_place(staging.path(), dir);
  return summary(result, data, members, errors);
}

template std::vector<std::string> left_out(const Config&, const std::vector<FitResult<float>>&);
template std::vector<std::string> left_out(const Config&, const std::vector<FitResult<double>>&);
template std::string write_results(const std::string&, const Config&, const LoadedProblem&,
                                   const std::vector<FitResult<float>>&, const std::vector<std::vector<float>>&,
                                   const RunInfo&, int);
template std::string write_results(const std::string&, const Config&, const LoadedProblem&,
                                   const std::vector<FitResult<double>>&, const std::vector<std::vector<double>>&,
                                   const RunInfo&, int);

}  // namespace einfield
