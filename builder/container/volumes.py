"""Volumes: directories that outlive containers, and whatever else containers have mounted.

    volumes/NAME/data        what containers see
    volumes/NAME/meta.json   when it was made, its labels, whether it has no name of its own (`anonymous`)
    volumes/NAME/filling     while it is filled from an image; if it stays, that is done again
    volumes/.lock            held by who makes, fills or removes one

A volume is whole or not there: it is made under another name, and renamed away before it is removed.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from builder.container.volume_options import (
    Volume,
    arranged,
    checked_name,
    parse,
    parse_mounts,
    parse_tmpfs,
)
from builder.errors import NotFound, UsageError
from builder.sandbox.spec import Bind, Tmpfs
from oci.data import dataclass

if TYPE_CHECKING:
    from builder.sandbox.spec import Mount
    from builder.snapshot.view import View
    from oci.tar import Entry

__all__ = ["Meta", "Volume", "Volumes", "arranged", "mounts", "parse", "parse_mounts", "parse_tmpfs"]

_FILE = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
_FILLING = "filling"

Users = Callable[[str], Sequence[str]]
"""The ids of the containers that use the volume of a name."""


@dataclass(frozen=True, slots=True)
class Meta:
    """What is known of a volume. `created` is RFC 3339, `path` the host directory with its files."""

    name: str
    path: str
    created: str
    labels: Mapping[str, str] = field(default_factory=dict)
    anonymous: bool = False


def nobody(name: str) -> Sequence[str]:
    """No container uses any volume."""
    return ()


class Volumes:
    """The volumes of the store with the root directory `root`. Nothing is made before there is one."""

    def __init__(self, root: str) -> None:
        self.folder = os.path.join(root, "volumes")

    def create(
        self, name: str = "", labels: Mapping[str, str] | None = None, *, anonymous: bool | None = None
    ) -> Meta:
        """The volume of this name, made if there is none; without a name a new one, whose name is 64 digits,
        and which is anonymous unless it is said that it is not. Raises UsageError for what is no name.
        """
        anonymous = not name if anonymous is None else anonymous
        name = checked_name(name, "volume") if name else os.urandom(32).hex()
        with self._alone():
            with suppress(NotFound):
                return self.inspect(name)
            place = os.path.join(self.folder, f".new-{os.urandom(8).hex()}")
            try:
                os.makedirs(os.path.join(place, "data"), 0o700)
                os.chmod(os.path.join(place, "data"), 0o755)
                _write(os.path.join(place, "meta.json"), dict(labels or {}), anonymous)
                os.rename(place, os.path.join(self.folder, name))
            except BaseException:
                shutil.rmtree(place, ignore_errors=True)
                raise
        return self.inspect(name)

    def existing(self, name: str) -> bool:
        """Whether there is a volume of this name."""
        return os.path.isdir(self._data(name)) if _plain(name) else False

    def names(self) -> list[str]:
        """All volumes, sorted."""
        try:
            found = os.listdir(self.folder)
        except FileNotFoundError:
            return []
        return sorted(name for name in found if _plain(name) and self.existing(name))

    def inspect(self, name: str) -> Meta:
        """What is known of a volume. Raises NotFound."""
        if not self.existing(name):
            raise NotFound(f"no volume {name!r}", hint="pybuild volume ls lists the volumes")
        known = _read(os.path.join(self.folder, name, "meta.json"))
        labels = known.get("labels")
        return Meta(
            name,
            self._data(name),
            str(known.get("created", "")),
            {str(key): str(value) for key, value in labels.items()} if isinstance(labels, dict) else {},
            known.get("anonymous") is True,
        )

    def is_anonymous(self, name: str) -> bool:
        """Whether the volume was made for a container, without a name; False if it is not there."""
        try:
            return self.inspect(name).anonymous
        except NotFound:
            return False

    def remove(self, name: str, users: Users = nobody) -> None:
        """Remove a volume. Raises NotFound, and UsageError while containers use it."""
        with self._alone():
            self.inspect(name)
            if used := users(name):
                shown = ", ".join(each[:12] for each in used)
                raise UsageError(f"the volume {name} is in use by {shown}", hint="remove the container first")
            gone = os.path.join(self.folder, f".gone-{os.urandom(8).hex()}")
            os.rename(os.path.join(self.folder, name), gone)
        shutil.rmtree(gone)

    def prune(
        self, users: Users, *, everything: bool = False, wanted: Callable[[Meta], bool] = lambda _: True
    ) -> tuple[list[str], int]:
        """Remove what no container uses: the anonymous ones, with `everything` all; those that are `wanted`.

        Their names, and how many bytes that freed. What killed processes left behind goes too.
        """
        removed, freed = [], 0
        for name in self.names():
            with suppress(NotFound, UsageError):
                meta = self.inspect(name)
                if (meta.anonymous or everything) and wanted(meta):
                    size = usage(meta.path)
                    self.remove(name, users)
                    removed.append(name)
                    freed += size
        self._sweep()
        return removed, freed

    def prepared(self, volumes: Sequence[Volume], view: View) -> tuple[Volume, ...]:
        """`volumes` with every volume there: those without a name have a new one, and what is empty has what
        the image shows there. To be called once, when a container is made, before it first starts; what it
        gives is to be remembered with the container before anybody may remove volumes.
        """
        made = []
        for each in volumes:
            if each.kind == "volume":
                meta = self.create(each.source, anonymous=not each.source)
                if each.copy:
                    self._fill(meta, view, each.target)
                each = replace(each, source=meta.name)
            made.append(each)
        return tuple(made)

    # ---- inside ----

    def _data(self, name: str) -> str:
        return os.path.join(self.folder, name, "data")

    @contextmanager
    def _alone(self) -> Iterator[None]:
        os.makedirs(self.folder, 0o700, exist_ok=True)
        fd = os.open(os.path.join(self.folder, ".lock"), _FILE, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def _fill(self, meta: Meta, view: View, target: str) -> None:
        """Fill a volume that is empty, or whose filler was killed; in place, as it may be mounted."""
        from builder.container.volume_fill import fill

        marker = os.path.join(self.folder, meta.name, _FILLING)
        with self._alone():
            if _has_files(meta.path) and not os.path.lexists(marker):
                return
            os.close(os.open(marker, _FILE, 0o600))
            fill(meta.path, view, target, _unmapped(meta.path))
            os.unlink(marker)

    def _sweep(self) -> None:
        """Delete what was being made or removed by processes that are gone."""
        if not os.path.isdir(self.folder):
            return
        with self._alone():
            for entry in list(os.scandir(self.folder)):
                if entry.name.startswith((".new-", ".gone-")):
                    shutil.rmtree(entry.path, ignore_errors=True)


def mounts(volumes: Sequence[Volume], store: Volumes) -> tuple[Mount, ...]:
    """What the sandbox is to mount for volumes that are `prepared`, in the order of `arranged`.

    Raises UsageError for a bind whose source is not there (or makes it, a directory, if it was said so),
    NotFound for a volume that was removed.
    """
    return tuple(_mount(each, store) for each in volumes)


def _mount(volume: Volume, store: Volumes) -> Mount:
    if volume.kind == "tmpfs":
        flags = () if volume.executable else ("noexec",)
        return Tmpfs(volume.target, volume.size, volume.mode, volume.read_only, flags)
    if volume.kind == "volume":
        return Bind(store.inspect(volume.source).path, volume.target, volume.read_only)
    if volume.create:
        with suppress(FileExistsError):
            os.makedirs(volume.source)
    if not os.path.exists(volume.source):
        raise UsageError(
            f"bind source path does not exist: {volume.source}",
            hint=f"make it, or let -v {volume.source}:{volume.target} make a directory",
        )
    return Bind(volume.source, volume.target, volume.read_only, directory=os.path.isdir(volume.source))


def usage(path: str) -> int:
    """The bytes that a directory's files take on the disk."""
    total = 0
    for folder, names, files in os.walk(path):
        for name in (*names, *files):
            with suppress(OSError):
                total += os.lstat(os.path.join(folder, name)).st_blocks * 512
    return total


def _plain(name: str) -> bool:
    """Whether `name` could be a volume's: nothing else is ever joined to a path."""
    from builder.container.volume_options import NAME

    return NAME.fullmatch(name) is not None


def _has_files(path: str) -> bool:
    with os.scandir(path) as entries:
        return any(True for _ in entries)


def _write(path: str, labels: Mapping[str, str], anonymous: bool) -> None:
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    with open(path, "w", encoding="utf-8") as file:
        json.dump({"created": now, "labels": labels, "anonymous": anonymous}, file)


def _read(path: str) -> dict[str, object]:
    """A volume's document; of a damaged one nothing is known, and its files are still there."""
    try:
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _unmapped(directory: str) -> Callable[[bytes, Entry], None] | None:
    """What is done about an owner that has no id here: where owners are noted, it is, if that can be."""
    from builder.isolation import current
    from builder.sandbox.owners import Owner, note
    from oci.tar import Kind

    isolation = current()
    if isolation.maps is None:
        return None

    def noted(path: bytes, entry: Entry) -> None:
        if isolation.notes_owners and entry.kind in (Kind.FILE, Kind.DIRECTORY):
            note(os.path.join(os.fsencode(directory), path), Owner(entry.uid, entry.gid))

    return noted
