"""After a reboot everything is as before."""

from installed import get, journal, message_id, say, temps, wait


def routes_are_served_before_deployd_has_run():
    served = journal(f"MESSAGE_ID={message_id('The proxy serves')}")[0]
    assert int(served["ROUTES"]) > 0, served
    wait("deployd has run", lambda: _first_start() is not None)
    earlier = _first_start() - int(served["__MONOTONIC_TIMESTAMP"])
    say(f"the proxy served {earlier / 1e6:.2f} s before deployd was ready")
    assert earlier > 0


def the_site_is_served():
    assert get("docs.localhost") == (200, "second")


def deployd_knows_its_apps():
    assert "docs" in temps("app", "list")


def _first_start() -> int | None:
    started = journal(f"MESSAGE_ID={message_id('Deployments can be made')}")
    return int(started[0]["__MONOTONIC_TIMESTAMP"]) if started else None
