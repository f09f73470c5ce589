#!/bin/sh
# Needs go, no modules. Built rather than `go run`, which would turn every exit code into 1.
[ -n "$ROOMCAST_INGEST" ] || [ -r .roomcast/dev.env ] || { echo "no .roomcast/dev.env here: run this where 'roomcast dev' runs" >&2; exit 69; }
[ -n "$ROOMCAST_INGEST" ] || { set -a; . ./.roomcast/dev.env; set +a; }
program=$(mktemp) && trap 'rm -f "$program"' EXIT
go build -o "$program" "$(dirname "$0")/publish.go" && "$program" "$@"
