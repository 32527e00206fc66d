"""The image-spec's documents as values: descriptors, manifests, indexes and image configs.

A document is read with `from_json` and written with `to_json`. Digests are of bytes, so what somebody else
wrote is never written again: `Raw` keeps a document's bytes beside its value. What we do not know survives in
`extra`. Fields are written in the order of the reference implementation's structs, compact, so that equal
values have equal digests.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from oci import media_types
from oci.digest import Digest
from oci.errors import DigestMismatch, InvalidDocument
from oci.strict_json import Fields, dumps, kept, loads


@dataclass(frozen=True, slots=True)
class Platform:
    """What an image runs on (image-spec: image-index.md, platform). `oci.platforms` parses and compares."""

    os: str
    architecture: str
    variant: str = ""
    os_version: str = ""
    os_features: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A typed pointer to a blob (image-spec: descriptor.md). `size` is in bytes."""

    media_type: str
    digest: Digest
    size: int
    annotations: Mapping[str, str] = field(default_factory=dict, hash=False)
    platform: Platform | None = None
    artifact_type: str = ""
    urls: tuple[str, ...] = ()
    extra: Mapping[str, object] = field(default_factory=dict, hash=False)

    @classmethod
    def of(cls, media_type: str, content: bytes) -> Descriptor:
        """The descriptor of bytes at hand."""
        return cls(media_type, Digest.of(content), len(content))

    def check(self, content: bytes) -> bytes:
        """`content`, if it is what this descriptor promises, else DigestMismatch: size first, then digest."""
        if len(content) != self.size:
            raise DigestMismatch(
                f"{self.digest} has {len(content)} bytes; its descriptor promises {self.size}"
            )
        if (actual := Digest.of(content, self.digest.algorithm)) != self.digest:
            raise DigestMismatch(f"expected the bytes of {self.digest}, got {actual}")
        return content


@dataclass(frozen=True, slots=True)
class Manifest:
    """One image, or one artifact: a config and layers, lowest first (image-spec: manifest.md)."""

    config: Descriptor
    layers: tuple[Descriptor, ...]
    media_type: str = media_types.OCI_MANIFEST
    annotations: Mapping[str, str] = field(default_factory=dict, hash=False)
    subject: Descriptor | None = None
    artifact_type: str = ""
    extra: Mapping[str, object] = field(default_factory=dict, hash=False)

    @classmethod
    def from_json(cls, content: bytes, media_type: str = "") -> Manifest:
        """Read a manifest. `media_type` is what the pointer to it, or a Content-Type, says it is.

        Raises InvalidDocument with the JSON path, LimitExceeded beyond 4 MiB.
        """
        fields = Fields(loads(content, "manifest"), "manifest")
        kind = _envelope(fields, media_type, media_types.MANIFESTS, media_types.OCI_MANIFEST)
        config = fields.object("config")
        if config is None:
            raise InvalidDocument("manifest.config: missing")
        if "layers" not in fields:
            raise InvalidDocument("manifest.layers: missing")
        return cls(
            config=_descriptor(config),
            layers=tuple(_descriptor(layer) for layer in fields.objects("layers")),
            media_type=kind,
            annotations=fields.mapping("annotations"),
            subject=_subject(fields),
            artifact_type=fields.text("artifactType"),
            extra=fields.rest(exact=True),
        )

    def to_json(self) -> bytes:
        """The manifest's bytes."""
        known = {
            "schemaVersion": 2,
            "mediaType": self.media_type,
            "artifactType": self.artifact_type,
            "config": descriptor_value(self.config),
            "layers": [descriptor_value(layer) for layer in self.layers],
            "subject": self.subject and descriptor_value(self.subject),
            "annotations": _sorted(self.annotations),
        }
        return dumps(kept(_present(known, "layers"), self.extra))


