"""Who a step runs as and who owns what it copies: names of USER and `--chown`, resolved in the image.

SECURITY.md S31: a number is never looked up as a name, ids above 2^31-1 are refused, and the supplementary
groups contain the primary one. S32: /etc/passwd and /etc/group belong to the image, so they are opened
inside it, only as regular files, and read up to 16 MiB.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from builder.errors import SandboxError
from builder.tree import Tree
from oci.data import dataclass
from oci.tar.entry import Kind

_MOST_BYTES = 16 << 20
_LONGEST_LINE = 64 << 10
_MOST_ID = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Identity:
    """A resolved USER. `groups` are the supplementary groups, the primary one first; `home` is for HOME."""

    uid: int
    gid: int
    groups: tuple[int, ...] = (0,)
    home: str = "/"


def resolve_owner(tree: Tree, spec: str) -> tuple[int, int]:
    """uid and gid of `--chown=USER[:GROUP]`.

    A name alone brings its primary group, a number alone stands for the group too (FEATURES.md I23). `root`
    is 0 whatever the image says, as BuildKit has it. Raises SandboxError for names that the image lacks.
    """
    user, group = _without_root(spec)
    uid = _number(user or "0")
    if uid is None:
        uid, gid = _named_user(tree, user)
    else:
        gid = uid
    return uid, _group(tree, group) if group else gid


def resolve_user(tree: Tree, spec: str) -> Identity:
    """The identity of `USER spec` in the image (FEATURES.md I15); an empty `spec` is root.

    Without a group: the primary group and those that list the user in /etc/group. With one: only that,
    and `root` is then 0 in an image that has no users, as BuildKit has it. A number that /etc/passwd does not
    know runs with group 0. Raises SandboxError for names that the image does not know.
    """
    user, _, group = (spec or "0").partition(":")
    if group and all(_number(each) is not None for each in _without_root(spec)):
        user, group = _without_root(spec)
    row = _passwd_row(tree, user or "0")
    name, uid, gid, home = row
    if group:
        gid = _group(tree, group)
        return Identity(uid, gid, (gid,), home)
    extra = [each for each in _groups_of(tree, name) if each != gid] if name else []
    return Identity(uid, gid, (gid, *dict.fromkeys(extra)), home)


def _without_root(spec: str) -> tuple[str, str]:
    """User and group of `USER[:GROUP]`, with 0 for `root`."""
    user, _, group = spec.partition(":")
    return "0" if user == "root" else user, "0" if group == "root" else group


def _passwd_row(tree: Tree, user: str) -> tuple[str, int, int, str]:
    """(name, uid, gid, home) of a name or number; a number unknown to the image has no name and group 0."""
    wanted = _number(user)
    for name, uid, gid, home in _passwd(tree):
        if uid == wanted if wanted is not None else name == user:
            return name, uid, gid, home or "/"
    if wanted is None:
        raise _unknown("user", user, "/etc/passwd", [row[0] for row in _passwd(tree)])
    return "", wanted, 0, "/"


def _named_user(tree: Tree, user: str) -> tuple[int, int]:
    _, uid, gid, _ = _passwd_row(tree, user)
    return uid, gid


def _group(tree: Tree, group: str) -> int:
    number = _number(group)
    if number is not None:
        return number
    for name, gid, _ in _group_rows(tree):
        if name == group:
            return gid
    raise _unknown("group", group, "/etc/group", [row[0] for row in _group_rows(tree)])


def _groups_of(tree: Tree, user: str) -> list[int]:
    return [gid for _, gid, members in _group_rows(tree) if user in members]


def _number(text: str) -> int | None:
    """An id written as a number; None for a name. Raises SandboxError for one that no kernel takes."""
    digits = text[1:] if text[:1] in ("-", "+") else text
    if not (digits.isascii() and digits.isdigit()):
        return None
    if text[0] == "-" or len(digits) > 10 or int(digits) > _MOST_ID:
        raise SandboxError(f"{text} is no user or group id: expected 0 to {_MOST_ID}")
    return int(digits)


def _passwd(tree: Tree) -> Iterator[tuple[str, int, int, str]]:
    for fields in _rows(tree, b"etc/passwd"):
        uid, gid = _field(fields, 2), _field(fields, 3)
        if uid is not None and gid is not None:
            yield fields[0], uid, gid, fields[5] if len(fields) > 5 else ""


def _group_rows(tree: Tree) -> Iterator[tuple[str, int, frozenset[str]]]:
    for fields in _rows(tree, b"etc/group"):
        gid = _field(fields, 2)
        if gid is not None:
            yield fields[0], gid, frozenset(fields[3].split(",") if len(fields) > 3 else ())


def _field(fields: list[str], index: int) -> int | None:
    """A row's id; None when it is missing or none that a kernel takes, and the row then does not count."""
    text = fields[index] if len(fields) > index else ""
    if not (text.isascii() and text.isdigit()) or len(text) > 10:
        return None
    return number if (number := int(text)) <= _MOST_ID else None


def _rows(tree: Tree, path: bytes) -> Iterator[list[str]]:
    """The rows of an image's passwd or group; none when the file is missing, special or a directory."""
    for line in _read(tree, path).split(b"\n"):
        if line and len(line) <= _LONGEST_LINE and not line.startswith(b"#"):
            yield line.decode(errors="surrogateescape").strip().split(":")


def _read(tree: Tree, path: bytes) -> bytes:
    try:
        real = tree.resolve(path)
    except OSError:  # a loop of links
        return b""
    node = tree.lstat(real)
    if node is None or node.kind is not Kind.FILE:
        return b""
    if node.size > _MOST_BYTES:
        raise SandboxError(f"/{path.decode()} of the image has {node.size} bytes; the limit is {_MOST_BYTES}")
    descriptor = tree.open(real)
    try:
        with os.fdopen(descriptor, "rb", closefd=False) as stream:
            return stream.read(node.size)  # asked for more, it takes that much memory first
    finally:
        os.close(descriptor)


def _unknown(what: str, name: str, where: str, known: list[str]) -> SandboxError:
    from difflib import get_close_matches

    near = get_close_matches(name, known, 1)
    hint = (
        f"did you mean {near[0]}?"
        if near
        else f"add it with a RUN before, or write a number: names come from {where}"
    )
    return SandboxError(f"{what} {name!r} is not in {where} of the image", hint=hint)
