"""What was pushed to each repository: its manifests and blobs, in a small database beside the layout.

Names are not here: `index.json` has them. If this file is lost, everything that has a name is still served;
what had none (a manifest pushed by digest, a blob no manifest points at) must be pushed again.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from oci.digest import Digest
from oci.errors import OciError
from oci.model import Descriptor
from oci.registry.server.documents import Document

DIRECTORY = "registry"
"""Where below the layout's root the database lies."""

_VERSION = 1
_SCHEMA = """
CREATE TABLE repositories (name TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE manifests (
    repository TEXT, digest TEXT, media_type TEXT, size INTEGER, subject TEXT, artifact_type TEXT,
    annotations TEXT, added INTEGER, PRIMARY KEY (repository, digest)
) WITHOUT ROWID;
CREATE INDEX referrers ON manifests (repository, subject) WHERE subject <> '';
CREATE TABLE blobs (
    repository TEXT, digest TEXT, added INTEGER, PRIMARY KEY (repository, digest)
) WITHOUT ROWID;
CREATE INDEX holders ON blobs (digest);
CREATE TABLE fetched (
    repository TEXT, tag TEXT, digest TEXT, asked INTEGER, PRIMARY KEY (repository, tag)
) WITHOUT ROWID;
CREATE TABLE hidden (
    repository TEXT, reference TEXT, digest TEXT, PRIMARY KEY (repository, reference, digest)
) WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True)
class Linked:
    """A manifest of a repository, with what a list of referrers says of it."""

    media_type: str
    digest: Digest
    size: int
    subject: Digest | None = None
    artifact_type: str = ""
    annotations: Mapping[str, str] | None = None

    @classmethod
    def of(cls, descriptor: Descriptor, document: Document) -> Linked:
        """A document and the pointer to it."""
        return cls(
            document.media_type,
            descriptor.digest,
            descriptor.size,
            document.subject,
            document.artifact_type,
            document.annotations,
        )

    @property
    def descriptor(self) -> Descriptor:
        """The pointer as a list of referrers has it."""
        return Descriptor(
            self.media_type,
            self.digest,
            self.size,
            annotations=self.annotations or {},
            artifact_type=self.artifact_type,
        )


class Links:
    """The database. A method is one transaction, durable when it returns; any thread may call it."""

    def __init__(self, root: str) -> None:
        directory = os.path.join(root, DIRECTORY)
        os.makedirs(directory, 0o700, exist_ok=True)
        self._path = os.path.join(directory, "links.db")
        self._lock = threading.Lock()
        self._database = _open(self._path)

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            self._database.close()

    def repositories(self) -> list[str]:
        """Every repository that something was pushed to."""
        return [name for (name,) in self._all("SELECT name FROM repositories")]

    def knows(self, repository: str) -> bool:
        """Whether something was ever pushed to it."""
        return bool(self._all("SELECT 1 FROM repositories WHERE name = ?", repository))

    def manifest(self, repository: str, digest: Digest) -> Linked | None:
        """A repository's manifest."""
        rows = self._all(f"{_SELECT} AND digest = ?", repository, str(digest))
        return _linked(rows[0]) if rows else None

    def manifests(self, repository: str) -> list[Linked]:
        """All manifests of a repository."""
        return [_linked(row) for row in self._all(_SELECT, repository)]

    def referrers(self, repository: str, subject: Digest) -> list[Linked]:
        """The manifests about `subject`."""
        return [_linked(row) for row in self._all(f"{_SELECT} AND subject = ?", repository, str(subject))]

    def has_blob(self, repository: str, digest: Digest) -> bool:
        """Whether the blob was pushed to, or mounted into, the repository."""
        text = str(digest)
        return bool(self._all("SELECT 1 FROM blobs WHERE repository = ? AND digest = ?", repository, text))

    def holder(self, digest: Digest) -> str:
        """Some repository that has the blob, "" if none does."""
        rows = self._all("SELECT repository FROM blobs WHERE digest = ? LIMIT 1", str(digest))
        return str(rows[0][0]) if rows else ""

    def blobs(self, repository: str) -> set[Digest]:
        """A repository's blobs."""
        rows = self._all("SELECT digest FROM blobs WHERE repository = ?", repository)
        return {Digest.parse(text) for (text,) in rows}

    def hidden(self, repository: str) -> set[tuple[str, str]]:
        """Tags and digests that were deleted here though the store still has them: (reference, digest)."""
        rows = self._all("SELECT reference, digest FROM hidden WHERE repository = ?", repository)
        return {(reference, digest) for reference, digest in rows}

    def fetched(self, repository: str) -> dict[str, tuple[Digest, float]]:
        """Tags that a proxy got from the registry behind it: what each meant, and when it asked (seconds)."""
        rows = self._all("SELECT tag, digest, asked FROM fetched WHERE repository = ?", repository)
        return {tag: (Digest.parse(text), float(asked)) for tag, text, asked in rows}

    def add_fetched(self, repository: str, tag: str, digest: Digest) -> None:
        """Remember what a tag means in the registry behind a proxy."""
        with self._writing() as database:
            values = (repository, tag, str(digest), int(time.time()))
            database.execute("INSERT OR REPLACE INTO fetched VALUES (?, ?, ?, ?)", values)

    def remove_fetched(self, repository: str, tag: str) -> bool:
        """Forget what a tag meant behind a proxy; whether that was known."""
        with self._writing() as database:
            done = database.execute("DELETE FROM fetched WHERE repository = ? AND tag = ?", (repository, tag))
        return done.rowcount > 0

    def add_blob(self, repository: str, digest: Digest) -> None:
        """Link a blob."""
        with self._writing() as database:
            _add_blobs(database, repository, [digest])

    def add_manifests(self, repository: str, linked: Iterable[Linked], blobs: Iterable[Digest]) -> None:
        """Link manifests and the blobs they need."""
        with self._writing() as database:
            for each in linked:
                _add_manifest(database, repository, each)
            _add_blobs(database, repository, blobs)

    def remove_manifest(self, repository: str, digest: Digest) -> bool:
        """Unlink a manifest; whether it was linked."""
        with self._writing() as database:
            done = database.execute(
                "DELETE FROM manifests WHERE repository = ? AND digest = ?", (repository, str(digest))
            )
        return done.rowcount > 0

    def remove_blob(self, repository: str, digest: Digest) -> bool:
        """Unlink a blob; whether it was linked."""
        with self._writing() as database:
            done = database.execute(
                "DELETE FROM blobs WHERE repository = ? AND digest = ?", (repository, str(digest))
            )
        return done.rowcount > 0

    def hide(self, repository: str, reference: str, digest: Digest) -> None:
        """Serve this no more under this reference, though the store has it."""
        with self._writing() as database:
            _add_repository(database, repository)
            database.execute(
                "INSERT OR IGNORE INTO hidden VALUES (?, ?, ?)", (repository, reference, str(digest))
            )

    def show(self, repository: str, references: Iterable[str]) -> None:
        """Undo `hide`, for whatever they mean."""
        with self._writing() as database:
            for reference in references:
                database.execute(
                    "DELETE FROM hidden WHERE repository = ? AND reference = ?", (repository, reference)
                )

    def renew(self, repository: str, digest: Digest, age: float) -> None:
        """Make a blob's link young again if it is older than `age` seconds: somebody relies on it now."""
        now = int(time.time())
        values = (repository, str(digest), now - age)
        if self._all("SELECT 1 FROM blobs WHERE repository = ? AND digest = ? AND added < ?", *values):
            with self._writing() as database:
                database.execute(
                    "UPDATE blobs SET added = ? WHERE repository = ? AND digest = ?", (now, *values[:2])
                )

    def remove_old(
        self, repository: str, manifests: Iterable[Digest], blobs: Iterable[Digest], before: float
    ) -> tuple[list[Digest], list[Digest]]:
        """Unlink those that were linked before a time (seconds); which ones these were."""
        gone: tuple[list[Digest], list[Digest]] = ([], [])
        with self._writing() as database:
            for table, digests, out in (("manifests", manifests, gone[0]), ("blobs", blobs, gone[1])):
                sql = f"DELETE FROM {table} WHERE repository = ? AND digest = ? AND added <= ?"
                for digest in sorted(digests):
                    if database.execute(sql, (repository, str(digest), before)).rowcount:
                        out.append(digest)
        return gone

    def drop_repository(self, repository: str) -> None:
        """Forget a repository that has nothing any more."""
        with self._writing() as database:
            for table in ("manifests", "blobs", "hidden", "fetched"):
                rows = database.execute(f"SELECT 1 FROM {table} WHERE repository = ? LIMIT 1", (repository,))
                if rows.fetchone():
                    return
            database.execute("DELETE FROM repositories WHERE name = ?", (repository,))

    def _all(self, sql: str, *values: object) -> list[tuple[str, ...]]:
        with self._lock, _told(self._path):
            return self._database.execute(sql, values).fetchall()

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._lock, _told(self._path):
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield self._database
            except BaseException:
                self._database.execute("ROLLBACK")
                raise
            self._database.execute("COMMIT")


