"""The content-addressed part of an image layout: `blobs/<algorithm>/<hex>`, and blobs under construction.

A blob appears whole or not at all: it is written to `tmp/`, hashed on the way, flushed, renamed into place,
and the directory flushed. The writer holds a lock on its temporary file, so `clean` can tell what a killed
process left behind from what is still being written. Reading verifies: bad bytes end in DigestMismatch, never
in silence.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO, cast

from oci.digest import Digest
from oci.durable import (
    CHUNK,
    DIRECTORY,
    VerifiedReader,
    identity_of,
    locked,
    make_directory,
    make_file,
    make_private,
    move,
    remove_if_dead,
    remove_tree,
    sync_directory,
    write_all,
)
from oci.errors import BlobNotFound, DigestMismatch, InvalidArchive, LimitExceeded
from oci.model import Descriptor
from oci.progress import Progress, no_progress
from oci.strict_json import MAX_DOCUMENT

if TYPE_CHECKING:
    from oci.ahead import Ahead, Verdict

_NAME = {"sha256": re.compile(r"[a-f0-9]{64}"), "sha512": re.compile(r"[a-f0-9]{128}")}

PARTIAL = "partial-"
"""How names of partly pulled blobs in `tmp/` begin; the digest follows."""
_PARTIAL_LIFE_S = 7 * 86400


class BlobStore:
    """Blobs below `root`. Nothing is made before something is written: foreign layouts are read in place.

    `private` stores are for their owner only: a setuid program in a layer must not be within others' reach.
    """

    def __init__(self, root: str | os.PathLike[str], *, private: bool = True) -> None:
        self.root = os.fspath(root)
        self._file_mode, self._directory_mode = (0o600, 0o700) if private else (0o644, 0o755)
        self._private = private
        self._verified: dict[Digest, tuple[int, ...]] = {}
        self._ahead: Ahead | None = None

    def path(self, digest: Digest) -> str:
        """Where the blob is, or would be."""
        return os.path.join(self.root, "blobs", digest.algorithm, digest.hex)

    def __contains__(self, digest: Digest) -> bool:
        try:
            return stat.S_ISREG(os.lstat(self.path(digest)).st_mode)
        except OSError:
            return False

    def __iter__(self) -> Iterator[Digest]:
        """Every blob's digest, in no order; names that are no digests are none of ours."""
        for algorithm, name in _NAME.items():
            with (
                suppress(FileNotFoundError),
                os.scandir(os.path.join(self.root, "blobs", algorithm)) as entries,
            ):
                for entry in entries:
                    if name.fullmatch(entry.name):
                        yield Digest(algorithm, entry.name)

    def size(self, digest: Digest) -> int:
        """The blob's size in bytes. Raises BlobNotFound."""
        fd = self.open_fd(digest)
        try:
            return os.fstat(fd).st_size
        finally:
            os.close(fd)

    def open(self, digest: Digest) -> BinaryIO:
        """A reader that raises DigestMismatch at the end rather than hand over bad bytes quietly."""
        return cast(BinaryIO, VerifiedReader(self.open_fd(digest), digest))

    def open_fd(self, digest: Digest) -> int:
        """A descriptor on the bare file, unverified. Raises BlobNotFound; links are never followed."""
        fd = -1
        try:
            fd = os.open(os.path.join(self.root, "blobs"), DIRECTORY | os.O_NOFOLLOW)
            fd = _step(fd, digest.algorithm, DIRECTORY | os.O_NOFOLLOW)
            fd = _step(fd, digest.hex, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            raise BlobNotFound(f"{digest} is not in {self.root}") from None
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.ENOTDIR):
                raise
            raise InvalidArchive(
                f"{self.path(digest)} is or lies behind a symbolic link; copy it in"
            ) from None
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise InvalidArchive(f"{self.path(digest)} is no regular file")
        return fd

    def read(self, digest: Digest, limit: int = MAX_DOCUMENT) -> bytes:
        """A small blob whole, verified. Raises LimitExceeded beyond `limit` bytes, before reading."""
        if (size := self.size(digest)) > limit:
            raise LimitExceeded(f"{digest} has {size} bytes; at most {limit} are read here")
        with self.open(digest) as reader:
            return reader.read()

    def document(self, descriptor: Descriptor) -> bytes:
        """The bytes of a document, if they are what its descriptor promises."""
        return descriptor.check(self.read(descriptor.digest))

    def verify(self, digest: Digest, progress: Progress = no_progress) -> None:
        """Read the blob to its end. Raises DigestMismatch."""
        with self.open(digest) as reader:
            while chunk := reader.read(CHUNK):
                progress(len(chunk))
        self._remember(digest)

    def trust(self, digest: Digest, fd: int) -> None:
        """The caller has read `fd` to its end and its digest was right."""
        self._verified[digest] = identity_of(fd)

    def send(self, digest: Digest, out: int, progress: Progress = no_progress) -> int:
        """Write the blob to the descriptor `out`; its size. Raises DigestMismatch, possibly after writing.

        What this process wrote or verified, and nobody changed since, is moved by the kernel.
        """
        fd = self.open_fd(digest)
        if self.is_verified(digest, fd):
            with os.fdopen(fd, "rb", buffering=0):
                return move(fd, out, progress)
        total = 0
        with VerifiedReader(fd, digest) as reader:
            while chunk := reader.read(CHUNK):
                write_all(out, chunk)
                total += len(chunk)
                progress(len(chunk))
        self._remember(digest)
        return total

    def is_verified(self, digest: Digest, fd: int) -> bool:
        """Whether this process wrote or verified the blob open as `fd`, and nobody changed it since."""
        return self._verified.get(digest) == identity_of(fd)

    @contextmanager
    def hashing_ahead(self, blobs: Mapping[Digest, int]) -> Iterator[None]:
        """Begin to hash blobs (and their sizes) that will be sent, in this order, until the first of them is
        (`verdict`). In a process of its own, where that gains anything."""
        from oci import ahead

        self._ahead = ahead.begun(self, blobs)
        try:
            yield
        finally:
            begun, self._ahead = self._ahead, None
            if begun is not None:
                begun.close()

    def verdict(self, digest: Digest) -> Verdict | None:
        """What is known, or soon will be, of a blob that was hashed ahead."""
        return self._ahead.verdict(digest) if self._ahead else None

    def identity(self, digest: Digest) -> tuple[int, ...]:
        """What changes when somebody writes to the blob or puts another in its place. Raises BlobNotFound."""
        fd = self.open_fd(digest)
        try:
            return identity_of(fd)
        finally:
            os.close(fd)

    def is_fresh(self, digest: Digest) -> bool:
        """Whether this process wrote or verified the blob, which is untouched since. Raises BlobNotFound."""
        return self._verified.get(digest) == self.identity(digest)

    def adopt(self, path: str, fd: int, digest: Digest) -> None:
        """Make a finished file of `temporary`, open as `fd`, a blob. The digest is the caller's word."""
        os.fchmod(fd, self._file_mode)
        os.fsync(fd)
        self._place(path, digest)

    def writer(self, *, hashing: bool = True, algorithm: str = "sha256") -> BlobWriter:
        """A blob under construction; leaving its `with` block without `commit` leaves no trace.

        `hashing=False` is for callers who hash on the way; they give `commit` the digest.
        """
        return BlobWriter(self, hashlib.new(algorithm) if hashing else None)

    def write(self, content: bytes) -> Digest:
        """Store bytes at hand."""
        with self.writer() as writer:
            writer.write(content)
            return writer.commit()

    def put(self, media_type: str, content: bytes) -> Descriptor:
        """Store a document; its descriptor."""
        self.write(content)
        return Descriptor.of(media_type, content)

    def take(self, digest: Digest, source: BlobStore, progress: Progress = no_progress) -> None:
        """Copy a blob from another store, verified; nothing to do if it is here."""
        if digest in self:
            return
        with self.writer(hashing=False) as writer:
            source.send(digest, writer.fileno(), progress)
            writer.commit(digest)

    def replace(self, name: str, content: bytes) -> None:
        """Put a small file beside `blobs/`, durably and in one step, whether or not there was one."""
        with self.writer(hashing=False) as writer:
            writer.write(content)
            writer._flush()
            os.rename(writer._path, os.path.join(self.root, name))
            writer._path = ""
        sync_directory(self.root)

    def delete(self, digest: Digest) -> bool:
        """Remove a blob; whether there was one."""
        self._verified.pop(digest, None)
        try:
            os.unlink(self.path(digest))
        except FileNotFoundError:
            return False
        return True

    def quarantine(self, digest: Digest) -> str:
        """Put a damaged blob aside, so that it can be fetched or made again; where it went."""
        self._verified.pop(digest, None)
        aside = os.path.join(self.root, "quarantine")
        os.makedirs(aside, self._directory_mode, exist_ok=True)
        path = os.path.join(aside, f"{digest.algorithm}-{digest.hex}")
        os.rename(self.path(digest), path)
        return path

    def quarantine_open(self, digest: Digest, fd: int) -> None:
        """The same for a blob that was found damaged while open as `fd`, if it is still that file: another
        may have taken its place meanwhile."""
        with suppress(FileNotFoundError, BlobNotFound):
            if self.identity(digest) == identity_of(fd):
                self.quarantine(digest)

    def clean(self) -> int:
        """Remove what killed writers left in `tmp/`; how many entries. Living writers are left alone, and for
        a while what was pulled only in part, so that the next pull may go on there."""
        removed = 0
        try:
            names = os.listdir(self.temporary)
        except FileNotFoundError:
            return 0
        for name in names:
            path = os.path.join(self.temporary, name)
            if not (name.startswith(PARTIAL) and _is_recent(path)):
                removed += remove_if_dead(path)
        with suppress(OSError):  # not empty: somebody is writing
            os.rmdir(self.temporary)
        return removed

    @contextmanager
    def staging(self) -> Iterator[Staging]:
        """A store whose new blobs enter this one by `publish`, or vanish with the block."""
        path, lock = locked(self._make_temporary(), make_directory)
        try:
            yield Staging(path, self)
        finally:
            remove_tree(path)
            os.close(lock)

    def make_directories(self) -> None:
        """Make `root` and the (empty) `blobs/sha256`."""
        os.makedirs(self.root, self._directory_mode, exist_ok=True)
        for part in ("blobs", os.path.join("blobs", "sha256")):
            with suppress(FileExistsError):
                os.mkdir(os.path.join(self.root, part), self._directory_mode)

    @property
    def temporary(self) -> str:
        """The directory of blobs under construction: the same file system, so that rename works."""
        return os.path.join(self.root, "tmp")

    def _make_temporary(self) -> str:
        os.makedirs(self.root, self._directory_mode, exist_ok=True)
        make_private(self.temporary)
        return self.temporary

    def _place(self, source: str, digest: Digest) -> None:
        """Rename a finished, flushed file to its name. What is there is replaced: it may be damaged."""
        directory = os.path.join(self.root, "blobs", digest.algorithm)
        new = not os.path.isdir(directory)
        os.makedirs(os.path.dirname(directory), self._directory_mode, exist_ok=True)
        with suppress(FileExistsError):
            os.mkdir(directory, self._directory_mode)
        os.rename(source, self.path(digest))
        sync_directory(directory)
        if new:
            sync_directory(os.path.dirname(directory))
            sync_directory(self.root)
        self._remember(digest)

    def _remember(self, digest: Digest) -> None:
        with suppress(OSError, BlobNotFound):
            self._verified[digest] = self.identity(digest)


