#!/usr/bin/env bash
# Installs what is missing, builds, and runs the tests. It is the same command on a laptop, a cluster and in continuous
# integration.
#   tools/test.sh                  CPU build and tests, installation, then the CUDA backend if nvcc is on PATH
#   tools/test.sh --full           also: all CUDA architectures, packages, sanitizers, the documentation, static analysis,
#                                  memcheck, 1200 fits, fuzzing, coverage, every fault, the samplers and the wheel of the
#                                  Python module (before a release)
#   tools/test.sh --preset NAME    only the build and the tests of one CMake preset, for example cpu-debug; cuda-fat is
#                                  compiled and its registers are checked
#
# With a GPU the CUDA tests run on it. EINFIELD_DEVICE_RUNNER may name a command that runs its arguments on a virtual CUDA
# device instead. EINFIELD_FAULT_RUNNER may name one that makes a call fail (tools/fault_injection.sh). Without these and
# without a GPU the kernels are compiled and their tests are reported as skipped.
# The Python module is built and tested where its packages can be installed (pip, into build/python-venv); else that is said.
# EINFIELD_REFERENCE may name the folder of the full reference data. Tests that need it are skipped without it.
set -euo pipefail
cd "$(dirname "$0")/.."

full=no
only=
while [ $# -gt 0 ]; do
  case $1 in
    --full) full=yes ;;
    --preset) only=${2:?--preset needs the name of a CMake preset}; shift ;;
    *) echo "usage: $0 [--full | --preset NAME]" >&2; exit 2 ;;
  esac
  shift
done
jobs=$(nproc)
section() { printf '\n== %s (%(%H:%M:%S)T)\n' "$1" -1; }
build() {  # preset, targets
  local python=()
  if [ "$1" = cpu ]; then python=("${python_options[@]}"); fi
  cmake --preset "$1" -G Ninja "${python[@]}" >/dev/null
  cmake --build --preset "$1" -j "$jobs" --target "${@:2}"
}
# What the Python module is built and tested with. A virtual environment that has it all is used without the network.
python_options=(-DEINFIELD_PYTHON=OFF)
prepare_python() {
  local venv=$PWD/build/python-venv pins=tests/python/module/requirements.txt log=build/python-venv.log
  mkdir -p build
  if ! cmp -s "$pins" "$venv/installed.txt"; then
    rm -rf "$venv"
    if ! { python3 -m venv "$venv" && "$venv/bin/pip" install --quiet --retries 1 --timeout 20 --requirement "$pins"; } >"$log" 2>&1; then
      tail -n 3 "$log"
      echo "the Python module is SKIPPED: its packages ($pins) cannot be installed here"
      return
    fi
    cp "$pins" "$venv/installed.txt"
  fi
  python_options=(-DEINFIELD_PYTHON=ON "-DPython_EXECUTABLE=$venv/bin/python")
}
# The notebooks that need samplers, and a wheel with its libraries.
test_python_fully() {
  local own=$PWD/build/python-venv/bin/python log=build/python-venv.log
  if [ "${python_options[0]}" != -DEINFIELD_PYTHON=ON ]; then
    echo "SKIPPED: the Python module is not built here"
    return
  fi
  if ! "$own" -m pip install --quiet --requirement tests/python/module/requirements_full.txt >"$log" 2>&1; then
    tail -n 3 "$log"
    echo "SKIPPED: its packages (tests/python/module/requirements_full.txt) cannot be installed here"
    return
  fi
  PYTHON=$own tools/wheel.sh build/wheel
  EINFIELD_NOTEBOOKS=1 EINFIELD_WHEEL=$(echo "$PWD"/build/wheel/*.whl) PYTHONPATH=$PWD/build/cpu/python \
    "$own" -m pytest -q -rs -p no:cacheprovider tests/python/module/test_notebooks.py tests/python/module/test_wheel.py
}
run_preset() {  # a preset of the CPU; the suites labeled slow only where nothing slows them down further
  local slow=()
  if [ "$1" != cpu ]; then slow=(-LE slow); fi
  build "$1" all
  ctest --preset "$1" "${slow[@]}" -j "$jobs"
}
compile_all_architectures() {
  build cuda-fat einfield
  cat build/cuda-fat/kernels.md
}
link_installed() {  # preset, example, CMake options: installs the library and builds the example against it
  rm -rf "build/installed-$1" "build/$2"
  cmake --install "build/$1" --prefix "build/installed-$1" >/dev/null
  cmake -S "examples/$2" -B "build/$2" -G Ninja -DCMAKE_BUILD_TYPE=Release "-DCMAKE_PREFIX_PATH=$PWD/build/installed-$1" \
    "${@:3}" >/dev/null
  cmake --build "build/$2"
}

section "packages"
tools/install_dependencies.sh

if [ -n "$only" ]; then
  if [ "$only" = cpu ]; then
    section "packages of Python"
    prepare_python
  fi
  section "preset $only"
  if [ "$only" = cuda-fat ]; then compile_all_architectures; else run_preset "$only"; fi
  section "done"
  exit
fi

section "packages of Python"
prepare_python
section "CPU build"
build cpu all
section "CPU tests"
ctest --preset cpu -j "$jobs"
section "C++ projects that use the library"
tools/consumers.sh

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
  section "a CUDA project that uses the installed library"
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
    run_preset $preset
  done
  section "C++ projects that use the library: every way"
  tools/consumers.sh --full
  section "documentation"
  tools/docs.sh
  section "notebooks and the wheel of the Python module"
  test_python_fully
  section "packages on a clean system"
  if [ "$(id -u)" -eq 0 ]; then
    tools/install_dependencies.sh debootstrap
    cmake --workflow --preset package >/dev/null
    tools/tarball.sh build/package
    tests/clean_system.sh build/package
  else
    echo "SKIPPED: it needs root, to make a system with debootstrap"
  fi
  section "static analysis"
  tools/lint.sh
  tools/install_dependencies.sh --engines clang libclang-rt-dev valgrind gcovr
  section "surveys under Slurm, Open MPI and GNU parallel"
  ctest --preset cpu -L engines --verbose
  section "memcheck"
  tools/memcheck.sh build/cpu/einfield
  section "the paper on its reference images"
  EINFIELD_PAPER=1 ctest --preset cpu -R '^paper$' --verbose
  section "many fits"
  EINFIELD_SOAK=10 ctest --preset cpu -R '^soak$' --verbose
  section "fuzzing, ${EINFIELD_FUZZ_SECONDS:-60} s a target"
  tools/fuzz.sh "${EINFIELD_FUZZ_SECONDS:-60}"
  section "coverage"
  tools/coverage.sh
  if command -v nvcc >/dev/null; then
    section "all CUDA architectures: registers and spills"
    compile_all_architectures
  fi
fi

section "done"
