"""Mount points that the image lacks, without a trace of them in the step's layer.

Two ways. The common one costs nothing per step: a read-only directory tree with all mount points of a
sandbox is the *lowest* layer of its overlay, so that missing ones show through and those of the image keep
their own metadata. It lies on the file system of the snapshots (on another one, files and directories of
the overlay would differ in st_dev) and is shared by every step with the same mount points.

Where an opaque directory or a whiteout hides the tree, or the root is no overlay, the step makes the mount
point itself and writes down what it made; after the step the launcher removes exactly that: same device and
inode, same type, empty (SECURITY.md S34).
"""

from __future__ import annotations

import os
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from builder.sandbox.spec import Sandbox

    Made = tuple[bytes, bytes, int, int]
    """Host directory, path below it, device and inode of something a step made."""
    Copied = tuple[bytes, bytes, tuple[int, ...]]
    """Upper directory, path below it of a directory that was copied up only for a stub, and what it looked
    like.
    """

_LINKS = 40


def stub_tree(folder: str, sandbox: Sandbox) -> str:
    """The tree in `folder` for the mount points of `sandbox`, made when it is not there yet."""
    import hashlib

    wanted = sorted(_points(sandbox))
    name = hashlib.sha256(repr(wanted).encode("utf-8", "surrogateescape")).hexdigest()[:32]
    path = os.path.join(folder, name)
    if not os.path.isdir(path):
        _build(path, wanted)
    return path


def _points(sandbox: Sandbox) -> Iterable[tuple[str, bool]]:
    """(path without its leading slash, is a directory) of every mount point its name tells."""
    from builder.sandbox.spec import Bind, File, Layers

    yield from (("proc", True), ("sys", True), ("dev", True))
    for mount in sandbox.mounts:
        parts = [part for part in mount.target.split("/") if part not in ("", ".")]
        if parts and ".." not in parts and parts[0] not in ("proc", "sys", "dev"):
            directory = not isinstance(mount, File)
            if isinstance(mount, Layers) or (isinstance(mount, Bind) and mount.path):
                directory = mount.directory
            elif isinstance(mount, Bind):
                directory = os.path.isdir(mount.source)
            yield "/".join(parts), directory


def _build(path: str, points: list[tuple[str, bool]]) -> None:
    """Complete or not there: made under a private name, then renamed. Losing the race to a twin is fine."""
    part = f"{path}.{os.getpid()}.{os.urandom(4).hex()}"
    os.makedirs(part)
    os.chmod(part, 0o755)
    for point, directory in points:
        above = os.path.join(part, point if directory else os.path.dirname(point))
        _directories(part, os.path.relpath(above, part))
        if not directory:
            file = os.open(os.path.join(part, point), os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o644)
            os.fchmod(file, 0o644)
            os.close(file)
    try:
        os.rename(part, path)
    except OSError:
        import shutil

        shutil.rmtree(part)
        if not os.path.isdir(path):
            raise


def _directories(root: str, below: str) -> None:
    """Like makedirs with mode 0755 whatever the umask."""
    path = root
    for name in below.split("/"):
        path = os.path.join(path, name)
        if not os.path.isdir(path):
            os.mkdir(path)
            os.chmod(path, 0o755)


