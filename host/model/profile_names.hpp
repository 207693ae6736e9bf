// Profiles from their names.
#pragma once

#include <optional>
#include <string>

#include "einfield/lens.hpp"
#include "einfield/source.hpp"

namespace einfield {

/// The profile of this name, if there is one.
std::optional<LensKind> lens_kind(const std::string& name);
std::optional<LightKind> light_kind(const std::string& name);

}  // namespace einfield
