"""The server side of a WebSocket, raw enough to send what no library would: the scripted gateway of the runner.

Used by `stage.py`. It judges nothing but RFC 6455 itself; what a client should have done is for the scenarios to say.
"""
import asyncio
import base64
import hashlib
import json
import struct
import time

import protobuf

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
# RFC 6455, section 1.3: appended to the client's key and hashed for the answer.
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
# The encodings in which a client may ask to be spoken to; JSON when it asks for none.
JSON, PROTOBUF = "roomcast.v1.json", "roomcast.v1.protobuf"
# The longest message that a real gateway takes from a client, bytes.
CLIENT_MESSAGE_BYTES_MAX = 65536


class Failed(Exception):
    """The client did something else than the protocol asks for; the text says what."""


def encode(opcode, payload, final=True):
    """One server frame: never masked."""
    size = len(payload)
    first = (0x80 if final else 0) | opcode
    if size < 126:
        return bytes([first, size]) + payload
    if size < 65536:
        return struct.pack("!BBH", first, 126, size) + payload
    return struct.pack("!BBQ", first, 127, size) + payload


class Head:
    """The request that asks for a WebSocket. Header names in lower case; a repeated header is joined by commas."""

    def __init__(self, text):
        lines = text.split("\r\n")
        self.method, self.target, self.version = (lines[0].split(" ") + ["", "", ""])[:3]
        self.headers = {}
        for line in lines[1:]:
            name, colon, value = line.partition(":")
            if colon:
                name, value = name.strip().lower(), value.strip()
                self.headers[name] = f"{self.headers[name]}, {value}" if name in self.headers else value

    def words(self, name):
        """The comma-separated words of a header."""
        return [word.strip() for word in self.headers.get(name, "").split(",") if word.strip()]


class Peer:
    """One connection of the client. `at` is when it came, seconds on the monotonic clock."""

    def __init__(self, reader, writer):
        self.reader, self.writer, self.at = reader, writer, time.monotonic()
        self.head = None
        self.upgraded = False
        # What is spoken, and the kind of WebSocket message that carries it.
        self.encoding, self.kind = JSON, TEXT
        self.violations = []
        self.messages = asyncio.Queue()
        self.pongs = asyncio.Queue()
        # The first message, once read: {"id": …, "connect": {…}}.
        self.hello = {}
        self.ended = asyncio.Event()
        self._pump = None

    async def read_head(self):
        """Reads the request, at most 16 KiB as asyncio's own limit has it after a look at the size."""
        raw = await self.reader.readuntil(b"\r\n\r\n")
        if len(raw) > 16384:
            self.violations.append("the request's headers are larger than 16 KiB")
        self.head = Head(raw[:-4].decode("latin-1"))

    async def upgrade(self):
        """Agrees to speak WebSocket and begins to read frames."""
        key = self.head.headers.get("sec-websocket-key", "").encode()
        accept = base64.b64encode(hashlib.sha1(key + GUID).digest()).decode()
        answer = ["HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade", f"Sec-WebSocket-Accept: {accept}"]
        # Of several the first that is known, as a gateway chooses.
        for word in self.head.words("sec-websocket-protocol"):
            if word in (JSON, PROTOBUF):
                self.encoding, self.kind = word, TEXT if word == JSON else BINARY
                answer.append(f"Sec-WebSocket-Protocol: {word}")
                break
        self.upgraded = True
        await self.raw("\r\n".join([*answer, "", ""]).encode())
        self._pump = asyncio.ensure_future(self._read_frames())

    async def refuse(self, status, reason, *headers):
        """Answers the request with an HTTP error instead."""
        await self.raw("\r\n".join([f"HTTP/1.1 {status} {reason}", "Content-Length: 0", "Connection: close", *headers, "", ""]).encode())
        self.drop()

    async def raw(self, data):
        """Writes bytes. A client that is gone is not this method's affair."""
        try:
            self.writer.write(data)
            await self.writer.drain()
        except (ConnectionError, OSError):
            pass

    def written(self, message):
        """A message as its bytes in what is spoken."""
        return json.dumps(message, ensure_ascii=False).encode() if self.encoding == JSON else protobuf.encode("ServerFrame", message)

    async def send(self, payload):
        """Sends a message's bytes as they are."""
        await self.raw(encode(self.kind, payload))

    async def say(self, **message):
        """Sends one message: `say(ping={})`."""
        await self.send(self.written(message))

    async def close(self, code):
        """Sends a close frame, waits a moment for the answer, and ends the connection."""
        await self.raw(encode(CLOSE, struct.pack("!H", code)))
        try:
            await asyncio.wait_for(self.ended.wait(), 1)
        except asyncio.TimeoutError:
            pass
        self.drop(hard=False)

    def drop(self, hard=True):
        """Ends the connection without a word, as a pulled cable or a killed process does."""
        transport = self.writer.transport
        if transport.is_closing():
            return
        if hard and self.upgraded:
            transport.abort()
        else:
            transport.close()

    async def message(self, within=5.0):
        """The next message of the client, as an object."""
        try:
            return await asyncio.wait_for(self.messages.get(), within)
        except asyncio.TimeoutError:
            raise Failed(f"no message came within {within:g} s") from None

    async def _read_frames(self):
        whole, kind = b"", TEXT
        try:
            while True:
                first, second = await self.reader.readexactly(2)
                size = second & 127
                if size > 125:
                    size = int.from_bytes(await self.reader.readexactly(2 if size == 126 else 8), "big")
                if first & 0x70:
                    self.violations.append("a frame has reserved bits set")
                if not second & 0x80:
                    self.violations.append("a frame is not masked")
                if size > CLIENT_MESSAGE_BYTES_MAX:
                    self.violations.append(f"a message of {size} bytes; a gateway takes {CLIENT_MESSAGE_BYTES_MAX}")
                    return
                mask = await self.reader.readexactly(4) if second & 0x80 else b"\0\0\0\0"
                payload = bytes(byte ^ mask[i & 3] for i, byte in enumerate(await self.reader.readexactly(size)))
                opcode = first & 15
                if opcode == CLOSE:
                    return
                if opcode == PING:
                    await self.raw(encode(PONG, payload))
                elif opcode == PONG:
                    self.pongs.put_nowait(payload)
                else:
                    whole, kind = (payload, opcode) if opcode else (whole + payload, kind)
                    if first & 0x80:
                        self._take(kind, whole)
        except (asyncio.IncompleteReadError, ConnectionError, OSError):
            pass
        finally:
            self.ended.set()

    def _take(self, kind, payload):
        if kind != self.kind:
            self.violations.append(f"a {'text' if kind == TEXT else 'binary'} message, although {self.encoding} is spoken")
            return
        try:
            message = json.loads(payload) if kind == TEXT else protobuf.decode("ClientFrame", payload)
        except ValueError:
            self.violations.append(f"a message that is not what {self.encoding} says: {payload[:80]!r}")
            return
        if not isinstance(message, dict) or len([name for name in message if name != "id"]) != 1:
            self.violations.append(f"a message must have one member beside id: {payload[:80]!r}")
            return
        self.messages.put_nowait(message)
