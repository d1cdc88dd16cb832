"""Apps on the systemd runtime: deployed, updated, refused, rolled back, read, destroyed."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

from installed import get, journal, kill, main_pid, run, say, show, temps, temps_json, wait
from load import Load
from samples import app_units, make

APP = "shop"
HOST = f"{APP}.localhost"
DEPLOYD = "temps-deployd.service"
SECRET = "a-secret-that-nobody-else-may-see"
STATE = Path("/var/lib/temps/deployd")
DATA = Path("/var/lib/private/temps-apps") / APP


def a_procfile_is_run_without_any_container_engine():
    say(run("systemctl", "--version").splitlines()[0])
    _deploy("one")
    assert _version() == "one"
    assert len(app_units()) == 1, app_units()
    assert "systemd" in temps("app", "list")


def its_unit_is_sandboxed_limited_and_has_a_user_of_its_own():
    unit = app_units()[0]
    wanted = {
        "DynamicUser": "yes",
        "NoNewPrivileges": "yes",
        "ProtectSystem": "strict",
        "CapabilityBoundingSet": "",
        "MemoryMax": str(512 << 20),
        "TasksMax": "512",
        "LimitNOFILE": "65536",
        "Slice": "temps-apps.slice",
        "Restart": "no",
    }
    found = {name: show(unit, name) for name in wanted}
    assert found == wanted, found
    uid = os.stat(f"/proc/{main_pid(unit)}").st_uid
    assert 61184 <= uid <= 65519, uid
    say(f"uid {uid}, {show(unit, 'User')}; {run('systemd-analyze', 'security', '--no-pager', unit).splitlines()[-1]}")


def an_update_loses_no_request():
    with Load(HOST, threads=2) as load:
        for number in range(3):
            _deploy(f"update {number}")
    say(f"{load.sent} requests, {len(load.failures)} failed, slowest {load.slowest:.2f} s")
    assert load.sent > 50 and not load.failures, load.told()
    assert _version() == "update 2"


def a_release_that_crashes_is_refused_with_what_it_said():
    said = _deploy("broken", "crash", fails=True)
    assert "cannot reach the database" in said and "exited with status 3" in said, said
    assert _version() == "update 2"


def one_that_answers_500_is_refused():
    said = _deploy("broken", "error", "--health-timeout", "3s", fails=True)
    assert "500" in said, said
    assert _version() == "update 2"


def one_that_listens_elsewhere_is_refused_and_told_where():
    said = _deploy("broken", "wrong-port", "--health-timeout", "3s", fails=True)
    say(next((line for line in said.splitlines() if "listen" in line), said))
    assert "0.0.0.0:" in said, said
    assert _version() == "update 2"
    wait("what was refused is gone", lambda: len(app_units()) == 1)


def a_rollback_goes_back():
    temps("rollback", APP)
    assert _version() == "update 1"


def its_lines_are_in_its_log_and_in_the_journal_under_its_name():
    get(HOST, "/log?line=a-line-of-its-own")
    wait("the line is in the log", lambda: "a-line-of-its-own" in temps("logs", APP))
    entry = next(one for one in journal(f"TEMPS_APP={APP}") if one["MESSAGE"] == "a-line-of-its-own")
    assert entry["SYSLOG_IDENTIFIER"] == APP and entry["TEMPS_RELEASE"].startswith("rel_"), entry
    assert entry["PRIORITY"] == "6", entry
    before = temps("logs", APP).count("a-line-of-its-own")
    assert before == temps("logs", APP).count("a-line-of-its-own") == 1, before


def a_clock_that_was_set_back_hides_no_line():
    get(HOST, "/log?line=before-the-clock")
    wait("the line is in the log", lambda: "before-the-clock" in temps("logs", APP))
    # As if it had been an hour later then.
    logs = [path for path in STATE.glob("logs/*/*.log") if "before-the-clock" in path.read_text()]
    with logs[-1].open("a") as log:
        log.write(f"{round(time.time() + 3600) * 1000} o an-hour-ahead\n")
    get(HOST, "/log?line=after-the-clock")
    wait("the next line, too", lambda: "after-the-clock" in temps("logs", APP))
    said = temps("logs", APP)
    assert said.count("before-the-clock") == said.count("after-the-clock") == 1, said
    # Where it was, is written down for nobody but us.
    assert "i=" not in said, said


def its_variables_reach_it_and_nobody_else():
    temps("env", "set", APP, f"KEY={SECRET}")
    _deploy("with a key")
    assert json.loads(get(HOST, "/env?name=KEY")[1])["value"] == SECRET
    unit, pid = app_units()[0], main_pid(app_units()[0])
    for user in ("bob", None):
        assert SECRET not in run("systemctl", "show", unit, user=user)
    for path in (f"/proc/{pid}/environ", f"/run/credentials/{unit}/app"):
        said = run("cat", path, user="bob", fails=True)
        assert "Permission denied" in said, said
    listed = run("ps", "axwwe", user="bob")
    assert SECRET not in listed
    for name in ("CREDENTIALS_DIRECTORY", "INVOCATION_ID", "JOURNAL_STREAM"):
        assert get(HOST, f"/env?name={name}")[0] == 404, name


def its_data_stays_over_releases():
    place = json.loads(get(HOST, "/env?name=STATE_DIRECTORY")[1])["value"]
    assert json.loads(get(HOST, "/env?name=HOME")[1])["value"] == place
    assert Path(place).resolve() == DATA, place
    (DATA / "kept").write_text("x")
    _deploy("later")
    assert (DATA / "kept").read_text() == "x"


def a_killed_deployd_disturbs_no_app_and_forgets_none():
    before = app_units()
    for _ in range(3):
        kill(main_pid(DEPLOYD), signal.SIGKILL) if main_pid(DEPLOYD) else None
        assert _version() == "later"
        temps("app", "list")
    assert app_units() == before


def killed_while_it_deploys_it_goes_on_and_leaves_nothing():
    with Load(HOST, threads=2) as load:
        for number in range(4):
            line = ["temps", "deploy", APP, "--source", str(make(APP, f"killed {number}"))]
            deploying = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            # Somewhere else in the deployment each time.
            try:
                deploying.wait(0.15 + 0.2 * number)
            except subprocess.TimeoutExpired:
                pass
            if pid := main_pid(DEPLOYD):
                kill(pid, signal.SIGKILL)
            deploying.wait(120)
            wait("nothing is under way", lambda: not _under_way())
    say(f"{load.sent} requests, {len(load.failures)} failed; {_version()}")
    assert not load.failures, load.told()
    wait("one instance is left", lambda: len(app_units()) == 1)
    wait("one namespace is left", lambda: len(_namespaces()) == 1)


def one_that_dies_is_replaced():
    kill(main_pid(app_units()[0]), signal.SIGKILL)
    wait("it serves again", lambda: get(HOST)[0] == 200)


def without_polkit_and_without_a_bus_it_goes_on():
    run("systemctl", "stop", "polkit.service")
    run("systemctl", "mask", "--runtime", "polkit.service")
    _deploy("no polkit")
    assert _version() == "no polkit"
    run("systemctl", "stop", "dbus.socket", "dbus.service")
    try:
        wait("deployd has ended", lambda: True)
        _deploy("no bus")
        assert _version() == "no bus"
    finally:
        run("systemctl", "start", "dbus.socket")
        run("systemctl", "unmask", "--runtime", "polkit.service")
    assert len(app_units()) == 1


def destroyed_it_leaves_nothing():
    user = show(app_units()[0], "User")
    temps("app", "destroy", APP, "--yes")
    assert get(HOST)[0] == 404
    wait("no link is left", lambda: "tps" not in run("ip", "link"))
    assert not app_units() and not _namespaces()
    assert "table inet temps" not in run("nft", "list", "tables")
    assert "tps" not in run("nft", "list", "ruleset")
    assert "unreachable" not in run("ip", "route")
    assert not DATA.exists() and not Path(f"/var/lib/temps-apps/{APP}").exists()
    assert not list(Path("/var/lib/temps/deployd/instances").iterdir())
    loaded = run("systemctl", "list-units", "--all", "--plain", "--no-legend", "temps-app-*", "temps-netns@*")
    assert not loaded.strip(), loaded
    assert user not in run("getent", "passwd", user, fails=True)


def one_stays_for_the_reboot():
    temps("deploy", "stays", "--source", str(make("stays", "before the reboot")))
    assert get("stays.localhost")[0] == 200


def _under_way() -> bool:
    return temps_json("status")["deployd"]["deployments"] > 0


def _deploy(version: str, variant: str = "healthy", *more: str, fails: bool = False) -> str:
    return temps("deploy", APP, "--source", str(make(APP, version, variant)), *more, fails=fails)


def _version() -> str:
    status, body = get(HOST, "/facts")
    return json.loads(body)["version"] if status == 200 else f"status {status}"


def _namespaces() -> list[str]:
    place = Path("/run/netns")
    return [path.name for path in place.iterdir()] if place.is_dir() else []
