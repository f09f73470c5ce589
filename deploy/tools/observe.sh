#!/usr/bin/env bash
# Boards are what their sources say. Rules, alerts and the configuration of Prometheus are read and tried by promtool: every alert fires
# and stays silent as its cases say.
set -euo pipefail
cd "$(dirname "$0")/../.."
python3 deploy/grafana/build.py --check
promtool=$(command -v promtool || echo "$PWD/.tools/prometheus/promtool")
if [ ! -x "$promtool" ]; then
  echo "SKIPPED promtool: make tools"
  [ "${CI:-}" != true ] || exit 1
  exit 0
fi
cd deploy/prometheus
"$promtool" check config prometheus.yml >/dev/null || "$promtool" check config prometheus.yml
"$promtool" check rules --lint-fatal rules/*.yaml >/dev/null || "$promtool" check rules --lint-fatal rules/*.yaml
said=$("$promtool" test rules tests/*.yaml 2>&1) || { echo "$said"; exit 1; }
echo "rules and alerts: as their tests say"
