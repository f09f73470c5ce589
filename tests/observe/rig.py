"""The running system, a real Prometheus beside it, and clients that need nothing but the standard library."""
import base64
import json
import math
import os
import pathlib
import re
import socket
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
BINARIES = ROOT / "target" / "debug"
PROMETHEUS = ROOT / ".tools" / "prometheus" / "prometheus"
PROMTOOL = PROMETHEUS.with_name("promtool")
# Rules speak of minutes to days; here a minute is a second. Below this a rate has no two samples.
SHORTEST_RANGE = 4
READY_WITHIN = 120
# Longest frame that a gateway writes, and more.
FRAME_BYTES_MAX = 16 << 20


class Failed(Exception):
    """Something is not as it must be."""


def until(what, within, ask):
    """Asks twice a second until the answer is something; answers it and the seconds it took."""
    began = time.monotonic()
    while True:
        answer = ask()
        took = time.monotonic() - began
        if answer:
            return answer, took
        if took > within:
            raise Failed(f"after {within} s still not: {what}")
        time.sleep(0.5)


def http(url, body=None, headers=None, timeout=20):
    """Status and body, whatever the status."""
    request = urllib.request.Request(url, data=body, headers=headers or {})
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as refused:
        return refused.code, refused.read()
    except OSError as error:
        return 0, str(error).encode()


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def booking(name, customer="c", amount=100):
    """A new booking, as the desk publishes it."""
    return {"id": name, "room": "bookings", "audience": "staff", "type": "booking:new", "data": {
        "id": name, "customer": customer, "country": "TR", "category": "tour", "title": "Walk", "duration": "3 hours",
        "amount": amount, "currency": "TRY"}}


