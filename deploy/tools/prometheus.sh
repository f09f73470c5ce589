#!/usr/bin/env bash
# Puts prometheus and promtool into .tools/prometheus from Debian's package, without installing a service. Does nothing where it
# cannot.
set -euo pipefail
cd "$(dirname "$0")/../.."
if ! command -v apt-get >/dev/null || ! command -v dpkg >/dev/null; then
  echo "promtool is missing: install Prometheus 2.42 or newer, with promtool on PATH"
  exit 0
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fetch() { (cd "$work" && apt-get download -qq prometheus 2>/dev/null); }
if ! fetch; then
  [ "$(id -u)" = 0 ] || { echo "promtool is missing: as root on Debian, apt-get update, then again"; exit 0; }
  apt-get update -qq
  fetch
fi
dpkg -x "$work"/prometheus_*.deb "$work/root"
mkdir -p .tools/prometheus
mv "$work"/root/usr/bin/prometheus "$work"/root/usr/bin/promtool .tools/prometheus/
.tools/prometheus/promtool --version | head -1
