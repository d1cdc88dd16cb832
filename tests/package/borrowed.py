"""The host's rpm, for a root that has none: Debian's rpm brings up a root of Debian as well as Fedora's
does one of Fedora. It knows of no other package there: what ours depends on is not asked (--nodeps)."""

import re
import shutil
import subprocess
from pathlib import Path

from fault import Fault

# Where rpm finds its macros. A link on some systems.
CONFIGURATION = Path("/usr/lib/rpm")
WRAPPER = """#!/bin/sh
# The scriptlets run the root's own programs with the root's own libraries.
here=${0%/*}
export RPM_CONFIGDIR="$here/configuration"
exec "$here/lib/LOADER" --library-path "$here/lib" "$here/rpm.real" "$@"
"""


def rpm(destination: Path) -> None:
    """Copies rpm, its macros and its libraries; `destination`/rpm runs it anywhere."""
    program = shutil.which("rpm")
    if program is None:
        raise Fault("rpm is not installed (apt-get install rpm)")
    said = subprocess.run(["ldd", program], capture_output=True, text=True, timeout=60, check=True).stdout
    libraries = re.findall(r"(/\S+) \(0x", said)
    loader = next(path for path in libraries if Path(path).name.startswith("ld-"))
    (destination / "lib").mkdir(parents=True)
    for path in libraries:
        shutil.copy(path, destination / "lib")
    shutil.copy(program, destination / "rpm.real")
    shutil.copytree(CONFIGURATION, destination / "configuration", symlinks=False, ignore_dangling_symlinks=True)
    wrapper = destination / "rpm"
    wrapper.write_text(WRAPPER.replace("LOADER", Path(loader).name))
    wrapper.chmod(0o755)
