"""Installs the packages into booted Debian roots and reports what happened.

    tests/package/run.py --debs DIR [--rpms DIR] --xtask FILE [--debian SUITE]... [--world WORLD]... [--report FILE]

One DIR has 1.deb to 6.deb, the other 1.rpm and 2.rpm, each with a higher version than the one before. The roots and the boots are those
of the suite boot (tests/boot); order.py says which scenarios run on which machine.
"""

import argparse
import json
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
import order  # noqa: E402

WORLDS, BY_HAND = order.WORLDS, order.BY_HAND
# Names that both suites have are the other's from here on.
del sys.modules["order"]
sys.path.insert(0, str(HERE.parent / "boot"))
import borrowed  # noqa: E402
import root  # noqa: E402
import run as booted  # noqa: E402
from fault import Fault  # noqa: E402


def main() -> int:
    options = _options()
    # So that what is booted ends with us, and its layer goes.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if problem := booted.missing():
        print(f"SKIPPED: {problem}")
        return 0
    lines = []
    for suite in options.debian or root.SUITES[:1]:
        for world in options.world or WORLDS:
            if world == "foreign" and not options.rpms:
                continue
            try:
                lines += run(suite, world, options)
            except Fault as fault:
                lines.append({"case": f"{suite} {world}", "problem": str(fault)})
                print(f"{suite} FAILED  {world}: {fault}")
    if options.report:
        options.report.write_text("".join(json.dumps(line) + "\n" for line in lines))
    failed = [line for line in lines if line.get("problem")]
    print(f"{len(lines) - len(failed)} passed, {len(failed)} failed")
    return 1 if failed or not lines else 0


def run(suite: str, world: str, options: argparse.Namespace) -> list[dict]:
    """Boots one machine through its scenarios."""
    lower = root.cached(suite, booted.TARGET / "boot")
    layer = Path(tempfile.mkdtemp(prefix=f"package.{suite}.", dir=options.work))
    try:
        _prepare(layer, world, options)
        status = booted.enter(lower, layer, ["run", "sh", "/srv/prepare.sh", world], booted.INSTALL_LIMIT)
        if status != 0:
            raise Fault(f"the machine could not be prepared: {booted.end(layer / 'console.log')}")
        status = booted.enter(lower, layer, ["boot", "alone"], booted.BOOT_LIMIT)
        lines = booted.report(suite, 1, layer / "out", status)
        if any(line.get("problem") for line in lines):
            booted.show(layer)
        return lines
    finally:
        if options.keep:
            print(f"kept: {layer}")
        else:
            shutil.rmtree(layer, ignore_errors=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--debs", type=Path, required=True, metavar="DIR")
    parser.add_argument("--rpms", type=Path, metavar="DIR", help="without it no .rpm is installed")
    parser.add_argument("--xtask", type=Path, required=True, metavar="FILE", help="the program of cargo xtask")
    parser.add_argument("--debian", action="append", choices=root.SUITES, help="the oldest one if none is given")
    parser.add_argument("--world", action="append", choices=WORLDS | BY_HAND, help="all but those by hand if none is given")
    parser.add_argument("--report", type=Path, help="a line of JSON for each case")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--keep", action="store_true", help="keep the layer, with journals and state")
    return parser.parse_args()


def _prepare(layer: Path, world: str, options: argparse.Namespace) -> None:
    upper, out = layer / "upper", layer / "out"
    units = upper / "etc/systemd/system"
    (units / "temps-tests.service.d").mkdir(parents=True)
    shutil.copy(HERE.parent / "boot/temps-tests.service", units)
    shutil.copy(HERE / "taken.service", units)
    override = "[Service]\nExecStart=\nExecStart=/usr/bin/python3 -B /srv/tests/package/inside.py\n"
    (units / "temps-tests.service.d/package.conf").write_text(override)
    (upper / "srv").mkdir()
    shutil.copy(HERE / "prepare.sh", upper / "srv")
    shutil.copytree(options.debs, out / "debs")
    shutil.copy(options.xtask, out / "xtask")
    if world == "foreign":
        shutil.copytree(options.rpms, out / "rpms")
        borrowed.rpm(out / "rpm")
    if world == "image":
        # Seen there before the boot as well.
        shutil.copytree(options.debs, upper / "srv/out/debs", ignore=shutil.ignore_patterns("[2-9].deb"))
    (out / "boots.json").write_text(json.dumps([(WORLDS | BY_HAND)[world]]))


if __name__ == "__main__":
    started = time.monotonic()
    status = main()
    print(f"{time.monotonic() - started:.0f} s", file=sys.stderr)
    sys.exit(status)
