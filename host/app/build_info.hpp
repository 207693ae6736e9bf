// What the build knows about its sources; the definition is written by tools/build_info.cmake.
#pragma once

namespace einfield {

/// What `git describe` said when the command was built, with "-dirty" for uncommitted changes; "" when that is unknown.
const char* git_describe();

}  // namespace einfield
