#!/usr/bin/env bash
# codespell over everything that a person reads. tools/spelling.txt lists words that are right although it doubts them.
set -euo pipefail
cd "$(dirname "$0")/.."
tools/install_dependencies.sh codespell
codespell --ignore-words tools/spelling.txt --skip '*.png,tests/fuzz/corpus,tests/golden,LICENSE' \
  ./*.md ./*.cff docs examples include host kernels python tests tools bench
