"""Apps on the systemd runtime that requests start: their socket is there before them and after them."""

import json
import signal
import time
from pathlib import Path

from installed import get, kill, main_pid, run, say, show, temps, temps_json, wait
from load import Load
from samples import app_units, make

APP = "lazy"
HOST = f"{APP}.localhost"
WATCH = "1s"
# The proxy checks others so often.
CHECKS = 5.0


def it_takes_the_socket_that_the_manager_has_opened_in_its_network():
    say(run("systemctl", "--version").splitlines()[0])
    _deploy("one", "--socket-activated")
    facts = _facts()
    assert facts["version"] == "one" and facts["names"] == "web" and facts["at"] == "0.0.0.0:8080", facts
    assert [show(unit, "ActiveState") for unit in (_socket(), _service())] == ["active", "active"]
    assert ":8080" not in run("ss", "-tlnH"), "it is open in the host's network"


def it_is_shown_with_the_app_and_with_its_release():
    assert temps_json("app", "show", APP)["socket_activated"] is True
    assert temps_json("release", "list", APP)[0]["socket_activated"] is True
    assert "socket-activated" in temps("app", "show", APP)


def left_alone_it_ends_and_is_not_woken_by_checks():
    wait("it is confirmed", lambda: temps_json("app", "show", APP)["deployment"] is None)
    _rests()
    end = time.monotonic() + 2.5 * CHECKS
    while time.monotonic() < end:
        assert main_pid(_service()) == 0, "something has started it"
        time.sleep(0.2)
    assert (show(_service(), "Result"), show(_socket(), "SubState")) == ("success", "listening")


def at_rest_it_is_said_to_rest_and_nothing_is_done_about_it():
    units = _units()
    assert temps_json("app", "show", APP)["state"] == "resting"
    run("systemctl", "start", "temps-reconcile.service")
    found = run("sh", "-c", "temps doctor || true")
    assert APP not in found, found
    assert _units() == units and main_pid(_service()) == 0
    assert temps_json("app", "show", APP)["restarts"] == 0


def the_next_request_starts_it_and_is_answered():
    run("systemctl", "daemon-reload")
    begun = time.monotonic()
    assert _facts()["version"] == "one"
    say(f"the request that starts it: {time.monotonic() - begun:.2f} s")
    assert main_pid(_service()) != 0
    assert temps_json("app", "show", APP)["state"] == "live"


def deployments_under_load_drop_nothing():
    with Load(HOST, threads=2) as load:
        for number in range(3):
            _deploy(f"update {number}")
    _told(load)
    assert load.sent > 50 and not load.failures, load.told()
    assert _facts()["version"] == "update 2"
    assert len(_units()) == 2, _units()


def a_kill_under_load_loses_no_new_connection():
    wait("it is confirmed", lambda: temps_json("app", "show", APP)["deployment"] is None)
    kills, threads = 5, 2
    with Load(HOST, threads=threads) as load:
        for _ in range(kills):
            time.sleep(0.5)
            wait("it runs", lambda: main_pid(_service()))
            kill(main_pid(_service()), signal.SIGKILL)
    _told(load)
    # What it was answering when it was killed is lost with it; nothing that came later is.
    assert load.sent > 50 and len(load.failures) <= kills * threads, load.told()
    assert temps_json("app", "show", APP)["restarts"] == 0


def one_that_crashes_again_and_again_is_replaced_and_said_why():
    before = _service()
    for _ in range(40):
        if get(HOST, "/crash")[0] == 200 or _service(fails=False) != before:
            break
    wait("another one serves", lambda: _service(fails=False) not in ("", before) and get(HOST)[0] == 200, 60)
    # It is counted once the replacement serves.
    wait("it is told", lambda: temps_json("app", "show", APP)["restarts"] > 0)
    assert temps_json("app", "show", APP)["restarts"] == 1
    wait("one pair is left", lambda: len(_units()) == 2)


