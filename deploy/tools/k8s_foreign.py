"""Checks objects of kinds that are not Kubernetes' own: fields that nobody knows, values of another type, and what is missing.

Their definitions come as types from a registry (`make tools` puts them into .tools/foreign); the compiler of TypeScript, which the page
has anyway, compares each object with its type, and a literal may have no field that its type has not.
"""
import json
import pathlib
import re
import subprocess
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
TYPES = ROOT / ".tools" / "foreign" / "node_modules" / "@kubernetes-models"
COMPILER = ROOT / "clients" / "node_modules" / "typescript" / "bin" / "tsc"
# Kinds, and where their types are.
KINDS = {
    "HTTPRoute": "gateway-api/gateway.networking.k8s.io/v1",
    "PrometheusRule": "prometheus-operator/monitoring.coreos.com/v1",
    "ServiceMonitor": "prometheus-operator/monitoring.coreos.com/v1",
    "ScaledObject": "keda/keda.sh/v1alpha1",
}
OPTIONS = ["--noEmit", "--strict", "--skipLibCheck", "--target", "ES2022", "--module", "ESNext", "--moduleResolution", "bundler"]
# What was asked before is not asked again: most ways to break a rendering leave these alone.
KNOWN = {}


def literal(number, doc):
    return f'const object{number}: I{doc["kind"]} = {json.dumps(doc, indent=1)};'


def complaints(docs):
    """What is wrong, a line for each field. Fails where types or compiler are not there."""
    foreign = [doc for doc in docs if doc["kind"] in KINDS]
    if not foreign:
        return []
    program = "\n".join([
        *(f'import type {{ I{kind} }} from "@kubernetes-models/{place}/{kind}";' for kind, place in KINDS.items()),
        *(literal(number, doc) for number, doc in enumerate(foreign)),
        f'export default [{", ".join(f"object{number}" for number in range(len(foreign)))}];',
    ])
    if program not in KNOWN:
        KNOWN[program] = compiled(program)
    return KNOWN[program]


def compiled(program):
    with tempfile.TemporaryDirectory(dir=TYPES.parent.parent) as folder:
        file = pathlib.Path(folder, "objects.ts")
        file.write_text(program + "\n")
        said = subprocess.run(["node", COMPILER, *OPTIONS, file], capture_output=True, text=True, check=False)
    lines = program.splitlines()
    found = []
    for number, error in re.findall(r"^\S*objects\.ts\((\d+),\d+\): error \w+: (.*)$", said.stdout, re.M):
        kind = next(re.findall(r"^const object\d+: I(\w+)", line)[0] for line in reversed(lines[:int(number)]) if line.startswith("const object"))
        found.append(f"{kind}: {lines[int(number) - 1].strip()} {error}")
    if said.returncode and not found:
        found.append(f"types of foreign kinds: {said.stdout}{said.stderr}")
    return found
