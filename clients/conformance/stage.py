"""One scenario's world: a gateway on a port of its own, the client's process, and what both said.

Made by `run.py` for each scenario; the scenarios in `scenarios.py` play on it.
"""
import asyncio
import base64
import json
import os
import signal
import time

from gateway import JSON, PROTOBUF, Failed, Peer

ROOM = "bookings"
TOKEN = "conformance.token.not-a-real-one"
EPOCH = "00c0ffee"
# A client may have to be compiled or to start a virtual machine first, seconds.
START_WITHIN = 60.0
# A client that was cut off comes back within this, seconds: the longest first waits in use, with room for slow machines.
RETURN_WITHIN = 12.0
# A line must come out within this after its frame, seconds.
LINE_WITHIN = 5.0
# How long is waited for a line that should not come, seconds.
QUIET = 0.4


def cursor(seq, rev=0):
    """A cursor as gateways make them. Clients must not look inside."""
    return f"{EPOCH}.{seq}.{rev}.a1"


def event(number, **more):
    """An event by its number."""
    whole = {"specversion": "1.0", "id": f"e{number}", "source": "/conformance", "type": "booking:new", "time": "2026-01-31T14:05:00Z"}
    return {**whole, "room": ROOM, "audience": "all", "priority": "medium", "data": {"n": number}, **more}


def state(key, version, **more):
    """A state event: the value of a key."""
    return event(version, id=f"{key}-{version}", type="metric.updated", delivery="state", statekey=key, **more)


