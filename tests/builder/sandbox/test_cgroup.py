"""Cgroups of version 2 and mixed ones, on a directory that behaves like them: this machine need not have any.

Version 1 and being born in a cgroup are tried for real in tests/root/test_limits.py.
"""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from builder.sandbox import cgroup, cgroup_files, cgroup_tree
from builder.sandbox.cgroup import Groups, NotEnforceable
from builder.sandbox.cgroup_files import weight_of_shares
from builder.sandbox.cgroup_tree import Hierarchy, hierarchies
from builder.sandbox.spec import Limits

NONE = Limits()
ALL = Limits(
    memory=1 << 30,
    swap=3 << 29,
    cpu_shares=1024,
    cpu_quota=150_000,
    cpus="0-1",
    mems="0",
    pids=100,
    io_weight=1000,
    io=(("8:0", "rbps", 1000), ("8:0", "wiops", 9)),
)
NAME = "pybuild-0123456789abcdef"
FILES = {
    "memory": ("memory.max", "memory.swap.max", "memory.peak", "memory.events"),
    "cpu": ("cpu.weight", "cpu.max"),
    "cpuset": ("cpuset.cpus", "cpuset.mems"),
    "pids": ("pids.max", "pids.events"),
    "io": ("io.weight", "io.max"),
}


