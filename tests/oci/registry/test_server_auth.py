"""Who may use our registry."""

from __future__ import annotations

import base64
import hashlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import bcrypt
import pytest
from served import Registry, served

from oci.errors import OciError
from oci.layout import Layout
from oci.registry.server import auth
from oci.registry.server.problems import Problem


def basic(user: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


def hashed(kind: str, password: str) -> str:
    if kind == "bcrypt":
        text = bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()
        return text.replace("$2b$", "$2y$")  # as htpasswd writes it
    if kind == "sha":
        digest = hashlib.sha1(password.encode()).digest()
        return "{SHA}" + base64.b64encode(digest).decode()
    command = ["openssl", "passwd", "-apr1", "-salt", "saltsalt", password]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def users(tmp_path: Path) -> Path:
    path = tmp_path / "htpasswd"
    lines = [f"{kind}:{hashed(kind, 'secret')}" for kind in ("bcrypt", "apr1", "sha")]
    path.write_text("# people\n\n" + "\n".join(lines) + "\n")
    return path


@pytest.fixture
def registry(layout: Layout, users: Path) -> Iterator[Registry]:
    with served(layout, htpasswd=str(users)) as registry:
        yield registry


@pytest.mark.parametrize("user", ["bcrypt", "apr1", "sha"])
def test_right_and_wrong_passwords(registry: Registry, user: str) -> None:
    for _ in range(2):
        assert registry.ask("GET", "/v2/", **basic(user, "secret")).status == 200
        assert registry.ask("GET", "/v2/", **basic(user, "Secret")).status == 401
        assert registry.ask("GET", "/v2/", **basic(user, "")).status == 401


@pytest.mark.parametrize(
    "headers",
    [{}, basic("nobody", "secret"), basic("", ""), {"Authorization": "Bearer x"},
     {"Authorization": "Basic !!"},
     {"Authorization": "Basic"}, {"Authorization": "Basic /w=="}],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/v2/", "/v2/_catalog", "/v2/app/manifests/1", "/elsewhere"])
def test_nobody_gets_anything(registry: Registry, headers: dict[str, str], path: str) -> None:
    """S90: with passwords nothing is given away without one."""
    answer = registry.ask("GET", path, **headers)
    assert (answer.status, answer.codes) == (401, ["UNAUTHORIZED"])
    assert answer.headers["www-authenticate"].startswith('Basic realm="')


def test_nothing_is_pushed_without_a_password(registry: Registry) -> None:
    assert registry.ask("POST", "/v2/app/blobs/uploads/", b"x" * 100_000).status == 401
    registry.headers = basic("apr1", "secret")
    registry.manifest("app", "1")


def test_the_file_may_change(registry: Registry, users: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert registry.ask("GET", "/v2/", **basic("new", "pass")).status == 401
    users.write_text(f"new:{hashed('bcrypt', 'pass')}\n")
    assert registry.ask("GET", "/v2/", **basic("new", "pass")).status == 200
    assert registry.ask("GET", "/v2/", **basic("sha", "secret")).status == 401
    users.write_text("broken\n")
    assert registry.ask("GET", "/v2/", **basic("new", "pass")).status == 200
    assert f"{users}:1" in capfd.readouterr().err


@pytest.mark.parametrize("text", ["", "# nobody\n", "user\n", "user:plain\n", ":x\n", "u:$1$salt$hash\n"])
def test_a_file_that_will_not_do(tmp_path: Path, text: str) -> None:
    path = tmp_path / "htpasswd"
    path.write_text(text)
    with pytest.raises(OciError, match=str(path)):
        auth.Htpasswd(str(path))


@pytest.mark.parametrize("password", ["", "x", "sixteen bytes ..", "more than sixteen bytes, ü", "y" * 100])
@pytest.mark.parametrize("salt", ["s", "saltsalt"])
def test_apr1_is_openssls(password: str, salt: str) -> None:
    told = subprocess.run(
        ["openssl", "passwd", "-apr1", "-salt", salt, "-stdin"],
        input=password + "\n", capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    assert auth.apr1(password.encode(), salt.encode()) == told


def test_bcrypt_without_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    path = tmp_path / "htpasswd"
    path.write_text(f"a:{hashed('bcrypt', 'x')}\n")
    monkeypatch.setitem(sys.modules, "bcrypt", None)
    with pytest.raises(OciError, match="htpasswd -m"):
        auth.Htpasswd(str(path))


def test_a_long_password(layout: Layout, tmp_path: Path) -> None:
    """bcrypt takes 72 bytes; what is longer is cut, as everywhere."""
    path = tmp_path / "htpasswd"
    path.write_text(f"a:{hashed('bcrypt', 'p' * 72)}\n")
    with served(layout, htpasswd=str(path)) as registry:
        assert registry.ask("GET", "/v2/", **basic("a", "p" * 80)).status == 200


def test_an_unknown_name_costs_what_some_known_one_does(users: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the time to the answer tells which names there are."""
    checked: list[str] = []

    def verify(stored: str, password: bytes) -> bool:
        checked.append(stored)
        return True  # even if the password were right

    htpasswd = auth.Htpasswd(str(users))
    monkeypatch.setattr(auth, "verify", verify)
    for name in ("nobody", "nobody", *(f"n{number}" for number in range(60))):
        with pytest.raises(Problem):
            htpasswd.user(basic(name, "secret")["Authorization"])
    stored = {line.partition(":")[2] for line in users.read_text().splitlines() if ":" in line}
    assert checked[0] == checked[1] and set(checked) == stored
