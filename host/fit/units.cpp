// Every number of a problem has a unit: a power of the angle times a power of the brightness.
#include "einfield/units.hpp"

#include <algorithm>
#include <cmath>
#include <string>

#include "einfield/error.hpp"
#include "host/model/parameter_slots.hpp"

namespace einfield {
namespace {

constexpr double kUnitsPerSide = 8;    ///< units of angle along the larger side of an image
constexpr double kNoisesPerUnit = 64;  ///< noise_unit() in a unit of brightness

/// Size of a unit of a parameter's table. @param name  ParameterInfo::unit
double size_of(const std::string& name, const Units& units) {
  if (name == "arcsec") return units.angle;
  if (name == "arcsec-1") return 1 / units.angle;
  if (name == "image unit") return units.brightness;
  if (name == "image unit arcsec^2") return units.brightness * units.angle * units.angle;
  EINFIELD_REQUIRE(name.empty() || name == "rad", "a parameter in " + name + ", expected a unit that has a size");
  return 1;
}

/// Sizes of the units of all parameters, by slot.
std::vector<double> sizes_of_slots(const Model& model, const Units& units) {
  std::vector<double> sizes;
  const auto add = [&](const ProfileInfo& info) {
    const std::size_t first = sizes.size();
    sizes.resize(first + kMaxProfileParameters, 1);
    for (std::size_t i = 0; i < info.parameters.size(); ++i) sizes[first + i] = size_of(info.parameters[i].unit, units);
  };
  for (const LensComponent& lens : model.lens) add(lens_info(lens.kind));
  for_each_light(model, [&](const LightComponent& light) { add(light_info(light.kind)); });
  return sizes;
}

/// p = factor · q + offset in other units: p/P = (factor · Q/P) (q/Q) + offset/P.
void change(Relation& relation, double own_size, double other_size) {
  relation.factor *= other_size / own_size;
  relation.offset /= own_size;
}

/// Changes the relations of a model. @param model  of which only the relations are still in the units of the data
void change_relations(Model& model, const Units& units) {
  const ParameterSlots slots(model);
  const std::vector<double> sizes = sizes_of_slots(model, units);
  std::size_t first = 0;
  const auto change_all = [&](auto& c) {
    const auto change_one = [&](Relation& relation, std::size_t i) {
      if (!relation.given()) return;
      const int other = slots.find(relation.of);
      EINFIELD_REQUIRE(other >= 0, "no such parameter, found \"" + relation.of + "\", expected one of the model");
      change(relation, sizes[first + i], sizes[static_cast<std::size_t>(other)]);
    };
    for (std::size_t i = 0; i < c.follows.size(); ++i) change_one(c.follows[i], i);
    for (std::size_t i = 0; i < c.priors.size(); ++i) change_one(c.priors[i].mean_of, i);
    first += kMaxProfileParameters;
  };
  for (LensComponent& c : model.lens) change_all(c);
  for_each_light(model, change_all);
}

template <class Component>
void change(Component& component, const ProfileInfo& info, const Units& units) {
  for (std::size_t i = 0; i < component.values.size(); ++i) {
    const double size = size_of(info.parameters[i].unit, units);
    component.values[i] /= size;
    if (component.priors.empty()) continue;
    ParameterPrior& prior = component.priors[i];
    for (double* v : {&prior.lower, &prior.upper, &prior.mean, &prior.sigma}) *v /= size;
  }
}

void change(PixelGrid& grid, double angle) {
  grid.pixel_scale /= angle;
  grid.center_x /= angle;
  grid.center_y /= angle;
}

void divide(std::vector<double>& values, double size) {
  for (double& v : values) v /= size;
}

/// Multiplies the penalties on source pixels.
void multiply(Regularization& weights, double factor) {
  weights.source_gradient *= factor;
  weights.source_curvature *= factor;
}

/// Divides a flat vector by the units, or multiplies it by them.
template <class Real>
std::vector<Real> changed(const Model& model, const ParameterLayout& layout, std::vector<Real> parameters,
                          const Units& units, bool multiply) {
  EINFIELD_REQUIRE(parameters.size() == layout.size(),
                   std::to_string(parameters.size()) + " parameters, expected " + std::to_string(layout.size()));
  const auto change = [multiply](Real& value, double size) {
    const auto v = static_cast<double>(value);
    value = static_cast<Real>(multiply ? v * size : v / size);
  };
  if (model.network)
    for (std::size_t i = model.network->kernel_offset(model.network->layers() - 1); i < layout.n_network; ++i)
      change(parameters[i], units.angle * units.angle);
  const std::vector<double> sizes = sizes_of_scalars(model, layout, units);
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    Real& u = parameters[layout.n_network + i];
    switch (layout.free[i].kind) {
      case TransformKind::identity:
        change(u, sizes[i]);
        break;
      case TransformKind::exponential:  // p − lower = e^u
        u = static_cast<Real>(static_cast<double>(u) + (multiply ? 1 : -1) * std::log(sizes[i]));
        break;
      case TransformKind::logistic:  // u is the place between the bounds
      case TransformKind::disk:      // e1 and e2 have no unit
        break;
    }
  }
  for (std::size_t i = 0; i < layout.free_pixels.size(); ++i)
    change(parameters[layout.n_network + layout.n_free() + i], units.brightness);
  return parameters;
}

}  // namespace

