#!/usr/bin/env bash
# cppcheck over the library and the binary, with the compile commands of the preset `tidy`. Left out, with the reason:
#   passedByValue, useStlAlgorithm, … (style): clang-tidy has these, with fewer false alarms
set -euo pipefail
cd "$(dirname "$0")/.."
cppcheck --project=build/tidy/compile_commands.json --file-filter='*host/*' --enable=warning,performance,portability \
  --std=c++20 --inline-suppr --suppress=missingIncludeSystem --suppress='*:/usr/include/*' --suppress=normalCheckLevelMaxBranches \
  --error-exitcode=1 --quiet -j "$(nproc)"
echo "cppcheck: nothing found"
