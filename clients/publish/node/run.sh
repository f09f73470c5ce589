#!/bin/sh
# Needs node, nothing installed.
exec node "$(dirname "$0")/publish.mjs" "$@"