class Unified:
    """The rules of cgroups(7) for version 2, as far as a builder meets them."""

    def __init__(self, top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.top = str(top)
        self.written: list[tuple[str, str, str]] = []
        self._mkdir = os.mkdir
        self.fill(self.top, set(FILES))
        monkeypatch.setattr(cgroup_tree, "_rmdir", self.rmdir)
        monkeypatch.setattr(cgroup_tree, "write", self.write)
        monkeypatch.setattr(cgroup, "write", self.write)
        monkeypatch.setattr(os, "mkdir", self.mkdir)
        monkeypatch.setattr(cgroup, "system_root", lambda: True)

    def fill(self, path: str, controllers: set[str]) -> None:
        names = [name for each in controllers for name in FILES[each]]
        for name in (*names, "cgroup.procs", "cgroup.subtree_control"):
            Path(path, name).write_text("")
        Path(path, "cgroup.controllers").write_text(" ".join(sorted(controllers)))

    def mkdir(self, path: str, mode: int = 0o777) -> None:
        self._mkdir(path, mode)
        self.fill(path, set(Path(path).parent.joinpath("cgroup.subtree_control").read_text().split()))
        Path(path, "cgroup.type").write_text("domain\n")

    def rmdir(self, path: str) -> None:
        if any(each.is_dir() for each in Path(path).iterdir()):
            raise OSError(errno.EBUSY, "busy")
        shutil.rmtree(path)

    def write(self, path: str, name: str, value: str) -> None:
        file = Path(path, name)
        if not file.exists():
            raise FileNotFoundError(errno.ENOENT, "none", str(file))
        if name == "cgroup.subtree_control":
            if path != self.top and Path(path, "cgroup.procs").read_text():
                if "+memory" in value or "+io" in value:
                    raise OSError(errno.EBUSY, "a cgroup with processes has no children with controllers")
                Path(path, "cgroup.type").write_text("domain threaded\n")
            here = Path(path, "cgroup.controllers").read_text().split()
            if not {word[1:] for word in value.split()} <= set(here):
                raise OSError(errno.ENOENT, "a controller that is not there")
            value = " ".join([*file.read_text().split(), *(word[1:] for word in value.split())])
        if name == "cgroup.procs":
            above = Path(path).parent / name
            above.write_text(" ".join(pid for pid in above.read_text().split() if pid != value))
            value = f"{file.read_text()}{value}\n"
        file.write_text(value)
        self.written.append((os.path.relpath(path, self.top), name, value))

    def groups(self, build: Limits, step: Limits = NONE, own: str = "", **more: object) -> Groups:
        here = Hierarchy(2, self.top, os.path.join(self.top, own) if own else self.top)
        return Groups(NAME, build, step, mounted=[here], refuse=_raise, **more)  # type: ignore[arg-type]


def _raise(error: NotEnforceable) -> None:
    raise error


@pytest.fixture
def unified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Unified:
    return Unified(tmp_path, monkeypatch)


def test_every_limit_is_written(unified: Unified) -> None:
    with unified.groups(ALL):
        found = {name: value for path, name, value in unified.written if path == NAME}
    assert {key: found[key] for key in sorted(found) if key != "cgroup.subtree_control"} == {
        "cpu.max": "150000 100000",
        "cpu.weight": "100",
        "cpuset.cpus": "0-1",
        "cpuset.mems": "0",
        "io.max": "8:0 wiops=9",
        "io.weight": "default 10000",
        "memory.max": "1073741824",
        "memory.swap.max": "536870912",
        "pids.max": "100",
    }
    assert (NAME, "io.max", "8:0 rbps=1000") in unified.written
    assert not os.path.exists(os.path.join(unified.top, NAME))


def test_each_step_has_a_cgroup_with_its_own_limits(unified: Unified) -> None:
    with unified.groups(NONE, Limits(memory=1 << 20, pids=7)) as groups:
        with groups.step() as first, groups.step() as second:
            assert (f"{NAME}/1", "memory.max", "1048576") in unified.written
            assert (f"{NAME}/2", "pids.max", "7") in unified.written
            assert first.membership.unified >= 0 and not first.membership.tasks
            assert os.path.samestat(os.fstat(second.membership.unified), os.stat(f"{unified.top}/{NAME}/2"))
            Path(unified.top, NAME, "2", "memory.peak").write_text("4096\n")
            Path(unified.top, NAME, "2", "memory.events").write_text("low 0\nmax 3\noom 1\noom_kill 2\n")
            Path(unified.top, NAME, "pids.events").write_text("max 5\n")
            used = second.used()
            assert (used.memory, used.oom_kills, used.refused) == (4096, 2, 5)
        assert not os.path.exists(f"{unified.top}/{NAME}/1")


@pytest.mark.parametrize(
    ("memory", "swap", "value"), [(10, 0, "10"), (10, 10, "0"), (10, 25, "15"), (10, -1, "max")]
)
def test_swap_is_counted_apart(unified: Unified, memory: int, swap: int, value: str) -> None:
    with unified.groups(Limits(memory=memory, swap=swap)):
        assert (NAME, "memory.swap.max", value) in unified.written


def test_swap_that_nobody_asked_for_may_be_missing(unified: Unified, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FILES, "memory", ("memory.max",))
    with unified.groups(Limits(memory=10)):
        pass
    with pytest.raises(NotEnforceable, match=r"--memory-swap: this kernel has no memory\.swap\.max"):
        unified.groups(Limits(memory=10, swap=20)).__enter__()


def test_controllers_are_passed_down_to_a_parent(unified: Unified) -> None:
    with unified.groups(Limits(pids=9), parent="ci/builds"):
        enabled = [path for path, name, _ in unified.written if name == "cgroup.subtree_control"]
        assert enabled == [".", "ci", "ci/builds", f"ci/builds/{NAME}"]
        assert (f"ci/builds/{NAME}", "pids.max", "9") in unified.written
    assert not os.path.exists(f"{unified.top}/ci")


@pytest.mark.parametrize("limits", [Limits(memory=9), Limits(pids=9)])
def test_alone_in_a_delegated_cgroup_the_builder_and_its_children_move_to_a_leaf(
    unified: Unified, monkeypatch: pytest.MonkeyPatch, limits: Limits
) -> None:
    unified.write(unified.top, "cgroup.subtree_control", "+memory +pids")
    os.mkdir(f"{unified.top}/scope")
    monkeypatch.setattr(cgroup, "delegated", lambda path: True)
    with subprocess.Popen(["sleep", "60"]) as child:
        all_of_us = f"{os.getpid()}\n{child.pid}\n"
        Path(unified.top, "scope", "cgroup.procs").write_text(all_of_us)
        with unified.groups(limits, own="scope"):
            assert Path(unified.top, "scope", cgroup.LEAF, "cgroup.procs").read_text() == all_of_us
            name = "memory.max" if limits.memory else "pids.max"
            assert (f"scope/{NAME}", name, "9") in unified.written
            assert Path(unified.top, "scope", "cgroup.type").read_text() == "domain\n"
        child.kill()


def test_others_in_a_delegated_cgroup_are_not_moved(
    unified: Unified, monkeypatch: pytest.MonkeyPatch
) -> None:
    unified.write(unified.top, "cgroup.subtree_control", "+memory")
    os.mkdir(f"{unified.top}/scope")
    Path(unified.top, "scope", "cgroup.procs").write_text(f"{os.getpid()}\n1\n")
    monkeypatch.setattr(cgroup, "delegated", lambda path: True)
    with pytest.raises(NotEnforceable, match="holds other processes too") as caught:
        unified.groups(Limits(memory=9), own="scope").__enter__()
    assert "--cgroup-parent" in caught.value.hint
    assert not os.path.exists(f"{unified.top}/scope/{NAME}")


def test_roots_builds_leave_cgroups_of_others_alone(unified: Unified) -> None:
    os.mkdir(f"{unified.top}/service")
    with unified.groups(Limits(memory=9), own="service") as groups:
        assert [place.directory for place in groups._places] == [f"{unified.top}/{NAME}"]


def test_a_user_without_delegation_is_told_how_to_get_it(
    unified: Unified, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkdir(f"{unified.top}/session")
    monkeypatch.setattr(cgroup, "system_root", lambda: False)
    with pytest.raises(NotEnforceable, match="not delegated to this user") as caught:
        unified.groups(Limits(memory=9), own="session").__enter__()
    assert "systemd-run --user --scope -p Delegate=yes" in caught.value.hint


def test_hierarchies_as_the_kernel_tells_them() -> None:
    found = hierarchies(
        "30 1 0:26 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n"
        "31 1 0:27 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n"
        "32 1 0:28 / /sys/fs/cgroup/unified rw shared:4 - cgroup2 cgroup2 rw\n"
        "33 1 8:1 / / rw - ext4 /dev/root rw\n",
        "2:pids:/nonexistent/group\n1:name=systemd:/\n0::/\n",
    )
    assert [(each.version, each.mount, sorted(each.controllers)) for each in found] == [
        (1, "/sys/fs/cgroup/pids", ["pids"]),
        (1, "/sys/fs/cgroup/systemd", ["name=systemd"]),
        (2, "/sys/fs/cgroup/unified", []),
    ]
    assert found[0].own == "/sys/fs/cgroup/pids", "what cannot be seen from here is not used"


def test_the_own_cgroup_in_a_container(tmp_path: Path) -> None:
    """A mount that shows a part of the hierarchy, with a blank in its name."""
    mount = tmp_path / "a b"
    (mount / "inner").mkdir(parents=True)
    escaped = str(mount).replace(" ", r"\040")
    line = f"30 1 0:26 /docker/abc {escaped} rw - cgroup cgroup rw,cpu,cpuacct\n"
    (found,) = hierarchies(line, "2:cpu,cpuacct:/docker/abc/inner\n")
    assert found.own == f"{mount}/inner" and found.controllers == {"cpu", "cpuacct"}
    (found,) = hierarchies(line, "2:cpu,cpuacct:/../other\n")
    assert found.own == str(mount)


def test_shares_as_weights() -> None:
    assert [weight_of_shares(each) for each in (2, 1024, 262144)] == [1, 100, 10000]
    assert all(weight_of_shares(each) <= weight_of_shares(each + 1) for each in range(2, 5000))


def test_version_1_has_its_own_files() -> None:
    found = [(each.files[0], each.value) for each in cgroup_files.writes(ALL, 1)]
    assert found == [
        ("memory.limit_in_bytes", "1073741824"),
        ("memory.memsw.limit_in_bytes", "1610612736"),
        ("cpu.shares", "1024"),
        ("cpu.cfs_quota_us", "150000"),
        ("cpuset.cpus", "0-1"),
        ("cpuset.mems", "0"),
        ("pids.max", "100"),
        ("blkio.weight", "1000"),
        ("blkio.throttle.read_bps_device", "8:0 1000"),
        ("blkio.throttle.write_iops_device", "8:0 9"),
    ]


def test_each_limit_where_its_controller_is(unified: Unified, tmp_path: Path) -> None:
    """Both versions at once: memory in the unified hierarchy, processes in one of their own."""
    Path(unified.top, "cgroup.controllers").write_text("memory")
    pids = tmp_path / "pids"
    pids.mkdir()
    mkdir = unified.mkdir

    def made(path: str, mode: int = 0o777) -> None:
        mkdir(path, mode)
        if path.startswith(str(pids)):
            for name in ("pids.max", "tasks"):
                Path(path, name).write_text("")

    (pids / "cgroup.subtree_control").write_text("")
    mounted = [
        Hierarchy(1, str(pids), str(pids), frozenset({"pids"})),
        Hierarchy(2, unified.top, unified.top),
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "mkdir", made)
        with Groups(NAME, Limits(memory=9, pids=5), NONE, mounted=mounted, refuse=_raise) as groups:
            assert (pids / NAME / "pids.max").read_text() == "5"
            assert (NAME, "memory.max", "9") in unified.written
            with groups.step() as step:
                assert step.membership.unified >= 0 and len(step.membership.tasks) == 1
