"""The command in the hands of an ordinary user: streams, signals, a kill, what stays and what is refused."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from naps import nap, until
from rootless import golden
from rootless.conftest import fuse_for_all

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def folder(_place: Path) -> Path:
    folder = _place / "lifecycle"
    golden.lay(folder)
    return folder


@pytest.fixture
def user(lent: Any, folder: Path) -> Any:
    if not (lent.store / "index.json").exists() or "golden" not in (lent.store / "index.json").read_text():
        assert lent.pybuild("import", str(folder / "base.tar"), "golden").returncode == 0
    return lent


def start(user: Any, *words: str, **more: Any) -> subprocess.Popen[bytes]:
    command = user.command(sys.executable, "-m", "builder.cli.main", *words)
    return subprocess.Popen(command, env=user.environment, cwd=user.home, **more)


def build(user: Any, folder: Path, dockerfile: str, *options: str) -> subprocess.CompletedProcess[str]:
    file = folder / "context" / "Dockerfile"
    file.write_text(dockerfile)
    file.chmod(0o644)
    found: subprocess.CompletedProcess[str] = user.pybuild(
        "build", "--network=none", *options, str(folder / "context")
    )
    return found


def test_streams_and_status(user: Any) -> None:
    words = ("run", "-i", "--network=none", "golden", "sh", "-c", "cat; echo bad >&2; exit 7")
    process = start(user, *words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.communicate(b"text", timeout=60) == (b"text", b"bad\n")
    assert process.returncode == 7


def processes(user: Any, word: bytes) -> list[int]:
    """Processes, also in namespaces of the user's, with `word` in their command line."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            if word in Path(f"/proc/{name}/cmdline").read_bytes().split(b"\0"):
                found.append(int(name))
        except OSError:
            continue
    return found


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_end_it_and_its_steps(user: Any, folder: Path, number: int, code: int) -> None:
    moment = nap()
    (folder / "context" / "slow").write_text(f"FROM golden\nRUN busybox sleep {moment}\n")
    (folder / "context" / "slow").chmod(0o644)
    file = ("-f", str(folder / "context" / "slow"))
    process = start(
        user, "build", "--network=none", *file, str(folder / "context"), stderr=subprocess.DEVNULL
    )
    until(lambda: processes(user, moment.encode()))
    process.send_signal(number)
    assert process.wait(60) == code
    until(lambda: not processes(user, moment.encode()))


def test_a_kill_leaves_nothing_that_the_next_build_does_not_remove(user: Any, folder: Path) -> None:
    """R04. Also what belongs to lent ids, which the user may not remove from outside."""
    moment = nap()
    text = f"FROM golden\nRUN mkdir -p /d/e && chown -R 5:6 /d && chmod 700 /d && busybox sleep {moment}\n"
    (folder / "context" / "slow").write_text(text)
    (folder / "context" / "slow").chmod(0o644)
    file = ("-f", str(folder / "context" / "slow"))
    process = start(
        user, "build", "--network=none", *file, str(folder / "context"), stderr=subprocess.DEVNULL
    )
    until(lambda: processes(user, moment.encode()))
    process.kill()
    process.wait(60)
    until(lambda: not processes(user, moment.encode()))
    snapshots = user.store / "snapshots"
    mine = {user.entry.pw_uid}
    live = [path for path in (snapshots / ".live").rglob("*") if path.lstat().st_uid not in mine]
    assert live
    assert build(user, folder, "FROM golden\nRUN echo next\n").returncode == 0
    assert not [path for path in live if path.exists()]
    assert os.listdir(snapshots / ".trash") == []


def test_the_store_is_the_users_own(user: Any, folder: Path) -> None:
    """SECURITY.md S60."""
    assert build(user, folder, "FROM golden\nRUN touch /file && chown 5:6 /file\n").returncode == 0
    looks = user.store.stat()
    assert (looks.st_uid, stat.S_IMODE(looks.st_mode)) == (user.entry.pw_uid, 0o700)
    owners = {path.lstat().st_uid for path in user.store.rglob("file")}
    assert any(uid > 1_700_000_000 - 1 for uid in owners)


def test_ids_that_are_not_lent_are_named_with_those_that_are(user: Any, folder: Path) -> None:
    """S101. A layer may have any owner; what needs it as a real one says which there are."""
    done = build(user, folder, "FROM golden\nUSER 70000\nRUN true\n")
    assert done.returncode == 1
    assert "user 70000 has no id in this user namespace, which has 0 to 65536" in done.stderr
    assert "Dockerfile:3" in done.stderr and "subuid" in done.stderr
    assert build(user, folder, "FROM golden\nCOPY --chown=70000:1 a /x\n").returncode == 0
    done = build(user, folder, "FROM golden\nCOPY --chown=70000:1 a /x\nRUN true\n")
    assert done.returncode == 1
    assert "70000:1, the owner of /x, has no id in this user namespace, which has 0 to 65536" in done.stderr


