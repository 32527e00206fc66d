"""Image archives: what we write we read, and what others write wrongly we refuse without a trace."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tarfile
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import zstandard

from oci import media_types
from oci.archive import Named, read_archive, write_archive
from oci.blobs import BlobStore
from oci.digest import Digest
from oci.errors import BlobNotFound, DigestMismatch, InvalidArchive, InvalidDocument, LimitExceeded, OciError
from oci.image import Image, index_of
from oci.layer import Layer
from oci.layout import Layout
from oci.model import Descriptor, Platform
from oci.reference import Reference
from oci.tar import TarReader
from oci.validate import validate

APP, WEB = Reference.parse("app:1"), Reference.parse("host:5000/web:2")
AMD64, ARM64 = Platform("linux", "amd64"), Platform("linux", "arm64")
MakeImage = Callable[..., Image]
MakeLayer = Callable[..., Layer]
Members = list[tuple[tarfile.TarInfo, bytes]]


@pytest.fixture
def target(tmp_path: Path) -> BlobStore:
    return Layout.create(tmp_path / "target").blobs


def written(what: list[Named], store: BlobStore, tmp_path: Path, docker: bool = False) -> bytes:
    path = tmp_path / "out.tar"
    with open(path, "wb") as out:
        size = write_archive(what, store, out, docker=docker, platform=AMD64)
    assert size == path.stat().st_size
    return path.read_bytes()


def members_of(archive: bytes) -> Members:
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        return [(info, file.read() if (file := tar.extractfile(info)) else b"") for info in tar]


def tar_of(members: dict[str, bytes] | Members) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in members.items() if isinstance(members, dict) else members:
            info = tarfile.TarInfo(name) if isinstance(name, str) else name
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info, b""


def read(archive: bytes, store: BlobStore) -> tuple[Named, ...]:
    return read_archive(io.BytesIO(archive), store)


def refused(archive: bytes, store: BlobStore, error: type[Exception], says: str | None) -> None:
    """The archive is refused, for the right reason, and the store is as it was."""
    before = sorted(store)
    with pytest.raises(error, match=says):
        read(archive, store)
    assert sorted(store) == before
    assert os.listdir(store.temporary) == []


@pytest.mark.parametrize("docker", [False, True])
def test_round_trip(
    store: BlobStore, target: BlobStore, make_image: MakeImage, tmp_path: Path, docker: bool
) -> None:
    one, two = make_image(store, b"one"), make_image(store, b"two")
    what = [Named(one.descriptor, (APP, WEB)), Named(two.descriptor)]
    archive = written(what, store, tmp_path, docker)
    assert read(archive, target) == tuple(what)
    assert sorted(target) == sorted(store)
    assert validate(target, one.descriptor) == []
    assert written(what, store, tmp_path, docker) == archive


def test_bytes_depend_on_nothing_else(store: BlobStore, make_image: MakeImage, tmp_path: Path) -> None:
    """SECURITY.md R25."""
    archive = written([Named(make_image(store).descriptor, (APP,))], store, tmp_path, docker=True)
    members = [info for info, _ in members_of(archive)]
    names = [info.name for info in members]
    assert names == sorted(names)
    assert names[:2] == ["blobs", "blobs/sha256"]
    assert names[-3:] == ["index.json", "manifest.json", "oci-layout"]
    assert {(info.mtime, info.uid, info.uname, info.mode) for info in members} == {
        (0, 0, "", 0o755),
        (0, 0, "", 0o644),
    }


def test_docker_manifest(store: BlobStore, make_image: MakeImage, tmp_path: Path) -> None:
    image = make_image(store)
    names = (Reference.parse("app:1"), WEB, Reference("docker.io", "library/untagged"))
    members = {
        info.name: content
        for info, content in members_of(
            written([Named(image.descriptor, names)], store, tmp_path, docker=True)
        )
    }
    [entry] = json.loads(members["manifest.json"])
    assert entry["RepoTags"] == ["app:1", "host:5000/web:2"]
    assert members[entry["Config"]] == image.config.content
    assert [hashlib.sha256(members[path]).hexdigest() for path in entry["Layers"]] == [
        layer.digest.hex for layer in image.layers
    ]
    annotations = [item["annotations"] for item in json.loads(members["index.json"])["manifests"]]
    assert annotations[0] == {
        "io.containerd.image.name": "docker.io/library/app:1",
        "org.opencontainers.image.ref.name": "1",
    }


def test_from_pipe_to_pipe(store: BlobStore, target: BlobStore, make_image: MakeImage) -> None:
    what = [Named(make_image(store, os.urandom(1 << 20)).descriptor, (APP,))]
    source, sink = os.pipe()

    def write() -> None:
        try:
            write_archive(what, store, sink)
        finally:
            os.close(sink)

    writer = threading.Thread(target=write)
    writer.start()
    moved: list[int] = []
    with open(source, "rb", buffering=0) as pipe:
        assert read_archive(pipe, target, progress=moved.append) == tuple(what)
    writer.join()
    assert sum(moved) > 2 << 20


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.compress, __import__("lzma").compress])
def test_packed_archives(
    store: BlobStore, target: BlobStore, make_image: MakeImage, tmp_path: Path, pack: Callable[[bytes], bytes]
) -> None:
    what = [Named(make_image(store).descriptor, (APP,))]
    assert read(pack(written(what, store, tmp_path)), target) == tuple(what)


def test_an_index_of_platforms(
    store: BlobStore, target: BlobStore, make_image: MakeImage, tmp_path: Path
) -> None:
    amd64, arm64 = make_image(store, platform=AMD64), make_image(store, platform=ARM64)
    index = store.put(media_types.OCI_INDEX, index_of((arm64.descriptor, amd64.descriptor)).content)
    archive = written([Named(index, (APP,))], store, tmp_path, docker=True)
    [entry] = json.loads({info.name: content for info, content in members_of(archive)}["manifest.json"])
    assert entry["Config"].endswith(amd64.id.hex)
    assert read(archive, target) == (Named(index, (APP,)),)
    assert sorted(target) == sorted(store)


def test_an_index_with_one_platform_saved(
    store: BlobStore, target: BlobStore, make_image: MakeImage, tmp_path: Path
) -> None:
    amd64, arm64 = make_image(store, platform=AMD64), make_image(store, b"x", platform=ARM64)
    index = store.put(media_types.OCI_INDEX, index_of((arm64.descriptor, amd64.descriptor)).content)
    members = members_of(written([Named(index, (APP,))], store, tmp_path))
    gone = {arm64.descriptor.digest.hex, arm64.id.hex}
    kept = [(info, content) for info, content in members if info.name[-64:] not in gone]
    assert read(tar_of(kept), target) == (Named(index, (APP,)),)
    gone |= {amd64.descriptor.digest.hex}
    kept = [(info, content) for info, content in members if info.name[-64:] not in gone]
    with pytest.raises(InvalidArchive, match="holds no image"):
        read(tar_of(kept), Layout.create(tmp_path / "other").blobs)


def test_what_nobody_needs_is_not_kept(
    store: BlobStore, target: BlobStore, make_image: MakeImage, tmp_path: Path
) -> None:
    image = make_image(store)
    extra = store.write(b"nobody points here")
    members = members_of(written([Named(image.descriptor)], store, tmp_path))
    info = tarfile.TarInfo(f"blobs/sha256/{extra.hex}")
    read(tar_of([*members, (info, b"nobody points here")]), target)
    assert extra not in target


def test_writing_refuses_what_is_missing_or_damaged(
    store: BlobStore, make_image: MakeImage, tmp_path: Path
) -> None:
    image = make_image(store)
    layer = image.layers[0].digest
    with open(store.path(layer), "r+b") as file:
        file.write(b"\0")
    with pytest.raises(DigestMismatch, match=layer.hex):
        written([Named(image.descriptor)], store, tmp_path)
    with open(store.path(layer), "ab") as file:
        file.write(b"more")
    with pytest.raises(DigestMismatch, match="promises"):
        written([Named(image.descriptor)], store, tmp_path)
    store.delete(layer)
    with pytest.raises(BlobNotFound, match=layer.hex):
        written([Named(image.descriptor)], store, tmp_path)


# --- what others write -----------------------------------------------------------------------------------


def docker_image(*, config: dict[str, Any] | None = None) -> tuple[dict[str, bytes], bytes, list[bytes]]:
    """The members of a docker-archive with bare tars, its config, and its layers."""
    layers = [tar_of({"a": b"one"}), tar_of({"b": b"two"})]
    description = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Cmd": ["/a"]},
        "container": "kept as it is",
        "rootfs": {"type": "layers", "diff_ids": [str(Digest.of(layer)) for layer in layers]},
        **(config or {}),
    }
    content = json.dumps(description, indent=1).encode()
    entry = {
        "Config": f"{Digest.of(content).hex}.json",
        "RepoTags": ["app:1", "host:5000/web:2", "Not/Valid:x"],
        "Layers": ["one/layer.tar", "two/layer.tar"],
    }
    members = {
        entry["Config"]: content,
        "one/VERSION": b"1.0",
        "one/json": b'{"id":"one"}',
        "one/layer.tar": layers[0],
        "two/layer.tar": layers[1],
        "manifest.json": json.dumps([entry]).encode(),
        "repositories": b'{"app":{"1":"one"}}',
    }
    return members, content, layers


def test_docker_archive(target: BlobStore) -> None:
    members, config, layers = docker_image()
    [found] = read(tar_of(members), target)
    assert found.names == (APP, WEB)
    image = Image.load(target, found.descriptor)
    assert image.config.content == config
    assert [layer.media_type for layer in image.layers] == [media_types.OCI_LAYER_GZIP] * 2
    with target.open(image.layers[0].digest) as blob:
        assert gzip.decompress(blob.read()) == layers[0]
    assert len(list(target)) == 4
    assert validate(target, found.descriptor) == []


def test_docker_archive_with_the_manifest_last_and_packed_layers(target: BlobStore) -> None:
    members, config, layers = docker_image()
    manifest = json.loads(members["manifest.json"])
    manifest[0] |= {"Config": str(Digest.of(config)), "Layers": ["x.tar.gz", "y.tar.zst"]}
    archive = tar_of(
        {
            str(Digest.of(config)): config,
            "x.tar.gz": gzip.compress(layers[0]),
            "y.tar.zst": zstandard.compress(layers[1]),
            "manifest.json": json.dumps(manifest).encode(),
        }
    )
    [found] = read(archive, target)
    image = Image.load(target, found.descriptor)
    assert [layer.media_type for layer in image.layers] == [
        media_types.OCI_LAYER_GZIP,
        media_types.OCI_LAYER_ZSTD,
    ]
    assert image.layers[0].digest == Digest.of(gzip.compress(layers[0]))
    assert validate(target, found.descriptor) == []


def test_docker_archive_with_links_between_layers(target: BlobStore) -> None:
    members, config, layers = docker_image()
    del members["one/layer.tar"], members["two/layer.tar"]
    listed: Members = [(tarfile.TarInfo(name), content) for name, content in members.items()]
    listed.append(link("one/layer.tar", "../first.tar"))
    listed.append(link("two/layer.tar", "second.tar", tarfile.LNKTYPE))
    listed += [(tarfile.TarInfo("first.tar"), layers[0]), (tarfile.TarInfo("second.tar"), layers[1])]
    [found] = read(tar_of(listed), target)
    assert Image.load(target, found.descriptor).config.content == config


def test_docker_archive_whose_layers_are_bare_blobs(target: BlobStore) -> None:
    members, config, layers = docker_image()
    manifest = json.loads(members["manifest.json"])
    paths = [f"blobs/sha256/{Digest.of(layer).hex}" for layer in layers]
    manifest[0] |= {"Config": f"blobs/sha256/{Digest.of(config).hex}", "Layers": paths}
    archive = {manifest[0]["Config"]: config, **dict(zip(paths, layers, strict=True))}
    [found] = read(tar_of({**archive, "manifest.json": json.dumps(manifest).encode()}), target)
    assert Image.load(target, found.descriptor).layers[0].media_type == media_types.OCI_LAYER_GZIP
    assert Digest.of(layers[0]) not in target


def test_an_image_without_names_or_layers(target: BlobStore) -> None:
    config = b'{"architecture":"amd64","os":"linux","rootfs":{"type":"layers"}}'
    manifest = json.dumps([{"Config": "c.json", "RepoTags": None, "Layers": None}]).encode()
    [found] = read(tar_of({"c.json": config, "manifest.json": manifest}), target)
    assert found.names == ()
    assert Image.load(target, found.descriptor).layers == ()


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"one/layer.tar": tar_of({"a": b"evil"})}, DigestMismatch, "layer 1 of .* its config says"),
        ({"one/layer.tar": gzip.compress(b"x")[:-9]}, InvalidArchive, "ends too early"),
        ({"one/layer.tar": None}, InvalidArchive, "names the layer 'one/layer.tar', which is not in"),
        ({"manifest.json": None}, InvalidArchive, "neither index.json nor manifest.json"),
        ({"manifest.json": b"{}"}, InvalidArchive, "expected an array"),
        ({"manifest.json": b"[]"}, InvalidArchive, "names no images"),
        ({"manifest.json": b"[{}]"}, InvalidDocument, r"manifest\.json\[0\]\.Config: missing"),
        ({"manifest.json": b'[{"Config":"../../etc/passwd"}]'}, InvalidArchive, "is not in the archive"),
        ({"manifest.json": b'[{"Config":"one/json"}]'}, InvalidDocument, "architecture"),
        ({"manifest.json": b" " * (5 << 20)}, LimitExceeded, "a document may have"),
        ({"manifest.json": b'[{"Config":"a","Config":"b"}]'}, InvalidDocument, "twice"),
        ({"one/json": b"{" + b" " * (5 << 20)}, LimitExceeded, "a document may have"),
    ],
)
def test_bad_docker_archives(
    target: BlobStore, change: dict[str, bytes | None], error: type[Exception], says: str
) -> None:
    members = {**docker_image()[0], **change}
    refused(tar_of({k: v for k, v in members.items() if v is not None}), target, error, says)


def test_configs_are_what_their_names_say(target: BlobStore) -> None:
    members, config, _ = docker_image()
    name = f"{Digest.of(config).hex}.json"
    refused(tar_of({**members, name: config + b" "}), target, DigestMismatch, "not what its name says")


@pytest.mark.parametrize(
    ("extra", "says"),
    [
        ((tarfile.TarInfo("../evil"), b"x"), "leaves the archive"),
        ((tarfile.TarInfo("a/../../evil"), b"x"), "leaves the archive"),
        (link("one/x.tar", "../../evil"), "outside the archive"),
        (link("one/x.tar", "/etc/passwd"), "outside the archive"),
        (link("x.tar", "../evil", tarfile.LNKTYPE), "outside the archive"),
        (link("device", "", tarfile.CHRTYPE), "is a char"),
        (link("pipe", "", tarfile.FIFOTYPE), "is a fifo"),
        ((tarfile.TarInfo("manifest.json"), b"[]"), "stands in the archive twice"),
        ((tarfile.TarInfo("blobs/sha256/" + "a" * 63), b"x"), "is no digest"),
    ],
)
def test_members_that_do_not_belong(
    target: BlobStore, extra: tuple[tarfile.TarInfo, bytes], says: str
) -> None:
    """S91: entries of an archive have known names."""
    members = [(tarfile.TarInfo(name), content) for name, content in docker_image()[0].items()]
    refused(tar_of([*members, extra]), target, InvalidArchive, says)


def test_links_in_circles(target: BlobStore) -> None:
    members = docker_image()[0]
    del members["one/layer.tar"]
    listed: Members = [(tarfile.TarInfo(name), content) for name, content in members.items()]
    listed += [link("one/layer.tar", "../b"), link("b", "one/layer.tar")]
    refused(tar_of(listed), target, InvalidArchive, "circles")


@pytest.mark.parametrize("docker", [False, True])
def test_any_flipped_byte_of_a_blob_is_found(
    store: BlobStore, target: BlobStore, make_image: MakeImage, tmp_path: Path, docker: bool
) -> None:
    archive = written([Named(make_image(store).descriptor, (APP,))], store, tmp_path, docker)
    for info, content in members_of(archive):
        if info.name.startswith("blobs/") and content:
            torn = bytearray(archive)
            torn[info.offset_data + len(content) // 2] ^= 1
            refused(bytes(torn), target, DigestMismatch, "expected the bytes of")


def test_a_torn_archive(store: BlobStore, target: BlobStore, make_image: MakeImage, tmp_path: Path) -> None:
    archive = written([Named(make_image(store).descriptor, (APP,))], store, tmp_path)
    for size in (0, 100, 512, 1500, len(archive) // 2, len(archive) - 2000):
        refused(archive[:size], target, OciError, None)


def index_entry(entry: dict[str, Any]) -> bytes:
    return json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode()


def test_layouts_that_lie(store: BlobStore, target: BlobStore, make_image: MakeImage, tmp_path: Path) -> None:
    """S91: digests and sizes are verified."""
    image = make_image(store, platform=AMD64)
    good = members_of(written([Named(image.descriptor)], store, tmp_path))
    entry = json.loads({info.name: content for info, content in good}["index.json"])["manifests"][0]

    def lying(name: str, content: bytes | None) -> bytes:
        changed = [(info, content if info.name == name else old) for info, old in good]
        return tar_of([(info, new) for info, new in changed if new is not None])

    wrong_size = index_entry({**entry, "size": 5})
    refused(lying("index.json", wrong_size), target, DigestMismatch, "promises 5")
    wrong_type = index_entry({**entry, "mediaType": media_types.OCI_INDEX})
    refused(lying("index.json", wrong_type), target, InvalidDocument, "manifest|index")
    wrong_platform = index_entry({**entry, "platform": {"os": "linux", "architecture": "s390x"}})
    refused(lying("index.json", wrong_platform), target, InvalidArchive, "the index says linux/s390x")
    refused(lying("index.json", b'{"schemaVersion":2}'), target, InvalidDocument, "manifests")
    refused(lying("index.json", index_entry({})), target, InvalidDocument, "required")
    refused(lying("oci-layout", b'{"imageLayoutVersion":"9"}'), target, InvalidDocument, "Version")
    layer = f"blobs/sha256/{image.layers[1].digest.hex}"
    refused(lying(layer, None), target, InvalidArchive, f"lacks {image.layers[1].digest}")


def test_diff_ids_are_verified(
    store: BlobStore, target: BlobStore, make_image: MakeImage, make_layer: MakeLayer, tmp_path: Path
) -> None:
    """S91."""
    image = make_image(store)
    other = make_layer(store, {"evil": b"x"})
    layers = (Descriptor(other.media_type, other.digest, other.size), image.layers[1])
    liar = Image.of(image.config, layers)
    archive = written([Named(liar.write(store))], store, tmp_path)
    refused(archive, target, DigestMismatch, f"holds {other.diff_id}; its config says")
    assert {layer.digest for layer in layers}.isdisjoint(target)


def test_what_was_there_before_stays(
    store: BlobStore, target: BlobStore, make_image: MakeImage, tmp_path: Path
) -> None:
    """S91: a bad archive changes nothing of the store."""
    image = make_image(store)
    archive = written([Named(image.descriptor)], store, tmp_path)
    read(archive, target)
    torn = archive[: len(archive) - 1500]
    refused(torn, target, OciError, None)
    assert Image.load(target, image.descriptor) == image
    read(archive, target)


def test_bare_tags_are_no_names(
    store: BlobStore, target: BlobStore, make_image: MakeImage, tmp_path: Path
) -> None:
    image = make_image(store)
    members = members_of(written([Named(image.descriptor)], store, tmp_path))
    for ref, names in (("latest", ()), ("app:1", (APP,)), ("host:5000/web:2", (WEB,)), ("Bad Name:x", ())):
        annotated = replace(image.descriptor, annotations={"org.opencontainers.image.ref.name": ref})
        changed = [
            (info, index_of((annotated,)).content if info.name == "index.json" else content)
            for info, content in members
        ]
        assert read(tar_of(changed), target) == (Named(image.descriptor, names),)


def test_millions_of_members_have_a_price(target: BlobStore) -> None:
    members = [(tarfile.TarInfo(f"junk/{number}"), b"") for number in range(70_000)]
    refused(tar_of(members), target, LimitExceeded, "64 MiB")


def test_a_file_system_is_no_image(target: BlobStore) -> None:
    refused(tar_of({"etc/passwd": b"root"}), target, InvalidArchive, "with `import`")


def test_our_reader_agrees_with_tarfile(store: BlobStore, make_image: MakeImage, tmp_path: Path) -> None:
    archive = written([Named(make_image(store).descriptor, (APP,))], store, tmp_path, docker=True)
    ours = [entry.name.decode() for entry in TarReader(io.BytesIO(archive))]
    assert ours == [info.name for info, _ in members_of(archive)]
