"""Runs the suites and prints what each came to: see tests/run.sh, which prepares the machine."""

import signal
import sys
import time

import suites
from engine import Engine
from machine import IN_CI, Machine
from outcome import Outcome

# So much of a failed suite's log is printed.
TAIL = 150
# And so much of what one test measured.
FIGURES = 24


def main(arguments: list[str]) -> int:
    every = suites.all_suites()
    names = [suite.name for suite in every]
    if arguments == ["--list"]:
        kept = suites.never_skipped()
        for suite in every:
            print(f"{suite.name:<14} {suite.about}{'' if suite.name in kept else ' (CI may skip it)'}")
        return 0
    if unknown := [name for name in arguments if name not in names]:
        print(f"no suite {', '.join(unknown)}; there are: {' '.join(names)}", file=sys.stderr)
        return 64
    chosen = [suite for suite in every if not arguments or suite.name in arguments]
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
    return run(chosen, whole=not arguments)


def run(chosen: list[suites.Suite], whole: bool) -> int:
    machine = Machine()
    engine = Engine(machine)
    results: dict[str, Outcome] = {}
    interrupted = False
    try:
        if any(suite.engine for suite in chosen):
            engine.start()
            if engine.problem:
                print(f"docker: {engine.problem}", flush=True)
        for number, suite in enumerate(chosen, 1):
            print(f"[{number}/{len(chosen)}] {suite.name}: {suite.about}", flush=True)
            results[suite.name] = one(suite, machine)
    except KeyboardInterrupt:
        interrupted = True
        print("interrupted", flush=True)
    finally:
        notes = engine.stop()
        machine.close()
    if IN_CI and whole and (missing := suites.never_skipped() - {suite.name for suite in chosen}):
        results["never-skip.txt"] = Outcome(failed=[f"no suite {name}" for name in sorted(missing)])
    return report(results, notes, interrupted)


def one(suite: suites.Suite, machine: Machine) -> Outcome:
    start = time.monotonic()
    machine.suite = suite.name
    machine.log().unlink(missing_ok=True)
    try:
        result = suite.run(machine)
    except (OSError, ValueError) as error:
        result = Outcome(failed=[f"the suite cannot run: {error}"])
    if not (result.passed or result.failed or result.skipped):
        result.failed.append("no case ran")
    result.seconds = time.monotonic() - start
    if left := machine.end_leftovers():
        result.notes.append(f"left running, now killed: {', '.join(left)}")
    if IN_CI and suite.name in suites.never_skipped():
        result.refuse_skips()
    line = f"      {result.word()}: {len(result.failed)} failed, {result.passed} passed"
    print(f"{line}, {len(result.skipped)} skipped, {result.seconds:.0f} s", flush=True)
    # Those of one crate alone say nothing that is worth a line here.
    if suite.name in suites.platform_targets():
        for name, lines in result.said:
            shown = (f"        {line}" for line in lines[:FIGURES])
            print("\n".join([f"      {name}", *shown]), flush=True)
    if result.failed:
        print_tail(machine, suite.name, result)
    return result


def print_tail(machine: Machine, name: str, result: Outcome) -> None:
    for failed in result.failed:
        print(f"      {failed}")
    log = machine.logs / f"{name}.log"
    if any("build.log" in failed for failed in result.failed):
        log = machine.logs / "build.log"
    if log.exists():
        print(f"----- the end of {log}")
        print("\n".join(log.read_text(errors="replace").splitlines()[-TAIL:]))
        print("-----", flush=True)


def report(results: dict[str, Outcome], notes: list[str], interrupted: bool) -> int:
    print(f"\n{'suite':<14} {'result':<8} {'passed':>6} {'failed':>6} {'skipped':>7} {'seconds':>7}")
    for name, result in results.items():
        counts = f"{result.passed:>6} {len(result.failed):>6} {len(result.skipped):>7}"
        print(f"{name:<14} {result.word():<8} {counts} {result.seconds:>7.0f}")
        for line in [*result.failed, *filter(None, [result.reasons()]), *result.notes]:
            print(f"{'':<14} {line}")
    for note in notes:
        print(note)
    passed = sum(result.passed for result in results.values())
    failed = sum(len(result.failed) for result in results.values())
    skipped = sum(len(result.skipped) for result in results.values())
    if interrupted:
        print("interrupted: not every suite ran")
    print(f"\n{passed} passed, {failed} failed, {skipped} skipped", flush=True)
    if interrupted:
        return 130
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
