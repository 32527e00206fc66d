"""Plans whose steps are done become images, and the images of several platforms an index."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from builder import origins
from builder.events import Emit, Warning_
from builder.finishing import Finish, Workplace, finish, pointer
from builder.origins import ORIGIN, Origin
from builder.solver.cache import at_clock
from oci.data import dataclass
from oci.image import Image, index_of
from oci.model import Descriptor, History, ImageConfig

if TYPE_CHECKING:
    from builder.goals import Goal
    from builder.graph import Plan, Record
    from builder.planning import Work
    from builder.solver.result import Made
    from oci.blobs import BlobStore
    from oci.digest import Digest
    from oci.layout import Layout


@dataclass(frozen=True, slots=True)
class Member:
    """One platform's image: how it was planned, and the pointer to it in the store."""

    plan: Plan
    image: Image
    descriptor: Descriptor

    @property
    def new_layers(self) -> int:
        """How many layers this build put on its base."""
        return len(self.image.layers) - _below(self.plan)


@dataclass(frozen=True, slots=True)
class Product:
    """What a goal became: an image, or an index of `members`. `descriptor` points to it in the store."""

    goal: Goal
    descriptor: Descriptor
    members: tuple[Member, ...]
    index: bool = False

    @property
    def id(self) -> Digest:
        """What people know it by: an image's config, an index's own digest."""
        return self.descriptor.digest if self.index else self.members[0].image.id


def product(
    work: Work,
    made: Mapping[str, Made],
    wanted: Finish,
    blobs: BlobStore,
    place: Workplace,
    emit: Emit,
    *,
    clock: int | None,
    index: bool,
) -> Product:
    """The image of a goal whose steps are done, finished as `wanted` and written; with `index` an index."""

    def warn(text: str) -> None:
        emit(Warning_("NothingToUnset", text))

    members = []
    for plan in work.plans:
        image = finish(assemble(plan, made, clock), wanted, _below(plan), place, warn)
        descriptor = pointer(image.write(blobs), wanted.of("manifest-descriptor", image.platform))
        members.append(Member(plan, image, descriptor))
    if not index:
        return Product(work.goal, members[0].descriptor, tuple(members))
    raw = index_of(tuple(each.descriptor for each in members), annotations=wanted.of("index"))
    if raw.digest not in blobs:
        blobs.write(raw.content)
    descriptor = pointer(Descriptor.of(raw.value.media_type, raw.content), wanted.of("index-descriptor"))
    return Product(work.goal, descriptor, tuple(members), index=True)


def _below(plan: Plan) -> int:
    """How many layers the base of an image has."""
    return len(plan.base.layers) if plan.base else 0


def assemble(plan: Plan, made: Mapping[str, Made], clock: int | None) -> Image:
    """The image of a plan whose steps are done: the base, then a layer and a history line per record.

    With a clock every new line carries it. Without one a line has the moment its step first ran; those
    between carry that of the line before (BuildKit's rule): a fully cached build gives the same bytes.
    """
    base = plan.base.config.value if plan.base else ImageConfig(plan.platform)
    rows = [(record, _created(record, made, clock)) for record in plan.records]
    created = base.history[-1].created if base.history else base.created
    created = next((moment for _, moment in rows if moment), created)
    history, layers, diff_ids = (
        list(base.history),
        list(plan.base.layers if plan.base else ()),
        list(base.diff_ids),
    )
    for record, moment in rows:
        created = moment or created
        layer = made[record.step.digest].layer.result() if record.step else None
        history.append(History(created, record.created_by, "", record.comment, layer is None))
        if layer is not None:
            layers.append(Descriptor(layer.media_type, layer.digest, layer.size))
            diff_ids.append(layer.diff_id)
    config = replace(plan.config, created=created, diff_ids=tuple(diff_ids), history=tuple(history))
    return Image.of(config, tuple(layers))


def _created(record: Record, made: Mapping[str, Made], clock: int | None) -> str:
    if clock is not None:
        return at_clock(clock)
    return made[record.step.digest].created if record.step else ""


def facts_of(product: Product, layout: Layout) -> dict[str, str]:
    """What to remember of an image: where its bases' layers are to be had. In an index each of its images is
    named by its digest."""
    found: list[Origin] = []
    for member in product.members:
        base = member.plan.base
        if base is None or not base.layers:
            continue
        known = origins.of_base(origins.origins(layout, base.manifest.digest), len(base.layers))
        digest = member.descriptor.digest
        found += (
            [replace(each, repository=each.repository.with_digest(digest)) for each in known]
            if product.index
            else known
        )
    return origins.facts(*found, kind=ORIGIN)
