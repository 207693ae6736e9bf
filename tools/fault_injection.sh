#!/usr/bin/env bash
# Makes CUDA runtime, cuBLAS and cuFFT calls of small fits fail, one call per run. Every run must end in time, with status 1
# (3 if the device itself is not available) and one error line. It must release everything and leave a valid checkpoint,
# the old one or a newer one.
#   tools/fault_injection.sh BINARY           a sample: the first calls of every function
#   tools/fault_injection.sh BINARY --every   every call of every function
#
# EINFIELD_FAULT_RUNNER names a command that takes FUNCTION:N, --, and a command to run on a virtual CUDA device where the
# N-th call of FUNCTION fails. It prints "injected failure" on stderr when that has happened, and "leak" or "problem" for
# each error of the program that it finds.
set -euo pipefail
binary=$(realpath "$1")
every=no
if [ "${2:-}" = --every ]; then every=yes; fi
: "${EINFIELD_FAULT_RUNNER:?names the command that makes a call fail}"
read -ra runner <<<"$EINFIELD_FAULT_RUNNER"
cd "$(dirname "$0")/.."
functions=$(grep -rohE '\b(cuda|cublas|cufft)[A-Z][A-Za-z0-9]*\(' kernels | tr -d '(' | sort -u)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Two fits: tiles with a direct convolution; and a layer too wide for a tile (cuBLAS) with a wide PSF (cuFFT), a pixelated
# source (sorting) and penalties.
cat >"$work/tiles.toml" <<'END'
recipe = "biggio2021"
[observation]
image = "tiles.fits[IMAGE]"
noise = 0.5
psf = { fwhm = 0.5, size = 3 }
pixel_scale = 0.3
[[lens]]
profile = "SIE"
theta_E = 1.2
e1 = 0.1
e2 = -0.05
fit = ["theta_E"]
[[source]]
profile = "GAUSSIAN"
amp = 10.0
sigma = 0.5
[network]
hidden = [8, 7]
[optimizer]
steps = 6
checkpoint_every = 1
[simulate]
nx = 24
ny = 25
noise = 0.5
seed = 2
END
sed -e 's/tiles.fits/libraries.fits/' -e 's/fwhm = 0.5, size = 3/fwhm = 1.0, size = 23/' -e 's/hidden = .*/hidden = [8, 1300]/' \
  -e 's/profile = "GAUSSIAN"/profile = "PIXELATED"/' -e 's/^amp = .*/nx = 6\nny = 6/' \
  -e 's/^sigma = .*/pixel_scale = 0.4\nfit = ["pixels"]/' "$work/tiles.toml" >"$work/libraries.toml"
printf '[regularization]\nsmoothness = 0.1\nweight_decay = 1e-3\n' >>"$work/libraries.toml"
"$binary" simulate "$work/tiles.toml" >/dev/null
cp "$work/tiles.fits" "$work/libraries.fits"

fit() {  # fault, configuration, directory
  timeout 120 "${runner[@]}" "$1" -- "$binary" fit "$work/$2.toml" --backend cuda --quiet --out "$3" "${@:4}" 2>"$work/stderr"
}
complain() {
  printf 'fault_injection: %s:%s of %s: %s\n' "$function" "$n" "$config" "$1" >&2
  sed 's/^/    /' "$work/stderr" >&2
  failures=$((failures + 1))
}

failures=0 runs=0 reached=0
for config in tiles libraries; do
  # The earlier run that every run below resumes.
  fit cudaMalloc:1000000000 $config "$work/$config" --set optimizer.steps=2
  for function in $functions; do
    harmless=0
    for ((n = 1; ; ++n)); do
      if [ $every = no ] && [ $n -gt 2 ]; then break; fi
      rm -rf "$work/out"
      cp -r "$work/$config" "$work/out"
      status=0
      fit "$function:$n" $config "$work/out" --resume || status=$?
      runs=$((runs + 1))
      if ! grep -q 'injected failure' "$work/stderr"; then
        if [ $status -ne 0 ]; then complain "status $status without a fault"; fi
        break
      fi
      reached=$((reached + 1))
      errors=$(grep -c '^einfield: error: ' "$work/stderr" || true)
      case $status in
        0)  # what a destructor does may fail in silence: the work is done
          [ "$errors" -eq 0 ] || complain "an error, but status 0" ;;
        1 | 3) [ "$errors" -eq 1 ] || complain "$errors error lines, expected one" ;;
        124) complain "hangs" ;;
        *) complain "status $status" ;;
      esac
      # A release that fails leaves its own resource.
      case $function in
        *Free* | *Destroy*) ;;
        *) if grep -qE 'leak|problem' "$work/stderr"; then complain "leaks"; fi ;;
      esac
      if [ -n "$(grep -vE '^einfield: error: |injected failure|leak|problem|^ |^$' "$work/stderr" || true)" ]; then
        complain "says more than its error"
      fi
      if ! "$binary" fit "$work/$config.toml" --backend cpu --dry-run --resume --out "$work/out" >/dev/null 2>"$work/stderr"; then
        complain "no valid checkpoint"
      fi
    done
  done
done
printf 'fault_injection: %d runs, %d calls failed, %d complaints\n' "$runs" "$reached" "$failures"
[ "$reached" -gt 20 ] && [ "$failures" -eq 0 ]
