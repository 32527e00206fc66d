"""What moving bytes costs at the least on this machine: their sha256, and a copy of them over loopback."""

from __future__ import annotations

import hashlib
import os
import socket
import threading
from collections.abc import Sequence

from measure import timed
from workarea import WorkArea

PIECE = 1 << 20
WARM_BYTES = 1_500_000_000


def floors(area: WorkArea, layout: str) -> str:
    """Both for all blobs of a layout, as a phrase."""
    directory = os.path.join(layout, "blobs", "sha256")
    paths = [os.path.join(directory, name) for name in sorted(os.listdir(directory))]
    size = sum(os.path.getsize(path) for path in paths)
    hashing = timed(lambda: _hash(paths))
    warm(area)
    copying = timed(lambda: _over_loopback(paths, os.path.join(area.path, "loopback")))
    return f"{size / 1e6:.0f} MB: sha256 alone {hashing:.2f} s, a plain loopback copy {copying:.2f} s"


def warm(area: WorkArea) -> None:
    """Have the machine own the memory that is about to be written: a virtual one gets each page anew from its
    host, which would count against whoever comes first."""
    path, piece = os.path.join(area.path, "warm"), bytes(PIECE)
    with open(path, "wb", buffering=0) as file:
        for _ in range(WARM_BYTES // PIECE):
            file.write(piece)
    os.unlink(path)


def _hash(paths: Sequence[str]) -> None:
    view = memoryview(bytearray(PIECE))
    for path in paths:
        hasher = hashlib.sha256()
        with open(path, "rb", buffering=0) as file:
            while count := file.readinto(view):
                hasher.update(view[:count])


def _over_loopback(paths: Sequence[str], target: str) -> None:
    """The files one after the other, by sendfile into 1 MiB reads, written to a file each time."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        sender = threading.Thread(target=_send, args=(listener, paths))
        sender.start()
        view = memoryview(bytearray(PIECE))
        for number in range(len(paths)):
            with socket.create_connection(listener.getsockname()) as sock:
                with open(f"{target}{number}", "wb", buffering=0) as out:
                    while count := sock.recv_into(view):
                        out.write(view[:count])
        sender.join()
    for number in range(len(paths)):
        os.unlink(f"{target}{number}")


def _send(listener: socket.socket, paths: Sequence[str]) -> None:
    for path in paths:
        sock, _ = listener.accept()
        with sock, open(path, "rb") as file:
            sock.sendfile(file)
