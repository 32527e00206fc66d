"""Images from containers: what a container wrote becomes layers on top of those of its image."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from builder.errors import BuildError
from oci.compress import codec
from oci.image import Image
from oci.layer import Layer, LayerSink
from oci.model import Descriptor, History, ImageConfig, RunConfig
from oci.tar import TarWriter

if TYPE_CHECKING:
    from builder.container.model import Container, RunRequest, State
    from builder.container.written import Written
    from builder.state import StateDir
    from oci.blobs import BlobStore


def commit(
    found: Written,
    container: Container,
    image: Image,
    store: BlobStore,
    *,
    created: str,
    clock: int | None = None,
    changed: Callable[[Image], ImageConfig] | None = None,
    author: str = "",
    message: str = "",
    volumes: tuple[str, ...] = (),
) -> Descriptor:
    """Store the image of what a container wrote (`found`) on top of its own `image`.

    Its config is the container's, as `changed` gives it back; no time in its layers is later than `clock`,
    `created` is RFC 3339. `volumes` are the paths of volumes without a name, which an image declares. Raises
    BuildError when something writes meanwhile.
    """
    run = config_of(container.request, container, image.config.value.config, volumes)
    below = replace(image.config.value, config=run, created=created, author=author)
    bare = Image.of(below, image.layers, kind=image.kind)
    config = replace(below, config=changed(bare).config) if changed else below
    made = History(created, " ".join(run.cmd or container.argv), author, message)
    with store.staging() as staging:
        image = Image.of(config, image.layers, kind=image.kind)
        layers = [layer for each in found.layers() if (layer := _layer(found, *each, clock, staging))]
        for layer in layers or (None,):
            image = image.append(layer, made)
        descriptor = image.write(staging)
        staging.publish()
    return descriptor


def _layer(
    found: Written, upper: str, below: tuple[str, ...], clock: int | None, store: BlobStore
) -> Layer | None:
    """The layer of one of its directories; None when nothing is in it."""
    from builder.snapshot.diff import write

    with LayerSink(codec("gzip", 1), store) as sink:
        tar = TarWriter(sink)
        try:
            write(found.changes(upper, below, clock=clock), tar)
        except BuildError as error:
            raise type(error)(str(error), hint="the container runs on; leave --no-pause out") from None
        if not tar.entries:
            return None
        tar.finish()
        return sink.finish()


def config_of(
    request: RunRequest, container: Container, image: RunConfig, volumes: tuple[str, ...] = ()
) -> RunConfig:
    """What a container was started with, as an image's config. As with docker, triggers of ONBUILD are not
    inherited, and published ports count as exposed.
    """
    own = dict(request.env)
    kept = tuple(each for each in image.env if each.partition("=")[0] not in own)
    entrypoint, cmd = image.entrypoint, image.cmd
    if request.entrypoint is not None:
        entrypoint, cmd = ((request.entrypoint,) if request.entrypoint else None), None
    return replace(
        image,
        env=(*(f"{name}={value}" for name, value in request.env), *kept),
        entrypoint=entrypoint,
        cmd=request.args or cmd,
        user=request.user or image.user,
        working_dir=request.workdir or image.working_dir,
        labels=dict(container.labels),
        stop_signal=request.stop_signal or image.stop_signal,
        exposed_ports=tuple(sorted({*image.exposed_ports, *(each.inside for each in request.ports)})),
        volumes=tuple(sorted({*image.volumes, *volumes})),
        on_build=(),
    )


@contextmanager
def paused(store: StateDir, container: Container, state: State) -> Iterator[None]:
    """A running container's processes stopped for the time of the block. One that is paused already stays
    so, and one that has ended meanwhile is none to stop.
    """
    from builder.container import lifecycle

    if state.status != "running":
        yield
        return
    lifecycle.ask(store, container.id, do="pause")
    try:
        yield
    finally:
        with _undisturbed(), suppress(BuildError):
            lifecycle.ask(store, container.id, do="unpause")


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Nobody's Ctrl-C keeps the container from going on."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