class Stack:
    """`roomcast dev` with two of each, in a folder of its own. `beside`: what stands beside it."""

    def __init__(self, beside, settings=()):
        self.beside = beside
        self.folder = tempfile.TemporaryDirectory(prefix="roomcast-observe-")
        here = pathlib.Path(self.folder.name)
        # What Prometheus scrapes besides, a file each.
        self.targets = here / "targets"
        self.targets.mkdir()
        scenario = ROOT / "deploy" / "scenarios" / "bookings"
        # Copies, so that a drill can break them.
        self.policy, self.schemas = here / "policy.yaml", here / "schemas"
        # The desk may tell people things, so that there is something to tell webhooks of.
        quiet, told = "subscribe: notifications.view,", "subscribe: notifications.view, publish: bookings.publish,"
        self.policy.write_text((scenario / "policy.yaml").read_text().replace(quiet, told))
        self.schemas.mkdir()
        for file in (scenario / "schemas").iterdir():
            (self.schemas / file.name).write_text(file.read_text())
        self.metrics = here / "metrics.yaml"
        self.metrics.write_text((scenario / "metrics.yaml").read_text() + RULE)
        env = {key: value for key, value in os.environ.items() if not key.startswith("ROOMCAST_")}
        env["ROOMCAST_NATS_SERVER"] = os.environ.get("ROOMCAST_NATS_SERVER") or str(ROOT / ".tools" / "bin" / "nats-server")
        counts = [word for name in ("gateways", "ingests", "aggregators") for word in (f"--{name}", "2")]
        files = ["--policy", self.policy, "--metrics", self.metrics, "--schemas", self.schemas]
        self.log = open(here / "log", "wb")
        self.process = subprocess.Popen(
            [BINARIES / "roomcast", "dev", "--json", "--ports", "free", "--restart", "--dir", here / "state", *counts, *files, *beside.settings, *settings],
            cwd=here, env=env, stdout=subprocess.PIPE, stderr=self.log, text=True)
        # A system that does not come up is ended, and says why.
        watch = threading.Timer(READY_WITHIN, self.process.kill)
        watch.start()
        line = self.process.stdout.readline()
        watch.cancel()
        if not line:
            raise Failed(f"roomcast dev did not become ready:\n{self.said()}")
        self.ready = json.loads(line)
        self.env = dict(pair.split("=", 1) for pair in self._read("dev.env").splitlines() if "=" in pair and not pair.startswith("#"))

    def _find(self, name):
        # Not rglob: NATS makes and removes folders in its store meanwhile, and that would end the search.
        return next((pathlib.Path(folder, name) for folder, _, files in os.walk(self.folder.name) if name in files), None)

    def _read(self, name):
        file = self._find(name)
        return file.read_text() if file else ""

    @property
    def conf(self):
        """The configuration of NATS."""
        return self._find("nats-1.conf")

    def said(self):
        self.log.flush()
        return pathlib.Path(self.log.name).read_text(errors="replace")[-4000:]

    def pid(self, name):
        """Of a child; another one after it was started again."""
        return json.loads(self._read("pids.json") or "{}").get(name) or self.ready["pids"][name]

    def signal(self, name, number):
        os.kill(self.pid(name), number)

    def password(self, user):
        return re.search(rf"^{user}=(.*)$", self._read("users.env"), re.M)[1]

    def token(self, user, *roles):
        roles = [word for role in roles for word in ("--role", role)]
        done = subprocess.run([BINARIES / "roomcast", "token", "--user", user, *roles, "--key", self.ready["token_key_file"]],
                              capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def post(self, body, token, path="/v1/events", ingest=0, timeout=20):
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        return http(self.ready["ingests"][ingest] + path, body, {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}, timeout)

    def nats(self, user):
        return Nats(self.ready["nats"], user, self.password(user))

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(45)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()
        self.folder.cleanup()


# A rule that fires, so that its panels show something.
# One more of the scenario's rules, which stand at the end of its file.
RULE = """
  - { alert: any, when: bookings >= 1, notify: { room: notifications, audience: admin, priority: low, title: Booked } }
"""


class Nats:
    """The few words of NATS that a drill says."""

    def __init__(self, url, user, password):
        host, port = url.split(",")[0].split("//")[1].rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)), timeout=10)
        self.lines = self.socket.makefile("rb")
        self.lines.readline()
        options = {"user": user, "pass": password, "verbose": False, "pedantic": False, "headers": True, "no_responders": True}
        self.socket.sendall(f"CONNECT {json.dumps(options)}\r\nPING\r\n".encode())
        answer = self.lines.readline()
        if not answer.startswith(b"PONG"):
            raise Failed(f"NATS: {answer!r}")

    def publish(self, subject, body, headers=None, reply=""):
        body = body.encode()
        if headers is None:
            message = f"PUB {subject} {reply} {len(body)}\r\n".encode() + body + b"\r\n"
        else:
            head = ("NATS/1.0\r\n" + "".join(f"{name}: {value}\r\n" for name, value in headers.items()) + "\r\n").encode()
            message = f"HPUB {subject} {reply} {len(head)} {len(head) + len(body)}\r\n".encode() + head + body + b"\r\n"
        self.socket.sendall(message + b"PING\r\n")
        while not self.lines.readline().startswith((b"PONG", b"-ERR")):
            pass

    def ask(self, subject, body=None):
        """One request; its answer, read as JSON."""
        inbox = f"_INBOX.drill.{os.urandom(8).hex()}"
        body = (json.dumps(body) if body is not None else "").encode()
        self.socket.sendall(f"SUB {inbox} 1\r\nUNSUB 1 1\r\nPUB {subject} {inbox} {len(body)}\r\n".encode() + body + b"\r\n")
        while not (line := self.lines.readline()).startswith((b"MSG", b"HMSG")):
            if not line or line.startswith(b"-ERR"):
                raise Failed(f"NATS: {line!r} to {subject}")
        words = line.split()
        answer = self.lines.read(int(words[-1]) + 2)
        answer = json.loads(answer[int(words[-2]) if words[0] == b"HMSG" else 0:])
        if "error" in answer:
            raise Failed(f"{subject}: {answer['error']}")
        return answer

    def close(self):
        self.socket.close()


class Stream:
    """One client that follows rooms by server-sent events; it reads or it does not."""

    def __init__(self, gateway, token, rooms=("bookings",), buffer=None):
        host, port = gateway.split("//")[1].rsplit(":", 1)
        self.socket = socket.socket()
        if buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        self.socket.settimeout(10)
        self.socket.connect((host, int(port)))
        query = "&".join(f"room={room}" for room in rooms)
        self.socket.sendall(f"GET /v1/sse?{query} HTTP/1.1\r\nHost: {host}:{port}\r\nAuthorization: Bearer {token}\r\n\r\n".encode())
        self.said = self.socket.recv(64 if buffer else 4096)

    def connection(self):
        """The connection's id, which comes first of all."""
        while not (found := re.search(rb'"connection":"([^"]+)"', self.said)):
            more = self.socket.recv(4096)
            if not more:
                raise OSError("the stream ended")
            self.said += more
        return found[1].decode()

    def close(self):
        self.socket.close()


