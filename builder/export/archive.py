"""`type=oci` and `type=docker`: the image as one tar file, on stdout, or as a layout directory."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from builder.errors import UsageError
from builder.export.base import Export, One, OutputSpec, dest_of, refuse_missing_directory, refuse_unknown
from oci.archive import Named, write_archive
from oci.blobs import BlobStore
from oci.compress import Codec, codec
from oci.data import dataclass
from oci.durable import sync_directory
from oci.image import Image, copy, index_of, verify
from oci.layer import Layer, recompress
from oci.model import Index
from oci.reference import Reference

if TYPE_CHECKING:
    from oci.model import Descriptor

_OPTIONS = frozenset(
    {
        "name",
        "tar",
        "compression",
        "compression-level",
        "force-compression",
        "oci-mediatypes",
        "rewrite-timestamp",
    }
)
_STDOUT = 1


@dataclass(frozen=True, slots=True)
class ImageExporter:
    """Writes `oci` or `docker` archives; with `tar=false` a layout directory.

    `codec` None keeps the layers as they are in the store. Without `force`, only the build's own layers are
    compressed anew: those of the base keep their digests.
    """

    type: str
    dest: str
    tar: bool = True
    codec: Codec | None = None
    force: bool = False
    kind: Literal["oci", "docker"] = "oci"
    name: str = ""

    @classmethod
    def of(cls, spec: OutputSpec) -> ImageExporter:
        """Read the options of `spec`. Raises UsageError."""
        refuse_unknown(spec, _OPTIONS)
        tar = spec.flag("tar", True)
        if not tar and (spec.type == "docker" or spec.is_stdout):
            raise UsageError("tar=false writes a directory: it needs type=oci and a dest that is no pipe")
        if tar and os.path.isdir(spec.dest):
            raise UsageError(f"dest={spec.dest} is a directory", hint="name a file, or add tar=false")
        refuse_missing_directory(spec)
        return cls(
            spec.type,
            dest_of(spec),
            tar,
            codec_of(spec),
            spec.flag("force-compression", False),
            "oci" if spec.flag("oci-mediatypes", True) else "docker",
            spec.options.get("name", ""),
        )

    def export(self, what: Export, blobs: BlobStore) -> str:
        """Write it. Raises OSError; a file or directory of that name is then as it was."""
        return self.export_all([what], blobs)

    def export_all(self, whats: Sequence[Export], blobs: BlobStore) -> str:
        """Write several images into one archive or layout, each under its names."""
        found = []
        for what in whats:
            what.complete()
            descriptor = converted(what, blobs, self.codec, self.force, self.kind)
            found.append(Named(descriptor, self._names(what)))
        if not self.tar:
            write_layout(self.dest, found, blobs)
        elif self.dest == "-":
            write_archive(found, blobs, _STDOUT, docker=self.type == "docker")
        else:
            with replacing(self.dest) as fd:
                write_archive(found, blobs, fd, docker=self.type == "docker")
        return f"exporting to {self.type} {'archive' if self.tar else 'layout'} {self.dest}"

    @property
    def of_one_platform(self) -> bool:
        """Whether there is no room for an index (Docker's archives have none)."""
        return self.type == "docker"

    @property
    def called(self) -> tuple[str, ...]:
        """The names it gives by itself, for who reports them."""
        own = [name for name in self.name.split(",") if name]
        return tuple(str(Reference.parse(name).with_default_tag()) for name in own)

    def _names(self, what: Export) -> tuple[Reference, ...]:
        return tuple(Reference.parse(name).with_default_tag() for name in self.called or what.names)


def converted(
    what: Export, blobs: BlobStore, codec: Codec | None, force: bool, kind: Literal["oci", "docker"]
) -> Descriptor:
    """The image in another compression (None: as it is) and with these media types; of an index each image.
    Without `force` only the build's own layers are compressed anew."""
    if not what.is_index:
        return _converted(what.images[0], blobs, codec, force, kind)
    found = tuple(_converted(each, blobs, codec, force, kind) for each in what.images)
    before = Index.from_json(blobs.document(what.descriptor), what.descriptor.media_type)
    raw = index_of(found, kind, annotations=before.annotations)
    if raw.digest == what.descriptor.digest:
        return what.descriptor
    plain = blobs.put(raw.value.media_type, raw.content)
    return replace(plain, annotations=what.descriptor.annotations)


def _converted(
    one: One, blobs: BlobStore, codec: Codec | None, force: bool, kind: Literal["oci", "docker"]
) -> Descriptor:
    image = Image.load(blobs, one.descriptor)
    if codec is not None:
        first = 0 if force else len(image.layers) - one.new_layers
        image = _recompressed(image, first, codec, blobs)
    image = image.converted(kind)
    if image.manifest.digest == one.descriptor.digest:
        return one.descriptor
    return replace(image.write(blobs), annotations=one.descriptor.annotations)


def codec_of(spec: OutputSpec) -> Codec | None:
    """The codec that the options of `spec` ask for; None to keep what there is. Raises UsageError."""
    name, level = spec.options.get("compression"), spec.options.get("compression-level")
    if name is None and level is None:
        return None
    if level is not None and not (level.isascii() and level.isdigit()):
        raise UsageError(f"--output type={spec.type}: compression-level={level!r} is no number")
    try:
        return codec(name or "gzip", int(level) if level is not None else None)
    except ValueError as error:
        raise UsageError(f"--output type={spec.type}: {error}") from None


def _recompressed(image: Image, first: int, wanted: Codec, blobs: BlobStore) -> Image:
    """`image` with its layers from position `first` on compressed by `wanted`; equal bytes stay."""
    layers = list(image.layers)
    for position in range(first, len(layers)):
        old = layers[position]
        layer = Layer(old.media_type, old.digest, old.size, image.config.value.diff_ids[position], 0)
        new = recompress(layer, wanted, blobs)
        layers[position] = replace(old, media_type=new.media_type, digest=new.digest, size=new.size)
    return Image.of(image.config.value, tuple(layers), annotations=image.manifest.value.annotations)


@contextmanager
def _nameless(directory: str) -> Iterator[int]:
    """A new file without a name: if we are killed, the kernel takes it away (open(2), O_TMPFILE).

    A file system that has no such files gets a named one, which only a kill leaves behind.
    """
    mode = 0o666
    try:
        fd = os.open(directory, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, mode)
        name = ""
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT):
            raise
        name = os.path.join(directory, f".pybuild-{os.urandom(8).hex()}.tmp")
        fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
    try:
        yield fd
    finally:
        os.close(fd)
        if name:
            with suppress(OSError):
                os.unlink(name)


