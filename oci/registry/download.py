"""One blob from a registry into a store: verified, resumed after every drop and between runs (R10, R14, R15).

What arrives goes straight from the connection through sha256 into a file named by digest, which becomes the
blob only when size and digest are right. The rest is asked for with If-Range where the server gave a strong
ETag; where it did not, the digest answers for the bytes: those that do not belong together are found out,
thrown away, and fetched once more from the beginning.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from oci.blobs import BlobStore
from oci.errors import LimitExceeded, ManifestUnknown, RegistryError, WrongContent
from oci.model import Descriptor
from oci.registry.calls import Request
from oci.registry.headers import content_range
from oci.registry.moving import Track, Watch, unwatched
from oci.registry.partial import Partial
from oci.registry.patience import Interrupted
from oci.registry.repository import Repository


def fetch(
    sources: Sequence[Repository], descriptor: Descriptor, store: BlobStore, watch: Watch = unwatched
) -> None:
    """Bring a blob into `store` from the first source that has it, right and whole; nothing to do if it is
    here.

    Raises the last source's error: ManifestUnknown, WrongContent, Unauthorized, RegistryError.
    """
    track = Track(descriptor, watch)
    if descriptor.digest in store:
        track.end("present")
        return
    with Partial(store, descriptor.digest, sources[0].stop) as partial:
        if partial.complete:
            track.end("present")
            return
        for source in sources[:-1]:
            try:
                _fetch(source, descriptor, partial, track)
                break
            except RegistryError as error:
                source.calls.warn(f"{error}; trying {descriptor.digest.short} elsewhere")
        else:
            _fetch(sources[-1], descriptor, partial, track)
        partial.commit()
    track.end()


def _fetch(source: Repository, descriptor: Descriptor, partial: Partial, track: Track) -> None:
    """Complete the partial blob. One that was put together from several answers gets a second chance."""
    attempts = source.calls.attempts(source.endpoint)
    joined = partial.size > 0
    if partial.size > descriptor.size:
        partial.reset()
    while True:
        before = partial.size
        try:
            _receive(source, descriptor, partial, track)
        except Interrupted as error:
            joined = joined or partial.size > 0
            if partial.size > before:
                attempts.progressed()
            source.calls.failed(error, attempts)
            continue
        if partial.actual() == descriptor.digest:
            return
        actual = partial.actual()
        partial.reset()
        if not joined:
            raise WrongContent(f"{source}: expected the bytes of {descriptor.digest}, got {actual}")
        joined = False


def _receive(source: Repository, descriptor: Descriptor, partial: Partial, track: Track) -> None:
    """Ask for what is missing and take it in."""
    if descriptor.size and partial.size == descriptor.size:
        return
    with _open(source, descriptor, partial) as answer:
        _place(source, answer, descriptor, partial)
        partial.etag = answer.headers.get("ETag", "")
        track.at(partial.size)
        for piece in answer.views():
            if partial.size + len(piece) > descriptor.size:
                partial.reset()
                raise WrongContent(
                    f"{source}: {descriptor.digest} goes on after the {descriptor.size} bytes it should have"
                )
            partial.append(piece)
            track.at(partial.size)
    if partial.size < descriptor.size:
        raise Interrupted(
            f"{source}: {descriptor.digest} ended after {partial.size} of {descriptor.size} bytes"
        )


def _place(source: Repository, answer: Any, descriptor: Descriptor, partial: Partial) -> None:
    """Make sure that the answer's bytes go where they belong: behind those that are there, or to the
    start."""
    if answer.status == 416:
        partial.reset()
        raise Interrupted(f"{source}: {descriptor.digest}: the registry has no such range", delay=0.0)
    if answer.status == 206:
        found = content_range(answer.headers.get("Content-Range", ""))
        if found is None or found[0] != partial.size or found[2] not in (None, descriptor.size):
            partial.reset()
            raise Interrupted(
                f"{source}: {descriptor.digest}: another range came than was asked for", delay=0.0
            )
        return
    partial.reset()  # 200: all of it, whatever was asked for
    length = answer.headers.get("Content-Length", "")
    if length.isdigit() and int(length) != descriptor.size:
        raise WrongContent(
            f"{source}: {descriptor.digest} has {length} bytes there; "
            f"its descriptor promises {descriptor.size}"
        )


def _open(source: Repository, descriptor: Descriptor, partial: Partial) -> Any:
    try:
        return source.open_blob(descriptor.digest, partial.size, descriptor.size, partial.etag)
    except ManifestUnknown:
        if not descriptor.urls:
            raise
    return _foreign(source, descriptor, partial)


def _foreign(source: Repository, descriptor: Descriptor, partial: Partial) -> Any:
    """A layer that its registry does not have, from where the image says it is; no credential goes there
    (S84)."""
    for url in descriptor.urls:
        if urlsplit(url).scheme != "https" and not source.calls.base(source.endpoint, source.stop).startswith(
            "http:"
        ):
            continue
        headers = {"Range": f"bytes={partial.size}-"} if partial.size else {}
        if partial.size and partial.etag:
            headers["If-Range"] = partial.etag
        doing = f"getting {descriptor.digest} from its own place"
        ok = (200, 206, 416)
        return source.calls.fetch(Request("GET", url, doing, source.stop, headers, ok=ok, retry=False))
    raise RegistryError(f"{source}: {descriptor.digest} is nowhere to be had: none of its urls is https")


def small(sources: Sequence[Repository], descriptor: Descriptor) -> bytes:
    """A document's bytes from the first source that has them, verified."""
    for source in sources[:-1]:
        try:
            return source.blob(descriptor)
        except (RegistryError, LimitExceeded) as error:
            source.calls.warn(f"{error}; trying {descriptor.digest.short} elsewhere")
    return sources[-1].blob(descriptor)
