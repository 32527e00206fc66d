"""`npm ci`, `pip install` and `git clone` on every rung, from servers that a step reaches through its own
network only (S101, S103).

The servers stand in a network namespace behind that of the "host" (`test_network.Host`), where the builds
run.
"""

from __future__ import annotations

import base64
import hashlib
import http.server
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from rootless.conftest import Ordinary, device_for_all, fuse_for_all
from rootless.test_debian import layers
from test_network import Host, inside

pytestmark = [pytest.mark.root, pytest.mark.corpus, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[3]
SERVER = "http://198.51.100.1:8080"
BASE = """\
FROM debian
RUN apt-get update -q && apt-get install -qy --no-install-recommends nodejs npm python3-pip git \\
 && rm -rf /var/lib/apt/lists/* /var/cache/apt /usr/share/doc /usr/share/man /usr/share/locale \\
 && useradd -m -u 1234 app
"""
DOCKERFILE = f"""\
FROM tools
ENV PIP_NO_CACHE_DIR=1 PIP_BREAK_SYSTEM_PACKAGES=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
ENV PIP_INDEX_URL={SERVER}/simple PIP_TRUSTED_HOST=198.51.100.1
COPY sdist /sdist
WORKDIR /srv/site
COPY package.json package-lock.json ./
RUN pip install demo && pip install --no-build-isolation /sdist \\
 && npm ci --no-audit --no-fund \\
 && git clone {SERVER}/repository.git /srv/clone
USER app
WORKDIR /home/app/site
COPY --chown=app:app package.json package-lock.json ./
RUN npm ci --no-audit --no-fund && node -e 'console.log(require("demo"))' > /home/app/node \\
 && pip install --user --force-reinstall demo && /home/app/.local/bin/demo > /home/app/python \\
 && git clone {SERVER}/repository.git /home/app/clone && cat /home/app/clone/file > /home/app/git \\
 && demo > /home/app/both && sdist >> /home/app/both && cat /srv/site/node_modules/demo/made >> /home/app/both
"""
SEEN = {
    "home/app/node": "demo of npm\n",
    "home/app/python": "demo of pip\n",
    "home/app/git": "cloned\n",
    "home/app/both": "demo of pip\nfrom source\nmade by its script\n",
}
OWNERS = {
    "srv/site/node_modules/demo/index.js": (0, 0),
    "srv/clone/.git/HEAD": (0, 0),
    "home/app/site/node_modules/demo/index.js": (1234, 1234),
    "home/app/site/node_modules/demo/made": (1234, 1234),
    "home/app/clone/file": (1234, 1234),
    "home/app/.local/bin/demo": (1234, 1234),
}


def npm_package() -> bytes:
    """A package with a script that is run when it is installed."""
    document = {
        "name": "demo",
        "version": "1.0.0",
        "scripts": {"install": "node -e 'require(`fs`).writeFileSync(`made`, `made by its script\\n`)'"},
    }
    return tar_gz(
        {"package/package.json": json.dumps(document), "package/index.js": 'module.exports = "demo of npm"\n'}
    )


def tar_gz(files: dict[str, str]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text.encode()))
    return out.getvalue()


def wheel(path: Path) -> None:
    info = "demo-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("demo.py", "def main():\n    print('demo of pip')\n")
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: demo\nVersion: 1.0\n")
        tags = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        archive.writestr(f"{info}/WHEEL", tags)
        archive.writestr(f"{info}/entry_points.txt", "[console_scripts]\ndemo = demo:main\n")
        archive.writestr(f"{info}/RECORD", "")


def repository(served: Path, work: Path) -> None:
    """A repository as files, for git's protocol without a program at the server's end."""
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "init.defaultBranch=main"]
    run = partial(subprocess.run, check=True, capture_output=True)
    run([*git, "init", work])
    (work / "file").write_text("cloned\n")
    run([*git, "-C", work, "add", "file"])
    run([*git, "-C", work, "commit", "-m", "one"])
    run([*git, "clone", "--bare", work, served])
    run([*git, "-C", served, "update-server-info"])


