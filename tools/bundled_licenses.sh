#!/usr/bin/env bash
# Copies the licenses of shared libraries that are given away with einfield, as Debian keeps them.
#   tools/bundled_licenses.sh FOLDER LIBRARY...
# FOLDER gets one file for each Debian package, in `common` the licenses that Debian writes once for all packages, and
# libraries.txt: the names of a library and of its package in each line. Fails for a library without a license.
set -euo pipefail
folder=$1
shift
mkdir -p "$folder/common"
# Debian lists some files of /usr/lib in /lib.
owners=$(dpkg-query --search "$@" "${@#/usr}" 2>/dev/null || true)
for file in "$@"; do
  package=$(awk -v a="$file" -v b="${file#/usr}" '$2 == a || $2 == b { split($1, name, ":"); print name[1]; exit }' <<<"$owners")
  if [ ! -f "/usr/share/doc/$package/copyright" ]; then
    echo "bundled_licenses: $file: no license in /usr/share/doc" >&2
    exit 1
  fi
  cp -L "/usr/share/doc/$package/copyright" "$folder/$package"
  echo "${file##*/} $package"
done >"$folder/libraries.txt"
grep -rhoE '/usr/share/common-licenses/[A-Za-z0-9.-]*[A-Za-z0-9]' "$folder" | sort -u | while read -r license; do
  [ ! -f "$license" ] || cp -L "$license" "$folder/common/"
done
