#!/usr/bin/env python3
"""Build every case with pybuild and with its judge, and say where the images differ.

    sudo .venv/bin/python tests/interop/equality/compare.py [--show] [--reference] [PATTERN ...]

Patterns are of case names (`copy-*`); none means all. `--show` prints what each case does to its base,
as the judge has it; `--reference` leaves pybuild out and only asks Docker. Needs uid 0 and Debian's
docker.io. The same comparison is tests/interop/test_equality.py.
"""

from __future__ import annotations

import argparse
import contextlib
import fnmatch
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

if __name__ == "__main__":
    INTEROP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    sys.path[:0] = [INTEROP, os.path.join(os.path.dirname(INTEROP), "builder", "contexts")]

from equality.case import Case
from equality.cases import (
    archives,
    copying,
    ignoring,
    metadata,
    mounts,
    places,
    platforms,
    refusals,
    remote,
    running,
    stages,
    syntax,
    variables,
    younger,
)
from equality.elsewhere import elsewhere
from judges.bases import BUSYBOX, CONFIGURED, TOOLS, architecture, image_archive
from judges.dockerd import Docker, private_docker
from judges.files import write_tree
from judges.flatten import Flat, Tree, differences, expected_tree, read_image
from judges.pybuild import Pybuild

TOPICS = (
    *(stages, variables, metadata, copying, archives, ignoring, running, mounts, remote, syntax),
    *(places, platforms, refusals, younger),
)
CASES: tuple[Case, ...] = tuple(case for topic in TOPICS for case in topic.CASES)
BASES = (BUSYBOX, TOOLS, CONFIGURED)
WORKERS = 2
Context = tuple[str, bytes]
"""What is built, as the command line names it, and what comes on standard input."""


@dataclass(slots=True)
class Verdict:
    """What came of one case; `problems` is empty when the images are equal."""

    case: Case
    problems: list[str] = field(default_factory=list)
    expected: Flat | None = None
    base: Tree = field(default_factory=dict)


class Bench:
    """A private dockerd and a private store, the base images in both, and the cases built side by side."""

    def __init__(self, directory: str, docker: Docker, pybuild: Pybuild | None) -> None:
        self._directory = directory
        self._docker = docker
        self._pybuild = pybuild
        self._bases: dict[str, Flat] = {}
        self._pool = ThreadPoolExecutor(WORKERS)
        self._started: dict[str, Future[Verdict]] = {}
        self._lock = threading.Lock()

    def load_bases(self) -> None:
        """Load the base images on both sides. Raises AssertionError when one refuses them."""
        for name in BASES:
            path = os.path.join(self._directory, f"{name.partition(':')[0]}.tar")
            with open(path, "wb") as out:
                out.write(image_archive(name))
            self._bases[name] = read_image(path)
            self._docker.run("load", "--input", path)
            if self._pybuild:
                self._pybuild.run("load", "--input", path)

    def start(self, cases: Sequence[Case]) -> None:
        """Begin with these, `WORKERS` at a time."""
        for case in cases:
            self._submit(case)

    def verdict(self, case: Case) -> Verdict:
        """The outcome of one case, waited for if it is under way."""
        return self._submit(case).result()

    def close(self) -> None:
        """Drop what has not begun, wait for what has."""
        self._pool.shutdown(cancel_futures=True)

    def _submit(self, case: Case) -> Future[Verdict]:
        with self._lock:
            if case.name not in self._started:
                self._started[case.name] = self._pool.submit(self._judge, case)
            return self._started[case.name]

    def _judge(self, case: Case) -> Verdict:
        place = os.path.join(self._directory, case.name)
        verdict = Verdict(case, base=self._base(case).tree)
        try:
            with elsewhere(case, place) as (case, context, stdin):
                _write_case(case, place, os.path.join(place, "context"))
                self._compare(case, place, (context, stdin), verdict)
        except AssertionError as error:
            verdict.problems.append(str(error))
        shutil.rmtree(place)
        return verdict

    def _compare(self, case: Case, place: str, context: Context, verdict: Verdict) -> None:
        if case.platforms or case.targets:
            self._compare_each(case, place, context, verdict)
            return
        theirs = self._by_docker(case, place, context, verdict) if case.reference == "docker" else None
        if theirs is not None:
            verdict.expected = theirs
            verdict.problems += [
                f"the case says Docker writes {line!r}, but it does not"
                for line in case.newer.keys() - set(_history(theirs))
            ]
            verdict.problems += _golden_problems(case, theirs, self._base(case), "docker")
        if self._pybuild:
            ours = self._by_pybuild(self._pybuild, case, place, context, verdict)
            if ours is not None:
                verdict.problems += _golden_problems(case, ours, self._base(case), "ours")
                verdict.problems += _docker_problems(case, ours, theirs) if theirs is not None else []

    def _compare_each(self, case: Case, place: str, context: Context, verdict: Verdict) -> None:
        """One build of ours, whose images are held against a build of Docker's for each."""
        one_build = [arg for each in case.platforms for arg in ("--platform", each)]
        names = {each: f"equality/{case.name}-{each or 'image'}".lower() for each in case.targets or ("",)}
        one_build += [f"--tag={each}={name}" if each else f"--tag={name}" for each, name in names.items()]
        if self._pybuild:
            done = self._pybuild.run(
                "build", "--progress=plain", *case.args, *one_build, context[0], check=False
            )
            if done.returncode:
                verdict.problems.append(f"pybuild does not build it:\n{_said(done)}")
                return
        for target, name in names.items():
            for platform in case.platforms or ("",):
                wanted = [f"--platform={platform}"] if platform else []
                which = [f"--target={target}"] if target else []
                newer = {
                    line: today.format(platform=platform, arch=platform.split("/")[1] if platform else "")
                    for line, today in case.newer.items()
                }
                only = replace(case, args=(*case.args, *which, *wanted), newer=newer)
                theirs = self._by_docker(only, place, context, verdict)
                if theirs is None or not self._pybuild:
                    continue
                verdict.expected = theirs
                saved = os.path.join(place, "part.tar")
                self._pybuild.run("save", *wanted, "--output", saved, name)
                found = _docker_problems(only, read_image(saved), theirs)
                verdict.problems += [f"{target or 'image'} {platform}: {each}" for each in found]

    def _base(self, case: Case) -> Flat:
        return self._bases.get(case.base) or Flat({"history": [], "config": {}}, {"/": "dir 0755 0:0"})

    def _by_docker(self, case: Case, place: str, context: Context, verdict: Verdict) -> Flat | None:
        def build(*args: str) -> subprocess.CompletedProcess[bytes]:
            words = ("build", "--network=host", "--progress=plain", *args)
            return self._docker.run(*words, check=False, stdin=context[1])

        tag = f"equality/{case.name}:latest"
        if not _built(case, place, context[0], verdict, "docker", build, ("--tag", tag)):
            return None
        saved = os.path.join(place, "docker.tar")
        self._docker.run("save", "--output", saved, tag)
        return read_image(saved)

    def _by_pybuild(
        self, pybuild: Pybuild, case: Case, place: str, context: Context, verdict: Verdict
    ) -> Flat | None:
        def build(*args: str) -> subprocess.CompletedProcess[bytes]:
            return pybuild.run("build", "--progress=plain", *args, check=False, stdin=context[1])

        saved = os.path.join(place, "pybuild.tar")
        if not _built(case, place, context[0], verdict, "pybuild", build, ("-o", f"type=oci,dest={saved}")):
            return None
        try:
            return read_image(saved)
        except (ValueError, KeyError, TypeError, OSError) as error:
            verdict.problems.append(f"our archive contradicts itself: {error!r}")
            return None


