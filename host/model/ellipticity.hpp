// How far a component of an ellipticity reaches.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "einfield/model.hpp"

namespace einfield {

/// Largest |e| that component i of an ellipticity reaches: its own value when it is fixed, else the larger bound; 0
/// when it is free without bounds.
inline double reach(const std::vector<double>& values, const std::vector<std::uint8_t>& free,
                    const std::vector<ParameterPrior>& priors, std::size_t i) {
  if (!free[i]) return std::abs(values[i]);
  if (priors.empty() || !priors[i].bounded()) return 0;
  return std::max(std::abs(priors[i].lower), std::abs(priors[i].upper));
}

}  // namespace einfield
