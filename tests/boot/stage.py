"""Puts the files of the platform into a tree, by the list that the packages are made from."""

import os
import shutil
import tomllib
from pathlib import Path

from fault import Fault

ROOT = Path(__file__).resolve().parents[2]
LIST = ROOT / "packaging/install.toml"
# The one source in the list that is built.
BINARY = "temps"


def stage(destination: Path, binary: Path) -> None:
    """Installs below `destination`, with `binary` as the built one. Manuals stay as they are: nobody
    reads them where nothing but the platform is looked at."""
    wanted = tomllib.loads(LIST.read_text())
    for file in wanted["file"]:
        if file.get("only", "deb") != "deb":
            continue
        source = binary if file["source"] == BINARY else ROOT / file["source"]
        if not source.is_file():
            raise Fault(f"packaging/install.toml names {source}, which is not there")
        to = destination / file["dest"].lstrip("/")
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, to)
        to.chmod(int(file.get("mode", "0644"), 8))
    for link in wanted["link"]:
        path = destination / link["path"].lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        os.symlink(link["target"], path)
