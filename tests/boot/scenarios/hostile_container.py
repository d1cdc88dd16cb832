"""An app in a container that tries what no app may, on the engine of the host. Limits are enforced
there: its memory is held by the host's own control groups."""

import contextlib
import re
import socket
import time
from pathlib import Path
from urllib.parse import quote

from installed import Skipped, get, run, say, show, state, temps
from leftovers import BRIDGE, LINK_LOCAL
from network import HOST_PORT, Listener

BAD, OTHER = "boot-hostile", "boot-neighbour"
# Made by the host, which has a static busybox.
SOURCE = Path("/srv/out/hostile")
SECRET = "the-neighbours-own"
NETWORK = "temps-network.service"
# Where clouds hand out credentials: by link, of containers, of Alibaba, of Azure.
METADATA = ("169.254.169.254", "169.254.170.2", "100.100.100.200", "168.63.129.16")
# Mebibytes: an app's limit, as deployd has it unless told otherwise.
LIMIT = 512


def it_runs_beside_another_container():
    if not (SOURCE / "busybox").exists():
        raise Skipped("the host has no busybox to make the image with")
    for app in (BAD, OTHER):
        temps("deploy", app, "--source", str(SOURCE))
    temps("env", "set", OTHER, f"KEY={SECRET}")
    temps("deploy", OTHER, "--source", str(SOURCE))
    # What is tried below works where it may.
    assert SECRET in _try("cat /proc/self/environ", app=OTHER)[1]
    assert _try("echo kept > /kept && cat /kept", app=OTHER) == (0, "kept\n")
    assert _try(f"wget -q -O - http://{_address(BAD)}:8080/")[0] == 0
    assert BRIDGE in run("ip", "link") and state(NETWORK) == "active"


def it_reads_no_file_and_no_variable_of_the_platform_or_of_another():
    profile = str(Path("~root/.bashrc").expanduser())
    for path in ("/kept", "/var/lib/temps", "/etc/temps", "/etc/shadow", "/home", profile, "/srv"):
        assert _try(f"ls {path}")[0] != 0, path
    said = _try("cat /proc/[0-9]*/environ; env")[1]
    assert "HOSTNAME" in said and SECRET not in said, said
    names = _try("cat /proc/[0-9]*/comm")[1].split()
    assert not set(names) & {"systemd", "temps-deployd", "temps-proxy", "dockerd"}, names


def it_finds_no_control_socket():
    for path in ("/run/temps", "/run/docker.sock", "/var/run/docker.sock", "/run/dbus", "/run/systemd"):
        assert _try(f"ls {path}")[0] != 0, path
    sockets = [line for line in _try("cat /proc/net/unix")[1].splitlines() if "/" in line]
    assert not sockets, sockets


def it_reaches_no_other_container():
    status, said = _try(f"nc -w 2 {_address(OTHER)} 8080 < /dev/null")
    assert status != 0, said
    say(said.strip() or f"status {status}")


def it_reaches_no_cloud_that_tells_who_the_machine_is_and_is_told_so_at_once():
    for address in METADATA:
        _is_refused(address, 80)


def nor_any_service_of_the_machine_once_nobody_has_flushed_the_rules():
    run("ip", "address", "add", f"{LINK_LOCAL}/32", "dev", "lo")
    try:
        gateway = _try("ip route show default")[1].split()[2]
        with Listener() as hits:
            for address in (LINK_LOCAL, gateway):
                _is_refused(address, HOST_PORT)
            assert not hits, hits
            # That the rules do it: without them both are reached, and the doctor tells.
            run("nft", "delete", "table", "inet", "temps")
            for address in (LINK_LOCAL, gateway):
                assert _connect(address, HOST_PORT)[0] == 0, address
            assert len(hits) == 2, hits
            assert "nft list table inet temps" in temps("doctor", fails=True)
            temps("reconcile")
            for address in (LINK_LOCAL, gateway):
                _is_refused(address, HOST_PORT)
            assert len(hits) == 2, hits
    finally:
        run("ip", "address", "delete", f"{LINK_LOCAL}/32", "dev", "lo")


