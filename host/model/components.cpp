#include "host/model/components.hpp"

#include <cmath>

#include "host/files/bounds.hpp"
#include "host/files/text.hpp"

namespace einfield {

LensComponent new_lens(LensKind kind) {
  LensComponent c{kind, {}, {}};
  for (const ParameterInfo& p : lens_info(kind).parameters) c.values.push_back(p.default_value);
  c.free.assign(c.values.size(), false);
  return c;
}

LightComponent new_light(LightKind kind) {
  LightComponent c;
  c.kind = kind;
  for (const ParameterInfo& p : light_info(kind).parameters) c.values.push_back(p.default_value);
  c.free.assign(c.values.size(), false);
  return c;
}

void set_parameter(const JsonView& where, const ProfileInfo& info, std::vector<double>& values, const std::string& name,
                   double value) {
  const auto index = static_cast<std::size_t>(info.index_of(name));
  const ParameterInfo& p = info.parameters.at(index);
  const Bounds bounds = parameter_bounds(p);
  if (!bounds.contain(value) || (p.range == Range::integer && value != std::floor(value))) {
    const std::string unit = *p.unit ? std::string(" ") + p.unit : "";
    const std::string range = bounds.text();
    where.fail("out of range, " + std::string(info.name) + " " + name + " is " + to_text(value) + unit +
               ", expected a " + (p.range == Range::integer ? "whole " : "") + "number" +
               (range.empty() ? "" : " " + range) + unit);
  }
  values[index] = value;
}

void check_complete(const JsonView& where, const ProfileInfo& info, const std::vector<double>& values) {
  for (std::size_t i = 0; i < values.size(); ++i)
    if (std::isnan(values[i])) where.fail(std::string(info.parameters[i].name) + " of " + info.name + " is missing");
  const int i = info.index_of("e1"), j = info.index_of("e2");
  if (i < 0 || j < 0) return;
  const double e1 = values[static_cast<std::size_t>(i)], e2 = values[static_cast<std::size_t>(j)];
  if (e1 * e1 + e2 * e2 >= 1)
    where.fail("out of range, found e1 = " + to_text(e1) + " and e2 = " + to_text(e2) + ", expected e1^2 + e2^2 < 1");
}

}  // namespace einfield
