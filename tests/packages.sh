#!/usr/bin/env bash
# The Debian packages and the tarball of a build folder: what is in them, and that the command in them runs elsewhere.
# tests/clean_system.sh installs them on a clean system.
#   tests/packages.sh BUILD
set -euo pipefail
build=$(readlink -f "$1")
cd "$(dirname "$0")/.."
for tool in dpkg-shlibdeps patchelf; do
  command -v $tool >/dev/null || { echo "packages: skipped, no $tool"; exit 77; }
done
work=$(mktemp -d "${TMPDIR:-/tmp}/einfield-packages-XXXXXX")
trap 'rm -rf "$work"' EXIT
fail() { echo "packages: $*" >&2; exit 1; }
version=$(sed -n 's/^version: *//p' CITATION.cff)

cpack --config "$build/CPackConfig.cmake" -B "$work/deb" -D CPACK_DEBIAN_COMPRESSION_TYPE=gzip >"$work/log" 2>&1 ||
  fail "cpack: $(cat "$work/log")"
machine=$(dpkg --print-architecture)
runtime=$work/deb/einfield_${version}_$machine.deb
development=$work/deb/libeinfield-dev_${version}_$machine.deb
for needed in libc6 libcfitsio libhwy libstdc++6; do
  dpkg-deb --field "$runtime" Depends | grep -q "$needed" || fail "einfield does not depend on $needed"
done
for needed in libcfitsio-dev libhwy-dev; do
  dpkg-deb --field "$development" Depends | grep -q "$needed" || fail "libeinfield-dev does not depend on $needed"
done
dpkg-deb --extract "$runtime" "$work/runtime"
dpkg-deb --extract "$development" "$work/development"
for file in bin/einfield share/doc/einfield/{copyright,LICENSE,CITATION.cff} share/doc/einfield/examples/sie_noisy.toml; do
  [ -f "$work/runtime/usr/$file" ] || fail "einfield has no $file"
done
licenses() { grep -cv '^#' packaging/linked_libraries.csv; }
[ "$(find "$work/runtime/usr/share/doc/einfield/licenses" -type f | wc -l)" -eq "$(licenses)" ] || fail "einfield lacks licenses"
for file in libeinfield.a einfield.pc einfieldConfig.cmake fitter.hpp copyright; do
  [ -n "$(find "$work/development" -name $file)" ] || fail "libeinfield-dev has no $file"
done
both=$(comm -12 <(cd "$work/runtime" && find . -type f | sort) <(cd "$work/development" && find . -type f | sort))
[ -z "$both" ] || fail "in both packages: $both"
"$work/runtime/usr/bin/einfield" version | grep -qF "$version" || fail "the packaged command has another version"

# From a folder with another name, with a PATH and nothing else in the environment.
tools/tarball.sh "$build" "$work" >"$work/log" || fail "tools/tarball.sh: $(cat "$work/log")"
mkdir "$work/another place"
tar --extract --file "$work"/einfield-*.tar.gz --directory "$work/another place"
rm -rf "$work"/einfield-*
cd "$work/another place"/einfield-*
outside=$(ldd bin/einfield | sed -n 's/.* => \(.*\) (0x.*/\1/p' | grep -vF "$PWD/bin/../lib/" |
  grep -vE '/lib(c|m|mvec|dl|rt|pthread|resolv)\.so' || true)
[ -z "$outside" ] || fail "the tarball's command uses libraries of this system: $outside"
sed 's/^nx = .*/nx = 30/; s/^ny = .*/ny = 30/' examples/sie_noisy.toml >"$work/lens.toml"
for command in "simulate lens.toml" "fit lens.toml --set optimizer.steps=3 --set network.hidden=[8]"; do
  # shellcheck disable=SC2086  # the command is words
  (cd "$work" && env -i PATH=/usr/bin:/bin "$OLDPWD/bin/einfield" $command) >"$work/log" 2>&1 || fail "$command: $(cat "$work/log")"
done
[ -f "$work/lens_fit/result.json" ] || fail "the fit of the tarball's command left no result.json"
