"""Holds the documents to the tree: what they link to exists, and the commands they show exist."""

import re
from pathlib import Path

from machine import ROOT, Machine, tree_files
from outcome import Outcome

LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
# What a reader is told to type: `packaging/demo.sh`, `temps env set`.
SCRIPT = re.compile(r"^(?:\$ )?((?:packaging|tests|\.ci)/[\w./-]+)", re.MULTILINE)
REQUIRED = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "LICENSE"]


def check(machine: Machine) -> Outcome:
    result = Outcome()
    for name in REQUIRED:
        result.check(name, None if (ROOT / name).is_file() else "is missing")
    for path in (path for path in tree_files() if path.suffix == ".md"):
        text = path.read_text()
        name = path.relative_to(ROOT)
        result.check(f"{name}: links", _broken_links(path, text))
        scripts = [script for _, block in FENCE.findall(text) for script in SCRIPT.findall(block)]
        missing = [script for script in scripts if not (ROOT / script).exists()]
        result.check(f"{name}: scripts", f"not there: {', '.join(missing)}" if missing else None)
    return result


def _broken_links(path: Path, text: str) -> str | None:
    broken = []
    for target in LINK.findall(FENCE.sub("", text)):
        file, _, anchor = target.partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        to = (path.parent / file) if file else path
        if not to.exists():
            broken.append(target)
        elif anchor and to.suffix == ".md" and anchor not in _anchors(to.read_text()):
            broken.append(target)
    return f"broken: {', '.join(broken)}" if broken else None


def _anchors(text: str) -> set[str]:
    """The anchors of the headings, as code hosts make them."""
    headings = re.findall(r"^#+ +(.*)$", FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