def a_release_that_crashes_is_refused_with_what_it_said():
    said = _deploy("broken", variant="crash", fails=True)
    assert "cannot reach the database" in said and "exited with status 1" in said, said
    assert _facts()["version"] == "update 2"


def one_that_never_takes_from_its_socket_is_refused():
    said = _deploy("broken", variant="deaf", fails=True)
    say(next((line.strip() for line in said.splitlines() if "LISTEN_FDS" in line), said))
    assert "LISTEN_FDS" in said, said
    assert _facts()["version"] == "update 2"
    wait("one pair is left", lambda: len(_units()) == 2)


def other_runtimes_refuse_it():
    for more in (("--runtime", "docker"), ("--runtime", "process")):
        said = _deploy("broken", "--socket-activated", *more, fails=True)
        assert "systemd runtime" in said, said


def a_crash_while_it_is_watched_rolls_back_though_it_was_started_again():
    _deploy("watched", watch="60s")
    with Load(HOST, threads=2):
        time.sleep(0.5)
        kill(main_pid(_service()), signal.SIGKILL)
        wait("it is rolled back", lambda: temps_json("release", "list", APP)[0]["status"] == "rolled_back")
    reason = temps_json("release", "list", APP)[0]["reason"]
    assert "signal 9" in reason, reason
    assert _facts()["version"] == "update 2"


def a_rollback_goes_back():
    temps("rollback", APP)
    assert _facts()["version"] == "update 1"
    assert temps_json("app", "show", APP)["socket_activated"] is True


def its_lines_of_every_start_are_in_its_log():
    _rests()
    _facts()
    wait("both starts are in the log", lambda: temps("logs", APP).count("started, update 1") >= 2)
    assert "idle: ending" in temps("logs", APP)


def said_otherwise_it_runs_like_any_other():
    temps("deploy", APP, "--source", str(make(APP, "plain")), "--socket-activated=false", "--watch", WATCH)
    assert _facts()["version"] == "plain"
    assert [unit for unit in _units() if unit.endswith(".socket")] == []


def destroyed_it_leaves_nothing():
    _deploy("last", "--socket-activated")
    _rests()
    instance = temps_json("app", "show", APP)["instances"][0]["instance"]
    temps("app", "destroy", APP, "--yes")
    assert get(HOST)[0] == 404
    left = run("systemctl", "list-units", "--all", "--plain", "--no-legend", f"temps-*{instance}*")
    assert not _units() and not left.strip(), left
    assert not Path(f"/run/netns/temps-{instance}").exists()


def one_stays_for_the_reboot():
    source = str(make("stays-lazy", "before the reboot", sample="activated"))
    temps("deploy", "stays-lazy", "--source", source, "--socket-activated", "--watch", WATCH)
    assert get("stays-lazy.localhost")[0] == 200


def _deploy(version: str, *more: str, variant: str = "healthy", watch: str = WATCH, fails: bool = False) -> str:
    source = make(APP, version, variant, sample="activated")
    return temps("deploy", APP, "--source", str(source), "--watch", watch, "--health-timeout", "5s", *more, fails=fails)


def _facts() -> dict:
    status, body = get(HOST)
    return json.loads(body) if status == 200 else {"version": f"status {status}"}


def _service(fails: bool = True) -> str:
    """The unit of the instance that serves."""
    instances = temps_json("app", "show", APP)["instances"]
    assert instances or not fails
    return f"temps-app-{instances[0]['instance']}.service" if instances else ""


def _units() -> list[str]:
    """The services and sockets of the app."""
    return [unit for unit in app_units() if show(unit, "Description").endswith(f"app {APP}")]


def _socket() -> str:
    return _service().replace(".service", ".socket")


def _rests() -> None:
    wait("it has ended", lambda: main_pid(_service()) == 0 and show(_service(), "ActiveState") == "inactive")


def _told(load: Load) -> None:
    say(f"{load.sent} requests, {len(load.failures)} failed, slowest {load.slowest:.2f} s")
