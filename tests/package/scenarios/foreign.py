"""The .rpm: installed, upgraded and erased by rpm itself, where systemd runs."""

import os
import sqlite3
import stat
from pathlib import Path

from installed import deploy_site, get, main_pid, message_id, run, say, show, state, temps, wait_for_state
from load import Load
from packages import quick, since

RPM = "/srv/out/rpm/rpm"
PACKAGES = Path("/srv/out/rpms")
SOCKETS = ["temps-proxy-http.socket", "temps-proxy-https.socket", "temps-proxy-control.socket", "temps-deployd.socket"]
STATE = Path("/var/lib/temps")
DATABASE = STATE / "deployd/deployd.db"
HOST = "docs.localhost"


def it_is_installed_and_says_what_to_do_next():
    said = _rpm("--install", "--nodeps", _package(1))
    assert "temps setup" in said, said
    assert _version() == "0.1.1"


def every_file_is_there_with_its_mode_and_owner():
    # What rpm compares: size, mode, digest, link, user, group.
    changed = _rpm("--verify", "--nodeps", "temps")
    assert not changed.strip(), changed
    files = [line.split(" ", 3) for line in _rpm("--query", "--queryformat", _FILES, "temps").splitlines()]
    assert len(files) > 40, files
    for mode, user, group, path in files:
        found = os.lstat(path)
        assert found.st_mode == int(mode, 8), path
        assert (user, group, found.st_uid, found.st_gid) == ("root", "root", 0, 0), path
        # Nothing that others may write, or that runs as somebody else.
        assert stat.S_ISLNK(found.st_mode) or not found.st_mode & 0o7022, path
    paths = {path for *_, path in files}
    for wanted in ("/usr/share/licenses/temps/LICENSE", "/usr/share/licenses/temps/THIRD-PARTY-NOTICES"):
        assert wanted in paths, wanted


def users_and_directories_are_there_and_the_journal_knows_the_messages():
    assert run("getent", "passwd", "temps-proxy").startswith("temps-proxy:")
    assert run("getent", "group", "temps-admin").startswith("temps-admin:")
    for path in (Path("/run/temps"), STATE):
        assert path.stat().st_mode & 0o7777 == 0o755, path
    assert "The proxy serves" in run("journalctl", "--list-catalog", message_id("The proxy serves"))


def setup_starts_it_and_an_app_is_deployed():
    # Fedora's packages start nothing; whether it is enabled is the distribution's to say.
    assert state("temps.target") == "inactive"
    quick()
    temps("setup", "--yes")
    for unit in [*SOCKETS, "temps.target", "temps-reconcile.timer", "temps-proxy.service"]:
        wait_for_state(unit, "active")
        if "[Install]" in run("systemctl", "cat", unit):
            assert show(unit, "UnitFileState") == "enabled", unit
    deploy_site("docs", "by rpm")
    assert get(HOST) == (200, "by rpm")


def an_upgrade_under_load_keeps_sockets_and_state():
    listening = {unit: since(unit) for unit in SOCKETS}
    before = main_pid("temps-proxy.service")
    with Load(HOST, wanted="by rpm") as load:
        # So that there is a daemon to be restarted.
        temps("app", "list")
        _rpm("--upgrade", "--nodeps", _package(2))
        assert _version() == "0.1.2"
    say(f"an upgrade by rpm: {load.told()}")
    assert not load.failures, load.told()
    assert main_pid("temps-proxy.service") != before, "the proxy is still the old one"
    stopped = [unit for unit in SOCKETS if since(unit) != listening[unit]]
    assert not stopped, f"stopped in between: {stopped}"
    assert "docs" in temps("app", "list")
    for unit in ("temps-proxy.service", "temps-deployd.service"):
        assert Path(f"/proc/{main_pid(unit)}/exe").readlink() == Path("/usr/bin/temps"), unit
    _nothing_failed()


def an_older_version_is_refused_and_changes_nothing():
    said = _rpm("--upgrade", "--nodeps", _package(1), fails=True)
    assert "newer" in said, said
    assert _version() == "0.1.2"
    assert get(HOST) == (200, "by rpm")


def one_that_cannot_read_the_state_is_refused_even_if_forced():
    # Until then what is written is in the write-ahead log, where no script looks.
    wait_for_state("temps-deployd.service", "inactive")
    before = _set_form(99)
    said = _rpm("--upgrade", "--nodeps", "--oldpackage", _package(1), fails=True)
    assert "the form 99" in said, said
    assert _version() == "0.1.2"
    _set_form(before)
    _nothing_failed()


def erased_it_stops_and_leaves_the_state():
    files = _rpm("--query", "--list", "temps").split()
    _rpm("--erase", "temps")
    _rpm("--query", "temps", fails=True)
    left = [path for path in files if os.path.lexists(path)]
    assert not left, left
    for path in (DATABASE, Path("/etc/temps")):
        assert path.exists(), path
    units = run("systemctl", "list-units", "--plain", "--no-legend", "temps*").splitlines()
    units = [line for line in units if not line.startswith("temps-tests.service")]
    assert not units, units
    enabled = [line for line in run("find", "/etc/systemd", "-name", "temps*").split() if "temps-tests" not in line]
    assert not enabled, enabled
    assert not run("ss", "-Htln", "sport = 80 or sport = 443").strip()
    # Their numbers must not become somebody else's.
    run("id", "temps-proxy")


def installed_again_it_finds_its_apps():
    _rpm("--install", "--nodeps", _package(2))
    temps("setup", "--yes")
    wait_for_state("temps-proxy.service", "active")
    assert get(HOST) == (200, "by rpm")
    _nothing_failed()


_FILES = "[%{FILEMODES:octal} %{FILEUSERNAME} %{FILEGROUPNAME} %{FILENAMES}\\n]"


def _rpm(*arguments: str, fails: bool = False) -> str:
    """What rpm says, on both its outputs."""
    return run("sh", "-c", 'exec "$@" 2>&1', "sh", RPM, *arguments, fails=fails, limit=180)


def _package(number: int) -> str:
    return str(PACKAGES / f"{number}.rpm")


def _version() -> str:
    return _rpm("--query", "--queryformat", "%{VERSION}", "temps").strip()


def _set_form(number: int) -> int:
    """What it was before."""
    with sqlite3.connect(DATABASE) as database:
        before = database.execute("PRAGMA user_version").fetchone()[0]
        database.execute(f"PRAGMA user_version = {number}")
    database.close()
    return before


def _nothing_failed() -> None:
    failed = run("systemctl", "list-units", "--failed", "--plain", "--no-legend", "temps*")
    assert not failed.strip(), failed
