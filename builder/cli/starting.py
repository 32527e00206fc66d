"""What `run`, `create`, `start` and `attach` share: containers made, started, and joined to our
streams.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from builder.cli import creating, output
from builder.cli.session import Session
from builder.errors import BuildError, NotFound
from builder.images import Entry, reachable
from oci.errors import OciError

if TYPE_CHECKING:
    from builder.container.client import Streams
    from builder.container.model import Container

_DETACHED = 0


class Ready(NamedTuple):
    """An image to run: its layers as directories, topmost first."""

    entry: Entry
    lowers: tuple[str, ...]


@contextmanager
def ready(session: Session, image: str, flags: dict[str, Any]) -> Iterator[Ready]:
    """The image that was named, pulled if need be, unpacked; what is damaged is put aside and got anew,
    once. Nobody takes it away while the block runs: a container made in it holds it from then on.
    """

    def get() -> Ready:
        entry = creating.entry(session, image, flags["pull"], flags["platform"])
        return Ready(entry, unpacked(session, entry))

    with session.state.lease() as lease:
        found = session.again(get)
        blobs = session.images.layout.blobs
        lease.add(reachable(blobs, [found.entry.descriptor]))
        if found.entry.descriptor.digest not in blobs:
            raise NotFound(f"{image!r} was removed just now")
        yield found


def ready_again(session: Session, container: Container) -> Ready:
    """The same for a container that is there."""

    def get() -> Ready:
        entry = image_of(session, container)
        return Ready(entry, unpacked(session, entry))

    return session.again(get)


def created(
    session: Session, image: str, ready: Ready, args: tuple[str, ...], flags: dict[str, Any]
) -> Container:
    """A new container, as the options of `run` describe it, with its volumes."""
    from builder.container import lifecycle
    from builder.container.volumes import Volumes, arranged

    entry = ready.entry
    request = creating.request(flags, args, entry)
    declared = entry.image.config.value.config.volumes
    wanted = arranged(request.volumes, declared)
    if wanted:
        view = lifecycle.view_of(ready.lowers)
        wanted = Volumes(session.state.root).prepared(wanted, view)
    request = replace(request, volumes=wanted)
    try:
        container = lifecycle.create(session.state, entry.image, image, request, flags["name"])
    except BaseException:
        lifecycle.discard_volumes(session.state, request)
        raise
    try:
        creating.write_cidfile(flags["cidfile"], container.id)
    except BaseException:
        lifecycle.remove(session.state, container.id, volumes=True)
        raise
    return container


def unpacked(session: Session, entry: Entry) -> tuple[str, ...]:
    """An image's layers as directories, topmost first; those that are missing are pulled."""
    from builder.container import lifecycle
    from builder.events import discard
    from builder.registries import Access, Registries

    with Registries(Access(config=session.config), session.images, discard) as registries:
        fetch = registries.fetcher(entry.image)
        return lifecycle.unpacked(session.state, entry.image, session.images.layout.blobs, fetch)


def image_of(session: Session, container: Container) -> Entry:
    """The image that a container was made from, whatever names it has now."""
    from oci.digest import Digest
    from oci.model import Descriptor

    descriptor = Descriptor(
        container.manifest_type, Digest.parse(container.manifest), container.manifest_size
    )
    return Entry(descriptor, session.images.for_platform(descriptor), ())


def started(
    session: Session, container: Container, ready: Ready, *, attach: bool
) -> tuple[socket.socket | None, dict[str, Any]]:
    """Start it: a connection that is attached to it if that is wanted, and what its monitor said."""
    from builder.container import lifecycle
    from builder.container.terminal import size_of
    from builder.container.volumes import Volumes, mounts

    mounted = mounts(container.request.volumes, Volumes(session.state.root))
    return lifecycle.start(
        session.state,
        container,
        ready.entry.image,
        ready.lowers,
        mounts=mounted,
        terminal=size_of(0, 1, 2) if container.request.terminal else None,
        attach=attach,
    )


def failed(session: Session, error: BuildError | OciError, code: int) -> int:
    """Report why a container does not run; the exit code, which is `code` but for a program that cannot be
    executed.
    """
    status = getattr(error, "status", 0)
    if not status:
        output.report(error, debug=session.debug)
        return code
    hint = getattr(error, "hint", "")
    sys.stderr.write(f"pybuild: {error}\n" + (f"hint: {hint}\n" if hint else ""))
    return int(status)


def joined(connection: socket.socket, streams: Streams, container: Container) -> int:
    """Our streams joined to a container's until it ends: its exit status."""
    from builder.container.client import attached

    end = attached(connection, streams)
    if end is None:
        sys.stderr.write(f"detached: pybuild attach {container.name} comes back to it\n")
        return _DETACHED
    for key in ("error", "text"):
        if end.get(key):
            sys.stderr.write(f"pybuild: {end[key]}\n")
    if end.get("hint"):
        sys.stderr.write(f"hint: {end['hint']}\n")
    return int(end.get("status", 0))
