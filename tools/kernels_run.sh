#!/usr/bin/env bash
# Checks that every kernel of the library has run on a device. Prints the kernels that no run has launched, and fails if
# there are any.
#   tools/kernels_run.sh LIBRARY REPORT...
# LIBRARY is libeinfield.a, whose host code registers each kernel under its mangled name. A REPORT is JSON that names the
# launched kernels, demangled, in members "name".
set -euo pipefail
if [ $# -lt 2 ]; then
  echo "usage: $0 LIBRARY REPORT..." >&2
  exit 2
fi
library=$1
shift

# These kernels are compiled and asked for their attributes, but never launched: ours shows whether the device can load
# the build, CUB's shows for which architecture it was compiled.
unlaunched='::(probe_kernel|EmptyKernel<void>)\('

shipped=$(readelf -p .rodata.str1.8 -p .rodata.str1.1 "$library" 2>/dev/null |
  sed -nE 's/^ *\[ *[0-9a-f]+\] +(_Z[A-Za-z0-9_]+)$/\1/p' | c++filt | grep -E '[kK]ernel(<.*>)?\(' | sort -u || true)
ran=$(grep -ohE '"name": "[^"]+"' "$@" | sed -E 's/^"name": "(.*)"$/\1/' | sort -u)
idle=$(comm -23 <(printf '%s\n' "$shipped") <(printf '%s\n' "$ran"))
missing=$(printf '%s\n' "$idle" | grep -vE "^$|$unlaunched" || true)

count() { printf '%s' "$1" | grep -c '' || true; }
printf 'kernels: %d in %s, %d have run, %d have not and %d never do\n' "$(count "$shipped")" "$library" \
  $(($(count "$shipped") - $(count "$idle"))) "$(count "$missing")" "$(printf '%s\n' "$idle" | grep -cE "$unlaunched" || true)"
if [ "$(count "$shipped")" -lt 50 ]; then
  echo "kernels_run: too few kernels: are their names no longer where they are looked for?" >&2
  exit 1
fi
if [ -n "$missing" ]; then
  printf '%s\n' "$missing" >&2
  exit 1
fi
