#!/usr/bin/env python3
"""Build Dockerfiles as people write them, from local bases, and run what came out.

    sudo .venv/bin/python tests/corpus/run.py [PATTERN ...]

Each file of `cases/` is one Dockerfile with its context, as README.md says. Needs uid 0 and mmdebstrap.
The same, as tests: tests/interop/test_corpus.py.
"""

from __future__ import annotations

import fnmatch
import hashlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

if __name__ == "__main__":
    sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "interop"))

from judges.pybuild import Pybuild

HERE = os.path.dirname(os.path.abspath(__file__))
CHECKOUT = os.path.dirname(os.path.dirname(HERE))

DEBIAN = ("debian:bookworm", "debian:bookworm-slim", "ubuntu:22.04", "buildpack-deps:bookworm")
TOOLS = (
    "golang:1.22",
    "golang:1.22-alpine",
    "rust:1.75",
    "rust:1.75-slim",
    "node:20",
    "node:20-slim",
    "node:20-alpine",
    "python:3.12",
    "python:3.12-slim",
    "maven:3.9-eclipse-temurin-21",
    "eclipse-temurin:21-jre",
    "gcc:13",
    "nginx:1.25",
    "nginx:stable",
)
_FILE = re.compile(r"^-- (\S+)(?: (0[0-7]+))? --\n", re.M)


@dataclass(slots=True)
class Check:
    """`run` are the words after `pybuild run`, IMAGE for the image; `prints` the lines it must print."""

    run: list[str]
    prints: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Sample:
    """One Dockerfile with what is built and checked. `everyday` ones belong to every test run."""

    name: str
    about: str = ""
    build: list[str] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    files: dict[str, tuple[str, int]] = field(default_factory=dict)
    everyday: bool = False
    tools: bool = True


def read(path: str) -> Sample:
    """A sample from its file. Raises ValueError for a header that is not known."""
    with open(path, encoding="utf-8") as file:
        parts = _FILE.split(file.read())
    sample = Sample(os.path.basename(path).partition(".")[0])
    for line in parts[0].splitlines():
        key, _, value = line.partition(": ")
        match key:
            case "About":
                sample.about = value
            case "Build":
                sample.build = shlex.split(value)
            case "Run":
                sample.checks.append(Check(shlex.split(value)))
            case "Prints":
                sample.checks[-1].prints.append(value)
            case "Everyday":
                sample.everyday, sample.tools = True, False
            case _:
                raise ValueError(f"{path}: {line!r} is no header")
    for name, mode, text in zip(parts[1::3], parts[2::3], parts[3::3], strict=True):
        sample.files[name] = (text, int(mode or "0644", 8))
    return sample


def samples() -> list[Sample]:
    """All of them, by name."""
    folder = os.path.join(HERE, "cases")
    return [read(os.path.join(folder, name)) for name in sorted(os.listdir(folder))]


class Shop:
    """A store with the bases, and a place for contexts."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.pybuild = Pybuild(os.path.join(directory, "store"))
        self._ready: set[str] = set()

    def prepare(self, tools: bool) -> None:
        """Have the bases in the store: made once, kept in .cache."""
        if "debian" not in self._ready:
            self.pybuild.run("import", debian(), DEBIAN[0])
            for name in DEBIAN[1:]:
                self.pybuild.run("tag", DEBIAN[0], name)
            self._ready.add("debian")
        if tools and "tools" not in self._ready:
            self.pybuild.run("load", "--input", self._tools())
            for name in TOOLS:
                self.pybuild.run("tag", "corpus/tools:latest", name)
            self._ready.add("tools")

    def _tools(self) -> str:
        """The archive of the tools image, built by pybuild when it or what it is made from is new."""
        bases = os.path.join(HERE, "bases")
        key = hashlib.sha256(debian().encode())
        for name in sorted(os.listdir(bases)):
            with open(os.path.join(bases, name), "rb") as file:
                key.update(name.encode() + file.read())
        path = os.path.join(CHECKOUT, ".cache", f"corpus-tools-{key.hexdigest()[:16]}.tar")
        if not os.path.exists(path):
            dockerfile = os.path.join(bases, "tools.Dockerfile")
            part = f"{path}.{os.getpid()}.part"
            output = f"type=oci,dest={part}"
            self.pybuild.run("build", "-f", dockerfile, "-t", "corpus/tools:latest", "-o", output, bases)
            os.replace(part, path)
        return path

    def problems(self, sample: Sample) -> list[str]:
        """Build one and run its checks; what went wrong."""
        self.prepare(sample.tools)
        place = os.path.join(self.directory, sample.name)
        context = os.path.join(place, "context")
        write(sample, context)
        words = {"context": context, "key": os.path.join(place, "key")}
        if any("{key}" in word for word in sample.build):
            _make_key(words["key"])
        image = f"corpus/{sample.name}:latest"
        args = [word.format_map(words) for word in sample.build]
        try:
            done = self.pybuild.run("build", "--progress=plain", "-t", image, *args, context, check=False)
            if done.returncode:
                return [f"{sample.name} does not build:\n{done.stderr.decode(errors='replace')[-3000:]}"]
            return [each for check in sample.checks for each in self._check(check, image)]
        finally:
            shutil.rmtree(place)

    def _check(self, check: Check, image: str) -> list[str]:
        words = [image if word == "IMAGE" else word for word in check.run]
        done = self.pybuild.run("run", "--network=none", *words, check=False)
        said = done.stdout.decode(errors="replace")
        if done.returncode == 0 and said.splitlines() == check.prints:
            return []
        said += done.stderr.decode(errors="replace")
        return [f"{shlex.join(check.run)}: exit {done.returncode}, expected {check.prints}, printed:\n{said}"]


def debian() -> str:
    """The archive of the distribution's base, made by scripts/make-debian-base when it is not there."""
    script = os.path.join(CHECKOUT, "scripts", "make-debian-base")
    return subprocess.run([script], capture_output=True, text=True, check=True).stdout.strip()


def write(sample: Sample, context: str) -> None:
    """The files of a sample below `context`."""
    for name, (text, mode) in sample.files.items():
        path = os.path.join(context, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(path, mode)


def _make_key(path: str) -> None:
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "deploy@example", "-f", path]
    subprocess.run(command, check=True)


def main(patterns: Sequence[str]) -> int:
    """All samples that match, each with its verdict."""
    chosen = [
        each for each in samples() if any(fnmatch.fnmatchcase(each.name, one) for one in patterns or ["*"])
    ]
    fast = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    failed = 0
    with tempfile.TemporaryDirectory(prefix="pybuild-corpus-", dir=fast) as directory:
        shop = Shop(directory)
        for sample in chosen:
            began = time.monotonic()
            problems = shop.problems(sample)
            failed += bool(problems)
            verdict = "FAILS" if problems else "ok   "
            print(f"{verdict} {sample.name} {time.monotonic() - began:.1f} s: {sample.about}", flush=True)
            for problem in problems:
                print("   -", problem.replace("\n", "\n     "))
    print(f"{len(chosen)} samples, {failed} fail")
    return 1 if failed or not chosen else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
