"""The comparisons with registries: images pushed, pulled, unpacked and rebased, beside skopeo and Docker."""

from __future__ import annotations

import contextlib
import os
import shutil
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import images
import material
from floors import floors, warm
from measure import in_turns, timed
from peers import Registry, docker_registry, own_registry, run, version
from pybuild import Pybuild
from registry_server import material as blobs_for
from registry_server import timed_clients
from scenarios import Bench, Outcome
from workarea import WorkArea

Serve = Callable[[], AbstractContextManager[Registry]]
BIG, MANY = "big", "many"
SERVER_BYTES = 512 << 20


def push_1gb(bench: Bench) -> Outcome:
    """1 GB in 8 layers into an empty docker-registry; skopeo and Docker do the same."""
    return _push(bench, "push-1gb", "push 1 GB, 8 layers", lambda: docker_registry(bench.area.path))


def push_1gb_own(bench: Bench) -> Outcome:
    """The same into our own registry."""
    return _push(bench, "push-1gb-own", "push 1 GB, own registry", lambda: _own(bench))


def pull_1gb(bench: Bench) -> Outcome:
    """1 GB in 8 layers from docker-registry into an empty store, as skopeo brings it into a layout."""
    return _pull(bench, "pull-1gb", "pull 1 GB, 8 layers", lambda: docker_registry(bench.area.path))


def pull_1gb_own(bench: Bench) -> Outcome:
    """The same from our own registry."""
    return _pull(bench, "pull-1gb-own", "pull 1 GB, own registry", lambda: _own(bench))


def forty_layers(bench: Bench) -> Outcome:
    """40 layers pulled and unpacked; the best peer is Docker, or skopeo with umoci."""
    layout = _layout(bench, MANY, images.forty_layers)
    with docker_registry(bench.area.path) as registry, _scratch(bench) as scratch:
        name = f"{registry.address}/bench/many:1"
        _seed(layout, MANY, name)
        skopeo = lambda: timed(lambda: _skopeo_and_umoci(scratch, name))  # noqa: E731
        docker = _Docker(bench, name)
        best, told = _best({"skopeo and umoci": skopeo, "docker": docker.pull})

        def ours() -> float:
            return scratch.store().time("pull", "--unpack", name)

        pairs = in_turns(ours, best, bench.rounds)
        memory = scratch.store().memory("pull", "--unpack", name)
        return _outcome("40-layers", "pull and unpack 40 layers", pairs.ours, pairs.theirs, 0.6, memory, told)


def env_rebase(bench: Bench) -> Outcome:
    """FROM a base in a registry, ENV on top, pushed back; Docker has to pull, build and push."""
    with docker_registry(bench.area.path) as registry, _scratch(bench) as scratch:
        base, name = f"{registry.address}/bench/base:1", f"{registry.address}/bench/rebased:1"
        seeder = bench.stores.fresh([(material.debian_base(), base)])
        seeder.run("push", "--quiet", base)
        layers = {each for each in os.listdir(f"{seeder.root}/blobs/sha256") if _size(seeder, each) > 1 << 20}
        text = f"FROM {base}\nARG UNIQUE\nENV VERSION=$UNIQUE\n"
        file = material.dockerfile(bench.area, "rebase", text)
        context = material.empty(bench.area)
        docker = _Docker(bench, base)
        fetched: list[str] = []

        def build(unique: int) -> list[str]:
            return ["-f", file, "-t", name, "--build-arg", f"UNIQUE={unique}", context]

        def ours() -> float:
            store = scratch.store()
            took = store.time("build", "--push", *build(time.monotonic_ns()))
            fetched.extend(layers & set(os.listdir(f"{store.root}/blobs/sha256")))
            return took

        def theirs() -> float:
            return docker.rebase(name, build(time.monotonic_ns()))

        pairs = in_turns(ours, theirs, bench.rounds)
        memory = scratch.store().memory("build", "--push", *build(0))
        fault = f"{len(fetched)} layers of the base were fetched" if fetched else ""
        note = "base: Debian minbase; layers of it that were fetched: " + (fault or "none")
        title = "rebase and push (FROM, ENV)"
        return _outcome("env-rebase", title, pairs.ours, pairs.theirs, 0.3, memory, note, fault)