_SELECT = (
    "SELECT media_type, digest, size, subject, artifact_type, annotations FROM manifests WHERE repository = ?"
)


def kept(root: str) -> set[Digest]:
    """Every digest that some repository of the layout's registry holds: none of them may be deleted.

    Empty if no registry ever served the layout.
    """
    path = os.path.join(root, DIRECTORY, "links.db")
    if not os.path.exists(path):
        return set()
    with _told(path):
        database = _open(path)
        try:
            rows = database.execute("SELECT digest FROM manifests UNION SELECT digest FROM blobs").fetchall()
        finally:
            database.close()
    return {Digest.parse(text) for (text,) in rows}


def _open(path: str) -> sqlite3.Connection:
    with _told(path):
        database = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
        try:
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = FULL")  # what a client was told is there, stays there
            version = database.execute("PRAGMA user_version").fetchone()[0]
            if version == 0:
                _create(database)
            elif version != _VERSION:
                raise OciError(
                    f"{path} has version {version}; this pybuild knows {_VERSION}: use the newer one"
                )
        except BaseException:
            database.close()
            raise
    return database


def _create(database: sqlite3.Connection) -> None:
    database.execute("BEGIN IMMEDIATE")
    if database.execute("PRAGMA user_version").fetchone()[0] == 0:  # nobody was faster
        for statement in _SCHEMA.split(";"):
            database.execute(statement)
        database.execute(f"PRAGMA user_version = {_VERSION}")
    database.execute("COMMIT")


