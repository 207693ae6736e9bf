#!/usr/bin/env bash
# Installs the Debian/Ubuntu packages that einfield needs to be built, tested and run. Does nothing if all are installed.
#   tools/install_dependencies.sh [--check] [--engines] [PACKAGE...]     --check: only list what is missing (exit 1)
#                                                                        --engines: also Slurm, Open MPI, GNU parallel, for
#                                                                        tests/engines.sh
set -euo pipefail

packages=(
  g++ cmake ninja-build pkg-config  # build
  libcfitsio-dev                    # FITS
  libtomlplusplus-dev               # configuration
  nlohmann-json3-dev                # results as JSON, safetensors headers
  libcli11-dev                      # command line
  libfmt-dev                        # formatted text
  libkissfft-dev                    # convolution on the CPU
  libeigen3-dev                     # dense and sparse linear algebra
  libhwy-dev                        # vector instructions chosen at run time
  gnuplot-nox fonts-dejavu-core     # figures
  libgtest-dev libbenchmark-dev     # tests, benchmarks
  python3-venv python3-dev          # the Python module
  dpkg-dev patchelf                 # Debian packages, the tarball
)
check=no
for argument in "$@"; do
  case $argument in
    --check) check=yes ;;
    --engines) packages+=(slurm-wlm munge openmpi-bin parallel) ;;
    -*) echo "usage: $0 [--check] [PACKAGE...]" >&2; exit 2 ;;
    *) packages+=("$argument") ;;
  esac
done

missing=()
for package in "${packages[@]}"; do
  dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0
echo "missing packages: ${missing[*]}"
[ $check = no ] || exit 1
if ! command -v apt-get >/dev/null; then
  echo "$0: no apt-get here; install these packages, or their equivalents, by hand" >&2
  exit 1
fi
as_root=()
if [ "$(id -u)" -ne 0 ]; then
  command -v sudo >/dev/null || { echo "$0: run as root: apt-get install ${missing[*]}" >&2; exit 1; }
  as_root=(sudo)
fi
"${as_root[@]}" apt-get update -qq
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
