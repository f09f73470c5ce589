"""How each alert is provoked on one machine.

A cause runs in a thread of its own until it is told that it is over, and undoes what it did.
"""
import contextlib
import itertools
import json
import resource
import signal
import threading

from beside import another, other_build
from rig import Stream, booking, http

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
    "--gateway-env", "ROOMCAST_OUTBOXES_BYTES_MAX=8388608",
    "--ingest-env", "ROOMCAST_REQUESTS_MAX=16",
    "--ingest-env", "ROOMCAST_DURABILITY=may_lose",
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


def sleepers(count):
    """Clients that read nothing, and events that are large."""
    def cause(stack, over):
        boss, desk = stack.token("boss", "admin"), stack.token("desk", "desk")
        number = 0
        while not over.is_set():
            held = []
            for _ in range(count):
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
    return cause


def together(stack, over, causes):
    """All of them at once."""
    threads = [threading.Thread(target=cause, args=(stack, over), daemon=True) for cause in causes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def crowded_ingest(stack, over):
    """More requests at once than may be worked on, while NATS stands still now and then."""
    desk, numbers = stack.token("desk", "desk"), itertools.count()

    def many(stack, over):
        while not over.is_set():
            event = {"id": f"full-{next(numbers)}", "room": "bookings", "audience": "staff", "type": "note", "data": {}}
            stack.post(event, desk, timeout=5)

    together(stack, over, [pulses("nats-1", 1, 1)] + [many] * 48)


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


@contextlib.contextmanager
def taking_nothing(stack):
    """Nothing can be stored, and everybody is told to come again."""
    held = stack.nats("admin").ask("$JS.API.STREAM.INFO.EVENTS")["state"]["messages"]
    with changed(stack, "EVENTS", discard="new", max_msgs=held):
        yield


def held_queue(stack, over):
    nats = stack.nats("publisher")
    event = {"type": "note", "data": {}}
    with taking_nothing(stack):
        nats.publish("inq.publisher.bookings.staff", json.dumps(event))
        over.wait()
    nats.close()


def held_log(stack, over):
    """A row that cannot be stored, and a log that grows."""
    with taking_nothing(stack):
        number = 0
        while not over.is_set():
            number += 1
            stack.beside.postgres.sql("INSERT INTO notes (text) VALUES ('held'); SELECT pg_switch_wal()")
            over.wait(1 if number < 8 else 600)


def no_database(stack, over):
    stack.beside.postgres.stop()
    over.wait()
    stack.beside.postgres.start()


def told(answer):
    """Notifications to a webhook that answers so."""
    def cause(stack, over):
        desk, number = stack.token("desk", "desk"), 0
        stack.beside.receiver.answer = answer
        while not over.is_set():
            number += 1
            stack.post({"id": f"told-{answer}-{number}", "room": "notifications", "audience": "user", "type": "notification.told",
                        "data": {"title": f"Told {number}"}}, desk)
            over.wait(1)
        stack.beside.receiver.answer = 204
    return cause


def rule_nobody_hears(stack, over):
    """A rule that fires, and a schema that what it says breaks."""
    schema, good, number = stack.schemas / "alert.json", stack.metrics.read_text(), 0
    schema.write_text(json.dumps({"$schema": "https://json-schema.org/draft/2020-12/schema", "x-roomcast-type": "notification.alert",
                                  "type": "object", "required": ["never"]}))
    while not over.wait(4):
        number += 1
        stack.metrics.write_text(good.replace("alert: any,", f"alert: any_{number},"))
    schema.unlink()
    stack.metrics.write_text(good)


def lost_unread(stack, over):
    """Aggregators that are away while events come and go."""
    names = ("aggregator-1", "aggregator-2")
    for name in names:
        stack.signal(name, signal.SIGSTOP)
    over.wait(2)
    # Put back before they come: where a stream is not what it must be they do not start.
    with changed(stack, "EVENTS", max_msgs=1):
        over.wait(1)
    for name in names:
        stack.signal(name, signal.SIGKILL)
    over.wait()


def flooded(stack, over):
    """More events than aggregators that stand still most of the time can count."""
    desk, numbers = stack.token("desk", "desk"), itertools.count()

    def pour(stack, over):
        while not over.is_set():
            stack.post([booking(f"flood-{next(numbers)}") for _ in range(500)], desk)

    together(stack, over, [pour, pour, pulses("aggregator-1", 0.7, 0.03), pulses("aggregator-2", 0.7, 0.03)])


def full_disk(stack, over):
    """A NATS whose files may not grow. It never writes again until it is started anew."""
    resource.prlimit(stack.pid("nats-1"), resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
    over.wait()
    stack.signal("nats-1", signal.SIGKILL)


def lazy_disk(stack, over):
    """A NATS that acknowledges before it writes to disk."""
    good = stack.conf.read_text()
    stack.conf.write_text(good.replace("sync_interval: always", "sync_interval: 2m"))
    stack.signal("nats-1", signal.SIGKILL)
    over.wait()
    stack.conf.write_text(good)
    stack.signal("nats-1", signal.SIGKILL)


def other_policy(stack, over):
    file = stack.policy.with_name("other-policy.yaml")
    file.write_text(stack.policy.read_text() + "  - { nats: main/backend, roles: [desk] }\n")
    with another(stack, "gateway-1", ROOMCAST_POLICY_FILE=str(file)):
        over.wait()


def other_version(stack, over):
    with another(stack, "aggregator-1", program=other_build(stack, "aggregator-1")):
        over.wait()


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
    "RoomcastResumeShort": (sleepers(25), "large events in a small memory"),
    "RoomcastSlowClients": (sleepers(25), "25 clients that read nothing, and 40 large events"),
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
    "RoomcastOutboxesFull": (sleepers(80), "80 clients that read nothing, where 8 MiB may wait for all"),
    "RoomcastPolicyDiffers": (other_policy, "one more gateway, with another policy"),
    "RoomcastVersionsDiffer": (other_version, "one more aggregator, of another commit"),
    "RoomcastCaptureStopped": (no_database, "a PostgreSQL that is stopped"),
    "RoomcastCaptureHoldsLog": (held_log, "a row that cannot be stored while a gigabyte of log is written"),
    "RoomcastQueueLate": (held_queue, "an event in a queue while EVENTS takes nothing"),
    "RoomcastSinkLate": (told(500), "a webhook that fails"),
    "RoomcastUndelivered": (told(400), "a webhook that refuses"),
    "RoomcastNotificationsRefused": (rule_nobody_hears, "a rule that fires, and a schema that what it says breaks"),
    "RoomcastMetricsIncomplete": (lost_unread, "aggregators that are away while events come and go"),
    "RoomcastAggregatorLag": (flooded, "batches of 500 without a pause, and aggregators that stand still nine tenths of the time"),
    "RoomcastAggregatorStalled": (refusing("KV_agg", lambda stack, over: over.wait()), "a KV_agg that takes nothing"),
    "RoomcastMayLose": (lazy_disk, "a NATS with sync_interval: 2m"),
    "RoomcastWritesHang": (full_disk, "a NATS whose files may not grow"),
}
