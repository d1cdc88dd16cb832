"""The suite boot: the tested binary, installed and booted in each Debian that is supported."""

import json
import sys

from machine import ROOT, Machine
from outcome import Outcome

sys.path.insert(0, str(ROOT / "tests/boot"))
import run as booted  # noqa: E402
import root  # noqa: E402

# Making a root takes some minutes, once; its boots and scenarios one or two.
LIMIT = 40 * 60


def check(machine: Machine) -> Outcome:
    if problem := booted.missing():
        return Outcome(skipped=[problem])
    result = Outcome()
    for suite in root.SUITES:
        report = machine.work / f"{suite}.jsonl"
        line = ["python3", "-B", "tests/boot/run.py", "--debian", suite]
        line += ["--binary", str(machine.binary), "--report", str(report)]
        problem = machine.run(line, LIMIT)
        lines = [json.loads(text) for text in report.read_text().splitlines()] if report.exists() else []
        failed = [case for case in lines if case.get("problem")]
        for case in lines:
            if reason := case.get("skipped"):
                result.skipped.append(reason)
            else:
                result.check(case["case"], case.get("problem"))
            if said := case.get("said"):
                result.said.append((case["case"], said))
        if problem and not failed:
            result.failed.append(f"{suite}: {problem}")
    return result
