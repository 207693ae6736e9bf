// Names in messages: lists of them, and the nearest one to a name that does not exist; and what has a name.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "einfield/lens.hpp"
#include "einfield/source.hpp"

namespace einfield {

/// "a, b, c".
std::string joined(const std::vector<std::string>& names);

/// What to write instead of a name that does not exist: the nearest one, and all of them when none is near.
std::string suggestion(const std::string& name, const std::vector<std::string>& valid);

/// Which profile has this name, if any.
std::optional<LensKind> lens_kind(const std::string& name);
std::optional<LightKind> light_kind(const std::string& name);

}  // namespace einfield
