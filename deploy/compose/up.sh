#!/usr/bin/env bash
# Makes what compose.yaml mounts, once, and starts it. Usage: up.sh [observability] [demo] [sinks]; SCENARIO=property for another business.
set -euo pipefail
cd "$(dirname "$0")"
export SCENARIO=${SCENARIO:-bookings} ROOMCAST_VERSION=${ROOMCAST_VERSION:-0.1.0}
if [ ! -d secrets ]; then
  umask 077
  new=$(mktemp -d ./secrets.XXXXXX)
  trap 'rm -rf "$new"' EXIT
  ../tools/nats_secret.py "$new/made" --single >/dev/null
  mkdir "$new/nats" "$new/keys"
  mv "$new/made/nats.conf" "$new/nats/"
  for user in gw ingest agg; do mkdir "$new/$user" && mv "$new/made/$user" "$new/$user/password"; done
  printf 'ROOMCAST_NATS_USER=admin\nROOMCAST_NATS_PASSWORD=%s\n' "$(cat "$new/made/admin")" >"$new/admin.env"
  rm -r "$new/made"
  # The key that signs tokens stays out of what is mounted.
  openssl genpkey -algorithm ed25519 -out "$new/signing.pem" 2>/dev/null
  x=$(openssl pkey -in "$new/signing.pem" -pubout -outform DER | tail -c 32 | basenc --base64url | tr -d '=')
  printf '{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"compose","alg":"EdDSA","use":"sig","x":"%s"}]}\n' "$x" >"$new/keys/keys.json"
  # Who may not enter this folder cannot read what is below; the containers' user can.
  chmod -R a+rX "$new"/{nats,keys,gw,ingest,agg}
  mv "$new" secrets
  trap - EXIT
fi
files=(--file compose.yaml)
case " $* " in *" sinks "*)
  files+=(--file with-sinks.yaml)
  if [ ! -d secrets/sinks ]; then
    new=$(umask 077 && mktemp -d ./secrets/sinks.XXXXXX)
    cp sinks.yaml "$new/"
    openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$new/vapid.pem" 2>/dev/null
    chmod -R a+rX "$new"
    mv "$new" secrets/sinks
  fi
  ;;
esac
token() {
  docker run --rm --network none -i --entrypoint /usr/local/bin/roomcast "roomcast/roomcast:$ROOMCAST_VERSION" \
    token --user "$1" --role "$2" --key /dev/stdin --kid compose --issuer roomcast-compose --ttl 24h <secrets/signing.pem
}
(umask 077 && printf 'ROOMCAST_TOKEN=%s\n' "$(token desk desk)" >secrets/simulator.env)
profiles=()
for profile in "$@"; do [ "$profile" = sinks ] || profiles+=(--profile "$profile"); done
docker compose "${files[@]}" "${profiles[@]}" up --detach --wait
echo "page     http://127.0.0.1:${ROOMCAST_PORT:-8080}/#token=$(token you admin)"
echo "publish  http://127.0.0.1:${ROOMCAST_INGEST_PORT:-8081}/v1/events with the token in deploy/compose/secrets/simulator.env, for a day"
case " $* " in *" observability "*) echo "boards   http://127.0.0.1:3000/dashboards" ;; esac