class Socket:
    """One client with a WebSocket; says and hears JSON."""

    def __init__(self, gateway, token, rooms):
        host, port = gateway.split("//")[1].rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)), timeout=10)
        self.stream = self.socket.makefile("rb")
        self.socket.sendall((f"GET /v1/ws HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                             f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}\r\n"
                             "Sec-WebSocket-Protocol: roomcast.v1.json\r\n\r\n").encode())
        status = self.stream.readline()
        if b" 101 " not in status:
            raise OSError(f"no WebSocket: {status!r}")
        while self.stream.readline().strip():
            pass
        self.say({"id": 1, "connect": {"token": token, "client": "drill", "rooms": rooms}})

    def say(self, frame):
        payload = json.dumps(frame).encode()
        size = len(payload)
        head = bytes([0x81, 0x80 | size]) if size < 126 else bytes([0x81, 0xFE]) + size.to_bytes(2, "big")
        # A mask of zeros is a mask.
        self.socket.sendall(head + bytes(4) + payload)

    def hear(self):
        """The next frame; nothing at the end."""
        head = self.stream.read(2)
        if len(head) < 2 or head[0] & 15 == 8:
            return None
        size = head[1]
        if size > 125:
            size = int.from_bytes(self.stream.read(2 if size == 126 else 8), "big")
        if size > FRAME_BYTES_MAX:
            raise OSError(f"a frame of {size} bytes: the last one was read in part")
        return json.loads(self.stream.read(size))

    def close(self):
        self.socket.close()


def seconds(text):
    number, unit = re.fullmatch(r"(\d+)([smhd])", text).groups()
    return int(number) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[unit]


def hurried(rules):
    """The rules with a second for a minute: ranges, offsets, how long something has to hold, and what age is old."""
    def short(text, least):
        return f"{max(math.ceil(seconds(text) / 60), least)}s"
    rules = re.sub(r"((?:_oldest_seconds\)|process_start_time_seconds) [<>] )(\d+)(?=$|\))", lambda m: f"{m[1]}{math.ceil(int(m[2]) / 60)}", rules, flags=re.M)
    rules = re.sub(r"\[(\d+[smhd])\]", lambda m: f"[{short(m[1], SHORTEST_RANGE)}]", rules)
    rules = re.sub(r"offset (\d+[smhd])", lambda m: f"offset {short(m[1], SHORTEST_RANGE)}", rules)
    return re.sub(r"((?:keep_firing_)?for): (\d+[smhd])$", lambda m: f"{m[1]}: {short(m[2], 0)}", rules, flags=re.M)


class Prometheus:
    """A real Prometheus that scrapes the stack each second."""

    def __init__(self, stack, rules):
        self.folder = tempfile.TemporaryDirectory(prefix="roomcast-prometheus-")
        here = pathlib.Path(self.folder.name)
        (here / "rules.yaml").write_text(rules)
        jobs = [
            {"job_name": job, "static_configs": [{"targets": [url.split("//")[1] for url in stack.ready["admin"][key]]}],
             "file_sd_configs": [{"files": [f"{stack.targets}/{key}-*.json"], "refresh_interval": "1s"}]}
            for job, key in (("roomcast-edge-gateway", "gateway"), ("roomcast-ingest", "ingest"), ("roomcast-metrics-aggregator", "aggregator"))
        ]
        # JSON is YAML.
        (here / "prometheus.yml").write_text(json.dumps({
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": ["rules.yaml"], "scrape_configs": jobs}))
        self.url = f"http://127.0.0.1:{free_port()}"
        self.log = open(here / "log", "wb")
        self.process = subprocess.Popen(
            [PROMETHEUS, f"--config.file={here}/prometheus.yml", f"--storage.tsdb.path={here}/data", f"--web.listen-address={self.url[7:]}"],
            stdout=self.log, stderr=self.log)
        until("Prometheus is ready", 60, lambda: http(self.url + "/-/ready", timeout=2)[0] == 200)

    def ask(self, path, **parameters):
        status, body = http(f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}")
        if status != 200:
            raise Failed(f"{parameters}: {body.decode()[:400]}")
        return json.loads(body)["data"]

    def values(self, query):
        """What a query says now, without what is no number."""
        return [float(one["value"][1]) for one in self.ask("query", query=query)["result"] if one["value"][1] != "NaN"]

    def firing(self, alert):
        return any(one["labels"]["alertname"] == alert and one["state"] == "firing" for one in self.ask("alerts")["alerts"])

    def stop(self):
        self.process.terminate()
        self.process.wait()
        self.log.close()
        self.folder.cleanup()