@contextmanager
def _told(path: str) -> Iterator[None]:
    """A database error, with what to do about it."""
    try:
        yield
    except sqlite3.Error as error:
        raise OciError(
            f"{path}: {error}; if it is damaged, remove it: all that has a name is still served"
        ) from error


def _add_repository(database: sqlite3.Connection, name: str) -> None:
    database.execute("INSERT OR IGNORE INTO repositories VALUES (?)", (name,))


def _add_blobs(database: sqlite3.Connection, repository: str, digests: Iterable[Digest]) -> None:
    _add_repository(database, repository)
    now = int(time.time())
    for digest in digests:
        # The time of the last push counts: a collector must not take it from under that push.
        database.execute("INSERT OR REPLACE INTO blobs VALUES (?, ?, ?)", (repository, str(digest), now))
        database.execute(
            "DELETE FROM hidden WHERE repository = ? AND reference = ?", (repository, str(digest))
        )


def _add_manifest(database: sqlite3.Connection, repository: str, linked: Linked) -> None:
    _add_repository(database, repository)
    values = (
        repository,
        str(linked.digest),
        linked.media_type,
        linked.size,
        str(linked.subject or ""),
        linked.artifact_type,
        json.dumps(dict(linked.annotations or {}), ensure_ascii=False),
        int(time.time()),
    )
    database.execute("INSERT OR REPLACE INTO manifests VALUES (?, ?, ?, ?, ?, ?, ?, ?)", values)
    database.execute(
        "DELETE FROM hidden WHERE repository = ? AND reference = ?", (repository, str(linked.digest))
    )


def _linked(row: tuple[str, ...]) -> Linked:
    media_type, digest, size, subject, artifact_type, annotations = row
    return Linked(
        media_type,
        Digest.parse(digest),
        int(size),
        Digest.parse(subject) if subject else None,
        artifact_type,
        json.loads(annotations),
    )
