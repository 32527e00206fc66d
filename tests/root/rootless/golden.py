"""The golden set: Dockerfiles that do what owners, modes, whiteouts and links can meet, and the base they
start from. Every rung of the ladder must make the same layers of them.
"""

from __future__ import annotations

import os
import shutil
import tarfile
from io import BytesIO
from pathlib import Path

CLOCK = "1700000000"
FILE_CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000")
"""security.capability, version 2: cap_net_bind_service in the permitted set, effective."""

_APPLETS = (
    "sh true cat id echo readlink stat mkdir rm rmdir mv cp ln chmod chown touch head tar mkfifo test find ls"
)
_PASSWD = "root:x:0:0:root:/root:/bin/sh\ndaemon:x:2:2::/:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\n"

DOCKERFILES = {
    "files": """
FROM golden
RUN mkdir -p /srv/a/b && echo one > /srv/a/b/one && echo two > /srv/two && ln /srv/two /srv/three
RUN ln -s /srv/two /srv/link && mkfifo /srv/fifo && chmod 2755 /srv/a
RUN chmod 4711 /srv/two && chmod 1777 /srv
RUN rm -rf /srv/a && mkdir /srv/a && echo new > /srv/a/new
RUN rm /data/gone && echo more >> /data/also && mv /data/moved /data/elsewhere && rm -rf /data/tree
RUN mv /data/folder /data/other && chmod 700 /data/other && touch -d @1000000000 /data/old
RUN true
""",
    "copies": """
FROM golden AS one
COPY a b /into/
RUN cat /into/a && echo x > /into/c && mkdir -p /made/here
WORKDIR /work/dir
RUN echo here > file
FROM golden
COPY --from=one /into /all
COPY --chmod=0750 a /bin/a
RUN rm /all/b && cp /all/a /all/d && readlink /data/link > /all/e
RUN --mount=type=bind,from=one,source=/made,target=/mnt --mount=type=tmpfs,target=/t \\
    echo y > /all/f && test -d /mnt/here
RUN --mount=type=cache,target=/cache echo z > /cache/z && cp /cache/z /all/z
""",
    "owners": """
FROM golden
RUN chown -R app:2000 /data && chown 33:2000 /data/kept && chown -h daemon:3 /data/link
COPY --chown=app:daemon a /home/app/a
COPY owners.tar /tmp/
RUN mkdir /un && tar -xpf /tmp/owners.tar -C /un && chmod 4755 /un/file
RUN mkfifo /un/pipe && chown 7:8 /un/pipe
RUN mv /un/link /un/other && mv /data/kept /un/kept && chmod 600 /home/app/a && echo more >> /data/owned
USER app:daemon
WORKDIR /home/app/made
USER 0
RUN touch file && chown 0:0 /data/owned
""",
    "seen": """
FROM golden
COPY --chown=app:daemon a /home/app/a
RUN stat -c '%u %g' /data/kept /home/app/a /data/tree /data/owned > /stat
USER app:daemon
WORKDIR /home/app/made
RUN id > file && chmod 600 file
USER 0
RUN cp -a /data/tree /copy && tar -cf - -C /data . | tar -xpf - -C /copy && chown daemon /data/link
""",
}
"""By name. `owners` gives files away, and `seen` looks at whose they are, which takes more ids than one."""

ONLY_COPIES = """
FROM golden AS one
COPY a b /into/
WORKDIR /work/dir
COPY --chown=app:daemon --chmod=640 a .
ADD owners.tar /un/
FROM golden
COPY --from=one /into /work /un /all/
COPY --from=one /data /kept
COPY --from=golden /etc/passwd /bin/ls /p/
USER app
WORKDIR /home/app/x
"""
"""What needs no program, and so no privilege."""


def owners(into: BytesIO) -> None:
    """An archive of files of several owners, for a step to unpack."""
    with tarfile.open(fileobj=into, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, kind in (("dir", tarfile.DIRTYPE), ("link", tarfile.SYMTYPE), ("file", tarfile.REGTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "file" if name == "link" else ""
            info.uid, info.gid, info.mtime, info.mode = 42, 43, 1500000000, 0o755
            tar.addfile(info)


def base(into: BytesIO) -> None:
    """A root with busybox, users, and something to change: files of several owners, links, a capability."""
    with tarfile.open(fileobj=into, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name in (
            "bin",
            "data",
            "data/tree",
            "data/tree/deep",
            "data/folder",
            "etc",
            "home",
            "home/app",
            "tmp",
        ):
            info = tarfile.TarInfo(name)
            info.type, info.mode, info.mtime = tarfile.DIRTYPE, 0o755, 1500000000
            info.uid = info.gid = 1000 if name == "home/app" else 2 if name == "data/tree" else 0
            tar.addfile(info)
        for name, owner, mode in (
            ("data/gone", 0, 0o644),
            ("data/kept", 2, 0o640),
            ("data/also", 0, 0o640),
            ("data/moved", 0, 0o600),
            ("data/old", 0, 0o644),
            ("data/owned", 1000, 0o4755),
            ("data/tree/deep/leaf", 2, 0o644),
            ("data/folder/leaf", 0, 0o644),
            ("data/capable", 0, 0o755),
        ):
            _file(tar, name, f"{name}\n".encode(), owner, mode)
        _file(tar, "etc/passwd", _PASSWD.encode(), 0, 0o644)
        _file(tar, "etc/group", b"root:x:0:\ndaemon:x:2:\napp:x:1000:\n", 0, 0o644)
        _file(tar, "bin/busybox", Path(shutil.which("busybox") or "/bin/busybox").read_bytes(), 0, 0o755)
        for name, target in (
            *((f"bin/{each}", "busybox") for each in _APPLETS.split()),
            ("data/link", "kept"),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.mtime = tarfile.SYMTYPE, target, 1500000000
            tar.addfile(info)


def _file(tar: tarfile.TarFile, name: str, content: bytes, owner: int, mode: int) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime = len(content), mode, 1500000000
    info.uid = info.gid = owner
    if name == "data/capable":
        info.pax_headers["SCHILY.xattr.security.capability"] = FILE_CAPABILITY.decode(
            "utf-8", "surrogateescape"
        )
    tar.addfile(info, BytesIO(content))


def lay(folder: Path) -> None:
    """Everything into `folder`: base.tar, and one context for all Dockerfiles."""
    folder.mkdir(exist_ok=True)
    out = BytesIO()
    base(out)
    (folder / "base.tar").write_bytes(out.getvalue())
    context = folder / "context"
    context.mkdir(exist_ok=True)
    for name in ("a", "b"):
        (context / name).write_text(name)
    (context / "only-copies").write_text(ONLY_COPIES)
    out = BytesIO()
    owners(out)
    (context / "owners.tar").write_bytes(out.getvalue())
    for name, text in DOCKERFILES.items():
        (context / f"{name}.Dockerfile").write_text(text)
    for path in (folder, *folder.rglob("*")):
        os.chmod(path, 0o755 if path.is_dir() else 0o644)
