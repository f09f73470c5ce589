"""What a client must survive, one function each: a script for the gateway and what the client must print or do.

Run by `run.py`, each on a stage of its own. The docstring is the row of the table; the name is what `--only` takes.
"""
import asyncio
import json
import time

from gateway import BINARY, JSON, PING, TEXT, Failed, encode
from stage import START_WITHIN, caught_up, cursor, event, offered, returned, send, state, welcome

ALL = []
# Rows about an HTTP answer to the upgrade, which a browser's WebSocket keeps from its page.
HTTP_ANSWERS = {"refused_upgrade", "unavailable"}


def scenario(play):
    """Adds a function to the list."""
    ALL.append(play)
    return play


async def first(stage, at=10, **more):
    """Starts the client and welcomes it to an empty room at this position."""
    await stage.start_client()
    peer = await stage.joined(START_WITHIN)
    if offered(peer) is not None:
        raise Failed(f"a new client has no cursor, but this one offers {offered(peer)}")
    await welcome(peer, cursor(at), **more)
    return peer


async def settled(stage, at=10, **more):
    """As `first`, and caught up one position later."""
    peer = await first(stage, at, **more)
    await caught_up(peer, cursor(at + 1))
    return peer


async def gap(stage, since, at_least, at_most, what):
    """The client's next connection comes in this span after `since`, seconds."""
    peer = await stage.joined(at_most + 1)
    waited = peer.at - since
    if not at_least <= waited <= at_most:
        raise Failed(f"{what}: came back after {waited:.2f} s, expected {at_least:g} to {at_most:g} s")
    return peer


@scenario
async def sign_in(stage):
    """sound upgrade, then connect with the token as first message"""
    peer = await settled(stage)
    await send(peer, cursor(12), event(12))
    await stage.delivered("e12")


@scenario
async def order(stage):
    """missed events, then state, then live: all of it, in order"""
    peer = await settled(stage)
    await send(peer, cursor(12), event(12))
    await send(peer, cursor(13), event(13))
    await stage.delivered("e12", "e13")
    peer.drop()
    peer = await returned(stage, cursor(13))
    for number in (14, 15, 16):
        await send(peer, cursor(number), event(number))
    await send(peer, None, state("revenue", 17))
    await caught_up(peer, cursor(17))
    await send(peer, cursor(18), event(18))
    await stage.quiet("e12", "e13", "e14", "e15", "e16", "revenue-17", "e18")


@scenario
async def duplicates(stage):
    """an event that comes twice is delivered once, also over a reconnect"""
    peer = await settled(stage)
    await send(peer, cursor(12), event(12))
    await send(peer, cursor(12), event(12))
    await stage.quiet("e12")
    peer.drop()
    peer = await returned(stage, cursor(12))
    await send(peer, cursor(12), event(12))
    # The same id from another source is another event.
    await send(peer, cursor(13), event(12, source="/elsewhere"))
    await send(peer, cursor(14), event(14))
    await stage.quiet("e12", "e12", "e14")


@scenario
async def incomplete(stage):
    """recovery incomplete: forgets the room's state, takes all of it again, goes on"""
    peer = await settled(stage)
    await send(peer, cursor(12, 1), event(12))
    await send(peer, cursor(12, 2), state("revenue", 2))
    await stage.delivered("e12", "revenue-2")
    peer.drop()
    peer = await stage.joined()
    await welcome(peer, cursor(90, 2), "incomplete", reason="too_far")
    await send(peer, None, state("revenue", 2))
    await caught_up(peer, cursor(91, 2))
    await send(peer, cursor(92, 2), event(92))
    await stage.quiet("e12", "revenue-2", "revenue-2", "e92")
    peer.drop()
    await returned(stage, cursor(92, 2))


@scenario
async def forgotten(stage):
    """cut off right after incomplete: the old cursor is not offered again"""
    # It held the state that was just forgotten: a gateway that can serve it would rightly not send that state again.
    peer = await settled(stage)
    await send(peer, cursor(12), event(12))
    await stage.delivered("e12")
    peer.drop()
    peer = await stage.joined()
    await welcome(peer, cursor(90), "incomplete", reason="expired")
    await asyncio.sleep(0.2)
    peer.drop()
    peer = await returned(stage, None)
    await caught_up(peer, cursor(95))
    await send(peer, cursor(96), event(96))
    await stage.quiet("e12", "e96")


@scenario
async def cursor_sources(stage):
    """cursors are kept from event and caughtUp only"""
    peer = await first(stage, at=50)
    await asyncio.sleep(0.2)
    peer.drop()
    # `connected` says where delivery starts; whoever keeps it skips all that was on its way.
    peer = await returned(stage, None)
    await caught_up(peer, cursor(51))
    await send(peer, cursor(52), event(52))
    await send(peer, None, event(53))
    await stage.delivered("e52", "e53")
    peer.drop()
    peer = await returned(stage, cursor(52))
    await caught_up(peer, cursor(60))
    await peer.say(sparkle={"room": "bookings", "cursor": cursor(70)})
    await peer.say(id=900, history={"room": "bookings", "events": [], "cursor": cursor(1), "complete": True})
    await send(peer, None, event(61))
    await stage.delivered("e52", "e53", "e61")
    peer.drop()
    await returned(stage, cursor(60))


