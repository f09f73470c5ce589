#!/usr/bin/env python3
"""Backup and restore, done once: a running system is copied under traffic, all of its NATS is lost, another one is made of the copy.

What was acknowledged before the copy began is there, once and in order; a client that comes with a cursor from before is told that its
place is of another life; numbers are counted anew from what there is; new events are taken, and counted; a dead letter that was taken
again before the copy is not taken a second time. Copied is what deploy/operations/backup.md lists.
"""
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import types

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "observe"))
from rig import BINARIES, ROOT, Failed, Socket, Stack, free_port, http, until  # noqa: E402

BACKUP = ROOT / "deploy" / "tools" / "backup.py"
PAGE = (ROOT / "deploy" / "operations" / "backup.md").read_text()
# Nothing stands beside the system.
ALONE = types.SimpleNamespace(settings=())


def listed():
    """The streams that the page copies, which are those that it restores."""
    loops = re.findall(r"^ *for stream in (.+); do$", PAGE, re.M)
    if len(loops) != 2 or len(set(loops)) != 1:
        raise Failed(f"deploy/operations/backup.md does not restore what it copies: {loops}")
    return loops[0].split()


def replayed(stack, position, event):
    """What is said of a dead letter that is taken again, mended."""
    mended = pathlib.Path(stack.folder.name, "mended.json")
    mended.write_text(json.dumps(event))
    done = subprocess.run([BINARIES / "roomcast", "replay", str(position), "--mended", mended], env={**os.environ, **stack.env},
                          capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def backup(action, folder, url, password):
    env = {**os.environ, "ROOMCAST_NATS_URL": url, "ROOMCAST_NATS_USER": "admin", "ROOMCAST_NATS_PASSWORD": password}
    done = subprocess.run([sys.executable, BACKUP, action, folder, *listed()], env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Failed(f"backup.py {action}: {done.stderr}{done.stdout}")
    print(done.stdout.strip())


def booking(number):
    return {"id": f"bk-{number}", "room": "bookings", "audience": "staff", "type": "booking:new", "data": {
        "id": f"bk-{number}", "customer": f"c{number}", "country": "TR", "category": "tour", "title": "Walk", "duration": "3 hours",
        "amount": 100, "currency": "TRY"}}


def publish(stack, desk, numbers):
    for number in numbers:
        status, answer = stack.post(booking(number), desk)
        if status != 200:
            raise Failed(f"bk-{number}: {status} {answer[:200]}")


def followed(stack, token, room, cursor=None):
    """Until it is caught up: how a client was told that it came back, the events it got, and its cursor."""
    client = Socket(stack.ready["gateways"][0], token, [{"room": room, **({"cursor": cursor} if cursor else {})}])
    events, recovery = [], None
    try:
        while frame := client.hear():
            if "connected" in frame:
                recovery = next(one for one in frame["connected"]["rooms"] if one["room"] == room).get("recovery")
            body = frame.get("event") or frame.get("caughtUp") or {}
            if body.get("room") != room:
                continue
            if "caughtUp" in frame:
                return recovery, events, body["cursor"]
            events.append(body["event"])
    finally:
        client.close()
    raise Failed("the gateway ended the connection")


def bookings(stack, token):
    """The number on the card."""
    _, values, _ = followed(stack, token, "os_dashboard")
    said = [value["data"] for value in values if value.get("statekey") == "bookings"]
    return int(float(said[0]["value"])) if said else 0


def history(stack, token):
    """Ids of all events of the room, oldest first."""
    ids, before = [], ""
    while True:
        ask = lambda: http(f'{stack.ready["gateways"][0]}/v1/rooms/bookings/events?limit=300{before}', headers={"Authorization": f"Bearer {token}"})
        # Pages that are read from the stream are rare for one user; then it is told to wait.
        (_, body), _ = until("a page of history", 30, lambda: (answer := ask())[0] == 200 and answer)
        page = json.loads(body)
        ids = [entry["event"]["id"] for entry in page["events"]] + ids
        if page["complete"] or not page["events"]:
            return ids
        before = f'&before={page["cursor"]}'


def main():
    if not (BINARIES / "roomcast").exists():
        print("SKIPPED the running system: make build")
        sys.exit(1 if os.environ.get("CI") == "true" else 0)
    work = pathlib.Path(tempfile.mkdtemp(prefix="roomcast-backup-"))
    server = None
    first = Stack(ALONE)
    try:
        boss, desk = first.token("boss", "admin"), first.token("desk", "desk")
        publish(first, desk, range(50))
        cursor = followed(first, boss, "bookings")[2]
        publish(first, desk, range(50, 100))
        until("100 are counted", 30, lambda: bookings(first, boss) == 100)
        # Refused for its audience, mended, and taken again.
        letter = booking(1_000_000)
        status, answer = first.post({**letter, "audience": "nobody"}, desk)
        if status == 200:
            raise Failed(f"an audience that nobody knows: {answer[:200]}")
        until("the letter is taken again", 30, lambda: "1 taken" in replayed(first, 1, letter))
        # The copy is taken while events come.
        over, more = threading.Event(), [100]

        def traffic():
            while not over.is_set():
                publish(first, desk, [more[0]])
                more[0] += 1
        worker = threading.Thread(target=traffic)
        worker.start()
        time.sleep(0.5)
        backup("save", work / "copy", first.ready["nats"], first.password("admin"))
        over.set()
        worker.join()
        state = pathlib.Path(first.folder.name) / "state"
        shutil.copytree(state / "nats", work / "nats", ignore=lambda folder, names: [name for name in names if (pathlib.Path(folder) / name).is_dir()])
    finally:
        first.stop()
    print(f"{more[0]} events were acknowledged, 100 of them before the copy; the system and its NATS are gone")
    second = None
    try:
        # The same configuration, another place, nothing in it.
        config = (work / "nats" / "nats-1.conf").read_text()
        port = free_port()
        config = re.sub(r'^listen: .*$', f'listen: "127.0.0.1:{port}"', config, flags=re.M)
        config = re.sub(r'^http: .*$', "", config, flags=re.M)
        config = re.sub(r'store_dir: .*', f'store_dir: "{work}/store"', config)
        (work / "nats.conf").write_text(config)
        nats_server = os.environ.get("ROOMCAST_NATS_SERVER") or ROOT / ".tools" / "bin" / "nats-server"
        server = subprocess.Popen([nats_server, "-c", work / "nats.conf"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        users = work / "nats" / "users.env"
        password = re.search(r"^admin=(.*)$", users.read_text(), re.M)[1]
        url = f"nats://127.0.0.1:{port}"

        def restored():
            try:
                backup("restore", work / "copy", url, password)
                return True
            except Failed as failed:
                if "refused" in str(failed).lower():
                    return False
                raise
        until("NATS answers", 30, restored)
        second = Stack(ALONE, ["--nats", url, "--nats-users", str(users)])
        boss, desk = second.token("boss", "admin"), second.token("desk", "desk")
        recovery, _, _ = followed(second, boss, "bookings", cursor)
        if recovery != "incomplete":
            raise Failed(f"a client from before the copy was told {recovery}")
        said = replayed(second, 1, letter)
        if "conflict" not in said:
            raise Failed(f"a letter that was taken before the copy: {said}")
        # The letter's event came among the others.
        ids = [id for id in history(second, boss) if id != letter["id"]]
        if ids[:100] != [f"bk-{number}" for number in range(100)] or len(set(ids)) != len(ids):
            raise Failed(f"the room begins with {ids[:110]}")
        if ids != [f"bk-{number}" for number in range(len(ids))]:
            raise Failed("events are missing in the middle, or out of order")
        before = len(ids) + 1
        until("all are counted", 30, lambda: bookings(second, boss) == before)
        publish(second, desk, range(10_000, 10_010))
        until("ten more are counted", 30, lambda: bookings(second, boss) == before + 10)
        print(f"restored: {len(ids)} events, each once and in order, all 100 from before the copy among them; clients are told {recovery}; "
              f"{before} bookings counted, and ten more after")
    finally:
        if second:
            second.stop()
        if server:
            server.terminate()
            server.wait()
        shutil.rmtree(work, ignore_errors=True)


try:
    main()
except Failed as failed:
    sys.exit(f"backup drill: {failed}")
