#!/usr/bin/env bash
# Builds the four images without a daemon and without pulling anything, and tries them: what they hold, how large they are, and that a
# system of them runs, each in its own root that nobody may write, as nobody, with an event that goes all the way. Needs buildah (Debian:
# buildah) and root. The stages before the last ones want a network: what they would have built is built here and handed in.
set -euo pipefail
cd "$(dirname "$0")/../.."
for tool in buildah unshare openssl; do
  command -v "$tool" >/dev/null || { echo "SKIPPED $tool is not there: as root on Debian, apt-get install buildah"; [ "${CI:-}" != true ] || exit 1; exit 0; }
done
[ "$(id -u)" = 0 ] || { echo "SKIPPED: needs root"; [ "${CI:-}" != true ] || exit 1; exit 0; }
chroot=$(command -v chroot)
# In bytes, compressed.
LARGEST=15000000
# Seconds until each service has to be healthy, and until an event has to be there; on a busy machine.
WITHIN=60
target=$(uname -m)-unknown-linux-gnu
work=$(mktemp -d)
pids=()
finish() {
  for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
  wait 2>/dev/null || true
  for name in $(buildah containers --format '{{.ContainerName}}' 2>/dev/null || true); do buildah rm "$name" >/dev/null 2>&1 || true; done
  rm -rf "$work"
}
trap finish EXIT
# A store of its own: nothing of other images is seen or left.
cat >"$work/storage.conf" <<CONF
[storage]
driver = "vfs"
runroot = "$work/run"
graphroot = "$work/store"
CONF
export CONTAINERS_STORAGE_CONF=$work/storage.conf STORAGE_DRIVER=vfs BUILDAH_ISOLATION=chroot

