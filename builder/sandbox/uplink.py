"""A way out for an ordinary user's network namespace: slirp4netns, else pasta, in user mode (KERNEL.md 5.4).

slirp4netns comes first: large streams through pasta of 2023 stalled or were broken off (docs/rootless.md has
the figures).

One program serves a whole build. The namespace that it gives an interface to is the build's own "host": in
it the pool makes veth pairs and NAT as it does for root, since a namespace's owner may. Neither program lets
a step reach the loopback of the real host, and both answer for its resolver, wherever that listens.

Both would outlive a killed builder. A shell is their parent: it waits at a pipe whose other end only the
builder has, and ends them when that goes.
"""

from __future__ import annotations

import errno
import os
import select
import time
from typing import TYPE_CHECKING

from builder.sandbox.userns import trusted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from builder.sandbox.netlink import Route

_SHELL = "/bin/sh"
_WATCH = '"$@" <&4 & exec >/dev/null 2>&1; read _ <&3; kill $! 2>/dev/null; wait'
"""The shell lets go of the pipe that the program speaks into: its end is then the program's."""
_NETNS = "/proc/self/fd/0"
"""The namespace, as standard input: newer versions of pasta close all above 2 before they open it."""
_READY = "5"
"""The descriptor to write to when all is ready."""
_READY_S, _SIX_S = 5.0, 0.1
_PASTA_RESOLVER, _SLIRP_RESOLVER = "192.0.2.53", "10.0.2.3"
_PASTA_BUFFER = 256 * 1024
"""Bytes that a connection through pasta may have on its way at most. With the kernel's 4 MiB pasta of 2023
breaks off large uploads, and that of 2025 makes 5 MB/s of them; with this both make over 50.
"""

_SLIRP = "slirp4netns"
_SLIRP_SIX = b"\xfd" + bytes(13)
"""The first 14 bytes of the network that it serves by IPv6, fd00::/64; it is 2 there, the guest 0x100."""
_PROGRAMS = (
    (
        _SLIRP,
        ("-c", "--mtu=65520", "--disable-host-loopback", "--enable-sandbox", "--enable-seccomp",
         "--ready-fd", _READY, "--netns-type=path", _NETNS, "eth0"),
        _SLIRP_RESOLVER,
        0,
    ),
    (
        "pasta",
        ("-q", "-f", "--config-net", "-I", "eth0", "-t", "none", "-u", "none", "-T", "none", "-U", "none",
         "--no-map-gw", "--dns-forward", _PASTA_RESOLVER, "--netns-only", "--netns", _NETNS),
        _PASTA_RESOLVER,
        _PASTA_BUFFER,
    ),
)  # fmt: skip


