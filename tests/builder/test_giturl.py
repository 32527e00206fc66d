"""Repositories as URLs: every form, and everything that must not reach git (SECURITY.md S50, S52)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.giturl import GitUrl, GitUrlError, looks_remote, parse, with_checksum

URLS = [
    ("https://h/r.git", GitUrl("https://h/r.git")),
    ("http://127.0.0.1:80/r.git/", GitUrl("http://127.0.0.1:80/r.git")),
    ("https://h/r.git#a/b:c/d", GitUrl("https://h/r.git", "a/b", "c/d")),
    ("https://h/r.git#:/c/./d/", GitUrl("https://h/r.git", "", "c/d")),
    ("git@h:o/r.git#v1", GitUrl("git@h:o/r.git", "v1")),
    ("git@h:r?ref=v1&subdir=s", GitUrl("git@h:r", "v1", "s")),
    ("ssh://git@h:22/r", GitUrl("ssh://git@h:22/r")),
    ("git://h/r", GitUrl("git://h/r")),
    ("https://h/r.git?tag=v1", GitUrl("https://h/r.git", "refs/tags/v1")),
    ("https://h/r.git?branch=refs/heads/b", GitUrl("https://h/r.git", "refs/heads/b")),
    ("https://h/r.git?tag=v1#refs/tags/v1", GitUrl("https://h/r.git", "refs/tags/v1")),
    ("https://h/r.git?commit=abcd", GitUrl("https://h/r.git", "abcd", "", "abcd")),
    ("https://h/r.git?checksum=abcd#v1", GitUrl("https://h/r.git", "v1", "", "abcd")),
    ("https://h/r.git?keep-git-dir", GitUrl("https://h/r.git", keep_git_dir=True)),
    ("git://h/r?submodules=false&mtime=commit", GitUrl("git://h/r", submodules=False, commit_times=True)),
    ("https://u:p@h/r.git", GitUrl("https://h/r.git", userinfo="u:p")),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), URLS)
def test_forms(text: str, expected: GitUrl) -> None:
    assert parse(text) == expected


@pytest.mark.parametrize(
    "text",
    ["a/b", "./git@h:r", "file:///r.git", "ext::sh -c x", "https://h/r.tar.gz", "oci-layout://x", "c:/x"],
)
def test_what_is_no_repository(text: str) -> None:
    assert parse(text) is None


def test_github_without_a_scheme_is_for_contexts_only() -> None:
    assert parse("github.com/x/y#main") is None
    assert parse("github.com/x/y#main", bare=True) == GitUrl("https://github.com/x/y.git", "main")


REFUSED = [
    ("https://h/r.git?x=1", "unknown key 'x'"),
    ("https://h/r.git?ref=a&ref=b", "twice"),
    ("https://h/r.git?ref=", "no value"),
    ("https://h/r.git?ref=a#b", "contradict"),
    ("https://h/r.git?branch=a&tag=a", "contradict"),
    ("https://h/r.git?subdir=a#v:b", "two values for subdir"),
    ("https://h/r.git?checksum=aaaa&commit=bbbb", "contradict"),
    ("https://h/r.git?mtime=now", "checkout or commit"),
    ("https://h/r.git?submodules=x", "true or false"),
    ("https://h/r.git?checksum=zz", "no commit"),
    ("https://h/r.git?checksum=abcd&fetch-by-commit", "whole commit"),
    ("git://h/r#--upload-pack=touch x", "no name of a branch"),
    ("git://h/r?ref=-x", "no name of a branch"),
    ("git://h/r#a..b", "no name of a branch"),
    ("git://h/r#%2d%2dx", "no name of a branch"),
    ("git://h/r#main:../../etc", "inside"),
    ("git://h/r#main:a/%2e%2e/b", "inside"),
    ("git://-h/r", "no host"),
    ("ssh://-oProxyCommand=x/r", "no host"),
    ("ssh://-oProxyCommand=x@h/r", "no user"),
    ("git@h:--upload-pack=x", "no path"),
    ("git@h:r x", "no blanks"),
    ("ssh://h/r\n", "no blanks"),
    ("git://h", "no repository"),
]


@pytest.mark.parametrize(("text", "message"), REFUSED)
def test_refused(text: str, message: str) -> None:
    """SECURITY.md S50."""
    with pytest.raises(GitUrlError, match=message):
        parse(text)


def test_checksums_agree() -> None:
    git = with_checksum(GitUrl("git://h/r", "v1"), "abcdef")
    assert (git.ref, git.checksum) == ("v1", "abcdef")
    assert with_checksum(git, "abcdef") == git
    with pytest.raises(GitUrlError, match="differ"):
        with_checksum(git, "123456")


def test_passwords_are_not_shown() -> None:
    git = parse("https://u:canary@h/r.git#v1")
    assert git is not None
    assert "canary" not in f"{git} {git!r} {git.definition()}"
    assert (git.host, git.scheme, git.name) == ("h", "https", "r")


def test_remote_or_path() -> None:
    assert looks_remote("file:///x")
    assert looks_remote("git@h:x")
    assert not looks_remote("./a:b")


@given(st.text(max_size=60), st.sampled_from(["https://h/r.git", "git@h:r", "git://h/", "ssh://", ""]))
def test_nothing_dangerous_gets_through(text: str, head: str) -> None:
    """SECURITY.md S50."""
    try:
        git = parse(head + text)
    except GitUrlError:
        return
    if git is None:
        return
    assert not git.ref.startswith("-")
    assert not git.remote.startswith("-")
    assert not git.host.startswith("-")
    assert ".." not in git.subdir.split("/")
    assert not any(char.isspace() or char == "\0" for char in git.ref) or git.ref.isprintable()
    assert git.scheme in ("https", "http", "ssh", "git")
