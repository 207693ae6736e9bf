// The same lens that read_exchanged() reads back from the results, without a detour over files.
#include "host/exchange/fitted_lens.hpp"

#include <cmath>

#include "host/exchange/coolest.hpp"

namespace einfield {
namespace {

void add_uncertainties(ExchangedLens& lens, const Uncertainties& errors, const std::vector<std::string>& names) {
  for (std::size_t i = 0; i < names.size(); ++i) {
    if (!std::isfinite(errors.sigma[i])) continue;
    lens.sigma[names[i]] = errors.sigma[i];
    for (std::size_t j = 0; j < names.size(); ++j)
      if (std::isfinite(errors.correlations(i, j)))
        lens.correlation[names[i] + " " + names[j]] = errors.correlations(i, j);
  }
}

}  // namespace

ExchangedLens fitted_lens(const Assessment& fit, int threads) {
  ExchangedLens lens;
  lens.threads = threads;
  lens.model = fit.model;
  lens.observation = fit.loaded.problem.observation;
  lens.unit = fit.loaded.unit;
  lens.sky = fit.loaded.wcs;
  lens.cosmology = fit.config.cosmology;
  lens.source_grid = fit.source_grid;
  for (std::size_t k = 0; k < fit.members(); ++k) {
    if (fit.model.network) lens.networks.push_back({*fit.model.network, fit.weights[k]});
    if (const LightComponent* const light = network_light(fit.models[k])) lens.network_lights.push_back(*light);
  }
  if (fit.members() > 1) lens.offsets = fit.network.offsets;
  if (fit.uncertainties) add_uncertainties(lens, *fit.uncertainties, fit.layout.names);
  return lens;
}

ExtraWriter coolest_writer(const Assessment& fit, int threads) {
  return {[&fit, threads](const std::string& dir) { write_coolest(dir, fitted_lens(fit, threads)); }, is_coolest_map};
}

}  // namespace einfield
