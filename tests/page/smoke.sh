#!/usr/bin/env bash
# The demo as a visitor meets it, each scenario or those named; in Chromium where there is one. Builds nothing (make demo-smoke does).
set -euo pipefail
cd "$(dirname "$0")"
chromium=${ROOMCAST_CHROMIUM:-$(command -v chromium || true)}
if [ -n "$chromium" ] && { [ ! -f node_modules/.package-lock.json ] || [ package-lock.json -nt node_modules/.package-lock.json ]; }; then
  npm ci --no-audit --no-fund --loglevel=error
fi
[ -n "$chromium" ] || echo "SKIPPED the browser: make tools, or as root on Debian: apt-get install chromium"
ROOMCAST_CHROMIUM=$chromium exec node smoke.mjs "$@"
