"""Builds from end to end, as the Python API does them: what is executed, what is cached, what comes out."""

from __future__ import annotations

import os
import signal
import subprocess
import tarfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from holding import held, no_more_than

from builder import BuildRequest, build, interrupts
from builder.errors import BuildError, DockerfileError, NotFound, StepFailed
from builder.events import StepDone, StepStarted
from builder.export.base import OutputSpec
from builder.images import Images
from builder.registries import Access
from builder.sandbox.run import Launcher
from builder.solver import means
from builder.solver.means import Tools
from builder.state import StateDir
from oci.layer import LayerSink
from oci.model import Platform

if TYPE_CHECKING:
    from conftest import Workshop

pytestmark = pytest.mark.root


def test_a_second_build_executes_nothing_and_gives_the_same_image(shop: Workshop) -> None:
    shop.write("a", "text")
    dockerfile = 'FROM base\nWORKDIR /w\nCOPY a b\nRUN cat b > c\nENV X=1\nCMD ["sh"]\n'
    first = shop.build(dockerfile)
    assert shop.ran() == ["WORKDIR /w", "COPY a b", "RUN cat b > c"]
    second = shop.build(dockerfile)
    assert shop.ran() == []
    assert second.image_id == first.image_id


def test_a_build_is_named_as_its_logs_are(shop: Workshop) -> None:
    built = shop.build("FROM base\nRUN true\n")
    assert os.listdir(f"{shop.root}/logs") == [built.ref.removeprefix("pybuild/local/")]
    again = shop.build("FROM base\nRUN true\n")
    assert again.ref not in ("", built.ref) and len(os.listdir(f"{shop.root}/logs")) == 1


def test_metadata_only_changes_execute_nothing(shop: Workshop) -> None:
    """SECURITY.md S70."""
    first = shop.build("FROM base\nRUN touch /x\nLABEL a=1\n")
    second = shop.build("FROM base\nRUN touch /x\nLABEL a=2\n")
    assert shop.ran() == []
    assert first.image_id != second.image_id
    assert shop.image(first).layers == shop.image(second).layers


def test_a_changed_file_runs_its_copy_and_what_follows(shop: Workshop) -> None:
    shop.write("a", "1")
    shop.write("b", "1")
    dockerfile = "FROM base\nCOPY a /\nCOPY b /\nRUN cat /b\n"
    shop.build(dockerfile)
    shop.write("b", "2")
    shop.build(dockerfile)
    assert shop.ran() == ["COPY b /", "RUN cat /b"]
    shop.write("b", "1")
    shop.build(dockerfile)
    assert shop.ran() == []


def test_only_content_and_mode_count_for_a_copy(shop: Workshop) -> None:
    shop.write("d/a", "1")
    dockerfile = "FROM base\nCOPY d /d\n"
    shop.build(dockerfile)
    os.utime(shop.context / "d/a", (1, 1))
    os.chown(shop.context / "d/a", 5, 5)
    shop.build(dockerfile)
    assert shop.ran() == []
    os.chmod(shop.context / "d/a", 0o600)
    shop.build(dockerfile)
    assert shop.ran() == ["COPY d /d"]


def test_a_stage_built_again_with_the_same_files_keeps_its_readers_cached(shop: Workshop) -> None:
    dockerfile = "FROM base AS one\n{}\nRUN echo x > /out\nFROM base\nCOPY --from=one /out /\nRUN cat /out\n"
    shop.build(dockerfile.format("RUN true"))
    shop.build(dockerfile.format("RUN false || true"))
    assert shop.ran() == ["RUN false || true", "RUN echo x > /out"]


def test_no_cache_runs_all_and_the_filter_some(shop: Workshop) -> None:
    dockerfile = "FROM base AS one\nRUN touch /1\nFROM base\nCOPY --from=one /1 /\nRUN touch /2\n"
    shop.build(dockerfile)
    shop.build(dockerfile, no_cache=True)
    assert shop.ran() == ["RUN touch /1", "COPY --from=one /1 /", "RUN touch /2"]
    shop.build(dockerfile, no_cache_filter=frozenset({"one"}))
    assert shop.ran() == ["RUN touch /1"]


def test_unneeded_stages_do_not_run(shop: Workshop) -> None:
    dockerfile = "FROM base AS a\nRUN touch /a\nFROM nothing-of-the-kind AS b\nRUN false\nFROM a AS c\n"
    shop.build(dockerfile, targets=("c",))
    assert shop.ran() == ["RUN touch /a"]


