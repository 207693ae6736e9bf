#!/usr/bin/env bash
# Installs what is missing, builds, runs every test. The same everywhere: laptop, cluster, continuous integration.
#   tools/test.sh           CPU build and tests, installation, then the CUDA backend where nvcc is on PATH
#   tools/test.sh --full    also: all CUDA architectures, sanitizers, static analysis, every fault (before a release)
#
# With a GPU the CUDA tests run on it. EINFIELD_DEVICE_RUNNER may name a command that runs its arguments on a virtual CUDA
# device instead. With neither the kernels are compiled and their tests are reported as skipped.
# EINFIELD_REFERENCE may name the folder of the full reference data; tests that need it are skipped without it.
set -euo pipefail
cd "$(dirname "$0")/.."

full=no
for argument in "$@"; do
  case $argument in
    --full) full=yes ;;
    *) echo "usage: $0 [--full]" >&2; exit 2 ;;
  esac
done
jobs=$(nproc)
section() { printf '\n== %s (%(%H:%M:%S)T)\n' "$1" -1; }
build() {  # preset, further options of the configuration
  cmake --preset "$@" -G Ninja >/dev/null
  cmake --build --preset "$1" -j "$jobs"
}

section "packages"
tools/install_dependencies.sh

section "CPU build"
build cpu
section "CPU tests"
ctest --preset cpu -j "$jobs"

section "installation: a project of its own finds the library"
prefix=$PWD/build/installed
rm -rf "$prefix" build/link
cmake --install build/cpu --prefix "$prefix" >/dev/null
cmake -S examples/link -B build/link -G Ninja -DCMAKE_BUILD_TYPE=Release -DCMAKE_PREFIX_PATH="$prefix" >/dev/null
cmake --build build/link
build/link/link

if command -v nvcc >/dev/null; then
  if [ -z "${EINFIELD_DEVICE_RUNNER:-}" ] && nvidia-smi -L 2>/dev/null | grep -q GPU; then preset=cuda; else preset=cuda-virtual; fi
  section "CUDA build (preset $preset)"
  build $preset
  section "CUDA tests"
  ${EINFIELD_DEVICE_RUNNER:-} ctest --preset $preset -L gpu -j 1
else
  section "no nvcc on PATH: the CUDA backend is neither built nor tested"
fi

section "done"
