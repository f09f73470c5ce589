#!/usr/bin/env python3
"""How much a load needs, by what was measured. sizing.py --help; --check compares the table of SIZING.md."""
import argparse
import math
import pathlib
import re
import sys

# tests/load/RESULTS.md: two cores of an AMD EPYC, one NATS node that syncs each write. Seconds of CPU, bytes.
DELIVERY = 6.4e-6            # P1: a ready frame of 420 bytes to one socket, a quiet room
DELIVERY_BUSY = 0.85e-6      # P2: a room of 400 events a second, eight in one write
HANDSHAKE = 75e-6            # P4: upgrade, EdDSA token, policy, three rooms
CONNECTION = 3_800           # P3: resident bytes
GATEWAY = 16 << 20           # P3: an empty gateway
RING, STATE = 256 << 20, 64 << 20
EVENT_HTTP, EVENT_BATCH, EVENT_NATS = 36e-6, 5.3e-6, 15e-6   # P7: ingest; between two machines, one three times the other
FOLD = 7e-6                  # P8: aggregator, reading and writing state included
# One gateway reads everything, whoever is connected to it. Calculated from P9/P10: 200,000 events in 2.3 s.
READING = 12e-6
# What a gateway may have by default, how full it is at the target, and how much fuller the fullest is after a rollout at 100 %.
CONNECTIONS_MAX, TARGET = 10_000, 0.7
# Of a core; above it, latency grows.
BUSY_CORE = 0.6
# Acknowledgements a second of one JetStream stream that syncs each write (measured with 64 publishers), and events in an atomic batch.
SYNCS, BATCH = 1_450, 100
OVERHEAD = 180               # bytes around an event in the stream: subject, id, headers
# Rows of RESULTS.md that the figures above are of. --check wants each within a factor of two: a machine's mood is less, a change of the
# code that nobody told this page of is more.
MEASURED = [
    ("gateway CPU per delivery, 1000 × 20/s, JSON", DELIVERY * 1e6),
    ("gateway CPU per delivery, 1000 × 400/s", DELIVERY_BUSY * 1e6),
    ("CPU of upgrade, token (EdDSA), policy, connect with 3 rooms; each its own user, all at once", HANDSHAKE * 1e6),
    ("RSS per idle connection in 3 rooms and its user's own, 10000 connections, JSON", CONNECTION),
    ("RSS of an empty gateway", GATEWAY / (1 << 20)),
    ("ingest CPU per event, single POST on a kept connection", EVENT_HTTP * 1e6),
    ("ingest CPU per event, HTTP batches of 100", EVENT_BATCH * 1e6),
    ("ingest CPU per event, NATS request", EVENT_NATS * 1e6),
    ("aggregator CPU per event, sum + count by 1,000 groups, reading and writing state included", FOLD * 1e6),
    ("gateway ready, 200000 events to read into memory", READING * 200_000),
]
WITHIN = 2


def sized(connections, events, members, size, keep, folds, busy=False, batched=True):
    """What is needed, as a list of (what, figure, why)."""
    deliveries = events * members
    each = DELIVERY_BUSY if busy else DELIVERY
    reading = events * READING
    by_connections = math.ceil(connections / (CONNECTIONS_MAX * TARGET))
    # Two cores for each gateway; reading is paid by each of them.
    left = 2 * BUSY_CORE - reading
    by_cpu = math.ceil(deliveries * each / left) if left > 0 else math.inf
    gateways = max(3, by_connections, by_cpu)
    per_event = EVENT_BATCH if batched else EVENT_HTTP
    ingests = max(2, math.ceil(events * per_event / (2 * BUSY_CORE)))
    aggregators = max(2, math.ceil(events * folds * FOLD / (2 * BUSY_CORE)))
    memory = 1.5 * (GATEWAY + RING + STATE + min(connections / max(gateways, 1), CONNECTIONS_MAX) * CONNECTION) if gateways != math.inf else math.inf
    disk = events * (size + OVERHEAD) * keep * 3600
    syncs = events / (BATCH if batched else 1)
    return {
        "deliveries a second": deliveries,
        "gateways": gateways, "of that for connections": by_connections, "of that for CPU": by_cpu,
        "MiB for each gateway": memory / (1 << 20),
        "ingests": ingests, "aggregators": aggregators,
        "Mbit/s out of all gateways": deliveries * (size + 60) * 8 / 1e6,
        "Mbit/s from NATS to all gateways": gateways * events * (size + OVERHEAD) * 8 / 1e6,
        "GB on each NATS node": disk / 1e9,
        "writes a second that sync": syncs, "share of what one stream takes": syncs / SYNCS,
        "seconds until all are back after a network cut": connections * HANDSHAKE / (gateways * 2 * BUSY_CORE) if gateways != math.inf else math.inf,
    }


