"""What stands beside the system in a drill: a database whose rows become events, who is told of notifications, and another instance."""
import contextlib
import json
import os
import pathlib
import pwd
import shutil
import ssl
import subprocess
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from rig import READY_WITHIN, Failed, free_port, http, until

# What one switch of the log moves it on by; hardly anything of it is written.
SEGMENT_MIB = 256
CAPTURE = """
version: 1
source: shop
slot: roomcast
publication: roomcast
tables:
  - { table: notes, room: bookings, audience: staff, types: { insert: note }, columns: all }
"""
SINKS = """
webhooks:
  - { name: pager, url: "https://localhost:%d/", secret_file: pager.secret, rooms: [notifications] }
private: [127.0.0.0/8, "::1/128"]
ca_file: ca.pem
"""


def missing():
    """What it needs and is not there."""
    there = {"PostgreSQL": _postgres(), "openssl": shutil.which("openssl")}
    return [name for name, found in there.items() if not found]


def _postgres():
    """The newest installed folder of PostgreSQL's programs."""
    found = [path for path in pathlib.Path("/usr/lib/postgresql").glob("*/bin") if (path / "initdb").is_file()]
    return max(found, key=lambda path: int(path.parent.name), default=None)


class Postgres:
    """A server with one table whose rows are published; only root needs another user for it."""

    def __init__(self, folder):
        self.port = free_port()
        self.store = folder / "postgres"
        self.store.mkdir()
        self.user = pwd.getpwnam("postgres") if os.getuid() == 0 else None
        if self.user:
            os.chown(self.store, self.user.pw_uid, self.user.pw_gid)
        self.bin = _postgres()
        self.run("initdb", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync", f"--wal-segsize={SEGMENT_MIB}", "-D", "data")
        self.start()
        self.sql("CREATE TABLE notes (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, text text); CREATE PUBLICATION roomcast FOR TABLE notes")

    def run(self, program, *arguments):
        done = subprocess.run([self.bin / program, *arguments], cwd=self.store, user=self.user and self.user.pw_uid,
                              group=self.user and self.user.pw_gid, extra_groups=[] if self.user else None, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode:
            raise Failed(f"{program}: {done.stdout}")
        return done.stdout.strip()

    def start(self):
        settings = ["wal_level=logical", "fsync=off", "wal_init_zero=off", "wal_recycle=off", "unix_socket_directories=", f"port={self.port}"]
        self.run("pg_ctl", "-D", "data", "-w", "-l", "log", "-o", " ".join(f"-c {one}" for one in settings), "start")

    def stop(self):
        self.run("pg_ctl", "-D", "data", "-w", "-m", "immediate", "stop")

    def sql(self, text):
        return self.run("psql", "-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres", "-v", "ON_ERROR_STOP=1", "-Atc", text)


class Listener:
    """An HTTP server on this machine. `answer` gives status and body of whatever it is asked; `context`: over TLS."""

    def __init__(self, answer, context=None):
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                status, body = answer()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_POST = do_GET

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if context:
            # The handshake is each connection's own: one that does not finish holds up nobody.
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True, do_handshake_on_connect=False)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()


class Receiver(Listener):
    """A webhook on this machine. `answer`: the status that it gives."""

    def __init__(self, folder):
        self.answer = 204
        openssl = lambda *words: subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)
        openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=drill", "-keyout", "ca.key", "-out", "ca.pem", "-days", "2")
        openssl("req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-keyout", "own.key", "-out", "own.csr")
        (folder / "names").write_text("subjectAltName=DNS:localhost\nbasicConstraints=CA:FALSE\n")
        openssl("x509", "-req", "-in", "own.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-out", "own.pem", "-days", "2", "-extfile", "names")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "own.pem", folder / "own.key")
        super().__init__(lambda: (self.answer, b""), context)


