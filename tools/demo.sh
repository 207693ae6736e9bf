#!/usr/bin/env bash
# From a fresh clone to a fitted neural potential: installs what is missing, builds, simulates the noisy SIE lens of
# Biggio et al. (2021), fits it, and says where the numbers and figures are. Uses a GPU if there is one.
set -euo pipefail
cd "$(dirname "$0")/.."

tools/install_dependencies.sh
preset=cpu
if command -v nvcc >/dev/null && nvidia-smi -L 2>/dev/null | grep -q GPU; then preset=cuda; fi
echo "building (preset $preset)"
cmake --preset $preset -G Ninja -DEINFIELD_BUILD_TESTS=OFF -DEINFIELD_BUILD_BENCH=OFF -B build/demo >/dev/null
cmake --build build/demo

mkdir -p demo
cp examples/sie_noisy.toml demo/
einfield=build/demo/einfield
$einfield simulate demo/sie_noisy.toml --overwrite
$einfield fit demo/sie_noisy.toml --out demo/sie_noisy_fit --overwrite
echo "figures: demo/sie_noisy_fit/figures"
