#!/usr/bin/env bash
# Installs from Debian's packages what tests use beyond Rust, Node and Python. Does nothing where it may not or need not.
set -euo pipefail

wanted=()
command -v chromium >/dev/null || wanted+=(chromium)
command -v strace >/dev/null || wanted+=(strace)
# The publishers in Go and Java, and the subscriber in Go.
command -v go >/dev/null || wanted+=(golang-go)
command -v javac >/dev/null || wanted+=(default-jdk-headless)
# Whose changes become events.
compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || wanted+=(postgresql)
# Certificates of tests' own servers.
command -v openssl >/dev/null || wanted+=(openssl)
[ ${#wanted[@]} -gt 0 ] || { echo "all tools are here"; exit 0; }
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
  echo "missing: ${wanted[*]}; as root on Debian: apt-get install ${wanted[*]}"
  exit 0
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends "${wanted[@]}" fonts-dejavu-core >/dev/null
echo "installed: ${wanted[*]}"
