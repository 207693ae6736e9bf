#!/usr/bin/env bash
# Runs cppcheck over the library and the command, with the compile commands of the preset `tidy`. Left out, with the reason:
#   passedByValue, useStlAlgorithm, … (style): clang-tidy has these, with fewer false alarms
#   invalidLifetime in number.hpp: a false alarm about a view of an argument that is not returned
#   syntaxError, internalAstError in the two files of vector loops: version 2.10 cannot parse lambdas that are templates or
#   have attributes
set -euo pipefail
cd "$(dirname "$0")/.."
cppcheck --project=build/tidy/compile_commands.json --file-filter='*host/*' --enable=warning,performance,portability \
  --std=c++20 --inline-suppr --suppress=missingIncludeSystem --suppress='*:/usr/include/*' --suppress=normalCheckLevelMaxBranches \
  --suppress=invalidLifetime:host/files/number.hpp --suppress=syntaxError:host/cpu/network_tiles.cpp \
  --suppress=internalAstError:host/cpu/rays.cpp \
  --error-exitcode=1 --quiet -j "${EINFIELD_JOBS:-$(nproc)}"
echo "cppcheck: nothing found"
