#!/usr/bin/env bash
# Measures which lines of host/ and include/ run in the tests: build/coverage/coverage.txt. Fails below 95 %.
set -euo pipefail
cd "$(dirname "$0")/.."
cmake --preset coverage -G Ninja >/dev/null
cmake --build --preset coverage -j "$(nproc)"
find build/coverage -name '*.gcda' -delete
# Some tests forbid files to grow. gcov would then write its own complaint into the program's messages.
export GCOV_ERROR_FILE=/dev/null
ctest --preset coverage -LE slow -j "$(nproc)"
gcovr --root . --object-directory build/coverage --filter 'host/' --filter 'include/' --exclude-throw-branches \
  --exclude-unreachable-branches --print-summary --fail-under-line 95 --txt build/coverage/coverage.txt build/coverage
