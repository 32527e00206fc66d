"""Resource limits with real cgroups: what a step may use, what happens at the limit, what remains afterwards.

All limits here are far below what the machine has, so that nothing else on it notices.
"""

from __future__ import annotations

import glob
import os
import re
import secrets
import socket
import subprocess
import sysconfig
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from naps import nap, sleeping

from builder.errors import ResourceError, StepFailed, TimedOut, UsageError
from builder.events import StepDone, Warning_, discard
from builder.limiting import Limiting, limited
from builder.sandbox.cgroup import Groups, NotEnforceable, StepGroup
from builder.sandbox.cgroup_files import weight_of_shares
from builder.sandbox.cgroup_tree import Hierarchy, hierarchies, new_name, remove
from builder.sandbox.spec import Bind, Exit, Limits, Membership, Used
from tests.root.conftest import Workshop, World

pytestmark = pytest.mark.root

PYBUILD = os.path.join(sysconfig.get_path("scripts"), "pybuild")
MIB = 1 << 20
NONE = Limits()
HOG = "dd if=/dev/zero of=/dev/null bs={}M count=1"
BOMB = "bomb() { bomb | bomb & wait; }; bomb"


PARENT = f"pybuild-test-{secrets.token_hex(6)}"
"""Below it lie the cgroups of this process's builds: others build at the same time."""


def left(name: str = PARENT) -> list[str]:
    """Cgroups of that name, wherever they are."""
    tops = [each.mount for each in hierarchies()]
    return [path for top in tops for path in glob.glob(f"{top}/**/{name}", recursive=True)]


def raising(error: NotEnforceable) -> None:
    raise error


@contextmanager
def groups(limits: Limits = NONE, each: Limits = NONE, **more: str) -> Iterator[Groups]:
    name = new_name()
    with Groups(name, limits, each, refuse=raising, **more) as made:
        yield made
    assert not left(name)


def run_in(world: World, group: StepGroup, script: str) -> tuple[Exit, str, Used]:
    exit_, output = world.start(world.sandbox("sh", "-c", script), cgroup=group)
    assert exit_.used is not None
    return exit_, output, exit_.used


def test_a_hog_is_killed_at_its_limit(world: World) -> None:
    """SECURITY.md S95."""
    with groups(each=Limits(memory=32 * MIB)) as made, made.step() as group:
        exit_, _, used = run_in(world, group, HOG.format(100))
    assert exit_.status == 137
    assert used.oom_kills == 1 and used.memory == 32 * MIB


def test_below_its_limit_it_is_not(world: World) -> None:
    with groups(Limits(memory=64 * MIB)) as made, made.step() as group:
        exit_, _, used = run_in(world, group, HOG.format(16))
    assert exit_.status == 0
    assert used.oom_kills == 0 and 16 * MIB < used.memory < 64 * MIB


def test_steps_share_what_the_build_may_have(world: World) -> None:
    """The build's limit holds for all steps together, also when each may have more."""
    with groups(Limits(memory=32 * MIB), Limits(memory=64 * MIB)) as made, made.step() as group:
        exit_, _, used = run_in(world, group, HOG.format(48))
    assert exit_.status == 137 and used.oom_kills == 1


def test_a_fork_bomb_meets_its_limit_and_nothing_remains(world: World) -> None:
    """SECURITY.md S95."""
    with groups(each=Limits(pids=24)) as made, made.step() as group:
        exit_, output, used = run_in(world, group, f"{BOMB}; exit 3")
        assert "can't fork" in output
        assert used.refused > 0
        for place, path in group.places:
            with open(os.path.join(path, "cgroup.procs")) as processes:
                assert not processes.read(), place
    assert exit_.status


def test_processors_and_shares(world: World) -> None:
    limits = Limits(cpus="0", mems="0", cpu_shares=128, cpu_quota=5_000, cpu_period=100_000)
    expected = {
        1: {"cpu.shares": "128", "cpu.cfs_quota_us": "5000", "cpu.cfs_period_us": "100000"},
        2: {"cpu.weight": str(weight_of_shares(128)), "cpu.max": "5000 100000"},
    }
    with groups(limits) as made, made.step() as group:
        busy = "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done"
        exit_, output, _ = run_in(world, group, f"{busy}; grep Cpus_allowed_list /proc/self/status")
        stats = [open_text(f"{place.directory}/cpu.stat") for place in made._places]
        assert any("nr_throttled" in each and "nr_throttled 0" not in each for each in stats), stats
        assert exit_.status == 0 and output.split() == ["Cpus_allowed_list:", "0"]
        seen = {}
        for place in made._places:
            for name in (*expected[1], *expected[2], "cpuset.cpus"):
                if os.path.exists(f"{place.directory}/{name}"):
                    with open(f"{place.directory}/{name}") as file:
                        seen[name] = file.read().strip()
        version = next(place.here.version for place in made._places if "cpu" in place.controllers)
    assert seen == expected[version] | {"cpuset.cpus": "0"}


