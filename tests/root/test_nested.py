"""pybuild inside a RUN of its own: the filter of system calls forbids namespaces, and that is said."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from builder.sandbox.spec import Bind, Tmpfs

pytestmark = pytest.mark.root

CHECKOUT = str(Path(__file__).parents[2])
SCRIPT = """
set -e
mkdir -p /tmp/context; cd /tmp; echo hello > context/file
printf 'FROM scratch\\nCOPY file /\\nENV A=b\\n' > copy
printf 'FROM scratch\\nCOPY file /\\nRUN true\\n' > run
P="$PYTHON -m builder.cli.main --root /tmp/store"
$P doctor --format json || true
echo ====
$P build -q -f copy context
$P build -q -f run context 2>&1 || echo failed with $?
"""


def test_a_build_in_a_run(world: Any) -> None:
    python = os.path.realpath(sys.executable)
    packages = next(path for path in sys.path if path.endswith("site-packages"))
    shown = {CHECKOUT, packages, "/usr", *([] if python.startswith("/usr/") else [sys.base_prefix])}
    # The image has a /bin and no more: the libraries come by the names that programs know them by.
    libraries = [name for name in ("/lib", "/lib64") if os.path.isdir(name)]
    mounts = [Tmpfs("/tmp"), *(Bind(path, path, read_only=True) for path in sorted(shown))]
    mounts += [Bind(os.path.realpath(name), name, read_only=True) for name in libraries]
    env = {
        "PATH": "/bin:/usr/bin",
        "HOME": "/tmp",
        "PYTHON": python,
        "PYTHONPATH": f"{CHECKOUT}:{packages}",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    output = world.sh(SCRIPT, mounts=tuple(mounts), env=tuple(env.items()))
    told, _, built = output.partition("====\n")
    found = json.loads(told)
    assert (found["rung"], found["run"]) == (5, False)
    first, rest = built.split("\n", 1)
    assert first.startswith("sha256:"), output
    assert "no user namespace can be had" in rest and "failed with" in rest
