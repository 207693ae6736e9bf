# Writes a C++ source with what `git describe` says about the source tree, and touches it only when that has changed.
#   cmake -DROOT=<source folder> -DOUTPUT=<file> -P build_info.cmake
# The text is empty without git, outside a repository, and for a copy of the sources within another repository.
set(description "")
find_program(GIT git)
if(GIT)
  execute_process(COMMAND ${GIT} -C ${ROOT} rev-parse --show-toplevel OUTPUT_VARIABLE top ERROR_QUIET
                  OUTPUT_STRIP_TRAILING_WHITESPACE)
  file(REAL_PATH ${ROOT} root)
  if(top STREQUAL root)
    execute_process(COMMAND ${GIT} -C ${ROOT} describe --always --dirty --tags OUTPUT_VARIABLE description ERROR_QUIET
                    OUTPUT_STRIP_TRAILING_WHITESPACE)
  endif()
endif()
file(CONFIGURE OUTPUT ${OUTPUT} @ONLY CONTENT [[
// Written by tools/build_info.cmake.
#include "host/app/build_info.hpp"

const char* einfield::git_describe() {
  return "@description@";
}
]])
