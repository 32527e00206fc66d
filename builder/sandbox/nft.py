"""The few nftables objects a builder needs, by nfnetlink: no `nft`, no `iptables` in sight.

A builder's own table has the owner flag: the kernel removes it with the socket, also when the builder is
killed, and nobody else can change it (KERNEL.md 5.3). So its presence also tells that the builder lives:
rules we put into other tables carry its name in their comment, and a comment without its table is a dead
builder's.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

from builder.sandbox.netlink import (
    ACK,
    APPEND,
    CREATE,
    EXCL,
    NETFILTER,
    Netlink,
    attr,
    attributes,
    nest,
    text,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

_SUBSYSTEM = 10 << 8
_NEWTABLE, _GETTABLE, _DELTABLE, _NEWCHAIN, _GETCHAIN = 0, 1, 2, 3, 4
_NEWRULE, _GETRULE, _DELRULE = 6, 7, 8
_BATCH_BEGIN, _BATCH_END = 16, 17
_OWNER = 2
INET, IPV4, IPV6 = 1, 2, 10
FORWARD, POSTROUTING = 2, 4
DROP, ACCEPT = 0, 1


class Chain(NamedTuple):
    """A base chain; `policy` is DROP or ACCEPT."""

    family: int
    table: str
    name: str
    hook: int
    policy: int


class Rule(NamedTuple):
    """A rule; `comment` is empty when it has none, `jump` when it goes to no other chain."""

    chain: str
    handle: bytes
    comment: str
    drops: bool
    jump: str


def _u32(value: int) -> bytes:
    return struct.pack(">I", value)


def _expr(name: str, *data: bytes) -> bytes:
    return nest(1, text(1, name), nest(2, *data))


def _value(data: bytes) -> bytes:
    return attr(1, data)


def interface(key: str, name: str, *, prefix: bool = False, equal: bool = True) -> bytes:
    """Match the interface's name; `key` is `iif` or `oif`. A prefix is a comparison of fewer bytes, as
    iptables' `+`.
    """
    data = name.encode() if prefix else name.encode().ljust(16, b"\0")
    load = _expr("meta", attr(1, _u32(1)), attr(2, _u32(6 if key == "iif" else 7)))
    return load + _expr("cmp", attr(1, _u32(1)), attr(2, _u32(0 if equal else 1)), nest(3, _value(data)))


def source_network(first: bytes) -> bytes:
    """Match packets whose source address begins with these bytes: three of IPv4, or eight of IPv6."""
    at = 12 if len(first) < 4 else 8
    load = _expr("payload", attr(1, _u32(1)), attr(2, _u32(1)), attr(3, _u32(at)), attr(4, _u32(len(first))))
    return load + _expr("cmp", attr(1, _u32(1)), attr(2, _u32(0)), nest(3, _value(first)))


def not_an_answer() -> bytes:
    """Match packets that belong to no established or related connection."""
    mask = struct.pack("=I", 2 | 4)
    bits = (
        attr(1, _u32(1)),
        attr(2, _u32(1)),
        attr(3, _u32(4)),
        nest(4, _value(mask)),
        nest(5, _value(bytes(4))),
    )
    load = _expr("ct", attr(1, _u32(1)), attr(2, _u32(0)))
    return (
        load
        + _expr("bitwise", *bits)
        + _expr("cmp", attr(1, _u32(1)), attr(2, _u32(0)), nest(3, _value(bytes(4))))
    )


def masquerade() -> bytes:
    """Source NAT to the outgoing interface's address."""
    return _expr("masq")


def verdict(code: int) -> bytes:
    """ACCEPT or DROP."""
    return _expr("immediate", attr(1, _u32(0)), nest(2, nest(2, attr(1, _u32(code)))))


