"""Documents: round trips, field order, and all the ways in which two readers could disagree."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oci import media_types
from oci.digest import Digest
from oci.errors import DigestMismatch, InvalidDocument, LimitExceeded
from oci.model import (
    Descriptor,
    Healthcheck,
    History,
    ImageConfig,
    Index,
    Manifest,
    Platform,
    Raw,
    RunConfig,
    parse,
)

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
WORD = st.text("abcdefgh", min_size=1, max_size=6)
TEXTS = st.lists(TEXT, max_size=3).map(tuple)
PAIRS = st.dictionaries(TEXT, TEXT, max_size=3)
DIGESTS = st.binary(max_size=4).map(Digest.of)
EXTRA = st.dictionaries(
    st.sampled_from(["x-one", "x-two", "zzz"]), TEXT | st.lists(st.integers()), max_size=2
)
SIZES = st.integers(0, (1 << 63) - 1)
PLATFORMS = st.builds(
    Platform, os=WORD, architecture=WORD, variant=WORD | st.just(""), os_version=TEXT, os_features=TEXTS
)
DESCRIPTORS = st.builds(
    Descriptor,
    media_type=WORD,
    digest=DIGESTS,
    size=SIZES,
    annotations=PAIRS,
    platform=st.none() | PLATFORMS,
    artifact_type=TEXT,
    urls=TEXTS,
    extra=EXTRA,
)
MANIFESTS = st.builds(
    Manifest,
    config=DESCRIPTORS,
    layers=st.lists(DESCRIPTORS, max_size=3).map(tuple),
    media_type=st.sampled_from(sorted(media_types.MANIFESTS)),
    annotations=PAIRS,
    subject=st.none() | DESCRIPTORS,
    artifact_type=TEXT,
    extra=EXTRA,
)
INDEXES = st.builds(
    Index,
    manifests=st.lists(DESCRIPTORS, max_size=3).map(tuple),
    media_type=st.sampled_from(sorted(media_types.INDEXES)),
    annotations=PAIRS,
    subject=st.none() | DESCRIPTORS,
    artifact_type=TEXT,
    extra=EXTRA,
)
INTEGERS = st.integers(0, 1 << 40)
HEALTHCHECKS = st.builds(Healthcheck, TEXTS, INTEGERS, INTEGERS, INTEGERS, INTEGERS, INTEGERS)
NAMES = st.sets(TEXT, max_size=3).map(lambda names: tuple(sorted(names)))
RUN_CONFIGS = st.builds(
    RunConfig,
    user=TEXT,
    exposed_ports=NAMES,
    env=TEXTS,
    entrypoint=st.none() | TEXTS,
    cmd=st.none() | TEXTS,
    volumes=NAMES,
    working_dir=TEXT,
    labels=PAIRS,
    stop_signal=TEXT,
    args_escaped=st.booleans(),
    healthcheck=st.none() | HEALTHCHECKS.filter(lambda health: health != Healthcheck()),
    on_build=TEXTS,
    shell=st.none() | TEXTS,
    extra=EXTRA,
)
CONFIGS = st.builds(
    ImageConfig,
    platform=PLATFORMS,
    config=RUN_CONFIGS,
    diff_ids=st.lists(DIGESTS, max_size=3).map(tuple),
    history=st.lists(st.builds(History, TEXT, TEXT, TEXT, TEXT, st.booleans(), EXTRA), max_size=3).map(tuple),
    created=TEXT,
    author=TEXT,
    extra=EXTRA,
)


@given(MANIFESTS | INDEXES)
def test_pointers_round_trip(document: Manifest | Index) -> None:
    content = document.to_json()
    assert type(document).from_json(content, document.media_type) == document
    assert parse(content) == parse(content, document.media_type) == document
    assert type(document).from_json(content).to_json() == content
    hash(document)


@given(CONFIGS)
def test_configs_round_trip(config: ImageConfig) -> None:
    content = config.to_json()
    assert ImageConfig.from_json(content) == config
    assert ImageConfig.from_json(content).to_json() == content
    hash(config)


def a_descriptor(**more: object) -> dict[str, Any]:
    return {"mediaType": "a/b", "digest": "sha256:" + "a" * 64, "size": 3, **more}


def a_manifest(**more: object) -> bytes:
    base = {"schemaVersion": 2, "config": a_descriptor(), "layers": [a_descriptor()]}
    return json.dumps({key: value for key, value in {**base, **more}.items() if value != "drop"}).encode()


def an_index(**more: object) -> bytes:
    base = {"schemaVersion": 2, "manifests": [a_descriptor()]}
    return json.dumps({key: value for key, value in {**base, **more}.items() if value != "drop"}).encode()


def a_config(**more: object) -> bytes:
    base = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}}
    return json.dumps({key: value for key, value in {**base, **more}.items() if value != "drop"}).encode()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"[]", r"^manifest: expected an object, not list"),
        (a_manifest(schemaVersion="drop"), r"schemaVersion: missing; expected 2"),
        (a_manifest(schemaVersion=3), r"schemaVersion: 3; expected 2"),
        (a_manifest(schemaVersion=True), r"schemaVersion: expected a whole number, not true"),
        (a_manifest(schemaVersion=1), r"schema 1 is obsolete"),
        (a_manifest(config="drop"), r"^manifest\.config: missing"),
        (a_manifest(config=None), r"^manifest\.config: missing"),
        (a_manifest(layers="drop"), r"^manifest\.layers: missing"),
        (a_manifest(layers={}), r"^manifest\.layers: expected an array"),
        (a_manifest(layers=[a_descriptor(size=-1)]), r"^manifest\.layers\[0\]\.size: -1 is negative"),
        (a_manifest(layers=[a_descriptor(digest="x")]), r"^manifest\.layers\[0\]\.digest: 'x' is no digest"),
        (a_manifest(layers=[a_descriptor(mediaType="")]), r"^manifest\.layers\[0\]\.mediaType: missing"),
        (a_manifest(layers=[a_descriptor(Digest="y")]), r"^manifest\.layers\[0\]\.Digest: .*only in case"),
        (a_manifest(Layers=[]), r"^manifest\.Layers: .*only in case"),
        (a_manifest(manifests=[]), r"`manifests` beside"),
        (a_manifest(manifests=None), r"`manifests` beside"),
        (a_manifest(Manifests=[]), r"only in case"),
        (a_manifest(mediaType=media_types.OCI_INDEX), r"mediaType: .*index.* is none of"),
        (a_manifest(annotations={"a": 1}), r"annotations\['a'\]"),
    ],
)
def test_bad_manifests(content: bytes, says: str) -> None:
    with pytest.raises(InvalidDocument, match=says):
        Manifest.from_json(content)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (an_index(layers=[]), r"`manifests` beside"),
        (an_index(config=None), r"`manifests` beside"),
        (an_index(Layers=[]), r"only in case"),
        (an_index(CONFIG={}), r"only in case"),
        (an_index(manifests="drop"), r"^index\.manifests: missing"),
        (an_index(mediaType=media_types.DOCKER_MANIFEST), r"is none of"),
    ],
)
def test_bad_indexes(content: bytes, says: str) -> None:
    with pytest.raises(InvalidDocument, match=says):
        Index.from_json(content)


def test_the_pointer_and_the_text_must_agree() -> None:
    content = a_manifest(mediaType=media_types.OCI_MANIFEST)
    with pytest.raises(InvalidDocument, match="what points here says"):
        Manifest.from_json(content, media_types.DOCKER_MANIFEST)
    assert (
        Manifest.from_json(a_manifest(), media_types.DOCKER_MANIFEST).media_type
        == media_types.DOCKER_MANIFEST
    )
    with pytest.raises(InvalidDocument):
        parse(a_manifest(), media_types.OCI_INDEX)
    with pytest.raises(InvalidDocument):
        parse(an_index(), media_types.OCI_MANIFEST)
    with pytest.raises(InvalidDocument, match="is none of"):
        parse(a_manifest(mediaType="text/html"))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (a_config(rootfs="drop"), r"^config\.rootfs: missing; this is no image config"),
        (a_config(rootfs={"type": "squash"}), r"'squash'; only 'layers' exists"),
        (a_config(rootfs={"type": "layers", "diff_ids": ["x"]}), r"^config\.rootfs\.diff_ids\[0\]"),
        (a_config(config={"Cmd": "sh"}), r"^config\.config\.Cmd: expected an array, not str"),
        (a_config(config={"Env": [1]}), r"^config\.config\.Env\[0\]"),
        (a_config(history=[{"empty_layer": 1}]), r"^config\.history\[0\]\.empty_layer"),
    ],
)
def test_bad_configs(content: bytes, says: str) -> None:
    with pytest.raises(InvalidDocument, match=says):
        ImageConfig.from_json(content)


def test_caps() -> None:
    with pytest.raises(LimitExceeded):
        Manifest.from_json(b" " * (4 << 20) + b" ")


def test_unknown_fields_survive_everywhere() -> None:
    content = a_config(
        container="abc", config={"Hostname": "h", "Cmd": None}, history=[{"created_by": "x", "odd": [1]}]
    )
    again = json.loads(ImageConfig.from_json(content).to_json())
    assert again["container"] == "abc"
    assert again["config"] == {"Hostname": "h"}
    assert again["history"] == [{"created_by": "x", "odd": [1]}]
    manifest = a_manifest(odd={"a": None}, layers=[a_descriptor(data="aGk=")])
    again = json.loads(Manifest.from_json(manifest).to_json())
    assert again["odd"] == {"a": None}
    assert again["layers"][0]["data"] == "aGk="


def test_order_is_that_of_the_reference_implementation() -> None:
    pointer = Descriptor(
        "a/b", Digest.of(b""), 0, {"b": "2", "a": "1"}, Platform("linux", "arm", "v7"), "x/y", ("http://u",)
    )
    value = json.loads(
        Manifest(pointer, (), annotations={"k": "v"}, subject=pointer, artifact_type="x/y").to_json()
    )
    assert list(value) == [
        *["schemaVersion", "mediaType", "artifactType", "config", "layers", "subject", "annotations"]
    ]
    assert list(value["config"]) == [
        *["mediaType", "digest", "size", "urls", "annotations", "platform", "artifactType"]
    ]
    assert list(value["config"]["platform"]) == ["architecture", "os", "variant"]
    assert list(value["config"]["annotations"]) == ["a", "b"]
    config = ImageConfig(Platform("linux", "amd64"), created="2024-01-01T00:00:00Z", author="me")
    assert config.to_json() == (
        b'{"created":"2024-01-01T00:00:00Z","author":"me","architecture":"amd64","os":"linux","config":{},'
        b'"rootfs":{"type":"layers","diff_ids":[]}}'
    )


def test_empty_is_not_unset() -> None:
    config = ImageConfig(Platform("linux", "amd64"), RunConfig(cmd=(), shell=("sh",)))
    value = json.loads(config.to_json())["config"]
    assert value == {"Cmd": [], "Shell": ["sh"]}
    assert ImageConfig.from_json(config.to_json()).config.entrypoint is None


def test_descriptor_checks_size_before_digest() -> None:
    pointer = Descriptor.of("a/b", b"hello")
    assert pointer.check(b"hello") == b"hello"
    with pytest.raises(DigestMismatch, match=r"6 bytes.*promises 5"):
        pointer.check(b"hello!")
    with pytest.raises(DigestMismatch, match="expected the bytes"):
        pointer.check(b"hallo")
    long = Descriptor("a/b", Digest.of(b"hello", "sha512"), 5)
    assert long.check(b"hello")


def test_raw_keeps_bytes() -> None:
    content = b'{ "schemaVersion" : 2, "manifests": [ ] }'
    raw = Raw(Index.from_json(content), content)
    assert raw.digest == Digest.of(content)
    assert Raw.of(raw.value).digest != raw.digest


@given(st.binary(max_size=60) | st.sampled_from([a_manifest(), an_index(), a_config()]))
def test_any_bytes_parse_or_are_refused(content: bytes) -> None:
    for read in (parse, ImageConfig.from_json):
        try:
            read(content)
        except InvalidDocument as error:
            assert str(error)
