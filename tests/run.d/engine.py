"""The container engine: the one that answers, or one of our own for the time of the run."""

import json
import os
import shutil
import subprocess
import time

from machine import Machine

# A cold start loads its networks and images.
START = 60.0
# With what it offers by default; then as it starts where file systems cannot be stacked.
ATTEMPTS: list[list[str]] = [[], ["--storage-driver=vfs"]]
LABEL = "sh.temps."
KINDS = ("container", "network", "volume", "image")


class Engine:
    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.daemon: subprocess.Popen | None = None
        self.problem: str | None = None
        self.before: set[tuple[str, str]] = set()

    def start(self) -> None:
        """Afterwards it answers, or `problem` says why not."""
        if not self._answers():
            self.problem = self._start_own()
        if self.problem is None:
            self.before = self._ours()

    def stop(self) -> list[str]:
        """Notes what was left behind, and removes it where nobody else can have made it."""
        notes = []
        if self.problem is None:
            left = sorted(self._ours() - self.before, key=lambda thing: KINDS.index(thing[0]))
            for kind, name in left if self.daemon else []:
                force = [] if kind == "network" else ["--force"]
                _docker(kind, "rm", *force, name)
            if left:
                kinds = [kind for kind, _ in left]
                counts = ", ".join(f"{kinds.count(kind)} {kind}s" for kind in dict.fromkeys(kinds))
                end = "removed" if self.daemon else "kept: the engine is not ours alone"
                notes.append(f"new in the container engine since the start: {counts} ({end})")
        if self.daemon:
            self.daemon.terminate()
            try:
                self.daemon.wait(30)
            except subprocess.TimeoutExpired:
                self.daemon.kill()
                self.daemon.wait()
        return notes

    def _answers(self) -> bool:
        return bool(_docker("version", "--format", "{{.Server.Version}}"))

    def _start_own(self) -> str | None:
        path = os.environ["PATH"] + ":/usr/sbin:/sbin"
        program = shutil.which("dockerd", path=path)
        if program is None or shutil.which("docker") is None:
            return "no container engine is installed (apt-get install docker.io)"
        if os.geteuid() != 0:
            return "no container engine answers, and only root can start one"
        if not os.path.ismount("/sys/fs/cgroup") and shutil.which("cgroupfs-mount", path=path):
            subprocess.run(["cgroupfs-mount"], check=False, timeout=30)
        log_path = self.machine.logs / "dockerd.log"
        for arguments in ATTEMPTS:
            with open(log_path, "ab") as log:
                self.daemon = subprocess.Popen(
                    [program, *arguments],
                    env=dict(os.environ, PATH=path),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            end = time.monotonic() + START
            while time.monotonic() < end and self.daemon.poll() is None:
                if self._answers():
                    return None
                time.sleep(0.5)
            self.daemon.kill()
            self.daemon.wait()
            self.daemon = None
        return f"dockerd does not start: {_reason(log_path.read_text(errors='replace'))}"

    def _ours(self) -> set[tuple[str, str]]:
        found = set()
        for kind in KINDS:
            every = ["--all", "--no-trunc"] if kind in ("container", "image") else []
            ids = (_docker(kind, "ls", "--quiet", *every) or "").split()
            if not ids:
                continue
            for thing in json.loads(_docker(kind, "inspect", *dict.fromkeys(ids)) or "[]"):
                config = thing.get("Config") if kind in ("container", "image") else thing
                labels = (config or {}).get("Labels") or {}
                if any(name.startswith(LABEL) for name in labels):
                    found.add((kind, thing.get("Id") or thing["Name"]))
        return found


def _reason(log: str) -> str:
    """The line that says it, which a stack trace may follow."""
    lines = log.strip().splitlines() or ["it says nothing"]
    said = [line for line in lines if "failed to start" in line or "level=fatal" in line]
    return (said or lines)[-1][-300:]


def _docker(*arguments: str) -> str | None:
    """What it prints; nothing if it fails."""
    try:
        done = subprocess.run(
            ["docker", *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    # What went away between list and inspect makes it fail, and the rest is printed.
    return done.stdout if done.returncode == 0 or done.stdout.startswith("[") else None
