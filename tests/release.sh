#!/usr/bin/env bash
# Runs tools/release.sh in a new repository with the files of this tree, and checks what it writes and what it refuses.
#   tests/release.sh
set -euo pipefail
cd "$(dirname "$0")/.."
git rev-parse --git-dir >/dev/null 2>&1 || { echo "release: skipped, not in a git repository"; exit 77; }
work=$(mktemp -d "${TMPDIR:-/tmp}/einfield-release-XXXXXX")
trap 'rm -rf "$work"' EXIT
fail() { echo "release: $*" >&2; exit 1; }
export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_SYSTEM=/dev/null
export GIT_AUTHOR_NAME=test GIT_AUTHOR_EMAIL=test GIT_COMMITTER_NAME=test GIT_COMMITTER_EMAIL=test

mkdir "$work/tree"
git ls-files -z --cached --others --exclude-standard | tar --create --null --files-from=- --ignore-failed-read 2>/dev/null |
  tar --extract --directory "$work/tree"
cd "$work/tree"
commit() { git add --all && git commit --quiet --message test; }
git init --quiet
sed -i '0,/^## \[\(.*\)\] - .*/s//## [\1] - 2026-01-02/' CHANGELOG.md
commit
version=$(sed -n 's/^version: *//p' CITATION.cff)
name=einfield-$version

tools/release.sh "$work/first" >"$work/log" || fail "$(cat "$work/log")"
(cd "$work/first" && sha256sum --quiet --check SHA256SUMS)
diff <(git ls-files | sed "s|^|$name/|" | sort) <(tar --list --file "$work/first/$name.tar.gz" | grep -v '/$' | sort) ||
  fail "the archive has other files than the commit"
[ "$(head -n 1 "$work/first/tag.txt")" = "einfield $version" ] || fail "tag.txt begins with another version"
[ "$(wc -l <"$work/first/tag.txt")" -gt 5 ] || fail "tag.txt has no text"
tools/release.sh "$work/second" >/dev/null
cmp "$work/first/SHA256SUMS" "$work/second/SHA256SUMS" || fail "a second run gives other files"
python3 - "$work/first/$name.spdx.json" packaging/linked_libraries.csv <<'END'
import json, sys
packages = {p["name"]: p for p in json.load(open(sys.argv[1]))["packages"]}
names = [line.split(",")[0] for line in open(sys.argv[2]) if not line.startswith("#")]
assert len(names) >= 8 and sorted(packages) == sorted(names + ["einfield"]), sorted(packages)
assert all(p["versionInfo"][0].isdigit() for p in packages.values()), packages
END

refuses() {  # words of the message; the tree is reset afterwards
  if tools/release.sh "$work/refused" >"$work/log" 2>&1; then fail "it does not refuse: $1"; fi
  grep -q "$1" "$work/log" || fail "instead of '$1': $(cat "$work/log")"
  [ ! -e "$work/refused" ] || fail "it wrote files although: $1"
  git clean -dfq
  git reset --quiet --hard first
}
git tag first
touch stray
refuses 'not clean'
sed -i 's/^version: .*/version: 99.0.0/' CITATION.cff; commit
refuses "CITATION.cff says version '99.0.0'"
sed -i 's/^  version: .*/  version: "99.0.0"/' packaging/conda/recipe.yaml; commit
refuses "recipe.yaml says version '99.0.0'"
sed -i 's/^    version("[0-9.]*"/    version("99.0.0"/' packaging/spack/package.py; commit
refuses "package.py says version '99.0.0'"
sed -i '0,/^## \[.*\]/s//## [99.0.0]/' CHANGELOG.md; commit
refuses "CHANGELOG.md says version '99.0.0'"
sed -i '0,/^## \(.*\) - .*/s//## \1 - unreleased/' CHANGELOG.md; commit
refuses "no date for $version"
git tag "v$version"
refuses "tag v$version exists"
