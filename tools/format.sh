#!/usr/bin/env bash
# Formats all C++ and CUDA sources with clang-format 14; --check only lists what is not formatted (exit 1).
set -euo pipefail
cd "$(dirname "$0")/.."
options=(-i)
if [ "${1:-}" = --check ]; then options=(--dry-run --Werror); fi
git ls-files -z '*.cpp' '*.hpp' '*.cu' '*.cuh' | xargs -0 clang-format "${options[@]}"
