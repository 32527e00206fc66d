"""What people should know of what a COPY takes from a context: large ones, `.git`, and likely secrets (S55).

It is looked at when a COPY is executed, not when it is cached, and each thing is said once per build.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable

from builder.contexts.content import Selected
from builder.events import Emit, Warning_
from oci.tar.entry import Kind

LARGE = 100_000_000
"""From how many bytes on a context is called large."""

_SECRET_NAMES = frozenset(
    (
        *(b".env", b"id_rsa", b"id_dsa", b"id_ecdsa", b"id_ed25519", b".npmrc", b".pypirc", b".netrc"),
        *(b".git-credentials", b".htpasswd", b".pgpass", b".dockercfg"),
    )
)
_SECRET_DIRECTORIES = frozenset((b".aws", b".ssh", b".gnupg", b".kube"))
_SECRET_ENDINGS = (b".pem", b".p12", b".pfx")
_SHOWN = 3


class Notices:
    """What was said in one build. Threads share it."""

    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self._size = 0
        self._said: set[str] = set()
        self._lock = threading.Lock()

    def look(self, selection: Iterable[Selected], at: str = "", excerpt: str = "") -> None:
        """Look at what a COPY takes. Only files that a directory brought along are told of: whoever names a
        file means it.
        """
        for each in selection:
            if not each.fixed:
                continue
            self._count(sum(node.size for _, node in each.items), at, excerpt)
            if len(each.items) > 1:
                self._names(each, at, excerpt)

    def _count(self, size: int, at: str, excerpt: str) -> None:
        with self._lock:
            self._size += size
            large = self._size > LARGE
        if large:
            text = f"more than {LARGE // 1_000_000} MB are copied from the context"
            self._say("LargeContext", f"{text}; `pybuild context ls --size` shows what is large", at, excerpt)

    def _names(self, selected: Selected, at: str, excerpt: str) -> None:
        found: list[bytes] = []
        for path, node in selected.items[1:]:
            name = path[path.rfind(b"/") + 1 :]
            if name in _SECRET_NAMES or name.endswith(_SECRET_ENDINGS):
                found.append(path)
            elif node[0] is Kind.DIRECTORY and name in _SECRET_DIRECTORIES:
                found.append(path + b"/")
            elif name == b".git":
                text = f"{os.fsdecode(path)} is copied into the image, with all its history"
                self._say("CopiesGit", f"{text}; name it in .dockerignore", at, excerpt)
        if found:
            names = ", ".join(os.fsdecode(each) for each in found[:_SHOWN])
            more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
            text = f"{names}{more} may be secret and are copied into the image"
            self._say("CopiesSecret", f"{text}; name them in .dockerignore", at, excerpt)

    def _say(self, code: str, text: str, at: str, excerpt: str) -> None:
        with self._lock:
            if code in self._said:
                return
            self._said.add(code)
        self._emit(Warning_(code, text, at, excerpt))
