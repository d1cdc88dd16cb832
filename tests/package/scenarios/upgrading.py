"""Five upgrades under load, and the way back that is refused."""

from pathlib import Path

from installed import deploy_site, get, journal, main_pid, run, say, state, temps, temps_json
from load import Load
from packages import all_is_well, apt, deb, installed, since, version

UPGRADES = range(2, 7)
NETWORK = "temps-network.service"
HOST = "docs.apps.test"
SOCKETS = ["temps-proxy-http.socket", "temps-proxy-https.socket", "temps-proxy-control.socket", "temps-deployd.socket"]


def five_upgrades_under_load_lose_no_request():
    listening = {unit: since(unit) for unit in SOCKETS}
    pids = {main_pid("temps-proxy.service")}
    with Load(HOST, wanted="packaged") as load:
        for number in UPGRADES:
            # So that there is a daemon to be restarted.
            temps("app", "list")
            apt("install", deb(number))
            assert installed() == f"installed {version(number)}"
            pids.add(main_pid("temps-proxy.service"))
    say(f"{len(UPGRADES)} upgrades: {load.told()}; the slowest took {load.slowest:.2f} s")
    assert load.sent > 100
    assert not load.failures, load.told()
    assert len(pids) == len(UPGRADES) + 1, "the proxy was not restarted each time"
    stopped = [unit for unit in SOCKETS if since(unit) != listening[unit]]
    assert not stopped, f"stopped in between: {stopped}"
    all_is_well()


def apps_keep_their_network_and_get_the_rules_of_the_new_version():
    run("systemctl", "start", NETWORK)
    before = since(NETWORK)
    run("nft", "flush", "chain", "inet", "temps", "forward")
    apt("install", "--reinstall", deb(6))
    assert since(NETWORK) == before and state(NETWORK) == "active"
    assert "jump" in run("nft", "list", "chain", "inet", "temps", "forward")
    run("systemctl", "stop", NETWORK)
    apt("install", "--reinstall", deb(6))
    assert state(NETWORK) == "inactive"


def no_daemon_runs_what_was_replaced():
    temps("app", "list")
    for unit in ("temps-proxy.service", "temps-deployd.service"):
        assert Path(f"/proc/{main_pid(unit)}/exe").readlink() == Path("/usr/bin/temps"), unit


def apps_and_settings_are_as_before():
    assert get(HOST) == (200, "packaged")
    assert [app["app"] for app in temps_json("app", "list")] == ["docs"]
    assert temps_json("setup", "--yes")["changes"] == []


def what_was_stopped_or_disabled_stays_so():
    run("systemctl", "stop", "temps.target")
    run("systemctl", "disable", "temps-reconcile.timer")
    apt("install", "--reinstall", deb(6))
    assert state("temps-proxy-http.socket") == "inactive"
    assert state("temps-proxy.service") == "inactive"
    run("systemctl", "is-enabled", "temps-reconcile.timer", fails=True)
    run("systemctl", "enable", "temps-reconcile.timer")
    run("systemctl", "start", "temps.target")
    assert get(HOST) == (200, "packaged")


def an_older_version_is_refused_and_changes_nothing():
    with Load(HOST, wanted="packaged") as load:
        said = apt("install", "--allow-downgrades", deb(1), fails=True)
    assert "older than the installed" in said and "Nothing was changed" in said, said
    assert installed() == f"installed {version(6)}"
    assert not load.failures, load.told()
    all_is_well()
    deploy_site("docs", "packaged")


def nothing_was_logged_as_an_error():
    errors = journal("--priority=err", "--unit=temps*")
    assert not errors, [entry.get("MESSAGE") for entry in errors]
