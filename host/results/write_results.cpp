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
  if (const NoiseCorrelation& k = observation.noise_correlation; !k.empty())
    maps.add_on({k.nx, k.ny, scale, 0, 0}, "NOISE_CORRELATION", "", k.values);
  maps.add("MODEL", unit, model);
  std::vector<double> residual(model.size(), std::nan(""));
  for (std::size_t i = 0; i < residual.size(); ++i)
    if (observation.mask[i]) residual[i] = (observation.image[i] - model[i]) / observation.noise[i];
  maps.add("RESIDUAL", "", std::move(residual));
}

/// What the lens light leaves of the data and of the model.
void add_arcs(FitsMaps& maps, const Assessment& fit, const std::string& unit) {
  std::vector<double> arcs = fit.loaded.problem.observation.image, model = fit.image;
  for (std::size_t i = 0; i < arcs.size(); ++i) {
    arcs[i] -= fit.lens_light[i];
    model[i] -= fit.lens_light[i];
  }
  maps.add("LENS_LIGHT", unit, fit.lens_light);
  maps.add("ARCS", unit, std::move(arcs));
  maps.add("ARCS_MODEL", unit, std::move(model));
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

/// The members of randomized error bars, one after the other along the first axis of every tensor.
void write_members(const Staging& staging, const Assessment& fit) {
  if (!fit.error_bars || fit.error_bars->parameters.empty()) return;
  const std::vector<std::vector<double>>& members = fit.error_bars->parameters;
  const ParameterLayout& layout = fit.layout;
  std::vector<TensorData> tensors;
  const auto add = [&](const std::string& name, std::vector<std::size_t> shape, const auto& values_of) {
    std::vector<double> all;
    for (const std::vector<double>& member : members) {
      const std::vector<double> values = values_of(member);
      all.insert(all.end(), values.begin(), values.end());
    }
    shape.insert(shape.begin(), members.size());
    if (fit.double_precision) {
      tensors.push_back(TensorData::of(name, std::move(shape), all.data(), all.size()));
    } else {
      const std::vector<float> single(all.begin(), all.end());
      tensors.push_back(TensorData::of(name, std::move(shape), single.data(), single.size()));
    }
  };
  const auto part = [](std::size_t begin, std::size_t count) {
    return [begin, count](const std::vector<double>& member) {
      const auto first = member.begin() + static_cast<std::ptrdiff_t>(begin);
      return std::vector<double>(first, first + static_cast<std::ptrdiff_t>(count));
    };
  };
  const auto size = [](int n) { return static_cast<std::size_t>(n); };
  std::map<std::string, std::string> metadata = {{"members", std::to_string(members.size())}};
  if (const std::optional<NetworkShape>& network = fit.model.network) {
    metadata["activation"] = "swish";
    metadata["input_scale"] = to_text(network->input_scale);
    if (network->fourier_features > 0) metadata["encoding"] = "fourier";
    for (int l = 0; l < network->layers(); ++l) {
      const std::string name = "layers." + std::to_string(l);
      const std::size_t in = size(network->inputs(l)), out = size(network->outputs(l));
      add(name + ".kernel", {in, out}, part(network->kernel_offset(l), in * out));
      add(name + ".bias", {out}, part(network->bias_offset(l), out));
    }
  }
  for (std::size_t i = 0; i < layout.n_free(); ++i)
    add(layout.names[i], {}, [&](const std::vector<double>& member) {
      return std::vector<double>{layout.physical(member.data() + layout.n_network)[i]};
    });
  std::size_t offset = layout.n_network + layout.n_free();
  const auto add_pixels = [&](const std::string& block, const std::vector<LightComponent>& lights) {
    for (std::size_t i = 0; i < lights.size(); ++i) {
      const LightComponent& light = lights[i];
      if (!light.pixels_free) continue;
      add(block + "." + std::to_string(i) + ".pixels", {size(light.grid.ny), size(light.grid.nx)},
          part(offset, light.pixels.size()));
      offset += light.pixels.size();
    }
  };
  add_pixels("source", fit.model.source);
  add_pixels("lens_light", fit.model.lens_light);
  write_atomically(staging.file(kMembersFile), to_safetensors(metadata, tensors));
}

}  // namespace

FitsMaps result_maps(const Assessment& fit) {
  const LoadedProblem& loaded = fit.loaded;
  const Observation& observation = loaded.problem.observation;
  FitsMaps maps(observation.grid, fit.double_precision, loaded.wcs);
  add_observation(maps, observation, loaded.unit, fit.image);
  add_arcs(maps, fit, loaded.unit);
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
  write_members(staging, fit);
  for (const ExtraWriter& extra : extra_writers) extra.write(staging.path());
  write_atomically(staging.file("result.json"), json);
  put_in_place(staging, dir, [&extra_writers](const std::string& name) {
    return std::any_of(extra_writers.begin(), extra_writers.end(),
                       [&name](const ExtraWriter& extra) { return extra.owns(name); });
  });
  return json;
}

}  // namespace einfield
