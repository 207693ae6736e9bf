// Checks of a model: shapes, ranges, bounds and priors of its components.
#include "einfield/model.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "einfield/error.hpp"
#include "einfield/limits.hpp"
#include "host/model/parameter_slots.hpp"

namespace einfield {
namespace {

std::string number(double value) {
  return fmt::format("{:g}", value);
}

std::string unit_suffix(const char* unit) {
  return *unit ? std::string(" ") + unit : std::string();
}

/// Only free parameters have bounds or a prior; bounds lie within the range of the profile and enclose the value.
void validate_priors(const std::string& name, const ProfileInfo& info, const std::vector<double>& values,
                     const std::vector<std::uint8_t>& free, const std::vector<ParameterPrior>& priors) {
  EINFIELD_REQUIRE(priors.empty() || priors.size() == values.size(),
                   name + ": " + std::to_string(priors.size()) + " priors, expected " + std::to_string(values.size()));
  for (std::size_t i = 0; i < priors.size(); ++i) {
    const ParameterPrior& prior = priors[i];
    const ParameterInfo& p = info.parameters[i];
    if (!prior.bounded() && prior.sigma == 0) continue;
    const std::string where = name + "." + p.name;
    EINFIELD_REQUIRE(free[i], where + ": has bounds or a prior but is fixed, expected it to be free");
    EINFIELD_REQUIRE(std::isfinite(prior.mean) && std::isfinite(prior.sigma) && prior.sigma >= 0,
                     where + ": a prior with sigma = " + number(prior.sigma) + ", expected > 0");
    EINFIELD_REQUIRE(!prior.bounded() || (prior.lower >= p.lower && prior.upper <= p.upper),
                     where + ": bounds from " + number(prior.lower) + " to " + number(prior.upper) +
                         ", expected bounds within " + number(p.lower) + " to " + number(p.upper));
    EINFIELD_REQUIRE(std::isfinite(prior.lower) == std::isfinite(prior.upper),
                     where + ": a single bound, expected a lower and an upper one");
    EINFIELD_REQUIRE(values[i] > prior.lower && values[i] < prior.upper,
                     where + " = " + number(values[i]) + unit_suffix(p.unit) +
                         ", expected a value between its bounds " + number(prior.lower) + " and " +
                         number(prior.upper));
  }
}

void validate_component(const std::string& name, const ProfileInfo& info, const std::vector<double>& values,
                        const std::vector<std::uint8_t>& free, const std::vector<ParameterPrior>& priors) {
  EINFIELD_REQUIRE(values.size() == info.parameters.size() && free.size() == info.parameters.size(),
                   name + ": " + info.name + " has " + std::to_string(info.parameters.size()) + " parameters, found " +
                       std::to_string(values.size()));
  int e1 = -1, e2 = -1;
  for (std::size_t i = 0; i < values.size(); ++i) {
    const ParameterInfo& p = info.parameters[i];
    const auto where = [&] { return name + "." + p.name + " = " + number(values[i]) + unit_suffix(p.unit); };
    EINFIELD_REQUIRE(std::isfinite(values[i]), where() + ", expected a finite number");
    if (p.range == Range::positive || p.range == Range::reference)
      EINFIELD_REQUIRE(values[i] > p.lower, where() + ", expected > " + number(p.lower));
    if (p.range == Range::reference)
      EINFIELD_REQUIRE(!free[i], name + "." + p.name + ": data cannot determine it, expected a fixed parameter");
    if (p.range == Range::interval)
      EINFIELD_REQUIRE(values[i] > p.lower && values[i] < p.upper,
                       where() + ", expected a value between " + number(p.lower) + " and " + number(p.upper));
    if (p.range == Range::integer) {
      EINFIELD_REQUIRE(values[i] == std::floor(values[i]) && values[i] >= p.lower && values[i] <= p.upper,
                       where() + ", expected a whole number from " + number(p.lower) + " to " + number(p.upper));
      EINFIELD_REQUIRE(!free[i], name + "." + p.name + ": a whole number cannot be fitted, expected a fixed parameter");
    }
    if (p.range == Range::ellipticity) (e1 < 0 ? e1 : e2) = static_cast<int>(i);
  }
  if (e1 >= 0 && e2 >= 0) {
    const double a = values[static_cast<std::size_t>(e1)], b = values[static_cast<std::size_t>(e2)];
    EINFIELD_REQUIRE(a * a + b * b < 1,
                     name + ": e1 = " + number(a) + ", e2 = " + number(b) + ", expected e1² + e2² < 1");
  }
  validate_priors(name, info, values, free, priors);
}

void validate_network_light(const std::string& name, const LightComponent& c) {
  try {
    c.network.validate();
  } catch (const InvalidInput& error) {
    throw InvalidInput(name + ": " + error.what());
  }
  EINFIELD_REQUIRE(
      c.weights.size() == c.network.size(),
      name + ": " + std::to_string(c.weights.size()) + " weights for a network of " + std::to_string(c.network.size()));
  for (const double w : c.weights) EINFIELD_REQUIRE(std::isfinite(w), name + ": a weight is not finite");
}

}  // namespace

void Model::validate() const {
  EINFIELD_REQUIRE(prior_weight > 0 && std::isfinite(prior_weight),
                   "prior_weight = " + number(prior_weight) + ", expected a number > 0");
  for (std::size_t i = 0; i < lens.size(); ++i)
    validate_component("lens." + std::to_string(i), lens_info(lens[i].kind), lens[i].values, lens[i].free,
                       lens[i].priors);
  const auto validate_lights = [](const std::string& block, const std::vector<LightComponent>& lights) {
    for (std::size_t i = 0; i < lights.size(); ++i) {
      const LightComponent& c = lights[i];
      const std::string name = block + "." + std::to_string(i);
      validate_component(name, light_info(c.kind), c.values, c.free, c.priors);
      if (c.kind == LightKind::network) validate_network_light(name, c);
      if (c.kind != LightKind::pixelated) continue;
      EINFIELD_REQUIRE(c.grid.nx >= 1 && c.grid.ny >= 1 && c.grid.pixel_scale > 0,
                       name + ": a pixel grid of " + std::to_string(c.grid.nx) + " x " + std::to_string(c.grid.ny) +
                           " pixels of " + number(c.grid.pixel_scale) +
                           " arcsec, expected at least 1 x 1 pixels of a size > 0");
      EINFIELD_REQUIRE(c.pixels.size() == static_cast<std::size_t>(c.grid.nx) * static_cast<std::size_t>(c.grid.ny),
                       name + ": " + std::to_string(c.pixels.size()) + " pixel values for a grid of " +
                           std::to_string(c.grid.nx) + " x " + std::to_string(c.grid.ny));
      for (const double v : c.pixels) EINFIELD_REQUIRE(std::isfinite(v), name + ": a pixel value is not finite");
    }
  };
  validate_lights("source", source);
  validate_lights("lens_light", lens_light);
  if (const auto problem = ParameterSlots(*this).problem())
    throw InvalidInput(problem->where + ": " + problem->message);
  std::ptrdiff_t networks = 0;
  std::size_t pixels = 0;
  for_each_light(*this, [&](const LightComponent& c) {
    networks += c.kind == LightKind::network;
    pixels += c.pixels.size();
  });
  EINFIELD_REQUIRE(pixels <= kMaxSourcePixels, std::to_string(pixels) +
                                                   " pixels in all PIXELATED components, expected at most " +
                                                   std::to_string(kMaxSourcePixels));
  EINFIELD_REQUIRE(networks <= 1, std::to_string(networks) + " NETWORK components, expected at most one");
  if (network) network->validate();
}

int network_light_index(const Model& model) {
  int index = static_cast<int>(model.lens.size()), found = -1;
  for_each_light(model, [&](const LightComponent& c) {
    if (c.kind == LightKind::network && found < 0) found = index;
    ++index;
  });
  return found;
}

const LightComponent* network_light(const Model& model) {
  const int index = network_light_index(model);
  if (index < 0) return nullptr;
  const std::size_t light = static_cast<std::size_t>(index) - model.lens.size();
  return light < model.source.size() ? &model.source[light] : &model.lens_light[light - model.source.size()];
}

}  // namespace einfield
