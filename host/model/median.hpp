// A median in linear time.
#pragma once

#include <algorithm>
#include <vector>

namespace einfield {

/// σ of a Gaussian per median of the absolute deviation.
inline constexpr double kMedianToSigma = 1.4826;

/// The value in the middle, of an even number the upper one; 0 without values.
inline double upper_median(std::vector<double> values) {
  if (values.empty()) return 0;
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

}  // namespace einfield
