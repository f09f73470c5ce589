#!/usr/bin/env bash
# Tests the page and the SDK in a real browser against the real system, two files at a time: most of a test is waiting. Needs Chromium; builds nothing (make test does).
set -euo pipefail
cd "$(dirname "$0")"

chromium=${ROOMCAST_CHROMIUM:-$(command -v chromium || true)}
if [ -z "$chromium" ]; then
  echo "SKIPPED: the page tests need Chromium: make tools, or as root on Debian: apt-get install chromium"
  [ "${CI:-}" != true ] || exit 1
  exit 0
fi
for binary in roomcast roomcast-ingest roomcast-metrics-aggregator roomcast-edge-gateway; do
  [ -x "../../target/debug/$binary" ] || { echo "$binary is not built: make build"; exit 1; }
done
if [ ! -f node_modules/.package-lock.json ] || [ package-lock.json -nt node_modules/.package-lock.json ]; then
  npm ci --no-audit --no-fund --loglevel=error
fi
ROOMCAST_CHROMIUM=$chromium exec node --test --test-concurrency=2 --test-reporter=spec "$@" scenarios.test.mjs page.test.mjs lines.test.mjs states.test.mjs sdk.test.mjs quickstart.test.mjs sentences.test.mjs
