#!/usr/bin/env bash
# Compares einfield with JAX, herculens, PyTorch, lenstronomy and jaxtronomy on this machine: builds, installs the peers into
# a virtual environment under build/ (7 GB; 2 GB if PIP_EXTRA_INDEX_URL is PyTorch's index of builds without CUDA), checks that
# all agree, and prints one table of times and memory.
#   run.sh ARGUMENTS         a training step and the forward model (compare.py --help)
#   run.sh mark ARGUMENTS    whole fits, until the model is as good as the noise allows (mark.py --help)
set -euo pipefail
cd "$(dirname "$0")/../.."

generator=()
if command -v ninja >/dev/null; then generator=(-G Ninja); fi
cmake -S . -B build/bench "${generator[@]}" -DCMAKE_BUILD_TYPE=Release -DEINFIELD_ENABLE_CUDA=OFF -DEINFIELD_BUILD_TESTS=OFF \
  -DEINFIELD_BUILD_BENCH=ON >/dev/null
cmake --build build/bench --target einfield_peer einfield >&2

environment=build/peers
stamp=$environment/requirements.txt
if ! cmp -s bench/peers/requirements.txt "$stamp"; then
  python3 -m venv "$environment"
  "$environment/bin/pip" install --quiet -r bench/peers/requirements.txt >&2
  cp bench/peers/requirements.txt "$stamp"
fi
if [ "${1:-}" = mark ]; then
  exec "$environment/bin/python" bench/peers/mark.py --einfield build/bench/einfield "${@:2}"
fi
exec "$environment/bin/python" bench/peers/compare.py --einfield build/bench/bench/einfield_peer "$@"
