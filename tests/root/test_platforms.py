"""Builds for several platforms: one index, what is in it, and where it goes."""

from __future__ import annotations

import io
import json
import os
import struct
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from builder import Built
from builder.errors import ExportError, NotFound, StepFailed, UsageError
from builder.events import StepStarted, Warning_
from builder.export.base import OutputSpec
from builder.finishing import Annotation, Finish
from builder.images import Images
from builder.registries import Access
from builder.state import StateDir
from oci import media_types, platforms
from oci.image import Image, images
from oci.layout import Layout
from oci.model import Index, Platform

if TYPE_CHECKING:
    from conftest import Workshop

pytestmark = pytest.mark.root

HOST = platforms.host()
ARM, S390 = Platform("linux", "arm64"), Platform("linux", "s390x")
BOTH = (str(HOST), "linux/arm64")
_COMMAND = os.path.join(os.path.dirname(sys.executable), "pybuild")
foreign_here = pytest.mark.skipif(HOST.architecture != "amd64", reason="the foreign program is for arm64")


def parts(shop: Workshop, built: Built) -> dict[str, Image]:
    """The images of an index of the store, by platform."""
    with StateDir(shop.root) as state:
        blobs = Images(state).layout.blobs
        assert built.descriptor is not None
        return {str(each.platform): Image.load(blobs, each) for each in images(blobs, built.descriptor)}


def index(shop: Workshop, built: Built) -> Index:
    with StateDir(shop.root) as state:
        assert built.descriptor is not None
        return Index.from_json(Images(state).layout.blobs.document(built.descriptor))


def steps(shop: Workshop) -> list[str]:
    return sorted(event.name for event in shop.events if isinstance(event, StepStarted))


CROSS = (
    "FROM --platform=$BUILDPLATFORM base AS build\nRUN touch /common\nARG TARGETARCH\n"
    "RUN echo $TARGETARCH > /out\nFROM scratch\nARG TARGETPLATFORM\nCOPY --from=build /out /out\n"
    "LABEL for=$TARGETPLATFORM\n"
)


def test_one_index_with_an_image_for_each(shop: Workshop) -> None:
    built = shop.build(CROSS, platforms=BOTH, tags=("app:1",))
    assert built.is_index and built.image_id is not None and built.descriptor is not None
    assert built.image_id == built.descriptor.digest
    found = parts(shop, built)
    assert list(found) == list(BOTH)
    for platform, image in found.items():
        assert str(image.platform) == platform
        assert image.config.value.config.labels == {"for": platform}
    assert sorted(shop.ran()) == [
        "COPY --from=build /out /out", "COPY --from=build /out /out", f"RUN echo {HOST.architecture} > /out",
        "RUN echo arm64 > /out", "RUN touch /common",
    ], "what is the same for both runs once"  # fmt: skip
    again = shop.build(CROSS, platforms=BOTH)
    assert shop.ran() == [] and again.image_id == built.image_id


def test_steps_say_for_which_platform_they_are(shop: Workshop) -> None:
    shop.build(CROSS, platforms=BOTH)
    assert [name for name in steps(shop) if "FROM docker" not in name] == sorted(
        [
            f"[{HOST} build 2/3] RUN touch /common",
            f"[{HOST} build 3/3] RUN echo {HOST.architecture} > /out",
            f"[{HOST}->arm64 build 3/3] RUN echo arm64 > /out",
            f"[{HOST} stage-1 1/1] COPY --from=build /out /out",
            "[linux/arm64 stage-1 1/1] COPY --from=build /out /out",
        ]
    )
    shop.build(CROSS, platforms=BOTH[:1])
    assert "[build 2/3] RUN touch /common" in steps(shop), "of one platform nobody needs to be told"


def test_a_platform_given_twice_is_one(shop: Workshop) -> None:
    shop.write("a", "1")
    built = shop.build("FROM scratch\nCOPY a /\n", platforms=("linux/arm64", "arm64", "linux/aarch64/v8"))
    assert not built.is_index and shop.image(built).platform == ARM


