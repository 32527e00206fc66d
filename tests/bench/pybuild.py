"""Our side: the wheel, installed as a user has it, with stores in the work area."""

from __future__ import annotations

import glob
import itertools
import os
import subprocess
import sys
from collections.abc import Sequence

from measure import peak_memory, timed
from workarea import WorkArea

CHECKOUT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
# A benchmark is of what users run: bytecode is written and used, and no variable of ours reaches the program.
ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}


class Pybuild:
    """The installed command, and one store to call it with."""

    def __init__(self, venv: str, root: str) -> None:
        self.venv = venv
        self.root = root

    def argv(self, *words: str) -> list[str]:
        """The command line for `pybuild WORDS`."""
        return [f"{self.venv}/bin/pybuild", "--root", self.root, *words]

    def run(self, *words: str) -> None:
        """`pybuild WORDS`; a failure shows what it printed."""
        done = subprocess.run(
            self.argv(*words),
            env=ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        if done.returncode:
            said = done.stderr.decode(errors="replace")[-2000:]
            raise RuntimeError(f"pybuild {' '.join(words)}: exit code {done.returncode}: {said}")

    def time(self, *words: str) -> float:
        """Seconds `pybuild WORDS` takes."""
        return timed(lambda: self.run(*words))

    def memory(self, *words: str) -> int:
        """Peak memory of `pybuild WORDS`, bytes."""
        return peak_memory(self.argv(*words), ENVIRONMENT)


class Stores:
    """Makes stores that hold the given base images and nothing else."""

    def __init__(self, area: WorkArea, venv: str) -> None:
        self._area = area
        self.venv = venv
        self._numbers = itertools.count()

    def fresh(self, bases: Sequence[tuple[str, str]]) -> Pybuild:
        """A new store with `bases`: pairs of a root file system's tar and an image name."""
        store = Pybuild(self.venv, os.path.join(self._area.directory("stores"), str(next(self._numbers))))
        for tar, name in bases:
            store.run("import", tar, name)
        return store


def install(area: WorkArea) -> str:
    """Build the wheel, install it (not editable) beside compiled bytecode; return the virtual environment."""
    venv, dist = os.path.join(area.path, "venv"), area.directory("dist")
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    environment |= {
        "PIP_CONSTRAINT": os.path.join(CHECKOUT, "constraints.txt"),
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }

    def run(*argv: str) -> None:
        subprocess.run(argv, check=True, cwd=CHECKOUT, env=environment, stdout=sys.stderr)

    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", dist)
    run(sys.executable, "-m", "venv", venv)
    (wheel,) = glob.glob(os.path.join(dist, "*.whl"))
    run(f"{venv}/bin/python", "-m", "pip", "install", "-qq", "--compile", wheel)
    return venv
