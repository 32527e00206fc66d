"""What `-v`, `--mount` and `--tmpfs` of a container ask for, in docker's forms.

-v [SOURCE:]TARGET[:OPTION,...]     SOURCE is a host's path or a volume's name; without it the volume is new
--mount type=bind|volume|tmpfs,source=...,target=...,readonly,...
--tmpfs TARGET[:OPTION,...]
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Literal

from builder.errors import UsageError
from oci.data import dataclass

NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{1,254}")
"""What a volume may be called."""

_SIZE = re.compile(r"(\d+)([bkmgt]?)b?", re.ASCII | re.IGNORECASE)
_MODE = re.compile(r"[0-7]{1,4}", re.ASCII)
_TRUE, _FALSE = ("1", "true", "t"), ("0", "false", "f")
_PRIVATE = ("private", "rprivate")
_SHARED = ("shared", "rshared", "slave", "rslave")
_CONSISTENCY = ("consistent", "cached", "delegated", "default")
_SAME = {"src": "source", "dst": "target", "destination": "target", "ro": "readonly", "rw": "readwrite"}
_KEYS = {
    "bind": ("bind-propagation", "bind-create-src"),
    "volume": ("volume-nocopy", "volume-driver"),
    "tmpfs": ("tmpfs-size", "tmpfs-mode"),
}

Warn = Callable[[str], None]
Kind = Literal["bind", "volume", "tmpfs"]


@dataclass(frozen=True, slots=True)
class Volume:
    """What a container sees at the absolute path `target`.

    `source` is a host's path for a bind and a name for a volume ("": one that is still to be made). A new
    volume is filled from the image if `copy`. `size` (bytes, 0: as much as the kernel gives), `mode` and
    `executable` are a tmpfs'. With `create`, a bind's source that is missing is made, a directory.
    """

    kind: Kind
    source: str
    target: str
    read_only: bool = False
    copy: bool = True
    size: int = 0
    mode: int = 0o1777
    create: bool = False
    executable: bool = False


def parse(texts: Sequence[str], warn: Warn) -> tuple[Volume, ...]:
    """The values of `-v`. `warn` hears of options that have no effect. Raises UsageError."""
    return tuple(_short(text, warn) for text in texts)


def parse_mounts(texts: Sequence[str]) -> tuple[Volume, ...]:
    """The values of `--mount`. Raises UsageError."""
    return tuple(_long(text) for text in texts)


def parse_tmpfs(texts: Sequence[str]) -> tuple[Volume, ...]:
    """The values of `--tmpfs`. Raises UsageError."""
    return tuple(_tmpfs(text) for text in texts)


def arranged(volumes: Iterable[Volume], declared: Iterable[str] = ()) -> tuple[Volume, ...]:
    """All of a container's volumes, in the order in which they are mounted: what lies in another after it.

    Where the image has `declared` a volume and nothing else is mounted, there is a new one. Raises UsageError
    when two are mounted at one place.
    """
    found: dict[str, Volume] = {}
    for each in volumes:
        if each.target in found:
            raise UsageError(f"duplicate mount point: {each.target}", hint="mount one thing there")
        found[each.target] = each
    for path in declared:
        target = posixpath.normpath("/" + path.lstrip("/"))
        if target != "/" and target not in found:
            found[target] = Volume("volume", "", target)
    return tuple(sorted(found.values(), key=lambda each: (each.target.count("/"), each.target)))


# ---- -v ----


def _short(text: str, warn: Warn) -> Volume:
    said = f"-v {text}"
    parts = text.split(":")
    if len(parts) > 3 or not all(parts):
        raise UsageError(f"{said}: expected [SOURCE:]TARGET[:OPTIONS]", hint="e.g. -v data:/var/lib/data:ro")
    if len(parts) == 1:
        return Volume("volume", "", _target(said, parts[0]))
    source, target = parts[:2]
    if not target.startswith("/") and source.startswith("/"):
        raise UsageError(
            f"{said}: {target!r} is no absolute path, and options need a source",
            hint="expected [SOURCE:]TARGET[:OPTIONS], e.g. -v data:/var/lib/data:ro",
        )
    target = _target(said, target)
    if source.startswith(("/", ".")):
        made = Volume("bind", os.path.abspath(source), target, create=True)
    else:
        made = Volume("volume", checked_name(source, said), target)
    return _with_options(made, said, parts[2].split(",") if len(parts) == 3 else [], warn)


def _with_options(volume: Volume, said: str, options: Sequence[str], warn: Warn) -> Volume:
    if len({*options}) < len(options) or {"ro", "rw"} <= {*options} or {"z", "Z"} <= {*options}:
        raise UsageError(f"{said}: options contradict or repeat each other")
    for option in options:
        if option == "ro":
            volume = replace(volume, read_only=True)
        elif option == "nocopy" and volume.kind == "volume":
            volume = replace(volume, copy=False)
        elif option in ("z", "Z"):
            warn(f"{said}: {option} has no effect, SELinux labels are left as they are")
        elif option in _SHARED:
            raise _propagation(said, option)
        elif option not in ("rw", *_PRIVATE, *_CONSISTENCY):
            known = "ro, rw, z, Z" + (", nocopy" if volume.kind == "volume" else "")
            raise UsageError(f"{said}: {option!r} is no option of a {volume.kind}", hint=f"there are {known}")
    return volume


def checked_name(name: str, said: str) -> str:
    """A volume's name. Raises UsageError."""
    if not NAME.fullmatch(name):
        hint = "letters, digits, _, . and -, two of them at least; a host's directory begins with / or ./"
        raise UsageError(f"{said}: {name!r} is no name for a volume", hint=hint)
    return name


