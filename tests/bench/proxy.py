#!/usr/bin/env python3
"""CPU time per request of temps-proxy against nginx, in the same run.

Both proxy the same origin over keep-alive connections. Rounds alternate between the two, and the
figure is the processor time (user and system, from /proc/PID/stat) that the proxy's processes spent
divided by the requests answered: it hardly depends on what else the machine does, which requests per
second do. Printed as microseconds per request and as a ratio; nothing is asserted about speed.

Needs: wrk and nginx (Debian packages), a release build of `temps` (TEMPS_BIN, or it is built).
usage: proxy.py [--rounds N] [--seconds N] [--connections N]
"""

import argparse
import json
import os
import pathlib
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
TICK = os.sysconf("SC_CLK_TCK")
# Beside the origin and the load generator a proxy needs a processor of its own, or they are measured
# against each other.
PROXY_CPU, LOAD_CPU = ("0", "1") if (os.cpu_count() or 1) > 1 else (None, None)

ORIGIN = """
daemon off; worker_processes 1; pid origin.pid; error_log stderr error;
events {{ worker_connections 4096; }}
http {{
    access_log off; keepalive_requests 1000000000;
    client_body_temp_path tmp; proxy_temp_path tmp; fastcgi_temp_path tmp; uwsgi_temp_path tmp; scgi_temp_path tmp;
    server {{ listen 127.0.0.1:{port}; location / {{ return 200 "{body}"; }} }}
}}
"""

