"""A configuration that is wrong, and one that is mended."""

from pathlib import Path

from installed import file, get, run, show, state, temps, wait_for_state

DEPLOYD = "temps-deployd.service"


def a_wrong_configuration_stops_deployd_and_no_app():
    run("systemctl", "stop", DEPLOYD)
    # What it said when it was last right would do.
    Path("/var/lib/temps/deployd/deployd.toml.last-good").unlink(missing_ok=True)
    with file("/etc/temps/deployd.toml.d/90-wrong.toml", "no-such-setting = 1\n"):
        run("systemctl", "start", DEPLOYD, fails=True)
        assert show(DEPLOYD, "ExecMainStatus") == "78"
        assert show(DEPLOYD, "NRestarts") == "0"
        assert "90-wrong.toml" in _said(), _said()
        assert get("docs.localhost") == (200, "second")


def mended_it_starts_again():
    run("systemctl", "reset-failed", DEPLOYD)
    run("systemctl", "start", "temps-deployd.socket", "temps-deployd-upload.socket")
    assert "docs" in temps("app", "list")
    wait_for_state(DEPLOYD, "inactive")


def a_taken_port_does_not_stop_the_other():
    with file("/run/systemd/system/taken.service", "[Service]\nExecStart=python3 -m http.server 80 --bind ::\n"):
        run("systemctl", "stop", "temps.target")
        wait_for_state("temps-proxy-http.socket", "inactive")
        run("systemctl", "start", "taken.service")
        run("sh", "-c", "until ss -Htln sport = 80 | grep -q .; do sleep 0.1; done", limit=20)
        run("systemctl", "start", "temps.target")
        assert state("temps-proxy-http.socket") == "failed"
        assert state("temps-proxy.service") == "active"
        assert "https [::]:443" in temps("status")
        run("systemctl", "stop", "taken.service")
    run("systemctl", "daemon-reload")
    run("systemctl", "restart", "temps-proxy.service")
    assert state("temps-proxy-http.socket") == "active"
    assert get("docs.localhost") == (200, "second")


def _said() -> str:
    return run("journalctl", "--boot", "--no-pager", "--output=cat", "--unit", DEPLOYD)
