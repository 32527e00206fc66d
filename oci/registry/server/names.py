"""The names of a store as repositories and tags.

A store's images have names with a host (`docker.io/library/app:latest`), a registry's clients ask for a
path and a tag. A name under one of this registry's own addresses means what it says. A name under another
host is served too, as long as no other name has the same path and tag and means another image: what was
built as `app`, or pulled from elsewhere, can be pulled from here at once.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterable
from functools import lru_cache

from oci.digest import Digest
from oci.errors import InvalidReference
from oci.layout import Layout, name_of
from oci.model import Descriptor
from oci.reference import DEFAULT_DOMAIN, MAX_NAME, Reference

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")
_HUB_PREFIX = "library/"


def is_repository(text: str) -> bool:
    """Whether the text is a repository's name (distribution-spec: Pulling manifests)."""
    return len(text) <= MAX_NAME and _REPOSITORY.fullmatch(text) is not None


def is_tag(text: str) -> bool:
    """Whether the text is a tag."""
    return _TAG.fullmatch(text) is not None


class Tags:
    """The tags of one path. `own` are said under this registry's address; `others` by host.

    `pinned` are images that have the path with a digest and no tag.
    """

    __slots__ = ("others", "own", "pinned")

    def __init__(self) -> None:
        self.own: dict[str, Descriptor] = {}
        self.others: dict[str, dict[str, Descriptor]] = {}
        self.pinned: list[Descriptor] = []

    def __bool__(self) -> bool:
        return bool(self.own or self.others or self.pinned)

    def meanings(self, tag: str) -> dict[Digest, tuple[str, Descriptor]]:
        """What a tag means under other hosts: by digest, one host and pointer each."""
        return {each.digest: (host, each) for host, each in self.others.get(tag, {}).items()}


_NONE = Tags()


class Names:
    """The names of a layout, read again when `index.json` is another file than before."""

    def __init__(self, layout: Layout, domains: tuple[str, ...]) -> None:
        self._layout = layout
        self._domains = frozenset(domains)
        self._lock = threading.Lock()
        self._edits = 0
        self._seen: tuple[int, ...] = ()
        self._paths: dict[str, Tags] = {}

    @property
    def version(self) -> tuple[int, ...]:
        """Changes whenever names do."""
        status = os.stat(os.path.join(self._layout.root, "index.json"))
        return (self._edits, status.st_ino, status.st_mtime_ns, status.st_size)

    def edited(self) -> None:
        """We changed names ourselves: two files in a row may have one number, and clocks tick slowly."""
        with self._lock:
            self._edits += 1

    def paths(self) -> set[str]:
        """Every path that has a name."""
        return set(self._fresh())

    def tags(self, path: str) -> Tags:
        """The tags of a path, none if it has none. `app` is also Docker Hub's `library/app`."""
        return self._fresh().get(path, _NONE)

    def _fresh(self) -> dict[str, Tags]:
        version = self.version
        with self._lock:
            if version != self._seen:
                self._paths = _by_path(self._layout.descriptors(), self._domains)
                self._seen = version
            return self._paths


def _by_path(descriptors: Iterable[Descriptor], domains: frozenset[str]) -> dict[str, Tags]:
    paths: dict[str, Tags] = {}
    for descriptor in descriptors:
        name = _name(name_of(descriptor))
        if name is None:
            continue
        for path in _spellings(name):
            tags = paths.setdefault(path, Tags())
            if not name.tag:
                tags.pinned.append(descriptor)
            elif name.domain in domains:
                tags.own[name.tag] = descriptor
            else:
                tags.others.setdefault(name.tag, {})[name.domain] = descriptor
    return paths


def _spellings(name: Reference) -> tuple[str, ...]:
    short = name.path.removeprefix(_HUB_PREFIX)
    return (name.path, short) if name.domain == DEFAULT_DOMAIN and short != name.path else (name.path,)


@lru_cache(1 << 16)
def _name(text: str) -> Reference | None:
    try:
        return Reference.parse(text) if text else None
    except InvalidReference:
        return None
