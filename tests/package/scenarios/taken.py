"""Somebody else has the ports 80 and 443."""

from installed import deploy_site, get, run, say, state, temps, wait
from packages import apt, deb, installed, quick, version


def apt_is_content_and_says_who_has_the_ports():
    wait("the ports are taken", lambda: len(run("ss", "-Htln", "sport = 80 or sport = 443").split("\n")) > 2)
    said = apt("install", deb(1))
    say("\n".join(line for line in said.splitlines() if "port" in line))
    assert installed() == f"installed {version(1)}"
    for port in (80, 443):
        assert f"port {port} is taken by python3" in said, said
    assert "systemctl disable --now taken.service" in said, said
    assert state("temps-proxy-http.socket") == "failed"


def apps_can_be_deployed_all_the_same():
    quick()
    assert state("temps-proxy.service") == "active"
    deploy_site("docs", "hidden")
    assert "docs" in temps("app", "list")
    assert "https: is not served" in temps("doctor")


def setup_says_it_too_and_changes_nothing_about_it():
    said = temps("setup", "--yes", fails=True)
    assert "port 80 is taken by python3" in said, said
    assert state("taken.service") == "active"


def with_the_ports_free_setup_starts_what_is_missing():
    run("systemctl", "disable", "--now", "taken.service")
    said = temps("setup", "--yes")
    assert "temps-proxy-http.socket" in said, said
    assert state("temps-proxy-http.socket") == "active"
    assert get("docs.localhost") == (200, "hidden")