def test_independent_stages_run_at_the_same_time(shop: Workshop) -> None:
    """Each waits for the other."""
    stages = "".join(
        f"FROM base AS {name}\nRUN --mount=type=cache,target=/m touch /m/{name}; n=0; "
        "until [ -e /m/a ] && [ -e /m/b ]; do n=$((n + 1)); [ $n -lt 1200 ] || exit 9; sleep 0.05; done\n"
        for name in "ab"
    )
    dockerfile = f"{stages}FROM base\nCOPY --from=a / /a\nCOPY --from=b / /b\n"
    shop.build(dockerfile, jobs=2)
    begun = {event.digest: event.time for event in shop.events if isinstance(event, StepStarted)}
    names = {event.digest: event.name for event in shop.events if isinstance(event, StepStarted)}
    ended = {event.digest: event.time for event in shop.events if isinstance(event, StepDone)}
    one, two = (digest for digest, name in names.items() if "sleep" in name)
    assert begun[one] < ended[two] and begun[two] < ended[one]


def test_a_failing_step_is_told_with_its_line_and_its_last_words(shop: Workshop) -> None:
    with pytest.raises(StepFailed) as caught:
        shop.build("FROM base\n\nRUN echo before; exit 7\n", tags=("t",))
    assert caught.value.status == 7 and caught.value.exit_code == 1
    assert str(caught.value.at) == "Dockerfile:3"
    assert caught.value.log == ("before",)
    with StateDir(shop.root) as state, pytest.raises(NotFound):
        Images(state).resolve("t")


def test_a_missing_program_names_itself(shop: Workshop) -> None:
    with pytest.raises(StepFailed, match=r"nosuch.*not found") as caught:
        shop.build('FROM base\nRUN ["nosuch"]\n')
    assert caught.value.status == 127


def test_a_script_too_long_for_an_argument_says_what_holds_it(shop: Workshop) -> None:
    lines = "true a line of forty characters or so...\n" * 4000
    with pytest.raises(StepFailed, match="argument list too long") as caught:
        shop.build(f"FROM base\nRUN <<EOF\n{lines}EOF\n")
    assert "128 KiB" in caught.value.hint and "#!/bin/sh" in caught.value.hint
    shop.build(f"FROM base\nRUN <<EOF\n#!/bin/sh\n{lines}EOF\n")


