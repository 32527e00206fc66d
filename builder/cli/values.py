"""Values on the command line as docker writes them: pairs, hosts, sizes, limits, clocks."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable

from builder.errors import UsageError

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?", re.IGNORECASE)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_HOST = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,252})")
_LIMITS = (
    "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss",
    "rtprio", "rttime", "sigpending", "stack",
)  # fmt: skip
_EPOCH = "SOURCE_DATE_EPOCH"


def pairs(option: str, texts: Iterable[str], *, empty: bool = False) -> dict[str, str]:
    """`NAME=VALUE` texts; with `empty`, NAME alone has an empty value."""
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not name or not (equals or empty):
            raise UsageError(f"{option} {text!r} is no NAME=VALUE")
        found[name] = value
    return found


def contexts(texts: Iterable[str]) -> dict[str, str]:
    """`--build-context NAME[::PLATFORM]=SOURCE`, by names whose platforms are written as everywhere here."""
    found = {}
    for name, value in pairs("--build-context", texts).items():
        base, mark, platform = name.rpartition("::")
        found[f"{base}::{_platform(name, platform)}" if mark and base else name] = value
    return found


def _platform(name: str, text: str) -> str:
    from oci import platforms
    from oci.errors import InvalidPlatform

    try:
        return str(platforms.parse(text))
    except InvalidPlatform as error:
        raise UsageError(f"--build-context {name}: {error}", hint="write NAME::linux/arm64=SOURCE") from None


def words(texts: Iterable[str]) -> tuple[str, ...]:
    """All words of texts that hold some each, with commas between them."""
    return tuple(each for text in texts for each in text.split(",") if each)


def variables(option: str, texts: Iterable[str]) -> dict[str, str]:
    """`NAME[=VALUE]` texts: a name alone has the environment's value, and is left out without one."""
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not name:
            raise UsageError(f"{option} {text!r} has no name")
        if equals:
            found[name] = value
        elif name in os.environ:
            found[name] = os.environ[name]
    return found


def argument_file(path: str) -> dict[str, str]:
    """`--build-arg-file`: a NAME=VALUE per line, empty lines and those that begin with # left out."""
    try:
        with open(path, encoding="utf-8") as file:
            lines = file.read().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "no UTF-8 text"
        raise UsageError(f"--build-arg-file {path} cannot be read: {reason}") from None
    found = {}
    for number, line in enumerate(lines, 1):
        name, equals, value = line.partition("=")
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if not equals or not name.strip():
            raise UsageError(f"--build-arg-file {path}:{number}: {line!r} is no NAME=VALUE")
        found[name.strip()] = value
    return found


def extensions(texts: Iterable[str], shell_strict: bool) -> frozenset[str]:
    """`--enable NAME,...` and `--shell-strict`, which is one of them."""
    found = {name.strip() for text in texts for name in text.split(",")} - {""}
    return frozenset(found | {"shell-strict"} if shell_strict else found)


def hosts(texts: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """`--add-host HOST:IP` or `HOST=IP`; an IPv6 address may be in brackets."""
    found = []
    for text in texts:
        cut = text.find("=") if "=" in text else text.find(":")
        name, address = text[:cut], text[cut + 1 :].removeprefix("[").removesuffix("]")
        if cut < 0 or not _HOST.fullmatch(name) or not (address == "host-gateway" or _is_address(address)):
            raise UsageError(f"--add-host {text!r} is no HOST:IP", hint="e.g. --add-host db:10.0.0.5")
        found.append((name, address))
    return tuple(found)


def _is_address(text: str) -> bool:
    import ipaddress

    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def size(option: str, text: str) -> int:
    """Bytes: a number, or one with b, k, m, g or t (powers of 1024)."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"{option} {text!r} is no size", hint="e.g. 64m or 1g")
    return int(float(match[1]) * 1024 ** _POWERS[match[2].lower()])


def security_opts(texts: Iterable[str]) -> tuple[str, ...]:
    """`--security-opt`: what has an effect, sorted. A note says of what else Docker takes: it has none."""
    from builder.entitlements import NO_NEW_PRIVILEGES, UNFILTERED

    found: set[str] = set()
    for text in texts:
        name, _, value = text.replace(":", "=", 1).partition("=")
        if name == NO_NEW_PRIVILEGES and value in ("", "true", "false"):
            (found.discard if value == "false" else found.add)(NO_NEW_PRIVILEGES)
        elif f"{name}={value}" == UNFILTERED:
            found.add(UNFILTERED)
        elif name in ("apparmor", "label") and value:
            note = f"--security-opt {text} has no effect: steps run under the builder's own {name}"
            sys.stderr.write(f"note: {note}\n")
        else:
            raise UsageError(
                f"--security-opt {text!r} is not known",
                hint=f"there are {NO_NEW_PRIVILEGES}, {UNFILTERED}, and without effect apparmor= and label=",
            )
    return tuple(sorted(found))


def ulimits(texts: Iterable[str]) -> tuple[tuple[str, int, int], ...]:
    """`--ulimit NAME=SOFT[:HARD]`; -1 is no limit."""
    found = []
    for text in texts:
        name, _, limits = text.partition("=")
        soft, colon, hard = limits.partition(":")
        if name not in _LIMITS:
            raise UsageError(f"--ulimit {text!r}: no limit {name!r}", hint=f"there are {', '.join(_LIMITS)}")
        try:
            low, high = int(soft), int(hard if colon else soft)
        except ValueError:
            raise UsageError(
                f"--ulimit {text!r} is no NAME=SOFT[:HARD]", hint="e.g. nofile=1024:4096"
            ) from None
        if high != -1 and (low > high or low == -1):
            raise UsageError(f"--ulimit {text!r}: the soft limit is above the hard one")
        found.append((name, low, high))
    return tuple(found)


def git_labels(context: str, dockerfile: str) -> dict[str, str]:
    """The labels that BUILDX_GIT_LABELS asks for, of a directory. Raises ContextError."""
    if not (_is_true("BUILDX_GIT_LABELS", "full") and os.path.isdir(context)):
        return {}
    from builder.contexts import checkout

    found = checkout.labels(context, dockerfile, check_dirty=_is_true("BUILDX_GIT_CHECK_DIRTY"))
    if os.environ["BUILDX_GIT_LABELS"] != "full":
        found.pop(checkout.SOURCE, None)
    return found


def _is_true(variable: str, *more: str) -> bool:
    return os.environ.get(variable, "") in ("1", "t", "T", "true", "TRUE", "True", *more)


def clock(text: str | None, arguments: dict[str, str], context: str) -> int | None:
    """The build's clock, in seconds since 1970: `--timestamp`, else SOURCE_DATE_EPOCH. That of the context,
    which is known later, becomes a build argument.
    """
    if text == "commit":
        from builder.contexts.git import commit_time

        return commit_time(context)
    for name, value in (
        ("--timestamp", text),
        (f"--build-arg {_EPOCH}", arguments.get(_EPOCH)),
        (_EPOCH, os.environ.get(_EPOCH)),
    ):
        if value == "context":
            arguments[_EPOCH] = value
            return None
        if value:
            from builder.epoch import seconds

            return seconds(name, value)
    return None
