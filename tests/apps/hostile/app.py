"""An app that tries what it is asked to try, and answers how far it came. For tests of what holds an
app; tests/apps/README.md says what can be asked."""

import json
import os
import pathlib
import socket
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

PATIENCE = 3.0


def read(path):
    return pathlib.Path(path).read_text(errors="replace")[:4096]


def write(path):
    pathlib.Path(path).write_text("was here\n")


def connect(host, port):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as client:
        client.settimeout(PATIENCE)
        client.connect((host, int(port)))


def unix(path):
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(PATIENCE)
        client.connect(path)


def raw():
    socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP).close()


def bind(port):
    server = socket.create_server(("0.0.0.0", int(port)))
    # Kept open, so that whoever can may come.
    kept.append(server)


def resolve(name):
    return socket.getaddrinfo(name, 80)[0][4][0]


def eat(mib):
    held = bytearray(int(mib) << 20)
    held[::4096] = b"x" * len(held[::4096])
    return len(held)


def fork(count):
    children = []
    try:
        for _ in range(int(count)):
            children.append(subprocess.Popen(["sleep", "30"]))
    finally:
        for child in children:
            child.kill()
            child.wait()
    return len(children)


def run(command):
    done = subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True, timeout=30, check=False)
    return {"status": done.returncode, "output": (done.stdout + done.stderr)[:65536]}


def loud(command):
    return subprocess.run(["/bin/sh", "-c", command], timeout=30, check=False).returncode


TRIES = {
    "read": read,
    "write": write,
    "list": lambda path: sorted(os.listdir(path)),
    "connect": connect,
    "unix": unix,
    "raw": raw,
    "bind": bind,
    "resolve": resolve,
    "eat": eat,
    "fork": fork,
    "run": run,
    "loud": loud,
}
kept = []


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        url = urlsplit(self.path)
        attempt = TRIES.get(url.path.strip("/"))
        arguments = {name: values[0] for name, values in parse_qs(url.query).items()}
        try:
            answer = {"came": attempt(**arguments)} if attempt else {}
        except Exception as error:
            answer = {"failed": f"{type(error).__name__}: {error}"}
        body = json.dumps(answer).encode() + b"\n"
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


print("tries what it is asked to", flush=True)
print("a line on standard error", file=sys.stderr, flush=True)
ThreadingHTTPServer((os.environ.get("HOST", "127.0.0.1"), int(os.environ.get("PORT", "8080"))), Handler).serve_forever()
