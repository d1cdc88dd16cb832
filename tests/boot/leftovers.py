"""What the installed platform makes on the engine of the host and in its network; nobody else's."""

import contextlib
import hashlib
import http.client
import json
import socket
import subprocess
from urllib.parse import quote

SOCKET = "/run/docker.sock"
# Named by the state directory, as deployd does.
INSTALLATION = hashlib.sha256(b"/var/lib/temps/deployd").hexdigest()[:12]
# Of all of this installation's containers.
BRIDGE = f"tpd-{INSTALLATION[:10]}"
# Where a scenario listens, beside the addresses of the host.
LINK_LOCAL = "169.254.77.77"
LIMIT = 60


class _Engine(http.client.HTTPConnection):
    """A connection to the engine."""

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(LIMIT)
        self.sock.connect(SOCKET)


def missing() -> str | None:
    """Why the platform cannot be tried with the engine of this host."""
    try:
        there = _found("containers") + _found("networks")
    except OSError:
        return f"no container engine answers at {SOCKET}"
    if there:
        return "this machine has containers of an installed platform, which are not to be disturbed"
    return None


def remove() -> list[str]:
    """Removes containers, networks and the address; says which."""
    removed = []
    with contextlib.suppress(OSError):
        for kind in ("containers", "networks"):
            for name, path in _found(kind):
                status = _call("DELETE", path)[0]
                removed.append(f"{kind[:-1]} {name} ({status})")
    line = ["ip", "address", "delete", f"{LINK_LOCAL}/32", "dev", "lo"]
    if subprocess.run(line, capture_output=True, check=False).returncode == 0:
        removed.append(f"address {LINK_LOCAL}")
    return removed


def _found(kind: str) -> list[tuple[str, str]]:
    """Names, and how each is removed."""
    filters = quote(json.dumps({"label": [f"sh.temps.installation={INSTALLATION}"]}))
    status, found = _call("GET", f"/{kind}{'/json?all=true&' if kind == 'containers' else '?'}filters={filters}")
    assert status == 200, found
    forced = "?force=true&v=true" if kind == "containers" else ""
    return [(one.get("Name") or one["Names"][0], f"/{kind}/{one['Id']}{forced}") for one in found]


def _call(method: str, path: str) -> tuple[int, list]:
    with contextlib.closing(_Engine("engine")) as connection:
        connection.request(method, path)
        answer = connection.getresponse()
        text = answer.read()
        return answer.status, json.loads(text) if text else []
