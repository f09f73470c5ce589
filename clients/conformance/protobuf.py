"""Protobuf frames as the objects that JSON frames are, by what `proto/roomcast/v1/client.proto` says: for the runner, not for use.

No generated code, so that the runner needs nothing but Python. `vectors.py` has the golden messages; `self_test.py` holds this file
against them. Bytes of our messages are always JSON text. A member that the file does not name travels as field 100, which no message
has: so does what newer gateways may add.
"""
import json
import pathlib
import re

FILE = pathlib.Path(__file__).resolve().parents[2] / "proto/roomcast/v1/client.proto"
LATER = 100
VARINT, EIGHT, LENGTH, FOUR = 0, 1, 2, 5
ZERO = {"string": "", "bool": False, "uint32": 0, "uint64": 0}


class Field:
    """One field: its number, type, and whether it may be absent or repeated."""

    def __init__(self, label, kind, number, in_oneof):
        self.kind, self.number = kind, int(number)
        self.many, self.optional = label == "repeated", label == "optional" or in_oneof


def read():
    """Every message of the file: JSON name → field."""
    messages, fields, in_oneof = {}, {}, False
    for line in FILE.read_text(encoding="utf-8").splitlines():
        words = re.match(r"\s*(?:(optional|repeated) )?(\w+) (\w+) = (\d+);", line)
        if words:
            label, kind, name, number = words.groups()
            fields[re.sub(r"_(\w)", lambda part: part[1].upper(), name)] = Field(label, kind, number, in_oneof)
        elif begin := re.match(r"message (\w+)", line):
            fields = messages[begin[1]] = {}
        else:
            in_oneof = (in_oneof or "oneof" in line) and "}" not in line
    return messages


MESSAGES = read()


def varint(number):
    """A number in groups of seven bits."""
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def bytes_of(number, payload):
    """A field that has a length."""
    return varint(number << 3 | LENGTH) + varint(len(payload)) + payload


def one(field, value):
    """One value of a field."""
    if field.kind in ("bool", "uint32", "uint64"):
        return varint(field.number << 3 | VARINT) + varint(int(value))
    if field.kind in MESSAGES:
        return bytes_of(field.number, encode(field.kind, value))
    text = value if field.kind == "string" else json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return bytes_of(field.number, text.encode())


def encode(kind, message):
    """A message as bytes; what has its zero value and must be there anyway is left out, as proto3 does."""
    out = b""
    # In the order of the numbers, as every encoder in use writes.
    for name, value in sorted(message.items(), key=lambda item: MESSAGES[kind][item[0]].number if item[0] in MESSAGES[kind] else LATER):
        field = MESSAGES[kind].get(name)
        if field is None:
            out += bytes_of(LATER, json.dumps(value).encode())
        elif field.many:
            out += b"".join(one(field, entry) for entry in value)
        elif field.optional or field.kind not in ZERO or value != ZERO[field.kind]:
            out += one(field, value)
    return out


def fields(data):
    """(number, wire type, value) of each field, in order.

    Raises ValueError where the bytes are no message.
    """
    at = 0

    def number():
        nonlocal at
        whole = 0
        for shift in range(0, 70, 7):
            if at == len(data):
                raise ValueError("a number is cut off")
            whole |= (data[at] & 127) << shift
            at += 1
            if data[at - 1] < 128:
                return whole
        raise ValueError("a number without an end")

    while at < len(data):
        key = number()
        wire = key & 7
        if wire == VARINT:
            yield key >> 3, wire, number()
            continue
        if wire not in (EIGHT, LENGTH, FOUR):
            raise ValueError(f"wire type {wire}")
        size = number() if wire == LENGTH else 8 if wire == EIGHT else 4
        if at + size > len(data):
            raise ValueError("a field is cut off")
        yield key >> 3, wire, data[at : at + size]
        at += size


def decode(kind, data):
    """Bytes as the object that the JSON frame would be; unknown fields are left out.

    Raises ValueError where the bytes are no such message.
    """
    known = {field.number: (name, field) for name, field in MESSAGES[kind].items()}
    out = {name: [] if field.many else ZERO[field.kind] for name, field in MESSAGES[kind].items() if field.many or not field.optional and field.kind in ZERO}
    for number, wire, value in fields(bytes(data)):
        if number not in known:
            continue
        name, field = known[number]
        if (wire == VARINT) != (field.kind in ("bool", "uint32", "uint64")):
            raise ValueError(f"{kind}.{name} has wire type {wire}")
        if field.kind in MESSAGES:
            value = decode(field.kind, value)
        elif field.kind == "bool":
            value = bool(value)
        elif wire == LENGTH:
            value = value.decode() if field.kind == "string" else json.loads(value)
        if field.many:
            out[name].append(value)
        else:
            out[name] = value
    return out
