"""Time pybuild beside Docker: `make bench`, or this script with a choice of scenarios.

    python tests/bench/run.py [--only NAME]... [--rounds N] [--fs tmpfs|ext4] [--json FILE]

The table goes to stdout, progress to stderr. Exit code 1 when something asked for is not met.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import sys

from dockerd import DockerMissing, daemon
from mounted import MOUNTED
from one_more import ONE_MORE
from pybuild import Stores, install
from scenarios import MEMORY_BAR, Bench, Outcome
from scenarios import SCENARIOS as BUILDS
from transfers import TRANSFERS
from workarea import work_area

SCENARIOS = {**BUILDS, **ONE_MORE, **MOUNTED, **TRANSFERS}


def main() -> int:
    """Run what was chosen and print what it showed."""
    options = _options()
    if os.geteuid() != 0:
        print(
            "the benchmarks start a dockerd and build steps in namespaces: run them as root", file=sys.stderr
        )
        return 2
    outcomes = []
    try:
        with work_area(options.fs) as area, daemon(area) as docker:
            bench = Bench(area, docker, Stores(area, install(area)), options.rounds)
            print(
                f"{_machine()}, {area.kind}; Docker: {docker.version()}; {options.rounds} pairs", flush=True
            )
            for name in options.only or SCENARIOS:
                print(f"{name} ...", file=sys.stderr, flush=True)
                outcomes.append(SCENARIOS[name](bench))
                print(_line(outcomes[-1]), file=sys.stderr, flush=True)
    except DockerMissing as error:
        print(error, file=sys.stderr)
        return 2
    _report(outcomes, options.json)
    return 1 if any(each.faults for each in outcomes) else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Time pybuild beside the distribution's Docker.")
    parser.add_argument(
        "--only", action="append", choices=list(SCENARIOS), help="a scenario; may be repeated"
    )
    parser.add_argument("--rounds", type=int, default=5, help="pairs of builds per scenario (default 5)")
    parser.add_argument("--fs", choices=["auto", "tmpfs", "ext4"], default="auto", help="where to run")
    parser.add_argument("--json", metavar="FILE", help="write the figures to FILE as well (`-`: stdout)")
    return parser.parse_args()


def _machine() -> str:
    return f"{os.cpu_count()} cores, Linux {platform.release()}, Python {platform.python_version()}"


HEAD = f"{'scenario':<31}{'ours s':>9}{'other s':>9}{'ratio':>8}{'bar':>7}{'aim':>7}{'peak MB':>9}  verdict"


def _line(outcome: Outcome) -> str:
    aim = "" if outcome.aim is None else f"{outcome.aim:g}"
    reached = outcome.aim is not None and outcome.ratio <= outcome.aim
    verdict = "; ".join(outcome.faults) or ("ok, aim reached" if reached else "ok")
    return (
        f"{outcome.title:<31}{outcome.ours:>9.3f}{outcome.theirs:>9.3f}{outcome.ratio:>8.3f}{outcome.bar:>7g}"
        f"{aim:>7}{outcome.memory / 1e6:>9.0f}  {verdict}"
    )


def _report(outcomes: list[Outcome], target: str | None) -> None:
    print(HEAD)
    for outcome in outcomes:
        print(_line(outcome))
    print(f"ratio: median of pairwise ratios; peak: process tree, bar {MEMORY_BAR / 1e6:.0f} MB")
    for outcome in outcomes:
        print(f"  {outcome.name}: {outcome.note}")
    if target:
        text = json.dumps([dataclasses.asdict(each) | {"faults": each.faults} for each in outcomes], indent=1)
        if target == "-":
            print(text)
        else:
            with open(target, "w", encoding="utf-8") as file:
                file.write(text + "\n")


if __name__ == "__main__":
    sys.exit(main())
