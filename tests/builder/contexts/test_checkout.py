"""Labels that tell where a context comes from."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from sites import Repository

from builder.cli.values import git_labels
from builder.contexts.checkout import ENTRYPOINT, REVISION, SOURCE, labels
from builder.errors import ContextError


@pytest.fixture
def checkout(tmp_path: Path) -> Repository:
    made = Repository(tmp_path, "app")
    made.commit({"sub/Dockerfile": "FROM scratch\n"})
    made.git("remote", "add", "origin", "https://me:token@example.org/app.git")
    return made


def test_of_a_checkout(checkout: Repository, tmp_path: Path) -> None:
    commit = checkout.git("rev-parse", "HEAD")
    sub = str(checkout.path / "sub")
    wanted = {REVISION: commit, SOURCE: "https://example.org/app.git", ENTRYPOINT: "sub/Dockerfile"}
    assert labels(sub, "") == wanted
    assert labels(sub, f"{sub}/../other") == wanted | {ENTRYPOINT: "other"}
    assert ENTRYPOINT not in labels(sub, str(tmp_path / "Dockerfile"))
    checkout.git("remote", "set-url", "origin", "git@example.org:app.git")
    assert labels(sub, "")[SOURCE] == "git@example.org:app.git"


def test_changes(checkout: Repository) -> None:
    commit, top = checkout.git("rev-parse", "HEAD"), str(checkout.path)
    assert labels(top, "", check_dirty=True)[REVISION] == commit
    (checkout.path / "new").write_text("x")
    assert labels(top, "", check_dirty=True)[REVISION] == f"{commit}-dirty"
    assert labels(top, "")[REVISION] == commit


@pytest.mark.skipif(os.getuid() != 0, reason="only root has files of other owners")
def test_settings_of_another_owner_are_not_read(
    checkout: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SUDO_UID", raising=False)
    for path in (checkout.path, checkout.path / ".git"):
        os.chown(path, 12345, 12345)
    assert REVISION in labels(str(checkout.path), "")
    with pytest.raises(ContextError, match="BUILDX_GIT_CHECK_DIRTY"):
        labels(str(checkout.path), "", check_dirty=True)


def test_where_there_is_none(tmp_path: Path) -> None:
    assert labels(str(tmp_path), "") == {}
    Repository(tmp_path, "empty")
    assert REVISION not in labels(str(tmp_path / "empty"), "")


def test_the_environment_asks(checkout: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    top = str(checkout.path)
    for value, names in (
        ("", ()),
        ("0", ()),
        ("1", (REVISION, ENTRYPOINT)),
        ("full", (REVISION, ENTRYPOINT, SOURCE)),
    ):
        monkeypatch.setenv("BUILDX_GIT_LABELS", value)
        assert set(git_labels(top, "")) == set(names)
    assert git_labels("https://example.org/app.git", "") == {} == git_labels("-", "")
    (checkout.path / "new").write_text("x")
    monkeypatch.setenv("BUILDX_GIT_CHECK_DIRTY", "true")
    assert git_labels(top, "")[REVISION].endswith("-dirty")
