"""Puts the files of the platform into a tree, by the list that the packages are made from."""

import os
import shutil
import tomllib
from pathlib import Path

from fault import Fault

ROOT = Path(__file__).resolve().parents[2]
LIST = ROOT / "packaging/install.toml"
# Where systemd/, which mirrors the tree, is installed, and the links by which the binary is started.
MIRROR = {
    "system": "usr/lib/systemd/system",
    "catalog": "usr/lib/systemd/catalog",
    "sysusers.d": "usr/lib/sysusers.d",
    "tmpfiles.d": "usr/lib/tmpfiles.d",
}
LINKS = ("temps-proxy", "temps-deployd")


def stage(destination: Path, binary: Path) -> None:
    """Installs below `destination`, with `binary` as `/usr/bin/temps`."""
    if LIST.is_file():
        _by_list(destination, binary)
    else:
        _by_mirror(destination, binary)


def _by_list(destination: Path, binary: Path) -> None:
    wanted = tomllib.loads(LIST.read_text())
    for file in wanted.get("file", []):
        built = file["source"].startswith("target/") or file["source"] == "temps"
        source = binary if built else ROOT / file["source"]
        if not source.is_file():
            raise Fault(f"install.toml names {file['source']}, which is not there")
        _copy(source, _below(destination, file["dest"]), int(str(file.get("mode", "0644")), 8))
    for link in wanted.get("link", []):
        _link(_below(destination, link["path"]), link["target"])


def _by_mirror(destination: Path, binary: Path) -> None:
    _copy(binary, destination / "usr/bin/temps", 0o755)
    for part, place in MIRROR.items():
        source = ROOT / "systemd" / part
        for file in (path for path in sorted(source.rglob("*")) if path.is_file()):
            _copy(file, destination / place / file.relative_to(source), 0o644)
    for name in LINKS:
        _link(destination / "usr/libexec/temps" / name, "../../bin/temps")


def _below(destination: Path, path: str) -> Path:
    return destination / path.lstrip("/")


def _copy(source: Path, to: Path, mode: int) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, to)
    to.chmod(mode)


def _link(path: Path, target: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_symlink():
        path.unlink()
    os.symlink(target, path)
