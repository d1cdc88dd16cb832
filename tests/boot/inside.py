"""Runs the scenarios of one boot inside the root, writes a line for each case, and ends the boot."""

import importlib
import inspect
import json
import subprocess
import sys
import time
import traceback
from pathlib import Path

from installed import Skipped, case_output

HERE = Path(__file__).parent
OUT = Path("/srv/out")
sys.path.insert(0, str(HERE / "scenarios"))


def main() -> None:
    boots = json.loads((OUT / "boots.json").read_text())
    number = 1 + len(list(OUT.glob("boot-*.jsonl")))
    cases = [case for name in boots[number - 1] for case in _cases(name)]
    with open(OUT / f"boot-{number}.jsonl", "w", buffering=1) as report:
        report.write(json.dumps({"cases": [name for name, _ in cases]}) + "\n")
        for name, case in cases:
            report.write(json.dumps({"case": name, **_run(case)}) + "\n")
    with open(OUT / f"journal-{number}.txt", "w") as journal:
        line = ["journalctl", "--boot", "--output=short-precise", "--no-pager"]
        subprocess.run(line, stdout=journal, stderr=journal, check=False)
    end = "reboot" if number < len(boots) else "poweroff"
    subprocess.run(["systemctl", end, "--no-block"], check=True)


def _cases(scenario: str) -> list:
    """The public functions of a scenario itself, in the order in which they are written."""
    module = importlib.import_module(scenario)
    functions = [
        (name, function)
        for name, function in vars(module).items()
        if inspect.isfunction(function) and function.__module__ == scenario and not name.startswith("_")
    ]
    return [(f"{scenario}: {name.replace('_', ' ')}", function) for name, function in functions]


def _run(case) -> dict:
    start = time.monotonic()
    result: dict = {}
    try:
        case()
    except Skipped as skipped:
        result["skipped"] = str(skipped)
    except AssertionError:
        frame = traceback.extract_tb(sys.exc_info()[2])[-1]
        result["problem"] = f"{sys.exc_info()[1] or frame.line} (line {frame.lineno})"
    except Exception:
        result["problem"] = traceback.format_exc()
    result["said"] = case_output()
    result["seconds"] = round(time.monotonic() - start, 2)
    return result


if __name__ == "__main__":
    main()
