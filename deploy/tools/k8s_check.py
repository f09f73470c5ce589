#!/usr/bin/env python3
"""Checks a rendering of k8s against the schemas of Kubernetes and against itself and the code.

Usage: k8s_check.py RENDERED.yaml [--try] [--binaries FOLDER]

--binaries has each service check the settings and files that its pods would have. --try breaks the rendering in each way that a check is for, and fails where no check sees it.
"""
import copy
import ipaddress
import json
import pathlib
import re
import subprocess
import sys
import tempfile

import kubernetes_validate
import yaml

import k8s_foreign

ROOT = pathlib.Path(__file__).parent.parent.parent
# The oldest and the newest that the manifests are for.
VERSIONS = ["1.30", "1.37"]
# Seconds left after the drain.
MARGIN = 10
SOURCES = "\n".join(path.read_text() for path in (ROOT / "services").rglob("*.rs"))
BINARIES = pathlib.Path(sys.argv[sys.argv.index("--binaries") + 1]).absolute() if "--binaries" in sys.argv else None
README = (ROOT / "k8s" / "README.md").read_text()


def pods(docs):
    """Everything that makes pods, with its template."""
    for doc in docs:
        if doc["kind"] in ("Deployment", "StatefulSet", "Job"):
            yield doc, doc["spec"]["template"]


def name(doc):
    return f'{doc["kind"]} {doc["metadata"]["name"]}'


def chosen(docs, selector):
    """Templates that a selector of labels means."""
    wanted = selector.get("matchLabels", {})
    for doc, template in pods(docs):
        labels = template["metadata"].get("labels", {})
        among = all(labels.get(e["key"]) in e["values"] for e in selector.get("matchExpressions", []))
        if among and all(labels.get(key) == value for key, value in wanted.items()):
            yield doc, template


def ports(template):
    return {port["name"]: port["containerPort"] for c in template["spec"]["containers"] for port in c.get("ports", [])}


def has_port(template, port):
    known = ports(template)
    return port in known if isinstance(port, str) else port in known.values()


def schemas(docs):
    for doc in docs:
        if doc["kind"] in k8s_foreign.KINDS:
            continue
        for version in VERSIONS:
            try:
                kubernetes_validate.validate(doc, version, strict=True)
            except kubernetes_validate.ValidationError as error:
                yield f"{name(doc)}: {version}: {error.message}"
            except (kubernetes_validate.SchemaNotFoundError, kubernetes_validate.InvalidSchemaError) as error:
                yield f"{name(doc)}: {version}: {error}"


def selectors(docs):
    for doc, template in pods(docs):
        if "selector" in doc["spec"] and doc not in [d for d, _ in chosen(docs, doc["spec"]["selector"])]:
            yield f"{name(doc)}: does not choose its own pods"
    for doc in docs:
        spec = doc.get("spec", {})
        if doc["kind"] == "Service":
            found = list(chosen(docs, {"matchLabels": spec["selector"]}))
            if not found:
                yield f"{name(doc)}: chooses no pods"
            for _, template in found:
                for port in spec["ports"]:
                    if not has_port(template, port["targetPort"]):
                        yield f'{name(doc)}: no port {port["targetPort"]}'
        if doc["kind"] == "PodDisruptionBudget" and len(list(chosen(docs, spec["selector"]))) != 1:
            yield f"{name(doc)}: does not mean one workload"
        if doc["kind"] == "NetworkPolicy":
            found = list(chosen(docs, spec["podSelector"]))
            if not found:
                yield f"{name(doc)}: means no pods"
            for rule in spec.get("ingress", []):
                for port in rule.get("ports", []):
                    for _, template in found:
                        if not has_port(template, port["port"]):
                            yield f'{name(doc)}: no port {port["port"]}'
                for source in rule.get("from", []):
                    if "podSelector" in source and not list(chosen(docs, source["podSelector"])):
                        yield f"{name(doc)}: lets in nobody"
            for rule in spec.get("egress", []):
                for place in rule.get("to", []):
                    if "podSelector" in place and not list(chosen(docs, place["podSelector"])):
                        yield f"{name(doc)}: lets out to nobody"
        if doc["kind"] == "ServiceMonitor":
            wanted = spec["selector"]["matchLabels"].items()
            found = [d for d in docs if d["kind"] == "Service" and wanted <= d["metadata"].get("labels", {}).items()]
            for endpoint in spec["endpoints"]:
                if not found or any(endpoint["port"] not in [p["name"] for p in d["spec"]["ports"]] for d in found):
                    yield f'{name(doc)}: finds no port {endpoint["port"]}'


