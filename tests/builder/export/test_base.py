from __future__ import annotations

from pathlib import Path

import pytest

from builder.errors import UsageError
from builder.export.archive import ImageExporter, replacing
from builder.export.base import CacheOnly, OutputSpec, exporter, refuse_one_place
from builder.export.local import LocalExporter, TarExporter
from builder.export.registry import RegistryExporter


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("-", OutputSpec("tar", "-")),
        ("out", OutputSpec("local", "out")),
        ("type=oci,dest=a.tar", OutputSpec("oci", "a.tar")),
        ("type=docker,dest=-,name=x", OutputSpec("docker", "-", {"name": "x"})),
        ("dest=a=b,type=tar", OutputSpec("tar", "a=b")),
        ("TYPE=image,Annotation.Key.X=V", OutputSpec("image", "", {"annotation.Key.X": "V"})),
    ],
)
def test_outputs_are_read_as_buildx_reads_them(text: str, spec: OutputSpec) -> None:
    assert OutputSpec.parse(text) == spec


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("dest=x", "no type"),
        ("type=oci,x", "no key=value"),
        ("type=docker,context=far", "no docker behind"),
        ("type=oci,tar=false", "tar=false"),
        ("type=local", "needs a dest"),
        ("type=zip,dest=x", "unknown"),
        ("type=oci,dest=x,compresion=gzip", "no option"),
        ("type=oci,dest=x,compression=lzma", "unknown compression"),
        ("type=oci,dest=x,compression=gzip,compression-level=99", "level"),
        ("type=oci,dest=x,compression-level=high", "'high' is no number"),
        ("type=oci,dest=x,tar=perhaps", "neither true nor false"),
        ("type=docker,dest=x,tar=false", "tar=false"),
        ("type=oci,dest=-,tar=false", "tar=false"),
        ("type=oci,dest=no/such/dir/x.tar", "does not exist"),
        ("type=registry,name=x,dest=y", "no dest"),
        ("type=image,name=x:1,push-by-digest=true", "has a tag"),
        ("type=local,dest=x,mode=sync", "neither copy nor delete"),
    ],
)
def test_bad_outputs_are_refused_before_anything_is_built(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        exporter(OutputSpec.parse(text))


@pytest.mark.parametrize(
    ("outputs", "where"),
    [
        (("-", "type=oci,dest=-"), "standard output"),
        (("type=tar", "type=oci"), "standard output"),
        (("type=oci,dest=x.tar", "type=tar,dest=./x.tar"), "x.tar"),
    ],
)
def test_two_outputs_are_not_written_into_each_other(outputs: tuple[str, ...], where: str) -> None:
    with pytest.raises(UsageError, match=f"both go to .*{where}"):
        refuse_one_place([OutputSpec.parse(text) for text in outputs])


@pytest.mark.parametrize(
    "outputs",
    [
        ("-", "type=oci,dest=x.tar", "out", "type=tar,dest=out.tar"),
        ("out", "type=local,dest=out"),
        ("type=oci,dest=l,tar=false", "type=oci,dest=l,tar=false"),
        ("type=oci,dest=/dev/null", "type=tar,dest=/dev/null"),
        ("type=image,name=a", "type=cacheonly", "type=registry,name=b"),
    ],
)
def test_outputs_that_do_not_meet(outputs: tuple[str, ...]) -> None:
    refuse_one_place([OutputSpec.parse(text) for text in outputs])


def test_each_type_has_its_exporter(tmp_path: Path) -> None:
    assert isinstance(exporter(OutputSpec("oci", str(tmp_path / "x"))), ImageExporter)
    assert isinstance(exporter(OutputSpec("docker", "-")), ImageExporter)
    assert isinstance(exporter(OutputSpec("tar", "-")), TarExporter)
    assert isinstance(exporter(OutputSpec("local", str(tmp_path))), LocalExporter)
    assert isinstance(exporter(OutputSpec("cacheonly")), CacheOnly)
    assert isinstance(exporter(OutputSpec("docker")), RegistryExporter), "loaded: the store has it"


def test_archives_without_a_dest_go_to_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.isatty", lambda fd: False)
    assert exporter(OutputSpec("oci")) == exporter(OutputSpec("oci", "-"))
    assert exporter(OutputSpec("tar")) == exporter(OutputSpec("tar", "-"))
    monkeypatch.setattr("os.isatty", lambda fd: True)
    for kind in ("oci", "tar"):
        with pytest.raises(UsageError, match="to the terminal"):
            exporter(OutputSpec(kind))


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    import os

    target = tmp_path / "out"
    target.write_bytes(b"old")
    with pytest.raises(ValueError), replacing(str(target)) as fd:
        os.write(fd, b"half")
        raise ValueError
    assert target.read_bytes() == b"old" and os.listdir(tmp_path) == ["out"]
    with replacing(str(target)) as fd:
        os.write(fd, b"new")
    assert target.read_bytes() == b"new" and os.listdir(tmp_path) == ["out"]


def test_a_link_keeps_being_a_link(tmp_path: Path) -> None:
    import os

    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "link").symlink_to("real")
    with replacing(str(tmp_path / "link")) as fd:
        os.write(fd, b"new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real").read_bytes() == b"new"
