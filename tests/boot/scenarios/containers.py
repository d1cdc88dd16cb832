"""An app in a container, run by the sandboxed deployd on the host's engine."""

import re
import signal
import threading
from pathlib import Path

from installed import get, kill, main_pid, say, show, temps, temps_json
from load import Load

APP = "boot-web"
HOST = f"{APP}.localhost"
UPDATES = 20
# Made by the host, which has a compiler.
SOURCE = Path("/srv/out/container")


def the_engine_is_found_through_the_sandbox():
    docker = {check["name"]: check for check in temps_json("doctor")}["docker"]
    assert docker["level"].lower() == "ok", docker
    say(docker["what"])


def a_dockerfile_is_built_and_its_container_served():
    _deploy("v1")
    status, body = get(HOST, port=_port())
    assert status == 200 and '"version": "v1"' in body, (status, body)


def updates_and_killed_daemons_lose_no_request_but_those_in_flight():
    killed = []
    stop = threading.Event()

    def killer():
        # Turn by turn, and not twice while one is still starting.
        for unit in ["temps-deployd.service", "temps-proxy.service"] * UPDATES:
            if stop.wait(3):
                return
            if pid := main_pid(unit):
                kill(pid, signal.SIGKILL)
                killed.append(unit)

    with Load(HOST, port=_port(), threads=2, pause=0.01) as load:
        killing = threading.Thread(target=killer)
        killing.start()
        try:
            for number in range(UPDATES):
                _deploy(f"v{number + 2}")
        finally:
            stop.set()
            killing.join()
    proxies = killed.count("temps-proxy.service")
    say(f"{UPDATES} updates, {len(killed)} kills ({proxies} of the proxy), {load.sent} requests, {load.told()}")
    assert killed and load.sent > 100
    # A killed proxy cuts what it was answering: at most one for each thread.
    assert len(load.failures) <= proxies * load.threads, load.told()
    assert f'"version": "v{UPDATES + 1}"' in get(HOST, port=_port())[1]


def its_lines_are_in_the_log():
    assert f"v{UPDATES + 1}" in temps("logs", APP)


def it_is_removed_with_all_it_had():
    temps("app", "destroy", APP, "--yes")
    assert get(HOST, port=_port())[0] == 404
    assert APP not in temps("app", "list")


def _deploy(version: str) -> None:
    (SOURCE / "version").write_text(version + "\n")
    temps("deploy", APP, "--source", str(SOURCE))


def _port() -> int:
    found = re.search(r":(\d+) ", show("temps-proxy-http.socket", "Listen"))
    assert found
    return int(found.group(1))
