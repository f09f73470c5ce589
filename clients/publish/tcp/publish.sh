#!/usr/bin/env bash
# Publishes one booking over NATS, by hand over TCP: what any language that opens a socket can do. Exit 0 stored, 65 refused, 69 not reached.
address=${ROOMCAST_NATS#nats://}; address=${address%%,*}; id=bk-tcp-$$-$(date +%s%N); reply=$ROOMCAST_NATS_PUBLISHER_INBOX.$id
event='{"id":"'$id'","type":"booking:new","data":{"id":"'$id'","customer":"Elif Kaya","country":"TR","category":"tour","title":"Bosphorus cruise at sunset","duration":"3 hours","amount":4250.50,"currency":"TRY"}}'
{ exec 3<>"/dev/tcp/${address%:*}/${address##*:}"; } || exit 69
IFS= read -r -t 10 _ <&3 || exit 69   # INFO {…}
connect='{"verbose":false,"headers":true,"no_responders":true,"user":"'$ROOMCAST_NATS_PUBLISHER_USER'","pass":"'$ROOMCAST_NATS_PUBLISHER_PASSWORD'"}'
trap '' PIPE   # a server that refuses hangs up while we still speak; its reason is read below
printf 'CONNECT %s\r\nSUB %s 1\r\nPUB in.bookings.staff %s %d\r\n%s\r\n' "$connect" "$reply" "$reply" "$(printf %s "$event" | wc -c)" "$event" >&3 2>/dev/null
while IFS= read -r -t 10 line <&3; do
  case $line in
    PING*) printf 'PONG\r\n' >&3 ;;
    MSG*)  IFS= read -r -t 10 answer <&3; echo "${answer%$'\r'}"   # the answer is one line of JSON
           case $answer in '{"status":"stored"'* | '{"status":"duplicate"'*) exit 0 ;; *'"temporary":true'*) exit 69 ;; *) exit 65 ;; esac ;;
    HMSG*) echo "nobody takes events on this NATS" >&2; exit 69 ;;   # status 503: no responders
    -ERR*) echo "${line%$'\r'}" >&2; exit 65 ;;
  esac
done
echo "no answer from NATS" >&2; exit 69
