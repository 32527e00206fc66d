"""The recipe of docs/rootless.md for a hosted runner, as far as it goes on any machine: an ordinary user with
lent ids runs its commands, root what stands behind sudo.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from rootless.conftest import ROOT, Ordinary, device_for_all

pytestmark = pytest.mark.root

_SWITCH = "/proc/sys/kernel/apparmor_restrict_unprivileged_userns"
DOCKERFILE = """\
FROM scratch
COPY busybox /bin/busybox
SHELL ["/bin/busybox", "sh", "-c"]
RUN /bin/busybox touch /given && /bin/busybox chown 1234:1234 /given && echo the step ran
"""


def commands() -> list[str]:
    text = (ROOT / "docs" / "rootless.md").read_text()
    block = next(each for each in re.findall(r"```yaml\n(.*?)```", text, re.S) if "sysctl" in each)
    return re.findall(r"^- run: (.*)$", block, re.M)


def test_its_commands(lent: Ordinary, _place: Path) -> None:
    if shutil.which("slirp4netns") is None and shutil.which("pasta") is None:
        pytest.skip("neither slirp4netns nor pasta is installed")
    switch, build = commands()
    assert switch.startswith("sudo ") and build.startswith("pybuild ")
    if os.path.exists(_SWITCH):
        pytest.skip(f"{_SWITCH} is the machine's, and would be changed for all")
    subprocess.run(switch.removeprefix("sudo ").split(), check=True, capture_output=True)
    work = lent.home / "checkout"
    work.mkdir(mode=0o755)
    shutil.copy("/bin/busybox", work / "busybox")
    (work / "Dockerfile").write_text(DOCKERFILE)
    words = build.removeprefix("pybuild ").split()
    assert words[-1] == "."
    ran = lent.behind(device_for_all("/dev/net/tun", _place), *words[:-1], str(work))
    assert ran.returncode == 0 and "the step ran" in ran.stderr, ran.stderr
    said = lent.pybuild("doctor").stdout
    assert said.startswith("isolation: user namespace with lent ids (rung 2 of 5)"), said
