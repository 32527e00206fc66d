"""Content addresses: `sha256:<64 hex>` and the chainID made of them (image-spec: descriptor.md,
config.md)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence

from oci.data import dataclass
from oci.errors import InvalidDigest

_GRAMMAR = re.compile(r"sha256:[a-f0-9]{64}|sha512:[a-f0-9]{128}")


@dataclass(frozen=True, slots=True, order=True)
class Digest:
    """An algorithm and its value in lower-case hex. `str()` gives the text form."""

    algorithm: str
    hex: str

    @classmethod
    def parse(cls, text: str) -> Digest:
        """The digest `text` spells. Raises InvalidDigest on anything but sha256 or sha512 in lower case."""
        if not isinstance(text, str) or not _GRAMMAR.fullmatch(text):
            raise InvalidDigest(f"{text!r} is no digest; expected sha256:<64 hex digits> or sha512:<128>")
        algorithm, _, value = text.partition(":")
        return cls(algorithm, value)

    @classmethod
    def of(cls, content: bytes, algorithm: str = "sha256") -> Digest:
        """The digest of `content`."""
        return cls(algorithm, hashlib.new(algorithm, content).hexdigest())

    @property
    def short(self) -> str:
        """The first twelve hex digits, as people read ids."""
        return self.hex[:12]

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hex}"


def chain_id(diff_ids: Sequence[Digest]) -> Digest:
    """The identity of a stack of layers, lowest first (image-spec: config.md, Layer ChainID).

    Raises ValueError for an empty stack: `scratch` has no chainID.
    """
    if not diff_ids:
        raise ValueError("a chainID needs at least one diffID")
    return list(chain_ids(diff_ids))[-1]


def chain_ids(diff_ids: Iterable[Digest]) -> Iterable[Digest]:
    """The chainID of every prefix of the stack, lowest first."""
    chain: Digest | None = None
    for diff_id in diff_ids:
        chain = diff_id if chain is None else Digest.of(f"{chain} {diff_id}".encode())
        yield chain
