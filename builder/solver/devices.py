"""CDI: which devices this machine has, and what a step gets to see of one (I42).

The files of /etc/cdi and, of higher priority, /var/run/cdi describe devices as edits of a container: nodes,
mounts, variables and groups, in JSON or YAML. What cannot be done is an error, never left out:
hooks are programs that would run as the builder, outside of every sandbox.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from builder.errors import SandboxError
from builder.sandbox.spec import Bind
from builder.solver.shown import Shown
from oci.data import dataclass

PLACES = ("/etc/cdi", "/var/run/cdi")
CLASS = "org.mobyproject.buildkit.device.class"
"""The annotation by which BuildKit gives devices of several vendors one name."""

_MOST_BYTES = 4 << 20
_DONE = frozenset({"env", "deviceNodes", "mounts", "additionalGids"})
_OPTIONS = {
    **dict.fromkeys(("bind", "rbind", "ro", "rw", "nodev", "dev", "suid", "exec", "private", "rprivate"), ""),
    **dict.fromkeys(("slave", "rslave", "shared", "rshared"), ""),
    "nosuid": "nosuid",
    "noexec": "noexec",
}
"""Options of mounts that can be had. Nothing ever propagates back to the host."""


class CdiError(ValueError):
    """A device that cannot be given to a step; the text is for people."""


@dataclass(frozen=True, slots=True)
class Known:
    """A device of this machine: its full name, class, and the edits of its file and of itself."""

    name: str
    label: str
    edits: tuple[Mapping[str, Any], ...]
    file: str


def shown(names: Iterable[tuple[str, bool]], places: Sequence[str] = ()) -> Shown:
    """What a step sees of devices, given as (name, whether it is required). Raises SandboxError."""
    catalogue = _Catalogue(places or PLACES)
    found: dict[str, Known] = {}
    for name, required in names:
        chosen = catalogue.find(name)
        if not chosen and required:
            raise SandboxError(f"the device {name} is not on this machine", hint=catalogue.hint())
        found.update((each.name, each) for each in chosen)
    parts = [_edited(device, edits) for device in found.values() for edits in device.edits]
    mounts = {each.target: each for part in parts for each in part.mounts}
    groups = dict.fromkeys(gid for part in parts for gid in part.groups)
    return Shown(tuple(mounts.values()), tuple(pair for part in parts for pair in part.env), tuple(groups))


class _Catalogue:
    """All devices that the files of some places describe; a later place wins."""

    def __init__(self, places: Sequence[str]) -> None:
        self._places = places
        self._known: dict[str, Known] = {}
        self._unread: list[str] = []
        self._broken: dict[str, str] = {}
        for place in places:
            here: dict[str, Known] = {}
            for device in (each for path in self._files(place) for each in self._devices(path)):
                if device.name in here:
                    files = f"{here[device.name].file} and {device.file}"
                    self._broken[device.name] = f"the device {device.name} is described by {files}"
                else:
                    self._broken.pop(device.name, None)
                here[device.name] = device
            self._known |= here

    def find(self, name: str) -> list[Known]:
        """The devices that `name` means, in order. Raises SandboxError for one that two files describe."""
        kind, equals, one = name.partition("=")
        if "/" not in kind:
            found = [each for each in self._known.values() if each.label == kind]
        elif equals and one != "*":
            found = [self._known[name]] if name in self._known else []
        else:
            found = [each for each in self._known.values() if each.name.partition("=")[0] == kind]
            found = found if equals else found[:1]
        for each in found:
            if each.name in self._broken:
                raise SandboxError(self._broken[each.name], hint="keep one of them")
        return found

    def hint(self) -> str:
        """What there is instead."""
        if self._unread:
            return f"this cannot be read: {', '.join(self._unread[:3])}"
        if self._known:
            return f"there are {', '.join(list(self._known)[:10])}"
        return f"no file of {' or '.join(self._places)} describes a device"

    def _files(self, place: str) -> list[str]:
        try:
            names = sorted(os.listdir(place))
        except OSError:
            return []
        paths = [os.path.join(place, name) for name in names]
        self._unread += [f"{path} (its name is to end with .yaml)" for path in paths if path.endswith(".yml")]
        return [path for path in paths if path.endswith((".json", ".yaml"))]

    def _devices(self, path: str) -> list[Known]:
        try:
            document = _read(path)
            kind = _text(document, "kind")
            common = _table(document, "containerEdits")
            return [_device(document, each, kind, common, path) for each in _tables(document, "devices")]
        except (OSError, ValueError) as error:
            self._unread.append(f"{path} ({error})")
            return []


def _device(
    document: Mapping[str, Any], device: Mapping[str, Any], kind: str, common: Mapping[str, Any], path: str
) -> Known:
    label = _table(device, "annotations").get(CLASS) or _table(document, "annotations").get(CLASS)
    edits = (common, _table(device, "containerEdits"))
    return Known(f"{kind}={_text(device, 'name')}", str(label or ""), edits, path)


def _read(path: str) -> Mapping[str, Any]:
    with open(path, "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise CdiError("it is no regular file")
        content = file.read(_MOST_BYTES + 1)
    if len(content) > _MOST_BYTES:
        raise CdiError("it is too large")
    try:
        document = _yaml(content) if path.endswith(".yaml") else json.loads(content)
    except RecursionError:
        raise CdiError("it is nested too deeply") from None
    if not isinstance(document, dict):
        raise CdiError("it is no object")
    return document


def _yaml(content: bytes) -> object:
    """A document in YAML, whose tags make nothing but data. Raises CdiError with the place of a mistake."""
    import yaml  # only here, and only for such a file

    try:
        return yaml.load(content, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise CdiError(f"{line}{error.problem}") from None
    except yaml.YAMLError as error:
        raise CdiError(" ".join(str(error).split())) from None


def _edited(device: Known, edits: Mapping[str, Any]) -> Shown:
    """One set of containerEdits. Raises SandboxError for what cannot be done."""
    try:
        for name in edits:
            if name not in _DONE and edits[name]:
                why = "they would run outside of the sandbox" if name == "hooks" else "they are not known"
                raise CdiError(f"it has {name}: {why}")
        nodes = [_node(each) for each in _tables(edits, "deviceNodes")]
        mounts = [_mount(each) for each in _tables(edits, "mounts")]
        env = [_variable(each) for each in _list(edits, "env")]
        return Shown((*nodes, *mounts), tuple(env), tuple(_gids(edits)))
    except CdiError as error:
        hint = "use a description without it: the device itself, its mounts and variables can be given"
        raise SandboxError(f"the device {device.name} of {device.file}: {error}", hint=hint) from None


def _node(node: Mapping[str, Any]) -> Bind:
    """A device node: the host's own, with the host's owner and mode."""
    target = _path(node, "path")
    source = _path(node, "hostPath") if node.get("hostPath") else target
    try:
        found = os.stat(source)
    except OSError as error:
        raise CdiError(f"{source}: {error.strerror}") from None
    if not (stat.S_ISCHR(found.st_mode) or stat.S_ISBLK(found.st_mode) or stat.S_ISFIFO(found.st_mode)):
        raise CdiError(f"{source} is no device")
    there = {"uid": found.st_uid, "gid": found.st_gid, "fileMode": stat.S_IMODE(found.st_mode)}
    for name, value in there.items():
        if node.get(name) not in (None, value):
            raise CdiError(f"{source} has {name} {value}, and is to be shown with {node[name]}")
    if not {*"rw"} <= {*(node.get("permissions") or "rwm")}:
        raise CdiError(f"{source} is to be shown with the permissions {node['permissions']}, which needs rw")
    return Bind(source, target, directory=False, flags=("dev", "nosuid", "noexec"))


def _mount(mount: Mapping[str, Any]) -> Bind:
    """A path of the host; read-only unless it is said to be writable."""
    source, target = _path(mount, "hostPath"), _path(mount, "containerPath")
    options = [str(each) for each in _list(mount, "options")]
    unknown = [each for each in options if each not in _OPTIONS]
    if unknown or mount.get("type") not in (None, "", "bind", "none"):
        raise CdiError(f"the mount at {target} has {unknown[0] if unknown else 'type ' + str(mount['type'])}")
    try:
        directory = stat.S_ISDIR(os.stat(source).st_mode)
    except OSError as error:
        raise CdiError(f"{source}: {error.strerror}") from None
    flags = tuple(sorted({_OPTIONS[each] for each in options} - {""}))
    return Bind(source, target, "rw" not in options, directory=directory, flags=flags)


def _variable(text: object) -> tuple[str, str]:
    name, equals, value = str(text).partition("=")
    if not name or not equals or "\0" in value:
        raise CdiError(f"`{name}` is no variable with a value")
    return name, value


def _gids(edits: Mapping[str, Any]) -> list[int]:
    found = _list(edits, "additionalGids")
    if not all(isinstance(each, int) and 0 <= each < 2**31 for each in found):
        raise CdiError("additionalGids holds something else than groups")
    return [each for each in found if each]


def _path(table: Mapping[str, Any], name: str) -> str:
    path = _text(table, name)
    if not path.startswith("/") or "\0" in path or ".." in path.split("/") or path.strip("/") == "":
        raise CdiError(f"{name} is no absolute path")
    return path


def _text(table: Mapping[str, Any], name: str) -> str:
    value = table.get(name)
    if not isinstance(value, str) or not value:
        raise CdiError(f"{name} is missing")
    return value


def _table(table: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = table.get(name) or {}
    if not isinstance(value, dict):
        raise CdiError(f"{name} is no object")
    return value


def _list(table: Mapping[str, Any], name: str) -> list[Any]:
    value = table.get(name) or []
    if not isinstance(value, list):
        raise CdiError(f"{name} is no list")
    return value


def _tables(table: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    found = _list(table, name)
    if not all(isinstance(each, dict) for each in found):
        raise CdiError(f"{name} holds something else than objects")
    return found
