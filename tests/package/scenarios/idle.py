"""What the platform takes when it is idle, as that is defined: one app on the systemd runtime, nothing
asked from outside, five minutes after the last call, with the usual settings. Run by hand, with a package of the
profile `dist`: it waits in earnest."""

from pathlib import Path

from installed import get, run, say, state, temps
from packages import apt, deb
from samples import app_units, make

XTASK = Path("/srv/out/xtask")
SETTLE = 300


def the_platform_idles_with_one_app():
    apt("install", deb(1))
    temps("deploy", "shop", "--source", str(make("shop", "one")), limit=180)
    assert "systemd" in temps("app", "list")
    assert get("shop.localhost")[0] == 200
    say(run("dpkg-query", "--show", "--showformat=${Package} ${Version}, ${Installed-Size} KiB installed", "temps"))
    said = run(str(XTASK), "idle", "--after", str(SETTLE), limit=SETTLE + 60)
    say(said.rstrip())
    # It was idle, and the app was there.
    assert state("temps-deployd.service") == "inactive"
    assert len(app_units()) == 1 and get("shop.localhost")[0] == 200
    # What is beside the daemons, each with its processes.
    say(run("systemctl", "status", "--no-pager", "--lines=0", "temps.slice").rstrip())
