"""An app on the systemd runtime that tries what no app may."""

import contextlib
import json
import os
import re
import socket
import threading
from pathlib import Path
from urllib.parse import urlencode

from installed import file, get, journal, main_pid, run, say, show, temps, wait
from network import HOST_PORT, OUR_END, OUTSIDE, Listener, address_of, gateway_of, outside, own_addresses, unit_of
from samples import make

BAD = "hostile"
OTHER = "neighbour"
_CONNECT = """
import socket
try:
    socket.create_connection(("{host}", 8080), timeout=2)
    print("open")
except OSError as error:
    print(error)
"""
# Takes a terminal; looks at the memory that processes share, and at control groups of others.
_PROBE = """
import os
try:
    os.openpty()
    print("a terminal")
except OSError:
    print("no terminal")
print(os.listdir("/dev/shm"))
groups = [place for place, _, _ in os.walk("/sys/fs/cgroup")]
own = "/sys/fs/cgroup" + open("/proc/self/cgroup").read().split("0::")[1].split()[0]
print([place for place in groups if not own.startswith(place) and not place.startswith(own)])
open("/dev/shm/planted", "w").close()
"""
_SHARED = Path("/dev/shm/of-the-machine")
# Listens on 24000 addresses, none of them its own.
_DEAF = """
import os, socket, time
number = next((number for number in range(2, 9) if os.fork() == 0), 1)
kept = [socket.create_server((f"127.0.0.{number}", port)) for port in range(10000, 13000)]
time.sleep(60)
"""


def it_runs_beside_another_app():
    for app in (BAD, OTHER):
        temps("deploy", app, "--source", str(make(app, "one", sample="hostile")))
    temps("env", "set", OTHER, "KEY=the-neighbours-own")
    temps("deploy", OTHER, "--source", str(make(OTHER, "two", sample="hostile")))
    assert _ask("write", app=OTHER, path="/var/lib/temps-apps/neighbour/kept") == {"came": None}


def both_its_outputs_are_kept_and_told_apart():
    texts = ("tries what it is asked to", "a line on standard error")
    wait("both are in the log", lambda: all(text in temps("logs", BAD) for text in texts))
    found = {entry["MESSAGE"]: entry["PRIORITY"] for entry in journal(f"_SYSTEMD_UNIT={unit_of(BAD)}")}
    assert [found[text] for text in texts] == ["6", "5"], found


def its_error_output_is_its_own_also_when_who_printed_it_or_the_journal_has_ended():
    def count() -> int:
        entries = journal(f"_SYSTEMD_UNIT={unit_of(BAD)}", "PRIORITY=5", f"TEMPS_APP={BAD}")
        return sum(entry["MESSAGE"].startswith("last words") for entry in entries)

    _ask("loud", command="for n in $(seq 30); do /bin/echo last words $n >&2; done")
    assert count() == 30, count()
    run("systemctl", "restart", "systemd-journald.service")
    _ask("loud", command="/bin/echo last words after it >&2")
    assert count() == 31, count()


def it_got_one_stream_for_errors_and_no_way_to_make_another():
    pid = main_pid(unit_of(BAD))
    opened = {number: os.readlink(f"/proc/{pid}/fd/{number}") for number in os.listdir(f"/proc/{pid}/fd")}
    assert opened["1"] != opened["2"], opened
    assert list(opened.values()).count(opened["2"]) == 1, opened
    assert "LISTEN" not in Path(f"/proc/{pid}/environ").read_text()
    for path in ("/run/systemd/journal/stdout", "/run/systemd/journal/dev-log", "/dev/log", "/run/systemd/notify"):
        say(f"{path}: {_refused('unix', path=path)}")


def it_reads_no_file_of_the_platform_or_of_another_app():
    tried = [
        "/var/lib/temps/deployd/deployd.db",
        "/var/lib/temps/proxy/local-ca.pem",
        "/etc/temps/deployd.toml.d/50-tests.toml",
        "/etc/shadow",
        str(Path("~root/.bashrc").expanduser()),
        f"/var/lib/temps-apps/{OTHER}/kept",
        f"/var/lib/private/temps-apps/{OTHER}/kept",
        f"/run/credentials/{unit_of(OTHER)}/app",
        f"/proc/{main_pid(unit_of(OTHER))}/environ",
        "/proc/1/environ",
        "/run/systemd/private",
    ]
    for path in tried:
        _refused("read", path=path)
    for path in ("/var/lib/temps", "/home/ada", "/root", "/var/log"):
        _refused("list", path=path)
    # Its own data and release, and nothing beside them.
    assert _ask("list", path="/var/lib/private/temps-apps") == {"came": [BAD]}
    assert _ask("list", path="/srv") == {"came": ["app"]}
    assert _ask("list", path="/srv/app")["came"] == ["Procfile", "app.py", "variant", "version"]


