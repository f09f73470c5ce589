#!/usr/bin/env bash
# Everything in clients/publish and clients/subscribe that can be tested without a running system: the runner finds broken clients,
# both subscribers and the SDK hold in every row, every publisher is well formed, repeats what it may and says so when it reaches nobody.
# A language that is not on this machine is SKIPPED with the command that installs it; with CI=true that is a failure.
set -u
cd "$(dirname "$0")/.." || exit 1
failed=0
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT

check() { # check NAME COMMAND...: prints what the command said only when it fails
  local name=$1; shift
  if "$@" >"$work/said" 2>&1; then echo "ok      $name: $(tail -n 1 "$work/said")"; else echo "FAILED  $name"; sed 's/^/  /' "$work/said"; failed=1; fi
}

have() { # have PROGRAM INSTALL: whether it is here
  command -v "$1" >/dev/null && return
  echo "SKIPPED: $1 is missing: $2"
  [ "${CI:-}" = true ] && failed=1
  return 1
}

short() { # short FILE LINES: no longer than promised
  local lines; lines=$(wc -l <"$1")
  [ "$lines" -le "$2" ] && echo "$lines lines of $2" || { echo "$lines lines, more than $2"; return 1; }
}

for file in publish/*/[pP]ublish.*; do check "$file" short $file 50; done
for file in subscribe/python/subscribe.py subscribe/go/subscribe.go; do check "$file" short $file 60; done
for file in publish/*/run.sh subscribe/*/run.sh; do check "$file" sh -n $file; done
check "publish/shell" bash -n publish/shell/publish.sh
check "publish/tcp" bash -n publish/tcp/publish.sh
check "publish/python" env PYTHONPYCACHEPREFIX="$work" python3 -m py_compile publish/python/publish.py
check "subscribe/python" env PYTHONPYCACHEPREFIX="$work" python3 -m py_compile subscribe/python/subscribe.py
languages=(shell tcp python)
if have node "apt-get install nodejs"; then check "publish/node" node --check publish/node/publish.mjs; languages+=(node); fi
if have go "apt-get install golang-go"; then check "publish/go" go vet publish/go/publish.go; languages+=(go); check "subscribe/go" go vet subscribe/go/subscribe.go; fi
if have java "apt-get install default-jdk-headless"; then check "publish/java" javac -Xlint:all -Werror -d "$work" publish/java/Publish.java; languages+=(java); fi
if have rustc "https://rustup.rs"; then check "publish/rust" rustc --edition 2021 -D warnings --out-dir "$work" publish/rust/publish.rs; languages+=(rust); fi

export PYTHONDONTWRITEBYTECODE=1
check "conformance/publish_test.py" python3 conformance/publish_test.py "${languages[@]}"
check "conformance/self_test.py" python3 conformance/self_test.py
check "subscribe/python" python3 conformance/run.py -- subscribe/python/run.sh --cursor-file '{cursor_file}'
check "subscribe/python in Protobuf" python3 conformance/run.py -- python3 conformance/subscribe_protobuf.py --cursor-file '{cursor_file}'
command -v go >/dev/null && check "subscribe/go" python3 conformance/run.py -- subscribe/go/run.sh --cursor-file '{cursor_file}'
if [ -f js/dist/index.js ] && [ -d node_modules/ws ]; then check "js" python3 conformance/run.py --browser -- node conformance/sdk.mjs; else echo "SKIPPED: the SDK is not built: make page"; [ "${CI:-}" = true ] && failed=1; fi
exit $failed
