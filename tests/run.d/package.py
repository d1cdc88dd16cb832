"""The suite package: the packages of the tested binary, judged by the tools of their distributions, and
installed, upgraded and removed in booted roots."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

from machine import ROOT, TARGET, Machine
from outcome import Outcome

sys.path.insert(0, str(ROOT / "tests/boot"))
import root  # noqa: E402
import run as booted  # noqa: E402

# As many as the scenarios want, each with a higher version.
DEBS = range(1, 7)
RPMS = range(1, 3)
BUILD_LIMIT = 20 * 60
TOOL_LIMIT = 120
# Making a root takes some minutes, once; its boots and scenarios two.
ROOT_LIMIT = 40 * 60


def check(machine: Machine) -> Outcome:
    result = Outcome()
    problem = machine.run(["cargo", "build", "--quiet", "--locked", "--package", "xtask"], BUILD_LIMIT)
    problem = problem or _pack(machine, "deb", DEBS)
    result.check("the Debian packages are built", problem)
    if problem:
        return result
    _lintian(machine, machine.work / "debs/1.deb", result)
    has_rpm = _rpm(machine, result)
    if problem := booted.missing():
        result.skipped.append(problem)
        return result
    for suite in root.SUITES:
        report = machine.work / f"package.{suite}.jsonl"
        line = ["python3", "-B", "tests/package/run.py", "--debian", suite, "--report", str(report)]
        line += ["--debs", str(machine.work / "debs"), "--xtask", str(TARGET / "debug/xtask")]
        line += ["--rpms", str(machine.work / "rpms")] if has_rpm else []
        problem = machine.run(line, ROOT_LIMIT)
        lines = [json.loads(text) for text in report.read_text().splitlines()] if report.exists() else []
        for case in lines:
            result.check(case["case"], case.get("problem"))
            if said := case.get("said"):
                result.said.append((case["case"], said))
        if problem and not any(case.get("problem") for case in lines):
            result.failed.append(f"{suite}: {problem}")
    return result


def _pack(machine: Machine, kind: str, numbers: range) -> str | None:
    """Builds WORK/debs/N.deb or WORK/rpms/N.rpm for each number; the problem, if there is one."""
    packages = machine.work / f"{kind}s"
    packages.mkdir()
    line = [str(TARGET / "debug/xtask"), kind, "--fast", "--bin", str(machine.binary)]
    for number in numbers:
        out = machine.work / f"{kind}-{number}"
        if problem := machine.run([*line, "--out", str(out), "--version", f"0.1.{number}"], TOOL_LIMIT):
            return problem
        for package in out.glob(f"*.{kind}"):
            package.rename(packages / f"{number}.{kind}")
    return None


def _lintian(machine: Machine, deb: Path, result: Outcome) -> None:
    if shutil.which("lintian") is None:
        result.skipped.append("lintian is not installed (apt-get install lintian)")
        return
    line = ["lintian", "--allow-root", "--fail-on", "error,warning", str(deb)]
    result.check("lintian finds no error and no warning", machine.run(line, TOOL_LIMIT))


def _rpm(machine: Machine, result: Outcome) -> bool:
    """Whether there are packages to be installed."""
    if shutil.which("rpmbuild") is None:
        result.skipped.append("rpmbuild is not installed (apt-get install rpm)")
        return False
    problem = _pack(machine, "rpm", RPMS)
    result.check("the rpm packages are built", problem)
    if problem:
        return False
    package = machine.work / "rpms/1.rpm"
    if shutil.which("rpmlint") is None:
        result.skipped.append("rpmlint is not installed (apt-get install rpmlint)")
    else:
        line = ["rpmlint", "--rpmlintrc", "packaging/rpm/temps.rpmlintrc", str(package)]
        result.check("rpmlint finds no error", machine.run(line, TOOL_LIMIT))
    files = set(_ask("rpm", "-qlp", str(package)).splitlines())
    wanted = {
        "/usr/bin/temps",
        "/usr/libexec/temps/temps-proxy",
        *(f"/usr/lib/systemd/system/{path.name}" for path in (ROOT / "systemd/system").iterdir() if path.is_file()),
        "/usr/share/licenses/temps/LICENSE",
        "/usr/share/zsh/site-functions/_temps",
    }
    missing = ", ".join(sorted(wanted - files))
    result.check("the rpm holds what is installed", f"not in it: {missing}" if missing else None)
    scripts = _ask("rpm", "-qp", "--scripts", str(package))
    parses = subprocess.run(["sh", "-n"], input=_shell(scripts), text=True, capture_output=True, check=False)
    filled = "%{" not in scripts and "systemd-sysusers temps.conf" in scripts
    problem = parses.stderr.strip() or (None if filled else "a macro is left in them, or they are not there")
    result.check("the scriptlets of the rpm are shell", problem)
    return True


def _shell(scripts: str) -> str:
    """Without the headings that rpm puts between the scriptlets."""
    lines = scripts.splitlines()
    return "\n".join(line for line in lines if "scriptlet (using /bin/sh)" not in line) + "\n"


def _ask(*line: str) -> str:
    return subprocess.run(line, capture_output=True, text=True, timeout=TOOL_LIMIT, check=True).stdout
