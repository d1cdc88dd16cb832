"""Holds systemd/ to what systemd says of it and to what the code expects, without booting anything."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

from machine import ROOT, Machine
from outcome import Outcome

sys.path.insert(0, str(ROOT / "tests/boot"))
import stage  # noqa: E402

UNITS = "usr/lib/systemd/system"
# Exposure in tenths (systemd-analyze security): what is allowed, not what is reached.
EXPOSURE = {
    "temps-proxy": 16,
    "temps-proxy-handover": 16,
    "temps-deployd": 15,
    "temps-reconcile": 5,
    "temps-failure@": 4,
    # They change the host's network, the second with a mount that others see.
    "temps-network": 20,
    "temps-netns@": 45,
}
# What every service says, or says in a comment why it does not.
HARDENING = """
    AmbientCapabilities CapabilityBoundingSet DevicePolicy IPAddressDeny KeyringMode LockPersonality
    MemoryDenyWriteExecute NoNewPrivileges PrivateDevices PrivateIPC PrivateMounts PrivateNetwork PrivateTmp
    PrivateUsers ProcSubset ProtectClock ProtectControlGroups ProtectHome ProtectHostname ProtectKernelLogs
    ProtectKernelModules ProtectKernelTunables ProtectProc ProtectSystem RemoveIPC RestrictAddressFamilies
    RestrictNamespaces RestrictRealtime RestrictSUIDSGID SystemCallArchitectures SystemCallErrorNumber
    SystemCallFilter UMask
""".split()
# And every unit of them that goes on running.
LIFECYCLE = "Restart RestartPreventExitStatus TimeoutStopSec WatchdogSec".split()
MESSAGE_ID = re.compile(r'MessageId::new\("([0-9a-f]{32})"\)')


def check(machine: Machine) -> Outcome:
    if shutil.which("systemd-analyze") is None:
        return Outcome(skipped=["systemd is not installed (apt-get install systemd)"])
    result = Outcome()
    tree = machine.work / "installed"
    _install(tree)
    _verify(machine, tree, result)
    for unit, threshold in EXPOSURE.items():
        path = str(ROOT / f"systemd/system/{unit}.service")
        line = ["systemd-analyze", "security", "--offline=true", f"--threshold={threshold}", path]
        result.check(f"exposure of {unit} is at most {threshold / 10}", machine.run(line, 60))
    services = sorted((ROOT / "systemd/system").glob("*.service"))
    unlisted = {path.stem for path in services} ^ set(EXPOSURE)
    result.check("every service has an allowed exposure", f"not listed: {unlisted}" if unlisted else None)
    for path in services:
        result.check(f"{path.name} is hardened or says why not", _loosened(path.read_text()))
    _users(machine, tree, result)
    _catalog(machine, tree, result)
    _sockets(result)
    shutil.rmtree(tree)
    return result


def _install(tree: Path) -> None:
    """The platform as it is installed, with the host's own units for ours to refer to."""
    program = tree.parent / "program"
    program.write_text("#!/bin/sh\n")
    stage.stage(tree, program)
    shutil.copytree("/usr/lib/systemd/system", tree / UNITS, symlinks=True, dirs_exist_ok=True)
    for name in ("kill", "sh"):
        shutil.copy(program, tree / "usr/bin" / name)
        (tree / "usr/bin" / name).chmod(0o755)
    (tree / "etc").mkdir()


def _verify(machine: Machine, tree: Path, result: Outcome) -> None:
    """`systemd-analyze verify` accepts every unit, and would not accept one with a mistake."""
    line = ["systemd-analyze", "verify", f"--root={tree}", "--man=no", "--recursive-errors=no"]
    ours = sorted(path.name for path in (ROOT / "systemd/system").iterdir() if path.is_file())
    names = [name.replace("@.", "@x.") for name in ours]
    result.check("systemd-analyze verify", machine.run([*line, *names], 60))
    mistake = tree / UNITS / "temps-mistake.service"
    mistake.write_text("[Service]\nExecStart=/usr/bin/temps\nNoSuchDirective=yes\n")
    found = machine.run([*line, mistake.name], 60)
    result.check("a mistake would be found", None if found else "it was not")


def _loosened(text: str) -> str | None:
    settings = set(re.findall(r"^([A-Za-z]+)=", text, re.MULTILINE))
    comments = " ".join(re.findall(r"^#(.*)$", text, re.MULTILINE))
    wanted = HARDENING + (LIFECYCLE if "Type=notify" in text else [])
    missing = [name for name in wanted if name not in settings and f"{name}=" not in comments]
    if "Documentation" not in settings:
        missing.append("Documentation")
    return f"neither set nor explained: {', '.join(missing)}" if missing else None


