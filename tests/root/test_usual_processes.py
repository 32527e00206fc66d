"""How many processes a step may have where nobody says a number and the kernel cannot bound a pid namespace:
a cgroup does (SECURITY.md S95). Kernels before Linux 6.14 are told by their name; `uname` is made to lie.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from builder import doctor
from builder.errors import ResourceError
from builder.events import Warning_
from builder.isolation import Isolation, examine
from builder.limiting import Limiting
from builder.sandbox import bounds, cgroup
from builder.sandbox.cgroup import Groups
from builder.sandbox.cgroup_tree import hierarchies
from builder.sandbox.spec import Limits
from tests.root.conftest import Workshop

pytestmark = pytest.mark.root

HERE = Path(__file__).parent
PYBUILD = os.path.join(sysconfig.get_path("scripts"), "pybuild")
MANY = "i=0; while [ $i -lt 60 ]; do sleep 1 & i=$((i+1)); done; wait"
"""More than a test's bound, and no harm to the machine where there is none."""
UNAME26 = 0x0020000
"""personality(2): uname(2) tells a release 2.6, to this thread and to all that comes from it."""


@contextmanager
def older() -> Iterator[None]:
    libc = ctypes.CDLL(None)
    before = libc.personality(UNAME26)
    try:
        yield
    finally:
        libc.personality(before)


@pytest.fixture
def old() -> Iterator[None]:
    with older():
        yield


@pytest.fixture
def entered(monkeypatch: pytest.MonkeyPatch) -> list[Groups]:
    """The cgroups of the builds of a test."""
    seen: list[Groups] = []
    enter = Groups.__enter__

    def noting(groups: Groups) -> Groups:
        seen.append(enter(groups))
        return groups

    monkeypatch.setattr(Groups, "__enter__", noting)
    return seen


def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "_MOST", 24)
    monkeypatch.setattr(bounds, "_LEAST", 24)


def has_pids() -> bool:
    return not cgroup.unavailable("pids")[0]