def lay(folder: Path) -> None:
    """What is served, in `served`, and a build's context, in `context`."""
    served, context = folder / "served", folder / "context"
    (served / "simple" / "demo").mkdir(parents=True)
    name = "demo-1.0-py3-none-any.whl"
    wheel(served / "simple" / "demo" / name)
    (served / "simple" / "demo" / "index.html").write_text(f'<a href="{name}">{name}</a>')
    package = npm_package()
    (served / "demo.tgz").write_bytes(package)
    repository(served / "repository.git", folder / "work")
    (context / "sdist").mkdir(parents=True)
    setup = "import setuptools\nsetuptools.setup(name='sdist', version='1', py_modules=['source'],\n"
    setup += "    entry_points={'console_scripts': ['sdist = source:main']})\n"
    (context / "sdist" / "setup.py").write_text(setup)
    (context / "sdist" / "source.py").write_text("def main():\n    print('from source')\n")
    top = {"name": "site", "version": "1.0.0", "dependencies": {"demo": "1.0.0"}}
    integrity = "sha512-" + base64.b64encode(hashlib.sha512(package).digest()).decode()
    locked = {
        "version": "1.0.0",
        "resolved": f"{SERVER}/demo.tgz",
        "integrity": integrity,
        "hasInstallScript": True,
    }
    lock = {
        "name": "site",
        "version": "1.0.0",
        "lockfileVersion": 3,
        "requires": True,
        "packages": {"": top, "node_modules/demo": locked},
    }
    (context / "package.json").write_text(json.dumps(top))
    (context / "package-lock.json").write_text(json.dumps(lock))
    (context / "Dockerfile").write_text(DOCKERFILE)
    for path in (folder, *context.rglob("*"), context):
        path.chmod(0o755 if path.is_dir() else 0o644)


def as_root(store: Path, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "builder.cli.main", "--root", str(store), *words]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "BUILDKIT_PROGRESS": "plain"} | more
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture(scope="module")
def tools(_place: Path) -> Path:
    """A Debian with the tools, as an archive: made once, kept in .cache."""
    if shutil.which("mmdebstrap") is None:
        pytest.skip("mmdebstrap is not installed")
    made = subprocess.run([ROOT / "scripts/make-debian-base"], capture_output=True, text=True, check=True)
    base = Path(made.stdout.strip())
    kept = base.parent / f"tools-{hashlib.sha256(BASE.encode()).hexdigest()[:12]}.tar"
    if not kept.exists():
        context, store, part = _place / "base", _place / "base-store", kept.with_suffix(".part")
        context.mkdir()
        (context / "Dockerfile").write_text(BASE)
        assert as_root(store, "import", str(base), "debian").returncode == 0
        words = ("--network=host", "-o", f"type=tar,dest={part}")
        done = as_root(store, "build", *words, str(context))
        assert done.returncode == 0, done.stderr[-3000:]
        part.rename(kept)
        shutil.rmtree(store)
    readable = _place / "tools.tar"
    shutil.copy(kept, readable)
    readable.chmod(0o644)
    return readable


@pytest.fixture(scope="module")
def folder(_place: Path) -> Path:
    folder = _place / "tools"
    lay(folder)
    return folder


@pytest.fixture
def network(folder: Path) -> Iterator[Host]:
    """A host, and behind it a server of what is in `served`."""
    host = Host()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    handler = partial(Quiet, directory=str(folder / "served"))
    server = inside(host.outside, lambda: http.server.ThreadingHTTPServer(("0.0.0.0", 8080), handler))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield host
    server.shutdown()
    server.server_close()
    host.close()


Run = Callable[..., "subprocess.CompletedProcess[str]"]


def runner(request: pytest.FixtureRequest, rung: str, place: Path) -> tuple[Run, Path]:
    """pybuild on that rung, and its store."""
    who, _, storage = rung.partition("-")
    if who == "root":
        store = place / "tools-root"
        return partial(as_root, store), store
    user: Ordinary = request.getfixturevalue(who)
    prefix = device_for_all("/dev/net/tun", place)
    if storage == "fuse":
        prefix = [*fuse_for_all(place), *prefix]
    store = user.home / f"tools-{storage}"

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return user.behind(prefix, "--root", str(store), *words, PYBUILD_SNAPSHOTTER=storage)

    return run, store


RUNGS = ["root-overlay", "lent-overlay", "lent-fuse", "lent-copy", "bare-overlay"]


@pytest.mark.parametrize("rung", RUNGS)
def test_npm_pip_and_git(
    request: pytest.FixtureRequest, rung: str, tools: Path, folder: Path, network: Host, _place: Path
) -> None:
    run, store = runner(request, rung, _place)
    archive = store.with_suffix(".saved")
    try:
        assert run("import", str(tools), "tools").returncode == 0
        done = network.do(lambda: run("build", "-t", "done", str(folder / "context")))
        assert done.returncode == 0, done.stderr[-3000:]
        assert run("save", "-o", str(archive), "done").returncode == 0
        check(archive)
    finally:
        shutil.rmtree(store, ignore_errors=True)
        archive.unlink(missing_ok=True)


def check(archive: Path) -> None:
    """What the programs said, and whom their files belong to."""
    files, contents = {}, {}
    for layer in layers(archive):
        for info in layer:
            files[info.name] = info
            if info.name in SEEN:
                contents[info.name] = layer.extractfile(info).read().decode()
    assert contents == SEEN
    assert {name: (files[name].uid, files[name].gid) for name in OWNERS} == OWNERS
