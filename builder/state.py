"""The store's directory: where everything lies, which version its layout has, who may touch what now.

oci-layout, index.json, blobs/   images: an OCI image layout, written by `oci.layout` alone
snapshots/  containers/          directories of steps and containers
caches/                          directories of cache mounts (`builder.solver.caches`)
logs/<build>/<step>.log          raw output of steps
state.db                         the build cache; may be lost
locks/  leases/                  files that living processes hold locks on; a lock ends with its process
cgroups/                         what builds with limits have made, to be removed if they are killed
volumes/                         directories that outlive containers (`builder.container.volumes`)
schema                           the version of all this
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from builder.errors import CacheError, UsageError
from oci.digest import Digest

if TYPE_CHECKING:
    from builder.database import Database, Table
    from builder.events import Emit

SCHEMA = 1
"""Version of the directory's layout. Raise it, with a migration, when an older pybuild would misread ours."""

MIGRATIONS: Mapping[int, Callable[[str], None]] = {}
"""What turns a root of version n into one of n + 1. Nobody else uses the root meanwhile."""

NEVER = 1 << 63
"""Later than every file's time, in nanoseconds."""

_OURS = ("snapshots", "containers", "caches", "logs", "locks", "leases")
_KNOWN = frozenset(
    {"oci-layout", "index.json", "blobs", "tmp", "quarantine", "schema", "cgroups", "volumes", *_OURS}
)
_FILE = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
_LOGS_KEPT = 50
_PATIENCE_S = 10.0


def default_root() -> str:
    """The store when nobody named one: PYBUILD_ROOT, else the system's for root and the user's for others."""
    if named := os.environ.get("PYBUILD_ROOT"):
        return os.path.abspath(named)
    if os.geteuid() == 0:
        return "/var/lib/pybuild"
    home = os.environ.get("XDG_DATA_HOME", "")
    if not os.path.isabs(home):  # the XDG specification: a relative path is to be ignored
        home = os.path.expanduser("~/.local/share")
    return os.path.join(home, "pybuild")


class StateDir:
    """A store that exists and has our version. It is private (0700).

    Raises CacheError when a newer pybuild wrote it, UsageError when the directory belongs to something else.
    Use it in `with`, or `close` it: while it is open, no other version of pybuild changes its layout.
    """

    def __init__(self, root: str, emit: Emit | None = None) -> None:
        self.root = os.path.abspath(root)
        self._emit = emit
        self._database: Database | None = None
        self._schema_fd = _open_version(self.root)

    def __enter__(self) -> StateDir:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the database and of the version lock."""
        if self._database is not None:
            self._database.close()
        if self._schema_fd >= 0:
            os.close(self._schema_fd)
            self._schema_fd = -1

    @property
    def version_fd(self) -> int:
        """What keeps other versions from changing the layout: a forked process that goes on keeps it open."""
        return self._schema_fd

    @property
    def snapshots(self) -> str:
        """Directories of steps."""
        return os.path.join(self.root, "snapshots")

    @property
    def containers(self) -> str:
        """Directories of containers."""
        return os.path.join(self.root, "containers")

    @property
    def cgroups(self) -> str:
        """Notes of what builds with limits have made; it is there only while there are some."""
        return os.path.join(self.root, "cgroups")

    @property
    def caches(self) -> str:
        """Directories of cache mounts."""
        return os.path.join(self.root, "caches")

    @property
    def logs(self) -> str:
        """Raw output of steps, one directory per build."""
        return os.path.join(self.root, "logs")

    @property
    def database(self) -> Database:
        """The build cache's file. Nothing is opened before it is used."""
        if self._database is None:
            from builder.database import Database
            from builder.events import discard

            self._database = Database(os.path.join(self.root, "state.db"), self._emit or discard)
        return self._database

    def steps(self) -> Table[str]:
        """What steps made, by step key."""
        from builder.database import Table

        return Table(self.database, "steps")

    def content(self) -> Table[bytes]:
        """Checksums of context files, by what identifies them."""
        from builder.database import Table

        return Table(self.database, "content")

    @contextmanager
    def lock(self, name: str, *, shared: bool = False, wait: bool = True) -> Iterator[bool]:
        """Hold the lock `name` among all processes and threads; False (and not held) if taken and not `wait`.

        It ends with the block, and with the process however that dies: no stale lock can stay.
        """
        fd = os.open(os.path.join(self.root, "locks", name), _FILE, 0o600)
        try:
            yield _flock(fd, fcntl.LOCK_SH if shared else fcntl.LOCK_EX, wait=wait)
        finally:
            os.close(fd)

    @contextmanager
    def lease(self) -> Iterator[Lease]:
        """Keep blobs from being collected while the block runs: those added to the lease, and newer ones."""
        self._sweep_leases()
        path = os.path.join(self.root, "leases", os.urandom(8).hex())
        with self.lock("collect", shared=True):
            fd = os.open(path, _FILE | os.O_EXCL | os.O_APPEND, 0o600)
            fcntl.flock(fd, fcntl.LOCK_EX)
            # The file system's clock, which dates the blobs too; time.time() may run ahead of it.
            os.write(fd, b"%d\n" % os.fstat(fd).st_ctime_ns)
        try:
            yield Lease(self, fd)
        finally:
            with suppress(FileNotFoundError):
                os.unlink(path)
            os.close(fd)

    def _sweep_leases(self) -> None:
        """Take away the leases of the dead, unless somebody else is at the leases right now."""
        with self.lock("collect", wait=False) as alone:
            if alone:
                for entry in list(os.scandir(os.path.join(self.root, "leases"))):
                    _living(entry.path)

    @contextmanager
    def collecting(self) -> Iterator[Leased]:
        """The right to delete blobs, alone: no lease is taken within the block. Gives what leases protect."""
        with self.lock("collect"):
            digests: set[Digest] = set()
            since = NEVER
            for entry in list(os.scandir(os.path.join(self.root, "leases"))):
                if (lease := _living(entry.path)) is not None:
                    digests |= lease[0]
                    since = min(since, lease[1])
            yield Leased(frozenset(digests), since)

    def new_build_logs(self, name: str = "") -> str:
        """A directory for the logs of the build of this name, private; older builds' logs are pruned."""
        self.prune_logs(_LOGS_KEPT - 1)
        path = os.path.join(self.logs, name or build_name())
        os.mkdir(path, 0o700)
        return path

    def prune_logs(self, keep: int = _LOGS_KEPT) -> int:
        """Delete the logs of all but the newest `keep` builds; how many that were. Names sort by time."""
        from oci.durable import remove_tree

        old = sorted(os.listdir(self.logs), reverse=True)[keep:]
        for name in old:
            remove_tree(os.path.join(self.logs, name))
        return len(old)


