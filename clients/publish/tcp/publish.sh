#!/usr/bin/env bash
# Publishes one booking over NATS, by hand over TCP: what any language that opens a socket can do. publish.sh [ID]; exit 0 stored, 65 refused,
# 69 not reached in five attempts.
address=${ROOMCAST_NATS#nats://}; address=${address%%,*}; own=$$-$(date +%s%N); reply=$ROOMCAST_NATS_PUBLISHER_INBOX.$own
id=${1:-bk-tcp-$own}   # one id and the same bytes for every attempt: so it is stored once
event='{"id":"'$id'","type":"booking:new","data":{"id":"'$id'","customer":"Elif Kaya","country":"TR","category":"tour","title":"Bosphorus cruise at sunset","duration":"3 hours","amount":4250.50,"currency":"TRY"}}'
connect='{"verbose":false,"headers":true,"no_responders":true,"user":"'$ROOMCAST_NATS_PUBLISHER_USER'","pass":"'$ROOMCAST_NATS_PUBLISHER_PASSWORD'"}'
attempt() {   # prints the answer; 0 stored, 65 refused, 69 none or a temporary one
  { exec 3<>"/dev/tcp/${address%:*}/${address##*:}"; } || return 69
  IFS= read -r -t 10 _ <&3 || return 69   # INFO {…}
  trap '' PIPE   # a server that refuses hangs up while we still speak; its reason is read below
  printf 'CONNECT %s\r\nSUB %s 1\r\nPUB in.bookings.staff %s %d\r\n%s\r\n' "$connect" "$reply" "$reply" "$(printf %s "$event" | wc -c)" "$event" >&3 2>/dev/null
  while IFS= read -r -t 10 line <&3; do
    case $line in
      PING*) printf 'PONG\r\n' >&3 ;;
      MSG*)  IFS= read -r -t 10 answer <&3 || return 69
             echo "${answer%$'\r'}"   # the answer is one line of JSON
             case $answer in '{"status":"stored"'* | '{"status":"duplicate"'*) return 0 ;; *'"temporary":true'*) return 69 ;; *) return 65 ;; esac ;;
      HMSG*) echo "nobody takes events on this NATS" >&2; return 69 ;;   # status 503: no responders
      -ERR*) echo "${line%$'\r'}" >&2; return 65 ;;
    esac
  done
  echo "no answer from NATS" >&2; return 69
}
for pause in 1 2 4 8 ''; do
  answer=$(attempt); code=$?; after=0
  [[ $answer =~ '"retryAfterMs":'([0-9]+) ]] && after=$(((BASH_REMATCH[1] + 999) / 1000))
  # Who shall wait for longer than this comes back later: after two minutes a repeat is a new event.
  if [ $code != 69 ] || [ -z "$pause" ] || [ $after -gt 15 ]; then break; fi
  sleep $((after > pause ? after : pause))
done
[ -z "$answer" ] || echo "$answer"
exit $code
