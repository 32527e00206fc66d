"""--unset, --squash, --annotation and --build-arg-file: what is read, and what is said of what cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest

from builder.cli.finish import annotated, unset
from builder.cli.values import argument_file
from builder.errors import UsageError
from builder.finishing import Finish, without
from oci.model import Platform, RunConfig


def test_settings_are_taken_back() -> None:
    config = RunConfig(
        user="u",
        exposed_ports=("80/tcp", "53/udp"),
        env=("A=1", "AB=2"),
        entrypoint=("e",),
        cmd=("c",),
        volumes=("/data", "/x"),
        labels={"a.b": "1", "c": "2"},
        on_build=("RUN x",),
    )
    names = unset(["env.A,label.a.b", "volume./data, expose.80,expose.53/udp", "cmd,user,onbuild"])
    said: list[str] = []
    assert without(config, names, said.append) == RunConfig(
        env=("AB=2",), entrypoint=("e",), volumes=("/x",), labels={"c": "2"}
    )
    assert said == []
    without(config, unset(["env.NONE"]), said.append)
    assert said == ["--unset env.NONE: the image has no such setting"]


@pytest.mark.parametrize("text", ["env", "env.", "port.80", "cmd.x", "labels.a"])
def test_what_is_no_setting(text: str) -> None:
    with pytest.raises(UsageError, match="names no setting"):
        unset([text])


def test_annotations_go_to_their_place_and_platform() -> None:
    texts = [
        "a=1=2", "manifest:b=x:y", "manifest-descriptor:c=3", "manifest,manifest-descriptor:d=4",
        "manifest[linux/amd64]:e=5", "manifest[linux/arm64/v8]:f=6", "org.x/y:z=7",
        "index,index-descriptor:g=8",
    ]  # fmt: skip
    wanted = Finish(annotations=tuple(annotated(texts)))
    amd64, arm64 = Platform("linux", "amd64"), Platform("linux", "arm64")
    both = {"a": "1=2", "b": "x:y", "d": "4", "org.x/y:z": "7"}
    assert wanted.of("manifest", amd64) == both | {"e": "5"}
    assert wanted.of("manifest", arm64) == both | {"f": "6"}
    assert wanted.of("manifest-descriptor", amd64) == {"c": "3", "d": "4"}
    assert wanted.of("index") == wanted.of("index-descriptor") == {"g": "8"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nothing", "no \\[TYPE:\\]KEY=VALUE"),
        ("index[linux/amd64]:a=1", "for all platforms"),
        ("manifests:a=1", "is no type"),
    ],
)
def test_annotations_that_cannot_be(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        list(annotated([text]))


def test_a_file_of_arguments(tmp_path: Path) -> None:
    path = tmp_path / "args"
    path.write_text("# comment\n\nA=1\n B = two words \nC=\n")
    assert argument_file(str(path)) == {"A": "1", "B": " two words ", "C": ""}
    path.write_text("A=1\nB\n")
    with pytest.raises(UsageError, match=r"args:2: 'B' is no NAME=VALUE"):
        argument_file(str(path))
    with pytest.raises(UsageError, match="cannot be read"):
        argument_file(str(tmp_path / "none"))
