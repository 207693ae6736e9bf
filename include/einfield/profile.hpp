// Description of a lens or brightness profile: names, units, ranges and defaults of its parameters. All lists of keys,
// range checks and defaults come from these tables.
#pragma once

#include <limits>
#include <string>
#include <vector>

#include "einfield/core.hpp"

namespace EINFIELD_API einfield {

/// Largest number of parameters of a profile. They are stored consecutively, in the order of ProfileInfo::parameters.
inline constexpr int kMaxProfileParameters = 8;

/// How a free parameter is kept inside its range (see model.hpp, "transforms").
enum class Range {
  unbounded,    ///< (-inf, inf)
  positive,     ///< (lower, inf), lower usually 0
  interval,     ///< (lower, upper)
  ellipticity,  ///< e1 or e2: the pair obeys e1² + e2² < 1
  integer,      ///< a whole number in [lower, upper]; always fixed
  reference,    ///< (0, inf): a length that data cannot determine; always fixed
};

constexpr bool always_fixed(Range range) {
  return range == Range::integer || range == Range::reference;
}

/// One parameter of a profile. Names are lenstronomy's.
struct ParameterInfo {
  const char* name;
  const char* unit;  ///< "arcsec", "rad", "" ...
  Range range;
  double lower;          ///< exclusive (integer: inclusive); -inf when unbounded
  double upper;          ///< exclusive (integer: inclusive); +inf when unbounded
  double default_value;  ///< NaN: the key is required
};

/// A profile's name in the configuration and its parameters, in storage order.
struct ProfileInfo {
  const char* name;
  std::vector<ParameterInfo> parameters;

  /// Index of a parameter, or −1.
  int index_of(const std::string& parameter) const {
    for (std::size_t i = 0; i < parameters.size(); ++i)
      if (parameter == parameters[i].name) return static_cast<int>(i);
    return -1;
  }
};

inline constexpr double kInfinity = std::numeric_limits<double>::infinity();
inline constexpr double kRequired = std::numeric_limits<double>::quiet_NaN();

}  // namespace einfield