@dataclass(frozen=True, slots=True)
class Index:
    """Pointers to manifests, mostly one for each platform (image-spec: image-index.md)."""

    manifests: tuple[Descriptor, ...]
    media_type: str = media_types.OCI_INDEX
    annotations: Mapping[str, str] = field(default_factory=dict, hash=False)
    subject: Descriptor | None = None
    artifact_type: str = ""
    extra: Mapping[str, object] = field(default_factory=dict, hash=False)

    @classmethod
    def from_json(cls, content: bytes, media_type: str = "") -> Index:
        """Read an index or Docker's manifest list; see Manifest.from_json."""
        fields = Fields(loads(content, "index"), "index")
        kind = _envelope(fields, media_type, media_types.INDEXES, media_types.OCI_INDEX)
        if "manifests" not in fields:
            raise InvalidDocument("index.manifests: missing")
        return cls(
            manifests=tuple(_descriptor(item) for item in fields.objects("manifests")),
            media_type=kind,
            annotations=fields.mapping("annotations"),
            subject=_subject(fields),
            artifact_type=fields.text("artifactType"),
            extra=fields.rest(exact=True),
        )

    def to_json(self) -> bytes:
        """The index's bytes."""
        known = {
            "schemaVersion": 2,
            "mediaType": self.media_type,
            "artifactType": self.artifact_type,
            "manifests": [descriptor_value(item) for item in self.manifests],
            "subject": self.subject and descriptor_value(self.subject),
            "annotations": _sorted(self.annotations),
        }
        return dumps(kept(_present(known, "manifests"), self.extra))


@dataclass(frozen=True, slots=True)
class History:
    """What one step did (image-spec: config.md, history). `created` is RFC 3339 text, "" when unknown."""

    created: str = ""
    created_by: str = ""
    author: str = ""
    comment: str = ""
    empty_layer: bool = False
    extra: Mapping[str, object] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class Healthcheck:
    """How Docker asks a container whether it is well. Times are in nanoseconds; zero and () inherit."""

    test: tuple[str, ...] = ()
    interval_ns: int = 0
    timeout_ns: int = 0
    start_period_ns: int = 0
    start_interval_ns: int = 0
    retries: int = 0


@dataclass(frozen=True, slots=True)
class RunConfig:
    """How a container of the image starts (image-spec: config.md, config), with Docker's four additions.

    `env` holds "KEY=value". `entrypoint`, `cmd` and `shell` tell None (not set) from () (set to nothing).
    """

    user: str = ""
    exposed_ports: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] | None = None
    cmd: tuple[str, ...] | None = None
    volumes: tuple[str, ...] = ()
    working_dir: str = ""
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)
    stop_signal: str = ""
    args_escaped: bool = False
    healthcheck: Healthcheck | None = None
    on_build: tuple[str, ...] = ()
    shell: tuple[str, ...] | None = None
    extra: Mapping[str, object] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """An image's own description (image-spec: config.md): platform, start-up, layers' diffIDs, history."""

    platform: Platform
    config: RunConfig = field(default_factory=RunConfig)
    diff_ids: tuple[Digest, ...] = ()
    history: tuple[History, ...] = ()
    created: str = ""
    author: str = ""
    extra: Mapping[str, object] = field(default_factory=dict, hash=False)

    @classmethod
    def from_json(cls, content: bytes) -> ImageConfig:
        """Read a config. Raises InvalidDocument with the JSON path, LimitExceeded beyond 4 MiB."""
        fields = Fields(loads(content, "config"), "config")
        rootfs = fields.object("rootfs")
        if rootfs is None:
            raise InvalidDocument("config.rootfs: missing; this is no image config")
        if (kind := rootfs.text("type")) != "layers":
            raise InvalidDocument(f"config.rootfs.type: {kind!r}; only 'layers' exists")
        run = fields.object("config")
        return cls(
            platform=_platform(fields),
            config=_run_config(run) if run else RunConfig(),
            diff_ids=rootfs.digests("diff_ids"),
            history=tuple(_history(item) for item in fields.objects("history")),
            created=fields.text("created"),
            author=fields.text("author"),
            extra=fields.rest(),
        )

    def to_json(self) -> bytes:
        """The config's bytes."""
        known = {
            "created": self.created,
            "author": self.author,
            **platform_value(self.platform),
            "config": _run_config_value(self.config),
            "rootfs": {"type": "layers", "diff_ids": [str(diff_id) for diff_id in self.diff_ids]},
            "history": [_history_value(item) for item in self.history],
        }
        return dumps(kept(_present(known, "architecture", "os", "config"), self.extra))


