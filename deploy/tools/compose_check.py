#!/usr/bin/env python3
"""Checks deploy/compose/compose.yaml, with with-sinks.yaml and without, against the code: every mount is there, every service takes the settings it would get, drains fit.

Usage: compose_check.py [BINARIES]
"""
import os
import pathlib
import re
import subprocess
import sys
import tempfile

import yaml

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
HERE = ROOT / "deploy" / "compose"
SERVICES = {"ingest": "ingest", "metrics-aggregator": "agg", "edge-gateway": "gw"}
# What up.sh makes.
MADE = {
    "keys/keys.json": '{"keys":[]}',
    "sinks/sinks.yaml": (HERE / "sinks.yaml").read_text(),
    # A key that signs nothing but tests.
    "sinks/vapid.pem": (ROOT / "services" / "sinks" / "tests" / "vapid.pem").read_text(),
    **{f"{user}/password": "x" for user in SERVICES.values()},
}


def filled(text):
    """What compose puts for ${NAME:-default}."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", str(text))


def mounted(service, place):
    """Where a path in a container is on this machine, and where mounts lead to that are nowhere."""
    for mount in service.get("volumes", []):
        source, target = filled(mount).split(":")[:2]
        if place.startswith(target + "/") and source.startswith("."):
            return HERE / source / place[len(target) + 1:]
    return None


def complaints(compose, binaries, secrets):
    for name, service in compose["services"].items():
        image = filled(service["image"])
        if ":" not in image or image.endswith(":latest"):
            yield f"{name}: {image} may be anything"
        if not service.get("read_only") or service.get("cap_drop") != ["ALL"]:
            yield f"{name}: not hardened"
        for port in service.get("ports", []):
            if not filled(port).startswith("127.0.0.1:"):
                yield f"{name}: {port} is open to the network"
        for mount in service.get("volumes", []):
            source = filled(mount).split(":")[0]
            if source.startswith(".") and "secrets" not in source and not (HERE / source).exists():
                yield f"{name}: {source} is not there"
            if not source.startswith(".") and source not in compose["volumes"]:
                yield f"{name}: no volume {source}"
        if name not in SERVICES:
            continue
        env = {key: filled(value) for key, value in service["environment"].items()}
        grace = int(service["stop_grace_period"].removesuffix("s"))
        if grace < int(env["ROOMCAST_DRAIN_SECONDS"]) + 10:
            yield f"{name}: is killed before it has drained"
        if service["healthcheck"]["test"] != ["CMD", f"/usr/local/bin/roomcast-{name}", "--health"]:
            yield f"{name}: does not ask itself for its health"
        for key, value in env.items():
            if value.startswith("/"):
                found = mounted(service, value)
                if found is None:
                    yield f"{name}: {key}: {value} is not mounted"
                    continue
                env[key] = str(secrets / found.relative_to(HERE / "secrets")) if "secrets" in found.parts else str(found)
        said = subprocess.run([binaries / f"roomcast-{name}", "--check-config"], env=env, capture_output=True, text=True, check=False)
        if said.returncode:
            yield f"{name}: {said.stderr.strip()}"


def with_sinks(compose):
    """As compose puts the two files together: members of mappings, and lists one behind the other."""
    more = yaml.safe_load((HERE / "with-sinks.yaml").read_text())["services"]["ingest"]
    ingest = compose["services"]["ingest"]
    both = {**ingest, "environment": {**ingest["environment"], **more["environment"]}, "volumes": ingest["volumes"] + more["volumes"]}
    return {**compose, "services": {**compose["services"], "ingest": both}}


def ways(compose):
    """Ways to break it, each of which has to be seen."""
    for what, service, change in [
        ("any image", "edge-gateway", {"image": "roomcast/edge-gateway:latest"}),
        ("a way to write", "ingest", {"read_only": False}),
        ("a port for all", "ingest", {"ports": ["8081:8080"]}),
        ("too little time", "edge-gateway", {"stop_grace_period": "30s"}),
        ("a mount of nothing", "edge-gateway", {"volumes": ["./nothing:/etc/roomcast/scenario:ro"]}),
        ("a setting with a slip", "edge-gateway", {"environment": {**compose["services"]["edge-gateway"]["environment"], "ROOMCAST_LISTENS": "x"}}),
        ("no file of sinks", "ingest", {"environment": {**compose["services"]["ingest"]["environment"], "ROOMCAST_SINKS_FILE": "/etc/roomcast/keys/sinks.yaml"}}),
        ("a probe of another", "ingest", {"healthcheck": {"test": ["CMD", "true"]}}),
    ]:
        yield what, {**compose, "services": {**compose["services"], service: {**compose["services"][service], **change}}}


def main():
    compose = yaml.safe_load((HERE / "compose.yaml").read_text())
    binaries = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "target" / "debug").absolute()
    with tempfile.TemporaryDirectory() as folder:
        secrets = pathlib.Path(folder)
        for file, text in MADE.items():
            (secrets / file).parent.mkdir(parents=True, exist_ok=True)
            (secrets / file).write_text(text)
        # The key file's own rules: one key is the least.
        (secrets / "keys/keys.json").write_text('{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"a","alg":"EdDSA","use":"sig","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}')
        found = [*complaints(compose, binaries, secrets), *complaints(with_sinks(compose), binaries, secrets)]
        if found:
            sys.exit("\n".join(found))
        unseen = [what for what, broken in ways(compose) if not list(complaints(broken, binaries, secrets))]
        if unseen:
            sys.exit("no check sees: " + ", ".join(unseen))
    print(f"deploy/compose: {len(compose['services'])} services, as the code wants them")


os.environ.pop("ROOMCAST_NATS_URL", None)
main()
