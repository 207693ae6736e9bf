// Learning rates of a stage, and which parameters it moves.
#include <algorithm>
#include <cmath>
#include <utility>

#include "einfield/error.hpp"
#include "einfield/fitter.hpp"

namespace einfield {

std::vector<double> learning_rates(double rate, int steps, int warmup, bool cosine) {
  if (warmup == 0 && !cosine) return {rate};
  std::vector<double> rates;
  for (int i = 0; i < std::max(cosine ? steps : warmup + 1, 1); ++i) {
    if (i < warmup) {
      rates.push_back(rate * (i + 1) / (warmup + 1));
      continue;
    }
    const double part = cosine && steps > warmup ? double(i - warmup) / (steps - warmup) : 0;
    rates.push_back(0.5 * rate * (1 + std::cos(kPi * part)));
  }
  return rates;
}

std::vector<std::uint8_t> trainable(const Model& model, const std::vector<std::string>& names) {
  if (names.empty()) return {};
  const ParameterLayout layout(model);
  // Groups of parameters that move together, in the order of the layout: single parameters may be millions.
  struct Group {
    std::string name;
    std::size_t count;
  };
  std::vector<Group> groups{{"network", layout.n_network}};
  for (const std::string& name : layout.names) groups.push_back({name, 1});
  const auto add = [&](const std::string& kind, bool LightComponent::*is_free, auto&& count) {
    for (const auto& [block, lights] :
         {std::pair("source.", &model.source), std::pair("lens_light.", &model.lens_light)})
      for (std::size_t i = 0; i < lights->size(); ++i)
        if ((*lights)[i].*is_free) groups.push_back({block + std::to_string(i) + kind, count((*lights)[i])});
  };
  add(".pixels", &LightComponent::pixels_free, [](const LightComponent& c) { return c.pixels.size(); });
  add(".network", &LightComponent::weights_free, [](const LightComponent& c) { return c.network.size(); });

  const auto frees = [](const std::string& name, const Group& group) {
    return group.count > 0 && (group.name == name || group.name.rfind(name + ".", 0) == 0);
  };
  for (const std::string& name : names)
    EINFIELD_REQUIRE(std::any_of(groups.begin(), groups.end(), [&](const Group& group) { return frees(name, group); }),
                     "no free parameter has that name, found \"" + name +
                         "\", expected network, a block, a component or a parameter that is free");
  std::vector<std::uint8_t> result;
  for (const Group& group : groups)
    result.insert(result.end(), group.count,
                  std::any_of(names.begin(), names.end(), [&](const std::string& name) { return frees(name, group); }));
  return result;
}

}  // namespace einfield
