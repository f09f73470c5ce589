#!/usr/bin/env python3
"""Copies streams out of NATS and back, with nothing but Python; folders are those of `nats stream backup`.

Usage: backup.py save FOLDER [STREAM…]       all streams and buckets, while everything runs
       backup.py restore FOLDER [STREAM…]    into servers that have none of them

ROOMCAST_NATS_URL (nats://127.0.0.1:4222), ROOMCAST_NATS_USER (admin) and ROOMCAST_NATS_PASSWORD say where and as whom; TLS is not
spoken: go through a port of the server itself.
"""
import json
import os
import pathlib
import secrets
import socket
import sys
import urllib.parse

# Below the server's max_payload of 256 KiB.
CHUNK = 128 * 1024
ANSWER_WITHIN = 60


class Failed(Exception):
    """NATS does not do it, and says why."""


class Nats:
    """The few words of NATS that are needed."""

    def __init__(self, url, user, password):
        parts = urllib.parse.urlsplit(url.split(",")[0])
        self.socket = socket.create_connection((parts.hostname, parts.port or 4222), timeout=ANSWER_WITHIN)
        self.lines = self.socket.makefile("rb")
        self.inbox = f"_INBOX.{secrets.token_hex(8)}"
        self.asked = 0
        self.lines.readline()
        options = {"user": user, "pass": password, "verbose": False, "pedantic": False, "headers": True, "no_responders": True, "name": "backup"}
        self.socket.sendall(f"CONNECT {json.dumps(options)}\r\nSUB {self.inbox}.* 1\r\nPING\r\n".encode())
        line = self.lines.readline()
        if not line.startswith(b"PONG"):
            raise Failed(line.decode().strip() or "the server closed the connection")

    def publish(self, subject, body=b"", reply=""):
        self.socket.sendall(f"PUB {subject} {reply} {len(body)}\r\n".encode() + body + b"\r\n")

    def next(self):
        """The next message: subject, where to answer, body."""
        while True:
            words = self.lines.readline().decode().split()
            if not words:
                raise Failed("the server closed the connection")
            if words[0] == "PING":
                self.socket.sendall(b"PONG\r\n")
            elif words[0] == "-ERR":
                raise Failed(" ".join(words[1:]))
            elif words[0] in ("MSG", "HMSG"):
                headers = words[0] == "HMSG"
                size = int(words[-1])
                body = self.lines.read(size + 2)[:size]
                if headers:
                    head, body = body[:int(words[-2])], body[int(words[-2]):]
                    if b" 503" in head.split(b"\r\n")[0]:
                        raise Failed("nobody answers: is this the account of the streams?")
                reply = words[3] if len(words) == (6 if headers else 5) else ""
                return words[1], reply, body

    def ask(self, subject, body):
        self.asked += 1
        inbox = f"{self.inbox}.{self.asked}"
        self.publish(subject, body if isinstance(body, bytes) else json.dumps(body).encode(), inbox)
        while True:
            to, _, answer = self.next()
            if to == inbox:
                return answer

    def call(self, subject, body):
        answer = json.loads(self.ask(f"$JS.API.{subject}", body))
        if "error" in answer:
            raise Failed(answer["error"]["description"])
        return answer


def streams(nats):
    names, total = [], 1
    while len(names) < total:
        page = nats.call("STREAM.NAMES", {"offset": len(names)})
        total = page["total"]
        names += page["streams"] or []
    return sorted(names)


def save(nats, stream, folder):
    inbox = f"{nats.inbox}.data"
    # Readers make their consumers anew; one that goes meanwhile would end the copy.
    about = nats.call(f"STREAM.SNAPSHOT.{stream}", {"deliver_subject": inbox, "chunk_size": CHUNK, "jsck": True, "no_consumers": True})
    folder.mkdir(parents=True)
    size = 0
    with open(folder / "stream.tar.s2", "wb") as file:
        while True:
            to, reply, chunk = nats.next()
            if to != inbox:
                continue
            if not chunk:
                break
            file.write(chunk)
            size += len(chunk)
            # The server sends on when what it sent is taken.
            if reply:
                nats.publish(reply)
    (folder / "backup.json").write_text(json.dumps({"config": about["config"], "state": about["state"]}, indent=1))
    return about["state"]["messages"], size


def restore(nats, stream, folder):
    about = json.loads((folder / "backup.json").read_text())
    where = nats.call(f"STREAM.RESTORE.{stream}", about)["deliver_subject"]
    with open(folder / "stream.tar.s2", "rb") as file:
        while chunk := file.read(CHUNK):
            refused = nats.ask(where, chunk)
            if refused and "error" in json.loads(refused):
                raise Failed(refused.decode())
    # Nothing is the end; then the server reads it all.
    made = json.loads(nats.ask(where, b""))
    if "error" in made:
        raise Failed(made["error"]["description"])
    # Messages may be fewer: what was to end meanwhile has ended. Positions are the same.
    if made["state"]["last_seq"] != about["state"]["last_seq"]:
        raise Failed(f'{stream} ends at {made["state"]["last_seq"]} instead of {about["state"]["last_seq"]}')
    return f'{made["state"]["messages"]} messages of {about["state"]["messages"]}'


def main():
    if len(sys.argv) < 3 or sys.argv[1] not in ("save", "restore"):
        sys.exit(__doc__)
    action, folder, chosen = sys.argv[1], pathlib.Path(sys.argv[2]), sys.argv[3:]
    env = os.environ.get
    try:
        nats = Nats(env("ROOMCAST_NATS_URL", "nats://127.0.0.1:4222"), env("ROOMCAST_NATS_USER", "admin"), env("ROOMCAST_NATS_PASSWORD", ""))
        if action == "save":
            for stream in chosen or streams(nats):
                messages, size = save(nats, stream, folder / stream)
                print(f"{stream}: {messages} messages, {size:,} bytes")
        else:
            for stream in chosen or sorted(path.name for path in folder.iterdir() if (path / "backup.json").exists()):
                print(f"{stream}: {restore(nats, stream, folder / stream)}")
    except (Failed, OSError) as failed:
        sys.exit(f"backup: {failed}")


main()