def server(work: str, clients: int) -> Callable[[Bench], Outcome]:
    """The scenario in which `clients` push or pull at once, at our registry and at docker-registry."""

    def scenario(bench: Bench) -> Outcome:
        """Seconds for all that the clients move, the best round of each."""
        directory = bench.area.directory("server-blobs")
        paths = blobs_for(directory, clients, SERVER_BYTES // clients)
        times: dict[str, list[float]] = {"pybuild": [], "docker-registry": []}
        memory = 0
        for turn in range(bench.rounds):
            with _own(bench) as ours, docker_registry(bench.area.path) as theirs:
                for registry in (ours, theirs) if turn % 2 else (theirs, ours):
                    if work == "pull":
                        timed_clients("push", registry, paths)
                    warm(bench.area)
                    times[registry.name].append(timed_clients(work, registry, paths)[1])
                memory = max(memory, _high_water(ours.pid))
        shutil.rmtree(directory)
        mine, others = min(times["pybuild"]), min(times["docker-registry"])
        title = f"server: {work}, {clients} client{'s' * (clients > 1)}"
        note = "minimum of the rounds; bare-socket clients; memory is the server's"
        return Outcome(
            f"server-{work}-{clients}", title, mine, others, mine / others, 1.0, None, memory, note
        )

    return scenario


TRANSFERS: dict[str, Callable[[Bench], Outcome]] = {
    "push-1gb": push_1gb,
    "push-1gb-own": push_1gb_own,
    "pull-1gb": pull_1gb,
    "pull-1gb-own": pull_1gb_own,
    "40-layers": forty_layers,
    "env-rebase": env_rebase,
    **{f"server-{work}-{clients}": server(work, clients) for work in ("push", "pull") for clients in (1, 16)},
}


class _Scratch:
    """Places for what is brought, emptied before each use."""

    def __init__(self, bench: Bench, path: str) -> None:
        self._bench = bench
        self._path = path

    def place(self) -> str:
        """A path at which nothing is."""
        path = os.path.join(self._path, "place")
        shutil.rmtree(path, ignore_errors=True)
        return path

    def store(self) -> Pybuild:
        """An empty store."""
        return Pybuild(self._bench.stores.venv, self.place())


@contextlib.contextmanager
def _scratch(bench: Bench) -> Iterator[_Scratch]:
    path = bench.area.directory("scratch")
    try:
        yield _Scratch(bench, path)
    finally:
        shutil.rmtree(path)


class _Docker:
    """Docker's ways to do the same, one image at a time; each leaves the daemon without images."""

    def __init__(self, bench: Bench, name: str) -> None:
        self._docker = bench.docker
        self._name = name

    def pull(self) -> float:
        """Seconds to pull, which unpacks."""
        self._forget()
        return timed(lambda: self._docker.run("pull", self._name))

    def push(self, origin: str) -> float:
        """Seconds to push what was pulled as `origin` before."""
        self._docker.run("pull", origin)
        self._docker.run("tag", origin, self._name)
        took = timed(lambda: self._docker.run("push", self._name))
        self._forget()
        return took

    def rebase(self, target: str, build: list[str]) -> float:
        """Seconds to pull the base, build on it and push."""
        self._forget()

        def work() -> None:
            self._docker.run("pull", self._name)
            self._docker.run("build", *build)
            self._docker.run("push", target)

        return timed(work)

    def _forget(self) -> None:
        self._docker.forget()
        self._docker.run("image", "prune", "--all", "--force")


def _push(bench: Bench, name: str, title: str, serve: Serve) -> Outcome:
    layout = _layout(bench, BIG, images.one_gigabyte)
    with _scratch(bench) as scratch:
        store = scratch.store()
        store.run("copy", f"oci:{layout}:{BIG}", "store:bench/big:1")

        burnt: list[float] = []

        def into_empty(push: Callable[[str], float]) -> float:
            warm(bench.area)
            with serve() as registry:
                took = push(f"{registry.address}/bench/big:1")
                burnt.append(_cpu_seconds(registry.pid))
                return took

        def ours(target: str) -> float:
            store.run("tag", "bench/big:1", target)
            return store.time("push", "--quiet", target)

        def skopeo(target: str) -> float:
            return timed(lambda: _seed(layout, BIG, target))

        def docker(target: str) -> float:
            with serve() as other:
                _seed(layout, BIG, f"{other.address}/bench/big:1")
                return _Docker(bench, target).push(f"{other.address}/bench/big:1")

        best, told = _best({"skopeo": lambda: into_empty(skopeo), "docker": lambda: into_empty(docker)})
        pairs = in_turns(lambda: into_empty(ours), best, bench.rounds)
        with serve() as registry:
            target = f"{registry.address}/bench/big:1"
            store.run("tag", "bench/big:1", target)
            memory = store.memory("push", "--quiet", target)
    both = f"the registry's own work, the same for all: {statistics.median(burnt):.2f} s of the cores' time"
    note = f"{told}; {floors(bench.area, layout)}; {both}"
    return _outcome(name, title, pairs.ours, pairs.theirs, 0.6, memory, note)


def _pull(bench: Bench, name: str, title: str, serve: Serve) -> Outcome:
    layout = _layout(bench, BIG, images.one_gigabyte)
    with serve() as registry, _scratch(bench) as scratch:
        source = f"{registry.address}/bench/big:1"
        _seed(layout, BIG, source)

        def ours() -> float:
            store = scratch.store()
            warm(bench.area)
            return store.time("pull", "--quiet", source)

        def skopeo() -> float:
            place = scratch.place()
            warm(bench.area)
            return timed(
                lambda: run(
                    "skopeo", "copy", "--src-tls-verify=false", f"docker://{source}", f"oci:{place}:{BIG}"
                )
            )

        docker = timed(lambda: bench.docker.run("pull", source))
        bench.docker.run("image", "prune", "--all", "--force")
        pairs = in_turns(ours, skopeo, bench.rounds)
        memory = scratch.store().memory("pull", "--quiet", source)
    note = f"against {version('skopeo')}; docker, which unpacks too: {docker:.2f} s; "
    return _outcome(name, title, pairs.ours, pairs.theirs, 0.6, memory, note + floors(bench.area, layout))


def _best(peers: dict[str, Callable[[], float]]) -> tuple[Callable[[], float], str]:
    """The fastest of the peers, each tried once, and a phrase of what they took."""
    times = {name: peer() for name, peer in peers.items()}
    best = min(times, key=lambda name: times[name])
    told = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in times.items())
    return peers[best], f"against {best}, the best peer ({told})"


