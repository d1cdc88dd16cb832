"""What the installed platform takes while nothing happens. Of a debug build the figures say nothing."""

from pathlib import Path

from installed import run, say, temps_json, wait_for_state

XTASK = Path("/srv/out/xtask")


def the_daemons_are_measured_when_idle():
    assert len(temps_json("app", "list")) == 1
    # Five minutes in earnest; its idle time is three seconds here.
    wait_for_state("temps-deployd.service", "inactive")
    said = run(str(XTASK), "idle", "--after", "1")
    say(said.rstrip())
    assert "temps-proxy.service" in said and "temps-deployd" not in said, said
