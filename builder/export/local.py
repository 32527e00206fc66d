"""`type=tar` and `type=local`: the files of the image, as one tar or as a directory."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from builder.entitlements import DELETE
from builder.errors import UsageError
from builder.export import split
from builder.export.archive import replacing
from builder.export.base import Export, One, OutputSpec, dest_of, refuse_missing_directory, refuse_unknown
from builder.snapshot.copy import copy_content
from builder.snapshot.times import settle
from oci.data import dataclass
from oci.durable import write_all
from oci.tar import Entry, Kind, TarWriter

if TYPE_CHECKING:
    from builder.snapshot.view import View
    from builder.tree import Node, Opener
    from oci.blobs import BlobStore

_STDOUT = 1


@dataclass(frozen=True, slots=True)
class TarExporter:
    """`type=tar`: the merged root as one tar, sorted; of several platforms each in its folder."""

    dest: str
    split: bool | None = None

    @classmethod
    def of(cls, spec: OutputSpec) -> TarExporter:
        """Read the options of `spec`. Raises UsageError."""
        refuse_unknown(spec, frozenset({split.OPTION}))
        refuse_missing_directory(spec)
        return cls(dest_of(spec), split.asked(spec))

    def export(self, what: Export, blobs: BlobStore) -> str:
        """Write it. Raises OSError and ExportError; a file of that name is then as it was."""
        return self.export_all([what], blobs)

    def export_all(self, whats: Sequence[Export], blobs: BlobStore) -> str:
        """Write several images, each in its folder."""
        found = split.placed(whats, self.split)
        if self.dest == "-":
            _write(found, _STDOUT, whats[0].clock)
        else:
            with replacing(self.dest) as fd:
                _write(found, fd, whats[0].clock)
        return f"exporting to tar {self.dest}"


def _write(found: list[tuple[One, str]], fd: int, clock: int | None) -> None:
    """Trees as one tar, each below its folder; those without one share their directories."""
    tar = TarWriter(lambda block: write_all(fd, block))
    written: set[bytes] = set()
    for one, name in found:
        parts = name.encode().split(b"/") if name else []
        for above in (b"/".join(parts[:depth]) for depth in range(1, len(parts) + 1)):
            if above not in written:
                tar.add(Entry(above, Kind.DIRECTORY, 0o755, mtime=clock or 0))
                written.add(above)
        with one.view() as view:
            _add_tree(tar, view, clock, name.encode(), written)
    tar.finish()


def _add_tree(tar: TarWriter, view: View, clock: int | None, folder: bytes, written: set[bytes]) -> None:
    """The files of `view` below `folder`; directories that were `written` before are left out."""
    seen: dict[tuple[int, int], bytes] = {}
    with view.opener() as open_file:
        for path, node in view.walk():
            name = folder + b"/" + path if folder and path else path
            if not path or (node.kind is Kind.DIRECTORY and name in written):
                continue
            written.add(name)
            entry = entry_of(name, node, view.xattrs(path))
            entry = replace(entry, mtime=settle(entry.mtime, clock))
            _add(tar, partial(open_file, path), entry, node, seen)


def _add(
    tar: TarWriter, opened: Callable[[], int], entry: Entry, node: Node, seen: dict[tuple[int, int], bytes]
) -> None:
    if node.kind is not Kind.FILE:
        tar.add(entry)
        return
    linked = node.nlink > 1 and node.ino
    first = seen.setdefault((node.dev, node.ino), entry.name) if linked else entry.name
    if first != entry.name:
        tar.add(replace(entry, kind=Kind.HARDLINK, link=first, size=0, xattrs=()))
        return
    fd = opened()
    try:
        tar.add_stream(entry, lambda size: os.read(fd, size))
    finally:
        os.close(fd)


def entry_of(path: bytes, node: Node, xattrs: tuple[tuple[bytes, bytes], ...] = ()) -> Entry:
    """A tree's node as a tar entry."""
    return Entry(
        path,
        node.kind,
        node.mode,
        node.uid,
        node.gid,
        node.size if node.kind is Kind.FILE else 0,
        node.mtime_ns // 1_000_000_000,
        node.link,
        os.major(node.rdev),
        os.minor(node.rdev),
        xattrs,
    )


@dataclass(frozen=True, slots=True)
class LocalExporter:
    """`type=local`: the merged root in a directory. Files belong to the caller; devices are left out.

    What is in the directory already stays, unless the image has a file of that name (`mode=copy`), or goes
    when all is written and the image has no such file (`delete`). Of several platforms each goes to its
    folder.
    """

    dest: str
    split: bool | None = None
    delete: bool = False

    @classmethod
    def of(cls, spec: OutputSpec) -> LocalExporter:
        """Read the options of `spec`. Raises UsageError."""
        refuse_unknown(spec, frozenset({split.OPTION, "mode"}))
        mode = spec.options.get("mode", "copy")
        if mode not in ("copy", "delete"):
            raise UsageError(f"--output type=local: mode={mode} is neither copy nor delete")
        if not spec.dest or spec.dest == "-":
            raise UsageError("--output type=local needs a dest that is a directory")
        if os.path.exists(spec.dest) and not os.path.isdir(spec.dest):
            raise UsageError(f"--output type=local: {spec.dest} is no directory")
        return cls(spec.dest, split.asked(spec), mode == "delete")

    def export(self, what: Export, blobs: BlobStore) -> str:
        """Write it. Raises OSError, and ExportError before anything is written."""
        return self.export_all([what], blobs)

    def export_all(self, whats: Sequence[Export], blobs: BlobStore) -> str:
        """Write several images, each in its folder."""
        written: set[bytes] = set()
        for one, name in split.placed(whats, self.split):
            dest = os.path.join(self.dest, name)
            os.makedirs(dest, exist_ok=True)
            with one.view() as view:
                found = write_files(view, dest, whats[0].clock)
            folder = os.fsencode(name)
            written |= {os.path.join(folder, each) for each in found} if name else found
            written |= set(_ways(folder))
        if self.delete:
            remove_others(self.dest, written)
        return f"exporting to directory {self.dest}"