# What the Prometheus operator knows of a Service by its label app.kubernetes.io/name.
NAMED = "__meta_kubernetes_service_label_app_kubernetes_io_name"
RULES = (ROOT / "deploy" / "prometheus" / "rules" / "roomcast.yaml").read_text()


def watched(docs):
    """Targets have the labels that alerts ask for: the operator's own `job` and `service` are names of Services."""
    services = sorted(set(re.findall(r'absent\(roomcast_build_info\{service="([\w-]+)"\}\)', RULES)))
    for doc in docs:
        for endpoint in doc["spec"]["endpoints"] if doc["kind"] == "ServiceMonitor" else []:
            made = {r["targetLabel"]: r.get("replacement", "$1") for r in endpoint.get("relabelings", []) if r.get("sourceLabels") == [NAMED]}
            if made != {"job": "roomcast-$1", "service": "$1"}:
                yield f"{name(doc)}: targets get {made}, and alerts ask for job and service"
            wanted = doc["spec"]["selector"]["matchLabels"].items()
            found = [d["metadata"]["labels"] for d in docs if d["kind"] == "Service" and wanted <= d["metadata"].get("labels", {}).items()]
            if sorted(labels.get("app.kubernetes.io/name", "") for labels in found) != services:
                yield f"{name(doc)}: finds {found}, and alerts ask for {services}"


