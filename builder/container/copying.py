"""`cp`: files into a container and out of it, by docker's rules for what becomes of which path.

    source    destination                   becomes
    file      nothing there                 that file; with a slash behind its name an error
    file      a file                        that file, replaced
    any       a directory                   NAME in it, but `DIR/.` its contents in it
    directory nothing there                 that directory
    directory a file                        an error

The directory above must exist. Links on the way are followed, those of a container inside its root; a link at
the end of the source is copied as a link. Both sides are resolved and worked on by descriptors alone.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple, cast

from builder.container.files import Files, is_kernels
from builder.errors import NotFound, UsageError
from oci.apply import apply
from oci.rooted import Root
from oci.tar import Entry, Kind, TarReader, TarWriter

if TYPE_CHECKING:
    from builder.container.shown import Alive
    from oci.apply import ApplyStats

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW
_DEVICES = (Kind.CHAR, Kind.BLOCK)


class Source(NamedTuple):
    """What is to be copied: `name` in the directory `parent`, a descriptor that is its own. `base` is what it
    is called where a name is wanted, b"" when only its contents are.
    """

    parent: int
    name: bytes
    base: bytes
    directory: bool


class Target(NamedTuple):
    """Where it goes: to `name` in `directory` (from the root, without links); b"" is the directory itself."""

    directory: bytes
    name: bytes


class Side(NamedTuple):
    """The container or the host: its root, a path as it was typed, and both as people are told of them."""

    root: int
    path: bytes
    shown: str
    container: bool


class Copied(NamedTuple):
    """What was done: bytes of content, and what had to be left out, in words."""

    size: int
    notes: tuple[str, ...] = ()


def copy(source: Side, target: Side, alive: Alive, *, follow: bool = False, archive: bool = False) -> Copied:
    """Copy from one side to the other. `follow` copies what a link at the end of the source leads to;
    `archive` keeps owners by number, which else are root in a container, and the caller outside.

    Raises NotFound, UsageError for paths that cannot be, OSError for the disk, InvalidArchive where a file
    stands in a directory's place or the reverse.
    """
    with _found(source, follow=follow) as found:
        where = _place(target, directory=found.directory, base=found.base)
        with closing(Files(found.parent, found.name, where.name, looked=alive)) as files:
            devices: list[str] = []
            done = _applied(
                cast("TarReader", files),
                target,
                where.directory,
                archive=archive,
                edit=lambda entry: entry if target.container else _for_the_host(entry, archive, devices),
            )
            return Copied(files.size, (*devices, *done.notes))


def send(source: Side, sink: Callable[[bytes], None], alive: Alive, *, follow: bool = False) -> Copied:
    """Write what `copy` would copy as a tar archive to `sink`, owners by number."""
    with (
        _found(source, follow=follow) as found,
        closing(Files(found.parent, found.name, found.base, looked=alive)) as files,
    ):
        tar = TarWriter(sink)
        write(files, tar)
        return Copied(files.size)


def receive(stream: TarReader, target: Side, alive: Alive, *, archive: bool = False) -> Copied:
    """Unpack a tar archive into a directory of a container."""
    where = _place(target, directory=True, base=b"", exists=True)
    done = _applied(
        stream, target, where.directory, archive=archive, edit=lambda entry: _checked(entry, alive)
    )
    return Copied(done.size, done.notes)


def write(files: Files, tar: TarWriter, *, top: bool = True) -> None:
    """Append files to an archive, and end it; without `top` there is no entry for their root."""
    for entry in files:
        if not (entry.name or top):
            continue
        if entry.kind is Kind.FILE:
            tar.add_stream(entry, files.read)
        else:
            tar.add(entry)
    tar.finish()


# ---- paths ----


@contextmanager
def _found(side: Side, *, follow: bool) -> Iterator[Source]:
    path = side.path
    named = path.rstrip(b"/").rpartition(b"/")[2]
    slash = path.endswith(b"/") or named in (b"", b".", b"..")
    with _told(side), Root(side.root).place(path, follow_last=follow or slash) as place:
        info = os.stat(place.name, dir_fd=place.fd, follow_symlinks=False)
        _refuse_the_kernels(side, place.fd)
        directory = stat.S_ISDIR(info.st_mode)
        if slash and not directory:
            raise UsageError(f"{side.shown} is not a directory", hint="leave the slash at its end out")
        if named == b"..":
            named = place.path.rpartition(b"/")[2]
        parent = os.dup(place.fd)
    try:
        yield Source(parent, place.name, b"" if named == b"." else named, directory)
    finally:
        os.close(parent)


def _place(side: Side, *, directory: bool, base: bytes, exists: bool = False) -> Target:
    """Where a file or `directory` goes that is called `base`."""
    slash = side.path.endswith((b"/", b"/.")) or side.path in (b"", b".")
    with _told(side), Root(side.root).place(side.path) as place:
        path = place.path
        _refuse_the_kernels(side, place.fd)
        try:
            there = os.stat(place.name, dir_fd=place.fd, follow_symlinks=False)
        except FileNotFoundError:
            if exists:
                raise
            if slash and not directory:
                raise UsageError(
                    f"{side.shown} does not exist",
                    hint="a directory must be there before a file goes into it",
                ) from None
            there = None
    if there is not None and stat.S_ISDIR(there.st_mode):
        return Target(path, base)
    if there is not None and directory:
        text = "an archive goes into a directory" if exists else "a directory cannot be copied to a file"
        raise UsageError(f"{side.shown} is not a directory: {text}")
    if there is not None and slash:
        raise UsageError(f"{side.shown} is not a directory", hint="leave the slash at its end out")
    above, _, name = path.rpartition(b"/")
    return Target(above, name)


@contextmanager
def _told(side: Side) -> Iterator[None]:
    """What a path cannot be, told by the name that was typed."""
    try:
        yield
    except FileNotFoundError:
        where = "the container has no such path" if side.container else "no such file or directory"
        raise NotFound(f"{side.shown}: {where}") from None
    except NotADirectoryError:
        raise UsageError(f"{side.shown}: something on the way is no directory") from None
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise UsageError(
            f"{side.shown}: too many links on the way, or one that turned up meanwhile"
        ) from None


def _refuse_the_kernels(side: Side, fd: int) -> None:
    if side.container and is_kernels(fd):
        raise UsageError(
            f"{side.shown} is the kernel's, not a file of the container",
            hint="/proc, /sys and the like are for the programs inside: pybuild exec reads and writes them",
        )


# ---- writing ----


def _applied(
    reader: TarReader,
    side: Side,
    directory: bytes,
    *,
    archive: bool,
    edit: Callable[[Entry], Entry | None],
) -> ApplyStats:
    """Unpack into a directory, which itself stays as it is. In a container links that an archive goes through
    are resolved in its root; outside the directory is entered first, as above it there may be some that may
    be searched only.
    """
    kept = None if archive else _of_root if side.container else _of_the_caller
    with _refusals(side):
        fd = os.dup(side.root) if side.container else Root(side.root).open(directory, _DIRECTORY)
        try:
            return apply(
                reader,
                fd,
                style="plain",
                whiteouts=None,
                swaps=False,
                prefix=directory if side.container else b"",
                filter=lambda entry: edit(entry) if entry.name else None,
                owner=kept,
                unmapped=_unmapped(side),
            )
        finally:
            os.close(fd)


@contextmanager
def _refusals(side: Side) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno != errno.EROFS:
            raise
        what = (
            "the container's root, or a volume in it, is read-only there" if side.container else "read-only"
        )
        raise UsageError(f"nothing can be written to {side.shown}: {what}") from None


def _of_root(uid: int, gid: int) -> tuple[int, int]:
    return 0, 0


def _of_the_caller(uid: int, gid: int) -> tuple[int, int]:
    return os.geteuid(), os.getegid()


def _for_the_host(entry: Entry, archive: bool, devices: list[str]) -> Entry | None:
    """What a container's program wrote gets no privilege by becoming the caller's: as root that would be one
    for everybody here.
    """
    if entry.kind in _DEVICES:
        if len(devices) < 100:
            devices.append(f"{entry} is a device: left out")
        return None
    if archive:
        return entry
    xattrs = tuple(each for each in entry.xattrs if not each[0].startswith(b"security."))
    return (
        replace(entry, mode=entry.mode & ~0o6000, xattrs=xattrs)
        if entry.kind is not Kind.DIRECTORY
        else entry
    )


def _checked(entry: Entry, alive: Alive) -> Entry:
    alive()
    return entry


def _unmapped(side: Side) -> Callable[[bytes, Entry], None]:
    """What is done about an owner without an id here: where owners are noted, it is."""
    from builder.isolation import current, unmapped
    from builder.sandbox.owners import Owner, note

    def told(path: bytes, entry: Entry) -> None:
        isolation = current()
        if side.container and isolation.notes_owners:
            if entry.kind in (Kind.FILE, Kind.DIRECTORY):
                fd = Root(side.root).open(path, os.O_RDONLY | os.O_NONBLOCK, follow_last=False)
                try:
                    note(fd, Owner(entry.uid, entry.gid))
                finally:
                    os.close(fd)
            return
        text, hint = unmapped(isolation, f"{entry.uid}:{entry.gid}, the owner of {entry},")
        raise UsageError(text, hint=hint)

    return told