double field_unit(const Grid& grid) {
  return std::max(grid.nx, grid.ny) * grid.pixel_scale / kUnitsPerSide;
}

double noise_unit(const Observation& observation) {
  double smallest = kInfinity, sum = 0;
  for (std::size_t i = 0; i < observation.mask.size(); ++i)
    if (observation.mask[i]) smallest = std::min(smallest, observation.noise[i]);
  for (std::size_t i = 0; i < observation.mask.size(); ++i) {
    if (!observation.mask[i]) continue;
    const double relative = smallest / observation.noise[i];  // its square does not overflow
    sum += relative * relative;
  }
  return smallest / std::sqrt(sum / observation.n_used());
}

Units units_of(const Problem& problem) {
  if (problem.loss == LossKind::mse) return {};
  return {field_unit(problem.observation.grid), kNoisesPerUnit * noise_unit(problem.observation)};
}

std::vector<double> sizes_of_scalars(const Model& model, const ParameterLayout& layout, const Units& units) {
  const std::vector<double> all = sizes_of_slots(model, units);
  std::vector<double> sizes;
  for (const FreeParameter<double>& free : layout.free) sizes.push_back(all[static_cast<std::size_t>(free.slot)]);
  return sizes;
}

Regularization in_image_unit(Regularization relative, const Observation& observation, LossKind loss) {
  if (loss == LossKind::mse || !relative.on_source_pixels()) return relative;
  const double noise = noise_unit(observation);
  multiply(relative, 1 / (noise * noise));
  return relative;
}

Regularization relative_to_noise(Regularization weights, const Observation& observation, LossKind loss) {
  if (loss == LossKind::mse || !weights.on_source_pixels()) return weights;
  const double noise = noise_unit(observation);
  multiply(weights, noise * noise);
  return weights;
}

Problem in_units(const Problem& problem, const Units& units) {
  Problem own = problem;
  own.initial_parameters =
      parameters_in_units(problem.model, ParameterLayout(problem.model), problem.initial_parameters, units);
  Grid& grid = own.observation.grid;
  grid.pixel_scale /= units.angle;
  grid.center_x /= units.angle;
  grid.center_y /= units.angle;
  divide(own.observation.image, units.brightness);
  divide(own.observation.noise, units.brightness);
  if (own.model.network) own.model.network->input_scale *= units.angle;
  for (LensComponent& lens : own.model.lens) change(lens, lens_info(lens.kind), units);
  for_each_light(own.model, [&units](LightComponent& light) {
    change(light, light_info(light.kind), units);
    change(light.grid, units.angle);
    divide(light.pixels, units.brightness);
    light.network.input_scale *= units.angle;
  });
  change_relations(own.model, units);
  multiply(own.regularization, units.brightness * units.brightness);
  return own;
}

