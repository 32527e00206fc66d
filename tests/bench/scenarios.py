"""The comparisons, one function each: what both sides do, which of it is timed, and what is asked of us."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import material
from dockerd import Docker
from measure import Pairs, in_turns, timed, watch_opens
from pybuild import ENVIRONMENT, Pybuild, Stores
from workarea import WorkArea

MEMORY_BAR = 150_000_000
SETTLE_S = 0.3
BUSYBOX, DEBIAN = "bench/busybox:1", "bench/debian:1"


@dataclass(frozen=True, slots=True)
class Bench:
    """Both sides and the ground they stand on. `rounds` is how many pairs are timed."""

    area: WorkArea
    docker: Docker
    stores: Stores
    rounds: int

    def base(self, name: str) -> str:
        """The tar of a base image, handed to Docker too when it lacks it."""
        tar = material.debian_base() if name == DEBIAN else os.path.join(self.area.path, "busybox.tar")
        if not os.path.exists(tar):
            material.busybox_base(self.area)
        if not self.docker.text("images", "--quiet", name):
            self.docker.run("import", tar, name)
        return tar

    def archive(self, side: str) -> str:
        """Where a side puts its archive; nothing is there."""
        path = os.path.join(self.area.path, f"{side}.tar")
        if os.path.exists(path):
            os.unlink(path)
        return path


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a scenario showed. Times in seconds, memory in bytes; `bar` is the most `ratio` may be."""

    name: str
    title: str
    ours: float
    theirs: float
    ratio: float
    bar: float
    aim: float | None
    memory: int
    note: str = ""
    fault: str = ""

    @property
    def faults(self) -> list[str]:
        """What is not as asked; empty when all is."""
        found = [self.fault] if self.fault else []
        if self.ratio > self.bar:
            found.append(f"ratio {self.ratio:.3f} > {self.bar}")
        if self.memory > MEMORY_BAR:
            found.append(f"memory {self.memory / 1e6:.0f} MB > {MEMORY_BAR / 1e6:.0f} MB")
        return found


def one_run(bench: Bench) -> Outcome:
    """FROM a Debian base, one RUN, to an archive. Both sides have the base unpacked from an earlier build."""
    file = material.dockerfile(bench.area, "one-run", material.ONE_RUN.format(base=DEBIAN))
    store = bench.stores.fresh([(bench.base(DEBIAN), DEBIAN)])
    build = Build(bench, file, material.empty(bench.area), archive=True)
    first = store.time(*build.ours())
    pairs = build.compare(lambda: store)
    note = f"base: Debian minbase; a store's first build, which unpacks it: {first:.2f} s"
    return _outcome("one-run", "FROM + RUN, archive", pairs, 0.7, 0.5, build.memory(store), note)


def thirty_runs(bench: Bench) -> Outcome:
    """30 steps that write a line each, host network on both sides."""
    pairs, memory = _thirty(bench, "host")
    note = "base: busybox"
    return _outcome("30-runs", "30 RUN, host network", pairs, 0.25, 0.15, memory, note)


def thirty_private(bench: Bench) -> Outcome:
    """The same with a network namespace and NAT for each step of ours; Docker keeps the host's network."""
    pairs, memory = _thirty(bench, "default")
    note = (
        "base: busybox; Docker on the host's network: a bridge of its own would change the machine's firewall"
    )
    return _outcome("30-private", "30 RUN, private networks", pairs, 0.35, None, memory, note)


def thirty_rootless(bench: Bench) -> Outcome:
    """The same in a user namespace, where an ordinary user's steps run."""
    pairs, memory = _thirty(bench, "host", "--isolation=rootless")
    note = "base: busybox; ours in a user namespace (--isolation=rootless)"
    return _outcome("30-rootless", "30 RUN, user namespace", pairs, 0.35, None, memory, note)


def many_files(bench: Bench) -> Outcome:
    """COPY of 40,000 small files to an archive; nothing cached on either side."""
    return _cold_copy(bench, "40k-files", "COPY 40,000 files, archive", _many(bench), 0.15, 0.08)


def big_file(bench: Bench) -> Outcome:
    """COPY of a 1 GB file to an archive; nothing cached on either side."""
    context = material.big_file(bench.area)
    try:
        return _cold_copy(bench, "1gb-file", "COPY 1 GB file, archive", context, 0.2, 0.1)
    finally:
        shutil.rmtree(context)


def cached(bench: Bench) -> Outcome:
    """A rebuild of 10 steps over 40,000 files with nothing changed, and no file of the context opened."""
    file = material.dockerfile(bench.area, "cached", material.ten_steps(BUSYBOX))
    store = bench.stores.fresh([(bench.base(BUSYBOX), BUSYBOX)])
    context = _many(bench)
    build = Build(bench, file, context, archive=False, cold=False)
    time.sleep(2.1)  # checksums of files younger than two seconds may not be remembered
    store.run(*build.ours())
    bench.docker.run(*build.theirs())
    pairs = build.compare(lambda: store, rounds=2 * bench.rounds)
    fault = _opened(context, lambda: store.run(*build.ours()))
    note = "base: busybox; context files opened: " + (fault or "none")
    return _outcome(
        "cached", "10 steps cached, 40,000 files", pairs, 0.3, 0.15, build.memory(store), note, fault
    )


def start_images(bench: Bench) -> Outcome:
    """`pybuild images` against a bare interpreter."""
    store = bench.stores.fresh([(bench.base(BUSYBOX), f"bench/image:{n}") for n in range(5)])
    return _start(store, "images", 6.0)


