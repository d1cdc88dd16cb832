"""The sample app in Python: standard library only. tests/apps/README.md says what it answers."""

import base64
import hashlib
import json
import os
import pathlib
import signal
import socketserver
import struct
import subprocess
import sys
import threading
import time
import traceback
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

HERE = pathlib.Path(__file__).resolve().parent
DEFAULT_SECONDS = {"slow-start": 5, "dies": 60, "bad-later": 10}
# What a test may send or ask for; a mistyped number must not fill the machine.
BODY_LIMIT = 64 << 20
BYTES_LIMIT = 1 << 30
# Longer than any /slow a test asks for; after it the app leaves whatever is open.
DRAIN_SECONDS = 60
WEBSOCKET_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, section 1.3


def read(name, default):
    try:
        return (HERE / name).read_text().strip()
    except FileNotFoundError:
        return default


VARIANT, _, _seconds = read("variant", "healthy").partition(":")
SECONDS = float(_seconds) if _seconds else DEFAULT_SECONDS.get(VARIANT, 0)
VERSION = read("version", "unknown")
RELEASE = os.environ.get("TEMPS_RELEASE") or "unknown"

started = time.monotonic()
draining = threading.Event()
server = None
in_flight = 0
quiet = threading.Condition()
websockets = {}


class BodyTooLarge(Exception):
    pass


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # head and body leave in one write

    def handle_one_request(self):
        self.counted = False
        try:
            super().handle_one_request()
        finally:
            if self.counted:
                self.leave()

    def parse_request(self):
        global in_flight
        with quiet:
            in_flight += 1
        self.counted = True
        return super().parse_request()

    def leave(self):
        global in_flight
        self.counted = False
        with quiet:
            in_flight -= 1
            quiet.notify_all()

    def do_GET(self):
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        try:
            body = self.body()
        except BodyTooLarge:
            self.close_connection = True
            return self.answer_json(413, {"error": "body too large"})
        if VARIANT == "error" or (VARIANT == "bad-later" and time.monotonic() - started >= SECONDS):
            return self.answer_json(500, {"error": f"this release is made to fail ({VARIANT})", **self.facts(url)})
        try:
            self.route(url, query, body)
        except (ValueError, KeyError) as error:
            self.answer_json(400, {"error": f"bad query: {error!r}"})

    do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do_GET

    def route(self, url, query, body):
        if url.path == "/slow":
            time.sleep(float(query.get("s", "1")))
        elif url.path == "/bytes":
            return self.bytes(min(int(query.get("n", "1024")), BYTES_LIMIT))
        elif url.path == "/echo":
            return self.answer(200, self.headers.get("Content-Type", "application/octet-stream"), body)
        elif url.path == "/env":
            value = os.environ.get(query["name"])
            return self.answer_json(404 if value is None else 200, {"name": query["name"], "value": value})
        elif url.path == "/log":
            print(query["line"], flush=True)
        elif url.path == "/sse":
            return self.events(float(query.get("s", "60")))
        elif url.path == "/ws":
            return self.websocket()
        self.answer_json(200, self.facts(url))

    def facts(self, url):
        return {"release": RELEASE, "version": VERSION, "pid": os.getpid(), "path": url.path}

    def body(self):
        """The request's body, by length or chunked."""
        if "chunked" not in self.headers.get("Transfer-Encoding", "").lower():
            length = int(self.headers.get("Content-Length", "0"))
            if length > BODY_LIMIT:
                raise BodyTooLarge
            return self.rfile.read(length)
        parts, total = [], 0
        while True:
            size = int(self.rfile.readline(1024).split(b";")[0], 16)
            total += size
            if total > BODY_LIMIT:
                raise BodyTooLarge
            if size == 0:
                while self.rfile.readline(65536).strip():
                    pass
                return b"".join(parts)
            parts.append(self.rfile.read(size))
            self.rfile.readline(8)

    def head(self, status, headers):
        self.send_response(status)
        self.send_header("X-Release", RELEASE)
        self.send_header("X-Version", VERSION)
        for name, value in headers:
            self.send_header(name, value)
        if draining.is_set() and status != 101:
            self.send_header("Connection", "close")
        self.end_headers()

    def answer(self, status, kind, body):
        self.head(status, [("Content-Type", kind), ("Content-Length", str(len(body)))])
        if self.command != "HEAD":
            self.wfile.write(body)

    def answer_json(self, status, value):
        self.answer(status, "application/json", json.dumps(value).encode() + b"\n")

    def bytes(self, left):
        self.head(200, [("Content-Type", "application/octet-stream"), ("Content-Length", str(left))])
        block = bytes(range(256)) * 256
        while left > 0 and self.command != "HEAD":
            self.wfile.write(block[:left])
            left -= min(left, len(block))

    def events(self, seconds):
        """An event each 200 ms; a stop of the app ends the stream properly."""
        headers = [("Content-Type", "text/event-stream"), ("Cache-Control", "no-store")]
        self.head(200, [*headers, ("Transfer-Encoding", "chunked")])
        end = time.monotonic() + min(seconds, 60)
        number = 0
        while self.command != "HEAD":
            event = f"id: {number}\ndata: {json.dumps({'n': number, 'release': RELEASE})}\n\n".encode()
            self.wfile.write(b"%x\r\n%s\r\n" % (len(event), event))
            self.wfile.flush()
            number += 1
            if draining.wait(0.2) or time.monotonic() >= end:
                self.wfile.write(b"0\r\n\r\n")
                return

    def websocket(self):
        """Echoes text and binary frames as they come, until either side closes."""
        key = self.headers.get("Sec-WebSocket-Key")
        if key is None or "websocket" not in self.headers.get("Upgrade", "").lower():
            return self.answer_json(426, {"error": "this path speaks WebSocket"})
        accept = base64.b64encode(hashlib.sha1(key.encode() + WEBSOCKET_GUID).digest()).decode()
        self.close_connection = True
        self.head(101, [("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Accept", accept)])
        self.wfile.flush()
        lock = threading.Lock()
        websockets[self] = lock
        # Not a request in flight any more: a stop closes it with 1001 instead of waiting.
        self.leave()
        try:
            while self.websocket_frame(lock):
                pass
        finally:
            websockets.pop(self, None)

    def websocket_frame(self, lock):
        head = self.rfile.read(2)
        if len(head) < 2:
            return False
        first, length = head[0], head[1] & 0x7F
        if length == 126:
            length = struct.unpack("!H", self.rfile.read(2))[0]
        elif length == 127:
            length = struct.unpack("!Q", self.rfile.read(8))[0]
        if not head[1] & 0x80 or length > 1 << 20:
            self.send_frame(lock, 0x88, struct.pack("!H", 1002))
            return False
        mask = self.rfile.read(4)
        data = bytes(byte ^ mask[i % 4] for i, byte in enumerate(self.rfile.read(length)))
        opcode = first & 0x0F
        if opcode == 0x9:
            self.send_frame(lock, 0x8A, data)
        elif opcode != 0xA:
            self.send_frame(lock, first, data)
        return opcode != 0x8

    def send_frame(self, lock, first, data):
        if len(data) < 126:
            head = struct.pack("!BB", first, len(data))
        elif len(data) < 1 << 16:
            head = struct.pack("!BBH", first, 126, len(data))
        else:
            head = struct.pack("!BBQ", first, 127, len(data))
        with lock:
            self.connection.sendall(head + data)

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    request_queue_size = 1024
    daemon_threads = True

    def server_bind(self):
        # Not HTTPServer's: that one asks DNS for its own name.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]

    def handle_error(self, request, client_address):
        # A client that went away, or that sent half a request, is no news.
        if not isinstance(sys.exc_info()[1], (OSError, ValueError, struct.error)):
            super().handle_error(request, client_address)


