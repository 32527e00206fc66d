"""One blob into a repository (distribution-spec: Pushing Blobs): mounted if another repository has it, in
one request if it is small, else in one PUT; after a drop the registry is asked how much it has, and only the
rest is sent (R11, R14).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import quote

from oci.blobs import BlobStore
from oci.digest import Digest
from oci.errors import ManifestUnknown, OciError, RegistryError, Unauthorized
from oci.model import Descriptor
from oci.registry.body import FileBody, Outgoing
from oci.registry.calls import Request, redirected
from oci.registry.headers import received
from oci.registry.moving import Track
from oci.registry.patience import Interrupted
from oci.registry.repository import Repository

if TYPE_CHECKING:
    from oci.registry.transport import Answer

SINGLE = 16 << 10
"""Blobs of so many bytes go in one POST, where the registry allows it."""

_CANCEL_S = 2.0
_NONE: Mapping[str, str] = {}


class Source(Protocol):
    """Where a blob's bytes come from. `body` may be called again, from another offset, after a failure."""

    def body(self, offset: int, count: int, track: Track) -> Outgoing: ...

    def close(self) -> None: ...


class StoredBlob:
    """A blob in a local store; what this process has not verified yet is verified on its way out (S83)."""

    def __init__(self, store: BlobStore, digest: Digest) -> None:
        self._store = store
        self._digest = digest
        self._fd = store.open_fd(digest)

    def body(self, offset: int, count: int, track: Track) -> Outgoing:
        """The bytes from `offset` on, moved by the kernel."""
        checked = self._store.is_verified(self._digest, self._fd)
        if not checked and offset + count < os.fstat(self._fd).st_size:
            self._store.verify(self._digest)  # chunks: all of it once, before the first byte leaves
            checked = True
        if checked:
            return FileBody(self._fd, offset, count, progress=track.add)
        verdict = self._store.verdict(self._digest)
        return FileBody(self._fd, offset, count, digest=self._digest, verdict=verdict, progress=track.add)

    def close(self) -> None:
        os.close(self._fd)