def test_a_warning_is_told_once_for_all_platforms(shop: Workshop) -> None:
    shop.write("a", "1")
    shop.build("FROM scratch\nMAINTAINER me\nCOPY a /\n", platforms=BOTH)
    assert [event.code for event in shop.events if isinstance(event, Warning_)] == ["MaintainerDeprecated"]


def test_an_index_of_one(shop: Workshop) -> None:
    shop.write("a", "1")
    args = {"BUILDKIT_MULTI_PLATFORM": "1"}
    built = shop.build("FROM scratch\nCOPY a /\n", build_args=args)
    assert built.is_index and list(parts(shop, built)) == [str(HOST)]
    assert not any("warning" in str(event).lower() for event in shop.events)


def test_a_base_that_is_an_index(shop: Workshop) -> None:
    shop.write("a", "1")
    shop.build("FROM scratch\nARG TARGETARCH\nCOPY a /$TARGETARCH\n", platforms=BOTH, tags=("two",))
    built = shop.build("FROM two\nCOPY a /b\n", platforms=BOTH)
    for platform, image in parts(shop, built).items():
        assert image.config.value.history[-2].created_by.startswith(f"COPY a /{platform.split('/')[1]}")
    with pytest.raises(NotFound, match="two"):
        shop.build("FROM two\nCOPY a /b\n", platforms=("linux/s390x",), access=Access(offline=True))


def folder(shop: Workshop, name: str) -> Path:
    return shop.context.parent / name


def local(shop: Workshop, **options: str) -> tuple[OutputSpec, ...]:
    names = {key.replace("_", "-"): value for key, value in options.items()}
    return (
        OutputSpec("local", str(folder(shop, "out")), names),
        OutputSpec("tar", str(folder(shop, "out.tar")), names),
    )


def written(shop: Workshop) -> tuple[list[str], list[str]]:
    top = folder(shop, "out")
    found = sorted(str(each.relative_to(top)) for each in top.rglob("*") if each.is_file())
    with tarfile.open(folder(shop, "out.tar")) as tar:
        names = tar.getnames()
        assert len(names) == len(set(names))
        return found, sorted(each.name for each in tar if each.isfile())


FILES = "FROM scratch\nARG TARGETARCH\nCOPY a /same/$TARGETARCH\n"


def test_each_platform_has_a_folder(shop: Workshop) -> None:
    shop.write("a", "1")
    own = str(HOST).replace("/", "_")
    shop.build(FILES, platforms=BOTH, outputs=local(shop))
    wanted = sorted([f"{own}/same/{HOST.architecture}", "linux_arm64/same/arm64"])
    assert written(shop) == (wanted, wanted)


def test_one_platform_has_none_unless_asked_for(shop: Workshop) -> None:
    shop.write("a", "1")
    shop.build(FILES, platforms=("linux/arm64",), outputs=local(shop))
    assert written(shop) == (["same/arm64"], ["same/arm64"])
    shop.build(FILES, platforms=("linux/arm64",), outputs=local(shop, platform_split="true"))
    assert written(shop)[1] == ["linux_arm64/same/arm64"]


def test_platforms_side_by_side_in_one_folder(shop: Workshop) -> None:
    shop.write("a", "1")
    shop.build(FILES, platforms=BOTH, outputs=local(shop, platform_split="false"))
    wanted = sorted([f"same/{HOST.architecture}", "same/arm64"])
    assert written(shop) == (wanted, wanted)


@pytest.mark.parametrize(
    ("own", "arm", "path"), [("COPY a /x", "COPY a /x", "x"), ("COPY a /d/x", "COPY a /d", "d")]
)
def test_two_files_in_one_place_are_refused(shop: Workshop, own: str, arm: str, path: str) -> None:
    shop.write("a", "1")
    text = f"FROM scratch AS {HOST.architecture}\n{own}\nFROM scratch AS arm64\n{arm}\nFROM $TARGETARCH\n"
    with pytest.raises(ExportError, match=f"{HOST} and linux/arm64 both have /{path}$") as caught:
        shop.build(text, platforms=BOTH, outputs=local(shop, platform_split="false"))
    assert "platform-split" in caught.value.hint
    assert not folder(shop, "out").exists(), "nothing is written before all is known to fit"


