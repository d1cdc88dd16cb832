"""Installed where no systemd ran, as images are built: the first boot starts everything."""

from installed import deploy_site, get, state, temps, wait_for_state
from packages import all_is_well, quick


def the_first_boot_starts_it():
    for unit in ("temps.target", "temps-proxy-http.socket", "temps-proxy.service", "temps-reconcile.timer"):
        wait_for_state(unit, "active")
    all_is_well()


def an_app_is_deployed_and_served():
    quick()
    deploy_site("docs", "image")
    assert get("docs.localhost") == (200, "image")


def there_is_nothing_left_to_set_up():
    said = temps("setup", "--yes")
    assert "nothing to change" in said, said
    assert state("temps.target") == "active"
