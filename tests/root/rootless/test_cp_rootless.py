"""`pybuild cp` of ordinary users: files inside are root's or keep their owners, outside are the user's."""

from __future__ import annotations

import io
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
from rootless import golden

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def folder(_place: Path) -> Path:
    folder = _place / "cp"
    golden.lay(folder)
    return folder


def archive(path: Path) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(path) as found:
        return {each.name: each for each in found}


@pytest.mark.parametrize("how", ["created", "running"])
@pytest.mark.parametrize("who", ["lent", "bare"])
def test_owners(request: pytest.FixtureRequest, who: str, how: str, folder: Path) -> None:
    """Nor is anything read or written that the user may not (S92)."""
    user: Any = request.getfixturevalue(who)
    name, home = f"{who}-{how}", user.home

    def typed(*words: str) -> str:
        done = user.pybuild(*words)
        assert done.returncode == 0, (words, done.stderr)
        return str(done.stdout)

    def shell(script: str) -> str:
        done = user.run("sh", "-c", script)
        assert done.returncode == 0, (script, done.stderr)
        return str(done.stdout)

    typed("import", str(folder / "base.tar"), "golden")
    typed("create", "--name", name, "--network=none", "-v", "vol:/vol", "golden", "busybox", "sleep", "1000")
    try:
        if how == "running":
            typed("start", name)
        data = io.BytesIO()
        with tarfile.open(fileobj=data, mode="w") as out:
            for path, owner in (("owned", 1000), ("owned/file", 33)):
                entry = tarfile.TarInfo(path)
                entry.type = tarfile.REGTYPE if "/" in path else tarfile.DIRTYPE
                entry.uid, entry.gid, entry.mode = owner, owner + 1, 0o750
                out.addfile(entry)
        (home.parent / f"{name}.tar").write_bytes(data.getvalue())
        (home.parent / f"{name}.tar").chmod(0o644)
        shell(f"mkdir -p {name}/here && echo text > {name}/here/file && chmod 600 {name}/here/file")
        typed("cp", f"{name}/here", f"{name}:/new")
        typed("cp", f"{name}/here", f"{name}:/vol/{name}")
        command = f"{sys.executable} -m builder.cli.main"
        shell(f"{command} cp -a - {name}:/new < {home.parent}/{name}.tar")
        typed("cp", f"{name}:/new", f"{name}/back")
        typed("cp", f"{name}:/vol/{name}/file", f"{name}/vol")
        for path in ("back/file", "back/owned/file", "vol"):
            info = (home / name / path).stat()
            assert info.st_uid == user.entry.pw_uid and info.st_gid == user.entry.pw_gid
        assert (home / name / "back" / "file").read_text() == "text\n"
        assert (home / name / "back" / "file").stat().st_mode & 0o7777 == 0o600
        shell(f"{command} cp {name}:/new - > {name}/tar")
        found = archive(home / name / "tar")
        owners = {path: (each.uid, each.gid) for path, each in found.items()}
        assert owners == {
            "new": (0, 0), "new/file": (0, 0), "new/owned": (1000, 1001), "new/owned/file": (33, 34)
        }  # fmt: skip
        closed = home.parent / "shut"
        closed.mkdir(0o700, exist_ok=True)
        (closed / "secret").write_text("root's")
        for words in ((str(closed / "secret"), f"{name}:/x"), (f"{name}:/new/file", str(closed / "secret"))):
            done = user.pybuild("cp", *words)
            assert done.returncode and "ermission denied" in done.stderr, done
            assert "Traceback" not in done.stderr
        assert (closed / "secret").read_text() == "root's"
        if how == "running":
            assert typed("exec", name, "cat", "/new/file", f"/vol/{name}/file") == "text\ntext\n"
    finally:
        user.pybuild("rm", "-f", name)


@pytest.mark.parametrize("storage", ["fuse", "copy"])
def test_where_the_kernel_mounts_no_overlay(lent: Any, folder: Path, storage: str) -> None:
    box = f"{storage}-box"
    run = lent.with_fuse if storage == "fuse" else lent.pybuild
    home = lent.home

    def typed(*words: str) -> str:
        done = run(*words, PYBUILD_SNAPSHOTTER=storage)
        assert done.returncode == 0, (words, done.stderr)
        return str(done.stdout)

    typed("import", str(folder / "base.tar"), "golden")
    typed("create", "--name", box, "--network=none", "golden", "busybox", "sleep", "1000")
    try:
        done = lent.run("sh", "-c", f"mkdir {box} && echo text > {box}/file && ln -s file {box}/link")
        assert done.returncode == 0
        typed("cp", box, f"{box}:/created")
        typed("start", box)
        assert typed("exec", box, "cat", "/created/link") == "text\n"
        if storage == "fuse":  # the kernel lets only those in who share its server's user namespace
            done = run("cp", f"{box}:/created", ".", PYBUILD_SNAPSHOTTER=storage)
            assert done.returncode == 1 and "lets no other process in" in done.stderr
        else:
            typed("cp", box, f"{box}:/created/running")
            typed("cp", f"{box}:/created/running", f"{box}/running")
        typed("stop", "-t", "0", box)
        typed("cp", box, f"{box}:/exited")
        typed("cp", f"{box}:/exited", f"{box}/exited")
        typed("cp", f"{box}:/created", f"{box}/created")
        for name in ("exited", "created"):
            assert (home / box / name / "link").read_text() == "text\n"
        assert "A /exited/file" in typed("diff", box).split("\n")
        typed("export", "-o", f"{box}/all.tar", box)
        assert archive(home / box / "all.tar")["created/link"].issym()
    finally:
        run("rm", "-f", box, PYBUILD_SNAPSHOTTER=storage)