def _seed(layout: str, tag: str, target: str) -> None:
    run("skopeo", "copy", "--quiet", "--dest-tls-verify=false", f"oci:{layout}:{tag}", f"docker://{target}")


def _skopeo_and_umoci(scratch: _Scratch, name: str) -> None:
    place = scratch.place()
    os.mkdir(place)
    image = f"{place}/layout:{MANY}"
    run("skopeo", "copy", "--quiet", "--src-tls-verify=false", f"docker://{name}", f"oci:{image}")
    run("umoci", "unpack", "--image", image, f"{place}/bundle")


def _layout(bench: Bench, name: str, make: Callable[[WorkArea], None]) -> str:
    path = os.path.join(bench.area.path, f"layout-{name}")
    if not os.path.isdir(path):
        images.made(make, bench.area)
    return path


def _own(bench: Bench) -> AbstractContextManager[Registry]:
    return own_registry(bench.area.path, f"{bench.stores.venv}/bin/pybuild")


def _size(store: Pybuild, blob: str) -> int:
    return os.path.getsize(f"{store.root}/blobs/sha256/{blob}")


def _high_water(pid: int) -> int:
    with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith("VmHWM"))


def _cpu_seconds(pid: int) -> float:
    """What a process has used of the cores, in seconds."""
    with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _outcome(
    name: str,
    title: str,
    ours: list[float],
    theirs: list[float],
    bar: float,
    memory: int,
    note: str,
    fault: str = "",
) -> Outcome:
    ratio = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
    mine, others = statistics.median(ours), statistics.median(theirs)
    return Outcome(name, title, mine, others, ratio, bar, None, memory, note, fault)