@pytest.mark.parametrize("scope", ["build", "step"])
def test_bytes_of_a_device(world: World, tmp_path: Path, scope: str) -> None:
    """What is read past the page cache cannot come faster than it may: 2 MiB at 2 MiB a second."""
    device = os.stat(tmp_path).st_dev
    numbers = f"{os.major(device)}:{os.minor(device)}"
    if not os.path.exists(f"/sys/dev/block/{numbers}/queue"):
        pytest.skip("temporary files are on no whole disk")
    (tmp_path / "file").write_bytes(os.urandom(2 * MIB))
    read = ("/usr/bin/dd", "if=/disk/file", "of=/dev/null", "bs=64k", "iflag=direct")
    programs = [Bind(os.path.realpath(each), each, True) for each in ("/usr", "/lib", "/lib64")]
    rate = Limits(io=((numbers, "rbps", 2 * MIB),))
    limits, each = (rate, NONE) if scope == "build" else (NONE, rate)
    with groups(limits, each) as made, made.step() as group:
        sandbox = world.sandbox(*read, mounts=(*programs, Bind(str(tmp_path), "/disk")))
        begun = time.monotonic()
        exit_, output = world.start(sandbox, cgroup=group)
    assert exit_.status == 0 and exit_.read >= 2 * MIB, output
    assert time.monotonic() - begun > 0.5


def test_the_step_sees_its_cgroup_as_the_top(world: World) -> None:
    with groups(each=Limits(memory=64 * MIB, pids=64)) as made, made.step() as group:
        _, output, _ = run_in(world, group, "cat /proc/self/cgroup")
    names = [line.split(":") for line in output.splitlines()]
    assert all(path == "/" for _, name, path in names if name in ("memory", "pids")), output


def test_born_in_a_cgroup_of_the_unified_hierarchy(world: World) -> None:
    """CLONE_INTO_CGROUP; which controllers the hierarchy has does not matter."""
    unified = next((each for each in hierarchies() if each.version == 2), None)
    if unified is None:
        pytest.skip("no cgroup2 is mounted")
    path = os.path.join(unified.mount, new_name())
    os.mkdir(path)
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    group = StepGroup([])
    group.membership = Membership(fd)
    try:
        sandbox = world.sandbox("sh", "-c", "grep ^0:: /proc/self/cgroup; exit 7")
        exit_, output = world.start(sandbox, cgroup=group)
        with open(os.path.join(path, "cpu.stat")) as stat:
            used_us = int(stat.read().split()[1])
    finally:
        os.close(fd)
        assert remove(path)
    assert exit_.status == 7 and output == "0::/\n"
    assert used_us > 0


def test_a_parent_is_made_and_taken_away(world: World) -> None:
    with groups(Limits(memory=64 * MIB), parent=f"/{PARENT}/inner") as made, made.step() as group:
        assert all(path.startswith(f"{place.here.mount}/{PARENT}/inner/") for place, path in group.places)
        assert run_in(world, group, "true")[0].status == 0
    assert not left()


def test_many_steps_and_builds_at_once() -> None:
    """Each has a cgroup of its own, and a parent that one takes away is made again by the next."""

    def build(number: int) -> None:
        for _ in range(5):
            with groups(Limits(memory=64 * MIB), Limits(pids=9), parent=f"{PARENT}/shared") as made:
                with ExitStack() as stack, ThreadPoolExecutor(8) as pool:
                    steps = [pool.submit(stack.enter_context, made.step()) for _ in range(8)]
                    paths = {path for each in steps for _, path in each.result().places}
                    assert len(paths) == 8 * len(made._places) and all(os.path.isdir(path) for path in paths)

    with ThreadPoolExecutor(4) as pool:
        for each in [pool.submit(build, number) for number in range(4)]:
            each.result()
    for path in [*left("shared"), *left()]:
        os.rmdir(path)  # the last to leave need not be the one that made it