def test_an_archive_holds_the_whole_index(shop: Workshop) -> None:
    shop.write("a", "1")
    outputs = (
        OutputSpec("oci", str(folder(shop, "layout")), {"tar": "false"}),
        OutputSpec("oci", str(folder(shop, "zstd")), {"tar": "false", "compression": "zstd"}),
    )
    built = shop.build(FILES, platforms=BOTH, outputs=outputs)
    plain, packed = (Layout.open(str(folder(shop, name))) for name in ("layout", "zstd"))
    assert [each.digest for each in plain.descriptors()] == [built.image_id]
    (entry,) = packed.descriptors()
    assert entry.digest != built.image_id and entry.media_type == media_types.OCI_INDEX
    for each in images(packed.blobs, entry):
        (layer,) = Image.load(packed.blobs, each).layers
        assert layer.media_type == media_types.OCI_LAYER_ZSTD and layer.digest in packed.blobs


def test_annotations_of_an_index_and_its_parts(shop: Workshop) -> None:
    shop.write("a", "1")
    noted = (
        Annotation("index", "i", "1"),
        Annotation("index-descriptor", "id", "2"),
        Annotation("manifest", "m", "3"),
        Annotation("manifest", "own", "4", ARM),
        Annotation("manifest-descriptor", "md", "5", ARM),
    )
    output = OutputSpec("oci", str(folder(shop, "layout")), {"tar": "false"})
    built = shop.build(FILES, platforms=BOTH, finish=Finish(annotations=noted), outputs=(output,))
    made = index(shop, built)
    assert made.annotations == {"i": "1"}
    assert [each.annotations for each in made.manifests] == [{}, {"md": "5"}]
    own, arm = parts(shop, built).values()
    assert own.manifest.value.annotations == {"m": "3"}
    assert arm.manifest.value.annotations == {"m": "3", "own": "4"}
    (entry,) = Layout.open(str(folder(shop, "layout"))).descriptors()
    assert entry.annotations["id"] == "2"
    with pytest.raises(UsageError, match="has no index"):
        shop.build(FILES, finish=Finish(annotations=noted))


def test_a_named_context_for_one_platform(shop: Workshop, tmp_path: Path) -> None:
    for name in ("all", "arm"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "who").write_text(name)
    contexts = {"files": str(tmp_path / "all"), "files::linux/arm64": str(tmp_path / "arm")}
    outputs = local(shop)
    shop.build("FROM scratch\nCOPY --from=files who /\n", platforms=BOTH, contexts=contexts, outputs=outputs)
    top = folder(shop, "out")
    assert (top / "linux_arm64/who").read_text() == "arm"
    assert (top / str(HOST).replace("/", "_") / "who").read_text() == "all"


def test_an_image_as_named_context_is_that_of_the_platform(shop: Workshop) -> None:
    shop.write("a", "1")
    shop.build(FILES, platforms=BOTH, tags=("two",))
    contexts = {"other": "docker-image://two"}
    shop.build(
        "FROM scratch\nCOPY --from=other /same /\n", platforms=BOTH, contexts=contexts, outputs=local(shop)
    )
    own = str(HOST).replace("/", "_")
    assert written(shop)[0] == sorted([f"{own}/{HOST.architecture}", "linux_arm64/arm64"])


# --- in the store -------------------------------------------------------------------------------------------