def leave_after(seconds):
    time.sleep(seconds)
    print(f"fatal: this release dies {seconds:g} s after its start", file=sys.stderr, flush=True)
    os._exit(1)


def stop():
    draining.set()
    if server is not None:
        # Never waited for: only requests hold the stop up.
        threading.Thread(target=lambda: (server.shutdown(), server.server_close()), daemon=True).start()
    with quiet:
        quiet.wait_for(lambda: in_flight == 0, timeout=DRAIN_SECONDS)
    for handler, lock in list(websockets.items()):
        try:
            handler.connection.settimeout(1)
            handler.send_frame(lock, 0x88, struct.pack("!H", 1001))
        except OSError:
            pass
    sys.stdout.flush()
    os._exit(0)


def serve():
    global server
    if VARIANT == "crash":
        time.sleep(SECONDS)
        raise RuntimeError("cannot reach the database: this release is made to crash")
    if VARIANT == "slow-start":
        time.sleep(SECONDS)
    host, port = os.environ.get("HOST") or "127.0.0.1", int(os.environ.get("PORT") or 8080)
    server = Server((host, 0 if VARIANT == "wrong-port" else port), Handler)
    print(f"python {VERSION} ({VARIANT}) listens on {host}:{server.server_port}", flush=True)
    if VARIANT == "dies":
        threading.Thread(target=leave_after, args=(SECONDS,), daemon=True).start()
    server.serve_forever(0.05)


def serve_or_leave():
    try:
        serve()
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(3)


def main():
    if VARIANT == "fork":
        # One child in our process group, and one that escapes it; neither is ended by us.
        sleeper = [sys.executable, "-c", "import time; time.sleep(3600)"]
        subprocess.Popen(sleeper)
        subprocess.Popen(sleeper, start_new_session=True)
    # Blocked in every thread and waited for in this one: a handler could run just before the call
    # that waits, and the signal be lost.
    stops = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, stops)
    threading.Thread(target=serve_or_leave, daemon=True).start()
    signal.sigwait(stops)
    stop()


if __name__ == "__main__":
    main()