def masked(user: Any, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """A build where /proc is masked as in a container."""
    command = user.command(sys.executable, "-m", "builder.cli.main", "build", "--network=none", "--no-cache")
    file = ("-f", str(folder / "context" / "masked"), *options, str(folder / "context"))
    mask = 'mount -t tmpfs none /proc/acpi && mount --bind /proc/sys /proc/sys && exec "$@"'
    return subprocess.run(
        ["unshare", "-m", "sh", "-c", mask, "sh", *command, *file],
        env=user.environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("who", ["lent", "bare"])
def test_a_masked_proc(request: pytest.FixtureRequest, who: str, folder: Path) -> None:
    """S106: the outer /proc is shown, with a warning; strict refuses."""
    user = request.getfixturevalue(who)
    assert user.pybuild("import", str(folder / "base.tar"), "golden").returncode == 0
    file = folder / "context" / "masked"
    file.write_text(
        "FROM golden\nRUN busybox grep -c . /proc/self/status && echo $$ && ls /proc/1 && ls /proc/acpi\n"
    )
    file.chmod(0o644)
    done = masked(user, folder)
    assert done.returncode == 0, done.stderr
    assert "isolation is weaker: /proc is the one outside" in done.stderr
    assert done.stderr.count("isolation is weaker") == 1
    refused = masked(user, folder, "--isolation=strict")
    assert refused.returncode == 1
    assert "a new /proc is refused, and isolation is strict" in refused.stderr


def test_fuse_overlayfs_ends_with_a_killed_build(user: Any, folder: Path) -> None:
    """It holds the build's mounts as long as it lives."""
    moment = nap()
    (folder / "context" / "slow").write_text(f"FROM golden\nRUN busybox sleep {moment}\n")
    (folder / "context" / "slow").chmod(0o644)
    words = ("build", "--network=none", "-f", str(folder / "context" / "slow"), str(folder / "context"))
    command = [
        *fuse_for_all(user.home.parent),
        *user.command(sys.executable, "-m", "builder.cli.main", *words),
    ]
    environment = user.environment | {"PYBUILD_SNAPSHOTTER": "fuse"}
    process = subprocess.Popen(command, env=environment, cwd=user.home, stderr=subprocess.DEVNULL)
    until(lambda: processes(user, moment.encode()))
    mine = [pid for pid in processes(user, b"/usr/bin/fuse-overlayfs") if _user_of(pid) == user.entry.pw_uid]
    assert mine
    process.kill()
    process.wait(60)
    until(lambda: not set(mine) & set(processes(user, b"/usr/bin/fuse-overlayfs")))


def _user_of(pid: int) -> int:
    try:
        return os.stat(f"/proc/{pid}").st_uid
    except OSError:
        return -1


@pytest.mark.parametrize(
    ("who", "storage"), [("lent", "overlay"), ("lent", "copy"), ("lent", "fuse"), ("bare", "overlay")]
)
def test_mounts_and_outputs(request: pytest.FixtureRequest, who: str, storage: str, folder: Path) -> None:
    """Every type of mount, and files that belong to the user outside."""
    user = request.getfixturevalue(who)
    run = user.with_fuse if storage == "fuse" else user.pybuild
    root = ("--root", str(user.home / f"mounts-{storage}"))
    assert run(*root, "import", str(folder / "base.tar"), "golden").returncode == 0
    key = user.home / "key"
    if not key.exists():
        made = user.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key))
        assert made.returncode == 0, made.stderr
    (user.home / "secret").write_text("hush")
    file = folder / "context" / "mounts"
    file.write_text(
        "FROM golden\nRUN --mount=type=secret,id=s,uid=1000,mode=0400 --mount=type=cache,target=/c,uid=1 \\\n"
        " --mount=type=tmpfs,target=/t --mount=type=bind,target=/b,rw --mount=type=ssh,uid=1000 \\\n"
        " cat /run/secrets/s > /seen && touch /b/new /c/x /t/y && test -S /run/buildkit/ssh_agent.0\n"
    )
    file.chmod(0o644)
    out = user.home / f"out-{storage}"
    lent = ("--secret", f"id=s,src={user.home / 'secret'}", "--ssh", f"default={key}")
    words = ("--network=none", "-f", str(file), "-o", f"type=local,dest={out}", *lent)
    done = run(*root, "build", *words, str(folder / "context"), PYBUILD_SNAPSHOTTER=storage)
    assert done.returncode == 0, done.stderr
    assert (out / "seen").read_text() == "hush"
    assert {path.lstat().st_uid for path in (out, *out.rglob("*"))} == {user.entry.pw_uid}
    assert not (folder / "context" / "new").exists()