std::vector<Problem> in_units(std::vector<Problem> problems, const Units& units) {
  for (Problem& problem : problems) problem = in_units(problem, units);
  return problems;
}

template <class Real>
std::vector<Real> parameters_in_units(const Model& model, const ParameterLayout& layout,
                                      const std::vector<Real>& parameters, const Units& units) {
  return changed(model, layout, parameters, units, false);
}

template <class Real>
std::vector<Real> parameters_in_data_units(const Model& model, const ParameterLayout& layout,
                                           const std::vector<Real>& parameters, const Units& units) {
  return changed(model, layout, parameters, units, true);
}

template <class Real>
std::vector<FitResult<Real>> in_data_units(std::vector<FitResult<Real>> results, const Problem& problem,
                                           const Units& units) {
  const ParameterLayout layout(problem.model);
  const std::vector<double> sizes = sizes_of_scalars(problem.model, layout, units);
  const auto resize = [&sizes](std::vector<double>& free) {
    for (std::size_t i = 0; i < free.size(); ++i) free[i] *= sizes[i];
  };
  for (FitResult<Real>& result : results) {
    result.parameters = parameters_in_data_units(problem.model, layout, result.parameters, units);
    Snapshot<Real> kept;
    kept.history = std::move(result.snapshot.history);
    kept.starts = std::move(result.snapshot.starts);
    kept.evidence = result.snapshot.evidence;
    kept.grids = result.snapshot.grids;
    for (PixelGrid& grid : kept.grids) change(grid, 1 / units.angle);
    if (kept.evidence) {  // the data have another density in another unit
      const double density = -fitted_pixels(problem) * std::log(units.brightness);
      kept.evidence->constant += density;
      kept.evidence->log_evidence += density;
      if (kept.evidence->without_network) *kept.evidence->without_network += density;
      multiply(kept.evidence->weights, 1 / (units.brightness * units.brightness));
    }
    for (HistoryRow& row : kept.history) resize(row.free);
    for (StartRecord& start : kept.starts) resize(start.free);
    result.snapshot = std::move(kept);
  }
  return results;
}

template <class Real>
std::vector<Real> model_image(const Backend<Real>& backend, int system, const Units& units) {
  std::vector<Real> image = backend.download(Field::model, system);
  for (Real& v : image) v = static_cast<Real>(static_cast<double>(v) * units.brightness);
  return image;
}

template <class Real>
NetworkFields<Real> network_fields(Backend<Real>& backend, int system, const std::vector<Real>& theta,
                                   const Units& units) {
  std::vector<Real> own(theta);
  for (Real& v : own) v = static_cast<Real>(static_cast<double>(v) / units.angle);
  NetworkFields<Real> fields = backend.network_fields(system, own);
  for (Real& v : fields.potential) v = static_cast<Real>(static_cast<double>(v) * units.angle * units.angle);
  for (Real& v : fields.deflection) v = static_cast<Real>(static_cast<double>(v) * units.angle);
  return fields;
}

template std::vector<float> parameters_in_units(const Model&, const ParameterLayout&, const std::vector<float>&,
                                                const Units&);
template std::vector<double> parameters_in_units(const Model&, const ParameterLayout&, const std::vector<double>&,
                                                 const Units&);
template std::vector<float> parameters_in_data_units(const Model&, const ParameterLayout&, const std::vector<float>&,
                                                     const Units&);
template std::vector<double> parameters_in_data_units(const Model&, const ParameterLayout&, const std::vector<double>&,
                                                      const Units&);
template std::vector<FitResult<float>> in_data_units(std::vector<FitResult<float>>, const Problem&, const Units&);
template std::vector<FitResult<double>> in_data_units(std::vector<FitResult<double>>, const Problem&, const Units&);
template std::vector<float> model_image(const Backend<float>&, int, const Units&);
template std::vector<double> model_image(const Backend<double>&, int, const Units&);
template NetworkFields<float> network_fields(Backend<float>&, int, const std::vector<float>&, const Units&);
template NetworkFields<double> network_fields(Backend<double>&, int, const std::vector<double>&, const Units&);

}  // namespace einfield
