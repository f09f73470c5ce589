"""How each alert is provoked on one machine, and which cannot be.

A cause runs in a thread of its own until it is told that it is over, and undoes what it did.
"""
import contextlib
import json
import resource
import signal

from rig import Stream, http

# Small limits, so that few clients meet them.
SETTINGS = [
    "--gateway-env", "ROOMCAST_CONNECTIONS_PER_USER_MAX=2000",
    "--gateway-env", "ROOMCAST_CONNECTIONS_PER_ADDRESS_MAX=5000",
    "--gateway-env", "ROOMCAST_CONNECT_RATE_PER_ADDRESS=2000",
    "--gateway-env", "ROOMCAST_CONNECT_BURST_PER_ADDRESS=4000",
    "--gateway-env", "ROOMCAST_UNAUTHENTICATED_PER_ADDRESS_MAX=2000",
    "--gateway-env", "ROOMCAST_UNAUTHENTICATED_MAX=40",
    "--gateway-env", "ROOMCAST_RING_BYTES=16777216",
    "--gateway-env", "ROOMCAST_OUTBOX_BYTES_MAX=262144",
    "--gateway-env", "ROOMCAST_SEND_BUFFER_BYTES=16384",
    "--ingest-env", "ROOMCAST_REQUESTS_MAX=16",
]


def pulses(name, still, going):
    """A process that stands still again and again."""
    def cause(stack, over):
        while not over.is_set():
            stack.signal(name, signal.SIGSTOP)
            over.wait(still)
            stack.signal(name, signal.SIGCONT)
            over.wait(going)
    return cause


def stopped(*names):
    """Processes that stand still until it is over."""
    def cause(stack, over):
        for name in names:
            stack.signal(name, signal.SIGSTOP)
        over.wait()
        for name in names:
            stack.signal(name, signal.SIGCONT)
    return cause


def killed(name):
    def cause(stack, over):
        while not over.is_set():
            stack.signal(name, signal.SIGKILL)
            over.wait(3)
    return cause


def bad_events(stack, over):
    desk = stack.token("desk", "desk")
    number = 0
    while not over.is_set():
        number += 1
        stack.post({"id": f"bad-{number}", "room": "bookings", "audience": "staff", "type": "booking:new", "data": {"id": 7}}, desk)


def bad_tokens(stack, over):
    while not over.is_set():
        http(stack.ready["gateways"][0] + "/v1/rooms/bookings/snapshot", headers={"Authorization": "Bearer not.a.token"})
        over.wait(0.02)


def forged(stack, over):
    nats = stack.nats("publisher")
    while not over.is_set():
        nats.publish("in.bookings.staff", "{}", headers={"Rc-User": "boss"}, reply="_INBOX_publisher.x")
        over.wait(0.5)
    nats.close()


def unreadable(stack, over):
    nats = stack.nats("admin")
    while not over.is_set():
        nats.publish("evt.main.bookings.staff", "no event")
        over.wait(1)
    nats.close()


def strangers(stack, over):
    """Sockets that say nothing."""
    import socket
    host, port = stack.ready["gateways"][0].split("//")[1].rsplit(":", 1)
    while not over.is_set():
        held = []
        for _ in range(80):
            try:
                held.append(socket.create_connection((host, int(port)), timeout=2))
            except OSError:
                break
        over.wait(2)
        for one in held:
            one.close()


def crowd(count):
    """Clients of one gateway that come at once and stay."""
    def cause(stack, over):
        # Whose only room is quiet: who reads nothing is not slow there.
        guest = stack.token("guest", "user")
        held = []
        while not over.is_set() and len(held) < count:
            try:
                held.append(Stream(stack.ready["gateways"][0], guest, rooms=("notifications",)))
            except OSError:
                over.wait(0.1)
        over.wait()
        for client in held:
            client.close()
    return cause


def returns(stack, over):
    """Clients that come and go as fast as they can."""
    guest = stack.token("guest", "user")
    while not over.is_set():
        try:
            held = [Stream(stack.ready["gateways"][1], guest, rooms=("notifications",)) for _ in range(60)]
        except OSError:
            continue
        for client in held:
            client.close()


def sleepers(stack, over):
    """Clients that read nothing, and events that are large."""
    boss, desk = stack.token("boss", "admin"), stack.token("desk", "desk")
    number = 0
    while not over.is_set():
        held = []
        for _ in range(25):
            try:
                held.append(Stream(stack.ready["gateways"][0], boss, buffer=4096))
            except OSError:
                pass
        for _ in range(40):
            number += 1
            stack.post({"id": f"large-{number}", "room": "bookings", "audience": "staff", "type": "note", "data": {"text": "x" * 50_000}}, desk)
        over.wait(1)
        for client in held:
            client.close()


def crowded_ingest(stack, over):
    """More requests at once than may be worked on, while NATS stands still now and then."""
    import threading
    desk = stack.token("desk", "desk")

    def many(at):
        number = 0
        while not over.is_set():
            number += 1
            stack.post({"id": f"full-{at}-{number}", "room": "bookings", "audience": "staff", "type": "note", "data": {}}, desk, timeout=5)

    workers = [threading.Thread(target=many, args=(at,), daemon=True) for at in range(48)]
    for worker in workers:
        worker.start()
    pulses("nats-1", 1, 1)(stack, over)
    for worker in workers:
        worker.join(30)


def files(stack, over):
    """Hardly more descriptors than are open."""
    pid = stack.pid("gateway-2")
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    import os
    opened = len(os.listdir(f"/proc/{pid}/fd"))
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (opened + 2, before[1]))
    over.wait()
    resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


