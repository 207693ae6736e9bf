#!/usr/bin/env bash
# Formatting, clang-tidy and cppcheck, with the versions of Debian 12 (clang 14, cppcheck 2.10).
set -euo pipefail
cd "$(dirname "$0")/.."
tools/install_dependencies.sh clang clang-tidy clang-format cppcheck
tools/format.sh --check
cmake --preset tidy -G Ninja >/dev/null
cmake --build --preset tidy -j "$(nproc)" --target einfield einfield_binary
tools/cppcheck.sh
