"""Boots the installed platform in Debian and reports what its scenarios found.

    tests/boot/run.py [--debian SUITE]... [--binary FILE | --deb FILE] [--only SCENARIO]...

The platform is installed into a layer over a cached root (root.py, stage.py, install.sh), which is
booted with systemd-nspawn (enter.sh) as often as order.py says. Inside, inside.py runs the scenarios and
writes a line for each case; a case without a line has failed. To add a scenario, write
scenarios/NAME.py with functions that are named as sentences, and name it in order.py.
"""

import argparse
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import leftovers
import order
import root
import stage
from fault import Fault

TESTS = Path(__file__).resolve().parents[1]
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", TESTS.parent / "target"))
# What a machine needs to boot a root.
TOOLS = ("debootstrap", "systemd-nspawn", "unshare")
# A boot takes a second or two, its scenarios minutes.
BOOT_LIMIT = 10 * 60
INSTALL_LIMIT = 120
# systemd-nspawn's exit status when a root asks for a reboot (EXIT_FORCE_RESTART).
REBOOT = 133
# So much of a boot's journal is shown when something failed.
TAIL = 120


def main() -> int:
    options = _options()
    # So that what is booted ends with us, and its layer goes.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if problem := missing():
        print(f"SKIPPED: {problem}")
        return 0
    lines = []
    for suite in options.debian or root.SUITES[:1]:
        for world in order.WORLDS:
            try:
                lines += run(suite, world, options)
            except Fault as fault:
                lines.append({"case": f"{suite}: {world}", "problem": str(fault)})
                print(f"{suite} FAILED  {world}: {fault}")
    if options.report:
        options.report.write_text("".join(json.dumps(line) + "\n" for line in lines))
    failed = [line for line in lines if line.get("problem")]
    skipped = [line for line in lines if line.get("skipped")]
    print(f"{len(lines) - len(failed) - len(skipped)} passed, {len(failed)} failed, {len(skipped)} skipped")
    return 1 if failed or not lines else 0


def missing() -> str | None:
    """Why no root can be booted on this machine."""
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    if os.geteuid() != 0:
        return "only root can boot a root"
    if absent := [tool for tool in TOOLS if shutil.which(tool) is None]:
        return f"not installed: {', '.join(absent)} (apt-get install debootstrap systemd-container)"
    probe = ["unshare", "--mount", "sh", "-c", "mount --make-rprivate / && mount -t tmpfs tmpfs /mnt"]
    if subprocess.run(probe, capture_output=True, timeout=60, check=False).returncode != 0:
        return "this machine does not allow to mount, as most containers do not"
    return None


