"""USER and --chown, resolved in the image (SECURITY.md S31, S32)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from builder.errors import SandboxError
from builder.snapshot.view import DirectoryLayer, View
from builder.solver.identity import Identity, resolve_owner, resolve_user

PASSWD = """root:x:0:0:root:/root:/bin/sh
# app2:x:5:5::/:
broken line
app:x:1000:1001:An app:/home/app:/bin/sh
1002:x:0:0:a name that looks like an id:/evil:
huge:x:4294967296:0::/:
minus:x:-1:0::/:
nohome:x:7:8
"""
GROUP = "root:x:0:root\nstaff:x:50:app,root\nmore:x:60:other,app\napp:x:1001:app\n1003:x:0:\n"


@pytest.fixture
def image(tmp_path: Path) -> View:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "passwd").write_text(PASSWD)
    (tmp_path / "etc" / "group").write_text(GROUP)
    return View([DirectoryLayer(str(tmp_path))])


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("", Identity(0, 0, (0, 50), "/root")),
        ("root", Identity(0, 0, (0, 50), "/root")),
        ("app", Identity(1000, 1001, (1001, 50, 60), "/home/app")),
        ("1000", Identity(1000, 1001, (1001, 50, 60), "/home/app")),
        ("app:staff", Identity(1000, 50, (50,), "/home/app")),
        ("app:70", Identity(1000, 70, (70,), "/home/app")),
        ("1002", Identity(1002, 0, (0,), "/")),
        ("1002:1003", Identity(1002, 1003, (1003,), "/")),
        ("nohome", Identity(7, 8, (8,), "/")),
        ("2147483647", Identity(2147483647, 0, (0,), "/")),
    ],
)
def test_user(image: View, spec: str, expected: Identity) -> None:
    """SECURITY.md S31."""
    assert resolve_user(image, spec) == expected


@pytest.mark.parametrize(
    ("spec", "ids"), [("1000", (1000, 1000)), ("app", (1000, 1001)), ("0:staff", (0, 50)), (":9", (0, 9))]
)
def test_owner(image: View, spec: str, ids: tuple[int, int]) -> None:
    assert resolve_owner(image, spec) == ids


@pytest.mark.parametrize("spec", ["2147483648", "-1", "4294967296", "0:99999999999", "1:-5", "+2147483648"])
def test_ids_that_no_kernel_takes(image: View, spec: str) -> None:
    """SECURITY.md S31."""
    for resolve in (resolve_user, resolve_owner):
        with pytest.raises(SandboxError, match="is no user or group id"):
            resolve(image, spec)


@pytest.mark.parametrize("spec", ["nobody", "app:nogroup", "huge", "minus", "app2", ":x"])
def test_unknown_names(image: View, spec: str) -> None:
    for resolve in (resolve_user, resolve_owner):
        with pytest.raises(SandboxError, match="of the image"):
            resolve(image, spec)


@pytest.mark.parametrize(
    ("spec", "ids"), [("root", (0, 0)), ("root:root", (0, 0)), (":root", (0, 0)), ("5:root", (5, 0))]
)
def test_root_owns_as_0_whatever_the_image_says(tmp_path: Path, spec: str, ids: tuple[int, int]) -> None:
    empty = View([DirectoryLayer(str(tmp_path))])
    assert resolve_owner(empty, spec) == ids
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "passwd").write_text("root:x:77:78::/:/bin/sh\n")
    (tmp_path / "etc" / "group").write_text("root:x:79:\n")
    assert resolve_owner(View([DirectoryLayer(str(tmp_path))]), spec) == ids


def test_root_runs_in_an_image_without_users(tmp_path: Path) -> None:
    """With a group, that is: as with BuildKit, `USER root` alone asks the image for root's group."""
    empty = View([DirectoryLayer(str(tmp_path))])
    assert resolve_user(empty, "root:root") == Identity(0, 0, (0,), "/")
    assert resolve_user(empty, "5:root") == Identity(5, 0, (0,), "/")
    for spec in ("root", "root:staff"):
        with pytest.raises(SandboxError, match="of the image"):
            resolve_user(empty, spec)


def test_special_files_do_not_hang(tmp_path: Path) -> None:
    """SECURITY.md S32."""
    (tmp_path / "etc").mkdir()
    os.mkfifo(tmp_path / "etc" / "passwd")
    (tmp_path / "etc" / "group").mkdir()
    view = View([DirectoryLayer(str(tmp_path))])
    assert resolve_user(view, "5") == Identity(5, 0, (0,), "/")
    with pytest.raises(SandboxError):
        resolve_owner(view, "app:staff")


def test_a_link_stays_in_the_image(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "passwd").symlink_to("../../../../../../../../etc/passwd")
    view = View([DirectoryLayer(str(tmp_path))])
    with pytest.raises(SandboxError):
        resolve_owner(view, "daemon")


def test_a_huge_passwd_is_refused(tmp_path: Path) -> None:
    """SECURITY.md S32."""
    (tmp_path / "etc").mkdir()
    with open(tmp_path / "etc" / "passwd", "wb") as file:
        file.truncate((16 << 20) + 1)
    with pytest.raises(SandboxError, match="the limit is"):
        resolve_owner(View([DirectoryLayer(str(tmp_path))]), "app")


def test_a_line_without_end_is_no_user(tmp_path: Path) -> None:
    """SECURITY.md S32."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "passwd").write_bytes(
        b"app:x:5:5:" + b"x" * (64 << 10) + b":/:/bin/sh\nok:x:6:7::/:/\n"
    )
    view = View([DirectoryLayer(str(tmp_path))])
    assert resolve_owner(view, "ok") == (6, 7)
    with pytest.raises(SandboxError, match="app"):
        resolve_owner(view, "app")
