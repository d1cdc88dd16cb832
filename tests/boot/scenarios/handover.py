"""A helper serves while the proxy is restarted."""

import signal
import socket
import threading
import time
from pathlib import Path

from installed import (
    deploy_site,
    get,
    journal,
    kill,
    main_pid,
    message_id,
    run,
    say,
    show,
    state,
    temps,
    wait,
    wait_for_state,
)
from load import Load

PROXY = "temps-proxy.service"
HELPER = "temps-proxy-handover.service"
RESTARTS = 15
# The proxy gives up a drain after 30 s: a download that is far from that, and far from nothing.
DOWNLOAD = 6.0
SIZE = 24 << 20


def restarts_lose_no_request_on_new_and_on_kept_connections():
    _site("moved", "here")
    kept = Load("moved.localhost", wanted="here", threads=2, keeps=True)
    fresh = Load("moved.localhost", wanted="here", threads=2)
    with kept, fresh:
        for _ in range(RESTARTS):
            run("systemctl", "restart", PROXY)
            time.sleep(0.2)
    helped = _helped()
    for name, load in (("kept", kept), ("new", fresh)):
        say(f"{name} connections: {load.sent} requests, {len(load.failures)} failed, slowest {load.slowest:.2f} s")
    say(f"{RESTARTS} restarts, {helped} helpers")
    assert helped >= RESTARTS, helped
    for load in (kept, fresh):
        assert load.sent > 100 and not load.failures, load.told()


def no_new_connection_waits_for_a_download_that_began_before():
    _no_helper()
    with _Download() as download, Load("moved.localhost", wanted="here", threads=2) as load:
        restart = threading.Thread(target=run, args=("systemctl", "restart", PROXY))
        started = time.monotonic()
        restart.start()
        answered = 0
        while state(PROXY) == "deactivating" or not answered:
            answered += get("moved.localhost") == (200, "here") and state(PROXY) == "deactivating"
            assert time.monotonic() < started + 30
        drained = time.monotonic() - started
        restart.join()
    say(f"the drain took {drained:.1f} s, {answered} requests were answered meanwhile")
    say(f"{load.sent} requests, {len(load.failures)} failed, slowest {load.slowest:.2f} s")
    assert download.got == SIZE, f"{download.got} of {SIZE} bytes"
    assert answered > 1 and not load.failures, load.told()


def new_routes_wait_until_the_helper_has_ended():
    run("systemctl", "restart", PROXY)
    deploy_site("moved", "there")
    assert get("moved.localhost") == (200, "there")
    assert state(HELPER) == "inactive"


def the_helper_has_no_more_rights_and_writes_no_state():
    before = _files()
    with _Download():
        run("systemctl", "kill", "--signal=TERM", "--kill-who=main", PROXY)
        wait_for_state(HELPER, "active")
        pid = main_pid(HELPER)
        status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        uid = run("id", "-u", "temps-proxy").strip()
        assert status["Uid"].split() == [uid] * 4
        assert int(status["CapEff"], 16) == 0 and status["NoNewPrivs"] == "1" and status["Seccomp"] == "2"
        _mounts_read_only(pid)
        assert get("moved.localhost") == (200, "there")
        say(show(HELPER, "StatusText"))
    run("systemctl", "start", PROXY)
    assert _files() == before
    _no_helper()


def a_stop_leaves_no_helper_behind():
    run("systemctl", "stop", PROXY)
    assert main_pid(PROXY) == 0
    wait_for_state(HELPER, "inactive")
    # The sockets are open all the while, and bring the proxy back.
    assert get("moved.localhost") == (200, "there")
    assert main_pid(PROXY) != 0


def a_public_socket_that_was_stopped_by_hand_keeps_no_helper_from_serving():
    _no_helper()
    helped = _helped()
    run("systemctl", "stop", "temps-proxy-https.socket")
    # To start it again is part of the proxy's restart, after the proxy's stop, which waits for the helper.
    run("systemctl", "restart", PROXY)
    assert _helped() == helped + 1
    assert get("moved.localhost") == (200, "there")
    assert state("temps-proxy-https.socket") == "active"
    _no_helper()
    run("systemctl", "stop", "temps-proxy-https.socket")
    run("systemctl", "stop", PROXY)
    assert state(HELPER) == "active" and _helped() == helped + 2
    # The helper has nothing of what was stopped.
    run("systemctl", "start", "temps-proxy-https.socket", PROXY)
    assert get("moved.localhost") == (200, "there")
    _no_helper()


