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

    installed = [(path.rsplit("node_modules/", 1)[1], entry) for path, entry in packages.items() if "node_modules/" in path]
    tools, shipped = set(), set()
    for name, entry in installed:
        (tools if entry.get("dev") or entry.get("devOptional") else shipped).add((name, entry.get("version")))

    def ships(component: dict) -> bool:
        # The same one may be a tool in one place and shipped in another; workspaces are neither.
        return (component["name"], component.get("version")) not in tools - shipped

    bill["components"] = [component for component in bill["components"] if ships(component)]
    kept = {component["bom-ref"] for component in bill["components"]} | {bill["metadata"]["component"]["bom-ref"]}
    bill["dependencies"] = [
        one | {"dependsOn": [ref for ref in one.get("dependsOn", []) if ref in kept]}
        for one in bill["dependencies"] if one["ref"] in kept
    ]
    missing = set(packages["dashboard"]["dependencies"]) - {component["name"] for component in bill["components"]} - {"roomcast"}
    if missing:
        sys.exit(f"sbom_clients: the page ships {', '.join(sorted(missing))}, and the bill does not say so")
    json.dump(bill, sys.stdout, indent=2)


main()
