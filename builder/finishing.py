"""What the command line still changes of an image whose steps are done: settings taken back (D12, O17),
variables set, its new layers made one (D13, O16), annotations (O11). No step knows of any of this, so the
cache stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from builder.graph import key_of
from builder.solver.cache import StepRecord
from oci import platforms
from oci.data import dataclass
from oci.model import Descriptor, History, RunConfig

if TYPE_CHECKING:
    from builder.solver.cache import Cache
    from oci.blobs import BlobStore
    from oci.compress import Codec
    from oci.image import Image
    from oci.model import Platform

WHOLE: Mapping[str, Mapping[str, object]] = {
    "entrypoint": {"entrypoint": None},
    "cmd": {"cmd": None},
    "user": {"user": ""},
    "workdir": {"working_dir": ""},
    "stopsignal": {"stop_signal": ""},
    "healthcheck": {"healthcheck": None},
    "shell": {"shell": None},
    "onbuild": {"on_build": ()},
}
"""Settings that are taken back whole, and what they are then."""


Place = Literal["manifest", "manifest-descriptor", "index", "index-descriptor"]
"""What carries an annotation: a manifest, an index, or what points to one of them (O11)."""
PLACES: tuple[Place, ...] = ("manifest", "manifest-descriptor", "index", "index-descriptor")


@dataclass(frozen=True, slots=True)
class Annotation:
    """One annotation; with `platform` only for the image of that platform."""

    place: Place
    key: str
    value: str
    platform: Platform | None = None


@dataclass(frozen=True, slots=True)
class Finish:
    """What is asked for. `unset` holds `env.NAME`, `label.NAME`, `volume.PATH`, `expose.PORT`, a setting;
    `env` variables and their values, set after that.
    """

    unset: tuple[str, ...] = ()
    squash: bool = False
    annotations: tuple[Annotation, ...] = ()
    env: tuple[tuple[str, str], ...] = ()

    def of(self, place: Place, platform: Platform | None = None) -> dict[str, str]:
        """The annotations of one place, for an image of `platform`."""
        return {
            each.key: each.value
            for each in self.annotations
            if each.place == place
            and (
                each.platform is None or (platform is not None and platforms.matches(each.platform, platform))
            )
        }


@dataclass(frozen=True, slots=True)
class Workplace:
    """Where layers are read and written, and what is known of those written before."""

    cache: Cache
    blobs: BlobStore
    codec: Codec


def finish(image: Image, wanted: Finish, below: int, work: Workplace, warn: Callable[[str], None]) -> Image:
    """`image` as the command line wants it; its first `below` layers are its base's."""
    if wanted.unset or wanted.env:
        config = image.config.value
        settings = _with_env(without(config.config, wanted.unset, warn), wanted.env)
        image = image.with_config(replace(config, config=settings))
    if wanted.squash:
        image = _squashed(image, below, work)
    return image.annotated(wanted.of("manifest", image.platform))


def pointer(descriptor: Descriptor, more: Mapping[str, str]) -> Descriptor:
    """The pointer to a finished image, with more annotations."""
    merged = {**descriptor.annotations, **more}
    return replace(descriptor, annotations=merged) if merged else descriptor


def without(config: RunConfig, names: Iterable[str], warn: Callable[[str], None]) -> RunConfig:
    """`config` without the settings of these names; `warn` hears of those that it has not."""
    for each in names:
        kind, _, name = each.partition(".")
        changed = replace(config, **(WHOLE[kind] if kind in WHOLE else _less(config, kind, name)))  # type: ignore[arg-type]
        if changed == config:
            warn(f"--unset {each}: the image has no such setting")
        config = changed
    return config


def _less(config: RunConfig, kind: str, name: str) -> dict[str, object]:
    match kind:
        case "env":
            return {"env": tuple(each for each in config.env if each.partition("=")[0] != name)}
        case "label":
            return {"labels": {key: value for key, value in config.labels.items() if key != name}}
        case "volume":
            return {"volumes": tuple(each for each in config.volumes if each != name)}
    port = name if "/" in name else f"{name}/tcp"
    return {"exposed_ports": tuple(each for each in config.exposed_ports if each != port)}


def _with_env(config: RunConfig, more: Iterable[tuple[str, str]]) -> RunConfig:
    """`config` with more variables, each in the place of one of its name."""
    env = {name: value for name, _, value in (each.partition("=") for each in config.env)} | dict(more)
    return replace(config, env=tuple(f"{name}={value}" for name, value in env.items()))


def _squashed(image: Image, below: int, work: Workplace) -> Image:
    """`image` with one layer in place of its new ones; that of the same ones before is used again."""
    from oci.image import Image
    from oci.squash import squash

    config = image.config.value
    new = image.layers[below:]
    if len(new) < 2:
        return image
    key = key_of(["squash", [str(each.digest) for each in new]])
    record = work.cache.record(key)
    if record is None or (record.layer is not None and record.layer.digest not in work.blobs):
        record = StepRecord(squash(new, work.blobs, work.codec), config.created)
        work.cache.store(key, record)
    layer = record.layer
    kept = sum(not each.empty_layer for each in config.history) - len(new)
    history = tuple(_emptied(config.history, kept))
    line = History(config.created, f"squash {len(new)} layers", "", "", empty_layer=layer is None)
    layers, diff_ids = image.layers[:below], config.diff_ids[:below]
    if layer is not None:
        layers += (Descriptor(layer.media_type, layer.digest, layer.size),)
        diff_ids += (layer.diff_id,)
    return Image.of(replace(config, diff_ids=diff_ids, history=(*history, line)), layers)


def _emptied(history: tuple[History, ...], kept: int) -> Iterable[History]:
    """History whose lines made no layer of their own after the first `kept` that did."""
    for each in history:
        if not each.empty_layer:
            kept -= 1
        yield each if kept >= 0 else replace(each, empty_layer=True)
