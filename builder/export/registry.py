"""`type=registry` and `type=image`: the image pushed, or named in the local store, or both.

What the store lacks of the base is never fetched for a push: it is mounted, or streamed from where it is.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from builder.errors import UsageError
from builder.export.archive import codec_of, converted
from builder.export.base import Export, OutputSpec, Wish, refuse_unknown
from oci.data import dataclass
from oci.errors import InvalidReference
from oci.reference import Reference

if TYPE_CHECKING:
    from oci.blobs import BlobStore
    from oci.compress import Codec
    from oci.model import Descriptor

_OPTIONS = frozenset(
    {
        "name",
        "push",
        "push-by-digest",
        "name-canonical",
        "dangling-name-prefix",
        "registry.insecure",
        "store",
        "unpack",
        "compression",
        "compression-level",
        "force-compression",
        "oci-mediatypes",
        "rewrite-timestamp",
    }
)


@dataclass(frozen=True, slots=True)
class RegistryExporter:
    """Pushes under `names`, or under those of the build; `type=image` keeps the image in the local store too.

    `by_digest` pushes without a tag. `canonical` names the local image by its digest as well, `dangling` is
    the repository of that name when there is no other. `codec` None keeps layers as they are. `unpack` has
    the layers of an image that is kept unpacked, for the first container or RUN to find them.
    """

    type: str
    push: bool
    names: tuple[Reference, ...] = ()
    by_digest: bool = False
    canonical: bool = False
    dangling: Reference | None = None
    store: bool = True
    insecure: bool = False
    codec: Codec | None = None
    force: bool = False
    kind: Literal["oci", "docker"] = "oci"
    unpack: bool = False

    @classmethod
    def of(cls, spec: OutputSpec) -> RegistryExporter:
        """Read the options of `spec`. Raises UsageError."""
        refuse_unknown(spec, _OPTIONS)
        if spec.dest:
            raise UsageError(f"--output type={spec.type} has no dest", hint="name=REGISTRY/NAME[:TAG]")
        by_digest = spec.flag("push-by-digest", False)
        unpack = spec.flag("unpack", False)
        prefix = spec.options.get("dangling-name-prefix", "")
        return cls(
            spec.type,
            spec.flag("push", spec.type == "registry" or by_digest),
            _names(spec, by_digest),
            by_digest,
            spec.flag("name-canonical", False),
            _parsed(spec, prefix) if prefix else None,
            spec.type == "image" and spec.flag("store", True),
            spec.flag("registry.insecure", False),
            codec_of(spec),
            spec.flag("force-compression", False),
            "oci" if spec.flag("oci-mediatypes", True) else "docker",
            unpack,
        )

    def export(self, what: Export, blobs: BlobStore) -> str:
        """Push it, if that is asked for. Raises RegistryFailed."""
        if not self.push:
            return ""
        names = self._targets(what)
        if self.codec is not None and self.force:
            what.complete()
        descriptor = converted(what, blobs, self.codec, self.force, self.kind)
        assert what.registries is not None
        what.registries.push(blobs, descriptor, names, insecure=self.insecure)
        return f"pushed {', '.join(str(name) for name in names)}@{descriptor.digest}"

    def wish(self, descriptor: Descriptor) -> Wish:
        """What it wants of the local store."""
        if not self.store:
            return Wish(pushed=self.push)
        tagged = () if self.by_digest else tuple(name.with_default_tag() for name in self.names)
        bare = [replace(name, tag="") for name in self.names] if self.canonical else []
        if self.dangling is not None and not self.names:
            bare = [replace(self.dangling, tag="")]
        pinned = tuple(name.with_digest(descriptor.digest) for name in bare)
        return Wish(True, (*tagged, *pinned), self.push, self.unpack)

    @property
    def called(self) -> tuple[str, ...]:
        """The names it gives by itself, for who reports them."""
        return tuple(str(name if self.by_digest else name.with_default_tag()) for name in self.names)

    @property
    def needs_name(self) -> bool:
        """Whether the build must have a name for it."""
        return self.push and not self.names

    def _targets(self, what: Export) -> tuple[Reference, ...]:
        names = self.names or tuple(Reference.parse(name) for name in what.names)
        if self.by_digest:
            return tuple(dict.fromkeys(replace(name, tag="") for name in names))
        return tuple(name.with_default_tag() for name in names)


def _names(spec: OutputSpec, by_digest: bool) -> tuple[Reference, ...]:
    names = tuple(_parsed(spec, each) for each in spec.options.get("name", "").split(",") if each)
    for name in names:
        if name.digest is not None or (by_digest and name.tag):
            what = "a tag" if name.digest is None else "a digest"
            raise UsageError(
                f"--output type={spec.type}: name={name.familiar()} has {what}, which it cannot have here",
                hint="push-by-digest needs a repository without a tag" if by_digest else "",
            )
    return names


def _parsed(spec: OutputSpec, text: str) -> Reference:
    try:
        return Reference.parse(text)
    except InvalidReference as error:
        raise UsageError(f"--output type={spec.type}: {error}") from None
