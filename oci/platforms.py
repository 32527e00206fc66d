"""Platforms: their text form, their one normal form, and which of several fits best.

Names are Go's (`GOOS`, `GOARCH`), as the image-spec wants; other spellings (`x86_64`, `aarch64`, `armhf`) are
understood. `str(platform)` is the text form, `os/arch[/variant]`.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from dataclasses import replace

from oci.errors import InvalidPlatform
from oci.model import Platform

_ARCHITECTURES = {
    "x86_64": ("amd64", ""),
    "x86-64": ("amd64", ""),
    "aarch64": ("arm64", ""),
    "armhf": ("arm", "v7"),
    "armel": ("arm", "v6"),
    "armv5l": ("arm", "v5"),
    "armv6l": ("arm", "v6"),
    "armv7l": ("arm", "v7"),
    "armv8l": ("arm", "v8"),
    "i386": ("386", ""),
    "i486": ("386", ""),
    "i586": ("386", ""),
    "i686": ("386", ""),
    "ppc64el": ("ppc64le", ""),
    "loongarch64": ("loong64", ""),
    "mips64el": ("mips64le", ""),
}
_KNOWN_ARCHITECTURES = frozenset(
    {"386", "amd64", "arm", "arm64", "loong64", "mips", "mips64", "mips64le", "mipsle", "ppc64", "ppc64le"}
    | {"riscv64", "s390x", "wasm"}
)
_KNOWN_SYSTEMS = frozenset(
    {"linux", "windows", "darwin", "freebsd", "netbsd", "openbsd", "solaris", "illumos"}
)
_WORD = re.compile(r"[A-Za-z0-9_.-]+")


def host() -> Platform:
    """The platform this process runs on."""
    return normalise(Platform(sys.platform, os.uname().machine))


def parse(text: str) -> Platform:
    """The normal form of `os/arch[/variant]`, of `os` or of `arch` alone; the host supplies what is missing.

    `local` is the host's own platform. Raises InvalidPlatform.
    """
    parts = text.strip().split("/")
    if len(parts) > 3 or not all(_WORD.fullmatch(part) for part in parts):
        raise InvalidPlatform(
            f"{text!r} is no platform; expected os/arch or os/arch/variant, as in linux/arm64"
        )
    if len(parts) > 1:
        return normalise(Platform(parts[0], parts[1], parts[2] if len(parts) == 3 else ""))
    return _of_one_word(parts[0].lower(), text)


def _of_one_word(word: str, text: str) -> Platform:
    here = host()
    if word == "local":
        return here
    if (system := _system(word)) in _KNOWN_SYSTEMS:
        return replace(here, os=system)
    if word in _ARCHITECTURES or word in _KNOWN_ARCHITECTURES:
        return normalise(Platform(here.os, word))
    raise InvalidPlatform(
        f"{text!r} is no operating system or architecture we know; expected e.g. linux/arm64"
    )


def normalise(platform: Platform) -> Platform:
    """The one spelling of a platform: `linux/aarch64/v8` is `linux/arm64`, `linux/arm` is `linux/arm/v7`."""
    architecture, variant = _normal_architecture(platform.architecture.lower(), platform.variant.lower())
    return replace(platform, os=_system(platform.os.lower()), architecture=architecture, variant=variant)


def _system(name: str) -> str:
    return "darwin" if name == "macos" else name


def _normal_architecture(architecture: str, variant: str) -> tuple[str, str]:
    architecture, implied = _ARCHITECTURES.get(architecture, (architecture, ""))
    variant = implied or variant
    match architecture:
        case "amd64":
            return architecture, "" if variant == "v1" else variant
        case "arm64":
            return architecture, "" if variant in ("8", "v8", "v8.0") else _with_v(variant)
        case "arm":
            return architecture, _with_v(variant) or "v7"
    return architecture, variant


def _with_v(variant: str) -> str:
    return f"v{variant}" if variant[:1].isdigit() else variant


def matches(wanted: Platform, offered: Platform) -> bool:
    """Whether both are the same platform, however spelled. An OS version counts only where one is wanted."""
    one, other = normalise(wanted), normalise(offered)
    same = (one.os, one.architecture, one.variant) == (other.os, other.architecture, other.variant)
    return same and one.os_version in ("", other.os_version)


def fitting(wanted: Platform) -> tuple[Platform, ...]:
    """Platforms whose programs run on `wanted`, best first: itself, its lesser variants, its 32-bit kin."""
    wanted = normalise(wanted)
    return tuple(
        replace(wanted, architecture=architecture, variant=variant)
        for architecture, variant in _fitting(wanted.architecture, wanted.variant)
    )


def _fitting(architecture: str, variant: str) -> list[tuple[str, str]]:
    itself = [(architecture, variant)]
    plain = [(architecture, "")] if variant else []
    if architecture == "amd64":
        lesser = [(architecture, level) for level in ("v4", "v3", "v2") if level < variant]
        return [*itself, *lesser, *plain, ("386", "")]
    if architecture == "arm64":
        return [*itself, *plain, *_arm("v8")]
    return _arm(variant) if architecture == "arm" else itself


def _arm(variant: str) -> list[tuple[str, str]]:
    lesser = [("arm", v) for v in ("v8", "v7", "v6", "v5") if v < variant]
    return [("arm", variant), *lesser]


def best(wanted: Platform, offered: Sequence[Platform | None]) -> int | None:
    """The position of the offer that fits best, the first of equals; None if none runs on `wanted`."""
    for candidate in fitting(wanted):
        for position, offer in enumerate(offered):
            if offer is not None and matches(candidate, offer):
                return position
    return None
