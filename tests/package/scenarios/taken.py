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


def deployd_answers_all_the_same():
    quick()
    temps("app", "list")
    assert state("temps-deployd.socket") == "active"


def setup_says_it_too_and_changes_nothing_about_it():
    said = temps("setup", "--yes", fails=True)
    assert "port 80 is taken by python3" in said, said
    assert state("taken.service") == "active"


def with_the_ports_free_setup_starts_what_is_missing():
    run("systemctl", "disable", "--now", "taken.service")
    said = temps("setup", "--yes")
    assert "temps-proxy-http.socket" in said, said
    assert state("temps-proxy-http.socket") == "active"
    deploy_site("docs", "free")
    assert get("docs.localhost") == (200, "free")
