"""Sources that are unpacked, fetched and built in units of their own."""

import contextlib
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

from installed import Skipped, file, get, kill, main_pid, run, say, show, temps, wait
from network import HOST_PORT, OUR_END, OUTSIDE, Listener, address_of, gateway_of, outside, own_addresses
from samples import make

DEPLOYD = "temps-deployd.service"
STATE = Path("/var/lib/temps/deployd")
CACHE = Path("/var/cache/private/temps-builds")
# Who owns a dynamic user's directories where systemd maps their owners.
NOBODY = 65534
WEB = "web: exec python3 -m http.server $PORT\n"

# Says STOLEN for whatever it should not have got.
HOSTILE = r"""
import os, socket, subprocess
def say(what): print("STOLEN", what, flush=True)
for path in ["/var/lib/temps/deployd/key", "/var/lib/temps/deployd/deployd.db", "/etc/shadow", "/proc/1/environ",
             "/etc/temps/deployd.toml.d/50-tests.toml", "/var/lib/temps/proxy/local-ca.pem",
             os.path.expanduser("~root/.bashrc")]:
    try: open(path, "rb").read(1); say(path)
    except OSError as error: print("no", path, error.strerror)
for path in ["/run/temps/deployd.sock", "/run/temps/proxy.sock", "/run/dbus/system_bus_socket", "/run/systemd/private",
             "/run/docker.sock", "/run/systemd/notify"]:
    try: socket.socket(socket.AF_UNIX).connect(path); say(path)
    except OSError as error: print("no", path, error.strerror)
for path in ["/var/lib/temps/deployd/releases", "/var/cache/private/temps-builds", "/home", "/var/log"]:
    try:
        if os.listdir(path): say(path)
    except OSError as error: print("no", path, error.strerror)
if (apps := os.listdir("/var/cache/temps-builds")) != ["hostile"]: say(apps)
for path in ["/usr/planted", "/etc/planted", "/planted", "/run/planted-elsewhere/x", "/sys/fs/cgroup/planted"]:
    try: open(path, "w"); say(path)
    except OSError as error: print("no", path, error.strerror)
for line in [["unshare", "-r", "true"], ["mknod", "device", "c", "1", "1"], ["chmod", "4755", "evil.py"],
             ["kill", "-0", "1"]]:
    if subprocess.run(line, stderr=subprocess.DEVNULL).returncode == 0: say(line)
os.symlink("/var/lib/temps/deployd/key", "link")
print("done", os.getuid())
"""


# Where nobody who builds gets to, beside this machine itself.
HIDDEN = [("169.254.169.254", 80), ("169.254.170.2", 80), ("100.100.100.200", 80), ("168.63.129.16", 32526)]

# Tries them, and the outside.
CALLING = r"""
import re, socket
for host, port in {hidden}:
    try: socket.create_connection((host, port), timeout=3); print("STOLEN", host, port)
    except OSError as error: print("no", host, port, error, "STOLEN: it hangs" if isinstance(error, TimeoutError) else "")
try: socket.socket(socket.AF_UNIX).connect("\0of-the-host"); print("STOLEN abstract socket")
except OSError as error: print("no", error)
try: socket.create_connection(("{outside}", 80), timeout=5); print("outside: open")
except OSError as error: print("outside:", error)
print("names:", *re.findall("nameserver (.*)", open("/etc/resolv.conf").read()))
print("done")
"""


def a_build_command_makes_the_release():
    build = "python3 -c \"import os; open('index.html','w').write(os.environ['GREETING'])\" && ln -s /usr/bin/python3 py"
    _source("built", {"Procfile": f"build: {build}\n{WEB}"})
    temps("env", "set", "built", "GREETING=made by the build")
    said = temps("deploy", "built", "--source", "/srv/sources/built")
    assert get("built.localhost") == (200, "made by the build"), said
    release = _releases("built")[-1]
    for path in [release, *release.rglob("*")]:
        found = path.lstat()
        assert found.st_uid == 0 and found.st_gid == 0, path
        assert path.is_symlink() or found.st_mode & 0o7022 == 0, path
    _nothing_is_left()
    # The value is in no place that others read.
    journal = run("journalctl", "--boot", "--no-pager")
    assert "made by the build" not in journal


def a_build_that_fails_is_refused_with_what_it_said():
    _source("failing", {"Procfile": f"build: echo no such module; exit 3\n{WEB}"})
    said = temps("deploy", "failing", "--source", "/srv/sources/failing", fails=True)
    assert "ended with status 3: no such module" in said, said
    assert not _releases("failing")
    _nothing_is_left()


