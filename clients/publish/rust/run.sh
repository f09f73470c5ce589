#!/bin/sh
# Needs rustc, no crates.
[ -n "$ROOMCAST_INGEST" ] || [ -r .roomcast/dev.env ] || { echo "no .roomcast/dev.env here: run this where 'roomcast dev' runs" >&2; exit 69; }
[ -n "$ROOMCAST_INGEST" ] || { set -a; . ./.roomcast/dev.env; set +a; }
program=$(mktemp) && trap 'rm -f "$program"' EXIT
rustc --edition 2021 -o "$program" "$(dirname "$0")/publish.rs" && "$program" "$@"
