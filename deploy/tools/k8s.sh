#!/usr/bin/env bash
# Renders every overlay of k8s and checks it, and that each check sees what it is for. NATS reads the configuration that is made for it.
set -euo pipefail
cd "$(dirname "$0")/../.."
kubectl=$(./deploy/tools/kubectl.sh)
if [ -z "$kubectl" ] || [ ! -d .tools/kubernetes ] || [ ! -d .tools/foreign/node_modules ] || [ ! -d clients/node_modules/typescript ]; then
  echo "SKIPPED kubectl, kubernetes-validate, types of foreign kinds: make tools page"
  [ "${CI:-}" != true ] || exit 1
  exit 0
fi
binaries=
if [ -x target/debug/roomcast-edge-gateway ] && [ -x target/debug/roomcast-ingest ] && [ -x target/debug/roomcast-metrics-aggregator ]; then
  binaries="--binaries target/debug"
else
  echo "SKIPPED what the services say of their settings: make build"
  [ "${CI:-}" != true ] || exit 1
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
./deploy/tools/prometheus_rule.sh --check
for overlay in k8s/overlays/*/; do
  name=$(basename "$overlay")
  "$kubectl" kustomize "$overlay" >"$work/$name.yaml"
  printf '%s: ' "$overlay"
  try=
  case "$name" in production | operators) try=--try ;; esac
  PYTHONPATH=.tools/kubernetes PYTHONNOUSERSITE=1 python3 ./deploy/tools/k8s_check.py "$work/$name.yaml" $try $binaries
done
for single in '' --single; do
  python3 ./deploy/tools/nats_secret.py "$work/nats$single" $single >/dev/null
  POD_NAME=nats-0 "${ROOMCAST_NATS_SERVER:-.tools/bin/nats-server}" -t -c "$work/nats$single/nats.conf" >/dev/null 2>&1 ||
    { POD_NAME=nats-0 "${ROOMCAST_NATS_SERVER:-.tools/bin/nats-server}" -t -c "$work/nats$single/nats.conf"; exit 1; }
done
echo "nats.conf of k8s: as the server reads it"
