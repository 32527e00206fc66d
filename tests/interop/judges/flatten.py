"""Read an image archive (OCI layout or `docker save`) into a config and one flat tree, with tarfile alone.

This is the judge of other tests, so it shares no code with `oci/`: layers are applied in order with the
image-spec's whiteout rules (layer.md), every digest on the way is checked, and each path of the outcome is
told in one line:

    file 0644 0:0 'hello\\n'          dir 1777 0:0          link 0:0 -> busybox          char 0644 0:0 1,3

followed by extended attributes and, for a file with several names, by the list of them. Times are left out.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from judges.files import Archive, Device, Dir, Expected, Fifo, File, Gone, Hard, Link

Tree = dict[str, str]
_SHOWN_WHOLE = 300


@dataclass(frozen=True, slots=True)
class Flat:
    """An image as a user meets it: `config` is the whole document, `tree` a line for each absolute path."""

    config: Mapping[str, Any]
    tree: Tree


class Node:
    """One inode of the flat tree. Names that share it are hard links of each other."""

    __slots__ = ("is_dir", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.is_dir = text.startswith("dir ")


@dataclass(frozen=True, slots=True)
class _Change:
    path: str
    node: Node | None  # None: a hard link to `link`
    link: str = ""


@dataclass(frozen=True, slots=True)
class _Layer:
    whiteouts: tuple[str, ...]
    opaque: tuple[str, ...]
    changes: tuple[_Change, ...]


def read_image(path: str) -> Flat:
    """The one image of an OCI or `docker save` archive; raises ValueError where that contradicts itself."""
    with tarfile.open(path) as archive:
        names = set(archive.getnames())
        if "index.json" in names:
            config, layers = _oci(archive)
        else:
            config, layers = _docker(archive)
    wanted = config["rootfs"]["diff_ids"]
    if len(wanted) != len(layers):
        raise ValueError(f"{len(layers)} layers, but the config lists {len(wanted)} diff ids")
    tree: dict[str, Node] = {}
    for diff_id, blob in zip(wanted, layers, strict=True):
        _apply(tree, _parse_layer(diff_id, blob))
    return Flat(config, _lines(tree))


def expected_tree(base: Tree, changes: Mapping[str, Expected]) -> Tree:
    """What `base` becomes by `changes`: entries by absolute path, `GONE` removes one with all below it."""
    tree = dict(base)
    groups: dict[str, list[str]] = {}
    for path, entry in changes.items():
        match entry:
            case Gone():
                for name in [n for n in tree if n == path or n.startswith(path + "/")]:
                    del tree[name]
            case Hard():
                groups.setdefault(entry.to, [entry.to]).append(path)
            case _:
                if not isinstance(entry, Dir):
                    for name in [n for n in tree if n.startswith(path + "/")]:
                        del tree[name]
                tree[path] = describe(entry)
    for first, members in groups.items():
        for path in members:
            tree[path] = tree[first]
        for path in members:
            tree[path] += _names(members)
    return tree


def describe(entry: str | File | Dir | Link | Fifo | Device | Archive) -> str:
    """The line of one entry, hard links apart."""
    match entry:
        case str():
            return describe(File(entry))
        case File():
            return _line("file", entry.mode, entry.owner, content(entry.data), entry.xattrs)
        case Dir():
            return _line("dir", entry.mode, entry.owner, "", entry.xattrs)
        case Link():
            return f"link {entry.owner[0]}:{entry.owner[1]} -> {entry.target}"
        case Fifo():
            return _line("fifo", entry.mode, entry.owner)
        case Device():
            return _line(entry.kind, entry.mode, entry.owner, f"{entry.major},{entry.minor}")
        case _:
            raise ValueError("an archive is not something a golden tree can hold")


def content(data: bytes) -> str:
    """Short contents as they are, long ones by their digest."""
    if len(data) <= _SHOWN_WHOLE:
        return repr(data.decode("utf-8", "backslashreplace"))
    return f"{len(data)} bytes sha256:{hashlib.sha256(data).hexdigest()}"


def differences(ours: Tree, theirs: Tree) -> list[str]:
    """One line for every path that is not the same on both sides, parents before what is in them."""
    found = []
    for path in sorted(ours.keys() | theirs.keys()):
        mine, other = ours.get(path, "absent"), theirs.get(path, "absent")
        if mine != other:
            found.append(f"{path!r}: ours {mine}; expected {other}")
    return found


def _line(
    kind: str, mode: int, owner: tuple[int, int], rest: str = "", xattrs: Mapping[str, bytes] | None = None
) -> str:
    parts = [kind, f"{mode:04o}", f"{owner[0]}:{owner[1]}"]
    if rest:
        parts.append(rest)
    parts += [f"{name}={value.hex()}" for name, value in sorted((xattrs or {}).items())]
    return " ".join(parts)


def _names(paths: Iterable[str]) -> str:
    return f" names={sorted(paths)}"


def _oci(archive: tarfile.TarFile) -> tuple[dict[str, Any], list[bytes]]:
    def blob(descriptor: Mapping[str, Any]) -> bytes:
        algorithm, _, name = descriptor["digest"].partition(":")
        data = _member(archive, f"blobs/{algorithm}/{name}")
        if hashlib.new(algorithm, data).hexdigest() != name or len(data) != descriptor["size"]:
            raise ValueError(f"blob {descriptor['digest']} is not what its descriptor says")
        return data

    if json.loads(_member(archive, "oci-layout"))["imageLayoutVersion"] != "1.0.0":
        raise ValueError("not an OCI layout of version 1.0.0")
    document = json.loads(_member(archive, "index.json"))
    while "manifests" in document:
        if len(document["manifests"]) != 1:
            raise ValueError(f"expected one image, found {len(document['manifests'])}")
        document = json.loads(blob(document["manifests"][0]))
    layers = [_decompress(blob(layer)) for layer in document["layers"]]
    return json.loads(blob(document["config"])), layers


def _docker(archive: tarfile.TarFile) -> tuple[dict[str, Any], list[bytes]]:
    (image,) = json.loads(_member(archive, "manifest.json"))
    return json.loads(_member(archive, image["Config"])), [_member(archive, name) for name in image["Layers"]]


def _member(archive: tarfile.TarFile, name: str) -> bytes:
    found = archive.extractfile(name)
    if found is None:
        raise ValueError(f"{name} is not a file in the archive")
    return found.read()


@lru_cache(maxsize=8)
def _decompress(blob: bytes) -> bytes:
    if blob[:2] == b"\x1f\x8b":
        return gzip.decompress(blob)
    if blob[:4] == b"\x28\xb5\x2f\xfd":
        import zstandard

        return zstandard.ZstdDecompressor().stream_reader(io.BytesIO(blob)).read()
    return blob


_layers: dict[str, _Layer] = {}


def _parse_layer(diff_id: str, blob: bytes) -> _Layer:
    """Layers are parsed once: most images here share their base."""
    actual = f"sha256:{hashlib.sha256(blob).hexdigest()}"
    if actual != diff_id:
        raise ValueError(f"a layer is {actual}, the config says {diff_id}")
    if diff_id not in _layers:
        with tarfile.open(fileobj=io.BytesIO(blob)) as archive:
            _layers[diff_id] = _layer(archive)
    return _layers[diff_id]


def _layer(archive: tarfile.TarFile) -> _Layer:
    whiteouts, opaque, changes = [], [], []
    for member in archive:
        path = _path(member.name)
        parent, _, name = path.rpartition("/")
        if name == ".wh..wh..opq":
            opaque.append(parent)
        elif name.startswith(".wh..wh."):
            raise ValueError(f"{member.name}: an aufs record has no place in a layer")
        elif name.startswith(".wh."):
            whiteouts.append(f"{parent}/{name[4:]}")
        elif member.islnk():
            changes.append(_Change(path, None, _path(member.linkname)))
        else:
            changes.append(_Change(path, Node(_member_line(archive, member))))
    return _Layer(tuple(whiteouts), tuple(opaque), tuple(changes))


def _path(name: str) -> str:
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise ValueError(f"{name!r} leaves the image")
    return "/" + "/".join(parts) if parts else "/"


def _member_line(archive: tarfile.TarFile, member: tarfile.TarInfo) -> str:
    owner = (member.uid, member.gid)
    mode = member.mode & 0o7777
    xattrs = {
        key.removeprefix("SCHILY.xattr."): value.encode("utf-8", "surrogateescape")
        for key, value in member.pax_headers.items()
        if key.startswith("SCHILY.xattr.")
    }
    if member.isdir():
        return _line("dir", mode, owner, "", xattrs)
    if member.issym():
        return f"link {owner[0]}:{owner[1]} -> {member.linkname}"
    if member.isfifo():
        return _line("fifo", mode, owner)
    if member.isdev():
        kind = "char" if member.ischr() else "block"
        return _line(kind, mode, owner, f"{member.devmajor},{member.devminor}")
    found = archive.extractfile(member)
    if found is None:
        raise ValueError(f"{member.name!r} has the unknown type {member.type!r}")
    return _line("file", mode, owner, content(found.read()), xattrs)


def _apply(tree: dict[str, Node], layer: _Layer) -> None:
    # A layer's whiteouts hide what the layers below had, never what the same layer brings.
    for path in layer.whiteouts:
        _remove(tree, path, keep_itself=False)
    for path in layer.opaque:
        _remove(tree, path or "/", keep_itself=True)
    for change in layer.changes:
        node = change.node or tree.get(change.link)
        if node is None:
            raise ValueError(f"{change.path!r} is a hard link to {change.link!r}, which is not there")
        _add_parents(tree, change.path)
        if change.path in tree and not (node.is_dir and tree[change.path].is_dir):
            _remove(tree, change.path, keep_itself=False)
        tree[change.path] = node


def _add_parents(tree: dict[str, Node], path: str) -> None:
    parent = path.rpartition("/")[0]
    if parent and parent not in tree:
        _add_parents(tree, parent)
        tree[parent] = Node(describe(Dir()))


def _remove(tree: dict[str, Node], path: str, keep_itself: bool) -> None:
    below = path.rstrip("/") + "/"
    for name in [n for n in tree if n.startswith(below) and n != "/"]:
        del tree[name]
    if not keep_itself:
        tree.pop(path, None)


def _lines(tree: dict[str, Node]) -> Tree:
    names: dict[int, list[str]] = {}
    for path, node in tree.items():
        names.setdefault(id(node), []).append(path)
    shared = {key: _names(paths) for key, paths in names.items() if len(paths) > 1}
    lines = {path: node.text + shared.get(id(node), "") for path, node in tree.items() if path != "/"}
    lines["/"] = tree["/"].text if "/" in tree else describe(Dir())
    return lines
