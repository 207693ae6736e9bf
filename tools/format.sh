#!/usr/bin/env bash
# clang-format 14 over all C++ and CUDA sources; --check only says what is not formatted (exit 1).
set -euo pipefail
cd "$(dirname "$0")/.."
options=(-i)
if [ "${1:-}" = --check ]; then options=(--dry-run --Werror); fi
git ls-files -z '*.cpp' '*.hpp' '*.cu' '*.cuh' | xargs -0 clang-format "${options[@]}"
