"""Containers removed, with what nothing else needs of their images."""

from __future__ import annotations

from contextlib import suppress

from builder.cli.session import Session
from builder.errors import NotFound


def remove(session: Session, ident: str, *, force: bool = False, volumes: bool = False) -> None:
    """Remove a container (`lifecycle.remove`). Blobs of an image that has gone before it go with it."""
    from builder import roster
    from builder.container import lifecycle
    from oci.errors import OciError

    known = [each for each in roster.listed(session.state.root) if each.id == ident]
    lifecycle.remove(session.state, ident, force=force, volumes=volumes)
    for each in known:
        with suppress(OciError, NotFound):
            session.images.release(each.manifest)
