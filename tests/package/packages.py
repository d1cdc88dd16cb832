"""The packages, and what apt and dpkg say."""

from pathlib import Path

from installed import run, show

# Number N is a package with a version that is higher than that of number N - 1.
DEBS = Path("/srv/out/debs")
# The tests' daemons are idle and trust a release sooner.
SETTINGS = Path("/etc/temps/deployd.toml.d/50-tests.toml")


def deb(number: int) -> str:
    """The path of a package."""
    return str(DEBS / f"{number}.deb")


def version(number: int) -> str:
    """Its version."""
    return run("dpkg-deb", "--field", deb(number), "Version").strip()


def apt(*arguments: str, fails: bool = False) -> str:
    """What `apt-get` says, on both its outputs."""
    line = "DEBIAN_FRONTEND=noninteractive exec apt-get --yes --quiet --no-install-recommends \"$@\" 2>&1"
    return run("sh", "-c", line, "apt-get", *arguments, fails=fails, limit=180)


def installed() -> str:
    """The state of the package and its version, as dpkg has them."""
    return run("dpkg-query", "--show", "--showformat=${db:Status-Status} ${Version}", "temps")


def quick() -> None:
    """Writes the settings of the tests."""
    SETTINGS.parent.mkdir(parents=True, exist_ok=True)
    SETTINGS.write_text('idle = "3s"\nwatch = "1s"\n')


def all_is_well() -> None:
    """dpkg has nothing to say, and no unit has failed."""
    assert not run("dpkg", "--audit").strip()
    changed = run("dpkg", "--verify", "temps")
    # The root has no /usr/share/doc but what was installed since.
    assert not changed.strip(), changed
    failed = run("systemctl", "list-units", "--failed", "--plain", "--no-legend", "temps*")
    assert not failed.strip(), failed


def since(unit: str) -> int:
    """When a unit became active: another number if it was stopped since."""
    return int(show(unit, "ActiveEnterTimestampMonotonic"))