def test_s95_before_linux_6_14_a_fork_bomb_ends_at_its_cgroup(
    shop: Workshop, old: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not has_pids():
        pytest.skip("no cgroup can be made with the pids controller")
    few(monkeypatch)
    text = r"refused another process (once|\d+ times) at the limit of 24 for one step \(--pids-limit\)"
    with pytest.raises(ResourceError, match=text):
        shop.build(f"FROM base\nRUN {MANY}; exit 3\n")
    assert not os.path.exists(os.path.join(shop.root, "cgroups"))


def test_s95_steps_and_containers_have_the_number_by_default(shop: Workshop) -> None:
    """Read outside while they run, of the command as people call it."""
    if not has_pids():
        pytest.skip("no cgroup can be made with the pids controller")
    begin = (
        "import ctypes, os, sys; ctypes.CDLL(None).personality(0x20000); os.execv(sys.argv[1], sys.argv[1:])"
    )
    shop.write("Dockerfile", "FROM base\nRUN echo begun; sleep 100\n")
    build = ["--progress=plain", "--network=none", str(shop.context)]
    run = ["run", "--network=none", "--rm", "base", "sh", "-c", "echo begun; sleep 100"]
    for words in (build, run):
        command = [sys.executable, "-c", begin, PYBUILD, "--root", shop.root, *words]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as running:
            assert running.stdout is not None
            for line in running.stdout:
                if b"begun" in line and b"RUN" not in line:
                    break
            (record,) = Path(shop.root, "cgroups").iterdir()
            found = [
                Path(each, "1", "pids.max") for each in record.read_text().split("\n") if record.name in each
            ]
            told = [each.read_text().strip() for each in found if each.exists()]
            running.terminate()
            running.stdout.read()
        assert told == [str(bounds.most())], (words, found)


def test_s95_what_was_asked_for_is_kept(shop: Workshop, old: None, entered: list[Groups]) -> None:
    """Other limits come beside it; a number for the build or for each step takes its place."""
    if not has_pids():
        pytest.skip("no cgroup can be made with the pids controller")
    none, usual = Limits(), bounds.most()
    for build, step, wanted in (
        (Limits(memory=64 << 20), none, usual),
        (Limits(pids=50), none, 0),
        (none, Limits(pids=50), 50),
    ):
        shop.build("FROM base\nRUN true\n", limits=Limiting(build, step), no_cache=True)
        assert entered.pop().each.pids == wanted


def test_s95_where_it_cannot_be_had_the_build_goes_on(
    shop: Workshop, old: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody asked for it. What can be done is said by `doctor --security`."""
    monkeypatch.setattr(cgroup, "hierarchies", list)
    shop.build("FROM base\nRUN true\n", limits=Limiting(Limits(), Limits(wall_s=60)))
    shop.build("FROM base\nRUN true\n", no_cache=True)
    assert not [event for event in shop.events if isinstance(event, Warning_)]
    found = examine("auto", shop.root)
    assert dict(doctor.security(found))["process limit"].startswith("as many as pybuild itself: no cgroups")
    (line,) = (line for line in doctor.downgrades(found) if "number of a step's processes" in line)
    assert "Linux 6.14" in line and "pids controller" in line


def test_s95_a_cgroup_that_cannot_be_made_stops_nothing(
    shop: Workshop, old: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(groups: Groups) -> Groups:
        raise OSError(28, "no more cgroups")

    monkeypatch.setattr(Groups, "__enter__", refused)
    shop.build("FROM base\nRUN true\n")
    assert shop.ran() == ["RUN true"]


def test_s95_a_newer_kernel_needs_no_cgroup(shop: Workshop, entered: list[Groups]) -> None:
    if bounds.means(own_pids=True) != "namespace":
        pytest.skip("this kernel has one pid_max for all")
    shop.build("FROM base\nRUN true\n")
    assert not entered
    assert (
        "pid namespace" in dict(doctor.security(Isolation(examine("auto", shop.root).rung)))["process limit"]
    )


def test_s95_without_a_pid_namespace_it_is_a_cgroup_on_any_kernel(shop: Workshop) -> None:
    """A step of `--isolation=chroot`, whatever the kernel, also where no namespace can be made."""
    if not has_pids():
        pytest.skip("no cgroup can be made with the pids controller")
    shop.write("Dockerfile", f"FROM base\nRUN {MANY}; exit 3\n")
    code = (
        "import sys\nfrom builder.sandbox import bounds\nbounds._MOST = bounds._LEAST = 24\n"
        "from builder.cli import main\nsys.exit(main.run(sys.argv[1:]))"
    )
    words = ["--root", shop.root, "build", "--isolation=chroot", "--network=host", str(shop.context)]
    lesser = ["setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin"]
    done = subprocess.run(
        [*lesser, sys.executable, "-c", code, *words], cwd=HERE.parents[1], capture_output=True, text=True
    )
    assert done.returncode == 5, done.stderr
    assert "at the limit of 24 for one step (--pids-limit)" in done.stderr


BORN = """
import os, sys
from builder.sandbox import syscalls
cgroup = os.open(sys.argv[1], os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
for flags in (syscalls.CLONE_NEWPID, 0):
    pid, pidfd = syscalls.clone(flags, cgroup)
    if pid == 0:
        with open("/proc/self/cgroup") as file:
            os._exit(0 if sys.argv[2] in file.read() else 1)
    print(os.waitpid(pid, 0)[1], pidfd > 2)
"""


@pytest.mark.parametrize("version", ["5.1", ""])
def test_a_process_is_born_in_its_cgroup_with_and_without_clone3(version: str) -> None:
    unified = [each for each in hierarchies() if each.version == 2]
    if not unified:
        pytest.skip("no cgroups of version 2 are mounted")
    name = f"pybuild-test-{os.getpid()}-born"
    path = os.path.join(unified[0].mount, name)
    os.mkdir(path)
    try:
        before = [sys.executable, str(HERE / "old_kernel.py"), version] if version else []
        command = [*before, sys.executable, "-c", BORN, path, name]
        done = subprocess.run(command, cwd=HERE.parents[1], capture_output=True, text=True)
    finally:
        os.rmdir(path)
    assert done.stdout.split() == ["0", "True"] * 2, done.stderr
