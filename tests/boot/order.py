"""Which scenarios run, where, and in which boot."""

from pathlib import Path

from fault import Fault

# One list for each boot; the root reboots in between. Later scenarios find what earlier ones left.
# `alone`: a network of its own and no container engine. `engine`: the host's, of both.
WORLDS = {
    "alone": [
        ["units", "on_demand", "sites", "callers", "journal", "limits", "crashes", "handover", "configuration", "bus"],
        ["builds"],
        ["rebooted"],
    ],
    "apps": [["firewall", "apps", "hostile", "activated"], ["activated_rebooted", "apps_rebooted", "main_job"]],
    "engine": [["containers", "hostile_container"]],
}

# These ask for the site that `sites` has deployed.
AFTER_SITES = {"callers", "journal", "crashes", "handover", "configuration", "rebooted"}


def chosen(world: str, only: list[str] | None) -> list[list[str]]:
    """The boots of a world, with those scenarios alone if there are any."""
    there = {path.stem for path in (Path(__file__).parent / "scenarios").glob("*.py")}
    listed = {name for boots in WORLDS.values() for boot in boots for name in boot}
    # One that is being written is nobody else's business.
    if not only and there != listed:
        raise Fault(f"order.py and scenarios/ differ in {', '.join(sorted(there ^ listed))}")
    if only and (unknown := set(only) - listed):
        raise Fault(f"no scenario {', '.join(sorted(unknown))}")
    if only and AFTER_SITES & set(only):
        only = [*only, "sites"]
    boots = [[name for name in names if not only or name in only] for names in WORLDS[world]]
    return [boot for boot in boots if boot]
