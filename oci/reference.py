"""Image names: `[domain/]path[:tag][@digest]`, as people write them and as registries know them.

The grammar is the one registries enforce (distribution's reference package); short names mean what they mean
to `docker`: no domain is docker.io, and one word there lives in `library/`.
"""

from __future__ import annotations

import re
from dataclasses import replace

from oci.data import dataclass
from oci.digest import Digest
from oci.errors import InvalidDigest, InvalidReference

DEFAULT_DOMAIN = "docker.io"
DEFAULT_TAG = "latest"
MAX_NAME = 255
"""The longest path, in characters."""

_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_HOST = rf"(?:{_LABEL}(?:\.{_LABEL})*|\[(?:[a-fA-F0-9:]+)\])"
_COMPONENT = r"[a-z0-9]+(?:(?:[._]|__|[-]+)[a-z0-9]+)*"
_DOMAIN = re.compile(rf"{_HOST}(?::[0-9]+)?")
_PATH = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_IMAGE_ID = re.compile(r"[a-f0-9]{64}")


@dataclass(frozen=True, slots=True, order=True)
class Reference:
    """An image's name. `str()` is the full form, `familiar()` the short one."""

    domain: str
    path: str
    tag: str = ""
    digest: Digest | None = None

    @classmethod
    def parse(cls, text: str) -> Reference:
        """The reference `text` means. Raises InvalidReference with what is wrong and what would be right."""
        if not text:
            raise InvalidReference("an image name is empty; expected something like `ubuntu:24.04`")
        if _IMAGE_ID.fullmatch(text):
            raise InvalidReference(f"{_shown(text)} is an image id, not a name; a name is not 64 hex digits")
        name, _, digest_text = text.partition("@")
        digest = _digest(digest_text, text) if "@" in text else None
        domain, rest = _split_domain(name)
        path, colon, tag = rest.partition(":")
        if colon:
            _check_tag(tag, text)
        _check_name(domain, path, text)
        return cls(domain, path, tag, digest)

    @property
    def repository(self) -> str:
        """The name without tag and digest: `docker.io/library/ubuntu`."""
        return f"{self.domain}/{self.path}"

    @property
    def locator(self) -> str:
        """What to ask a registry for: the digest where there is one, else the tag, else `latest`."""
        return str(self.digest) if self.digest else self.tag or DEFAULT_TAG

    def with_default_tag(self) -> Reference:
        """This, with the tag `latest` if it has neither tag nor digest."""
        return self if self.tag or self.digest else replace(self, tag=DEFAULT_TAG)

    def with_tag(self, tag: str) -> Reference:
        """The same repository, another tag, no digest. Raises InvalidReference."""
        _check_tag(tag, tag)
        return replace(self, tag=tag, digest=None)

    def with_digest(self, digest: Digest) -> Reference:
        """This, pinned."""
        return replace(self, digest=digest)

    def familiar(self) -> str:
        """As people write it: `ubuntu:latest` for `docker.io/library/ubuntu:latest`."""
        name = self.path if self.domain == DEFAULT_DOMAIN else self.repository
        short = name.removeprefix("library/")
        if short != name and "/" not in short and self._is(short):
            name = short
        elif not self._is(name):
            name = self.repository
        return name + self._suffix()

    def _is(self, name: str) -> bool:
        """Whether people who write `name` mean this repository."""
        domain, path = _split_domain(name)
        return (domain, path) == (self.domain, self.path) and not _IMAGE_ID.fullmatch(name)

    def _suffix(self) -> str:
        return (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")

    def __str__(self) -> str:
        return self.repository + self._suffix()


def _split_domain(name: str) -> tuple[str, str]:
    """The domain and the rest; the first word is a domain if it could not be a path, or is `localhost`."""
    first, slash, rest = name.partition("/")
    is_domain = slash and (not {".", ":"}.isdisjoint(first) or first == "localhost" or first != first.lower())
    domain, path = (first, rest) if is_domain else (DEFAULT_DOMAIN, name)
    if domain == "index.docker.io":
        domain = DEFAULT_DOMAIN
    if domain == DEFAULT_DOMAIN and "/" not in path:
        path = f"library/{path}"
    return domain, path


def _check_name(domain: str, path: str, text: str) -> None:
    if path != path.lower():
        written = path if path in text else path.removeprefix("library/")
        right = text.replace(written, written.lower())
        raise InvalidReference(
            f"{_shown(text)}: repository names are lower case; did you mean {_shown(right)}?"
        )
    if not _DOMAIN.fullmatch(domain):
        raise InvalidReference(f"{_shown(text)}: {_shown(domain)} is no registry; expected host[:port]")
    if len(path) > MAX_NAME:
        raise InvalidReference(
            f"{_shown(text)}: the path has {len(path)} characters; at most {MAX_NAME} are allowed"
        )
    if not _PATH.fullmatch(path):
        raise InvalidReference(
            f"{_shown(text)} is no image name: {_shown(path)} must be words of a-z and 0-9, joined by "
            "one of . _ __ or dashes, and separated by /"
        )


def _check_tag(tag: str, text: str) -> None:
    if not _TAG.fullmatch(tag):
        raise InvalidReference(
            f"{_shown(text)}: {_shown(tag)} is no tag; expected up to 128 of A-Z a-z 0-9 _ . -, "
            "not starting with . or -"
        )


def _digest(text: str, whole: str) -> Digest:
    try:
        return Digest.parse(text)
    except InvalidDigest as error:
        raise InvalidReference(f"{_shown(whole)}: {error}") from None


def _shown(text: str) -> str:
    """Quoted, and short enough for one line: names come from Dockerfiles and from the network."""
    return repr(text if len(text) <= 160 else text[:150] + "...")
