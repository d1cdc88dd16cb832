"""Every unit is what it should be after an ordinary boot."""

from pathlib import Path

from installed import file, main_pid, run, say, show, state, wait, wait_for_state

SOCKETS = [
    "temps-proxy-http.socket",
    "temps-proxy-https.socket",
    "temps-proxy-control.socket",
    "temps-proxy-handover.socket",
    "temps-deployd.socket",
    "temps-deployd-upload.socket",
]
# In tenths, as systemd-analyze takes it: what tests/run.d/units.py holds them to without a boot.
EXPOSURE = {"temps-proxy": 16, "temps-proxy-handover": 16, "temps-deployd": 15, "temps-reconcile": 5}


def every_unit_reaches_its_state():
    for unit in [*SOCKETS, "temps.target", "temps-proxy.service", "temps-reconcile.timer"]:
        wait(f"{unit} is active", lambda unit=unit: state(unit) == "active")
    failed = run("systemctl", "list-units", "--failed", "--plain", "--no-legend", "temps*")
    assert not failed.strip(), failed
    say(run("systemctl", "--version").splitlines()[0])


def the_boot_has_reconciled():
    wait("it ran", lambda: show("temps-reconcile.service", "ExecMainExitTimestampMonotonic") != "0")
    assert show("temps-reconcile.service", "Result") == "success"


def this_systemd_has_nothing_to_say_against_the_units():
    units = sorted(str(path) for path in Path("/usr/lib/systemd/system").glob("temps*") if path.is_file())
    said = run("systemd-analyze", "verify", "--man=no", "--recursive-errors=no", *units)
    assert not said.strip(), said


def units_expose_no_more_than_they_may():
    for unit, threshold in EXPOSURE.items():
        said = run("systemd-analyze", "security", "--no-pager", f"--threshold={threshold}", f"{unit}.service")
        say(said.strip().splitlines()[-1].removeprefix("→ "))


def the_proxy_is_a_user_without_rights():
    status = _status(main_pid("temps-proxy.service"))
    uid = run("id", "-u", "temps-proxy").strip()
    assert status["Uid"].split() == [uid] * 4, status["Uid"]
    assert [int(status[name], 16) for name in ("CapEff", "CapPrm", "CapBnd", "CapAmb")] == [0] * 4
    assert status["NoNewPrivs"] == "1" and status["Seccomp"] == "2"


def deployd_is_root_without_rights_and_without_a_network():
    run("temps", "app", "list")
    pid = main_pid("temps-deployd.service")
    status = _status(pid)
    assert status["Uid"].split() == ["0"] * 4
    assert [int(status[name], 16) for name in ("CapEff", "CapPrm", "CapBnd", "CapAmb")] == [0] * 4
    assert status["NoNewPrivs"] == "1" and status["Seccomp"] == "2"
    inside = Path(f"/proc/{pid}/net/dev").read_text().splitlines()[2:]
    assert [line.split(":")[0].strip() for line in inside] == ["lo"], inside
    assert Path(f"/proc/{pid}/ns/net").readlink() != Path("/proc/1/ns/net").readlink()


def daemons_are_in_their_slice_and_say_how_they_are():
    assert show("temps-proxy.service", "ControlGroup") == "/temps.slice/temps-daemons.slice/temps-proxy.service"
    assert "routes" in show("temps-proxy.service", "StatusText")
    assert "apps" in show("temps-deployd.service", "StatusText")


def a_reload_with_a_wrong_configuration_is_seen_in_the_status():
    proxy = "temps-proxy.service"
    with file("/etc/temps/proxy.toml.d/60-wrong.toml", "drain-deadline = \"soon\"\n"):
        run("systemctl", "reload", proxy)
        wait("it is told", lambda: "configuration is wrong" in show(proxy, "StatusText"))
    run("systemctl", "reload", proxy)
    wait("it is over", lambda: "configuration" not in show(proxy, "StatusText"))


def a_stop_that_names_the_services_too_waits_for_them():
    # As temps(7) restores a backup.
    services = [f"temps-{name}.service" for name in ("proxy", "proxy-handover", "deployd", "reconcile")]
    run("systemctl", "stop", "temps.target", *services)
    states = {unit: state(unit) for unit in services}
    run("systemctl", "start", "temps.target")
    assert set(states.values()) == {"inactive"}, states
    every_unit_reaches_its_state()


def a_stop_of_the_target_stops_everything_and_a_start_brings_it_back():
    run("systemctl", "stop", "temps.target")
    services = ["temps-proxy.service", "temps-proxy-handover.service", "temps-deployd.service"]
    for unit in [*SOCKETS, *services, "temps-reconcile.timer"]:
        # `stop` waits for the target alone.
        wait_for_state(unit, "inactive")
    run("systemctl", "start", "temps.target")
    every_unit_reaches_its_state()


def _status(pid: int) -> dict[str, str]:
    lines = (line.partition(":") for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {name: value.strip() for name, _, value in lines}
