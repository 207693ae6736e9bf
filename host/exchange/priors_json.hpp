// Members named "einfield" in the files of other packages: what only einfield reads, among it the priors of a
// component.
#pragma once

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "einfield/model.hpp"
#include "host/files/json_view.hpp"

namespace einfield {

inline constexpr const char* kOwn = "einfield";  ///< name of these members; other readers ignore them

/// Whether a parameter has bounds or a Gaussian prior.
inline bool says_something(const ParameterPrior& prior) {
  return prior.bounded() || prior.gaussian();
}

/// Writes priors as a member "priors": { NAME: { "bounds": [lower, upper], "gaussian": [mean, sigma] }, ... }.
template <class Component>
void put_priors(nlohmann::ordered_json& own, const Component& c, const ProfileInfo& info) {
  for (std::size_t i = 0; i < c.priors.size(); ++i) {
    const ParameterPrior& prior = c.priors[i];
    if (prior.bounded()) own["priors"][info.parameters[i].name]["bounds"] = {prior.lower, prior.upper};
    if (prior.gaussian()) own["priors"][info.parameters[i].name]["gaussian"] = {prior.mean, prior.sigma};
  }
}

/// Reads them back for parameters that have no other prior yet.
template <class Component>
void take_priors(const JsonView& own, Component& c, const ProfileInfo& info) {
  if (!own.has("priors")) return;
  c.priors.resize(c.values.size());
  for (std::size_t i = 0; i < c.values.size(); ++i) {
    if (!own.at("priors").has(info.parameters[i].name)) continue;
    const JsonView known = own.at("priors").at(info.parameters[i].name);
    const auto pair = [&](const char* name, double& first, double& second, const Bounds& bounds) {
      const JsonView numbers = known.at(name);
      if (numbers.size(2) != 2) numbers.fail("expected two numbers");
      first = numbers.at(0).number();
      second = numbers.at(1).number(bounds);
    };
    ParameterPrior& prior = c.priors[i];
    if (known.has("bounds") && !prior.bounded()) pair("bounds", prior.lower, prior.upper, {});
    if (known.has("gaussian") && !prior.gaussian()) pair("gaussian", prior.mean, prior.sigma, above(0));
  }
}

/// Makes priors acceptable for a fit: bounds are cut to the range of the profile; bounds that exclude the value are
/// removed with a warning; priors of fixed parameters are removed.
template <class Component>
void check_priors(const JsonView& where, Component& c, const ProfileInfo& info, std::vector<std::string>& warnings) {
  bool any = false;
  for (std::size_t i = 0; i < c.priors.size(); ++i) {
    ParameterPrior& prior = c.priors[i];
    const ParameterInfo& p = info.parameters[i];
    if (!c.free[i]) prior = {};
    if (prior.bounded()) {
      prior.lower = std::max(prior.lower, p.lower);
      prior.upper = std::min(prior.upper, p.upper);
      if (!(c.values[i] > prior.lower && c.values[i] < prior.upper)) {
        warnings.push_back(where.place() + ": " + p.name + " is outside its bounds; the bounds are left out");
        prior.lower = -kInfinity;
        prior.upper = kInfinity;
      }
    }
    any = any || says_something(prior);
  }
  if (!any) c.priors.clear();
}

}  // namespace einfield
