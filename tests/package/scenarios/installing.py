"""The package on a machine where nothing of ours was: everything runs when apt is done."""

from pathlib import Path

from installed import deploy_site, get, main_pid, message_id, run, say, show, state, temps, wait_for_state
from packages import all_is_well, apt, deb, installed, quick, version

SOCKETS = [
    "temps-proxy-http.socket",
    "temps-proxy-https.socket",
    "temps-proxy-control.socket",
    "temps-deployd.socket",
    "temps-deployd-upload.socket",
]


def apt_installs_it_and_says_what_to_do_next():
    said = apt("install", deb(1))
    assert installed() == f"installed {version(1)}"
    assert "temps setup" in said, said
    # There is no container engine here.
    assert "container engine" in said and "docker.io" in said, said
    say(run("sh", "-c", "dpkg-deb --field " + deb(1) + " Installed-Size").strip() + " KiB installed")


def everything_runs():
    for unit in [*SOCKETS, "temps.target", "temps-reconcile.timer", "temps-proxy.service"]:
        wait_for_state(unit, "active")
        if "[Install]" in run("systemctl", "cat", unit):
            assert show(unit, "UnitFileState") == "enabled", unit
    all_is_well()


def users_and_directories_are_there():
    assert run("id", "-un", "temps-proxy").strip() == "temps-proxy"
    assert run("getent", "group", "temps-admin").startswith("temps-admin:")
    for path, mode in (("/run/temps", 0o755), ("/var/lib/temps", 0o755), ("/var/lib/temps/proxy", 0o700)):
        assert Path(path).stat().st_mode & 0o7777 == mode, path


def the_journal_knows_what_its_entries_mean():
    number = message_id("The proxy serves")
    assert "The proxy serves" in run("journalctl", "--list-catalog", number)


def the_binary_is_there_once_and_links_lead_to_it():
    links = sorted(Path("/usr/libexec/temps").iterdir())
    assert links
    for link in links:
        assert link.is_symlink() and link.resolve() == Path("/usr/bin/temps"), link


def manuals_completions_and_documents_are_there():
    for path in (
        "/usr/share/man/man1/temps.1.gz",
        "/usr/share/bash-completion/completions/temps",
        "/usr/share/doc/temps/copyright",
        "/usr/share/doc/temps/changelog.gz",
        "/usr/share/doc/temps/examples/deployd.toml",
    ):
        assert Path(path).stat().st_size > 0, path
    run("bash", "-c", "source /usr/share/bash-completion/completions/temps && complete -p temps")


def an_app_can_be_deployed():
    quick()
    run("systemctl", "try-restart", "temps-deployd.service")
    deploy_site("docs", "packaged")
    assert get("docs.localhost") == (200, "packaged")
    assert "docs" in temps("app", "list")


def installing_it_again_disturbs_nothing():
    before = main_pid("temps-proxy.service")
    apt("install", "--reinstall", deb(1))
    assert get("docs.localhost") == (200, "packaged")
    # The binary was replaced by an equal one; the daemon that runs is a new process of it.
    assert main_pid("temps-proxy.service") != before
    assert state("temps-proxy-http.socket") == "active"
    all_is_well()
