"""`temps setup` at a terminal: questions, answers, and somebody who thinks again."""

import signal
import time
from pathlib import Path

from installed import run, temps, temps_json
from terminal import CTRL_C, CTRL_D, Terminal

FILE = Path("/etc/temps/deployd.toml.d/10-setup.toml")
DOMAIN = "Under which domain shall apps answer"
OPERATORS = "Which users may operate the platform"
AGREED = "Change this? [Y/n] "


def a_ctrl_c_at_any_question_changes_nothing():
    for answers in ([], ["apps.test"], ["apps.test", "ada"]):
        with Terminal("temps", "setup") as terminal:
            _answer(terminal, *answers)
            terminal.expect("] ")
            terminal.type(CTRL_C)
            status, _ = terminal.ends()
        assert status == -signal.SIGINT, status
        _nothing_was_changed()


def an_end_of_input_or_a_no_changes_nothing():
    with Terminal("temps", "setup") as terminal:
        terminal.expect(DOMAIN)
        terminal.type(CTRL_D)
        status, said = terminal.ends()
    assert status != 0 and "there was no answer" in said, said
    with Terminal("temps", "setup") as terminal:
        _answer(terminal, "apps.test", "ada")
        terminal.expect(AGREED)
        terminal.type("n")
        status, said = terminal.ends()
    assert status != 0 and "nothing was changed" in said, said
    _nothing_was_changed()


def wrong_answers_are_asked_again_and_not_for_ever():
    with Terminal("temps", "setup") as terminal:
        for _ in range(3):
            terminal.expect(DOMAIN)
            terminal.type("not a host")
        status, said = terminal.ends()
    assert status != 0 and DOMAIN not in said, said
    _nothing_was_changed()


def a_ctrl_c_while_it_changes_leaves_nothing_half_written():
    for delay in (0.0, 0.002, 0.005, 0.01, 0.02, 0.05):
        with Terminal("temps", "setup") as terminal:
            _answer(terminal, "half.test", "bob")
            terminal.expect(AGREED)
            terminal.type("y")
            time.sleep(delay)
            terminal.type(CTRL_C)
            terminal.ends()
        # Whole or not at all, and what is read is understood.
        if FILE.exists():
            assert FILE.read_text().endswith('base-domain = "half.test"\n'), FILE.read_text()
        run("getent", "group", "temps-admin")
        _put_back()
    _nothing_was_changed()


def wrong_answers_are_told_and_right_ones_are_done():
    with Terminal("temps", "setup") as terminal:
        terminal.expect(DOMAIN)
        terminal.type("not a host")
        told = terminal.expect(DOMAIN)
        assert "not a host" in told, told
        terminal.type("apps.test")
        terminal.expect(OPERATORS)
        terminal.type("eve")
        told = terminal.expect(OPERATORS)
        assert "no user `eve`" in told, told
        terminal.type("ada, bob")
        shown = terminal.expect(AGREED)
        for wanted in ('base-domain = "apps.test"', "let ada operate", "let bob operate"):
            assert wanted in shown, shown
        # Enter is a yes.
        terminal.type("")
        status, said = terminal.ends()
    assert status == 0 and "done:" in said, said
    assert 'base-domain = "apps.test"' in FILE.read_text()
    members = run("getent", "group", "temps-admin").strip().rsplit(":", 1)[1].split(",")
    assert sorted(members) == ["ada", "bob"], members
    assert "docs.apps.test" in temps("domain", "list", "docs")


def run_again_with_enter_for_every_answer_it_changes_nothing():
    before = FILE.stat().st_mtime_ns
    with Terminal("temps", "setup") as terminal:
        asked = terminal.expect("[apps.test] ")
        assert DOMAIN in asked, asked
        terminal.type("")
        terminal.expect("[ada bob] ")
        terminal.type("")
        status, said = terminal.ends()
    assert status == 0 and "nothing to change" in said and AGREED not in said, said
    assert FILE.stat().st_mtime_ns == before
    assert temps_json("setup", "--yes")["changes"] == []


def _answer(terminal: Terminal, *answers: str) -> None:
    for question, answer in zip((DOMAIN, OPERATORS), answers, strict=False):
        terminal.expect(question)
        terminal.expect("] ")
        terminal.type(answer)


def _nothing_was_changed() -> None:
    left = list(FILE.parent.glob("*setup*")) + list(FILE.parent.glob(".*"))
    assert not left, left
    assert run("getent", "group", "temps-admin").strip().endswith(":")


def _put_back() -> None:
    FILE.unlink(missing_ok=True)
    # A file that was being written is hidden, and overwritten by the next one.
    FILE.with_name(f".{FILE.name}.new").unlink(missing_ok=True)
    if not run("getent", "group", "temps-admin").strip().endswith(":"):
        run("gpasswd", "--delete", "bob", "temps-admin")
    run("systemctl", "start", "temps.target")