class Upload:
    """One upload session. `run` returns once the registry has the blob."""

    def __init__(
        self, repository: Repository, descriptor: Descriptor, source: Source, track: Track, *, chunk: int = 0
    ) -> None:
        self._repository = repository
        self._descriptor = descriptor
        self._source = source
        self._track = track
        self._chunk = chunk
        self._url = ""
        self._offset = 0
        self.mounted = False
        """The registry found the blob in another repository of its own: nothing was sent."""

    def run(self, location: str = "", *, chunk_minimum: int = 0) -> None:
        """Upload, beginning in the session at `location` if there is one already (a mount that was
        declined)."""
        attempts = self._repository.calls.attempts(self._repository.endpoint)
        self._url = location
        self._chunk = max(self._chunk, chunk_minimum) if self._chunk else 0
        restarted = False
        try:
            while True:
                before = self._offset
                try:
                    return self._step()
                except Interrupted as error:
                    failure: Interrupted = error
                except RegistryError as error:
                    if restarted or not self._is_stale(error):
                        raise
                    restarted, failure, self._url = True, Interrupted(str(error), delay=0.0), ""
                if self._recovered():
                    return None
                if self._offset > before:
                    attempts.progressed()
                self._repository.calls.failed(failure, attempts)
        except BaseException:
            self._cancel()
            raise

    def _step(self) -> None:
        """Send what is missing. Raises Interrupted when it breaks off."""
        if not self._url:
            self._begin()
            if not self._url:
                return
        size = self._descriptor.size
        self._track.at(self._offset)
        if self._offset == 0 and (not self._chunk or size <= self._chunk):
            self._put(self._body(0, size))
            return
        while self._offset < size:
            self._patch(min(self._chunk or size, size - self._offset))
        self._put(b"")

    def _begin(self) -> None:
        """Open a session; a small blob may be through with that."""
        digest = str(self._descriptor.digest)
        self._offset = 0
        singles = self._repository.calls.singles
        address = self._repository.endpoint.address
        most = min(SINGLE, self._chunk or SINGLE)
        small = self._descriptor.size <= most and singles.get(address, True)
        with self._whole(digest) if small else self._opened(digest) as answer:
            if answer.status == 201:
                self.mounted = not small
                return
            if small:
                singles[address] = False
            self._url = self._located(answer)
            minimum = answer.headers.get("OCI-Chunk-Min-Length", "")
            if self._chunk and minimum.isdigit():
                self._chunk = max(self._chunk, int(minimum[:12]))

    def _whole(self, digest: str) -> Answer:
        """The answer to a small blob in one request."""
        body = self._body(0, self._descriptor.size)
        return self._post({"digest": digest}, body, {"Content-Type": "application/octet-stream"})

    def _opened(self, digest: str) -> Answer:
        """The answer to a request for a session. The registry may look for the blob in all its repositories
        (distribution-spec: mounting without `from`); one that does not know of it opens a session all the
        same, or refuses and is asked plainly from then on."""
        anywhere, address = self._repository.calls.anywhere, self._repository.endpoint.address
        if anywhere.get(address, True):
            try:
                return self._post({"mount": digest})
            except RegistryError as error:
                if not 400 <= error.status < 500 or isinstance(error, Interrupted):
                    raise
                anywhere[address] = False
        return self._post({})

    def _post(self, query: dict[str, str], body: Any = b"", headers: Mapping[str, str] = _NONE) -> Answer:
        target = self._repository.target("blobs", "uploads/", **query)
        return self._repository.call(
            "POST", target, self._doing, body=body, headers=headers, ok=(201, 202), retry=False
        )

    def _put(self, body: Any) -> None:
        separator = "&" if "?" in self._url else "?"
        url = f"{self._url}{separator}digest={quote(str(self._descriptor.digest), safe=':')}"
        headers = {"Content-Type": "application/octet-stream"}
        with self._repository.call(
            "PUT",
            url,
            self._doing,
            body=body,
            headers=headers,
            ok=(201, 204),
            retry=False,
            wait=self._repository.calls.patience.commit,
        ):
            self._offset = self._descriptor.size

    def _patch(self, count: int) -> None:
        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Range": f"{self._offset}-{self._offset + count - 1}",
        }
        body = self._body(self._offset, count)
        with self._repository.call(
            "PATCH", self._url, self._doing, body=body, headers=headers, ok=(202, 204, 416), retry=False
        ) as answer:
            if answer.status == 416:
                raise Interrupted(
                    f"{self._repository}: {self._doing}: out of step with the registry", delay=0.0
                )
            self._url = self._located(answer)
            there = received(answer.headers.get("Range", ""))
        self._offset = self._offset + count if there is None else min(there, self._offset + count)
        self._track.at(self._offset)

    def _body(self, offset: int, count: int) -> Any:
        """A body that can be made twice, as for a token that has expired, but not once bytes have left: then
        only the registry knows where we stand."""
        made: list[Outgoing] = []

        def make() -> Outgoing:
            if made and made[-1].sent:
                raise Interrupted(f"{self._repository}: {self._doing}: refused on the way", delay=0.0)
            made.append(self._source.body(offset, count, self._track))
            return made[-1]

        return make

    def _recovered(self) -> bool:
        """Find out how much the registry has; whether that is all of it. What it says is where we go on."""
        repository = self._repository
        if repository.blob_size(self._descriptor.digest) == self._descriptor.size:
            return True
        if not self._url:
            self._offset = 0
            return False
        try:
            with repository.call("GET", self._url, f"{self._doing} (how far it is)", ok=(200, 204)) as answer:
                self._url = self._located(answer)
                there = received(answer.headers.get("Range", "")) or 0
        except Unauthorized:
            raise
        except RegistryError:
            self._url, there = "", 0  # the session is gone, or cannot be asked
        self._offset = there
        if not 0 < there <= self._descriptor.size:  # nothing to save; and "0-0" may mean one byte
            self._cancel()
            self._offset = 0
        return False

    def _is_stale(self, error: RegistryError) -> bool:
        """Whether an error may be about the session, not about the blob: worth a new one."""
        resumed_wrong = self._offset > 0 and error.status == 400
        return (isinstance(error, ManifestUnknown) and bool(self._url)) or resumed_wrong

    def _located(self, answer: Any) -> str:
        location = answer.headers.get("Location", "")
        if not location:
            raise RegistryError(
                f"{self._repository}: {self._doing}: the registry names no place to upload to"
            )
        return redirected(answer.url, location, f"{self._repository}: {self._doing}")

    def _cancel(self) -> None:
        """Tell the registry that nothing more will come. It need not listen."""
        if not self._url:
            return
        repository = self._repository
        request = Request(
            "DELETE",
            self._url,
            "cancelling an upload",
            repository.calls.stop(),
            scopes=repository.scopes,
            ok=(200, 202, 204),
            retry=False,
            wait=_CANCEL_S,
        )
        self._url = ""
        with suppress(OciError):
            repository.calls.call(repository.endpoint, request).close()

    @property
    def _doing(self) -> str:
        return f"pushing {self._descriptor.digest}"


def mount(repository: Repository, descriptor: Descriptor, source: str) -> str | None:
    """Ask for a blob to be taken from another repository of the registry; None if that is done, else the
    session that the registry has opened instead, "" if it has not. `source` "" leaves finding it to the
    registry."""
    query = {"mount": str(descriptor.digest), **({"from": source} if source else {})}
    target = repository.target("blobs", "uploads/", **query)
    doing = f"mounting {descriptor.digest}"
    try:
        with repository.call("POST", target, doing, body=b"", ok=(201, 202)) as answer:
            if answer.status == 201:
                return None
            location = answer.headers.get("Location", "")
            return redirected(answer.url, location, f"{repository}: {doing}") if location else ""
    except (Unauthorized, ManifestUnknown):
        return ""
