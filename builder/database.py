"""The store's one sqlite database: tables of a cache. Lost or damaged, it is made again, empty.

Connections are one per thread, made when first used and closed when the thread ends. Values are committed
when `put` returns, but not flushed to the disk (WAL, synchronous=NORMAL): a power cut may forget the last
ones and never damages the rest.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Generic, TypeVar
from weakref import WeakSet

from builder.errors import CacheError, ResourceError
from builder.events import Emit, Warning_, discard

if TYPE_CHECKING:
    import sqlite3

VERSION = 1
"""Of the tables. A database of another version is emptied: it only saves time."""

_WAIT_MS = 30_000
_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS steps (
    key TEXT PRIMARY KEY, value TEXT NOT NULL, created REAL NOT NULL, used REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS content (
    key BLOB PRIMARY KEY, value BLOB NOT NULL, created REAL NOT NULL, used REAL NOT NULL
) WITHOUT ROWID;
PRAGMA user_version = {VERSION};
"""
_DAMAGED = frozenset({"SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_IOERR_SHORT_READ"})
_PARTS = ("", "-wal", "-shm")
_AT_ONCE = 500

K = TypeVar("K", str, bytes)
T = TypeVar("T")


class Database:
    """The file at `path` and its connections. `emit` hears a warning when the file had to be made again."""

    def __init__(self, path: str, emit: Emit = discard) -> None:
        self.path = path
        self._emit = emit
        self._local = threading.local()
        self._lock = threading.Lock()
        self._all: WeakSet[_Connection] = WeakSet()
        self._inherited: list[_Connection] = []
        self._generation = 0

    def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """What `work` gives for this thread's connection. A damaged file is replaced, once.

        Raises CacheError when the database cannot be used, ResourceError when the disk is full.
        """
        import sqlite3

        generation = self._generation
        try:
            return work(self._connection())
        except sqlite3.DatabaseError as error:
            if _name(error) not in _DAMAGED:
                raise self._refusal(error) from error
            self._replace(generation, error)
        try:
            return work(self._connection())
        except sqlite3.DatabaseError as error:
            raise self._refusal(error) from error

    def check(self) -> list[str]:
        """What sqlite finds wrong with the file, nothing being good. A file that is none is replaced at once
        (see `run`)."""
        rows = self.run(lambda db: db.execute("PRAGMA integrity_check(5)").fetchall())
        return [text for (text,) in rows if text != "ok"]

    def replace(self, reason: str) -> str:
        """Put a file away that is wrong, and begin an empty one; what was done, for people."""
        self._replace(self._generation, CacheError(reason))
        return f"put aside as {self.path}.damaged"

    def close(self) -> None:
        """Close every connection; the database can be used again afterwards."""
        with self._lock:
            self._close_all()

    def _connection(self) -> sqlite3.Connection:
        here = self._local.__dict__
        if here.get("generation") != (self._generation, os.getpid()):
            if here.get("generation", (0, os.getpid()))[1] != os.getpid():
                self._inherited.append(here["connection"])  # a parent's: not ours to close (sqlite's rule)
            here["connection"] = self._open()
            here["generation"] = (self._generation, os.getpid())
        connection: _Connection = here["connection"]
        return connection.db

    def _open(self) -> _Connection:
        import sqlite3

        # Mode 0600 from its first moment: sqlite itself would make it by the umask.
        os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
        db = sqlite3.connect(self.path, _WAIT_MS / 1000, isolation_level=None, check_same_thread=False)
        try:
            _prepare(db)
        except BaseException:
            db.close()
            raise
        connection = _Connection(db)
        with self._lock:
            self._all.add(connection)
        return connection

    def _replace(self, generation: int, error: Exception) -> None:
        """Put a damaged file away. Another thread may have done so since `generation`."""
        with self._lock:
            if generation != self._generation:
                return
            self._close_all()
            for part in _PARTS:
                if os.path.lexists(self.path + part):
                    os.replace(self.path + part, f"{self.path}.damaged{part}")
        text = f"the build cache was damaged ({error}) and starts again empty; images are not affected"
        self._emit(Warning_("CacheDamaged", text, at=f"{self.path}.damaged"))

    def _close_all(self) -> None:
        self._generation += 1
        for connection in self._all:
            connection.db.close()
        self._all.clear()

    def _refusal(self, error: Exception) -> CacheError | ResourceError:
        if _name(error) == "SQLITE_FULL":
            return ResourceError(f"no space left for {self.path}", hint="free space, or name another --root")
        return CacheError(
            f"{self.path}: {error}", hint="it is a cache: when no build runs, it may be deleted"
        )


