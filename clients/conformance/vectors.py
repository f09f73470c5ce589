"""Replays the golden messages of `proto/vectors/server_frames.json`: none may unsettle a client.

Every message stands alone, followed by an event of its own, so that the one that breaks a client is named.
"""
import json
import pathlib
import time

from gateway import Failed
from stage import RETURN_WITHIN, START_WITHIN, caught_up, cursor, event, send, welcome

FILE = pathlib.Path(__file__).resolve().parents[2] / "proto/vectors/server_frames.json"


def read():
    """The messages as they are on the wire, and what is inside them."""
    rows = json.loads(FILE.read_text(encoding="utf-8"))
    return [(row["text"], json.loads(row["text"])) for row in rows if "text" in row]


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
    await peer.text(json.dumps({**connected, "id": peer.hello["id"]}))
    await caught_up(peer, cursor(1000))
    ids, number = [], 2000
    for text, message in messages:
        if "connected" in message or ends_something(message):
            continue
        await peer.text(text)
        body = message.get("event", {}).get("event")
        ids += [body["id"]] if body else []
        number += 1
        await send(peer, cursor(number), event(number))
        ids.append(f"e{number}")
        try:
            await stage.delivered(*ids)
        except Failed as failed:
            raise Failed(f"after {text[:70]}…: {failed}") from None
    for text, message in messages:
        if "disconnect" in message:
            peer = await comes_back(stage, peer, text, message["disconnect"])
            number += 1
            await send(peer, cursor(number), event(number))
            ids.append(f"e{number}")
            await stage.delivered(*ids)
    for text, message in messages:
        if "unsubscribed" in message and ends_something(message):
            # The room is gone: a client may end or stay without it, but not loop.
            await peer.text(text)
            await stage.no_connection(2)


async def comes_back(stage, peer, text, disconnect):
    """The end is said, and the client returns after the hint."""
    await peer.text(text)
    said = time.monotonic()
    await peer.close(disconnect["code"])
    hint = disconnect.get("retryAfterMs", 0) / 1000
    again = await stage.joined(hint + RETURN_WITHIN)
    if again.at - said < hint - 0.05:
        raise Failed(f"came back {again.at - said:.2f} s after {text}")
    await welcome(again, cursor(3000), "complete")
    return again
