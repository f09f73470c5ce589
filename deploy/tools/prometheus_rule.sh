#!/usr/bin/env bash
# Writes the alerts as the object that the Prometheus operator reads. With --check: says whether that was done.
set -euo pipefail
cd "$(dirname "$0")/../.."
made=k8s/components/monitoring/rules.yaml
make_it() {
  printf '%s\n' '# Made by deploy/tools/prometheus_rule.sh from deploy/prometheus/rules.' \
    'apiVersion: monitoring.coreos.com/v1' 'kind: PrometheusRule' 'metadata:' '  name: roomcast' 'spec:'
  sed 's/^\(.\)/  \1/' deploy/prometheus/rules/roomcast.yaml
}
if [ "${1:-}" = --check ]; then
  make_it | diff - "$made" >/dev/null || { echo "$made is not what deploy/prometheus/rules says: deploy/tools/prometheus_rule.sh"; exit 1; }
else
  make_it >"$made"
fi
