"""Replays the golden messages of `proto/vectors/server_frames.json`: none may unsettle a client.

Every message stands alone, followed by an event of its own, so that the one that breaks a client is named.
"""
import json
import pathlib
import time

from gateway import JSON, PROTOBUF, Failed
from stage import RETURN_WITHIN, START_WITHIN, caught_up, cursor, event, send, welcome

FILE = pathlib.Path(__file__).resolve().parents[2] / "proto/vectors/server_frames.json"


def read():
    """The messages as they are on the wire in each encoding, and what is inside them."""
    rows = json.loads(FILE.read_text(encoding="utf-8"))
    return [(Golden(row), json.loads(row["text"])) for row in rows if "text" in row]


class Golden:
    """One message in both encodings. Displays as its text."""

    def __init__(self, row):
        self.text = row["text"]
        self.of = {JSON: [self.text.encode()], PROTOBUF: [bytes.fromhex(text) for text in (row["hex"], *row.get("also", []))]}

    def __str__(self):
        return self.text

    async def go_to(self, peer):
        """Sends it, in every way in which it may be written."""
        for payload in self.of[peer.encoding]:
            await peer.send(payload)


def ends_something(message):
    """Whether it takes the room or the connection away; these come last."""
    return "disconnect" in message or "code" in message.get("unsubscribed", {})


async def play(stage):
    """every message of proto/vectors/server_frames.json"""
    messages = read()
    await stage.start_client()
    peer = await stage.joined(START_WITHIN)
    connected = next(message for _, message in messages if "connected" in message)
    # As in the file, but for the id, which must be the client's own: with a refused room in it that was not asked for.
    await peer.say(**{**connected, "id": peer.hello["id"]})
    await caught_up(peer, cursor(1000))
    ids, number = [], 2000
    for golden, message in messages:
        if "connected" in message or ends_something(message):
            continue
        await golden.go_to(peer)
        body = message.get("event", {}).get("event")
        ids += [body["id"]] if body else []
        number += 1
        await send(peer, cursor(number), event(number))
        ids.append(f"e{number}")
        try:
            await stage.delivered(*ids)
        except Failed as failed:
            raise Failed(f"after {golden.text[:70]}…: {failed}") from None
    for golden, message in messages:
        if "disconnect" in message:
            peer = await comes_back(stage, peer, golden, message["disconnect"])
            number += 1
            await send(peer, cursor(number), event(number))
            ids.append(f"e{number}")
            await stage.delivered(*ids)
    for golden, message in messages:
        if "unsubscribed" in message and ends_something(message):
            # The room is gone: a client may end or stay without it, but not loop.
            await golden.go_to(peer)
            await stage.no_connection(2)


async def comes_back(stage, peer, golden, disconnect):
    """The end is said, and the client returns after the hint."""
    await golden.go_to(peer)
    said = time.monotonic()
    await peer.close(disconnect["code"])
    hint = disconnect.get("retryAfterMs", 0) / 1000
    again = await stage.joined(hint + RETURN_WITHIN)
    if again.at - said < hint - 0.05:
        raise Failed(f"came back {again.at - said:.2f} s after {golden}")
    await welcome(again, cursor(3000), "complete")
    return again
