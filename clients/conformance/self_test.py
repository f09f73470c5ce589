#!/usr/bin/env python3
"""Shows that the runner can fail: breaks the Python subscriber in one way at a time, and looks for the row that says so.

The subscriber in JSON, and a few ways of breaking the one in Protobuf; before that the runner's own Protobuf is held against the golden
messages. Exit: 0 every break was found in the row meant for it, 1 one was not.
"""
import asyncio
import json
import pathlib
import sys
import tempfile

import protobuf
import subscribe_protobuf
from run import judge, rows

VECTORS = pathlib.Path(__file__).resolve().parents[2] / "proto/vectors"
WHOLE = pathlib.Path(__file__).resolve().parents[1] / "subscribe/python/subscribe.py"

# What is broken, the text of the whole client, the text of the broken one, the row that must fail.
BREAKS = [
    ("token in the URL", "GET /v1/ws HTTP", "GET /v1/ws?token={token} HTTP", "sign_in"),
    ("no token", '"connect": ask', '"connect": {**ask, "token": ""}', "sign_in"),
    ("speaks before connect", "whole, end = send", 'send(sock, 1, b\'{"pong":{}}\'); whole, end = send', "sign_in"),
    ("frames without a mask", "0xFE, size)", "0x7E, size)", "sign_in"),
    ("forgets its cursor on a loss", "**(place if place", "**({} if place", "order"),
    ("prints what is old again", "if known.get(key) != who:", "if True:", "duplicates"),
    ("knows events by id alone", 'who = body["event"], (body["event"]["source"], ', 'who = body["event"], ("", ', "duplicates"),
    ("keeps old state over incomplete", "keep(held.clear() or", "keep(", "incomplete"),
    ("keeps its cursor over incomplete", 'keep(held.clear() or "")', "held.clear()", "forgotten"),
    ("keeps the cursor of connected", 'in ("event", "caughtUp")', 'in ("event", "caughtUp", "connected")', "cursor_sources"),
    ("keeps no cursor of caughtUp", 'in ("event", "caughtUp")', 'in ("event",)', "cursor_sources"),
    ("ends at an unknown message", 'if body.get("room") != room: return None', 'if name == "sparkle": sys.exit(1)\n    if body.get("room") != room: return None', "unknown"),
    ("leaves pings unanswered", "b'{\"pong\":{}}'", "b'{\"id\":9,\"unsubscribe\":{\"room\":\"x\"}}'", "pings"),
    ("leaves WebSocket pings unanswered", "send(sock, 10, payload)", "pass", "pings"),
    ("deaf to the hint", 'body["code"], body.get("retryAfterMs", 0) / 1000', 'body["code"], 0', "drain"),
    ("gives up on a code it does not know", "4500 <= code", "4100 <= code", "unknown_return"),
    ("comes back after 4500", "4500 <= code", "4501 <= code", "final"),
    ("ends well after 4500", 'sys.exit(f"ended for good: {code}")', "sys.exit(0)", "final"),
    ("comes back after 4777", "<= 4999", "<= 4599", "unknown_final"),
    ("comes back after 401", 'b"401", ', "", "refused_upgrade"),
    ("deaf to Retry-After", "float(line[12:])", "0", "unavailable"),
    ("asks for a forbidden room again and again", "else 4502, refusal", "else 4001, refusal", "refused_room"),
    ("comes back without a pause", "time.sleep(", "time.sleep(0 * ", "back_off"),
    ("ends at garbage", "(ValueError, AttributeError, KeyError, TypeError): pass", "(ValueError, AttributeError, KeyError, TypeError): sys.exit(1)", "garbage"),
    ("takes pieces for messages", "payload if first & 15 else whole + payload", "payload", "fragments"),
    ("waits for ever in silence", '1.6 * body["pingSeconds"]', "None", "silence"),
    ("forgets its cursor file", 'file.read_text() if', '"" if', "restart"),
    ("ends at an error that is no answer of its own", 'name == "error" and frame.get("id") == 1', 'name == "error"', "vectors"),
]

