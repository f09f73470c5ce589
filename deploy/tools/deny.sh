#!/usr/bin/env bash
# Licences, sources, bans and advisories by cargo-deny, where it is installed (cargo install cargo-deny --locked).
# The rules that matter most are held by tests/tidy as well, which needs nothing.
set -euo pipefail
if ! command -v cargo-deny >/dev/null; then
  echo "SKIPPED cargo deny: cargo install cargo-deny --locked (the bans are checked by tests/tidy)"
  exit 0
fi
cargo deny --locked check bans licenses sources