def test_a_parent_that_others_use_stays() -> None:
    with groups(Limits(memory=64 * MIB), parent=PARENT) as first:
        with groups(Limits(memory=64 * MIB), parent=PARENT):
            pass
        assert all(os.path.isdir(place.directory) for place in first._places)
    assert not left()


@pytest.mark.parametrize(
    ("limits", "mounted", "told"),
    [
        (Limits(memory=64 * MIB), [], "--memory: no cgroups are mounted here"),
        (Limits(pids=9), [Hierarchy(2, "/nonexistent", "/nonexistent")], "no cgroup controller for pids"),
        (Limits(cpus="0-4000"), None, "--cpuset-cpus: the kernel refuses '0-4000'"),
        (Limits(io=(("1000:3", "rbps", MIB),)), None, "--device-read-bps: 1000:3 is no whole disk"),
    ],
)
def test_what_cannot_be_enforced_is_said(limits: Limits, mounted: list[Hierarchy], told: str) -> None:
    """SECURITY.md S95."""
    name = new_name()
    for scope in ((limits, Limits()), (Limits(), limits)):
        with pytest.raises(NotEnforceable, match=told):
            Groups(name, *scope, refuse=raising, mounted=mounted).__enter__()
        assert not left(name)


def test_version_1_bounds_a_device_in_one_way_only() -> None:
    if not any("blkio" in each.controllers for each in hierarchies()):
        pytest.skip("no hierarchy of version 1 has blkio")
    rate = Limits(io_weight=100)
    with pytest.raises(NotEnforceable, match="for all steps together or for each of them, not both"):
        Groups(new_name(), rate, rate, refuse=raising).__enter__()
    with groups(rate) as made, made.step() as first, made.step() as second:
        assert [path for _, path in first.places] == [path for _, path in second.places]
    with groups(NONE, rate) as made, made.step() as first, made.step() as second:
        assert [path for _, path in first.places] != [path for _, path in second.places]


def test_what_cannot_be_enforced_is_left_out_when_that_is_wanted(world: World) -> None:
    refused: list[NotEnforceable] = []
    each = Limits(memory=32 * MIB, io=(("1000:3", "rbps", MIB),))
    with Groups(new_name(), Limits(), each, refuse=refused.append) as made:
        for _ in range(2):
            with made.step() as group:
                assert run_in(world, group, HOG.format(100))[0].status == 137
    assert [error.option for error in refused] == ["--device-read-bps"]


