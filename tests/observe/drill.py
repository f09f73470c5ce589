#!/usr/bin/env python3
"""Boards and alerts on the running system, with a real Prometheus.

Usage: drill.py [--quick | --only ALERT,ALERT]

What each service says has to be clean for promtool, and at rest of no more than a thousand series. Every query of every board and
every series that a rule names has to be there. Then every alert is provoked, has to fire, and to resolve when its cause is gone;
rules are hurried for that, a second for each minute. --quick does the first alone. --only provokes these alone. Writes RESULTS.md
beside itself where all was done.
"""
import contextlib
import json
import os
import pathlib
import re
import subprocess
import sys
import threading
import time

from beside import Beside, another, issuers, missing
from provoke import PROVOKED, SETTINGS
from rig import BINARIES, PROMETHEUS, PROMTOOL, ROOT, Failed, Prometheus, Socket, Stack, Stream, booking, http, hurried, until

HERE = pathlib.Path(__file__).parent
# What a service may cost Prometheus before anybody uses it; what use adds is bounded by the labels, and on the boards.
SERIES_AT_REST_MAX = 1000
SEEN_WITHIN = 120
# The slowest waits for two hours, which are two minutes here.
FIRES_WITHIN = 200
# The slowest looks back over six hours, which are six minutes here.
RESOLVES_WITHIN = 480


def boards():
    """Each query of each board with its place."""
    for path in sorted((ROOT / "deploy" / "grafana").glob("*.json")):
        board = json.loads(path.read_text())
        for panel in board["panels"]:
            for target in panel.get("targets", []):
                yield path.stem, panel["title"], target["expr"]
        for annotation in board["annotations"]["list"]:
            yield path.stem, f'marks: {annotation["name"]}', annotation["expr"]


def asked(expr):
    """A query as Grafana sends it with all variables at All."""
    for name, value in (("$__rate_interval", "30s"), ("$namespace", ".*"), ("$job", ".+"), ("$instance", ".+"), ("[30d]", "[5m]")):
        expr = expr.replace(name, value)
    return expr


def named(rules):
    """Series that rules name: metric and labels."""
    exprs = "\n".join(re.findall(r"expr: \|\n((?: {10}.*\n)+)", rules))
    found = re.findall(r"\b((?:roomcast|process|up)[\w:]*)(?:\{([^}]*)\})?", exprs)
    return sorted({(metric, tuple(sorted(re.findall(r"(\w+)[=!]", labels)))) for metric, labels in found})


class Traffic:
    """What makes the boards say something: events of all kinds, clients that come, ask, publish and go."""

    def __init__(self, stack):
        self.stack, self.over = stack, threading.Event()
        self.desk = stack.token("desk", "desk")
        self.boss = stack.token("boss", "admin")
        self.sent = 0
        works = (self.publish, self.come_and_go, self.come_back, self.rule, self.write_and_tell, self.pass_on, self.visit)
        self.threads = [threading.Thread(target=work, daemon=True) for work in works]
        for thread in self.threads:
            thread.start()

    def publish(self):
        while not self.over.is_set():
            self.sent += 1
            number = self.sent
            event = booking(f"bk-{number}", f"c{number % 20}", 100 + number)
            self.stack.post(event, self.desk, ingest=number % 2)
            if number % 20 == 0:
                self.refused(event)
            self.over.wait(0.03)

    def refused(self, event):
        """What goes wrong every day, each counted by itself."""
        post = self.stack.post
        post(event, self.desk)
        post({**event, "id": f"odd-{self.sent}", "data": {"id": 7}}, self.desk)
        post([{**event, "id": f"many-{self.sent}-{at}"} for at in range(5)], self.desk)
        post(b"{", self.desk)
        post({**event, "id": f"x-{self.sent}"}, "not.a.token")
        post({**event, "id": f"e-{self.sent}", "delivery": "ephemeral"}, self.desk)

    def come_and_go(self):
        round_ = 0
        while not self.over.is_set():
            gateway = self.stack.ready["gateways"][round_ % 2]
            round_ += 1
            try:
                clients = [Stream(gateway, self.boss), Stream(gateway, "not.a.token"), Stream(gateway, self.boss, rooms=("bookings", "secret"))]
                self.over.wait(0.5)
                for client in clients:
                    client.close()
            except OSError:
                self.over.wait(0.5)

    def come_back(self):
        """One who is away for a moment again and again, reads its bell, and asks for a command."""
        cursor, round_ = None, 0
        while not self.over.is_set():
            round_ += 1
            gateway = self.stack.ready["gateways"][round_ % 2]
            room = {"room": "bookings"} | ({"cursor": cursor} if cursor else {})
            try:
                client = Socket(gateway, self.boss, [room])
                client.say({"id": 2, "command": {"name": "delivery.assign", "data": {}, "key": f"k-{round_}"}})
                client.say({"id": 3, "feed": {}})
                client.say({"id": 4, "counters": {}})
                for _ in range(20):
                    frame = client.hear() or {}
                    body = frame.get("event") or frame.get("caughtUp") or {}
                    cursor = body.get("cursor") if isinstance(body.get("cursor"), str) else cursor
                client.close()
            except (OSError, ValueError):
                pass
            http(gateway + "/v1/feed", headers={"Authorization": f"Bearer {self.boss}"})
            self.over.wait(0.5)

    def pass_on(self):
        """A stream whose newer token comes to another gateway."""
        one, other = self.stack.ready["gateways"]
        while not self.over.wait(1):
            try:
                stream = Stream(one, self.boss)
                body = json.dumps({"connection": stream.connection()}).encode()
                http(other + "/v1/refresh", body, {"Authorization": f"Bearer {self.boss}", "Content-Type": "application/json"})
                stream.close()
            except OSError:
                pass

    def visit(self):
        """A gateway that fetches its keys, and has some clients that say no goodbye when it goes: it waits for them, and is seen."""
        with issuers(self.stack) as two, another(self.stack, "gateway-1", ROOMCAST_DRAIN_SECONDS="60", **two) as address:
            clients = [Socket(address, self.boss, [{"room": "bookings"}]) for _ in range(10)]
            # Prometheus looks for new targets every five seconds.
            self.over.wait(12)
        for client in clients:
            client.close()

    def write_and_tell(self):
        """Rows of a database, and news for a webhook."""
        number = 0
        while not self.over.wait(1):
            number += 1
            try:
                self.stack.beside.postgres.sql("INSERT INTO notes (text) VALUES ('written')")
            except Failed:
                # It is stopped now and then.
                continue
            if number % 10 == 0:
                self.stack.post({"id": f"news-{number}", "room": "notifications", "audience": "user", "type": "notification.news",
                                 "data": {"title": "News"}}, self.desk)

    def rule(self):
        """A policy that says the same in other words, again and again: everybody is decided about anew."""
        text, round_ = self.stack.policy.read_text(), 0
        while not self.over.wait(5):
            if self.stack.policy.read_text().startswith(text):
                round_ += 1
                self.stack.policy.write_text(f"{text}# {round_}\n")

    def stop(self):
        self.over.set()
        for thread in self.threads:
            thread.join(30)


