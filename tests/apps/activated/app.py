"""The sample app that a request starts: it takes its socket as descriptor 3 and ends when it is idle."""

import json
import os
import pathlib
import signal
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler
from socketserver import TCPServer, ThreadingMixIn

HERE = pathlib.Path(__file__).resolve().parent
# The first descriptor that is handed over (sd_listen_fds(3)).
FIRST = 3
IDLE_SECONDS = 3
# How often the end is thought of.
LOOK_SECONDS = 0.2

started = time.time()
in_flight = 0
last = time.monotonic()
quiet = threading.Condition()


def read(name, default):
    try:
        return (HERE / name).read_text().strip()
    except FileNotFoundError:
        return default


VARIANT = read("variant", "healthy")
VERSION = read("version", "unknown")


class Handler(BaseHTTPRequestHandler):
    # HTTP/1.0: a connection for each request, so that none is idle when it ends.

    def do_GET(self):
        if self.path == "/crash":
            os._exit(3)
        if self.path.startswith("/slow"):
            time.sleep(1)
        facts = {
            "version": VERSION,
            "pid": os.getpid(),
            "started": started,
            "names": os.environ.get("LISTEN_FDNAMES"),
            "at": "%s:%d" % self.server.socket.getsockname()[:2],
        }
        body = json.dumps(facts).encode() + b"\n"
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(ThreadingMixIn, TCPServer):
    timeout = LOOK_SECONDS
    daemon_threads = True

    def process_request(self, request, client_address):
        global in_flight
        with quiet:
            in_flight += 1
        super().process_request(request, client_address)

    def process_request_thread(self, request, client_address):
        global in_flight, last
        try:
            super().process_request_thread(request, client_address)
        finally:
            with quiet:
                in_flight -= 1
                last = time.monotonic()
                quiet.notify_all()

    def handle_error(self, request, client_address):
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


def main():
    if VARIANT == "crash":
        sys.exit("cannot reach the database: this release is made to crash")
    if os.environ.get("LISTEN_PID") != str(os.getpid()) or os.environ.get("LISTEN_FDS") != "1":
        sys.exit("no socket was handed over")
    if VARIANT == "deaf":
        signal.pause()
    stopping = []
    signal.signal(signal.SIGTERM, lambda *_: stopping.append(True))
    server = Server(("", 0), Handler, bind_and_activate=False)
    server.socket.close()
    server.socket = socket.socket(fileno=FIRST)
    print(f"started, {VERSION}", flush=True)
    while not stopping:
        server.handle_request()
        # Only this thread accepts: what comes from here on waits in the socket for the next start.
        with quiet:
            if in_flight == 0 and time.monotonic() - last > IDLE_SECONDS:
                print("idle: ending until the next request", flush=True)
                return
    with quiet:
        quiet.wait_for(lambda: in_flight == 0, timeout=30)


if __name__ == "__main__":
    main()