@contextlib.contextmanager
def bench(reference_only: bool = False) -> Iterator[Bench]:
    """A `Bench` in a directory on memory (or the temporary directory), all of it gone when the block ends."""
    fast = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    directory = tempfile.mkdtemp(prefix="pybuild-equality-", dir=fast)
    try:
        with private_docker(os.path.join(directory, "docker")) as docker:
            made = Bench(
                directory, docker, None if reference_only else Pybuild(os.path.join(directory, "store"))
            )
            try:
                made.load_bases()
                yield made
            finally:
                made.close()
    finally:
        shutil.rmtree(directory)


def _write_case(case: Case, place: str, context: str) -> None:
    write_tree(context, case.files)
    for name, files in case.beside.items():
        write_tree(os.path.join(place, name), files)
    text = case.dockerfile.encode() if isinstance(case.dockerfile, str) else case.dockerfile
    with open(os.path.join(context, case.dockerfile_name), "wb") as out:
        out.write(text)


def _built(
    case: Case,
    place: str,
    context: str,
    verdict: Verdict,
    who: str,
    build: Callable[..., subprocess.CompletedProcess[bytes]],
    output: tuple[str, ...],
) -> bool:
    """Build the case's bases, then itself; what goes wrong, or should have, joins the problems."""
    for name, text in case.bases.items():
        beside = os.path.join(place, "base.Dockerfile")
        with open(beside, "w") as out:
            out.write(text)
        done = build("--file", beside, "--tag", name, context)
        if done.returncode:
            verdict.problems.append(f"{who} does not build the base {name}:\n{_said(done)}")
            return False
    args = [arg.format_map({name: os.path.join(place, name) for name in case.beside}) for arg in case.args]
    beside_it = "" if case.context != "directory" else context
    named = case.context != "text" and case.dockerfile_name != "Containerfile"
    file = ("--file", os.path.join(beside_it, case.dockerfile_name)) if named else ()
    done = build(*file, *args, *output, context)
    if case.fails:
        _check_failure(case, done, verdict, who)
        return False
    if done.returncode:
        verdict.problems.append(f"{who} does not build it:\n{_said(done)}")
    return not done.returncode


def _check_failure(case: Case, done: subprocess.CompletedProcess[bytes], verdict: Verdict, who: str) -> None:
    said = _said(done)
    if not done.returncode:
        verdict.problems.append(f"{who} builds what must fail")
    elif who == "pybuild":
        if not re.search(case.fails, said):
            verdict.problems.append(f"pybuild fails, but its words do not match {case.fails!r}:\n{said}")
        if done.returncode not in (1, 2, 3) or "Traceback" in said:
            verdict.problems.append(
                f"pybuild exited {done.returncode}, expected 1, 2 or 3 and no traceback:\n{said}"
            )


