"""Listing a large context while the program is still starting, in a process of its own.

A build in which nothing changed does little but load modules and list its context, and neither needs the
other. So as soon as the command line is understood, and only when the Dockerfile copies the whole context, a
child is forked that lists it and leaves the packed listings in memory they share:

    with begin(context, dockerfile, ignorefile) as ahead:     None where there is nothing to gain
        build(request, emit, ahead)                           helps it, then waits, when a COPY wants to know

When the build comes to its COPY before the child is done, both list: the child lists some directories
breadth first and offers what lies below them, and each takes from that what the other has not.

Whatever goes wrong in the child, the listing is made again by the build, which then has the error
(`oci.beside`).
"""

from __future__ import annotations

import marshal
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from builder.contexts.claims import MOST, Claims
from builder.contexts.listing import Lister, Listing, Packed
from builder.contexts.local import read_dockerfile, read_ignore
from builder.errors import BuildError
from builder.patterns import IgnoreFile
from oci import beside
from oci.beside import Beside

_COPY = re.compile(r"^[ \t]*(?:COPY|ADD)[ \t]+(.*)$", re.IGNORECASE | re.MULTILINE)
_WHOLE = frozenset((".", "./", "/"))
_SHARES = 64
"""From so many directories on the two share them: enough for both to end at about the same time."""


class Ahead:
    """A child that lists `root` without what `ignore` leaves out."""

    def __init__(self, root: str, ignore: IgnoreFile | None) -> None:
        self.root = os.path.abspath(root)
        self.ignore = ignore
        self._fd = os.memfd_create("pybuild-context")
        self._claims = Claims()
        self._child = Beside(self._list)
        self._claims.only_take()

    @property
    def finished(self) -> bool:
        """Whether `take` would not wait."""
        return self._child.finished

    def fits(self, root: str, ignore: IgnoreFile | None) -> bool:
        """Whether this lists `root` as `ignore` wants it: both files may have changed meanwhile."""
        mine, theirs = (each.source.text if each and each.source else "" for each in (self.ignore, ignore))
        return self.root == os.path.abspath(root) and mine == theirs

    def take(self, helping: Lister) -> dict[bytes, Listing] | None:
        """What the child found, or None. Meanwhile `helping`, which has the same ignore file, lists what
        the child has not come to. Raises ContextError.
        """
        if self._child.pid <= 0:
            return None
        for path in self._claims.taken():
            helping.below_that(path)
        # Not waitpid: that would wait for the child's memory to be taken down, too.
        if not os.read(self._child.told, 1):
            return None
        found: dict[bytes, Packed] = marshal.loads(os.pread(self._fd, os.fstat(self._fd).st_size, 0))
        return {path: Listing(*packed) for path, packed in found.items()}

    def close(self) -> None:
        """End the child if it is still there."""
        if self._child.close():
            self._claims.close()
            os.close(self._fd)

    def _list(self, telling: int, go_on: Callable[[], None]) -> None:
        """The child's work."""
        fd = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        lister = _OfChild(fd, self.root, self.ignore or None)
        lister.go_on = go_on
        waiting = lister.first(_SHARES)
        self._claims.offer(waiting[:MOST])
        for path in waiting[MOST:]:
            lister.below_that(path)
        for path in self._claims.taken():
            lister.below_that(path)
        found = {path: each.packed for path, each in lister.listings.items()}
        with open(self._fd, "wb", closefd=False) as file:
            file.write(marshal.dumps(found))
        os.write(telling, b"1")


@contextmanager
def begin(context: str | None, dockerfile: str | None, ignorefile: str) -> Iterator[Ahead | None]:
    """List the directory `context` ahead if its Dockerfile will copy all of it.

    The arguments are what the user wrote, not yet looked at. Raises nothing: what is wrong with them, the
    build says.
    """
    ahead = None
    with suppress(BuildError, OSError, ValueError):
        if beside.is_possible() and context and dockerfile != "-" and os.path.isdir(context):
            name = dockerfile or ""
            if copies_all(read_dockerfile(context, name).text):
                ahead = Ahead(context, read_ignore(context, name, ignorefile))
    try:
        yield ahead
    finally:
        if ahead is not None:
            ahead.close()


def copies_all(dockerfile: str) -> bool:
    """Whether a COPY or ADD seems to take the whole context. A guess: wrong either way, it costs a little
    time.
    """
    for found in _COPY.finditer(dockerfile):
        words = found[1].replace('"', " ").replace(",", " ").strip(" []\t").split()
        sources = [word for word in words[:-1] if not word.startswith("--")]
        if _WHOLE.intersection(sources) and not any(word.startswith("--from") for word in words):
            return True
    return False


class _OfChild(Lister):
    """Stops when the build is gone."""

    go_on: Callable[[], None]

    def one(self, path: bytes, fd: int) -> Listing:
        self.go_on()
        return super().one(path, fd)
