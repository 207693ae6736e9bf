#include "host/files/bounds.hpp"

#include <cmath>

#include "host/files/text.hpp"

namespace einfield {

bool Bounds::contain(double value) const {
  return std::isfinite(value) && (lower_open ? value > lower : value >= lower) &&
         (upper_open ? value < upper : value <= upper);
}

std::string Bounds::text() const {
  const auto end = [](double value) {
    const bool whole = value == std::floor(value) && std::abs(value) < 1e15;
    return whole ? to_text(static_cast<long long>(value)) : to_text(value);
  };
  const bool from = std::isfinite(lower), to = std::isfinite(upper);
  if (from && to && !lower_open && !upper_open) return end(lower) + " to " + end(upper);
  std::string text;
  if (from) text = (lower_open ? "> " : ">= ") + end(lower);
  if (from && to) text += " and ";
  if (to) text += (upper_open ? "< " : "<= ") + end(upper);
  return text;
}

Bounds parameter_bounds(const ParameterInfo& parameter) {
  if (parameter.range == Range::unbounded) return {};
  if (parameter.range == Range::integer) return between(parameter.lower, parameter.upper);
  return {parameter.lower, parameter.upper, true, true};
}

}  // namespace einfield