class _Document(Protocol):
    def to_json(self) -> bytes: ...


T = TypeVar("T", bound=_Document)


@dataclass(frozen=True, slots=True)
class Raw(Generic[T]):
    """A document and the very bytes it was read from or written as."""

    value: T
    content: bytes

    @classmethod
    def of(cls, value: T) -> Raw[T]:
        """A document of our own making."""
        return cls(value, value.to_json())

    @property
    def digest(self) -> Digest:
        """The sha256 digest of the bytes."""
        return Digest.of(self.content)


def parse(content: bytes, media_type: str = "") -> Manifest | Index:
    """A manifest or an index: what `media_type` says; without one, what its structure says."""
    if not media_type:
        fields = Fields(loads(content, "document"), "document")
        is_index = "manifests" in fields and "layers" not in fields
        media_type = fields.text("mediaType") or (media_types.OCI_INDEX if is_index else "")
    if media_type in media_types.INDEXES:
        return Index.from_json(content, media_type)
    return Manifest.from_json(content, media_type)


# --- reading ---------------------------------------------------------------------------------------------


def _envelope(fields: Fields, expected: str, allowed: frozenset[str], default: str) -> str:
    """The document's media type, once pointer, text and structure agree (CVE-2021-41190)."""
    for key in ("manifests", "layers", "config"):
        fields.get(key)  # now `rest` knows all three, in whatever case
    if "manifests" in fields and ("layers" in fields or "config" in fields):
        raise InvalidDocument(
            f"{fields.path}: has `manifests` beside `layers` or `config`; it may be one or the other"
        )
    if fields.number("schemaVersion", -1) == 1:
        raise InvalidDocument(
            f"{fields.path}: Docker's schema 1 is obsolete; push the image again with a current tool"
        )
    if (version := fields.number("schemaVersion", -1)) != 2:
        raise InvalidDocument(
            f"{fields.at('schemaVersion')}: {version if version >= 0 else 'missing'}; expected 2"
        )
    embedded = fields.text("mediaType")
    if embedded and expected and embedded != expected:
        raise InvalidDocument(
            f"{fields.at('mediaType')}: {embedded!r}, but what points here says {expected!r}"
        )
    kind = embedded or expected or default
    if kind not in allowed:
        raise InvalidDocument(f"{fields.at('mediaType')}: {kind!r} is none of {', '.join(sorted(allowed))}")
    return kind


def descriptor_from(value: object, path: str) -> Descriptor:
    """A descriptor out of parsed JSON; `path` leads errors."""
    return _descriptor(Fields(value, path))


def _descriptor(fields: Fields) -> Descriptor:
    size = fields.number("size")
    if size < 0:
        raise InvalidDocument(f"{fields.at('size')}: {size} is negative")
    platform = fields.object("platform")
    return Descriptor(
        media_type=fields.text("mediaType", need=True),
        digest=fields.digest("digest"),
        size=size,
        annotations=fields.mapping("annotations"),
        platform=_platform(platform) if platform else None,
        artifact_type=fields.text("artifactType"),
        urls=fields.texts("urls") or (),
        extra=fields.rest(exact=True),
    )


def _subject(fields: Fields) -> Descriptor | None:
    subject = fields.object("subject")
    return _descriptor(subject) if subject else None


def _platform(fields: Fields) -> Platform:
    return Platform(
        os=fields.text("os"),
        architecture=fields.text("architecture"),
        variant=fields.text("variant"),
        os_version=fields.text("os.version"),
        os_features=fields.texts("os.features") or (),
    )


def _history(fields: Fields) -> History:
    return History(
        created=fields.text("created"),
        created_by=fields.text("created_by"),
        author=fields.text("author"),
        comment=fields.text("comment"),
        empty_layer=fields.flag("empty_layer"),
        extra=fields.rest(),
    )


