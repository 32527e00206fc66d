"""`pybuild expand`, and what INCLUDE may read: files of the context, and nothing else."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest
from sites import Repository, git_daemon

Pybuild = Any
"""The fixture of conftest.py: runs a command line in a store of its own."""

ON = "# pybuild=include,env-file\n"


@pytest.fixture
def context(tmp_path: Path) -> Path:
    made = tmp_path / "context"
    (made / "parts").mkdir(parents=True)
    (made / "Dockerfile").write_text(f"{ON}FROM scratch\nINCLUDE parts/a\n")
    (made / "parts" / "a").write_text("LABEL a=1\n")
    (tmp_path / "outside").write_text("LABEL outside=1\n")
    return made


PLAIN = "FROM scratch\nLABEL a=1\n"


def test_a_directory(pybuild: Pybuild, context: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert pybuild.ok("expand", str(context)) == PLAIN
    monkeypatch.chdir(context)
    assert pybuild.ok("expand") == PLAIN
    (context / "other").write_text("ARG P\nINCLUDE $P\n")
    assert "is no ARG" in pybuild("expand", "-f", "other", "--enable", "include").err
    (context / "b").write_text("FROM scratch\n")
    assert (
        pybuild.ok("expand", "-f", "other", "--enable", "include", "--build-arg", "P=/b")
        == "ARG P\nFROM scratch\n"
    )


def test_what_stays_is_told(pybuild: Pybuild, context: Path) -> None:
    (context / "Dockerfile").write_text("FROM scratch\nCOPY --if-exists a* /\nCOPY b /\n")
    ran = pybuild("expand", str(context))
    assert ran.code == 0 and ran.out == (context / "Dockerfile").read_text()
    assert ran.err.count("warning") == 1 and "--if-exists stays" in ran.err and "Dockerfile:2" in ran.err


def _reads(pybuild: Pybuild, context: Path, text: str, *more: str) -> str:
    (context / "Dockerfile").write_text(f"{ON}FROM scratch\n{text}\n")
    ran = pybuild("expand", str(context), *more)
    assert ran.code in (0, 2), ran
    assert ran.err.startswith("Dockerfile:3: ") == (ran.code == 2), ran
    return str(ran.out or ran.err)


@pytest.mark.parametrize("what", ["INCLUDE ", "ENV --from-file="])
def test_nothing_outside_is_read(pybuild: Pybuild, context: Path, what: str) -> None:
    (context / "parts" / "up").symlink_to("../../outside")
    (context / "root").symlink_to("/etc/passwd")
    (context / "folder").symlink_to("/etc")
    (context / "loop").symlink_to("loop")
    (context / "inside").symlink_to("/parts/v")
    (context / "parts" / "v").write_text("# nothing\n")
    os.mkfifo(context / "fifo")
    for path, said in {
        "../outside": "leads out of the context",
        "/../outside": "leads out of the context",
        "parts/../../outside": "leads out of the context",
        "parts/up": "there is no such file",
        "root": "there is no such file",
        "folder/passwd": "there is no such file",
        "loop": "cannot be followed",
        "fifo": "is no regular file",
        "parts": "is no regular file",
        "parts/..": "it is the context itself",
    }.items():
        assert said in _reads(pybuild, context, what + path), path
    for path in ("inside", "/parts/v", "parts/../parts/v"):
        assert "FROM scratch\n" in _reads(pybuild, context, what + path)


def test_what_the_ignore_file_leaves_out(pybuild: Pybuild, context: Path) -> None:
    (context / ".dockerignore").write_text("*\n!kept\n")
    (context / "kept").write_text("LABEL a=1\n")
    assert _reads(pybuild, context, "INCLUDE kept") == PLAIN
    said = _reads(pybuild, context, "INCLUDE parts/a")
    assert ".dockerignore:1 leaves it out of the context" in said and "!parts/a" in said
    assert _reads(pybuild, context, "INCLUDE parts/a", "--ignorefile", "/dev/null") == PLAIN


class _Stdin:
    def __init__(self, content: bytes) -> None:
        self.buffer = io.BytesIO(content)


def test_standard_input(pybuild: Pybuild, context: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (context / "Dockerfile").read_bytes()
    monkeypatch.setattr("sys.stdin", _Stdin(text))
    assert pybuild.ok("expand", "-f", "-", str(context)) == PLAIN
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        archive.add(context, ".")
    monkeypatch.setattr("sys.stdin", _Stdin(out.getvalue()))
    assert pybuild.ok("expand", "-") == PLAIN
    monkeypatch.setattr("sys.stdin", _Stdin(text))
    assert "there is no such file in the context" in pybuild("expand", "-").err


def test_a_repository(pybuild: Pybuild, context: Path, tmp_path: Path) -> None:
    repository = Repository(tmp_path, "app")
    repository.commit({"Dockerfile": (context / "Dockerfile").read_text(), "parts/a": "LABEL a=1\n"})
    with git_daemon(tmp_path) as daemon:
        assert pybuild.ok("expand", f"git://{daemon}/app") == PLAIN


def test_bytes_stay(pybuild: Pybuild, context: Path) -> None:
    (context / "parts" / "a").write_bytes(b"\xef\xbb\xbfLABEL a=\xff\xc3\xa4\r\n")
    (context / "Dockerfile").write_bytes(f"{ON}FROM scratch\nINCLUDE parts/a\n".encode())
    target = context.parent / "out"
    import subprocess
    import sys

    with open(target, "wb") as file:
        subprocess.run(
            [sys.executable, "-m", "builder.cli.main", "expand", str(context)], stdout=file, check=True
        )
    assert target.read_bytes() == b"FROM scratch\nLABEL a=\xff\xc3\xa4\n"


def test_checks_speak_of_the_right_file(pybuild: Pybuild, context: Path) -> None:
    import json

    (context / "parts" / "a").write_text("\nMAINTAINER me\n")
    ran = pybuild("--check", str(context))
    assert ran.code == 1 and "\nparts/a:2\n" in ran.out
    assert "included by Dockerfile:3: INCLUDE parts/a" in ran.out
    shown = json.loads(pybuild("--call=check,format=json", str(context)).out)
    assert [each["filename"] for each in shown["sources"]] == ["Dockerfile", "parts/a"]
    assert shown["warnings"][0]["location"]["sourceIndex"] == 1
    ran = pybuild("--call=targets,format=json", str(context))
    assert json.loads(ran.out)["targets"][0]["location"] == {
        "ranges": [{"start": {"line": 2}, "end": {"line": 2}}]
    }
