"""`pybuild cp`: files into containers and out of them, whatever the container does meanwhile (S92, G10)."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from fleet import ENVIRONMENT, Fleet, wait_for

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def _fleet(tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    return Fleet(tmp_path_factory.mktemp("cp"))


@pytest.fixture
def fleet(_fleet: Fleet) -> Iterator[Fleet]:
    yield _fleet
    _fleet.clear()


def archive(fleet: Fleet, path: str, *options: str) -> dict[str, tarfile.TarInfo]:
    """What `cp PATH -` gives, by name."""
    done = subprocess.run(
        [*fleet.command, "cp", *options, path, "-"], env=ENVIRONMENT, capture_output=True, timeout=90
    )
    assert done.returncode == 0, done.stderr
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as found:
        return {each.name: each for each in found}


def tree(place: Path) -> Path:
    """A directory with files of many kinds and owners."""
    top = place / "tree"
    (top / "inner").mkdir(parents=True)
    (top / "file").write_text("content\n")
    (top / "set").write_text("s")
    (top / "inner" / "other").write_bytes(b"x" * 3_000_000)
    os.link(top / "file", top / "inner" / "hard")
    (top / "link").symlink_to("/etc/hosts")
    os.mkfifo(top / "pipe")
    os.setxattr(top / "file", "user.note", b"kept")
    os.chown(top / "file", 1000, 1001)
    os.chown(top / "set", 7, 7)
    os.chmod(top / "set", 0o4755)
    os.chmod(top / "inner", 0o2750)
    os.utime(top / "inner" / "other", (1_000_000, 1_000_000))
    return top


@pytest.mark.parametrize("how", ["created", "running", "paused", "exited"])
def test_there_and_back(fleet: Fleet, how: str, tmp_path: Path) -> None:
    top = tree(tmp_path)
    fleet("create", "--name", "box", "--network=none", "-v", f"{how}:/vol", "bb", "sleep", "1000")
    if how != "created":
        fleet("start", "box")
    if how == "paused":
        fleet("pause", "box")
    if how == "exited":
        fleet("stop", "-t", "0", "box")
    for place in ("/new", "/vol/new"):
        fleet("cp", str(top), f"box:{place}")
        back = tmp_path / f"back{place.replace('/', '-')}"
        fleet("cp", f"box:{place}", str(back))
        assert (back / "file").read_text() == "content\n"
        assert os.path.samefile(back / "file", back / "inner" / "hard")
        assert os.readlink(back / "link") == "/etc/hosts"
        assert (back / "inner" / "other").stat().st_size == 3_000_000
        assert (back / "inner" / "other").stat().st_mtime == 1_000_000
        assert (back / "inner").stat().st_mode & 0o7777 == 0o2750
        assert os.getxattr(back / "file", "user.note") == b"kept"
        found = archive(fleet, f"box:{place}")
        assert found["new/pipe"].isfifo() and found["new/set"].mode == 0o4755
        assert {(each.uid, each.gid) for each in found.values()} == {(0, 0)}
        fleet("cp", "-a", str(top), f"box:{place}/again")
        kept = archive(fleet, f"box:{place}/again")
        assert (kept["again/file"].uid, kept["again/file"].gid) == (1000, 1001)
    assert fleet.state("box").status == how
    if how == "paused":
        fleet("unpause", "box")
    if how in ("created", "exited"):
        fleet("start", "box")
    assert fleet("exec", "box", "cat", "/new/file", "/vol/new/file") == "content\ncontent"
    fleet("stop", "-t", "0", "box")
    assert "new/inner/hard" in archive(fleet, "box:/new")


def test_out_of_it_nothing_becomes_privileged(fleet: Fleet, tmp_path: Path) -> None:
    """S92: a program's setuid file, its capabilities and its devices are not root's of the host."""
    fleet("create", "--name", "box", "bb", "true")
    top = tree(tmp_path)
    os.setxattr(top / "set", "security.capability", bytes.fromhex("0100000200200000000000000000000000000000"))
    fleet("cp", str(top), "box:/")
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as out:
        node = tarfile.TarInfo("null")
        node.type, node.devmajor, node.devminor, node.mode = tarfile.CHRTYPE, 1, 3, 0o666
        out.addfile(node)
    subprocess.run(
        [*fleet.command, "cp", "-", "box:/tree"],
        env=ENVIRONMENT,
        input=data.getvalue(),
        check=True,
        timeout=90,
    )
    assert archive(fleet, "box:/tree")["tree/null"].ischr()
    done = fleet.ran("cp", "box:/tree", str(tmp_path / "out"))
    assert done.returncode == 0 and "/out/null is a device: left out" in done.stderr
    info = (tmp_path / "out" / "set").stat()
    assert info.st_mode & 0o7777 == 0o755 and (info.st_uid, info.st_gid) == (0, 0)
    assert os.listxattr(tmp_path / "out" / "set") == []
    assert not os.path.lexists(tmp_path / "out" / "null")
    fleet("cp", "-a", "box:/tree/set", str(tmp_path / "kept"))
    assert (tmp_path / "kept").stat().st_mode & 0o7777 == 0o4755  # that was asked for


def test_standard_streams(fleet: Fleet, tmp_path: Path) -> None:
    fleet.begin("--name", "box", "bb", "sleep", "1000")
    top = tree(tmp_path)
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as out:
        out.add(top, "tree")
    for options, owner in (((), 0), (("-a",), 1000)):
        done = subprocess.run(
            [*fleet.command, "cp", *options, "-", "box:/bin"],
            env=ENVIRONMENT, input=data.getvalue(), capture_output=True, timeout=90,
        )  # fmt: skip
        assert done.returncode == 0 and done.stdout == done.stderr == b""
        assert archive(fleet, "box:/bin/tree")["tree/file"].uid == owner
    assert [*archive(fleet, "box:/bin/tree/link")] == ["link"]
    assert archive(fleet, "box:/bin/tree/link", "-L")["link"].isreg()
    done = fleet.ran("cp", "-", "box:/bin/tree/file", stdin="x" * 512)
    assert done.returncode == 2 and "not a directory" in done.stderr
    hostile = io.BytesIO()
    with tarfile.open(fileobj=hostile, mode="w") as out:
        out.addfile(tarfile.TarInfo("../../../../../escaped"))
    done = subprocess.run(
        [*fleet.command, "cp", "-", "box:/bin"],
        env=ENVIRONMENT,
        input=hostile.getvalue(),
        capture_output=True,
    )
    assert done.returncode and b"Traceback" not in done.stderr


def test_read_only(fleet: Fleet, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "shared").mkdir()
    words = ("--read-only", "-v", f"{tmp_path}/shared:/ro:ro", "-v", "free:/free", "bb", "sleep", "1000")
    fleet("create", "--name", "box", "--network=none", *words)
    for _ in ("created", "running"):
        for place in ("/", "/ro"):
            done = fleet.ran("cp", str(tmp_path / "file"), f"box:{place}")
            assert done.returncode == 2 and "read-only" in done.stderr
        fleet("cp", str(tmp_path / "file"), "box:/free")
        fleet("start", "box")
    assert os.listdir(tmp_path / "shared") == []


def test_wrong_words(fleet: Fleet, tmp_path: Path) -> None:
    fleet("create", "--name", "box", "bb", "true")
    here = tmp_path / "here"
    here.write_text("x")
    for words, code, text in (
        (("nobody:/x", "y"), 1, "no container 'nobody'"),
        (("box:/missing", "y"), 1, "no such path"),
        ((str(tmp_path / "missing"), "box:/"), 1, "no such file"),
        ((str(here), "box:/missing/x"), 1, "no such path"),
        ((str(here), "box:/missing/"), 2, "does not exist"),
        ((str(tmp_path), "box:/bin/busybox"), 2, "not a directory"),
        (("box:/bin", "box:/x"), 2, "from container to container"),
        (("a", "b"), 2, "no container is named"),
        (("box:", "b"), 2, "a path is missing"),
        (("box:/proc/version", "b"), 2, "is the kernel's"),
        ((str(here), "box:/sys/x"), 2, "is the kernel's"),
    ):
        done = fleet.ran("cp", *words)
        assert (done.returncode, done.stdout) == (code, ""), (words, done)
        assert text in done.stderr and "Traceback" not in done.stderr, (words, done.stderr)


def test_links_never_lead_out_of_it(fleet: Fleet, tmp_path: Path) -> None:
    """CVE-2018-15664 as it stands (S92): a link in the container to a place of the host."""
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "file").write_text("the host's")
    script = f"ln -s {secret} /evil; ln -s ../../../../../../..{secret} /up; echo ready; exec sleep 1000"
    fleet.begin("--name", "box", "bb", "sh", "-c", script)
    wait_for(lambda: b"ready" in fleet.printed("box"))
    (tmp_path / "mine").write_text("mine")
    for again in (False, True):
        for link in ("evil", "up"):
            for path in (f"box:/{link}/file", f"box:/{link}/"):
                done = fleet.ran("cp", path, str(tmp_path / "stolen"))
                assert done.returncode == 1 and "no such path" in done.stderr
            done = fleet.ran("cp", "-L", f"box:/{link}", str(tmp_path / "stolen"))
            assert done.returncode == 1
            done = fleet.ran("cp", str(tmp_path / "mine"), f"box:/{link}/file")
            assert done.returncode == 1
        if not again:
            fleet("stop", "-t", "0", "box")
    assert not os.path.lexists(tmp_path / "stolen")
    assert (secret / "file").read_text() == "the host's" and os.listdir(secret) == ["file"]


RACE = "mkdir -p /a/place; echo mine > /a/place/file; ln -s {secret} /a/evil; echo ready; exec sleep 1000"
RACER = """
import os, signal, sys
from builder.container import copying
from builder.container.copying import Side
from builder.errors import BuildError
from oci.errors import OciError
from builder.cli.containing import shown
from builder.cli.session import Session
store, here = sys.argv[1:]
slash = os.open("/", os.O_RDONLY)
side = lambda path: Side(slash, os.fsencode(path), path, False)
tried = {"out": 0, "in": 0}
with Session(root=store) as session, shown(session, "racer", write=True) as (root, alive):
    inside = lambda path: Side(root, path, os.fsdecode(path), True)
    swapper = os.fork()
    if swapper == 0:  # what a program in there could do, as quickly as can be
        os.chdir(f"/proc/self/fd/{root}/a")
        while True:
            for before, after in (("place", "s"), ("evil", "place"), ("place", "evil"), ("s", "place")):
                try:
                    os.rename(before, after)
                except OSError:
                    pass
    for turn in range(400):
        for name, source, target in (
            ("out", inside(b"/a/place/file"), side(f"{here}/got/{turn}")),
            ("out", inside(b"/a"), side(f"{here}/got/all{turn}")),
            ("in", side(f"{here}/mine"), inside(b"/a/place/file")),
            ("in", side(f"{here}/tree"), inside(b"/a")),
        ):
            try:
                copying.copy(source, target, alive)
                tried[name] += 1
            except (BuildError, OciError, OSError):
                pass
    os.kill(swapper, signal.SIGKILL)
