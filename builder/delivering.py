"""Finished images leave the build: outputs are written, then names are given in the store."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from builder import space
from builder.assembling import Product, facts_of
from builder.errors import ExportError
from builder.events import Emit, Exported, stamp
from builder.export.base import Export, Exporter, Gathering, One, called, wish
from builder.request import Built
from oci.data import dataclass

if TYPE_CHECKING:
    from builder.graph import Step
    from builder.images import Images
    from builder.registries import Registries
    from builder.snapshot.view import View
    from oci.blobs import BlobStore
    from oci.image import Image
    from oci.model import Descriptor
    from oci.reference import Reference


@dataclass(frozen=True, slots=True)
class Sent:
    """A product whose outputs are written: their lines, and what was pushed, if it was."""

    product: Product
    lines: tuple[str, ...]
    pushed: Descriptor | None


@dataclass(frozen=True, slots=True)
class Delivery:
    """The way out for all products of one build. `view` opens the merged files of a step's result, `unpack`
    makes directories of an image's layers, fetching those that are not here."""

    exporters: Sequence[Exporter]
    images: Images
    registries: Registries
    view: Callable[[Step], AbstractContextManager[View]]
    clock: int | None
    emit: Emit
    unpack: Callable[[Image], object]

    def export(self, products: Sequence[Product]) -> list[Sent]:
        """Write all outputs. Raises ExportError, RegistryFailed, OciError."""
        several = len(products) > 1
        exports = [self._export(each, several) for each in products]
        gathering = [each for each in self.exporters if isinstance(each, Gathering)] if several else []
        sent = []
        for product, export in zip(products, exports, strict=True):
            self.registries.shipped = None
            single = [each for each in self.exporters if each not in gathering]
            lines = [self._written(each, partial(each.export, export)) for each in single]
            sent.append(Sent(product, tuple(filter(None, lines)), self.registries.shipped))
        lines = [self._written(each, partial(each.export_all, exports)) for each in gathering]
        return [replace(each, lines=(*each.lines, *lines)) for each in sent]

    def _export(self, product: Product, several: bool) -> Export:
        return Export(
            product.descriptor,
            tuple(str(name) for name in product.goal.names),
            tuple(
                One(each.plan.platform, each.descriptor, self._opener(each.plan.target), each.new_layers)
                for each in product.members
            ),
            self.clock,
            self.registries,
            product.members[0].plan.stage if several else "",
        )

    def _written(self, exporter: object, write: Callable[[BlobStore], str]) -> str:
        """The line that an output gives, which is told."""
        try:
            line = write(self.images.layout.blobs)
        except OSError as error:
            if space.is_full(error):
                raise space.no_space(error, getattr(exporter, "dest", "") or "an output") from error
            raise ExportError(_unwritten(error, getattr(exporter, "dest", ""))) from error
        if line:
            self.emit(Exported(line, stamp()))
        return line

    def _opener(self, step: Step) -> Callable[[], AbstractContextManager[View]]:
        return lambda: self.view(step)

    def named(self, sent: Sent) -> Built:
        """Give a product the names it is to have, and have all of it in the store unless it was pushed."""
        product, descriptor = sent.product, sent.product.descriptor
        wishes = [wish(each, descriptor) for each in self.exporters]
        names = (*product.goal.names, *(name for each in wishes for name in each.names))
        kept = not self.exporters or any(each.keep for each in wishes)
        if (names or kept) and not any(each.pushed for each in wishes):
            self.registries.complete(descriptor)
        self._name(product, names, kept)
        if any(each.unpack for each in wishes):
            for member in product.members:
                self.unpack(member.image)
        for name in names:
            self.emit(Exported(f"naming to {name}", stamp()))
        own = (name for each in self.exporters for name in called(each))
        shown = dict.fromkeys((*(str(name) for name in product.goal.names), *own))
        return Built(product.id, sent.pushed or descriptor, tuple(shown), sent.lines)

    def _name(self, product: Product, names: Sequence[Reference], kept: bool) -> None:
        descriptor = product.descriptor
        facts = {
            **facts_of(product, self.images.layout),
            **self.registries.pushed(descriptor.digest),
        }
        for name in names:
            if name.digest is None:
                self.images.tag(name, descriptor, facts)
            else:
                self.images.pulled(name, descriptor, facts)
        if not names and kept:
            self.images.keep(descriptor, facts)


def _unwritten(error: OSError, dest: str) -> str:
    """What to tell people of an output that could not be written to `dest`."""
    if isinstance(error, BrokenPipeError):
        return "the output is not complete: its reader went away"
    where = "standard output" if dest == "-" else dest or "an output"
    if isinstance(error.filename, str | bytes):
        where = os.fsdecode(error.filename)
    return f"{where} could not be written: {error.strerror or error}"
