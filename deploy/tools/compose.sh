#!/usr/bin/env bash
# Reads deploy/compose as compose does, by its published schema, and against the code.
set -euo pipefail
cd "$(dirname "$0")/../.."
if [ ! -d .tools/kubernetes ] || [ ! -x target/debug/roomcast-edge-gateway ]; then
  echo "SKIPPED deploy/compose: make tools, make build"
  [ "${CI:-}" != true ] || exit 1
  exit 0
fi
PYTHONPATH=.tools/compose PYTHONNOUSERSITE=1 python3 -m check_jsonschema --builtin-schema vendor.compose-spec deploy/compose/compose.yaml >/dev/null ||
  { PYTHONPATH=.tools/compose python3 -m check_jsonschema --builtin-schema vendor.compose-spec deploy/compose/compose.yaml; exit 1; }
# Not needed, but it reads profiles and variables, too.
if command -v docker-compose >/dev/null; then
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  cp deploy/compose/compose.yaml "$work/" && mkdir "$work/secrets" && touch "$work/secrets/admin.env" "$work/secrets/simulator.env"
  docker-compose -f "$work/compose.yaml" config >/dev/null
fi
promtool=$(command -v promtool || echo "$PWD/.tools/prometheus/promtool")
[ ! -x "$promtool" ] || (mkdir -p target/compose && cp -r deploy/prometheus/rules deploy/compose/prometheus.yml target/compose/ && "$promtool" check config target/compose/prometheus.yml >/dev/null)
PYTHONPATH=.tools/kubernetes PYTHONNOUSERSITE=1 python3 deploy/tools/compose_check.py
