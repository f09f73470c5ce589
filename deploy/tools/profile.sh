#!/usr/bin/env bash
# Where a service's CPU goes under the bench's load: perf samples it for some seconds and prints the functions that cost most.
# Usage: profile.sh [edge-gateway|ingest|metrics-aggregator] [seconds]. Needs perf (Debian: linux-perf) and the right to use it.
set -euo pipefail
cd "$(dirname "$0")/../.."
service=${1:-edge-gateway}
seconds=${2:-6}
command -v perf >/dev/null || { echo "perf is missing: as root on Debian, apt-get install linux-perf" >&2; exit 69; }

work=$(mktemp -d)
./target/release/roomcast-load bench --quick >"$work/bench.log" 2>&1 &
bench=$!
trap 'kill "$bench" 2>/dev/null || true; wait "$bench" 2>/dev/null || true; rm -rf "$work"' EXIT

# The stage in which each service works hardest.
case "$service" in
  edge-gateway) stage='P1' ;;
  *) stage='P7' ;;
esac
until grep -q "$stage" "$work/bench.log"; do
  kill -0 "$bench" 2>/dev/null || { cat "$work/bench.log" >&2; exit 70; }
  sleep 0.2
done
until pid=$(pgrep -n -f "/roomcast-$service\$"); do sleep 0.2; done
sleep 2
perf record --quiet --freq 999 --call-graph fp --pid "$pid" --output "$work/perf.data" -- sleep "$seconds"
perf report --input "$work/perf.data" --no-children --percent-limit 0.7 --stdio --call-graph none 2>/dev/null | grep -v '^#' | grep -v '^$'