def a_container_that_would_have_no_rules_is_not_started():
    run("systemctl", "stop", NETWORK)
    # Those that run keep theirs.
    _is_refused(METADATA[0], 80)
    run("systemctl", "mask", "--runtime", NETWORK)
    try:
        said = temps("deploy", OTHER, "--source", str(SOURCE), fails=True)
        assert "rules that keep containers" in said, said
    finally:
        run("systemctl", "unmask", "--runtime", NETWORK)
    temps("deploy", OTHER, "--source", str(SOURCE))
    assert state(NETWORK) == "active"


def it_forges_no_packets_and_opens_no_public_port():
    assert _try("ping -c 1 -W 1 127.0.0.1")[0] != 0
    for port in (8099, 90):
        assert _try(f"httpd -p {port} -h /www")[0] == 0
        assert _try(f"wget -q -O - http://127.0.0.1:{port}/")[0] == 0
        with contextlib.closing(socket.socket()) as visitor:
            visitor.settimeout(2)
            assert visitor.connect_ex(("127.0.0.1", port)) != 0, port


def it_gets_no_privilege():
    said = _try("grep -E '^(Cap(Bnd|Amb)|NoNewPrivs|Seccomp):' /proc/self/status")[1]
    bounding = int(re.search(r"CapBnd:\s*(\w+)", said)[1], 16)
    # CAP_NET_RAW, CAP_NET_ADMIN, CAP_SYS_ADMIN, CAP_SYS_PTRACE, CAP_MKNOD (linux/capability.h).
    assert not any(bounding >> number & 1 for number in (13, 12, 21, 19, 27)), said
    assert "NoNewPrivs:\t1" in said and "Seccomp:\t2" in said, said
    for command in ("mount -t tmpfs none /www", "mknod /x b 8 0", "unshare -m true", "ip link set eth0 down"):
        assert _try(command)[0] != 0, command


def it_uses_no_more_memory_than_its_limit():
    # `tail` keeps what it may have to print.
    assert _try(f"head -c {LIMIT // 4}m /dev/zero | tail -c {LIMIT // 4}m | wc -c")[1] == f"{LIMIT // 4 << 20}\n"
    said = _try(f"head -c {LIMIT * 3 // 2}m /dev/zero | tail -c {LIMIT * 3 // 2}m | wc -c")[1]
    assert said.split()[-1] != str(LIMIT * 3 // 2 << 20), said
    say(f"enforced by the host's engine: {LIMIT * 3 // 2} MiB were asked for, {said.split()[-1]} bytes came")


def both_are_removed():
    for app in (BAD, OTHER):
        temps("app", "destroy", app, "--yes")
        assert _get(app, "/")[0] == 404
    links = run("ip", "link")
    assert BRIDGE not in links and state(NETWORK) == "inactive"
    # While somebody else on the same engine has such a bridge, they hold for that.
    assert "tpd-" in links or "inet temps" not in run("nft", "list", "tables")


def _is_refused(address: str, port: int) -> None:
    """It says so itself, and nobody has to wait."""
    begun = time.monotonic()
    status, said = _connect(address, port)
    assert status != 0 and "refused" in said.lower(), (address, port, said)
    assert time.monotonic() - begun < 2, (address, port)


def _connect(address: str, port: int) -> tuple[int, str]:
    return _try(f"nc -w 3 {address} {port} < /dev/null")


def _try(command: str, app: str = BAD) -> tuple[int, str]:
    """Exit status and output of a command in the container."""
    status, body = _get(app, f"/cgi-bin/run?{quote(command, safe='')}")
    assert status == 200, (status, body)
    said, _, ended = body.rpartition("status ")
    return int(ended), said


def _address(app: str) -> str:
    return re.search(r"inet ([0-9.]+)", _try("ip -4 address show dev eth0", app=app)[1])[1]


def _get(app: str, path: str) -> tuple[int, str]:
    return get(f"{app}.localhost", path, port=int(re.search(r":(\d+) ", show("temps-proxy-http.socket", "Listen"))[1]))
