#!/usr/bin/env bash
# Which lines of host/ and include/ the tests run: build/coverage/coverage.txt; fails below 95 %.
set -euo pipefail
cd "$(dirname "$0")/.."
cmake --preset coverage -G Ninja >/dev/null
cmake --build --preset coverage -j "$(nproc)"
find build/coverage -name '*.gcda' -delete
# Where a test lets no file grow, gcov's own complaint would stand among the program's.
export GCOV_ERROR_FILE=/dev/null
ctest --preset coverage -LE slow -j "$(nproc)"
gcovr --root . --object-directory build/coverage --filter 'host/' --filter 'include/' --exclude-throw-branches \
  --exclude-unreachable-branches --print-summary --fail-under-line 95 --txt build/coverage/coverage.txt build/coverage
