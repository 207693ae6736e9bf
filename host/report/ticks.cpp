// Round numbers at distances that the eye can follow.
#include "host/report/ticks.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>

namespace einfield {
namespace {

/// A number with a true minus sign.
std::string number(double value, int decimals) {
  const std::string digits = fmt::format("{:.{}f}", std::abs(value), decimals);
  return (value < 0 && digits.find_first_not_of("0.") != std::string::npos ? "−" : "") + digits;
}

}  // namespace

std::string power_of_ten(int exponent) {
  static const char* const digits[] = {"⁰", "¹", "²", "³", "⁴", "⁵", "⁶", "⁷", "⁸", "⁹"};
  std::string result = exponent < 0 ? "10⁻" : "10";
  for (const char digit : std::to_string(std::abs(exponent))) result += digits[digit - '0'];
  return result;
}

std::vector<Tick> linear_ticks(double low, double high, int wanted) {
  const double raw = (high - low) / wanted;
  const double decade = std::pow(10.0, std::floor(std::log10(raw)));
  double step = 10 * decade;
  for (const double factor : {1.0, 2.0, 2.5, 5.0})
    if (factor * decade >= 0.8 * raw) {
      step = factor * decade;
      break;
    }
  int decimals = std::max(0, static_cast<int>(-std::floor(std::log10(step) + 1e-9)));
  if (std::abs(step / decade - 2.5) < 1e-6) ++decimals;
  std::vector<Tick> ticks;
  for (double i = std::ceil(low / step - 1e-6); i * step <= high + 1e-6 * step; ++i)
    ticks.push_back({i * step, number(i * step, decimals)});
  return ticks;
}

std::vector<Tick> logarithmic_ticks(double low, double high) {
  const int first = static_cast<int>(std::floor(std::log10(low))), last = static_cast<int>(std::ceil(std::log10(high)));
  const int stride = std::max(1, (last - first) / 7);
  std::vector<int> parts = {1};
  if (last - first <= 3) parts = {1, 2, 5};
  if (last - first <= 1) parts = {1, 2, 3, 4, 5, 6, 8};
  std::vector<Tick> ticks;
  for (int exponent = first; exponent <= last; exponent += stride)
    for (const int part : parts) {
      const double at = part * std::pow(10.0, exponent);
      if (at < low * (1 - 1e-9) || at > high * (1 + 1e-9)) continue;
      const bool plain = first >= -3 && last <= 4;
      ticks.push_back({at, plain ? number(at, std::max(0, -exponent)) : power_of_ten(exponent)});
    }
  return ticks;
}

std::vector<Tick> asinh_ticks(double low, double high, double softening, int wanted) {
  const double gap = 0.6 * (high - low) / wanted;
  std::vector<Tick> ticks;
  const auto add = [&](double value) {
    const double at = std::asinh(value / softening);
    if (at < low - 1e-9 || at > high + 1e-9) return;
    for (const Tick& tick : ticks)
      if (std::abs(tick.at - at) < gap) return;
    const double magnitude = std::abs(value);
    const int decimals = value == 0 ? 0 : std::max(0, static_cast<int>(-std::floor(std::log10(magnitude) + 1e-9)));
    ticks.push_back({at, number(value, decimals)});
  };
  const double most = softening * std::sinh(std::max(std::abs(low), std::abs(high)));
  const int top = static_cast<int>(std::floor(std::log10(most)));
  add(0);
  for (const double multiple : {1.0, 3.0})
    for (int k = top; k >= top - 12; --k)
      for (const double sign : {1.0, -1.0}) add(sign * multiple * std::pow(10.0, k));
  return ticks;
}

}  // namespace einfield
