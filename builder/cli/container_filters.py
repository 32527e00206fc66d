"""`--filter` of `ps`: which containers were asked for."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable

from builder.cli import containers
from builder.cli.session import Session
from builder.errors import NotFound, UsageError
from builder.roster import Listed
from oci.errors import OciError

Filter = Callable[[Listed], bool]

_STATES = ("created", "restarting", "running", "removing", "paused", "exited", "dead")
_KEYS = (
    "ancestor", "before", "exited", "expose", "id", "label", "name", "network", "publish", "since", "status",
    "volume",
)  # fmt: skip
_PORTS = re.compile(r"(\d+)(?:-(\d+))?(?:/(tcp|udp|sctp))?", re.ASCII)


def filters(session: Session, texts: Iterable[str], known: list[Listed]) -> tuple[list[Filter], bool]:
    """What `--filter KEY=VALUE` asks for, and whether that is of containers that do not run too.

    One key's values are alternatives, but labels: a container has all of them. Raises UsageError, NotFound.
    """
    wanted: dict[str, list[str]] = defaultdict(list)
    for each in texts:
        key, equals, value = each.partition("=")
        if not equals:
            raise UsageError(f"--filter {each!r} is no KEY=VALUE", hint="e.g. --filter status=exited")
        if key not in _KEYS:
            raise UsageError(f"--filter {key!r} does not exist", hint=f"there are {', '.join(_KEYS)}")
        wanted[key].append(value)
    found: list[Filter] = []
    for key, values in wanted.items():
        made = [_filter(session, key, value, known) for value in values]
        together = all if key == "label" else any
        found.append(lambda each, made=made, together=together: together(one(each) for one in made))  # type: ignore[misc]
    return found, "status" in wanted


def _filter(session: Session, key: str, value: str, known: list[Listed]) -> Filter:
    match key:
        case "id":
            pattern = _pattern(key, value)
            return lambda each: bool(pattern.search(each.id))
        case "name":
            pattern = _pattern(key, value)
            return lambda each: bool(pattern.search(each.name) or pattern.search(f"/{each.name}"))
        case "label":
            name, has_value, content = value.partition("=")
            return lambda each: _has_label(each, name, content if has_value else None)
        case "status":
            if value not in _STATES:
                raise UsageError(
                    f"--filter status={value} is no state", hint=f"there are {', '.join(_STATES)}"
                )
            return lambda each: each.status == value
        case "exited":
            code = _number(value)
            return lambda each: each.status == "exited" and int(each.state.get("exit_code", 0)) == code
        case "before" | "since":
            moment = one_of(known, value).created
            return lambda each: each.created < moment if key == "before" else each.created > moment
        case "network":
            return lambda each: containers.network(each) == value
        case "volume":
            return lambda each: any(
                value in (mount.get("source"), mount.get("target"))
                for mount in each.request.get("volumes") or []
            )
        case "publish" | "expose":
            wanted = _ports(key, value)
            return lambda each: bool(wanted & _ports_of(session, each, key))
    return _ancestor(session, value)


def one_of(known: list[Listed], word: str) -> Listed:
    """The container that a name, an id or the beginning of one means. Raises NotFound, UsageError."""
    for each in known:
        if word.removeprefix("/") == each.name or word == each.id:
            return each
    found = [each for each in known if word and each.id.startswith(word)]
    if len(found) > 1:
        raise UsageError(f"{word!r} begins several container ids", hint="give more digits")
    if not found:
        raise NotFound(f"no container {word!r}", hint="pybuild ps -a lists the containers")
    return found[0]


def _pattern(key: str, value: str) -> re.Pattern[str]:
    try:
        return re.compile(value)
    except re.error as error:
        raise UsageError(f"--filter {key}={value}: {error}") from None


def _number(value: str) -> int:
    if not value.isdecimal():
        raise UsageError(f"--filter exited={value}: expected an exit code")
    return int(value)


def _has_label(each: Listed, name: str, value: str | None) -> bool:
    labels = dict(each.config.get("labels") or [])
    return name in labels and value in (None, labels[name])


def _ports(key: str, value: str) -> set[str]:
    found = _PORTS.fullmatch(value)
    if found is None or not int(found[1]) <= int(found[2] or found[1]) <= 0xFFFF:
        raise UsageError(f"--filter {key}={value}: expected PORT[-PORT][/tcp|/udp]")
    first, last = int(found[1]), int(found[2] or found[1])
    return {f"{port}/{found[3] or 'tcp'}" for port in range(first, last + 1)}


def _ports_of(session: Session, each: Listed, key: str) -> set[str]:
    """`publish` looks at the ports of the host, `expose` at those of the container."""
    bound = containers.ports(each)
    if key == "publish":
        return {f"{port.host_port}/{port.protocol}" for port in bound}
    exposed = (port if "/" in port else f"{port}/tcp" for port in containers.exposed(session, each))
    return {port.inside for port in bound} | set(exposed)


def _ancestor(session: Session, value: str) -> Filter:
    """Containers of an image, or of one that has its layers below its own."""
    try:
        layers = session.images.resolve(value).image.config.value.diff_ids
    except NotFound:
        return lambda each: False

    def fits(each: Listed) -> bool:
        try:
            own = session.images.for_platform(each.manifest).config.value.diff_ids
        except OciError:
            return False
        return own[: len(layers)] == layers

    return fits
