"""Manifests, indexes, configs and what a registry is pushed."""

from __future__ import annotations

from collections.abc import Callable

from oci import media_types, schema
from oci.errors import InvalidDocument, LimitExceeded
from oci.model import ImageConfig, Index, Manifest, parse
from oci.registry.server import documents
from oci.strict_json import dumps, loads

D = '{"mediaType":"%s","digest":"sha256:' + "0" * 64 + '","size":2}'
SEEDS = (
    b"\x00" + Index(()).to_json(),
    b'\x01{"schemaVersion":2,"mediaType":"%s","config":%s,"layers":[%s],"subject":%s,"annotations":{"a":"b"}}'
    % (
        media_types.OCI_MANIFEST.encode(),
        (D % media_types.OCI_CONFIG).encode(),
        (D % media_types.OCI_LAYER).encode(),
        (D % media_types.OCI_INDEX).encode(),
    ),
    (
        b'\x02{"architecture":"amd64","os":"linux","config":{"Env":["A=b"],"ExposedPorts":{"1/tcp":{}},'
        b'"Healthcheck":{"Test":["NONE"],"Interval":1}},"rootfs":{"type":"layers","diff_ids":[]},'
        b'"history":[{"created":"2020-01-01T00:00:00Z","empty_layer":true}]}'
    ),
    b'\x03{"mediaType":"a/b+json","x":[{"digest":"sha256:' + b"0" * 64 + b'"}]}',
    b'\x04[1.5e3,-0,true,null,"\\ud83d\\ude00",{"a":{}}]',
)
WORDS = (
    *(text.encode() for text in sorted(media_types.MANIFESTS | media_types.INDEXES | media_types.CONFIGS)),
    *(
        b'"%s":' % name
        for name in b"""schemaVersion mediaType config layers manifests digest size urls annotations platform
        subject artifactType rootfs diff_ids history""".split()
    ),
    *(b"sha256:", b"1e999", b"NaN", b"\\ud800", b"9" * 30, b"[" * 50, b'{"a":' * 50),
)

READERS: tuple[Callable[[bytes], object], ...] = (
    lambda content: Index.from_json(content).to_json(),
    lambda content: Manifest.from_json(content).to_json(),
    lambda content: ImageConfig.from_json(content).to_json(),
    lambda content: documents.read(content, "a/b+json"),
    lambda content: loads(content, "value"),
    lambda content: parse(content),
    lambda content: documents.read(content, media_types.OCI_MANIFEST),
    lambda content: schema.check("manifest", content),
)


def target(data: bytes) -> None:
    """The first byte chooses the reader."""
    number, content = (data[0] if data else 0) % len(READERS), data[1:]
    try:
        made = READERS[number](content)
    except (InvalidDocument, LimitExceeded) as error:
        assert str(error)
        return
    if isinstance(made, bytes):  # what we wrote, we can read
        assert READERS[number](made) == made
    if number == 4:
        assert loads(dumps(made), "value") == made or "NaN" in str(made)
