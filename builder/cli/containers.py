"""Rows about containers, as docker words them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from builder.cli import text
from builder.cli.session import Session
from builder.roster import Listed
from oci.errors import OciError

if TYPE_CHECKING:
    from builder.container.ports import Port

TITLES = {
    "ID": "CONTAINER ID",
    "Image": "IMAGE",
    "Command": "COMMAND",
    "CreatedAt": "CREATED AT",
    "RunningFor": "CREATED",
    "Status": "STATUS",
    "State": "STATE",
    "Ports": "PORTS",
    "Names": "NAMES",
    "Size": "SIZE",
    "Labels": "LABELS",
    "Mounts": "MOUNTS",
    "LocalVolumes": "LOCAL VOLUMES",
    "Networks": "NETWORKS",
}
COLUMNS = ("ID", "Image", "Command", "RunningFor", "Status", "Ports", "Names")
SHORT = 12
_COMMAND = 20
_MOUNT = 15
_QUOTED = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r",
           "\a": "\\a", "\b": "\\b", "\f": "\\f", "\v": "\\v"}  # fmt: skip


def row(session: Session, each: Listed, *, full: bool, sized: bool) -> dict[str, str]:
    """The fields of one row of `ps`; `Size` is `0B` unless `sized`."""
    labels = each.config.get("labels") or []
    mounts = each.request.get("volumes") or []
    sources = [str(mount.get("source") or mount.get("target")) for mount in mounts]
    return {
        "Command": quoted(command(each) if full else text.shortened(command(each), _COMMAND)),
        "CreatedAt": text.stamp(each.created),
        "ID": each.id if full else each.id[:SHORT],
        "Image": image(session, each, full=full),
        "Labels": ",".join(f"{name}={value}" for name, value in labels),
        "LocalVolumes": str(sum(mount.get("kind") == "volume" for mount in mounts)),
        "Mounts": ",".join(one if full else text.shortened(one, _MOUNT) for one in sources),
        "Names": each.name,
        "Networks": network(each),
        "Ports": shown_ports(session, each),
        "RunningFor": text.age(each.created),
        "Size": size(session, each) if sized else "0B",
        "State": each.status,
        "Status": status(each),
    }


def status(each: Listed) -> str:
    """How it is and since when: `Up 2 minutes (Paused)`, `Exited (137) 3 minutes ago`."""
    if each.alive:
        up = f"Up {text.age(str(each.state.get('started', ''))).removesuffix(' ago')}"
        return f"{up} (Paused)" if each.status == "paused" else up
    if each.status == "exited":
        return f"Exited ({each.state.get('exit_code', 0)}) {text.age(str(each.state.get('finished', '')))}"
    return each.status.capitalize()


def command(each: Listed) -> str:
    """The program and its arguments; an argument with a space has quotes around it, as with docker."""
    first, *rest = map(str, each.config.get("argv") or [""])
    return " ".join([first, *(f"'{one}'" if " " in one else one for one in rest)])


def quoted(value: str) -> str:
    """Text as Go quotes it."""
    return '"' + "".join(_QUOTED.get(one) or _visible(one) for one in value) + '"'


def _visible(one: str) -> str:
    code = ord(one)
    if one.isprintable():
        return one
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is no UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return f"\\x{code:02x}" if code < 0x80 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def image(session: Session, each: Listed, *, full: bool) -> str:
    """The image's name as it was typed; its id once that name means another image, or none."""
    typed, ident = str(each.config["image"]), str(each.config["image_id"])
    hexadecimal = ident.removeprefix("sha256:")
    if _means(session, typed, each):
        return hexadecimal[:SHORT] if typed in (ident, hexadecimal) and not full else typed
    return ident if full else hexadecimal[:SHORT]


def _means(session: Session, typed: str, each: Listed) -> bool:
    from builder.errors import BuildError
    from oci.errors import InvalidReference
    from oci.image import images
    from oci.reference import Reference

    try:
        found = session.images.find(Reference.parse(typed))
    except InvalidReference:
        found = None
    try:
        if found is None:
            found = session.images.resolve(typed).descriptor
        manifest = each.config["manifest"]
        return str(found.digest) == manifest or any(
            str(one.digest) == manifest for one in images(session.images.layout.blobs, found)
        )
    except (BuildError, OciError):
        return False


def network(each: Listed) -> str:
    """The network's name, docker's words."""
    name = str(each.request.get("network", "default"))
    return "bridge" if name == "default" else name


def ports(each: Listed) -> list[Port]:
    """What is published now."""
    from builder.container.ports import Port

    return [Port(**one) for one in each.state.get("ports") or []]


def exposed(session: Session, each: Listed) -> list[str]:
    """What the container's image exposes: `80/tcp`."""
    try:
        return sorted(session.images.for_platform(each.manifest).config.value.config.exposed_ports)
    except OciError:
        return []


def shown_ports(session: Session, each: Listed) -> str:
    """PORTS: nothing for a container that does not run."""
    if not each.alive:
        return ""
    exposes = exposed(session, each) if network(each) == "bridge" else []
    if not exposes and not each.state.get("ports"):
        return ""
    from builder.container.ports import listed

    return listed(ports(each), exposes)


def size(session: Session, each: Listed) -> str:
    """What it wrote, and with it what its image takes in the store."""
    written = written_bytes(session, each)
    try:
        whole = sum(layer.size for layer in session.images.for_platform(each.manifest).layers)
    except OciError:
        whole = 0
    return f"{text.size(written)} (virtual {text.size(written + whole)})"


def written_bytes(session: Session, each: Listed) -> int:
    """Bytes of the files that it wrote. Directories that this process may not read count as empty."""
    place = os.path.join(session.state.root, "containers", each.id)
    return sum(
        os.lstat(os.path.join(folder, name)).st_size
        for upper in uppers(each, place)
        for folder, _, names in os.walk(upper)
        for name in names
        if os.path.lexists(os.path.join(folder, name))
    )


def uppers(each: Listed, place: str) -> list[str]:
    """The directories of what it wrote, lowest first."""
    return [os.path.join(place, str(one)) for one in each.state.get("uppers") or []]


def outside(port: Port) -> str:
    """The host's side of a published port: `0.0.0.0:8080`."""
    from builder.container.ports import bracketed

    return f"{bracketed(port.host_ip or '0.0.0.0')}:{port.host_port}"


def label_of(each: Listed) -> Any:
    """`.Label "name"` of a template."""
    labels = dict(each.config.get("labels") or [])
    return lambda name: labels.get(name, "")
