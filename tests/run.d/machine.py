"""What the suites run in: a directory of their own, commands with a time limit, and an end at which
nothing of theirs is left."""

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from outcome import Outcome

ROOT = Path(__file__).resolve().parents[2]
TARGET = Path(os.environ["CARGO_TARGET_DIR"])
IN_CI = bool(os.environ.get("CI"))
# A line now and then, for machines that end a job which is silent.
HEARTBEAT = 60.0
_PR_SET_CHILD_SUBREAPER = 36
# What belongs to the engine ends with it, or with its container.
_ENGINE = ("dockerd", "containerd")


class Machine:
    """Everything a run makes outside the target directory, removed by `close`."""

    def __init__(self) -> None:
        # Short: the path of a Unix socket has at most 107 bytes.
        self.work = Path(tempfile.mkdtemp(prefix="t.", dir="/tmp"))
        # Some tests call a program as another user, who has to get to what they made inside.
        self.work.chmod(0o711)
        self.logs = TARGET / "test-logs"
        self.logs.mkdir(parents=True, exist_ok=True)
        # The one that runs; its log has its name.
        self.suite = "none"
        self.binary = self.work / "bin/temps"
        self.environment = dict(os.environ, TMPDIR=str(self.work), TEMPS_BIN=str(self.binary))
        # Where nextest writes, whatever the target directory is.
        self.report = ROOT / "target/nextest/ci/junit.xml"
        # What came of building, once it was tried.
        self.built: Outcome | None = None
        # Daemons of a test that was killed become our children, and end with us.
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)

    def log(self) -> Path:
        return self.logs / f"{self.suite}.log"

    def run(self, command: list[str], limit: float, **env: str) -> str | None:
        """Runs a command with its output added to the suite's log; returns what went wrong."""
        start = time.monotonic()
        with open(self.log(), "ab") as output:
            output.write(f"$ {' '.join(command)}\n".encode())
            output.flush()
            try:
                child = subprocess.Popen(
                    command,
                    cwd=ROOT,
                    env=self.environment | env,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            except OSError as error:
                return f"{command[0]} cannot be started: {error.strerror}"
            try:
                status = self._wait(child, start, limit)
            except BaseException:
                _kill_group(child)
                raise
        if status is None:
            _kill_group(child)
            return f"not done after {limit:.0f} s"
        return None if status == 0 else f"exit status {status} of {' '.join(command[:3])}"

    def _wait(self, child: subprocess.Popen, start: float, limit: float) -> int | None:
        while (left := start + limit - time.monotonic()) > 0:
            try:
                return child.wait(min(left, HEARTBEAT))
            except subprocess.TimeoutExpired:
                print(f"      … {time.monotonic() - start:.0f} s", flush=True)
        return None

    def end_leftovers(self) -> list[str]:
        """Kills every process that a suite left, and names them."""
        names = []
        for _ in range(50):
            left = _descendants(os.getpid())
            if not left:
                break
            for pid in left:
                names.append(_name(pid))
                _signal(pid, signal.SIGKILL)
            time.sleep(0.05)
            _reap()
        return sorted(set(filter(None, names)))

    def close(self) -> None:
        self.end_leftovers()
        shutil.rmtree(self.work, ignore_errors=True)
        self.report.unlink(missing_ok=True)
        for directory in list(self.report.relative_to(ROOT).parents)[:-1]:
            with contextlib.suppress(OSError):
                (ROOT / directory).rmdir()


def tree_files() -> list[Path]:
    """The files of the tree, those that git does not know yet too."""
    line = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    paths = (ROOT / name for name in sorted(listed.split("\0")) if name)
    return [path for path in paths if path.is_file()]


def _kill_group(child: subprocess.Popen) -> None:
    """SIGTERM to the whole group, so that a runner ends what it runs; then SIGKILL."""
    for number, patience in ((signal.SIGTERM, 15), (signal.SIGKILL, 5)):
        try:
            os.killpg(child.pid, number)
            child.wait(patience)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            continue


def _descendants(root: int) -> list[int]:
    """Everything below a process that runs, but not the engine and its containers."""
    children: dict[int, list[int]] = {}
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            name, _, rest = Path("/proc", entry, "stat").read_text().rpartition(")")
        except OSError:
            continue
        fields = rest.split()
        if fields[0] != "Z" and not name.partition("(")[2].startswith(_ENGINE):
            children.setdefault(int(fields[1]), []).append(int(entry))
    found, queue = [], [root]
    while queue:
        below = children.get(queue.pop(), [])
        found += below
        queue += below
    return found


def _name(pid: int) -> str:
    try:
        return Path("/proc", str(pid), "comm").read_text().strip()
    except OSError:
        return ""


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def _reap() -> None:
    """Collects adopted processes that ended. Called while no command runs."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass
