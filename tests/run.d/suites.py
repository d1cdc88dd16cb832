"""The suites in the order they run: what costs little first, what needs the platform last."""

import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass

import boot as booted
import documents
import manuals
import outcome
import package as packaged
import units
from machine import ROOT, TARGET, Machine, tree_files
from outcome import Outcome

# The binary and the tests, with the points at which tests stop a daemon.
FEATURES = ["--features", "temps/failpoints"]
# A first build compiles every dependency on two cores.
BUILD_LIMIT = 40 * 60
CHECK_LIMIT = 25 * 60
TEST_LIMIT = 10 * 60
# Deployments under load and failpoints at every transition.
PLATFORM_LIMIT = 20 * 60
# Nothing is compiled: it gets the tested binary.
DEMO_LIMIT = 5 * 60


@dataclass
class Suite:
    name: str
    about: str
    run: Callable[[Machine], Outcome]
    # It runs tests that use the container engine.
    engine: bool = False


def all_suites() -> list[Suite]:
    suites = [
        Suite("format", "cargo fmt --check", command(["cargo", "fmt", "--all", "--check"], 120)),
        Suite("scripts", "shell and Python scripts parse; shellcheck", scripts),
        Suite("documents", "what the documents link to exists", documents.check),
        Suite("manuals", "the manual pages are well formed, found, and fit the tree", manuals.check),
        Suite("units", "systemd accepts the units, and they fit the code", units.check),
        Suite("lint", "clippy, warnings are errors", lint),
        Suite("deny", "cargo deny: bans, licences, sources", deny),
        Suite("generated", "man page and completions fit the command line", generated),
        Suite("rustdoc", "the documentation builds without a warning", rustdoc),
        Suite("doctests", "examples in the documentation", doctests),
    ]
    suites.append(Suite("commands", "commands in the documents exist", commands))
    for package in _packages():
        name = package["name"].removeprefix("temps-")
        if name == "tests":
            tests = nextest("package(temps-tests) and kind(lib)", TEST_LIMIT)
            suites.append(Suite("harness", "What the suites stand on", tests, engine=True))
        else:
            tests = nextest(f"package(={package['name']})", TEST_LIMIT)
            about = package["description"] or ""
            suites.append(Suite(name, about, tests, engine=name == "deployd"))
    for target in platform_targets():
        tests = nextest(f"package(temps-tests) and binary(={target})", PLATFORM_LIMIT)
        about = f"the suite tests/{target}"
        suites.append(Suite(target, about, tests, engine=target != "architecture"))
    suites.append(Suite("boot", "the installed platform, booted in Debian", boot, engine=True))
    suites.append(Suite("package", "the packages, installed, upgraded and removed in Debian", packages))
    suites.append(Suite("bench", "the benchmarks run; what they print of a debug build says nothing", bench))
    suites.append(Suite("demo", "packaging/demo.sh --once", demo))
    return suites


def command(line: list[str], limit: float) -> Callable[[Machine], Outcome]:
    """A suite that is one command, and one case."""

    def run(machine: Machine) -> Outcome:
        result = Outcome()
        result.check(" ".join(line[:3]), machine.run(line, limit))
        return result

    return run


def lint(machine: Machine) -> Outcome:
    line = ["cargo", "clippy", "--locked", "--workspace", "--all-targets"]
    result = Outcome()
    for name, features in (("default features", []), ("failpoints", FEATURES)):
        whole = [*line, *features, "--", "-D", "warnings"]
        result.check(name, machine.run(whole, CHECK_LIMIT))
    return result


def deny(machine: Machine) -> Outcome:
    if shutil.which("cargo-deny") is None:
        return Outcome(skipped=["cargo-deny is not installed; the suite architecture holds the same rules"])
    line = ["cargo", "deny", "--offline", "check", "bans", "licenses", "sources"]
    result = Outcome()
    result.check("cargo deny", machine.run(line, 300))
    return result


def generated(machine: Machine) -> Outcome:
    result = Outcome()
    for what in ("man", "completions"):
        line = ["cargo", "run", "--quiet", "--locked", "--package", "xtask", "--", what, "--check"]
        result.check(f"cargo xtask {what} --check", machine.run(line, BUILD_LIMIT))
    return result


def commands(machine: Machine) -> Outcome:
    built = build(machine)
    return built if built.failed else documents.commands(machine)


def rustdoc(machine: Machine) -> Outcome:
    line = ["cargo", "doc", "--locked", "--workspace", "--no-deps", "--document-private-items"]
    result = Outcome()
    # Read by contributors, for whom nothing is private.
    flags = "-D warnings -A rustdoc::private-intra-doc-links"
    result.check("cargo doc", machine.run(line, CHECK_LIMIT, RUSTDOCFLAGS=flags))
    return result


def doctests(machine: Machine) -> Outcome:
    line = ["cargo", "test", "--quiet", "--locked", "--workspace", "--doc", *FEATURES]
    result = Outcome()
    result.check("cargo test --doc", machine.run(line, BUILD_LIMIT))
    return result


def scripts(machine: Machine) -> Outcome:
    result = Outcome()
    for path in tree_files():
        name = str(path.relative_to(ROOT))
        if path.suffix == ".py":
            line = ["python3", "-c", "import ast, sys; ast.parse(open(sys.argv[1]).read())", name]
        elif path.suffix == ".sh" or path.open("rb").readline().rstrip() in (b"#!/usr/bin/env bash", b"#!/bin/sh"):
            line = ["bash", "-n", name]
            if shutil.which("shellcheck"):
                found = machine.run(["shellcheck", "-x", name], 60)
                result.check(f"shellcheck {name}", found)
        else:
            continue
        result.check(name, machine.run(line, 60))
    if shutil.which("shellcheck") is None:
        result.skipped.append("shellcheck is not installed (apt-get install shellcheck)")
    return result


def nextest(filter: str, limit: float) -> Callable[[Machine], Outcome]:
    """Tests of the workspace that a filter of nextest chooses; each is a case."""

    def run(machine: Machine) -> Outcome:
        built = build(machine)
        if built.failed:
            return built
        machine.report.unlink(missing_ok=True)
        line = ["cargo", "nextest", "run", "--locked", "--workspace", *FEATURES, "--profile", "ci"]
        problem = machine.run([*line, "--no-tests", "fail", "--filterset", filter], limit)
        if not machine.report.exists():
            return Outcome(failed=[problem or "nextest wrote no report"])
        result = outcome.from_junit(machine.report)
        if problem and not result.failed:
            result.failed.append(problem)
        return result

    return run


def build(machine: Machine) -> Outcome:
    """Compiles the tested binary and the tests, once for all suites. No case unless it fails."""
    if machine.built is None:
        machine.built = Outcome()
        suite, machine.suite = machine.suite, "build"
        machine.log().unlink(missing_ok=True)
        line = ["cargo", "build", "--locked", "--package", "temps", "--features", "failpoints"]
        problem = machine.run(line, BUILD_LIMIT)
        if problem is None:
            machine.binary.parent.mkdir(parents=True, exist_ok=True)
            # Later builds replace the one in the target directory.
            shutil.copy2(TARGET / "debug/temps", machine.binary)
            line = ["cargo", "nextest", "run", "--locked", "--workspace", *FEATURES, "--no-run"]
            problem = machine.run(line, BUILD_LIMIT)
        if problem is not None:
            machine.built.failed.append(f"does not build: {problem}; see build.log")
        machine.suite = suite
    return machine.built


def bench(machine: Machine) -> Outcome:
    built = build(machine)
    if built.failed:
        return built
    result = Outcome()
    line = ["python3", "-B", "tests/bench/proxy.py", "--rounds", "1", "--seconds", "1"]
    result.check("proxy.py", machine.run(line, DEMO_LIMIT))
    return result


def boot(machine: Machine) -> Outcome:
    built = build(machine)
    return built if built.failed else booted.check(machine)


def packages(machine: Machine) -> Outcome:
    built = build(machine)
    return built if built.failed else packaged.check(machine)


def demo(machine: Machine) -> Outcome:
    built = build(machine)
    if built.failed:
        return built
    result = Outcome()
    line = ["packaging/demo.sh", "--once"]
    for run in ("first", "again"):
        problem = machine.run(line, DEMO_LIMIT, XDG_STATE_HOME=str(machine.work / "demo"))
        result.check(f"demo.sh --once, {run}", problem)
    return result


def _metadata() -> dict:
    line = ["cargo", "metadata", "--no-deps", "--format-version", "1", "--locked"]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"cargo metadata: {done.stderr.strip()}")
    return json.loads(done.stdout)


def _packages() -> list[dict]:
    return _metadata()["packages"]


def platform_targets() -> list[str]:
    """The test programs of the crate temps-tests, the cheap one first."""
    targets = [
        target["name"]
        for package in _packages()
        if package["name"] == "temps-tests"
        for target in package["targets"]
        if "test" in target["kind"]
    ]
    return sorted(targets, key=lambda name: (name != "architecture", name))


def never_skipped() -> set[str]:
    lines = (ROOT / "tests/never-skip.txt").read_text().splitlines()
    return {line.strip() for line in lines if line.strip() and not line.startswith("#")}
