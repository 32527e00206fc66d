"""Commands that meet a damaged blob of the store: they get it again and go on, or leave nothing half done
(SECURITY.md R16)."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from builder.cli.session import Session
from oci.errors import DigestMismatch
from oci.layout import Layout
from oci.registry.server import Options, RegistryServer
from tests.builder.cli.damage import DAMAGES, PARTS, damage

Pybuild = Any

EVERY = list(itertools.product(PARTS, DAMAGES))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RegistryServer]:
    layout = Layout.create(tmp_path / "registry")
    with RegistryServer(layout, Options(port=0)) as server:
        thread = threading.Thread(target=server.serve, daemon=True)
        thread.start()
        yield server
        server.stop()
        thread.join()


@pytest.fixture
def pushed(pybuild: Pybuild, rootfs: str, server: RegistryServer) -> str:
    """The name of an image of the store that a registry has too."""
    name = f"127.0.0.1:{server.port}/team/app:1"
    pybuild.ok("import", rootfs, name)
    pybuild.ok("push", name)
    return name


def fetched(digest: str, name: str, err: str) -> bool:
    return f"the blob {digest} of {name} is damaged and was put aside; it was fetched again from" in err


@pytest.mark.parametrize(("part", "how"), EVERY)
def test_save(pybuild: Pybuild, pushed: str, tmp_path: Path, part: str, how: str) -> None:
    """SECURITY.md R16."""
    pybuild.ok("save", "-o", f"{tmp_path}/before.tar", pushed)
    digest = damage(pybuild.root, pushed, part, how)
    ran = pybuild("save", "-o", f"{tmp_path}/after.tar", pushed)
    assert ran.code == 0 and fetched(digest, pushed, ran.err), ran
    assert Path(tmp_path, "after.tar").read_bytes() == Path(tmp_path, "before.tar").read_bytes()
    assert os.listdir(f"{pybuild.root}/quarantine") == [digest.replace(":", "-")]
    assert pybuild("fsck").code == 0


@pytest.mark.parametrize(("part", "how"), EVERY)
def test_push(pybuild: Pybuild, pushed: str, server: RegistryServer, part: str, how: str) -> None:
    """SECURITY.md R16."""
    other = f"localhost:{server.port}/other/app:2"
    pybuild.ok("tag", pushed, other)
    digest = damage(pybuild.root, other, part, how)
    ran = pybuild("push", other)
    assert ran.code == 0, ran
    # what the registry mounts from the other repository is not read here at all
    assert f"the blob {digest} of " in ran.err or part == "layer"
    assert pybuild.ok("inspect", pushed)


@pytest.mark.parametrize(("part", "how"), EVERY)
@pytest.mark.parametrize("target", ["oci:{}/there:1", "dir:{}/there", "oci-archive:{}/there"])
def test_copy(pybuild: Pybuild, pushed: str, tmp_path: Path, target: str, part: str, how: str) -> None:
    """SECURITY.md R16."""
    digest = damage(pybuild.root, pushed, part, how)
    ran = pybuild("copy", f"store:{pushed}", target.format(tmp_path))
    assert ran.code == 0 and fetched(digest, pushed, ran.err), ran
    assert pybuild("copy", target.format(tmp_path), "store:again:1").code == 0


@pytest.mark.parametrize(("part", "how"), [each for each in EVERY if each[0] != "layer"])
@pytest.mark.parametrize("verb", ["inspect", "history"])
def test_inspect_and_history(pybuild: Pybuild, pushed: str, verb: str, part: str, how: str) -> None:
    """SECURITY.md R16."""
    line = (verb, "--format", "json", pushed)
    before = pybuild.ok(*line)
    digest = damage(pybuild.root, pushed, part, how)
    ran = pybuild(*line)
    assert ran.code == 0 and ran.out == before and fetched(digest, pushed, ran.err), ran
    assert pybuild("fsck").code == 0


@pytest.mark.parametrize("verb", ["inspect", "history"])
def test_nothing_is_fetched_offline(pybuild: Pybuild, pushed: str, server: RegistryServer, verb: str) -> None:
    digest = damage(pybuild.root, pushed, "config", "flipped")
    ran = pybuild(verb, "--offline", pushed)
    assert ran.code != 0 and f"the blob {digest} of {pushed} is damaged and was put aside; " in ran.err, ran
    assert "--offline" in ran.err and f"pybuild pull {pushed}" in ran.err
    pybuild.ok("pull", pushed)
    pybuild.ok(verb, "--offline", pushed)


def test_several_blobs_at_once(pybuild: Pybuild, pushed: str, tmp_path: Path) -> None:
    for blob in Path(pybuild.root, "blobs/sha256").iterdir():
        blob.write_bytes(blob.read_bytes()[:-1])
    ran = pybuild("save", "-o", f"{tmp_path}/out.tar", pushed)
    assert ran.code == 0 and ran.err.count("it was fetched again from") == 3


@pytest.mark.parametrize(("part", "how"), EVERY)
@pytest.mark.parametrize("verb", ["save", "copy"])
def test_what_nobody_has(
    pybuild: Pybuild, rootfs: str, tmp_path: Path, part: str, how: str, verb: str
) -> None:
    """The message says so, and what helps; nothing of an output is to be seen."""
    name = "docker.io/library/app:1"
    pybuild.ok("import", rootfs, name)
    digest = damage(pybuild.root, name, part, how)
    there = tmp_path / "there"
    line = {"save": ("save", "-o", str(there), "app:1"), "copy": ("copy", "store:app:1", f"oci:{there}")}
    ran = pybuild(*line[verb])
    assert ran.code != 0 and f"the blob {digest} of {name} is damaged and was put aside" in ran.err
    assert "no registry is known to have it: build or load the image again" in ran.err
    assert ("is no name any more" in ran.err) == (part != "layer")
    assert not there.exists()
    pybuild.ok("import", rootfs, name)
    pybuild.ok(*line[verb])


def test_a_registry_that_lost_it_too(
    pybuild: Pybuild, pushed: str, server: RegistryServer, tmp_path: Path
) -> None:
    digest = damage(pybuild.root, pushed, "layer", "flipped")
    for blob in Path(tmp_path, "registry", "blobs", "sha256").iterdir():
        blob.unlink()
    ran = pybuild("save", "-o", f"{tmp_path}/out.tar", pushed)
    assert ran.code != 0 and f"the blob {digest} of {pushed} is damaged and was put aside; " in ran.err
    assert f"the same command again takes it from {pushed.removesuffix(':1')}" in ran.err
    assert not os.path.exists(f"{tmp_path}/out.tar")


def test_a_push_that_cannot_be_sets_no_tag(pybuild: Pybuild, rootfs: str, server: RegistryServer) -> None:
    name = f"127.0.0.1:{server.port}/team/app:1"
    pybuild.ok("import", rootfs, name)
    damage(pybuild.root, name, "layer", "flipped")
    ran = pybuild("push", name)
    assert ran.code != 0 and "no registry is known to have it" in ran.err
    assert pybuild("tags", name.removesuffix(":1")).out == ""


def test_the_image_of_another_repository_does_not_stop_a_push_of_all_tags(
    pybuild: Pybuild, rootfs: str, server: RegistryServer
) -> None:
    name = f"127.0.0.1:{server.port}/team/app:1"
    pybuild.ok("import", rootfs, name)
    pybuild.ok("import", "-m", "other", rootfs, "docker.io/library/other:1")
    damage(pybuild.root, "docker.io/library/other:1", "config", "flipped")
    assert pybuild("push", "-a", name.removesuffix(":1")).code == 0


def test_nothing_is_written_to_a_pipe_that_is_not_sound(pybuild: Pybuild, pushed: str, rootfs: str) -> None:
    """What went into a pipe cannot be taken back: the reader gets one whole archive, or not a byte."""
    damage(pybuild.root, pushed, "layer", "flipped")
    line = [sys.executable, "-m", "builder.cli.main", "--root", pybuild.root]
    done = subprocess.run([*line, "save", pushed], capture_output=True, check=True)
    assert b"it was fetched again from" in done.stderr
    Path(pybuild.root, "..", "out.tar").write_bytes(done.stdout)
    with tarfile.open(Path(pybuild.root, "..", "out.tar")) as archive:
        assert sum(name == "index.json" for name in archive.getnames()) == 1
    pybuild.ok("import", "-m", "lonely", rootfs, "docker.io/library/lonely:1")
    damage(pybuild.root, "docker.io/library/lonely:1", "config", "flipped")
    gone = subprocess.run(
        [*line, "copy", "store:lonely:1", "oci-archive:-"], capture_output=True, check=False
    )
    assert gone.returncode != 0 and gone.stdout == b""


def test_each_blob_is_fetched_once(pybuild: Pybuild, pushed: str) -> None:
    """A disk that damages what is written to it is no reason to fetch for ever."""
    calls = []
    with Session(root=pybuild.root) as session:

        def act() -> None:
            calls.append(digest := damage(pybuild.root, pushed, "layer", "flipped"))
            raise DigestMismatch("damaged", blob=digest)

        with pytest.raises(DigestMismatch):
            session.again(act)
    assert len(calls) == 2
