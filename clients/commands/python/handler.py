#!/usr/bin/env python3
"""A backend that carries out one command, with Python's standard library alone.

It listens as one of the queue `backends`, so each command is heard by one of however many run, does what it is told at most once per
Roomcast-Command-Id, and answers JSON. A real one keeps the ids where it keeps its data, in the same transaction; this one forgets them
when it ends. With a NATS library it is the same: subscribe to cmd.<name> in the queue `backends`, read three headers, reply.
"""

import json
import os
import socket
import sys

NAME = sys.argv[1] if len(sys.argv) > 1 else "delivery.update"
done = {}  # Roomcast-Command-Id: the answer


def carry_out(data, user, roles):
    """What the command does. Whatever this returns is the result of everybody who asks with the same key, for a day."""
    return {"delivery": (data or {}).get("delivery"), "updatedBy": user, "asked": len(done) + 1}


def answer(headers, body):
    command = headers["Roomcast-Command-Id"]
    if command not in done:
        done[command] = carry_out(json.loads(body), json.loads(headers["Roomcast-User"]), json.loads(headers["Roomcast-Roles"]))
    return json.dumps(done[command]).encode()


def read_headers(block):
    lines = (line.partition(":") for line in block.decode().split("\r\n")[1:] if line)
    return {name: value.strip() for name, _, value in lines}


def serve():
    host, _, port = os.environ["ROOMCAST_NATS"].removeprefix("nats://").split(",")[0].rpartition(":")
    nats = socket.create_connection((host, int(port)))
    heard = nats.makefile("rb")
    login = {"verbose": False, "headers": True, "name": "handler", "user": os.environ["ROOMCAST_NATS_BACKEND_USER"],
             "pass": os.environ["ROOMCAST_NATS_BACKEND_PASSWORD"]}
    heard.readline()  # INFO
    nats.sendall(f"CONNECT {json.dumps(login)}\r\nSUB cmd.{NAME} backends 1\r\nPING\r\n".encode())
    for line in heard:
        verb, *rest = line.decode().split()
        if verb == "PING":
            nats.sendall(b"PONG\r\n")
        elif verb == "PONG":
            print(f"listening on cmd.{NAME}", flush=True)
        elif verb == "HMSG":  # subject, id, reply, bytes of the headers, bytes in all
            reply, head, total = rest[2], int(rest[3]), int(rest[4])
            message = heard.read(total + 2)[:total]
            result = answer(read_headers(message[:head]), message[head:])
            nats.sendall(f"PUB {reply} {len(result)}\r\n".encode() + result + b"\r\n")
        elif verb == "-ERR":
            sys.exit(line.decode().strip())
    sys.exit("NATS has gone")


serve()
