"""`pybuild commit`: what a container wrote, and nothing else, becomes an image (G09, S93)."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tarfile
import time
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from fleet import ENVIRONMENT, Fleet, wait_for

from builder.container.store import Containers
from oci.blobs import BlobStore
from oci.compress import open_compressed
from oci.digest import Digest
from oci.image import Image
from oci.layout import Layout

pytestmark = pytest.mark.root

CANARY = "canary-7c1e"


@pytest.fixture(scope="module")
def _fleet(tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    return Fleet(tmp_path_factory.mktemp("commit"))


@pytest.fixture
def fleet(_fleet: Fleet) -> Iterator[Fleet]:
    yield _fleet
    _fleet.clear()


def image(fleet: Fleet, name: str) -> Any:
    return json.loads(fleet("inspect", name))[0]


def layers(fleet: Fleet, name: str) -> list[tarfile.TarFile]:
    """Those that are not of the image `bb`."""
    layout = Layout(fleet.root)
    digest = Digest.parse(image(fleet, name)["Descriptor"]["digest"])
    manifest = json.loads(_read(layout.blobs, digest))
    found = []
    for each in manifest["layers"][1:]:
        with layout.blobs.open(Digest.parse(each["digest"])) as blob:
            content = BytesIO(_all(open_compressed(blob)))
        found.append(tarfile.open(fileobj=content))  # noqa: SIM115
    return found


def _read(blobs: BlobStore, digest: Digest) -> bytes:
    with blobs.open(digest) as file:
        return file.read()


def _all(stream: Any) -> bytes:
    return b"".join(iter(lambda: stream.read(1 << 20), b""))


def test_an_image_of_what_it_wrote(fleet: Fleet) -> None:
    fleet.begin(
        "--name", "web", "-e", "A=1", "-l", "l=1", "-w", "/bin", "bb",
        "sh", "-c", "mkdir /d; echo one > /d/made; rm /bin/tty; echo ready; exec sleep 1000",
    )  # fmt: skip
    wait_for(lambda: b"ready" in fleet.printed("web"))
    words = ("commit", "-a", "Ada", "-m", "why", "-c", 'CMD ["cat", "/d/made"]', "-c", "ENV B=2", "-c",
             "EXPOSE 80", "-c", "STOPSIGNAL KILL", "-c", "USER 5", "web", "made:1")  # fmt: skip
    said = fleet(*words)
    assert fleet.state("web").status == "running"  # it was paused, and goes on
    assert fleet("exec", "web", "cat", "/d/made") == "one"
    found = image(fleet, "made:1")
    assert found["Id"] == said and found["Author"] == "Ada" and found["Comment"] == "why"
    config = found["Config"]
    assert {"A=1", "B=2"} <= {*config["Env"]} and config["Labels"] == {"l": "1"}
    assert config["WorkingDir"] == "/bin" and config["User"] == "5" and config["StopSignal"] == "KILL"
    assert [*config["ExposedPorts"]] == ["80/tcp"]
    (layer,) = layers(fleet, "made:1")
    assert sorted(layer.getnames()) == ["bin", "bin/.wh.tty", "d", "d/made"]
    assert fleet("run", "--rm", "--network=none", "made:1") == "one"
    history = fleet("history", "--format", "{{.CreatedBy}}|{{.Comment}}", "--no-trunc", "made:1")
    assert history.splitlines()[0].startswith("sh -c mkdir /d") and history.splitlines()[0].endswith("|why")
    assert fleet.ran("validate", "made:1").returncode == 0


def test_nothing_was_written(fleet: Fleet) -> None:
    fleet("create", "--name", "new", "--network=none", "bb", "echo", "said")
    fleet("commit", "new", "same")
    assert layers(fleet, "same") == []
    assert fleet("run", "--rm", "--network=none", "same") == "said"  # the container's command
    assert fleet.ran("validate", "same").returncode == 0


def test_an_image_without_a_name_and_wrong_words(fleet: Fleet) -> None:
    fleet("create", "--name", "new", "bb", "true")
    said = fleet("commit", "new")
    assert said.startswith("sha256:") and image(fleet, said)["RepoTags"] == []
    before = fleet("images", "-aq")
    for words, code in (
        (("-c", "RUN true", "new", "x"), 2),
        (("-c", "CMD [", "-c", "FROM x", "new", "x"), 2),
        (("nobody",), 1),
        (("new", "UPPER:x"), 2),
    ):
        done = fleet.ran("commit", *words)
        assert done.returncode == code and done.stdout == "", (words, done)
        assert "Traceback" not in done.stderr
    assert fleet("images", "-aq") == before


def test_what_is_mounted_is_not_in_it_s93(fleet: Fleet, tmp_path: Path) -> None:
    """Volumes, binds, a tmpfs, and the files of the network: neither their content nor their places."""
    (tmp_path / "file").write_text(CANARY)
    (tmp_path / "folder").mkdir()
    script = (
        f"echo {CANARY} | tee /vol/x /bind/x /tmpfs/x >> /etc/hosts; echo {CANARY} >> /etc/resolv.conf;"
        "echo mine > /etc/mine; echo ready; exec sleep 1000"
    )
    fleet.begin(
        "--name", "web", "-v", "/vol", "-v", f"{tmp_path}/folder:/bind", "--tmpfs", "/tmpfs",
        "-v", f"{tmp_path}/file:/run/secrets/one:ro", "bb", "sh", "-c", script,
    )  # fmt: skip
    wait_for(lambda: b"ready" in fleet.printed("web"))
    for number, pause in enumerate(("--pause", "--no-pause")):
        fleet("commit", pause, "web", f"clean{number}")
        (layer,) = layers(fleet, f"clean{number}")
        assert sorted(layer.getnames()) == ["etc", "etc/mine"]
        assert image(fleet, f"clean{number}")["Config"]["Volumes"] == {"/vol": {}}


def test_mount_points_that_it_had_to_make_itself_are_not_in_it_s93(fleet: Fleet) -> None:
    """An opaque directory hides those of the layer below: they are made where the container writes."""
    context = "FROM bb\nRUN mkdir -p /a && echo x > /a/x\nRUN rm -rf /a && mkdir /a && echo y > /a/y\n"
    fleet("build", "-t", "opaque", "--network=none", "-", stdin=context)
    name = fleet.begin(
        "-v", "/a/vol/deep", "opaque", "sh", "-c", "echo z > /a/z; echo ready; exec sleep 1000"
    )
    wait_for(lambda: b"ready" in fleet.printed(name))
    fleet("commit", name, "made")
    parent = len(image(fleet, "opaque")["RootFS"]["Layers"])
    assert sorted(layers(fleet, "made")[parent - 1].getnames()) == ["a", "a/z"]


def test_one_that_ended_and_its_next_life(fleet: Fleet) -> None:
    fleet.ran("run", "--name", "job", "--network=none", "bb", "sh", "-c", "echo $$ >> /count")
    fleet("start", "-a", "job")
    fleet("commit", "job", "twice")
    assert len(fleet("run", "--rm", "--network=none", "twice", "cat", "/count").splitlines()) == 2
    assert fleet.ran("validate", "twice").returncode == 0


def test_a_paused_one_stays_paused(fleet: Fleet) -> None:
    fleet.begin("--name", "web", "bb", "sleep", "1000")
    fleet("pause", "web")
    fleet("commit", "web", "still")
    assert fleet.state("web").status == "paused"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_goes_on_after_an_interruption(fleet: Fleet, number: int) -> None:
    """And nothing half-made is left."""
    script = "head -c 300000000 /dev/urandom > /large; echo ready; exec sleep 1000"
    fleet.begin("--name", "web", "bb", "sh", "-c", script)
    wait_for(lambda: b"ready" in fleet.printed("web"))
    before = fleet("images", "-aq")
    process = subprocess.Popen([*fleet.command, "commit", "web", "half"], env=ENVIRONMENT)
    wait_for(lambda: fleet.state("web").status == "paused")
    time.sleep(0.1)
    process.send_signal(number)
    assert process.wait(60) in (130, 143)
    wait_for(lambda: fleet.state("web").status == "running")
    assert fleet("images", "-aq") == before
    assert os.listdir(os.path.join(fleet.root, "tmp")) == []


def test_a_container_that_swaps_directories_for_links_meanwhile_s93(fleet: Fleet, tmp_path: Path) -> None:
    """With --no-pause its program runs on: nothing of the host comes in by a link."""
    (tmp_path / "secret").write_text(CANARY)
    script = (
        f"mkdir /d /e; for i in $(seq 300); do echo > /d/$i; done; ln -s {tmp_path} /l; echo ready;"
        "while :; do mv /d /x; mv /l /d; mv /d /l; mv /x /d; done"
    )
    fleet.begin("--name", "swap", "bb", "sh", "-c", script)
    wait_for(lambda: b"ready" in fleet.printed("swap"))
    for number in range(8):
        done = fleet.ran("commit", "--no-pause", "swap", f"swapped{number}")
        assert "Traceback" not in done.stderr
        if done.returncode:
            continue
        for layer in layers(fleet, f"swapped{number}"):
            assert not any("secret" in each for each in layer.getnames())
    assert Containers(fleet.root).state(Containers(fleet.root).find("swap")).status == "running"


def test_an_image_of_dockers_stays_one(fleet: Fleet) -> None:
    """And parents' blobs are there: the new image can be taken elsewhere."""
    fleet("create", "--name", "new", "bb", "true")
    fleet("commit", "new", "out")
    done = subprocess.run([*fleet.command, "save", "out"], env=ENVIRONMENT, capture_output=True, check=True)
    with tarfile.open(fileobj=BytesIO(done.stdout)) as archive:
        assert "manifest.json" in archive.getnames()
    assert Image is not None