@scenario
async def unknown(stage):
    """unknown messages and fields are ignored, on the same connection"""
    await stage.start_client()
    peer = await stage.joined(START_WITHIN)
    await welcome(peer, cursor(10), added={"later": [1, None]})
    await peer.say(sparkle={"deep": [{"a": None}]})
    await peer.say(id=4000000000, notYetInvented={})
    await peer.say(caughtUp={"room": "bookings", "cursor": cursor(11), "added": True})
    await peer.say(event={"room": "bookings", "cursor": cursor(12), "added": 1, "event": event(12, addedattribute="x", data=None)})
    await peer.say(event={"room": "bookings", "cursor": cursor(13), "event": event(13, data=[1, "ü", {"n": 1e300}])})
    await pong(peer)
    await stage.quiet("e12", "e13")


async def pong(peer, within=3.0):
    """A ping is answered on this connection."""
    await peer.say(ping={})
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        message = await peer.message(deadline - time.monotonic())
        if isinstance(message.get("pong"), dict):
            return
    raise Failed("a ping was not answered")


@scenario
async def pings(stage):
    """ping is answered with pong; a WebSocket ping with its own bytes"""
    peer = await settled(stage)
    await pong(peer)
    await pong(peer)
    await peer.raw(encode(PING, b"are you there"))
    try:
        payload = await asyncio.wait_for(peer.pongs.get(), 3)
    except asyncio.TimeoutError:
        raise Failed("a WebSocket ping was not answered") from None
    if payload != b"are you there":
        raise Failed(f"a WebSocket pong must carry the ping's bytes, not {payload!r}")


@scenario
async def drain(stage):
    """disconnect 4001 with a hint: back when told, not sooner, without a hole"""
    peer = await settled(stage)
    await send(peer, cursor(12), event(12))
    await peer.say(disconnect={"code": 4001, "reason": "drain", "reconnect": True, "retryAfterMs": 1500})
    said = time.monotonic()
    await peer.close(4001)
    peer = await gap(stage, said, 1.45, 6, "told to wait 1.5 s")
    if offered(peer) != cursor(12):
        raise Failed(f"came back with cursor {offered(peer)}, expected {cursor(12)}")
    await welcome(peer, cursor(12), "complete")
    await send(peer, cursor(13), event(13))
    await stage.quiet("e12", "e13")


@scenario
async def unknown_return(stage):
    """an unknown close code from 4000 to 4499, with no disconnect before it: comes back"""
    peer = await settled(stage)
    await peer.close(4177)
    peer = await returned(stage, cursor(11))
    await send(peer, cursor(12), event(12))
    await stage.delivered("e12")


@scenario
async def final(stage):
    """disconnect 4500: ends with a non-zero code and stays away"""
    peer = await settled(stage)
    await peer.say(disconnect={"code": 4500, "reason": "bad_token", "reconnect": False})
    await peer.close(4500)
    await ends(stage)


@scenario
async def unknown_final(stage):
    """an unknown close code from 4500 to 4999: ends with a non-zero code"""
    peer = await settled(stage)
    await peer.close(4777)
    await ends(stage)


async def ends(stage):
    """The client ends by itself, not well, and does not come back first."""
    code = await stage.exit_code()
    await stage.no_connection(0)
    if code == 0:
        raise Failed("ended with 0, so that whoever started it thinks that all went well")


@scenario
async def refused_upgrade(stage):
    """HTTP 401 to the upgrade: ends with a non-zero code"""
    await stage.start_client()
    peer = await stage.connection(START_WITHIN)
    await peer.refuse(401, "Unauthorized")
    await ends(stage)


@scenario
async def unavailable(stage):
    """HTTP 503 to the upgrade: comes back, not before Retry-After"""
    await stage.start_client()
    peer = await stage.connection(START_WITHIN)
    said = time.monotonic()
    await peer.refuse(503, "Service Unavailable", "Retry-After: 2")
    peer = await gap(stage, said, 1.95, 8, "told to wait 2 s")
    await welcome(peer, cursor(10))
    await send(peer, cursor(11), event(11))
    await stage.delivered("e11")


@scenario
async def refused_room(stage):
    """a room that is forbidden is not asked for again and again"""
    await stage.start_client()
    peer = await stage.joined(START_WITHIN)
    refusal = {"code": "forbidden", "message": "not there, or not yours", "temporary": False}
    await peer.say(id=peer.hello["id"], connected={"pingSeconds": 25, "status": "ok", "rooms": [{"room": "bookings", "error": refusal}]})
    await stage.no_connection(2.5)


