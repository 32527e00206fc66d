"""`Dockerfile.lock` (D22): what a Dockerfile's names meant when it was written, by digest.

    version = 1

    [images]
    "docker.io/library/debian:12" = "sha256:..."        the index, where there is one: all platforms

    [urls]
    "https://example.org/tool.tar.gz" = "sha256:..."

    [git]
    "https://example.org/app.git#v1" = "<commit>"

Sorted, so that a change of one line is a change of one line. What the Dockerfile pins itself is not in it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import field
from typing import TYPE_CHECKING

from builder.errors import ContextError, UsageError
from oci.data import dataclass
from oci.durable import open_untrusted
from oci.registry.redact import shown_url

if TYPE_CHECKING:
    from builder.giturl import GitUrl
    from oci.reference import Reference

SUFFIX = ".lock"
VERSION = 1
_MOST_BYTES = 4 << 20
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")
_COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_TABLES = {"images": _DIGEST, "urls": _DIGEST, "git": _COMMIT}
_HEAD = """\
# Written by `pybuild lock`, which adds what is new in the Dockerfile and drops what is gone from it.
# `pybuild lock --update` asks what everything means now; `pybuild build --locked` uses exactly this.
"""


@dataclass(frozen=True, slots=True)
class Lock:
    """Digests by the full names of images and by URLs, commits by repository and ref."""

    images: Mapping[str, str] = field(default_factory=dict)
    urls: Mapping[str, str] = field(default_factory=dict)
    git: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str, name: str) -> Lock:
        """Read a lock; `name` is what messages call it. Raises UsageError."""
        import tomllib

        try:
            document = tomllib.loads(text)
        except (tomllib.TOMLDecodeError, RecursionError) as error:
            raise _broken(name, str(error)) from None
        if (version := document.pop("version", None)) != VERSION:
            raise _broken(name, f"its version is {version!r}; this pybuild knows {VERSION}")
        for table, form in _TABLES.items():
            rows = document.get(table, {})
            if not isinstance(rows, dict):
                raise _broken(name, f"{table} is no table")
            for key, value in rows.items():
                if not isinstance(value, str) or not form.fullmatch(value):
                    what = "a commit" if form is _COMMIT else "a digest"
                    raise _broken(name, f"{table}.{key!r} is {value!r}, which is not {what}")
        if unknown := document.keys() - _TABLES.keys():
            raise _broken(name, f"it has no table {sorted(unknown)[0]!r}")
        return cls(*(document.get(table, {}) for table in _TABLES))

    @classmethod
    def read(cls, path: str) -> Lock | None:
        """The lock at `path`; None when there is none. Raises UsageError, ContextError."""
        try:
            with open(path, encoding="utf-8", opener=open_untrusted) as file:
                text = file.read(_MOST_BYTES + 1)
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as error:
            raise ContextError(f"{path} cannot be read: {getattr(error, 'strerror', 'no UTF-8')}") from None
        if len(text) > _MOST_BYTES:
            raise ContextError(f"{path} is larger than {_MOST_BYTES} bytes")
        return cls.parse(text, os.path.basename(path))

    def text(self) -> str:
        """The file's content."""
        lines = [_HEAD, f"version = {VERSION}\n"]
        for table, rows in zip(_TABLES, (self.images, self.urls, self.git), strict=True):
            lines.append(f"\n[{table}]\n")
            lines += [f"{json.dumps(key)} = {json.dumps(rows[key])}\n" for key in sorted(rows)]
        return "".join(lines)


def image_key(reference: Reference) -> str:
    """An image's name as a lock has it: in full, with its tag."""
    return str(reference.with_default_tag())


def url_key(url: str) -> str:
    """A URL as a lock has it: without user and password. What else may not be shown (a query may hold a
    token) is a hash of the URL."""
    shown = shown_url(url)
    plain = re.sub(r"(?<=://)[^/\s@]*@", "", url)
    if shown == plain:
        return shown
    return f"{shown}?sha256={hashlib.sha256(plain.encode('utf-8', 'surrogateescape')).hexdigest()[:16]}"


def git_key(git: GitUrl) -> str:
    """A repository and ref as a lock has them; the directory in it does not matter."""
    return f"{git.remote}#{git.ref}" if git.ref else git.remote


def _broken(name: str, text: str) -> UsageError:
    return UsageError(f"{name} cannot be understood: {text}", hint="pybuild lock --update writes it anew")
