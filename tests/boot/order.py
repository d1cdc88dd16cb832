"""Which scenarios run, and in which boot."""

from pathlib import Path

from fault import Fault

# One list for each boot; the root reboots in between. Later scenarios find what earlier ones left.
BOOTS = [
    ["units", "on_demand", "sites", "callers", "journal", "limits", "crashes", "configuration"],
    ["rebooted"],
]


def chosen(only: list[str] | None) -> list[list[str]]:
    """The boots, with those scenarios alone if there are any."""
    there = {path.stem for path in (Path(__file__).parent / "scenarios").glob("*.py")}
    listed = {name for boot in BOOTS for name in boot}
    if there != listed:
        raise Fault(f"order.py and scenarios/ differ in {', '.join(sorted(there ^ listed))}")
    if not only:
        return BOOTS
    if unknown := set(only) - listed:
        raise Fault(f"no scenario {', '.join(sorted(unknown))}")
    return [boot for boot in ([name for name in names if name in only] for names in BOOTS) if boot]
