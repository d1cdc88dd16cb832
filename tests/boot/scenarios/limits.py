"""The limits that units and slices have. They are read, not tried: in a container on a host with the
old control groups no controller is there to enforce them."""

from installed import run, show


def slices_have_their_limits():
    weights = {"temps-daemons.slice": "400", "temps-builds.slice": "20"}
    for unit, weight in weights.items():
        run("systemctl", "start", unit)
        assert show(unit, "CPUWeight") == weight, unit
    run("systemctl", "start", "temps-apps.slice")
    for unit in ("temps-apps.slice", "temps-builds.slice"):
        assert show(unit, "MemoryMax") != "infinity" and show(unit, "TasksMax") != "infinity", unit


def the_proxy_has_room_for_its_connections():
    assert int(show("temps-proxy.service", "LimitNOFILE")) >= 2 * 10_000


def what_cannot_be_mended_is_not_restarted():
    for unit in ("temps-proxy.service", "temps-deployd.service"):
        assert show(unit, "RestartPreventExitStatus") == "64 77 78", unit
        assert show(unit, "WatchdogUSec") == "1min", unit