def test_an_index_is_known_by_its_digest_and_by_that_of_its_image(shop: Workshop) -> None:
    shop.write("a", "1")
    built = shop.build(FILES, platforms=BOTH, tags=("app:1",))
    own = parts(shop, built)[str(HOST)]
    with StateDir(shop.root) as state, state.lease():
        stored = Images(state)
        for text in ("app:1", str(built.image_id), built.image_id.hex[:12], own.id.hex[:12]):  # type: ignore[union-attr]
            entry = stored.resolve(text)
            assert entry.id == built.image_id and entry.image.platform == HOST
            assert [each.platform for each in entry.others] == [ARM]
        base = stored.resolve("base")
        assert stored.resolve(base.descriptor.digest.hex[:20]).id == base.id
        assert stored.choose(entry, ARM).image.platform == ARM
        with pytest.raises(NotFound, match=r"no image for linux/s390x; it has .*linux/arm64"):
            stored.choose(entry, S390)
        gone = stored.remove("app:1")
        assert gone.untagged == ("app:1",) and [each.id for each in stored.entries()] == [base.id]


def test_of_an_index_with_images_that_are_not_here(shop: Workshop) -> None:
    shop.write("a", "1")
    built = shop.build(FILES, platforms=BOTH, tags=("app:1",))
    own = parts(shop, built)[str(HOST)]
    with StateDir(shop.root) as state, state.lease():
        stored = Images(state)
        stored.layout.blobs.delete(own.manifest.digest)
        entry = stored.resolve("app:1")
        assert entry.image.platform == ARM, "what is not here is not chosen"
        assert stored.absent(entry.descriptor) == (HOST,)
        with pytest.raises(NotFound, match="not in the store") as caught:
            stored.choose(entry, HOST)
        assert f"pull --platform {HOST} app:1" in caught.value.hint
        with pytest.raises(NotFound, match=f"for {HOST} are not in the store"):
            stored.refuse_sparse(entry.descriptor, "app:1")


