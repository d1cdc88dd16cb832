"""Debian roots to boot: made once with debootstrap, kept in the cargo target directory."""

import fcntl
import hashlib
import os
import shutil
import subprocess
from pathlib import Path

from fault import Fault

MIRROR = os.environ.get("TEMPS_DEBIAN_MIRROR", "http://deb.debian.org/debian")
# The oldest systemd that is supported (252), and the newest stable one (257).
SUITES = ("bookworm", "trixie")
# A slow mirror; the caller's own limit is longer.
LIMIT = 20 * 60
# Added to the key: raised when `_finish` changes.
RECIPE = 1


def packages() -> list[str]:
    text = (Path(__file__).parent / "packages.txt").read_text()
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    return [line for line in lines if line]


def cached(suite: str, cache: Path) -> Path:
    """The root of a suite, never to be written to. Made if it is not there; two callers make one."""
    wanted = packages()
    key = hashlib.sha256(repr((RECIPE, suite, wanted)).encode()).hexdigest()[:12]
    root = cache / f"{suite}-{key}"
    cache.mkdir(parents=True, exist_ok=True)
    with open(cache / f"{suite}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not root.is_dir():
            for old in cache.glob(f"{suite}-*"):
                shutil.rmtree(old)
            _make(suite, wanted, root, cache / f"{suite}.log")
    return root


def _make(suite: str, wanted: list[str], root: Path, log: Path) -> None:
    partial = root.with_name(f"{root.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    print(f"      making a root of Debian {suite}: some minutes, once", flush=True)
    line = ["debootstrap", "--variant=minbase", f"--include={','.join(wanted)}", suite, str(partial), MIRROR]
    with open(log, "w") as output:
        try:
            done = subprocess.run(
                line, stdin=subprocess.DEVNULL, stdout=output, stderr=output, timeout=LIMIT, check=False
            )
        except subprocess.TimeoutExpired:
            raise Fault(f"debootstrap {suite} was not done after {LIMIT} s; see {log}") from None
    if done.returncode != 0:
        last = (log.read_text(errors="replace").strip().splitlines() or ["nothing"])[-1]
        raise Fault(f"debootstrap {suite} failed, and said last: {last}; see {log}")
    _finish(partial)
    partial.rename(root)


def _finish(root: Path) -> None:
    """Makes it small, and as the first boot of an installed system would find it."""
    for heap in ("var/cache/apt", "var/lib/apt/lists", "usr/share/doc", "usr/share/locale"):
        shutil.rmtree(root / heap, ignore_errors=True)
    (root / "var/cache/apt/archives/partial").mkdir(parents=True)
    (root / "var/lib/apt/lists/partial").mkdir(parents=True)
    (root / "etc/hostname").write_text("temps-test\n")
    # Each boot would be the first one otherwise: a container's manager would ask questions.
    (root / "etc/machine-id").write_text("")
