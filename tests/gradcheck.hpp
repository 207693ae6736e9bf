// Is the derivative right? Central differences, Taylor remainder, dot product. All in double.
#pragma once

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <vector>

namespace einfield {

using ScalarFunction = std::function<double(const std::vector<double>&)>;

/// Central differences of `f` at `x`, step ε^{1/3} · scale[i] in coordinate i.
/// @param scale  length over which f changes in each coordinate; 0 = no derivative, 0 in the answer
inline std::vector<double> central_differences(const ScalarFunction& f, const std::vector<double>& x,
                                               const std::vector<double>& scale) {
  const double h = std::cbrt(std::numeric_limits<double>::epsilon());
  std::vector<double> gradient(x.size());
  for (std::size_t i = 0; i < x.size(); ++i) {
    if (scale[i] == 0) continue;
    std::vector<double> up = x, down = x;
    up[i] += h * scale[i];
    down[i] -= h * scale[i];
    gradient[i] = (f(up) - f(down)) / (up[i] - down[i]);
  }
  return gradient;
}

/// Largest difference between `gradient` and central differences, over the largest component, each in units of its
/// scale, so that a component in arcsec⁻¹ near a core does not hide the others. 0 when both vanish; NaN when anything
/// is NaN.
/// @param floor  a component below this (in the unit of f) counts as this: the rounding of f itself
inline double gradient_error(const ScalarFunction& f, const std::vector<double>& x, const std::vector<double>& scale,
                             const std::vector<double>& gradient, double floor = 0) {
  const std::vector<double> difference = central_differences(f, x, scale);
  double error = 0, largest = floor;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double wrong = std::abs(gradient[i] - difference[i]) * scale[i];
    if (!(wrong <= error)) error = wrong;
    largest = std::max({largest, std::abs(gradient[i]) * scale[i], std::abs(difference[i]) * scale[i]});
  }
  return largest > 0 || std::isnan(error) ? error / largest : 0;
}

/// Order by which the remainder f(x + hδ) − f(x) − h ∇f·δ falls between h and h/2: 2 for a right gradient of a curved
/// function, 1 for a wrong one.
inline double taylor_order(const ScalarFunction& f, const std::vector<double>& x, const std::vector<double>& direction,
                           const std::vector<double>& gradient, double h) {
  double slope = 0;
  for (std::size_t i = 0; i < x.size(); ++i) slope += gradient[i] * direction[i];
  const auto remainder = [&](double step) {
    std::vector<double> at = x;
    for (std::size_t i = 0; i < x.size(); ++i) at[i] += step * direction[i];
    return std::abs(f(at) - f(x) - step * slope);
  };
  return std::log2(remainder(h) / remainder(h / 2));
}

inline double inner_product(const std::vector<double>& a, const std::vector<double>& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

/// |⟨Ax, y⟩ − ⟨x, Aᵀy⟩| / (‖Ax‖ ‖y‖): a few √n ε when `at_y` is the transpose's answer.
inline double transpose_error(const std::vector<double>& x, const std::vector<double>& ax, const std::vector<double>& y,
                              const std::vector<double>& at_y) {
  return std::abs(inner_product(ax, y) - inner_product(x, at_y)) /
         std::sqrt(inner_product(ax, ax) * inner_product(y, y));
}

}  // namespace einfield
