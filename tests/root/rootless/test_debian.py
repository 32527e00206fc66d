"""What Dockerfiles do to a Debian, done by ordinary users: packages with system users, owners, file
capabilities, setuid programs (S101, S103).
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tarfile
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from rootless import golden
from rootless.test_golden import as_root

pytestmark = [pytest.mark.root, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[3]
DOCKERFILE = """\
FROM debian
RUN apt-get update && apt-get install -y --no-install-recommends libcap2-bin sudo uuid-runtime iputils-ping
RUN useradd -m -u 1234 -G sudo app && chown -R app:app /srv
RUN echo 'app ALL=(ALL) NOPASSWD:ALL' > /etc/sudoers.d/app
COPY owners.tar /tmp/
RUN mkdir /un && tar -xpf /tmp/owners.tar -C /un
RUN install -o daemon -g games -m 640 /etc/hostname /un/installed
RUN cp /bin/sleep /bin/capable && setcap cap_net_raw+ep /bin/capable
USER app
RUN sudo -n install -o app -g app -m 600 /etc/hostname /home/app/mine
RUN id -u > /tmp/seen && sudo -n id -u >> /tmp/seen
RUN --network=none getcap /bin/ping | grep cap_net_raw && ping -c 1 127.0.0.1
"""
OWNERS = {
    "srv": (1234, 1234, 0o755),
    "home/app": (1234, 1234, 0o755),
    "home/app/mine": (1234, 1234, 0o600),
    "un/file": (42, 43, 0o755),
    "un/link": (42, 43, 0o777),
    "un/installed": (1, 60, 0o640),
    "usr/bin/sudo": (0, 0, 0o4755),
}


@pytest.fixture(scope="module")
def debian(_place: Path) -> Path:
    """A context, and beside it a minimal Debian as a tar."""
    if shutil.which("mmdebstrap") is None:
        pytest.skip("mmdebstrap is not installed")
    made = subprocess.run([ROOT / "scripts/make-debian-base"], capture_output=True, text=True, check=True)
    folder = _place / "debian"
    golden.lay(folder)
    shutil.copy(made.stdout.strip(), folder / "base.tar")
    (folder / "context" / "Dockerfile").write_text(DOCKERFILE)
    (folder / "base.tar").chmod(0o644)
    return folder


@pytest.mark.parametrize(
    ("who", "storage", "seen"),
    [
        ("lent", "overlay", "1234\n0\n"),
        ("bare", "overlay", "0\n0\n"),
        pytest.param("root", "overlay", "1234\n0\n", marks=pytest.mark.corpus),
        pytest.param("lent", "fuse", "1234\n0\n", marks=pytest.mark.corpus),
        pytest.param("lent", "copy", "1234\n0\n", marks=pytest.mark.corpus),
    ],
)
def test_a_debian(request: pytest.FixtureRequest, debian: Path, who: str, storage: str, seen: str) -> None:
    """S103. With one id a program that asks who it is hears root; layers have the intended owners."""
    if who == "root":
        home = debian
        run: Any = partial(as_root, home / "store")
    else:
        user: Any = request.getfixturevalue(who)
        home = user.home
        begin = user.with_fuse if storage == "fuse" else user.pybuild
        run = partial(begin, "--root", str(home / f"debian-{storage}"), PYBUILD_SNAPSHOTTER=storage)
    assert run("import", str(debian / "base.tar"), "debian").returncode == 0
    done = run("build", "--network=host", "-t", "done", str(debian / "context"))
    assert done.returncode == 0, done.stderr[-3000:]
    assert run("save", "-o", str(home / "done.tar"), "done").returncode == 0
    files, contents = {}, {}
    for layer in layers(home / "done.tar"):
        for info in layer:
            files[info.name] = info
            if info.name == "tmp/seen":
                contents[info.name] = layer.extractfile(info).read().decode()
    found = {name: (files[name].uid, files[name].gid, files[name].mode) for name in OWNERS}
    assert found == OWNERS
    assert contents["tmp/seen"] == seen
    capability = files["usr/bin/capable"].pax_headers["SCHILY.xattr.security.capability"]
    assert len(capability) == 20  # version 2; in a user namespace the kernel keeps version 3, with 24 bytes
    assert {"etc/passwd", "usr/sbin/uuidd"} <= set(files)


def layers(archive: Path) -> list[Any]:
    """The layers above the base, as open archives."""
    with tarfile.open(archive) as outer:
        manifest = json.load(outer.extractfile("manifest.json"))[0]  # type: ignore[arg-type]
        return [
            tarfile.open(fileobj=BytesIO(outer.extractfile(name).read()))  # type: ignore[union-attr]
            for name in manifest["Layers"][1:]
        ]