NGINX = """
daemon off; worker_processes 1; pid proxy.pid; error_log stderr error;
events {{ worker_connections 4096; }}
http {{
    access_log off; keepalive_requests 1000000000;
    client_body_temp_path tmp; proxy_temp_path tmp; fastcgi_temp_path tmp; uwsgi_temp_path tmp; scgi_temp_path tmp;
    upstream origin {{ server 127.0.0.1:{origin}; keepalive 128; keepalive_requests 1000000000; }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://origin; proxy_http_version 1.1; proxy_set_header Connection "";
            proxy_set_header Host $host; proxy_set_header X-Forwarded-For $remote_addr;
            proxy_set_header X-Forwarded-Proto $scheme; proxy_set_header X-Request-Id $request_id;
        }}
    }}
}}
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def pinned(cpu):
    return ["taskset", "-c", cpu] if cpu and shutil.which("taskset") else []


def tree(pid):
    """The process and its children."""
    found = [pid]
    for child in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        found += tree(int(child))
    return found


def cpu_seconds(pids):
    total = 0
    for pid in pids:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICK


def listening(port):
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    sys.exit(f"nothing listens on port {port}")


def nginx(directory, name, text, cpu):
    place = directory / name
    (place / "tmp").mkdir(parents=True)
    (place / "nginx.conf").write_text(text)
    command = [*pinned(cpu), "nginx", "-p", str(place), "-c", str(place / "nginx.conf")]
    return subprocess.Popen(command, stderr=subprocess.DEVNULL)


def temps_proxy(directory, program, origin):
    """`temps up` with an app that stands before the origin: its process relays nothing, it *is* the origin."""
    runtime, state, source = (directory / name for name in ("r", "s", "source"))
    source.mkdir()
    (source / "tmp").mkdir()
    (source / "nginx.conf.in").write_text(ORIGIN.format(port="PORT", body=origin))
    (source / "Procfile").write_text(
        'web: sed "s/127.0.0.1:PORT/127.0.0.1:$PORT/" nginx.conf.in > nginx.conf && mkdir -p tmp && '
        + " ".join(pinned(LOAD_CPU))
        + ' nginx -p "$PWD" -c "$PWD/nginx.conf"\n'
    )
    environment = {**os.environ, "TEMPS_RUNTIME_DIR": str(runtime), "TEMPS_LOG": "warn"}
    (state / "config").mkdir(parents=True, mode=0o700)
    os.chmod(state, 0o700)
    (state / "config" / "proxy.toml").write_text("threads = 1\n")
    up = subprocess.Popen(
        [program, "up", "--state", state, "--http", "127.0.0.1:0", "--https", "127.0.0.1:0"],
        env=environment, stdout=subprocess.PIPE, stderr=(directory / "up.log").open("w"), text=True,
    )
    ready = up.stdout.readline()
    match = re.search(r"http=http://127\.0\.0\.1:(\d+)", ready)
    if not match:
        sys.exit(f"temps up did not start: {(directory / 'up.log').read_text()}")
    done = subprocess.run(
        [program, "deploy", "bench", "--source", source, "--watch", "1s", "--json"],
        env=environment, capture_output=True, text=True,
    )
    if done.returncode != 0:
        sys.exit(f"the origin was refused: {done.stdout}{done.stderr}")
    proxies = [
        int(path.name) for path in pathlib.Path("/proc").iterdir()
        if path.name.isdigit() and is_our_proxy(path, up.pid)
    ]
    if PROXY_CPU:
        subprocess.run(["taskset", "-apc", PROXY_CPU, str(proxies[0])], check=True, stdout=subprocess.DEVNULL)
    return up, int(match[1]), proxies[0], "bench.localhost"


def is_our_proxy(path, parent):
    try:
        return (
            b"temps-proxy" in (path / "cmdline").read_bytes().split(b"\0")[0]
            and int((path / "stat").read_text().rsplit(")", 1)[1].split()[1]) == parent
        )
    except OSError:
        return False


def load(port, host, options):
    """Requests answered, and those that failed."""
    command = [
        *pinned(LOAD_CPU), "wrk", "-t1", f"-c{options.connections}", f"-d{options.seconds}s",
        "-H", f"Host: {host}", f"http://127.0.0.1:{port}/",
    ]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    answered = int(re.search(r"(\d+) requests in", text)[1])
    failed = sum(map(int, re.findall(r"(?:connect|read|write|timeout) (\d+)", text)))
    wrong = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    return answered, failed + (int(wrong[1]) if wrong else 0)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--connections", type=int, default=32)
    options = parser.parse_args()
    program = os.environ.get("TEMPS_BIN")
    if not program:
        subprocess.run(["cargo", "build", "--release", "-p", "temps"], cwd=ROOT, check=True)
        target = os.environ.get("CARGO_TARGET_DIR", ROOT / "target")
        program = str(pathlib.Path(target) / "release" / "temps")
    directory = pathlib.Path(tempfile.mkdtemp(prefix="tb-"))
    body = "x" * 1024
    children = []
    try:
        origin_port, nginx_port = free_port(), free_port()
        children.append(nginx(directory, "origin", ORIGIN.format(port=origin_port, body=body), LOAD_CPU))
        children.append(nginx(directory, "nginx", NGINX.format(origin=origin_port, port=nginx_port), PROXY_CPU))
        listening(origin_port)
        listening(nginx_port)
        up, port, proxy, host = temps_proxy(directory, program, body)
        children.append(up)
        sides = {
            "temps-proxy": (port, host, lambda: [proxy]),
            "nginx": (nginx_port, "bench.localhost", lambda: tree(children[1].pid)),
        }
        figures = {name: [] for name in sides}
        for number in range(options.rounds):
            for name, (at, asked, pids) in sides.items():
                before = cpu_seconds(pids())
                answered, failed = load(at, asked, options)
                spent = cpu_seconds(pids()) - before
                if failed or not answered:
                    sys.exit(f"{name}: {failed} of {answered} requests failed")
                figures[name].append(spent / answered * 1e6)
                print(f"round {number + 1}: {name}: {figures[name][-1]:.1f} us of CPU per request ({answered} requests)", flush=True)
        medians = {name: statistics.median(values) for name, values in figures.items()}
        ratios = [ours / theirs for ours, theirs in zip(figures["temps-proxy"], figures["nginx"])]
        print(json.dumps({
            "cpu_us_per_request": {name: round(value, 1) for name, value in medians.items()},
            "ratio_temps_to_nginx": round(statistics.median(ratios), 2),
            "ratio_range": [round(min(ratios), 2), round(max(ratios), 2)],
            "rounds": options.rounds,
        }))
    finally:
        for child in reversed(children):
            child.terminate()
        for child in children:
            child.wait(timeout=60)
        shutil.rmtree(directory, ignore_errors=True)


main()
