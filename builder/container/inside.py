"""A container's network as the thread sees it that has moved into it."""

from __future__ import annotations

import errno
import fcntl
import socket
import struct

from builder.sandbox import syscalls

SHORT = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.ENOSPC)
"""What a call says that wants a descriptor, or memory, when there is none now."""

_SIOCGIFADDR = 0x8915
_TENTATIVE_OR_FAILED = 0x48

Address = tuple[socket.AddressFamily, str]


class Inside:
    """Makes sockets in a container's network namespace, for which the thread that calls `enter` stays there.

    A socket keeps the namespace it was made in, whoever uses it.
    """

    def __init__(self) -> None:
        self._found: list[Address] = []

    def enter(self, netns: int) -> None:
        """Move the calling thread into the namespace, for good. OSError: it is not ours to enter."""
        syscalls.setns(netns, syscalls.CLONE_NEWNET)

    def addresses(self, family: int) -> list[Address]:
        """Where to look for a server, the client's family first: the addresses of `eth0`, if it has any.

        Not those of `lo`: a server that listens on them alone is not meant to be reached.
        """
        if not self._found:
            self._found = [*_four(), *_six()]
        return sorted(self._found, key=lambda found: found[0] != family)


def _four() -> list[Address]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        try:
            answer = fcntl.ioctl(control.fileno(), _SIOCGIFADDR, struct.pack("16s24x", b"eth0"))
        except OSError:
            return []
    return [(socket.AF_INET, socket.inet_ntop(socket.AF_INET, answer[20:24]))]


def _six() -> list[Address]:
    """The first global address; proc(5) tells the namespace of the thread that reads."""
    try:
        with open("/proc/thread-self/net/if_inet6", encoding="ascii") as file:
            lines = [line.split() for line in file]
    except OSError:
        return []
    for address, _, _, scope, flags, name in lines:
        if name == "eth0" and scope == "00" and not int(flags, 16) & _TENTATIVE_OR_FAILED:
            return [(socket.AF_INET6, socket.inet_ntop(socket.AF_INET6, bytes.fromhex(address)))]
    return []
