"""A server of ours in this process, and a client so plain that it can say whatever a test wants said."""

from __future__ import annotations

import hashlib
import http.client
import json
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from oci.layout import Layout
from oci.registry.server import Options, RegistryServer

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
EMPTY = "application/vnd.oci.empty.v1+json"


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def codes(self) -> list[str]:
        """The error codes of the body, whose form every error must have."""
        errors = self.json["errors"]
        assert errors and all(isinstance(each["message"], str) for each in errors)
        return [each["code"] for each in errors]


@dataclass(slots=True)
class Registry:
    """A running server, and requests to it. `headers` go with every request."""

    server: RegistryServer
    layout: Layout
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def port(self) -> int:
        return self.server.port

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """One request on a connection of its own. Underscores in header names stand for dashes."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            sent = {name.replace("_", "-"): value for name, value in {**self.headers, **headers}.items()}
            connection.request(method, path, body, sent, encode_chunked=hasattr(body, "__next__"))
            answer = connection.getresponse()
            content = answer.read()
            return Answer(
                answer.status, {name.lower(): value for name, value in answer.getheaders()}, content
            )
        finally:
            connection.close()

    def raw(self, data: bytes, *, half_close: bool = False) -> bytes:
        """Bytes there, bytes back until the server closes."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=60) as sock:
            sock.sendall(data)
            if half_close:
                sock.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: sock.recv(65536), b""))

    def start(self, name: str, query: str = "") -> str:
        """Begin an upload; its location."""
        answer = self.ask("POST", f"/v2/{name}/blobs/uploads/{query}")
        assert answer.status == 202, answer
        return answer.headers["location"]

    def blob(self, name: str, content: bytes, algorithm: str = "sha256") -> str:
        """Push a blob; its digest."""
        digest = digest_of(content, algorithm)
        answer = self.ask("PUT", f"{self.start(name)}?digest={digest}", content)
        assert answer.status == 201, answer
        return digest

    def manifest(self, name: str, reference: str = "", **fields: Any) -> str:
        """Push an image of one layer, or what `fields` make of it, by tag or by digest; its digest."""
        content = self.document(name, **fields)
        digest = digest_of(content)
        answer = self.ask(
            "PUT", f"/v2/{name}/manifests/{reference or digest}", content, Content_Type=MANIFEST
        )
        assert answer.status == 201, answer
        return digest

    def document(self, name: str, text: bytes = b"layer", **fields: Any) -> bytes:
        """The manifest that `manifest` pushes; its blobs are pushed."""
        config, layer = b'{"text":"%s"}' % text, b"tar of " + text
        self.blob(name, config)
        self.blob(name, layer)
        value = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": descriptor(CONFIG, config),
            "layers": [descriptor(LAYER, layer)],
            **fields,
        }
        return json.dumps(value).encode()

    def index(self, name: str, reference: str, digests: list[tuple[str, int]], **fields: Any) -> str:
        """Push an index of manifests; its digest."""
        entries = [{"mediaType": MANIFEST, "digest": digest, "size": size} for digest, size in digests]
        content = json.dumps(
            {"schemaVersion": 2, "mediaType": INDEX, "manifests": entries, **fields}
        ).encode()
        answer = self.ask("PUT", f"/v2/{name}/manifests/{reference}", content, Content_Type=INDEX)
        assert answer.status == 201, answer
        return digest_of(content)

    def tags(self, name: str) -> list[str]:
        tags = self.tags_or_none(name)
        assert tags is not None, name
        return tags

    def tags_or_none(self, name: str) -> list[str] | None:
        """None if there is no such repository."""
        answer = self.ask("GET", f"/v2/{name}/tags/list")
        return answer.json["tags"] if answer.status == 200 else None


def digest_of(content: bytes, algorithm: str = "sha256") -> str:
    return f"{algorithm}:{hashlib.new(algorithm, content).hexdigest()}"


def descriptor(media_type: str, content: bytes, **more: Any) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest_of(content), "size": len(content), **more}


@contextmanager
def served(layout: Layout, **options: Any) -> Iterator[Registry]:
    """A server on a free port, stopped and closed at the end."""
    with RegistryServer(layout, Options(port=0, grace=5.0, **options)) as server:
        thread = threading.Thread(target=server.serve)
        thread.start()
        try:
            yield Registry(server, layout)
        finally:
            server.stop()
            thread.join()
