"""Addresses of git repositories, as contexts and as sources of ADD."""

from __future__ import annotations

from builder.giturl import GitUrlError, looks_remote, parse, with_checksum

SEEDS = (
    b"https://user:pass@host.example/a/b.git#v1:sub/dir",
    b"git@host.example:a/b.git",
    b"ssh://git@h:22/a?ref=x&subdir=y&keep-git-dir=1&submodules=false&checksum=" + b"a" * 40,
    b"git://h/a.git#refs/heads/x",
)
WORDS = (
    b"?tag=",
    b"&branch=",
    b"&commit=",
    b"&mtime=",
    b"#",
    b":",
    b".git",
    b"%2f",
    b"file://",
    b"github.com/",
)


def target(data: bytes) -> None:
    """Any text, with and without the short forms."""
    text = data.decode("utf-8", "surrogateescape")
    looks_remote(text)
    for bare in (False, True):
        try:
            found = parse(text, bare=bare)
            if found is not None:
                assert not found.remote.startswith("-") and not (found.ref or "").startswith("-")
                assert ".." not in (found.subdir or "").split("/")
                with_checksum(found, "a" * 40)
        except GitUrlError as error:
            assert str(error)