def a_hostile_build_finds_nothing_and_leaves_nothing():
    _source("hostile", {"Procfile": f"build: python3 evil.py; exit 1\n{WEB}", "evil.py": HOSTILE})
    temps("deploy", "hostile", "--source", "/srv/sources/hostile", fails=True)
    said = temps("logs", "hostile", "--build")
    assert "done" in said and "STOLEN" not in said, said
    for path in ("/usr/planted", "/etc/planted", "/planted"):
        assert not Path(path).exists(), path
    _nothing_is_left()


def a_build_has_limits_and_a_sandbox():
    with _building("limited", "sleep 30") as unit:
        wanted = {
            "MemoryMax": str(2 << 30),
            "TasksMax": "1024",
            "Slice": "temps-builds.slice",
            "DynamicUser": "yes",
            "NoNewPrivileges": "yes",
            "CapabilityBoundingSet": "",
            "RootDirectory": "/run/temps/job-root",
            "CacheDirectoryMode": "0777",
            "OOMPolicy": "kill",
        }
        assert {name: show(unit, name) for name in wanted} == wanted
        assert DEPLOYD in show(unit, "BindsTo").split()
        assert show(unit, "NetworkNamespacePath").startswith("/run/netns/temps-job-")
        # Nobody else gets to its directories, whatever their modes are.
        assert CACHE.parent.stat().st_mode & 0o7777 == 0o700
        assert "Permission denied" in run("ls", str(CACHE), user="bob", fails=True)
        owner = (CACHE / "limited/home").stat().st_uid
        say(f"the directories of builds belong to {'nobody, mapped' if owner == NOBODY else owner}")
        say(run("systemd-analyze", "security", "--no-pager", unit).strip().splitlines()[-1].removeprefix("→ "))


def a_build_reaches_the_outside_and_nothing_of_this_machine():
    temps("deploy", "target", "--source", str(make("target", "one")))
    abstract = socket.socket(socket.AF_UNIX)
    abstract.bind("\0of-the-host")
    abstract.listen()
    # As systemd-resolved has it: a stub on the host's loopback, and the servers behind it.
    resolve = Path("/run/systemd/resolve")
    resolve.mkdir(exist_ok=True)
    configured = Path("/etc/resolv.conf")
    kept = configured.read_text() if configured.exists() else ""
    configured.unlink(missing_ok=True)
    configured.symlink_to("../run/systemd/resolve/stub-resolv.conf")
    with (
        abstract,
        file(str(resolve / "stub-resolv.conf"), "nameserver 127.0.0.53\n"),
        file(str(resolve / "resolv.conf"), f"nameserver {OUTSIDE}\n"),
        outside() as seen,
        Listener() as hits,
    ):
        own = {"127.0.0.1", OUR_END, gateway_of("target"), *own_addresses()}
        hidden = [*HIDDEN, *((address, HOST_PORT) for address in own), (address_of("target"), 8080)]
        source = _source("calling", {"Procfile": f"build: python3 call.py\n{WEB}"})
        (source / "call.py").write_text(CALLING.format(hidden=hidden, outside=OUTSIDE))
        temps("deploy", "calling", "--source", str(source))
        said = temps("logs", "calling", "--build")
        say(next(line for line in said.splitlines() if "outside:" in line).strip())
        assert "done" in said and "STOLEN" not in said, said
        assert "outside: open" in said and f"names: {OUTSIDE}" in said, said
        assert not hits, hits
        assert seen() == {OUR_END}, seen()
    configured.unlink()
    configured.write_text(kept)
    _nothing_is_left()
    wait("no network of a job is left", lambda: "temps-job" not in run("ip", "netns"))
    # The app that was there keeps what it has.
    assert get("target.localhost")[0] == 200
    for app in ("calling", "target"):
        temps("app", "destroy", app, "--yes")


def a_repository_by_ssh_is_refused_at_once_with_what_to_do():
    for url in ("ssh://git@127.0.0.1/shop.git", "git@127.0.0.1:shop.git"):
        said = temps("deploy", "keyless", "--git", url, fails=True)
        assert "git over ssh is not possible" in said and "TOKEN" in said, said


def an_app_that_is_destroyed_takes_its_build_along():
    with _building("given-up", "sleep 3001 & sleep 3002"):
        pass
    assert not _processes("sleep 3001") and not _processes("sleep 3002")


