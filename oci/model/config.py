"""An image's config: how its containers start, what its layers hold, how it was made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field

from oci.data import dataclass
from oci.digest import Digest
from oci.errors import InvalidDocument
from oci.model.descriptor import Platform, ordered, platform_of, platform_value, present
from oci.strict_json import Fields, dumps, kept, loads


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
            platform=platform_of(fields),
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
        return dumps(kept(present(known, "architecture", "os", "config"), self.extra))


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


def _history_value(item: History) -> dict[str, object]:
    known = {
        "created": item.created,
        "created_by": item.created_by,
        "author": item.author,
        "comment": item.comment,
        "empty_layer": item.empty_layer,
    }
    return kept(present(known), item.extra)


def _run_config_value(config: RunConfig) -> dict[str, object]:
    known: dict[str, object] = {
        "User": config.user,
        "ExposedPorts": {port: {} for port in sorted(config.exposed_ports)},
        "Env": list(config.env),
        "Entrypoint": config.entrypoint,
        "Cmd": config.cmd,
        "Volumes": {volume: {} for volume in sorted(config.volumes)},
        "WorkingDir": config.working_dir,
        "Labels": ordered(config.labels),
        "StopSignal": config.stop_signal,
        "ArgsEscaped": config.args_escaped,
        "Healthcheck": config.healthcheck and _healthcheck_value(config.healthcheck),
        "OnBuild": list(config.on_build),
        "Shell": config.shell,
    }
    empties = [key for key in ("Entrypoint", "Cmd", "Shell") if known[key] is not None]
    return kept(present(known, *empties), config.extra)


def _healthcheck_value(health: Healthcheck) -> dict[str, object]:
    known: dict[str, object] = {
        "Test": list(health.test),
        "Interval": health.interval_ns,
        "Timeout": health.timeout_ns,
        "StartPeriod": health.start_period_ns,
        "StartInterval": health.start_interval_ns,
        "Retries": health.retries,
    }
    return present(known)
