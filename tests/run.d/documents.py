"""Holds the documents to the tree: what they link to exists, and the commands they show exist."""

import re
import subprocess
from pathlib import Path

from machine import ROOT, Machine, tree_files
from outcome import Outcome

LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
# What a reader is told to type: `packaging/demo.sh`, `temps env set`.
SCRIPT = re.compile(r"^(?:\$ )?((?:packaging|tests|\.ci)/[\w./-]+)", re.MULTILINE)
COMMAND = re.compile(r"^(?:\$ )?temps ([a-z].*?)(?: +#.*)?$", re.MULTILINE)
OPTION = re.compile(r"(?<=\s)--[a-z][a-z-]*")
# Nouns are followed by a verb.
NOUNS = ("app", "domain", "env", "release")
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


def commands(machine: Machine) -> Outcome:
    """Whether every `temps …` that a reader is told to type exists, with its options."""
    result = Outcome()
    for path in (path for path in tree_files() if path.suffix == ".md"):
        blocks = (block for _, block in FENCE.findall(path.read_text()))
        for line in sorted({line for block in blocks for line in COMMAND.findall(block)}):
            words = line.split()
            verb = words[: 2 if words[0] in NOUNS else 1]
            asked = [str(machine.binary), *verb, "--help"]
            help = subprocess.run(asked, capture_output=True, text=True, timeout=60, check=False)
            problem = None if help.returncode == 0 else "there is no such command"
            unknown = [option for option in OPTION.findall(line) if option not in help.stdout]
            if problem is None and unknown:
                problem = f"there is no {', '.join(unknown)}"
            result.check(f"{path.relative_to(ROOT)}: temps {line}", problem)
    if result.passed + len(result.failed) == 0:
        result.failed.append("no command was found in the documents")
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