def build_name() -> str:
    """A name for a build that begins now; names sort by time."""
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    return f"{stamp}-{os.urandom(3).hex()}"


class Lease:
    """Blobs that one living process needs. Made by `StateDir.lease`."""

    def __init__(self, state: StateDir, fd: int) -> None:
        self._state = state
        self._fd = fd

    def add(self, digests: Iterable[Digest]) -> None:
        """Protect blobs. Look whether they exist *after* this: one that is there then, stays."""
        lines = "".join(f"{digest}\n" for digest in digests)
        with self._state.lock("collect", shared=True):
            os.write(self._fd, lines.encode())


class Leased:
    """What may not be deleted now: `digests`, and blobs whose ctime is `since` or later (nanoseconds)."""

    __slots__ = ("digests", "since")

    def __init__(self, digests: frozenset[Digest], since: int) -> None:
        self.digests = digests
        self.since = since

    def protects(self, digest: Digest, ctime_ns: int) -> bool:
        """Whether a living process may need the blob."""
        return digest in self.digests or ctime_ns >= self.since


def _open_version(root: str) -> int:
    """Make or check the root; a descriptor that holds the version lock, shared."""
    path = os.path.join(root, "schema")
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except (FileNotFoundError, NotADirectoryError):
        _make_root(root)
        fd = os.open(path, _FILE, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH)
        if _version(fd, root) != SCHEMA:
            _bring_up(fd, root)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _make_root(root: str) -> None:
    try:
        os.makedirs(root, 0o700, exist_ok=True)
        strangers = [
            name for name in sorted(os.listdir(root)) if name not in _KNOWN and name[:8] != "state.db"
        ]
    except (NotADirectoryError, FileExistsError):
        raise UsageError(
            f"{root} is no directory", hint="name the store with --root or PYBUILD_ROOT"
        ) from None
    if strangers:
        raise UsageError(
            f"{root} holds other things ({strangers[0]}) and is no store of pybuild",
            hint="name an empty or new directory with --root or PYBUILD_ROOT",
        )
    for name in _OURS:
        with suppress(FileExistsError):
            os.mkdir(os.path.join(root, name), 0o700)


def _version(fd: int, root: str) -> int:
    """The version written down; 0 for a root that is just being made."""
    text = os.pread(fd, 64, 0).strip()
    if not text:
        return 0
    if not text.isdigit():
        raise CacheError(f"{root}/schema holds {text!r}, no version", hint="name another store with --root")
    if (version := int(text)) > SCHEMA:
        raise CacheError(
            f"{root} was written by a newer pybuild (layout {version}; this one knows {SCHEMA})",
            hint="use the newer pybuild, or name another store with --root",
        )
    return version


def _bring_up(fd: int, root: str) -> None:
    """Migrate to our version, alone: processes that use the old one are waited for, but not for ever."""
    deadline = time.monotonic() + _PATIENCE_S
    while not _flock(fd, fcntl.LOCK_EX, wait=False):
        if time.monotonic() > deadline:
            raise CacheError(
                f"{root} has an older layout, and an older pybuild is using it",
                hint="wait for its builds to end, or name another store with --root",
            )
        time.sleep(0.05)
    version = _version(fd, root)
    while 0 < version < SCHEMA:
        MIGRATIONS[version](root)
        version += 1
        _write_version(fd, version)
    _write_version(fd, SCHEMA)
    fcntl.flock(fd, fcntl.LOCK_SH)


def _write_version(fd: int, version: int) -> None:
    os.pwrite(fd, f"{version}\n".encode(), 0)
    os.fsync(fd)


def _flock(fd: int, kind: int, *, wait: bool) -> bool:
    try:
        fcntl.flock(fd, kind if wait else kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _living(path: str) -> tuple[set[Digest], int] | None:
    """A lease's digests and when it began; None, and gone, if nobody holds it."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    with open(fd, "rb") as file:
        if _flock(fd, fcntl.LOCK_EX, wait=False):
            with suppress(FileNotFoundError):
                os.unlink(path)
            return None
        first, *digests = file.read().decode().splitlines()
        return {Digest.parse(line) for line in digests}, int(first)