def _give_name(fd: int, path: str) -> None:
    """linkat(2) of a descriptor. With a directory given, os.link follows /proc's link, as it must here."""
    directory = os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.link(f"/proc/self/fd/{fd}", os.path.basename(path), dst_dir_fd=directory, follow_symlinks=True)
    finally:
        os.close(directory)


def _take_place(fd: int, target: str) -> None:
    """Put a nameless file where another one is: linkat cannot, rename can."""
    temporary = f"{target}.{os.urandom(4).hex()}.tmp"
    _give_name(fd, temporary)
    try:
        os.replace(temporary, target)
    except BaseException:
        os.unlink(temporary)
        raise


@contextmanager
def replacing(path: str) -> Iterator[int]:
    """A descriptor of a new file that takes the place of `path` when the block ends well, and vanishes
    otherwise.

    Special files (a fifo, /dev/stdout) are written directly: they cannot be replaced.
    """
    if os.path.exists(path) and not os.path.isfile(path):
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            yield fd
        finally:
            os.close(fd)
        return
    target = os.path.realpath(path)
    with _nameless(os.path.dirname(target)) as fd:
        yield fd
        os.fsync(fd)
        try:
            _give_name(fd, target)
        except FileExistsError:
            _take_place(fd, target)
    sync_directory(os.path.dirname(target))


def write_layout(dest: str, images: Sequence[Named], blobs: BlobStore) -> None:
    """Add images to the layout at `dest`, which is made when it is not there."""
    from oci.layout import Layout

    verify(blobs, *(named.descriptor for named in images))
    fresh = not os.path.exists(os.path.join(dest, "index.json"))
    layout = Layout.create(dest, private=False) if fresh else Layout.open(dest)
    for named in images:
        copy(blobs, named.descriptor, layout.blobs)
    with layout.editing() as names:
        for named in images:
            for name in named.names:
                names.set(str(name), named.descriptor, ref_name=name.tag)
            if not named.names:
                names.add(named.descriptor)
    if fresh:
        layout.blobs.clean()
