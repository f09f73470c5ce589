#!/bin/sh
# Needs Python 3.9 or newer, nothing else.
[ -n "$ROOMCAST_NATS" ] || [ -r .roomcast/dev.env ] || { echo "no .roomcast/dev.env here: run this where 'roomcast dev' runs" >&2; exit 69; }
[ -n "$ROOMCAST_NATS" ] || { set -a; . ./.roomcast/dev.env; set +a; }
exec python3 "$(dirname "$0")/handler.py" "$@"
