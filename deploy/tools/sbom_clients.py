#!/usr/bin/env python3
"""Leaves what only builds and tests out of the clients' bill of materials.

Usage: cd clients && npm sbom --sbom-format cyclonedx | sbom_clients.py package-lock.json

`npm sbom --omit dev` would do so, but leaves out as well what one workspace ships and another one only tests with: React. The lock
file knows better.
"""
import json
import sys


def main() -> None:
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        sys.exit(64)
    with open(sys.argv[1]) as file:
        packages = json.load(file)["packages"]
    bill = json.load(sys.stdin)

    # Of a package in two versions each has a place of its own; the workspaces are links.
    built_with = {
        (path.rsplit("node_modules/", 1)[1], entry.get("version"))
        for path, entry in packages.items() if "node_modules/" in path and (entry.get("dev") or entry.get("devOptional"))
    }

    def ships(component: dict) -> bool:
        return (component["name"], component.get("version")) not in built_with

    bill["components"] = [component for component in bill["components"] if ships(component)]
    kept = {component["bom-ref"] for component in bill["components"]} | {bill["metadata"]["component"]["bom-ref"]}
    bill["dependencies"] = [
        one | {"dependsOn": [ref for ref in one.get("dependsOn", []) if ref in kept]}
        for one in bill["dependencies"] if one["ref"] in kept
    ]
    with open("dashboard/package.json") as file:
        missing = set(json.load(file)["dependencies"]) - {component["name"] for component in bill["components"]} - {"roomcast"}
    if missing:
        sys.exit(f"sbom_clients: the page ships {', '.join(sorted(missing))}, and the bill does not say so")
    json.dump(bill, sys.stdout, indent=2)


main()
