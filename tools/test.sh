#!/usr/bin/env bash
# Installs what is missing, builds, runs every test. The same everywhere: laptop, cluster, continuous integration.
#   tools/test.sh           CPU build and tests, installation, then the CUDA backend where nvcc is on PATH
#   tools/test.sh --full    also: all CUDA architectures, sanitizers, static analysis, memcheck, 1200 fits, fuzzing, coverage,
#                           every fault (before a release)
#
# With a GPU the CUDA tests run on it. EINFIELD_DEVICE_RUNNER may name a command that runs its arguments on a virtual CUDA
# device instead, EINFIELD_FAULT_RUNNER one that makes a call fail (tools/fault_injection.sh). With neither the kernels are
# compiled and their tests are reported as skipped.
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
build() {  # preset, targets
  cmake --preset "$1" -G Ninja >/dev/null
  cmake --build --preset "$1" -j "$jobs" --target "${@:2}"
}
link_installed() {  # preset, example, further options of its configuration: a project of its own finds the library
  rm -rf "build/installed-$1" "build/$2"
  cmake --install "build/$1" --prefix "build/installed-$1" >/dev/null
  cmake -S "examples/$2" -B "build/$2" -G Ninja -DCMAKE_BUILD_TYPE=Release "-DCMAKE_PREFIX_PATH=$PWD/build/installed-$1" \
    "${@:3}" >/dev/null
  cmake --build "build/$2"
}

section "packages"
tools/install_dependencies.sh

section "CPU build"
build cpu all
section "CPU tests"
ctest --preset cpu -j "$jobs"
section "a C++ project that links the installed library"
link_installed cpu link
build/link/link

if command -v nvcc >/dev/null; then
  preset=cuda-virtual
  architectures=90-virtual
  runner=${EINFIELD_DEVICE_RUNNER:-}
  if [ -z "$runner" ] && nvidia-smi -L 2>/dev/null | grep -q GPU; then
    preset=cuda
    architectures=native
    runner=env
  fi
  section "CUDA build (preset $preset)"
  build $preset einfield einfield_binary gpu_tests
  section "CUDA tests"
  $runner ctest --preset $preset -L gpu
  section "a CUDA project that links the installed library"
  link_installed $preset link_from_cuda -DCMAKE_CUDA_ARCHITECTURES=$architectures
  if [ -n "$runner" ]; then $runner build/link_from_cuda/link_from_cuda; else echo "no device: built, not run"; fi
  if [ -n "${EINFIELD_FAULT_RUNNER:-}" ]; then
    section "CUDA calls that fail"
    if [ $full = yes ]; then
      tools/fault_injection.sh build/$preset/einfield --every
    else
      tools/fault_injection.sh build/$preset/einfield
    fi
  fi
else
  section "no nvcc on PATH: the CUDA backend is neither built nor tested"
fi

if [ $full = yes ]; then
  for preset in cpu-debug cpu-thread; do
    section "sanitizers (preset $preset)"
    build $preset all
    ctest --preset $preset -LE slow -j "$jobs"
  done
  section "static analysis"
  tools/install_dependencies.sh clang clang-tidy clang-format cppcheck valgrind gcovr
  tools/format.sh --check
  build tidy einfield einfield_binary
  tools/cppcheck.sh
  section "memcheck"
  tools/memcheck.sh build/cpu/einfield
  section "many fits"
  EINFIELD_SOAK=10 ctest --preset cpu -R '^soak$' --verbose
  section "fuzzing, ${EINFIELD_FUZZ_SECONDS:-60} s a target"
  tools/fuzz.sh "${EINFIELD_FUZZ_SECONDS:-60}"
  section "coverage"
  tools/coverage.sh
  if command -v nvcc >/dev/null; then
    section "all CUDA architectures: registers and spills"
    build cuda-fat einfield
    cat build/cuda-fat/kernels.md
  fi
fi

section "done"