@pytest.mark.parametrize("moment", ["begin", "start"])
def test_an_interrupt_reaches_a_step_that_is_just_to_begin(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """What is killed is what runs; a step between its turn and its process is stopped all the same."""
    told = threading.Event()
    original, cancel = getattr(Launcher, moment), Tools.cancel

    def late(launcher: Launcher, *args: object, **more: object) -> object:
        if not told.is_set():
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
            assert told.wait(30)
        return original(launcher, *args, **more)

    def cancelled(tools: Tools) -> None:
        cancel(tools)
        told.set()

    monkeypatch.setattr(Launcher, moment, late)
    monkeypatch.setattr(Tools, "cancel", cancelled)
    with pytest.raises(KeyboardInterrupt):
        shop.build("FROM base\nRUN sleep 20; echo over\n")
    assert "over" not in shop.output()


@pytest.mark.parametrize("line", ["COPY large /", "RUN truncate -s 8M /large; sync"])
def test_an_interrupt_ends_the_writing_of_a_layer(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    """However much is still to be written; only a step that is over gets a moment for its layer."""
    told = threading.Event()
    taken: list[int] = []
    original, cancel = LayerSink.__call__, Tools.cancel

    def take(sink: LayerSink, block: bytes) -> None:
        taken.append(len(block))
        if not told.is_set():
            interrupts.ask(KeyboardInterrupt())
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
            assert told.wait(30)
        original(sink, block)

    def cancelled(tools: Tools) -> None:
        cancel(tools)
        told.set()

    with open(shop.context / "large", "wb") as file:
        file.truncate(8 << 20)
    monkeypatch.setattr(LayerSink, "__call__", take)
    monkeypatch.setattr(Tools, "cancel", cancelled)
    monkeypatch.setattr(means, "_PATIENCE_S", -1.0)
    try:
        with pytest.raises(KeyboardInterrupt):
            shop.build(f"FROM base\n{line}\n")
    finally:
        interrupts.forget()
    assert len(taken) == 1


def test_a_base_that_is_not_there_names_its_line(shop: Workshop) -> None:
    with pytest.raises(NotFound, match="other:1") as caught:
        shop.build("FROM base AS a\nFROM other:1\nCOPY --from=a / /\n", access=Access(offline=True))
    assert str(caught.value.at) == "Dockerfile:2"


def test_steps_see_users_groups_homes_and_directories(shop: Workshop) -> None:
    shop.build(
        "FROM base\nUSER app\nWORKDIR /home/app/x\n"
        "RUN id && pwd && echo $HOME && touch y && stat -c %U:%G . y\n"
    )
    assert shop.output() == (
        "uid=1000(app) gid=1000(app) groups=1000(app),2000(extra)\n/home/app/x\n/home/app\napp:app\napp:app\n"
    )


def test_what_no_layer_can_hold_is_told_with_the_line_that_made_it(shop: Workshop) -> None:
    with pytest.raises(BuildError, match=r"\.wh\.x") as caught:
        shop.build("FROM base\nRUN touch /.wh.x\nRUN true\n")
    assert caught.value.at is not None and caught.value.at.first == 2


def test_an_empty_diff_makes_no_layer(shop: Workshop) -> None:
    image = shop.image(shop.build("FROM base\nRUN true\nRUN touch /x && rm /x\nWORKDIR /bin\n"))
    assert len(image.layers) == 1
    assert [row.empty_layer for row in image.config.value.history[1:]] == [True, True, True]


def test_files_removed_and_replaced_are_so_in_the_image(shop: Workshop) -> None:
    shop.write("d/f", "1")
    built = shop.build(
        "FROM base\nCOPY d /d\nCOPY d /e\nRUN rm -r /d && rm /bin/date && rm -r /e && echo x > /e\n",
        outputs=shop.tar(),
    )
    files = shop.files(built)
    assert "d" not in files and "bin/date" not in files
    assert files["e"].isfile() and "e/f" not in files


def test_nothing_of_the_sandbox_is_left_in_the_image(shop: Workshop) -> None:
    built = shop.build("FROM base\nRUN touch /x\n", outputs=shop.tar())
    names = set(shop.files(built))
    assert not {"proc", "sys", "dev", "etc/resolv.conf", "etc/hosts", "run", "dev/pipes"} & names


def test_a_clock_gives_one_digest_from_warm_and_cold_stores(
    shop: Workshop, tmp_path: Path, rootfs: bytes
) -> None:
    """SECURITY.md R25."""
    dockerfile = (
        "FROM base\nCOPY a /d/a\nRUN touch /made && chown -R 1000 /d && stat -c %Y /d/a\n"
        "FROM base\nCOPY --from=0 /d /e\nRUN cp -a /e /f\n"
    )
    shop.write("a", "1")
    first = shop.build(dockerfile, clock=1_000_000_000)
    assert "315532800" in shop.output()
    os.utime(shop.context / "a", (5, 5))
    other = shop.build(dockerfile, clock=1_100_000_000)
    assert shop.ran() == ["COPY a /d/a", "COPY --from=0 /d /e"] or "RUN" not in " ".join(shop.ran())
    assert other.image_id != first.image_id
    again = shop.build(dockerfile, clock=1_000_000_000)
    assert again.image_id == first.image_id
    (tmp_path / "cold").mkdir()
    cold = type(shop)(tmp_path / "cold", rootfs)
    cold.write("a", "1")
    assert cold.build(dockerfile, clock=1_000_000_000).image_id == first.image_id
    assert cold.build(dockerfile, clock=1_100_000_000).image_id == other.image_id


def test_a_clock_dates_config_history_and_files(shop: Workshop) -> None:
    shop.write("a", "1")
    built = shop.build(
        "FROM base\nCOPY a /\nRUN touch /b\nENV X=1\n", clock=1_000_000_000, outputs=shop.tar()
    )
    config = shop.image(built).config.value
    assert config.created == "2001-09-09T01:46:40Z"
    assert {row.created for row in config.history[1:]} == {"2001-09-09T01:46:40Z"}
    files = shop.files(built)
    assert files["a"].mtime == files["b"].mtime == 1_000_000_000


def test_a_damaged_layer_is_made_again(shop: Workshop) -> None:
    """SECURITY.md R16."""
    dockerfile = "FROM base\nRUN touch /x\n"
    first = shop.build(dockerfile, clock=1)
    layer = shop.image(first).layers[-1]
    os.unlink(os.path.join(shop.root, "blobs/sha256", layer.digest.hex))
    second = shop.build(dockerfile, clock=1)
    assert shop.ran() == ["RUN touch /x"]
    assert second.image_id == first.image_id


def test_a_lost_database_only_costs_time(shop: Workshop) -> None:
    dockerfile = "FROM base\nRUN touch /x\n"
    first = shop.build(dockerfile, clock=1)
    for name in os.listdir(shop.root):
        if name.startswith("state.db"):
            os.unlink(os.path.join(shop.root, name))
    assert shop.build(dockerfile, clock=1).image_id == first.image_id


def test_lost_snapshots_are_unpacked_again(shop: Workshop) -> None:
    shop.write("a", "1")
    shop.build("FROM base\nCOPY a /d/\nRUN touch /x\n")
    subprocess.run(["rm", "-r", os.path.join(shop.root, "snapshots")], check=True)
    os.mkdir(os.path.join(shop.root, "snapshots"), 0o700)
    shop.build("FROM base\nCOPY a /d/\nRUN touch /x\nRUN cat /d/a && ls /x\n")
    assert shop.ran() == ["RUN cat /d/a && ls /x"]
    assert shop.output() == "1/x\n"


def test_many_builds_in_one_store_at_once(shop: Workshop) -> None:
    """SECURITY.md R06."""
    shop.write("a", "1")
    shop.write("Dockerfile", "FROM base\nCOPY a /\nRUN cat /a > /b\nRUN cat /b > /c\n")
    request = BuildRequest(context=str(shop.context), root=shop.root, network="none", clock=7)
    found: list[object] = []

    def one() -> None:
        try:
            found.append(build(request).image_id)
        except BaseException as error:
            found.append(error)

    threads = [threading.Thread(target=one) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(map(str, found))) == 1 and not isinstance(found[0], BaseException), found


def test_many_builds_leak_nothing(shop: Workshop) -> None:
    dockerfile = "FROM base\nRUN echo {} > /x\n"
    shop.build(dockerfile.format(0))
    before = held()
    for number in range(1, 20):
        shop.build(dockerfile.format(number))
    no_more_than(before)


def test_several_outputs_and_names(shop: Workshop, tmp_path: Path) -> None:
    outputs = tuple(
        OutputSpec.parse(text.format(tmp_path))
        for text in (
            "type=oci,dest={}/o.tar",
            "type=docker,dest={}/d.tar,compression=uncompressed",
            "type=oci,dest={}/z.tar,compression=zstd,force-compression=true",
            "type=oci,dest={}/layout,tar=false",
            "type=local,dest={}/files",
            "type=tar,dest={}/r.tar",
        )
    )
    built = shop.build("FROM base\nRUN echo hi > /hi\n", outputs=outputs, tags=("x", "y:2"))
    assert built.names == ("docker.io/library/x:latest", "docker.io/library/y:2")
    assert (tmp_path / "files/hi").read_text() == "hi\n"
    with tarfile.open(tmp_path / "d.tar") as tar:
        assert {"manifest.json", "index.json", "oci-layout"} <= set(tar.getnames())
    assert (tmp_path / "layout/index.json").exists()
    with StateDir(shop.root) as state:
        assert Images(state).resolve("x").id == Images(state).resolve("y:2").id == built.image_id


def test_a_failing_output_leaves_no_name(shop: Workshop, tmp_path: Path) -> None:
    (tmp_path / "full").symlink_to("/dev/full")
    with pytest.raises(BuildError, match=r"could not be written|No space left"):
        shop.build("FROM base\n", outputs=(OutputSpec("oci", str(tmp_path / "full")),), tags=("x",))
    with StateDir(shop.root) as state, pytest.raises(NotFound):
        Images(state).resolve("x")


def test_cacheonly_stores_no_image(shop: Workshop) -> None:
    built = shop.build("FROM base\nRUN touch /x\n", outputs=(OutputSpec("cacheonly"),))
    assert built.image_id is None
    with StateDir(shop.root) as state:
        assert len(Images(state).entries()) == 1
    shop.build("FROM base\nRUN touch /x\n")
    assert shop.ran() == []


def test_a_platform_asked_for_is_in_the_config(shop: Workshop) -> None:
    shop.write("a", "1")
    image = shop.image(shop.build("FROM scratch\nCOPY a /\n", platforms=("linux/arm64",)))
    assert image.platform == Platform("linux", "arm64")


def test_a_named_layout_is_a_base(shop: Workshop, tmp_path: Path) -> None:
    shop.build(
        "FROM base\nRUN echo inside > /in\n", outputs=(OutputSpec("oci", f"{tmp_path}/l", {"tar": "false"}),)
    )
    contexts = {"other": f"oci-layout://{tmp_path}/l"}
    shop.build("FROM base\nCOPY --from=other /in /\nRUN cat /in\n", contexts=contexts)
    assert shop.output() == "inside\n"
    with pytest.raises(BuildError, match="other"):
        shop.build("FROM other\n", contexts={"other": f"oci-layout://{tmp_path}/nothing"})


def test_a_dockerfile_error_stops_before_anything(shop: Workshop) -> None:
    with pytest.raises(DockerfileError):
        shop.build("FROM base\nRUN touch /x\nCOPPY a b\n")
    assert shop.ran() == []


def test_more_than_a_hundred_layers(shop: Workshop) -> None:
    """SECURITY.md R20."""
    lines = "".join(f"RUN echo {number} > /f{number}\n" for number in range(130))
    shop.build(f"FROM base\n{lines}RUN cat /f0 /f129\n")
    assert shop.output() == "0\n129\n"