# The same for the client in Protobuf.
PROTOBUF_BREAKS = [
    ("asks in text", 'send(sock, 2, protobuf.encode("ClientFrame", {"id": 1', 'send(sock, 1, protobuf.encode("ClientFrame", {"id": 1', "sign_in"),
    ("asks in JSON", 'protobuf.encode("ClientFrame", {"id": 1, "connect": ask})', 'json.dumps({"id": 1, "connect": ask}).encode()', "sign_in"),
    ("leaves pings unanswered", 'protobuf.encode("ClientFrame", {"pong": {}})', 'protobuf.encode("ClientFrame", {"id": 9, "unsubscribe": {"room": "x"}})', "pings"),
    ("ends at a field it does not know", "try: end = take", "if any(number > 19 for number, *_ in protobuf.fields(whole)): sys.exit(1)\n        try: end = take", "unknown"),
    ("ends at garbage", "(ValueError, AttributeError, KeyError, TypeError): pass", "(ValueError, AttributeError, KeyError, TypeError): sys.exit(1)", "garbage"),
    ("takes pieces for messages", "payload if first & 15 else whole + payload", "payload", "fragments"),
    ("forgets its cursor on a loss", "**(place if place", "**({} if place", "order"),
    ("ends at an answer it never asked for", "if body.get(\"room\") != room: return None", 'if name == "presence": sys.exit(1)\n    if body.get("room") != room: return None', "vectors"),
]


def golden():
    """What of the golden messages the runner's own Protobuf reads or writes otherwise. Bytes of JSON may differ in their spaces."""
    for kind, file in (("ServerFrame", "server_frames.json"), ("ClientFrame", "client_frames.json")):
        for row in json.loads((VECTORS / file).read_text(encoding="utf-8")):
            meant = json.loads(row.get("canonical", row["text"]))
            ways = [bytes.fromhex(text) for text in (row["hex"], *row.get("also", []))]
            for payload in (*ways, protobuf.encode(kind, meant)):
                if protobuf.decode(kind, payload) != meant:
                    yield f"{file}: {payload.hex()} is not {row['text']}"


async def find(folder, number, turn):
    """Breaks a client in one way and answers whether its row failed."""
    what, old, new, row = (BREAKS + PROTOBUF_BREAKS)[number]
    text = WHOLE.read_text(encoding="utf-8") if number < len(BREAKS) else subscribe_protobuf.text()
    if text.count(old) != 1:
        print(f"FAILED  {what}: the text to break is there {text.count(old)} times", flush=True)
        return False
    broken = pathlib.Path(folder) / f"broken_{number}.py"
    broken.write_text(text.replace(old, new), encoding="utf-8")
    command = [sys.executable, str(broken), "--cursor-file", "{cursor_file}"]
    _, verdict, _, remark = await judge(row, rows()[row], command, turn)
    found = verdict == "FAILED"
    first = remark.splitlines()[0] if remark else "nothing was said of it"
    print(f"{'found' if found else 'MISSED':8}{row:16}{what}: {first[:110]}", flush=True)
    return found


async def main():
    """Breaks the clients in every way."""
    wrong = list(golden())
    for line in wrong:
        print(f"FAILED  {line}", flush=True)
    turn = asyncio.Semaphore(6)
    with tempfile.TemporaryDirectory(prefix="roomcast-conformance-") as folder:
        found = await asyncio.gather(*(find(folder, number, turn) for number in range(len(BREAKS + PROTOBUF_BREAKS))))
    silent = sorted(set(rows()) - {row for *_, row in BREAKS})
    print(f"{sum(found)} of {len(found)} broken clients were found" + (f"; no break for: {', '.join(silent)}" if silent else ""))
    return 0 if all(found) and not silent and not wrong else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