def _run_config(fields: Fields) -> RunConfig:
    health = fields.object("Healthcheck")
    return RunConfig(
        user=fields.text("User"),
        exposed_ports=fields.names("ExposedPorts"),
        env=fields.texts("Env") or (),
        entrypoint=fields.texts("Entrypoint"),
        cmd=fields.texts("Cmd"),
        volumes=fields.names("Volumes"),
        working_dir=fields.text("WorkingDir"),
        labels=fields.mapping("Labels"),
        stop_signal=fields.text("StopSignal"),
        args_escaped=fields.flag("ArgsEscaped"),
        healthcheck=_healthcheck(health) if health else None,
        on_build=fields.texts("OnBuild") or (),
        shell=fields.texts("Shell"),
        extra=fields.rest(),
    )


def _healthcheck(fields: Fields) -> Healthcheck:
    return Healthcheck(
        test=fields.texts("Test") or (),
        interval_ns=fields.number("Interval", 0),
        timeout_ns=fields.number("Timeout", 0),
        start_period_ns=fields.number("StartPeriod", 0),
        start_interval_ns=fields.number("StartInterval", 0),
        retries=fields.number("Retries", 0),
    )


# --- writing ---------------------------------------------------------------------------------------------


def descriptor_value(descriptor: Descriptor) -> dict[str, object]:
    """A descriptor as JSON will show it."""
    known = {
        "mediaType": descriptor.media_type,
        "digest": str(descriptor.digest),
        "size": descriptor.size,
        "urls": list(descriptor.urls),
        "annotations": _sorted(descriptor.annotations),
        "platform": descriptor.platform and platform_value(descriptor.platform),
        "artifactType": descriptor.artifact_type,
    }
    return kept(_present(known, "size"), descriptor.extra)


def platform_value(platform: Platform) -> dict[str, object]:
    """A platform as JSON will show it."""
    known = {
        "architecture": platform.architecture,
        "os": platform.os,
        "os.version": platform.os_version,
        "os.features": list(platform.os_features),
        "variant": platform.variant,
    }
    return _present(known, "architecture", "os")


def _history_value(item: History) -> dict[str, object]:
    known = {
        "created": item.created,
        "created_by": item.created_by,
        "author": item.author,
        "comment": item.comment,
        "empty_layer": item.empty_layer,
    }
    return kept(_present(known), item.extra)


def _run_config_value(config: RunConfig) -> dict[str, object]:
    known: dict[str, object] = {
        "User": config.user,
        "ExposedPorts": {port: {} for port in sorted(config.exposed_ports)},
        "Env": list(config.env),
        "Entrypoint": config.entrypoint,
        "Cmd": config.cmd,
        "Volumes": {volume: {} for volume in sorted(config.volumes)},
        "WorkingDir": config.working_dir,
        "Labels": _sorted(config.labels),
        "StopSignal": config.stop_signal,
        "ArgsEscaped": config.args_escaped,
        "Healthcheck": config.healthcheck and _healthcheck_value(config.healthcheck),
        "OnBuild": list(config.on_build),
        "Shell": config.shell,
    }
    empties = [key for key in ("Entrypoint", "Cmd", "Shell") if known[key] is not None]
    return kept(_present(known, *empties), config.extra)


def _healthcheck_value(health: Healthcheck) -> dict[str, object]:
    known: dict[str, object] = {
        "Test": list(health.test),
        "Interval": health.interval_ns,
        "Timeout": health.timeout_ns,
        "StartPeriod": health.start_period_ns,
        "StartInterval": health.start_interval_ns,
        "Retries": health.retries,
    }
    return _present(known)


def _present(known: Mapping[str, object], *always: str) -> dict[str, object]:
    """`known` without its empty values (Go's `omitempty`), but for those that must be written."""
    return {
        key: value for key, value in known.items() if key in always or value not in ("", 0, None, [], (), {})
    }


def _sorted(mapping: Mapping[str, str]) -> dict[str, str]:
    return {key: mapping[key] for key in sorted(mapping)}
