#!/usr/bin/env bash
# Builds the documentation: build/docs/html/index.html. Warnings are errors, and so are links within it that lead nowhere.
#   tools/docs.sh [--binary PATH]     the command whose keys, flags and options the reference lists; default:
#                                     build/cpu/einfield, which is built if it is missing
# Sphinx with MyST (pages in Markdown), Breathe and Doxygen (the headers of the library), furo (the theme), codespell.
set -euo pipefail
cd "$(dirname "$0")/.."

binary=
while [ $# -gt 0 ]; do
  case $1 in
    --binary) binary=${2:?--binary needs the path of einfield}; shift ;;
    *) echo "usage: $0 [--binary PATH]" >&2; exit 2 ;;
  esac
  shift
done
tools/install_dependencies.sh doxygen python3-sphinx python3-myst-parser python3-breathe python3-numpy furo codespell
if [ -z "$binary" ]; then
  binary=build/cpu/einfield
  if [ ! -x $binary ]; then
    cmake --preset cpu -G Ninja >/dev/null
    cmake --build --preset cpu --target einfield_binary
  fi
fi

# The pages lie as in the repository, so that links between them lead to the same files here and there.
site=build/docs
rm -rf $site/source
mkdir -p $site/source/docs/reference
cp -p --parents ./*.md CITATION.cff LICENSE docs/*.md docs/*.toml examples/*.md examples/*.png examples/*/*.md examples/*/*.png \
  examples/survey/*.s* tests/README.md bench/README.md $site/source
doxygen docs/Doxyfile
# Debian's Python has Debian's Sphinx.
/usr/bin/python3 tools/docs_reference.py "$binary" $site/doxygen/xml $site/source/docs/reference
sphinx-build -b html -q -W --keep-going -n -c docs $site/source $site/html
echo '<!DOCTYPE html><meta http-equiv="refresh" content="0; url=docs/index.html"><title>einfield</title>' >$site/html/index.html
tools/spelling.sh
echo "$site/html/index.html"