def start_help(bench: Bench) -> Outcome:
    """`pybuild --help` against a bare interpreter."""
    return _start(bench.stores.fresh([]), "--help", 6.0)


SCENARIOS: dict[str, Callable[[Bench], Outcome]] = {
    "one-run": one_run,
    "30-runs": thirty_runs,
    "30-private": thirty_private,
    "30-rootless": thirty_rootless,
    "40k-files": many_files,
    "1gb-file": big_file,
    "cached": cached,
    "images": start_images,
    "help": start_help,
}


class Build:
    """One build, as either side's command line. `cold`: nothing of an earlier round may be used."""

    def __init__(
        self,
        bench: Bench,
        file: str,
        context: str,
        *,
        archive: bool,
        cold: bool = True,
        network: str = "host",
        ours: tuple[str, ...] = (),
    ) -> None:
        self._only_ours = ours
        self._bench, self._file, self._context = bench, file, context
        self._archive, self._cold, self._network = archive, cold, network

    def ours(self) -> list[str]:
        words = ["build", "--progress", "plain", "--network", self._network, *self._only_ours]
        words += self._common()
        if self._archive:
            words += ["-o", f"type=oci,dest={self._bench.archive('ours')}"]
        return [*words, self._context]

    def theirs(self) -> list[str]:
        return ["build", "--progress", "plain", "--network", "host", *self._common(), self._context]

    def compare(self, store_of: Callable[[], Pybuild], rounds: int = 0) -> Pairs:
        """Rounds of both; `store_of` is asked for a store before each of ours."""

        def ours() -> float:
            return self.time_ours(store_of())

        return in_turns(ours, self.time_theirs, rounds or self._bench.rounds)

    def time_ours(self, store: Pybuild) -> float:
        """Seconds of one build of ours."""
        words = self.ours()
        time.sleep(SETTLE_S)
        return store.time(*words)

    def time_theirs(self) -> float:
        """Seconds of one build of Docker's, `docker save` included where an archive is wanted."""
        docker = self._bench.docker
        if self._cold:
            docker.forget()
        saved, words = self._bench.archive("docker"), self.theirs()
        time.sleep(SETTLE_S)
        took = timed(lambda: docker.run(*words))
        return took + (timed(lambda: docker.run("save", "-o", saved, "bench/out")) if self._archive else 0.0)

    def memory(self, store: Pybuild) -> int:
        """Peak of one more build of ours, not timed: watching costs time."""
        return store.memory(*self.ours())

    def _common(self) -> Iterator[str]:
        yield from ("-f", self._file, "-t", "bench/out")
        if self._cold:
            yield from ("--no-cache", "--build-arg", f"UNIQUE={time.monotonic_ns()}")


def _thirty(bench: Bench, network: str, *ours: str) -> tuple[Pairs, int]:
    file = material.dockerfile(bench.area, "30-runs", material.many_runs(BUSYBOX, 30))
    store = bench.stores.fresh([(bench.base(BUSYBOX), BUSYBOX)])
    build = Build(bench, file, material.empty(bench.area), archive=False, network=network, ours=ours)
    store.run(*build.ours())
    return build.compare(lambda: store), build.memory(store)


def _cold_copy(bench: Bench, name: str, title: str, context: str, bar: float, aim: float) -> Outcome:
    file = material.dockerfile(bench.area, name, material.COPY_ALL.format(base=BUSYBOX))
    tar = bench.base(BUSYBOX)
    build = Build(bench, file, context, archive=True)
    used: list[Pybuild] = []

    def fresh() -> Pybuild:
        for store in used:
            shutil.rmtree(store.root)
        used[:] = [bench.stores.fresh([(tar, BUSYBOX)])]
        return used[0]

    pairs = build.compare(fresh)
    note = "base: busybox; page cache warm on both sides"
    return _outcome(name, title, pairs, bar, aim, build.memory(fresh()), note)


def _many(bench: Bench) -> str:
    path = os.path.join(bench.area.path, "many")
    return path if os.path.isdir(path) else material.many_files(bench.area)


def _opened(context: str, build: Callable[[], None]) -> str:
    """How many files of the context a build opened, with one name; "" for none."""
    with watch_opens(context) as opened:
        inner = next(os.path.join(d, f[0]) for d, _, f in os.walk(context) if f)
        open(inner, "rb").close()
        if opened.take() != [inner]:
            raise RuntimeError("the watch over the context does not see a file that is opened")
        build()
        names = opened.take()
    return f"{len(names)} context files opened, {names[0]} first" if names else ""


def _start(store: Pybuild, word: str, bar: float) -> Outcome:
    """The minimum of 30 of a command and of the same interpreter doing nothing."""
    bare = [f"{store.venv}/bin/python3", "-c", "pass"]
    pairs = in_turns(lambda: store.time(word), lambda: timed(lambda: _quiet(bare)), 30)
    ours, theirs = min(pairs.ours), min(pairs.theirs)
    memory = store.memory(word)
    name = word.lstrip("-")
    return Outcome(
        name,
        f"pybuild {word}",
        ours,
        theirs,
        ours / theirs,
        bar,
        None,
        memory,
        "minimum of 30; against `python3 -c pass`",
    )


def _quiet(argv: list[str]) -> None:
    subprocess.run(
        argv,
        env=ENVIRONMENT,
        check=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def _outcome(
    name: str,
    title: str,
    pairs: Pairs,
    bar: float,
    aim: float | None,
    memory: int,
    note: str,
    fault: str = "",
) -> Outcome:
    ours, theirs = statistics.median(pairs.ours), statistics.median(pairs.theirs)
    return Outcome(name, title, ours, theirs, pairs.ratio, bar, aim, memory, note, fault)
