#!/bin/sh
# Needs bash, and curl if there is one.
exec bash "$(dirname "$0")/publish.sh" "$@"
