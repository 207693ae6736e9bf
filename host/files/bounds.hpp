// Intervals of numbers, for checks and their messages.
#pragma once

#include <string>

#include "einfield/profile.hpp"

namespace einfield {

/// The range of a number, which must also be finite.
struct Bounds {
  double lower = -kInfinity, upper = kInfinity;
  bool lower_open = false, upper_open = false;  ///< the end itself is excluded

  bool contain(double value) const;
  std::string text() const;  ///< "> 0", "1 to 16"; "" = any number
};
inline Bounds above(double lower) {
  return {lower, kInfinity, true, false};
}
inline Bounds at_least(double lower) {
  return {lower, kInfinity, false, false};
}
inline Bounds between(double lower, double upper) {
  return {lower, upper, false, false};
}

/// The range of a parameter of a profile.
Bounds parameter_bounds(const ParameterInfo& parameter);

}  // namespace einfield