@scenario
async def back_off(stage):
    """cut off again and again: comes back, with pauses, and then goes on"""
    peer = await settled(stage)
    last = time.monotonic()
    peer.drop()
    for attempt in range(3):
        peer = await stage.connection(RETURNS[attempt])
        if peer.at - last < 0.04:
            raise Failed(f"came back after {(peer.at - last) * 1000:.0f} ms: a gateway that restarts would be overrun")
        last = time.monotonic()
        peer.drop()
    peer = await stage.joined(RETURNS[3])
    await welcome(peer, cursor(11), "complete")
    await send(peer, cursor(12), event(12))
    await stage.delivered("e12")


# The longest waits accepted, seconds: twice 1, 2, 4, 8 s and a little.
RETURNS = (3.0, 5.0, 9.0, 17.0)


@scenario
async def garbage(stage):
    """frames that make no sense do not end the client or lose what follows"""
    peer = await settled(stage)
    for payload in JSON_GARBAGE if peer.encoding == JSON else PROTOBUF_GARBAGE:
        await peer.send(payload)
    # The other kind of message.
    await peer.raw(encode(BINARY if peer.kind == TEXT else TEXT, b"\x00\x7f\x00"))
    await send(peer, cursor(12), event(12))
    # Whoever hung up comes back, and gets it then.
    if await hung_up(stage, peer):
        again = await stage.joined()
        await welcome(again, cursor(11), "complete")
        await send(again, cursor(12), event(12))
    await stage.quiet("e12")


JSON_GARBAGE = [b"", b"not json", b"[1,2]", b"42", b"null", b'"event"', b"{}", b'{"event":null}', b'{"event":7}', b'{"event":{}}', b'{"caughtUp":[]}']
JSON_GARBAGE.append(json.dumps({"event": {"room": 5, "cursor": {}, "event": "text"}}).encode())
# Nothing; no key; a number and a length without an end; an event that is a number, that is empty, whose CloudEvent is no JSON, nothing
# at all; a group; a text that is not UTF-8.
PROTOBUF_GARBAGE = [bytes.fromhex(text) for text in ("", "ff", "5aff", "5a05", "5801", "5a00", "5a0d0a08626f6f6b696e67731a017b", "5a0a0a08626f6f6b696e6773", "5b5c", "62040a02fffe")]


async def hung_up(stage, peer):
    """Whether the client left this connection rather than deliver from it."""
    deadline = time.monotonic() + 3
    while time.monotonic() < deadline and not stage.lines and not peer.ended.is_set():
        await asyncio.sleep(0.05)
    return peer.ended.is_set() and not stage.lines


@scenario
async def fragments(stage):
    """messages in pieces, with a ping between them; a message of 60 KB and one of 70 KB"""
    peer = await settled(stage)
    whole = peer.written({"event": {"room": "bookings", "cursor": cursor(12), "event": event(12, data={"text": "ü" * 50})}})
    # The last cut is between the two bytes of an ü, which is allowed.
    cut = whole.rindex("ü".encode()) - 19
    pieces = [encode(peer.kind, whole[:3], final=False), encode(PING, b"x"), encode(0, whole[3:cut], final=False), encode(0, whole[cut:])]
    for byte in b"".join(pieces)[:20]:
        await peer.raw(bytes([byte]))
    await peer.raw(b"".join(pieces)[20:])
    await send(peer, cursor(13), event(13, data={"text": "x" * 60_000}))
    await send(peer, cursor(14), event(14, data={"text": "ü" * 35_000}))
    await stage.quiet("e12", "e13", "e14")
    if stage.lines[2]["data"]["text"] != "ü" * 35_000:
        raise Failed("the text of the large event came out changed")


@scenario
async def silence(stage):
    """a server that falls silent for more than 1.6 ping intervals is left for a new connection"""
    peer = await settled(stage, ping_seconds=1)
    said = time.monotonic()
    peer = await gap(stage, said, 1.5, 12, "silent, pings promised every second")
    await welcome(peer, cursor(11), "complete")
    await send(peer, cursor(12), event(12))
    await stage.delivered("e12")


@scenario
async def restart(stage):
    """killed and started again: goes on from its cursor file"""
    if not any("{cursor_file}" in word for word in stage.command):
        return "the command has no {cursor_file}"
    peer = await settled(stage)
    await send(peer, cursor(12), event(12))
    await caught_up(peer, cursor(15))
    await send(peer, None, event(16))
    await stage.delivered("e12", "e16")
    await stage.stop_client()
    await stage.start_client()
    peer = await returned(stage, cursor(15))
    await send(peer, cursor(17), event(17))
    await stage.quiet("e12", "e16", "e17")
    return None
