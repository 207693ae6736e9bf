// Formats an assessed fit, and puts its files into the directory when all of them are complete.
#include "host/results/write_results.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

#include "host/files/atomic_file.hpp"
#include "host/files/safetensors.hpp"
#include "host/files/text.hpp"
#include "host/results/result_json.hpp"

namespace einfield {
namespace {

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

void add_source(FitsMaps& maps, const Assessment& fit, const std::string& unit) {
  const Model& model = fit.model;
  const bool own_grid = fit.source.empty();
  if (own_grid)
    maps.add_on(model.source[0].grid, "SOURCE", unit, model.source[0].pixels);
  else
    maps.add_on(fit.source_grid, "SOURCE", unit, fit.source);
  const auto add_pixels = [&](const std::string& block, const std::vector<LightComponent>& lights) {
    for (std::size_t i = 0; i < lights.size(); ++i)
      if (lights[i].kind == LightKind::pixelated)
        maps.add_on(lights[i].grid, block + std::to_string(i), unit, lights[i].pixels);
  };
  if (!own_grid) add_pixels("SOURCE_", model.source);
  add_pixels("LENS_LIGHT_", model.lens_light);
}

void add_error_bars(FitsMaps& maps, const Assessment& fit) {
  const FieldErrors& errors = *fit.error_bars->fields;
  maps.add_fields("NN_STD", errors.sigma);
  std::vector<double> ratio = fit.network.mean.convergence;
  for (std::size_t i = 0; i < ratio.size(); ++i) ratio[i] /= errors.sigma.convergence[i];
  maps.add("KAPPA_NN_SNR", "", std::move(ratio));
  if (errors.kappa_psf.empty()) return;
  maps.add("KAPPA_NN_PSF", "", fit.kappa_psf);
  maps.add("KAPPA_NN_PSF_STD", "", errors.kappa_psf);
}

void write_networks(const Staging& staging, const Assessment& fit) {
  const Model& model = fit.model;
  const bool lensed = network_light_index(model) < static_cast<int>(model.lens.size() + model.source.size());
  for (std::size_t k = 0; k < fit.members(); ++k) {
    const auto write = [&](const char* name, const NetworkShape& shape, const std::vector<double>& numbers) {
      write_network(staging.file(network_file(k, name)), shape, numbers, fit.double_precision);
    };
    if (model.network) write(kPotentialNetwork, *model.network, fit.weights[k]);
    if (const LightComponent* const own = network_light(fit.models[k]))
      write(lensed ? kSourceNetwork : kLensLightNetwork, own->network, own->weights);
  }
}

}  // namespace

FitsMaps result_maps(const Assessment& fit) {
  const LoadedProblem& loaded = fit.loaded;
  const Observation& observation = loaded.problem.observation;
  FitsMaps maps(observation.grid, fit.double_precision, loaded.wcs);
  add_observation(maps, observation, loaded.unit, fit.image);
  add_source(maps, fit, loaded.unit);
  maps.add_fields("NN", fit.network.mean);
  if (fit.error_bars && fit.error_bars->fields) add_error_bars(maps, fit);
  maps.add("SENSITIVITY", "arcsec-1", fit.sensitivity);
  maps.add_fields("MACRO", fit.smooth);
  if (loaded.truth) {
    const Truth& truth = *loaded.truth;
    maps.add_fields("TRUE", {truth.potential, truth.deflection, truth.convergence});
    if (!truth.image.empty()) maps.add("IMAGE_TRUE", loaded.unit, truth.image);
  }
  return maps;
}

std::string write_results(const std::string& dir, const Assessment& fit, const RunInfo& info,
                          const std::vector<ExtraWriter>& extra_writers) {
  const std::string json = result_json(fit, info);
  const Staging staging(dir);
  write_fits(staging.file("result.fits"), result_maps(fit).hdus());
  write_atomically(staging.file("history.csv"), history_csv(fit.history, fit.layout.names));
  write_networks(staging, fit);
  for (const ExtraWriter& extra : extra_writers) extra.write(staging.path());
  write_atomically(staging.file("result.json"), json);
  put_in_place(staging, dir, [&extra_writers](const std::string& name) {
    return std::any_of(extra_writers.begin(), extra_writers.end(),
                       [&name](const ExtraWriter& extra) { return extra.owns(name); });
  });
  return json;
}

}  // namespace einfield
