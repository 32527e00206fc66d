"""`--creds` and `--cert-dir`: whom a password is for, and what is said of it."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import click
import pytest

from builder.cli import build, remote
from builder.cli.session import Session
from builder.errors import UsageError

Pybuild = Any


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def session(tmp_path: Path) -> Session:
    return Session(root=str(tmp_path / "store"))


def given(*creds: str, tags: tuple[str, ...] = (), outputs: tuple[str, ...] = ()) -> object:
    return build._credentials({"creds": creds, "tags": tags, "outputs": outputs})


def test_a_build_gives_a_password_to_registries_that_the_user_names() -> None:
    assert given("me:a", tags=("r.example/app:1", "r.example/app:2")) == (("r.example", "me:a"),)
    assert given("me:a", tags=("app",)) == (("docker.io", "me:a"),)
    assert given("me:a", outputs=("type=registry,name=localhost:5000/x",)) == (("localhost:5000", "me:a"),)
    for host in ("r.example", "localhost", "localhost:5000", "127.0.0.1:5000", "[::1]:5000"):
        assert given(f"{host}=me:a=b") == ((host, "me:a=b"),)
    assert given("docker.io=me:a", "me:b", tags=("r.example/x",)) == (
        ("docker.io", "me:a"),
        ("r.example", "me:b"),
    )
    assert given("me:pass=word", tags=("r.example/app",)) == (("r.example", "me:pass=word"),)
    with pytest.raises(UsageError, match="which registry") as caught:
        given("me:secret")
    assert "HOST=" in caught.value.hint and "secret" not in str(caught.value)


def test_a_password_in_the_arguments_is_warned_of(
    session: Session, capsys: pytest.CaptureFixture[str]
) -> None:
    """SECURITY.md S67."""
    access = remote.access(session, credentials=(("a", "me:secret"), ("b", "me:secret"), ("c", "")))
    assert access.credentials == (("a", "me", "secret"), ("b", "me", "secret"))
    said = capsys.readouterr().err
    assert said.count("command line") == 1 and "secret" not in said + repr(access)


def test_a_password_that_is_left_out_is_asked_for(
    session: Session, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(remote.sys, "stdin", Terminal())
    monkeypatch.setattr(click, "prompt", lambda text, **_: asked.append(text) or "typed")
    access = remote.access(session, credentials=(("a", "me"), ("b", "me")))
    assert access.credentials == (("a", "me", "typed"), ("b", "me", "typed"))
    assert asked == ["Password"] and "command line" not in capsys.readouterr().err


@pytest.mark.parametrize("text", [":secret", "me:", ":"])
def test_credentials_that_are_none(text: str, session: Session) -> None:
    with pytest.raises(UsageError, match="USER") as caught:
        remote.access(session, credentials=(("a", text),))
    assert "secret" not in str(caught.value)


def test_directories_of_certificates(pybuild: Pybuild, tmp_path: Path) -> None:
    ran = pybuild("tags", "--cert-dir", "/nowhere", "127.0.0.1:1/x")
    assert ran.code == 2 and "is no directory" in ran.err
    (tmp_path / "me.cert").write_text("")
    ran = pybuild("tags", "--cert-dir", str(tmp_path), "127.0.0.1:1/x")
    assert ran.code == 2 and "no key beside it" in ran.err
    (tmp_path / "me.cert").rename(tmp_path / "ca.crt")
    ran = pybuild("tags", "--cert-dir", str(tmp_path), "127.0.0.1:1/x")
    assert ran.code == 3 and "ca.crt" in ran.err, "an empty file is no authority"