def _said(done: subprocess.CompletedProcess[bytes]) -> str:
    return (done.stderr + done.stdout).decode(errors="replace")[-2500:]


def _docker_problems(case: Case, ours: Flat, theirs: Flat) -> list[str]:
    """Ours held against Docker's: tree, config, the top-level fields, and each instruction's history."""
    expected = {path: line for path, line in theirs.tree.items() if path not in case.stubs}
    problems = [f"tree {line}" for line in differences(ours.tree, expected)]
    problems += _config_problems(_settings(ours), _settings(theirs))
    for key in ("os", "architecture", "author"):
        if (ours.config.get(key) or None) != (theirs.config.get(key) or None):
            problems.append(f"{key}: ours {ours.config.get(key)!r}; docker {theirs.config.get(key)!r}")
    wanted = [case.newer.get(line, line) for line in _history(theirs)]
    return problems + _history_problems(_history(ours), wanted)


def _golden_problems(case: Case, image: Flat, base: Flat, who: str) -> list[str]:
    """An image held against the case's own expectations, as far as it states any."""
    problems = []
    if case.tree is not None:
        found = differences(image.tree, expected_tree(base.tree, case.tree))
        problems += [f"golden tree ({who}) {line}" for line in found]
    if case.config is not None:
        wanted = {**base.config.get("config", {}), **case.config}
        problems += [
            f"golden {line} ({who})" for line in _config_problems(_settings(image), _present(wanted))
        ]
    if case.author is not None and image.config.get("author") != case.author:
        problems.append(f"golden author ({who}): {image.config.get('author')!r}, expected {case.author!r}")
    if case.history is not None:
        skip = len(base.config["history"])
        lines = _history(image)[skip:]
        wanted_lines = list(case.history)
        if who == "docker":
            wanted_lines = [
                {new: old for old, new in case.newer.items()}.get(line, line) for line in wanted_lines
            ]
        problems += [f"golden {line} ({who})" for line in _history_problems(lines, wanted_lines)]
    if who == "ours" and (image.config.get("os"), image.config.get("architecture")) != (
        "linux",
        architecture(),
    ):
        problems.append(f"platform: {image.config.get('os')}/{image.config.get('architecture')}")
    return problems


def _settings(image: Flat) -> dict[str, Any]:
    return _present(image.config.get("config") or {})


def _present(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Null, empty and absent are one: Docker writes some of each."""
    return {key: value for key, value in settings.items() if value not in (None, "", [], {}, False)}


def _config_problems(ours: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    return [
        f"config.{key}: ours {json.dumps(ours.get(key))}; expected {json.dumps(wanted.get(key))}"
        for key in sorted(ours.keys() | wanted.keys())
        if ours.get(key) != wanted.get(key)
    ]


def _history(image: Flat) -> list[str]:
    return [entry.get("created_by", "") for entry in image.config.get("history", [])]


def _history_problems(ours: Sequence[str], wanted: Sequence[str]) -> list[str]:
    if len(ours) != len(wanted):
        return [f"history: ours has {len(ours)} entries, expected {len(wanted)}:\n  {ours}\n  {wanted}"]
    return [f"history: ours {a!r}; expected {b!r}" for a, b in zip(ours, wanted, strict=True) if a != b]


def _show(verdict: Verdict) -> None:
    if verdict.expected is None:
        return
    for line in differences(verdict.expected.tree, verdict.base):
        print("     ", line.replace("ours ", "", 1).replace("; expected absent", ""))
    print("     ", json.dumps(_settings(verdict.expected)), verdict.expected.config.get("author") or "")
    for line in _history(verdict.expected):
        print("      #", repr(line))


def main() -> int:
    parser = argparse.ArgumentParser(description="compare pybuild's images with their judges'")
    parser.add_argument("patterns", nargs="*", default=["*"], metavar="PATTERN", help="names of cases")
    parser.add_argument("--show", action="store_true", help="print what each case does to its base")
    parser.add_argument("--reference", action="store_true", help="ask only Docker, do not run pybuild")
    options = parser.parse_args()
    chosen = [c for c in CASES if any(fnmatch.fnmatchcase(c.name, p) for p in options.patterns)]
    began = time.monotonic()
    failed = 0
    with bench(options.reference) as at:
        at.start(chosen)
        for case in chosen:
            verdict = at.verdict(case)
            failed += bool(verdict.problems)
            print(
                f"{'DIFFERS' if verdict.problems else 'equal  '} {case.name} ({case.reference})", flush=True
            )
            for problem in verdict.problems:
                print("   -", problem.replace("\n", "\n     "))
            if options.show:
                _show(verdict)
    print(f"{len(chosen)} cases, {failed} differ, {time.monotonic() - began:.1f} s")
    return 1 if failed or not chosen else 0


if __name__ == "__main__":
    sys.exit(main())
