"""Network namespaces for RUN, made ready before they are asked for.

Each is joined to the host by its own veth pair, not by a bridge: a bridge would outlive a killed builder, a
pair goes with its namespace, and steps do not see each other. All pairs of one builder share a /24 under
10.0.0.0/8; the gateway's address is on the host's end of each.

What a builder leaves in the kernel, and how it goes away:

- namespaces and veth pairs: with their last descriptor, by the kernel;
- the table `pybuild_N` (NAT, guard), whose name claims the /24: with our netlink socket, by the kernel;
- accept rules in others' tables: by `close`, or after a kill by the next builder, because their comment
  names a table that is gone;
- an uplink's forwarding switch: likewise; the table `pybuild_uplink_NAME` remembers that it was off.

An ordinary user may do none of this to the host, but all of it to a namespace of one's own: there the pool
has one more between host and steps, with a way out by `builder.sandbox.uplink`, and takes it for the host.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import threading
from typing import TYPE_CHECKING

from builder.sandbox import syscalls
from builder.sandbox.gateway import Gateway, read_file
from builder.sandbox.netlink import Route

if TYPE_CHECKING:
    from types import TracebackType

    from builder.sandbox.dns import Relay
    from builder.sandbox.uplink import Uplink


class NetworkPool:
    """Ready network namespaces with a way out, by IPv6 too where the host has that.

    Use it in `with`; `start` begins in the background. `take` gives a descriptor that the caller passes to
    `Launcher.run` and closes: the namespace ends with its last descriptor and is never used twice. `size`
    namespaces are kept ready, `most` are made in all (0: as many as are taken). `rootless` is for a
    process that owns its user namespace but not the host.
    """

    def __init__(self, size: int = 3, *, rootless: bool = False, most: int = 0) -> None:
        self._size = size
        self._left = most or -1
        self._rootless = rootless
        self._uplink: Uplink | None = None
        self._ready: list[int] = []
        self._wake = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._failure: OSError | None = None
        self._gateway: Gateway | None = None
        self._relay: Relay | None = None

    def __enter__(self) -> NetworkPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()

    def start(self) -> None:
        """Make the first namespaces in the background; errors come with `take`."""
        with self._wake:
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._fill, name="network-pool", daemon=True)
                self._thread.start()

    def take(self) -> int:
        """A ready namespace; the caller closes it. OSError with the failed call: no private network can be
        had here.
        """
        self.start()
        with self._wake:
            self._wake.wait_for(lambda: self._ready or self._failure or self._closed)
            if self._ready:
                fd = self._ready.pop(0)
                self._wake.notify_all()
                return fd
            raise self._failure or OSError(errno.EBADF, "take network: the pool was closed")

    def gateway(self) -> str:
        """The host's address as steps see it."""
        return str(ipaddress.IPv4Address(self._wait_for_gateway().address(1)))

    def resolv_conf(self) -> bytes:
        """What a step's /etc/resolv.conf should hold: the host's, without resolvers a step cannot reach.

        When the host has a resolver on its loopback only, a small relay answers at the gateway's address. A
        rootless pool has the uplink's resolver, which asks the host's.
        """
        if self._rootless:
            self._wait_for_gateway()
            assert self._uplink is not None
            text = b"nameserver %s\n" % self._uplink.resolver.encode()
            return text + _without_resolvers(read_file("/etc/resolv.conf"))
        text = resolv_conf(six=self._wait_for_gateway().has_six)
        if b"nameserver" not in text and (local := _resolvers(read_file("/etc/resolv.conf"), local=True)):
            from builder.sandbox.dns import Relay

            gateway = self._wait_for_gateway()
            with self._wake:
                self._relay = self._relay or Relay(gateway.address(1), local)
            text = b"nameserver %s\n" % self.gateway().encode() + text
        return text

    def close(self) -> None:
        """Close what was not taken and take back every rule. Namespaces in use keep running, without a way
        out.
        """
        with self._wake:
            self._closed = True
            self._wake.notify_all()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _wait_for_gateway(self) -> Gateway:
        self.start()
        with self._wake:
            self._wake.wait_for(lambda: self._gateway or self._failure or self._closed)
            if self._gateway is None:
                raise self._failure or OSError(errno.EBADF, "network: the pool was closed")
            return self._gateway

    def _fill(self) -> None:
        """The background thread; only it ever changes its network namespace, and comes back at once."""
        gateway: Gateway | None = None
        try:
            if self._rootless:
                self._uplink = _own_host()
            gateway = Gateway(self._uplink.send_buffer if self._uplink else 0)
            with self._wake:
                self._gateway = gateway
                self._wake.notify_all()
            while self._await_demand():
                fd = gateway.namespace()
                self._left -= 1
                with self._wake:
                    self._ready.append(fd)
                    self._wake.notify_all()
        except BaseException as error:  # whatever it was: `take` raises it instead of waiting for ever
            with self._wake:
                self._failure = error if isinstance(error, OSError) else OSError(f"network pool: {error!r}")
                self._wake.notify_all()
                self._wake.wait_for(lambda: self._closed)
        finally:
            self._release(gateway)

    def _await_demand(self) -> bool:
        with self._wake:
            self._wake.wait_for(lambda: self._closed or (self._left and len(self._ready) < self._size))
            return not self._closed

    def _release(self, gateway: Gateway | None) -> None:
        for fd in self._ready:
            os.close(fd)
        self._ready.clear()
        if self._relay:
            self._relay.close()
        if gateway:
            gateway.close()
        if self._uplink:
            self._uplink.close()


