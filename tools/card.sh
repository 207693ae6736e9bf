#!/usr/bin/env bash
# What a person with a CUDA card runs: tests, compute-sanitizer, times, and the same step in JAX and PyTorch. Writes one
# Markdown table with card, driver and clocks.
#   tools/card.sh [run] [PART...]        builds what is missing, then runs all parts, or these:
#                                          card tests sanitizer times peers
#   tools/card.sh prepare [ARCHITECTURE] on a machine with nvcc: builds for a card (default 90) and packs .card/, for a
#                                        machine that has the card, but neither packages nor network. Copy .card/ there:
#                                          bash .card/card.sh run
#   tools/card.sh pack FOLDER            packs .card/ from a build that exists
# Results are in build/card-results or .card/results: card.md, and a log per part. A part that cannot run says why, and the
# others run. Status 1 if a part has failed, 0 if all have run or were skipped.
#
# EINFIELD_DEVICE_RUNNER may name a command that runs its arguments on a virtual CUDA device: a rehearsal, whose times mean
# nothing. EINFIELD_CARD_FILTER replaces the cases of einfield_bench that are timed.
set -uo pipefail

here=$(cd "$(dirname "$0")" && pwd)
unpacked=/var/tmp/einfield-card  # the tests of a packed build look for their data here
runner=${EINFIELD_DEVICE_RUNNER:-}
programs="einfield_bench einfield_one_step einfield_accuracy einfield_peer einfield"

usage() { sed -n '2,16s/^# \{0,1\}//p' "$0" >&2; exit 2; }
fail() { echo "card: $1" >&2; exit 1; }
# The tests that need a device: all of test_cuda_*, and the cases of other suites whose names say cuda.
tests() {
  local path
  for path in "$root"/tests/test_* "$root"/bin/test_*; do
    case ${path##*/} in
      *.*) ;;
      test_cuda_* | test_backends | test_reference | test_stages) [ ! -x "$path" ] || echo "${path##*/}" ;;
    esac
  done
}
# The path of a program, built or unpacked.
program() {
  local folder
  for folder in "$root/bin" "$root" "$root/bench" "$root/tests"; do
    if [ -f "$folder/$1" ] && [ -x "$folder/$1" ]; then echo "$folder/$1"; return; fi
  done
  echo "card: no program $1 in $root" >&2
  return 1
}

prepare() {
  local architecture=${1:-90}
  cd "$here/.." || fail "no checkout around $here"
  command -v nvcc >/dev/null || fail "prepare needs nvcc on PATH"
  set -e
  # The packed libraries are found beside the programs, whatever LD_LIBRARY_PATH is.
  cmake -S . -B build/card -G Ninja -DCMAKE_BUILD_TYPE=Release -DEINFIELD_ENABLE_CUDA=ON -DEINFIELD_CUDA_RUNTIME=Static \
    "-DCMAKE_CUDA_ARCHITECTURES=$architecture" "-DEINFIELD_TEST_ROOT=$unpacked" \
    -DCMAKE_EXE_LINKER_FLAGS=-Wl,--as-needed "-DCMAKE_BUILD_RPATH=\$ORIGIN/../lib" >/dev/null
  # shellcheck disable=SC2086  # a list of words
  cmake --build build/card -j "${JOBS:-$(nproc)}" --target einfield_binary gpu_tests einfield_bench einfield_one_step \
    einfield_accuracy einfield_peer
  pack build/card
  echo "card: packed for compute capability $architecture; there: bash .card/card.sh run"
}
pack() {
  local folder=.card name library
  set -e
  root=$(cd "$1" && pwd) || fail "no build in $1"
  cd "$here/.."
  rm -rf "$folder"
  mkdir -p $folder/tree/bin $folder/tree/lib $folder/tree/problem $folder/tree/tests $folder/tree/bench
  # shellcheck disable=SC2046  # a list of words
  for name in $programs $(tests); do strip -o "$folder/tree/bin/$name" "$(program "$name")"; done
  # All libraries but those of the C library, of the compiler and of CUDA.
  for name in "$folder"/tree/bin/*; do ldd "$name"; done | awk '$3 ~ /^\//{print $3}' | sort -u |
    grep -vE '/(libc|libm|libmvec|libdl|librt|libpthread|libresolv|libstdc\+\+|libgcc_s|libcublas|libcublasLt|libcufft)\.so' |
    while read -r library; do cp -L "$library" $folder/tree/lib/; done
  $folder/tree/bin/einfield_peer export $folder/tree/problem 100 200
  cp -r tests/golden $folder/tree/tests/
  cp -r examples $folder/tree/
  cp -r bench/peers $folder/tree/bench/
  # The programs share their kernels: a dictionary as large as all of them makes a tenth of their size.
  tar -C $folder/tree -c . | xz -T1 --lzma2=preset=6,dict=192MiB >$folder/programs.tar.xz
  rm -rf $folder/tree
  cp "$here/card.sh" $folder/
  echo "card: $(du -sh $folder | cut -f1) in $folder/"
}

# ---- programs ---------------------------------------------------------------------------------------------------------
# Folders of cuFFT and cuBLAS that the loader does not know: of a toolkit, or of Python's packages.
cuda_libraries() {
  local library
  for library in libcufft.so.12 libcublas.so.13 libcublasLt.so.13; do
    if ldconfig -p 2>/dev/null | grep -q "$library"; then continue; fi
    find /usr/local/cuda*/ /opt /usr/lib /usr/local/lib "$HOME" -name "$library" 2>/dev/null | head -1
  done
}
unpack() {
  mkdir -p $unpacked/lib && tar -C $unpacked -xJf "$here/programs.tar.xz" || return 1
  cuda_libraries | while read -r library; do ln -sf "$library" $unpacked/lib/; done
}
build() {
  local preset=cuda
  if [ -n "$runner" ]; then preset=cuda-virtual; fi
  cd "$here/.." || return 1
  root=$PWD/build/$preset
  command -v nvcc >/dev/null || { echo "no nvcc on PATH"; return 1; }
  if command -v apt-get >/dev/null; then tools/install_dependencies.sh || return 1; fi
  cmake --preset $preset -G Ninja && cmake --build "$root" -j "${JOBS:-$(nproc)}" --target einfield_binary gpu_tests \
    einfield_bench einfield_one_step einfield_accuracy einfield_peer
}