def it_takes_no_terminal_and_finds_neither_memory_nor_control_groups_of_others():
    with file(str(_SHARED), "somebody's"):
        _held(_ask("run", command=f"python3 -c '{_PROBE}'")["came"]["output"])


def nor_does_its_build():
    source = make(f"{BAD}-build", "one", sample="hostile")
    (source / "probe.py").write_text(_PROBE)
    (source / "Procfile").write_text("build: python3 probe.py > found\nweb: exec python3 app.py\n")
    with file(str(_SHARED), "somebody's"):
        temps("deploy", f"{BAD}-build", "--source", str(source))
    try:
        _held(_ask("read", app=f"{BAD}-build", path="found")["came"])
    finally:
        temps("app", "destroy", f"{BAD}-build", "--yes")


def the_kernel_calls_with_most_holes_are_refused():
    numbers = {"io_uring_setup": 425, "userfaultfd": {"x86_64": 323}.get(os.uname().machine, 282)}
    for name, number in numbers.items():
        call = f"print(lib.syscall({number}, 1, 0), os.strerror(ctypes.get_errno()))"
        line = f"import ctypes, os; lib = ctypes.CDLL(None, use_errno=True); {call}"
        said = _ask("run", command=f"python3 -c '{line}'")["came"]["output"]
        assert said == "-1 Operation not permitted\n", (name, said)


def of_sockets_without_end_a_part_is_read_and_told():
    source = make(f"{BAD}-deaf", "one", sample="hostile")
    (source / "app.py").write_text(_DEAF)
    largest = 0

    def grow() -> None:
        nonlocal largest
        while not over.wait(0.01):
            for path in Path("/var/lib/temps/deployd/instances").glob("*/*"):
                with contextlib.suppress(FileNotFoundError):
                    largest = max(largest, path.stat().st_size)

    over = threading.Event()
    watching = threading.Thread(target=grow, daemon=True)
    watching.start()
    said = temps("deploy", f"{BAD}-deaf", "--source", str(source), "--health-timeout", "3s", fails=True)
    over.set()
    watching.join()
    temps("app", "destroy", f"{BAD}-deaf", "--yes")
    assert re.search(r"127[.]0[.]0[.][1-8]:1[0-9]{4} and .* others", said) and len(said) < 2000, said[:2000]
    assert 1 << 19 < largest <= 2 << 20, largest


def it_reads_its_own_limits():
    # As Go and the JVM do.
    group = "/sys/fs/cgroup" + _ask("read", path="/proc/self/cgroup")["came"].split("0::")[1].split()[0]
    there = [name for name in ("cgroup.procs", "memory.max", "cpu.max") if Path(group, name).exists()]
    assert there or not Path(group).exists()
    for name in there:
        assert _ask("read", path=f"{group}/{name}")["came"] == Path(group, name).read_text(), name
    say(f"{', '.join(there) or 'nothing'} of {group}")


def it_sees_no_process_but_its_own():
    pids = [name for name in _ask("list", path="/proc")["came"] if name.isdigit()]
    assert str(main_pid(unit_of(BAD))) in pids and "1" not in pids, pids
    assert str(main_pid(unit_of(OTHER))) not in pids


def it_writes_nowhere_but_to_its_own_data():
    for path in ("/srv/app/x", "/etc/x", "/usr/x", "/var/lib/x", "/run/x", "/dev/x", "/x"):
        _refused("write", path=path)
    for path in (f"/var/lib/temps-apps/{BAD}/x", "/tmp/x"):
        assert _ask("write", path=path) == {"came": None}, path
    assert not os.path.exists("/tmp/x")


def it_reaches_no_control_socket():
    for path in (
        "/run/temps/deployd.sock",
        "/run/temps/deployd-upload.sock",
        "/run/temps/proxy.sock",
        "/run/dbus/system_bus_socket",
        "/run/systemd/private",
        "/run/systemd/journal/socket",
        "/run/docker.sock",
    ):
        say(f"{path}: {_refused('unix', path=path)}")


def it_reaches_the_proxy_and_nothing_else_of_the_host():
    gateway = gateway_of(BAD)
    assert _ask("connect", host=gateway, port=80) == {"came": None}
    assert _ask("run", command="echo $TEMPS_URL")["came"]["output"] == f"http://{gateway}\n"
    with Listener() as hits:
        for address in (gateway, *own_addresses(), "127.0.0.1"):
            why = _refused("connect", host=address, port=HOST_PORT)
            # At once: nothing hangs.
            assert "refused" in why.lower(), (address, why)
        assert not hits, hits


