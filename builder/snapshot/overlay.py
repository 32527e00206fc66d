"""Snapshots as overlay upper directories (ARCHITECTURE.md 4.2).

    snapshots/NAME/fs        what one layer adds, in overlay's format
    snapshots/NAME/boot      the boot it was written in: uppers are not synced, and do not count after another
    snapshots/.live/ID/      what one living process works on; its `lock` is held as long as the process lives
    snapshots/.trash/        renamed away, to be deleted when there is time (KERNEL.md 8.1)

Directories of processes that died are moved away by the next one that starts (SECURITY.md R04). The kernel
does not keep one upper from being used twice; here each exists under its process's own directory until it
is finished.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from functools import partial
from hashlib import sha256
from threading import Lock
from typing import TYPE_CHECKING

from builder.errors import SandboxError
from builder.snapshot import noted
from builder.snapshot.active import ACTIVES, Active, take_root
from builder.snapshot.below import Below, Lowers
from builder.snapshot.view import DirectoryLayer, View
from oci.durable import remove_tree
from oci.tar import Entry, TarReader

if TYPE_CHECKING:
    from builder.isolation import Isolation, Storage

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}\Z")
_SUFFIXED = re.compile(r"\.[0-9a-f]{8}\Z")
_LOCK_FILE = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
_BOOT_ID = "/proc/sys/kernel/random/boot_id"


def opened(root: str, isolation: Isolation) -> Snapshots:
    """The snapshots below the host directory `root`, made the way that `isolation` has."""
    return Snapshots(
        root,
        userxattr=isolation.userxattr,
        stamp=isolation.stamp,
        unmapped=partial(_refuse_owner, isolation) if isolation.maps is not None else None,
        noting=isolation.notes_owners,
        storage=isolation.storage,
    )


def _refuse_owner(isolation: Isolation, path: bytes, entry: Entry) -> None:
    """Raises SandboxError: the owner of what is being unpacked has no id here."""
    from builder.isolation import unmapped

    text, hint = unmapped(isolation, f"{entry.uid}:{entry.gid}, the owner of {entry},")
    raise SandboxError(text, hint=hint)


class Snapshots:
    """The snapshots below the host directory `root`. Close it, or use it in `with`. Threads may share it.

    `userxattr` is for user namespaces (KERNEL.md 1.3). `stamp` names the ids that files have there: what was
    made with others does not count. `unmapped` is told of files whose owner has no id here, with their entry;
    without it they are an error. With `noting` their owner is noted instead (`noted`). `storage` is how steps
    see merged layers; `auto` finds out when the first step wants to.
    """

    def __init__(
        self,
        root: str,
        *,
        userxattr: bool = False,
        stamp: str = "",
        unmapped: Callable[[bytes, Entry], None] | None = None,
        noting: bool = False,
        storage: Storage = "overlay",
    ) -> None:
        self.root = os.path.abspath(root)
        self._userxattr = userxattr
        self._unmapped = unmapped
        self._noting = noting
        self._kind = storage
        self._known: dict[str, str] = {}
        self._lock = Lock()
        self._number = 0
        with open(_BOOT_ID, "rb") as file:
            self._boot = file.read().strip()
        # Files with other owners or other marks are other snapshots; a root of another kind keeps its own.
        self._suffix = f".{sha256(stamp.encode()).hexdigest()[:8]}" if stamp else ""
        for name in (".live", ".trash", ".locks"):
            os.makedirs(self._inner(name), 0o700, exist_ok=True)
        self._home, self._home_fd = self._settle_in()

    def __enter__(self) -> Snapshots:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @property
    def noting(self) -> bool:
        """Whether owners are noted beside the files."""
        return self._noting

    @property
    def userxattr(self) -> bool:
        """Whether overlay's marks are `user.` attributes here."""
        return self._userxattr

    def _storage(self) -> Storage:
        if self._kind == "auto":
            from builder.sandbox.probing import overlay_refused

            self._kind = "copy" if overlay_refused(self._home, userxattr=self._userxattr) else "overlay"
        return self._kind

    def new_name(self) -> str:
        """A name for what a step leaves. The snapshot goes with this process unless it is `settled`."""
        name = f"step-{os.urandom(12).hex()}"
        os.close(os.open(os.path.join(self._home, name), _LOCK_FILE, 0o600))
        return name

    def settled(self, name: str) -> None:
        """The cache knows snapshot `name` now: it may stay."""
        with suppress(FileNotFoundError):
            os.unlink(os.path.join(self._home, name))

    def close(self) -> None:
        """Take away what was not kept, and delete what lies in the trash."""
        if self._home_fd >= 0:
            self._forget_unsettled(self._home)
            self._discard(self._home)
            os.close(self._home_fd)
            self._home_fd = -1
            self.empty_trash()

    def existing(self, name: str) -> str:
        """The directory of snapshot `name`, "" when there is none or it is of another boot."""
        known = self._known.get(name)
        if known is not None:
            return known
        place = self._place(name)
        try:
            with open(os.path.join(place, "boot"), "rb") as file:
                boot = file.read()
        except FileNotFoundError:
            return ""
        if boot != self._boot:
            self.remove(name)
            return ""
        self._known[name] = found = os.path.join(place, "fs")
        return found

    @contextmanager
    def prepare(self, lowers: Sequence[str]) -> Iterator[Active]:
        """Directories for a step on top of `lowers` (host directories, topmost first).

        Its upper directory is discarded on exit unless committed; the work directory always is.
        """
        place = self._new_place()
        kind = ACTIVES[self._storage()]
        try:
            with closing(kind(self, place, tuple(lowers) or (self.empty(),))) as active:
                yield active
        finally:
            self._discard(place)

    @property
    def goes_on(self) -> bool:
        """Whether `lasting` can be called again for one place: elsewhere what was written is one more
        layer.
        """
        return self._storage() == "overlay"

    @contextmanager
    def lasting(self, place: str, lowers: Sequence[str]) -> Iterator[Active]:
        """The same in the host directory `place`, which is made if it is missing and stays: a container's."""
        os.makedirs(place, 0o700, exist_ok=True)
        kind = ACTIVES[self._storage()]
        with closing(kind(self, place, tuple(lowers) or (self.empty(),))) as active:
            yield active

    def unpack(
        self,
        name: str,
        layer: Callable[[], AbstractContextManager[TarReader]],
        lowers: Lowers = (),
        edit: Callable[[Entry], Entry | None] | None = None,
    ) -> str:
        """The directory of snapshot `name`: what `layer` adds to `lowers` (topmost first), made unless it
        is there. `lowers` may be a function, called when the layer asks for what is below it.

        Two processes that want the same one make it once. `edit` may change entries or leave them out.
        Raises OciError for a bad archive, OSError for the disk; nothing of it is then left.
        """
        found = self.existing(name)
        if found:
            return found
        with self._making(name):
            found = self.existing(name)
            if found:
                return found
            place = self._new_place()
            try:
                return self._unpack(place, name, layer, lowers, edit)
            finally:
                self._discard(place)

    def difference(self, directory: str, reader: TarReader, lowers: Sequence[str] = ()) -> str:
        """In what a snapshot's directory is not like its layer, unpacked anew over `lowers` (topmost first);
        "" when it is. Raises OciError for a bad archive, OSError for the disk."""
        from builder.snapshot.compare import difference
        from oci.apply import apply

        chain = [DirectoryLayer(each, userxattr=self._userxattr) for each in reversed(lowers)]
        with self.prepare(lowers) as active:
            apply(
                reader,
                active.upper,
                style="overlay",
                userxattr=self._userxattr,
                lower=View(chain) if chain else None,
                unmapped=self._without_id(active.upper),
            )
            return difference(directory, active.upper)

    def remove(self, name: str) -> None:
        """Forget snapshot `name`. Nothing may be using it."""
        self._known.pop(name, None)
        self._discard(self._place(name))

    def names(self) -> list[str]:
        """The snapshots there are for this kind of root, sorted."""
        found = [name for name in os.listdir(self.root) if _NAME.match(name)]
        if not self._suffix:
            return sorted(name for name in found if not _SUFFIXED.search(name))
        return sorted(name.removesuffix(self._suffix) for name in found if name.endswith(self._suffix))

    def empty_trash(self) -> None:
        """Delete what was renamed away."""
        for entry in list(os.scandir(self._inner(".trash"))):
            _delete(entry.path)

    def empty(self, number: int = 0) -> str:
        """An empty directory, for a root with no layer below: overlay wants one lower at least, and two
        different ones without an upper.
        """
        path = self._inner(f".empty{number or ''}")
        with suppress(FileExistsError):
            os.mkdir(path, 0o755)
        return path

    def keep(self, place: str, name: str) -> str:
        """Make the finished directory `place` (with its `fs`) snapshot `name`; the path of its `fs`."""
        with open(os.path.join(place, "boot"), "wb") as file:
            file.write(self._boot)
        final = self._place(name)
        try:
            os.rename(place, final)
        except OSError:
            if not self.existing(name):
                raise
        self._known[name] = kept = os.path.join(final, "fs")
        return kept

    # ---- inside ----

    def _unpack(
        self,
        place: str,
        name: str,
        layer: Callable[[], AbstractContextManager[TarReader]],
        lowers: Lowers,
        edit: Callable[[Entry], Entry | None] | None,
    ) -> str:
        from oci.apply import apply

        files = os.path.join(place, "keep", "fs")
        os.makedirs(files, 0o755)
        if self._noting:
            noted.begin(files)
        below = Below(lowers, userxattr=self._userxattr)
        with layer() as reader:
            done = apply(
                reader,
                files,
                style="overlay",
                userxattr=self._userxattr,
                lower=below if lowers else None,
                filter=edit,
                unmapped=self._without_id(files),
            )
        if not done.root:
            take_root(files, below.lowers())
        return self.keep(os.path.join(place, "keep"), name)

    def _without_id(self, files: str) -> Callable[[bytes, Entry], None] | None:
        """What is done about an owner without an id here, when a layer is unpacked into `files`."""
        return partial(noted.note_entry, files) if self._noting else self._unmapped

    def _inner(self, name: str) -> str:
        return os.path.join(self.root, name)

    def _place(self, name: str) -> str:
        if not _NAME.match(name):
            raise ValueError(f"{name!r} is no snapshot name")
        return os.path.join(self.root, name + self._suffix)

    def _new_place(self) -> str:
        with self._lock:
            self._number += 1
            place = os.path.join(self._home, str(self._number))
        os.mkdir(place, 0o700)
        return place

    def _discard(self, path: str) -> None:
        """Move `path` to the trash if it is there; it is gone from its place at once."""
        with suppress(FileNotFoundError):
            os.rename(path, os.path.join(self._inner(".trash"), os.urandom(12).hex()))

    def _settle_in(self) -> tuple[str, int]:
        """Our own directory with its lock held; those of the dead are moved away."""
        gate = os.open(self._inner(".live/.gate"), _LOCK_FILE, 0o600)
        try:
            # Alone: nobody may take a directory for dead between its creation and its lock.
            fcntl.flock(gate, fcntl.LOCK_EX)
            for name in os.listdir(self._inner(".live")):
                if name != ".gate":
                    self._bury(self._inner(os.path.join(".live", name)))
            home = self._inner(os.path.join(".live", os.urandom(8).hex()))
            os.mkdir(home, 0o700)
            fd = os.open(os.path.join(home, "lock"), _LOCK_FILE, 0o600)
            fcntl.flock(fd, fcntl.LOCK_EX)
            return home, fd
        finally:
            os.close(gate)

    def _forget_unsettled(self, home: str) -> None:
        """Remove the snapshots of a process that no record names."""
        unsettled = tuple(name for name in os.listdir(home) if name.startswith("step-"))
        if unsettled:
            for name in os.listdir(self.root):
                if name.startswith(unsettled):  # whatever kind of root that process was
                    self._discard(os.path.join(self.root, name))
            for name in unsettled:
                self._known.pop(name, None)

    def _bury(self, home: str) -> None:
        """Discard another process's directory if that process is dead."""
        try:
            fd = os.open(os.path.join(home, "lock"), os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            self._discard(home)
            return
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._forget_unsettled(home)
            self._discard(home)
        except BlockingIOError:
            pass
        finally:
            os.close(fd)

    @contextmanager
    def _making(self, name: str) -> Iterator[None]:
        fd = os.open(os.path.join(self._inner(".locks"), name), _LOCK_FILE, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)


def _delete(path: str) -> None:
    """Delete a tree, whatever modes its directories have; what another process deletes too is no error."""
    if remove_tree(path):
        return
    import shutil

    def again(_: object, name: str, __: object) -> None:
        with suppress(OSError):
            os.chmod(os.path.dirname(name), 0o700)
            os.rmdir(name) if os.path.isdir(name) and not os.path.islink(name) else os.unlink(name)

    shutil.rmtree(path, onerror=again)
