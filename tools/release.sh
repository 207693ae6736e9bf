#!/usr/bin/env bash
# Makes the files of a release from the commit that is checked out. It publishes nothing and sets no tag.
#   tools/release.sh [FOLDER]      default: build/release
# Before, it requires a clean tree and one version everywhere: include/einfield/core.hpp (which CMake and pyproject.toml
# read), CITATION.cff, the recipes in packaging/, and the first section of CHANGELOG.md, which must have a date.
# In FOLDER: the source archive (the same bytes each time), the bill of materials (SPDX), the text of the tag, SHA256SUMS.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=${1:-build/release}
export LC_ALL=C

fail() { echo "release: $1" >&2; exit 1; }
[ -z "$(git status --porcelain)" ] || fail "the tree is not clean: commit or remove what git status lists"

part() { sed -n "s/^#define EINFIELD_VERSION_$1 \\([0-9]*\\)\$/\\1/p" include/einfield/core.hpp; }
version=$(part MAJOR).$(part MINOR).$(part PATCH)
same() {  # file, version found there
  [ "$2" = "$version" ] || fail "$1 says version '$2', include/einfield/core.hpp says '$version'"
}
same CITATION.cff "$(sed -n 's/^version: *//p' CITATION.cff)"
same packaging/conda/recipe.yaml "$(sed -n 's/^  version: *"\(.*\)"$/\1/p' packaging/conda/recipe.yaml | head -n 1)"
same packaging/spack/package.py "$(sed -n 's/^    version("\([0-9.]*\)".*/\1/p' packaging/spack/package.py)"
heading=$(grep -m 1 '^## ' CHANGELOG.md)
same CHANGELOG.md "$(sed -n 's/^## \[\(.*\)\].*/\1/p' <<<"$heading")"
date=${heading##* - }
[[ $date =~ ^[0-9]{4}-[0-9]{2}-[0-9]{2}$ ]] || fail "CHANGELOG.md has no date for $version, but '$date'"
for file in CMakeLists.txt pyproject.toml; do
  grep -q 'include/einfield/core.hpp' "$file" || fail "$file does not read the version from include/einfield/core.hpp"
done
if git rev-parse --quiet --verify "refs/tags/v$version" >/dev/null; then fail "the tag v$version exists already"; fi

mkdir -p "$folder"
name=einfield-$version
git archive --format=tar --prefix="$name/" HEAD | gzip --no-name --best >"$folder/$name.tar.gz"
tools/sbom.py "$version" >"$folder/$name.spdx.json"
if command -v pyspdxtools >/dev/null; then
  pyspdxtools --infile "$folder/$name.spdx.json"
else
  echo "not validated, no pyspdxtools (pip install spdx-tools): $name.spdx.json"
fi
{
  printf 'einfield %s\n' "$version"
  awk '/^## / { if (seen) exit; seen = 1; next } seen' CHANGELOG.md | sed 's/^### \(.*\)/\1:/'
} >"$folder/tag.txt"
(cd "$folder" && sha256sum "$name.tar.gz" "$name.spdx.json" >SHA256SUMS)
echo "$folder: $name.tar.gz $name.spdx.json SHA256SUMS tag.txt"
echo "next: git tag --annotate --cleanup=whitespace --file=$folder/tag.txt v$version"
