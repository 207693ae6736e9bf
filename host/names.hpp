// Names in messages: lists of them, and the nearest one to a name that does not exist.
#pragma once

#include <string>
#include <vector>

namespace einfield {

/// "a, b, c".
std::string joined(const std::vector<std::string>& names);

/// What to write instead of a name that does not exist: the nearest one, and all of them when none is near.
std::string suggestion(const std::string& name, const std::vector<std::string>& valid);

}  // namespace einfield