class _Connection:
    """Held by its thread's local data alone: it closes when the thread is gone."""

    __slots__ = ("__weakref__", "db")

    def __init__(self, db: sqlite3.Connection) -> None:
        self.db = db

    def __del__(self) -> None:
        self.db.close()


class Table(Generic[K]):
    """Values by key. Reading writes nothing: what was read is marked as used when `flush` is called."""

    def __init__(self, database: Database, name: str) -> None:
        self._database = database
        self._name = name
        self._used: set[K] = set()

    def get(self, key: K) -> K | None:
        """The value under `key`; None when there is none."""
        for _, value in self._rows(f"SELECT key, value FROM {self._name} WHERE key = ?", (key,)):
            self._used.add(key)
            return value
        return None

    def get_many(self, keys: Iterable[K]) -> dict[K, K]:
        """The values under those of `keys` that are there."""
        wanted = list(keys)
        found: dict[K, K] = {}
        for start in range(0, len(wanted), _AT_ONCE):
            some = wanted[start : start + _AT_ONCE]
            query = f"SELECT key, value FROM {self._name} WHERE key IN ({','.join('?' * len(some))})"
            found.update(self._rows(query, some))
        self._used.update(found)
        return found

    def put(self, key: K, value: K) -> None:
        """Keep `value` under `key`, in place of what was there."""
        self.put_many([(key, value)])

    def put_many(self, rows: Iterable[tuple[K, K]]) -> None:
        """Keep many values, all or none."""
        now = time.time()
        full = [(key, value, now, now) for key, value in rows]
        self._change(f"INSERT OR REPLACE INTO {self._name} VALUES (?, ?, ?, ?)", full)

    def delete(self, keys: Iterable[K]) -> None:
        """Forget the values under `keys`."""
        self._change(f"DELETE FROM {self._name} WHERE key = ?", [(key,) for key in keys])

    def items(self) -> Iterator[tuple[K, K]]:
        """Every key and value, in no order, as of now."""
        yield from self._rows(f"SELECT key, value FROM {self._name}")

    def flush(self) -> None:
        """Write down which keys were used. To be called once, at the end: it is for pruning only."""
        used, self._used = self._used, set()
        if used:
            now = time.time()
            self._change(f"UPDATE {self._name} SET used = ? WHERE key = ?", [(now, key) for key in used])

    def _rows(self, query: str, values: Sequence[K] = ()) -> list[tuple[K, K]]:
        return self._database.run(lambda db: db.execute(query, values).fetchall())

    def _change(self, statement: str, rows: Sequence[tuple[object, ...]]) -> None:
        def work(db: sqlite3.Connection) -> None:
            db.execute("BEGIN IMMEDIATE")
            try:
                db.executemany(statement, rows)
                db.execute("COMMIT")
            except BaseException:
                db.rollback()
                raise

        if rows:
            self._database.run(work)


def _prepare(db: sqlite3.Connection) -> None:
    _write_ahead(db)
    db.execute("PRAGMA synchronous = NORMAL")
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if version == VERSION:
        return
    if version:
        for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            db.execute(f'DROP TABLE "{name}"')
    db.executescript(_SCHEMA)


def _write_ahead(db: sqlite3.Connection) -> None:
    """Of two that turn a new file to WAL at once one is told "locked" at once, whatever timeout is set."""
    import sqlite3

    until = time.monotonic() + _WAIT_MS / 1000
    while True:
        try:
            db.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if not _name(error).startswith("SQLITE_BUSY") or time.monotonic() > until:
                raise
        time.sleep(0.005)


def _name(error: Exception) -> str:
    return getattr(error, "sqlite_errorname", "")