def test_a_step_has_an_end_to_its_processes_without_any_cgroup(world: World) -> None:
    """Its pid namespace bounds it (Linux 6.14), and the host keeps its own number."""
    if tuple(int(part) for part in os.uname().release.split(".")[:2]) < (6, 14):
        pytest.skip("this kernel has one pid_max for all")
    with open("/proc/sys/kernel/pid_max") as file:
        before = int(file.read())
    within = int(world.sh("cat /proc/sys/kernel/pid_max"))
    with open("/proc/sys/kernel/pid_max") as file:
        assert int(file.read()) == before
    assert 1024 <= within <= min(32768, before // 2)


def test_a_fork_bomb_ends_at_the_bound_of_its_pid_namespace(world: World) -> None:
    """With a lower one than steps have, which only an insecure step may set: the machine is not only ours."""
    if not int(world.sh("cat /proc/sys/kernel/pid_max")) < 4194304:
        pytest.skip("this kernel has one pid_max for all")
    script = f"echo 340 > /proc/sys/kernel/pid_max && {BOMB}; exit 3"
    exit_, output = world.run("sh", "-c", script, privileged=True)
    assert exit_.status in (2, 3) and "can't fork" in output


def test_time_is_over(world: World) -> None:
    exit_, output = world.run("sh", "-c", "echo begun; sleep 100 & sleep 100", limits=Limits(wall_s=2))
    assert exit_.timed_out and exit_.status == 137 and output == "begun\n"


def test_time_that_is_not_over(world: World) -> None:
    exit_, _ = world.run("sh", "-c", "sleep 0.1; exit 5", limits=Limits(wall_s=60))
    assert not exit_.timed_out and exit_.status == 5


def test_bytes_written_are_told(world: World, tmp_path: Path) -> None:
    if os.stat(tmp_path).st_dev >> 8 == 0:
        pytest.skip("temporary files are on no block device")
    script = "dd if=/dev/zero of=/disk/file bs=64k count=32 conv=fsync"
    exit_, output = world.run("sh", "-c", script, mounts=(Bind(str(tmp_path), "/disk"),))
    assert exit_.status == 0, output
    assert exit_.written >= 2 * MIB and exit_.max_rss > 0


# ---- builds ----


def limiting(build: Limits = NONE, step: Limits = NONE, **more: Any) -> Limiting:
    return Limiting(build, step, PARENT, **more)


def test_a_build_that_runs_out_of_memory(shop: Workshop) -> None:
    limits = limiting(step=Limits(memory=32 * MIB))
    with pytest.raises(ResourceError, match="137, out of memory at the limit of 32 MiB for one") as caught:
        shop.build(f"FROM base\nRUN echo begun; {HOG.format(100)}\n", limits=limits)
    assert caught.value.exit_code == 5 and caught.value.log == ("begun",)
    assert str(caught.value.at) == "Dockerfile:2"
    assert not left()


def test_parallel_steps_share_the_limit_of_the_build(world: World) -> None:
    """Each alone would stay below it."""
    fill = "dd if=/dev/zero of=/dev/shm/file bs=64k count=384 2>/dev/null"
    read, write = os.pipe()
    with groups(Limits(memory=40 * MIB)) as made, made.step() as first, made.step() as second:
        holding = world.sandbox("sh", "-c", f"{fill} && echo held; sleep 100")
        with world.launcher.begin(holding, output_fd=write, cgroup=first):
            os.close(write)
            assert os.read(read, 100) == b"held\n"
            _, _, used = run_in(world, second, f"{fill} && exit 0")
            assert used.oom_kills + first.used().oom_kills > 0
    os.close(read)


def test_a_step_that_goes_on_after_a_limit_is_a_warning(shop: Workshop) -> None:
    shop.build(f"FROM base\nRUN {HOG.format(100)} || true\n", limits=limiting(Limits(memory=32 * MIB)))
    (warning,) = [event for event in shop.events if isinstance(event, Warning_)]
    assert warning.code == "LimitMet" and "out of memory" in warning.message and warning.at == "Dockerfile:2"


def test_a_fork_bomb_ends_the_build(shop: Workshop) -> None:
    with pytest.raises(ResourceError, match=r"refused another process \d+ times at the limit of 24 for all"):
        shop.build(f"FROM base\nRUN {BOMB}; exit 3\n", limits=limiting(Limits(pids=24)))
    assert not left()


def test_a_fork_bomb_that_never_ends_meets_the_time(shop: Workshop) -> None:
    endless = "fill() { fill & sleep 100; }; fill & exec sleep 100"
    with pytest.raises(StepFailed, match=r"longer than 0\.5s \(--step-timeout\)"):
        shop.build(f"FROM base\nRUN {endless}\n", limits=limiting(Limits(pids=24), Limits(wall_s=0.5)))
    assert not left()


def test_a_step_that_takes_too_long(shop: Workshop) -> None:
    """All of its processes end, also those that left its session (SECURITY.md S96)."""
    moment = nap()
    text = f"FROM base\nRUN echo begun; (sleep {moment} &) ; sleep {moment}\n"
    for seconds in (0.4, 4.5, 30.5):  # more where the machine is too busy for the step to begin
        with pytest.raises(StepFailed, match=rf"longer than {seconds}s") as caught:
            shop.build(text, limits=limiting(step=Limits(wall_s=seconds)))
        if caught.value.log:
            break
    assert caught.value.exit_code == 1 and caught.value.log == ("begun",)
    assert "Dockerfile:2" in str(caught.value.at)
    assert not sleeping(moment)


def open_text(path: str) -> str:
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return ""  # another hierarchy has no such file


def test_a_build_that_waits_for_a_server_too_long(shop: Workshop) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/x"
        for seconds in (3.5, 30.5):  # more where the machine is too busy for the step to begin
            with pytest.raises(TimedOut, match=rf"longer than {seconds}s \(--timeout\)") as caught:
                shop.build(f"FROM base\nADD {url} /\n", timeout_s=seconds)
            if url in str(caught.value):
                break
        assert re.search(rf"; .*ADD {url} / had run for \d", str(caught.value))


def test_a_build_that_takes_too_long(shop: Workshop) -> None:
    for seconds in (4.5, 30.5):  # more where the machine is too busy for the step to begin
        with pytest.raises(TimedOut, match=rf"longer than {seconds}s \(--timeout\)") as caught:
            shop.build("FROM base\nRUN true\nRUN sleep 100\n", timeout_s=seconds)
        if "RUN sleep 100" in str(caught.value):
            break
    assert re.search(r"; .*RUN sleep 100 had run for \d", str(caught.value))
    assert caught.value.exit_code == 1
    shop.build("FROM base\nRUN true\nRUN sleep 0\n", timeout_s=60)
    assert shop.ran() == ["RUN sleep 0"]


def test_usage_is_told(shop: Workshop) -> None:
    text = f"FROM base\nRUN {HOG.format(48)}; i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done\n"
    shop.build(text, limits=limiting(Limits(memory=96 * MIB)))
    (done,) = [event for event in shop.events if isinstance(event, StepDone) and event.usage]
    assert done.usage is not None
    assert 48 * MIB <= done.usage.memory < 96 * MIB and 48 * MIB <= done.usage.memory_all < 96 * MIB
    assert done.usage.cpu_user_s + done.usage.cpu_system_s > 0
    shop.build(text, limits=limiting(Limits(memory=64 * MIB)))
    assert not any(event.usage for event in shop.events if isinstance(event, StepDone)), (
        "limits are in no key"
    )


def test_a_failed_step_tells_its_usage_too(shop: Workshop) -> None:
    with pytest.raises(StepFailed):
        shop.build(f"FROM base\nRUN {HOG.format(24)}; exit 1\n")
    (done,) = [event for event in shop.events if isinstance(event, StepDone) and event.usage]
    assert done.usage is not None and done.usage.memory >= 24 * MIB and not done.usage.memory_all


def test_a_limit_that_cannot_be_had_stops_the_build_before_it_begins(shop: Workshop) -> None:
    wanted = Limits(cpus="0-4000", memory=64 * MIB)
    with pytest.raises(UsageError, match="the limit cannot be enforced: --cpuset-cpus"):
        shop.build("FROM base\nRUN true\n", limits=limiting(wanted))
    assert shop.ran() == []
    shop.build("FROM base\nRUN true\nRUN echo again\n", limits=limiting(wanted, best_effort=True))
    (warning,) = [event for event in shop.events if isinstance(event, Warning_)]
    assert warning.code == "LimitNotEnforced" and shop.ran() == ["RUN true", "RUN echo again"]


def test_what_a_killed_build_left_is_removed_by_the_next(shop: Workshop) -> None:
    """Also by one that has no limits itself (SECURITY.md R04)."""
    shop.write("Dockerfile", "FROM base\nRUN echo begun; sleep 100\n")
    options = ["--progress=plain", "--network=none", "-m", "64m", "--cgroup-parent", PARENT]
    command = [PYBUILD, "--root", shop.root, *options, str(shop.context)]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as build:
        assert build.stderr is not None
        for line in build.stderr:
            if b"begun" in line and b"RUN" not in line:
                break
        assert left()
        build.kill()
    assert left()
    shop.build("FROM base\nRUN true\n")
    assert not left() and not os.path.exists(os.path.join(shop.root, "cgroups"))


def test_a_living_build_is_left_alone(shop: Workshop) -> None:
    with limited(limiting(Limits(memory=64 * MIB)), f"{shop.root}/cgroups", discard) as groups:
        assert groups is not None
        shop.build("FROM base\nRUN true\n", limits=limiting(Limits(memory=64 * MIB)))
        assert left(os.path.basename(groups._places[0].directory))
    assert not left()


def test_containers_have_limits_too(shop: Workshop) -> None:
    def run(*args: str) -> subprocess.CompletedProcess[str]:
        command = [PYBUILD, "--root", shop.root, "run", "--network=none", "--cgroup-parent", PARENT, *args]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    hog = run("-m", "32m", "base", "sh", "-c", HOG.format(100))
    assert hog.returncode == 137
    assert "out of memory at the limit of 32 MiB for the container" in hog.stderr
    shown = run(
        "--cpuset-cpus", "0", "--pids-limit", "20", "base", "grep", "Cpus_allowed_list", "/proc/self/status"
    )
    assert shown.returncode == 0 and shown.stdout.split() == ["Cpus_allowed_list:", "0"]
    assert not left()
