"""`--isolation=chroot`: root as Docker starts it, whose filter of system calls refuses every namespace."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from naps import nap, sleeping
from rootless import golden
from rootless.conftest import FILTER

pytestmark = pytest.mark.root

ROOT = Path(__file__).parents[3]
SETS = ["files", "owners", "seen"]
_KEPT = (
    "chown dac_override fsetid fowner mknod net_raw setgid setuid setfcap setpcap net_bind_service "
    "sys_chroot kill audit_write"
)
Run = Callable[..., "subprocess.CompletedProcess[str]"]


def runner(store: Path, *, contained: bool) -> Run:
    """pybuild with a store; `contained` with the capabilities and the filter of a container."""

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        code = f"import sys\nsys.argv = ['pybuild', '--root', {str(store)!r}, *{words!r}]\n"
        code = f"{FILTER if contained else ''}{code}from builder.cli import main\nmain.main()\n"
        kept = ",".join(f"+{each}" for each in _KEPT.split())
        drop = ["setpriv", f"--bounding-set=-all,{kept}", "--inh-caps=-all"] if contained else []
        return subprocess.run(
            [*drop, sys.executable, "-c", code],
            env=os.environ | {"PYTHONPATH": str(ROOT), "BUILDKIT_PROGRESS": "plain"},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return run


@pytest.fixture(scope="module")
def folder(_place: Path) -> Path:
    folder = _place / "chroot"
    golden.lay(folder)
    return folder


@pytest.fixture(scope="module")
def contained(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = runner(tmp_path_factory.mktemp("contained") / "store", contained=True)
    assert run("import", str(folder / "base.tar"), "golden").returncode == 0
    return run


def build(run: Run, folder: Path, text: str, *options: str) -> subprocess.CompletedProcess[str]:
    file = folder / "Dockerfile"
    file.write_text(text)
    return run("build", "--isolation=chroot", "-f", str(file), *options, str(folder / "context"))


@pytest.mark.parametrize("name", SETS)
def test_the_same_layers(contained: Run, folder: Path, name: str, tmp_path: Path) -> None:
    """SECURITY.md S104."""
    plain = runner(tmp_path / "store", contained=False)
    assert plain("import", str(folder / "base.tar"), "golden").returncode == 0
    made = []
    for run, option in ((plain, "--network=none"), (contained, "--isolation=chroot")):
        file = str(folder / "context" / f"{name}.Dockerfile")
        words = (option, f"--timestamp={golden.CLOCK}", "-t", name, "-f", file, str(folder / "context"))
        done = run("build", *words)
        assert done.returncode == 0, done.stderr
        made.append(json.loads(run("inspect", name).stdout)[0]["RootFS"]["Layers"])
    assert made[0] == made[1]


def test_the_warning_comes_once_and_strict_refuses(contained: Run, folder: Path) -> None:
    done = build(contained, folder, "FROM golden\nRUN true\nRUN echo two\n", "--no-cache")
    assert done.returncode == 0 and done.stderr.count("steps run as root in a changed root directory") == 1
    words = ("--no-cache", "-f", str(folder / "Dockerfile"), str(folder / "context"))
    refused = contained("build", "--isolation=strict", *words)
    assert refused.returncode == 1 and "programs cannot be run" in refused.stderr


def test_what_it_cannot_have(contained: Run, folder: Path) -> None:
    for line, said in (
        ("RUN --mount=type=cache,target=/c true", "RUN --mount for /c needs namespaces"),
        ("RUN --network=none true", "cannot keep a step from the network"),
        ("RUN busybox chroot / true", "RUN exited with"),
        ("RUN busybox mknod /disk b 8 0", "RUN exited with"),
        ("RUN busybox kill -0 $PPID", "RUN exited with"),
        ("RUN busybox ls /proc/1", "RUN exited with"),
    ):
        done = build(contained, folder, f"FROM golden\n{line}\n")
        assert done.returncode == 1 and said in done.stderr, done.stderr


def test_what_is_lent_to_a_step_is_in_no_layer(contained: Run, folder: Path, tmp_path: Path) -> None:
    """Files and devices are there while it runs; the image's own come back, unchanged."""
    secret = tmp_path / "secret"
    secret.write_text("hush")
    text = """FROM golden
COPY a /etc/hosts
RUN ln -sf ../tmp/elsewhere /etc/resolv.conf
RUN --mount=type=secret,id=s,target=/run/s cat /run/s /etc/hosts /etc/resolv.conf > /seen
RUN echo x > /dev/null
"""
    done = build(contained, folder, text, "--secret", f"id=s,src={secret}", "-t", "lent", "--no-cache")
    assert done.returncode == 0, done.stderr
    assert contained("export", "-o", str(tmp_path / "lent.tar"), "lent").returncode == 0
    with tarfile.open(tmp_path / "lent.tar") as tar:
        files = {info.name.rstrip("/"): info for info in tar}
        seen, hosts = (tar.extractfile(files[name]).read() for name in ("seen", "etc/hosts"))
    assert not {"run", "run/s", "dev", "dev/null", "tmp/elsewhere"} & set(files)
    assert b"hush" in seen and b"localhost" in seen and hosts == b"a"
    assert os.uname().nodename.encode() in seen, "the name that a program finds out can be looked up"
    assert files["etc/resolv.conf"].issym()
    layers = json.loads(contained("inspect", "lent").stdout)[0]["RootFS"]["Layers"]
    assert len(layers) == 4  # the base, COPY, the link, /seen: the last RUN changed nothing


def test_s40_files_of_the_builder_are_out_of_sight(contained: Run, folder: Path) -> None:
    """By name, and by the descriptors that a step has; S12 holds as well."""
    store = re.escape(str(folder))
    text = f"""FROM golden
RUN busybox ls {folder} && exit 3; busybox ls ../../../../../..{folder} && exit 4; \\
  busybox cat {folder}/Dockerfile && exit 5; busybox test ! -e /proc/self
"""
    done = build(contained, folder, text, "--no-cache")
    assert done.returncode == 0, done.stderr
    assert re.search(f"{store}: No such file", done.stderr)


def test_programs_can_count_the_processors(contained: Run, folder: Path, tmp_path: Path) -> None:
    """From what npm 9 counts, which would otherwise run none of the scripts of packages, and never end."""
    text = """FROM golden
RUN busybox grep -c '^cpu[0-9]' /proc/stat > /count; busybox grep -c ^processor /proc/cpuinfo >> /count; \\
  busybox grep MemTotal /proc/meminfo && ! busybox grep intr /proc/stat && \\
  test "$(busybox ls /proc | busybox wc -l)" = 3
RUN echo x > /proc/stat; true
"""
    done = build(contained, folder, text, "-t", "counted", "--no-cache")
    assert done.returncode == 0, done.stderr
    assert contained("export", "-o", str(tmp_path / "counted.tar"), "counted").returncode == 0
    with tarfile.open(tmp_path / "counted.tar") as tar:
        assert tar.extractfile("count").read().split() == [b"%d" % os.cpu_count()] * 2
        assert not [name for name in tar.getnames() if name.startswith("proc")]


def test_nothing_runs_on(contained: Run, folder: Path) -> None:
    moment = nap()
    text = f"FROM golden\nRUN (busybox setsid busybox sleep {moment} &) && true\n"
    done = build(contained, folder, text, "--no-cache")
    assert done.returncode == 0, done.stderr
    assert not sleeping(moment)
