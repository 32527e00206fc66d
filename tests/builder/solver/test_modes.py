"""`--chmod`, with chmod(1) as the judge."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from builder.errors import DockerfileError
from builder.solver.modes import parse

DIGITS = ["755", "0644", "4711", "0"]
CLAUSES = [
    "u=rwX,go=rX",
    "+x",
    "-x",
    "a+X",
    "g=u",
    "o=g,u-w",
    "go=",
    "u+s",
    "g+s,o=",
    "+t",
    "=rw",
    "a=,u+rw",
    "u=rw,g=r,o=",
    "ug+x-w",
    "u-s",
    "go-rwx",
]
UMASKED = ["+rwx", "-w", "g+u", "o-u", "a=rx,u+w", "=", "+X", "u+x,g=u,o=g-w", "+w,+x"]


@pytest.mark.parametrize("text", [*DIGITS, *CLAUSES, *UMASKED])
@pytest.mark.parametrize("mode", [0o644, 0o755, 0o4750, 0o600, 0o444])
@pytest.mark.parametrize("directory", [False, True])
def test_as_chmod(tmp_path: Path, text: str, mode: int, directory: bool) -> None:
    if directory and mode & 0o6000:
        return  # GNU keeps these of a directory where the BSDs, and BuildKit, do not
    path = tmp_path / "x"
    path.mkdir() if directory else path.touch()
    os.chmod(path, mode)
    # It complains when the umask keeps it from doing what was written, after doing the rest.
    subprocess.run(["chmod", "--", text, path], check=False, umask=0o022, stderr=subprocess.DEVNULL)
    assert oct(parse(text)(mode, directory)) == oct(path.stat().st_mode & 0o7777)


@pytest.mark.parametrize(
    ("text", "mode", "expected"),
    [
        ("755", 0o2775, 0o755),
        ("g=rx", 0o2775, 0o755),
        ("go=", 0o1777, 0o1700),
        ("o+t", 0o755, 0o755),
        ("a+t", 0o755, 0o1755),
    ],
)
def test_where_the_bsds_differ(text: str, mode: int, expected: int) -> None:
    assert oct(parse(text)(mode, True)) == oct(expected)


@pytest.mark.parametrize(
    "text", ["", "9", "77777", "u", "u+q", "u=rw,", "rwx", "u=ug", "0o755", "+x ", "\u0667\u0665\u0665"]
)
def test_what_is_no_mode(text: str) -> None:
    with pytest.raises(DockerfileError, match="is no file mode"):
        parse(text)
