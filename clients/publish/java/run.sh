#!/bin/sh
# Needs java 17 or newer, nothing installed, nothing compiled first.
[ -n "$ROOMCAST_INGEST" ] || [ -r .roomcast/dev.env ] || { echo "no .roomcast/dev.env here: run this where 'roomcast dev' runs" >&2; exit 69; }
[ -n "$ROOMCAST_INGEST" ] || { set -a; . ./.roomcast/dev.env; set +a; }
exec java "$(dirname "$0")/Publish.java" "$@"
