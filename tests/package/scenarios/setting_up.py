"""`temps setup` on an installed machine."""

import json
from pathlib import Path

from installed import deploy_site, get, run, say, show, state, temps, temps_json

FILE = Path("/etc/temps/deployd.toml.d/10-setup.toml")
LINE = ("setup", "--base-domain", "apps.test", "--operator", "ada", "--yes")


def somebody_who_is_not_root_is_refused_and_may_look():
    said = temps("setup", "--yes", user="bob", fails=True)
    assert "needs root" in said and "sudo temps setup" in said, said
    temps("setup", "--dry-run", user="bob")


def a_dry_run_shows_the_changes_and_makes_none():
    said = temps("setup", "--base-domain", "apps.test", "--operator", "ada", "--dry-run")
    assert "apps.test" in said and "let ada operate" in said, said
    assert not FILE.exists()
    assert "ada" not in run("getent", "group", "temps-admin")


def without_a_terminal_it_wants_a_yes():
    said = temps("setup", "--base-domain", "apps.test", fails=True)
    assert "--yes" in said, said
    assert not FILE.exists()


def it_does_what_was_said():
    said = temps(*LINE)
    say(said.strip())
    assert 'base-domain = "apps.test"' in FILE.read_text()
    assert FILE.stat().st_mode & 0o777 == 0o644
    assert "ada" in run("getent", "group", "temps-admin")


def a_second_run_changes_nothing():
    before = FILE.stat().st_mtime_ns
    done = temps_json(*LINE)
    assert done["changes"] == [] and done["changed"] is False, done
    assert FILE.stat().st_mtime_ns == before


def operators_may_operate_and_others_may_not():
    assert "docs" in temps("app", "list", user="ada")
    temps("app", "list", user="bob", fails=True)


def apps_answer_under_the_domain():
    deploy_site("docs", "packaged")
    assert get("docs.apps.test") == (200, "packaged")
    hosts = temps("domain", "list", "docs")
    assert "docs.apps.test" in hosts, hosts


def a_stopped_and_disabled_socket_is_brought_back():
    run("systemctl", "disable", "temps-proxy-https.socket")
    run("systemctl", "stop", "temps-proxy-https.socket")
    said = temps("setup", "--yes")
    assert "start temps-proxy-https.socket" in said, said
    assert state("temps-proxy-https.socket") == "active"
    assert show("temps-proxy-https.socket", "UnitFileState") == "enabled"
    assert state("temps-proxy.service") == "active"
    assert "https [::]:443" in temps("status")
    assert get("docs.apps.test")[0] == 200


def a_wrong_user_or_domain_stops_it_before_anything_is_changed():
    said = temps("setup", "--operator", "eve", "--yes", fails=True)
    assert "no user `eve`" in said, said
    temps("setup", "--base-domain", "not a host", "--yes", fails=True)
    assert 'base-domain = "apps.test"' in FILE.read_text()


def it_is_read_by_programs():
    done = json.loads(temps("setup", "--check", "--json"))
    names = {check["name"] for check in done["checks"]}
    assert {"http", "https", "container engine", "dbus", "polkit", "memory", "disk"} <= names, names