def _users(machine: Machine, tree: Path, result: Outcome) -> None:
    result.check("systemd-sysusers", machine.run(["systemd-sysusers", f"--root={tree}"], 60))
    users = _names(tree / "etc/passwd") | _names(tree / "etc/group")
    wanted = set()
    for path in (ROOT / "systemd/system").iterdir():
        if path.is_file():
            wanted |= set(re.findall(r"^(?:Socket)?(?:User|Group)=(\S+)", path.read_text(), re.MULTILINE))
    missing = wanted - users - {"root"}
    result.check("every user of a unit is made", f"not made: {missing}" if missing else None)
    line = ["systemd-tmpfiles", f"--root={tree}", "--create", "temps.conf"]
    result.check("systemd-tmpfiles", machine.run(line, 60))
    made = (tree / "run/temps").is_dir() and (tree / "var/lib/temps").is_dir()
    result.check("the directories are made", None if made else "they are not there")


def _names(path: Path) -> set[str]:
    return {line.split(":")[0] for line in path.read_text().splitlines()} if path.exists() else set()


def _catalog(machine: Machine, tree: Path, result: Outcome) -> None:
    """Every MESSAGE_ID has one entry in the catalog, and every entry a MESSAGE_ID."""
    line = ["journalctl", f"--root={tree}", "--update-catalog"]
    result.check("journalctl --update-catalog", machine.run(line, 60))
    line = ["journalctl", f"--root={tree}", "--list-catalog"]
    listed = subprocess.run(line, capture_output=True, text=True, timeout=60, check=False).stdout
    known = set(re.findall(r"^[0-9a-f]{32}", listed, re.MULTILINE))
    text = (ROOT / "systemd/catalog/temps.catalog").read_text()
    entries = re.findall(r"^-- ([0-9a-f]{32})\nSubject: .+\nDefined-By: Temps\n", text, re.MULTILINE)
    ids = [
        number
        for path in sorted(ROOT.glob("daemons/*/src/event.rs"))
        for number in MESSAGE_ID.findall(path.read_text())
    ]
    twice = {number for number in ids + entries if ids.count(number) > 1 or entries.count(number) > 1}
    result.check("no MESSAGE_ID is used twice", f"twice: {twice}" if twice else None)
    for what, missing in (
        ("every MESSAGE_ID is explained", set(ids) - set(entries)),
        ("every explanation has a MESSAGE_ID", set(entries) - set(ids)),
        ("every entry was understood", set(entries) - known),
    ):
        result.check(what, f"not: {', '.join(sorted(missing))}" if missing else None)
    result.check("there are events", None if ids else "none was found")


def _sockets(result: Outcome) -> None:
    """The names and paths of sockets are those of the code."""
    constant = re.compile(r'^pub(?:\(\w+\))? const (?:HTTPS?|CONTROL|UPLOAD): .*= \[?"([\w-]+)"', re.MULTILINE)
    known = {
        f"temps-{name}.service": {
            found
            for path in sorted((ROOT / f"daemons/{name}/src").rglob("*.rs"))
            for found in constant.findall(path.read_text())
        }
        for name in ("proxy", "deployd")
    }
    # It is the proxy itself that is called there, and not by the command.
    known["temps-proxy-handover.service"] = {"handover"}
    paths = set(re.findall(r'"([\w-]+\.sock)"', (ROOT / "daemons/temps/src/instance.rs").read_text()))
    paths |= set(re.findall(r'/run/temps/(proxy-[\w-]+\.sock)"', (ROOT / "daemons/proxy/src/config.rs").read_text()))
    units = [path.read_text() for path in sorted((ROOT / "systemd/system").glob("*.socket"))]
    passed: dict[str, set[str]] = {service: set() for service in known}
    for text in units:
        passed.setdefault(_value(text, "Service"), set()).add(_value(text, "FileDescriptorName"))
    result.check("the sockets have the names the daemons know", None if passed == known else f"{passed}, not {known}")
    bound = {Path(_value(text, "ListenStream")).name for text in units if "/run/temps/" in text}
    result.check("the sockets are where the command looks", None if bound == paths else f"{bound}, not {paths}")


def _value(text: str, name: str) -> str:
    found = re.search(rf"^{name}=(.*)$", text, re.MULTILINE)
    return found.group(1) if found else ""
