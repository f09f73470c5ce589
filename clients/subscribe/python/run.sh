#!/bin/sh
# Needs python3, nothing installed.
[ -n "$ROOMCAST_GATEWAY" ] || [ -r .roomcast/dev.env ] || { echo "no .roomcast/dev.env here: run this where 'roomcast dev' runs" >&2; exit 69; }
[ -n "$ROOMCAST_GATEWAY" ] || { set -a; . ./.roomcast/dev.env; set +a; }
exec python3 "$(dirname "$0")/subscribe.py" "$@"
