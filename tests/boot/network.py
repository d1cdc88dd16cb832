"""What networks of apps and builds are tried with: another machine, services of this one, and addresses."""

import contextlib
import re
import socket
import subprocess
import threading
from pathlib import Path

from installed import run, show, wait
from samples import app_units

# Another machine, and the host as it sees it.
OUTSIDE, OUR_END = "198.51.100.2", "198.51.100.1"
# A listener of the host that is none of ours.
HOST_PORT = 9922
_SERVE = """
import socket
server = socket.create_server(("{host}", 80))
print("listening")
while True:
    connection, address = server.accept()
    print(address[0])
    connection.close()
"""


@contextlib.contextmanager
def outside():
    """Another machine behind a link of this one, with a service; yields what tells who has called it."""
    for line in (
        "netns add outside",
        "link add uplink type veth peer name eth0 netns outside",
        f"address add {OUR_END}/24 dev uplink",
        "link set uplink up",
        "-n outside link set lo up",
        f"-n outside address add {OUTSIDE}/24 dev eth0",
        "-n outside link set eth0 up",
        f"-n outside route add default via {OUR_END}",
        f"route add default via {OUTSIDE}",
    ):
        run("ip", *line.split())
    # The way to the outside is a virtual link here, which only that may be.
    run("systemctl", "reload-or-restart", "temps-network.service")
    log = Path("/var/tmp/outside.log")
    with open(log, "w") as output:
        line = ["nsenter", "--net=/run/netns/outside", "python3", "-u", "-c", _SERVE.format(host=OUTSIDE)]
        server = subprocess.Popen(line, stdout=output, stderr=output)
    try:
        wait("the outside is there", lambda: "listening" in log.read_text())
        yield lambda: set(log.read_text().split()) - {"listening"}
    finally:
        server.kill()
        server.wait()
        run("ip", "route", "delete", "default", "via", OUTSIDE)
        run("ip", "netns", "delete", "outside")


class Listener:
    """A service of the host on all its addresses; what it yields grows with every visitor."""

    def __enter__(self):
        self.server = socket.create_server(("0.0.0.0", HOST_PORT))
        self.hits: list = []
        threading.Thread(target=self._serve, daemon=True).start()
        return self.hits

    def __exit__(self, *_):
        # Who waits in `accept` keeps it open otherwise.
        self.server.shutdown(socket.SHUT_RDWR)
        self.server.close()

    def _serve(self):
        while True:
            try:
                connection, address = self.server.accept()
            except OSError:
                return
            self.hits.append(address)
            connection.close()


def unit_of(app: str) -> str:
    """The unit of its one instance."""
    found = [unit for unit in app_units() if show(unit, "Description") == f"Temps: app {app}"]
    assert len(found) == 1, (app, found)
    return found[0]


def address_of(app: str) -> str:
    """The address of its one instance."""
    return re.search(r"inet ([0-9.]+)", _inside(app, "-4", "address", "show", "eth0"))[1]


def gateway_of(app: str) -> str:
    """The host as its instance sees it."""
    return re.search(r"via ([0-9.]+)", _inside(app, "route", "show", "default"))[1]


def own_addresses() -> list[str]:
    """Those of the host."""
    return re.findall(r"inet ([0-9.]+)", run("ip", "-4", "address", "show", "scope", "global"))


def _inside(app: str, *line: str) -> str:
    return run("nsenter", f"--net={show(unit_of(app), 'NetworkNamespacePath')}", "ip", *line)
