"""Holds the manual to the tree: it is well formed, it is found by name and by keyword, and it knows every
unit and every message. (Settings: daemons/temps/tests/manual.rs; commands: `cargo xtask man`.)"""

import re
import shutil
import subprocess
from pathlib import Path

from machine import ROOT, Machine
from outcome import Outcome

PAGES = ["temps.1", "temps-dbus.5", "temps.toml.5", "temps.7", "temps-deployd.8", "temps-proxy.8"]
# What every page has, and what every daemon's has beside it.
SECTIONS = ["NAME", "DESCRIPTION", "SEE ALSO"]
DAEMON_SECTIONS = ["SYNOPSIS", "SIGNALS", "ENVIRONMENT", "FILES", "EXIT STATUS", "JOURNAL", "EXAMPLES"]
# Where the messages of a crate below daemons/ are explained.
MESSAGES = {"proxy": "temps-proxy.8", "deployd": "temps-deployd.8", "temps": "temps.7"}
MESSAGE_ID = re.compile(r'MessageId::new\("([0-9a-f]{32})"\)')


def check(machine: Machine) -> Outcome:
    result = Outcome()
    pages = sorted((ROOT / "man").iterdir())
    there = {path.name for path in pages}
    result.check("the pages are there", _not(set(PAGES) - there))
    for path in pages:
        text = path.read_text()
        sections = SECTIONS + (DAEMON_SECTIONS if path.suffix == ".8" else [])
        missing = [name for name in sections if f"\n.Sh {name}\n" not in text]
        result.check(f"{path.name}: sections", _not(missing))
        unknown = {page for page in _references(text) if page.startswith("temps") and page not in there}
        result.check(f"{path.name}: pages of ours that it refers to", _not(unknown))
    _form(machine, pages, result)
    _found(machine, pages, result)
    _messages(result)
    _units(there, result)
    return result


def _form(machine: Machine, pages: list[Path], result: Outcome) -> None:
    """Neither mandoc nor groff has anything to say against a page."""
    for tool, line in (
        ("mandoc", ["mandoc", "-T", "lint", "-W", "warning"]),
        ("groff", ["groff", "-ww", "-mandoc", "-T", "utf8", "-K", "utf8", "-z"]),
    ):
        if shutil.which(tool) is None:
            result.skipped.append(f"{tool} is not installed (apt-get install {tool})")
            continue
        for path in pages:
            said = _said([*line, str(path)], both=True)
            result.check(f"{tool}: {path.name}", said or None)
        wrong = machine.work / "wrong.8"
        wrong.write_text(".Dd November 22, 2026\n.Dt WRONG 8\n.Os\n.Sh NAME\n.Nm wrong\n.Nd a page\n.Bl -tag\n.No \\[nothing]\n")
        found = _said([*line, str(wrong)], both=True)
        result.check(f"{tool} would find a mistake", None if found else "it did not")
        wrong.unlink()


def _found(machine: Machine, pages: list[Path], result: Outcome) -> None:
    """`man -k temps` finds every page, among those that are installed as ours are."""
    if shutil.which("mandb") is None:
        result.skipped.append("man-db is not installed (apt-get install man-db)")
        return
    manuals = machine.work / "man"
    for path in pages:
        to = manuals / f"man{path.suffix[1:]}" / path.name
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, to)
    # No directory of the system is looked at, and none is written to.
    config = machine.work / "manpath.config"
    config.write_text(f"MANDATORY_MANPATH {manuals}\nMANDB_MAP {manuals} {manuals}\n")
    line = ["mandb", "--quiet", "--user-db", "--create", "--config-file", str(config), str(manuals)]
    result.check("mandb", machine.run(line, 60))
    line = ["apropos", "--long", "--exact", "--config-file", str(config), "--manpath", str(manuals), "--wildcard"]
    listed = _said([*line, "*temps*"])
    for path in pages:
        name, section = path.stem, path.suffix[1:]
        line = re.search(rf"^{re.escape(name)}(?:, [^(]*)? \({section}\) +- (\S.*)$", listed, re.MULTILINE)
        result.check(f"man -k temps finds {name}({section})", None if line else f"only: {listed}")
    shutil.rmtree(manuals)
    config.unlink()


def _messages(result: Outcome) -> None:
    """Every MESSAGE_ID is in its daemon's page with what it means, and none that is not one."""
    crates = {path.parent.parent.name for path in ROOT.glob("daemons/*/src/event.rs")}
    result.check("every crate with events has a page", _not(crates ^ set(MESSAGES)))
    for crate, page in MESSAGES.items():
        ids = set(MESSAGE_ID.findall((ROOT / f"daemons/{crate}/src/event.rs").read_text()))
        text = (ROOT / "man" / page).read_text()
        explained = set(re.findall(r"^\.It .*\b([0-9a-f]{32})\n(?!\.It|\.El)\S", text, re.MULTILINE))
        result.check(f"{page}: every message", _not(ids - explained) if ids else "none was found")
        result.check(f"{page}: no message that there is not", _not(explained - ids))


def _units(pages: set[str], result: Outcome) -> None:
    """temps(7) names every unit, and the pages that units refer to are there."""
    text = (ROOT / "man/temps.7").read_text()
    items = " ".join(re.findall(r"^\.It (?:Pa )?(.*)$", text, re.MULTILINE)).replace("\\-", "-")
    named = set(re.findall(r"[\w@.-]+", items))
    units = sorted(path for path in (ROOT / "systemd/system").iterdir() if path.is_file())
    result.check("temps(7) names every unit", _not({path.name for path in units} - named) if units else "none was found")
    kinds = (".service", ".socket", ".slice", ".target", ".timer")
    known = {path.name for path in units}
    gone = {name for name in named if name.startswith("temps") and name.endswith(kinds)} - known
    result.check("temps(7) names no unit that there is not", _not(gone))
    for path in [*units, ROOT / "systemd/catalog/temps.catalog"]:
        lines = re.findall(r"^Documentation[=:] *(.*)$", path.read_text(), re.MULTILINE)
        wanted = {page for line in lines for page in re.findall(r"man:(\S+)\((\w+)\)", line)}
        missing = {f"{name}.{section}" for name, section in wanted} - pages
        problem = _not(missing) if wanted else "it names no page"
        result.check(f"{path.name}: its pages", problem)


def _references(text: str) -> set[str]:
    """The pages that a page refers to, as they are called here: `temps-proxy.8`."""
    found = re.findall(r"^\.Xr (\S+) (\d)", text, re.MULTILINE)
    return {f"{name}.{section}".replace("\\-", "-") for name, section in found}


def _said(line: list[str], both: bool = False) -> str:
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    return (done.stdout + done.stderr if both else done.stdout).strip()


def _not(names) -> str | None:
    return f"not: {', '.join(sorted(names))}" if names else None
