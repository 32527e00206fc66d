"""Image names, digests and platforms."""

from __future__ import annotations

from oci import platforms
from oci.digest import Digest
from oci.errors import InvalidDigest, InvalidPlatform, InvalidReference
from oci.reference import Reference

SEEDS = (
    b"registry.example:5000/team/app:v1@sha256:" + b"0" * 64,
    b"localhost/a__b/c--d",
    b"[::1]:5000/a",
    b"sha512:" + b"a" * 128,
    b"linux/arm64/v8",
)
WORDS = (
    b"docker.io/",
    b"library/",
    b"sha256:",
    b"sha512:",
    b"[::1]",
    b"linux/",
    b"arm/v7",
    b"windows(10.0)/",
)


def target(data: bytes) -> None:
    """What is read, reads the same when it is written."""
    text = data.decode("utf-8", "surrogateescape")
    try:
        name = Reference.parse(text)
        assert Reference.parse(str(name)) == name
        name.familiar()
        assert Reference.parse(name.familiar()) == name
    except InvalidReference as error:
        assert str(error)
    try:
        digest = Digest.parse(text)
        assert str(digest) == text
    except InvalidDigest as error:
        assert str(error)
    try:
        platforms.parse(text)
    except InvalidPlatform as error:
        assert str(error)
