#!/usr/bin/env bash
# The manual pages and the completion that the build has made.
#   tests/manual.sh EINFIELD FOLDER     FOLDER: what `einfield info --manual` wrote, as below share/
# groff and zsh are used where they are installed.
set -euo pipefail
einfield=$(readlink -f "$1")
manual=$(readlink -f "$2")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
failed=0
fail() { echo "manual: $*" >&2; failed=1; }

# ---- manual pages: one for each command, in agreement with --help
commands=(fit new detect simulate evaluate convert reproduce info help version batch "batch plan" "batch run" "batch status" "batch collect")
for command in "${commands[@]}"; do
  page=$manual/man/man1/einfield-${command// /-}.1
  [ -f "$page" ] || { fail "no page for $command"; continue; }
  plain=$(sed 's/\\-/-/g; s/\\f[BIR]//g' "$page")
  read -ra words <<<"$command"
  for option in $("$einfield" help "${words[@]}" | grep -o '^  \(-h,\)\?--[a-z-]*' | grep -o -e '--.*' || echo --nothing); do
    grep -q -e "$option" <<<"$plain" || fail "einfield-${command// /-}.1 lacks $option"
  done
done
count=$(find "$manual/man/man1" -name '*.1' | wc -l)
[ "$count" -eq $((${#commands[@]} + 1)) ] || fail "$count pages, expected one for each of ${#commands[@]} commands and one for einfield"
for status in 0 1 2 3 4 75 130; do
  grep -q "fB$status\\\\fR" "$manual/man/man1/einfield.1" || fail "einfield.1 lacks the exit status $status"
done
if command -v groff >/dev/null; then
  for page in "$manual"/man/man1/*.1; do
    warnings=$(groff -man -Tutf8 -Kutf8 -ww -z "$page" 2>&1)
    [ -z "$warnings" ] || fail "$(basename "$page"): $warnings"
  done
else
  echo "groff is not installed: warnings of the pages were not looked for"
fi

# ---- completion in bash
mkdir data && touch data/lens.toml 'a lens.fits' image.fits
completions() {  # words of the command line, the last one is completed: the completions, a line each
  bash --norc -c '
    compopt() { :; }  # works only while a key is pressed
    source "$0"
    COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMPREPLY=()
    _einfield
    printf "%s\n" "${COMPREPLY[@]}" | LC_ALL=C sort' "$manual/bash-completion/completions/einfield" "$@"
}
expect() {  # expected completions, words
  local found
  found=$(completions "${@:2}" | tr '\n' ' ')
  [ "${found% }" = "$1" ] || fail "completing '${*:2}': found '${found% }', expected '$1'"
}
expect "new" einfield n
expect "collect plan run status" einfield batch ""
expect "--backend" einfield fit lens.toml --ba
expect "auto cpu cuda" einfield fit --backend ""
expect "cpu cuda" einfield fit --backend c
expect "cuda" einfield fit --backend = cu
expect "double" einfield detect --precision d
expect "flagged" einfield batch run s.ecsv --keep f
expect "a lens.fits" einfield fit a
expect "data" einfield fit --out d
expect "data/lens.toml" einfield fit data/
expect "image.fits" einfield new --psf i
expect "biggio2021" einfield reproduce ""
expect "detect" einfield help d
expect "" einfield fit --threads ""
expect "--keep" einfield batch run --k

# ---- zsh parses its file and finds every command
if command -v zsh >/dev/null; then
  zsh -n "$manual/zsh/site-functions/_einfield" || fail "zsh cannot parse its completion"
  for command in "${commands[@]}"; do
    zsh -c 'sed "/^_einfield \"\$@\"\$/d" "$1" >functions; source ./functions; whence -w "$2" >/dev/null' zsh \
      "$manual/zsh/site-functions/_einfield" "_einfield_${command// /_}" || fail "no function of zsh for $command"
  done
else
  echo "zsh is not installed: its completion was not tried"
fi
exit $failed
