#!/bin/sh
# Needs python3, nothing installed.
exec python3 "$(dirname "$0")/publish.py" "$@"
