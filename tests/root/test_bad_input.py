"""Bad input ends with a clear error and leaves the store as it was; and every check is needed for that.

Each case runs twice: as it is, and with the one `raise` taken out that finds the mistake. Without it the same
judge must be dissatisfied: a case that cannot fail shows nothing.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from bad_input import archives, contexts, dockerfiles, layers, manifests
from bad_input.case import CHECK_MOVED, Case, contents, run, shortfalls
from bad_input.laying import tar

pytestmark = pytest.mark.root

KINDS = {
    "dockerfile": dockerfiles.CASES,
    "context": contexts.CASES,
    "archive": archives.CASES,
    "manifest": manifests.CASES,
    "layer": layers.CASES,
}


ALL = [pytest.param(case, id=f"{kind}-{case}") for kind, cases in KINDS.items() for case in cases]


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store that holds one image, named busybox."""
    base = tmp_path_factory.mktemp("pristine")
    rootfs, root = base / "rootfs.tar", str(base / "store")
    with open("/bin/busybox", "rb") as program:
        rootfs.write_bytes(tar(("bin/busybox", program.read()), ("etc/passwd", b"root:x:0:0::/:/bin/sh\n")))
    pybuild = os.path.join(sysconfig.get_path("scripts"), "pybuild")
    command = [pybuild, "--root", root]
    subprocess.run([*command, "import", str(rootfs), "busybox"], check=True, capture_output=True)
    # A first step unpacks the base, which is the store's to keep: no case below shall be the first.
    first = b'FROM busybox\nRUN ["/bin/busybox", "true"]\n'
    subprocess.run([*command, "build", "-"], input=first, check=True, capture_output=True)
    return root


@pytest.fixture
def root(pristine: str, tmp_path: object) -> str:
    """A copy of it."""
    return shutil.copytree(pristine, f"{tmp_path}/store", symlinks=True)


@pytest.mark.parametrize("case", ALL)
def test_is_refused(case: Case, root: str, tmp_path: object) -> None:
    """Where, what, what to do; the right exit code; no traceback; the store as before."""
    before = contents(root)
    outcome = run(case, f"{tmp_path}/here", root)
    assert shortfalls(case, outcome, before, contents(root)) == [], outcome.stderr


@pytest.mark.parametrize("case", ALL)
def test_check_is_needed(case: Case, root: str, tmp_path: object) -> None:
    """With its check taken out, the case above would fail."""
    before = contents(root)
    outcome = run(case, f"{tmp_path}/here", root, without_check=True)
    assert outcome.code != CHECK_MOVED, outcome.stderr
    assert shortfalls(case, outcome, before, contents(root)) != []


def test_eight_of_each() -> None:
    """What was promised."""
    assert min(len(cases) for cases in KINDS.values()) >= 8


@pytest.mark.parametrize("case", [*archives.CASES[:1], *layers.CASES[2:3]], ids=str)
def test_names_the_file(case: Case, root: str, tmp_path: object) -> None:
    """Of several files on a command line, the reader must know which one is bad."""
    assert "bad.tar" in run(case, f"{tmp_path}/here", root).stderr