class Beside:
    """All of it, and the settings that tie it to the system."""

    def __init__(self):
        self.folder = tempfile.TemporaryDirectory(prefix="roomcast-beside-")
        here = pathlib.Path(self.folder.name)
        here.chmod(0o755)
        self.postgres, self.receiver = Postgres(here), Receiver(here)
        (here / "capture.yaml").write_text(CAPTURE)
        (here / "sinks.yaml").write_text(SINKS % self.receiver.port)
        secret = here / "pager.secret"
        secret.write_text(f"whsec_{'A' * 43}=\n")
        secret.chmod(0o600)
        ingest = {"ROOMCAST_CAPTURE_FILE": here / "capture.yaml", "ROOMCAST_SINKS_FILE": here / "sinks.yaml",
                  "ROOMCAST_CAPTURE_DATABASE": f"postgres://postgres@127.0.0.1:{self.postgres.port}/postgres"}
        self.settings = [word for name, value in ingest.items() for word in ("--ingest-env", f"{name}={value}")]

    def stop(self):
        self.receiver.stop()
        self.postgres.stop()
        self.folder.cleanup()


def environment_of(stack, child):
    """The settings of a child."""
    text = pathlib.Path(f"/proc/{stack.pid(child)}/environ").read_text()
    return dict(pair.split("=", 1) for pair in text.split("\0") if "=" in pair)


@contextlib.contextmanager
def another(stack, like, program=None, **changed):
    """One more instance of what runs, scraped as the others are; answers its address.

    like: the child whose program and settings it has. changed: settings that differ; None: not set. At the end it drains."""
    environment = environment_of(stack, like)
    ports = [free_port(), free_port()]
    own = {"ROOMCAST_ADMIN_LISTEN": f"127.0.0.1:{ports[0]}", "ROOMCAST_LISTEN": f"127.0.0.1:{ports[1]}"}
    environment |= {name: value for name, value in own.items() if name in environment} | changed
    environment = {name: value for name, value in environment.items() if value is not None}
    process = subprocess.Popen([program or os.readlink(f"/proc/{stack.pid(like)}/exe")], env=environment, stdout=subprocess.DEVNULL, stderr=stack.log)
    target = stack.targets / f"{like.rsplit('-', 1)[0]}-another.json"
    try:
        until(f"another {like} is ready", READY_WITHIN, lambda: http(f"http://127.0.0.1:{ports[0]}/readyz")[0] == 200)
        target.write_text(json.dumps([{"targets": [f"127.0.0.1:{ports[0]}"]}]))
        yield f"http://127.0.0.1:{ports[1]}"
    finally:
        process.terminate()
        process.wait(60)
        target.unlink(missing_ok=True)


@contextlib.contextmanager
def issuers(stack):
    """Settings with one more issuer of tokens, which publishes its keys."""
    settings = environment_of(stack, "gateway-1")
    name, file = settings["ROOMCAST_JWT_ISSUER"], settings["ROOMCAST_JWT_KEYS_FILE"]
    # Keys of development come from files alone.
    keys = pathlib.Path(file).read_bytes().replace(name.encode(), b"another")

    listener = Listener(lambda: (200, keys))
    listed = pathlib.Path(stack.folder.name, "issuers.json")
    address = f"http://127.0.0.1:{listener.port}/keys"
    listed.write_text(json.dumps([{"issuer": name, "keys_file": file}, {"issuer": "another", "jwks_url": address}]))
    try:
        yield {"ROOMCAST_JWT_ISSUER": None, "ROOMCAST_JWT_KEYS_FILE": None, "ROOMCAST_JWT_ISSUERS_FILE": str(listed)}
    finally:
        listener.stop()


def other_build(stack, like):
    """A copy of a program that says of itself to be of another commit."""
    text = pathlib.Path(f"/proc/{stack.pid(like)}/exe").read_bytes()
    copy = pathlib.Path(stack.folder.name, "other-build")
    copy.write_bytes(text.replace(b"development", b"other-build"))
    copy.chmod(0o755)
    return copy