print(tried["out"], tried["in"])
"""


def test_s92_a_container_that_exchanges_directories_and_links(fleet: Fleet, tmp_path: Path) -> None:
    """CVE-2018-15664 as a race, both ways: the host's files are neither read nor written."""
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "file").write_text("the host's")
    (tmp_path / "got").mkdir()
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "tree" / "place" / "deep").mkdir(parents=True)
    (tmp_path / "tree" / "place" / "file").write_text("mine")
    fleet.begin("--name", "racer", "bb", "sh", "-c", RACE.format(secret=secret))
    wait_for(lambda: b"ready" in fleet.printed("racer"))
    done = subprocess.run(
        [fleet.command[0], "-c", RACER, fleet.root, str(tmp_path)],
        env=ENVIRONMENT, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert all(map(int, done.stdout.split())), "nothing was ever copied"
    assert (secret / "file").read_text() == "the host's" and os.listdir(secret) == ["file"]
    for folder, _, names in os.walk(tmp_path / "got"):
        for name in names:
            path = Path(folder, name)
            assert path.is_symlink() or path.read_text().strip() == "mine"


def test_s92_nothing_of_the_container_is_executed(fleet: Fleet, tmp_path: Path) -> None:
    """CVE-2019-14271: the libraries of the container are not loaded by who copies."""
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "file").write_text("x")
    script = (
        "mkdir -p /lib /lib64 /etc; for name in libnss_files.so.2 libc.so.6 ld-linux-x86-64.so.2; do"
        " echo evil > /lib/$name; cp /lib/$name /lib64 2>/dev/null; done; echo ready; exec sleep 1000"
    )
    fleet.begin("--name", "box", "bb", "sh", "-c", script)
    wait_for(lambda: b"ready" in fleet.printed("box"))
    fleet("cp", str(tmp_path / "tree"), "box:/")
    before = fleet("exec", "box", "ps")
    fleet("cp", "box:/tree", str(tmp_path / "back"))
    assert (tmp_path / "back" / "file").read_text() == "x"
    assert fleet("exec", "box", "ps").count("\n") == before.count("\n")