@contextlib.contextmanager
def changed(stack, stream, **change):
    """A stream with other settings, for a while."""
    admin = stack.nats("admin")
    config = admin.ask(f"$JS.API.STREAM.INFO.{stream}")["config"]
    admin.ask(f"$JS.API.STREAM.UPDATE.{stream}", config | change)
    try:
        yield
    finally:
        admin.ask(f"$JS.API.STREAM.UPDATE.{stream}", config)


def full_stream(stack, over):
    """A stream that may hold hardly more than it does."""
    admin = stack.nats("admin")
    bad = {"id": "full", "room": "bookings", "audience": "staff", "type": "booking:new", "data": {"id": 7}}
    stack.post(bad, stack.token("desk", "desk"))
    held = admin.ask("$JS.API.STREAM.INFO.DLQ")["state"]["bytes"]
    with changed(stack, "DLQ", max_bytes=held * 21 // 20):
        over.wait()


def refusing(stream, cause):
    """A stream that takes nothing but crumbs, and what wants to write into it."""
    def whole(stack, over):
        with changed(stack, stream, max_msg_size=16):
            cause(stack, over)
    return whole


def broken_policy(stack, over):
    good = stack.policy.read_text()
    stack.policy.write_text("version: one\n")
    over.wait()
    stack.policy.write_text(good)


def broken_schemas(stack, over):
    slip = stack.schemas / "slip.json"
    slip.write_text('{"type": 7}')
    over.wait()
    slip.unlink()


def broken_metrics(stack, over):
    good = stack.metrics.read_text()
    stack.metrics.write_text("version: one\n")
    over.wait()
    stack.metrics.write_text(good)


PROVOKED = {
    "RoomcastPolicyBroken": (broken_policy, "a policy with a mistake"),
    "RoomcastSchemasBroken": (broken_schemas, "a schema with a mistake"),
    "RoomcastMetricsBroken": (broken_metrics, "a metrics.yaml with a mistake"),
    "RoomcastForgedUser": (forged, "a publisher that names a user"),
    "RoomcastTokensRefused": (bad_tokens, "50 bad tokens a second"),
    "RoomcastDeadLetters": (bad_events, "a publisher whose events break their schema"),
    "RoomcastEventsUnreadable": (unreadable, "a message in EVENTS that is no event"),
    "RoomcastFilesNearLimit": (files, "a limit of descriptors just above those that are open"),
    "RoomcastStreamFull": (full_stream, "a stream whose bytes are cut down to what it holds"),
    "RoomcastDeadLettersLost": (refusing("DLQ", bad_events), "a DLQ that takes no message of a usual size, and events that break their schema"),
    "RoomcastAuditLost": (refusing("AUDIT", bad_tokens), "a record that takes no entry of a usual size"),
    "RoomcastReconnectStorm": (returns, "60 clients at a time that come and go"),
    "RoomcastClientsTurnedAway": (strangers, "80 sockets that say nothing, where 40 may"),
    "RoomcastGatewaySkew": (crowd(240), "240 clients of one gateway, none of the other"),
    "RoomcastResumeShort": (sleepers, "large events in a small memory"),
    "RoomcastSlowClients": (sleepers, "25 clients that read nothing, and 40 large events"),
    "RoomcastFreshnessBurn": (pulses("gateway-1", 0.6, 0.6), "a gateway that stands still every other 0.6 s"),
    "RoomcastStoreSlow": (pulses("nats-1", 0.8, 0.4), "a NATS that stands still for 0.8 s again and again"),
    "RoomcastIngestFull": (crowded_ingest, "48 publishers where 16 requests may be worked on"),
    "RoomcastTargetDown": (stopped("gateway-2"), "a gateway that stands still"),
    "RoomcastServiceAbsent": (stopped("aggregator-1", "aggregator-2"), "both aggregators stand still"),
    "RoomcastCrashLooping": (killed("gateway-2"), "a gateway killed every 3 s"),
    "RoomcastNatsDisconnected": (stopped("nats-1"), "NATS stands still"),
    "RoomcastGatewayStale": (stopped("nats-1"), "NATS stands still"),
    "RoomcastControlUnsure": (stopped("nats-1"), "NATS stands still"),
    "RoomcastIngestErrorBurn": (pulses("nats-1", 12, 3), "NATS stands still for 12 s again and again"),
}

UNPROVOKED = {
    "RoomcastMetricsIncomplete": "needs a stream that has lost what an aggregator had yet to read; services/metrics-aggregator/tests does it",
    "RoomcastVersionsDiffer": "one build runs here",
    "RoomcastWritesHang": "needs a disk that is full; tests/faults does it",
    "RoomcastMayLose": "the server here writes before it acknowledges; services/ingest/tests has one that does not",
    "RoomcastCaptureStopped": "no database is followed here",
    "RoomcastCaptureHoldsLog": "no database is followed here",
    "RoomcastPolicyDiffers": "all read one file here",
    "RoomcastOutboxesFull": "needs thousands of slow clients at once; services/edge-gateway/tests fills the budget",
    "RoomcastQueueLate": "a queue here is drained faster than one machine can fill it; services/ingest/tests holds one up",
    "RoomcastSinkLate": "needs a receiver that takes nothing for ten minutes; services/ingest/tests has ones that hang and fail",
    "RoomcastUndelivered": "no webhook is told here; services/ingest/tests has ones that refuse",
    "RoomcastNotificationsRefused": "rules are checked against the policy before they run",
    "RoomcastAggregatorLag": "an aggregator here reads faster than one machine can publish",
    "RoomcastAggregatorStalled": "an aggregator that hangs says nothing at all here, which is RoomcastTargetDown",
}