# ---- parts ------------------------------------------------------------------------------------------------------------
# A part prints its log, and one word more on descriptor 3 for each line of the table. It returns 77 if it cannot run.
limited() {  # seconds, command
  local status=0
  timeout -k 5 "$@" || status=$?
  if [ $status -eq 124 ] || [ $status -eq 137 ]; then echo "card: stopped after $1 s: ${*:2}"; fi
  return $status
}
count() { grep -cE "^\[ +$1 +\] .*ms\)" "$2"; }  # tests of GoogleTest that ended so
note() { printf '%s\n' "$*" >&3; }
no_card() { echo "no card: $1 needs a CUDA device"; exit 77; }

part_card() {
  [ -n "$card" ] || no_card "this part"
  if [ -n "$runner" ]; then echo "a virtual device: $runner"; return; fi
  nvidia-smi
  nvidia-smi --query-gpu=name,driver_version,compute_cap,clocks.sm,clocks.max.sm,clocks.mem,power.limit,compute_mode --format=csv
  # Clocks at rest say little: those during half a minute of work.
  (while nvidia-smi --query-gpu=clocks.sm,clocks.mem,power.draw --format=csv,noheader; do sleep 2; done) &
  local watch=$!
  limited 60 "$(program einfield_bench)" --backend cuda --benchmark_filter='^step/cuda/float/n:100/h:200/t:1$' \
    --benchmark_min_time=20
  kill $watch
}
part_tests() {
  [ -n "$card" ] || no_card "this part"
  local failed=0 name filter log
  for name in $(tests); do
    case $name in test_cuda_*) filter='*' ;; *) filter='*cuda*' ;; esac
    log=$results/$name.log
    # shellcheck disable=SC2086  # the runner is words
    limited "${EINFIELD_CARD_LIMIT:-600}" $runner "$(program "$name")" "--gtest_filter=$filter" >"$log" 2>&1 || failed=1
    tail -3 "$log"
    note "| \`$name\` | $(count 'OK' "$log") passed, $(count 'SKIPPED' "$log") skipped, $(count 'FAILED' "$log") failed |"
  done
  return $failed
}
part_sanitizer() {
  [ -n "$card" ] || no_card "this part"
  [ -z "$runner" ] || { echo "compute-sanitizer needs a real card"; return 77; }
  command -v compute-sanitizer >/dev/null || { echo "no compute-sanitizer on PATH"; return 77; }
  local failed=0 tool math status
  for tool in memcheck racecheck initcheck synccheck; do
    for math in fp32 tf32x3; do
      status=ok
      limited 120 compute-sanitizer --tool $tool --error-exitcode 9 "$(program einfield_one_step)" cuda float 24 40 $math ||
        { status=FAILED; failed=1; }
      note "| $tool, 24² pixels, 3 × 40, $math | $status |"
    done
  done
  return $failed
}
part_times() {
  [ -n "$card" ] || no_card "this part"
  local filter='^(step|network|network_adjoint)/cuda/float/n:100/h:200/t:1(/math:.*)?$'
  filter+='|^step/cuda/.*/systems:|^step/cuda/double/n:100/h:200/t:1$|^(lbfgs|lm)/cuda/'
  filter=${EINFIELD_CARD_FILTER:-$filter}
  local json=$results/times.json
  # shellcheck disable=SC2086
  limited "${EINFIELD_CARD_LIMIT:-600}" $runner "$(program einfield_bench)" --backend cuda "--benchmark_filter=$filter" \
    --benchmark_out="$json" --benchmark_out_format=json || return 1
  awk -F'"' '/"name":/{name = $4} /"median_ms":/{split($3, value, /[:,]/); printf "| `%s` | %.4f ms |\n", name, value[2]}' "$json" >&3
}
part_peers() {
  [ -n "$card" ] || no_card "this part"
  [ -z "$runner" ] || { echo "JAX and PyTorch need a real card"; return 77; }
  command -v python3 >/dev/null || { echo "no python3 on PATH"; return 77; }
  local folder=$root/problem peers=$root/bench/peers name ran=no
  if [ ! -d "$peers" ]; then peers=$here/../bench/peers; fi
  if [ ! -f "$folder/problem.json" ]; then
    mkdir -p "$folder" && "$(program einfield_peer)" export "$folder" 100 200 || return 1
  fi
  for name in jax torch; do
    if ! python3 -c "import numpy, $name" 2>/dev/null; then echo "no $name (or numpy) in $(command -v python3)"; continue; fi
    ran=yes
    XLA_PYTHON_CLIENT_PREALLOCATE=false limited 300 python3 "$peers/peer_card.py" "$folder" $name |
      tee "$results/$name.md" || return 1
    grep '^|' "$results/$name.md" >&3
  done
  [ $ran = yes ] || return 77
}

