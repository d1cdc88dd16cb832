"""The main job on the systemd runtime: sample apps are updated under its load, and each daemon is killed
meanwhile.

What may fail: nothing, unless it is the proxy that is killed. Then the requests that it had in hand end
with it, at most one for each connection that was open at that moment; every later one is answered.
"""

import json
import os
import select
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from clients import KEPT, NEW, Clients
from installed import Skipped, get, main_pid, say, show, temps, temps_json
from samples import COMPILED, app_units, make

DEPLOYD, PROXY = "temps-deployd.service", "temps-proxy.service"
UPDATES = 20
# Starting a JVM or a compiler 20 times would say nothing more.
FEW = 5
# Seconds between two kills: no multiple of how long an update takes, and more starts than the unit's
# limit (10 in 30 s) would give the daemon up.
BETWEEN = 3.3


def updates_of_a_python_app_lose_no_request():
    _updated("python", UPDATES)


def updates_of_a_node_app_lose_no_request():
    _updated("node", UPDATES)


def java_is_compiled_and_run_in_the_sandbox_and_updates_lose_no_request():
    _updated("java", FEW)


def go_runs_in_the_sandbox_and_updates_lose_no_request():
    if not (COMPILED / "go/server").exists():
        raise Skipped("the host has no compiler of Go to make the app with")
    _updated("go", FEW)


def updates_while_deployd_is_killed_lose_no_request():
    with _deployed("python") as app, Clients(_host(app)) as clients, _killed(DEPLOYD) as kills:
        replaced = _update(app, "python", UPDATES)
    _judge(clients, replaced, f"{len(kills)} times kill -9 of deployd")
    assert len(kills) >= FEW, kills
    assert not clients.failures


def updates_while_the_proxy_is_killed_lose_what_it_had_in_hand_and_no_more():
    with _deployed("node") as app, Clients(_host(app)) as clients, _killed(PROXY) as kills:
        replaced = _update(app, "node", UPDATES)
    bound = len(kills) * (KEPT + NEW)
    _judge(clients, replaced, f"{len(kills)} times kill -9 of the proxy, which may cost {bound} requests")
    assert len(kills) >= FEW, kills
    assert len(clients.failures) <= bound
    for failure in clients.failures:
        assert any(failure.start <= ended and killed <= failure.end for killed, ended in kills), failure


def _updated(sample: str, updates: int) -> None:
    with _deployed(sample) as app:
        with Clients(_host(app)) as clients:
            begun = time.monotonic()
            replaced = _update(app, sample, updates)
            took = (time.monotonic() - begun) / updates
        _judge(clients, replaced, f"{took:.2f} s each")
        assert not clients.failures
        logged = temps("logs", app).splitlines()
        say(next((line.strip() for line in logged if "listens on" in line), "it said nothing"))


@contextmanager
def _deployed(sample: str) -> Iterator[str]:
    """The app, in its sandbox; destroyed afterwards."""
    app = f"job-{sample}"
    _deploy(app, sample, 0)
    (unit,) = [unit for unit in app_units() if show(unit, "Description") == f"Temps: app {app}"]
    status = Path(f"/proc/{main_pid(unit)}/status").read_text()
    # With a filter of system calls, and without privileges.
    assert "Seccomp:\t2" in status and "NoNewPrivs:\t1" in status and "CapEff:\t0000000000000000" in status, status
    try:
        yield app
    finally:
        temps("app", "destroy", app, "--yes")
    # Of the whole row of releases, nothing is left.
    assert not [unit for unit in app_units() if show(unit, "Description") == f"Temps: app {app}"]


def _update(app: str, sample: str, updates: int) -> list[tuple[str, float]]:
    """Each replaced release, with the moment at which `temps deploy` said so."""
    old, replaced = _live(app), []
    for number in range(updates):
        _deploy(app, sample, number + 1)
        replaced.append((old, time.monotonic()))
        old = _live(app)
        # So long each serves alone, for its answers to be seen.
        time.sleep(0.3)
    return replaced


def _deploy(app: str, sample: str, number: int) -> None:
    temps("deploy", app, "--source", str(make(app, f"v{number}", sample=sample)))
    assert json.loads(get(_host(app))[1])["version"] == f"v{number}"


def _live(app: str) -> str:
    return next(one["release"] for one in temps_json("app", "list") if one["app"] == app)


def _judge(clients: Clients, replaced: list[tuple[str, float]], what: str) -> None:
    stale = sum(clients.answers_after(release, moment) for release, moment in replaced)
    unseen = [release for release, _ in replaced if release not in clients.starts]
    say(f"{len(replaced)} updates, {what}; {clients.told()}; {stale} answers of an old release after its end")
    assert stale == 0 and not unseen, unseen
    # The load was what it should be.
    assert clients.sent > 200 * clients.took, clients.told()


@contextmanager
def _killed(unit: str) -> Iterator[list[tuple[float, float]]]:
    """Kills the daemon again and again, somewhere else in a deployment each time; yields from when to
    when each one died."""
    kills: list[tuple[float, float]] = []
    stop = threading.Event()

    def killer() -> None:
        while not stop.wait(BETWEEN):
            if pid := main_pid(unit):
                handle = os.pidfd_open(pid)
                killed = time.monotonic()
                signal.pidfd_send_signal(handle, signal.SIGKILL)
                # Its sockets are closed when it has ended.
                select.select([handle], [], [], 10)
                os.close(handle)
                kills.append((killed, time.monotonic()))

    killing = threading.Thread(target=killer)
    killing.start()
    try:
        yield kills
    finally:
        stop.set()
        killing.join()
        temps("status")


def _host(app: str) -> str:
    return f"{app}.localhost"
