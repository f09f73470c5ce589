#!/usr/bin/env python3
"""Makes what the manifests in k8s mount for NATS, from deploy/nats/node.conf.example: a configuration with new passwords.

Usage: nats_secret.py FOLDER [--single]

Writes nats.conf and one file per password; --single is for one node instead of three. On a network that others can reach, put the tls blocks of the example back.
"""
import os
import pathlib
import re
import secrets
import sys

EXAMPLE = pathlib.Path(__file__).parent.parent / "nats" / "node.conf.example"
NODES = ["nats-0.nats", "nats-1.nats", "nats-2.nats"]


def without_tls(text: str) -> str:
    """The blocks have no blocks inside."""
    return re.sub(r"^ *tls \{[^{}]*\}\n", "", text, flags=re.M)


def replaced(pattern: str, new: str, text: str) -> str:
    text, count = re.subn(pattern, lambda _: new, text, count=1, flags=re.M)
    if count != 1:
        sys.exit(f"{EXAMPLE}: {pattern} is not there")
    return text


def configuration(text: str, passwords: dict[str, str], single: bool) -> str:
    text = without_tls(text)
    text = replaced(r"^#.*$", "# Made by deploy/tools/nats_secret.py.", text)
    # The server reads it from its environment.
    text = replaced(r'^server_name: .*$', "server_name: $POD_NAME", text)
    # The kubelet asks from outside.
    text = replaced(r'^http: .*$', 'http: "0.0.0.0:8222"', text)
    if single:
        text = replaced(r"^cluster \{\n(?:  .*\n)*\}\n", "", text)
    routes = ", ".join(f'"nats-route://route:CHANGE-ME-route@{node}:6222"' for node in NODES)
    if not single:
        text = replaced(r"^  routes: .*$", f"  routes: [ {routes} ]", text)
    for name, password in passwords.items():
        text = text.replace(f'CHANGE-ME-{name}"', f'{password}"').replace(f"CHANGE-ME-{name}@", f"{password}@")
    return text


def main() -> None:
    given = sys.argv[1:]
    single = "--single" in given
    folders = [one for one in given if one != "--single"]
    if len(folders) != 1 or folders[0].startswith("-"):
        print(__doc__, file=sys.stderr)
        sys.exit(64)
    folder = pathlib.Path(folders[0])
    folder.mkdir(mode=0o700, parents=True)
    example = EXAMPLE.read_text()
    names = sorted(set(re.findall(r'CHANGE-ME-([a-z-]+)["@]', example)))
    passwords = {name: secrets.token_hex(24) for name in names}
    files = {"nats.conf": configuration(example, passwords, single)} | passwords
    if "CHANGE-ME" in files["nats.conf"]:
        sys.exit("a password of the example was not replaced")
    for name, content in files.items():
        path = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(path, "w") as file:
            file.write(content)
    print(f"{folder}: nats.conf, and passwords of {', '.join(names)}")


main()