run() {
  local begin=$SECONDS status failed=0 name start
  root=$here/..
  if [ -f "$here/programs.tar.xz" ]; then root=$unpacked; results=$here/results; else results=$here/../build/card-results; fi
  rm -rf "$results"
  mkdir -p "$results" && results=$(cd "$results" && pwd)
  card=$runner
  if [ -z "$card" ]; then card=$(nvidia-smi -L 2>/dev/null | grep GPU | head -1); fi
  if [ -f "$here/programs.tar.xz" ]; then
    unpack >"$results/unpack.log" 2>&1 ||
      fail "programs.tar.xz cannot be unpacked to $unpacked: $(tail -1 "$results/unpack.log")"
    missing=$(for name in "$unpacked"/bin/*; do ldd "$name"; done | awk '/not found/{print $1}' | sort -u | tr '\n' ' ')
    if [ -n "$missing" ]; then echo "card: libraries that this machine lacks: $missing"; fi
  elif [ -n "$card" ]; then
    echo "card: building; log: $results/build.log"
    build >"$results/build.log" 2>&1 || fail "the build has failed: $(tail -1 "$results/build.log")"
    root=$here/../build/cuda
    if [ -n "$runner" ]; then root=$here/../build/cuda-virtual; fi
    root=$(cd "$root" && pwd)
  fi
  {
    echo "# einfield on a card, $(date -u +%Y-%m-%d)"
    echo
    if [ -n "$runner" ]; then
      echo "A rehearsal on a virtual device: the times mean nothing."
    elif [ -n "$card" ]; then
      echo "$(nvidia-smi --query-gpu=name,driver_version --format=csv,noheader | head -1 | sed 's/, /, driver /'), clocks" \
        "$(nvidia-smi --query-gpu=clocks.max.sm,clocks.max.mem --format=csv,noheader | head -1 | sed 's/, / and /') at most"
    else
      echo "No card: $(command -v nvidia-smi >/dev/null && nvidia-smi -L 2>&1 | head -1 || echo "no nvidia-smi on PATH")."
    fi
    echo
    echo "| what | result |"
    echo "| --- | --- |"
  } >"$results/card.md"
  for name in "$@"; do
    start=$SECONDS status=0
    ("part_$name") >"$results/$name.log" 2>&1 3>>"$results/card.md" || status=$?
    case $status in
      0) status=ok ;;
      77) status="skipped: $(tail -1 "$results/$name.log")" ;;
      *) status="FAILED: $(tail -1 "$results/$name.log" | cut -c1-120)"; failed=1 ;;
    esac
    echo "| part \`$name\`, $((SECONDS - start)) s | $status |" | tee -a "$results/card.md"
  done
  if grep -qs 'MHz, .* W$' "$results/card.log"; then
    echo "| highest clocks, and power, of a step in a row | $(grep 'MHz, .* W$' "$results/card.log" | sort -n | tail -1) |" \
      >>"$results/card.md"
  fi
  printf '\n%s\n\nall of it: %d s; logs: %s\n' "$(cat "$results/card.md")" $((SECONDS - begin)) "$results"
  return $failed
}

case ${1:-run} in
  prepare) shift; [ $# -le 1 ] || usage; prepare "$@" ;;
  pack) [ $# -eq 2 ] || usage; pack "$2" ;;
  run)
    if [ $# -gt 0 ]; then shift; fi
    for name in "$@"; do case $name in card | tests | sanitizer | times | peers) ;; *) usage ;; esac; done
    if [ $# -eq 0 ]; then set -- card tests sanitizer times peers; fi
    run "$@" ;;
  *) usage ;;
esac
