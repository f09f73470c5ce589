#!/usr/bin/env bash
# Licences, sources, bans and known weaknesses of everything that ships. Asks the registries: not for every build, but for every release.
set -euo pipefail
cd "$(dirname "$0")/../.."
failed=0
try() { echo "── $*"; "$@" || failed=1; }
# What was not asked has not been found to be well.
need() { command -v "$1" >/dev/null || { echo "── $1 is not there: cargo install $1 --locked"; failed=1; return 1; }; }
if need cargo-deny; then try cargo deny --locked check; fi
if need cargo-audit; then try cargo audit; fi
try npm --prefix clients audit --omit dev --audit-level low
exit $failed
