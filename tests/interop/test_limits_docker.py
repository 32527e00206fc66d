"""The same limits given to docker and to pybuild: the files of their cgroups say the same."""

from __future__ import annotations

import glob
import os
import subprocess
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from judges.dockerd import Docker
from judges.pybuild import Pybuild

from builder.sandbox.cgroup_tree import hierarchies

pytestmark = pytest.mark.interop

FILES = (
    "memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "cpu.shares", "cpu.cfs_quota_us",
    "cpu.cfs_period_us", "cpuset.cpus", "cpuset.mems", "pids.max", "blkio.bfq.weight", "blkio.weight",
    "blkio.throttle.read_bps_device", "memory.max", "memory.swap.max", "cpu.weight", "cpu.max", "io.max",
)  # fmt: skip
CASES = {
    "memory": ("-m", "64m"),
    "memory and swap": ("-m", "64m", "--memory-swap", "96m"),
    "any swap": ("-m", "64m", "--memory-swap", "-1"),
    "processors": ("--cpus", "0.75", "--cpuset-cpus", "0", "--cpuset-mems", "0", "-c", "512"),
    "quota": ("--cpu-period", "50000", "--cpu-quota", "25000"),
    "processes": ("--pids-limit", "77"),
}


@contextmanager
def ours(pybuild: Pybuild, image: str, limits: tuple[str, ...]) -> Iterator[str]:
    """The cgroup below which a container's program waits."""
    parent = f"pybuild-test-{os.getpid()}"
    program = os.path.join(sysconfig.get_path("scripts"), "pybuild")
    options = ["-i", "--network=none", "--cgroup-parent", parent, *limits]
    command = [program, "--root", pybuild.root, "run", *options, image, "sh", "-c", "echo up; cat"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdin is not None
        assert process.stdout.readline() == b"up\n"
        yield parent
        process.stdin.close()
        assert process.wait() == 0


def values(folders: list[str]) -> dict[str, str]:
    found = {}
    for folder in folders:
        for name in FILES:
            if os.path.exists(f"{folder}/{name}"):
                with open(f"{folder}/{name}") as file:
                    found[name] = file.read().strip()
    return found


@pytest.mark.parametrize("case", CASES)
def test_the_same_limits(
    case: str, docker: Docker, pybuild: Pybuild, busybox_image: str, busybox_archive: str
) -> None:
    docker.run("load", "--input", busybox_archive)
    options = (*CASES[case], "--network=none", busybox_image)
    container = docker.run("create", *options, "sleep", "60").stdout.decode().strip()
    tops = [each.mount for each in hierarchies() if each.controllers != {"name=systemd"}]
    try:
        docker.run("start", container)
        theirs = values([f"{top}/docker/{container}" for top in tops])
    finally:
        docker.run("rm", "--force", container)
    with ours(pybuild, busybox_image, CASES[case]) as parent:
        mine = values([path for top in tops for path in glob.glob(f"{top}/{parent}/pybuild-*/1")])
    assert theirs and mine == theirs
