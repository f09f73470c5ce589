#!/usr/bin/env python3
"""Writes what a binary is made of, as CycloneDX 1.5: every crate with version, licence, checksum, and what needs what.

Usage: sbom.py PACKAGE [FILE]      e.g. sbom.py roomcast-edge-gateway target/images/roomcast-edge-gateway.cdx.json
"""
import json
import pathlib
import platform
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
# What is built on this machine; what is for other systems only is left out.
TARGET = f"{platform.machine()}-unknown-linux-gnu"


def checksums():
    text = (ROOT / "Cargo.lock").read_text()
    found = re.findall(r'name = "([^"]+)"\nversion = "([^"]+)"\n(?:source = "[^"]+"\n)?(?:checksum = "([0-9a-f]{64})")?', text)
    return {(name, version): checksum for name, version, checksum in found}


def reached(graph, start):
    """Packages that are built into it: not what only tests or builds need."""
    seen, left = {}, [start]
    while left:
        one = left.pop()
        if one in seen:
            continue
        needs = [dep["pkg"] for dep in graph[one]["deps"] if any(kind["kind"] is None for kind in dep["dep_kinds"])]
        seen[one] = sorted(needs)
        left += needs
    return seen


def licences(text):
    return [{"expression": text.replace("/", " OR ")}] if text else []


def component(package, checksum, kind):
    made = {
        "type": kind, "bom-ref": package["id"], "name": package["name"], "version": package["version"],
        "purl": f'pkg:cargo/{package["name"]}@{package["version"]}', "licenses": licences(package["license"]),
    }
    if checksum:
        made["hashes"] = [{"alg": "SHA-256", "content": checksum}]
    return made


def bom(name):
    asked = ["cargo", "metadata", "--format-version", "1", "--locked", "--filter-platform", TARGET]
    metadata = json.loads(subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=True).stdout)
    packages = {package["id"]: package for package in metadata["packages"]}
    graph = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    own = next((one for one in metadata["workspace_members"] if packages[one]["name"] == name), None)
    if own is None:
        sys.exit(f"sbom: there is no package {name}")
    sums, needs = checksums(), reached(graph, own)
    one = lambda id_, kind: component(packages[id_], sums.get((packages[id_]["name"], packages[id_]["version"])), kind)
    return {
        "bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1,
        "metadata": {"component": one(own, "application")},
        "components": [one(id_, "library") for id_ in sorted(needs) if id_ != own],
        "dependencies": [{"ref": id_, "dependsOn": needs[id_]} for id_ in sorted(needs)],
    }


def main():
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    made = bom(sys.argv[1])
    text = json.dumps(made, indent=1) + "\n"
    if len(sys.argv) == 2:
        print(text, end="")
    else:
        file = pathlib.Path(sys.argv[2])
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        unlicensed = [one["name"] for one in made["components"] if not one["licenses"]]
        print(f'{file}: {len(made["components"])} components{", without a licence: " + ", ".join(unlicensed) if unlicensed else ""}')


main()
