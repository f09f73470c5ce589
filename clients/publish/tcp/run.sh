#!/bin/sh
# Needs bash alone.
[ -n "$ROOMCAST_NATS" ] || [ -r .roomcast/dev.env ] || { echo "no .roomcast/dev.env here: run this where 'roomcast dev' runs" >&2; exit 69; }
[ -n "$ROOMCAST_NATS" ] || { set -a; . ./.roomcast/dev.env; set +a; }
exec bash "$(dirname "$0")/publish.sh" "$@"
