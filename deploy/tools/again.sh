#!/usr/bin/env bash
# again.sh COMMAND…: runs a command of CI (a test program, a suite of the page), and once more where it fails, so that one
# unlucky moment of a busy machine does not throw a whole change away. What needed it is written to target/flaky.txt, which CI
# prints at its end: a fault of the test or of ours, to be mended, never to be lived with. By hand nothing is repeated.
set -uo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
"$@" && exit 0
code=$?
printf '\n!! failed (exit code %s), once more: %s\n\n' "$code" "$*"
"$@" || exit
mkdir -p "$root/target"
printf '%s (exit code %s at first)\n' "$*" "$code" >>"$root/target/flaky.txt"