def it_reaches_no_other_app_and_no_metadata():
    for host, port in ((address_of(OTHER), 8080), ("169.254.169.254", 80), ("fd00:ec2::254", 80)):
        say(f"{host}: {_refused('connect', host=host, port=port)}")


def it_forges_no_packets_and_opens_no_public_port():
    _refused("raw")
    _refused("bind", port=80)
    assert _ask("bind", port=8099) == {"came": None}
    for address in ("127.0.0.1", *own_addresses()):
        try:
            socket.create_connection((address, 8099), timeout=2).close()
            raise AssertionError(f"{address}:8099 is open")
        except OSError:
            pass


def names_are_refused_at_once_where_there_is_no_resolver():
    assert _ask("resolve", name="localhost")["came"] in ("127.0.0.1", "::1")
    assert _ask("resolve", name=BAD)["came"] == address_of(BAD)
    say(_refused("resolve", name="example.org"))


def it_reaches_the_outside_through_the_host_also_where_another_firewall_forwards_nothing():
    with outside() as seen:
        assert _ask("connect", host=OUTSIDE, port=80) == {"came": None}
        # As Docker has it: what nobody let through is dropped, and its own chain asks ours first.
        run("nft", "add table ip filter")
        run("nft", "add chain ip filter FORWARD { type filter hook forward priority filter; policy drop; }")
        run("nft", "add chain ip filter DOCKER-USER")
        run("nft", "add rule ip filter FORWARD jump DOCKER-USER")
        try:
            _refused("connect", host=OUTSIDE, port=80)
            # The next instance, like any reconciliation, makes itself heard there.
            run("systemctl", "reload", "temps-network.service")
            assert _ask("connect", host=OUTSIDE, port=80) == {"came": None}
        finally:
            run("nft", "delete table ip filter")
        # The host's address, not its own.
        assert seen() == {OUR_END}, seen()
        # And nothing outside reaches it.
        said = run("nsenter", "--net=/run/netns/outside", "python3", "-c", _CONNECT.format(host=address_of(BAD)))
        assert "open" not in said, said


def it_gets_no_privilege():
    said = _ask("run", command="grep -E '^(Cap(Eff|Bnd)|NoNewPrivs|Seccomp):' /proc/self/status")["came"]["output"]
    assert "CapEff:\t0000000000000000" in said and "CapBnd:\t0000000000000000" in said, said
    assert "NoNewPrivs:\t1" in said and "Seccomp:\t2" in said, said
    for command in ("mount -t tmpfs none /tmp", "unshare --user true", "su -c true", "ip link add x type dummy"):
        assert _ask("run", command=command)["came"]["status"] != 0, command


def it_starts_no_more_processes_than_its_limit():
    unit = unit_of(BAD)
    assert show(unit, "TasksMax") == "512" and show(unit, "MemoryMax") == str(512 << 20)
    controllers = open("/sys/fs/cgroup/cgroup.controllers").read().split()
    if "pids" in controllers:
        _refused("fork", count=600)
    if "memory" in controllers:
        get(f"{BAD}.localhost", "/eat?mib=600")
        assert int(show(unit, "NRestarts")) == 0
    say(f"enforced here: {', '.join(controllers) or 'nothing, this machine has the old control groups'}")


def ordinary_runtimes_run():
    for path in ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"):
        assert _ask("run", command=f"head -c 1 {path} | wc -c")["came"]["status"] == 0, path
    for command in ("node -e 'console.log(40 + 2)'", "python3 -c 'print(40 + 2)'", "perl -e 'print 42'"):
        found = _ask("run", command=command)["came"]
        assert found["output"].strip() == "42", (command, found)


def its_flood_of_lines_leaves_the_journal_to_others():
    _ask("loud", command="seq -f 'flood %g' 100000")
    kept = sum(entry["MESSAGE"].startswith("flood ") for entry in journal(f"_SYSTEMD_UNIT={unit_of(BAD)}"))
    # The journal multiplies the limit while it has much room.
    assert 1000 < kept <= 6 * 2000, kept
    say(f"{kept} lines of 100000 were kept")


def both_are_destroyed():
    for app in (BAD, OTHER):
        temps("app", "destroy", app, "--yes")
        assert get(f"{app}.localhost")[0] == 404


def _ask(what: str, app: str = BAD, **arguments: object) -> dict:
    status, body = get(f"{app}.localhost", f"/{what}?{urlencode(arguments)}")
    assert status == 200, (status, body)
    return json.loads(body)


def _refused(what: str, **arguments: object) -> str:
    answer = _ask(what, **arguments)
    assert "failed" in answer, (what, arguments, answer)
    return answer["failed"]


def _held(said: str) -> None:
    """What the probe says where there is no terminal, and memory and control groups are its own."""
    assert said == "no terminal\n[]\n[]\n", said
    assert not _SHARED.with_name("planted").exists()
