// The layout of parameters: which scalar is free, where it lives, how it is transformed.
#include <algorithm>
#include <cmath>

#include "einfield/error.hpp"
#include "einfield/model.hpp"
#include "host/model/parameter_slots.hpp"

namespace einfield {

ParameterLayout::ParameterLayout(const Model& model) {
  model.validate();
  n_network = model.network ? model.network->size() : 0;
  const ParameterSlots slots(model);

  const auto add = [this, &slots](const std::string& name, const ProfileInfo& info, const std::vector<double>& values,
                                  const std::vector<std::uint8_t>& is_free, const std::vector<ParameterPrior>& known) {
    const int first_slot = static_cast<int>(table.size());
    table.resize(table.size() + kMaxProfileParameters, 0.0);
    int ellipticity[2] = {-1, -1};  // free-list index of e1, e2 of this component
    for (std::size_t i = 0; i < values.size(); ++i) {
      table[static_cast<std::size_t>(first_slot) + i] = slots.value(first_slot + static_cast<int>(i));
      if (!is_free[i]) continue;
      const ParameterInfo& p = info.parameters[i];
      FreeParameter<double> f{first_slot + static_cast<int>(i), -1, TransformKind::identity, p.lower, p.upper};
      if (p.range == Range::unbounded) f.lower = f.upper = 0;
      if (p.range == Range::positive) f.kind = TransformKind::exponential, f.upper = 0;
      if (p.range == Range::interval) f.kind = TransformKind::logistic;
      const ParameterPrior prior = known.empty() ? ParameterPrior{} : known[i];
      if (prior.bounded()) {
        f.lower = prior.lower;
        f.upper = prior.upper;
        f.kind = TransformKind::logistic;
      } else if (p.range == Range::ellipticity) {
        f.kind = TransformKind::disk;
        double other = 0;
        for (std::size_t j = 0; j < values.size(); ++j)
          if (j != i && info.parameters[j].range == Range::ellipticity)
            other = slots.reach(first_slot + static_cast<int>(j));
        f.lower = 0;
        f.upper = std::sqrt(1 - other * other);
        (ellipticity[0] < 0 ? ellipticity[0] : ellipticity[1]) = static_cast<int>(free.size());
      }
      free.push_back(f);
      names.push_back(name + "." + p.name);
    }
    if (ellipticity[1] >= 0)
      for (int k = 0; k < 2; ++k) free[static_cast<std::size_t>(ellipticity[k])].partner = ellipticity[1 - k];
  };

  for (std::size_t i = 0; i < model.lens.size(); ++i)
    add("lens." + std::to_string(i), lens_info(model.lens[i].kind), model.lens[i].values, model.lens[i].free,
        model.lens[i].priors);
  const auto add_lights = [&](const std::string& block, const std::vector<LightComponent>& lights) {
    for (std::size_t i = 0; i < lights.size(); ++i) {
      add(block + "." + std::to_string(i), light_info(lights[i].kind), lights[i].values, lights[i].free,
          lights[i].priors);
      if (lights[i].kind != LightKind::pixelated) continue;
      for (std::size_t k = 0; k < lights[i].pixels.size(); ++k) {
        if (lights[i].pixels_free) free_pixels.push_back(static_cast<int>(pixels.size()));
        pixels.push_back(lights[i].pixels[k]);
      }
    }
  };
  add_lights("source", model.source);
  add_lights("lens_light", model.lens_light);
  if (const LightComponent* const light = network_light(model)) {
    light_weights = light->weights;
    n_light_weights = light->weights_free ? light_weights.size() : 0;
  }
  relate(model, slots);
}

/// What follows a free scalar, and the priors.
void ParameterLayout::relate(const Model& model, const ParameterSlots& slots) {
  std::vector<int> index(table.size(), -1);  // of the free scalar in a slot
  for (std::size_t i = 0; i < free.size(); ++i) index[static_cast<std::size_t>(free[i].slot)] = static_cast<int>(i);
  const auto index_of = [&index](int slot) { return index[static_cast<std::size_t>(slot)]; };
  for (int slot = 0; slot < slots.size(); ++slot)
    if (const SlotRelation r = slots.root(slot); r.slot != slot && index_of(r.slot) >= 0)
      tied.push_back({slot, index_of(r.slot), r.factor, r.offset});
  int slot = 0;
  const auto add = [&](const auto& c) {
    for (std::size_t i = 0; i < c.priors.size(); ++i) {
      const ParameterPrior& prior = c.priors[i];
      if (!prior.gaussian()) continue;
      GaussianPrior<double> own{index_of(slot + static_cast<int>(i)), -1, 0, prior.mean,
                                prior.sigma / std::sqrt(model.prior_weight)};
      if (prior.mean_of.given()) {
        const SlotRelation r = slots.root(prior.mean_of);
        own.other = index_of(r.slot);
        own.factor = own.other < 0 ? 0 : r.factor;
        own.mean = own.other < 0 ? r.factor * slots.value(r.slot) + r.offset : r.offset;
      }
      priors.push_back(own);
    }
    slot += kMaxProfileParameters;
  };
  for (const LensComponent& c : model.lens) add(c);
  for_each_light(model, add);
}

double inverse_transform(const FreeParameter<double>& f, double value, double partner_value) {
  switch (f.kind) {
    case TransformKind::exponential:
      return std::log(value - f.lower);
    case TransformKind::logistic:
      return std::log((value - f.lower) / (f.upper - value));
    case TransformKind::disk: {
      // e = B u / √(1 + |u|²)  ⇒  u = (e/B) / √(1 − |e/B|²), the partner's share included when it is free.
      const double e = value / f.upper;
      const double other = f.partner < 0 ? 0 : partner_value / f.upper;
      return e / std::sqrt(1 - e * e - other * other);
    }
    case TransformKind::identity:
      break;
  }
  return value;
}

std::vector<double> ParameterLayout::initial_scalars() const {
  std::vector<double> values;
  for (const FreeParameter<double>& f : free) values.push_back(table[static_cast<std::size_t>(f.slot)]);
  return unconstrained(values);
}

std::vector<double> ParameterLayout::unconstrained(const std::vector<double>& values) const {
  std::vector<double> u;
  for (std::size_t i = 0; i < free.size(); ++i) {
    const int partner = free[i].partner;
    u.push_back(inverse_transform(free[i], values.at(i), partner < 0 ? 0 : values[static_cast<std::size_t>(partner)]));
  }
  return u;
}

std::vector<double> ParameterLayout::physical(const double* u) const {
  std::vector<double> values;
  for (std::size_t i = 0; i < free.size(); ++i) values.push_back(transform(free.data(), static_cast<int>(i), u));
  return values;
}

std::vector<double> ParameterLayout::table_of(const std::vector<double>& values) const {
  std::vector<double> all = table;
  for (std::size_t i = 0; i < free.size(); ++i) all[static_cast<std::size_t>(free[i].slot)] = values[i];
  for (const TiedParameter<double>& t : tied)
    all[static_cast<std::size_t>(t.slot)] = t.factor * values[static_cast<std::size_t>(t.free)] + t.offset;
  return all;
}

std::vector<std::pair<int, double>> ParameterLayout::slots_of(std::size_t free_index) const {
  std::vector<std::pair<int, double>> moved{{free.at(free_index).slot, 1.0}};
  for (const TiedParameter<double>& t : tied)
    if (t.free == static_cast<int>(free_index)) moved.emplace_back(t.slot, t.factor);
  return moved;
}

std::vector<double> ParameterLayout::initial_parameters(const std::vector<double>& network) const {
  EINFIELD_REQUIRE(network.size() == n_network,
                   std::to_string(network.size()) + " weights of the network, expected " + std::to_string(n_network));
  std::vector<double> parameters = network;
  const std::vector<double> scalars = initial_scalars();
  parameters.insert(parameters.end(), scalars.begin(), scalars.end());
  for (const int k : free_pixels) parameters.push_back(pixels[static_cast<std::size_t>(k)]);
  if (n_light_weights > 0) parameters.insert(parameters.end(), light_weights.begin(), light_weights.end());
  return parameters;
}

std::vector<FreePixels> free_source_pixels(const Model& model) {
  const ParameterLayout layout(model);
  std::size_t offset = layout.n_network + layout.n_free();
  std::vector<FreePixels> blocks;
  for (const LightComponent& c : model.source) {  // lens light follows
    if (c.kind != LightKind::pixelated || !c.pixels_free) continue;
    blocks.push_back({c.grid.nx, c.grid.ny, offset});
    offset += c.pixels.size();
  }
  return blocks;
}

std::string slot_name(const Model& model, int slot) {
  const int component = slot / kMaxProfileParameters;
  const auto parameter = static_cast<std::size_t>(slot % kMaxProfileParameters);
  const int n_lens = static_cast<int>(model.lens.size()), n_source = static_cast<int>(model.source.size());
  if (component < n_lens)
    return "lens." + std::to_string(component) + "." +
           lens_info(model.lens[static_cast<std::size_t>(component)].kind).parameters[parameter].name;
  const bool is_source = component < n_lens + n_source;
  const int index = component - n_lens - (is_source ? 0 : n_source);
  const LightComponent& light =
      is_source ? model.source[static_cast<std::size_t>(index)] : model.lens_light[static_cast<std::size_t>(index)];
  return std::string(is_source ? "source." : "lens_light.") + std::to_string(index) + "." +
         light_info(light.kind).parameters[parameter].name;
}

Model with_parameters(const Model& model, const ParameterLayout& layout, const std::vector<double>& parameters) {
  EINFIELD_REQUIRE(parameters.size() == layout.size(), "a parameter vector of " + std::to_string(parameters.size()) +
                                                           " values, expected " + std::to_string(layout.size()));
  std::vector<double> pixels = layout.pixels;
  const double* u = parameters.data() + layout.n_network;
  std::vector<double> scalars = layout.physical(u);
  for (std::size_t i = 0; i < scalars.size(); ++i) {
    const FreeParameter<double>& f = layout.free[i];
    // Far out a logistic rounds to the end of its interval, which is not in it.
    if (f.kind == TransformKind::logistic && !std::isnan(scalars[i]))
      scalars[i] = std::clamp(scalars[i], std::nextafter(f.lower, f.upper), std::nextafter(f.upper, f.lower));
  }
  const std::vector<double> table = layout.table_of(scalars);
  for (std::size_t k = 0; k < layout.free_pixels.size(); ++k)
    pixels[static_cast<std::size_t>(layout.free_pixels[k])] = u[layout.free.size() + k];

  Model result = model;
  auto slot = table.begin();
  const auto take = [&slot](std::vector<double>& values) {
    std::copy_n(slot, values.size(), values.begin());
    slot += kMaxProfileParameters;
  };
  auto pixel = pixels.begin();
  for (LensComponent& c : result.lens) take(c.values);
  for_each_light(result, [&](LightComponent& c) {
    take(c.values);
    std::copy_n(pixel, c.pixels.size(), c.pixels.begin());
    pixel += static_cast<std::ptrdiff_t>(c.pixels.size());
    if (c.kind == LightKind::network && c.weights_free)
      std::copy_n(parameters.data() + layout.light_weights_offset(), c.weights.size(), c.weights.begin());
  });
  const bool related = std::any_of(layout.priors.begin(), layout.priors.end(),
                                   [](const GaussianPrior<double>& prior) { return prior.other >= 0; });
  if (related) follow(result);  // the means of the priors
  return result;
}

}  // namespace einfield