def pybuild(shop: Workshop, *args: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([_COMMAND, "--root", shop.root, *args], capture_output=True)


def test_commands_take_one_image_of_an_index(shop: Workshop) -> None:
    shop.write("a", "1")
    built = shop.build(FILES, platforms=BOTH, tags=("app:1",))
    out = pybuild(shop, "images", "-q", "--no-trunc").stdout.decode().split()
    assert str(built.image_id) in out
    (shown,) = json.loads(pybuild(shop, "inspect", "app:1").stdout)
    assert shown["Id"] == str(built.image_id) and shown["Architecture"] == HOST.architecture
    assert [each["Platform"] for each in shown["Manifests"]] == list(BOTH)
    (shown,) = json.loads(pybuild(shop, "inspect", "--platform", "linux/arm64", "app:1").stdout)
    arm = parts(shop, built)["linux/arm64"]
    assert (shown["Id"], shown["Architecture"]) == (str(arm.id), "arm64")
    for args, entries in ((("--platform", "arm64"), {arm.manifest.digest}), ((), {built.image_id})):
        saved = pybuild(shop, "save", *args, "app:1").stdout
        with tarfile.open(fileobj=io.BytesIO(saved)) as tar:
            document = tar.extractfile("index.json")
            assert document is not None
            assert {each.digest for each in Index.from_json(document.read()).manifests} == entries
    done = pybuild(shop, "save", "--platform", "linux/s390x", "app:1")
    assert done.returncode and b"no image for linux/s390x" in done.stderr


# --- programs of other machines ---------------------------------------------------------------------


def arm_program(message: bytes) -> bytes:
    """An arm64 program, whole: it makes the directory /made, prints `message` and ends with 0."""
    path = b"/made\0"
    code = (
        struct.pack(
            "<14I",
            0x92800C60,  # movn x0, #99: AT_FDCWD
            0x10000001 | (52 // 4) << 5,  # adr x1, path
            0xD2800002 | 0o755 << 5,  # movz x2, #0755
            0xD2800008 | 34 << 5,  # movz x8, #34: mkdirat
            0xD4000001,  # svc #0
            0xD2800020,  # movz x0, #1
            0x10000001 | (32 // 4 + 2) << 5,  # adr x1, message
            0xD2800002 | len(message) << 5,  # movz x2, #length
            0xD2800008 | 64 << 5,  # movz x8, #64: write
            0xD4000001,
            0xD2800000,  # movz x0, #0
            0xD2800008 | 93 << 5,  # movz x8, #93: exit
            0xD4000001,
            0xD503201F,  # nop
        )
        + path.ljust(8, b"\0")
        + message
    )
    base, start = 0x400000, 64 + 56
    ident = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    header = ident + struct.pack("<HHIQQQIHHHHHH", 2, 183, 1, base + start, 64, 0, 0, 64, 56, 1, 64, 0, 0)
    size = start + len(code)
    return header + struct.pack("<IIQQQQQQ", 1, 5, 0, base, base, size, size, 0x10000) + code


@pytest.fixture
def arm(shop: Workshop) -> Workshop:
    path = shop.context / "program"
    path.write_bytes(arm_program(b"from arm64\n"))
    path.chmod(0o755)
    return shop


@foreign_here
@pytest.mark.parametrize(
    ("run", "shown"), [('["/program"]', "/program"), ("x", "/bin/sh"), ('["/script"]', "/script")]
)
def test_a_foreign_program_without_an_emulator(arm: Workshop, run: str, shown: str) -> None:
    if _has_emulator():
        pytest.skip("this machine has an emulator for arm64")
    arm.write("script", "#!/program\n")
    (arm.context / "script").chmod(0o755)
    text = f"FROM scratch\nCOPY program script /\nCOPY program /bin/sh\nRUN {run}\n"
    with pytest.raises(StepFailed, match="exec format error") as caught:
        arm.build(text, platforms=("linux/arm64",))
    assert f"{shown} is for arm64" in caught.value.hint and "qemu-user-static" in caught.value.hint
    assert str(caught.value.at) == "Dockerfile:4"


@foreign_here
@pytest.mark.parametrize("run", ["/program", "program", "echo on; x=$(program) && echo $x"])
def test_a_foreign_program_begun_by_a_shell_of_this_machine(arm: Workshop, run: str) -> None:
    if _has_emulator():
        pytest.skip("this machine has an emulator for arm64")
    with pytest.raises(StepFailed) as caught:
        arm.build(f"FROM base\nCOPY program /\nENV PATH=/bin:/\nRUN {run}\n")
    assert "/program is for arm64" in caught.value.hint and "qemu-user-static" in caught.value.hint


def test_a_shell_that_stumbles_over_its_own_script_says_so_itself(arm: Workshop) -> None:
    arm.write("script", "#!/bin/sh\n)\n")
    with pytest.raises(StepFailed, match="exited with 2") as caught:
        arm.build("FROM base\nCOPY program script /\nRUN sh /script\n")
    assert not caught.value.hint


def test_a_program_of_this_machine_that_is_not_there(shop: Workshop) -> None:
    with pytest.raises(StepFailed) as caught:
        shop.build('FROM base\nRUN ["/bin/none"]\n')
    assert "is the program in this stage" in caught.value.hint


def _has_emulator() -> bool:
    folder = "/proc/sys/fs/binfmt_misc"
    names = os.listdir(folder) if os.path.isdir(folder) else []
    return any("aarch64" in name or "arm64" in name for name in names)


_QEMU = "/usr/bin/qemu-aarch64-static"
_REGISTER = r"""
set -e
mount -t binfmt_misc none /proc/sys/fs/binfmt_misc
cd /proc/sys/fs/binfmt_misc
magic='\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00'
mask='\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff'
name=$1; shift
printf '%s' ":$name:M::$magic:$mask:$1:F" > register
trap 'echo -1 > /proc/sys/fs/binfmt_misc/$name' EXIT
shift
cd /
"$@"
"""


@foreign_here
def test_a_foreign_program_with_an_emulator(arm: Workshop) -> None:
    """The emulator is registered for the time of this test, with F: nothing of it is in the image."""
    if not os.path.exists(_QEMU):
        pytest.skip("qemu-user-static is not installed")
    arm.write("Dockerfile", 'FROM scratch\nCOPY program /\nRUN ["/program"]\n')
    build = [
        _COMMAND, "--root", arm.root, "build", "--network=none", "--platform",
        "linux/arm64", "-t", "app", "--progress", "plain", str(arm.context),
    ]  # fmt: skip
    line = ["unshare", "-m", "sh", "-c", _REGISTER, "sh", f"pybuild-{os.getpid()}", _QEMU, *build]
    done = subprocess.run(line, capture_output=True)
    if b"binfmt_misc" in done.stderr and b"#1" not in done.stderr:
        pytest.skip("this machine lets nobody register binary formats")
    assert done.returncode == 0 and b"from arm64" in done.stderr, done.stderr.decode()
    done = pybuild(arm, "export", "app")
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as tar:
        assert sorted(tar.getnames()) == ["made", "program"]


# --- several stages -------------------------------------------------------------------------------

STAGES = (
    "FROM base AS common\nRUN touch /c\nFROM common AS Web\nRUN touch /w\n"
    "FROM common AS worker\nRUN touch /k\n"
    "FROM base AS tests\nRUN touch /t\nFROM base\nRUN touch /last\n"
)


def named(shop: Workshop) -> dict[str, str]:
    """The last layer's line of every named image."""
    with StateDir(shop.root) as state:
        entries = Images(state).entries()
    return {
        name.familiar(): entry.image.config.value.history[-1].created_by.split(" ")[4]
        for entry in entries
        for name in entry.names
        if "base" not in str(name)
    }


def test_names_for_several_stages(shop: Workshop) -> None:
    built = shop.build(STAGES, tags=("web=web:1", "WEB=web:latest", "worker=worker:1", "all:1"))
    assert sorted(shop.ran()) == ["RUN touch /c", "RUN touch /k", "RUN touch /last", "RUN touch /w"]
    assert named(shop) == {"web:1": "/w", "web:latest": "/w", "worker:1": "/k", "all:1": "/last"}
    assert list(built.targets) == ["stage-4", "web", "worker"]
    assert built.image_id == built.targets["stage-4"].image_id
    assert [event.message for event in shop.events if type(event).__name__ == "Note"] == [
        "stages not built: tests (--target or --all-stages)"
    ]


def test_only_the_stages_that_are_asked_for(shop: Workshop) -> None:
    shop.build(STAGES, tags=("web=web:1",))
    assert named(shop) == {"web:1": "/w"} and "RUN touch /last" not in shop.ran()
    built = shop.build(STAGES, targets=("tests", "worker"), tags=("tests=t",))
    assert sorted(shop.ran()) == ["RUN touch /k", "RUN touch /t"]
    assert named(shop) == {"web:1": "/w", "t:latest": "/t"}
    assert list(built.targets) == ["tests", "worker"]


def test_every_stage(shop: Workshop) -> None:
    shop.build(STAGES, every_stage=True, tags=("x",))
    assert len(shop.ran()) == 5 and named(shop) == {"x:latest": "/last"}
    assert not [event for event in shop.events if type(event).__name__ == "Note"]
    with pytest.raises(StepFailed):
        shop.build(STAGES.replace("touch /t", "false"), every_stage=True)


def test_several_stages_for_several_platforms(shop: Workshop) -> None:
    shop.write("a", "1")
    text = "FROM scratch AS one\nCOPY a /1\nFROM scratch AS two\nCOPY a /2\n"
    built = shop.build(text, platforms=BOTH, tags=("one=one", "two=two"))
    assert sorted(shop.ran()) == ["COPY a /1", "COPY a /2"], "no step depends on the platform"
    for stage, line in (("one", "COPY a /1"), ("two", "COPY a /2")):
        for image in parts(shop, built.targets[stage]).values():
            assert image.config.value.history[-1].created_by.startswith(line)


def test_what_is_no_stage(shop: Workshop) -> None:
    with pytest.raises(UsageError, match="there is no stage `webb`") as caught:
        shop.build(STAGES, tags=("webb=x",))
    assert "web" in caught.value.hint
