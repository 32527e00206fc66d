"""A registry in memory, as small as the distribution-spec allows, that remembers every request it saw.

It is honest; lies and failures are added by `chaos`, which stands in front of it, or by `hooks`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

INDEX = "application/vnd.oci.image.index.v1+json"


@dataclass
class Seen:
    """One request."""

    method: str
    path: str
    headers: dict[str, str]
    size: int = 0


@dataclass
class Registry:
    """What a registry keeps, and how this one behaves."""

    blobs: dict[tuple[str, str], bytes] = field(default_factory=dict)
    manifests: dict[tuple[str, str], tuple[str, bytes]] = field(default_factory=dict)
    tags: dict[tuple[str, str], str] = field(default_factory=dict)
    uploads: dict[str, bytearray] = field(default_factory=dict)
    seen: list[Seen] = field(default_factory=list)
    hooks: list[Callable[[Handler], bool]] = field(default_factory=list)
    address: str = ""
    basic: str = ""
    tokens: dict[str, str] | None = None
    realm: str = ""
    referrers_api: bool = True
    single_post: bool = True
    mounts: bool = True
    page: int = 1000
    ranges: bool = True
    anywhere: str = ""
    etag: Callable[[str], str] = field(default=lambda digest: "")
    chunk_minimum: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    counter: int = 0

    def count(self, method: str, pattern: str = "") -> int:
        """How many requests of this kind came."""
        return sum(1 for seen in self.seen if seen.method == method and re.search(pattern, seen.path))

    def received(self, pattern: str = "/uploads/") -> int:
        """How many bytes of bodies came."""
        return sum(seen.size for seen in self.seen if re.search(pattern, seen.path))


class Handler(BaseHTTPRequestHandler):
    """One connection to a Registry."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1
    registry: Registry

    def log_message(self, *args: object) -> None:
        pass

    def do(self) -> None:
        registry = self.registry
        self.body_read = False
        seen = Seen(self.command, self.path, {key.lower(): value for key, value in self.headers.items()})
        with registry.lock:
            registry.seen.append(seen)
        self.seen = seen
        if any(hook(self) for hook in list(registry.hooks)):
            return
        parts = urlsplit(self.path)
        self.query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        if not self._allowed():
            return
        for method, pattern, action in ROUTES:
            match = re.fullmatch(pattern, parts.path)
            if match and self.command in method.split():
                action(self, *match.groups())
                return
        self.refuse(404, "UNSUPPORTED", "no such place")

    do_GET = do_HEAD = do_PUT = do_POST = do_PATCH = do_DELETE = do

    def body(self) -> bytes:
        self.body_read = True
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.seen.size = len(data)
        return data

    def send(self, status: int, body: bytes = b"", **headers: str) -> None:
        if not self.body_read:
            self.body()
        self.send_response(status)
        named = {key.replace("_", "-"): value for key, value in headers.items()}
        named.setdefault("Content-Length", str(len(body)))
        for key, value in named.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def refuse(self, status: int, code: str, message: str = "", **headers: str) -> None:
        body = json.dumps({"errors": [{"code": code, "message": message}]}).encode()
        self.send(status, body, Content_Type="application/json", **headers)

    def _allowed(self) -> bool:
        registry = self.registry
        given = self.headers.get("Authorization", "")
        if registry.basic:
            if given == "Basic " + base64.b64encode(registry.basic.encode()).decode():
                return True
            self.refuse(401, "UNAUTHORIZED", "who are you", WWW_Authenticate='Basic realm="test"')
            return False
        if registry.tokens is None or (given.startswith("Bearer ") and given[7:] in registry.tokens):
            return True
        name = urlsplit(self.path).path.removeprefix("/v2/").split("/")[0]
        action = "pull" if self.command in ("GET", "HEAD") else "pull,push"
        challenge = f'Bearer realm="{registry.realm}",service="test",scope="repository:{name}:{action}"'
        self.refuse(401, "UNAUTHORIZED", "token, please", WWW_Authenticate=challenge)
        return False

    def ping(self) -> None:
        self.send(200, b"{}")

    def get_manifest(self, name: str, locator: str) -> None:
        digest = self.registry.tags.get((name, locator), locator)
        found = self.registry.manifests.get((name, digest))
        if found is None:
            self.refuse(404, "MANIFEST_UNKNOWN", f"manifest {locator} is unknown")
            return
        self.send(200, found[1], Content_Type=found[0], Docker_Content_Digest=digest)

    def put_manifest(self, name: str, locator: str) -> None:
        content = self.body()
        algorithm = locator.split(":")[0] if ":" in locator else "sha256"
        digest = f"{algorithm}:{hashlib.new(algorithm, content).hexdigest()}"
        value = json.loads(content)
        for child in value.get("manifests", []):
            if (name, child["digest"]) not in self.registry.manifests and not locator.startswith("sha256-"):
                self.refuse(400, "MANIFEST_BLOB_UNKNOWN", f"child {child['digest']} is not here")
                return
        for blob in [*value.get("layers", []), *([value["config"]] if "config" in value else [])]:
            if (name, blob["digest"]) not in self.registry.blobs and not blob.get("urls"):
                self.refuse(400, "MANIFEST_BLOB_UNKNOWN", f"blob {blob['digest']} is not here")
                return
        self.registry.manifests[(name, digest)] = (self.headers["Content-Type"], content)
        if ":" not in locator:
            self.registry.tags[(name, locator)] = digest
        extra = {}
        if value.get("subject") and self.registry.referrers_api:
            extra["OCI_Subject"] = value["subject"]["digest"]
        self.send(201, Location=f"/v2/{name}/manifests/{digest}", Docker_Content_Digest=digest, **extra)

    def delete_manifest(self, name: str, locator: str) -> None:
        if self.registry.tags.pop((name, locator), None) or self.registry.manifests.pop(
            (name, locator), None
        ):
            self.send(202)
        else:
            self.refuse(404, "MANIFEST_UNKNOWN")

    def get_blob(self, name: str, digest: str) -> None:
        data = self.registry.blobs.get((name, digest))
        if data is None:
            self.refuse(404, "BLOB_UNKNOWN", "blob unknown to registry")
            return
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        own = self.registry.etag(digest)
        etag = {"ETag": own} if own else {}
        if self.headers.get("If-Range", own) != own:
            wanted = None
        if wanted and self.registry.ranges:
            start = int(wanted[1])
            if start >= len(data):
                self.send(416)
                return
            where = f"bytes {start}-{len(data) - 1}/{len(data)}"
            self.send(206, data[start:], Content_Range=where, Content_Type="application/octet-stream", **etag)
            return
        self.send(200, data, Content_Type="application/octet-stream", Docker_Content_Digest=digest, **etag)

    def delete_blob(self, name: str, digest: str) -> None:
        self.send(202) if self.registry.blobs.pop((name, digest), None) else self.refuse(404, "BLOB_UNKNOWN")

    def start_upload(self, name: str) -> None:
        mount, source = self.query.get("mount"), self.query.get("from")
        if mount and not source and self.registry.anywhere:
            if self.registry.anywhere == "refused":
                self.refuse(400, "UNSUPPORTED", "a mount needs a from")
                return
            source = next((path for path, digest in self.registry.blobs if digest == mount), None)
        if mount and source and self.registry.mounts and (source, mount) in self.registry.blobs:
            self.registry.blobs[(name, mount)] = self.registry.blobs[(source, mount)]
            self.send(201, Location=f"/v2/{name}/blobs/{mount}", Docker_Content_Digest=mount)
            return
        if digest := self.query.get("digest"):
            data = self.body()
            if self.registry.single_post:
                self._finish(name, digest, data)
                return
        with self.registry.lock:
            self.registry.counter += 1
            session = f"u{self.registry.counter}"
        self.registry.uploads[session] = bytearray()
        extra = (
            {"OCI_Chunk_Min_Length": str(self.registry.chunk_minimum)} if self.registry.chunk_minimum else {}
        )
        self.send(202, **self._where(name, session), **extra)

    def upload_status(self, name: str, session: str) -> None:
        if session not in self.registry.uploads:
            self.refuse(404, "BLOB_UPLOAD_UNKNOWN")
        else:
            self.send(204, **self._where(name, session))

    def patch_upload(self, name: str, session: str) -> None:
        if session not in self.registry.uploads:
            self.refuse(404, "BLOB_UPLOAD_UNKNOWN")
            return
        upload = self.registry.uploads[session]
        start = re.match(r"(\d+)-", self.headers.get("Content-Range", ""))
        if start and int(start[1]) != len(upload):
            self.send(416, **self._where(name, session))
            return
        self._take(upload)
        self.send(202, **self._where(name, session))

    def put_upload(self, name: str, session: str) -> None:
        if session not in self.registry.uploads:
            self.refuse(404, "BLOB_UPLOAD_UNKNOWN")
            return
        upload = self.registry.uploads[session]
        self._take(upload)
        del self.registry.uploads[session]
        self._finish(name, self.query["digest"], bytes(upload))

    def cancel_upload(self, name: str, session: str) -> None:
        self.send(204 if self.registry.uploads.pop(session, None) is not None else 404)

    def _take(self, upload: bytearray) -> None:
        """Keep what arrives, as it arrives: a broken request leaves its beginning."""
        self.body_read = True
        left = int(self.headers.get("Content-Length") or 0)
        while left:
            piece = self.rfile.read1(min(left, 65536))  # type: ignore[attr-defined]
            if not piece:
                raise ConnectionResetError
            upload += piece
            self.seen.size += len(piece)
            left -= len(piece)

    def _finish(self, name: str, digest: str, data: bytes) -> None:
        algorithm, _, value = digest.partition(":")
        if hashlib.new(algorithm, data).hexdigest() != value:
            self.refuse(400, "DIGEST_INVALID", "provided digest did not match uploaded content")
            return
        self.registry.blobs[(name, digest)] = data
        self.send(201, Location=f"/v2/{name}/blobs/{digest}", Docker_Content_Digest=digest)

    def _where(self, name: str, session: str) -> dict[str, str]:
        size = len(self.registry.uploads[session])
        return {"Location": f"/v2/{name}/blobs/uploads/{session}?state=x", "Range": f"0-{max(size - 1, 0)}"}

    def list_tags(self, name: str) -> None:
        tags = sorted(tag for repository, tag in self.registry.tags if repository == name)
        if not any(repository == name for repository, _ in self.registry.manifests):
            self.refuse(404, "NAME_UNKNOWN")
            return
        after = [tag for tag in tags if tag > self.query.get("last", "")]
        page = after[: self.registry.page]
        more = len(after) > len(page)
        extra = {"Link": f'</v2/{name}/tags/list?n=2&last={page[-1]}>; rel="next"'} if more else {}
        body = json.dumps({"name": name, "tags": page}).encode()
        self.send(200, body, Content_Type="application/json", **extra)

    def list_referrers(self, name: str, digest: str) -> None:
        if not self.registry.referrers_api:
            self.refuse(404, "UNSUPPORTED")
            return
        found = list(self._referrers(name, digest))
        kind = self.query.get("artifactType", "")
        extra = {"OCI_Filters_Applied": "artifactType"} if kind else {}
        chosen = [item for item in found if not kind or item["artifactType"] == kind]
        body = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": chosen}).encode()
        self.send(200, body, Content_Type=INDEX, **extra)

    def _referrers(self, name: str, digest: str) -> Iterator[dict[str, Any]]:
        for (repository, own), (media_type, content) in self.registry.manifests.items():
            value = json.loads(content)
            if repository == name and value.get("subject", {}).get("digest") == digest:
                yield {
                    "mediaType": media_type,
                    "digest": own,
                    "size": len(content),
                    "artifactType": value.get("artifactType") or value["config"]["mediaType"],
                }