def _ways(folder: bytes) -> Iterator[bytes]:
    """A folder and those it lies in."""
    while folder:
        yield folder
        folder = os.path.dirname(folder)


def refuse_deletion(exporters: Sequence[object], allow: frozenset[str], held: Iterable[str]) -> None:
    """Raise UsageError if `mode=delete` could hit what nobody meant: with a dest that holds the working
    directory, a path of `held`, or another output, ever; outside of the working directory, unless allowed.
    """
    here = os.path.realpath(".")
    kept = [here, *(os.path.realpath(each) for each in held if each)]
    for each in exporters:
        if not isinstance(each, LocalExporter) or not each.delete:
            continue
        dest = os.path.realpath(each.dest)
        others = [getattr(other, "dest", "") for other in exporters if other is not each]
        for path in (*kept, *(os.path.realpath(other) for other in others if other not in ("", "-"))):
            if _is_below(path, dest):
                what = f"--output type=local,dest={each.dest},mode=delete"
                raise UsageError(
                    f"{what} would delete what is in {dest}, and {path} is there",
                    hint="name a directory that is for the output alone",
                )
        if not _is_below(dest, here) and DELETE not in allow:
            raise UsageError(
                f"--output type=local,mode=delete: {dest} is outside of the working directory",
                hint=f"allow it with --allow {DELETE}",
            )


def _is_below(path: str, directory: str) -> bool:
    """Whether a real path is `directory` or in it."""
    return os.path.commonpath([path, directory]) == directory


def remove_others(dest: str, kept: Container[bytes]) -> None:
    """Take away what is in the directory `dest`, and below, and not `kept`; no symlink is followed."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

    def below(path: bytes, directory: int) -> None:
        for name in map(os.fsencode, os.listdir(directory)):
            child = path + b"/" + name if path else name
            if child not in kept:
                _clear(name, directory)
            elif stat.S_ISDIR(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
                inner = os.open(name, flags, dir_fd=directory)
                try:
                    below(child, inner)
                finally:
                    os.close(inner)

    root = os.open(os.path.realpath(dest), flags)
    try:
        below(b"", root)
    finally:
        os.close(root)


def write_files(view: View, dest: str, clock: int | None = None) -> set[bytes]:
    """Copy the files of `view` into the directory `dest`, never through a symlink that lies in it; their
    paths there."""
    root = os.open(dest, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with view.opener() as open_file:
            files = _Files(view, open_file, clock)
            files.below(b"", root)
            return files.written
    finally:
        os.close(root)


class _Files:
    """The writing of one tree, directory by directory, each by its descriptor."""

    def __init__(self, view: View, open_file: Opener, clock: int | None) -> None:
        self._view = view
        self._open = open_file
        self._clock = clock
        self.written: set[bytes] = set()

    def below(self, path: bytes, directory: int) -> None:
        """All that is in `path`, into `directory`."""
        for name in self._view.listdir(path):
            child = path + b"/" + name if path else name
            node = self._view.lstat(child)
            if node is None or node.kind not in (Kind.DIRECTORY, Kind.SYMLINK, Kind.FILE):
                continue
            self.written.add(child)
            if node.kind is Kind.DIRECTORY:
                self._directory(child, name, node, directory)
            elif node.kind is Kind.SYMLINK:
                _clear(name, directory)
                os.symlink(node.link, name, dir_fd=directory)
            else:
                _clear(name, directory)
                self._file(child, name, node, directory)

    def _directory(self, path: bytes, name: bytes, node: Node, directory: int) -> None:
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            fd = os.open(name, flags, dir_fd=directory)
        except OSError:
            _clear(name, directory)
            os.mkdir(name, 0o700, dir_fd=directory)
            fd = os.open(name, flags, dir_fd=directory)
        try:
            self.below(path, fd)
            self._finish(fd, node)
        finally:
            os.close(fd)

    def _file(self, path: bytes, name: bytes, node: Node, directory: int) -> None:
        source = self._open(path)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            fd = os.open(name, flags, 0o600, dir_fd=directory)
            try:
                copy_content(source, fd)
                self._finish(fd, node)
            finally:
                os.close(fd)
        finally:
            os.close(source)

    def _finish(self, fd: int, node: Node) -> None:
        os.fchmod(fd, node.mode & 0o777)
        mtime = node.mtime_ns
        if self._clock is not None:
            mtime = settle(mtime // 1_000_000_000, self._clock) * 1_000_000_000
        os.utime(fd, ns=(mtime, mtime))


def _clear(name: bytes, directory: int) -> None:
    """Make room for `name`: what is there goes, a directory with all in it."""
    try:
        os.unlink(name, dir_fd=directory)
    except FileNotFoundError:
        return
    except (IsADirectoryError, PermissionError):
        shutil.rmtree(name, dir_fd=directory)