revision=$(git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
echo "── binaries, static, as the stage 'built' makes them"
ROOMCAST_COMMIT=$revision RUSTFLAGS="-C target-feature=+crt-static" CARGO_PROFILE_RELEASE_STRIP=symbols \
  cargo build --release --locked --target "$target" --target-dir target/images -p roomcast-edge-gateway -p roomcast-ingest -p roomcast-metrics-aggregator -p roomcast-cli
out=$work/built/out
mkdir -p "$out"
for name in roomcast-edge-gateway roomcast-ingest roomcast-metrics-aggregator roomcast-metrics-try roomcast; do
  install "target/images/$target/release/$name" "$out/"
done
install -m 0644 /etc/ssl/certs/ca-certificates.crt "$out/"
for name in roomcast-edge-gateway roomcast-ingest roomcast-metrics-aggregator roomcast-cli; do
  python3 deploy/tools/sbom.py "$name" "target/images/$name.cdx.json" >/dev/null
done
PYTHONPATH=.tools/cyclonedx python3 deploy/tools/sbom_check.py target/images/*.cdx.json

echo "── images"
declare -A root variables
for name in edge-gateway ingest metrics-aggregator roomcast; do
  buildah bud --quiet --format oci --layers=false --build-context "built=$work/built" --build-arg "REVISION=$revision" --build-arg "VERSION=$version" \
    --target "$name" --tag "roomcast/$name:$version" -f deploy/images/Dockerfile . >"$work/bud.log" 2>&1 || { cat "$work/bud.log"; exit 1; }
  archive=target/images/$name.oci.tar
  rm -f "$archive"
  buildah push --quiet "roomcast/$name:$version" "oci-archive:$archive:roomcast/$name:$version" >/dev/null
  buildah inspect --type image "roomcast/$name:$version" >"$work/$name.json"
  container=$(buildah from --quiet --pull-never "roomcast/$name:$version")
  root[$name]=$(buildah mount "$container")
  variables[$name]=$(python3 - "$name" "$work/$name.json" "$revision" "$version" "${root[$name]}" "$archive" "$LARGEST" <<'CHECK'
"""What an image says of itself and holds; prints the variables that it sets."""
import json, os, pathlib, stat, sys
name, file, revision, version, root, archive, largest = sys.argv[1:]
config = json.load(open(file))["OCIv1"]["config"]
binary = name if name == "roomcast" else f"roomcast-{name}"
binaries = [binary, "roomcast-metrics-try"] if name == "roomcast" else [binary]
ports = {"roomcast": set(), "metrics-aggregator": {"9090/tcp"}}.get(name, {"8080/tcp", "9090/tcp"})
labels = config["Labels"]
held = [path for path in pathlib.Path(root).rglob("*") if not path.is_dir()]
# Whoever it runs as may write nothing, whatever the root is mounted as.
open_to = [str(path) for path in [pathlib.Path(root), *pathlib.Path(root).rglob("*")] if path.stat().st_uid == 65532 or path.stat().st_mode & stat.S_IWOTH]
size = os.path.getsize(archive)
for what, found, wanted in [
    ("user", config["User"], "65532:65532"), ("entry point", config["Entrypoint"], [f"/usr/local/bin/{binary}"]),
    ("ports", set(config.get("ExposedPorts", {})), ports), ("signal", config.get("StopSignal"), "SIGTERM"),
    ("title", labels["org.opencontainers.image.title"], binary), ("licence", labels["org.opencontainers.image.licenses"], "Apache-2.0"),
    ("revision", labels["org.opencontainers.image.revision"], revision), ("version", labels["org.opencontainers.image.version"], version),
    ("files", sorted(f"/{path.relative_to(root)}" for path in held), sorted(["/etc/ssl/certs/ca-certificates.crt", *(f"/usr/local/bin/{one}" for one in binaries)])),
    ("open to its user", open_to, []), (f"{size} bytes: small", size <= int(largest), True),
]:
    if found != wanted:
        sys.exit(f"{name}: {what}: {found}, not {wanted}")
print(f"{name}: {size / 1e6:.1f} MB compressed: {', '.join(binaries)} and authorities; as 65532, nothing open to it", file=sys.stderr)
print(" ".join(config["Env"]))
CHECK
)
done

echo "── a system of them"
nats=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
python3 deploy/tools/nats_secret.py "$work/secret" --single >/dev/null
sed -i "s|^listen: .*|listen: \"127.0.0.1:$nats\"|; s|^http: .*||; s|/var/lib/nats|$work/nats|" "$work/secret/nats.conf"
POD_NAME=nats-0 "${ROOMCAST_NATS_SERVER:-.tools/bin/nats-server}" -c "$work/secret/nats.conf" >"$work/nats.log" 2>&1 &
pids+=($!)
# Keys that only this run has.
openssl genpkey -algorithm ed25519 -out "$work/key.pem" 2>/dev/null
x=$(openssl pkey -in "$work/key.pem" -pubout -outform DER | tail -c 32 | basenc --base64url | tr -d '=')
echo "{\"keys\":[{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"kid\":\"one\",\"alg\":\"EdDSA\",\"use\":\"sig\",\"x\":\"$x\"}]}" >"$work/keys.json"
declare -A user=([edge-gateway]=gw [ingest]=ingest [metrics-aggregator]=agg) settings
# What a runtime and a pod add to the root: names of the machine, devices (a static binary may read its random numbers from one), and
# what is mounted.
for name in edge-gateway ingest metrics-aggregator roomcast; do
  folder=${root[$name]}/etc/roomcast
  mkdir -p "$folder" "${root[$name]}/proc" "${root[$name]}/dev"
  mknod -m 666 "${root[$name]}/dev/null" c 1 3
  mknod -m 444 "${root[$name]}/dev/random" c 1 8
  mknod -m 444 "${root[$name]}/dev/urandom" c 1 9
  echo "127.0.0.1 localhost" >"${root[$name]}/etc/hosts"
  cp deploy/scenarios/bookings/policy.yaml deploy/scenarios/bookings/metrics.yaml "$work/keys.json" "$folder/"
  [ "$name" = roomcast ] || install -o 65532 -m 0400 "$work/secret/${user[$name]}" "$folder/password"
done
install -o 65532 -m 0400 "$work/key.pem" "${root[roomcast]}/etc/roomcast/key.pem"
# As a runtime starts it: mounts of its own, the root read-only, the image's variables and user, nothing of ours. `run IMAGE PROGRAM ARGUMENT…`
run() {
  local image=$1 program=$2
  shift 2
  # shellcheck disable=SC2086
  exec env -i ${variables[$image]} ${settings[$image]:-} unshare --mount /bin/bash -c \
    'mount --bind "$1" "$1" && mount -t proc proc "$1/proc" && mount -o remount,ro,bind "$1" && exec "$0" --userspec=65532:65532 "$@"' \
    "$chroot" "${root[$image]}" "/usr/local/bin/$program" "$@"
}
# `until_ WHAT COMMAND…`, with what was said where it does not come.
until_() {
  local what=$1 began=$SECONDS
  shift
  until "$@" >"$work/said" 2>&1; do
    [ $((SECONDS - began)) -lt $WITHIN ] || { echo "after $WITHIN s still not: $what"; cat "$work/said"; tail -n 5 "$work"/*.log; exit 1; }
    sleep 0.2
  done
}
settings[roomcast]="ROOMCAST_NATS_USER=admin ROOMCAST_NATS_PASSWORD=$(cat "$work/secret/admin")"
streams() (run roomcast roomcast streams apply --replicas 1 --nats "nats://localhost:$nats")
until_ "streams" streams
echo "roomcast: $(wc -l <"$work/said") streams and buckets made"
declare -A port pid
for name in ingest metrics-aggregator edge-gateway; do
  read -r port[$name] admin < <(python3 -c 'import socket; s = [socket.socket() for _ in "ab"]; [one.bind(("127.0.0.1", 0)) for one in s]; print(*(one.getsockname()[1] for one in s))')
  # By name: a static binary has to resolve, too.
  settings[$name]="ROOMCAST_NATS_URL=nats://localhost:$nats ROOMCAST_NATS_USER=${user[$name]} ROOMCAST_NATS_PASSWORD_FILE=/etc/roomcast/password ROOMCAST_REPLICAS=1
    ROOMCAST_ADMIN_LISTEN=127.0.0.1:$admin ROOMCAST_POLICY_FILE=/etc/roomcast/policy.yaml"
  case $name in
    metrics-aggregator) settings[$name]+=" ROOMCAST_METRICS_FILE=/etc/roomcast/metrics.yaml" ;;
    *) settings[$name]+=" ROOMCAST_LISTEN=127.0.0.1:${port[$name]} ROOMCAST_JWT_KEYS_FILE=/etc/roomcast/keys.json ROOMCAST_JWT_ISSUER=images" ;;
  esac
  said=$(run "$name" "roomcast-$name" --version)
  [[ $said == *"$version"*"$revision"* ]] || { echo "$name: says it is $said, not $version $revision"; exit 1; }
  ! (run "$name" "roomcast-$name" --health) >/dev/null 2>&1 || { echo "$name: healthy before it runs"; exit 1; }
  run "$name" "roomcast-$name" >"$work/$name.log" 2>&1 &
  pid[$name]=$!
  pids+=($!)
done
for name in ingest metrics-aggregator edge-gateway; do
  health() (run "$name" "roomcast-$name" --health)
  until_ "$name is healthy" health
  uid=$(sed -n 's/^Uid:\t\([0-9]*\)\t.*/\1/p' "/proc/${pid[$name]}/status")
  [ "$uid" = 65532 ] || { echo "$name: runs as $uid"; exit 1; }
  echo "$name: healthy, says --health of the image"
done
token() (run roomcast roomcast token --user "$1" --role "$2" --key /etc/roomcast/key.pem --kid one --issuer images)
settings[roomcast]="ROOMCAST_INGEST=http://localhost:${port[ingest]} ROOMCAST_TOKEN=$(token desk desk)"
publish() (run roomcast roomcast publish --room bookings --audience staff --type booking:new --data '{"id":"bk-images","customer":"Ada","country":"TR","category":"tour","title":"Walk","duration":"3 hours","amount":950,"currency":"TRY"}')
until_ "an event is stored" publish
viewer=$(token boss admin)
seen() {
  python3 - "$viewer" "http://127.0.0.1:${port[edge-gateway]}" <<'SEEN'
"""The event is in the room, and in the number."""
import json, sys, urllib.request
token, gateway = sys.argv[1:]
ask = lambda path: json.load(urllib.request.urlopen(urllib.request.Request(gateway + path, headers={"Authorization": f"Bearer {token}"}), timeout=5))
assert "bk-images" in json.dumps(ask("/v1/rooms/bookings/events")), "not in the room"
numbers = {one["statekey"]: one["data"]["value"] for one in ask("/v1/state?room=os_dashboard")["state"] if "value" in one["data"]}
assert numbers.get("bookings") == "1", numbers
SEEN
}
until_ "the event is in the room and in the number" seen
echo "an event published by one image, stored by the second, counted by the third, is shown by the fourth"
for pid in "${pids[@]:1}"; do kill -TERM "$pid"; done
for pid in "${pids[@]:1}"; do wait "$pid" || { echo "a service did not end as asked"; tail -n 5 "$work"/*.log; exit 1; }; done
echo "target/images: $(cd target/images && echo ./*.oci.tar ./*.cdx.json)"
