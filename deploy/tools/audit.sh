#!/usr/bin/env bash
# Licences, sources, bans and known weaknesses of everything that ships. Asks the registries: not for every build, but for every release.
set -euo pipefail
cd "$(dirname "$0")/../.."
failed=0
try() { echo "── $*"; "$@" || failed=1; }
if command -v cargo-deny >/dev/null; then try cargo deny --locked check; else echo "SKIPPED cargo deny: cargo install cargo-deny --locked"; fi
if command -v cargo-audit >/dev/null; then try cargo audit; else echo "SKIPPED cargo audit: cargo install cargo-audit --locked"; fi
(cd clients && try npm audit --omit dev --audit-level low) || failed=1
exit $failed
