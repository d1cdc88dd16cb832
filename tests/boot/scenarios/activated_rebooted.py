"""An app that requests start, after a reboot."""

import json

from installed import get, main_pid, run, temps, temps_json, wait

APP = "stays-lazy"
HOST = f"{APP}.localhost"


def it_answers_again():
    wait("it serves", lambda: get(HOST)[0] == 200, 60)
    assert json.loads(get(HOST)[1])["version"] == "before the reboot"


def it_rests_again():
    wait("nothing is under way", lambda: temps_json("app", "show", APP)["deployment"] is None, 60)
    wait("it rests", lambda: temps_json("app", "show", APP)["state"] == "resting")
    instance = temps_json("app", "show", APP)["instances"][0]["instance"]
    assert main_pid(f"temps-app-{instance}.service") == 0
    assert get(HOST)[0] == 200


def it_is_destroyed():
    temps("app", "destroy", APP, "--yes")
    assert APP not in run("temps", "app", "list")
