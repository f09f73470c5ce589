"""Prints a room's events, one line of JSON each; comes back by cursor after a loss, and with --cursor-file PATH after a restart."""
import base64, json, os, pathlib, random, signal, socket, ssl, struct, sys, time, urllib.parse
file = pathlib.Path(sys.argv[2]) if sys.argv[1:2] == ["--cursor-file"] else None
url, token, room = urllib.parse.urlsplit(os.environ["ROOMCAST_GATEWAY"]), os.environ["ROOMCAST_VIEWER_TOKEN"], os.environ.get("ROOMCAST_ROOM", "bookings")
place, seen, held = {"cursor": file.read_text() if file and file.exists() else ""}, {}, {}  # events by (source, id), oldest first; values by state key
signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # whoever reads our lines may go: no reason to reconnect
def keep(cursor):
    place["cursor"] = cursor
    if file: file.with_suffix(".new").write_text(cursor); os.replace(file.with_suffix(".new"), file)
def send(sock, opcode, payload):
    mask, size = os.urandom(4), len(payload)
    head = bytes([0x80 | opcode, 0x80 | size]) if size < 126 else struct.pack("!BBH", 0x80 | opcode, 0xFE, size)
    sock.sendall(head + mask + bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload)))
def take(sock, frame):  # answers (close code, hint in seconds) when the connection is over
    name, body = next(((name, body) for name, body in frame.items() if name != "id" and isinstance(body, dict)), ("", {}))
    if name == "connected":
        sock.settimeout(1.6 * body["pingSeconds"])
        body = next((answer for answer in body["rooms"] if answer["room"] == room), {})
    refusal = body.get("error") if name == "connected" else body if name == "error" and frame.get("id") == 1 else None
    if refusal: return print(refusal, file=sys.stderr) or (1006 if refusal["temporary"] else 4502, refusal.get("retryAfterMs", 0) / 1000)
    if name == "disconnect": return body["code"], body.get("retryAfterMs", 0) / 1000
    if name == "ping": send(sock, 1, b'{"pong":{}}')
    if body.get("room") != room: return None
    if name == "unsubscribed" and "code" in body: return 4502, 0
    if name == "connected" and body["recovery"] != "complete": keep(held.clear() or "")  # what is forgotten must be sent again
    if name == "event":
        event, who = body["event"], (body["event"]["source"], body["event"]["id"])
        known, key = (held, event["statekey"]) if "statekey" in event else (seen, who)
        if known.get(key) != who: known[key] = print(json.dumps(event, ensure_ascii=False), flush=True) or who
        if len(seen) > 4096: del seen[next(iter(seen))]
    if name in ("event", "caughtUp") and isinstance(body.get("cursor"), str): keep(body["cursor"])
def session(sock, stream):  # from the upgrade to the end: (close code, hint in seconds)
    sock.sendall(f"GET /v1/ws HTTP/1.1\r\nHost: {url.netloc}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                 f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}\r\nSec-WebSocket-Protocol: roomcast.v1.json\r\n\r\n".encode())
    status, *lines = [line.lower() for line in iter(lambda: stream.readline().strip(), b"")] or [b"- 0"]
    hint = next((float(line[12:]) for line in lines if line.startswith(b"retry-after:")), 0)
    if status.split()[1] != b"101": return 4500 if status.split()[1] in (b"400", b"401", b"403", b"404") else 1006, hint
    ask = {"token": token, "client": "subscribe.py", "rooms": [{"room": room, **(place if place["cursor"] else {})}]}
    whole, end = send(sock, 1, json.dumps({"id": 1, "connect": ask}).encode()), None
    while not end:
        first, size = stream.read(2)  # at the end of the stream this is a ValueError
        size = size if size < 126 else int.from_bytes(stream.read(2 if size == 126 else 8), "big")
        payload = stream.read(min(size, 1 << 24))  # no message is longer than 16 MiB
        if first & 15 == 8: return int.from_bytes(payload[:2], "big"), 0
        if first & 15 == 9: send(sock, 10, payload)
        if first & 15 < 3: whole = payload if first & 15 else whole + payload
        try: end = take(sock, json.loads(whole)) if first & 15 < 3 and first & 0x80 else None
        except (ValueError, AttributeError, KeyError, TypeError): pass  # makes no sense: not for us
    return end
attempt = -1
while True:
    started, (code, hint) = time.monotonic(), (1006, 0)
    try:
        with socket.create_connection((url.hostname, url.port or (443 if url.scheme == "https" else 80)), 15) as sock:
            if url.scheme == "https": sock = ssl.create_default_context().wrap_socket(sock, server_hostname=url.hostname)
            code, hint = session(sock, sock.makefile("rb"))
    except (OSError, ValueError, IndexError) as error: print("cut off:", error, file=sys.stderr)
    if 4500 <= code <= 4999 or code in (1002, 1003, 1007, 1009): sys.exit(f"ended for good: {code}")
    attempt = 0 if time.monotonic() - started > 5 else min(attempt + 1, 5)
    time.sleep(max(hint, random.uniform(0.05, 2 ** attempt)) if attempt or not hint else hint)