def without_a_port_that_somebody_took_the_others_are_served():
    run("systemctl", "stop", "temps-proxy-https.socket")
    run("systemctl", "stop", PROXY)
    with socket.create_server(("0.0.0.0", 443)):
        helped = _helped()
        run("systemctl", "start", PROXY)
        assert state("temps-proxy-https.socket") == "failed"
        with Load("moved.localhost", wanted="there", threads=2) as load:
            for _ in range(3):
                run("systemctl", "restart", PROXY)
                time.sleep(0.2)
        say(f"{load.sent} requests, {len(load.failures)} failed, slowest {load.slowest:.2f} s")
        assert load.sent > 10 and not load.failures, load.told()
        assert _helped() == helped + 3
    run("systemctl", "reset-failed", "temps-proxy-https.socket")
    run("systemctl", "restart", PROXY)
    assert state("temps-proxy-https.socket") == "active"


def a_killed_proxy_fails_what_was_in_flight_and_nothing_else():
    kept = Load("moved.localhost", wanted="there", threads=2, keeps=True)
    fresh = Load("moved.localhost", wanted="there", threads=2)
    with kept, fresh:
        time.sleep(1)
        kill(main_pid(PROXY), signal.SIGKILL)
        time.sleep(3)
    for name, load in (("kept", kept), ("new", fresh)):
        say(f"{name} connections: slowest {load.slowest:.2f} s, {load.told()}")
        # One request of each client was in flight at most.
        assert len(load.failures) <= load.threads, load.told()


def a_killed_helper_costs_no_restart():
    with _Download():
        restart = threading.Thread(target=run, args=("systemctl", "restart", PROXY))
        restart.start()
        wait_for_state(HELPER, "active")
        kill(main_pid(HELPER), signal.SIGKILL)
        restart.join()
    run("systemctl", "reset-failed", HELPER)
    deploy_site("moved", "again")
    assert get("moved.localhost") == (200, "again")
    assert "moved" in temps("app", "list")


class _Download:
    """A client that takes a large file slowly, from before the block until the file has ended."""

    got = 0

    def __enter__(self):
        self._socket = socket.socket()
        # So that most of the file waits in the proxy, not in the kernel.
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 10)
        self._socket.settimeout(30)
        self._socket.connect(("127.0.0.1", 80))
        self._socket.sendall(b"GET /large HTTP/1.1\r\nHost: moved.localhost\r\nConnection: close\r\n\r\n")
        head = b""
        while b"\r\n\r\n" not in head:
            head += self._socket.recv(1)
        assert head.startswith(b"HTTP/1.1 200"), head
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        return self

    def __exit__(self, *_):
        self._reader.join(30)
        self._socket.close()

    def _read(self) -> None:
        while part := self._socket.recv(SIZE // 100):
            self.got += len(part)
            time.sleep(DOWNLOAD * len(part) / SIZE)


def _helped() -> int:
    """How many helpers have served so far."""
    return len(journal(f"MESSAGE_ID={message_id('A helper serves while the proxy is restarted')}"))


def _site(app: str, text: str) -> None:
    large = Path("/var/tmp/sites") / app / "large"
    large.parent.mkdir(parents=True, exist_ok=True)
    large.write_bytes(bytes(SIZE))
    deploy_site(app, text)


def _no_helper() -> None:
    wait("there is no helper", lambda: state(HELPER) != "active" and main_pid(HELPER) == 0, 40)


def _mounts_read_only(pid: int) -> None:
    """Nothing of the proxy's state is writable but the access events."""
    options = {}
    for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines():
        place, rights = line.split()[4:6]
        options[place] = rights.split(",")[0]
    assert options["/"] == "ro", options["/"]
    writable = [place for place, rights in options.items() if place.startswith("/var/lib") and rights == "rw"]
    assert writable == ["/var/lib/temps/proxy/spool"], writable


def _files() -> dict[str, int]:
    """What the proxy keeps, with the time of the last change; without access events."""
    files = (path for path in Path("/var/lib/temps/proxy").rglob("*") if path.is_file())
    return {str(path): path.stat().st_mtime_ns for path in files if "spool" not in path.parts}
