"""Removed, the state stays; purged, nothing does."""

import sqlite3
from pathlib import Path

from installed import get, run, wait_for_state
from packages import all_is_well, apt, deb, installed, version

STATE = Path("/var/lib/temps")
DATABASE = STATE / "deployd/deployd.db"
HOST = "docs.apps.test"
# As systemd lays out what units with users of their own keep.
DATA = Path("/var/lib/private/temps-apps")
LINKS = Path("/var/lib/temps-apps")


def removing_it_stops_everything_and_keeps_the_state():
    apt("remove", "temps")
    assert installed().startswith("config-files ")
    assert DATABASE.stat().st_size > 0
    assert Path("/etc/temps/deployd.toml.d/10-setup.toml").exists()
    assert not Path("/usr/bin/temps").exists()
    left = run("systemctl", "list-units", "--plain", "--no-legend", "temps*")
    left = [line for line in left.splitlines() if not line.startswith("temps-tests.service")]
    assert not left, left
    assert not run("ss", "-Htln", "sport = 80 or sport = 443").strip()


def a_version_that_cannot_read_the_state_is_refused():
    before = _set_form(99)
    said = apt("install", deb(6), fails=True)
    assert "the form 99" in said, said
    assert installed().startswith("config-files ")
    _set_form(before)


def an_older_version_that_can_is_taken_and_finds_its_apps():
    apt("install", deb(1))
    assert installed() == f"installed {version(1)}"
    wait_for_state("temps-proxy.service", "active")
    assert get(HOST) == (200, "packaged")
    all_is_well()


def purging_it_leaves_nothing_behind_but_the_users_and_what_apps_have_kept():
    kept = _data("shop") / "orders.db"
    kept.write_text("theirs")
    empty = _data("blog") / "uploads"
    empty.mkdir()
    builds = Path("/var/cache/private/temps-builds/shop/home")
    builds.mkdir(parents=True)
    (builds / "downloads").write_text("to be had again")
    said = apt("purge", "temps")
    assert "/var/lib/private/temps-apps" in said, said
    assert kept.read_text() == "theirs"
    assert sorted(path.name for path in LINKS.iterdir()) == ["shop"]
    for path in (empty.parent, Path("/var/cache/temps-builds"), Path("/var/cache/private/temps-builds")):
        assert not path.exists(), path
    run("dpkg-query", "--show", "temps", fails=True)
    for path in (STATE, Path("/etc/temps"), Path("/run/temps"), Path("/usr/libexec/temps")):
        assert not path.exists(), path
    left = run("find", "/etc/systemd", "/usr/lib/systemd", "/var/lib/systemd", "-name", "temps*")
    left = [line for line in left.splitlines() if "temps-tests" not in line]
    assert not left, left
    # Their numbers must not become somebody else's.
    run("id", "temps-proxy")


def it_can_be_installed_again():
    apt("install", deb(1))
    wait_for_state("temps-proxy.service", "active")
    assert get(HOST)[0] == 404
    all_is_well()


def purging_it_at_once_works_as_well():
    (DATA / "shop/orders.db").unlink()
    said = apt("purge", "temps")
    # Now that they have kept nothing.
    for path in (STATE, DATA, LINKS):
        assert not path.exists(), path
    assert str(DATA) not in said, said


def _data(app: str) -> Path:
    """Makes the directory of an app's data, and the link to it."""
    directory = DATA / app
    directory.mkdir(parents=True)
    LINKS.mkdir(exist_ok=True)
    (LINKS / app).symlink_to(f"../private/temps-apps/{app}")
    return directory


def _set_form(number: int) -> int:
    """What it was before."""
    with sqlite3.connect(DATABASE) as database:
        before = database.execute("PRAGMA user_version").fetchone()[0]
        database.execute(f"PRAGMA user_version = {number}")
    database.close()
    return before
