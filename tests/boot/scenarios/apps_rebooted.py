"""Apps on the systemd runtime after a reboot."""

import json

from installed import get, run, temps, wait


def the_app_is_back():
    wait("it serves", lambda: get("stays.localhost")[0] == 200, 60)
    assert json.loads(get("stays.localhost")[1])["version"] == "before the reboot"


def it_is_destroyed_with_all_it_had():
    temps("app", "destroy", "stays", "--yes")
    assert "tps" not in run("nft", "list", "ruleset")