class StubMaker:
    """Makes missing mount points in a root and writes down what it made. Lives in the step's process,
    before exec.
    """

    def __init__(self, root: int, upper: bytes, source: bytes) -> None:
        self.root = root
        self.made: list[Made] = []
        self.copied: list[Copied] = []
        self.upper = upper
        self.source = upper or source
        self.mounts: dict[int, tuple[bytes, bytes, bytes]] = {}

    def writable_mount(self, fd: int, at: bytes, source: bytes, prefix: bytes = b"") -> None:
        """Stubs below `fd`, mounted at `at` in the root, land in `prefix` of the host directory `source`."""
        self.mounts[mount_id(fd)] = (at, source, prefix)

    def make(self, path: bytes, *, directory: bool) -> tuple[int, bytes]:
        """An O_PATH descriptor of the mount point at `path`, made if missing, and its place in the root
        without links.

        Links are followed as if the root were `/`. Each parent is opened from the root with links refused,
        so a directory exchanged for a link under our hands is an error, never a way out.
        """
        waiting = path.split(b"/")
        at: list[bytes] = []
        links = 0
        while waiting:
            name = waiting.pop(0)
            if name in (b"", b"."):
                continue
            if name == b"..":
                del at[-1:]
                continue
            target = self._link(at, name)
            if target is None:
                self._ensure(at, name, directory or any(part not in (b"", b".") for part in waiting))
                at.append(name)
                continue
            links += 1
            if links > _LINKS:
                raise OSError(40, "mount point: too many symbolic links", os.fsdecode(path))
            if target.startswith(b"/"):
                at = []
            waiting = target.split(b"/") + waiting
        return self._open(at, os.O_PATH), b"/".join(at)

    def _open(self, at: list[bytes], flags: int) -> int:
        from builder.sandbox.syscalls import open_in_root

        return open_in_root(self.root, b"/".join(at), flags, links=False)

    def _link(self, at: list[bytes], name: bytes) -> bytes | None:
        parent = self._open(at, os.O_PATH | os.O_DIRECTORY)
        try:
            if stat.S_ISLNK(os.lstat(name, dir_fd=parent).st_mode):
                return os.readlink(name, dir_fd=parent)
        except FileNotFoundError:
            pass
        finally:
            os.close(parent)
        return None

    def _ensure(self, at: list[bytes], name: bytes, directory: bool) -> None:
        parent = self._open(at, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.lstat(name, dir_fd=parent)
        except FileNotFoundError:
            self._create(parent, at, name, directory)
        finally:
            os.close(parent)

    def _create(self, parent: int, at: list[bytes], name: bytes, directory: bool) -> None:
        before = os.fstat(parent)
        self.mounts.setdefault(mount_id(self.root), (b"", self.source, b""))
        base = self.mounts.get(mount_id(parent))
        if base and base[1] == self.upper and self.upper:
            self._note_copied(at)
        if directory:
            os.mkdir(name, 0o755, dir_fd=parent)
        else:
            flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW
            os.close(os.open(name, flags, 0o644, dir_fd=parent))
        os.utime(parent, ns=(before.st_atime_ns, before.st_mtime_ns))
        if base:
            mount_point, source, prefix = base
            below = b"/".join([*at, name])[len(mount_point) :].lstrip(b"/")
            below = os.path.join(prefix, below)
            seen = os.lstat(os.path.join(source, below))  # the overlay itself would tell another device
            self.made.append((source, below, seen.st_dev, seen.st_ino))

    def _note_copied(self, at: list[bytes]) -> None:
        """Every ancestor that is not in the upper directory yet will be, because of us."""
        for depth in range(1, len(at) + 1):
            path = b"/".join(at[:depth])
            if not os.path.lexists(os.path.join(self.upper, path)):
                fd = self._open(at[:depth], os.O_PATH)
                self.copied.append((self.upper, path, _looks(os.fstat(fd))))
                os.close(fd)


def mount_id(fd: int) -> int:
    """The number of the mount that `fd` is in (proc(5), fdinfo)."""
    with open(f"/proc/self/fdinfo/{fd}", "rb") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(b"mnt_id"))


def _looks(info: os.stat_result) -> tuple[int, ...]:
    return (info.st_mode, info.st_uid, info.st_gid, info.st_mtime_ns)


def remove_stubs(made: list[Made], copied: list[Copied]) -> list[str]:
    """Remove what a StubMaker made; returns the host paths that had to stay (something was put there)."""
    untouched = [entry for entry in copied if _same_looks(*entry)]
    stayed = [
        os.path.join(base, path) for base, path, dev, ino in reversed(made) if not _drop(base, path, dev, ino)
    ]
    for base, path, _ in reversed(untouched):
        _drop(base, path)
    return [os.fsdecode(path) for path in stayed]


def _same_looks(base: bytes, path: bytes, before: tuple[int, ...]) -> bool:
    try:
        return _looks(os.lstat(os.path.join(base, path))) == before
    except OSError:
        return False


def _drop(base: bytes, path: bytes, dev: int = -1, ino: int = -1) -> bool:
    """Unlink an empty file or directory below `base` without following a link; its parent keeps its mtime."""
    from builder.sandbox.syscalls import open_in_root

    above, name = os.path.split(path)
    root = os.open(base, os.O_PATH | os.O_DIRECTORY)
    parent = -1
    try:
        parent = open_in_root(root, above, os.O_RDONLY | os.O_DIRECTORY, links=False)
        before, seen = os.fstat(parent), os.lstat(name, dir_fd=parent)
        if ino != -1 and (seen.st_dev, seen.st_ino) != (dev, ino):
            return False
        if stat.S_ISDIR(seen.st_mode):
            os.rmdir(name, dir_fd=parent)
        elif stat.S_ISREG(seen.st_mode) and seen.st_size == 0:
            os.unlink(name, dir_fd=parent)
        else:
            return False
        os.utime(parent, ns=(before.st_atime_ns, before.st_mtime_ns))
        return True
    except FileNotFoundError:
        return True
    except OSError:
        return False
    finally:
        os.close(root)
        if parent >= 0:
            os.close(parent)
