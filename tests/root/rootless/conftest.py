"""An ordinary user with lent ids, made for the tests and removed after them, and pybuild run as this user."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
NAME = "pybuildtst"
FIRST_ID, IDS = 1_700_000_000, 65536

FILTER = """
import os, struct
from builder.sandbox import syscalls
code = [(0x20, 0, 0, 0), (0x15, 0, 1, 272 if os.uname().machine == "x86_64" else 97), (6, 0, 0, 0x50001),
        (6, 0, 0, 0x7fff0000)]
syscalls.prctl(38, 1)
syscalls.load_filter(b"".join(struct.pack("=HBBI", *each) for each in code))
"""
"""What a container's runtime does to every program in it: unshare(2) is EPERM."""


class Ordinary:
    """A user, their home on memory, and what they type. `lent` says whether ids are lent to them."""

    def __init__(self, name: str, home: Path) -> None:
        self.entry = pwd.getpwnam(name)
        self.home = home
        self.code = readable_code(home)

    @property
    def store(self) -> Path:
        return self.home / "data" / "pybuild"

    def command(self, *words: str, extra: tuple[str, ...] = ()) -> list[str]:
        """The command line that runs `words` as the user."""
        ids = [f"--reuid={self.entry.pw_uid}", f"--regid={self.entry.pw_gid}", "--clear-groups"]
        return ["setpriv", *ids, "--inh-caps=-all", *extra, *words]

    def with_fuse(self, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
        """Run `pybuild words` where /dev/fuse is open to everybody, as distributions have it."""
        return self.behind(fuse_for_all(self.home.parent), *words, **more)

    def behind(self, prefix: list[str], *words: str, **more: str) -> subprocess.CompletedProcess[str]:
        """Run `pybuild words` with root's command `prefix` before it."""
        return self._run([*prefix, *self.command(sys.executable, "-m", "builder.cli.main", *words)], more)

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if name in ("PATH", "LANG", "TERM")}
        return kept | {
            "HOME": str(self.home),
            "XDG_DATA_HOME": str(self.home / "data"),
            "PYTHONPATH": str(self.code),
            "PYTHONDONTWRITEBYTECODE": "1",
            "BUILDKIT_PROGRESS": "plain",
        }

    def pybuild(self, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
        """Run `pybuild words`; `more` are variables."""
        return self.run(sys.executable, "-m", "builder.cli.main", *words, **more)

    def filtered(self, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
        """Run `pybuild words` where a filter of system calls refuses new namespaces, as in a container."""
        code = f"{FILTER}import sys\nsys.argv = ['pybuild', *{words!r}]\n"
        code += "from builder.cli import main\nmain.main()\n"
        return self.run(sys.executable, "-c", code, **more)

    def run(self, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
        return self._run(self.command(*words), more)

    def _run(self, argv: list[str], more: dict[str, str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            argv,
            env=self.environment | more,
            cwd=self.home,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )

    def python(self, code: str, **more: str) -> str:
        """What a script of Python prints, which must succeed."""
        done = self.run(sys.executable, "-c", code, **more)
        assert done.returncode == 0, done.stderr
        return done.stdout


def fuse_for_all(place: Path) -> list[str]:
    """What stands before a command so that it finds a /dev/fuse of our own, of mode 0666."""
    if shutil.which("fuse-overlayfs") is None:
        pytest.skip("fuse-overlayfs is not installed")
    return device_for_all("/dev/fuse", place)


def device_for_all(device: str, place: Path) -> list[str]:
    """What stands before a command so that it finds that device with mode 0666; it is made in `place`."""
    if not os.path.exists(device):
        pytest.skip(f"{device} is not there")
    node = place / device.replace("/", "-")
    if not node.exists():
        os.mknod(node, stat.S_IFCHR | 0o666, os.stat(device).st_rdev)
        node.chmod(0o666)
    return ["unshare", "-m", "sh", "-c", f'mount --bind {node} {device} && exec "$@"', "sh"]


def readable_code(home: Path) -> Path:
    """The code where the user can read it: the checkout, or a copy of it."""
    code = home.parent / "code"
    if not code.exists():
        for name in ("builder", "oci"):
            shutil.copytree(ROOT / name, code / name, ignore=shutil.ignore_patterns("__pycache__"))
    return code


def lend(file: str, line: str) -> None:
    with open(file, "a", encoding="utf-8") as out:
        out.write(line)


def take_back(file: str, name: str) -> None:
    """Remove the lines of `name`; all others stay as they are."""
    lines = Path(file).read_text(encoding="utf-8").splitlines(keepends=True)
    kept = [line for line in lines if not line.startswith(f"{name}:")]
    if kept != lines:
        Path(file).write_text("".join(kept), encoding="utf-8")


@pytest.fixture(scope="session")
def users() -> Iterator[dict[str, str]]:
    """Two users: `lent` has subordinate ids, `bare` has none."""
    for program in ("useradd", "setpriv", "newuidmap"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    names = {kind: f"{NAME}{secrets.token_hex(4)}" for kind in ("lent", "bare")}
    try:
        for name in names.values():
            subprocess.run(["useradd", "-M", "-N", "-g", "nogroup", "-s", "/bin/sh", name], check=True)
            for file in ("/etc/subuid", "/etc/subgid"):
                take_back(file, name)
        for file in ("/etc/subuid", "/etc/subgid"):
            lend(file, f"{names['lent']}:{FIRST_ID}:{IDS}\n")
        yield names
    finally:
        for name in names.values():
            subprocess.run(["userdel", name], check=False, capture_output=True)
            for file in ("/etc/subuid", "/etc/subgid"):
                take_back(file, name)


@pytest.fixture(scope="session")
def _place() -> Iterator[Path]:
    """A directory that everybody may enter; pytest's own is root's alone."""
    folder = Path(
        tempfile.mkdtemp(prefix="pybuild-rl-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None)
    )
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def _home(place: Path, name: str) -> Ordinary:
    home = place / name
    if not home.exists():
        home.mkdir(mode=0o700)
        entry = pwd.getpwnam(name)
        os.chown(home, entry.pw_uid, entry.pw_gid)
    return Ordinary(name, home)


@pytest.fixture
def lent(users: dict[str, str], _place: Path) -> Ordinary:
    """The user with lent ids (rung 2)."""
    return _home(_place, users["lent"])


@pytest.fixture
def bare(users: dict[str, str], _place: Path) -> Ordinary:
    """The user without (rung 4)."""
    return _home(_place, users["bare"])
