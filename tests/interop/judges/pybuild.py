"""The command under test, as a user has it: installed, in its own process, with a store of its own."""

from __future__ import annotations

import os
import subprocess
import sysconfig
from dataclasses import dataclass

SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Pybuild:
    """`pybuild --root ROOT ...`; the environment holds a PATH, a HOME below the root and nothing else."""

    root: str

    def run(
        self, *args: str, check: bool = True, cwd: str | None = None, stdin: bytes = b""
    ) -> subprocess.CompletedProcess[bytes]:
        """Both streams captured. Raises AssertionError with what it said when `check` and it failed."""
        program = os.path.join(sysconfig.get_path("scripts"), "pybuild")
        done = subprocess.run(
            [program, "--root", self.root, *args],
            cwd=cwd,
            input=stdin,
            capture_output=True,
            check=False,
            timeout=SECONDS,
            env={"PATH": os.environ.get("PATH", os.defpath), "HOME": self.root, "LC_ALL": "C.UTF-8"},
        )
        if check and done.returncode:
            said = (done.stdout + done.stderr).decode(errors="replace")
            raise AssertionError(f"pybuild {' '.join(args)} exited {done.returncode}:\n{said}")
        return done