class Uplink:
    """The interface `eth0` of the network namespace `netns`, and the program behind it, which reaches out
    from the caller's namespace.

    `route` is a socket that was made in `netns`. `resolver` is the address at which the host's resolver
    answers; `program` is the one that came up, and `send_buffer` the most that a connection through it should
    have on its way, in bytes (0: as the kernel has it). Close it, from any thread. Raises OSError: neither
    program is there, or neither works here, with what they said.
    """

    def __init__(self, netns: int, route: Route) -> None:
        self._netns = netns
        self._route = route
        self._pid = 0
        self._hold = -1
        said = []
        for name, words, resolver, send_buffer in _PROGRAMS:
            path = trusted(name)
            if not path:
                continue
            failure = self._start_with_six(path, words) if name == _SLIRP else self._start(path, words)
            if not failure:
                self.program, self.resolver, self.send_buffer = name, resolver, send_buffer
                return
            said.append(f"{name}: {failure}")
        if not said:
            raise OSError(errno.ENOENT, "private network: neither slirp4netns nor pasta is installed")
        raise OSError(errno.ENETUNREACH, f"private network: {'; '.join(said)}")

    def close(self) -> None:
        """End the program."""
        hold, self._hold = self._hold, -1
        if hold >= 0:
            os.close(hold)
            os.waitpid(self._pid, 0)

    def _start_with_six(self, path: str, words: Sequence[str]) -> str:
        """slirp4netns, with IPv6 where the caller's namespace leads out by it and this version can.

        The address and the route that it would advertise in some seconds are given at once. Its address
        for the caller's loopback (::1) is closed by the same option as that of IPv4.
        """
        from builder.sandbox.netlink import Route

        outer = Route()
        six = _leads_out(outer, six=True)
        outer.close()
        if not six or self._start(path, ("--enable-ipv6", *words)):
            return self._start(path, words)
        try:
            index = self._route.index("eth0")
            self._route.address(index, _SLIRP_SIX + b"\1\0", 64)
            self._route.route(via=_SLIRP_SIX + b"\0\2")
        except OSError:
            pass  # a kernel or a machine that has IPv6 switched off inside
        return ""

    def _start(self, path: str, words: Sequence[str]) -> str:
        """Why it did not come up; empty when it did."""
        watched, self._hold = os.pipe2(os.O_CLOEXEC)
        said, tell = os.pipe2(os.O_CLOEXEC)
        ready, awake = os.pipe2(os.O_CLOEXEC)
        try:
            self._pid = os.posix_spawn(
                _SHELL,
                [_SHELL, "-c", _WATCH, "sh", path, *words],
                {"PATH": "/usr/bin:/bin"},
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_DUP2, tell, 1),
                    (os.POSIX_SPAWN_DUP2, tell, 2),
                    # Out of the way first: a descriptor of ours may have one of these numbers.
                    (os.POSIX_SPAWN_DUP2, watched, 103),
                    (os.POSIX_SPAWN_DUP2, self._netns, 104),
                    (os.POSIX_SPAWN_DUP2, awake, 105),
                    *((os.POSIX_SPAWN_DUP2, 100 + number, number) for number in (3, 4, 5)),
                    *((os.POSIX_SPAWN_CLOSE, 100 + number) for number in (3, 4, 5)),
                ],
                setsid=True,
                setsigmask=[],
                setsigdef=range(1, 32),
            )
        finally:
            for fd in (watched, tell, awake):
                os.close(fd)
        try:
            return self._await(said, ready if _READY in words else -1)
        finally:
            os.close(said)
            os.close(ready)

    def _await_six(self) -> None:
        """pasta copies the caller's IPv6 after its IPv4, if there is any."""
        from builder.sandbox.netlink import Route

        outer = Route()
        try:
            until = time.monotonic() + (_SIX_S if _leads_out(outer, six=True) else 0)
            while not _leads_out(self._route, six=True) and time.monotonic() < until:
                time.sleep(0.002)
        finally:
            outer.close()

    def _await(self, said: int, ready: int) -> str:
        """Wait until there is a default route, and a word from a program that gives one on `ready`, or the
        program has ended; what it said then.
        """
        os.set_blocking(said, False)
        text, until = b"", time.monotonic() + _READY_S
        while time.monotonic() < until:
            if _leads_out(self._route) and _told(ready):
                if ready < 0:
                    self._await_six()
                return ""
            try:
                block = os.read(said, 1 << 16)
                if not block:
                    break
                text += block
            except BlockingIOError:
                pass
            time.sleep(0.002)
        self.close()
        lines = [line for line in text.decode(errors="replace").splitlines() if "syslog" not in line]
        return " ".join(lines).strip()[:300] or "it gave no route in time"


def _leads_out(route: Route, *, six: bool = False) -> bool:
    """Whether there is a default route; one by the loopback interface (1) only says that there is none."""
    return any(length == 0 and index != 1 for _, length, index in route.routes(six=six))


def _told(ready: int) -> bool:
    """Whether the program said that it is ready; one that never does (-1) is taken for it."""
    if ready < 0:
        return True
    poll = select.poll()  # not select(): a build may have more than 1,024 descriptors
    poll.register(ready, select.POLLIN)
    return bool(poll.poll(0))
