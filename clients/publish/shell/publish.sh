#!/usr/bin/env bash
# Publishes one booking over HTTP. Answer on standard output; exit 0 stored, 65 refused, 69 not reached.
. .roomcast/dev.env || { echo "no .roomcast/dev.env here: run this where 'roomcast dev' runs" >&2; exit 69; }
event='{"type":"booking:new","room":"bookings","audience":"staff","data":{"id":"bk-sh-'$$'","customer":"Elif Kaya","country":"TR","category":"tour","title":"Bosphorus cruise at sunset","duration":"3 hours","amount":4250.50,"currency":"TRY"}}'
headers=$(printf 'Authorization: Bearer %s\nContent-Type: application/json' "$ROOMCAST_TOKEN")
if command -v curl >/dev/null; then   # headers by standard input: a token in the arguments would be seen by everybody
  answer=$(curl -sS -m 10 -w '\n%{http_code}' -H @- -d "$event" "$ROOMCAST_INGEST/v1/events" <<<"$headers") || exit 69
else
  address=${ROOMCAST_INGEST#http://}; exec 3<>"/dev/tcp/${address%:*}/${address##*:}" || exit 69
  printf 'POST /v1/events HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n%s\r\nContent-Length: %d\r\n\r\n%s' "$address" "${headers//$'\n'/$'\r\n'}" "$(printf %s "$event" | wc -c)" "$event" >&3
  reply=$(tr -d '\r' <&3); status=${reply#* }; answer="${reply#*$'\n\n'}"$'\n'"${status%% *}"
fi
echo "${answer%$'\n'*}"
case ${answer##*$'\n'} in 200) ;; 5*|429) exit 69 ;; *) exit 65 ;; esac
