"""The sample apps, as scenarios deploy them, and their units."""

import shutil
from pathlib import Path

from installed import run

SAMPLES = Path("/srv/tests/apps")
SOURCES = Path("/var/tmp/apps")
# What the host has made of those that need a compiler.
COMPILED = Path("/srv/out/apps")


def make(app: str, version: str, variant: str = "healthy", sample: str = "python") -> Path:
    """The source of a sample app."""
    source = SOURCES / app
    shutil.rmtree(source, ignore_errors=True)
    compiled = COMPILED / sample
    shutil.copytree(compiled if compiled.exists() else SAMPLES / sample, source)
    (source / "version").write_text(version)
    (source / "variant").write_text(variant)
    return source


def app_units() -> list[str]:
    """The units of all instances on the systemd runtime, also of those that have ended."""
    lines = run("systemctl", "list-units", "--all", "--plain", "--no-legend", "temps-app-*").splitlines()
    return [line.split()[0] for line in lines]
