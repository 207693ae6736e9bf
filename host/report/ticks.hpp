// Where the ticks of an axis are, and their labels.
#pragma once

#include <string>
#include <vector>

namespace einfield {

struct Tick {
  double at;  ///< place on the axis
  std::string label;
};

/// 10 to the power of `exponent`, as text: 10⁻³.
std::string power_of_ten(int exponent);

/// About `wanted` ticks at round numbers from low to high.
std::vector<Tick> linear_ticks(double low, double high, int wanted);

/// Ticks of a logarithmic axis: decades, and multiples of them where there are few decades.
std::vector<Tick> logarithmic_ticks(double low, double high);

/// Ticks of an axis that is linear in asinh(value / softening), placed there: 0, powers of ten of both signs, and 3
/// times these where there is room.
/// @param low, high  ends of the axis: asinh(value / softening)
std::vector<Tick> asinh_ticks(double low, double high, double softening, int wanted);

}  // namespace einfield