def test_its_root_is_that_of_its_mounts(fleet: Fleet, tmp_path: Path) -> None:
    """A program that has changed its own root directory does not change what paths mean."""
    script = """
    mkdir -p /jail/bin; /bin/busybox cp /bin/busybox /jail/bin/; echo out > /who; echo in > /jail/who
    echo ready; exec /bin/busybox chroot /jail /bin/busybox sleep 1000
    """
    fleet.begin("--name", "box", "bb", "sh", "-c", script)
    wait_for(lambda: b"ready" in fleet.printed("box"))
    fleet("cp", "box:/who", str(tmp_path / "who"))
    assert (tmp_path / "who").read_text() == "out\n"


def test_it_ends_meanwhile(fleet: Fleet, tmp_path: Path) -> None:
    """Who copies is told, however long that takes him to hear."""
    fleet.begin("--name", "box", "bb", "sleep", "1000")
    reading, writing = os.pipe()
    copying = subprocess.Popen(
        [*fleet.command, "cp", "-", "box:/bin"],
        env=ENVIRONMENT,
        stdin=reading,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(reading)
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as out:
        for number in range(3000):
            out.addfile(tarfile.TarInfo(f"file{number}"))
    with suppress(BrokenPipeError), os.fdopen(writing, "wb", buffering=0) as pipe:
        pipe.write(data.getvalue()[: 1 << 20])
        wait_for(lambda: fleet("exec", "box", "ls", "/bin/").count("file"))
        fleet("kill", "box")
        wait_for(lambda: fleet.state("box").status == "exited")  # its monitor does not wait for ever
        pipe.write(data.getvalue()[1 << 20 :])
    errors = copying.communicate(timeout=60)[1]
    assert copying.returncode == 1 and "ended while its files were being copied" in errors


def test_two_at_once_on_one_that_does_not_run(fleet: Fleet, tmp_path: Path) -> None:
    """The second waits; nobody starts it meanwhile."""
    fleet("create", "--name", "box", "--network=none", "bb", "sleep", "1000")
    reading, writing = os.pipe()
    first = subprocess.Popen([*fleet.command, "cp", "-", "box:/bin"], env=ENVIRONMENT, stdin=reading)
    os.close(reading)
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as out:
        out.addfile(tarfile.TarInfo("first"))
    (tmp_path / "second").write_text("x")
    try:
        wait_for(lambda: fleet.containers.is_watched(fleet.containers.find("box")))
        done = fleet.ran("start", "box")
        assert done.returncode and "is in use" in done.stderr
        second = subprocess.Popen(
            [*fleet.command, "cp", str(tmp_path / "second"), "box:/bin"], env=ENVIRONMENT
        )
        os.write(writing, data.getvalue())
    finally:
        os.close(writing)
    assert first.wait(60) == second.wait(60) == 0
    assert {"bin/first", "bin/second"} <= archive(fleet, "box:/bin").keys()


def test_where_no_overlay_can_be_mounted(fleet: Fleet, tmp_path: Path) -> None:
    """Each writing copy is a life of its own there, as each start is."""
    top = tree(tmp_path)
    environment = {**ENVIRONMENT, "PYBUILD_SNAPSHOTTER": "copy"}

    def typed(*words: str) -> str:
        done = subprocess.run([*fleet.command, *words], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, (words, done.stderr)
        return done.stdout

    typed("create", "--name", "box", "--network=none", "-v", "plain:/vol", "bb", "sleep", "1000")
    typed("cp", str(top), "box:/one")
    typed("cp", str(top), "box:/vol/one")
    typed("start", "box")
    typed("cp", str(top), "box:/two")
    typed("stop", "-t", "0", "box")
    typed("cp", str(top), "box:/one/three")
    for place in ("one", "two", "one/three", "vol/one"):
        back = tmp_path / place.replace("/", "-")
        typed("cp", f"box:/{place}", str(back))
        assert (back / "file").read_text() == "content\n" and (back / "inner" / "hard").exists()
    assert "A /one/three" in typed("diff", "box").split("\n")
