#!/bin/sh
# Needs rustc, no crates. In a folder of its own: rustc writes beside what it makes, under names that two runs at once would share.
[ -n "$ROOMCAST_INGEST" ] || [ -r .roomcast/dev.env ] || { echo "no .roomcast/dev.env here: run this where 'roomcast dev' runs" >&2; exit 69; }
[ -n "$ROOMCAST_INGEST" ] || { set -a; . ./.roomcast/dev.env; set +a; }
folder=$(mktemp -d) && trap 'rm -rf "$folder"' EXIT
rustc --edition 2021 -o "$folder/publish" "$(dirname "$0")/publish.rs" && "$folder/publish" "$@"
