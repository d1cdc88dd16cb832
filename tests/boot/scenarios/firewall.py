"""The rules of apps while others flush the firewall, and while the configuration is wrong."""

import contextlib
import json
import signal
from pathlib import Path
from urllib.parse import urlencode

from installed import file, get, kill, main_pid, run, say, state, temps, temps_json, wait
from network import HOST_PORT, OUTSIDE, Listener, address_of, gateway_of, outside, own_addresses, unit_of
from samples import app_units, make

APP, OTHER = "one", "another"
NETWORK = "temps-network.service"
DEPLOYD = "temps-deployd.service"
# An address of this host beside the gateway.
OWN = "192.0.2.77"


def two_apps_run_and_are_apart():
    for line in ("link add own type veth peer name other", f"address add {OWN}/32 dev own", "link set own up"):
        run("ip", *line.split())
    for app in (APP, OTHER):
        temps("deploy", app, "--source", str(make(app, "one", sample="hostile")))
    _is_apart()
    temps("doctor")


def no_cloud_tells_them_who_the_machine_is():
    for address in ("169.254.169.254", "169.254.170.2", "100.100.100.200", "168.63.129.16"):
        for port in (80, 32526):
            assert "refused" in _refused(address, port), address


def flushed_they_stay_apart_and_the_doctor_tells():
    run("nft", "flush", "ruleset")
    assert not _is_set()
    _is_apart()
    no_cloud_tells_them_who_the_machine_is()
    wrong = [check for check in temps_json("doctor", fails=True) if check["level"].lower() == "failed"]
    say(f"{wrong[0]['what']}: {wrong[0]['hint']}")
    assert len(wrong) == 1 and wrong[0]["name"] == "systemd", wrong
    assert "temps-network" in wrong[0]["hint"], wrong
    # Looking changed nothing.
    assert not _is_set()
    assert state("temps-network-check.service") == "inactive"


def a_reconciliation_sets_them_again():
    temps("reconcile")
    assert _is_set()
    temps("doctor")
    _is_apart()


def what_nftables_does_brings_them_back_at_once():
    assert "50-temps.conf" in run("systemctl", "cat", "nftables.service")
    with outside():
        for verb in ("restart", "stop", "start", "reload", "stop"):
            run("systemctl", verb, "nftables.service")
            wait(f"they are back after {verb}", _is_set, 5)
            _is_apart()
            wait("the outside is reached", lambda: "came" in _ask(host=OUTSIDE, port=80), 5)
        # As somebody would by hand, who does not know of us.
        run("nft", "-f", "/etc/nftables.conf")
        _is_apart()
        run("systemctl", "reload", NETWORK)


def stopped_by_somebody_the_network_stays_while_apps_run():
    run("systemctl", "stop", NETWORK)
    assert state(NETWORK) == "inactive" and _is_set()
    _is_apart()
    temps("reconcile")
    assert state(NETWORK) == "active"


def the_rules_inside_are_not_the_apps_to_change():
    said = _ask("run", command="nft flush ruleset; nft list ruleset; ip route add 192.0.2.1 dev eth0")["came"]
    assert said["status"] != 0 and "not permitted" in said["output"], said
    _is_apart()


def with_a_wrong_configuration_the_network_is_made_by_the_last_good_one():
    with file("/etc/temps/deployd.toml.d/90-wrong.toml", "bas-domain = 1\n"):
        run("systemctl", "restart", DEPLOYD)
        for good in (True, False):
            if not good:
                Path("/var/lib/temps/deployd/deployd.toml.last-good").unlink()
            run("systemctl", "stop", NETWORK)
            run("nft", "flush", "ruleset")
            run("systemctl", "start", NETWORK)
            assert _is_set()
            before = unit_of(APP)
            kill(main_pid(before), signal.SIGKILL)
            wait("it is started again", lambda before=before: _serves() and unit_of(APP) != before)
            _is_apart()
    run("systemctl", "restart", DEPLOYD)
    temps("doctor")


def what_cannot_be_mended_is_told_and_not_what_was_refused():
    broken = "[Service]\nExecStart=\nExecStart=/bin/false\nExecReload=\nExecReload=/bin/false\n"
    with _drop_in(f"/run/systemd/system/{NETWORK}.d/broken.conf", broken):
        said = temps("reconcile", fails=True)
        assert "network of the apps cannot be made" in said, said
        assert "nothing else" not in said, said
        run("systemctl", "stop", DEPLOYD)
        for unit in app_units():
            run("systemctl", "stop", unit)
        wait("no link is left", lambda: "tps" not in run("ip", "link"))
        run("systemctl", "stop", NETWORK)
        said = temps("reconcile", fails=True)
        say(said.strip().splitlines()[0])
        for app in (APP, OTHER):
            assert f"{app}: started again" not in said and f"{app}: cannot be started again" in said, said
    run("systemctl", "reset-failed", NETWORK)
    said = temps("reconcile")
    for app in (APP, OTHER):
        assert f"{app}: started again" in said and _serves(app), said


def stopped_before_them_the_network_goes_with_the_last_one():
    # As when the package is removed: nobody starts apps again.
    deployd = (DEPLOYD, "temps-deployd.socket", "temps-deployd-upload.socket")
    run("systemctl", "stop", *deployd)
    run("systemctl", "stop", NETWORK)
    assert _is_set()
    for unit in app_units():
        run("systemctl", "stop", unit)
    wait("no link is left", lambda: "tps" not in run("ip", "link"))
    wait("nor the rules", lambda: not _is_set())
    assert "unreachable" not in run("ip", "route")
    run("systemctl", "start", *deployd[1:])
    temps("reconcile")
    assert _is_set() and all(_serves(app) for app in (APP, OTHER))


def they_leave_nothing():
    for app in (APP, OTHER):
        temps("app", "destroy", app, "--yes")
    assert "tps" not in run("ip", "link")
    assert not _is_set()
    assert state(NETWORK) == "inactive"
    run("ip", "link", "delete", "own")


def _is_apart() -> None:
    """The app reaches the proxy, and nothing else of the host or of the other app; at once."""
    gateway = gateway_of(APP)
    assert _ask(host=gateway, port=80) == {"came": None}
    with Listener() as hits:
        # The rules inside know the addresses of before; those of the host know all.
        for address in {gateway, OWN, "127.0.0.1", *(own_addresses() if _is_set() else ())}:
            assert "refused" in _refused(address, HOST_PORT), address
        assert not hits, hits
    assert "refused" in _refused(address_of(OTHER), 8080)


def _is_set() -> bool:
    return "table inet temps" in run("nft", "list", "tables")


def _serves(app: str = APP) -> bool:
    return get(f"{app}.localhost")[0] == 200


def _ask(what: str = "connect", **arguments: object) -> dict:
    status, body = get(f"{APP}.localhost", f"/{what}?{urlencode(arguments)}")
    assert status == 200, (status, body)
    return json.loads(body)


def _refused(host: str, port: int) -> str:
    answer = _ask(host=host, port=port)
    assert "failed" in answer, (host, port, answer)
    return answer["failed"].lower()


@contextlib.contextmanager
def _drop_in(path: str, text: str):
    try:
        with file(path, text):
            run("systemctl", "daemon-reload")
            yield
    finally:
        run("systemctl", "daemon-reload")
