"""Which ports of a container are published, as `-p`, `-P` and lists of containers word it.

The form is docker's: `[[ip:][hostPort]:]containerPort[/protocol]`, where either port may be a range.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence
from typing import Literal, cast

from builder.errors import UsageError
from oci.data import dataclass

Protocol = Literal["tcp", "udp"]

EVERYWHERE = ("0.0.0.0", "::")
"""The addresses that a port is bound to when none was named: all of IPv4 and, where there is any, of IPv6."""

_FORM = "[[IP:][HOST_PORT]:]CONTAINER_PORT[/tcp|/udp]"
_RANGE = re.compile(r"(\d+)(?:-(\d+))?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Port:
    """A container's port and where it is published.

    With `host_ip` empty it is all addresses of the host; `host_port` 0 asks for a free one. A `host_end`
    asks for the first free one of `host_port` to `host_end`.
    """

    host_ip: str
    host_port: int
    container_port: int
    protocol: Protocol
    host_end: int = 0

    @property
    def inside(self) -> str:
        """The container's port as docker writes it: `80/tcp`."""
        return f"{self.container_port}/{self.protocol}"

    @property
    def outside(self) -> str:
        """The host's side as docker writes it: `0.0.0.0:8080`, `[::]:8080`."""
        return f"{bracketed(self.host_ip or EVERYWHERE[0])}:{_shown(self.host_port, self.host_end)}"

    def __str__(self) -> str:
        return f"{self.outside}->{self.inside}"


def parse(texts: Sequence[str]) -> tuple[Port, ...]:
    """What the values of `-p` ask for, each once, in their order.

    Raises UsageError with the form that was expected.
    """
    return tuple(dict.fromkeys(port for text in texts for port in _parse(text)))


def exposed(texts: Iterable[str], besides: Iterable[Port] = ()) -> tuple[Port, ...]:
    """What `-P` publishes: each of an image's exposed ports (`80/tcp`, `53/udp`, `80`) at a free port of the
    host, but those that are published already, `besides`.

    Raises UsageError for what is no port.
    """
    taken = {port.inside for port in besides}
    ports = (port for text in sorted(texts) for port in _parse(text))
    return tuple(port for port in dict.fromkeys(ports) if port.inside not in taken)


def listed(ports: Iterable[Port], exposes: Iterable[str] = ()) -> str:
    """The PORTS of `ps`: what is published, neighbours as one range, then what is exposed only.

    As docker: `0.0.0.0:8000-8001->80-81/tcp, [::]:8000-8001->80-81/tcp, 443/tcp`.
    """
    published = list(ports)
    taken = {port.inside for port in published}
    words = []
    order = sorted(published, key=lambda port: (port.protocol, port.host_ip != EVERYWHERE[0], port.host_ip,
                                                port.container_port, port.host_port))  # fmt: skip
    for first, last in _runs(order):
        outside = _shown(first.host_port, last.host_port)
        inside = _shown(first.container_port, last.container_port)
        words.append(f"{bracketed(first.host_ip)}:{outside}->{inside}/{first.protocol}")
    words += [port.inside for port in exposed(exposes) if port.inside not in taken]
    return ", ".join(words)


def bracketed(address: str) -> str:
    """An address as it stands before a port."""
    return f"[{address}]" if ":" in address else address


def _runs(ports: list[Port]) -> list[tuple[Port, Port]]:
    """The first and last of each run of ports that are neighbours on both sides."""
    runs: list[tuple[Port, Port]] = []
    for port in ports:
        if runs and _is_next(runs[-1][1], port):
            runs[-1] = (runs[-1][0], port)
        else:
            runs.append((port, port))
    return runs


def _is_next(before: Port, port: Port) -> bool:
    same = (before.host_ip, before.protocol) == (port.host_ip, port.protocol)
    steps = port.host_port - before.host_port, port.container_port - before.container_port
    return same and steps == (1, 1)


def _shown(first: int, last: int) -> str:
    return f"{first}-{last}" if last > first else str(first)


def _parse(text: str) -> Iterable[Port]:
    rest, slash, protocol = text.partition("/")
    host, _, inside = rest.rpartition(":")
    address, colon, outside = host.rpartition(":")
    if host.endswith("]") or (not colon and "." in host):
        raise _wrong(text, f"after an IP address come two ports: {host}::{inside}")
    kind = _protocol(text, protocol if slash else "tcp")
    ip = _address(text, address)
    first, last = _range(text, inside, lowest=1)
    if not outside:
        return [Port(ip, 0, port, kind) for port in range(first, last + 1)]
    low, high = _range(text, outside, lowest=0)
    if high - low == last - first:
        return [Port(ip, low + at, first + at, kind) for at in range(last - first + 1)]
    if first != last or not low:
        raise _wrong(text, f"the ranges {outside} and {inside} are of different length")
    return [Port(ip, low, first, kind, high)]


def _protocol(text: str, word: str) -> Protocol:
    name = word.lower()
    if name in ("tcp", "udp"):
        return cast("Protocol", name)
    if name == "sctp":
        raise UsageError(f"-p {text}: sctp cannot be published", hint="tcp and udp can")
    raise _wrong(text, f"{word!r} is no protocol")


def _address(text: str, word: str) -> str:
    if not word:
        return ""
    bare = word[1:-1] if word[0] + word[-1] == "[]" else word
    try:
        return str(ipaddress.ip_address(bare))
    except ValueError:
        raise _wrong(text, f"{word!r} is no IP address") from None


def _range(text: str, word: str, *, lowest: int) -> tuple[int, int]:
    found = _RANGE.fullmatch(word)
    if found is None:
        raise _wrong(text, f"{word!r} is no port" if word else "the container's port is missing")
    first, last = int(found[1]), int(found[2] or found[1])
    if not lowest <= first <= last <= 0xFFFF:
        expected = "ports are 1 to 65535, and a range begins with the lower one"
        raise _wrong(text, f"{word} is no port: {expected}")
    return first, last


def _wrong(text: str, why: str) -> UsageError:
    return UsageError(f"-p {text}: {why}", hint=f"expected {_FORM}, e.g. 8080:80, 127.0.0.1:8000-8005:80-85")