def _own_host() -> Uplink:
    """A namespace that this thread takes for the host's from now on, with a way out.

    Its other end is where this thread was: there is no way back for a user, so somebody else makes it.
    """
    from builder.sandbox.uplink import Uplink

    made: list[tuple[int, Route] | OSError] = []
    maker = threading.Thread(target=lambda: made.append(_new_namespace()), name="network-host", daemon=True)
    maker.start()
    maker.join()
    first = made[0] if made else OSError("private network: no namespace could be made")
    if isinstance(first, OSError):
        raise first
    netns, route = first
    try:
        _leave_mounts()
        uplink = Uplink(netns, route)
        syscalls.setns(netns, syscalls.CLONE_NEWNET)
        return uplink
    finally:
        route.close()
        os.close(netns)


def _leave_mounts() -> None:
    """Give this thread, and what it starts, a copy of the mounts from which nothing comes back.

    slirp4netns unmounts all it sees. Where mounts are shared (`fuse.share_mounts`), it would unmount the root
    of a step as well. What is unmounted outside still goes here too: nothing is held.
    """
    syscalls.unshare(syscalls.CLONE_NEWNS)
    syscalls.mount(b"none", b"/", b"", syscalls.MS_REC | syscalls.MS_SLAVE)


def _new_namespace() -> tuple[int, Route] | OSError:
    """This thread's new network namespace, with `lo`, and a socket that was made in it."""
    try:
        syscalls.unshare(syscalls.CLONE_NEWNET)
        route = Route()
        route.up(1)
        return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC), route
    except OSError as error:
        return error


def _without_resolvers(text: bytes) -> bytes:
    lines = [line for line in text.splitlines() if not line.startswith(b"nameserver")]
    return b"".join(line + b"\n" for line in lines)


def resolv_conf(
    path: str = "/etc/resolv.conf",
    upstream: str = "/run/systemd/resolve/resolv.conf",
    *,
    six: bool = False,
) -> bytes:
    """The host's resolv.conf without resolvers that a private namespace cannot reach: those on loopback, and
    on IPv6 unless `six`.

    With nothing but systemd-resolved's stub in it, the servers behind the stub are read from `upstream`.
    """
    text = read_file(path)
    if not _resolvers(text, local=False, six=six) and _resolvers(text, local=True):
        text = read_file(upstream) or text
    keep = set(_resolvers(text, local=False, six=six))
    lines = [
        line for line in text.splitlines() if not line.startswith(b"nameserver") or _server(line) in keep
    ]
    return b"".join(line + b"\n" for line in lines)


def _resolvers(text: bytes, *, local: bool, six: bool = False) -> list[str]:
    """Resolvers in the text, with `six` those of IPv6 too: the ones on loopback, or the others."""
    found = []
    for server in filter(None, map(_server, text.splitlines())):
        try:
            address = ipaddress.ip_address(server)
        except ValueError:
            continue
        if address.version in (4, 6 if six else 4) and address.is_loopback == local:
            found.append(server)
    return found


def _server(line: bytes) -> str:
    words = line.split()
    return words[1].decode("ascii", "replace") if len(words) > 1 and words[0] == b"nameserver" else ""
