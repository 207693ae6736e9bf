#!/usr/bin/env bash
# Writes einfield-<version>-linux-<machine>.tar.gz: one folder that runs wherever it is unpacked (bin, lib, share, examples).
#   tools/tarball.sh                    builds the preset `package` and writes into build/package
#   tools/tarball.sh BUILD [FOLDER]     takes the command of an existing build folder; writes there, or into FOLDER
# Shared libraries that are not glibc's are carried along in lib, with their licenses; bin/einfield finds them relative to
# itself. The file README in the folder states the glibc that it needs: that of the system it was built on, or an older one.
# The CPU backend only. Needs Debian or Ubuntu, whose packages say which license belongs to a library.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() { echo "tarball: $1" >&2; exit 1; }
build=${1:-build/package}
if [ $# -eq 0 ]; then
  tools/install_dependencies.sh
  cmake --preset package >/dev/null
  cmake --build --preset package
fi
out=${2:-$build}
[ -x "$build/einfield" ] || fail "$build has no command einfield"
version=$(sed -n 's/^CMAKE_PROJECT_VERSION:STATIC=//p' "$build/CMakeCache.txt")
name=einfield-$version-linux-$(uname -m)
folder=$out/$name
rm -rf "$folder" "$folder.tar.gz"
cmake --install "$build" --component runtime --strip --prefix "$folder" >/dev/null
docs=$(dirname "$(find "$folder/share" -name CITATION.cff)")
mv "$docs/examples" "$folder/examples"

# glibc belongs to the system, and with it the loader.
of_glibc='^(ld-linux.*|linux-vdso|lib(c|m|mvec|dl|rt|pthread|resolv|util|anl|nss_[a-z]*))\.so'
mkdir -p "$folder/lib"
files=()
while read -r library arrow path _; do
  [[ ! ${library##*/} =~ $of_glibc ]] || continue
  if [ "$arrow" != '=>' ] || [ ! -f "$path" ]; then fail "$library: not found"; fi
  cp -L "$path" "$folder/lib/$library"
  files+=("$(readlink -f "$path")")
done < <(ldd "$build/einfield")
tools/bundled_licenses.sh "$docs/licenses" "${files[@]}" || fail "licenses"
patchelf --set-rpath "\$ORIGIN" "$folder"/lib/*
patchelf --set-rpath "\$ORIGIN/../lib" "$folder/bin/einfield"
chmod 644 "$folder"/lib/*
glibc=$(readelf --version-info "$folder/bin/einfield" "$folder"/lib/* | grep -oE 'GLIBC_[0-9.]+' | sort -Vu | tail -n 1)
cat >"$folder/README" <<EOF
einfield $version for Linux on $(uname -m): fits strong gravitational lenses.

It needs glibc ${glibc#GLIBC_} or newer (ldd --version prints yours), and runs from any folder:
    bin/einfield help
    cp examples/sie_noisy.toml /tmp && bin/einfield simulate /tmp/sie_noisy.toml && bin/einfield fit /tmp/sie_noisy.toml
Figures need gnuplot. This build has no CUDA backend.

License: share/doc/einfield/LICENSE. lib has the shared libraries that einfield uses, as Debian distributes them;
share/doc/einfield/licenses has their licenses, by Debian package, and those of the libraries compiled into the command.
EOF
tar --create --gzip --file "$folder.tar.gz" --directory "$out" --sort=name --owner=0 --group=0 --numeric-owner "$name"
echo "$folder.tar.gz (needs glibc ${glibc#GLIBC_})"
