#!/usr/bin/env bash
# Where a service's CPU goes under the bench's load: perf samples it for some seconds and prints the functions that cost most.
# Usage: profile.sh [edge-gateway|ingest|metrics-aggregator] [seconds]. Needs perf (Debian: linux-perf) and the right to use it.
set -euo pipefail
cd "$(dirname "$0")/../.."
service=${1:-edge-gateway}
seconds=${2:-6}
command -v perf >/dev/null || { echo "perf is missing: as root on Debian, apt-get install linux-perf" >&2; exit 69; }

# The load under which each works hardest, well longer than the sampling.
case "$service" in
  edge-gateway) load=(fanout --seconds $((seconds + 10))) ;;
  *) load=(bench --only P7) ;;
esac
work=$(mktemp -d)
./target/release/roomcast-load "${load[@]}" >"$work/load.log" 2>&1 &
bench=$!
trap 'kill "$bench" 2>/dev/null || true; wait "$bench" 2>/dev/null || true; rm -rf "$work"' EXIT

# Other systems may run on this machine: the service that counts is one that descends from our load.
descends() {
  local at=$1
  while [ "$at" -gt 1 ]; do
    [ "$at" = "$bench" ] && return 0
    at=$(awk '/^PPid:/ { print $2 }' "/proc/$at/status" 2>/dev/null || echo 0)
  done
  return 1
}
pid=
while [ -z "$pid" ]; do
  kill -0 "$bench" 2>/dev/null || { cat "$work/load.log" >&2; exit 70; }
  sleep 0.2
  for found in $(pgrep -f "/roomcast-$service\$" || true); do
    if descends "$found"; then pid=$found; fi
  done
done
# The clients come first.
sleep 4
perf record --quiet --freq 999 --call-graph fp --pid "$pid" --output "$work/perf.data" -- sleep "$seconds"
perf report --input "$work/perf.data" --no-children --percent-limit 0.7 --stdio --call-graph none 2>/dev/null | grep -v '^#' | grep -v '^$'
