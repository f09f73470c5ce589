#!/bin/sh
# Needs go, no modules.
[ -n "$ROOMCAST_GATEWAY" ] || [ -r .roomcast/dev.env ] || { echo "no .roomcast/dev.env here: run this where 'roomcast dev' runs" >&2; exit 69; }
[ -n "$ROOMCAST_GATEWAY" ] || { set -a; . ./.roomcast/dev.env; set +a; }
exec go run "$(dirname "$0")/subscribe.go" "$@"