# What is in a cluster, or beside it.
PRIVATE = ["10.0.0.0/8", "100.64.0.0/10", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16"]
# The same as a NAT64 says it.
TRANSLATED = [f"64:ff9b::{int(block.network_address) >> 16:x}:0/{96 + block.prefixlen}" for block in map(ipaddress.ip_network, PRIVATE)]
# Of what is outside, what has to be left out.
INSIDE = {"0.0.0.0/0": PRIVATE, "64:ff9b::/96": TRANSLATED}


def addresses(docs):
    """Addresses that pods are given: whose, the host, its port, and the namespace where that is another than ours."""
    maps = {doc["metadata"]["name"]: doc["data"] for doc in docs if doc["kind"] == "ConfigMap"}
    services = {doc["metadata"]["name"] for doc in docs if doc["kind"] == "Service"}
    for _, template in pods(docs):
        for container in template["spec"]["containers"]:
            values = [e.get("value", "") for e in container.get("env", [])] + container.get("args", [])
            for source in container.get("envFrom", []):
                values += maps.get(source["configMapRef"]["name"], {}).values()
            for host, port in sorted(set(re.findall(r"(?:nats|http)://([\w.-]+):(\d+)", " ".join(values)))):
                # Of nats-0.nats a Service of ours, of otel-collector.observability the namespace.
                end = host.rpartition(".")[2]
                yield template, host, int(port), None if end == host or end in services else end


def network(docs):
    """Who is given an address may reach it, and what is for addresses outside reaches none inside."""
    policies = [doc for doc in docs if doc["kind"] == "NetworkPolicy"]
    services = {doc["metadata"]["name"] for doc in docs if doc["kind"] == "Service"}
    for template, host, port, namespace in addresses(docs):
        if not namespace and host.rpartition(".")[2] not in services:
            yield f"no service {host} in our namespace"
        if namespace:
            means = lambda place: place.get("namespaceSelector", {}).get("matchLabels", {}).get("kubernetes.io/metadata.name") == namespace
        else:
            means = lambda place: "podSelector" in place
        own = [p for p in policies if template in [t for _, t in chosen(docs, p["spec"]["podSelector"])]]
        rules = [rule for p in own for rule in p["spec"].get("egress", []) if port in [one["port"] for one in rule["ports"]]]
        if not any("to" not in rule or any(means(place) or "ipBlock" in place for place in rule["to"]) for rule in rules):
            yield f'{template["metadata"]["labels"]["app.kubernetes.io/name"]}: no policy lets it out to {host}:{port}'
    for doc in policies:
        for rule in doc["spec"].get("egress", []):
            blocks = [place["ipBlock"] for place in rule.get("to", []) if "ipBlock" in place]
            outside = all(set(INSIDE.get(block["cidr"], [])) <= set(block.get("except", [])) for block in blocks)
            if 443 in [one["port"] for one in rule["ports"]] and ("to" not in rule or not outside):
                yield f"{name(doc)}: lets out to everything in the cluster"


def targets(docs):
    workloads = {doc["metadata"]["name"] for doc, _ in pods(docs)}
    services = {doc["metadata"]["name"]: doc for doc in docs if doc["kind"] == "Service"}
    scaled = [doc for doc in docs if doc["kind"] in ("HorizontalPodAutoscaler", "ScaledObject")]
    for doc in scaled:
        target = doc["spec"]["scaleTargetRef"]["name"]
        if target not in workloads:
            yield f"{name(doc)}: no {target}"
        if [d["spec"]["scaleTargetRef"]["name"] for d in scaled].count(target) > 1:
            yield f"{name(doc)}: {target} is scaled twice"
        if any("replicas" in d["spec"] for d, _ in pods(docs) if d["metadata"]["name"] == target):
            yield f"{name(doc)}: an apply would set the replicas of {target} back"
        fallback = doc["spec"].get("fallback", {})
        if fallback and fallback.get("behavior") != "currentReplicasIfHigher":
            yield f'{name(doc)}: scales down to {fallback["replicas"]} while nobody answers'
    for doc in docs:
        if doc["kind"] == "Ingress":
            backends = [(p["backend"]["service"]["name"], p["backend"]["service"]["port"]["name"]) for r in doc["spec"]["rules"] for p in r["http"]["paths"]]
        elif doc["kind"] == "HTTPRoute":
            backends = [(b["name"], b["port"]) for r in doc["spec"]["rules"] for b in r["backendRefs"]]
        else:
            continue
        for service, port in backends:
            known = services.get(service, {"spec": {"ports": []}})["spec"]["ports"]
            if port not in [p["name"] for p in known] + [p["port"] for p in known]:
                yield f"{name(doc)}: no port {port} of a service {service}"


def references(docs):
    maps = {doc["metadata"]["name"]: doc for doc in docs if doc["kind"] == "ConfigMap"}
    accounts = {doc["metadata"]["name"] for doc in docs if doc["kind"] == "ServiceAccount"}
    for doc, template in pods(docs):
        spec = template["spec"]
        if spec["serviceAccountName"] not in accounts:
            yield f'{name(doc)}: no account {spec["serviceAccountName"]}'
        volumes = {volume["name"] for volume in spec.get("volumes", [])}
        volumes |= {claim["metadata"]["name"] for claim in doc["spec"].get("volumeClaimTemplates", [])}
        mounts = {mount["name"] for c in spec["containers"] for mount in c.get("volumeMounts", [])}
        if volumes != mounts:
            yield f"{name(doc)}: volumes {sorted(volumes)}, mounts {sorted(mounts)}"
        used = [v["configMap"]["name"] for v in spec.get("volumes", []) if "configMap" in v]
        needed = [v["secret"]["secretName"] for v in spec.get("volumes", []) if "secret" in v]
        for container in spec["containers"]:
            used += [f["configMapRef"]["name"] for f in container.get("envFrom", []) if "configMapRef" in f]
            froms = [e["valueFrom"] for e in container.get("env", []) if "valueFrom" in e]
            needed += [f["secretKeyRef"]["name"] for f in froms if "secretKeyRef" in f]
        yield from (f"{name(doc)}: no config map {one}" for one in used if one not in maps)
        # Secrets are made by hand, as the page says.
        yield from (f"{name(doc)}: k8s/README.md does not say how to make {one}" for one in needed if f"secret generic {one} " not in README)


def settings(docs):
    names = set()
    for _, template in pods(docs):
        names |= {e["name"] for c in template["spec"]["containers"] for e in c.get("env", [])}
    for doc in docs:
        if doc["kind"] == "ConfigMap" and doc["metadata"]["name"].startswith("roomcast-settings"):
            names |= doc["data"].keys()
        for trigger in doc.get("spec", {}).get("triggers", []) if doc["kind"] == "ScaledObject" else []:
            names |= set(re.findall(r"roomcast_\w+", trigger["metadata"]["query"]))
    ours = {one for one in names if one.upper().startswith("ROOMCAST_")}
    # A password's file is made of the password's name.
    bare = {one: one.removesuffix("_FILE") for one in ours}
    yield from (f"{one} is not in the code" for one, short in bare.items() if f'"{one}"' not in SOURCES and f'"{short}"' not in SOURCES)


def restricted(docs):
    for doc, template in pods(docs):
        spec = template["spec"]
        whole = spec.get("securityContext", {})
        if not whole.get("runAsNonRoot") or whole.get("seccompProfile", {}).get("type") != "RuntimeDefault":
            yield f"{name(doc)}: not restricted"
        if spec.get("automountServiceAccountToken") is not False:
            yield f"{name(doc)}: has a token of the cluster"
        for container in spec["containers"]:
            own = container.get("securityContext", {})
            if own.get("allowPrivilegeEscalation") is not False or own.get("capabilities", {}).get("drop") != ["ALL"] or not own.get("readOnlyRootFilesystem"):
                yield f"{name(doc)}: {container['name']} is not restricted"
            if "memory" not in container.get("resources", {}).get("limits", {}):
                yield f"{name(doc)}: {container['name']} has no limit of memory"
            tag = container["image"].rsplit("/", 1)[-1].partition(":")[2]
            if tag in ("", "latest"):
                yield f"{name(doc)}: {container['image']} may be anything"


def lame_duck():
    """Seconds in which a server of NATS lets its clients go, as its configuration says."""
    text = (ROOT / "deploy" / "nats" / "node.conf.example").read_text()
    return sum(int(re.search(rf'^{word}: "(\d+)s"$', text, re.M)[1]) for word in ("lame_duck_grace_period", "lame_duck_duration"))


def times(docs):
    """Probes ask ports that are there; who is asked to end has the time that it takes."""
    for doc, template in pods(docs):
        for container in template["spec"]["containers"]:
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                if probe in container and not has_port(template, container[probe]["httpGet"]["port"]):
                    yield f"{name(doc)}: {probe} asks a port that is not there"
            values = {e["name"]: e.get("value") for e in container.get("env", [])}
            before = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
            drain = {"Deployment": values.get("ROOMCAST_DRAIN_SECONDS"), "StatefulSet": lame_duck()}.get(doc["kind"], 0)
            if drain is None:
                yield f"{name(doc)}: does not say for how long it drains"
            elif template["spec"].get("terminationGracePeriodSeconds", 30) < before + int(drain) + MARGIN * (doc["kind"] != "Job"):
                yield f"{name(doc)}: is killed before it has drained"


# The key of RFC 8037, A.1, whose private half anybody can read there, as every example of a key set has it; and the name of one to be replaced.
PUBLISHED, REPLACE = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo", "replace-me"
# With no key nothing starts, until it is edited: so the rest of its settings is tried with one.
NO_KEYS = {"keys": []}
TRIED_KEYS = {"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "tried", "x": PUBLISHED}]}


def keys(docs):
    """Who trusts a key of which everybody has the other half lets in everybody."""
    for doc in docs:
        for file, text in doc.get("data", {}).items() if doc["kind"] == "ConfigMap" else []:
            if PUBLISHED in text or REPLACE in text:
                yield f"{name(doc)}: {file} has a published key: put your issuer's in its place"


# A key that signs nothing but tests.
VAPID = (ROOT / "services" / "sinks" / "tests" / "vapid.pem").read_text()


def accepted(docs):
    """What each service itself says of its settings: it refuses those that it does not know."""
    maps = {doc["metadata"]["name"]: doc["data"] for doc in docs if doc["kind"] == "ConfigMap"}
    for doc, template in pods(docs):
        binary = BINARIES and BINARIES / f'roomcast-{doc["metadata"]["name"]}'
        if doc["kind"] != "Deployment" or not binary:
            continue
        spec, container = template["spec"], template["spec"]["containers"][0]
        with tempfile.TemporaryDirectory() as folder:
            env = {}
            for source in container.get("envFrom", []):
                env |= maps.get(source["configMapRef"]["name"], {})
            env |= {e["name"]: e.get("value", "x") for e in container.get("env", [])}
            for volume in spec.get("volumes", []):
                secret = {"password": "x", "url": "postgres://capture:x@db.example/shop", "vapid.pem": VAPID, "pager.secret": "whsec_" + "A" * 32}
                files = maps.get(volume["configMap"]["name"], {}) if "configMap" in volume else secret
                for mount in (m for m in container["volumeMounts"] if m["name"] == volume["name"]):
                    place = pathlib.Path(folder + mount["mountPath"])
                    place.mkdir(parents=True)
                    for file, text in files.items():
                        empty = file.endswith(".json") and json.loads(text) == NO_KEYS
                        (place / file).write_text(json.dumps(TRIED_KEYS) if empty else text)
            # Files of the pod are in the folder.
            env = {key: folder + value if key.endswith(("_FILE", "_DIR")) else value for key, value in env.items()}
            said = subprocess.run([binary, "--check-config"], env=env, capture_output=True, text=True, check=False)
            if said.returncode:
                yield f"{name(doc)}: {said.stderr.strip()}"


# The fullest gateway after a rollout to the mean, by how many pods start at once: clients of pods that go spread over those that are.
FULLEST = {"100%": 1.06, "50%": 1.33, "25%": 1.50}
MEBIBYTE = 1024 * 1024
UNITS = {"Mi": MEBIBYTE, "Gi": 1024 * MEBIBYTE}
# The share of its memory that NATS may have before Go collects all the time.
COLLECTED = 0.8
# Measured: tests/load/RESULTS.md, P3. And what is left for clients that are slow, as a factor.
GATEWAY_EMPTY, CONNECTION, SLACK = 20 * MEBIBYTE, 4096, 1.5


def usual(setting):
    """The default of a gateway's setting, as the code has it."""
    table = (ROOT / "services" / "edge-gateway" / "README.md").read_text()
    return int(re.search(rf"^\| `{setting}` \| (\d+) \|", table, re.M)[1])


def room(docs):
    """Gateways are scaled before the fullest is full, and have the memory that their limits can take."""
    for doc, template in pods(docs):
        if doc["metadata"]["name"] != "edge-gateway":
            continue
        container = template["spec"]["containers"][0]
        values = {e["name"]: e.get("value") for e in container.get("env", [])}
        has = lambda setting: int(values.get(setting) or usual(setting))
        connections = has("ROOMCAST_CONNECTIONS_MAX")
        text = container["resources"]["limits"]["memory"] if "resources" in container else "0Mi"
        limit = int(text[:-2]) * UNITS[text[-2:]]
        needed = SLACK * (GATEWAY_EMPTY + has("ROOMCAST_RING_BYTES") + has("ROOMCAST_STATE_BYTES") + connections * CONNECTION)
        if limit < needed:
            yield f"{name(doc)}: may need {needed / MEBIBYTE:.0f} MiB and has {text}"
        surge = str(doc["spec"]["strategy"]["rollingUpdate"]["maxSurge"])
        for other in docs:
            if other["kind"] == "ScaledObject" and other["spec"]["scaleTargetRef"]["name"] == "edge-gateway":
                target = int(other["spec"]["triggers"][0]["metadata"]["threshold"])
                if surge not in FULLEST or target * FULLEST[surge] >= connections:
                    yield f"{name(other)}: with maxSurge {surge} the fullest gateway is full at a mean of {target}"


def collected(docs):
    """Go collects before the pod is at its limit."""
    for doc, template in pods(docs):
        for container in template["spec"]["containers"]:
            for one in (e for e in container.get("env", []) if e["name"] == "GOMEMLIMIT"):
                limit = container["resources"]["limits"]["memory"]
                if int(one["value"].removesuffix("MiB")) * MEBIBYTE > COLLECTED * int(limit[:-2]) * UNITS[limit[-2:]]:
                    yield f'{name(doc)}: {container["name"]} collects from {one["value"]} on and has {limit}'


# What a gateway allows to one address, and to all.
OF_ALL = {
    "ROOMCAST_CONNECTIONS_PER_ADDRESS_MAX": "ROOMCAST_CONNECTIONS_MAX",
    "ROOMCAST_UNAUTHENTICATED_PER_ADDRESS_MAX": "ROOMCAST_UNAUTHENTICATED_MAX",
    "ROOMCAST_CONNECT_RATE_PER_ADDRESS": "ROOMCAST_CONNECT_RATE",
    "ROOMCAST_CONNECT_BURST_PER_ADDRESS": "ROOMCAST_CONNECT_BURST",
}


def proxied(docs):
    """Behind an Ingress or a route one address is everybody: a gateway allows it what it allows to all."""
    if not any(doc["kind"] in ("Ingress", "HTTPRoute") for doc in docs):
        return
    for doc, template in pods(docs):
        if doc["metadata"]["name"] != "edge-gateway":
            continue
        values = {e["name"]: e.get("value") for e in template["spec"]["containers"][0].get("env", [])}
        for one, all_of in OF_ALL.items():
            has, needed = (int(values.get(setting) or usual(setting)) for setting in (one, all_of))
            if has < needed:
                yield f"{name(doc)}: {one} is {has}, and a proxy with everybody behind it is one address: {needed}, as {all_of}"


CHECKS = [schemas, k8s_foreign.complaints, selectors, watched, network, targets, references, settings, keys, restricted, times, room, collected, proxied, accepted]


def complaints(docs):
    return [complaint for check in CHECKS for complaint in check(docs)]


def ways(docs):
    """Ways to break it, each as what was done and the broken rendering."""

    def broken(what, change):
        copied = copy.deepcopy(docs)
        change({(doc["kind"], doc["metadata"]["name"]): doc for doc in copied}, copied)
        return what, copied

    gateway = ("Deployment", "edge-gateway")
    pod = lambda d: d[gateway]["spec"]["template"]["spec"]
    container = lambda d: pod(d)["containers"][0]
    yield broken("a field with a slip", lambda d, _: d[gateway]["spec"].update(replica=3))
    yield broken("a number as text", lambda d, _: d[gateway]["spec"].update(minReadySeconds="10"))
    yield broken("another label", lambda d, _: d[gateway]["spec"]["template"]["metadata"]["labels"].update({"app.kubernetes.io/name": "x"}))
    yield broken("another port", lambda d, _: d[("Service", "edge-gateway")]["spec"]["ports"][0].update(targetPort="web"))
    yield broken("a probe of nothing", lambda d, _: container(d)["readinessProbe"]["httpGet"].update(port="web"))
    yield broken("a policy for nobody", lambda d, _: d[("NetworkPolicy", "admin")]["spec"].update(podSelector={"matchLabels": {"a": "b"}}))
    yield broken("a policy's port", lambda d, _: d[("NetworkPolicy", "public")]["spec"]["ingress"][0]["ports"][0].update(port="web"))
    yield broken("a way to a NATS that is not there", lambda d, _: d[("NetworkPolicy", "to-nats")]["spec"]["egress"][0].update(to=[{"podSelector": {"matchLabels": {"a": "b"}}}]))
    yield broken("no way to NATS", lambda d, all: all.remove(d[("NetworkPolicy", "to-nats")]))
    yield broken("a way to everything", lambda d, _: d[("NetworkPolicy", "issuers")]["spec"]["egress"][0].pop("to"))
    yield broken("a way into the cluster", lambda d, _: d[("NetworkPolicy", "issuers")]["spec"]["egress"][0]["to"][0]["ipBlock"]["except"].pop(0))
    yield broken("a translated way into the cluster", lambda d, _: d[("NetworkPolicy", "issuers")]["spec"]["egress"][0]["to"][2]["ipBlock"]["except"].pop(0))
    yield broken("nobody disrupted", lambda d, _: d[("PodDisruptionBudget", "ingest")]["spec"].update(selector={"matchLabels": {"a": "b"}}))
    yield broken("a map that is not there", lambda d, all: all.remove(d[("ConfigMap", "roomcast-policy")]))
    yield broken("a secret nobody makes", lambda d, _: pod(d)["volumes"][0]["secret"].update(secretName="other"))
    yield broken("a mount too few", lambda d, _: container(d)["volumeMounts"].pop())
    yield broken("an account that is not there", lambda d, _: pod(d).update(serviceAccountName="other"))
    yield broken("a setting with a slip", lambda d, _: container(d)["env"].append({"name": "ROOMCAST_LISTENS", "value": "x"}))
    if BINARIES:
        yield broken("a setting of another service", lambda d, _: container(d)["env"].append({"name": "ROOMCAST_METRICS_FILE", "value": "/x"}))
        yield broken("a policy with a slip", lambda d, _: d[("ConfigMap", "roomcast-policy")]["data"].update({"policy.yaml": "version: one"}))
    yield broken("root", lambda d, _: pod(d)["securityContext"].update(runAsNonRoot=False))
    yield broken("a way to more rights", lambda d, _: container(d)["securityContext"].update(allowPrivilegeEscalation=True))
    yield broken("memory without end", lambda d, _: container(d).pop("resources"))
    for one in OF_ALL:
        yield broken(f"the usual {one} behind a proxy", lambda d, _, one=one: container(d)["env"].remove(next(e for e in container(d)["env"] if e["name"] == one)))
    yield broken("more connections than one address may have", lambda d, _: container(d)["env"].append({"name": "ROOMCAST_CONNECTIONS_MAX", "value": "10001"}))
    yield broken("a published key", lambda d, _: d[("ConfigMap", "roomcast-policy")]["data"].update({"keys.json": json.dumps(TRIED_KEYS)}))
    yield broken("a key to replace", lambda d, _: d[("ConfigMap", "roomcast-policy")]["data"].update({"keys.json": '{"keys":[{"kid":"replace-me"}]}'}))
    yield broken("collected too late", lambda d, _: d[("StatefulSet", "nats")]["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"].update(memory="1Gi"))
    yield broken("memory too small for its settings", lambda d, _: container(d)["resources"]["limits"].update(memory="512Mi"))
    if ("ScaledObject", "edge-gateway") in [(doc["kind"], doc["metadata"]["name"]) for doc in docs]:
        yield broken("a field of KEDA's with a slip", lambda d, _: d[("ScaledObject", "edge-gateway")]["spec"].update(minReplicas=3))
        yield broken("the operator's own labels", lambda d, _: d[("ServiceMonitor", "roomcast")]["spec"]["endpoints"][0]["relabelings"].pop())
        yield broken("a target of another name", lambda d, _: d[("Service", "ingest-admin")]["metadata"]["labels"].update({"app.kubernetes.io/name": "x"}))
        yield broken("no way to the collector", lambda d, all: all.remove(d[("NetworkPolicy", "traces")]))
        yield broken("a collector among us", lambda d, _: [e.update(value="http://otel-collector:4318") for e in container(d)["env"] if e["name"] == "ROOMCAST_TRACES_ENDPOINT"])
        yield broken("a rule without an expression", lambda d, _: d[("PrometheusRule", "roomcast")]["spec"]["groups"][0]["rules"][0].pop("expr"))
        yield broken("a field of a route with a slip", lambda d, _: d[("HTTPRoute", "edge-gateway")]["spec"].update(parentRef=[]))
        yield broken("scaled down blindly", lambda d, _: d[("ScaledObject", "edge-gateway")]["spec"]["fallback"].pop("behavior"))
        yield broken("scaled too late", lambda d, _: d[("ScaledObject", "edge-gateway")]["spec"]["triggers"][0]["metadata"].update(threshold="9900"))
    yield broken("any image", lambda d, _: container(d).update(image="roomcast/edge-gateway:latest"))
    yield broken("too little time", lambda d, _: pod(d).update(terminationGracePeriodSeconds=79))
    yield broken("a longer drain", lambda d, _: [one.update(value="71") for one in container(d)["env"] if one["name"] == "ROOMCAST_DRAIN_SECONDS"])
    yield broken("a longer pause before the drain", lambda d, _: container(d)["lifecycle"]["preStop"]["sleep"].update(seconds=21))
    yield broken("a drain that nobody set", lambda d, _: container(d).update(env=[one for one in container(d)["env"] if one["name"] != "ROOMCAST_DRAIN_SECONDS"]))
    yield broken("too little time for NATS", lambda d, _: d[("StatefulSet", "nats")]["spec"]["template"]["spec"].update(terminationGracePeriodSeconds=44))
    yield broken("replicas that are scaled", lambda d, _: d[("Deployment", "ingest")]["spec"].update(replicas=2))
    if ("HorizontalPodAutoscaler", "ingest") in [(doc["kind"], doc["metadata"]["name"]) for doc in docs]:
        yield broken("nothing to scale", lambda d, _: d[("HorizontalPodAutoscaler", "ingest")]["spec"]["scaleTargetRef"].update(name="x"))


def main():
    docs = [doc for doc in yaml.safe_load_all(pathlib.Path(sys.argv[1]).read_text()) if doc]
    found = complaints(docs)
    if found:
        sys.exit("\n".join(found))
    if "--try" in sys.argv[2:]:
        unseen = [what for what, rendering in ways(docs) if not complaints(rendering)]
        if unseen:
            sys.exit("no check sees: " + ", ".join(unseen))
    print(f"{len(docs)} objects: as Kubernetes {' and '.join(VERSIONS)} and the code want them")


main()
