#!/usr/bin/env bash
# Publishes one booking over HTTP: publish.sh [ID]. Answer on standard output; exit 0 stored, 65 refused, 69 not reached in five attempts.
. .roomcast/dev.env || { echo "no .roomcast/dev.env here: run this where 'roomcast dev' runs" >&2; exit 69; }
id=${1:-bk-sh-$$-$(date +%s)}   # one id and the same bytes for every attempt: so it is stored once
event='{"id":"'$id'","type":"booking:new","room":"bookings","audience":"staff","data":{"id":"'$id'","customer":"Elif Kaya","country":"TR","category":"tour","title":"Bosphorus cruise at sunset","duration":"3 hours","amount":4250.50,"currency":"TRY"}}'
headers=$(printf 'Authorization: Bearer %s\nContent-Type: application/json' "$ROOMCAST_TOKEN")
attempt() {   # prints the answer with its head
  if command -v curl >/dev/null; then   # headers by standard input: a token in the arguments would be seen by everybody
    curl -sSi --suppress-connect-headers -m 10 -H @- -d "$event" "$ROOMCAST_INGEST/v1/events" <<<"$headers"
  else
    address=${ROOMCAST_INGEST#http://}; { exec 3<>"/dev/tcp/${address%:*}/${address##*:}"; } || return
    printf 'POST /v1/events HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n%s\r\nContent-Length: %d\r\n\r\n%s' "$address" "${headers//$'\n'/$'\r\n'}" "$(printf %s "$event" | wc -c)" "$event" >&3
    timeout 10 cat <&3
  fi
}
for pause in 1 2 4 8 ''; do
  answer=$(attempt) || answer=
  answer=${answer//$'\r'/}; status=${answer#* }; status=${status%%[!0-9]*}; after=0
  [[ ${answer%%$'\n\n'*} =~ [Rr][Ee][Tt][Rr][Yy]-[Aa][Ff][Tt][Ee][Rr]:\ *([0-9]+) ]] && after=${BASH_REMATCH[1]}
  case $status in '' | 408 | 429 | 5??) code=69 ;; 200) code=0 ;; *) code=65 ;; esac
  # Who shall wait for longer than this comes back later: after two minutes a repeat is a new event.
  if [ $code != 69 ] || [ -z "$pause" ] || [ "$after" -gt 15 ]; then break; fi
  sleep $((after > pause ? after : pause))
done
echo "${answer#*$'\n\n'}"; exit $code
