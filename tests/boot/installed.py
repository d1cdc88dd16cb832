"""The installed platform as scenarios see it from inside the root."""

import contextlib
import http.client
import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

_said: list[str] = []
# A call may start a daemon; nothing here takes longer.
PATIENCE = 30.0


class Skipped(Exception):
    """A case that cannot run here, and why."""


def say(text: str) -> None:
    """A figure or a finding, shown with the result of the case."""
    _said.append(text)


def case_output() -> list[str]:
    """What was said since the last call."""
    said, _said[:] = _said[:], []
    return said


def run(*line: str, user: str | None = None, limit: float = 120, fails: bool = False) -> str:
    """What a command prints, on both outputs if it is to fail; an assertion unless it ends as told."""
    if user:
        line = ("setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups", *line)
    done = subprocess.run(line, capture_output=True, text=True, timeout=limit, stdin=subprocess.DEVNULL, check=False)
    both = done.stdout + done.stderr
    assert (done.returncode != 0) == fails, f"`{' '.join(line)}` ended with {done.returncode}: {both.strip()}"
    return both if fails else done.stdout


def temps(*arguments: str, user: str | None = None, limit: float = 120, fails: bool = False) -> str:
    """`temps …`."""
    return run("temps", *arguments, user=user, limit=limit, fails=fails)


def temps_json(*arguments: str, fails: bool = False):
    """`temps … --json`, read."""
    return json.loads(temps(*arguments, "--json", fails=fails))


def show(unit: str, name: str) -> str:
    """A property of a unit."""
    return run("systemctl", "show", "--value", f"--property={name}", unit).strip()


def state(unit: str) -> str:
    """Its active state."""
    return show(unit, "ActiveState")


def main_pid(unit: str) -> int:
    """The main process of a service; 0 if it does not run."""
    return int(show(unit, "MainPID"))


def wait(what: str, until: Callable[[], object], limit: float = PATIENCE) -> None:
    """Waits until it is true."""
    end = time.monotonic() + limit
    while not until():
        assert time.monotonic() < end, f"{what}: not after {limit:.0f} s"
        time.sleep(0.1)


def wait_for_state(unit: str, wanted: str, limit: float = PATIENCE) -> None:
    """Waits until a unit is `active`, `inactive` or `failed`."""
    wait(f"{unit} is {wanted}", lambda: state(unit) == wanted, limit)


def get(host: str, path: str = "/", address: str = "127.0.0.1", port: int = 80) -> tuple[int, str]:
    """Status and body of a request to the proxy."""
    with contextlib.closing(http.client.HTTPConnection(address, port, timeout=PATIENCE)) as connection:
        connection.request("GET", path, headers={"Host": host})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()


def deploy_site(app: str, text: str) -> None:
    """Deploys a static site with one page."""
    site = Path("/var/tmp/sites") / app
    site.mkdir(parents=True, exist_ok=True)
    (site / "index.html").write_text(text)
    temps("deploy", app, "--static", str(site))


def journal(*matches: str, boot: bool = True) -> list[dict]:
    """Entries of the journal."""
    line = ["journalctl", "--output=json", "--no-pager", *(["--boot"] if boot else []), *matches]
    run("journalctl", "--sync")
    return [json.loads(text) for text in run(*line).splitlines()]


def message_id(subject: str) -> str:
    """The MESSAGE_ID of the catalog's entry with this subject."""
    catalog = Path("/usr/lib/systemd/catalog/temps.catalog").read_text()
    for entry in catalog.split("\n-- ")[1:]:
        number, header, *_ = entry.splitlines()
        if header == f"Subject: {subject}":
            return number
    raise AssertionError(f"the catalog has no entry {subject!r}")


@contextlib.contextmanager
def file(path: str, text: str):
    """A file that is gone afterwards."""
    place = Path(path)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(text)
    try:
        yield place
    finally:
        place.unlink()


def kill(pid: int, number: int) -> None:
    """Sends a signal."""
    os.kill(pid, number)
