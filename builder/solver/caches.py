"""The directories of cache mounts: they outlive builds, and steps and processes share them as they asked for.

    caches/KEY/fs        what steps see
    caches/KEY/lock      held as long as a step uses it: shared, or alone (`sharing=locked`)
    caches/KEY/about     what it is, for people
    caches/KEY.1 ...     more of them, for steps that want one alone at the same time (`sharing=private`)

KEY is a hash of namespace, user, id, and what a new one begins with (SECURITY.md S33, S72): no text of a
Dockerfile becomes a file's name. Contents are not synced: after a crash a cache may be anything, and steps
must live with any contents of it.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import field
from threading import Event
from typing import TYPE_CHECKING

from builder.errors import BuildCancelled
from builder.events import Emit, Warning_
from builder.graph import key_of
from builder.snapshot.noted import give
from oci.data import dataclass
from oci.durable import remove_tree

if TYPE_CHECKING:
    from builder.mounts import CacheMount, Sharing

_LOCK = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
_SHORTEST_WAIT, _LONGEST_WAIT = 0.005, 0.1
_STRICTER: tuple[Sharing, ...] = ("shared", "locked", "private")


@dataclass(frozen=True, slots=True)
class Wanted:
    """A cache that a step asks for. `seed` fills a new directory; `seed_key` stands for what it fills in."""

    mount: CacheMount
    seed: Callable[[str], None] | None = field(default=None, compare=False)
    seed_key: str = ""

    @property
    def key(self) -> str:
        """The directory's name."""
        mount = self.mount
        looks = [mount.mode, mount.uid, mount.gid]
        return key_of(["cache", os.geteuid(), mount.namespace, mount.id, self.seed_key, looks])[:40]


class Caches:
    """The caches in the host directory `root`. Threads may share it; `cancelled` ends every waiting."""

    def __init__(self, root: str, cancelled: Event, emit: Emit) -> None:
        self._root = root
        self._cancelled = cancelled
        self._emit = emit

    @contextmanager
    def taken(self, wanted: Sequence[Wanted]) -> Iterator[tuple[str, ...]]:
        """The directories for `wanted`, in its order, ours as they asked for as long as the block runs.

        One step takes each cache once, and all steps in the same order, so that none waits for another in a
        circle. Raises BuildCancelled, and what a seed raises.
        """
        ways: dict[str, tuple[Sharing, Wanted]] = {}
        for each in wanted:
            before, _ = ways.get(each.key, ("shared", each))
            ways[each.key] = max(before, each.mount.sharing, key=_STRICTER.index), each
        with ExitStack() as stack:
            found = {key: stack.enter_context(self._taken(key, *ways[key])) for key in sorted(ways)}
            yield tuple(found[each.key] for each in wanted)

    @contextmanager
    def _taken(self, key: str, sharing: Sharing, wanted: Wanted) -> Iterator[str]:
        place, fd = self._alone(key) if sharing == "private" else self._shared(key, sharing, wanted)
        try:
            yield self._filled(place, wanted)
        finally:
            os.close(fd)

    def _alone(self, key: str) -> tuple[str, int]:
        """The first directory of this key that nobody uses."""
        number = 0
        while True:
            place = self._place(f"{key}.{number}" if number else key)
            fd = _open_lock(place)
            if _try(fd, fcntl.LOCK_EX):
                return place, fd
            os.close(fd)
            number += 1

    def _shared(self, key: str, sharing: Sharing, wanted: Wanted) -> tuple[str, int]:
        place = self._place(key)
        fd = _open_lock(place)
        try:
            self._wait(fd, fcntl.LOCK_EX if sharing == "locked" else fcntl.LOCK_SH, wanted.mount)
        except BaseException:
            os.close(fd)
            raise
        return place, fd

    def _wait(self, fd: int, way: int, mount: CacheMount) -> None:
        """Wait for a lock, in steps, so that a cancelled build does not wait for another one's end."""
        if _try(fd, way):
            return
        text = f"the cache {mount.id} ({mount.target}) is locked by another step: waiting for it"
        self._emit(Warning_("CacheMountInUse", text))
        delay = _SHORTEST_WAIT
        while not self._cancelled.wait(delay):
            if _try(fd, way):
                return
            delay = min(2 * delay, _LONGEST_WAIT)
        raise BuildCancelled("the build was cancelled")

    def _place(self, name: str) -> str:
        place = os.path.join(self._root, name)
        os.makedirs(place, 0o700, exist_ok=True)
        return place

    def _filled(self, place: str, wanted: Wanted) -> str:
        """The files of the cache in `place`, made if it is new: complete, or not there."""
        files = os.path.join(place, "fs")
        if not os.path.isdir(files):
            making = os.open(os.path.join(place, "making"), _LOCK, 0o600)
            try:
                fcntl.flock(making, fcntl.LOCK_EX)
                if not os.path.isdir(files):
                    _make(place, files, wanted)
            finally:
                os.close(making)
        os.utime(os.path.join(place, "about"))
        return files


def _make(place: str, files: str, wanted: Wanted) -> None:
    mount = wanted.mount
    part = files + ".part"
    remove_tree(part)
    os.mkdir(part, 0o755)
    os.chmod(part, 0o755)
    if wanted.seed is not None:
        wanted.seed(part)
    if mount.uid is not None or mount.gid is not None:
        give(part, mount.uid or 0, mount.gid or 0)
    if mount.mode is not None:
        os.chmod(part, mount.mode)
    about = {"id": mount.id, "namespace": mount.namespace, "created": int(time.time())}
    with open(os.path.join(place, "about"), "w", encoding="utf-8", errors="surrogateescape") as file:
        json.dump(about, file)
    os.rename(part, files)


def _open_lock(place: str) -> int:
    return os.open(os.path.join(place, "lock"), _LOCK, 0o600)


def _try(fd: int, way: int) -> bool:
    try:
        fcntl.flock(fd, way | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