class Nft(Netlink):
    """nftables in the caller's network namespace."""

    def __init__(self) -> None:
        super().__init__(NETFILTER)

    def _message(self, kind: int, family: int, body: bytes, flags: int) -> bytes:
        return self.message(_SUBSYSTEM | kind, struct.pack(">BBH", family, 0, 0) + body, flags)

    def _batch(self, what: str, messages: Sequence[tuple[int, int, bytes, int]]) -> None:
        border = struct.pack(">BBH", 0, 0, 10)
        packed = [self.message(_BATCH_BEGIN, border, 0)]
        packed += [self._message(kind, family, body, flags | ACK) for kind, family, body, flags in messages]
        self.send(what, [*packed, self.message(_BATCH_END, border, 0)])

    def make_table(
        self,
        name: str,
        chains: Sequence[tuple[str, str, int, int, bytes]],
        *,
        owned: bool,
        family: int = IPV4,
    ) -> None:
        """A table with one rule in each chain of (name, type, hook, priority, expressions). All of it
        or nothing.

        OSError with EEXIST or EPERM: the name is taken.
        """
        flags = attr(2, _u32(_OWNER)) if owned else b""
        messages = [(_NEWTABLE, family, text(1, name) + flags, CREATE | EXCL)]
        for chain, kind, hook, priority, expressions in chains:
            where = nest(4, attr(1, _u32(hook)), attr(2, struct.pack(">i", priority)))
            body = text(1, name) + text(3, chain) + where + text(7, kind)
            messages.append((_NEWCHAIN, family, body, CREATE))
            rule = text(1, name) + text(2, chain) + nest(4, expressions)
            messages.append((_NEWRULE, family, rule, CREATE | APPEND))
        self._batch(f"make nftables table {name}", messages)

    def delete_table(self, name: str, family: int = IPV4) -> None:
        """Remove a table with all in it."""
        self._batch(f"delete nftables table {name}", [(_DELTABLE, family, text(1, name), 0)])

    def tables(self, family: int = IPV4) -> set[str]:
        """Names of the tables of a family."""
        return {_name(answer, 1) for answer in self._list(_GETTABLE, family)}

    def base_chains(self, hook: int) -> list[Chain]:
        """Base chains of that hook that IPv4 or IPv6 packets pass."""
        found = []
        for answer in self._list(_GETCHAIN, 0):
            has = dict(attributes(answer[4:]))
            if answer[0] in (INET, IPV4, IPV6) and 4 in has:
                where = dict(attributes(has[4]))
                policy = struct.unpack(">I", has[5])[0] if 5 in has else ACCEPT
                if struct.unpack(">I", where[1])[0] == hook:
                    found.append(Chain(answer[0], _name(answer, 1), _name(answer, 3), hook, policy))
        return found

    def rules(self, family: int, table: str, chain: str = "") -> list[Rule]:
        """The rules of a table or of one of its chains."""
        body = text(1, table) + (text(2, chain) if chain else b"")
        found = []
        for answer in self._list(_GETRULE, family, body):
            has = dict(attributes(answer[4:]))
            rule = Rule(_name(answer, 2), has[3], _comment(has.get(7, b"")), *_effect(has.get(4, b"")))
            if not chain or rule.chain == chain:
                found.append(rule)
        return found

    def lets_pass(self, chain: Chain) -> bool:
        """Whether neither a chain's policy nor a rule on any way through it ends a packet."""
        if chain.policy == DROP:
            return False
        rules = self.rules(chain.family, chain.table)
        seen, waiting = set(), [chain.name]
        while waiting:
            name = waiting.pop()
            seen.add(name)
            here = [rule for rule in rules if rule.chain == name]
            if any(rule.drops for rule in here):
                return False
            waiting += {rule.jump for rule in here if rule.jump} - seen
        return True

    def insert_rule(self, chain: Chain, expressions: bytes, comment: str) -> None:
        """Put a rule first in a chain."""
        note = comment.encode() + b"\0"
        body = text(1, chain.table) + text(2, chain.name) + nest(4, expressions)
        body += attr(7, bytes((0, len(note))) + note)
        self._batch(f"insert rule into {chain.table} {chain.name}", [(_NEWRULE, chain.family, body, CREATE)])

    def delete_rule(self, chain: Chain, handle: bytes) -> None:
        """Remove a rule; one that is gone already is no error."""
        body = text(1, chain.table) + text(2, chain.name) + attr(3, handle)
        try:
            self._batch(f"delete rule from {chain.table} {chain.name}", [(_DELRULE, chain.family, body, 0)])
        except FileNotFoundError:
            pass

    def _list(self, kind: int, family: int, body: bytes = b"") -> list[bytes]:
        return self.ask("list nftables", _SUBSYSTEM | kind, struct.pack(">BBH", family, 0, 0) + body)


def _name(answer: bytes, kind: int) -> str:
    return dict(attributes(answer[4:]))[kind].rstrip(b"\0").decode()


def _comment(userdata: bytes) -> str:
    """The comment in a rule's user data: records of type, length, value; a comment is type 0."""
    at = 0
    while at + 2 <= len(userdata):
        kind, length = userdata[at], userdata[at + 1]
        if kind == 0:
            return userdata[at + 2 : at + 2 + length].rstrip(b"\0").decode(errors="replace")
        at += 2 + length
    return ""


def _effect(expressions: bytes) -> tuple[bool, str]:
    """Whether a rule may end a packet (`drop`, `reject`, a verdict map), and the chain it goes to, if any."""
    drops, jump = False, ""
    for _, element in attributes(expressions):
        has = dict(attributes(element))
        name, data = has.get(1, b"").rstrip(b"\0"), has.get(2, b"")
        if name == b"reject" or (name == b"target" and (b"REJECT\0" in data or b"DROP\0" in data)):
            drops = True
        elif name == b"lookup":
            drops = drops or dict(attributes(data)).get(3) == _u32(0)  # what is in the map is not looked at
        elif name == b"immediate":
            value = dict(attributes(dict(attributes(data)).get(2, b"")))
            verdict_ = dict(attributes(value.get(2, b"")))
            drops = drops or verdict_.get(1) == _u32(DROP)
            jump = verdict_.get(2, b"").rstrip(b"\0").decode()
    return drops, jump
