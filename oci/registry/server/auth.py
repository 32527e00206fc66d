"""Who may use the registry: users and passwords of an htpasswd file.

The formats of Apache's htpasswd that are not broken: bcrypt (`-B`), apr1 (`-m`), and {SHA} (`-s`), which is
accepted because it is found in the field. A file that changes is read again.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import sys
import threading
from dataclasses import dataclass

from oci.errors import OciError
from oci.registry.server.problems import Problem

REALM = "pybuild registry"
_ALPHABET = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_ROUNDS = 1000
_REMEMBERED = 1024
_AT_ONCE = 2
"""Passwords that are hashed at the same time: guessing must not take every processor."""
_FORMATS = "bcrypt (htpasswd -B), apr1 (-m) and {SHA} (-s)"


class Htpasswd:
    """The users of a file. Raises OciError at once if it cannot be used."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._secret = os.urandom(32)
        self._seen: tuple[int, ...] = ()
        self._users: dict[str, str] = {}
        self._known: set[bytes] = set()
        self._verifying = threading.BoundedSemaphore(_AT_ONCE)
        self._refresh()

    def user(self, header: str) -> str:
        """The user that an Authorization header proves. Raises Problem (401)."""
        name, password = _basic(header)
        users = self._refresh()
        if header and self._matches(users, name, password):
            return name
        challenge = (("WWW-Authenticate", f'Basic realm="{REALM}", charset="UTF-8"'),)
        said = "the user or the password is wrong" if header else "authentication required"
        raise Problem(401, "UNAUTHORIZED", said, headers=challenge)

    def _matches(self, users: dict[str, str], name: str, password: bytes) -> bool:
        """Slow hashes are computed once for each password that is right; a wrong one costs all there is."""
        # A name that is unknown takes as long as one that is known, and always as long.
        stored = users.get(name) or self._decoy(users, name)
        proof = hmac.digest(self._secret, f"{name}\0{stored}\0".encode() + password, "sha256")
        if proof in self._known:
            return True
        with self._verifying:
            right = verify(stored, password) and name in users
        if right:
            with self._lock:
                if len(self._known) >= _REMEMBERED:
                    self._known.clear()
                self._known.add(proof)
        return right

    def _decoy(self, users: dict[str, str], name: str) -> str:
        """Some user's hash, for a name that is none: as if the name were one with that kind of hash."""
        number = int.from_bytes(hmac.digest(self._secret, name.encode(), "sha256")[:8])
        return list(users.values())[number % len(users)]

    def _refresh(self) -> dict[str, str]:
        try:
            status = os.stat(self._path)
        except OSError as error:
            raise OciError(f"{self._path}: {error.strerror}") from None
        seen = (status.st_ino, status.st_mtime_ns, status.st_size)
        with self._lock:
            if seen != self._seen:
                self._seen = seen
                self._users = self._reread()
                self._known.clear()
            return self._users

    def _reread(self) -> dict[str, str]:
        try:
            return _read(self._path)
        except OciError as error:
            if not self._users:
                raise
            sys.stderr.write(f"warning: {error}; the users of before stay\n")
            return self._users


def _read(path: str) -> dict[str, str]:
    users: dict[str, str] = {}
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            text = line.strip()
            if not text or text.startswith("#"):
                continue
            name, colon, stored = text.partition(":")
            if not colon or not name or not _is_known(stored):
                raise OciError(f"{path}:{number}: expected user:password with the password as {_FORMATS}")
            users[name] = stored
    if not users:
        raise OciError(f"{path} names no user; make one with: htpasswd -B {path} NAME")
    if any(stored.startswith("$2") for stored in users.values()):
        _bcrypt()
    return users


def _is_known(stored: str) -> bool:
    return stored.startswith(("$2y$", "$2b$", "$2a$", "$apr1$", "{SHA}"))


def verify(stored: str, password: bytes) -> bool:
    """Whether a password is the one of an htpasswd entry."""
    if stored.startswith("{SHA}"):
        hashed = base64.b64encode(hashlib.sha1(password, usedforsecurity=False).digest())
        return hmac.compare_digest(hashed, stored[5:].encode())
    if stored.startswith("$apr1$"):
        salt = stored[6:].partition("$")[0]
        return hmac.compare_digest(apr1(password, salt.encode()).encode(), stored.encode())
    return _bcrypt().verify(stored, password)


@dataclass(frozen=True, slots=True)
class _Bcrypt:
    check: object

    def verify(self, stored: str, password: bytes) -> bool:
        try:
            # 72 bytes are all that bcrypt ever looked at; newer libraries refuse more.
            return bool(self.check(password[:72], stored.encode()))  # type: ignore[operator]
        except ValueError:
            return False


def _bcrypt() -> _Bcrypt:
    try:
        from bcrypt import checkpw
    except ImportError:
        raise OciError(
            "passwords in bcrypt need the Python package bcrypt: install it, or use htpasswd -m"
        ) from None
    return _Bcrypt(checkpw)


def apr1(password: bytes, salt: bytes) -> str:
    """Apache's MD5 password hash: FreeBSD's md5crypt with its own magic."""
    salt = salt[:8]

    def md5(content: bytes) -> bytes:
        return hashlib.md5(content, usedforsecurity=False).digest()

    inner = md5(password + salt + password)
    text = password + b"$apr1$" + salt + (inner * (len(password) // 16 + 1))[: len(password)]
    length = len(password)
    while length:
        text += b"\0" if length & 1 else password[:1]
        length >>= 1
    value = md5(text)
    for turn in range(_ROUNDS):
        odd = turn & 1
        text = password if odd else value
        text += salt if turn % 3 else b""
        text += password if turn % 7 else b""
        value = md5(text + (value if odd else password))
    return f"$apr1${salt.decode()}${_encoded(value)}"


def _encoded(value: bytes) -> str:
    """md5crypt's own base 64: bytes in threes that lie six apart."""
    out = ""
    for first, second, third in ((0, 6, 12), (1, 7, 13), (2, 8, 14), (3, 9, 15), (4, 10, 5)):
        out += _digits(value[first] << 16 | value[second] << 8 | value[third], 4)
    return out + _digits(value[11], 2)


def _digits(number: int, count: int) -> str:
    return "".join(_ALPHABET[number >> 6 * position & 63] for position in range(count))


def _basic(header: str) -> tuple[str, bytes]:
    """User and password of a Basic header (RFC 7617); empty if there is none."""
    scheme, _, text = header.partition(" ")
    if scheme.lower() != "basic":
        return "", b""
    try:
        name, _, password = base64.b64decode(text.strip(), validate=True).partition(b":")
        return name.decode(), password
    except (binascii.Error, UnicodeDecodeError):
        return "", b""