_NAME = r"/v2/([a-z0-9._/-]+)"
ROUTES = [
    ("GET", r"/v2/", Handler.ping),
    ("GET HEAD", _NAME + r"/manifests/([^/]+)", Handler.get_manifest),
    ("PUT", _NAME + r"/manifests/([^/]+)", Handler.put_manifest),
    ("DELETE", _NAME + r"/manifests/([^/]+)", Handler.delete_manifest),
    ("POST", _NAME + r"/blobs/uploads/", Handler.start_upload),
    ("GET", _NAME + r"/blobs/uploads/([^/]+)", Handler.upload_status),
    ("PATCH", _NAME + r"/blobs/uploads/([^/]+)", Handler.patch_upload),
    ("PUT", _NAME + r"/blobs/uploads/([^/]+)", Handler.put_upload),
    ("DELETE", _NAME + r"/blobs/uploads/([^/]+)", Handler.cancel_upload),
    ("GET HEAD", _NAME + r"/blobs/([^/]+)", Handler.get_blob),
    ("DELETE", _NAME + r"/blobs/([^/]+)", Handler.delete_blob),
    ("GET", _NAME + r"/tags/list", Handler.list_tags),
    ("GET", _NAME + r"/referrers/([^/]+)", Handler.list_referrers),
]


class Server(ThreadingHTTPServer):
    """Quiet about peers that hang up."""

    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        pass


@contextmanager
def listening(handler: type[BaseHTTPRequestHandler], host: str = "127.0.0.1") -> Iterator[str]:
    """A server for the block; its address."""
    server = Server((host, 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.005,))
    thread.start()
    try:
        yield f"{host}:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def serving(registry: Registry, host: str = "127.0.0.1") -> Iterator[Registry]:
    """Serve a registry for the block."""
    with listening(type("RegistryHandler", (Handler,), {"registry": registry}), host) as address:
        registry.address = address
        yield registry