def _target(said: str, path: str) -> str:
    if not path.startswith("/"):
        raise UsageError(f"{said}: {path!r} is no absolute path", hint="expected [SOURCE:]TARGET[:OPTIONS]")
    target = "/" + posixpath.normpath(path).lstrip("/")
    if target == "/":
        raise UsageError(f"{said}: nothing can be mounted at /, the container's root")
    return target


def _propagation(said: str, word: str) -> UsageError:
    return UsageError(
        f"{said}: mounts cannot be {word}", hint="mounts of a container are its own (private): leave it out"
    )


# ---- --mount ----


def _long(text: str) -> Volume:
    said = f"--mount {text}"
    fields = _fields(said, text)
    kind = fields.pop("type", "volume")
    if kind not in _KEYS:
        raise UsageError(f"{said}: there is no type {kind!r}", hint="there are bind, volume and tmpfs")
    source, target = fields.pop("source", ""), fields.pop("target", "")
    if not target:
        raise UsageError(f"{said}: where to? target=PATH is missing")
    made = Volume(kind, source, _target(said, target))  # type: ignore[arg-type]
    made = replace(made, read_only=_read_only(said, fields))
    if (word := fields.pop("consistency", "default")) not in _CONSISTENCY:
        raise UsageError(f"{said}: consistency {word!r} is none of {', '.join(_CONSISTENCY)}")
    for key in fields:
        if key not in _KEYS[kind]:
            raise _unknown(said, key, kind)
    match kind:
        case "bind":
            return _bind(said, made, fields)
        case "volume":
            return _volume(said, made, fields)
    return _memory(said, made, fields)


def _fields(said: str, text: str) -> dict[str, str]:
    import csv

    try:
        (words,) = csv.reader([text], strict=True)
    except (csv.Error, ValueError) as error:
        raise UsageError(
            f"{said}: expected KEY=VALUE,..., a value with a comma in quotes ({error})"
        ) from None
    fields: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        key = _SAME.get(key.lower(), key.lower())
        if not equals and key not in ("readonly", "readwrite", "volume-nocopy", "bind-create-src"):
            raise UsageError(
                f"{said}: {word!r} is no KEY=VALUE", hint="e.g. type=bind,source=/src,target=/dst"
            )
        if key in fields:
            raise UsageError(f"{said}: {key} is there twice")
        fields[key] = value if equals else "true"
    return fields


def _unknown(said: str, key: str, kind: str) -> UsageError:
    if any(key in keys for keys in _KEYS.values()):
        return UsageError(f"{said}: {key} is not for type={kind}")
    known = ("type", "source", "target", "readonly", "consistency", *_KEYS[kind])
    return UsageError(f"{said}: {key} cannot be given", hint=f"there are {', '.join(known)}")


def _read_only(said: str, fields: dict[str, str]) -> bool:
    write = _flag(said, "rw", fields.pop("readwrite", "true"))
    only = _flag(said, "readonly", fields.pop("readonly", "true" if not write else "false"))
    return only or not write


def _flag(said: str, key: str, value: str) -> bool:
    if value.lower() in _TRUE:
        return True
    if value.lower() in _FALSE:
        return False
    raise UsageError(f"{said}: {key} is true or false, not {value!r}")


def _bind(said: str, made: Volume, fields: dict[str, str]) -> Volume:
    if not made.source.startswith(("/", ".")):
        expected = "expected a path that begins with / or ./"
        raise UsageError(f"{said}: {made.source!r} is no source of a bind", hint=expected)
    if (word := fields.get("bind-propagation", "private")) not in _PRIVATE:
        raise _propagation(said, word)
    create = _flag(said, "bind-create-src", fields.get("bind-create-src", "false"))
    return replace(made, source=os.path.abspath(made.source), create=create)


def _volume(said: str, made: Volume, fields: dict[str, str]) -> Volume:
    if made.source:
        checked_name(made.source, said)
    if (driver := fields.get("volume-driver", "local")) != "local":
        raise UsageError(f"{said}: there is no driver {driver!r}", hint="there is local")
    return replace(made, copy=not _flag(said, "volume-nocopy", fields.get("volume-nocopy", "false")))


def _memory(said: str, made: Volume, fields: dict[str, str]) -> Volume:
    if made.source:
        raise UsageError(f"{said}: a tmpfs has no source")
    made = replace(made, size=_size(said, fields.get("tmpfs-size", "0")))
    return replace(made, mode=_mode(said, fields.get("tmpfs-mode", "1777")))


# ---- --tmpfs ----


def _tmpfs(text: str) -> Volume:
    said = f"--tmpfs {text}"
    path, _, rest = text.partition(":")
    made = Volume("tmpfs", "", _target(said, path))
    for option in rest.split(",") if rest else ():
        key, equals, value = option.partition("=")
        if key == "size" and equals:
            made = replace(made, size=_size(said, value))
        elif key == "mode" and equals:
            made = replace(made, mode=_mode(said, value))
        elif option in ("ro", "rw"):
            made = replace(made, read_only=option == "ro")
        elif option in ("exec", "noexec"):
            made = replace(made, executable=option == "exec")
        elif option not in ("nosuid", "nodev"):
            hint = "there are size=, mode=, ro, rw, exec and noexec; it is nosuid and nodev"
            raise UsageError(f"{said}: {option!r} cannot be given", hint=hint)
    return made


def _size(said: str, text: str) -> int:
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise UsageError(f"{said}: {text!r} is no size", hint="e.g. 64m or 1g")
    return int(found[1]) << 10 * "bkmgt".index(found[2].lower() or "b")


def _mode(said: str, text: str) -> int:
    if not _MODE.fullmatch(text):
        raise UsageError(f"{said}: {text!r} is no mode", hint="four octal digits at most, e.g. 1770")
    return int(text, 8)