def a_killed_deployd_takes_its_build_along_and_the_next_one_builds_again():
    marker = "echo built > index.html; test -e $HOME/again || { touch $HOME/again; sleep 3003; }"
    _source("again", {"Procfile": f"build: {marker}\n{WEB}"})
    deploying = _deploy("again")
    wait("it builds", lambda: _processes("sleep 3003"))
    kill(main_pid(DEPLOYD), signal.SIGKILL)
    wait("its build has ended", lambda: not _processes("sleep 3003"))
    wait("it was built again", lambda: get("again.localhost") == (200, "built\n"), 60)
    deploying.kill()
    deploying.wait()
    _nothing_is_left()


def a_build_that_takes_too_long_or_never_stops_talking_is_ended():
    with file("/etc/temps/deployd.toml.d/60-short.toml", 'build-timeout = "3s"\n'):
        _restart()
        _source("endless", {"Procfile": f"build: sleep 3004 & yes\n{WEB}"})
        said = temps("deploy", "endless", "--source", "/srv/sources/endless", fails=True)
    _restart()
    assert "took more than 3 s" in said and "build-timeout" in said, said[-2000:]
    assert not _processes("sleep 3004") and not _processes("yes")
    size = sum(path.stat().st_size for path in STATE.glob("logs/*/build.log*"))
    say(f"{size >> 20} MiB of build logs")
    assert size < 40 << 20
    _nothing_is_left()


def a_build_that_is_stopped_from_outside_is_told_so():
    _source("stopped", {"Procfile": f"build: sleep 3006\n{WEB}"})
    line = ["temps", "deploy", "stopped", "--source", "/srv/sources/stopped"]
    deploying = subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    wait("it builds", lambda: _processes("sleep 3006"))
    run("systemctl", "stop", "temps-builds.slice")
    said = deploying.communicate(timeout=30)[0].decode()
    assert deploying.returncode != 0, said
    assert "the build was stopped from outside" in said and "deploy again" in said, said
    assert not _processes("sleep 3006")
    _nothing_is_left()


def one_that_ends_with_a_deployd_that_is_stopped_is_built_by_the_next():
    marker = "echo built > index.html; test -e $HOME/again || { touch $HOME/again; sleep 3007; }"
    _source("resumed", {"Procfile": f"build: {marker}\n{WEB}"})
    deploying = _deploy("resumed")
    wait("it builds", lambda: _processes("sleep 3007"))
    run("systemctl", "stop", DEPLOYD)
    assert not _processes("sleep 3007")
    run("systemctl", "start", DEPLOYD)
    wait("it was built again", lambda: get("resumed.localhost") == (200, "built\n"), 60)
    deploying.kill()
    deploying.wait()
    _nothing_is_left()


def what_a_build_hides_in_its_home_counts_too():
    hiding = "mkdir $HOME/x; fallocate -l 2200M $HOME/x/big; chmod 000 $HOME/x; echo hidden > index.html"
    _source("hiding", {"Procfile": f"build: {hiding}\n{WEB}"})
    temps("deploy", "hiding", "--source", "/srv/sources/hiding")
    assert get("hiding.localhost") == (200, "hidden\n")
    _nothing_is_left()
    assert not list((CACHE / "hiding/home").iterdir())
    assert "cannot read directory" not in temps("logs", "hiding", "--build")


def what_builds_of_a_removed_app_kept_goes_with_the_next_reconciliation():
    _source("removed", {"Procfile": f"build: touch $HOME/kept; echo x > index.html\n{WEB}"})
    temps("deploy", "removed", "--source", "/srv/sources/removed")
    kept = CACHE / "removed/home/kept"
    assert kept.exists()
    with _without_root():
        temps("app", "destroy", "removed", "--yes")
        assert kept.exists()
        said = temps("deploy", "removed", "--source", "/srv/sources/removed", fails=True)
        assert "systemd-tmpfiles --create temps.conf" in said, said
        temps("app", "destroy", "removed", "--yes")
    assert "removed what builds of this removed app had kept" in temps("reconcile")
    assert not kept.exists()
    assert "removed" not in temps("reconcile")


def a_build_that_takes_all_files_of_the_disk_is_ended():
    with _small_disk("nr_inodes=4k"):
        many = "mkdir many; cd many; seq 1 3980 | xargs touch; sleep 3008"
        _source("many", {"Procfile": f"build: {many}\n{WEB}"})
        said = temps("deploy", "many", "--source", "/srv/sources/many", fails=True)
        assert "more files can be made on the file system of /var/cache" in said, said
        assert not _processes("sleep 3008")
        _nothing_is_left()


