"""The Python subscriber, speaking Protobuf: the same text with other words where it reads and writes frames.

For the runner's own tests. A client of yours has generated code in place of `protobuf.py`.
"""
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
WHOLE = HERE.parent / "subscribe/python/subscribe.py"
WORDS = [
    ("roomcast.v1.json", "roomcast.v1.protobuf"),
    ("""send(sock, 1, b'{"pong":{}}')""", """send(sock, 2, protobuf.encode("ClientFrame", {"pong": {}}))"""),
    ("""send(sock, 1, json.dumps({"id": 1, "connect": ask}).encode())""", """send(sock, 2, protobuf.encode("ClientFrame", {"id": 1, "connect": ask}))"""),
    ("json.loads(whole)", """protobuf.decode("ServerFrame", whole)"""),
]


def text():
    """The client's text."""
    whole = WHOLE.read_text(encoding="utf-8")
    for old, new in WORDS:
        if whole.count(old) != 1:
            sys.exit(f"{WHOLE} does not say {old!r} once")
        whole = whole.replace(old, new)
    return f"import sys; sys.path.insert(0, {str(HERE)!r}); import protobuf\n{whole}"


if __name__ == "__main__":
    exec(compile(text(), "subscribe_protobuf", "exec"))  # our own file, a few words changed
