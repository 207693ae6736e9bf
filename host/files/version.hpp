// The version as text, for files and messages.
#pragma once

#include <string>

#include "einfield/core.hpp"

namespace einfield {

/// "0.2.0"
inline std::string version() {
  return std::to_string(EINFIELD_VERSION_MAJOR) + "." + std::to_string(EINFIELD_VERSION_MINOR) + "." +
         std::to_string(EINFIELD_VERSION_PATCH);
}

}  // namespace einfield
