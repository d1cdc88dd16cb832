"""A configuration that is wrong, and one that is mended; a port that is taken."""

from pathlib import Path

from installed import deploy_site, file, get, run, show, state, temps, temps_json, wait, wait_for_state

DEPLOYD = "temps-deployd.service"
PROXY = "temps-proxy.service"
WRONG = "no-such-setting = 1\n"


def a_wrong_configuration_is_told_and_the_last_good_one_used():
    for service, name in ((DEPLOYD, "deployd"), (PROXY, "proxy")):
        with file(f"/etc/temps/{name}.toml.d/90-wrong.toml", WRONG):
            run("systemctl", "restart", service)
            assert state(service) == "active"
            assert get("docs.localhost") == (200, "second")
            wrong = [check for check in temps_json("doctor", fails=True) if check["level"].lower() == "failed"]
            assert any("90-wrong.toml" in check["what"] for check in wrong), wrong
        run("systemctl", "restart", service)
        temps("doctor")


def without_a_good_one_deployd_does_not_start_and_sites_are_served():
    run("systemctl", "stop", DEPLOYD)
    Path("/var/lib/temps/deployd/deployd.toml.last-good").unlink()
    with file("/etc/temps/deployd.toml.d/90-wrong.toml", WRONG):
        run("systemctl", "start", DEPLOYD, fails=True)
        assert show(DEPLOYD, "ExecMainStatus") == "78"
        assert show(DEPLOYD, "NRestarts") == "0"
        assert "90-wrong.toml" in _said(DEPLOYD)
        assert get("docs.localhost") == (200, "second")
        # A caller is not left waiting for ever.
        temps("app", "list", fails=True)


def mended_it_is_started_as_the_catalog_says():
    # The last call of before may have begun a start that read the wrong file.
    wait("no start is under way", lambda: state(DEPLOYD) not in ("activating", "deactivating"))
    run("systemctl", "reset-failed", DEPLOYD)
    run("systemctl", "restart", DEPLOYD)
    assert "docs" in temps("app", "list")
    wait_for_state(DEPLOYD, "inactive")


def without_a_good_one_the_proxy_says_so_and_a_restart_after_mending_brings_it_back():
    run("systemctl", "stop", PROXY)
    Path("/var/lib/temps/proxy/proxy.toml.last-good").unlink()
    with file("/etc/temps/proxy.toml.d/90-wrong.toml", WRONG):
        run("systemctl", "start", PROXY, fails=True)
        assert show(PROXY, "ExecMainStatus") == "78"
        assert "90-wrong.toml" in _said(PROXY)
    run("systemctl", "restart", PROXY)
    assert get("docs.localhost") == (200, "second")


def a_reload_reads_the_timeouts_again_and_keeps_the_process():
    before = show(PROXY, "MainPID")
    with file("/etc/temps/proxy.toml.d/60-timeouts.toml", '[timeouts]\nread = "61s"\n'):
        run("systemctl", "reload", PROXY)
        wait("it was read", lambda: "were read again" in _said(PROXY))
    with file("/etc/temps/proxy.toml.d/60-timeouts.toml", WRONG):
        run("systemctl", "reload", PROXY)
        wait("it was refused", lambda: "60-timeouts.toml" in _said(PROXY))
    run("systemctl", "reload", PROXY)
    assert show(PROXY, "MainPID") == before
    assert get("docs.localhost") == (200, "second")


def a_taken_port_does_not_stop_the_other():
    with file("/run/systemd/system/taken.service", "[Service]\nExecStart=python3 -m http.server 80 --bind ::\n"):
        run("systemctl", "stop", "temps.target")
        wait_for_state("temps-proxy-http.socket", "inactive")
        run("systemctl", "start", "taken.service")
        wait("the port is taken", lambda: run("ss", "-Htln", "sport = 80").strip())
        run("systemctl", "start", "temps.target")
        assert state("temps-proxy-http.socket") == "failed"
        assert state(PROXY) == "active"
        assert "https [::]:443" in temps("status")
        run("systemctl", "stop", "taken.service")
    run("systemctl", "daemon-reload")
    run("systemctl", "restart", PROXY)
    assert state("temps-proxy-http.socket") == "active"
    assert get("docs.localhost") == (200, "second")


def deployments_go_on_as_before():
    deploy_site("docs", "second")


def _said(unit: str) -> str:
    run("journalctl", "--sync")
    return run("journalctl", "--boot", "--no-pager", "--output=cat", "--unit", unit)