def a_build_that_fills_the_disk_is_ended_before_others_suffer():
    with _small_disk():
        _source("filling", {"Procfile": f"build: head -c 1G /dev/zero > fill; sleep 3005\n{WEB}"})
        said = temps("deploy", "filling", "--source", "/srv/sources/filling", fails=True)
        say(next(line for line in said.splitlines() if "are free" in line).strip())
        assert "are free on the file system of /var/cache" in said and "free some space" in said, said
        assert not _processes("sleep 3005")
        _nothing_is_left()
        assert not list(Path("/var/cache").rglob("fill"))


def one_that_fails_at_once_because_the_disk_is_full_is_told_so():
    with _small_disk():
        # Quicker than anybody looks.
        _source("quick", {"Procfile": f"build: head -c 1G /dev/zero > fill\n{WEB}"})
        said = temps("deploy", "quick", "--source", "/srv/sources/quick", fails=True)
        assert "are free on the file system of /var/cache" in said and "free some space" in said, said
        assert "No space left on device" in temps("logs", "quick", "--build")
        # What it took is free again.
        _source("quick", {"Procfile": f"build: echo small > index.html\n{WEB}"})
        temps("deploy", "quick", "--source", "/srv/sources/quick")
        assert get("quick.localhost") == (200, "small\n")
        _nothing_is_left()


def a_repository_is_fetched_and_built():
    if not shutil.which("git"):
        raise Skipped("this root has no git")
    repository = _source("repository", {"Procfile": f"build: echo cloned > index.html\n{WEB}"})
    git = ("git", "-C", str(repository), "-c", "user.name=a", "-c", "user.email=a@example.org")
    run("git", "init", "-q", "-b", "main", str(repository))
    run(*git, "add", ".")
    run(*git, "commit", "-q", "-m", "one")
    temps("deploy", "fetched", "--git", f"file://{repository}")
    assert get("fetched.localhost") == (200, "cloned\n")
    _nothing_is_left()


def _source(app: str, files: dict[str, str]) -> Path:
    place = Path("/srv/sources") / app
    place.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (place / name).write_text(text)
    return place


def _deploy(app: str) -> subprocess.Popen:
    line = ["temps", "deploy", app, "--source", f"/srv/sources/{app}"]
    return subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@contextlib.contextmanager
def _building(app: str, build: str):
    """The unit of a build that runs; the app is destroyed afterwards."""
    _source(app, {"Procfile": f"build: {build}\n{WEB}"})
    deploying = _deploy(app)
    try:
        wait("it builds", lambda: len(_jobs("build")) == 1)
        time.sleep(0.5)
        yield _jobs("build")[0]
    finally:
        temps("app", "destroy", app, "--yes")
        deploying.wait(30)
    _nothing_is_left()
    assert not list(CACHE.glob(f"{app}/*/*"))


@contextlib.contextmanager
def _without_root():
    """Nothing that jobs could have as their root: none can be run."""
    root = Path("/run/temps/job-root")
    root.rename("/run/temps/elsewhere")
    try:
        yield
    finally:
        # As temps-deployd has it done when it starts.
        _restart()
        assert root.is_dir()
        shutil.rmtree("/run/temps/elsewhere")


@contextlib.contextmanager
def _small_disk(*more: str):
    """A disk of their own for builds, which is soon full."""
    options = ",".join(["size=400m", "mode=755", *more])
    run("mount", "-t", "tmpfs", "-o", options, "tmpfs", "/var/cache")
    try:
        _restart()
        yield
    finally:
        run("umount", "--lazy", "/var/cache")
        _restart()


def _restart() -> None:
    # This is done more often here than anybody does it.
    run("systemctl", "reset-failed", DEPLOYD)
    run("systemctl", "restart", DEPLOYD)


def _jobs(kind: str = "") -> list[str]:
    listed = run("systemctl", "list-units", "--all", "--plain", "--no-legend", f"temps-job-{kind}*")
    return [line.split()[0] for line in listed.splitlines()]


def _processes(line: str) -> bool:
    return subprocess.run(["pgrep", "-xf", line], stdout=subprocess.DEVNULL, check=False).returncode == 0


def _releases(app: str) -> list[Path]:
    """The directories of its releases, oldest first."""
    listed = run("temps", "release", "list", app)
    return [path for path in sorted((STATE / "releases").iterdir()) if path.name in listed]


def _nothing_is_left() -> None:
    wait("no job is left", lambda: not _jobs())
    passing = [path for kind in ("work", "tmp", "fetch", "fetch-tmp") for path in CACHE.glob(f"*/{kind}/*")]
    assert not passing, passing