class Staging(BlobStore):
    """A store beside a store: writes stay here, reads see both."""

    def __init__(self, root: str, parent: BlobStore) -> None:
        super().__init__(root, private=parent._private)
        self.parent = parent

    def __contains__(self, digest: Digest) -> bool:
        return super().__contains__(digest) or digest in self.parent

    def open_fd(self, digest: Digest) -> int:
        try:
            return super().open_fd(digest)
        except BlobNotFound:
            return self.parent.open_fd(digest)

    def publish(self, wanted: set[Digest] | None = None) -> int:
        """Move the new blobs (of those `wanted`) to the parent; how many."""
        moved = [digest for digest in self if wanted is None or digest in wanted]
        for digest in moved:
            self.parent._place(self.path(digest), digest)
        return len(moved)


class BlobWriter:
    """A blob being written. Use in `with`; call `commit` when all is there."""

    def __init__(self, store: BlobStore, hasher: hashlib._Hash | None) -> None:
        self._store = store
        self._hasher = hasher
        self._path, self._fd = locked(store._make_temporary(), make_file)
        self.size = 0

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Append bytes; how many."""
        if self._hasher:
            self._hasher.update(data)
        write_all(self._fd, data)
        size = memoryview(data).nbytes
        self.size += size
        return size

    def fileno(self) -> int:
        """The temporary file, for callers of `hashing=False` who let the kernel write."""
        return self._fd

    def commit(self, expected: Digest | Descriptor | None = None) -> Digest:
        """Make the blob visible under its digest, which is verified against `expected` first.

        Without hashing, `expected` is the caller's word. Raises DigestMismatch; then nothing is visible.
        """
        digest = self._check(expected)
        self._flush()
        self._store._place(self._path, digest)
        self._path = ""
        self.close()
        return digest

    def _flush(self) -> None:
        os.fchmod(self._fd, self._store._file_mode)
        os.fsync(self._fd)

    def _check(self, expected: Digest | Descriptor | None) -> Digest:
        if isinstance(expected, Descriptor):
            if self.size != expected.size:
                raise DigestMismatch(
                    f"{expected.digest}: got {self.size} bytes where its descriptor promises {expected.size}"
                )
            expected = expected.digest
        if self._hasher is None:
            if expected is None:
                raise TypeError("a writer that does not hash must be told the digest")
            return expected
        actual = Digest(self._hasher.name, self._hasher.hexdigest())
        if expected is not None and actual != expected:
            raise DigestMismatch(f"expected the bytes of {expected}, got {actual} ({self.size} bytes)")
        return actual

    def close(self) -> None:
        """Give the blob up, unless it was committed."""
        if self._path:
            with suppress(FileNotFoundError):
                os.unlink(self._path)
            self._path = ""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> BlobWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _step(parent: int, name: str, flags: int) -> int:
    """Open `name` below a directory, which is closed."""
    try:
        return os.open(name, flags, dir_fd=parent)
    finally:
        os.close(parent)


def _is_recent(path: str) -> bool:
    """Whether somebody wrote to a partly pulled blob within the last week."""
    try:
        return time.time() - os.lstat(path).st_mtime < _PARTIAL_LIFE_S
    except OSError:
        return False
