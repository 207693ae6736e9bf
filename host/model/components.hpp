// Components that are built parameter by parameter, in the order of a file.
#pragma once

#include <string>
#include <vector>

#include "einfield/model.hpp"
#include "host/files/json_view.hpp"

namespace einfield {

/// A component with the defaults of its profile; parameters without a default are NaN until they are set.
LensComponent new_lens(LensKind kind);
LightComponent new_light(LightKind kind);

/// Sets a parameter. @throws InvalidInput when it is outside the range of the profile
void set_parameter(const JsonView& where, const ProfileInfo& info, std::vector<double>& values, const std::string& name,
                   double value);
/// @throws InvalidInput when a parameter has not been set, and for e1² + e2² ≥ 1
void check_complete(const JsonView& where, const ProfileInfo& info, const std::vector<double>& values);

}  // namespace einfield
