// Intervals of numbers, for checks and for their messages.
#pragma once

#include <string>

#include "einfield/profile.hpp"

namespace einfield {

/// Where a number may lie; finite in any case.
struct Bounds {
  double lower = -kInfinity, upper = kInfinity;
  bool lower_open = false, upper_open = false;  ///< the end itself is out

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

/// The interval in which a parameter of a profile may lie.
Bounds parameter_bounds(const ParameterInfo& parameter);

}  // namespace einfield
