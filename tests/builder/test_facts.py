"""Machines of all kinds, told by their files: what is in the way, and the command that mends it."""

from __future__ import annotations

from pathlib import Path

import pytest

from builder.facts import Check, Facts, nearest
from builder.sandbox.userns import Maps, rows, single, subordinate, trusted


class Machine:
    """A fake /proc and /etc that grant everything."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self.put("proc/sys/user/max_user_namespaces", "1000\n")
        self.put("proc/self/status", "Name:\tpybuild\nNoNewPrivs:\t0\nSeccomp:\t0\n")
        self.put("etc/subuid", "4242:100000:65536\n")
        self.put("etc/subgid", "4242:100000:65536\n")

    def put(self, name: str, text: str) -> None:
        path = self.top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    @property
    def facts(self) -> Facts:
        return Facts(str(self.top / "proc"), str(self.top / "etc"), 4242)

    def check(self, name: str) -> Check:
        return next(each for each in self.facts.checks() if each.name == name)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_a_machine_that_grants_everything(machine: Machine) -> None:
    failed = [each for each in machine.facts.checks() if not each.ok]
    assert [each.name for each in failed] in ([], ["newuidmap"])  # where shadow is not installed


@pytest.mark.parametrize(
    ("file", "text", "name", "mend"),
    [
        ("proc/sys/user/max_user_namespaces", "0", "user.max_user_namespaces", "sysctl -w"),
        (
            "proc/sys/kernel/unprivileged_userns_clone",
            "0",
            "kernel.unprivileged_userns_clone",
            "sudo sysctl -w kernel.unprivileged_userns_clone=1",
        ),
        (
            "proc/sys/kernel/apparmor_restrict_unprivileged_userns",
            "1",
            "kernel.apparmor_restrict_unprivileged_userns",
            "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
        ),
        ("proc/self/status", "NoNewPrivs:\t1\n", "no_new_privs", "allowPrivilegeEscalation: true"),
        ("etc/subuid", "", "subuid", "sudo usermod --add-subuids 100000-165535 4242"),
        ("etc/subgid", "x:200000:9\n", "subgid", "sudo usermod --add-subgids 200009-265544 4242"),
        ("etc/subuid", "4242:300000:10\n", "subuid", "sudo usermod --add-subuids 300010-365545 4242"),
    ],
)
def test_what_blocks_and_what_mends_it(machine: Machine, file: str, text: str, name: str, mend: str) -> None:
    """SECURITY.md S105."""
    assert machine.check(name).ok
    machine.put(file, text)
    found = machine.check(name)
    assert not found.ok
    assert mend in found.mend


def test_a_profile_of_apparmor_is_a_way_out(machine: Machine) -> None:
    machine.put("proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1")
    machine.put("proc/self/attr/current", "pybuild (enforce)\n")
    assert machine.check("kernel.apparmor_restrict_unprivileged_userns").ok


def test_a_kernel_without_user_namespaces(machine: Machine) -> None:
    (machine.top / "proc/sys/user/max_user_namespaces").unlink()
    assert "CONFIG_USER_NS" in machine.check("user.max_user_namespaces").found


def test_lines_of_subuid() -> None:
    text = b"# x\nann:100000:65536\n7:1:2\nann:300000:5\nann:x:1\nann:1:0\nbob:400000:65536\n\xff:1:1\n"
    assert subordinate(text, "ann", 1000) == [(100000, 65536), (300000, 5)]
    assert subordinate(text, "", 7) == [(1, 2)]
    assert subordinate(text, "cid", 9) == []


def test_maps() -> None:
    maps = Maps(rows(1000, [(100000, 10), (300000, 5)]), rows(50, [(100000, 10)]), "helpers")
    assert maps.uids == ((0, 1000, 1), (1, 100000, 10), (11, 300000, 5))
    assert [maps.has_uid(each) for each in (0, 1, 15, 16)] == [True, True, True, False]
    assert [maps.has_gid(each) for each in (0, 10, 11)] == [True, True, False]
    assert not maps.single
    assert single(1000, 50).single
    assert str(single(1000, 50)) == "uid 0:1000:1 gid 0:50:1"


def test_programs_only_from_where_root_alone_writes(tmp_path: Path) -> None:
    """SECURITY.md S101."""
    program = tmp_path / "tool"
    program.write_text("")
    program.chmod(0o755)
    assert trusted("sh")
    tmp_path.chmod(0o777)
    assert trusted("tool", folders=(str(tmp_path),)) == ""
    assert trusted("no-such-program") == ""


def test_the_nearest_directory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert nearest(str(tmp_path / "file" / "x")) == str(tmp_path)
    assert nearest(str(tmp_path / "a" / "b")) == str(tmp_path)