def faults(metrics):
    """What promtool finds wrong with a scrape, a line each."""
    said = subprocess.run([PROMTOOL, "check", "metrics"], input=metrics, capture_output=True, check=False)
    return (said.stderr + said.stdout).decode().splitlines() or (["promtool: no"] if said.returncode else [])


def scrapes(stack):
    """What each service says: how many series, and what is wrong with them."""
    for kind, addresses in stack.ready["admin"].items():
        for at, address in enumerate(addresses, 1):
            status, metrics = http(address + "/metrics")
            wrong = faults(metrics) if status == 200 else [f"/metrics: {status}"]
            yield f"{kind} {at}", sum(not line.startswith(b"#") for line in metrics.splitlines()), wrong


def clean(stack, most=None):
    """Every service's scrape by name with its series.

    Fails where promtool has a complaint, or where one has more series than it may."""
    found = {name: (count, wrong) for name, count, wrong in scrapes(stack)}
    complaints = [f"{name}: {line}" for name, (_, wrong) in found.items() for line in wrong]
    complaints += [f"{name}: {count} series, more than {most}" for name, (count, _) in found.items() if most and count > most]
    # A check that sees nothing is none.
    if not found or not faults(b"# TYPE roomcast_seen counter\nroomcast_seen 1\n"):
        complaints.append("promtool has nothing to say of a counter without help and ending")
    if complaints:
        raise Failed("\n  ".join(["scrapes:", *complaints]))
    return {name: count for name, (count, _) in found.items()}


def answers(prometheus, asks):
    """What Prometheus says to each query, by its name; nothing to those that it still says nothing to after SEEN_WITHIN."""
    said = dict.fromkeys(asks, [])

    def all_said():
        for name, query in asks.items():
            said[name] = said[name] or prometheus.values(query)
        return all(said.values())

    with contextlib.suppress(Failed):
        until("every query", SEEN_WITHIN, all_said)
    return said


def queries(prometheus):
    """Every query of every board, and what it says."""
    said = answers(prometheus, {row: asked(row[2]) for row in boards()})
    return sorted(said.items(), key=lambda one: one[0][:2])


def series(prometheus, rules):
    """What rules name and Prometheus does not have, labels included."""
    def count(metric, labels):
        there = "".join(f',{label}!=""' for label in labels)
        return f'count({{__name__="{metric}"{there}}})'

    said = answers(prometheus, {(metric, labels): count(metric, labels) for metric, labels in named(rules)})
    return [f"{metric} with {', '.join(labels) or 'no labels'}" for (metric, labels), values in said.items() if not values]


