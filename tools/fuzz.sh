#!/usr/bin/env bash
# Runs every fuzz target for a while (libFuzzer, sanitizers), starting from the corpus in tests/fuzz/corpus. Failures go to
# build/fuzz/found, new inputs to build/fuzz/corpus. tools/fuzz.sh --keep copies the best new inputs into the tests.
#   tools/fuzz.sh [SECONDS] [TARGET...]      600 seconds each, all targets
#   tools/fuzz.sh --keep
set -euo pipefail
cd "$(dirname "$0")/.."

cmake --preset fuzz -G Ninja >/dev/null
cmake --build --preset fuzz -j "$(nproc)" --target fuzzers
mkdir -p build/fuzz/found
if [ "${1:-}" = --keep ]; then
  for corpus in tests/fuzz/corpus/*; do
    build/fuzz/tests/fuzz/fuzz_"$(basename "$corpus")" -merge=1 "$corpus" build/fuzz/corpus/"$(basename "$corpus")"
  done
  exit
fi
seconds=${1:-600}
shift || true
targets=("$@")
if [ ${#targets[@]} -eq 0 ]; then targets=($(basename -a tests/fuzz/corpus/*)); fi
failures=0
for target in "${targets[@]}"; do
  mkdir -p build/fuzz/corpus/"$target"
  options=(-max_total_time="$seconds" -timeout=20 -rss_limit_mb=4096 -max_len=30000 -print_final_stats=1
    -artifact_prefix="build/fuzz/found/$target-")
  if [ -f "tests/fuzz/$target.dict" ]; then options+=(-dict="tests/fuzz/$target.dict"); fi
  build/fuzz/tests/fuzz/fuzz_"$target" "${options[@]}" build/fuzz/corpus/"$target" tests/fuzz/corpus/"$target" \
    2>build/fuzz/"$target".log || { failures=$((failures + 1)); grep -E 'ERROR|SUMMARY|broken promise' build/fuzz/"$target".log; }
  grep -E 'number_of_executed_units' build/fuzz/"$target".log | sed "s/^/$target: /"
done
[ "$failures" -eq 0 ]
