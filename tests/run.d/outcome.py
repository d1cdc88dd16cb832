"""What a suite came to: cases that passed, failed or were skipped, each of the last two with why."""

import re
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass, field
from pathlib import Path

# What a test prints that cannot run here.
SKIPPED = re.compile(r"^SKIPPED:\s*(.*)$", re.MULTILINE)

# What the test program prints around the test.
FRAME = re.compile(r"^(running 1 test|test \S+ \.\.\. ?(ok)?$|test result: )")


@dataclass
class Outcome:
    passed: int = 0
    failed: list[str] = field(default_factory=list)
    # Reasons, one for each skipped case.
    skipped: list[str] = field(default_factory=list)
    # Things to know that are no failure.
    notes: list[str] = field(default_factory=list)
    # What passed tests printed: the figures of a run. Name and lines.
    said: list[tuple[str, list[str]]] = field(default_factory=list)
    seconds: float = 0.0

    def check(self, name: str, problem: str | None) -> None:
        """Counts one case: passed without a problem."""
        if problem is None:
            self.passed += 1
        else:
            self.failed.append(f"{name}: {problem}")

    def word(self) -> str:
        if self.failed:
            return "FAILED"
        return "passed" if self.passed or not self.skipped else "SKIPPED"

    def reasons(self) -> str:
        """The reasons for skipping, each once."""
        return "; ".join(
            f"{self.skipped.count(reason)} skipped: {reason}"
            for reason in dict.fromkeys(self.skipped)
        )

    def refuse_skips(self) -> None:
        """Turns skipped cases into failed ones, for a suite that may not skip."""
        self.failed += [f"skipped, which CI does not allow: {reason}" for reason in self.skipped]
        self.skipped = []


def from_junit(path: Path) -> Outcome:
    """Reads the report of nextest."""
    outcome = Outcome()
    for case in ElementTree.parse(path).getroot().iter("testcase"):
        name = f"{case.get('classname')} {case.get('name')}"
        output = "".join(case.findtext(tag) or "" for tag in ("system-out", "system-err"))
        skipped = SKIPPED.search(output)
        if case.find("failure") is not None or case.find("error") is not None:
            outcome.failed.append(name)
        elif skipped:
            outcome.skipped.append(skipped.group(1).strip() or "without a reason")
        else:
            outcome.passed += 1
            if said := _said(case.findtext("system-out") or ""):
                outcome.said.append((str(case.get("name")), said))
    return outcome


def _said(stdout: str) -> list[str]:
    """The lines of a test itself, without those of the program that runs it."""
    return [line for line in stdout.splitlines() if line.strip() and not FRAME.match(line)]