# The examples of SIZING.md: connections, events a second, members, and what is special.
EXAMPLES = [
    ("10 k clients, 100 events/s, each to 100", 10_000, 100, 100, False, True),
    ("10 k clients, 1 k events/s, each to 50", 10_000, 1_000, 50, False, True),
    ("100 k clients, 1 k events/s, each to 20", 100_000, 1_000, 20, False, True),
    ("100 k clients, 1 k events/s, each to 1,000", 100_000, 1_000, 1_000, False, True),
    ("1 M clients, 1 k events/s, each to 100", 1_000_000, 1_000, 100, False, True),
    ("1 M clients, 10 k events/s, each to 20, busy rooms", 1_000_000, 10_000, 20, True, True),
    ("10 k clients, 100 k events/s, each to 2, busy rooms", 10_000, 100_000, 2, True, True),
]
COLUMNS = ["gateways", "MiB for each gateway", "ingests", "aggregators", "Mbit/s out of all gateways", "Mbit/s from NATS to all gateways",
           "GB on each NATS node", "share of what one stream takes"]


def shown(figure):
    if figure == math.inf:
        return "beyond"
    return f"{figure:,.2f}" if figure < 10 and figure != int(figure) else f"{figure:,.0f}"


def table():
    lines = ["| | " + " | ".join(COLUMNS) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    for name, connections, events, members, busy, batched in EXAMPLES:
        figures = sized(connections, events, members, 420, 72, 2, busy, batched)
        lines.append(f"| {name} | " + " | ".join(shown(figures[column]) for column in COLUMNS) + " |")
    return "\n".join(lines)


def drifted(results):
    """Figures that are not what was measured last."""
    rows = re.findall(r"^\| \S+ \| ([^|]+) \| ([\d.]+)[ (]", results, re.M)
    last = {name.strip(): float(figure) for name, figure in rows}
    for name, figure in MEASURED:
        found = last.get(name)
        if found is None:
            yield f"tests/load/RESULTS.md has no row: {name}"
        elif not found / WITHIN <= figure <= found * WITHIN:
            yield f"deploy/tools/sizing.py counts with {figure:.4g}, measured was {found:.4g}: {name}"


def main():
    if sys.argv[1:] == ["--check"]:
        root = pathlib.Path(__file__).resolve().parent.parent.parent
        wrong = list(drifted((root / "tests" / "load" / "RESULTS.md").read_text()))
        if table() not in (root / "SIZING.md").read_text():
            wrong.append(f"the table of SIZING.md is not this:\n{table()}")
        sys.exit("\n".join(wrong) or None)
    parser = argparse.ArgumentParser(description="How much a load needs, by what was measured.")
    parser.add_argument("--connections", type=int, required=True, help="clients that are connected at the fullest hour")
    parser.add_argument("--events", type=float, required=True, help="events a second at the fullest minute")
    parser.add_argument("--members", type=float, help="clients that get each event on average: the number that decides [1 %% of the connections, at least 10]")
    parser.add_argument("--bytes", type=int, default=420, help="size of an event [420]")
    parser.add_argument("--keep", type=float, default=72, metavar="HOURS", help="how long EVENTS keeps them [72]")
    parser.add_argument("--folds", type=float, default=2, help="metrics that each event belongs to on average [2]")
    parser.add_argument("--busy", action="store_true", help="rooms of hundreds of events a second, gathered into one write")
    parser.add_argument("--single", action="store_true", help="publishers send one event a request instead of batches")
    asked = parser.parse_args()
    members = asked.members if asked.members is not None else max(10, asked.connections / 100)
    figures = sized(asked.connections, asked.events, members, asked.bytes, asked.keep, asked.folds, asked.busy, not asked.single)
    for what, figure in figures.items():
        print(f"{what:48} {shown(figure):>12}")


main()
