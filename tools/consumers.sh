#!/usr/bin/env bash
# Builds examples/link in every way in which another project can use einfield, and runs it.
#   tools/consumers.sh           from the installed build/cpu: find_package, pkg-config; add_subdirectory: the include path
#   tools/consumers.sh --full    also: add_subdirectory built and run; a shared library, its SONAME and its visible names
set -euo pipefail
cd "$(dirname "$0")/.."
full=${1:-}
export CMAKE_GENERATOR=Ninja
compiler=${CXX:-c++}

fail() { echo "consumers: $1" >&2; exit 1; }
by_find_package() {  # build folder, installed tree
  cmake -S examples/link -B "$1" -DCMAKE_BUILD_TYPE=Release "-DCMAKE_PREFIX_PATH=$PWD/$2" >/dev/null
  cmake --build "$1"
  "$1/link"
}
by_pkg_config() {  # program, installed tree
  local pc flags
  pc=$(find "$2" -name einfield.pc)
  flags=$(PKG_CONFIG_PATH=$(dirname "$pc") pkg-config --cflags --libs einfield)
  # shellcheck disable=SC2086  # flags are words
  "$compiler" -std=c++17 examples/link/main.cpp $flags "-Wl,-rpath,$(dirname "$(dirname "$pc")")" -o "$1"
  "$1"
}

rm -rf build/installed-cpu build/link build/consumer
cmake --install build/cpu --prefix build/installed-cpu >/dev/null
[ -n "$(find build/installed-cpu -name LICENSE)" ] || fail "the license is not installed"
echo "find_package"
by_find_package build/link build/installed-cpu
echo "pkg-config"
by_pkg_config build/link/by_pkg_config build/installed-cpu
echo "add_subdirectory"
cmake -S tests/consumer -B build/consumer -DEINFIELD_ENABLE_CUDA=OFF >/dev/null
cmake --build build/consumer --target public_headers
[ "$full" = --full ] || exit 0

cmake --build build/consumer --target consumer
build/consumer/consumer

echo "shared library"
rm -rf build/installed-shared build/link-shared
cmake -S . -B build/shared -DBUILD_SHARED_LIBS=ON -DEINFIELD_ENABLE_CUDA=OFF -DEINFIELD_BUILD_TESTS=OFF \
  -DEINFIELD_BUILD_BENCH=OFF >/dev/null
cmake --build build/shared
cmake --install build/shared --prefix build/installed-shared >/dev/null
library=$(find build/installed-shared -name libeinfield.so)
readelf -d "$library" | grep -q 'SONAME.*\[libeinfield\.so\.[0-9]*\.[0-9]*\]' || fail "$library has no SONAME with a version"
# Every function that is visible is declared in a public header.
hidden=0
for name in $(nm -DC --defined-only "$library" | sed -nE 's/^[0-9a-f]+ T ([a-z]+ )*einfield::([A-Za-z_]+).*/\2/p' | sort -u); do
  grep -rqw "$name" include || { echo "visible, but in no public header: $name" >&2; hidden=1; }
done
[ "$hidden" -eq 0 ] || fail "internal names are visible in $library"
by_find_package build/link-shared build/installed-shared
by_pkg_config build/link-shared/by_pkg_config build/installed-shared
