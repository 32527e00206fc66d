"""The choice of a rung, made by an ordinary user's process on this machine."""

from __future__ import annotations

from typing import Any

import pytest
from rootless.conftest import FILTER

pytestmark = pytest.mark.root

ENTER = """
import os
from builder import isolation
before = os.getpid(), os.stat("/proc/self/ns/mnt").st_ino
found = isolation.enter({mode!r}, {root!r})
assert before[0] == os.getpid() and before[1] != os.stat("/proc/self/ns/mnt").st_ino
print(found.rung.number, found.storage, os.getuid(), os.getgid(), found.maps.uids[0][1] == {uid})
"""

EXAMINE = """
import os
from builder import isolation
mounts, namespace = open("/proc/self/mountinfo").read(), os.stat("/proc/self/ns/user").st_ino
found = isolation.examine(root={root!r})
assert (mounts, namespace) == (open("/proc/self/mountinfo").read(), os.stat("/proc/self/ns/user").st_ino)
assert os.listdir({root!r}) == [], os.listdir({root!r})
print(found.rung.number, found.storage, sorted(each.name for each in found.blocking()))
"""


@pytest.mark.parametrize(("who", "rung"), [("lent", 2), ("bare", 4)])
def test_entering(request: pytest.FixtureRequest, who: str, rung: int) -> None:
    user: Any = request.getfixturevalue(who)
    code = ENTER.format(mode="auto", root=str(user.home), uid=user.entry.pw_uid)
    assert user.python(code) == f"{rung} overlay 0 0 True\n"


@pytest.mark.parametrize(
    ("who", "answer"), [("lent", "2 overlay []"), ("bare", "4 overlay ['subgid', 'subuid']")]
)
def test_looking_changes_nothing(request: pytest.FixtureRequest, who: str, answer: str) -> None:
    """SECURITY.md S105."""
    user: Any = request.getfixturevalue(who)
    folder = user.home / "empty"
    user.run("mkdir", "-p", str(folder))
    assert user.python(EXAMINE.format(root=str(folder))) == answer + "\n"


def test_a_filter_of_system_calls_is_named(lent: Any) -> None:
    """SECURITY.md S105."""
    said = lent.python(
        FILTER + "from builder import isolation\nfound = isolation.enter()\n"
        "print(found.rung.number, *isolation.explain(found), sep='|')\n"
    )
    assert said.startswith("5|no user namespace can be had: unshare(2)")
    assert "seccomp=unconfined" in said


def test_what_was_asked_for_and_cannot_be_had(lent: Any) -> None:
    said = lent.python(
        FILTER + "from builder import isolation\nfrom builder.errors import SandboxError\n"
        "for mode in ('rootless', 'chroot'):\n"
        "    try:\n        isolation.enter(mode)\n"
        "    except SandboxError as error:\n        print(error)\n"
    )
    assert said.startswith("--isolation=rootless: no user namespace can be had: ")
    assert "--isolation=chroot needs root" in said


def test_a_refused_map_leaves_one_id(lent: Any) -> None:
    """Lines that newuidmap does not honour (another service's, say) end on rung 4, not in an error."""
    said = lent.python(
        "from builder import facts, isolation\n"
        "facts.Facts.lent = lambda self, file: [(5, 65536)]\n"
        "found = isolation.enter()\n"
        "print(found.rung.number, [each.found for each in found.blocking()])\n"
    )
    assert said.startswith("4 ['the id maps were refused: new") and "not allowed" in said


def test_the_helper_is_gone(lent: Any) -> None:
    code = "from builder import isolation\nimport os\nisolation.enter()\n"
    code += "try:\n    os.waitpid(-1, 0)\nexcept ChildProcessError:\n    print('alone')\n"
    assert lent.python(code).endswith("alone\n")