def provoke(stack, prometheus, only, say):
    for alert, (cause, what) in PROVOKED.items():
        if only and alert not in only:
            continue
        # What another cause left has to be over.
        until(f"{alert} is silent", RESOLVES_WITHIN, lambda: not prometheus.firing(alert))
        over, broken = threading.Event(), []

        def work(cause=cause, over=over, broken=broken):
            try:
                cause(stack, over)
            except (Failed, OSError) as failed:
                broken.append(failed)

        def fires(alert=alert, broken=broken):
            if broken:
                raise Failed(f"its cause: {broken[0]}")
            return prometheus.firing(alert)

        worker = threading.Thread(target=work, daemon=True)
        worker.start()
        fired = resolved = None
        try:
            try:
                _, fired = until(f"{alert} fires", FIRES_WITHIN, fires)
            finally:
                over.set()
                worker.join(60)
            _, resolved = until(f"{alert} resolves", RESOLVES_WITHIN, lambda: not prometheus.firing(alert))
        except Failed as failed:
            say(f"{alert}: {what}: {failed}")
        else:
            say(f"{alert}: {what}: fired after {fired:.0f} s, resolved {resolved:.0f} s after its end")
        yield alert, what, fired, resolved


def shown(values):
    return f"{len(values)} series, {min(values):.4g} … {max(values):.4g}" if len(values) > 1 else f"{values[0]:.4g}"


def results(rows, alerts, rest, busy):
    lines = ["# What `make drill` saw last", "", "## Scrapes: series of each service, clean for `promtool check metrics`", "",
             "| service | at rest | under traffic |", "|---|---|---|"]
    lines += [f"| {name} | {count} | {busy[name]} |" for name, count in rest.items()]
    lines += ["", "## Boards: each query and what it said", "", "| board | panel | says |", "|---|---|---|"]
    lines += [f"| {board} | {title} | {shown(values)} |" for (board, title, _), values in rows]
    lines += ["", "## Alerts: provoked, fired, resolved", "",
              "Rules are hurried: a second for each minute. `promtool test rules` tries all of them at their own pace (`make check`).", "",
              "| alert | provoked by | fired after | resolved after the end |", "|---|---|---|---|"]
    took = lambda seconds: "**never**" if seconds is None else f"{seconds:.0f} s"
    lines += [f"| {alert} | {what} | {took(fired)} | {took(resolved)} |" for alert, what, fired, resolved in alerts]
    (HERE / "RESULTS.md").write_text("\n".join(lines) + "\n")


def main():
    quick = "--quick" in sys.argv[1:]
    only = sys.argv[sys.argv.index("--only") + 1].split(",") if "--only" in sys.argv[1:] else []
    lacks = missing() + ([] if PROMETHEUS.exists() and (BINARIES / "roomcast").exists() else ["Prometheus or the running system"])
    if lacks:
        print(f"SKIPPED boards and alerts: {', '.join(lacks)} missing: make tools, make build")
        sys.exit(1 if os.environ.get("CI") == "true" else 0)
    rules = "".join(path.read_text() for path in sorted((ROOT / "deploy" / "prometheus" / "rules").glob("*.yaml")))
    unnamed = set(re.findall(r"- alert: (\w+)", rules)) ^ PROVOKED.keys()
    if unnamed:
        raise Failed(f"not provoked, or no alert any more: {', '.join(sorted(unnamed))}")
    beside = Beside()
    try:
        watched(Stack(beside, [] if quick else SETTINGS), rules, quick, only)
    finally:
        beside.stop()


def watched(stack, rules, quick, only):
    try:
        rest = clean(stack, SERIES_AT_REST_MAX)
        prometheus = Prometheus(stack, hurried(rules))
        try:
            traffic = Traffic(stack)
            # All of them have worked for a while before anything is said of them.
            until("events are delivered", SEEN_WITHIN, lambda: prometheus.values("sum(roomcast_gateway_deliveries_total) > 200"))
            rows = queries(prometheus)
            empty = [f"{board}: {title}: {expr}" for (board, title, expr), values in rows if not values]
            empty += series(prometheus, rules)
            # A scrape that Prometheus throws away is an alert of tomorrow that never comes.
            until("every scrape is taken", SEEN_WITHIN, lambda: all(one["health"] == "up" for one in prometheus.ask("targets")["activeTargets"]))
            if empty:
                away = [f'{one["labels"]["job"]}: {one["lastError"]}' for one in prometheus.ask("targets")["activeTargets"] if one["health"] != "up"]
                raise Failed("\n  ".join(["says nothing:", *empty, *away]))
            busy = clean(stack)
            print(f"scrapes: clean, {max(rest.values())} series at most at rest, {max(busy.values())} under traffic")
            print(f"{len(rows)} queries of the boards: all say something; {len(named(rules))} series of the rules: all there")
            if not quick:
                alerts = list(provoke(stack, prometheus, only, lambda text: print(text, flush=True)))
                if not only:
                    results(rows, alerts, rest, busy)
                missed = [alert for alert, _, fired, resolved in alerts if fired is None or resolved is None]
                if missed:
                    raise Failed(f"did not fire and resolve: {', '.join(missed)}")
            traffic.stop()
        finally:
            prometheus.stop()
    except Failed:
        print(stack.said(), file=sys.stderr)
        raise
    finally:
        stack.stop()


try:
    main()
except Failed as failed:
    sys.exit(f"drill: {failed}")
