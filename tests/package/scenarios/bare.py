"""Neither dbus nor polkit: everything works, and it is said that they are missing."""

from pathlib import Path

from installed import deploy_site, get, say, state, temps, wait_for_state
from packages import all_is_well, apt, deb, installed, quick, version


def apt_is_content_and_says_what_is_missing():
    assert not Path("/run/dbus/system_bus_socket").exists()
    said = apt("install", deb(1))
    say("\n".join(line for line in said.splitlines() if "dbus" in line or "polkit" in line))
    assert installed() == f"installed {version(1)}"
    assert "install the package dbus" in said and "install the package polkitd" in said, said
    all_is_well()


def an_app_is_deployed_and_served():
    quick()
    wait_for_state("temps-proxy.service", "active")
    deploy_site("docs", "bare")
    assert get("docs.localhost") == (200, "bare")


def setup_works():
    temps("setup", "--operator", "ada", "--yes")
    assert "docs" in temps("app", "list", user="ada")


def an_upgrade_works():
    apt("install", deb(2))
    assert installed() == f"installed {version(2)}"
    assert state("temps-proxy.service") == "active"
    assert get("docs.localhost") == (200, "bare")
