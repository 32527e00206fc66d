"""The containers of a store, each a directory of its own.

    containers/ID/config.json   what it was made as (`Container`); written once
    containers/ID/state.json    how it is (`State`); replaced as a whole
    containers/ID/alive         locked by the process that looks after it, as long as that lives
    containers/ID/control       where that process listens (`wire`), while there is one
    containers/ID/log           what it printed (`logs`)
    containers/ID/lives/N/      what its Nth life wrote
    containers/.names/NAME      a link to ID: two containers never have one name

A container whose state says that it runs, and whose `alive` nobody holds, was killed with its monitor: it
counts as exited with 137.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

from builder.container.documents import decoded, encoded
from builder.container.model import SHORT, Container, State
from builder.errors import NotFound, UsageError
from builder.roster import is_watched

NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+\Z")
_ID = re.compile(r"[0-9a-f]{64}\Z")
_PREFIX = re.compile(r"[0-9a-f]{1,64}\Z")
_FILE = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
_KILLED = 137


class Containers:
    """The containers of the store with the root directory `root`."""

    def __init__(self, root: str) -> None:
        self.root = root
        self._folder = os.path.join(root, "containers")

    def path(self, ident: str, *names: str) -> str:
        """A container's own directory, or something in it."""
        if not _ID.match(ident):
            raise ValueError(f"{ident!r} is no container's id")
        return os.path.join(self._folder, ident, *names)

    def add(self, container: Container) -> None:
        """Remember a new container, whole or not at all. Raises UsageError when its name is taken."""
        if not NAME.match(container.name):
            raise UsageError(
                f"--name {container.name!r} is no name for a container",
                hint="letters, digits, _, . and -, two of them at least; the first is a letter or a digit",
            )
        place = os.path.join(self._folder, f".new-{container.id}")
        os.mkdir(place, 0o700)
        try:
            _write(os.path.join(place, "config.json"), encoded(container))
            _write(os.path.join(place, "state.json"), encoded(State()))
            self._claim(container)
            os.rename(place, self.path(container.id))
        except BaseException:
            shutil.rmtree(place, ignore_errors=True)
            self._release(container)
            raise

    def get(self, ident: str) -> Container:
        """What a container was made as. Raises NotFound when it is gone."""
        try:
            return decoded(Container, _read(self.path(ident, "config.json")))
        except FileNotFoundError:
            raise NotFound(f"no container {ident[:SHORT]}") from None
        except ValueError as error:
            raise NotFound(
                f"the container {ident[:SHORT]} is damaged: {error}", hint="pybuild rm -f removes it"
            ) from None

    def state(self, ident: str) -> State:
        """How it is. Raises NotFound when it is gone."""
        try:
            state = decoded(State, _read(self.path(ident, "state.json")))
        except (FileNotFoundError, NotADirectoryError):
            raise NotFound(f"no container {ident[:SHORT]}") from None
        except ValueError:
            return State(status="dead", exit_code=_KILLED)
        if state.alive and not self.is_watched(ident):
            again = decoded(State, _read(self.path(ident, "state.json")))  # it may have ended just now
            if again.alive:
                return replace(
                    again,
                    status="exited",
                    exit_code=_KILLED,
                    pid=0,
                    monitor=0,
                    finished=_changed(self, ident),
                )
            return again
        return state

    def update(self, ident: str, state: State) -> None:
        """Write down how it is: for the process that looks after it, or that holds `alone`."""
        with suppress(FileNotFoundError):
            _write(self.path(ident, "state.json"), encoded(state))

    def ids(self) -> list[str]:
        """Every container's id."""
        try:
            return sorted(name for name in os.listdir(self._folder) if _ID.match(name))
        except FileNotFoundError:
            return []

    def all(self) -> list[tuple[Container, State]]:
        """Every container with its state, the newest first. Those that go meanwhile, or are damaged, are
        left out.
        """
        found = []
        for ident in self.ids():
            with suppress(NotFound):
                found.append((self.get(ident), self.state(ident)))
        return sorted(found, key=lambda each: each[0].created, reverse=True)

    def find(self, word: str) -> str:
        """The id that a name, an id or the beginning of one means. Raises NotFound, UsageError when it
        means several.
        """
        with suppress(OSError):
            if NAME.match(word.removeprefix("/")):
                ident = os.readlink(os.path.join(self._folder, ".names", word.removeprefix("/")))
                if _ID.match(ident) and os.path.isdir(self.path(ident)):
                    return ident
        found = [ident for ident in self.ids() if ident.startswith(word)] if _PREFIX.match(word) else []
        if len(found) > 1:
            raise UsageError(
                f"{word!r} begins several container ids: {', '.join(each[:SHORT] for each in found)}",
                hint="give more digits",
            )
        if not found:
            raise NotFound(f"no container {word!r}", hint="pybuild ps -a lists the containers")
        return found[0]

    def rename(self, ident: str, name: str) -> None:
        """Give a container another name. Raises UsageError when it is taken or none."""
        before = self.get(ident)
        after = replace(before, name=name)
        if not NAME.match(name):
            raise UsageError(f"{name!r} is no name for a container")
        self._claim(after)
        _write(self.path(ident, "config.json"), encoded(after))
        self._release(before)

    @contextmanager
    def alone(self, ident: str, *, wait: bool = True) -> Iterator[int]:
        """Hold what a container's monitor holds, which nobody else then looks after or removes: the
        descriptor, with which a fork holds it too. -1 when somebody does, and not `wait`.
        """
        try:
            fd = os.open(self.path(ident, "alive"), _FILE, 0o600)
        except FileNotFoundError:
            raise NotFound(f"no container {ident[:SHORT]}") from None
        try:
            yield fd if _locked(fd, wait=wait) else -1
        finally:
            os.close(fd)

    def is_watched(self, ident: str) -> bool:
        """Whether a process looks after it."""
        return is_watched(self.path(ident))

    def forget(self, ident: str) -> None:
        """Remove a container's directory and its name; who calls holds `alone`. What it wrote may belong to
        ids that this process cannot remove: then PermissionError, and it stays.
        """
        with suppress(NotFound):
            self._release(self.get(ident))
        gone = os.path.join(self._folder, f".gone-{ident}")
        with suppress(FileNotFoundError):
            os.rename(self.path(ident), gone)
        for name in os.listdir(self._folder):
            if name.startswith(".gone-"):
                _delete(os.path.join(self._folder, name))

    def _claim(self, container: Container) -> None:
        names = os.path.join(self._folder, ".names")
        os.makedirs(names, 0o700, exist_ok=True)
        path = os.path.join(names, container.name)
        for _ in range(2):
            try:
                os.symlink(container.id, path)
                return
            except FileExistsError:
                holder = os.readlink(path)
            if os.path.isdir(self.path(holder)):
                break
            with suppress(FileNotFoundError):  # its container is gone
                os.unlink(path)
        raise UsageError(
            f"the name {container.name!r} is in use by the container {holder[:SHORT]}",
            hint=f"choose another name, or remove that container: pybuild rm {container.name}",
        )

    def _release(self, container: Container) -> None:
        path = os.path.join(self._folder, ".names", container.name)
        with suppress(OSError):
            if os.readlink(path) == container.id:
                os.unlink(path)


def users_of(root: str, volume: str) -> list[str]:
    """The ids of the containers that a volume is mounted in."""
    return [
        container.id
        for container, _ in Containers(root).all()
        if any(each.kind == "volume" and each.source == volume for each in container.request.volumes)
    ]


def _changed(containers: Containers, ident: str) -> str:
    """When something of a container last changed, for one whose end nobody saw."""
    from builder.container.moments import rfc3339

    return rfc3339(os.stat(containers.path(ident, "state.json")).st_mtime_ns)


def _locked(fd: int, *, wait: bool) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True


def _read(path: str) -> object:
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def _write(path: str, document: object) -> None:
    """Replace a file as a whole."""
    part = f"{path}.{os.getpid()}.part"
    with open(part, "w", encoding="utf-8") as file:
        json.dump(document, file, ensure_ascii=True)
        file.flush()
        os.fsync(file.fileno())
    os.rename(part, path)


def _delete(path: str) -> None:
    def again(_: object, name: str, error: object) -> None:
        with suppress(OSError):
            os.chmod(os.path.dirname(name), 0o700)
            os.rmdir(name) if os.path.isdir(name) and not os.path.islink(name) else os.unlink(name)

    shutil.rmtree(path, onerror=again)