class Stage:
    """See the module. `command` may hold {cursor_file}."""

    def __init__(self, command, folder):
        self.command, self.folder = command, folder
        self.peers, self.lines, self.errors = [], [], []
        self.process = None
        self._arrived, self._line_came, self._ended = asyncio.Queue(), asyncio.Event(), asyncio.Event()
        self._tasks = []

    async def __aenter__(self):
        self.server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_):
        await self.stop_client()
        self.server.close()
        for peer in self.peers:
            peer.drop(hard=False)
        for task in self._tasks:
            task.cancel()

    def _accept(self, reader, writer):
        peer = Peer(reader, writer)
        self.peers.append(peer)
        self._arrived.put_nowait(peer)

    # The client

    async def start_client(self):
        """Starts the command, with its address and token in the environment."""
        address = f"http://127.0.0.1:{self.port}"
        # What a killed client leaves behind goes with the folder.
        environment = {**os.environ, "ROOMCAST_GATEWAY": address, "ROOMCAST_VIEWER_TOKEN": TOKEN, "ROOMCAST_ROOM": ROOM, "TMPDIR": self.folder}
        words = [word.replace("{cursor_file}", os.path.join(self.folder, "cursor")) for word in self.command]
        pipe = asyncio.subprocess.PIPE
        # A group of its own, so that what the command starts (`go run`) ends with it.
        self.process = await asyncio.create_subprocess_exec(
            *words, stdin=asyncio.subprocess.DEVNULL, stdout=pipe, stderr=pipe, env=environment, start_new_session=True, limit=1 << 22
        )
        self._ended = asyncio.Event()
        self._tasks += [asyncio.ensure_future(self._read_lines(self.process, self._ended)), asyncio.ensure_future(self._read_errors(self.process))]

    async def stop_client(self):
        """Ends the client and everything it started, at once, as `kill -9` does."""
        if self.process is not None and self.process.returncode is None:
            try:
                os.killpg(self.process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            await self.process.wait()

    async def _read_lines(self, process, ended):
        async for raw in process.stdout:
            try:
                line = json.loads(raw)
            except ValueError:
                line = raw.decode(errors="replace").rstrip()
            self.lines.append(line)
            self._line_came.set()
        await process.wait()
        ended.set()
        self._line_came.set()

    async def _read_errors(self, process):
        async for raw in process.stderr:
            self.errors = [*self.errors[-9:], raw.decode(errors="replace").rstrip()]

    async def exit_code(self, within=10.0):
        """How the client ended by itself."""
        try:
            await asyncio.wait_for(self._ended.wait(), within)
        except asyncio.TimeoutError:
            raise Failed(f"still running after {within:g} s; it should have ended") from None
        return self.process.returncode

    async def delivered(self, *ids, within=LINE_WITHIN):
        """All that was printed since the start is exactly these event ids, in this order."""
        deadline = time.monotonic() + within
        while len(self.lines) < len(ids) and time.monotonic() < deadline:
            self._line_came.clear()
            try:
                await asyncio.wait_for(self._line_came.wait(), deadline - time.monotonic())
            except asyncio.TimeoutError:
                break
            if self._ended.is_set():
                break
        got = [line.get("id") if isinstance(line, dict) else line for line in self.lines]
        if got != list(ids):
            raise Failed(f"printed {got}, expected {list(ids)}")

    async def quiet(self, *ids):
        """As `delivered`, and nothing more comes for a moment."""
        await self.delivered(*ids)
        await asyncio.sleep(QUIET)
        await self.delivered(*ids)

    # The gateway

    async def connection(self, within=RETURN_WITHIN):
        """The client's next connection, its request read."""
        ended = asyncio.ensure_future(self._ended.wait())
        arrived = asyncio.ensure_future(self._arrived.get())
        await asyncio.wait([ended, arrived], timeout=within, return_when=asyncio.FIRST_COMPLETED)
        ended.cancel()
        if not arrived.done():
            arrived.cancel()
            if self._ended.is_set():
                raise Failed(f"ended with {self.process.returncode} instead of connecting")
            raise Failed(f"did not connect within {within:g} s")
        peer = arrived.result()
        try:
            await asyncio.wait_for(peer.read_head(), 10)
        except (asyncio.TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError):
            raise Failed("connected, but sent no request") from None
        return peer

    async def joined(self, within=RETURN_WITHIN):
        """The client's next connection, upgraded, its first message read and checked."""
        peer = await self.connection(within)
        check_request(peer.head)
        await peer.upgrade()
        peer.hello = await peer.message(8.0)
        check_hello(peer)
        return peer

    async def no_connection(self, within):
        """Nobody comes."""
        await asyncio.sleep(within)
        if not self._arrived.empty():
            raise Failed("came back although it should stay away")

    def violations(self):
        """What broke the rules of the wire, over all connections."""
        return [violation for peer in self.peers for violation in peer.violations]


def check_request(head):
    """The upgrade is what RFC 6455 and the gateway ask for."""
    path, _, query = head.target.partition("?")
    if TOKEN in query or "token=" in query:
        raise Failed("the token is in the URL, where every proxy logs it")
    rules = {
        f"{head.method} {path}, expected GET /v1/ws": (head.method, path) == ("GET", "/v1/ws"),
        "no Host header": "host" in head.headers,
        "no `Upgrade: websocket`": "websocket" in [word.lower() for word in head.words("upgrade")],
        "no `Connection: Upgrade`": "upgrade" in [word.lower() for word in head.words("connection")],
        "no `Sec-WebSocket-Version: 13`": head.headers.get("sec-websocket-version") == "13",
        "Sec-WebSocket-Key is not 16 bytes in base64": is_key(head.headers.get("sec-websocket-key", "")),
    }
    protocols = head.words("sec-websocket-protocol")
    rules[f"a subprotocol is asked for, but neither {JSON} nor {PROTOBUF}"] = not protocols or JSON in protocols or PROTOBUF in protocols
    for complaint, kept in rules.items():
        if not kept:
            raise Failed(complaint)


def is_key(text):
    """Whether this is a Sec-WebSocket-Key."""
    try:
        return len(base64.b64decode(text, validate=True)) == 16
    except ValueError:
        return False


def check_hello(peer):
    """The first message is `connect`, with the token unless the request carried it, and asks for the room."""
    hello = peer.hello
    connect = hello.get("connect")
    if not isinstance(connect, dict):
        raise Failed(f"the first message must be connect, not {sorted(hello)}")
    number = hello.get("id")
    if type(number) is not int or not 0 <= number < 1 << 32:
        raise Failed(f"connect needs an id (uint32), not {number!r}")
    in_header = peer.head.headers.get("authorization") == f"Bearer {TOKEN}" or f"bearer.{TOKEN}" in peer.head.words("sec-websocket-protocol")
    if connect.get("token") != TOKEN and not (in_header and "token" not in connect):
        raise Failed("the token is neither in connect nor in a header")
    if len(str(connect.get("client", "")).encode()) > 128:
        raise Failed("connect.client is longer than 128 bytes")
    rooms = connect.get("rooms", [])
    if [entry.get("room") for entry in rooms].count(ROOM) != 1:
        raise Failed(f"connect.rooms must name {ROOM} once: {rooms}")
    for entry in rooms:
        if "cursor" in entry and not (isinstance(entry["cursor"], str) and entry["cursor"]):
            raise Failed(f"a cursor is a text or absent: {entry}")


def offered(peer):
    """The cursor with which the client came to the room, or None."""
    return next(entry.get("cursor") for entry in peer.hello["connect"]["rooms"] if entry["room"] == ROOM)


async def welcome(peer, at, recovery="fresh", ping_seconds=25, **more):
    """Answers connect. `at` is where delivery starts; clients must not keep it."""
    answer = {"room": ROOM, "cursor": at, "recovery": recovery, **more}
    connected = {
        "connection": "c1", "user": "u1", "roles": ["staff"], "epoch": EPOCH, "pingSeconds": ping_seconds, "expiresAt": "2036-01-31T15:00:00Z",
        "serverTime": "2026-01-31T14:05:00Z", "status": "ok", "rooms": [answer],
        "limits": {"resumeSeconds": 3600, "subscriptions": 128, "messageBytes": 65536, "eventBytes": 65536},
    }
    await peer.say(id=peer.hello["id"], connected=connected)


async def send(peer, at, body):
    """Sends an event frame; `at` None for an ephemeral one."""
    place = {} if at is None else {"cursor": at}
    await peer.say(event={"room": ROOM, **place, "event": body})


async def caught_up(peer, at):
    """Says that nothing is missing up to here."""
    await peer.say(caughtUp={"room": ROOM, "cursor": at})


async def returned(stage, expected, **answer):
    """The client comes back with this cursor, and is answered `complete` from it."""
    peer = await stage.joined()
    if offered(peer) != expected:
        raise Failed(f"came back with cursor {offered(peer)}, expected {expected}")
    await welcome(peer, expected or cursor(1), "complete" if expected else "fresh", **answer)
    return peer
