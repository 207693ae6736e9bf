#!/usr/bin/env bash
# A clean system of this machine's release (debootstrap): the tarball runs on it as it is, the Debian packages can be installed
# on it, and another project can be built with libeinfield-dev. Each command fits the demo's lens. Needs root, debootstrap and a
# server of packages, so tools/test.sh --full runs it and CTest does not.
#   tests/clean_system.sh FOLDER        FOLDER has both packages and the tarball
set -euo pipefail
# In a separate mount namespace: its mounts disappear with the script.
[ -n "${EINFIELD_NAMESPACE:-}" ] || EINFIELD_NAMESPACE=1 exec unshare --mount --pid --fork "$0" "$@"
folder=$(readlink -f "$1")
cd "$(dirname "$0")/.."
work=$(mktemp -d "${TMPDIR:-/tmp}/einfield-system-XXXXXX")
system=$work/system
finish() {
  umount "$system/proc" 2>/dev/null || true
  rm -rf --one-file-system "$work"
}
trap finish EXIT
fail() { echo "clean_system: $*" >&2; exit 1; }
inside() { chroot "$system" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root DEBIAN_FRONTEND=noninteractive "$@"; }
fits() {  # command, name: the demo's lens with a tenth of the steps
  inside mkdir "/$2"
  cp examples/sie_noisy.toml "$system/$2/"
  inside "$1" simulate "/$2/sie_noisy.toml" >/dev/null
  inside "$1" fit "/$2/sie_noisy.toml" --out "/$2/fit" --set optimizer.steps=20
  [ -f "$system/$2/fit/result.json" ] || fail "$1 left no result.json"
}

debootstrap --variant=minbase "$(. /etc/os-release && echo "$VERSION_CODENAME")" "$system" >"$work/log" || fail "$(cat "$work/log")"
mount -t proc proc "$system/proc"
if inside sh -c 'command -v cc || command -v einfield || ls /usr/lib/*/libcfitsio*' >/dev/null 2>&1; then
  fail "the system is not clean"
fi
echo "the tarball"
inside mkdir /opt/place
tar --extract --file "$(ls "$folder"/einfield-*.tar.gz)" --directory "$system/opt/place" --strip-components=1
fits /opt/place/bin/einfield tarball
rm -rf "$system/opt/place"

echo "the package einfield"
cp "$folder"/*.deb "$system/tmp/"
inside apt-get update -qq
inside sh -c 'apt-get install -y -qq /tmp/einfield_*.deb' >"$work/log" 2>&1 || fail "$(cat "$work/log")"
fits einfield package
[ -n "$(ls "$system"/package/fit/figures/*.png)" ] || fail "no figures, although gnuplot is recommended"

echo "the package libeinfield-dev"
inside sh -c 'apt-get install -y -qq --no-install-recommends /tmp/libeinfield-dev_*.deb g++ pkg-config' >"$work/log" 2>&1 ||
  fail "$(cat "$work/log")"
cp -r examples/link "$system/link"
inside sh -c 'g++ -std=c++17 /link/main.cpp $(pkg-config --cflags --libs einfield) -o /link/link && cd /link && ./link'
