"""The two names on the system bus: activation, who may what, the log level, and a bus that goes."""

import random
import threading
import time

from installed import file, main_pid, run, say, show, state, temps, temps_json, wait_for_state

DEPLOYD = "temps-deployd.service"
NAMES = {DEPLOYD: "sh.temps.Deploy1", "temps-proxy.service": "sh.temps.Proxy1"}
ROOT = ("sh.temps.Deploy1", "/sh/temps/Deploy1", "sh.temps.Deploy1")
PROXY = ("sh.temps.Proxy1", "/sh/temps/Proxy1", "sh.temps.Proxy1")
CALLERS = 2
CALLS = 50


def _get(where: tuple[str, str, str], name: str, user: str | None = None) -> str:
    return run("busctl", "get-property", *where, name, user=user).strip()


def each_unit_owns_its_name():
    _get(ROOT, "Version")
    for unit, name in NAMES.items():
        owner = run("busctl", "call", "org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus",
                    "GetConnectionUnixProcessID", "s", name)
        assert owner.split() == ["u", str(main_pid(unit))], owner
        assert show(unit, "BusName") == name


def a_call_by_the_bus_starts_deployd():
    wait_for_state(DEPLOYD, "inactive")
    assert _get(ROOT, "BaseDomain").startswith("s ")
    assert main_pid(DEPLOYD) != 0


def what_is_shown_is_what_the_command_shows():
    assert _get(PROXY, "Generation").startswith("t ")
    assert _get(ROOT, "Apps") == f"u {len(temps_json('app', 'list'))}"
    tree = run("busctl", "tree", "--list", ROOT[0])
    assert "/sh/temps/Deploy1" in tree.splitlines(), tree
    said = run("busctl", "introspect", *ROOT[:2])
    assert ".Rollback" in said and ".ReleaseServed" in said, said


def everybody_may_look_and_nobody_may_change():
    assert _get(ROOT, "Apps", user="daemon").startswith("u ")
    assert _get(PROXY, "Requests", user="daemon").startswith("t ")
    for where, call in ((ROOT, ["Reconcile"]), (ROOT, ["DestroyApp", "s", "docs"]), (PROXY, ["Reload"])):
        said = run("busctl", "call", *where, *call, user="daemon", fails=True)
        assert "may not do this" in said and "polkit" in said, said


def root_may_change():
    run("busctl", "call", *PROXY, "Reload")
    assert "/sh/temps/Deploy1/job/" in run("busctl", "call", *ROOT, "Reconcile")


def the_log_level_can_be_changed():
    for unit in NAMES:
        _get(ROOT, "Version")
        assert run("systemctl", "service-log-level", unit).strip() == "info"
        run("systemctl", "service-log-level", unit, "debug")
        assert run("systemctl", "service-log-level", unit).strip() == "debug"
        assert run("systemctl", "service-log-target", unit).strip() == "journal"
        run("systemctl", "service-log-level", unit, "info")


def no_call_by_the_bus_is_lost_while_deployd_comes_and_goes():
    often = "[Unit]\nStartLimitIntervalSec=0\n"
    idle = 'idle = "150ms"\n'
    failures: list[str] = []
    pids: set[str] = set()

    def call():
        for _ in range(CALLS):
            # Around the idle time, so that many calls meet its end.
            time.sleep(random.uniform(0.1, 0.4))
            try:
                pids.add(_get(ROOT, "StartedAt"))
            except AssertionError as failure:
                failures.append(str(failure))

    with (
        file("/run/systemd/system/temps-deployd.service.d/often.conf", often),
        file("/etc/temps/deployd.toml.d/60-short.toml", idle),
    ):
        run("systemctl", "daemon-reload")
        run("systemctl", "restart", DEPLOYD)
        callers = [threading.Thread(target=call) for _ in range(CALLERS)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
    run("systemctl", "daemon-reload")
    run("systemctl", "restart", DEPLOYD)
    say(f"{CALLERS * CALLS} calls, {len(pids)} processes, {len(failures)} failed")
    assert not failures, failures[0]
    assert len(pids) >= 5, "it did not come and go"


def without_a_bus_everything_else_works():
    run("systemctl", "stop", "dbus.socket", "dbus.service")
    try:
        run("systemctl", "restart", DEPLOYD, "temps-proxy.service")
        assert state(DEPLOYD) == state("temps-proxy.service") == "active"
        temps("status")
    finally:
        run("systemctl", "start", "dbus.socket", "dbus.service")
    deadline = time.monotonic() + 70
    while time.monotonic() < deadline:
        if PROXY[0] in run("busctl", "list", "--acquired", "--no-legend"):
            return
        time.sleep(0.5)
    raise AssertionError("the proxy did not come back to the bus")