def run(suite: str, world: str, options: argparse.Namespace) -> list[dict]:
    """Boots one root through the scenarios of one world."""
    boots = order.chosen(world, options.only)
    if not boots:
        return []
    if world == "engine" and (problem := leftovers.missing()):
        return [{"case": f"{suite} {world}", "skipped": problem}]
    lower = root.cached(suite, TARGET / "boot")
    layer = Path(tempfile.mkdtemp(prefix=f"boot.{suite}.", dir=options.work))
    try:
        _prepare(layer, world, boots, options)
        install = enter(lower, layer, ["run", "sh", "/srv/install.sh"], INSTALL_LIMIT)
        if install != 0:
            raise Fault(f"installing failed with status {install}: {end(layer / 'console.log')}")
        lines = []
        for number in range(1, len(boots) + 1):
            status = enter(lower, layer, ["boot", world], BOOT_LIMIT)
            lines += report(suite, number, layer / "out", status)
            if (status == REBOOT) != (number < len(boots)):
                lines.append({"case": f"{suite} boot {number}", "problem": _ending(status, layer)})
                break
        if any(line.get("problem") for line in lines):
            show(layer)
        return lines
    finally:
        if world == "engine":
            _clean_host(lower, layer)
        if options.keep:
            print(f"kept: {layer}")
        else:
            shutil.rmtree(layer, ignore_errors=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--debian", action="append", choices=root.SUITES, help="the oldest one if none is given")
    parser.add_argument("--binary", type=Path, default=TARGET / "debug/temps", help="to be staged with the tree's files")
    parser.add_argument("--deb", type=Path, help="a package to install instead")
    parser.add_argument("--only", action="append", metavar="SCENARIO")
    parser.add_argument("--report", type=Path, help="a line of JSON for each case")
    parser.add_argument("--work", type=Path, default=Path(os.environ.get("TMPDIR", "/tmp")))
    parser.add_argument("--keep", action="store_true", help="keep the layer, with journals and state")
    return parser.parse_args()


def _clean_host(lower: Path, layer: Path) -> None:
    """Takes away what scenarios that share the host's engine and network have left there, if they failed."""
    for what in leftovers.remove():
        print(f"left behind, and removed: {what}")
    # The rules and the claim of addresses, by the program that makes them.
    line = ["env", "STATE_DIRECTORY=/var/lib/temps/deployd", "/usr/libexec/temps/temps-netns", "network", "down"]
    if (layer / "upper").is_dir() and enter(lower, layer, ["run", *line], INSTALL_LIMIT) != 0:
        print(f"the rules may be left behind: {end(layer / 'console.log')}")


def _prepare(layer: Path, world: str, boots: list[list[str]], options: argparse.Namespace) -> None:
    upper, here = layer / "upper", TESTS / "boot"
    units = upper / "etc/systemd/system"
    units.mkdir(parents=True)
    (upper / "srv").mkdir()
    (layer / "out").mkdir()
    if options.deb:
        shutil.copy(options.deb, upper / "srv/temps.deb")
    else:
        stage.stage(upper, options.binary)
    shutil.copy(here / "temps-tests.service", units)
    shutil.copy(here / "install.sh", upper / "srv")
    (layer / "out/boots.json").write_text(json.dumps(boots))
    if world == "apps" and shutil.which("go"):
        app = ["tests/apps/make", "go", "healthy", "v1", str(layer / "out/apps/go")]
        subprocess.run(app, cwd=TESTS.parent, check=True, timeout=INSTALL_LIMIT)
    if world == "engine":
        app = ["tests/apps/make", "container", "healthy", "v1", str(layer / "out/container")]
        subprocess.run(app, cwd=TESTS.parent, check=True, timeout=INSTALL_LIMIT)
        shutil.copytree(TESTS / "apps/hostile-container", layer / "out/hostile")
        if busybox := shutil.which("busybox"):
            shutil.copy(busybox, layer / "out/hostile/busybox")
        # The host's network: its ports 80 and 443 may be taken, and are nobody's business.
        for name in ("http", "https"):
            drop_in = units / f"temps-proxy-{name}.socket.d/50-tests.conf"
            drop_in.parent.mkdir()
            drop_in.write_text(f"[Socket]\nListenStream=\nListenStream=127.0.0.1:{_free_port()}\n")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def enter(lower: Path, layer: Path, what: list[str], limit: float) -> int | None:
    """The exit status; none if it took too long and was killed."""
    line = ["unshare", "--mount", str(TESTS / "boot/enter.sh"), str(lower), str(layer), str(TESTS), *what]
    with open(layer / "console.log", "ab") as console:
        child = subprocess.Popen(
            line, stdin=subprocess.DEVNULL, stdout=console, stderr=console, start_new_session=True
        )
        try:
            return child.wait(limit)
        except subprocess.TimeoutExpired:
            return None
        finally:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()


def report(suite: str, number: int, out: Path, status: int | None) -> list[dict]:
    """What the scenarios of a boot have found; printed, too."""
    path = out / f"boot-{number}.jsonl"
    said = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    if not said:
        return [{"case": f"{suite} boot {number}", "problem": f"no scenario ran (status {status})"}]
    planned, *cases = said
    done = {line["case"]: line for line in cases}
    lines = []
    for case in planned["cases"]:
        line = done.get(case, {"problem": "it was not reached, or did not end"})
        lines.append({**line, "case": f"{suite} {case}"})
        word = "FAILED" if line.get("problem") else "skipped" if line.get("skipped") else "ok"
        print(f"{suite} {word:<7} {case} ({line.get('seconds', 0):.1f} s)", flush=True)
        for text in [*line.get("said", []), *filter(None, [line.get("problem"), line.get("skipped")])]:
            print("    " + str(text).replace("\n", "\n    "), flush=True)
    return lines


def _ending(status: int | None, layer: Path) -> str:
    what = f"not over after {BOOT_LIMIT} s" if status is None else f"ended with status {status}"
    return f"{what}: {end(layer / 'console.log')}"


def end(path: Path) -> str:
    """What a file says last."""
    text = path.read_text(errors="replace").strip() if path.exists() else ""
    return " | ".join(text.splitlines()[-5:])


def show(layer: Path) -> None:
    """Prints the ends of the journals."""
    for path in sorted((layer / "out").glob("journal-*.txt")):
        print(f"----- the end of {path.name}")
        print("\n".join(path.read_text(errors="replace").splitlines()[-TAIL:]))
    print("-----", flush=True)


if __name__ == "__main__":
    started = time.monotonic()
    status = main()
    print(f"{time.monotonic() - started:.0f} s", file=sys.stderr)
    sys.exit(status)
