"""Rows about images, as docker words them, and which of them were asked for."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterable

from builder.cli import text
from builder.errors import UsageError
from builder.images import Entry, Images
from oci.reference import Reference

NONE = "<none>"
TITLES = {
    "Repository": "REPOSITORY",
    "Tag": "TAG",
    "Digest": "DIGEST",
    "ID": "IMAGE ID",
    "CreatedSince": "CREATED",
    "CreatedAt": "CREATED AT",
    "Size": "SIZE",
}
_UNKNOWN = dict.fromkeys(("Containers", "SharedSize", "UniqueSize"), "N/A")
"""Fields that docker has and does not tell here either."""
HISTORY_TITLES = {
    "ID": "IMAGE",
    "CreatedSince": "CREATED",
    "CreatedAt": "CREATED AT",
    "CreatedBy": "CREATED BY",
    "Size": "SIZE",
    "Comment": "COMMENT",
}

Named = tuple[Entry, Reference | None]
Filter = Callable[[Named], bool]


def named(entries: Iterable[Entry]) -> list[Named]:
    """One row for each name; an image without one has a row too."""
    return [(entry, name) for entry in entries for name in entry.names or (None,)]


def row(entry: Entry, name: Reference | None, *, full: bool) -> dict[str, str]:
    """The fields of one row of `images`."""
    return {
        "Repository": (repository(name) if name else NONE),
        "Tag": (name.tag or NONE) if name else NONE,
        "ID": str(entry.id) if full else entry.id.short,
        "Digest": str(entry.descriptor.digest),
        "CreatedAt": text.stamp(entry.created),
        "CreatedSince": text.age(entry.created),
        "Size": text.size(entry.size),
        **_UNKNOWN,
    }


def repository(name: Reference) -> str:
    """A name as people write it, without its tag."""
    familiar = name.familiar()
    return familiar.partition("@")[0] if name.digest else familiar.removesuffix(f":{name.tag}")


def filters(texts: Iterable[str], images: Images) -> list[Filter]:
    """What `--filter KEY=VALUE` asks for. Raises UsageError for keys that do not exist."""
    return [_filter(each, images) for each in texts]


def _filter(written: str, images: Images) -> Filter:
    key, equals, value = written.partition("=")
    if not equals:
        raise UsageError(f"--filter {written!r} is no KEY=VALUE", hint="e.g. --filter dangling=true")
    match key:
        case "dangling":
            if value.lower() not in ("true", "false", "1", "0"):
                raise UsageError(f"--filter {written!r}: expected dangling=true or dangling=false")
            wanted = value.lower() in ("true", "1")
            return lambda each: (each[1] is None) == wanted
        case "label":
            name, has_value, content = value.partition("=")
            return lambda each: _has_label(each[0], name, content if has_value else None)
        case "reference":
            return lambda each: each[1] is not None and matches(each[1], value)
        case "before" | "since":
            # The first of the store's order is the newest.
            moment = text.seconds_of(images.resolve(value).created) or 0.0
            before = key == "before"
            return lambda each: _is_older(each[0], moment) if before else _is_newer(each[0], moment)
    raise UsageError(
        f"--filter {key!r} does not exist", hint="there are dangling, label, reference, before and since"
    )


def matches(name: Reference, pattern: str) -> bool:
    """Whether a name fits a pattern, which may name the repository alone, in its short or its full form."""
    forms = (repository(name), name.familiar(), name.repository, str(name))
    return any(fnmatch.fnmatchcase(form, pattern) for form in forms)


def _has_label(entry: Entry, name: str, value: str | None) -> bool:
    labels = entry.image.config.value.config.labels
    return name in labels and value in (None, labels[name])


def _is_older(entry: Entry, moment: float) -> bool:
    return (text.seconds_of(entry.created) or 0.0) < moment


def _is_newer(entry: Entry, moment: float) -> bool:
    return (text.seconds_of(entry.created) or 0.0) > moment
