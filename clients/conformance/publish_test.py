#!/usr/bin/env python3
"""Shows that publishers repeat what may be repeated: the same bytes under the same id, with the pauses that they are asked for, and no more.

Usage: publish_test.py LANGUAGE…   (shell, python, node, go, java, rust; tcp hears the same from a NATS)
"""
import http.server
import json
import os
import pathlib
import shutil
import socketserver
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor

PUBLISHERS = pathlib.Path(__file__).resolve().parents[1] / "publish"
# What is done, the id it is given, what each attempt is answered (a status and Retry-After; None hangs up), and the exit code.
# No list of answers: nobody listens.
ROWS = [
    ("stored at the fourth attempt", "order-1", [(408, 1), (429, 3), None, (200, 0)], 0),
    ("never answered for good", None, [(503, 1)] * 5, 69),
    ("reaching nobody", None, None, 69),
    ("refused for good", None, [(409, 0)], 65),
    ("asked to wait for longer than a repeat is known", None, [(503, 60)], 69),
]
# What is shown with curl alone, through a proxy, whose own answer comes before.
TUNNEL = ("stored at the second attempt, through a tunnel", None, [(503, 2), (200, 0)], 0)


def body(status, after):
    """An answer of ingest, as far as publishers look."""
    if status == 200:
        return {"status": "stored"}
    return {"status": "refused", "temporary": status != 409, **({"retryAfterMs": 1_000 * after} if after else {})}


class Heard:
    """What came, and what is answered next."""

    def __init__(self, answers):
        self.answers, self.bodies, self.times = list(answers), [], []

    def next(self, body):
        self.bodies.append(body)
        self.times.append(time.monotonic())
        return self.answers[len(self.bodies) - 1] if len(self.bodies) <= len(self.answers) else (500, 0)


def over_http(heard):
    class Ingest(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            answer = heard.next(self.rfile.read(int(self.headers["Content-Length"])))
            if answer:
                said = json.dumps(body(*answer)).encode()
                self.send_response(answer[0])
                if answer[1]:
                    self.send_header("Retry-After", str(answer[1]))
                self.send_header("Content-Length", str(len(said)))
                self.end_headers()
                self.wfile.write(said)

        def do_CONNECT(self):
            self.send_response(200, "Connection established")
            self.end_headers()
            # What follows is what is in the tunnel, and the tunnel ends here.
            self.close_connection = False

        def log_message(self, *_):
            pass
    return Ingest


def over_nats(heard):
    class Nats(socketserver.StreamRequestHandler):
        def handle(self):
            self.wfile.write(b'INFO {"headers":true}\r\n')
            while line := self.rfile.readline().split():
                if line[0] == b"PUB":
                    answer = heard.next(self.rfile.read(int(line[3]) + 2))
                    if answer:
                        said = json.dumps(body(*answer), separators=(",", ":")).encode()
                        self.wfile.write(b"MSG %s 1 %d\r\n%s\r\n" % (line[2], len(said), said))
                    return
    return Nats


def complaints(language, id, answers, code, tunnel=False):
    heard = Heard(answers or [])
    handler = over_nats(heard) if language == "tcp" else over_http(heard)
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler) as server, tempfile.TemporaryDirectory() as folder:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        # Nobody listens on port 1.
        port = server.server_address[1] if answers else 1
        place = pathlib.Path(folder, ".roomcast")
        place.mkdir()
        (place / "dev.env").write_text(
            f"ROOMCAST_INGEST=http://127.0.0.1:{port}\nROOMCAST_TOKEN=x\nROOMCAST_NATS=nats://127.0.0.1:{port}\n"
            "ROOMCAST_NATS_PUBLISHER_USER=x\nROOMCAST_NATS_PUBLISHER_PASSWORD=x\nROOMCAST_NATS_PUBLISHER_INBOX=_INBOX_x\n")
        if tunnel:
            (place.parent / ".curlrc").write_text(f"proxy = http://127.0.0.1:{port}\nproxytunnel\n")
        env = {key: value for key, value in os.environ.items() if not key.startswith("ROOMCAST_") and not key.lower().endswith("_proxy")}
        env["CURL_HOME"] = folder
        run = [PUBLISHERS / language / "run.sh", *([id] if id else [])]
        ended = subprocess.run(run, cwd=folder, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        server.shutdown()
    said = f"{ended.stdout}{ended.stderr}"
    if ended.returncode != code:
        yield f"exit {ended.returncode}, expected {code}: {said}"
    if answers is None:
        return
    if len(heard.bodies) != len(answers):
        yield f"{len(heard.bodies)} attempts, expected {len(answers)}: {said}"
    if len(set(heard.bodies)) > 1:
        yield f"repeats are not the same bytes: {heard.bodies}"
    sent = {json.loads(one).get("id") for one in heard.bodies}
    if len(sent) != 1 or None in sent or id and sent != {id}:
        yield f"ids {sent}, expected {id or 'one of its own'}"
    for answer, before, after in zip(answers, heard.times, heard.times[1:]):
        if answer and after - before < answer[1]:
            yield f"came back after {after - before:.2f} s, asked for {answer[1]}"


def main():
    socketserver.ThreadingTCPServer.daemon_threads = True
    cases = [(language, *row) for row in ROWS for language in sys.argv[1:]]
    cases += [(language, *TUNNEL, True) for language in sys.argv[1:] if language == "shell" and shutil.which("curl")]
    # Most of a run is waiting.
    with ThreadPoolExecutor(len(cases)) as pool:
        found = list(pool.map(lambda case: list(complaints(case[0], *case[2:])), cases))
    wrong = [f"{language}: {what}: {one}" for (language, what, *_), all in zip(cases, found) for one in all]
    if wrong:
        sys.exit("\n".join(wrong))
    print(f"{len(cases)} rows: the same bytes again where that may help, and nowhere else")


main()
